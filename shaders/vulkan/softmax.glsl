/* SPDX-License-Identifier: Apache-2.0 */
/* What a description can do to scores, and how a row ends: the same for every kernel. */
#ifdef FA_SUBGROUPS
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "memory.glsl"
#include "lanes.glsl"

layout(constant_id = FA_VK_TRANSFORM) const int TRANSFORM = 0;
layout(constant_id = FA_VK_PAGES) const int PAGES = 0;
layout(constant_id = FA_VK_LISTS) const int LISTS = 0;

/* The words of core/portable/item.h and work.h. */
#define FA_ITEM_OWN int sequence; /* its entry in the table */
#define FA_AT address
#define FA_TABLE_GIVEN
#define FA_TABLE_PASSED
#define FA_FIND_SEQUENCE(w, n) w.sequence = PARAMS.sequences_at + n
#define FA_ITEM(n) TABLE(fa_table_item)[PARAMS.items_at + n]
#define FA_IS_NEGATIVE(x) int((x).y) < 0
#define FA_HAS_PAGES(w) (PAGES != 0)
#define FA_LISTS(w) (LISTS != 0)
#define FA_WORK work
#define FA_PARAM(w, member) PARAMS.member
#define FA_SEQUENCE(w, member) TABLE(fa_table_sequence)[(w).sequence].member
#define FA_FLOAT_AT(w, n) TABLE(float)[n]
#define FA_LIST_WORD(w, n) TABLE(uint)[n]
#define FA_INDEX(x) address(x)
#define FA_WIDE(x) wide(x)
#define FA_ROLLED [[dont_unroll]]
#define FA_LATE(x) (x)
#define FA_LOAD_BIAS(w, n) load_bias(n)
#define FA_LOAD_KEEP(w, n) load_keep(n)
#define FA_LOAD_BITS(w, n) WORD1(6, at(FA_VK_SLOT_KEEP) + (n) * 4)

float load_bias(address n)
{
    const int type = PARAMS.bias_type;
    const address p = at(FA_VK_SLOT_BIAS) + n * address(bytes_of(type));
    return FA_LOAD(5, type, p);
}

uint load_keep(address n)
{
    const address p = at(FA_VK_SLOT_KEEP) + n;
    return WORD1(6, p & ~address(3)) >> (uint(p & address(3)) * 8u) & 0xffu;
}

#include "core/portable/item.h"
#include "core/portable/work.h"

/* Where rows of q and o begin: their first byte. */
address row_of_q(work w, fa_row q)
{
    return at(FA_VK_SLOT_Q) + FA_ROW_AT(w, q, q) * address(bytes_of(TYPE_Q));
}

address row_of_o(work w, fa_row q)
{
    return at(FA_VK_SLOT_O) + FA_ROW_AT(w, o, q) * address(bytes_of(TYPE_O));
}

address lse_of(work w, fa_row q)
{
    return at(FA_VK_SLOT_LSE) + FA_LSE_AT(w, q) * 4;
}

/* What part row n of split rows leaves. */
void store_part_state(address n, fa_state state)
{
    const address p = at(FA_VK_SLOT_STATE) + n * 8;
    WORD1(9, p) = floatBitsToUint(state.max);
    WORD1(9, p + 4) = floatBitsToUint(state.sum);
}

fa_state load_part_state(address n)
{
    const address p = at(FA_VK_SLOT_STATE) + n * 8;
    fa_state state;
    state.max = uintBitsToFloat(WORD1(9, p));
    state.sum = uintBitsToFloat(WORD1(9, p + 4));
    return state;
}
