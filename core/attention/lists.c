/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/lists.h"

#include "core/attention/checks.h"
#include "core/attention/problem.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

/* A field that counts lists, or blocks: at least `least`. */
static fa_status check_blocks(const char *name, int64_t value, int64_t least)
{
    if (value < least || value > FA_MAX_LENGTH)
        return fa_fail(FA_INVALID, "lists->%s is %lld, expected at least %lld", name, (long long)value,
                       (long long)least);
    return FA_OK;
}

static fa_status check_sizes(const fa_problem *p, const fa_block_lists *g)
{
    const int64_t rows = p->dynamic ? fa_problem_most_rows(p) : p->max_len_q;
    const int64_t keys = p->dynamic ? fa_problem_most_keys(p) : p->max_key;
    FA_TRY(fa_check_limit("lists->block_rows", g->block_rows, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("lists->block_keys", g->block_keys, 1, FA_MAX_LENGTH));
    if (g->sequences != 1 && g->sequences != p->sequences)
        return fa_fail(FA_INVALID, "lists->sequences is %lld, expected 1 or %lld", (long long)g->sequences,
                       (long long)p->sequences);
    if (g->heads != 1 && g->heads != p->heads_kv && g->heads != p->heads_q)
        return fa_fail(FA_INVALID, "lists->heads is %lld, expected 1, %d or %d", (long long)g->heads,
                       p->heads_kv, p->heads_q);
    FA_TRY(check_blocks("row_blocks", g->row_blocks, fa_ceil_div(rows, g->block_rows)));
    FA_TRY(check_blocks("key_blocks", g->key_blocks, fa_ceil_div(keys, g->block_keys)));
    if ((g->mask != NULL) == (g->indptr != NULL))
        return fa_fail(FA_INVALID, "lists: %s mask and indptr, expected one of them",
                       g->mask ? "both" : "neither");
    if ((g->indices != NULL) && !g->indptr)
        return fa_fail(FA_INVALID, "lists->indices is given, expected NULL beside a mask");
    return FA_OK;
}

/* The bit of a block of keys; false: it is set. */
static bool set_bit(uint32_t *list, int64_t block)
{
    const uint32_t bit = 1u << (block % 32);
    const bool is_new = !(list[block / 32] & bit);
    list[block / 32] |= bit;
    return is_new;
}

static fa_status take_rows(const fa_block_lists *g, int64_t lists, fa_lists *l)
{
    if (g->indptr[0] != 0)
        return fa_fail(FA_INVALID, "lists->indptr[0] is %d, expected 0", g->indptr[0]);
    for (int64_t n = 0; n < lists; n++) {
        const int32_t begin = g->indptr[n], end = g->indptr[n + 1];
        if (end < begin)
            return fa_fail(FA_INVALID, "lists->indptr[%lld] is %d, expected at least the one before, %d",
                           (long long)n + 1, end, begin);
        if (end > begin && !g->indices)
            return fa_fail(FA_INVALID, "lists->indices is NULL");
        for (int32_t i = begin; i < end; i++) {
            const int32_t block = g->indices[i];
            if (block < 0 || block >= g->key_blocks)
                return fa_fail(FA_INVALID, "lists->indices[%d] is %d, expected 0 to %lld", i, block,
                               (long long)g->key_blocks - 1);
            if (!set_bit(l->bits + n * l->words, block))
                return fa_fail(FA_INVALID, "lists->indices[%d] is %d, which its list has already", i, block);
        }
    }
    return FA_OK;
}

static void take_mask(const fa_block_lists *g, int64_t lists, fa_lists *l)
{
    for (int64_t n = 0; n < lists; n++) {
        for (int64_t block = 0; block < g->key_blocks; block++) {
            if (g->mask[n * g->key_blocks + block])
                (void)set_bit(l->bits + n * l->words, block);
        }
    }
}

fa_status fa_lists_init(const fa_context *context, fa_problem *p, const fa_block_lists *given)
{
    fa_block_lists g;
    fa_lists *l = &p->lists;
    int64_t lists, words;
    if (!given)
        return FA_OK;
    FA_TRY(fa_copy_struct(&g, sizeof(g), FA_BLOCK_LISTS_0_1, given, "fa_block_lists"));
    FA_TRY(check_sizes(p, &g));
    if (p->heads_q == 0 || p->sequences == 0)
        return FA_OK;
    l->block_rows = g.block_rows;
    l->block_keys = g.block_keys;
    l->words = (int32_t)fa_ceil_div(g.key_blocks, 32);
    l->heads = p->heads_q / (int32_t)g.heads;
    l->head_stride = g.heads > 1 ? g.row_blocks * l->words : 0;
    l->sequence_stride = g.sequences > 1 ? g.heads * g.row_blocks * l->words : 0;
    if (!fa_mul_i64(g.sequences * g.heads, g.row_blocks, &lists) || !fa_mul_i64(lists, l->words, &words) ||
        words > INT32_MAX / 4)
        return fa_fail(
            FA_OUT_OF_MEMORY,
            "lists: %lld sequences, %lld heads and %lld row blocks of %lld key blocks are more than "
            "kernels count",
            (long long)g.sequences, (long long)g.heads, (long long)g.row_blocks, (long long)g.key_blocks);
    l->count = (size_t)words;
    l->bits = fa_alloc_zeroed(context, FA_MAX(l->count, 1) * sizeof(*l->bits));
    if (!l->bits)
        return FA_OUT_OF_MEMORY;
    p->features |= FA_FEATURE_LISTS;
    if (g.indptr)
        return take_rows(&g, lists, l);
    take_mask(&g, lists, l);
    return FA_OK;
}

void fa_lists_release(const fa_context *context, fa_lists *lists)
{
    fa_release(context, lists->bits, FA_MAX(lists->count, 1) * sizeof(*lists->bits));
    *lists = (fa_lists){0};
}
