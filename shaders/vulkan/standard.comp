#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: a matrix product that leaves all scores in scratch memory, softmax over its
 * rows in place, and a second product. Three kernels, of which FA_SCORES, FA_SOFTMAX or FA_OUTPUT says which.
 *
 * A launch covers `rows` packed rows from row_begin on of each of some items, from item `first` on. In scratch memory
 * they lie one after the other, STRIDE floats each, and beside them one factor for each row. Weights are not normalised
 * before the second product, which multiplies its result by the row's factor instead. A hidden weight is -0, so that it
 * can be told from one that vanished: only the latter may meet a value that is not finite.
 */
#extension GL_GOOGLE_include_directive : require
#include "softmax.glsl"

layout(constant_id = FA_VK_HIDES) const int HIDES = 0;

#define STRIDE ((pc.keys + 3) / 4 * 4)
#define HIDDEN 0x80000000u /* bits of -0 */

#ifdef FA_SOFTMAX

shared float room[GROUP];

/* The greatest of all work-items' values, or their sum. */
float reduce(bool add, float x)
{
    const int id = int(gl_LocalInvocationIndex);
    room[id] = x;
    barrier();
    for (int half_way = GROUP / 2; half_way > 0; half_way /= 2) {
        if (id < half_way)
            room[id] = add ? room[id] + room[id + half_way] : max(room[id], room[id + half_way]);
        barrier();
    }
    x = room[0];
    barrier();
    return x;
}

/* A work-group for each row. */
void main()
{
    const int id = int(gl_LocalInvocationIndex), n = work_group(), part = n / pc.rows;
    if (n >= pc.groups)
        return;
    const work w = work_at(pc.first + part);
    const fa_row q = fa_work_row(w, pc.row_begin + n - part * pc.rows);
    const address scores = at(FA_VK_SLOT_PARTIAL) + address(n) * address(STRIDE) * 4;

    fa_state state;
    state.max = FA_NEG_INF;
    for (int key = id; key < pc.keys; key += GROUP) {
        if (HIDES == 0 || fa_row_sees(q, w.walk.mask, key))
            state.max = max(state.max, load_partial(scores + address(key) * 4));
    }
    state.max = reduce(false, state.max);
    const float unit = PARAMS.score.unit;
    float sum = 0.0;
    for (int key = id; key < STRIDE; key += GROUP) {
        const address p = scores + address(key) * 4;
        uint weight = HIDDEN;
        if (key < pc.keys && (HIDES == 0 || fa_row_sees(q, w.walk.mask, key))) {
            const float seen = fa_weight(load_partial(p), fa_safe_max(state.max), unit);
            sum += seen;
            weight = floatBitsToUint(seen);
        }
        WORD1(8, p) = weight;
    }
    state.sum = reduce(true, sum);

    if (id == 0) {
        const fa_closed closed = fa_work_close(w, q, state, w.whole);
        store_state(at(FA_VK_SLOT_STATE) + address(n) * 4, closed.factor);
        if ((w.flags & FA_TABLE_LSE) != 0)
            store_float_lse(lse_of(w, q), closed.lse);
    }
}

#else

/* Both products: a work-group makes one tile, TILE_ROWS by TILE_COLS, in steps of DEPTH terms. */
layout(constant_id = FA_VK_ROWS) const int ROWS = 4;
layout(constant_id = FA_VK_COLS) const int COLS = 4;
#include "product.glsl"

const int LINES = GROUP / LANES;
const int TILE_ROWS = LINES * ROWS;
const int TILE_COLS = LANES * COLS;
#define LINE_A(t) ((t) * TILE_ROWS + (t) / 4 * 16)
#define LINE_B(t) ((t) * TILE_COLS + (t) / 4 * 16)
const int STAGE_B = LINE_A(DEPTH);
const int STAGE = STAGE_B + LINE_B(DEPTH);

/* Vectors of four that each work-item fetches for a step. */
const int VECTORS_A = TILE_ROWS * (DEPTH / 4);
const int VECTORS_B = TILE_COLS * (DEPTH / 4);
const int FETCH_A = CEIL_DIV(VECTORS_A, GROUP);
const int FETCH_B = CEIL_DIV(VECTORS_B, GROUP);

shared vec4 room[2 * STAGE / 4];
#ifdef FA_OUTPUT
shared int unsafe; /* some value is not finite */
#endif

work w;
int id, x, y;
int part, tile_row, tile_col; /* the item, from the launch's first; the tile's first row and column */
vec4 sum[ROWS][COLS / 4];
address rows_at[FETCH_A];

