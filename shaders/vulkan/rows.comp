#version 450
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of few rows: each key and value is fetched once, straight into registers, and all rows of the item use
 * it. Bound by memory, so many work-groups of GROUP run beside each other. For each block of BLOCK_KV keys: SPLIT
 * work-items share the dims of a key and leave their parts of its scores in shared memory; a few work-items for each
 * row turn scores into weights; then every work-item adds up eight dims of the output (or OCTETS times eight) over the
 * keys of its line, whose first values were on their way all the while. Lines are added up when the item ends.
 */
#extension GL_GOOGLE_include_directive : require
#include "softmax.glsl"
#include "keys.glsl"
#include "formats.glsl"
#include "scaled.glsl"

layout(constant_id = FA_VK_BLOCK_Q) const int BLOCK_Q = 1;
layout(constant_id = FA_VK_BLOCK_KV) const int BLOCK_KV = 16;
layout(constant_id = FA_VK_DIM_QK) const int DIM_QK = 32;
layout(constant_id = FA_VK_DIM_V) const int DIM_V = 32;
layout(constant_id = FA_VK_SPLIT) const int SPLIT = 4;

#include "pieces.glsl"

/* In blocks, a work-item takes a whole one at a time, and NEAR keys' are fetched before they are used. */
const int SHARE = !BLOCKS_K ? SPLIT : DIM_QK >= 32 * SPLIT ? SPLIT : DIM_QK >= 64 ? 2 : 1;
const int LINES_K = GROUP / SHARE;
const int KEYS = CEIL_DIV(BLOCK_KV, LINES_K);
const int MOST_NEAR = BLOCKS_K ? 4 : 8;
const int NEAR = KEYS < MOST_NEAR ? KEYS : MOST_NEAR;
const int VECTORS_K = CEIL_DIV(DIM_QK, 8 * SPLIT);
const int DIM_Q = VECTORS_K * 8 * SPLIT;
/* Elements of a value that a work-item fetches at once, and such pieces of it; OCTETS is what it adds up. */
const int PIECE = !BLOCKS_V ? 8 : BLOCK_Q > 4 ? 8 : DIM_V % 16 != 0 ? 8 : 16;
const int PIECES = CEIL_DIV(DIM_V, PIECE * GROUP);
const int OCTETS = PIECE / 8 * PIECES;
const int LANES_V = CEIL_DIV(DIM_V, 8 * OCTETS);
const int LINES_V = GROUP / LANES_V;
const int PER_ROW = GROUP / BLOCK_Q < 32 ? GROUP / BLOCK_Q : 32; /* work-items that weigh one row */
const int SCORES = CEIL_DIV(BLOCK_KV, PER_ROW);
/* Keys whose values are fetched before they are used. */
const int MOST = BLOCKS_V ? CEIL_DIV(8, OCTETS) : CEIL_DIV(16, FA_TYPE_BYTES(TYPE_V) * OCTETS);
const int AHEAD = !BLOCKS_V ? MOST : MOST > CEIL_DIV(BLOCK_KV, LINES_V) ? CEIL_DIV(BLOCK_KV, LINES_V) : MOST;

/*
 * In pages, a block's keys are looked up while the block before it is computed, each once. Where their rows of k and v lie is in
 * shared memory, for two blocks in turns; -1 where the pool does not have the page. Scales want to know the page itself.
 */
const int LOOKUPS = CEIL_DIV(BLOCK_KV, GROUP);
const bool BY_PAGE = FAR != 0 || SCALES_K != 0 || SCALES_V != 0;
shared ivec2 places[PAGES != 0 ? 2 * BLOCK_KV : 1];

#define HIDDEN 0x80000000u /* bits of -0: the weight of a key that the row does not see */

const int PARTS = SPLIT * BLOCK_Q * BLOCK_KV;
const int SUMS = LINES_V * LANES_V * 8;

shared vec4 rows_q[BLOCK_Q * DIM_Q / 4];
shared float parts[PARTS > SUMS ? PARTS : SUMS];
shared vec4 weights[CEIL_DIV(BLOCK_Q * BLOCK_KV, 4)]; /* those of a key beside each other */
shared float exchange[GROUP];
shared float maxima[BLOCK_Q];

work w;
int id;
int my_row, my_lane; /* the row that this work-item weighs, if it `weighs` any, and which of PER_ROW it is */
bool weighs;
fa_row mine;
fa_state state; /* of that row, with this work-item's share of its sum */
float unit;
cursor all_keys, all_values;
int found[LOOKUPS]; /* pages of the next block's keys */
int here; /* where in `places` the block's begin */
raw8 ahead[AHEAD][PIECES];
vec4 o[BLOCK_Q][OCTETS][2];

