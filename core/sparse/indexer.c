/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

enum { TOPK = 2048 };

static fa_status check(fa_sparse_indexer_desc *d, fa_vectors *v)
{
    size_t bytes = 0;
    FA_TRY(fa_shape_check(&d->shape, 1));
    FA_TRY(fa_check_limit("shape.block_rows", d->shape.block_rows, 1, 1));
    FA_TRY(fa_check_limit("shape.block_keys", d->shape.block_keys, 1, 1));
    FA_TRY(fa_check_limit("heads", d->heads, 1, FA_MAX_LENGTH));
    *v = (fa_vectors){d->q, d->k, d->heads, 1, d->shape.rows, d->shape.keys, d->dim};
    FA_TRY(fa_vectors_check(v));
    d->topk = d->topk ? d->topk : TOPK;
    FA_TRY(fa_check_limit("topk", d->topk, 1, FA_MAX_LENGTH));
    if (!d->weights || !d->indices)
        return fa_fail(FA_INVALID, "%s is NULL", d->weights ? "indices" : "weights");
    if (!fa_grow(&bytes, (size_t)d->shape.rows * sizeof(*d->indices), (size_t)d->topk))
        return fa_fail(FA_OUT_OF_MEMORY, "topk is %lld: indices would be larger than memory could be",
                       (long long)d->topk);
    return FA_OK;
}

static double score_of(const fa_sparse_indexer_desc *d, const fa_vectors *v, int64_t row, int64_t key)
{
    const float *k = fa_key_at(v, 0, key);
    double score = 0;
    for (int64_t h = 0; h < d->heads; h++) {
        const double product = fa_product(fa_row_at(v, h, row), k, d->dim);
        score += (double)d->weights[row * d->heads + h] * (product < 0 ? 0 : product); /* NaN stays NaN */
    }
    return score;
}

/* Lets what is at `at` sink in a heap that has the worst of its entries first. */
static void sink(fa_ranked *heap, int64_t count, int64_t at)
{
    const fa_ranked entry = heap[at];
    for (int64_t below = 2 * at + 1; below < count; below = 2 * at + 1) {
        if (below + 1 < count && fa_ranked_order(&heap[below + 1], &heap[below]) > 0)
            below++;
        if (fa_ranked_order(&entry, &heap[below]) >= 0)
            break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = entry;
}

static int compare_indices(const void *a, const void *b)
{
    const fa_ranked *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

/* One row's list, by way of a heap of the best that has room for them. */
static void choose(const fa_sparse_indexer_desc *d, const fa_vectors *v, int64_t row, fa_ranked *best)
{
    const int64_t position = d->shape.mask == FA_MASK_CAUSAL_TOP_LEFT ? row : row + v->keys - v->rows;
    const int64_t end = d->shape.mask == FA_MASK_NONE ? v->keys : FA_MIN(FA_MAX(position + 1, 0), v->keys);
    const int64_t count = FA_MIN(end, d->topk);
    int32_t *list = d->indices + row * d->topk;
    for (int64_t key = 0; key < count; key++)
        best[key] = (fa_ranked){end > d->topk ? score_of(d, v, row, key) : 0, (int32_t)key};
    for (int64_t at = count / 2; at > 0 && end > count; at--)
        sink(best, count, at - 1);
    for (int64_t key = count; key < end; key++) {
        const fa_ranked next = {score_of(d, v, row, key), (int32_t)key};
        if (fa_ranked_order(&next, &best[0]) > 0)
            continue;
        best[0] = next;
        sink(best, count, 0);
    }
    qsort(best, (size_t)count, sizeof(*best), compare_indices);
    for (int64_t n = 0; n < d->topk; n++)
        list[n] = n < count ? best[n].index : -1;
}

fa_status fa_sparse_indexer(fa_context *context, const fa_sparse_indexer_desc *desc)
{
    fa_sparse_indexer_desc d;
    fa_vectors v;
    fa_clear_error();
    if (!context || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "desc" : "context");
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SPARSE_INDEXER_DESC_0_1, desc, "fa_sparse_indexer_desc"));
    FA_TRY(check(&d, &v));
    const size_t bytes = (size_t)FA_MIN(d.topk, v.keys) * sizeof(fa_ranked);
    fa_ranked *best = fa_alloc(context, bytes);
    if (!best)
        return fa_finish(FA_OUT_OF_MEMORY);
    for (int64_t row = 0; row < v.rows; row++)
        choose(&d, &v, row, best);
    fa_release(context, best, bytes);
    return fa_finish(FA_OK);
}
