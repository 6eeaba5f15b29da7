/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mean weight of each key over probe rows, in the words of task.h, from LSEs that attention left. A work-group does
 * FA_SALIENCY_KEYS keys of a head of a sequence, a work-item one of them. Scores, masks and `keep` are those of work.h, which is
 * written in the words defined here.
 */
#ifndef FA_PORTABLE_SALIENCY_H
#define FA_PORTABLE_SALIENCY_H

#include "table.h"
#include "task.h"
#include "walk.h"

#define FA_SALIENCY_KEYS 64

/* Operands. Constants 0 and 1 are the types of the first two; 2 and 3 those of scales and zeros of k, -1 where there are none. */
#define FA_SALIENCY_Q 0
#define FA_SALIENCY_K 1
#define FA_SALIENCY_LSE 2
#define FA_SALIENCY_KEEP 3
#define FA_SALIENCY_BIAS 4
#define FA_SALIENCY_PROBES 5
#define FA_SALIENCY_OUT 6
#define FA_SALIENCY_PAGES 7
#define FA_SALIENCY_K_SCALE 8
#define FA_SALIENCY_K_ZERO 9
#define FA_SALIENCY_WORK 10

/* Lists behind it: those of the table. */
FA_STRUCT(fa_saliency_params)
    fa_table_params table;
    int sequences, heads, keys; /* of the output                                                 */
    int each;                   /* query heads that one head of the output is a mean of          */
    int blocks;                 /* work-groups of a head                                         */
    int probes;                 /* of a sequence; 0: all of its rows                             */
    int sums;                   /* 1: sums in the place of means                                 */
    int work_at;                /* first entry of the sequences of a work of its own; -1: the table's    */
FA_STRUCT_END(fa_saliency_params)
FA_TASK_VIEW(fa_saliency_params)
FA_TASK_VIEW(fa_table_sequence)
FA_TASK_VIEW(float)

#define FA_SALIENCY_IS(t, name) FA_TASK_PARAM(t, fa_saliency_params, name)

/* A row of keys, as the functions of work.h take it. */
FA_STRUCT(fa_saliency_work)
    FA_TASK_HELD task;
    int sequence, head_kv, row_end;
    fa_walk walk;
    fa_table_sequence its;
FA_STRUCT_END(fa_saliency_work)

#define FA_WORK fa_saliency_work
#define FA_PARAM(w, member) FA_SALIENCY_IS(FA_TASK_OF((w).task), table.member)
#define FA_SEQUENCE(w, member) (w).its.member
#define FA_FLOAT_AT(w, n) FA_TASK_LIST(FA_TASK_OF((w).task), float, n)
#define FA_LOAD_BIAS(w, n) FA_GET_ELEMENT(FA_TASK_OF((w).task), 4, FA_PARAM(w, bias_type), n)
#define FA_LOAD_KEEP(w, n) FA_GET8(FA_TASK_OF((w).task), 3, n)
#define FA_LATE(x) (x)
#define FA_LOAD_BITS(w, n) FA_GET32(FA_TASK_OF((w).task), 3, (n)*FA_INDEX(4))
#define FA_LOAD_PAGE(w, n) FA_INT(FA_GET32(FA_TASK_OF((w).task), 7, (n)*FA_INDEX(4)))
#define FA_CODES FA_TASK
#define FA_BITS16(t, at) FA_GET16(t, 1, at)
#define FA_BITS32(t, at) (FA_GET16(t, 1, at) | FA_GET16(t, 1, (at) + FA_INDEX(2)) << 16)
#define FA_BITS32_ALIGNED(t, at) FA_GET32(t, 1, at)

#define FA_LISTS(w) false
#define FA_LIST_WORD(w, n) FA_UINT((n)&0)

#include "codes.h"
#include "keys.h"
#include "work.h"

/* Where a key's row lies in k, and what scales it in tensors of their own: elements that precede them. */
FA_STRUCT(fa_saliency_key)
    FA_AT k, scale, zero;
    bool exists; /* false: its page is none of the pool's */
FA_STRUCT_END(fa_saliency_key)

FA_KERNEL_FN fa_saliency_key fa_saliency_find(FA_TASK t, fa_saliency_work w, int key)
{
    fa_saliency_key found;
    fa_key_place place;
    place.page = FA_SEQUENCE(w, number);
    place.within = FA_SEQUENCE(w, row) + key;
    found.exists = true;
    found.scale = found.zero = FA_INDEX(0);
    if (fa_work_has(w, FA_TABLE_PAGES)) {
        place = fa_work_place(w, key);
        found.exists = fa_work_has_page(w, place);
        place = fa_work_clamped(w, place);
        found.k = FA_PLACE_AT(w, k, place);
    } else {
        found.k = FA_HEAD_AT(w, k) + FA_INDEX(key) * FA_WIDE(FA_PARAM(w, k_stride)[2]);
    }
    if (FA_TASK_CONSTANT(t, 2) >= 0) {
        found.scale = FA_SCALE_ROW(w, FA_PARAM(w, k_scales).scale_stride, place, FA_PARAM(w, k_scales));
        found.zero = FA_SCALE_ROW(w, FA_PARAM(w, k_scales).zero_stride, place, FA_PARAM(w, k_scales));
    }
    return found;
}

