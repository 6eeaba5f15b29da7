/* SPDX-License-Identifier: Apache-2.0 */
/* Cases that nobody thought of: features drawn independently of each other, and described in words. */
#include <stdarg.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/conform/conform.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const char *conform_hazard_name(conform_hazard hazard)
{
    static const char *const names[CONFORM_HAZARDS] = {"tame",  "large",  "huge",      "nan-q",
                                                       "nan-k", "nan-v",  "inf-q",     "inf-k",
                                                       "inf-v", "hidden", "hidden-inf"};
    return names[hazard];
}

static bool chance(conform_random *r, uint32_t percent)
{
    return conform_random_below(r, 100) < percent;
}

static int32_t between(conform_random *r, int32_t low, int32_t high)
{
    return low + (int32_t)conform_random_below(r, (uint32_t)(high - low + 1));
}

static fa_dtype draw_type(conform_random *r)
{
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
    return types[conform_random_below(r, COUNT(types))];
}

static int32_t draw_dim(conform_random *r)
{
    static const int32_t dims[] = {1, 2, 3, 8, 16, 17, 24, 32, 40, 48, 64, 72, 80, 96, 128, 192, 256};
    return dims[conform_random_below(r, COUNT(dims))];
}

static conform_length draw_length(conform_random *r, bool forced_blocks)
{
    if (forced_blocks && chance(r, 40))
        return (conform_length){chance(r, 50) ? CONFORM_TILE : CONFORM_BLOCK, between(r, -1, 1)};
    int32_t high = chance(r, 10) ? 3 : chance(r, 50) ? 40 : 130;
    return (conform_length){CONFORM_FIXED, between(r, high == 3 ? 0 : 1, high)};
}

static void draw_tensors(conform_random *r, conform_case *c)
{
    c->q = c->k = c->v = c->o = draw_type(r);
    if (chance(r, 30)) {
        c->k = draw_type(r);
        c->v = draw_type(r);
        c->o = draw_type(r);
    }
    c->dim_qk = draw_dim(r);
    c->dim_v = chance(r, 70) ? c->dim_qk : draw_dim(r);
    c->batch = between(r, 1, 3);
    c->heads_kv = between(r, 1, 3);
    c->heads_q = c->heads_kv * between(r, 1, 4);
    if (chance(r, 40))
        c->packing = (conform_packing)between(r, CONFORM_PACK_BOTH, CONFORM_PACKINGS - 1);
    if (c->packing != CONFORM_DENSE)
        c->batch += 2;
    c->layout = chance(r, 50) ? (conform_layout)between(r, CONFORM_BSHD, CONFORM_LAYOUTS - 1) : CONFORM_BHSD;
    if (c->layout == CONFORM_PACKED || c->layout == CONFORM_SHARED)
        c->k = c->v = c->q;
    if (c->layout == CONFORM_PACKED)
        c->packing = CONFORM_DENSE; /* as many rows as keys */
    if (c->layout == CONFORM_SHARED && c->dim_v > c->dim_qk)
        c->dim_v = c->dim_qk;
}

static void draw_mask(conform_random *r, conform_case *c)
{
    c->mask = (fa_mask_kind)between(r, FA_MASK_NONE, FA_MASK_CAUSAL_BOTTOM_RIGHT);
    if (chance(r, 30))
        c->window_left = between(r, 1, 60);
    if (chance(r, 20))
        c->window_right = between(r, 1, 60);
    if (chance(r, 20))
        c->prefix = between(r, 1, 40);
    if (c->mask == FA_MASK_NONE && chance(r, 50))
        c->alignment = (fa_alignment)between(r, FA_ALIGN_DEFAULT, FA_ALIGN_BOTTOM_RIGHT);
    if (chance(r, 25))
        c->diagonal_offset = between(r, -40, 40);
    if (chance(r, 25))
        c->keep_axes = between(r, 0, 15);
}

static void draw_scores(conform_random *r, conform_case *c)
{
    if (chance(r, 25)) {
        c->bias = draw_type(r);
        c->bias_axes = between(r, 0, 15);
        c->bias_holes = chance(r, 40);
    }
    c->repeats = chance(r, 30) ? between(r, 1, 15) : 0;
    c->narrow = chance(r, 50);
    c->singles = chance(r, 15);
    c->alibi = chance(r, 20);
    c->sinks = chance(r, 20);
    c->no_sinks = !c->sinks && chance(r, 5);
    c->no_lse = chance(r, 20);
    c->slopes_each = c->alibi && chance(r, 40);
    c->factors = c->bias_axes != CONFORM_NO_AXES && chance(r, 40);
    if (chance(r, 20))
        c->softcap = (float)between(r, 1, 40);
    if (chance(r, 25))
        c->scale = (float)between(r, -20, 20) / 16;
    c->scale_zero = c->scale == 0 && chance(r, 10);
}