/*
 * Where vector n of eight lies of q's dims d to d + 31. Work-items that share a key read 32 dims apart: turned, they meet different
 * banks.
 */
int turned(int n, int d)
{
    return !BLOCKS_K ? n : n ^ d / 32 % 4 * 2;
}

void load_rows()
{
    for (int n = id; n < BLOCK_Q * DIM_Q; n += GROUP) {
        const int r = n / DIM_Q, d = n % DIM_Q;
        const fa_row q = fa_work_row(w, w.row_begin + r);
        float element = 0.0;
        if (d < w.dim_qk)
            element = FA_LOAD(1, TYPE_Q, (row_of_q(w, q) + address(d * bytes_of(TYPE_Q))));
        rows_q[(r * DIM_Q + d / 32 * 32) / 4 + turned(d % 32 / 4, d)][d % 4] = element;
    }
}

/* The first dim of an octet. Pieces lie beside each other; of codes that share bytes, two of 16 elements make a block. */
int dim_of(int lane, int c)
{
    const int n = lane + c / (PIECE / 8) * LANES_V;
    return PIECE == 8 ? n * 8 : v_bits == 8 ? n * 16 + c % 2 * 8 : n / 2 * 32 + n % 2 * 8 + c % 2 * 16;
}

/* The words of core/portable/lookup.h. */
#define FA_LOOKUP
#define FA_PLACES_GIVEN int to,
#define FA_CURSOR cursor
#define FA_BLOCK_KV BLOCK_KV
#define FA_GROUP GROUP
#define FA_BY_PAGE BY_PAGE
#define FA_DISTANCE_OF(c, at) distance_of(c, at)
#define FA_PUT_PLACES(slot, k, v) places[to + slot] = ivec2(k, v)
#include "core/portable/lookup.h"

/*
 * How far the row of key j lies, number `slot` of its block: of k, which is 0, or v. -1: the pool does not have the page. Then its
 * first row is fetched, and the score becomes NaN once it is made: to ask of each key as it is fetched would take too long.
 */
int distance_in(int of, int slot, int j)
{
    return PAGES != 0 ? places[here + slot][of] : j;
}

fa_key_place place_at(int distance, int j)
{
    fa_key_place at = fa_key_place(0, j);
    if (PAGES != 0 && BY_PAGE)
        at = fa_key_place(max(distance, 0), fa_work_within(w, j));
    return at;
}

address row_of(cursor c, int distance, int j)
{
    address row;
    if (PAGES == 0 || BY_PAGE)
        row = row_at(w, c, place_at(distance, j));
    else
        row = row_behind(c, max(distance, 0));
    return row;
}

float score_or_lost(int distance, float score)
{
    return PAGES != 0 && distance < 0 ? uintBitsToFloat(0x7fc00000u) : score;
}

