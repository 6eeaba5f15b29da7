/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on host memory in one call: in place where the device can, copied in and out where not. */
#include <string.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

enum { PIECE = 4 << 20 }; /* bytes of scattered rows that are collected for one transfer */

typedef struct host_run {
    fa_device *device;
    void *memory[FA_OPERANDS]; /* the caller's */
    fa_plan *plan;
    fa_queue *queue;
    fa_buffer *made[FA_OPERANDS]; /* to be destroyed */
    fa_binding binding;           /* its workspace too is to be destroyed */
    /* Of a device that copies: */
    fa_problem problem; /* the caller's; that of the plan has the same tensors without gaps */
    char *staging;      /* PIECE bytes */
    char *result[FA_OPERANDS];
} host_run;

/* In place */

typedef struct byte_range {
    uintptr_t begin, end;
    int group; /* the operand whose buffer it lies in */
} byte_range;

/* Whether all members of two groups lie at multiples of their elements behind `begin`. */
static bool can_share(const host_run *run, const byte_range *range, int a, int b, uintptr_t begin)
{
    for (int t = 0; t < FA_OPERANDS; t++) {
        bool member = range[t].group == a || range[t].group == b;
        size_t element = fa_dtype_align(run->plan->problem.tensor[t].dtype);
        if (member && ((uintptr_t)run->memory[t] - begin) % element != 0)
            return false;
    }
    return true;
}

static bool join(const host_run *run, byte_range *range, int a, int b)
{
    uintptr_t begin = FA_MIN(range[a].begin, range[b].begin), end = FA_MAX(range[a].end, range[b].end);
    int into = range[a].group, from = range[b].group;
    if (into == from || range[a].begin >= range[b].end || range[b].begin >= range[a].end ||
        !can_share(run, range, into, from, begin))
        return false;
    for (int t = 0; t < FA_OPERANDS; t++) {
        if (range[t].group == into || range[t].group == from)
            range[t] = (byte_range){begin, end, into};
    }
    return true;
}

/* Operands that lie among each other share a buffer: a driver may take two for memory that is apart. */
static fa_status wrap_operands(host_run *run)
{
    byte_range range[FA_OPERANDS];
    for (int t = 0; t < FA_OPERANDS; t++) {
        uintptr_t at = (uintptr_t)run->memory[t];
        range[t] = (byte_range){at, at + (at ? run->plan->problem.span[t] : 0), t};
    }
    for (int t = 0; t < FA_OPERANDS; t++) {
        for (int other = 0; other < FA_OPERANDS; other++) {
            if (join(run, range, t, other))
                other = -1; /* it has grown: once more from the first on */
        }
    }
    for (int t = 0; t < FA_OPERANDS; t++) {
        int group = range[t].group;
        if (!run->memory[t])
            continue; /* absent, or missing, which fa_plan_run() refuses */
        if (!run->made[group]) {
            fa_status status = fa_buffer_wrap_host(run->device, (void *)range[t].begin,
                                                   range[t].end - range[t].begin, &run->made[group]);
            if (status != FA_OK)
                return status;
        }
        run->binding.buffer[t] = run->made[group];
        run->binding.offset[t] = (uintptr_t)run->memory[t] - range[t].begin;
    }
    return FA_OK;
}

/* By copies */

/* Axes 0 to 2 that elements lie along, those that step furthest first; how many. */
static int sort_axes(const fa_tensor *t, int axes[3])
{
    int count = 0;
    for (int axis = 0; axis < 3; axis++) {
        if (t->shape[axis] <= 1 || t->stride[axis] == 0)
            continue;
        int at = count++;
        for (; at > 0 && t->stride[axes[at - 1]] < t->stride[axis]; at--)
            axes[at] = axes[at - 1];
        axes[at] = axis;
    }
    return count;
}

/*
 * The same tensor without gaps between its rows, its axes in the order that they have in memory. Repeated axes stay
 * repeated. An input whose rows overlap may need less as it is: then it stays so.
 */
static fa_tensor compact(const fa_tensor *t)
{
    int axes[3];
    fa_tensor made = *t;
    if (t->stride[3] == 0)
        made.shape[3] = 1;
    int64_t stride = FA_TYPE_PRUNES((int)t->dtype) ? t->stride[3] : made.shape[3];
    if (fa_tensor_is_empty(t))
        return made;
    memset(made.stride, 0, 3 * sizeof(made.stride[0]));
    for (int i = sort_axes(t, axes) - 1; i >= 0; i--) {
        made.stride[axes[i]] = stride;
        if (t->stride[axes[i]] < stride || !fa_mul_i64(stride, t->shape[axes[i]], &stride))
            return *t;
    }
    if (made.stride[0] == 0 && made.stride[1] == 0 && made.stride[2] == 0 && made.stride[3] == 0)
        return fa_tensor_make(t->dtype, 1, 1, 1,
                              1); /* one element; in a description, strides of 0 are contiguous */
    return made;
}

