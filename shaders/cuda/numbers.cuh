/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats of caches on tensor cores: codes as the numbers that they stand for, which f16 and bf16 hold exactly, and copies of
 * them to shared memory. What scales the numbers is applied elsewhere (coded.cuh, coded_tile.cuh), for no operand may round it.
 */
#pragma once

#include "codes.cuh"
#include "matrix.cuh"

/* Differences and products of pairs of narrow numbers. */
template <int TYPE>
__device__ __forceinline__ uint subtract2(uint x, uint y)
{
    if constexpr (TYPE == TYPE_F16) {
        asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(x) : "r"(x), "r"(y));
    } else {
#if __CUDA_ARCH__ >= 800
        asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(x) : "r"(y), "r"(0xbf80bf80u), "r"(x));
#endif
    }
    return x;
}

template <int TYPE>
__device__ __forceinline__ uint multiply2(uint x, uint y)
{
    if constexpr (TYPE == TYPE_F16) {
        asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(x) : "r"(x), "r"(y));
    } else {
#if __CUDA_ARCH__ >= 800
        asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(x) : "r"(x), "r"(y), "r"(0x80008000u));
#endif
    }
    return x;
}

/* (x & mask) ^ bits, at once. */
__device__ __forceinline__ uint masked(uint x, uint mask, uint bits)
{
    asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(x) : "r"(x), "r"(mask), "r"(bits));
    return x;
}

__device__ __forceinline__ uint multiply_add2(uint x, uint y, uint z)
{
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(x) : "r"(x), "r"(y), "r"(z));
    return x;
}

/*
 * A format as constants: bytes of 32 elements, those that precede codes and fifth bits, if any; the byte of 0 in an operand.
 * E2m1 is looked up, in halves.
 */
template <int TYPE>
struct format {
    static constexpr int TYPE_OF = TYPE, BITS = FA_TYPE_CODE_BITS(TYPE);
    static constexpr bool PLAIN = !FA_TYPE_IS_CODED(TYPE), BARE = !PLAIN && FA_TYPE_IS_BARE(TYPE);
    static constexpr bool FP8 = FA_TYPE_IS_FP8(TYPE), NIBBLES = !PLAIN && BITS < 8, OFFSET = FA_TYPE_HAS_OFFSET(TYPE);
    static constexpr bool SIGNED_BYTES = TYPE == FA_TYPE_Q8_0 || TYPE == FA_TYPE_I8;
    static constexpr int BLOCK = FA_TYPE_SPAN(TYPE, 32), CODES = PLAIN || BARE ? 0 : BLOCK - (NIBBLES ? 16 : 32);
    static constexpr int FIFTH = BITS == 5 ? CODES - 4 : 0;
    static constexpr int ZERO = SIGNED_BYTES || TYPE == FA_TYPE_IQ4_NL || TYPE == FA_TYPE_U8 || TYPE == FA_TYPE_E2M1 ? 128
                                : TYPE == FA_TYPE_I4                                                                ? 8
                                : TYPE == FA_TYPE_I2                                                                ? 2
                                                                                                                    : FA_TYPE_CENTRE(TYPE);
    /* What an element's scale is times for its operand, and how many scales must be added to an offset. */
    static constexpr float UNIT = TYPE == FA_TYPE_E2M1 ? 0.5f : 1.0f, CENTRE = TYPE == FA_TYPE_U8 ? 128.0f : 0.0f;
};

/* So many bytes to shared memory, of which the first `exist` are read and the others 0. */
template <int BYTES>
__device__ __forceinline__ void copy_bytes(uint to, const uchar *from, int exist)
{
#if __CUDA_ARCH__ >= 800
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exist) : "memory");
    } else if constexpr (BYTES > 2) {
        asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(BYTES), "r"(exist)
                     : "memory");
    } else {
        const ushort x = exist > 0 ? *(const ushort *)from : (ushort)0;
        asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(x) : "memory");
    }
#endif
}

/* Likewise through registers, where every copy is waited for. */
template <int BYTES>
struct alignas(ceil_div(BYTES, 4) * 4) passing_bytes {
    uint word[ceil_div(BYTES, 4)];
};

