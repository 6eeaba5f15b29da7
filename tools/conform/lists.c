/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of key blocks: their cases, and what they hold. */
#include <stdlib.h>
#include <string.h>

#include "tools/conform/cases.h"

/* The same lists in compressed rows, each from its last block to its first: the order means nothing. */
static void compress(conform_data *data, int64_t lists)
{
    const int64_t blocks = data->lists.key_blocks;
    int32_t count = 0;
    data->list_indptr[0] = 0;
    for (int64_t n = 0; n < lists; n++) {
        for (int64_t block = blocks - 1; block >= 0; block--) {
            if (data->list_mask[n * blocks + block])
                data->list_indices[count++] = (int32_t)block;
        }
        data->list_indptr[n + 1] = count;
    }
}

/* Below 100 percent, each fifth block of rows sees nothing, and each third block of keys is in no list. */
static void draw_blocks(const conform_case *c, conform_data *data, int64_t lists, conform_random *random)
{
    const fa_block_lists *l = &data->lists;
    for (int64_t at = 0; at < lists * l->key_blocks; at++) {
        const int64_t block = at % l->key_blocks, row = at / l->key_blocks % l->row_blocks;
        const bool none = c->list_part < 100 && (block % 3 == 1 || row % 5 == 3);
        const bool drawn = conform_random_below(random, 100) < (uint32_t)c->list_part;
        data->list_mask[at] = drawn && !none;
    }
}

/* The blocks of a planner's lists. */
static void copy_blocks(const fa_block_lists *from, conform_data *data, int64_t lists)
{
    memset(data->list_mask, 0, (size_t)(lists * from->key_blocks));
    for (int64_t n = 0; n < lists; n++) {
        for (int32_t i = from->indptr[n]; i < from->indptr[n + 1]; i++)
            data->list_mask[n * from->key_blocks + from->indices[i]] = 1;
    }
}

/* Heads that have lists of their own. */
static int64_t count_heads(const conform_case *c)
{
    return c->list_heads == CONFORM_LIST_SHARED    ? 1
           : c->list_heads == CONFORM_LIST_HEADS_Q ? c->heads_q
                                                   : c->heads_kv;
}

/* How many blocks the lists have, and whose they are. */
static fa_block_lists size_lists(const conform_case *c, const conform_sizes *sizes, const conform_data *data)
{
    const fa_attention_desc *d = &data->desc;
    const int64_t pages = d->page_table.shape[3];
    int64_t rows = sizes->len_q, keys = sizes->len_kv;
    if (d->dynamic_lengths > 0) { /* any sequence may be as long as the tensors */
        rows = d->q.shape[2];
        keys = d->k.shape[2] * (pages > 0 ? pages : 1);
    }
    return (fa_block_lists){
        .struct_size = sizeof(fa_block_lists),
        .block_rows = c->list_rows,
        .block_keys = c->list_keys,
        .sequences = c->list_each ? c->batch : 1,
        .heads = count_heads(c),
        .row_blocks = (rows + c->list_rows - 1) / c->list_rows,
        .key_blocks = (keys + c->list_keys - 1) / c->list_keys,
    };
}

/* `planned`: a planner's lists; NULL: they are drawn. False without memory. */
static bool fill_lists(const conform_case *c, const fa_block_lists *planned, conform_data *data,
                       conform_random *random)
{
    const int64_t lists = data->lists.sequences * data->lists.heads * data->lists.row_blocks;
    const size_t blocks = (size_t)(lists * data->lists.key_blocks);
    data->list_mask = malloc(blocks + 1);
    data->list_indptr = malloc(((size_t)lists + 1) * sizeof(int32_t));
    data->list_indices = malloc((blocks + 1) * sizeof(int32_t));
    if (!data->list_mask || !data->list_indptr || !data->list_indices)
        return false;
    if (planned)
        copy_blocks(planned, data, lists);
    else
        draw_blocks(c, data, lists, random);
    compress(data, lists);
    data->lists.mask = c->list_mask ? data->list_mask : NULL;
    data->lists.indptr = c->list_mask ? NULL : data->list_indptr;
    data->lists.indices = c->list_mask ? NULL : data->list_indices;
    data->desc.lists = &data->lists;
    return true;
}

