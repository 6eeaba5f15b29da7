/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of few query rows, as in decoding, where reading K and V is the cost. Rows of plain types that lie evenly
 * apart are read where they are (simd/micro_rows.h); formats of caches, keys in pages, and with vectors of 8 also whole
 * groups of query rows, in chunks (simd/chunk.h).
 */
#include <string.h>

#include "simd/chunk.h"
#include "simd/micro_rows.h"
#include "simd/panel.h"

enum {
    CHUNK = FEW,      /* keys made f32 at a time */
    FAR_BYTES = 8192, /* of rows, between what is read in place and what is loaded ahead */
    AHEAD = 64,       /* rows in a list behind the last of a block: the most that are loaded ahead */
};

typedef struct rows_scratch {
    float *q, *o, *s; /* rows x q_stride, rows x o_stride, rows x s_stride */
    float *part;      /* what a block of keys adds to o                    */
    float *max, *sum; /* rows                                              */
    float *factor;    /* of o, as it meets what a block adds               */
    float *kv;        /* a chunk of keys or values as f32, or f16          */
    ptrdiff_t kv_stride;
    const uint8_t **k_list, **v_list; /* where rows of a block begin: see is_listed() */
    int q_stride, o_stride, s_stride;
    size_t bytes;
} rows_scratch;

static int round_lanes(int n)
{
    return (n + VL - 1) / VL * VL;
}

static const uint8_t **take_list(void *memory, size_t *used, size_t rows)
{
    return (const uint8_t **)(void *)take_scratch(memory, used, rows * (sizeof(uint8_t *) / sizeof(float)));
}

/* Whether rows of K or V are told by a list for each block: pages and codes are read in no other way. With vectors of 8,
 * chunks are also the faster way for one whole group of query rows: they need fewer registers, and start whole rows ahead. */
static bool is_listed(const fa_problem *p, int operand, int rows)
{
    const fa_dtype dtype = p->tensor[operand].dtype;
    return (p->features & FA_FEATURE_PAGES) || FA_TYPE_IS_CODED(dtype) ||
           (VL == 8 && rows == ROWS && has_chunks(dtype, operand == FA_K ? p->dim_qk : p->dim_v));
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
    if (is_listed(&plan->problem, FA_K, ROWS) || is_listed(&plan->problem, FA_V, ROWS)) {
        s.k_list = take_list(memory, &s.bytes, (size_t)a->block_kv + AHEAD);
        s.v_list = take_list(memory, &s.bytes, (size_t)a->block_kv + AHEAD);
    }
    return s;
}

static size_t scratch_bytes(const fa_plan *plan)
{
    return lay_out(plan, NULL).bytes;
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
        .number = run->sequence[item->sequence].number,
        .head = fa_row_head(a->group, item->head_kv, row),
        .position = fa_row_position(a->group, row),
    };
}

static int64_t extra_offset(const query_row *row, int operand)
{
    const fa_tensor *t = &row->run->plan->problem.tensor[operand];
    return fa_problem_extra_offset(t, row->number, row->head, row->position, row->sequence->first);
}

/* Bit i: whether `keep`, lists and the row's neighbourhood show the row key + i, of `count` keys. */
static uint32_t kept(const query_row *row, int key, int count)
{
    return fa_cpu_kept(row->run, row->sequence, row->head, row->position, key, count);
}

