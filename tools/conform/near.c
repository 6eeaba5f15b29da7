/* SPDX-License-Identifier: Apache-2.0 */
/* Neighbourhoods: their cases, and what they show, from the public header alone. */
#include <stdlib.h>

#include "tools/conform/cases.h"

/* A grid with all three axes and no defaults. */
typedef struct grid {
    int size[3], kernel[3], stride[3], dilation[3], tile[3];
    bool causal[3];
} grid;

static grid grid_of(const fa_neighbourhood *given)
{
    static const int tiles[] = {64, 8, 4};
    grid g;
    for (int n = 0; n < 3; n++) {
        const bool is = n < given->axes;
        g.size[n] = is ? given->size[n] : 1;
        g.kernel[n] = is ? given->kernel[n] : 1;
        g.stride[n] = is && given->stride[n] ? given->stride[n] : 1;
        g.dilation[n] = is && given->dilation[n] ? given->dilation[n] : 1;
        g.tile[n] = !is ? 1 : given->tile[n] ? given->tile[n] : tiles[given->axes - 1];
        g.causal[n] = is && given->causal[n];
    }
    return g;
}

static int grid_tokens(const fa_neighbourhood *given)
{
    const grid g = grid_of(given);
    return g.size[0] * g.size[1] * g.size[2];
}

/* Counts through groups, patches and places within patches, and keeps the tokens that there are. */
static void put_in_order(const grid *g, int32_t (*at)[3])
{
    int turns[9], digit[9] = {0}, place = 8, count = 0;
    for (int n = 0; n < 3; n++) {
        turns[n] = g->dilation[n];
        turns[3 + n] = g->size[n] / g->tile[n] + 1;
        turns[6 + n] = g->tile[n];
    }
    while (place >= 0) {
        bool exists = true;
        for (int n = 0; n < 3; n++) {
            at[count][n] = (digit[3 + n] * g->tile[n] + digit[6 + n]) * g->dilation[n] + digit[n];
            exists = exists && at[count][n] < g->size[n];
        }
        count += exists;
        for (place = 8; place >= 0 && ++digit[place] == turns[place]; place--)
            digit[place] = 0;
    }
}

bool conform_make_near(const conform_case *c, conform_data *data)
{
    if (c->near.axes == 0)
        return true;
    const grid g = grid_of(&c->near);
    data->near = c->near;
    data->near.struct_size = sizeof(data->near);
    data->near_tokens = grid_tokens(&c->near);
    data->near_at = malloc((size_t)(data->near_tokens + 1) * sizeof(*data->near_at));
    if (!data->near_at)
        return false;
    put_in_order(&g, data->near_at);
    data->desc.neighbourhood = &data->near;
    return true;
}

/* NATTEN's window of token i of an axis, by its own numbers. */
static bool axis_shows(const grid *g, int n, int i, int j)
{
    const int d = g->dilation[n], s = g->stride[n], length = (g->size[n] - i % d + d - 1) / d;
    const int left = g->kernel[n] / 2, right = left + g->kernel[n] % 2 - 1, at = i / d, key = j / d;
    const int leader = at / s * s + (g->causal[n] ? s - 1 : s / 2);
    const int held = leader < length ? leader : length - 1;
    int begin = held - left, end = held + right + 1;
    if (i % d != j % d)
        return false;
    if (g->causal[n])
        return key <= at && key >= held - left - right;
    if (end > length) {
        begin -= end - length;
        end = length;
    }
    if (begin < 0) {
        end -= begin;
        begin = 0;
    }
    return key >= begin && key < end;
}

bool conform_near_shows(const conform_data *data, int64_t row, int64_t key)
{
    const grid g = grid_of(&data->near);
    bool shows = true;
    for (int n = 0; n < 3 && key < data->near_tokens; n++)
        shows = shows && axis_shows(&g, n, data->near_at[row][n], data->near_at[key][n]);
    return shows;
}

