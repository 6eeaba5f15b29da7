#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention with cooperative matrices of 16 by 16, f16 in and f32 out. A work-group takes one item: BLOCK_Q packed rows
 * against the item's keys in blocks of BLOCK_KV. Each subgroup holds TILES times 16 rows of q, and of the output, in
 * registers for good. Keys and values are staged in shared memory in turns: while the scores are computed from the
 * block's keys its values are on their way, and while the output is, the next block's keys are.
 *
 * Scores become weights in registers where it is known how a subgroup holds fragments (constants.h: LAYOUT), and
 * through shared memory where it is not, or where a description transforms scores.
 *
 * A fragment's elements have indices that are constants in the source (EACH): a driver may lower them before it unrolls
 * loops, and then keeps what a loop indexes in memory. So FA_ELEMENTS of a work-item are compiled in: 256 over the
 * subgroup's size.
 *
 * K and V in blocks of 32 are staged as bare numbers (staged.glsl), and what scales them beside them. A block's part of the
 * scores is a product of its own, scaled in f32; of values, the weights are, for each block anew.
 *
 * A value that is not finite must not meet a weight of 0. In blocks with hidden keys such values become 0 as they are
 * staged. An item that had any adds them to the rows that see them, once its rows are written (nonfinite.glsl).
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define FA_SUBGROUPS
#define FA_HALVES
#include "softmax.glsl"
#include "keys.glsl"
#include "formats.glsl"
#include "staged.glsl"

#define FA_LANES min(SUBGROUP, 32)
#define FA_LANE int(gl_SubgroupInvocationID)
#define FA_BALLOT(bit) subgroupBallot(bit).x
#define FA_LOWEST(bits) findLSB(bits)
#include "core/portable/met.h"

layout(constant_id = FA_VK_BLOCK_Q) const int BLOCK_Q = 64;
layout(constant_id = FA_VK_BLOCK_KV) const int BLOCK_KV = 32;
layout(constant_id = FA_VK_DIM_QK) const int DIM_QK = 64;
layout(constant_id = FA_VK_DIM_V) const int DIM_V = 64;
layout(constant_id = FA_VK_WHOLE_QK) const int WHOLE_QK = 0;
layout(constant_id = FA_VK_WHOLE_V) const int WHOLE_V = 0;
layout(constant_id = FA_VK_TILES) const int TILES = 1;
layout(constant_id = FA_VK_LAYOUT_ROWS) const int LAYOUT_ROWS = 0;
layout(constant_id = FA_VK_LAYOUT_SLOTS) const int LAYOUT_SLOTS = 0;
layout(constant_id = FA_VK_LAYOUT_LANES) const int LAYOUT_LANES = 0;
layout(constant_id = FA_VK_LAYOUT_ELEMENTS) const int LAYOUT_ELEMENTS = 0;
layout(constant_id = FA_VK_LAYOUT_COLUMNS) const int LAYOUT_COLUMNS = 0;

#define accumulator coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>
#define operand_a coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA>
#define operand_b coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseB>

const int ITEMS = BLOCK_Q / 16 / TILES * SUBGROUP;
#define ELEMENTS FA_ELEMENTS
#define EACH4(x, i) x(i) x(i + 1) x(i + 2) x(i + 3)
#if FA_ELEMENTS == 4
#define EACH(x) EACH4(x, 0)
#elif FA_ELEMENTS == 8
#define EACH(x) EACH4(x, 0) EACH4(x, 4)
#else
#define EACH(x) EACH4(x, 0) EACH4(x, 4) EACH4(x, 8) EACH4(x, 12)
#endif

const int SLOTS = LAYOUT_ROWS > 0 ? LAYOUT_ROWS : 1;
const bool IN_REGISTERS = LAYOUT_ROWS > 0;
const int STEPS_QK = DIM_QK / 16;
const int STEPS_V = DIM_V / 16;
const int STEPS_KV = BLOCK_KV / 16;

