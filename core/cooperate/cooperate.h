/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on two devices: the plans of both, what goes between them, and how they share. */
#ifndef FA_CORE_COOPERATE_H
#define FA_CORE_COOPERATE_H

#include <fastattn/cooperate.h>

#include "core/segments/segments.h"

/* Segments by number: whose keys are whose. */
enum { FA_AWAY = 0, FA_HOME = 1 };

/* What a run took on a device. */
typedef struct fa_spent {
    int64_t keys;   /* of all sequences */
    double seconds; /* 0: not timed */
} fa_spent;

/* What a device takes for a key of each sequence. */
typedef struct fa_pace {
    double modelled, measured; /* seconds; measured 0: not yet */
    fa_spent last;             /* by the last run that succeeded */
} fa_pace;

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
        state_lse;              /* state_lse: where LSEs lie in the states */
    int64_t *list[FA_HOME + 2]; /* of a run: keys of each, and the home cache's first; one piece of memory */
    size_t list_bytes;
    char kernel[FA_HOME + 1][64];
    fa_pace pace[FA_HOME + 1];
    double link_bandwidth, link_latency;
    int64_t runs;
};

/* Fills the lists of a run: checks where keys lie, and shares those that lie in both caches. Adds the keys of each device to
 * spent[FA_HOME + 1]. */
fa_status fa_cooperate_share(fa_cooperate *cooperate, const fa_cooperate_keys *keys, fa_spent *spent);

/* The seconds that q and the states take between the devices. */
double fa_cooperate_link(const fa_cooperate *cooperate);

/* The share of keys that are away where all are in both caches and a run ends soonest: when both devices end together. */
double fa_cooperate_even(const fa_cooperate *cooperate);

/* Takes what a run that succeeded took on one of them. */
void fa_cooperate_learn(fa_cooperate *cooperate, int side, const fa_spent *spent);

#endif
