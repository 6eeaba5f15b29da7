/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decode.cuh does, where k and v are in formats of caches. Rows of codes pass through shared memory as they are, by
 * copies that nothing waits for; each warp has room of its own, for 32 keys and their values. They become operands just
 * before they are multiplied. FA_TYPE says which formats they are: code that chose among formats would be too long, and
 * too full of branches, to hide what it waits for.
 *
 * Operands are the numbers that codes stand for, which f16 and bf16 hold exactly; what scales a block of 32 dims is applied
 * where it costs no rounding. A score is the sum over blocks of a product with bare numbers, times the scale, in f32. Of
 * a value's scale, which depends on the key that is summed over, the power of two multiplies the operand, which is exact,
 * and the rest, in [1, 2), the key's weight before that is rounded. So only weights are rounded, once, as for plain values.
 * A scale whose values may leave f16's range, or that is no number, is 0 there, and its values are added one by one. An
 * offset, like a dim that is 1 in every key, is a sum of its own.
 *
 * Lane l, with g = l / 4 and t = l % 4, has of a block's dims in keys g and g + 8 those from 4 t and from 16 + 4 t on, for the
 * scores, and in keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 those from 4 g on, of each 16 keys. Four codes are a word, which
 * becomes two operands.
 */
#pragma once

