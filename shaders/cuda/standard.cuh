/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: a matrix product that leaves all scores in scratch memory, softmax over its
 * rows in place, and a second product. Three kernels.
 *
 * A launch covers a.rows packed rows from a.row_begin on of each of some items, from item a.first on. In scratch memory
 * (a.scratch) they lie one after the other, stride_of(keys) floats each, and in a.partial_state is one factor for each row.
 * Weights are not normalised before the second product, which multiplies its result by the row's factor instead. A
 * hidden weight is -0, so that it can be told from one that vanished: only the latter may meet a value that is not
 * finite.
 */
#pragma once

#include "softmax.cuh"

__device__ __forceinline__ int stride_of(int keys)
{
    return (keys + 3) / 4 * 4;
}

__device__ __forceinline__ bool is_hidden(float weight)
{
    return __float_as_uint(weight) == 0x80000000u;
}

/* The greatest of all threads' values, or their sum. */
template <int GROUP, bool ADD>
__device__ __forceinline__ float reduce(float *room, float x)
{
    x = ADD ? lanes_sum<32>(x) : lanes_max<32>(x);
    if (threadIdx.x % 32 == 0)
        room[threadIdx.x / 32] = x;
    __syncthreads();
    x = room[0];
    UNROLL
    for (int i = 1; i < GROUP / 32; i++)
        x = ADD ? x + room[i] : fmaxf(x, room[i]);
    __syncthreads();
    return x;
}

/* A block of threads for each row. */
template <int GROUP>
__device__ __forceinline__ void standard_softmax(const fa_cuda_args &a, float *room)
{
    const int n = blockIdx.x, part = n / a.rows;
    const work s(a, a.first + part);
    const int keys = s.walk.mask.len_kv;
    const query at(s, a.row_begin + n - part * a.rows);
    float *row = (float *)a.scratch + (fa_long)n * stride_of(keys);
    fa_state state = fa_state_empty();
    for (int j = threadIdx.x; j < keys; j += GROUP) {
        if (transforms(s))
            row[j] = fa_score_scaled(s.p->score, row[j]);
        if (at.sees(s, j))
            state.max = fmaxf(state.max, row[j]);
    }
    state.max = reduce<GROUP, false>(room, state.max);
    for (int j = threadIdx.x; j < keys; j += GROUP) {
        const bool seen = at.sees(s, j);
        const float weight = exp2_fast((row[j] - fa_safe_max(state.max)) * s.p->score.unit);
        row[j] = seen ? weight : -0.0f;
        state.sum += seen ? weight : 0.0f;
    }
    state.sum = reduce<GROUP, true>(room, state.sum);
    if (threadIdx.x == 0) {
        const fa_closed closed = fa_state_close(state, s.p->score.natural, FA_NEG_INF);
        ((float *)a.partial_state)[n] = closed.factor;
        if (s.p->flags & FA_TABLE_LSE)
            *at.lse(s) = closed.lse;
    }
}

/* Both products: a block of threads makes one tile of sums in steps of DEPTH terms, ROWS by COLS of them each. */
template <int ROW, int ROWS>
struct standard_tile {
    static constexpr fa_cuda_row R = fa_cuda_table[ROW];
    static constexpr int LANES = R.products.lanes, LINES = R.group / LANES, DEPTH = R.products.depth, GROUP = R.group,
                         COLS = R.products.rows;
    static constexpr int TILE_ROWS = LINES * ROWS, TILE_COLS = LANES * COLS;
    static constexpr int VECTORS_A = TILE_ROWS * (DEPTH / 4), VECTORS_B = TILE_COLS * (DEPTH / 4);
    static constexpr int FETCH_A = ceil_div(VECTORS_A, GROUP), FETCH_B = ceil_div(VECTORS_B, GROUP);
    static __device__ constexpr int line_a(int t) { return t * TILE_ROWS + t / 4 * 16; }
    static __device__ constexpr int line_b(int t) { return t * TILE_COLS + t / 4 * 16; }
    static constexpr int STAGE_B = DEPTH * TILE_ROWS + DEPTH / 4 * 16;
    static constexpr int STAGE = STAGE_B + DEPTH * TILE_COLS + DEPTH / 4 * 16;

    const int id, x, y;
    int part, row, col; /* the item, from the launch's first; the tile's first row and column */
    raw4 a[FETCH_A], b[FETCH_B];
    float sum[ROWS][COLS];

