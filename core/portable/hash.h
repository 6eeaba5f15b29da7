/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes of rows by their signs along random directions, in the words of task.h. A work-group does FA_HASH_ROWS rows, a work-item
 * one of them. Products are summed one by one in the order of the dims, so that every language makes the same sums.
 */
#ifndef FA_PORTABLE_HASH_H
#define FA_PORTABLE_HASH_H

#include "format.h"
#include "task.h"

#define FA_HASH_ROWS 64
#define FA_HASH_MOST 16 /* directions */

/* Operands. Constant 0 is the type of the first, 1 the number of directions. */
#define FA_HASH_FROM 0
#define FA_HASH_BUCKETS 1

/* Strides are in elements, of batch, head and row. Behind it the directions lie, number by number of each dim. */
FA_STRUCT(fa_hash_params)
    fa_long stride[3];
    int heads, rows, lines; /* lines: rows of all                         */
    int dim;
    int directions_at; /* the first of them, counted in floats       */
    int unused;
FA_STRUCT_END(fa_hash_params)
FA_TASK_VIEW(fa_hash_params)
FA_TASK_VIEW(float)

#define FA_HASH_IS(t, name) FA_TASK_PARAM(t, fa_hash_params, name)

FA_KERNEL_FN float fa_hash_element(FA_TASK t, FA_AT at)
{
    const int type = FA_TASK_CONSTANT(t, 0);
    if (type == 0)
        return FA_AS_FLOAT(FA_GET32(t, 0, at * FA_INDEX(4)));
    return fa_float_widen(type, FA_GET16(t, 0, at * FA_INDEX(2)));
}

/* Signs are bits, the first the lowest. Buckets count in the order in which neighbours differ in one of them. */
FA_FN fa_uint fa_hash_rank(fa_uint signs)
{
    fa_uint rank = signs;
    for (int shift = 1; shift < FA_HASH_MOST; shift *= 2)
        rank ^= rank >> FA_UINT(shift);
    return rank;
}

FA_KERNEL_FN fa_uint fa_hash_signs(FA_TASK t, FA_AT row)
{
    const int directions = FA_TASK_CONSTANT(t, 1);
    float sum[FA_HASH_MOST];
    fa_uint signs = 0u;
    FA_UNROLLED
    for (int n = 0; n < FA_HASH_MOST; n++)
        sum[n] = 0.0f;
    for (int d = 0; d < FA_HASH_IS(t, dim); d++) {
        const float x = fa_hash_element(t, row + FA_INDEX(d));
        const int at = FA_HASH_IS(t, directions_at) + d * directions;
        FA_UNROLLED
        for (int n = 0; n < FA_HASH_MOST; n++) {
            if (n < directions) {
                FA_PRECISE float product = x * FA_TASK_LIST(t, float, at + n);
                FA_PRECISE float next = sum[n] + product;
                sum[n] = next;
            }
        }
    }
    FA_UNROLLED
    for (int n = 0; n < FA_HASH_MOST; n++)
        signs |= sum[n] > 0.0f ? 1u << FA_UINT(n) : 0u;
    return signs;
}

/* The share of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_hash_group(FA_TASK t, int group, int item, int items)
{
    const int begin = group * FA_HASH_ROWS, end = FA_MIN(FA_HASH_IS(t, lines), begin + FA_HASH_ROWS);
    const int rows = FA_HASH_IS(t, rows), heads = FA_HASH_IS(t, heads);
    for (int n = begin + item; n < end; n += items) {
        const int line = n / rows, batch = line / heads;
        const FA_AT row = FA_INDEX(batch) * FA_WIDE(FA_HASH_IS(t, stride)[0]) +
                          FA_INDEX(line - batch * heads) * FA_WIDE(FA_HASH_IS(t, stride)[1]) +
                          FA_INDEX(n - line * rows) * FA_WIDE(FA_HASH_IS(t, stride)[2]);
        FA_PUT32(t, 1, FA_INDEX(n) * FA_INDEX(4), fa_hash_rank(fa_hash_signs(t, row)));
    }
}

#endif
