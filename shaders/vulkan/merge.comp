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
position lse_at, part_at;

float lse_of_part(int n)
{
    return load_partial_lse(lse_at + position(n * rows) * 4);
}

/* The greatest LSE of all parts. */
float find_most(float most)
{
    for (int n = id; n < parts; n += GROUP)
        most = max(most, lse_of_part(n));
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
            part[a] = load4_partial(part_at + (position(at * rows) * position(w.dim_v) + position(d)) * 4, w.dim_v - d);
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
    if (work_group() >= pc.groups)
        return;
    w = work_at(FA_VK_WORD_MERGES_AT, work_group());
    id = work_item();
    rows = w.row_end - w.row_begin;
    const int r = int(gl_WorkGroupID.z);
    if (r >= rows)
        return;
    parts = table_int(table_int(FA_VK_WORD_MERGES_AT) / 4 + work_group() * FA_VK_WORDS_ITEM + FA_VK_WORD_PARTS);
    lse_at = at(FA_VK_SLOT_PARTIAL_LSE) + (w.part_row + position(r)) * 4;
    part_at = at(FA_VK_SLOT_PARTIAL) + (w.part_row + position(r)) * position(w.dim_v * 4);
    const query q = query_of(w, w.row_begin + r);
    const float sink = sink_of(w, q), most = find_most(sink), base = fa_safe_max(most);
    const position to = row_of_o(w, q);
    const int vectors = CEIL_DIV(w.dim_v, 4), lanes = min(vectors, GROUP), lines = GROUP / lanes;
    const int lane = id % lanes, line = id / lanes;
    float sum = 0.0;
    for (int from = 0; from < vectors; from += lanes) {
        const int d = (from + lane) * 4;
        const bool has = line < lines && d < w.dim_v;
        vec4 total = vec4(0.0);
        sum = fa_weight(sink, base, FA_LOG2E);
        for (int first = 0; first < parts; first += GROUP) {
            const int count = min(parts - first, GROUP);
            barrier();
            weights[id] = id < count ? fa_weight(lse_of_part(first + id), base, FA_LOG2E) : 0.0;
            barrier();
            for (int n = 0; n < count; n++)
                sum += weights[n];
            if (has)
                total += add_parts(first, count, line, lines, d);
        }
        totals[id] = total;
        barrier();
        if (has && line == 0) {
            for (int l = 1; l < lines; l++)
                total += totals[l * lanes + lane];
            store4_o(to + position(d * bytes_of(TYPE_O)), w.dim_v - d, sum == 0.0 ? vec4(0.0) : total / sum);
        }
    }
    if (id == 0 && (w.flags & FA_TABLE_LSE) != 0)
        store_float_lse(lse_of(w, q), sum == 0.0 ? FA_NEG_INF : most + log(sum));
}
