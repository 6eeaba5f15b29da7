/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/kvtype.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"

static const fa_dtype all[] = {FA_F32,  FA_F16,  FA_BF16,       FA_E4M3,      FA_E5M2,   FA_Q8_0,
                               FA_Q4_0, FA_Q4_1, FA_Q5_0,       FA_Q5_1,      FA_IQ4_NL, FA_I8,
                               FA_I4,   FA_I2,   FA_U8,         FA_U4,        FA_U2,     FA_U1,
                               FA_U2U1, FA_E2M1, FA_BITMAP_F16, FA_FP8_DS_MLA};
static const char *const scalings[] = {
    [KV_UNSCALED] = "",   [KV_TENSOR] = "tensor", [KV_HEAD] = "head",
    [KV_TOKEN] = "token", [KV_GROUP] = "group",   [KV_CHANNEL] = "channel",
};
enum { ALL = sizeof(all) / sizeof(all[0]), SCALINGS = sizeof(scalings) / sizeof(scalings[0]) };

/* What stands behind a colon: a word, and a number where it says of how many. */
static bool find_scaling(const char *text, kv_type *out)
{
    for (int i = KV_TENSOR; i < SCALINGS; i++) {
        const size_t length = strlen(scalings[i]);
        char *end;
        if (strncmp(text, scalings[i], length) != 0)
            continue;
        const long group = strtol(text + length, &end, 10);
        const bool numbered = i == KV_GROUP || i == KV_CHANNEL;
        if (numbered && !isdigit((unsigned char)text[length]))
            return false;
        if (*end || numbered != (end > text + length) || (numbered && (group < 1 || group > 1 << 20)))
            return false;
        out->scaling = (kv_scaling)i;
        out->group = numbered ? (int32_t)group : 0;
        return true;
    }
    return false;
}

/* Likewise of bitmap_f16: a part, which has a point, or a number of elements. */
static bool find_kept(const char *text, kv_type *out)
{
    char *end;
    const double kept = strtod(text, &end);
    const bool is_part = strchr(text, '.') != NULL;
    if (!isdigit((unsigned char)text[0]) || strspn(text, "0123456789.") < strlen(text) || *end ||
        !(kept > 0) || kept > (is_part ? 1 : FA_MAX_HEAD_DIM))
        return false;
    out->rows = is_part ? (kv_rows){.part = kept} : (kv_rows){.count = (int32_t)kept};
    return true;
}

static bool find(const char *command, const char *text, size_t length, kv_type *out)
{
    const char *names[ALL];
    char word[48];
    (void)snprintf(word, sizeof(word), "%.*s", (int)(length < sizeof(word) ? length : sizeof(word)), text);
    char *colon = strchr(word, ':');
    *out = (kv_type){.scaling = KV_UNSCALED};
    if (colon)
        *colon = '\0';
    for (int i = 0; i < ALL; i++)
        names[i] = fa_dtype_name(all[i]);
    const int index = cli_word(command, "kv-type", word, names, ALL);
    if (index < 0)
        return false;
    out->dtype = all[index];
    const bool prunes = out->dtype == FA_BITMAP_F16;
    if (colon ? (prunes ? find_kept : find_scaling)(colon + 1, out) : !prunes)
        return true;
    cli_error(command, "--kv-type is '%s%s%s', expected %s behind %s colon", word, colon ? ":" : "",
              colon ? colon + 1 : "",
              prunes ? "a part of a row's elements such as 0.5, or their number"
                     : "tensor, head, token, groupN or channelN",
              colon ? "the" : "a");
    return false;
}

bool kv_types_option(const char *command, const char *text, kv_types *out)
{
    *out = (kv_types){.given = text != NULL};
    if (!text)
        return true;
    const char *comma = strchr(text, ',');
    const size_t length = comma ? (size_t)(comma - text) : strlen(text);
    const char *of_v = comma ? comma + 1 : text;
    return find(command, text, length, &out->k) && find(command, of_v, strlen(of_v), &out->v);
}

static bool is_whole(const char *command, const kv_type *t)
{
    const bool is_fp8 = t->dtype == FA_E4M3 || t->dtype == FA_E5M2,
               is_bare = t->dtype >= FA_I8 && t->dtype < FA_FP8_DS_MLA;
    if (is_bare && t->scaling == KV_UNSCALED)
        cli_error(
            command,
            "--kv-type is %s, expected its scales behind a colon: tensor, head, token, groupN or channelN",
            fa_dtype_name(t->dtype));
    else if (!is_bare && !is_fp8 && t->scaling != KV_UNSCALED)
        cli_error(command, "--kv-type is %s with scales, expected none", fa_dtype_name(t->dtype));
    else
        return true;
    return false;
}

bool kv_types_whole(const char *command, const kv_types *types)
{
    return !types->given || (is_whole(command, &types->k) && is_whole(command, &types->v));
}

void kv_types_describe(const kv_types *types, fa_attention_desc *d)
{
    if (!types->given)
        return;
    d->k.dtype = types->k.dtype;
    d->v.dtype = types->v.dtype;
}

