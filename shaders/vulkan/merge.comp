#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Merges the partial results of rows that were split: a work-group for each row of a merge item. */
#extension GL_GOOGLE_include_directive : require
#include "softmax.glsl"

void main()
{
    if (work_group() >= pc.groups)
        return;
    const work w = work_at(FA_VK_WORD_MERGES_AT, work_group());
    const int rows = w.row_end - w.row_begin, r = int(gl_WorkGroupID.z);
    if (r >= rows)
        return;
    const int parts = table_int(table_int(FA_VK_WORD_MERGES_AT) / 4 + work_group() * FA_VK_WORDS_ITEM + FA_VK_WORD_PARTS);
    const query q = query_of(w, w.row_begin + r);
    const float sink = sink_of(w, q);
    const position lse_at = at(FA_VK_SLOT_PARTIAL_LSE) + (w.part_row + position(r)) * 4;
    const position part_at = at(FA_VK_SLOT_PARTIAL) + (w.part_row + position(r)) * position(w.dim_v * 4);
    float most = sink, sum = 0.0;
    for (int n = 0; n < parts; n++)
        most = max(most, load_partial_lse(lse_at + position(n * rows) * 4));
    const float base = finite_max(most);
    for (int n = 0; n < parts; n++)
        sum += exp(load_partial_lse(lse_at + position(n * rows) * 4) - base);
    sum += exp(sink - base);
    const position to = row_of_o(w, q);
    for (int d = int(gl_LocalInvocationIndex) * 4; d < w.dim_v; d += GROUP * 4) {
        vec4 total = vec4(0.0);
        for (int n = 0; n < parts; n++) {
            const float weight = exp(load_partial_lse(lse_at + position(n * rows) * 4) - base);
            const position from = part_at + (position(n * rows) * position(w.dim_v) + position(d)) * 4;
            [[unroll]] for (int e = 0; e < 4; e++) {
                if (d + e < w.dim_v)
                    total[e] += weight * load_partial(from + position(4 * e));
            }
        }
        store4_o(to + position(d * bytes_of(TYPE_O)), w.dim_v - d, sum == 0.0 ? vec4(0.0) : total / sum);
    }
    if (gl_LocalInvocationIndex == 0 && (w.flags & FA_TABLE_LSE) != 0)
        store_float_lse(lse_of(w, q), sum == 0.0 ? FA_NEG_INF : most + log(sum));
}
