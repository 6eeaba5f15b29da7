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

/* How many keys of both chunks are seen, where only a causal mask hides any. */
static int whole_part(const fa_share *own, int piece, const fa_share *keys, const fa_ring_rule *rule,
                      fa_ring_part *part)
{
    const bool causal = rule->mask.right == 1;
    *part = (fa_ring_part){.row = 0};
    for (int i = 0; i < FA_RING_PIECES; i++)
        part->keys += !causal || keys->first[i] <= own->first[piece] ? keys->count[i] : 0;
    part->placed = causal && keys->first[0] == own->first[0];
    if (part->placed)
        part->diagonal = part->keys - own->count[piece];
    return part->keys > 0;
}

static int chunk_part(const fa_share *own, int piece, const fa_share *keys, int chunk,
                      const fa_ring_rule *rule, fa_ring_part *part)
{
    const int64_t rows = own->count[piece], count = keys->count[chunk],
                  diagonal = own->first[piece] - keys->first[chunk];
    const fa_mask mask = {
        .len_kv = (int)count, .diagonal = (int)diagonal, .left = rule->mask.left, .right = rule->mask.right};
    const int class = count > 0 ? fa_mask_classify(mask, 0, (int)rows, 0, (int)count) : FA_CLASS_SKIP;
    *part = (fa_ring_part){.row = chunk > 0 ? keys->count[0] : 0,
                           .keys = count,
                           .placed = class == FA_CLASS_PARTIAL || rule->sloped};
    if (part->placed)
        part->diagonal = diagonal;
    return class != FA_CLASS_SKIP;
}

int fa_ring_parts(const fa_ring_rule *rule, int64_t tokens, int32_t ranks, int32_t rank, int piece,
                  int32_t from, fa_ring_part part[FA_RING_PIECES])
{
    const fa_share own = fa_share_of(tokens, ranks, rank), keys = fa_share_of(tokens, ranks, from);
    const fa_mask_rule *mask = &rule->mask;
    int parts = 0;
    if (own.count[piece] == 0)
        return 0;
    if (mask->left >= FA_UNLIMITED && (mask->right == 1 || mask->right >= FA_UNLIMITED) && !rule->sloped)
        return whole_part(&own, piece, &keys, rule, part);
    for (int chunk = 0; chunk < FA_RING_PIECES; chunk++)
        parts += chunk_part(&own, piece, &keys, chunk, rule, &part[parts]);
    return parts;
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
