/* SPDX-License-Identifier: Apache-2.0 */
/* Codes of formats of caches as numbers. */
#ifndef FA_PORTABLE_DECODE_H
#define FA_PORTABLE_DECODE_H

#include "format.h"

/* An element is scale * n + offset, where n is the number that its code stands for. */
FA_STRUCT(fa_scaling)
    float scale, offset;
FA_STRUCT_END(fa_scaling)

/* Four codes of one bit, which are the lowest of `bits`: a byte for each. */
FA_FN fa_uint fa_singles(fa_uint bits)
{
    return (bits & 15u) * 0x00204081u & 0x01010101u;
}

/* The fifth bits of four codes, which are the lowest of `bits`, where they belong in their bytes. */
FA_FN fa_uint fa_fifths(fa_uint bits)
{
    return fa_singles(bits) << 4;
}

/* Four codes of 4 bits in the lower half of a word, and of 2 bits in its lowest byte: a byte for each. */
FA_FN fa_uint fa_nibbles(fa_uint bits)
{
    bits = (bits & 0xffu) | (bits & 0xff00u) << 8;
    return (bits & 0x000f000fu) | (bits & 0x00f000f0u) << 4;
}

FA_FN fa_uint fa_pairs(fa_uint bits)
{
    bits = (bits & 0xfu) | (bits & 0xf0u) << 12;
    return (bits & 0x00030003u) | (bits & 0x000c000cu) << 6;
}

/*
 * Codes alone of fewer than 8 bits: the byte of a block where the 16 bits lie that hold elements e to e + 3, and what those
 * are, a byte for each. A block of u2u1 begins with 16 codes of 2 bits; 16 of one bit follow.
 */
FA_FN int fa_bare_byte(int type, int e)
{
    if (type == FA_TYPE_U2U1)
        return e < 16 ? e >> 3 << 1 : 4;
    return FA_TYPE_CODE_BITS(type) == 4 ? e >> 1 : 0;
}

FA_FN fa_uint fa_bare_codes(int type, fa_uint bits, int e)
{
    if (FA_TYPE_CODE_BITS(type) == 4)
        return fa_nibbles(bits);
    if (type == FA_TYPE_U1 || (type == FA_TYPE_U2U1 && e >= 16))
        return fa_singles(bits >> FA_UINT(e & 15));
    return fa_pairs(bits >> FA_UINT(2 * (e & 7)));
}

/*
 * Two fp8, which are the upper bytes of two halves of a word, as two f16: languages widen these at once. A number in e4m3
 * becomes one that is 256 times smaller, exactly; NaN stays NaN.
 */
FA_FN fa_uint fa_fp8_halves(int type, fa_uint bytes)
{
    fa_uint magnitude = (bytes & 0x7f007f00u) >> 1;
    fa_uint halves = (bytes & 0x80008000u) | magnitude | ((magnitude + 0x00800080u) & 0x40004000u);
    return type == FA_TYPE_E5M2 ? bytes : halves;
}
#define FA_FP8_FACTOR(type) ((type) == FA_TYPE_E5M2 ? 1.0f : 256.0f)

/*
 * Four codes of a block as bytes: each is its number and a centre. The upper bits of bytes of four bits need not be 0. A byte
 * in the lower part of a half of a word, below 0x64, is an f16: the byte and 1024. Languages widen two of these at once, which
 * is faster than to convert integers. Then an element is scale * (x - FA_BYTE_ZERO(type)), where all is exact, and the offset.
 * The difference comes first: an infinite scale of both terms would make NaN.
 */
