/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An append, in the words of task.h. A unit is what one work-item writes: a block of ggml's formats, or eight elements
 * of other types, of one head of one row; or all of one that keeps some of its elements. All units of k come first, then
 * those of v, then those of q, so that few work-groups have two kinds. A work-group does FA_APPEND_SHARE of them. Where a
 * scale is computed, each unit of those that share it does so, and the first writes it: so no unit waits for another.
 */
#ifndef FA_PORTABLE_APPEND_H
#define FA_PORTABLE_APPEND_H

#include "encode.h"
#include "prune.h"
#include "rotary.h"
#include "table.h"
#include "task.h"

#define FA_APPEND_SHARE 64

/* Operands. */
#define FA_APPEND_K 0
#define FA_APPEND_V 1
#define FA_APPEND_CACHE_K 2
#define FA_APPEND_CACHE_V 3
#define FA_APPEND_SLOTS 4
#define FA_APPEND_Q 5
#define FA_APPEND_Q_OUT 6
#define FA_APPEND_POSITIONS 7
#define FA_APPEND_COSINES 8
#define FA_APPEND_SINES 9
#define FA_APPEND_K_SCALE 10
#define FA_APPEND_V_SCALE 11
#define FA_APPEND_K_ZERO 12
#define FA_APPEND_V_ZERO 13

/*
 * What programs are compiled for: types of k, q and q_out; of v, and how rows are rotated, four bits each, and
 * FA_APPEND_NO_Q in the place of the type of a q that there is not. Of the caches, five bits each: their types, then those of
 * scales and zeros in tensors of their own, -1 where there are none.
 */
#define FA_APPEND_TYPE_K(t) (FA_TASK_CONSTANT(t, 0) & 15)
#define FA_APPEND_TYPE_Q(t) (FA_TASK_CONSTANT(t, 0) >> 4 & 15)
#define FA_APPEND_TYPE_Q_OUT(t) (FA_TASK_CONSTANT(t, 0) >> 8)
#define FA_APPEND_TYPE_V(t) (FA_TASK_CONSTANT(t, 1) & 15)
#define FA_APPEND_FORM(t) (FA_TASK_CONSTANT(t, 1) >> 4)
#define FA_APPEND_CACHE(type, scale, zero) ((type) | ((scale) + 1) << 5 | ((zero) + 1) << 10)
#define FA_APPEND_TYPE_CACHE_K(t) (FA_TASK_CONSTANT(t, 2) & 31)
#define FA_APPEND_TYPE_CACHE_V(t) (FA_TASK_CONSTANT(t, 3) & 31)
#define FA_APPEND_TYPE_K_SCALE(t) ((FA_TASK_CONSTANT(t, 2) >> 5 & 31) - 1)
#define FA_APPEND_TYPE_V_SCALE(t) ((FA_TASK_CONSTANT(t, 3) >> 5 & 31) - 1)
#define FA_APPEND_TYPE_K_ZERO(t) ((FA_TASK_CONSTANT(t, 2) >> 10) - 1)
#define FA_APPEND_TYPE_V_ZERO(t) ((FA_TASK_CONSTANT(t, 3) >> 10) - 1)
#define FA_APPEND_NO_Q 15

/* Whether the scales of k or v are there, or are computed from the rows: for each head, or for all heads of a row together. */
#define FA_APPEND_FITS_NONE 0
#define FA_APPEND_FITS_HEAD 1
#define FA_APPEND_FITS_ROW 2

/*
 * Strides are in elements, of bitmap_f16 in bytes: of new rows those of batch, head, row, of a cache of entry, head, key.
 * The list behind it has an fa_turn for each pair.
 */
FA_STRUCT(fa_append_params)
    fa_long k_stride[3], v_stride[3], cache_k_stride[3], cache_v_stride[3], q_stride[3], q_out_stride[3];
    fa_scales k_scales, v_scales;  /* the same for all keys, or each key has its own */
    int batch, heads, rows;        /* new ones */
    int entries, keys;             /* of the cache */
    int dim_k, dim_v;              /* dim_v 0: there is no v */
    int units_k, units_v, units_q; /* of a head of a row */
    int end_k, end_v, units;       /* where those of all of k end, then those of v; all */
    int heads_q;
    int rotary_first, rotary_dims, pairs;
    int turns_at;        /* the list's first entry */
    int table_positions; /* of cosines and sines; 0: there are none */
    float gain;          /* of both */
    int k_fits, v_fits;  /* FA_APPEND_FITS_* */
