#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in two levels of tiles. A work-group takes one item: BLOCK_Q packed rows against the item's keys in blocks
 * of BLOCK_KV. Work-item (x, y) holds a tile of ROWS rows by KEYS vectors of keys of the scores, and of ROWS rows by
 * DIMS vectors of dims of the output, in registers for good. Both products run through shared memory in steps of DEPTH:
 * dims of q and k for the scores, then keys of the weights and of v for the output. What a step needs is fetched into
 * registers while the step before it computes.
 *
 * The keys of a work-item are 4 x + e + 4 LANES g, e < 4: vectors of four, interleaved. Every step of the second
 * product takes one key of each of DEPTH work-items, so that all write weights at once.
 */
#extension GL_GOOGLE_include_directive : require
#include "softmax.glsl"
#include "keys.glsl"
#include "formats.glsl"
#include "scaled.glsl"

#define ROWS 8
#include "product.glsl"

layout(constant_id = FA_VK_BLOCK_Q) const int BLOCK_Q = 64;
layout(constant_id = FA_VK_BLOCK_KV) const int BLOCK_KV = 32;
layout(constant_id = FA_VK_DIM_V) const int DIM_V = 32;
layout(constant_id = FA_VK_BUFFERS) const int BUFFERS = 1;
layout(constant_id = FA_VK_WHOLE_QK) const int WHOLE_QK = 0;
layout(constant_id = FA_VK_IN_PARTS) const int IN_PARTS = 0;
const int PART = 64; /* dims that a score is summed over at a time, where IN_PARTS */
layout(constant_id = FA_VK_WHOLE_V) const int WHOLE_V = 0;

/* GROUP as it follows from the others, for the compiler to see. */
const int ITEMS = LANES * (BLOCK_Q / ROWS);
const int KEYS = BLOCK_KV / (4 * LANES);
const int DIMS = DIM_V / (4 * LANES);
const int WIDE = BLOCK_KV > DIM_V ? BLOCK_KV : DIM_V;
const int STEPS_V = BLOCK_KV / DEPTH;

/* Vectors of four that each work-item fetches for a step. */
const int FETCH_Q = CEIL_DIV(BLOCK_Q * (DEPTH / 4), ITEMS);
const int FETCH_K = CEIL_DIV(BLOCK_KV * (DEPTH / 4), ITEMS);
const int FETCH_V = CEIL_DIV(DEPTH * (DIM_V / 4), ITEMS);
const int FETCH = FETCH_Q + FETCH_K > FETCH_V ? FETCH_Q + FETCH_K : FETCH_V;

/* Lines of the stage, in floats: padded so that neither writing columns nor reading lines meets one bank twice. */
#define LINE_Q(d) ((d) * BLOCK_Q + (d) / 4 * 8)
#define LINE_K(d) ((d) * BLOCK_KV + (d) / 4 * 8)
#define LINE_P(t) ((t) * (BLOCK_Q + 4))
#define LINE_V(t) ((t) * DIM_V)
const int STAGE_ROWS = LINE_P(DEPTH);
const int STAGE_STEP = STAGE_ROWS + DEPTH * (WIDE + 2);
const int STAGE = STAGE_STEP > LINE_P(LANES) ? STAGE_STEP : LINE_P(LANES);

shared vec4 room[BUFFERS * STAGE / 4];
shared int unsafe; /* some value that may be hidden is not finite */

work w;
int id, x, y;
uvec4 fetched[FETCH];
address rows_q[FETCH_Q];
cursor all_keys, all_values;
fa_key_place keys_at[FETCH_K], values_at[FETCH_V]; /* of the block, and of the step, that is fetched next */
vec4 s[ROWS][KEYS], aside[ROWS][KEYS];
vec4 o[ROWS][DIMS];
float maximum[ROWS], sum[ROWS];

/* How many elements there are from dim d on: told at compile time where all there is room for exist. */
int count_qk(int d)
{
    return WHOLE_QK != 0 ? 4 : w.dim_qk - d;
}

int count_v(int d)
{
    return WHOLE_V != 0 ? 4 : w.dim_v - d;
}

/* Where the rows of q are that this work-item fetches from; those past the end are the last one again. */
void find_rows()
{
    [[unroll]] for (int n = 0; n < FETCH_Q; n++) {
        const fa_row q = fa_work_row(w, w.row_begin + (id + n * ITEMS) / (DEPTH / 4));
        rows_q[n] = row_of_q(w, q);
    }
}

void find_keys(int key, int key_end)
{
    [[unroll]] for (int n = 0; n < FETCH_K; n++)
        keys_at[n] = fa_work_find(w, min(key + (id + n * ITEMS) / (DEPTH / 4), key_end - 1));
}

