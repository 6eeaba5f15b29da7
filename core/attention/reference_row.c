/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/reference_row.h"

#include "core/attention/pages.h"
#include "core/attention/scales.h"
#include "core/half.h"
#include "core/tensor.h"

/* Where a key lies in k and v. */
typedef struct key_place {
    int64_t batch, row; /* the batch may be a page */
} key_place;

static key_place place_of(const fa_oracle_row *r, int32_t key)
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
static void widen_key(const fa_oracle_row *r, int operand, const void *base, const void *scale,
                      const void *zero, int32_t key, int32_t dim, float *row)
{
    const fa_tensor *t = &r->p->tensor[operand];
    const fa_scales *scales = fa_scales_of(r->p, operand);
    const key_place at = place_of(r, key);
    const int64_t head = r->head / r->p->group;
    row += (size_t)key * (size_t)dim;
    const int64_t first = fa_tensor_offset(t, at.batch, head, at.row);
    if (!FA_TYPE_PRUNES((int)t->dtype))
        widen(t->dtype, base, first, dim, row);
    for (int32_t d = 0; FA_TYPE_PRUNES((int)t->dtype) && d < dim; d++)
        row[d] = fa_load_pruned((const uint8_t *)base + first, dim, scales->row_bytes, d);
    for (int32_t d = 0; scales->scale_type >= 0 && d < dim; d++) {
        const fa_scaling s = fa_scales_at(scales, scale, zero, at.batch, head, at.row, d);
        /* The product is exact. Not every system's fmaf() rounds once. */
        row[d] = (float)((double)s.scale * (double)row[d] + (double)s.offset);
    }
}

const void *fa_oracle_values_of(const fa_problem *p, const fa_inputs *in)
{
    return p->features & FA_FEATURE_V_IN_K ? in->k : in->v;
}

void fa_oracle_widen_keys(const fa_oracle_row *r)
{
    const fa_inputs *in = r->in;
    for (int32_t j = 0; j < r->s->len_kv; j++) {
        widen_key(r, FA_K, in->k, in->k_scale, in->k_zero, j, r->p->dim_qk, r->k);
        widen_key(r, FA_V, fa_oracle_values_of(r->p, in), in->v_scale, in->v_zero, j, r->p->dim_v, r->v);
    }
}

void fa_oracle_widen_query(const fa_oracle_row *r)
{
    const fa_tensor *q = &r->p->tensor[FA_Q];
    widen(q->dtype, r->in->q, fa_tensor_offset(q, r->s->q_batch, r->head, r->s->q_row + r->row), r->p->dim_qk,
          r->q);
}

bool fa_oracle_sees(const fa_oracle_row *r, int32_t key)
{
    if (!fa_mask_visible(r->s->mask, r->row, key))
        return false;
    if (r->p->lists.given && r->p->lists.bits &&
        !fa_lists_have(&r->p->lists, r->s->number, r->head, r->row, r->s->first + key))
        return false;
    if (r->p->near.words && !fa_grid_shows(&r->p->near.grid, r->row, r->s->first + key))
        return false;
    if (!(r->p->features & FA_FEATURE_KEEP))
        return true;
    return fa_problem_keeps(r->p, r->in->keep, r->sequence, r->head, r->row, &r->s->mask, r->s->first, key);
}

float fa_oracle_bias(const fa_oracle_row *r, int32_t key)
{
    const fa_tensor *bias = &r->p->tensor[FA_BIAS];
    if (!(r->p->features & FA_FEATURE_BIAS))
        return 0;
    int64_t at =
        fa_problem_extra_offset(bias, r->sequence, r->head, r->row, r->s->first) + key * bias->stride[3];
    return fa_load(bias->dtype, r->in->bias, at);
}

static double score(const fa_oracle_row *r, int32_t key)
{
    const fa_problem *p = r->p;
    const float *k = fa_oracle_key(r, key);
    double sum = 0;
    for (int32_t d = 0; d < p->dim_qk; d++)
        sum += (double)r->q[d] * (double)k[d];
    sum *= (double)p->scale;
    if (p->softcap > 0)
        sum = (double)p->softcap * tanh(sum / (double)p->softcap);
    if (p->alibi_slopes)
        sum -= (double)fa_oracle_slope(r) * fa_oracle_distance(r, key);
    return sum + (double)fa_oracle_factor(r) * (double)fa_oracle_bias(r, key);
}

double fa_oracle_weigh(const fa_oracle_row *r, double *weight, double *lse)
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
