/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/context.h"
#include "core/policies/policies.h"
#include "core/portable/lang.h"
#include "core/sparse/scores.h"
#include "core/structs.h"

static const double PART = 0.975;

/* Memory of a call: ranks of the keys of a line, and which are important. A line is what chooses: a head, or all heads. */
typedef struct choosing {
    fa_policy_zip_desc desc;
    int64_t lines, each; /* heads of a line */
    fa_ranked *ranked;
    uint8_t *important;
} choosing;

static fa_status check(choosing *c)
{
    fa_policy_zip_desc *d = &c->desc;
    FA_TRY(fa_policy_check_keys(d->heads, d->keys));
    if (!d->weights)
        return fa_fail(FA_INVALID, "weights is NULL");
    for (int64_t n = 0; n < d->heads * d->keys; n++) {
        const double weight = (double)d->weights[n], saliency = d->saliency ? (double)d->saliency[n] : 0;
        if (!(weight >= 0 && isfinite(weight)))
            return fa_fail(FA_INVALID,
                           "weights[%lld] of head %lld is %g, expected a finite number of at least 0",
                           (long long)(n % d->keys), (long long)(n / d->keys), weight);
        if (isnan(saliency))
            return fa_fail(FA_INVALID, "saliency[%lld] of head %lld is NaN, expected a number",
                           (long long)(n % d->keys), (long long)(n / d->keys));
    }
    d->saliency = d->saliency ? d->saliency : d->weights;
    d->part = d->part == 0 ? PART : d->part;
    if (!(d->part > 0 && d->part <= 1))
        return fa_fail(FA_INVALID, "part is %g, expected above 0, at most 1", d->part);
    FA_TRY(fa_check_limit("each_head", d->each_head, 0, 1));
    c->each = d->each_head ? 1 : d->heads;
    c->lines = d->heads / c->each;
    return FA_OK;
}

/* Ranks keys by the sums of a line's heads. */
static void rank(choosing *c, const float *from, int64_t line)
{
    const int64_t keys = c->desc.keys;
    for (int64_t key = 0; key < keys; key++) {
        double sum = 0;
        for (int64_t head = line * c->each; head < (line + 1) * c->each; head++)
            sum += (double)from[head * keys + key];
        c->ranked[key] = (fa_ranked){sum, (int32_t)key};
    }
    qsort(c->ranked, (size_t)keys, sizeof(*c->ranked), fa_ranked_order);
}

static void choose(choosing *c, int64_t line)
{
    const int64_t keys = c->desc.keys;
    double all = 0, sum = 0;
    int64_t count = 0;
    rank(c, c->desc.weights, line);
    for (int64_t n = 0; n < keys; n++)
        all += c->ranked[n].score;
    while (count < keys && sum < c->desc.part * all)
        sum += c->ranked[count++].score;
    rank(c, c->desc.saliency, line);
    for (int64_t n = 0; n < keys; n++)
        c->important[line * keys + c->ranked[n].index] = n < count;
}

/* Where tokens go that are important, or that are not, those of all lines one behind the other. */
static void number(const choosing *c, bool important, int32_t *slots)
{
    int32_t next = 0;
    for (int64_t n = 0; slots && n < c->lines * c->desc.keys; n++)
        slots[n] = (c->important[n] != 0) == important ? next++ : -1;
}

static void write_lists(const choosing *c, const fa_policy_lists *to)
{
    fa_policy_writer w = fa_policy_begin(to, c->desc.keys);
    for (int64_t head = 0; head < c->desc.heads; head++) {
        for (int64_t key = 0; key < c->desc.keys; key++) {
            if (c->important[head / c->each * c->desc.keys + key])
                fa_policy_keep(&w, head, key);
        }
        fa_policy_end_head(&w, head);
    }
}

fa_status fa_policy_zip(fa_context *context, const fa_policy_zip_desc *desc, const fa_policy_lists *lists,
                        int32_t *slots, int32_t *other_slots)
{
    choosing c = {.ranked = NULL};
    fa_policy_lists to;
    fa_clear_error();
    if (!context || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "desc" : "context");
    FA_TRY(fa_copy_struct(&c.desc, sizeof(c.desc), FA_POLICY_ZIP_DESC_0_1, desc, "fa_policy_zip_desc"));
    FA_TRY(check(&c));
    FA_TRY(fa_policy_lists_copy(&to, lists, false));
    const size_t keys = (size_t)c.desc.keys, all = (size_t)c.lines * keys;
    c.ranked = fa_alloc(context, keys * sizeof(*c.ranked));
    c.important = c.ranked ? fa_alloc(context, all) : NULL;
    if (c.important) {
        for (int64_t line = 0; line < c.lines; line++)
            choose(&c, line);
        write_lists(&c, &to);
        number(&c, true, slots);
        number(&c, false, other_slots);
    }
    const fa_status status = c.important ? FA_OK : FA_OUT_OF_MEMORY;
    fa_release(context, c.ranked, keys * sizeof(*c.ranked));
    fa_release(context, c.important, all);
    return status;
}
