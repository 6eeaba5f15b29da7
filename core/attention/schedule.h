/* SPDX-License-Identifier: Apache-2.0 */
/* The work list: which unit of work covers which rows and keys, and which partial results are merged. */
#ifndef FA_CORE_ATTENTION_SCHEDULE_H
#define FA_CORE_ATTENTION_SCHEDULE_H

#include "core/attention/problem.h"
#include "core/tiling.h"

struct fa_context;

/*
 * Rows [row_begin, row_end) of one KV head of one sequence against keys [key_begin, key_end). Rows are
 * packed: position-major, the heads of the group innermost. key_begin is a multiple of block_kv; blocks
 * inside the range may still be SKIP. An item that sees no key has key_begin == key_end and still
 * writes its rows.
 */
typedef struct fa_work_item {
    int32_t sequence, head_kv;
    int32_t row_begin, row_end;
    int32_t key_begin, key_end;
    int64_t part_row; /* first row of this item in the partial results; -1: it writes o and lse itself */
    double cycles;
} fa_work_item;

/* The parts of one row block lie `rows` = row_end - row_begin apart in the partial results. */
typedef struct fa_merge_item {
    int32_t sequence, head_kv;
    int32_t row_begin, row_end;
    int64_t part_row;
    int32_t parts;
} fa_merge_item;

typedef struct fa_schedule {
    fa_work_item *item; /* longest first */
    int64_t items;
    fa_merge_item *merge;
    int64_t merges;
    int64_t partial_rows; /* rows of partial results, each dim_v + 1 floats: normalised output, LSE */
    int64_t rows_done;    /* summed over items */
    int32_t splits;       /* most parts of one row block */
    int64_t blocks_full, blocks_partial, blocks_skipped;
    uint64_t pairs;   /* of all heads; UINT64_MAX where there are more */
    double key_reads; /* keys fetched, summed over items */
    uint32_t workers; /* units to run on: one where starting more would cost more than it gains */
    double cycles;    /* modelled, summed over items */
    double longest;   /* modelled cycles of the longest item */
    double makespan;  /* modelled cycles of the busiest unit */
    double imbalance; /* makespan over the mean */
} fa_schedule;

/* The most that schedules of one plan come to: what its work and its workspace have room for. */
typedef struct fa_capacity {
    int64_t items, merges, partial_rows;
    uint32_t workers;
} fa_capacity;

/* Visible pairs of one head, summed over sequences: what FLOPs are counted from. */
double fa_schedule_pairs(const fa_problem *problem);

/*
 * The most partial rows of a schedule whose parts were not asked for by number: enough for 32 items of block_q rows on
 * each unit, which balance however long they are. `rows` are those of the longest sequence, all heads of a group.
 */
int64_t fa_schedule_most_partial_rows(const fa_limits *limits, int64_t block_q, int64_t rows);

fa_status fa_schedule_init(const struct fa_context *context, const fa_problem *problem,
                           const fa_limits *limits, const fa_tile_traits *traits, const fa_tiling *tiling,
                           bool can_split, fa_schedule *schedule);

/*
 * The same of lengths for which `capacity` has room; it bounds how finely keys are split. Allocates nothing: it works in
 * `memory`, which is fa_schedule_room() bytes, and the schedule's lists lie there. It does not count pairs.
 */
fa_status fa_schedule_make(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                           const fa_tiling *tiling, bool can_split, const fa_capacity *capacity, void *memory,
                           fa_schedule *schedule);

/* SIZE_MAX where that is more than memory has. */
size_t fa_schedule_room(const fa_problem *problem, const fa_limits *limits, const fa_capacity *capacity);

/* Releases the lists of items and merges; what they come to stays. */
void fa_schedule_release_lists(const struct fa_context *context, fa_schedule *schedule);
void fa_schedule_release(const struct fa_context *context, fa_schedule *schedule);

/*
 * Room for a schedule of any lengths that the problem's tensors hold, and for `schedule`, which is of the problem's own.
 * FA_OUT_OF_MEMORY where that is more items than a schedule may have.
 */
fa_status fa_capacity_init(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                           const fa_tiling *tiling, bool can_split, const fa_schedule *schedule,
                           fa_capacity *capacity);

/* What the device is told that makes schedules itself (core/portable/fill.h). */
typedef struct fa_schedule_rule {
    int32_t most;  /* blocks of keys of one item */
    int32_t items; /* of a schedule that splits rows for balance; 0: none does */
    double item_cost, part_cost, merge_cost, launch_cost; /* in those of one whole block of keys */
} fa_schedule_rule;

fa_schedule_rule fa_schedule_rule_of(const fa_problem *problem, const fa_limits *limits,
                                     const fa_tile_traits *traits, const fa_tiling *tiling, bool can_split,
                                     const fa_capacity *capacity);

/* Room for this schedule alone. */
fa_capacity fa_capacity_of(const fa_schedule *schedule);

#endif
