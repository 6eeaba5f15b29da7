/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows in another order, in the words of task.h: rows of one tensor are written where a list says, or read from there. They
 * are copied byte by byte, whatever their type. A unit is up to FA_GATHER_UNIT bytes of a row, and a work-group does the units
 * of `share` rows.
 */
#ifndef FA_PORTABLE_GATHER_H
#define FA_PORTABLE_GATHER_H

#include "task.h"

#define FA_GATHER_UNIT 32

/* Operands. */
#define FA_GATHER_FROM 0
#define FA_GATHER_ORDER 1
#define FA_GATHER_TO 2

/* Strides are in bytes, of batch, head and row. */
FA_STRUCT(fa_gather_params)
    fa_long from_stride[3], to_stride[3], order_stride[3];
    int heads, rows, lines;    /* rows of a list; lines: rows of all                           */
    int limit;                 /* rows of the tensor that lists count in                       */
    int from_each, order_each; /* heads that share a head of `from`, and a list                */
    int row_bytes, units;      /* of a row                                                     */
    int share;
    int scatter; /* 1: lists say where rows go; 0: where they come from          */
FA_STRUCT_END(fa_gather_params)
FA_TASK_VIEW(fa_gather_params)

#define FA_GATHER_IS(t, name) FA_TASK_PARAM(t, fa_gather_params, name)
#define FA_GATHER_ROW(t, x, batch, head, row)                    \
    (FA_INDEX(batch) * FA_WIDE(FA_GATHER_IS(t, x##_stride)[0]) + \
     FA_INDEX(head) * FA_WIDE(FA_GATHER_IS(t, x##_stride)[1]) +  \
     FA_INDEX(row) * FA_WIDE(FA_GATHER_IS(t, x##_stride)[2]))

/* The `count` bytes at `at`, both even, and zeros behind them. */
FA_KERNEL_FN fa_task_bytes fa_gather_read(FA_TASK t, FA_AT at, int count)
{
    const bool in_word = FA_IN_WORD(t, 0, at);
    fa_task_bytes b;
    FA_UNROLLED
    for (int i = 0; i < 9; i++) {
        const FA_AT word = at + FA_INDEX(4 * i);
        b.word[i] = 0u;
        if (4 * i + 4 <= count && in_word)
            b.word[i] = FA_GET32(t, 0, word);
        else if (4 * i + 2 <= count)
            b.word[i] = FA_GET16(t, 0, word);
        if (4 * i + 4 <= count && !in_word)
            b.word[i] |= FA_GET16(t, 0, word + FA_INDEX(2)) << 16;
    }
    return b;
}

/* Unit u of line n. Without a row to read there are zeros; without one to write nothing is written. */
FA_KERNEL_FN void fa_gather_unit(FA_TASK t, int n, int u)
{
    const int rows = FA_GATHER_IS(t, rows), heads = FA_GATHER_IS(t, heads);
    const int line = n / rows, row = n - line * rows, batch = line / heads, head = line - batch * heads;
    const int listed =
        FA_INT(FA_GET32(t, 1, FA_GATHER_ROW(t, order, batch, head / FA_GATHER_IS(t, order_each), row)));
    const bool exists = listed >= 0 && listed < FA_GATHER_IS(t, limit),
               scatter = FA_GATHER_IS(t, scatter) != 0;
    const int begin = u * FA_GATHER_UNIT, count = FA_MIN(FA_GATHER_IS(t, row_bytes) - begin, FA_GATHER_UNIT);
    const FA_AT from =
                    FA_GATHER_ROW(t, from, batch, head / FA_GATHER_IS(t, from_each), scatter ? row : listed),
                to = FA_GATHER_ROW(t, to, batch, head, scatter ? listed : row) + FA_INDEX(begin);
    if (!exists && scatter)
        return;
    const fa_task_bytes b = fa_gather_read(t, from + FA_INDEX(begin), exists ? count : 0);
    FA_PUT_BYTES(t, 2, to, b, count)
}

/* The share of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_gather_group(FA_TASK t, int group, int item, int items)
{
    const int share = FA_GATHER_IS(t, share), units = FA_GATHER_IS(t, units), first = group * share;
    const int end = FA_MIN(FA_GATHER_IS(t, lines) - first, share) * units;
    for (int n = item; n < end; n += items)
        fa_gather_unit(t, first + n / units, n - n / units * units);
}

#endif
