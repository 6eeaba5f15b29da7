/* SPDX-License-Identifier: Apache-2.0 */
#include "simd/panel.h"
#include "simd/tile.h"

static bool sees(const fa_panel *panel, int lane, int key)
{
    return fa_mask_visible(panel->sequence->mask, panel->position[lane], key) &&
           (fa_cpu_kept(panel->run, panel->sequence, panel->head[lane], panel->position[lane], key, 1) & 1) !=
               0;
}

void FA_ISA_NAME(add_infinite)(const fa_panel *panel, const float *weights, const typed_rows *v, int key,
                               int keys, float *ot)
{
    int dim = panel->run->plan->args.dim_v;
    for (int j = 0; j < keys; j++) {
        for (int d = 0; d < dim; d++) {
            float value = FA_ISA_NAME(element_of)(v, j, d);
            if (isfinite(value))
                continue;
            for (int lane = 0; lane < panel->count; lane++) {
                if (sees(panel, lane, key + j))
                    ot[d * lane_count(panel->nv) + lane] += weight_at(weights, panel->nv, j, lane) * value;
            }
        }
    }
}

/* bias[key][lane] of up to VL keys for the lanes of one vector. */
static void load_bias(const fa_panel *panel, int lane, int key, int keys, vf bias[VL])
{
    const float *factors = panel->run->plan->problem.bias_factors;
    const fa_tensor *t = &panel->run->plan->problem.tensor[FA_BIAS];
    for (int i = 0; i < VL; i++) {
        int64_t at = fa_problem_extra_offset(t, panel->number, panel->head[lane + i],
                                             panel->position[lane + i], panel->sequence->first);
        if (t->stride[3] == 0)
            bias[i] = v_set1(fa_load(t->dtype, panel->run->bias, at));
        else if (keys == VL)
            bias[i] = load_typed(t->dtype, panel->run->bias, at + key);
        else
            bias[i] = load_some(t->dtype, panel->run->bias, at + key, keys);
        if (factors)
            bias[i] = v_mul(bias[i], v_set1(factors[panel->head[lane + i]]));
    }
    v_transpose(bias);
}

/* What `keep`, lists and neighbourhoods say of up to VL keys to the lanes of one vector: bit i of a lane is of key + i. */
static void load_kept(const fa_panel *panel, int lane, int key, int keys, uint32_t kept[VL])
{
    for (int i = 0; i < VL; i++)
        kept[i] = fa_cpu_kept(panel->run, panel->sequence, panel->head[lane + i], panel->position[lane + i],
                              key, keys);
}

/* Hides key number `j` of those from lanes whose bit of it is 0. */
static vf hide_unkept(const uint32_t kept[VL], int j, vf x)
{
    float value[VL];
    v_store(value, x);
    for (int i = 0; i < VL; i++)
        value[i] = (kept[i] >> j & 1) != 0 ? value[i] : -INFINITY;
    return v_load(value);
}

/* Hides a key from lanes whose neighbourhood lacks it. */
static vf hide_far(const fa_panel *panel, int lane, int key, vf x)
{
    const fa_cpu_keys w = {.params = panel->run->work};
    const int number = panel->sequence->first + key;
    if (number >= w.params->near_tokens)
        return x;
    const int at = (int)FA_NEAR_WORD(w, w.params->near_at + number);
    for (int n = 0; n < panel->near_axes; n++)
        x = v_hide_outside(x, vi_set1(at & panel->near_field[n]), vi_load(panel->near_begin[n] + lane),
                           vi_load(panel->near_end[n] + lane));
    return x;
}

/* Hiding alone: one vector of lanes against `keys` keys. */
static vf hide_scores(const fa_panel *panel, int lane, int key, int keys, float *st, vf max)
{
    vi begin = vi_load(panel->begin + lane), end = vi_load(panel->end + lane);
    uint32_t kept[VL] = {0};
    for (int j = 0; j < keys; j++) {
        float *at = st + j * lane_count(panel->nv) + lane;
        vf x = v_load(at);
        if (key + j >= panel->sequence->mask.prefix)
            x = v_hide_outside(x, vi_set1(key + j), begin, end);
        if (panel->run->near)
            x = hide_far(panel, lane, key + j, x);
        if (panel->run->cuts && j % VL == 0)
            load_kept(panel, lane, key + j, FA_MIN(keys - j, (int)VL), kept);
        if (panel->run->cuts)
            x = hide_unkept(kept, j % VL, x);
        v_store(at, x);
        max = v_max(max, x);
    }
    return max;
}

