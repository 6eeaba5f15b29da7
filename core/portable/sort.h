/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A counting sort of numbers by bucket, in the words of task.h. A job is a piece of a list; work-groups take jobs in turns. Each
 * work-item has neighbouring numbers of the piece, and counts how many of them are in each bucket. Counts become places when
 * they are summed up, buckets first and then work-items, so that the order is stable and no work-item waits for another.
 */
#ifndef FA_PORTABLE_SORT_H
#define FA_PORTABLE_SORT_H

#include "task.h"

/* Operands. The scratch has a count for each work-group, bucket and work-item. */
#define FA_SORT_KEYS 0
#define FA_SORT_ORDER 1
#define FA_SORT_OFFSETS 2
#define FA_SORT_SCRATCH 3

/* Behind it lie pieces + 1 offsets into a list. */
FA_STRUCT(fa_sort_params)
    int lists, pieces, count; /* count: numbers of a list                              */
    int bins;                 /* buckets, and one of the numbers that are in none      */
    int groups;
    int want_offsets;
    int pieces_at; /* the first offset's number in the list of ints */
    int unused;
FA_STRUCT_END(fa_sort_params)
FA_TASK_VIEW(fa_sort_params)
FA_TASK_VIEW(int)

#define FA_SORT_IS(t, name) FA_TASK_PARAM(t, fa_sort_params, name)
#define FA_SORT_COUNT_AT(t, group, items, n) \
    ((FA_INDEX(group) * FA_INDEX(FA_SORT_IS(t, bins) * (items)) + FA_INDEX(n)) * FA_INDEX(4))

/* The bucket of number n of a list. */
FA_KERNEL_FN int fa_sort_bin(FA_TASK t, int list, int n)
{
    const int last = FA_SORT_IS(t, bins) - 1;
    const int key =
        FA_INT(FA_GET32(t, 0, (FA_INDEX(list) * FA_INDEX(FA_SORT_IS(t, count)) + FA_INDEX(n)) * FA_INDEX(4)));
    return key < 0 || key > last ? last : key;
}

/* Adds 1 to a count, and returns what it was. */
FA_KERNEL_FN int fa_sort_next(FA_TASK t, int group, int items, int n)
{
    const FA_AT at = FA_SORT_COUNT_AT(t, group, items, n);
    const int was = FA_INT(FA_GET32(t, 3, at));
    FA_PUT32(t, 3, at, FA_UINT(was + 1));
    return was;
}

/* Each count becomes the sum of those before it. A work-item sums up as many as there are buckets. */
FA_KERNEL_FN void fa_sort_add_up(FA_TASK t, int group, int item, int items)
{
    const int bins = FA_SORT_IS(t, bins), begin = item * bins, end = begin + bins;
    int sum = 0;
    for (int n = begin; n < end; n++)
        sum += FA_INT(FA_GET32(t, 3, FA_SORT_COUNT_AT(t, group, items, n)));
    FA_TASK_SHARED(t, item) = sum;
    FA_TASK_SYNC(t);
    sum = 0;
    for (int n = 0; n < item; n++)
        sum += FA_TASK_SHARED(t, n);
    for (int n = begin; n < end; n++) {
        const FA_AT at = FA_SORT_COUNT_AT(t, group, items, n);
        const int own = FA_INT(FA_GET32(t, 3, at));
        FA_PUT32(t, 3, at, FA_UINT(sum));
        sum += own;
    }
}

/* Where the buckets of a piece begin in its list, and where the last ends. */
FA_KERNEL_FN void fa_sort_offsets(FA_TASK t, int group, int item, int items, int job, int first)
{
    const int bins = FA_SORT_IS(t, bins);
    for (int b = item; b < bins; b += items) {
        const int before = FA_INT(FA_GET32(t, 3, FA_SORT_COUNT_AT(t, group, items, b * items)));
        FA_PUT32(t, 2, (FA_INDEX(job) * FA_INDEX(bins) + FA_INDEX(b)) * FA_INDEX(4), FA_UINT(first + before));
    }
}

FA_KERNEL_FN void fa_sort_job(FA_TASK t, int group, int item, int items, int job)
{
    const int pieces = FA_SORT_IS(t, pieces), list = job / pieces, piece = job - list * pieces;
    const int at = FA_SORT_IS(t, pieces_at) + piece;
    const int first = FA_TASK_LIST(t, int, at), last = FA_TASK_LIST(t, int, at + 1);
    const int each = (last - first) / items + 1;
    const int begin = FA_MIN(first + item * each, last), end = FA_MIN(begin + each, last);
    for (int b = 0; b < FA_SORT_IS(t, bins); b++)
        FA_PUT32(t, 3, FA_SORT_COUNT_AT(t, group, items, b * items + item), 0u);
    for (int n = begin; n < end; n++)
        fa_sort_next(t, group, items, fa_sort_bin(t, list, n) * items + item);
    FA_TASK_BARRIER;
    fa_sort_add_up(t, group, item, items);
    FA_TASK_BARRIER;
    if (FA_SORT_IS(t, want_offsets) != 0)
        fa_sort_offsets(t, group, item, items, job, first);
    FA_TASK_BARRIER;
    for (int n = begin; n < end; n++) {
        const int place = first + fa_sort_next(t, group, items, fa_sort_bin(t, list, n) * items + item);
        FA_PUT32(t, 1, (FA_INDEX(list) * FA_INDEX(FA_SORT_IS(t, count)) + FA_INDEX(place)) * FA_INDEX(4),
                 FA_UINT(n));
    }
}

/* The jobs of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_sort_group(FA_TASK t, int group, int item, int items)
{
    const int groups = FA_SORT_IS(t, groups), jobs = FA_SORT_IS(t, lists) * FA_SORT_IS(t, pieces);
    for (int job = group; job < jobs; job += groups)
        fa_sort_job(t, group, item, items, job);
}

#endif
