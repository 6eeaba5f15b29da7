/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/near.h"

#include "core/attention/checks.h"
#include "core/attention/problem.h"
#include "core/context.h"
#include "core/size.h"

enum { MOST_TOKENS = 1 << 26 }; /* so that a word has room for the fields of three axes */

/* Where a token is and what it sees, in words, of some of the axes. */
typedef struct fields {
    uint32_t at, begin, end;
} fields;

/* Of each axis: the lowest bit of its field. Returns all guards. An axis of one token has no field. */
static uint32_t place_fields(const fa_grid *g, int shift[FA_AXES])
{
    uint32_t guards = 0;
    int next = 0;
    for (int n = FA_AXES - 1; n >= 0; n--) {
        shift[n] = next;
        while (g->axis[n].size - 1 >= 1 << (next - shift[n]))
            next++;
        if (g->axis[n].size > 1)
            guards |= (uint32_t)1 << next++;
    }
    return guards;
}

/* `of` with the field of axis n, where a token of the group has number i. Groups follow each other. */
static fields with_axis(fields of, const fa_grid *g, const fa_place *place, int n, int i, int shift)
{
    const fa_axis *a = &g->axis[n];
    const int before = fa_axis_before(a, place->group[n]);
    const int end = fa_axis_end(a, place->length[n], i) - 1;
    of.at |= (uint32_t)(before + i) << shift;
    of.begin |= (uint32_t)(before + fa_axis_begin(a, place->length[n], i)) << shift;
    of.end |= (uint32_t)(before + end) << shift;
    return of;
}

/* The words of the tokens of a patch, of which `first` is the first, from `to` on. */
static void write_patch(const fa_near *near, const int shift[FA_AXES], const fa_place *first,
                        const int last[FA_AXES], uint32_t *to)
{
    const fa_grid *g = &near->grid;
    for (int x = first->at[0]; x <= last[0]; x++) {
        const fields of_x = with_axis((fields){0, 0, 0}, g, first, 0, x, shift[0]);
        for (int y = first->at[1]; y <= last[1]; y++) {
            const fields of_y = with_axis(of_x, g, first, 1, y, shift[1]);
            for (int z = first->at[2]; z <= last[2]; z++, to++) {
                const fields f = with_axis(of_y, g, first, 2, z, shift[2]);
                to[0] = f.at;
                to[g->tokens] = f.begin;
                to[2 * (int64_t)g->tokens] = f.end;
            }
        }
    }
}

/* The lowest number of each field, or the highest, of `count` words. */
static uint32_t bound(uint32_t guards, const uint32_t *word, int64_t count, bool highest)
{
    uint32_t bounds = 0;
    for (uint32_t rest = guards, low = 1, guard; rest; rest &= rest - 1, low = guard << 1) {
        guard = rest & (0u - rest);
        const uint32_t field = guard - low;
        uint32_t found = word[0] & field;
        for (int64_t i = 1; i < count; i++) {
            const uint32_t number = word[i] & field;
            found = highest ? FA_MAX(found, number) : FA_MIN(found, number);
        }
        bounds |= found;
    }
    return bounds;
}

static void write_boxes(const fa_near *near)
{
    const int64_t tokens = near->grid.tokens;
    uint32_t *box = near->words + 3 * tokens;
    for (int64_t p = 0; p < tokens; p += FA_NEAR_BLOCK, box += 4) {
        const int64_t count = FA_MIN(tokens - p, FA_NEAR_BLOCK);
        box[0] = bound(near->guards, near->words + p, count, false);
        box[1] = bound(near->guards, near->words + p, count, true);
        box[2] = bound(near->guards, near->words + tokens + p, count, true);
        box[3] = bound(near->guards, near->words + 2 * tokens + p, count, false);
    }
}

/* A row for each token, and a key for each or more; fewer where each sequence has its length. */
static fa_status check_lengths(const fa_problem *p, const fa_grid *g)
{
    const bool ragged = p->features & FA_FEATURE_SEQUENCES;
    const int64_t rows = p->dynamic ? fa_problem_most_rows(p) : p->max_len_q;
    const int64_t keys = p->dynamic ? fa_problem_most_keys(p) : p->max_key;
    if (rows > g->tokens || (!ragged && p->sequences > 0 && (rows < g->tokens || keys < g->tokens)))
        return fa_fail(FA_INVALID,
                       "neighbourhood->size: the grid has %d tokens, a sequence %lld rows and %lld keys, "
                       "expected %s rows%s",
                       g->tokens, (long long)rows, (long long)keys, ragged ? "at most as many" : "as many",
                       ragged ? "" : " and at least as many keys");
    return FA_OK;
}

fa_status fa_near_init(const fa_context *context, fa_problem *p, const fa_neighbourhood *given)
{
    fa_near *near = &p->near;
    int shift[FA_AXES];
    if (!given)
        return FA_OK;
    FA_TRY(fa_grid_read(given, &near->grid));
    FA_TRY(check_lengths(p, &near->grid));
    if (near->grid.tokens > MOST_TOKENS)
        return fa_fail(FA_OUT_OF_MEMORY, "neighbourhood->size: the grid has %d tokens, kernels count %d",
                       near->grid.tokens, MOST_TOKENS);
    if (p->heads_q == 0 || p->sequences == 0)
        return FA_OK;
    const int64_t tokens = near->grid.tokens;
    near->count = (size_t)(3 * tokens + 4 * fa_ceil_div(tokens, FA_NEAR_BLOCK));
    near->words = fa_alloc(context, near->count * sizeof(*near->words));
    if (!near->words)
        return FA_OUT_OF_MEMORY;
    near->guards = place_fields(&near->grid, shift);
    for (int64_t n = 0; n < tokens;) {
        fa_place first;
        int last[FA_AXES];
        const int64_t next = fa_grid_patch(&near->grid, n, &first, last);
        write_patch(near, shift, &first, last, near->words + n);
        n = next;
    }
    write_boxes(near);
    p->features |= FA_FEATURE_NEIGHBOURHOOD;
    return FA_OK;
}

void fa_near_release(const fa_context *context, fa_near *near)
{
    fa_release(context, near->words, near->count * sizeof(*near->words));
    *near = (fa_near){.words = NULL};
}

/* What an axis sees of itself. That of a grid is the product. */
static uint64_t axis_pairs(const fa_axis *a)
{
    uint64_t pairs = 0;
    for (int group = 0; group < a->dilation; group++) {
        const int length = fa_axis_length(a, group);
        for (int i = 0; i < length; i++)
            pairs += (uint64_t)(fa_axis_end(a, length, i) - fa_axis_begin(a, length, i));
    }
    return pairs;
}

uint64_t fa_near_pairs(const fa_near *near)
{
    uint64_t pairs = 1;
    for (int n = 0; n < FA_AXES; n++)
        pairs *= axis_pairs(&near->grid.axis[n]);
    return pairs;
}
