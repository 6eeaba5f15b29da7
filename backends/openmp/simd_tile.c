/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The level-1 loops of attention by tiles: a block of rows, as panels, meets one block of keys after the
 * other. For each panel: scores, softmax weights, values, with one rescale of the output at most.
 */
#include <float.h>
#include <string.h>

#include "simd/panel.h"

/* The scratch of one thread, all of it 64-byte aligned. */
typedef struct tile_scratch {
    float *qt;        /* panels x dim_qk x PANEL  */
    float *ot;        /* panels x dim_v x PANEL   */
    float *max, *sum; /* panels x PANEL    */
    float *st;        /* block_kv x PANEL         */
    float *k, *v;     /* a block of keys as f32 */
    ptrdiff_t k_stride, v_stride;
    size_t bytes;
} tile_scratch;

/* Rows of a converted block start at an odd number of vectors, so that they do not share a cache set. */
static ptrdiff_t row_stride(int dim)
{
    return ((dim + VL - 1) / VL | 1) * VL;
}

static tile_scratch lay_out(const fa_plan *plan, void *memory)
{
    const fa_args *a = &plan->args;
    size_t panels = ((size_t)a->block_q + PANEL - 1) / PANEL, keys = (size_t)a->block_kv;
    tile_scratch s = {.k_stride = row_stride(a->dim_qk), .v_stride = row_stride(a->dim_v)};
    s.qt = take_scratch(memory, &s.bytes, panels * (size_t)a->dim_qk * PANEL);
    s.ot = take_scratch(memory, &s.bytes, panels * (size_t)a->dim_v * PANEL);
    s.max = take_scratch(memory, &s.bytes, panels * PANEL);
    s.sum = take_scratch(memory, &s.bytes, panels * PANEL);
    s.st = take_scratch(memory, &s.bytes, keys * PANEL);
    s.k = take_scratch(memory, &s.bytes, keys * (size_t)s.k_stride);
    s.v = take_scratch(memory, &s.bytes, keys * (size_t)s.v_stride);
    return s;
}

static size_t scratch_bytes(const fa_plan *plan)
{
    return lay_out(plan, NULL).bytes;
}

/* Rows of K or V as f32: in place where that is what they are, converted where not. */
static f32_rows fetch(const fa_tensor *t, const void *base, int64_t index, int rows, float *target,
                      ptrdiff_t stride)
{
    /* Rows far apart fall into few cache sets and pages: worth a copy even as f32. */
    enum { FAR_APART = 512 };
    if (t->dtype == FA_F32 && (t->stride[2] <= t->shape[3] || t->stride[2] < FAR_APART))
        return (f32_rows){(const float *)base + index, (ptrdiff_t)t->stride[2]};
    convert_rows(t->dtype, base, index, t->stride[2], rows, (int)t->shape[3], target, stride);
    return (f32_rows){target, stride};
}

/* One block of keys as the panels meet it. */
typedef struct key_block {
    f32_rows k, v;
    int begin, end;
    bool transformed; /* scores become base-2 logarithms: see panel.h */
    bool guarded;     /* hidden values may not be finite              */
} key_block;

/* The running maximum after a block, and the factor for what came before. Returns whether any is not 1. */
FA_INLINE bool advance_max(const int nv, float *running, const vf block[PANEL_VECS], vf factor,
                           vf max[PANEL_VECS], vf rescale[PANEL_VECS])
{
    bool changes = false;
#pragma GCC unroll 4
    for (int n = 0; n < nv; n++) {
        vf old = v_load(running + n * VL), next = v_max(old, block[n]);
        v_store(running + n * VL, next);
        /* A lane that has seen nothing yet subtracts 0, not -inf. */
        max[n] = v_if_less(next, v_set1(-FLT_MAX), v_set1(0.0f), next);
        rescale[n] = v_exp2(v_mul(v_sub(old, max[n]), factor));
        changes |= !v_all_equal(old, next);
    }
    return changes;
}

FA_INLINE void meet(const int nv, const fa_panel *panel, const key_block *block, bool masked, int begin,
                    int end, const float *qt, float *st, float *running, float *sums, float *ot)
{
    const fa_args *a = &panel->run->plan->args;
    const float *k = block->k.base + (begin - block->begin) * block->k.stride;
    f32_rows v = {block->v.base + (begin - block->begin) * block->v.stride, block->v.stride};
    vf top[PANEL_VECS], max[PANEL_VECS], rescale[PANEL_VECS], sum[PANEL_VECS];
    vf factor = v_set1(block->transformed ? 1.0f : a->scale_log2);
    int keys = end - begin;

    for (int n = 0; n < nv; n++)
        top[n] = v_set1(-INFINITY);
    score_panel(nv, qt, k, block->k.stride, a->dim_qk, keys, st, top);
    if (masked || block->transformed)
        FA_ISA_NAME(panel_scores)(panel, masked, begin, keys, st, top);
    bool changes = advance_max(nv, running, top, factor, max, rescale);
    for (int n = 0; n < nv; n++)
        sum[n] = v_mul(v_load(sums + n * VL), rescale[n]);
    panel_weights(nv, st, keys, factor, max, sum);
    for (int n = 0; n < nv; n++)
        v_store(sums + n * VL, sum[n]);
    int added = block->guarded ? 0 : keys;
    value_panel(nv, st, v.base, v.stride, added, a->dim_v, changes ? rescale : NULL, ot);
    if (block->guarded)
        FA_ISA_NAME(add_guarded)(panel, st, v, begin, keys, ot);
}

