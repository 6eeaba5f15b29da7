/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys in pages, for the kernels of few rows of OpenCL and Vulkan: those of a block are looked up while the block
 * before it is computed, each once. Where their rows of k and v lie is then in local memory. Written in the words of
 * keys.h, and in
 *   FA_LOOKUP                  parameters, with a comma behind the last: w, id, and found[LOOKUPS], the pages of the
 *                              keys that this work-item looks up; or nothing, where these lie outside of functions
 *   FA_PLACES_GIVEN            likewise, of all_keys, all_values, and where places are put
 *   FA_CURSOR                  the type of all_keys and all_values
 *   FA_BLOCK_KV, FA_GROUP      keys of a block, and work-items
 *   LOOKUPS                    the first by the second, rounded up
 *   FA_BY_PAGE                 a place is a page, and not a distance
 *   FA_DISTANCE_OF(c, at)      how far from the cursor's first row that of a key lies, in units that an int counts
 *   FA_PUT_PLACES(slot, k, v)  keeps the places of number `slot` of the block
 */
#ifndef FA_PORTABLE_LOOKUP_H
#define FA_PORTABLE_LOOKUP_H

#include "keys.h"

/* The places that were looked up arrive while another block is computed: nothing asks for them before. */
FA_KERNEL_FN void fa_look_up(FA_LOOKUP int key)
{
    FA_UNROLL
    for (int n = 0; n < LOOKUPS; n++)
        found[n] = fa_work_find(w, FA_KEY_OF(id + n * FA_GROUP, key, w.key_end)).page;
}

/* -1: the pool has no such page. */
FA_KERNEL_FN int fa_place_of(FA_WORK w, FA_CURSOR c, fa_key_place at)
{
    int place = at.page;
    if (!FA_BY_PAGE)
        place = FA_DISTANCE_OF(c, at);
    return fa_work_has_page(w, at) ? place : -1;
}

FA_KERNEL_FN void fa_put_places(FA_LOOKUP FA_PLACES_GIVEN int key)
{
    FA_UNROLL
    for (int n = 0; n < LOOKUPS; n++) {
        const int slot = id + n * FA_GROUP;
        fa_key_place at;
        at.page = found[n];
        at.within = fa_work_within(w, FA_KEY_OF(slot, key, w.key_end));
        if (FA_BLOCK_KV % FA_GROUP == 0 || slot < FA_BLOCK_KV)
            FA_PUT_PLACES(slot, fa_place_of(w, all_keys, at), fa_place_of(w, all_values, at));
    }
}

#endif
