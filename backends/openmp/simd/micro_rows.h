/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two products of a few query rows with rows of plain types that lie evenly apart: head dims are lanes, and each key
 * and value is loaded and converted once for a group of ROWS query rows.
 */
#ifndef FA_OPENMP_MICRO_ROWS_H
#define FA_OPENMP_MICRO_ROWS_H

#include "pack.h"

enum {
    ROWS = 4,       /* query rows that share a load              */
    KEYS = 4,       /* keys of a score micro-kernel, or 1        */
    VALUE_VECS = 4, /* vectors of output of a value micro-kernel */
};

/* Where row n of those ahead begins. */
FA_INLINE const char *ahead_row(rows_ahead ahead, int n)
{
    return ahead.at + n * ahead.stride;
}

/* Those ahead from row n on. */
FA_INLINE rows_ahead ahead_from(rows_ahead ahead, int n)
{
    if (ahead.at)
        ahead.at += n * ahead.stride;
    return ahead;
}

/* s[row][key] over dims [d, dim) for `rows` query rows and `keys` keys; both constants at each call. */
FA_INLINE void score_rows(const int rows, const int keys, const fa_dtype dtype, const float *q, int q_stride,
                          const typed_rows *k, int key, int d, int dim, rows_ahead ahead, float *s,
                          int s_stride)
{
    vf acc[ROWS][KEYS];
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int j = 0; j < keys; j++)
            acc[r][j] = v_set1(0.0f);
    }
    for (; d + VL <= dim; d += VL) {
        vf kv[KEYS];
        FA_UNROLL
        for (int j = 0; j < keys; j++) {
            kv[j] = load_typed(dtype, k->base, even_index(k, key + j) + d);
            load_line(dtype, k, even_index(k, key + j) + k->far + d, d);
        }
        if (keys == KEYS && ahead.at)
            __builtin_prefetch(ahead_row(ahead, d / VL % 2) + d / (2 * VL) * LINE_BYTES);
        FA_UNROLL
        for (int r = 0; r < rows; r++) {
            vf qv = v_load(q + r * q_stride + d);
            FA_UNROLL
            for (int j = 0; j < keys; j++)
                acc[r][j] = v_fma(qv, kv[j], acc[r][j]);
        }
    }
    if (d < dim) {
        FA_UNROLL
        for (int j = 0; j < keys; j++) {
            vf kv = load_some(dtype, k->base, even_index(k, key + j) + d, dim - d);
            FA_UNROLL
            for (int r = 0; r < rows; r++)
                acc[r][j] = v_fma(v_load(q + r * q_stride + d), kv, acc[r][j]);
        }
    }
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        if (keys == KEYS)
            v_sum4(acc[r], s + r * s_stride);
        else
            s[r * s_stride] = v_sum(acc[r][0]);
    }
}

/* As above over all dims. Lanes are sums of a part of the dims each; where there is one, dims are summed in parts. */
FA_INLINE void score_parts(const int rows, const int keys, const fa_dtype dtype, const float *q, int q_stride,
                           const typed_rows *k, int key, int dim, rows_ahead ahead, float *s, int s_stride)
{
    int part = VL > 1 ? dim : part_end(0, dim);
    score_rows(rows, keys, dtype, q, q_stride, k, key, 0, part, ahead, s, s_stride);
    for (int stop; VL == 1 && part < dim; part = stop) {
        float more[ROWS * KEYS];
        stop = part_end(part, dim);
        score_rows(rows, keys, dtype, q, q_stride, k, key, part, stop, nothing_ahead, more, KEYS);
        for (int i = 0; i < rows * keys; i++)
            s[i / keys * s_stride + i % keys] += more[i / keys * KEYS + i % keys];
    }
}

FA_INLINE void score_block(const int rows, const fa_dtype dtype, const float *q, int q_stride,
                           const typed_rows *k, int keys, int dim, rows_ahead ahead, float *s, int s_stride)
{
    int j = 0;
    for (; j + KEYS <= keys; j += KEYS) {
        score_parts(rows, KEYS, dtype, q, q_stride, k, j, dim, ahead, s + j, s_stride);
        ahead = ahead_from(ahead, KEYS);
    }
    for (; j < keys; j++)
        score_parts(rows, 1, dtype, q, q_stride, k, j, dim, ahead, s + j, s_stride);
}

