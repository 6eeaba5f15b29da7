/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/context.h"
#include "core/policies/policies.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

enum { SINKS = 4, RECENT = 4000 };
static const double RATIO = 5, INDUCTION_PART = 0.14, ECHO_PART = 0.01;

static fa_status check(fa_policy_razor_desc *d)
{
    FA_TRY(fa_policy_check_keys(d->heads, d->keys));
    if (!d->retrieval)
        return fa_fail(FA_INVALID, "retrieval is NULL");
    FA_TRY(fa_check_limit("sinks", d->sinks, -1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("recent", d->recent, 0, FA_MAX_LENGTH));
    d->sinks = d->sinks == 0 ? SINKS : FA_MAX(d->sinks, 0);
    d->recent = d->recent ? d->recent : RECENT;
    d->ratio = d->ratio == 0 ? RATIO : d->ratio;
    if (!(d->ratio >= 1 && isfinite(d->ratio)))
        return fa_fail(FA_INVALID, "ratio is %g, expected a finite number of at least 1", d->ratio);
    d->bias_keys = d->bias_keys ? d->bias_keys : d->keys;
    return fa_check_limit("bias_keys", d->bias_keys, d->keys, FA_MAX_LENGTH);
}

fa_status fa_policy_razor(const fa_policy_razor_desc *desc, const fa_policy_lists *lists, float *bias)
{
    fa_policy_razor_desc d;
    fa_policy_lists to;
    fa_clear_error();
    if (!desc)
        return fa_fail(FA_INVALID, "desc is NULL");
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_POLICY_RAZOR_DESC_0_1, desc, "fa_policy_razor_desc"));
    FA_TRY(check(&d));
    FA_TRY(fa_policy_lists_copy(&to, lists, true));
    const int64_t recent = FA_MAX(d.recent, (int64_t)((double)d.keys / d.ratio));
    const int64_t dropped = FA_MAX(d.keys - d.sinks - recent, 0);
    fa_policy_writer w = fa_policy_begin(&to, d.keys);
    if (bias)
        memset(bias, 0, (size_t)(d.heads * d.bias_keys) * sizeof(*bias));
    for (int64_t head = 0; head < d.heads; head++) {
        const int64_t drops = d.retrieval[head] ? 0 : dropped, end = d.sinks + drops;
        for (int64_t key = d.sinks; key < end; key++)
            fa_policy_add(&w, head, key, 1 / (double)drops);
        if (drops > 0)
            fa_policy_next(&w);
        for (int64_t key = 0; key < d.keys; key++) {
            if (drops == 0 || key < d.sinks || key >= end)
                fa_policy_keep(&w, head, key);
        }
        fa_policy_end_head(&w, head);
        if (bias && drops > 0)
            bias[head * d.bias_keys] = (float)log((double)drops);
    }
    return FA_OK;
}

static fa_status check_scores(fa_policy_razor_scores_desc *d, fa_vectors *v)
{
    FA_TRY(fa_check_limit("rows", d->rows, 1, FA_MAX_LENGTH));
    *v = (fa_vectors){d->q, d->k, d->heads_q, d->heads_kv, d->rows, d->rows, d->dim};
    FA_TRY(fa_vectors_check(v));
    FA_TRY(fa_check_limit("period", d->period, 2, d->rows - 1));
    if (!isfinite(d->scale))
        return fa_fail(FA_INVALID, "scale is %g, expected a finite number", d->scale);
    d->scale = d->scale == 0 ? 1 / sqrt((double)d->dim) : d->scale;
    return FA_OK;
}

static double score(const fa_policy_razor_scores_desc *d, const fa_vectors *v, int64_t head, int64_t row,
                    int64_t key)
{
    const float *q = fa_row_at(v, head, row), *k = fa_key_at(v, head / (d->heads_q / d->heads_kv), key);
    return d->scale * fa_product(q, k, d->dim);
}

