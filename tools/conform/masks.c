/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of masks, of packed sequences and lengths, and of where the diagonal lies. */
#include "tools/conform/cases.h"

static bool add_masks(conform_list *list)
{
    enum { NONE = FA_MASK_NONE, TL = FA_MASK_CAUSAL_TOP_LEFT, BR = FA_MASK_CAUSAL_BOTTOM_RIGHT };
    static const struct {
        const char *label;
        int mask;
        int32_t left, right, prefix, offset;
    } masks[] = {
        {"none", NONE, 0, 0, 0, 0},
        {"causal-tl", TL, 0, 0, 0, 0},
        {"causal-br", BR, 0, 0, 0, 0},
        {"window-l1", NONE, 1, 0, 0, 0},
        {"window-r1", NONE, 0, 1, 0, 0},
        {"window-l5", NONE, 5, 0, 0, 0},
        {"window-r3", NONE, 0, 3, 0, 0},
        {"window-l1-r1", NONE, 1, 1, 0, 0},
        {"window-l7-r4", NONE, 7, 4, 0, 0},
        {"window-l20-r30", NONE, 20, 30, 0, 0},
        {"window-l1000-r1000", NONE, 1000, 1000, 0, 0},
        {"causal-tl-window-l6", TL, 6, 0, 0, 0},
        {"causal-br-window-l6", BR, 6, 0, 0, 0},
        {"causal-br-window-l33", BR, 33, 0, 0, 0},
        {"causal-tl-prefix7", TL, 0, 0, 7, 0},
        {"causal-br-prefix18", BR, 0, 0, 18, 0},
        {"prefix1000", BR, 0, 0, 1000, 0},
        {"window-l4-prefix3", BR, 4, 0, 3, 0},
        {"window-l4-r4-prefix20", NONE, 4, 4, 20, 0},
        {"causal-tl-offset9", TL, 0, 0, 0, 9},
        {"causal-br-offset-9", BR, 0, 0, 0, -9},
        {"window-l5-r5-offset12", NONE, 5, 5, 0, 12},
        {"all-masked", BR, 0, 0, 0, -1000},
        {"all-masked-but-prefix2", BR, 0, 0, 2, -1000},
        {"window-beyond", NONE, 3, 3, 0, 1000},
        {"causal-tl-offset1000", TL, 0, 0, 0, 1000},
    };
    static const int32_t lengths[][2] = {{29, 61}, {61, 29}, {45, 45}};
    bool ok = true;
    for (size_t i = 0; i < COUNT(masks) * COUNT(lengths); i++) {
        size_t m = i / COUNT(lengths), l = i % COUNT(lengths);
        conform_case c = basic;
        set_types(&c, float_types[l]);
        set_lengths(&c, lengths[l][0], lengths[l][1]);
        c.dim_qk = c.dim_v = 20;
        c.mask = (fa_mask_kind)masks[m].mask;
        c.window_left = masks[m].left;
        c.window_right = masks[m].right;
        c.prefix = masks[m].prefix;
        c.diagonal_offset = masks[m].offset;
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        ok = ok && conform_add(list, &c, "%s", masks[m].label);
    }
    return ok;
}

static bool add_packings(conform_list *list)
{
    bool ok = true;
    for (int packing = CONFORM_PACK_BOTH; packing < CONFORM_PACKINGS; packing++) {
        conform_case c = basic;
        set_types(&c, packing % 2 ? FA_F32 : FA_F16);
        set_heads(&c, 5, 2, 1);
        set_lengths(&c, 39, 58);
        c.packing = (conform_packing)packing;
        ok = ok && conform_add(list, &c, "sequences");
        c.mask = FA_MASK_CAUSAL_TOP_LEFT;
        ok = ok && conform_add(list, &c, "sequences-causal-tl");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "sequences-causal-br");
        c.layout = CONFORM_BSHD;
        c.alibi = true;
        ok = ok && conform_add(list, &c, "sequences-causal-br-alibi");
        c.window_left = 9;
        c.layout = CONFORM_VIEW;
        ok = ok && conform_add(list, &c, "sequences-causal-br-alibi-window-l9");
        c.alibi = false;
        c.window_left = 0;
        c.layout = CONFORM_BHSD;
        c.bias_axes = 15;
        c.keep_axes = 13;
        ok = ok && conform_add(list, &c, "sequences-causal-br-bias-keep");
        c.sinks = true;
        c.no_lse = true;
        set_heads(&c, 4, 6, 3);
        ok = ok && conform_add(list, &c, "sequences-causal-br-bias-keep-sinks");
        c.narrow = true;
        ok = ok && conform_add(list, &c, "sequences-int32-causal-br-bias-keep-sinks");
    }
    return ok;
}

