/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan tells about itself. */
#include <stdio.h>
#include <string.h>

#include "core/attention/listed.h"
#include "core/attention/scales.h"
#include "core/attention/work.h"
#include "core/backend.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static double elements_bytes(const fa_problem *p, int operand, double elements)
{
    return elements * fa_tensor_mean_bytes(&p->tensor[operand]);
}

/* Scales and zeros of so many keys, each of one head, of k or v. Those that all keys share count once. */
static double scales_bytes(const fa_problem *p, int operand, double keys)
{
    const int part[] = {FA_SCALE_OF(operand), FA_ZERO_OF(operand)};
    double bytes = 0;
    for (int i = 0; i < 2; i++) {
        const fa_tensor *t = &p->tensor[part[i]];
        const double heads = t->shape[1] > 1 ? 1 : (double)p->heads_kv; /* that share them */
        if (fa_tensor_is_absent(t))
            continue;
        const double all = elements_bytes(p, part[i],
                                          (double)t->shape[0] * (double)t->shape[1] * (double)t->shape[2] *
                                              (double)t->shape[3]);
        const double read =
            elements_bytes(p, part[i], keys / heads / fa_scales_of(p, operand)->keys * (double)t->shape[3]);
        bytes += t->shape[2] == 1 ? FA_MIN(read, all) : read;
    }
    return bytes;
}

/* Of a value, those that are not part of its key. */
static double dims_beside_k(const fa_problem *p)
{
    return p->features & FA_FEATURE_V_IN_K ? 0 : p->dim_v;
}

/* Every tensor read or written once, as far as sequences use it. */
static double compulsory_bytes(const fa_problem *p)
{
    double rows = 0, keys = 0;
    for (int64_t n = 0; n < p->sequences; n++) {
        rows += (double)p->sequence[n].len_q;
        keys += (double)p->sequence[n].len_kv;
    }
    return elements_bytes(p, FA_Q, rows * p->heads_q * p->dim_qk) +
           elements_bytes(p, FA_O, rows * p->heads_q * p->dim_v) +
           elements_bytes(p, FA_K, keys * p->heads_kv * p->dim_qk) +
           elements_bytes(p, FA_V, keys * p->heads_kv * dims_beside_k(p)) +
           scales_bytes(p, FA_K, keys * p->heads_kv) + scales_bytes(p, FA_V, keys * p->heads_kv) +
           (double)p->span[FA_BIAS] + (double)p->span[FA_KEEP] + (double)p->span[FA_LSE];
}

static double lower_bound_bytes(const fa_plan *plan)
{
    const fa_problem *p = &plan->problem;
    double dim = 0.5 * (p->dim_qk + p->dim_v), bytes = fa_tensor_mean_bytes(&p->tensor[FA_K]);
    double elements_on_chip = (double)plan->device->limits.onchip_bytes / bytes;
    return fa_schedule_pairs(p) * p->heads_q * dim * dim / elements_on_chip * bytes;
}

static void fill_costs(const fa_plan *plan, fa_plan_info *info)
{
    const fa_problem *p = &plan->problem;
    const fa_schedule *s = &plan->schedule;
    double q_bytes = (double)fa_dtype_size(p->tensor[FA_Q].dtype),
           o_bytes = (double)fa_dtype_size(p->tensor[FA_O].dtype);
    double rows_done = (double)s->rows_done, row_blocks = (double)s->items;
    double blocks = (double)(s->blocks_full + s->blocks_partial);
    const bool read_once = plan->kernel->traits.v_in_k;
    double partial = (double)s->partial_rows * (p->dim_v + 1) * sizeof(float);
    info->pairs = s->pairs;
    info->flops = 2.0 * fa_schedule_pairs(p) * p->heads_q * (p->dim_qk + p->dim_v);
    info->bytes_moved = rows_done * (p->dim_qk * q_bytes + p->dim_v * o_bytes) +
                        elements_bytes(p, FA_K, s->key_reads * p->dim_qk) +
                        elements_bytes(p, FA_V, s->key_reads * (read_once ? 0 : p->dim_v)) +
                        scales_bytes(p, FA_K, s->key_reads) + scales_bytes(p, FA_V, s->key_reads) +
                        (double)p->span[FA_BIAS] + (double)p->span[FA_KEEP] + (double)p->span[FA_LSE] +
                        2 * partial;
    info->bytes_compulsory = compulsory_bytes(p);
    info->bytes_lower_bound = lower_bound_bytes(plan);
    info->syncs = blocks + row_blocks + (double)s->merges;
    info->rescales = row_blocks > 0 ? blocks * rows_done / row_blocks : 0;
    info->imbalance = s->imbalance;
    double launch = s->workers > 1 ? plan->limits.launch_cycles : 0;
    info->seconds = (s->makespan + launch + plan->limits.run_cycles) / plan->limits.clock_hz;
}

