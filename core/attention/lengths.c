/* SPDX-License-Identifier: Apache-2.0 */
/* The work of other lengths than a plan's own. */
#include "core/attention/sequences.h"
#include "core/backend.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

/* Host memory that a call works in: the queue's scratch, but for `work` where that is written in its place, or where the
 * backend has a stage for it. */
typedef struct room {
    fa_sequence *sequence;
    uint32_t *lists;
    void *schedule, *work;
    size_t used; /* bytes of `work` */
} room;

/* The queue's scratch, of at least so many bytes. What it held is lost where it grows. */
static char *take_scratch(fa_queue *queue, size_t bytes)
{
    const fa_context *context = queue->device->context;
    if (bytes <= queue->scratch_bytes)
        return queue->scratch;
    void *memory = fa_alloc(context, bytes);
    if (!memory)
        return NULL;
    fa_release(context, queue->scratch, queue->scratch_bytes);
    queue->scratch = memory;
    queue->scratch_bytes = bytes;
    return memory;
}

static fa_status make_room(const fa_plan *plan, fa_queue *queue, const fa_buffer *work, size_t offset,
                           room *r)
{
    const fa_backend *backend = plan->device->backend;
    const bool in_place = backend->host_pointers;
    const size_t sequences = (size_t)plan->problem.sequences * sizeof(fa_sequence);
    size_t schedule_at = fa_align64(sequences), end = schedule_at;
    bool fits = fa_grow(&end, fa_schedule_room(&plan->problem, &plan->limits, &plan->capacity), 1);
    const size_t lists_at = fa_align64(end);
    end = lists_at;
    fits = fits && fa_grow(&end, plan->problem.lists.count, sizeof(uint32_t));
    const size_t work_at = fa_align64(end);
    end = work_at;
    fits = fits && fa_grow(&end, in_place || backend->stage ? 0 : plan->layout.bytes, 1);
    char *scratch = take_scratch(queue, fits ? end : SIZE_MAX);
    if (!scratch)
        return FA_OUT_OF_MEMORY;
    *r = (room){
        .sequence = (fa_sequence *)(void *)scratch,
        .lists = (uint32_t *)(void *)(scratch + lists_at),
        .schedule = scratch + schedule_at,
        .work = in_place ? (char *)work->address + offset : scratch + work_at,
    };
    return backend->stage ? backend->stage(queue, plan->layout.bytes, &r->work) : FA_OK;
}

/* Fills r->work. What can fail is done before the first byte is written. */
FA_FLOAT_APART static fa_status make_work(const fa_plan *plan, const fa_lengths *lengths, room *r)
{
    fa_problem problem;
    fa_schedule schedule;
    fa_status status = fa_problem_with_lengths(&plan->problem, lengths, r->sequence, &problem);
    if (status == FA_OK && lengths->lists)
        status = fa_lists_replace(&problem.lists, lengths->lists, r->lists);
    if (status == FA_OK)
        status = fa_kernel_supports(plan->kernel, &problem);
    if (status == FA_OK)
        status = fa_schedule_make(&problem, &plan->limits, &plan->kernel->traits, &plan->tiling,
                                  fa_plan_splits(plan), &plan->capacity, r->schedule, &schedule);
    problem.lists.cut = status == FA_OK && fa_plan_lists_cut(plan, &problem);
    if (status == FA_OK)
        r->used = fa_work_write(plan, &problem, &schedule, r->work);
    return status;
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

static fa_status write_work(fa_queue *queue, fa_buffer *work, size_t offset, const room *r)
{
    const fa_backend *backend = queue->device->backend;
    if (backend->host_pointers)
        return FA_OK; /* it is there */
    return backend->stage ? backend->stage_write(queue, work, offset, r->used)
                          : backend->buffer_write(queue, work, offset, r->work, r->used);
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
    if (status == FA_OK && plan->keeps_rows)
        status = fa_sequences_keep_rows(&copy);
    if (status != FA_OK)
        return status;
    status = make_room(plan, queue, work, work_offset, &r);
    if (status == FA_OK) {
        fa_float_state before = fa_float_enter();
        status = make_work(plan, &copy, &r);
        fa_float_leave(before);
    }
    if (status == FA_OK)
        status = write_work(queue, work, work_offset, &r);
    return fa_finish(status);
}
