/* SPDX-License-Identifier: Apache-2.0 */
/* The work of other lengths than a plan's own. */
#include "core/backend.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

/* Host memory that a call works in. */
typedef struct room {
    fa_sequence *sequence;
    void *work;
    size_t used; /* bytes of `work` */
} room;

static fa_status make_room(const fa_plan *plan, room *r)
{
    const fa_context *context = plan->device->context;
    r->sequence = fa_alloc(context, (size_t)plan->problem.sequences * sizeof(fa_sequence));
    r->work = fa_alloc(context, plan->layout.bytes);
    return r->sequence && r->work ? FA_OK : FA_OUT_OF_MEMORY;
}

static void release_room(const fa_plan *plan, const room *r)
{
    const fa_context *context = plan->device->context;
    fa_release(context, r->sequence, (size_t)plan->problem.sequences * sizeof(fa_sequence));
    fa_release(context, r->work, plan->layout.bytes);
}

/* Fills r->work. */
FA_FLOAT_APART static fa_status make_work(const fa_plan *plan, const fa_lengths *lengths, room *r)
{
    const fa_context *context = plan->device->context;
    fa_problem problem;
    fa_schedule schedule;
    fa_status status = fa_problem_with_lengths(&plan->problem, lengths, r->sequence, &problem);
    if (status == FA_OK)
        status = fa_kernel_supports(plan->kernel, &problem);
    if (status == FA_OK)
        status = fa_schedule_init(context, &problem, &plan->limits, &plan->kernel->traits, &plan->tiling,
                                  fa_plan_splits(plan), &plan->capacity, &schedule);
    if (status != FA_OK)
        return status;
    r->used = fa_work_write(plan, &problem, &schedule, r->work);
    fa_schedule_release(context, &schedule);
    return FA_OK;
}

static fa_status check_call(const fa_plan *plan, const fa_queue *queue, const fa_lengths *lengths,
                            const fa_buffer *work, size_t offset)
{
    fa_status status = fa_plan_check_call(plan, queue, lengths, "lengths");
    if (status != FA_OK)
        return status;
    if (!plan->problem.dynamic)
        return fa_fail(FA_INVALID, "the plan's description has dynamic_lengths 0, expected 1");
    return fa_work_check(plan->device, "", work, offset, plan->layout.bytes);
}

fa_status fa_plan_schedule(const fa_plan *plan, fa_queue *queue, const fa_lengths *lengths, fa_buffer *work,
                           size_t work_offset)
{
    fa_clear_error();
    fa_lengths copy;
    room r = {.used = 0};
    fa_status status = check_call(plan, queue, lengths, work, work_offset);
    if (status == FA_OK)
        status = fa_copy_struct(&copy, sizeof(copy), FA_LENGTHS_0_1, lengths, "fa_lengths");
    if (status != FA_OK)
        return status;
    status = make_room(plan, &r);
    if (status == FA_OK) {
        fa_float_state before = fa_float_enter();
        status = make_work(plan, &copy, &r);
        fa_float_leave(before);
    }
    if (status == FA_OK)
        status = plan->device->backend->buffer_write(queue, work, work_offset, r.work, r.used);
    release_room(plan, &r);
    return fa_finish(status);
}
