/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of caches in formats: blocks, codes with scales of their own, rows that are blocks, rows that keep some elements. */
#include "tools/conform/cases.h"

static bool add_formats(conform_list *list)
{
    bool ok = true;
    for (int format = FA_E4M3; format <= FA_IQ4_NL; format++) {
        const bool is_fp8 = format == FA_E4M3 || format == FA_E5M2;
        conform_case c = basic;
        set_types(&c, float_types[format % 3]);
        c.k = c.v = (fa_dtype)format;
        set_heads(&c, 2, 4, 2);
        set_dims(&c, 64, 64);
        c.packing = CONFORM_LENS;
        set_lengths(&c, 1, 300);
        ok = ok && conform_add(list, &c, "format");
        set_lengths(&c, 37, 90);
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "format-causal-br");
        c.splits = 3;
        c.layout = CONFORM_BSHD;
        set_lengths(&c, 5, 290);
        ok = ok && conform_add(list, &c, "format-splits3-causal-br");
        c.v = c.q; /* one of the two */
        c.layout = CONFORM_VIEW;
        ok = ok && conform_add(list, &c, "format-splits3-causal-br");
        c.v = c.k;
        c.k = c.q;
        c.page = 16;
        ok = ok && conform_add(list, &c, "format-pages16-splits3-causal-br");
        c.k = c.v;
        set_lengths(&c, 40, 100);
        ok = ok && conform_add(list, &c, "format-pages16-splits3-causal-br");
        c.hazard = CONFORM_HIDDEN;
        c.window_left = 20;
        c.splits = 0;
        ok = ok && conform_add(list, &c, "format-pages16-causal-br-window-l20-hidden");
        c.page = 0;
        c.hazard = CONFORM_TAME;
        c.packing = CONFORM_DENSE;
        set_dims(&c, is_fp8 ? 40 : 96, is_fp8 ? 72 : 160);
        ok = ok && conform_add(list, &c, "format-causal-br-window-l20");
        set_heads(&c, 1, 16, 1);
        set_lengths(&c, 2, 120);
        set_dims(&c, 576, 512);
        c.layout = CONFORM_SHARED;
        ok = ok && conform_add(list, &c, "format-latent-causal-br-window-l20");
        c.latent = true;
        ok = ok && conform_add(list, &c, "format-latent-in-k-causal-br-window-l20");
    }
    return ok;
}

/* Rows of 128 dims and blocks of many rows, which kernels stage whole; K and V in formats of their own. */
static bool add_format_tiles(conform_list *list)
{
    bool ok = true;
    const int count = FA_IQ4_NL + 1 - FA_E4M3;
    for (int i = 0; i < 2 * count; i++) {
        conform_case c = basic;
        set_types(&c, i < count ? FA_F16 : FA_BF16);
        c.k = (fa_dtype)(FA_E4M3 + i % count);
        c.v = (fa_dtype)(FA_E4M3 + (3 * i + i / count) % count);
        set_heads(&c, 2, 4, 2);
        set_dims(&c, 128, 128);
        c.layout = CONFORM_BSHD;
        c.packing = CONFORM_LENS;
        set_lengths(&c, 70, 330);
        ok = ok && conform_add(list, &c, "format-tiles");
        c.hazard = i % 2 ? CONFORM_INF_V : CONFORM_NAN_V;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok &&
             conform_add(list, &c, i % 2 ? "format-tiles-causal-br-inf-v" : "format-tiles-causal-br-nan-v");
        c.hazard = CONFORM_HIDDEN;
        c.page = 32;
        c.window_left = 50;
        c.bias_axes = 15;
        c.keep_axes = 13;
        ok = ok && conform_add(list, &c, "format-tiles-pages32-causal-br-window-l50-bias-keep-hidden");
    }
    return ok;
}

