/* SPDX-License-Identifier: Apache-2.0 */
/* The suite with a cache of the caller's: k and v of other types, and in pages. */
#include <stdio.h>
#include <string.h>

#include "tools/conform/cases.h"

static bool is_row(const char *command, const kv_type *t)
{
    if (t->dtype == FA_FP8_DS_MLA)
        cli_error(command,
                  "--kv-type is fp8_ds_mla, expected another: its rows are k and v in one, which --filter "
                  "'*latent-row*' chooses");
    return t->dtype == FA_FP8_DS_MLA;
}

bool conform_cache_options(const char *command, const char *types, int64_t page, int64_t scatter,
                           conform_cache *out)
{
    if (!kv_types_option(command, types, &out->types) || !pages_options(command, page, scatter, &out->pages))
        return false;
    if (out->types.given && (is_row(command, &out->types.k) || is_row(command, &out->types.v)))
        return false;
    return kv_types_whole(command, &out->types);
}

void conform_cache_print(const conform_cache *cache, char *text, size_t size)
{
    char k[32], v[32];
    size_t used = 0;
    text[0] = '\0';
    if (cache->types.given) {
        kv_type_print(&cache->types.k, k, sizeof(k));
        kv_type_print(&cache->types.v, v, sizeof(v));
        used = (size_t)snprintf(text, size, " --kv-type %s%s%s", k, strcmp(k, v) ? "," : "",
                                strcmp(k, v) ? v : "");
    }
    if (cache->pages.keys && used < size)
        used += (size_t)snprintf(text + used, size - used, " --page %d", (int)cache->pages.keys);
    if (cache->pages.seed != PAGES_IN_ORDER && used < size)
        (void)snprintf(text + used, size - used, " --scatter %lld", (long long)cache->pages.seed);
}

static conform_scales scales_of(const kv_type *t)
{
    static const char *const names[] = {NULL, "tensor", "head", "token", "group", "channel"};
    const bool each = t->scaling >= KV_TOKEN;
    return (conform_scales){
        .name = names[t->scaling],
        .type = kv_scale_type(t),
        .batch = each,
        .head = t->scaling >= KV_HEAD,
        .keys = t->scaling == KV_CHANNEL ? t->group : each,
        .dims = t->scaling == KV_CHANNEL ? 1 : t->group,
        .zero = kv_has_zeros(t),
    };
}

static bool divides(const kv_type *t, int32_t dim, int32_t page)
{
    if (t->dtype == FA_BITMAP_F16)
        return dim % 8 == 0 && kv_kept(t->rows, dim) <= dim;
    return dim % (int32_t)fa_dtype_block(t->dtype) == 0 && (t->scaling != KV_GROUP || dim % t->group == 0) &&
           (t->scaling != KV_CHANNEL || page % t->group == 0);
}

/* Of cases whose k and v are as q, and whose numbers the types can hold. */
static bool take_types(const kv_types *types, conform_case *c)
{
    const bool plain = c->k == c->q && c->v == c->q && !c->k_scales.name && !c->v_scales.name;
    const bool tame = (c->hazard == CONFORM_TAME || c->hazard == CONFORM_HIDDEN) && !c->ramp &&
                      c->gain_k == 0 && c->gain_v == 0;
    const bool apart = c->layout != CONFORM_PACKED && c->layout != CONFORM_OVERLAP &&
                       (c->layout != CONFORM_SHARED ||
                        (types->k.dtype == types->v.dtype && types->k.dtype != FA_BITMAP_F16));
    if (!plain || !tame || !apart || c->test == CONFORM_MERGE || !divides(&types->k, c->dim_qk, c->page) ||
        !divides(&types->v, c->dim_v, c->page))
        return false;
    c->k = types->k.dtype;
    c->v = types->v.dtype;
    c->k_scales = scales_of(&types->k);
    c->v_scales = scales_of(&types->v);
    c->rows_k = types->k.rows;
    c->rows_v = types->v.rows;
    return true;
}

/* Of cases whose keys lie in entries of their own. */
static bool take_pages(const paging *pages, conform_case *c)
{
    const bool packs = c->packing == CONFORM_PACK_BOTH || c->packing == CONFORM_PACK_KV ||
                       c->packing == CONFORM_PACK_GAPS || c->packing == CONFORM_PACK_KV_LENS_Q;
    const bool apart =
        c->layout != CONFORM_PACKED && c->layout != CONFORM_BROADCAST && c->layout != CONFORM_OVERLAP;
    if (c->page > 0 || packs || !apart || c->test == CONFORM_MERGE)
        return false;
    c->page = pages->keys;
    c->order = pages;
    return true;
}

static void add_to_name(const conform_cache *cache, conform_case *c)
{
    char text[96], *part = text;
    conform_cache_print(cache, text, sizeof(text));
    while ((part = strstr(part, " --"))) { /* " --kv-type q8_0 --page 16" as "/kv-type=q8_0/page=16" */
        char *value = strchr(part + 3, ' ');
        memmove(part + 1, part + 3, strlen(part + 3) + 1);
        part[0] = '/';
        if (value)
            value[-2] = '=';
    }
    const size_t used = strlen(c->name);
    (void)snprintf(c->name + used, sizeof(c->name) - used, "%s", text);
}

void conform_list_take(const conform_cache *cache, conform_list *list)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        conform_case c = list->cases[i];
        const bool taken = (!cache->pages.keys || take_pages(&cache->pages, &c)) &&
                           (!cache->types.given || take_types(&cache->types, &c));
        if (!taken)
            continue;
        if (cache->types.given || cache->pages.keys)
            add_to_name(cache, &c);
        list->cases[kept++] = c;
    }
    list->count = kept;
}
