/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands in global memory. Types are known at run time, and the same for all work-items: a branch on one costs little
 * beside the arithmetic on what it fetches. Nothing is included that a compiler without a search path would lack.
 */
#pragma once

#include "backends/cuda/traits.h"
#include "core/portable/format.h"

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")

enum { TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_ANY = FA_CUDA_ANY }; /* as fa_dtype has them */

/* Whether the module reads formats of caches, or nothing else; a tensor core's operands, and then what k and v have. */
static constexpr bool FORMATS = FA_TYPE >= FA_CUDA_ANY, CODED = FA_TYPE > FA_CUDA_PRUNED_ROWS;
static constexpr bool PRUNED = FA_TYPE == FA_CUDA_PRUNED_ROWS; /* it also reads rows that keep some of their elements */
static constexpr bool SCALED =
    FA_TYPE == FA_CUDA_SCALED || PRUNED; /* it reads any type whose scales may be tensors of their own */
static constexpr bool WHOLE_ROWS = FA_TYPE == FA_CUDA_WHOLE_ROWS; /* k and v in it are rows that are blocks of a format */
static constexpr int OPERANDS = FA_TYPE & 15, FORMAT_K = fa_cuda_coded_k(FA_TYPE), FORMAT_V = fa_cuda_coded_v(FA_TYPE);
static constexpr int SCALING_K = fa_cuda_scaling_k(FA_TYPE), SCALING_V = fa_cuda_scaling_v(FA_TYPE);
static constexpr bool OFFSETS_K = FA_TYPE_HAS_OFFSET(FORMAT_K) || SCALING_K == FA_CUDA_SCALED_ZEROS,
                      OFFSETS_V = FA_TYPE_HAS_OFFSET(FORMAT_V) || SCALING_V == FA_CUDA_SCALED_ZEROS;
/* Whether blocks of v hold two codes in a byte, 16 elements apart. */
static constexpr bool IN_NIBBLES_V = CODED && FA_TYPE_IS_CODED(FORMAT_V) && !FA_TYPE_IS_BARE(FORMAT_V) &&
                                     FA_TYPE_CODE_BITS(FORMAT_V) < 8;

__device__ constexpr int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

__device__ __forceinline__ uint shared_address(const void *at)
{
    return (uint)__cvta_generic_to_shared(at);
}

/*
 * x, held in a register from here on. The compiler would rather compute it anew each time, and begin with the thread's
 * number, which takes long to read; it does not know that of an exchange among lanes.
 */
__device__ __forceinline__ uint pin(uint x)
{
    return __shfl_sync(0xffffffffu, x, threadIdx.x % 32);
}

__device__ __forceinline__ const uchar *pin(const uchar *at)
{
    return (const uchar *)__shfl_sync(0xffffffffu, (unsigned long long)at, threadIdx.x % 32);
}

/* The thread's number, read anew: nothing that follows from it is kept from one time to the next. */
__device__ __forceinline__ uint thread()
{
    uint x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x;
}

/* Shared memory by address, in the order in which it is written here. */
__device__ __forceinline__ float4 load_shared(uint at)
{
    float4 x;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(at) : "memory");
    return x;
}

__device__ __forceinline__ float load_shared1(uint at)
{
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(at) : "memory");
    return x;
}

__device__ __forceinline__ void store_shared(uint to, float x)
{
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory");
}

__device__ __forceinline__ void store_shared(uint to, float4 x)
{
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w) : "memory");
}

__device__ __forceinline__ void store_shared(uint to, uint4 x)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}

/* A thread's own memory by address. The compiler does not see what that is of, and leaves it there. */
__device__ __forceinline__ uint local_address(const void *at)
{
    return pin((uint)__cvta_generic_to_local(at));
}

/* Vectors of a thread: in registers, or in its memory where they would take the registers of what is needed sooner. */
template <int N, bool IN_MEMORY>
struct held {
    struct room {};
    uint4 at[N];
    __device__ __forceinline__ void use(room &) {}
    __device__ __forceinline__ uint4 get(int i) const { return at[i]; }
    __device__ __forceinline__ void set(int i, uint4 x) { at[i] = x; }
};

