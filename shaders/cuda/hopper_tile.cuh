/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What coded_tile.cuh does, where k and v both are in formats of caches, on Hopper's tensor cores. Two warpgroups have 64 rows
 * each; a third decodes, a stage ahead of them. The two wait for stages, and for each other only in blocks of fp8 with hidden
 * keys, so that products of one run while the other makes weights.
 *
 * Scores of a block of 32 dims are sums of their own, which the key's scale multiplies. Of values, a block of 32 dims is a product
 * of its own, whose weights its scales have multiplied.
 */
#pragma once

#include "barrier.cuh"
#include "coded_tile.cuh"
#include "wgmma.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct hopper_tile_kernel : coded_tile_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef coded_tile_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> coded;
    typedef typename coded::stages stages;
    typedef typename coded::tiles tiles;
    typedef typename coded::K K;
    typedef typename coded::V V;
    using coded::s, coded::id, coded::room, coded::memory, coded::lane, coded::warp, coded::out, coded::offsets;
    using coded::R, coded::BLOCK_KV, coded::TILES, coded::DIM, coded::BLOCKS, coded::STEPS_KV, coded::BARE_K, coded::BARE_V,
        coded::SCALES_K, coded::RESTS;
    static constexpr int WARPS = tiles::WARPS, THREADS = tiles::GROUP + FA_CUDA_DECODERS, SIDE = 128; /* threads of a warpgroup */
    static constexpr int STEPS = DIM / 16, KEYS = BLOCK_KV * 128, VALUES = BLOCK_KV * 64; /* bytes of a stage's lines */
    static constexpr int FLAGS = fa_cuda_tile_bytes(R, FA_TYPE, BLOCK_Q) - fa_cuda_tile_flags(R);
    /* Barriers: a stage is there for a warpgroup, which the decoders reach; and both have done with it, which they wait for. */
    enum { FULL = 2, FREE = 6 };
    static_assert(TILES == 1 && BLOCK_KV == 64 && DIM == 128 && tiles::HELD == 0 && stages::DECODERS == 4 &&
                      tiles::GROUP == 2 * SIDE && !coded::PLAIN_K && !coded::PLAIN_V,
                  "what wgmma is given");

    const int side; /* the warpgroup */

    __device__ hopper_tile_kernel(const work &of, uchar *shared) : coded(of, shared), side(warp / (SIDE / 32)) {}

    __device__ uint *flags(int stage) const { return (uint *)(memory + FLAGS) + 4 * stage; }

    /* Rows of q, in lines as keys are. */
    __device__ void load_q()
    {
        constexpr int CHUNKS = DIM / 8;
        const int chunk = id % CHUNKS, count = s.p->dim_qk - 8 * chunk;
        ROLLED
        for (int row = id / CHUNKS; row < BLOCK_Q; row += tiles::ROWS_APART) {
            const uchar *const at = query(s, s.row_begin + row).q(s) + 16 * chunk;
            const uint to = room + tiles::ROWS_Q + fa_cuda_line_at(BLOCK_Q, row, chunk);
            if (s.a.aligned)
                copy_async(to, at, count > 0 ? 16 : 0);
            else
                store_shared(to, elements(at, count));
        }
        commit_copies();
        wait_copies<0>();
        show_to_products();
        tiles::sync();
    }

    /* The warpgroup's rows of q, and the stage's keys, their dims from step d of 16 on. */
    __device__ uint rows_at(int d) const
    {
        return matrix_at(room + tiles::ROWS_Q + (d / 4 * BLOCK_Q + side * 64) * 128, 16) + d % 4 * 2;
    }
    __device__ uint keys_at(int stage, int d) const
    {
        return matrix_at(room + tiles::stage_k(stage) + d / 4 * KEYS, 16) + d % 4 * 2;
    }

    /* Sums of scores over the steps of 16 dims from `first` on. */
    template <int COUNT>
    __device__ void begin_sums(int stage, int first, float sums[8][4])
    {
        begin_products();
        new_scores<TYPE>(sums, rows_at(first), keys_at(stage, first));
        UNROLL
        for (int d = first + 1; d < first + COUNT; d++)
            multiply_scores<TYPE>(sums, rows_at(d), keys_at(stage, d));
        end_products();
    }

    /* What a list has of block b for the lane's keys. */
    __device__ void load_notes(int stage, int list, int b, float2 to[8]) const
    {
        UNROLL
        for (int n = 0; n < 8; n++)
            to[n] = coded::pair_of(stage, list, b, 0, n);
    }

    /* Scores of a block; and meanwhile what `next` does. */
    template <typename NEXT>
    __device__ void multiply_keys(int stage, float sc[1][8][4], NEXT next)
    {
        if constexpr (BARE_K) {
            begin_sums<STEPS>(stage, 0, sc[0]);
            next();
            wait_products<8>(sc[0]);
        } else {
            float sums[8][4];
            tiles::clear(sc);
            begin_sums<2>(stage, 0, sums);
            next();
            UNROLL
            for (int b = 0; b < BLOCKS; b++) {
                float2 scales[8];
                load_notes(stage, SCALES_K, b, scales);
                wait_products<8>(sums);
                UNROLL
                for (int i = 0; i < 32; i++)
                    sc[0][i / 4][i % 4] += sums[i / 4][i % 4] * (i % 2 ? scales[i / 4].y : scales[i / 4].x);
                if (b + 1 < BLOCKS)
                    begin_sums<2>(stage, 2 * (b + 1), sums);
                if constexpr (K::OFFSET)
                    coded::add_offsets_k(stage, 0, b, sc);
            }
        }
    }

    /* The stage's values of block b, the keys from step n of 16 on. */
    __device__ uint values_at(int stage, int b, int n) const
    {
        return matrix_at(room + tiles::stage_v(stage) + b * VALUES, VALUES) + n * (16 * 64 >> 4);
    }

    /* What offsets of block b add to the output. */
    __device__ void multiply_offsets(int stage, int b, const uint weights[STEPS_KV][1][4])
    {
        UNROLL
        for (int n = 0; n < STEPS_KV; n++) {
            uint columns[2];
            coded::load_columns(stage, 16 * n, 0, columns);
            const uint own[2] = {lane / 8 == b ? columns[0] : 0, lane / 8 == b ? columns[1] : 0};
            multiply_add<80, TYPE>(offsets[0][0], weights[n][0], own);
        }
    }

    __device__ void multiply_values(int stage, const float w[STEPS_KV][1][2][4])
    {
        if constexpr (BARE_V) {
            uint weights[STEPS_KV][1][4];
            UNROLL
            for (int n = 0; n < STEPS_KV; n++)
                coded::pack_plain(w[n], weights[n]);
            begin_products<16>(out[0]);
            UNROLL
            for (int n = 0; n < STEPS_KV; n++)
                multiply_lines<TYPE, 128>(out[0], weights[n][0], values_at(stage, 0, n));
            end_products();
        } else {
            uint weights[2][STEPS_KV][1][4];
            UNROLL
            for (int b = 0; b < BLOCKS; b++) {
                float2 rests[8];
                load_notes(stage, RESTS, b, rests);
                if (b >= 2)
                    wait_groups<1>(); /* which read the same registers */
                UNROLL
                for (int n = 0; n < STEPS_KV; n++)
                    coded::pack_scaled(w[n], rests[2 * n], rests[2 * n + 1], weights[b % 2][n]);
                begin_products<4>(out[0] + 4 * b);
                UNROLL
                for (int n = 0; n < STEPS_KV; n++)
                    multiply_lines<TYPE, 32>(out[0] + 4 * b, weights[b % 2][n][0], values_at(stage, b, n));
                end_products();
                if constexpr (V::OFFSET)
                    multiply_offsets(stage, b, weights[b % 2]);
            }
        }
        wait_products<16>(out[0]);
    }

    /* A block that something hides keys of, or changes scores of. True where the stage of v leaves out some. */
    __device__ bool change_scores(int stage, int key, int key_end, bool cut, float sc[1][8][4])
    {
        const bool hides = cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP));
        const bool apart = BARE_V && hides && tiles::clear_nonfinite(stage);
        if (TRANSFORMS)
            tiles::transform_scores(key, key_end, cut, sc);
        else
            tiles::hide_scores(key, key_end, cut, sc);
        return apart;
    }

    template <typename NEXT>
    __device__ void take_block(int stage, int key, bool cut, NEXT next)
    {
        const int key_end = FA_MIN(key + BLOCK_KV, s.key_end);
        float sc[1][8][4], w[STEPS_KV][1][2][4];
        bool apart = false;
        multiply_keys(stage, sc, next);
        if (TRANSFORMS || cut || key + BLOCK_KV > key_end)
            apart = change_scores(stage, key, key_end, cut, sc);
        tiles::find_bases(sc);
        UNROLL
        for (int n = 0; n < STEPS_KV; n++)
            tiles::weigh(sc, n, 0, w[n][0]);
        if constexpr (!BARE_V) {
            const uint4 any = *(const uint4 *)flags(stage);
            apart = (any.x | any.y | any.z | any.w) != 0;
        }
        multiply_values(stage, w);
        if (__builtin_expect(apart, 0)) {
            ROLLED
            for (int n = 0; n < STEPS_KV; n++) {
                uint weights[1][4];
                coded::pack_plain(w[0], weights);
                coded::add_apart(key + 16 * n, key_end, weights);
                UNROLL
                for (int i = 0; i < 24; i++) /* the next 16 keys' take their place */
                    w[i / 8][0][i / 4 % 2][i % 4] = w[i / 8 + 1][0][i / 4 % 2][i % 4];
            }
        }
    }

    __device__ bool is_cut(int key) const { return key < s.key_end && s.is_cut(key, FA_MIN(key + BLOCK_KV, s.key_end)); }

    __device__ void take_blocks()
    {
        int key = fa_work_next(s, TRANSFORMS, s.key_begin, BLOCK_KV), stage = 0;
        bool cut = is_cut(key);
        ROLLED
        while (key < s.key_end) {
            int next;
            bool next_cut;
            meet_at<SIDE + FA_CUDA_DECODERS>(FULL + 2 * stage + side);
            take_block(stage, key, cut, [&]() {
                next = fa_work_next(s, TRANSFORMS, key + BLOCK_KV, BLOCK_KV);
                next_cut = is_cut(next);
            });
            arrive_at<THREADS>(FREE + stage);
            stage ^= 1;
            key = next;
            cut = next_cut;
        }
        if constexpr (V::OFFSET)
            coded::add_offsets_v();
        tiles::finish();
    }

    __device__ void decode_blocks()
    {
        int key = fa_work_next(s, TRANSFORMS, s.key_begin, BLOCK_KV), stage = 0, decoded = 0;
        typename coded::decoding codes;
        stages::template copy_codes<false>(key);
        stages::template copy_codes<true>(key);
        ROLLED
        for (; key < s.key_end; decoded++) {
            const int next = fa_work_next(s, TRANSFORMS, key + BLOCK_KV, BLOCK_KV);
            if (decoded >= 2)
                meet_at<THREADS>(FREE + stage);
            codes.left_out = false;
            stages::template decode<false>(codes, stage);
            stages::template copy_codes<false>(next);
            stages::template decode<true>(codes, stage);
            stages::template copy_codes<true>(next);
            if constexpr (!BARE_V) {
                const bool any = __any_sync(0xffffffffu, codes.left_out);
                if (lane == 0)
                    flags(stage)[stages::decoder] = any;
            }
            show_to_products();
            arrive_at<SIDE + FA_CUDA_DECODERS>(FULL + 2 * stage);
            arrive_at<SIDE + FA_CUDA_DECODERS>(FULL + 2 * stage + 1);
            stage ^= 1;
            key = next;
        }
        /* Nobody leaves a barrier that others have reached. */
        if (decoded > 1)
            meet_at<THREADS>(FREE + stage);
        if (decoded > 0)
            meet_at<THREADS>(FREE + (stage ^ 1));
    }

    __device__ void run()
    {
        tiles::leave_notes();
        if (warp < WARPS) {
            take_registers<224>();
            if constexpr (K::OFFSET)
                coded::sum_q();
            load_q();
            tiles::start();
            take_blocks();
        } else {
            leave_registers<56>();
            decode_blocks();
        }
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void hopper_tile_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    hopper_tile_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s, (uchar *)room);
    kernel.run();
}
