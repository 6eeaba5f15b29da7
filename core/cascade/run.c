/* SPDX-License-Identifier: Apache-2.0 */
/* Plans for the levels of a cascade, and its runs. */
#include <string.h>

#include "core/attention/sequences.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/cascade/cascade.h"
#include "core/cascade/shift.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

/* bias or keep of a level: as many rows and sequences as its groups have. place_level() says where they lie. */
static void take_extra(const fa_cascade *c, const fa_cascade_level_lists *l, int operand, fa_tensor *t)
{
    if (t->shape[0] == 0)
        return;
    const int64_t rows = c->problem.tensor[FA_Q].shape[2];
    *t = fa_tensor_make(t->dtype, t->shape[0] == 1 ? 1 : l->groups, t->shape[1],
                        fa_cascade_row_stride(&c->problem, operand) ? FA_MAX(rows, 1) : 1, t->shape[3]);
}

typedef struct place {
    const fa_cascade *cascade;
    const fa_cascade_level_lists *level;
} place;

/* Slopes by the numbers of the whole problem's sequences: those of a group are its first's. */
static fa_status place_slopes(const fa_cascade *c, fa_problem *p)
{
    const size_t bytes = fa_problem_slopes(&c->problem) * sizeof(float);
    if (p->alibi_stride == 0)
        return FA_OK;
    float *slopes = fa_alloc(c->context, bytes);
    if (!slopes)
        return FA_OUT_OF_MEMORY;
    memcpy(slopes, c->problem.alibi_slopes, bytes);
    fa_release(c->context, p->alibi_slopes, fa_problem_slopes(p) * sizeof(float));
    p->alibi_slopes = slopes;
    p->alibi_lists = c->problem.alibi_lists;
    return FA_OK;
}

/* A group has the entries of its first sequence, and its rows go on in those of the others. */
static fa_status place_level(fa_problem *p, const void *of)
{
    static const int operands[] = {FA_BIAS, FA_KEEP};
    const place *at = of;
    const fa_problem *whole = &at->cascade->problem;
    for (int64_t g = 0; g < p->sequences; g++) {
        p->sequence[g].number = (int32_t)at->level->cu_sequences[g];
        p->sequence[g].mask.diagonal = fa_cascade_counts_from(at->level, g); /* only ALiBi asks for it */
    }
    p->span[FA_PAGES] = (size_t)(at->cascade->sequences * at->level->width) * sizeof(int32_t);
    for (int i = 0; i < 2; i++) {
        const int t = operands[i];
        if (!(p->features & fa_operands[t].feature))
            continue;
        memcpy(p->tensor[t].stride, whole->tensor[t].stride, sizeof(p->tensor[t].stride));
        p->tensor[t].stride[2] = fa_cascade_row_stride(whole, t);
        p->span[t] = whole->span[t];
    }
    return place_slopes(at->cascade, p);
}

/*
 * Groups without a mask: every row sees all keys, wherever it stands. A sink counts once, in the last level. What else the
 * description has, as scales of the cache, each level has too. Keys have the numbers that they have in their sequences.
 */
static fa_attention_desc level_desc(const fa_cascade *c, const fa_attention_desc *desc,
                                    const fa_cascade_level_lists *l)
{
    fa_attention_desc d = fa_parts_desc(desc);
    d.mask = FA_MASK_NONE;
    d.alignment = FA_ALIGN_DEFAULT;
    d.window_left = d.window_right = d.prefix = d.diagonal_offset = 0;
    d.sequences = l->groups;
    d.cu_rows_q = l->cu_rows;
    d.cu_rows_q32 = NULL;
    d.lens_kv = l->end;
    d.lens_kv32 = NULL;
    d.first_kv = l->first;
    d.first_kv32 = NULL;
    d.page_table = fa_tensor_make(FA_I32, l->groups, 1, 1, l->width);
    take_extra(c, l, FA_BIAS, &d.bias);
    if (d.keep_last > 0)
        d.keep = (fa_tensor){.dtype = FA_F32}; /* it says nothing of shared keys */
    d.keep_last = 0;
    take_extra(c, l, FA_KEEP, &d.keep);
    d.dynamic_lengths = 0;
    d.want_status = 0; /* the host has seen these pages */
    d.sinks = NULL;
    return d;
}

