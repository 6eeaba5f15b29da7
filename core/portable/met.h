/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks that an item meets, one after the other, where work-items beside each other go through them together. With
 * lists, each of FA_LANES looks at a block of its own: to find the next one in a word of bits takes less than to ask the
 * lists of each block. Written in the words of work.h, and in
 *   FA_LANES         how many they are, at most 32; all are here
 *   FA_LANE          which of them this one is
 *   FA_BALLOT(x)     a bit for each of them, from the lowest on: whether its x is true
 *   FA_LOWEST(bits)  the number of the lowest bit that is set; one is
 */
#ifndef FA_PORTABLE_MET_H
#define FA_PORTABLE_MET_H

#include "keep.h"

/* The block at `key`, where key_end means none; of blocks from `first` on, which are met, and in which something is hidden. */
FA_STRUCT(fa_met)
    int key, first;
    fa_uint blocks, cut;
FA_STRUCT_END(fa_met)

/* The first block from `key` on, of `keys` keys. `terms` as in fa_work_next(). */
FA_KERNEL_FN fa_met fa_met_from(FA_WORK w, bool terms, int key, int keys)
{
    fa_met m;
    m.key = m.first = fa_work_next(w, terms, key, keys);
    m.blocks = m.cut = 0u;
    if (FA_LISTS(w)) {
        const int mine = m.first + FA_LANE * keys;
        const bool met =
            FA_LANE < FA_LANES && mine < w.walk.key_end && fa_work_next(w, terms, mine, keys) == mine;
        m.blocks = FA_BALLOT(met);
        m.cut =
            FA_BALLOT(met && fa_work_class(w, mine, FA_MIN(mine + keys, w.walk.key_end)) == FA_CLASS_PARTIAL);
    }
    return m;
}

/* Whether something is hidden in the block, which ends at key_end. */
FA_KERNEL_FN bool fa_met_cut(FA_WORK w, fa_met m, int key_end, int keys)
{
    if (!FA_LISTS(w))
        return fa_work_class(w, m.key, key_end) == FA_CLASS_PARTIAL;
    return (m.cut >> FA_UINT((m.key - m.first) / keys) & 1u) != 0u;
}

/* The block behind it. */
FA_KERNEL_FN fa_met fa_met_next(FA_WORK w, bool terms, fa_met m, int keys)
{
    if (!FA_LISTS(w)) {
        m.key = fa_work_next(w, terms, m.key + keys, keys);
        return m;
    }
    const fa_uint behind = m.blocks >> FA_UINT((m.key - m.first) / keys) >> 1;
    if (behind == 0u)
        return fa_met_from(w, terms, FA_MIN(m.first + FA_LANES * keys, w.walk.key_end), keys);
    m.key += (FA_LOWEST(behind) + 1) * keys;
    return m;
}

#endif
