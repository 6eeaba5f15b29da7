/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend that computes nothing: every path of the API up to the kernels, on a machine without a
 * driver. Outputs keep whatever they held. It serves every problem, so that planning one can be tested.
 */
#include <stdio.h>

#include "backends/host_memory.h"

static const fa_kernel kernel = {
    .name = "null",
    .features = FA_FEATURE_ALL,
    .types_q = FA_TYPES_FLOAT,
    .types_k = FA_TYPES_CACHE | FA_TYPES_BITS,
    .types_v = FA_TYPES_CACHE | FA_TYPES_BITS,
    .types_o = FA_TYPES_FLOAT,
    .max_dim_qk = FA_MAX_HEAD_DIM,
    .max_dim_v = FA_MAX_HEAD_DIM,
    .traits = {.tile = {16, 16, 1},
               .stage = FA_STAGE_K | FA_STAGE_V,
               .element_bytes = 4,
               .buffers = 1,
               .flops_per_cycle = 32,
               .scores_per_cycle = 1},
};

static int null_count(const fa_context *context, char *reason, size_t reason_size)
{
    (void)context;
    (void)reason;
    (void)reason_size;
    return 1;
}

static void null_describe(const fa_context *context, int index, fa_device_info *info)
{
    (void)context;
    (void)index;
    (void)snprintf(info->name, sizeof(info->name), "computes nothing");
    info->available = 1;
    info->host_memory = 1;
    info->units = 4;
    info->onchip_bytes = 1 << 20;
}

static fa_status null_open(fa_device *device, void *import)
{
    (void)import;
    device->limits = (fa_limits){
        .units = device->info.units,
        .onchip_bytes = device->info.onchip_bytes,
        .clock_hz = 1e9,
        .bytes_per_second = 1e10,
        .sync_cycles = 100,
        .item_cycles = 1000,
        .launch_cycles = 1000,
    };
    device->kernel[0] = &kernel;
    device->kernels = 1;
    return FA_OK;
}

static void null_close(fa_device *device)
{
    (void)device;
}

static size_t null_scratch(const fa_plan *plan)
{
    (void)plan;
    return 64;
}

static fa_status null_prepare(fa_plan *plan)
{
    plan->scratch_bytes = null_scratch(plan);
    return FA_OK;
}

static void null_release(fa_plan *plan)
{
    (void)plan;
}

static fa_status null_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    (void)plan;
    (void)queue;
    (void)binding;
    return FA_OK;
}

extern const fa_backend fa_backend_null;
const fa_backend fa_backend_null = {
    .abi = FA_BACKEND_ABI,
    .name = "null",
    .count = null_count,
    .describe = null_describe,
    .open = null_open,
    .close = null_close,
    .buffer_create = fa_host_buffer_create,
    .buffer_wrap = fa_host_buffer_wrap,
    .buffer_destroy = fa_host_buffer_destroy,
    .buffer_write = fa_host_buffer_write,
    .buffer_read = fa_host_buffer_read,
    .queue_create = fa_host_queue_create,
    .queue_wait = fa_host_queue_wait,
    .queue_destroy = fa_host_queue_destroy,
    .host_pointers = true,
    .forks = true,
    .scratch_bytes = null_scratch,
    .plan_prepare = null_prepare,
    .plan_release = null_release,
    .plan_run = null_run,
    .task_run = fa_host_task_run,
};
