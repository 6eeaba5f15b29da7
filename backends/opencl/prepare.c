/* SPDX-License-Identifier: Apache-2.0 */
/* A plan's programs, and its work in device memory. */
#include "backends/opencl/plan.h"

#include "core/context.h"
#include "core/size.h"
#include "core/status.h"

enum { MERGE_GROUP = 128 };

static size_t merge_group(const fa_plan *plan)
{
    return FA_MIN(fa_cl_device_of(plan->device)->caps.group_size, MERGE_GROUP);
}

/* Nothing of q, k and v: one program merges whatever they were. */
static void merge_options(fa_cl_options *text, const fa_plan *plan, int chunks)
{
    const fa_dtype type[] = {
        [FA_Q] = FA_F32, [FA_K] = FA_F32, [FA_V] = FA_F32, [FA_O] = plan->problem.tensor[FA_O].dtype};
    fa_cl_options_common(text, plan->device, type, false, chunks);
    fa_cl_options_add(text, " -DFA_KERNEL_MERGE -DFA_GROUP=%d", (int)merge_group(plan));
}

static void attention_options(fa_cl_options *text, const fa_plan *plan, int chunks, bool aligned)
{
    const fa_problem *p = &plan->problem;
    const fa_tensor *t = p->tensor;
    const fa_gpu_kernel *impl = plan->kernel->impl;
    const bool pages = (p->features & FA_FEATURE_PAGES) != 0, near = fa_cl_device_of(plan->device)->caps.near;
    const fa_dtype type[] = {
        [FA_Q] = t[FA_Q].dtype, [FA_K] = t[FA_K].dtype, [FA_V] = t[FA_V].dtype, [FA_O] = t[FA_O].dtype};
    fa_cl_options_common(text, plan->device, type, !near || fa_gpu_far_strides(p), chunks);
    fa_cl_options_add(text, " -DFA_TRANSFORM=%d -DFA_BLOCK_Q=%d -DFA_BLOCK_KV=%d%s", plan->score.transforms,
                      plan->args.block_q, plan->args.block_kv, aligned ? " -DFA_ALIGNED" : "");
    fa_cl_options_add(text, "%s%s%s%s%s", pages ? " -DFA_PAGES" : "",
                      pages && (!near || fa_gpu_far_pages(p)) ? " -DFA_FAR_PAGES" : "",
                      p->features & FA_FEATURE_K_SCALE ? " -DFA_SCALES_K" : "",
                      p->features & FA_FEATURE_V_SCALE ? " -DFA_SCALES_V" : "",
                      p->features & FA_FEATURE_LISTS ? " -DFA_HAS_LISTS" : "");
    if (impl->kind == FA_GPU_ROWS) {
        fa_cl_options_add(text, " -DFA_KERNEL_ROWS -DFA_GROUP=%d -DFA_SPLIT=%d -DFA_DIM_QK=%d -DFA_DIM_V=%d",
                          impl->group, impl->split, (int)fa_round_up(p->dim_qk, 8 * impl->split),
                          (int)fa_round_up(p->dim_v, 8));
        if (p->dim_qk % (8 * impl->split) == 0)
            fa_cl_options_add(text, " -DFA_WHOLE_QK");
        return;
    }
    fa_cl_options_add(
        text, " -DFA_KERNEL_TILE -DFA_LANES=%d -DFA_ROWS=%d -DFA_DIM_V=%d -DFA_DEPTH=%d -DFA_BUFFERS=%d",
        impl->lanes, FA_GPU_TILE_ROWS, (int)fa_gpu_padded_dim_v(plan, impl), impl->depth, impl->stages);
    if (fa_gpu_in_parts(p))
        fa_cl_options_add(text, " -DFA_IN_PARTS");
    if (p->dim_qk % impl->depth == 0)
        fa_cl_options_add(text, " -DFA_WHOLE_QK");
    if (p->dim_v == fa_gpu_padded_dim_v(plan, impl))
        fa_cl_options_add(text, " -DFA_WHOLE_V");
}

/* Local memory of an attention group, as the kernels divide it. */
static size_t local_bytes(const fa_plan *plan)
{
    const fa_gpu_kernel *k = plan->kernel->impl;
    int64_t block_q = plan->args.block_q, block_kv = plan->args.block_kv, floats;
    if (k->kind == FA_GPU_TILE) {
        int64_t step = k->depth * (block_q + 4 + FA_MAX(block_kv, fa_gpu_padded_dim_v(plan, k)) + 2);
        floats = 4 + k->stages * FA_MAX(step, k->lanes * (block_q + 4));
    } else {
        int64_t dim_q = fa_round_up(plan->problem.dim_qk, 8 * k->split);
        int64_t parts = k->split * block_q * block_kv, sums = 8 * k->group;
        floats = block_q * dim_q + FA_MAX(parts, sums) + block_q * block_kv + k->group + 8;
        if (plan->problem.features & FA_FEATURE_PAGES)
            floats += FA_GPU_PLACES * block_kv;
    }
    return (size_t)fa_round_up(floats * (int64_t)sizeof(float), 16);
}

