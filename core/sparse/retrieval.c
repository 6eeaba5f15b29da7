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

enum { BUDGET = 512, ROOM = 16 };
#define SIMILARITY 0.7

/* Units are the prompt's clusters, then the segments of the output, of which the last is open. */
struct fa_retrieval {
    fa_context *context;
    fa_retrieval_desc desc;
    fa_clustering clusters; /* of our own copies */
    int32_t *nearest;
    float *centroids, *last; /* the query before */
    size_t nearest_bytes, centroids_bytes, last_bytes;
    int64_t tokens, segments, room;
    int32_t *begin;           /* (room): the token that each segment begins with            */
    double *sums;             /* (room, heads_kv, dim): of the keys of each segment          */
    uint8_t *chosen, *choice; /* (clusters + room, heads_kv): by the last boundary; being made */
};

static fa_status check(fa_retrieval_desc *d)
{
    double scale = 1; /* of no matter where products are compared */
    FA_TRY(fa_clustered_check(d->heads_q, d->heads_kv, d->dim, &scale));
    FA_TRY(fa_check_limit("prompt", d->prompt, 1, FA_MAX_LENGTH));
    if (d->similarity == 0)
        d->similarity = SIMILARITY;
    if (!(d->similarity >= -1 && d->similarity <= 1))
        return fa_fail(FA_INVALID, "similarity is %g, expected -1 to 1", d->similarity);
    d->budget = d->budget ? d->budget : BUDGET;
    return fa_check_limit("budget", d->budget, 1, FA_MAX_LENGTH);
}

static size_t sums_bytes(const fa_retrieval *r, int64_t room)
{
    return (size_t)(room * r->desc.heads_kv * r->desc.dim) * sizeof(*r->sums);
}

static size_t choice_bytes(const fa_retrieval *r, int64_t room)
{
    return (size_t)((r->desc.clusters.clusters + room) * r->desc.heads_kv);
}

/* Memory of `more` bytes that begins as `old` did; NULL: there is none, and nothing has changed. */
static void *copied(const fa_context *context, const void *old, size_t bytes, size_t more)
{
    char *memory = fa_alloc_zeroed(context, more);
    if (memory && bytes > 0)
        memcpy(memory, old, bytes);
    return memory;
}

static void release_room(const fa_context *context, const fa_retrieval *r)
{
    fa_release(context, r->begin, (size_t)r->room * sizeof(*r->begin));
    fa_release(context, r->sums, sums_bytes(r, r->room));
    fa_release(context, r->chosen, choice_bytes(r, r->room));
    fa_release(context, r->choice, choice_bytes(r, r->room));
}

/* Room for so many segments. */
static fa_status reserve(fa_retrieval *r, int64_t segments)
{
    if (segments <= r->room)
        return FA_OK;
    const int64_t room = FA_MAX(2 * r->room, ROOM), had = r->room;
    const bool first = had == 0;
    fa_retrieval next = *r;
    size_t bytes = 0;
    if (!fa_grow(&bytes, (size_t)(room * r->desc.heads_kv), (size_t)r->desc.dim * sizeof(*r->sums)))
        return fa_fail(FA_OUT_OF_MEMORY, "%lld segments overflow memory", (long long)room);
    next.room = room;
    next.begin =
        copied(r->context, r->begin, (size_t)had * sizeof(*r->begin), (size_t)room * sizeof(*r->begin));
    next.sums = copied(r->context, r->sums, sums_bytes(r, had), sums_bytes(r, room));
    next.chosen = copied(r->context, r->chosen, first ? 0 : choice_bytes(r, had), choice_bytes(r, room));
    next.choice = copied(r->context, NULL, 0, choice_bytes(r, room));
    if (!next.begin || !next.sums || !next.chosen || !next.choice) {
        release_room(r->context, &next);
        return FA_OUT_OF_MEMORY;
    }
    if (!first)
        release_room(r->context, r);
    *r = next;
    return FA_OK;
}

