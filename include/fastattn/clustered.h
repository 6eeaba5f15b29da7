/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Planners of sparse attention that choose clusters of keys, and so of keys that lie anywhere. What sparse.h says of every planner
 * holds for these. Clusters are what fa_cluster_host() makes, or fa_cluster_run() on a device, copied into host memory.
 */
#ifndef FASTATTN_CLUSTERED_H
#define FASTATTN_CLUSTERED_H

#include "cluster.h"
#include "sparse.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Clusters of the rows of each head, as fa_cluster_host() writes them for one batch entry. */
typedef struct fa_clusters {
    int64_t clusters;       /* of each head                                              */
    const int32_t *nearest; /* (heads, rows): the cluster of each row                    */
    const float *centroids; /* (heads, clusters, dim)                                    */
} fa_clusters;

/**
 * Clusters of queries and clusters of keys: Sparse VideoGen2 (arXiv 2505.18875). Rows of q are clustered for each query head, keys for
 * each KV head. A cluster of rows scores the clusters of keys that have keys: softmax of scale times the product of both centroids, each
 * weighted by how many keys the cluster has. It meets the fewest whose sum is `threshold` or more.
 *
 * Tokens are brought into the order of their clusters, and within a cluster stay in their own order. `order_q` tells where rows
 * go: row p of head h, as the lists count them, is row order_q[h * rows + p] of q, which the caller moves, and so comes o.
 * `order_k` is that of k and v. There is no mask: the order of keys does not matter to a softmax.
 *
 * Clusters have any size, and the blocks of lists one. A block of rows meets all blocks in which a cluster of keys has a key
 * that one of its rows' clusters meets. So rows see what the paper's see, and the rest of the first and the last block of a run
 * of clusters; in a block that has rows of two clusters, what both meet. Smaller blocks add less. `chosen` tells which clusters of
 * rows meet which of keys, so `keep` can cut the lists to the paper's own.
 *
 * The paper has 100 clusters of rows and 500 of keys, and begins the k-means of a denoising step with the centroids of the one
 * before (FA_CLUSTER_GIVEN). block_rows and block_keys are 64 if 0, which is our own choice.
 */
typedef struct fa_sparse_clustered_desc {
    size_t struct_size;        /* sizeof(fa_sparse_clustered_desc) */
    fa_sparse_shape shape;     /* mask is FA_MASK_NONE                                          */
    int64_t heads_q, heads_kv; /* heads_q is a multiple. Lists are for query heads              */
    int64_t dim;               /* 1 to FA_MAX_LENGTH                                            */
    fa_clusters q, k;          /* of (heads_q, rows) and of (heads_kv, keys)                    */
    double scale;              /* of the products, finite; 0: 1/sqrt(dim)                       */
    double threshold;          /* above 0, at most 1; 0: 0.9                                    */
    int32_t *order_q;          /* (heads_q, rows), written                                      */
    int32_t *order_k;          /* (heads_kv, keys), written                                     */
    uint8_t *chosen;           /* (heads_q, q.clusters, k.clusters), 1 or 0, written; NULL: not */
} fa_sparse_clustered_desc;

/** Makes the lists and the orders. What is written is written only if the call succeeds. */
FA_API fa_status fa_sparse_clustered(fa_context *context, const fa_sparse_clustered_desc *desc,
                                     fa_block_mask **mask);

#ifdef __cplusplus
}
#endif
#endif
