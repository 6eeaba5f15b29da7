/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of the suite. Small on purpose: what matters is where the edges are, not how much there is. */
#include "tools/conform/cases.h"

static bool add_dims(conform_list *list)
{
    static const int32_t dims[][2] = {
        {1, 1},     {2, 2},     {3, 3},     {8, 8},     {16, 16},   {17, 17},   {32, 32},   {40, 40},
        {64, 64},   {72, 72},   {80, 80},   {96, 96},   {112, 112}, {128, 128}, {192, 192}, {256, 256},
        {512, 512}, {576, 576}, {192, 128}, {576, 512}, {64, 1},    {1, 64},    {40, 72},   {129, 127},
    };
    bool ok = true;
    for (size_t i = 0; i < COUNT(dims); i++) {
        for (size_t t = 0; t < COUNT(float_types); t++) {
            conform_case c = basic;
            set_types(&c, float_types[t]);
            set_lengths(&c, 19, 37);
            set_dims(&c, dims[i][0], dims[i][1]);
            c.mask = t == 1 ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
            ok = ok && conform_add(list, &c, t == 1 ? "dims-causal-br" : "dims");
        }
    }
    return ok;
}

static bool add_edges(conform_list *list)
{
    static const conform_length edges[] = {{CONFORM_TILE, -1},  {CONFORM_TILE, 0},  {CONFORM_TILE, 1},
                                           {CONFORM_BLOCK, -1}, {CONFORM_BLOCK, 0}, {CONFORM_BLOCK, 1}};
    bool ok = true;
    conform_case c = basic;
    c.blocks = CONFORM_BLOCKS_TWO_TILES;
    for (size_t i = 0; i < COUNT(edges) * COUNT(edges); i++) {
        size_t row = i / COUNT(edges), column = i % COUNT(edges);
        c.len_q = edges[row];
        c.len_kv = edges[column];
        c.mask = FA_MASK_NONE;
        set_types(&c, FA_F32);
        set_heads(&c, 1, 1, 1);
        set_dims(&c, 24, 24);
        ok = ok && conform_add(list, &c, "edge");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "edge-causal-br");
        if ((row + column) % COUNT(edges) != 5)
            continue;
        set_types(&c, row % 2 ? FA_F16 : FA_BF16);
        set_heads(&c, 1, 4, 2);
        set_dims(&c, 40, 40);
        ok = ok && conform_add(list, &c, "edge-causal-br");
    }
    c = basic;
    c.blocks = CONFORM_BLOCKS_LONG;
    set_heads(&c, 1, 1, 1);
    for (int32_t off = -1; off <= 1; off++) {
        c.len_q = (conform_length){CONFORM_BLOCK, off};
        c.len_kv = (conform_length){CONFORM_FIXED, 9};
        ok = ok && conform_add(list, &c, "edge-long");
        c.len_q = (conform_length){CONFORM_FIXED, 3};
        c.len_kv = (conform_length){CONFORM_BLOCK, off};
        ok = ok && conform_add(list, &c, "edge-long");
    }
    return ok;
}

/* A driver may end loops after a number of turns, and counters of 16 bits end too. */
static bool add_long(conform_list *list)
{
    conform_case c = basic;
    bool ok = true;
    set_heads(&c, 1, 1, 1);
    set_dims(&c, 4, 4);
    set_lengths(&c, 2, 1000003);
    ok = ok && conform_add(list, &c, "long");
    set_types(&c, FA_F16);
    c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    c.window_left = 150000;
    c.prefix = 70001;
    set_lengths(&c, 2, 300007);
    ok = ok && conform_add(list, &c, "long-causal-br-window-l150000-prefix70001");
    c.window_left = c.prefix = 0;
    c.packing = CONFORM_PACK_BOTH;
    set_heads(&c, 2, 2, 1);
    set_lengths(&c, 2, 200003);
    ok = ok && conform_add(list, &c, "long-causal-br");
    return ok;
}

