/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decode.cuh does, where k or v is in a format of caches. Rows pass through shared memory as they are (coded_rows.cuh),
 * and become operands just before they are multiplied. FA_TYPE says which formats they are: code that chose among formats would be too long, and
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
 * becomes two operands. Of blocks in nibbles it has of those keys the dims of bytes 2 g and 2 g + 1: two from 2 g and two from
 * 16 + 2 g on.
 */
#pragma once

#include "coded_rows.cuh"
#include "scaled.cuh"

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct coded_kernel : coded_rows<ROW, TYPE, BLOCK_Q, TRANSFORMS> {
    typedef coded_rows<ROW, TYPE, BLOCK_Q, TRANSFORMS> rows;
    typedef format<FORMAT_K> K;
    typedef format<FORMAT_V> V;
    using rows::s, rows::lane, rows::warp, rows::q, rows::out, rows::offsets, rows::sums_q;
    using rows::R, rows::UNIT, rows::COLUMNS, rows::BLOCKS;
    using rows::PITCH_K, rows::PITCH_V, rows::ROWS, rows::rows_k, rows::rows_v, rows::shift_lane_k, rows::shift_lane_v;
    using rows::shift_k, rows::shift_even, rows::shift_odd;
    static constexpr int TILES = 2; /* of 16 keys */
    /* Whether scales differ by key and block, whether values are ones that need not be finite, and where scales come from. */
    static constexpr bool BY_KEY_K = SCALING_K >= FA_CUDA_SCALED_KEYS || (!K::PLAIN && !K::BARE);
    static constexpr bool BY_KEY_V = SCALING_V >= FA_CUDA_SCALED_KEYS || (!V::PLAIN && !V::BARE);
    static constexpr bool MAY_BE_NONFINITE = V::FP8 || V::PLAIN;
    static constexpr bool APART_K = SCALING_K >= FA_CUDA_SCALED_KEYS, APART_V = SCALING_V >= FA_CUDA_SCALED_KEYS;

    /* What is noted of scales: of keys g and g + 8 of a tile. */
    struct noted {
        float2 scale_k[BLOCKS][TILES][8], offset_k[BLOCKS][TILES][8], rest[BLOCKS][TILES][8], offset_v[BLOCKS][TILES][8];
        uint2 power[BLOCKS][TILES][8]; /* of keys 2 n and 2 n + 1, and behind it, what it is times the code of 0 */
    };
    static_assert(sizeof(noted) == fa_cuda_coded_notes(R) && TILES == 2, "there is room for it");

    noted *const notes; /* behind this warp's rows */
    struct fetched {
        uint scale[BLOCKS], zero[BLOCKS];
    } fetched_k, fetched_v; /* scales of this lane's key, where they are tensors of their own */
    float scale_k;          /* of all keys, if they have but one                              */

    __device__ coded_kernel(const work &of, uchar *room)
        : rows(of, room + threadIdx.x / 32 * (ROWS + sizeof(noted))), notes((noted *)(rows_k + ROWS))
    {
    }

    /* A row of q, the lane's four dims of each half of a block. All are on their way before the first is used. */
    __device__ void fetch_q(const uchar *at, uint2 to[2 * BLOCKS]) const
    {
        const int dim = lane % 4 * 4;
        if (s.a.aligned) {
            UNROLL
            for (int i = 0; i < 2 * BLOCKS; i++)
                to[i] = dim + 16 * i < s.p->dim_qk ? *(const uint2 *)(at + (dim + 16 * i) * 2) : make_uint2(0, 0);
            return;
        }
        UNROLL
        for (int i = 0; i < 2 * BLOCKS; i++) {
            const uint4 x = elements(at + (dim + 16 * i) * 2, FA_MIN(s.p->dim_qk - dim - 16 * i, 4));
            to[i] = make_uint2(x.x, x.y);
        }
    }

    /* Four dims in the order that operands of k have them. */
    static __device__ uint2 order_q(uint2 x)
    {
        const bool in_pairs = K::FP8 || K::PLAIN;
        return make_uint2(__byte_perm(x.x, x.y, in_pairs ? 0x3210 : 0x5410), __byte_perm(x.x, x.y, in_pairs ? 0x7654 : 0x7632));
    }

    static __device__ float sum_of(uint word) { return unpack<TYPE>(word, 0) + unpack<TYPE>(word, 1); }

    __device__ void load_q()
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            uint2 row[2 * BLOCKS];
            fetch_q(query(s, s.row_begin + 8 * n + lane / 4).q(s), row);
            UNROLL
            for (int b = 0; b < BLOCKS; b++) {
                const uint2 low = order_q(row[2 * b]), high = order_q(row[2 * b + 1]);
                q[n][b] = make_uint4(low.x, low.y, high.x, high.y);
                const float sum = fa_lanes_sum(sum_of(low.x) + sum_of(low.y) + sum_of(high.x) + sum_of(high.y), 4);
                UNROLL
                for (int r = 0; OFFSETS_K && r < 2; r++)
                    sums_q[n][b][r] = __shfl_sync(0xffffffffu, sum, (lane % 4 * 2 + r) * 4);
            }
        }
    }

    /* This warp's 32 rows of a block. Those that were there are done with. */
    template <bool OF_V>
    __device__ void copy_block(int block)
    {
        const int key = block + 32 * warp;
        __syncwarp();
        if (block < s.key_end && s.in_pages())
            rows::template copy<OF_V, true>(s.template row_in<TYPE_ANY, OF_V>(s.place_of(key + lane)), key);
        else if (block < s.key_end)
            rows::template copy<OF_V, false>(NULL, key);
        if constexpr (OF_V ? APART_V : APART_K) {
            if (block < s.key_end)
                fetch_scales<OF_V>(key, OF_V ? fetched_v : fetched_k);
        }
        commit_copies();
    }

    /* The scales of this lane's key, of those from `key` on. */
    template <bool OF_V>
    __device__ void fetch_scales(int key, fetched &to) const
    {
        const fa_scales &of = OF_V ? s.p->v_scales : s.p->k_scales;
        const scaled_row row = scales_of<OF_V>(s, FA_MIN(key + lane, s.key_end - 1));
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            const int group = FA_GROUP_OF(32 * b, of.dims, of.dims_shift);
            const bool exists = 32 * b < (OF_V ? s.p->dim_v : s.p->dim_qk);
            to.scale[b] = to.zero[b] = exists && !row.scale ? 0xffffffffu : 0;
            if (exists && row.scale)
                to.scale[b] = scale_bits(of.scale_type, row.scale + group * of.scale_stride[3] * scale_bytes(of.scale_type));
            if (exists && row.scale && of.zero_type >= 0)
                to.zero[b] = scale_bits(of.zero_type, row.zero + group * of.zero_stride[3] * scale_bytes(of.zero_type));
        }
    }

    /* How operands of block b of this lane's key, whose row that is, become elements. */
    template <bool OF_V>
    __device__ fa_scaling scaling_of(const uchar *row, int b) const
    {
        typedef format<OF_V ? FORMAT_V : FORMAT_K> F;
        fa_scaling by;
        if constexpr (OF_V ? APART_V : APART_K) {
            const fa_scales &of = OF_V ? s.p->v_scales : s.p->k_scales;
            const fetched &from = OF_V ? fetched_v : fetched_k;
            by.scale = scale_number(of.scale_type, from.scale[b]) * of.factor;
            by.offset = of.zero_type >= 0 ? scale_number(of.zero_type, from.zero[b]) : 0.0f;
            by.offset = fmaf(F::CENTRE, by.scale, by.offset);
            by.scale *= F::UNIT;
        } else {
            by.scale = float_at(row + b * F::BLOCK);
            by.offset = F::OFFSET ? float_at(row + b * F::BLOCK + 2) : 0.0f;
        }
        return by;
    }

    /* The scale of all elements that the item has. */
    template <bool OF_V>
    __device__ float whole_scale() const
    {
        const fa_scales &of = OF_V ? s.p->v_scales : s.p->k_scales;
        fa_key_place first;
        first.page = s.in_pages() ? 0 : s.sequence.number; /* all pages have the same */
        first.within = 0;
        const scaled_row row =
            scaled_row_of(of, OF_V ? s.a.v_scale : s.a.k_scale, OF_V ? s.a.v_zero : s.a.k_zero, first, s.head_kv);
        return scale_at(of.scale_type, row.scale) * of.factor * format<OF_V ? FORMAT_V : FORMAT_K>::UNIT;
    }

    /* The lane's key of those that are noted in such a list. */
    __device__ float &mine(float2 notes[TILES][8]) const
    {
        return ((float *)notes)[lane / 16 * 16 + lane % 8 * 2 + lane / 8 % 2];
    }

    /* Of every block of k, for each key: scale, and offset. All are loaded before the first is noted, which nothing overtakes. */
    __device__ void note_scales_k()
    {
        fa_scaling by[BLOCKS];
        UNROLL
        for (int b = 0; b < BLOCKS; b++)
            by[b] = scaling_of<false>(rows_k + lane * PITCH_K + shift_lane_k, b);
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            mine(notes->scale_k[b]) = nan_unless_finite(by[b].scale);
            if constexpr (OFFSETS_K)
                mine(notes->offset_k[b]) = nan_unless_finite(by[b].offset);
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
        fa_scaling by[BLOCKS];
        UNROLL
        for (int b = 0; b < BLOCKS; b++)
            by[b] = scaling_of<true>(rows_v + lane * PITCH_V + shift_lane_v, b);
        UNROLL
        for (int b = 0; b < BLOCKS; b++) {
            const bool apart = is_apart<TYPE, V>(by[b]);
            const uint bits = __float_as_uint(by[b].scale);
            const float power = apart ? 0.0f : __uint_as_float(bits & 0xff800000u);
            const float rest = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
            ushort *const powers = (ushort *)&notes->power[b][lane / 16][lane % 16 / 2] + lane % 2;
            powers[0] = (ushort)pack<TYPE>(power, 0.0f);
            if constexpr (TYPE == TYPE_F16)
                powers[2] = (ushort)pack<TYPE>(-(1024.0f + V::ZERO) * power, 0.0f);
            mine(notes->rest[b]) = rest;
            if constexpr (OFFSETS_V)
                mine(notes->offset_v[b]) = apart ? 0.0f : __fdividef(by[b].offset, rest);
            any = any || apart;
        }
        __syncwarp();
        return __any_sync(0xffffffffu, any);
    }

    /* The numbers of elements e to e + 3 of a block and of those 16 further on. */
    template <typename F>
    static __device__ void keys_of(const uchar *row, int b, uint e, uint to[2][2])
    {
        if constexpr (F::PLAIN) {
            UNROLL
            for (int h = 0; h < 2; h++) {
                const uint2 x = *(const uint2 *)(row + b * F::BLOCK + 2 * e + 32 * h);
                to[h][0] = x.x;
                to[h][1] = x.y;
            }
        } else if constexpr (F::BARE) {
            UNROLL
            for (int h = 0; h < 2; h++)
                operands_of<TYPE, F>(bare_codes<F>(row, b, e + 16 * h), to[h]);
        } else if constexpr (TYPE == TYPE_F16 && F::NIBBLES && F::FIFTH == 0 && F::TYPE_OF != FA_TYPE_IQ4_NL) {
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
        const uchar *const first = rows_k + g * PITCH_K + shift_k;
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
                    keys_of<K>(first + (16 * tile + 8 * i) * PITCH_K, b, 4 * t, numbers[i]);
                const float2 scale = notes->scale_k[b][tile][g], offset = notes->offset_k[b][tile][g];
                UNROLL
                for (int n = 0; n < COLUMNS; n++) {
                    const uint words[4] = {q[n][b].x, q[n][b].y, q[n][b].z, q[n][b].w};
                    float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                    float *const to = BY_KEY_K ? part : b % 2 ? more[tile][n] : sc[tile][n];
                    UNROLL
                    for (int h = 0; h < 2; h++) {
                        const uint keys[4] = {numbers[0][h][0], numbers[1][h][0], numbers[0][h][1], numbers[1][h][1]};
                        multiply_add<UNIT, TYPE>(to, keys, words + 2 * h);
                    }
                    UNROLL
                    for (int i = 0; BY_KEY_K && i < 4; i++) {
                        sc[tile][n][i] += part[i] * (i < 2 ? scale.x : scale.y);
                        if constexpr (OFFSETS_K)
                            sc[tile][n][i] += (i < 2 ? offset.x : offset.y) * sums_q[n][b][i % 2];
                    }
                }
            }
        }
        UNROLL
        for (int i = 0; !BY_KEY_K && i < 4 * COLUMNS * TILES; i++) {
            float &x = sc[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4];
            x += more[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4];
            if constexpr (SCALING_K == FA_CUDA_SCALED_WHOLE)
                x *= scale_k;
        }
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
            for (int r = 0; OFFSETS_V && r < 2; r++)
                offsets[n][b][r] += unpack<TYPE>(both, r) * (i % 2 ? parts.y : parts.x);
        }
    }

    /* Codes of this lane's elements e to e + 3 of a block of v. */
    static __device__ uint value_codes(const uchar *row, int b, uint e)
    {
        if constexpr (V::BARE)
            return bare_codes<V>(row, b, e);
        return word_at(row, b * V::BLOCK + V::CODES, e);
    }

    /* The numbers of a word's codes of v, which are of keys 2 t and 2 t + 1, or 8 more each, times their power of two. */
    __device__ void values_of(int b, int tile, int half, uint codes, uint to[2])
    {
        const uint2 by = notes->power[b][tile][lane % 4 + half * 4];
        if constexpr (!BY_KEY_V) {
            operands_of<TYPE, V>(codes, to);
        } else if constexpr (TYPE == TYPE_F16 && !V::FP8) {
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

    /* The numbers of the lane's two bytes in a block of two rows, times their power of two: of lower nibbles, then of upper. */
    __device__ void nibbles_of(const uchar *even, const uchar *odd, int b, int tile, int half, uint to[2][2])
    {
        const uint e = lane / 4 * 2;
        const int at = b * V::BLOCK + V::CODES + e;
        const uint codes = __byte_perm(*(const ushort *)(even + at), *(const ushort *)(odd + at), 0x5410);
        if constexpr (TYPE == TYPE_F16 && V::FIFTH == 0 && V::TYPE_OF != FA_TYPE_IQ4_NL) {
            const uint2 by = notes->power[b][tile][lane % 4 + half * 4];
            const uint plus = multiply2<TYPE>(by.x, 0xd400d400u + V::ZERO * 0x100010u);
            UNROLL
            for (int i = 0; i < 2; i++) {
                const uint pair = codes >> 8 * i;
                to[0][i] = multiply_add2(masked(pair, 0x000f000fu, 0x64006400u), by.x, by.y);
                to[1][i] = multiply_add2(masked(pair, 0x00f000f0u, 0x54005400u), by.x, plus); /* 2^6 and the code */
            }
        } else {
            uint fifth = 0;
            if constexpr (V::FIFTH > 0)
                fifth = (fifths_of<V>(even, b, e) & 0x00030003u) | (fifths_of<V>(odd, b, e) & 0x00030003u) << 2;
            values_of(b, tile, half, codes_of<V>(codes, fifth), to[0]);
            values_of(b, tile, half, codes_of<V>(codes >> 4, fifth >> 16), to[1]);
        }
    }

    /* Elements that are not finite become 0; true where there are any. */
    static __device__ bool clear_nonfinite(uint words[4])
    {
        bool nonfinite = false;
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint hidden = nonfinite_bits<TYPE>(words[i]);
            nonfinite = nonfinite || hidden != 0;
            words[i] &= ~hidden;
        }
        return nonfinite;
    }

    /* Two words of two numbers each, with those of one place together. */
    static __device__ void pairs_of(uint first, uint second, uint to[2])
    {
        to[0] = __byte_perm(first, second, 0x5410);
        to[1] = __byte_perm(first, second, 0x7632);
    }

    /* True where it has left out elements that are not finite. */
    template <bool HIDES>
    __device__ bool multiply_pv(const float sc[TILES][COLUMNS][4])
    {
        const uint e = lane / 4 * 4;
        const uchar *const even = rows_v + lane % 4 * 2 * PITCH_V + shift_even;
        const uchar *const odd = rows_v + (lane % 4 * 2 + 1) * PITCH_V + shift_odd;
        uint weights[TILES][COLUMNS][2];
        bool nonfinite = false;
        UNROLL
        for (int tile = 0; !BY_KEY_V && tile < TILES; tile++)
            rows::pack_weights(sc[tile], weights[tile]);
        UNROLL
        for (int i = 0; i < TILES * BLOCKS; i++) {
            const int b = i / TILES, tile = i % TILES;
            uint numbers[2][2][2]; /* of two keys and two others, dims 0 and 1, then 2 and 3 */
            UNROLL
            for (int h = 0; h < 2; h++) {
                const int apart = (16 * tile + 8 * h) * PITCH_V;
                if constexpr (V::PLAIN) {
                    const uint2 first = *(const uint2 *)(even + apart + b * V::BLOCK + 2 * e);
                    const uint2 second = *(const uint2 *)(odd + apart + b * V::BLOCK + 2 * e);
                    pairs_of(first.x, second.x, numbers[h][0]);
                    pairs_of(first.y, second.y, numbers[h][1]);
                } else if constexpr (IN_NIBBLES_V) {
                    nibbles_of(even + apart, odd + apart, b, tile, h, numbers[h]);
                } else {
                    const uint first = value_codes(even + apart, b, e), second = value_codes(odd + apart, b, e);
                    values_of(b, tile, h, __byte_perm(first, second, V::FP8 ? 0x5140 : 0x5410), numbers[h][0]);
                    values_of(b, tile, h, __byte_perm(first, second, V::FP8 ? 0x7362 : 0x7632), numbers[h][1]);
                }
            }
            if constexpr (BY_KEY_V)
                scale_weights(sc[tile], b, tile, weights[tile]);
            UNROLL
            for (int m = 0; m < 2; m++) {
                uint values[4] = {numbers[0][m][0], numbers[0][m][1], numbers[1][m][0], numbers[1][m][1]};
                if (MAY_BE_NONFINITE && HIDES)
                    nonfinite = clear_nonfinite(values) || nonfinite;
                UNROLL
                for (int n = 0; n < COLUMNS; n++)
                    multiply_add<UNIT, TYPE>(out[n][b / 2][b % 2 * 2 + m], values, weights[tile][n]);
            }
        }
        return MAY_BE_NONFINITE && HIDES && __any_sync(0xffffffffu, nonfinite);
    }

    /* Elements e to e + 3 of block b of a value; 0 unless some may have been left out. Whether all have been is `apart`. */
    __device__ float4 value_apart(const uchar *row, int key, int b, uint e, bool &apart) const
    {
        constexpr int KIND = V::FP8 ? KIND_FP8 : KIND_BLOCKS;
        const uchar *const block = row + b * V::BLOCK;
        if constexpr (V::PLAIN) {
            const uint2 x = *(const uint2 *)(block + 2 * e);
            return widen4(TYPE, make_uint4(x.x, x.y, 0, 0));
        } else if constexpr (APART_V) {
            const scaled_row scales = scales_of<true>(s, key);
            fa_scaling by = {__uint_as_float(0x7fc00000u), 0.0f};
            if (scales.scale && 32 * b < s.p->dim_v)
                by = scaling_at(s.p->v_scales, scales, 32 * b);
            by.offset = fmaf(V::CENTRE, by.scale, by.offset);
            by.scale *= V::UNIT;
            apart = is_apart<TYPE, V>(by);
            return scaled_four(s.p->v_scales, V::TYPE_OF, block + e * V::BITS / 8 - e % 8 * V::BITS / 8, scales, 32 * b + e);
        } else {
            apart = !V::BARE && is_apart<TYPE, V>(scaling_of<true>(row, b));
            return widen4_of<KIND>(V::TYPE_OF, s.a.in_v, fetch4_coded<KIND>(s.a.in_v, block, e, V::FP8 || apart), e);
        }
    }

    /* The same of the lane's four dims. */
    __device__ float4 four_apart(const uchar *row, int key, int b, bool &apart) const
    {
        if constexpr (IN_NIBBLES_V) {
            const uint e = lane / 8 * 4;
            const float4 low = value_apart(row, key, b, e, apart), high = value_apart(row, key, b, 16 + e, apart);
            return lane / 4 % 2 ? make_float4(low.z, low.w, high.z, high.w) : make_float4(low.x, low.y, high.x, high.y);
        }
        return value_apart(row, key, b, lane / 4 * 4, apart);
    }

    /* What multiply_pv() has left out, for the rows that see it. */
    __device__ void add_apart(int key, const float sc[TILES][COLUMNS][4])
    {
        ROLLED
        for (int n = 0; n < FA_MIN(32, s.key_end - key); n++) {
            const uchar *const row = this->template row<true>(n);
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
                bool apart = false;
                const float4 four = four_apart(row, key + n, b, apart);
                const float x[4] = {four.x, four.y, four.z, four.w};
                UNROLL
                for (int i = 0; i < 8 * COLUMNS; i++) {
                    const int col = i / 8, d = i / 2 % 4, r = i % 2;
                    if (shown[col][r] && (apart || (MAY_BE_NONFINITE && !fa_is_finite(x[d]))))
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

    /* By the scale that all values have. */
    __device__ void scale_output()
    {
        const float scale = whole_scale<true>();
        UNROLL
        for (int i = 0; i < COLUMNS * BLOCKS * 8; i++)
            out[i / 8 / BLOCKS][i / 8 % BLOCKS / 2][i / 8 % 2 * 2 + i / 4 % 2][i % 4] *= scale;
    }

    /* Scores become weights. */
    __device__ void weigh(int key, bool cut, float sc[TILES][COLUMNS][4])
    {
        float most[COLUMNS][4]; /* of the tiles' scores in one place */
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            if (TRANSFORMS || cut || key + 16 * (tile + 1) > s.key_end)
                rows::mask_scores(key + 16 * tile, cut, sc[tile]);
            UNROLL
            for (int i = 0; i < 4 * COLUMNS; i++)
                most[i / 4][i % 4] = tile == 0 ? sc[0][i / 4][i % 4] : fmaxf(most[i / 4][i % 4], sc[tile][i / 4][i % 4]);
        }
        if (__any_sync(0xffffffffu, rows::some_exceeds(most)))
            rows::rescale(most);
        UNROLL
        for (int tile = 0; tile < TILES; tile++)
            rows::weigh(sc[tile]);
    }

    __device__ void take_values(int key, bool hides, const float sc[TILES][COLUMNS][4])
    {
        bool apart = false;
        if constexpr (BY_KEY_V)
            apart = note_scales_v();
        if (MAY_BE_NONFINITE && hides)
            apart = multiply_pv<true>(sc) || apart;
        else
            multiply_pv<false>(sc);
        if (apart)
            add_apart(key, sc);
    }

    /*
     * Keys of the next block are on their way from where scores have been made on, its values from where these are added. The
     * first turn has no block: q is loaded while the first rows come.
     */
    __device__ void run(float *room)
    {
        int block = s.key_end, next = fa_work_next(s, TRANSFORMS, s.key_begin, rows::block_kv());
        if constexpr (SCALING_K == FA_CUDA_SCALED_WHOLE)
            scale_k = whole_scale<false>();
        rows::clear_rows();
        rows::start();
        ROLLED
        do {
            const int key = block + 32 * warp, end = FA_MIN(block + rows::block_kv(), s.key_end);
            const bool any = block < s.key_end, cut = any && s.is_cut(block, end);
            float sc[TILES][COLUMNS][4];
            if (any) {
                wait_copies<1>();
                __syncwarp();
                if constexpr (BY_KEY_K)
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
            if (!any)
                load_q();
            block = next;
            next = fa_work_next(s, TRANSFORMS, block + rows::block_kv(), rows::block_kv());
        } while (block < s.key_end);
        if constexpr (OFFSETS_V)
            add_offsets();
        if constexpr (SCALING_V == FA_CUDA_SCALED_WHOLE)
            scale_output();
        wait_copies<0>();
        __syncthreads(); /* before results take the rows' place */
        rows::finish(room);
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void coded_attention(const fa_cuda_args &a, float4 *room)
{
    let_merge_start();
    const work s(a, blockIdx.x);
    coded_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s, (uchar *)room);
    kernel.run((float *)room);
}
