/* SPDX-License-Identifier: Apache-2.0 */
/* Codes of formats of caches as numbers. */
#ifndef FA_PORTABLE_DECODE_H
#define FA_PORTABLE_DECODE_H

#include "format.h"

/* An element is scale * n + offset, where n is the number that its code stands for. */
FA_STRUCT(fa_scaling)
    float scale, offset;
FA_STRUCT_END(fa_scaling)

/* The fifth bits of four codes, which are the lowest of `bits`, where they belong in their bytes. */
FA_FN fa_uint fa_fifths(fa_uint bits)
{
    return ((bits & 15u) * 0x00204081u & 0x01010101u) << 4;
}

/*
 * Two fp8, which are the upper bytes of two halves of a word, as two f16: languages widen these at once. A number in e4m3
 * becomes one that is 256 times smaller, exactly; NaN stays NaN.
 */
FA_FN fa_uint fa_fp8_halves(int type, fa_uint bytes)
{
    fa_uint magnitude = (bytes & 0x7f007f00u) >> 1;
    if (type == FA_TYPE_E5M2)
        return bytes;
    return (bytes & 0x80008000u) | magnitude | ((magnitude + 0x00800080u) & 0x40004000u);
}
#define FA_FP8_FACTOR(type) ((type) == FA_TYPE_E5M2 ? 1.0f : 256.0f)

/* Element i of four, 0 to 3. */
FA_FN float fa_decoded(int type, fa_uint codes, int i, fa_scaling s)
{
    fa_uint code = codes >> FA_UINT(8 * i) & 255u;
    if (type == FA_TYPE_E4M3)
        return fa_e4m3_widen(code);
    if (type == FA_TYPE_E5M2)
        return fa_f16_widen(code << 8);
    int n = type == FA_TYPE_Q8_0     ? FA_INT(code ^ 128u) - 128
            : type == FA_TYPE_IQ4_NL ? fa_iq4_nl_number(code)
                                     : FA_INT(code) - FA_TYPE_CENTRE(type);
    float x = s.scale * FA_FLOAT(n);
    return FA_TYPE_HAS_OFFSET(type) ? x + s.offset : x; /* the product is exact */
}

#endif
