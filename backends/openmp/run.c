/* SPDX-License-Identifier: Apache-2.0 */
/* Executing a plan: threads take work items off the list, then merge what was split. */
#include "backends/openmp/run.h"

#include "backends/host_memory.h"
#include "backends/openmp/kernel.h"
#include "backends/openmp/loop.h"
#include "backends/openmp/runtime.h"
#include "core/attention/merge.h"
#include "core/portable/row.h"
#include "core/portable/softmax.h"
#include "core/tensor.h"

size_t fa_openmp_scratch_bytes(const fa_plan *plan)
{
    const fa_cpu_kernel *impl = plan->kernel->impl;
    return impl->scratch_bytes(plan);
}

fa_status fa_openmp_plan_prepare(fa_plan *plan)
{
    plan->scratch_bytes = fa_openmp_scratch_bytes(plan);
    return FA_OK;
}

void fa_openmp_plan_release(fa_plan *plan)
{
    (void)plan;
}

static void do_item(const void *of, int64_t index, void *scratch)
{
    const fa_cpu_run *run = of;
    const fa_cpu_kernel *impl = run->plan->kernel->impl;
    impl->item(run, &run->item[index], scratch);
}

static void do_merge(const void *of, int64_t index, void *scratch)
{
    (void)scratch;
    const fa_cpu_run *run = of;
    const fa_plan *plan = run->plan;
    const fa_table_merge *merge = &run->merge[index];
    const fa_problem *p = &plan->problem;
    const fa_table_sequence *s = &run->sequence[merge->sequence];
    const fa_tensor *o = &p->tensor[FA_O];
    int64_t rows = merge->row_end - merge->row_begin;
    for (int row = merge->row_begin; row < merge->row_end; row++) {
        int head = fa_row_head(plan->args.group, merge->head_kv, row),
            position = fa_row_position(plan->args.group, row);
        int64_t part = merge->part_row + row - merge->row_begin;
        fa_parts parts = {
            .dtype = FA_F32,
            .base = run->partial,
            .first = part * p->dim_v,
            .stride = rows * p->dim_v,
            .state = run->partial_state + part,
            .state_stride = rows,
            .parts = merge->parts,
            .unit = plan->score.unit,
            .natural = plan->score.natural,
            .sink = p->sinks ? p->sinks[head] : FA_NEG_INF,
        };
        float lse =
            fa_merge_parts(&parts, p->dim_v, o->dtype, run->o, fa_cpu_row_at(run, FA_O, s, head, position));
        if (run->lse)
            run->lse[fa_cpu_lse_at(run, s, head, position)] = lse;
    }
}

/* Tasks for the work's items: no more than OpenMP allows now, where that is less than when the device was opened. */
static int32_t item_tasks(const fa_cpu_run *run)
{
    const fa_cpu_device *d = run->plan->device->impl;
    int32_t workers = run->work->workers;
    if (workers <= 1 || !d->pool)
        return 1 < workers ? workers : 1;
    int32_t allowed = fa_runtime_threads();
    return allowed < d->runtime_threads && allowed < workers ? allowed : workers;
}

/* What is merged faster than shared, one task does. */
static int32_t merge_tasks(const fa_table_params *work, int32_t most)
{
    enum { FLOATS_OF_TASK = 4096 };
    int64_t tasks = work->partial_rows * (work->dim_v + 1) / FLOATS_OF_TASK;
    tasks = tasks < work->merges ? tasks : work->merges;
    return tasks < 1 ? 1 : tasks < most ? (int32_t)tasks : most;
}

fa_status fa_openmp_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    (void)queue;
    char *workspace =
        binding->workspace ? (char *)binding->workspace->address + binding->workspace_offset : NULL;
    const void *words =
        binding->work ? (const char *)binding->work->address + binding->work_offset : plan->work;
    const fa_table_params *work = words;
    fa_cpu_run run = {
        .plan = plan,
        .work = work,
        .sequence = (const fa_table_sequence *)words + work->sequences_at,
        .item = (const fa_table_item *)words + work->items_at,
        .merge = (const fa_table_merge *)words + work->merges_at,
        .q = fa_host_operand(binding, FA_Q),
        .k = fa_host_operand(binding, FA_K),
        .v = fa_host_operand(binding, FA_V),
        .bias = fa_host_operand(binding, FA_BIAS),
        .keep = fa_host_operand(binding, FA_KEEP),
        .pages = fa_host_operand(binding, FA_PAGES),
        .k_scale = fa_host_operand(binding, FA_K_SCALE),
        .v_scale = fa_host_operand(binding, FA_V_SCALE),
        .k_zero = fa_host_operand(binding, FA_K_ZERO),
        .v_zero = fa_host_operand(binding, FA_V_ZERO),
        .o = fa_host_operand(binding, FA_O),
        .lse = fa_host_operand(binding, FA_LSE),
        .cuts = (work->flags & FA_TABLE_LIST_CUTS) != 0,
        .near = (work->flags & FA_TABLE_NEAR) != 0,
        .partial = (float *)(workspace + plan->partial_offset),
        .partial_state = (fa_state *)(workspace + plan->partial_state_offset),
    };
    int32_t tasks = item_tasks(&run);
    fa_cpu_loop items = {
        .one = do_item,
        .of = &run,
        .count = work->items,
        .scratch = workspace,
        .scratch_bytes = plan->scratch_bytes,
        .tasks = tasks,
    };
    fa_status status = fa_cpu_loop_run(plan->device, &items);
    if (status != FA_OK || work->merges == 0)
        return status;
    fa_cpu_loop merges = {
        .one = do_merge,
        .of = &run,
        .count = work->merges,
        .tasks = merge_tasks(work, tasks),
    };
    return fa_cpu_loop_run(plan->device, &merges);
}
