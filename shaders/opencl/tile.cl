/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in two levels of tiles. A work-group takes one item: FA_BLOCK_Q packed rows against the item's keys in
 * blocks of FA_BLOCK_KV. Work-item (x, y) holds a tile of FA_ROWS rows by KEYS keys of the scores, and of FA_ROWS
 * rows by DIMS dims of the output, in registers for good. Both products run through local memory in steps of FA_DEPTH:
 * dims of q and k for the scores, then keys of the weights and of v for the output. What a step needs is fetched
 * into registers while the step before it computes.
 *
 * The keys of a work-item are 4 x + e + 4 FA_LANES g, e < 4: vectors of four, interleaved. Every step of the second
 * product takes one key of each of FA_DEPTH work-items, so that all write weights at once.
 */
#include "product.cl"
#include "softmax.cl"

#define LINES (FA_BLOCK_Q / FA_ROWS)
#define GROUP (FA_LANES * LINES)
#define KEYS (FA_BLOCK_KV / FA_LANES)
#define DIMS (FA_DIM_V / FA_LANES)
#define WIDE (FA_BLOCK_KV > FA_DIM_V ? FA_BLOCK_KV : FA_DIM_V)
#define STEPS_V (FA_BLOCK_KV / FA_DEPTH)
#define PART 64 /* dims that a score is summed over at a time, where FA_IN_PARTS */
#ifdef FA_IN_PARTS
#define IN_PARTS true
#else
#define IN_PARTS false
#endif

/* Vectors of four that each work-item fetches for a step. */
#define FETCH_Q CEIL_DIV(FA_BLOCK_Q * (FA_DEPTH / 4), GROUP)
#define FETCH_K CEIL_DIV(FA_BLOCK_KV * (FA_DEPTH / 4), GROUP)
#define FETCH_V CEIL_DIV(FA_DEPTH * (FA_DIM_V / 4), GROUP)
#define FETCH (FETCH_Q + FETCH_K > FETCH_V ? FETCH_Q + FETCH_K : FETCH_V)

/* Lines of the stage, in floats: padded so that neither writing columns nor reading lines meets one bank twice. */
#define LINE_Q(d) ((d) * FA_BLOCK_Q + (d) / 4 * 8)
#define LINE_K(d) ((d) * FA_BLOCK_KV + (d) / 4 * 8)
#define LINE_P(t) ((t) * (FA_BLOCK_Q + 4))
#define LINE_V(t) ((t) * FA_DIM_V)
#define STAGE_ROWS LINE_P(FA_DEPTH)
#define STAGE_STEP (STAGE_ROWS + FA_DEPTH * (WIDE + 2))
#define STAGE (STAGE_STEP > LINE_P(FA_LANES) ? STAGE_STEP : LINE_P(FA_LANES))

/* How many elements there are from dim d on: told at compile time where all there is room for exist. */
#ifdef FA_WHOLE_QK
#define COUNT_QK(s, d) 4
#else
#define COUNT_QK(s, d) ((s)->dim_qk - (d))
#endif
#ifdef FA_WHOLE_V
#define COUNT_V(s, d) 4
#else
#define COUNT_V(s, d) ((s)->dim_v - (d))
#endif

/* Where the rows of this item come from. */
typedef struct source {
    memory q;
    cursor k, v;
    int dim_qk, dim_v;
} source;

/* Where the rows of q are that this work-item fetches from; those past the end are the last one again. */
static void find_rows(work w, long q_offset, int id, long at[FETCH_Q])
{
    FA_UNROLL
    for (int n = 0; n < FETCH_Q; n++) {
        const fa_row row = fa_work_row(w, w.row_begin + (id + n * GROUP) / (FA_DEPTH / 4));
        at[n] = (q_offset + FA_ROW_AT(w, q, row)) * FA_TYPE_BYTES(FA_TYPE_Q);
    }
}

static void fetch_q(const source *s, const long row[FETCH_Q], int id, int dim, raw to[FETCH])
{
    FA_UNROLL
    for (int n = 0; n < FETCH_Q; n++) {
        int d = dim + (id + n * GROUP) % (FA_DEPTH / 4) * 4;
        to[n] = FA_CAT(fetch4_, FA_TYPE_Q)(s->q, row[n], d, COUNT_QK(s, d));
    }
}

/* Where the row of k is that this work-item fetches from. Keys past the end are the last one again: their scores are
 * hidden, their weights 0. */
static inline int key_k(int id, int n, int key, int key_end)
{
    return FA_MIN(key + (id + n * GROUP) / (FA_DEPTH / 4), key_end - 1);
}

