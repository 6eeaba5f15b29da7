/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/reference.h>

#include <math.h>

#include "core/attention/pages.h"
#include "core/attention/reference_row.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/half.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

static void reference_row(const fa_oracle_row *r, double *o, double *lse)
{
    const fa_problem *p = r->p;
    double *weight = r->numbers, sum = fa_oracle_weigh(r, weight, lse);
    for (int32_t d = 0; d < p->dim_v; d++)
        o[d] = 0;
    for (int32_t j = 0; j < r->s->len_kv; j++) {
        const float *v = fa_oracle_value(r, j);
        for (int32_t d = 0; r->seen[j] && d < p->dim_v; d++)
            o[d] += weight[j] * (double)v[d];
    }
    for (int32_t d = 0; d < p->dim_v; d++)
        o[d] = sum == 0 ? 0 : o[d] / sum;
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

static float naive_score(const fa_oracle_row *r, fa_naive_order order, int32_t key)
{
    const fa_problem *p = r->p;
    const float *k = fa_oracle_key(r, key);
    float sum = 0;
    for (int32_t i = 0; i < p->dim_qk; i++) {
        int32_t d = visit(order, p->dim_qk, i);
        sum += r->q[d] * k[d];
    }
    sum *= p->scale;
    if (p->softcap > 0)
        sum = p->softcap * tanhf(sum / p->softcap);
    if (p->alibi_slopes)
        sum -= fa_oracle_slope(r) * (float)fa_oracle_distance(r, key);
    return sum + fa_oracle_factor(r) * fa_oracle_bias(r, key);
}

static float round_to(fa_dtype dtype, float value)
{
    uint32_t element = 0;
    fa_store(dtype, &element, 0, value);
    return fa_load(dtype, &element, 0);
}

static void naive_row(const fa_oracle_row *r, fa_naive_order order, fa_dtype weights, float *o, float *lse)
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
        const float *v = fa_oracle_value(r, j);
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

static void run_row(const reference_job *job, const fa_oracle_row *r)
{
    const fa_problem *p = r->p;
    int64_t at = fa_problem_lse_index(p, r->s, r->head, r->row);
    fa_oracle_widen_query(r);
    for (int32_t j = 0; j < r->s->len_kv; j++)
        r->seen[j] = fa_oracle_sees(r, j);
    if (job->o) {
        double lse;
        reference_row(r, job->o + at * p->dim_v, &lse);
        if (job->lse)
            job->lse[at] = lse;
    } else if (job->limit) {
        fa_oracle_limit(r, job->weights, job->merges, job->limit + at, job->lse_limit + at);
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
        [FA_V] = fa_oracle_values_of(p, in),
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
static bool lay_out(const fa_problem *p, char *memory, fa_oracle_row *r, size_t *bytes)
{
    const size_t keys = (size_t)p->max_len_kv, dim_qk = (size_t)p->dim_qk, dim_v = (size_t)p->dim_v;
    size_t at = 0, columns, q, k, v, seen;
    bool fits = fa_grow(&at, keys + 1, FA_ORACLE_NUMBERS * sizeof(double));
    columns = at;
    fits = fits && fa_grow(&at, dim_v, sizeof(fa_oracle_column));
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
    r->columns = (fa_oracle_column *)(void *)(memory + columns);
    r->q = (float *)(void *)(memory + q);
    r->k = (float *)(void *)(memory + k);
    r->v = (float *)(void *)(memory + v);
    r->seen = (bool *)(memory + seen);
    return true;
}

/* All rows of the KV head that r->head is the first query head of. */
static void run_head(const reference_job *job, fa_oracle_row *r)
{
    const int32_t begin = r->head, end = begin + r->p->group;
    if (r->s->len_q > 0)
        fa_oracle_widen_keys(r);
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
    fa_oracle_row r = {.p = &p, .in = inputs};
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
