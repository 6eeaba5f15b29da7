/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in two levels of tiles. A work-group takes one item: FA_BLOCK_Q packed rows against the item's keys in
 * blocks of FA_BLOCK_KV. Work-item (x, y) of FA_LANES across holds FA_ROWS rows of the scores and of the output, in
 * registers for good: of the scores keys 4 x + e + 4 FA_LANES n, e < 4, which are vectors of four, interleaved, and of
 * the output such dims. Both products run through local memory in steps of FA_DEPTH: dims of q and k for the scores,
 * then keys of the weights and of v for the output. What a step needs is fetched into registers while the step before
 * it computes. Every step of the second product takes one key of each of FA_DEPTH work-items, so that all write weights
 * at once.
 *
 * OpenCL C and GLSL compile this: how steps are fetched and staged, and what is long and seldom. The products and the
 * softmax are theirs. Registers are as suits their compilers: rows of columns s[FA_ROWS][KEYS] and acc[FA_ROWS][DIMS].
 * They define before, beside the words of work.h and stage.h:
 *   FA_TILE, FA_OWN                parameters, with a comma behind the last, and arguments: w, id, x, y, s, acc,
 *                                  fetched[FETCH], rows_q[FETCH_Q], keys_at[FETCH_K], values_at[FETCH_V], and what the
 *                                  other words need; or nothing, where all that lies outside of functions
 *   FA_COLUMN, FA_COLUMN_WIDTH     a register: a float, or an fa_vec4; and how many floats it is
 *   FA_ELEMENT(column, e)          one of them
 *   FA_FINITE_PART(column)         with 0 for those that are not finite
 *   FA_TRANSFORM                   not 0: scores are more than scaled and masked
 *   FA_BUFFERS                     stages that there is room for, 1 or 2
 *   FA_BARRIER                     a barrier for local memory
 *   FA_LOCAL(stage, at)            float `at` of a stage, which is told by its first float
 *   FA_LOCAL4(stage, at, n)        vector n behind it
 *   FA_LOCAL_COLUMN(stage, at, g)  column g of a work-item, the first of which lies there
 *   FA_PUT_COLUMN(stage, at, width, v)  the elements of vector v become float `at` and, `width` further each, three more
 *   FA_NUMBERS_x(raw)              what was fetched as an fa_vec4; x is Q, K or V
 *   FA_COUNT_QK(d), FA_COUNT_V(d)  how many elements there are from dim d on
 *   FA_ROW_OF_Q(row)               where a row of q lies
 *   FA_FETCH_Q(place, d, count)    elements of the row there from dim d on
 *   FA_FIND_x(key)                 with pages, what must be known of a key before it is fetched; x is K or V
 *   FA_FETCH_x(found, key, d, count)   elements of the key
 *   FA_UNROLL, FA_ROLLED           before a loop that is to be unrolled, or is not
 *   KEYS, DIMS                     registers of a row of s, and of acc
 *   FA_HAS_PAGES                   as keys.h has it
 */
#ifndef FA_PORTABLE_TILE_H
#define FA_PORTABLE_TILE_H

#include "stage.h"
#include "work.h"

/* Where the rows of q lie that this work-item fetches from, from `first` on; past the end, the last one again. */
FA_KERNEL_FN void fa_tile_find_rows(FA_TILE int first)
{
    FA_UNROLL
    for (int n = 0; n < FETCH_Q; n++) {
        const fa_row q = fa_work_row(w, first + (id + n * ITEMS) / FOURS_QK);
        rows_q[n] = FA_ROW_OF_Q(q);
    }
}

/* With pages, a block's keys are found before they are fetched, and a step's while the step before it is fetched. */
FA_KERNEL_FN void fa_tile_find_keys(FA_TILE int key, int key_end)
{
    FA_UNROLL
    for (int n = 0; n < FETCH_K; n++)
        keys_at[n] = FA_FIND_K(FA_MIN(key + (id + n * ITEMS) / FOURS_QK, key_end - 1));
}

/* Keys past the end are the last one again: their scores are hidden, their weights 0. */
FA_KERNEL_FN void fa_tile_fetch_qk(FA_TILE int key, int key_end, int dim)
{
    FA_UNROLL
    for (int n = 0; n < FETCH_Q; n++) {
        const int d = dim + (id + n * ITEMS) % FOURS_QK * 4;
        fetched[n] = FA_FETCH_Q(rows_q[n], d, FA_COUNT_QK(d));
    }
    FA_UNROLL
    for (int n = 0; n < FETCH_K; n++) {
        const int at = id + n * ITEMS, j = FA_MIN(key + at / FOURS_QK, key_end - 1);
        const int d = dim + at % FOURS_QK * 4;
        fetched[FETCH_Q + n] = FA_FETCH_K(keys_at[n], j, d, FA_COUNT_QK(d));
    }
}

/* The key, from the block's first, whose weight is number `slot` of a step. */
FA_KERNEL_FN int fa_tile_key(int step, int slot)
{
    const int at = step * FA_DEPTH + slot, group = at / FA_LANES, lane = at % FA_LANES;
    return group / 4 * (4 * FA_LANES) + lane * 4 + group % 4;
}

FA_KERNEL_FN void fa_tile_find_values(FA_TILE int key, int key_end, int step)
{
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++) {
        const int slot = (id + n * ITEMS) / FOURS_V;
        values_at[n] = FA_FIND_V(FA_MIN(key + fa_tile_key(step, slot), key_end - 1));
    }
}

