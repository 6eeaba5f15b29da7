/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of few rows by multiply-adds: each key and value is fetched once, straight into registers, and all rows of
 * the item use it. Bound by memory, so many blocks of R.group threads run beside each other. For each block of keys:
 * SPLIT threads share the dims of a key and leave their parts of its scores in shared memory; PER_ROW threads turn each
 * row's scores into weights; then every thread adds up eight dims of the output (or OCTETS times eight) over the keys
 * of its line, whose first values were on their way all the while. Lines are added up when the item ends.
 */
#pragma once

#include "scaled.cuh"

/* Eight elements as they lie in memory; narrow ones in the first vector. */
struct raw8 {
    uint4 low, high;
};

/* N times eight elements, of which count[n] exist. */
template <int N>
__device__ __forceinline__ void fetch8(int type, bool aligned, const uchar *const at[N], const int count[N], raw8 to[N])
{
    UNROLL
    for (int n = 0; n < N; n++)
        to[n].low = to[n].high = make_uint4(0, 0, 0, 0);
    if (aligned && type == TYPE_F32) {
        UNROLL
        for (int n = 0; n < N; n++) {
            if (count[n] > 0) {
                to[n].low = *(const uint4 *)at[n];
                to[n].high = *(const uint4 *)(at[n] + 16);
            }
        }
    } else if (aligned) {
        UNROLL
        for (int n = 0; n < N; n++) {
            if (count[n] > 0)
                to[n].low = *(const uint4 *)at[n];
        }
    } else {
        UNROLL
        for (int n = 0; n < N; n++) {
            raw4 half[2];
            const uchar *const parts[2] = {at[n], at[n] + 4 * bytes_of(type)};
            const int counts[2] = {count[n], count[n] - 4};
            fetch4<2>(type, false, parts, counts, half);
            if (type == TYPE_F32) {
                to[n].low = half[0];
                to[n].high = half[1];
            } else {
                to[n].low = make_uint4(half[0].x, half[0].y, half[1].x, half[1].y);
            }
        }
    }
}

__device__ __forceinline__ void widen8(int type, const raw8 &x, float to[8])
{
    if (type == TYPE_F32) {
        const uint words[8] = {x.low.x, x.low.y, x.low.z, x.low.w, x.high.x, x.high.y, x.high.z, x.high.w};
        UNROLL
        for (int i = 0; i < 8; i++)
            to[i] = __uint_as_float(words[i]);
        return;
    }
    const uint words[4] = {x.low.x, x.low.y, x.low.z, x.low.w};
    UNROLL
    for (int i = 0; i < 4; i++) {
        to[2 * i] = type == TYPE_F16 ? from_half((ushort)words[i]) : __uint_as_float(words[i] << 16);
        to[2 * i + 1] = type == TYPE_F16 ? from_half((ushort)(words[i] >> 16)) : __uint_as_float(words[i] & 0xffff0000u);
    }
}

/* N times eight coded elements, e and after of the blocks at at[n]: words that have their codes, and from which bit on. */
template <int KIND, int N>
__device__ __forceinline__ void fetch8_coded(const fa_cuda_format &in, const uchar *const at[N], uint e, bool exist,
                                             raw8 to[N])
{
    uint bits = 0;
    UNROLL
    for (int n = 0; n < N; n++) {
        to[n].low = to[n].high = make_uint4(0, 0, 0, 0);
        bits |= low_bits(at[n]);
    }
    if (!exist)
        return;
    if (KIND == KIND_FP8 && bits % 8 == 0) {
        UNROLL
        for (int n = 0; n < N; n++) {
            const uint2 x = *(const uint2 *)at[n];
            to[n].low.x = x.x;
            to[n].low.y = x.y;
        }
        return;
    }
    UNROLL
    for (int n = 0; n < N; n++) {
        const uchar *const codes = at[n] + codes_at<KIND>(in, e);
        const uint odd = low_bits(codes) & 2; /* then two bytes before them are read, which nobody looks at */
        const uint *const words = (const uint *)(codes - odd);
        to[n].low.x = words[0];
        to[n].low.y = words[1];
        if (odd)
            to[n].low.z = *(const ushort *)(words + 2);
        to[n].low.w = 8 * odd + (KIND == KIND_BLOCKS ? upper_bits(in, e) : 0);
    }
    if (KIND == KIND_BLOCKS) {
        fetch_scaling<N>(in, at, [&](int n) -> uint & { return to[n].high.x; });
        if (in.fifth != 0) {
            UNROLL
            for (int n = 0; n < N; n++)
                to[n].high.y = at[n][in.fifth + e / 8];
        }
    }
}

