/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tensor cores from Turing on work with: fragments of 16 by 16 first operands (four words of a lane), 16 by 8
 * second ones (two words, by pairs in a word of what is summed over), 16 by 8 sums (four floats). Lane l has of sums
 * and of first operands rows l / 4 and l / 4 + 8, and of each 8 columns the two from 2 (l % 4) on.
 */
#pragma once

#include "memory.cuh"

/* Eight narrow elements of a row that is not aligned or not whole, of which the first `count` exist; the others are 0. */
__device__ __forceinline__ uint4 elements(const uchar *from, int count)
{
    const ushort *element = (const ushort *)from;
    uint word[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        word[i] = (2 * i < count ? element[2 * i] : 0u) | (2 * i + 1 < count ? element[2 * i + 1] : 0u) << 16;
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* Four 8 by 8 matrices of narrow elements: lane l gives the address of row l % 8 of matrix l / 8. */
__device__ __forceinline__ void load_matrices(uint to[4], uint row)
{
#if __CUDA_ARCH__ >= 750
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
#endif
}

/* Likewise, each of them transposed. */
__device__ __forceinline__ void load_transposed(uint to[4], uint row)
{
#if __CUDA_ARCH__ >= 750
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
#endif
}

/* sum += a b. UNIT is the compute capability whose instructions are used. */
template <int UNIT, int TYPE>
__device__ __forceinline__ void multiply_add(float sum[4], const uint a[4], const uint b[2])
{
    if constexpr (UNIT >= 80 && TYPE == TYPE_F16) {
#if __CUDA_ARCH__ >= 800
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
    } else if constexpr (UNIT >= 80) {
#if __CUDA_ARCH__ >= 800
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
    } else {
#if __CUDA_ARCH__ >= 750
        UNROLL
        for (int i = 0; i < 2; i++)
            asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                         "{%0, %1, %2, %3};"
                         : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                         : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
#endif
    }
}

template <int TYPE>
__device__ __forceinline__ float unpack(uint word, int half)
{
    const ushort bits = (ushort)(half ? word >> 16 : word);
    return TYPE == TYPE_F16 ? from_half(bits) : fa_bf16_widen(bits);
}

/* Copies 16 bytes to shared memory, of which the first `bytes` are read and the others 0; none waits for it. */
__device__ __forceinline__ void copy_async(uint to, const uchar *from, int bytes)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ void commit_copies()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Returns when at most so many of the last groups of copies are not over. */
template <int PENDING>
__device__ __forceinline__ void wait_copies()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

/* What this thread wrote to shared memory is there for Hopper's products that begin behind the next barrier. */
__device__ __forceinline__ void show_to_products()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Whether a narrow element, one of the two in a word, is infinite or no number. */
template <int TYPE>
__device__ __forceinline__ bool is_nonfinite(uint word, int half)
{
    const uint exponent = TYPE == TYPE_F16 ? 0x7c00u : 0x7f80u;
    return ((half ? word >> 16 : word) & exponent) == exponent;
}

/* The bits of those elements of a word that are. */
template <int TYPE>
__device__ __forceinline__ uint nonfinite_bits(uint word)
{
    return (is_nonfinite<TYPE>(word, 0) ? 0xffffu : 0u) | (is_nonfinite<TYPE>(word, 1) ? 0xffff0000u : 0u);
}

/* Makes those of 16 bytes of shared memory 0, and says whether there were any. */
template <int TYPE>
__device__ __forceinline__ bool clear_nonfinite_chunk(uint *at)
{
    bool nonfinite = false;
    UNROLL
    for (int w = 0; w < 4; w++) {
        const uint word = at[w], bits = nonfinite_bits<TYPE>(word);
        if (bits) {
            at[w] = word & ~bits;
            nonfinite = true;
        }
    }
    return nonfinite;
}
