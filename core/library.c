/* SPDX-License-Identifier: Apache-2.0 */
#include "core/library.h"

#include <stdio.h>

#if defined(_WIN32)
void *fa_library_open(fa_library *l)
{
    (void)snprintf(l->failure, sizeof(l->failure), "%s is not opened: on Windows, no library is",
                   l->names[0]);
    return NULL;
}

bool fa_library_load(fa_library *l, const fa_library_symbol *symbols, size_t count, void *table)
{
    (void)symbols;
    (void)count;
    (void)table;
    return fa_library_open(l) != NULL;
}

void fa_library_load_optional(fa_library *l, const fa_library_symbol *symbols, size_t count, void *table)
{
    (void)l;
    (void)symbols;
    (void)count;
    (void)table;
}
#else
#include <dlfcn.h>
#include <string.h>

#include "core/environment.h"
#include "core/platform.h"

static void *open_name(const char *name)
{
#if defined(RTLD_NOLOAD)
    return dlopen(name, RTLD_NOW | RTLD_LOCAL | (fa_is_privileged() ? RTLD_NOLOAD : 0));
#else
    return fa_is_privileged() ? NULL : dlopen(name, RTLD_NOW | RTLD_LOCAL);
#endif
}

void *fa_library_open(fa_library *l)
{
    const char *forced = fa_environment(l->variable);
    const char *const only[] = {forced, NULL};
    bool by_name = !forced || !forced[0];
    if (fa_is_static_program()) {
        (void)snprintf(
            l->failure, sizeof(l->failure),
            "%s is not opened: this program is linked statically, and drivers need a dynamic loader",
            l->names[0]);
        return NULL;
    }
    for (const char *const *name = by_name ? l->names : only; *name; name++) {
        void *handle = open_name(*name);
        if (handle)
            return handle;
        if (fa_is_privileged()) {
            (void)snprintf(
                l->failure, sizeof(l->failure),
                "%s is not opened: this program has more rights than who started it, whose environment "
                "drivers obey",
                l->names[0]);
            continue;
        }
        const char *error = dlerror();
        if (l->failure[0] == '\0')
            (void)snprintf(l->failure, sizeof(l->failure), "%s%s%s", by_name ? "" : l->variable,
                           by_name ? "" : ": ", error ? error : *name);
    }
    return NULL;
}

bool fa_library_load(fa_library *l, const fa_library_symbol *symbols, size_t count, void *table)
{
    void *handle = fa_library_open(l);
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

void fa_library_load_optional(fa_library *l, const fa_library_symbol *symbols, size_t count, void *table)
{
    void *handle = fa_library_open(l);
    l->failure[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        void *symbol = handle ? dlsym(handle, symbols[i].name) : NULL;
        memcpy((char *)table + symbols[i].offset, &symbol, sizeof(symbol));
    }
}
#endif
