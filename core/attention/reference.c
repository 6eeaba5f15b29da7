/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/reference.h>

#include <float.h>
#include <math.h>

#include "core/attention/pages.h"
#include "core/attention/scales.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/half.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

/* Of one dim of an output: see limit_output(). */
typedef struct column_limit {
    double o, moved, least, most;
} column_limit;

/*
 * One query row of one head, with its operands as f32, which every type of elements is exactly. The keys and values of a
 * KV head are widened once for all of its rows.
 */
typedef struct row_view {
    const fa_problem *p;
    const fa_sequence *s;
    const fa_inputs *in;
    int64_t sequence;
    int32_t row, head;
    float *q, *k, *v;      /* dim_qk; len_kv rows of dim_qk, and of dim_v */
    bool *seen;            /* of each key                                 */
    void *numbers;         /* room for NUMBERS doubles of each key, and of the sink */
    column_limit *columns; /* dim_v */
} row_view;

enum { NUMBERS = 4 };

/* Where a key lies in k and v. */
typedef struct key_place {
    int64_t batch, row; /* the batch may be a page */
} key_place;

static key_place place_of(const row_view *r, int32_t key)
{
    const fa_problem *p = r->p;
    const int64_t number = r->s->first + (int64_t)key, page = p->tensor[FA_K].shape[2];
    if (!(p->features & FA_FEATURE_PAGES))
        return (key_place){r->s->kv_batch, r->s->kv_row + key};
    return (key_place){fa_page_of(p, r->in->page_table, r->sequence, number), number % page};
}

static void widen(fa_dtype dtype, const void *base, int64_t at, int32_t count, float *row)
{
    for (int32_t d = 0; d < count; d++)
        row[d] = fa_load(dtype, base, at + d);
}

/* A key's row of k or v, scaled where there are scales. */
static void widen_key(const row_view *r, int operand, const void *base, const void *scale, const void *zero,
                      int32_t key, int32_t dim, float *row)
{
    const fa_tensor *t = &r->p->tensor[operand];
    const fa_scales *scales = fa_scales_of(r->p, operand);
    const key_place at = place_of(r, key);
    const int64_t head = r->head / r->p->group;
    row += (size_t)key * (size_t)dim;
    widen(t->dtype, base, fa_tensor_offset(t, at.batch, head, at.row), dim, row);
    for (int32_t d = 0; scales->scale_type >= 0 && d < dim; d++) {
        const fa_scaling s = fa_scales_at(scales, scale, zero, at.batch, head, at.row, d);
        /* The product is exact. Not every system's fmaf() rounds once. */
        row[d] = (float)((double)s.scale * (double)row[d] + (double)s.offset);
    }
}

static const void *values_of(const fa_problem *p, const fa_inputs *in)
{
    return p->features & FA_FEATURE_V_IN_K ? in->k : in->v;
}

static void widen_keys(const row_view *r)
{
    const fa_inputs *in = r->in;
    for (int32_t j = 0; j < r->s->len_kv; j++) {
        widen_key(r, FA_K, in->k, in->k_scale, in->k_zero, j, r->p->dim_qk, r->k);
        widen_key(r, FA_V, values_of(r->p, in), in->v_scale, in->v_zero, j, r->p->dim_v, r->v);
    }
}

static void widen_query(const row_view *r)
{
    const fa_tensor *q = &r->p->tensor[FA_Q];
    widen(q->dtype, r->in->q, fa_tensor_offset(q, r->s->q_batch, r->head, r->s->q_row + r->row), r->p->dim_qk,
          r->q);
}

static const float *key_row(const row_view *r, int32_t key)
{
    return r->k + (size_t)key * (size_t)r->p->dim_qk;
}

static const float *value_row(const row_view *r, int32_t key)
{
    return r->v + (size_t)key * (size_t)r->p->dim_v;
}

static bool sees(const row_view *r, int32_t key)
{
    if (!fa_mask_visible(r->s->mask, r->row, key))
        return false;
    if (!(r->p->features & FA_FEATURE_KEEP))
        return true;
    return fa_problem_keeps(r->p, r->in->keep, r->sequence, r->head, r->row, &r->s->mask, r->s->first, key);
}

static float factor_of(const row_view *r)
{
    return r->p->bias_factors ? r->p->bias_factors[r->head] : 1;
}

static float slope_of(const row_view *r)
{
    return fa_problem_slope(r->p, r->sequence, r->head);
}

