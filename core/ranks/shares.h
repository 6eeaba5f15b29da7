/* SPDX-License-Identifier: Apache-2.0 */
/* Who has which tokens of a ring, and who sees whose: pure functions. */
#ifndef FA_CORE_RANKS_SHARES_H
#define FA_CORE_RANKS_SHARES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/portable/mask.h"

enum { FA_RING_PIECES = 2 };

/* The two chunks of a rank, by the numbers of their tokens. */
typedef struct fa_share {
    int64_t first[FA_RING_PIECES], count[FA_RING_PIECES];
} fa_share;

fa_share fa_share_of(int64_t tokens, int32_t ranks, int32_t rank);

static inline int64_t fa_share_tokens(const fa_share *share)
{
    return share->count[0] + share->count[1];
}

/* The most tokens that a rank has. */
int64_t fa_share_most(int64_t tokens, int32_t ranks);

/* Whose keys a rank has in a step of its ring, from 0 on: first its own, then those of the ranks before it. */
int32_t fa_ring_source(int32_t ranks, int32_t rank, int32_t step);

/* What a row's place decides: which keys it sees, and whether scores count how far a key is (ALiBi). */
typedef struct fa_ring_rule {
    fa_mask_rule mask;
    bool sloped;
} fa_ring_rule;

/* Keys of a rank from its row `row` on, that rows of a piece compute with at once. */
typedef struct fa_ring_part {
    int64_t row, keys;
    bool placed;      /* where rows and keys stand makes a difference; else all rows see all of these keys */
    int64_t diagonal; /* placed: the key, of these, that the first of the rows stands at; else 0           */
} fa_ring_part;

/*
 * The parts of rank `from`'s keys that some row of a piece sees, and how many these are. A part is a chunk. Under a causal mask
 * alone, or none, both chunks are one part: a chunk is then seen whole or not at all, or is the rows' own, which is the last.
 */
int fa_ring_parts(const fa_ring_rule *rule, int64_t tokens, int32_t ranks, int32_t rank, int piece,
                  int32_t from, fa_ring_part part[FA_RING_PIECES]);

#endif
