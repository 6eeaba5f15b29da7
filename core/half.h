/* SPDX-License-Identifier: Apache-2.0 */
/* f16 in plain C, and elements of any type by index. */
#ifndef FA_CORE_HALF_H
#define FA_CORE_HALF_H

#include <fastattn/attention.h>
#include <fastattn/reference.h>
#include <string.h>

#include "core/assumptions.h"
#include "core/portable/format.h"

/* An element of a format of caches. */
float fa_load_coded(fa_dtype dtype, const void *base, int64_t index);
/* Dim d of a row that keeps some of its elements; and the row from all of them. */
float fa_load_pruned(const void *row, int dims, int bytes, int d);
void fa_store_pruned(void *row, int bytes, const float *from, int dims);

static inline float fa_load(fa_dtype dtype, const void *base, int64_t index)
{
    switch (dtype) {
    case FA_F32: return ((const float *)base)[index];
    case FA_F16: return fa_f16_widen(((const uint16_t *)base)[index]);
    case FA_BF16: return fa_bf16_widen(((const uint16_t *)base)[index]);
    case FA_BOOL: return ((const uint8_t *)base)[index] != 0;
    default: return fa_load_coded(dtype, base, index);
    }
}

static inline void fa_store(fa_dtype dtype, void *base, int64_t index, float value)
{
    switch (dtype) {
    case FA_F32: ((float *)base)[index] = value; break;
    case FA_F16: ((uint16_t *)base)[index] = (uint16_t)fa_f16_narrow(value); break;
    case FA_BF16: ((uint16_t *)base)[index] = (uint16_t)fa_bf16_narrow(value); break;
    default: break;
    }
}

#endif
