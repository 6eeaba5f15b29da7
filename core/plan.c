/* SPDX-License-Identifier: Apache-2.0 */
#include "core/plan.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/attention/fill.h"
#include "core/attention/relist.h"
#include "core/attention/run_status.h"
#include "core/backend.h"
#include "core/context.h"
#include "core/device.h"
#include "core/floating.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

fa_tile_problem fa_plan_shape(const fa_problem *p)
{
    fa_tile_problem t = {
        .instances = p->sequences * p->heads_kv,
        .dim_qk = p->dim_qk,
        .dim_v = p->dim_v,
        .far_bytes = fa_tensor_mean_bytes(&p->tensor[FA_K]),
        .density = 1,
        .group = p->group,
    };
    double rows = 0, keys = 0, pairs = 0;
    for (int64_t n = 0; n < p->sequences; n++) {
        rows += p->sequence[n].len_q;
        keys += p->sequence[n].len_kv;
        pairs += (double)p->sequence[n].len_q * p->sequence[n].len_kv;
    }
    if (p->sequences > 0) {
        t.rows = (int64_t)(rows * p->group / (double)p->sequences + 0.5);
        t.keys = (int64_t)(keys / (double)p->sequences + 0.5);
    }
    if (pairs > 0 && (p->features & (FA_FEATURE_MASK | FA_FEATURE_LISTS)))
        t.density = fa_schedule_pairs(p) / pairs;
    return t;
}

/* Says what it was that even the smallest block allowed went beyond. */
static fa_status refuse_block(const fa_device *device, const fa_kernel *kernel, const fa_tile_problem *shape,
                              const fa_tiling *block)
{
    const fa_tile_traits *t = &kernel->traits;
    if (t->max_block_q > 0 && block->block_q > t->max_block_q)
        return fa_fail(FA_UNSUPPORTED, "%s: tuning.block_q makes blocks of %d rows, at most %d are served",
                       kernel->name, block->block_q, t->max_block_q);
    if (t->max_block_kv > 0 && block->block_kv > t->max_block_kv)
        return fa_fail(FA_UNSUPPORTED, "%s: tuning.block_kv makes blocks of %d keys, at most %d are served",
                       kernel->name, block->block_kv, t->max_block_kv);
    return fa_fail(FA_UNSUPPORTED,
                   "%s: a block of %d rows and %d keys needs %llu bytes on chip, %llu there are",
                   kernel->name, block->block_q, block->block_kv,
                   (unsigned long long)fa_tiling_onchip(t, shape, block->block_q, block->block_kv),
                   (unsigned long long)device->limits.onchip_bytes);
}

static fa_status check_spans(const fa_device *device, const fa_problem *p)
{
    for (int t = 0; t < FA_OPERANDS && device->limits.tensor_bytes; t++) {
        if (p->span[t] > device->limits.tensor_bytes)
            return fa_fail(FA_UNSUPPORTED, "%s spans %zu bytes, %s serves at most %llu", fa_operands[t].name,
                           p->span[t], device->info.name, (unsigned long long)device->limits.tensor_bytes);
    }
    return FA_OK;
}

/* Whether no loop of the kernel, nor of the merge, is ended before its time. */
static fa_status check_loops(const fa_device *device, const fa_kernel *kernel, const fa_problem *p)
{
    const fa_limits limits = fa_kernel_limits(kernel, p, &device->limits);
    int64_t most = fa_tiling_item_keys(&limits, &kernel->traits);
    const int64_t keys = p->dynamic ? p->keys : p->max_len_kv;
    if (most > 0 &&
        (kernel->features & FA_FEATURE_SPLIT)) /* blocks do not fill an item, so it has half at least */
        most *= fa_tiling_parts(&limits) / 2;
    if (most == 0 || keys <= most)
        return FA_OK;
    return fa_fail(
        FA_UNSUPPORTED, "%s: %lld keys, but %s ends loops after %d turns: at most %lld keys are served",
        kernel->name, (long long)keys, device->info.name, device->limits.loop_turns, (long long)most);
}

