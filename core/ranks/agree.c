/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/context.h"
#include "core/portable/lang.h"
#include "core/ranks/transport.h"

/* What each rank gives. Its size is the same in every version of the library that has this number. */
enum { RECORD_VERSION = 2, FEW = 16 };
typedef struct record {
    int64_t version, kind, status, count, rank;
    int64_t word[FA_RANK_WORDS];
    double share[FA_RANK_SHARES];
} record;

int64_t fa_rank_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* Of another name another number, as far as few names go. */
static int64_t kind_of(const char *what)
{
    int64_t kind = 0;
    for (; *what; what++)
        kind = (kind * 31 + *what) % 1000000007;
    return kind;
}

/* Whether what two ranks make is the same; `own` is this rank's, `other` that of another one. */
static fa_status compare(const fa_transport *t, const char *what, const record *own, const record *other,
                         int32_t rank, const fa_rank_word *words)
{
    if (other->version != own->version)
        return fa_fail(FA_INVALID, "rank %d has another version of the library, expected %s's", rank,
                       fa_version());
    if (other->rank != rank)
        return fa_fail(FA_INVALID, "transport.rank is %lld on rank %d, expected %d, where it is gathered",
                       (long long)other->rank, rank, rank);
    if (other->kind != own->kind || other->count != own->count)
        return fa_fail(FA_INVALID, "rank %d makes something else than rank %d, which makes %s", rank, t->rank,
                       what);
    for (int64_t i = 0; i < own->count; i++) {
        if (own->word[i] != other->word[i])
            return fa_fail(FA_INVALID, "%s is %lld on rank %d and %lld on rank %d, expected the same",
                           words[i].name, (long long)own->word[i], t->rank, (long long)other->word[i], rank);
    }
    return FA_OK;
}

static fa_status judge(const fa_transport *t, const char *what, const record *own, const record *all,
                       const fa_rank_word *words)
{
    for (int32_t rank = 0; rank < t->ranks; rank++) {
        const fa_status status = (fa_status)all[rank].status;
        if (all[rank].version == own->version && status != FA_OK)
            return fa_fail(status, "rank %d failed to make %s with %s, as its own message says", rank, what,
                           fa_status_name(status));
    }
    /* Rank 0 is who is right; if it is another that differs, all ranks say the same of it. */
    FA_TRY(compare(t, what, own, &all[0], 0, words));
    for (int32_t rank = 1; rank < t->ranks; rank++)
        FA_TRY(compare(t, what, own, &all[rank], rank, words));
    return FA_OK;
}

/* One byte of each rank, which needs no memory: whether it has some to hear the others' records. */
static fa_status agree_on_memory(const fa_transport *t, const char *what, bool own)
{
    const char mine = own;
    char all[FA_MAX_RANKS];
    FA_TRY(fa_allgather(t, &mine, all, 1));
    for (int32_t rank = 0; rank < t->ranks; rank++) {
        if (!all[rank])
            return fa_fail(FA_OUT_OF_MEMORY, "rank %d has no memory to make %s with %d ranks", rank, what,
                           t->ranks);
    }
    return FA_OK;
}

fa_status fa_ranks_agree(const fa_context *context, const fa_transport *t, const char *what, fa_status own,
                         const fa_rank_word *words, int count, fa_rank_share *shares, int share_count)
{
    record mine = {
        .version = RECORD_VERSION, .kind = kind_of(what), .status = own, .count = count, .rank = t->rank};
    const fa_message kept = fa_message_keep();
    for (int i = 0; i < count; i++)
        mine.word[i] = words[i].value;
    for (int i = 0; i < share_count; i++)
        mine.share[i] = shares[i].own;
    const size_t bytes = (size_t)t->ranks * sizeof(record);
    record few[FEW]; /* so that a few ranks need no memory */
    record *all = t->ranks <= FEW ? few : fa_alloc(context, bytes);
    fa_status status = t->ranks <= FEW ? FA_OK : agree_on_memory(t, what, all != NULL);
    if (status == FA_OK)
        status = fa_allgather(t, &mine, all, sizeof(mine));
    if (status == FA_OK && own == FA_OK)
        status = judge(t, what, &mine, all, words);
    for (int i = 0; i < share_count && status == FA_OK; i++) {
        shares[i].least = shares[i].most = all[0].share[i];
        for (int32_t rank = 1; rank < t->ranks; rank++) {
            shares[i].least = FA_MIN(shares[i].least, all[rank].share[i]);
            shares[i].most = FA_MAX(shares[i].most, all[rank].share[i]);
        }
    }
    if (all && all != few)
        fa_release(context, all, bytes);
    if (own == FA_OK)
        return status;
    fa_message_restore(&kept); /* the first failure is worth telling */
    return own;
}