static fa_status create(fa_retrieval *r)
{
    fa_retrieval_desc *d = &r->desc;
    FA_TRY(check(d));
    FA_TRY(fa_clustering_make(&r->clusters, r->context, "clusters", &d->clusters, d->heads_kv, d->prompt,
                              d->dim));
    r->nearest_bytes = (size_t)(d->heads_kv * d->prompt) * sizeof(*r->nearest);
    r->centroids_bytes = (size_t)(d->heads_kv * d->clusters.clusters * d->dim) * sizeof(float);
    r->last_bytes = (size_t)d->heads_q * (size_t)d->dim * sizeof(float);
    r->nearest = copied(r->context, d->clusters.nearest, r->nearest_bytes, r->nearest_bytes);
    r->centroids = copied(r->context, d->clusters.centroids, r->centroids_bytes, r->centroids_bytes);
    r->last = fa_alloc_zeroed(r->context, r->last_bytes);
    if (!r->nearest || !r->centroids || !r->last)
        return FA_OUT_OF_MEMORY;
    r->clusters.of.nearest = r->nearest;
    r->clusters.of.centroids = r->centroids;
    return reserve(r, 1);
}

fa_status fa_retrieval_create(fa_context *context, const fa_retrieval_desc *desc, fa_retrieval **retrieval)
{
    fa_clear_error();
    if (!retrieval)
        return fa_fail(FA_INVALID, "retrieval is NULL");
    *retrieval = NULL;
    if (!context || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "desc" : "context");
    fa_retrieval_desc d;
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_RETRIEVAL_DESC_0_1, desc, "fa_retrieval_desc"));
    fa_retrieval *made = fa_alloc_zeroed(context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->context = context;
    made->desc = d;
    const fa_status status = create(made);
    if (status == FA_OK)
        *retrieval = made;
    else
        fa_retrieval_destroy(made);
    return status;
}

void fa_retrieval_destroy(fa_retrieval *r)
{
    if (!r)
        return;
    fa_context *context = r->context;
    fa_clustering_release(&r->clusters, context);
    fa_release(context, r->nearest, r->nearest_bytes);
    fa_release(context, r->centroids, r->centroids_bytes);
    fa_release(context, r->last, r->last_bytes);
    if (r->room > 0)
        release_room(context, r);
    fa_release(context, r, sizeof(*r));
}

/* The mean cosine of the heads' queries and those before. */
static double similarity(const fa_retrieval *r, const float *q)
{
    const int64_t dim = r->desc.dim;
    double sum = 0;
    for (int64_t head = 0; head < r->desc.heads_q; head++) {
        const float *a = q + head * dim, *b = r->last + head * dim;
        sum += fa_product(a, b, dim) / sqrt(fa_product(a, a, dim) * fa_product(b, b, dim));
    }
    return sum / (double)r->desc.heads_q;
}

static int64_t tokens_of(const fa_retrieval *r, int64_t segment)
{
    return (segment + 1 < r->segments ? r->begin[segment + 1] : r->tokens) - r->begin[segment];
}

/* The keys of a unit of a KV head. */
static int64_t keys_of(const fa_retrieval *r, int64_t head_kv, int64_t unit)
{
    const int64_t clusters = r->desc.clusters.clusters;
    return unit < clusters ? *fa_count_at(&r->clusters, head_kv, unit) : tokens_of(r, unit - clusters);
}

/* The product of a query and the centroid of a unit. */
static double score_of(const fa_retrieval *r, int64_t head_kv, int64_t unit, const float *q)
{
    const int64_t clusters = r->desc.clusters.clusters, dim = r->desc.dim;
    if (unit < clusters)
        return fa_product(q, fa_centroid_at(&r->clusters, head_kv, unit), dim);
    const double *sum = r->sums + ((unit - clusters) * r->desc.heads_kv + head_kv) * dim;
    double product = 0;
    for (int64_t n = 0; n < dim; n++)
        product += (double)q[n] * sum[n];
    return product / (double)tokens_of(r, unit - clusters);
}

/* Chooses for a KV head, of units that are all closed. */
static void choose(fa_retrieval *r, int64_t head_kv, const float *q, fa_ranked *ranked)
{
    const int64_t units = r->desc.clusters.clusters + r->segments, heads = r->desc.heads_kv;
    const int64_t group = r->desc.heads_q / heads;
    int64_t left = r->desc.budget;
    for (int64_t unit = 0; unit < units; unit++) {
        double sum = 0;
        for (int64_t head = head_kv * group; head < (head_kv + 1) * group; head++)
            sum += score_of(r, head_kv, unit, q + head * r->desc.dim);
        ranked[unit] = (fa_ranked){sum, (int32_t)unit};
    }
    qsort(ranked, (size_t)units, sizeof(*ranked), fa_ranked_order);
    for (int64_t n = 0; n < units; n++) {
        const int64_t keys = keys_of(r, head_kv, ranked[n].index);
        const bool fits = keys <= left;
        r->choice[ranked[n].index * heads + head_kv] = fits;
        left -= fits ? keys : 0;
    }
}

