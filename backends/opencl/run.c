/* SPDX-License-Identifier: Apache-2.0 */
/* Binding buffers to a plan's kernels, and enqueuing them. */
#include "backends/opencl/pipeline.h"
#include "core/status.h"

enum { ALIGNMENT = 16 };

void fa_cl_pass(fa_cl_launch *l, size_t size, const void *value)
{
    if (l->error == CL_SUCCESS)
        l->error = l->cl->clSetKernelArg(l->kernel, l->argument++, size, value);
}

void fa_cl_pass_memory(fa_cl_launch *l, const fa_cl_place *p, int chunks)
{
    for (int i = 0; i < chunks; i++)
        fa_cl_pass(l, sizeof(cl_mem), &p->chunk[i]);
}

static fa_status find_place(const fa_plan *plan, const char *name, const fa_buffer *buffer, size_t offset,
                            size_t span, size_t element, fa_cl_place *out)
{
    const fa_cl_plan *prepared = plan->impl;
    *out = (fa_cl_place){.at = 0};
    if (!buffer || span == 0)
        return FA_OK;
    const fa_cl_buffer *b = buffer->impl;
    size_t begin = b->origin + offset, end = begin + span;
    size_t first = begin / b->chunk_bytes, last = (end - 1) / b->chunk_bytes;
    if (last - first >= (size_t)prepared->chunks)
        return fa_fail(
            FA_UNSUPPORTED,
            "args.%s lies across byte %zu of its buffer, where one of the device's allocations ends: "
            "expected an operand of less than %zu bytes to lie within one",
            name, (first + 1) * b->chunk_bytes, b->chunk_bytes);
    if (prepared->chunks > 1 && b->chunks == 1 &&
        end > (size_t)1 << fa_cl_chunk_shift(&fa_cl_device_of(plan->device)->caps))
        return fa_fail(FA_UNSUPPORTED,
                       "args.%s: a wrapped cl_mem of more than the %zu bytes that the device allocates", name,
                       (size_t)1 << fa_cl_chunk_shift(&fa_cl_device_of(plan->device)->caps));
    for (int i = 0; i < prepared->chunks; i++)
        out->chunk[i] = b->chunk[first + (size_t)i <= last ? first + (size_t)i : last];
    out->at = (cl_long)((begin - first * b->chunk_bytes) / element);
    return FA_OK;
}

static fa_status find_places(const fa_plan *plan, const fa_binding *binding, fa_cl_place out[FA_CL_PLACES])
{
    for (int t = 0; t < FA_OPERANDS; t++) {
        fa_status status =
            find_place(plan, fa_operand_names[t], binding->buffer[t], binding->offset[t],
                       plan->problem.span[t], fa_dtype_size(plan->problem.tensor[t].dtype), &out[t]);
        if (status != FA_OK)
            return status;
    }
    return find_place(plan, "workspace", binding->workspace, binding->workspace_offset, plan->workspace,
                      sizeof(float), &out[FA_CL_WORKSPACE]);
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

fa_status fa_cl_enqueue(const fa_cl_launch *l, cl_command_queue queue, int64_t groups, size_t lines,
                        size_t group, cl_event *event)
{
    if (l->error != CL_SUCCESS)
        return fa_cl_fail(l->error, "clSetKernelArg");
    const size_t global[2] = {(size_t)groups * group, lines}, local[2] = {group, 1};
    cl_int error = l->cl->clEnqueueNDRangeKernel(queue, l->kernel, 2, NULL, global, local, 0, NULL, event);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clEnqueueNDRangeKernel");
}

/* The attention kernel's arguments, as all of them have them. */
static fa_status start_attention(const fa_plan *plan, fa_cl_queue *queue,
                                 const fa_cl_place where[FA_CL_PLACES], bool aligned, cl_event *event)
{
    const fa_cl_plan *prepared = plan->impl;
    fa_cl_launch l = {.cl = fa_cl_device_of(plan->device)->cl,
                      .kernel = prepared->attention[aligned && prepared->attention[1]]};
    const fa_cl_place *partial = &where[FA_CL_WORKSPACE];
    cl_long partial_at = partial->at + (cl_long)(plan->partial_offset / sizeof(float));
    cl_long partial_lse_at = partial->at + (cl_long)(plan->partial_lse_offset / sizeof(float));
    fa_cl_pass(&l, sizeof(cl_mem), &prepared->table);
    for (int t = 0; t < FA_CL_PLACES; t++)
        fa_cl_pass_memory(&l, &where[t], prepared->chunks);
    for (int t = 0; t < FA_OPERANDS; t++)
        fa_cl_pass(&l, sizeof(cl_long), &where[t].at);
    fa_cl_pass(&l, sizeof(cl_long), &partial_at);
    fa_cl_pass(&l, sizeof(cl_long), &partial_lse_at);
    fa_cl_pass(&l, prepared->local_bytes, NULL);
    return fa_cl_enqueue(&l, queue->handle, plan->schedule.items, 1, prepared->group, event);
}

static fa_status start_merge(const fa_plan *plan, fa_cl_queue *queue, const fa_cl_place where[FA_CL_PLACES],
                             cl_event *event)
{
    const fa_cl_plan *prepared = plan->impl;
    fa_cl_launch l = {.cl = fa_cl_device_of(plan->device)->cl, .kernel = prepared->merge};
    const fa_cl_place *partial = &where[FA_CL_WORKSPACE];
    cl_long partial_at = partial->at + (cl_long)(plan->partial_offset / sizeof(float));
    cl_long partial_lse_at = partial->at + (cl_long)(plan->partial_lse_offset / sizeof(float));
    fa_cl_pass(&l, sizeof(cl_mem), &prepared->table);
    fa_cl_pass_memory(&l, &where[FA_O], prepared->chunks);
    fa_cl_pass_memory(&l, &where[FA_LSE], prepared->chunks);
    fa_cl_pass_memory(&l, partial, prepared->chunks);
    fa_cl_pass(&l, sizeof(cl_long), &where[FA_O].at);
    fa_cl_pass(&l, sizeof(cl_long), &where[FA_LSE].at);
    fa_cl_pass(&l, sizeof(cl_long), &partial_at);
    fa_cl_pass(&l, sizeof(cl_long), &partial_lse_at);
    return fa_cl_enqueue(&l, queue->handle, plan->schedule.merges, (size_t)plan->args.block_q,
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
    return status;
}

fa_status fa_cl_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    fa_cl_plan *prepared = plan->impl;
    fa_cl_queue *q = queue->impl;
    const fa_cl *cl = fa_cl_device_of(plan->device)->cl;
    fa_cl_place where[FA_CL_PLACES];
    fa_status status = find_places(plan, binding, where);
    if (status == FA_OK)
        status = synchronise(queue, binding, false);
    if (status != FA_OK)
        return status;
    cl_event first = NULL, last = NULL;
    (void)pthread_mutex_lock(&prepared->lock);
    if (prepared->standard.softmax)
        status = fa_cl_standard_run(plan, q, where, is_aligned(binding), q->timed ? &first : NULL,
                                    q->timed ? &last : NULL);
    else
        status = start_attention(plan, q, where, is_aligned(binding), q->timed ? &first : NULL);
    if (status == FA_OK && prepared->merge)
        status = start_merge(plan, q, where, q->timed ? &last : NULL);
    (void)pthread_mutex_unlock(&prepared->lock);
    fa_cl_queue_keep(queue, first, last ? last : first);
    if (status == FA_OK)
        status = synchronise(queue, binding, true);
    if (status != FA_OK)
        return status;
    cl_int error = cl->clFlush(q->handle);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clFlush");
}
