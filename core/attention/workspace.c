/* SPDX-License-Identifier: Apache-2.0 */
/* A workspace that suffices for every length: what the choices of planning can come to, at their worst. */
#include "core/backend.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"

/* What lengths can come to within the tensors of the largest problem, packed or not. */
typedef struct family {
    fa_tile_problem shape; /* rows and keys of the longest sequence */
    int64_t rows;          /* of all sequences and heads            */
} family;

static fa_status measure(const fa_problem *p, family *f)
{
    const int64_t *q = p->tensor[FA_Q].shape;
    *f = (family){.shape = {.rows = FA_MIN(q[2], FA_MAX_LENGTH) * p->group,
                            .keys = FA_MIN(p->keys, FA_MAX_LENGTH),
                            .dim_qk = p->dim_qk,
                            .dim_v = p->dim_v,
                            .group = p->group}};
    if (!fa_mul_i64(q[0], q[2], &f->rows) || !fa_mul_i64(f->rows, p->heads_q, &f->rows))
        return fa_fail(FA_OUT_OF_MEMORY,
                       "q.shape is %lld x %lld x %lld rows: a bound on parts of them overflows memory",
                       (long long)q[0], (long long)q[1], (long long)q[2]);
    return FA_OK;
}

/* a * b, or the largest number where that is more. */
static int64_t product(int64_t a, int64_t b)
{
    int64_t made;
    return fa_mul_i64(a, b, &made) ? made : INT64_MAX;
}

/* The most parts and workers of any schedule, and with them the workspace of this kernel. */
static fa_status bound_kernel(fa_plan *plan, const family *f, size_t scratch, int64_t block_q, int64_t blocks)
{
    const fa_problem *p = &plan->problem;
    bool splits = fa_plan_splits(plan);
    int64_t most_parts = p->tuning.splits ? FA_MIN(p->tuning.splits, blocks) : splits ? blocks : 1;
    most_parts = FA_MAX(most_parts, 1);
    /* Where a driver ends loops: items are whole blocks, so that each has at least half of the keys it may have. */
    const int64_t item_keys = splits ? fa_tiling_item_keys(&plan->limits, &plan->kernel->traits) : 0;
    const int64_t needed =
        item_keys > 0 && f->shape.keys > item_keys / 2 ? 2 * f->shape.keys / item_keys + 1 : 1;
    most_parts = FA_MAX(most_parts, needed);
    int64_t partial = most_parts > 1 ? product(f->rows, most_parts) : 0;
    if (p->tuning.splits == 0)
        partial = FA_MIN(partial, fa_schedule_most_partial_rows(&plan->limits, block_q, f->shape.rows));
    if (needed > 1)
        partial = FA_MAX(partial, product(f->rows, needed));
    int64_t items = product(f->rows, most_parts);
    plan->scratch_bytes = scratch;
    plan->capacity.workers = (uint32_t)FA_MIN(items, (int64_t)plan->limits.units);
    plan->capacity.partial_rows = partial;
    return fa_plan_lay_out(plan);
}

/* Goes through the blocks that this kernel may be run with. */
static fa_status try_kernel(const fa_device *device, fa_plan *plan, const family *f, size_t *bytes)
{
    const fa_tile_traits *t = &plan->kernel->traits;
    const fa_tuning *tuning = &plan->problem.tuning;
    size_t scratch = 0;
    int64_t block_q = 0, blocks = 0;
    plan->limits = fa_kernel_limits(plan->kernel, &plan->problem, &device->limits);
    plan->tiling = (fa_tiling){0};
    while (fa_tiling_next_largest(&plan->limits, t, &f->shape, tuning->block_q, tuning->block_kv,
                                  &plan->tiling)) {
        plan->args = fa_plan_args(plan);
        if (device->backend->scratch_bytes)
            scratch = FA_MAX(scratch, device->backend->scratch_bytes(plan));
        block_q = plan->tiling.block_q;
    }
    if (block_q == 0)
        return FA_OK; /* no block fits: no plan */
    blocks =
        fa_ceil_div(f->shape.keys, tuning->block_kv ? fa_round_up(tuning->block_kv, t->tile.kv) : t->tile.kv);
    fa_status status = bound_kernel(plan, f, scratch, block_q, blocks);
    if (status == FA_OK)
        *bytes = FA_MAX(*bytes, plan->workspace);
    return status;
}

static fa_status bound(const fa_device *device, fa_plan *plan, size_t *bytes)
{
    family f;
    fa_status status = fa_plan_choose(device, &plan->problem, &plan->kernel, &plan->tiling);
    if (status == FA_OK && plan->kernel->baseline)
        status = fa_fail(FA_UNSUPPORTED, "tuning.kernel is \"%s\", a baseline, whose workspace has no bound",
                         plan->kernel->name);
    if (status == FA_OK)
        status = measure(&plan->problem, &f);
    for (int i = 0; i < device->kernels && status == FA_OK; i++) {
        plan->kernel = device->kernel[i];
        /* Each of the family has features of its own, but for v_in_k. */
        if (fa_kernel_may_run(plan->kernel, &plan->problem, plan->problem.features & FA_FEATURE_V_IN_K))
            status = try_kernel(device, plan, &f, bytes);
    }
    return status;
}

fa_status fa_workspace_bound(fa_device *device, const fa_attention_desc *largest, size_t *bytes)
{
    fa_clear_error();
    if (!bytes)
        return fa_fail(FA_INVALID, "bytes is NULL");
    *bytes = 0;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    fa_plan plan = {.device = device};
    size_t most = 0;
    fa_status status = fa_problem_init(device->context, largest, &plan.problem);
    if (status != FA_OK)
        return status;
    status = bound(device, &plan, &most);
    fa_problem_release(device->context, &plan.problem);
    if (status == FA_OK)
        *bytes = most;
    return fa_finish(status);
}
