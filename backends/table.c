/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/table.h"

#include <string.h>

#include "backends/backend.h"
#include "core/context.h"
#include "core/portable/table.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

static void fill_params(const fa_plan *plan, fa_table_params *out)
{
    const fa_problem *p = &plan->problem;
    fa_long *const stride[] = {
        [FA_Q] = out->q_stride, [FA_K] = out->k_stride, [FA_V] = out->v_stride, [FA_O] = out->o_stride};
    for (int t = FA_Q; t <= FA_O; t++)
        memcpy(stride[t], p->tensor[t].stride, 3 * sizeof(fa_long));
    for (int axis = 0; axis < 4; axis++) {
        const fa_tensor *bias = &p->tensor[FA_BIAS], *keep = &p->tensor[FA_KEEP];
        out->bias_stride[axis] = bias->stride[axis];
        out->keep_stride[axis] = keep->stride[axis];
    }
    out->heads_q = p->heads_q;
    out->group = p->group;
    out->dim_qk = p->dim_qk;
    out->dim_v = p->dim_v;
    out->lse_rows = (int)p->tensor[FA_O].shape[2];
    out->bias_type = (int)p->tensor[FA_BIAS].dtype;
    out->score = plan->score;
    out->slope_stride = p->alibi_stride;
    out->flags =
        (p->alibi_slopes ? FA_TABLE_ALIBI : 0) | (p->features & FA_FEATURE_BIAS ? FA_TABLE_BIAS : 0) |
        (p->features & FA_FEATURE_KEEP ? FA_TABLE_KEEP : 0) | (p->sinks ? FA_TABLE_SINKS : 0) |
        (p->bias_factors ? FA_TABLE_BIAS_FACTORS : 0) | (p->features & FA_FEATURE_LSE ? FA_TABLE_LSE : 0);
}

static void fill_sequences(const fa_problem *p, fa_table_sequence *out)
{
    for (int64_t n = 0; n < p->sequences; n++) {
        const fa_sequence *s = &p->sequence[n];
        out[n] = (fa_table_sequence){
            .q_at = fa_tensor_offset(&p->tensor[FA_Q], s->q_batch, 0, s->q_row),
            .k_at = fa_tensor_offset(&p->tensor[FA_K], s->kv_batch, 0, s->kv_row),
            .v_at = fa_tensor_offset(&p->tensor[FA_V], s->kv_batch, 0, s->kv_row),
            .o_at = fa_tensor_offset(&p->tensor[FA_O], s->q_batch, 0, s->q_row),
            .lse_at = fa_problem_lse_index(p, s, 0, 0),
            .number = (int)n,
            .mask = s->mask,
        };
    }
}

static void fill_lists(const fa_schedule *schedule, fa_table_item *item, fa_table_merge *merge)
{
    for (int64_t i = 0; i < schedule->items; i++) {
        const fa_work_item *w = &schedule->item[i];
        item[i] = (fa_table_item){w->part_row, w->sequence,  w->head_kv, w->row_begin,
                                  w->row_end,  w->key_begin, w->key_end};
    }
    for (int64_t i = 0; i < schedule->merges; i++) {
        const fa_merge_item *m = &schedule->merge[i];
        merge[i] =
            (fa_table_merge){m->part_row, m->sequence, m->head_kv, m->row_begin, m->row_end, m->parts, 0};
    }
}

fa_status fa_table_make(const fa_plan *plan, size_t most, void **made, size_t *made_size)
{
    const fa_problem *p = &plan->problem;
    size_t size = sizeof(fa_table_params), heads = (size_t)p->heads_q, at[6];
    const size_t count[6] = {(size_t)p->sequences,          (size_t)plan->schedule.items,
                             (size_t)plan->schedule.merges, p->alibi_slopes ? fa_problem_slopes(p) : 0,
                             p->sinks ? heads : 0,          p->bias_factors ? heads : 0};
    const size_t bytes[6] = {sizeof(fa_table_sequence),
                             sizeof(fa_table_item),
                             sizeof(fa_table_merge),
                             sizeof(float),
                             sizeof(float),
                             sizeof(float)};
    for (int i = 0; i < 6; i++) {
        at[i] = size;
        if (!fa_grow(&size, count[i], bytes[i]))
            return fa_fail(FA_OUT_OF_MEMORY, "a work list of %zu items overflows memory", count[1]);
    }
    most = FA_MIN(most, (size_t)INT32_MAX); /* shaders count in ints */
    if (size > most)
        return fa_fail(FA_OUT_OF_MEMORY, "a work list of %zu items needs %zu bytes, %s allocates at most %zu",
                       count[1], size, plan->device->info.name, most);
    char *table = fa_alloc_zeroed(plan->device->context, size);
    if (!table)
        return FA_OUT_OF_MEMORY;
    fa_table_params *params = (fa_table_params *)(void *)table;
    fill_params(plan, params);
    params->sequences_at = (fa_long)at[0];
    params->items_at = (fa_long)at[1];
    params->merges_at = (fa_long)at[2];
    params->slopes_at = (fa_long)at[3];
    params->sinks_at = (fa_long)at[4];
    params->factors_at = (int)at[5];
    fill_sequences(p, (fa_table_sequence *)(void *)(table + at[0]));
    fill_lists(&plan->schedule, (fa_table_item *)(void *)(table + at[1]),
               (fa_table_merge *)(void *)(table + at[2]));
    if (p->alibi_slopes)
        memcpy(table + at[3], p->alibi_slopes, fa_problem_slopes(p) * sizeof(float));
    if (p->sinks)
        memcpy(table + at[4], p->sinks, heads * sizeof(float));
    if (p->bias_factors)
        memcpy(table + at[5], p->bias_factors, heads * sizeof(float));
    *made = table;
    *made_size = size;
    return FA_OK;
}
