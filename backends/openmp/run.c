/* SPDX-License-Identifier: Apache-2.0 */
/* Executing a plan: threads take work items off the list, then merge what was split. */
#include "backends/openmp/run.h"

#include <omp.h>
#include <stdatomic.h>

#include "backends/host_memory.h"
#include "backends/openmp/kernel.h"
#include "core/merge.h"
#include "core/portable/softmax.h"
#include "core/tensor.h"

fa_status fa_openmp_plan_prepare(fa_plan *plan)
{
    const fa_cpu_kernel *kernel = plan->row->impl;
    plan->scratch_bytes = kernel->scratch_bytes(plan);
    return FA_OK;
}

void fa_openmp_plan_release(fa_plan *plan)
{
    (void)plan;
}

static void merge_item(const fa_cpu_run *run, const fa_merge_item *merge)
{
    const fa_plan *plan = run->plan;
    const fa_problem *p = &plan->problem;
    const fa_sequence *s = &p->sequence[merge->sequence];
    const fa_tensor *o = &p->tensor[FA_O];
    int64_t rows = merge->row_end - merge->row_begin;
    for (int row = merge->row_begin; row < merge->row_end; row++) {
        int head = fa_args_head(plan->args, merge->head_kv, row),
            position = fa_args_position(plan->args, row);
        int64_t part = merge->part_row + row - merge->row_begin;
        fa_parts parts = {
            .dtype = FA_F32,
            .base = run->partial,
            .first = part * p->dim_v,
            .stride = rows * p->dim_v,
            .lse = run->partial_lse + part,
            .lse_stride = rows,
            .parts = merge->parts,
            .sink = p->sinks ? p->sinks[head] : FA_NEG_INF,
        };
        float lse = fa_merge_parts(&parts, p->dim_v, o->dtype, run->o,
                                   fa_tensor_offset(o, s->q_batch, head, s->q_row + position));
        if (run->lse)
            run->lse[fa_problem_lse_index(p, s, head, position)] = lse;
    }
}

/* Each worker takes the next item of the list; the longest come first, so they end close together. */
static void work(const fa_cpu_run *run, atomic_llong *next, char *scratch)
{
    const fa_plan *plan = run->plan;
    const fa_cpu_kernel *kernel = plan->row->impl;
    for (;;) {
        long long i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
        if (i >= plan->schedule.items)
            break;
        kernel->item(run, &plan->schedule.item[i], scratch);
    }
}

fa_status fa_openmp_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding)
{
    (void)queue;
    char *workspace =
        binding->workspace ? (char *)binding->workspace->address + binding->workspace_offset : NULL;
    fa_cpu_run run = {
        .plan = plan,
        .q = fa_host_operand(binding, FA_Q),
        .k = fa_host_operand(binding, FA_K),
        .v = fa_host_operand(binding, FA_V),
        .bias = fa_host_operand(binding, FA_BIAS),
        .keep = fa_host_operand(binding, FA_KEEP),
        .o = fa_host_operand(binding, FA_O),
        .lse = fa_host_operand(binding, FA_LSE),
        .partial = (float *)(workspace + plan->partial_offset),
        .partial_lse = (float *)(workspace + plan->partial_lse_offset),
    };
    atomic_llong next = 0;
    int workers = (int)plan->schedule.workers;
    if (workers == 1) {
        work(&run, &next, workspace);
        for (int64_t i = 0; i < plan->schedule.merges; i++)
            merge_item(&run, &plan->schedule.merge[i]);
        return FA_OK;
    }
#pragma omp parallel num_threads(workers) default(none) shared(run, next, workspace, plan)
    {
        work(&run, &next, workspace + (size_t)omp_get_thread_num() * plan->scratch_bytes);
        if (plan->schedule.merges > 0) {
#pragma omp barrier
#pragma omp for schedule(static) nowait
            for (int64_t i = 0; i < plan->schedule.merges; i++)
                merge_item(&run, &plan->schedule.merge[i]);
        }
    }
    return FA_OK;
}
