/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/reference.h>

#include <math.h>

#include "core/context.h"
#include "core/half.h"
#include "core/problem.h"
#include "core/status.h"
#include "core/tensor.h"

float fa_f16_to_f32(uint16_t bits)
{
    return fa_half_load(bits);
}

uint16_t fa_f32_to_f16(float value)
{
    return fa_half_store(value);
}

float fa_bf16_to_f32(uint16_t bits)
{
    return fa_brain_load(bits);
}

uint16_t fa_f32_to_bf16(float value)
{
    return fa_brain_store(value);
}

/* One query row of one head, and where its operands are. */
typedef struct row_view {
    const fa_problem *p;
    const fa_sequence *s;
    const fa_inputs *in;
    int64_t sequence;
    int32_t row, head;
    int64_t q, k, v; /* element offsets of the row of q and of key 0 */
} row_view;

static row_view view_row(const fa_problem *p, const fa_inputs *in, int64_t n, int32_t head, int32_t row)
{
    const fa_sequence *s = &p->sequence[n];
    int32_t head_kv = head / p->group;
    return (row_view){
        .p = p,
        .s = s,
        .in = in,
        .sequence = n,
        .row = row,
        .head = head,
        .q = fa_tensor_offset(&p->tensor[FA_Q], s->q_batch, head, s->q_row + row),
        .k = fa_tensor_offset(&p->tensor[FA_K], s->kv_batch, head_kv, s->kv_row),
        .v = fa_tensor_offset(&p->tensor[FA_V], s->kv_batch, head_kv, s->kv_row),
    };
}

static bool sees(const row_view *r, int32_t key)
{
    if (!fa_mask_visible(r->s->mask, r->row, key))
        return false;
    const fa_tensor *keep = &r->p->tensor[FA_KEEP];
    if (!(r->p->features & FA_FEATURE_KEEP))
        return true;
    int64_t at = fa_problem_extra_offset(keep, r->sequence, r->head, r->row) + (keep->shape[3] > 1 ? key : 0);
    return fa_load(FA_BOOL, r->in->keep, at) != 0;
}

static float bias_of(const row_view *r, int32_t key)
{
    const fa_tensor *bias = &r->p->tensor[FA_BIAS];
    if (!(r->p->features & FA_FEATURE_BIAS))
        return 0;
    int64_t at = fa_problem_extra_offset(bias, r->sequence, r->head, r->row) + (bias->shape[3] > 1 ? key : 0);
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
    int64_t k = r->k + key * p->tensor[FA_K].stride[2];
    double sum = 0;
    for (int32_t d = 0; d < p->dim_qk; d++)
        sum += load_at(r, FA_Q, r->in->q, r->q + d) * load_at(r, FA_K, r->in->k, k + d);
    sum *= (double)p->scale;
    if (p->softcap > 0)
        sum = (double)p->softcap * tanh(sum / (double)p->softcap);
    if (p->alibi_slopes)
        sum -= (double)p->alibi_slopes[r->head] * distance(r, key);
    return sum + (double)bias_of(r, key);
}

static void reference_row(const row_view *r, double *weight, double *o, double *lse)
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
    for (int32_t d = 0; d < p->dim_v; d++) {
        double total = 0;
        for (int32_t j = 0; j < keys; j++) {
            if (sees(r, j))
                total += weight[j] * load_at(r, FA_V, r->in->v, r->v + j * p->tensor[FA_V].stride[2] + d);
        }
        o[d] = sum == 0 ? 0 : total / sum;
    }
    *lse = sum == 0 ? -INFINITY : max + log(sum);
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
    int64_t k = r->k + key * p->tensor[FA_K].stride[2];
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
        sum -= p->alibi_slopes[r->head] * (float)distance(r, key);
    return sum + bias_of(r, key);
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
                total += weight[j] *
                         fa_load(p->tensor[FA_V].dtype, r->in->v, r->v + j * p->tensor[FA_V].stride[2] + d);
        }
        o[d] = round_to(p->tensor[FA_O].dtype, sum == 0 ? 0 : total / sum);
    }
    *lse = sum == 0 ? -INFINITY : max + logf(sum);
}

/* Which of the two to run, and where its results go. */
typedef struct reference_job {
    double *o, *lse;
    float *naive_o, *naive_lse;
    fa_naive_order order;
    fa_dtype weights;
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
    const void *given[] = {
        [FA_Q] = in->q, [FA_K] = in->k, [FA_V] = in->v, [FA_BIAS] = in->bias, [FA_KEEP] = in->keep};
    for (int t = 0; t <= FA_KEEP; t++) {
        if (t != FA_O && p->span[t] > 0 && !given[t])
            return fa_fail(FA_INVALID, "inputs.%s is NULL, expected %zu bytes", fa_operand_names[t],
                           p->span[t]);
    }
    return FA_OK;
}

static fa_status run_reference(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                               const reference_job *job)
{
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    if (!job->o && !job->naive_o)
        return fa_fail(FA_INVALID, "o is NULL");
    fa_problem p;
    fa_status status = fa_problem_init(context, desc, &p);
    if (status != FA_OK)
        return status;
    status = check_inputs(&p, inputs);
    size_t bytes = (size_t)p.max_len_kv * sizeof(double);
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

fa_status fa_reference_attention(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                                 double *o, double *lse)
{
    reference_job job = {.o = o, .lse = lse};
    return run_reference(context, desc, inputs, &job);
}

fa_status fa_naive_attention(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                             fa_naive_order order, fa_dtype weights, float *o, float *lse)
{
    fa_clear_error();
    if ((int)order < 0 || order >= FA_NAIVE_ORDERS)
        return fa_fail(FA_INVALID, "order is %d, expected 0 to %d", (int)order, FA_NAIVE_ORDERS - 1);
    if (weights == FA_BOOL || fa_dtype_size(weights) == 0)
        return fa_fail(FA_INVALID, "weights is %s, expected f32, f16 or bf16", fa_dtype_name(weights));
    reference_job job = {.naive_o = o, .naive_lse = lse, .order = order, .weights = weights};
    return run_reference(context, desc, inputs, &job);
}