/* Small dims, and as many rows as tokens. */
static conform_case case_of(size_t type, fa_neighbourhood near, int32_t extra_keys)
{
    const int32_t tokens = grid_tokens(&near);
    conform_case c = basic;
    set_types(&c, float_types[type % COUNT(float_types)]);
    set_heads(&c, 1, 4, 2);
    set_dims(&c, 16, 16);
    set_lengths(&c, tokens, tokens + extra_keys);
    c.near = near;
    return c;
}

typedef struct named_grid {
    const char *name;
    fa_neighbourhood near;
    int32_t extra_keys;
} named_grid;

static const named_grid grids[] = {
    {"1d", {.axes = 1, .size = {141}, .kernel = {13}}, 0},
    {"1d-whole", {.axes = 1, .size = {150}, .kernel = {150}}, 0},
    {"1d-long", {.axes = 1, .size = {333}, .kernel = {199}}, 0},
    {"1d-tile16-stride4", {.axes = 1, .size = {131}, .kernel = {22}, .stride = {4}, .tile = {16}}, 0},
    {"1d-dilation3-extra", {.axes = 1, .size = {100}, .kernel = {7}, .dilation = {3}}, 33},
    {"1d-causal-dilation2", {.axes = 1, .size = {97}, .kernel = {9}, .dilation = {2}, .causal = {1}}, 0},
    {"1d-causal-stride5-extra", {.axes = 1, .size = {81}, .kernel = {10}, .stride = {5}, .causal = {1}}, 7},
    {"2d", {.axes = 2, .size = {11, 13}, .kernel = {5, 3}}, 0},
    {"2d-blocks", {.axes = 2, .size = {24, 16}, .kernel = {8, 8}, .stride = {8, 8}}, 0},
    {"2d-rows", {.axes = 2, .size = {9, 17}, .kernel = {3, 6}, .tile = {1, 17}}, 0},
    {"2d-tile3x5-stride",
     {.axes = 2, .size = {13, 11}, .kernel = {6, 7}, .stride = {2, 3}, .tile = {3, 5}},
     0},
    {"2d-dilation-causal-extra",
     {.axes = 2, .size = {15, 9}, .kernel = {3, 4}, .dilation = {4, 2}, .causal = {0, 1}},
     20},
    {"2d-causal-both",
     {.axes = 2, .size = {10, 12}, .kernel = {4, 5}, .stride = {2, 1}, .causal = {1, 1}},
     1},
    {"2d-line", {.axes = 2, .size = {1, 90}, .kernel = {1, 11}}, 0},
    {"3d", {.axes = 3, .size = {5, 7, 6}, .kernel = {3, 3, 3}}, 0},
    {"3d-stride-extra", {.axes = 3, .size = {5, 5, 9}, .kernel = {2, 5, 4}, .stride = {2, 1, 3}}, 40},
    {"3d-dilation-causal",
     {.axes = 3,
      .size = {4, 7, 5},
      .kernel = {2, 3, 2},
      .dilation = {2, 1, 2},
      .causal = {1, 0, 1},
      .tile = {2, 2, 3}},
     0},
};

/* Each grid for each type, with a query head for each KV head and with more, as the planner has it and otherwise. */
static bool add_grids(conform_list *list)
{
    bool ok = true;
    for (size_t i = 0; i < COUNT(grids) * COUNT(float_types); i++) {
        const named_grid *g = &grids[i / COUNT(float_types)];
        conform_case c = case_of(i, g->near, g->extra_keys);
        ok = ok && conform_add(list, &c, "neighbour-%s", g->name);
        set_heads(&c, 2, 2, 2);
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        c.splits = i % 2 ? 3 : 0;
        ok = ok && conform_add(list, &c, "neighbour-%s-heads2%s", g->name, c.splits ? "-splits3" : "");
    }
    return ok;
}