static bool add_lengths(conform_list *list)
{
    static const int32_t lengths[][2] = {{0, 5},   {5, 0},   {1, 1},     {1, 2},   {2, 1},
                                         {3, 5},   {7, 11},  {13, 97},   {97, 13}, {101, 103},
                                         {1, 251}, {251, 1}, {127, 129}, {64, 64}};
    static const struct {
        const char *label;
        fa_mask_kind mask;
    } masks[] = {{"lengths", FA_MASK_NONE},
                 {"lengths-causal-tl", FA_MASK_CAUSAL_TOP_LEFT},
                 {"lengths-causal-br", FA_MASK_CAUSAL_BOTTOM_RIGHT}};
    bool ok = true;
    for (size_t i = 0; i < COUNT(lengths) * COUNT(masks); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % COUNT(float_types)]);
        set_lengths(&c, lengths[i / COUNT(masks)][0], lengths[i / COUNT(masks)][1]);
        c.mask = masks[i % COUNT(masks)].mask;
        ok = ok && conform_add(list, &c, "%s", masks[i % COUNT(masks)].label);
    }
    return ok;
}

static bool add_heads(conform_list *list)
{
    static const int32_t heads[][2] = {{1, 1}, {4, 4}, {4, 2}, {6, 2}, {8, 1}, {5, 1}, {7, 7}, {12, 3}};
    bool ok = true;
    for (size_t i = 0; i < COUNT(heads); i++) {
        conform_case c = basic;
        set_types(&c, i % 2 ? FA_F32 : FA_F16);
        set_heads(&c, 2, heads[i][0], heads[i][1]);
        set_dims(&c, 40, 40);
        ok = ok && conform_add(list, &c, "heads");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        set_lengths(&c, 17, 64);
        ok = ok && conform_add(list, &c, "causal-br");
    }
    return ok;
}

static bool add_types(conform_list *list)
{
    static const fa_dtype mixes[][4] = {
        {FA_F32, FA_F16, FA_F16, FA_F32},  {FA_F16, FA_F32, FA_F32, FA_F16},
        {FA_BF16, FA_F16, FA_F16, FA_F32}, {FA_F32, FA_BF16, FA_F16, FA_BF16},
        {FA_F16, FA_F16, FA_F16, FA_F32},  {FA_BF16, FA_BF16, FA_BF16, FA_F32},
        {FA_F32, FA_F32, FA_F32, FA_F16},  {FA_F32, FA_F32, FA_F32, FA_BF16},
        {FA_F16, FA_BF16, FA_F32, FA_F16},
    };
    bool ok = true;
    for (size_t i = 0; i < COUNT(mixes); i++) {
        conform_case c = basic;
        c.q = mixes[i][0];
        c.k = mixes[i][1];
        c.v = mixes[i][2];
        c.o = mixes[i][3];
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.dim_qk = c.dim_v = 40;
        ok = ok && conform_add(list, &c, "types-causal-br");
    }
    return ok;
}

static bool add_layouts(conform_list *list)
{
    bool ok = true;
    for (int layout = CONFORM_BSHD; layout < CONFORM_LAYOUTS; layout++) {
        for (size_t t = 0; t < COUNT(float_types); t++) {
            conform_case c = basic;
            set_types(&c, float_types[t]);
            set_heads(&c, 2, 4, 2);
            set_lengths(&c, 31, layout == CONFORM_PACKED ? 31 : 53);
            set_dims(&c, 37, layout == CONFORM_SHARED ? 29 : 37);
            c.layout = (conform_layout)layout;
            ok = ok && conform_add(list, &c, "layout");
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            c.bias_axes = c.keep_axes = 12;
            ok = ok && conform_add(list, &c, "layout-causal-br-bias-keep");
        }
    }
    conform_case c = basic;
    set_heads(&c, 1, 8, 1);
    set_lengths(&c, 3, 70);
    set_dims(&c, 576, 512);
    c.layout = CONFORM_SHARED;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        set_types(&c, float_types[t]);
        ok = ok && conform_add(list, &c, "latent");
    }
    return ok;
}

