/* SPDX-License-Identifier: Apache-2.0 */
/* What a description can do to scores, how a row begins and how it ends: the same for every kernel. */
#pragma once

#include "core/portable/walk.h"
#include "memory.cuh"

/* The words of core/portable/work.h, keys.h and lanes.h, which follow. */
#define FA_WORK const work &
#define FA_PARAM(w, member) (w).p->member
#define FA_SEQUENCE(w, member) (w).sequence.member
#define FA_FLOAT_AT(w, n) ((const float *)(w).a.table)[n]
#ifdef FA_HAS_LISTS
#define FA_LISTS(w) true
#else
#define FA_LISTS(w) false
#endif
#define FA_LIST_WORD(w, n) ((const fa_uint *)(w).a.table)[n]
#define FA_INDEX(x) ((fa_long)(x))
#define FA_WIDE(x) (x)
#define FA_ROLLED ROLLED
#define FA_LATE(x) late(x)
#define FA_LOAD_BIAS(w, n) load((w).p->bias_type, (w).a.bias + (n) * bytes_of((w).p->bias_type))
#define FA_LOAD_KEEP(w, n) (w).a.keep[n]
#define FA_LOAD_BITS(w, n) ((const fa_uint *)(w).a.keep)[n]
#define FA_LOAD_PAGE(w, n) (w).a.page_table[n]
#define FA_UNROLL UNROLL
#define FA_SHUFFLE_XOR(x, mask) __shfl_xor_sync(0xffffffffu, x, mask)

/* The same number, of which the compiler no longer knows where it comes from: what follows from it is not kept for long. */
template <typename T>
__device__ __forceinline__ T late(T x)
{
    asm volatile("" : "+r"(x));
    return x;
}

/* Rows of k or v of an item whose keys are not in pages: where the one of key 0 begins, and bytes to the next. */
struct cursor {
    const uchar *first;
    fa_long step;

    /* Where a key's row begins. */
    __device__ const uchar *row_at(int key) const { return first + key * step; }

    /* From a place in a row to the same in the row `keys` further on, of one block of keys. */
    __device__ const uchar *row_after(const uchar *at, int keys) const { return at + keys * step; }
};

/* The row of a key whose page the pool has not, of any type: a key of NaNs makes NaN of the rows that see it. */
struct __align__(16) row_of_nans {
    uint word[FA_CUDA_MOST_DIM];
    constexpr row_of_nans() : word()
    {
        for (uint &x : word)
            x = 0xffffffffu;
    }
};
static __device__ const row_of_nans no_row;

struct fa_key_place; /* see core/portable/keys.h */

/* A work item, and what is the same for all of it. */
struct work {
    const fa_cuda_args &a;
    const fa_table_params *const p;
    fa_table_sequence sequence;
    int head_kv, row_begin, row_end, key_begin, key_end;
    fa_walk walk;
    fa_long part_row;
    const uchar *k, *v; /* the KV head's first rows */

    static __device__ const fa_table_item *item_at(const fa_cuda_args &a, int item)
    {
        return (const fa_table_item *)a.table + a.p.items_at + item;
    }
    static __device__ const fa_table_sequence *sequence_at(const fa_cuda_args &a, int number)
    {
        return (const fa_table_sequence *)a.table + a.p.sequences_at + number;
    }

    __device__ work(const fa_cuda_args &args, int item) : work(args, *item_at(args, item)) {}
    __device__ work(const fa_cuda_args &args, const fa_table_item &w) : work(args, w, *sequence_at(args, w.sequence)) {}
    __device__ work(const fa_cuda_args &args, const fa_table_item &w, const fa_table_sequence &of);

    /* The item's rows of k and of v. TYPE is theirs, or TYPE_ANY. */
    template <int TYPE>
    __device__ cursor keys() const
    {
        return {k, span_of(p->k_stride[2], TYPE == TYPE_ANY ? a.type_k : TYPE, a.in_k)};
    }
    template <int TYPE>
    __device__ cursor values() const
    {
        return {v, span_of(p->v_stride[2], TYPE == TYPE_ANY ? a.type_v : TYPE, a.in_v)};
    }

    __device__ bool in_pages() const { return (p->flags & FA_TABLE_PAGES) != 0; }

    /* The place of a key that lies in a page; past the item's end, where the table may say anything, the last key's. */
    __device__ fa_key_place place_of(int key) const;

    /* Where the row of k, or of v, in that place begins. */
    template <int TYPE, bool OF_V>
    __device__ const uchar *row_in(fa_key_place at) const;

    /* Where the rows of N keys of the item begin, of k or of v, wherever they lie. */
    template <int TYPE, bool OF_V, int N>
    __device__ void rows_of(const int key[N], const uchar *at[N]) const;

