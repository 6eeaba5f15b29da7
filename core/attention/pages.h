/* SPDX-License-Identifier: Apache-2.0 */
/* Page tables that lie in the host's memory. */
#ifndef FA_CORE_ATTENTION_PAGES_H
#define FA_CORE_ATTENTION_PAGES_H

#include "core/attention/problem.h"

/* The page of a key of sequence n, by the number that the key has in its sequence. */
static inline int64_t fa_page_of(const fa_problem *p, const int32_t *table, int64_t n, int64_t key)
{
    return table[n * p->tensor[FA_PAGES].stride[0] + key / p->tensor[FA_K].shape[2]];
}

/*
 * FA_INVALID where one of the pages that hold `keys` keys of sequence n, from key `first` on, is none of the pool's; the
 * message names the entry. FA_OK without pages.
 */
fa_status fa_pages_check(const fa_problem *problem, const int32_t *table, int64_t n, int64_t first,
                         int64_t keys);

/* The same of all sequences of a run, as its work has them. FA_INVALID also where one has more keys than its pages hold. */
fa_status fa_pages_check_sequences(const fa_problem *problem, const int32_t *table,
                                   const fa_table_sequence *sequences);

#endif