static bool make_planned(const conform_case *c, const conform_sizes *sizes, conform_data *data)
{
    fa_context *context;
    fa_block_mask *mask = NULL;
    fa_block_lists lists = {.struct_size = sizeof(lists)};
    if (fa_context_create(NULL, &context) != FA_OK)
        return false;
    bool made = conform_plan(context, c, sizes, data, &mask) == FA_OK &&
                fa_block_mask_lists(mask, &lists) == FA_OK && lists.sequences == data->lists.sequences &&
                lists.heads == data->lists.heads && lists.row_blocks == data->lists.row_blocks &&
                lists.key_blocks == data->lists.key_blocks;
    made = made && fill_lists(c, &lists, data, NULL);
    fa_block_mask_destroy(mask);
    fa_context_destroy(context);
    return made;
}

bool conform_make_lists(const conform_case *c, const conform_sizes *sizes, conform_data *data,
                        conform_random *random)
{
    if (c->list_rows == 0)
        return true;
    data->lists = size_lists(c, sizes, data);
    return c->planner == CONFORM_PLAN_NONE ? fill_lists(c, NULL, data, random) : make_planned(c, sizes, data);
}

/* Small dims: what lists do to them is the same. */
static conform_case base_case(size_t type)
{
    conform_case c = basic;
    set_types(&c, float_types[type % COUNT(float_types)]);
    set_heads(&c, 1, 4, 2);
    set_dims(&c, 16, 16);
    return c;
}

static void set_lists(conform_case *c, int32_t rows, int32_t keys, int32_t part)
{
    c->list_rows = rows;
    c->list_keys = keys;
    c->list_part = part;
}

/* Blocks that divide those of kernels, or do not, and whose lists they are. */
static bool add_sizes(conform_list *list)
{
    static const int32_t sizes[][2] = {{16, 16}, {64, 64}, {128, 32}, {24, 100}, {1, 1}, {7, 5}};
    static const char *const heads[] = {"", "-kv-heads", "-q-heads"};
    bool ok = true;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const int32_t *size = sizes[i];
        conform_case c = base_case(i);
        set_lengths(&c, 141, 160);
        set_lists(&c, size[0], size[1], 40);
        for (size_t h = CONFORM_LIST_SHARED; h <= CONFORM_LIST_HEADS_Q; h++) {
            set_types(&c, float_types[(i + h) % COUNT(float_types)]);
            c.list_heads = (conform_list_heads)h;
            c.list_mask = (i + h) % 2;
            c.list_each = (i + h) % 3 == 1;
            c.batch = c.list_each ? 2 : 1;
            c.mask = h == 1 ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
            ok = ok && conform_add(list, &c, "list-%dx%d%s%s%s%s", size[0], size[1], heads[h],
                                   c.list_each ? "-each" : "", c.list_mask ? "-mask" : "",
                                   h == 1 ? "-causal-br" : "");
        }
        c.list_heads = CONFORM_LIST_HEADS_KV;
        set_lengths(&c, 1, 333);
        ok = ok && conform_add(list, &c, "list-%dx%d-kv-heads-decode", size[0], size[1]);
        c.splits = 3;
        set_types(&c, float_types[i % COUNT(float_types)]);
        ok = ok && conform_add(list, &c, "list-%dx%d-kv-heads-decode-splits3", size[0], size[1]);
    }
    return ok;
}