/* N times eight elements of rows that are no sequence of blocks, from dim d on: the bits of their numbers. */
template <bool OF_V, int N>
__device__ __forceinline__ void fetch8_rows(const work &s, const uchar *const at[N], int d, bool exist, raw8 to[N])
{
    UNROLL
    for (int n = 0; n < N; n++) {
        to[n].low = fetch4_row<OF_V>(s, at[n], d, exist);
        to[n].high = fetch4_row<OF_V>(s, at[n], d + 4, exist);
    }
}

/* N times eight elements of keys j[n], from dim d on, whose blocks lie at at[n]: the bits of their numbers. */
template <bool OF_V, int N>
__device__ __forceinline__ void fetch8_scaled(const work &s, const uchar *const at[N], const int j[N], int d, bool exist,
                                              raw8 to[N])
{
    UNROLL
    for (int n = 0; n < N; n++) {
        const scaled_row scales = scales_of<OF_V>(s, j[n]);
        to[n].low = fetch4_scaled<OF_V>(s, at[n], scales, d, exist);
        to[n].high = fetch4_scaled<OF_V>(s, at[n], scales, d + 4, exist);
    }
}

/* What a fetch of that kind has left, as numbers. */
template <int KIND>
__device__ __forceinline__ void widen8_of(int type, const fa_cuda_format &in, const raw8 &x, float to[8])
{
    if constexpr (KIND == KIND_PLAIN || KIND >= KIND_SCALED) {
        widen8(KIND >= KIND_SCALED ? TYPE_F32 : type, x, to);
    } else {
        const uint codes[2] = {__funnelshift_r(x.low.x, x.low.y, x.low.w), __funnelshift_r(x.low.y, x.low.z, x.low.w)};
        decode<KIND, 2>(type, in, codes, x.high.y, x.high.x, to);
    }
}

template <int ROW, int BLOCK_Q>
struct rows_kernel {
    static constexpr fa_cuda_traits R = fa_cuda_table[ROW];
    static constexpr int GROUP = R.group, SPLIT = R.share, BLOCK_KV = R.block_kv;
    static constexpr int LINES_K = GROUP / SPLIT, KEYS = BLOCK_KV / LINES_K, VECTORS_K = ceil_div(R.dim_qk, 8 * SPLIT);
    static constexpr int DIM_Q = VECTORS_K * 8 * SPLIT, OCTETS = ceil_div(R.dim_v, 8 * GROUP);
    static constexpr int LANES_V = ceil_div(R.dim_v, 8 * OCTETS), LINES_V = GROUP / LANES_V;
    static constexpr int PER_ROW = GROUP / BLOCK_Q < 32 ? GROUP / BLOCK_Q : 32; /* threads that weigh one row */
    static constexpr int SCORES = BLOCK_KV / PER_ROW;
    static constexpr int AHEAD = 4; /* keys whose values are fetched before they are used */
    static_assert(DIM_Q == R.dim_qk && BLOCK_KV % LINES_K == 0 && BLOCK_KV % PER_ROW == 0, "what the kernel is made for");

    const work &s;
    const int id;
    float *q, *parts, *weights, *exchange, *maxima; /* in shared memory */
    float out[BLOCK_Q][OCTETS][8];

    __device__ rows_kernel(const work &of, float *room) : s(of), id(threadIdx.x)
    {
        q = room;
        parts = q + BLOCK_Q * DIM_Q;
        weights = parts + fa_cuda_rows_sums(R, BLOCK_Q);
        exchange = weights + BLOCK_Q * BLOCK_KV;
        maxima = exchange + GROUP;
    }

