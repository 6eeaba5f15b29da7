/* SPDX-License-Identifier: Apache-2.0 */
#include "core/parts/parts.h"

#include "core/portable/lang.h"
#include "core/size.h"
#include "core/status.h"

fa_attention_desc fa_parts_desc(const fa_attention_desc *desc)
{
    const int64_t *shape = desc->o.shape;
    fa_attention_desc d = *desc;
    d.o = fa_tensor_make(FA_F32, shape[0], shape[1], shape[2], shape[3]);
    d.want_lse = 1;
    return d;
}

/* The states of a problem that its plans have found valid. */
static fa_status lay_out(fa_parts *p, const int64_t shape[4])
{
    const size_t states = (size_t)(shape[0] * shape[1] * shape[2]), parts = (size_t)p->count;
    size_t end = 0, plans = 0;
    bool fits = fa_grow(&p->part_bytes, states * sizeof(float), (size_t)shape[3]);
    p->part_lse_bytes = states * sizeof(float);
    fits = fits && fa_grow(&end, p->part_bytes, parts);
    p->lse_offset = fa_align64(end);
    end = p->lse_offset;
    fits = fits && fa_grow(&end, p->part_lse_bytes, parts);
    p->scratch_offset = fa_align64(end);
    for (int64_t i = 0; i < p->count; i++)
        plans = FA_MAX(plans, fa_plan_workspace(p->plan[i]));
    p->workspace = p->scratch_offset;
    if (fits && fa_grow(&p->workspace, plans, 1))
        return FA_OK;
    return fa_fail(FA_OUT_OF_MEMORY, "the workspace for %zu states of %zu parts overflows memory", states,
                   parts);
}

fa_status fa_parts_merged(fa_parts *p, fa_device *device, const fa_attention_desc *desc,
                          const fa_tensor *factors, int64_t factor_stride)
{
    const fa_merge_desc merge = {
        .struct_size = sizeof(merge),
        .parts = p->count,
        .partial = fa_parts_desc(desc).o,
        .o = desc->o,
        .want_lse = desc->want_lse,
        .factors = *factors,
        .factor_stride = factor_stride,
    };
    FA_TRY(fa_merge_create(device, &merge, &p->merge));
    return lay_out(p, desc->o.shape);
}

void fa_parts_alone(fa_parts *p)
{
    p->workspace = fa_plan_workspace(p->plan[0]);
}

void fa_parts_release(fa_parts *p)
{
    for (int64_t i = 0; i < p->count; i++)
        fa_plan_destroy(p->plan[i]);
    fa_merge_destroy(p->merge);
}

fa_attention_args fa_parts_args(const fa_parts *p, const fa_attention_args *args, int64_t n)
{
    fa_attention_args part = *args;
    part.struct_size = sizeof(part);
    if (!p->merge)
        return part;
    part.o = part.lse = args->workspace;
    part.o_offset = args->workspace_offset + (size_t)n * p->part_bytes;
    part.lse_offset = args->workspace_offset + p->lse_offset + (size_t)n * p->part_lse_bytes;
    part.workspace_offset = args->workspace_offset + p->scratch_offset;
    return part;
}

fa_status fa_parts_merge(const fa_parts *p, fa_queue *queue, const fa_attention_args *args,
                         fa_buffer *factors, size_t factors_offset)
{
    const fa_merge_args merge = {
        .struct_size = sizeof(merge),
        .partial = args->workspace,
        .partial_lse = args->workspace,
        .o = args->o,
        .lse = args->lse,
        .partial_offset = args->workspace_offset,
        .partial_lse_offset = args->workspace_offset + p->lse_offset,
        .o_offset = args->o_offset,
        .lse_offset = args->lse_offset,
        .factors = factors,
        .factors_offset = factors_offset,
    };
    return p->merge ? fa_merge_run(p->merge, queue, &merge) : FA_OK;
}
