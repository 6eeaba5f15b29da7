/* SPDX-License-Identifier: Apache-2.0 */
/* Binding buffers to a plan's kernels, and enqueuing them. */
#include "backends/opencl/plan.h"
#include "core/status.h"

enum { ALIGNMENT = 16 };

static fa_cl_operand operand_of(const fa_plan *plan, const fa_binding *binding, int place)
{
    if (place == FA_CL_WORKSPACE)
        return (fa_cl_operand){"workspace", binding->workspace, binding->workspace_offset, plan->workspace,
                               sizeof(float)};
    if (place == FA_CL_WORK)
        return (fa_cl_operand){"work", binding->work, binding->work_offset, plan->layout.bytes, 1};
    const fa_dtype dtype = plan->problem.tensor[place].dtype;
    return (fa_cl_operand){fa_operands[place].name, binding->buffer[place], binding->offset[place],
                           plan->problem.span[place],
                           FA_TYPE_IS_CODED((int)dtype) || fa_cl_is_scale(place) ? 1 : fa_dtype_size(dtype)};
}

/* OpenCL knows nothing of two cl_mem that wrap the same bytes of the host: what one writes the other overwrites. */
static fa_status check_wraps(const fa_plan *plan, const fa_binding *binding)
{
    static const int written[] = {FA_O, FA_LSE, FA_CL_WORKSPACE};
    for (size_t w = 0; w < sizeof(written) / sizeof(written[0]); w++) {
        const fa_cl_operand out = operand_of(plan, binding, written[w]);
        for (int t = 0; out.buffer && t <= FA_CL_WORK; t++) {
            const fa_cl_operand other = operand_of(plan, binding, t);
            if (other.buffer && fa_cl_wrap_same(out.buffer, other.buffer))
                return fa_fail(
                    FA_INVALID,
                    "args.%s and args.%s lie in two buffers that wrap the same host memory, expected one "
                    "buffer, and offsets",
                    out.name, other.name);
        }
    }
    return FA_OK;
}

fa_status fa_cl_work_check(const fa_buffer *buffer, size_t offset, size_t size)
{
    const fa_cl_operand work = {"work", buffer, offset, size, 1};
    if (!fa_cl_crosses(&work))
        return FA_OK;
    return fa_fail(FA_UNSUPPORTED,
                   "work lies across the end of one of the device's allocations, of which its buffer has "
                   "several: give it a smaller buffer");
}

/* Where everything lies, and the kernels for operands that lie so. The lock is held. */
static fa_status find_places(const fa_plan *plan, const fa_binding *binding, fa_cl_place out[FA_CL_PLACES],
                             const fa_cl_kernels **kernels)
{
    fa_cl_plan *prepared = plan->impl;
    *kernels = &prepared->usual;
    for (int t = 0; t < FA_CL_PLACES; t++) {
        const fa_cl_operand o = operand_of(plan, binding, t);
        if (fa_cl_is_scale(t) && fa_cl_crosses(&o))
            return fa_fail(FA_UNSUPPORTED,
                           "args.%s lies across the end of one of the device's allocations, of which its "
                           "buffer has several: give it a smaller buffer",
                           o.name);
    }
    for (int t = 0; t < FA_CL_PLACES; t++) {
        const fa_cl_operand o = operand_of(plan, binding, t);
        if (prepared->usual.chunks > 1 || !fa_cl_crosses(&o))
            continue;
        if (prepared->crossing.chunks == 0) {
            fa_status status = fa_cl_kernels_make(plan, FA_CL_FEW_CHUNKS, &prepared->crossing);
            if (status != FA_OK)
                return status;
        }
        *kernels = &prepared->crossing;
        break;
    }
    for (int t = 0; t < FA_CL_PLACES; t++) {
        const fa_cl_operand o = operand_of(plan, binding, t);
        out[t] = fa_cl_find_place(&o, fa_cl_is_scale(t) ? 1 : (*kernels)->chunks);
    }
    return FA_OK;
}

/* Whether q, k, v and o begin at multiples of 16 bytes, in their buffers and where those lie. */
static bool is_aligned(const fa_binding *binding)
{
    for (int t = FA_Q; t <= FA_O; t++) {
        if (binding->buffer[t] &&
            ((uintptr_t)binding->buffer[t]->address | binding->offset[t]) % ALIGNMENT != 0)
            return false;
    }
    return true;
}

/* The memory of a run's work, and where it begins there. */
static void pass_work(fa_cl_launch *l, const fa_plan *plan, const fa_binding *binding)
{
    const fa_cl_plan *prepared = plan->impl;
    const fa_cl_operand work = operand_of(plan, binding, FA_CL_WORK);
    fa_cl_place place = {.chunk = {prepared->work}};
    if (binding->work)
        place = fa_cl_find_place(&work, 1);
    fa_cl_pass(l, sizeof(cl_mem), &place.chunk[0]);
    fa_cl_pass(l, sizeof(cl_long), &place.at);
}

static void pass_scales(fa_cl_launch *l, const fa_cl_place where[FA_CL_PLACES])
{
    static const int scales[] = {FA_K_SCALE, FA_V_SCALE, FA_K_ZERO, FA_V_ZERO};
    for (size_t i = 0; i < sizeof(scales) / sizeof(scales[0]); i++)
        fa_cl_pass_memory(l, &where[scales[i]], 1);
    for (size_t i = 0; i < sizeof(scales) / sizeof(scales[0]); i++)
        fa_cl_pass(l, sizeof(cl_long), &where[scales[i]].at);
}

