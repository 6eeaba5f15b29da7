/* SPDX-License-Identifier: Apache-2.0 */
/* Where the sequences of a problem lie, and how long they are: from the lists of a description, or of one run. */
#ifndef FA_CORE_ATTENTION_SEQUENCES_H
#define FA_CORE_ATTENTION_SEQUENCES_H

#include "core/attention/problem.h"

/* The caller's offsets or lengths, in either width; neither where there are none. */
typedef struct fa_index_list {
    const char *name;
    const int64_t *wide;
    const int32_t *narrow;
} fa_index_list;

/* Of rows, or of keys. */
typedef struct fa_side_lists {
    fa_index_list cu, lens, first;
} fa_side_lists;

static inline bool fa_index_is_given(const fa_index_list *list)
{
    return list->wide || list->narrow;
}

static inline int64_t fa_index_at(const fa_index_list *list, int64_t n)
{
    return list->wide ? list->wide[n] : list->narrow[n];
}

/* The lists of rows and of keys, each in one width. They are the caller's. */
fa_status fa_sequences_lists(const fa_lengths *d, fa_side_lists *q, fa_side_lists *kv);

/* The same, of which a side has offsets or lengths. */
fa_status fa_sequences_take(const fa_lengths *d, fa_side_lists *q, fa_side_lists *kv);

/* A list that lengths may not have here, because of `why`. */
fa_status fa_sequences_no_list(const fa_index_list *list, const char *why);

/* Lengths that leave the rows of each sequence as the description has them: of keys alone. */
fa_status fa_sequences_keep_rows(const fa_lengths *d);

/* Validates the lists of a description, and counts sequences. */
fa_status fa_sequences_check(fa_problem *p, const fa_attention_desc *d, const fa_side_lists *q,
                             const fa_side_lists *kv);

/* What is valid becomes the problem's sequences, which have room. */
void fa_sequences_fill(fa_problem *p, const fa_side_lists *q, const fa_side_lists *kv);

/* Whether int holds the packed rows of each sequence. */
fa_status fa_sequences_check_rows(const fa_problem *p);

#endif