static void draw_hazard(conform_random *r, conform_case *c)
{
    bool in_range = c->q != FA_F16 && c->k != FA_F16; /* f16 ends at 65504 */
    if (!chance(r, 35))
        return;
    c->hazard = (conform_hazard)between(r, CONFORM_LARGE, CONFORM_HIDDEN);
    if (c->hazard == CONFORM_HUGE && !in_range)
        c->hazard = CONFORM_LARGE;
    /* Weights below f32's range are 0 there and not in double precision, which an infinity would show. */
    if (c->hazard == CONFORM_INF_V) {
        c->alibi = false;
        c->scale = 0;
    }
    /* A weight of 0 times NaN: whether a key with a bias of -inf is seen at all is nowhere promised. */
    if (c->hazard == CONFORM_NAN_V || c->hazard == CONFORM_INF_V)
        c->bias_holes = false;
    /* Elsewhere, one key's memory is another's. */
    bool distinct = c->layout <= CONFORM_VIEW;
    if (c->hazard == CONFORM_HIDDEN && !distinct)
        c->layout = CONFORM_BHSD;
}

static void note(char *text, size_t size, const char *format, ...) CLI_PRINTF(3, 4);

static void note(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
}

static void note_axes(char *text, size_t size, const char *name, int axes)
{
    if (axes != CONFORM_NO_AXES)
        note(text, size, " %s-%s%s%s%s", name, axes & 1 ? "b" : "1", axes & 2 ? "h" : "1",
             axes & 4 ? "q" : "1", axes & 8 ? "k" : "1");
}

void conform_describe(const conform_case *c, char *text, size_t size)
{
    static const char *const masks[] = {"", " causal-tl", " causal-br"};
    static const char *const alignments[] = {"", " align-tl", " align-br"};
    static const char *const heads[] = {"", "-kv-heads", "-q-heads"};
    const struct {
        const char *name;
        int32_t value;
    } numbers[] = {{"window-left", c->window_left}, {"window-right", c->window_right},
                   {"prefix", c->prefix},           {"offset", c->diagonal_offset},
                   {"splits", c->splits},           {"block-q", c->block_q},
                   {"block-kv", c->block_kv},       {"page", c->page}};
    conform_case unnamed = *c;
    conform_name(&unnamed, "");
    (void)snprintf(text, size, "%s%s%s", unnamed.name + 1, masks[c->mask], alignments[c->alignment]);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        if (numbers[i].value != 0)
            note(text, size, " %s %d", numbers[i].name, numbers[i].value);
    }
    note_axes(text, size, c->bias_holes ? "bias-holes" : "bias", c->bias_axes);
    note_axes(text, size, "keep", c->keep_axes);
    if (c->keep_bits != 0)
        note(text, size, " keep-bits %d", c->keep_bits);
    if (c->list_rows > 0)
        note(text, size, " list-%dx%d-%d%%%s%s%s", c->list_rows, c->list_keys, c->list_part,
             heads[c->list_heads], c->list_each ? "-each" : "", c->list_mask ? "-mask" : "");
    if (c->repeats != 0)
        note_axes(text, size, "repeated", c->repeats);
    note(text, size, "%s%s", c->slopes_each ? " slopes-each" : "", c->factors ? " factors" : "");
    note(text, size, "%s%s", c->shared_pages ? " shared-pages" : "", c->first ? " first-kv" : "");
    if (c->k_scales.name)
        note(text, size, " k-scales-%s", c->k_scales.name);
    if (c->v_scales.name)
        note(text, size, " v-scales-%s", c->v_scales.name);
    note(text, size, "%s%s%s", c->narrow ? " int32" : "", c->singles ? " singles" : "",
         c->scale_zero ? " scale-0" : "");
    note(text, size, "%s%s%s%s", c->alibi ? " alibi" : "", c->sinks ? " sinks" : "",
         c->no_sinks ? " sinks-inf" : "", c->no_lse ? " no-lse" : "");
    if (c->test == CONFORM_LENGTHS || c->test == CONFORM_DEVICE_LENGTHS)
        note(text, size, c->test == CONFORM_LENGTHS ? " dynamic-lengths" : " device-lengths");
    if (c->softcap > 0)
        note(text, size, " softcap %g", (double)c->softcap);
    if (c->scale != 0)
        note(text, size, " scale %g", (double)c->scale);
    if (c->hazard != CONFORM_TAME)
        note(text, size, " %s", conform_hazard_name(c->hazard));
}

