/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/vulkan/vulkan.h"
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

fa_status fa_vk_buffer_make(fa_device *device, size_t size, fa_status (*create)(fa_buffer *buffer),
                            fa_buffer **buffer)
{
    fa_buffer *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    *made = (fa_buffer){.device = device, .size = size, .owned = true};
    fa_status status = create(made);
    if (status == FA_OK)
        *buffer = made;
    else
        fa_release(device->context, made, sizeof(*made));
    return status;
}

void fa_vk_buffer_drop(fa_buffer *buffer)
{
    if (!buffer)
        return;
    fa_vk_buffer_destroy(buffer);
    fa_release(buffer->device->context, buffer, sizeof(*buffer));
}
