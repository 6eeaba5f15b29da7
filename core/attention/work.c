/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/work.h"

#include <string.h>

#include "core/backend.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

void fa_work_describe(const fa_problem *p, fa_table_params *out)
{
    fa_long *const stride[] = {
        [FA_Q] = out->q_stride, [FA_K] = out->k_stride, [FA_V] = out->v_stride, [FA_O] = out->o_stride};
    for (int t = FA_Q; t <= FA_O; t++)
        memcpy(stride[t], p->tensor[t].stride, 3 * sizeof(fa_long));
    for (int axis = 0; axis < 4; axis++) {
        const fa_tensor *bias = &p->tensor[FA_BIAS], *keep = &p->tensor[FA_KEEP];
        out->bias_stride[axis] = bias->stride[axis];
        out->keep_stride[axis] = keep->stride[axis];
    }
    if (p->features & FA_FEATURE_PAGES) {
        out->page_size = (int)p->tensor[FA_K].shape[2];
        out->page_shift = fa_shift_of(p->tensor[FA_K].shape[2]);
        out->pages = (int)p->tensor[FA_K].shape[0];
        out->page_stride = p->tensor[FA_PAGES].stride[0];
    }
    out->k_scales = p->k_scales;
    out->v_scales = p->v_scales;
    out->group = p->group;
    out->dim_qk = p->dim_qk;
    out->dim_v = p->dim_v;
    out->lse_rows = (int)p->tensor[FA_O].shape[2];
    out->bias_type = (int)p->tensor[FA_BIAS].dtype;
    out->slope_stride = p->alibi_stride;
    out->keep_bits = p->keep_bits;
    out->keep_last = p->keep_last;
    out->list_rows = p->lists.block_rows;
    out->list_keys = p->lists.block_keys;
    out->list_words = p->lists.words;
    out->list_heads = p->lists.heads;
    out->list_head_stride = (int)p->lists.head_stride;
    out->list_sequence_stride = (int)p->lists.sequence_stride;
    out->near_tokens = p->near.grid.tokens;
    out->near_guards = p->near.guards;
    out->flags =
        (p->alibi_slopes ? FA_TABLE_ALIBI : 0) | (p->features & FA_FEATURE_BIAS ? FA_TABLE_BIAS : 0) |
        (p->features & FA_FEATURE_KEEP ? FA_TABLE_KEEP : 0) | (p->sinks ? FA_TABLE_SINKS : 0) |
        (p->bias_factors ? FA_TABLE_BIAS_FACTORS : 0) | (p->features & FA_FEATURE_LSE ? FA_TABLE_LSE : 0) |
        (p->features & FA_FEATURE_PAGES ? FA_TABLE_PAGES : 0) |
        (p->features & FA_FEATURE_LISTS ? FA_TABLE_LISTS : 0) | (p->lists.cut ? FA_TABLE_LIST_CUTS : 0) |
        (p->near.words ? FA_TABLE_NEAR : 0);
}

static void fill_params(const fa_plan *plan, const fa_problem *problem, const fa_schedule *schedule,
                        fa_table_params *out)
{
    const fa_work_layout *at = &plan->layout;
    fa_work_describe(problem, out);
    out->score = plan->score;
    out->plan = (fa_long)plan->serial;
    out->sequences_at = (int)(at->sequences / sizeof(fa_table_sequence));
    out->items_at = (int)(at->items / sizeof(fa_table_item));
    out->merges_at = (int)(at->merges / sizeof(fa_table_merge));
    out->slopes_at = (int)(at->slopes / sizeof(float));
    out->sinks_at = (int)(at->sinks / sizeof(float));
    out->factors_at = (int)(at->factors / sizeof(float));
    out->lists_at = (int)(at->lists / sizeof(uint32_t));
    out->near_at = (int)(at->near / sizeof(uint32_t));
    out->items = (int)schedule->items;
    out->merges = (int)schedule->merges;
    out->partial_rows = schedule->partial_rows;
    out->workers = (int)schedule->workers;
}

