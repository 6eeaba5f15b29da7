/* SPDX-License-Identifier: Apache-2.0 */
/* How a causal problem falls into halves, level by level, and sorted rows and keys into blocks. */
#include "core/backend.h"
#include "core/context.h"
#include "core/hyper/hyper.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

static bool is_causal(const fa_hyper *h)
{
    return h->entry.mask != FA_MASK_NONE;
}

int fa_hyper_levels(const fa_hyper *h)
{
    int64_t longest = h->entry.q.shape[2], most = FA_MAX(longest, h->entry.k.shape[2]);
    int levels = 0;
    if (fa_tensor_is_empty(&h->problem.tensor[FA_Q]) || fa_tensor_is_empty(&h->problem.tensor[FA_K]))
        return 0; /* nothing is sorted or sampled */
    if (!is_causal(h))
        return most > h->desc.min_seq ? 1 : 0;
    for (; longest > h->desc.min_seq; longest -= longest / 2)
        levels++;
    return levels;
}

/* Adds a sequence of rows up to `end`; one that meets keys has [first_key, last_key). */
static void add(fa_hyper_cut *cut, int64_t end, bool meets, int64_t first_key, int64_t last_key)
{
    const int64_t n = cut->sequences++;
    if (meets)
        cut->cu_kv[n] = first_key;
    cut->cu_q[n + 1] = end;
    cut->cu_kv[n + 1] = meets ? last_key : cut->cu_kv[n];
    cut->meets[n] = meets;
    cut->active += meets;
}

/* What there is of rows [begin, end) on a level so far below. */
static void halve(fa_hyper_cut *cut, int64_t min_seq, int below, int64_t begin, int64_t end)
{
    const int64_t middle = begin + (end - begin) / 2;
    if (end - begin <= min_seq) {
        add(cut, end, false, 0, 0);
    } else if (below == 0) {
        add(cut, middle, false, 0, 0);
        add(cut, end, true, begin, middle);
    } else {
        halve(cut, min_seq, below - 1, begin, middle);
        halve(cut, min_seq, below - 1, middle, end);
    }
}

/* Sizes of sequences, where samples begin, and sizes of blocks. */
static void measure(const fa_hyper *h, fa_hyper_cut *cut)
{
    const int64_t block = h->desc.block;
    for (int64_t n = 0; n < cut->sequences; n++) {
        const int64_t rows = cut->cu_q[n + 1] - cut->cu_q[n], keys = cut->cu_kv[n + 1] - cut->cu_kv[n];
        cut->cu_sampled[n + 1] = cut->cu_sampled[n] + (cut->meets[n] ? h->desc.sample : 0);
        cut->most_rows = FA_MAX(cut->most_rows, rows);
        cut->most_keys = FA_MAX(cut->most_keys, keys);
        cut->rows = FA_MAX(cut->rows, cut->meets[n] ? rows : 0);
        cut->keys = FA_MAX(cut->keys, cut->meets[n] ? keys : 0);
    }
    if (cut->active == 0)
        return;
    cut->block_keys = fa_round_up(fa_ceil_div(cut->keys, FA_MAX(cut->keys / block, 1)), block < 64 ? 1 : 64);
    const int64_t rows = (cut->rows * cut->block_keys + cut->keys / 2) / cut->keys;
    cut->block_rows = FA_MAX(FA_MIN(rows, cut->rows), 1);
}

fa_status fa_hyper_cut_make(const fa_hyper *h, int level, fa_hyper_cut *cut)
{
    const int64_t rows = h->entry.q.shape[2];
    const size_t offset = sizeof(int64_t);
    *cut = (fa_hyper_cut){.room = FA_MIN((int64_t)2 << level, rows) + 2};
    cut->cu_q = fa_alloc_zeroed(h->device->context, (size_t)cut->room * offset);
    cut->cu_kv = fa_alloc_zeroed(h->device->context, (size_t)cut->room * offset);
    cut->cu_sampled = fa_alloc_zeroed(h->device->context, (size_t)cut->room * offset);
    cut->meets = fa_alloc_zeroed(h->device->context, (size_t)cut->room * sizeof(bool));
    if (!cut->cu_q || !cut->cu_kv || !cut->cu_sampled || !cut->meets)
        return FA_OUT_OF_MEMORY;
    if (is_causal(h))
        halve(cut, h->desc.min_seq, level, 0, rows);
    else
        add(cut, rows, true, 0, h->entry.k.shape[2]);
    measure(h, cut);
    return FA_OK;
}

void fa_hyper_cut_release(const fa_hyper *h, fa_hyper_cut *cut)
{
    const size_t room = (size_t)cut->room;
    fa_release(h->device->context, cut->cu_q, room * sizeof(int64_t));
    fa_release(h->device->context, cut->cu_kv, room * sizeof(int64_t));
    fa_release(h->device->context, cut->cu_sampled, room * sizeof(int64_t));
    fa_release(h->device->context, cut->meets, room * sizeof(bool));
}
