/* SPDX-License-Identifier: Apache-2.0 */
/* How plans become pipelines and commands. */
#ifndef FA_VULKAN_PIPELINE_H
#define FA_VULKAN_PIPELINE_H

#include "backends/vulkan/queue.h"
#include "backends/vulkan/vulkan.h"

/* The push constants of every kernel. `at` are addresses, or without them, bytes behind a descriptor's offset. */
typedef struct fa_vk_push {
    uint64_t at[11];
    int32_t first, row_begin, rows, keys, groups, unused;
} fa_vk_push;

/* Specialisation constants, by number. */
typedef struct fa_vk_constants {
    uint32_t value[FA_VK_CONSTANTS];
} fa_vk_constants;

/* Where an operand lies: `bytes` from `at` on. */
typedef struct fa_vk_place {
    const fa_vk_buffer *buffer; /* NULL: absent */
    size_t at, bytes;
} fa_vk_place;

/* plan->impl */
typedef struct fa_vk_plan {
    fa_buffer *table;        /* see core/portable/table.h */
    VkPipeline attention[2]; /* of any rows; of rows at multiples of 16 bytes, none where they cannot be */
    VkPipeline merge;        /* none where nothing is split */
    VkPipeline scores[2], softmax, output[2]; /* of the row `standard` */
    fa_gpu_standard with;
} fa_vk_plan;

/* pipeline.c */
fa_status fa_vk_plan_prepare(fa_plan *plan);
void fa_vk_plan_release(fa_plan *plan);

/* The layouts that all pipelines share; part of a device that is being made. */
fa_status fa_vk_layouts_make(fa_vk_device *device);
void fa_vk_layouts_drop(fa_vk_device *device);

/* Whether this library has the module in the variant that the device takes. `name` as fa_vk_pipeline_get() has it. */
bool fa_vk_has_module(const fa_vk_device *device, const char *name);

/*
 * The pipeline of a module with these constants, from the device's list, or made with what the cache on disk has of it;
 * shared, and destroyed with the device. `name` is without the variant, of which `subgroups` is a part. Kernels with
 * FA_VK_SUBGROUP above 1 get whole subgroups of the device's size. FA_COMPILE where the driver refuses it.
 */
fa_status fa_vk_pipeline_get(fa_device *device, const char *name, bool subgroups,
                             const fa_vk_constants *constants, VkPipeline *pipeline);
void fa_vk_pipelines_release(fa_device *device);

/* run.c */
fa_status fa_vk_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);
/* Commands of a kernel: `groups` work-groups by `lines`. FA_UNSUPPORTED: more than the device dispatches. */
fa_status fa_vk_dispatch(const fa_vk_device *device, VkCommandBuffer commands, VkPipeline pipeline,
                         const fa_vk_push *push, int64_t groups, uint32_t lines);
/* What was written before is seen by kernels, and by copies, after. */
void fa_vk_barrier(const fa_vk_device *device, VkCommandBuffer commands);
/* Fills push->at, and without addresses, the descriptor set too. An absent operand is the table. */
void fa_vk_place_operands(const fa_vk_device *device, VkDescriptorSet set,
                          const fa_vk_place where[FA_VK_SLOTS], fa_vk_push *push);

/* standard.c */
fa_status fa_vk_standard_prepare(fa_plan *plan, fa_vk_plan *made);
fa_status fa_vk_standard_record(const fa_plan *plan, VkCommandBuffer commands, fa_vk_push *push,
                                bool aligned);

/* probe.c: finds out device->fragments; they stay unknown where that fails. */
void fa_vk_probe(fa_device *device);

#endif