static float bias_of(const row_view *r, int32_t key)
{
    const fa_tensor *bias = &r->p->tensor[FA_BIAS];
    if (!(r->p->features & FA_FEATURE_BIAS))
        return 0;
    int64_t at =
        fa_problem_extra_offset(bias, r->sequence, r->head, r->row, r->s->first) + key * bias->stride[3];
    return fa_load(bias->dtype, r->in->bias, at);
}

/* Distance of a key from the row's position, for ALiBi. */
static double distance(const row_view *r, int32_t key)
{
    return fabs((double)r->s->mask.diagonal + r->row - key);
}

static double score(const row_view *r, int32_t key)
{
    const fa_problem *p = r->p;
    const float *k = key_row(r, key);
    double sum = 0;
    for (int32_t d = 0; d < p->dim_qk; d++)
        sum += (double)r->q[d] * (double)k[d];
    sum *= (double)p->scale;
    if (p->softcap > 0)
        sum = (double)p->softcap * tanh(sum / (double)p->softcap);
    if (p->alibi_slopes)
        sum -= (double)slope_of(r) * distance(r, key);
    return sum + (double)factor_of(r) * (double)bias_of(r, key);
}

/* Weights of a row's keys under its largest score, their sum with the sink's, and the LSE. */
static double weigh_row(const row_view *r, double *weight, double *lse)
{
    const fa_problem *p = r->p;
    int32_t keys = r->s->len_kv;
    double max = p->sinks ? (double)p->sinks[r->head] : -INFINITY, sum = 0;
    for (int32_t j = 0; j < keys; j++) {
        weight[j] = r->seen[j] ? score(r, j) : -INFINITY;
        max = fmax(max, weight[j]);
    }
    for (int32_t j = 0; j < keys; j++) {
        weight[j] = weight[j] == -INFINITY ? 0 : exp(weight[j] - max);
        sum += weight[j];
    }
    if (p->sinks && p->sinks[r->head] != -INFINITY)
        sum += exp((double)p->sinks[r->head] - max);
    *lse = sum == 0 ? -INFINITY : max + log(sum);
    return sum;
}

static void reference_row(const row_view *r, double *o, double *lse)
{
    const fa_problem *p = r->p;
    double *weight = r->numbers, sum = weigh_row(r, weight, lse);
    for (int32_t d = 0; d < p->dim_v; d++)
        o[d] = 0;
    for (int32_t j = 0; j < r->s->len_kv; j++) {
        const float *v = value_row(r, j);
        for (int32_t d = 0; r->seen[j] && d < p->dim_v; d++)
            o[d] += weight[j] * (double)v[d];
    }
    for (int32_t d = 0; d < p->dim_v; d++)
        o[d] = sum == 0 ? 0 : o[d] / sum;
}

/* What f32 arithmetic can make of a number. */
typedef struct range {
    double low, high;
} range;

static const double unit = 0x1p-24;

static range widened(range x, double relative, double absolute)
{
    return (range){x.low - relative * fabs(x.low) - absolute, x.high + relative * fabs(x.high) + absolute};
}

/* Volatile, because gcc 12 rounds nothing where it makes one vector of two numbers that are rounded. */
static double as_f32(double x)
{
    volatile float nearest = (float)x;
    return (double)nearest;
}

/* Rounding keeps the order of numbers: what lies between two ends lies between the rounded ends, once rounded. */
static range rounded(range x)
{
    return (range){as_f32(x.low), as_f32(x.high)};
}

/* Beyond f32's range a number becomes infinite, and two of them NaN: what is made of those is not told apart. */
static const range anything = {-INFINITY, INFINITY};

static bool in_f32(range x)
{
    return fmax(fabs(x.low), fabs(x.high)) <= (double)FLT_MAX;
}

/*
 * What a score can come to, in any order of summation. Matrix units cut sums off instead of rounding them, which costs
 * 2 u each, and what is subnormal may become 0. A slope's or a bias's size decides the last rounding: where it swallows
 * the product, the range is one number, and keys of the same bias tie exactly.
 */