#include "decode.cuh"
#include "numbers.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct coded_kernel : decode_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef decode_kernel<ROW, TYPE, BLOCK_Q, TRANSFORMS> rows;
    typedef format<FORMAT_K> K;
    typedef format<FORMAT_V> V;
    using rows::s, rows::lane, rows::warp, rows::q, rows::out, rows::offsets, rows::sums_q;
    using rows::R, rows::UNIT, rows::BLOCK_KV, rows::COLUMNS, rows::BLOCKS;
    static constexpr int PITCH = fa_cuda_coded_pitch(R), ROWS = fa_cuda_coded_rows(R), LANES = 8; /* that copy a row */
    static constexpr int TILES = 2; /* of 16 keys */

    /* What is noted of scales: of keys g and g + 8 of a tile. */
    struct noted {
        float2 scale_k[BLOCKS][TILES][8], offset_k[BLOCKS][TILES][8], rest[BLOCKS][TILES][8], offset_v[BLOCKS][TILES][8];
        uint2 power[BLOCKS][TILES][8]; /* of keys 2 n and 2 n + 1, and behind it, what it is times the code of 0 */
    };
    static_assert(sizeof(noted) == fa_cuda_coded_notes(R) && TILES == 2, "there is room for it");

    const uchar *const rows_k, *const rows_v; /* this warp's, in shared memory */
    noted *const notes;                       /* behind them */

    __device__ coded_kernel(const work &of, uchar *room)
        : rows(of), rows_k(room + threadIdx.x / 32 * (ROWS + sizeof(noted))), rows_v(rows_k + ROWS / 2),
          notes((noted *)(rows_k + ROWS))
    {
    }

    /* Four dims from `dim` on, in the order that operands of k have them. */
    __device__ uint2 fetch_q(const uchar *at, int dim) const
    {
        const bool in_pairs = K::FP8;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (!s.a.aligned) {
            x = elements(at + dim * 2, FA_MIN(s.p->dim_qk - dim, 4));
        } else if (dim < s.p->dim_qk) {
            const uint2 both = *(const uint2 *)(at + dim * 2);
            x.x = both.x;
            x.y = both.y;
        }
        return make_uint2(__byte_perm(x.x, x.y, in_pairs ? 0x3210 : 0x5410), __byte_perm(x.x, x.y, in_pairs ? 0x7654 : 0x7632));
    }

    static __device__ float sum_of(uint word) { return unpack<TYPE>(word, 0) + unpack<TYPE>(word, 1); }

    __device__ void load_q()
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            const uchar *at = query(s, s.row_begin + 8 * n + lane / 4).q(s);
            UNROLL
            for (int b = 0; b < BLOCKS; b++) {
                const int dim = 32 * b + lane % 4 * 4;
                const uint2 low = fetch_q(at, dim), high = fetch_q(at, dim + 16);
                q[n][b] = make_uint4(low.x, low.y, high.x, high.y);
                const float sum = lanes_sum<4>(sum_of(low.x) + sum_of(low.y) + sum_of(high.x) + sum_of(high.y));
                UNROLL
                for (int r = 0; K::OFFSET && r < 2; r++)
                    sums_q[n][b][r] = __shfl_sync(0xffffffffu, sum, (lane % 4 * 2 + r) * 4);
            }
        }
    }

    /* Where the row of a key begins. In pages, each lane has looked up one. */
    template <bool OF_V>
    __device__ const uchar *row_at(const uchar *looked_up, int key, int i) const
    {
        if (s.in_pages())
            return (const uchar *)__shfl_sync(0xffffffffu, (unsigned long long)looked_up, i);
        return (OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>()).row_at(key + i);
    }

    /* Rows of 32 keys that are whole and aligned to so many bytes. */
    template <bool OF_V, int BYTES, bool IN_PAGES>
    __device__ void copy_whole(const uchar *looked_up, int key, int bytes)
    {
        constexpr int APART = 32 / LANES, TURN = LANES * BYTES, TURNS = ceil_div(BLOCKS * 34, TURN);
        const int line = lane / LANES, from = lane % LANES * BYTES;
        const uint to = pin(shared_address(OF_V ? rows_v : rows_k) + line * PITCH + from);
        const fa_long step = (OF_V ? s.template values<TYPE_ANY>() : s.template keys<TYPE_ANY>()).step * APART;
        const uchar *at = IN_PAGES ? looked_up : row_at<OF_V>(looked_up, key, line) + from;
        UNROLL
        for (int i = 0; i < LANES; i++) {
            if (IN_PAGES)
                at = row_at<OF_V>(looked_up, key, line + i * APART) + from;
            UNROLL
            for (int turn = 0; turn < TURNS; turn++) {
                if (turn * TURN + from < bytes)
                    copy_bytes<BYTES>(to + i * APART * PITCH + turn * TURN, at + turn * TURN, BYTES);
            }
            if (!IN_PAGES)
                at += step;
        }
    }

    /* Any other; rows past the end are 0, as all is that no row has. */
    template <bool OF_V, int BYTES>
    __device__ void copy_some(const uchar *looked_up, int key, int bytes)
    {
        const int line = lane / LANES;
        const uint to = shared_address(OF_V ? rows_v : rows_k) + line * PITCH;
        ROLLED
        for (int i = 0; i < 32; i += 32 / LANES) {
            const uchar *const at = row_at<OF_V>(looked_up, key, line + i);
            const int exist = key + line + i < s.key_end ? bytes : 0;
            ROLLED
            for (int from = lane % LANES * BYTES; from < bytes; from += LANES * BYTES)
                copy_bytes<BYTES>(to + i * PITCH + from, at + from, FA_MAX(FA_MIN(BYTES, exist - from), 0));
        }
    }

    template <bool OF_V, bool IN_PAGES>
    __device__ void copy(const uchar *looked_up, int key)
    {
        const int aligned = OF_V ? s.a.aligned_v : s.a.aligned_k;
        const int bytes = FA_TYPE_SPAN(OF_V ? FORMAT_V : FORMAT_K, OF_V ? s.p->dim_v : s.p->dim_qk);
        const bool whole = key + 32 <= s.key_end;
        if (whole && aligned == 16 && bytes % 16 == 0)
            copy_whole<OF_V, 16, IN_PAGES>(looked_up, key, bytes);
        else if (whole && aligned >= 8 && bytes % 8 == 0)
            copy_whole<OF_V, 8, IN_PAGES>(looked_up, key, bytes);
        else if (whole && aligned >= 4 && bytes % 4 == 0)
            copy_whole<OF_V, 4, IN_PAGES>(looked_up, key, bytes);
        else if (aligned >= 4)
            copy_some<OF_V, 4>(looked_up, key, bytes);
        else
            copy_some<OF_V, 2>(looked_up, key, bytes);
    }

    /* This warp's 32 rows of a block. Those that were there are done with. */
    template <bool OF_V>
    __device__ void copy_block(int block)
    {
        const int key = block + 32 * warp;
        __syncwarp();
        if (block < s.key_end && s.in_pages())
            copy<OF_V, true>(s.template row_in<TYPE_ANY, OF_V>(s.place_of(key + lane)), key);
        else if (block < s.key_end)
            copy<OF_V, false>(NULL, key);
        commit_copies();
    }

    __device__ void clear_rows()
    {
        for (int at = 16 * lane; at < ROWS; at += 32 * 16)
            store_shared(shared_address(rows_k) + at, make_uint4(0, 0, 0, 0));
    }

    static __device__ bool is_apart(const uchar *block, bool has_offset)
    {
        const ushort *const bits = (const ushort *)block;
        return ::is_apart<TYPE>(bits[0], has_offset ? bits[1] : 0);
    }

    /* The lane's key of those that are noted in such a list. */
    __device__ float &mine(float2 notes[TILES][8]) const
    {
        return ((float *)notes)[lane / 16 * 16 + lane % 8 * 2 + lane / 8 % 2];
    }

    /* Of every block of k, for each key: scale, and offset. */
    __device__ void note_scales_k()
    {
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            const uchar *const at = rows_k + lane * PITCH + b * K::BLOCK;
            mine(notes->scale_k[b]) = nan_unless_finite(float_at(at));
            if constexpr (K::OFFSET)
                mine(notes->offset_k[b]) = nan_unless_finite(float_at(at + 2));
        }
        __syncwarp();
    }

    /*
     * Of v: the scale's power of two and what that times the code of 0 is, with its sign; the rest of the scale; and the
     * offset over that. True for all lanes where some block is apart.
     */
    __device__ bool note_scales_v()
    {
        bool any = false;
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            const uchar *const at = rows_v + lane * PITCH + b * V::BLOCK;
            const bool apart = is_apart(at, V::OFFSET);
            const uint bits = __float_as_uint(float_at(at));
            const float power = apart ? 0.0f : __uint_as_float(bits & 0xff800000u);
            const float rest = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
            ushort *const powers = (ushort *)&notes->power[b][lane / 16][lane % 16 / 2] + lane % 2;
            powers[0] = (ushort)pack<TYPE>(power, 0.0f);
            if constexpr (TYPE == TYPE_F16)
                powers[2] = (ushort)pack<TYPE>(-(1024.0f + V::ZERO) * power, 0.0f);
            mine(notes->rest[b]) = rest;
            if constexpr (V::OFFSET)
                mine(notes->offset_v[b]) = apart ? 0.0f : __fdividef(float_at(at + 2), rest);
            any = any || apart;
        }
        __syncwarp();
        return __any_sync(0xffffffffu, any);
    }

    /* The numbers of elements e to e + 3 of a block and of those 16 further on. */
    template <typename F>
    static __device__ void keys_of(const uchar *row, int b, uint e, uint to[2][2])
    {
        if constexpr (TYPE == TYPE_F16 && F::NIBBLES && F::FIFTH == 0 && F::TYPE_OF != FA_TYPE_IQ4_NL) {
            const uint codes = word_at(row, b * F::BLOCK + F::CODES, e);
            UNROLL
            for (int i = 0; i < 2; i++) {
                const uint pair = codes >> 8 * i;
                to[0][i] = subtract2<TYPE>(masked(pair, 0x000f000fu, 0x64006400u), zero_of<TYPE, F>(0, i));
                /* 2^10 and 16 times a code, times 2^-4 */
                to[1][i] = multiply_add2(masked(pair, 0x00f000f0u, 0x64006400u), 0x2c002c00u, 0xd400d400u + F::ZERO * 0x100010u);
            }
        } else {
            const uint word = word_at(row, b * F::BLOCK + F::CODES, e), fifth = fifths_of<F>(row, b, e);
            operands_of<TYPE, F>(F::NIBBLES ? codes_of<F>(word, fifth) : word, to[0]);
            operands_of<TYPE, F>(F::NIBBLES ? codes_of<F>(word >> 4, fifth >> 16) : word_at(row, b * F::BLOCK + F::CODES + 16, e),
                           to[1]);
        }
    }

    __device__ void multiply_qk(float sc[TILES][COLUMNS][4])
    {
        const int g = lane / 4, t = lane % 4;
        float more[TILES][COLUMNS][4]; /* of fp8, every second block's */
        UNROLL
        for (int i = 0; i < 4 * COLUMNS * TILES; i++)
            sc[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4] = more[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4] = 0.0f;
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            UNROLL
            for (int tile = 0; tile < TILES; tile++) {
                uint numbers[2][2][2]; /* of key, half and pair */
                UNROLL
                for (int i = 0; i < 2; i++)
                    keys_of<K>(rows_k + (16 * tile + 8 * i + g) * PITCH, b, 4 * t, numbers[i]);
                const float2 scale = notes->scale_k[b][tile][g], offset = notes->offset_k[b][tile][g];
                UNROLL
                for (int n = 0; n < COLUMNS; n++) {
                    const uint words[4] = {q[n][b].x, q[n][b].y, q[n][b].z, q[n][b].w};
                    float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                    float *const to = !K::FP8 ? part : b % 2 ? more[tile][n] : sc[tile][n];
                    UNROLL
                    for (int h = 0; h < 2; h++) {
                        const uint keys[4] = {numbers[0][h][0], numbers[1][h][0], numbers[0][h][1], numbers[1][h][1]};
                        multiply_add<UNIT, TYPE>(to, keys, words + 2 * h);
                    }
                    UNROLL
                    for (int i = 0; !K::FP8 && i < 4; i++) {
                        sc[tile][n][i] += part[i] * (i < 2 ? scale.x : scale.y);
                        if constexpr (K::OFFSET)
                            sc[tile][n][i] += (i < 2 ? offset.x : offset.y) * sums_q[n][b][i % 2];
                    }
                }
            }
        }
        UNROLL
        for (int i = 0; K::FP8 && i < 4 * COLUMNS * TILES; i++)
            sc[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4] += more[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4];
    }

    /* Weights of block b: times the rest of its scales. And what its offsets add. */
    __device__ void scale_weights(const float sc[COLUMNS][4], int b, int tile, uint weights[COLUMNS][2])
    {
        const float2 rests = notes->rest[b][tile][lane / 4], parts = notes->offset_v[b][tile][lane / 4];
        UNROLL
        for (int i = 0; i < 2 * COLUMNS; i++) {
            const int n = i / 2;
            const float rest = i % 2 ? rests.y : rests.x;
            const uint both = pack<TYPE>(sc[n][i % 2 * 2] * rest, sc[n][i % 2 * 2 + 1] * rest);
            weights[n][i % 2] = transpose(both);
            UNROLL
            for (int r = 0; V::OFFSET && r < 2; r++)
                offsets[n][b][r] += unpack<TYPE>(both, r) * (i % 2 ? parts.y : parts.x);
        }
    }

    /* Codes of this lane's elements e to e + 3 of a block of v. Nibbles from the sixteenth on lie above those before. */
    static __device__ uint value_codes(const uchar *row, int b, uint e)
    {
        const uint word = word_at(row, b * V::BLOCK + V::CODES, V::NIBBLES ? e % 16 : e);
        return V::NIBBLES ? codes_of<V>(word >> (e & 16) / 4, fifths_of<V>(row, b, e)) : word;
    }

    /* The numbers of a word's codes of v, which are of keys 2 t and 2 t + 1, or 8 more each, times their power of two. */
    __device__ void values_of(int b, int tile, int half, uint codes, uint to[2])
    {
        const uint2 by = notes->power[b][tile][lane % 4 + half * 4];
        if constexpr (V::FP8) {
            operands_of_fp8<TYPE, V>(codes, to);
        } else if constexpr (TYPE == TYPE_F16) {
            raise<TYPE, V>(codes, to);
            UNROLL
            for (int i = 0; i < 2; i++)
                to[i] = multiply_add2(to[i], by.x, by.y);
        } else {
            operands_of<TYPE, V>(codes, to);
            UNROLL
            for (int i = 0; i < 2; i++)
                to[i] = multiply2<TYPE>(to[i], by.x);
        }
    }

    /* Elements that are not finite become 0; true where there are any. */
    static __device__ bool clear_nonfinite(uint words[4])
    {
        bool nonfinite = false;
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint hidden =
                (is_nonfinite<TYPE>(words[i], 0) ? 0xffffu : 0u) | (is_nonfinite<TYPE>(words[i], 1) ? 0xffff0000u : 0u);
            nonfinite = nonfinite || hidden != 0;
            words[i] &= ~hidden;
        }
        return nonfinite;
    }

    /* True where it has left out elements that are not finite. */
    template <bool HIDES>
    __device__ bool multiply_pv(const float sc[TILES][COLUMNS][4])
    {
        const uint e = lane / 4 * 4;
        uint weights[TILES][COLUMNS][2];
        bool nonfinite = false;
        UNROLL
        for (int tile = 0; V::FP8 && tile < TILES; tile++)
            rows::pack_weights(sc[tile], weights[tile]);
        UNROLL
        for (int i = 0; i < TILES * BLOCKS; i++) {
            const int b = i / TILES, tile = i % TILES;
            uint numbers[2][2][2]; /* of two keys and two others, dims 0 and 1, then 2 and 3 */
            UNROLL
            for (int h = 0; h < 2; h++) {
                const uchar *const row = rows_v + (16 * tile + 8 * h + lane % 4 * 2) * PITCH;
                const uint first = value_codes(row, b, e), second = value_codes(row + PITCH, b, e);
                values_of(b, tile, h, __byte_perm(first, second, V::FP8 ? 0x5140 : 0x5410), numbers[h][0]);
                values_of(b, tile, h, __byte_perm(first, second, V::FP8 ? 0x7362 : 0x7632), numbers[h][1]);
            }
            if constexpr (!V::FP8)
                scale_weights(sc[tile], b, tile, weights[tile]);
            UNROLL
            for (int m = 0; m < 2; m++) {
                uint values[4] = {numbers[0][m][0], numbers[0][m][1], numbers[1][m][0], numbers[1][m][1]};
                if (V::FP8 && HIDES)
                    nonfinite = clear_nonfinite(values) || nonfinite;
                UNROLL
                for (int n = 0; n < COLUMNS; n++)
                    multiply_add<UNIT, TYPE>(out[n][b / 2][b % 2 * 2 + m], values, weights[tile][n]);
            }
        }
        return V::FP8 && HIDES && __any_sync(0xffffffffu, nonfinite);
    }

    /* What multiply_pv() has left out, for the rows that see it. */
    __device__ void add_apart(int key, const float sc[TILES][COLUMNS][4])
    {
        constexpr int KIND = V::FP8 ? KIND_FP8 : KIND_BLOCKS;
        const fa_cuda_format &in = s.a.in_v;
        ROLLED
        for (int n = 0; n < FA_MIN(32, s.key_end - key); n++) {
            const uchar *const row = rows_v + n * PITCH;
            float weight[COLUMNS][2];
            bool shown[COLUMNS][2];
            UNROLL
            for (int i = 0; i < 2 * COLUMNS; i++) {
                const int from = n % 8 * 4 + lane % 4;
                shown[i / 2][i % 2] = fa_work_shows(s, query(s, rows::row_of(i / 2, i % 2)), key + n);
                UNROLL
                for (int eight = 0; eight < 2 * TILES; eight++) {
                    const float x = __shfl_sync(0xffffffffu, sc[eight / 2][i / 2][eight % 2 * 2 + i % 2], from);
                    weight[i / 2][i % 2] = n / 8 == eight ? x : weight[i / 2][i % 2];
                }
            }
            UNROLL
            for (int b = 0; b < BLOCKS; b++) {
                const uint e = lane / 4 * 4;
                const uchar *const block = row + b * V::BLOCK;
                const bool apart = V::FP8 || is_apart(block, V::OFFSET);
                const float4 four = widen4_of<KIND>(V::TYPE_OF, in, fetch4_coded<KIND>(in, block, e, apart), e);
                const float x[4] = {four.x, four.y, four.z, four.w};
                UNROLL
                for (int i = 0; i < 8 * COLUMNS; i++) {
                    const int col = i / 8, d = i / 2 % 4, r = i % 2;
                    if (shown[col][r] && (V::FP8 ? !fa_is_finite(x[d]) : apart))
                        out[col][b / 2][b % 2 * 2 + d / 2][d % 2 * 2 + r] += weight[col][r] * x[d];
                }
            }
        }
    }

    /* Offsets are of the same dims in all lanes of a row. */
    __device__ void add_offsets()
    {
        UNROLL
        for (int i = 0; i < 2 * COLUMNS * BLOCKS; i++) {
            const int n = i / 2 / BLOCKS, b = i / 2 % BLOCKS, r = i % 2;
            float total = offsets[n][b][r];
            UNROLL
            for (int bit = 4; bit < 32; bit *= 2)
                total += __shfl_xor_sync(0xffffffffu, total, bit);
            UNROLL
            for (int m = 0; m < 4; m++)
                out[n][b / 2][b % 2 * 2 + m / 2][m % 2 * 2 + r] += total;
        }
    }

    /* Scores become weights. */
    __device__ void weigh(int key, bool cut, float sc[TILES][COLUMNS][4])
    {
        bool any = false;
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            if (TRANSFORMS || cut || key + 16 * (tile + 1) > s.key_end)
                rows::mask_scores(key + 16 * tile, cut, sc[tile]);
            any = any || rows::some_exceeds(sc[tile]);
        }
        any = __any_sync(0xffffffffu, any);
        UNROLL
        for (int tile = 0; any && tile < TILES; tile++)
            rows::rescale(sc[tile]);
        UNROLL
        for (int tile = 0; tile < TILES; tile++)
            rows::weigh(sc[tile]);
    }

    __device__ void take_values(int key, bool hides, const float sc[TILES][COLUMNS][4])
    {
        bool apart = false;
        if constexpr (!V::FP8)
            apart = note_scales_v();
        if (V::FP8 && hides)
            apart = multiply_pv<true>(sc);
        else
            multiply_pv<false>(sc);
        if (apart)
            add_apart(key, sc);
    }

    /* Keys of the next block are on their way from where scores have been made on, its values from where these are added. */
    __device__ void run(float *room)
    {
        int block = s.key_end, next = fa_work_next(s, TRANSFORMS, s.key_begin, BLOCK_KV);
        clear_rows();
        load_q();
        rows::start();
        ROLLED
        do {
            const int key = block + 32 * warp, end = FA_MIN(block + BLOCK_KV, s.key_end);
            const bool any = block < s.key_end, cut = any && s.is_cut(block, end);
            float sc[TILES][COLUMNS][4];
            if (any) {
                wait_copies<1>();
                __syncwarp();
                if constexpr (!K::FP8)
                    note_scales_k();
                multiply_qk(sc);
            }
            copy_block<false>(next);
            if (any) {
                weigh(key, cut, sc);
                wait_copies<1>();
                __syncwarp();
                take_values(key, cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP)), sc);
            }
            copy_block<true>(next);
            block = next;
            next = fa_work_next(s, TRANSFORMS, block + BLOCK_KV, BLOCK_KV);
        } while (block < s.key_end);
        if constexpr (V::OFFSET)
            add_offsets();
        wait_copies<0>();
        __syncthreads(); /* before results take the rows' place */
        rows::finish(room);
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void coded_attention(const fa_cuda_args &a, float4 *room)
{
    const work s(a, blockIdx.x);
    coded_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s, (uchar *)room);
    kernel.run((float *)room);
}
