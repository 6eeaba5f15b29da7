/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention by multiply-adds, in two levels of tiles. A block of threads takes one item: BLOCK_Q packed rows against
 * the item's keys in blocks of R.block_kv. Thread (x, y) holds R.rows rows by KEYS keys of the scores and R.rows rows by
 * DIMS dims of the output, in registers for good. Both products run through shared memory in steps of R.depth: dims
 * of q and k for the scores, then keys of the weights and of v for the output. What a step needs is fetched into
 * registers while the step before it computes, and stored in the stage that was read a step ago: one barrier a step.
 *
 * The keys of a thread are 4 x + e + 4 LANES g, e < 4: vectors of four, interleaved. Every step of the second product
 * takes one key of each of R.depth threads, so that all write weights at once.
 */
#pragma once

#include "softmax.cuh"

template <int ROW, int BLOCK_Q>
struct fma_kernel {
    static constexpr fa_cuda_row R = fa_cuda_table[ROW];
    static constexpr int LANES = R.lanes, ROWS = R.rows, DEPTH = R.depth, BLOCK_KV = R.block_kv;
    static constexpr int LINES = BLOCK_Q / ROWS, GROUP = LANES * LINES, KEYS = BLOCK_KV / LANES;
    static constexpr int DIMS = R.dim_v / LANES, STEPS_V = BLOCK_KV / DEPTH;
    static constexpr int STAGE = fa_cuda_fma_stage(R, BLOCK_Q);
    static_assert(LANES <= 32 && ROWS % 4 == 0 && KEYS % 4 == 0 && DIMS % 4 == 0, "what the kernel is made for");

    /* Vectors of four that each thread fetches for a step. */
    static constexpr int FETCH_Q = ceil_div(BLOCK_Q * (DEPTH / 4), GROUP);
    static constexpr int FETCH_K = ceil_div(BLOCK_KV * (DEPTH / 4), GROUP);
    static constexpr int FETCH_V = ceil_div(DEPTH * (R.dim_v / 4), GROUP);
    static constexpr int FETCH = FETCH_Q + FETCH_K > FETCH_V ? FETCH_Q + FETCH_K : FETCH_V;

    /* Lines of a stage: padded so that neither writing columns nor reading lines meets one bank twice. */
    static __device__ constexpr int line_q(int d) { return fa_cuda_fma_line(R, BLOCK_Q, d); }
    static __device__ constexpr int line_k(int d) { return fa_cuda_fma_line(R, BLOCK_KV, d); }
    static __device__ constexpr int line_p(int t) { return t * (BLOCK_Q + 4); }
    static __device__ constexpr int line_v(int t) { return t * R.dim_v; }
    static constexpr int STAGE_ROWS = DEPTH * (BLOCK_Q + 4);

    const scene &s;
    const int id, x, y;
    raw4 fetched[FETCH];
    const uchar *rows_q[FETCH_Q];
    float sc[ROWS][KEYS], out[ROWS][DIMS], max[ROWS], sum[ROWS];

    __device__ fma_kernel(const scene &of) : s(of), id(threadIdx.x), x(threadIdx.x % LANES), y(threadIdx.x / LANES) {}

    /* Where the rows of q are that this thread fetches from; those past the end are the last one again. */
    __device__ void find_rows()
    {
        UNROLL
        for (int n = 0; n < FETCH_Q; n++)
            rows_q[n] = query(s, s.row_begin + (id + n * GROUP) / (DEPTH / 4)).q(s);
    }

    /* Keys past the end are the last one again: their scores are hidden, their weights 0. */
    __device__ void fetch_qk(int key, int key_end, int dim)
    {
        const uchar *at[FETCH_Q > FETCH_K ? FETCH_Q : FETCH_K];
        int count[FETCH_Q > FETCH_K ? FETCH_Q : FETCH_K];
        UNROLL
        for (int n = 0; n < FETCH_Q; n++) {
            const int d = dim + (id + n * GROUP) % (DEPTH / 4) * 4;
            at[n] = rows_q[n] + d * bytes_of(s.a.type_q);
            count[n] = s.p->dim_qk - d;
        }
        fetch4<FETCH_Q>(s.a.type_q, s.a.aligned, at, count, fetched);
        UNROLL
        for (int n = 0; n < FETCH_K; n++) {
            const int i = id + n * GROUP, j = FA_MIN(key + i / (DEPTH / 4), key_end - 1), d = dim + i % (DEPTH / 4) * 4;
            at[n] = s.k + j * s.k_stride() + d * bytes_of(s.a.type_k);
            count[n] = s.p->dim_qk - d;
        }
        fetch4<FETCH_K>(s.a.type_k, s.a.aligned, at, count, fetched + FETCH_Q);
    }

