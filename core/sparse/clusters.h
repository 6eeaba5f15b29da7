/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters that planners are given. */
#ifndef FA_CORE_SPARSE_CLUSTERS_H
#define FA_CORE_SPARSE_CLUSTERS_H

#include <fastattn/clustered.h>

#include "core/context.h"

/* Clusters of the rows of `heads` heads, and how many rows each has. */
typedef struct fa_clustering {
    fa_clusters of;
    int64_t heads, rows, dim;
    int32_t *counts; /* (heads, clusters) */
    size_t bytes;
} fa_clustering;

/*
 * Checks all numbers of clusters and counts them. `name` is the field's. What is made is released by fa_clustering_release(), whatever
 * this returns, of what was 0 before.
 */
fa_status fa_clustering_make(fa_clustering *clustering, const fa_context *context, const char *name,
                             const fa_clusters *clusters, int64_t heads, int64_t rows, int64_t dim);
void fa_clustering_release(fa_clustering *clustering, const fa_context *context);

static inline const float *fa_centroid_at(const fa_clustering *c, int64_t head, int64_t cluster)
{
    return c->of.centroids + (head * c->of.clusters + cluster) * c->dim;
}

static inline int32_t *fa_count_at(const fa_clustering *c, int64_t head, int64_t cluster)
{
    return c->counts + head * c->of.clusters + cluster;
}

/* Heads of q and k, and a scale that is 1/sqrt(dim) if it is 0. */
fa_status fa_clustered_check(int64_t heads_q, int64_t heads_kv, int64_t dim, double *scale);

#endif
