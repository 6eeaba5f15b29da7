/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of numbers that are not finite, or at the ends of f32's range, for each scalar and tensor. */
#include <float.h>

#include "tools/conform/cases.h"

/* Keys that no row sees, each for another reason. */
static bool add_hidden(conform_list *list, conform_case c, conform_hazard hazard)
{
    bool ok = true;
    const char *name = conform_hazard_name(hazard);
    c.hazard = hazard;
    set_heads(&c, 2, 4, 2);
    set_lengths(&c, 40, 91);
    c.mask = FA_MASK_CAUSAL_TOP_LEFT;
    ok = ok && conform_add(list, &c, "%s-causal-tl", name);
    c.layout = CONFORM_VIEW;
    ok = ok && conform_add(list, &c, "%s-causal-tl", name);
    c.mask = FA_MASK_NONE;
    c.window_left = 11;
    c.window_right = 6;
    c.diagonal_offset = -20;
    ok = ok && conform_add(list, &c, "%s-window-l11-r6", name);
    c.prefix = 5;
    ok = ok && conform_add(list, &c, "%s-window-l11-r6-prefix5", name);
    c.window_left = c.window_right = c.prefix = c.diagonal_offset = 0;
    c.layout = CONFORM_BHSD;
    c.keep_axes = 9;
    ok = ok && conform_add(list, &c, "%s-keep-b11k", name);
    c.mask = FA_MASK_CAUSAL_TOP_LEFT;
    c.packing = CONFORM_PACK_BOTH;
    c.keep_axes = CONFORM_NO_AXES;
    ok = ok && conform_add(list, &c, "%s-causal-tl", name);
    /* Few rows, as in decoding, keys beyond a length, and parts of which one is hidden. */
    c.mask = FA_MASK_NONE;
    c.packing = CONFORM_LENS;
    set_lengths(&c, 2, 91);
    ok = ok && conform_add(list, &c, "%s", name);
    c.packing = CONFORM_DENSE;
    c.window_left = 30;
    c.splits = 3;
    set_lengths(&c, 3, 333);
    return ok && conform_add(list, &c, "%s-window-l30-splits3", name);
}

static bool add_nonfinite(conform_list *list)
{
    bool ok = true;
    for (size_t t = 0; t < COUNT(float_types); t++) {
        conform_case c = basic;
        set_types(&c, float_types[t]);
        c.dim_qk = c.dim_v = 24;
        ok = ok && add_hidden(list, c, CONFORM_HIDDEN) && add_hidden(list, c, CONFORM_HIDDEN_INF);
        for (int hazard = CONFORM_LARGE; hazard < CONFORM_HIDDEN; hazard++) {
            if (hazard == CONFORM_HUGE && float_types[t] == FA_F16)
                continue;
            c.hazard = (conform_hazard)hazard;
            c.mask = FA_MASK_NONE;
            set_lengths(&c, 48, 48);
            ok = ok && conform_add(list, &c, "%s", conform_hazard_name(c.hazard));
            c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            ok = ok && conform_add(list, &c, "%s-causal-br", conform_hazard_name(c.hazard));
            c.window_left = 10;
            c.keep_axes = 12;
            set_lengths(&c, 70, 90);
            ok = ok && conform_add(list, &c, "%s-causal-br-window-l10-keep", conform_hazard_name(c.hazard));
            c.window_left = 0;
            c.keep_axes = CONFORM_NO_AXES;
        }
        /* The infinity is in the only key too: rows have an infinite score, or none above -inf beside a value of inf. */
        c.hazard = CONFORM_INF_V;
        c.mask = FA_MASK_NONE;
        c.layout = CONFORM_SHARED;
        set_lengths(&c, 20, 1);
        for (c.splits = 0; c.splits <= 2; c.splits += 2)
            ok = ok && conform_add(list, &c, "%s-scores%s", conform_hazard_name(c.hazard),
                                   c.splits ? "-splits2" : "");
        c.layout = CONFORM_BHSD;
        c.splits = 0;
        ok = ok && conform_add(list, &c, "%s-only-key", conform_hazard_name(c.hazard));
    }
    return ok;
}

