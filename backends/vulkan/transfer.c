/* SPDX-License-Identifier: Apache-2.0 */
/* Copies between the host's memory and buffers. */
#include <string.h>

#include "backends/vulkan/commands.h"
#include "backends/vulkan/queue.h"
#include "core/size.h"
#include "core/status.h"

/* One piece between the staging buffer and the device's own memory, in the queue's order and waited for. */
static fa_status copy_piece(fa_queue *queue, VkBuffer from, size_t from_at, VkBuffer to, size_t to_at,
                            size_t bytes)
{
    const fa_vk_device *d = fa_vk_device_of(queue->device);
    fa_vk_slot *slot;
    fa_status status = fa_vk_queue_begin(queue, false, &slot);
    if (status != FA_OK)
        return status;
    const VkBufferCopy region = {from_at, to_at, bytes};
    fa_vk_barrier(d, slot->commands);
    d->vk.vkCmdCopyBuffer(slot->commands, from, to, 1, &region);
    fa_vk_barrier(d, slot->commands);
    status = fa_vk_queue_submit(queue, slot);
    return status == FA_OK ? fa_vk_queue_wait(queue) : status;
}

/* One of source and target is NULL: the direction. */
static fa_status copy_range(fa_queue *queue, const fa_buffer *buffer, size_t offset, const char *source,
                            char *target, size_t size)
{
    const fa_vk_buffer *b = buffer->impl;
    const fa_vk_queue *q = queue->impl;
    if (q->recording)
        return fa_fail(FA_UNSUPPORTED, "queue records commands and copies nothing");
    fa_status status = fa_vk_queue_wait(queue);
    if (status != FA_OK)
        return status;
    if (b->mapped) {
        memcpy(source ? b->mapped + offset : target, source ? source : b->mapped + offset, size);
        return FA_OK;
    }
    fa_buffer *staging;
    status = fa_vk_queue_staging(queue, &staging);
    if (status != FA_OK)
        return status;
    const fa_vk_buffer *s = staging->impl;
    for (size_t done = 0, part; done < size && status == FA_OK; done += part) {
        part = FA_MIN(size - done, (size_t)FA_VK_STAGING_BYTES);
        if (source)
            memcpy(s->mapped, source + done, part);
        status = source ? copy_piece(queue, s->handle, 0, b->handle, b->origin + offset + done, part)
                        : copy_piece(queue, b->handle, b->origin + offset + done, s->handle, 0, part);
        if (target && status == FA_OK)
            memcpy(target + done, s->mapped, part);
    }
    return status;
}

fa_status fa_vk_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size)
{
    return copy_range(queue, buffer, offset, source, NULL, size);
}

fa_status fa_vk_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                            size_t size)
{
    return copy_range(queue, buffer, offset, NULL, target, size);
}
