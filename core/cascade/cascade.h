/* SPDX-License-Identifier: Apache-2.0 */
/* Cascades: levels of pages that sequences share, and the plans that run them. */
#ifndef FA_CORE_CASCADE_H
#define FA_CORE_CASCADE_H

#include <fastattn/cascade.h>

#include "core/attention/problem.h"
#include "core/parts/parts.h"

/* Sequences of a group, and the pages that it shares on its level. A group without pages fills a gap. */
typedef struct fa_cascade_level_lists {
    int64_t groups, pages;
    int64_t width;        /* the page behind the last that any group reads, as its sequences count them */
    int64_t *first, *end; /* the keys of each group, as its sequences count them                        */
    int64_t *cu_sequences, *cu_rows, *lens;
    int32_t *table;
} fa_cascade_level_lists;

struct fa_cascade {
    const fa_context *context;
    fa_problem problem; /* the caller's, without a cascade */
    int64_t sequences, levels;
    double bytes_flat, bytes;
    int64_t *first; /* the first key of each sequence's own */
    fa_cascade_level_lists level[FA_CASCADE_MAX_LEVELS];

    /* Where it runs; NULL: nowhere. */
    fa_device *device;
    fa_parts
        parts; /* a plan of each level, and behind them the last, which without levels is the problem's */
    struct fa_cascade_shift *shift; /* of levels with ALiBi, else NULL; see shift.h */
    fa_buffer *tables;              /* of the levels, one behind the other, and `first` in 32 bits */
    size_t table_offset[FA_CASCADE_MAX_LEVELS], first_offset;
};

_Static_assert(FA_CASCADE_MAX_LEVELS + 1 <= FA_PARTS_MOST, "a plan for each level, and the last");

/* What a run reads and writes, in bytes. */
typedef struct fa_cascade_costs {
    double key;   /* a key of all heads, with its value */
    double level; /* what a level beyond the last adds: q, and two states of each row, written and read */
    double merge; /* the states of the last level, where there is another */
} fa_cascade_costs;

/* Fills problem and levels of a cascade that is all 0 but for its device. Release it, whatever this returns. */
fa_status fa_cascade_find_levels(const fa_context *context, const fa_attention_desc *desc,
                                 const int32_t *table, fa_cascade *cascade);
void fa_cascade_release_levels(fa_cascade *cascade);

/* Fills the levels of a cascade, for a problem whose page table is checked. FA_OUT_OF_MEMORY. */
fa_status fa_cascade_search(const fa_problem *problem, const int32_t *table, const fa_cascade_costs *costs,
                            fa_cascade *cascade);

/* The key up to which each row of a sequence sees all keys, from the first that it uses on. */
int64_t fa_cascade_seen(const fa_sequence *sequence);

/*
 * The key up to which the sequence may share its keys: what `keep` says of them does not depend on its length, and with ALiBi
 * all of them lie before its rows or where the first stands.
 */
int64_t fa_cascade_shared(const fa_problem *problem, const fa_sequence *sequence);

/* Whether what is told of one row after another, of bias or `keep`, lies evenly for the rows of neighbours too. */
bool fa_cascade_rows_even(const fa_problem *problem);

/* Elements of bias or `keep` between two rows of a group. */
int64_t fa_cascade_row_stride(const fa_problem *problem, int operand);

#endif
