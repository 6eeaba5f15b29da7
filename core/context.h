/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_CONTEXT_H
#define FA_CORE_CONTEXT_H

#include <fastattn/context.h>

struct fa_context {
    fa_context_options options;
};

/* Host memory from the caller's allocator, aligned to 64 bytes. NULL with the message set when there is
 * none. A size of 0 gives memory too. Release with the same size. */
void *fa_alloc(const fa_context *context, size_t size);
void *fa_alloc_zeroed(const fa_context *context, size_t size);
void fa_release(const fa_context *context, void *memory, size_t size);

void fa_log(const fa_context *context, fa_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Copies a caller's struct of any version into ours: the fields it has, zero for the rest. A struct larger
 * than ours is fine as long as what we do not know is zero. `name` is the type's, for the message.
 */
fa_status fa_copy_struct(void *ours, size_t our_size, size_t oldest_size, const void *theirs,
                         const char *name);

#endif
