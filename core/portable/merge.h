/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The merge of partial states that are told by their LSE, in the words of task.h. A work-group does a row. A unit, of
 * FA_MERGE_UNIT dims, is what one work-item writes. Outputs may replace inputs element for element: a row's are written
 * when all that other work-items read of them is read, its LSE last.
 */
#ifndef FA_PORTABLE_MERGE_H
#define FA_PORTABLE_MERGE_H

#include "format.h"
#include "softmax.h"
#include "task.h"

#define FA_MERGE_UNIT 8

/* Operands. Constants 0 and 1 are types of the first two, 2 says whether there are factors. */
#define FA_MERGE_PARTIAL 0
#define FA_MERGE_O 1
#define FA_MERGE_PARTIAL_LSE 2
#define FA_MERGE_LSE 3
#define FA_MERGE_FACTORS 4

/*
 * Strides are in elements, of batch, head, row, and from part to part. Factors have such strides too, 0 where they are
 * repeated; `factor_heads` heads of states share one head of factors.
 */
FA_STRUCT(fa_merge_params)
    fa_long partial_stride[3], o_stride[3], factor_stride[3], part_stride, factor_part_stride;
    int parts, heads, rows, dim; /* rows of a head */
    int states;                  /* rows of all */
    int want_lse;
    int factor_heads;
    int unused;
FA_STRUCT_END(fa_merge_params)
FA_TASK_VIEW(fa_merge_params)