FA_STRUCT_END(fa_append_params)
FA_TASK_VIEW(fa_append_params)
FA_TASK_VIEW(fa_turn)

#define FA_APPEND_PARAM(t, member) FA_TASK_PARAM(t, fa_append_params, member)

/* Elements of a unit of a type. */
#define FA_APPEND_UNIT(type) \
    (FA_TYPE_IS_CODED(type) && !FA_TYPE_IS_BARE(type) && !FA_TYPE_IS_ROW(type) ? 32 : 8)

/* Of a unit, which has no more: as bits of the type that they have in memory, and as numbers. */
FA_STRUCT(fa_append_bits)
    fa_uint of[32];
FA_STRUCT_END(fa_append_bits)

FA_STRUCT(fa_append_elements)
    float x[32];
FA_STRUCT_END(fa_append_elements)

FA_KERNEL_FN fa_append_elements fa_append_widen(int type, fa_append_bits bits, int count)
{
    fa_append_elements e;
    FA_ROLLED
    for (int i = 0; i < count; i++)
        e.x[i] = fa_float_widen(type, bits.of[i]);
    return e;
}

FA_KERNEL_FN fa_uint fa_append_narrow(int type, float x)
{
    return type == 0              ? FA_AS_UINT(x)
           : type == 1            ? fa_f16_narrow(x)
           : type == 2            ? fa_bf16_narrow(x)
           : type == FA_TYPE_E4M3 ? fa_e4m3_narrow(x)
                                  : fa_e5m2_narrow(x);
}

FA_KERNEL_FN fa_task_bytes fa_append_no_bytes(void)
{
    fa_task_bytes b;
    FA_UNROLLED
    for (int i = 0; i < 9; i++)
        b.word[i] = 0u;
    return b;
}

/* With element i, where all have so many bits, a power of two. */
FA_KERNEL_FN fa_task_bytes fa_append_with(fa_task_bytes b, int width, int i, fa_uint bits)
{
    b.word[i * width >> 5] |= bits << FA_UINT(i * width & 31);
    return b;
}

/* Eight elements of f32, f16, bf16 or fp8. */
FA_KERNEL_FN fa_task_bytes fa_append_plain(int type, fa_append_elements e)
{
    const int width = FA_TYPE_IS_CODED(type) ? 8 : 8 * FA_TYPE_BYTES(type);
    fa_task_bytes b = fa_append_no_bytes();
    FA_ROLLED
    for (int i = 0; i < 8; i++)
        b = fa_append_with(b, width, i, fa_append_narrow(type, e.x[i]));
    return b;
}

FA_KERNEL_FN fa_coder fa_append_coder(int type, fa_append_elements e)
{
    fa_block_range range = fa_block_range_of(e.x[0]);
    FA_ROLLED
    for (int i = 1; i < 32; i++)
        range = fa_block_range_with(range, e.x[i]);
    fa_coder c = fa_coder_of(type, range);
    if (type == FA_TYPE_IQ4_NL) {
        FA_ROLLED
        for (int i = 0; i < 32; i++)
            range = fa_block_refine(range, c, e.x[i]);
        c.scale = range.by_code != 0.0f ? FA_DIVIDE(range.by_peak, range.by_code) : 0.0f;
    }
    return c;
}

