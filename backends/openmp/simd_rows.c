/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of few query rows, as in decoding, where reading K and V is the cost: head dims are lanes, and each
 * key and value is loaded and converted once for a group of ROWS query rows. Keys in pages are told by lists of where
 * their rows begin. What is inlined with `listed` reads such a list; without, it counts from row to row.
 */
#include <float.h>
#include <string.h>

#include "simd/panel.h"

enum {
    ROWS = 4,         /* query rows that share a load          */
    KEYS = 4,         /* keys of a score micro-kernel, or 1    */
    VALUE_VECS = 4,   /* vectors of output of a value micro-kernel */
    CHUNK = 32,       /* keys made f32 at a time               */
    FEW = 16,         /* likewise, where they are read once: memory has work while these are multiplied */
    FAR_BYTES = 8192, /* of rows, between what is read in place and what is loaded ahead */
    AHEAD = 64,       /* rows in a list behind the last of a block: more than are loaded ahead */
};

typedef struct rows_scratch {
    float *q, *o, *s; /* rows x q_stride, rows x o_stride, rows x s_stride */
    float *part;      /* what a block of keys adds to o                    */
    float *max, *sum; /* rows                                              */
    float *factor;    /* of o, as it meets what a block adds               */
    float *kv;        /* a chunk of keys or values as f32                  */
    ptrdiff_t kv_stride;
    int64_t *k_list, *v_list,
        *kv_list; /* of keys in pages: where the rows of a block begin, and those of kv */
    int q_stride, o_stride, s_stride;
    size_t bytes;
} rows_scratch;

static int round_lanes(int n)
{
    return (n + VL - 1) / VL * VL;
}

static int64_t *take_list(void *memory, size_t *used, size_t rows)
{
    return (int64_t *)(void *)take_scratch(memory, used, rows * (sizeof(int64_t) / sizeof(float)));
}

static rows_scratch lay_out(const fa_plan *plan, void *memory)
{
    const fa_args *a = &plan->args;
    size_t rows = (size_t)a->block_q;
    rows_scratch s = {.q_stride = round_lanes(a->dim_qk),
                      .o_stride = round_lanes(a->dim_v),
                      .s_stride = round_lanes(a->block_kv)};
    s.q = take_scratch(memory, &s.bytes, rows * (size_t)s.q_stride);
    s.o = take_scratch(memory, &s.bytes, rows * (size_t)s.o_stride);
    s.part = take_scratch(memory, &s.bytes, rows * (size_t)s.o_stride);
    s.s = take_scratch(memory, &s.bytes, rows * (size_t)s.s_stride);
    s.max = take_scratch(memory, &s.bytes, rows);
    s.sum = take_scratch(memory, &s.bytes, rows);
    s.factor = take_scratch(memory, &s.bytes, rows);
    s.kv_stride = FA_MAX(s.q_stride, s.o_stride) + VL;
    s.kv = take_scratch(memory, &s.bytes, CHUNK * (size_t)s.kv_stride);
    if (plan->problem.features & FA_FEATURE_PAGES) {
        s.k_list = take_list(memory, &s.bytes, (size_t)a->block_kv + AHEAD);
        s.v_list = take_list(memory, &s.bytes, (size_t)a->block_kv + AHEAD);
        s.kv_list = take_list(memory, &s.bytes, CHUNK);
    }
    return s;
}

static size_t scratch_bytes(const fa_plan *plan)
{
    return lay_out(plan, NULL).bytes;
}

/* Element offset of the row that is loaded ahead where row r is read. */
FA_INLINE int64_t far_index(const bool listed, const typed_rows *t, int r)
{
    return listed ? t->row[r + t->far] : row_index(false, t, r) + t->far;
}

/* Where row n of those ahead begins. */
FA_INLINE const char *ahead_row(const bool listed, rows_ahead ahead, int n)
{
    return ahead.at + (listed ? ahead.row[n] : n) * ahead.stride;
}

/* Those ahead from row n on. */
FA_INLINE rows_ahead ahead_from(const bool listed, rows_ahead ahead, int n)
{
    if (ahead.at && listed)
        ahead.row += n;
    else if (ahead.at)
        ahead.at += n * ahead.stride;
    return ahead;
}