fa_dtype kv_scale_type(const kv_type *t)
{
    if (t->dtype != FA_E2M1)
        return FA_F16;
    return t->scaling == KV_GROUP && t->group == 16 ? FA_E4M3 : FA_E8M0;
}

bool kv_has_zeros(const kv_type *t)
{
    return t->dtype == FA_U8 || t->dtype == FA_U4 || t->dtype == FA_U2 || t->dtype == FA_U1 ||
           t->dtype == FA_U2U1;
}

int64_t kv_kept(kv_rows rows, int64_t dims)
{
    const int64_t part = (int64_t)round(rows.part * (double)dims);
    return rows.part == 0 ? rows.count : part < 1 ? 1 : part;
}

/* Rows that keep some elements. */
static bool prune(const kv_type *t, fa_tensor *of, bool v_in_k, char *why, size_t size)
{
    const fa_tensor given = *of;
    const int64_t *s = given.shape, kept = kv_kept(t->rows, s[3]);
    if (t->dtype != FA_BITMAP_F16)
        return true;
    if (v_in_k)
        (void)snprintf(why, size, "--kv-type is bitmap_f16, expected another with --v-in-k");
    else if (kept > s[3])
        (void)snprintf(why, size, "--kv-type is bitmap_f16:%lld, expected at most %lld elements of a row",
                       (long long)kept, (long long)s[3]);
    else
        *of = fa_tensor_make_bitmap(s[0], s[1], s[2], s[3], kept);
    for (int axis = 0; axis < 3 && given.stride[3] == 1 && s[3] > 0; axis++)
        of->stride[axis] = given.stride[axis] / s[3] * of->stride[3];
    return !v_in_k && kept <= s[3];
}

static bool scale(const kv_type *t, const fa_tensor *of, fa_tensor *scales, fa_tensor *zeros, char *why,
                  size_t size)
{
    const bool each = t->scaling >= KV_TOKEN, in_keys = t->scaling == KV_CHANNEL;
    const int64_t keys = in_keys ? t->group : 1, dims = t->scaling == KV_GROUP ? t->group : of->shape[3];
    if (t->scaling == KV_UNSCALED)
        return true;
    if (of->shape[2] % keys != 0 || of->shape[3] % dims != 0) {
        (void)snprintf(why, size, "--kv-type is %s:%s%d, expected a divisor of %lld %s",
                       fa_dtype_name(t->dtype), scalings[t->scaling], (int)t->group,
                       (long long)of->shape[in_keys ? 2 : 3], in_keys ? "keys" : "dims");
        return false;
    }
    *scales =
        fa_tensor_make(kv_scale_type(t), each ? of->shape[0] : 1, t->scaling == KV_TENSOR ? 1 : of->shape[1],
                       each ? of->shape[2] / keys : 1, in_keys ? of->shape[3] : of->shape[3] / dims);
    if (kv_has_zeros(t)) {
        *zeros = *scales;
        zeros->dtype = FA_F16;
    }
    return true;
}

bool kv_types_scale(const kv_types *types, fa_attention_desc *d, char *why, size_t size)
{
    const bool shared = d->v_in_k != 0;
    return !types->given ||
           (prune(&types->k, &d->k, shared, why, size) && prune(&types->v, &d->v, shared, why, size) &&
            scale(&types->k, &d->k, &d->k_scale, &d->k_zero, why, size) &&
            scale(&types->v, &d->v, &d->v_scale, &d->v_zero, why, size));
}

void kv_type_print(const kv_type *t, char *text, size_t size)
{
    (void)snprintf(text, size, "%s%s%s", fa_dtype_name(t->dtype), t->scaling ? ":" : "",
                   scalings[t->scaling]);
    if (t->group > 0)
        (void)snprintf(text + strlen(text), size - strlen(text), "%d", (int)t->group);
    if (t->rows.count > 0)
        (void)snprintf(text + strlen(text), size - strlen(text), ":%d", (int)t->rows.count);
    else if (t->rows.part > 0)
        (void)snprintf(text + strlen(text), size - strlen(text), ":%g%s", t->rows.part,
                       t->rows.part == 1 ? ".0" : "");
}

void kv_types_share(fa_attention_desc *d)
{
    d->v_in_k = 1;
    memcpy(d->v.stride, d->k.stride, sizeof(d->v.stride));
    if (d->k.stride[3])
        return;
    d->v.stride[3] = 1;
    for (int axis = 2; axis >= 0; axis--)
        d->v.stride[axis] = d->v.stride[axis + 1] * d->k.shape[axis + 1];
}

void kv_types_print(const kv_types *types, fa_dtype dtype, char *text, size_t size)
{
    char k[32], v[32];
    kv_type_print(&types->k, k, sizeof(k));
    kv_type_print(&types->v, v, sizeof(v));
    if (!types->given)
        (void)snprintf(text, size, "%s", fa_dtype_name(dtype));
    else if (!strcmp(k, v))
        (void)snprintf(text, size, "%s:%s", fa_dtype_name(dtype), k);
    else
        (void)snprintf(text, size, "%s:%s,%s", fa_dtype_name(dtype), k, v);
}
