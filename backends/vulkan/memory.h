/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory: few large blocks, of which buffers are pieces. Drivers allow for few allocations, and each is slow.
 * Pieces are found first-fit in a list sorted by offset, and freed ones join their neighbours. What is at least half a
 * block gets a block of its own. A block that nothing uses goes back to the driver.
 */
#ifndef FA_VULKAN_MEMORY_H
#define FA_VULKAN_MEMORY_H

#include <fastattn/context.h>
#include <stdbool.h>
#include <stdint.h>

#include "backends/vulkan/compat.h"

/* Part of a block, used or free; the parts of a block follow each other without gaps. */
typedef struct fa_vk_part {
    struct fa_vk_part *next;
    uint64_t offset, size;
    bool used;
} fa_vk_part;

/* Takes `size` bytes at a multiple of `align`, a power of two, from a list of parts. NULL: no room, or (*failed) no host
 * memory. */
fa_vk_part *fa_vk_parts_take(const fa_context *context, fa_vk_part *first, uint64_t size, uint64_t align,
                             bool *failed);
/* Gives one back; returns whether nothing of the list is used any more. */
bool fa_vk_parts_give(const fa_context *context, fa_vk_part *first, fa_vk_part *part);

typedef struct fa_vk_block {
    struct fa_vk_block *next;
    VkDeviceMemory handle;
    uint32_t type;
    char *mapped; /* NULL where the host does not reach it */
    fa_vk_part *first;
} fa_vk_block;

typedef struct fa_vk_heap {
    fa_vk_block *blocks;
} fa_vk_heap;

typedef struct fa_vk_piece {
    fa_vk_block *block; /* NULL: nothing */
    fa_vk_part *part;
} fa_vk_piece;

struct fa_device;

/* Memory of one of the types in `types` with all of `flags`; the device's lock is taken. */
fa_status fa_vk_piece_take(const struct fa_device *device, const VkMemoryRequirements *needs,
                           VkMemoryPropertyFlags flags, fa_vk_piece *piece);
void fa_vk_piece_give(const struct fa_device *device, fa_vk_piece *piece);

#endif
