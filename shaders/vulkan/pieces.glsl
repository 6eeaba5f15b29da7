/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values in blocks as rows.comp fetches them. */

/*
 * A whole block of a key: its words, with one behind them to be put together with the last. An array holds them, which the
 * kernel fills.
 */
#define BLOCK_ROOM 10
const int BLOCK_WORDS = !BLOCKS_K ? 0 : SIZE_K / 4 + (1 - k_in_words);
const int K_IN_PAIRS = ALIGNED == 0 ? 0 : SIZE_K % 8 == 0 ? 1 : 0;

/* Word i. Behind the last 16 bits no word is touched. */
uint block_word(address block, int i)
{
    return 4 * i < SIZE_K / 4 * 4 ? WORD1(2, (block & ~address(3)) + address(4 * i))
                                  : k_word(block + address(min(4 * i, SIZE_K - 2)));
}

/* Pieces of values. */
#define FA_PIECE raw8
#define FA_PIECE_NONE raw8(uvec4(0u), uvec4(0u))
#define FA_P0 low.x
#define FA_P1 low.y
#define FA_P2 low.z
#define FA_P3 low.w
#define FA_P4 high.x
#define FA_P5 high.y
#define FA_P6 high.z
#define FA_P7 high.w
#define FA_P01 low.xy
#define FA_P23 low.zw
#define FA_PIECE_TYPE TYPE_V
#define FA_TYPE_GIVEN
#define FA_OPERAND_GIVEN
#define FA_WORD_AT(at) WORD1(3, at)
#define FA_PAIR_AT(at) WORD2(3, at)
#include "core/portable/pieces.h"
