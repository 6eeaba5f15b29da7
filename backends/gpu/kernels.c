/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/gpu/kernels.h"

#include "core/backend.h"
#include "core/portable/scales.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

enum {
    LARGE_GROUP = 256, /* beyond it a work-item has too few registers                                   */
    SMALL_GROUP = 64,  /* the least that a tile is made for                                             */
    PAD_STAGE = 6,     /* floats that the lines of a step are longer than what they hold                */
    PAD_EXCHANGE = 4,
    UNSAFE_BYTES = 16, /* a flag in local memory                                                        */
    ROW_ALIGN = 16,    /* bytes that rows read by vectors lie at multiples of                           */
    DIM_ALIGN = 8,     /* elements, likewise                                                            */
};

/*
 * Best first: name, what it is, most dims of v, most keys of a block. How many rows a block of a tile kernel may have, and
 * how deep its steps are, follows from the device.
 */
static const fa_gpu_entry entries[] = {
    {"tile8", {.kind = FA_GPU_TILE, .lanes = 8}, 64, 64},
    {"tile16", {.kind = FA_GPU_TILE, .lanes = 16}, 128, 128},
    {"tile32", {.kind = FA_GPU_TILE, .lanes = 32}, 256, 128},
    {"tile64", {.kind = FA_GPU_TILE, .lanes = 64}, FA_MAX_HEAD_DIM, 256},
    {"rows128", {.kind = FA_GPU_ROWS, .group = 128, .split = 4}, FA_MAX_HEAD_DIM, 256},
    {"rows64", {.kind = FA_GPU_ROWS, .group = 64, .split = 4}, FA_MAX_HEAD_DIM, 256},
};

fa_kernel fa_gpu_common_kernel(const fa_gpu_entry *entry)
{
    return (fa_kernel){
        .name = entry->name,
        .features = FA_FEATURE_ALL,
        .types_q = FA_TYPES_FLOAT,
        .types_k = FA_TYPES_CACHE | FA_TYPES_BITS | FA_TYPES_ROW,
        .types_v = FA_TYPES_CACHE | FA_TYPES_BITS | FA_TYPES_ROW,
        .types_o = FA_TYPES_FLOAT,
        .max_dim_qk = FA_MAX_HEAD_DIM,
        .max_dim_v = entry->max_dim_v,
        .p_type = FA_F32,
    };
}

/* Steps as deep as local memory allows for the largest block, and two of them if it does. */
static void choose_depth(fa_gpu_kernel *impl, const fa_gpu_entry *entry, int32_t rows, size_t local_bytes)
{
    static const struct {
        int32_t depth, stages;
    } choice[] = {{16, 2}, {8, 2}, {8, 1}};
    int32_t wide = FA_MAX(entry->max_block_kv, entry->max_dim_v);
    for (size_t i = 0; i < sizeof(choice) / sizeof(choice[0]); i++) {
        impl->depth = choice[i].depth;
        impl->stages = choice[i].stages;
        size_t stage = (size_t)impl->depth * (size_t)(rows + wide + PAD_STAGE) * sizeof(float);
        if ((size_t)impl->stages * stage + UNSAFE_BYTES <= local_bytes)
            return;
    }
}

/* False where work-groups of the device are too small. */
static bool tile_kernel(const fa_gpu_limits *limits, const fa_gpu_entry *entry, fa_gpu_kernel *impl,
                        fa_kernel *kernel)
{
    int32_t group = (int32_t)FA_MIN(limits->group_size, LARGE_GROUP), lines = group / impl->lanes;
    if (lines == 0)
        return false;
    int32_t rows = lines * FA_GPU_TILE_ROWS,
            least = FA_MIN(lines, FA_MAX(SMALL_GROUP / impl->lanes, 1)) * FA_GPU_TILE_ROWS;
    choose_depth(impl, entry, rows, limits->local_bytes);
    *kernel = fa_gpu_common_kernel(entry);
    kernel->traits = (fa_tile_traits){
        .tile = {least, 4 * impl->lanes, 4 * impl->lanes},
        .element_bytes = sizeof(float),
        .buffers = impl->stages,
        .slice = impl->depth,
        .exchange = impl->lanes,
        .fixed_bytes = UNSAFE_BYTES + impl->stages * (impl->depth * PAD_STAGE + impl->lanes * PAD_EXCHANGE) *
                                          (int32_t)sizeof(float),
        .max_block_q = rows,
        .max_block_kv = entry->max_block_kv,
        .key_turns = 16,
        .exposed = 0.4,
        .flops_per_cycle = 140,
        .scores_per_cycle = 8,
    };
    return true;
}