/* How many chunks an operand of any place in its buffer may touch. */
static int count_chunks(const fa_plan *plan)
{
    size_t largest = (size_t)plan->capacity.partial_rows * ((size_t)plan->args.dim_v + 1) * sizeof(float);
    for (int t = 0; t < FA_OPERANDS; t++)
        largest = fa_cl_is_scale(t) ? largest : FA_MAX(largest, plan->problem.span[t]);
    return fa_cl_count_chunks(plan->device, largest);
}

fa_status fa_cl_upload(const fa_device *device, const void *bytes, size_t size, cl_mem *memory)
{
    const fa_cl_device *d = fa_cl_device_of(device);
    cl_int error;
    *memory = d->cl->clCreateBuffer(d->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, size,
                                    (void *)(uintptr_t)bytes, &error);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clCreateBuffer");
}

fa_status fa_cl_kernels_make(const fa_plan *plan, int chunks, fa_cl_kernels *kernels)
{
    const fa_gpu_kernel *impl = plan->kernel->impl;
    const char *name = impl->kind == FA_GPU_TILE ? "fa_tile" : "fa_rows";
    fa_status status = FA_OK;
    for (int aligned = 0; aligned <= fa_gpu_can_align(&plan->problem) && status == FA_OK; aligned++) {
        fa_cl_options options = {.used = 0};
        attention_options(&options, plan, chunks, aligned);
        if (!kernels->attention[aligned])
            status = fa_cl_kernel_make(plan->device, &fa_cl_attention_source, &options, name,
                                       &kernels->attention[aligned]);
    }
    if (status == FA_OK && plan->capacity.merges > 0 && !kernels->merge) {
        fa_cl_options options = {.used = 0};
        merge_options(&options, plan, chunks);
        status =
            fa_cl_kernel_make(plan->device, &fa_cl_attention_source, &options, "fa_merge", &kernels->merge);
    }
    if (status == FA_OK)
        kernels->chunks = chunks;
    return status;
}

static fa_status compile_for(const fa_plan *plan, int chunks)
{
    cl_program program;
    fa_cl_options merge = {.used = 0};
    fa_status status = FA_OK;
    for (int aligned = 0; aligned <= fa_gpu_can_align(&plan->problem) && status == FA_OK; aligned++) {
        fa_cl_options options = {.used = 0};
        attention_options(&options, plan, chunks, aligned);
        status = fa_cl_program_get(plan->device, &fa_cl_attention_source, options.bytes, &program);
    }
    merge_options(&merge, plan, chunks);
    return status == FA_OK ? fa_cl_program_get(plan->device, &fa_cl_attention_source, merge.bytes, &program)
                           : status;
}

fa_status fa_cl_plan_compile(const fa_plan *plan)
{
    static const int chunks[] = {1, FA_CL_FEW_CHUNKS, FA_CL_MAX_CHUNKS};
    fa_status status = FA_OK;
    for (size_t i = 0;
         i < sizeof(chunks) / sizeof(chunks[0]) && chunks[i] <= count_chunks(plan) && status == FA_OK; i++)
        status = compile_for(plan, chunks[i]);
    return status;
}

fa_status fa_cl_plan_prepare(fa_plan *plan)
{
    const fa_gpu_kernel *impl = plan->kernel->impl;
    fa_cl_plan *made = fa_alloc_zeroed(plan->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    (void)pthread_mutex_init(&made->lock, NULL);
    plan->impl = made;
    if (plan->capacity.items == 0)
        return FA_OK;
    const int chunks = count_chunks(plan);
    made->group = (size_t)(impl->kind == FA_GPU_TILE ? plan->args.block_q / FA_GPU_TILE_ROWS * impl->lanes
                                                     : impl->group);
    made->merge_group = merge_group(plan);
    made->local_bytes = local_bytes(plan);
    fa_status status = fa_cl_kernels_make(plan, chunks, &made->usual);
    return status == FA_OK ? fa_cl_upload(plan->device, plan->work, plan->layout.bytes, &made->work) : status;
}

void fa_cl_plan_release(fa_plan *plan)
{
    const fa_cl *cl = fa_cl_device_of(plan->device)->cl;
    fa_cl_plan *made = plan->impl;
    const fa_cl_kernels *usual = &made->usual, *crossing = &made->crossing;
    const cl_kernel kernels[] = {
        usual->attention[0],    usual->attention[1],    usual->merge,
        crossing->attention[0], crossing->attention[1], crossing->merge,
    };
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++) {
        if (kernels[i])
            (void)cl->clReleaseKernel(kernels[i]);
    }
    if (made->work)
        (void)cl->clReleaseMemObject(made->work);
    (void)pthread_mutex_destroy(&made->lock);
    fa_release(plan->device->context, made, sizeof(*made));
}
