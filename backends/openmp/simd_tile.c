/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The level-1 loops of attention by tiles: a block of rows, as panels, meets one block of keys after the
 * other. For each panel: scores, softmax weights, values, with one rescale of the output at most.
 */
#include <float.h>
#include <string.h>

#include "simd/tile.h"

/* The scratch of one thread, all of it 64-byte aligned. */
typedef struct tile_scratch {
    fa_panel *panel;        /* panels                     */
    float *qt;              /* panels x q_vectors x PANEL */
    float *ot;              /* panels x o_vectors x PANEL */
    float *max, *sum;       /* panels x PANEL             */
    float *st;              /* block_kv x PANEL           */
    float *k, *v;           /* a block of keys as the products read it */
    float *k_rows, *v_rows; /* a block whose rows lie in several pages */
    size_t qt_size, ot_size;
    size_t bytes;
} tile_scratch;

static tile_scratch lay_out(const fa_plan *plan, void *memory)
{
    const fa_args *a = &plan->args;
    size_t panels = ((size_t)a->block_q + PANEL - 1) / PANEL;
    size_t keys = ((size_t)a->block_kv + KEY_GRAIN - 1) / KEY_GRAIN * KEY_GRAIN;
    tile_scratch s = {.qt_size = (size_t)q_vectors(a->dim_qk) * PANEL,
                      .ot_size = (size_t)o_vectors(a->dim_v) * PANEL};
    s.panel = (fa_panel *)take_scratch(memory, &s.bytes, panels * ((sizeof(fa_panel) + 3) / 4));
    s.qt = take_scratch(memory, &s.bytes, panels * s.qt_size);
    s.ot = take_scratch(memory, &s.bytes, panels * s.ot_size);
    s.max = take_scratch(memory, &s.bytes, panels * PANEL);
    s.sum = take_scratch(memory, &s.bytes, panels * PANEL);
    s.st = take_scratch(memory, &s.bytes, keys * PANEL);
    s.k = take_scratch(memory, &s.bytes, k_floats(a->block_kv, a->dim_qk));
    s.v = take_scratch(memory, &s.bytes, v_floats(a->block_kv, a->dim_v));
    if (plan->problem.features & FA_FEATURE_PAGES) {
        s.k_rows = take_scratch(memory, &s.bytes, k_floats(a->block_kv, a->dim_qk));
        s.v_rows = take_scratch(memory, &s.bytes, k_floats(a->block_kv, a->dim_v));
    }
    return s;
}

static size_t scratch_bytes(const fa_plan *plan)
{
    return lay_out(plan, NULL).bytes;
}

/* One block of keys as the panels meet it. */
typedef struct key_block {
    tile_operand k, v;
    typed_rows values; /* v as the caller has it, or a copy */
    rows_ahead k_ahead, v_ahead;
    int begin, end;
    bool cut;         /* a list or neighbourhood ends within it, perhaps */
    bool transformed; /* scores become natural logarithms: see panel.h */
    bool cleaned;     /* values that are not finite are 0 in v          */
} key_block;

/* The running maximum after a block, and the factor for what came before. Returns whether any is not 1. */
FA_INLINE bool advance_max(const int nv, float *running, const vf block[PANEL_VECS], vf factor,
                           vf max[PANEL_VECS], vf rescale[PANEL_VECS])
{
    bool changes = false;
    FA_UNROLL
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
    int first = begin - block->begin, keys = end - begin;
    vf top[PANEL_VECS], max[PANEL_VECS], rescale[PANEL_VECS], sum[PANEL_VECS];
    vf factor = v_set1(panel->run->plan->score.unit);

    for (int n = 0; n < nv; n++)
        top[n] = v_set1(-INFINITY);
    tile_scores(nv, qt, keys_from(block->k, first), a->dim_qk, keys, block->k_ahead, st, top);
    if (masked || block->transformed)
        FA_ISA_NAME(panel_scores)(panel, masked, begin, keys, st, top);
    bool changes = advance_max(nv, running, top, factor, max, rescale);
    for (int n = 0; n < nv; n++)
        sum[n] = v_mul(v_load(sums + n * VL), rescale[n]);
    tile_weights(nv, st, keys, factor, max, sum);
    for (int n = 0; n < nv; n++)
        v_store(sums + n * VL, sum[n]);
    tile_values(nv, st, values_from(block->v, first), keys, a->dim_v, rescale, changes, block->v_ahead, ot);
    if (block->cleaned) {
        typed_rows values = rows_from(block->values, first);
        FA_ISA_NAME(add_infinite)(panel, st, &values, begin, keys, ot);
    }
}

