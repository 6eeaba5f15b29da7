/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/attention/checks.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/device.h"
#include "core/select/step.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

enum { TOPK = 8, CHUNK = 128, ALIGNMENT = 64 };

/* Parts of the workspace. */
enum { MEANS_K, MEANS_Q, SCORES, BITS, PARTS };

struct fa_gate {
    fa_device *device;
    fa_gate_desc desc;
    int64_t row_blocks, key_blocks, list_heads;
    fa_pooling *pool_k, *pool_q; /* the second with pool_q alone */
    fa_row_scores *scores;
    fa_select *select;
    size_t at[PARTS + 1], mask, span_q, span_k;
};

static fa_status check(fa_gate *g)
{
    fa_gate_desc *d = &g->desc;
    FA_TRY(fa_step_tensor(&d->q, "q", &g->span_q));
    FA_TRY(fa_step_tensor(&d->k, "k", &g->span_k));
    FA_TRY(fa_check_limit("q.shape[0]", d->q.shape[0], 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("q.shape[1]", d->q.shape[1], 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("q.shape[2]", d->q.shape[2], 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("k.shape[1]", d->k.shape[1], 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("k.shape[2]", d->k.shape[2], 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("block_rows", d->block_rows, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("block_keys", d->block_keys, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("mask", (int64_t)d->mask, FA_MASK_NONE, FA_MASK_CAUSAL_BOTTOM_RIGHT));
    FA_TRY(fa_check_limit("topk", d->topk, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("per_kv_head", d->per_kv_head, 0, 1));
    FA_TRY(fa_check_limit("pool_q", d->pool_q, 0, 1));
    d->block_rows = d->block_rows ? d->block_rows : 1;
    d->block_keys = d->block_keys ? d->block_keys : CHUNK;
    d->topk = d->topk ? d->topk : TOPK;
    return FA_OK;
}

/* Rows of scores: each row's, or each block's. */
static fa_sparse_shape shape_of(const fa_gate_desc *d)
{
    return (fa_sparse_shape){.rows = d->q.shape[2],
                             .keys = d->k.shape[2],
                             .block_rows = d->pool_q ? d->block_rows : 1,
                             .block_keys = d->block_keys,
                             .mask = d->mask};
}

static fa_status make_scores(fa_gate *g)
{
    const fa_gate_desc *d = &g->desc;
    const int64_t *q = d->q.shape, *k = d->k.shape;
    const fa_pooling_desc pool_k = {sizeof(pool_k), d->k, d->block_keys},
                          pool_q = {sizeof(pool_q), d->q, d->block_rows};
    const fa_row_scores_desc scores = {
        .struct_size = sizeof(scores),
        .shape = shape_of(d),
        .q = d->pool_q ? fa_tensor_make(FA_F32, q[0], q[1], g->row_blocks, q[3]) : d->q,
        .k = fa_tensor_make(FA_F32, k[0], k[1], g->key_blocks, k[3]),
        .scale = 1,
    };
    FA_TRY(fa_row_scores_create(g->device, &scores, &g->scores));
    FA_TRY(fa_pooling_create(g->device, &pool_k, &g->pool_k));
    return d->pool_q ? fa_pooling_create(g->device, &pool_q, &g->pool_q) : FA_OK;
}

static fa_status make_select(fa_gate *g)
{
    const fa_gate_desc *d = &g->desc;
    const int64_t each = d->per_kv_head ? d->q.shape[1] / d->k.shape[1] : 1;
    const fa_select_desc select = {
        .struct_size = sizeof(select),
        .shape = shape_of(d),
        .batch = d->q.shape[0],
        .heads = d->q.shape[1],
        .topk = d->topk,
        .own = d->mask != FA_MASK_NONE,
        .list_rows = d->pool_q ? 1 : d->block_rows,
        .list_heads = each,
        .want_mask = 1,
    };
    g->list_heads = d->q.shape[1] / each;
    return fa_select_create(g->device, &select, &g->select);
}

/* What each part of the workspace takes: the other objects have seen that it fits. */
static fa_status lay_out(fa_gate *g)
{
    const fa_gate_desc *d = &g->desc;
    const int64_t *q = d->q.shape, rows = d->pool_q ? g->row_blocks : q[2],
                  lists = g->list_heads * g->row_blocks;
    size_t bytes[PARTS];
    FA_TRY(fa_step_size("means", q[0] * d->k.shape[1], g->key_blocks, q[3], sizeof(float), &bytes[MEANS_K]));
    FA_TRY(fa_step_size("means", d->pool_q ? q[0] * q[1] : 0, g->row_blocks, q[3], sizeof(float),
                        &bytes[MEANS_Q]));
    FA_TRY(fa_step_size("scores", q[0] * q[1], rows, g->key_blocks, sizeof(float), &bytes[SCORES]));
    FA_TRY(fa_step_size("bits", q[0], lists, fa_ceil_div(g->key_blocks, 32), sizeof(uint32_t), &bytes[BITS]));
    FA_TRY(fa_step_size("mask", q[0], lists, g->key_blocks, 1, &g->mask));
    for (int part = 0; part < PARTS; part++) {
        g->at[part + 1] = g->at[part];
        if (!fa_grow(&g->at[part + 1], fa_align64(bytes[part]), 1))
            return fa_fail(FA_OUT_OF_MEMORY, "the workspace overflows memory");
    }
    return FA_OK;
}

static fa_status create(fa_gate *g, const fa_gate_desc *desc)
{
    FA_TRY(fa_copy_struct(&g->desc, sizeof(g->desc), FA_GATE_DESC_0_1, desc, "fa_gate_desc"));
    FA_TRY(check(g));
    g->row_blocks = fa_ceil_div(g->desc.q.shape[2], g->desc.block_rows);
    g->key_blocks = fa_ceil_div(g->desc.k.shape[2], g->desc.block_keys);
    FA_TRY(make_scores(g)); /* which looks at the heads */
    FA_TRY(make_select(g));
    return lay_out(g);
}

static void release(fa_gate *g)
{
    fa_select_destroy(g->select);
    fa_row_scores_destroy(g->scores);
    fa_pooling_destroy(g->pool_q);
    fa_pooling_destroy(g->pool_k);
    fa_release(g->device->context, g, sizeof(*g));
}

fa_status fa_gate_create(fa_device *device, const fa_gate_desc *desc, fa_gate **gate)
{
    fa_clear_error();
    if (!gate)
        return fa_fail(FA_INVALID, "gate is NULL, expected where to store the new object");
    *gate = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_gate *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *gate = made;
    else
        release(made);
    return fa_finish(status);
}

void fa_gate_destroy(fa_gate *gate)
{
    if (gate)
        release(gate);
}

size_t fa_gate_workspace(const fa_gate *gate)
{
    return gate ? gate->at[PARTS] : 0;
}

fa_status fa_gate_lists(const fa_gate *gate, fa_block_lists *lists)
{
    fa_clear_error();
    if (!gate || !lists)
        return fa_fail(FA_INVALID, "%s is NULL", gate ? "lists" : "gate");
    const fa_block_lists made = {
        .struct_size = sizeof(made),
        .block_rows = gate->desc.block_rows,
        .block_keys = gate->desc.block_keys,
        .sequences = gate->desc.q.shape[0],
        .heads = gate->list_heads,
        .row_blocks = gate->row_blocks,
        .key_blocks = gate->key_blocks,
    };
    return fa_fill_struct(&made, sizeof(made), FA_BLOCK_LISTS_0_1, lists, "fa_block_lists");
}

static fa_status check_memory(const fa_gate *g, const fa_gate_args *a)
{
    const size_t space = g->at[PARTS];
    FA_TRY(fa_buffer_check(g->device, "args.", "q", a->q, a->q_offset, fa_dtype_align(g->desc.q.dtype),
                           g->span_q));
    FA_TRY(fa_buffer_check(g->device, "args.", "k", a->k, a->k_offset, fa_dtype_align(g->desc.k.dtype),
                           g->span_k));
    FA_TRY(fa_buffer_check(g->device, "args.", "mask", a->mask, a->mask_offset, sizeof(uint32_t), g->mask));
    FA_TRY(fa_buffer_check(g->device, "args.", "workspace", a->workspace, a->workspace_offset, ALIGNMENT,
                           space));
    const fa_memory memory[] = {
        {"q", fa_buffer_extent(&g->desc.q, g->span_q, a->q, a->q_offset), false},
        {"k", fa_buffer_extent(&g->desc.k, g->span_k, a->k, a->k_offset), false},
        {"mask", fa_buffer_bytes(g->mask, a->mask, a->mask_offset), true},
        {"workspace", fa_buffer_bytes(space, a->workspace, a->workspace_offset), true},
    };
    return fa_memory_check_overlap(memory, sizeof(memory) / sizeof(memory[0]));
}

static fa_status enqueue(const fa_gate *g, fa_queue *queue, const fa_gate_args *a)
{
    const size_t from = a->workspace_offset;
    const fa_pooling_args k = {sizeof(k), a->k, a->workspace, a->k_offset, from + g->at[MEANS_K]};
    const fa_pooling_args q = {sizeof(q), a->q, a->workspace, a->q_offset, from + g->at[MEANS_Q]};
    const fa_row_scores_args scores = {
        .struct_size = sizeof(scores),
        .q = g->pool_q ? a->workspace : a->q,
        .q_offset = g->pool_q ? q.means_offset : a->q_offset,
        .k = a->workspace,
        .k_offset = k.means_offset,
        .scores = a->workspace,
        .scores_offset = from + g->at[SCORES],
    };
    const fa_select_args select = {
        .struct_size = sizeof(select),
        .scores = a->workspace,
        .scores_offset = scores.scores_offset,
        .bits = a->workspace,
        .bits_offset = from + g->at[BITS],
        .mask = a->mask,
        .mask_offset = a->mask_offset,
    };
    FA_TRY(fa_pooling_run(g->pool_k, queue, &k));
    if (g->pool_q)
        FA_TRY(fa_pooling_run(g->pool_q, queue, &q));
    FA_TRY(fa_row_scores_run(g->scores, queue, &scores));
    return fa_select_run(g->select, queue, &select);
}

fa_status fa_gate_run(const fa_gate *gate, fa_queue *queue, const fa_gate_args *args)
{
    fa_gate_args a;
    fa_clear_error();
    FA_TRY(fa_call_check("gate", gate, gate ? gate->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_GATE_ARGS_0_1, args, "fa_gate_args"));
    FA_TRY(check_memory(gate, &a));
    return enqueue(gate, queue, &a);
}