/* The lines of a level's groups, each that of its first sequence. */
static fa_status write_table(const fa_cascade *c, fa_queue *queue, int64_t level)
{
    const fa_cascade_level_lists *l = &c->level[level];
    const size_t bytes = (size_t)(c->sequences * l->width) * sizeof(int32_t);
    const int64_t size = c->problem.tensor[FA_K].shape[2];
    int32_t *lines = fa_alloc_zeroed(c->context, bytes);
    if (!lines)
        return FA_OUT_OF_MEMORY;
    for (int64_t g = 0; g < l->groups; g++) {
        const int64_t pages = l->lens[g] / size, from = l->end[g] / size - pages;
        memcpy(lines + l->cu_sequences[g] * l->width + from, l->table + g * l->pages,
               (size_t)pages * sizeof(*lines));
    }
    fa_status status = fa_buffer_write(queue, c->tables, c->table_offset[level], lines, bytes);
    if (status == FA_OK)
        status = fa_queue_wait(queue);
    fa_release(c->context, lines, bytes);
    return status;
}

static fa_status write_tables(const fa_cascade *c, fa_queue *queue)
{
    for (int64_t i = 0; i < c->levels; i++)
        FA_TRY(write_table(c, queue, i));
    const size_t bytes = (size_t)c->sequences * sizeof(int32_t);
    int32_t *first = fa_alloc(c->context, bytes);
    if (!first)
        return FA_OUT_OF_MEMORY;
    for (int64_t n = 0; n < c->sequences; n++)
        first[n] = (int32_t)c->first[n];
    fa_status status = fa_buffer_write(queue, c->tables, c->first_offset, first, bytes);
    fa_release(c->context, first, bytes);
    return status == FA_OK ? fa_queue_wait(queue) : status;
}

static fa_status make_tables(fa_cascade *c)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < c->levels; i++) {
        c->table_offset[i] = bytes;
        if (!fa_grow(&bytes, (size_t)(c->sequences * c->level[i].width), sizeof(int32_t)))
            return fa_fail(FA_OUT_OF_MEMORY, "the page tables of %lld levels overflow memory",
                           (long long)c->levels);
    }
    c->first_offset = bytes;
    fa_queue *queue;
    FA_TRY(fa_buffer_create(c->device, bytes + (size_t)c->sequences * sizeof(int32_t), &c->tables));
    FA_TRY(fa_queue_create(c->device, &queue));
    fa_status status = write_tables(c, queue);
    fa_queue_destroy(queue);
    return status;
}

static fa_status prepare(fa_cascade *c, const fa_attention_desc *desc)
{
    const fa_tensor no_factors = {.shape = {0}};
    fa_plan **last = &c->parts.plan[c->levels];
    c->parts.count = c->levels + 1;
    if (c->levels == 0) {
        FA_TRY(fa_plan_create(c->device, desc, last));
        fa_parts_alone(&c->parts);
        return c->problem.has_first_kv && c->problem.on_device ? make_tables(c) : FA_OK;
    }
    fa_attention_desc rest = fa_parts_desc(desc);
    rest.first_kv = c->first;
    rest.first_kv32 = NULL;
    FA_TRY(fa_plan_create(c->device, &rest, last));
    for (int64_t i = 0; i < c->levels; i++) {
        const fa_attention_desc level = level_desc(c, desc, &c->level[i]);
        const place at = {c, &c->level[i]};
        FA_TRY(fa_plan_create_edited(c->device, &level, place_level, &at, &c->parts.plan[i]));
    }
    FA_TRY(make_tables(c));
    FA_TRY(fa_parts_merged(&c->parts, c->device, desc, &no_factors, 0));
    return c->problem.alibi_slopes ? fa_cascade_shift_make(c) : FA_OK;
}

