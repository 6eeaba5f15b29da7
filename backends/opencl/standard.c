/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: two matrix products, and softmax between them over scores that all pass
 * through the workspace. The planner makes one item of all rows of a KV head. A launch takes as many items as
 * the workspace has room for the scores of, or where it has not for one, a range of that item's rows.
 */
#include "backends/opencl/plan.h"
#include "core/status.h"

static fa_status make_kernel(const fa_plan *plan, const char *which, const char *name, int32_t tile_cols,
                             bool aligned, cl_kernel *made)
{
    const fa_gpu_kernel *kernel = plan->row->impl;
    const fa_cl_plan *prepared = plan->impl;
    fa_cl_options options = {.used = 0};
    fa_cl_options_common(&options, plan, prepared->usual.chunks);
    fa_cl_options_add(&options, " -DFA_KERNEL_STANDARD -D%s -DFA_GROUP=%d%s%s", which, kernel->group,
                      plan->problem.features & FA_FEATURE_MASK ? " -DFA_HIDES" : "",
                      aligned ? " -DFA_ALIGNED" : "");
    if (tile_cols > 0)
        fa_cl_options_add(&options, " -DFA_LANES=%d -DFA_DEPTH=%d -DFA_ROWS=%d -DFA_COLS=%d", kernel->lanes,
                          kernel->depth, prepared->standard.with.tile_rows / (kernel->group / kernel->lanes),
                          tile_cols / kernel->lanes);
    return fa_cl_kernel_make(plan, &options, name, made);
}

fa_status fa_cl_standard_prepare(fa_plan *plan, fa_cl_plan *made)
{
    const fa_gpu_kernel *kernel = plan->row->impl;
    const fa_problem *p = &plan->problem;
    fa_cl_standard *s = &made->standard;
    if (made->usual.chunks > 1)
        return fa_fail(FA_UNSUPPORTED,
                       "%s: an operand that spans more than the %zu bytes that %s allocates at once",
                       plan->row->name, (size_t)1 << fa_cl_chunk_shift(&fa_cl_device_of(plan->device)->caps),
                       plan->device->info.name);
    made->group = (size_t)kernel->group;
    fa_status status = fa_gpu_standard_choose(
        plan, kernel, (size_t)1 << fa_cl_chunk_shift(&fa_cl_device_of(plan->device)->caps), &s->with);
    for (int aligned = 0; aligned <= fa_gpu_can_align(p) && status == FA_OK; aligned++) {
        status = make_kernel(plan, "FA_SCORES", "fa_standard_scores", s->with.tile_keys, aligned,
                             &s->scores[aligned]);
        if (status == FA_OK)
            status = make_kernel(plan, "FA_OUTPUT", "fa_standard_output", s->with.tile_dims, aligned,
                                 &s->output[aligned]);
    }
    return status == FA_OK ? make_kernel(plan, "FA_SOFTMAX", "fa_standard_softmax", 0, false, &s->softmax)
                           : status;
}

/* What the three kernels of a launch are started with. */
typedef struct step {
    const fa_plan *plan;
    const fa_cl_place *where;
    cl_command_queue queue;
    fa_gpu_launch launch;
} step;

/* One of them; `operand` are those that it takes before the scratch memory. */
static fa_status start(const step *s, cl_kernel kernel, int operands, const int *operand, bool factors,
                       int64_t groups, cl_event *event)
{
    const fa_cl_plan *prepared = s->plan->impl;
    fa_cl_launch l = {.cl = fa_cl_device_of(s->plan->device)->cl, .kernel = kernel};
    const fa_cl_place *scratch = &s->where[FA_CL_WORKSPACE];
    const cl_long factors_at = scratch->at + (cl_long)prepared->standard.with.factors_at;
    const cl_int keys = s->plan->problem.max_len_kv;
    fa_cl_pass(&l, sizeof(cl_mem), &prepared->table);
    for (int i = 0; i < operands; i++)
        fa_cl_pass_memory(&l, &s->where[operand[i]], prepared->usual.chunks);
    fa_cl_pass_memory(&l, scratch, prepared->usual.chunks);
    for (int i = 0; i < operands; i++)
        fa_cl_pass(&l, sizeof(cl_long), &s->where[operand[i]].at);
    fa_cl_pass(&l, sizeof(cl_long), &scratch->at);
    if (factors)
        fa_cl_pass(&l, sizeof(cl_long), &factors_at);
    fa_cl_pass(&l, sizeof(cl_int), &s->launch.first);
    fa_cl_pass(&l, sizeof(cl_int), &s->launch.row_begin);
    fa_cl_pass(&l, sizeof(cl_int), &s->launch.rows);
    fa_cl_pass(&l, sizeof(cl_int), &keys);
    return fa_cl_enqueue(&l, s->queue, groups, 1, prepared->group, event);
}

/* The three; `first` and `last` are NULL where an event is not wanted. */
static fa_status start_all(const step *s, bool aligned, cl_event *first, cl_event *last)
{
    static const int of_scores[] = {FA_Q, FA_K}, of_softmax[] = {FA_LSE}, of_output[] = {FA_V, FA_O};
    const fa_cl_standard *kernels = &((const fa_cl_plan *)s->plan->impl)->standard;
    const fa_gpu_launch *l = &s->launch;
    const bool scores = l->scores > 0;
    fa_status status = FA_OK;
    aligned = aligned && kernels->scores[1];
    if (scores)
        status = start(s, kernels->scores[aligned], 2, of_scores, false, l->scores, first);
    if (status == FA_OK)
        status = start(s, kernels->softmax, 1, of_softmax, true, l->softmax, scores ? NULL : first);
    if (status == FA_OK)
        status = start(s, kernels->output[aligned], 2, of_output, true, l->output, last);
    return status;
}

fa_status fa_cl_standard_run(const fa_plan *plan, fa_cl_queue *queue, const fa_cl_place where[FA_CL_PLACES],
                             bool aligned, cl_event *first, cl_event *last)
{
    const fa_gpu_standard *with = &((const fa_cl_plan *)plan->impl)->standard.with;
    step s = {.plan = plan, .where = where, .queue = queue->handle};
    fa_status status = FA_OK;
    while (status == FA_OK && fa_gpu_standard_next(plan, with, &s.launch))
        status = start_all(&s, aligned, s.launch.starts ? first : NULL, s.launch.ends ? last : NULL);
    return status;
}
