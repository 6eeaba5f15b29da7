/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the baseline: the whole matrix of scores in memory, softmax over it, second product.
 * The same micro-kernels as the tiled kernel, so that a comparison shows what tiling is worth.
 */
#include <float.h>
#include <string.h>

#include "simd/panel.h"
#include "simd/tile.h"

typedef struct standard_scratch {
    float *qt, *ot;   /* panels x dim x PANEL           */
    float *scores;    /* panels x keys x PANEL          */
    float *max, *sum; /* panels x PANEL                 */
    float *k, *v;     /* all keys of one head, as f32   */
    size_t bytes;
} standard_scratch;

static standard_scratch lay_out(const fa_plan *plan, void *memory)
{
    const fa_args *a = &plan->args;
    size_t panels = ((size_t)a->block_q + PANEL - 1) / PANEL, keys = (size_t)a->block_kv;
    standard_scratch s = {0};
    s.qt = take_scratch(memory, &s.bytes, panels * (size_t)a->dim_qk * PANEL);
    s.ot = take_scratch(memory, &s.bytes, panels * (size_t)a->dim_v * PANEL);
    s.scores = take_scratch(memory, &s.bytes, panels * keys * PANEL);
    s.max = take_scratch(memory, &s.bytes, panels * PANEL);
    s.sum = take_scratch(memory, &s.bytes, panels * PANEL);
    s.k = take_scratch(memory, &s.bytes, keys * (size_t)a->dim_qk);
    s.v = take_scratch(memory, &s.bytes, keys * (size_t)a->dim_v);
    return s;
}

static size_t scratch_bytes(const fa_plan *plan)
{
    return lay_out(plan, NULL).bytes;
}

/* Every panel has all its vectors here, filled or not. */
static void whole_panel(fa_panel *panel, const fa_cpu_run *run, const fa_table_item *item, int row)
{
    panel_init(panel, run, item, row);
    panel->nv = PANEL_VECS;
}

static void first_product(const fa_cpu_run *run, const fa_table_item *item, const standard_scratch *s,
                          int panels, int keys)
{
    const fa_args *a = &run->plan->args;
    const fa_tensor *q = &run->plan->problem.tensor[FA_Q];
    for (int i = 0; i < panels; i++) {
        fa_panel panel;
        int64_t row[PANEL];
        vf max[PANEL_VECS];
        float *qt = s->qt + (size_t)i * (size_t)a->dim_qk * PANEL;
        whole_panel(&panel, run, item, item->row_begin + i * PANEL);
        panel_rows(&panel, FA_Q, row);
        pack_panel(q->dtype, run->q, row, panel.count, PANEL_VECS, a->dim_qk, qt);
        for (int n = 0; n < PANEL_VECS; n++)
            max[n] = v_set1(-INFINITY);
        score_panel(PANEL_VECS, qt, s->k, a->dim_qk, a->dim_qk, keys, nothing_ahead,
                    s->scores + (size_t)i * (size_t)keys * PANEL, max);
    }
}

static void softmax(const fa_cpu_run *run, const fa_table_item *item, const standard_scratch *s, int panels,
                    int keys)
{
    vf factor = v_set1(run->plan->score.unit);
    for (int i = 0; i < panels; i++) {
        fa_panel panel;
        vf max[PANEL_VECS], sum[PANEL_VECS];
        float *scores = s->scores + (size_t)i * (size_t)keys * PANEL;
        whole_panel(&panel, run, item, item->row_begin + i * PANEL);
        FA_ISA_NAME(panel_scores)(&panel, true, 0, keys, scores, max);
        for (int n = 0; n < PANEL_VECS; n++) {
            v_store(s->max + i * PANEL + n * VL, max[n]);
            max[n] = v_if_less(max[n], v_set1(-FLT_MAX), v_set1(0.0f), max[n]);
            sum[n] = v_set1(0.0f);
        }
        tile_weights(PANEL_VECS, scores, keys, factor, max, sum);
        for (int n = 0; n < PANEL_VECS; n++)
            v_store(s->sum + i * PANEL + n * VL, sum[n]);
    }
}

static void second_product(const fa_cpu_run *run, const fa_table_item *item, const standard_scratch *s,
                           int panels, int keys)
{
    const fa_args *a = &run->plan->args;
    typed_rows v = key_rows(run, FA_V, item, 0);
    bool cleaned = (run->plan->problem.features & FA_FEATURE_MASK) && !rows_finite(&v, keys, a->dim_v);
    if (cleaned)
        clean_rows(s->v, a->dim_v, keys, a->dim_v);
    for (int i = 0; i < panels; i++) {
        fa_panel panel;
        int row = item->row_begin + i * PANEL;
        float *ot = s->ot + (size_t)i * (size_t)a->dim_v * PANEL;
        const float *weights = s->scores + (size_t)i * (size_t)keys * PANEL;
        vf ones[PANEL_VECS];
        whole_panel(&panel, run, item, row);
        for (int n = 0; n < PANEL_VECS; n++)
            ones[n] = v_set1(1.0f);
        memset(ot, 0, (size_t)a->dim_v * PANEL * sizeof(float));
        value_panel(PANEL_VECS, weights, s->v, a->dim_v, keys, a->dim_v, ones, nothing_ahead, ot);
        if (cleaned)
            FA_ISA_NAME(add_infinite)(&panel, weights, &v, 0, keys, ot);
        FA_ISA_NAME(panel_finish)(&panel, item, row, ot, s->max + i * PANEL, s->sum + i * PANEL);
    }
}

/* One item is all rows of a KV head: the planner tiles this row's problems not at all. */
static void run_item(const fa_cpu_run *run, const fa_table_item *item, void *memory)
{
    const fa_args *a = &run->plan->args;
    const typed_rows k = key_rows(run, FA_K, item, 0), v = key_rows(run, FA_V, item, 0);
    standard_scratch s = lay_out(run->plan, memory);
    int panels = (item->row_end - item->row_begin + PANEL - 1) / PANEL,
        keys = run->sequence[item->sequence].mask.len_kv;

    convert_typed(&k, keys, a->dim_qk, s.k, a->dim_qk);
    convert_typed(&v, keys, a->dim_v, s.v, a->dim_v);
    first_product(run, item, &s, panels, keys);
    softmax(run, item, &s, panels, keys);
    second_product(run, item, &s, panels, keys);
}

const fa_cpu_kernel FA_ISA_NAME(standard) = {scratch_bytes, run_item};