typedef bool tiling_search(const fa_limits *, const fa_tile_traits *, const fa_tile_problem *, int32_t,
                           int32_t, fa_tiling *);

static fa_status find_tiling(const fa_device *device, const fa_problem *problem, const fa_tile_problem *shape,
                             const fa_kernel *kernel, tiling_search *find, fa_tiling *tiling)
{
    int32_t block_q = problem->tuning.block_q, block_kv = problem->tuning.block_kv;
    if (kernel->baseline) { /* a baseline has the whole matrix as its one block */
        block_q = FA_MAX(problem->max_len_q * problem->group, 1);
        block_kv = FA_MAX(problem->max_len_kv, 1);
    }
    fa_limits limits = fa_kernel_limits(kernel, problem, &device->limits);
    if (!find(&limits, &kernel->traits, shape, block_q, block_kv, tiling))
        return refuse_block(device, kernel, shape, tiling);
    return FA_OK;
}

/* The largest multiple of `tile` up to `block` that divides `whole`. Where there is none, what covers `whole`, or `block`. */
static int64_t dividing(int64_t whole, int64_t tile, int64_t block)
{
    for (int64_t size = FA_MIN(block, whole) / tile * tile; size > 0; size -= tile) {
        if (whole % size == 0)
            return size;
    }
    return FA_MIN(block, fa_round_up(whole, tile));
}

/* Rows of a block of the lists, as kernels count them; 0: all are in one. */
static int64_t listed_rows(const fa_problem *p)
{
    const int64_t rows = p->dynamic ? fa_problem_most_rows(p) : p->max_len_q;
    return p->lists.block_rows < rows ? (int64_t)p->lists.block_rows * p->group : 0;
}

/* Blocks of the kernel each in one block of the lists, as far as its tiles let them. */
static void fit_lists(const fa_device *device, const fa_problem *problem, const fa_tile_problem *shape,
                      const fa_kernel *kernel, fa_tiling *tiling)
{
    const fa_tile_traits *t = &kernel->traits;
    const fa_limits limits = fa_kernel_limits(kernel, problem, &device->limits);
    const int64_t rows = listed_rows(problem);
    int64_t q = tiling->block_q, kv = tiling->block_kv;
    fa_tiling fitted;
    if (problem->tuning.block_q == 0 && rows > 0)
        q = dividing(rows, t->tile.q, q);
    if (problem->tuning.block_kv == 0)
        kv = dividing(problem->lists.block_keys, t->tile.kv, kv);
    if ((q != tiling->block_q || kv != tiling->block_kv) &&
        fa_tiling_choose(&limits, t, shape, (int32_t)q, (int32_t)kv, &fitted))
        *tiling = fitted;
}

/* Whether some sequence begins at a key that no block of so many keys begins at, as far as the host knows. */
static bool begins_within(const fa_problem *p, int32_t block_kv)
{
    for (int64_t n = 0; n < p->sequences; n++) {
        if (p->sequence[n].first % block_kv != 0)
            return true;
    }
    return p->on_device && p->has_first_kv;
}

/* Whether lists end within blocks of the kernel. */
static bool cut_by_lists(const fa_problem *p, const fa_kernel *kernel, const fa_tiling *tiling)
{
    const fa_lists *l = &p->lists;
    return l->bits &&
           (kernel->baseline || l->heads % p->group != 0 || l->block_keys % tiling->block_kv != 0 ||
            listed_rows(p) % tiling->block_q != 0 || begins_within(p, tiling->block_kv));
}

bool fa_plan_lists_cut(const fa_plan *plan, const fa_problem *p)
{
    return cut_by_lists(p, plan->kernel, &plan->tiling);
}

/*
 * Takes `kernel`, which serves the problem, if that is faster than what was found so far. Where lists end within blocks,
 * each key of such a block is looked up: on tensor cores that takes many times as long as the block.
 */
