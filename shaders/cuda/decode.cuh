/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of few rows on tensor cores: bound by memory, so what counts is how many bytes are on their way. Every
 * warp takes 16 keys at a time, straight from global memory into operands of its products; neither shared memory nor a
 * barrier comes in between. Keys of the next 16 are on their way while values of these are multiplied, and the other
 * way round. The products are transposed, S^T = K Q^T and O^T = V^T P^T, so that keys and dims fill the 16 rows of a
 * tile and eight query rows its columns.
 *
 * What is summed over may come in any order as long as both operands have the same one. Lane l, with g = l / 4 and
 * t = l % 4, fetches chunks of eight dims, 16 bytes: of keys g and g + 8 the chunks t, t + 4, ... as first operands of
 * S^T, whose two steps of 16 dims take words 0, 1 and 2, 3 of a chunk; and of keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 the
 * chunks g, g + 8, ... of v. Word m of those has dims 2 m and 2 m + 1 of a chunk, which become rows g and g + 8 of tile m.
 * When all keys are done, the warps' results are merged like those of split rows.
 */
#pragma once

#include "base.h"
#include "matrix.cuh"
#include "softmax.cuh"

/* An 8 by 8 matrix of narrow elements, distributed by rows over a warp, transposed. */
__device__ __forceinline__ uint transpose(uint word)
{
#if __CUDA_ARCH__ >= 750
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(word));
#endif
    return word;
}

template <int ROW, int TYPE, int BLOCK_Q, bool TRANSFORMS>
struct decode_kernel {
    static constexpr fa_cuda_traits R = fa_cuda_table[ROW];
    static constexpr int UNIT = R.unit, DIM = R.dim_v, COLUMNS = BLOCK_Q / 8;
    static constexpr int WARP_KV = CODED ? 32 : 16; /* keys of a warp in each turn */
    static constexpr int CHUNKS_K = DIM / 32, CHUNKS_V = DIM / 64; /* of a lane, for each of its keys */
    static_assert(DIM % 64 == 0 && 2 * R.block_kv == R.group, "what the kernel is made for");

    const work &s;
    const int lane, warp;
    const float headroom; /* by how much a score may exceed its row's base, which is a score itself */
    uint4 q[COLUMNS][CHUNKS_K];
    uint4 k[2][CHUNKS_K], v[4][CHUNKS_V];
    float out[COLUMNS][CHUNKS_V][4][4]; /* of a chunk, tile m: dims 2 m and 2 m + 1 of query rows 2 t and 2 t + 1 */
    float base[COLUMNS][2], sum[COLUMNS][2];
    /* Of formats with offsets, for each block of 32 dims: the sums of those by weight, in place of v's, and of q's dims. */
    static constexpr int BLOCKS = CODED ? DIM / 32 : 1;
    float offsets[COLUMNS][BLOCKS][2], sums_q[COLUMNS][BLOCKS][2];

    __device__ decode_kernel(const work &of) : s(of), lane(threadIdx.x % 32), warp(threadIdx.x / 32), headroom(FA_BASE_HEADROOM / of.p->score.unit) {}

    /* A module of formats serves blocks of any number of warps up to fa_cuda_coded_warps(). */
    static __device__ int warps() { return CODED ? blockDim.x / 32 : R.group / 32; }
    static __device__ int block_kv() { return WARP_KV * warps(); }

    /* The first `count` of eight elements; the others are 0. */
    __device__ uint4 fetch(const uchar *at, int count) const
    {
        if (s.a.aligned)
            return count > 0 ? *(const uint4 *)at : make_uint4(0, 0, 0, 0);
        return elements(at, count);
    }

