/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes of native sparse attention's compressed branch. */
#ifndef FA_CORE_NSA_H
#define FA_CORE_NSA_H

#include <fastattn/nsa.h>

/* Replaces 0 by the paper's. FA_INVALID names the field. */
fa_status fa_nsa_check_sizes(int32_t *kernel, int32_t *stride);

/* How many compressed keys a row at that position sees. */
int64_t fa_nsa_seen(int64_t position, int32_t kernel, int32_t stride);

#endif
