/* SPDX-License-Identifier: Apache-2.0 */
/* A list of cases, and their names. */
#include <stdarg.h>
#include <stdlib.h>

#include "tools/conform/cases.h"

static void print_length(conform_length length, char *text, size_t size)
{
    static const char *const bases[] = {"", "tile", "block"};
    if (length.base == CONFORM_FIXED)
        (void)snprintf(text, size, "%d", length.add);
    else if (length.add == 0)
        (void)snprintf(text, size, "%s", bases[length.base]);
    else
        (void)snprintf(text, size, "%s%+d", bases[length.base], length.add);
}

static void print_types(const conform_case *c, char *text, size_t size)
{
    if (c->q == c->k && c->k == c->v && c->v == c->o)
        (void)snprintf(text, size, "%s", fa_dtype_name(c->q));
    else
        (void)snprintf(text, size, "%s.%s.%s.%s", fa_dtype_name(c->q), fa_dtype_name(c->k),
                       fa_dtype_name(c->v), fa_dtype_name(c->o));
}

void conform_name(conform_case *c, const char *label)
{
    static const char *const layouts[CONFORM_LAYOUTS] = {"",           "/bshd",   "/packed-qkv", "/view",
                                                         "/broadcast", "/v-in-k", "/overlap"};
    static const char *const packings[CONFORM_PACKINGS] = {
        "",         "/seq-both",   "/seq-q",  "/seq-kv", "/seq-gaps",
        "/lens-kv", "/seq-q-lens", "/lens-q", "/lens",   "/seq-kv-lens-q"};
    char types[40], len_q[24], len_kv[24], dims[24];
    print_types(c, types, sizeof(types));
    print_length(c->len_q, len_q, sizeof(len_q));
    print_length(c->len_kv, len_kv, sizeof(len_kv));
    (void)snprintf(dims, sizeof(dims), c->dim_qk == c->dim_v ? "d%d" : "d%d-dv%d", c->dim_qk, c->dim_v);
    (void)snprintf(c->name, sizeof(c->name), "%s/%s/sq%s-skv%s/b%d-h%d-hk%d/%s%s%s", label, types, len_q,
                   len_kv, c->batch, c->heads_q, c->heads_kv, dims, layouts[c->layout], packings[c->packing]);
}

bool conform_append(conform_list *list, const conform_case *c)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 256;
        conform_case *grown = realloc(list->cases, room * sizeof(*grown));
        if (!grown)
            return false;
        list->cases = grown;
        list->room = room;
    }
    list->cases[list->count++] = *c;
    return true;
}

bool conform_add(conform_list *list, const conform_case *c, const char *label, ...)
{
    char text[64];
    va_list arguments;
    conform_case named = *c;
    va_start(arguments, label);
    (void)vsnprintf(text, sizeof(text), label, arguments);
    va_end(arguments);
    conform_name(&named, text);
    return conform_append(list, &named);
}

void conform_list_free(conform_list *list)
{
    free(list->cases);
    *list = (conform_list){0};
}