/* How far the rows of q and o, or of k and v, are in use. */
static int64_t rows_in_use(const fa_problem *p, int operand)
{
    int64_t rows = p->sequences > 0 ? 0 : p->tensor[operand].shape[2];
    for (int64_t n = 0; n < p->sequences; n++) {
        const fa_sequence *s = &p->sequence[n];
        int64_t end = operand == FA_Q ? s->q_row + s->len_q : s->kv_row + s->len_kv;
        rows = FA_MAX(rows, end);
    }
    return rows;
}

/* A plan for the same problem on tensors without gaps and without rows that no sequence has. */
static fa_status plan_compact(host_run *run, const fa_attention_desc *desc)
{
    fa_attention_desc d;
    fa_status status = fa_problem_read_desc(desc, &d);
    if (status != FA_OK)
        return status;
    fa_tensor *const tensor[] = {
        [FA_Q] = &d.q, [FA_K] = &d.k, [FA_V] = &d.v, [FA_O] = &d.o, [FA_BIAS] = &d.bias, [FA_KEEP] = &d.keep};
    for (int t = 0; t <= FA_KEEP; t++) {
        fa_tensor used = run->problem.tensor[t];
        if (run->problem.span[t] == 0)
            continue;
        if (t <= FA_O)
            used.shape[2] = rows_in_use(&run->problem, t == FA_O ? FA_Q : t);
        *tensor[t] = compact(&used);
    }
    if (run->problem.features & FA_FEATURE_V_IN_K)
        memset(d.v.stride, 0, sizeof(d.v.stride)); /* k's */
    return fa_plan_create(run->device, &d, &run->plan);
}

/* Pieces of contiguous bytes of a tensor in the order that compact() gives them. */
typedef struct pieces {
    char *memory;
    size_t bytes; /* of one */
    int axes;
    int64_t count[3];
    size_t stride[3];
    size_t total;
} pieces;

static pieces pieces_of(const fa_tensor *caller, const fa_tensor *ours, size_t span, void *memory)
{
    int axes[3];
    pieces p = {.memory = memory, .bytes = span, .total = 1};
    if (memcmp(caller->stride, ours->stride, sizeof(ours->stride)) == 0)
        return p; /* as a whole */
    p.bytes = (size_t)fa_tensor_row_bytes(ours);
    p.axes = sort_axes(ours, axes);
    while (p.axes > 0 && (size_t)fa_dtype_bytes(caller->dtype, caller->stride[axes[p.axes - 1]]) == p.bytes)
        p.bytes *= (size_t)ours->shape[axes[--p.axes]];
    for (int i = 0; i < p.axes; i++) {
        p.count[i] = ours->shape[axes[i]];
        p.stride[i] = (size_t)fa_dtype_bytes(caller->dtype, caller->stride[axes[i]]);
        p.total *= (size_t)p.count[i];
    }
    return p;
}

static char *piece_at(const pieces *p, size_t index)
{
    char *at = p->memory;
    for (int i = p->axes - 1; i >= 0; i--) {
        at += index % (size_t)p->count[i] * p->stride[i];
        index /= (size_t)p->count[i];
    }
    return at;
}

static fa_status upload(host_run *run, int t)
{
    const fa_problem *ours = &run->plan->problem;
    const pieces p = pieces_of(&run->problem.tensor[t], &ours->tensor[t], ours->span[t], run->memory[t]);
    const size_t most = p.total == 1 || p.bytes > PIECE / 2 ? 1 : PIECE / p.bytes;
    fa_status status = FA_OK;
    if (most > 1 && !run->staging && !(run->staging = fa_alloc(run->device->context, PIECE)))
        return FA_OUT_OF_MEMORY;
    for (size_t i = 0, some; i < p.total && status == FA_OK; i += some) {
        const char *from = piece_at(&p, i);
        some = FA_MIN(most, p.total - i);
        for (size_t j = 0; most > 1 && j < some; j++)
            memcpy(run->staging + j * p.bytes, piece_at(&p, i + j), p.bytes);
        status = fa_buffer_write(run->queue, run->made[t], i * p.bytes, most > 1 ? run->staging : from,
                                 some * p.bytes);
    }
    return status;
}

static fa_status copy_operands(host_run *run)
{
    fa_status status = FA_OK;
    for (int t = 0; t < FA_OPERANDS && status == FA_OK; t++) {
        size_t span = run->plan->problem.span[t];
        const bool in_k = t == FA_V && (run->problem.features & FA_FEATURE_V_IN_K);
        if (!run->memory[t] || in_k)
            continue;
        status = fa_buffer_create(run->device, span, &run->made[t]);
        run->binding.buffer[t] = run->made[t];
        if (status == FA_OK && !fa_operands[t].written && span > 0)
            status = upload(run, t);
    }
    return status;
}

/* The results, into memory of our own: the caller's is touched when nothing can fail any more. */
static fa_status download(host_run *run)
{
    fa_status status = FA_OK;
    for (int t = 0; t < FA_OPERANDS && status == FA_OK; t++) {
        size_t span = run->plan->problem.span[t];
        if (!fa_operands[t].written || !run->made[t] || span == 0)
            continue;
        run->result[t] = fa_alloc(run->device->context, span);
        status = run->result[t] ? fa_buffer_read(run->queue, run->made[t], 0, run->result[t], span)
                                : FA_OUT_OF_MEMORY;
    }
    return status;
}