/* Hides what the row does not see among VL keys, of which `count` exist. */
static vf hide(const query_row *row, int key, int count, vf x)
{
    const fa_mask m = row->sequence->mask;
    const int end = FA_MIN(fa_mask_end(m, row->position), key + count);
    uint32_t seen = kept(row, key, count);
    if (key >= m.prefix)
        x = v_hide_outside(x, vi_count(key), vi_set1(fa_mask_begin(m, row->position)), vi_set1(end));
    for (int i = 0; key < m.prefix && i < VL; i++) {
        if (i >= count || !fa_mask_visible(m, row->position, key + i))
            seen &= ~((uint32_t)1 << i);
    }
    if (seen == UINT32_MAX)
        return x;
    float lane[VL];
    v_store(lane, x);
    for (int i = 0; i < VL; i++)
        lane[i] = (seen >> i & 1) != 0 ? lane[i] : -INFINITY;
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

/*
 * Softmax weights of one row over a block of keys, in place. Returns the factor for what came before. `plain`: scores are
 * products as they are, and the row sees all keys.
 */
static float softmax_step(const query_row *row, bool plain, int key, int keys, float *s, float *max,
                          float *sum)
{
    enum { PART = 32 * VL }; /* keys: all terms are positive, and the error of one long sum would show */
    vf top = v_set1(-INFINITY), total = v_set1(0.0f);
    int j = 0;
    for (; plain && j + VL <= keys; j += VL)
        top = v_max(top, v_load(s + j));
    for (; j < keys; j += VL) {
        vf x = transform(row, key + j, FA_MIN(keys - j, (int)VL), v_load(s + j));
        v_store(s + j, x);
        top = v_max(top, x);
    }
    /* A NaN score may be lost from the maximum; its weight is NaN all the same. */
    float next = fmaxf(*max, v_top(top)), shift = fa_safe_max(next), unit = row->run->plan->score.unit;
    for (int from = 0; from < keys; from += PART) {
        vf part = v_set1(0.0f);
        for (j = from; j < FA_MIN(from + PART, keys); j += VL) {
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
        if (!fa_mask_visible(row->sequence->mask, row->position, key + j) || (kept(row, key + j, 1) & 1) == 0)
            continue;
        for (int d = 0; d < dim; d++) {
            float value = FA_ISA_NAME(element_of)(v, j, d);
            if (!isfinite(value))
                o[d] += p[j] * value;
        }
    }
}

/* Whether rows are read as chunks: those of lists, if chunks take the dim. */
static bool in_chunks(const typed_rows *rows, int dim)
{
    return VL > 1 && rows->row && !rows->scaled.run && has_chunks(rows->dtype, dim);
}

/* Of what is not: more than one group of query rows reads K and V again. Of f16 and bf16 it reads rows made f32, which
 * stay in the first-level cache. */
static bool converts(const fa_table_item *item, const typed_rows *rows)
{
    return (item->row_end - item->row_begin > ROWS && rows->dtype != FA_F32) || rows->row;
}

/* Of a block of `keys` keys, how many are read together: what is read again stays in the first-level cache. */
static int step_of(const fa_table_item *item, const typed_rows *block, int dim, int keys)
{
    if (in_chunks(block, dim))
        return chunk_rows(block->dtype, dim);
    return item->row_end - item->row_begin > ROWS || converts(item, block) ? CHUNK : keys;
}

/* What fetch() is going to convert from row `first` of a block on, which is the item's `key`, if it does. */
static rows_ahead ahead_of(const fa_table_item *item, const typed_rows *block, int first, int key)
{
    if (!converts(item, block) || block->row || key >= item->key_end)
        return nothing_ahead;
    const typed_rows rows = rows_from(*block, first);
    const int size = FA_TYPE_BYTES(rows.dtype);
    return (rows_ahead){(const char *)rows.base + rows.index * size, rows.stride * size, LINE_BYTES / size};
}

/* Where rows of the item's head lie: from the first, bytes from page to page and from row to row. */
typedef struct row_grid {
    const uint8_t *first;
    int64_t page, row;
} row_grid;

static row_grid grid_of(const fa_cpu_run *run, int operand, const fa_table_item *item)
{
    const fa_tensor *t = &run->plan->problem.tensor[operand];
    const fa_key_place start = {0, 0};
    const uint8_t *base = operand == FA_K ? run->k : run->v;
    return (row_grid){base + FA_TYPE_SPAN(t->dtype, fa_cpu_place_at(run, operand, item, start)),
                      FA_TYPE_SPAN(t->dtype, t->stride[0]), FA_TYPE_SPAN(t->dtype, t->stride[2])};
}

/*
 * Where the rows of a block begin, and those that are read after them: values come after keys, then the next block's keys.
 * The item's last one repeats: the page table is not read beyond it.
 */
static void list_rows(const fa_cpu_run *run, const fa_table_item *item, int key, int keys,
                      const rows_scratch *s)
{
    const row_grid k_grid = grid_of(run, FA_K, item), v_grid = grid_of(run, FA_V, item);
    const fa_cpu_keys table = {
        .params = run->work, .sequence = &run->sequence[item->sequence], .pages = run->pages};
    const uint8_t **k_list = s->k_list, **v_list = s->v_list;
    const int count = FA_MIN(keys + AHEAD, item->key_end - key), page_size = run->work->page_size;
    int n = 0;
    while (n < count) {
        fa_key_place at = {0, key + n};
        int end = count;
        if (table.pages) {
            at = fa_work_place(table, key + n);
            end = FA_MIN(count, n + page_size - at.within);
        }
        const uint8_t *k = k_grid.first + at.page * k_grid.page + at.within * k_grid.row;
        const uint8_t *v = v_grid.first + at.page * v_grid.page + at.within * v_grid.row;
        k_list[n] = k;
        v_list[n] = v;
        while (++n < end) {
            k_list[n] = k += k_grid.row;
            v_list[n] = v += v_grid.row;
        }
    }
    for (; n < keys + AHEAD; n++) {
        k_list[n] = k_list[count - 1];
        v_list[n] = v_list[count - 1];
    }
    memcpy(s->v_list + keys, s->k_list + keys, AHEAD * sizeof(*s->k_list));
    memcpy(s->k_list + keys, s->v_list, AHEAD * sizeof(*s->k_list));
}

/* The rows of K or V of a block, which are fetched ahead. */
static inline typed_rows rows_at(const fa_cpu_run *run, int operand, const fa_table_item *item, int key,
                                 const uint8_t *const *list)
{
    typed_rows rows = key_rows(run, operand, item, key);
    const int dim = operand == FA_K ? run->plan->args.dim_qk : run->plan->args.dim_v;
    rows.row = is_listed(&run->plan->problem, operand, item->row_end - item->row_begin) ? list : NULL;
    rows.far = FA_MAX(FAR_BYTES / (int)fa_dtype_bytes(rows.dtype, dim), (int)KEYS) * rows.stride;
    return rows;
}

/* Up to CHUNK rows as f32, in scratch. */
static typed_rows convert(const rows_scratch *s, const typed_rows *from, int keys, int dim)
{
    const bool listed = from->row && !FA_TYPE_IS_CODED(from->dtype);
    if (!listed)
        convert_typed(from, keys, dim, s->kv, s->kv_stride);
    for (int j = 0; listed && j < keys; j++)
        convert_rows(from->dtype, from->row[j], 0, 0, 1, dim, s->kv + j * s->kv_stride, 0);
    return (typed_rows){.dtype = FA_F32, .base = s->kv, .stride = s->kv_stride};
}

/* `keys` rows of K or V from these on. */
static typed_rows fetch(const fa_table_item *item, const rows_scratch *s, typed_rows rows, int keys, int dim)
{
    return converts(item, &rows) ? convert(s, &rows, keys, dim) : rows;
}

/* Row `first` of a block and those after it. */
static void tell_chunk(fa_chunk *c, const rows_scratch *s, const typed_rows *block, int first, int count,
                       int dim)
{
    c->dtype = block->dtype;
    c->dim = dim;
    c->count = count;
    c->row = block->row + first;
    c->far = FA_MIN(FA_MAX(FAR_BYTES / FA_TYPE_SPAN(block->dtype, dim), chunk_rows(block->dtype, dim)),
                    (int)AHEAD);
    FA_ISA_NAME(chunk_prepare)(c, (uint16_t *)(void *)s->kv);
}

/* Adds a chunk of ggml's blocks, with 0 for those that are not finite. The arithmetic is that of finite blocks: rows that
 * see none of these keep their bits. */
static void add_cleaned_blocks(const rows_scratch *s, const typed_rows *block, int rows, int first, int count,
                               int dim)
{
    const int bytes = FA_TYPE_SPAN(block->dtype, dim), block_bytes = FA_TYPE_SPAN(block->dtype, 32);
    uint8_t *copy = (uint8_t *)s->kv;
    fa_chunk chunk = {.dtype = block->dtype, .dim = dim, .count = count, .row = chunk.made};
    for (int i = 0; i < count; i++, copy += bytes) {
        memcpy(copy, block->row[first + i], (size_t)bytes);
        for (int at = 0; at < bytes; at += block_bytes) {
            const uint8_t *begin = copy + at;
            const typed_rows one = {.dtype = block->dtype, .row = &begin};
            if (!rows_finite(&one, 1, 32))
                memset(copy + at, 0, (size_t)block_bytes);
        }
        chunk.made[i] = copy;
    }
    FA_ISA_NAME(chunk_prepare)(&chunk, NULL);
    FA_ISA_NAME(chunk_values)(&chunk, rows, s->s + first, s->s_stride, s->part, s->o_stride);
}

/* Adds values of which some are not finite and some row may not see: the same arithmetic on a copy without those. */
static void add_cleaned(const fa_cpu_run *run, const fa_table_item *item, const rows_scratch *s,
                        const typed_rows *block, int key, int first, int keys)
{
    int dim = run->plan->args.dim_v, rows = item->row_end - item->row_begin;
    for (int end = first + keys; first < end; first += CHUNK) {
        const int count = FA_MIN(CHUNK, end - first);
        const typed_rows v = rows_from(*block, first);
        if (in_chunks(block, dim) && FA_TYPE_IS_CODED(block->dtype) && !FA_TYPE_IS_FP8(block->dtype)) {
            add_cleaned_blocks(s, block, rows, first, count, dim);
        } else {
            const typed_rows cleaned = convert(s, &v, count, dim);
            clean_rows(s->kv, s->kv_stride, count, dim);
            values(rows, s->s + first, s->s_stride, &cleaned, count, dim, nothing_ahead, s->part,
                   s->o_stride);
        }
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
    const int dim = run->plan->args.dim_v, rows = item->row_end - item->row_begin;
    const bool chunked = in_chunks(block, dim);
    typed_rows v = rows_from(*block, first);
    if (!chunked)
        v = fetch(item, s, v, keys, dim);
    if ((partial || run->keep) && !rows_finite(&v, keys, dim)) {
        add_cleaned(run, item, s, block, key, first, keys);
    } else if (chunked) {
        fa_chunk chunk;
        tell_chunk(&chunk, s, block, first, keys, dim);
        FA_ISA_NAME(chunk_values)(&chunk, rows, s->s + first, s->s_stride, s->part, s->o_stride);
    } else {
        rows_ahead ahead = ahead_of(item, block, first + keys, key + first + keys);
        values(rows, s->s + first, s->s_stride, &v, keys, dim, ahead, s->part, s->o_stride);
    }
}

static void find_scores(const fa_cpu_run *run, const fa_table_item *item, const rows_scratch *s,
                        const typed_rows *block, int key, int first, int keys)
{
    const int dim = run->plan->args.dim_qk, rows = item->row_end - item->row_begin;
    if (in_chunks(block, dim)) {
        fa_chunk chunk;
        tell_chunk(&chunk, s, block, first, keys, dim);
        FA_ISA_NAME(chunk_scores)(&chunk, rows, s->q, s->q_stride, s->s + first, s->s_stride);
    } else {
        typed_rows k = fetch(item, s, rows_from(*block, first), keys, dim);
        rows_ahead ahead = ahead_of(item, block, first + keys, key + first + keys);
        scores(rows, s->q, s->q_stride, &k, keys, dim, ahead, s->s + first, s->s_stride);
    }
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
    const typed_rows k = rows_at(run, FA_K, item, key, s->k_list),
                     v = rows_at(run, FA_V, item, key, s->v_list);
    if (k.row || v.row)
        list_rows(run, item, key, keys, s);
    const bool plain = !partial && !run->keep && !run->plan->score.transforms;
    const int k_step = step_of(item, &k, p->dim_qk, keys), v_step = step_of(item, &v, p->dim_v, keys);

    for (int first = 0; first < keys; first += k_step)
        find_scores(run, item, s, &k, key, first, FA_MIN(k_step, keys - first));
    for (int r = 0; r < rows; r++) {
        query_row row = row_of(run, item, item->row_begin + r);
        s->factor[r] = softmax_step(&row, plain, key, keys, s->s + r * s->s_stride, s->max + r, s->sum + r);
    }
    memset(s->part, 0, (size_t)(rows * s->o_stride) * sizeof(float));
    for (int first = 0; first < keys; first += v_step)
        add_values(run, item, s, &v, key, first, FA_MIN(v_step, keys - first), partial);
    add_part(s, rows);
}

static void start(const fa_cpu_run *run, const fa_table_item *item, const rows_scratch *s)
{
    const fa_args *a = &run->plan->args;
    const fa_tensor *t = &run->plan->problem.tensor[FA_Q];
    int rows = item->row_end - item->row_begin;
    memset(s->q, 0, (size_t)(rows * s->q_stride) * sizeof(float));
    memset(s->o, 0, (size_t)(rows * s->o_stride) * sizeof(float));
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
    const fa_cpu_keys w = fa_cpu_item(run, item);
    const bool terms = run->keep != NULL;

    start(run, item, &s);
    for (int key = fa_work_next(w, terms, item->key_begin, a->block_kv); key < item->key_end;
         key = fa_work_next(w, terms, key + a->block_kv, a->block_kv)) {
        int end = FA_MIN(key + a->block_kv, item->key_end);
        meet(run, item, &s, key, end - key, fa_work_class(w, key, end) == FA_CLASS_PARTIAL);
    }
    for (int r = 0; r < item->row_end - item->row_begin; r++)
        finish(run, item, item->row_begin + r, s.o + r * s.o_stride, s.max[r], s.sum[r]);
}

const fa_cpu_kernel FA_ISA_NAME(rows) = {scratch_bytes, run_item};
