/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

enum { SEGMENT = 256, BLOCK = 128 };
#define THRESHOLD 0.9

/* Memory of a call: the keys' order; a weight for each key; the means of blocks of keys of all KV heads, and of one block of rows;
 * scores of blocks. */
typedef struct sorter {
    fa_sparse_permuted_desc desc;
    fa_vectors vectors;
    int32_t *order;
    double *weights, *chances, *means, *row;
    fa_ranked *ranked;
    size_t order_bytes, keys_bytes, means_bytes, row_bytes, ranked_bytes;
} sorter;

static fa_status check(sorter *s)
{
    fa_sparse_permuted_desc *d = &s->desc;
    FA_TRY(fa_shape_check(&d->shape, BLOCK));
    s->vectors = (fa_vectors){d->q, d->k, d->heads_q, d->heads_kv, d->shape.rows, d->shape.keys, d->dim};
    FA_TRY(fa_vectors_check(&s->vectors));
    if (d->shape.rows != d->shape.keys)
        return fa_fail(FA_INVALID, "shape.rows is %lld, expected as many as keys, %lld",
                       (long long)d->shape.rows, (long long)d->shape.keys);
    d->segment = d->segment ? d->segment : SEGMENT;
    FA_TRY(fa_check_limit("segment", d->segment, 1, FA_MAX_LENGTH));
    if (d->segment % d->shape.block_rows != 0 || d->segment % d->shape.block_keys != 0)
        return fa_fail(FA_INVALID,
                       "segment is %lld, expected a multiple of block_rows, %d, and of block_keys, %d",
                       (long long)d->segment, d->shape.block_rows, d->shape.block_keys);
    if (d->threshold == 0)
        d->threshold = THRESHOLD;
    if (!(d->threshold > 0 && d->threshold <= 1))
        return fa_fail(FA_INVALID, "threshold is %g, expected above 0 and at most 1", d->threshold);
    if (!isfinite(d->scale))
        return fa_fail(FA_INVALID, "scale is %g, expected a finite number", d->scale);
    if (d->scale == 0)
        d->scale = 1 / sqrt((double)d->dim);
    if (!d->order)
        return fa_fail(FA_INVALID, "order is NULL");
    return fa_check_limit("without_own", d->without_own, 0, 1);
}

static fa_status allocate(sorter *s, const fa_list_maker *m)
{
    const size_t dim = (size_t)s->desc.dim * sizeof(double), keys = (size_t)m->shape.keys;
    if (!fa_grow(&s->means_bytes, (size_t)(m->key_blocks * s->desc.heads_kv), dim) ||
        !fa_grow(&s->order_bytes, keys * sizeof(*s->order), (size_t)s->desc.heads_kv))
        return fa_fail(FA_OUT_OF_MEMORY, "the means of %lld blocks overflow memory",
                       (long long)m->key_blocks);
    s->keys_bytes = keys * sizeof(double);
    s->row_bytes = dim;
    s->ranked_bytes =
        (size_t)FA_MAX(m->key_blocks, FA_MIN(s->desc.segment, m->shape.keys)) * sizeof(*s->ranked);
    s->order = fa_alloc(m->context, s->order_bytes);
    s->weights = s->order ? fa_alloc(m->context, s->keys_bytes) : NULL;
    s->chances = s->weights ? fa_alloc(m->context, s->keys_bytes) : NULL;
    s->means = s->chances ? fa_alloc(m->context, s->means_bytes) : NULL;
    s->row = s->means ? fa_alloc(m->context, s->row_bytes) : NULL;
    s->ranked = s->row ? fa_alloc(m->context, s->ranked_bytes) : NULL;
    return s->ranked ? FA_OK : FA_OUT_OF_MEMORY;
}

static void release(sorter *s, const fa_context *context)
{
    fa_release(context, s->order, s->order_bytes);
    fa_release(context, s->weights, s->keys_bytes);
    fa_release(context, s->chances, s->keys_bytes);
    fa_release(context, s->means, s->means_bytes);
    fa_release(context, s->row, s->row_bytes);
    fa_release(context, s->ranked, s->ranked_bytes);
}

/* Adds a row's softmax over the first `keys` keys to the weights. */
static void add_weights(sorter *s, int64_t head, int64_t row, int64_t keys)
{
    const fa_vectors *v = &s->vectors;
    const float *q = fa_row_at(v, head, row), *k = fa_key_at(v, head / (v->heads_q / v->heads_kv), 0);
    double most = -INFINITY, sum = 0;
    for (int64_t key = 0; key < keys; key++) {
        s->chances[key] = fa_product(q, k + key * v->dim, v->dim) * s->desc.scale;
        most = fmax(most, s->chances[key]);
    }
    for (int64_t key = 0; key < keys; key++)
        sum += s->chances[key] = exp(s->chances[key] - most);
    for (int64_t key = 0; key < keys; key++)
        s->weights[key] += s->chances[key] / sum;
}

