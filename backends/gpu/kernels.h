/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels that every GPU backend has, from what a device offers: which of them it runs, how they are tiled there,
 * and what about a plan's operands and launches follows from that. The kernels themselves are the backend's.
 */
#ifndef FA_GPU_KERNELS_H
#define FA_GPU_KERNELS_H

#include "core/backend.h"

typedef enum fa_gpu_kind { FA_GPU_TILE, FA_GPU_ROWS, FA_GPU_MATRIX } fa_gpu_kind;

/* What the backends know of a kernel of the device: fa_kernel.impl. The device's limits decide, so it is its own. */
typedef struct fa_gpu_kernel {
    fa_gpu_kind kind;
    int32_t lanes;     /* tile: work-items beside each other     */
    int32_t depth;     /* tile: dims, or keys, of a step         */
    int32_t stages;    /* tile: steps in local memory at a time  */
    int32_t group;     /* rows: work-items of a group            */
    int32_t split;     /* rows: work-items that share a key      */
    int32_t tiles;     /* matrix: tiles of 16 rows of a subgroup */
    bool in_registers; /* matrix: scores become weights in registers */
} fa_gpu_kernel;

enum {
    FA_GPU_TILE_ROWS = 8, /* rows of a work-item of the tile kernels                                        */
    FA_GPU_PLACES = 4,    /* words in local memory that rows kernels have for each key of a block in pages  */
};

/* A kernel as it is written down, before the device's limits are known. */
typedef struct fa_gpu_entry {
    const char *name;
    fa_gpu_kernel impl;
    int32_t max_dim_v, max_block_kv;
} fa_gpu_entry;

typedef struct fa_gpu_limits {
    uint32_t units;
    double clock_hz;
    size_t local_bytes;    /* of a work-group                    */
    size_t group_size;     /* most work-items of a work-group    */
    uint64_t tensor_bytes; /* as fa_limits has it                */
    uint64_t work_bytes;   /* likewise                           */
    int32_t loop_turns;    /* likewise                           */
} fa_gpu_limits;

fa_limits fa_gpu_limits_of(const fa_gpu_limits *limits);

/*
 * Adds the tile and rows kernels that the device runs to those it has. Element n of `impls` and `kernels` is
 * of the device's kernel n.
 */
void fa_gpu_kernels_add(fa_device *device, const fa_gpu_limits *limits, fa_gpu_kernel impls[FA_MAX_KERNELS],
                        fa_kernel kernels[FA_MAX_KERNELS]);
/* Adds one that the caller has filled, as the element after the last. */
void fa_gpu_kernel_add(fa_device *device, fa_gpu_kernel impls[FA_MAX_KERNELS],
                       fa_kernel kernels[FA_MAX_KERNELS]);

/* A kernel that serves everything; traits are the caller's to fill. */
fa_kernel fa_gpu_common_kernel(const fa_gpu_entry *entry);

/* Whether rows of q, k, v and o can lie at multiples of 16 bytes, but for those of formats of caches. */
bool fa_gpu_can_align(const fa_problem *p);
/* Whether steps to a key, or to a page, need more than 31 bits. */
bool fa_gpu_far_strides(const fa_problem *p);
/* Whether keys lie in pages, and their rows too far apart to be counted in 31 bits, in the largest unit of all steps. */
bool fa_gpu_far_pages(const fa_problem *p);
/* Whether a tile kernel sums scores over 64 dims at a time: one long sum is less exact, parts take registers. */
bool fa_gpu_in_parts(const fa_problem *p);
/* Dims of v as a tile kernel has them in registers. */
int64_t fa_gpu_padded_dim_v(const fa_plan *plan, const fa_gpu_kernel *impl);

#endif
