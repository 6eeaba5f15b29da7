/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks of keys the rows of a work item meet. */
#ifndef FA_PORTABLE_WALK_H
#define FA_PORTABLE_WALK_H

#include "row.h"

FA_STRUCT(fa_walk)
    fa_mask mask;
    int first, end; /* positions of the item's rows: the first, and one past the last */
    int key_end;    /* one past the item's last key                                   */
FA_STRUCT_END(fa_walk)

/* The walk of packed rows [row_begin, row_end), which are not empty. */
FA_FN fa_walk fa_walk_of(fa_mask mask, int group, int row_begin, int row_end, int key_end)
{
    fa_walk w;
    w.mask = mask;
    w.first = fa_row_position(group, row_begin);
    w.end = fa_row_position(group, row_end - 1) + 1;
    w.key_end = key_end;
    return w;
}

/* How the rows see keys [key, key_end): FA_CLASS_FULL, FA_CLASS_PARTIAL or FA_CLASS_SKIP. */
FA_FN int fa_walk_class(fa_walk w, int key, int key_end)
{
    return fa_mask_classify(w.mask, w.first, w.end, key, key_end);
}

/*
 * The first key of the first block of which some row sees something, of blocks of `keys` keys from `key` on; the item's
 * key_end where there is none.
 */
FA_FN int fa_walk_next(fa_walk w, int key, int keys)
{
    while (key < w.key_end && fa_walk_class(w, key, FA_MIN(key + keys, w.key_end)) == FA_CLASS_SKIP)
        key += keys;
    return FA_MIN(key, w.key_end);
}

#endif