/* A number or a tensor at an end of f32's range, or of its own type's; naive f32 arithmetic is right there. */
typedef struct ends_case {
    const char *label;
    conform_bias_ends bias;
    float scale, softcap, slope, sink;
    float gain_q, gain_k, gain_v;
    bool ramp, f16; /* f16: its range is enough */
} ends_case;

/* q.k is at most 16 * 12 * gain_q * gain_k, twelve being the square of the largest random number. */
static const ends_case ends[] = {
    {.label = "scale1e-40", .scale = 1e-40f, .f16 = true},
    {.label = "scale-1e-40", .scale = -1e-40f, .f16 = true},
    {.label = "scale1e-30", .scale = 1e-30f, .gain_q = 1e15f, .gain_k = 1e15f},
    {.label = "scale1e-38-qk-max", .scale = 1e-38f, .gain_q = 1.3e18f, .gain_k = 1.3e18f},
    {.label = "scale1e30", .scale = 1e30f, .f16 = true},
    {.label = "scale1.7e36", .scale = 1.7e36f, .f16 = true},
    {.label = "scale-1.7e36", .scale = -1.7e36f, .f16 = true},
    {.label = "scale-max", .scale = FLT_MAX, .gain_q = 0.005f, .f16 = true},
    {.label = "softcap1e-30", .softcap = 1e-30f, .f16 = true},
    {.label = "softcap1e-40", .softcap = 1e-40f, .f16 = true},
    {.label = "softcap1e30", .softcap = 1e30f, .f16 = true},
    {.label = "softcap-max", .softcap = FLT_MAX, .f16 = true},
    {.label = "softcap30-qk-max", .softcap = 30, .gain_q = 1.3e18f, .gain_k = 1.3e18f},
    {.label = "softcap-max-scale1.7e36", .softcap = FLT_MAX, .scale = 1.7e36f, .f16 = true},
    {.label = "softcap1e-40-scale1e-40", .softcap = 1e-40f, .scale = 1e-40f, .f16 = true},
    {.label = "alibi-max", .slope = FLT_MAX, .f16 = true},
    {.label = "alibi1e37", .slope = 1e37f, .f16 = true},
    {.label = "alibi-1e37", .slope = -1e37f, .f16 = true},
    {.label = "alibi1e-40", .slope = 1e-40f, .f16 = true},
    {.label = "sinks-max", .sink = FLT_MAX, .f16 = true},
    {.label = "sinks-max-bias-min", .sink = FLT_MAX, .bias = CONFORM_BIAS_MIN_ROWS, .f16 = true},
    {.label = "qk-max", .scale = 1, .gain_q = 1.82e19f, .gain_k = 1.82e19f, .ramp = true},
    {.label = "qk-max-default-scale", .gain_q = 1.82e19f, .gain_k = 1.82e19f, .ramp = true},
    {.label = "qk-max-scale7.8e28",
     .scale = 7.8e28f,
     .gain_q = 65504,
     .gain_k = 65504,
     .ramp = true,
     .f16 = true},
    {.label = "qk-max-scale-7.8e28",
     .scale = -7.8e28f,
     .gain_q = 65504,
     .gain_k = 65504,
     .ramp = true,
     .f16 = true},
    {.label = "qk-1e-30", .gain_q = 1e-30f, .gain_k = 1e-30f},
    {.label = "v-max", .scale = 1, .gain_q = 1e15f, .gain_k = 1e15f, .gain_v = 9.8e37f, .ramp = true},
    {.label = "v-max-of-f16", .gain_v = 18900, .f16 = true},
};

static conform_case ends_of(const ends_case *e, fa_dtype dtype)
{
    conform_case c = basic;
    set_types(&c, dtype);
    set_heads(&c, 1, 4, 2);
    set_lengths(&c, 9, 21);
    set_dims(&c, 16, 16);
    c.scale = e->scale;
    c.softcap = e->softcap;
    c.slope = e->slope;
    c.alibi = e->slope != 0;
    c.sink = e->sink;
    c.sinks = e->sink != 0;
    c.gain_q = e->gain_q;
    c.gain_k = e->gain_k;
    /* Keys of a ramp tie in bf16: sums of their values, before they are divided, must not overflow. */
    c.gain_v = dtype == FA_BF16 ? e->gain_v / 8 : e->gain_v;
    c.ramp = e->ramp;
    c.bias_ends = e->bias;
    c.bias_axes = e->bias == CONFORM_BIAS_TAME ? CONFORM_NO_AXES : 14;
    return c;
}