    __device__ standard_tile(int rows, int cols) : id(threadIdx.x), x(threadIdx.x % LANES), y(threadIdx.x / LANES)
    {
        const int across = ceil_div(cols, TILE_COLS), down = ceil_div(rows, TILE_ROWS), line = blockIdx.x / across;
        part = line / down;
        row = line % down * TILE_ROWS;
        col = (blockIdx.x - line * across) * TILE_COLS;
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            UNROLL
            for (int g = 0; g < COLS; g++)
                sum[i][g] = 0.0f;
        }
    }

    /* Vectors along rows of an operand become columns of the stage. */
    template <int N>
    __device__ void put_columns(float *to, int type, int vectors, bool is_a, const raw4 from[N])
    {
        UNROLL
        for (int n = 0; n < N; n++) {
            const int vector = id + n * GROUP, t = vector % (DEPTH / 4) * 4, width = is_a ? TILE_ROWS : TILE_COLS;
            const float4 value = widen4(type, from[n]);
            float *at = to + (is_a ? line_a(t) : line_b(t)) + vector / (DEPTH / 4);
            if (vector < vectors) {
                at[0] = value.x;
                at[width] = value.y;
                at[2 * width] = value.z;
                at[3 * width] = value.w;
            }
        }
    }

    __device__ void multiply(const float *stage)
    {
        UNROLL
        for (int t = 0; t < DEPTH; t++) {
            float rows[ROWS];
            UNROLL
            for (int i = 0; i < ROWS; i++)
                rows[i] = stage[line_a(t) + y * ROWS + i];
            UNROLL
            for (int g = 0; g < COLS; g += 4) {
                const float4 four = *(const float4 *)(stage + STAGE_B + line_b(t) + 4 * x + g * LANES);
                const float column[4] = {four.x, four.y, four.z, four.w};
                UNROLL
                for (int i = 0; i < ROWS; i++) {
                    UNROLL
                    for (int e = 0; e < 4; e++)
                        sum[i][g + e] += rows[i] * column[e];
                }
            }
        }
    }

    /* Likewise, but a hidden weight meets 0 in the place of a value that is not finite. */
    __device__ void multiply_guarded(const float *stage)
    {
        ROLLED
        for (int t = 0; t < DEPTH; t++) {
            UNROLL
            for (int i = 0; i < ROWS; i++) {
                const float row = stage[line_a(t) + y * ROWS + i];
                UNROLL
                for (int g = 0; g < COLS; g++) {
                    const float value = stage[STAGE_B + line_b(t) + 4 * x + g / 4 * 4 * LANES + g % 4];
                    sum[i][g] += row * (is_hidden(row) ? finite_or_0(value) : value);
                }
            }
        }
    }
};

template <int ROW, int ROWS>
__device__ __forceinline__ void standard_scores(const fa_cuda_args &args, float *room)
{
    typedef standard_tile<ROW, ROWS> tile;
    const fa_table_params *p = &args.p;
    const int keys = ((const fa_table_sequence *)args.table)[p->sequences_at].mask.len_kv;
    tile t(args.rows, keys);
    const work s(args, args.first + t.part);

    /* Rows and keys past the end are the last one again. */
    const uchar *rows_at[tile::FETCH_A], *keys_at[tile::FETCH_B], *at_a[tile::FETCH_A], *at_b[tile::FETCH_B];
    int count_a[tile::FETCH_A], count_b[tile::FETCH_B];
    UNROLL
    for (int n = 0; n < tile::FETCH_A; n++) {
        const int r = FA_MIN(t.row + (t.id + n * tile::GROUP) / (tile::DEPTH / 4), args.rows - 1);
        rows_at[n] = query(s, args.row_begin + r).q(s);
    }
    UNROLL
    for (int n = 0; n < tile::FETCH_B; n++)
        keys_at[n] = s.k + FA_MIN(t.col + (t.id + n * tile::GROUP) / (tile::DEPTH / 4), keys - 1) * s.k_stride();

    int stage = 0, d = 0;
    auto fetch = [&] {
        UNROLL
        for (int n = 0; n < tile::FETCH_A; n++) {
            const int vector = t.id + n * tile::GROUP, dim = d + vector % (tile::DEPTH / 4) * 4;
            at_a[n] = rows_at[n] + dim * bytes_of(args.type_q);
            count_a[n] = vector < tile::VECTORS_A ? p->dim_qk - dim : 0;
        }
        UNROLL
        for (int n = 0; n < tile::FETCH_B; n++) {
            const int vector = t.id + n * tile::GROUP, dim = d + vector % (tile::DEPTH / 4) * 4;
            at_b[n] = keys_at[n] + dim * bytes_of(args.type_k);
            count_b[n] = vector < tile::VECTORS_B ? p->dim_qk - dim : 0;
        }
        fetch4<tile::FETCH_A>(args.type_q, args.aligned, at_a, count_a, t.a);
        fetch4<tile::FETCH_B>(args.type_k, args.aligned, at_b, count_b, t.b);
    };
    fetch();
    ROLLED
    while (d < p->dim_qk) {
        float *now = room + stage * tile::STAGE;
        t.template put_columns<tile::FETCH_A>(now, args.type_q, tile::VECTORS_A, true, t.a);
        t.template put_columns<tile::FETCH_B>(now + tile::STAGE_B, args.type_k, tile::VECTORS_B, false, t.b);
        __syncthreads();
        d += tile::DEPTH;
        if (d < p->dim_qk)
            fetch();
        t.multiply(now);
        stage ^= 1;
    }
    UNROLL
    for (int i = 0; i < ROWS; i++) {
        const int r = t.row + t.y * ROWS + i;
        float *to = (float *)args.scratch + ((fa_long)t.part * args.rows + r) * stride_of(keys);
        UNROLL
        for (int g = 0; g < tile::COLS; g++) {
            const int j = t.col + 4 * t.x + g / 4 * 4 * tile::LANES + g % 4;
            if (r < args.rows && j < keys)
                to[j] = t.sum[i][g];
        }
    }
}

