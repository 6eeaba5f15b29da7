/* SPDX-License-Identifier: Apache-2.0 */
/* What planners compute of q and k in host memory: in double, in the order of the elements. */
#ifndef FA_CORE_SPARSE_SCORES_H
#define FA_CORE_SPARSE_SCORES_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* q and k of one sequence: (heads_q, rows, dim) and (heads_kv, keys, dim). */
typedef struct fa_vectors {
    const float *q, *k;
    int64_t heads_q, heads_kv, rows, keys, dim;
} fa_vectors;

fa_status fa_vectors_check(const fa_vectors *v);

static inline const float *fa_row_at(const fa_vectors *v, int64_t head, int64_t row)
{
    return v->q + (head * v->rows + row) * v->dim;
}

static inline const float *fa_key_at(const fa_vectors *v, int64_t head, int64_t key)
{
    return v->k + (head * v->keys + key) * v->dim;
}

/* Of vectors [begin, end) of `from`, taken in `order` where it is not NULL. */
static inline void fa_mean(const float *from, int64_t dim, const int32_t *order, int64_t begin, int64_t end,
                           double *to)
{
    for (int64_t d = 0; d < dim; d++)
        to[d] = 0;
    for (int64_t n = begin; n < end; n++) {
        const float *x = from + (order ? order[n] : n) * dim;
        for (int64_t d = 0; d < dim; d++)
            to[d] += (double)x[d];
    }
    for (int64_t d = 0; d < dim; d++)
        to[d] /= (double)(end - begin);
}

static inline double fa_dot(const double *a, const double *b, int64_t dim)
{
    double sum = 0;
    for (int64_t d = 0; d < dim; d++)
        sum += a[d] * b[d];
    return sum;
}

/* The same of elements. */
static inline double fa_product(const float *a, const float *b, int64_t dim)
{
    double sum = 0;
    for (int64_t d = 0; d < dim; d++)
        sum += (double)a[d] * (double)b[d];
    return sum;
}

/* A number and where it is from. */
typedef struct fa_ranked {
    double score;
    int32_t index;
} fa_ranked;

/* The larger score first, of equal ones the lower index; what is no number comes last. For qsort(). */
int fa_ranked_order(const void *a, const void *b);

/* Keeps the `most` best, in order, of `count` and one more. Returns how many there are. */
int64_t fa_ranked_keep(fa_ranked *best, int64_t count, int64_t most, fa_ranked next);

/* Sorts them. Returns how many there are of the first, the fewest whose part of the softmax of all is the threshold or more. */
int64_t fa_ranked_fewest(fa_ranked *ranked, int64_t count, double threshold);

#endif
