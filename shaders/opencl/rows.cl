/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of few rows: each key and value is fetched once, straight into registers, and all rows of the item use
 * it. Bound by memory, so many work-groups of FA_GROUP run beside each other. For each block of FA_BLOCK_KV keys:
 * FA_SPLIT work-items share the dims of a key and leave their parts of its scores in local memory; a few
 * work-items for each row turn scores into weights; then every work-item adds up eight dims of the output (or
 * OCTETS times eight) over the keys of its line, whose first values were on their way all the while. Lines are added
 * up when the item ends.
 */
#include "softmax.cl"

/* What has no scales of its own is fetched in whole blocks of keys, and of values in larger pieces. */
#define IN_BLOCKS(type) \
    (FA_TYPE_IS_FP8(type) || (FA_TYPE_IS_CODED(type) && !FA_TYPE_IS_BARE(type) && !FA_TYPE_IS_ROW(type)))
#ifdef FA_SCALES_K
#define BLOCKS_K 0
#else
#define BLOCKS_K IN_BLOCKS(FA_TYPE_K)
#endif
#ifdef FA_SCALES_V
#define BLOCKS_V 0
#else
#define BLOCKS_V IN_BLOCKS(FA_TYPE_V)
#endif

/* Of fp8 alone, fewer elements of the last 32 may exist. */
#ifdef FA_WHOLE_QK
#define WHOLE_QK true
#else
#define WHOLE_QK false
#endif

#if BLOCKS_K /* a work-item takes a whole block at a time */
#define SHARE FA_MIN(FA_SPLIT, FA_DIM_QK >= 128 ? 4 : FA_DIM_QK >= 64 ? 2 : 1)
#else
#define SHARE FA_SPLIT
#endif
/*
 * Where vector n of eight lies of q's dims d to d + 31. Work-items that share a key read 32 dims apart: turned, they meet different
 * banks.
 */
#if BLOCKS_K
#define TURNED(n, d) ((n) ^ ((d) / 32 % 4 * 2))
#else
#define TURNED(n, d) (n)
#endif
#define LINES_K (FA_GROUP / SHARE)
#define KEYS CEIL_DIV(FA_BLOCK_KV, LINES_K)
#define NEAR FA_MIN(KEYS, BLOCKS_K ? 4 : 8) /* keys in blocks that are fetched before they are used */
#define VECTORS_K CEIL_DIV(FA_DIM_QK, 8 * FA_SPLIT)
#define DIM_Q (VECTORS_K * 8 * FA_SPLIT)
/* Elements of a value that a work-item fetches at once, and such pieces of it; OCTETS is what it adds up. */
#if BLOCKS_V && FA_BLOCK_Q <= 4 && FA_DIM_V % 16 == 0
#define PIECE 16
#else
#define PIECE 8
#endif
#define PIECES CEIL_DIV(FA_DIM_V, PIECE * FA_GROUP)
#define OCTETS (PIECE / 8 * PIECES)
#define LANES_V CEIL_DIV(FA_DIM_V, 8 * OCTETS)
#define LINES_V (FA_GROUP / LANES_V)
/* The first dim of an octet. Pieces lie beside each other; of codes that share bytes, two of 16 elements make a block. */
#if PIECE == 16
#define NUMBER(lane, c) ((lane) + (c) / 2 * LANES_V)
#define DIM_OF(lane, c)                                                                                        \
    (FA_TYPE_CODE_BITS(FA_TYPE_V) == 8 ? NUMBER(lane, c) * 16 + (c) % 2 * 8                                    \
                                       : NUMBER(lane, c) / 2 * 32 + NUMBER(lane, c) % 2 * 8 + (c) % 2 * 16)
#else
#define DIM_OF(lane, c) (((lane) + (c)*LANES_V) * 8)
#endif
#define PER_ROW FA_MIN(FA_GROUP / FA_BLOCK_Q, 32) /* work-items that weigh one row */
#define SCORES CEIL_DIV(FA_BLOCK_KV, PER_ROW)
/* Keys whose values are fetched before they are used. */
#if BLOCKS_V
#define AHEAD FA_MIN(CEIL_DIV(16, OCTETS), CEIL_DIV(FA_BLOCK_KV, LINES_V))
#else
#define AHEAD CEIL_DIV(16, FA_TYPE_BYTES(FA_TYPE_V) * OCTETS)
#endif
#define LOOKUPS CEIL_DIV(FA_BLOCK_KV, FA_GROUP) /* keys of a block whose pages a work-item looks up */

