/* SPDX-License-Identifier: Apache-2.0 */
#include "test_vec.h"

#include "backends/openmp/simd/pack.h"
#include "core/portable/lang.h"

static void exp2_array(const float *x, float *y, int count)
{
    for (int i = 0; i < count; i += VL)
        v_store(y + i, v_exp2(v_load(x + i)));
}

static void tanh_array(const float *x, float *y, int count)
{
    for (int i = 0; i < count; i += VL)
        v_store(y + i, v_tanh(v_load(x + i)));
}

static void exponent_array(const float *x, float *y, int count)
{
    for (int i = 0; i < count; i += VL)
        v_store(y + i, v_exponent(v_load(x + i)));
}

static void max_array(const float *a, const float *b, float *y, int count)
{
    for (int i = 0; i < count; i += VL)
        v_store(y + i, v_max(v_load(a + i), v_load(b + i)));
}

static void load_array(fa_dtype dtype, const void *from, float *to, int count)
{
    for (int i = 0; i < count; i += VL)
        v_store(to + i, load_typed(dtype, from, i));
}

static void store_array(fa_dtype dtype, const float *from, void *to, int count)
{
    for (int i = 0; i < count; i += VL)
        store_typed(dtype, to, i, v_load(from + i));
}

static float sum(const float *x)
{
    return v_sum(v_load(x));
}

static void sum4(const float *x, float *sums)
{
    const vf four[4] = {v_load(x), v_load(x + VL), v_load(x + 2 * VL), v_load(x + 3 * VL)};
    v_sum4(four, sums);
}

static float top(const float *x)
{
    return v_top(v_load(x));
}

static bool all_equal(const float *a, const float *b)
{
    return v_all_equal(v_load(a), v_load(b));
}

static void if_less(const float *a, const float *b, const float *yes, const float *no, float *y)
{
    v_store(y, v_if_less(v_load(a), v_load(b), v_load(yes), v_load(no)));
}

static void count_from(int first, int other, float *y)
{
    v_store(y, v_distance(vi_count(first), vi_set1(other)));
}

static void distance(const int *a, const int *b, float *y)
{
    v_store(y, v_distance(vi_load(a), vi_load(b)));
}

static void hide_outside(const float *a, int key, const int *begin, const int *end, float *y)
{
    v_store(y, v_hide_outside(v_load(a), vi_set1(key), vi_load(begin), vi_load(end)));
}

static void transpose(float *matrix)
{
    vf row[VL];
    for (int i = 0; i < VL; i++)
        row[i] = v_load(matrix + i * VL);
    v_transpose(row);
    for (int i = 0; i < VL; i++)
        v_store(matrix + i * VL, row[i]);
}

static void load_some_to(fa_dtype dtype, const void *base, int64_t index, int count, float *to)
{
    v_store(to, load_some(dtype, base, index, count));
}

static void store_some_from(fa_dtype dtype, const float *from, void *base, int64_t index, int count)
{
    store_some(dtype, base, index, v_load(from), count);
}

/* Functions of pack.h are static, and some of them forced inline: these have an address. */
static void convert(fa_dtype dtype, const void *base, int64_t index, int64_t stride, int rows, int dim,
                    float *target, ptrdiff_t target_stride)
{
    const typed_rows from = {.dtype = dtype, .base = base, .index = index, .stride = stride};
    convert_typed(&from, rows, dim, target, target_stride);
}

static void pack(fa_dtype dtype, const void *base, const int64_t *row, int count, int dim, float *panel)
{
    pack_panel(dtype, base, row, count, PANEL_VECS, dim, panel);
}

static void unpack(fa_dtype dtype, void *base, const int64_t *row, int count, int dim, const float *panel,
                   const float *factor)
{
    unpack_panel(dtype, base, row, count, PANEL_VECS, dim, panel, factor);
}

/* A call with the number of vectors as a constant, as the kernels make it. */
#define WITH_VECTORS(nv, call, ...)                   \
    do {                                              \
        if ((nv) == 1)                                \
            call(1, __VA_ARGS__);                     \
        else if ((nv) == 2)                           \
            call(FA_MIN(2, PANEL_VECS), __VA_ARGS__); \
        else if ((nv) == 3)                           \
            call(FA_MIN(3, PANEL_VECS), __VA_ARGS__); \
        else                                          \
            call(PANEL_VECS, __VA_ARGS__);            \
    } while (0)

static rows_ahead f32_ahead(const float *rows, ptrdiff_t stride)
{
    return (rows_ahead){(const char *)rows, stride * (ptrdiff_t)sizeof(float),
                        LINE_BYTES / (int)sizeof(float)};
}

static void scores(int nv, const float *qt, const float *k, ptrdiff_t stride, int dim, int keys, float *st,
                   float *max)
{
    vf top_of[PANEL_VECS];
    for (int n = 0; n < PANEL_VECS; n++)
        top_of[n] = n < nv ? v_load(max + n * VL) : v_set1(0.0f);
    WITH_VECTORS(nv, score_panel, qt, k, stride, dim, keys, f32_ahead(k, stride), st, top_of);
    for (int n = 0; n < nv; n++)
        v_store(max + n * VL, top_of[n]);
}

static void values(int nv, const float *pt, const float *v, ptrdiff_t stride, int keys, int dim,
                   const float *rescale, float *ot)
{
    vf factor[PANEL_VECS];
    for (int n = 0; n < PANEL_VECS; n++)
        factor[n] = n < nv ? v_load(rescale + n * VL) : v_set1(0.0f);
    WITH_VECTORS(nv, value_panel, pt, v, stride, keys, dim, factor, f32_ahead(v, stride), ot);
}

const vec_ops FA_ISA_NAME(vec_ops) = {
    .lanes = VL,
    .panel = PANEL,
    .panel_vecs = PANEL_VECS,
    .most_keys = MOST_KEYS,
    .most_dims = MOST_DIMS,
    .exp2 = exp2_array,
    .tanh = tanh_array,
    .exponent = exponent_array,
    .max = max_array,
    .load = load_array,
    .store = store_array,
    .sum = sum,
    .sum4 = sum4,
    .top = top,
    .all_equal = all_equal,
    .if_less = if_less,
    .count_from = count_from,
    .distance = distance,
    .hide_outside = hide_outside,
    .transpose = transpose,
    .load_some = load_some_to,
    .store_some = store_some_from,
    .convert_rows = convert,
    .pack_panel = pack,
    .unpack_panel = unpack,
    .scores = scores,
    .values = values,
};
