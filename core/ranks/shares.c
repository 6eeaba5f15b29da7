/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ranks/shares.h"

#include <fastattn/ring.h>

#include "core/portable/lang.h"
#include "core/status.h"

/* Where chunk c of twice as many as there are ranks begins. Of FA_MAX_LENGTH tokens and FA_MAX_RANKS no product overflows. */
static int64_t chunk_begin(int64_t tokens, int32_t ranks, int32_t c)
{
    return tokens * c / (2 * ranks);
}

fa_share fa_share_of(int64_t tokens, int32_t ranks, int32_t rank)
{
    const int32_t chunk[FA_RING_PIECES] = {rank, 2 * ranks - 1 - rank};
    fa_share share;
    for (int i = 0; i < FA_RING_PIECES; i++) {
        share.first[i] = chunk_begin(tokens, ranks, chunk[i]);
        share.count[i] = chunk_begin(tokens, ranks, chunk[i] + 1) - share.first[i];
    }
    return share;
}

int64_t fa_share_most(int64_t tokens, int32_t ranks)
{
    int64_t most = 0;
    for (int32_t rank = 0; rank < ranks; rank++) {
        const fa_share share = fa_share_of(tokens, ranks, rank);
        most = FA_MAX(most, fa_share_tokens(&share));
    }
    return most;
}

int32_t fa_ring_source(int32_t ranks, int32_t rank, int32_t step)
{
    return (rank - step + ranks) % ranks;
}

int64_t fa_ring_keys(int64_t tokens, int32_t ranks, int32_t rank, int piece, int32_t from, bool causal)
{
    const fa_share own = fa_share_of(tokens, ranks, rank), keys = fa_share_of(tokens, ranks, from);
    int64_t seen = 0;
    if (own.count[piece] == 0)
        return 0;
    /* A chunk is seen whole, or not at all, or is the rows' own. */
    for (int i = 0; i < FA_RING_PIECES; i++)
        seen += !causal || keys.first[i] <= own.first[piece] ? keys.count[i] : 0;
    return seen;
}

fa_status fa_ring_share(int64_t tokens, int32_t ranks, int32_t rank, int64_t first[2], int64_t count[2])
{
    fa_clear_error();
    if (!first || !count)
        return fa_fail(FA_INVALID, "%s is NULL", first ? "count" : "first");
    if (tokens < 1 || tokens > FA_MAX_LENGTH)
        return fa_fail(FA_INVALID, "tokens is %lld, expected 1 to %d", (long long)tokens, FA_MAX_LENGTH);
    if (ranks < 1 || ranks > FA_MAX_RANKS)
        return fa_fail(FA_INVALID, "ranks is %d, expected 1 to %d", ranks, FA_MAX_RANKS);
    if (rank < 0 || rank >= ranks)
        return fa_fail(FA_INVALID, "rank is %d, expected 0 to %d", rank, ranks - 1);
    const fa_share share = fa_share_of(tokens, ranks, rank);
    for (int i = 0; i < FA_RING_PIECES; i++) {
        first[i] = share.first[i];
        count[i] = share.count[i];
    }
    return FA_OK;
}
