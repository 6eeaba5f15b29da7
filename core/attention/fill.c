/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/fill.h"

#include <stddef.h>
#include <string.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"

#include "core/portable/fill.h"

enum { GROUP = 256, LEAST_GROUP = 64, FIRST_LIST = FA_FILL_ROWS, OPERANDS = FA_FILL_FIRST + 1 };

#define WORDS(bytes) ((int)((bytes) / sizeof(int32_t)))

_Static_assert(sizeof(fa_fill_params) % 8 == 0, "std430 rounds its size up");
_Static_assert(offsetof(fa_fill_params, head) == 0, "its words are the first of the parameters");
/* What fill.h writes word by word. */
_Static_assert(
    WORDS(sizeof(fa_table_sequence)) == FA_SEQUENCE_WORDS && WORDS(offsetof(fa_table_sequence, q_at)) == 0 &&
        WORDS(offsetof(fa_table_sequence, k_at)) == 2 && WORDS(offsetof(fa_table_sequence, v_at)) == 4 &&
        WORDS(offsetof(fa_table_sequence, o_at)) == 6 && WORDS(offsetof(fa_table_sequence, lse_at)) == 8 &&
        WORDS(offsetof(fa_table_sequence, number)) == 10 && WORDS(offsetof(fa_table_sequence, mask)) == 11 &&
        WORDS(sizeof(fa_mask)) == 5 && WORDS(offsetof(fa_table_sequence, first)) == 16 &&
        WORDS(offsetof(fa_table_sequence, row)) == 17 && WORDS(offsetof(fa_table_sequence, rows)) == 18 &&
        WORDS(sizeof(fa_table_item)) == FA_FILL_ENTRY_WORDS &&
        WORDS(offsetof(fa_table_item, sequence)) == 2 && WORDS(offsetof(fa_table_item, key_end)) == 7 &&
        WORDS(sizeof(fa_table_merge)) == FA_FILL_ENTRY_WORDS && WORDS(offsetof(fa_table_merge, parts)) == 6,
    "entries as fill.h has them");

/* plan->fill */
struct fa_fill {
    fa_task task;
    fa_fill_params *params; /* and the words between the work's parameters and its sequences */
};

static void run_group(const fa_task_view *view, int group)
{
    int shared[FA_TASK_SHARED_INTS] = {0};
    fa_task_view own = *view;
    own.shared = shared;
    fa_fill_group(&own, group, 0, 1);
}

static int given_lists(const fa_problem *p)
{
    return (p->packed_q ? FA_FILL_PACKED_Q : 0) | (p->packed_kv ? FA_FILL_PACKED_KV : 0) |
           (p->has_lens_q ? FA_FILL_HAS_ROWS : 0) | (p->has_lens_kv ? FA_FILL_HAS_KEYS : 0) |
           (p->has_first_kv ? FA_FILL_HAS_FIRST : 0);
}

static void fill_params(const fa_plan *plan, fa_fill_params *out)
{
    const fa_problem *p = &plan->problem;
    const fa_schedule_rule rule = fa_schedule_rule_of(p, &plan->limits, &plan->kernel->traits, &plan->tiling,
                                                      fa_plan_splits(plan), &plan->capacity);
    memcpy(&out->head, plan->work, sizeof(out->head));
    memcpy(out + 1, (const char *)plan->work + sizeof(out->head), plan->layout.sequences - sizeof(out->head));
    out->rule = p->rule;
    out->lists = given_lists(p);
    out->sequences = (int)p->sequences;
    out->heads_kv = p->heads_kv;
    out->rows_q = (int)FA_MIN(p->tensor[FA_Q].shape[2], INT32_MAX);
    out->rows_kv = (int)FA_MIN(p->tensor[FA_K].shape[2], INT32_MAX);
    out->most_q = fa_problem_most_rows(p);
    out->most_kv = fa_problem_most_keys(p);
    out->block_q = plan->args.block_q;
    out->block_kv = plan->args.block_kv;
    out->most = rule.most;
    out->splits = FA_MIN(p->tuning.splits, fa_tiling_parts(&plan->limits));
    out->items = rule.items;
    out->units = (int)plan->limits.units;
    out->item_cost = (float)rule.item_cost;
    out->part_cost = (float)rule.part_cost;
    out->merge_cost = (float)rule.merge_cost;
    out->launch_cost = (float)rule.launch_cost;
    out->row_lists = p->row_lists;
    out->batch_rows = (int)FA_MIN(p->tensor[FA_Q].shape[2], INT32_MAX);
    out->head_words = WORDS(sizeof(out->head));
    out->words = WORDS(sizeof(*out));
    out->partial_rows_word = WORDS(offsetof(fa_table_params, partial_rows));
    out->items_word = WORDS(offsetof(fa_table_params, items));
    out->merges_word = WORDS(offsetof(fa_table_params, merges));
    out->workers_word = WORDS(offsetof(fa_table_params, workers));
}

