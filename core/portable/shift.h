/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Corrects LSEs of partial states in which ALiBi counted distances from another position than the row's, in the words of
 * task.h. A part whose keys all lie before position r, from which it counted, gave each score of a row at position p
 * slope * (p - r) too much. A work-group does FA_SHIFT_SHARE LSEs.
 */
#ifndef FA_PORTABLE_SHIFT_H
#define FA_PORTABLE_SHIFT_H

#include "task.h"

#define FA_SHIFT_SHARE 64

/* Operands. */
#define FA_SHIFT_LSE 0
#define FA_SHIFT_WORK 1

/*
 * Three lists lie behind it: an fa_shift_row for each row; for each part and row the position that the part counted from;
 * slopes of each head, once or for each sequence.
 */
FA_STRUCT(fa_shift_params)
    int parts, heads, rows;
    int sequences_at; /* of a work of its own; -1: rows stand where their list says                  */
    int rows_at, from_at, slopes_at; /* first entries of the lists                                   */
    int slope_stride; /* between the slopes of two sequences; 0: all have the same                   */
FA_STRUCT_END(fa_shift_params)
FA_TASK_VIEW(fa_shift_params)

FA_STRUCT(fa_shift_row)
    int sequence;
    int within;   /* the row's number in its sequence */
    int position; /* without a work of its own        */
    int unused;
FA_STRUCT_END(fa_shift_row)
FA_TASK_VIEW(fa_shift_row)
FA_TASK_VIEW(int)
FA_TASK_VIEW(float)

#define FA_SHIFT_IS(t, name) FA_TASK_PARAM(t, fa_shift_params, name)

/* A word of the work's entry of sequence n. */
FA_KERNEL_FN int fa_shift_word(FA_TASK t, int n, int word)
{
    return FA_SEQUENCE_WORD(t, 1, FA_SHIFT_IS(t, sequences_at) + n, word);
}

FA_KERNEL_FN int fa_shift_position(FA_TASK t, int row)
{
    const int at = FA_SHIFT_IS(t, rows_at) + row;
    const int n = FA_TASK_LIST(t, fa_shift_row, at).sequence;
    if (FA_SHIFT_IS(t, sequences_at) < 0)
        return FA_TASK_LIST(t, fa_shift_row, at).position;
    return fa_shift_word(t, n, FA_SEQUENCE_FIRST_WORD) + fa_shift_word(t, n, FA_SEQUENCE_DIAGONAL_WORD) +
           FA_TASK_LIST(t, fa_shift_row, at).within;
}

/* The share of a work-group, for one of its work-items. Empty states, and what is no number, stay. */
FA_KERNEL_FN void fa_shift_group(FA_TASK t, int group, int item, int items)
{
    const int heads = FA_SHIFT_IS(t, heads), rows = FA_SHIFT_IS(t, rows);
    const int begin = group * FA_SHIFT_SHARE,
              end = FA_MIN(FA_SHIFT_IS(t, parts) * heads * rows, begin + FA_SHIFT_SHARE);
    for (int n = begin + item; n < end; n += items) {
        const int line = n / rows, row = n - line * rows, part = line / heads, head = line - part * heads;
        const float lse = FA_AS_FLOAT(FA_GET32(t, 0, FA_INDEX(n) * FA_INDEX(4)));
        const int sequence = FA_TASK_LIST(t, fa_shift_row, FA_SHIFT_IS(t, rows_at) + row).sequence;
        const int slopes = FA_SHIFT_IS(t, slopes_at) + sequence * FA_SHIFT_IS(t, slope_stride);
        const float slope = FA_TASK_LIST(t, float, slopes + head);
        const int from = FA_TASK_LIST(t, int, FA_SHIFT_IS(t, from_at) + part * rows + row);
        const float shifted = lse - slope * FA_FLOAT(fa_shift_position(t, row) - from);
        if (fa_is_finite(lse))
            FA_PUT32(t, 0, FA_INDEX(n) * FA_INDEX(4), FA_AS_UINT(shifted));
    }
}

#endif
