/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two micro-kernels. Query rows are lanes: a panel is up to PANEL rows side by side, stored transposed, so that
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

/* Before a loop over registers, whose count is a constant: nothing of it may be left. */
#if defined(__clang__)
#define FA_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FA_UNROLL _Pragma("GCC unroll 16")
#endif

enum { PANEL = VL * PANEL_VECS, MOST_KEYS = 10, MOST_DIMS = 16 };

/* Floats from one transposed row of a panel to the next: only the vectors in use, or it would waste cache. */
FA_INLINE int lane_count(const int nv)
{
    return nv * VL;
}

/*
 * A panel that is not full has registers left for more keys and dims: enough sums in flight all the same. A few less
 * sums than a full panel has, or gcc 12 keeps some of q in memory.
 */
FA_INLINE int score_keys(const int nv)
{
    const int keys = nv == PANEL_VECS ? SCORE_KEYS : (SCORE_KEYS * PANEL_VECS - 4) / nv;
    return keys < MOST_KEYS ? keys : MOST_KEYS;
}

FA_INLINE int value_dims(const int nv)
{
    const int dims = VALUE_DIMS * PANEL_VECS / nv;
    return dims < MOST_DIMS ? dims : MOST_DIMS;
}

/*
 * Rows that are read later, from memory. Loads of them are started a few cache lines at a time between the
 * multiplications of now: started together they would wait for each other, and with nothing started memory
 * would be idle now and the processor later. `at` is NULL where there are none.
 */
typedef struct rows_ahead {
    const char *at;
    ptrdiff_t stride;  /* bytes, from row to row */
    int line_elements; /* in one cache line      */
} rows_ahead;

enum { LINE_BYTES = 64 };

static const rows_ahead nothing_ahead = {NULL, 0, 1};

FA_INLINE rows_ahead skip_rows(rows_ahead ahead, int rows)
{
    ahead.at = ahead.at ? ahead.at + rows * ahead.stride : NULL;
    return ahead;
}

/*
 * Where the part of the head dims that begins at `part` ends. Rounding errors of one long sum grow as its length, so
 * that long heads are summed in parts, which meet in memory: registers have no room for a second set of sums.
 */
static inline int part_end(int part, int dim)
{
    enum { DIMS = 64, MOST = 96 };
    return dim - part > MOST ? part + DIMS : dim;
}

/* Scores of a tile; of `ahead`, one row for each of its keys. */
FA_INLINE void score_tile(const int nv, const int keys, const float *qt, const float *k, ptrdiff_t stride,
                          int dim, rows_ahead ahead, float *st, vf max[PANEL_VECS])
{
    vf acc[MOST_KEYS][PANEL_VECS];
    int step = ahead.at ? ahead.line_elements : dim;
    int part = 0, stop;
    do {
        stop = part_end(part, dim);
        FA_UNROLL
        for (int j = 0; j < keys; j++) {
            FA_UNROLL
            for (int n = 0; n < nv; n++)
                acc[j][n] = v_set1(0.0f);
        }
        for (int from = part; from < stop; from += step) {
            for (int j = 0; ahead.at && j < keys; j++)
                __builtin_prefetch(ahead.at + j * ahead.stride + from / step * LINE_BYTES);
            int end = stop - from < step ? stop : from + step;
            for (int d = from; d < end; d++) {
                vf q[PANEL_VECS];
                FA_UNROLL
                for (int n = 0; n < nv; n++)
                    q[n] = v_load(qt + d * lane_count(nv) + n * VL);
                FA_UNROLL
                for (int j = 0; j < keys; j++) {
                    vf broadcast = v_set1(k[j * stride + d]);
                    FA_UNROLL
                    for (int n = 0; n < nv; n++)
                        acc[j][n] = v_fma(broadcast, q[n], acc[j][n]);
                }
            }
        }
        FA_UNROLL
        for (int j = 0; j < keys; j++) {
            FA_UNROLL
            for (int n = 0; n < nv; n++) {
                float *at = st + j * lane_count(nv) + n * VL;
                acc[j][n] = part > 0 ? v_add(v_load(at), acc[j][n]) : acc[j][n];
                v_store(at, acc[j][n]);
            }
        }
        part = stop;
    } while (part < dim);
    FA_UNROLL
    for (int j = 0; j < keys; j++) {
        FA_UNROLL
        for (int n = 0; n < nv; n++)
            max[n] = v_max(max[n], acc[j][n]);
    }
}

