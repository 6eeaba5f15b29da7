/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of what happens to a score: scale, softcap, ALiBi, bias, keep and sinks. */
#include "tools/conform/cases.h"

/* Axes without a stride of their own: full axes that repeat, and axes of size 1. */
static bool add_strides(conform_list *list)
{
    static const struct {
        const char *label;
        int axes, repeats;
    } shapes[] = {{"bhq0", 15, 8}, {"b00k", 15, 6}, {"00q0", 15, 11}, {"1h10", 10, 8}, {"b1qk", 13, 0}};
    bool ok = true;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        conform_case c = basic;
        set_types(&c, float_types[i % COUNT(float_types)]);
        set_heads(&c, 2, 4, 2);
        c.bias = float_types[(i + 1) % COUNT(float_types)];
        c.bias_axes = shapes[i].axes;
        c.repeats = shapes[i].repeats;
        ok = ok && conform_add(list, &c, "repeated-bias-%s", shapes[i].label);
        c.keep_axes = shapes[COUNT(shapes) - 1 - i].axes;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "repeated-bias-keep-%s-causal-br", shapes[i].label);
        c.bias_axes = CONFORM_NO_AXES;
        ok = ok && conform_add(list, &c, "repeated-keep-%s-causal-br", shapes[i].label);
    }
    static const int32_t sizes[][5] = {/* batch, heads_q, heads_kv, len_q, len_kv */
                                       {1, 4, 2, 33, 47},
                                       {2, 1, 1, 1, 50},
                                       {1, 1, 1, 1, 1},
                                       {1, 3, 1, 20, 1}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        conform_case c = basic;
        c.singles = true;
        set_heads(&c, sizes[i][0], sizes[i][1], sizes[i][2]);
        set_lengths(&c, sizes[i][3], sizes[i][4]);
        for (size_t t = 0; t < COUNT(float_types); t++) {
            set_types(&c, float_types[t]);
            set_dims(&c, 32, 32);
            ok = ok && conform_add(list, &c, "singles");
            set_dims(&c, 1, 1);
            c.bias_axes = 12;
            c.keep_axes = 4;
            ok = ok && conform_add(list, &c, "singles-bias-keep");
            c.bias_axes = c.keep_axes = CONFORM_NO_AXES;
        }
    }
    return ok;
}

static bool add_bias(conform_list *list)
{
    /* As (batch, heads, rows, keys). */
    static const struct {
        const char *label;
        int axes;
    } shapes[] = {{"bhqk", 15}, {"11qk", 12}, {"1hqk", 14}, {"b11k", 9},
                  {"1h11", 2},  {"1111", 0},  {"11q1", 4}};
    bool ok = true;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        conform_case c = basic;
        set_heads(&c, 2, 4, 2);
        for (size_t t = 0; t < COUNT(float_types); t++) {
            set_types(&c, float_types[(t + i) % COUNT(float_types)]);
            c.bias = float_types[t];
            c.bias_axes = shapes[i].axes;
            ok = ok && conform_add(list, &c, "bias-%s-%s", fa_dtype_name(c.bias), shapes[i].label);
            c.bias_holes = true;
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            ok = ok && conform_add(list, &c, "bias-holes-%s-%s", fa_dtype_name(c.bias), shapes[i].label);
            c.bias_holes = false;
            c.mask = FA_MASK_NONE;
        }
        c.bias_axes = CONFORM_NO_AXES;
        c.keep_axes = shapes[i].axes;
        ok = ok && conform_add(list, &c, "keep-%s", shapes[i].label);
        c.mask = FA_MASK_CAUSAL_TOP_LEFT;
        c.bias_axes = shapes[COUNT(shapes) - 1 - i].axes;
        ok = ok && conform_add(list, &c, "keep-%s-bias-%s-causal-tl", shapes[i].label,
                               shapes[COUNT(shapes) - 1 - i].label);
    }
    return ok;
}

static bool add_scores(conform_list *list)
{
    static const struct {
        const char *label;
        bool alibi, sinks, no_sinks, no_lse;
        float softcap, scale;
    } extras[] = {
        {"alibi", true, false, false, false, 0, 0},          {"softcap5", false, false, false, false, 5, 0},
        {"softcap0.5", false, false, false, false, 0.5f, 0}, {"softcap30", false, false, false, false, 30, 2},
        {"sinks", false, true, false, false, 0, 0},          {"sinks-inf", false, false, true, false, 0, 0},
        {"scale-0.5", false, false, false, false, 0, -0.5f}, {"scale30", false, false, false, false, 0, 30},
        {"scale1e-3", false, false, false, false, 0, 1e-3f}, {"no-lse", false, false, false, true, 0, 0},
        {"all", true, true, false, false, 12, 0.4f},
    };
    bool ok = true;
    for (size_t i = 0; i < COUNT(extras); i++) {
        conform_case c = basic;
        set_heads(&c, 2, 6, 2);
        c.alibi = extras[i].alibi;
        c.sinks = extras[i].sinks;
        c.no_sinks = extras[i].no_sinks;
        c.no_lse = extras[i].no_lse;
        c.softcap = extras[i].softcap;
        c.scale = extras[i].scale;
        for (size_t t = 0; t < COUNT(float_types); t++) {
            set_types(&c, float_types[t]);
            c.mask = FA_MASK_NONE;
            ok = ok && conform_add(list, &c, "%s", extras[i].label);
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            c.diagonal_offset = -20; /* some rows see no key */
            ok = ok && conform_add(list, &c, "%s-causal-br-offset-20", extras[i].label);
            c.diagonal_offset = 0;
        }
    }
    return ok;
}

/* Slopes of each batch entry, and factors of the bias per head, alone and with everything else. */
static bool add_per_head(conform_list *list)
{
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 3, 6, 2);
        c.alibi = c.slopes_each = true;
        ok = ok && conform_add(list, &c, "slopes-each");
        c.packing = CONFORM_PACK_BOTH;
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "slopes-each-causal-br");
        c.packing = CONFORM_DENSE;
        c.alibi = c.slopes_each = false;
        c.factors = true;
        c.bias = float_types[(t + 1) % COUNT(float_types)];
        c.bias_axes = 12;
        ok = ok && conform_add(list, &c, "bias-factors-11qk-causal-br");
        c.mask = FA_MASK_NONE;
        c.bias_axes = 15;
        c.bias_holes = true;
        ok = ok && conform_add(list, &c, "bias-factors-holes-bhqk");
        c.alibi = c.slopes_each = c.sinks = true;
        c.softcap = 9;
        c.bias_axes = 8;
        c.keep_axes = 5;
        ok = ok && conform_add(list, &c, "bias-factors-keep-slopes-each-sinks-softcap9");
        c.test = CONFORM_MERGE;
        c.softcap = 0;
        c.bias_holes = false;
        ok = ok && conform_add(list, &c, "merge-bias-factors-keep-slopes-each-sinks");
    }
    return ok;
}

/* All scores of q and k are 0: means, or what the other terms make. */
static bool add_scale_zero(conform_list *list)
{
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        set_heads(&c, 2, 6, 2);
        c.scale_zero = true;
        ok = ok && conform_add(list, &c, "scale-zero");
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "scale-zero-causal-br");
        c.alibi = c.sinks = true;
        c.softcap = 12;
        ok = ok && conform_add(list, &c, "scale-zero-causal-br-alibi-sinks-softcap12");
    }
    return ok;
}
bool conform_add_scores(conform_list *list)
{
    return add_bias(list) && add_strides(list) && add_scores(list) && add_per_head(list) &&
           add_scale_zero(list);
}
