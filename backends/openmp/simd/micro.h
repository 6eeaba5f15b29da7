/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two micro-kernels. Query rows are lanes: a panel is PANEL rows side by side, stored transposed, so that
 * K and V are read in the layout they come in, one element at a time into all lanes, and the softmax between
 * the products needs no reduction across lanes.
 *
 *   scores:  st[key][lane] = sum_d qt[d][lane] * k[key][d]
 *   values:  ot[d][lane]   = ot[d][lane] * rescale[lane] + sum_key pt[key][lane] * v[key][d]
 *
 * `nv` is the number of vectors of a panel in use; it and the tile heights are constants at every call.
 */
#ifndef FA_OPENMP_MICRO_H
#define FA_OPENMP_MICRO_H

#include <stddef.h>

#include "vec.h"

#define FA_INLINE static inline __attribute__((always_inline))

enum { PANEL = VL * PANEL_VECS };

FA_INLINE void score_tile(const int nv, const int keys, const float *qt, const float *k, ptrdiff_t stride,
                          int dim, float *st, vf max[PANEL_VECS])
{
    vf acc[SCORE_KEYS][PANEL_VECS];
#pragma GCC unroll 16
    for (int j = 0; j < keys; j++) {
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++)
            acc[j][n] = v_set1(0.0f);
    }
    for (int d = 0; d < dim; d++) {
        vf q[PANEL_VECS];
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++)
            q[n] = v_load(qt + d * PANEL + n * VL);
#pragma GCC unroll 16
        for (int j = 0; j < keys; j++) {
            vf broadcast = v_set1(k[j * stride + d]);
#pragma GCC unroll 4
            for (int n = 0; n < nv; n++)
                acc[j][n] = v_fma(broadcast, q[n], acc[j][n]);
        }
    }
#pragma GCC unroll 16
    for (int j = 0; j < keys; j++) {
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++) {
            v_store(st + j * PANEL + n * VL, acc[j][n]);
            max[n] = v_max(max[n], acc[j][n]);
        }
    }
}

/* Scores of `keys` keys, and each lane's greatest. */
FA_INLINE void score_panel(const int nv, const float *qt, const float *k, ptrdiff_t stride, int dim, int keys,
                           float *st, vf max[PANEL_VECS])
{
    const int small = 4;
    int j = 0;
    for (; j + SCORE_KEYS <= keys; j += SCORE_KEYS)
        score_tile(nv, SCORE_KEYS, qt, k + j * stride, stride, dim, st + j * PANEL, max);
    for (; small < SCORE_KEYS && j + small <= keys; j += small)
        score_tile(nv, small, qt, k + j * stride, stride, dim, st + j * PANEL, max);
    for (; j < keys; j++)
        score_tile(nv, 1, qt, k + j * stride, stride, dim, st + j * PANEL, max);
}

FA_INLINE void value_tile(const int nv, const int dims, const float *pt, const float *v, ptrdiff_t stride,
                          int keys, const vf *rescale, float *ot)
{
    vf acc[VALUE_DIMS][PANEL_VECS];
#pragma GCC unroll 16
    for (int d = 0; d < dims; d++) {
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++) {
            vf o = v_load(ot + d * PANEL + n * VL);
            acc[d][n] = rescale ? v_mul(o, rescale[n]) : o;
        }
    }
    for (int j = 0; j < keys; j++) {
        vf p[PANEL_VECS];
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++)
            p[n] = v_load(pt + j * PANEL + n * VL);
#pragma GCC unroll 16
        for (int d = 0; d < dims; d++) {
            vf broadcast = v_set1(v[j * stride + d]);
#pragma GCC unroll 4
            for (int n = 0; n < nv; n++)
                acc[d][n] = v_fma(broadcast, p[n], acc[d][n]);
        }
    }
#pragma GCC unroll 16
    for (int d = 0; d < dims; d++) {
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++)
            v_store(ot + d * PANEL + n * VL, acc[d][n]);
    }
}

/* Adds `keys` weighted values to all `dim` outputs. `rescale` is NULL where every lane's factor is 1. */
FA_INLINE void value_panel(const int nv, const float *pt, const float *v, ptrdiff_t stride, int keys, int dim,
                           const vf *rescale, float *ot)
{
    int d = 0;
    for (; d + VALUE_DIMS <= dim; d += VALUE_DIMS)
        value_tile(nv, VALUE_DIMS, pt, v + d, stride, keys, rescale, ot + d * PANEL);
    for (; d + 2 <= dim; d += 2)
        value_tile(nv, 2, pt, v + d, stride, keys, rescale, ot + d * PANEL);
    for (; d < dim; d++)
        value_tile(nv, 1, pt, v + d, stride, keys, rescale, ot + d * PANEL);
}

#endif