/* Rows in shared memory, in vectors of eight halves: padded so that eight rows beside each other meet no bank twice. */
const int LINE_QK = DIM_QK / 8 + 1;
const int LINE_V = DIM_V / 8 + 1;
const int ROOM_K = BLOCK_KV * LINE_QK;
const int ROOM_KV = ROOM_K + BLOCK_KV * LINE_V;
const int ROOM_Q = BLOCK_Q * LINE_QK;

/* Work-items beside each other that fetch a row, a power of two; the last ones may have nothing to fetch. */
#define POWER(n) ((n) <= 2 ? 2 : (n) <= 4 ? 4 : (n) <= 8 ? 8 : (n) <= 16 ? 16 : 32)
const int WIDE_QK = POWER(DIM_QK / 8);
const int WIDE_V = POWER(DIM_V / 8);
const int LINES_K = ITEMS / WIDE_QK;
const int LINES_V = ITEMS / WIDE_V;
const int FETCH_K = CEIL_DIV(BLOCK_KV, LINES_K);
const int FETCH_V = CEIL_DIV(BLOCK_KV, LINES_V);
const int FETCH = FETCH_K > FETCH_V ? FETCH_K : FETCH_V;
const bool SAME_KEYS = WIDE_V == WIDE_QK; /* a work-item fetches the values of the keys that it fetches */

/* Formats of caches: what scales a block of 32 dims, for each key of them; a key's offset where there is one. */
const bool CODED_K = FA_TYPE_IS_CODED(TYPE_K), CODED_V = FA_TYPE_IS_CODED(TYPE_V);
const bool OFFSETS_K = FA_TYPE_HAS_OFFSET(TYPE_K), OFFSETS_V = FA_TYPE_HAS_OFFSET(TYPE_V);
const int GROUPS_K = BLOCKS_K ? CEIL_DIV(DIM_QK, 32) : 1, GROUPS_V = BLOCKS_V ? CEIL_DIV(DIM_V, 32) : 1;
const int SUMS_K = OFFSETS_K ? GROUPS_K : 1, SUMS_V = OFFSETS_V ? GROUPS_V : 1;

/* Scores and weights on their way through shared memory. */
const int LINE_S = BLOCK_KV + 4;
const int LINE_P = BLOCK_KV / 8 + 1;

/* When the keys are done: marks of the values to be added, of 64 dims in a vector; then each row's maximum and factor. */
const int LINE_MARKS = CEIL_DIV(DIM_V, 64);
const int ROOM_MARKS = BLOCK_Q * LINE_MARKS;
const int ROOM_WILD = ROOM_MARKS + BLOCK_Q / 2;
#define MARK_POSITIVE 1u
#define MARK_NEGATIVE 2u /* a sum of both infinities is NaN */

const int ROOM_LOOP = ROOM_KV > ROOM_Q ? ROOM_KV : ROOM_Q;
shared uvec4 room[ROOM_LOOP > ROOM_WILD ? ROOM_LOOP : ROOM_WILD];
shared float scores[IN_REGISTERS ? 256 : BLOCK_Q * LINE_S];
shared uvec4 weights[IN_REGISTERS ? 1 : BLOCK_Q * LINE_P];
shared float factors[IN_REGISTERS ? 1 : BLOCK_Q];
shared float scales_k[BLOCKS_K ? GROUPS_K * BLOCK_KV : 1], offsets_k[OFFSETS_K ? GROUPS_K * BLOCK_KV : 1];
shared float scales_v[BLOCKS_V ? GROUPS_V * BLOCK_KV : 1], offsets_v[OFFSETS_V ? GROUPS_V * BLOCK_KV : 1];
shared int nonfinite; /* some value that may be hidden is not finite */

work w;
int id, lane, first_row; /* the subgroup's first row, from the item's */
uvec4 fetched[FETCH], beside[FETCH]; /* and what of a block has no place in it */
cursor all_keys, all_values;
fa_key_place keys_at[FETCH], values_at[FETCH]; /* of what is fetched next; SAME_KEYS: the first for both */
operand_a q[TILES][STEPS_QK];
accumulator s[TILES][STEPS_KV];
accumulator o[TILES][STEPS_V];
int place[ELEMENTS]; /* of each element of an accumulator: 16 row + column */
float maximum[TILES][SLOTS], sum[TILES][SLOTS];
float sums_q[TILES][SUMS_K][SLOTS]; /* of each 32 dims of q */
float sums_v[TILES][SUMS_V][SLOTS]; /* of weights and offsets of v, this work-item's share */

