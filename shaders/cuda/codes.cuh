/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements of k and v in formats of caches, which core/portable/codes.h describes. Only modules that read any type have
 * them. They stay as they lie in memory until they are used: a fetch ahead of its use then waits for nothing. A block's
 * address is even, and no more.
 */
#pragma once

#include "core/portable/decode.h"
#include "memory.cuh"

/* Kinds of types, which have code of their own. */
enum { KIND_PLAIN, KIND_FP8, KIND_BLOCKS, KIND_SCALED, KIND_ROWS };

template <int KIND>
struct kind_is {
    static constexpr int kind = KIND;
};

/* Calls `on` with the type's kind, a constant. The branch is the same for all threads. */
template <typename ON>
__device__ __forceinline__ void by_kind(int type, ON on)
{
    if constexpr (WHOLE_ROWS)
        on(kind_is<KIND_ROWS>());
    else if (PRUNED && FA_TYPE_PRUNES(type))
        on(kind_is<KIND_ROWS>());
    else if (SCALED && FA_TYPE_IS_CODED(type) && FA_TYPE_IS_BARE(type))
        on(kind_is<KIND_SCALED>());
    else if (FORMATS && !SCALED && FA_TYPE_IS_FP8(type))
        on(kind_is<KIND_FP8>());
    else if (FORMATS && FA_TYPE_IS_CODED(type))
        on(kind_is<KIND_BLOCKS>());
    else
        on(kind_is<KIND_PLAIN>());
}

/* The place in its block of dim d of a row. */
template <int KIND>
__device__ __forceinline__ uint dim_in(uint d)
{
    return KIND == KIND_FP8 ? d % 8 : d % 32;
}

/* Bytes from a block's begin to the codes of elements e and after, e a multiple of four. */
template <int KIND>
__device__ __forceinline__ uint codes_at(const fa_cuda_format &in, uint e)
{
    return KIND == KIND_FP8 ? e : in.codes + (e & (in.bytes - 1));
}

/* Bits that precede a code of theirs in its byte. */
__device__ __forceinline__ uint upper_bits(const fa_cuda_format &in, uint e)
{
    return e / 4 & in.upper;
}

__device__ __forceinline__ uint low_bits(const uchar *at)
{
    return (uint)(unsigned long long)at;
}

/* The scales of N blocks, and in the upper halves their offsets, or 0. */
template <int N, typename TO>
__device__ __forceinline__ void fetch_scaling(const fa_cuda_format &in, const uchar *const block[N], TO to)
{
    if (in.offset != 0) {
        UNROLL
        for (int n = 0; n < N; n++) {
            const ushort *const from = (const ushort *)block[n];
            to(n) = low_bits(block[n]) % 4 == 0 ? *(const uint *)from : from[0] | (uint)from[1] << 16;
        }
    } else {
        UNROLL
        for (int n = 0; n < N; n++)
            to(n) = *(const ushort *)block[n];
    }
}

/* The bytes of a word as numbers of a row of 16 bytes, which lies in four words. Bytes are less than 16. */
__device__ __forceinline__ uint look_up(uint x, uint w0, uint w1, uint w2, uint w3)
{
    const uint index = __byte_perm(x | x >> 4, 0, 0x4420), place = index & 0x7777;
    uint upper; /* all bits of bytes that are 8 or more */
    asm("prmt.b32 %0, %1, 0, 0xba98;" : "=r"(upper) : "r"(x << 4));
    return (__byte_perm(w0, w1, place) & ~upper) | (__byte_perm(w2, w3, place) & upper);
}

/* Four fp8 from a word. */
__device__ __forceinline__ float4 widen_fp8(int type, uint codes)
{
    const uint even = fa_fp8_halves(type, codes << 8 & 0xff00ff00u), odd = fa_fp8_halves(type, codes & 0xff00ff00u);
    const float factor = FA_FP8_FACTOR(type);
    return make_float4(from_half((ushort)even) * factor, from_half((ushort)odd) * factor,
                       from_half((ushort)(even >> 16)) * factor, from_half((ushort)(odd >> 16)) * factor);
}

/*
 * Four elements from each of N words that have their codes, at the lower ends of their bytes; a bit of `fifth` for each. A
 * code is put below the exponent of 2^23, which makes a number of it.
 */
template <int KIND, int N>
__device__ __forceinline__ void decode(int type, const fa_cuda_format &in, const uint words[N], uint fifth, uint scaling,
                                       float to[4 * N])
{
    if constexpr (KIND == KIND_FP8) {
        UNROLL
        for (int n = 0; n < N; n++) {
            const float4 x = widen_fp8(type, words[n]);
            to[4 * n] = x.x;
            to[4 * n + 1] = x.y;
            to[4 * n + 2] = x.z;
            to[4 * n + 3] = x.w;
        }
    } else {
        uint codes[N];
        UNROLL
        for (int n = 0; n < N; n++)
            codes[n] = (words[n] & in.mask) ^ in.flip;
        if (in.fifth != 0) {
            UNROLL
            for (int n = 0; n < N; n++)
                codes[n] |= fa_fifths(fifth >> 4 * n);
        } else if (type == FA_TYPE_IQ4_NL) { /* as fa_iq4_nl_number() has them */
            UNROLL
            for (int n = 0; n < N; n++)
                codes[n] = look_up(codes[n], 0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);
        }
        const float scale = from_half((ushort)scaling), offset = from_half((ushort)(scaling >> 16));
        UNROLL
        for (int i = 0; i < 4 * N; i++) /* the product is exact */
            to[i] = (__uint_as_float(__byte_perm(codes[i / 4], 0x4b000000u, 0x7440 + i % 4)) - in.zero) * scale + offset;
    }
}

/* Four elements of a block, e and after: halves of their codes in x and y, scaling in z, the byte of fifth bits in w. */
template <int KIND>
__device__ __forceinline__ raw4 fetch4_coded(const fa_cuda_format &in, const uchar *at, uint e, bool exist)
{
    raw4 x = make_uint4(0, 0, 0, 0);
    if (!exist)
        return x;
    const ushort *const codes = (const ushort *)(at + codes_at<KIND>(in, e));
    x.x = codes[0];
    x.y = codes[1];
    if (KIND == KIND_BLOCKS) {
        fetch_scaling<1>(in, &at, [&](int) -> uint & { return x.z; });
        if (in.fifth != 0)
            x.w = at[in.fifth + e / 8];
    }
    return x;
}

/* What such a fetch has left, or of other kinds theirs, as numbers. They are dims d and after of a row. */
template <int KIND>
__device__ __forceinline__ float4 widen4_of(int type, const fa_cuda_format &in, raw4 x, uint d)
{
    if constexpr (KIND == KIND_PLAIN || KIND >= KIND_SCALED) {
        return widen4(KIND >= KIND_SCALED ? TYPE_F32 : type, x);
    } else {
        const uint codes = (x.x | x.y << 16) >> (KIND == KIND_BLOCKS ? upper_bits(in, dim_in<KIND>(d)) : 0);
        float to[4];
        decode<KIND, 1>(type, in, &codes, x.w >> (d & 4), x.z, to);
        return make_float4(to[0], to[1], to[2], to[3]);
    }
}
