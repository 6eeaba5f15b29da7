/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structural masks, as intervals. A row sees keys [0, prefix) and keys [begin, end), both clipped to
 * len_kv. begin and end never decrease from one row to the next, which is what lets a tile be classified
 * from its corners. The predicate and the classifier below are the only ones there are.
 */
#ifndef FA_PORTABLE_MASK_H
#define FA_PORTABLE_MASK_H

#include "lang.h"

/* Stands for an unlimited window; beyond any distance, and small enough that sums stay within an int. */
#define FA_UNLIMITED (1 << 30)

#define FA_CLASS_SKIP 0
#define FA_CLASS_PARTIAL 1
#define FA_CLASS_FULL 2

FA_STRUCT(fa_mask)
    int len_kv;   /* keys of the sequence                                                        */
    int diagonal; /* the key position p(0) at which row 0 stands; |diagonal| <= 2^29             */
    int left;     /* keys visible up to and with p(i), FA_UNLIMITED for all                      */
    int right;    /* keys visible from p(i) on, with it, FA_UNLIMITED for all                    */
    int prefix;   /* keys that every row sees, at most len_kv                                    */
FA_STRUCT_END(fa_mask)

/* What a description says of masks: with the lengths of a sequence, its fa_mask. */
FA_STRUCT(fa_mask_rule)
    int top_left;            /* 1: row 0 stands at key 0; 0: the last row stands at the last key     */
    int offset;              /* added to the position of every row, at most FA_UNLIMITED / 4      */
    int left, right, prefix; /* as in fa_mask, but the prefix has no bound but FA_UNLIMITED */
FA_STRUCT_END(fa_mask_rule)

/* Of the keys from number `first` on, with which the sequence begins; len_kv of them are left. */
FA_FN fa_mask fa_mask_of(fa_mask_rule rule, int len_q, int len_kv, int first)
{
    fa_mask m;
    m.len_kv = len_kv;
    m.diagonal = (rule.top_left != 0 ? -first : len_kv - len_q) + rule.offset;
    m.left = rule.left;
    m.right = rule.right;
    m.prefix = FA_MIN(FA_MAX(rule.prefix - first, 0), len_kv);
    return m;
}

/* First key of the interval of row i. */
FA_FN int fa_mask_begin(fa_mask m, int i)
{
    int p = m.diagonal + i;
    int begin = p >= m.left ? p - m.left + 1 : 0;
    return FA_MIN(begin, m.len_kv);
}

/* One past the last key of the interval of row i. */
FA_FN int fa_mask_end(fa_mask m, int i)
{
    int end = m.diagonal + i + m.right;
    end = FA_MAX(end, 0);
    return FA_MIN(end, m.len_kv);
}

FA_FN bool fa_mask_visible(fa_mask m, int i, int key)
{
    return key < m.prefix || (key >= fa_mask_begin(m, i) && key < fa_mask_end(m, i));
}

/*
 * Rows [row0, row1) against keys [key0, key1), both ranges not empty and key1 <= len_kv: FULL when
 * every row sees every key, SKIP when no row sees any, PARTIAL otherwise. Exact, not conservative.
 */
FA_FN int fa_mask_classify(fa_mask m, int row0, int row1, int key0, int key1)
{
    int first = FA_MAX(key0, m.prefix);
    if (first >= key1 || (fa_mask_begin(m, row1 - 1) <= first && fa_mask_end(m, row0) >= key1))
        return FA_CLASS_FULL;
    if (key0 < m.prefix)
        return FA_CLASS_PARTIAL;
    /* Intervals of neighbouring rows touch, so the rows' intervals together are one. */
    if (fa_mask_begin(m, row0) >= key1 || fa_mask_end(m, row1 - 1) <= first)
        return FA_CLASS_SKIP;
    return FA_CLASS_PARTIAL;
}

#endif