/* p(i) from the top left without a causal mask, and what follows the lengths of padded rows. */
static bool add_alignments(conform_list *list)
{
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 4, 4, 2);
        set_lengths(&c, 41, 70);
        for (int alignment = FA_ALIGN_TOP_LEFT; alignment <= FA_ALIGN_BOTTOM_RIGHT; alignment++) {
            const char *name = alignment == FA_ALIGN_TOP_LEFT ? "tl" : "br";
            c.alignment = (fa_alignment)alignment;
            c.alibi = true;
            ok = ok && conform_add(list, &c, "align-%s-alibi", name);
            c.window_left = 11;
            c.window_right = 6;
            ok = ok && conform_add(list, &c, "align-%s-alibi-window-l11-r6", name);
            c.alibi = false;
            ok = ok && conform_add(list, &c, "align-%s-window-l11-r6", name);
            c.window_left = c.window_right = 0;
        }
        c.alignment = FA_ALIGN_DEFAULT;
        set_lengths(&c, 53, 53);
        c.packing = CONFORM_LENS_BOTH;
        c.alibi = true;
        ok = ok && conform_add(list, &c, "padded-encoder-alibi");
        c.window_left = c.window_right = 9;
        c.layout = CONFORM_BSHD;
        ok = ok && conform_add(list, &c, "padded-encoder-alibi-window-l9-r9");
        c.hazard = CONFORM_HIDDEN;
        ok = ok && conform_add(list, &c, "padded-encoder-alibi-window-l9-r9-hidden");
    }
    return ok;
}
/* Trees of drafts: bits of the last keys, or of all, for sequences of every packing. */
static bool add_keep_bits(conform_list *list)
{
    bool ok = true;
    for (int packing = CONFORM_DENSE; packing < CONFORM_PACKINGS; packing++) {
        conform_case c = basic;
        set_types(&c, float_types[packing % 3]);
        set_heads(&c, 4, 4, 2);
        set_lengths(&c, 37, 190);
        c.packing = (conform_packing)packing;
        c.splits = packing % 3 ? 0 : 3;
        c.keep_axes = packing % 2 ? 5 : 7;
        c.keep_bits = packing % 2 ? -1 : 50;
        ok = ok && conform_add(list, &c, "keep-bits");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.window_left = 90;
        c.keep_bits = c.keep_bits == -1 ? 33 : -1;
        c.first = c.alibi = true;
        ok = ok && conform_add(list, &c, "keep-bits-first-causal-br-window-l90-alibi");
    }
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 3, 8, 2);
        set_lengths(&c, 8, 300);
        c.packing = CONFORM_LENS;
        c.keep_axes = 5;
        c.keep_bits = 8;
        c.page = t == 1 ? 16 : 0;
        c.hazard = t == 2 ? CONFORM_HIDDEN : CONFORM_TAME;
        ok = ok && conform_add(list, &c, "keep-bits-tree%s", t == 2 ? "-hidden" : "");
        c.hazard = CONFORM_TAME;
        c.test = CONFORM_DEVICE_LENGTHS;
        ok = ok && conform_add(list, &c, "keep-bits-tree-lengths-device");
    }
    return ok;
}