/* A block: its scale, its offset, the fifth bits of codes, codes, each if the format has it. */
FA_KERNEL_FN fa_task_bytes fa_append_block(int type, fa_append_elements e)
{
    const fa_coder c = fa_append_coder(type, e);
    const bool wide = FA_TYPE_CODE_BITS(type) == 8, offset = FA_TYPE_HAS_OFFSET(type);
    const int begin = FA_TYPE_CODE_BITS(type) == 5 ? 1 : 0; /* words of fifth bits before the codes */
    fa_task_bytes b, codes;
    FA_UNROLLED
    for (int i = 0; i < 9; i++)
        codes.word[i] = 0u;
    FA_ROLLED
    for (int w = 0; w < 8; w++) {
        fa_uint four = 0u;
        FA_UNROLLED
        for (int i = 0; i < 4; i++)
            four |= fa_code_of(type, c, e.x[4 * w + i]) << FA_UINT(8 * i);
        if (wide)
            codes.word[w] = four;
        else
            codes.word[begin + (w & 3)] |= (four & 0x0f0f0f0fu) << (w < 4 ? 0u : 4u);
        if (begin > 0) {
            const fa_uint fifths = four >> 4 & 0x01010101u;
            codes.word[0] |= ((fifths | fifths >> 7 | fifths >> 14 | fifths >> 21) & 15u) << FA_UINT(4 * w);
        }
    }
    b.word[0] = fa_f16_narrow(c.scale) | (offset ? fa_f16_narrow(c.offset) : codes.word[0] & 0xffffu) << 16;
    FA_UNROLLED
    for (int i = 1; i < 9; i++)
        b.word[i] = offset ? codes.word[i - 1] : codes.word[i - 1] >> 16 | codes.word[i] << 16;
    return b;
}

FA_KERNEL_FN fa_task_bytes fa_append_encoded(int type, fa_append_elements e)
{
    if (FA_APPEND_UNIT(type) == 32)
        return fa_append_block(type, e);
    return fa_append_plain(type, e);
}

/* Whether a row has a position that rotation is defined for. */
FA_KERNEL_FN bool fa_append_has_position(FA_TASK t, int position)
{
    return position >= 0 &&
           (FA_APPEND_PARAM(t, table_positions) == 0 || position < FA_APPEND_PARAM(t, table_positions));
}

FA_KERNEL_FN int fa_append_position(FA_TASK t, int row)
{
    return FA_APPEND_FORM(t) == FA_PAIRS_NONE ? 0 : FA_INT(FA_GET32(t, 7, FA_INDEX(row) * FA_INDEX(4)));
}

FA_KERNEL_FN fa_rotation fa_append_rotation(FA_TASK t, int position, int pair)
{
    fa_rotation r;
    if (FA_APPEND_PARAM(t, table_positions) > 0) {
        FA_AT at = (FA_INDEX(position) * FA_INDEX(FA_APPEND_PARAM(t, pairs)) + FA_INDEX(pair)) * FA_INDEX(4);
        r.cosine = FA_AS_FLOAT(FA_GET32(t, 8, at));
        r.sine = FA_AS_FLOAT(FA_GET32(t, 9, at));
    } else {
        r = fa_rotation_of(FA_TASK_LIST(t, fa_turn, FA_APPEND_PARAM(t, turns_at) + pair), position);
        r.cosine *= FA_APPEND_PARAM(t, gain);
        r.sine *= FA_APPEND_PARAM(t, gain);
    }
    return r;
}

/* The dim that dim d turns with; d, where it does not turn. */
FA_KERNEL_FN int fa_append_partner(FA_TASK t, int d)
{
    const int first = FA_APPEND_PARAM(t, rotary_first), dims = FA_APPEND_PARAM(t, rotary_dims);
    return d >= first && d - first < dims ? first + fa_rotary_partner(FA_APPEND_FORM(t), dims, d - first) : d;
}

/* Of the elements of a unit, which begin at dim `begin`, the first `count`, turned with their partners. */
FA_KERNEL_FN fa_append_elements fa_append_turned(FA_TASK t, fa_append_elements e, fa_append_elements others,
                                                 int position, int begin, int count, int unit)
{
    const int form = FA_APPEND_FORM(t), dims = FA_APPEND_PARAM(t, rotary_dims);
    const int from = begin - FA_APPEND_PARAM(t, rotary_first);
    const int end = FA_MIN(count, dims - from);
    FA_ROLLED
    for (int i = 0; i < unit; i++) {
        if (i < end && from + i >= 0) {
            const int d = from + i, other = fa_rotary_partner(form, dims, d);
            e.x[i] = fa_rotated(fa_append_rotation(t, position, fa_rotary_pair(form, dims, d)), d < other,
                                e.x[i], others.x[i]);
        }
    }
    return e;
}

