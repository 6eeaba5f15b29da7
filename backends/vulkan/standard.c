/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: two matrix products, and softmax between them over scores that all pass through
 * the workspace. The planner makes one item of all rows of a KV head. A launch takes as many items as the workspace has
 * room for the scores of, or where it has not for one, a range of that item's rows.
 */
#include "backends/vulkan/plan.h"
#include "core/size.h"
#include "core/status.h"

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

/* The three kernels for push->rows rows of `items` items. */
static fa_status record_launch(const fa_plan *plan, VkCommandBuffer commands, const fa_vk_push *push,
                               int64_t items, bool aligned)
{
    const fa_vk_device *d = fa_vk_device_of(plan->device);
    const fa_vk_plan *made = plan->impl;
    const int64_t tiles = items * fa_ceil_div(push->rows, made->with.tile_rows);
    fa_status status = FA_OK;
    aligned = aligned && made->scores[1];
    if (push->keys > 0)
        status = fa_vk_dispatch(d, commands, made->scores[aligned], push,
                                tiles * fa_ceil_div(push->keys, made->with.tile_keys), 1);
    fa_vk_barrier(d, commands);
    if (status == FA_OK)
        status = fa_vk_dispatch(d, commands, made->softmax, push, items * push->rows, 1);
    fa_vk_barrier(d, commands);
    if (status == FA_OK)
        status = fa_vk_dispatch(d, commands, made->output[aligned], push,
                                tiles * fa_ceil_div(plan->problem.dim_v, made->with.tile_dims), 1);
    fa_vk_barrier(d, commands);
    return status;
}

fa_status fa_vk_standard_record(const fa_plan *plan, VkCommandBuffer commands, fa_vk_push *push, bool aligned)
{
    const fa_gpu_standard *with = &((const fa_vk_plan *)plan->impl)->with;
    const int64_t items = plan->schedule.items, rows = (int64_t)plan->problem.max_len_q * plan->problem.group;
    fa_status status = FA_OK;
    push->keys = plan->problem.max_len_kv;
    for (int64_t item = 0; item < items && status == FA_OK; item += with->items) {
        for (int64_t row = 0; row < rows && status == FA_OK; row += with->rows) {
            push->first = (int32_t)item;
            push->row_begin = (int32_t)row;
            push->rows = (int32_t)FA_MIN(with->rows, rows - row);
            status = record_launch(plan, commands, push, FA_MIN(with->items, items - item), aligned);
        }
    }
    return status;
}