/* o[row][d .. d + vecs * VL) += p[row][key] * v[key][..] */
FA_INLINE void value_rows(const int rows, const int vecs, const fa_dtype dtype, const float *p, int p_stride,
                          const typed_rows *v, int keys, int d, rows_ahead ahead, float *o, int o_stride)
{
    vf acc[ROWS][VALUE_VECS];
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < vecs; n++)
            acc[r][n] = v_load(o + r * o_stride + d + n * VL);
    }
    for (int j = 0; j < keys; j++) {
        int64_t at = even_index(v, j) + d, far = even_index(v, j) + v->far + d;
        vf value[VALUE_VECS];
        if (ahead.at)
            __builtin_prefetch(ahead_row(ahead, j));
        FA_UNROLL
        for (int n = 0; n < vecs; n++) {
            value[n] = load_typed(dtype, v->base, at + n * VL);
            load_line(dtype, v, far + n * VL, d + n * VL);
        }
        FA_UNROLL
        for (int r = 0; r < rows; r++) {
            vf weight = v_set1(p[r * p_stride + j]);
            FA_UNROLL
            for (int n = 0; n < vecs; n++)
                acc[r][n] = v_fma(weight, value[n], acc[r][n]);
        }
    }
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < vecs; n++)
            v_store(o + r * o_stride + d + n * VL, acc[r][n]);
    }
}

FA_INLINE void value_tail(const int rows, const fa_dtype dtype, const float *p, int p_stride,
                          const typed_rows *v, int keys, int d, int count, float *o, int o_stride)
{
    for (int j = 0; j < keys; j++) {
        vf value = load_some(dtype, v->base, even_index(v, j) + d, count);
        for (int r = 0; r < rows; r++) {
            float *at = o + r * o_stride + d;
            v_store(at, v_fma(v_set1(p[r * p_stride + j]), value, v_load(at)));
        }
    }
}

FA_INLINE void value_block(const int rows, const fa_dtype dtype, const float *p, int p_stride,
                           const typed_rows *v, int keys, int dim, rows_ahead ahead, float *o, int o_stride)
{
    int d = 0;
    for (; d + VALUE_VECS * VL <= dim; d += VALUE_VECS * VL) {
        value_rows(rows, VALUE_VECS, dtype, p, p_stride, v, keys, d, ahead, o, o_stride);
        if (ahead.at)
            ahead.at += LINE_BYTES;
    }
    for (; d + VL <= dim; d += VL)
        value_rows(rows, 1, dtype, p, p_stride, v, keys, d, nothing_ahead, o, o_stride);
    if (d < dim)
        value_tail(rows, dtype, p, p_stride, v, keys, d, dim - d, o, o_stride);
}

/* Calls `block` with the number of rows and the type as constants: the loads decide the speed here. */
#define FA_FOR_TYPE(block, rows, dtype, ...)   \
    do {                                       \
        if ((dtype) == FA_F32)                 \
            block(rows, FA_F32, __VA_ARGS__);  \
        else if ((dtype) == FA_F16)            \
            block(rows, FA_F16, __VA_ARGS__);  \
        else                                   \
            block(rows, FA_BF16, __VA_ARGS__); \
    } while (0)

/* The share of the lines ahead that the group of rows from `r` on starts: two groups start them all. The second begins
 * `rows` rows and `bytes` bytes further on. */
FA_INLINE rows_ahead share(rows_ahead ahead, int r, int rows, ptrdiff_t bytes)
{
    const int part = r / ROWS;
    if (part >= 2 || !ahead.at)
        return nothing_ahead;
    ahead = ahead_from(ahead, part * rows);
    ahead.at += part * bytes;
    return ahead;
}

/* s[row][key] of all keys. */
static void scores(int rows, const float *q, int q_stride, const typed_rows *k, int keys, int dim,
                   rows_ahead ahead, float *s, int s_stride)
{
    typed_rows again = *k; /* only the first group of rows finds them in memory */
    again.far = 0;
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        FA_FOR_TYPE(score_block, ROWS, k->dtype, q + r * q_stride, q_stride, r ? &again : k, keys, dim,
                    share(ahead, r, 2, 0), s + r * s_stride, s_stride);
    for (; r < rows; r++)
        FA_FOR_TYPE(score_block, 1, k->dtype, q + r * q_stride, q_stride, r ? &again : k, keys, dim,
                    nothing_ahead, s + r * s_stride, s_stride);
}

/* o[row][..] += p[row][key] * v[key][..] */
static void values(int rows, const float *p, int p_stride, const typed_rows *v, int keys, int dim,
                   rows_ahead ahead, float *o, int o_stride)
{
    typed_rows again = *v;
    again.far = 0;
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        FA_FOR_TYPE(value_block, ROWS, v->dtype, p + r * p_stride, p_stride, r ? &again : v, keys, dim,
                    share(ahead, r, 0, dim / (VALUE_VECS * VL) * LINE_BYTES), o + r * o_stride, o_stride);
    for (; r < rows; r++)
        FA_FOR_TYPE(value_block, 1, v->dtype, p + r * p_stride, p_stride, r ? &again : v, keys, dim,
                    nothing_ahead, o + r * o_stride, o_stride);
}

#endif