fa_status fa_plan_get_info(const fa_plan *plan, fa_plan_info *info)
{
    fa_clear_error();
    if (!plan || !info)
        return fa_fail(FA_INVALID, "%s is NULL", plan ? "info" : "plan");
    const fa_schedule *s = &plan->schedule;
    fa_plan_info made = {
        .weights = plan->kernel->p_as_q ? plan->problem.tensor[FA_Q].dtype : plan->kernel->p_type,
        .block_q = plan->tiling.block_q,
        .block_kv = plan->tiling.block_kv,
        .tile_q = plan->tiling.tile.q,
        .tile_kv = plan->tiling.tile.kv,
        .tile_d = plan->tiling.tile.d,
        .splits = s->splits,
        .group = plan->problem.group,
        .sequences = plan->problem.sequences,
        .heads_kv = plan->problem.heads_kv,
        .items = s->items,
        .merge_items = s->merges,
        .blocks_full = s->blocks_full,
        .blocks_partial = s->blocks_partial,
        .blocks_skipped = s->blocks_skipped,
        .workspace = plan->workspace,
        .workers = plan->capacity.workers, /* no run has more, whatever its lengths */
    };
    (void)snprintf(made.kernel, sizeof(made.kernel), "%s", plan->kernel->name);
    fill_costs(plan, &made);
    return fa_fill_struct(&made, sizeof(made), FA_PLAN_INFO_0_1, info, "fa_plan_info");
}

fa_status fa_plan_grid(const fa_plan *plan, int64_t sequence, int64_t *rows, int64_t *columns)
{
    fa_clear_error();
    if (!plan || !rows || !columns)
        return fa_fail(FA_INVALID, "%s is NULL", !plan ? "plan" : !rows ? "rows" : "columns");
    if (sequence < 0 || sequence >= plan->problem.sequences)
        return fa_fail(FA_INVALID, "sequence is %lld, expected 0 to %lld", (long long)sequence,
                       (long long)plan->problem.sequences - 1);
    const fa_sequence *s = &plan->problem.sequence[sequence];
    *rows = fa_ceil_div((int64_t)s->len_q * plan->problem.group, plan->tiling.block_q);
    *columns = fa_ceil_div(s->len_kv, plan->tiling.block_kv);
    return FA_OK;
}

/* What lists leave of a block of rows and keys that the mask calls `seen`. */
static int listed_class(const fa_problem *p, const fa_sequence *s, const fa_listed *of, int key, int keys,
                        int seen)
{
    const int end = FA_MIN(FA_MIN(key + keys, s->len_kv), of->walk.key_end);
    if (seen == FA_CLASS_SKIP || !p->lists.bits)
        return seen;
    if (fa_list_next(*of, key, keys) != key)
        return FA_CLASS_SKIP;
    return fa_listed_cuts(*of, key, end) ? FA_CLASS_PARTIAL : seen;
}

fa_status fa_plan_head_tile(const fa_plan *plan, int64_t sequence, int64_t head_kv, int64_t row,
                            int64_t column, fa_tile_class *tile)
{
    int64_t rows = 0, columns = 0;
    fa_status status = fa_plan_grid(plan, sequence, &rows, &columns);
    if (status != FA_OK)
        return status;
    if (!tile)
        return fa_fail(FA_INVALID, "tile is NULL");
    if (row < 0 || row >= rows || column < 0 || column >= columns)
        return fa_fail(FA_INVALID, "row %lld, column %lld: expected less than %lld and %lld", (long long)row,
                       (long long)column, (long long)rows, (long long)columns);
    const fa_problem *p = &plan->problem;
    if (head_kv < 0 || head_kv >= FA_MAX(p->heads_kv, 1)) /* without heads there is a grid still */
        return fa_fail(FA_INVALID, "head_kv is %lld, expected 0 to %d", (long long)head_kv, p->heads_kv - 1);
    const fa_sequence *s = &p->sequence[sequence];
    const int first = (int)(row * plan->tiling.block_q), key = (int)(column * plan->tiling.block_kv);
    const int last = (int)FA_MIN((int64_t)first + plan->tiling.block_q, (int64_t)s->len_q * p->group) - 1;
    const int end = FA_MIN(key + plan->tiling.block_kv, s->len_kv);
    const int in_sight = FA_MAX(fa_mask_end(s->mask, last / p->group), s->mask.prefix);
    fa_table_params params = {.flags = 0};
    if (p->lists.bits)
        fa_work_describe(p, &params);
    const fa_listed of = fa_listed_of(p, &params, sequence, (int)head_kv, first, last + 1, in_sight);
    const int seen = fa_mask_classify(s->mask, first / p->group, last / p->group + 1, key, end);
    *tile = (fa_tile_class)listed_class(p, s, &of, key, plan->tiling.block_kv, seen);
    return FA_OK;
}

fa_status fa_plan_tile(const fa_plan *plan, int64_t sequence, int64_t row, int64_t column,
                       fa_tile_class *tile)
{
    return fa_plan_head_tile(plan, sequence, 0, row, column, tile);
}