static range score_range(const row_view *r, int32_t key)
{
    const fa_problem *p = r->p;
    const float *k = key_row(r, key);
    double sum = 0, size = 0, scale = (double)p->scale, cap = (double)p->softcap;
    for (int32_t d = 0; d < p->dim_qk; d++) {
        double product = (double)r->q[d] * (double)k[d];
        sum += product;
        size += fabs(product);
    }
    range x = widened((range){sum, sum}, 0, 2 * (p->dim_qk + 1.0) * (unit * size + (double)FLT_MIN));
    if (!in_f32(x))
        return anything;
    x = scale < 0 ? (range){scale * x.high, scale * x.low} : (range){scale * x.low, scale * x.high};
    x = widened(x, 3 * unit, (double)FLT_MIN);
    if (!in_f32(x))
        return anything;
    if (cap > 0) {
        x = (range){cap * tanh(x.low / cap), cap * tanh(x.high / cap)};
        x = widened(x, 8 * unit, (double)FLT_MIN + cap * 0x1p-149);
        x = (range){fmax(x.low, -cap), fmin(x.high, cap)};
    }
    if (p->alibi_slopes) {
        double exact = (double)slope_of(r) * distance(r, key), once = as_f32(exact);
        x = rounded((range){x.low - fmax(exact, once), x.high - fmin(exact, once)});
    }
    double bias = (double)factor_of(r) * (double)bias_of(r, key), once = as_f32(bias);
    return p->features & FA_FEATURE_BIAS
               ? rounded((range){x.low + fmin(bias, once), x.high + fmax(bias, once)})
               : x;
}

/*
 * What merging partial states adds to the score of a key: the LSE of the key's part is rounded, and lies between the
 * key's score and the LSE of the row.
 */
static range merged(range x, double top, double keys, int merges)
{
    double size = fmax(fmax(fabs(x.low), fabs(x.high)), fabs(top) + log(keys));
    return widened(x, 0, merges * unit * (2 * size + 3));
}

/* A sum of exponentials, whose terms are held apart from their logarithms' size: 1e38 and log(2) have no sum. */
typedef struct log_sum {
    int32_t first;         /* the largest term                         */
    double top, sum;       /* its exponent; the sum of all under it    */
    double second, others; /* likewise of all terms but the largest    */
} log_sum;

static double term(const range *score, int32_t j, bool high)
{
    return high ? score[j].high : score[j].low;
}

static log_sum sum_terms(const range *score, int32_t count, bool high)
{
    log_sum s = {.top = -INFINITY, .second = -INFINITY};
    for (int32_t j = 0; j < count; j++) {
        if (term(score, j, high) > s.top) {
            s.first = j;
            s.top = term(score, j, high);
        }
    }
    for (int32_t j = 0; j < count; j++)
        s.second = j == s.first ? s.second : fmax(s.second, term(score, j, high));
    for (int32_t j = 0; j < count && s.second > -INFINITY; j++)
        s.others += j == s.first ? 0 : exp(term(score, j, high) - s.second);
    s.sum = 1 + s.others * exp(s.second - s.top);
    return s;
}

/* The logarithm of a sum without term j, less `from`. */
static double sum_without(const log_sum *s, const range *score, int32_t j, bool high, double from)
{
    if (j == s->first)
        return s->second == -INFINITY ? -INFINITY : s->second - from + log(s->others);
    return s->top - from + log(s->sum - exp(term(score, j, high) - s->top));
}

/* Key j's share by one end of its own range and the other of all others. */
static double share_of(const log_sum *s, const range *score, int32_t j, bool high)
{
    double own = term(score, j, high);
    return own == -INFINITY ? 0 : 1 / (1 + exp(sum_without(s, score, j, !high, own)));
}

/* The ranges of a row's scores, behind them the sink, and the sums of their exponentials, of all low and all high ends. */
typedef struct row_range {
    range *score;
    log_sum low, high;
} row_range;

/* False where scores leave the range of f32. */
static bool range_row(const row_view *r, int merges, range *score, row_range *row)
{
    const fa_problem *p = r->p;
    int32_t keys = r->s->len_kv;
    double sink = p->sinks ? (double)p->sinks[r->head] : -INFINITY, top = sink;
    for (int32_t j = 0; j < keys; j++) {
        score[j] = r->seen[j] ? score_range(r, j) : (range){-INFINITY, -INFINITY};
        top = fmax(top, score[j].high);
    }
    for (int32_t j = 0; j < keys && merges > 0; j++)
        score[j] = isfinite(score[j].high) ? merged(score[j], top, keys, merges) : score[j];
    score[keys] = (range){sink, sink};
    *row = (row_range){score, sum_terms(score, keys + 1, false), sum_terms(score, keys + 1, true)};
    return isfinite(row->low.top) && isfinite(row->high.top);
}

/* The most by which the share of key j can differ from `share`, by its own score and the others'. */
static double share_limit(const row_range *row, int32_t j, double share)
{
    double most = share_of(&row->low, row->score, j, true),
           least = share_of(&row->high, row->score, j, false);
    return fmax(fmax(most - share, share - least), 0);
}