void fa_work_sequences(const fa_problem *p, fa_table_sequence *out)
{
    for (int64_t n = 0; n < p->sequences; n++) {
        const fa_sequence *s = &p->sequence[n];
        out[n] = (fa_table_sequence){
            .q_at = fa_tensor_offset(&p->tensor[FA_Q], s->q_batch, s->q_head, s->q_row),
            .k_at = fa_tensor_offset(&p->tensor[FA_K], s->kv_batch, 0, s->kv_row),
            .v_at = fa_tensor_offset(&p->tensor[FA_V], s->kv_batch, 0, s->kv_row),
            .o_at = fa_tensor_offset(&p->tensor[FA_O], s->q_batch, s->q_head, s->q_row),
            .lse_at = fa_problem_lse_index(p, s, 0, 0),
            .number = s->number,
            .first = s->first,
            .mask = s->mask,
            .row = p->features & FA_FEATURE_PAGES
                       ? (int)p->tensor[FA_K].shape[0]
                       : (int)FA_MIN(s->kv_row, INT32_MAX), /* of what has scales, no more */
            .rows = s->len_q,
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

/* Lists begin at multiples of the size of their entries, which are multiples of 8 where they hold 64 bits. */
_Static_assert(sizeof(fa_table_sequence) % 8 == 0 && sizeof(fa_table_item) % 8 == 0 &&
                   sizeof(fa_table_merge) % 8 == 0,
               "entries of whole words of 64 bits");
_Static_assert(sizeof(fa_table_params) % 8 == 0, "std430 rounds its size up");

static size_t slopes(const fa_problem *p)
{
    return p->alibi_slopes ? fa_problem_slopes(p) : 0;
}

static bool add_list(size_t count, size_t bytes, size_t *end, size_t *begin)
{
    size_t gap = (bytes - *end % bytes) % bytes;
    if (!fa_grow(end, gap, 1))
        return false;
    *begin = *end;
    return fa_grow(end, count, bytes);
}

fa_status fa_work_lay_out(const fa_plan *plan, fa_work_layout *layout)
{
    const fa_problem *p = &plan->problem;
    const size_t heads = (size_t)p->heads_q, items = (size_t)plan->capacity.items;
    size_t most = plan->device->limits.work_bytes, end = sizeof(fa_table_params);
    bool fits = add_list(slopes(p), sizeof(float), &end, &layout->slopes) &&
                add_list(p->sinks ? heads : 0, sizeof(float), &end, &layout->sinks) &&
                add_list(p->bias_factors ? heads : 0, sizeof(float), &end, &layout->factors) &&
                add_list(p->lists.count, sizeof(uint32_t), &end, &layout->lists) &&
                add_list(p->near.count, sizeof(uint32_t), &end, &layout->near) &&
                add_list((size_t)p->sequences, sizeof(fa_table_sequence), &end, &layout->sequences) &&
                add_list((size_t)plan->capacity.merges, sizeof(fa_table_merge), &end, &layout->merges) &&
                add_list(items, sizeof(fa_table_item), &end, &layout->items);
    if (!fits)
        return fa_fail(FA_OUT_OF_MEMORY, "a work list of %zu items overflows memory", items);
    if (most == 0 || most > INT32_MAX)
        most = INT32_MAX; /* kernels count in ints */
    if (end > most)
        return fa_fail(FA_OUT_OF_MEMORY, "a work list of %zu items needs %zu bytes, %s allocates at most %zu",
                       items, end, plan->device->info.name, most);
    layout->bytes = end;
    return FA_OK;
}

static void copy_floats(char *to, const float *from, size_t count)
{
    if (from && count > 0)
        memcpy(to, from, count * sizeof(float));
}

static void clear(char *bytes, size_t begin, size_t end)
{
    memset(bytes + begin, 0, end - begin);
}

size_t fa_work_write(const fa_plan *plan, const fa_problem *problem, const fa_schedule *schedule, void *work)
{
    const fa_work_layout *at = &plan->layout;
    const size_t heads = (size_t)problem->heads_q;
    const size_t used = at->items + (size_t)schedule->items * sizeof(fa_table_item);
    const size_t sequences_end = at->sequences + (size_t)problem->sequences * sizeof(fa_table_sequence);
    const size_t merges_end = at->merges + (size_t)schedule->merges * sizeof(fa_table_merge);
    char *bytes = work;
    fa_table_params params = {.flags = 0};
    clear(bytes, 0, at->sequences);
    clear(bytes, sequences_end, at->merges); /* a run looks at all sequences of its plan */
    clear(bytes, merges_end, at->items);
    fill_params(plan, problem, schedule, &params);
    memcpy(bytes, &params, sizeof(params));
    copy_floats(bytes + at->slopes, problem->alibi_slopes, slopes(problem));
    copy_floats(bytes + at->sinks, problem->sinks, heads);
    copy_floats(bytes + at->factors, problem->bias_factors, heads);
    if (problem->lists.bits)
        memcpy(bytes + at->lists, problem->lists.bits, problem->lists.count * sizeof(uint32_t));
    if (problem->near.words)
        memcpy(bytes + at->near, problem->near.words, problem->near.count * sizeof(uint32_t));
    fa_work_sequences(problem, (fa_table_sequence *)(void *)(bytes + at->sequences));
    fill_lists(schedule, (fa_table_item *)(void *)(bytes + at->items),
               (fa_table_merge *)(void *)(bytes + at->merges));
    return used;
}
