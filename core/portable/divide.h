/* SPDX-License-Identifier: Apache-2.0 */
/* Quotients rounded to nearest, also in languages whose own may be some units in the last place off. */
#ifndef FA_PORTABLE_DIVIDE_H
#define FA_PORTABLE_DIVIDE_H

#include "lang.h"

/* x, scaled by a power of two so that it lies between 1 and 2. */
FA_FN float fa_significand(float x)
{
    return FA_AS_FLOAT((FA_AS_UINT(x) & 0x7fffffu) | 0x3f800000u);
}

/*
 * a / b, of which an estimate is known: `ratio` is that of their significands, off by four units in the last place at the
 * most. Of numbers that are not normal, and where the quotient is not, it is a / b as the language has it.
 */
FA_FN float fa_corrected_quotient(float a, float b, float ratio)
{
    const fa_uint bits_a = FA_AS_UINT(a), bits_b = FA_AS_UINT(b);
    const fa_uint part_a = (bits_a & 0x7fffffu) | 0x800000u, part_b = (bits_b & 0x7fffffu) | 0x800000u;
    const int power_a = FA_INT(bits_a >> 23 & 255u), power_b = FA_INT(bits_b >> 23 & 255u);
    const bool less = part_a < part_b;
    const int power = power_a - power_b + (less ? 126 : 127);
    if (power_a == 0 || power_a == 255 || power_b == 0 || power_b == 255 || power < 1 || power > 254)
        return a / b;
    /* The quotient has 24 bits. What remains is small, so that its low 32 bits are all of it. */
    fa_uint quotient = FA_UINT(ratio * (less ? 16777216.0f : 8388608.0f));
    int rest = FA_INT((part_a << (less ? 24u : 23u)) - quotient * part_b);
    for (int i = 0; i < 5 && rest < 0; i++) {
        rest += FA_INT(part_b);
        quotient--;
    }
    for (int i = 0; i < 5 && rest >= FA_INT(part_b); i++) {
        rest -= FA_INT(part_b);
        quotient++;
    }
    quotient += 2 * rest > FA_INT(part_b) ? 1u : 0u; /* no quotient lies halfway between two numbers */
    return FA_AS_FLOAT(((bits_a ^ bits_b) & 0x80000000u) | FA_UINT(power) << 23 | (quotient & 0x7fffffu));
}

#ifdef FA_DIVISION
#define FA_DIVIDE(a, b) ((a) / (b))
#else
FA_FN float fa_quotient(float a, float b)
{
    return fa_corrected_quotient(a, b, fa_significand(a) / fa_significand(b));
}
#define FA_DIVIDE(a, b) fa_quotient(a, b)
#endif

#endif
