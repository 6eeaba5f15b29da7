/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/vulkan/memory.h"

#include "backends/vulkan/vulkan.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"

static const uint64_t most_block_bytes = (uint64_t)64 << 20;

static uint64_t align_up(uint64_t x, uint64_t align)
{
    return (x + align - 1) & ~(align - 1);
}

enum { SPARE_PARTS = 3 }; /* of a new block, and what a piece of it cuts off before and behind */

static void keep_part(fa_vk_spares *spares, fa_vk_part *part)
{
    part->next = spares->parts;
    spares->parts = part;
}

static fa_vk_part *spare_part(fa_vk_spares *spares)
{
    fa_vk_part *part = spares->parts;
    spares->parts = part->next;
    return part;
}

void fa_vk_spares_give(const fa_context *context, fa_vk_spares *spares)
{
    while (spares->parts)
        fa_release(context, spare_part(spares), sizeof(fa_vk_part));
    fa_release(context, spares->block, sizeof(*spares->block));
    spares->block = NULL;
}

bool fa_vk_spares_take(const fa_context *context, fa_vk_spares *spares)
{
    *spares = (fa_vk_spares){.block = fa_alloc_zeroed(context, sizeof(fa_vk_block))};
    bool all = spares->block != NULL;
    for (int i = 0; all && i < SPARE_PARTS; i++) {
        fa_vk_part *part = fa_alloc_zeroed(context, sizeof(*part));
        all = part != NULL;
        if (part)
            keep_part(spares, part);
    }
    if (!all)
        fa_vk_spares_give(context, spares);
    return all;
}

/* Cuts a part in two at `size` bytes. */
static void cut(fa_vk_spares *spares, fa_vk_part *part, uint64_t size)
{
    if (size == part->size)
        return;
    fa_vk_part *rest = spare_part(spares);
    *rest = (fa_vk_part){part->next, part->offset + size, part->size - size, false};
    part->next = rest;
    part->size = size;
}

static void join_next(fa_vk_spares *spares, fa_vk_part *part)
{
    fa_vk_part *next = part->next;
    if (part->used || !next || next->used)
        return;
    part->size += next->size;
    part->next = next->next;
    keep_part(spares, next);
}

fa_vk_part *fa_vk_parts_take(fa_vk_spares *spares, fa_vk_part *first, uint64_t size, uint64_t align)
{
    for (fa_vk_part *part = first; part; part = part->next) {
        uint64_t lead = align_up(part->offset, align) - part->offset;
        if (part->used || part->size < lead || part->size - lead < size)
            continue;
        fa_vk_part *taken = part;
        if (lead > 0) {
            cut(spares, part, lead);
            taken = part->next;
        }
        cut(spares, taken, size);
        taken->used = true;
        return taken;
    }
    return NULL;
}

bool fa_vk_parts_give(fa_vk_spares *spares, fa_vk_part *first, fa_vk_part *part)
{
    part->used = false;
    join_next(spares, part);
    fa_vk_part *before = first;
    while (before != part && before->next != part)
        before = before->next;
    if (before != part)
        join_next(spares, before);
    return !first->used && !first->next;
}

/* Of the spare block, which stays one when that fails. */
static fa_status make_block(const fa_device *device, fa_vk_spares *spares, uint32_t type, uint64_t bytes,
                            fa_vk_block **made)
{
    fa_vk_device *d = fa_vk_device_of(device);
    const VkMemoryType *t = &d->memory.memoryTypes[type];
    fa_vk_block *block = spares->block;
    const VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    const VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = d->caps.address ? &flags : NULL,
        .allocationSize = bytes,
        .memoryTypeIndex = type,
    };
    const char *call = "vkAllocateMemory";
    VkResult result = d->vk.vkAllocateMemory(d->handle, &info, NULL, &block->handle);
    if (result == VK_SUCCESS && (t->propertyFlags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)) {
        void *mapped = NULL;
        call = "vkMapMemory";
        result = d->vk.vkMapMemory(d->handle, block->handle, 0, VK_WHOLE_SIZE, 0, &mapped);
        block->mapped = mapped;
        if (result != VK_SUCCESS)
            d->vk.vkFreeMemory(d->handle, block->handle, NULL);
    }
    if (result != VK_SUCCESS)
        return fa_vk_fail(result, call);
    spares->block = NULL;
    block->type = type;
    block->first = spare_part(spares);
    *block->first = (fa_vk_part){.size = bytes};
    block->next = d->heap.blocks;
    d->heap.blocks = block;
    *made = block;
    return FA_OK;
}

