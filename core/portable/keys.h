/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where keys lie that are in pages. Written in the words of work.h, and in
 *   FA_LOAD_PAGE(w, n)      entry n of the page table, an int
 * and, where the work item has its own copy of what a look-up asks, FA_PAGE_PARAM and FA_PAGE_SEQUENCE.
 * FA_HAS_PAGES(w), whether keys lie in pages, is for kernels that ask without knowing.
 */
#ifndef FA_PORTABLE_KEYS_H
#define FA_PORTABLE_KEYS_H

#include "scales.h"

#ifndef FA_PAGE_PARAM
#define FA_PAGE_PARAM FA_PARAM
#define FA_PAGE_SEQUENCE FA_SEQUENCE
#endif

/* Number `slot` of a block's keys; past the end, the last one. */
#define FA_KEY_OF(slot, key, key_end) FA_MIN((key) + (slot), (key_end)-1)

/* Of a key of the item's sequence, counted from the first that it uses. It must be one of the sequence's. */
FA_KERNEL_FN fa_key_place fa_work_place(FA_WORK w, int key)
{
    fa_key_place at;
    int number = FA_PAGE_SEQUENCE(w, first) + key, size = FA_PAGE_PARAM(w, page_size),
        shift = FA_PAGE_PARAM(w, page_shift);
    int entry = shift >= 0 ? number >> shift : number / size;
    at.page = FA_LOAD_PAGE(w, FA_INDEX(FA_PAGE_SEQUENCE(w, number)) * FA_WIDE(FA_PAGE_PARAM(w, page_stride)) +
                                  FA_INDEX(entry));
    at.within = number - entry * size;
    return at;
}

/* The number of such a key in its page. */
FA_KERNEL_FN int fa_work_within(FA_WORK w, int key)
{
    int size = FA_PAGE_PARAM(w, page_size), number = FA_PAGE_SEQUENCE(w, first) + key;
    return FA_PAGE_PARAM(w, page_shift) >= 0 ? number & (size - 1) : number - number / size * size;
}

/* Whether the sequence may have that page. Where it may not, the rows that see the key become NaN. */
FA_KERNEL_FN bool fa_work_has_page(FA_WORK w, fa_key_place at)
{
    return fa_page_exists(at.page, FA_PAGE_SEQUENCE(w, row));
}

/* The same place, in a page that the pool has. */
FA_KERNEL_FN fa_key_place fa_work_clamped(FA_WORK w, fa_key_place at)
{
    at.page = FA_MAX(FA_MIN(at.page, FA_PAGE_SEQUENCE(w, row) - 1), 0);
    return at;
}

#ifdef FA_HAS_PAGES
/* The place of such a key, which without pages is its number. */
FA_KERNEL_FN fa_key_place fa_work_find(FA_WORK w, int key)
{
    fa_key_place place;
    place.page = 0;
    place.within = key;
    if (FA_HAS_PAGES(w))
        place = fa_work_place(w, key);
    return place;
}

/* Where the scale of the key lies that was found there: in its page, or else in its batch entry. */
FA_KERNEL_FN fa_key_place fa_work_scale_place(FA_WORK w, fa_key_place found)
{
    fa_key_place place;
    place.page = FA_SEQUENCE(w, number);
    place.within = FA_SEQUENCE(w, row) + found.within;
    if (FA_HAS_PAGES(w))
        place = fa_work_clamped(w, found);
    return place;
}
#endif

/* Elements that precede the key's row of x, which is k or v, in the item's head. */
#define FA_PLACE_AT(w, x, place)                                                       \
    (FA_HEAD_AT(w, x) + FA_INDEX((place).page) * FA_WIDE(FA_PARAM(w, x##_stride)[0]) + \
     FA_INDEX((place).within) * FA_WIDE(FA_PARAM(w, x##_stride)[2]))

#endif
