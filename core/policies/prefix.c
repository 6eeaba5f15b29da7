/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/context.h"
#include "core/policies/policies.h"
#include "core/size.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

/* Keys of each layer, the most important first, each with the part of the layer's importance that it completes. */
typedef struct prefixes {
    int64_t layers, keys;
    fa_ranked *ranked;
} prefixes;

static fa_status check(const fa_policy_prefix_desc *d)
{
    FA_TRY(fa_check_limit("layers", d->layers, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("keys", d->keys, 1, FA_MAX_LENGTH));
    if (!d->importance)
        return fa_fail(FA_INVALID, "importance is NULL");
    FA_TRY(fa_check_limit("budget", d->budget, d->layers, INT64_MAX));
    for (int64_t n = 0; n < d->layers * d->keys; n++) {
        const double x = (double)d->importance[n];
        if (!(x >= 0 && isfinite(x)))
            return fa_fail(FA_INVALID,
                           "importance[%lld] of layer %lld is %g, expected a finite number of at least 0",
                           (long long)(n % d->keys), (long long)(n / d->keys), x);
    }
    return FA_OK;
}

static fa_status rank(const fa_policy_prefix_desc *d, const prefixes *p, int64_t layer)
{
    fa_ranked *ranked = p->ranked + layer * p->keys;
    double sum = 0;
    for (int64_t n = 0; n < p->keys; n++)
        ranked[n] = (fa_ranked){(double)d->importance[layer * p->keys + n], (int32_t)n};
    qsort(ranked, (size_t)p->keys, sizeof(*ranked), fa_ranked_order);
    for (int64_t n = 0; n < p->keys; n++)
        ranked[n].score = sum += ranked[n].score;
    if (sum == 0)
        return fa_fail(FA_INVALID, "importance of layer %lld is 0 for all keys, expected above 0 for one",
                       (long long)layer);
    for (int64_t n = 0; n < p->keys; n++)
        ranked[n].score /= sum;
    return FA_OK;
}

/* The length of the shortest prefix of a layer that has the ratio. */
static int64_t length_of(const prefixes *p, int64_t layer, double ratio)
{
    const fa_ranked *ranked = p->ranked + layer * p->keys;
    int64_t shorter = 0, enough = p->keys;
    while (enough - shorter > 1) {
        const int64_t middle = shorter + (enough - shorter) / 2;
        if (ranked[middle - 1].score >= ratio)
            enough = middle;
        else
            shorter = middle;
    }
    return enough;
}

static bool fits(const prefixes *p, double ratio, int64_t budget)
{
    int64_t sum = 0;
    for (int64_t layer = 0; layer < p->layers; layer++)
        sum += length_of(p, layer, ratio);
    return sum <= budget;
}

/* The largest ratio that fits: numbers from 0 to 1 are in the order of their bits. With 0 each layer has one key. */
static double find_ratio(const prefixes *p, int64_t budget)
{
    const double one = 1;
    uint64_t low = 0, high;
    double ratio = 1;
    memcpy(&high, &one, sizeof(high));
    if (fits(p, one, budget))
        return one;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        memcpy(&ratio, &middle, sizeof(ratio));
        if (fits(p, ratio, budget))
            low = middle;
        else
            high = middle;
    }
    memcpy(&ratio, &low, sizeof(ratio));
    return ratio;
}

static int compare_keys(const void *a, const void *b)
{
    const int32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static fa_status plan(const fa_policy_prefix_desc *d, const prefixes *p, double *ratio, int64_t *counts,
                      int32_t *kept)
{
    for (int64_t layer = 0; layer < p->layers; layer++)
        FA_TRY(rank(d, p, layer));
    *ratio = find_ratio(p, d->budget);
    for (int64_t layer = 0; layer < p->layers; layer++) {
        counts[layer] = length_of(p, layer, *ratio);
        for (int64_t n = 0; kept && n < counts[layer]; n++)
            kept[layer * p->keys + n] = p->ranked[layer * p->keys + n].index;
        if (kept)
            qsort(kept + layer * p->keys, (size_t)counts[layer], sizeof(*kept), compare_keys);
    }
    return FA_OK;
}

fa_status fa_policy_prefix(fa_context *context, const fa_policy_prefix_desc *desc, double *ratio,
                           int64_t *counts, int32_t *kept)
{
    fa_policy_prefix_desc d;
    size_t bytes = 0;
    fa_clear_error();
    if (!context || !desc || !ratio || !counts)
        return fa_fail(FA_INVALID, "%s is NULL",
                       !context ? "context"
                       : !desc  ? "desc"
                       : !ratio ? "ratio"
                                : "counts");
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_POLICY_PREFIX_DESC_0_1, desc, "fa_policy_prefix_desc"));
    FA_TRY(check(&d));
    if (!fa_grow(&bytes, (size_t)(d.layers * d.keys), sizeof(fa_ranked)))
        return fa_fail(FA_OUT_OF_MEMORY, "keys is %lld of %lld layers: more than memory could hold",
                       (long long)d.keys, (long long)d.layers);
    const prefixes p = {d.layers, d.keys, fa_alloc(context, bytes)};
    if (!p.ranked)
        return FA_OUT_OF_MEMORY;
    const fa_status status = plan(&d, &p, ratio, counts, kept);
    fa_release(context, p.ranked, bytes);
    return status;
}
