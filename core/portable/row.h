/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packed row: one query of one query head. The rows of a key head are its group's queries in one line, position by
 * position, and of each position all heads of the group.
 */
#ifndef FA_PORTABLE_ROW_H
#define FA_PORTABLE_ROW_H

#include "mask.h"

FA_STRUCT(fa_row)
    int position;                 /* of the query in its sequence                       */
    int head;                     /* the query head                                     */
    int begin, end;               /* its interval of keys, see mask.h                   */
    bool exists;                  /* false: the row is past the last, and stands for it */
    fa_uint near_begin, near_end; /* its neighbourhood, see near.h; else 0 */
FA_STRUCT_END(fa_row)

FA_FN int fa_row_position(int group, int row)
{
    return row / group;
}

FA_FN int fa_row_head(int group, int head_kv, int row)
{
    return head_kv * group + (row - row / group * group);
}

/* Row number `row` of a key head; where there is none any more, the last before `row_end`. */
FA_FN fa_row fa_row_of(fa_mask mask, int group, int head_kv, int row, int row_end)
{
    fa_row r;
    r.exists = row < row_end;
    row = r.exists ? row : row_end - 1;
    r.position = fa_row_position(group, row);
    r.head = fa_row_head(group, head_kv, row);
    r.begin = fa_mask_begin(mask, r.position);
    r.end = fa_mask_end(mask, r.position);
    r.near_begin = r.near_end = 0u;
    return r;
}

/* Whether the mask shows the row a key; the same as fa_mask_visible() of its position. */
FA_FN bool fa_row_sees(fa_row r, fa_mask mask, int key)
{
    return key < mask.prefix || (key >= r.begin && key < r.end);
}

#endif