/* s[row][key] over dims [d, dim) for `rows` query rows and `keys` keys; both constants at each call. */
FA_INLINE void score_rows(const int rows, const int keys, const bool listed, const fa_dtype dtype,
                          const float *q, int q_stride, const typed_rows *k, int key, int d, int dim,
                          rows_ahead ahead, float *s, int s_stride)
{
    vf acc[ROWS][KEYS];
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int j = 0; j < keys; j++)
            acc[r][j] = v_set1(0.0f);
    }
    for (; d + VL <= dim; d += VL) {
        vf kv[KEYS];
        FA_UNROLL
        for (int j = 0; j < keys; j++) {
            kv[j] = load_typed(dtype, k->base, row_index(listed, k, key + j) + d);
            load_line(dtype, k, far_index(listed, k, key + j) + d, d);
        }
        if (keys == KEYS && ahead.at)
            __builtin_prefetch(ahead_row(listed, ahead, d / VL % 2) + d / (2 * VL) * LINE_BYTES);
        FA_UNROLL
        for (int r = 0; r < rows; r++) {
            vf qv = v_load(q + r * q_stride + d);
            FA_UNROLL
            for (int j = 0; j < keys; j++)
                acc[r][j] = v_fma(qv, kv[j], acc[r][j]);
        }
    }
    if (d < dim) {
        FA_UNROLL
        for (int j = 0; j < keys; j++) {
            vf kv = load_some(dtype, k->base, row_index(listed, k, key + j) + d, dim - d);
            FA_UNROLL
            for (int r = 0; r < rows; r++)
                acc[r][j] = v_fma(v_load(q + r * q_stride + d), kv, acc[r][j]);
        }
    }
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        if (keys == KEYS)
            v_sum4(acc[r], s + r * s_stride);
        else
            s[r * s_stride] = v_sum(acc[r][0]);
    }
}

/* As above over all dims. Lanes are sums of a part of the dims each; where there is one, dims are summed in parts. */
FA_INLINE void score_parts(const int rows, const int keys, const bool listed, const fa_dtype dtype,
                           const float *q, int q_stride, const typed_rows *k, int key, int dim,
                           rows_ahead ahead, float *s, int s_stride)
{
    int part = VL > 1 ? dim : part_end(0, dim);
    score_rows(rows, keys, listed, dtype, q, q_stride, k, key, 0, part, ahead, s, s_stride);
    for (int stop; VL == 1 && part < dim; part = stop) {
        float more[ROWS * KEYS];
        stop = part_end(part, dim);
        score_rows(rows, keys, listed, dtype, q, q_stride, k, key, part, stop, nothing_ahead, more, KEYS);
        for (int i = 0; i < rows * keys; i++)
            s[i / keys * s_stride + i % keys] += more[i / keys * KEYS + i % keys];
    }
}

FA_INLINE void score_block(const int rows, const bool listed, const fa_dtype dtype, const float *q,
                           int q_stride, const typed_rows *k, int keys, int dim, rows_ahead ahead, float *s,
                           int s_stride)
{
    int j = 0;
    for (; j + KEYS <= keys; j += KEYS) {
        score_parts(rows, KEYS, listed, dtype, q, q_stride, k, j, dim, ahead, s + j, s_stride);
        ahead = ahead_from(listed, ahead, KEYS);
    }
    for (; j < keys; j++)
        score_parts(rows, 1, listed, dtype, q, q_stride, k, j, dim, ahead, s + j, s_stride);
}

/* o[row][d .. d + vecs * VL) += p[row][key] * v[key][..] */
FA_INLINE void value_rows(const int rows, const int vecs, const bool listed, const fa_dtype dtype,
                          const float *p, int p_stride, const typed_rows *v, int keys, int d,
                          rows_ahead ahead, float *o, int o_stride)
{
    vf acc[ROWS][VALUE_VECS];
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < vecs; n++)
            acc[r][n] = v_load(o + r * o_stride + d + n * VL);
    }
    for (int j = 0; j < keys; j++) {
        int64_t at = row_index(listed, v, j) + d, far = far_index(listed, v, j) + d;
        vf value[VALUE_VECS];
        if (ahead.at)
            __builtin_prefetch(ahead_row(listed, ahead, j));
        FA_UNROLL
        for (int n = 0; n < vecs; n++) {
            value[n] = load_typed(dtype, v->base, at + n * VL);
            load_line(dtype, v, far + n * VL, d + n * VL);
        }
        FA_UNROLL
        for (int r = 0; r < rows; r++) {
            vf weight = v_set1(p[r * p_stride + j]);
            FA_UNROLL
            for (int n = 0; n < vecs; n++)
                acc[r][n] = v_fma(weight, value[n], acc[r][n]);
        }
    }
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < vecs; n++)
            v_store(o + r * o_stride + d + n * VL, acc[r][n]);
    }
}

