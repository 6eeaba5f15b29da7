/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was expensive to make, kept on disk between processes: a blob by the text of its key. It knows
 * nothing of any backend. Every failure is a miss: nothing here is ever an error.
 *
 * The folder is FASTATTN_CACHE, else $XDG_CACHE_HOME/fastattn, else $HOME/.cache/fastattn; FASTATTN_CACHE
 * "off" or empty means none, and a program with more rights
 * than the user who started it has none. Any number of threads and processes may use one folder.
 *
 * A folder is made for its user alone. One that belongs to another user, or that its group or others may
 * write to, is not used. An entry is taken only where it is a regular file under the same conditions, never
 * through a symbolic link. Only names that nobody else gives are ever removed: see cache.c.
 */
#ifndef FA_GPU_CACHE_H
#define FA_GPU_CACHE_H

#include <fastattn/context.h>
#include <stdbool.h>

/* The oldest files go when all together are larger than this. */
#define FA_CACHE_BYTES ((size_t)64 << 20)

/* A 64-bit hash of bytes (FNV-1a). */
uint64_t fa_cache_hash(const void *bytes, size_t size);

/* The blob stored last under this key, verified; release it with fa_release(). False: there is none. */
bool fa_cache_load(const fa_context *context, const char *key, void **blob, size_t *size);

/* Stores a blob in the place of what the key had. The first failure of the process is logged. */
void fa_cache_store(const fa_context *context, const char *key, const void *blob, size_t size);

#endif
