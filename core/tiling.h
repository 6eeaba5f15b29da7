/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two-level tiling as a pure function of what the device offers and what the problem is. No clock, no
 * driver, no global state: made-up devices are tested like real ones.
 */
#ifndef FA_CORE_TILING_H
#define FA_CORE_TILING_H

#include <stdbool.h>
#include <stdint.h>

/* What one device offers. A unit is what works on one level-1 block at a time: a core, a multiprocessor. */
typedef struct fa_limits {
    uint32_t units;
    uint64_t onchip_bytes; /* level-1 staging of one unit: L2 of a core, shared memory of a block    */
    uint64_t near_bytes; /* a faster level before it, such as L1: scores beyond it cost more; 0: none       */
    bool onchip_soft;    /* a cache: forced blocks may need more than onchip_bytes, and be slower         */
    uint64_t accum_bytes; /* registers for the scores and the output of one block; 0: they are      */
                          /* staged on chip like the rest                                           */
    double clock_hz;
    double bytes_per_second; /* far memory, all units together                                         */
    double sync_cycles;      /* one block-level synchronisation, its latency not hidden                */
    double item_cycles;      /* taking up one work item                                                */
    double launch_cycles;    /* starting one run on more than one unit                                 */
    double run_cycles;       /* starting any run                                                       */
    uint64_t tensor_bytes;   /* most bytes that one operand spans; 0: no limit                         */
    int32_t loop_turns;      /* after so many turns of a kernel's loops, all together, the driver ends */
                             /* them; 0: it lets them end                                              */
    uint64_t work_bytes;     /* the most that a work list may have; 0: no limit                        */
    bool compiled;           /* a plan's code is compiled for its blocks: lengths must not choose them */
} fa_limits;

/*
 * The same, each value within what a device can have: what a driver says may be 0, NaN or 2^31 units, and the
 * planner's work and arithmetic grow with it. Each unit works on `resident` blocks side by side (0 is 1): it is as
 * many units, each so much slower.
 */
fa_limits fa_limits_sane(const fa_limits *limits, int32_t resident);

/* The level-2 tile: what the arithmetic unit eats at once. */
typedef struct fa_tile {
    int32_t q, kv, d;
} fa_tile;

/* What of a block a kernel keeps on chip. */
enum { FA_STAGE_Q = 1, FA_STAGE_K = 2, FA_STAGE_V = 4, FA_STAGE_S = 8, FA_STAGE_O = 16 };

/*
 * How a kernel works, as far as block sizes depend on it. It is data, so that made-up kernels are planned like real ones; the
 * model of time reads most of what says how a block is staged.
 */
typedef struct fa_tile_traits {
    fa_tile tile;
    int32_t least_dim_qk; /* dims that are computed, and staged, however few there are; 0: one tile's */
    int32_t least_dim_v;
    unsigned stage;
    int32_t element_bytes; /* of staged q, k, v                                                      */
    int32_t score_bytes;   /* of staged scores                                                       */
    int32_t score_rows;    /* rows whose scores are staged at a time; 0: all of a block's            */
    int32_t buffers;       /* copies of K and V in flight                                            */
    /* Dims of Q and K, then keys of the weights and V, that are staged at a time; 0: all that `stage` says. */
    int32_t slice;
    int32_t exchange; /* elements that each row leaves in the place of a slice                            */
    int32_t fixed_bytes; /* staged whatever the block                                                       */
    int32_t resident;    /* blocks that a unit works on side by side, each at its share of the speed; 0: 1  */
    int32_t max_block_q, max_block_kv; /* 0: no limit of the kernel's own                              */
    int32_t key_turns; /* most turns of loops that a key costs, its share of a block's included           */
    bool v_in_k;       /* values are read with the keys that they are a part of                  */
    bool clips;        /* of a block that the mask cuts, only the tiles it leaves are computed   */
    /* Of the shorter of computing and fetching a block, the part that the longer does not hide: 1 where a block
     * is fetched, then computed on. A tenth is taken at least, and where elements of K and V have
     * in_place_bytes, since they are then read where they lie. */
    double exposed;
    int32_t in_place_bytes;
    double flops_per_cycle;  /* of one unit, as the kernel's inner loop reaches it                     */
    double scores_per_cycle; /* exp and mask included                                                  */
    /* Elements of output that are taken up, rescaled and put back for a block of keys; 0: half of
     * flops_per_cycle, as where that hides in the product. */
    double rescales_per_cycle;
} fa_tile_traits;

