/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_STATUS_H
#define FA_CORE_STATUS_H

#include <fastattn/common.h>

#define FA_MESSAGE_SIZE 1024

/* Sets this thread's message and returns `status`, so that a check is one line. */
fa_status fa_fail(fa_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Called on entry by every public function that can fail: no stale message survives a success. */
void fa_clear_error(void);

#endif
