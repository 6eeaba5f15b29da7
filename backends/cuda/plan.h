/* SPDX-License-Identifier: Apache-2.0 */
/* How plans become kernels and launches. */
#ifndef FA_CUDA_PLAN_H
#define FA_CUDA_PLAN_H

#include "backends/cuda/cuda.h"
#include "backends/gpu/kernels.h"

/* A kernel and how it is launched. */
typedef struct fa_cu_kernel {
    CUfunction function;
    unsigned group, shared_bytes;
} fa_cu_kernel;

/* plan->impl */
typedef struct fa_cu_plan {
    fa_table_params params;
    CUdeviceptr work; /* of the plan's own lengths */
    fa_cu_kernel attention, merge;
    fa_cu_kernel unaligned; /* of fma: instead of `attention` where a run's buffers are not aligned */
} fa_cu_plan;

/* launch.c: `line` is one of fa_cuda_table, `type` and `variant` are as fa_cu_function_get() has them. */
fa_status fa_cu_kernel_make(const fa_plan *plan, int line, int type, int variant, fa_cu_kernel *kernel);
/* `groups` by `lines` blocks. */
fa_status fa_cu_launch(const fa_device *device, CUstream stream, const fa_cu_kernel *kernel, int64_t groups,
                       int64_t lines, void *args);

/* The same of a kernel that itself waits for the one before it in the stream, where the device can start it before that ends. */
fa_status fa_cu_launch_early(const fa_device *device, CUstream stream, const fa_cu_kernel *kernel,
                             int64_t groups, int64_t lines, void *args);

/* Around the launches of a run: the device's context is current between them, and the run is timed unless it is captured.
 * After a failure of the first there is no end; the second passes on how the launches went. */
fa_status fa_cu_run_begin(fa_queue *queue, bool *captures);
fa_status fa_cu_run_end(fa_queue *queue, bool captures, fa_status status);

/* prepare.c */
fa_status fa_cu_plan_compile(const fa_plan *plan);
fa_status fa_cu_plan_prepare(fa_plan *plan);
void fa_cu_plan_release(fa_plan *plan);

/* What kernels read, copied to the device. The device's context must be current. */
fa_status fa_cu_upload(const fa_device *device, const void *bytes, size_t size, CUdeviceptr *memory);

/* task.c */
fa_status fa_cu_task_prepare(fa_task *task);
void fa_cu_task_release(fa_task *task);
fa_status fa_cu_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding);

/* run.c */
fa_status fa_cu_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);

#endif