/* Its records become spares. */
static void drop_block(fa_vk_device *d, fa_vk_spares *spares, fa_vk_block *block)
{
    fa_vk_block **at = &d->heap.blocks;
    while (*at != block)
        at = &(*at)->next;
    *at = block->next;
    d->vk.vkFreeMemory(d->handle, block->handle, NULL);
    keep_part(spares, block->first);
    spares->block = block;
}

static fa_status take_of_type(const fa_device *device, fa_vk_spares *spares, uint32_t type,
                              const VkMemoryRequirements *needs, fa_vk_piece *piece)
{
    fa_vk_device *d = fa_vk_device_of(device);
    const uint64_t heap = d->memory.memoryHeaps[d->memory.memoryTypes[type].heapIndex].size;
    uint64_t bytes = FA_MIN(most_block_bytes, heap / 8);
    bool own = needs->size >= bytes / 2;
    for (fa_vk_block *block = d->heap.blocks; block && !own; block = block->next) {
        if (block->type != type)
            continue;
        piece->part = fa_vk_parts_take(spares, block->first, needs->size, needs->alignment);
        if (piece->part) {
            piece->block = block;
            return FA_OK;
        }
    }
    fa_vk_block *block = NULL;
    fa_status status = make_block(device, spares, type, own ? needs->size : bytes, &block);
    if (status != FA_OK)
        return status;
    piece->part = fa_vk_parts_take(spares, block->first, needs->size, needs->alignment);
    piece->block = block;
    return FA_OK;
}

fa_status fa_vk_piece_take(const fa_device *device, const VkMemoryRequirements *needs,
                           VkMemoryPropertyFlags flags, fa_vk_piece *piece)
{
    fa_vk_device *d = fa_vk_device_of(device);
    *piece = (fa_vk_piece){NULL, NULL};
    if (needs->size > d->caps.alloc_bytes)
        return fa_fail(FA_OUT_OF_MEMORY, "a buffer needs %llu bytes, %s allocates at most %zu",
                       (unsigned long long)needs->size, device->info.name, d->caps.alloc_bytes);
    fa_vk_spares spares;
    if (!fa_vk_spares_take(device->context, &spares))
        return FA_OUT_OF_MEMORY;
    fa_status status =
        fa_fail(FA_OUT_OF_MEMORY, "%s has no memory of the kind that a buffer needs", device->info.name);
    (void)pthread_mutex_lock(&d->lock);
    for (uint32_t type = 0; type < d->memory.memoryTypeCount && !piece->block; type++) {
        if ((needs->memoryTypeBits >> type & 1) &&
            (d->memory.memoryTypes[type].propertyFlags & flags) == flags)
            status = take_of_type(device, &spares, type, needs, piece);
    }
    (void)pthread_mutex_unlock(&d->lock);
    fa_vk_spares_give(device->context, &spares);
    if (status == FA_OK)
        fa_clear_error();
    return status;
}

void fa_vk_piece_give(const fa_device *device, fa_vk_piece *piece)
{
    fa_vk_device *d = fa_vk_device_of(device);
    if (!piece->block)
        return;
    fa_vk_spares spares = {NULL, NULL};
    (void)pthread_mutex_lock(&d->lock);
    if (fa_vk_parts_give(&spares, piece->block->first, piece->part))
        drop_block(d, &spares, piece->block);
    (void)pthread_mutex_unlock(&d->lock);
    fa_vk_spares_give(device->context, &spares);
    *piece = (fa_vk_piece){NULL, NULL};
}
