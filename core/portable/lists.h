/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of key blocks, a bit for each block, in the table. Written in the words of work.h, and in
 *   FA_LISTS(w)         whether there are any: a constant, where programs are compiled for it
 *   FA_LIST_WORD(w, n)  word number n of the table, an fa_uint
 */
#ifndef FA_PORTABLE_LISTS_H
#define FA_PORTABLE_LISTS_H

#include "table.h"
#include "walk.h"

FA_KERNEL_FN bool fa_work_has(FA_WORK w, int flag)
{
    return (FA_PARAM(w, flags) & flag) != 0;
}

/* The first word of the list of a block of rows; `head` counts lists. */
FA_KERNEL_FN int fa_list_at(FA_WORK w, int head, int block)
{
    return FA_PARAM(w, lists_at) + FA_SEQUENCE(w, number) * FA_PARAM(w, list_sequence_stride) +
           head * FA_PARAM(w, list_head_stride) + block * FA_PARAM(w, list_words);
}

/* Whether the row's list has the block of a key. */
FA_KERNEL_FN bool fa_work_lists(FA_WORK w, fa_row r, int key)
{
    const int block = (FA_SEQUENCE(w, first) + key) / FA_PARAM(w, list_keys);
    const int list = fa_list_at(w, r.head / FA_PARAM(w, list_heads), r.position / FA_PARAM(w, list_rows));
    return (FA_LIST_WORD(w, list + (block >> 5)) >> FA_UINT(block & 31) & 1u) != 0u;
}

/* Word number `word` of the lists of all rows of the item: bits that are set in one of them, or with `all`, in each. */
FA_KERNEL_FN fa_uint fa_list_word(FA_WORK w, int word, bool all)
{
    const int rows = FA_PARAM(w, list_rows), heads = FA_PARAM(w, list_heads), group = FA_PARAM(w, group);
    const int first = w.walk.first / rows, blocks = (w.walk.end - 1) / rows - first + 1;
    const int head = w.head_kv * group / heads, lists = ((w.head_kv + 1) * group - 1) / heads - head + 1;
    fa_uint bits = all ? 0xffffffffu : 0u;
    FA_ROLLED
    for (int n = 0; n < lists * blocks; n++) {
        const int list = fa_list_at(w, head + n / blocks, first + (n - n / blocks * blocks));
        bits = all ? bits & FA_LIST_WORD(w, list + word) : bits | FA_LIST_WORD(w, list + word);
    }
    return bits;
}

/* Whether some list of the item's rows lacks a block of the keys [key, key_end). */
FA_KERNEL_FN bool fa_list_cuts(FA_WORK w, int key, int key_end)
{
    const int first = FA_SEQUENCE(w, first), size = FA_PARAM(w, list_keys);
    const int begin = (first + key) / size, end = (first + key_end - 1) / size;
    bool cuts = false;
    FA_ROLLED
    for (int word = begin >> 5; !cuts && word <= end >> 5; word++) {
        fa_uint lacks = ~fa_list_word(w, word, true);
        lacks &= word == begin >> 5 ? 0xffffffffu << FA_UINT(begin & 31) : 0xffffffffu;
        lacks &= word == end >> 5 ? 0xffffffffu >> FA_UINT(31 - (end & 31)) : 0xffffffffu;
        cuts = lacks != 0u;
    }
    return cuts;
}

/* The first key, from `key` on in steps of `keys`, of `keys` keys of which one is in a list; the item's key_end or more where
 * there is none. */
FA_KERNEL_FN int fa_list_next(FA_WORK w, int key, int keys)
{
    const int first = FA_SEQUENCE(w, first), size = FA_PARAM(w, list_keys);
    const int block = (first + key) / size, last = (first + w.walk.key_end - 1) / size;
    int word = block >> 5;
    fa_uint bits = fa_list_word(w, word, false) & 0xffffffffu << FA_UINT(block & 31);
    FA_ROLLED
    while (bits == 0u && word < last >> 5) {
        word++;
        bits = fa_list_word(w, word, false);
    }
    const int found = (word << 5) + FA_COUNT_BITS((bits & (0u - bits)) - 1u);
    if (bits == 0u || found > last)
        return w.walk.key_end;
    return key + FA_MAX(found * size - first - key, 0) / keys * keys;
}

#endif
