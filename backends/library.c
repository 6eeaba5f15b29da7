/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *open_library(fa_library *l)
{
    const char *forced = getenv(l->variable);
    const char *const only[] = {forced, NULL};
    bool by_name = !forced || !forced[0];
    for (const char *const *name = by_name ? l->names : only; *name; name++) {
        void *handle = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
        if (handle)
            return handle;
        const char *error = dlerror();
        if (l->failure[0] == '\0')
            (void)snprintf(l->failure, sizeof(l->failure), "%s%s%s", by_name ? "" : l->variable,
                           by_name ? "" : ": ", error ? error : *name);
    }
    return NULL;
}

bool fa_library_load(fa_library *l, const fa_library_symbol *symbols, size_t count, void *table)
{
    void *handle = open_library(l);
    if (!handle)
        return false;
    l->failure[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(handle, symbols[i].name);
        if (!symbol) {
            (void)snprintf(l->failure, sizeof(l->failure), "%s has no function %s, %s", l->what,
                           symbols[i].name, l->expected);
            return false;
        }
        /* POSIX promises that a function's address fits; ISO C has no cast for it. */
        memcpy((char *)table + symbols[i].offset, &symbol, sizeof(symbol));
    }
    return true;
}
