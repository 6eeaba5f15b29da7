/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements of k and v whose scales are tensors of their own, for kernels without tensor cores. They are scaled where they
 * are fetched, so what is fetched are the bits of f32. Only the modules of FA_CUDA_SCALED and FA_CUDA_PRUNED_ROWS have this;
 * there all types whose blocks are codes alone are of KIND_SCALED, and an fp8 without scales has a scale of 1. Code that
 * chooses among so many types is long: it stands once, in functions that are called.
 */
#pragma once

#include "codes.cuh"
#include "softmax.cuh"

/* The words of core/portable/codes.h. */
#define FA_CODES const uchar *
#define FA_AT int
#define FA_BITS16(m, at) ((uint) * (const ushort *)((m) + (at)))
#define FA_BITS32_ALIGNED(m, at) (*(const uint *)((m) + (at)))
#define FA_BITS32(m, at) (WHOLE_ROWS ? *(const uint *)((m) + (at)) : FA_BITS16(m, at) | FA_BITS16(m, (at) + 2) << 16)
#include "core/portable/codes.h"

__device__ __forceinline__ float4 row_four(int type, const uchar *row, int d, int dims, int bytes)
{
    const fa_four x = fa_row_four(type, row, 0, d, dims, bytes);
    return make_float4(x.x[0], x.x[1], x.x[2], x.x[3]);
}

static __device__ __noinline__ float4 call_pruned_four(const uchar *row, int d, int dims, int bytes)
{
    return row_four(FA_TYPE_BITMAP_F16, row, d, dims, bytes);
}

/* Elements d to d + 3 of a row that is no sequence of blocks: the bits of their numbers. */
template <bool OF_V>
__device__ __forceinline__ raw4 fetch4_row(const work &s, const uchar *row, int d, bool exist)
{
    if (!exist)
        return make_uint4(0, 0, 0, 0);
    const float4 x = WHOLE_ROWS ? row_four(FA_TYPE_FP8_DS_MLA, row, d, 0, 0)
                                : call_pruned_four(row, d, OF_V ? s.p->dim_v : s.p->dim_qk,
                                                   (OF_V ? s.p->v_scales : s.p->k_scales).row_bytes);
    return make_uint4(__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w));
}

/* Of a key: its first scale and its first zero; NULL where its page is none of the pool's, which makes NaN of its elements. */
struct scaled_row {
    const uchar *scale, *zero;
};

__device__ __forceinline__ int scale_bytes(int type)
{
    return type > TYPE_ANY ? 1 : bytes_of(type);
}

/* The bits of a scale or zero, and what they mean: apart, so that fetching waits for nothing. */
__device__ __forceinline__ uint scale_bits(int type, const uchar *at)
{
    return type == TYPE_F32 ? *(const uint *)at : type < TYPE_ANY ? *(const ushort *)at : *at;
}

__device__ __forceinline__ float scale_number(int type, uint bits)
{
    if (type < TYPE_ANY)
        return type == TYPE_F16 ? from_half((ushort)bits) : __uint_as_float(type == TYPE_F32 ? bits : bits << 16);
    return type == FA_TYPE_E4M3 ? fa_e4m3_widen(bits & 0xffu) : fa_e8m0_widen(bits & 0xffu);
}

__device__ __forceinline__ float scale_at(int type, const uchar *at)
{
    return scale_number(type, scale_bits(type, at));
}

template <bool OF_V>
__device__ __forceinline__ const fa_scales &scales_in(const work &s)
{
    /* What is called cannot read the constant bank that parameters are in. */
    const fa_table_params *const p = SCALED ? (const fa_table_params *)s.a.table : s.p;
    return OF_V ? p->v_scales : p->k_scales;
}

/* Those of a key's place. */
__device__ __forceinline__ scaled_row scaled_row_of(const fa_scales &of, const uchar *scale, const uchar *zero,
                                                    fa_key_place place, int head_kv)
{
    const struct {
        int head_kv;
    } w = {head_kv};
    return {scale + FA_SCALE_ROW(w, of.scale_stride, place, of) * scale_bytes(of.scale_type),
            zero + FA_SCALE_ROW(w, of.zero_stride, place, of) * scale_bytes(of.zero_type)};
}

static __device__ __noinline__ scaled_row call_scaled_row(const fa_scales &of, const uchar *scale, const uchar *zero,
                                                          fa_key_place place, int head_kv)
{
    return scaled_row_of(of, scale, zero, place, head_kv);
}

template <bool OF_V>
__device__ __forceinline__ scaled_row scales_of(const work &s, int key)
{
    fa_key_place place;
    if (s.in_pages()) {
        place = s.place_of(key);
        if (!fa_work_has_page(s, place))
            return {NULL, NULL};
    } else {
        place.page = s.sequence.number;
        place.within = s.sequence.row + key;
    }
    const uchar *const scale = OF_V ? s.a.v_scale : s.a.k_scale, *const zero = OF_V ? s.a.v_zero : s.a.k_zero;
    if constexpr (SCALED)
        return call_scaled_row(scales_in<OF_V>(s), scale, zero, place, s.head_kv);
    return scaled_row_of(scales_in<OF_V>(s), scale, zero, place, s.head_kv);
}

/* How the elements from dim d on are scaled, up to the next group of dims. */
__device__ __forceinline__ fa_scaling scaling_at(const fa_scales &of, scaled_row row, int d)
{
    const int group = FA_GROUP_OF(d, of.dims, of.dims_shift);
    fa_scaling s = {of.factor, 0.0f};
    if (of.scale_type >= 0)
        s.scale *= scale_at(of.scale_type, row.scale + group * of.scale_stride[3] * scale_bytes(of.scale_type));
    if (of.zero_type >= 0)
        s.offset = scale_at(of.zero_type, row.zero + group * of.zero_stride[3] * scale_bytes(of.zero_type));
    return s;
}

/* Elements d to d + 3 of a row, which are in the block there. */
__device__ __forceinline__ float4 scaled_four(const fa_scales &of, int type, const uchar *block, scaled_row row, int d)
{
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    uint codes = fa_codes_of(type, block, 0, d & ((1 << FA_TYPE_BLOCK_SHIFT(type)) - 1));
    fa_scaling by = {__uint_as_float(0x7fc00000u), 0.0f};
    ROLLED
    for (int i = 0; i < 4; i++) {
        if ((row.scale || of.scale_type < 0) && (i == 0 || of.dims % 4 != 0))
            by = scaling_at(of, row, d + i);
        x = make_float4(x.y, x.z, x.w, fmaf(by.scale, fa_bare_number(type, codes & 255u), by.offset));
        codes >>= 8;
    }
    return x;
}

static __device__ __noinline__ float4 call_scaled_four(const fa_scales &of, int type, const uchar *block, scaled_row row, int d)
{
    return scaled_four(of, type, block, row, d);
}

/* The bits of their numbers. */
template <bool OF_V>
__device__ __forceinline__ raw4 fetch4_scaled(const work &s, const uchar *block, scaled_row row, int d, bool exist)
{
    if (!exist)
        return make_uint4(0, 0, 0, 0);
    const float4 x = call_scaled_four(scales_in<OF_V>(s), OF_V ? s.a.type_v : s.a.type_k, block, row, d);
    return make_uint4(__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w));
}
