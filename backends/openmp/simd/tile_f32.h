/* SPDX-License-Identifier: Apache-2.0 */
/* Products of f32, see tile.h: f32 is read in place, other types are converted a block at a time. */
#include "micro.h"

enum { KEY_GRAIN = 1, KEYS_AS_VALUES = 1 };

static const fa_dtype copy_type = FA_F32;

typedef struct tile_operand {
    const float *base;
    ptrdiff_t stride;
} tile_operand;

static inline void tile_begin(void)
{
}

static inline void tile_end(void)
{
}

static inline int q_vectors(int dim)
{
    return dim;
}

static inline int o_vectors(int dim)
{
    return dim;
}

/* Rows of a converted block start at an odd number of vectors, so that they do not share a cache set. */
static inline ptrdiff_t row_stride(int dim)
{
    return ((dim + VL - 1) / VL | 1) * VL;
}

static inline size_t k_floats(int keys, int dim)
{
    return (size_t)keys * (size_t)row_stride(dim);
}

static inline size_t v_floats(int keys, int dim)
{
    return k_floats(keys, dim);
}

static inline void copy_rows(const typed_rows *from, int rows, int dim, void *target)
{
    convert_typed(from, rows, dim, target, row_stride(dim));
}

static inline tile_operand fetch_keys(const typed_rows *from, int rows, int dim, float *scratch)
{
    if (from->dtype == FA_F32 && !far_apart(from, row_stride(dim)))
        return (tile_operand){(const float *)from->base + from->index, (ptrdiff_t)from->stride};
    copy_rows(from, rows, dim, scratch);
    return (tile_operand){scratch, row_stride(dim)};
}

static inline tile_operand fetch_values(const typed_rows *from, int rows, int dim, int block_kv,
                                        float *scratch)
{
    (void)block_kv;
    return fetch_keys(from, rows, dim, scratch);
}

static inline tile_operand clean_values(const typed_rows *from, int rows, int dim, int block_kv,
                                        float *scratch)
{
    (void)block_kv;
    copy_rows(from, rows, dim, scratch);
    clean_rows(scratch, row_stride(dim), rows, dim);
    return (tile_operand){scratch, row_stride(dim)};
}

static inline tile_operand keys_from(tile_operand k, int key)
{
    return (tile_operand){k.base + key * k.stride, k.stride};
}

static inline tile_operand values_from(tile_operand v, int key)
{
    return keys_from(v, key);
}

static inline void pack_queries(fa_dtype dtype, const void *base, const int64_t row[PANEL], int count, int nv,
                                int dim, float *qt)
{
    pack_panel(dtype, base, row, count, nv, dim, qt);
}

FA_INLINE void tile_scores(const int nv, const float *qt, tile_operand k, int dim, int keys, rows_ahead ahead,
                           float *st, vf max[PANEL_VECS])
{
    score_panel(nv, qt, k.base, k.stride, dim, keys, ahead, st, max);
}

FA_INLINE void tile_weights(const int nv, float *st, int keys, vf factor, const vf max[PANEL_VECS],
                            vf sum[PANEL_VECS])
{
    enum { PART = 32 }; /* keys: all terms are positive, and the error of one long sum would show */
    for (int from = 0; from < keys; from += PART) {
        int end = keys - from < PART ? keys : from + PART;
        vf part[PANEL_VECS];
        FA_UNROLL
        for (int n = 0; n < nv; n++)
            part[n] = v_set1(0.0f);
        for (int j = from; j < end; j++) {
            FA_UNROLL
            for (int n = 0; n < nv; n++) {
                float *at = st + j * lane_count(nv) + n * VL;
                vf p = v_exp2(v_mul(v_sub(v_load(at), max[n]), factor));
                v_store(at, p);
                part[n] = v_add(part[n], p);
            }
        }
        FA_UNROLL
        for (int n = 0; n < nv; n++)
            sum[n] = v_add(sum[n], part[n]);
    }
}

static inline float weight_at(const float *weights, int nv, int key, int lane)
{
    return weights[key * lane_count(nv) + lane];
}

FA_INLINE void tile_values(const int nv, const float *weights, tile_operand v, int keys, int dim,
                           const vf *rescale, bool rescales, rows_ahead ahead, float *ot)
{
    (void)rescales;
    value_panel(nv, weights, v.base, v.stride, keys, dim, rescale, ahead, ot);
}
