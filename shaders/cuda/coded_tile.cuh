/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tensor.cuh does, where k and v are in formats of caches, or one of them is. Stages are decoded (coded_stage.cuh): the
 * next block's keys behind the scores of the first tile, its values behind the output of the last.
 *
 * Of formats whose blocks have scales, operands are bare numbers (coded.cuh says why, and what is done in f32 instead). A sum of
 * scores is made for each block of 32 dims, and multiplied by the key's scale there. Weights are multiplied by the rest of the
 * value's scale before they are rounded, again for each block. The offset of a value over the rest of its scale is two numbers,
 * the second of what the first leaves: they are columns of a product of their own with the same weights.
 */
#pragma once

#include "coded_stage.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct coded_tile_kernel : coded_stages<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef coded_stages<ROW, TYPE, BLOCK_Q, TRANSFORMS> stages;
    typedef typename stages::tiles tiles;
    typedef typename tiles::products products;
    typedef typename stages::K K;
    typedef typename stages::V V;
    typedef typename stages::decoding decoding;
    using stages::s, stages::id, stages::lane, stages::part, stages::memory, stages::at_q, stages::at_k, stages::at_v,
        stages::q, stages::out, stages::offsets, stages::note, stages::noted;
    using stages::R, stages::UNIT, stages::BLOCK_KV, stages::TILE_KV, stages::TILES, stages::DIM, stages::LINE,
        stages::PARTS_KV, stages::PARTS_V, stages::STEPS_KV, stages::GROUP, stages::ALL, stages::BLOCKS, stages::PLAIN_K,
        stages::PLAIN_V, stages::BARE_K, stages::BARE_V, stages::SCALES_K, stages::OFFSETS_K, stages::RESTS, stages::COLUMNS,
        stages::COLUMN, stages::SUMS_Q, stages::FINER;

    decoding next_codes;

    __device__ coded_tile_kernel(const work &of, uchar *shared) : stages(of, shared) {}

    /* Of formats of k with offsets: the sums of q's dims in each block, for each row. */
    __device__ void sum_q()
    {
        ROLLED
        for (int i = id; i < ALL * BLOCK_Q; i += GROUP) {
            const int b = i / BLOCK_Q, row = i % BLOCK_Q;
            const uchar *const at = query(s, s.row_begin + row).q(s) + b * 64;
            float sum = 0.0f;
            UNROLL
            for (int c = 0; c < 4; c++) {
                const uint4 x = elements(at + c * 16, s.p->dim_qk - b * 32 - c * 8);
                const uint word[4] = {x.x, x.y, x.z, x.w};
                UNROLL
                for (int j = 0; j < 8; j++)
                    sum += unpack<TYPE>(word[j / 2], j % 2);
            }
            ((float *)(memory + SUMS_Q))[i] = sum;
        }
    }

    /* A block's sum of q's dims in the lane's row `half` of tile t. */
    __device__ float sum_of(int b, int t, int half) const
    {
        const int row = tiles::first_row() + products::TILE_ROWS * t + products::row(lane, half);
        return ((const float *)(memory + SUMS_Q))[b * BLOCK_Q + row];
    }

    /* What the lane's two keys of fragment n have in such a list: block b of the warp's part, the tile's first key `first`. */
    __device__ float2 pair_of(int stage, int list, int b, int first, int n) const
    {
        return *(const float2 *)&note(stage, list, part * BLOCKS + b, first + products::key(lane, n, 0));
    }

    /* Step d of q. */
    __device__ void load_rows(int d, uint rows[TILES][4]) const
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            if (d < tiles::HELD)
                q.get(t, d, rows[t]);
            else
                products::load_rows(rows[t], at_q, t, d);
        }
    }

    /* Scores of a tile: a sum for each block, and its scale. Operands are loaded a step of 16 dims ahead. */
    __device__ void multiply_scaled(int stage, int first, float sc[TILES][PARTS_KV][4])
    {
        const uint at = at_k + tiles::stage_k(stage) + first * LINE;
        uint rows[2][TILES][4], keys[2][4];
        load_rows(0, rows[0]);
        load_rows(1, rows[1]);
        load_matrices(keys[0], at);
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            UNROLL
            for (int n = 0; n < STEPS_KV; n++) {
                float sums[TILES][2][4];
                UNROLL
                for (int i = 0; i < 8 * TILES; i++)
                    sums[i / 8][i / 4 % 2][i % 4] = 0.0f;
                UNROLL
                for (int h = 0; h < 2; h++) {
                    const int next = (b * STEPS_KV + n) * 2 + h + 1, next_n = next / 2 % STEPS_KV;
                    if (next < 2 * BLOCKS * STEPS_KV)
                        load_matrices(keys[next % 2],
                                      products::step_at(at, next / 2 / STEPS_KV * 2 + next % 2) + next_n * 16 * LINE);
                    UNROLL
                    for (int t = 0; t < TILES; t++) {
                        multiply_add<UNIT, TYPE>(sums[t][0], rows[h][t], keys[h]);
                        multiply_add<UNIT, TYPE>(sums[t][1], rows[h][t], keys[h] + 2);
                    }
                    if (n + 1 == STEPS_KV && b + 1 < BLOCKS)
                        load_rows(2 * b + 2 + h, rows[h]);
                }
                UNROLL
                for (int f = 0; f < 2; f++) {
                    const float2 scale = pair_of(stage, SCALES_K, b, first, 2 * n + f);
                    UNROLL
                    for (int i = 0; i < 4 * TILES; i++)
                        sc[i / 4][2 * n + f][i % 4] += sums[i / 4][f][i % 4] * (i % 2 ? scale.y : scale.x);
                }
            }
            if constexpr (K::OFFSET)
                add_offsets_k(stage, first, b, sc);
        }
    }

    __device__ void add_offsets_k(int stage, int first, int b, float sc[TILES][PARTS_KV][4])
    {
        float sums[TILES][2];
        UNROLL
        for (int i = 0; i < 2 * TILES; i++)
            sums[i / 2][i % 2] = sum_of(part * BLOCKS + b, i / 2, i % 2);
        UNROLL
        for (int n = 0; n < PARTS_KV; n++) {
            const float2 offset = pair_of(stage, OFFSETS_K, b, first, n);
            UNROLL
            for (int i = 0; i < 4 * TILES; i++)
                sc[i / 4][n][i % 4] += (i % 2 ? offset.y : offset.x) * sums[i / 4][i / 2 % 2];
        }
    }

    /* Weights of a row of 16 keys, as first operands: times what two keys' scales leave in each fragment. */
    static __device__ void pack_scaled(const float w[TILES][2][4], float2 low, float2 high, uint weights[TILES][products::WORDS])
    {
        UNROLL
        for (int i = 0; i < products::WORDS * TILES; i++) {
            const float2 by = i % 4 < 2 ? low : high;
            const float *const two = &w[i / 4][i % 4 / 2][i % 2 * 2];
            weights[i / 4][i % 4] = pack<TYPE>(two[0] * by.x, two[1] * by.y);
        }
    }

    /* The weights w of step n of 16 keys, times values, a block's scales at a time. */
    __device__ void multiply_weighted(int stage, int first, int n, const float w[TILES][2][4])
    {
        const uint at = at_v + tiles::stage_k(stage) + (first + 16 * n) * LINE;
        uint values[2][4], columns[2], weights[TILES][products::WORDS];
        load_transposed(values[0], at);
        if constexpr (BARE_V)
            pack_plain(w, weights);
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            if constexpr (!BARE_V)
                pack_scaled(w, pair_of(stage, RESTS, b, first, 2 * n), pair_of(stage, RESTS, b, first, 2 * n + 1), weights);
            UNROLL
            for (int d = 2 * b; d < 2 * b + 2; d++) {
                if (d + 1 < products::STEPS_V)
                    load_transposed(values[(d + 1) % 2], products::step_at(at, d + 1));
                UNROLL
                for (int t = 0; t < TILES; t++) {
                    multiply_add<UNIT, TYPE>(out[t][2 * d], weights[t], values[d % 2]);
                    multiply_add<UNIT, TYPE>(out[t][2 * d + 1], weights[t], values[d % 2] + 2);
                }
            }
            if constexpr (V::OFFSET) {
                if (b % 4 == 0)
                    load_columns(stage, first + 16 * n, b, columns);
                UNROLL
                for (int t = 0; t < TILES; t++) {
                    const uint own[2] = {lane / 8 == b % 4 ? columns[0] : 0, lane / 8 == b % 4 ? columns[1] : 0};
                    multiply_add<UNIT, TYPE>(offsets[t][b / 4], weights[t], own);
                }
            }
        }
    }

    static __device__ void pack_plain(const float w[TILES][2][4], uint weights[TILES][products::WORDS])
    {
        UNROLL
        for (int t = 0; t < TILES; t++)
            products::pack_weights(0, w[t], weights[t]);
    }

    /* The second operand of 16 keys with the columns of blocks b to b + 3 of the warp's part, where there are as many. */
    __device__ void load_columns(int stage, int key, int b, uint to[2]) const
    {
        const int column = 2 * (part * BLOCKS + FA_MIN(b + lane / 8, BLOCKS - 1)) + lane / 4 % 2;
        const uchar *const at = noted(stage, COLUMNS) + (column * COLUMN + key + lane % 4 * 2) * 2;
        to[0] = *(const uint *)at;
        to[1] = *(const uint *)(at + 16);
    }

    /* Offsets are of the same dims in all lanes of a row. Block b's sums are in the lane of four that has its columns. */
    __device__ void add_offsets_v()
    {
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            UNROLL
            for (int i = 0; i < 2 * TILES; i++) {
                const int t = i / 2, half = i % 2;
                const float *const sums = offsets[t][b / 4] + 2 * half;
                const float total = __shfl_sync(0xffffffffu, sums[0] + sums[1] / FINER, (lane & ~3) | b % 4);
                UNROLL
                for (int d = 0; d < 8; d++)
                    out[t][4 * b + d / 2][2 * half + d % 2] += total;
            }
        }
    }

    /* What the stage of v leaves out of a step of 16 keys from `key` on, for the rows that see it. */
    __device__ void add_apart(int key, int key_end, const uint weights[TILES][products::WORDS])
    {
        constexpr int KIND = V::FP8 ? KIND_FP8 : KIND_BLOCKS;
        if constexpr (PLAIN_V)
            return tiles::add_nonfinite(key, key_end, weights);
        const work s = tiles::again();
        ROLLED
        for (int n = 0; n < FA_MIN(16, key_end - key); n++) {
            const uchar *const row = s.template value_at<TYPE_ANY>(key + n);
            float weight[TILES][2];
            bool shown[TILES][2];
            UNROLL
            for (int i = 0; i < 2 * TILES; i++) {
                const query q(s, tiles::row_of(s, i / 2, i % 2));
                weight[i / 2][i % 2] = products::weight_of(lane, weights[i / 2], i % 2, n);
                shown[i / 2][i % 2] = TRANSFORMS ? fa_work_shows(s, q, key + n) : q.sees(s, key + n);
            }
            UNROLL
            for (int d = 0; d < PARTS_V; d++) {
                const int dim = part * DIM + products::dim(lane, d, 0), e = dim % 32 / 4 * 4;
                const uchar *const block = row + dim / 32 * V::BLOCK;
                const ushort *const bits = (const ushort *)block;
                const bool exists = dim < s.p->dim_v,
                           apart = exists && (V::FP8 || is_apart<TYPE>(bits[0], V::OFFSET ? bits[1] : 0));
                const float4 x = widen4_of<KIND>(V::TYPE_OF, s.a.in_v, fetch4_coded<KIND>(s.a.in_v, block, e, apart), e);
                UNROLL
                for (int i = 0; i < 4 * TILES; i++) {
                    const float of = i % 2 ? (lane % 2 ? x.w : x.y) : (lane % 2 ? x.z : x.x);
                    if (shown[i / 4][i / 2 % 2] && (V::FP8 ? !fa_is_finite(of) : apart))
                        out[i / 4][d][i % 4] += weight[i / 4][i / 2 % 2] * of;
                }
            }
        }
    }

    /* The next block, which is decoded, and the one after it, whose keys are fetched then. */
    struct ahead {
        int next, after;
    };

    /* Keys of the next block are decoded: values take their room. */
    __device__ void fetch_values(int stage, ahead to)
    {
        if constexpr (!PLAIN_K)
            stages::template fetch<true>(stage ^ 1, to.next);
    }

    /* Tensor.cuh's, but for what it decodes. `apart`: the stage of v leaves out some. */
    template <bool PLAIN>
    __device__ void take_tile(int stage, int first, int key, int key_end, bool cut, bool apart, ahead to)
    {
        float sc[TILES][PARTS_KV][4];
        tiles::clear(sc);
        if constexpr (BARE_K)
            products::multiply_qk(at_q, at_k + tiles::stage_k(stage) + first * LINE, q, sc);
        else
            multiply_scaled(stage, first, sc);
        if (first == 0) {
            stages::template decode<false>(next_codes, stage ^ 1);
            fetch_values(stage, to);
        }
        if constexpr (R.tensor.split == 2)
            tiles::exchange(sc);
        if constexpr (!PLAIN) {
            if (TRANSFORMS)
                tiles::transform_scores(key, key_end, cut, sc);
            else
                tiles::hide_scores(key, key_end, cut, sc);
        }
        tiles::find_bases(sc);
        UNROLL
        for (int n = 0; n < STEPS_KV; n++) {
            float w[TILES][2][4];
            UNROLL
            for (int t = 0; t < TILES; t++)
                tiles::weigh(sc, n, t, w[t]);
            multiply_weighted(stage, first, n, w);
            if (!PLAIN && apart) {
                uint weights[TILES][products::WORDS];
                pack_plain(w, weights);
                add_apart(key + 16 * n, key_end, weights);
            }
        }
    }

    template <bool PLAIN>
    __device__ void take_block(int stage, int key, int key_end, bool cut, bool apart, ahead to)
    {
        if constexpr (BARE_V)
            apart = !PLAIN && (cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP))) && tiles::clear_nonfinite(stage);
        ROLLED
        for (int first = 0; first < BLOCK_KV; first += TILE_KV) {
            if (PLAIN || key + first < key_end)
                take_tile<PLAIN>(stage, first, key + first, key_end, cut, apart, to);
        }
        stages::template decode<true>(next_codes, stage ^ 1); /* which waits for a plain one too */
        if constexpr (!PLAIN_K)
            stages::template copy_codes<false>(to.after);
    }

    /*
     * The next block's keys are on their way when a block begins; plain ones from then on, when their stage is free. Behind the
     * last block, codes that were there before are decoded once more, and nothing reads their stage.
     */
    __device__ void run()
    {
        int key = fa_work_next(s, TRANSFORMS, s.key_begin, BLOCK_KV), stage = 0;
        ahead to = {key, key};
        typename held_rows<TILES, tiles::HELD>::vectors::room room_q;
        q.rows.use(room_q);
        tiles::leave_notes();
        tiles::load_q();
        if constexpr (K::OFFSET)
            sum_q();
        tiles::start();
        next_codes.left_out = false;
        if (key < s.key_end) {
            stages::template fetch<false>(0, key);
            stages::template decode<false>(next_codes, 0);
            stages::template fetch<true>(0, key);
            stages::template decode<true>(next_codes, 0);
            to.next = fa_work_next(s, TRANSFORMS, key + BLOCK_KV, BLOCK_KV);
            if constexpr (!PLAIN_K)
                stages::template copy_codes<false>(to.next);
        }
        ROLLED
        while (key < s.key_end) {
            const int key_end = FA_MIN(key + BLOCK_KV, s.key_end);
            const bool cut = s.is_cut(key, key_end);
            bool apart = false;
            to.after = fa_work_next(s, TRANSFORMS, to.next + BLOCK_KV, BLOCK_KV);
            if constexpr (BARE_V)
                __syncthreads();
            else
                apart = __syncthreads_or(next_codes.left_out) != 0;
            next_codes.left_out = false;
            if constexpr (PLAIN_K) {
                stages::template fetch<false>(stage ^ 1, to.next);
                stages::template fetch<true>(stage ^ 1, to.next);
            }
            if (TRANSFORMS || cut || apart || key + BLOCK_KV > key_end)
                take_block<false>(stage, key, key_end, cut, apart, to);
            else
                take_block<true>(stage, key, key_end, false, false, to);
            stage ^= 1;
            key = to.next;
            to.next = to.after;
        }
        if constexpr (V::OFFSET)
            add_offsets_v();
        tiles::finish();
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void coded_tile_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    coded_tile_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s, (uchar *)room);
    kernel.run();
}
