/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/clusters.h"
#include "core/sparse/mask.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

enum { BLOCK = 64 };
#define THRESHOLD 0.9

/* Where the clusters of each head begin in the order of its tokens, and that order. One more begins where the last ends. */
typedef struct order {
    fa_clustering clusters;
    int32_t *begin, *token;
    size_t begin_bytes, token_bytes;
} order;

/* Memory of a call: both orders, which clusters of rows meet which of keys, scores of clusters of keys. */
typedef struct scene {
    fa_sparse_clustered_desc desc;
    order q, k;
    uint8_t *chosen;
    fa_ranked *ranked;
    size_t chosen_bytes, ranked_bytes;
} scene;

static fa_status check(scene *s)
{
    fa_sparse_clustered_desc *d = &s->desc;
    FA_TRY(fa_shape_check(&d->shape, BLOCK));
    if (d->shape.mask != FA_MASK_NONE)
        return fa_fail(FA_INVALID, "shape.mask is %d, expected %d: tokens are in another order",
                       (int)d->shape.mask, (int)FA_MASK_NONE);
    FA_TRY(fa_clustered_check(d->heads_q, d->heads_kv, d->dim, &d->scale));
    if (d->threshold == 0)
        d->threshold = THRESHOLD;
    if (!(d->threshold > 0 && d->threshold <= 1))
        return fa_fail(FA_INVALID, "threshold is %g, expected above 0 and at most 1", d->threshold);
    if (!d->order_q || !d->order_k)
        return fa_fail(FA_INVALID, "%s is NULL", d->order_q ? "order_k" : "order_q");
    return FA_OK;
}

/* Sorts the tokens of each head by their clusters, in which they keep their order. */
static fa_status sort(order *o, const fa_context *context, const char *name, const fa_clusters *clusters,
                      int64_t heads, int64_t rows, int64_t dim)
{
    FA_TRY(fa_clustering_make(&o->clusters, context, name, clusters, heads, rows, dim));
    const int64_t count = clusters->clusters, each = count + 1;
    o->begin_bytes = (size_t)(heads * each) * sizeof(*o->begin);
    o->token_bytes = (size_t)(heads * rows) * sizeof(*o->token);
    o->begin = fa_alloc(context, o->begin_bytes);
    o->token = o->begin ? fa_alloc(context, o->token_bytes) : NULL;
    if (!o->token)
        return FA_OUT_OF_MEMORY;
    for (int64_t head = 0; head < heads; head++) {
        int32_t *next = fa_count_at(&o->clusters, head, 0), *begin = o->begin + head * each, sum = 0;
        for (int64_t c = 0; c < count; c++) {
            begin[c] = sum;
            sum += next[c];
            next[c] = begin[c]; /* from here on, where the next token of the cluster goes */
        }
        begin[count] = sum;
        for (int64_t row = 0; row < rows; row++)
            o->token[head * rows + next[clusters->nearest[head * rows + row]]++] = (int32_t)row;
    }
    return FA_OK;
}

static void release(scene *s, const fa_context *context)
{
    order *const both[] = {&s->q, &s->k};
    for (int n = 0; n < 2; n++) {
        fa_clustering_release(&both[n]->clusters, context);
        fa_release(context, both[n]->begin, both[n]->begin_bytes);
        fa_release(context, both[n]->token, both[n]->token_bytes);
    }
    fa_release(context, s->chosen, s->chosen_bytes);
    fa_release(context, s->ranked, s->ranked_bytes);
}

static fa_status allocate(scene *s, const fa_context *context)
{
    const fa_sparse_clustered_desc *d = &s->desc;
    FA_TRY(sort(&s->q, context, "q", &d->q, d->heads_q, d->shape.rows, d->dim));
    FA_TRY(sort(&s->k, context, "k", &d->k, d->heads_kv, d->shape.keys, d->dim));
    if (!fa_grow(&s->chosen_bytes, (size_t)d->heads_q * (size_t)d->q.clusters, (size_t)d->k.clusters))
        return fa_fail(FA_OUT_OF_MEMORY, "q.clusters is %lld and k.clusters %lld: pairs overflow memory",
                       (long long)d->q.clusters, (long long)d->k.clusters);
    s->ranked_bytes = (size_t)d->k.clusters * sizeof(*s->ranked);
    s->chosen = fa_alloc_zeroed(context, s->chosen_bytes);
    s->ranked = s->chosen ? fa_alloc(context, s->ranked_bytes) : NULL;
    return s->ranked ? FA_OK : FA_OUT_OF_MEMORY;
}

