/* SPDX-License-Identifier: Apache-2.0 */
/* A plan's pipelines, and its work in device memory. */
#include <stdio.h>

#include "backends/vulkan/plan.h"
#include "core/context.h"
#include "core/size.h"

enum { MERGE_GROUP = 128 };

static uint32_t scales_constant(const fa_scales *s)
{
    return s->scale_type < 0
               ? 0
               : (uint32_t)FA_VK_SCALES(s->scale_type, s->zero_type, s->dims % 4 != 0 && s->scale_stride[3]);
}

/* Types, strides, pages and subgroups: what every kernel is told. */
static fa_vk_constants common_constants(const fa_plan *plan)
{
    const fa_problem *p = &plan->problem;
    const fa_vk_caps *caps = &fa_vk_device_of(plan->device)->caps;
    fa_vk_constants c = {{0}};
    c.value[FA_VK_TYPE_Q] = (uint32_t)p->tensor[FA_Q].dtype;
    c.value[FA_VK_TYPE_K] = (uint32_t)p->tensor[FA_K].dtype;
    c.value[FA_VK_TYPE_V] = (uint32_t)p->tensor[FA_V].dtype;
    c.value[FA_VK_TYPE_O] = (uint32_t)p->tensor[FA_O].dtype;
    c.value[FA_VK_SCALES_K] = scales_constant(&p->k_scales);
    c.value[FA_VK_SCALES_V] = scales_constant(&p->v_scales);
    c.value[FA_VK_PAGES] = (p->features & FA_FEATURE_PAGES) != 0;
    c.value[FA_VK_LISTS] = (p->features & FA_FEATURE_LISTS) != 0;
    c.value[FA_VK_FAR] = !caps->near || fa_gpu_far_strides(p) || fa_gpu_far_pages(p);
    c.value[FA_VK_SUBGROUP] = caps->subgroups ? caps->subgroup_size : 1;
    return c;
}

static fa_vk_constants attention_constants(const fa_plan *plan, bool aligned)
{
    const fa_problem *p = &plan->problem;
    const fa_gpu_kernel *k = plan->kernel->impl;
    const fa_vk_device *d = fa_vk_device_of(plan->device);
    const uint32_t block_q = (uint32_t)plan->args.block_q;
    fa_vk_constants c = common_constants(plan);
    uint32_t *v = c.value;
    uint32_t step_qk = 16, step_v = 16;
    v[FA_VK_ALIGNED] = aligned;
    v[FA_VK_TRANSFORM] = (uint32_t)plan->score.transforms;
    v[FA_VK_BLOCK_Q] = block_q;
    v[FA_VK_BLOCK_KV] = (uint32_t)plan->args.block_kv;
    if (k->kind == FA_GPU_TILE) {
        v[FA_VK_LANES] = (uint32_t)k->lanes;
        v[FA_VK_DEPTH] = (uint32_t)k->depth;
        v[FA_VK_BUFFERS] = (uint32_t)k->stages;
        v[FA_VK_IN_PARTS] = fa_gpu_in_parts(p);
        v[FA_VK_GROUP] = block_q / FA_GPU_TILE_ROWS * (uint32_t)k->lanes;
        step_qk = (uint32_t)k->depth;
        step_v = 4 * (uint32_t)k->lanes;
    } else if (k->kind == FA_GPU_ROWS) {
        v[FA_VK_GROUP] = (uint32_t)k->group;
        v[FA_VK_SPLIT] = (uint32_t)k->split;
        step_qk = 8 * (uint32_t)k->split;
        step_v = 8;
    } else {
        v[FA_VK_TILES] = (uint32_t)k->tiles;
        v[FA_VK_GROUP] = block_q / 16 / (uint32_t)k->tiles * d->caps.subgroup_size;
        if (k->in_registers) {
            v[FA_VK_LAYOUT_ROWS] = d->fragments.rows;
            v[FA_VK_LAYOUT_SLOTS] = d->fragments.slots;
            v[FA_VK_LAYOUT_LANES] = d->fragments.lanes;
            v[FA_VK_LAYOUT_ELEMENTS] = d->fragments.elements;
            v[FA_VK_LAYOUT_COLUMNS] = d->fragments.columns;
        }
    }
    v[FA_VK_DIM_QK] = (uint32_t)fa_round_up(p->dim_qk, step_qk);
    v[FA_VK_DIM_V] = (uint32_t)fa_round_up(p->dim_v, step_v);
    v[FA_VK_WHOLE_QK] = v[FA_VK_DIM_QK] == (uint32_t)p->dim_qk;
    v[FA_VK_WHOLE_V] = v[FA_VK_DIM_V] == (uint32_t)p->dim_v;
    return c;
}

