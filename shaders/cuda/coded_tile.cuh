/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tensor.cuh does, where k and v are in formats of caches. Rows of codes pass through shared memory as they are, by
 * copies that nothing waits for; each warp has room for its share of one block of k, or of v. It makes numbers of them in the
 * stage that is multiplied next: keys behind the scores of the first tile, values behind the last tile.
 *
 * Of formats whose blocks have scales, the numbers are bare (coded.cuh says why, and what is done in f32 instead). A sum of
 * scores is made for each block of 32 dims, and multiplied by the key's scale there. Weights are multiplied by the rest of the
 * value's scale before they are rounded, again for each block. The offset of a value over the rest of its scale is two numbers,
 * the second of what the first leaves: they are columns of a product of their own with the same weights.
 */
#pragma once

#include "numbers.cuh"
#include "tensor.cuh"

/* The words that hold a block in shared memory, from a multiple of four on; `odd`: the block begins in the middle of one. */
template <typename F>
struct block_words {
    static constexpr bool EVEN = F::BLOCK % 4 == 0; /* then all begin at a word */
    static constexpr int COUNT = (F::BLOCK + (EVEN ? 0 : 2)) / 4;
    uint word[COUNT];
    bool odd;

    /* That of the block `at` bytes behind a word, an even number. */
    __device__ __forceinline__ block_words(const uchar *behind, int at)
    {
        const uint *const from = (const uint *)(behind + at / 4 * 4);
        odd = !EVEN && at % 4 != 0;
        UNROLL
        for (int i = 0; i < COUNT; i++)
            word[i] = from[i];
    }

