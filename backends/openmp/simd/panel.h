/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A panel of packed query rows: which rows its lanes are, and everything that is done to scores between the
 * two products. core/portable/score.h says what that is: a plan leaves scores raw, or makes natural logarithms of
 * them. Either way the weights are 2^((score - max) * unit).
 */
#ifndef FA_OPENMP_PANEL_H
#define FA_OPENMP_PANEL_H

#include "../kernel.h"
#include "core/portable/softmax.h"
#include "core/portable/walk.h"
#include "pack.h"

typedef struct fa_panel {
    const fa_cpu_run *run;
    const fa_table_sequence *sequence;
    int32_t number;      /* of the sequence */
    int count;           /* lanes in use */
    int nv;              /* vectors in use */
    int first, last;     /* positions of the first and the last lane, inclusive */
    int position[PANEL]; /* query row within the sequence; unused lanes repeat the last */
    int head[PANEL];     /* query head */
    int begin[PANEL], end[PANEL];
    /* Of neighbourhoods: the bits of each axis in a word of near.h, and between which each lane sees them. */
    int near_axes, near_field[FA_AXES], near_begin[FA_AXES][PANEL], near_end[FA_AXES][PANEL];
} fa_panel;

static inline void panel_near(fa_panel *panel)
{
    const fa_cpu_keys w = {.params = panel->run->work, .sequence = panel->sequence};
    panel->near_axes = 0;
    for (uint32_t rest = w.params->near_guards, low = 1, guard; rest; rest &= rest - 1, low = guard << 1) {
        guard = rest & (0u - rest);
        panel->near_field[panel->near_axes++] = (int)(guard - low);
    }
    for (int i = 0; i < PANEL; i++) {
        const fa_row r = fa_near_row(w, (fa_row){.position = panel->position[i]});
        for (int n = 0; n < panel->near_axes; n++) {
            panel->near_begin[n][i] = (int)r.near_begin & panel->near_field[n];
            panel->near_end[n][i] = ((int)r.near_end & panel->near_field[n]) + 1;
        }
    }
}

static inline void panel_init(fa_panel *panel, const fa_cpu_run *run, const fa_table_item *item, int row)
{
    const fa_plan *plan = run->plan;
    panel->run = run;
    panel->sequence = &run->sequence[item->sequence];
    panel->number = panel->sequence->number;
    panel->count = FA_MIN(item->row_end - row, (int)PANEL);
    panel->nv = (panel->count + VL - 1) / VL;
    for (int i = 0; i < PANEL; i++) {
        fa_row at = fa_row_of(panel->sequence->mask, plan->args.group, item->head_kv, row + i, item->row_end);
        panel->position[i] = at.position;
        panel->head[i] = at.head;
        panel->begin[i] = at.begin;
        panel->end[i] = at.end;
    }
    if (run->near)
        panel_near(panel);
    panel->first = panel->position[0];
    panel->last = panel->position[PANEL - 1];
}

/* Keys `key` and following of k or v, where they lie: fa_cpu_even_keys() of them. */
static inline typed_rows key_rows(const fa_cpu_run *run, int operand, const fa_table_item *item, int key)
{
    const fa_tensor *t = &run->plan->problem.tensor[operand];
    const bool scaled = operand == FA_K ? run->k_scale != NULL : run->v_scale != NULL;
    return (typed_rows){.dtype = t->dtype,
                        .base = operand == FA_K ? run->k : run->v,
                        .index = fa_cpu_key_at(run, operand, item, key),
                        .stride = t->stride[2],
                        .scaled = {scaled ? run : NULL, item, operand, key},
                        .row_dims = (int)t->shape[3],
                        .row_bytes =
                            operand == FA_K ? run->work->k_scales.row_bytes : run->work->v_scales.row_bytes};
}

/* Elements that precede each lane's row of q or o. */
static inline void panel_rows(const fa_panel *panel, int operand, int64_t row[PANEL])
{
    for (int i = 0; i < PANEL; i++)
        row[i] = fa_cpu_row_at(panel->run, operand, panel->sequence, panel->head[i], panel->position[i]);
}

/* The scaled and capped score of a raw product, as fa_score_scaled() has it. */
static inline vf scale_score(const fa_score *s, vf x)
{
    x = v_mul(v_mul(x, v_set1(s->scale)), v_set1(s->scale_rest));
    if (s->cap_inverse == 0)
        return x;
    vf y = v_mul(v_mul(x, v_set1(0.25f)), v_set1(s->cap_inverse));
    return v_mul(v_tanh(y), v_set1(s->cap));
}

/* What a plan does to scores that it transforms. Read once, since stores of scores may hide that it stays the same. */
typedef struct score_terms {
    fa_score score;
    bool slopes, bias;
} score_terms;

FA_INLINE score_terms terms_of(const fa_cpu_run *run)
{
    return (score_terms){run->plan->score, run->plan->problem.alibi_slopes != NULL, run->bias != NULL};
}

/* The score of a raw product, as fa_work_score() makes it. `fall` is the negative slope; *bias is read where there is one. */
FA_INLINE vf score_of(const score_terms *t, vf x, vf fall, vf distance, const vf *bias)
{
    x = scale_score(&t->score, x);
    if (t->slopes)
        x = v_fma(fall, distance, x);
    return t->bias ? v_add(*bias, x) : x;
}

/*
 * Of keys [key, key + keys): turns scores into natural logarithms where the plan wants that, hides what a lane
 * does not see, and finds each lane's greatest.
 */
void FA_ISA_NAME(panel_scores)(const fa_panel *panel, bool masked, int key, int keys, float *st,
                               vf max[PANEL_VECS]);

/*
 * A key that some lane must not see has weight 0 there; if its value is not finite, 0 times it would be seen. Blocks
 * with hidden keys are therefore looked over, and where need be the product takes a copy with 0 for what is not
 * finite, by the same arithmetic, so that lanes that do not see it cannot tell. This adds it to the lanes that do:
 * of `keys` keys from `key` on, `v` being their values, `weights` as the kernel keeps them.
 */
void FA_ISA_NAME(add_infinite)(const fa_panel *panel, const float *weights, const typed_rows *v, int key,
                               int keys, float *ot);

/*
 * Closes packed row `row` of an item, whose output was accumulated under `max` (in the plan's unit): folds the
 * sink in, writes the LSE (where the item is split, the state to the partial results), and returns the factor that
 * normalises the output.
 */
float FA_ISA_NAME(row_close)(const fa_cpu_run *run, const fa_table_item *item, int row, float max, float sum);

/* Closes every lane and writes the outputs. */
void FA_ISA_NAME(panel_finish)(const fa_panel *panel, const fa_table_item *item, int row, const float *ot,
                               const float *max, const float *sum);

#endif
