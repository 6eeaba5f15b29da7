/* SPDX-License-Identifier: Apache-2.0 */
/* What a command buffer is told to do. */
#ifndef FA_VULKAN_COMMANDS_H
#define FA_VULKAN_COMMANDS_H

#include "backends/vulkan/pipeline.h"

/* Where an operand lies: `bytes` from `at` on. */
typedef struct fa_vk_place {
    const fa_vk_buffer *buffer; /* NULL: absent */
    size_t at, bytes;
} fa_vk_place;

/* Where `bytes` at `offset` of a buffer lie; absent where there is no buffer, or are no bytes. */
fa_vk_place fa_vk_place_of(const fa_buffer *buffer, size_t offset, size_t bytes);
/* Commands of a kernel: `groups` work-groups by `lines`. FA_UNSUPPORTED: more than the device dispatches. */
fa_status fa_vk_dispatch(const fa_vk_device *device, VkCommandBuffer commands, VkPipeline pipeline,
                         const fa_vk_push *push, int64_t groups, uint32_t lines);
/* What was written before is seen by kernels, and by copies, after. */
void fa_vk_barrier(const fa_vk_device *device, VkCommandBuffer commands);
/* Fills push->at, and without addresses, the descriptor set too. An absent operand is the first slot's. */
void fa_vk_place_operands(const fa_vk_device *device, VkDescriptorSet set,
                          const fa_vk_place where[FA_VK_SLOTS], fa_vk_push *push);

#endif
