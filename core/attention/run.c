/* SPDX-License-Identifier: Apache-2.0 */
/* Binding buffers to a plan: every check of a run, made once for all backends. */
#include <string.h>

#include "core/attention/pages.h"
#include "core/attention/run_status.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

fa_status fa_work_check(const fa_device *device, const char *of, const fa_buffer *buffer, size_t offset,
                        size_t size)
{
    fa_status status = fa_buffer_check(device, of, "work", buffer, offset, FA_WORK_ALIGNMENT, size);
    if (status == FA_OK && device->backend->work_check)
        status = device->backend->work_check(buffer, offset, size);
    return status;
}

fa_binding fa_binding_of(const fa_attention_args *a)
{
    fa_binding binding = {
        .workspace = a->workspace,
        .workspace_offset = a->workspace_offset,
        .work = a->work,
        .work_offset = a->work_offset,
        .status = a->status,
        .status_offset = a->status_offset,
    };
#define FA_OPERAND(constant, field, written, feature) \
    binding.buffer[FA_##constant] = a->field;         \
    binding.offset[FA_##constant] = a->field##_offset;
#include "core/attention/operands.inc"
#undef FA_OPERAND
    return binding;
}

fa_status fa_binding_share(const fa_problem *p, fa_binding *binding)
{
    fa_buffer *const v = binding->buffer[FA_V], *const k = binding->buffer[FA_K];
    if (!(p->features & FA_FEATURE_V_IN_K))
        return FA_OK;
    if (v && k &&
        (v->storage != k->storage ||
         (uintptr_t)v->address + binding->offset[FA_V] != (uintptr_t)k->address + binding->offset[FA_K]))
        return fa_fail(FA_INVALID, "args.v begins elsewhere than args.k, expected NULL or the same place: "
                                   "the description has v_in_k");
    binding->buffer[FA_V] = k;
    binding->offset[FA_V] = binding->offset[FA_K];
    return FA_OK;
}

fa_status fa_binding_check(const fa_binding *binding, const fa_device *device, const fa_problem *p,
                           size_t workspace, size_t work)
{
    fa_memory operands[FA_OPERANDS + 3];
    int count = 0;
    for (int t = 0; t < FA_OPERANDS; t++) {
        const char *name = fa_operands[t].name;
        const unsigned feature = fa_operands[t].feature;
        const bool wanted = !feature || (p->features & feature);
        const fa_buffer *buffer = binding->buffer[t];
        if (!wanted && buffer)
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL: the description has no %s", name,
                           name);
        if (!wanted || (p->span[t] == 0 && !buffer))
            continue;
        fa_status status = fa_buffer_check(device, "args.", name, buffer, binding->offset[t],
                                           fa_dtype_align(p->tensor[t].dtype), p->span[t]);
        if (status != FA_OK)
            return status;
        operands[count++] =
            (fa_memory){name, fa_buffer_extent(&p->tensor[t], p->span[t], buffer, binding->offset[t]),
                        fa_operands[t].written};
    }
    if (workspace > 0) {
        const fa_buffer *buffer = binding->workspace;
        fa_status status =
            fa_buffer_check(device, "args.", "workspace", buffer, binding->workspace_offset, 64, workspace);
        if (status != FA_OK)
            return status;
        operands[count++] =
            (fa_memory){"workspace", fa_buffer_bytes(workspace, buffer, binding->workspace_offset), true};
    }
    if (work > 0) {
        const fa_buffer *buffer = binding->work;
        fa_status status = fa_work_check(device, "args.", buffer, binding->work_offset, work);
        if (status != FA_OK)
            return status;
        operands[count++] = (fa_memory){"work", fa_buffer_bytes(work, buffer, binding->work_offset), false};
    }
    const size_t status_bytes = fa_run_status_bytes(p);
    if (!p->want_status && binding->status)
        return fa_fail(FA_INVALID, "args.status is given, expected NULL: the description has want_status 0");
    if (status_bytes > 0) {
        fa_status status = fa_buffer_check(device, "args.", "status", binding->status, binding->status_offset,
                                           sizeof(int32_t), status_bytes);
        if (status != FA_OK)
            return status;
        operands[count++] = (fa_memory){
            "status", fa_buffer_bytes(status_bytes, binding->status, binding->status_offset), true};
    }
    return fa_memory_check_overlap(operands, count);
}

fa_status fa_plan_check_call(const fa_plan *plan, const fa_queue *queue, const void *argument,
                             const char *name)
{
    return fa_call_check("plan", plan, plan ? plan->device : NULL, queue, name, argument);
}

/* The pages that a run's sequences use are pages of the pool. */
static fa_status check_pages(const fa_plan *plan, const fa_binding *binding, const void *work)
{
    const fa_buffer *table = binding->buffer[FA_PAGES];
    if (!table)
        return FA_OK;
    return fa_pages_check_sequences(&plan->problem,
                                    (const void *)((const char *)table->address + binding->offset[FA_PAGES]),
                                    (const void *)((const char *)work + plan->layout.sequences));
}

fa_status fa_plan_check_work(const fa_plan *plan, const void *work, const char *name)
{
    fa_table_params params;
    memcpy(&params, work, sizeof(params));
    if (params.plan == (fa_long)plan->serial)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s holds no work that fa_plan_schedule() made for this plan", name);
}

/* Work and page tables that lie in the host's memory are looked at: kernels go where they say. */
static fa_status check_work(const fa_plan *plan, const fa_binding *binding)
{
    const void *work = plan->work; /* NULL: of a backend that does not compute */
    if (!plan->device->backend->host_pointers)
        return FA_OK;
    if (binding->work) {
        work = (const char *)binding->work->address + binding->work_offset;
        FA_TRY(fa_plan_check_work(plan, work, "args.work"));
    }
    return check_pages(plan, binding, work);
}

fa_status fa_plan_run_bound(const fa_plan *plan, fa_queue *queue, fa_binding *binding)
{
    if (binding->work && !plan->problem.dynamic)
        return fa_fail(FA_INVALID,
                       "args.work is given, expected NULL: the description has dynamic_lengths 0");
    const size_t work = binding->work ? plan->layout.bytes : 0;
    fa_status status = fa_binding_share(&plan->problem, binding);
    if (status == FA_OK)
        status = fa_binding_check(binding, plan->device, &plan->problem, plan->workspace, work);
    if (status == FA_OK)
        status = check_work(plan, binding);
    if (status == FA_OK && fa_run_items(plan, binding) > 0)
        status = plan->device->backend->plan_run(plan, queue, binding);
    if (status == FA_OK)
        status = fa_run_status_write(plan, queue, binding);
    return fa_finish(status);
}

fa_status fa_plan_run(const fa_plan *plan, fa_queue *queue, const fa_attention_args *args)
{
    fa_clear_error();
    fa_attention_args copy;
    fa_status status = fa_plan_check_call(plan, queue, args, "args");
    if (status == FA_OK)
        status = fa_copy_struct(&copy, sizeof(copy), FA_ATTENTION_ARGS_0_1, args, "fa_attention_args");
    if (status != FA_OK)
        return status;
    fa_binding binding = fa_binding_of(&copy);
    return fa_plan_run_bound(plan, queue, &binding);
}

/* A pointer as a buffer of just the bytes that the plan needs there; NULL where there is none. */
static fa_buffer *as_buffer(const fa_plan *plan, void *memory, size_t size, fa_buffer *buffer)
{
    *buffer = (fa_buffer){.device = plan->device, .size = size, .address = memory};
    return memory ? buffer : NULL;
}

fa_status fa_plan_run_host(const fa_plan *plan, fa_queue *queue, const fa_host_args *args)
{
    fa_clear_error();
    fa_host_args a;
    fa_status status = fa_plan_check_call(plan, queue, args, "args");
    if (status == FA_OK)
        status = fa_copy_struct(&a, sizeof(a), FA_HOST_ARGS_0_1, args, "fa_host_args");
    if (status != FA_OK)
        return status;
    const fa_device *device = plan->device;
    if (!device->backend->host_pointers)
        return fa_fail(FA_UNSUPPORTED, "%s does not run on host pointers%s", device->info.name,
                       device->info.host_memory ? ": wrap them in buffers" : "");
#define FA_OPERAND(constant, field, written, feature) [FA_##constant] = (void *)(uintptr_t)a.field,
    /* Inputs are only read, but a buffer has one type for both. */
    void *const memory[FA_OPERANDS] = {
#include "core/attention/operands.inc"
    };
#undef FA_OPERAND
    fa_buffer buffer[FA_OPERANDS], workspace, work, run_status;
    fa_binding binding = {
        .workspace = as_buffer(plan, a.workspace, plan->workspace, &workspace),
        .work = as_buffer(plan, (void *)(uintptr_t)a.work, plan->layout.bytes, &work),
        .status = as_buffer(plan, a.status, fa_run_status_bytes(&plan->problem), &run_status),
    };
    for (int t = 0; t < FA_OPERANDS; t++)
        binding.buffer[t] = as_buffer(plan, memory[t], plan->problem.span[t], &buffer[t]);
    return fa_plan_run_bound(plan, queue, &binding);
}
