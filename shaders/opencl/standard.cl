/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Standard attention", the yardstick: a matrix product that leaves all scores in scratch memory, softmax over its
 * rows in place, and a second product. Three kernels, of which FA_SCORES, FA_SOFTMAX or FA_OUTPUT says which.
 *
 * A launch covers `rows` packed rows from row_begin on of each of some items, from item `first` on. In scratch memory
 * they lie one after the other, STRIDE(keys) floats each, and beside them one factor for each row. Weights are not
 * normalised before the second product, which multiplies its result by the row's factor instead. A hidden weight is
 * -0, so that it can be told from one that vanished: only the latter may meet a value that is not finite.
 */
#include "product.cl"
#include "softmax.cl"

#define STRIDE(keys) (((keys) + 3) / 4 * 4)
#define HIDDEN (-0.0f)
#ifdef FA_HIDES
#define HIDES true
#else
#define HIDES false
#endif

#ifdef FA_SOFTMAX

/* The greatest of all work-items' values, or their sum. */
static float reduce(__local float *room, int id, bool add, float x)
{
    room[id] = x;
    barrier(CLK_LOCAL_MEM_FENCE);
    FA_ROLLED
    for (int half_way = FA_GROUP / 2; half_way > 0; half_way /= 2) {
        if (id < half_way)
            room[id] = add ? room[id] + room[id + half_way] : fmax(room[id], room[id + half_way]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    x = room[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return x;
}

/* Which of four keys the row sees: -1 or 0, as select() takes them. */
static inline int4 seen4(fa_row at, int prefix, int keys, int key)
{
    const int4 j = key + (int4)(0, 1, 2, 3);
    const int4 exists = j < (int4)keys;
    return HIDES ? exists & ((j < (int4)prefix) | ((j >= (int4)at.begin) & (j < (int4)at.end))) : exists;
}

/* A work-group for each row. */
__kernel __attribute__((reqd_work_group_size(FA_GROUP, 1, 1))) void fa_standard_softmax(
    __global const uchar *restrict table, FA_MEMORY(lse), FA_MEMORY(scratch), long lse_offset, long scores_offset,
    long factors_offset, int first, int row_begin, int rows, int keys)
{
    __local float room[FA_GROUP];
    FA_GATHER(lse);
    FA_GATHER(scratch);
    __global const fa_table_params *p = (__global const fa_table_params *)table;
    const int id = get_local_id(0), n = get_group_id(0), part = n / rows;
    const fa_table_item item = ((__global const fa_table_item *)table)[p->items_at + first + part];
    __global const fa_table_sequence *sequence =
        (__global const fa_table_sequence *)table + p->sequences_at + item.sequence;
    const fa_mask mask = sequence->mask;
    const fa_row at = fa_row_of(mask, p->group, item.head_kv, row_begin + n - part * rows, item.row_end);
    __global float4 *row = (__global float4 *)memory_at(scratch, (scores_offset + (long)n * STRIDE(keys)) * 4);

    fa_state state;
    float4 max = FA_NEG_INF, sum = 0.0f;
    for (int key = id * 4; key < keys; key += FA_GROUP * 4)
        max = fmax(max, select((float4)FA_NEG_INF, row[key / 4], seen4(at, mask.prefix, keys, key)));
    state.max = reduce(room, id, false, fmax(fmax(max.x, max.y), fmax(max.z, max.w)));
    for (int key = id * 4; key < keys; key += FA_GROUP * 4) {
        const int4 seen = seen4(at, mask.prefix, keys, key);
        const float4 weight = FA_EXP2((row[key / 4] - fa_safe_max(state.max)) * p->score.unit);
        row[key / 4] = select((float4)HIDDEN, weight, seen);
        sum += select((float4)0.0f, weight, seen);
    }
    state.sum = reduce(room, id, true, sum.x + sum.y + (sum.z + sum.w));

    if (id == 0) {
        const fa_closed closed = fa_state_close(state, p->score.natural, FA_NEG_INF);
        store_0(scratch, factors_offset + n, closed.factor);
        if (p->flags & FA_TABLE_LSE)
            store_0(lse, lse_offset + sequence->lse_at + (long)at.head * p->lse_rows + at.position, closed.lse);
    }
}

#else

/* Both products: a work-group makes one tile, TILE_ROWS by TILE_COLS, in steps of FA_DEPTH terms. */
#define LINES (FA_GROUP / FA_LANES)
#define TILE_ROWS (LINES * FA_ROWS)
#define TILE_COLS (FA_LANES * FA_COLS)
#define LINE_A(t) ((t) * TILE_ROWS + (t) / 4 * 16)
#define LINE_B(t) ((t) * TILE_COLS + (t) / 4 * 16)
#define STAGE_B LINE_A(FA_DEPTH)
#define STAGE (STAGE_B + LINE_B(FA_DEPTH))

/* Vectors of four that each work-item fetches for a step. */
#define VECTORS_A (TILE_ROWS * (FA_DEPTH / 4))
#define VECTORS_B (TILE_COLS * (FA_DEPTH / 4))
#define FETCH_A CEIL_DIV(VECTORS_A, FA_GROUP)
#define FETCH_B CEIL_DIV(VECTORS_B, FA_GROUP)

FA_PRODUCT(multiply, LINE_A, STAGE_B, LINE_B, FA_COLS)

/* The tile that a work-group makes. */
typedef struct tile {
    int part;     /* the item, from the launch's first */
    int row, col; /* its first ones; rows from the launch's first */
} tile;

static inline tile tile_of(int rows, int cols)
{
    const int across = CEIL_DIV(cols, TILE_COLS), down = CEIL_DIV(rows, TILE_ROWS);
    const int n = get_group_id(0), line = n / across;
    const tile t = {line / down, line % down * TILE_ROWS, (n - line * across) * TILE_COLS};
    return t;
}

static inline void clear(float sum[FA_ROWS][FA_COLS])
{
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        FA_UNROLL
        for (int g = 0; g < FA_COLS; g++)
            sum[i][g] = 0.0f;
    }
}

/* Vectors along rows of an operand become columns of the stage. */
#define PUT_COLUMNS(stage, line, width, vectors, count, value)                                         \
    FA_UNROLL                                                                                          \
    for (int n = 0; n < count; n++) {                                                                  \
        const int vector = id + n * FA_GROUP, t = vector % (FA_DEPTH / 4) * 4;                         \
        if (vectors % FA_GROUP == 0 || vector < vectors)                                               \
            put_column((stage) + line(t) + vector / (FA_DEPTH / 4), width, value);                     \
    }

#ifdef FA_SCORES

/* Vectors of rows of q or k, which begin at byte at[n], from dim d on. */
#define FETCH_DIMS(type, m, at, vectors, count, to)                                                    \
    FA_UNROLL                                                                                          \
    for (int n = 0; n < count; n++) {                                                                  \
        const int vector = id + n * FA_GROUP, dim = d + vector % (FA_DEPTH / 4) * 4;                   \
        to[n] = FA_CAT(fetch4_, type)(m, at[n] + dim * FA_BYTES(type),                                 \
                                      vector < vectors ? p->dim_qk - dim : 0);                         \
    }

__kernel __attribute__((reqd_work_group_size(FA_GROUP, 1, 1))) void fa_standard_scores(
    __global const uchar *restrict table, FA_MEMORY(q), FA_MEMORY(k), FA_MEMORY(scratch), long q_offset,
    long k_offset, long scores_offset, int first, int row_begin, int rows, int keys)
{
    __local float4 room[2 * STAGE / 4];
    FA_GATHER(q);
    FA_GATHER(k);
    FA_GATHER(scratch);
    __global const fa_table_params *p = (__global const fa_table_params *)table;
    const int id = get_local_id(0), x = id % FA_LANES, y = id / FA_LANES;
    const tile here = tile_of(rows, keys);
    const fa_table_item item = ((__global const fa_table_item *)table)[p->items_at + first + here.part];
    __global const fa_table_sequence *sequence =
        (__global const fa_table_sequence *)table + p->sequences_at + item.sequence;

    /* Rows and keys past the end are the last one again. */
    long rows_at[FETCH_A], keys_at[FETCH_B];
    FA_UNROLL
    for (int n = 0; n < FETCH_A; n++) {
        const int r = FA_MIN(here.row + (id + n * FA_GROUP) / (FA_DEPTH / 4), rows - 1);
        const fa_row at = fa_row_of(sequence->mask, p->group, item.head_kv, row_begin + r, item.row_end);
        rows_at[n] = (q_offset + sequence->q_at + at.head * p->q_stride[1] + at.position * p->q_stride[2]) *
                     FA_BYTES(FA_TYPE_Q);
    }
    FA_UNROLL
    for (int n = 0; n < FETCH_B; n++) {
        const int j = FA_MIN(here.col + (id + n * FA_GROUP) / (FA_DEPTH / 4), keys - 1);
        keys_at[n] = (k_offset + sequence->k_at + item.head_kv * p->k_stride[1] + j * p->k_stride[2]) *
                     FA_BYTES(FA_TYPE_K);
    }

    float sum[FA_ROWS][FA_COLS];
    raw a[FETCH_A], b[FETCH_B];
    int stage = 0, d = 0;
    clear(sum);
    FETCH_DIMS(FA_TYPE_Q, q, rows_at, VECTORS_A, FETCH_A, a)
    FETCH_DIMS(FA_TYPE_K, k, keys_at, VECTORS_B, FETCH_B, b)
    while (d < p->dim_qk) {
        __local float *now = (__local float *)room + stage * STAGE;
        PUT_COLUMNS(now, LINE_A, TILE_ROWS, VECTORS_A, FETCH_A, FA_CAT(widen_, FA_TYPE_Q)(a[n]))
        PUT_COLUMNS(now + STAGE_B, LINE_B, TILE_COLS, VECTORS_B, FETCH_B, FA_CAT(widen_, FA_TYPE_K)(b[n]))
        barrier(CLK_LOCAL_MEM_FENCE);
        d += FA_DEPTH;
        if (d < p->dim_qk) {
            FETCH_DIMS(FA_TYPE_Q, q, rows_at, VECTORS_A, FETCH_A, a)
            FETCH_DIMS(FA_TYPE_K, k, keys_at, VECTORS_B, FETCH_B, b)
        }
        multiply(now, x, y, sum);
        stage ^= 1;
    }

    const float scale = p->score.transforms ? p->score.scale : 1.0f;
    const float rest = p->score.transforms ? p->score.scale_rest : 1.0f;
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        const int r = here.row + y * FA_ROWS + i;
        const long at = scores_offset + ((long)here.part * rows + r) * STRIDE(keys);
        FA_UNROLL
        for (int g = 0; g < FA_COLS; g += 4) {
            const int j = here.col + 4 * x + g * FA_LANES;
            if (r < rows && j < keys)
                *(__global float4 *)memory_at(scratch, (at + j) * 4) =
                    (float4)(sum[i][g], sum[i][g + 1], sum[i][g + 2], sum[i][g + 3]) * scale * rest;
        }
    }
}

#else

/* multiply() where a hidden value may not be finite: it is 0 for the rows that do not see it. */
static void multiply_guarded(__local const float *stage, int x, int y, float sum[FA_ROWS][FA_COLS])
{
    __local const float *a = stage + y * FA_ROWS, *b = stage + STAGE_B + 4 * x;
    FA_ROLLED
    for (int t = 0; t < FA_DEPTH; t++) {
        float rows[FA_ROWS];
        get_rows(a + LINE_A(t), rows);
        FA_UNROLL
        for (int i = 0; i < FA_ROWS; i++) {
            const bool hidden = as_uint(rows[i]) == as_uint(HIDDEN);
            FA_UNROLL
            for (int g = 0; g < FA_COLS; g++) {
                const float value = b[LINE_B(t) + g / 4 * 4 * FA_LANES + g % 4];
                sum[i][g] += rows[i] * (hidden && !fa_is_finite(value) ? 0.0f : value);
            }
        }
    }
}

/* Vectors of the weights of rows that are at[n] floats into scratch, and of the values of keys from `key` on. */
#define FETCH_WEIGHTS()                                                                                \
    FA_UNROLL                                                                                          \
    for (int n = 0; n < FETCH_A; n++) {                                                                \
        const int vector = id + n * FA_GROUP, j = key + vector % (FA_DEPTH / 4) * 4;                   \
        a[n] = 0.0f;                                                                                   \
        if (vector < VECTORS_A && j < keys)                                                            \
            a[n] = *(__global const float4 *)memory_at(scratch, (rows_at[n] + j) * 4);                 \
    }
#define FETCH_VALUES()                                                                                 \
    FA_UNROLL                                                                                          \
    for (int n = 0; n < FETCH_B; n++) {                                                                \
        const int at = id + n * FA_GROUP, j = key + at / (TILE_COLS / 4);                              \
        const int d = here.col + at % (TILE_COLS / 4) * 4;                                             \
        b[n] = FA_CAT(fetch4_, FA_TYPE_V)(v, (v_at + j * p->v_stride[2] + d) * FA_BYTES(FA_TYPE_V),    \
                                          at < VECTORS_B && j < keys ? p->dim_v - d : 0);              \
    }

__kernel __attribute__((reqd_work_group_size(FA_GROUP, 1, 1))) void fa_standard_output(
    __global const uchar *restrict table, FA_MEMORY(v), FA_MEMORY(o), FA_MEMORY(scratch), long v_offset,
    long o_offset, long scores_offset, long factors_offset, int first, int row_begin, int rows, int keys)
{
    __local float4 room[2 * STAGE / 4];
    __local int unsafe; /* some value is not finite */
    FA_GATHER(v);
    FA_GATHER(o);
    FA_GATHER(scratch);
    __global const fa_table_params *p = (__global const fa_table_params *)table;
    const int id = get_local_id(0), x = id % FA_LANES, y = id / FA_LANES;
    const tile here = tile_of(rows, p->dim_v);
    const fa_table_item item = ((__global const fa_table_item *)table)[p->items_at + first + here.part];
    __global const fa_table_sequence *sequence =
        (__global const fa_table_sequence *)table + p->sequences_at + item.sequence;
    const long v_at = v_offset + sequence->v_at + item.head_kv * p->v_stride[1];

    long rows_at[FETCH_A];
    FA_UNROLL
    for (int n = 0; n < FETCH_A; n++) {
        const int r = FA_MIN(here.row + (id + n * FA_GROUP) / (FA_DEPTH / 4), rows - 1);
        rows_at[n] = scores_offset + ((long)here.part * rows + r) * STRIDE(keys);
    }

    float sum[FA_ROWS][FA_COLS];
    float4 a[FETCH_A];
    raw b[FETCH_B];
    int stage = 0, key = 0;
    clear(sum);
    if (id == 0)
        unsafe = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    FETCH_WEIGHTS()
    FETCH_VALUES()
    while (key < keys) {
        __local float *now = (__local float *)room + stage * STAGE;
        int4 odd = 0;
        PUT_COLUMNS(now, LINE_A, TILE_ROWS, VECTORS_A, FETCH_A, a[n])
        FA_UNROLL
        for (int n = 0; n < FETCH_B; n++) {
            const int at = id + n * FA_GROUP, t = at / (TILE_COLS / 4), c = at % (TILE_COLS / 4) * 4;
            const float4 value = FA_CAT(widen_, FA_TYPE_V)(b[n]);
            odd |= not_finite4(value);
            if (VECTORS_B % FA_GROUP == 0 || at < VECTORS_B)
                *(__local float4 *)(now + STAGE_B + LINE_B(t) + c) = value;
        }
        if (HIDES && any(odd))
            unsafe = 1;
        barrier(CLK_LOCAL_MEM_FENCE);
        key += FA_DEPTH;
        if (key < keys) {
            FETCH_WEIGHTS()
            FETCH_VALUES()
        }
        if (unsafe)
            multiply_guarded(now, x, y, sum);
        else
            multiply(now, x, y, sum);
        stage ^= 1;
    }

    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++) {
        const int r = here.row + y * FA_ROWS + i;
        const fa_row at = fa_row_of(sequence->mask, p->group, item.head_kv, row_begin + r, item.row_end);
        const long o_at = o_offset + sequence->o_at + at.head * p->o_stride[1] + at.position * p->o_stride[2];
        const float factor = r < rows ? load_0(scratch, factors_offset + here.part * rows + r) : 0.0f;
        FA_UNROLL
        for (int g = 0; g < FA_COLS; g += 4) {
            const int d = here.col + 4 * x + g * FA_LANES;
            FA_CAT(store4_, FA_TYPE_O)(o, o_at + d, r < rows ? p->dim_v - d : 0,
                                       normalised((float4)(sum[i][g], sum[i][g + 1], sum[i][g + 2], sum[i][g + 3]), factor));
        }
    }
}

#endif
#endif
