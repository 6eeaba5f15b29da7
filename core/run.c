/* SPDX-License-Identifier: Apache-2.0 */
/* Binding buffers to a plan: every check of a run, made once for all backends. */
#include <string.h>

#include "backends/backend.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/status.h"
#include "core/structs.h"

typedef struct byte_range {
    const char *name;
    const void *storage;
    uintptr_t begin, end;
    bool written;
} byte_range;

static fa_status check_buffer(const fa_plan *plan, const char *name, const fa_buffer *buffer, size_t offset,
                              size_t alignment, size_t span)
{
    if (!buffer)
        return fa_fail(FA_INVALID, "args.%s is NULL, expected a buffer of at least %zu bytes", name, span);
    if (buffer->device != plan->device)
        return fa_fail(FA_INVALID, "args.%s belongs to another device, %s", name, buffer->device->info.name);
    if (offset % alignment != 0)
        return fa_fail(FA_INVALID, "args.%s_offset is %zu, expected a multiple of %zu", name, offset,
                       alignment);
    if (((uintptr_t)buffer->address + offset) % (alignment < 64 ? alignment : 1) != 0)
        return fa_fail(FA_INVALID, "args.%s lies at address %p, expected a multiple of %zu", name,
                       buffer->address, alignment);
    if (offset > buffer->size || span > buffer->size - offset)
        return fa_fail(FA_INVALID, "args.%s has %zu bytes behind offset %zu, expected at least %zu", name,
                       offset > buffer->size ? 0 : buffer->size - offset, offset, span);
    return FA_OK;
}

static byte_range range_of(const char *name, const fa_buffer *buffer, size_t offset, size_t span,
                           bool written)
{
    uintptr_t begin = (uintptr_t)buffer->address + offset; /* a device's may begin at 0 */
    return (byte_range){name, buffer->storage, begin, begin + span, written};
}

/* What is written may share no byte with anything else. */
static fa_status check_overlap(const byte_range *range, int count)
{
    for (int w = 0; w < count; w++) {
        for (int r = 0; range[w].written && r < count; r++) {
            if (r != w && range[w].storage == range[r].storage && range[w].begin < range[r].end &&
                range[r].begin < range[w].end)
                return fa_fail(FA_INVALID, "args.%s overlaps args.%s by %zu bytes", range[w].name,
                               range[r].name,
                               (size_t)((range[w].end < range[r].end ? range[w].end : range[r].end) -
                                        (range[w].begin > range[r].begin ? range[w].begin : range[r].begin)));
        }
    }
    return FA_OK;
}

static fa_status bind(const fa_plan *plan, const fa_attention_args *args, fa_binding *binding)
{
    const fa_problem *p = &plan->problem;
    *binding = (fa_binding){
        .buffer = {args->q, args->k, args->v, args->o, args->bias, args->keep, args->lse},
        .offset = {args->q_offset, args->k_offset, args->v_offset, args->o_offset, args->bias_offset,
                   args->keep_offset, args->lse_offset},
        .workspace = args->workspace,
        .workspace_offset = args->workspace_offset,
    };
    const bool wanted[FA_OPERANDS] = {true,
                                      true,
                                      true,
                                      true,
                                      p->features & FA_FEATURE_BIAS,
                                      p->features & FA_FEATURE_KEEP,
                                      p->features & FA_FEATURE_LSE};
    byte_range range[FA_OPERANDS + 1];
    int ranges = 0;
    for (int t = 0; t < FA_OPERANDS; t++) {
        const char *name = fa_operand_names[t];
        if (!wanted[t] && binding->buffer[t])
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL: the description has no %s", name,
                           name);
        if (!wanted[t] || (p->span[t] == 0 && !binding->buffer[t]))
            continue;
        fa_status status = check_buffer(plan, name, binding->buffer[t], binding->offset[t],
                                        fa_dtype_size(p->tensor[t].dtype), p->span[t]);
        if (status != FA_OK)
            return status;
        if (p->span[t] > 0) /* nothing overlaps an empty range */
            range[ranges++] = range_of(name, binding->buffer[t], binding->offset[t], p->span[t],
                                       t == FA_O || t == FA_LSE);
    }
    if (plan->workspace > 0) {
        fa_status status =
            check_buffer(plan, "workspace", args->workspace, args->workspace_offset, 64, plan->workspace);
        if (status != FA_OK)
            return status;
        range[ranges++] =
            range_of("workspace", args->workspace, args->workspace_offset, plan->workspace, true);
    }
    return check_overlap(range, ranges);
}

