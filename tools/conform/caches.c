/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of caches: keys in pages, sequences that begin at a key of their own, latent attention. */
#include "tools/conform/cases.h"

static bool add_page_sizes(conform_list *list)
{
    static const int32_t sizes[] = {1, 2, 3, 7, 16, 24, 64, 100, 128, 1024};
    bool ok = true;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (size_t t = 0; t < COUNT(float_types); t++) {
            conform_case c = basic;
            set_types(&c, float_types[t]);
            set_heads(&c, 2, 4, 2);
            c.page = sizes[i];
            c.packing = CONFORM_LENS;
            set_lengths(&c, 1, 400);
            ok = ok && conform_add(list, &c, "pages%d", sizes[i]);
            set_lengths(&c, 35, 150);
            c.layout = t == 1 ? CONFORM_BSHD : CONFORM_BHSD;
            ok = ok && conform_add(list, &c, "pages%d", sizes[i]);
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            c.blocks = CONFORM_BLOCKS_TWO_TILES;
            ok = ok && conform_add(list, &c, "pages%d-causal-br", sizes[i]);
        }
    }
    return ok;
}

static bool add_pages(conform_list *list)
{
    static const int layouts[] = {CONFORM_BHSD, CONFORM_BSHD, CONFORM_VIEW, CONFORM_SHARED};
    bool ok = true;
    for (size_t i = 0; i < COUNT(layouts) * COUNT(float_types); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % COUNT(float_types)]);
        set_heads(&c, 4, 6, 3);
        set_lengths(&c, 21, 130);
        set_dims(&c, i % 2 ? 48 : 40, i % 2 ? 80 : 24);
        c.page = 16;
        c.layout = (conform_layout)layouts[i / COUNT(float_types)];
        c.packing = CONFORM_LENS_BOTH;
        ok = ok && conform_add(list, &c, "pages16");
        c.packing = CONFORM_PACK_Q_LENS;
        c.bias_axes = c.keep_axes = 15;
        ok = ok && conform_add(list, &c, "pages16-bias-keep");
        c.bias_axes = c.keep_axes = CONFORM_NO_AXES;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.window_left = 30;
        c.prefix = 20;
        c.alibi = c.sinks = true;
        c.splits = 3;
        c.page = 5;
        ok = ok && conform_add(list, &c, "pages5-splits3-br-l30-prefix20-alibi-sinks");
        c.test = CONFORM_LENGTHS;
        c.narrow = true;
        ok = ok && conform_add(list, &c, "pages5-splits3-dynamic-br-l30-prefix20-alibi-sinks");
    }
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 3, 8, 2);
        set_lengths(&c, 3, 90);
        c.page = 32;
        c.packing = CONFORM_LENS;
        c.shared_pages = true;
        ok = ok && conform_add(list, &c, "pages32-shared");
        c.page = 90; /* a cache entry for each sequence */
        c.shared_pages = false;
        ok = ok && conform_add(list, &c, "pages90");
        c.page = 16;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.window_left = 25;
        c.hazard = CONFORM_HIDDEN;
        set_lengths(&c, 12, 90);
        ok = ok && conform_add(list, &c, "pages16-causal-br-window-l25-hidden");
        c.hazard = CONFORM_NAN_K;
        ok = ok && conform_add(list, &c, "pages16-causal-br-window-l25-nan-k");
        c.hazard = CONFORM_TAME;
        set_heads(&c, 1, 16, 1);
        set_lengths(&c, 2, 140);
        set_dims(&c, 576, 512);
        c.layout = CONFORM_SHARED;
        c.packing = CONFORM_DENSE;
        c.window_left = 0;
        c.page = 64;
        ok = ok && conform_add(list, &c, "pages64-latent-causal-br");
    }
    conform_case c = basic;
    set_heads(&c, 1, 1, 1);
    set_dims(&c, 4, 4);
    set_lengths(&c, 2, 300007);
    c.page = 16;
    return ok && conform_add(list, &c, "pages16-long");
}

/* Pages that the pool does not have, on what fetches in ways of its own: few rows and many, formats, scales, parts. */
static bool add_lost(conform_list *list)
{
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16, FA_Q8_0, FA_Q5_1, FA_IQ4_NL, FA_E4M3};
    static const conform_scales channel = {"channel32", FA_F16, true, true, 32, 1, false, 0};
    bool ok = true;
    for (size_t t = 0; t < COUNT(types); t++) {
        conform_case c = basic;
        c.test = CONFORM_LOST_PAGES;
        set_heads(&c, 5, 4, 2);
        set_types(&c, types[t] <= FA_BF16 ? types[t] : FA_F16);
        c.k = c.v = types[t];
        set_dims(&c, 64, 64);
        c.packing = CONFORM_LENS;
        c.page = 24;
        set_lengths(&c, 1, 200);
        ok = ok && conform_add(list, &c, "lost-pages24");
        c.splits = 3;
        c.page = 16;
        ok = ok && conform_add(list, &c, "lost-pages16-splits3");
        c.splits = 0;
        set_lengths(&c, 70, 150);
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.window_left = 60;
        c.packing = CONFORM_PACK_Q_LENS;
        c.first = true;
        ok = ok && conform_add(list, &c, "lost-pages16-first-causal-br-window-l60");
    }
    conform_case c = basic;
    c.test = CONFORM_LOST_PAGES;
    set_heads(&c, 3, 4, 2);
    set_types(&c, FA_F16);
    c.k = c.v = FA_I8;
    set_dims(&c, 64, 64);
    set_lengths(&c, 5, 200);
    c.packing = CONFORM_LENS;
    c.page = 32;
    c.k_scales = c.v_scales = channel;
    return ok && conform_add(list, &c, "lost-pages32-scales-channel32");
}