float add_product(vec4 a, vec4 b, float sum)
{
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

/* The same as score_keys(), of keys in blocks. */
void score_blocks(int key, int key_end)
{
    const int lane = id % SHARE, line = id / SHARE;
    [[dont_unroll]] for (int first = 0; first < KEYS; first += NEAR) {
        float s[NEAR][BLOCK_Q];
        int distance[NEAR];
        [[unroll]] for (int n = 0; n < NEAR; n++) {
            const int j = FA_KEY_OF(line + min(first + n, KEYS - 1) * LINES_K, key, key_end);
            distance[n] = distance_in(0, j - key, j);
            [[unroll]] for (int r = 0; r < BLOCK_Q; r++)
                s[n][r] = 0.0;
        }
        [[dont_unroll]] for (int d = lane * 32; d < DIM_QK; d += SHARE * 32) {
            uint block[NEAR][BLOCK_ROOM], place[NEAR];
            fa_block_scaling scales[NEAR];
            [[unroll]] for (int n = 0; n < NEAR; n++) {
                const int j = FA_KEY_OF(line + min(first + n, KEYS - 1) * LINES_K, key, key_end);
                const address at = row_of(all_keys, distance[n], j) + address((d >> SHIFT_K) * SIZE_K);
                place[n] = uint(at);
                [[unroll]] for (int i = 0; i < BLOCK_WORDS; i++) {
                    if (K_IN_PAIRS == 0) {
                        block[n][i] = block_word(at, i);
                    } else if (i % 2 == 0) {
                        const uvec2 pair = WORD2(2, at + address(4 * i));
                        block[n][i] = pair.x;
                        block[n][i + 1] = pair.y;
                    }
                }
            }
            [[unroll]] for (int n = 0; n < NEAR; n++)
                scales[n] = fa_block_scaling_of(FA_BLOCK_BITS(block[n], 0, k_shift(place[n])));
            [[unroll]] for (int i = 0; i < 8; i++) {
                vec4 four[BLOCK_Q];
                [[unroll]] for (int r = 0; r < BLOCK_Q; r++)
                    four[r] = rows_q[r * (DIM_Q / 4) + (d / 4 + turned(i, d))];
                [[unroll]] for (int n = 0; n < NEAR; n++) {
                    const vec4 x = FA_BLOCK_FOUR(TYPE_K, block[n], i, k_shift(place[n]), scales[n]);
                    [[unroll]] for (int r = 0; r < BLOCK_Q; r++)
                        s[n][r] = add_product(four[r], x, s[n][r]);
                }
            }
        }
        [[unroll]] for (int n = 0; n < NEAR; n++) {
            const int slot = line + (first + n) * LINES_K;
            [[unroll]] for (int r = 0; r < BLOCK_Q; r++) {
                if (slot < BLOCK_KV)
                    parts[(lane * BLOCK_Q + r) * BLOCK_KV + slot] = score_or_lost(distance[n], s[n][r]);
            }
        }
    }
}

/* Scores of the block's keys, without scale, one part from each work-item. */
void score_keys(int key, int key_end)
{
    const int lane = id % SPLIT, line = id / SPLIT;
    [[dont_unroll]] for (int first = 0; first < KEYS; first += NEAR) {
        float s[NEAR][BLOCK_Q];
        int distance[NEAR];
        [[unroll]] for (int n = 0; n < NEAR; n++) {
            const int j = FA_KEY_OF(line + (first + n) * LINES_K, key, key_end);
            distance[n] = distance_in(0, j - key, j);
            [[unroll]] for (int r = 0; r < BLOCK_Q; r++)
                s[n][r] = 0.0;
        }
        [[dont_unroll]] for (int c = 0; c < VECTORS_K; c++) {
            const int d = (c * SPLIT + lane) * 8;
            raw8 keys[NEAR];
            [[unroll]] for (int n = 0; n < NEAR; n++) {
                const int j = FA_KEY_OF(line + (first + n) * LINES_K, key, key_end);
                keys[n] = fetch_k_at8(w, row_of(all_keys, distance[n], j), place_at(distance[n], j), d, w.dim_qk - d);
            }
            [[unroll]] for (int n = 0; n < NEAR; n++) {
                const vec4 low = k_low(keys[n]), high = k_high(keys[n]);
                [[unroll]] for (int r = 0; r < BLOCK_Q; r++)
                    s[n][r] = add_product(rows_q[(r * DIM_Q + d) / 4 + 1], high,
                                          add_product(rows_q[(r * DIM_Q + d) / 4], low, s[n][r]));
            }
        }
        [[unroll]] for (int n = 0; n < NEAR; n++) {
            const int slot = line + (first + n) * LINES_K;
            [[unroll]] for (int r = 0; r < BLOCK_Q; r++) {
                if (KEYS % NEAR == 0 || slot < BLOCK_KV)
                    parts[(lane * BLOCK_Q + r) * BLOCK_KV + slot] = score_or_lost(distance[n], s[n][r]);
            }
        }
    }
}

/* The values of AHEAD keys of this work-item's line, from the block's key `first` on; past the end, the last's. */
void fetch_values(int key, int key_end, int first)
{
    const int lane = id % LANES_V, line = id / LANES_V;
    [[unroll]] for (int a = 0; a < AHEAD; a++) {
        const int j = FA_KEY_OF(first + line + a * LINES_V, key, key_end), distance = distance_in(1, j - key, j);
        const address row = row_of(all_values, distance, j);
        [[unroll]] for (int c = 0; c < PIECES; c++) {
            const int d = dim_of(lane, c * (PIECE / 8));
            if (!BLOCKS_V) {
                ahead[a][c] = fetch_v_at8(w, row, place_at(distance, j), d, w.dim_v - d);
            } else {
                ahead[a][c] = raw8(uvec4(0u), uvec4(0u));
                if (LANES_V * PIECE * PIECES == DIM_V || d < w.dim_v)
                    ahead[a][c] = fa_piece_fetch(PIECE, row, d);
            }
        }
    }
}

/* output += weight value for every row; of a value that may be hidden, where it is seen: it may be NaN or infinite. */
void add_value(vec4 low, vec4 high, float weight[BLOCK_Q], bool hides, int c)
{
    [[unroll]] for (int r = 0; r < BLOCK_Q; r++) {
        if (!hides || floatBitsToUint(weight[r]) != HIDDEN) {
            o[r][c][0] = fma(vec4(weight[r]), low, o[r][c][0]);
            o[r][c][1] = fma(vec4(weight[r]), high, o[r][c][1]);
        }
    }
}

/* What was fetched at once of a value; compilers keep in registers what has an index that is a literal. */
void add_fetched(raw8 value, float weight[BLOCK_Q], bool hides, int c)
{
    if (!BLOCKS_V) {
        add_value(v_low(value), v_high(value), weight, hides, c);
    } else {
        const fa_block_scaling s = fa_piece_scaling(value);
        add_value(fa_piece_four(PIECE, value, 0, s), fa_piece_four(PIECE, value, 1, s), weight, hides, c * (PIECE / 8));
        if (PIECE == 16)
            add_value(fa_piece_four(PIECE, value, 2, s), fa_piece_four(PIECE, value, 3, s), weight, hides, c * 2 + 1);
    }
}

/* The parts of the block's scores become weights, under the new maximum of each row. */
void softmax_step(int key, int key_end, bool full)
{
    float s[SCORES], next = state.max;
    bool seen[SCORES];
    [[unroll]] for (int n = 0; n < SCORES; n++) {
        const int slot = my_lane + n * PER_ROW, j = key + slot;
        s[n] = FA_NEG_INF;
        seen[n] = weighs && slot < BLOCK_KV && j < key_end && (full || fa_work_sees(w, mine, j));
        if (TRANSFORM != 0 && (w.flags & FA_TABLE_KEEP) != 0 && seen[n])
            seen[n] = fa_work_keeps(w, mine, j);
        if (seen[n]) {
            float score = 0.0;
            [[unroll]] for (int l = 0; l < SHARE; l++)
                score += parts[(l * BLOCK_Q + my_row) * BLOCK_KV + slot];
            s[n] = TRANSFORM != 0 ? fa_work_score(w, mine, j, score) : score;
        }
        next = max(next, s[n]);
    }
    if (lanes_share(PER_ROW)) {
        next = fa_lanes_max(next, PER_ROW);
    } else {
        exchange[id] = next;
        barrier();
        if (weighs) {
            for (int n = 0; n < PER_ROW; n++)
                next = max(next, exchange[my_row * PER_ROW + n]);
        }
    }
    if (weighs) {
        float total = 0.0;
        const float base = fa_safe_max(next);
        [[unroll]] for (int n = 0; n < SCORES; n++) {
            const int slot = my_lane + n * PER_ROW;
            const float weight = seen[n] ? fa_weight(s[n], base, unit) : uintBitsToFloat(HIDDEN);
            total += weight;
            if (slot < BLOCK_KV)
                weights[(slot * BLOCK_Q + my_row) / 4][(slot * BLOCK_Q + my_row) % 4] = weight;
        }
        state.sum = state.sum * fa_state_weight(state.max, next, unit) + total;
        state.max = next;
        if (my_lane == 0)
            maxima[my_row] = next;
    }
}

/* The keys of the line from the block's first to its last. `hides` is constant: most blocks need no guard. */
void add_values(int key, int key_end, const bool hides)
{
    const int line = id / LANES_V;
    [[dont_unroll]] for (int n = line; n < key_end - key; n += AHEAD * LINES_V) {
        [[unroll]] for (int a = 0; a < AHEAD; a++) {
            const int at = n + a * LINES_V;
            if (at < key_end - key) {
                float weight[BLOCK_Q];
                [[unroll]] for (int r = 0; r < BLOCK_Q; r++) {
                    const int n = at * BLOCK_Q + r;
                    weight[r] = BLOCK_Q % 4 == 0 ? weights[at * (BLOCK_Q / 4) + r / 4][r % 4] : weights[n / 4][n % 4];
                }
                [[unroll]] for (int c = 0; c < PIECES; c++)
                    add_fetched(ahead[a][c], weight, hides, c);
            }
        }
        if (n + AHEAD * LINES_V < key_end - key)
            fetch_values(key, key_end, n - line + AHEAD * LINES_V);
    }
}

/* Lines add up what they have of row r, which is then written. The row's sum is in `exchange`, its output in o[0]. */
void write_row(int r)
{
    const int count = LINES_V * LANES_V;
    const fa_row q = fa_work_row(w, w.row_begin + r);
    const address part = w.part_row + address(r);
    const address to = w.whole ? row_of_o(w, q) : at(FA_VK_SLOT_PARTIAL) + part * address(w.dim_v * 4);
    fa_closed closed;
    [[unroll]] for (int c = 0; c < OCTETS; c++) {
        if (id < count) {
            [[unroll]] for (int e = 0; e < 4; e++) {
                parts[id * 8 + e] = o[0][c][0][e];
                parts[id * 8 + 4 + e] = o[0][c][1][e];
            }
        }
        barrier();
        if (c == 0) {
            fa_state row;
            row.max = maxima[r];
            row.sum = 0.0;
            for (int n = 0; n < PER_ROW; n++)
                row.sum += exchange[r * PER_ROW + n];
            closed = fa_work_close(w, q, row, w.whole);
            if (id == 0) {
                if (!w.whole)
                    store_part_state(part, row);
                else if ((w.flags & FA_TABLE_LSE) != 0)
                    store_float_lse(lse_of(w, q), closed.lse);
            }
        }
        for (int n = id; n < LANES_V * 2; n += GROUP) {
            const int d = dim_of(n / 2, c) + n % 2 * 4;
            vec4 total = vec4(0.0);
            for (int l = 0; l < LINES_V; l++) {
                const int from = (l * LANES_V * 2 + n) * 4;
                total += vec4(parts[from], parts[from + 1], parts[from + 2], parts[from + 3]);
            }
            if (w.whole)
                store4_o(to + address(d * bytes_of(TYPE_O)), w.dim_v - d, fa_normalised4(total, closed.factor));
            else
                store4_partial(to + address(d * 4), w.dim_v - d, fa_normalised4(total, closed.factor));
        }
        barrier();
    }
    [[unroll]] for (int i = 0; i + 1 < BLOCK_Q; i++) {
        [[unroll]] for (int c = 0; c < OCTETS; c++)
            o[i][c] = o[i + 1][c];
    }
}

void main()
{
    if (work_group() >= PARAMS.items)
        return;
    w = fa_work_at(work_group());
    id = work_item();
    all_keys = keys_of(w);
    all_values = values_of(w);
    const int count = w.row_end - w.row_begin;
    load_rows();
    here = 0;
    int key = fa_work_next(w, TRANSFORM != 0, w.key_begin, BLOCK_KV);
    if (PAGES != 0 && key < w.key_end) {
        fa_look_up(key);
        fa_put_places(0, key);
    }
    barrier();

    my_row = id / PER_ROW;
    my_lane = id % PER_ROW;
    weighs = my_row < count && my_row < BLOCK_Q;
    mine = fa_work_row(w, w.row_begin + min(my_row, count - 1));
    state = fa_state_empty();
    unit = PARAMS.score.unit;
    float maximum[BLOCK_Q];
    [[unroll]] for (int r = 0; r < BLOCK_Q; r++) {
        maximum[r] = FA_NEG_INF;
        [[unroll]] for (int c = 0; c < OCTETS; c++) {
            o[r][c][0] = vec4(0.0);
            o[r][c][1] = vec4(0.0);
        }
    }

    while (key < w.key_end) {
        const int key_end = min(key + BLOCK_KV, w.key_end);
        const int next_key = fa_work_next(w, TRANSFORM != 0, key + BLOCK_KV, BLOCK_KV);
        const bool full = fa_work_class(w, key, key_end) == FA_CLASS_FULL;
        const bool hides = !full || (w.flags & FA_TABLE_KEEP) != 0;
        if (PAGES != 0 && next_key < w.key_end)
            fa_look_up(next_key);
        if (BLOCKS_K)
            score_blocks(key, key_end);
        else
            score_keys(key, key_end);
        fetch_values(key, key_end, 0);
        barrier();

        if (PAGES != 0 && next_key < w.key_end)
            fa_put_places(BLOCK_KV - here, next_key);

        softmax_step(key, key_end, full);
        barrier();

        [[unroll]] for (int r = 0; r < BLOCK_Q; r++) {
            const float now = r < count ? maxima[r] : FA_NEG_INF, old = fa_state_weight(maximum[r], now, unit);
            maximum[r] = now;
            [[unroll]] for (int c = 0; c < OCTETS; c++) {
                o[r][c][0] *= old;
                o[r][c][1] *= old;
            }
        }
        if (id < LINES_V * LANES_V && hides)
            add_values(key, key_end, true);
        else if (id < LINES_V * LANES_V)
            add_values(key, key_end, false);
        key = next_key;
        here = BLOCK_KV - here;
    }

    barrier();
    exchange[id] = state.sum;
    if (weighs && my_lane == 0)
        maxima[my_row] = state.max;
    [[dont_unroll]] for (int r = 0; r < count; r++)
        write_row(r);
}
