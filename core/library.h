/* SPDX-License-Identifier: Apache-2.0 */
/* A library that is opened at run time, and its functions in a table. Never closed: drivers leave threads behind. */
#ifndef FA_CORE_LIBRARY_H
#define FA_CORE_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fa_library {
    const char *variable;     /* of the environment, which overrides the names            */
    const char *const *names; /* in order of preference; the last is NULL                 */
    const char *what;         /* "the OpenCL library"                                     */
    const char *expected;     /* of one that lacks a function: "expected OpenCL 1.2"      */
    char failure[256];        /* why it cannot be used; "" where it can                   */
} fa_library;

typedef struct fa_library_symbol {
    const char *name;
    size_t offset; /* of the pointer to it in the table */
} fa_library_symbol;

/*
 * The first that opens. NULL with `failure`: of several names, why the first, the one to install, did not. A privileged
 * program gets what it has loaded itself and no other: loaders and drivers obey the environment of who started it. A
 * statically linked program gets none.
 */
void *fa_library_open(fa_library *library);

/* Opens it and fills the table. False with `failure`. */
bool fa_library_load(fa_library *library, const fa_library_symbol *symbols, size_t count, void *table);

/* Of one that was loaded, functions that it may lack: NULL in the table. */
void fa_library_load_optional(fa_library *library, const fa_library_symbol *symbols, size_t count,
                              void *table);

#endif