/*
 * The width of a panel is a constant in each: one that is not full works on the vectors it has. Functions of their own:
 * in one together, gcc 12 keeps what the inner loops need in memory.
 */
#define FA_MEET(nv)                                                                                       \
    static void meet_##nv(const fa_panel *panel, const key_block *block, bool masked, int begin, int end, \
                          const float *qt, float *st, float *max, float *sum, float *ot)                  \
    {                                                                                                     \
        if (nv <= PANEL_VECS)                                                                             \
            meet(FA_MIN(nv, PANEL_VECS), panel, block, masked, begin, end, qt, st, max, sum, ot);         \
    }
FA_MEET(1)
FA_MEET(2)
FA_MEET(3)
FA_MEET(4)

/* Clips a block to the keys that some lane of the panel sees, classifies the rest, and meets it. */
static void visit(const fa_panel *panel, const key_block *block, const float *qt, float *st, float *max,
                  float *sum, float *ot)
{
    fa_mask m = panel->sequence->mask;
    int begin = block->begin, end = block->end;
    if (begin >= m.prefix)
        begin = FA_MAX(begin, fa_mask_begin(m, panel->first));
    begin -= (begin - block->begin) % KEY_GRAIN;
    end = FA_MIN(end, FA_MAX(fa_mask_end(m, panel->last), m.prefix));
    if (begin >= end)
        return;
    int tile = fa_mask_classify(m, panel->first, panel->last + 1, begin, end);
    if (tile == FA_CLASS_SKIP)
        return;
    static void (*const meet[])(const fa_panel *, const key_block *, bool, int, int, const float *, float *,
                                float *, float *, float *) = {NULL, meet_1, meet_2, meet_3, meet_4};
    meet[panel->nv](panel, block, tile == FA_CLASS_PARTIAL || block->cut, begin, end, qt, st, max, sum, ot);
}

/* Of what is read in place: a conversion reads row after row, which processors foresee by themselves. */
static rows_ahead ahead_of(const fa_cpu_run *run, int operand, const fa_table_item *item, int key)
{
    const int end = FA_MIN(key + run->plan->args.block_kv, item->key_end);
    if (key >= end || run->plan->problem.tensor[operand].dtype != FA_F32 ||
        fa_cpu_even_keys(run, item, key, end) < end - key)
        return nothing_ahead;
    typed_rows rows = key_rows(run, operand, item, key);
    return (rows_ahead){(const char *)((const float *)rows.base + rows.index),
                        rows.stride * (ptrdiff_t)sizeof(float), LINE_BYTES / (int)sizeof(float)};
}

/* Keys [key, end) of K or V evenly apart: where they lie, or else as copies in scratch. */
static typed_rows block_rows(const fa_cpu_run *run, int operand, const fa_table_item *item, int key, int end,
                             float *scratch)
{
    const int dim = (int)run->plan->problem.tensor[operand].shape[3];
    const typed_rows copies = {.dtype = copy_type, .base = scratch, .stride = row_stride(dim)};
    int even = fa_cpu_even_keys(run, item, key, end);
    if (even == end - key)
        return key_rows(run, operand, item, key);
    for (int at = key; at < end; at += even) {
        const typed_rows rows = key_rows(run, operand, item, at);
        even = fa_cpu_even_keys(run, item, at, end);
        copy_rows(&rows, even, dim,
                  (char *)scratch + (at - key) * copies.stride * FA_TYPE_BYTES(copies.dtype));
    }
    return copies;
}

