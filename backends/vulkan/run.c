/* SPDX-License-Identifier: Apache-2.0 */
/* Binding buffers to a plan's pipelines, and recording and submitting them. */
#include "backends/vulkan/plan.h"
#include "core/status.h"

enum { ALIGNMENT = 16 };

static void find_places(const fa_plan *plan, const fa_binding *binding, fa_vk_place where[FA_VK_SLOTS])
{
    static const int slot[FA_OPERANDS] = {[FA_Q] = FA_VK_SLOT_Q,
                                          [FA_K] = FA_VK_SLOT_K,
                                          [FA_V] = FA_VK_SLOT_V,
                                          [FA_O] = FA_VK_SLOT_O,
                                          [FA_BIAS] = FA_VK_SLOT_BIAS,
                                          [FA_KEEP] = FA_VK_SLOT_KEEP,
                                          [FA_LSE] = FA_VK_SLOT_LSE,
                                          [FA_PAGES] = FA_VK_SLOT_PAGES,
                                          [FA_K_SCALE] = FA_VK_SLOT_K_SCALE,
                                          [FA_V_SCALE] = FA_VK_SLOT_V_SCALE,
                                          [FA_K_ZERO] = FA_VK_SLOT_K_ZERO,
                                          [FA_V_ZERO] = FA_VK_SLOT_V_ZERO};
    const fa_vk_plan *prepared = plan->impl;
    where[FA_VK_SLOT_TABLE] = fa_vk_place_of(binding->work ? binding->work : prepared->work,
                                             binding->work ? binding->work_offset : 0, plan->layout.bytes);
    for (int t = 0; t < FA_OPERANDS; t++)
        where[slot[t]] = fa_vk_place_of(binding->buffer[t], binding->offset[t], plan->problem.span[t]);
    const size_t partial = plan->partial_offset, state = plan->partial_state_offset;
    if (binding->workspace && plan->workspace > state) {
        where[FA_VK_SLOT_PARTIAL] =
            fa_vk_place_of(binding->workspace, binding->workspace_offset + partial, state - partial);
        where[FA_VK_SLOT_STATE] =
            fa_vk_place_of(binding->workspace, binding->workspace_offset + state, plan->workspace - state);
    }
}

/* Whether q, k, v and o begin at multiples of 16 bytes. */
static bool is_aligned(const fa_vk_push *push)
{
    uint64_t all =
        push->at[FA_VK_SLOT_Q] | push->at[FA_VK_SLOT_K] | push->at[FA_VK_SLOT_V] | push->at[FA_VK_SLOT_O];
    return all % ALIGNMENT == 0;
}

static fa_status record(const fa_plan *plan, const fa_binding *binding, VkCommandBuffer commands,
                        VkDescriptorSet set)
{
    const fa_vk_device *d = fa_vk_device_of(plan->device);
    const fa_vk_plan *prepared = plan->impl;
    fa_vk_place where[FA_VK_SLOTS] = {{NULL, 0, 0}};
    fa_vk_push push = {{0}};
    find_places(plan, binding, where);
    fa_vk_place_operands(d, set, where, &push);
    fa_vk_barrier(d, commands);
    if (set)
        d->vk.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, d->layout, 0, 1, &set, 0,
                                      NULL);
    const VkPipeline attention = prepared->attention[is_aligned(&push) && prepared->attention[1]];
    const int64_t merges = fa_run_merges(plan, binding);
    fa_status status = fa_vk_dispatch(d, commands, attention, &push, fa_run_items(plan, binding), 1);
    if (status == FA_OK && merges > 0) {
        fa_vk_barrier(d, commands);
        status = fa_vk_dispatch(d, commands, prepared->merge, &push, merges, (uint32_t)plan->args.block_q);
    }
    fa_vk_barrier(d, commands);
    return status;
}

/* Kernels count entries of the work from where its descriptor begins. */
fa_status fa_vk_work_check(const fa_buffer *buffer, size_t offset, size_t size)
{
    const fa_vk_device *d = fa_vk_device_of(buffer->device);
    const fa_vk_buffer *b = buffer->impl;
    const size_t at = b->origin + offset;
    (void)size;
    if (d->caps.address || at % d->caps.align == 0)
        return FA_OK;
    return fa_fail(FA_INVALID,
                   "work lies at byte %zu of its VkBuffer, expected a multiple of %zu, the device's "
                   "minStorageBufferOffsetAlignment",
                   at, d->caps.align);
}

fa_status fa_vk_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    const fa_vk_queue *q = queue->impl;
    if (q->recording) {
        VkDescriptorSet set;
        fa_status status = fa_vk_queue_next_set(queue, &set);
        return status == FA_OK ? record(plan, binding, q->recording, set) : status;
    }
    fa_vk_slot *slot;
    fa_status status = fa_vk_queue_begin(queue, true, &slot);
    if (status == FA_OK)
        status = record(plan, binding, slot->commands, slot->set);
    return status == FA_OK ? fa_vk_queue_submit(queue, slot) : status;
}
