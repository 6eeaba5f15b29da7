/* SPDX-License-Identifier: Apache-2.0 */
/* f16 in plain C, and elements of any type by index. */
#ifndef FA_CORE_HALF_H
#define FA_CORE_HALF_H

#include <fastattn/attention.h>
#include <fastattn/reference.h>
#include <string.h>

#include "core/assumptions.h"
#include "core/portable/format.h"

static inline float fa_half_load(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ffu;
    if (exponent == 31)
        return fa_as_float(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0));
    if (exponent == 0) { /* a multiple of 2^-24: exact in f32 */
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    return fa_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

static inline float fa_load(fa_dtype dtype, const void *base, int64_t index)
{
    switch (dtype) {
    case FA_F32: return ((const float *)base)[index];
    case FA_F16: return fa_half_load(((const uint16_t *)base)[index]);
    case FA_BF16: return fa_bf16_widen(((const uint16_t *)base)[index]);
    case FA_BOOL: return ((const uint8_t *)base)[index] != 0;
    case FA_I32: break;
    }
    return 0;
}

static inline void fa_store(fa_dtype dtype, void *base, int64_t index, float value)
{
    switch (dtype) {
    case FA_F32: ((float *)base)[index] = value; break;
    case FA_F16: ((uint16_t *)base)[index] = (uint16_t)fa_f16_narrow(value); break;
    case FA_BF16: ((uint16_t *)base)[index] = (uint16_t)fa_bf16_narrow(value); break;
    case FA_BOOL:
    case FA_I32: break;
    }
}

#endif