static fa_status make(const fa_context *context, fa_device *device, const fa_attention_desc *desc,
                      const int32_t *table, fa_cascade **cascade)
{
    fa_attention_desc copy;
    FA_TRY(fa_problem_read_desc(desc, &copy));
    fa_cascade *c = fa_alloc_zeroed(context, sizeof(*c));
    if (!c)
        return FA_OUT_OF_MEMORY;
    c->device = device;
    fa_status status = fa_cascade_find_levels(context, &copy, table, c);
    if (status == FA_OK && device)
        status = prepare(c, &copy);
    if (status == FA_OK)
        *cascade = c;
    else
        fa_cascade_destroy(c);
    return fa_finish(status);
}

fa_status fa_cascade_find(fa_context *context, const fa_attention_desc *desc, const int32_t *page_table,
                          fa_cascade **cascade)
{
    fa_clear_error();
    if (!cascade)
        return fa_fail(FA_INVALID, "cascade is NULL, expected where to store the new cascade");
    *cascade = NULL;
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    return make(context, NULL, desc, page_table, cascade);
}

fa_status fa_cascade_create(fa_device *device, const fa_attention_desc *desc, const int32_t *page_table,
                            fa_cascade **cascade)
{
    fa_clear_error();
    if (!cascade)
        return fa_fail(FA_INVALID, "cascade is NULL, expected where to store the new cascade");
    *cascade = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    return make(device->context, device, desc, page_table, cascade);
}

void fa_cascade_destroy(fa_cascade *c)
{
    if (!c)
        return;
    fa_cascade_shift_release(c);
    fa_parts_release(&c->parts);
    fa_buffer_destroy(c->tables);
    fa_cascade_release_levels(c);
    fa_release(c->context, c, sizeof(*c));
}

size_t fa_cascade_workspace(const fa_cascade *cascade)
{
    return cascade ? cascade->parts.workspace : 0;
}

size_t fa_cascade_work(const fa_cascade *cascade)
{
    return cascade ? fa_plan_work(cascade->parts.plan[cascade->levels]) : 0;
}

static fa_status check_call(const fa_cascade *c, const fa_queue *queue, const void *argument,
                            const char *name)
{
    if (c && !c->device)
        return fa_fail(FA_INVALID,
                       "cascade is one of fa_cascade_find(), expected one of fa_cascade_create()");
    return fa_call_check("cascade", c, c ? c->device : NULL, queue, name, argument);
}

static fa_status check_offset(const fa_cascade *c, const char *name, int64_t n, int64_t offset)
{
    const fa_sequence *s = c->problem.sequence;
    const int64_t expected = n < c->sequences ? s[n].q_row : c->problem.tensor[FA_Q].shape[2];
    if (offset == expected)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected %lld as the cascade was made with", name,
                   (long long)n, (long long)offset, (long long)expected);
}

/* All rows of the sequence still see what it shares. */
static fa_status check_length(const fa_cascade *c, const char *name, int64_t n, int64_t keys)
{
    fa_sequence s = c->problem.sequence[n];
    if (keys < 0 || keys > c->problem.keys)
        return FA_OK; /* which fa_plan_schedule() refuses */
    s.len_kv = (int32_t)FA_MAX(keys - s.first, 0);
    s.mask = fa_mask_of(c->problem.rule, s.len_q, s.len_kv, s.first);
    if (fa_cascade_shared(&c->problem, &s) >= c->first[n])
        return FA_OK;
    return fa_fail(FA_INVALID,
                   "%s[%lld] is %lld, expected so many keys that each row sees the %lld that are shared%s",
                   name, (long long)n, (long long)keys, (long long)c->first[n],
                   c->problem.alibi_slopes ? " and, with ALiBi, stands behind them" : "");
}

/* Whether the last level's sequences begin at keys of their own. */
static bool has_first(const fa_cascade *c)
{
    return c->levels > 0 || c->problem.has_first_kv;
}