/* The scaling of dim d that lies in tensors of its own. */
FA_KERNEL_FN fa_scaling fa_saliency_scaling(FA_TASK t, fa_saliency_work w, fa_saliency_key key, int d)
{
    const int scale_type = FA_TASK_CONSTANT(t, 2), zero_type = FA_TASK_CONSTANT(t, 3);
    const int group = FA_GROUP_OF(d, FA_PARAM(w, k_scales).dims, FA_PARAM(w, k_scales).dims_shift);
    const FA_AT scale = key.scale + FA_INDEX(group) * FA_WIDE(FA_PARAM(w, k_scales).scale_stride[3]),
                zero = key.zero + FA_INDEX(group) * FA_WIDE(FA_PARAM(w, k_scales).zero_stride[3]);
    fa_scaling s;
    s.scale =
        FA_PARAM(w, k_scales).factor * fa_scale_widen(scale_type, FA_GET_SCALE(t, 8, scale_type, scale));
    s.offset = 0.0f;
    if (zero_type >= 0)
        s.offset = fa_scale_widen(zero_type, FA_GET_SCALE(t, 9, zero_type, zero));
    return s;
}

/* Elements d to d + 3 of a key in a format of caches. */
FA_KERNEL_FN fa_four fa_saliency_decode(FA_TASK t, fa_saliency_work w, fa_saliency_key key, int d)
{
    const int type = FA_TASK_CONSTANT(t, 1);
    if (FA_TYPE_IS_ROW(type))
        return fa_row_four(type, t, FA_TYPE_SPAN(type, key.k), d, FA_PARAM(w, dim_qk),
                           FA_PARAM(w, k_scales).row_bytes);
    const int e = d & ((1 << FA_TYPE_BLOCK_SHIFT(type)) - 1);
    const bool scaled = FA_TASK_CONSTANT(t, 2) >= 0, each = (FA_PARAM(w, k_scales).dims & 3) != 0;
    const FA_AT block = FA_TYPE_SPAN(type, key.k + FA_INDEX(d - e));
    const fa_uint codes = fa_codes_of(type, t, block, e);
    fa_four four;
    fa_scaling s;
    s.scale = 1.0f;
    s.offset = 0.0f;
    if (!scaled)
        s = fa_scaling_of(type, t, block);
    FA_UNROLLED
    for (int i = 0; i < 4; i++) {
        if (scaled && (i == 0 || each)) /* else the four have one scale */
            s = fa_saliency_scaling(t, w, key, d + i);
        if (scaled)
            four.x[i] = FA_FMA(s.scale, fa_bare_number(type, codes >> FA_UINT(8 * i) & 255u), s.offset);
        else
            four.x[i] = fa_decoded(type, codes, i, s);
    }
    return four;
}

/* The product of a query, from element `q` on, and a key. */
FA_KERNEL_FN float fa_saliency_product(FA_TASK t, fa_saliency_work w, FA_AT q, fa_saliency_key key)
{
    const int type_q = FA_TASK_CONSTANT(t, 0), type_k = FA_TASK_CONSTANT(t, 1), dim = FA_PARAM(w, dim_qk);
    float x = 0.0f;
    if (FA_TYPE_IS_CODED(type_k)) {
        for (int d = 0; d < dim; d += 4) {
            const fa_four four = fa_saliency_decode(t, w, key, d);
            FA_UNROLLED
            for (int i = 0; i < 4; i++)
                x += FA_GET_ELEMENT(t, 0, type_q, q + FA_INDEX(d + i)) * four.x[i];
        }
    } else {
        for (int d = 0; d < dim; d++)
            x += FA_GET_ELEMENT(t, 0, type_q, q + FA_INDEX(d)) *
                 FA_GET_ELEMENT(t, 1, type_k, key.k + FA_INDEX(d));
    }
    return x;
}

/* The weight of key number n, which lies there, in row r, which sees it. */
FA_KERNEL_FN float fa_saliency_weight(FA_TASK t, fa_saliency_work w, fa_row r, fa_saliency_key key, int n)
{
    const float lse = FA_AS_FLOAT(FA_GET32(t, 2, FA_LSE_AT(w, r) * FA_INDEX(4)));
    if (!key.exists)
        return FA_AS_FLOAT(0x7fc00000u);
    if (lse == FA_NEG_INF)
        return 0.0f;
    return fa_weight(fa_work_score(w, r, n, fa_saliency_product(t, w, FA_ROW_AT(w, q, r), key)), lse,
                     FA_LOG2E);
}

