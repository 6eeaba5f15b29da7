/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on two devices: the plans of both, what goes between them, and how they share. */
#ifndef FA_CORE_COOPERATE_H
#define FA_CORE_COOPERATE_H

#include <fastattn/cooperate.h>

#include "core/segments/segments.h"

/* Segments by number: whose keys are whose. Then those of the away cache that the home device computes. */
enum { FA_AWAY = 0, FA_HOME = 1, FA_STREAM = 2, FA_SHARES = 3 };

/* Pieces of a run, each a part of the merge, and the buffers that they pass through. */
enum { FA_PIECES = 6, FA_PIECE_BUFFERS = 2 };
_Static_assert(FA_HOME + 1 + FA_PIECES <= FA_PARTS_MOST, "a part for each piece");

/* Lists of a run, with a number for each sequence: keys of each share, the home cache's first key, keys of a piece. */
enum { FA_LIST_FIRST = FA_SHARES, FA_LIST_PIECE, FA_LISTS };

/* What a run took on a device. */
typedef struct fa_spent {
    int64_t keys;   /* of all sequences */
    double seconds; /* 0: not timed */
} fa_spent;

/* What a device takes for a key of each sequence. */
typedef struct fa_pace {
    double modelled, measured; /* seconds; measured 0: not yet */
    fa_spent last;             /* by the last run that succeeded */
    int64_t run;               /* number of the run that measured it last, or 0 */
} fa_pace;

/* After so many runs what was measured is old. */
enum { FA_PACE_RUNS = 64 };

/* A range of bytes that lies alike in a cache and in a piece, for k or v: of each sequence, or of each of its heads. */
typedef struct fa_piece_side {
    size_t token;              /* bytes from one key to the next */
    size_t cache[2], piece[2]; /* from one sequence to the next, from one range of it to the next */
    size_t last;               /* of the last key in a range */
    int64_t ranges;            /* of a sequence */
    size_t at, bytes;          /* where it begins in a buffer; of all ranges */
} fa_piece_side;

/* Keys of the away cache that are copied home. Each buffer has a queue, in which a piece is copied, then computed; so it is
 * never overwritten too early, and one queue's copy runs beside the other's computation. */
typedef struct fa_stream {
    fa_plan *plan; /* NULL: nothing is streamed; else of one piece */
    int64_t keys;  /* of each sequence, in a piece */
    fa_piece_side side[2];
    fa_queue *queue[FA_PIECE_BUFFERS];
    fa_buffer *buffer[FA_PIECE_BUFFERS], *workspace[FA_PIECE_BUFFERS];
    fa_buffer *work; /* of each piece */
    size_t work_stride;
    float *nothing;   /* LSEs of an empty state */
    int pieces;       /* of this run */
    int filled;       /* parts of pieces that may hold a state */
    bool blocks;      /* copies are done before the away device begins */
    double enqueuing; /* seconds of the calls that began this run's */
    double forced;    /* share; 0: none */
    char kernel[64];
} fa_stream;

struct fa_cooperate {
    fa_segments home; /* of the home device: both problems, the merge, and the plan of segment[1] */
    fa_device *away;
    fa_plan *away_plan;
    fa_queue *away_queue;
    fa_buffer *away_q, *away_state, *away_work, *away_workspace;
    fa_buffer *home_work, *home_workspace;
    /* Host memory: q, then the away states. The away device's buffers are this memory where it takes host pointers. */
    char *between;
    size_t between_bytes, q_bytes, state_at, state_bytes,
        state_lse;             /* state_lse: where LSEs lie in the states */
    int64_t *list[FA_LISTS];   /* of a run: one piece of memory, with those below */
    int64_t *last[FA_LISTS];   /* of the run before */
    bool scheduled[FA_SHARES]; /* the work of a share is that of `last` */
    size_t list_bytes;
    char kernel[FA_HOME + 1][64];
    fa_pace pace[FA_SHARES];
    fa_stream stream;
    double link_bandwidth, link_latency, host_bandwidth;
    int64_t runs;
};

/* Fills the lists of a run: checks where keys lie, and shares those that lie in both caches, and those away alone. Adds the
 * keys of each share to spent[FA_SHARES]. */
fa_status fa_cooperate_share(fa_cooperate *cooperate, const fa_cooperate_keys *keys, fa_spent *spent);

/* The seconds that q and the states take between the devices. */
double fa_cooperate_link(const fa_cooperate *cooperate);

/* The share of keys that are away where all are in both caches and a run ends soonest: when both devices end together. */
double fa_cooperate_even(const fa_cooperate *cooperate);

/* Takes what a run that succeeded took on one of them. */
void fa_cooperate_learn(fa_cooperate *cooperate, int side, const fa_spent *spent);

/* What three parts take: for all keys of the away device, of the home device, of copies; and beside, for messages. */
typedef struct fa_paces {
    double away, home, stream, link;
} fa_paces;

/* Of all keys, the share that is streamed so that a run ends soonest, where the share `away` lies away alone. */
double fa_cooperate_streamed(const fa_paces *paces, double away);

/* What the processors read while copies read `stream` of a memory that gives so much; 0: it gives all. */
double fa_cooperate_left(double memory, double processors, double stream);

/* The third part: its plan, queues and memory, within so many bytes. It is released whatever this returns. */
fa_status fa_stream_create(fa_cooperate *cooperate, const fa_segments_desc *segments, uint64_t bytes);
/* What depends on the merge. */
fa_status fa_stream_prepare(fa_cooperate *cooperate);
void fa_stream_release(fa_cooperate *cooperate);

/* The most keys of a sequence that a run streams. */
static inline int64_t fa_stream_most(const fa_stream *s)
{
    return s->plan ? s->keys * FA_PIECES : 0;
}

/* Enqueues copies and computation of the keys in list[FA_STREAM], which lie behind those of list[FA_AWAY] in the cache that
 * `away` binds; `whole` binds q and the outputs. Nothing where there are none. */
fa_status fa_stream_begin(fa_cooperate *cooperate, const fa_attention_args *whole,
                          const fa_attention_args *away);

/* Until they are computed: what they took. */
fa_status fa_stream_settle(fa_cooperate *cooperate, fa_spent *spent);

/* Marks the parts of pieces that this run has none of as empty, in the order of the home queue. */
fa_status fa_stream_clear(fa_cooperate *cooperate, fa_queue *queue);

/* Whether the work of a share is that of the lists of this run, which take the place of the run before's. */
bool fa_cooperate_scheduled(fa_cooperate *cooperate, int share);

#endif
