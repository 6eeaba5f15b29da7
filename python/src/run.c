/* SPDX-License-Identifier: Apache-2.0 */
/* A run of a plan: in place, on copies, or on the caller's stream of CUDA. */
#include <string.h>
#include <time.h>

#include "binding.h"

static bool is_open(const fa_py_problem *problem, int operand)
{
    return problem->present >> operand & 1;
}

/* Where an operand lies. One without elements may lie anywhere, but not at NULL. */
static void *place_of(const fa_py_problem *problem, int operand)
{
    static float nothing[16];
    if (!is_open(problem, operand))
        return NULL;
    void *data = problem->operand[operand].data;
    return data ? data : nothing;
}

/* How an operand is described. */
static fa_tensor tensor_of(const fa_attention_desc *desc, int operand)
{
    switch (operand) {
    case OP_Q: return desc->q;
    case OP_K: return desc->k;
    case OP_V: return desc->v;
    case OP_O: return desc->o;
    case OP_BIAS: return desc->bias;
    case OP_KEEP: return desc->keep;
    case OP_PAGE_TABLE: return desc->page_table;
    case OP_K_SCALE: return desc->k_scale;
    case OP_V_SCALE: return desc->v_scale;
    case OP_K_ZERO: return desc->k_zero;
    case OP_V_ZERO: return desc->v_zero;
    default: return fa_tensor_make(FA_F32, desc->o.shape[0], desc->o.shape[1], desc->o.shape[2], 1);
    }
}

/* The work of other lengths than the plan's; `host` is where it lies in host memory, if it does. */
static fa_status schedule(const fa_py_plan *plan, fa_py_lane *lane, const fa_lengths *lengths)
{
    return lengths ? fa_plan_schedule(plan->plan, lane->queue, lengths, lane->work, 0) : FA_OK;
}

static fa_host_args host_args(const fa_py_plan *plan, const fa_py_problem *problem, const fa_py_lane *lane,
                              bool scheduled)
{
    return (fa_host_args){
        .struct_size = sizeof(fa_host_args),
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
        .work = scheduled ? lane->work_memory : NULL,
    };
}

static bool run_in_place(const fa_py_plan *plan, const fa_py_problem *problem, const fa_lengths *lengths,
                         fa_py_lane *lane)
{
    const fa_host_args args = host_args(plan, problem, lane, lengths);
    fa_status status;
    Py_BEGIN_ALLOW_THREADS status = schedule(plan, lane, lengths);
    if (status == FA_OK)
        status = fa_plan_run_host(plan->plan, lane->queue, &args);
    Py_END_ALLOW_THREADS if (status != FA_OK) fa_py_raise(status);
    return status == FA_OK;
}

bool fa_py_time(const fa_py_plan *plan, const fa_py_problem *problem, int64_t *nanoseconds, Py_ssize_t rounds)
{
    fa_py_lane *lane = fa_py_lane_take(plan->device, FA_PY_OWN_QUEUE, plan->workspace, 0);
    if (!lane)
        return false;
    const fa_host_args args = host_args(plan, problem, lane, false);
    fa_status status = FA_OK;
    for (Py_ssize_t round = 0; round < rounds && status == FA_OK; round++) {
        struct timespec begin, end;
        (void)clock_gettime(CLOCK_MONOTONIC, &begin);
        status = fa_plan_run_host(plan->plan, lane->queue, &args);
        (void)clock_gettime(CLOCK_MONOTONIC, &end);
        nanoseconds[round] = (end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec);
    }
    if (status != FA_OK)
        fa_py_raise(status);
    fa_py_lane_give(plan->device, lane);
    return status == FA_OK;
}

/* ---- buffers ---- */

typedef struct bound {
    fa_buffer *buffer[OPERANDS], *workspace;
    size_t offset[OPERANDS], span[OPERANDS], workspace_offset;
} bound;

static void unbind(bound *b)
{
    for (int operand = 0; operand < OPERANDS; operand++)
        fa_buffer_destroy(b->buffer[operand]);
    fa_buffer_destroy(b->workspace);
}

