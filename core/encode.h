/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of any type into memory. */
#ifndef FA_CORE_ENCODE_H
#define FA_CORE_ENCODE_H

#include <fastattn/attention.h>

/* `count` elements from number `index` on; in formats of caches, whole blocks of them. */
void fa_store_elements(fa_dtype dtype, void *base, int64_t index, const float *from, int64_t count);

#endif
