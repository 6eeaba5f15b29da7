/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/vulkan/queue.h"

#include "core/context.h"
#include "core/status.h"

static VkResult make_sets(const fa_vk_device *d, fa_vk_queue *q, uint32_t count)
{
    const VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, count * FA_VK_SLOTS};
    const VkDescriptorPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = count,
        .poolSizeCount = 1,
        .pPoolSizes = &size,
    };
    return d->vk.vkCreateDescriptorPool(d->handle, &info, NULL, &q->sets);
}

static VkResult take_set(const fa_vk_device *d, const fa_vk_queue *q, VkDescriptorSet *set)
{
    const VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = q->sets,
        .descriptorSetCount = 1,
        .pSetLayouts = &d->set_layout,
    };
    return d->vk.vkAllocateDescriptorSets(d->handle, &info, set);
}

/* *call names what failed, here and below. */
static VkResult make_commands(const fa_vk_device *d, fa_vk_queue *q, const char **call)
{
    const VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = d->caps.family,
    };
    *call = "vkCreateCommandPool";
    VkResult result = d->vk.vkCreateCommandPool(d->handle, &pool, NULL, &q->pool);
    for (int i = 0; i < FA_VK_SLOTS_IN_FLIGHT && result == VK_SUCCESS; i++) {
        const VkCommandBufferAllocateInfo info = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = q->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1,
        };
        *call = "vkAllocateCommandBuffers";
        result = d->vk.vkAllocateCommandBuffers(d->handle, &info, &q->slot[i].commands);
        if (result == VK_SUCCESS && d->set_layout) {
            *call = "vkAllocateDescriptorSets";
            result = take_set(d, q, &q->slot[i].set);
        }
    }
    return result;
}

/* What tells when a slot has run. */
static VkResult make_signals(const fa_vk_device *d, fa_vk_queue *q)
{
    const VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    const VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                             .pNext = &type};
    const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkResult result = VK_SUCCESS;
    if (d->caps.timeline)
        return d->vk.vkCreateSemaphore(d->handle, &semaphore, NULL, &q->timeline);
    for (int i = 0; i < FA_VK_SLOTS_IN_FLIGHT && result == VK_SUCCESS; i++)
        result = d->vk.vkCreateFence(d->handle, &fence, NULL, &q->slot[i].fence);
    return result;
}

static VkResult make_queries(const fa_vk_device *d, fa_vk_queue *q)
{
    const VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = 2 * FA_VK_SLOTS_IN_FLIGHT,
    };
    if (d->caps.timestamp_bits == 0)
        return VK_SUCCESS;
    return d->vk.vkCreateQueryPool(d->handle, &info, NULL, &q->queries);
}

static fa_queue *allocate(fa_queue *queue)
{
    fa_vk_queue *q = fa_alloc_zeroed(queue->device->context, sizeof(*q));
    if (!q)
        return NULL;
    q->last_run = -1;
    for (int i = 0; i < FA_VK_SLOTS_IN_FLIGHT; i++)
        q->slot[i].query = 2 * (uint32_t)i;
    queue->impl = q;
    return queue;
}

static fa_status fill(fa_queue *queue, fa_vk_lane *lane)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    fa_vk_queue *q = queue->impl;
    const char *call = "vkCreateDescriptorPool";
    VkResult result = d->set_layout ? make_sets(d, q, FA_VK_SLOTS_IN_FLIGHT) : VK_SUCCESS;
    if (result == VK_SUCCESS)
        result = make_commands(d, q, &call);
    if (result == VK_SUCCESS) {
        call = d->caps.timeline ? "vkCreateSemaphore" : "vkCreateFence";
        result = make_signals(d, q);
    }
    if (result == VK_SUCCESS) {
        call = "vkCreateQueryPool";
        result = make_queries(d, q);
    }
    if (result == VK_SUCCESS) {
        q->lane = lane;
        return FA_OK;
    }
    fa_vk_queue_destroy(queue);
    return fa_vk_fail(result, call);
}

