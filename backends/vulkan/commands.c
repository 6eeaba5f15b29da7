/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/vulkan/commands.h"

#include "core/size.h"
#include "core/status.h"

void fa_vk_barrier(const fa_vk_device *d, VkCommandBuffer commands)
{
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                         VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT |
                         VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT,
    };
    d->vk.vkCmdPipelineBarrier(
        commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0,
        1, &barrier, 0, NULL, 0, NULL);
}

fa_status fa_vk_dispatch(const fa_vk_device *d, VkCommandBuffer commands, VkPipeline pipeline,
                         const fa_vk_push *push, int64_t groups, uint32_t lines)
{
    const int64_t x = FA_MIN(groups, (int64_t)d->caps.groups[0]), y = fa_ceil_div(groups, x);
    if (y > (int64_t)d->caps.groups[1] || lines > d->caps.groups[2] || groups > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED, "%lld by %u work-groups, the device dispatches at most %u, %u and %u",
                       (long long)groups, lines, d->caps.groups[0], d->caps.groups[1], d->caps.groups[2]);
    d->vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    d->vk.vkCmdPushConstants(commands, d->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(*push), push);
    d->vk.vkCmdDispatch(commands, (uint32_t)x, (uint32_t)y, lines);
    return FA_OK;
}

fa_vk_place fa_vk_place_of(const fa_buffer *buffer, size_t offset, size_t bytes)
{
    if (!buffer || bytes == 0)
        return (fa_vk_place){NULL, 0, 0};
    const fa_vk_buffer *b = buffer->impl;
    return (fa_vk_place){b, b->origin + offset, bytes};
}

void fa_vk_place_operands(const fa_vk_device *d, VkDescriptorSet set, const fa_vk_place where[FA_VK_SLOTS],
                          fa_vk_push *push)
{
    VkDescriptorBufferInfo buffer[FA_VK_SLOTS];
    VkWriteDescriptorSet write[FA_VK_SLOTS];
    for (uint32_t i = 0; i < FA_VK_SLOTS; i++) {
        const fa_vk_place *p = where[i].buffer ? &where[i] : &where[FA_VK_SLOT_TABLE];
        if (d->caps.address) {
            push->at[i] = p->buffer->address + p->at;
            continue;
        }
        const size_t begin = p->at / d->caps.align * d->caps.align;
        const size_t end = FA_MIN((p->at + p->bytes + 3) / 4 * 4, p->buffer->bytes);
        push->at[i] = p->at - begin;
        buffer[i] = (VkDescriptorBufferInfo){p->buffer->handle, begin, end - begin};
        write[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .pBufferInfo = &buffer[i],
        };
    }
    if (!d->caps.address)
        d->vk.vkUpdateDescriptorSets(d->handle, FA_VK_SLOTS, write, 0, NULL);
}