/*
 * Local memory, in floats: the rows of q, the parts of the scores, the weights, and what is exchanged. With pages, then those
 * of a block's keys, and of the next block's.
 */
#define ROOM_Q (FA_BLOCK_Q * DIM_Q)
#define PARTS (FA_SPLIT * FA_BLOCK_Q * FA_BLOCK_KV)
#define SUMS (LINES_V * LANES_V * 8)
#define ROOM_PARTS (PARTS > SUMS ? PARTS : SUMS)
#define ROOM_WEIGHTS (FA_BLOCK_Q * FA_BLOCK_KV)

#define HIDDEN 0x80000000u /* bits of -0: the weight of a key that the row does not see */

/* Of `all` turns over a block, those that its `keys` keys need where loops stay loops; else all, the rest idle. */
#ifdef FA_COMPACT
#define TURNS(all, keys, step) FA_MIN(all, CEIL_DIV(keys, step))
#else
#define TURNS(all, keys, step) (all)
#endif

static inline float add_product(float8 a, float8 b, float sum)
{
    sum += a.s0 * b.s0;
    sum += a.s1 * b.s1;
    sum += a.s2 * b.s2;
    sum += a.s3 * b.s3;
    sum += a.s4 * b.s4;
    sum += a.s5 * b.s5;
    sum += a.s6 * b.s6;
    return sum + a.s7 * b.s7;
}

/*
 * In pages, a block's keys are looked up while the block before it is computed. Where the rows of k and v of each lie is then in
 * local memory: how far from the cursor's first row, in units that all its steps are multiples of. -1: the pool has no such page.
 */
typedef __local const int *places;

#ifdef FA_PAGES
static inline int unit_of(cursor c)
{
    const long steps = FA_PLACE_STEPS(c.step | c.page);
    return (int)FA_PLACE_UNIT(steps);
}

#if defined(FA_FAR_PAGES) || defined(FA_SCALES)
#define BY_PAGE true /* a pool that is too large for such numbers, or scales in pages: places are pages */
#else
#define BY_PAGE false
#endif

/* The words of core/portable/lookup.h. */
#define FA_LOOKUP work w, int id, int found[LOOKUPS],
#define FA_PLACES_GIVEN cursor all_keys, cursor all_values, __local int2 *to,
#define FA_CURSOR cursor
#define FA_BY_PAGE BY_PAGE
#define FA_DISTANCE_OF(c, at) \
    (int)(((long)(at).page * (c).page + (long)(at).within * (c).step) >> (31 - clz(unit_of(c))))
#define FA_PUT_PLACES(slot, k, v) to[slot] = (int2)(k, v)
#include "core/portable/lookup.h"

/* Where the row of a key lies that has a place. */
static inline long row_at_place(cursor c, int place, int key)
{
    return BY_PAGE ? row_on(c, place, key) : c.first + (long)place * unit_of(c);
}

static inline int place_in(places p, int slot, int key, int key_end)
{
    return p[2 * FA_MIN(slot, key_end - key - 1)];
}

/*
 * What is fetched of a key without a page is the pool's first row, and its score is NaN once it is made: to ask of each key as it
 * is fetched would take too long.
 */
static inline int known_place(places p, int slot, int key, int key_end)
{
    return FA_MAX(place_in(p, slot, key, key_end), 0);
}

static inline bool has_row(places p, int slot, int key, int key_end)
{
    return place_in(p, slot, key, key_end) >= 0;
}
#else
#define fa_look_up(w, id, found, key) ((void)(found))
#define fa_put_places(w, id, found, k, v, to, key) ((void)(found))
#define has_row(p, slot, key, key_end) true
#define known_place(p, slot, key, key_end) ((void)(p), 0)
#define row_at_place(c, place, key) ((void)(place), row_at(c, key))
#endif

