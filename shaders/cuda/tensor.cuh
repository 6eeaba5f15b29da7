/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on tensor cores, in two levels of tiles. A block of threads takes one item: BLOCK_Q packed rows against the
 * item's keys in blocks of R.block_kv, which are staged in shared memory, one stage ahead of the arithmetic. Each
 * warp has TILES tiles of 16 rows by all dims of the output in registers for good, and HELD steps of its rows of q.
 * Of a staged block it makes the scores of TILE_KV keys at a time, then weights and their part of the output in steps of
 * 16 keys, all in registers. Only when a score exceeds the base of its row too far (base.h) is the output rescaled:
 * not for most level-1 blocks, however many tiles they are of. Each row decides that alone: what other rows of the warp
 * see does not change its arithmetic.
 *
 * With SPLIT 2, two warps share their rows: each has half the dims, of the scores' sums and of the output.
 *
 * Rows in shared memory are of 16-byte chunks; chunk c of row r lies at c ^ r % 8, so that eight rows' chunks of one
 * number, which is what a matrix load reads at once, are in eight different groups of banks.
 */
#pragma once

#include "barrier.cuh"
#include "base.h"
#include "softmax.cuh"
#include "volta.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct tensor_kernel {
    static constexpr fa_cuda_traits R = fa_cuda_table[ROW];
    static constexpr int UNIT = R.unit, SPLIT = R.tensor.split, WARPS = R.group / 32, GROUP = R.group, HELD = R.tensor.held;
    static constexpr int BLOCK_KV = R.block_kv, TILE_KV = R.tensor.tile_kv, DIM = R.dim_v / SPLIT; /* DIM: of a warp */
    static constexpr int CHUNKS = R.dim_v / 8, LINE = R.dim_v * 2; /* of a row in shared memory */
    static constexpr int STAGE = BLOCK_KV * LINE;                  /* bytes of K, or V, of a stage */
    static constexpr int COPIES = BLOCK_KV * CHUNKS / GROUP;
    static constexpr int ROWS_OF_WARP = BLOCK_Q / (WARPS / SPLIT), TILES = ROWS_OF_WARP / (UNIT == 70 ? 32 : 16);
    typedef tensor_products<UNIT, TYPE, TILES, DIM, LINE, TILE_KV, HELD> products;
    static constexpr int TILE_ROWS = products::TILE_ROWS, STEPS_KV = TILE_KV / 16; /* of 16 keys */
    static constexpr int PARTS_KV = TILE_KV / products::SPAN, PARTS_V = DIM / products::SPAN, PARTS_STEP = 16 / products::SPAN;
    static_assert(TILES * TILE_ROWS == ROWS_OF_WARP && CHUNKS >= 8 && CHUNKS % 8 == 0 && BLOCK_KV % TILE_KV == 0 &&
                      TILE_KV % 16 == 0 && GROUP % CHUNKS == 0 && ROWS_OF_WARP <= 32 && DIM <= 256,
                  "what the kernel is made for");

    const work &s;
    const uint id;
    const int lane, warp, part; /* part: which half of the dims */
    const uint room;
    uchar *const memory;
    const uint at_copy;          /* where the first chunk goes that this thread copies, of the first stage's K */
    const uint at_q, at_k, at_v; /* what lane_at() gives of the rows of q, and of the first stage's K and V    */
    held_rows<TILES, HELD> q;
    uint4 passing[COPIES];
    float out[TILES][PARTS_V][4];
    float base[TILES][2], sum[TILES][2]; /* of this lane's two rows of each tile */
    /* Of formats of v with offsets, their sums by weight: two columns for each block of 32 dims. */
    static constexpr int OFFSETS = CODED && FA_TYPE_HAS_OFFSET(FORMAT_V) ? ceil_div(DIM, 128) : 0;
    float offsets[TILES][OFFSETS > 0 ? OFFSETS : 1][4];
    seldom<2 * TILES> greatest;          /* likewise, the score that the base is of */
    bool apart;                          /* some row of the warp is */

    static constexpr int ITEM = fa_cuda_tensor_words(R, BLOCK_Q) * 4, SEQUENCE = ITEM + sizeof(fa_table_item);

    __device__ tensor_kernel(const work &of, uchar *shared)
        : s(of), id(hold(threadIdx.x)), lane(id % 32), warp(warp_of(id)), part(SPLIT == 2 ? warp % 2 : 0),
          room(shared_address(shared)), memory(shared), at_copy(hold(room + chunk_at(id / CHUNKS, id % CHUNKS))),
          at_q(hold(lane_at(ROWS_Q + first_row() * LINE, products::of_q(lane)))),
          at_k(hold(lane_at(stage_k(0), products::of_k(lane)))), at_v(hold(lane_at(stage_v(0), products::of_v(lane))))
    {
    }

    /* Two that share rows are neighbours; of latent.cuh's, they are the same warp of two warpgroups. */
    static __device__ int warp_of(int id) { return R.kind == FA_CUDA_LATENT ? id / 32 % 4 * 2 + id / 128 : id / 32; }

    /* Of many dims the output leaves no registers to hold anything else in. */
    static constexpr bool NOTES = fa_cuda_tensor_notes(R);
    static __device__ uint hold(uint x)
    {
        if constexpr (R.dim_v <= 128)
            return pin(x);
        return x;
    }

    static __device__ uint chunk_at(int row, int chunk) { return fa_cuda_chunk_at(UNIT, LINE, row, chunk); }
    __device__ int first_row() const { return warp / SPLIT * ROWS_OF_WARP; }
    static __device__ int stage_k(int stage) { return stage * 2 * STAGE; }
    static __device__ int stage_v(int stage) { return stage * 2 * STAGE + STAGE; }
    static constexpr int ROWS_Q = 4 * STAGE, EXCHANGE = ROWS_Q + (HELD < products::STEPS_QK ? BLOCK_Q * LINE : 0);

    /* Where chunk number i of a stage's K or V at `to` goes that a thread copies: R.group / CHUNKS rows further each. */
    static constexpr int ROWS_APART = GROUP / CHUNKS;
    __device__ uint copy_at(int to, int i) const
    {
        return (at_copy ^ fa_cuda_swizzle(UNIT, i * ROWS_APART) * 16) + to + i * ROWS_APART * LINE;
    }

    /* Where this thread's first chunk of the block from `key` on is, of k or v. */
    __device__ const uchar *block_at(cursor from, int key) const
    {
        return from.row_at(key + (int)(id / CHUNKS)) + id % CHUNKS * 16;
    }
    __device__ int dims_left(int dims) const { return dims - (int)(id % CHUNKS) * 8; }
    __device__ int rows_left(int key) const { return s.key_end - key - (int)(id / CHUNKS); }

    __device__ bool is_whole(int key) const { return s.a.straight && key + BLOCK_KV <= s.key_end; }

    /* A block of k or v that is whole, aligned and not in pages; dims past the last are 0. */
    __device__ void copy_whole(int to, cursor from, int dims, int key)
    {
        const uchar *at = block_at(from, key);
        const int bytes = dims_left(dims) > 0 ? 16 : 0;
        UNROLL
        for (int i = 0; i < COPIES; i++)
            copy_async(copy_at(to, i), from.row_after(at, i * ROWS_APART), bytes);
    }

    /* Any other that is not in pages; rows past the end are 0 too. */
    __device__ void copy_some(int to, cursor from, int dims, int key)
    {
        const uchar *at = block_at(from, key);
        ROLLED
        for (int i = 0; i < COPIES; i++) {
            const int count = i * ROWS_APART < rows_left(key) ? dims_left(dims) : 0;
            if (s.a.aligned)
                copy_async(copy_at(to, i), from.row_after(at, i * ROWS_APART), count > 0 ? 16 : 0);
            else
                store_shared(copy_at(to, i), elements(from.row_after(at, i * ROWS_APART), count));
        }
    }

    /* Where this thread's chunk number i is, of keys in pages, by the row that each lane looked up. */
    static __device__ const uchar *chunk_of(const uchar *row, int id, int i)
    {
        const int lane = fa_cuda_lane_that_looks_up(CHUNKS, id, i);
        return (const uchar *)__shfl_sync(0xffffffffu, (unsigned long long)row, lane) + id % CHUNKS * 16;
    }

    /* Both blocks of a stage, of keys in pages; rows past the end are 0. */
    __device__ void copy_pages(int stage, int key)
    {
        const work s = to_look_up();
        const int id = (int)thread();
        const fa_key_place place = s.place_of(key + fa_cuda_row_looked_up(GROUP, CHUNKS, id));
        const uchar *const k = s.template row_in<TYPE, false>(place), *const v = s.template row_in<TYPE, true>(place);
        const int left = s.key_end - key - id / CHUNKS, chunk = id % CHUNKS * 8;
        ROLLED
        for (int i = 0; i < COPIES; i++) {
            const bool exists = i * ROWS_APART < left;
            const uchar *const of_k = chunk_of(k, id, i), *const of_v = chunk_of(v, id, i);
            if (s.a.aligned) {
                copy_async(copy_at(stage_k(stage), i), of_k, exists && chunk < s.p->dim_qk ? 16 : 0);
                copy_async(copy_at(stage_v(stage), i), of_v, exists && chunk < s.p->dim_v ? 16 : 0);
            } else {
                store_shared(copy_at(stage_k(stage), i), elements(of_k, exists ? s.p->dim_qk - chunk : 0));
                store_shared(copy_at(stage_v(stage), i), elements(of_v, exists ? s.p->dim_v - chunk : 0));
            }
        }
    }

    /*
     * Without copies that nothing waits for, a block passes through registers: its K is fetched while the scores of the
     * one before are made, its V while that one's output is.
     */
    template <bool OF_V>
    __device__ void fetch_block(cursor from, int dims, int key)
    {
        const uchar *at = block_at(from, key);
        const int count = dims_left(dims);
        if (is_whole(key)) {
            UNROLL
            for (int i = 0; i < COPIES; i++)
                passing[i] = count > 0 ? *(const uint4 *)from.row_after(at, i * ROWS_APART) : make_uint4(0, 0, 0, 0);
        } else if (s.in_pages()) {
            if (key < s.key_end)
                fetch_pages<OF_V>(dims, key);
        } else {
            UNROLL
            for (int i = 0; i < COPIES; i++)
                passing[i] = elements(from.row_after(at, i * ROWS_APART), i * ROWS_APART < rows_left(key) ? count : 0);
        }
    }

    template <bool OF_V>
    __device__ void fetch_pages(int dims, int key)
    {
        const work s = to_look_up();
        const int id = (int)thread();
        const uchar *const row = s.template row_in<TYPE, OF_V>(s.place_of(key + fa_cuda_row_looked_up(GROUP, CHUNKS, id)));
        const int left = s.key_end - key - id / CHUNKS, count = dims - id % CHUNKS * 8;
        UNROLL
        for (int i = 0; i < COPIES; i++) {
            const uchar *at = chunk_of(row, id, i);
            const int has = i * ROWS_APART < left ? count : 0;
            if (s.a.aligned)
                passing[i] = has > 0 ? *(const uint4 *)at : make_uint4(0, 0, 0, 0);
            else
                passing[i] = elements(at, has);
        }
    }

    __device__ void put_block(int to)
    {
        UNROLL
        for (int i = 0; i < COPIES; i++)
            store_shared(copy_at(to, i), passing[i]);
    }

    __device__ void fetch_k(int key) { fetch_block<false>(s.keys<TYPE>(), s.p->dim_qk, key); }
    __device__ void fetch_v(int key) { fetch_block<true>(s.values<TYPE>(), s.p->dim_v, key); }

    __device__ void copy_stage(int stage, int key)
    {
        if constexpr (UNIT < 80) {
            fetch_k(key);
            put_block(stage_k(stage));
            fetch_v(key);
            put_block(stage_v(stage));
        } else if (is_whole(key)) {
            copy_whole(stage_k(stage), s.keys<TYPE>(), s.p->dim_qk, key);
            copy_whole(stage_v(stage), s.values<TYPE>(), s.p->dim_v, key);
        } else if (key < s.key_end && s.in_pages()) {
            copy_pages(stage, key);
        } else if (key < s.key_end) {
            copy_some(stage_k(stage), s.keys<TYPE>(), s.p->dim_qk, key);
            copy_some(stage_v(stage), s.values<TYPE>(), s.p->dim_v, key);
        }
        commit_copies();
    }

    __device__ void copy_q(int to, int from, int rows)
    {
        const int chunk = id % CHUNKS;
        ROLLED
        for (int r = id / CHUNKS; r < rows; r += ROWS_APART) {
            const uchar *at = query(s, s.row_begin + from + r).q(s) + chunk * 16;
            const int count = s.p->dim_qk - chunk * 8;
            if (UNIT >= 80 && s.a.aligned)
                copy_async(room + to + chunk_at(r, chunk), at, count > 0 ? 16 : 0);
            else if (s.a.aligned)
                store_shared(room + to + chunk_at(r, chunk), count > 0 ? *(const uint4 *)at : make_uint4(0, 0, 0, 0));
            else
                store_shared(room + to + chunk_at(r, chunk), elements(at, count));
        }
        commit_copies();
    }

    /* All threads that have rows wait for each other. On Hopper, others are beside them, which decode. */
    static __device__ void sync()
    {
        if constexpr (fa_cuda_takes_formats(R))
            meet_at<GROUP>(1);
        else
            __syncthreads();
    }

    /* Likewise; true where it is of one of them. */
    static __device__ bool sync_or(bool any)
    {
        if constexpr (fa_cuda_takes_formats(R))
            return any_at<GROUP>(1, any);
        else
            return __syncthreads_or(any) != 0;
    }

    /* Where a chunk of a row is (row in x, chunk in y), of the rows from `at` on and of this warp's part of their dims. */
    __device__ uint lane_at(int at, int2 of) const { return room + at + chunk_at(of.x, part * DIM / 8 + of.y); }

    __device__ void hold_row(uint at, int t, int d)
    {
        uint rows[4];
        products::load_rows(rows, at, t, d);
        q.set(t, d, rows);
    }

    /* Rows of q that are all held pass through the second stage, as many at a time as fit. */
    __device__ void hold_q()
    {
        constexpr int FIT = 2 * BLOCK_KV < BLOCK_Q ? 2 * BLOCK_KV : BLOCK_Q;
        UNROLL
        for (int from = 0; from < BLOCK_Q; from += FIT) {
            sync();
            copy_q(stage_k(1), from, FIT);
            wait_copies<0>();
            sync();
            const uint at = at_q - ROWS_Q + stage_k(1) - from * LINE;
            UNROLL
            for (int t = 0; t < TILES; t++) {
                if (first_row() + TILE_ROWS * t >= from && first_row() + TILE_ROWS * t < from + FIT) {
                    UNROLL
                    for (int d = 0; d < HELD; d++)
                        hold_row(at, t, d);
                }
            }
        }
        sync();
    }

    /* The others stay in shared memory. */
    __device__ void load_q()
    {
        if constexpr (HELD == products::STEPS_QK) {
            hold_q();
        } else {
            copy_q(ROWS_Q, 0, BLOCK_Q);
            wait_copies<0>();
            __syncthreads();
            UNROLL
            for (int t = 0; t < TILES; t++) {
                UNROLL
                for (int d = 0; d < HELD; d++)
                    hold_row(at_q, t, d);
            }
        }
    }

    /* The packed row of the item that this lane's row `half` of tile t is, and the key of an element. */
    __device__ int row_of(const work &s, int t, int half) const
    {
        return s.row_begin + first_row() + TILE_ROWS * t + products::row(lane, half);
    }
    __device__ int key_of(int key, int n, int i) const { return key + products::key(lane, n, i); }

    __device__ void clear(float sc[TILES][PARTS_KV][4])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int n = 0; n < 4 * PARTS_KV; n++)
                sc[t][n / 4][n % 4] = 0.0f;
        }
    }

    /*
     * The work, for what is not done for every block: it lies in shared memory from the beginning on, for in registers
     * it would take the room of something that is. What it says is valid after the first barrier.
     */
    __device__ work again() const
    {
        if constexpr (!NOTES)
            return s;
        return work(s.a, *(const fa_table_item *)(memory + ITEM), *(const fa_table_sequence *)(memory + SEQUENCE));
    }

    /* Likewise, for the place of keys, where there are no notes too. */
    __device__ work to_look_up() const
    {
        if constexpr (!NOTES)
            return work(s.a, blockIdx.x);
        return again();
    }

    __device__ void leave_notes()
    {
        if constexpr (!NOTES)
            return;
        constexpr int WORDS = sizeof(fa_table_item) / 4, ALL = WORDS + sizeof(fa_table_sequence) / 4;
        static_assert(ALL <= FA_CUDA_NOTES && ALL <= 32, "a word for each lane of the first warp");
        const fa_table_item *item = work::item_at(s.a, blockIdx.x);
        uint *to = (uint *)(memory + ITEM) + id;
        if (id < WORDS)
            *to = ((const uint *)item)[id];
        else if (id < ALL)
            *to = ((const uint *)work::sequence_at(s.a, item->sequence))[id - WORDS];
        if (s.in_pages()) /* then they are read at once */
            __syncthreads();
    }

    /* Hides what the mask cuts. */
    __device__ void hide_scores(int key, int key_end, bool cut, float sc[TILES][PARTS_KV][4])
    {
        const work s = again();
        const int prefix = cut ? FA_MIN(s.walk.mask.prefix, key_end) : 0;
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                const query at(s, row_of(s, t, half));
                const int begin = cut ? at.begin : 0, end = cut ? FA_MIN(at.end, key_end) : key_end;
                UNROLL
                for (int n = 0; n < PARTS_KV; n++) {
                    UNROLL
                    for (int i = 0; i < 2; i++) {
                        const int j = key_of(key, n, i);
                        const bool unlisted = FA_LISTS(s) && cut && j < key_end && !at.sees(s, j);
                        if (unlisted || (j >= prefix && (j < begin || j >= end)))
                            sc[t][n][2 * half + i] = FA_NEG_INF;
                    }
                }
            }
        }
    }

    /* Scores become natural logarithms as the description has them, and what is hidden -inf: eight keys in turn. */
    __device__ void transform_scores(int key, int key_end, bool cut, float sc[TILES][PARTS_KV][4])
    {
        const work s = again();
        ROLLED
        for (int turn = 0; turn < PARTS_KV; turn++) {
            UNROLL
            for (int t = 0; t < TILES; t++) {
                float first[4];
                UNROLL
                for (int i = 0; i < 4; i++) {
                    const query at(s, row_of(s, t, i / 2));
                    const int j = key_of(key, turn, i);
                    const bool hidden = j >= key_end || (cut && !at.sees(s, j));
                    first[i] = hidden ? FA_NEG_INF : fa_work_score(s, at, j, sc[t][0][i]);
                }
                UNROLL
                for (int i = 0; i < 4; i++) {
                    UNROLL
                    for (int n = 0; n + 1 < PARTS_KV; n++)
                        sc[t][n][i] = sc[t][n + 1][i];
                    sc[t][PARTS_KV - 1][i] = first[i];
                }
            }
        }
    }

    /*
     * A new base for each row whose greatest score exceeds the old one too far, of what each lane has of it. What was summed
     * under the old one is to be multiplied by `by`: true where some row of the warp has such sums.
     */
    __device__ bool move_bases(const float most[TILES][2], float by[TILES][2], float origin[TILES][2])
    {
        const float unit = s.p->score.unit;
        bool changes = false; /* what was summed: a row that has seen nothing has no sum yet */
        apart = false;
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                const fa_base old = fa_base_of(greatest.get(2 * t + half), unit);
                const fa_base next = fa_base_next(old, products::most(most[t][half]), unit);
                by[t][half] = fa_base_weight(old, next, unit);
                base[t][half] = next.base;
                origin[t][half] = next.origin;
                greatest.set(2 * t + half, next.greatest);
                changes = changes || (next.greatest != old.greatest && old.greatest != FA_NEG_INF);
                apart = apart || fa_base_is_apart(next.greatest, unit);
            }
        }
        apart = __any_sync(0xffffffffu, apart);
        return __any_sync(0xffffffffu, changes);
    }

    /* Likewise, with what was summed rescaled; and scores of rows apart become differences. */
    __device__ void take_bases(float sc[TILES][PARTS_KV][4], const float most[TILES][2])
    {
        float by[TILES][2], origin[TILES][2];
        if (move_bases(most, by, origin)) {
            rescale_sums(by);
            rescale_output(by);
        }
        if (apart)
            subtract(sc, origin);
    }

    __device__ void rescale_sums(const float by[TILES][2])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                sum[t][half] *= by[t][half];
                UNROLL
                for (int n = 0; n < OFFSETS; n++) {
                    offsets[t][n][2 * half] *= by[t][half];
                    offsets[t][n][2 * half + 1] *= by[t][half];
                }
            }
        }
    }

    __device__ void rescale_output(const float by[TILES][2])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                UNROLL
                for (int n = 0; n < PARTS_V; n++) {
                    out[t][n][2 * half] *= by[t][half];
                    out[t][n][2 * half + 1] *= by[t][half];
                }
            }
        }
    }

    __device__ void subtract(float sc[TILES][PARTS_KV][4], const float origin[TILES][2])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int n = 0; n < PARTS_KV; n++) {
                UNROLL
                for (int i = 0; i < 4; i++)
                    sc[t][n][i] -= origin[t][i / 2];
            }
        }
    }

    /* The greatest score of each of a lane's rows. True where some row of the warp may need a new base. */
    __device__ bool exceed_bases(const float sc[TILES][PARTS_KV][4], float most[TILES][2]) const
    {
        bool exceeds = false;
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                most[t][half] = FA_NEG_INF;
                UNROLL
                for (int n = 0; n < PARTS_KV; n++)
                    most[t][half] = fmaxf(most[t][half], fmaxf(sc[t][n][2 * half], sc[t][n][2 * half + 1]));
                exceeds = exceeds || fa_base_exceeds(most[t][half], base[t][half], s.p->score.unit);
            }
        }
        return __any_sync(0xffffffffu, exceeds || apart);
    }

    __device__ void find_bases(float sc[TILES][PARTS_KV][4])
    {
        float most[TILES][2];
        if (__builtin_expect(exceed_bases(sc, most), 0))
            take_bases(sc, most);
    }

    /* The weights of tile t's step n of 16 keys. */
    __device__ void weigh(const float sc[TILES][PARTS_KV][4], int n, int t, float w[PARTS_STEP][4])
    {
        UNROLL
        for (int i = 0; i < 4 * PARTS_STEP; i++) {
            const int part = i / 4, element = i % 4, half = element / 2;
            w[part][element] = exp2_fast(fmaf(sc[t][PARTS_STEP * n + part][element], s.p->score.unit, -base[t][half]));
        }
        UNROLL
        for (int half = 0; half < 2; half++) {
            UNROLL
            for (int part = 0; part < PARTS_STEP; part++)
                sum[t][half] += w[part][2 * half] + w[part][2 * half + 1];
        }
    }

    /* Those of all, packed as first operands of the second product. */
    __device__ void softmax_step(const float sc[TILES][PARTS_KV][4], int n, uint weights[TILES][products::WORDS])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            float w[PARTS_STEP][4];
            weigh(sc, n, t, w);
            products::pack_weights(lane, w, weights[t]);
        }
    }

    /*
     * Values of a block with hidden keys that are not finite must not meet a weight of 0: they become 0 where they are
     * staged. True where there are any; add_nonfinite() then brings back those that a row sees.
     */
    __device__ bool clear_nonfinite(int stage)
    {
        bool nonfinite = false;
        ROLLED
        for (int i = 0; i < COPIES; i++) {
            uint *at = (uint *)(memory + (copy_at(stage_v(stage), i) - room));
            nonfinite |= clear_nonfinite_chunk<TYPE>(at);
        }
        if constexpr (UNIT == 90)
            show_to_products();
        return sync_or(nonfinite);
    }

    /* What clear_nonfinite() left out of a step of 16 keys from `key` on, for the rows that see it. */
    __device__ void add_nonfinite(int key, int key_end, const uint weights[TILES][products::WORDS])
    {
        const work s = again();
        ROLLED
        for (int n = 0; n < FA_MIN(16, key_end - key); n++) {
            const ushort *value = (const ushort *)s.template value_at<TYPE>(key + n);
            UNROLL
            for (int t = 0; t < TILES; t++) {
                UNROLL
                for (int half = 0; half < 2; half++) {
                    const float weight = products::weight_of(lane, weights[t], half, n);
                    const query q(s, row_of(s, t, half));
                    const bool visible = TRANSFORMS ? fa_work_shows(s, q, key + n) : q.sees(s, key + n);
                    UNROLL
                    for (int d = 0; d < PARTS_V; d++) {
                        UNROLL
                        for (int i = 0; i < 2; i++) {
                            const int dim = part * DIM + products::dim(lane, d, i);
                            if (visible && dim < s.p->dim_v && is_nonfinite<TYPE>(value[dim], 0))
                                out[t][d][2 * half + i] += weight * unpack<TYPE>(value[dim], 0);
                        }
                    }
                }
            }
        }
    }

    /* The scores' sums over the other half of the dims, from the warp that has them. */
    __device__ void exchange(float sc[TILES][PARTS_KV][4])
    {
        constexpr int WORDS = TILES * PARTS_KV * 4;
        float *mine = (float *)(memory + EXCHANGE) + (warp * WORDS) * 32 + lane;
        const float *other = (float *)(memory + EXCHANGE) + ((warp ^ 1) * WORDS) * 32 + lane;
        UNROLL
        for (int i = 0; i < WORDS; i++)
            mine[i * 32] = sc[i / (4 * PARTS_KV)][i / 4 % PARTS_KV][i % 4];
        asm volatile("bar.sync %0, 64;" ::"r"(1 + warp / 2) : "memory");
        UNROLL
        for (int i = 0; i < WORDS; i++)
            sc[i / (4 * PARTS_KV)][i / 4 % PARTS_KV][i % 4] += other[i * 32];
        asm volatile("bar.sync %0, 64;" ::"r"(1 + warp / 2) : "memory");
    }

    /* Of a warp's finished rows, so many dims pass through shared memory at a time as there is room for. */
    static constexpr int pieces_of(int dims)
    {
        return WARPS * TILE_ROWS * dims <= fa_cuda_tensor_words(R, BLOCK_Q) ? DIM / dims : pieces_of(dims / 2);
    }
    static constexpr int PIECES = pieces_of(DIM), PIECE = DIM / PIECES;

    /* Those of a tile, by the factor that lane number r has of row r, as floats. */
    __device__ void put_rows(int t, int piece, float factor, float *rows)
    {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int row = products::row(lane, half);
            const float by = __shfl_sync(0xffffffffu, factor, t * TILE_ROWS + row);
            UNROLL
            for (int n = 0; n < PARTS_V / PIECES; n++) {
                const int d = piece * (PARTS_V / PIECES) + n;
                *(float2 *)(rows + row * PIECE + (products::dim(lane, n, 0) ^ fa_cuda_row_shift(row))) =
                    make_float2(fa_normalised(out[t][d][2 * half], by), fa_normalised(out[t][d][2 * half + 1], by));
            }
        }
    }

    /* Whole lines of them, eight dims of a lane. `at` is where row r goes, in lane r; NULL where there is none. */
    __device__ void store_rows(int t, int piece, const target &to, uchar *at, const float *rows)
    {
        constexpr int ACROSS = PIECE / 8;
        const int dim = part * DIM + piece * PIECE + lane % ACROSS * 8;
        ROLLED
        for (int row = lane / ACROSS; row < TILE_ROWS; row += 32 / ACROSS) {
            const float *from = rows + row * PIECE + (lane % ACROSS * 8 ^ fa_cuda_row_shift(row));
            uchar *line = (uchar *)__shfl_sync(0xffffffffu, (unsigned long long)at, t * TILE_ROWS + row);
            if (line)
                store8(to.type, to.aligned, line + dim * bytes_of(to.type), s.p->dim_v - dim, *(const float4 *)from,
                       *(const float4 *)(from + 4));
        }
    }

    /*
     * Lane r of a warp ends its row r. The output passes through shared memory, a tile at a time: what runs once for each
     * item has to be short, since fetching code takes longer than running it.
     */
    __device__ void finish()
    {
        float *const rows = (float *)memory + warp * TILE_ROWS * PIECE, *const sums = rows + ROWS_OF_WARP;
        const work s = again();
        sync();
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                const float total = products::total(sum[t][half]);
                rows[t * TILE_ROWS + products::row(lane, half)] = greatest.get(2 * t + half);
                sums[t * TILE_ROWS + products::row(lane, half)] = total;
            }
        }
        __syncwarp();
        const int row = s.row_begin + first_row() + lane;
        const bool mine = lane < ROWS_OF_WARP;
        const query q(s, row);
        fa_state state;
        state.max = rows[FA_MIN(lane, ROWS_OF_WARP - 1)];
        state.sum = sums[FA_MIN(lane, ROWS_OF_WARP - 1)];
        const target to(s, q, row, state, part == 0 && mine);
        UNROLL
        for (int i = 0; i < TILES * PIECES; i++) {
            __syncwarp();
            put_rows(i / PIECES, i % PIECES, to.factor, rows);
            __syncwarp();
            store_rows(i / PIECES, i % PIECES, to, mine && q.exists ? to.at : NULL, rows);
        }
    }

    __device__ void start()
    {
        apart = true;
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int half = 0; half < 2; half++) {
                base[t][half] = 0.0f;
                greatest.set(2 * t + half, FA_NEG_INF);
                sum[t][half] = 0.0f;
            }
            UNROLL
            for (int i = 0; i < 4 * OFFSETS; i++)
                offsets[t][i / 4][i % 4] = 0.0f;
            UNROLL
            for (int d = 0; d < PARTS_V; d++) {
                UNROLL
                for (int i = 0; i < 4; i++)
                    out[t][d][i] = 0.0f;
            }
        }
    }

    /*
     * A tile of a staged block: its key `first`, the item's key `key`. PLAIN where neither a mask nor a description does
     * anything to scores.
     */
    template <bool PLAIN>
    __device__ void take_tile(int stage, int first, int key, int key_end, bool cut, bool nonfinite, int next)
    {
        float sc[TILES][PARTS_KV][4];
        clear(sc);
        products::multiply_qk(at_q, at_k + stage_k(stage) + first * LINE, q, sc);
        if constexpr (UNIT < 80) {
            static_assert(UNIT >= 80 || TILE_KV == BLOCK_KV, "the next block passes through registers once");
            put_block(stage_k(stage ^ 1));
            fetch_v(next);
        }
        if constexpr (SPLIT == 2)
            exchange(sc);
        if constexpr (!PLAIN) {
            if (TRANSFORMS)
                transform_scores(key, key_end, cut, sc);
            else
                hide_scores(key, key_end, cut, sc);
        }
        find_bases(sc);
        const uint at = at_v + stage_k(stage) + first * LINE;
        UNROLL
        for (int n = 0; n < STEPS_KV; n++) {
            uint weights[TILES][products::WORDS], values[2][4];
            products::load_first(at + n * 16 * LINE, values);
            softmax_step(sc, n, weights);
            products::multiply_pv(at + n * 16 * LINE, values, weights, out);
            if (!PLAIN && nonfinite)
                add_nonfinite(key + 16 * n, key_end, weights);
        }
    }

    template <bool PLAIN>
    __device__ void take_block(int stage, int key, int key_end, bool cut, int next)
    {
        const bool nonfinite = !PLAIN && (cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP))) && clear_nonfinite(stage);
        ROLLED
        for (int first = 0; first < BLOCK_KV; first += TILE_KV) {
            if (PLAIN || key + first < key_end)
                take_tile<PLAIN>(stage, first, key + first, key_end, cut, nonfinite, next);
        }
    }

    __device__ void run()
    {
        fa_met met = fa_met_from(s, TRANSFORMS, s.key_begin, BLOCK_KV);
        int key = met.key, stage = 0;
        typename held_rows<TILES, HELD>::vectors::room room_q;
        q.rows.use(room_q);
        leave_notes();
        copy_stage(0, key);
        load_q();
        start();
        ROLLED
        while (key < s.key_end) {
            const int key_end = FA_MIN(key + BLOCK_KV, s.key_end);
            const bool cut = fa_met_cut(s, met, key_end, BLOCK_KV);
            met = fa_met_next(s, TRANSFORMS, met, BLOCK_KV);
            const int next = met.key;
            wait_copies<0>();
            __syncthreads();
            if constexpr (UNIT < 80)
                fetch_k(next);
            else
                copy_stage(stage ^ 1, next);
            if (TRANSFORMS || cut || key + BLOCK_KV > key_end)
                take_block<false>(stage, key, key_end, cut, next);
            else
                take_block<true>(stage, key, key_end, false, next);
            if constexpr (UNIT < 80)
                put_block(stage_v(stage ^ 1));
            stage ^= 1;
            key = next;
        }
        finish();
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void tensor_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    tensor_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s, (uchar *)room);
    kernel.run();
}