#define FA_MERGE_IS(t, name) FA_TASK_PARAM(t, fa_merge_params, name)
#define FA_MERGE_ROW(t, x, a, b, c)                         \
    (FA_INDEX(a) * FA_WIDE(FA_MERGE_IS(t, x##_stride)[0]) + \
     FA_INDEX(b) * FA_WIDE(FA_MERGE_IS(t, x##_stride)[1]) + \
     FA_INDEX(c) * FA_WIDE(FA_MERGE_IS(t, x##_stride)[2]))

FA_KERNEL_FN float fa_merge_lse(FA_TASK t, int row, int part)
{
    return FA_AS_FLOAT(
        FA_GET32(t, 2, (FA_INDEX(part) * FA_INDEX(FA_MERGE_IS(t, states)) + FA_INDEX(row)) * FA_INDEX(4)));
}

/* Element `at` of the parts. */
FA_KERNEL_FN float fa_merge_element(FA_TASK t, FA_AT at)
{
    return FA_GET_ELEMENT(t, 0, FA_TASK_CONSTANT(t, 0), at);
}

/* Where a part of the row that begins at element `from` lies. */
FA_KERNEL_FN FA_AT fa_merge_part(FA_TASK t, FA_AT from, int part)
{
    return from + FA_INDEX(part) * FA_WIDE(FA_MERGE_IS(t, part_stride));
}

/* Whether every LSE of +inf of a row stands beside zeros, and so marks an empty state: fa_state_of_lse(). */
FA_KERNEL_FN bool fa_merge_inf_is_empty(FA_TASK t, int row, FA_AT from)
{
    const int parts = FA_MERGE_IS(t, parts), dim = FA_MERGE_IS(t, dim);
    for (int n = 0; n < parts; n++) {
        if (!fa_lse_is_inf(fa_merge_lse(t, row, n)))
            continue;
        for (int d = 0; d < dim; d++) {
            const float x = fa_merge_element(t, fa_merge_part(t, from, n) + FA_INDEX(d));
            if (fa_is_nan(x) || x != 0.0f)
                return false;
        }
    }
    return true;
}

/* What a row's parts make together. */
FA_STRUCT(fa_merge_sum)
    float max; /* that scores may subtract */
    bool inf_is_empty;
    fa_closed closed;
FA_STRUCT_END(fa_merge_sum)

FA_KERNEL_FN fa_merge_sum fa_merge_weigh(FA_TASK t, int row, FA_AT from)
{
    const int parts = FA_MERGE_IS(t, parts);
    fa_merge_sum m;
    fa_state whole = fa_state_empty();
    m.inf_is_empty = fa_merge_inf_is_empty(t, row, from);
    for (int n = 0; n < parts; n++) {
        const float max = fa_state_of_lse(fa_merge_lse(t, row, n), m.inf_is_empty).max;
        if (max > whole.max)
            whole.max = max;
    }
    m.max = fa_safe_max(whole.max);
    for (int n = 0; n < parts; n++)
        whole.sum +=
            fa_part_weight(fa_state_of_lse(fa_merge_lse(t, row, n), m.inf_is_empty), m.max, FA_LOG2E);
    m.closed = fa_state_close(whole, 1.0f, FA_NEG_INF);
    return m;
}

/* What element i of a part is multiplied by beside its weight; `factors` is where those of the first part are. */
FA_KERNEL_FN float fa_merge_factor(FA_TASK t, FA_AT factors, int part, int i)
{
    if (FA_TASK_CONSTANT(t, 2) == 0)
        return 1.0f;
    FA_AT at = factors + FA_INDEX(part) * FA_WIDE(FA_MERGE_IS(t, factor_part_stride)) + FA_INDEX(i);
    return FA_AS_FLOAT(FA_GET32(t, 4, at * FA_INDEX(4)));
}

/* A unit's elements, from `d` on, `count` of them: from the parts at `from` to element `to`. */
FA_KERNEL_FN void fa_merge_unit(FA_TASK t, fa_merge_sum m, int row, FA_AT from, FA_AT factors, FA_AT to,
                                int count)
{
    const int parts = FA_MERGE_IS(t, parts);
    float total[FA_MERGE_UNIT];
    int i;
    for (i = 0; i < FA_MERGE_UNIT; i++)
        total[i] = 0.0f;
    for (int n = 0; n < parts; n++) {
        const fa_state part = fa_state_of_lse(fa_merge_lse(t, row, n), m.inf_is_empty);
        if (part.sum == 0.0f)
            continue; /* nobody looks at the output of an empty state */
        const float weight = fa_part_weight(part, m.max, FA_LOG2E) * m.closed.factor;
        for (i = 0; i < count; i++)
            total[i] += weight * (fa_merge_element(t, fa_merge_part(t, from, n) + FA_INDEX(i)) *
                                  fa_merge_factor(t, factors, n, i));
    }
    for (i = 0; i < count; i++)
        total[i] = m.closed.factor == 0.0f ? 0.0f : total[i];
    FA_PUT_ELEMENTS(t, 1, FA_TASK_CONSTANT(t, 1), to, total, count)
}

/* The row of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_merge_group(FA_TASK t, int group, int item, int items)
{
    if (group >= FA_MERGE_IS(t, states))
        return;
    const int heads = FA_MERGE_IS(t, heads), rows = FA_MERGE_IS(t, rows), dim = FA_MERGE_IS(t, dim);
    const int line = group / rows, r = group - line * rows, batch = line / heads, head = line - batch * heads;
    const FA_AT from = FA_MERGE_ROW(t, partial, batch, head, r), to = FA_MERGE_ROW(t, o, batch, head, r),
                factors = FA_MERGE_ROW(t, factor, batch, head / FA_MERGE_IS(t, factor_heads), r);
    const fa_merge_sum m = fa_merge_weigh(t, group, from);
    FA_TASK_BARRIER;
    for (int d = item * FA_MERGE_UNIT; d < dim; d += items * FA_MERGE_UNIT)
        fa_merge_unit(t, m, group, from + FA_INDEX(d), factors + FA_INDEX(d), to + FA_INDEX(d),
                      FA_MIN(dim - d, FA_MERGE_UNIT));
    FA_TASK_BARRIER;
    if (item == 0 && FA_MERGE_IS(t, want_lse) != 0)
        FA_PUT32(t, 3, FA_INDEX(group) * FA_INDEX(4), FA_AS_UINT(m.closed.lse));
}

#endif
