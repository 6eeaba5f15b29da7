/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_TESTS_GPU_KEY_LISTS_REFUSED_H
#define FASTATTN_TESTS_GPU_KEY_LISTS_REFUSED_H

#include "tests/gpu/on_backend.h"

/* Tests of what is refused. */
void add_refusals(TCase *tc);

#endif
