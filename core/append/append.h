/* SPDX-License-Identifier: Apache-2.0 */
/* Appends after validation. */
#ifndef FA_CORE_APPEND_H
#define FA_CORE_APPEND_H

#include <fastattn/append.h>

#include "core/task_words.h"

#include "core/portable/append.h"

enum { FA_APPEND_OPERANDS = FA_APPEND_SLOTS + 1 };

struct fa_append {
    fa_device *device;
    fa_tensor tensor[FA_APPEND_OPERANDS]; /* normalised; no elements where there is no v */
    size_t span[FA_APPEND_OPERANDS];
    int64_t batch, heads, rows; /* new ones           */
    int64_t entries, keys;      /* of the cache       */
    bool has_v;
    fa_append_params params;
    fa_task task;
};

#endif
