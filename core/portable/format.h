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

/* The formats of caches, as fa_dtype has them; see codes.h. */
#define FA_TYPE_E4M3 5
#define FA_TYPE_E5M2 6
#define FA_TYPE_Q8_0 7
#define FA_TYPE_Q4_0 8
#define FA_TYPE_Q4_1 9
#define FA_TYPE_Q5_0 10
#define FA_TYPE_Q5_1 11
#define FA_TYPE_IQ4_NL 12
#define FA_TYPE_I8 13
#define FA_TYPE_I4 14
#define FA_TYPE_I2 15
#define FA_TYPE_U8 16
#define FA_TYPE_U4 17
#define FA_TYPE_U2 18
#define FA_TYPE_E2M1 19
#define FA_TYPE_E8M0 20
#define FA_TYPE_U1 21
#define FA_TYPE_U2U1 22
#define FA_TYPE_FP8_DS_MLA 23
#define FA_TYPE_BITMAP_F16 24
#define FA_TYPE_IS_CODED(type) ((type) >= FA_TYPE_E4M3)
#define FA_TYPE_IS_FP8(type) ((type) == FA_TYPE_E4M3 || (type) == FA_TYPE_E5M2)
/* A row is no sequence of blocks: its parts differ. Of FlashMLA's it is one block, see decode.h. Of rows that keep some of their
 * elements, see bitmap.h, a byte is. */
#define FA_TYPE_IS_ROW(type) ((type) >= FA_TYPE_FP8_DS_MLA)
#define FA_TYPE_IS_MLA(type) ((type) == FA_TYPE_FP8_DS_MLA)
#define FA_TYPE_PRUNES(type) ((type) == FA_TYPE_BITMAP_F16)
/* Blocks are codes alone: what scales them, if anything does, lies elsewhere. */
#define FA_TYPE_IS_BARE(type) ((type) >= FA_TYPE_I8 ? (type) <= FA_TYPE_U2U1 : FA_TYPE_IS_FP8(type))
#define FA_TYPE_IS_SIGNED(type) ((type) >= FA_TYPE_I8 && (type) <= FA_TYPE_I2)
#define FA_TYPE_IS_UNSIGNED(type) \
    (((type) >= FA_TYPE_U8 && (type) <= FA_TYPE_U2) || (type) == FA_TYPE_U1 || (type) == FA_TYPE_U2U1)
#define FA_TYPE_HAS_OFFSET(type) ((type) == FA_TYPE_Q4_1 || (type) == FA_TYPE_Q5_1)
/* Of the codes of a block that is no row. */
#define FA_TYPE_CODE_BITS(type)                                                                           \
    ((type) <= FA_TYPE_Q8_0 || (type) == FA_TYPE_I8 || (type) == FA_TYPE_U8 || (type) == FA_TYPE_E8M0 ? 8 \
     : (type) == FA_TYPE_Q5_0 || (type) == FA_TYPE_Q5_1                                               ? 5 \
     : (type) == FA_TYPE_I2 || (type) == FA_TYPE_U2 || (type) == FA_TYPE_U2U1                         ? 2 \
     : (type) == FA_TYPE_U1                                                                           ? 1 \
                                                                                                      : 4)
#define FA_TYPE_CENTRE(type) \
    ((type) == FA_TYPE_Q4_0 ? 8 : (type) == FA_TYPE_Q5_0 ? 16 : 0) /* the code of 0 */
/* FlashMLA's rows of 656 bytes: 512 dims in e4m3, then their scales in f32, one of 128 dims, then 64 dims in bf16. */
#define FA_MLA_DIMS 576
#define FA_MLA_LATENT 512 /* the dims in e4m3, which are v */
#define FA_MLA_GROUP 128  /* dims that share a scale       */
#define FA_MLA_BYTES 656
/* Of a row that keeps some of so many elements: bytes of its bits, and elements that it has room for in so many bytes. */
#define FA_BITMAP_BYTES(dims) (((dims) + 31) / 32 * 4)
#define FA_BITMAP_ROOM(dims, bytes) FA_MIN(dims, ((bytes)-FA_BITMAP_BYTES(dims)) / 2)
/* The logarithm of a block's elements, but of rows; its bytes; the bytes of so many elements, which are whole blocks. */
#define FA_TYPE_BLOCK_SHIFT(type)                          \
    (!FA_TYPE_IS_CODED(type) || FA_TYPE_PRUNES(type)   ? 0 \
     : (type) == FA_TYPE_U1                            ? 4 \
     : FA_TYPE_IS_BARE(type) && (type) != FA_TYPE_U2U1 ? 3 \
                                                       : 5)
