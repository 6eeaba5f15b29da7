/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's own instance, device, queues, command buffers and memory. */
#include <fastattn/vulkan.h>
#include <stdio.h>

#include "backends/vulkan/describe.h"
#include "backends/vulkan/queue.h"
#include "core/context.h"
#include "core/device.h"
#include "core/status.h"
#include "core/structs.h"

static fa_status check_device(const fa_device *device, bool handle, const char *field)
{
    if (!device || !handle)
        return fa_fail(FA_INVALID, "%s is NULL", device ? field : "device");
    if (device->backend != &fa_backend_vulkan)
        return fa_fail(FA_INVALID, "device is of the %s backend, expected vulkan", device->backend->name);
    return FA_OK;
}

static fa_status check_desc(const fa_vulkan_device_desc *d)
{
    const uint32_t known = 2 * (uint32_t)FA_VULKAN_COOPERATIVE_MATRIX - 1;
    if (!d->instance || !d->physical_device || !d->device)
        return fa_fail(FA_INVALID, "desc.%s is NULL",
                       !d->instance          ? "instance"
                       : !d->physical_device ? "physical_device"
                                             : "device");
    if (d->api_version < VK_API_VERSION_1_1)
        return fa_fail(FA_INVALID, "desc.api_version is %u.%u, expected 1.1 or later",
                       VK_API_VERSION_MAJOR(d->api_version), VK_API_VERSION_MINOR(d->api_version));
    if (d->features == 0 || (d->features & ~(known | (uint32_t)FA_VULKAN_NOTHING)) != 0)
        return fa_fail(FA_INVALID, "desc.features is 0x%x, expected FA_VULKAN_* bits, at least one",
                       d->features);
    return FA_OK;
}

fa_status fa_device_open_vulkan(fa_context *context, const fa_vulkan_device_desc *desc, fa_device **device)
{
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL, expected where to store the device");
    *device = NULL;
    if (!context || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "desc" : "context");
    fa_vulkan_device_desc d;
    fa_status status =
        fa_copy_struct(&d, sizeof(d), FA_VULKAN_DEVICE_DESC_0_1, desc, "fa_vulkan_device_desc");
    if (status == FA_OK)
        status = check_desc(&d);
    if (status != FA_OK)
        return status;
    char reason[256];
    PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr)d.get_instance_proc_addr;
    if (!get)
        get = fa_vk_entry(reason, sizeof(reason));
    if (!get)
        return fa_fail(FA_NO_DEVICE, "%s", reason);
    fa_vk_import import = {
        .physical = d.physical_device, .handle = d.device, .family = d.queue_family, .enabled = d.features};
    if (!fa_vk_load_instance(d.instance, get, d.api_version, &import.instance, reason, sizeof(reason)))
        return fa_fail(FA_NO_DEVICE, "%s", reason);
    fa_device_entry entry = {.backend = &fa_backend_vulkan, .import = &import};
    fa_vk_describe_import(&import, &entry.info);
    if (!entry.info.available)
        return fa_fail(FA_NO_DEVICE, "%s: %s", entry.info.name, entry.info.reason);
    return fa_device_open_entry(context, &entry, device);
}

/* A queue around a handle of which `make` makes the inside. */
static fa_status wrap(fa_device *device, fa_queue **queue, VkQueue handle, VkCommandBuffer commands)
{
    fa_queue *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    fa_status status = handle ? fa_vk_queue_wrap(made, handle) : fa_vk_queue_record(made, commands);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    *queue = made;
    return FA_OK;
}

fa_status fa_queue_wrap_vulkan(fa_device *device, struct VkQueue_T *vk_queue, fa_queue **queue)
{
    fa_clear_error();
    if (!queue)
        return fa_fail(FA_INVALID, "queue is NULL, expected where to store the new queue");
    *queue = NULL;
    fa_status status = check_device(device, vk_queue != NULL, "vk_queue");
    return status == FA_OK ? wrap(device, queue, vk_queue, VK_NULL_HANDLE) : status;
}

fa_status fa_queue_record_vulkan(fa_device *device, struct VkCommandBuffer_T *vk_command_buffer,
                                 fa_queue **queue)
{
    fa_clear_error();
    if (!queue)
        return fa_fail(FA_INVALID, "queue is NULL, expected where to store the new queue");
    *queue = NULL;
    fa_status status = check_device(device, vk_command_buffer != NULL, "vk_command_buffer");
    return status == FA_OK ? wrap(device, queue, VK_NULL_HANDLE, vk_command_buffer) : status;
}

fa_status fa_buffer_wrap_vulkan(fa_device *device, uint64_t vk_buffer, size_t vk_size, size_t offset,
                                size_t size, fa_buffer **buffer)
{
    fa_clear_error();
    if (!buffer)
        return fa_fail(FA_INVALID, "buffer is NULL, expected where to store the new buffer");
    *buffer = NULL;
    fa_status status = check_device(device, vk_buffer != 0, "vk_buffer");
    if (status == FA_OK && offset % 64 != 0)
        status = fa_fail(FA_INVALID, "offset is %zu, expected a multiple of 64", offset);
    if (status == FA_OK && (offset > vk_size || size > vk_size - offset))
        status = fa_fail(FA_INVALID, "offset %zu with size %zu is outside vk_buffer's %zu bytes", offset,
                         size, vk_size);
    if (status != FA_OK)
        return status;
    fa_buffer *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    *made = (fa_buffer){
        .device = device,
        .size = size > 0 ? size : vk_size - offset,
        .storage = (const void *)(uintptr_t)vk_buffer,
        .address = (void *)offset,
    };
    status = fa_vk_buffer_wrap_handle(made, (VkBuffer)(uintptr_t)vk_buffer, vk_size, offset);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    *buffer = made;
    return FA_OK;
}
