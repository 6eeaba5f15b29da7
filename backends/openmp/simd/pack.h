/* SPDX-License-Identifier: Apache-2.0 */
/* Between the caller's tensors, of any type and stride, and the f32 panels and blocks of the kernels. */
#ifndef FA_OPENMP_PACK_H
#define FA_OPENMP_PACK_H

#include <fastattn/attention.h>

#include "core/half.h"
#include "core/portable/table.h"
#include "micro.h"

FA_INLINE vf load_typed(fa_dtype dtype, const void *base, int64_t index)
{
    if (dtype == FA_F32)
        return v_load((const float *)base + index);
    const uint16_t *half = (const uint16_t *)base + index;
    return dtype == FA_F16 ? v_load_f16(half) : v_load_bf16(half);
}

FA_INLINE void store_typed(fa_dtype dtype, void *base, int64_t index, vf value)
{
    if (dtype == FA_F32)
        v_store((float *)base + index, value);
    else if (dtype == FA_F16)
        v_store_f16((uint16_t *)base + index, value);
    else
        v_store_bf16((uint16_t *)base + index, value);
}

/* As above for the first `count` < VL elements; the other lanes are 0 and not touched in memory. */
static inline vf load_some(fa_dtype dtype, const void *base, int64_t index, int count)
{
    float lane[VL] = {0};
    for (int i = 0; i < count; i++)
        lane[i] = fa_load(dtype, base, index + i);
    return v_load(lane);
}

static inline void store_some(fa_dtype dtype, void *base, int64_t index, vf value, int count)
{
    float lane[VL];
    v_store(lane, value);
    for (int i = 0; i < count; i++)
        fa_store(dtype, base, index + i, lane[i]);
}

/* Of rows of k or v whose scales are tensors of their own: which keys they are. */
typedef struct scaled_keys {
    const struct fa_cpu_run *run; /* NULL: they have no such scales */
    const fa_table_item *item;
    int operand, key; /* the first */
} scaled_keys;

/* Rows of a tensor: the element offset of the first, and from one to the next. Or the address of each, in a list. */
typedef struct typed_rows {
    fa_dtype dtype;
    const void *base;
    int64_t index, stride;
    int64_t far;               /* elements ahead of a row that its reader prefetches; 0: none */
    const uint8_t *const *row; /* the list; NULL: rows lie evenly apart */
    scaled_keys scaled;
    int row_dims, row_bytes; /* of rows that keep some of their elements */
} typed_rows;

/* Element offset of row r, where rows lie evenly apart. */
FA_INLINE int64_t even_index(const typed_rows *t, int r)
{
    return t->index + r * t->stride;
}

static inline const uint8_t *row_address(const typed_rows *t, int r)
{
    return t->row ? t->row[r] : (const uint8_t *)t->base + FA_TYPE_SPAN(t->dtype, even_index(t, r));
}

/* Those of a format of caches, as f32. */
void FA_ISA_NAME(decode_rows)(const typed_rows *from, int rows, int dim, float *target,
                              ptrdiff_t target_stride);

/* Whether they hold neither NaN nor infinity. */
bool FA_ISA_NAME(coded_finite)(const typed_rows *t, int rows, int dim);

/* One element of rows of any type. */
float FA_ISA_NAME(element_of)(const typed_rows *t, int r, int d);

/* The rows from r on. */
static inline typed_rows rows_from(typed_rows t, int r)
{
    t.index += r * t.stride;
    t.row = t.row ? t.row + r : NULL;
    t.scaled.key += r;
    return t;
}

/* Starts the load of element `index`, which is number d of a row that is read later, once for each cache line. */
FA_INLINE void load_line(const fa_dtype dtype, const typed_rows *t, int64_t index, int d)
{
    const int size = FA_TYPE_BYTES(dtype);
    if (t->far && d * size % LINE_BYTES == 0)
        __builtin_prefetch((const char *)t->base + index * size);
}

/* Whether `rows` rows of `dim` elements hold neither NaN nor infinity. */
static inline bool rows_finite(const typed_rows *t, int rows, int dim)
{
    vf zero = v_set1(0.0f), total = zero;
    if (FA_TYPE_IS_CODED(t->dtype))
        return FA_ISA_NAME(coded_finite)(t, rows, dim);
    for (int r = 0; r < rows; r++) {
        const uint8_t *at = row_address(t, r);
        int d = 0;
        for (; d + VL <= dim; d += VL)
            total = v_fma(load_typed(t->dtype, at, d), zero, total);
        if (d < dim)
            total = v_fma(load_some(t->dtype, at, d, dim - d), zero, total);
    }
    return v_sum(total) == 0.0f;
}

