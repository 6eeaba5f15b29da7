/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/clusters.h"
#include "core/sparse/mask.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

/* Clusters of one level, with the keys that each stands for, and S of each for the row at hand; -1: it takes no part. */
typedef struct level {
    fa_clustering clusters;
    int32_t *keys; /* (heads_kv, clusters) */
    double *weight;
    size_t keys_bytes, weight_bytes;
} level;

typedef struct scene {
    fa_sparse_squeezed_desc desc;
    fa_vectors vectors;
    bool has_coarse;
    level fine, coarse;
    uint8_t *kept; /* fine clusters that a row of the list at hand sees */
} scene;

static bool is_absent(const fa_clusters *c)
{
    return c->clusters == 0 && !c->nearest && !c->centroids;
}

static fa_status check_threshold(const char *name, double threshold)
{
    if (!(threshold >= 0 && threshold <= 1))
        return fa_fail(FA_INVALID, "%s is %g, expected 0 to 1", name, threshold);
    return FA_OK;
}

/* All but keys behind the context, blocks and thresholds. */
static fa_status check_rows(scene *s)
{
    fa_sparse_squeezed_desc *d = &s->desc;
    size_t bytes = 0;
    FA_TRY(fa_check_limit("shape.rows", d->shape.rows, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("context", d->context, 1, FA_MAX_LENGTH));
    FA_TRY(fa_clustered_check(d->heads_q, d->heads_kv, d->dim, &d->scale));
    if (!d->q)
        return fa_fail(FA_INVALID, "q is NULL");
    if (!fa_grow(&bytes, (size_t)d->heads_q * (size_t)d->shape.rows, (size_t)d->dim * sizeof(float)))
        return fa_fail(FA_OUT_OF_MEMORY, "dim is %lld: q would be larger than memory could be",
                       (long long)d->dim);
    s->vectors = (fa_vectors){.q = d->q, .heads_q = d->heads_q, .rows = d->shape.rows, .dim = d->dim};
    s->has_coarse = !is_absent(&d->coarse);
    return FA_OK;
}

static fa_status check(scene *s)
{
    fa_sparse_squeezed_desc *d = &s->desc;
    FA_TRY(fa_shape_check(&d->shape, 1));
    FA_TRY(fa_check_limit("context", d->context, 1, d->shape.keys));
    FA_TRY(check_threshold("threshold", d->threshold));
    FA_TRY(check_threshold("coarse_threshold", d->coarse_threshold));
    FA_TRY(fa_check_limit("per_kv_head", d->per_kv_head, 0, 1));
    return check_rows(s);
}

static fa_status make_level(level *l, const fa_context *context, const char *name,
                            const fa_clusters *clusters, const scene *s, int64_t rows)
{
    const int64_t heads = s->desc.heads_kv;
    FA_TRY(fa_clustering_make(&l->clusters, context, name, clusters, heads, rows, s->desc.dim));
    l->keys_bytes = (size_t)(heads * clusters->clusters) * sizeof(*l->keys);
    l->weight_bytes = (size_t)clusters->clusters * sizeof(*l->weight);
    l->keys = fa_alloc_zeroed(context, l->keys_bytes);
    l->weight = l->keys ? fa_alloc(context, l->weight_bytes) : NULL;
    return l->weight ? FA_OK : FA_OUT_OF_MEMORY;
}

static fa_status make_levels(scene *s, const fa_context *context)
{
    const fa_sparse_squeezed_desc *d = &s->desc;
    const int64_t fine = d->fine.clusters;
    FA_TRY(make_level(&s->fine, context, "fine", &d->fine, s, d->context));
    memcpy(s->fine.keys, s->fine.clusters.counts, s->fine.keys_bytes);
    if (s->has_coarse) {
        FA_TRY(make_level(&s->coarse, context, "coarse", &d->coarse, s, fine));
        for (int64_t n = 0; n < d->heads_kv * fine; n++)
            s->coarse.keys[n / fine * d->coarse.clusters + d->coarse.nearest[n]] += s->fine.keys[n];
    }
    s->kept = fa_alloc_zeroed(context, (size_t)fine);
    return s->kept ? FA_OK : FA_OUT_OF_MEMORY;
}

static void release(scene *s, const fa_context *context)
{
    level *const both[] = {&s->fine, &s->coarse};
    for (int n = 0; n < 2; n++) {
        fa_clustering_release(&both[n]->clusters, context);
        fa_release(context, both[n]->keys, both[n]->keys_bytes);
        fa_release(context, both[n]->weight, both[n]->weight_bytes);
    }
    fa_release(context, s->kept, (size_t)s->desc.fine.clusters);
}

/* Whether a cluster takes part: it has keys, and its coarse cluster is above the threshold. */
static bool takes_part(const scene *s, const level *l, int64_t head_kv, int64_t cluster)
{
    const int64_t at = head_kv * l->clusters.of.clusters + cluster;
    if (l->keys[at] == 0)
        return false;
    return l == &s->coarse || !s->has_coarse ||
           s->coarse.weight[s->desc.coarse.nearest[at]] > s->desc.coarse_threshold;
}

/* S of each cluster. */
static void weigh(scene *s, level *l, int64_t head_kv, const float *q)
{
    const int64_t clusters = l->clusters.of.clusters;
    double most = -INFINITY, sum = 0;
    for (int64_t n = 0; n < clusters; n++) {
        if (takes_part(s, l, head_kv, n)) {
            l->weight[n] =
                s->desc.scale * fa_product(q, fa_centroid_at(&l->clusters, head_kv, n), s->desc.dim);
            most = fmax(most, l->weight[n]);
        }
    }
    for (int64_t n = 0; n < clusters; n++) {
        if (takes_part(s, l, head_kv, n)) {
            l->weight[n] = exp(l->weight[n] - most);
            sum += l->keys[head_kv * clusters + n] * l->weight[n];
        }
    }
    for (int64_t n = 0; n < clusters; n++)
        l->weight[n] = takes_part(s, l, head_kv, n) ? l->weight[n] / sum : -1;
}

/* S of both levels for a row of a query head. */
static void weigh_row(scene *s, int64_t head, int64_t row)
{
    const int64_t head_kv = head / (s->desc.heads_q / s->desc.heads_kv);
    const float *q = fa_row_at(&s->vectors, head, row);
    if (s->has_coarse)
        weigh(s, &s->coarse, head_kv, q);
    weigh(s, &s->fine, head_kv, q);
}

/* Adds the keys of a block of rows: those of the clusters that `kept` has, and those behind the context. */
static void add(scene *s, fa_list_maker *m, int64_t head_kv, int64_t row_block)
{
    const int32_t *nearest = s->desc.fine.nearest + head_kv * s->desc.context;
    const int64_t size = m->shape.block_keys;
    for (int64_t key = 0; key < s->desc.context; key++) {
        if (s->kept[nearest[key]])
            fa_maker_add(m, key / size, key / size + 1);
    }
    if (s->desc.context < m->shape.keys)
        fa_maker_add(m, s->desc.context / size, m->key_blocks);
    fa_maker_drop(m, fa_maker_visible(m, row_block), m->key_blocks);
}

static fa_status make(scene *s, fa_list_maker *m)
{
    const fa_sparse_squeezed_desc *d = &s->desc;
    const int64_t group = d->heads_q / d->heads_kv, each = d->per_kv_head ? group : 1;
    FA_TRY(make_levels(s, m->context));
    for (int64_t n = 0; n < m->mask->offsets - 1; n++) {
        const int64_t first = n % m->row_blocks * m->shape.block_rows, head = n / m->row_blocks * each;
        const int64_t end = FA_MIN(first + m->shape.block_rows, m->shape.rows);
        memset(s->kept, 0, (size_t)d->fine.clusters);
        for (int64_t i = 0; i < (end - first) * each; i++) {
            weigh_row(s, head + i % each, first + i / each);
            for (int64_t c = 0; c < d->fine.clusters; c++)
                s->kept[c] |= s->fine.weight[c] > d->threshold;
        }
        add(s, m, head / group, n % m->row_blocks);
        FA_TRY(fa_maker_next(m));
    }
    return FA_OK;
}

fa_status fa_sparse_squeezed(fa_context *context, const fa_sparse_squeezed_desc *desc, fa_block_mask **mask)
{
    scene s = {.kept = NULL};
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&s.desc, sizeof(s.desc), FA_SPARSE_SQUEEZED_DESC_0_1, desc,
                          "fa_sparse_squeezed_desc"));
    FA_TRY(check(&s));
    fa_status status =
        fa_maker_begin(&m, context, &s.desc.shape, 1, s.desc.per_kv_head ? s.desc.heads_kv : s.desc.heads_q);
    if (status == FA_OK)
        status = make(&s, &m);
    release(&s, context);
    return fa_maker_finish(&m, status, mask);
}