    /* Scores of the block's keys, without scale, one part from each thread. */
    template <int KIND>
    __device__ void score_keys(int key, int key_end)
    {
        const int lane = id % SPLIT, line = id / SPLIT;
        float sc[KEYS][BLOCK_Q];
        int j[KEYS];
        const uchar *row[KEYS];
        UNROLL
        for (int n = 0; n < KEYS; n++)
            j[n] = FA_MIN(key + line + n * LINES_K, key_end - 1);
        s.rows_of<TYPE_ANY, false, KEYS>(j, row);
        UNROLL
        for (int n = 0; n < KEYS; n++) {
            UNROLL
            for (int r = 0; r < BLOCK_Q; r++)
                sc[n][r] = 0.0f;
        }
        _Pragma("unroll 2") for (int c = 0; c < VECTORS_K; c++)
        {
            const int d = (c * SPLIT + lane) * 8;
            const uchar *at[KEYS];
            int count[KEYS];
            raw8 keys[KEYS];
            UNROLL
            for (int n = 0; n < KEYS; n++) {
                at[n] = row[n] + offset_of(d, s.a.type_k, s.a.in_k);
                count[n] = s.p->dim_qk - d;
            }
            if constexpr (KIND == KIND_PLAIN)
                fetch8<KEYS>(s.a.type_k, s.a.aligned, at, count, keys);
            else if constexpr (KIND == KIND_ROWS)
                fetch8_rows<false, KEYS>(s, at, d, count[0] > 0, keys);
            else if constexpr (KIND == KIND_SCALED)
                fetch8_scaled<false, KEYS>(s, at, j, d, count[0] > 0, keys);
            else
                fetch8_coded<KIND, KEYS>(s.a.in_k, at, dim_in<KIND>(d), count[0] > 0, keys);
            UNROLL
            for (int n = 0; n < KEYS; n++) {
                float x[8];
                widen8_of<KIND>(s.a.type_k, s.a.in_k, keys[n], x);
                UNROLL
                for (int r = 0; r < BLOCK_Q; r++) {
                    const float4 *row = (const float4 *)(q + r * DIM_Q + d);
                    const float4 low = row[0], high = row[1];
                    sc[n][r] += low.x * x[0] + low.y * x[1] + low.z * x[2] + low.w * x[3] + high.x * x[4] +
                                high.y * x[5] + high.z * x[6] + high.w * x[7];
                }
            }
        }
        UNROLL
        for (int n = 0; n < KEYS; n++) {
            UNROLL
            for (int r = 0; r < BLOCK_Q; r++)
                parts[(lane * BLOCK_Q + r) * BLOCK_KV + line + n * LINES_K] = sc[n][r];
        }
    }

    /* The values of AHEAD keys of this thread's line, from the block's key `first` on; past the end, the last's. */
    template <int KIND>
    __device__ void fetch_values(int key, int key_end, int first, raw8 to[AHEAD * OCTETS])
    {
        const int lane = id % LANES_V, line = id / LANES_V;
        const uchar *row[AHEAD], *at[AHEAD * OCTETS];
        int j[AHEAD], count[AHEAD * OCTETS];
        UNROLL
        for (int i = 0; i < AHEAD; i++)
            j[i] = FA_MIN(key + first + line + i * LINES_V, key_end - 1);
        s.rows_of<TYPE_ANY, true, AHEAD>(j, row);
        UNROLL
        for (int i = 0; i < AHEAD * OCTETS; i++) {
            const int d = (lane + i % OCTETS * LANES_V) * 8;
            at[i] = row[i / OCTETS] + offset_of(d, s.a.type_v, s.a.in_v);
            count[i] = s.p->dim_v - d;
        }
        if constexpr (KIND == KIND_PLAIN) {
            fetch8<AHEAD * OCTETS>(s.a.type_v, s.a.aligned, at, count, to);
        } else {
            static_assert(OCTETS == 1, "a thread's vectors are of one dim");
            if constexpr (KIND == KIND_ROWS)
                fetch8_rows<true, AHEAD>(s, at, lane * 8, count[0] > 0, to);
            else if constexpr (KIND == KIND_SCALED)
                fetch8_scaled<true, AHEAD>(s, at, j, lane * 8, count[0] > 0, to);
            else
                fetch8_coded<KIND, AHEAD>(s.a.in_v, at, dim_in<KIND>(lane * 8), count[0] > 0, to);
        }
    }