/* Scores of `keys` keys, and each lane's greatest. */
FA_INLINE void score_panel(const int nv, const float *qt, const float *k, ptrdiff_t stride, int dim, int keys,
                           rows_ahead ahead, float *st, vf max[PANEL_VECS])
{
    const int tall = score_keys(nv), small = 4;
    int j = 0;
    for (; j + tall <= keys; j += tall)
        score_tile(nv, tall, qt, k + j * stride, stride, dim, skip_rows(ahead, j), st + j * lane_count(nv),
                   max);
    for (; small < tall && j + small <= keys; j += small)
        score_tile(nv, small, qt, k + j * stride, stride, dim, skip_rows(ahead, j), st + j * lane_count(nv),
                   max);
    for (; j < keys; j++)
        score_tile(nv, 1, qt, k + j * stride, stride, dim, skip_rows(ahead, j), st + j * lane_count(nv), max);
}

/*
 * Values of a tile. A block is summed up before it meets the output, so that keys are summed in parts too. Of the rows
 * ahead it loads cache line number which / 2, for every other eight rows.
 */
FA_INLINE void value_tile(const int nv, const int dims, const float *pt, const float *v, ptrdiff_t stride,
                          int keys, const vf *rescale, rows_ahead ahead, int which, float *ot)
{
    vf acc[MOST_DIMS][PANEL_VECS];
    FA_UNROLL
    for (int d = 0; d < dims; d++) {
        FA_UNROLL
        for (int n = 0; n < nv; n++)
            acc[d][n] = v_set1(0.0f);
    }
    const int group = 16; /* keys between which loads are started */
    int step = ahead.at ? group : keys;
    for (int from = 0; from < keys; from += step) {
        ptrdiff_t line = (from + which % 2 * group / 2) * ahead.stride + which / 2 * LINE_BYTES;
        for (int i = 0; ahead.at && i < group / 2; i++)
            __builtin_prefetch(ahead.at + line + i * ahead.stride);
        int end = keys - from < step ? keys : from + step;
        for (int j = from; j < end; j++) {
            vf p[PANEL_VECS];
            FA_UNROLL
            for (int n = 0; n < nv; n++)
                p[n] = v_load(pt + j * lane_count(nv) + n * VL);
            FA_UNROLL
            for (int d = 0; d < dims; d++) {
                vf broadcast = v_set1(v[j * stride + d]);
                FA_UNROLL
                for (int n = 0; n < nv; n++)
                    acc[d][n] = v_fma(broadcast, p[n], acc[d][n]);
            }
        }
    }
    FA_UNROLL
    for (int d = 0; d < dims; d++) {
        FA_UNROLL
        for (int n = 0; n < nv; n++) {
            float *at = ot + d * lane_count(nv) + n * VL;
            v_store(at, v_fma(v_load(at), rescale[n], acc[d][n]));
        }
    }
}

/* Adds `keys` weighted values to all `dim` outputs. */
FA_INLINE void value_panel(const int nv, const float *pt, const float *v, ptrdiff_t stride, int keys, int dim,
                           const vf *rescale, rows_ahead ahead, float *ot)
{
    const int wide = value_dims(nv), small = 2;
    int lines = 2 * ((dim + ahead.line_elements - 1) / ahead.line_elements), d = 0;
    for (int tile = 0; d + wide <= dim; d += wide, tile++)
        value_tile(nv, wide, pt, v + d, stride, keys, rescale, tile < lines ? ahead : nothing_ahead, tile,
                   ot + d * lane_count(nv));
    for (; d + small <= dim; d += small)
        value_tile(nv, small, pt, v + d, stride, keys, rescale, nothing_ahead, 0, ot + d * lane_count(nv));
    for (; d < dim; d++)
        value_tile(nv, 1, pt, v + d, stride, keys, rescale, nothing_ahead, 0, ot + d * lane_count(nv));
}

#endif
