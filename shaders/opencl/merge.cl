/* SPDX-License-Identifier: Apache-2.0 */
/* Merges the partial results of rows that were split: a work-group of FA_GROUP for each row of a merge item. */
#include "softmax.cl"

__kernel __attribute__((reqd_work_group_size(FA_GROUP, 1, 1))) void fa_merge(
    __global const uchar *restrict table, FA_MEMORY(o), FA_MEMORY(lse), FA_MEMORY(partial), long o_offset,
    long lse_offset, long partial_offset, long partial_state_offset)
{
    FA_GATHER(o);
    FA_GATHER(lse);
    FA_GATHER(partial);
    __global const fa_table_params *p = (__global const fa_table_params *)table;
    const fa_table_merge item = ((__global const fa_table_merge *)(table + p->merges_at))[get_group_id(0)];
    __global const fa_table_sequence *sequence =
        (__global const fa_table_sequence *)(table + p->sequences_at) + item.sequence;
    __global const float *sinks = (__global const float *)(table + p->sinks_at);
    const int rows = item.row_end - item.row_begin, r = get_group_id(1);
    if (r >= rows)
        return;
    const query at = query_of(p, sequence->mask, item.head_kv, item.row_begin + r, item.row_end);
    const float sink = p->flags & FA_TABLE_SINKS ? sinks[at.head] : FA_NEG_INF;
    const long row = item.part_row + r, part = partial_offset + row * p->dim_v;
    fa_state whole = fa_state_empty();
    FA_UNROLL_BY(8)
    for (int n = 0; n < item.parts; n++)
        whole.max = fmax(whole.max, load_state(partial, partial_state_offset, row + n * rows).max);
    const float base = fa_safe_max(whole.max), unit = p->score.unit;
    FA_UNROLL_BY(8)
    for (int n = 0; n < item.parts; n++)
        whole.sum += fa_part_weight(load_state(partial, partial_state_offset, row + n * rows), base, unit);
    const fa_closed closed = fa_state_close(whole, p->score.natural, sink);
    for (int d = get_local_id(0); d < p->dim_v; d += FA_GROUP) {
        float total = 0.0f;
        FA_UNROLL_BY(8)
        for (int n = 0; n < item.parts; n++) {
            const float weight = fa_part_weight(load_state(partial, partial_state_offset, row + n * rows), base, unit);
            total += weight * load_0(partial, part + (long)n * rows * p->dim_v + d);
        }
        FA_CAT(store_, FA_TYPE_O)(o, o_offset + sequence->o_at + at.head * p->o_stride[1] +
                                         at.position * p->o_stride[2] + d, fa_normalised(total, closed.factor));
    }
    if (get_local_id(0) == 0 && (p->flags & FA_TABLE_LSE))
        store_0(lse, lse_offset + sequence->lse_at + (long)at.head * p->lse_rows + at.position, closed.lse);
}