/* Nothing, little, nearly all and all of the keys. */
static bool add_parts(conform_list *list)
{
    static const int32_t parts[] = {0, 5, 99, 100};
    bool ok = true;
    for (size_t i = 0; i < COUNT(parts); i++) {
        conform_case c = base_case(i);
        set_lengths(&c, 100, 170);
        set_lists(&c, 32, 32, parts[i]);
        ok = ok && conform_add(list, &c, "list-part%d", parts[i]);
        c.sinks = true;
        c.splits = 3;
        c.list_heads = CONFORM_LIST_HEADS_Q;
        ok = ok && conform_add(list, &c, "list-part%d-q-heads-splits3-sinks", parts[i]);
        c.splits = 0;
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        c.mask = FA_MASK_CAUSAL_TOP_LEFT;
        c.list_mask = true;
        ok = ok && conform_add(list, &c, "list-part%d-q-heads-mask-causal-tl-sinks", parts[i]);
    }
    return ok;
}

/* Masks and terms of scores beside lists. */
static bool add_beside(conform_list *list)
{
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = base_case(t);
        set_lengths(&c, 90, 130);
        set_lists(&c, 32, 16, 50);
        c.list_heads = CONFORM_LIST_HEADS_KV;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.window_left = 70;
        ok = ok && conform_add(list, &c, "list-32x16-causal-br-window-l70");
        c.prefix = 37;
        ok = ok && conform_add(list, &c, "list-32x16-causal-br-window-l70-prefix37");
        c.splits = 3;
        ok = ok && conform_add(list, &c, "list-32x16-splits3-causal-br-window-l70-prefix37");
        c.splits = c.prefix = 0;
        c.mask = FA_MASK_NONE;
        c.window_right = 20;
        c.list_rows = 24;
        ok = ok && conform_add(list, &c, "list-24x16-window-l70-r20");
        c.window_left = c.window_right = 0;
        c.alibi = true;
        ok = ok && conform_add(list, &c, "list-24x16-alibi");
        c.bias_axes = 15;
        c.factors = true;
        ok = ok && conform_add(list, &c, "list-24x16-alibi-bias");
        c.keep_axes = 13;
        ok = ok && conform_add(list, &c, "list-24x16-alibi-bias-keep");
        c.keep_axes = 7;
        c.keep_bits = -1;
        c.keep_runs = true;
        c.alibi = c.factors = false;
        c.bias_axes = CONFORM_NO_AXES;
        c.softcap = 5;
        ok = ok && conform_add(list, &c, "list-24x16-softcap-keep-runs");
        c.blocks = CONFORM_BLOCKS_LONG;
        c.list_heads = CONFORM_LIST_HEADS_Q;
        ok = ok && conform_add(list, &c, "list-24x16-q-heads-softcap-keep-runs");
    }
    return ok;
}

/* Sequences of every packing, first keys, and lengths that a run is given. */
static bool add_sequences(conform_list *list)
{
    bool ok = true;
    for (int packing = CONFORM_PACK_BOTH; packing < CONFORM_PACKINGS; packing++) {
        conform_case c = base_case((size_t)packing);
        c.batch = 4;
        set_lengths(&c, 45, 110);
        set_lists(&c, 16, packing % 2 ? 32 : 20, 50);
        c.packing = (conform_packing)packing;
        c.list_each = true;
        c.list_heads = packing % 3 ? CONFORM_LIST_HEADS_KV : CONFORM_LIST_SHARED;
        ok = ok && conform_add(list, &c, "list-each");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.list_each = packing % 2;
        c.splits = packing % 2 ? 0 : 3;
        ok = ok && conform_add(list, &c, "list%s-causal-br", c.list_each ? "-each" : "-splits3");
        c.first = true;
        ok = ok && conform_add(list, &c, "list%s-first-causal-br", c.list_each ? "-each" : "-splits3");
        c.test = CONFORM_LENGTHS;
        ok = ok && conform_add(list, &c, "list%s-dynamic-first-causal-br", c.list_each ? "-each" : "");
        c.first = false;
        c.list_mask = true;
        ok = ok && conform_add(list, &c, "list%s-mask-dynamic-causal-br", c.list_each ? "-each" : "");
        c.test = CONFORM_DEVICE_LENGTHS;
        ok = ok && conform_add(list, &c, "list%s-mask-lengths-device-causal-br", c.list_each ? "-each" : "");
        c.first = true;
        c.splits = 0;
        c.mask = FA_MASK_NONE;
        ok = ok && conform_add(list, &c, "list%s-mask-lengths-device-first", c.list_each ? "-each" : "");
    }
    return ok;
}