/* Pages where keys are not packed, and rows of q, k and v not beside each other. */
static void draw_cache(conform_random *r, conform_case *c)
{
    const bool packs = c->packing == CONFORM_PACK_BOTH || c->packing == CONFORM_PACK_KV ||
                       c->packing == CONFORM_PACK_GAPS || c->packing == CONFORM_PACK_KV_LENS_Q;
    c->first = chance(r, 20);
    if (packs || c->layout == CONFORM_PACKED || !chance(r, 35))
        return;
    c->page = chance(r, 50) ? 1 << between(r, 0, 7) : between(r, 1, 50);
    c->shared_pages =
        c->hazard < CONFORM_HIDDEN && chance(r, 20); /* what one sequence hides another may see */
    if (c->layout == CONFORM_BROADCAST || c->layout == CONFORM_OVERLAP)
        c->layout = CONFORM_BSHD;
}

/* A format of caches; in some cases one with scales in a tensor of its own. */
static void draw_format(conform_random *r, fa_dtype *type, conform_scales *scales)
{
    *type = (fa_dtype)between(r, FA_E4M3, FA_IQ4_NL);
    if (!chance(r, 40))
        return;
    *type = conform_scaled_types[conform_random_below(r, CONFORM_SCALED_TYPES)];
    *scales = conform_scalings[conform_random_below(r, CONFORM_SCALINGS)];
}

/* K and V in formats of their own, where dims and layout allow. */
static void draw_formats(conform_random *r, conform_case *c)
{
    const bool fits = c->layout != CONFORM_PACKED && c->layout != CONFORM_SHARED &&
                      c->layout != CONFORM_OVERLAP &&
                      (c->hazard == CONFORM_TAME || c->hazard == CONFORM_HIDDEN);
    if (!fits || !chance(r, 30))
        return;
    draw_format(r, &c->k, &c->k_scales);
    draw_format(r, &c->v, &c->v_scales);
    if (chance(r, 50)) {
        c->v = c->k;
        c->v_scales = c->k_scales;
    }
    const int32_t grain = c->k_scales.keys > c->v_scales.keys ? c->k_scales.keys : c->v_scales.keys;
    if (grain > 1)
        c->page = (c->page + grain - 1) / grain * grain;
    c->dim_qk = (c->dim_qk + 31) / 32 * 32;
    c->dim_v = (c->dim_v + 31) / 32 * 32;
}

static void draw_lists(conform_random *r, conform_case *c)
{
    static const int32_t sizes[] = {1, 5, 16, 24, 32, 64, 100, 128};
    if (!chance(r, 20))
        return;
    c->list_rows = sizes[conform_random_below(r, COUNT(sizes))];
    c->list_keys = sizes[conform_random_below(r, COUNT(sizes))];
    c->list_heads = (conform_list_heads)between(r, CONFORM_LIST_SHARED, CONFORM_LIST_HEADS_Q);
    c->list_part = between(r, 0, 10) * 10;
    c->list_each = chance(r, 50);
    c->list_mask = chance(r, 50);
}

void conform_draw(uint64_t seed, int number, conform_case *c)
{
    (void)snprintf(c->name, sizeof(c->name), "random/%03d", number);
    conform_random r = conform_random_of(seed ^ 0x5deece66du, c->name);
    if (chance(&r, 40)) {
        c->blocks = CONFORM_BLOCKS_TWO_TILES;
    } else if (chance(&r, 20)) {
        c->blocks = CONFORM_BLOCKS_NUMBERS;
        c->block_q = between(&r, 1, 70);
        c->block_kv = between(&r, 1, 70);
    }
    if (chance(&r, 15))
        c->splits = between(&r, 2, 5);
    bool forced = c->blocks == CONFORM_BLOCKS_TWO_TILES;
    draw_tensors(&r, c);
    c->len_q = draw_length(&r, forced);
    c->len_kv = draw_length(&r, forced);
    draw_mask(&r, c);
    draw_scores(&r, c);
    draw_hazard(&r, c);
    if (chance(&r, 30))
        c->test = CONFORM_LENGTHS;
    draw_cache(&r, c);
    draw_formats(&r, c);
    if (c->keep_axes != CONFORM_NO_AXES && c->repeats == 0 && chance(&r, 30))
        c->keep_bits = chance(&r, 50) ? -1 : between(&r, 1, 70);
    if (c->test == CONFORM_LENGTHS && chance(&r, 50))
        c->test = CONFORM_DEVICE_LENGTHS;
    c->latent = c->layout == CONFORM_SHARED && chance(&r, 50);
    draw_lists(&r, c);
}