/*
 * Rows of operand n that go into operand to_n, rotated or not; their types are TYPE and TO_TYPE. from and to are the elements
 * that precede the row's there.
 */
#define FA_APPEND_DEFINE(name, n, to_n, TYPE, TO_TYPE, DIM, ROTATES)                                    \
    /* Elements, or with `partners` those that they are turned with, eight on their way at a time. */   \
    FA_KERNEL_FN fa_append_bits fa_append_fetch_##name(FA_TASK t, FA_AT from, int begin, int count,     \
                                                       bool partners)                                   \
    {                                                                                                   \
        int type = TYPE, to_type = TO_TYPE, unit = FA_APPEND_UNIT(to_type);                             \
        fa_append_bits bits;                                                                            \
        FA_ROLLED                                                                                       \
        for (int first = 0; first < unit; first += 8) {                                                 \
            FA_UNROLLED                                                                                 \
            for (int i = first; i < first + 8; i++) {                                                   \
                int d = begin + (unit == 8 ? FA_MIN(i, count - 1) : i);                                 \
                if (partners)                                                                           \
                    d = fa_append_partner(t, d);                                                        \
                if (type == 0)                                                                          \
                    bits.of[i] = FA_GET32(t, n, (from + FA_INDEX(d)) * FA_INDEX(4));                    \
                else                                                                                    \
                    bits.of[i] = FA_GET16(t, n, (from + FA_INDEX(d)) * FA_INDEX(2));                    \
            }                                                                                           \
        }                                                                                               \
        return bits;                                                                                    \
    }                                                                                                   \
                                                                                                        \
    /* Those of a unit, as they go into the cache. */                                                   \
    FA_KERNEL_FN fa_append_elements fa_append_take_##name(FA_TASK t, FA_AT from, int begin, int count,  \
                                                          int position)                                 \
    {                                                                                                   \
        int type = TYPE, to_type = TO_TYPE, unit = FA_APPEND_UNIT(to_type);                             \
        fa_append_elements e =                                                                          \
            fa_append_widen(type, fa_append_fetch_##name(t, from, begin, count, false), unit);          \
        if (ROTATES && FA_APPEND_FORM(t) != FA_PAIRS_NONE) {                                            \
            fa_append_elements others =                                                                 \
                fa_append_widen(type, fa_append_fetch_##name(t, from, begin, count, true), unit);       \
            e = fa_append_turned(t, e, others, position, begin, count, unit);                           \
        }                                                                                               \
        return e;                                                                                       \
    }                                                                                                   \
                                                                                                        \
    FA_KERNEL_FN void fa_append_##name(FA_TASK t, int u, FA_AT from, FA_AT to, int position)            \
    {                                                                                                   \
        int to_type = TO_TYPE, unit = FA_APPEND_UNIT(to_type);                                          \
        int begin = u * unit, count = FA_MIN(DIM - begin, unit);                                        \
        fa_task_bytes b =                                                                               \
            fa_append_encoded(to_type, fa_append_take_##name(t, from, begin, count, position));         \
        FA_AT at = FA_TYPE_SPAN(to_type, to + FA_INDEX(begin));                                         \
        int bytes = FA_TYPE_IS_CODED(to_type) ? FA_TYPE_SIZE(to_type) : count * FA_TYPE_BYTES(to_type); \
        FA_PUT_BYTES(t, to_n, at, b, bytes)                                                             \
    }
FA_APPEND_DEFINE(k, 0, 2, FA_APPEND_TYPE_K(t), FA_APPEND_TYPE_CACHE_K(t), FA_APPEND_PARAM(t, dim_k), true)
FA_APPEND_DEFINE(v, 1, 3, FA_APPEND_TYPE_V(t), FA_APPEND_TYPE_CACHE_V(t), FA_APPEND_PARAM(t, dim_v), false)
FA_APPEND_DEFINE(q, 5, 6, FA_APPEND_TYPE_Q(t), FA_APPEND_TYPE_Q_OUT(t), FA_APPEND_PARAM(t, dim_k), true)

/* Elements of a tensor that precede a row; of bitmap_f16, bytes. */
#define FA_APPEND_ROW(t, x, a, b, c)                            \
    (FA_INDEX(a) * FA_WIDE(FA_APPEND_PARAM(t, x##_stride)[0]) + \
     FA_INDEX(b) * FA_WIDE(FA_APPEND_PARAM(t, x##_stride)[1]) + \
     FA_INDEX(c) * FA_WIDE(FA_APPEND_PARAM(t, x##_stride)[2]))

/* Scales or zeros that precede that of a group of dims of a key: key, head or entry may have a stride of 0. */
#define FA_APPEND_SCALE_AT(t, x, part, entry, head, key, group)                   \
    (FA_INDEX(entry) * FA_WIDE(FA_APPEND_PARAM(t, x##_scales).part##_stride[0]) + \
     FA_INDEX(head) * FA_WIDE(FA_APPEND_PARAM(t, x##_scales).part##_stride[1]) +  \
     FA_INDEX(key) * FA_WIDE(FA_APPEND_PARAM(t, x##_scales).part##_stride[2]) +   \
     FA_INDEX(group) * FA_WIDE(FA_APPEND_PARAM(t, x##_scales).part##_stride[3]))

/* Writes what FA_GET_SCALE() reads. */
#define FA_APPEND_PUT_SCALE(t, n, type, at, bits)   \
    {                                               \
        if ((type) == 0) {                          \
            FA_PUT32(t, n, (at)*FA_INDEX(4), bits); \
        } else if (FA_TYPE_IS_CODED(type)) {        \
            FA_PUT8(t, n, at, bits);                \
        } else {                                    \
            FA_PUT16(t, n, (at)*FA_INDEX(2), bits); \
        }                                           \
    }

/* Programs that have no such operands are smaller. */
#ifdef FA_APPEND_SCALES
/*
 * Likewise rows of k or v whose scales, and zeros if any, lie in operands scale_n and zero_n.
 */
#define FA_APPEND_DEFINE_SCALED(name, to_n, scale_n, zero_n, TO_TYPE, SCALE_TYPE, ZERO_TYPE)                 \
    /* What is computed of dims from `first` on of the heads that share a scale. */                          \
    FA_KERNEL_FN fa_scaling fa_append_fit_##name(FA_TASK t, int batch, int head, int within, int first,      \
                                                 int position)                                               \
    {                                                                                                        \
        int type = TO_TYPE, end = first + FA_APPEND_PARAM(t, name##_scales).dims;                            \
        bool whole_row = FA_APPEND_PARAM(t, name##_fits) == FA_APPEND_FITS_ROW;                              \
        int begin_head = whole_row ? 0 : head, end_head = whole_row ? FA_APPEND_PARAM(t, heads) : head + 1;  \
        FA_AT from = FA_APPEND_ROW(t, name, batch, begin_head, within);                                      \
        fa_block_range r = fa_block_range_of(fa_append_take_##name(t, from, first, 8, position).x[0]);       \
        for (int h = begin_head; h < end_head; h++) {                                                        \
            from = FA_APPEND_ROW(t, name, batch, h, within);                                                 \
            FA_ROLLED                                                                                        \
            for (int begin = first; begin < end; begin += 8) {                                               \
                fa_append_elements e = fa_append_take_##name(t, from, begin, 8, position);                   \
                FA_ROLLED                                                                                    \
                for (int i = 0; i < 8; i++)                                                                  \
                    r = fa_block_range_with(r, e.x[i]);                                                      \
            }                                                                                                \
        }                                                                                                    \
        return fa_fitted(type, r, ZERO_TYPE >= 0);                                                           \
    }                                                                                                        \
                                                                                                             \
    /* The scaling that lies in tensors of its own. */                                                       \
    FA_KERNEL_FN fa_scaling fa_append_scaling_##name(FA_TASK t, FA_AT scale, FA_AT zero)                     \
    {                                                                                                        \
        int scale_type = SCALE_TYPE, zero_type = ZERO_TYPE;                                                  \
        fa_scaling s;                                                                                        \
        s.scale = fa_scale_widen(scale_type, FA_GET_SCALE(t, scale_n, scale_type, scale)) *                  \
                  FA_APPEND_PARAM(t, name##_scales).factor;                                                  \
        s.offset = 0.0f;                                                                                     \
        if (zero_type >= 0)                                                                                  \
            s.offset = fa_scale_widen(zero_type, FA_GET_SCALE(t, zero_n, zero_type, zero));                  \
        return s;                                                                                            \
    }                                                                                                        \
                                                                                                             \
    /* A computed scaling as these tensors hold it; with `writes` it is put there. */                        \
    FA_KERNEL_FN fa_scaling fa_append_round_##name(FA_TASK t, fa_scaling s, FA_AT scale, FA_AT zero,         \
                                                   bool writes)                                              \
    {                                                                                                        \
        int scale_type = SCALE_TYPE, zero_type = ZERO_TYPE;                                                  \
        float factor = FA_APPEND_PARAM(t, name##_scales).factor;                                             \
        fa_uint bits = fa_scale_narrow(scale_type, FA_DIVIDE(s.scale, factor));                              \
        if (writes)                                                                                          \
            FA_APPEND_PUT_SCALE(t, scale_n, scale_type, scale, bits)                                         \
        s.scale = fa_scale_widen(scale_type, bits) * factor;                                                 \
        if (zero_type >= 0) {                                                                                \
            bits = fa_scale_narrow(zero_type, s.offset);                                                     \
            if (writes)                                                                                      \
                FA_APPEND_PUT_SCALE(t, zero_n, zero_type, zero, bits)                                        \
            s.offset = fa_scale_widen(zero_type, bits);                                                      \
        }                                                                                                    \
        return s;                                                                                            \
    }                                                                                                        \
                                                                                                             \
    FA_KERNEL_FN void fa_append_scaled_##name(FA_TASK t, int u, int batch, int within, int entry, int head,  \
                                              int key, int position)                                         \
    {                                                                                                        \
        int type = TO_TYPE, begin = 8 * u, fits = FA_APPEND_PARAM(t, name##_fits);                           \
        int dims = FA_APPEND_PARAM(t, name##_scales).dims, group = begin / dims;                             \
        FA_AT from = FA_APPEND_ROW(t, name, batch, head, within);                                            \
        FA_AT to = FA_APPEND_ROW(t, cache_##name, entry, head, key) + FA_INDEX(begin);                       \
        fa_append_elements e = fa_append_take_##name(t, from, begin, 8, position);                           \
        fa_task_bytes b = fa_append_no_bytes();                                                              \
        fa_scaling s;                                                                                        \
        s.scale = 1.0f;                                                                                      \
        s.offset = 0.0f;                                                                                     \
        fa_coder c = fa_scaled_coder(s);                                                                     \
        if (fits != FA_APPEND_FITS_NONE) {                                                                   \
            bool first = begin == group * dims && (fits == FA_APPEND_FITS_HEAD || head == 0);                \
            s = fa_append_fit_##name(t, batch, head, within, group * dims, position);                        \
            c = fa_scaled_coder(                                                                             \
                fa_append_round_##name(t, s, FA_APPEND_SCALE_AT(t, name, scale, entry, head, key, group),    \
                                       FA_APPEND_SCALE_AT(t, name, zero, entry, head, key, group), first));  \
        }                                                                                                    \
        FA_ROLLED                                                                                            \
        for (int i = 0; i < 8; i++) {                                                                        \
            group = (begin + i) / dims;                                                                      \
            if (fits == FA_APPEND_FITS_NONE)                                                                 \
                c = fa_scaled_coder(                                                                         \
                    fa_append_scaling_##name(t, FA_APPEND_SCALE_AT(t, name, scale, entry, head, key, group), \
                                             FA_APPEND_SCALE_AT(t, name, zero, entry, head, key, group)));   \
            b = fa_append_with(b, FA_TYPE_CODE_BITS(type), i,                                                \
                               fa_bare_code(type, fa_coded_number(c, e.x[i])));                              \
        }                                                                                                    \
        FA_AT at = FA_TYPE_SPAN(type, to);                                                                   \
        FA_PUT_BYTES(t, to_n, at, b, FA_TYPE_SIZE(type))                                                     \
    }
FA_APPEND_DEFINE_SCALED(k, 2, 10, 12, FA_APPEND_TYPE_CACHE_K(t), FA_APPEND_TYPE_K_SCALE(t),
                        FA_APPEND_TYPE_K_ZERO(t))
FA_APPEND_DEFINE_SCALED(v, 3, 11, 13, FA_APPEND_TYPE_CACHE_V(t), FA_APPEND_TYPE_V_SCALE(t),
                        FA_APPEND_TYPE_V_ZERO(t))

/* Eight dims of one of FlashMLA's rows, which are never rotated, and the scale where they are the first that share it. */
FA_KERNEL_FN void fa_append_latent(FA_TASK t, int u, FA_AT from, FA_AT to)
{
    const int begin = 8 * u, first = begin / FA_MLA_GROUP * FA_MLA_GROUP;
    const FA_AT block = FA_TYPE_SPAN(FA_TYPE_FP8_DS_MLA, to), at = block + FA_INDEX(fa_mla_byte(begin));
    const fa_append_elements e = fa_append_take_k(t, from, begin, 8, 0);
    fa_task_bytes b = fa_append_no_bytes();
    if (begin >= FA_MLA_LATENT) {
        b = fa_append_plain(2, e);
        FA_PUT_BYTES(t, 2, at, b, 16)
    } else {
        fa_block_range r = fa_block_range_of(fa_append_take_k(t, from, first, 8, 0).x[0]);
        FA_ROLLED
        for (int d = first; d < first + FA_MLA_GROUP; d += 8) {
            const fa_append_elements some = fa_append_take_k(t, from, d, 8, 0);
            FA_ROLLED
            for (int i = 0; i < 8; i++)
                r = fa_block_range_with(r, some.x[i]);
        }
        const float scale = fa_mla_scale(r);
        FA_ROLLED
        for (int i = 0; i < 8; i++)
            b = fa_append_with(b, 8, i, fa_mla_code(scale, e.x[i]));
        FA_PUT_BYTES(t, 2, at, b, 8)
        if (begin == first)
            FA_PUT32(t, 2, block + FA_INDEX(fa_mla_scale_byte(begin)), FA_AS_UINT(scale));
    }
}
/* A row that keeps some of its elements. */
#define FA_APPEND_DEFINE_PRUNED(name, to_n, DIM)                                             \
    FA_KERNEL_FN void fa_append_pruned_##name(FA_TASK t, FA_AT from, FA_AT to, int position) \
    {                                                                                        \
        int dim = DIM, bytes = FA_APPEND_PARAM(t, name##_scales).row_bytes;                  \
        fa_uint row[FA_PRUNE_MOST];                                                          \
        for (int begin = 0; begin < dim; begin += 8) {                                       \
            fa_append_elements e = fa_append_take_##name(t, from, begin, 8, position);       \
            FA_ROLLED                                                                        \
            for (int i = 0; i < 8; i++)                                                      \
                row[begin + i] = FA_AS_UINT(e.x[i]);                                         \
        }                                                                                    \
        FA_PRUNE(row, dim, bytes, FA_PUT32, t, to_n, to)                                     \
    }
FA_APPEND_DEFINE_PRUNED(k, 2, FA_APPEND_PARAM(t, dim_k))
FA_APPEND_DEFINE_PRUNED(v, 3, FA_APPEND_PARAM(t, dim_v))
#else
#define fa_append_pruned_k(t, from, to, position)
#define fa_append_pruned_v(t, from, to, position)
#define fa_append_latent(t, u, from, to)
#define fa_append_scaled_k(t, u, batch, within, entry, head, key, position)
#define fa_append_scaled_v(t, u, batch, within, entry, head, key, position)
#endif

/* Of k, or of v where `of_v`: a unit of those alone. A row whose slot the cache has not is skipped. */
FA_KERNEL_FN void fa_append_cached(FA_TASK t, int unit, bool of_v)
{
    const int units = of_v ? FA_APPEND_PARAM(t, units_v) : FA_APPEND_PARAM(t, units_k);
    const int heads = FA_APPEND_PARAM(t, heads), rows = FA_APPEND_PARAM(t, rows),
              keys = FA_APPEND_PARAM(t, keys);
    const int line = unit / units, u = unit - line * units, row = line / heads, head = line - row * heads;
    const int slot = FA_INT(FA_GET32(t, 4, FA_INDEX(row) * FA_INDEX(4))),
              position = fa_append_position(t, row);
    if (slot < 0 || slot >= FA_APPEND_PARAM(t, entries) * keys || !fa_append_has_position(t, position))
        return;
    const int batch = row / rows, within = row - batch * rows, entry = slot / keys, key = slot - entry * keys;
    if (of_v) {
        if (FA_TYPE_PRUNES(FA_APPEND_TYPE_CACHE_V(t))) {
            fa_append_pruned_v(t, FA_APPEND_ROW(t, v, batch, head, within),
                               FA_APPEND_ROW(t, cache_v, entry, head, key), position);
        } else if (FA_APPEND_TYPE_V_SCALE(t) >= 0) {
            fa_append_scaled_v(t, u, batch, within, entry, head, key, position);
        } else {
            fa_append_v(t, u, FA_APPEND_ROW(t, v, batch, head, within),
                        FA_APPEND_ROW(t, cache_v, entry, head, key), position);
        }
    } else if (FA_TYPE_PRUNES(FA_APPEND_TYPE_CACHE_K(t))) {
        fa_append_pruned_k(t, FA_APPEND_ROW(t, k, batch, head, within),
                           FA_APPEND_ROW(t, cache_k, entry, head, key), position);
    } else if (FA_TYPE_IS_MLA(FA_APPEND_TYPE_CACHE_K(t))) {
        fa_append_latent(t, u, FA_APPEND_ROW(t, k, batch, head, within),
                         FA_APPEND_ROW(t, cache_k, entry, head, key));
    } else if (FA_APPEND_TYPE_K_SCALE(t) >= 0) {
        fa_append_scaled_k(t, u, batch, within, entry, head, key, position);
    } else {
        fa_append_k(t, u, FA_APPEND_ROW(t, k, batch, head, within),
                    FA_APPEND_ROW(t, cache_k, entry, head, key), position);
    }
}

FA_KERNEL_FN void fa_append_rotate_q(FA_TASK t, int unit)
{
    const int units = FA_APPEND_PARAM(t, units_q), heads = FA_APPEND_PARAM(t, heads_q);
    const int line = unit / units, u = unit - line * units, row = line / heads, head = line - row * heads;
    const int batch = row / FA_APPEND_PARAM(t, rows), within = row - batch * FA_APPEND_PARAM(t, rows);
    const int position = fa_append_position(t, row);
    if (fa_append_has_position(t, position))
        fa_append_q(t, u, FA_APPEND_ROW(t, q, batch, head, within),
                    FA_APPEND_ROW(t, q_out, batch, head, within), position);
}

/* The share of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_append_group(FA_TASK t, int group, int item, int items)
{
    const int end_k = FA_APPEND_PARAM(t, end_k), end_v = FA_APPEND_PARAM(t, end_v);
    const int begin = group * FA_APPEND_SHARE,
              end = FA_MIN(FA_APPEND_PARAM(t, units), begin + FA_APPEND_SHARE);
    for (int unit = begin + item; unit < end; unit += items) {
        if (unit < end_k)
            fa_append_cached(t, unit, false);
        else if (unit < end_v)
            fa_append_cached(t, unit - end_k, true);
        else if (FA_APPEND_TYPE_Q(t) != FA_APPEND_NO_Q)
            fa_append_rotate_q(t, unit - end_v);
    }
}

#endif
