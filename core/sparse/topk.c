/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

enum { TOPK = 8, CHUNK = 128 };

/* Memory of a call: the chunks' means for each KV head, a row, and the best chunks of a row. */
typedef struct gate {
    fa_sparse_topk_desc desc;
    fa_vectors vectors;
    double *means, *row;
    fa_ranked *best;
    size_t means_bytes, row_bytes, best_bytes;
} gate;

static fa_status check(gate *g)
{
    fa_sparse_topk_desc *d = &g->desc;
    d->shape.block_rows = d->shape.block_rows ? d->shape.block_rows : 1;
    FA_TRY(fa_shape_check(&d->shape, CHUNK));
    g->vectors = (fa_vectors){d->q, d->k, d->heads_q, d->heads_kv, d->shape.rows, d->shape.keys, d->dim};
    FA_TRY(fa_vectors_check(&g->vectors));
    d->topk = d->topk ? d->topk : TOPK;
    FA_TRY(fa_check_limit("topk", d->topk, 1, FA_MAX_LENGTH));
    return fa_check_limit("per_kv_head", d->per_kv_head, 0, 1);
}

static fa_status allocate(gate *g, const fa_list_maker *m)
{
    const size_t dim = (size_t)g->desc.dim * sizeof(double);
    if (!fa_grow(&g->means_bytes, (size_t)(m->key_blocks * g->desc.heads_kv), dim))
        return fa_fail(FA_OUT_OF_MEMORY, "the means of %lld chunks overflow memory",
                       (long long)m->key_blocks);
    g->row_bytes = dim;
    g->best_bytes = (size_t)FA_MIN(g->desc.topk, m->key_blocks) * sizeof(*g->best);
    g->means = fa_alloc(m->context, g->means_bytes);
    g->row = g->means ? fa_alloc(m->context, g->row_bytes) : NULL;
    g->best = g->row ? fa_alloc(m->context, g->best_bytes) : NULL;
    return g->best ? FA_OK : FA_OUT_OF_MEMORY;
}

static void pool(gate *g, const fa_list_maker *m)
{
    const int64_t size = m->shape.block_keys;
    for (int64_t n = 0; n < g->desc.heads_kv * m->key_blocks; n++) {
        const int64_t chunk = n % m->key_blocks;
        fa_mean(fa_key_at(&g->vectors, n / m->key_blocks, 0), g->desc.dim, NULL, chunk * size,
                FA_MIN((chunk + 1) * size, m->shape.keys), g->means + n * g->desc.dim);
    }
}

/* Adds the chunks of one row of a query head. */
static void choose(gate *g, fa_list_maker *m, int64_t head, int64_t row)
{
    const fa_sparse_topk_desc *d = &g->desc;
    const int64_t p = row + m->diagonal, dim = d->dim;
    const bool causal = m->shape.mask != FA_MASK_NONE;
    const int64_t own = causal && p >= 0 ? p / m->shape.block_keys : -1;
    const int64_t end = causal ? FA_MIN(FA_MAX(own, 0), m->key_blocks) : m->key_blocks;
    const bool has_own = own >= 0 && own < m->key_blocks;
    const int64_t most = FA_MIN(d->topk - has_own, m->key_blocks);
    const double *means = g->means + head / (d->heads_q / d->heads_kv) * m->key_blocks * dim;
    int64_t count = 0;
    if (has_own)
        fa_maker_add(m, own, own + 1);
    if (end <= most) {
        fa_maker_add(m, 0, end);
        return;
    }
    for (int64_t n = 0; n < dim; n++)
        g->row[n] = (double)fa_row_at(&g->vectors, head, row)[n];
    for (int64_t chunk = 0; chunk < end; chunk++)
        count = fa_ranked_keep(g->best, count, most,
                               (fa_ranked){fa_dot(g->row, means + chunk * dim, dim), (int32_t)chunk});
    for (int64_t n = 0; n < count; n++)
        fa_maker_add(m, g->best[n].index, g->best[n].index + 1);
}

static fa_status make(gate *g, fa_list_maker *m)
{
    const int64_t group = g->desc.per_kv_head ? g->desc.heads_q / g->desc.heads_kv : 1;
    FA_TRY(allocate(g, m));
    pool(g, m);
    for (int64_t n = 0; n < m->mask->offsets - 1; n++) {
        const int64_t first = n % m->row_blocks * m->shape.block_rows, list_head = n / m->row_blocks;
        const int64_t end = FA_MIN(first + m->shape.block_rows, m->shape.rows);
        for (int64_t head = list_head * group; head < (list_head + 1) * group; head++) {
            for (int64_t row = first; row < end; row++)
                choose(g, m, head, row);
        }
        FA_TRY(fa_maker_next(m));
    }
    return FA_OK;
}

fa_status fa_sparse_topk(fa_context *context, const fa_sparse_topk_desc *desc, fa_block_mask **mask)
{
    gate g = {.means = NULL};
    fa_list_maker m;
    FA_TRY(fa_planner_enter(context, desc, mask));
    FA_TRY(fa_copy_struct(&g.desc, sizeof(g.desc), FA_SPARSE_TOPK_DESC_0_1, desc, "fa_sparse_topk_desc"));
    FA_TRY(check(&g));
    fa_status status =
        fa_maker_begin(&m, context, &g.desc.shape, 1, g.desc.per_kv_head ? g.desc.heads_kv : g.desc.heads_q);
    if (status == FA_OK)
        status = make(&g, &m);
    fa_release(context, g.means, g.means_bytes);
    fa_release(context, g.row, g.row_bytes);
    fa_release(context, g.best, g.best_bytes);
    return fa_maker_finish(&m, status, mask);
}
