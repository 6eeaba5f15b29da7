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

static const double THRESHOLD = 0.75;

/* Memory of a call: for ranks of a head's keys, and which of them stay themselves. */
typedef struct merging {
    fa_policy_merge_desc desc;
    fa_vectors vectors;
    fa_ranked *ranked;
    uint8_t *stays;
} merging;

static fa_status check(merging *m)
{
    fa_policy_merge_desc *d = &m->desc;
    FA_TRY(fa_policy_check_keys(d->heads, d->keys));
    if (!d->k || !d->importance)
        return fa_fail(FA_INVALID, "%s is NULL", d->k ? "importance" : "k");
    m->vectors = (fa_vectors){d->k, d->k, d->heads, d->heads, d->keys, d->keys, d->dim};
    FA_TRY(fa_vectors_check(&m->vectors));
    for (int64_t n = 0; n < d->heads * d->keys; n++) {
        if (isnan(d->importance[n]))
            return fa_fail(FA_INVALID, "importance[%lld] of head %lld is NaN, expected a number",
                           (long long)(n % d->keys), (long long)(n / d->keys));
    }
    d->threshold = d->threshold == 0 ? THRESHOLD : d->threshold;
    if (!(d->threshold >= -1 && d->threshold <= 1))
        return fa_fail(FA_INVALID, "threshold is %g, expected -1 to 1", d->threshold);
    if (!(d->sigma >= 0 && isfinite(d->sigma)))
        return fa_fail(FA_INVALID, "sigma is %g, expected a finite number of at least 0", d->sigma);
    FA_TRY(fa_check_limit("recent", d->recent, 0, FA_MAX_LENGTH));
    return fa_check_limit("heavy", d->heavy, 0, FA_MAX_LENGTH);
}

static double importance(const merging *m, int64_t head, int64_t key)
{
    return (double)m->desc.importance[head * m->desc.keys + key];
}

static void mark(merging *m, int64_t head)
{
    const int64_t old = FA_MAX(m->desc.keys - m->desc.recent, 0);
    memset(m->stays, 0, (size_t)old);
    memset(m->stays + old, 1, (size_t)(m->desc.keys - old));
    for (int64_t key = 0; key < old; key++)
        m->ranked[key] = (fa_ranked){importance(m, head, key), (int32_t)key};
    qsort(m->ranked, (size_t)old, sizeof(*m->ranked), fa_ranked_order);
    for (int64_t n = 0; n < FA_MIN(m->desc.heavy, old); n++)
        m->stays[m->ranked[n].index] = 1;
}

/* Whether the cosine of a key and the next is above the threshold. It is no number where one of them is 0. */
static bool is_like_next(const merging *m, int64_t head, int64_t key)
{
    const float *a = fa_key_at(&m->vectors, head, key), *b = a + m->desc.dim;
    const int64_t dim = m->desc.dim;
    const double lengths = sqrt(fa_product(a, a, dim)) * sqrt(fa_product(b, b, dim));
    return fa_product(a, b, dim) / lengths > m->desc.threshold;
}

static double distance(const merging *m, int64_t head, int64_t one, int64_t other)
{
    const float *a = fa_key_at(&m->vectors, head, one), *b = fa_key_at(&m->vectors, head, other);
    double sum = 0;
    for (int64_t d = 0; d < m->desc.dim; d++) {
        const double x = (double)a[d] - (double)b[d];
        sum += x * x;
    }
    return sum;
}

/* The list of set [begin, end). The distances are kept where ranks were. */
static void write_set(merging *m, fa_policy_writer *w, int64_t head, int64_t begin, int64_t end)
{
    int64_t pivot = begin;
    double mean = 0, sum = 0;
    for (int64_t key = begin + 1; key < end; key++)
        pivot = importance(m, head, key) > importance(m, head, pivot) ? key : pivot;
    for (int64_t key = begin; key < end; key++)
        mean += m->ranked[key].score = distance(m, head, pivot, key);
    mean /= (double)(end - begin - 1);
    const double sigma = m->desc.sigma, twice = 2 * (sigma == 0 ? mean : sigma * sigma);
    for (int64_t key = begin; key < end; key++) {
        const double d = m->ranked[key].score;
        sum += m->ranked[key].score = d == 0 ? 1 : exp(-d / twice);
    }
    for (int64_t key = begin; key < end; key++)
        fa_policy_add(w, head, key, m->ranked[key].score / sum);
    fa_policy_next(w);
}

static void plan_head(merging *m, fa_policy_writer *w, int64_t head)
{
    mark(m, head);
    for (int64_t begin = 0, end = 1; begin < m->desc.keys; begin = end++) {
        while (end < m->desc.keys && !m->stays[end - 1] && !m->stays[end] && is_like_next(m, head, end - 1))
            end++;
        if (end - begin > 1)
            write_set(m, w, head, begin, end);
        else
            fa_policy_keep(w, head, begin);
    }
    fa_policy_end_head(w, head);
}

fa_status fa_policy_merge(fa_context *context, const fa_policy_merge_desc *desc, const fa_policy_lists *lists)
{
    merging m = {.ranked = NULL};
    fa_policy_lists to;
    fa_clear_error();
    if (!context || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "desc" : "context");
    FA_TRY(fa_copy_struct(&m.desc, sizeof(m.desc), FA_POLICY_MERGE_DESC_0_1, desc, "fa_policy_merge_desc"));
    FA_TRY(check(&m));
    FA_TRY(fa_policy_lists_copy(&to, lists, true));
    const size_t keys = (size_t)m.desc.keys;
    m.ranked = fa_alloc(context, keys * sizeof(*m.ranked));
    m.stays = m.ranked ? fa_alloc(context, keys) : NULL;
    if (m.stays) {
        fa_policy_writer w = fa_policy_begin(&to, m.desc.keys);
        for (int64_t head = 0; head < m.desc.heads; head++)
            plan_head(&m, &w, head);
    }
    const fa_status status = m.stays ? FA_OK : FA_OUT_OF_MEMORY;
    fa_release(context, m.ranked, keys * sizeof(*m.ranked));
    fa_release(context, m.stays, keys);
    return status;
}
