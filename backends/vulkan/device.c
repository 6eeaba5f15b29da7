/* SPDX-License-Identifier: Apache-2.0 */
/* The device's limits and kernels. */
#include "backends/vulkan/describe.h"
#include "backends/vulkan/plan.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"

/* Blocks of a matrix kernel: most rows and keys. */
typedef struct matrix_entry {
    fa_gpu_entry gpu;
    int32_t max_block_q;
} matrix_entry;

/*
 * Best first. What of it a device runs, and in blocks of how many rows, follows from the device. The short ones are for lists
 * whose blocks have 64 rows.
 */
static const matrix_entry entries[] = {
    {{"matrix64", {.kind = FA_GPU_MATRIX, .tiles = 2, .in_registers = true}, 64, 64}, 128},
    {{"matrix128", {.kind = FA_GPU_MATRIX, .tiles = 1, .in_registers = true}, 128, 64}, 128},
    {{"matrix64_short", {.kind = FA_GPU_MATRIX, .tiles = 2, .in_registers = true}, 64, 64}, 64},
    {{"matrix128_short", {.kind = FA_GPU_MATRIX, .tiles = 1, .in_registers = true}, 128, 64}, 64},
    {{"matrix256", {.kind = FA_GPU_MATRIX, .tiles = 1, .in_registers = true}, 256, 32}, 64},
    {{"matrix128_memory", {.kind = FA_GPU_MATRIX, .tiles = 1}, 128, 32}, 64},
    {{"matrix256_memory", {.kind = FA_GPU_MATRIX, .tiles = 1}, 256, 32}, 32},
};

enum {
    ENTRIES = sizeof(entries) / sizeof(entries[0]),
    LINE_PAD = 16,   /* bytes after each row of a matrix kernel in shared memory */
    GROUP_DIMS = 32, /* of a block of ggml's formats */
    GROUP_NOTES = 4, /* floats that are staged for a block of k and one of v */
    TYPES_CODED = FA_TYPE(FA_E4M3) | FA_TYPE(FA_E5M2) | FA_TYPE(FA_Q8_0) | FA_TYPE(FA_Q4_0) |
                  FA_TYPE(FA_Q4_1) | FA_TYPE(FA_Q5_0) | FA_TYPE(FA_Q5_1) | FA_TYPE(FA_IQ4_NL),
};

/* Rows of q pass through the memory that keys and values are staged in later: as many as fit there. */
static bool matrix_kernel(const fa_vk_device *d, const matrix_entry *entry, fa_gpu_kernel *impl,
                          fa_kernel *kernel)
{
    const fa_vk_caps *caps = &d->caps;
    const int32_t dims = entry->gpu.max_dim_v, step = 16 * entry->gpu.impl.tiles;
    int32_t fixed = 2048 + 2 * LINE_PAD * entry->gpu.max_block_kv;
    if (entry->gpu.impl.in_registers)
        fixed += entry->gpu.max_block_kv * (dims / GROUP_DIMS) * GROUP_NOTES * (int32_t)sizeof(float);
    *impl = entry->gpu.impl;
    if (!caps->matrix || (impl->in_registers && d->fragments.rows == 0) || caps->local_bytes < (size_t)fixed)
        return false;
    int32_t rows = (int32_t)((caps->local_bytes - (size_t)fixed) / (size_t)(2 * dims + LINE_PAD));
    rows = FA_MIN(rows, entry->max_block_q);
    rows = FA_MIN(rows, (int32_t)(caps->group_size / caps->subgroup_size) * step) / step * step;
    if (rows == 0)
        return false;
    *kernel = fa_gpu_common_kernel(&entry->gpu);
    kernel->types_q = kernel->types_k = kernel->types_v = FA_TYPE(FA_F16);
    kernel->max_dim_qk = dims;
    kernel->p_type = FA_F16;
    kernel->features &= ~(unsigned)FA_FEATURE_SCALES;
    kernel->declines = impl->in_registers ? "there is no decoder of it for cooperative matrices"
                                          : "what is decoded would be rounded to f16";
    if (impl->in_registers) {
        kernel->features &= ~(unsigned)FA_FEATURE_TERMS;
        kernel->types_k = kernel->types_v = FA_TYPE(FA_F16) | TYPES_CODED;
    }
    kernel->traits = (fa_tile_traits){
        .tile = {rows, 16, 16}, /* fewer rows leave subgroups without work */
        .stage = FA_STAGE_K | FA_STAGE_V | (impl->in_registers ? 0 : FA_STAGE_S),
        .element_bytes = 2,
        .score_bytes = 6, /* f32 scores and f16 weights */
        .buffers = 1,
        .fixed_bytes = fixed + (impl->in_registers ? 0 : (LINE_PAD + LINE_PAD + 4) * rows),
        .max_block_q = rows,
        .max_block_kv = entry->gpu.max_block_kv,
        .key_turns = 16,
        .exposed = 0.2,
        .flops_per_cycle = impl->in_registers ? 1400 : 500,
        .scores_per_cycle = impl->in_registers ? 60 : 12,
        .rescales_per_cycle = 200,
    };
    return true;
}

