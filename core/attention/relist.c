/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/relist.h"

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"

#include "core/portable/relist.h"

enum { GROUP = 64 };

/* plan->relist */
struct fa_relist {
    fa_task task;
    fa_relist_params params;
};

static void run_group(const fa_task_view *view, int group)
{
    fa_relist_group(view, group, 0, 1);
}

static fa_task task_of(fa_device *device)
{
    return (fa_task){
        .device = device, .kind = FA_TASK_RELIST, .name = "relist", .group = GROUP, .run = run_group};
}

/* Whether the program's loops come to their end: a list may have all indices that there are. */
static fa_status check_size(const fa_plan *plan)
{
    const int32_t turns = plan->limits.loop_turns, count = plan->problem.lists.index_count;
    const int64_t most = (int64_t)count + 64 * FA_RELIST_SHARE / GROUP;
    if (turns > 0 && most > turns)
        return fa_fail(FA_UNSUPPORTED,
                       "dynamic_lengths is 2: lists->index_count is %d, but %s ends loops after %d turns",
                       count, plan->device->info.name, turns);
    return FA_OK;
}

static fa_status prepare(const fa_plan *plan, struct fa_relist *r)
{
    const fa_lists *l = &plan->problem.lists;
    const size_t lists = l->count / (size_t)l->words;
    const bool rows = l->index_count > 0;
    r->params = (fa_relist_params){
        .lists = (int)lists,
        .words = l->words,
        .key_blocks = (int)l->key_blocks,
        .at = (int)(plan->layout.lists / sizeof(uint32_t)),
        .count = l->index_count,
    };
    r->task = task_of(plan->device);
    r->task.params = &r->params;
    r->task.params_bytes = sizeof(r->params);
    r->task.operand[FA_RELIST_WORK] = (fa_task_operand){"work", plan->layout.bytes, true};
    if (!rows)
        r->task.operand[FA_RELIST_MASK] = (fa_task_operand){"mask", lists * (size_t)l->key_blocks, false};
    if (rows) {
        r->task.operand[FA_RELIST_INDPTR] = (fa_task_operand){"indptr", (lists + 1) * sizeof(int32_t), false};
        r->task.operand[FA_RELIST_INDICES] =
            (fa_task_operand){"indices", (size_t)l->index_count * sizeof(int32_t), false};
    }
    return fa_task_prepare(&r->task);
}

static void drop(fa_plan *plan)
{
    fa_release(plan->device->context, plan->relist, sizeof(*plan->relist));
    plan->relist = NULL;
}

fa_status fa_relist_make(fa_plan *plan)
{
    FA_TRY(check_size(plan));
    plan->relist = fa_alloc_zeroed(plan->device->context, sizeof(*plan->relist));
    if (!plan->relist)
        return FA_OUT_OF_MEMORY;
    const fa_status status = prepare(plan, plan->relist);
    if (status != FA_OK)
        drop(plan);
    return status;
}

void fa_relist_release(fa_plan *plan)
{
    fa_task_release(&plan->relist->task);
    drop(plan);
}

fa_status fa_relist_compile(fa_device *device)
{
    const fa_relist_params params = {.lists = 0};
    fa_task task = task_of(device);
    return fa_task_compile(&task, &params, sizeof(params));
}

/* An operand is given exactly where the task has one. */
static fa_status take(const fa_plan *plan, int n, const char *name, fa_buffer *buffer, size_t offset,
                      fa_task_binding *binding)
{
    const fa_task_operand *o = &plan->relist->task.operand[n];
    if (!o->name && buffer)
        return fa_fail(FA_INVALID,
                       "lists.%s is given, expected NULL: the description's lists have index_count %d", name,
                       plan->problem.lists.index_count);
    if (!o->name || (o->span == 0 && !buffer))
        return FA_OK;
    binding->buffer[n] = buffer;
    binding->offset[n] = offset;
    return fa_buffer_check(plan->device, "lists.", name, buffer, offset,
                           n == FA_RELIST_MASK ? 1 : sizeof(int32_t), o->span);
}

fa_status fa_plan_schedule_lists(const fa_plan *plan, fa_queue *queue, const fa_device_lists *lists,
                                 fa_buffer *work, size_t work_offset)
{
    fa_clear_error();
    fa_device_lists l;
    FA_TRY(fa_plan_check_call(plan, queue, lists, "lists"));
    if (!plan->problem.lists.given || !plan->problem.on_device)
        return fa_fail(FA_INVALID, "the plan's description has %s, expected lists with dynamic_lengths 2",
                       plan->problem.lists.given ? "lists without dynamic_lengths 2" : "no lists");
    FA_TRY(fa_copy_struct(&l, sizeof(l), FA_DEVICE_LISTS_0_1, lists, "fa_device_lists"));
    if (!plan->relist) /* there are no rows, or no keys */
        return fa_finish(FA_OK);
    const int64_t words = (int64_t)plan->problem.lists.count;
    fa_task_binding binding = {.buffer = {work},
                               .offset = {work_offset},
                               .groups = (int32_t)fa_ceil_div(FA_MAX(words, 1), FA_RELIST_SHARE)};
    FA_TRY(fa_work_check(plan->device, "", work, work_offset, plan->layout.bytes));
    if (plan->device->backend->host_pointers)
        FA_TRY(fa_plan_check_work(plan, (const char *)work->address + work_offset, "work"));
    FA_TRY(take(plan, FA_RELIST_MASK, "mask", l.mask, l.mask_offset, &binding));
    FA_TRY(take(plan, FA_RELIST_INDPTR, "indptr", l.indptr, l.indptr_offset, &binding));
    FA_TRY(take(plan, FA_RELIST_INDICES, "indices", l.indices, l.indices_offset, &binding));
    FA_TRY(fa_task_check_overlap(&plan->relist->task, &binding));
    return fa_finish(fa_task_run(&plan->relist->task, queue, &binding));
}
