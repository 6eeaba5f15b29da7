/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way into the formats of codes.h, as ggml's own quantiser goes, to the bit: of a block, its scaling, then a code for
 * each element. fp8 rounds to nearest, ties to even; what is larger than the largest number becomes that.
 */
#ifndef FA_PORTABLE_ENCODE_H
#define FA_PORTABLE_ENCODE_H

#include "decode.h"
#include "divide.h"

/* What the scaling of a block follows from. */
FA_STRUCT(fa_block_range)
    float peak; /* the first element of the largest magnitude */
    float least, greatest;
    float by_peak, by_code; /* of iq4_nl: sums of x^3 code and x^2 code^2, see fa_block_refine() */
    bool finite;            /* all elements are; a block of which one is not becomes NaN        */
FA_STRUCT_END(fa_block_range)

FA_STRUCT(fa_coder)
    float scale, offset, inverse; /* a code is the nearest to (x - offset) * inverse */
FA_STRUCT_END(fa_coder)

FA_FN fa_block_range fa_block_range_of(float x)
{
    fa_block_range r;
    r.peak = r.least = r.greatest = x;
    r.by_peak = r.by_code = 0.0f;
    r.finite = fa_is_finite(x);
    return r;
}

FA_FN fa_block_range fa_block_range_with(fa_block_range r, float x)
{
    if (FA_ABS(x) > FA_ABS(r.peak))
        r.peak = x;
    r.finite = r.finite && fa_is_finite(x);
    r.least = x < r.least ? x : r.least;
    r.greatest = x > r.greatest ? x : r.greatest;
    return r;
}

/* 1/x; 0 for 0. */
FA_FN float fa_inverse(float x)
{
    return x != 0.0f ? FA_DIVIDE(1.0f, x) : 0.0f;
}

FA_FN fa_coder fa_coder_of(int type, fa_block_range r)
{
    fa_coder c;
    c.offset = 0.0f;
    if (type == FA_TYPE_Q8_0) {
        c.scale = FA_DIVIDE(FA_ABS(r.peak), 127.0f);
    } else if (type == FA_TYPE_Q4_0 || type == FA_TYPE_Q5_0) {
        c.scale = r.peak * (type == FA_TYPE_Q4_0 ? -0.125f : -0.0625f);
    } else if (FA_TYPE_HAS_OFFSET(type)) {
        c.scale = FA_DIVIDE(r.greatest - r.least, type == FA_TYPE_Q4_1 ? 15.0f : 31.0f);
        c.offset = r.least;
    } else {
        c.scale = FA_DIVIDE(r.peak, -127.0f);
    }
    c.inverse = fa_inverse(c.scale);
    if (!r.finite || !fa_is_finite(c.inverse)) {
        c.scale = r.finite ? 0.0f : FA_AS_FLOAT(0x7fc00000u);
        c.inverse = 0.0f;
    }
    return c;
}

/* The greatest and the least number that a code alone stands for. */
FA_FN float fa_greatest_number(int type)
{
    return type == FA_TYPE_E4M3   ? 448.0f
           : type == FA_TYPE_E5M2 ? 57344.0f
           : type == FA_TYPE_E2M1 ? 6.0f
           : type == FA_TYPE_U2U1
               ? 1.0f /* which every element has a code for */
               : FA_FLOAT((1 << (FA_TYPE_CODE_BITS(type) - (FA_TYPE_IS_SIGNED(type) ? 1 : 0))) - 1);
}

FA_FN float fa_least_number(int type)
{
    float greatest = fa_greatest_number(type);
    return FA_TYPE_IS_UNSIGNED(type) ? 0.0f : FA_TYPE_IS_SIGNED(type) ? -greatest - 1.0f : -greatest;
}

/* Half is rounded away from zero. */
FA_FN int fa_nearest(float x)
{
    int whole = FA_INT(FA_ABS(x));
    whole += FA_ABS(x) - FA_FLOAT(whole) >= 0.5f ? 1 : 0;
    return x < 0.0f ? -whole : whole;
}

/* The code of iq4_nl whose number is nearest; of two, the greater. */
FA_FN fa_uint fa_iq4_nl_code(float x)
{
    fa_uint code = 0u;
    while (code < 15u && x - FA_FLOAT(fa_iq4_nl_number(code)) >= FA_FLOAT(fa_iq4_nl_number(code + 1u)) - x)
        code++;
    return code;
}

/* What an element is in steps of its scale; 0 where there is none. */
FA_FN float fa_coded_number(fa_coder c, float x)
{
    FA_PRECISE float y = c.inverse != 0.0f ? (x - c.offset) * c.inverse : 0.0f;
    return y;
}

FA_FN fa_uint fa_code_of(int type, fa_coder c, float x)
{
    float y = fa_coded_number(c, x);
    if (type == FA_TYPE_Q8_0)
        return FA_UINT(fa_nearest(y) + 128) ^ 128u;
    if (type == FA_TYPE_IQ4_NL)
        return fa_iq4_nl_code(y);
    int code = FA_INT(y + (FA_FLOAT(FA_TYPE_CENTRE(type)) + 0.5f));
    return FA_UINT(FA_MIN(code, FA_TYPE_CODE_BITS(type) == 4 ? 15 : 31));
}

/* iq4_nl chooses codes by the peak, then the scale that fits them best: each element is one summand. */
FA_FN fa_block_range fa_block_refine(fa_block_range r, fa_coder c, float x)
{
    FA_PRECISE float y = x * c.inverse, weight = x * x, n = FA_FLOAT(fa_iq4_nl_number(fa_iq4_nl_code(y)));
    FA_PRECISE float by_peak = weight * n * x, by_code = weight * n * n;
    r.by_peak += by_peak;
    r.by_code += by_code;
    return r;
}

