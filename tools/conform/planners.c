/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of key blocks as planners make them: a group of cases for each planner, in the paper's form and in another. */
#include <stdlib.h>

#include "tools/conform/cases.h"

enum { SEED = 3 };

/* Elements of q or k of the first batch entry: heads x rows x dim, one behind the other. NULL without memory. */
static float *copy_rows(const conform_data *data, int input)
{
    const fa_tensor t = conform_strides(input == CONFORM_Q ? data->desc.q : data->desc.k);
    const int64_t rows = t.shape[2], dim = t.shape[3];
    const void *from = conform_address(data, input);
    float *copy = malloc((size_t)(t.shape[1] * rows * dim) * sizeof(*copy));
    for (int64_t i = 0; copy && i < t.shape[1] * rows * dim; i++)
        copy[i] = conform_load(t.dtype, from, conform_index(&t, 0, i / dim / rows, i / dim % rows) + i % dim);
    return copy;
}

static fa_status plan_window(fa_context *context, const fa_sparse_shape *shape, int64_t heads,
                             fa_block_mask **mask)
{
    const fa_sparse_window_desc d = {
        .struct_size = sizeof(d),
        .shape = *shape,
        .window_left = 20,
        .window_right = 5,
        .global_first = 1,
        .random = 2,
        .seed = SEED,
        .heads = heads,
    };
    return fa_sparse_window(context, &d, mask);
}

/* Heads are in turn streaming, dense, and of a base mask that has every other block. */
static fa_status plan_streaming(fa_context *context, const fa_sparse_shape *shape, int64_t heads,
                                fa_block_mask **mask)
{
    const int64_t row_blocks = (shape->rows + shape->block_rows - 1) / shape->block_rows;
    const int64_t key_blocks = (shape->keys + shape->block_keys - 1) / shape->block_keys;
    uint8_t *base = malloc((size_t)(row_blocks * key_blocks));
    int32_t *kinds = malloc((size_t)heads * sizeof(*kinds));
    const fa_sparse_streaming_desc d = {
        .struct_size = sizeof(d),
        .shape = *shape,
        .heads = heads,
        .head_mask_type = kinds,
        .masks = 1,
        .base_blockmask = base,
    };
    fa_status status = FA_OUT_OF_MEMORY;
    for (int64_t i = 0; base && i < row_blocks * key_blocks; i++)
        base[i] = (i / key_blocks + i % key_blocks) % 2 == 0;
    for (int64_t head = 0; kinds && head < heads; head++)
        kinds[head] = (int32_t)(head % 3) - 1;
    if (base && kinds)
        status = fa_sparse_streaming(context, &d, mask);
    free(base);
    free(kinds);
    return status;
}

static fa_status plan_distance(fa_context *context, const fa_sparse_shape *shape, int64_t heads,
                               fa_block_mask **mask)
{
    const fa_sparse_distance_desc d = {
        .struct_size = sizeof(d), .shape = *shape, .seed = SEED, .heads = heads};
    return fa_sparse_distance(context, &d, mask);
}

static fa_status plan_topk(fa_context *context, const fa_sparse_shape *shape, const conform_case *c,
                           const float *q, const float *k, fa_block_mask **mask)
{
    const fa_sparse_topk_desc d = {
        .struct_size = sizeof(d),
        .shape = *shape,
        .heads_q = c->heads_q,
        .heads_kv = c->heads_kv,
        .dim = c->dim_qk,
        .q = q,
        .k = k,
        .topk = 3,
        .per_kv_head = c->list_heads == CONFORM_LIST_HEADS_KV,
    };
    return fa_sparse_topk(context, &d, mask);
}

