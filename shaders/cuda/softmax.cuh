/* SPDX-License-Identifier: Apache-2.0 */
/* What a description can do to scores, how a row begins and how it ends: the same for every kernel. */
#pragma once

#include "core/portable/softmax.h"
#include "memory.cuh"

/* A work item, and what is the same for all of it. */
struct scene {
    const fa_cuda_args &a;
    const fa_table_params *const p;
    fa_table_sequence sequence;
    fa_mask mask;
    int head_kv, row_begin, row_end, key_begin, key_end;
    int first_position, end_position;
    fa_long part_row;
    const uchar *k, *v; /* the KV head's first rows */

    static __device__ const fa_table_item *item_at(const fa_cuda_args &a, int item)
    {
        return (const fa_table_item *)(a.table + a.p.items_at) + item;
    }
    static __device__ const fa_table_sequence *sequence_at(const fa_cuda_args &a, int number)
    {
        return (const fa_table_sequence *)(a.table + a.p.sequences_at) + number;
    }

    __device__ scene(const fa_cuda_args &args, int item) : scene(args, *item_at(args, item)) {}
    __device__ scene(const fa_cuda_args &args, const fa_table_item &w) : scene(args, w, *sequence_at(args, w.sequence)) {}
    __device__ scene(const fa_cuda_args &args, const fa_table_item &w, const fa_table_sequence &of)
        : a(args), p(&args.p), sequence(of), mask(of.mask)
    {
        head_kv = w.head_kv;
        row_begin = w.row_begin;
        row_end = w.row_end;
        key_begin = w.key_begin;
        key_end = w.key_end;
        part_row = w.part_row;
        first_position = row_begin / p->group;
        end_position = (row_end - 1) / p->group + 1;
        k = a.k + (sequence.k_at + head_kv * p->k_stride[1]) * bytes_of(a.type_k);
        v = a.v + (sequence.v_at + head_kv * p->v_stride[1]) * bytes_of(a.type_v);
    }

    __device__ fa_long k_stride() const { return p->k_stride[2] * bytes_of(a.type_k); }
    __device__ fa_long v_stride() const { return p->v_stride[2] * bytes_of(a.type_v); }

    /* Whether hidden keys are among [key, key_end), for some row of the item. */
    __device__ bool is_cut(int key, int end) const
    {
        return fa_mask_classify(mask, first_position, end_position, key, end) != FA_CLASS_FULL;
    }

    /* The first block of `keys` from `key` on of which some row sees something; key_end where there is none. */
    __device__ int next_block(int key, int keys) const
    {
        while (key < key_end && fa_mask_classify(mask, first_position, end_position, key, FA_MIN(key + keys, key_end)) ==
                                    FA_CLASS_SKIP)
            key += keys;
        return FA_MIN(key, key_end);
    }
};

/* One query row: where it stands and what it sees. Rows past the item's end are its last one. */
struct query {
    int head, position;
    int begin, end; /* its interval of keys */
    bool exists;

    __device__ query(const scene &s, int row)
    {
        exists = row < s.row_end;
        const int r = exists ? row : s.row_end - 1;
        position = r / s.p->group;
        head = s.head_kv * s.p->group + r - position * s.p->group;
        begin = fa_mask_begin(s.mask, position);
        end = fa_mask_end(s.mask, position);
    }

    __device__ bool sees(const scene &s, int key) const
    {
        return key < s.mask.prefix || (key >= begin && key < end);
    }

    __device__ const uchar *q(const scene &s) const
    {
        return s.a.q + (s.sequence.q_at + head * s.p->q_stride[1] + position * s.p->q_stride[2]) * bytes_of(s.a.type_q);
    }

    __device__ uchar *o(const scene &s) const
    {
        return s.a.o + (s.sequence.o_at + head * s.p->o_stride[1] + position * s.p->o_stride[2]) * bytes_of(s.a.type_o);
    }

    __device__ float *lse(const scene &s) const
    {
        return (float *)s.a.lse + s.sequence.lse_at + (fa_long)head * s.p->lse_rows + position;
    }