/* The attention kernel's arguments, as all of them have them. */
static fa_status start_attention(const fa_plan *plan, const fa_cl_kernels *kernels, fa_cl_queue *queue,
                                 const fa_binding *binding, const fa_cl_place where[FA_CL_PLACES],
                                 cl_event *event)
{
    const fa_cl_plan *prepared = plan->impl;
    const bool aligned = is_aligned(binding);
    fa_cl_launch l = {.cl = fa_cl_device_of(plan->device)->cl,
                      .kernel = kernels->attention[aligned && kernels->attention[1]]};
    const fa_cl_place *partial = &where[FA_CL_WORKSPACE];
    cl_long partial_at = partial->at + (cl_long)(plan->partial_offset / sizeof(float));
    cl_long partial_state_at = partial->at + (cl_long)(plan->partial_state_offset / sizeof(float));
    pass_work(&l, plan, binding);
    for (int t = 0; t < FA_CL_PLACES; t++) {
        if (!fa_cl_is_scale(t))
            fa_cl_pass_memory(&l, &where[t], kernels->chunks);
    }
    for (int t = 0; t < FA_OPERANDS; t++) {
        if (!fa_cl_is_scale(t))
            fa_cl_pass(&l, sizeof(cl_long), &where[t].at);
    }
    fa_cl_pass(&l, sizeof(cl_long), &partial_at);
    fa_cl_pass(&l, sizeof(cl_long), &partial_state_at);
    if (plan->problem.features & FA_FEATURE_SCALES)
        pass_scales(&l, where);
    fa_cl_pass(&l, prepared->local_bytes, NULL);
    return fa_cl_enqueue(&l, queue->handle, fa_run_items(plan, binding), 1, prepared->group, event);
}

static fa_status start_merge(const fa_plan *plan, const fa_cl_kernels *kernels, fa_cl_queue *queue,
                             const fa_binding *binding, const fa_cl_place where[FA_CL_PLACES],
                             cl_event *event)
{
    const fa_cl_plan *prepared = plan->impl;
    fa_cl_launch l = {.cl = fa_cl_device_of(plan->device)->cl, .kernel = kernels->merge};
    const fa_cl_place *partial = &where[FA_CL_WORKSPACE];
    cl_long partial_at = partial->at + (cl_long)(plan->partial_offset / sizeof(float));
    cl_long partial_state_at = partial->at + (cl_long)(plan->partial_state_offset / sizeof(float));
    pass_work(&l, plan, binding);
    fa_cl_pass_memory(&l, &where[FA_O], kernels->chunks);
    fa_cl_pass_memory(&l, &where[FA_LSE], kernels->chunks);
    fa_cl_pass_memory(&l, partial, kernels->chunks);
    fa_cl_pass(&l, sizeof(cl_long), &where[FA_O].at);
    fa_cl_pass(&l, sizeof(cl_long), &where[FA_LSE].at);
    fa_cl_pass(&l, sizeof(cl_long), &partial_at);
    fa_cl_pass(&l, sizeof(cl_long), &partial_state_at);
    return fa_cl_enqueue(&l, queue->handle, fa_run_merges(plan, binding), (size_t)plan->args.block_q,
                         prepared->merge_group, event);
}

/* Before the run, all of the caller's host memory is brought to the device; after it, what was written comes back. */
static fa_status synchronise(fa_queue *queue, const fa_binding *binding, bool to_host)
{
    fa_status status = FA_OK;
    for (int t = 0; t < FA_OPERANDS && status == FA_OK; t++) {
        bool written = t == FA_O || t == FA_LSE;
        if (binding->buffer[t] && (!to_host || written))
            status = fa_cl_buffer_sync(queue, binding->buffer[t], !to_host, to_host);
    }
    if (status == FA_OK && binding->workspace && !to_host)
        status = fa_cl_buffer_sync(queue, binding->workspace, true, false);
    if (status == FA_OK && binding->work && !to_host)
        status = fa_cl_buffer_sync(queue, binding->work, true, false);
    return status;
}

fa_status fa_cl_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    fa_cl_plan *prepared = plan->impl;
    fa_cl_queue *q = queue->impl;
    const fa_cl *cl = fa_cl_device_of(plan->device)->cl;
    fa_cl_place where[FA_CL_PLACES];
    const fa_cl_kernels *kernels;
    cl_event first = NULL, last = NULL;
    (void)pthread_mutex_lock(&prepared->lock);
    fa_status status = check_wraps(plan, binding);
    if (status == FA_OK)
        status = find_places(plan, binding, where, &kernels);
    if (status == FA_OK)
        status = synchronise(queue, binding, false);
    if (status != FA_OK) {
        (void)pthread_mutex_unlock(&prepared->lock);
        return status;
    }
    status = start_attention(plan, kernels, q, binding, where, q->timed ? &first : NULL);
    if (status == FA_OK && fa_run_merges(plan, binding) > 0)
        status = start_merge(plan, kernels, q, binding, where, q->timed ? &last : NULL);
    (void)pthread_mutex_unlock(&prepared->lock);
    fa_cl_queue_keep(queue, first, last ? last : first);
    if (status == FA_OK)
        status = synchronise(queue, binding, true);
    if (status != FA_OK)
        return status;
    cl_int error = cl->clFlush(q->handle);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clFlush");
}