static double unit_roundoff(fa_dtype dtype)
{
    return dtype == FA_F32 ? unit : dtype == FA_F16 ? 0x1p-11 : 0x1p-8;
}

/* The distance of subnormal numbers; f32 and bf16 may lose all of them. */
static double smallest_step(fa_dtype dtype)
{
    return dtype == FA_F16 ? 0x1p-24 : (double)FLT_MIN;
}

/*
 * The largest error of an output, in any dim: each share p_j moves its value's distance from the result, the sink's a
 * value of 0. No more than the result's distance from what weights can give at all, which lies between the least value and
 * the largest.
 */
static double limit_output(const row_view *r, const double *share, const double *change, double relative)
{
    const int32_t dim = r->p->dim_v, keys = r->s->len_kv;
    const bool sinks = r->p->sinks != NULL;
    column_limit *c = r->columns;
    for (int32_t d = 0; d < dim; d++)
        c[d] = (column_limit){.least = sinks ? 0 : INFINITY, .most = sinks ? 0 : -INFINITY};
    for (int32_t j = 0; j < keys; j++) {
        const float *v = value_row(r, j);
        for (int32_t d = 0; r->seen[j] && d < dim; d++)
            c[d].o += isfinite(v[d]) ? share[j] * (double)v[d] : 0;
    }
    for (int32_t j = 0; j < keys; j++) {
        const float *row = value_row(r, j);
        for (int32_t d = 0; r->seen[j] && d < dim; d++) {
            const double v = (double)row[d];
            if (!isfinite(v))
                continue;
            c[d].moved += change[j] * fabs(v - c[d].o) + relative * share[j] * fabs(v);
            c[d].least = v < c[d].least ? v : c[d].least;
            c[d].most = v > c[d].most ? v : c[d].most;
        }
    }
    double limit = 0;
    for (int32_t d = 0; d < dim; d++) {
        const double moved = c[d].moved + (sinks ? change[keys] * fabs(c[d].o) : 0);
        const double farthest = fmax(c[d].most - c[d].o, c[d].o - c[d].least) +
                                relative * fmax(fabs(c[d].most), fabs(c[d].least));
        limit = fmax(limit, fmin(moved, farthest));
    }
    return limit;
}

/* Of one row: see fa_reference_limit(). */
static void limit_row(const row_view *r, fa_dtype weights, int merges, double *o, double *lse)
{
    int32_t keys = r->s->len_kv;
    double *share = r->numbers, *change = share + keys + 1, exact, sum = weigh_row(r, share, &exact);
    row_range row;
    if (sum == 0 || !isfinite(exact) || !range_row(r, merges, (range *)(void *)(change + keys + 1), &row)) {
        *o = *lse = sum == 0 ? 0 : INFINITY;
        return;
    }
    /* Sums of weights and of products, exponentials, the rounding of weights; tiny weights may be lost. */
    double relative = 2 * unit * (keys + 100.0) + unit_roundoff(weights);
    double of_sink = 1;
    for (int32_t j = 0; j < keys; j++) {
        share[j] /= sum;
        of_sink -= share[j];
        change[j] = share_limit(&row, j, share[j]) + smallest_step(weights);
    }
    change[keys] = r->p->sinks ? share_limit(&row, keys, fmax(of_sink, 0)) : 0;
    *o = limit_output(r, share, change, relative);
    double low = row.low.top + log(row.low.sum), high = row.high.top + log(row.high.sum);
    *lse = fmax(exact - low, high - exact) + relative + merges * unit * (2 * fabs(exact) + 3);
}

/* The order in which a naive implementation visits `count` things: step `i` of it. */
static int32_t visit(fa_naive_order order, int32_t count, int32_t i)
{
    enum { STRIDE = 8 };
    if (order == FA_ORDER_BACKWARD)
        return count - 1 - i;
    if (order == FA_ORDER_FORWARD || count < STRIDE)
        return i;
    int32_t rounds = count / STRIDE, whole = rounds * STRIDE;
    return i < whole ? i % rounds * STRIDE + i / rounds : i;
}

static float naive_score(const row_view *r, fa_naive_order order, int32_t key)
{
    const fa_problem *p = r->p;
    const float *k = key_row(r, key);
    float sum = 0;
    for (int32_t i = 0; i < p->dim_qk; i++) {
        int32_t d = visit(order, p->dim_qk, i);
        sum += r->q[d] * k[d];
    }
    sum *= p->scale;
    if (p->softcap > 0)
        sum = p->softcap * tanhf(sum / p->softcap);
    if (p->alibi_slopes)
        sum -= slope_of(r) * (float)distance(r, key);
    return sum + factor_of(r) * bias_of(r, key);
}