static double lse_of(const fa_policy_razor_scores_desc *d, const fa_vectors *v, int64_t head, int64_t row)
{
    double max = -INFINITY, sum = 0;
    if (d->lse)
        return (double)d->lse[head * d->rows + row];
    for (int64_t key = 0; key <= row; key++) {
        const double x = score(d, v, head, row, key), larger = FA_MAX(max, x);
        sum = x == -INFINITY ? sum : sum * exp(max - larger) + exp(x - larger);
        max = larger;
    }
    return max + log(sum);
}

fa_status fa_policy_razor_scores(const fa_policy_razor_scores_desc *desc, double *induction, double *echo)
{
    fa_policy_razor_scores_desc d;
    fa_vectors v;
    fa_clear_error();
    if (!desc || !induction || !echo)
        return fa_fail(FA_INVALID, "%s is NULL", !desc ? "desc" : !induction ? "induction" : "echo");
    FA_TRY(
        fa_copy_struct(&d, sizeof(d), FA_POLICY_RAZOR_SCORES_DESC_0_1, desc, "fa_policy_razor_scores_desc"));
    FA_TRY(check_scores(&d, &v));
    for (int64_t head = 0; head < d.heads_q; head++) {
        double same = 0, next = 0;
        for (int64_t row = d.period; row < d.rows; row++) {
            const double lse = lse_of(&d, &v, head, row);
            for (int64_t key = row % d.period; key < row; key += d.period) {
                same += exp(score(&d, &v, head, row, key) - lse);
                next += exp(score(&d, &v, head, row, key + 1) - lse);
            }
        }
        echo[head] = same / (double)(d.rows - d.period);
        induction[head] = next / (double)(d.rows - d.period);
    }
    return FA_OK;
}

static fa_status check_heads(int64_t heads_q, int64_t group, const double *induction, const double *echo,
                             const uint8_t *retrieval)
{
    FA_TRY(fa_check_limit("heads_q", heads_q, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("group", group, 1, heads_q));
    if (heads_q % group != 0)
        return fa_fail(FA_INVALID, "heads_q is %lld, expected a multiple of group, %lld", (long long)heads_q,
                       (long long)group);
    if (!induction || !echo || !retrieval)
        return fa_fail(FA_INVALID, "%s is NULL", !induction ? "induction" : !echo ? "echo" : "retrieval");
    return FA_OK;
}

/* A part of the heads, in heads. */
static fa_status count_heads(const char *field, double part, double standard, int64_t heads, int64_t *count)
{
    if (!(part == -1 || (part >= 0 && part <= 1)))
        return fa_fail(FA_INVALID, "%s is %g, expected 0 to 1, or -1", field, part);
    *count = part == -1 ? 0 : FA_MAX((int64_t)floor((part == 0 ? standard : part) * (double)heads + 0.5), 1);
    return FA_OK;
}

static void choose(fa_ranked *ranked, int64_t heads, int64_t group, const double *scores, int64_t count,
                   uint8_t *retrieval)
{
    for (int64_t n = 0; n < heads; n++)
        ranked[n] = (fa_ranked){scores[n], (int32_t)n};
    qsort(ranked, (size_t)heads, sizeof(*ranked), fa_ranked_order);
    for (int64_t n = 0; n < count; n++)
        retrieval[ranked[n].index / group] = 1;
}

fa_status fa_policy_razor_heads(fa_context *context, int64_t heads_q, int64_t group, const double *induction,
                                const double *echo, double induction_part, double echo_part,
                                uint8_t *retrieval)
{
    int64_t inductions, echoes;
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    FA_TRY(check_heads(heads_q, group, induction, echo, retrieval));
    FA_TRY(count_heads("induction_part", induction_part, INDUCTION_PART, heads_q, &inductions));
    FA_TRY(count_heads("echo_part", echo_part, ECHO_PART, heads_q, &echoes));
    const size_t bytes = (size_t)heads_q * sizeof(fa_ranked);
    fa_ranked *ranked = fa_alloc(context, bytes);
    if (!ranked)
        return FA_OUT_OF_MEMORY;
    memset(retrieval, 0, (size_t)(heads_q / group));
    choose(ranked, heads_q, group, induction, inductions, retrieval);
    choose(ranked, heads_q, group, echo, echoes, retrieval);
    fa_release(context, ranked, bytes);
    return FA_OK;
}