static fa_status vulkan_open(fa_device *device, void *import)
{
    bool layout = false;
    fa_status status = fa_vk_device_start(device, import, &layout);
    if (status != FA_OK)
        return status;
    fa_vk_device *d = fa_vk_device_of(device);
    if (d->caps.matrix && !fa_vk_has_module(d, "probe")) {
        d->caps.matrix = false;
        fa_log(device->context, FA_LOG_WARN,
               "vulkan: %s has cooperative matrices, this library was built without", device->info.name);
    }
    if (d->caps.matrix && layout)
        fa_vk_probe(device);
    const double clock_hz = 1.5e9; /* Vulkan does not tell */
    const fa_gpu_limits limits = {
        .units = d->caps.units,
        .clock_hz = clock_hz,
        .local_bytes = d->caps.local_bytes,
        .group_size = d->caps.group_size,
        .work_bytes = d->caps.address ? d->caps.alloc_bytes : d->caps.range,
        .tensor_bytes = d->caps.address ? 0 : d->caps.range - d->caps.align,
        .loop_turns = d->caps.loop_turns <= INT32_MAX ? (int32_t)d->caps.loop_turns : 0,
    };
    device->limits = fa_gpu_limits_of(&limits);
    for (int i = 0; i < ENTRIES; i++) {
        if (matrix_kernel(d, &entries[i], &d->impls[device->kernels], &d->kernels[device->kernels]))
            fa_gpu_kernel_add(device, d->impls, d->kernels);
    }
    fa_gpu_kernels_add(device, &limits, d->impls, d->kernels);
    return FA_OK;
}

const fa_backend fa_backend_vulkan = {
    .abi = FA_BACKEND_ABI,
    .name = "vulkan",
    .count = fa_vk_device_count,
    .describe = fa_vk_device_describe,
    .open = vulkan_open,
    .close = fa_vk_device_stop,
    .buffer_create = fa_vk_buffer_create,
    .buffer_destroy = fa_vk_buffer_destroy,
    .buffer_write = fa_vk_buffer_write,
    .buffer_read = fa_vk_buffer_read,
    .queue_create = fa_vk_queue_create,
    .queue_wait = fa_vk_queue_wait,
    .queue_seconds = fa_vk_queue_seconds,
    .queue_destroy = fa_vk_queue_destroy,
    .queue_check = fa_vk_queue_check,
    .plan_compile = fa_vk_plan_compile,
    .plan_prepare = fa_vk_plan_prepare,
    .plan_release = fa_vk_plan_release,
    .plan_run = fa_vk_plan_run,
    .task_prepare = fa_vk_task_prepare,
    .task_release = fa_vk_task_release,
    .task_run = fa_vk_task_run,
    .work_check = fa_vk_work_check,
};
