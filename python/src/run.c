/* SPDX-License-Identifier: Apache-2.0 */
/* A run of a plan: in place, on copies, or on the caller's stream of CUDA. */
#include <string.h>

#include "binding.h"

static void *data_of(const fa_py_problem *problem, fa_py_operand operand)
{
    return problem->present >> operand & 1 ? problem->operand[operand].data : NULL;
}

/* Where an operand of no elements lies does not matter, but for NULL. */
static void *place_of(const fa_py_problem *problem, fa_py_operand operand)
{
    static float nothing[16];
    void *data = data_of(problem, operand);
    return !data && problem->present >> operand & 1 ? nothing : data;
}

static bool run_in_place(fa_py_plan *plan, const fa_py_problem *problem)
{
    fa_py_lane *lane = fa_py_lane_take(plan->device, NULL, plan->workspace);
    if (!lane)
        return false;
    const fa_host_args args = {
        .struct_size = sizeof args,
        .q = place_of(problem, OP_Q),
        .k = place_of(problem, OP_K),
        .v = place_of(problem, OP_V),
        .bias = place_of(problem, OP_BIAS),
        .keep = place_of(problem, OP_KEEP),
        .page_table = place_of(problem, OP_PAGE_TABLE),
        .k_scale = place_of(problem, OP_K_SCALE),
        .v_scale = place_of(problem, OP_V_SCALE),
        .k_zero = place_of(problem, OP_K_ZERO),
        .v_zero = place_of(problem, OP_V_ZERO),
        .o = place_of(problem, OP_O),
        .lse = place_of(problem, OP_LSE),
        .workspace = plan->workspace ? lane->workspace : NULL,
    };
    fa_status status;
    Py_BEGIN_ALLOW_THREADS status = fa_plan_run_host(plan->plan, lane->queue, &args);
    Py_END_ALLOW_THREADS if (status != FA_OK) fa_py_raise(status);
    fa_py_lane_give(plan->device, lane);
    return status == FA_OK;
}

bool fa_py_run(fa_py_plan *plan, fa_py_problem *problem)
{
    return run_in_place(plan, problem);
}
