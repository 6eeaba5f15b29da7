/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/host_memory.h"

#include <string.h>

#include "core/context.h"

fa_status fa_host_buffer_create(fa_buffer *buffer)
{
    buffer->address = fa_alloc(buffer->device->context, buffer->size);
    return buffer->address ? FA_OK : FA_OUT_OF_MEMORY;
}

fa_status fa_host_buffer_wrap(fa_buffer *buffer, void *memory)
{
    buffer->address = memory;
    return FA_OK;
}

void fa_host_buffer_destroy(fa_buffer *buffer)
{
    if (buffer->owned)
        fa_release(buffer->device->context, buffer->address, buffer->size);
}

fa_status fa_host_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                               size_t size)
{
    (void)queue;
    memcpy((char *)buffer->address + offset, source, size);
    return FA_OK;
}

fa_status fa_host_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                              size_t size)
{
    (void)queue;
    memcpy(target, (const char *)buffer->address + offset, size);
    return FA_OK;
}

fa_status fa_host_queue_create(fa_queue *queue)
{
    (void)queue;
    return FA_OK;
}

fa_status fa_host_queue_wait(fa_queue *queue)
{
    (void)queue;
    return FA_OK;
}

void fa_host_queue_destroy(fa_queue *queue)
{
    (void)queue;
}