    __device__ void load_q()
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            const uchar *at = query(s, s.row_begin + 8 * n + lane / 4).q(s);
            UNROLL
            for (int c = 0; c < CHUNKS_K; c++) {
                const int dim = (4 * c + lane % 4) * 8;
                q[n][c] = fetch(at + dim * 2, s.p->dim_qk - dim);
            }
        }
    }

    __device__ void load_k(int key)
    {
        const int j[2] = {key + lane / 4, key + lane / 4 + 8};
        const uchar *at[2];
        s.rows_of<TYPE, false, 2>(j, at);
        UNROLL
        for (int i = 0; i < 2; i++) {
            UNROLL
            for (int c = 0; c < CHUNKS_K; c++) {
                const int dim = (4 * c + lane % 4) * 8;
                k[i][c] = fetch(at[i] + dim * 2, j[i] < s.key_end ? s.p->dim_qk - dim : 0);
            }
        }
    }

    /* The key of slot i of this lane's values. */
    __device__ int key_of(int key, int i) const { return key + lane % 4 * 2 + i % 2 + i / 2 * 8; }

    __device__ void load_v(int key)
    {
        const int j[4] = {key_of(key, 0), key_of(key, 1), key_of(key, 2), key_of(key, 3)};
        const uchar *at[4];
        s.rows_of<TYPE, true, 4>(j, at);
        UNROLL
        for (int i = 0; i < 4; i++) {
            UNROLL
            for (int c = 0; c < CHUNKS_V; c++) {
                const int dim = (8 * c + lane / 4) * 8;
                v[i][c] = fetch(at[i] + dim * 2, j[i] < s.key_end ? s.p->dim_v - dim : 0);
            }
        }
    }

    __device__ void multiply_qk(float sc[COLUMNS][4])
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            float odd[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            UNROLL
            for (int i = 0; i < 4; i++)
                sc[n][i] = 0.0f;
            UNROLL
            for (int c = 0; c < CHUNKS_K; c++) {
                const uint first[4] = {k[0][c].x, k[1][c].x, k[0][c].y, k[1][c].y}, of_first[2] = {q[n][c].x, q[n][c].y};
                const uint second[4] = {k[0][c].z, k[1][c].z, k[0][c].w, k[1][c].w}, of_second[2] = {q[n][c].z, q[n][c].w};
                multiply_add<UNIT, TYPE>(sc[n], first, of_first);
                multiply_add<UNIT, TYPE>(odd, second, of_second);
            }
            UNROLL
            for (int i = 0; i < 4; i++)
                sc[n][i] += odd[i];
        }
    }

    /* Element i of a column: query row 2 t + i % 2, key g + i / 2 * 8. */
    __device__ int row_of(int n, int i) const { return s.row_begin + 8 * n + lane % 4 * 2 + i % 2; }
    __device__ int key_at(int key, int i) const { return key + lane / 4 + i / 2 * 8; }

    /* The dim of row g of a tile of the output; row g + 8 has the one after it. See coded.cuh for the first two. */
    __device__ int dim_of(int c, int m) const
    {
        if (IN_NIBBLES_V)
            return (2 * c + m / 2) * 32 + m % 2 * 16 + lane / 4 * 2;
        return CODED ? (2 * c + m / 2) * 32 + lane / 4 * 4 + m % 2 * 2 : (8 * c + lane / 4) * 8 + 2 * m;
    }

    __device__ void mask_scores(int key, bool cut, float sc[COLUMNS][4])
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            UNROLL
            for (int i = 0; i < 4; i++) {
                const query at(s, row_of(n, i));
                const int j = key_at(key, i);
                if (j >= s.key_end || (cut && !at.sees(s, j)))
                    sc[n][i] = FA_NEG_INF;
                else if (TRANSFORMS)
                    sc[n][i] = fa_work_score(s, at, j, sc[n][i]);
            }
        }
    }

    /* Whether a score is too large for the base of its row. Nothing is, for a row that has seen nothing, but -inf. */
    __device__ bool exceeds(float score, float base) const { return score > base + headroom; }

    /*
     * A new base for each row whose greatest score exceeds the old one too far, with what was summed under that rescaled.
     * Rows decide alone: what the others of the warp see does not change their arithmetic.
     */
    __device__ void rescale(const float sc[COLUMNS][4])
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            UNROLL
            for (int r = 0; r < 2; r++) {
                float most = fmaxf(sc[n][r], sc[n][2 + r]);
                UNROLL
                for (int bit = 4; bit < 32; bit *= 2)
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, bit));
                const float next = exceeds(most, base[n][r]) ? most : base[n][r];
                const float old = next > base[n][r] ? fa_state_weight(base[n][r], next, s.p->score.unit) : 1.0f;
                base[n][r] = next;
                sum[n][r] *= old;
                UNROLL
                for (int b = 0; OFFSETS_V && b < BLOCKS; b++)
                    offsets[n][b][r] *= old;
                UNROLL
                for (int c = 0; c < CHUNKS_V; c++) {
                    UNROLL
                    for (int m = 0; m < 4; m++) {
                        out[n][c][m][r] *= old;
                        out[n][c][m][2 + r] *= old;
                    }
                }
            }
        }
    }

    /* Whether some score is. */
    __device__ bool some_exceeds(const float sc[COLUMNS][4]) const
    {
        bool any = false;
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            UNROLL
            for (int i = 0; i < 4; i++)
                any = any || exceeds(sc[n][i], base[n][i % 2]);
        }
        return any;
    }

    /* Scores become weights. */
    __device__ void weigh(float sc[COLUMNS][4])
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            UNROLL
            for (int i = 0; i < 4; i++) {
                sc[n][i] = exp2_fast((sc[n][i] - fa_safe_max(base[n][i % 2])) * s.p->score.unit);
                sum[n][i % 2] += sc[n][i];
            }
        }
    }

    /* Weights become second operands. */
    static __device__ void pack_weights(const float sc[COLUMNS][4], uint weights[COLUMNS][2])
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            weights[n][0] = transpose(pack<TYPE>(sc[n][0], sc[n][1]));
            weights[n][1] = transpose(pack<TYPE>(sc[n][2], sc[n][3]));
        }
    }

    static __device__ uint word_of(const uint4 &x, int m) { return m == 0 ? x.x : m == 1 ? x.y : m == 2 ? x.z : x.w; }

    __device__ void multiply_pv(const uint weights[COLUMNS][2])
    {
        UNROLL
        for (int c = 0; c < CHUNKS_V; c++) {
            UNROLL
            for (int m = 0; m < 4; m++) {
                const uint a = word_of(v[0][c], m), b = word_of(v[1][c], m), e = word_of(v[2][c], m), f = word_of(v[3][c], m);
                const uint values[4] = {__byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632), __byte_perm(e, f, 0x5410),
                                        __byte_perm(e, f, 0x7632)};
                UNROLL
                for (int n = 0; n < COLUMNS; n++)
                    multiply_add<UNIT, TYPE>(out[n][c][m], values, weights[n]);
            }
        }
    }

    /* Values of 16 keys that are not finite become 0; true for all lanes where there are any. */
    __device__ bool clear_nonfinite()
    {
        bool nonfinite = false;
        UNROLL
        for (int i = 0; i < 4; i++) {
            UNROLL
            for (int c = 0; c < CHUNKS_V; c++) {
                uint *const words = &v[i][c].x;
                UNROLL
                for (int m = 0; m < 4; m++) {
                    const uint hidden = nonfinite_bits<TYPE>(words[m]);
                    nonfinite = nonfinite || hidden != 0;
                    words[m] &= ~hidden;
                }
            }
        }
        return __any_sync(0xffffffffu, nonfinite);
    }

    /* What clear_nonfinite() left out, for the rows that see it. */
    __device__ void add_nonfinite(int key, const float sc[COLUMNS][4])
    {
        ROLLED
        for (int n = 0; n < FA_MIN(16, s.key_end - key); n++) {
            const ushort *value = (const ushort *)s.value_at<TYPE>(key + n);
            UNROLL
            for (int col = 0; col < COLUMNS; col++) {
                UNROLL
                for (int r = 0; r < 2; r++) {
                    const int from = n % 8 * 4 + lane % 4;
                    const float low = __shfl_sync(0xffffffffu, sc[col][r], from);
                    const float high = __shfl_sync(0xffffffffu, sc[col][2 + r], from);
                    const float weight = n < 8 ? low : high;
                    if (!fa_work_shows(s, query(s, row_of(col, r)), key + n))
                        continue;
                    UNROLL
                    for (int c = 0; c < CHUNKS_V; c++) {
                        UNROLL
                        for (int e = 0; e < 8; e++) {
                            const int dim = (8 * c + lane / 4) * 8 + e;
                            if (dim < s.p->dim_v && is_nonfinite<TYPE>(value[dim], 0))
                                out[col][c][e / 2][e % 2 * 2 + r] += weight * unpack<TYPE>(value[dim], 0);
                        }
                    }
                }
            }
        }
    }

    __device__ void start()
    {
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            base[n][0] = base[n][1] = FA_NEG_INF;
            sum[n][0] = sum[n][1] = 0.0f;
            UNROLL
            for (int b = 0; CODED && b < BLOCKS; b++)
                offsets[n][b][0] = offsets[n][b][1] = 0.0f;
            UNROLL
            for (int c = 0; c < CHUNKS_V; c++) {
                UNROLL
                for (int i = 0; i < 16; i++)
                    out[n][c][i / 4][i % 4] = 0.0f;
            }
        }
    }

    /* Every warp leaves its results; then each takes its share of the rows and puts them together. */
    __device__ void finish(float *room)
    {
        float *const bases = room + warps() * BLOCK_Q * DIM, *const sums = bases + warps() * BLOCK_Q;
        UNROLL
        for (int n = 0; n < COLUMNS; n++) {
            UNROLL
            for (int r = 0; r < 2; r++) {
                const int row = 8 * n + lane % 4 * 2 + r;
                float total = sum[n][r];
                UNROLL
                for (int bit = 4; bit < 32; bit *= 2)
                    total += __shfl_xor_sync(0xffffffffu, total, bit);
                if (lane / 4 == 0) {
                    bases[warp * BLOCK_Q + row] = base[n][r];
                    sums[warp * BLOCK_Q + row] = total;
                }
                UNROLL
                for (int c = 0; c < CHUNKS_V; c++) {
                    float *const to = room + (warp * BLOCK_Q + row) * DIM;
                    UNROLL
                    for (int m = 0; m < 4; m++)
                        *(float2 *)(to + dim_of(c, m)) = make_float2(out[n][c][m][r], out[n][c][m][2 + r]);
                }
            }
        }
        __syncthreads();
        ROLLED
        for (int row = warp; row < FA_MIN(BLOCK_Q, s.row_end - s.row_begin); row += warps()) {
            const query at(s, s.row_begin + row);
            fa_state state = fa_state_empty();
            /* Lane w has the share of warp w. */
            const float own = lane < warps() ? bases[lane * BLOCK_Q + row] : FA_NEG_INF;
            state.max = fa_lanes_max(own, 32);
            const float share = fa_state_weight(own, state.max, s.p->score.unit);
            state.sum = fa_lanes_sum(lane < warps() ? share * sums[lane * BLOCK_Q + row] : 0.0f, 32);
            const target to(s, at, s.row_begin + row, state, lane == 0);
            for (int from = 0; from < s.p->dim_v; from += 128) {
                const int d = from + 4 * lane;
                float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
                for (int w = 0; w < warps(); w++) {
                    const float weight = __shfl_sync(0xffffffffu, share, w);
                    const float4 x = *(const float4 *)(room + (w * BLOCK_Q + row) * DIM + FA_MIN(d, DIM - 4));
                    total.x += weight * x.x;
                    total.y += weight * x.y;
                    total.z += weight * x.z;
                    total.w += weight * x.w;
                }
                store4(to.type, to.aligned, to.at + d * bytes_of(to.type), s.p->dim_v - d,
                       fa_normalised4(total, to.factor));
            }
        }
    }

    __device__ void run(float *room)
    {
        int block = fa_work_next(s, TRANSFORMS, s.key_begin, block_kv());
        load_q();
        start();
        if (block < s.key_end)
            load_k(block + 16 * warp);
        ROLLED
        while (block < s.key_end) {
            const int key = block + 16 * warp, end = FA_MIN(block + block_kv(), s.key_end);
            const bool cut = s.is_cut(block, end), hides = cut || (TRANSFORMS && (s.p->flags & FA_TABLE_KEEP));
            float sc[COLUMNS][4];
            uint weights[COLUMNS][2];
            load_v(key);
            multiply_qk(sc);
            block = fa_work_next(s, TRANSFORMS, block + block_kv(), block_kv());
            load_k(block + 16 * warp);
            if (TRANSFORMS || cut || key + 16 > s.key_end)
                mask_scores(key, cut, sc);
            if (__any_sync(0xffffffffu, some_exceeds(sc)))
                rescale(sc);
            weigh(sc);
            pack_weights(sc, weights);
            const bool nonfinite = hides && clear_nonfinite();
            multiply_pv(weights);
            if (nonfinite)
                add_nonfinite(key, sc);
        }
        finish(room);
    }
};

template <int ROW, int BLOCK_Q, bool TRANSFORMS>
__device__ __forceinline__ void decode_attention(const fa_cuda_args &a, float4 *room)
{
    let_merge_start();
    const work s(a, blockIdx.x);
    decode_kernel<ROW, OPERANDS, BLOCK_Q, TRANSFORMS> kernel(s);
    kernel.run((float *)room);
}
