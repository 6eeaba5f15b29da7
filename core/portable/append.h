/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An append, in the words of task.h. A unit is what one work-item writes: a block of a format of caches, or eight elements
 * of other types, of one head of one row. The units of a head of k come before those of v. A work-group does
 * FA_APPEND_SHARE of them.
 */
#ifndef FA_PORTABLE_APPEND_H
#define FA_PORTABLE_APPEND_H

#include "encode.h"
#include "task.h"

#define FA_APPEND_SHARE 64

/* Operands and, by the same numbers, the constants that are their types. */
#define FA_APPEND_K 0
#define FA_APPEND_V 1
#define FA_APPEND_CACHE_K 2
#define FA_APPEND_CACHE_V 3
#define FA_APPEND_SLOTS 4

/* Strides are in elements; of k and v they are of batch, head, row, of a cache of entry, head, key. */
FA_STRUCT(fa_append_params)
    fa_long k_stride[3], v_stride[3], cache_k_stride[3], cache_v_stride[3];
    int batch, heads, rows; /* new ones */
    int entries, keys;      /* of the cache */
    int dim_k, dim_v;       /* dim_v 0: there is no v */
    int units_k, units_v;   /* of a head of a row */
    int units;              /* of all */
FA_STRUCT_END(fa_append_params)
FA_TASK_VIEW(fa_append_params)

/* Elements of a unit of a type. */
#define FA_APPEND_UNIT(type) (FA_TYPE_IS_CODED(type) && !FA_TYPE_IS_FP8(type) ? 32 : 8)

FA_STRUCT(fa_append_elements)
    float x[32];
FA_STRUCT_END(fa_append_elements)

FA_KERNEL_FN fa_uint fa_append_narrow(int type, float x)
{
    return type == 1              ? fa_f16_narrow(x)
           : type == 2            ? fa_bf16_narrow(x)
           : type == FA_TYPE_E4M3 ? fa_e4m3_narrow(x)
                                  : fa_e5m2_narrow(x);
}

/* Eight elements of f32, f16, bf16 or fp8. */
FA_KERNEL_FN fa_task_bytes fa_append_plain(int type, fa_append_elements e)
{
    fa_task_bytes b;
    for (int i = 0; i < 9; i++)
        b.word[i] = 0u;
    if (type == 0) {
        for (int i = 0; i < 8; i++)
            b.word[i] = FA_AS_UINT(e.x[i]);
    } else if (FA_TYPE_IS_FP8(type)) {
        for (int i = 0; i < 8; i++)
            b.word[i >> 2] |= fa_append_narrow(type, e.x[i]) << FA_UINT(8 * (i & 3));
    } else {
        for (int i = 0; i < 8; i++)
            b.word[i >> 1] |= fa_append_narrow(type, e.x[i]) << FA_UINT(16 * (i & 1));
    }
    return b;
}

FA_KERNEL_FN fa_task_bytes fa_append_block(int type, fa_append_elements e)
{
    fa_task_bytes b;
    fa_block_range range = fa_block_range_of(e.x[0]);
    for (int i = 1; i < 32; i++)
        range = fa_block_range_with(range, e.x[i]);
    fa_coder c = fa_coder_of(type, range);
    if (type == FA_TYPE_IQ4_NL) {
        for (int i = 0; i < 32; i++)
            range = fa_block_refine(range, c, e.x[i]);
        c.scale = range.by_code != 0.0f ? range.by_peak / range.by_code : 0.0f;
    }
    for (int i = 0; i < 9; i++)
        b.word[i] = 0u;
    /* Halves are numbered from the block's begin: the scale, the offset, fifth bits in two, then codes. */
    int half_at = 1;
    b.word[0] = fa_f16_narrow(c.scale);
    if (FA_TYPE_HAS_OFFSET(type)) {
        b.word[0] |= fa_f16_narrow(c.offset) << 16;
        half_at = 2;
    }
    const int fifths = half_at;
    if (FA_TYPE_CODE_BITS(type) == 5)
        half_at += 2;
    for (int i = 0; i < 32; i++) {
        const fa_uint code = fa_code_of(type, c, e.x[i]);
        const int byte = FA_TYPE_CODE_BITS(type) == 8 ? 2 * half_at + i : 2 * half_at + (i & 15);
        const int shift = 8 * (byte & 3) + (FA_TYPE_CODE_BITS(type) != 8 && i >= 16 ? 4 : 0);
        b.word[byte >> 2] |= (FA_TYPE_CODE_BITS(type) == 8 ? code : code & 15u) << FA_UINT(shift);
        if (FA_TYPE_CODE_BITS(type) == 5) {
            const int bit = 16 * fifths + i;
            b.word[bit >> 5] |= (code >> 4 & 1u) << FA_UINT(bit & 31);
        }
    }
    return b;
}