/* Keys past the end are the last one again: their scores are hidden, their weights 0. */
void fetch_qk(int key, int key_end, int dim)
{
    [[unroll]] for (int n = 0; n < FETCH_Q; n++) {
        const int d = dim + (id + n * ITEMS) % (DEPTH / 4) * 4;
        fetched[n] = fetch_q4(TYPE_Q, rows_q[n] + address(d * bytes_of(TYPE_Q)), count_qk(d));
    }
    [[unroll]] for (int n = 0; n < FETCH_K; n++) {
        const int at = id + n * ITEMS, j = min(key + at / (DEPTH / 4), key_end - 1), d = dim + at % (DEPTH / 4) * 4;
        fetched[FETCH_Q + n] = fetch_k_at4(w, all_keys, placed(keys_at[n], j), d, count_qk(d));
    }
}

/* The key, from the block's first, whose weight is number `slot` of a step. */
int key_of(int step, int slot)
{
    const int at = step * DEPTH + slot, group = at / LANES, lane = at % LANES;
    return group / 4 * (4 * LANES) + lane * 4 + group % 4;
}

void find_values(int key, int key_end, int step)
{
    [[unroll]] for (int n = 0; n < FETCH_V; n++)
        values_at[n] = fa_work_find(w, min(key + key_of(step, (id + n * ITEMS) / (DIM_V / 4)), key_end - 1));
}

void fetch_v(int key, int key_end, int step)
{
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
        const int at = id + n * ITEMS, slot = at / (DIM_V / 4), d = at % (DIM_V / 4) * 4;
        const int j = min(key + key_of(step, slot), key_end - 1);
        fetched[n] = fetch_v_at4(w, all_values, placed(values_at[n], j), d, count_v(d));
    }
    if (PAGES != 0 && step + 1 < STEPS_V)
        find_values(key, key_end, step + 1);
}

void put_qk(int stage)
{
    [[unroll]] for (int n = 0; n < FETCH_Q; n++) {
        const int at = id + n * ITEMS, row = at / (DEPTH / 4), d = at % (DEPTH / 4) * 4;
        if (BLOCK_Q * (DEPTH / 4) % ITEMS == 0 || row < BLOCK_Q)
            PUT_COLUMN(stage + LINE_Q(d) + row, BLOCK_Q, widen4(TYPE_Q, fetched[n]))
    }
    [[unroll]] for (int n = 0; n < FETCH_K; n++) {
        const int at = id + n * ITEMS, key = at / (DEPTH / 4), d = at % (DEPTH / 4) * 4;
        if (BLOCK_KV * (DEPTH / 4) % ITEMS == 0 || key < BLOCK_KV)
            PUT_COLUMN(stage + STAGE_ROWS + LINE_K(d) + key, BLOCK_KV, k_numbers4(fetched[FETCH_Q + n]))
    }
}

bool values_are_finite()
{
    bool finite = true;
    [[unroll]] for (int n = 0; n < FETCH_V; n++)
        finite = finite && is_finite4(v_numbers4(fetched[n]));
    return finite;
}

void put_v(int stage)
{
    [[unroll]] for (int n = 0; n < FETCH_V; n++) {
        const int at = id + n * ITEMS;
        if (DEPTH * (DIM_V / 4) % ITEMS == 0 || at < DEPTH * (DIM_V / 4))
            room[(stage + STAGE_ROWS) / 4 + at] = v_numbers4(fetched[n]);
    }
}

/* Sums begin anew; what they were is added to others. */
#define SET_ASIDE(sums, to)                                                                            \
    {                                                                                                  \
        [[unroll]] for (int i = 0; i < ROWS; i++) {                                                    \
            [[unroll]] for (int g = 0; g < KEYS; g++) {                                                \
                to[i][g] += sums[i][g];                                                                \
                sums[i][g] = vec4(0.0);                                                                \
            }                                                                                          \
        }                                                                                              \
    }

/* Row 0 goes last and the others move up. Registers have no index: what is long and seldom treats row 0, in turns. */
void turn_output()
{
    [[unroll]] for (int g = 0; g < DIMS; g++) {
        const vec4 first = o[0][g];
        [[unroll]] for (int i = 0; i + 1 < ROWS; i++)
            o[i][g] = o[i + 1][g];
        o[ROWS - 1][g] = first;
    }
}

/*
 * The second product where a hidden value may not be finite: it is 0 for the rows that do not see it, whose sums are then
 * the same to the last bit as if it were finite.
 */
