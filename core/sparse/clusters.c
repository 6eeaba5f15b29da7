/* SPDX-License-Identifier: Apache-2.0 */
#include "core/sparse/clusters.h"

#include <math.h>
#include <stdio.h>

#include "core/attention/checks.h"
#include "core/size.h"
#include "core/status.h"

static fa_status check(const char *name, const fa_clustering *c)
{
    char field[32];
    (void)snprintf(field, sizeof(field), "%s.clusters", name);
    FA_TRY(fa_check_limit(field, c->of.clusters, 1, c->rows));
    if (!c->of.nearest || !c->of.centroids)
        return fa_fail(FA_INVALID, "%s.%s is NULL", name, c->of.nearest ? "centroids" : "nearest");
    return FA_OK;
}

fa_status fa_clustering_make(fa_clustering *c, const fa_context *context, const char *name,
                             const fa_clusters *clusters, int64_t heads, int64_t rows, int64_t dim)
{
    size_t bytes = 0, all = 0;
    *c = (fa_clustering){.of = *clusters, .heads = heads, .rows = rows, .dim = dim};
    FA_TRY(check(name, c));
    if (!fa_grow(&all, (size_t)heads * (size_t)rows, (size_t)dim * sizeof(float)) ||
        !fa_grow(&bytes, (size_t)heads * (size_t)clusters->clusters, sizeof(*c->counts)))
        return fa_fail(FA_OUT_OF_MEMORY,
                       "%s.clusters is %lld: centroids would be larger than memory could be", name,
                       (long long)clusters->clusters);
    c->counts = fa_alloc_zeroed(context, bytes);
    if (!c->counts)
        return FA_OUT_OF_MEMORY;
    c->bytes = bytes;
    for (int64_t n = 0; n < heads * rows; n++) {
        const int32_t nearest = clusters->nearest[n];
        if (nearest < 0 || nearest >= clusters->clusters)
            return fa_fail(FA_INVALID, "%s.nearest[%lld] is %d, expected 0 to %lld", name, (long long)n,
                           nearest, (long long)clusters->clusters - 1);
        ++*fa_count_at(c, n / rows, nearest);
    }
    return FA_OK;
}

void fa_clustering_release(fa_clustering *c, const fa_context *context)
{
    fa_release(context, c->counts, c->bytes);
    c->counts = NULL;
}

fa_status fa_clustered_check(int64_t heads_q, int64_t heads_kv, int64_t dim, double *scale)
{
    FA_TRY(fa_check_limit("heads_q", heads_q, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("heads_kv", heads_kv, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("dim", dim, 1, FA_MAX_LENGTH));
    if (heads_q % heads_kv != 0)
        return fa_fail(FA_INVALID, "heads_q is %lld, expected a multiple of heads_kv, %lld",
                       (long long)heads_q, (long long)heads_kv);
    if (!isfinite(*scale))
        return fa_fail(FA_INVALID, "scale is %g, expected a finite number", *scale);
    if (*scale == 0)
        *scale = 1 / sqrt((double)dim);
    return FA_OK;
}
