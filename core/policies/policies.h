/* SPDX-License-Identifier: Apache-2.0 */
/* What policies for caches share: checks, and lists in the making. */
#ifndef FA_CORE_POLICIES_H
#define FA_CORE_POLICIES_H

#include <fastattn/policies.h>
#include <stdbool.h>

#include "core/status.h"

/* Heads and keys, whose rows are numbers of 32 bits. */
fa_status fa_policy_check_keys(int64_t heads, int64_t keys);

/* Copies what the caller gave; `weighted`: weights must be there. */
fa_status fa_policy_lists_copy(fa_policy_lists *to, const fa_policy_lists *lists, bool weighted);

/* Lists in the making, from the first list of head 0 on. */
typedef struct fa_policy_writer {
    fa_policy_lists to;
    int64_t keys, lists, entries;
} fa_policy_writer;

fa_policy_writer fa_policy_begin(const fa_policy_lists *to, int64_t keys);
/* One entry of the list at hand. */
void fa_policy_add(fa_policy_writer *w, int64_t head, int64_t key, double weight);
/* The list is complete. */
void fa_policy_next(fa_policy_writer *w);
/* So are those of a head. */
void fa_policy_end_head(fa_policy_writer *w, int64_t head);
/* A list of one key. */
void fa_policy_keep(fa_policy_writer *w, int64_t head, int64_t key);

#endif