static fa_status consider(const fa_device *device, const fa_problem *problem, const fa_tile_problem *shape,
                          const fa_kernel *kernel, const fa_kernel **best, fa_tiling *tiling)
{
    const double cut = 4;
    fa_tiling candidate;
    fa_status status = find_tiling(device, problem, shape, kernel, fa_tiling_fastest, &candidate);
    if (status == FA_OK && problem->lists.bits && !kernel->baseline) {
        fa_tiling fitted = candidate;
        fit_lists(device, problem, shape, kernel, &fitted);
        if (cut_by_lists(problem, kernel, &fitted))
            candidate.seconds *= cut;
    }
    if (status == FA_OK && (!*best || candidate.seconds < tiling->seconds)) {
        *best = kernel;
        *tiling = candidate;
    }
    return status;
}

fa_status fa_plan_choose_for(const fa_device *device, const fa_problem *problem, const fa_tile_problem *mean,
                             bool one_position, const fa_kernel **kernel, fa_tiling *tiling)
{
    const char *forced = problem->kernel_name;
    const fa_tile_problem shape = fa_tiling_class(&device->limits, mean, one_position);
    /* Of the refusals the first is worth telling, but of a kernel that only lacks room before any other. */
    fa_status told = FA_OK;
    bool told_serves = false;
    char reason[FA_MESSAGE_SIZE] = "";
    *kernel = NULL;
    fa_status spans = check_spans(device, problem);
    if (spans != FA_OK)
        return spans;
    for (int i = 0; i < device->kernels; i++) {
        const fa_kernel *candidate = device->kernel[i];
        if (forced[0] ? strcmp(candidate->name, forced) != 0 : candidate->baseline)
            continue;
        fa_status status = fa_kernel_supports(candidate, problem);
        if (status == FA_OK)
            status = check_loops(device, candidate, problem);
        bool serves = status == FA_OK;
        if (serves)
            status = consider(device, problem, &shape, candidate, kernel, tiling);
        if (status == FA_OK || (told != FA_OK && (told_serves || !serves)))
            continue;
        told = status;
        told_serves = serves;
        (void)snprintf(reason, sizeof(reason), "%s", fa_last_error());
    }
    if (*kernel) {
        fa_status status = find_tiling(device, problem, &shape, *kernel, fa_tiling_choose, tiling);
        if (problem->tuning.block_q == 0 && !(*kernel)->baseline)
            fa_tiling_cover(&device->limits, &(*kernel)->traits, one_position ? problem->group : mean->rows,
                            tiling);
        if (status == FA_OK && problem->lists.bits && !(*kernel)->baseline)
            fit_lists(device, problem, &shape, *kernel, tiling);
        return status;
    }
    if (told != FA_OK)
        return fa_fail(told, "%s", reason);
    return fa_fail(FA_UNSUPPORTED, "tuning.kernel is \"%s\", expected one of: %s", forced,
                   device->info.kernels);
}

fa_status fa_plan_choose(const fa_device *device, const fa_problem *problem, const fa_kernel **kernel,
                         fa_tiling *tiling)
{
    const fa_tile_problem mean = fa_plan_shape(problem);
    return fa_plan_choose_for(device, problem, &mean, problem->max_len_q <= 1, kernel, tiling);
}

/*
 * Where the blocks that compute fastest are too few for the units to share, smaller ones may end sooner: only the
 * schedule can tell. Halves block_q as long as that helps.
 */