/* False where the launch has no such tile. */
bool begin(int cols)
{
    const int across = CEIL_DIV(cols, TILE_COLS), down = CEIL_DIV(pc.rows, TILE_ROWS), n = work_group();
    if (n >= pc.groups)
        return false;
    const int line = n / across;
    part = line / down;
    tile_row = line % down * TILE_ROWS;
    tile_col = (n - line * across) * TILE_COLS;
    w = work_at(pc.first + part);
    id = int(gl_LocalInvocationIndex);
    x = id % LANES;
    y = id / LANES;
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        [[unroll]] for (int g = 0; g < COLS / 4; g++)
            sum[i][g] = vec4(0.0);
    }
    return true;
}

/* sum += rows columns over the step in `stage`. */
void multiply(int stage)
{
    [[unroll]] for (int t = 0; t < DEPTH; t++) {
        vec4 four[COLS / 4];
        [[unroll]] for (int g = 0; g < COLS / 4; g++)
            four[g] = room[(stage + STAGE_B + LINE_B(t)) / 4 + x + g * LANES];
        [[unroll]] for (int i = 0; i < ROWS; i++) {
            const int at = stage + LINE_A(t) + y * ROWS + i;
            const float row = room[at >> 2][at & 3];
            [[unroll]] for (int g = 0; g < COLS / 4; g++)
                sum[i][g] += row * four[g];
        }
    }
}

#ifdef FA_SCORES

uvec4 a[FETCH_A], b[FETCH_B];
address keys_at[FETCH_B];

void find_rows()
{
    /* Rows and keys past the end are the last one again. */
    [[unroll]] for (int n = 0; n < FETCH_A; n++) {
        const int r = min(tile_row + (id + n * GROUP) / (DEPTH / 4), pc.rows - 1);
        const fa_row q = fa_work_row(w, pc.row_begin + r);
        rows_at[n] = row_of_q(w, q);
    }
    [[unroll]] for (int n = 0; n < FETCH_B; n++) {
        const int j = min(tile_col + (id + n * GROUP) / (DEPTH / 4), pc.keys - 1);
        keys_at[n] = row_at(keys_of(w), j);
    }
}

void fetch(int d)
{
    [[unroll]] for (int n = 0; n < FETCH_A; n++) {
        const int at = id + n * GROUP, dim = d + at % (DEPTH / 4) * 4;
        a[n] = fetch_q4(TYPE_Q, rows_at[n] + address(dim * bytes_of(TYPE_Q)), at < VECTORS_A ? w.dim_qk - dim : 0);
    }
    [[unroll]] for (int n = 0; n < FETCH_B; n++) {
        const int at = id + n * GROUP, dim = d + at % (DEPTH / 4) * 4;
        b[n] = fetch_k4(TYPE_K, keys_at[n] + address(dim * bytes_of(TYPE_K)), at < VECTORS_B ? w.dim_qk - dim : 0);
    }
}

void put(int stage)
{
    [[unroll]] for (int n = 0; n < FETCH_A; n++) {
        const int at = id + n * GROUP, t = at % (DEPTH / 4) * 4;
        if (VECTORS_A % GROUP == 0 || at < VECTORS_A)
            PUT_COLUMN(stage + LINE_A(t) + at / (DEPTH / 4), TILE_ROWS, widen4(TYPE_Q, a[n]))
    }
    [[unroll]] for (int n = 0; n < FETCH_B; n++) {
        const int at = id + n * GROUP, t = at % (DEPTH / 4) * 4;
        if (VECTORS_B % GROUP == 0 || at < VECTORS_B)
            PUT_COLUMN(stage + STAGE_B + LINE_B(t) + at / (DEPTH / 4), TILE_COLS, widen4(TYPE_K, b[n]))
    }
}

void main()
{
    if (!begin(pc.keys))
        return;
    const fa_score score = PARAMS.score;
    const float scale = score.transforms != 0 ? score.scale : 1.0, rest = score.transforms != 0 ? score.scale_rest : 1.0;
    find_rows();
    fetch(0);
    int stage = 0;
    for (int d = 0; d < w.dim_qk; d += DEPTH) {
        put(stage);
        barrier();
        if (d + DEPTH < w.dim_qk)
            fetch(d + DEPTH);
        multiply(stage);
        stage = STAGE - stage;
    }
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        const int r = tile_row + y * ROWS + i;
        const address to = at(FA_VK_SLOT_PARTIAL) + (address(part * pc.rows + r) * address(STRIDE)) * 4;
        [[unroll]] for (int g = 0; g < COLS / 4; g++) {
            const int j = tile_col + 4 * (x + g * LANES);
            store4_partial(to + address(j * 4), r < pc.rows ? pc.keys - j : 0, sum[i][g] * scale * rest);
        }
    }
}

