/* SPDX-License-Identifier: Apache-2.0 */
/* How plans become pipelines and commands. */
#ifndef FA_VULKAN_PLAN_H
#define FA_VULKAN_PLAN_H

#include "backends/vulkan/commands.h"
#include "backends/vulkan/queue.h"

/* plan->impl */
typedef struct fa_vk_plan {
    fa_buffer *table;        /* see core/portable/table.h */
    VkPipeline attention[2]; /* of any rows; of rows at multiples of 16 bytes, none where they cannot be */
    VkPipeline merge;        /* none where nothing is split */
    VkPipeline scores[2], softmax, output[2]; /* of the row `standard` */
    fa_gpu_standard with;
} fa_vk_plan;

/* standard.c */
fa_status fa_vk_standard_prepare(fa_plan *plan, fa_vk_plan *made);
fa_status fa_vk_standard_record(const fa_plan *plan, VkCommandBuffer commands, fa_vk_push *push,
                                bool aligned);

/* prepare.c */
fa_status fa_vk_plan_prepare(fa_plan *plan);
void fa_vk_plan_release(fa_plan *plan);

/* run.c */
fa_status fa_vk_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);

/* probe.c: finds out device->fragments; they stay unknown where that fails. */
void fa_vk_probe(fa_device *device);

#endif