/* `rows` rows of `dim` plain elements as f32, `target_stride` apart. */
static inline void convert_rows(fa_dtype dtype, const void *base, int64_t index, int64_t stride, int rows,
                                int dim, float *target, ptrdiff_t target_stride)
{
    for (int r = 0; r < rows; r++) {
        int d = 0;
        for (; d + VL <= dim; d += VL)
            v_store(target + r * target_stride + d, load_typed(dtype, base, index + r * stride + d));
        for (; d < dim; d++)
            target[r * target_stride + d] = fa_load(dtype, base, index + r * stride + d);
    }
}

/* The same of rows in a format of caches, scaled or not, or that lie evenly apart. */
static inline void convert_typed(const typed_rows *from, int rows, int dim, float *target,
                                 ptrdiff_t target_stride)
{
    if (FA_TYPE_IS_CODED(from->dtype))
        FA_ISA_NAME(decode_rows)(from, rows, dim, target, target_stride);
    else
        convert_rows(from->dtype, from->base, from->index, from->stride, rows, dim, target, target_stride);
}

/* Rows of f32 with 0 for what is not finite. */
static inline void clean_rows(float *rows, ptrdiff_t stride, int count, int dim)
{
    for (int r = 0; r < count; r++) {
        float *row = rows + r * stride;
        int d = 0;
        for (; d + VL <= dim; d += VL) {
            vf value = v_load(row + d);
            v_store(row + d, v_if_less(v_abs(value), v_set1(INFINITY), value, v_set1(0.0f)));
        }
        for (; d < dim; d++)
            row[d] = isfinite(row[d]) ? row[d] : 0;
    }
}

/*
 * The lanes of a panel of `nv` vectors from rows of a tensor: row[i] is the element offset of lane i, lanes from
 * `count` on are 0.
 */
static inline void pack_panel(fa_dtype dtype, const void *base, const int64_t row[PANEL], int count, int nv,
                              int dim, float *panel)
{
    for (int lane = 0; lane < lane_count(nv); lane += VL) {
        for (int d = 0; d < dim; d += VL) {
            int width = dim - d < VL ? dim - d : VL;
            vf block[VL];
            for (int i = 0; i < VL; i++) {
                if (lane + i >= count)
                    block[i] = v_set1(0.0f);
                else if (width == VL)
                    block[i] = load_typed(dtype, base, row[lane + i] + d);
                else
                    block[i] = load_some(dtype, base, row[lane + i] + d, width);
            }
            v_transpose(block);
            for (int i = 0; i < width; i++)
                v_store(panel + (d + i) * lane_count(nv) + lane, block[i]);
        }
    }
}

/* a * factor, and 0 where the factor is 0, whatever a is: the row has no weights, or they are lost in a sink. */
FA_INLINE vf normalised(vf a, vf factor)
{
    return v_if_less(v_abs(factor), v_set1(0x1p-149f), v_set1(0.0f), v_mul(a, factor));
}

/* The way back, each lane times its factor. */
static inline void unpack_panel(fa_dtype dtype, void *base, const int64_t row[PANEL], int count, int nv,
                                int dim, const float *panel, const float factor[PANEL])
{
    for (int lane = 0; lane < count; lane += VL) {
        vf scale = v_load(factor + lane);
        for (int d = 0; d < dim; d += VL) {
            int width = dim - d < VL ? dim - d : VL;
            vf block[VL];
            for (int i = 0; i < VL; i++)
                block[i] = i < width ? normalised(v_load(panel + (d + i) * lane_count(nv) + lane), scale)
                                     : v_set1(0.0f);
            v_transpose(block);
            for (int i = 0; i < VL && lane + i < count; i++) {
                if (width == VL)
                    store_typed(dtype, base, row[lane + i] + d, block[i]);
                else
                    store_some(dtype, base, row[lane + i] + d, block[i], width);
            }
        }
    }
}

/* Cuts the next 64-byte aligned piece off a thread's scratch; with base NULL it only counts. */
static inline float *take_scratch(char *base, size_t *used, size_t floats)
{
    float *memory = base ? (float *)(base + *used) : NULL;
    *used += (floats * sizeof(float) + 63) & ~(size_t)63;
    return memory;
}

#endif