static bool rows_kernel(const fa_gpu_limits *limits, const fa_gpu_entry *entry, const fa_gpu_kernel *impl,
                        fa_kernel *kernel)
{
    if (limits->group_size < (size_t)impl->group)
        return false;
    *kernel = fa_gpu_common_kernel(entry);
    /* Fetches are unrolled here, and those that count bits are long: drivers took minutes to compile them. */
    kernel->types_k &= ~FA_TYPE(FA_BITMAP_F16);
    kernel->types_v &= ~FA_TYPE(FA_BITMAP_F16);
    kernel->declines = "fetches that count bits are too long to unroll";
    /* The output's lines are added up where the scores' parts were: what that saves has the places of keys in pages, or most. */
    const int32_t lines = impl->group * 8, places = FA_MAX(FA_GPU_PLACES * entry->max_block_kv - lines, 0);
    kernel->traits = (fa_tile_traits){
        .tile = {1, impl->group / impl->split, 8 * impl->split},
        .stage = FA_STAGE_Q | FA_STAGE_S,
        .element_bytes = sizeof(float),
        .score_bytes = (impl->split + 1) * (int32_t)sizeof(float),
        .fixed_bytes = (lines + impl->group + 8 + places) * (int32_t)sizeof(float),
        .max_block_q = 8,
        .max_block_kv = entry->max_block_kv,
        .key_turns = 8,
        .resident = 2,
        .flops_per_cycle = 40,
        .scores_per_cycle = 2,
    };
    return true;
}

static bool make_kernel(const fa_gpu_limits *limits, const fa_gpu_entry *entry, fa_gpu_kernel *impl,
                        fa_kernel *kernel)
{
    *impl = entry->impl;
    switch (impl->kind) {
    case FA_GPU_TILE: return tile_kernel(limits, entry, impl, kernel);
    default: return rows_kernel(limits, entry, impl, kernel);
    }
}

void fa_gpu_kernels_add(fa_device *device, const fa_gpu_limits *limits, fa_gpu_kernel impls[FA_MAX_KERNELS],
                        fa_kernel kernels[FA_MAX_KERNELS])
{
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        if (make_kernel(limits, &entries[i], &impls[device->kernels], &kernels[device->kernels]))
            fa_gpu_kernel_add(device, impls, kernels);
    }
}

void fa_gpu_kernel_add(fa_device *device, fa_gpu_kernel impls[FA_MAX_KERNELS],
                       fa_kernel kernels[FA_MAX_KERNELS])
{
    kernels[device->kernels].impl = &impls[device->kernels];
    device->kernel[device->kernels] = &kernels[device->kernels];
    device->kernels++;
}

fa_limits fa_gpu_limits_of(const fa_gpu_limits *limits)
{
    /* A driver does not say how fast its memory is. Round numbers: they weigh compute against memory. */
    const double bytes_per_cycle = 16, start_seconds = 1e-5;
    return (fa_limits){
        .units = limits->units,
        .onchip_bytes = limits->local_bytes,
        .clock_hz = limits->clock_hz,
        .bytes_per_second = bytes_per_cycle * limits->clock_hz * limits->units,
        .sync_cycles = 1000,
        .item_cycles = 2000,
        .run_cycles = start_seconds * limits->clock_hz,
        .tensor_bytes = limits->tensor_bytes,
        .work_bytes = limits->work_bytes,
        .loop_turns = limits->loop_turns,
        .compiled = true,
    };
}

bool fa_gpu_in_parts(const fa_problem *p)
{
    enum { LONG_DIM = 128 };
    return p->dim_qk > LONG_DIM;
}

bool fa_gpu_can_align(const fa_problem *p)
{
    if (p->dim_qk % DIM_ALIGN != 0 || p->dim_v % DIM_ALIGN != 0)
        return false;
    for (int t = FA_Q; t <= FA_O; t++) {
        const fa_tensor *tensor = &p->tensor[t];
        for (int axis = 0; axis < 3 && !FA_TYPE_IS_CODED((int)tensor->dtype); axis++) {
            if (fa_dtype_bytes(tensor->dtype, tensor->stride[axis]) % ROW_ALIGN != 0)
                return false;
        }
    }
    return true;
}

bool fa_gpu_far_strides(const fa_problem *p)
{
    const int64_t far = (int64_t)1 << 28; /* elements */
    const bool pages = (p->features & FA_FEATURE_PAGES) != 0;
    bool any = false;
    for (int t = FA_K; t <= FA_V; t++) {
        const int64_t *stride = p->tensor[t].stride;
        any = any || stride[2] >= far || (pages && stride[0] >= far);
    }
    return any;
}

bool fa_gpu_far_pages(const fa_problem *p)
{
    bool far = false;
    for (int t = FA_K; t <= FA_V; t++) {
        const fa_tensor *x = &p->tensor[t];
        const int64_t page = fa_dtype_bytes(x->dtype, x->stride[0]),
                      key = fa_dtype_bytes(x->dtype, x->stride[2]);
        const uint64_t steps = (uint64_t)FA_PLACE_STEPS(key | page);
        far = far || p->span[t] / FA_PLACE_UNIT(steps) > INT32_MAX;
    }
    return (p->features & FA_FEATURE_PAGES) && far;
}

int64_t fa_gpu_padded_dim_v(const fa_plan *plan, const fa_gpu_kernel *impl)
{
    return fa_round_up(plan->problem.dim_v, 4 * impl->lanes);
}
