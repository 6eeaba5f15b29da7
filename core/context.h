/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_CONTEXT_H
#define FA_CORE_CONTEXT_H

#include <fastattn/context.h>

#include "core/status.h"

struct fa_context {
    fa_context_options options;
};

/* Host memory from the caller's allocator, aligned to 64 bytes. NULL with the message set when there is
 * none. A size of 0 gives memory too. Release with the same size. */
void *fa_alloc(const fa_context *context, size_t size);
void *fa_alloc_zeroed(const fa_context *context, size_t size);
void fa_release(const fa_context *context, void *memory, size_t size);

void fa_log(const fa_context *context, fa_log_level level, const char *format, ...) FA_PRINTF(3, 4);

#endif
