/* SPDX-License-Identifier: Apache-2.0 */
/* Is what is about to be timed right? The oracle needs minutes for a long problem, so it sees samples. */
#include <fastattn/sparse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/check.h"

/* Multiply-adds that one pass of the oracle may take: a fraction of a second. */
#define ORACLE_BUDGET ((double)(1 << 24))
enum { MAX_PIECES = 8 };

/* Rows [row, row + rows) of the heads that share one KV head, or the whole problem. */
typedef struct piece {
    bool whole;
    int64_t batch, head_kv, row, rows;
    fa_block_lists *lists; /* room for those of the piece */
    uint8_t *keep;         /* likewise, for what its rows see of a neighbourhood */
} piece;

/* Rows of heads of a contiguous tensor, as a view: the strides stay those of the whole. */
static fa_tensor part_of(const fa_tensor *whole, int64_t batch, int64_t heads, int64_t rows)
{
    const bool prunes = whole->dtype == FA_BITMAP_F16; /* strides count bytes */
    fa_tensor part = {.dtype = whole->dtype, .shape = {batch, heads, rows, whole->shape[3]}};
    part.stride[3] = prunes ? whole->stride[3] : 1;
    part.stride[2] = prunes ? whole->stride[3] : whole->shape[3];
    for (int axis = 1; axis >= 0; axis--)
        part.stride[axis] = part.stride[axis + 1] * whole->shape[axis + 1];
    return part;
}

static const char *address(const void *base, const fa_tensor *whole, int64_t batch, int64_t head, int64_t row)
{
    const int64_t *n = whole->shape;
    const int64_t each = whole->dtype == FA_BITMAP_F16 ? whole->stride[3] : n[3];
    int64_t element = ((batch * n[1] + head) * n[2] + row) * each;
    return (const char *)base +
           (size_t)element * fa_dtype_size(whole->dtype) / (size_t)fa_dtype_block(whole->dtype);
}

/* The scales of a head's keys in a batch entry, or in all pages of a pool. */
static void take_scales(const fa_tensor *whole, int64_t pool, int64_t batch, int64_t head, const void *data,
                        fa_tensor *part, const void **at)
{
    const bool batches = whole->shape[0] > 1, heads = whole->shape[1] > 1;
    *part = part_of(whole, batches ? pool : 1, 1, whole->shape[2]);
    *at = address(data, whole, batches ? batch : 0, heads ? head : 0, 0);
}

/* Block masks of the piece's head, from the block that its first row begins. */
static void take_lists(const piece *p, fa_attention_desc *part)
{
    if (!part->lists)
        return;
    *p->lists = *part->lists;
    const int64_t block = p->row / p->lists->block_rows;
    p->lists->heads = 1;
    p->lists->mask += (p->head_kv * p->lists->row_blocks + block) * p->lists->key_blocks;
    p->lists->row_blocks -= block;
    part->lists = p->lists;
}

/* The piece's rows have other numbers in a problem of its own: what they see is said by `keep`. */
static void take_near(const piece *p, fa_attention_desc *part, fa_inputs *inputs)
{
    const int64_t keys = part->k.shape[2];
    for (int64_t i = 0; part->neighbourhood && i < p->rows * keys; i++) {
        int32_t sees = 0;
        (void)fa_sparse_neighbourhood_sees(part->neighbourhood, p->row + i / keys, i % keys, &sees);
        p->keep[i] = (uint8_t)sees;
    }
    if (!part->neighbourhood)
        return;
    part->neighbourhood = NULL;
    part->keep = fa_tensor_make(FA_BOOL, 1, 1, p->rows, keys);
    inputs->keep = p->keep;
}

/* A problem of its own that has the piece as its answer: the same keys, the diagonal moved to its rows. A pool of pages
 * stays whole, and the page table is one line. */