static fa_attention_args args_of(const bound *b, const fa_py_lane *lane, bool scheduled)
{
    return (fa_attention_args){
        .struct_size = sizeof(fa_attention_args),
        .q = b->buffer[OP_Q],
        .k = b->buffer[OP_K],
        .v = b->buffer[OP_V],
        .o = b->buffer[OP_O],
        .bias = b->buffer[OP_BIAS],
        .keep = b->buffer[OP_KEEP],
        .page_table = b->buffer[OP_PAGE_TABLE],
        .k_scale = b->buffer[OP_K_SCALE],
        .v_scale = b->buffer[OP_V_SCALE],
        .k_zero = b->buffer[OP_K_ZERO],
        .v_zero = b->buffer[OP_V_ZERO],
        .lse = b->buffer[OP_LSE],
        .workspace = b->workspace,
        .q_offset = b->offset[OP_Q],
        .k_offset = b->offset[OP_K],
        .v_offset = b->offset[OP_V],
        .o_offset = b->offset[OP_O],
        .bias_offset = b->offset[OP_BIAS],
        .keep_offset = b->offset[OP_KEEP],
        .page_table_offset = b->offset[OP_PAGE_TABLE],
        .k_scale_offset = b->offset[OP_K_SCALE],
        .v_scale_offset = b->offset[OP_V_SCALE],
        .k_zero_offset = b->offset[OP_K_ZERO],
        .v_zero_offset = b->offset[OP_V_ZERO],
        .lse_offset = b->offset[OP_LSE],
        .workspace_offset = b->workspace_offset,
        .work = scheduled ? lane->work : NULL,
    };
}

/* ---- copies ---- */

/* Results are copied there too: what a run does not write of them comes back as it was. */
static fa_status copy_in(const fa_py_plan *plan, const fa_py_problem *problem, const fa_py_lane *lane,
                         bound *b)
{
    for (int operand = 0; operand < OPERANDS; operand++) {
        if (!is_open(problem, operand))
            continue;
        const fa_tensor tensor = tensor_of(&problem->desc, operand);
        fa_status status = fa_tensor_span(&tensor, &b->span[operand]);
        if (status == FA_OK)
            status = fa_buffer_create(plan->device->device, b->span[operand], &b->buffer[operand]);
        if (status == FA_OK)
            status = fa_buffer_write(lane->queue, b->buffer[operand], 0, place_of(problem, operand),
                                     b->span[operand]);
        if (status != FA_OK)
            return status;
    }
    return plan->workspace ? fa_buffer_create(plan->device->device, plan->workspace, &b->workspace) : FA_OK;
}

static fa_status copy_out(const fa_py_problem *problem, const fa_py_lane *lane, const bound *b)
{
    fa_status status =
        fa_buffer_read(lane->queue, b->buffer[OP_O], 0, place_of(problem, OP_O), b->span[OP_O]);
    if (status == FA_OK && b->buffer[OP_LSE])
        status =
            fa_buffer_read(lane->queue, b->buffer[OP_LSE], 0, place_of(problem, OP_LSE), b->span[OP_LSE]);
    return status;
}

static bool run_on_copies(const fa_py_plan *plan, const fa_py_problem *problem, const fa_lengths *lengths,
                          fa_py_lane *lane)
{
    bound b = {0};
    fa_status status;
    Py_BEGIN_ALLOW_THREADS status = copy_in(plan, problem, lane, &b);
    if (status == FA_OK)
        status = schedule(plan, lane, lengths);
    if (status == FA_OK) {
        const fa_attention_args args = args_of(&b, lane, lengths);
        status = fa_plan_run(plan->plan, lane->queue, &args);
    }
    if (status == FA_OK)
        status = fa_queue_wait(lane->queue);
    if (status == FA_OK)
        status = copy_out(problem, lane, &b);
    Py_END_ALLOW_THREADS if (status != FA_OK) fa_py_raise(status);
    unbind(&b);
    return status == FA_OK;
}

/* ---- CUDA ---- */

