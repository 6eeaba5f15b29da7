/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/plan.h"
#include "core/status.h"

fa_status fa_cu_kernel_make(const fa_plan *plan, int line, int type, int variant, fa_cu_kernel *kernel)
{
    const fa_cuda_traits *t = &fa_cuda_table[line];
    const bool lists = (plan->problem.features & FA_FEATURE_LISTS) && t->kind != FA_CUDA_MERGE;
    kernel->group = (unsigned)fa_cuda_group(*t, variant);
    kernel->shared_bytes = (unsigned)fa_cuda_shared_bytes(*t, type, variant);
    if (t->kind == FA_CUDA_DECODE && type > FA_CUDA_PRUNED_ROWS) {
        const double items = (double)plan->schedule.items;
        const int warps = fa_cu_coded_warps(&fa_cu_device_of(plan->device)->caps, t, type, variant, items,
                                            items > 0 ? plan->schedule.key_reads / items : 0);
        kernel->group = 32 * (unsigned)warps;
        kernel->shared_bytes = (unsigned)fa_cuda_decode_bytes(*t, type, variant, warps);
    }
    return fa_cu_function_get(plan->device, line, type, lists, variant, &kernel->function);
}

fa_status fa_cu_launch(const fa_device *device, CUstream stream, const fa_cu_kernel *kernel, int64_t groups,
                       int64_t lines, void *args)
{
    const fa_cu *cu = fa_cu_device_of(device)->cu;
    void *parameters[] = {args};
    CUresult error = cu->cuLaunchKernel(kernel->function, (unsigned)groups, (unsigned)lines, 1, kernel->group,
                                        1, 1, kernel->shared_bytes, stream, parameters, NULL);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, "cuLaunchKernel");
}

fa_status fa_cu_launch_early(const fa_device *device, CUstream stream, const fa_cu_kernel *kernel,
                             int64_t groups, int64_t lines, void *args)
{
    const fa_cu_device *d = fa_cu_device_of(device);
    void *parameters[] = {args};
    CUlaunchAttribute early = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                               .value = {.allowed = 1}};
    const CUlaunchConfig config = {.grid_x = (unsigned)groups,
                                   .grid_y = (unsigned)lines,
                                   .grid_z = 1,
                                   .block_x = kernel->group,
                                   .block_y = 1,
                                   .block_z = 1,
                                   .shared_bytes = kernel->shared_bytes,
                                   .stream = stream,
                                   .attribute = &early,
                                   .attributes = 1};
    if (d->caps.runs_arch < 90 || !d->cu->cuLaunchKernelEx)
        return fa_cu_launch(device, stream, kernel, groups, lines, args);
    CUresult error = d->cu->cuLaunchKernelEx(&config, kernel->function, parameters, NULL);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(d->cu, error, "cuLaunchKernelEx");
}

fa_status fa_cu_run_begin(fa_queue *queue, bool *captures)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    fa_cu_queue *q = queue->impl;
    FA_TRY(fa_cu_queue_captures(queue, captures));
    FA_TRY(fa_cu_enter(queue->device));
    q->ran = false;
    const CUresult error = *captures || q->spans ? CUDA_SUCCESS : cu->cuEventRecord(q->first, q->stream);
    if (error == CUDA_SUCCESS)
        return FA_OK;
    fa_cu_leave(queue->device);
    return fa_cu_fail(cu, error, "cuEventRecord");
}

fa_status fa_cu_run_end(fa_queue *queue, bool captures, fa_status status)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    fa_cu_queue *q = queue->impl;
    CUresult error = CUDA_SUCCESS;
    if (status == FA_OK && !captures) {
        error = cu->cuEventRecord(q->last, q->stream);
        q->ran = error == CUDA_SUCCESS;
    }
    fa_cu_leave(queue->device);
    return error == CUDA_SUCCESS ? status : fa_cu_fail(cu, error, "cuEventRecord");
}
