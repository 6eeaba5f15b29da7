/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in two levels of tiles: the words of core/portable/tile.h, the products, the softmax, and the kernel. */
#include "product.cl"
#include "softmax.cl"

#define FA_CONSTANT(name, value) enum { name = value }
#include "core/portable/stage.h"

#define KEYS (FA_BLOCK_KV / FA_LANES)
#define DIMS (FA_DIM_V / FA_LANES)
#define PART 64 /* dims that a score is summed over at a time, where FA_IN_PARTS */
#ifdef FA_IN_PARTS
#define IN_PARTS true
#else
#define IN_PARTS false
#endif

/* How many elements there are from dim d on: told at compile time where all there is room for exist. */
#ifdef FA_WHOLE_QK
#define FA_COUNT_QK(d) 4
#else
#define FA_COUNT_QK(d) (w.dim_qk - (d))
#endif
#ifdef FA_WHOLE_V
#define FA_COUNT_V(d) 4
#else
#define FA_COUNT_V(d) (w.dim_v - (d))
#endif

/* Where the rows of this item come from. */
typedef struct source {
    memory q;
    cursor k, v;
    long q_offset;
} source;

/* Of keys in pages, `row` was found before they are fetched; else they are found here. */
static inline raw fetch_key(const source *of, long found, int key, int d, int count)
{
    const long first = row_found(of->k, found, key);
    const raw x = FETCH4_K(of->k, first, place_found(of->k, found, key), d, count_at(first, count));
    return PAGES && first < 0 ? ~(raw)0 : x;
}

static inline raw fetch_value(const source *of, long found, int key, int d, int count)
{
    const long first = row_found(of->v, found, key);
    return FETCH4_V(of->v, first, place_found(of->v, found, key), d, count_at(first, count));
}

#define FA_TILE                                                                                        \
    const source *of, __local float *room, work w, int id, int x, int y, raw fetched[FETCH],           \
        long rows_q[FETCH_Q], long keys_at[FETCH_K], long values_at[FETCH_V], float s[FA_ROWS][KEYS],  \
        float acc[FA_ROWS][DIMS],
#define FA_OWN of, room, w, id, x, y, fetched, rows_q, keys_at, values_at, s, acc,
#define FA_COLUMN float
#define FA_COLUMN_WIDTH 1
#define FA_ELEMENT(column, e) column
#define FA_FINITE_PART(column) (fa_is_finite(column) ? (column) : 0.0f)
#define FA_BARRIER barrier(CLK_LOCAL_MEM_FENCE)
#define FA_LOCAL(stage, at) (room + stage)[at]
#define FA_LOCAL4(stage, at, n) ((__local float4 *)(room + stage + (at)))[n]
#define FA_LOCAL_COLUMN(stage, at, g) (room + stage)[(at) + (g) / 4 * 4 * FA_LANES + (g) % 4]
#define FA_PUT_COLUMN(stage, at, width, v) put_column(room + stage + (at), width, v)
#define FA_NUMBERS_Q FA_CAT(widen_, FA_TYPE_Q)
#define FA_NUMBERS_K WIDEN4_K
#define FA_NUMBERS_V WIDEN4_V
#define FA_ROW_OF_Q(row) (of->q_offset + FA_ROW_AT(w, q, row)) * FA_TYPE_BYTES(FA_TYPE_Q)
#define FA_FETCH_Q(place, d, count) FA_CAT(fetch4_, FA_TYPE_Q)(of->q, place, d, count)
#define FA_FIND_K(key) find_key(of->k, key)
#define FA_FIND_V(key) find_key(of->v, key)
#define FA_FETCH_K(found, key, d, count) fetch_key(of, found, key, d, count)
#define FA_FETCH_V(found, key, d, count) fetch_value(of, found, key, d, count)
#include "core/portable/tile.h"

static bool is_finite(const raw v[FETCH])
{
    int4 odd = 0;
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++)
        odd |= not_finite4(WIDEN4_V(v[n]));
    return !any(odd);
}

/* scores += q k^T over one step of dims, output += weights v over one step of keys. */
FA_PRODUCT(multiply_qk, LINE_Q, STAGE_ROWS, LINE_K, KEYS)
FA_PRODUCT(multiply_pv, LINE_P, STAGE_ROWS, LINE_V, DIMS)

/* Sums begin anew; what they were is added to others. */
static inline void set_aside(float sums[FA_ROWS][KEYS], float to[FA_ROWS][KEYS])
{
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        FA_UNROLL
        for (int g = 0; g < KEYS; g++) {
            to[i][g] += sums[i][g];
            sums[i][g] = 0.0f;
        }
    }
}