/* What of the problem matters here. */
typedef struct fa_tile_problem {
    int64_t rows;      /* rows of one (sequence, KV head): query rows times group; the mean        */
    int64_t keys;      /* likewise the mean                                                        */
    int64_t instances; /* sequences times KV heads                                                 */
    int32_t dim_qk, dim_v;
    double far_bytes; /* of one element of k and v in far memory                                   */
    double density;   /* visible pairs over all pairs, 0 to 1                                     */
    int32_t group;    /* rows per query position, where the mask cuts; 0 is taken as 1            */
} fa_tile_problem;

typedef struct fa_tiling {
    int32_t block_q, block_kv; /* level 1 */
    fa_tile tile;              /* level 2 */
    double seconds;            /* modelled, by which sizes are compared */
    const char *source;        /* "model" or "tuning" */
} fa_tiling;

/*
 * The problem by which a kernel and its blocks are chosen. It is *problem, unless the device compiles code for each size
 * of block: then there are a few classes of lengths, all of one class have one choice, and no mask changes it. With
 * `one_position`, as in decoding, rows are the heads of a group, and all numbers of keys are one class.
 */
fa_tile_problem fa_tiling_class(const fa_limits *limits, const fa_tile_problem *problem, bool one_position);

/* Halves a block that was chosen for a class as long as it holds all of `rows` rows. */
void fa_tiling_cover(const fa_limits *limits, const fa_tile_traits *traits, int64_t rows, fa_tiling *tiling);

/* Bytes that a block of this size keeps on chip, and in registers. */
uint64_t fa_tiling_onchip(const fa_tile_traits *traits, const fa_tile_problem *problem, int64_t block_q,
                          int64_t block_kv);
uint64_t fa_tiling_accum(const fa_limits *limits, const fa_tile_problem *problem, int64_t block_q,
                         int64_t block_kv);

/* Modelled cycles of one unit for one block of keys against one block of rows. */
double fa_tiling_block_cycles(const fa_limits *limits, const fa_tile_traits *traits,
                              const fa_tile_problem *problem, int64_t rows, int64_t keys);

/*
 * The fastest block sizes by the model. forced_q and forced_kv, where not 0, are taken (rounded up to tiles)
 * instead of searched for.
 * False when even one level-2 tile does not fit; *tiling then holds that tile, for the message.
 */
bool fa_tiling_fastest(const fa_limits *limits, const fa_tile_traits *traits, const fa_tile_problem *problem,
                       int32_t forced_q, int32_t forced_kv, fa_tiling *tiling);

/* The same, but of the sizes that are nearly as fast the one that needs least on-chip memory. */
bool fa_tiling_choose(const fa_limits *limits, const fa_tile_traits *traits, const fa_tile_problem *problem,
                      int32_t forced_q, int32_t forced_kv, fa_tiling *tiling);

/*
 * Steps through the largest blocks that a search may end at, whatever the lengths up to problem->rows and keys: each
 * block_q in turn, from the one after tiling->block_q (0: the first), with the most keys that fit beside it.
 * False behind the last. Every other block that a search may end at has no more rows and no more keys than one of these.
 */
bool fa_tiling_next_largest(const fa_limits *limits, const fa_tile_traits *traits,
                            const fa_tile_problem *problem, int32_t forced_q, int32_t forced_kv,
                            fa_tiling *tiling);

/* Most keys of one work item, so that no loop is ended before its time; 0: no limit. */
int32_t fa_tiling_item_keys(const fa_limits *limits, const fa_tile_traits *traits);

/* Most parts of a merge, likewise. */
int32_t fa_tiling_parts(const fa_limits *limits);

#endif