/* Scores of the block's keys, without scale, one part from each work-item. */
#if BLOCKS_K
static void score_keys(cursor k, places p, int dim_qk, __local const float4 *q, int id, int key, int key_end,
                       __local float *parts)
{
    const int lane = id % SHARE, line = id / SHARE;
    FA_ROLLED
    for (int first = 0; first < KEYS && first * LINES_K < key_end - key; first += NEAR) {
        float s[NEAR][FA_BLOCK_Q];
        FA_UNROLL
        for (int n = 0; n < NEAR; n++) {
            FA_UNROLL
            for (int r = 0; r < FA_BLOCK_Q; r++)
                s[n][r] = 0.0f;
        }
        FA_ROLLED
        for (int d = lane * 32; d < FA_DIM_QK; d += SHARE * 32) {
            uint block[NEAR][FA_BLOCK_ROOM], place[NEAR];
            fa_block_scaling scales[NEAR];
            FA_UNROLL
            for (int n = 0; n < NEAR; n++) {
                const int slot = line + (first + n) * LINES_K;
                const long row = row_at_place(k, known_place(p, slot, key, key_end), FA_KEY_OF(slot, key, key_end));
                const long at = FA_BLOCK_AT(FA_TYPE_K, row, d);
                place[n] = (uint)at;
                block_fetch(FA_TYPE_K, k.m, at, dim_qk - d, block[n]);
            }
            FA_UNROLL
            for (int n = 0; n < NEAR; n++)
                scales[n] = fa_block_scaling_of(FA_BLOCK_BITS(block[n], 0, FA_SHIFT_OF(FA_TYPE_K, place[n])));
            FA_UNROLL
            for (int i = 0; i < 8; i++) {
                float4 four[FA_BLOCK_Q];
                FA_UNROLL
                for (int r = 0; r < FA_BLOCK_Q; r++)
                    four[r] = q[r * (DIM_Q / 4) + (d / 4 + TURNED(i, d))];
                FA_UNROLL
                for (int n = 0; n < NEAR; n++) {
                    float4 x = FA_BLOCK_FOUR(FA_TYPE_K, block[n], i, FA_SHIFT_OF(FA_TYPE_K, place[n]), scales[n]);
                    if (!WHOLE_QK && 4 * i >= dim_qk - d)
                        x = 0.0f;
                    FA_UNROLL
                    for (int r = 0; r < FA_BLOCK_Q; r++) {
                        s[n][r] += four[r].x * x.x;
                        s[n][r] += four[r].y * x.y;
                        s[n][r] += four[r].z * x.z;
                        s[n][r] += four[r].w * x.w;
                    }
                }
            }
        }
        FA_UNROLL
        for (int n = 0; n < NEAR; n++) {
            const int slot = line + (first + n) * LINES_K;
            const bool found = has_row(p, slot, key, key_end);
            FA_UNROLL
            for (int r = 0; r < FA_BLOCK_Q; r++) {
                if (slot < FA_BLOCK_KV)
                    parts[(lane * FA_BLOCK_Q + r) * FA_BLOCK_KV + slot] = found ? s[n][r] : NAN;
            }
        }
    }
}
#else
static void score_keys(cursor k, places p, int dim_qk, __local const float4 *q, int id, int key, int key_end,
                       __local float *parts)
{
    const int lane = id % FA_SPLIT, line = id / FA_SPLIT;
    FA_ROLLED
    for (int first = 0; first < KEYS && first * LINES_K < key_end - key; first += NEAR) {
        const int turns = TURNS(NEAR, key_end - key - first * LINES_K, LINES_K);
        float s[NEAR][FA_BLOCK_Q];
        int place[NEAR];
        FA_UNROLL
        for (int n = 0; n < turns; n++) {
            place[n] = known_place(p, line + (first + n) * LINES_K, key, key_end);
            FA_UNROLL
            for (int r = 0; r < FA_BLOCK_Q; r++)
                s[n][r] = 0.0f;
        }
        FA_UNROLL_BY(2)
        for (int c = 0; c < VECTORS_K; c++) {
            const int d = (c * FA_SPLIT + lane) * 8;
            FA_RAW8_K keys[NEAR];
            FA_UNROLL
            for (int n = 0; n < turns; n++) {
                const int j = FA_KEY_OF(line + (first + n) * LINES_K, key, key_end);
                keys[n] = FETCH8_K(k, row_at_place(k, place[n], j), place_found(k, place[n], j), d, dim_qk - d);
            }
            FA_UNROLL
            for (int n = 0; n < turns; n++) {
                const float8 x = WIDEN8_K(keys[n]);
                FA_UNROLL
                for (int r = 0; r < FA_BLOCK_Q; r++) {
                    const float8 eight = (float8)(q[(r * DIM_Q + d) / 4], q[(r * DIM_Q + d) / 4 + 1]);
                    s[n][r] = add_product(eight, x, s[n][r]);
                }
            }
        }
        FA_UNROLL
        for (int n = 0; n < turns; n++) {
            const int slot = line + (first + n) * LINES_K;
            const bool found = has_row(p, slot, key, key_end);
            FA_UNROLL
            for (int r = 0; r < FA_BLOCK_Q; r++) {
                if (KEYS % NEAR == 0 || slot < FA_BLOCK_KV)
                    parts[(lane * FA_BLOCK_Q + r) * FA_BLOCK_KV + slot] = found ? s[n][r] : NAN;
            }
        }
    }
}
#endif

