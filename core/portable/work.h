/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of a GPU do with a work item: where its rows lie, what a description adds to their scores, how rows
 * end. A new term of scores is a line of fa_work_score(). It is written in words that each language defines before:
 *   FA_WORK                 a parameter that is a work item; it has members head_kv, row_end and walk
 *   FA_PARAM(w, member)     a member of the table's fa_table_params
 *   FA_SEQUENCE(w, member)  a member of the item's fa_table_sequence
 *   FA_FLOAT_AT(w, n)       float number n of the table
 *   FA_INDEX(x)             an int as a number of elements, which may need 64 bits
 *   FA_WIDE(x)              an fa_long as one
 *   FA_ROLLED               precedes a loop that stays one
 *   FA_LATE(x)              an int, of which nothing is computed before it is needed: loops keep no register for that
 *   FA_LOAD_BIAS(w, n)      element n of bias, widened
 *   FA_LOAD_KEEP(w, n)      element n of keep
 *   FA_LOAD_BITS(w, n)      the same where an element holds 32 keys, an fa_uint
 * and those of lists.h.
 */
#ifndef FA_PORTABLE_WORK_H
#define FA_PORTABLE_WORK_H

#include "keep.h"

/* Elements that precede row r of operand x, which is q or o. */
#define FA_ROW_AT(w, x, r)                                                                        \
    (FA_WIDE(FA_SEQUENCE(w, x##_at)) + FA_INDEX((r).head) * FA_WIDE(FA_PARAM(w, x##_stride)[1]) + \
     FA_INDEX((r).position) * FA_WIDE(FA_PARAM(w, x##_stride)[2]))

/* Elements that precede the first row of the item's head of operand x, which is k or v. */
#define FA_HEAD_AT(w, x) \
    (FA_WIDE(FA_SEQUENCE(w, x##_at)) + FA_INDEX((w).head_kv) * FA_WIDE(FA_PARAM(w, x##_stride)[1]))

/* Elements that precede row r's LSE. */
#define FA_LSE_AT(w, r)                                                                       \
    (FA_WIDE(FA_SEQUENCE(w, lse_at)) + FA_INDEX((r).head) * FA_INDEX(FA_PARAM(w, lse_rows)) + \
     FA_INDEX((r).position))

/* Row number `row` of the item's key head, see row.h. */
FA_KERNEL_FN fa_row fa_work_row(FA_WORK w, int row)
{
    const fa_row r = fa_row_of(w.walk.mask, FA_PARAM(w, group), w.head_kv, row, w.row_end);
    if (FA_LISTS(w) && fa_work_has(w, FA_TABLE_NEAR))
        return fa_near_row(w, r);
    return r;
}

/* Whether nothing hides the key. */
FA_KERNEL_FN bool fa_work_shows(FA_WORK w, fa_row r, int key)
{
    return fa_work_sees(w, r, key) && (!fa_work_has(w, FA_TABLE_KEEP) || fa_work_keeps(w, r, key));
}

/* The score of a raw product with a key that the mask shows: a natural logarithm; -inf where `keep` hides the key. */
FA_KERNEL_FN float fa_work_score(FA_WORK w, fa_row r, int key, float x)
{
    x = fa_score_scaled(FA_PARAM(w, score), x);
    if (fa_work_has(w, FA_TABLE_ALIBI)) {
        int slopes = FA_PARAM(w, slopes_at) + FA_SEQUENCE(w, number) * FA_PARAM(w, slope_stride);
        x = fa_score_sloped(x, FA_FLOAT_AT(w, slopes + r.head), w.walk.mask.diagonal + r.position - key);
    }
    if (fa_work_has(w, FA_TABLE_BIAS)) {
        float bias = FA_LOAD_BIAS(w, FA_EXTRA_AT(w, bias, r, key));
        if (fa_work_has(w, FA_TABLE_BIAS_FACTORS))
            bias *= FA_FLOAT_AT(w, FA_PARAM(w, factors_at) + r.head);
        x = fa_score_biased(x, bias);
    }
    if (fa_work_has(w, FA_TABLE_KEEP) && !fa_work_keeps(w, r, key))
        x = FA_NEG_INF;
    return x;
}

/* Ends a row. Sinks count once: in the item or merge that has the `whole` row, and not in its parts. */
FA_KERNEL_FN fa_closed fa_work_close(FA_WORK w, fa_row r, fa_state state, bool whole)
{
    float sink = FA_NEG_INF;
    if (whole && fa_work_has(w, FA_TABLE_SINKS))
        sink = FA_FLOAT_AT(w, FA_PARAM(w, sinks_at) + r.head);
    return fa_state_close(state, FA_PARAM(w, score).natural, sink);
}

#endif
