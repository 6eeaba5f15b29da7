/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges the partial results of rows that were split: a block of threads for each row of a merge item, grid (item, row).
 * Threads share the parts: one of `lines` takes each of them in turn, four dims at a time.
 */
#pragma once

#include "softmax.cuh"

struct merge_item {
    const fa_cuda_args &a;
    const fa_table_params *p;
    fa_table_merge w;
    int rows, r;

    __device__ merge_item(const fa_cuda_args &args)
        : a(args), p(&args.p),
          w(((const fa_table_merge *)a.table)[p->merges_at + blockIdx.x]), rows(w.row_end - w.row_begin), r(blockIdx.y)
    {
    }

    __device__ fa_state state(int n) const
    {
        const float2 at = ((const float2 *)a.partial_state)[w.part_row + r + (fa_long)n * rows];
        return {at.x, at.y};
    }

    __device__ float4 part(int n, int d) const
    {
        const float *at = (const float *)a.partial + (w.part_row + r + (fa_long)n * rows) * p->dim_v + d;
        if (p->dim_v % 4 == 0)
            return *(const float4 *)at;
        return make_float4(at[0], d + 1 < p->dim_v ? at[1] : 0.0f, d + 2 < p->dim_v ? at[2] : 0.0f,
                           d + 3 < p->dim_v ? at[3] : 0.0f);
    }
};

template <int GROUP>
__device__ __forceinline__ void merge_parts(const fa_cuda_args &a, float4 totals[GROUP], float weights[GROUP])
{
    constexpr int AHEAD = 4; /* parts that a thread has on their way at a time */
    const merge_item m(a);
    if (m.r >= m.rows)
        return;
    const fa_table_params *p = m.p;
    const work s(a, {m.w.part_row, m.w.sequence, m.w.head_kv, m.w.row_begin, m.w.row_end, 0, 0});
    const query row(s, m.w.row_begin + m.r);
    uchar *o = row.o(s);
    const int id = threadIdx.x, parts = m.w.parts, vectors = ceil_div(p->dim_v, 4), lanes = FA_MIN(vectors, GROUP);
    const int lines = GROUP / lanes, lane = id % lanes, line = id / lanes;

    fa_state whole = fa_state_empty();
    fa_closed closed = {};
    wait_for_parts();
    for (int n = id; n < parts; n += GROUP)
        whole.max = fmaxf(whole.max, m.state(n).max);
    weights[id] = whole.max;
    __syncthreads();
    for (int n = 0; n < FA_MIN(parts, GROUP); n++)
        whole.max = fmaxf(whole.max, weights[n]);
    const float base = fa_safe_max(whole.max);
    for (int from = 0; from < vectors; from += lanes) {
        const int d = (from + lane) * 4;
        const bool has = line < lines && d < p->dim_v;
        float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        whole.sum = 0.0f;
        for (int first = 0; first < parts; first += GROUP) {
            const int count = FA_MIN(parts - first, GROUP);
            __syncthreads();
            weights[id] = id < count ? fa_part_weight(m.state(first + id), base, p->score.unit) : 0.0f;
            __syncthreads();
            for (int n = 0; n < count; n++)
                whole.sum += weights[n];
            ROLLED
            for (int n = line; has && n < count; n += AHEAD * lines) {
                float4 part[AHEAD];
                UNROLL
                for (int i = 0; i < AHEAD; i++)
                    part[i] = m.part(first + FA_MIN(n + i * lines, count - 1), d);
                UNROLL
                for (int i = 0; i < AHEAD; i++) {
                    if (n + i * lines < count) {
                        const float weight = weights[n + i * lines];
                        total.x += weight * part[i].x;
                        total.y += weight * part[i].y;
                        total.z += weight * part[i].z;
                        total.w += weight * part[i].w;
                    }
                }
            }
        }
        totals[id] = total;
        closed = fa_work_close(s, row, whole, true);
        __syncthreads();
        if (has && line == 0) {
            for (int l = 1; l < lines; l++) {
                const float4 other = totals[l * lanes + lane];
                total.x += other.x;
                total.y += other.y;
                total.z += other.z;
                total.w += other.w;
            }
            store4(a.type_o, a.aligned, o + d * bytes_of(a.type_o), p->dim_v - d, fa_normalised4(total, closed.factor));
        }
    }
    if (id == 0 && (p->flags & FA_TABLE_LSE))
        *row.lse(s) = closed.lse;
}