/* Everything that a description can ask for: one vector of lanes against up to VL keys. */
static vf transform_scores(const fa_panel *panel, bool masked, int lane, int key, int keys, float *st, vf max)
{
    const fa_problem *p = &panel->run->plan->problem;
    const score_terms terms = terms_of(panel->run);
    vf bias[VL];
    float fall[VL] = {0};
    int position[VL] = {0};
    const bool hides = panel->run->keep || (masked && (panel->run->cuts || panel->run->near));
    uint32_t kept[VL] = {0};
    for (int i = 0; terms.slopes && i < VL; i++) {
        fall[i] = -fa_problem_slope(p, panel->number, panel->head[lane + i]);
        position[i] = panel->position[lane + i] + panel->sequence->mask.diagonal;
    }
    for (int i = 0; !terms.bias && i < VL; i++)
        bias[i] = v_set1(0.0f);
    if (terms.bias)
        load_bias(panel, lane, key, keys, bias);
    if (hides)
        load_kept(panel, lane, key, keys, kept);
    vi begin = vi_load(panel->begin + lane), end = vi_load(panel->end + lane);
    for (int j = 0; j < keys; j++) {
        float *at = st + j * lane_count(panel->nv) + lane;
        vf distance = v_distance(vi_load(position), vi_set1(key + j));
        vf x = score_of(&terms, v_load(at), v_load(fall), distance, &bias[j]);
        if (masked && key + j >= panel->sequence->mask.prefix)
            x = v_hide_outside(x, vi_set1(key + j), begin, end);
        if (hides)
            x = hide_unkept(kept, j, x);
        v_store(at, x);
        max = v_max(max, x);
    }
    return max;
}

void FA_ISA_NAME(panel_scores)(const fa_panel *panel, bool masked, int key, int keys, float *st,
                               vf max[PANEL_VECS])
{
    bool transformed = panel->run->plan->score.transforms;
    for (int n = 0; n < panel->nv; n++) {
        max[n] = v_set1(-INFINITY);
        if (!transformed)
            max[n] = hide_scores(panel, n * VL, key, keys, st, max[n]);
        for (int j = 0; transformed && j < keys; j += VL)
            max[n] = transform_scores(panel, masked, n * VL, key + j, FA_MIN(keys - j, (int)VL),
                                      st + j * lane_count(panel->nv), max[n]);
    }
}

float FA_ISA_NAME(row_close)(const fa_cpu_run *run, const fa_table_item *item, int row, float max, float sum)
{
    const fa_plan *plan = run->plan;
    const fa_problem *p = &plan->problem;
    int head = fa_row_head(plan->args.group, item->head_kv, row);
    float sink = p->sinks && item->part_row < 0 ? p->sinks[head] : FA_NEG_INF;
    const fa_state state = {max, sum};
    fa_closed closed = fa_state_close(state, plan->score.natural, sink);
    if (item->part_row >= 0)
        run->partial_state[item->part_row + row - item->row_begin] = state;
    else if (run->lse)
        run->lse[fa_cpu_lse_at(run, &run->sequence[item->sequence], head,
                               fa_row_position(plan->args.group, row))] = closed.lse;
    return closed.factor;
}

void FA_ISA_NAME(panel_finish)(const fa_panel *panel, const fa_table_item *item, int row, const float *ot,
                               const float *max, const float *sum)
{
    const fa_cpu_run *run = panel->run;
    const fa_problem *p = &run->plan->problem;
    bool partial = item->part_row >= 0;
    float factor[PANEL] = {0};
    int64_t target[PANEL];
    for (int i = 0; i < panel->count; i++) {
        factor[i] = FA_ISA_NAME(row_close)(run, item, row + i, max[i], sum[i]);
        target[i] = (item->part_row + row - item->row_begin + i) * p->dim_v;
    }
    if (!partial)
        panel_rows(panel, FA_O, target);
    unpack_panel(partial ? FA_F32 : p->tensor[FA_O].dtype, partial ? run->partial : run->o, target,
                 panel->count, panel->nv, p->dim_v, ot, factor);
}