/* Blocks of keys that packed bits hide whole, which kernels may pass over: K and V in formats of their own. */
static bool add_format_runs(conform_list *list)
{
    static const fa_dtype formats[] = {FA_E4M3, FA_Q8_0, FA_Q5_1, FA_IQ4_NL};
    bool ok = true;
    for (size_t i = 0; i < COUNT(formats) * COUNT(float_types); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i / COUNT(formats)]);
        c.k = formats[i % COUNT(formats)];
        c.v = formats[(i + i / COUNT(formats)) % COUNT(formats)];
        set_heads(&c, 2, 2, 1);
        set_dims(&c, i % 2 ? 64 : 128, i % 2 ? 64 : 128);
        set_lengths(&c, i % 2 ? 90 : 3, 411);
        c.packing = CONFORM_LENS;
        c.keep_axes = i % 2 ? 5 : 7;
        c.keep_bits = -1;
        c.keep_runs = true;
        c.hazard = CONFORM_HIDDEN;
        ok = ok && conform_add(list, &c, "format-keep-runs-hidden");
        set_lengths(&c, i % 2 ? 3 : 90, 411);
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.page = 16;
        ok = ok && conform_add(list, &c, "format-pages16-keep-runs-causal-br-hidden");
    }
    return ok;
}

/* Formats beside q in f16, which matrix units multiply, and of either k or v alone. */
static bool add_half_formats(conform_list *list)
{
    bool ok = true;
    for (int format = FA_E4M3; format <= FA_IQ4_NL; format++) {
        conform_case c = basic;
        set_types(&c, FA_F16);
        c.k = c.v = (fa_dtype)format;
        set_heads(&c, 1, 4, 2);
        set_dims(&c, 128, 128);
        set_lengths(&c, 70, 200);
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.hazard = CONFORM_HIDDEN;
        c.page = 16;
        ok = ok && conform_add(list, &c, "format-halves-pages16-causal-br-hidden");
        c.hazard = CONFORM_TAME;
        c.page = 0;
        c.v = FA_F16;
        c.splits = 2;
        set_dims(&c, 256, 160);
        ok = ok && conform_add(list, &c, "format-halves-splits2-causal-br");
        c.v = c.k;
        c.k = FA_F16;
        c.layout = CONFORM_BSHD;
        set_dims(&c, 64, 32);
        ok = ok && conform_add(list, &c, "format-halves-splits2-causal-br");
    }
    return ok;
}

/* Codes whose scales are tensors of their own: each type with each kind of scales, in one situation or another. */
static bool add_scales(conform_list *list)
{
    bool ok = true;
    for (size_t i = 0; i < CONFORM_SCALED_TYPES * CONFORM_SCALINGS; i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % 3]);
        c.k = conform_scaled_types[i / CONFORM_SCALINGS];
        c.v = conform_scaled_types[(i * 4 + 1) % CONFORM_SCALED_TYPES];
        c.k_scales = conform_scalings[i % CONFORM_SCALINGS];
        c.v_scales = conform_scalings[(i + i / CONFORM_SCALINGS) % CONFORM_SCALINGS];
        set_heads(&c, 2, 4, 2);
        set_dims(&c, i % 2 ? 64 : 160, i % 2 ? 96 : 32);
        set_lengths(&c, 1, 130);
        switch (i % 5) {
        case 0:
            c.packing = CONFORM_LENS;
            c.layout = CONFORM_BSHD;
            ok = ok && conform_add(list, &c, "scales-%s", c.k_scales.name);
            break;
        case 1:
            c.packing = CONFORM_LENS;
            c.layout = CONFORM_VIEW;
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            c.window_left = 20;
            c.hazard = CONFORM_HIDDEN;
            set_lengths(&c, 6, 70);
            ok = ok && conform_add(list, &c, "scales-%s-causal-br-window-l20-hidden", c.k_scales.name);
            break;
        case 2:
            c.packing = CONFORM_PACK_GAPS;
            c.blocks = CONFORM_BLOCKS_TWO_TILES;
            c.first = true;
            c.narrow = i % 2;
            c.test = c.narrow ? CONFORM_DEVICE_LENGTHS : CONFORM_RUN;
            set_lengths(&c, 19, 70);
            ok = ok && conform_add(list, &c, "scales-%s-first%s", c.k_scales.name, c.narrow ? "-device" : "");
            break;
        case 3:
            c.splits = 3;
            set_lengths(&c, 5, 90);
            ok = ok && conform_add(list, &c, "scales-%s-splits3", c.k_scales.name);
            break;
        default:
            c.packing = CONFORM_LENS;
            c.page = i % 2 ? 32 : 96;
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            c.test = CONFORM_LENGTHS;
            set_lengths(&c, 17, 70);
            ok = ok && conform_add(list, &c, "scales-%s-pages%d-causal-br-dynamic", c.k_scales.name, c.page);
        }
    }
    /* Codes of one bit, alone and beside codes of two (VidKV: keys by channel, values ternary). */
    static const fa_dtype few[][2] = {{FA_U2U1, FA_I2}, {FA_U1, FA_U2U1}, {FA_I2, FA_U1}};
    for (size_t i = 0; i < COUNT(few); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i]);
        c.k = few[i][0];
        c.v = few[i][1];
        c.k_scales = conform_scalings[i == 2 ? 2 : 4];
        c.v_scales = conform_scalings[i == 1 ? 3 : 4];
        c.packing = CONFORM_LENS;
        c.layout = i == 1 ? CONFORM_BSHD : c.layout;
        c.page = i == 2 ? 32 : 0;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        set_heads(&c, 2, 4, 2);
        set_dims(&c, 160, 96);
        set_lengths(&c, i ? 1 : 17, 130);
        ok = ok && conform_add(list, &c, "scales-bits%zu", i);
    }
    conform_case c = basic; /* the latent form: v is a part of k, and has scales of its own */
    set_types(&c, FA_BF16);
    c.k = c.v = FA_I8;
    c.k_scales = c.v_scales = conform_scalings[2];
    c.layout = CONFORM_SHARED;
    set_heads(&c, 1, 16, 1);
    set_lengths(&c, 2, 50);
    set_dims(&c, 576, 512);
    ok = ok && conform_add(list, &c, "scales-token-latent");
    c.latent = true;
    c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    return ok && conform_add(list, &c, "scales-token-latent-in-k-causal-br");
}