FA_INLINE void value_tail(const int rows, const bool listed, const fa_dtype dtype, const float *p,
                          int p_stride, const typed_rows *v, int keys, int d, int count, float *o,
                          int o_stride)
{
    for (int j = 0; j < keys; j++) {
        vf value = load_some(dtype, v->base, row_index(listed, v, j) + d, count);
        for (int r = 0; r < rows; r++) {
            float *at = o + r * o_stride + d;
            v_store(at, v_fma(v_set1(p[r * p_stride + j]), value, v_load(at)));
        }
    }
}

FA_INLINE void value_block(const int rows, const bool listed, const fa_dtype dtype, const float *p,
                           int p_stride, const typed_rows *v, int keys, int dim, rows_ahead ahead, float *o,
                           int o_stride)
{
    int d = 0;
    for (; d + VALUE_VECS * VL <= dim; d += VALUE_VECS * VL) {
        value_rows(rows, VALUE_VECS, listed, dtype, p, p_stride, v, keys, d, ahead, o, o_stride);
        if (ahead.at)
            ahead.at += LINE_BYTES;
    }
    for (; d + VL <= dim; d += VL)
        value_rows(rows, 1, listed, dtype, p, p_stride, v, keys, d, nothing_ahead, o, o_stride);
    if (d < dim)
        value_tail(rows, listed, dtype, p, p_stride, v, keys, d, dim - d, o, o_stride);
}

/* Calls `block` with the number of rows and the type as constants: the loads decide the speed here. */
#define FA_FOR_TYPE(block, rows, listed, dtype, ...)   \
    do {                                               \
        if ((dtype) == FA_F32)                         \
            block(rows, listed, FA_F32, __VA_ARGS__);  \
        else if ((dtype) == FA_F16)                    \
            block(rows, listed, FA_F16, __VA_ARGS__);  \
        else                                           \
            block(rows, listed, FA_BF16, __VA_ARGS__); \
    } while (0)

/* The share of the lines ahead that the group of rows from `r` on starts: two groups start them all. The second begins
 * `rows` rows and `bytes` bytes further on. */
FA_INLINE rows_ahead share(const bool listed, rows_ahead ahead, int r, int rows, ptrdiff_t bytes)
{
    const int part = r / ROWS;
    if (part >= 2 || !ahead.at)
        return nothing_ahead;
    ahead = ahead_from(listed, ahead, part * rows);
    ahead.at += part * bytes;
    return ahead;
}

FA_INLINE void score_groups(const bool listed, int rows, const rows_scratch *s, const typed_rows *k,
                            int first, int keys, int dim, rows_ahead ahead)
{
    typed_rows again = *k; /* only the first group of rows finds them in memory */
    again.far = 0;
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        FA_FOR_TYPE(score_block, ROWS, listed, k->dtype, s->q + r * s->q_stride, s->q_stride, r ? &again : k,
                    keys, dim, share(listed, ahead, r, 2, 0), s->s + r * s->s_stride + first, s->s_stride);
    for (; r < rows; r++)
        FA_FOR_TYPE(score_block, 1, listed, k->dtype, s->q + r * s->q_stride, s->q_stride, r ? &again : k,
                    keys, dim, nothing_ahead, s->s + r * s->s_stride + first, s->s_stride);
}

FA_INLINE void value_groups(const bool listed, int rows, const rows_scratch *s, const typed_rows *v,
                            int first, int keys, int dim, rows_ahead ahead)
{
    typed_rows again = *v;
    again.far = 0;
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        FA_FOR_TYPE(value_block, ROWS, listed, v->dtype, s->s + r * s->s_stride + first, s->s_stride,
                    r ? &again : v, keys, dim,
                    share(listed, ahead, r, 0, dim / (VALUE_VECS * VL) * LINE_BYTES),
                    s->part + r * s->o_stride, s->o_stride);
    for (; r < rows; r++)
        FA_FOR_TYPE(value_block, 1, listed, v->dtype, s->s + r * s->s_stride + first, s->s_stride,
                    r ? &again : v, keys, dim, nothing_ahead, s->part + r * s->o_stride, s->o_stride);
}