fa_status fa_vk_upload(fa_device *device, const void *bytes, size_t size, fa_buffer **buffer)
{
    fa_queue queue = {.device = device};
    fa_status status = fa_vk_buffer_make(device, size, fa_vk_buffer_create, buffer);
    if (status == FA_OK)
        status = fa_vk_queue_create(&queue);
    if (status == FA_OK) {
        status = fa_vk_buffer_write(&queue, *buffer, 0, bytes, size);
        fa_vk_queue_destroy(&queue);
    }
    return status;
}

static fa_status make_pipelines(const fa_plan *plan, bool merges, fa_vk_plan *made)
{
    static const char *const names[] = {
        [FA_GPU_TILE] = "tile", [FA_GPU_ROWS] = "rows", [FA_GPU_MATRIX] = "matrix"};
    const fa_gpu_kernel *k = plan->kernel->impl;
    const fa_vk_caps *caps = &fa_vk_device_of(plan->device)->caps;
    char name[16];
    if (k->kind == FA_GPU_MATRIX)
        (void)snprintf(name, sizeof(name), "%s%u", names[k->kind], 256 / (unsigned)caps->subgroup_size);
    else
        (void)snprintf(name, sizeof(name), "%s", names[k->kind]);
    fa_status status = FA_OK;
    for (int aligned = 0; aligned <= fa_gpu_can_align(&plan->problem) && status == FA_OK; aligned++) {
        const fa_vk_constants constants = attention_constants(plan, aligned);
        status = fa_vk_pipeline_get(plan->device, name, caps->subgroups && k->kind != FA_GPU_MATRIX,
                                    &constants, &made->attention[aligned]);
    }
    if (status == FA_OK && merges) {
        /* Nothing of q, k and v: one pipeline merges whatever they were. */
        fa_vk_constants constants = {{0}};
        constants.value[FA_VK_TYPE_O] = (uint32_t)plan->problem.tensor[FA_O].dtype;
        constants.value[FA_VK_SUBGROUP] = 1;
        constants.value[FA_VK_GROUP] = (uint32_t)FA_MIN(caps->group_size, MERGE_GROUP);
        status = fa_vk_pipeline_get(plan->device, "merge", false, &constants, &made->merge);
    }
    return status;
}

fa_status fa_vk_plan_compile(const fa_plan *plan)
{
    fa_vk_plan made = {.work = NULL}; /* pipelines are the device's */
    return make_pipelines(plan, true, &made);
}

fa_status fa_vk_plan_prepare(fa_plan *plan)
{
    fa_vk_plan *made = fa_alloc_zeroed(plan->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    plan->impl = made;
    if (plan->capacity.items == 0)
        return FA_OK;
    fa_status status = make_pipelines(plan, plan->capacity.merges > 0, made);
    return status == FA_OK ? fa_vk_upload(plan->device, plan->work, plan->layout.bytes, &made->work) : status;
}

void fa_vk_plan_release(fa_plan *plan)
{
    fa_vk_plan *made = plan->impl;
    fa_vk_buffer_drop(made->work);
    fa_release(plan->device->context, made, sizeof(*made));
}
