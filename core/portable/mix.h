/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that are weighted sums of rows of another tensor, by lists, in the words of task.h. A work-group does a list. A unit, of
 * FA_MIX_UNIT dims, is what one work-item sums.
 */
#ifndef FA_PORTABLE_MIX_H
#define FA_PORTABLE_MIX_H

#include "format.h"
#include "task.h"

#define FA_MIX_UNIT 4
#define FA_MIX_RUN 64 /* products that are summed on their own, which keeps rounding small in long lists */

/* Operands. Constants 0 and 1 are types of the first two, 2 and 3 say whether there are weights and places. */
#define FA_MIX_FROM 0
#define FA_MIX_TO 1
#define FA_MIX_OFFSETS 2
#define FA_MIX_ROWS 3
#define FA_MIX_WEIGHTS 4
#define FA_MIX_PLACES 5

/* Strides are in elements, of the first three axes, whose sizes but the first are `heads` and `rows`; `all` is their product. */
FA_STRUCT(fa_mix_params)
    fa_long from_stride[3], to_stride[3];
    int from_heads, from_rows, from_all;
    int to_heads, to_rows, to_all;
    int lists, entries, longest, dim;
FA_STRUCT_END(fa_mix_params)
FA_TASK_VIEW(fa_mix_params)

#define FA_MIX_IS(t, name) FA_TASK_PARAM(t, fa_mix_params, name)
#define FA_MIX_WORD(t, n, at) FA_GET32(t, n, FA_INDEX(at) * FA_INDEX(4))
/* The first element of row (line / heads, line % heads, row). */
#define FA_MIX_AT(t, x, line, row)                                                       \
    (FA_INDEX((line) / FA_MIX_IS(t, x##_heads)) * FA_WIDE(FA_MIX_IS(t, x##_stride)[0]) + \
     FA_INDEX((line) % FA_MIX_IS(t, x##_heads)) * FA_WIDE(FA_MIX_IS(t, x##_stride)[1]) + \
     FA_INDEX(row) * FA_WIDE(FA_MIX_IS(t, x##_stride)[2]))

/* Dims d to d + count - 1 of entries [begin, end), to element `to`. */
FA_KERNEL_FN void fa_mix_unit(FA_TASK t, int begin, int end, int d, FA_AT to, int count)
{
    const int rows = FA_MIX_IS(t, from_rows), all = FA_MIX_IS(t, from_all);
    float total[FA_MIX_UNIT], part[FA_MIX_UNIT];
    int i, n = begin;
    for (i = 0; i < FA_MIX_UNIT; i++)
        total[i] = 0.0f;
    while (n < end) {
        const int stop = end - n > FA_MIX_RUN ? n + FA_MIX_RUN : end;
        for (i = 0; i < FA_MIX_UNIT; i++)
            part[i] = 0.0f;
        for (; n < stop; n++) {
            const int row = FA_INT(FA_MIX_WORD(t, 3, n));
            if (row < 0 || row >= all)
                continue;
            const FA_AT from = FA_MIX_AT(t, from, row / rows, row % rows) + FA_INDEX(d);
            float weight = 1.0f;
            if (FA_TASK_CONSTANT(t, 2) != 0)
                weight = FA_AS_FLOAT(FA_MIX_WORD(t, 4, n));
            for (i = 0; i < count; i++)
                part[i] += weight * FA_GET_ELEMENT(t, 0, FA_TASK_CONSTANT(t, 0), from + FA_INDEX(i));
        }
        for (i = 0; i < FA_MIX_UNIT; i++)
            total[i] += part[i];
    }
    FA_PUT_ELEMENTS(t, 1, FA_TASK_CONSTANT(t, 1), to, total, count)
}

/* The list of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_mix_group(FA_TASK t, int group, int item, int items)
{
    const int rows = FA_MIX_IS(t, to_rows), dim = FA_MIX_IS(t, dim), entries = FA_MIX_IS(t, entries);
    int place = group;
    if (group >= FA_MIX_IS(t, lists))
        return;
    if (FA_TASK_CONSTANT(t, 3) != 0)
        place = FA_INT(FA_MIX_WORD(t, 5, group));
    if (place < 0 || place >= FA_MIX_IS(t, to_all))
        return;
    const int begin = FA_MIN(FA_MAX(FA_INT(FA_MIX_WORD(t, 2, group)), 0), entries),
              last = FA_MIN(FA_INT(FA_MIX_WORD(t, 2, FA_INDEX(group) + FA_INDEX(1))), entries);
    /* What falls from one offset to the next has no entries; differences of offsets that are not negative do not overflow. */
    const int length = last < begin ? 0 : FA_MIN(last - begin, FA_MIX_IS(t, longest));
    const FA_AT to = FA_MIX_AT(t, to, place / rows, place % rows);
    for (int d = item * FA_MIX_UNIT; d < dim; d += items * FA_MIX_UNIT)
        fa_mix_unit(t, begin, begin + length, d, to + FA_INDEX(d), FA_MIN(dim - d, FA_MIX_UNIT));
}

#endif