/* Sorts the keys of each segment of a KV head. */
static void sort_keys(sorter *s, const fa_list_maker *m, int64_t head_kv)
{
    const int64_t keys = m->shape.keys, group = s->desc.heads_q / s->desc.heads_kv, segment = s->desc.segment;
    int32_t *order = s->order + head_kv * keys;
    memset(s->weights, 0, s->keys_bytes);
    for (int64_t head = head_kv * group; head < (head_kv + 1) * group; head++) {
        for (int64_t row = FA_MAX(keys - m->shape.block_rows, 0); row < keys; row++)
            add_weights(s, head, row, m->shape.mask == FA_MASK_NONE ? keys : row + 1);
    }
    for (int64_t first = 0; first < keys; first += segment) {
        const int64_t count = FA_MIN(segment, keys - first);
        for (int64_t n = 0; n < count; n++)
            s->ranked[n] = (fa_ranked){s->weights[first + n], (int32_t)(first + n)};
        qsort(s->ranked, (size_t)count, sizeof(*s->ranked), fa_ranked_order);
        for (int64_t n = 0; n < count; n++)
            order[first + n] = s->ranked[n].index;
    }
    for (int64_t block = 0; block < m->key_blocks; block++)
        fa_mean(fa_key_at(&s->vectors, head_kv, 0), s->desc.dim, order, block * m->shape.block_keys,
                FA_MIN((block + 1) * m->shape.block_keys, keys),
                s->means + (head_kv * m->key_blocks + block) * s->desc.dim);
}

static void choose(sorter *s, fa_list_maker *m, int64_t head, int64_t row_block)
{
    const int64_t dim = s->desc.dim, head_kv = head / (s->desc.heads_q / s->desc.heads_kv);
    const int64_t first = row_block * m->shape.block_rows, in_segment = s->desc.segment / m->shape.block_keys;
    const int64_t own = first / s->desc.segment * in_segment, own_end = own + in_segment;
    const int64_t end = m->shape.mask == FA_MASK_NONE ? m->key_blocks : own;
    int64_t count = 0, start = 0;
    fa_mean(fa_row_at(&s->vectors, head, 0), dim, NULL, first,
            FA_MIN(first + m->shape.block_rows, m->shape.rows), s->row);
    for (int64_t block = 0; block < end; block++) {
        if (block < own || block >= own_end) {
            const double dot = fa_dot(s->row, s->means + (head_kv * m->key_blocks + block) * dim, dim);
            s->ranked[count++] = (fa_ranked){dot * s->desc.scale, (int32_t)block};
        }
    }
    count = fa_ranked_fewest(s->ranked, count, s->desc.threshold);
    for (int64_t n = 0; n < count; n++)
        fa_maker_add(m, s->ranked[n].index, s->ranked[n].index + 1);
    while (s->order[head_kv * m->shape.keys + start] != 0)
        start++;
    fa_maker_add(m, start / m->shape.block_keys, start / m->shape.block_keys + 1);
    if (s->desc.without_own)
        fa_maker_drop(m, own, own_end);
    else
        fa_maker_add(m, own, own_end);
}

static fa_status make(sorter *s, fa_list_maker *m)
{
    FA_TRY(allocate(s, m));
    for (int64_t head = 0; head < s->desc.heads_kv; head++)
        sort_keys(s, m, head);
    for (int64_t n = 0; n < m->mask->offsets - 1; n++) {
        choose(s, m, n / m->row_blocks, n % m->row_blocks);
        FA_TRY(fa_maker_next(m));
    }
    memcpy(s->desc.order, s->order, s->order_bytes);
    return FA_OK;
}

fa_status fa_sparse_permuted(fa_context *context, const fa_sparse_permuted_desc *desc, fa_block_mask **mask)
{
    sorter s = {.order = NULL};
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&s.desc, sizeof(s.desc), FA_SPARSE_PERMUTED_DESC_0_1, desc,
                          "fa_sparse_permuted_desc"));
    FA_TRY(check(&s));
    fa_status status = fa_maker_begin(&m, context, &s.desc.shape, 1, s.desc.heads_q);
    if (status == FA_OK)
        status = make(&s, &m);
    release(&s, context);
    return fa_maker_finish(&m, status, mask);
}
