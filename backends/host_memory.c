/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__linux__)
#define _DEFAULT_SOURCE /* madvise() */
#endif
#include "backends/host_memory.h"

#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/context.h"

/* Large pages for what is large: memory is read faster with them. A hint, no more. */
static void prefer_large_pages(char *memory, size_t size)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const size_t page = (size_t)2 << 20, worth_it = 2 * page;
    size_t skipped = (page - (uintptr_t)memory % page) % page;
    if (size >= worth_it && size - skipped >= page)
        (void)madvise(memory + skipped, (size - skipped) / page * page, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)size;
#endif
}

fa_status fa_host_buffer_create(fa_buffer *buffer)
{
    buffer->address = fa_alloc(buffer->device->context, buffer->size);
    if (!buffer->address)
        return FA_OUT_OF_MEMORY;
    prefer_large_pages(buffer->address, buffer->size);
    return FA_OK;
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

fa_status fa_host_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding)
{
    const fa_task_view view = fa_task_view_of(task, binding);
    (void)queue;
    for (int32_t group = 0; group < binding->groups; group++)
        task->run(&view, group);
    return FA_OK;
}