/* The weights of one step: of each work-item in its turn, in the order of their slots. */
static void put_weights(__local float *stage, int x, int y, int step, const float s[FA_ROWS][KEYS])
{
    FA_UNROLL
    for (int g = 0; g < KEYS; g++) {
        int slot = g * FA_LANES + x - step * FA_DEPTH;
        float column[FA_ROWS];
        FA_UNROLL
        for (int i = 0; i < FA_ROWS; i++)
            column[i] = s[i][g];
        if (slot >= 0 && slot < FA_DEPTH)
            put_rows(stage + LINE_P(slot) + y * FA_ROWS, column);
    }
}

/* Every work-item of a line leaves a value for each of its rows, and gets the greatest, or the sum. */
static void exchange_rows(__local float *room, int x, int y, bool add, float value[FA_ROWS])
{
    if (FA_LANES_SHARE(FA_LANES)) {
        FA_UNROLL
        for (int i = 0; i < FA_ROWS; i++)
            value[i] = add ? fa_lanes_sum(value[i], FA_LANES) : fa_lanes_max(value[i], FA_LANES);
        return;
    }
    put_rows(room + LINE_P(x) + y * FA_ROWS, value);
    barrier(CLK_LOCAL_MEM_FENCE);
    FA_UNROLL_BY(2)
    for (int n = 0; n < FA_LANES; n++) {
        float rows[FA_ROWS];
        get_rows(room + LINE_P(n) + y * FA_ROWS, rows);
        FA_UNROLL
        for (int i = 0; i < FA_ROWS; i++) {
            if (n == 0)
                value[i] = rows[i];
            else
                value[i] = add ? value[i] + rows[i] : fmax(value[i], rows[i]);
        }
    }
}

