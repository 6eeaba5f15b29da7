/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/reference.h>

#include <float.h>
#include <math.h>

#include "core/attention/pages.h"
#include "core/attention/problem.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/half.h"
#include "core/status.h"
#include "core/tensor.h"

/* One query row of one head, and where its operands are. */
typedef struct row_view {
    const fa_problem *p;
    const fa_sequence *s;
    const fa_inputs *in;
    int64_t sequence;
    int32_t row, head;
    int64_t q; /* element offset of the row of q */
} row_view;

static row_view view_row(const fa_problem *p, const fa_inputs *in, int64_t n, int32_t head, int32_t row)
{
    const fa_sequence *s = &p->sequence[n];
    return (row_view){
        .p = p,
        .s = s,
        .in = in,
        .sequence = n,
        .row = row,
        .head = head,
        .q = fa_tensor_offset(&p->tensor[FA_Q], s->q_batch, head, s->q_row + row),
    };
}

/* Element offset of a key's row of k or v. */
static int64_t key_at(const row_view *r, int operand, int32_t key)
{
    const fa_problem *p = r->p;
    const fa_tensor *t = &p->tensor[operand];
    const int64_t head = r->head / p->group, number = r->s->first + (int64_t)key,
                  page = p->tensor[FA_K].shape[2];
    if (!(p->features & FA_FEATURE_PAGES))
        return fa_tensor_offset(t, r->s->kv_batch, head, r->s->kv_row + key);
    return fa_tensor_offset(t, fa_page_of(p, r->in->page_table, r->sequence, number), head, number % page);
}

