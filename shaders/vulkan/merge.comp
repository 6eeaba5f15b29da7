#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges the partial results of rows that were split: a work-group for each row of a merge item. Parts are many where
 * rows are few, so work-items share them: each weighs a part, then adds up four dims over the parts of its line, and
 * the lines are added up at the end.
 */
#extension GL_GOOGLE_include_directive : require
#include "softmax.glsl"

const int AHEAD = 4; /* parts that a work-item fetches at a time */

shared float weights[GROUP];
shared vec4 totals[GROUP];

work w;
int id, rows, parts;
address first_part, part_at;

fa_state state_of_part(int n)
{
    return load_part_state(first_part + address(n * rows));
}

/* The greatest maximum of all parts. */
float find_most()
{
    float most = FA_NEG_INF;
    for (int n = id; n < parts; n += GROUP)
        most = max(most, state_of_part(n).max);
    weights[id] = most;
    barrier();
    for (int n = 0; n < min(parts, GROUP); n++)
        most = max(most, weights[n]);
    return most;
}

/* Parts [first, first + count) of dims [d, d + 4): those of one of `lines` lines. */
vec4 add_parts(int first, int count, int line, int lines, int d)
{
    vec4 total = vec4(0.0);
    [[dont_unroll]] for (int n = line; n < count; n += AHEAD * lines) {
        vec4 part[AHEAD];
        [[unroll]] for (int a = 0; a < AHEAD; a++) {
            const int at = first + min(n + a * lines, count - 1);
            part[a] = load4_partial(part_at + (address(at * rows) * address(w.dim_v) + address(d)) * 4, w.dim_v - d);
        }
        [[unroll]] for (int a = 0; a < AHEAD; a++) {
            if (n + a * lines < count)
                total += weights[n + a * lines] * part[a];
        }
    }
    return total;
}

void main()
{
    if (work_group() >= PARAMS.merges)
        return;
    const fa_table_merge merge = TABLE(fa_table_merge)[PARAMS.merges_at + work_group()];
    w = fa_work_of(merge.sequence, merge.head_kv, merge.row_begin, merge.row_end, 0, 0);
    w.part_row = wide(merge.part_row);
    id = work_item();
    rows = w.row_end - w.row_begin;
    const int r = int(gl_WorkGroupID.z);
    if (r >= rows)
        return;
    parts = merge.parts;
    first_part = w.part_row + address(r);
    part_at = at(FA_VK_SLOT_PARTIAL) + first_part * address(w.dim_v * 4);
    const fa_row q = fa_work_row(w, w.row_begin + r);
    const float unit = PARAMS.score.unit;
    fa_state whole;
    whole.max = find_most();
    const float base = fa_safe_max(whole.max);
    const address to = row_of_o(w, q);
    const int vectors = CEIL_DIV(w.dim_v, 4), lanes = min(vectors, GROUP), lines = GROUP / lanes;
    const int lane = id % lanes, line = id / lanes;
    fa_closed closed;
    for (int from = 0; from < vectors; from += lanes) {
        const int d = (from + lane) * 4;
        const bool has = line < lines && d < w.dim_v;
        vec4 total = vec4(0.0);
        whole.sum = 0.0;
        for (int first = 0; first < parts; first += GROUP) {
            const int count = min(parts - first, GROUP);
            barrier();
            weights[id] = id < count ? fa_part_weight(state_of_part(first + id), base, unit) : 0.0;
            barrier();
            for (int n = 0; n < count; n++)
                whole.sum += weights[n];
            if (has)
                total += add_parts(first, count, line, lines, d);
        }
        totals[id] = total;
        closed = fa_work_close(w, q, whole, true);
        barrier();
        if (has && line == 0) {
            for (int l = 1; l < lines; l++)
                total += totals[l * lanes + lane];
            store4_o(to + address(d * bytes_of(TYPE_O)), w.dim_v - d, fa_normalised4(total, closed.factor));
        }
    }
    if (id == 0 && (w.flags & FA_TABLE_LSE) != 0)
        store_float_lse(lse_of(w, q), closed.lse);
}