/* The values of AHEAD keys. */
static void fetch_values(cursor v, places p, int dim_v, int id, int key, int key_end, int first,
                         FA_RAW8_V to[AHEAD][PIECES])
{
    const int lane = id % LANES_V;
    FA_UNROLL
    for (int a = 0; a < AHEAD; a++) {
        const int slot = first + id / LANES_V + a * LINES_V;
        const int place = known_place(p, slot, key, key_end), j = FA_KEY_OF(slot, key, key_end);
        const long at = row_at_place(v, place, j);
        FA_UNROLL
        for (int c = 0; c < PIECES; c++) {
            const int d = DIM_OF(lane, c * (PIECE / 8));
#if BLOCKS_V
            to[a][c] = 0;
            if (LANES_V * PIECE * PIECES == FA_DIM_V || d < dim_v)
                to[a][c] = fa_piece_fetch(v.m, FA_TYPE_V, PIECE, at, d);
#else
            to[a][c] = FETCH8_V(v, at, place_found(v, place, j), d, dim_v - d);
#endif
        }
    }
}

/* Number c of its octets. */
static inline float8 value_of(const FA_RAW8_V from[PIECES], int c)
{
#if BLOCKS_V
    const piece x = from[c / (PIECE / 8)];
    const int i = c % (PIECE / 8) * 2;
    const fa_block_scaling s = fa_piece_scaling(FA_TYPE_V, x);
    return (float8)(fa_piece_four(FA_TYPE_V, PIECE, x, i, s), fa_piece_four(FA_TYPE_V, PIECE, x, i + 1, s));
#else
    return WIDEN8_V(from[c]);
#endif
}

/* The weights of key number `slot` of a block, which lie beside each other. */
static inline void get_weights(__local const float *weights, int slot, float to[FA_BLOCK_Q])
{
#if FA_BLOCK_Q % 4 == 0
    FA_UNROLL
    for (int r = 0; r < FA_BLOCK_Q; r += 4) {
        const float4 four = *(__local const float4 *)(weights + slot * FA_BLOCK_Q + r);
        to[r] = four.x;
        to[r + 1] = four.y;
        to[r + 2] = four.z;
        to[r + 3] = four.w;
    }
#else
    FA_UNROLL
    for (int r = 0; r < FA_BLOCK_Q; r++)
        to[r] = weights[slot * FA_BLOCK_Q + r];
#endif
}

/* output += weight value for every row; of a value that may be hidden, where it is seen: it may be NaN or infinite. */
static inline void add_value(float8 value, const float weights[FA_BLOCK_Q], bool hides, int c,
                             float8 o[FA_BLOCK_Q][OCTETS])
{
    FA_UNROLL
    for (int r = 0; r < FA_BLOCK_Q; r++) {
        if (!hides || as_uint(weights[r]) != HIDDEN)
            o[r][c] += weights[r] * value;
    }
}

/* The keys of a work-item's line, from the block's first to its last. `hides` is constant: most blocks need no guard. */
static inline void add_values(cursor v, places p, int dim_v, int id, int key, int key_end,
                              __local const float *weights, const bool hides, FA_RAW8_V ahead[AHEAD][PIECES],
                              float8 o[FA_BLOCK_Q][OCTETS])
{
    const int line = id / LANES_V;
    FA_ROLLED
    for (int n = line; n < key_end - key; n += AHEAD * LINES_V) {
        FA_UNROLL
        for (int a = 0; a < AHEAD; a++) {
            const int at = n + a * LINES_V;
            if (at < key_end - key) {
                float weight[FA_BLOCK_Q];
                get_weights(weights, at, weight);
                FA_UNROLL
                for (int c = 0; c < OCTETS; c++)
                    add_value(value_of(ahead[a], c), weight, hides, c, o);
            }
        }
        if (n + AHEAD * LINES_V < key_end - key)
            fetch_values(v, p, dim_v, id, key, key_end, n - line + AHEAD * LINES_V, ahead);
    }
}

