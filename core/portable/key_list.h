/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page tables of rows that have lists of single keys, in the words of task.h: pages of one key, numbered along the memory of k. A
 * work-group does one list. It finds the page of each number, then writes those that there are one behind the other, and how
 * many they are.
 */
#ifndef FA_PORTABLE_KEY_LIST_H
#define FA_PORTABLE_KEY_LIST_H

#include "task.h"

/* Operands: the lists; the caller's page table; a page for each number of the lists, -1: none; page tables; their lengths. */
#define FA_KEY_LIST_INDICES 0
#define FA_KEY_LIST_TABLE 1
#define FA_KEY_LIST_FOUND 2
#define FA_KEY_LIST_PAGES 3
#define FA_KEY_LIST_LENGTHS 4

/* What a number is counted in. */
#define FA_KEY_LIST_ENTRY 0 /* keys of the row's batch entry */
#define FA_KEY_LIST_LINE 1  /* keys in the pages of its line */
#define FA_KEY_LIST_SLOT 2  /* slots                         */

FA_STRUCT(fa_key_list_params)
    fa_long line_stride; /* of the caller's page table                                   */
    int topk;
    int heads, rows;                     /* lists of a row, rows of a batch entry                        */
    int most;                            /* numbers are below it                                         */
    int entries, keys;                   /* of k: batch entries or pages, and the keys of one            */
    int entry_step, head_step, key_step; /* pages of one key from each to the next       */
    int counted;                         /* FA_KEY_LIST_ENTRY and the others                             */
    int unique;
    int unused;
FA_STRUCT_END(fa_key_list_params)
FA_TASK_VIEW(fa_key_list_params)

#define FA_KEY_LIST_IS(t, name) FA_TASK_PARAM(t, fa_key_list_params, name)

FA_KERNEL_FN FA_AT fa_key_list_at(FA_TASK t, int list, int n)
{
    return (FA_INDEX(list) * FA_INDEX(FA_KEY_LIST_IS(t, topk)) + FA_INDEX(n)) * FA_INDEX(4);
}

/* The page of a number of the list, -1: none. */
FA_KERNEL_FN int fa_key_list_page(FA_TASK t, int list, int number)
{
    const int keys = FA_KEY_LIST_IS(t, keys), counted = FA_KEY_LIST_IS(t, counted);
    const int row = list / FA_KEY_LIST_IS(t, heads), head = list - row * FA_KEY_LIST_IS(t, heads);
    if (number < 0 || number >= FA_KEY_LIST_IS(t, most))
        return -1;
    const int line = number / keys, batch = row / FA_KEY_LIST_IS(t, rows);
    int entry = counted == FA_KEY_LIST_SLOT ? line : batch;
    if (counted == FA_KEY_LIST_LINE)
        entry = FA_INT(FA_GET32(t, 1,
                                (FA_INDEX(batch) * FA_WIDE(FA_KEY_LIST_IS(t, line_stride)) + FA_INDEX(line)) *
                                    FA_INDEX(4)));
    if (entry < 0 || entry >= FA_KEY_LIST_IS(t, entries))
        return -1;
    return entry * FA_KEY_LIST_IS(t, entry_step) + head * FA_KEY_LIST_IS(t, head_step) +
           (number - line * keys) * FA_KEY_LIST_IS(t, key_step);
}

/* Whether number n of the list stands before it too. */
FA_KERNEL_FN bool fa_key_list_again(FA_TASK t, int list, int n, int number)
{
    FA_ROLLED
    for (int i = 0; i < n; i++) {
        if (FA_INT(FA_GET32(t, 0, fa_key_list_at(t, list, i))) == number)
            return true;
    }
    return false;
}

/* The share of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_key_list_group(FA_TASK t, int group, int item, int items)
{
    const int topk = FA_KEY_LIST_IS(t, topk), each = (topk + items - 1) / items;
    const int begin = FA_MIN(item * each, topk), end = FA_MIN(begin + each, topk);
    int count = 0;
    for (int n = item; n < topk; n += items) {
        const int number = FA_INT(FA_GET32(t, 0, fa_key_list_at(t, group, n)));
        int page = fa_key_list_page(t, group, number);
        if (page >= 0 && FA_KEY_LIST_IS(t, unique) == 0 && fa_key_list_again(t, group, n, number))
            page = -1;
        FA_PUT32(t, 2, fa_key_list_at(t, group, n), FA_UINT(page));
    }
    FA_TASK_BARRIER;
    FA_ROLLED
    for (int n = 0; n < end; n++) {
        const int page = FA_INT(FA_GET32(t, 2, fa_key_list_at(t, group, n)));
        if (page >= 0 && n >= begin)
            FA_PUT32(t, 3, fa_key_list_at(t, group, count), FA_UINT(page));
        count += page >= 0 ? 1 : 0;
    }
    if (begin < end && end == topk)
        FA_PUT32(t, 4, FA_INDEX(group) * FA_INDEX(4), FA_UINT(count));
}

#endif