/* FlashMLA's rows, which k is and v lies in. */
static bool add_latent_rows(conform_list *list)
{
    static const int hazards[] = {CONFORM_HIDDEN, CONFORM_NAN_K, CONFORM_HIDDEN_INF, CONFORM_INF_V};
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        c.k = c.v = FA_FP8_DS_MLA;
        c.layout = CONFORM_SHARED;
        c.latent = true;
        set_dims(&c, 576, 512);
        set_heads(&c, 2, 16, 1);
        set_lengths(&c, 1, 300);
        ok = ok && conform_add(list, &c, "format-latent-row");
        c.packing = CONFORM_LENS;
        c.page = 64;
        c.splits = 3;
        ok = ok && conform_add(list, &c, "format-latent-row-pages64-splits3");
        c.splits = 0;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.sinks = true;
        c.test = CONFORM_LENGTHS;
        set_heads(&c, 3, 40, 1);
        set_lengths(&c, 3, 170);
        ok = ok && conform_add(list, &c, "format-latent-row-pages64-dynamic-br-sinks");
        c.test = CONFORM_RUN;
        c.sinks = false;
        c.window_left = 30;
        set_heads(&c, 2, 16, 1);
        for (size_t i = 0; i < COUNT(hazards); i++) {
            c.hazard = (conform_hazard)hazards[i];
            c.page = i % 2 ? 0 : 64;
            ok = ok && conform_add(list, &c, "format-latent-row-%scausal-br-window-l30-%s",
                                   c.page ? "pages64-" : "", conform_hazard_name(c.hazard));
        }
        c.hazard = CONFORM_TAME;
        c.page = 0;
        c.window_left = 0;
        c.packing = CONFORM_PACK_BOTH;
        set_heads(&c, 2, 6, 2);
        set_lengths(&c, 37, 90);
        ok = ok && conform_add(list, &c, "format-latent-row-causal-br");
        c.test = CONFORM_LOST_PAGES;
        c.packing = CONFORM_LENS;
        c.page = 64;
        set_lengths(&c, 5, 200);
        ok = ok && conform_add(list, &c, "format-latent-row-lost-pages64");
    }
    return ok;
}

/* Rows of bitmap_f16 that have room for some of their elements. */
static void keep(conform_case *c, int32_t percent)
{
    c->rows_k = c->rows_v = (kv_rows){.part = percent / 100.0};
}

