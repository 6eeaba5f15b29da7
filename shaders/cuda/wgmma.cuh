/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of a warpgroup, which are four warps, on Hopper's tensor cores. Second operands lie in shared memory, first
 * ones there or in registers. Warp w of the four has rows 16 w to 16 w + 15, of operands and sums in the fragments of
 * matrix.cuh. Products run on their own: begin_products(), some of them, end_products(), and wait_products() before
 * their registers are read.
 */
#pragma once

#include "matrix.cuh"

/*
 * A matrix in shared memory as wgmma takes it: lines of 128 bytes, 8 of them 1024 bytes, and so many bytes from 64
 * columns to the next where lines are what is summed over. This is the lower half of it. One that begins a multiple of
 * 16 bytes further on is that multiple more.
 */
__device__ __forceinline__ uint matrix_at(uint at, uint columns_apart)
{
    return (columns_apart >> 4) << 16 | (at & 0x3ffffu) >> 4;
}

__device__ __forceinline__ unsigned long long matrix_of(uint lower)
{
    unsigned long long matrix;
    asm("mov.b64 %0, {%1, %2};" : "=l"(matrix) : "r"(lower), "n"(1 << 30 | 1024 >> 4));
    return matrix;
}

#define FA_SUMS4(x, n) "+f"((x)[n][0]), "+f"((x)[n][1]), "+f"((x)[n][2]), "+f"((x)[n][3])
#define FA_SUMS32(x, n)                                                                                          \
    FA_SUMS4(x, n), FA_SUMS4(x, n + 1), FA_SUMS4(x, n + 2), FA_SUMS4(x, n + 3), FA_SUMS4(x, n + 4),              \
        FA_SUMS4(x, n + 5), FA_SUMS4(x, n + 6), FA_SUMS4(x, n + 7)
#define FA_SUMS128(x) FA_SUMS32(x, 0), FA_SUMS32(x, 8), FA_SUMS32(x, 16), FA_SUMS32(x, 24)
#define FA_NAMES32                                                                                               \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                     \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FA_NAMES128                                                                                              \
    FA_NAMES32 ", "                                                                                              \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                           \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                           \
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
#define FA_SCORES_HELD(type, sums, rows, keys)                                                                   \
    asm volatile("{.reg .pred p; setp.eq.u32 p, 0, 0; "                                                          \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" FA_NAMES32                     \
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;}"                                                    \
                 : FA_SUMS32(sums, 0)                                                                            \
                 : "r"((rows)[0]), "r"((rows)[1]), "r"((rows)[2]), "r"((rows)[3]), "l"(matrix_of(keys)))
#define FA_OUTPUT(type, sums, weights, values)                                                                   \
    asm volatile("{.reg .pred p; setp.eq.u32 p, 0, 0; "                                                          \
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" FA_NAMES128                   \
                 "}, {%128, %129, %130, %131}, %132, p, 1, 1, 1;}"                                               \
                 : FA_SUMS128(sums)                                                                              \
                 : "r"((weights)[0]), "r"((weights)[1]), "r"((weights)[2]), "r"((weights)[3]), "l"(matrix_of(values)))
/* Adds to the sums of 64 rows of q by 64 keys what 16 dims make. */
template <int TYPE>
__device__ __forceinline__ void multiply_scores(float sums[8][4], uint rows, uint keys)
{
    if constexpr (TYPE == TYPE_F16)
        FA_SCORES("f16", sums, rows, keys);
    else
        FA_SCORES("bf16", sums, rows, keys);
}

/* Likewise, with rows of q in registers. */
template <int TYPE>
__device__ __forceinline__ void multiply_scores(float sums[8][4], const uint rows[4], uint keys)
{
    if constexpr (TYPE == TYPE_F16)
        FA_SCORES_HELD("f16", sums, rows, keys);
    else
        FA_SCORES_HELD("bf16", sums, rows, keys);
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

/* Before products that read or change registers; behind those of one group; and when they are over. */
template <int N>
__device__ __forceinline__ void begin_products(float sums[N][4])
{
    settle<N>(sums);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void end_products()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int N>
__device__ __forceinline__ void wait_products(float sums[N][4])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    settle<N>(sums);
}

/* What this thread wrote to shared memory is there for products that begin behind the next barrier. */
__device__ __forceinline__ void show_to_products()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