/* Whether a value is read as the first dims of its key. Scales may make another number of it. */
static bool values_in_keys(const fa_cpu_run *run)
{
    const unsigned features = run->plan->problem.features;
    return (features & FA_FEATURE_V_IN_K) && !(features & FA_FEATURE_SCALES);
}

/*
 * `masked`: the mask, a list or a neighbourhood hides some of its keys from some row. `next`: the first key of the block that is
 * met then.
 */
static key_block fetch_block(const fa_cpu_run *run, const fa_table_item *item, int begin, int end, int next,
                             bool masked, const tile_scratch *s)
{
    const fa_args *a = &run->plan->args;
    const bool in_k = values_in_keys(run);
    typed_rows keys = block_rows(run, FA_K, item, begin, end, s->k_rows);
    key_block block = {
        .begin = begin,
        .end = end,
        .cut = masked && (run->cuts || run->near),
        .transformed = run->plan->score.transforms,
        .values = in_k ? keys : block_rows(run, FA_V, item, begin, end, s->v_rows),
        .k_ahead = ahead_of(run, FA_K, item, next),
        .v_ahead = in_k ? nothing_ahead : ahead_of(run, FA_V, item, next),
    };
    block.k = fetch_keys(&keys, end - begin, a->dim_qk, s->k);
    block.cleaned = (masked || run->keep) && !rows_finite(&block.values, end - begin, a->dim_v);
    if (in_k && !block.cleaned && KEYS_AS_VALUES)
        block.v = block.k;
    else
        block.v = (block.cleaned ? clean_values : fetch_values)(&block.values, end - begin, a->dim_v,
                                                                a->block_kv, s->v);
    return block;
}

static void start_panels(const fa_cpu_run *run, const fa_table_item *item, const tile_scratch *s, int panels)
{
    const fa_args *a = &run->plan->args;
    const fa_tensor *q = &run->plan->problem.tensor[FA_Q];
    for (int i = 0; i < panels; i++) {
        int64_t row[PANEL];
        panel_init(&s->panel[i], run, item, item->row_begin + i * PANEL);
        panel_rows(&s->panel[i], FA_Q, row);
        pack_queries(q->dtype, run->q, row, s->panel[i].count, s->panel[i].nv, a->dim_qk,
                     s->qt + (size_t)i * s->qt_size);
    }
    memset(s->ot, 0, (size_t)panels * s->ot_size * sizeof(float));
    for (int i = 0; i < panels * PANEL; i++) {
        s->max[i] = -INFINITY;
        s->sum[i] = 0;
    }
}

static void run_item(const fa_cpu_run *run, const fa_table_item *item, void *memory)
{
    const fa_args *a = &run->plan->args;
    tile_scratch s = lay_out(run->plan, memory);
    int rows = item->row_end - item->row_begin, panels = (rows + PANEL - 1) / PANEL;
    const fa_cpu_keys w = fa_cpu_item(run, item);
    const bool terms = run->keep != NULL;

    start_panels(run, item, &s, panels);
    tile_begin();
    for (int key = fa_work_next(w, terms, item->key_begin, a->block_kv), next; key < item->key_end;
         key = next) {
        int end = FA_MIN(key + a->block_kv, item->key_end);
        bool masked = fa_work_class(w, key, end) == FA_CLASS_PARTIAL;
        next = fa_work_next(w, terms, key + a->block_kv, a->block_kv);
        key_block block = fetch_block(run, item, key, end, next, masked, &s);
        for (int i = 0; i < panels; i++) {
            visit(&s.panel[i], &block, s.qt + (size_t)i * s.qt_size, s.st, s.max + i * PANEL,
                  s.sum + i * PANEL, s.ot + (size_t)i * s.ot_size);
            block.k_ahead = block.v_ahead = nothing_ahead; /* once is enough */
        }
    }
    tile_end();
    for (int i = 0; i < panels; i++) {
        FA_ISA_NAME(panel_finish)
        (&s.panel[i], item, item->row_begin + i * PANEL, s.ot + (size_t)i * s.ot_size, s.max + i * PANEL,
         s.sum + i * PANEL);
    }
}

const fa_cpu_kernel FA_ISA_NAME(tile) = {scratch_bytes, run_item};
