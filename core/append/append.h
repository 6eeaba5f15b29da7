/* SPDX-License-Identifier: Apache-2.0 */
/* Appends after validation. */
#ifndef FA_CORE_APPEND_H
#define FA_CORE_APPEND_H

#include <fastattn/append.h>

#include "core/task_words.h"

#define FA_APPEND_SCALES
#include "core/portable/append.h"

enum { FA_APPEND_OPERANDS = FA_APPEND_V_ZERO + 1 };

/* Parameters, and the list behind them. */
typedef struct fa_append_words {
    fa_append_params params;
    fa_turn turn[FA_MAX_HEAD_DIM / 2];
} fa_append_words;
_Static_assert(offsetof(fa_append_words, turn) % sizeof(fa_turn) == 0,
               "entries are counted from the beginning");

struct fa_append {
    fa_device *device;
    fa_tensor tensor[FA_APPEND_OPERANDS]; /* normalised; no elements where there is none */
    size_t span[FA_APPEND_OPERANDS];
    int64_t batch, heads, rows; /* new ones           */
    int64_t entries, keys;      /* of the cache       */
    int64_t heads_q;
    bool has[FA_APPEND_OPERANDS], written[FA_APPEND_OPERANDS];
    fa_rotary rotary;
    fa_append_words words;
    fa_task task;
};

#endif
