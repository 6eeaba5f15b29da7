/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of a warpgroup, which are four warps, on Hopper's tensor cores. Second operands lie in shared memory, first
 * ones there, of scores, or in registers. Warp w of the four has rows 16 w to 16 w + 15, of operands and sums in the fragments of
 * matrix.cuh. Products run on their own: begin_products(), some of them, end_products(), and wait_products() before
 * their registers are read.
 */
#pragma once

#include "matrix.cuh"

/*
 * A matrix in shared memory as wgmma takes it: lines of 128 bytes, or 64, one after another, and so many bytes from a
 * line's columns to the next ones where lines are what is summed over. This is the lower half of it. One that begins a
 * multiple of 16 bytes further on is that multiple more.
 */
__device__ __forceinline__ uint matrix_at(uint at, uint columns_apart)
{
    return (columns_apart >> 4) << 16 | (at & 0x3ffffu) >> 4;
}

template <int LINE = 128>
__device__ __forceinline__ unsigned long long matrix_of(uint lower)
{
    static_assert(LINE == 128 || LINE == 64, "a line's chunks are swizzled as its length says");
    unsigned long long matrix;
    asm("mov.b64 %0, {%1, %2};" : "=l"(matrix) : "r"(lower), "n"((LINE == 128 ? 1u : 2u) << 30 | 8 * LINE >> 4));
    return matrix;
}

#define FA_FOUR(as, x, n) as((x)[n][0]), as((x)[n][1]), as((x)[n][2]), as((x)[n][3])
#define FA_16(as, x, n) FA_FOUR(as, x, n), FA_FOUR(as, x, n + 1), FA_FOUR(as, x, n + 2), FA_FOUR(as, x, n + 3)
#define FA_SUMS4(x, n) FA_FOUR("+f", x, n)
#define FA_SUMS32(x, n) FA_16("+f", x, n), FA_16("+f", x, n + 4)
#define FA_SUMS128(x) FA_SUMS32(x, 0), FA_SUMS32(x, 8), FA_SUMS32(x, 16), FA_SUMS32(x, 24)
#define FA_NAMES16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define FA_NAMES32 FA_NAMES16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FA_NAMES64                                                                                               \
    FA_NAMES32 ", "                                                                                              \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                           \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define FA_NAMES128                                                                                              \
    FA_NAMES64 ", "                                                                                              \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                           \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                           \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "               \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define FA_SCORES(type, sums, rows, keys)                                                                        \
    asm volatile("{.reg .pred p; setp.eq.u32 p, 0, 0; "                                                          \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" FA_NAMES32                     \
                 "}, %32, %33, p, 1, 1, 0, 0;}"                                                                  \
                 : FA_SUMS32(sums, 0)                                                                            \
                 : "l"(matrix_of(rows)), "l"(matrix_of(keys)))
#define FA_SCORES_NEW(type, sums, rows, keys)                                                                    \
    asm volatile("{.reg .pred p; setp.ne.u32 p, 0, 0; "                                                          \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" FA_NAMES32                     \
                 "}, %32, %33, p, 1, 1, 0, 0;}"                                                                  \
                 : FA_16("=f", sums, 0), FA_16("=f", sums, 4)                                                    \
                 : "l"(matrix_of(rows)), "l"(matrix_of(keys)))
#define FA_OUTPUT(type, sums, weights, values)                                                                   \
    asm volatile("{.reg .pred p; setp.eq.u32 p, 0, 0; "                                                          \
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" FA_NAMES128                   \
                 "}, {%128, %129, %130, %131}, %132, p, 1, 1, 1;}"                                               \
                 : FA_SUMS128(sums)                                                                              \
                 : "r"((weights)[0]), "r"((weights)[1]), "r"((weights)[2]), "r"((weights)[3]), "l"(matrix_of(values)))
#define FA_OUTPUT_32(type, sums, weights, values)                                                                \
    asm volatile("{.reg .pred p; setp.eq.u32 p, 0, 0; "                                                          \
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type " {" FA_NAMES16                     \
                 "}, {%16, %17, %18, %19}, %20, p, 1, 1, 1;}"                                                    \
                 : FA_16("+f", sums, 0)                                                                          \
                 : "r"((weights)[0]), "r"((weights)[1]), "r"((weights)[2]), "r"((weights)[3]), "l"(matrix_of<64>(values)))
#define FA_OUTPUT_128(type, sums, weights, values)                                                               \
    asm volatile("{.reg .pred p; setp.eq.u32 p, 0, 0; "                                                          \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" FA_NAMES64                    \
                 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;}"                                                    \
                 : FA_SUMS32(sums, 0), FA_SUMS32(sums, 8)                                                        \
                 : "r"((weights)[0]), "r"((weights)[1]), "r"((weights)[2]), "r"((weights)[3]), "l"(matrix_of<64>(values)))
/* Adds to the sums of 64 rows of q by 64 keys what 16 dims make. */
template <int TYPE>
__device__ __forceinline__ void multiply_scores(float sums[8][4], uint rows, uint keys)
{
    if constexpr (TYPE == TYPE_F16)
        FA_SCORES("f16", sums, rows, keys);
    else
        FA_SCORES("bf16", sums, rows, keys);
}

/* Sums that begin with what 16 dims make. */
template <int TYPE>
__device__ __forceinline__ void new_scores(float sums[8][4], uint rows, uint keys)
{
    if constexpr (TYPE == TYPE_F16)
        FA_SCORES_NEW("f16", sums, rows, keys);
    else
        FA_SCORES_NEW("bf16", sums, rows, keys);
}

/* Adds to 64 rows of 32 dims, or 128, of the output what 16 keys make, whose values are in lines of 32 dims. */
template <int TYPE, int DIMS>
__device__ __forceinline__ void multiply_lines(float sums[DIMS / 8][4], const uint weights[4], uint values)
{
    static_assert(DIMS == 32 || DIMS == 128, "what there are products for");
    if constexpr (TYPE == TYPE_F16 && DIMS == 32)
        FA_OUTPUT_32("f16", sums, weights, values);
    else if constexpr (DIMS == 32)
        FA_OUTPUT_32("bf16", sums, weights, values);
    else if constexpr (TYPE == TYPE_F16)
        FA_OUTPUT_128("f16", sums, weights, values);
    else
        FA_OUTPUT_128("bf16", sums, weights, values);
}

/* Adds to 64 rows of the output by 256 dims what 16 keys make. */
template <int TYPE>
__device__ __forceinline__ void multiply_output(float sums[32][4], const uint weights[4], uint values)
{
    if constexpr (TYPE == TYPE_F16)
        FA_OUTPUT("f16", sums, weights, values);
    else
        FA_OUTPUT("bf16", sums, weights, values);
}

/* Sums stay in their registers from here on: the compiler does not know that products change them later. */
template <int N>
__device__ __forceinline__ void settle(float sums[N][4])
{
    UNROLL
    for (int n = 0; n < N; n++)
        asm volatile("" : FA_SUMS4(sums, n)::"memory");
}

/* Before products that read or change registers; behind those of one group; and when all groups but the last ones are over. */
__device__ __forceinline__ void begin_products()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

template <int N>
__device__ __forceinline__ void begin_products(float sums[N][4])
{
    settle<N>(sums);
    begin_products();
}

__device__ __forceinline__ void end_products()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int RUNNING>
__device__ __forceinline__ void wait_groups()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(RUNNING) : "memory");
}

template <int N>
__device__ __forceinline__ void wait_products(float sums[N][4])
{
    wait_groups<0>();
    settle<N>(sums);
}

