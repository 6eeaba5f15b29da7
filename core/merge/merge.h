/* SPDX-License-Identifier: Apache-2.0 */
/* Merges after validation. */
#ifndef FA_CORE_MERGE_H
#define FA_CORE_MERGE_H

#include <fastattn/merge.h>

#include "core/task_words.h"

#include "core/portable/merge.h"

enum { FA_MERGE_OPERANDS = FA_MERGE_FACTORS + 1 };

struct fa_merge {
    fa_device *device;
    fa_merge_desc desc; /* normalised */
    size_t span[FA_MERGE_OPERANDS];
    fa_merge_params params;
    fa_task task;
};

#endif
