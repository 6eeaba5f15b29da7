/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: two matrix products, and softmax between them over scores that all pass through
 * the workspace. The planner makes one item of all rows of a KV head. A launch takes as many items as the workspace has
 * room for the scores of, or where it has not for one, a range of that item's rows.
 */
#include "backends/vulkan/plan.h"

static fa_status make_pipeline(const fa_plan *plan, const char *name, int32_t tile_cols, bool aligned,
                               VkPipeline *pipeline)
{
    const fa_gpu_kernel *k = plan->row->impl;
    const fa_problem *p = &plan->problem;
    const fa_vk_plan *prepared = plan->impl;
    fa_vk_constants c = {{0}};
    c.value[FA_VK_TYPE_Q] = (uint32_t)p->tensor[FA_Q].dtype;
    c.value[FA_VK_TYPE_K] = (uint32_t)p->tensor[FA_K].dtype;
    c.value[FA_VK_TYPE_V] = (uint32_t)p->tensor[FA_V].dtype;
    c.value[FA_VK_TYPE_O] = (uint32_t)p->tensor[FA_O].dtype;
    c.value[FA_VK_FAR] = 1;
    c.value[FA_VK_SUBGROUP] = 1;
    c.value[FA_VK_ALIGNED] = aligned;
    c.value[FA_VK_HIDES] = (p->features & FA_FEATURE_MASK) != 0;
    c.value[FA_VK_GROUP] = (uint32_t)k->group;
    if (tile_cols > 0) {
        c.value[FA_VK_LANES] = (uint32_t)k->lanes;
        c.value[FA_VK_DEPTH] = (uint32_t)k->depth;
        c.value[FA_VK_ROWS] = (uint32_t)(prepared->with.tile_rows / (k->group / k->lanes));
        c.value[FA_VK_COLS] = (uint32_t)(tile_cols / k->lanes);
    }
    return fa_vk_pipeline_get(plan->device, name, false, &c, pipeline);
}

fa_status fa_vk_standard_prepare(fa_plan *plan, fa_vk_plan *made)
{
    const fa_vk_caps *caps = &fa_vk_device_of(plan->device)->caps;
    fa_status status = fa_gpu_standard_choose(
        plan, plan->row->impl, caps->address ? caps->alloc_bytes : caps->range - caps->align - 64,
        &made->with);
    for (int aligned = 0; aligned <= fa_gpu_can_align(&plan->problem) && status == FA_OK; aligned++) {
        status = make_pipeline(plan, "scores", made->with.tile_keys, aligned, &made->scores[aligned]);
        if (status == FA_OK)
            status = make_pipeline(plan, "output", made->with.tile_dims, aligned, &made->output[aligned]);
    }
    return status == FA_OK ? make_pipeline(plan, "softmax", 0, false, &made->softmax) : status;
}

static fa_status record_launch(const fa_plan *plan, VkCommandBuffer commands, const fa_vk_push *push,
                               const fa_gpu_launch *l, bool aligned)
{
    const fa_vk_device *d = fa_vk_device_of(plan->device);
    const fa_vk_plan *made = plan->impl;
    fa_status status = FA_OK;
    aligned = aligned && made->scores[1];
    if (l->scores > 0)
        status = fa_vk_dispatch(d, commands, made->scores[aligned], push, l->scores, 1);
    fa_vk_barrier(d, commands);
    if (status == FA_OK)
        status = fa_vk_dispatch(d, commands, made->softmax, push, l->softmax, 1);
    fa_vk_barrier(d, commands);
    if (status == FA_OK)
        status = fa_vk_dispatch(d, commands, made->output[aligned], push, l->output, 1);
    fa_vk_barrier(d, commands);
    return status;
}

fa_status fa_vk_standard_record(const fa_plan *plan, VkCommandBuffer commands, fa_vk_push *push, bool aligned)
{
    const fa_vk_plan *made = plan->impl;
    fa_gpu_launch l = {0};
    fa_status status = FA_OK;
    push->keys = plan->problem.max_len_kv;
    while (status == FA_OK && fa_gpu_standard_next(plan, &made->with, &l)) {
        push->first = l.first;
        push->row_begin = l.row_begin;
        push->rows = l.rows;
        status = record_launch(plan, commands, push, &l, aligned);
    }
    return status;
}