static void describe_piece(const fa_attention_desc *desc, const bench_data *data, const piece *p,
                           fa_attention_desc *part, fa_inputs *inputs, const void **o)
{
    *part = *desc;
    part->tuning = NULL;
    *inputs = (fa_inputs){
        .q = data->q,
        .k = data->k,
        .v = data->v,
        .page_table = data->page_table,
        .k_scale = data->scale[BENCH_K_SCALE],
        .v_scale = data->scale[BENCH_V_SCALE],
        .k_zero = data->scale[BENCH_K_ZERO],
        .v_zero = data->scale[BENCH_V_ZERO],
    };
    *o = data->o;
    if (desc->v_in_k)
        inputs->v = inputs->k;
    if (p->whole)
        return;
    int64_t group = desc->q.shape[1] / desc->k.shape[1], head = p->head_kv * group, keys = desc->k.shape[2];
    int64_t batch = p->batch, pool = 1;
    if (data->page_table) {
        const int64_t pages = desc->page_table.shape[3];
        part->page_table.shape[0] = 1;
        inputs->page_table = data->page_table + p->batch * pages;
        part->lens_kv = desc->lens_kv + p->batch;
        batch = 0;
        pool = desc->k.shape[0];
    }
    part->q = part_of(&desc->q, 1, group, p->rows);
    part->o = part_of(&desc->o, 1, group, p->rows);
    part->k = part_of(&desc->k, pool, 1, keys);
    part->v = part_of(&desc->v, pool, 1, keys);
    take_lists(p, part);
    take_near(p, part, inputs);
    part->diagonal_offset = desc->diagonal_offset + p->row + p->rows - desc->q.shape[2];
    inputs->q = address(data->q, &desc->q, p->batch, head, p->row);
    inputs->k = address(data->k, &desc->k, batch, p->head_kv, 0);
    inputs->v = address(data->v ? data->v : data->k, data->v ? &desc->v : &desc->k, batch, p->head_kv, 0);
    if (desc->v_in_k)
        memcpy(part->v.stride, part->k.stride, sizeof(part->v.stride));
    fa_tensor *const scale[] = {&part->k_scale, &part->v_scale, &part->k_zero, &part->v_zero};
    const void **const at[] = {&inputs->k_scale, &inputs->v_scale, &inputs->k_zero, &inputs->v_zero};
    for (int n = 0; n < BENCH_SCALES; n++) {
        if (data->scale[n])
            take_scales(bench_scale(desc, n), pool, batch, p->head_kv, data->scale[n], scale[n], at[n]);
    }
    *o = address(data->o, &desc->o, p->batch, head, p->row);
}

static bool verify_piece(fa_context *context, const fa_attention_desc *desc, const bench_data *data,
                         const piece *p, const check_means *means, double *max_error, char *message,
                         size_t message_size)
{
    fa_attention_desc part;
    fa_inputs inputs;
    const void *o;
    describe_piece(desc, data, p, &part, &inputs, &o);

    check_reference *reference;
    fa_status status = check_reference_create(context, &part, &inputs, means, &reference);
    if (status != FA_OK) {
        (void)snprintf(message, message_size, "oracle: %s: %s", fa_status_name(status), fa_last_error());
        return false;
    }
    check_result result;
    check_compare(reference, o, NULL, &result);
    check_reference_destroy(reference);
    if (result.max_error > *max_error)
        *max_error = result.max_error;
    if (!result.ok && p->whole) {
        (void)snprintf(message, message_size, "%s", result.message);
    } else if (!result.ok) {
        (void)snprintf(message, message_size, "batch %lld, KV head %lld, from row %lld: %s",
                       (long long)p->batch, (long long)p->head_kv, (long long)p->row, result.message);
    }
    return result.ok;
}

bool bench_verify(fa_context *context, const bench_case *c, const fa_attention_desc *desc,
                  const bench_data *data, const check_means *means, double *max_error, char *message,
                  size_t message_size)
{
    const shape *s = &c->size;
    int64_t instances = s->batch * s->heads_kv;
    double row_cost =
        (double)s->heads_q / (double)s->heads_kv * (double)s->len_kv * (double)(s->dim_qk + s->dim_v);
    *max_error = 0.0;
    if (row_cost * (double)instances * (double)s->len_q <= ORACLE_BUDGET)
        return verify_piece(context, desc, data, &(piece){.whole = true}, means, max_error, message,
                            message_size);

    double affordable = ORACLE_BUDGET / row_cost;
    int64_t pieces = affordable < 1 ? 1 : affordable < MAX_PIECES ? (int64_t)affordable : MAX_PIECES;
    double most_rows = affordable / (double)pieces;
    fa_block_lists lists;
    piece p = {.lists = &lists,
               .rows = most_rows < 1                  ? 1
                       : (double)s->len_q < most_rows ? s->len_q
                                                      : (int64_t)most_rows};
    p.keep = malloc(desc->neighbourhood ? (size_t)(p.rows * s->len_kv) : 1);
    bool right = p.keep != NULL;
    if (!right)
        (void)snprintf(message, message_size, "out of memory");
    for (int64_t i = 0; right && i < pieces; i++) {
        /* From the first row of the first head to the last row of the last: tails are where mistakes are. */
        int64_t last = pieces > 1 ? pieces - 1 : 1, instance = (instances - 1) * i / last;
        p.batch = instance / s->heads_kv;
        p.head_kv = instance % s->heads_kv;
        p.row = (s->len_q - p.rows) * i / last;
        if (desc->lists)
            p.row -= p.row % desc->lists->block_rows;
        right = verify_piece(context, desc, data, &p, means, max_error, message, message_size);
    }
    free(p.keep);
    return right;
}