int slot_of(int i)
{
    return LAYOUT_SLOTS >> 3 * i & 7;
}

int element_of(int i)
{
    return LAYOUT_ELEMENTS >> 3 * i & 7;
}

int column_of(int i)
{
    return LAYOUT_COLUMNS >> 3 * i & 7;
}

#include "staging.glsl"

/* The row of a slot, from the subgroup's tile's first. */
int row_of_slot(int r)
{
    int row = 0;
#define LOOK(i)                                                                                        \
    if (slot_of(i) == r)                                                                               \
        row = place[i] / 16;
    EACH(LOOK)
    return row;
}

/* An offset of a block of k is in a row's scores as often as the sum of the row's dims there. */
void sum_rows(int t)
{
    [[unroll]] for (int r = 0; r < SLOTS; r++) {
        const int from = (first_row + 16 * t + row_of_slot(r)) * LINE_QK;
        [[unroll]] for (int g = 0; g < SUMS_K; g++) {
            float total = 0.0;
            [[unroll]] for (int n = 0; n < 4; n++) {
                const raw8 x = raw8(room[from + 4 * g + n], uvec4(0u));
                total += dot(low4(1, x), vec4(1.0)) + dot(high4(1, x), vec4(1.0));
            }
            sums_q[t][g][r] = total;
        }
    }
}

/* Rows past the end are the last one again. */
void load_rows()
{
    for (int n = id; n < BLOCK_Q * (DIM_QK / 8); n += ITEMS) {
        const int r = n / (DIM_QK / 8), d = n % (DIM_QK / 8) * 8;
        const fa_row at_row = fa_work_row(w, w.row_begin + r);
        const address row = row_of_q(w, at_row);
        const uvec4 x = fetch_q8(1, row + address(2 * d), WHOLE_QK != 0 ? 8 : w.dim_qk - d).low;
        room[r * LINE_QK + d / 8] = CODED_K ? staged_halves(x) : x;
    }
    barrier();
    [[unroll]] for (int t = 0; t < TILES; t++) {
        [[unroll]] for (int d = 0; d < STEPS_QK; d++)
            coopMatLoad(q[t][d], room, (first_row + 16 * t) * LINE_QK + 2 * d, LINE_QK,
                        gl_CooperativeMatrixLayoutRowMajor);
        if (OFFSETS_K)
            sum_rows(t);
    }
    barrier();
}