template <int ROW, int ROWS>
__device__ __forceinline__ void standard_output(const fa_cuda_args &args, float *room)
{
    typedef standard_tile<ROW, ROWS> tile;
    __shared__ int unsafe[2]; /* some value of a step that this stage had is not finite */
    const fa_table_params *p = &args.p;
    tile t(args.rows, p->dim_v);
    const work s(args, args.first + t.part);
    const int keys = s.walk.mask.len_kv;

    const uchar *rows_at[tile::FETCH_A], *at_a[tile::FETCH_A], *at_b[tile::FETCH_B];
    int count_a[tile::FETCH_A], count_b[tile::FETCH_B];
    UNROLL
    for (int n = 0; n < tile::FETCH_A; n++) {
        const int r = FA_MIN(t.row + (t.id + n * tile::GROUP) / (tile::DEPTH / 4), args.rows - 1);
        rows_at[n] = args.scratch + ((fa_long)t.part * args.rows + r) * stride_of(keys) * 4;
    }
    int stage = 0, key = 0;
    auto fetch = [&] {
        UNROLL
        for (int n = 0; n < tile::FETCH_A; n++) {
            const int vector = t.id + n * tile::GROUP, j = key + vector % (tile::DEPTH / 4) * 4;
            at_a[n] = rows_at[n] + j * 4;
            count_a[n] = vector < tile::VECTORS_A ? keys - j : 0;
        }
        UNROLL
        for (int n = 0; n < tile::FETCH_B; n++) {
            const int i = t.id + n * tile::GROUP, j = key + i / (tile::TILE_COLS / 4);
            const int d = t.col + i % (tile::TILE_COLS / 4) * 4;
            at_b[n] = s.v + j * s.v_stride() + d * bytes_of(args.type_v);
            count_b[n] = i < tile::VECTORS_B && j < keys ? p->dim_v - d : 0;
        }
        fetch4<tile::FETCH_A>(TYPE_F32, false, at_a, count_a, t.a);
        fetch4<tile::FETCH_B>(args.type_v, args.aligned, at_b, count_b, t.b);
    };
    if (t.id < 2)
        unsafe[t.id] = 0;
    __syncthreads();
    if (keys > 0)
        fetch();
    ROLLED
    while (key < keys) {
        float *now = room + stage * tile::STAGE;
        bool finite = true;
        t.template put_columns<tile::FETCH_A>(now, TYPE_F32, tile::VECTORS_A, true, t.a);
        UNROLL
        for (int n = 0; n < tile::FETCH_B; n++) {
            const int i = t.id + n * tile::GROUP;
            const float4 value = widen4(args.type_v, t.b[n]);
            finite = finite && is_finite4(value);
            if (i < tile::VECTORS_B)
                *(float4 *)(now + tile::STAGE_B + tile::line_b(i / (tile::TILE_COLS / 4)) +
                            i % (tile::TILE_COLS / 4) * 4) = value;
        }
        if (!finite)
            unsafe[stage] = 1;
        __syncthreads();
        key += tile::DEPTH;
        if (key < keys)
            fetch();
        if (*(volatile int *)&unsafe[stage])
            t.multiply_guarded(now);
        else
            t.multiply(now);
        stage ^= 1;
    }
    UNROLL
    for (int i = 0; i < ROWS; i++) {
        const int r = t.row + t.y * ROWS + i;
        const query q(s, args.row_begin + r);
        const float factor = r < args.rows ? ((const float *)args.partial_state)[(fa_long)t.part * args.rows + r] : 0.0f;
        UNROLL
        for (int g = 0; g < tile::COLS; g += 4) {
            const int d = t.col + 4 * t.x + g * tile::LANES;
            store4(args.type_o, args.aligned, q.o(s) + d * bytes_of(args.type_o), r < args.rows ? p->dim_v - d : 0,
                   normalised(make_float4(t.sum[i][g], t.sum[i][g + 1], t.sum[i][g + 2], t.sum[i][g + 3]), factor));
        }
    }
}
