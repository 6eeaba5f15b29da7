/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_RANKS_RING_H
#define FA_CORE_RANKS_RING_H

#include <fastattn/append.h>
#include <fastattn/merge.h>
#include <fastattn/ring.h>

#include "core/attention/problem.h"
#include "core/ranks/shares.h"
#include "core/ranks/transport.h"

/* A plan of a part, of the rank's own keys or of a block: few parts differ but in the rank that they come from. */
typedef struct fa_ring_plan {
    fa_ring_part part;
    bool own;
    fa_plan *plan;
} fa_ring_plan;

/* A chunk of this rank's rows. Each rank whose keys they see gives them a state, the rank itself the first. */
typedef struct fa_ring_piece {
    int64_t row, rows; /* among the rank's rows */
    int64_t states;
    fa_ring_plan *plan; /* room for those of all ranks */
    int plans;
    fa_merge *merge, *last; /* of two states into the first, or into the outputs */
    /* In the workspace: the outputs of two states, then their LSEs. */
    size_t o_at, o_bytes, lse_at, lse_bytes;
    size_t lse_offset; /* in lse */
} fa_ring_piece;

struct fa_ring {
    fa_device *device;
    fa_transport transport;
    int64_t tokens, most; /* most: of a rank */
    fa_ring_rule rule;
    fa_problem problem; /* of this rank's tokens */
    fa_ring_piece piece[FA_RING_PIECES];
    /* A block, as it travels: the keys of a rank and its values, each (batch, heads_kv, most, dim). */
    fa_tensor block_k, block_v;
    size_t v_at, block_bytes;
    size_t block_at[2], scratch_at, workspace; /* of the workspace: the blocks; that of the plans */
    fa_append *pack; /* this rank's keys and values into a block; NULL: it has none */
    fa_buffer *slots;
    char *host;  /* two blocks in host memory, where ranks cannot send what lies on the device; else NULL */
    bool failed; /* a run did: ranks may stand at different steps */
};

/* That of a part of the rank's own keys, or of a block; NULL: there is none such. */
fa_plan *fa_ring_plan_of(const fa_ring_piece *piece, const fa_ring_part *part, bool own);

#endif
