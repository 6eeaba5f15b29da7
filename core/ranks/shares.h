/* SPDX-License-Identifier: Apache-2.0 */
/* Who has which tokens of a ring, and who sees whose: pure functions. */
#ifndef FA_CORE_RANKS_SHARES_H
#define FA_CORE_RANKS_SHARES_H

#include <stdbool.h>
#include <stdint.h>

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

/*
 * How many keys of rank `from`, the first of those that it has, are seen by a rank's rows of a piece. Each row sees all of
 * them, but under a causal mask where `from` is the rank itself: there the last row sees the last of these keys.
 */
int64_t fa_ring_keys(int64_t tokens, int32_t ranks, int32_t rank, int piece, int32_t from, bool causal);

#endif
