/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latent attention, where v is the first dims of k, on Hopper's tensor cores. A block of keys is copied to shared memory
 * once and serves both products: its lines are keys for the scores, and what is summed over for the output.
 *
 * Two warpgroups have the same 64 rows, and each half of the output's dims. They take blocks in turn: one makes a block's
 * scores and weights, and sends the weights to the other. Both multiply them at once, so that the block's room is soon free
 * again, and the other then makes the scores of the next block. Four more warps, the copiers, only copy keys.
 *
 * A thread sends to the one that has the same elements. Messages have one room, for they alternate: who writes it has read
 * what was there. Rows move their bases (tensor.cuh) in the order of blocks, in both warpgroups by the same numbers.
 *
 * In shared memory, q and each of two stages of k are tiles of 64 dims: 64 lines of 128 bytes, whose chunks are swizzled as
 * wgmma's 128-byte mode has it. That is chunk c of row r at c ^ r % 8. A stage has three parts: the tile that is no part of
 * v, and the warpgroups' halves of v. Two barriers of each say that it is there and that it is free again.
 */
#pragma once

#include "barrier.cuh"
#include "tensor.cuh"
#include "wgmma.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct latent_kernel : tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> base;
    static constexpr fa_cuda_traits R = fa_cuda_table[ROW];
    static constexpr int BLOCK_KV = R.block_kv, STEPS_KV = BLOCK_KV / 16;
    static constexpr int LINES = 64, LINE = 128, TILE = LINES * LINE; /* 64 rows by 64 dims */
    static constexpr int TILES_QK = R.dim_qk / 64, TILES_V = R.dim_v / 64, STAGE = TILES_QK * TILE;
    static constexpr int WARPGROUP = 128, BOTH = 2 * WARPGROUP, ROWS_APART = WARPGROUP / 8;
    static constexpr int MESSAGE = 3 * STAGE, BARRIERS = MESSAGE + FA_CUDA_MESSAGE * WARPGROUP * 4;

    /* Parts of a stage, see above, in the order in which they are free, and their tiles. */
    enum { REST, FIRST_HALF, SECOND_HALF, PARTS };
    static constexpr __device__ int first_tile(int of) { return of == REST ? TILES_V : (of - FIRST_HALF) * (TILES_V / 2); }
    static constexpr __device__ int tiles_of(int of) { return of == REST ? TILES_QK - TILES_V : TILES_V / 2; }

    /* Of copiers, two warps have a stage, and a thread of them chunks of rows so far apart. */
    static constexpr int TEAM = FA_CUDA_COPIERS / 2, TEAM_ROWS = TEAM / 8, TEAM_COPIES = LINES / TEAM_ROWS;
    static_assert(BLOCK_Q == LINES && BLOCK_KV == LINES && R.dim_v == 512 && R.dim_qk == R.dim_v + 64 &&
                      R.group == BOTH && FA_CUDA_COPIERS == WARPGROUP && 4 * PARTS * 8 <= FA_CUDA_BARRIERS * 4,
                  "what wgmma is given");

    /* Barriers with a number: of both warpgroups, of each, and of a message from each. */
    enum { MEET = 1, MEET_OWN = 2, SENT = 4 };

    /* What a message says beside weights: rows of the warp move their bases; values were made 0. */
    enum { MOVES = 1, NONFINITE = 2 };

    using base::id;
    using base::out;
    using base::s;

    const int role; /* 0 and 1: a warpgroup that computes, 2: copiers; the compiler knows that all lanes have the same */
    const uint at_copy; /* where the first chunk goes that this thread copies, of the rows of q; behind them lie stages */

    __device__ latent_kernel(const work &of, uchar *shared)
        : base(of, shared), role(__shfl_sync(0xffffffffu, (int)(threadIdx.x / WARPGROUP), 0)),
          at_copy(shared_address(shared) + id % (role == 2 ? TEAM : WARPGROUP) / 8 * LINE + (id % 8 ^ id / 8 % 8) * 16)
    {
    }

    static __device__ int stage_at(int stage) { return (1 + stage) * STAGE; }

    __device__ uint has(int stage, int part) const { return base::room + BARRIERS + (stage * PARTS + part) * 8; }
    __device__ uint free_of(int stage, int part) const { return has(2 + stage, part); }

    __device__ void make_barriers() const
    {
        for (int i = 0; i < 2 * PARTS; i++) {
            make_barrier(has(0, i), TEAM / 32);
            make_barrier(free_of(0, i), WARPGROUP / 32);
        }
    }

    /* The warp's products no longer read it. */
    __device__ void release(int stage, int part) const
    {
        if (base::lane == 0)
            arrive(free_of(stage, part));
    }

    /* A chunk of a row, of which so many dims exist from its first on. */
    static __device__ void copy_chunk(bool aligned, uint to, const uchar *from, int count)
    {
        if (aligned)
            copy_async(to, from, count > 0 ? 16 : 0);
        else
            store_shared(to, elements(from, count));
    }

    __device__ int dims_left() const { return s.p->dim_qk - (int)(id % 8) * 8; }

    __device__ void copy_q()
    {
        ROLLED
        for (int i = role; i < LINES / ROWS_APART; i += 2) {
            const uchar *from = query(s, s.row_begin + (int)(id % WARPGROUP / 8) + i * ROWS_APART).q(s) + id % 8 * 16;
            ROLLED
            for (int tile = 0; tile < TILES_QK; tile++)
                copy_chunk(s.a.aligned, at_copy + tile * TILE + i * ROWS_APART * LINE, from + tile * LINE,
                           dims_left() - tile * 64);
        }
        commit_copies();
        wait_copies<0>();
        show_to_products();
        meet_at<BOTH>(MEET);
    }

    static __device__ const uchar *row_of_key(const work &s, int key)
    {
        if (s.in_pages())
            return s.template row_in<TYPE, false>(s.place_of(key));
        return s.template keys<TYPE>().row_at(key);
    }

    /* A part of a stage, when it is free. Rows past the end are 0. */
    template <int PART>
    __device__ void copy_part(int stage, int parity, const uchar *const from[TEAM_COPIES], int rows) const
    {
        const uint to = at_copy + stage_at(stage);
        wait_for(free_of(stage, PART), parity ^ 1);
        if (s.a.aligned) {
            UNROLL
            for (int tile = first_tile(PART); tile < first_tile(PART) + tiles_of(PART); tile++) {
                UNROLL
                for (int i = 0; i < TEAM_COPIES; i++)
                    copy_chunk(true, to + tile * TILE + i * TEAM_ROWS * LINE, from[i] + tile * LINE,
                               i * TEAM_ROWS < rows ? dims_left() - tile * 64 : 0);
            }
        } else {
            ROLLED
            for (int tile = first_tile(PART); tile < first_tile(PART) + tiles_of(PART); tile++) {
                UNROLL
                for (int i = 0; i < TEAM_COPIES; i++)
                    copy_chunk(false, to + tile * TILE + i * TEAM_ROWS * LINE, from[i] + tile * LINE,
                               i * TEAM_ROWS < rows ? dims_left() - tile * 64 : 0);
            }
        }
        commit_copies();
    }

    /* When the copies of a part are over, it is there. Those of later parts may not be. */
    template <int PART>
    __device__ void show_part(int stage) const
    {
        wait_copies<PARTS - 1 - PART>();
        show_to_products();
        __syncwarp();
        if (base::lane == 0)
            arrive(has(stage, PART));
    }

    /* Nothing waits for copies before all are issued: when products of the block begin, all of its stage is free. */
    __device__ void copy_block(const work &s, int stage, int parity, int key) const
    {
        const uchar *from[TEAM_COPIES];
        const int row = key + (int)(id % TEAM / 8);
        UNROLL
        for (int i = 0; i < TEAM_COPIES; i++)
            from[i] = row_of_key(s, row + i * TEAM_ROWS) + id % 8 * 16;
        copy_part<REST>(stage, parity, from, s.key_end - row);
        copy_part<FIRST_HALF>(stage, parity, from, s.key_end - row);
        copy_part<SECOND_HALF>(stage, parity, from, s.key_end - row);
        show_part<REST>(stage);
        show_part<FIRST_HALF>(stage);
        show_part<SECOND_HALF>(stage);
    }

    /* Every second block. */
    __device__ void copy_blocks()
    {
        const work s = base::again();
        const int stage = __shfl_sync(0xffffffffu, (int)(id / TEAM % 2), 0);
        int key = fa_work_next(s, TRANSFORMS, s.key_begin, BLOCK_KV);
        if (stage == 1)
            key = fa_work_next(s, TRANSFORMS, key + BLOCK_KV, BLOCK_KV);
        ROLLED
        for (int parity = 0; key < s.key_end; parity ^= 1) {
            copy_block(s, stage, parity, key);
            key = fa_work_next(s, TRANSFORMS, key + BLOCK_KV, BLOCK_KV);
            key = fa_work_next(s, TRANSFORMS, key + BLOCK_KV, BLOCK_KV);
        }
    }

    /* The first key of the block from there on that some row sees. */
    __device__ int next(int key) const
    {
        const work s = base::again();
        return fa_work_next(s, TRANSFORMS, key, BLOCK_KV);
    }

    /* As tensor.cuh's, of those dims of the own block of keys that are values. Its scores must have been made. */
    __device__ bool clear_nonfinite(int stage)
    {
        bool nonfinite = false;
        meet_at<WARPGROUP>(MEET_OWN + stage);
        ROLLED
        for (int i = 0; i < TILES_V * LINES / ROWS_APART; i++) {
            uint *at = (uint *)(base::memory + (at_copy - base::room) + stage_at(stage) + i % TILES_V * TILE +
                                i / TILES_V * ROWS_APART * LINE);
            nonfinite |= clear_nonfinite_chunk<TYPE>(at);
        }
        show_to_products();
        return any_at<WARPGROUP>(MEET_OWN + stage, nonfinite);
    }

    /* The scores of a block, as its parts come. */
    __device__ void make_scores(int stage, int parity, float sc[1][8][4])
    {
        const uint at_q = matrix_at(base::room, 16), at_k = matrix_at(base::room + stage_at(stage), 16);
        base::clear(sc);
        UNROLL
        for (int part = REST; part < PARTS; part++) {
            wait_for(has(stage, part), parity);
            begin_products<8>(sc[0]);
            UNROLL
            for (int d = 0; d < 4 * tiles_of(part); d++) {
                const int at = (first_tile(part) + d / 4) * (TILE / 16) + d % 4 * 2;
                multiply_scores<TYPE>(sc[0], at_q + at, at_k + at);
            }
            end_products();
        }
        wait_products<8>(sc[0]);
        release(stage, REST);
    }

    /* To the thread that has the same elements. */
    __device__ void send(const uint weights[STEPS_KV][1][4], const float most[1][2], int says)
    {
        uint4 *to = (uint4 *)(base::memory + MESSAGE) + id % WARPGROUP;
        UNROLL
        for (int n = 0; n < STEPS_KV; n++)
            to[n * WARPGROUP] = make_uint4(weights[n][0][0], weights[n][0][1], weights[n][0][2], weights[n][0][3]);
        to[STEPS_KV * WARPGROUP] = make_uint4(__float_as_uint(most[0][0]), __float_as_uint(most[0][1]), (uint)says, 0);
        arrive_at<BOTH>(SENT + role);
    }

    /* What the other has sent of its block; bases are moved as it has moved them. Returns what the message says. */
    __device__ int receive(uint weights[STEPS_KV][1][4])
    {
        const uint4 *from = (const uint4 *)(base::memory + MESSAGE) + id % WARPGROUP;
        meet_at<BOTH>(SENT + (role ^ 1));
        UNROLL
        for (int n = 0; n < STEPS_KV; n++) {
            const uint4 x = from[n * WARPGROUP];
            weights[n][0][0] = x.x, weights[n][0][1] = x.y, weights[n][0][2] = x.z, weights[n][0][3] = x.w;
        }
        const uint4 x = from[STEPS_KV * WARPGROUP];
        if (__builtin_expect(x.z & MOVES, 0)) {
            const float most[1][2] = {{__uint_as_float(x.x), __uint_as_float(x.y)}};
            float by[1][2], origin[1][2];
            if (base::move_bases(most, by, origin)) {
                base::rescale_sums(by);
                base::rescale_output(by);
            }
        }
        return (int)x.z;
    }

    /* This warpgroup's half of the output that 16 keys make of a block. */
    __device__ void multiply_step(uint at, int n, const uint weights[STEPS_KV][1][4])
    {
        begin_products<32>(out[0]);
        multiply_output<TYPE>(out[0], weights[n][0], at + (n * 16 * LINE >> 4));
        end_products();
    }

    __device__ uint values_at(int stage) const
    {
        return late((uint)matrix_at(base::room + stage_at(stage) + role * (TILES_V / 2 * TILE), TILE));
    }

    __device__ void end_output(int stage, int key, const uint weights[STEPS_KV][1][4], bool nonfinite)
    {
        wait_products<32>(out[0]);
        if (nonfinite)
            add_nonfinite(stage, key, weights);
        release(stage, FIRST_HALF + role);
    }

    /* The output of the other's block. */
    __device__ void take_others(int stage, int key)
    {
        uint weights[STEPS_KV][1][4];
        const bool nonfinite = (receive(weights) & NONFINITE) != 0;
        const uint at = values_at(stage);
        UNROLL
        for (int n = 0; n < STEPS_KV; n++)
            multiply_step(at, n, weights);
        end_output(stage, key, weights, nonfinite);
    }

    /* From scores of the own block to weights, which the other gets too, and the output. */
    template <bool PLAIN>
    __device__ void take_block(float sc[1][8][4], int stage, int key, int key_end, bool cut)
    {
        uint weights[STEPS_KV][1][4];
        float most[1][2];
        const bool may_hide = cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP));
        const bool nonfinite = !PLAIN && may_hide && clear_nonfinite(stage);
        if constexpr (!PLAIN) {
            if (TRANSFORMS)
                base::transform_scores(key, key_end, cut, sc);
            else
                base::hide_scores(key, key_end, cut, sc);
        }
        const bool moves = base::exceed_bases(sc, most);
        if (__builtin_expect(moves, 0))
            base::take_bases(sc, most);
        const uint at = values_at(stage);
        UNROLL
        for (int n = 0; n < STEPS_KV; n++) {
            base::softmax_step(sc, n, weights[n]);
            multiply_step(at, n, weights);
        }
        send(weights, most, (moves ? MOVES : 0) | (nonfinite ? NONFINITE : 0));
        end_output(stage, key, weights, nonfinite);
    }

    /*
     * As tensor.cuh's, of a block. Half of the output at a time passes through this warpgroup's half of the block's values,
     * which are no longer needed: elements of a number that the compiler knows would take registers from all that the
     * loop over blocks holds.
     */
    __device__ void add_nonfinite(int stage, int key, const uint weights[STEPS_KV][1][4])
    {
        constexpr int HALF = R.dim_v / 2 / 8 / 2; /* fragments */
        float *const at = (float *)(base::memory + stage_at(stage) + role * (TILES_V / 2 * TILE)) + id % WARPGROUP;
        static_assert(4 * HALF * WARPGROUP * sizeof(float) <= TILES_V / 2 * TILE, "half of a thread's elements");
        meet_at<WARPGROUP>(MEET_OWN + role);
        UNROLL
        for (int first = 0; first < 2 * HALF; first += HALF) {
            UNROLL
            for (int i = 0; i < 4 * HALF; i++)
                at[i * WARPGROUP] = out[0][first + i / 4][i % 4];
            ROLLED
            for (int n = 0; n < BLOCK_KV; n++) {
                uint of_step[4];
                UNROLL
                for (int i = 0; i < 4; i++) {
                    of_step[i] = weights[0][0][i];
                    UNROLL
                    for (int step = 1; step < STEPS_KV; step++)
                        of_step[i] = step == n / 16 ? weights[step][0][i] : of_step[i];
                }
                add_key(at, first, key + n, base::products::weight_of(base::lane, of_step, 0, n % 16),
                        base::products::weight_of(base::lane, of_step, 1, n % 16));
            }
            UNROLL
            for (int i = 0; i < 4 * HALF; i++)
                out[0][first + i / 4][i % 4] = at[i * WARPGROUP];
        }
        __syncwarp();
    }

    /* Likewise, of a key, by the weights of the thread's two rows; fragments from `first` on. */
    __device__ void add_key(float *at, int first, int key, float weight0, float weight1) const
    {
        const work s = base::again();
        if (key >= s.key_end)
            return;
        const ushort *value = (const ushort *)s.template value_at<TYPE>(key);
        ROLLED
        for (int half = 0; half < 2; half++) {
            const query q(s, base::row_of(s, 0, half));
            const bool visible = TRANSFORMS ? fa_work_shows(s, q, key) : q.sees(s, key);
            ROLLED
            for (int i = 0; visible && i < R.dim_v / 2 / 8; i++) {
                const int d = role * (R.dim_v / 2) + (first + i / 2) * 8 + base::lane % 4 * 2 + i % 2;
                if (d < s.p->dim_v && is_nonfinite<TYPE>(value[d], 0))
                    at[(i / 2 * 4 + half * 2 + i % 2) * WARPGROUP] += (half ? weight1 : weight0) * unpack<TYPE>(value[d], 0);
            }
        }
    }

    /* Each block: the other's, then the own one behind it. `before` is the other's, which there is once it was sent. */
    __device__ void compute()
    {
        const int last = s.key_end, stage = role;
        int before = last, key = next(s.key_begin);
        if (role == 1)
            before = key, key = next(key + BLOCK_KV);
        copy_q();
        base::start();
        ROLLED
        for (int parity = 0;; parity ^= 1) {
            if (before < last)
                take_others(stage ^ 1, before);
            if (key >= last)
                break;
            float sc[1][8][4];
            make_scores(stage, parity, sc);
            const work s = base::again();
            const int key_end = FA_MIN(key + BLOCK_KV, last);
            const bool cut = s.is_cut(key, key_end);
            if (TRANSFORMS || cut || key + BLOCK_KV > key_end)
                take_block<false>(sc, stage, key, key_end, cut);
            else
                take_block<true>(sc, stage, key, key_end, false);
            before = next(key + BLOCK_KV);
            key = next(before + BLOCK_KV);
        }
        add_sums();
    }

    /* Each has summed the weights of its own blocks. Scores are made, and so q's room is free. */
    __device__ void add_sums()
    {
        float2 *const sums = (float2 *)base::memory;
        sums[id] = make_float2(base::sum[0][0], base::sum[0][1]);
        meet_at<BOTH>(MEET);
        const float2 x = sums[id ^ WARPGROUP];
        base::sum[0][0] += x.x;
        base::sum[0][1] += x.y;
    }

    __device__ void run()
    {
        base::leave_notes();
        if (id == 0)
            make_barriers();
        __syncthreads();
        if (role == 2) {
            leave_registers<56>(); /* together, what 384 threads of 168 had */
            copy_blocks();
            __syncthreads(); /* the one of finish() */
        } else {
            take_registers<224>();
            compute();
            base::finish();
        }
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void latent_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    latent_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s, (uchar *)room);
    kernel.run();
}