static float round_to(fa_dtype dtype, float value)
{
    uint32_t element = 0;
    fa_store(dtype, &element, 0, value);
    return fa_load(dtype, &element, 0);
}

static void naive_row(const row_view *r, fa_naive_order order, fa_dtype weights, float *o, float *lse)
{
    const fa_problem *p = r->p;
    float *weight = r->numbers;
    int32_t keys = r->s->len_kv;
    float max = p->sinks ? p->sinks[r->head] : -INFINITY, sum = 0;
    for (int32_t j = 0; j < keys; j++) {
        weight[j] = r->seen[j] ? naive_score(r, order, j) : -INFINITY;
        max = fmaxf(max, weight[j]);
    }
    for (int32_t i = 0; i < keys; i++) {
        int32_t j = visit(order, keys, i);
        weight[j] = weight[j] == -INFINITY ? 0 : expf(weight[j] - max);
        sum += weight[j];
        weight[j] = round_to(weights, weight[j]);
    }
    if (p->sinks && p->sinks[r->head] != -INFINITY)
        sum += expf(p->sinks[r->head] - max);
    for (int32_t d = 0; d < p->dim_v; d++)
        o[d] = 0;
    for (int32_t i = 0; i < keys; i++) {
        int32_t j = visit(order, keys, i);
        const float *v = value_row(r, j);
        for (int32_t d = 0; r->seen[j] && d < p->dim_v; d++)
            o[d] += weight[j] * v[d];
    }
    for (int32_t d = 0; d < p->dim_v; d++)
        o[d] = round_to(p->tensor[FA_O].dtype, sum == 0 ? 0 : o[d] / sum);
    *lse = sum == 0 ? -INFINITY : max + logf(sum);
}

/* Which of the three to run, and where its results go. */
typedef struct reference_job {
    double *o, *lse;
    double *limit, *lse_limit;
    float *naive_o, *naive_lse;
    fa_naive_order order;
    fa_dtype weights;
    int merges;
} reference_job;

static void run_row(const reference_job *job, const row_view *r)
{
    const fa_problem *p = r->p;
    int64_t at = fa_problem_lse_index(p, r->s, r->head, r->row);
    widen_query(r);
    for (int32_t j = 0; j < r->s->len_kv; j++)
        r->seen[j] = sees(r, j);
    if (job->o) {
        double lse;
        reference_row(r, job->o + at * p->dim_v, &lse);
        if (job->lse)
            job->lse[at] = lse;
    } else if (job->limit) {
        limit_row(r, job->weights, job->merges, job->limit + at, job->lse_limit + at);
    } else {
        float lse;
        naive_row(r, job->order, job->weights, job->naive_o + at * p->dim_v, &lse);
        if (job->naive_lse)
            job->naive_lse[at] = lse;
    }
}

static fa_status check_inputs(const fa_problem *p, const fa_inputs *in)
{
    if (!in)
        return fa_fail(FA_INVALID, "inputs is NULL");
    const void *given[FA_OPERANDS] = {
        [FA_Q] = in->q,
        [FA_K] = in->k,
        [FA_V] = values_of(p, in),
        [FA_BIAS] = in->bias,
        [FA_KEEP] = in->keep,
        [FA_PAGES] = in->page_table,
        [FA_K_SCALE] = in->k_scale,
        [FA_V_SCALE] = in->v_scale,
        [FA_K_ZERO] = in->k_zero,
        [FA_V_ZERO] = in->v_zero,
    };
    for (int t = 0; t < FA_OPERANDS; t++) {
        if (!fa_operands[t].written && p->span[t] > 0 && !given[t])
            return fa_fail(FA_INVALID, "inputs.%s is NULL, expected %zu bytes", fa_operands[t].name,
                           p->span[t]);
    }
    for (int64_t n = 0; n < p->sequences; n++) {
        const fa_sequence *s = &p->sequence[n];
        fa_status status = fa_pages_check(p, in->page_table, n, s->first, s->len_kv);
        if (status != FA_OK)
            return status;
    }
    return FA_OK;
}

/* Divides memory among a view's arrays, the widest elements first. Where it is NULL, *bytes alone is told. False where
 * that is more than memory has. */
