/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are not yet what they will be. None is left behind by a return, nor by a signal that ends the process:
 * from the first on, signals whose action is still the default have a handler that removes them all, then ends
 * the process as the signal would have. Only SIGKILL and power cuts leave one.
 */
#ifndef FASTATTN_TOOLS_IO_TEMPORARY_H
#define FASTATTN_TOOLS_IO_TEMPORARY_H

#include <stdbool.h>
#include <stddef.h>

typedef struct io_temporary {
    char *name; /* NULL: there is none */
} io_temporary;

/* Makes a file that is called ".fastattn-<process>-<number>.tmp" in the folder that the first `length` bytes of `path`
 * name, and opens it for writing. -1 with errno: it could not be made. */
int io_temporary_open(io_temporary *t, const char *path, size_t length);

/* Gives the files their names, or as many as it can, and no signal comes between two of them. Returns how many
 * have theirs; errno says why the next has not. */
int io_temporary_rename(io_temporary *const *files, const char *const *names, int count);

/* Removes it, where it is still there. */
void io_temporary_remove(io_temporary *t);

#endif
