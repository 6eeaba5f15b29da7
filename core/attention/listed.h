/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks of keys an item with lists meets, on the host: core/portable/lists.h and near.h, of a problem's own words. */
#ifndef FA_CORE_ATTENTION_LISTED_H
#define FA_CORE_ATTENTION_LISTED_H

#include "core/attention/problem.h"
#include "core/portable/walk.h"

typedef struct fa_listed {
    const fa_table_params *params; /* lists_at and near_at are 0 */
    const fa_sequence *sequence;
    const uint32_t *bits, *near;
    int head_kv;
    fa_walk walk;
} fa_listed;
#define FA_WORK fa_listed
#define FA_PARAM(w, member) ((w).params->member)
#define FA_SEQUENCE(w, member) ((w).sequence->member)
#define FA_LIST_WORD(w, n) ((w).bits[n])
#define FA_NEAR_WORD(w, n) ((w).near[n])
#define FA_ROLLED
#include "core/portable/lists.h"
#include "core/portable/near.h"

/* Packed rows [row_begin, row_end) of a sequence, of KV head `head_kv`, up to key `key_end`. `params` are fa_work_describe()'s. */
static inline fa_listed fa_listed_of(const fa_problem *p, const fa_table_params *params, int64_t sequence,
                                     int head_kv, int row_begin, int row_end, int key_end)
{
    const fa_sequence *s = &p->sequence[sequence];
    return (fa_listed){
        .params = params,
        .sequence = s,
        .bits = p->lists.bits,
        .near = p->near.words,
        .head_kv = head_kv,
        .walk = fa_walk_of(s->mask, p->group, row_begin, row_end, key_end),
    };
}

/* Whether some list of the item's rows lacks one of the keys [key, key_end), or some neighbourhood may. */
static inline bool fa_listed_cuts(fa_listed w, int key, int key_end)
{
    return fa_list_cuts(w, key, key_end) || (fa_work_has(w, FA_TABLE_NEAR) && fa_near_cuts(w, key, key_end));
}

/* The first key, from `key` on in steps of `keys`, of a block of `keys` keys of which some row of the item sees one. */
static inline int fa_listed_next(fa_listed w, int key, int keys)
{
    key = fa_walk_next(w.walk, key, keys);
    for (int next; key < w.walk.key_end && (next = fa_list_next(w, key, keys)) != key;)
        key = fa_walk_next(w.walk, next, keys);
    return key;
}

#endif
