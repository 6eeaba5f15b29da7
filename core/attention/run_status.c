/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/run_status.h"

#include <stddef.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/task_words.h"

#include "core/portable/pages.h"

enum { GROUP = 128, LEAST_GROUP = 64 };

#define WORDS(bytes) ((int)((bytes) / sizeof(int32_t)))

_Static_assert(WORDS(sizeof(fa_table_sequence)) == FA_SEQUENCE_WORDS &&
                   WORDS(offsetof(fa_table_sequence, mask.len_kv)) == FA_SEQUENCE_COUNT_WORD &&
                   WORDS(offsetof(fa_table_sequence, mask.diagonal)) == FA_SEQUENCE_DIAGONAL_WORD &&
                   WORDS(offsetof(fa_table_sequence, first)) == FA_SEQUENCE_FIRST_WORD &&
                   WORDS(offsetof(fa_table_sequence, row)) == FA_SEQUENCE_ROW_WORD &&
                   WORDS(offsetof(fa_table_sequence, rows)) == FA_SEQUENCE_ROWS_WORD,
               "entries as task.h has them");
_Static_assert(sizeof(fa_pages_params) % sizeof(fa_pages_keys) == 0 && sizeof(fa_pages_keys) == 8,
               "the list lies behind the parameters");

/* plan->status: of the plan's own lengths, and where runs may have others, of those in their work. */
struct fa_run_status {
    fa_task own, given;
    fa_pages_params *params; /* of `own`, and its list */
    fa_pages_params given_params;
    bool has_own, has_given;
};

static void run_group(const fa_task_view *view, int group)
{
    int shared[FA_TASK_SHARED_INTS] = {0};
    fa_task_view own = *view;
    own.shared = shared;
    fa_pages_group(&own, group, 0, 1);
}

static fa_task task_of(fa_device *device)
{
    return (fa_task){
        .device = device, .kind = FA_TASK_PAGES, .name = "pages", .group = GROUP, .run = run_group};
}

size_t fa_run_status_bytes(const fa_problem *p)
{
    return p->want_status ? (size_t)p->sequences * sizeof(int32_t) : 0;
}

static size_t params_bytes(const fa_problem *p)
{
    return sizeof(fa_pages_params) + (size_t)p->sequences * sizeof(fa_pages_keys);
}

static fa_pages_params params_of(const fa_plan *plan, bool own)
{
    const fa_problem *p = &plan->problem;
    const fa_tensor *k = &p->tensor[FA_K], *table = &p->tensor[FA_PAGES];
    return (fa_pages_params){
        .page_stride = table->stride[0],
        .page_size = (int)k->shape[2],
        .pages = (int)k->shape[0],
        .sequences = (int)p->sequences,
        .entries = (int)table->shape[3],
        .sequences_at = own ? -1 : (int)(plan->layout.sequences / sizeof(fa_table_sequence)),
        .keys_at = sizeof(fa_pages_params) / sizeof(fa_pages_keys),
    };
}

static fa_status prepare(const fa_plan *plan, const void *params, size_t bytes, bool own, fa_task *task,
                         bool *done)
{
    const fa_problem *p = &plan->problem;
    *task = task_of(plan->device);
    task->params = params;
    task->params_bytes = bytes;
    task->operand[FA_PAGES_STATUS] = (fa_task_operand){"status", fa_run_status_bytes(p), true};
    task->operand[FA_PAGES_TABLE] = (fa_task_operand){"page_table", p->span[FA_PAGES], false};
    if (!own)
        task->operand[FA_PAGES_WORK] = (fa_task_operand){"work", plan->layout.bytes, false};
    const fa_status status = fa_task_prepare(task);
    *done = status == FA_OK;
    return status;
}

static fa_status make(fa_plan *plan, struct fa_run_status *s)
{
    const fa_problem *p = &plan->problem;
    s->params = fa_alloc(plan->device->context, params_bytes(p));
    if (!s->params)
        return FA_OUT_OF_MEMORY;
    *s->params = params_of(plan, true);
    fa_pages_keys *keys = (fa_pages_keys *)(void *)(s->params + 1);
    for (int64_t n = 0; n < p->sequences; n++)
        keys[n] = (fa_pages_keys){p->sequence[n].first, p->sequence[n].mask.len_kv};
    FA_TRY(prepare(plan, s->params, params_bytes(p), true, &s->own, &s->has_own));
    s->given_params = params_of(plan, false);
    return p->dynamic
               ? prepare(plan, &s->given_params, sizeof(s->given_params), false, &s->given, &s->has_given)
               : FA_OK;
}

/* Whether the program's loop comes to its end. */
static fa_status check_size(const fa_plan *plan)
{
    const int64_t entries = plan->problem.tensor[FA_PAGES].shape[3];
    const int32_t turns = plan->limits.loop_turns;
    if (turns > 0 && entries / LEAST_GROUP + 64 > turns)
        return fa_fail(
            FA_UNSUPPORTED,
            "want_status is 1: page_table.shape[3] is %lld, but %s ends loops after %d turns: at most "
            "%lld pages are served",
            (long long)entries, plan->device->info.name, turns,
            (long long)FA_MAX(turns - 64, 0) * LEAST_GROUP);
    return FA_OK;
}

fa_status fa_run_status_make(fa_plan *plan)
{
    FA_TRY(check_size(plan));
    plan->status = fa_alloc_zeroed(plan->device->context, sizeof(*plan->status));
    if (!plan->status)
        return FA_OUT_OF_MEMORY;
    const fa_status status = make(plan, plan->status);
    if (status != FA_OK)
        fa_run_status_release(plan);
    return status;
}

void fa_run_status_release(fa_plan *plan)
{
    const fa_context *context = plan->device->context;
    struct fa_run_status *s = plan->status;
    if (s->has_own)
        fa_task_release(&s->own);
    if (s->has_given)
        fa_task_release(&s->given);
    fa_release(context, s->params, params_bytes(&plan->problem));
    fa_release(context, s, sizeof(*s));
    plan->status = NULL;
}

fa_status fa_run_status_write(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    const fa_task_binding task = {
        .buffer = {binding->status, binding->buffer[FA_PAGES], binding->work},
        .offset = {binding->status_offset, binding->offset[FA_PAGES], binding->work_offset},
        .groups = (int32_t)plan->problem.sequences,
    };
    if (!plan->status || task.groups == 0)
        return FA_OK;
    return fa_task_run(binding->work ? &plan->status->given : &plan->status->own, queue, &task);
}

fa_status fa_run_status_compile(fa_device *device)
{
    const fa_pages_params params = {.sequences = 0};
    fa_task task = task_of(device);
    return fa_task_compile(&task, &params, sizeof(params));
}
