/* SPDX-License-Identifier: Apache-2.0 */
/* The device's limits, and the backend's entry points. */
#include "backends/opencl/describe.h"
#include "backends/opencl/plan.h"

static fa_status opencl_open(fa_device *device, void *import)
{
    fa_status status = fa_cl_device_start(device, import);
    if (status != FA_OK)
        return status;
    fa_cl_device *d = fa_cl_device_of(device);
    const fa_gpu_limits limits = {
        .units = d->caps.units,
        .clock_hz = d->caps.clock_mhz * 1e6,
        .local_bytes = d->caps.local_bytes,
        .group_size = d->caps.group_size,
        .work_bytes = d->caps.alloc_bytes,
        .tensor_bytes = (uint64_t)(FA_CL_MAX_CHUNKS - 1) << fa_cl_chunk_shift(&d->caps),
    };
    device->limits = fa_gpu_limits_of(&limits);
    fa_gpu_kernels_add(device, &limits, d->impls, d->kernels);
    return FA_OK;
}

const fa_backend fa_backend_opencl = {
    .abi = FA_BACKEND_ABI,
    .name = "opencl",
    .count = fa_cl_device_count,
    .describe = fa_cl_device_describe,
    .open = opencl_open,
    .close = fa_cl_device_stop,
    .buffer_create = fa_cl_buffer_create,
    .buffer_wrap = fa_cl_buffer_wrap,
    .buffer_destroy = fa_cl_buffer_destroy,
    .buffer_write = fa_cl_buffer_write,
    .buffer_read = fa_cl_buffer_read,
    .queue_create = fa_cl_queue_create,
    .queue_wait = fa_cl_queue_wait,
    .queue_seconds = fa_cl_queue_seconds,
    .queue_destroy = fa_cl_queue_destroy,
    .plan_compile = fa_cl_plan_compile,
    .plan_prepare = fa_cl_plan_prepare,
    .plan_release = fa_cl_plan_release,
    .plan_run = fa_cl_plan_run,
    .task_prepare = fa_cl_task_prepare,
    .task_release = fa_cl_task_release,
    .task_run = fa_cl_task_run,
    .work_check = fa_cl_work_check,
};
