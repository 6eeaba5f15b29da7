/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which keys of a grid are in a token's neighbourhood. On each axis a token has a number, and its neighbourhood is an interval of such
 * numbers. A word holds one number of each axis, in fields side by side. The highest bit of a field is its guard, which numbers leave 0:
 * set, it keeps a difference of two words from reaching the next field, and is still set behind it if that was not negative.
 * So one comparison is of all axes. In the table lie the words of all tokens:
 *   where each token is,
 *   where the neighbourhood of each begins,
 *   and its last numbers;
 * then, of each FA_NEAR_BLOCK tokens, four words: the box that they are in, and the box that all of them see, each from its
 * first to its last numbers.
 * Written in the words of lists.h, and in
 *   FA_NEAR_WORD(w, n)  word number n of the table, an fa_uint
 */
#ifndef FA_PORTABLE_NEAR_H
#define FA_PORTABLE_NEAR_H

#include "table.h"
#include "walk.h"

#ifndef FA_NEAR_WORD
#define FA_NEAR_WORD(w, n) FA_LIST_WORD(w, n)
#endif

/* Whether the numbers from those of `first` to those of `last` are all among those from `begin` to `end`, both ends included. */
FA_FN bool fa_near_holds(fa_uint guards, fa_uint begin, fa_uint end, fa_uint first, fa_uint last)
{
    return (((first | guards) - begin) & ((end | guards) - last) & guards) == guards;
}

/* The row, with its neighbourhood. */
FA_KERNEL_FN fa_row fa_near_row(FA_WORK w, fa_row r)
{
    const int word = FA_PARAM(w, near_at) + r.position, tokens = FA_PARAM(w, near_tokens);
    r.near_begin = FA_NEAR_WORD(w, word + tokens);
    r.near_end = FA_NEAR_WORD(w, word + 2 * tokens);
    return r;
}

/* Whether the row's neighbourhood has a key. Keys behind the grid's are in all of them. */
FA_KERNEL_FN bool fa_near_has(FA_WORK w, fa_row r, int key)
{
    const int number = FA_SEQUENCE(w, first) + key;
    if (number >= FA_PARAM(w, near_tokens))
        return true;
    const fa_uint place = FA_NEAR_WORD(w, FA_PARAM(w, near_at) + number);
    return fa_near_holds(FA_PARAM(w, near_guards), r.near_begin, r.near_end, place, place);
}

/* Whether some row of the item may lack one of the keys [key, key_end), as far as boxes tell. */
FA_KERNEL_FN bool fa_near_cuts(FA_WORK w, int key, int key_end)
{
    const int tokens = FA_PARAM(w, near_tokens), first = FA_SEQUENCE(w, first) + key;
    const int last = FA_MIN(FA_SEQUENCE(w, first) + key_end, tokens) - 1;
    const int boxes = FA_PARAM(w, near_at) + 3 * tokens;
    bool cuts = false;
    FA_ROLLED
    for (int row = w.walk.first >> FA_NEAR_SHIFT; !cuts && row <= (w.walk.end - 1) >> FA_NEAR_SHIFT; row++) {
        const fa_uint begin = FA_NEAR_WORD(w, boxes + 4 * row + 2),
                      end = FA_NEAR_WORD(w, boxes + 4 * row + 3);
        FA_ROLLED
        for (int n = first >> FA_NEAR_SHIFT; !cuts && first < tokens && n <= last >> FA_NEAR_SHIFT; n++)
            cuts = !fa_near_holds(FA_PARAM(w, near_guards), begin, end, FA_NEAR_WORD(w, boxes + 4 * n),
                                  FA_NEAR_WORD(w, boxes + 4 * n + 1));
    }
    return cuts;
}

#endif