fa_status fa_vk_queue_create(fa_queue *queue)
{
    fa_vk_device *d = fa_vk_device_of(queue->device);
    if (!allocate(queue))
        return FA_OUT_OF_MEMORY;
    (void)pthread_mutex_lock(&d->lock);
    fa_vk_lane *lane = &d->lane[d->next_lane++ % d->lanes];
    (void)pthread_mutex_unlock(&d->lock);
    return fill(queue, lane);
}

fa_status fa_vk_queue_wrap(fa_queue *queue, VkQueue handle)
{
    if (!allocate(queue))
        return FA_OUT_OF_MEMORY;
    fa_vk_queue *q = queue->impl;
    q->own.handle = handle;
    (void)pthread_mutex_init(&q->own.lock, NULL);
    return fill(queue, &q->own);
}

fa_status fa_vk_queue_record(fa_queue *queue, VkCommandBuffer commands)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    if (!allocate(queue))
        return FA_OUT_OF_MEMORY;
    fa_vk_queue *q = queue->impl;
    q->recording = commands;
    VkResult result = d->set_layout ? make_sets(d, q, FA_VK_RECORDED_SETS) : VK_SUCCESS;
    if (result == VK_SUCCESS)
        return FA_OK;
    fa_vk_queue_destroy(queue);
    return fa_vk_fail(result, "vkCreateDescriptorPool");
}

fa_status fa_vk_queue_check(const fa_queue *queue)
{
    return ((const fa_vk_queue *)queue->impl)->recording
               ? fa_fail(FA_UNSUPPORTED, "queue records commands and runs nothing")
               : FA_OK;
}

fa_status fa_vk_queue_next_set(fa_queue *queue, VkDescriptorSet *set)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    fa_vk_queue *q = queue->impl;
    *set = VK_NULL_HANDLE;
    if (!d->set_layout)
        return FA_OK;
    if (q->recorded == FA_VK_RECORDED_SETS)
        return fa_fail(FA_UNSUPPORTED, "queue has recorded %d runs, the most without buffer device addresses",
                       FA_VK_RECORDED_SETS);
    VkResult result = take_set(d, q, set);
    q->recorded += result == VK_SUCCESS;
    return result == VK_SUCCESS ? FA_OK : fa_vk_fail(result, "vkAllocateDescriptorSets");
}

/* Returns when a slot has run. What failed is told once. */
static fa_status wait_for(fa_queue *queue, fa_vk_slot *slot)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    const fa_vk_queue *q = queue->impl;
    if (!slot->pending)
        return FA_OK;
    const VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &q->timeline,
        .pValues = &slot->value,
    };
    slot->pending = false;
    VkResult result = slot->fence ? d->vk.vkWaitForFences(d->handle, 1, &slot->fence, VK_TRUE, UINT64_MAX)
                                  : d->vk.vkWaitSemaphores(d->handle, &info, UINT64_MAX);
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, slot->fence ? "vkWaitForFences" : "vkWaitSemaphores");
    if (slot->fence)
        result = d->vk.vkResetFences(d->handle, 1, &slot->fence);
    return result == VK_SUCCESS ? FA_OK : fa_vk_fail(result, "vkResetFences");
}

fa_status fa_vk_queue_wait(fa_queue *queue)
{
    fa_vk_queue *q = queue->impl;
    fa_status status = FA_OK;
    for (int i = 0; i < FA_VK_SLOTS_IN_FLIGHT; i++) {
        fa_status one = wait_for(queue, &q->slot[(q->next + i) % FA_VK_SLOTS_IN_FLIGHT]);
        status = status == FA_OK ? one : status;
    }
    return status;
}

fa_status fa_vk_queue_begin(fa_queue *queue, bool is_run, fa_vk_slot **begun)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    fa_vk_queue *q = queue->impl;
    fa_vk_slot *slot = &q->slot[q->next];
    fa_status status = wait_for(queue, slot);
    if (status != FA_OK)
        return status;
    const VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    VkResult result = d->vk.vkResetCommandBuffer(slot->commands, 0);
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, "vkResetCommandBuffer");
    result = d->vk.vkBeginCommandBuffer(slot->commands, &info);
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, "vkBeginCommandBuffer");
    if (q->last_run == q->next)
        q->last_run = -1;
    slot->timed = is_run && q->queries;
    if (slot->timed) {
        d->vk.vkCmdResetQueryPool(slot->commands, q->queries, slot->query, 2);
        d->vk.vkCmdWriteTimestamp(slot->commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, q->queries,
                                  slot->query);
    }
    *begun = slot;
    return FA_OK;
}

