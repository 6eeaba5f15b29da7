/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers of rows that keep some of their elements (bitmap_f16): FA_BITMAP_BYTES of bits, one for each dim, the first in the
 * lowest bit of the first word; then the elements whose bits are set, in f16 and in the order of their dims. A row has
 * `bytes` bytes, a multiple of four. What they have no room for is 0, however many bits are set. Written in the words of
 * codes.h, and in FA_BITS32_ALIGNED(m, at), where `at` is a multiple of four in memory.
 */
#ifndef FA_PORTABLE_BITMAP_H
#define FA_PORTABLE_BITMAP_H

#include "decode.h"

/* Elements e to e + 3 of the row at byte `row`, e a multiple of four below `dims`, which is a multiple of eight. */
FA_KERNEL_FN fa_four fa_bitmap_four(FA_CODES m, FA_AT row, int e, int dims, int bytes)
{
    int at = FA_BITMAP_BYTES(dims);
    for (int w = 0; w < e >> 5; w++)
        at += 2 * FA_COUNT_BITS(FA_BITS32_ALIGNED(m, row + 4 * w));
    const fa_uint word = FA_BITS32_ALIGNED(m, row + (e >> 5) * 4), below = (1u << FA_UINT(e & 31)) - 1u;
    at += 2 * FA_COUNT_BITS(word & below);
    fa_four four;
    for (int i = 0; i < 4; i++) {
        four.x[i] = 0.0f;
        if ((word >> FA_UINT((e & 31) + i) & 1u) != 0u && at < bytes) {
            four.x[i] = fa_f16_widen(FA_BITS16(m, row + at));
            at += 2;
        }
    }
    return four;
}

#endif