    template <int TYPE>
    __device__ const uchar *value_at(int key) const
    {
        const uchar *at;
        rows_of<TYPE, true, 1>(&key, &at);
        return at;
    }

    /* Likewise, of keys in pages. */
    template <int TYPE, bool OF_V, int N>
    __device__ void rows_in_pages(const int key[N], const uchar *at[N]) const;

    /* Whether hidden keys are among [key, key_end), for some row of the item. */
    __device__ bool is_cut(int key, int end) const;
};

#include "core/portable/work.h"
#include "core/portable/keys.h"
#include "core/portable/lanes.h"
#define FA_LANES 32
#define FA_LANE int(threadIdx.x % 32)
#define FA_BALLOT(x) __ballot_sync(0xffffffffu, x)
#define FA_LOWEST(bits) (__ffs(bits) - 1)
#include "core/portable/met.h"

__device__ __forceinline__ fa_key_place work::place_of(int key) const
{
    return fa_work_place(*this, FA_MIN(key, key_end - 1));
}

__device__ __forceinline__ bool work::is_cut(int key, int end) const
{
    return fa_work_class(*this, key, end) != FA_CLASS_FULL;
}

template <int TYPE, bool OF_V>
__device__ __forceinline__ const uchar *work::row_in(fa_key_place at) const
{
    if (!fa_work_has_page(*this, at))
        return (const uchar *)&no_row;
    if (OF_V)
        return a.v + span_of(FA_PLACE_AT(*this, v, at), TYPE == TYPE_ANY ? a.type_v : TYPE, a.in_v);
    return a.k + span_of(FA_PLACE_AT(*this, k, at), TYPE == TYPE_ANY ? a.type_k : TYPE, a.in_k);
}

template <int TYPE, bool OF_V, int N>
__device__ __forceinline__ void work::rows_in_pages(const int key[N], const uchar *at[N]) const
{
    UNROLL
    for (int n = 0; n < N; n++)
        at[n] = row_in<TYPE, OF_V>(place_of(key[n]));
}

template <int TYPE, bool OF_V, int N>
__device__ __forceinline__ void work::rows_of(const int key[N], const uchar *at[N]) const
{
    if (in_pages()) {
        rows_in_pages<TYPE, OF_V, N>(key, at);
    } else {
        UNROLL
        for (int n = 0; n < N; n++)
            at[n] = OF_V ? values<TYPE>().row_at(key[n]) : keys<TYPE>().row_at(key[n]);
    }
}

__device__ __forceinline__ work::work(const fa_cuda_args &args, const fa_table_item &w, const fa_table_sequence &of)
    : a(args), p(&args.p), sequence(of)
{
    head_kv = w.head_kv;
    row_begin = w.row_begin;
    row_end = w.row_end;
    key_begin = w.key_begin;
    key_end = w.key_end;
    part_row = w.part_row;
    walk = fa_walk_of(of.mask, p->group, row_begin, row_end, key_end);
    k = a.k + span_of(FA_HEAD_AT(*this, k), a.type_k, a.in_k);
    v = a.v + span_of(FA_HEAD_AT(*this, v), a.type_v, a.in_v);
}

/* A packed row, and where what belongs to it lies. */
struct query : fa_row {
    __device__ query(const work &s, int row) : fa_row(fa_work_row(s, row)) {}

    __device__ bool sees(const work &s, int key) const { return fa_work_sees(s, *this, key); }
    __device__ const uchar *q(const work &s) const { return s.a.q + FA_ROW_AT(s, q, *this) * bytes_of(s.a.type_q); }
    __device__ uchar *o(const work &s) const { return s.a.o + FA_ROW_AT(s, o, *this) * bytes_of(s.a.type_o); }
    __device__ float *lse(const work &s) const { return (float *)s.a.lse + FA_LSE_AT(s, *this); }
};

__device__ __forceinline__ bool transforms(const work &s)
{
    return s.p->score.transforms != 0;
}

/* 2^x to two units in the last place; what would be denormal is 0. */
__device__ __forceinline__ float exp2_fast(float x)
{
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(x));
    return x;
}

/*
 * The kernel that merges parts may be started before the one that makes them ends: as soon as all blocks of that let it. Then
 * it waits until they are there.
 */
__device__ __forceinline__ void let_merge_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_parts()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Where a finished row goes: the operand o, or the partial results of an item that is a part. */
struct target {
    uchar *at;
    float factor;
    int type;
    bool aligned;

    /* One work-item of the row, that `writes`, also stores its LSE. */
    __device__ target(const work &s, const query &q, int row, fa_state state, bool writes)
    {
        const bool whole = s.part_row < 0;
        const fa_long part = s.part_row + row - s.row_begin;
        const fa_closed closed = fa_work_close(s, q, state, whole);
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