template <int BYTES>
__device__ __forceinline__ passing_bytes<BYTES> load_bytes(const uchar *from, int exist)
{
    passing_bytes<BYTES> x;
    if (BYTES == 16 && exist == 16) {
        *(uint4 *)x.word = *(const uint4 *)from;
    } else if (BYTES == 8 && exist == 8) {
        *(uint2 *)x.word = *(const uint2 *)from;
    } else if (BYTES == 4 && exist == 4) {
        x.word[0] = *(const uint *)from;
    } else {
        const ushort *const half = (const ushort *)from;
        UNROLL
        for (int i = 0; i < ceil_div(BYTES, 4); i++)
            x.word[i] = (4 * i < exist ? half[2 * i] : 0u) | (4 * i + 2 < exist ? half[2 * i + 1] : 0u) << 16;
    }
    return x;
}

template <int BYTES>
__device__ __forceinline__ void store_bytes(uint to, const passing_bytes<BYTES> &x)
{
    if constexpr (BYTES == 16)
        store_shared(to, *(const uint4 *)x.word);
    else if constexpr (BYTES == 8)
        asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(to), "r"(x.word[0]), "r"(x.word[1]) : "memory");
    else if constexpr (BYTES == 4)
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(x.word[0]) : "memory");
    else
        asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"((ushort)x.word[0]) : "memory");
}

/* 16 bytes, if the lane has any to copy. */
__device__ __forceinline__ void copy_16_if(bool has, uint to, const uchar *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("{.reg .pred p; setp.ne.s32 p, %0, 0; @p cp.async.cg.shared.global.L2::128B [%1], [%2], 16;}" ::"r"((int)has),
                 "r"(to), "l"(from)
                 : "memory");
#endif
}

/* A word of a row, which begins at an even place, `at` bytes behind one that is a multiple of four. */
__device__ __forceinline__ uint word_at(const uchar *row, int at, uint more)
{
    const uchar *const from = row + at + more;
    if (at % 4 == 0)
        return *(const uint *)from;
    return __byte_perm(((const ushort *)from)[0], ((const ushort *)from)[1], 0x5410);
}

/* What nibbles, one in each byte, stand for, where `fifth` begins with the fifth bits of their codes if there are any. */
template <typename F>
__device__ __forceinline__ uint codes_of(uint nibbles, uint fifth)
{
    nibbles &= 0x0f0f0f0fu;
    if constexpr (F::TYPE_OF == FA_TYPE_IQ4_NL) /* as fa_iq4_nl_number() has them */
        return look_up(nibbles, 0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u);
    if constexpr (F::TYPE_OF == FA_TYPE_E2M1) /* 128 and twice what fa_e2m1_widen() has */
        return look_up(nibbles, 0x83828180u, 0x8c888684u, 0x7d7e7f80u, 0x74787a7cu);
    if constexpr (F::TYPE_OF == FA_TYPE_I4 || F::TYPE_OF == FA_TYPE_I2) /* counted from the least */
        return nibbles ^ (F::TYPE_OF == FA_TYPE_I4 ? 0x08080808u : 0x02020202u);
    return F::FIFTH > 0 ? nibbles | fa_fifths(fifth) : nibbles;
}

/* The fifth bits of block b's codes from element e on. */
template <typename F>
__device__ __forceinline__ uint fifths_of(const uchar *row, int b, uint e)
{
    return F::FIFTH > 0 ? word_at(row, b * F::BLOCK + F::FIFTH, 0) >> e : 0;
}

/* The codes of elements e to e + 3 of block b of a row whose blocks are codes alone. */
template <typename F>
__device__ __forceinline__ uint bare_codes(const uchar *row, int b, uint e)
{
    const uchar *const at = row + b * F::BLOCK + e * F::BITS / 8;
    if constexpr (F::BITS == 8)
        return *(const uint *)at;
    return codes_of<F>(F::BITS == 4 ? fa_nibbles(*(const ushort *)at) : fa_pairs(*at), 0);
}

/*
 * The operands of a word's codes before zero_of() is taken from them: below the exponent of 2^10 in f16, and in bf16
 * seven bits of them below that of 2^7.
 */
template <int TYPE, typename F>
__device__ __forceinline__ void raise(uint codes, uint to[2])
{
    if constexpr (TYPE == TYPE_F16 && F::SIGNED_BYTES) {
        to[0] = masked(codes, 0x00ff00ffu, 0x64806480u);
        to[1] = masked(codes >> 8, 0x00ff00ffu, 0x64806480u);
    } else if constexpr (TYPE == TYPE_F16) {
        to[0] = masked(codes, 0x00ff00ffu, 0x64006400u);
        to[1] = __byte_perm(codes, 0x64646464u, 0x4341);
    } else {
        to[0] = masked(codes, 0x007f007fu, 0x43004300u);
        to[1] = masked(codes >> 8, 0x007f007fu, 0x43004300u);
    }
}