void multiply_guarded(int stage, int key, int step)
{
    [[dont_unroll]] for (int turn = 0; turn < ROWS; turn++) {
        const fa_row q = fa_work_row(w, w.row_begin + y * ROWS + turn);
        [[dont_unroll]] for (int t = 0; t < DEPTH; t++) {
            const bool visible = fa_work_shows(w, q, key + key_of(step, t));
            const float weight = room[(stage + LINE_P(t) + y * ROWS) / 4 + turn / 4][turn % 4];
            [[unroll]] for (int g = 0; g < DIMS; g++) {
                const vec4 value = room[(stage + STAGE_ROWS + LINE_V(t)) / 4 + x + g * LANES];
                o[0][g] += weight * (visible ? value : finite_part(value));
            }
        }
        turn_output();
    }
}

/* The weights of one step: of each work-item in its turn, the keys that key_of() names. */
void put_weights(int stage, int step)
{
    [[unroll]] for (int g = 0; g < KEYS; g++) {
        [[unroll]] for (int e = 0; e < 4; e++) {
            const int slot = (4 * g + e) * LANES + x - step * DEPTH;
            if (slot >= 0 && slot < DEPTH) {
                const int at = (stage + LINE_P(slot) + y * ROWS) / 4;
                [[unroll]] for (int i = 0; i < ROWS; i += 4)
                    room[at + i / 4] = vec4(s[i][g][e], s[i + 1][g][e], s[i + 2][g][e], s[i + 3][g][e]);
            }
        }
    }
}

/* Scores that the mask cuts, or that a description transforms, row by row in turns. */
void mask_scores(int key, int key_end, bool masked)
{
    [[dont_unroll]] for (int turn = 0; turn < ROWS; turn++) {
        const fa_row q = fa_work_row(w, w.row_begin + y * ROWS + turn);
        [[unroll]] for (int g = 0; g < KEYS; g++) {
            vec4 row = s[0][g];
            [[unroll]] for (int e = 0; e < 4; e++) {
                const int j = key + g * 4 * LANES + 4 * x + e;
                if (j >= key_end || (masked && !fa_row_sees(q, w.walk.mask, j)))
                    row[e] = FA_NEG_INF;
                else if (TRANSFORM != 0)
                    row[e] = fa_work_score(w, q, j, row[e]);
            }
            [[unroll]] for (int i = 0; i + 1 < ROWS; i++)
                s[i][g] = s[i + 1][g];
            s[ROWS - 1][g] = row;
        }
    }
}

/* Every work-item of a line leaves a value for each of its rows, and gets the greatest, or the sum. */
void exchange_rows(int stage, bool add, inout float value[ROWS])
{
    if (lanes_share(LANES)) {
        [[unroll]] for (int i = 0; i < ROWS; i++)
            value[i] = add ? fa_lanes_sum(value[i], LANES) : fa_lanes_max(value[i], LANES);
        return;
    }
    [[unroll]] for (int i = 0; i < ROWS; i += 4)
        room[(stage + LINE_P(x) + y * ROWS + i) / 4] = vec4(value[i], value[i + 1], value[i + 2], value[i + 3]);
    barrier();
    [[unroll]] for (int i = 0; i < ROWS; i += 4) {
        vec4 all = room[(stage + y * ROWS + i) / 4];
        for (int n = 1; n < LANES; n++) {
            const vec4 other = room[(stage + LINE_P(n) + y * ROWS + i) / 4];
            all = add ? all + other : max(all, other);
        }
        [[unroll]] for (int e = 0; e < 4; e++)
            value[i + e] = all[e];
    }
}

/* Scores become weights, under the new maximum of each row. */
void softmax_step(int stage, float unit)
{
    float next[ROWS];
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        vec4 most = s[i][0];
        [[unroll]] for (int g = 1; g < KEYS; g++)
            most = max(most, s[i][g]);
        next[i] = max(max(max(maximum[i], most.x), most.y), max(most.z, most.w));
    }
    exchange_rows(stage, false, next);
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        const float old = fa_state_weight(maximum[i], next[i], unit), base = fa_safe_max(next[i]);
        vec4 total = vec4(0.0);
        maximum[i] = next[i];
        [[unroll]] for (int g = 0; g < KEYS; g++) {
            s[i][g] = exp2((s[i][g] - base) * unit);
            total += s[i][g];
        }
        sum[i] = sum[i] * old + (total.x + total.y + (total.z + total.w));
        [[unroll]] for (int g = 0; g < DIMS; g++)
            o[i][g] *= old;
    }
}

/* The stage to write next: the other one, which all have done with since the last barrier, or the only one. */
int turn_stage(int stage)
{
    if (BUFFERS == 1) {
        barrier();
        return stage;
    }
    return STAGE - stage;
}