static inline long row_k(const source *s, int id, int n, int key, int key_end)
{
    return row_at(s->k, key_k(id, n, key, key_end));
}

/* In pages, a block's rows are found once, and before they are fetched. */
static void find_k(const source *s, int id, int key, int key_end, long row[FETCH_K])
{
    FA_UNROLL
    for (int n = 0; n < FETCH_K; n++)
        row[n] = row_k(s, id, n, key, key_end);
}

static void fetch_k(const source *s, const long row[FETCH_K], int id, int key, int key_end, int dim, raw to[FETCH])
{
    FA_UNROLL
    for (int n = 0; n < FETCH_K; n++) {
        const long first = PAGES ? row[n] : row_k(s, id, n, key, key_end);
        int d = dim + (id + n * GROUP) % (FA_DEPTH / 4) * 4;
        to[FETCH_Q + n] = FETCH4_K(s->k, first, key_k(id, n, key, key_end), d, count_at(first, COUNT_QK(s, d)));
        if (PAGES && first < 0)
            to[FETCH_Q + n] = ~(raw)0;
    }
}

/* The key, from the block's first, whose weight is number `slot` of a step. */
static inline int key_of(int step, int slot)
{
    int at = step * FA_DEPTH + slot, group = at / FA_LANES, x = at % FA_LANES;
    return group / 4 * (4 * FA_LANES) + x * 4 + group % 4;
}

static inline int key_v(int id, int n, int key, int key_end, int step)
{
    return FA_MIN(key + key_of(step, (id + n * GROUP) / (FA_DIM_V / 4)), key_end - 1);
}

static inline long row_v(const source *s, int id, int n, int key, int key_end, int step)
{
    return row_at(s->v, key_v(id, n, key, key_end, step));
}

/* In pages, the rows of a step are found while the step before it is fetched. */
static void find_v(const source *s, int id, int key, int key_end, int step, long row[FETCH_V])
{
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++)
        row[n] = row_v(s, id, n, key, key_end, step);
}

static void fetch_v(const source *s, const long row[FETCH_V], int id, int key, int key_end, int step, raw to[FETCH])
{
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++) {
        const long first = PAGES ? row[n] : row_v(s, id, n, key, key_end, step);
        int d = (id + n * GROUP) % (FA_DIM_V / 4) * 4;
        to[n] = FETCH4_V(s->v, first, key_v(id, n, key, key_end, step), d, count_at(first, COUNT_V(s, d)));
    }
}

static void put_qk(__local float *stage, int id, const raw from[FETCH])
{
    FA_UNROLL
    for (int n = 0; n < FETCH_Q; n++) {
        int at = id + n * GROUP, row = at / (FA_DEPTH / 4), d = at % (FA_DEPTH / 4) * 4;
        if (FA_BLOCK_Q * (FA_DEPTH / 4) % GROUP == 0 || row < FA_BLOCK_Q)
            put_column(stage + LINE_Q(d) + row, FA_BLOCK_Q, FA_CAT(widen_, FA_TYPE_Q)(from[n]));
    }
    FA_UNROLL
    for (int n = 0; n < FETCH_K; n++) {
        int at = id + n * GROUP, key = at / (FA_DEPTH / 4), d = at % (FA_DEPTH / 4) * 4;
        if (FA_BLOCK_KV * (FA_DEPTH / 4) % GROUP == 0 || key < FA_BLOCK_KV)
            put_column(stage + STAGE_ROWS + LINE_K(d) + key, FA_BLOCK_KV, WIDEN4_K(from[FETCH_Q + n]));
    }
}

static bool is_finite(const raw v[FETCH])
{
    int4 odd = 0;
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++)
        odd |= not_finite4(WIDEN4_V(v[n]));
    return !any(odd);
}

