#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in two levels of tiles: the words of core/portable/tile.h, the products, the softmax, and the kernel. */
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

#define FA_BLOCK_Q BLOCK_Q
#define FA_BLOCK_KV BLOCK_KV
#define FA_DIM_V DIM_V
#define FA_LANES LANES
#define FA_ROWS ROWS
#define FA_DEPTH DEPTH
#define FA_CONSTANT(name, value) const int name = value
#include "core/portable/stage.h"

const int KEYS = BLOCK_KV / (4 * LANES);
const int DIMS = DIM_V / (4 * LANES);

shared vec4 room[BUFFERS * STAGE / 4];
shared int unsafe; /* some value that may be hidden is not finite */

work w;
int id, x, y;
uvec4 fetched[FETCH];
address rows_q[FETCH_Q];
cursor all_keys, all_values;
fa_key_place keys_at[FETCH_K], values_at[FETCH_V]; /* of the block, and of the step, that is fetched next */
vec4 s[ROWS][KEYS], aside[ROWS][KEYS];
vec4 acc[ROWS][DIMS];
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

#define FA_TILE
#define FA_OWN
#define FA_COLUMN vec4
#define FA_COLUMN_WIDTH 4
#define FA_ELEMENT(column, e) column[e]
#define FA_FINITE_PART(column) finite_part(column)
#define FA_TRANSFORM TRANSFORM
#define FA_BUFFERS BUFFERS
#define FA_BARRIER barrier()
#define FA_LOCAL(stage, at) room[(stage + at) >> 2][(stage + at) & 3]
#define FA_LOCAL4(stage, at, n) room[(stage + at) / 4 + (n)]
#define FA_LOCAL_COLUMN(stage, at, g) room[(stage + at) / 4 + (g) * LANES]
#define FA_PUT_COLUMN(stage, at, width, v) PUT_COLUMN(stage + at, width, v)
#define FA_NUMBERS_Q(raw) widen4(TYPE_Q, raw)
#define FA_NUMBERS_K(raw) k_numbers4(raw)
#define FA_NUMBERS_V(raw) v_numbers4(raw)
#define FA_COUNT_QK(d) count_qk(d)
#define FA_COUNT_V(d) count_v(d)
#define FA_ROW_OF_Q(row) row_of_q(w, row)
#define FA_FETCH_Q(place, d, count) fetch_q4(TYPE_Q, place + address(d * bytes_of(TYPE_Q)), count)
#define FA_FIND_K(key) fa_work_find(w, key)
#define FA_FIND_V(key) fa_work_find(w, key)
#define FA_FETCH_K(found, key, d, count) fetch_k_at4(w, all_keys, placed(found, key), d, count)
#define FA_FETCH_V(found, key, d, count) fetch_v_at4(w, all_values, placed(found, key), d, count)
#include "core/portable/tile.h"

bool values_are_finite()
{
    bool finite = true;
    [[unroll]] for (int n = 0; n < FETCH_V; n++)
        finite = finite && is_finite4(v_numbers4(fetched[n]));
    return finite;
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

/* The weights of one step: of each work-item in its turn, in the order of their slots. */
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
            acc[i][g] *= old;
    }
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
                store4_o(to + address(d * bytes_of(TYPE_O)), count, fa_normalised4(acc[0][g], closed.factor));
            else
                store4_partial(to + address(d * 4), count, fa_normalised4(acc[0][g], closed.factor));
        }
        FA_TILE_TURN(acc, DIMS)
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
            acc[i][g] = vec4(0.0);
    }
    if (id == 0)
        unsafe = 0;
    begin_lost(id);

    int stage = 0;
    fa_tile_find_rows(w.row_begin);
    int key = fa_work_next(w, TRANSFORM != 0, w.key_begin, BLOCK_KV);
    if (key < w.key_end) {
        if (PAGES != 0)
            fa_tile_find_keys(key, w.key_end);
        fa_tile_fetch_qk(key, w.key_end, 0);
    }
    while (key < w.key_end) {
        const int key_end = min(key + BLOCK_KV, w.key_end);
        [[unroll]] for (int i = 0; i < ROWS; i++) {
            [[unroll]] for (int g = 0; g < KEYS; g++)
                s[i][g] = aside[i][g] = vec4(0.0);
        }
        if (PAGES != 0)
            fa_tile_find_values(key, key_end, 0);
        [[dont_unroll]] for (int d = 0; d < w.dim_qk; d += DEPTH) {
            fa_tile_put_qk(stage);
            barrier();
            if (d + DEPTH < w.dim_qk)
                fa_tile_fetch_qk(key, key_end, d + DEPTH);
            else
                fa_tile_fetch_v(key, key_end, 0);
            MULTIPLY(stage + y * ROWS, LINE_Q, stage + STAGE_ROWS + 4 * x, LINE_K, KEYS, s)
            if (IN_PARTS != 0 && (d + DEPTH) % PART == 0 && d + DEPTH < w.dim_qk)
                SET_ASIDE(s, aside)
            stage = fa_tile_next_stage(stage);
        }
        if (IN_PARTS != 0)
            SET_ASIDE(aside, s)

        const bool masked = fa_work_class(w, key, key_end) == FA_CLASS_PARTIAL;
        const bool hides = masked || key_end < key + BLOCK_KV || (w.flags & FA_TABLE_KEEP) != 0;
        if (TRANSFORM != 0 || masked || key_end < key + BLOCK_KV)
            fa_tile_mask(key, key_end, masked);
        softmax_step(stage, unit);
        if (!lanes_share(LANES))
            stage = fa_tile_next_stage(stage);

        const int next = fa_work_next(w, TRANSFORM != 0, key + BLOCK_KV, BLOCK_KV);
        if (PAGES != 0 && next < w.key_end)
            fa_tile_find_keys(next, w.key_end);
        [[dont_unroll]] for (int step = 0; step < STEPS_V; step++) {
            put_weights(stage, step);
            fa_tile_put_v(stage);
            if (hides && !values_are_finite())
                unsafe = 1;
            barrier();
            if (step + 1 < STEPS_V)
                fa_tile_fetch_v(key, key_end, step + 1);
            else if (next < w.key_end)
                fa_tile_fetch_qk(next, min(next + BLOCK_KV, w.key_end), 0);
            if (hides && unsafe != 0)
                fa_tile_multiply_guarded(stage, key, step);
            else
                MULTIPLY(stage + y * ROWS, LINE_P, stage + STAGE_ROWS + 4 * x, LINE_V, DIMS, acc)
            stage = fa_tile_next_stage(stage);
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
