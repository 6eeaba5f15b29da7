/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latent attention, where v is the first dims of k, on Hopper's tensor cores. A block of keys is copied to shared
 * memory once and serves both products: its lines are keys for the scores, and what is summed over for the output. Two
 * warpgroups have the same 64 rows. Of the dims, each has half: of the scores' sums, which they exchange, and of the
 * output. Weights are made twice.
 *
 * All that does not touch a product is tensor.cuh's, to which the two warps that have the same rows are a pair of
 * SPLIT 2.
 *
 * In shared memory, q and each stage of k are blocks of 64 dims: 64 lines of 128 bytes, whose chunks are swizzled as
 * wgmma's 128-byte mode has it. That is chunk c of row r at c ^ r % 8. A warpgroup's first blocks of q pass into
 * registers, and its sums are exchanged in their place.
 */
#pragma once

#include "tensor.cuh"
#include "wgmma.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct latent_kernel : tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> base;
    static constexpr fa_cuda_traits R = fa_cuda_table[ROW];
    static constexpr int BLOCK_KV = R.block_kv, STEPS_KV = BLOCK_KV / 16;
    static constexpr int LINES = 64, LINE = 128, BLOCK = LINES * LINE; /* 64 rows by 64 dims */
    static constexpr int BLOCKS_QK = R.dim_qk / 64, BLOCKS_V = R.dim_v / 64, STAGE = BLOCKS_QK * BLOCK;
    static constexpr int AT_A_TIME = R.group / 8; /* rows that a thread's chunks are apart */
    static constexpr int STEPS_QK = R.dim_qk / 32, HELD = 8; /* of 16 dims of a warpgroup; those of q in registers */
    static_assert(BLOCK_Q == LINES && BLOCK_KV == LINES && R.dim_v == 512 && R.dim_qk == R.dim_v + 64 &&
                      R.group == 256 && BLOCK_Q * BLOCK_KV * sizeof(float) <= HELD / 4 * BLOCK,
                  "what wgmma is given");

    using base::id;
    using base::out;
    using base::s;

    const int part; /* base's, and the compiler knows that all lanes have the same */
    const uint at_copy; /* where the first chunk goes that this thread copies, of the rows of q */
    uint q_held[HELD][4];

    __device__ latent_kernel(const work &of, uchar *shared)
        : base(of, shared), part(__shfl_sync(0xffffffffu, (int)(threadIdx.x / 128), 0)),
          at_copy(shared_address(shared) + id / 8 * LINE + (id % 8 ^ id / 8 % 8) * 16)
    {
    }

    static __device__ int stage_at(int stage) { return (1 + stage) * STAGE; }

    /* This thread's part of a row, the first `count` dims of which exist from the thread's own first on. */
    __device__ void copy_row(uint to, const uchar *from, int count) const
    {
        if (s.a.aligned) {
            UNROLL
            for (int b = 0; b < BLOCKS_QK; b++)
                copy_async(to + b * BLOCK, from + b * LINE, b * 64 < count ? 16 : 0);
        } else {
            ROLLED
            for (int b = 0; b < BLOCKS_QK; b++)
                store_shared(to + b * BLOCK, elements(from + b * LINE, count - b * 64));
        }
    }

    __device__ int dims_left() const { return s.p->dim_qk - (int)(id % 8) * 8; }

    __device__ void copy_q()
    {
        ROLLED
        for (int i = 0; i < BLOCK_Q / AT_A_TIME; i++) {
            const int row = id / 8 + i * AT_A_TIME;
            copy_row(at_copy + i * AT_A_TIME * LINE, query(s, s.row_begin + row).q(s) + id % 8 * 16, dims_left());
        }
        commit_copies();
    }

    static __device__ const uchar *row_of_key(const work &s, int key)
    {
        if (s.in_pages())
            return s.template row_in<TYPE, false>(s.place_of(key));
        return s.template keys<TYPE>().row_at(key);
    }

    /* Rows past the end are 0. */
    __device__ void copy_keys(const work &s, int stage, int key)
    {
        if (key < s.key_end) {
            UNROLL
            for (int i = 0; i < BLOCK_KV / AT_A_TIME; i++) {
                const int row = key + (int)(id / 8) + i * AT_A_TIME;
                copy_row(at_copy + stage_at(stage) + i * AT_A_TIME * LINE, row_of_key(s, row) + id % 8 * 16,
                         row < s.key_end ? dims_left() : 0);
            }
        }
        commit_copies();
    }

    /* As tensor.cuh's, of those dims of a block of keys that are values. Its scores must have been made. */
    __device__ bool clear_nonfinite(int stage)
    {
        bool nonfinite = false;
        __syncthreads();
        ROLLED
        for (int i = 0; i < BLOCKS_V * BLOCK_KV / AT_A_TIME; i++) {
            uint *at = (uint *)(base::memory + (at_copy - base::room) + stage_at(stage) + i % BLOCKS_V * BLOCK +
                                i / BLOCKS_V * AT_A_TIME * LINE);
            nonfinite |= clear_nonfinite_chunk<TYPE>(at);
        }
        show_to_products();
        return __syncthreads_or(nonfinite) != 0;
    }

    /* The steps of a warpgroup are its dims of v, then its half of what is no part of v. */
    __device__ void hold_q()
    {
        wait_copies<0>();
        __syncthreads();
        const int lane = base::lane, row = base::first_row() + lane % 16;
        UNROLL
        for (int d = 0; d < HELD; d++) {
            const int step = 16 * part + d;
            load_matrices(q_held[d], base::room + step / 4 * BLOCK + row * LINE +
                                         ((step % 4 * 2 + lane / 16) ^ row % 8) * 16);
        }
    }

    __device__ void begin_scores(int stage, float sc[1][8][4])
    {
        const uint behind = late((uint)(BLOCKS_V * BLOCK / 16 + part * 4)), before = late((uint)(part * (4 * BLOCK / 16)));
        const uint at_q = matrix_at(base::room, 16), at_k = matrix_at(base::room + stage_at(stage), 16);
        base::clear(sc);
        begin_products<8>(sc[0]);
        UNROLL
        for (int d = 0; d < STEPS_QK; d++) {
            const uint in_block = (d < 16 ? before + d / 4 * (BLOCK / 16) : behind) + d % 4 * 2;
            if (d < HELD)
                multiply_scores<TYPE>(sc[0], q_held[d], at_k + in_block);
            else
                multiply_scores<TYPE>(sc[0], at_q + in_block, at_k + in_block);
        }
        end_products();
    }

    /* Adds the other warpgroup's sums, of the thread that has the same elements. Both get the same numbers. */
    __device__ void exchange(float sc[1][8][4])
    {
        float4 *const room = (float4 *)base::memory;
        float4 *const mine = room + part * (4 * BLOCK / 16) + id % 128;
        const float4 *const other = room + (part ^ 1) * (4 * BLOCK / 16) + id % 128;
        UNROLL
        for (int n = 0; n < 8; n++)
            mine[n * 128] = make_float4(sc[0][n][0], sc[0][n][1], sc[0][n][2], sc[0][n][3]);
        __syncthreads();
        UNROLL
        for (int n = 0; n < 8; n++) {
            const float4 x = other[n * 128];
            sc[0][n][0] += x.x;
            sc[0][n][1] += x.y;
            sc[0][n][2] += x.z;
            sc[0][n][3] += x.w;
        }
    }

    /*
     * As tensor.cuh's, of the same 16 keys. It begins with the thread's number read anew: what would follow from a
     * known one, a number for each dim, the compiler would keep from one block to the next, in the place of what every
     * block needs.
     */
    __device__ void add_nonfinite(int key, int key_end, const uint weights[4])
    {
        const work s = base::again();
        const int lane = (int)thread() % 32, dim = part * (R.dim_v / 2) + lane % 4 * 2;
        ROLLED
        for (int n = 0; n < FA_MIN(16, key_end - key); n++) {
            const ushort *value = (const ushort *)s.template value_at<TYPE>(key + n);
            UNROLL
            for (int half = 0; half < 2; half++) {
                const float weight = base::products::weight_of(lane, weights, half, n);
                const query q(s, base::row_of(s, 0, half));
                const bool visible = TRANSFORMS ? fa_work_shows(s, q, key + n) : q.sees(s, key + n);
                UNROLL
                for (int d = 0; d < R.dim_v / 2 / 4; d++) {
                    const int at = dim + d / 2 * 8 + d % 2;
                    if (visible && at < s.p->dim_v && is_nonfinite<TYPE>(value[at], 0))
                        out[0][d / 2][2 * half + d % 2] += weight * unpack<TYPE>(value[at], 0);
                }
            }
        }
    }

    template <bool PLAIN>
    __device__ void take_block(float sc[1][8][4], int stage, int key, int key_end, bool cut)
    {
        uint weights[STEPS_KV][1][4];
        const bool may_hide = cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP));
        const bool nonfinite = !PLAIN && may_hide && clear_nonfinite(stage);
        if constexpr (!PLAIN) {
            if (TRANSFORMS)
                base::transform_scores(key, key_end, cut, sc);
            else
                base::hide_scores(key, key_end, cut, sc);
        }
        base::find_bases(sc);
        const uint at = late((uint)matrix_at(base::room + stage_at(stage) + part * (BLOCKS_V / 2 * BLOCK), BLOCK));
        UNROLL
        for (int n = 0; n < STEPS_KV; n++) {
            base::softmax_step(sc, n, weights[n]);
            begin_products<32>(out[0]);
            multiply_output<TYPE>(out[0], weights[n][0], at + (n * 16 * LINE >> 4));
            end_products();
        }
        wait_products<32>(out[0]);
        if (!PLAIN && nonfinite) {
            UNROLL
            for (int n = 0; n < STEPS_KV; n++)
                add_nonfinite(key + 16 * n, key_end, weights[n][0]);
        }
    }

    __device__ void run()
    {
        int key = fa_work_next(s, TRANSFORMS, s.key_begin, BLOCK_KV), stage = 0;
        const int last = s.key_end;
        base::leave_notes();
        copy_q();
        copy_keys(s, 0, key);
        base::start();
        hold_q();
        ROLLED
        while (key < last) {
            wait_copies<0>();
            show_to_products();
            __syncthreads();
            float sc[1][8][4];
            begin_scores(stage, sc);
            const work s = base::again();
            const int key_end = FA_MIN(key + BLOCK_KV, last), next = fa_work_next(s, TRANSFORMS, key + BLOCK_KV, BLOCK_KV);
            const bool cut = s.is_cut(key, key_end);
            copy_keys(s, stage ^ 1, next);
            wait_products<8>(sc[0]);
            exchange(sc);
            if (TRANSFORMS || cut || key + BLOCK_KV > key_end)
                take_block<false>(sc, stage, key, key_end, cut);
            else
                take_block<true>(sc, stage, key, key_end, false);
            stage ^= 1;
            key = next;
        }
        wait_copies<0>();
        base::finish();
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void latent_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    latent_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s, (uchar *)room);
    kernel.run();
}
