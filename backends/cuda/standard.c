/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: two matrix products, and softmax between them over scores that all pass
 * through the workspace. The planner makes one item of all rows of a KV head. A launch takes as many items as
 * the workspace has room for the scores of, or where it has not for one, a range of that item's rows.
 */
#include "backends/cuda/plan.h"
#include "core/size.h"

fa_status fa_cu_standard_prepare(fa_plan *plan, fa_cu_plan *made)
{
    const fa_cuda_row *t = plan->row->impl;
    const int row = (int)(t - fa_cuda_table);
    fa_gpu_standard *with = &made->with;
    const fa_gpu_kernel tiles = {.lanes = t->lanes, .group = t->group};
    fa_status status =
        fa_gpu_standard_choose(plan, &tiles, fa_cu_device_of(plan->device)->caps.global_bytes, with);
    if (status != FA_OK)
        return status;
    const bool few = with->tile_rows == t->group / t->lanes;
    with->tile_rows = t->group / t->lanes * (few ? 1 : t->rows);
    with->tile_keys = with->tile_dims = t->lanes * t->rows;
    status = fa_cu_kernel_make(plan, row, FA_F32, few ? FA_CUDA_SCORES_FEW : FA_CUDA_SCORES, &made->scores);
    if (status == FA_OK)
        status = fa_cu_kernel_make(plan, row, FA_F32, FA_CUDA_SOFTMAX, &made->softmax);
    if (status == FA_OK)
        status =
            fa_cu_kernel_make(plan, row, FA_F32, few ? FA_CUDA_OUTPUT_FEW : FA_CUDA_OUTPUT, &made->output);
    return status;
}

/* The three kernels on a.rows rows of so many items. */
static fa_status start(const fa_plan *plan, CUstream stream, int64_t items, fa_cuda_args *a)
{
    const fa_cu_plan *prepared = plan->impl;
    const fa_gpu_standard *with = &prepared->with;
    const fa_problem *p = &plan->problem;
    const int64_t tiles = items * fa_ceil_div(a->rows, with->tile_rows);
    fa_status status = FA_OK;
    if (p->max_len_kv > 0)
        status = fa_cu_launch(plan, stream, &prepared->scores,
                              tiles * fa_ceil_div(p->max_len_kv, with->tile_keys), 1, a);
    if (status == FA_OK)
        status = fa_cu_launch(plan, stream, &prepared->softmax, items * a->rows, 1, a);
    if (status == FA_OK)
        status = fa_cu_launch(plan, stream, &prepared->output, tiles * fa_ceil_div(p->dim_v, with->tile_dims),
                              1, a);
    return status;
}

fa_status fa_cu_standard_run(const fa_plan *plan, CUstream stream, fa_cuda_args *args)
{
    const fa_gpu_standard *with = &((const fa_cu_plan *)plan->impl)->with;
    const int64_t items = plan->schedule.items, rows = (int64_t)plan->problem.max_len_q * plan->problem.group;
    fa_status status = FA_OK;
    args->partial_state = args->scratch + with->factors_at * sizeof(float);
    for (int64_t item = 0; item < items && status == FA_OK; item += with->items) {
        for (int64_t row = 0; row < rows && status == FA_OK; row += with->rows) {
            args->first = (int)item;
            args->row_begin = (int)row;
            args->rows = (int)FA_MIN(with->rows, rows - row);
            status = start(plan, stream, FA_MIN(with->items, items - item), args);
        }
    }
    return status;
}