static bool sees(const row_view *r, int32_t key)
{
    if (!fa_mask_visible(r->s->mask, r->row, key))
        return false;
    const fa_tensor *keep = &r->p->tensor[FA_KEEP];
    if (!(r->p->features & FA_FEATURE_KEEP))
        return true;
    int64_t at =
        fa_problem_extra_offset(keep, r->sequence, r->head, r->row, r->s->first) + key * keep->stride[3];
    return fa_load(FA_BOOL, r->in->keep, at) != 0;
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

static double load_at(const row_view *r, int operand, const void *base, int64_t index)
{
    return (double)fa_load(r->p->tensor[operand].dtype, base, index);
}

static double score(const row_view *r, int32_t key)
{
    const fa_problem *p = r->p;
    int64_t k = key_at(r, FA_K, key);
    double sum = 0;
    for (int32_t d = 0; d < p->dim_qk; d++)
        sum += load_at(r, FA_Q, r->in->q, r->q + d) * load_at(r, FA_K, r->in->k, k + d);
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
        weight[j] = sees(r, j) ? score(r, j) : -INFINITY;
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

static void reference_row(const row_view *r, double *weight, double *o, double *lse)
{
    const fa_problem *p = r->p;
    double sum = weigh_row(r, weight, lse);
    for (int32_t d = 0; d < p->dim_v; d++) {
        double total = 0;
        for (int32_t j = 0; j < r->s->len_kv; j++) {
            if (sees(r, j))
                total += weight[j] * load_at(r, FA_V, r->in->v, key_at(r, FA_V, j) + d);
        }
        o[d] = sum == 0 ? 0 : total / sum;
    }
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
    int64_t k = key_at(r, FA_K, key);
    double sum = 0, size = 0, scale = (double)p->scale, cap = (double)p->softcap;
    for (int32_t d = 0; d < p->dim_qk; d++) {
        double product = load_at(r, FA_Q, r->in->q, r->q + d) * load_at(r, FA_K, r->in->k, k + d);
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
        score[j] = sees(r, j) ? score_range(r, j) : (range){-INFINITY, -INFINITY};
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
    double limit = 0, change_of_sink = change[r->s->len_kv];
    for (int32_t d = 0; d < r->p->dim_v; d++) {
        double o = 0, moved = 0, least = INFINITY, most = -INFINITY;
        for (int pass = 0; pass < 2; pass++) {
            for (int32_t j = 0; j < r->s->len_kv; j++) {
                double v = sees(r, j) ? load_at(r, FA_V, r->in->v, key_at(r, FA_V, j) + d) : 0;
                if (!sees(r, j) || !isfinite(v))
                    continue;
                o += pass == 0 ? share[j] * v : 0;
                moved += pass == 1 ? change[j] * fabs(v - o) + relative * share[j] * fabs(v) : 0;
                least = fmin(least, v);
                most = fmax(most, v);
            }
        }
        if (r->p->sinks) {
            moved += change_of_sink * fabs(o);
            least = fmin(least, 0);
            most = fmax(most, 0);
        }
        double farthest = fmax(most - o, o - least) + relative * fmax(fabs(most), fabs(least));
        limit = fmax(limit, fmin(moved, farthest));
    }
    return limit;
}

/* Of one row: see fa_reference_limit(). `memory` holds four numbers for each key and for the sink. */
static void limit_row(const row_view *r, fa_dtype weights, int merges, double *memory, double *o, double *lse)
{
    int32_t keys = r->s->len_kv;
    double *share = memory, *change = memory + keys + 1, exact, sum = weigh_row(r, share, &exact);
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
    int64_t k = key_at(r, FA_K, key);
    float sum = 0;
    for (int32_t i = 0; i < p->dim_qk; i++) {
        int32_t d = visit(order, p->dim_qk, i);
        sum += fa_load(p->tensor[FA_Q].dtype, r->in->q, r->q + d) *
               fa_load(p->tensor[FA_K].dtype, r->in->k, k + d);
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

static void naive_row(const row_view *r, fa_naive_order order, fa_dtype weights, float *weight, float *o,
                      float *lse)
{
    const fa_problem *p = r->p;
    int32_t keys = r->s->len_kv;
    float max = p->sinks ? p->sinks[r->head] : -INFINITY, sum = 0;
    for (int32_t j = 0; j < keys; j++) {
        weight[j] = sees(r, j) ? naive_score(r, order, j) : -INFINITY;
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
    for (int32_t d = 0; d < p->dim_v; d++) {
        float total = 0;
        for (int32_t i = 0; i < keys; i++) {
            int32_t j = visit(order, keys, i);
            if (sees(r, j))
                total += weight[j] * fa_load(p->tensor[FA_V].dtype, r->in->v, key_at(r, FA_V, j) + d);
        }
        o[d] = round_to(p->tensor[FA_O].dtype, sum == 0 ? 0 : total / sum);
    }
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

static void run_row(const reference_job *job, const row_view *r, void *weight)
{
    const fa_problem *p = r->p;
    int64_t at = fa_problem_lse_index(p, r->s, r->head, r->row);
    if (job->o) {
        double lse;
        reference_row(r, weight, job->o + at * p->dim_v, &lse);
        if (job->lse)
            job->lse[at] = lse;
    } else if (job->limit) {
        limit_row(r, job->weights, job->merges, weight, job->limit + at, job->lse_limit + at);
    } else {
        float lse;
        naive_row(r, job->order, job->weights, weight, job->naive_o + at * p->dim_v, &lse);
        if (job->naive_lse)
            job->naive_lse[at] = lse;
    }
}

static fa_status check_inputs(const fa_problem *p, const fa_inputs *in)
{
    if (!in)
        return fa_fail(FA_INVALID, "inputs is NULL");
    const void *given[FA_OPERANDS] = {
        [FA_Q] = in->q,       [FA_K] = in->k,       [FA_V] = in->v,
        [FA_BIAS] = in->bias, [FA_KEEP] = in->keep, [FA_PAGES] = in->page_table,
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
    enum { NUMBERS = 4 }; /* of a key, and of the sink, at most */
    size_t bytes = NUMBERS * ((size_t)p.max_len_kv + 1) * sizeof(double);
    void *weight = status == FA_OK ? fa_alloc(context, bytes) : NULL;
    if (status == FA_OK && !weight)
        status = FA_OUT_OF_MEMORY;
    for (int64_t n = 0; status == FA_OK && n < p.sequences; n++) {
        for (int32_t head = 0; head < p.heads_q; head++) {
            for (int32_t row = 0; row < p.sequence[n].len_q; row++) {
                row_view r = view_row(&p, inputs, n, head, row);
                run_row(job, &r, weight);
            }
        }
    }
    fa_release(context, weight, bytes);
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
