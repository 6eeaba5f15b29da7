/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status of a run whose keys lie in pages, in the words of task.h: of each sequence 0, or one more than its first entry
 * of the page table that names no page, or than the number of its entries where a length on the device goes beyond them. A
 * work-group looks at the entries of one sequence, all that hold a key of it.
 */
#ifndef FA_PORTABLE_PAGES_H
#define FA_PORTABLE_PAGES_H

#include "scales.h"
#include "task.h"

/* Operands by number. */
#define FA_PAGES_STATUS 0
#define FA_PAGES_TABLE 1
#define FA_PAGES_WORK 2

FA_STRUCT(fa_pages_params)
    fa_long page_stride; /* as in fa_table_params, and the next three */
    int page_size;
    int pages;
    int sequences;
    int entries;      /* of a sequence in the page table                                           */
    int sequences_at; /* of a work of its own; -1: the sequences' keys are listed behind this struct */
    int keys_at;      /* in entries of that list                                                    */
FA_STRUCT_END(fa_pages_params)
FA_TASK_VIEW(fa_pages_params)

/* The keys of a sequence. */
FA_STRUCT(fa_pages_keys)
    int first, count;
FA_STRUCT_END(fa_pages_keys)
FA_TASK_VIEW(fa_pages_keys)

#define FA_PAGES_PARAM(t, member) FA_TASK_PARAM(t, fa_pages_params, member)
#define FA_PAGES_NONE 0x7fffffff

/* A word of the work's entry of sequence n. */
FA_KERNEL_FN int fa_pages_word(FA_TASK t, int n, int word)
{
    return FA_SEQUENCE_WORD(t, 2, FA_PAGES_PARAM(t, sequences_at) + n, word);
}

/* Of the entries that a work-item looks at, one more than the first that names no page. */
FA_KERNEL_FN int fa_pages_look(FA_TASK t, int n, int item, int items)
{
    const int size = FA_PAGES_PARAM(t, page_size), pages = FA_PAGES_PARAM(t, pages);
    const bool own = FA_PAGES_PARAM(t, sequences_at) < 0;
    const int at = FA_PAGES_PARAM(t, keys_at) + n;
    const int first =
        own ? FA_TASK_LIST(t, fa_pages_keys, at).first : fa_pages_word(t, n, FA_SEQUENCE_FIRST_WORD);
    const int count =
        own ? FA_TASK_LIST(t, fa_pages_keys, at).count : fa_pages_word(t, n, FA_SEQUENCE_COUNT_WORD);
    if (!own && fa_pages_word(t, n, FA_SEQUENCE_ROW_WORD) < 0)
        return FA_PAGES_PARAM(t, entries) + 1;
    if (count <= 0)
        return FA_PAGES_NONE;
    for (int e = first / size + item; e <= (first + count - 1) / size; e += items) {
        const FA_AT entry = FA_INDEX(n) * FA_WIDE(FA_PAGES_PARAM(t, page_stride)) + FA_INDEX(e);
        if (!fa_page_exists(FA_INT(FA_GET32(t, 1, entry * FA_INDEX(4))), pages))
            return e + 1;
    }
    return FA_PAGES_NONE;
}

/* The sequence of a work-group, for one of its `items` work-items. */
FA_KERNEL_FN void fa_pages_group(FA_TASK t, int group, int item, int items)
{
    if (group >= FA_PAGES_PARAM(t, sequences))
        return;
    int found = fa_pages_look(t, group, item, items);
    FA_TASK_SHARED(t, item) = found;
    for (int step = 1; step < items; step *= 2) {
        FA_TASK_SYNC(t);
        if (item % (2 * step) == 0 && item + step < items) {
            found = FA_MIN(found, FA_TASK_SHARED(t, item + step));
            FA_TASK_SHARED(t, item) = found;
        }
    }
    if (item == 0)
        FA_PUT32(t, 0, FA_INDEX(group) * FA_INDEX(4), FA_UINT(found == FA_PAGES_NONE ? 0 : found));
}

#endif