fa_status fa_py_wrap(const fa_py_device *device, const void *data, size_t span, fa_buffer **buffer,
                     size_t *offset)
{
    *offset = 0;
    if (span == 0)
        return fa_buffer_create(device->device, 0, buffer);
    if (!device->is_cuda)
        return fa_buffer_wrap_host(device->device, (void *)(uintptr_t)data, span, buffer);
    const uint64_t address = (uint64_t)(uintptr_t)data;
    *offset = (size_t)(address % 64);
    return fa_buffer_wrap_cuda(device->device, address - *offset, span + *offset, buffer);
}

static fa_status wrap_operands(const fa_py_plan *plan, const fa_py_problem *problem,
                               const fa_py_tensor *workspace, bound *b)
{
    fa_status status = FA_OK;
    for (int operand = 0; operand < OPERANDS && status == FA_OK; operand++) {
        if (!is_open(problem, operand))
            continue;
        const fa_tensor tensor = tensor_of(&problem->desc, operand);
        status = fa_tensor_span(&tensor, &b->span[operand]);
        if (status == FA_OK)
            status = fa_py_wrap(plan->device, problem->operand[operand].data, b->span[operand],
                                &b->buffer[operand], &b->offset[operand]);
    }
    if (status == FA_OK && plan->workspace) {
        status = fa_py_wrap(plan->device, workspace->data, plan->workspace + 64, &b->workspace,
                            &b->workspace_offset);
        b->workspace_offset = (b->workspace_offset + 63) / 64 * 64;
    }
    return status;
}

/* The framework's allocator knows the stream's order: scratch memory may go back to it while the run is under way. */
static bool run_on_stream(const fa_py_plan *plan, const fa_py_problem *problem, const fa_lengths *lengths,
                          fa_py_lane *lane)
{
    fa_py_tensor workspace = {0};
    const int64_t bytes = (int64_t)plan->workspace + 128;
    if (plan->workspace && !fa_py_empty(&problem->operand[OP_Q], "workspace", FA_U8, 1, &bytes, &workspace))
        return false;
    bound b = {0};
    fa_status status;
    Py_BEGIN_ALLOW_THREADS status = wrap_operands(plan, problem, &workspace, &b);
    if (status == FA_OK)
        status = schedule(plan, lane, lengths);
    if (status == FA_OK) {
        const fa_attention_args args = args_of(&b, lane, lengths);
        status = fa_plan_run(plan->plan, lane->queue, &args);
    }
    Py_END_ALLOW_THREADS if (status != FA_OK) fa_py_raise(status);
    unbind(&b);
    fa_py_close(&workspace);
    return status == FA_OK;
}

/* ---- all of them ---- */

/* Rows beyond a length are not computed; in a result that was made here they are 0, as is their LSE. */
static void clear_results(const fa_py_problem *problem)
{
    for (int operand = OP_O; operand <= OP_LSE; operand++) {
        const fa_py_tensor *tensor = &problem->operand[operand];
        const fa_tensor made = tensor_of(&problem->desc, operand);
        size_t span;
        if (is_open(problem, operand) && tensor->fresh && fa_py_on_host(tensor) &&
            fa_tensor_span(&made, &span) == FA_OK && span > 0)
            memset(tensor->data, 0, span);
    }
}

bool fa_py_run(const fa_py_plan *plan, const fa_py_problem *problem, const fa_lengths *lengths)
{
    fa_py_device *device = plan->device;
    const bool on_host = fa_py_on_host(&problem->operand[OP_Q]);
    void *stream = FA_PY_OWN_QUEUE;
    if (!on_host && !fa_py_stream(&problem->operand[OP_Q], &stream))
        return false;
    fa_py_lane *lane = fa_py_lane_take(device, stream, device->in_place ? plan->workspace : 0,
                                       lengths ? fa_plan_work(plan->plan) : 0);
    if (!lane)
        return false;
    const fa_attention_desc *desc = &problem->desc;
    if (lengths || desc->lens_q || desc->cu_rows_q)
        clear_results(problem);
    bool done;
    if (device->in_place)
        done = run_in_place(plan, problem, lengths, lane);
    else if (on_host)
        done = run_on_copies(plan, problem, lengths, lane);
    else
        done = run_on_stream(plan, problem, lengths, lane);
    fa_py_lane_give(device, lane);
    return done;
}
