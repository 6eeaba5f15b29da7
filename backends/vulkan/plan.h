/* SPDX-License-Identifier: Apache-2.0 */
/* How plans become pipelines and commands. */
#ifndef FA_VULKAN_PLAN_H
#define FA_VULKAN_PLAN_H

#include "backends/vulkan/commands.h"
#include "backends/vulkan/queue.h"

/* plan->impl */
typedef struct fa_vk_plan {
    fa_buffer *work;         /* of the plan's own lengths */
    VkPipeline attention[2]; /* of any rows; of rows at multiples of 16 bytes, none where they cannot be */
    VkPipeline merge;        /* none where nothing is split */
} fa_vk_plan;

/* prepare.c */
fa_status fa_vk_plan_compile(const fa_plan *plan);
fa_status fa_vk_plan_prepare(fa_plan *plan);
void fa_vk_plan_release(fa_plan *plan);

/* What kernels read, copied to a buffer of the device's. */
fa_status fa_vk_upload(fa_device *device, const void *bytes, size_t size, fa_buffer **buffer);

/* task.c */
fa_status fa_vk_task_prepare(fa_task *task);
void fa_vk_task_release(fa_task *task);
fa_status fa_vk_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding);

/* run.c */
fa_status fa_vk_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);
fa_status fa_vk_work_check(const fa_buffer *buffer, size_t offset, size_t size);

/* probe.c: finds out device->fragments; they stay unknown where that fails. */
void fa_vk_probe(fa_device *device);

#endif
