/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges the partial results of rows that were split: a work-group of FA_GROUP for each row of a merge item. Its
 * work-items weigh the parts in turns, and have a dim of the result each.
 */
#include "softmax.cl"

__kernel __attribute__((reqd_work_group_size(FA_GROUP, 1, 1))) void fa_merge(
    FA_TABLE, FA_MEMORY(o), FA_MEMORY(lse), FA_MEMORY(partial), long o_offset,
    long lse_offset, long partial_offset, long partial_state_offset)
{
    __local float weights[FA_GROUP]; /* of parts, in turns of as many as there are work-items */
    FA_GATHER(o);
    FA_GATHER(lse);
    FA_GATHER(partial);
    FA_FIND_TABLE;
    __global const fa_table_params *p = (__global const fa_table_params *)table;
    if ((int)get_group_id(0) >= p->merges)
        return;
    const fa_table_merge item = ((__global const fa_table_merge *)table)[p->merges_at + get_group_id(0)];
    const work w = fa_work_of(table, item.sequence, item.head_kv, item.row_begin, item.row_end, 0, 0);
    const int rows = item.row_end - item.row_begin, r = get_group_id(1);
    if (r >= rows)
        return;
    const fa_row at = fa_work_row(w, item.row_begin + r);
    const long row = item.part_row + r, part = partial_offset + row * p->dim_v;
    const int id = get_local_id(0), parts = item.parts;
    fa_state whole = fa_state_empty();
    for (int n = id; n < parts; n += FA_GROUP)
        whole.max = fmax(whole.max, load_state(partial, partial_state_offset, row + n * rows).max);
    weights[id] = whole.max;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int n = 0; n < min(parts, FA_GROUP); n++)
        whole.max = fmax(whole.max, weights[n]);
    const float base = fa_safe_max(whole.max), unit = p->score.unit;
    fa_closed closed;
    for (int from = 0; from < p->dim_v; from += FA_GROUP) {
        const int d = from + id;
        float total = 0.0f;
        whole.sum = 0.0f;
        for (int first = 0; first < parts; first += FA_GROUP) {
            const int count = min(parts - first, FA_GROUP);
            barrier(CLK_LOCAL_MEM_FENCE);
            if (id < count)
                weights[id] =
                    fa_part_weight(load_state(partial, partial_state_offset, row + (first + id) * rows), base, unit);
            barrier(CLK_LOCAL_MEM_FENCE);
            FA_UNROLL_BY(8)
            for (int n = 0; n < count; n++) {
                whole.sum += weights[n];
                if (d < p->dim_v)
                    total += weights[n] * load_0(partial, part + (long)(first + n) * rows * p->dim_v + d);
            }
        }
        closed = fa_work_close(w, at, whole, true);
        if (d < p->dim_v)
            FA_CAT(store_, FA_TYPE_O)(o, o_offset + FA_ROW_AT(w, o, at) + d, fa_normalised(total, closed.factor));
    }
    if (id == 0 && fa_work_has(w, FA_TABLE_LSE))
        store_0(lse, lse_offset + FA_LSE_AT(w, at), closed.lse);
}
