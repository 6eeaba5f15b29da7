/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_PLAN_H
#define FA_CORE_PLAN_H

#include <fastattn/fastattn.h>

#include "core/attention/schedule.h"
#include "core/attention/score.h"
#include "core/attention/work.h"
#include "core/kernel.h"

/* What kernels are told, of a plan's problem and tiling. */
typedef struct fa_args {
    int group; /* heads_q / heads_kv, see core/portable/row.h */
    int dim_qk, dim_v;
    int block_q, block_kv; /* a level-1 block */
} fa_args;

struct fa_plan {
    fa_device *device;
    fa_problem problem;
    const fa_kernel *kernel;
    fa_tiling tiling;
    fa_limits limits;     /* the device's, as seen by one of the kernel's resident blocks */
    fa_schedule schedule; /* of the plan's own lengths; its lists are in `work` */
    fa_capacity capacity; /* of runs of any lengths, where there may be such */
    fa_args args;
    fa_score score;

    uint64_t serial; /* no other plan of this process has it */
    fa_work_layout layout;
    void *work;               /* of the plan's own lengths, on the host; NULL where only the device has it */
    struct fa_fill *fill;     /* writes the work of lengths on the device; NULL: there may be none such */
    struct fa_relist *relist; /* writes lists that lie on the device; NULL: there may be none such */
    struct fa_run_status *status; /* writes the status of runs; NULL: the description does not ask for it */
    bool keeps_rows; /* of another object, to which each row gives a state: runs have all of them */

    /* Workspace: scratch of each worker, then the partial outputs, then their states. */
    size_t scratch_bytes; /* of one worker, a multiple of 64; the backend's */
    size_t partial_offset, partial_state_offset;
    size_t workspace;

    void *impl;
};

/* The buffers of one run, each checked against the plan. Absent operands are NULL. */
typedef struct fa_binding {
    fa_buffer *buffer[FA_OPERANDS];
    size_t offset[FA_OPERANDS];
    fa_buffer *workspace;
    size_t workspace_offset;
    fa_buffer *work; /* NULL: the plan's own */
    size_t work_offset;
    fa_buffer *status; /* NULL: not wanted */
    size_t status_offset;
} fa_binding;

/* Whether, with the lengths of `problem`, some block of the plan's kernel is in several of the lists'. */
bool fa_plan_lists_cut(const fa_plan *plan, const fa_problem *problem);

/* Whether the plan's kernel leaves partial results, so that keys can be split. */
static inline bool fa_plan_splits(const fa_plan *plan)
{
    return plan->kernel->features & FA_FEATURE_SPLIT;
}

/* How many work items and merges a run goes through: of lengths that only the device knows, as many as there may be. */
static inline int64_t fa_run_items(const fa_plan *plan, const fa_binding *binding)
{
    return binding->work ? plan->capacity.items : plan->schedule.items;
}

static inline int64_t fa_run_merges(const fa_plan *plan, const fa_binding *binding)
{
    return binding->work ? plan->capacity.merges : plan->schedule.merges;
}

/* The buffers of a run as its arguments have them. */
fa_binding fa_binding_of(const fa_attention_args *args);

/* Where v is a part of k: binds it to k's memory. FA_INVALID: it is bound, and elsewhere. */
fa_status fa_binding_share(const fa_problem *problem, fa_binding *binding);

/*
 * Every check of a run's memory: that operands are there exactly where the problem has them, where they lie and how
 * large they are, and that what is written shares no byte with anything. `workspace` and `work` are bytes; work of 0 bytes is
 * not looked at. FA_INVALID names the operand.
 */
fa_status fa_binding_check(const fa_binding *binding, const fa_device *device, const fa_problem *problem,
                           size_t workspace, size_t work);

/* Of work's offset in a buffer. */
enum { FA_WORK_ALIGNMENT = 256 };

/* Whether `size` bytes at `offset` of a buffer of the device may hold work. FA_INVALID, FA_UNSUPPORTED: the message says why
 * not, and names the buffer `of` and "work". */
fa_status fa_work_check(const fa_device *device, const char *of, const fa_buffer *buffer, size_t offset,
                        size_t size);

/* Work in the host's memory is this plan's. FA_INVALID names it. */
fa_status fa_plan_check_work(const fa_plan *plan, const void *work, const char *name);

/* Whether a plan, a queue of its device and an argument of that name are there. */
fa_status fa_plan_check_call(const fa_plan *plan, const fa_queue *queue, const void *argument,
                             const char *name);

/* fa_plan_run() of buffers that are bound: completes and checks the binding, and runs. The queue is the plan's device's. */
fa_status fa_plan_run_bound(const fa_plan *plan, fa_queue *queue, fa_binding *binding);

/* Changes what a description cannot say of a valid problem, before anything is decided. `of` is the caller's. */
typedef fa_status fa_problem_edit(fa_problem *problem, const void *of);

/* fa_plan_create() of a problem that `edit` has changed; NULL: as it is described. */
fa_status fa_plan_create_edited(fa_device *device, const fa_attention_desc *desc, fa_problem_edit *edit,
                                const void *of, fa_plan **plan);

fa_args fa_plan_args(const fa_plan *plan);

/* Fills the workspace's layout, of capacity and scratch_bytes. */
fa_status fa_plan_lay_out(fa_plan *plan);

/*
 * The one place that answers "which kernel, with which tiling?": device selection and plan creation, and
 * through it the capability query, come here. FA_UNSUPPORTED with the reason when no kernel serves it.
 */
fa_status fa_plan_choose(const fa_device *device, const fa_problem *problem, const fa_kernel **kernel,
                         fa_tiling *tiling);

/* What of a problem matters to tiling, its lengths the mean of its sequences'. */
fa_tile_problem fa_plan_shape(const fa_problem *problem);

/* The same answer for other lengths than the problem's own: of that shape, with one query position or more. */
fa_status fa_plan_choose_for(const fa_device *device, const fa_problem *problem, const fa_tile_problem *shape,
                             bool one_position, const fa_kernel **kernel, fa_tiling *tiling);

#endif