    /* Four bytes of the block, the first at `at`, an even number. SWAP: the second and the third change places. */
    template <bool SWAP>
    __device__ __forceinline__ uint get(int at) const
    {
        const uint first = SWAP ? 0x3120 : 0x3210, middle = SWAP ? 0x5342 : 0x5432, second = SWAP ? 0x7564 : 0x7654;
        if constexpr (EVEN)
            return at % 4 == 0 ? __byte_perm(word[at / 4], 0, first) : __byte_perm(word[at / 4], word[at / 4 + 1], middle);
        return __byte_perm(word[at / 4], word[at / 4 + 1], at % 4 == 0 ? (odd ? middle : first) : (odd ? second : middle));
    }
};

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct coded_tile_kernel : tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef tensor_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> tiles;
    typedef typename tiles::products products;
    typedef format<FORMAT_K> K;
    typedef format<FORMAT_V> V;
    using tiles::s, tiles::id, tiles::lane, tiles::warp, tiles::part, tiles::room, tiles::memory, tiles::at_q, tiles::at_k,
        tiles::at_v, tiles::q, tiles::out, tiles::offsets;
    using tiles::R, tiles::UNIT, tiles::BLOCK_KV, tiles::TILE_KV, tiles::WARPS, tiles::TILES, tiles::DIM, tiles::LINE,
        tiles::PARTS_KV, tiles::PARTS_V, tiles::STEPS_KV, tiles::GROUP;
    static constexpr int ALL = R.dim_v / 32, BLOCKS = DIM / 32; /* blocks of a row, and of a warp's part */
    /* Whether k, or v, is plain, and staged as tensor.cuh does; and whether nothing but its elements is needed. */
    static constexpr bool PLAIN_K = !FA_TYPE_IS_CODED(FORMAT_K), PLAIN_V = !FA_TYPE_IS_CODED(FORMAT_V);
    static constexpr bool BARE_K = PLAIN_K || K::FP8, BARE_V = PLAIN_V || V::FP8;
    static constexpr int SHARE = BLOCK_KV / WARPS, TURNS = SHARE * ALL / 32; /* a warp's rows; blocks of them that a lane has */
    static constexpr int PITCH_K = fa_cuda_tile_pitch(R, FORMAT_K), PITCH_V = fa_cuda_tile_pitch(R, FORMAT_V);
    static constexpr int LANES = 32 / FA_MIN(SHARE, 4); /* that copy a row */
    static_assert(SHARE >= 1 && SHARE <= 32 && TURNS * 32 == SHARE * ALL && UNIT == 80, "what the kernel is made for");

    /* Bytes of shared memory behind what any kernel has: of each stage what is noted of its scales; sums of q; and codes. */
    static constexpr int NOTED_AT = fa_cuda_tile_notes_at(R, BLOCK_Q), NOTED = fa_cuda_tile_notes(R, FORMAT_K, FORMAT_V);
    static constexpr int LIST = ALL * BLOCK_KV * 4; /* a number for each block of each key */
    static constexpr int SCALES_K = 0, OFFSETS_K = SCALES_K + (BARE_K ? 0 : LIST), RESTS = OFFSETS_K + (K::OFFSET ? LIST : 0),
                         COLUMNS = RESTS + (BARE_V ? 0 : LIST);
    static constexpr int SUMS_Q = NOTED_AT + 2 * NOTED, CODES = SUMS_Q + fa_cuda_tile_sums(R, FORMAT_K, BLOCK_Q);
    static constexpr int COLUMN = BLOCK_KV + 8; /* numbers of a column of offsets, apart so that eight are in different banks */

    uchar *const codes; /* this warp's */

    __device__ coded_tile_kernel(const work &of, uchar *shared)
        : tiles(of, shared), codes(shared + CODES + warp * fa_cuda_tile_share(R, FORMAT_K, FORMAT_V))
    {
    }

    /* What is noted of a stage, from such a list on. */
    __device__ uchar *noted(int stage, int list) const { return memory + NOTED_AT + stage * NOTED + list; }

    /* Where the warp's row number i of codes begins. In pages, each lane has looked up one. */
    template <bool OF_V, bool IN_PAGES>
    __device__ const uchar *row_at(const uchar *looked_up, int key, int i) const
    {
        if (IN_PAGES)
            return (const uchar *)__shfl_sync(0xffffffffu, (unsigned long long)looked_up, i);
        return (OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>()).row_at(key + i);
    }

    /* Rows that are whole and aligned to so many bytes. */
    template <bool OF_V, int BYTES, bool IN_PAGES>
    __device__ void copy_whole(const uchar *looked_up, int key)
    {
        constexpr int FULL = FA_TYPE_SPAN(OF_V ? FORMAT_V : FORMAT_K, R.dim_v), PITCH = OF_V ? PITCH_V : PITCH_K;
        constexpr int APART = 32 / LANES, TURN = LANES * BYTES;
        const int from = lane % LANES * BYTES;
        const uint to = shared_address(codes) + lane / LANES * PITCH + from;
        const fa_long step = (OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>()).step * APART;
        const uchar *at = IN_PAGES ? looked_up : row_at<OF_V, false>(looked_up, key, lane / LANES) + from;
        UNROLL
        for (int i = 0; i < SHARE; i += APART) {
            if (IN_PAGES)
                at = row_at<OF_V, true>(looked_up, key, lane / LANES + i) + from;
            UNROLL
            for (int turn = 0; turn < FULL; turn += TURN) {
                if (turn + from < FULL)
                    copy_bytes<BYTES>(to + i * PITCH + turn, at + turn, BYTES);
            }
            if (!IN_PAGES)
                at += step;
        }
    }

    /* Any other; rows past the end are 0, and so are dims past the last. */
    template <bool OF_V, int BYTES, bool IN_PAGES>
    __device__ void copy_some(const uchar *looked_up, int key, int bytes)
    {
        constexpr int FULL = FA_TYPE_SPAN(OF_V ? FORMAT_V : FORMAT_K, R.dim_v), PITCH = OF_V ? PITCH_V : PITCH_K;
        ROLLED
        for (int i = lane / LANES; i < SHARE; i += 32 / LANES) {
            const uchar *const at = row_at<OF_V, IN_PAGES>(looked_up, key, i);
            const int exist = key + i < s.key_end ? bytes : 0;
            ROLLED
            for (int from = lane % LANES * BYTES; from < FULL; from += LANES * BYTES)
                copy_bytes<BYTES>(shared_address(codes) + i * PITCH + from, at + from,
                                  FA_MAX(FA_MIN(BYTES, exist - from), 0));
        }
    }

    template <bool OF_V, bool IN_PAGES>
    __device__ void copy(const uchar *looked_up, int key)
    {
        constexpr int FORMAT = OF_V ? FORMAT_V : FORMAT_K, FULL = FA_TYPE_SPAN(FORMAT, R.dim_v);
        constexpr bool WIDE = FA_TYPE_IS_FP8(FORMAT);
        const int aligned = OF_V ? s.a.aligned_v : s.a.aligned_k;
        const int bytes = FA_TYPE_SPAN(FORMAT, OF_V ? s.p->dim_v : s.p->dim_qk);
        const bool whole = key + SHARE <= s.key_end && bytes == FULL;
        if (WIDE && whole && aligned == 16)
            copy_whole<OF_V, WIDE ? 16 : 8, IN_PAGES>(looked_up, key);
        else if (FULL % 8 == 0 && whole && aligned >= 8)
            copy_whole<OF_V, FULL % 8 == 0 ? 8 : 4, IN_PAGES>(looked_up, key);
        else if (FULL % 4 == 0 && whole && aligned >= 4)
            copy_whole<OF_V, 4, IN_PAGES>(looked_up, key);
        else if (aligned >= 4)
            copy_some<OF_V, 4, IN_PAGES>(looked_up, key, bytes);
        else
            copy_some<OF_V, 2, IN_PAGES>(looked_up, key, bytes);
    }

    /* The warp's rows of codes of a block. Those that were there are done with. */
    template <bool OF_V>
    __device__ void copy_codes(int block)
    {
        const int key = block + SHARE * warp;
        __syncwarp();
        if (block < s.key_end && s.in_pages()) {
            const work w = tiles::to_look_up();
            copy<OF_V, true>(w.template row_in<TYPE_ANY, OF_V>(w.place_of(key + lane % SHARE)), key);
        } else if (block < s.key_end) {
            copy<OF_V, false>(NULL, key);
        }
        commit_copies();
    }

    /* Both, where the operand is plain: its block goes to the stage. */
    template <bool OF_V>
    __device__ void copy_plain(int stage, int key)
    {
        const int to = OF_V ? tiles::stage_v(stage) : tiles::stage_k(stage), dims = OF_V ? s.p->dim_v : s.p->dim_qk;
        if (tiles::is_whole(key))
            tiles::copy_whole(to, OF_V ? s.template values<TYPE>() : s.template keys<TYPE>(), dims, key);
        else if (key < s.key_end && s.in_pages())
            copy_paged<OF_V>(to, dims, key);
        else if (key < s.key_end)
            tiles::copy_some(to, OF_V ? s.template values<TYPE>() : s.template keys<TYPE>(), dims, key);
        commit_copies();
    }

    template <bool OF_V>
    __device__ void copy_paged(int to, int dims, int key)
    {
        constexpr int CHUNKS = tiles::CHUNKS;
        const work s = tiles::to_look_up();
        const uchar *const row =
            s.template row_in<TYPE, OF_V>(s.place_of(key + fa_cuda_row_looked_up(GROUP, CHUNKS, id)));
        const int left = s.key_end - key - (int)id / CHUNKS, dim = (int)id % CHUNKS * 8;
        ROLLED
        for (int i = 0; i < tiles::COPIES; i++) {
            const uchar *const at = tiles::chunk_of(row, id, i);
            const int count = i * tiles::ROWS_APART < left ? dims - dim : 0;
            if (s.a.aligned)
                copy_async(tiles::copy_at(to, i), at, count > 0 ? 16 : 0);
            else
                store_shared(tiles::copy_at(to, i), elements(at, count));
        }
    }

    /* A block of k, or of v, on its way: to the stage, or as codes. */
    template <bool OF_V>
    __device__ void fetch(int stage, int key)
    {
        if constexpr (OF_V ? PLAIN_V : PLAIN_K)
            copy_plain<OF_V>(stage, key);
        else
            copy_codes<OF_V>(key);
    }

    /* Codes of chunk i of eight elements, four of them in each word, in the order that raise() takes pairs from. */
    template <typename F>
    static __device__ void codes_of_chunk(const block_words<F> &in, int i, uint to[2])
    {
        UNROLL
        for (int h = 0; h < 2; h++) {
            if constexpr (F::FIFTH > 0) {
                const uint fifth = in.template get<false>(F::FIFTH) >> (8 * i + 4 * h);
                to[h] = codes_of<F>(in.template get<false>(F::CODES + i % 2 * 8 + 4 * h) >> i / 2 * 4, fifth);
                to[h] = __byte_perm(to[h], 0, 0x3120);
            } else if constexpr (F::NIBBLES) {
                to[h] = codes_of<F>(in.template get<true>(F::CODES + i % 2 * 8 + 4 * h) >> i / 2 * 4, 0);
            } else {
                to[h] = in.template get<true>(F::CODES + 8 * i + 4 * h);
            }
        }
    }

    /* A list's number of block b of the stage's key `line`. */
    __device__ float &note(int stage, int list, int b, int line) const
    {
        return ((float *)noted(stage, list))[b * BLOCK_KV + line];
    }

    /* The offset of a value over the rest of its scale, as two numbers in columns 2 b and 2 b + 1. */
    static constexpr float FINER = TYPE == TYPE_F16 ? 2048.0f : 1.0f; /* f16 would lose the second number's small ones */
    __device__ void note_offset(int stage, int b, int line, float x) const
    {
        ushort *const to = (ushort *)noted(stage, COLUMNS) + 2 * b * COLUMN + line;
        const uint first = pack<TYPE>(x, 0.0f);
        to[0] = (ushort)first;
        to[COLUMN] = (ushort)pack<TYPE>((x - unpack<TYPE>(first, 0)) * FINER, 0.0f);
    }

    /* Where chunk 4 b of a stage's row `line` goes; the three behind it differ in bits that are 0 in it. */
    __device__ uint chunks_at(int to, int line, int b) const { return room + to + tiles::chunk_at(line, 4 * b); }

    __device__ void decode_k(int stage)
    {
        wait_copies<0>();
        __syncwarp();
        UNROLL
        for (int turn = 0; turn < TURNS; turn++) {
            const int row = lane % SHARE, b = lane / SHARE * TURNS + turn, line = warp * SHARE + row;
            const uint to = chunks_at(tiles::stage_k(stage), line, b);
            if constexpr (PLAIN_K) {
                return;
            } else if constexpr (K::FP8) {
                decode_fp8<K>(codes + row * PITCH_K + 32 * b, to);
            } else {
                const block_words<K> in(codes, row * PITCH_K + b * K::BLOCK);
                const uint scaling = in.template get<false>(0);
                note(stage, SCALES_K, b, line) = nan_unless_finite(from_half((ushort)scaling));
                if constexpr (K::OFFSET)
                    note(stage, OFFSETS_K, b, line) = nan_unless_finite(from_half((ushort)(scaling >> 16)));
                UNROLL
                for (int i = 0; i < 4; i++) {
                    uint of[2], x[4];
                    codes_of_chunk<K>(in, i, of);
                    operands_of<TYPE, K>(of[0], x);
                    operands_of<TYPE, K>(of[1], x + 2);
                    store_shared(to ^ i * 16, make_uint4(x[0], x[1], x[2], x[3]));
                }
            }
        }
    }

    template <typename F>
    static __device__ void decode_fp8(const uchar *from, uint to)
    {
        UNROLL
        for (int i = 0; i < 2; i++) {
            const uint4 of = ((const uint4 *)from)[i];
            uint x[8];
            operands_of_fp8<TYPE, F>(of.x, x);
            operands_of_fp8<TYPE, F>(of.y, x + 2);
            operands_of_fp8<TYPE, F>(of.z, x + 4);
            operands_of_fp8<TYPE, F>(of.w, x + 6);
            store_shared(to ^ i * 32, make_uint4(x[0], x[1], x[2], x[3]));
            store_shared(to ^ (i * 32 + 16), make_uint4(x[4], x[5], x[6], x[7]));
        }
    }

    /* Numbers of v, times the power of two of their scale. True where this lane has left out a block. */
    __device__ bool decode_v(int stage)
    {
        bool any = false;
        wait_copies<0>();
        __syncwarp();
        UNROLL
        for (int turn = 0; turn < TURNS; turn++) {
            const int row = lane % SHARE, b = lane / SHARE * TURNS + turn, line = warp * SHARE + row;
            const uint to = chunks_at(tiles::stage_v(stage), line, b);
            if constexpr (PLAIN_V) {
                return false;
            } else if constexpr (V::FP8) {
                decode_fp8<V>(codes + row * PITCH_V + 32 * b, to);
            } else {
                const block_words<V> in(codes, row * PITCH_V + b * V::BLOCK);
                const uint scaling = in.template get<false>(0), bits = __float_as_uint(from_half((ushort)scaling));
                const bool apart = is_apart<TYPE>(scaling & 0xffffu, V::OFFSET ? scaling >> 16 : 0);
                const float power = apart ? 0.0f : __uint_as_float(bits & 0xff800000u);
                const float rest = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
                const float zero = -(1024.0f + V::ZERO) * power;
                note(stage, RESTS, b, line) = rest;
                if constexpr (V::OFFSET)
                    note_offset(stage, b, line, apart ? 0.0f : __fdividef(from_half((ushort)(scaling >> 16)), rest));
                any = any || apart;
                const uint by = pack<TYPE>(power, power), plus = pack<TYPE>(zero, zero);
                UNROLL
                for (int i = 0; i < 4; i++) {
                    uint of[2], x[4];
                    codes_of_chunk<V>(in, i, of);
                    scaled_by<V>(of[0], by, plus, x);
                    scaled_by<V>(of[1], by, plus, x + 2);
                    store_shared(to ^ i * 16, make_uint4(x[0], x[1], x[2], x[3]));
                }
            }
        }
        return any;
    }

    /* A word's numbers times a power of two; `plus` is minus what that times the code of 0 is. */
    template <typename F>
    static __device__ void scaled_by(uint codes, uint by, uint plus, uint to[2])
    {
        if constexpr (TYPE == TYPE_F16) {
            raise<TYPE, F>(codes, to);
            UNROLL
            for (int i = 0; i < 2; i++)
                to[i] = multiply_add2(to[i], by, plus);
        } else {
            operands_of<TYPE, F>(codes, to);
            UNROLL
            for (int i = 0; i < 2; i++)
                to[i] = multiply2<TYPE>(to[i], by);
        }
    }

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

    /* The weights w of step n of 16 keys, times values, a block's scales at a time. */
    __device__ void multiply_weighted(int stage, int first, int n, const float w[TILES][2][4])
    {
        const uint at = at_v + tiles::stage_k(stage) + (first + 16 * n) * LINE;
        uint values[2][4], columns[2];
        load_transposed(values[0], at);
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            const float2 low = pair_of(stage, RESTS, b, first, 2 * n), high = pair_of(stage, RESTS, b, first, 2 * n + 1);
            uint weights[TILES][products::WORDS];
            UNROLL
            for (int t = 0; t < TILES; t++) {
                UNROLL
                for (int i = 0; i < products::WORDS; i++) {
                    const float2 by = i < 2 ? low : high;
                    weights[t][i] = pack<TYPE>(w[t][i / 2][i % 2 * 2] * by.x, w[t][i / 2][i % 2 * 2 + 1] * by.y);
                }
            }
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

    /* The same as tensor.cuh's, but that it decodes the next block's keys. `apart`: the stage of v leaves out some. */
    template <bool PLAIN>
    __device__ void take_tile(int stage, int first, int key, int key_end, bool cut, bool apart, int next)
    {
        float sc[TILES][PARTS_KV][4];
        tiles::clear(sc);
        if constexpr (BARE_K)
            products::multiply_qk(at_q, at_k + tiles::stage_k(stage) + first * LINE, q, sc);
        else
            multiply_scaled(stage, first, sc);
        if (!PLAIN_K && first == 0 && next < s.key_end) {
            decode_k(stage ^ 1);
            fetch<true>(stage ^ 1, next);
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
            uint weights[TILES][products::WORDS], values[2][4];
            const uint at = at_v + tiles::stage_k(stage) + (first + 16 * n) * LINE;
            if constexpr (BARE_V)
                products::load_first(at, values);
            UNROLL
            for (int t = 0; t < TILES; t++)
                tiles::weigh(sc, n, t, w[t]);
            if (BARE_V || (!PLAIN && apart)) {
                UNROLL
                for (int t = 0; t < TILES; t++)
                    products::pack_weights(lane, w[t], weights[t]);
            }
            if constexpr (BARE_V)
                products::multiply_pv(at, values, weights, out);
            else
                multiply_weighted(stage, first, n, w);
            if (!PLAIN && apart)
                add_apart(key + 16 * n, key_end, weights);
        }
    }

    template <bool PLAIN>
    __device__ void take_block(int stage, int key, int key_end, bool cut, bool apart, int next)
    {
        if constexpr (BARE_V)
            apart = !PLAIN && (cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP))) && tiles::clear_nonfinite(stage);
        ROLLED
        for (int first = 0; first < BLOCK_KV; first += TILE_KV) {
            if (PLAIN || key + first < key_end)
                take_tile<PLAIN>(stage, first, key + first, key_end, cut, apart, next);
        }
    }

    /* The next block's keys are on their way when a block begins; plain ones from then on, when their stage is free. */
    __device__ void run()
    {
        int key = fa_walk_next(s.walk, s.key_begin, BLOCK_KV), next = key, stage = 0;
        typename held_rows<TILES, tiles::HELD>::vectors::room room_q;
        bool apart = false;
        q.rows.use(room_q);
        tiles::leave_notes();
        tiles::load_q();
        if constexpr (K::OFFSET)
            sum_q();
        tiles::start();
        if (key < s.key_end) {
            fetch<false>(0, key);
            decode_k(0);
            fetch<true>(0, key);
            apart = decode_v(0);
            next = fa_walk_next(s.walk, key + BLOCK_KV, BLOCK_KV);
            if constexpr (!PLAIN_K)
                copy_codes<false>(next);
        }
        ROLLED
        while (key < s.key_end) {
            const int key_end = FA_MIN(key + BLOCK_KV, s.key_end);
            const bool cut = s.is_cut(key, key_end);
            if constexpr (BARE_V)
                __syncthreads();
            else
                apart = __syncthreads_or(apart) != 0;
            if constexpr (PLAIN_K) {
                copy_plain<false>(stage ^ 1, next);
                fetch<true>(stage ^ 1, next);
            }
            if (TRANSFORMS || cut || apart || key + BLOCK_KV > key_end)
                take_block<false>(stage, key, key_end, cut, apart, next);
            else
                take_block<true>(stage, key, key_end, false, false, next);
            stage ^= 1;
            key = next;
            if (key < s.key_end) {
                apart = decode_v(stage);
                next = fa_walk_next(s.walk, key + BLOCK_KV, BLOCK_KV);
                if constexpr (!PLAIN_K)
                    copy_codes<false>(next);
            }
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
