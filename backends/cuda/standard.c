/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: two matrix products, and softmax between them over scores that all pass
 * through the workspace. The planner makes one item of all rows of a KV head. A launch takes as many items as
 * the workspace has room for the scores of, or where it has not for one, a range of that item's rows.
 */
#include "backends/cuda/plan.h"

fa_status fa_cu_standard_prepare(fa_plan *plan, fa_cu_plan *made)
{
    const fa_cuda_row *t = plan->row->impl;
    const int lanes = t->products.lanes, lines = t->group / lanes;
    const int row = (int)(t - fa_cuda_table);
    fa_gpu_standard *with = &made->with;
    const fa_gpu_kernel tiles = {.lanes = lanes, .group = t->group};
    fa_status status =
        fa_gpu_standard_choose(plan, &tiles, fa_cu_device_of(plan->device)->caps.global_bytes, with);
    if (status != FA_OK)
        return status;
    const bool few = with->tile_rows == lines;
    with->tile_rows = lines * (few ? 1 : t->products.rows);
    with->tile_keys = with->tile_dims = lanes * t->products.rows;
    status = fa_cu_kernel_make(plan, row, FA_F32, few ? FA_CUDA_SCORES_FEW : FA_CUDA_SCORES, &made->scores);
    if (status == FA_OK)
        status = fa_cu_kernel_make(plan, row, FA_F32, FA_CUDA_SOFTMAX, &made->softmax);
    if (status == FA_OK)
        status =
            fa_cu_kernel_make(plan, row, FA_F32, few ? FA_CUDA_OUTPUT_FEW : FA_CUDA_OUTPUT, &made->output);
    return status;
}

fa_status fa_cu_standard_run(const fa_plan *plan, CUstream stream, fa_cuda_args *args)
{
    const fa_cu_plan *prepared = plan->impl;
    fa_gpu_launch l = {0};
    fa_status status = FA_OK;
    args->partial_state = args->scratch + prepared->with.factors_at * sizeof(float);
    while (status == FA_OK && fa_gpu_standard_next(plan, &prepared->with, &l)) {
        args->first = l.first;
        args->row_begin = l.row_begin;
        args->rows = l.rows;
        if (l.scores > 0)
            status = fa_cu_launch(plan, stream, &prepared->scores, l.scores, 1, args);
        if (status == FA_OK)
            status = fa_cu_launch(plan, stream, &prepared->softmax, l.softmax, 1, args);
        if (status == FA_OK)
            status = fa_cu_launch(plan, stream, &prepared->output, l.output, 1, args);
    }
    return status;
}
