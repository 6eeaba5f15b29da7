/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes lists of key blocks that lie on the device into the work of a run, in the words of task.h: a bit for each block, as
 * lists.h reads them. A work-group does FA_RELIST_SHARE words, each
 * work-item some that follow each other, so that it goes through a list once for all of these.
 */
#ifndef FA_PORTABLE_RELIST_H
#define FA_PORTABLE_RELIST_H

#include "task.h"

#define FA_RELIST_SHARE 1024

/* Operands: the work; a byte for each list and block; or compressed rows. */
#define FA_RELIST_WORK 0
#define FA_RELIST_MASK 1
#define FA_RELIST_INDPTR 2
#define FA_RELIST_INDICES 3

FA_STRUCT(fa_relist_params)
    int lists, words, key_blocks; /* words and blocks of a list                       */
    int at;                       /* the first word of the first list in the work     */
    int count;                    /* of indices; 0: they are given as a mask          */
    int unused;
FA_STRUCT_END(fa_relist_params)
FA_TASK_VIEW(fa_relist_params)

#define FA_RELIST_IS(t, name) FA_TASK_PARAM(t, fa_relist_params, name)

/* Blocks [32 word, 32 word + 32) of a list, of a mask. */
FA_KERNEL_FN fa_uint fa_relist_masked(FA_TASK t, int list, int word)
{
    const int first = word << 5, count = FA_MIN(FA_RELIST_IS(t, key_blocks) - first, 32);
    const FA_AT at = FA_INDEX(list) * FA_INDEX(FA_RELIST_IS(t, key_blocks)) + FA_INDEX(first);
    fa_uint bits = 0u;
    FA_ROLLED
    for (int n = 0; n < count; n++)
        bits |= FA_GET8(t, 1, at + FA_INDEX(n)) != 0u ? 1u << FA_UINT(n) : 0u;
    return bits;
}

#define FA_RELIST_WORD_AT(t, n) ((FA_INDEX(FA_RELIST_IS(t, at)) + FA_INDEX(n)) * FA_INDEX(4))

/* Sets the bits of a list's compressed row in words [begin, end), which are 0. What is out of range is passed over. */
FA_KERNEL_FN void fa_relist_gather(FA_TASK t, int list, int begin, int end)
{
    const int words = FA_RELIST_IS(t, words), blocks = FA_RELIST_IS(t, key_blocks),
              count = FA_RELIST_IS(t, count);
    const int from = FA_INT(FA_GET32(t, 2, FA_INDEX(list) * FA_INDEX(4)));
    const int to = FA_INT(FA_GET32(t, 2, FA_INDEX(list + 1) * FA_INDEX(4)));
    const int last = FA_MIN(to, count);
    FA_ROLLED
    for (int n = FA_MAX(from, 0); n < last; n++) {
        const int block = FA_INT(FA_GET32(t, 3, FA_INDEX(n) * FA_INDEX(4)));
        const int word = list * words + (block >> 5);
        if (block >= 0 && block < blocks && word >= begin && word < end) {
            const fa_uint bits = FA_GET32(t, 0, FA_RELIST_WORD_AT(t, word)) | 1u << FA_UINT(block & 31);
            FA_PUT32(t, 0, FA_RELIST_WORD_AT(t, word), bits);
        }
    }
}

/* The share of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_relist_group(FA_TASK t, int group, int item, int items)
{
    const int words = FA_RELIST_IS(t, words), each = (FA_RELIST_SHARE + items - 1) / items;
    const int first = FA_MIN(item * each, FA_RELIST_SHARE), most = FA_MIN(each, FA_RELIST_SHARE - first);
    const int begin = group * FA_RELIST_SHARE + first,
              end = FA_MIN(FA_RELIST_IS(t, lists) * words, begin + most);
    for (int n = begin; n < end; n++) {
        const int list = n / words;
        fa_uint bits = 0u;
        if (FA_RELIST_IS(t, count) == 0)
            bits = fa_relist_masked(t, list, n - list * words);
        FA_PUT32(t, 0, FA_RELIST_WORD_AT(t, n), bits);
    }
    for (int list = begin / words; FA_RELIST_IS(t, count) > 0 && list * words < end; list++)
        fa_relist_gather(t, list, begin, end);
}

#endif