FA_FN fa_uint fa_code_bytes(int type, fa_uint codes)
{
    fa_uint bytes = codes;
    if (type == FA_TYPE_IQ4_NL)
        bytes = FA_UINT(fa_iq4_nl_number(codes & 15u) + 128) |
                FA_UINT(fa_iq4_nl_number(codes >> 8 & 15u) + 128) << 8 |
                FA_UINT(fa_iq4_nl_number(codes >> 16 & 15u) + 128) << 16 |
                FA_UINT(fa_iq4_nl_number(codes >> 24 & 15u) + 128) << 24;
    return bytes;
}
#define FA_BYTE_HALVES(type, bytes)                                                               \
    (((bytes) & ((type) == FA_TYPE_Q4_0 || (type) == FA_TYPE_Q4_1 ? 0x000f000fu : 0x00ff00ffu)) ^ \
     ((type) == FA_TYPE_Q8_0 ? 0x64806480u : 0x64006400u))
#define FA_BYTE_ZERO(type) \
    (1024.0f + FA_FLOAT((type) == FA_TYPE_Q8_0 || (type) == FA_TYPE_IQ4_NL ? 128 : FA_TYPE_CENTRE(type)))

/* The number that a code stands for, in a format whose blocks are codes alone. */
FA_FN float fa_bare_number(int type, fa_uint code)
{
    fa_uint top = 1u << FA_UINT(FA_TYPE_CODE_BITS(type) - 1);
    if (type == FA_TYPE_E4M3)
        return fa_e4m3_widen(code);
    if (type == FA_TYPE_E5M2)
        return fa_f16_widen(code << 8);
    if (type == FA_TYPE_E8M0)
        return fa_e8m0_widen(code);
    if (type == FA_TYPE_E2M1)
        return fa_e2m1_widen(code);
    return FA_FLOAT(FA_TYPE_IS_SIGNED(type) ? FA_INT(code ^ top) - FA_INT(top) : FA_INT(code));
}

FA_STRUCT(fa_four)
    float x[4];
FA_STRUCT_END(fa_four)

/* Elements e to e + 3 of one of FlashMLA's rows, e a multiple of four: the byte of the row where they begin, and their scale. */
FA_FN int fa_mla_byte(int e)
{
    return e < FA_MLA_LATENT ? e : FA_MLA_BYTES - 2 * (FA_MLA_DIMS - e);
}

FA_FN int fa_mla_scale_byte(int e)
{
    return FA_MLA_LATENT + 4 * (FA_MIN(e, FA_MLA_LATENT - 1) / FA_MLA_GROUP);
}

/* What they are: low and high are the 64 bits at their byte. A product is rounded once. In bf16 they have no scale. */
FA_FN fa_four fa_mla_four(int e, fa_uint low, fa_uint high, float scale)
{
    bool codes = e < FA_MLA_LATENT;
    fa_four f;
    f.x[0] = codes ? scale * fa_e4m3_widen(low & 255u) : fa_bf16_widen(low & 0xffffu);
    f.x[1] = codes ? scale * fa_e4m3_widen(low >> 8 & 255u) : fa_bf16_widen(low >> 16);
    f.x[2] = codes ? scale * fa_e4m3_widen(low >> 16 & 255u) : fa_bf16_widen(high & 0xffffu);
    f.x[3] = codes ? scale * fa_e4m3_widen(low >> 24) : fa_bf16_widen(high >> 16);
    return f;
}

/* A scale or a zero, of the bits that it has in a tensor of its own. */
FA_FN float fa_scale_widen(int type, fa_uint bits)
{
    return FA_TYPE_IS_CODED(type) ? fa_bare_number(type, bits) : fa_float_widen(type, bits);
}

/* Element i of four, 0 to 3. */
FA_FN float fa_decoded(int type, fa_uint codes, int i, fa_scaling s)
{
    fa_uint code = codes >> FA_UINT(8 * i) & 255u;
    if (FA_TYPE_IS_BARE(type))
        return fa_bare_number(type, code);
    int n = type == FA_TYPE_Q8_0     ? FA_INT(code ^ 128u) - 128
            : type == FA_TYPE_IQ4_NL ? fa_iq4_nl_number(code)
                                     : FA_INT(code) - FA_TYPE_CENTRE(type);
    float x = s.scale * FA_FLOAT(n);
    return FA_TYPE_HAS_OFFSET(type) ? x + s.offset : x; /* the product is exact */
}

#endif
