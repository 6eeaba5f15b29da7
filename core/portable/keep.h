/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the operand `keep` says: of a key to a row, and where it holds bits, of a block of keys to all rows of an item. And
 * which blocks an item meets. Written in the words of work.h and lists.h.
 */
#ifndef FA_PORTABLE_KEEP_H
#define FA_PORTABLE_KEEP_H

#include "lists.h"
#include "near.h"

/* Elements of x, which is bias or keep, that precede a row's element for a key. */
#define FA_EXTRA_AT(w, x, r, key)                                             \
    (FA_INDEX(FA_SEQUENCE(w, number)) * FA_WIDE(FA_PARAM(w, x##_stride)[0]) + \
     FA_INDEX((r).head) * FA_WIDE(FA_PARAM(w, x##_stride)[1]) +               \
     FA_INDEX((r).position) * FA_WIDE(FA_PARAM(w, x##_stride)[2]) +           \
     FA_INDEX(FA_SEQUENCE(w, first) + (key)) * FA_WIDE(FA_PARAM(w, x##_stride)[3]))

/* What the operand `keep` says of a key; there must be one. */
FA_KERNEL_FN bool fa_work_keeps(FA_WORK w, fa_row r, int key)
{
    const int last = FA_PARAM(w, keep_last), first = FA_SEQUENCE(w, first);
    if (FA_PARAM(w, keep_bits) == 0)
        return FA_LOAD_KEEP(w, FA_EXTRA_AT(w, keep, r, key)) != 0;
    const int bit = last > 0 ? key - (w.walk.mask.len_kv - last) : first + key;
    /* The columns of keep count from key 0. */
    return bit < 0 ||
           (FA_LOAD_BITS(w, FA_EXTRA_AT(w, keep, r, (bit >> 5) - first)) >> FA_UINT(bit & 31) & 1u) != 0u;
}

/*
 * Whether bits hide the keys [key, key_end) from each row of the item. The rows of a position that belong to other items
 * count too: that is seldom, and spares a look at every head. A block that some row sees is told by its first words.
 */
FA_KERNEL_FN bool fa_work_hides(FA_WORK w, int key, int key_end)
{
    const int last = FA_PARAM(w, keep_last), first = FA_SEQUENCE(w, first), group = FA_PARAM(w, group);
    const int shift = last > 0 ? last - w.walk.mask.len_kv : first;
    const int begin = key + shift, end = key_end - 1 + shift;
    const int heads = FA_WIDE(FA_PARAM(w, keep_stride)[1]) != FA_INDEX(0) ? group : 1;
    const int words = (end >> 5) - (begin >> 5) + 1, rows = (w.walk.end - w.walk.first) * heads;
    bool hidden = begin >= 0; /* `keep` says nothing of keys before */
    FA_ROLLED
    for (int n = 0; hidden && n < rows * words; n++) {
        const int row = n / words, word = (begin >> 5) + n - row * words;
        fa_row r;
        r.position = FA_LATE(w.walk.first) + row / heads;
        r.head = FA_LATE(w.head_kv) * group + (row - row / heads * heads);
        fa_uint seen = FA_LOAD_BITS(w, FA_EXTRA_AT(w, keep, r, word - first));
        seen &= word == begin >> 5 ? 0xffffffffu << FA_UINT(begin & 31) : 0xffffffffu;
        seen &= word == end >> 5 ? 0xffffffffu >> FA_UINT(31 - (end & 31)) : 0xffffffffu;
        hidden = seen == 0u;
    }
    return hidden;
}

/* fa_walk_class() of the item, and FA_CLASS_PARTIAL where a list or a neighbourhood ends within the keys or the rows. */
FA_KERNEL_FN int fa_work_class(FA_WORK w, int key, int key_end)
{
    const int seen = fa_walk_class(w.walk, key, key_end);
    if (FA_LISTS(w) && seen == FA_CLASS_FULL &&
        ((fa_work_has(w, FA_TABLE_LIST_CUTS) && fa_list_cuts(w, key, key_end)) ||
         (fa_work_has(w, FA_TABLE_NEAR) && fa_near_cuts(w, key, key_end))))
        return FA_CLASS_PARTIAL;
    return seen;
}

/* Whether the mask and, of what fa_work_class() calls partial, the lists and the neighbourhood show the row a key. */
FA_KERNEL_FN bool fa_work_sees(FA_WORK w, fa_row r, int key)
{
    return fa_row_sees(r, w.walk.mask, key) &&
           (!FA_LISTS(w) || ((!fa_work_has(w, FA_TABLE_LIST_CUTS) || fa_work_lists(w, r, key)) &&
                             (!fa_work_has(w, FA_TABLE_NEAR) || fa_near_has(w, r, key))));
}

/*
 * fa_walk_next() of the item, which also passes over blocks that no list has, or that bits hide. `terms`: whether the kernel
 * looks at what a description adds to scores at all; where that is a constant, those that do not have nothing of `keep`.
 */
FA_KERNEL_FN int fa_work_next(FA_WORK w, bool terms, int key, int keys)
{
    key = fa_walk_next(w.walk, key, keys);
    if (FA_LISTS(w) || (terms && FA_PARAM(w, keep_bits) != 0)) {
        bool moved = true;
        FA_ROLLED
        while (moved && key < w.walk.key_end) {
            int next = FA_LISTS(w) ? fa_list_next(w, key, keys) : key;
            if (next == key && terms && FA_PARAM(w, keep_bits) != 0 &&
                fa_work_hides(w, key, FA_MIN(key + keys, w.walk.key_end)))
                next = key + keys;
            moved = next != key;
            if (moved)
                key = fa_walk_next(w.walk, next, keys);
        }
    }
    return key;
}

#endif
