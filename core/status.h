/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_STATUS_H
#define FA_CORE_STATUS_H

#include <fastattn/common.h>

#include "core/assumptions.h"

#define FA_MESSAGE_SIZE 1024

/* Which printf a function's format is of: MinGW has Windows' own, too. */
#if defined(__MINGW32__)
#define FA_PRINTF(format_at, first) __attribute__((format(gnu_printf, format_at, first)))
#else
#define FA_PRINTF(format_at, first) __attribute__((format(printf, format_at, first)))
#endif

/* Sets this thread's message and returns `status`, so that a check is one line. */
fa_status fa_fail(fa_status status, const char *format, ...) FA_PRINTF(2, 3);

/* Leaves the function with the status of a call that failed. */
#define FA_TRY(call)                \
    do {                            \
        fa_status status_ = (call); \
        if (status_ != FA_OK)       \
            return status_;         \
    } while (0)

/* Called on entry by every public function that can fail: no stale message survives a success. */
void fa_clear_error(void);

/* The last step of a public function that may have tried in vain before it succeeded: a success leaves no message. */
fa_status fa_finish(fa_status status);

/* This thread's message, for what must leave it as it was: destroying things. */
typedef struct fa_message {
    char text[FA_MESSAGE_SIZE];
} fa_message;

fa_message fa_message_keep(void);
void fa_message_restore(const fa_message *kept);

#endif