FA_FN fa_uint fa_e4m3_narrow(float x)
{
    fa_uint bits = FA_AS_UINT(x), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
    if (fa_is_nan(x))
        return sign | 0x7fu;
    if (magnitude >= 0x43e80000u) /* 464 and more would round to more than 448 */
        return sign | 0x7eu;
    return sign | fa_narrowed(magnitude, 3u, 121u);
}

/*
 * The scale of a group of dims of one of FlashMLA's rows: with it the largest magnitude has the greatest code. It is normal, for
 * devices that take subnormal numbers for 0; and NaN where an element is not finite. Then codes are of elements over the scale.
 */
FA_FN float fa_mla_scale(fa_block_range r)
{
    float scale = FA_DIVIDE(FA_ABS(r.peak), 448.0f), least = FA_AS_FLOAT(0x00800000u);
    return !r.finite ? FA_AS_FLOAT(0x7fc00000u) : scale > least ? scale : least;
}

FA_FN fa_uint fa_mla_code(float scale, float x)
{
    return fa_is_finite(scale) ? fa_e4m3_narrow(FA_DIVIDE(x, scale)) : 0u;
}

FA_FN fa_uint fa_e5m2_narrow(float x)
{
    fa_uint bits = FA_AS_UINT(x), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
    if (fa_is_nan(x))
        return sign | 0x7fu;
    if (magnitude >= 0x47700000u) /* 61440 and more would round to more than 57344 */
        return sign | 0x7bu;
    return sign | fa_narrowed(magnitude, 2u, 113u);
}

/* To nearest, ties to even; what is larger than 6 becomes that. The format has no NaN: NaN becomes 6 too. */
FA_FN fa_uint fa_e2m1_narrow(float x)
{
    fa_uint bits = FA_AS_UINT(x), sign = bits >> 28 & 8u, magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x40a00000u) /* 5 and more: 5 lies between 4 and 6, and 6 has the odd code */
        return sign | (magnitude == 0x40a00000u ? 6u : 7u);
    return sign | fa_narrowed(magnitude, 1u, 127u);
}

/* The least power of two that is not less, so that codes keep within their range; of 0 and below, the least of all. */
FA_FN fa_uint fa_e8m0_narrow(float x)
{
    fa_uint bits = FA_AS_UINT(x), power = (bits + 0x7fffffu) >> 23;
    if (!fa_is_finite(x))
        return 255u;
    if (x <= 5.877471754111438e-39f) /* 2^-127 */
        return 0u;
    return FA_MIN(power, 254u);
}

/* The nearest whole number that has a code, half to even; NaN becomes 0. */
FA_FN fa_uint fa_whole_code(int type, float x)
{
    float least = fa_least_number(type), greatest = fa_greatest_number(type);
    float held = x > least ? (x < greatest ? x : greatest) : least;
    if (fa_is_nan(x))
        return 0u;
    int n = fa_nearest(held);
    if (FA_ABS(FA_FLOAT(n) - held) == 0.5f && n % 2 != 0)
        n -= held < 0.0f ? -1 : 1;
    return FA_UINT(n) & ((1u << FA_UINT(FA_TYPE_CODE_BITS(type) - 1)) * 2u - 1u);
}

/* The code of a number, in a format whose blocks are codes alone; also of a scale of a byte. */
FA_FN fa_uint fa_bare_code(int type, float x)
{
    return type == FA_TYPE_E4M3   ? fa_e4m3_narrow(x)
           : type == FA_TYPE_E5M2 ? fa_e5m2_narrow(x)
           : type == FA_TYPE_E2M1 ? fa_e2m1_narrow(x)
           : type == FA_TYPE_E8M0 ? fa_e8m0_narrow(x)
                                  : fa_whole_code(type, x);
}

/* The way back of fa_scale_widen(). */
FA_FN fa_uint fa_scale_narrow(int type, float x)
{
    return type == 0                ? FA_AS_UINT(x)
           : FA_TYPE_IS_CODED(type) ? fa_bare_code(type, x)
                                    : fa_float_narrow(type, x);
}

/*
 * The scale, and with `zeros` the zero, with which elements of that range fit the codes: the least element has the least
 * number, the greatest the greatest. Without zeros the peak has the greatest. The scale is NaN where an element is not finite.
 */
FA_FN fa_scaling fa_fitted(int type, fa_block_range r, bool zeros)
{
    float greatest = fa_greatest_number(type), least = fa_least_number(type);
    fa_scaling s;
    s.scale = FA_DIVIDE(FA_ABS(r.peak), greatest);
    s.offset = 0.0f;
    if (zeros) {
        s.scale = FA_DIVIDE(r.greatest - r.least, greatest - least);
        /* Either is rounded once: the least number is a power of two, or 0, or that of the other sign. */
        s.offset = least == -greatest ? 0.5f * r.least + 0.5f * r.greatest : r.least - s.scale * least;
    }
    if (!r.finite) {
        s.scale = FA_AS_FLOAT(0x7fc00000u);
        s.offset = 0.0f;
    }
    return s;
}

/* What makes numbers for fa_bare_code() of elements that have that scale and zero. */
FA_FN fa_coder fa_scaled_coder(fa_scaling s)
{
    fa_coder c;
    c.scale = s.scale;
    c.offset = s.offset;
    c.inverse = fa_inverse(s.scale);
    if (!fa_is_finite(c.inverse))
        c.inverse = 0.0f;
    return c;
}

#endif