/* Scores become weights, under the new maximum of each row. */
static void softmax_step(__local float *room, int x, int y, float unit, float s[FA_ROWS][KEYS], float o[FA_ROWS][DIMS],
                  float max[FA_ROWS], float sum[FA_ROWS])
{
    float next[FA_ROWS];
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        next[i] = max[i];
        FA_UNROLL
        for (int g = 0; g < KEYS; g++)
            next[i] = fmax(next[i], s[i][g]);
    }
    exchange_rows(room, x, y, false, next);
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        float old = fa_state_weight(max[i], next[i], unit), base = fa_safe_max(next[i]), total = 0.0f;
        max[i] = next[i];
        FA_UNROLL
        for (int g = 0; g < KEYS; g++) {
            s[i][g] = fa_weight(s[i][g], base, unit);
            total += s[i][g];
        }
        sum[i] = sum[i] * old + total;
        FA_UNROLL
        for (int g = 0; g < DIMS; g++)
            o[i][g] *= old;
    }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void fa_tile(
    FA_TABLE, FA_MEMORY(q), FA_MEMORY(k), FA_MEMORY(v), FA_MEMORY(o),
    FA_MEMORY(bias), FA_MEMORY(keep), FA_MEMORY(page_table), FA_MEMORY(lse), FA_MEMORY(partial),
    long q_offset, long k_offset, long v_offset, long o_offset, long bias_offset, long keep_offset,
    long page_table_offset, long lse_offset, long partial_offset,
    long partial_state_offset FA_SCALE_PARAMETERS, __local float4 *shared)
{
    __local float *room = (__local float *)(shared + 1);
    __local int *unsafe = (__local int *)shared; /* some value that may be hidden is not finite */
    FA_GATHER(q);
    FA_GATHER(k);
    FA_GATHER(v);
    FA_GATHER(o);
    FA_GATHER(bias);
    FA_GATHER(keep);
    FA_GATHER(page_table);
    FA_GATHER(lse);
    FA_GATHER(partial);

    FA_FIND_TABLE;
    if ((int)get_group_id(0) >= ((__global const fa_table_params *)table)->items)
        return;
    const work w =
        work_with(table, get_group_id(0), bias, bias_offset, keep, keep_offset, page_table, page_table_offset);
    const source all = {q, FA_KEYS_OF(w, k, k_offset), FA_VALUES_OF(w, v, v_offset), q_offset}, *of = &all;

    const int id = work_item(), x = id % FA_LANES, y = id / FA_LANES;
    float s[FA_ROWS][KEYS], aside[FA_ROWS][KEYS], acc[FA_ROWS][DIMS], max[FA_ROWS], sum[FA_ROWS];
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        max[i] = FA_NEG_INF;
        sum[i] = 0.0f;
        FA_UNROLL
        for (int g = 0; g < DIMS; g++)
            acc[i][g] = 0.0f;
    }
    if (id == 0)
        *unsafe = 0;

    int stage = 0;
    raw fetched[FETCH];
    long rows_q[FETCH_Q], keys_at[FETCH_K], values_at[FETCH_V]; /* the last two with pages alone */
    fa_tile_find_rows(FA_OWN w.row_begin);
    int key = fa_work_next(w, FA_TRANSFORM, w.key_begin, FA_BLOCK_KV);
    if (key < w.key_end) {
        if (PAGES)
            fa_tile_find_keys(FA_OWN key, w.key_end);
        fa_tile_fetch_qk(FA_OWN key, w.key_end, 0);
    }
    while (key < w.key_end) {
        const int key_end = FA_MIN(key + FA_BLOCK_KV, w.key_end);
        FA_UNROLL
        for (int i = 0; i < FA_ROWS; i++) {
            FA_UNROLL
            for (int g = 0; g < KEYS; g++)
                s[i][g] = aside[i][g] = 0.0f;
        }
        if (PAGES)
            fa_tile_find_values(FA_OWN key, key_end, 0);
        FA_ROLLED
        for (int d = 0; d < w.dim_qk; d += FA_DEPTH) {
            fa_tile_put_qk(FA_OWN stage);
            barrier(CLK_LOCAL_MEM_FENCE);
            if (d + FA_DEPTH < w.dim_qk)
                fa_tile_fetch_qk(FA_OWN key, key_end, d + FA_DEPTH);
            else
                fa_tile_fetch_v(FA_OWN key, key_end, 0);
            multiply_qk(room + stage, x, y, s);
            if (IN_PARTS && (d + FA_DEPTH) % PART == 0 && d + FA_DEPTH < w.dim_qk)
                set_aside(s, aside);
            stage = fa_tile_next_stage(stage);
        }
        if (IN_PARTS)
            set_aside(aside, s);

        const bool masked = fa_work_class(w, key, key_end) == FA_CLASS_PARTIAL;
        const bool hides = masked || key_end < key + FA_BLOCK_KV || fa_work_has(w, FA_TABLE_KEEP);
        if (FA_TRANSFORM || masked || key_end < key + FA_BLOCK_KV)
            fa_tile_mask(FA_OWN key, key_end, masked);
        softmax_step(room + stage, x, y, w.p->score.unit, s, acc, max, sum);
        if (!FA_LANES_SHARE(FA_LANES))
            stage = fa_tile_next_stage(stage);

        const int next = fa_work_next(w, FA_TRANSFORM, key + FA_BLOCK_KV, FA_BLOCK_KV);
        if (PAGES && next < w.key_end)
            fa_tile_find_keys(FA_OWN next, w.key_end);
        FA_ROLLED
        for (int step = 0; step < STEPS_V; step++) {
            put_weights(room + stage, x, y, step, s);
            fa_tile_put_v(FA_OWN stage);
            if (hides && !is_finite(fetched))
                *unsafe = 1;
            barrier(CLK_LOCAL_MEM_FENCE);
            if (step + 1 < STEPS_V)
                fa_tile_fetch_v(FA_OWN key, key_end, step + 1);
            else if (next < w.key_end)
                fa_tile_fetch_qk(FA_OWN next, FA_MIN(next + FA_BLOCK_KV, w.key_end), 0);
            if (hides && *unsafe)
                fa_tile_multiply_guarded(FA_OWN stage, key, step);
            else
                multiply_pv(room + stage, x, y, acc);
            stage = fa_tile_next_stage(stage);
        }
        key = next;
    }

    barrier(CLK_LOCAL_MEM_FENCE);
    exchange_rows(room, x, y, true, sum);
    FA_ROLLED
    for (int turn = 0; turn < FA_ROWS; turn++) {
        const int row = w.row_begin + y * FA_ROWS + turn;
        const fa_row at = fa_work_row(w, row);
        fa_state state;
        state.max = max[0];
        state.sum = sum[0];
        const fa_closed closed = fa_work_close(w, at, state, w.whole);
        const long part = w.part_row + row - w.row_begin;
        if (at.exists && x == 0 && !w.whole)
            store_state(partial, partial_state_offset, part, state);
        if (at.exists && x == 0 && w.whole && fa_work_has(w, FA_TABLE_LSE))
            store_0(lse, lse_offset + FA_LSE_AT(w, at), closed.lse);
        FA_UNROLL
        for (int g = 0; g < DIMS; g += 4) {
            const int d = 4 * x + g * FA_LANES, count = at.exists ? w.dim_v - d : 0;
            const float4 four = (float4)(acc[0][g], acc[0][g + 1], acc[0][g + 2], acc[0][g + 3]);
            const float4 result = fa_normalised4(four, closed.factor);
            if (w.whole)
                FA_CAT(store4_, FA_TYPE_O)(o, o_offset + FA_ROW_AT(w, o, at) + d, count, result);
            else
                store4_0(partial, partial_offset + part * w.dim_v + d, count, result);
        }
        FA_TILE_TURN(acc, DIMS)
        FA_UNROLL
        for (int i = 0; i + 1 < FA_ROWS; i++) {
            max[i] = max[i + 1];
            sum[i] = sum[i + 1];
        }
    }
}