    __device__ float sink(const scene &s) const
    {
        return s.p->flags & FA_TABLE_SINKS ? ((const float *)(s.a.table + s.p->sinks_at))[head] : FA_NEG_INF;
    }
};

__device__ __forceinline__ fa_long extra_at(const scene &s, const fa_long stride[4], const query &q, int key)
{
    return s.sequence.number * stride[0] + q.head * stride[1] + q.position * stride[2] + key * stride[3];
}

__device__ __forceinline__ bool is_kept(const scene &s, const query &q, int key)
{
    return s.a.keep[extra_at(s, s.p->keep_stride, q, key)] != 0;
}

/* Whether neither the mask nor `keep` hides a key that exists. */
__device__ __forceinline__ bool is_visible(const scene &s, const query &q, int key)
{
    return q.sees(s, key) && (!(s.p->flags & FA_TABLE_KEEP) || is_kept(s, q, key));
}

__device__ __forceinline__ bool transforms(const scene &s)
{
    return s.p->score.transforms != 0;
}

/* A visible raw product as a score, a natural logarithm; -inf where `keep` hides it. */
__device__ __forceinline__ float transform(const scene &s, const query &q, int key, float x)
{
    const int flags = s.p->flags;
    x = fa_score_scaled(s.p->score, x);
    if (flags & FA_TABLE_ALIBI) {
        const float *slopes = (const float *)(s.a.table + s.p->slopes_at) + s.sequence.number * s.p->slope_stride;
        x = fa_score_sloped(x, slopes[q.head], s.mask.diagonal + q.position - key);
    }
    if (flags & FA_TABLE_BIAS) {
        float bias = load(s.p->bias_type, s.a.bias + extra_at(s, s.p->bias_stride, q, key) * bytes_of(s.p->bias_type));
        if (flags & FA_TABLE_BIAS_FACTORS)
            bias *= ((const float *)(s.a.table + s.p->factors_at))[q.head];
        x = fa_score_biased(x, bias);
    }
    if ((flags & FA_TABLE_KEEP) && !is_kept(s, q, key))
        x = FA_NEG_INF;
    return x;
}

/* 2^x to two units in the last place; what would be denormal is 0. */
__device__ __forceinline__ float exp2_fast(float x)
{
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(x));
    return x;
}

__device__ __forceinline__ float4 normalised(float4 x, float factor)
{
    return make_float4(fa_normalised(x.x, factor), fa_normalised(x.y, factor), fa_normalised(x.z, factor),
                       fa_normalised(x.w, factor));
}

/* Where a finished row goes: the operand o, or the partial results of an item that is a part. */
struct target {
    uchar *at;
    float factor;
    int type;
    bool aligned;

    /* One work-item of the row, that `writes`, also stores its LSE. */
    __device__ target(const scene &s, const query &q, int row, fa_state state, bool writes)
    {
        const bool whole = s.part_row < 0;
        const fa_long part = s.part_row + row - s.row_begin;
        const fa_closed closed = fa_state_close(state, s.p->score.natural, whole ? q.sink(s) : FA_NEG_INF);
        factor = closed.factor;
        type = whole ? s.a.type_o : TYPE_F32;
        aligned = whole ? s.a.aligned : s.p->dim_v % 4 == 0;
        at = whole ? q.o(s) : s.a.partial + part * s.p->dim_v * 4;
        if (writes && q.exists && !whole)
            ((float2 *)s.a.partial_state)[part] = make_float2(state.max, state.sum);
        if (writes && q.exists && whole && (s.p->flags & FA_TABLE_LSE))
            *q.lse(s) = closed.lse;
    }
};

template <int LANES>
__device__ __forceinline__ float lanes_max(float x)
{
    UNROLL
    for (int bit = 1; bit < LANES; bit *= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bit));
    return x;
}

template <int LANES>
__device__ __forceinline__ float lanes_sum(float x)
{
    UNROLL
    for (int bit = 1; bit < LANES; bit *= 2)
        x += __shfl_xor_sync(0xffffffffu, x, bit);
    return x;
}
