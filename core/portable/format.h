/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Types of elements by number, as fa_dtype has them; elements of 16 bits, as the low bits of a word. Narrowing rounds
 * to nearest, ties to even, whatever way the caller rounds. It is done in integers: a device's own conversion may round
 * otherwise, and its arithmetic may take subnormal numbers for 0.
 */
#ifndef FA_PORTABLE_FORMAT_H
#define FA_PORTABLE_FORMAT_H

#include "lang.h"

/* Bytes of an element of f32, f16 or bf16. */
#define FA_TYPE_BYTES(type) ((type) == 0 ? 4 : 2)

FA_FN float fa_bf16_widen(fa_uint bits)
{
    return FA_AS_FLOAT(bits << 16);
}

FA_FN fa_uint fa_bf16_narrow(float x)
{
    fa_uint bits = FA_AS_UINT(x);
    if (fa_is_nan(x))
        return bits >> 16 | 0x40u; /* rounding could make it infinite */
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

FA_FN fa_uint fa_f16_narrow(float x)
{
    fa_uint bits = FA_AS_UINT(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (fa_is_nan(x))
        return sign | 0x7e00u | (magnitude >> 13 & 0x3ffu);
    if (magnitude >= 0x477ff000u) /* rounds to 65536 or more */
        return sign | 0x7c00u;
    if (magnitude < 0x38800000u) { /* below 2^-14: a multiple of 2^-24 */
        fa_uint shift = 126u - (magnitude >> 23), significand = (magnitude & 0x7fffffu) | 0x800000u;
        if (shift > 24u)
            return sign;
        return sign | (significand + (1u << (shift - 1u)) - 1u + (significand >> shift & 1u)) >> shift;
    }
    magnitude += 0xfffu + (magnitude >> 13 & 1u);
    return sign | (magnitude - 0x38000000u) >> 13;
}

#endif
