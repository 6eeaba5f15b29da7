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

/* 32 bits of a block from an even byte on, of the two words that may hold them; `odd` is whether it begins within a word. */
uint block_bits(uint low, uint high, int byte, bool odd)
{
    return byte % 4 == 0 ? joined(low, high, odd) : odd ? high : joined(low, high, true);
}
#define BLOCK_BITS(block, byte, odd) block_bits(block[(byte) / 4], block[(byte) / 4 + 1], byte, odd)

/*
 * A piece of a value: 8 elements from d on; or 16, which are 8 from d on, and 8 behind them or, of codes that share bytes,
 * 16 further. The first words hold the codes, 3 and 4 their fifth bits, 5 and 6 what scales them. The last one says where in
 * its word the block begins, and above that, which of its elements is the first.
 */
uint piece_word(raw8 x, int n)
{
    return n < 4 ? (n < 2 ? (n == 0 ? x.low.x : x.low.y) : (n == 2 ? x.low.z : x.low.w)) : (n == 4 ? x.high.x : x.high.y);
}

raw8 piece_fetch(int elements, address row, int d)
{
    const bool bytes = v_bits == 8;
    const int e = d & (1 << SHIFT_V) - 1, words = bytes ? elements / 4 : 2;
    const address block = row + address((d >> SHIFT_V) * SIZE_V);
    const address codes = block + address(CODES_AT(TYPE_V, SIZE_V) + (bytes ? e : e & 15)), first = codes & ~address(3);
    raw8 x = raw8(uvec4(0u), uvec4(0u));
    if (ALIGNED != 0 && SIZE_V % 8 == 0) {
        x.low.xy = WORD2(3, codes);
        if (words == 4)
            x.low.zw = WORD2(3, codes + address(8));
    } else {
        x.low.x = WORD1(3, first);
        x.low.y = WORD1(3, first + address(4));
        if (words == 4) {
            x.low.z = WORD1(3, first + address(8));
            x.low.w = WORD1(3, first + address(12));
        }
        if (v_is_odd(uint(codes))) { /* one word more, which no even one may touch */
            const uint more = WORD1(3, first + address(4 * words));
            if (words == 4)
                x.high.x = more;
            else
                x.low.z = more;
        }
    }
    if (v_bits == 5) {
        x.low.w = v_word(block + address(SIZE_V - 20));
        if (v_in_words == 0)
            x.high.x = v_word(block + address(SIZE_V - 18));
    }
    x.high.y = v_word(block);
    if (FA_TYPE_HAS_OFFSET(TYPE_V) && v_in_words == 0)
        x.high.z = v_word(block + address(2));
    x.high.w = uint(block) & 3u | uint(e) << 2;
    return x;
}

scaling piece_scaling(raw8 x)
{
    const bool odd = v_is_odd(x.high.w);
    return scaling_of(TYPE_V, FA_TYPE_HAS_OFFSET(TYPE_V) ? joined(x.high.y, x.high.z, odd)
                              : odd                      ? x.high.y >> 16
                                                         : x.high.y);
}

/* Four of its elements. */
vec4 piece_four(int elements, raw8 x, int i, scaling s)
{
    const bool halves = elements == 16 && v_bits != 8; /* of bytes: first the lower, then the upper */
    const int n = halves ? i & 1 : i, e = int(x.high.w >> 2) + (halves ? i / 2 * 16 : 0);
    uint codes = joined(piece_word(x, n), piece_word(x, n + 1), v_is_odd(x.high.w + uint(CODES_AT(TYPE_V, SIZE_V))));
    if (v_bits != 8)
        codes >>= uint((e & 16) / 4);
    if (v_bits == 5)
        codes = codes & 0x0f0f0f0fu |
                fa_fifths(joined(x.low.w, x.high.x, v_is_odd(x.high.w + uint(SIZE_V))) >> (e + 4 * n));
    return four_decoded(TYPE_V, codes, s);
}