/* Rows of sequences only, and of them no gap between: the rest is the caller's. */
static void hand_out(const host_run *run, int t)
{
    const fa_tensor *theirs = &run->problem.tensor[t], *ours = &run->plan->problem.tensor[t];
    const size_t element = fa_dtype_size(ours->dtype), row = (size_t)ours->shape[3] * element;
    for (int64_t n = 0; n < run->problem.sequences; n++) {
        const fa_sequence *s = &run->problem.sequence[n];
        for (int64_t i = 0; i < (int64_t)s->len_q * run->problem.heads_q; i++) {
            int64_t head = i / s->len_q, at = s->q_row + i % s->len_q;
            memcpy((char *)run->memory[t] + (size_t)fa_tensor_offset(theirs, s->q_batch, head, at) * element,
                   run->result[t] + (size_t)fa_tensor_offset(ours, s->q_batch, head, at) * element, row);
        }
    }
}

static void host_release(host_run *run)
{
    const fa_context *context = run->device->context;
    for (int t = 0; t < FA_OPERANDS; t++) {
        fa_buffer_destroy(run->made[t]);
        if (run->result[t])
            fa_release(context, run->result[t], run->plan->problem.span[t]);
    }
    fa_buffer_destroy(run->binding.workspace);
    fa_queue_destroy(run->queue);
    fa_plan_destroy(run->plan);
    fa_release(context, run->staging, PIECE);
    fa_problem_release(context, &run->problem);
}

/* What fa_plan_run() would refuse in place: asked before anything is copied, with the caller's own layouts. */
static fa_status check_memory(const host_run *run)
{
    fa_buffer view[FA_OPERANDS];
    fa_binding binding = {.workspace = NULL};
    for (int t = 0; t < FA_OPERANDS; t++) {
        view[t] = (fa_buffer){.device = run->device, .size = run->problem.span[t], .address = run->memory[t]};
        binding.buffer[t] = run->memory[t] ? &view[t] : NULL;
    }
    fa_status status = fa_binding_share(&run->problem, &binding);
    return status == FA_OK ? fa_binding_check(&binding, run->device, &run->problem, 0, 0) : status;
}

/* What fa_attention_host() has no argument for. */
static fa_status check_arguments(const fa_problem *p)
{
    for (int t = 0; t < FA_OPERANDS; t++) {
        const bool taken = t <= FA_KEEP || t == FA_LSE;
        if (!taken && (p->features & fa_operands[t].feature))
            return fa_fail(
                FA_INVALID,
                "%s.shape[0] is %lld, expected no %s: fa_attention_host() has no argument for one, "
                "fa_plan_run() and fa_plan_run_host() have",
                fa_operands[t].name, (long long)p->tensor[t].shape[0], fa_operands[t].name);
    }
    return FA_OK;
}

static fa_status prepare(host_run *run, const fa_attention_desc *desc, bool in_place)
{
    fa_status status = in_place ? fa_plan_create(run->device, desc, &run->plan)
                                : fa_problem_init(run->device->context, desc, &run->problem);
    if (status == FA_OK)
        status = check_arguments(in_place ? &run->plan->problem : &run->problem);
    if (in_place)
        return status;
    if (status == FA_OK)
        status = check_memory(run);
    return status == FA_OK ? plan_compact(run, desc) : status;
}

static fa_status execute(host_run *run)
{
    fa_status status = fa_plan_run_bound(run->plan, run->queue, &run->binding);
    return status == FA_OK ? fa_queue_wait(run->queue) : status;
}

static fa_status host_execute(host_run *run, const fa_attention_desc *desc)
{
    const bool in_place = run->device->info.host_memory;
    fa_status status = prepare(run, desc, in_place);
    if (status == FA_OK)
        status = fa_queue_create(run->device, &run->queue);
    if (status == FA_OK)
        status = in_place ? wrap_operands(run) : copy_operands(run);
    if (status == FA_OK && run->plan->workspace > 0)
        status = fa_buffer_create(run->device, run->plan->workspace, &run->binding.workspace);
    if (status == FA_OK)
        status = execute(run);
    if (status != FA_OK || in_place)
        return status;
    status = download(run);
    for (int t = 0; t < FA_OPERANDS && status == FA_OK; t++) {
        if (run->result[t])
            hand_out(run, t);
    }
    return status;
}

fa_status fa_attention_host(fa_device *device, const fa_attention_desc *desc, const void *q, const void *k,
                            const void *v, const void *bias, const void *keep, void *o, float *lse)
{
    const void *const page_table = NULL, *const k_scale = NULL, *const v_scale = NULL, *const k_zero = NULL,
                      *const v_zero = NULL;
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
#define FA_OPERAND(constant, field, written, feature) [FA_##constant] = (void *)(uintptr_t)field,
    /* Inputs are only read, but a buffer has one type for both. */
    host_run run = {
        .device = device,
        .memory =
            {
#include "core/attention/operands.inc"
            },
    };
#undef FA_OPERAND
    fa_status status = host_execute(&run, desc);
    host_release(&run);
    return fa_finish(status);
}