/* Keys `first` and on of the block in hand; values likewise. Functions of their own for rows in a list: see simd_tile.c. */
#define FA_GROUPS(name, listed)                                                                         \
    static void score_##name(int rows, const rows_scratch *s, const typed_rows *k, int first, int keys, \
                             int dim, rows_ahead ahead)                                                 \
    {                                                                                                   \
        score_groups(listed, rows, s, k, first, keys, dim, ahead);                                      \
    }                                                                                                   \
    static void value_##name(int rows, const rows_scratch *s, const typed_rows *v, int first, int keys, \
                             int dim, rows_ahead ahead)                                                 \
    {                                                                                                   \
        value_groups(listed, rows, s, v, first, keys, dim, ahead);                                      \
    }
FA_GROUPS(even, false)
FA_GROUPS(listed, true)

static void scores(int rows, const rows_scratch *s, const typed_rows *k, int first, int keys, int dim,
                   rows_ahead ahead)
{
    (k->row ? score_listed : score_even)(rows, s, k, first, keys, dim, ahead);
}

static void values(int rows, const rows_scratch *s, const typed_rows *v, int first, int keys, int dim,
                   rows_ahead ahead)
{
    (v->row ? value_listed : value_even)(rows, s, v, first, keys, dim, ahead);
}

/* One query row: which it is, and what its scores need. */
typedef struct query_row {
    const fa_cpu_run *run;
    const fa_table_sequence *sequence;
    int32_t number, head, position;
} query_row;

static query_row row_of(const fa_cpu_run *run, const fa_table_item *item, int row)
{
    const fa_args *a = &run->plan->args;
    return (query_row){
        .run = run,
        .sequence = &run->sequence[item->sequence],
        .number = item->sequence,
        .head = fa_row_head(a->group, item->head_kv, row),
        .position = fa_row_position(a->group, row),
    };
}

static int64_t extra_offset(const query_row *row, int operand)
{
    const fa_tensor *t = &row->run->plan->problem.tensor[operand];
    return fa_problem_extra_offset(t, row->number, row->head, row->position, row->sequence->first);
}

static bool is_kept(const query_row *row, int key)
{
    if (!row->run->keep)
        return true;
    return fa_problem_keeps(&row->run->plan->problem, row->run->keep, row->number, row->head, row->position,
                            &row->sequence->mask, row->sequence->first, key);
}

/* Hides what the row does not see among VL keys, of which `count` exist. */
static vf hide(const query_row *row, int key, int count, vf x)
{
    fa_mask m = row->sequence->mask;
    if (key >= m.prefix && !row->run->keep) {
        int end = FA_MIN(fa_mask_end(m, row->position), key + count);
        return v_hide_outside(x, vi_count(key), vi_set1(fa_mask_begin(m, row->position)), vi_set1(end));
    }
    float lane[VL];
    v_store(lane, x);
    for (int i = 0; i < VL; i++) {
        if (i >= count || !fa_mask_visible(m, row->position, key + i) || !is_kept(row, key + i))
            lane[i] = -INFINITY;
    }
    return v_load(lane);
}

/* The bias of VL keys, of which `count` exist. */
static vf load_bias(const query_row *row, int key, int count)
{
    const fa_problem *p = &row->run->plan->problem;
    const fa_tensor *t = &p->tensor[FA_BIAS];
    int64_t at = extra_offset(row, FA_BIAS);
    vf bias = t->stride[3] == 0 ? v_set1(fa_load(t->dtype, row->run->bias, at))
              : count == VL     ? load_typed(t->dtype, row->run->bias, at + key)
                                : load_some(t->dtype, row->run->bias, at + key, count);
    return p->bias_factors ? v_mul(bias, v_set1(p->bias_factors[row->head])) : bias;
}

/* Scores of VL keys as the plan wants them, hidden ones -inf. */
static vf transform(const query_row *row, int key, int count, vf x)
{
    const fa_problem *p = &row->run->plan->problem;
    if (row->run->plan->score.transforms) {
        const score_terms terms = terms_of(row->run);
        vf distance = v_distance(vi_count(key), vi_set1(row->position + row->sequence->mask.diagonal));
        float slope = terms.slopes ? fa_problem_slope(p, row->number, row->head) : 0;
        vf bias = terms.bias ? load_bias(row, key, count) : v_set1(0.0f);
        x = score_of(&terms, x, v_set1(-slope), distance, &bias);
    }
    return hide(row, key, count, x);
}