static fa_status balance(fa_plan *plan)
{
    const fa_device *device = plan->device;
    const fa_tile_traits *t = &plan->kernel->traits;
    const double even = 1.05, better = 0.97;
    if (plan->kernel->baseline || plan->problem.tuning.block_q || plan->schedule.items == 0)
        return FA_OK;
    if (device->limits.compiled && plan->problem.max_len_q <= 1)
        return FA_OK; /* one program for a cache of any length; what it is short of, splits give */
    /* Blocks of a class were chosen without a look at the mask. */
    const bool blind = device->limits.compiled && (plan->problem.features & FA_FEATURE_MASK);
    int failures = 0;
    for (int64_t q = plan->tiling.block_q / 2;
         q >= t->tile.q && failures < 3 &&
         (blind || (plan->schedule.workers > 1 && plan->schedule.imbalance > even));
         q /= 2) {
        fa_tiling tiling = plan->tiling;
        fa_schedule candidate;
        tiling.block_q = (int32_t)fa_round_up(q, t->tile.q);
        fa_status status = fa_schedule_init(device->context, &plan->problem, &plan->limits, t, &tiling,
                                            fa_plan_splits(plan), &candidate);
        if (status != FA_OK)
            return status;
        bool helps = candidate.makespan < better * plan->schedule.makespan;
        fa_schedule_release(device->context, helps ? &plan->schedule : &candidate);
        if (helps) {
            plan->schedule = candidate;
            plan->tiling = tiling;
        }
        failures = helps ? 0 : failures + 1;
    }
    return FA_OK;
}

fa_args fa_plan_args(const fa_plan *plan)
{
    const fa_problem *p = &plan->problem;
    return (fa_args){
        .group = p->group,
        .dim_qk = p->dim_qk,
        .dim_v = p->dim_v,
        .block_q = plan->tiling.block_q,
        .block_kv = plan->tiling.block_kv,
    };
}

fa_status fa_plan_lay_out(fa_plan *plan)
{
    size_t total = 0, rows = (size_t)plan->capacity.partial_rows;
    bool fits = fa_grow(&total, plan->capacity.workers, plan->scratch_bytes);
    plan->partial_offset = total;
    fits = fits && fa_grow(&total, rows * sizeof(float), (size_t)plan->args.dim_v);
    total = fa_align64(total);
    plan->partial_state_offset = total;
    fits = fits && fa_grow(&total, rows, sizeof(fa_state));
    if (!fits)
        return fa_fail(FA_OUT_OF_MEMORY, "the workspace for %u workers and %zu partial rows overflows memory",
                       plan->capacity.workers, rows);
    plan->workspace = fa_align64(total);
    const uint64_t most = plan->device->limits.tensor_bytes;
    if (most > 0 && plan->workspace > most)
        return fa_fail(FA_UNSUPPORTED,
                       "the workspace for %zu rows in parts has %zu bytes, %s serves at most %llu", rows,
                       plan->workspace, plan->device->info.name, (unsigned long long)most);
    return FA_OK;
}

/* The work of the plan's own lengths, and room for that of others. */
static fa_status make_work(fa_plan *plan)
{
    static atomic_ullong serial;
    const fa_context *context = plan->device->context;
    fa_status status = FA_OK;
    plan->serial = atomic_fetch_add(&serial, 1) + 1;
    plan->capacity = fa_capacity_of(&plan->schedule);
    if (plan->problem.dynamic)
        status = fa_capacity_init(&plan->problem, &plan->limits, &plan->kernel->traits, &plan->tiling,
                                  fa_plan_splits(plan), &plan->schedule, &plan->capacity);
    if (status == FA_OK)
        status = fa_work_lay_out(plan, &plan->layout);
    if (status != FA_OK)
        return status;
    plan->work = fa_alloc_zeroed(context, plan->layout.bytes);
    if (!plan->work)
        return FA_OUT_OF_MEMORY;
    (void)fa_work_write(plan, &plan->problem, &plan->schedule, plan->work);
    fa_schedule_release_lists(context, &plan->schedule);
    return FA_OK;
}

/* The device has a copy of its own, unless it reads the host's memory. */
static void drop_work(fa_plan *plan)
{
    fa_release(plan->device->context, plan->work, plan->layout.bytes);
    plan->work = NULL;
}

