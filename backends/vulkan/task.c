/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: pipelines, operands, commands. */
#include "backends/vulkan/plan.h"
#include "core/context.h"
#include "core/status.h"

_Static_assert(FA_TASK_OPERANDS < FA_VK_SLOTS && FA_TASK_CONSTANTS == FA_VK_CONSTANTS - FA_VK_CONSTANT_0,
               "what task.glsl has");

/* task->impl */
typedef struct vk_task {
    fa_buffer *params;
    VkPipeline pipeline; /* the device's */
} vk_task;

static fa_status make_pipeline(const fa_task *task, vk_task *made)
{
    const fa_vk_caps *caps = &fa_vk_device_of(task->device)->caps;
    fa_vk_constants constants = {{0}};
    constants.value[FA_VK_SUBGROUP] = 1;
    constants.value[FA_VK_GROUP] = (uint32_t)FA_MIN((size_t)task->group, caps->group_size);
    for (int i = 0; i < FA_TASK_CONSTANTS; i++)
        constants.value[FA_VK_CONSTANT_0 + i] = (uint32_t)task->constant[i];
    return fa_vk_pipeline_get(task->device, task->name, false, &constants, &made->pipeline);
}

fa_status fa_vk_task_prepare(fa_task *task)
{
    vk_task *made = fa_alloc_zeroed(task->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    task->impl = made;
    fa_status status = make_pipeline(task, made);
    if (status == FA_OK)
        status = fa_vk_upload(task->device, task->params, task->params_bytes, &made->params);
    if (status != FA_OK)
        fa_vk_task_release(task);
    return status;
}

void fa_vk_task_release(fa_task *task)
{
    vk_task *made = task->impl;
    fa_vk_buffer_drop(made->params);
    fa_release(task->device->context, made, sizeof(*made));
}

static fa_status record(const fa_task *task, const fa_task_binding *binding, VkCommandBuffer commands,
                        VkDescriptorSet set)
{
    const fa_vk_device *d = fa_vk_device_of(task->device);
    const vk_task *made = task->impl;
    fa_vk_place where[FA_VK_SLOTS] = {{NULL, 0, 0}};
    fa_vk_push push = {{0}};
    where[0] = fa_vk_place_of(made->params, 0, task->params_bytes);
    for (int n = 0; n < FA_TASK_OPERANDS; n++)
        where[n + 1] = fa_vk_place_of(binding->buffer[n], binding->offset[n], task->operand[n].span);
    fa_vk_place_operands(d, set, where, &push);
    fa_vk_barrier(d, commands);
    if (set)
        d->vk.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, d->layout, 0, 1, &set, 0,
                                      NULL);
    fa_status status = fa_vk_dispatch(d, commands, made->pipeline, &push, binding->groups, 1);
    fa_vk_barrier(d, commands);
    return status;
}

fa_status fa_vk_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding)
{
    const fa_vk_queue *q = queue->impl;
    if (q->recording) {
        VkDescriptorSet set;
        FA_TRY(fa_vk_queue_next_set(queue, &set));
        return record(task, binding, q->recording, set);
    }
    fa_vk_slot *slot;
    FA_TRY(fa_vk_queue_begin(queue, task->timed, &slot));
    FA_TRY(record(task, binding, slot->commands, slot->set));
    return fa_vk_queue_submit(queue, slot);
}