static fa_task task_of(fa_device *device)
{
    return (fa_task){
        .device = device, .kind = FA_TASK_FILL, .name = "fill", .group = GROUP, .run = run_group};
}

/* Whether the kernel's loops come to their end, and its numbers hold what they count. */
static fa_status check_size(const fa_plan *plan)
{
    const fa_limits *limits = &plan->limits;
    const int64_t sequences = plan->problem.sequences, items = plan->capacity.items;
    /* Of a work-item: two looks at a sequence with their sums over the group; a search for each item; the words. */
    const int64_t turns =
        (sequences + items) / LEAST_GROUP * 32 + WORDS(plan->layout.sequences) / LEAST_GROUP + 64;
    if (plan->capacity.partial_rows > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED, "dynamic_lengths is 2: %lld rows in parts, at most %d are served",
                       (long long)plan->capacity.partial_rows, INT32_MAX);
    if (limits->loop_turns > 0 && turns > limits->loop_turns)
        return fa_fail(
            FA_UNSUPPORTED,
            "dynamic_lengths is 2: %lld sequences and %lld work items, but %s ends loops after %d turns",
            (long long)sequences, (long long)items, plan->device->info.name, limits->loop_turns);
    return FA_OK;
}

static const char *list_name(const fa_problem *p, int operand)
{
    if (operand == FA_FILL_ROWS)
        return p->packed_q ? "cu_rows_q" : p->has_lens_q ? "lens_q" : NULL;
    if (operand == FA_FILL_KEYS)
        return p->packed_kv ? "cu_rows_kv" : p->has_lens_kv ? "lens_kv" : NULL;
    return p->has_first_kv ? "first_kv" : NULL;
}

/* Packed sides have an offset more than sequences. */
static size_t list_bytes(const fa_problem *p, int operand)
{
    const bool packed = operand == FA_FILL_ROWS ? p->packed_q : operand == FA_FILL_KEYS && p->packed_kv;
    return ((size_t)p->sequences + packed) * sizeof(int32_t);
}

static size_t params_bytes(const fa_plan *plan)
{
    return sizeof(fa_fill_params) + plan->layout.sequences - sizeof(fa_table_params);
}

static fa_status prepare(fa_plan *plan)
{
    const fa_problem *p = &plan->problem;
    struct fa_fill *fill = plan->fill;
    const size_t bytes = params_bytes(plan);
    fill->task = task_of(plan->device);
    fill->task.params_bytes = (bytes + 7) / 8 * 8;
    fill->params = fa_alloc_zeroed(plan->device->context, fill->task.params_bytes);
    if (!fill->params)
        return FA_OUT_OF_MEMORY;
    fill_params(plan, fill->params);
    fill->task.params = fill->params;
    fill->task.operand[FA_FILL_WORK] = (fa_task_operand){"work", plan->layout.bytes, true};
    for (int n = FIRST_LIST; n < OPERANDS; n++) {
        const char *name = list_name(p, n);
        fill->task.operand[n] = (fa_task_operand){name, name ? list_bytes(p, n) : 0, false};
    }
    return fa_task_prepare(&fill->task);
}

