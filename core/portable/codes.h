/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats of caches: elements in blocks, as codes and what scales them. A reader takes four codes at a time, those of
 * elements that begin at a multiple of four in their block, and decodes each when it is used. Written in words that each
 * language defines before:
 *   FA_CODES         a parameter that is memory
 *   FA_AT            the type of a number of bytes from its beginning
 *   FA_BITS16(m, at) the 16 bits, as an fa_uint, at byte `at`, which is even; the low byte comes first
 *   FA_BITS32(m, at) likewise 32 bits, where `at` is even and no more; FA_BITS32_ALIGNED(m, at), where it is a multiple of four
 * A block lies at byte `block`. `type` is best a constant, or the same for all work-items.
 */
#ifndef FA_PORTABLE_CODES_H
#define FA_PORTABLE_CODES_H

#include "bitmap.h"

FA_KERNEL_FN fa_scaling fa_scaling_of(int type, FA_CODES m, FA_AT block)
{
    fa_scaling s;
    s.scale = FA_TYPE_IS_BARE(type) ? 1.0f : fa_f16_widen(FA_BITS16(m, block));
    s.offset = FA_TYPE_HAS_OFFSET(type) ? fa_f16_widen(FA_BITS16(m, block + 2)) : 0.0f;
    return s;
}

/* Elements e to e + 3 of a row that begins at byte `row`. One that keeps some of `dims` elements has `bytes` bytes. */
FA_KERNEL_FN fa_four fa_row_four(int type, FA_CODES m, FA_AT row, int e, int dims, int bytes)
{
    const int at = fa_mla_byte(e);
    if (FA_TYPE_PRUNES(type))
        return fa_bitmap_four(m, row, e, dims, bytes);
    return fa_mla_four(e, FA_BITS32(m, row + at), e < FA_MLA_LATENT ? 0u : FA_BITS32(m, row + (at + 4)),
                       FA_AS_FLOAT(FA_BITS32(m, row + fa_mla_scale_byte(e))));
}

/* The codes of elements e to e + 3 of any other block, a byte for each. */
FA_KERNEL_FN fa_uint fa_codes_of(int type, FA_CODES m, FA_AT block, int e)
{
    if (FA_TYPE_CODE_BITS(type) == 8)
        return FA_BITS32(m, block + (FA_TYPE_IS_BARE(type) ? e : 2 + e));
    if (FA_TYPE_IS_BARE(type))
        return fa_bare_codes(type, FA_BITS16(m, block + fa_bare_byte(type, e)), e);
    /* 16 bytes at the end of the block hold elements 0 to 15 in their lower halves, 16 to 31 in their upper ones. */
    fa_uint codes =
        FA_BITS32(m, block + (FA_TYPE_SIZE(type) - 16 + (e & 15))) >> ((e & 16) != 0 ? 4u : 0u) & 0x0f0f0f0fu;
    if (FA_TYPE_CODE_BITS(type) == 5) { /* the fifth bits lie before them, a bit for each element */
        codes |= fa_fifths(FA_BITS32(m, block + (FA_TYPE_SIZE(type) - 20)) >> FA_UINT(e));
    }
    return codes;
}

#endif
