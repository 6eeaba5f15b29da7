/* SPDX-License-Identifier: Apache-2.0 */
/* f16 and bf16 in plain C, and elements of any type by index. */
#ifndef FA_CORE_HALF_H
#define FA_CORE_HALF_H

#include <fastattn/attention.h>
#include <fastattn/reference.h>
#include <string.h>

#include "core/assumptions.h"
#include "core/portable/lang.h"

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

static inline uint16_t fa_half_store(float value)
{
    uint32_t bits = fa_as_uint(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude <
        0x38800000u) { /* below 2^-14: a multiple of 2^-24. In integers, whatever way the caller rounds */
        uint32_t shift = 126 - (magnitude >> 23), significand = (magnitude & 0x7fffffu) | 0x800000u;
        if (shift > 24)
            return (uint16_t)sign;
        return (uint16_t)(sign |
                          (significand + (1u << (shift - 1)) - 1 + (significand >> shift & 1)) >> shift);
    }
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

static inline float fa_brain_load(uint16_t b)
{
    return fa_as_float((uint32_t)b << 16);
}

static inline uint16_t fa_brain_store(float value)
{
    uint32_t bits = fa_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float fa_load(fa_dtype dtype, const void *base, int64_t index)
{
    switch (dtype) {
    case FA_F32: return ((const float *)base)[index];
    case FA_F16: return fa_half_load(((const uint16_t *)base)[index]);
    case FA_BF16: return fa_brain_load(((const uint16_t *)base)[index]);
    case FA_BOOL: return ((const uint8_t *)base)[index] != 0;
    }
    return 0;
}

static inline void fa_store(fa_dtype dtype, void *base, int64_t index, float value)
{
    switch (dtype) {
    case FA_F32: ((float *)base)[index] = value; break;
    case FA_F16: ((uint16_t *)base)[index] = fa_half_store(value); break;
    case FA_BF16: ((uint16_t *)base)[index] = fa_brain_store(value); break;
    case FA_BOOL: break;
    }
}

#endif