static void drop(fa_plan *plan)
{
    const fa_context *context = plan->device->context;
    struct fa_fill *fill = plan->fill;
    fa_release(context, fill->params, fill->task.params_bytes);
    fa_release(context, fill, sizeof(*fill));
    plan->fill = NULL;
}

fa_status fa_fill_make(fa_plan *plan)
{
    FA_TRY(check_size(plan));
    plan->fill = fa_alloc_zeroed(plan->device->context, sizeof(*plan->fill));
    if (!plan->fill)
        return FA_OUT_OF_MEMORY;
    fa_status status = prepare(plan);
    if (status != FA_OK)
        drop(plan);
    return status;
}

void fa_fill_release(fa_plan *plan)
{
    fa_task_release(&plan->fill->task);
    drop(plan);
}

fa_status fa_fill_compile(fa_device *device)
{
    const fa_fill_params params = {.sequences = 0};
    fa_task task = task_of(device);
    return fa_task_compile(&task, &params, sizeof(params));
}

/* A list is given exactly where the description gives one. */
static fa_status take_list(const fa_plan *plan, const char *name, bool wanted, fa_buffer *buffer,
                           size_t offset, int operand, fa_task_binding *binding)
{
    const size_t bytes = list_bytes(&plan->problem, operand);
    if (!wanted && buffer)
        return fa_fail(FA_INVALID, "lengths.%s is given, expected NULL: the description has no %s", name,
                       name);
    if (!wanted || (bytes == 0 && !buffer))
        return FA_OK;
    binding->buffer[operand] = buffer;
    binding->offset[operand] = offset;
    return fa_buffer_check(plan->device, "lengths.", name, buffer, offset, sizeof(int32_t), bytes);
}

static fa_status take_lists(const fa_plan *plan, const fa_device_lengths *l, fa_task_binding *binding)
{
    const fa_problem *p = &plan->problem;
    FA_TRY(
        take_list(plan, "cu_rows_q", p->packed_q, l->cu_rows_q, l->cu_rows_q_offset, FA_FILL_ROWS, binding));
    FA_TRY(take_list(plan, "lens_q", p->has_lens_q, l->lens_q, l->lens_q_offset, FA_FILL_ROWS, binding));
    FA_TRY(take_list(plan, "cu_rows_kv", p->packed_kv, l->cu_rows_kv, l->cu_rows_kv_offset, FA_FILL_KEYS,
                     binding));
    FA_TRY(take_list(plan, "lens_kv", p->has_lens_kv, l->lens_kv, l->lens_kv_offset, FA_FILL_KEYS, binding));
    return take_list(plan, "first_kv", p->has_first_kv, l->first_kv, l->first_kv_offset, FA_FILL_FIRST,
                     binding);
}

fa_status fa_plan_schedule_device(const fa_plan *plan, fa_queue *queue, const fa_device_lengths *lengths,
                                  fa_buffer *work, size_t work_offset)
{
    fa_clear_error();
    fa_device_lengths copy;
    FA_TRY(fa_plan_check_call(plan, queue, lengths, "lengths"));
    if (!plan->fill)
        return fa_fail(FA_INVALID, "the plan's description has dynamic_lengths %d, expected 2",
                       plan->problem.dynamic);
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_DEVICE_LENGTHS_0_1, lengths, "fa_device_lengths"));
    fa_task_binding binding = {.buffer = {work}, .offset = {work_offset}, .groups = 1};
    FA_TRY(fa_work_check(plan->device, "", work, work_offset, plan->layout.bytes));
    FA_TRY(take_lists(plan, &copy, &binding));
    FA_TRY(fa_task_check_overlap(&plan->fill->task, &binding));
    return fa_finish(fa_task_run(&plan->fill->task, queue, &binding));
}