/* Softmax weights of one row over a block of keys, in place. Returns the factor for what came before. */
static float softmax_step(const query_row *row, int key, int keys, float *s, float *max, float *sum)
{
    enum { PART = 32 * VL }; /* keys: all terms are positive, and the error of one long sum would show */
    vf top = v_set1(-INFINITY), total = v_set1(0.0f);
    for (int j = 0; j < keys; j += VL) {
        vf x = transform(row, key + j, FA_MIN(keys - j, (int)VL), v_load(s + j));
        v_store(s + j, x);
        top = v_max(top, x);
    }
    /* A NaN score may be lost from the maximum; its weight is NaN all the same. */
    float next = fmaxf(*max, v_top(top)), shift = fa_safe_max(next), unit = row->run->plan->score.unit;
    for (int from = 0; from < keys; from += PART) {
        vf part = v_set1(0.0f);
        for (int j = from; j < FA_MIN(from + PART, keys); j += VL) {
            vf p = v_exp2(v_mul(v_sub(v_load(s + j), v_set1(shift)), v_set1(unit)));
            v_store(s + j, p);
            part = v_add(part, p);
        }
        total = v_add(total, part);
    }
    float factor = fa_state_weight(*max, next, unit);
    *sum = *sum * factor + v_sum(total);
    *max = next;
    return factor;
}

/* Of the values that a row sees, those that are not finite: see add_infinite() in panel.h. */
static void add_infinite(const query_row *row, const typed_rows *v, int key, int keys, int dim,
                         const float *p, float *o)
{
    for (int j = 0; j < keys; j++) {
        if (!fa_mask_visible(row->sequence->mask, row->position, key + j) || !is_kept(row, key + j))
            continue;
        for (int d = 0; d < dim; d++) {
            float value = FA_ISA_NAME(element_of)(v, j, d);
            if (!isfinite(value))
                o[d] += p[j] * value;
        }
    }
}

/* More than one group of query rows reads K and V again: of f16 and bf16 it reads a chunk made f32, which stays
 * in the first-level cache. What reads formats of caches always does. */
static bool converts(const fa_table_item *item, fa_dtype dtype)
{
    return (item->row_end - item->row_begin > ROWS && dtype != FA_F32) || FA_TYPE_IS_CODED(dtype);
}

/* Of a block of `keys` keys, how many are read together: what is read again stays in the first-level cache. */
static int step_of(const fa_table_item *item, fa_dtype dtype, int keys)
{
    if (item->row_end - item->row_begin > ROWS)
        return CHUNK;
    return FA_TYPE_IS_CODED(dtype) ? FEW : keys;
}

/* What fetch() is going to convert from row `first` of a block on, which is the item's `key`, if it does. A decoder of
 * formats has loaded it ahead itself. */
static rows_ahead ahead_of(const fa_table_item *item, const typed_rows *block, int first, int key)
{
    if (!converts(item, block->dtype) || FA_TYPE_IS_CODED(block->dtype) || key >= item->key_end)
        return nothing_ahead;
    const typed_rows rows = rows_from(*block, first);
    const int size = FA_TYPE_BYTES(rows.dtype);
    if (rows.row)
        return (rows_ahead){rows.base, size, LINE_BYTES / size, rows.row};
    return (rows_ahead){(const char *)rows.base + rows.index * size, rows.stride * size, LINE_BYTES / size,
                        NULL};
}

/* Where the rows of a block begin that lie in pages, and those behind it. The item's last one repeats: the table is not
 * read beyond it. */
static void list_rows(const fa_cpu_run *run, const fa_table_item *item, int key, int keys,
                      const rows_scratch *s)
{
    const fa_tensor *t = run->plan->problem.tensor;
    const int count = FA_MIN(keys + AHEAD, item->key_end - key);
    int n = 0;
    while (n < count) {
        const fa_key_place place = fa_cpu_place(run, item, key + n);
        const int end = FA_MIN(count, n + run->work->page_size - place.within);
        int64_t k = fa_cpu_place_at(run, FA_K, item, place), v = fa_cpu_place_at(run, FA_V, item, place);
        for (; n < end; n++, k += t[FA_K].stride[2], v += t[FA_V].stride[2]) {
            s->k_list[n] = k;
            s->v_list[n] = v;
        }
    }
    for (; n < keys + AHEAD; n++) {
        s->k_list[n] = s->k_list[count - 1];
        s->v_list[n] = s->v_list[count - 1];
    }
}

