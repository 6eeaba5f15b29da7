/* SPDX-License-Identifier: Apache-2.0 */
#include "core/sparse/scores.h"

#include <fastattn/attention.h>
#include <math.h>
#include <stdlib.h>

#include "core/attention/checks.h"
#include "core/portable/lang.h"
#include "core/size.h"

fa_status fa_vectors_check(const fa_vectors *v)
{
    size_t vectors = 0, bytes = 0;
    FA_TRY(fa_check_limit("heads_q", v->heads_q, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("heads_kv", v->heads_kv, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("dim", v->dim, 1, FA_MAX_LENGTH));
    if (v->heads_q % v->heads_kv != 0)
        return fa_fail(FA_INVALID, "heads_q is %lld, expected a multiple of heads_kv, %lld",
                       (long long)v->heads_q, (long long)v->heads_kv);
    if (!v->q || !v->k)
        return fa_fail(FA_INVALID, "%s is NULL", v->q ? "k" : "q");
    if (!fa_grow(&vectors, (size_t)v->heads_q, (size_t)v->rows) ||
        !fa_grow(&vectors, (size_t)v->heads_kv, (size_t)v->keys) ||
        !fa_grow(&bytes, vectors, (size_t)v->dim * sizeof(float)))
        return fa_fail(FA_OUT_OF_MEMORY, "dim is %lld: q or k would be larger than memory could be",
                       (long long)v->dim);
    return FA_OK;
}

int fa_ranked_order(const void *a, const void *b)
{
    const fa_ranked *x = a, *y = b;
    const int known = (x->score == x->score) - (y->score == y->score);
    if (known != 0)
        return -known;
    if (x->score != y->score && x->score == x->score)
        return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

int64_t fa_ranked_keep(fa_ranked *best, int64_t count, int64_t most, fa_ranked next)
{
    int64_t at = FA_MIN(count, most - 1);
    if (most == 0 || (count == most && fa_ranked_order(&best[most - 1], &next) < 0))
        return count;
    for (; at > 0 && fa_ranked_order(&next, &best[at - 1]) < 0; at--)
        best[at] = best[at - 1];
    best[at] = next;
    return FA_MIN(count + 1, most);
}

int64_t fa_ranked_fewest(fa_ranked *ranked, int64_t count, double threshold)
{
    double total = 0, sum = 0;
    int64_t fewest = 0;
    if (count == 0)
        return 0;
    qsort(ranked, (size_t)count, sizeof(*ranked), fa_ranked_order);
    for (int64_t n = count - 1; n >= 0; n--)
        total += exp(ranked[n].score - ranked[0].score);
    for (; fewest < count && !(sum >= threshold * total); fewest++)
        sum += exp(ranked[fewest].score - ranked[0].score);
    return fewest;
}