fa_status fa_vk_queue_submit(fa_queue *queue, fa_vk_slot *slot)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    fa_vk_queue *q = queue->impl;
    if (slot->timed)
        d->vk.vkCmdWriteTimestamp(slot->commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, q->queries,
                                  slot->query + 1);
    VkResult result = d->vk.vkEndCommandBuffer(slot->commands);
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, "vkEndCommandBuffer");
    slot->value = q->submitted + 1;
    const VkTimelineSemaphoreSubmitInfo values = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &slot->value,
    };
    const VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = q->timeline ? &values : NULL,
        .commandBufferCount = 1,
        .pCommandBuffers = &slot->commands,
        .signalSemaphoreCount = q->timeline ? 1 : 0,
        .pSignalSemaphores = &q->timeline,
    };
    (void)pthread_mutex_lock(&q->lane->lock);
    result = d->vk.vkQueueSubmit(q->lane->handle, 1, &info, slot->fence);
    (void)pthread_mutex_unlock(&q->lane->lock);
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, "vkQueueSubmit");
    q->submitted = slot->value;
    slot->pending = true;
    if (slot->timed)
        q->last_run = q->next;
    q->next = (q->next + 1) % FA_VK_SLOTS_IN_FLIGHT;
    return FA_OK;
}

fa_status fa_vk_queue_seconds(fa_queue *queue, double *seconds)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    fa_vk_queue *q = queue->impl;
    fa_status status = fa_vk_queue_wait(queue);
    if (status != FA_OK)
        return status;
    if (q->recording || !q->queries)
        return fa_fail(FA_UNSUPPORTED, "%s",
                       q->recording ? "queue records and runs nothing"
                                    : "the device's queues have no timestamps");
    if (q->last_run < 0)
        return fa_fail(FA_INVALID, "queue has run no plan yet");
    uint64_t at[2] = {0, 0};
    VkResult result =
        d->vk.vkGetQueryPoolResults(d->handle, q->queries, q->slot[q->last_run].query, 2, sizeof(at), at,
                                    sizeof(at[0]), VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, "vkGetQueryPoolResults");
    const uint64_t mask =
        d->caps.timestamp_bits >= 64 ? UINT64_MAX : ((uint64_t)1 << d->caps.timestamp_bits) - 1;
    *seconds = (double)((at[1] - at[0]) & mask) * d->caps.timestamp_seconds;
    return FA_OK;
}

fa_status fa_vk_queue_staging(fa_queue *queue, fa_buffer **staging)
{
    fa_vk_queue *q = queue->impl;
    fa_status status = FA_OK;
    if (!q->staging)
        status = fa_vk_buffer_make(queue->device, FA_VK_STAGING_BYTES, fa_vk_staging_create, &q->staging);
    *staging = q->staging;
    return status;
}

void fa_vk_queue_destroy(fa_queue *queue)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    fa_vk_queue *q = queue->impl;
    for (int i = 0; i < FA_VK_SLOTS_IN_FLIGHT; i++) {
        if (q->slot[i].fence)
            d->vk.vkDestroyFence(d->handle, q->slot[i].fence, NULL);
    }
    fa_vk_buffer_drop(q->staging);
    if (q->timeline)
        d->vk.vkDestroySemaphore(d->handle, q->timeline, NULL);
    if (q->queries)
        d->vk.vkDestroyQueryPool(d->handle, q->queries, NULL);
    if (q->sets)
        d->vk.vkDestroyDescriptorPool(d->handle, q->sets, NULL);
    if (q->pool)
        d->vk.vkDestroyCommandPool(d->handle, q->pool, NULL);
    if (q->own.handle)
        (void)pthread_mutex_destroy(&q->own.lock);
    fa_release(queue->device->context, q, sizeof(*q));
    queue->impl = NULL;
}