/* The rows of K or V of a block, which are fetched ahead. */
static inline typed_rows rows_at(const fa_cpu_run *run, int operand, const fa_table_item *item, int key,
                                 const int64_t *list)
{
    typed_rows rows = key_rows(run, operand, item, key);
    const int dim = operand == FA_K ? run->plan->args.dim_qk : run->plan->args.dim_v;
    const int far = FA_MAX(FAR_BYTES / FA_TYPE_SPAN(rows.dtype, dim), (int)KEYS);
    rows.row = list;
    rows.far = list ? FA_MIN(far, (int)AHEAD) : far * rows.stride;
    return rows;
}

/* Up to CHUNK rows as f32, in scratch. */
static typed_rows convert(const rows_scratch *s, const typed_rows *from, int keys, int dim)
{
    typed_rows made = {.dtype = FA_F32, .base = s->kv, .stride = s->kv_stride};
    made.row = from->row ? s->kv_list : NULL;
    if (FA_TYPE_IS_CODED(from->dtype)) {
        FA_ISA_NAME(decode_rows)(from, keys, dim, s->kv, s->kv_stride);
        return made;
    }
    if (!from->row) {
        convert_rows(from->dtype, from->base, from->index, from->stride, keys, dim, s->kv, s->kv_stride);
        return made;
    }
    for (int j = 0; j < keys; j++)
        convert_rows(from->dtype, from->base, from->row[j], 0, 1, dim, s->kv + j * s->kv_stride, 0);
    return made;
}

/* `keys` rows of K or V from these on. */
static typed_rows fetch(const fa_table_item *item, const rows_scratch *s, typed_rows rows, int keys, int dim)
{
    return converts(item, rows.dtype) ? convert(s, &rows, keys, dim) : rows;
}

/* Adds values of which some are not finite and some row may not see: the same arithmetic on a copy without those. */
static void add_cleaned(const fa_cpu_run *run, const fa_table_item *item, const rows_scratch *s,
                        const typed_rows *block, int key, int first, int keys)
{
    int dim = run->plan->args.dim_v, rows = item->row_end - item->row_begin;
    for (int end = first + keys; first < end; first += CHUNK) {
        int count = FA_MIN(CHUNK, end - first);
        typed_rows v = rows_from(*block, first), cleaned = convert(s, &v, count, dim);
        clean_rows(s->kv, s->kv_stride, count, dim);
        values(rows, s, &cleaned, first, count, dim, nothing_ahead);
        for (int r = 0; r < rows; r++) {
            query_row row = row_of(run, item, item->row_begin + r);
            add_infinite(&row, &v, key + first, count, dim, s->s + r * s->s_stride + first,
                         s->part + r * s->o_stride);
        }
    }
}

static void add_values(const fa_cpu_run *run, const fa_table_item *item, const rows_scratch *s,
                       const typed_rows *block, int key, int first, int keys, bool partial)
{
    int dim = run->plan->args.dim_v, rows = item->row_end - item->row_begin;
    typed_rows v = fetch(item, s, rows_from(*block, first), keys, dim);
    if ((partial || run->keep) && !rows_finite(&v, keys, dim)) {
        add_cleaned(run, item, s, block, key, first, keys);
        return;
    }
    rows_ahead ahead = ahead_of(item, block, first + keys, key + first + keys);
    values(rows, s, &v, first, keys, dim, ahead);
}

/* A block is summed up before it meets what was there: many keys are summed in parts. */
static void add_part(const rows_scratch *s, int rows)
{
    for (int r = 0; r < rows; r++) {
        vf factor = v_set1(s->factor[r]);
        for (int d = r * s->o_stride; d < (r + 1) * s->o_stride; d += VL)
            v_store(s->o + d, v_fma(v_load(s->o + d), factor, v_load(s->part + d)));
    }
}