/* Caches: pages, formats, latent attention, and one row. */
static bool add_of_caches(conform_list *list)
{
    static const fa_dtype formats[] = {FA_Q8_0, FA_E4M3, FA_Q4_1};
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 3, 8, 2);
        set_lengths(&c, 1, 400);
        set_lists(&c, 16, 64, 40);
        c.packing = CONFORM_LENS;
        c.list_each = true;
        c.list_heads = CONFORM_LIST_HEADS_KV;
        c.page = 16;
        ok = ok && conform_add(list, &c, "list-each-pages16");
        c.test = CONFORM_DEVICE_LENGTHS;
        ok = ok && conform_add(list, &c, "list-each-pages16-lengths-device");
        c.test = CONFORM_RUN;
        c.page = 5;
        c.list_heads = CONFORM_LIST_HEADS_Q;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        set_lengths(&c, 40, 150);
        c.list_keys = 32;
        ok = ok && conform_add(list, &c, "list-each-q-heads-pages5-causal-br");
        c.page = 0;
        c.k = c.v = formats[t];
        c.list_heads = CONFORM_LIST_HEADS_KV;
        ok = ok && conform_add(list, &c, "list-each-kv-heads-causal-br");
        c.page = 32;
        set_lengths(&c, 1, 400);
        ok = ok && conform_add(list, &c, "list-each-kv-heads-pages32-causal-br");
        c.hazard = CONFORM_HIDDEN;
        ok = ok && conform_add(list, &c, "list-each-kv-heads-pages32-causal-br-hidden");
        c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 2, 8, 1);
        set_lengths(&c, 2, 260);
        set_dims(&c, 96, 64);
        set_lists(&c, 16, 32, 40);
        c.layout = CONFORM_SHARED;
        c.latent = true;
        ok = ok && conform_add(list, &c, "list-latent");
    }
    return ok;
}

/* Keys that no list has are neither read nor weighed, whether kernels' blocks lie in those of lists or not. */
static bool add_hidden(conform_list *list, fa_dtype type, conform_hazard hazard)
{
    const char *name = conform_hazard_name(hazard);
    bool ok = true;
    conform_case c = base_case(0);
    set_types(&c, type);
    set_lengths(&c, 80, 200);
    set_lists(&c, 64, 64, 60);
    c.hazard = hazard;
    ok = ok && conform_add(list, &c, "list-%s-64x64", name);
    c.list_heads = CONFORM_LIST_HEADS_Q;
    ok = ok && conform_add(list, &c, "list-%s-64x64-q-heads", name);
    c.list_heads = CONFORM_LIST_HEADS_KV;
    c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    c.layout = CONFORM_VIEW;
    set_lists(&c, 24, 100, 60);
    ok = ok && conform_add(list, &c, "list-%s-24x100-causal-br", name);
    set_lists(&c, 5, 3, 60);
    c.list_each = true;
    c.first = true;
    c.batch = 3;
    ok = ok && conform_add(list, &c, "list-%s-each-5x3-first-causal-br", name);
    c.first = false;
    c.mask = FA_MASK_NONE;
    c.layout = CONFORM_BHSD;
    set_lengths(&c, 1, 333);
    set_lists(&c, 16, 16, 60);
    ok = ok && conform_add(list, &c, "list-%s-each-decode", name);
    c.splits = 3;
    set_lists(&c, 16, 10, 60);
    ok = ok && conform_add(list, &c, "list-%s-each-decode-splits3", name);
    return ok;
}

bool conform_add_lists(conform_list *list)
{
    bool ok =
        add_sizes(list) && add_parts(list) && add_beside(list) && add_sequences(list) && add_of_caches(list);
    for (size_t t = 0; t < COUNT(float_types); t++)
        ok = ok && add_hidden(list, float_types[t], CONFORM_HIDDEN) &&
             add_hidden(list, float_types[t], CONFORM_HIDDEN_INF);
    return ok;
}