static fa_status check_lengths(const fa_cascade *c, const fa_lengths *l)
{
    if (l->sequences != 0 && l->sequences != c->sequences)
        return fa_fail(FA_INVALID, "sequences is %lld, expected 0 or all %lld", (long long)l->sequences,
                       (long long)c->sequences);
    fa_side_lists q, kv;
    FA_TRY(fa_sequences_lists(l, &q, &kv));
    if (fa_index_is_given(&kv.first))
        return fa_fail(FA_INVALID, "%s is given, expected NULL: the cascade has its own", kv.first.name);
    for (int64_t n = 0; n <= c->sequences && fa_index_is_given(&q.cu); n++)
        FA_TRY(check_offset(c, q.cu.name, n, fa_index_at(&q.cu, n)));
    for (int64_t n = 0; n < c->sequences && fa_index_is_given(&kv.lens); n++)
        FA_TRY(check_length(c, kv.lens.name, n, fa_index_at(&kv.lens, n)));
    return FA_OK;
}

fa_status fa_cascade_schedule(const fa_cascade *cascade, fa_queue *queue, const fa_lengths *lengths,
                              fa_buffer *work, size_t work_offset)
{
    fa_clear_error();
    fa_lengths copy;
    FA_TRY(check_call(cascade, queue, lengths, "lengths"));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_LENGTHS_0_1, lengths, "fa_lengths"));
    FA_TRY(check_lengths(cascade, &copy));
    copy.struct_size = sizeof(copy);
    copy.first_kv = has_first(cascade) ? cascade->first : NULL;
    return fa_plan_schedule(cascade->parts.plan[cascade->levels], queue, &copy, work, work_offset);
}

fa_status fa_cascade_schedule_device(const fa_cascade *cascade, fa_queue *queue,
                                     const fa_device_lengths *lengths, fa_buffer *work, size_t work_offset)
{
    fa_clear_error();
    fa_device_lengths copy;
    FA_TRY(check_call(cascade, queue, lengths, "lengths"));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_DEVICE_LENGTHS_0_1, lengths, "fa_device_lengths"));
    if (copy.first_kv)
        return fa_fail(FA_INVALID, "lengths.first_kv is given, expected NULL: the cascade has its own");
    copy.struct_size = sizeof(copy);
    copy.first_kv = has_first(cascade) ? cascade->tables : NULL;
    copy.first_kv_offset = cascade->first_offset;
    return fa_plan_schedule_device(cascade->parts.plan[cascade->levels], queue, &copy, work, work_offset);
}

/* Everything that a run reads and writes, as if it were one of the problem's plan. */
static fa_status check_memory(const fa_cascade *c, const fa_attention_args *a)
{
    fa_binding binding = fa_binding_of(a);
    FA_TRY(fa_binding_share(&c->problem, &binding));
    return fa_binding_check(&binding, c->device, &c->problem, c->parts.workspace,
                            a->work ? fa_plan_work(c->parts.plan[c->levels]) : 0);
}

/* Level i, or the last where i is the number of levels. */
static fa_status run_level(const fa_cascade *c, fa_queue *queue, const fa_attention_args *a, int64_t i)
{
    fa_attention_args level = fa_parts_args(&c->parts, a, i);
    if (i < c->levels) {
        level.page_table = c->tables;
        level.page_table_offset = c->table_offset[i];
        level.work = level.status = NULL;
        level.keep = c->problem.keep_last > 0 ? NULL : a->keep;
    }
    return fa_plan_run(c->parts.plan[i], queue, &level);
}

fa_status fa_cascade_run(const fa_cascade *cascade, fa_queue *queue, const fa_attention_args *args)
{
    fa_clear_error();
    fa_attention_args copy;
    FA_TRY(check_call(cascade, queue, args, "args"));
    if (cascade->levels == 0)
        return fa_plan_run(cascade->parts.plan[cascade->levels], queue, args);
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_ATTENTION_ARGS_0_1, args, "fa_attention_args"));
    FA_TRY(check_memory(cascade, &copy));
    /* The last level first: it alone may refuse what the caller gives, its work and its pages. */
    for (int64_t i = cascade->levels; i >= 0; i--)
        FA_TRY(run_level(cascade, queue, &copy, i));
    FA_TRY(fa_cascade_shift_run(cascade, queue, &copy));
    return fa_parts_merge(&cascade->parts, queue, &copy, NULL, 0);
}