    /* out += weight value for every row; a hidden value that is not finite is left out, as is its weight of 0. */
    template <int KIND>
    __device__ void add_value(const raw8 &raw, int at, int key, bool hides, int c)
    {
        float value[8], zero = 0.0f;
        widen8_of<KIND>(s.a.type_v, s.a.in_v, raw, value);
        if (hides) {
            UNROLL
            for (int i = 0; i < 8; i++)
                zero += value[i] * 0.0f;
        }
        const bool guarded = hides && zero != 0.0f;
        UNROLL
        for (int r = 0; r < BLOCK_Q; r++) {
            if (guarded && !fa_work_shows(s, query(s, s.row_begin + r), key + at))
                continue;
            const float weight = weights[r * BLOCK_KV + at];
            UNROLL
            for (int i = 0; i < 8; i++)
                out[r][c][i] += weight * value[i];
        }
    }

    template <int KIND>
    __device__ void add_values(int key, int key_end, bool hides, raw8 ahead[AHEAD * OCTETS])
    {
        const int line = id / LANES_V;
        if (line >= LINES_V)
            return;
        ROLLED
        for (int n = line; n < key_end - key; n += AHEAD * LINES_V) {
            UNROLL
            for (int i = 0; i < AHEAD * OCTETS; i++) {
                const int at = n + i / OCTETS * LINES_V;
                if (at < key_end - key)
                    add_value<KIND>(ahead[i], at, key, hides, i % OCTETS);
            }
            if (n + AHEAD * LINES_V < key_end - key)
                fetch_values<KIND>(key, key_end, n - line + AHEAD * LINES_V, ahead);
        }
    }

    /* One row's scores become weights. */
    __device__ fa_state softmax_step(const query &mine, int row, int lane, int key, int key_end, fa_state state)
    {
        float sc[SCORES], next = state.max, total = 0.0f;
        const bool transformed = transforms(s);
        UNROLL
        for (int n = 0; n < SCORES; n++) {
            const int at = lane + n * PER_ROW, j = key + at;
            sc[n] = FA_NEG_INF;
            if (j < key_end && mine.exists && mine.sees(s, j)) {
                float x = 0.0f;
                UNROLL
                for (int l = 0; l < SPLIT; l++)
                    x += parts[(l * BLOCK_Q + row) * BLOCK_KV + at];
                sc[n] = transformed ? fa_work_score(s, mine, j, x) : x;
            }
            next = fmaxf(next, sc[n]);
        }
        next = fa_lanes_max(next, PER_ROW);
        const float base = fa_safe_max(next), unit = s.p->score.unit;
        UNROLL
        for (int n = 0; n < SCORES; n++) {
            const float weight = exp2_fast((sc[n] - base) * unit);
            total += weight;
            weights[row * BLOCK_KV + lane + n * PER_ROW] = weight;
        }
        state.sum = state.sum * fa_state_weight(state.max, next, unit) + total;
        state.max = next;
        return state;
    }

    __device__ void rescale(float max[BLOCK_Q])
    {
        UNROLL
        for (int r = 0; r < BLOCK_Q; r++) {
            const float now = maxima[r], old = fa_state_weight(max[r], now, s.p->score.unit);
            max[r] = now;
            UNROLL
            for (int c = 0; c < OCTETS; c++) {
                UNROLL
                for (int i = 0; i < 8; i++)
                    out[r][c][i] *= old;
            }
        }
    }