static bool add_first(conform_list *list)
{
    static const int packings[] = {CONFORM_DENSE, CONFORM_LENS, CONFORM_PACK_BOTH, CONFORM_PACK_Q_LENS};
    bool ok = true;
    for (size_t i = 0; i < COUNT(packings) * COUNT(float_types); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % COUNT(float_types)]);
        set_heads(&c, 5, 4, 2);
        set_lengths(&c, 31, 120);
        c.first = true;
        c.packing = (conform_packing)packings[i / COUNT(float_types)];
        ok = ok && conform_add(list, &c, "first");
        c.mask = FA_MASK_CAUSAL_TOP_LEFT;
        ok = ok && conform_add(list, &c, "first-causal-tl");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.narrow = true;
        c.window_left = 40;
        c.prefix = 50;
        c.alibi = true;
        ok = ok && conform_add(list, &c, "first-causal-br-window-l40-prefix50-alibi");
        c.bias_axes = 15;
        c.keep_axes = 13;
        c.test = CONFORM_LENGTHS;
        ok = ok && conform_add(list, &c, "first-dynamic-br-l40-prefix50-alibi-bias-keep");
        if (packings[i / COUNT(float_types)] == CONFORM_PACK_BOTH)
            continue;
        c.page = 12;
        ok = ok && conform_add(list, &c, "first-pages12-dynamic-br-l40-prefix50-alibi-bias-keep");
    }
    return ok;
}

/* Latent attention whose description says that v lies in k, each of many heads with the one row. */
static bool add_latent(conform_list *list)
{
    static const int hazards[] = {CONFORM_HIDDEN, CONFORM_HIDDEN_INF, CONFORM_NAN_K, CONFORM_NAN_V,
                                  CONFORM_INF_V,  CONFORM_NAN_Q,      CONFORM_LARGE, CONFORM_HUGE};
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        c.layout = CONFORM_SHARED;
        c.latent = true;
        set_dims(&c, 576, 512);
        set_heads(&c, 2, 16, 1);
        set_lengths(&c, 1, 300);
        ok = ok && conform_add(list, &c, "latent-in-k");
        c.splits = 3;
        c.packing = CONFORM_LENS;
        c.page = 64;
        set_heads(&c, 2, 70, 1);
        ok = ok && conform_add(list, &c, "latent-in-k-pages64-splits3");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.page = 12;
        c.splits = 0;
        c.sinks = true;
        c.test = CONFORM_LENGTHS;
        set_heads(&c, 3, 40, 1);
        set_lengths(&c, 3, 170);
        ok = ok && conform_add(list, &c, "latent-in-k-pages12-dynamic-br-sinks");
        c.test = CONFORM_DEVICE_LENGTHS;
        c.page = 64;
        c.window_left = 90;
        ok = ok && conform_add(list, &c, "latent-in-k-pages64-device-br-l90-sinks");
        c.test = CONFORM_RUN;
        c.sinks = false;
        c.window_left = 30;
        set_heads(&c, 2, 16, 1);
        for (size_t i = 0; i < COUNT(hazards); i++) {
            c.hazard = (conform_hazard)hazards[i];
            c.page = i % 2 ? 16 : 0;
            ok = ok && conform_add(list, &c, "latent-in-k-%scausal-br-window-l30-%s",
                                   c.page ? "pages16-" : "", conform_hazard_name(c.hazard));
            if (c.hazard != CONFORM_INF_V && c.hazard != CONFORM_HIDDEN)
                continue;
            c.keep_axes = 13;
            ok = ok && conform_add(list, &c, "latent-in-k-causal-br-window-l30-keep-%s",
                                   conform_hazard_name(c.hazard));
            c.keep_axes = CONFORM_NO_AXES;
        }
        conform_case runs = c; /* of keys that bits hide */
        runs.hazard = CONFORM_HIDDEN;
        runs.page = 0;
        runs.window_left = 0;
        runs.keep_axes = 5;
        runs.keep_bits = -1;
        runs.keep_runs = true;
        set_lengths(&runs, 3, 411);
        ok = ok && conform_add(list, &runs, "latent-in-k-causal-br-keep-runs-hidden");
        c.hazard = CONFORM_TAME;
        c.page = 0;
        c.softcap = 5;
        c.alibi = true;
        c.bias_axes = 15;
        c.keep_axes = 13;
        ok = ok && conform_add(list, &c, "latent-in-k-causal-br-window-l30-softcap-alibi-bias-keep");
        c.softcap = 0;
        c.alibi = false;
        c.bias_axes = c.keep_axes = CONFORM_NO_AXES;
        c.window_left = 0;
        c.packing = CONFORM_PACK_BOTH;
        set_heads(&c, 3, 6, 2); /* rows that are not aligned, dims that fill no chunk */
        set_dims(&c, 199, 137);
        set_lengths(&c, 31, 90);
        ok = ok && conform_add(list, &c, "latent-in-k-causal-br");
        set_dims(&c, 192, 192);
        c.first = true;
        ok = ok && conform_add(list, &c, "latent-in-k-first-causal-br");
    }
    return ok;
}

bool conform_add_caches(conform_list *list)
{
    return add_page_sizes(list) && add_pages(list) && add_lost(list) && add_first(list) && add_latent(list);
}