template <int N>
struct held<N, true> {
    struct room {
        uint4 at[N];
    };
    uint first;
    __device__ __forceinline__ void use(room &there) { first = local_address(&there); }
    __device__ __forceinline__ uint4 get(int i) const
    {
        uint4 x;
        asm volatile("ld.local.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                     : "r"(first + 16 * i)
                     : "memory");
        return x;
    }
    __device__ __forceinline__ void set(int i, uint4 x) const
    {
        asm volatile("st.local.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(first + 16 * i), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                     : "memory");
    }
};

/* Floats of a thread that are seldom needed. They lie in memory, for in registers they would take the room of others. */
template <int N>
struct seldom {
    volatile float at[N];
    __device__ __forceinline__ float get(int i) const { return at[i]; }
    __device__ __forceinline__ void set(int i, float x) { at[i] = x; }
};

__device__ __forceinline__ int bytes_of(int type)
{
    return FA_TYPE_BYTES(type);
}

/* Bytes of so many elements of k or v, of which `in` is the format; of blocks, those that are whole. */
template <typename COUNT>
__device__ __forceinline__ COUNT span_of(COUNT elements, int type, const fa_cuda_format &in)
{
    if (WHOLE_ROWS)
        return elements / FA_MLA_DIMS * FA_MLA_BYTES;
    if (FORMATS)
        return (elements >> in.shift) * in.size;
    return elements * bytes_of(type);
}

/* Bytes from where a row begins to the block of dim d. Rows that are no sequence of blocks are read from where they begin. */
__device__ __forceinline__ int offset_of(int d, int type, const fa_cuda_format &in)
{
    if (PRUNED && FA_TYPE_PRUNES(type))
        return 0;
    return span_of(d, type, in);
}

__device__ __forceinline__ float from_half(ushort bits)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

__device__ __forceinline__ ushort to_half(float x)
{
    ushort bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ ushort narrow(int type, float x)
{
    return type == TYPE_F16 ? to_half(x) : (ushort)fa_bf16_narrow(x);
}

/* Two numbers in a word, the first in its lower half. */
template <int TYPE>
__device__ __forceinline__ uint pack(float low, float high)
{
    uint word;
    if constexpr (TYPE == TYPE_F16) {
#if __CUDA_ARCH__ >= 800
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
#else
        word = to_half(low) | (uint)to_half(high) << 16;
#endif
    } else {
#if __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
#else
        word = fa_bf16_narrow(low) | fa_bf16_narrow(high) << 16;
#endif
    }
    return word;
}

__device__ __forceinline__ float load(int type, const uchar *at)
{
    if (type == TYPE_F32)
        return *(const float *)at;
    return type == TYPE_F16 ? from_half(*(const ushort *)at) : fa_bf16_widen(*(const ushort *)at);
}

__device__ __forceinline__ void store(int type, uchar *at, float x)
{
    if (type == TYPE_F32)
        *(float *)at = x;
    else
        *(ushort *)at = narrow(type, x);
}

/*
 * Four elements as they lie in memory, the two words of narrow ones in x and y. They stay so until widened: a fetch ahead
 * of its use then waits for nothing.
 */
typedef uint4 raw4;

/* Four elements that are aligned, or zeros: by a predicate, where the compiler would jump. */
template <int TYPE>
__device__ __forceinline__ raw4 fetch_if(bool exists, const uchar *at)
{
    raw4 x = make_uint4(0, 0, 0, 0);
    if constexpr (TYPE == TYPE_F32)
        asm volatile("{.reg .pred p; setp.ne.s32 p, %5, 0; @p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];}"
                     : "+r"(x.x), "+r"(x.y), "+r"(x.z), "+r"(x.w)
                     : "l"(at), "r"((int)exists));
    else
        asm volatile("{.reg .pred p; setp.ne.s32 p, %3, 0; @p ld.global.v2.u32 {%0, %1}, [%2];}"
                     : "+r"(x.x), "+r"(x.y)
                     : "l"(at), "r"((int)exists));
    return x;
}

/* N times four elements from at[n] on, of which count[n] exist; the others are 0. */
template <int N>
__device__ __forceinline__ void fetch4(int type, bool aligned, const uchar *const at[N], const int count[N], raw4 to[N])
{
    UNROLL
    for (int n = 0; n < N; n++)
        to[n] = make_uint4(0, 0, 0, 0);
    if (aligned && type == TYPE_F32) {
        UNROLL
        for (int n = 0; n < N; n++) {
            if (count[n] > 0)
                to[n] = *(const uint4 *)at[n];
        }
    } else if (aligned) {
        UNROLL
        for (int n = 0; n < N; n++) {
            if (count[n] > 0) {
                const uint2 x = *(const uint2 *)at[n];
                to[n].x = x.x;
                to[n].y = x.y;
            }
        }
    } else if (type == TYPE_F32) {
        UNROLL
        for (int n = 0; n < N; n++) {
            const uint *from = (const uint *)at[n];
            to[n].x = count[n] > 0 ? from[0] : 0;
            to[n].y = count[n] > 1 ? from[1] : 0;
            to[n].z = count[n] > 2 ? from[2] : 0;
            to[n].w = count[n] > 3 ? from[3] : 0;
        }
    } else {
        UNROLL
        for (int n = 0; n < N; n++) {
            const ushort *from = (const ushort *)at[n];
            to[n].x = (count[n] > 0 ? from[0] : 0u) | (count[n] > 1 ? from[1] : 0u) << 16;
            to[n].y = (count[n] > 2 ? from[2] : 0u) | (count[n] > 3 ? from[3] : 0u) << 16;
        }
    }
}

__device__ __forceinline__ float4 widen4(int type, raw4 x)
{
    if (type == TYPE_F32)
        return make_float4(__uint_as_float(x.x), __uint_as_float(x.y), __uint_as_float(x.z), __uint_as_float(x.w));
    if (type == TYPE_F16)
        return make_float4(from_half((ushort)x.x), from_half((ushort)(x.x >> 16)), from_half((ushort)x.y),
                           from_half((ushort)(x.y >> 16)));
    return make_float4(__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u), __uint_as_float(x.y << 16),
                       __uint_as_float(x.y & 0xffff0000u));
}

__device__ __forceinline__ uint narrow2(int type, float low, float high)
{
    return type == TYPE_F16 ? pack<TYPE_F16>(low, high) : pack<TYPE_BF16>(low, high);
}

/* The first `count` of four elements. */
__device__ __forceinline__ void store4(int type, bool aligned, uchar *at, int count, float4 x)
{
    if (count <= 0)
        return;
    if (aligned && type == TYPE_F32) {
        *(float4 *)at = x;
    } else if (aligned) {
        *(uint2 *)at = make_uint2(narrow2(type, x.x, x.y), narrow2(type, x.z, x.w));
    } else {
        const int bytes = bytes_of(type);
        store(type, at, x.x);
        if (count > 1)
            store(type, at + bytes, x.y);
        if (count > 2)
            store(type, at + 2 * bytes, x.z);
        if (count > 3)
            store(type, at + 3 * bytes, x.w);
    }
}

/* The first `count` of eight elements. */
__device__ __forceinline__ void store8(int type, bool aligned, uchar *at, int count, float4 low, float4 high)
{
    if (aligned && type != TYPE_F32 && count >= 8) {
        *(uint4 *)at = make_uint4(narrow2(type, low.x, low.y), narrow2(type, low.z, low.w), narrow2(type, high.x, high.y),
                                  narrow2(type, high.z, high.w));
    } else {
        store4(type, aligned, at, count, low);
        store4(type, aligned, at + 4 * bytes_of(type), count - 4, high);
    }
}

/* What a row meets in the place of a hidden value that is not finite, since 0 times that would not be 0. */
__device__ __forceinline__ float finite_or_0(float x)
{
    return fa_is_finite(x) ? x : 0.0f;
}

__device__ __forceinline__ bool is_finite4(float4 x)
{
    return x.x * 0.0f + x.y * 0.0f + (x.z * 0.0f + x.w * 0.0f) == 0.0f;
}