/* Blocks of keys that bits hide whole, from all rows or from some: they are passed over. */
static bool add_keep_runs(conform_list *list)
{
    static const conform_hazard hazards[] = {CONFORM_TAME, CONFORM_HIDDEN, CONFORM_TAME};
    bool ok = true;
    for (size_t i = 0; i < 2 * COUNT(float_types); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % COUNT(float_types)]);
        set_heads(&c, 3, 4, 2);
        set_lengths(&c, i < COUNT(float_types) ? 3 : 90, 411);
        c.packing = CONFORM_LENS;
        c.keep_axes = i % 2 ? 5 : 7;
        c.keep_runs = true;
        c.keep_bits = -1;
        c.hazard = hazards[i % COUNT(hazards)];
        ok = ok && conform_add(list, &c, "keep-runs");
        c.keep_bits = 310;
        c.splits = 3;
        ok = ok && conform_add(list, &c, "keep-runs-last310-splits3");
        c.keep_bits = -1;
        c.splits = 0;
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.first = true;
        ok = ok && conform_add(list, &c, "keep-runs-first-causal-br");
    }
    return ok;
}

/* Runs with lengths of their own, alternately with and without parts of keys. */
static conform_case lengths_case(conform_test test, int packing)
{
    conform_case c = basic;
    set_types(&c, float_types[packing % 3]);
    set_heads(&c, 4, 4, 2);
    set_lengths(&c, 37, 190);
    c.test = test;
    c.packing = (conform_packing)packing;
    c.splits = packing % 2 ? 3 : 0;
    return c;
}

/* Lengths on the device: each packing, masks that leave parts of keys to no row, and rows that are split for balance. */
static bool add_device_lengths(conform_list *list)
{
    bool ok = true;
    for (int packing = CONFORM_DENSE; packing < CONFORM_PACKINGS; packing++) {
        conform_case c = lengths_case(CONFORM_DEVICE_LENGTHS, packing);
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.window_left = packing % 3 ? 12 : 0;
        c.first = packing % 3 == 1;
        c.sinks = c.alibi = c.slopes_each = true;
        ok = ok && conform_add(list, &c, "lengths-device-causal-br-alibi-sinks");
        c.mask = FA_MASK_NONE;
        c.alignment = FA_ALIGN_TOP_LEFT;
        c.window_left = 9;
        c.window_right = 40;
        c.prefix = packing % 2 ? 50 : 0;
        c.keep_axes = 13;
        ok = ok && conform_add(list, &c, "lengths-device-window-l9-r40-keep");
    }
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 1, 8, 2);
        set_lengths(&c, 1, 1500);
        c.test = CONFORM_DEVICE_LENGTHS;
        c.packing = CONFORM_LENS;
        c.page = t == 2 ? 16 : 0;
        ok = ok && conform_add(list, &c, "lengths-device");
    }
    conform_case c = basic; /* more sequences than a work-group has work-items */
    set_heads(&c, 300, 1, 1);
    set_lengths(&c, 1, 60);
    c.test = CONFORM_DEVICE_LENGTHS;
    c.packing = CONFORM_LENS;
    ok = ok && conform_add(list, &c, "lengths-device-many");
    return ok;
}

/* Lengths that a run is given. */
static bool add_dynamic(conform_list *list)
{
    bool ok = true;
    for (int packing = CONFORM_DENSE; packing < CONFORM_PACKINGS; packing++) {
        conform_case c = lengths_case(CONFORM_LENGTHS, packing);
        c.narrow = packing % 4 == 1;
        ok = ok && conform_add(list, &c, "dynamic");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        c.sinks = true;
        ok = ok && conform_add(list, &c, "dynamic-causal-br-sinks");
        c.window_left = 12;
        c.bias_axes = packing % 2 ? 15 : CONFORM_NO_AXES;
        c.slopes_each = c.alibi = true;
        ok = ok && conform_add(list, &c, "dynamic-causal-br-window-l12-alibi-sinks");
    }
    for (size_t t = 0; t < COUNT(float_types); t++) { /* decoding */
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 3, 8, 2);
        set_lengths(&c, 1, 1500);
        c.test = CONFORM_LENGTHS;
        c.packing = CONFORM_LENS;
        ok = ok && conform_add(list, &c, "dynamic");
        c.packing = CONFORM_DENSE;
        set_heads(&c, 1, 4, 1);
        ok = ok && conform_add(list, &c, "dynamic");
    }
    return ok;
}

bool conform_add_masks(conform_list *list)
{
    return add_masks(list) && add_packings(list) && add_alignments(list) && add_dynamic(list) &&
           add_device_lengths(list) && add_keep_bits(list) && add_keep_runs(list);
}
