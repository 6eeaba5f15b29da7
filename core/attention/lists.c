/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/lists.h"

#include <string.h>

#include "core/attention/checks.h"
#include "core/attention/problem.h"
#include "core/context.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/status.h"
#include "core/structs.h"

/* `none`: neither form is fine too. */
static fa_status check_forms(const fa_block_lists *g, bool none)
{
    if (g->mask ? g->indptr != NULL : !g->indptr && !none)
        return fa_fail(FA_INVALID, "lists: %s mask and indptr, expected one of them",
                       g->mask ? "both" : "neither");
    if ((g->indices != NULL) && !g->indptr)
        return fa_fail(FA_INVALID, "lists->indices is given, expected NULL beside a mask");
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
    FA_TRY(
        fa_check_limit("lists->row_blocks", g->row_blocks, fa_ceil_div(rows, g->block_rows), FA_MAX_LENGTH));
    FA_TRY(
        fa_check_limit("lists->key_blocks", g->key_blocks, fa_ceil_div(keys, g->block_keys), FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("lists->index_count", g->index_count, 0, p->on_device ? INT32_MAX : 0));
    return check_forms(g, p->on_device);
}

static uint32_t *list_at(const fa_lists *l, int64_t list)
{
    return l->bits + list * l->words;
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
            if (!set_bit(list_at(l, n), block))
                return fa_fail(FA_INVALID, "lists->indices[%d] is %d, which its list has already", i, block);
        }
    }
    return FA_OK;
}

/* Of a mask; of all blocks where there is none. */
static void take_mask(const fa_block_lists *g, int64_t lists, fa_lists *l)
{
    for (int64_t n = 0; n < lists; n++) {
        for (int64_t block = 0; block < g->key_blocks; block++) {
            if (!g->mask || g->mask[n * g->key_blocks + block])
                (void)set_bit(list_at(l, n), block);
        }
    }
}

/* Whether each list is the one behind it, for all pairs (2 i, 2 i + 1) of `rows` row blocks. */
static bool pairs_agree(const fa_lists *l, int64_t groups, int64_t rows)
{
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t r = 0; r + 1 < rows; r += 2) {
            if (memcmp(list_at(l, g * rows + r), list_at(l, g * rows + r + 1), (size_t)l->words * 4) != 0)
                return false;
        }
    }
    return true;
}

/*
 * Blocks of rows twice as large, as long as that says the same: kernels then have the choice of larger blocks. Returns how many
 * there are.
 */
static int64_t join_rows(fa_lists *l, int64_t groups, int64_t rows)
{
    for (; rows > 1 && l->block_rows <= FA_MAX_LENGTH / 2 && pairs_agree(l, groups, rows);
         rows = (rows + 1) / 2) {
        for (int64_t g = 0; g < groups; g++) {
            for (int64_t r = 0; r < (rows + 1) / 2; r++)
                memmove(list_at(l, g * ((rows + 1) / 2) + r), list_at(l, g * rows + 2 * r),
                        (size_t)l->words * 4);
        }
        l->block_rows *= 2;
    }
    return rows;
}

/* Whether the bits of each pair of blocks of keys agree; of the last, where their number is odd, there is one alone. */
static bool keys_agree(const fa_lists *l, int64_t lists, int64_t keys)
{
    for (int64_t i = 0; i < lists * l->words; i++) {
        const uint32_t word = l->bits[i];
        uint32_t differ = (word ^ word >> 1) & 0x55555555u;
        if (keys % 2 && i % l->words == (keys - 1) / 32)
            differ &= ~(1u << (keys - 1) % 32);
        if (differ)
            return false;
    }
    return true;
}

/* Every other bit, from the lowest on, side by side. */
static uint32_t even_bits(uint32_t x)
{
    x &= 0x55555555u;
    x = (x | x >> 1) & 0x33333333u;
    x = (x | x >> 2) & 0x0f0f0f0fu;
    x = (x | x >> 4) & 0x00ff00ffu;
    return (x | x >> 8) & 0xffffu;
}

/* Likewise, of keys. */
static void join_keys(fa_lists *l, int64_t lists, int64_t keys)
{
    for (; keys > 1 && l->block_keys <= FA_MAX_LENGTH / 2 && keys_agree(l, lists, keys);
         keys = (keys + 1) / 2) {
        const int32_t words = (int32_t)fa_ceil_div((keys + 1) / 2, 32);
        for (int64_t n = 0; n < lists; n++) {
            const uint32_t *from = list_at(l, n);
            uint32_t *to = l->bits + n * words;
            for (int32_t w = 0; w < words; w++) {
                const uint32_t high = 2 * w + 1 < l->words ? from[2 * w + 1] : 0;
                to[w] = even_bits(from[2 * w]) | even_bits(high) << 16;
            }
        }
        l->words = words;
        l->block_keys *= 2;
    }
}

static fa_status take(const fa_block_lists *g, int64_t lists, fa_lists *l)
{
    if (g->indptr)
        return take_rows(g, lists, l);
    take_mask(g, lists, l);
    return FA_OK;
}

