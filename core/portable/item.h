/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work items of OpenCL and Vulkan: FA_WORK is a `work`. Written in the words of work.h, and in
 *   FA_ITEM_OWN             members that the language reads the table and operands by
 *   FA_AT                   the type of a number of elements
 *   FA_TABLE_GIVEN, FA_TABLE_PASSED  a parameter and an argument that are the table, with a comma behind them, if the
 *                           language needs one
 *   FA_FIND_SEQUENCE(w, n)  sets what FA_PARAM and FA_SEQUENCE read by, for sequence n
 *   FA_ITEM(n)              entry n of the list of items
 *   FA_IS_NEGATIVE(x)       whether an fa_long is
 *   FA_HAS_PAGES(w)         whether keys lie in pages
 */
#ifndef FA_PORTABLE_ITEM_H
#define FA_PORTABLE_ITEM_H

#include "table.h"
#include "walk.h"

/* A work item, and what is the same for all of it. The last two lines, with pages alone, are what a look-up asks. */
FA_STRUCT(work)
    FA_ITEM_OWN
    int head_kv, row_begin, row_end, key_begin, key_end;
    fa_walk walk;
    bool whole;     /* the item writes its rows itself, and not a part of them */
    FA_AT part_row; /* else the first of its rows among the partial results    */
    int group, dim_qk, dim_v, flags;
    fa_long page_stride;
    int first, number, row, page_size, page_shift;
FA_STRUCT_END(work)

FA_KERNEL_FN work fa_work_of(FA_TABLE_GIVEN int sequence, int head_kv, int row_begin, int row_end,
                             int key_begin, int key_end)
{
    work w;
    FA_FIND_SEQUENCE(w, sequence);
    w.head_kv = head_kv;
    w.row_begin = row_begin;
    w.row_end = row_end;
    w.key_begin = key_begin;
    w.key_end = key_end;
    w.group = FA_PARAM(w, group);
    w.walk = fa_walk_of(FA_SEQUENCE(w, mask), w.group, row_begin, row_end, key_end);
    w.dim_qk = FA_PARAM(w, dim_qk);
    w.dim_v = FA_PARAM(w, dim_v);
    w.flags = FA_PARAM(w, flags);
    if (FA_HAS_PAGES(w)) {
        w.page_stride = FA_PARAM(w, page_stride);
        w.first = FA_SEQUENCE(w, first);
        w.number = FA_SEQUENCE(w, number);
        w.row = FA_SEQUENCE(w, row);
        w.page_size = FA_PARAM(w, page_size);
        w.page_shift = FA_PARAM(w, page_shift);
    }
    return w;
}

/* Item n of the plan. */
FA_KERNEL_FN work fa_work_at(FA_TABLE_GIVEN int n)
{
    const fa_table_item item = FA_ITEM(n);
    work w = fa_work_of(FA_TABLE_PASSED item.sequence, item.head_kv, item.row_begin, item.row_end,
                        item.key_begin, item.key_end);
    w.whole = FA_IS_NEGATIVE(item.part_row);
    w.part_row = FA_WIDE(item.part_row);
    return w;
}

#endif