/* The case's keys count as those in the new order: to lists it is all the same. */
static fa_status plan_permuted(fa_context *context, const fa_sparse_shape *shape, const conform_case *c,
                               const float *q, const float *k, fa_block_mask **mask)
{
    int32_t *order = malloc((size_t)(c->heads_kv * shape->keys) * sizeof(*order));
    const fa_sparse_permuted_desc d = {
        .struct_size = sizeof(d),
        .shape = *shape,
        .heads_q = c->heads_q,
        .heads_kv = c->heads_kv,
        .dim = c->dim_qk,
        .q = q,
        .k = k,
        .segment = 32,
        .threshold = 0.4,
        .order = order,
    };
    const fa_status status = order ? fa_sparse_permuted(context, &d, mask) : FA_OUT_OF_MEMORY;
    free(order);
    return status;
}

fa_status conform_plan(fa_context *context, const conform_case *c, const conform_sizes *sizes,
                       const conform_data *data, fa_block_mask **mask)
{
    const fa_sparse_shape shape = {.rows = sizes->len_q,
                                   .keys = sizes->len_kv,
                                   .block_rows = c->list_rows,
                                   .block_keys = c->list_keys,
                                   .mask = c->mask};
    const int64_t heads = data->lists.heads;
    float *q = copy_rows(data, CONFORM_Q), *k = copy_rows(data, CONFORM_K);
    fa_status status = FA_OUT_OF_MEMORY;
    if (q && k) {
        switch (c->planner) {
        case CONFORM_PLAN_WINDOW: status = plan_window(context, &shape, heads, mask); break;
        case CONFORM_PLAN_STREAMING: status = plan_streaming(context, &shape, heads, mask); break;
        case CONFORM_PLAN_DISTANCE: status = plan_distance(context, &shape, heads, mask); break;
        case CONFORM_PLAN_TOPK: status = plan_topk(context, &shape, c, q, k, mask); break;
        default: status = plan_permuted(context, &shape, c, q, k, mask); break;
        }
    }
    free(q);
    free(k);
    return status;
}

static const struct kind {
    const char *name;
    conform_planner planner;
    conform_list_heads heads;
    int32_t rows, keys; /* of a block */
    int32_t len_q, len_kv;
} kinds[] = {
    {"window", CONFORM_PLAN_WINDOW, CONFORM_LIST_SHARED, 16, 16, 141, 160},
    {"window-kv-heads", CONFORM_PLAN_WINDOW, CONFORM_LIST_HEADS_KV, 10, 24, 70, 150},
    {"streaming", CONFORM_PLAN_STREAMING, CONFORM_LIST_HEADS_Q, 16, 16, 141, 160},
    {"streaming-long-blocks", CONFORM_PLAN_STREAMING, CONFORM_LIST_HEADS_Q, 64, 32, 130, 290},
    {"distance", CONFORM_PLAN_DISTANCE, CONFORM_LIST_HEADS_KV, 16, 16, 141, 160},
    {"distance-q-heads", CONFORM_PLAN_DISTANCE, CONFORM_LIST_HEADS_Q, 24, 10, 80, 150},
    {"topk", CONFORM_PLAN_TOPK, CONFORM_LIST_HEADS_Q, 1, 16, 75, 150},
    {"topk-kv-heads", CONFORM_PLAN_TOPK, CONFORM_LIST_HEADS_KV, 16, 16, 75, 150},
    {"permuted", CONFORM_PLAN_PERMUTED, CONFORM_LIST_HEADS_Q, 16, 16, 150, 150},
    {"permuted-wide-rows", CONFORM_PLAN_PERMUTED, CONFORM_LIST_HEADS_Q, 32, 8, 150, 150},
};

bool conform_add_planners(conform_list *list)
{
    bool ok = true;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % COUNT(float_types)]);
        set_heads(&c, 1, 6, 3);
        set_dims(&c, 16, 16);
        set_lengths(&c, kinds[i].len_q, kinds[i].len_kv);
        c.planner = kinds[i].planner;
        c.list_heads = kinds[i].heads;
        c.list_rows = kinds[i].rows;
        c.list_keys = kinds[i].keys;
        ok = ok && conform_add(list, &c, "planner-%s", kinds[i].name);
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.list_mask = true;
        set_types(&c, float_types[(i + 1) % COUNT(float_types)]);
        ok = ok && conform_add(list, &c, "planner-%s-causal-br", kinds[i].name);
    }
    return ok;
}