/* In f16 the code of 0. In bf16 an eighth bit is worth as much more, or as much less where it is a sign. */
template <int TYPE, typename F>
__device__ __forceinline__ uint zero_of(uint codes, int i)
{
    if constexpr (TYPE == TYPE_F16)
        return 0x64006400u + F::ZERO * 0x10001u;
    else if constexpr (F::ZERO == 128) /* iq4_nl's numbers are 128 more, q8_0's codes are not */
        return ((codes >> 8 * i & 0x00800080u) ^ (F::SIGNED_BYTES ? 0 : 0x00800080u)) | 0x43004300u;
    return 0x43004300u + F::ZERO * 0x10001u;
}

/* Bytes 0 and 1, and 2 and 3, as operands. */
template <int TYPE, typename F>
__device__ __forceinline__ void operands_of_fp8(uint bytes, uint to[2])
{
#if __CUDA_ARCH__ >= 900
    if constexpr (TYPE == TYPE_F16 && F::TYPE_OF == FA_TYPE_E4M3) {
        asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h;}"
            : "=r"(to[0]), "=r"(to[1])
            : "r"(bytes));
        return;
    }
#endif
    to[0] = fa_fp8_halves(F::TYPE_OF, __byte_perm(bytes, 0, 0x1404));
    to[1] = fa_fp8_halves(F::TYPE_OF, __byte_perm(bytes, 0, 0x3424));
    UNROLL
    for (int i = 0; i < 2; i++) {
        if constexpr (TYPE == TYPE_BF16)
            to[i] = pack<TYPE>(from_half((ushort)to[i]) * FA_FP8_FACTOR(F::TYPE_OF),
                               from_half((ushort)(to[i] >> 16)) * FA_FP8_FACTOR(F::TYPE_OF));
        else if constexpr (F::TYPE_OF == FA_TYPE_E4M3)
            to[i] = multiply2<TYPE>(to[i], 0x5c005c00u);
    }
}

/* The numbers of a word's codes: of elements 0 and 2, then 1 and 3; of fp8, of 0 and 1, then 2 and 3. */
template <int TYPE, typename F>
__device__ __forceinline__ void operands_of(uint codes, uint to[2])
{
    if constexpr (F::FP8) {
        operands_of_fp8<TYPE, F>(codes, to);
    } else {
        raise<TYPE, F>(codes, to);
        UNROLL
        for (int i = 0; i < 2; i++)
            to[i] = subtract2<TYPE>(to[i], zero_of<TYPE, F>(codes, i));
    }
}

__device__ __forceinline__ float float_at(const uchar *at) { return from_half(*(const ushort *)at); }

/* What an infinite scale makes of its block's numbers is infinite or NaN: as a sum, NaN. */
__device__ __forceinline__ float nan_unless_finite(float x) { return x - x + x; }

/* Whether values of a block are added one by one: f16 does not hold what they are made of, or they are no numbers. */
template <int TYPE>
__device__ __forceinline__ bool is_apart(uint scale, uint offset)
{
    const uint most = TYPE == TYPE_F16 ? 0x5400 : 0x7c00; /* 2^6, infinity */
    return (scale & 0x7fff) >= most || (offset & 0x7fff) >= 0x7c00;
}

/* The same of a scale in a tensor of its own. Its power of two times a number must be one that the operand holds. */
template <int TYPE, typename F>
__device__ __forceinline__ bool is_apart(fa_scaling by)
{
    const float size = fabsf(by.scale);
    const float most = TYPE == TYPE_BF16 ? 0x1p100f : F::TYPE_OF == FA_TYPE_E5M2 ? 2.0f : F::FP8 ? 256.0f : 64.0f;
    const float least = TYPE == TYPE_BF16 ? 0x1p-100f : F::TYPE_OF == FA_TYPE_E5M2 ? 0x1p-8f : F::FP8 ? 0x1p-15f : 0x1p-24f;
    if (!F::BARE) /* a scale in f16 is no less */
        return !(size < most) || (F::OFFSET && !fa_is_finite(by.offset));
    return !(size < most && (size >= least || size == 0.0f)) || !fa_is_finite(by.offset);
}
