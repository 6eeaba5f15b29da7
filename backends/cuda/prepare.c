/* SPDX-License-Identifier: Apache-2.0 */
/* From a plan to its kernels, and its work in device memory. */
#include "backends/cuda/plan.h"

#include "core/attention/scales.h"
#include "core/context.h"
#include "core/portable/format.h"
#include "core/status.h"

static int line_of(const fa_cuda_traits *t)
{
    return (int)(t - fa_cuda_table);
}

static int merge_line(void)
{
    int line = 0;
    while (fa_cuda_table[line].kind != FA_CUDA_MERGE)
        line++;
    return line;
}

static bool is_coded(const fa_tensor *tensor)
{
    return FA_TYPE_IS_CODED((int)tensor->dtype);
}

/*
 * How an operand is scaled by tensors of its own, as far as modules differ. U8 is served about its middle, as if it had a zero.
 * Scales of a page that the pool has not are NaN; one for the whole item can stand for them only if codes can be NaN.
 */
static int scaling_of(const fa_problem *p, int operand)
{
    const fa_scales *s = fa_scales_of(p, operand);
    const int64_t *shape = p->tensor[FA_SCALE_OF(operand)].shape;
    if (s->scale_type < 0)
        return FA_CUDA_UNSCALED;
    if (s->zero_type >= 0 || p->tensor[operand].dtype == FA_U8)
        return FA_CUDA_SCALED_ZEROS;
    const bool pages = (p->features & FA_FEATURE_PAGES) != 0,
               whole = shape[2] == 1 && shape[3] == 1 &&
                       (!pages || (shape[0] == 1 && FA_TYPE_IS_FP8((int)p->tensor[operand].dtype)));
    return whole ? FA_CUDA_SCALED_WHOLE : FA_CUDA_SCALED_KEYS;
}

/*
 * What the kernel's module is compiled for: an element type, FA_CUDA_ANY, FA_CUDA_SCALED, FA_CUDA_WHOLE_ROWS or
 * FA_CUDA_PRUNED_ROWS, or a fa_cuda_coded_type().
 */
static int type_of(const fa_plan *plan, const fa_cuda_traits *t)
{
    const fa_tensor *tensor = plan->problem.tensor;
    const fa_dtype type = tensor[FA_Q].dtype;
    if (t->unit > 0 && (is_coded(&tensor[FA_K]) || is_coded(&tensor[FA_V])))
        return fa_cuda_coded_type((int)type, (int)tensor[FA_K].dtype, (int)tensor[FA_V].dtype);
    if (t->unit > 0)
        return (int)type;
    if (FA_TYPE_IS_MLA((int)tensor[FA_K].dtype))
        return FA_CUDA_WHOLE_ROWS;
    if (FA_TYPE_PRUNES((int)tensor[FA_K].dtype) || FA_TYPE_PRUNES((int)tensor[FA_V].dtype))
        return FA_CUDA_PRUNED_ROWS;
    if (plan->problem.features & FA_FEATURE_SCALES)
        return FA_CUDA_SCALED;
    if (t->kind == FA_CUDA_ROWS)
        return is_coded(&tensor[FA_K]) || is_coded(&tensor[FA_V]) ? FA_CUDA_ANY : FA_F32;
    const bool same = tensor[FA_K].dtype == type && tensor[FA_V].dtype == type;
    return same && fa_gpu_can_align(&plan->problem) ? (int)type : FA_CUDA_ANY;
}

/* Likewise; where k or v is in a format, with how each is scaled. */
static int scaled_type_of(const fa_plan *plan, const fa_cuda_traits *t)
{
    const int type = type_of(plan, t);
    return type > FA_CUDA_PRUNED_ROWS
               ? fa_cuda_scaled_type(type, scaling_of(&plan->problem, FA_K), scaling_of(&plan->problem, FA_V))
               : type;
}

static int variant_of(const fa_plan *plan, const fa_cuda_traits *t)
{
    return fa_cuda_variant_of(*t, plan->args.block_q) + (t->unit > 0 && plan->score.transforms);
}

fa_status fa_cu_upload(const fa_device *device, const void *bytes, size_t size, CUdeviceptr *memory)
{
    const fa_cu_device *d = fa_cu_device_of(device);
    const char *call = "cuMemAlloc";
    CUresult error = d->cu->cuMemAlloc(memory, size);
    if (error == CUDA_SUCCESS) {
        call = "cuMemcpyHtoD";
        error = d->cu->cuMemcpyHtoD(*memory, bytes, size);
    }
    /* Of pageable memory the call may return before the last bytes arrive, and queues do not wait for its stream. */
    if (error == CUDA_SUCCESS) {
        call = "cuStreamSynchronize";
        error = d->cu->cuStreamSynchronize(NULL);
    }
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(d->cu, error, call);
}

static fa_status make_kernels(const fa_plan *plan, bool merges, fa_cu_plan *made)
{
    const fa_cuda_traits *t = plan->kernel->impl;
    const int line = line_of(t), type = scaled_type_of(plan, t), variant = variant_of(plan, t);
    fa_status status = fa_cu_kernel_make(plan, line, type, variant, &made->attention);
    if (status == FA_OK && t->kind == FA_CUDA_FMA && type < FA_CUDA_ANY)
        status = fa_cu_kernel_make(plan, line, FA_CUDA_ANY, variant, &made->unaligned);
    if (status == FA_OK && merges)
        status = fa_cu_kernel_make(plan, merge_line(), FA_F32, 0, &made->merge);
    return status;
}

fa_status fa_cu_plan_compile(const fa_plan *plan)
{
    fa_cu_plan made = {0}; /* modules are the device's */
    fa_status status = fa_cu_enter(plan->device);
    if (status != FA_OK)
        return status;
    status = make_kernels(plan, true, &made);
    fa_cu_leave(plan->device);
    return status;
}

fa_status fa_cu_plan_prepare(fa_plan *plan)
{
    fa_cu_plan *made = fa_alloc_zeroed(plan->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    plan->impl = made;
    if (plan->capacity.items == 0)
        return FA_OK;
    fa_status status = fa_cu_enter(plan->device);
    if (status != FA_OK)
        return status;
    status = make_kernels(plan, plan->capacity.merges > 0, made);
    made->params = *(const fa_table_params *)plan->work;
    /* These flags are of all runs: one of other lengths may begin within a block of the kernel. */
    if (plan->problem.dynamic && plan->problem.lists.bits)
        made->params.flags |= FA_TABLE_LIST_CUTS;
    if (status == FA_OK)
        status = fa_cu_upload(plan->device, plan->work, plan->layout.bytes, &made->work);
    fa_cu_leave(plan->device);
    return status;
}

void fa_cu_plan_release(fa_plan *plan)
{
    fa_cu_plan *made = plan->impl;
    if (made->work && fa_cu_enter(plan->device) == FA_OK) {
        (void)fa_cu_device_of(plan->device)->cu->cuMemFree(made->work);
        fa_cu_leave(plan->device);
    }
    fa_release(plan->device->context, made, sizeof(*made));
}
