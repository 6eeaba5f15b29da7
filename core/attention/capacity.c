/* SPDX-License-Identifier: Apache-2.0 */
/* Room for the schedules of any lengths, and what the device is told that makes these itself. */
#include "core/attention/planner.h"
#include "core/size.h"
#include "core/status.h"

#define SPARE_ITEMS 8 /* of each unit, for lengths that no plan knows: they balance to an eighth */

fa_capacity fa_capacity_of(const fa_schedule *schedule)
{
    return (fa_capacity){schedule->items, schedule->merges, schedule->partial_rows, schedule->workers};
}

/* Rows of all heads in sequences of any lengths, and the most blocks that they make. */
static bool count_rows(const fa_problem *p, int64_t block_q, int64_t *rows, int64_t *blocks)
{
    int64_t length = 0;
    *rows = *blocks = 0;
    if (p->heads_kv == 0 || p->sequences == 0)
        return true;
    if (!fa_mul_i64(fa_problem_rows(p), p->group, &length))
        return false;
    if (p->packed_q) /* each sequence may end with a block that it does not fill */
        *blocks = FA_MIN(length / block_q + p->sequences, length);
    else if (!fa_mul_i64(fa_ceil_div(length, block_q), p->sequences, blocks))
        return false;
    return fa_mul_i64(length, p->packed_q ? 1 : p->sequences, rows) && fa_mul_i64(*rows, p->heads_kv, rows) &&
           fa_mul_i64(*blocks, p->heads_kv, blocks);
}

fa_status fa_capacity_init(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                           const fa_tiling *tiling, bool can_split, const fa_schedule *schedule,
                           fa_capacity *capacity)
{
    const int64_t keys = FA_MIN(problem->keys, FA_MAX_LENGTH);
    const int64_t key_blocks = fa_ceil_div(keys, tiling->block_kv);
    const int32_t asked = FA_MIN(problem->tuning.splits, fa_tiling_parts(limits));
    const int64_t longest = FA_MIN(fa_problem_rows(problem), FA_MAX_LENGTH) * problem->group;
    /* Parts that each block has at most because it must, and what splitting for balance may add. */
    int64_t parts =
        FA_MAX(asked, fa_ceil_div(key_blocks, fa_planner_most_blocks(limits, traits, tiling, can_split)));
    int64_t rows, blocks, items, partial_rows, all_parts, spare = 0;
    parts = FA_MAX(FA_MIN(parts, key_blocks), 1);
    bool fits = count_rows(problem, tiling->block_q, &rows, &blocks) && fa_mul_i64(blocks, parts, &items) &&
                fa_mul_i64(rows, parts, &partial_rows) && items <= FA_MAX_ITEMS;
    if (!fits)
        return fa_fail(
            FA_OUT_OF_MEMORY,
            "dynamic_lengths is %d: blocks of %d rows and %d keys may make more than %lld work items",
            problem->on_device ? 2 : 1, tiling->block_q, tiling->block_kv, (long long)FA_MAX_ITEMS);
    if (can_split && asked == 0 && key_blocks > 1)
        spare = FA_MIN((int64_t)limits->units * SPARE_ITEMS, FA_MIN(blocks, FA_MAX_ITEMS) * key_blocks);
    if (!fa_mul_i64(rows, key_blocks, &all_parts))
        all_parts = INT64_MAX;
    partial_rows =
        FA_MAX(parts > 1 ? partial_rows : 0, FA_MIN(all_parts, spare * FA_MIN(tiling->block_q, longest)));
    items = FA_MAX(items, spare);
    *capacity = (fa_capacity){
        .items = FA_MAX(items, schedule->items),
        .merges = FA_MAX(parts > 1 ? blocks : FA_MIN(blocks, spare / 2), schedule->merges),
        .partial_rows = FA_MAX(partial_rows, schedule->partial_rows),
        .workers = (uint32_t)FA_MIN(FA_MAX(items, schedule->items), (int64_t)limits->units),
    };
    return FA_OK;
}

fa_schedule_rule fa_schedule_rule_of(const fa_problem *problem, const fa_limits *limits,
                                     const fa_tile_traits *traits, const fa_tiling *tiling, bool can_split,
                                     const fa_capacity *capacity)
{
    const int64_t longest = (int64_t)fa_problem_most_rows(problem) * problem->group;
    const int32_t rows = (int32_t)FA_MAX(FA_MIN(tiling->block_q, longest), 1);
    int64_t all_rows, blocks;
    fa_planner w = fa_planner_begin(problem, limits, traits, tiling, can_split);
    fa_planner_take_rows(&w, rows);
    const double block = FA_MAX(w.block_cycles, 1);
    fa_schedule_rule rule = {
        .most = w.most,
        .item_cost = w.end_cycles / block,
        .part_cost = rows * (w.shape.dim_v + 1) / (traits->scores_per_cycle * limits->units) / block,
        .merge_cost = (limits->sync_cycles + limits->item_cycles) / block,
        .launch_cost = limits->launch_cycles / block,
    };
    /* Each split row block has two items at least and one merge, and each of its items so many partial rows at most. */
    if (can_split && w.splits == 0 && count_rows(problem, tiling->block_q, &all_rows, &blocks)) {
        const int64_t by_merges = capacity->merges < blocks ? 2 * capacity->merges : capacity->items;
        rule.items = (int32_t)FA_MIN(FA_MIN(capacity->items, by_merges), capacity->partial_rows / rows);
    }
    return rule;
}
