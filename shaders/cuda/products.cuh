/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both products of a tile on tensor cores from Turing on: what tensor.cuh leaves to the unit. A warp has TILES tiles of
 * TILE_ROWS rows; sums come in fragments of four for each SPAN columns, elements 2 h and 2 h + 1 of two neighbouring
 * columns in the lane's row h of two. Lines of rows in shared memory are LINE bytes long, their chunks swizzled.
 */
#pragma once

#include "matrix.cuh"

/* The vectors of q that a thread holds: HELD steps of 16 dims of each tile. More than eight lie in the thread's memory. */
template <int TILES, int HELD>
struct held_rows {
    static constexpr int COUNT = TILES * HELD;
    typedef held<(COUNT > 0 ? COUNT : 1), (COUNT > 8)> vectors;
    vectors rows;

    __device__ __forceinline__ void get(int t, int d, uint to[4]) const
    {
        const uint4 x = rows.get(t * HELD + d);
        to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
    }
    __device__ __forceinline__ void set(int t, int d, const uint from[4])
    {
        rows.set(t * HELD + d, make_uint4(from[0], from[1], from[2], from[3]));
    }
};

template <int UNIT, int TYPE, int TILES, int DIM, int LINE, int TILE_KV, int HELD>
struct tensor_products {
    static constexpr int TILE_ROWS = 16, SPAN = 8;
    static constexpr int STEPS_QK = DIM / 16, STEPS_V = DIM / 16, STEPS_KV = TILE_KV / 16;
    static constexpr int WORDS = 4; /* weights of 16 keys, packed */

    /* Where elements are: row h of a tile, and column i of fragment n, of keys and of dims. */
    static __device__ int row(int lane, int half) { return lane / 4 + 8 * half; }
    static __device__ int key(int lane, int n, int i) { return 8 * n + 2 * (lane % 4) + i % 2; }
    static __device__ int dim(int lane, int d, int i) { return 8 * d + 2 * (lane % 4) + i % 2; }

    static __device__ float most(float x) { return fmaxf(x = fmaxf(x, other(x, 1)), other(x, 2)); }
    static __device__ float total(float x) { return (x += other(x, 1)) + other(x, 2); }
    static __device__ float other(float x, int bit) { return __shfl_xor_sync(0xffffffffu, x, bit); }

    /* Row and chunk that a lane's address is of in loads from rows of q, k and v. */
    static __device__ int2 of_q(int lane) { return make_int2(lane % 16, lane / 16); }
    static __device__ int2 of_k(int lane) { return make_int2(lane % 8 + lane / 16 * 8, lane / 8 % 2); }
    static __device__ int2 of_v(int lane) { return make_int2(lane % 16, lane / 16); }

    /*
     * The address of step d. Rows lie at multiples of their length, and chunks of further steps differ in bits that are
     * 0 in the first: an exclusive or finds them.
     */
    static __device__ uint step_at(uint at, int d) { return at ^ d * 32; }

    static __device__ void load_rows(uint to[4], uint at, int t, int d)
    {
        load_matrices(to, step_at(at, d) + t * TILE_ROWS * LINE);
    }

    /* What step d of the scores' product takes, a step before it is taken. */
    static __device__ void load_step(uint at_q, uint at_k, const held_rows<TILES, HELD> &q, int d, uint rows[TILES][4],
                                     uint keys[STEPS_KV][4])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            if (d < HELD)
                q.get(t, d, rows[t]);
            else
                load_rows(rows[t], at_q, t, d);
        }
        UNROLL
        for (int n = 0; n < STEPS_KV; n++)
            load_matrices(keys[n], step_at(at_k, d) + n * 16 * LINE);
    }

    static __device__ void multiply_qk(uint at_q, uint at_k, const held_rows<TILES, HELD> &q,
                                       float sc[TILES][TILE_KV / SPAN][4])
    {
        uint rows[2][TILES][4], keys[2][STEPS_KV][4];
        float half[TILES][TILE_KV / SPAN][4];
        load_step(at_q, at_k, q, 0, rows[0], keys[0]);
        UNROLL
        for (int d = 0; d < STEPS_QK; d++) {
            if (d + 1 < STEPS_QK)
                load_step(at_q, at_k, q, d + 1, rows[(d + 1) % 2], keys[(d + 1) % 2]);
            if (HALVES && d == STEPS_QK / 2)
                set_aside(sc, half);
            UNROLL
            for (int n = 0; n < STEPS_KV; n++) {
                UNROLL
                for (int t = 0; t < TILES; t++) {
                    multiply_add<UNIT, TYPE>(sc[t][2 * n], rows[d % 2][t], keys[d % 2][n]);
                    multiply_add<UNIT, TYPE>(sc[t][2 * n + 1], rows[d % 2][t], keys[d % 2][n] + 2);
                }
            }
        }
        if (HALVES)
            add(sc, half);
    }

    /*
     * Tensor cores cut what they add off, always towards 0: that many sums of eight in a row would lean by more than
     * rounding. Those of half the dims each do not.
     */
    static constexpr bool HALVES = UNIT == 75 && STEPS_QK > 8;

    /* Sets the sums aside and begins anew; and puts both together. */
    static __device__ void set_aside(float sc[TILES][TILE_KV / SPAN][4], float half[TILES][TILE_KV / SPAN][4])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int n = 0; n < 4 * (TILE_KV / SPAN); n++) {
                half[t][n / 4][n % 4] = sc[t][n / 4][n % 4];
                sc[t][n / 4][n % 4] = 0.0f;
            }
        }
    }

    static __device__ void add(float sc[TILES][TILE_KV / SPAN][4], const float half[TILES][TILE_KV / SPAN][4])
    {
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int n = 0; n < 4 * (TILE_KV / SPAN); n++)
                sc[t][n / 4][n % 4] += half[t][n / 4][n % 4];
        }
    }

    /* Sums of the first product are first operands of the second as they are. */
    static __device__ void pack_weights(int lane, const float w[16 / SPAN][4], uint weights[WORDS])
    {
        (void)lane;
        UNROLL
        for (int i = 0; i < WORDS; i++)
            weights[i] = pack<TYPE>(w[i / 2][i % 2 * 2], w[i / 2][i % 2 * 2 + 1]);
    }

    /* The weight of key number j of 16 in the lane's row h: of another lane of those that share the row. */
    static __device__ float weight_of(int lane, const uint weights[WORDS], int half, int j)
    {
        const int from = (lane & ~3) | j % 8 / 2;
        const uint low = __shfl_sync(0xffffffffu, weights[half], from);
        const uint high = __shfl_sync(0xffffffffu, weights[2 + half], from);
        return unpack<TYPE>(j < 8 ? low : high, j % 2);
    }

    /* The first values of 16 keys, and their part of the output. */
    static __device__ void load_first(uint at, uint values[2][4]) { load_transposed(values[0], at); }

    static __device__ void multiply_pv(uint at, uint values[2][4], const uint weights[TILES][WORDS],
                                       float out[TILES][DIM / SPAN][4])
    {
        UNROLL
        for (int d = 0; d < STEPS_V; d++) {
            if (d + 1 < STEPS_V)
                load_transposed(values[(d + 1) % 2], step_at(at, d + 1));
            UNROLL
            for (int t = 0; t < TILES; t++) {
                multiply_add<UNIT, TYPE>(out[t][2 * d], weights[t], values[d % 2]);
                multiply_add<UNIT, TYPE>(out[t][2 * d + 1], weights[t], values[d % 2] + 2);
            }
        }
    }
};
