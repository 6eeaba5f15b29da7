/* SPDX-License-Identifier: Apache-2.0 */
/* The interop functions of a library that was built without Vulkan. */
#include <fastattn/vulkan.h>

#include "core/status.h"

static fa_status absent(void)
{
    fa_clear_error();
    return fa_fail(FA_UNSUPPORTED, "this library was built without Vulkan");
}

fa_status fa_device_open_vulkan(fa_context *context, const fa_vulkan_device_desc *desc, fa_device **device)
{
    (void)context;
    (void)desc;
    if (device)
        *device = NULL;
    return absent();
}

fa_status fa_queue_wrap_vulkan(fa_device *device, struct VkQueue_T *vk_queue, fa_queue **queue)
{
    (void)device;
    (void)vk_queue;
    if (queue)
        *queue = NULL;
    return absent();
}

fa_status fa_queue_record_vulkan(fa_device *device, struct VkCommandBuffer_T *vk_command_buffer,
                                 fa_queue **queue)
{
    (void)device;
    (void)vk_command_buffer;
    if (queue)
        *queue = NULL;
    return absent();
}

fa_status fa_buffer_wrap_vulkan(fa_device *device, uint64_t vk_buffer, size_t vk_size, size_t offset,
                                size_t size, fa_buffer **buffer)
{
    (void)device;
    (void)vk_buffer;
    (void)vk_size;
    (void)offset;
    (void)size;
    if (buffer)
        *buffer = NULL;
    return absent();
}