fa_status fa_plan_run(const fa_plan *plan, fa_queue *queue, const fa_attention_args *args)
{
    fa_clear_error();
    if (!plan || !queue || !args)
        return fa_fail(FA_INVALID, "%s is NULL", !plan ? "plan" : !queue ? "queue" : "args");
    if (queue->device != plan->device)
        return fa_fail(FA_INVALID, "queue belongs to device %s, the plan to %s", queue->device->info.name,
                       plan->device->info.name);
    fa_attention_args copy;
    fa_status status = fa_copy_struct(&copy, sizeof(copy), FA_ATTENTION_ARGS_0_1, args, "fa_attention_args");
    if (status != FA_OK)
        return status;
    fa_binding binding;
    status = bind(plan, &copy, &binding);
    if (status != FA_OK || plan->schedule.items == 0)
        return status;
    return fa_finish(plan->device->backend->plan_run(plan, queue, &binding));
}

/* Host memory as device buffers: in place where the device can, copied in and out where not. */
typedef struct host_run {
    fa_device *device;
    fa_plan *plan;
    fa_queue *queue;
    fa_buffer *buffer[FA_OPERANDS];
    fa_buffer *workspace;
} host_run;

static void host_release(host_run *run)
{
    for (int t = 0; t < FA_OPERANDS; t++)
        fa_buffer_destroy(run->buffer[t]);
    fa_buffer_destroy(run->workspace);
    fa_queue_destroy(run->queue);
    fa_plan_destroy(run->plan);
}

static fa_status host_operand(host_run *run, int t, void *memory)
{
    size_t span = run->plan->problem.span[t];
    if (!memory) {
        /* Absent, or empty; a run without memory that the description asks for is refused by bind(). */
        return FA_OK;
    }
    if (run->device->info.host_memory)
        return fa_buffer_wrap_host(run->device, memory, span, &run->buffer[t]);
    fa_status status = fa_buffer_create(run->device, span, &run->buffer[t]);
    /* Outputs travel too: gaps between their rows are the caller's and come back unchanged. */
    return status == FA_OK ? fa_buffer_write(run->queue, run->buffer[t], 0, memory, span) : status;
}

static fa_status host_execute(host_run *run, const fa_attention_desc *desc, void *const memory[FA_OPERANDS])
{
    fa_status status = fa_plan_create(run->device, desc, &run->plan);
    if (status == FA_OK)
        status = fa_queue_create(run->device, &run->queue);
    for (int t = 0; t < FA_OPERANDS && status == FA_OK; t++)
        status = host_operand(run, t, memory[t]);
    if (status == FA_OK && run->plan->workspace > 0)
        status = fa_buffer_create(run->device, run->plan->workspace, &run->workspace);
    if (status != FA_OK)
        return status;
    fa_attention_args args = {
        .struct_size = sizeof(args),
        .q = run->buffer[FA_Q],
        .k = run->buffer[FA_K],
        .v = run->buffer[FA_V],
        .o = run->buffer[FA_O],
        .bias = run->buffer[FA_BIAS],
        .keep = run->buffer[FA_KEEP],
        .lse = run->buffer[FA_LSE],
        .workspace = run->workspace,
    };
    status = fa_plan_run(run->plan, run->queue, &args);
    if (status == FA_OK)
        status = fa_queue_wait(run->queue);
    for (int t = FA_O; t < FA_OPERANDS && status == FA_OK && !run->device->info.host_memory; t++) {
        if ((t == FA_O || t == FA_LSE) && run->buffer[t])
            status = fa_buffer_read(run->queue, run->buffer[t], 0, memory[t], run->plan->problem.span[t]);
    }
    return status;
}

fa_status fa_attention_host(fa_device *device, const fa_attention_desc *desc, const void *q, const void *k,
                            const void *v, const void *bias, const void *keep, void *o, float *lse)
{
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    /* Inputs are only read, but a buffer has one type for both. */
    void *const memory[FA_OPERANDS] = {(void *)(uintptr_t)q,
                                       (void *)(uintptr_t)k,
                                       (void *)(uintptr_t)v,
                                       o,
                                       (void *)(uintptr_t)bias,
                                       (void *)(uintptr_t)keep,
                                       lse};
    host_run run = {.device = device};
    fa_status status = host_execute(&run, desc, memory);
    host_release(&run);
    return fa_finish(status);
}
