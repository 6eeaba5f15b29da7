/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats of caches: elements in blocks, as codes and what scales them. A reader takes four codes at a time, those of
 * elements that begin at a multiple of four in their block, and decodes each when it is used. Written in words that each
 * language defines before:
 *   FA_CODES         a parameter that is memory
 *   FA_AT            the type of a number of bytes from its beginning
 *   FA_BITS16(m, at) the 16 bits, as an fa_uint, at byte `at`, which is even; the low byte comes first
 *   FA_BITS32(m, at) likewise 32 bits, where `at` is even and no more
 * A block lies at byte `block`. `type` is best a constant, or the same for all work-items.
 */
#ifndef FA_PORTABLE_CODES_H
#define FA_PORTABLE_CODES_H

#include "format.h"

/* An element is scale * n + offset, where n is the number that its code stands for. */
FA_STRUCT(fa_scaling)
    float scale, offset;
FA_STRUCT_END(fa_scaling)

FA_KERNEL_FN fa_scaling fa_scaling_of(int type, FA_CODES m, FA_AT block)
{
    fa_scaling s;
    s.scale = FA_TYPE_IS_FP8(type) ? 1.0f : fa_f16_widen(FA_BITS16(m, block));
    s.offset = FA_TYPE_HAS_OFFSET(type) ? fa_f16_widen(FA_BITS16(m, block + 2)) : 0.0f;
    return s;
}

/* The codes of elements e to e + 3 of a block, a byte for each. */
FA_KERNEL_FN fa_uint fa_codes_of(int type, FA_CODES m, FA_AT block, int e)
{
    if (FA_TYPE_CODE_BITS(type) == 8)
        return FA_BITS32(m, block + (FA_TYPE_IS_FP8(type) ? e : 2 + e));
    /* 16 bytes at the end of the block hold elements 0 to 15 in their lower halves, 16 to 31 in their upper ones. */
    fa_uint codes =
        FA_BITS32(m, block + (FA_TYPE_SIZE(type) - 16 + (e & 15))) >> (e & 16 ? 4u : 0u) & 0x0f0f0f0fu;
    if (FA_TYPE_CODE_BITS(type) == 5) { /* the fifth bits lie before them, a bit for each element */
        fa_uint fifth = FA_BITS32(m, block + (FA_TYPE_SIZE(type) - 20)) >> FA_UINT(e) & 15u;
        codes |= (fifth * 0x00204081u & 0x01010101u) << 4; /* the bits, a byte apart */
    }
    return codes;
}

/* Element i of four, 0 to 3. */
FA_KERNEL_FN float fa_decoded(int type, fa_uint codes, int i, fa_scaling s)
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
