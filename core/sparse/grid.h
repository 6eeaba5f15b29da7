/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A grid of tokens in the order of neighbourhoods, and what a token of it sees. An axis of dilation d falls into d groups, in each of
 * which tokens are numbered anew.
 */
#ifndef FA_CORE_SPARSE_GRID_H
#define FA_CORE_SPARSE_GRID_H

#include <fastattn/sparse.h>
#include <stdbool.h>

#include "core/portable/lang.h"

enum { FA_AXES = 3 };

typedef struct fa_axis {
    int size, kernel, stride, dilation, tile;
    bool causal;
} fa_axis;

/* Fewer than three axes are the last ones: those before have size, kernel and tile 1. */
typedef struct fa_grid {
    fa_axis axis[FA_AXES];
    int tokens;
} fa_grid;

/* Where a token is: on each axis its group, the length of that, and its number there. */
typedef struct fa_place {
    int group[FA_AXES], length[FA_AXES], at[FA_AXES];
} fa_place;

/* Reads what a caller gave. Errors name its fields as those of `neighbourhood`. */
fa_status fa_grid_read(const fa_neighbourhood *given, fa_grid *grid);

/* The lists of a neighbourhood over so many keys, in blocks of so many rows and keys; 0: what the header has. */
fa_status fa_grid_lists(const fa_context *context, const fa_grid *grid, int64_t keys, int32_t block_rows,
                        int32_t block_keys, fa_block_mask **mask);

static inline int fa_axis_length(const fa_axis *a, int group)
{
    return (a->size - group + a->dilation - 1) / a->dilation;
}

/* Tokens of an axis in groups before this one; and the group of token n, counted like that. */
static inline int fa_axis_before(const fa_axis *a, int group)
{
    return group * (a->size / a->dilation) + FA_MIN(group, a->size % a->dilation);
}

static inline int fa_axis_group(const fa_axis *a, int n)
{
    const int shorter = a->size / a->dilation, longer = a->size % a->dilation * (shorter + 1);
    return n < longer ? n / (shorter + 1) : a->size % a->dilation + (n - longer) / shorter;
}

/* Token i of a group of `length` sees tokens [begin, end) of it. Neither ever decreases with i, and no token is left out between. */
static inline int fa_axis_begin(const fa_axis *a, int length, int i)
{
    const int first = i / a->stride * a->stride;
    if (a->causal)
        return FA_MAX(FA_MIN(first + a->stride - 1, length - 1) - a->kernel + 1, 0);
    return FA_MIN(FA_MAX(FA_MIN(first + a->stride / 2, length - 1) - a->kernel / 2, 0), length - a->kernel);
}

static inline int fa_axis_end(const fa_axis *a, int length, int i)
{
    return a->causal ? i + 1 : fa_axis_begin(a, length, i) + a->kernel;
}

/* The token at number p of the order. */
static inline fa_place fa_grid_find(const fa_grid *g, int p)
{
    fa_place place;
    int area = g->tokens, extent[FA_AXES];
    for (int n = 0; n < FA_AXES; n++) {
        const fa_axis *a = &g->axis[n];
        area /= a->size; /* of the axes that follow, and of this group on those before */
        place.group[n] = fa_axis_group(a, p / area);
        place.length[n] = fa_axis_length(a, place.group[n]);
        p -= fa_axis_before(a, place.group[n]) * area;
        area *= place.length[n];
    }
    for (int n = 0; n < FA_AXES; n++) {
        const int tile = g->axis[n].tile;
        area /= place.length[n]; /* of the axes that follow, and of this patch on those before */
        place.at[n] = p / (tile * area) * tile;
        p -= place.at[n] * area;
        extent[n] = FA_MIN(tile, place.length[n] - place.at[n]);
        area *= extent[n];
    }
    for (int n = FA_AXES - 1; n >= 0; n--) {
        place.at[n] += p % extent[n];
        p /= extent[n];
    }
    return place;
}

/* The number in the order. */
static inline int fa_grid_number(const fa_grid *g, const fa_place *place)
{
    int p = 0, within = 0, area = g->tokens;
    for (int n = 0; n < FA_AXES; n++) {
        area = area / g->axis[n].size;
        p += fa_axis_before(&g->axis[n], place->group[n]) * area;
        area *= place->length[n];
    }
    for (int n = 0; n < FA_AXES; n++) {
        const int tile = g->axis[n].tile, first = place->at[n] / tile * tile;
        const int extent = FA_MIN(tile, place->length[n] - first);
        area /= place->length[n];
        p += first * area;
        area *= extent;
        within = within * extent + place->at[n] - first;
    }
    return p + within;
}

/* The patch in which token p is; its last token. Returns the number of the token that follows. */
static inline int64_t fa_grid_patch(const fa_grid *g, int64_t p, fa_place *first, int last[FA_AXES])
{
    *first = fa_grid_find(g, (int)p);
    fa_place end = *first;
    for (int n = 0; n < FA_AXES; n++) {
        const int tile = g->axis[n].tile;
        first->at[n] = first->at[n] / tile * tile;
        end.at[n] = last[n] = FA_MIN(first->at[n] + tile, first->length[n]) - 1;
    }
    return fa_grid_number(g, &end) + 1;
}

/* Whether a row sees a key, both by their numbers. Keys behind the grid's are seen by all. */
static inline bool fa_grid_shows(const fa_grid *g, int row, int key)
{
    bool shows = true;
    if (key >= g->tokens)
        return true;
    const fa_place from = fa_grid_find(g, row), to = fa_grid_find(g, key);
    for (int n = 0; n < FA_AXES; n++)
        shows = shows && from.group[n] == to.group[n] &&
                to.at[n] >= fa_axis_begin(&g->axis[n], from.length[n], from.at[n]) &&
                to.at[n] < fa_axis_end(&g->axis[n], from.length[n], from.at[n]);
    return shows;
}

#endif