static void put_v(__local float *stage, int id, const raw v[FETCH])
{
    __local float4 *to = (__local float4 *)(stage + STAGE_ROWS);
    FA_UNROLL
    for (int n = 0; n < FETCH_V; n++) {
        int at = id + n * GROUP;
        if (FA_DEPTH * (FA_DIM_V / 4) % GROUP == 0 || at < FA_DEPTH * (FA_DIM_V / 4))
            to[at] = WIDEN4_V(v[n]);
    }
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

/* Row 0 goes last and the others move up. Registers have no index: what is long and seldom treats row 0, in turns. */
static inline void turn_rows(float rows[FA_ROWS][DIMS])
{
    FA_UNROLL
    for (int g = 0; g < DIMS; g++) {
        float first = rows[0][g];
        FA_UNROLL
        for (int i = 0; i + 1 < FA_ROWS; i++)
            rows[i][g] = rows[i + 1][g];
        rows[FA_ROWS - 1][g] = first;
    }
}

/*
 * multiply_pv() where a hidden value may not be finite: it is 0 for the rows that do not see it, whose sums are then the
 * same to the last bit as if it were finite.
 */
static void multiply_guarded(__local const float *stage, int x, int y, float o[FA_ROWS][DIMS], work w, int key,
                             int step)
{
    __local const float *a = stage + y * FA_ROWS, *b = stage + STAGE_ROWS + 4 * x;
    FA_ROLLED
    for (int turn = 0; turn < FA_ROWS; turn++) {
        const fa_row q = fa_work_row(w, w.row_begin + y * FA_ROWS + turn);
        FA_ROLLED
        for (int t = 0; t < FA_DEPTH; t++) {
            const bool visible = fa_work_shows(w, q, key + key_of(step, t));
            float weight = a[LINE_P(t) + turn];
            FA_UNROLL
            for (int g = 0; g < DIMS; g++) {
                const float value = b[LINE_V(t) + g / 4 * 4 * FA_LANES + g % 4];
                o[0][g] += weight * (visible || fa_is_finite(value) ? value : 0.0f);
            }
        }
        turn_rows(o);
    }
}

/* The weights of one step: of each work-item in its turn, the keys that key_of() names. */
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

/*
 * Scores that the mask cuts, or that a description transforms, row by row in turns.
 */
static void mask_scores(work w, int x, int y, int key, int key_end, bool masked, float s[FA_ROWS][KEYS])
{
    FA_ROLLED
    for (int turn = 0; turn < FA_ROWS; turn++) {
        const fa_row q = fa_work_row(w, w.row_begin + y * FA_ROWS + turn);
        float row[KEYS];
        FA_UNROLL
        for (int g = 0; g < KEYS; g++) {
            int j = key + g / 4 * 4 * FA_LANES + 4 * x + g % 4;
            row[g] = s[0][g];
            if (j >= key_end || (masked && !fa_row_sees(q, w.walk.mask, j)))
                row[g] = FA_NEG_INF;
            else if (FA_TRANSFORM)
                row[g] = fa_work_score(w, q, j, row[g]);
        }
        FA_UNROLL
        for (int i = 0; i + 1 < FA_ROWS; i++) {
            FA_UNROLL
            for (int g = 0; g < KEYS; g++)
                s[i][g] = s[i + 1][g];
        }
        FA_UNROLL
        for (int g = 0; g < KEYS; g++)
            s[FA_ROWS - 1][g] = row[g];
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

/* The stage to write next: the other one, which all have done with since the last barrier, or the only one. */
static inline int turn_stage(int stage)
{
#if FA_BUFFERS == 1
    barrier(CLK_LOCAL_MEM_FENCE);
    return stage;
#else
    return stage ^ 1;
#endif
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void fa_tile(
    FA_TABLE, FA_MEMORY(q), FA_MEMORY(k), FA_MEMORY(v), FA_MEMORY(o),
    FA_MEMORY(bias), FA_MEMORY(keep), FA_MEMORY(page_table), FA_MEMORY(lse), FA_MEMORY(partial),
    long q_offset, long k_offset, long v_offset, long o_offset, long bias_offset, long keep_offset,
    long page_table_offset, long lse_offset, long partial_offset,
    long partial_state_offset FA_SCALE_PARAMETERS, __local float4 *room)
{
    __local float *stages = (__local float *)(room + 1);
    __local int *unsafe = (__local int *)room; /* some value that may be hidden is not finite */
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
    const work w = work_with(table, get_group_id(0), bias, bias_offset, keep, keep_offset, page_table, page_table_offset);
    const source src = {q, FA_KEYS_OF(w, k, k_offset), FA_VALUES_OF(w, v, v_offset), w.dim_qk, w.dim_v};

    const int id = work_item(), x = id % FA_LANES, y = id / FA_LANES;
    float out[FA_ROWS][DIMS], max[FA_ROWS], sum[FA_ROWS];
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        max[i] = FA_NEG_INF;
        sum[i] = 0.0f;
        FA_UNROLL
        for (int g = 0; g < DIMS; g++)
            out[i][g] = 0.0f;
    }
    if (id == 0)
        *unsafe = 0;

    int stage = 0;
    raw fetched[FETCH];
    long rows_q[FETCH_Q], rows_k[FETCH_K], rows_v[FETCH_V];
    find_rows(w, q_offset, id, rows_q);
    int key = fa_work_next(w, FA_TRANSFORM, w.key_begin, FA_BLOCK_KV);
    if (key < w.key_end) {
        if (PAGES)
            find_k(&src, id, key, w.key_end, rows_k);
        fetch_q(&src, rows_q, id, 0, fetched);
        fetch_k(&src, rows_k, id, key, w.key_end, 0, fetched);
    }
    while (key < w.key_end) {
        const int key_end = FA_MIN(key + FA_BLOCK_KV, w.key_end);
        float s[FA_ROWS][KEYS], aside[FA_ROWS][KEYS];
        FA_UNROLL
        for (int i = 0; i < FA_ROWS; i++) {
            FA_UNROLL
            for (int g = 0; g < KEYS; g++)
                s[i][g] = aside[i][g] = 0.0f;
        }
        if (PAGES)
            find_v(&src, id, key, key_end, 0, rows_v);
        FA_ROLLED
        for (int d = 0; d < src.dim_qk; d += FA_DEPTH) {
            __local float *now = stages + stage * STAGE;
            put_qk(now, id, fetched);
            barrier(CLK_LOCAL_MEM_FENCE);
            if (d + FA_DEPTH < src.dim_qk) {
                fetch_q(&src, rows_q, id, d + FA_DEPTH, fetched);
                fetch_k(&src, rows_k, id, key, key_end, d + FA_DEPTH, fetched);
            } else {
                fetch_v(&src, rows_v, id, key, key_end, 0, fetched);
            }
            multiply_qk(now, x, y, s);
            if (IN_PARTS && (d + FA_DEPTH) % PART == 0 && d + FA_DEPTH < src.dim_qk)
                set_aside(s, aside);
            stage = turn_stage(stage);
        }
        if (IN_PARTS)
            set_aside(aside, s);

        const bool masked = fa_walk_class(w.walk, key, key_end) == FA_CLASS_PARTIAL;
        const bool hides = masked || key_end < key + FA_BLOCK_KV || fa_work_has(w, FA_TABLE_KEEP);
        if (FA_TRANSFORM || masked || key_end < key + FA_BLOCK_KV)
            mask_scores(w, x, y, key, key_end, masked, s);
        softmax_step(stages + stage * STAGE, x, y, w.p->score.unit, s, out, max, sum);
        if (!FA_LANES_SHARE(FA_LANES))
            stage = turn_stage(stage);

        const int next = fa_work_next(w, FA_TRANSFORM, key + FA_BLOCK_KV, FA_BLOCK_KV);
        if (PAGES && next < w.key_end)
            find_k(&src, id, next, FA_MIN(next + FA_BLOCK_KV, w.key_end), rows_k);
        if (PAGES && STEPS_V > 1)
            find_v(&src, id, key, key_end, 1, rows_v);
        FA_ROLLED
        for (int step = 0; step < STEPS_V; step++) {
            __local float *now = stages + stage * STAGE;
            put_weights(now, x, y, step, s);
            put_v(now, id, fetched);
            if (hides && !is_finite(fetched))
                *unsafe = 1;
            barrier(CLK_LOCAL_MEM_FENCE);
            if (step + 1 < STEPS_V) {
                fetch_v(&src, rows_v, id, key, key_end, step + 1, fetched);
                if (PAGES && step + 2 < STEPS_V)
                    find_v(&src, id, key, key_end, step + 2, rows_v);
            } else if (next < w.key_end) {
                fetch_q(&src, rows_q, id, 0, fetched);
                fetch_k(&src, rows_k, id, next, FA_MIN(next + FA_BLOCK_KV, w.key_end), 0, fetched);
            }
            if (hides && *unsafe)
                multiply_guarded(now, x, y, out, w, key, step);
            else
                multiply_pv(now, x, y, out);
            stage = turn_stage(stage);
        }
        key = next;
    }

    barrier(CLK_LOCAL_MEM_FENCE);
    exchange_rows(stages, x, y, true, sum);
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
            const int d = 4 * x + g * FA_LANES, count = at.exists ? src.dim_v - d : 0;
            const float4 result = fa_normalised4((float4)(out[0][g], out[0][g + 1], out[0][g + 2], out[0][g + 3]), closed.factor);
            if (w.whole)
                FA_CAT(store4_, FA_TYPE_O)(o, o_offset + FA_ROW_AT(w, o, at) + d, count, result);
            else
                store4_0(partial, partial_offset + part * src.dim_v + d, count, result);
        }
        turn_rows(out);
        FA_UNROLL
        for (int i = 0; i + 1 < FA_ROWS; i++) {
            max[i] = max[i + 1];
            sum[i] = sum[i + 1];
        }
    }
}
