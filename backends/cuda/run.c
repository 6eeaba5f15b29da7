/* SPDX-License-Identifier: Apache-2.0 */
/* Binding buffers to a plan's kernels, and launching them. */
#include "backends/cuda/plan.h"
#include "core/portable/format.h"
#include "core/status.h"

enum { ALIGNMENT = 16 };

static unsigned char *address_of(const fa_buffer *buffer, size_t offset)
{
    return buffer && buffer->address ? (unsigned char *)buffer->address + offset : NULL;
}

/* Whether rows of q, k, v and o lie at multiples of 16 bytes, but for those of formats of caches. */
static bool is_aligned(const fa_plan *plan, unsigned char *const at[FA_OPERANDS])
{
    uintptr_t all = 0;
    for (int t = FA_Q; t <= FA_O; t++) {
        if (!FA_TYPE_IS_CODED((int)plan->problem.tensor[t].dtype))
            all |= (uintptr_t)at[t];
    }
    return fa_gpu_can_align(&plan->problem) && all % ALIGNMENT == 0;
}

/* The largest of 16, 8, 4 and 2 that divides where rows begin. */
static int alignment_of(const fa_tensor *tensor, const unsigned char *at)
{
    uint64_t all = (uint64_t)(uintptr_t)at | ALIGNMENT;
    for (int axis = 0; axis < 3; axis++)
        all |=
            (uint64_t)(tensor->stride[axis] / fa_dtype_block(tensor->dtype)) * fa_dtype_size(tensor->dtype);
    return (int)(all & (~all + 1));
}

static fa_cuda_format format_of(fa_dtype dtype)
{
    const int type = (int)dtype, bytes = FA_TYPE_CODE_BITS(type) == 8 ? 32 : 16;
    const bool fifth = FA_TYPE_CODE_BITS(type) == 5,
               is_signed = type == FA_TYPE_Q8_0 || type == FA_TYPE_IQ4_NL;
    return (fa_cuda_format){
        .shift = FA_TYPE_BLOCK_SHIFT(type),
        .size = FA_TYPE_SIZE(type),
        .codes = FA_TYPE_SIZE(type) - bytes,
        .fifth = fifth ? FA_TYPE_SIZE(type) - bytes - 4 : 0,
        .bytes = bytes,
        .upper = bytes == 32 ? 0 : 4,
        .mask = bytes == 32 ? 0xffffffff : 0x0f0f0f0f,
        .flip = type == FA_TYPE_Q8_0 ? 0x80808080 : 0,
        .zero = 0x1p23F + (float)(is_signed ? 128 : FA_TYPE_CENTRE(type)),
        .offset = FA_TYPE_HAS_OFFSET(type),
    };
}

static fa_cuda_args bind(const fa_plan *plan, const fa_binding *binding)
{
    const fa_cu_plan *prepared = plan->impl;
    const fa_tensor *tensor = plan->problem.tensor;
    unsigned char *at[FA_OPERANDS];
    for (int t = 0; t < FA_OPERANDS; t++)
        at[t] = address_of(binding->buffer[t], binding->offset[t]);
    fa_cuda_args args = {
        .p = prepared->params,
        .table = binding->work ? address_of(binding->work, binding->work_offset)
                               : (const unsigned char *)(uintptr_t)prepared->work,
        .q = at[FA_Q],
        .k = at[FA_K],
        .v = at[FA_V],
        .o = at[FA_O],
        .bias = at[FA_BIAS],
        .keep = at[FA_KEEP],
        .page_table = (const int *)(const void *)at[FA_PAGES],
        .lse = at[FA_LSE],
        .partial = address_of(binding->workspace, binding->workspace_offset + plan->partial_offset),
        .partial_state =
            address_of(binding->workspace, binding->workspace_offset + plan->partial_state_offset),
        .type_q = (int)tensor[FA_Q].dtype,
        .type_k = (int)tensor[FA_K].dtype,
        .type_v = (int)tensor[FA_V].dtype,
        .type_o = (int)tensor[FA_O].dtype,
        .in_k = format_of(tensor[FA_K].dtype),
        .in_v = format_of(tensor[FA_V].dtype),
        .aligned_k = alignment_of(&tensor[FA_K], at[FA_K]),
        .aligned_v = alignment_of(&tensor[FA_V], at[FA_V]),
        .k_scale = at[FA_K_SCALE],
        .v_scale = at[FA_V_SCALE],
        .k_zero = at[FA_K_ZERO],
        .v_zero = at[FA_V_ZERO],
    };
    args.aligned = is_aligned(plan, at);
    args.straight = args.aligned && !(args.p.flags & FA_TABLE_PAGES);
    return args;
}

/* Drivers before CUDA 12.3 capture no kernel that starts early. */
static fa_status launch_all(const fa_plan *plan, const fa_binding *binding, CUstream stream, bool captures,
                            fa_cuda_args *args)
{
    const fa_cu_plan *prepared = plan->impl;
    const fa_cu_kernel *attention =
        !args->aligned && prepared->unaligned.function ? &prepared->unaligned : &prepared->attention;
    const int64_t merges = fa_run_merges(plan, binding);
    fa_status status = fa_cu_launch(plan->device, stream, attention, fa_run_items(plan, binding), 1, args);
    if (status == FA_OK && merges > 0)
        status = (captures ? fa_cu_launch : fa_cu_launch_early)(plan->device, stream, &prepared->merge,
                                                                merges, plan->args.block_q, args);
    return status;
}

fa_status fa_cu_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    fa_cuda_args args = bind(plan, binding);
    bool captures;
    FA_TRY(fa_cu_run_begin(queue, &captures));
    const fa_status status = launch_all(plan, binding, ((fa_cu_queue *)queue->impl)->stream, captures, &args);
    return fa_cu_run_end(queue, captures, status);
}