void write_rows()
{
    [[dont_unroll]] for (int turn = 0; turn < ROWS; turn++) {
        const int row = w.row_begin + y * ROWS + turn;
        const fa_row q = fa_work_row(w, row);
        fa_state state;
        state.max = maximum[0];
        state.sum = sum[0];
        const fa_closed closed = fa_work_close(w, q, state, w.whole);
        const address part = w.part_row + address(row - w.row_begin);
        if (q.exists && x == 0) {
            if (!w.whole)
                store_part_state(part, state);
            else if ((w.flags & FA_TABLE_LSE) != 0)
                store_float_lse(lse_of(w, q), closed.lse);
        }
        const address to = w.whole ? row_of_o(w, q) : at(FA_VK_SLOT_PARTIAL) + part * address(w.dim_v * 4);
        [[unroll]] for (int g = 0; g < DIMS; g++) {
            const int d = 4 * (x + g * LANES), count = q.exists ? w.dim_v - d : 0;
            if (w.whole)
                store4_o(to + address(d * bytes_of(TYPE_O)), count, fa_normalised4(o[0][g], closed.factor));
            else
                store4_partial(to + address(d * 4), count, fa_normalised4(o[0][g], closed.factor));
        }
        turn_output();
        [[unroll]] for (int i = 0; i + 1 < ROWS; i++) {
            maximum[i] = maximum[i + 1];
            sum[i] = sum[i + 1];
        }
    }
}

void main()
{
    if (work_group() >= PARAMS.items)
        return;
    w = fa_work_at(work_group());
    id = work_item();
    x = id % LANES;
    y = id / LANES;
    all_keys = keys_of(w);
    all_values = values_of(w);
    const float unit = PARAMS.score.unit;
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        maximum[i] = FA_NEG_INF;
        sum[i] = 0.0;
        [[unroll]] for (int g = 0; g < DIMS; g++)
            o[i][g] = vec4(0.0);
    }
    if (id == 0)
        unsafe = 0;
    begin_lost(id);

    int stage = 0;
    find_rows();
    int key = fa_work_next(w, TRANSFORM != 0, w.key_begin, BLOCK_KV);
    if (key < w.key_end) {
        if (PAGES != 0)
            find_keys(key, w.key_end);
        fetch_qk(key, w.key_end, 0);
    }
    while (key < w.key_end) {
        const int key_end = min(key + BLOCK_KV, w.key_end);
        [[unroll]] for (int i = 0; i < ROWS; i++) {
            [[unroll]] for (int g = 0; g < KEYS; g++)
                s[i][g] = aside[i][g] = vec4(0.0);
        }
        if (PAGES != 0)
            find_values(key, key_end, 0);
        [[dont_unroll]] for (int d = 0; d < w.dim_qk; d += DEPTH) {
            put_qk(stage);
            barrier();
            if (d + DEPTH < w.dim_qk)
                fetch_qk(key, key_end, d + DEPTH);
            else
                fetch_v(key, key_end, 0);
            MULTIPLY(stage + y * ROWS, LINE_Q, stage + STAGE_ROWS + 4 * x, LINE_K, KEYS, s)
            if (IN_PARTS != 0 && (d + DEPTH) % PART == 0 && d + DEPTH < w.dim_qk)
                SET_ASIDE(s, aside)
            stage = turn_stage(stage);
        }
        if (IN_PARTS != 0)
            SET_ASIDE(aside, s)

        const bool masked = fa_walk_class(w.walk, key, key_end) == FA_CLASS_PARTIAL;
        const bool hides = masked || key_end < key + BLOCK_KV || (w.flags & FA_TABLE_KEEP) != 0;
        if (TRANSFORM != 0 || masked || key_end < key + BLOCK_KV)
            mask_scores(key, key_end, masked);
        softmax_step(stage, unit);
        if (!lanes_share(LANES))
            stage = turn_stage(stage);

        const int next = fa_work_next(w, TRANSFORM != 0, key + BLOCK_KV, BLOCK_KV);
        if (PAGES != 0 && next < w.key_end)
            find_keys(next, w.key_end);
        [[dont_unroll]] for (int step = 0; step < STEPS_V; step++) {
            put_weights(stage, step);
            put_v(stage);
            if (hides && !values_are_finite())
                unsafe = 1;
            barrier();
            if (step + 1 < STEPS_V)
                fetch_v(key, key_end, step + 1);
            else if (next < w.key_end)
                fetch_qk(next, min(next + BLOCK_KV, w.key_end), 0);
            if (hides && unsafe != 0)
                multiply_guarded(stage, key, step);
            else
                MULTIPLY(stage + y * ROWS, LINE_P, stage + STAGE_ROWS + 4 * x, LINE_V, DIMS, o)
            stage = turn_stage(stage);
        }
        key = next;
    }

    end_lost();
    barrier();
    exchange_rows(stage, true, sum);
    [[unroll]] for (int i = 0; i < ROWS; i++)
        sum[i] = sum_or_lost(sum[i]);
    write_rows();
}