/* Makes `choice`: that of a boundary, or the one before. */
static fa_status decide(fa_retrieval *r, const float *q, bool boundary)
{
    const size_t bytes = (size_t)(r->desc.clusters.clusters + r->segments) * sizeof(fa_ranked);
    memcpy(r->choice, r->chosen, choice_bytes(r, r->room));
    if (!boundary)
        return FA_OK;
    fa_ranked *ranked = fa_alloc(r->context, bytes);
    if (!ranked)
        return FA_OUT_OF_MEMORY;
    for (int64_t head = 0; head < r->desc.heads_kv; head++)
        choose(r, head, q, ranked);
    fa_release(r->context, ranked, bytes);
    return FA_OK;
}

/* The list of a KV head: what is chosen, and all from token `open` on. */
static void add(const fa_retrieval *r, fa_list_maker *m, int64_t head_kv, int64_t open)
{
    const int64_t clusters = r->desc.clusters.clusters, heads = r->desc.heads_kv, prompt = r->desc.prompt;
    for (int64_t key = 0; key < prompt; key++) {
        if (r->choice[r->nearest[head_kv * prompt + key] * heads + head_kv])
            fa_maker_add(m, key, key + 1);
    }
    for (int64_t n = 0; n < r->segments; n++) {
        const int64_t first = prompt + r->begin[n];
        if (r->choice[(clusters + n) * heads + head_kv])
            fa_maker_add(m, first, first + tokens_of(r, n));
    }
    fa_maker_add(m, prompt + open, m->key_blocks);
}

static fa_status list(const fa_retrieval *r, bool boundary, fa_block_mask **mask)
{
    const fa_sparse_shape shape = {
        .rows = 1, .keys = r->desc.prompt + r->tokens + 1, .block_rows = 1, .block_keys = 1};
    const int64_t open = boundary ? r->tokens : r->begin[r->segments - 1];
    fa_list_maker m;
    fa_status status = fa_maker_begin(&m, r->context, &shape, 1, r->desc.heads_kv);
    for (int64_t head = 0; head < r->desc.heads_kv && status == FA_OK; head++) {
        add(r, &m, head, open);
        status = fa_maker_next(&m);
    }
    return fa_maker_finish(&m, status, mask);
}

/* The token becomes part of the sequence. */
static void accept(fa_retrieval *r, const float *q, const float *k, bool boundary)
{
    const int64_t each = r->desc.heads_kv * r->desc.dim;
    uint8_t *const before = r->chosen;
    if (boundary)
        r->begin[r->segments++] = (int32_t)r->tokens;
    double *sum = r->sums + (r->segments - 1) * each;
    for (int64_t n = 0; n < each; n++)
        sum[n] += (double)k[n];
    memcpy(r->last, q, r->last_bytes);
    r->chosen = r->choice;
    r->choice = before;
    r->tokens++;
}

fa_status fa_retrieval_step(fa_retrieval *r, const float *q, const float *k, int32_t *retrieved,
                            fa_block_mask **mask)
{
    fa_clear_error();
    if (mask)
        *mask = NULL;
    if (!r || !q || !k || !retrieved)
        return fa_fail(FA_INVALID, "%s is NULL", !r ? "retrieval" : !q ? "q" : !k ? "k" : "retrieved");
    if (r->desc.prompt + r->tokens >= FA_MAX_LENGTH)
        return fa_fail(FA_OUT_OF_MEMORY, "the sequence has %lld keys, the most there are",
                       (long long)FA_MAX_LENGTH);
    const bool boundary = r->tokens == 0 || !(similarity(r, q) >= r->desc.similarity);
    FA_TRY(reserve(r, r->segments + boundary));
    FA_TRY(decide(r, q, boundary));
    if (mask)
        FA_TRY(list(r, boundary, mask));
    accept(r, q, k, boundary);
    *retrieved = boundary;
    return FA_OK;
}