    /* The key, from the block's first, whose weight is number `slot` of a step. */
    static __device__ int key_of(int step, int slot)
    {
        const int i = step * DEPTH + slot, group = i / LANES;
        return group / 4 * (4 * LANES) + i % LANES * 4 + group % 4;
    }

    __device__ void fetch_v(int key, int key_end, int step)
    {
        const uchar *at[FETCH_V];
        int count[FETCH_V];
        UNROLL
        for (int n = 0; n < FETCH_V; n++) {
            const int i = id + n * GROUP, d = i % (R.dim_v / 4) * 4;
            const int j = FA_MIN(key + key_of(step, i / (R.dim_v / 4)), key_end - 1);
            at[n] = s.v + j * s.v_stride() + d * bytes_of(s.a.type_v);
            count[n] = s.p->dim_v - d;
        }
        fetch4<FETCH_V>(s.a.type_v, s.a.aligned, at, count, fetched);
    }

    static __device__ void put_column(float *to, int width, float4 v)
    {
        to[0] = v.x;
        to[width] = v.y;
        to[2 * width] = v.z;
        to[3 * width] = v.w;
    }

    __device__ void put_qk(float *stage)
    {
        UNROLL
        for (int n = 0; n < FETCH_Q; n++) {
            const int i = id + n * GROUP, row = i / (DEPTH / 4), d = i % (DEPTH / 4) * 4;
            if (BLOCK_Q * (DEPTH / 4) % GROUP == 0 || row < BLOCK_Q)
                put_column(stage + line_q(d) + row, BLOCK_Q, widen4(s.a.type_q, fetched[n]));
        }
        UNROLL
        for (int n = 0; n < FETCH_K; n++) {
            const int i = id + n * GROUP, key = i / (DEPTH / 4), d = i % (DEPTH / 4) * 4;
            if (BLOCK_KV * (DEPTH / 4) % GROUP == 0 || key < BLOCK_KV)
                put_column(stage + STAGE_ROWS + line_k(d) + key, BLOCK_KV, widen4(s.a.type_k, fetched[FETCH_Q + n]));
        }
    }

    /* False where one of them is not finite. */
    __device__ bool put_v(float *stage)
    {
        float4 *to = (float4 *)(stage + STAGE_ROWS);
        bool finite = true;
        UNROLL
        for (int n = 0; n < FETCH_V; n++) {
            const int i = id + n * GROUP;
            const float4 value = widen4(s.a.type_v, fetched[n]);
            if (DEPTH * (R.dim_v / 4) % GROUP == 0 || i < DEPTH * (R.dim_v / 4))
                to[i] = value;
            finite = finite && is_finite4(value);
        }
        return finite;
    }

    static __device__ void get_rows(const float *from, float to[ROWS])
    {
        UNROLL
        for (int i = 0; i < ROWS; i += 4) {
            const float4 four = *(const float4 *)(from + i);
            to[i] = four.x;
            to[i + 1] = four.y;
            to[i + 2] = four.z;
            to[i + 3] = four.w;
        }
    }