static bool add_blocks(conform_list *list)
{
    static const int32_t splits[] = {2, 3, 7};
    static const int32_t blocks[][2] = {{5, 7}, {1, 1}, {33, 65}, {1000, 3}, {3, 200}, {15, 31}};
    bool ok = true;
    for (size_t i = 0; i < COUNT(splits); i++) {
        conform_case c = basic;
        c.splits = splits[i];
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        for (size_t t = 0; t < COUNT(float_types); t++) {
            set_types(&c, float_types[t]);
            set_heads(&c, 1, 4, 2);
            set_lengths(&c, 1, 333);
            ok = ok && conform_add(list, &c, "splits%d", splits[i]);
            set_lengths(&c, 37, 250);
            ok = ok && conform_add(list, &c, "splits%d", splits[i]);
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            c.sinks = t == 1;
            ok = ok && conform_add(list, &c, "splits%d-causal-br%s", splits[i], t == 1 ? "-sinks" : "");
            set_lengths(&c, 130, 120); /* the first rows see no key */
            ok = ok && conform_add(list, &c, "splits%d-causal-br%s", splits[i], t == 1 ? "-sinks" : "");
            c.mask = FA_MASK_NONE;
            c.sinks = false;
        }
        set_heads(&c, 3, 2, 1);
        set_lengths(&c, 5, 210);
        c.packing = CONFORM_LENS;
        ok = ok && conform_add(list, &c, "splits%d", splits[i]);
    }
    for (size_t i = 0; i < COUNT(blocks); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % COUNT(float_types)]);
        c.blocks = CONFORM_BLOCKS_NUMBERS;
        c.block_q = blocks[i][0];
        c.block_kv = blocks[i][1];
        set_lengths(&c, 77, 83);
        ok = ok && conform_add(list, &c, "blocks-%d-%d", c.block_q, c.block_kv);
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "blocks-%d-%d-causal-br", c.block_q, c.block_kv);
    }
    return ok;
}

static bool add_threads_and_merges(conform_list *list)
{
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 2, 4, 2);
        set_lengths(&c, 60, 100);
        c.test = CONFORM_THREADS;
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        ok = ok && conform_add(list, &c, "threads");
        c.splits = 3;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "threads-splits3-causal-br");
        c.splits = 0;
        c.test = CONFORM_MERGE;
        ok = ok && conform_add(list, &c, "merge-causal-br");
        c.mask = FA_MASK_CAUSAL_TOP_LEFT;
        c.layout = CONFORM_VIEW;
        ok = ok && conform_add(list, &c, "merge-causal-tl");
        c.mask = FA_MASK_NONE;
        ok = ok && conform_add(list, &c, "merge");
        c.layout = CONFORM_BSHD;
        c.sinks = true;
        ok = ok && conform_add(list, &c, "merge-sinks");
        c.alibi = true;
        c.window_left = 40;
        c.window_right = 15;
        c.prefix = 44;
        ok = ok && conform_add(list, &c, "merge-alibi-window-l40-r15-prefix44-sinks");
        c.bias_axes = 14;
        c.keep_axes = 12;
        ok = ok && conform_add(list, &c, "merge-alibi-window-l40-r15-prefix44-sinks-bias-keep");
        c.alignment = FA_ALIGN_TOP_LEFT;
        c.repeats = 8;
        ok = ok && conform_add(list, &c, "merge-align-tl-alibi-window-l40-r15-bias-keep");
    }
    return ok;
}

static bool add_empty(conform_list *list)
{
    conform_case c = basic;
    set_heads(&c, 0, 2, 1);
    bool ok = conform_add(list, &c, "empty");
    c.packing = CONFORM_PACK_BOTH;
    ok = ok && conform_add(list, &c, "empty");
    c = basic;
    set_heads(&c, 2, 0, 0);
    ok = ok && conform_add(list, &c, "empty");
    c = basic;
    set_lengths(&c, 0, 0);
    ok = ok && conform_add(list, &c, "empty");
    set_lengths(&c, 9, 0);
    c.sinks = true;
    ok = ok && conform_add(list, &c, "empty-sinks");
    set_heads(&c, 3, 2, 1);
    set_lengths(&c, 9, 20);
    c.packing = CONFORM_LENS;
    c.splits = 3;
    return ok && conform_add(list, &c, "empty-sinks-splits3");
}

bool conform_list_make(uint64_t seed, conform_list *list)
{
    enum { RANDOM_CASES = 200 };
    *list = (conform_list){0};
    bool ok = add_dims(list) && add_edges(list) && add_long(list) && add_lengths(list) && add_heads(list) &&
              add_types(list) && add_layouts(list) && conform_add_masks(list) && conform_add_lists(list) &&
              conform_add_near(list) && conform_add_planners(list) && conform_add_caches(list) &&
              conform_add_formats(list) && conform_add_scores(list) && conform_add_hazards(list) &&
              add_blocks(list) && add_threads_and_merges(list) && add_empty(list);
    for (int i = 0; ok && i < RANDOM_CASES; i++) {
        conform_case c = basic;
        conform_draw(seed, i, &c);
        ok = conform_append(list, &c);
    }
    if (!ok)
        conform_list_free(list);
    return ok;
}