/* Each subgroup learns where its elements are from a matrix of their places. */
void find_places()
{
    for (int n = id; n < 256; n += ITEMS)
        scores[n] = float(n);
    barrier();
    accumulator places;
    coopMatLoad(places, scores, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
#define FIND(i) place[i] = int(places[i]);
    EACH(FIND)
    barrier();
}

/* What scales a key lies beside that of the next one, for each group of 32 dims apart. */
int scaling_at(int g, int n, int i)
{
    return g * BLOCK_KV + 16 * n + place[i] % 16;
}

/* The same for each key of elements, which those of a column share: element i of x, of what lies in shared memory. */
#define TAKE_OF_KEY(x, all, i)                                                                         \
    if (column_of(i) == i)                                                                             \
        x[i] = all[scaling_at(g, n, i)];                                                               \
    else                                                                                               \
        x[i] = x[column_of(i)];

/* Scores of keys in blocks: a product for each 32 dims, whose keys' scales lie along its columns. */
void multiply_blocks()
{
    [[unroll]] for (int g = 0; g < GROUPS_K; g++) {
        [[unroll]] for (int n = 0; n < STEPS_KV; n++) {
            accumulator part[TILES];
            accumulator scales; /* glslang 13.1 mistakes the type of what follows another in its declaration */
            accumulator offsets;
            [[unroll]] for (int t = 0; t < TILES; t++)
                part[t] = accumulator(0.0);
            [[unroll]] for (int d = 2 * g; d < 2 * g + 2; d++) {
                operand_b keys;
                coopMatLoad(keys, room, 16 * n * LINE_QK + 2 * d, LINE_QK, gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (int t = 0; t < TILES; t++)
                    part[t] = coopMatMulAdd(q[t][d], keys, part[t]);
            }
#define SCALE_OF_KEY(i) TAKE_OF_KEY(scales, scales_k, i)
            EACH(SCALE_OF_KEY)
            if (OFFSETS_K) {
#define OFFSET_OF_KEY(i) TAKE_OF_KEY(offsets, offsets_k, i)
                EACH(OFFSET_OF_KEY)
            }
            [[unroll]] for (int t = 0; t < TILES; t++) {
#define SCALE(i)                                                                                       \
    x[i] = fma(part[t][i], scales[i], x[i]);                                                           \
    if (OFFSETS_K)                                                                                     \
        x[i] = fma(sums_q[t][g][slot_of(i)], offsets[i], x[i]);
                accumulator x = s[t][n];
                EACH(SCALE)
                s[t][n] = x;
            }
        }
    }
}

void multiply_qk()
{
    [[unroll]] for (int t = 0; t < TILES; t++) {
        [[unroll]] for (int n = 0; n < STEPS_KV; n++)
            s[t][n] = accumulator(0.0);
    }
    if (BLOCKS_K)
        multiply_blocks();
    [[unroll]] for (int d = 0; d < (BLOCKS_K ? 0 : STEPS_QK); d++) {
        [[unroll]] for (int n = 0; n < STEPS_KV; n++) {
            operand_b keys;
            coopMatLoad(keys, room, 16 * n * LINE_QK + 2 * d, LINE_QK, gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (int t = 0; t < TILES; t++)
                s[t][n] = coopMatMulAdd(q[t][d], keys, s[t][n]);
        }
    }
}

#include "weights.glsl"

/* The weights of keys 16 n to 16 n + 15 for values in block g of 32 dims, scaled. */
operand_a scaled_weights(int t, int n, int g, accumulator scales, accumulator offsets)
{
    operand_a p;
#define TAKE_SCALED(i) p[i] = float16_t(x[element_of(i)] * scales[element_of(i)]);
    const accumulator x = s[t][n];
    EACH(TAKE_SCALED)
    if (OFFSETS_V) {
#define ADD_OFFSET(i) sums_v[t][g][slot_of(i)] = fma(x[i], offsets[i], sums_v[t][g][slot_of(i)]);
        EACH(ADD_OFFSET)
    }
    return p;
}

void multiply_value_blocks()
{
    [[unroll]] for (int n = 0; n < STEPS_KV; n++) {
        [[unroll]] for (int g = 0; g < GROUPS_V; g++) {
            operand_a p[TILES];
            accumulator scales;
            accumulator offsets;
#define SCALE_OF_VALUE(i) TAKE_OF_KEY(scales, scales_v, i)
            EACH(SCALE_OF_VALUE)
            if (OFFSETS_V) {
#define OFFSET_OF_VALUE(i) TAKE_OF_KEY(offsets, offsets_v, i)
                EACH(OFFSET_OF_VALUE)
            }
            [[unroll]] for (int t = 0; t < TILES; t++)
                p[t] = scaled_weights(t, n, g, scales, offsets);
            [[unroll]] for (int d = 2 * g; d < 2 * g + 2; d++) {
                operand_b values;
                coopMatLoad(values, room, ROOM_K + 16 * n * LINE_V + 2 * d, LINE_V, gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (int t = 0; t < TILES; t++)
                    o[t][d] = coopMatMulAdd(p[t], values, o[t][d]);
            }
        }
    }
}

/* The weights of keys 16 n to 16 n + 15 as first operands of the second product. */
operand_a weights_of(int t, int n)
{
    operand_a p;
    if (IN_REGISTERS) {
#define TAKE(i) p[i] = float16_t(x[element_of(i)]);
        const accumulator x = s[t][n];
        EACH(TAKE)
    } else {
        coopMatLoad(p, weights, (first_row + 16 * t) * LINE_P + 2 * n, LINE_P, gl_CooperativeMatrixLayoutRowMajor);
    }
    return p;
}

void multiply_pv()
{
    if (BLOCKS_V)
        multiply_value_blocks();
    [[unroll]] for (int n = 0; n < (BLOCKS_V ? 0 : STEPS_KV); n++) {
        operand_a p[TILES];
        [[unroll]] for (int t = 0; t < TILES; t++)
            p[t] = weights_of(t, n);
        [[unroll]] for (int d = 0; d < STEPS_V; d++) {
            operand_b values;
            coopMatLoad(values, room, ROOM_K + 16 * n * LINE_V + 2 * d, LINE_V, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (int t = 0; t < TILES; t++)
                o[t][d] = coopMatMulAdd(p[t], values, o[t][d]);
        }
    }
}

#include "results.glsl"
#include "nonfinite.glsl"

void main()
{
    if (work_group() >= PARAMS.items)
        return;
    w = fa_work_at(work_group());
    id = work_item();
    lane = int(gl_SubgroupInvocationID);
    first_row = int(gl_SubgroupID) * 16 * TILES;
    all_keys = keys_of(w);
    if (PAGES == 0)
        all_keys.first = row_at(w, all_keys, fa_work_find(w, id / WIDE_QK));
    all_keys.first += address(SPAN_K(id % WIDE_QK * 8));
    all_values = values_of(w);
    if (PAGES == 0)
        all_values.first = row_at(w, all_values, fa_work_find(w, id / WIDE_V));
    all_values.first += address(SPAN_V(id % WIDE_V * 8));
    [[unroll]] for (int t = 0; t < TILES; t++) {
        [[unroll]] for (int r = 0; r < SLOTS; r++) {
            maximum[t][r] = FA_NEG_INF;
            sum[t][r] = 0.0;
            [[unroll]] for (int g = 0; g < (OFFSETS_V ? GROUPS_V : 0); g++)
                sums_v[t][g][r] = 0.0;
        }
        [[unroll]] for (int n = 0; n < STEPS_V; n++)
            o[t][n] = accumulator(0.0);
    }
    if (id == 0)
        nonfinite = 0;
    begin_lost(id);
    find_places();
    load_rows();

    fa_met met = fa_met_from(w, TRANSFORM != 0, w.key_begin, BLOCK_KV);
    int key = met.key;
    if (key < w.key_end) {
        if (PAGES != 0) {
            find_keys(key, w.key_end);
            find_values(key, w.key_end);
        }
        fetch_keys(key, w.key_end);
        put_keys();
    }
    while (key < w.key_end) {
        const int key_end = min(key + BLOCK_KV, w.key_end);
        const bool masked = fa_met_cut(w, met, key_end, BLOCK_KV);
        met = fa_met_next(w, TRANSFORM != 0, met, BLOCK_KV);
        const int next = met.key;
        const bool hides = masked || (w.flags & FA_TABLE_KEEP) != 0;
        barrier();
        fetch_values(key, key_end);
        if (PAGES != 0 && next < w.key_end) {
            find_keys(next, w.key_end);
            find_values(next, w.key_end);
        }
        multiply_qk();
        if (CODED_V)
            decode_values();
        if (hides && clear_nonfinite())
            nonfinite = 1;
        put_values();
        [[unroll]] for (int t = 0; t < TILES; t++) {
            if (IN_REGISTERS) {
                mask_in_registers(t, key, key_end, masked);
                softmax_in_registers(t);
            } else {
                softmax_in_memory(t, key, key_end, masked);
            }
        }
        barrier();
        if (next < w.key_end)
            fetch_keys(next, w.key_end);
        multiply_pv();
        if (next < w.key_end)
            put_keys();
        key = next;
    }
    end_lost();
    barrier();
    [[unroll]] for (int t = 0; t < TILES; t++) {
        [[unroll]] for (int r = 0; r < SLOTS; r++)
            sum[t][r] = sum_or_lost(sum[t][r]);
        if (IN_REGISTERS)
            write_from_registers(t);
        else
            write_from_memory(t);
    }
    if (nonfinite != 0)
        add_nonfinite();
}