    /* sums += rows columns: one term of a step. */
    template <int COLUMNS>
    static __device__ void multiply(const float *rows, const float *columns, float sums[ROWS][COLUMNS])
    {
        float a[ROWS];
        get_rows(rows, a);
        UNROLL
        for (int g = 0; g < COLUMNS; g += 4) {
            const float4 b = *(const float4 *)(columns + g * LANES);
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                sums[i][g] += a[i] * b.x;
                sums[i][g + 1] += a[i] * b.y;
                sums[i][g + 2] += a[i] * b.z;
                sums[i][g + 3] += a[i] * b.w;
            }
        }
    }

    __device__ void multiply_qk(const float *stage)
    {
        const float *a = stage + y * ROWS, *b = stage + STAGE_ROWS + 4 * x;
        UNROLL
        for (int t = 0; t < DEPTH; t++)
            multiply<KEYS>(a + line_q(t), b + line_k(t), sc);
    }

    __device__ void multiply_pv(const float *stage)
    {
        const float *a = stage + y * ROWS, *b = stage + STAGE_ROWS + 4 * x;
        UNROLL
        for (int t = 0; t < DEPTH; t++)
            multiply<DIMS>(a + line_p(t), b + line_v(t), out);
    }

    /* Row 0 goes last and the others move up. Registers have no index: what is long and seldom treats row 0, in turns. */
    template <int COLUMNS>
    static __device__ void turn_rows(float rows[ROWS][COLUMNS])
    {
        UNROLL
        for (int g = 0; g < COLUMNS; g++) {
            const float first = rows[0][g];
            UNROLL
            for (int i = 0; i + 1 < ROWS; i++)
                rows[i][g] = rows[i + 1][g];
            rows[ROWS - 1][g] = first;
        }
    }

    /* multiply_pv() where a hidden value may not be finite: it must not meet its weight of 0. */
    __device__ void multiply_guarded(const float *stage, int key, int key_end, int step)
    {
        const float *a = stage + y * ROWS, *b = stage + STAGE_ROWS + 4 * x;
        ROLLED
        for (int turn = 0; turn < ROWS; turn++) {
            const query q(s, s.row_begin + y * ROWS + turn);
            ROLLED
            for (int t = 0; t < DEPTH; t++) {
                const int j = key + key_of(step, t);
                if (j >= key_end || !is_visible(s, q, j))
                    continue;
                const float weight = a[line_p(t) + turn];
                UNROLL
                for (int g = 0; g < DIMS; g++)
                    out[0][g] += weight * b[line_v(t) + g / 4 * 4 * LANES + g % 4];
            }
            turn_rows<DIMS>(out);
        }
    }

    /* The weights of one step: of each thread in its turn, the keys that key_of() names. */
    __device__ void put_weights(float *stage, int step)
    {
        UNROLL
        for (int g = 0; g < KEYS; g++) {
            const int slot = g * LANES + x - step * DEPTH;
            if (slot >= 0 && slot < DEPTH) {
                UNROLL
                for (int i = 0; i < ROWS; i += 4)
                    *(float4 *)(stage + line_p(slot) + y * ROWS + i) =
                        make_float4(sc[i][g], sc[i + 1][g], sc[i + 2][g], sc[i + 3][g]);
            }
        }
    }

    /* Scores that the mask cuts, or that a description transforms, row by row in turns. */
    __device__ void treat_scores(int key, int key_end, bool cut, bool transformed)
    {
        ROLLED
        for (int turn = 0; turn < ROWS; turn++) {
            const query q(s, s.row_begin + y * ROWS + turn);
            UNROLL
            for (int g = 0; g < KEYS; g++) {
                const int j = key + g / 4 * 4 * LANES + 4 * x + g % 4;
                if (j >= key_end || (cut && !q.sees(s, j)))
                    sc[0][g] = FA_NEG_INF;
                else if (transformed)
                    sc[0][g] = transform(s, q, j, sc[0][g]);
                else
                    sc[0][g] *= s.p->scale_log2;
            }
            turn_rows<KEYS>(sc);
        }
    }

    __device__ void scale_scores()
    {
        const float scale = s.p->scale_log2;
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            UNROLL
            for (int g = 0; g < KEYS; g++)
                sc[i][g] *= scale;
        }
    }

    /* Scores become weights, under the new maximum of each row. */
    __device__ void weigh()
    {
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            float next = max[i], total = 0.0f;
            UNROLL
            for (int g = 0; g < KEYS; g++)
                next = fmaxf(next, sc[i][g]);
            next = lanes_max<LANES>(next);
            const float old = fa_state_weight(max[i], next), base = finite_max(next);
            max[i] = next;
            UNROLL
            for (int g = 0; g < KEYS; g++) {
                sc[i][g] = exp2_fast(sc[i][g] - base);
                total += sc[i][g];
            }
            sum[i] = sum[i] * old + total;
            UNROLL
            for (int g = 0; g < DIMS; g++)
                out[i][g] *= old;
        }
    }

    __device__ void clear(float rows[ROWS][KEYS])
    {
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            UNROLL
            for (int g = 0; g < KEYS; g++)
                rows[i][g] = 0.0f;
        }
    }

    __device__ void start()
    {
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            max[i] = FA_NEG_INF;
            sum[i] = 0.0f;
            UNROLL
            for (int g = 0; g < DIMS; g++)
                out[i][g] = 0.0f;
        }
    }

    __device__ void finish()
    {
        UNROLL
        for (int i = 0; i < ROWS; i++)
            sum[i] = lanes_sum<LANES>(sum[i]);
        ROLLED
        for (int turn = 0; turn < ROWS; turn++) {
            const int row = s.row_begin + y * ROWS + turn;
            const query q(s, row);
            fa_state state;
            state.max = max[0];
            state.sum = sum[0];
            const target to(s, q, row, state, x == 0);
            UNROLL
            for (int g = 0; g < DIMS; g += 4) {
                const int d = 4 * x + g * LANES;
                store4(to.type, to.aligned, to.at + d * bytes_of(to.type), q.exists ? s.p->dim_v - d : 0,
                       make_float4(out[0][g] * to.factor, out[0][g + 1] * to.factor, out[0][g + 2] * to.factor,
                                   out[0][g + 3] * to.factor));
            }
            turn_rows<DIMS>(out);
            UNROLL
            for (int i = 0; i + 1 < ROWS; i++) {
                max[i] = max[i + 1];
                sum[i] = sum[i + 1];
            }
        }
    }

    __device__ void run(float *room)
    {
        volatile int *unsafe = (volatile int *)room; /* some value that may be hidden is not finite */
        float *stages = room + 4;
        int stage = 0;
        start();
        find_rows();
        if (id == 0)
            *unsafe = 0;
        int key = s.next_block(s.key_begin, BLOCK_KV);
        if (key < s.key_end)
            fetch_qk(key, s.key_end, 0);
        ROLLED
        while (key < s.key_end) {
            const int key_end = FA_MIN(key + BLOCK_KV, s.key_end);
            clear(sc);
            ROLLED
            for (int d = 0; d < s.p->dim_qk; d += DEPTH) {
                float *now = stages + stage * STAGE;
                put_qk(now);
                __syncthreads();
                if (d + DEPTH < s.p->dim_qk)
                    fetch_qk(key, key_end, d + DEPTH);
                else
                    fetch_v(key, key_end, 0);
                multiply_qk(now);
                stage ^= 1;
            }
            const bool cut = s.is_cut(key, key_end), transformed = transforms(s);
            const bool hides = cut || (s.p->flags & FA_TABLE_KEEP);
            if (cut || transformed || key_end < key + BLOCK_KV)
                treat_scores(key, key_end, cut, transformed);
            else
                scale_scores();
            weigh();
            const int next = s.next_block(key + BLOCK_KV, BLOCK_KV);
            ROLLED
            for (int step = 0; step < STEPS_V; step++) {
                float *now = stages + stage * STAGE;
                put_weights(now, step);
                if (!put_v(now) && hides)
                    *unsafe = 1;
                __syncthreads();
                if (step + 1 < STEPS_V)
                    fetch_v(key, key_end, step + 1);
                else if (next < s.key_end)
                    fetch_qk(next, FA_MIN(next + BLOCK_KV, s.key_end), 0);
                if (hides && *unsafe)
                    multiply_guarded(now, key, key_end, step);
                else
                    multiply_pv(now);
                stage ^= 1;
            }
            key = next;
        }
        finish();
    }
};

template <int ROW, int BLOCK_Q>
__device__ __forceinline__ void fma_attention(const fa_cuda_args &a, float4 *room)
{
    const scene s(a, blockIdx.x);
    fma_kernel<ROW, BLOCK_Q> kernel(s);
    kernel.run((float *)room);
}
