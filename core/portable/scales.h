/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a key lies, and where the scale of its elements lies that is in a tensor of its own (fa_scales of table.h). Written in
 * the words of work.h.
 */
#ifndef FA_PORTABLE_SCALES_H
#define FA_PORTABLE_SCALES_H

#include "table.h"

/* Without pages, the page is the batch entry, where a scale is looked for. */
FA_STRUCT(fa_key_place)
    int page;   /* of the pool, as the table says: it may be none of the pool's */
    int within; /* the key's number in its page                                */
FA_STRUCT_END(fa_key_place)

/* Whether a pool of so many pages has that one. */
FA_FN bool fa_page_exists(int page, int pages)
{
    return page >= 0 && page < pages;
}

/*
 * Kernels keep where rows of a pool lie as numbers of 32 bits, in units of so many bytes: the largest power of two, of at
 * most 2^30, that the bytes from key to key and from page to page are multiples of. `steps` is both of these, or-ed.
 */
#define FA_PLACE_STEPS(steps) ((steps) | 1 << 30)
#define FA_PLACE_UNIT(steps) ((steps) & (~(steps) + 1))

/* Of so many things in groups, the group that number n is in. */
#define FA_GROUP_OF(n, size, shift) ((shift) >= 0 ? (n) >> (shift) : (n) / (size))

/* Scales, or zeros, that precede those of the first dims of a key in that place, in the item's head: see fa_scales. */
#define FA_SCALE_ROW(w, strides, place, scales)                                                       \
    (FA_INDEX((place).page) * FA_WIDE((strides)[0]) + FA_INDEX((w).head_kv) * FA_WIDE((strides)[1]) + \
     FA_INDEX(FA_GROUP_OF((place).within, (scales).keys, (scales).keys_shift)) * FA_WIDE((strides)[2]))

#endif
