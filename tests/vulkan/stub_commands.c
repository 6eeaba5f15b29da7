/* SPDX-License-Identifier: Apache-2.0 */
/* Commands: done when they are recorded. */
#include "tests/vulkan/stub_internal.h"

static void check_recording(VkCommandBuffer commands)
{
    stub_check(OBJECT(commands), COMMANDS);
    if (!OBJECT(commands)->recording)
        stub.misuses++;
}

VkResult vkResetCommandBuffer(VkCommandBuffer commands, VkCommandBufferResetFlags flags)
{
    (void)flags;
    stub_check(OBJECT(commands), COMMANDS);
    MAY_FAIL();
    OBJECT(commands)->recording = false;
    return VK_SUCCESS;
}

VkResult vkBeginCommandBuffer(VkCommandBuffer commands, const VkCommandBufferBeginInfo *info)
{
    (void)info;
    stub_check(OBJECT(commands), COMMANDS);
    MAY_FAIL();
    OBJECT(commands)->recording = true;
    return VK_SUCCESS;
}

VkResult vkEndCommandBuffer(VkCommandBuffer commands)
{
    check_recording(commands);
    MAY_FAIL();
    OBJECT(commands)->recording = false;
    return VK_SUCCESS;
}

void vkCmdBindPipeline(VkCommandBuffer commands, VkPipelineBindPoint point, VkPipeline pipeline)
{
    (void)point;
    check_recording(commands);
    stub_check(OBJECT(pipeline), PIPELINE);
}

void vkCmdBindDescriptorSets(VkCommandBuffer commands, VkPipelineBindPoint point, VkPipelineLayout layout,
                             uint32_t first, uint32_t count, const VkDescriptorSet *set, uint32_t offsets,
                             const uint32_t *offset)
{
    (void)point;
    (void)first;
    (void)count;
    (void)offsets;
    (void)offset;
    check_recording(commands);
    stub_check(OBJECT(layout), LAYOUT);
    stub_check(OBJECT(*set), SET);
}

void vkCmdPushConstants(VkCommandBuffer commands, VkPipelineLayout layout, VkShaderStageFlags stages,
                        uint32_t offset, uint32_t size, const void *values)
{
    (void)stages;
    check_recording(commands);
    stub_check(OBJECT(layout), LAYOUT);
    if (offset != 0 || size > sizeof(OBJECT(commands)->pushed))
        stub.misuses++;
    else
        memcpy(OBJECT(commands)->pushed, values, size);
}

/* The buffer that an address lies in, if any; the lock is taken. */
static object *buffer_at(uint64_t address)
{
    for (size_t i = 0; i < STUB_BUFFERS; i++) {
        if (stub.buffers[i] && address - (uint64_t)(uintptr_t)stub.buffers[i]->bytes < stub.buffers[i]->size)
            return stub.buffers[i];
    }
    return NULL;
}

void vkCmdDispatch(VkCommandBuffer commands, uint32_t x, uint32_t y, uint32_t z)
{
    check_recording(commands);
    if (x == 0 || y == 0 || z == 0 || x > 65535 || y > 65535 || z > 65535)
        stub.misuses++;
    stub.dispatches++;
    /* Something that is the same in every run: o becomes q, where both are told by their addresses. */
    (void)pthread_mutex_lock(&stub.lock);
    const object *q = buffer_at(OBJECT(commands)->pushed[1]), *o = buffer_at(OBJECT(commands)->pushed[4]);
    if (q && o && q != o)
        memcpy(o->bytes, q->bytes, q->size < o->size ? q->size : o->size);
    (void)pthread_mutex_unlock(&stub.lock);
}

void vkCmdPipelineBarrier(VkCommandBuffer commands, VkPipelineStageFlags from, VkPipelineStageFlags to,
                          VkDependencyFlags flags, uint32_t barriers, const VkMemoryBarrier *barrier,
                          uint32_t b, const VkBufferMemoryBarrier *buffer_barriers, uint32_t i,
                          const VkImageMemoryBarrier *images)
{
    (void)from;
    (void)to;
    (void)flags;
    (void)barriers;
    (void)barrier;
    (void)b;
    (void)buffer_barriers;
    (void)i;
    (void)images;
    check_recording(commands);
}

void vkCmdCopyBuffer(VkCommandBuffer commands, VkBuffer from, VkBuffer to, uint32_t count,
                     const VkBufferCopy *region)
{
    (void)count;
    check_recording(commands);
    stub_check(OBJECT(from), BUFFER);
    stub_check(OBJECT(to), BUFFER);
    if (region->srcOffset + region->size > OBJECT(from)->size ||
        region->dstOffset + region->size > OBJECT(to)->size) {
        stub.misuses++;
        return;
    }
    memcpy(OBJECT(to)->bytes + region->dstOffset, OBJECT(from)->bytes + region->srcOffset,
           (size_t)region->size);
}

void vkCmdResetQueryPool(VkCommandBuffer commands, VkQueryPool pool, uint32_t first, uint32_t count)
{
    (void)first;
    (void)count;
    check_recording(commands);
    stub_check(OBJECT(pool), QUERIES);
}

void vkCmdWriteTimestamp(VkCommandBuffer commands, VkPipelineStageFlagBits stage, VkQueryPool pool,
                         uint32_t query)
{
    (void)stage;
    (void)query;
    check_recording(commands);
    stub_check(OBJECT(pool), QUERIES);
}

VkResult vkGetQueryPoolResults(VkDevice device, VkQueryPool pool, uint32_t first, uint32_t count, size_t size,
                               void *data, VkDeviceSize stride, VkQueryResultFlags flags)
{
    (void)first;
    (void)count;
    (void)size;
    (void)stride;
    (void)flags;
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(pool), QUERIES);
    MAY_FAIL();
    const uint64_t times[2] = {1000, 3000};
    memcpy(data, times, sizeof(times));
    return VK_SUCCESS;
}

VkResult vkQueueSubmit(VkQueue queue, uint32_t count, const VkSubmitInfo *info, VkFence fence)
{
    (void)count;
    stub_check(OBJECT(queue), QUEUE);
    stub_check(OBJECT(info->pCommandBuffers[0]), COMMANDS);
    if (OBJECT(info->pCommandBuffers[0])->recording || (!fence && info->signalSemaphoreCount != 1))
        stub.misuses++;
    if (fence)
        stub_check(OBJECT(fence), FENCE);
    MAY_FAIL();
    return VK_SUCCESS;
}

VkResult vkWaitSemaphores(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout)
{
    (void)timeout;
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(info->pSemaphores[0]), SEMAPHORE);
    MAY_FAIL();
    return VK_SUCCESS;
}

VkResult vkWaitForFences(VkDevice device, uint32_t count, const VkFence *fence, VkBool32 all,
                         uint64_t timeout)
{
    (void)count;
    (void)all;
    (void)timeout;
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(*fence), FENCE);
    MAY_FAIL();
    return VK_SUCCESS;
}

VkResult vkResetFences(VkDevice device, uint32_t count, const VkFence *fence)
{
    (void)count;
    stub_check(OBJECT(device), DEVICE);
    stub_check(OBJECT(*fence), FENCE);
    MAY_FAIL();
    return VK_SUCCESS;
}