static int percent(const conform_case *c)
{
    return (int)(100 * c->rows_k.part + 0.5);
}

/* Rows that keep some of their elements, which k or v is, or both. */
static bool add_bitmaps(conform_list *list)
{
    static const int32_t kept[] = {50, 30, 100};
    static const int hazards[] = {CONFORM_HIDDEN, CONFORM_NAN_K, CONFORM_HIDDEN_INF, CONFORM_INF_V};
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        c.k = c.v = FA_BITMAP_F16;
        keep(&c, kept[t]);
        set_heads(&c, 2, 4, 2);
        set_dims(&c, 128, 128);
        c.packing = CONFORM_LENS;
        set_lengths(&c, 1, 300);
        ok = ok && conform_add(list, &c, "format-bitmap%d", percent(&c));
        c.splits = 3;
        c.page = 16;
        c.layout = CONFORM_BSHD;
        keep(&c, kept[(t + 1) % 3]);
        ok = ok && conform_add(list, &c, "format-bitmap%d-pages16-splits3", percent(&c));
        c.v = t == 1 ? FA_Q8_0 : c.q; /* one of the two */
        c.layout = CONFORM_VIEW;
        c.page = 0;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        set_dims(&c, 40, 96); /* words of which a part has no dims */
        set_lengths(&c, 5, 290);
        ok = ok && conform_add(list, &c, "format-bitmap%d-splits3-causal-br", percent(&c));
        c.v = FA_BITMAP_F16;
        c.k = t == 1 ? FA_E4M3 : c.q;
        set_dims(&c, 72, 200);
        ok = ok && conform_add(list, &c, "format-bitmap%d-splits3-causal-br", percent(&c));
        c.k = FA_BITMAP_F16;
        c.layout = CONFORM_BHSD;
        c.splits = 0;
        c.sinks = true;
        c.test = CONFORM_LENGTHS;
        c.page = 24;
        set_heads(&c, 3, 6, 2);
        set_dims(&c, 64, 64);
        set_lengths(&c, 37, 170);
        ok = ok && conform_add(list, &c, "format-bitmap%d-pages24-dynamic-br-sinks", percent(&c));
        c.test = CONFORM_RUN;
        c.sinks = false;
        c.window_left = 30;
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        for (size_t i = 0; i < COUNT(hazards); i++) {
            c.hazard = (conform_hazard)hazards[i];
            c.page = i % 2 ? 0 : 24;
            ok = ok && conform_add(list, &c, "format-bitmap%d-%scausal-br-window-l30-%s", percent(&c),
                                   c.page ? "pages24-" : "", conform_hazard_name(c.hazard));
        }
        c.hazard = CONFORM_TAME;
        c.page = 0;
        c.window_left = 0;
        c.packing = CONFORM_PACK_BOTH;
        keep(&c, kept[t]);
        set_heads(&c, 1, 8, 1);
        set_lengths(&c, 3, 90);
        set_dims(&c, 576, 512);
        ok = ok && conform_add(list, &c, "format-bitmap%d-causal-br", percent(&c));
        c.test = CONFORM_LOST_PAGES;
        c.packing = CONFORM_LENS;
        c.page = 24;
        set_heads(&c, 5, 4, 2);
        set_dims(&c, 64, 64);
        set_lengths(&c, 5, 200);
        ok = ok && conform_add(list, &c, "format-bitmap%d-lost-pages24", percent(&c));
    }
    conform_case c = basic; /* beside codes whose scales are tensors of their own */
    set_types(&c, FA_F16);
    c.k = FA_BITMAP_F16;
    keep(&c, 50);
    c.v = FA_I8;
    c.v_scales = conform_scalings[2];
    set_heads(&c, 2, 4, 2);
    set_dims(&c, 64, 64);
    set_lengths(&c, 3, 130);
    return ok && conform_add(list, &c, "format-bitmap50-scales-token");
}

bool conform_add_formats(conform_list *list)
{
    return add_formats(list) && add_format_tiles(list) && add_format_runs(list) && add_half_formats(list) &&
           add_scales(list) && add_latent_rows(list) && add_bitmaps(list);
}