#define FA_TYPE_SIZE(type)                               \
    ((type) == 0               ? 4                       \
     : !FA_TYPE_IS_CODED(type) ? 2                       \
     : FA_TYPE_IS_MLA(type)    ? FA_MLA_BYTES            \
     : FA_TYPE_PRUNES(type)    ? 1                       \
     : (type) == FA_TYPE_U1    ? 2                       \
     : (type) == FA_TYPE_U2U1  ? 6                       \
     : FA_TYPE_IS_BARE(type)   ? FA_TYPE_CODE_BITS(type) \
     : (type) == FA_TYPE_Q8_0  ? 34                      \
     : (type) == FA_TYPE_Q4_1  ? 20                      \
     : (type) == FA_TYPE_Q5_0  ? 22                      \
     : (type) == FA_TYPE_Q5_1  ? 24                      \
                               : 18)
#define FA_TYPE_SPAN(type, elements)                                      \
    (FA_TYPE_IS_MLA(type) ? (elements) / FA_MLA_DIMS * FA_TYPE_SIZE(type) \
                          : ((elements) >> FA_TYPE_BLOCK_SHIFT(type)) * FA_TYPE_SIZE(type))

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

/* Without branches: work-items widen many at once. */
FA_FN float fa_f16_widen(fa_uint bits)
{
    fa_uint sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    fa_uint special = magnitude > 0x7c00u ? 0x7fc00000u : magnitude == 0x7c00u ? 0x7f800000u : 0u;
    fa_uint small =
        FA_AS_UINT(FA_FLOAT(magnitude) * 5.9604644775390625e-8f); /* below 2^-14: multiples of 2^-24 */
    return FA_AS_FLOAT(sign | special | (magnitude < 0x400u ? small : (magnitude << 13) + 0x38000000u));
}

FA_FN float fa_e4m3_widen(fa_uint bits)
{
    fa_uint sign = (bits & 0x80u) << 24, magnitude = bits & 0x7fu;
    if (magnitude == 0x7fu)
        return FA_AS_FLOAT(sign | 0x7fc00000u);
    if (magnitude < 8u) /* a multiple of 2^-9 */
        return FA_AS_FLOAT(sign | FA_AS_UINT(FA_FLOAT(magnitude) * 0.001953125f));
    return FA_AS_FLOAT(sign | (magnitude + 960u) << 20);
}

/* A power of two; NaN for 255. */
FA_FN float fa_e8m0_widen(fa_uint bits)
{
    return FA_AS_FLOAT(bits == 255u ? 0x7fc00000u : bits == 0u ? 0x00400000u : bits << 23);
}

FA_FN float fa_e2m1_widen(fa_uint bits)
{
    fa_uint magnitude = bits & 7u;
    float x =
        0.5f * FA_FLOAT(magnitude < 2u ? magnitude : (2u + (magnitude & 1u)) << ((magnitude >> 1) - 1u));
    return (bits & 8u) != 0u ? -x : x;
}

/* The numbers that the codes of iq4_nl stand for, from the least to the greatest. */
FA_FN int fa_iq4_nl_number(fa_uint code)
{
    /* A byte each, 128 more than the number. */
    fa_uint word =
        code < 8u ? (code < 4u ? 0x3f2d1801u : 0x766a5d4fu) : (code < 12u ? 0xa6998d81u : 0xf1d9c5b5u);
    return FA_INT(word >> 8u * (code & 3u) & 255u) - 128;
}

/*
 * The magnitude of an f32 with `mantissa` bits, where numbers are normal from an f32's exponent `least` on. It must not
 * round to more than the largest number.
 */
FA_FN fa_uint fa_narrowed(fa_uint magnitude, fa_uint mantissa, fa_uint least)
{
    fa_uint drop = 23u - mantissa, exponent = magnitude >> 23;
    if (exponent < least) {
        fa_uint shift = drop + least - exponent, significand = (magnitude & 0x7fffffu) | 0x800000u;
        if (shift > 24u)
            return 0u;
        return (significand + (1u << (shift - 1u)) - 1u + (significand >> shift & 1u)) >> shift;
    }
    magnitude += (1u << (drop - 1u)) - 1u + (magnitude >> drop & 1u);
    return (magnitude - ((least - 1u) << 23)) >> drop;
}

FA_FN fa_uint fa_f16_narrow(float x)
{
    fa_uint bits = FA_AS_UINT(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (fa_is_nan(x))
        return sign | 0x7e00u | (magnitude >> 13 & 0x3ffu);
    if (magnitude >= 0x477ff000u) /* rounds to 65536 or more */
        return sign | 0x7c00u;
    return sign | fa_narrowed(magnitude, 10u, 113u);
}

/* An element of f32, f16 or bf16, of which `bits` are those of the word or half that holds it. */
FA_FN float fa_float_widen(int type, fa_uint bits)
{
    return type == 0 ? FA_AS_FLOAT(bits) : type == 1 ? fa_f16_widen(bits) : fa_bf16_widen(bits);
}

/* The way back, of f16 or bf16. */
FA_FN fa_uint fa_float_narrow(int type, float x)
{
    return type == 1 ? fa_f16_narrow(x) : fa_bf16_narrow(x);
}

#endif
