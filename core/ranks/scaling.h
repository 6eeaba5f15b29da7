/* SPDX-License-Identifier: Apache-2.0 */
/* One layer on many ranks, simulated: pure functions, so that ranks are planned that are not at hand. */
#ifndef FA_CORE_RANKS_SCALING_H
#define FA_CORE_RANKS_SCALING_H

#include <stdbool.h>
#include <stdint.h>

/* What one rank computes: so many heads of so many rows and keys. */
typedef struct fa_scaling_part {
    int64_t heads_q, heads_kv, rows, keys;
    bool causal; /* from the bottom right; else each row sees all keys */
} fa_scaling_part;

typedef struct fa_scaling_problem {
    int64_t batch, heads_q, heads_kv, rows, keys;
    int32_t dim_qk, dim_v;
    bool causal;
    int64_t width;                       /* of the layer's output                        */
    double kv_size, y_size;              /* bytes of an element of k and v, and of y     */
    double flops, bandwidth;             /* of a rank: for the projection and for merges */
    double link_latency, link_bandwidth; /* of a message from one rank to another; of what a rank sends */
    double chunk_seconds;                /* of a chunk, or of a step of a ring, beside what it computes */
    /* The seconds of a part's attention on one rank. */
    double (*attention)(void *user, const fa_scaling_part *part);
    void *user;
} fa_scaling_problem;

typedef enum fa_scaling_scheme {
    FA_SCALING_HEADS = 0,   /* heads and the rows of W that belong to them; y is summed in chunks         */
    FA_SCALING_CONTEXT = 1, /* keys; states are gathered, and each rank projects                          */
    FA_SCALING_RING = 2     /* tokens, zig-zag: rows and keys both; K and V travel, each projects its own */
} fa_scaling_scheme;

/* What a run spends the most of its time on that more ranks do not shorten. */
typedef enum fa_scaling_limit {
    FA_SCALING_NONE = 0,  /* what is divided among ranks                        */
    FA_SCALING_LATENCY,   /* messages, however small                            */
    FA_SCALING_BANDWIDTH, /* bytes on the link                                 */
    FA_SCALING_FIXED,     /* what each rank computes, however little it has     */
    FA_SCALING_WHOLE,     /* what each rank does whole: the projection, a merge */
    FA_SCALING_PARTS,     /* there is nothing left to divide                    */
} fa_scaling_limit;

typedef struct fa_scaling_point {
    int32_t ranks;
    bool possible;          /* false: there are fewer heads, or tokens, than ranks */
    int64_t chunks;         /* of tokens, or steps of the ring, or 1               */
    double compute;         /* seconds of the slowest rank                         */
    double link;            /* seconds that its messages take                      */
    double seconds;         /* of the layer: compute and what of `link` no computing hides */
    fa_scaling_limit limit; /* why it is not as fast as it would be divided evenly  */
} fa_scaling_point;

/* The layer on so many ranks. A ring has as many rows as keys. */
fa_scaling_point fa_scaling_at(const fa_scaling_problem *problem, fa_scaling_scheme scheme, int32_t ranks);

/*
 * Where it stops scaling: the first number of ranks, 1, 2, 4 and so on, of which twice as many, at most `most`, are less than
 * 1.25 times as fast. *beyond is that of twice as many, whose limit says why. Of `most` or more than half of it, *beyond is the
 * same point.
 */
fa_scaling_point fa_scaling_end(const fa_scaling_problem *problem, fa_scaling_scheme scheme, int32_t most,
                                fa_scaling_point *beyond);

#endif
