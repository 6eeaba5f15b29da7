/* SPDX-License-Identifier: Apache-2.0 */
/* The device's limits, and the backend's entry points. */
#include "backends/cuda/describe.h"
#include "backends/cuda/plan.h"

static fa_limits limits_of(const fa_cu_caps *caps)
{
    const double start_seconds = 4e-6;
    const double clock_hz = caps->clock_khz * 1e3;
    return (fa_limits){
        .units = (uint32_t)caps->units,
        .onchip_bytes = caps->shared_bytes,
        .clock_hz = clock_hz,
        .bytes_per_second = caps->bytes_per_second > 0 ? caps->bytes_per_second : 16 * clock_hz * caps->units,
        .sync_cycles = 1000,
        .item_cycles = 2000,
        .run_cycles = start_seconds * clock_hz,
    };
}

static fa_status cuda_open(fa_device *device, void *import)
{
    fa_status status = fa_cu_device_start(device, import);
    if (status != FA_OK)
        return status;
    fa_cu_device *d = fa_cu_device_of(device);
    device->limits = limits_of(&d->caps);
    device->kernels = fa_cu_kernels_list(&d->caps, d->kernels);
    for (int i = 0; i < device->kernels; i++)
        device->kernel[i] = &d->kernels[i];
    return FA_OK;
}

const fa_backend fa_backend_cuda = {
    .abi = FA_BACKEND_ABI,
    .name = "cuda",
    .count = fa_cu_device_count,
    .describe = fa_cu_device_describe,
    .open = cuda_open,
    .close = fa_cu_device_stop,
    .buffer_create = fa_cu_buffer_create,
    .buffer_destroy = fa_cu_buffer_destroy,
    .buffer_write = fa_cu_buffer_write,
    .buffer_read = fa_cu_buffer_read,
    .buffer_send = fa_cu_buffer_send,
    .buffer_fetch = fa_cu_buffer_fetch,
    .host_create = fa_cu_host_create,
    .host_destroy = fa_cu_host_destroy,
    .stage = fa_cu_stage,
    .stage_write = fa_cu_stage_write,
    .queue_create = fa_cu_queue_create,
    .queue_wait = fa_cu_queue_wait,
    .queue_seconds = fa_cu_queue_seconds,
    .queue_span = fa_cu_queue_span,
    .queue_destroy = fa_cu_queue_destroy,
    .queue_check = fa_cu_queue_check,
    .mark_create = fa_cu_mark_create,
    .mark_put = fa_cu_mark_put,
    .mark_wait = fa_cu_mark_wait,
    .mark_destroy = fa_cu_mark_destroy,
    .product_library = fa_cu_product_library,
    .address_check = fa_cu_address_check,
    .product_run = fa_cu_product_run,
    .plan_compile = fa_cu_plan_compile,
    .plan_prepare = fa_cu_plan_prepare,
    .plan_release = fa_cu_plan_release,
    .plan_run = fa_cu_plan_run,
    .task_prepare = fa_cu_task_prepare,
    .task_release = fa_cu_task_release,
    .task_run = fa_cu_task_run,
    .device_pointers = true,
};