/* Clips a block to the keys that some lane of the panel sees, classifies the rest, and meets it. */
static void visit(const fa_panel *panel, const key_block *block, const float *qt, float *st, float *max,
                  float *sum, float *ot)
{
    fa_mask m = panel->sequence->mask;
    int begin = block->begin, end = block->end;
    if (begin >= m.prefix)
        begin = FA_MAX(begin, fa_mask_begin(m, panel->first));
    end = FA_MIN(end, FA_MAX(fa_mask_end(m, panel->last), m.prefix));
    if (begin >= end)
        return;
    int tile = fa_mask_classify(m, panel->first, panel->last + 1, begin, end);
    if (tile == FA_CLASS_SKIP)
        return;
    bool masked = tile == FA_CLASS_PARTIAL;
    /* The width is a constant in each: a panel that is not full works on the vectors it has. */
    if (panel->nv == 1)
        meet(1, panel, block, masked, begin, end, qt, st, max, sum, ot);
    else if (PANEL_VECS > 2 && panel->nv == 2)
        meet(FA_MIN(2, PANEL_VECS), panel, block, masked, begin, end, qt, st, max, sum, ot);
    else if (PANEL_VECS > 3 && panel->nv == 3)
        meet(FA_MIN(3, PANEL_VECS), panel, block, masked, begin, end, qt, st, max, sum, ot);
    else
        meet(PANEL_VECS, panel, block, masked, begin, end, qt, st, max, sum, ot);
}

static key_block fetch_block(const fa_cpu_run *run, const fa_work_item *item, int begin, int end,
                             const tile_scratch *s)
{
    const fa_problem *p = &run->plan->problem;
    const fa_sequence *q = &p->sequence[item->sequence];
    const fa_tensor *k = &p->tensor[FA_K], *v = &p->tensor[FA_V];
    key_block block = {
        .begin = begin,
        .end = end,
        .transformed = scores_transformed(run->plan),
        .k = fetch(k, run->k, fa_tensor_offset(k, q->kv_batch, item->head_kv, q->kv_row + begin), end - begin,
                   s->k, s->k_stride),
        .v = fetch(v, run->v, fa_tensor_offset(v, q->kv_batch, item->head_kv, q->kv_row + begin), end - begin,
                   s->v, s->v_stride),
    };
    return block;
}

static void start_panels(const fa_cpu_run *run, const fa_work_item *item, const tile_scratch *s, int panels)
{
    const fa_args *a = &run->plan->args;
    const fa_tensor *q = &run->plan->problem.tensor[FA_Q];
    for (int i = 0; i < panels; i++) {
        fa_panel panel;
        int64_t row[PANEL];
        panel_init(&panel, run, item, item->row_begin + i * PANEL);
        panel_rows(&panel, FA_Q, row);
        pack_panel(q->dtype, run->q, row, panel.count, a->dim_qk,
                   s->qt + (size_t)i * (size_t)a->dim_qk * PANEL);
    }
    memset(s->ot, 0, (size_t)panels * (size_t)a->dim_v * PANEL * sizeof(float));
    for (int i = 0; i < panels * PANEL; i++) {
        s->max[i] = -INFINITY;
        s->sum[i] = 0;
    }
}

static void run_item(const fa_cpu_run *run, const fa_work_item *item, void *memory)
{
    const fa_args *a = &run->plan->args;
    tile_scratch s = lay_out(run->plan, memory);
    int rows = item->row_end - item->row_begin, panels = (rows + PANEL - 1) / PANEL;
    fa_mask m = run->plan->problem.sequence[item->sequence].mask;
    int first = fa_args_position(*a, item->row_begin), last = fa_args_position(*a, item->row_end - 1);
    size_t qt_size = (size_t)a->dim_qk * PANEL, ot_size = (size_t)a->dim_v * PANEL;
    fa_panel panel;

    start_panels(run, item, &s, panels);
    for (int key = item->key_begin; key < item->key_end; key += a->block_kv) {
        int end = FA_MIN(key + a->block_kv, item->key_end);
        int tile = fa_mask_classify(m, first, last + 1, key, end);
        if (tile == FA_CLASS_SKIP)
            continue;
        key_block block = fetch_block(run, item, key, end, &s);
        block.guarded =
            (tile == FA_CLASS_PARTIAL || run->keep) && !FA_ISA_NAME(all_finite)(block.v, end - key, a->dim_v);
        for (int i = 0; i < panels; i++) {
            panel_init(&panel, run, item, item->row_begin + i * PANEL);
            visit(&panel, &block, s.qt + (size_t)i * qt_size, s.st, s.max + i * PANEL, s.sum + i * PANEL,
                  s.ot + (size_t)i * ot_size);
        }
    }
    for (int i = 0; i < panels; i++) {
        panel_init(&panel, run, item, item->row_begin + i * PANEL);
        FA_ISA_NAME(panel_finish)
        (&panel, item, item->row_begin + i * PANEL, s.ot + (size_t)i * ot_size, s.max + i * PANEL,
         s.sum + i * PANEL);
    }
}

const fa_cpu_kernel FA_ISA_NAME(tile) = {scratch_bytes, run_item};