#else

vec4 a[FETCH_A];
uvec4 b[FETCH_B];
cursor all_values;

/* multiply() where a hidden value may not be finite: it is 0 for the rows that do not see it. */
void multiply_guarded(int stage)
{
    for (int t = 0; t < DEPTH; t++) {
        [[unroll]] for (int i = 0; i < ROWS; i++) {
            const int at = stage + LINE_A(t) + y * ROWS + i;
            const float row = room[at >> 2][at & 3];
            [[unroll]] for (int g = 0; g < COLS / 4; g++) {
                const vec4 value = room[(stage + STAGE_B + LINE_B(t)) / 4 + x + g * LANES];
                sum[i][g] += row * (floatBitsToUint(row) == HIDDEN ? finite_part(value) : value);
            }
        }
    }
}

/* The weights of rows, which are `key` floats into them, and the values of keys from `key` on. */
void fetch(int key)
{
    [[unroll]] for (int n = 0; n < FETCH_A; n++) {
        const int at = id + n * GROUP, j = key + at % (DEPTH / 4) * 4;
        a[n] = vec4(uintBitsToFloat(HIDDEN));
        if (at < VECTORS_A && j < pc.keys) {
            [[unroll]] for (int e = 0; e < 4; e++)
                a[n][e] = load_partial(rows_at[n] + address((j + e) * 4));
        }
    }
    [[unroll]] for (int n = 0; n < FETCH_B; n++) {
        const int at = id + n * GROUP, j = key + at / (TILE_COLS / 4), d = tile_col + at % (TILE_COLS / 4) * 4;
        b[n] = fetch_v4(TYPE_V, row_at(all_values, j) + address(d * bytes_of(TYPE_V)),
                        at < VECTORS_B && j < pc.keys ? w.dim_v - d : 0);
    }
}

void put(int stage)
{
    [[unroll]] for (int n = 0; n < FETCH_A; n++) {
        const int at = id + n * GROUP, t = at % (DEPTH / 4) * 4;
        if (VECTORS_A % GROUP == 0 || at < VECTORS_A)
            PUT_COLUMN(stage + LINE_A(t) + at / (DEPTH / 4), TILE_ROWS, a[n])
    }
    bool finite = true;
    [[unroll]] for (int n = 0; n < FETCH_B; n++) {
        const int at = id + n * GROUP, t = at / (TILE_COLS / 4), c = at % (TILE_COLS / 4) * 4;
        const vec4 value = widen4(TYPE_V, b[n]);
        finite = finite && is_finite4(value);
        if (VECTORS_B % GROUP == 0 || at < VECTORS_B)
            room[(stage + STAGE_B + LINE_B(t) + c) / 4] = value;
    }
    if (HIDES != 0 && !finite)
        unsafe = 1;
}

void main()
{
    if (!begin(PARAMS.dim_v))
        return;
    all_values = values_of(w);
    [[unroll]] for (int n = 0; n < FETCH_A; n++) {
        const int r = min(tile_row + (id + n * GROUP) / (DEPTH / 4), pc.rows - 1);
        rows_at[n] = at(FA_VK_SLOT_PARTIAL) + address(part * pc.rows + r) * address(STRIDE) * 4;
    }
    if (id == 0)
        unsafe = 0;
    barrier();
    fetch(0);
    int stage = 0;
    for (int key = 0; key < pc.keys; key += DEPTH) {
        put(stage);
        barrier();
        if (key + DEPTH < pc.keys)
            fetch(key + DEPTH);
        if (unsafe != 0)
            multiply_guarded(stage);
        else
            multiply(stage);
        stage = STAGE - stage;
    }
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        const int r = tile_row + y * ROWS + i;
        const fa_row q = fa_work_row(w, pc.row_begin + min(r, pc.rows - 1));
        const address to = row_of_o(w, q);
        const float factor =
            load_state(at(FA_VK_SLOT_STATE) + address(part * pc.rows + min(r, pc.rows - 1)) * 4);
        [[unroll]] for (int g = 0; g < COLS / 4; g++) {
            const int d = tile_col + 4 * (x + g * LANES);
            store4_o(to + address(d * bytes_of(TYPE_O)), r < pc.rows ? w.dim_v - d : 0, normalised(sum[i][g], factor));
        }
    }
}

#endif
#endif