/* The greatest threshold that leaves so many keys of the clusters: S of the heaviest that it leaves out. `index` has their keys. */
static double threshold_of(fa_ranked *ranked, int64_t count, double keys)
{
    double sum = 0;
    int64_t n = 0;
    qsort(ranked, (size_t)count, sizeof(*ranked), fa_ranked_order);
    while (n < count && (sum < keys || ranked[n].score == ranked[n - 1].score))
        sum += ranked[n++].index;
    return n < count && ranked[n].score >= 0 ? ranked[n].score : 0;
}

/* The threshold of a level, of all rows. */
static double calibrate(scene *s, const level *l, double share, fa_ranked *ranked)
{
    const fa_sparse_squeezed_desc *d = &s->desc;
    const int64_t rows = d->heads_q * d->shape.rows, clusters = l->clusters.of.clusters;
    int64_t count = 0;
    for (int64_t n = 0; n < rows; n++) {
        const int64_t head = n / d->shape.rows;
        const int32_t *keys = l->keys + head / (d->heads_q / d->heads_kv) * clusters;
        weigh_row(s, head, n % d->shape.rows);
        for (int64_t c = 0; c < clusters; c++) {
            if (l->weight[c] >= 0)
                ranked[count++] = (fa_ranked){l->weight[c], keys[c]};
        }
    }
    return threshold_of(ranked, count, share * (double)d->context * (double)rows);
}