/*
 * Unit `u` of a head of a row, where kv is k or v: n and to_n are its operands, from and to the elements that precede the
 * head's row there.
 */
#define FA_APPEND_DEFINE(kv, n, to_n)                                                                   \
    FA_KERNEL_FN void fa_append_##kv(FA_TASK t, int u, FA_AT from, FA_AT to)                            \
    {                                                                                                   \
        int type = FA_TASK_CONSTANT(t, n), to_type = FA_TASK_CONSTANT(t, to_n);                         \
        int dim = FA_TASK_PARAM(t, fa_append_params, dim_##kv);                                         \
        int unit = FA_APPEND_UNIT(to_type), first = u * unit, count = FA_MIN(dim - first, unit);        \
        fa_append_elements e;                                                                           \
        fa_task_bytes b;                                                                                \
        int i;                                                                                          \
        for (i = 0; i < unit; i++) {                                                                    \
            FA_AT at = from + FA_INDEX(first + FA_MIN(i, count - 1));                                   \
            if (type == 0)                                                                              \
                e.x[i] = FA_AS_FLOAT(FA_GET32(t, n, at * FA_INDEX(4)));                                 \
            else                                                                                        \
                e.x[i] = fa_float_widen(type, FA_GET16(t, n, at * FA_INDEX(2)));                        \
        }                                                                                               \
        if (unit == 32)                                                                                 \
            b = fa_append_block(to_type, e);                                                            \
        else                                                                                            \
            b = fa_append_plain(to_type, e);                                                            \
        FA_AT at = FA_TYPE_SPAN(to_type, to + FA_INDEX(first));                                         \
        int bytes = FA_TYPE_IS_CODED(to_type) ? FA_TYPE_SIZE(to_type) : count * FA_TYPE_BYTES(to_type); \
        FA_PUT_BYTES(t, to_n, at, b, bytes, i)                                                          \
    }
FA_APPEND_DEFINE(k, 0, 2)
FA_APPEND_DEFINE(v, 1, 3)

/* Elements of a tensor that precede a row. */
#define FA_APPEND_ROW(t, x, a, b, c)                                            \
    (FA_INDEX(a) * FA_WIDE(FA_TASK_PARAM(t, fa_append_params, x##_stride)[0]) + \
     FA_INDEX(b) * FA_WIDE(FA_TASK_PARAM(t, fa_append_params, x##_stride)[1]) + \
     FA_INDEX(c) * FA_WIDE(FA_TASK_PARAM(t, fa_append_params, x##_stride)[2]))

/* A row whose slot the cache has not is skipped. */
FA_KERNEL_FN void fa_append_unit(FA_TASK t, int unit)
{
    const int units_k = FA_TASK_PARAM(t, fa_append_params, units_k);
    const int units = units_k + FA_TASK_PARAM(t, fa_append_params, units_v);
    const int heads = FA_TASK_PARAM(t, fa_append_params, heads),
              rows = FA_TASK_PARAM(t, fa_append_params, rows);
    const int keys = FA_TASK_PARAM(t, fa_append_params, keys);
    const int line = unit / units, u = unit - line * units, row = line / heads, head = line - row * heads;
    const int slot = FA_INT(FA_GET32(t, 4, FA_INDEX(row) * FA_INDEX(4)));
    if (slot < 0 || slot >= FA_TASK_PARAM(t, fa_append_params, entries) * keys)
        return;
    const int batch = row / rows, within = row - batch * rows, entry = slot / keys, key = slot - entry * keys;
    if (u < units_k)
        fa_append_k(t, u, FA_APPEND_ROW(t, k, batch, head, within),
                    FA_APPEND_ROW(t, cache_k, entry, head, key));
    else
        fa_append_v(t, u - units_k, FA_APPEND_ROW(t, v, batch, head, within),
                    FA_APPEND_ROW(t, cache_v, entry, head, key));
}

/* The share of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_append_group(FA_TASK t, int group, int item, int items)
{
    const int first = group * FA_APPEND_SHARE;
    const int end = FA_MIN(FA_TASK_PARAM(t, fa_append_params, units) - first, FA_APPEND_SHARE);
    for (int i = item; i < end; i += items)
        fa_append_unit(t, first + i);
}

#endif