FA_FLOAT_APART static fa_status plan_init(fa_plan *plan, const fa_attention_desc *desc, fa_problem_edit *edit,
                                          const void *of)
{
    fa_device *device = plan->device;
    fa_status status = fa_problem_init(device->context, desc, &plan->problem);
    if (status == FA_OK && edit)
        status = edit(&plan->problem, of);
    if (status != FA_OK)
        return status;
    status = fa_plan_choose(device, &plan->problem, &plan->kernel, &plan->tiling);
    if (status != FA_OK)
        return status;
    plan->limits = fa_kernel_limits(plan->kernel, &plan->problem, &device->limits);
    status = fa_schedule_init(device->context, &plan->problem, &plan->limits, &plan->kernel->traits,
                              &plan->tiling, fa_plan_splits(plan), &plan->schedule);
    if (status == FA_OK)
        status = balance(plan);
    if (status != FA_OK)
        return status;
    plan->args = fa_plan_args(plan);
    plan->problem.lists.cut = fa_plan_lists_cut(plan, &plan->problem);
    plan->score = fa_problem_score(&plan->problem);
    status = make_work(plan);
    if (status == FA_OK && plan->problem.on_device)
        status = fa_fill_make(plan);
    if (status == FA_OK && plan->problem.on_device && plan->problem.lists.given &&
        plan->problem.lists.count > 0)
        status = fa_relist_make(plan);
    if (status == FA_OK && plan->problem.want_status)
        status = fa_run_status_make(plan);
    if (status == FA_OK)
        status = device->backend->plan_prepare(plan);
    if (!device->backend->host_pointers)
        drop_work(plan);
    return status == FA_OK ? fa_plan_lay_out(plan) : status;
}

fa_status fa_plan_create_edited(fa_device *device, const fa_attention_desc *desc, fa_problem_edit *edit,
                                const void *of, fa_plan **plan)
{
    fa_clear_error();
    if (!plan)
        return fa_fail(FA_INVALID, "plan is NULL, expected where to store the new plan");
    *plan = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    FA_TRY(fa_device_check(device));
    fa_plan *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    fa_float_state before = fa_float_enter();
    fa_status status = plan_init(made, desc, edit, of);
    fa_float_leave(before);
    if (status != FA_OK) {
        fa_plan_destroy(made);
        return status;
    }
    fa_log(device->context, FA_LOG_DEBUG, "plan: %s, blocks %d x %d (%s), %lld items, %lld merges, %zu bytes",
           made->kernel->name, made->tiling.block_q, made->tiling.block_kv, made->tiling.source,
           (long long)made->schedule.items, (long long)made->schedule.merges, made->workspace);
    *plan = made;
    return fa_finish(FA_OK);
}

fa_status fa_plan_create(fa_device *device, const fa_attention_desc *desc, fa_plan **plan)
{
    return fa_plan_create_edited(device, desc, NULL, NULL, plan);
}

void fa_plan_destroy(fa_plan *plan)
{
    if (!plan)
        return;
    const fa_context *context = plan->device->context;
    fa_message kept = fa_message_keep();
    if (plan->impl && fa_device_works(plan->device))
        plan->device->backend->plan_release(plan);
    if (plan->fill)
        fa_fill_release(plan);
    if (plan->relist)
        fa_relist_release(plan);
    if (plan->status)
        fa_run_status_release(plan);
    drop_work(plan);
    fa_schedule_release(context, &plan->schedule);
    fa_problem_release(context, &plan->problem);
    fa_release(context, plan, sizeof(*plan));
    fa_message_restore(&kept);
}

size_t fa_plan_work(const fa_plan *plan)
{
    return plan && plan->problem.dynamic ? plan->layout.bytes : 0;
}

size_t fa_plan_workspace(const fa_plan *plan)
{
    return plan ? plan->workspace : 0;
}

fa_status fa_device_supports(fa_device *device, const fa_attention_desc *desc, char *reason,
                             size_t reason_size)
{
    fa_clear_error();
    /* By making the plan, so that the answer cannot differ from what making it would say. */
    fa_plan *plan = NULL;
    fa_status status = fa_plan_create(device, desc, &plan);
    fa_plan_destroy(plan);
    if (reason && reason_size > 0)
        (void)snprintf(reason, reason_size, "%s", fa_last_error());
    return status;
}