    /* Lines are added up, row by row; row 0 is stored and the others move up. */
    __device__ void finish(const fa_state &mine, int my_row, int my_lane, bool weighs)
    {
        __syncthreads();
        const work s(this->s.a, blockIdx.x); /* read again: kept in registers, it would take the room of operands */
        if (weighs) {
            const float total = fa_lanes_sum(mine.sum, PER_ROW);
            if (my_lane == 0) {
                maxima[my_row] = mine.max;
                exchange[my_row] = total;
            }
        }
        ROLLED
        for (int r = 0; r < s.row_end - s.row_begin; r++) {
            const query at(s, s.row_begin + r);
            UNROLL
            for (int c = 0; c < OCTETS; c++) {
                __syncthreads();
                if (id / LANES_V < LINES_V) {
                    UNROLL
                    for (int i = 0; i < 8; i++)
                        parts[id * 8 + i] = out[0][c][i];
                }
                __syncthreads();
                fa_state state;
                state.max = maxima[r];
                state.sum = exchange[r];
                const target to(s, at, s.row_begin + r, state, id == 0 && c == 0);
                for (int n = id; n < LANES_V * 8; n += GROUP) {
                    const int d = n + c * LANES_V * 8;
                    float total = 0.0f;
                    for (int l = 0; l < LINES_V; l++)
                        total += parts[l * LANES_V * 8 + n];
                    if (d < s.p->dim_v)
                        store(to.type, to.at + d * bytes_of(to.type), fa_normalised(total, to.factor));
                }
            }
            UNROLL
            for (int i = 0; i + 1 < BLOCK_Q; i++) {
                UNROLL
                for (int c = 0; c < OCTETS; c++) {
                    UNROLL
                    for (int e = 0; e < 8; e++)
                        out[i][c][e] = out[i + 1][c][e];
                }
            }
        }
    }

    __device__ void run()
    {
        for (int n = id; n < BLOCK_Q * DIM_Q; n += GROUP) {
            const int r = n / DIM_Q, d = n % DIM_Q;
            const query at(s, s.row_begin + r);
            q[n] = d < s.p->dim_qk ? load(s.a.type_q, at.q(s) + d * bytes_of(s.a.type_q)) : 0.0f;
        }
        const int my_row = id / PER_ROW, my_lane = id % PER_ROW;
        const bool weighs = my_row < BLOCK_Q; /* whole warps, or none of one */
        const query mine(s, s.row_begin + my_row);
        fa_state state = fa_state_empty();
        float max[BLOCK_Q];
        UNROLL
        for (int r = 0; r < BLOCK_Q; r++) {
            max[r] = FA_NEG_INF;
            UNROLL
            for (int c = 0; c < OCTETS; c++) {
                UNROLL
                for (int i = 0; i < 8; i++)
                    out[r][c][i] = 0.0f;
            }
        }
        __syncthreads();
        int key = fa_work_next(s, false, s.key_begin, BLOCK_KV);
        ROLLED
        while (key < s.key_end) {
            const int key_end = FA_MIN(key + BLOCK_KV, s.key_end);
            const bool hides = s.is_cut(key, key_end) || (s.p->flags & FA_TABLE_KEEP);
            raw8 ahead[AHEAD * OCTETS];
            by_kind(s.a.type_k, [&](auto is) { score_keys<is.kind>(key, key_end); });
            by_kind(s.a.type_v, [&](auto is) { fetch_values<is.kind>(key, key_end, 0, ahead); });
            __syncthreads();
            if (weighs) {
                state = softmax_step(mine, my_row, my_lane, key, key_end, state);
                if (my_lane == 0)
                    maxima[my_row] = state.max;
            }
            __syncthreads();
            rescale(max);
            by_kind(s.a.type_v, [&](auto is) { add_values<is.kind>(key, key_end, hides, ahead); });
            key = fa_work_next(s, false, key + BLOCK_KV, BLOCK_KV);
        }
        finish(state, my_row, my_lane, weighs);
    }
};

template <int ROW, int BLOCK_Q>
__device__ __forceinline__ void rows_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    rows_kernel<ROW, BLOCK_Q> kernel(s, (float *)room);
    kernel.run();
}
