/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "backends/vulkan/pipeline.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"

static uint64_t address_of(const fa_vk_device *d, VkBuffer handle)
{
    const VkBufferDeviceAddressInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                            .buffer = handle};
    return d->caps.address ? d->vk.vkGetBufferDeviceAddress(d->handle, &info) : 0;
}

static VkResult make_handle(const fa_vk_device *d, size_t bytes, VkBuffer *handle)
{
    const VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = bytes,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 (d->caps.address ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : (VkBufferUsageFlags)0),
        .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
    };
    return d->vk.vkCreateBuffer(d->handle, &info, NULL, handle);
}

/* A VkBuffer in memory with one of these sets of flags, the first that there is. */
static fa_status make_buffer(fa_buffer *buffer, const VkMemoryPropertyFlags *flags, int choices)
{
    const fa_vk_device *d = fa_vk_device_of(buffer->device);
    fa_vk_buffer *made = fa_alloc_zeroed(buffer->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    buffer->impl = made;
    made->bytes = fa_align64(buffer->size); /* kernels read whole words, the last one too */
    if (buffer->size == 0)
        return FA_OK;
    const char *call = "vkCreateBuffer";
    fa_status status = FA_OK;
    VkResult result = make_handle(d, made->bytes, &made->handle);
    if (result == VK_SUCCESS) {
        VkMemoryRequirements needs;
        d->vk.vkGetBufferMemoryRequirements(d->handle, made->handle, &needs);
        status = FA_OUT_OF_MEMORY;
        for (int i = 0; i < choices && status != FA_OK; i++)
            status = fa_vk_piece_take(buffer->device, &needs, flags[i], &made->piece);
    }
    if (result == VK_SUCCESS && status == FA_OK) {
        call = "vkBindBufferMemory";
        result = d->vk.vkBindBufferMemory(d->handle, made->handle, made->piece.block->handle,
                                          made->piece.part->offset);
    }
    if (result != VK_SUCCESS || status != FA_OK) {
        fa_vk_buffer_destroy(buffer);
        return result != VK_SUCCESS ? fa_vk_fail(result, call) : status;
    }
    made->address = address_of(d, made->handle);
    if (made->piece.block->mapped)
        made->mapped = made->piece.block->mapped + made->piece.part->offset;
    buffer->storage = (const void *)(uintptr_t)made;
    return FA_OK;
}

fa_status fa_vk_buffer_create(fa_buffer *buffer)
{
    static const VkMemoryPropertyFlags unified[] = {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT |
                                                    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                                    VK_MEMORY_PROPERTY_HOST_COHERENT_BIT},
                                       apart[] = {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT};
    const fa_vk_device *d = fa_vk_device_of(buffer->device);
    fa_status status = d->caps.unified ? make_buffer(buffer, unified, 1) : make_buffer(buffer, apart, 1);
    if (status == FA_OK && !d->caps.unified) /* FASTATTN_VULKAN_LIMITS: as if it were not */
        ((fa_vk_buffer *)buffer->impl)->mapped = NULL;
    return status;
}

fa_status fa_vk_staging_create(fa_buffer *buffer)
{
    static const VkMemoryPropertyFlags flags[] = {
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
            VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT};
    return make_buffer(buffer, flags, 2);
}

fa_status fa_vk_buffer_wrap_handle(fa_buffer *buffer, VkBuffer handle, size_t bytes, size_t origin)
{
    fa_vk_buffer *made = fa_alloc_zeroed(buffer->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    *made = (fa_vk_buffer){
        .handle = handle,
        .address = address_of(fa_vk_device_of(buffer->device), handle),
        .origin = origin,
        .bytes = bytes,
    };
    buffer->impl = made;
    return FA_OK;
}

void fa_vk_buffer_destroy(fa_buffer *buffer)
{
    const fa_vk_device *d = fa_vk_device_of(buffer->device);
    fa_vk_buffer *b = buffer->impl;
    if (b->handle && buffer->owned)
        d->vk.vkDestroyBuffer(d->handle, b->handle, NULL);
    fa_vk_piece_give(buffer->device, &b->piece);
    fa_release(buffer->device->context, b, sizeof(*b));
    buffer->impl = NULL;
}

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
