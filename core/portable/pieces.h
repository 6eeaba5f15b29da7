/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A piece of a block: 4 elements or 8 from d on; or 16, which are 8 from d on, and 8 behind them or, of codes that
 * share bytes, 16 further. The first words hold the codes, 3 and 4 their fifth bits, 5 and 6 what scales them. The last
 * one says where in its word the block begins, and above that, which of its elements is the first. Written in the words
 * of blocks.h, and in
 *   FA_PIECE, FA_PIECE_NONE  eight words, and that many zeros
 *   FA_P0 to FA_P7           its words; FA_P01 and FA_P23 are two of them
 *   FA_AT                    the type of a number of bytes
 *   FA_PIECE_TYPE            the type, which FA_TYPE_GIVEN makes a parameter, with a comma behind it, if the language
 *                            needs one
 *   FA_OPERAND_GIVEN         likewise a parameter that is the operand
 *   FA_WORD_AT(at)           the word of it at byte `at`, a multiple of four
 *   FA_PAIR_AT(at)           the two words there, at a multiple of eight
 */
#ifndef FA_PORTABLE_PIECES_H
#define FA_PORTABLE_PIECES_H

#include "blocks.h"

/* Where the word begins that holds the 16 bits at an even byte. */
#define FA_WORD_OF(at) ((at) & ~FA_INDEX(3))

FA_KERNEL_FN fa_uint fa_piece_word(FA_PIECE x, int n)
{
    return n < 4 ? (n < 2 ? (n == 0 ? x.FA_P0 : x.FA_P1) : (n == 2 ? x.FA_P2 : x.FA_P3))
                 : (n == 4 ? x.FA_P4 : x.FA_P5);
}

FA_KERNEL_FN FA_PIECE fa_piece_fetch(FA_OPERAND_GIVEN FA_TYPE_GIVEN int elements, FA_AT row, int d)
{
    const bool bytes = FA_TYPE_CODE_BITS(FA_PIECE_TYPE) == 8;
    const FA_AT block = FA_BLOCK_AT(FA_PIECE_TYPE, row, d);
    const int e = FA_IN_BLOCK(FA_PIECE_TYPE, d), words = bytes || elements < 16 ? elements / 4 : 2;
    const FA_AT codes = block + FA_INDEX(FA_CODES_AT(FA_PIECE_TYPE) + (bytes ? e : e & 15)),
                first = FA_WORD_OF(codes);
    FA_PIECE x = FA_PIECE_NONE;
    if (FA_IN_PAIRS(FA_PIECE_TYPE) && words > 1) {
        x.FA_P01 = FA_PAIR_AT(codes);
        if (words == 4)
            x.FA_P23 = FA_PAIR_AT(codes + FA_INDEX(8));
    } else {
        x.FA_P0 = FA_WORD_AT(first);
        if (words > 1)
            x.FA_P1 = FA_WORD_AT(first + FA_INDEX(4));
        if (words > 2) {
            x.FA_P2 = FA_WORD_AT(first + FA_INDEX(8));
            x.FA_P3 = FA_WORD_AT(first + FA_INDEX(12));
        }
        if (FA_SHIFT_OF(FA_PIECE_TYPE, codes) != 0u) { /* one word more, which no even one may touch */
            const fa_uint more = FA_WORD_AT(first + FA_INDEX(4 * words));
            if (words == 1)
                x.FA_P1 = more;
            else if (words == 2)
                x.FA_P2 = more;
            else
                x.FA_P4 = more;
        }
    }
    if (FA_TYPE_CODE_BITS(FA_PIECE_TYPE) == 5) {
        x.FA_P3 = FA_WORD_AT(FA_WORD_OF(block + FA_INDEX(FA_FIFTHS_AT(FA_PIECE_TYPE))));
        if (!FA_IN_WORDS(FA_PIECE_TYPE))
            x.FA_P4 = FA_WORD_AT(FA_WORD_OF(block + FA_INDEX(FA_FIFTHS_AT(FA_PIECE_TYPE) + 2)));
    }
    if (!FA_TYPE_IS_FP8(FA_PIECE_TYPE))
        x.FA_P5 = FA_WORD_AT(FA_WORD_OF(block));
    if (FA_TYPE_HAS_OFFSET(FA_PIECE_TYPE)) {
        if (!FA_IN_WORDS(FA_PIECE_TYPE))
            x.FA_P6 = FA_WORD_AT(FA_WORD_OF(block + FA_INDEX(2)));
    }
    x.FA_P7 = (FA_UINT(block) & 3u) | FA_UINT(e) << 2;
    return x;
}

FA_KERNEL_FN fa_block_scaling fa_piece_scaling(FA_TYPE_GIVEN FA_PIECE x)
{
    const fa_uint shift = FA_SHIFT_OF(FA_PIECE_TYPE, x.FA_P7);
    return fa_block_scaling_of(FA_TYPE_HAS_OFFSET(FA_PIECE_TYPE) ? fa_joined(x.FA_P5, x.FA_P6, shift)
                                                                 : x.FA_P5 >> shift);
}

/* Four of its elements. */
FA_KERNEL_FN fa_vec4 fa_piece_four(FA_TYPE_GIVEN int elements, FA_PIECE x, int i, fa_block_scaling s)
{
    /* Of 16 elements in shared bytes: first the lower halves, then the upper ones. */
    const bool halves = elements == 16 && FA_TYPE_CODE_BITS(FA_PIECE_TYPE) != 8;
    const int n = halves ? i & 1 : i, at = FA_INT(x.FA_P7);
    const fa_uint codes = fa_joined(fa_piece_word(x, n), fa_piece_word(x, n + 1),
                                    FA_SHIFT_OF(FA_PIECE_TYPE, at + FA_CODES_AT(FA_PIECE_TYPE)));
    const fa_uint fifths =
        fa_joined(x.FA_P3, x.FA_P4, FA_SHIFT_OF(FA_PIECE_TYPE, at + FA_FIFTHS_AT(FA_PIECE_TYPE)));
    return fa_block_four(FA_PIECE_TYPE, codes, fifths, (at >> 2) + (halves ? i / 2 * 16 : 0) + 4 * n, s);
}

#endif