static const int32_t *begin_of(const order *o, int64_t head)
{
    return o->begin + head * (o->clusters.of.clusters + 1);
}

/* Which clusters of keys cluster c of a head's rows meets, if it has rows. */
static void choose(scene *s, int64_t head, int64_t c)
{
    const fa_sparse_clustered_desc *d = &s->desc;
    const int64_t head_kv = head / (d->heads_q / d->heads_kv);
    const int32_t *begin = begin_of(&s->k, head_kv), *rows = begin_of(&s->q, head) + c;
    int64_t count = 0;
    if (rows[0] == rows[1])
        return;
    for (int64_t n = 0; n < d->k.clusters; n++) {
        const int32_t keys = begin[n + 1] - begin[n];
        if (keys > 0) {
            const double score = d->scale * fa_product(fa_centroid_at(&s->q.clusters, head, c),
                                                       fa_centroid_at(&s->k.clusters, head_kv, n), d->dim);
            s->ranked[count++] = (fa_ranked){score + log((double)keys), (int32_t)n};
        }
    }
    count = fa_ranked_fewest(s->ranked, count, d->threshold);
    for (int64_t n = 0; n < count; n++)
        s->chosen[(head * d->q.clusters + c) * d->k.clusters + s->ranked[n].index] = 1;
}

/* Adds the blocks of keys that the clusters of a block of rows meet. */
static void add(const scene *s, fa_list_maker *m, int64_t head, int64_t row_block)
{
    const fa_sparse_clustered_desc *d = &s->desc;
    const int32_t *q = begin_of(&s->q, head), *k = begin_of(&s->k, head / (d->heads_q / d->heads_kv));
    const int64_t first = row_block * m->shape.block_rows, size = m->shape.block_keys,
                  end = FA_MIN(first + m->shape.block_rows, m->shape.rows);
    for (int64_t c = 0; c < d->q.clusters; c++) {
        const uint8_t *chosen = s->chosen + (head * d->q.clusters + c) * d->k.clusters;
        if (FA_MAX(q[c], first) >= FA_MIN(q[c + 1], end))
            continue;
        for (int64_t n = 0; n < d->k.clusters; n++) {
            if (chosen[n])
                fa_maker_add(m, k[n] / size, fa_ceil_div(k[n + 1], size));
        }
    }
}

static fa_status make(scene *s, fa_list_maker *m)
{
    const fa_sparse_clustered_desc *d = &s->desc;
    FA_TRY(allocate(s, m->context));
    for (int64_t n = 0; n < d->heads_q * d->q.clusters; n++)
        choose(s, n / d->q.clusters, n % d->q.clusters);
    for (int64_t n = 0; n < m->mask->offsets - 1; n++) {
        add(s, m, n / m->row_blocks, n % m->row_blocks);
        FA_TRY(fa_maker_next(m));
    }
    memcpy(d->order_q, s->q.token, s->q.token_bytes);
    memcpy(d->order_k, s->k.token, s->k.token_bytes);
    if (d->chosen)
        memcpy(d->chosen, s->chosen, s->chosen_bytes);
    return FA_OK;
}

fa_status fa_sparse_clustered(fa_context *context, const fa_sparse_clustered_desc *desc, fa_block_mask **mask)
{
    scene s = {.chosen = NULL};
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&s.desc, sizeof(s.desc), FA_SPARSE_CLUSTERED_DESC_0_1, desc,
                          "fa_sparse_clustered_desc"));
    FA_TRY(check(&s));
    fa_status status = fa_maker_begin(&m, context, &s.desc.shape, 1, s.desc.heads_q);
    if (status == FA_OK)
        status = make(&s, &m);
    release(&s, context);
    return fa_maker_finish(&m, status, mask);
}