FA_KERNEL_FN float fa_saliency_of(FA_TASK t, fa_saliency_work w, int first, int key)
{
    const int group = FA_PARAM(w, group), each = FA_SALIENCY_IS(t, each), probes = FA_SALIENCY_IS(t, probes);
    const int rows = FA_SEQUENCE(w, rows), count = probes > 0 ? probes : rows;
    const fa_saliency_key at = fa_saliency_find(t, w, key);
    float sum = 0.0f;
    int seen = 0;
    for (int i = 0; i < count; i++) {
        const int position =
            probes > 0 ? FA_INT(FA_GET32(
                             t, 5, (FA_INDEX(w.sequence) * FA_INDEX(probes) + FA_INDEX(i)) * FA_INDEX(4)))
                       : i;
        if (position < 0 || position >= rows)
            continue;
        for (int n = first; n < first + each; n++) {
            const fa_row r = fa_row_of(w.walk.mask, group, w.head_kv, position * group + n, w.row_end);
            if (!fa_work_shows(w, r, key))
                continue;
            sum += fa_saliency_weight(t, w, r, at, key);
            seen++;
        }
    }
    return FA_SALIENCY_IS(t, sums) != 0 || seen == 0 ? sum : sum / FA_FLOAT(seen);
}

#define FA_SALIENCY_WORD(t, n, word) FA_SEQUENCE_WORD(t, 10, FA_SALIENCY_IS(t, work_at) + (n), word)
#define FA_SALIENCY_LONG(t, n, word) \
    FA_LONG_OF(FA_UINT(FA_SALIENCY_WORD(t, n, word)), FA_UINT(FA_SALIENCY_WORD(t, n, (word) + 1)))

/* Sequence n, as the work of the run has it where there is one. */
FA_KERNEL_FN fa_table_sequence fa_saliency_sequence(FA_TASK t, int n)
{
    fa_table_sequence s;
    if (FA_SALIENCY_IS(t, work_at) < 0) {
        s = FA_TASK_LIST(t, fa_table_sequence, FA_SALIENCY_IS(t, table.sequences_at) + n);
    } else {
        s.q_at = FA_SALIENCY_LONG(t, n, 0);
        s.k_at = FA_SALIENCY_LONG(t, n, 2);
        s.v_at = FA_SALIENCY_LONG(t, n, 4);
        s.o_at = FA_SALIENCY_LONG(t, n, 6);
        s.lse_at = FA_SALIENCY_LONG(t, n, 8);
        s.number = FA_SALIENCY_WORD(t, n, 10);
        s.mask.len_kv = FA_SALIENCY_WORD(t, n, FA_SEQUENCE_COUNT_WORD);
        s.mask.diagonal = FA_SALIENCY_WORD(t, n, FA_SEQUENCE_DIAGONAL_WORD);
        s.mask.left = FA_SALIENCY_WORD(t, n, 13);
        s.mask.right = FA_SALIENCY_WORD(t, n, 14);
        s.mask.prefix = FA_SALIENCY_WORD(t, n, 15);
        s.first = FA_SALIENCY_WORD(t, n, FA_SEQUENCE_FIRST_WORD);
        s.row = FA_SALIENCY_WORD(t, n, FA_SEQUENCE_ROW_WORD);
        s.rows = FA_SALIENCY_WORD(t, n, FA_SEQUENCE_ROWS_WORD);
        s.unused = 0;
    }
    return s;
}

FA_KERNEL_FN void fa_saliency_group(FA_TASK t, int group, int item, int items)
{
    const int heads = FA_SALIENCY_IS(t, heads), blocks = FA_SALIENCY_IS(t, blocks),
              each = FA_SALIENCY_IS(t, each);
    const int line = group / blocks, block = group - line * blocks, sequence = line / heads,
              head = line - sequence * heads;
    if (sequence >= FA_SALIENCY_IS(t, sequences))
        return;
    fa_saliency_work w;
    w.task = FA_TASK_HOLD(t);
    w.sequence = sequence;
    w.head_kv = head * each / FA_PARAM(w, group);
    w.its = fa_saliency_sequence(t, sequence);
    w.row_end = FA_SEQUENCE(w, rows) * FA_PARAM(w, group);
    w.walk.mask = FA_SEQUENCE(w, mask);
    const int first = head * each - w.head_kv * FA_PARAM(w, group);
    for (int n = item; n < FA_SALIENCY_KEYS; n += items) {
        const int key = block * FA_SALIENCY_KEYS + n;
        if (key >= w.walk.mask.len_kv)
            continue;
        const FA_AT to =
            FA_INDEX(line) * FA_INDEX(FA_SALIENCY_IS(t, keys)) + FA_INDEX(FA_SEQUENCE(w, first) + key);
        FA_PUT32(t, 6, to * FA_INDEX(4), FA_AS_UINT(fa_saliency_of(t, w, first, key)));
    }
}

#endif