static void meet(const fa_cpu_run *run, const fa_table_item *item, const rows_scratch *s, int key, int keys,
                 bool partial)
{
    const fa_problem *p = &run->plan->problem;
    int rows = item->row_end - item->row_begin;
    if (run->pages)
        list_rows(run, item, key, keys, s);
    const typed_rows k_block = rows_at(run, FA_K, item, key, s->k_list);
    const typed_rows v_block = rows_at(run, FA_V, item, key, s->v_list);
    const int k_step = step_of(item, k_block.dtype, keys), v_step = step_of(item, v_block.dtype, keys);

    for (int first = 0; first < keys; first += k_step) {
        int count = FA_MIN(k_step, keys - first);
        typed_rows k = fetch(item, s, rows_from(k_block, first), count, p->dim_qk);
        rows_ahead ahead = ahead_of(item, &k_block, first + count, key + first + count);
        scores(rows, s, &k, first, count, p->dim_qk, ahead);
    }
    for (int r = 0; r < rows; r++) {
        query_row row = row_of(run, item, item->row_begin + r);
        s->factor[r] = softmax_step(&row, key, keys, s->s + r * s->s_stride, s->max + r, s->sum + r);
    }
    memset(s->part, 0, (size_t)(rows * s->o_stride) * sizeof(float));
    for (int first = 0; first < keys; first += v_step)
        add_values(run, item, s, &v_block, key, first, FA_MIN(v_step, keys - first), partial);
    add_part(s, rows);
}

static void start(const fa_cpu_run *run, const fa_table_item *item, const rows_scratch *s)
{
    const fa_args *a = &run->plan->args;
    const fa_tensor *t = &run->plan->problem.tensor[FA_Q];
    int rows = item->row_end - item->row_begin;
    memset(s->q, 0, (size_t)(rows * s->q_stride) * sizeof(float));
    memset(s->o, 0, (size_t)(rows * s->o_stride) * sizeof(float));
    for (int j = 0; run->pages && j < CHUNK; j++)
        s->kv_list[j] = j * s->kv_stride;
    for (int r = 0; r < rows; r++) {
        query_row row = row_of(run, item, item->row_begin + r);
        int64_t at = fa_cpu_row_at(run, FA_Q, row.sequence, row.head, row.position);
        convert_rows(t->dtype, run->q, at, 0, 1, a->dim_qk, s->q + r * s->q_stride, 0);
        s->max[r] = -INFINITY;
        s->sum[r] = 0;
    }
}

static void finish(const fa_cpu_run *run, const fa_table_item *item, int row, float *o, float max, float sum)
{
    const fa_problem *p = &run->plan->problem;
    const fa_tensor *t = &p->tensor[FA_O];
    bool partial = item->part_row >= 0;
    query_row q = row_of(run, item, row);
    fa_dtype dtype = partial ? FA_F32 : t->dtype;
    void *base = partial ? (void *)run->partial : run->o;
    int64_t at = partial ? (item->part_row + row - item->row_begin) * p->dim_v
                         : fa_cpu_row_at(run, FA_O, q.sequence, q.head, q.position);
    vf factor = v_set1(FA_ISA_NAME(row_close)(run, item, row, max, sum));
    for (int d = 0; d < p->dim_v; d += VL) {
        vf value = normalised(v_load(o + d), factor);
        if (d + VL <= p->dim_v)
            store_typed(dtype, base, at + d, value);
        else
            store_some(dtype, base, at + d, value, p->dim_v - d);
    }
}

static void run_item(const fa_cpu_run *run, const fa_table_item *item, void *memory)
{
    const fa_args *a = &run->plan->args;
    rows_scratch s = lay_out(run->plan, memory);
    fa_walk walk = fa_walk_of(run->sequence[item->sequence].mask, a->group, item->row_begin, item->row_end,
                              item->key_end);

    start(run, item, &s);
    for (int key = fa_walk_next(walk, item->key_begin, a->block_kv); key < item->key_end;
         key = fa_walk_next(walk, key + a->block_kv, a->block_kv)) {
        int end = FA_MIN(key + a->block_kv, item->key_end);
        meet(run, item, &s, key, end - key, fa_walk_class(walk, key, end) == FA_CLASS_PARTIAL);
    }
    for (int r = 0; r < item->row_end - item->row_begin; r++)
        finish(run, item, item->row_begin + r, s.o + r * s.o_stride, s.max[r], s.sum[r]);
}

const fa_cpu_kernel FA_ISA_NAME(rows) = {scratch_bytes, run_item};
