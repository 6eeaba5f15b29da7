/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of single keys: a plan whose sequences are rows, each with pages of one key. */
#ifndef FA_CORE_KEY_LISTS_H
#define FA_CORE_KEY_LISTS_H

#include <fastattn/key_lists.h>

#include "core/attention/problem.h"
#include "core/task_words.h"

#include "core/portable/key_list.h"

struct fa_key_lists {
    fa_device *device;
    fa_problem problem; /* the caller's, of which k's memory and its scales' may be pools of pages */
    int64_t lists, topk, heads;
    size_t table_span; /* of the caller's page table; 0: none */
    fa_plan *plan;
    /* Work is the plan's, then lengths, a page for each number, page tables. */
    size_t lengths_at, found_at, pages_at, work;
    /* The task that searches lists for keys that stand there twice, and the one that does not. */
    fa_key_list_params params[2];
    fa_task task[2];
    int tasks; /* that are prepared */
};

/*
 * Fills all up to the plan, which is to be made of *plan, with fa_key_lists_edit() of `lists`. Lengths of *plan are `lengths`,
 * which the caller releases: `lists` of them, NULL where there is none. Release with fa_key_lists_release_problem(), whatever
 * this returns.
 */
fa_status fa_key_lists_describe(fa_key_lists *lists, const fa_key_lists_desc *desc, fa_attention_desc *plan);
void fa_key_lists_release_problem(fa_key_lists *lists);

/* A fa_problem_edit of such a plan: where q, o and LSEs of each row lie. */
fa_status fa_key_lists_edit(fa_problem *problem, const void *lists);

#endif