static bool add_ends(conform_list *list)
{
    bool ok = true;
    for (size_t i = 0; i < COUNT(ends) * COUNT(float_types); i++) {
        const ends_case *e = &ends[i / COUNT(float_types)];
        fa_dtype dtype = float_types[i % COUNT(float_types)];
        if (dtype == FA_F16 && !e->f16)
            continue;
        conform_case c = ends_of(e, dtype);
        ok = ok && conform_add(list, &c, "ends-%s", e->label);
        c.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        ok = ok && conform_add(list, &c, "ends-%s-causal-br", e->label);
        c.mask = FA_MASK_NONE;
        set_lengths(&c, 5, 1);
        ok = ok && conform_add(list, &c, "ends-%s", e->label);
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        c.splits = 2;
        set_lengths(&c, 3, 300);
        c.slope /= 16; /* a distance is 300 at most, not 20 */
        ok = ok && conform_add(list, &c, "ends-%s-splits2", e->label);
    }
    return ok;
}

static bool add_bias_ends(conform_list *list)
{
    static const struct {
        const char *label;
        conform_bias_ends bias;
    } kinds[] = {{"min", CONFORM_BIAS_MIN_ALL},       {"min-rows", CONFORM_BIAS_MIN_ROWS},
                 {"min-keys", CONFORM_BIAS_MIN_KEYS}, {"max", CONFORM_BIAS_MAX_ALL},
                 {"max-key", CONFORM_BIAS_MAX_KEY},   {"max-key-min", CONFORM_BIAS_BOTH}};
    bool ok = true;
    for (size_t i = 0; i < COUNT(kinds) * COUNT(float_types); i++) {
        const char *label = kinds[i / COUNT(float_types)].label;
        const ends_case e = {.bias = kinds[i / COUNT(float_types)].bias};
        fa_dtype bias = float_types[i % COUNT(float_types)];
        conform_case c = ends_of(&e, float_types[i / COUNT(float_types) % COUNT(float_types)]);
        c.bias = bias;
        ok = ok && conform_add(list, &c, "ends-bias-%s-%s", fa_dtype_name(bias), label);
        c.mask = FA_MASK_CAUSAL_TOP_LEFT; /* the first row sees one key */
        c.sinks = true;
        ok = ok && conform_add(list, &c, "ends-bias-%s-%s-causal-tl-sinks", fa_dtype_name(bias), label);
        c.sinks = false;
        c.mask = FA_MASK_NONE;
        c.alibi = true;
        c.softcap = 20;
        c.keep_axes = 12;
        ok = ok && conform_add(list, &c, "ends-bias-%s-%s-keep-alibi-softcap", fa_dtype_name(bias), label);
        c.alibi = false;
        c.softcap = 0;
        c.keep_axes = CONFORM_NO_AXES;
        set_lengths(&c, 5, 1);
        ok = ok && conform_add(list, &c, "ends-bias-%s-%s", fa_dtype_name(bias), label);
        c.blocks = CONFORM_BLOCKS_TWO_TILES;
        set_lengths(&c, 3, 300);
        ok = ok && conform_add(list, &c, "ends-bias-%s-%s", fa_dtype_name(bias), label);
        c.splits = 2;
        ok = ok && conform_add(list, &c, "ends-bias-%s-%s-splits2", fa_dtype_name(bias), label);
        c.splits = 0;
        c.test = CONFORM_MERGE;
        ok = ok && conform_add(list, &c, "ends-bias-%s-%s-merge", fa_dtype_name(bias), label);
    }
    return ok;
}

bool conform_add_hazards(conform_list *list)
{
    return add_nonfinite(list) && add_ends(list) && add_bias_ends(list);
}
