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

typedef struct fa_vk_block {
    struct fa_vk_block *next;
    VkDeviceMemory handle;
    uint32_t type;
    char *mapped; /* NULL where the host does not reach it */
    fa_vk_part *first;
} fa_vk_block;

/*
 * Host memory for these records. It is the caller's allocator's, which is not called under the device's lock: what may
 * be needed is taken before, what is left or free is given back after.
 */
typedef struct fa_vk_spares {
    fa_vk_part *parts;
    fa_vk_block *block;
} fa_vk_spares;

/* Records for taking one piece. False: no host memory, and nothing to give back. */
bool fa_vk_spares_take(const fa_context *context, fa_vk_spares *spares);
void fa_vk_spares_give(const fa_context *context, fa_vk_spares *spares);

/* Takes `size` bytes at a multiple of `align`, a power of two, from a list of parts. NULL: no room. Takes at most two
 * spare parts. */
fa_vk_part *fa_vk_parts_take(fa_vk_spares *spares, fa_vk_part *first, uint64_t size, uint64_t align);
/* Gives one back; returns whether nothing of the list is used any more. Parts that joined others become spares. */
bool fa_vk_parts_give(fa_vk_spares *spares, fa_vk_part *first, fa_vk_part *part);

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
