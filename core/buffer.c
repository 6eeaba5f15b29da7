/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/device.h"
#include "core/status.h"

static fa_status make(fa_device *device, size_t size, void *memory, bool wrap, fa_buffer **buffer)
{
    fa_clear_error();
    if (!buffer)
        return fa_fail(FA_INVALID, "buffer is NULL, expected where to store the new buffer");
    *buffer = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    if (wrap && !memory && size > 0)
        return fa_fail(FA_INVALID, "memory is NULL with size %zu", size);
    if (size > PTRDIFF_MAX)
        return fa_fail(FA_OUT_OF_MEMORY, "size is %zu, expected at most %zu", size, (size_t)PTRDIFF_MAX);
    if (wrap && size > UINTPTR_MAX - (uintptr_t)memory)
        return fa_fail(FA_INVALID, "size is %zu from address %p on, expected memory that there can be", size,
                       memory);
    if (wrap && !device->info.host_memory)
        return fa_fail(FA_UNSUPPORTED, "%s cannot use host memory in place", device->info.name);
    FA_TRY(fa_device_check(device));
    fa_buffer *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    made->size = size;
    made->owned = !wrap;
    fa_status status =
        wrap ? device->backend->buffer_wrap(made, memory) : device->backend->buffer_create(made);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    *buffer = made;
    return fa_finish(FA_OK);
}

fa_status fa_buffer_create(fa_device *device, size_t size, fa_buffer **buffer)
{
    return make(device, size, NULL, false, buffer);
}

fa_status fa_buffer_wrap_host(fa_device *device, void *memory, size_t size, fa_buffer **buffer)
{
    return make(device, size, memory, true, buffer);
}

static fa_status check_range(const fa_queue *queue, const fa_buffer *buffer, size_t offset, const void *host,
                             size_t size)
{
    fa_clear_error();
    if (!queue || !buffer)
        return fa_fail(FA_INVALID, "%s is NULL", queue ? "buffer" : "queue");
    if (!host && size > 0)
        return fa_fail(FA_INVALID, "host memory is NULL with size %zu", size);
    if (queue->device != buffer->device)
        return fa_fail(FA_INVALID, "buffer belongs to device %s, the queue to %s", buffer->device->info.name,
                       queue->device->info.name);
    if (offset > buffer->size || size > buffer->size - offset)
        return fa_fail(FA_INVALID, "offset %zu with size %zu is outside the buffer's %zu bytes", offset, size,
                       buffer->size);
    return fa_device_check(queue->device);
}

fa_status fa_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source, size_t size)
{
    fa_status status = check_range(queue, buffer, offset, source, size);
    if (status != FA_OK || size == 0)
        return status;
    return fa_finish(queue->device->backend->buffer_write(queue, buffer, offset, source, size));
}

fa_status fa_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target, size_t size)
{
    fa_status status = check_range(queue, buffer, offset, target, size);
    if (status != FA_OK || size == 0)
        return status;
    return fa_finish(queue->device->backend->buffer_read(queue, buffer, offset, target, size));
}

fa_status fa_buffer_write_async(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                                size_t size)
{
    fa_status status = check_range(queue, buffer, offset, source, size);
    if (status != FA_OK || size == 0)
        return status;
    const fa_backend *backend = queue->device->backend;
    return fa_finish((backend->buffer_send ? backend->buffer_send
                                           : backend->buffer_write)(queue, buffer, offset, source, size));
}

fa_status fa_buffer_read_async(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                               size_t size)
{
    fa_status status = check_range(queue, buffer, offset, target, size);
    if (status != FA_OK || size == 0)
        return status;
    const fa_backend *backend = queue->device->backend;
    return fa_finish((backend->buffer_fetch ? backend->buffer_fetch
                                            : backend->buffer_read)(queue, buffer, offset, target, size));
}

fa_status fa_host_memory_create(fa_device *device, size_t size, void **memory)
{
    fa_clear_error();
    if (!memory)
        return fa_fail(FA_INVALID, "memory is NULL, expected where to store the new memory");
    *memory = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    if (size > PTRDIFF_MAX)
        return fa_fail(FA_OUT_OF_MEMORY, "size is %zu, expected at most %zu", size, (size_t)PTRDIFF_MAX);
    if (size == 0)
        return FA_OK;
    FA_TRY(fa_device_check(device));
    void *made = NULL;
    if (device->backend->host_create)
        FA_TRY(device->backend->host_create(device, size, &made));
    else if (!(made = fa_alloc(device->context, size)))
        return FA_OUT_OF_MEMORY;
    *memory = made;
    return fa_finish(FA_OK);
}

void fa_host_memory_destroy(fa_device *device, void *memory, size_t size)
{
    if (!device || !memory)
        return;
    const fa_message kept = fa_message_keep();
    if (!device->backend->host_destroy)
        fa_release(device->context, memory, size);
    else if (fa_device_works(device))
        device->backend->host_destroy(device, memory);
    fa_message_restore(&kept);
}

size_t fa_buffer_size(const fa_buffer *buffer)
{
    return buffer ? buffer->size : 0;
}

void fa_buffer_destroy(fa_buffer *buffer)
{
    if (!buffer)
        return;
    fa_message kept = fa_message_keep();
    if (fa_device_works(buffer->device))
        buffer->device->backend->buffer_destroy(buffer);
    fa_release(buffer->device->context, buffer, sizeof(*buffer));
    fa_message_restore(&kept);
}