static fa_status calibrate_levels(scene *s, const fa_context *context, double share, double coarse_share,
                                  double *threshold, double *coarse_threshold)
{
    const fa_sparse_squeezed_desc *d = &s->desc;
    const int64_t most = FA_MAX(d->fine.clusters, s->has_coarse ? d->coarse.clusters : 0);
    size_t bytes = 0;
    FA_TRY(make_levels(s, context));
    if (!fa_grow(&bytes, (size_t)(d->heads_q * d->shape.rows), (size_t)most * sizeof(fa_ranked)))
        return fa_fail(FA_OUT_OF_MEMORY, "shape.rows is %lld: their clusters overflow memory",
                       (long long)d->shape.rows);
    fa_ranked *ranked = fa_alloc(context, bytes);
    if (!ranked)
        return FA_OUT_OF_MEMORY;
    s->desc.coarse_threshold = 0;
    if (s->has_coarse)
        s->desc.coarse_threshold = calibrate(s, &s->coarse, coarse_share, ranked);
    *threshold = calibrate(s, &s->fine, share, ranked);
    *coarse_threshold = s->desc.coarse_threshold;
    fa_release(context, ranked, bytes);
    return FA_OK;
}

fa_status fa_sparse_squeezed_thresholds(fa_context *context, const fa_sparse_squeezed_desc *desc,
                                        double share, double coarse_share, double *threshold,
                                        double *coarse_threshold)
{
    scene s = {.kept = NULL};
    fa_clear_error();
    if (!context || !desc || !threshold || !coarse_threshold)
        return fa_fail(FA_INVALID, "%s is NULL",
                       !context    ? "context"
                       : !desc     ? "desc"
                       : threshold ? "coarse_threshold"
                                   : "threshold");
    FA_TRY(fa_copy_struct(&s.desc, sizeof(s.desc), FA_SPARSE_SQUEEZED_DESC_0_1, desc,
                          "fa_sparse_squeezed_desc"));
    FA_TRY(check_rows(&s));
    if (!s.has_coarse)
        coarse_share = 1;
    if (!(coarse_share > 0 && coarse_share <= 1))
        return fa_fail(FA_INVALID, "coarse_share is %g, expected above 0 and at most 1", coarse_share);
    if (!(share > 0 && share <= coarse_share))
        return fa_fail(FA_INVALID, "share is %g, expected above 0 and at most %g", share, coarse_share);
    const fa_status status = calibrate_levels(&s, context, share, coarse_share, threshold, coarse_threshold);
    release(&s, context);
    return status;
}
