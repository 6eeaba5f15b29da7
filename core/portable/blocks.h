/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements of blocks from words as they lie in memory, for OpenCL and Vulkan: what begins at an even byte is put
 * together from two words when it is used, so that no fetch waits for another. Written in the words of work.h, and in
 *   ALIGNED                    not 0: operands in blocks begin at multiples of 16 bytes
 *   FA_WIDEN_PAIRS(even, odd)  the f16 of two words, of elements 0 and 2 and of 1 and 3, as an fa_vec4
 *   FA_SHIFTED(low, high, n)   the low word of two that are shifted right; not where there are no integers of 64 bits
 *   FA_SCALED4(x, scale, offset) x * scale + offset, of an fa_vec4 and two floats
 */
#ifndef FA_PORTABLE_BLOCKS_H
#define FA_PORTABLE_BLOCKS_H

#include "decode.h"

/* Whether blocks lie at multiples of four bytes, or of eight: constants in GLSL too, where such are not made by &&. */
#define FA_IN_WORDS(type) (ALIGNED != 0 ? FA_TYPE_SIZE(type) % 4 == 0 : false)
#define FA_IN_PAIRS(type) (ALIGNED != 0 ? FA_TYPE_SIZE(type) % 8 == 0 : false)
/* The bits before what begins at byte `at`, which is even, in its word. */
#define FA_SHIFT_OF(type, at) (FA_IN_WORDS(type) ? 0u : (FA_UINT(at) & 2u) * 8u)
/* Where the codes of a block begin, and their fifth bits. */
#define FA_CODES_AT(type) \
    (FA_TYPE_IS_BARE(type) ? 0 : FA_TYPE_CODE_BITS(type) == 8 ? 2 : FA_TYPE_SIZE(type) - 16)
#define FA_FIFTHS_AT(type) (FA_TYPE_CODE_BITS(type) == 5 ? FA_TYPE_SIZE(type) - 20 : 0)
/* The block of dim d of a row that lies at byte `row`, and the number of d in it; not of a row that is a block. */
#define FA_BLOCK_AT(type, row, d) ((row) + FA_INDEX(FA_TYPE_SPAN(type, d)))
#define FA_IN_BLOCK(type, d) ((d) & ((1 << FA_TYPE_BLOCK_SHIFT(type)) - 1))

/* 32 bits of two words that follow each other, from bit `shift` on: 0, 16 or 32. */
FA_KERNEL_FN fa_uint fa_joined(fa_uint low, fa_uint high, fa_uint shift)
{
#ifdef FA_SHIFTED
    return FA_SHIFTED(low, high, shift);
#else
    return shift == 0u ? low : shift == 32u ? high : low >> 16 | high << 16;
#endif
}

/* 32 bits from an even byte on of a block that lies in words, and begins at bit `shift` of the first. */
#define FA_BLOCK_BITS(block, byte, shift) \
    fa_joined(block[(byte) / 4], block[(byte) / 4 + 1], (shift) + FA_UINT((byte) % 4 * 8))

/* A scale and an offset, as they are used. */
FA_STRUCT(fa_block_scaling)
    float scale, offset;
FA_STRUCT_END(fa_block_scaling)

/* Of the scale in the lower half of a word, and of the offset above it where there is one. */
FA_KERNEL_FN fa_block_scaling fa_block_scaling_of(fa_uint bits)
{
    const fa_vec4 x = FA_WIDEN_PAIRS(bits, bits);
    fa_block_scaling s;
    s.scale = x.x;
    s.offset = x.z;
    return s;
}

/* Four codes, a byte each, as numbers. */
FA_KERNEL_FN fa_vec4 fa_four_decoded(int type, fa_uint codes, fa_block_scaling s)
{
    fa_vec4 x;
    if (FA_TYPE_IS_FP8(type)) {
        x = FA_WIDEN_PAIRS(fa_fp8_halves(type, codes << 8 & 0xff00ff00u),
                           fa_fp8_halves(type, codes & 0xff00ff00u)) *
            FA_FP8_FACTOR(type);
    } else {
        const fa_uint bytes = fa_code_bytes(type, codes);
        x = FA_WIDEN_PAIRS(FA_BYTE_HALVES(type, bytes), FA_BYTE_HALVES(type, bytes >> 8)) -
            FA_BYTE_ZERO(type);
        x = FA_TYPE_HAS_OFFSET(type) ? FA_SCALED4(x, s.scale, s.offset) : x * s.scale;
    }
    return x;
}

/* Elements e to e + 3 of a block, of the word that has their codes and of the one that has fifth bits. */
FA_KERNEL_FN fa_vec4 fa_block_four(int type, fa_uint codes, fa_uint fifths, int e, fa_block_scaling s)
{
    if (FA_TYPE_CODE_BITS(type) != 8)
        codes >>= FA_UINT((e & 16) / 4);
    if (FA_TYPE_CODE_BITS(type) == 5)
        codes = (codes & 0x0f0f0f0fu) | fa_fifths(fifths >> FA_UINT(e));
    return fa_four_decoded(type, codes, s);
}

/* Elements 4 i to 4 i + 3 of a whole block, which lies in words. */
#define FA_BLOCK_FOUR(type, block, i, shift, s)                                                            \
    fa_block_four(                                                                                         \
        type,                                                                                              \
        FA_BLOCK_BITS(block, FA_CODES_AT(type) + 4 * (FA_TYPE_CODE_BITS(type) == 8 ? (i) : (i)&3), shift), \
        FA_BLOCK_BITS(block, FA_FIFTHS_AT(type), shift), 4 * (i), s)

#endif
