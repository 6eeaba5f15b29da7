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

/* What is the same for a whole work item. */
struct work {
    bool whole;        /* the item writes its rows itself, and not a part of them */
    address part_row; /* else the first of its rows among the partial results */
    int head_kv, row_begin, row_end, key_begin, key_end;
    int sequence; /* its entry in the table */
    fa_walk walk;
    int group, dim_qk, dim_v, flags;
    /* With pages: what a look-up of a key asks, as the table has it. */
    fa_long page_stride;
    int first, number, row, page_size, page_shift;
};

work work_of(address part_row, int sequence, int head_kv, int row_begin, int row_end, int key_begin, int key_end)
{
    work w;
    w.part_row = part_row;
    w.head_kv = head_kv;
    w.row_begin = row_begin;
    w.row_end = row_end;
    w.key_begin = key_begin;
    w.key_end = key_end;
    w.sequence = PARAMS.sequences_at + sequence;
    w.group = PARAMS.group;
    w.walk = fa_walk_of(TABLE(fa_table_sequence)[w.sequence].mask, w.group, row_begin, row_end, key_end);
    w.dim_qk = PARAMS.dim_qk;
    w.dim_v = PARAMS.dim_v;
    w.flags = PARAMS.flags;
    if (PAGES != 0) {
        w.page_stride = PARAMS.page_stride;
        w.first = TABLE(fa_table_sequence)[w.sequence].first;
        w.number = TABLE(fa_table_sequence)[w.sequence].number;
        w.row = TABLE(fa_table_sequence)[w.sequence].row;
        w.page_size = PARAMS.page_size;
        w.page_shift = PARAMS.page_shift;
    }
    return w;
}

/* Item n of the plan. */
work work_at(int n)
{
    const fa_table_item item = TABLE(fa_table_item)[PARAMS.items_at + n];
    work w = work_of(wide(item.part_row), item.sequence, item.head_kv, item.row_begin, item.row_end, item.key_begin,
                     item.key_end);
    w.whole = int(item.part_row.y) < 0;
    return w;
}

/* The words of core/portable/work.h. */
#define FA_WORK work
#define FA_PARAM(w, member) PARAMS.member
#define FA_SEQUENCE(w, member) TABLE(fa_table_sequence)[(w).sequence].member
#define FA_FLOAT_AT(w, n) TABLE(float)[n]
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
    store_state(p, state.max);
    store_state(p + 4, state.sum);
}

fa_state load_part_state(address n)
{
    const address p = at(FA_VK_SLOT_STATE) + n * 8;
    fa_state state;
    state.max = load_state(p);
    state.sum = load_state(p + 4);
    return state;
}