FA_KERNEL_FN void fa_tile_fetch_v(FA_TILE int key, int key_end, int step)
{
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++) {
        const int at = id + n * ITEMS, slot = at / FOURS_V, d = at % FOURS_V * 4;
        const int j = FA_MIN(key + fa_tile_key(step, slot), key_end - 1);
        fetched[n] = FA_FETCH_V(values_at[n], j, d, FA_COUNT_V(d));
    }
    if (FA_HAS_PAGES(w) && step + 1 < STEPS_V)
        fa_tile_find_values(FA_OWN key, key_end, step + 1);
}

/* What lies along a row becomes lines. */
FA_KERNEL_FN void fa_tile_put_qk(FA_TILE int stage)
{
    FA_UNROLL
    for (int n = 0; n < FETCH_Q; n++) {
        const int at = id + n * ITEMS, row = at / FOURS_QK, d = at % FOURS_QK * 4;
        if (FA_BLOCK_Q * FOURS_QK % ITEMS == 0 || row < FA_BLOCK_Q)
            FA_PUT_COLUMN(stage, LINE_Q(d) + row, FA_BLOCK_Q, FA_NUMBERS_Q(fetched[n]));
    }
    FA_UNROLL
    for (int n = 0; n < FETCH_K; n++) {
        const int at = id + n * ITEMS, key = at / FOURS_QK, d = at % FOURS_QK * 4;
        if (FA_BLOCK_KV * FOURS_QK % ITEMS == 0 || key < FA_BLOCK_KV)
            FA_PUT_COLUMN(stage, STAGE_ROWS + LINE_K(d) + key, FA_BLOCK_KV,
                          FA_NUMBERS_K(fetched[FETCH_Q + n]));
    }
}

FA_KERNEL_FN void fa_tile_put_v(FA_TILE int stage)
{
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++) {
        const int at = id + n * ITEMS;
        if (FA_DEPTH * FOURS_V % ITEMS == 0 || at < FA_DEPTH * FOURS_V)
            FA_LOCAL4(stage, STAGE_ROWS, at) = FA_NUMBERS_V(fetched[n]);
    }
}

/* The stage to write next: the other one, which all have done with since the last barrier, or the only one. */
FA_KERNEL_FN int fa_tile_next_stage(int stage)
{
    if (FA_BUFFERS == 1) {
        FA_BARRIER;
        return stage;
    }
    return STAGE - stage;
}

/* Row 0 goes last and the others move up. Registers have no index: what is long and seldom treats row 0, in turns. */
#define FA_TILE_TURN(rows, columns)           \
    FA_UNROLL                                 \
    for (int g = 0; g < columns; g++) {       \
        const FA_COLUMN first = rows[0][g];   \
        FA_UNROLL                             \
        for (int i = 0; i + 1 < FA_ROWS; i++) \
            rows[i][g] = rows[i + 1][g];      \
        rows[FA_ROWS - 1][g] = first;         \
    }

/* Scores that the mask cuts, or that a description transforms. */
FA_KERNEL_FN void fa_tile_mask(FA_TILE int key, int key_end, bool masked)
{
    FA_ROLLED
    for (int turn = 0; turn < FA_ROWS; turn++) {
        const fa_row q = fa_work_row(w, w.row_begin + y * FA_ROWS + turn);
        FA_UNROLL
        for (int g = 0; g < KEYS; g++) {
            FA_COLUMN column = s[0][g];
            FA_UNROLL
            for (int e = 0; e < FA_COLUMN_WIDTH; e++) {
                const int n = g * FA_COLUMN_WIDTH + e, j = key + n / 4 * 4 * FA_LANES + 4 * x + n % 4;
                if (j >= key_end || (masked && !fa_work_sees(w, q, j)))
                    FA_ELEMENT(column, e) = FA_NEG_INF;
                else if (FA_TRANSFORM != 0)
                    FA_ELEMENT(column, e) = fa_work_score(w, q, j, FA_ELEMENT(column, e));
            }
            s[0][g] = column;
        }
        FA_TILE_TURN(s, KEYS)
    }
}

/*
 * The second product where a hidden value may not be finite: it is 0 for the rows that do not see it, whose sums are
 * then the same to the last bit as if it were finite.
 */
FA_KERNEL_FN void fa_tile_multiply_guarded(FA_TILE int stage, int key, int step)
{
    FA_ROLLED
    for (int turn = 0; turn < FA_ROWS; turn++) {
        const fa_row q = fa_work_row(w, w.row_begin + y * FA_ROWS + turn);
        FA_ROLLED
        for (int t = 0; t < FA_DEPTH; t++) {
            const bool visible = fa_work_shows(w, q, key + fa_tile_key(step, t));
            const float weight = FA_LOCAL(stage, LINE_P(t) + y * FA_ROWS + turn);
            FA_UNROLL
            for (int g = 0; g < DIMS; g++) {
                const FA_COLUMN value = FA_LOCAL_COLUMN(stage, STAGE_ROWS + LINE_V(t) + 4 * x, g);
                acc[0][g] += weight * (visible ? value : FA_FINITE_PART(value));
            }
        }
        FA_TILE_TURN(acc, DIMS)
    }
}

#endif
