/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: kernels, parameters, launches. */
#include "backends/cuda/task.h"

#include <string.h>

#include "backends/cuda/plan.h"
#include "core/context.h"
#include "core/status.h"

_Static_assert(sizeof(((fa_cuda_task *)0)->at) == FA_TASK_OPERANDS * sizeof(void *) &&
                   sizeof(((fa_cuda_task *)0)->constant) == FA_TASK_CONSTANTS * sizeof(int),
               "what task.cu has");

/* task->impl */
typedef struct cu_task {
    CUdeviceptr params;
    fa_cu_kernel kernel;
} cu_task;

fa_status fa_cu_task_prepare(fa_task *task)
{
    cu_task *made = fa_alloc_zeroed(task->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    task->impl = made;
    made->kernel.group = (unsigned)task->group;
    fa_status status = fa_cu_enter(task->device);
    if (status == FA_OK) {
        status = fa_cu_task_function_get(task, &made->kernel.function);
        if (status == FA_OK)
            status = fa_cu_upload(task->device, task->params, task->params_bytes, &made->params);
        fa_cu_leave(task->device);
    }
    if (status != FA_OK)
        fa_cu_task_release(task);
    return status;
}

void fa_cu_task_release(fa_task *task)
{
    cu_task *made = task->impl;
    if (made->params && fa_cu_enter(task->device) == FA_OK) {
        (void)fa_cu_device_of(task->device)->cu->cuMemFree(made->params);
        fa_cu_leave(task->device);
    }
    fa_release(task->device->context, made, sizeof(*made));
}

fa_status fa_cu_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding)
{
    const cu_task *made = task->impl;
    const fa_task_view view = fa_task_view_of(task, binding);
    fa_cuda_task args = {.params = (const unsigned char *)(uintptr_t)made->params};
    memcpy(args.at, view.at, sizeof(args.at));
    memcpy(args.constant, task->constant, sizeof(args.constant));
    bool captures = false;
    FA_TRY(task->timed ? fa_cu_run_begin(queue, &captures) : fa_cu_enter(task->device));
    const fa_status status = fa_cu_launch(task->device, ((fa_cu_queue *)queue->impl)->stream, &made->kernel,
                                          binding->groups, 1, &args);
    if (task->timed)
        return fa_cu_run_end(queue, captures, status);
    fa_cu_leave(task->device);
    return status;
}