/* Masks, terms of scores and given lists hold besides. */
static bool add_beside(conform_list *list)
{
    bool ok = true;
    for (size_t i = 0; i < 3 * COUNT(float_types); i++) {
        static const size_t of[] = {0, 7, 14};
        const named_grid *g = &grids[of[i / COUNT(float_types)]];
        conform_case c = case_of(i, g->near, g->extra_keys);
        c.mask = FA_MASK_CAUSAL_TOP_LEFT;
        c.prefix = 5;
        ok = ok && conform_add(list, &c, "neighbour-%s-causal-tl-prefix5", g->name);
        c.mask = FA_MASK_NONE;
        c.alibi = c.sinks = true;
        c.bias_axes = 15;
        ok = ok && conform_add(list, &c, "neighbour-%s-alibi-bias-sinks", g->name);
        c.keep_axes = 7;
        c.keep_bits = -1;
        c.keep_runs = true;
        c.bias_axes = CONFORM_NO_AXES;
        ok = ok && conform_add(list, &c, "neighbour-%s-alibi-keep-runs", g->name);
        c.keep_axes = CONFORM_NO_AXES;
        c.alibi = c.sinks = c.keep_runs = false;
        c.keep_bits = 0;
        c.list_rows = 24;
        c.list_keys = 16;
        c.list_part = 50;
        c.list_heads = CONFORM_LIST_HEADS_Q;
        ok = ok && conform_add(list, &c, "neighbour-%s-list-24x16", g->name);
    }
    return ok;
}

/* Lengths of each sequence, which may have fewer rows and keys, first keys, pages, formats. */
static bool add_sequences(conform_list *list)
{
    bool ok = true;
    for (int packing = CONFORM_PACK_BOTH; packing < CONFORM_PACKINGS; packing++) {
        const named_grid *g = &grids[packing % 2 ? 7 : 4];
        conform_case c = case_of((size_t)packing, g->near, g->extra_keys);
        c.batch = 3;
        c.packing = (conform_packing)packing;
        ok = ok && conform_add(list, &c, "neighbour-%s", g->name);
        c.first = true;
        ok = ok && conform_add(list, &c, "neighbour-%s-first", g->name);
        if (packing <= CONFORM_PACK_Q || packing == CONFORM_PACK_GAPS || packing == CONFORM_PACK_Q_LENS)
            continue; /* packed rows of other lengths may all be of one sequence */
        c.test = CONFORM_LENGTHS;
        ok = ok && conform_add(list, &c, "neighbour-%s-dynamic-first", g->name);
        c.test = CONFORM_DEVICE_LENGTHS;
        ok = ok && conform_add(list, &c, "neighbour-%s-lengths-device-first", g->name);
    }
    for (size_t i = 0; i < COUNT(float_types); i++) {
        conform_case c = case_of(i, grids[7].near, 0);
        set_heads(&c, 2, 2, 1);
        set_dims(&c, 32, 32);
        c.k = c.v = FA_Q8_0;
        ok = ok && conform_add(list, &c, "neighbour-2d");
        set_types(&c, float_types[i]);
        c.page = 16;
        c.packing = CONFORM_LENS;
        ok = ok && conform_add(list, &c, "neighbour-2d-pages16");
    }
    return ok;
}

bool conform_add_near(conform_list *list)
{
    bool ok = add_grids(list) && add_beside(list) && add_sequences(list);
    for (size_t i = 0; i < 2 * COUNT(float_types); i++) {
        const named_grid *g = &grids[i % 2 ? 8 : 15];
        conform_case c = case_of(i / 2, g->near, 0);
        c.mask = i % 2 ? FA_MASK_NONE : FA_MASK_CAUSAL_TOP_LEFT;
        c.hazard = i % 2 ? CONFORM_HIDDEN : CONFORM_HIDDEN_INF;
        ok = ok && conform_add(list, &c, "neighbour-%s-%s", conform_hazard_name(c.hazard), g->name);
    }
    return ok;
}
