/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling ahead: every choice of kernel and blocks that the lengths of a family can come to. */
#include "core/attention/fill.h"
#include "core/attention/relist.h"
#include "core/attention/run_status.h"
#include "core/backend.h"
#include "core/context.h"
#include "core/device.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"

/* Compiles plan->kernel in blocks of plan->tiling, and where plans may halve them, in those too. */
static fa_status compile_blocks(fa_plan *plan, bool halve)
{
    const fa_backend *backend = plan->device->backend;
    const int32_t tile = plan->kernel->traits.tile.q;
    fa_status status = FA_OK;
    plan->limits = fa_kernel_limits(plan->kernel, &plan->problem, &plan->device->limits);
    for (int32_t q = plan->tiling.block_q; q > 0 && status == FA_OK; q = halve && q > tile ? q / 2 : 0) {
        plan->tiling.block_q = (int32_t)fa_round_up(q, tile);
        plan->args = fa_plan_args(plan);
        plan->capacity.partial_rows =
            fa_schedule_most_partial_rows(&plan->limits, plan->tiling.block_q, plan->tiling.block_q);
        status = backend->plan_compile(plan);
    }
    return status;
}

static fa_status compile_class(fa_plan *plan, int64_t rows, int64_t keys, bool one_position)
{
    fa_tile_problem shape = fa_plan_shape(&plan->problem);
    shape.rows = rows;
    shape.keys = keys;
    fa_status status =
        fa_plan_choose_for(plan->device, &plan->problem, &shape, one_position, &plan->kernel, &plan->tiling);
    return status == FA_OK ? compile_blocks(plan, !one_position && !plan->problem.tuning.block_q) : status;
}

/* Lengths choose by classes: of each there is a power of two of rows, and one of keys. */
static fa_status compile_classes(fa_plan *plan, int64_t rows, int64_t keys)
{
    const int64_t group = plan->problem.group;
    fa_status status = rows > 0 ? compile_class(plan, group, keys, true) : FA_OK;
    for (int64_t n = 1; n / 2 < rows * group && rows > 1; n *= 2) {
        for (int64_t m = 1; m / 2 < FA_MAX(keys, 1) && status == FA_OK; m *= 2)
            status = compile_class(plan, n, m, false);
    }
    return status;
}

/* Lengths choose freely: every kernel that serves the family may run. */
static fa_status compile_all(fa_plan *plan)
{
    const fa_device *device = plan->device;
    const fa_tile_problem shape = fa_plan_shape(&plan->problem);
    const fa_tuning *tuning = &plan->problem.tuning;
    fa_status status = FA_OK;
    for (int i = 0; i < device->kernels && status == FA_OK; i++) {
        plan->kernel = device->kernel[i];
        const fa_limits limits = fa_kernel_limits(plan->kernel, &plan->problem, &device->limits);
        if (fa_kernel_may_run(plan->kernel, &plan->problem, plan->problem.features) &&
            fa_tiling_fastest(&limits, &plan->kernel->traits, &shape, tuning->block_q, tuning->block_kv,
                              &plan->tiling))
            status = compile_blocks(plan, false);
    }
    return status;
}

static fa_status warm(fa_plan *plan)
{
    const fa_problem *p = &plan->problem;
    fa_status status = fa_plan_choose(plan->device, p, &plan->kernel, &plan->tiling);
    if (status != FA_OK)
        return status;
    if (!plan->device->backend->plan_compile)
        return FA_OK;
    if (!plan->device->limits.compiled)
        return compile_all(plan);
    return compile_classes(plan, FA_MIN(p->tensor[FA_Q].shape[2], FA_MAX_LENGTH),
                           FA_MIN(p->keys, FA_MAX_LENGTH));
}

fa_status fa_device_warm(fa_device *device, const fa_attention_desc *largest)
{
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    FA_TRY(fa_device_check(device));
    fa_plan plan = {.device = device};
    fa_status status = fa_problem_init(device->context, largest, &plan.problem);
    if (status != FA_OK)
        return status;
    plan.score = fa_problem_score(&plan.problem);
    status = warm(&plan);
    if (status == FA_OK && plan.problem.on_device)
        status = fa_fill_compile(device);
    if (status == FA_OK && plan.problem.on_device && plan.problem.lists.given && plan.problem.lists.bits)
        status = fa_relist_compile(device);
    if (status == FA_OK && plan.problem.want_status)
        status = fa_run_status_compile(device);
    fa_problem_release(device->context, &plan.problem);
    return fa_finish(status);
}
