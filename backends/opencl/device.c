/* SPDX-License-Identifier: Apache-2.0 */
/* The device's limits and kernel rows. */
#include <stdio.h>

#include "backends/opencl/describe.h"
#include "backends/opencl/pipeline.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"

enum {
    TILE_ROWS = 8,     /* rows of a work-item of the tile kernels                                       */
    LARGE_GROUP = 256, /* beyond it a work-item has too few registers                                   */
    SMALL_GROUP = 64,  /* the least that a tile is made for                                             */
    PAD_STAGE = 6,     /* floats that the lines of a step are longer than what they hold                */
    PAD_EXCHANGE = 4,
    PAD_LINES = 16,    /* floats after each four lines of a step of the yardstick                       */
    UNSAFE_BYTES = 16, /* a flag in local memory                                                        */
};

typedef struct row_entry {
    const char *name;
    fa_cl_kernel kernel;
    int32_t max_dim_v, max_block_kv;
} row_entry;

#define TILE(lanes_, dims, keys) {"tile" #lanes_, {.kind = FA_CL_TILE, .lanes = lanes_}, dims, keys},
#define ROWS(group_, split_) \
    {"rows" #group_, {.kind = FA_CL_ROWS, .group = group_, .split = split_}, FA_MAX_HEAD_DIM, 256},
#define STANDARD(lanes_, depth_) \
    {"standard", {.kind = FA_CL_STANDARD, .lanes = lanes_, .depth = depth_}, FA_MAX_HEAD_DIM, 0},
static const row_entry entries[] = {
#include "kernels.inc"
};
#undef TILE
#undef ROWS
#undef STANDARD

enum { ENTRIES = sizeof(entries) / sizeof(entries[0]) };

fa_cl_device *fa_cl_device_of(const fa_device *device)
{
    return device->impl;
}

int fa_cl_chunk_shift(const fa_cl_caps *caps)
{
    int shift = 0;
    while (caps->alloc_bytes >> shift > 1)
        shift++;
    return shift;
}

static fa_kernel_row common_row(const row_entry *entry)
{
    return (fa_kernel_row){
        .name = entry->name,
        .features = FA_FEATURE_ALL,
        .types_q = FA_TYPES_FLOAT,
        .types_k = FA_TYPES_FLOAT,
        .types_v = FA_TYPES_FLOAT,
        .types_o = FA_TYPES_FLOAT,
        .max_dim_qk = FA_MAX_HEAD_DIM,
        .max_dim_v = entry->max_dim_v,
        .p_type = FA_F32,
    };
}

/* Steps as deep as local memory allows for the largest block, and two of them if it does. */
static void choose_depth(fa_cl_kernel *kernel, const row_entry *entry, int32_t rows, size_t local_bytes)
{
    static const struct {
        int32_t depth, stages;
    } choice[] = {{16, 2}, {8, 2}, {8, 1}};
    int32_t wide = FA_MAX(entry->max_block_kv, entry->max_dim_v);
    for (size_t i = 0; i < sizeof(choice) / sizeof(choice[0]); i++) {
        kernel->depth = choice[i].depth;
        kernel->stages = choice[i].stages;
        size_t stage = (size_t)kernel->depth * (size_t)(rows + wide + PAD_STAGE) * sizeof(float);
        if ((size_t)kernel->stages * stage + UNSAFE_BYTES <= local_bytes)
            return;
    }
}

/* False where work-groups of the device are too small. */
static bool tile_row(const fa_cl_caps *caps, const row_entry *entry, fa_cl_kernel *kernel, fa_kernel_row *row)
{
    int32_t group = (int32_t)FA_MIN(caps->group_size, LARGE_GROUP), lines = group / kernel->lanes;
    if (lines == 0)
        return false;
    int32_t rows = lines * TILE_ROWS,
            least = FA_MIN(lines, FA_MAX(SMALL_GROUP / kernel->lanes, 1)) * TILE_ROWS;
    choose_depth(kernel, entry, rows, caps->local_bytes);
    *row = common_row(entry);
    row->traits = (fa_tile_traits){
        .tile = {least, 4 * kernel->lanes, 4 * kernel->lanes},
        .element_bytes = sizeof(float),
        .buffers = kernel->stages,
        .slice = kernel->depth,
        .exchange = kernel->lanes,
        .fixed_bytes = UNSAFE_BYTES + kernel->stages *
                                          (kernel->depth * PAD_STAGE + kernel->lanes * PAD_EXCHANGE) *
                                          (int32_t)sizeof(float),
        .max_block_q = rows,
        .max_block_kv = entry->max_block_kv,
        .exposed = 0.4,
        .flops_per_cycle = 140,
        .scores_per_cycle = 8,
    };
    return true;
}

static bool rows_row(const fa_cl_caps *caps, const row_entry *entry, const fa_cl_kernel *kernel,
                     fa_kernel_row *row)
{
    if (caps->group_size < (size_t)kernel->group)
        return false;
    *row = common_row(entry);
    row->traits = (fa_tile_traits){
        .tile = {1, kernel->group / kernel->split, 8 * kernel->split},
        .stage = FA_STAGE_Q | FA_STAGE_S,
        .element_bytes = sizeof(float),
        .score_bytes = (kernel->split + 1) * (int32_t)sizeof(float),
        .fixed_bytes = (kernel->group * 9 + 8) * (int32_t)sizeof(float),
        .max_block_q = 8,
        .max_block_kv = entry->max_block_kv,
        .resident = 8,
        .flops_per_cycle = 40,
        .scores_per_cycle = 2,
    };
    return true;
}

/* The yardstick: tiles of both products in local memory, whole groups that a reduction can halve. */
static bool standard_row(const fa_cl_caps *caps, const row_entry *entry, fa_cl_kernel *kernel,
                         fa_kernel_row *row)
{
    kernel->group = SMALL_GROUP;
    while (kernel->group < LARGE_GROUP && (size_t)kernel->group * 2 <= caps->group_size)
        kernel->group *= 2;
    int32_t lines = kernel->group / kernel->lanes, wide = TILE_ROWS * (lines + kernel->lanes);
    *row = common_row(entry);
    row->features = FA_FEATURE_MASK | FA_FEATURE_LSE | FA_FEATURE_GROUPS;
    row->baseline = true;
    row->traits = (fa_tile_traits){
        .tile = {lines, 4 * kernel->lanes, 4 * kernel->lanes},
        .element_bytes = sizeof(float),
        .score_bytes = sizeof(float),
        .buffers = 1,
        .fixed_bytes = UNSAFE_BYTES + 2 * (kernel->depth * wide + kernel->depth / 4 * 2 * PAD_LINES) *
                                          (int32_t)sizeof(float),
        .exposed = 1,
        .flops_per_cycle = 100,
        .scores_per_cycle = 4,
    };
    return (size_t)row->traits.fixed_bytes <= caps->local_bytes;
}

static void set_limits(fa_device *device, const fa_cl_caps *caps)
{
    /* A driver does not say how fast its memory is. Round numbers: they weigh compute against memory. */
    const double bytes_per_cycle = 16, start_seconds = 1e-5;
    double clock = caps->clock_mhz * 1e6;
    device->limits = (fa_limits){
        .units = caps->units,
        .onchip_bytes = caps->local_bytes,
        .clock_hz = clock,
        .bytes_per_second = bytes_per_cycle * clock * caps->units,
        .sync_cycles = 1000,
        .item_cycles = 2000,
        .run_cycles = start_seconds * clock,
        .tensor_bytes = (uint64_t)(FA_CL_MAX_CHUNKS - 1) << fa_cl_chunk_shift(caps),
    };
}

static fa_status opencl_open(fa_device *device)
{
    fa_status status = fa_cl_device_start(device);
    if (status != FA_OK)
        return status;
    fa_cl_device *d = fa_cl_device_of(device);
    set_limits(device, &d->caps);
    for (int i = 0; i < ENTRIES; i++) {
        fa_cl_kernel *kernel = &d->kernels[device->rows];
        fa_kernel_row *row = &d->rows[device->rows];
        *kernel = entries[i].kernel;
        bool runs = kernel->kind == FA_CL_TILE   ? tile_row(&d->caps, &entries[i], kernel, row)
                    : kernel->kind == FA_CL_ROWS ? rows_row(&d->caps, &entries[i], kernel, row)
                                                 : standard_row(&d->caps, &entries[i], kernel, row);
        if (runs) {
            row->impl = kernel;
            device->row[device->rows++] = row;
        }
    }
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
    .plan_prepare = fa_cl_plan_prepare,
    .plan_release = fa_cl_plan_release,
    .plan_run = fa_cl_plan_run,
};