__kernel __attribute__((reqd_work_group_size(FA_GROUP, 1, 1))) void fa_rows(
    FA_TABLE, FA_MEMORY(q), FA_MEMORY(k), FA_MEMORY(v), FA_MEMORY(o),
    FA_MEMORY(bias), FA_MEMORY(keep), FA_MEMORY(page_table), FA_MEMORY(lse), FA_MEMORY(partial),
    long q_offset, long k_offset, long v_offset, long o_offset, long bias_offset, long keep_offset,
    long page_table_offset, long lse_offset, long partial_offset,
    long partial_state_offset FA_SCALE_PARAMETERS, __local float4 *room)
{
    __local float *rows = (__local float *)room, *parts = rows + ROOM_Q, *weights = parts + ROOM_PARTS;
    __local float *exchange = weights + ROOM_WEIGHTS, *maxima = exchange + FA_GROUP;
    __local int2 *places_at = (__local int2 *)(maxima + 8), *next_at = places_at + FA_BLOCK_KV;
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
    const int dim_qk = w.dim_qk, dim_v = w.dim_v;
    const cursor all_keys = FA_KEYS_OF(w, k, k_offset), all_values = FA_VALUES_OF(w, v, v_offset);
    const int id = work_item(), line = id / LANES_V, count = w.row_end - w.row_begin;

    for (int n = id; n < ROOM_Q; n += FA_GROUP) {
        int r = n / DIM_Q, d = n % DIM_Q;
        const fa_row at = fa_work_row(w, w.row_begin + r);
        const float x = d < dim_qk ? FA_CAT(load_, FA_TYPE_Q)(q, q_offset + FA_ROW_AT(w, q, at) + d) : 0.0f;
        rows[r * DIM_Q + d / 32 * 32 + TURNED(d % 32 / 4, d) * 4 + d % 4] = x;
    }
    int pages[LOOKUPS];
    int key = fa_work_next(w, FA_TRANSFORM, w.key_begin, FA_BLOCK_KV);
    if (PAGES && key < w.key_end) {
        fa_look_up(w, id, pages, key);
        fa_put_places(w, id, pages, all_keys, all_values, places_at, key);
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    /* The row that this work-item weighs, if any, and its share of the row's sum. */
    const int my_row = id / PER_ROW, my_lane = id % PER_ROW;
    const bool weighs = my_row < count && my_row < FA_BLOCK_Q;
    const fa_row mine = fa_work_row(w, w.row_begin + my_row);
    const float unit = w.p->score.unit;
    fa_state state = fa_state_empty();
    float max[FA_BLOCK_Q];
    float8 out[FA_BLOCK_Q][OCTETS];
    FA_UNROLL
    for (int r = 0; r < FA_BLOCK_Q; r++) {
        max[r] = FA_NEG_INF;
        FA_UNROLL
        for (int c = 0; c < OCTETS; c++)
            out[r][c] = 0.0f;
    }

    FA_ROLLED
    while (key < w.key_end) {
        const int key_end = FA_MIN(key + FA_BLOCK_KV, w.key_end);
        const int next_key = fa_work_next(w, FA_TRANSFORM, key + FA_BLOCK_KV, FA_BLOCK_KV);
        const int class = fa_work_class(w, key, key_end);
        const bool hides = class != FA_CLASS_FULL || fa_work_has(w, FA_TABLE_KEEP);
        if (PAGES && next_key < w.key_end)
            fa_look_up(w, id, pages, next_key);
        score_keys(all_keys, (places)places_at, dim_qk, (__local const float4 *)rows, id, key, key_end, parts);
        FA_RAW8_V ahead[AHEAD][PIECES];
        fetch_values(all_values, (places)places_at + 1, dim_v, id, key, key_end, 0, ahead);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (PAGES && next_key < w.key_end)
            fa_put_places(w, id, pages, all_keys, all_values, next_at, next_key);

        const int turns = TURNS(SCORES, key_end - key, PER_ROW);
        float s[SCORES], next = state.max;
        bool seen[SCORES];
        if (weighs) {
            FA_UNROLL
            for (int n = 0; n < turns; n++) {
                const int at = my_lane + n * PER_ROW, j = key + at;
                s[n] = FA_NEG_INF;
                seen[n] = at < FA_BLOCK_KV && j < key_end &&
                          (class == FA_CLASS_FULL || fa_work_sees(w, mine, j));
                if (FA_TRANSFORM && seen[n] && fa_work_has(w, FA_TABLE_KEEP))
                    seen[n] = fa_work_keeps(w, mine, j);
                if (seen[n]) {
                    float x = 0.0f;
                    FA_UNROLL
                    for (int l = 0; l < SHARE; l++)
                        x += parts[(l * FA_BLOCK_Q + my_row) * FA_BLOCK_KV + at];
                    s[n] = FA_TRANSFORM ? fa_work_score(w, mine, j, x) : x;
                }
                next = fmax(next, s[n]);
            }
        }
        if (FA_LANES_SHARE(PER_ROW)) {
            next = fa_lanes_max(next, PER_ROW);
        } else {
            exchange[id] = next;
            barrier(CLK_LOCAL_MEM_FENCE);
            if (weighs) {
                FA_UNROLL_BY(4)
                for (int n = 0; n < PER_ROW; n++)
                    next = fmax(next, exchange[my_row * PER_ROW + n]);
            }
        }
        if (weighs) {
            float total = 0.0f, base = fa_safe_max(next);
            FA_UNROLL
            for (int n = 0; n < turns; n++) {
                const int at = my_lane + n * PER_ROW;
                const float weight = seen[n] ? fa_weight(s[n], base, unit) : as_float(HIDDEN);
                total += weight;
                if (at < FA_BLOCK_KV)
                    weights[at * FA_BLOCK_Q + my_row] = weight;
            }
            state.sum = state.sum * fa_state_weight(state.max, next, unit) + total;
            state.max = next;
            if (my_lane == 0)
                maxima[my_row] = next;
        }
        barrier(CLK_LOCAL_MEM_FENCE);

        FA_UNROLL
        for (int r = 0; r < FA_BLOCK_Q; r++) {
            const float now = r < count ? maxima[r] : FA_NEG_INF, old = fa_state_weight(max[r], now, unit);
            max[r] = now;
            FA_UNROLL
            for (int c = 0; c < OCTETS; c++)
                out[r][c] *= old;
        }
        if (line < LINES_V && hides)
            add_values(all_values, (places)places_at + 1, dim_v, id, key, key_end, weights, true, ahead, out);
        else if (line < LINES_V)
            add_values(all_values, (places)places_at + 1, dim_v, id, key, key_end, weights, false, ahead, out);
        key = next_key;
        __local int2 *done = places_at;
        places_at = next_at;
        next_at = done;
    }

    barrier(CLK_LOCAL_MEM_FENCE);
    exchange[id] = state.sum;
    if (weighs && my_lane == 0)
        maxima[my_row] = state.max;
    FA_ROLLED
    for (int r = 0; r < count; r++) {
        const fa_row at = fa_work_row(w, w.row_begin + r);
        const long part = w.part_row + r;
        fa_state row = fa_state_empty();
        fa_closed closed;
        FA_UNROLL
        for (int c = 0; c < OCTETS; c++) {
            if (line < LINES_V)
                vstore8(out[0][c], id, parts);
            barrier(CLK_LOCAL_MEM_FENCE);
            if (c == 0) {
                row.max = maxima[r];
                for (int n = 0; n < PER_ROW; n++)
                    row.sum += exchange[r * PER_ROW + n];
                closed = fa_work_close(w, at, row, w.whole);
                if (id == 0 && !w.whole)
                    store_state(partial, partial_state_offset, part, row);
                if (id == 0 && w.whole && fa_work_has(w, FA_TABLE_LSE))
                    store_0(lse, lse_offset + FA_LSE_AT(w, at), closed.lse);
            }
            for (int n = id; n < LANES_V * 8; n += FA_GROUP) {
                const int d = DIM_OF(n / 8, c) + n % 8;
                float total = 0.0f;
                for (int l = 0; l < LINES_V; l++)
                    total += parts[l * LANES_V * 8 + n];
                if (d < dim_v && w.whole)
                    FA_CAT(store_, FA_TYPE_O)(o, o_offset + FA_ROW_AT(w, o, at) + d,
                                              fa_normalised(total, closed.factor));
                else if (d < dim_v)
                    store_0(partial, partial_offset + part * dim_v + d, fa_normalised(total, closed.factor));
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        FA_UNROLL
        for (int i = 0; i + 1 < FA_BLOCK_Q; i++) {
            FA_UNROLL
            for (int c = 0; c < OCTETS; c++)
                out[i][c] = out[i + 1][c];
        }
    }
}
