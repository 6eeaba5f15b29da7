/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way into the rows of bitmap.h: of a row, the elements of the largest magnitude are kept, as many as there is room for.
 * Of equal ones the first are. NaN is larger than all numbers. A row is told by the bits of its elements as f32.
 */
#ifndef FA_PORTABLE_PRUNE_H
#define FA_PORTABLE_PRUNE_H

#include "format.h"

#define FA_PRUNE_MOST 576 /* dims */

/* What elements are compared by. */
FA_FN fa_uint fa_prune_key(fa_uint bits)
{
    return FA_MIN(bits & 0x7fffffffu, 0x7f800001u);
}

/* The least key of those that are kept: the greatest that `room` elements reach. */
FA_FN fa_uint fa_prune_least(const fa_uint row[FA_PRUNE_MOST], int dims, int room)
{
    fa_uint least = 0u;
    for (fa_uint bit = 0x40000000u; bit != 0u; bit >>= 1) {
        int count = 0;
        for (int d = 0; d < dims; d++)
            count += fa_prune_key(row[d]) >= (least | bit) ? 1 : 0;
        if (count >= room)
            least |= bit;
    }
    return least;
}

/*
 * Writes a row of `dims` dims and `bytes` bytes to byte `to` of operand n, in the words of task.h, with PUT32 as FA_PUT32. Bits
 * of dims that there are not are 0.
 */
#define FA_PRUNE(row, dims, bytes, PUT32, t, n, to)                                              \
    {                                                                                            \
        int prune_room = FA_BITMAP_ROOM(dims, bytes), prune_at = FA_BITMAP_BYTES(dims);          \
        fa_uint prune_least = fa_prune_least(row, dims, prune_room);                             \
        fa_uint prune_bits = 0u, prune_half = 0u;                                                \
        bool prune_odd = false;                                                                  \
        for (int prune_d = 0; prune_d < (dims); prune_d++) /* what is left is for those alike */ \
            prune_room -= fa_prune_key((row)[prune_d]) > prune_least ? 1 : 0;                    \
        for (int prune_d = 0; prune_d < (dims); prune_d++) {                                     \
            const fa_uint prune_key = fa_prune_key((row)[prune_d]);                              \
            const bool prune_alike = prune_key == prune_least && prune_room > 0;                 \
            prune_room -= prune_alike ? 1 : 0;                                                   \
            if (prune_key > prune_least || prune_alike) {                                        \
                const fa_uint prune_x = fa_f16_narrow(FA_AS_FLOAT((row)[prune_d]));              \
                prune_bits |= 1u << FA_UINT(prune_d & 31);                                       \
                if (prune_odd) {                                                                 \
                    PUT32(t, n, (to) + FA_INDEX(prune_at), prune_half | prune_x << 16);          \
                    prune_at += 4;                                                               \
                }                                                                                \
                prune_half = prune_x;                                                            \
                prune_odd = !prune_odd;                                                          \
            }                                                                                    \
            if ((prune_d & 31) == 31 || prune_d == (dims)-1) {                                   \
                PUT32(t, n, (to) + FA_INDEX((prune_d >> 5) * 4), prune_bits);                    \
                prune_bits = 0u;                                                                 \
            }                                                                                    \
        }                                                                                        \
    }

#endif