static bool lay_out(const fa_problem *p, char *memory, row_view *r, size_t *bytes)
{
    const size_t keys = (size_t)p->max_len_kv, dim_qk = (size_t)p->dim_qk, dim_v = (size_t)p->dim_v;
    size_t at = 0, columns, q, k, v, seen;
    bool fits = fa_grow(&at, keys + 1, NUMBERS * sizeof(double));
    columns = at;
    fits = fits && fa_grow(&at, dim_v, sizeof(column_limit));
    q = at;
    fits = fits && fa_grow(&at, dim_qk, sizeof(float));
    k = at;
    fits = fits && fa_grow(&at, keys, dim_qk * sizeof(float));
    v = at;
    fits = fits && fa_grow(&at, keys, dim_v * sizeof(float));
    seen = at;
    fits = fits && fa_grow(&at, keys, sizeof(bool));
    *bytes = at;
    if (!fits || !memory)
        return fits;
    r->numbers = memory;
    r->columns = (column_limit *)(void *)(memory + columns);
    r->q = (float *)(void *)(memory + q);
    r->k = (float *)(void *)(memory + k);
    r->v = (float *)(void *)(memory + v);
    r->seen = (bool *)(memory + seen);
    return true;
}

/* All rows of the KV head that r->head is the first query head of. */
static void run_head(const reference_job *job, row_view *r)
{
    const int32_t begin = r->head, end = begin + r->p->group;
    if (r->s->len_q > 0)
        widen_keys(r);
    for (; r->head < end; r->head++) {
        for (r->row = 0; r->row < r->s->len_q; r->row++)
            run_row(job, r);
    }
}

FA_FLOAT_APART static fa_status run_rows(fa_context *context, const fa_attention_desc *desc,
                                         const fa_inputs *inputs, const reference_job *job)
{
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    if (!job->o && !job->limit && !job->naive_o)
        return fa_fail(FA_INVALID, "o is NULL");
    fa_problem p;
    fa_status status = fa_problem_init(context, desc, &p);
    if (status != FA_OK)
        return status;
    status = check_inputs(&p, inputs);
    row_view r = {.p = &p, .in = inputs};
    size_t bytes = 0;
    char *memory = NULL;
    if (status == FA_OK && !lay_out(&p, NULL, &r, &bytes))
        status = fa_fail(FA_OUT_OF_MEMORY, "k and v as f32 are more than memory has");
    if (status == FA_OK && !(memory = fa_alloc(context, bytes)))
        status = FA_OUT_OF_MEMORY;
    if (status == FA_OK)
        (void)lay_out(&p, memory, &r, &bytes);
    for (int64_t n = 0; status == FA_OK && n < p.sequences; n++) {
        r.s = &p.sequence[n];
        r.sequence = n;
        for (int32_t head = 0; head < p.heads_q; head += p.group) {
            r.head = head;
            run_head(job, &r);
        }
    }
    fa_release(context, memory, bytes);
    fa_problem_release(context, &p);
    return status;
}

static fa_status run_reference(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                               const reference_job *job)
{
    fa_float_state before = fa_float_enter();
    fa_status status = run_rows(context, desc, inputs, job);
    fa_float_leave(before);
    return status;
}

fa_status fa_reference_attention(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                                 double *o, double *lse)
{
    reference_job job = {.o = o, .lse = lse};
    return run_reference(context, desc, inputs, &job);
}

fa_status fa_reference_limit(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                             fa_dtype weights, int32_t merges, double *o, double *lse)
{
    fa_clear_error();
    fa_status status = fa_dtype_check_float(weights, "weights");
    if (status != FA_OK)
        return status;
    if (merges < 0)
        return fa_fail(FA_INVALID, "merges is %d, expected at least 0", (int)merges);
    if (!lse)
        return fa_fail(FA_INVALID, "lse is NULL");
    reference_job job = {.limit = o, .lse_limit = lse, .weights = weights, .merges = merges};
    return run_reference(context, desc, inputs, &job);
}

fa_status fa_naive_attention(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                             fa_naive_order order, fa_dtype weights, float *o, float *lse)
{
    fa_clear_error();
    if ((int)order < 0 || order >= FA_NAIVE_ORDERS)
        return fa_fail(FA_INVALID, "order is %d, expected 0 to %d", (int)order, FA_NAIVE_ORDERS - 1);
    fa_status status = fa_dtype_check_float(weights, "weights");
    if (status != FA_OK)
        return status;
    reference_job job = {.naive_o = o, .naive_lse = lse, .order = order, .weights = weights};
    return run_reference(context, desc, inputs, &job);
}
