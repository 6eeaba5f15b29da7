/* SPDX-License-Identifier: Apache-2.0 */
#include "core/binding.h"

#include "core/device.h"
#include "core/status.h"

fa_status fa_call_check(const char *object, const void *made, const fa_device *device, const fa_queue *queue,
                        const char *argument, const void *given)
{
    if (!made || !queue || !given)
        return fa_fail(FA_INVALID, "%s is NULL", !made ? object : !queue ? "queue" : argument);
    if (queue->device != device)
        return fa_fail(FA_INVALID, "queue belongs to device %s, the %s to %s", queue->device->info.name,
                       object, device->info.name);
    return fa_device_check(device);
}

fa_status fa_queue_check(const fa_queue *queue)
{
    const fa_backend *b = queue->device->backend;
    return b->queue_check ? b->queue_check(queue) : FA_OK;
}

fa_status fa_buffer_check(const fa_device *device, const char *of, const char *name, const fa_buffer *buffer,
                          size_t offset, size_t alignment, size_t span)
{
    if (!buffer)
        return fa_fail(FA_INVALID, "%s%s is NULL, expected a buffer of at least %zu bytes", of, name, span);
    if (buffer->device != device)
        return fa_fail(FA_INVALID, "%s%s belongs to another device, %s", of, name, buffer->device->info.name);
    if (offset % alignment != 0)
        return fa_fail(FA_INVALID, "%s%s_offset is %zu, expected a multiple of %zu", of, name, offset,
                       alignment);
    alignment = FA_MIN(alignment, 64); /* no buffer begins at a multiple of more */
    if (((uintptr_t)buffer->address + offset) % alignment != 0)
        return fa_fail(FA_INVALID, "%s%s lies at address %p, expected a multiple of %zu", of, name,
                       (void *)((uintptr_t)buffer->address + offset), alignment);
    if (offset > buffer->size || span > buffer->size - offset)
        return fa_fail(FA_INVALID, "%s%s has %zu bytes behind offset %zu, expected at least %zu", of, name,
                       offset > buffer->size ? 0 : buffer->size - offset, offset, span);
    return FA_OK;
}

fa_status fa_memory_check_overlap(const fa_memory *operands, int count)
{
    for (int w = 0; w < count; w++) {
        for (int r = 0; operands[w].written && r < count; r++) {
            if (r == w)
                continue;
            fa_meeting met = fa_extents_meet(&operands[w].extent, &operands[r].extent);
            if (met == FA_MEET)
                return fa_fail(FA_INVALID, "args.%s overlaps args.%s: elements of both lie at the same bytes",
                               operands[w].name, operands[r].name);
            if (met == FA_UNDECIDED)
                return fa_fail(FA_INVALID,
                               "args.%s overlaps args.%s: their rows alternate, and in too many ways to tell "
                               "whether they share bytes",
                               operands[w].name, operands[r].name);
        }
    }
    return FA_OK;
}

static uintptr_t place_of(const fa_buffer *buffer, size_t offset)
{
    return (uintptr_t)buffer->address + offset; /* a device's may begin at 0 */
}

fa_extent fa_buffer_extent(const fa_tensor *tensor, size_t span, const fa_buffer *buffer, size_t offset)
{
    return fa_extent_of_tensor(tensor, span, buffer->storage, place_of(buffer, offset));
}

fa_extent fa_buffer_bytes(size_t span, const fa_buffer *buffer, size_t offset)
{
    return fa_extent_of_bytes(span, buffer->storage, place_of(buffer, offset));
}
