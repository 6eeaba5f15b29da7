/* SPDX-License-Identifier: Apache-2.0 */
/* The blocks that rows select, by the weights of their compressed branch. */
#include <math.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/nsa/nsa.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

enum { TOPK = 16, FIRST = 1, LOCAL = 2, BLOCK = 64 };

/* Memory of a call: scores of a row's compressed keys, importance of blocks, the best of them. */
typedef struct chooser {
    fa_nsa_select_desc desc;
    fa_vectors vectors; /* keys are the compressed ones */
    double *weight, *importance;
    fa_ranked *best;
    size_t weight_bytes, importance_bytes, best_bytes;
} chooser;

/* How many blocks are always chosen: 0 is the paper's, -1 none. */
static fa_status take_count(const char *name, int64_t paper, int64_t *count)
{
    FA_TRY(fa_check_limit(name, *count, -1, FA_MAX_LENGTH));
    *count = *count == 0 ? paper : FA_MAX(*count, 0);
    return FA_OK;
}

static fa_status check(chooser *c)
{
    static const float none;
    fa_nsa_select_desc *d = &c->desc;
    d->shape.block_rows = d->shape.block_rows ? d->shape.block_rows : 1;
    FA_TRY(fa_shape_check(&d->shape, BLOCK));
    FA_TRY(fa_nsa_check_sizes(&d->kernel, &d->stride));
    if (d->shape.mask == FA_MASK_NONE)
        return fa_fail(FA_INVALID, "shape.mask is 0, expected a causal mask");
    if (d->shape.block_keys % d->stride != 0)
        return fa_fail(FA_INVALID, "shape.block_keys is %d, expected a multiple of stride, %d",
                       d->shape.block_keys, d->stride);
    const int64_t count = fa_nsa_seen(d->shape.keys - 1, d->kernel, d->stride);
    if (count > 0 && !d->compressed)
        return fa_fail(FA_INVALID, "compressed is NULL");
    c->vectors = (fa_vectors){
        d->q, count > 0 ? d->compressed : &none, d->heads_q, d->heads_kv, d->shape.rows, count, d->dim};
    FA_TRY(fa_vectors_check(&c->vectors));
    if (!isfinite(d->scale))
        return fa_fail(FA_INVALID, "scale is %g, expected a finite number", d->scale);
    d->scale = d->scale != 0 ? d->scale : 1 / sqrt((double)d->dim);
    d->topk = d->topk ? d->topk : TOPK;
    FA_TRY(fa_check_limit("topk", d->topk, 1, FA_MAX_LENGTH));
    FA_TRY(take_count("first", FIRST, &d->first));
    FA_TRY(take_count("local", LOCAL, &d->local));
    if (d->first + d->local > d->topk)
        return fa_fail(FA_INVALID, "first is %lld and local %lld, expected together at most topk, %lld",
                       (long long)d->first, (long long)d->local, (long long)d->topk);
    return FA_OK;
}

static fa_status allocate(chooser *c, const fa_list_maker *m)
{
    c->weight_bytes = (size_t)FA_MAX(c->vectors.keys, 1) * sizeof(*c->weight);
    c->importance_bytes = (size_t)m->key_blocks * sizeof(*c->importance);
    c->best_bytes = (size_t)FA_MIN(c->desc.topk, m->key_blocks) * sizeof(*c->best);
    c->weight = fa_alloc(m->context, c->weight_bytes);
    c->importance = c->weight ? fa_alloc(m->context, c->importance_bytes) : NULL;
    c->best = c->importance ? fa_alloc(m->context, c->best_bytes) : NULL;
    return c->best ? FA_OK : FA_OUT_OF_MEMORY;
}

/* Weights of the first `count` compressed keys in a row of a query head. */
static void weigh(chooser *c, int64_t head, int64_t row, int64_t count)
{
    const fa_vectors *v = &c->vectors;
    const float *q = fa_row_at(v, head, row);
    double most = -INFINITY, sum = 0;
    for (int64_t key = 0; key < count; key++) {
        const float *k = fa_key_at(v, head / (v->heads_q / v->heads_kv), key);
        c->weight[key] = c->desc.scale * fa_product(q, k, v->dim);
        most = fmax(most, c->weight[key]);
    }
    for (int64_t key = 0; key < count; key++) {
        c->weight[key] = exp(c->weight[key] - most);
        sum += c->weight[key];
    }
    for (int64_t key = 0; key < count; key++)
        c->weight[key] /= sum;
}

/* A compressed key has pieces of `stride` tokens; each is in one block. */
static void spread(chooser *c, int64_t count)
{
    const fa_nsa_select_desc *d = &c->desc;
    const int64_t pieces = d->kernel / d->stride, of_block = d->shape.block_keys / d->stride;
    for (int64_t key = 0; key < count; key++) {
        for (int64_t n = key; n < key + pieces; n++)
            c->importance[n / of_block] += c->weight[key];
    }
}

/* Adds the blocks of one row of a KV head. */
static void choose(chooser *c, fa_list_maker *m, int64_t head, int64_t row)
{
    const fa_nsa_select_desc *d = &c->desc;
    const int64_t position = FA_MIN(row + m->diagonal, m->shape.keys - 1);
    const int64_t own = position < 0 ? -1 : position / m->shape.block_keys, group = d->heads_q / d->heads_kv;
    const int64_t count = fa_nsa_seen(position, d->kernel, d->stride);
    const int64_t first = d->first, local = own + 1 - d->local, most = d->topk - d->first - d->local;
    int64_t have = 0;
    if (own < d->topk) {
        fa_maker_add(m, 0, own + 1);
        return;
    }
    memset(c->importance, 0, c->importance_bytes);
    for (int64_t h = head * group; h < (head + 1) * group; h++) {
        weigh(c, h, row, count);
        spread(c, count);
    }
    for (int64_t block = first; block < local; block++)
        have = fa_ranked_keep(c->best, have, most, (fa_ranked){c->importance[block], (int32_t)block});
    fa_maker_add(m, 0, first);
    fa_maker_add(m, local, own + 1);
    for (int64_t n = 0; n < have; n++)
        fa_maker_add(m, c->best[n].index, c->best[n].index + 1);
}

static fa_status make(chooser *c, fa_list_maker *m)
{
    FA_TRY(allocate(c, m));
    for (int64_t n = 0; n < m->mask->offsets - 1; n++) {
        const int64_t begin = n % m->row_blocks * m->shape.block_rows;
        const int64_t end = FA_MIN(begin + m->shape.block_rows, m->shape.rows);
        for (int64_t row = begin; row < end; row++)
            choose(c, m, n / m->row_blocks, row);
        FA_TRY(fa_maker_next(m));
    }
    return FA_OK;
}

fa_status fa_nsa_select(fa_context *context, const fa_nsa_select_desc *desc, fa_block_mask **mask)
{
    chooser c = {.weight = NULL};
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&c.desc, sizeof(c.desc), FA_NSA_SELECT_DESC_0_1, desc, "fa_nsa_select_desc"));
    FA_TRY(check(&c));
    fa_status status = fa_maker_begin(&m, context, &c.desc.shape, 1, c.desc.heads_kv);
    if (status == FA_OK)
        status = make(&c, &m);
    fa_release(context, c.weight, c.weight_bytes);
    fa_release(context, c.importance, c.importance_bytes);
    fa_release(context, c.best, c.best_bytes);
    return fa_maker_finish(&m, status, mask);
}
