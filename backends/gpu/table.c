/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/gpu/table.h"

#include <string.h>

#include "core/backend.h"
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

/* Lists begin at multiples of 64 bytes, and of the size of their entries. */
_Static_assert(64 % sizeof(fa_table_sequence) == 0 && 64 % sizeof(fa_table_item) == 0 &&
                   64 % sizeof(fa_table_merge) == 0,
               "entries that fill 64 bytes");
_Static_assert(sizeof(fa_table_params) % 8 == 0, "std430 rounds its size up");

fa_status fa_table_make(const fa_plan *plan, size_t most, void **made, size_t *made_size)
{
    enum { LISTS = 6 };
    const fa_problem *p = &plan->problem;
    const fa_schedule *schedule = &plan->schedule;
    fa_table_params params = {.flags = 0};
    const struct {
        size_t count, bytes;
        int *at;            /* where its first entry's number goes     */
        const void *floats; /* its entries; NULL: they are filled below */
    } list[LISTS] = {
        {(size_t)p->sequences, sizeof(fa_table_sequence), &params.sequences_at, NULL},
        {(size_t)schedule->items, sizeof(fa_table_item), &params.items_at, NULL},
        {(size_t)schedule->merges, sizeof(fa_table_merge), &params.merges_at, NULL},
        {p->alibi_slopes ? fa_problem_slopes(p) : 0, sizeof(float), &params.slopes_at, p->alibi_slopes},
        {p->sinks ? (size_t)p->heads_q : 0, sizeof(float), &params.sinks_at, p->sinks},
        {p->bias_factors ? (size_t)p->heads_q : 0, sizeof(float), &params.factors_at, p->bias_factors},
    };
    size_t size = sizeof(params), begin[LISTS];
    most = FA_MIN(most, (size_t)INT32_MAX); /* shaders count in ints */
    for (int i = 0; i < LISTS; i++) {
        begin[i] = size = fa_align64(size);
        if (!fa_grow(&size, list[i].count, list[i].bytes))
            return fa_fail(FA_OUT_OF_MEMORY, "a work list of %zu items overflows memory",
                           (size_t)schedule->items);
    }
    if (size > most)
        return fa_fail(FA_OUT_OF_MEMORY, "a work list of %zu items needs %zu bytes, %s allocates at most %zu",
                       (size_t)schedule->items, size, plan->device->info.name, most);
    char *table = fa_alloc_zeroed(plan->device->context, size);
    if (!table)
        return FA_OUT_OF_MEMORY;
    for (int i = 0; i < LISTS; i++) {
        *list[i].at = (int)(begin[i] / list[i].bytes);
        if (list[i].floats && list[i].count > 0)
            memcpy(table + begin[i], list[i].floats, list[i].count * list[i].bytes);
    }
    fill_params(plan, &params);
    memcpy(table, &params, sizeof(params));
    fill_sequences(p, (fa_table_sequence *)(void *)(table + begin[0]));
    fill_lists(schedule, (fa_table_item *)(void *)(table + begin[1]),
               (fa_table_merge *)(void *)(table + begin[2]));
    *made = table;
    *made_size = size;
    return FA_OK;
}
