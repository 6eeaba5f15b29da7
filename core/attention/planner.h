/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A problem in blocks of rows and keys of one size, for those who make its schedule: which pieces of work all blocks of rows come
 * to, and how long these take.
 */
#ifndef FA_CORE_ATTENTION_PLANNER_H
#define FA_CORE_ATTENTION_PLANNER_H

#include "core/attention/schedule.h"

#define FA_MAX_ITEMS ((int64_t)1 << 22) /* 200 MB of them: longer lists are a mistake in the sizes */

/* A work item of fa_planner.heads KV heads, which are alike: lists are made and ordered for one of them. */
typedef struct fa_piece {
    double cycles;
    int64_t part_row; /* of the first head; -1: it is no part */
    int32_t sequence, row_begin, row_end, key_begin, key_end;
    int32_t parts; /* of its row block */
    int32_t head;  /* the first */
} fa_piece;

/* How many pieces are so long, and the number of the first of them where pieces are made. */
typedef struct fa_rank {
    double cycles;
    int32_t pieces, at;
} fa_rank;

/* Units that have the same load. */
typedef struct fa_load {
    double cycles;
    int64_t units;
} fa_load;

/* Blocks of keys that a row block meets, what they cost, and how many keys they have. */
typedef struct fa_walked {
    double cycles;
    int64_t full, partial, keys;
} fa_walked;

typedef struct fa_planner {
    const fa_problem *problem;
    const fa_limits *limits;
    const fa_tile_traits *traits;
    fa_tile_problem shape;
    fa_table_params params; /* where there are lists */
    int32_t block_q, block_kv;
    int32_t heads;               /* KV heads of a piece: all, or one where each has lists of its own */
    int32_t chunk;               /* most blocks of keys in one item */
    int32_t most;                /* what `chunk` never exceeds */
    int32_t splits;              /* parts asked for; 0: as `chunk` says */
    const fa_capacity *capacity; /* NULL: no bound */
    const fa_context *context;   /* lists grow by its allocator; NULL: they have the capacity's room */
    int32_t kept;                /* the chunk of the schedule that is kept */
    int64_t room;                /* pieces that the lists have room for */
    fa_piece *piece;             /* block after block */
    fa_rank *order, *spare;      /* longest first, and what sorting needs beside it */
    int64_t ranks;
    bool filled;   /* pieces are those of the ranks */
    fa_load *load; /* one for each unit, at most */
    /* Where there are lists: of each row block, in the order of the walk. Counted in the first walk that looks. */
    fa_walked *walked;
    int64_t row_block; /* at which the walk is */
    int64_t counted;   /* row blocks that were */
    /* Cycles of a whole block of keys, and of an item's end, for the rows that were asked for last. */
    int32_t rows;
    double block_cycles, end_cycles;
} fa_planner;

/* Splits what it must: where `can_split`, items have no more keys than the device's loops have turns. */
fa_planner fa_planner_begin(const fa_problem *problem, const fa_limits *limits, const fa_tile_traits *traits,
                            const fa_tiling *tiling, bool can_split);

/* KV heads that are alike. */
int32_t fa_planner_heads(const fa_problem *problem);

/* The most blocks of keys in one item. */
int32_t fa_planner_most_blocks(const fa_limits *limits, const fa_tile_traits *traits, const fa_tiling *tiling,
                               bool can_split);

/* Visible pairs of all heads, and no more than the type holds. */
uint64_t fa_schedule_count_pairs(const fa_problem *problem);

/* Row blocks of which fa_planner.walked has room, so that the walk never needs more; 0: there are no lists. */
int64_t fa_planner_walked(const fa_planner *w);

/* The most items of a schedule. */
int64_t fa_planner_most_items(const fa_planner *w);

/* Costs become those of so many rows. */
void fa_planner_take_rows(fa_planner *w, int32_t rows);

/* Each counts items, merges and partial rows. RANK says how long pieces are too, FILL makes them. */
typedef enum fa_pass { FA_PASS_COUNT, FA_PASS_RANK, FA_PASS_FILL } fa_pass;

/* Goes through all blocks of rows, and ends early where there are more items than anyone wants. */
void fa_planner_walk(fa_planner *w, fa_pass what, fa_schedule *out);

#endif