/* Room for the bits of so many lists of so many words. */
static fa_status make_room(const fa_context *context, const fa_block_lists *g, int64_t *lists, fa_lists *l)
{
    const int64_t each = fa_ceil_div(g->key_blocks, 32);
    int64_t words = 0;
    if (!fa_mul_i64(g->sequences, g->heads, lists) || !fa_mul_i64(*lists, g->row_blocks, lists) ||
        !fa_mul_i64(*lists, each, &words) || words > INT32_MAX / 4)
        return fa_fail(
            FA_OUT_OF_MEMORY,
            "lists: %lld sequences, %lld heads and %lld row blocks of %lld key blocks are more than "
            "kernels count",
            (long long)g->sequences, (long long)g->heads, (long long)g->row_blocks, (long long)g->key_blocks);
    l->words = (int32_t)each;
    l->room = FA_MAX((size_t)words, 1);
    l->bits = fa_alloc_zeroed(context, l->room * sizeof(*l->bits));
    return l->bits ? FA_OK : FA_OUT_OF_MEMORY;
}

static fa_status init(const fa_context *context, fa_problem *p, const fa_block_lists *given)
{
    fa_block_lists g;
    fa_lists *l = &p->lists;
    int64_t lists = 0;
    FA_TRY(fa_copy_struct(&g, sizeof(g), FA_BLOCK_LISTS_0_1, given, "fa_block_lists"));
    FA_TRY(check_sizes(p, &g));
    if (p->heads_q == 0 || p->sequences == 0)
        return FA_OK;
    FA_TRY(make_room(context, &g, &lists, l));
    FA_TRY(take(&g, lists, l));
    l->block_rows = g.block_rows;
    l->block_keys = g.block_keys;
    l->sequences = g.sequences;
    l->given_heads = g.heads;
    l->row_blocks = g.row_blocks;
    l->key_blocks = g.key_blocks;
    l->index_count = (int32_t)g.index_count;
    int64_t rows = g.row_blocks;
    if (!p->dynamic) { /* else others may come */
        rows = join_rows(l, g.sequences * g.heads, rows);
        join_keys(l, g.sequences * g.heads * rows, g.key_blocks);
    }
    l->count = (size_t)(g.sequences * g.heads * rows * l->words);
    l->heads = p->heads_q / (int32_t)g.heads;
    l->head_stride = g.heads > 1 ? rows * l->words : 0;
    l->sequence_stride = g.sequences > 1 ? g.heads * rows * l->words : 0;
    p->features |= FA_FEATURE_LISTS;
    return FA_OK;
}

/* Those of the neighbourhood, which no run replaces. */
static fa_status init_near(const fa_context *context, fa_problem *p)
{
    const int64_t keys = p->dynamic ? fa_problem_most_keys(p) : p->max_key;
    fa_block_mask *mask = NULL;
    FA_TRY(fa_grid_lists(context, &p->near.grid, FA_MAX(keys, p->near.grid.tokens), 0, 0, &mask));
    fa_block_lists made = mask->lists;
    const fa_status status = init(context, p, &made);
    fa_block_mask_destroy(mask);
    return status;
}

fa_status fa_lists_init(const fa_context *context, fa_problem *p, const fa_block_lists *given)
{
    p->lists.given = given != NULL;
    if (given)
        return init(context, p, given);
    return p->near.words ? init_near(context, p) : FA_OK;
}

static fa_status check_same(const char *field, int64_t found, int64_t expected)
{
    return found == expected
               ? FA_OK
               : fa_fail(FA_INVALID, "lists->%s is %lld, expected %lld as in the plan's description", field,
                         (long long)found, (long long)expected);
}

fa_status fa_lists_replace(fa_lists *l, const fa_block_lists *given, uint32_t *room)
{
    fa_block_lists g;
    fa_lists made = *l;
    if (!l->given)
        return fa_fail(FA_INVALID, "lists is given, expected NULL: the plan's description has none");
    FA_TRY(fa_copy_struct(&g, sizeof(g), FA_BLOCK_LISTS_0_1, given, "fa_block_lists"));
    if (!l->bits) /* there are no rows, whatever it says */
        return FA_OK;
    FA_TRY(check_same("block_rows", g.block_rows, l->block_rows));
    FA_TRY(check_same("block_keys", g.block_keys, l->block_keys));
    FA_TRY(check_same("sequences", g.sequences, l->sequences));
    FA_TRY(check_same("heads", g.heads, l->given_heads));
    FA_TRY(check_same("row_blocks", g.row_blocks, l->row_blocks));
    FA_TRY(check_same("key_blocks", g.key_blocks, l->key_blocks));
    FA_TRY(check_forms(&g, false));
    made.bits = room;
    memset(room, 0, l->count * sizeof(*room));
    FA_TRY(take(&g, g.sequences * g.heads * g.row_blocks, &made));
    *l = made;
    return FA_OK;
}

bool fa_lists_planned(const fa_problem *p)
{
    return p->lists.bits && !p->on_device;
}

void fa_lists_release(const fa_context *context, fa_lists *lists)
{
    fa_release(context, lists->bits, lists->room * sizeof(*lists->bits));
    *lists = (fa_lists){0};
}
