/* SPDX-License-Identifier: Apache-2.0 */
/* How far from the exact result f32 arithmetic may lead, for one row: what its scores, shares and outputs can come to. */
#include <float.h>

#include "core/attention/reference_row.h"

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
static range score_range(const fa_oracle_row *r, int32_t key)
{
    const fa_problem *p = r->p;
    const float *k = fa_oracle_key(r, key);
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
        double exact = (double)fa_oracle_slope(r) * fa_oracle_distance(r, key), once = as_f32(exact);
        x = rounded((range){x.low - fmax(exact, once), x.high - fmin(exact, once)});
    }
    double bias = (double)fa_oracle_factor(r) * (double)fa_oracle_bias(r, key), once = as_f32(bias);
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
static bool range_row(const fa_oracle_row *r, int merges, range *score, row_range *row)
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
static double limit_output(const fa_oracle_row *r, const double *share, const double *change, double relative)
{
    const int32_t dim = r->p->dim_v, keys = r->s->len_kv;
    const bool sinks = r->p->sinks != NULL;
    fa_oracle_column *c = r->columns;
    for (int32_t d = 0; d < dim; d++)
        c[d] = (fa_oracle_column){.least = sinks ? 0 : INFINITY, .most = sinks ? 0 : -INFINITY};
    for (int32_t j = 0; j < keys; j++) {
        const float *v = fa_oracle_value(r, j);
        for (int32_t d = 0; r->seen[j] && d < dim; d++)
            c[d].o += isfinite(v[d]) ? share[j] * (double)v[d] : 0;
    }
    for (int32_t j = 0; j < keys; j++) {
        const float *row = fa_oracle_value(r, j);
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

void fa_oracle_limit(const fa_oracle_row *r, fa_dtype weights, int merges, double *o, double *lse)
{
    int32_t keys = r->s->len_kv;
    double *share = r->numbers, *change = share + keys + 1, exact, sum = fa_oracle_weigh(r, share, &exact);
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
