/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both products of a tile on Volta's tensor cores: m8n8k4, of which every quad pair of a warp (lanes 4 p to 4 p + 3 and
 * 16 more) makes one of its own. The four have rows 8 p to 8 p + 7 of a tile and share the columns, so that a key or a
 * value is read once for 32 rows. There is no matrix load: chunks of 16 bytes are what a lane reads, eight dims of its row
 * of q or key, two steps of four, or eight dims of its value's row, four of each of two fragments. The swizzle is by bits
 * of the row in which the eight lanes that read at once differ.
 *
 * Of sums a lane has rows l % 2 and l % 2 + 2 (of its four, by l / 16) and of each four columns the two from l & 2 on; as
 * first operands it needs row l % 4 and all columns. The lane that differs in bit 1 has the other half: one exchange
 * of two words for eight keys, in registers.
 */
#pragma once

#include "products.cuh"

/* sum += a b, four deep; b by columns (keys), or by rows (values). */
template <bool BY_ROWS>
__device__ __forceinline__ void multiply_quads(float sum[2][4], uint a0, uint a1, uint b0, uint b1)
{
#if __CUDA_ARCH__ >= 700
    if constexpr (BY_ROWS)
        asm("mma.sync.aligned.m8n8k4.row.row.f32.f16.f16.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9}, {%10, %11}, "
            "{%0, %1, %2, %3, %4, %5, %6, %7};"
            : "+f"(sum[0][0]), "+f"(sum[0][1]), "+f"(sum[0][2]), "+f"(sum[0][3]), "+f"(sum[1][0]), "+f"(sum[1][1]),
              "+f"(sum[1][2]), "+f"(sum[1][3])
            : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9}, {%10, %11}, "
            "{%0, %1, %2, %3, %4, %5, %6, %7};"
            : "+f"(sum[0][0]), "+f"(sum[0][1]), "+f"(sum[0][2]), "+f"(sum[0][3]), "+f"(sum[1][0]), "+f"(sum[1][1]),
              "+f"(sum[1][2]), "+f"(sum[1][3])
            : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
#endif
}

__device__ __forceinline__ void load_chunk(uint to[4], uint at)
{
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

template <int TYPE, int TILES, int DIM, int LINE, int TILE_KV, int HELD>
struct tensor_products<70, TYPE, TILES, DIM, LINE, TILE_KV, HELD> {
    static constexpr int TILE_ROWS = 32, SPAN = 4;
    static constexpr int STEPS_QK = DIM / 8, STEPS_V = DIM / 16, STEPS_KV = TILE_KV / 8;
    static constexpr int WORDS = 8;
    static_assert(TYPE == TYPE_F16, "what the instruction multiplies");

    static __device__ int row(int lane, int half) { return lane / 4 % 4 * 8 + lane / 16 * 4 + lane % 2 + 2 * half; }
    static __device__ int key(int lane, int n, int i) { return 4 * n + (lane & 2) + i % 2; }
    static __device__ int dim(int lane, int d, int i)
    {
        return d / 4 * 16 + d % 2 * 8 + d / 2 % 2 * 4 + (lane & 2) + i % 2;
    }

    static __device__ float most(float x) { return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2)); }
    static __device__ float total(float x) { return x + __shfl_xor_sync(0xffffffffu, x, 2); }

    /* A lane's row of a quad pair's first operands, key of eight, and key of four with the half of 16 dims. */
    static __device__ int2 of_q(int lane) { return make_int2(lane / 4 % 4 * 8 + lane / 16 * 4 + lane % 4, 0); }
    static __device__ int2 of_k(int lane) { return make_int2(lane / 16 * 4 + lane % 4, 0); }
    static __device__ int2 of_v(int lane) { return make_int2(lane % 4, lane / 16); }

    static __device__ uint step_at(uint at, int d) { return at ^ d * 16; }

    static __device__ void load_rows(uint to[4], uint at, int t, int d)
    {
        load_chunk(to, step_at(at, d) + t * TILE_ROWS * LINE);
    }

    static __device__ void multiply_qk(uint at_q, uint at_k, const held_rows<TILES, HELD> &q,
                                       float sc[TILES][TILE_KV / SPAN][4])
    {
        UNROLL
        for (int d = 0; d < STEPS_QK; d++) {
            uint rows[TILES][4];
            UNROLL
            for (int t = 0; t < TILES; t++) {
                if (d < HELD)
                    q.get(t, d, rows[t]);
                else
                    load_rows(rows[t], at_q, t, d);
            }
            UNROLL
            for (int n = 0; n < STEPS_KV; n++) {
                uint keys[4];
                load_chunk(keys, (step_at(at_k, d) ^ n % 2 * 64) + n * 8 * LINE);
                UNROLL
                for (int t = 0; t < TILES; t++) {
                    multiply_quads<false>(&sc[t][2 * n], rows[t][0], rows[t][1], keys[0], keys[1]);
                    multiply_quads<false>(&sc[t][2 * n], rows[t][2], rows[t][3], keys[2], keys[3]);
                }
            }
        }
    }

    static __device__ void pack_weights(int lane, const float w[16 / SPAN][4], uint weights[WORDS])
    {
        const bool second = lane & 2;
        UNROLL
        for (int n = 0; n < 4; n++) {
            const uint first_row = pack<TYPE>(w[n][0], w[n][1]), second_row = pack<TYPE>(w[n][2], w[n][3]);
            const uint kept = second ? second_row : first_row;
            const uint got = __shfl_xor_sync(0xffffffffu, second ? first_row : second_row, 2);
            weights[2 * n] = second ? got : kept;
            weights[2 * n + 1] = second ? kept : got;
        }
    }

    static __device__ float weight_of(int lane, const uint weights[WORDS], int half, int j)
    {
        const int from = (lane & ~2) | 2 * half;
        uint word = 0;
        UNROLL
        for (int n = 0; n < WORDS; n++) {
            const uint other = __shfl_sync(0xffffffffu, weights[n], from);
            word = n == j / 2 ? other : word;
        }
        return unpack<TYPE>(word, j % 2);
    }

    static __device__ void load_first(uint at, uint values[2][4]) { load_chunk(values[0], at); }

    /* Keys four at a time; of each 16 dims the lower lanes read the first eight, the upper ones the others. */
    static __device__ void multiply_pv(uint at, uint values[2][4], const uint weights[TILES][WORDS],
                                       float out[TILES][DIM / SPAN][4])
    {
        UNROLL
        for (int i = 0; i < 4 * STEPS_V; i++) {
            const int n = i / STEPS_V, d = i % STEPS_V, next = i + 1;
            if (next < 4 * STEPS_V)
                load_chunk(values[next % 2], value_at(at, next / STEPS_V, next % STEPS_V));
            UNROLL
            for (int t = 0; t < TILES; t++) {
                const uint *const v = values[i % 2];
                multiply_quads<true>(&out[t][4 * d], weights[t][2 * n], weights[t][2 * n + 1], v[0], v[1]);
                multiply_quads<true>(&out[t][4 * d + 2], weights[t][2 * n], weights[t][2 * n + 1], v[2], v[3]);
            }
        }
    }

    /* Keys 4 n on, dims 16 d on. Rows eight apart are swizzled the other way. */
    static __device__ uint value_at(uint at, int n, int d)
    {
        return (at ^ d * 32 ^ (n & 2 ? 64 : 0)) + n * 4 * LINE;
    }
};
