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

/**
 * Clusters of a fixed context: Squeezed Attention (arXiv 2411.09688). The first `context` keys are clustered once, before there are
 * rows. A row gives each cluster a weight for each of its keys,
 *     S_j = exp(scale q c_j) / sum_i N_i exp(scale q c_i),
 * where c_j is the centroid of cluster j and N_j how many keys it has. It sees the keys of the clusters whose S_j is above
 * `threshold`, and all keys behind the context: those of the user's input, whose causal mask is the description's own.
 *
 * With `coarse`, the centroids themselves are clustered, and rows look at two levels: S of the coarse clusters first (whose keys are
 * those of all their clusters), then of the clusters in coarse ones above `coarse_threshold`, as if there were no others.
 * That denominators of the second level leave out what the first did is our own choice.
 *
 * The paper clusters directions: fa_cluster_host() with `normalise`, k-means++ and 300 iterations, to 5 % of the keys. Then
 * FA_CLUSTER_MEANS without `normalise` makes centroids means of the keys themselves. The threshold is one for all heads
 * (fa_sparse_squeezed_thresholds()).
 *
 * block_rows and block_keys are 1 if 0: then lists have single keys of single rows, and are the paper's. fa_block_mask_keys()
 * writes them for attention to lists of keys. Larger blocks, or lists for each KV head (`per_kv_head`), give more: what one of
 * their rows sees, in whole blocks.
 */
typedef struct fa_sparse_squeezed_desc {
    size_t struct_size;        /* sizeof(fa_sparse_squeezed_desc) */
    fa_sparse_shape shape;     /* keys are the context and those behind it                      */
    int64_t context;           /* 1 to keys                                                     */
    int64_t heads_q, heads_kv; /* heads_q is a multiple                                         */
    int64_t dim;               /* 1 to FA_MAX_LENGTH                                            */
    const float *q;            /* (heads_q, rows, dim), contiguous                              */
    fa_clusters fine;          /* of (heads_kv, context)                                        */
    fa_clusters coarse;        /* of (heads_kv, fine.clusters); all 0: one level                */
    double scale;              /* of the products, finite; 0: 1/sqrt(dim)                       */
    double threshold;          /* from 0 to 1                                  */
    double coarse_threshold;   /* the same of coarse clusters                                   */
    int32_t per_kv_head;       /* 1: query heads of a KV head share lists; 0: each has its own  */
} fa_sparse_squeezed_desc;

/** Makes the lists. */
FA_API fa_status fa_sparse_squeezed(fa_context *context, const fa_sparse_squeezed_desc *desc,
                                    fa_block_mask **mask);

/**
 * The thresholds with which the rows of q, as the last 100 rows of the context (the paper's observation window), see the wanted
 * part of the context's keys: the greatest with which the mean part over rows and query heads is `share` or more, as clusters of the same S
 * are seen together. With coarse clusters, first `coarse_share` of the keys are left, then of these so many that `share` of all are.
 * *threshold, *coarse_threshold and what desc has beside rows (shape.keys and blocks, thresholds, per_kv_head) are not read.
 * coarse_threshold is written 0 without coarse clusters. FA_INVALID: as fa_sparse_squeezed(); a share is not above 0 and at most 1, or
 * `share` is above coarse_share. FA_OUT_OF_MEMORY: it takes 16 bytes for each cluster of each row and query head. Thread-safe.
 */
FA_API fa_status fa_sparse_squeezed_thresholds(fa_context *context, const fa_sparse_squeezed_desc *desc,
                                               double share, double coarse_share, double *threshold,
                                               double *coarse_threshold);

/**
 * Writes the lists of a mask whose blocks are single rows and keys as numbers of keys: (sequences, rows, heads, most), what is over
 * is -1. That is what attention to lists of keys takes. FA_INVALID: NULL; a block is larger; a list has more than `most` keys, and the
 * message says how many. Nothing is written then. Thread-safe.
 */
FA_API fa_status fa_block_mask_keys(const fa_block_mask *mask, int64_t most, int32_t *keys);

/**
 * Retrieval at semantic boundaries: LouisKV (arXiv 2510.11292), of one sequence that decodes. The prompt's keys are clustered;
 * those of the output are segments, which boundaries end. A token is a boundary if the cosine of its query and of the one before,
 * as a mean over query heads, is below `similarity`; the first token is one. At a boundary the open segment is closed and the
 * next begins with this token, and each KV head chooses anew among clusters and closed segments: by the product of the token's query with
 * the centroid (of a segment the mean of its keys), as a mean over the query heads of the KV head, the largest first, as long
 * as all chosen have no more than `budget` keys; what does not fit is passed over. Between boundaries the choice stays.
 * A token sees what is chosen and all of the open segment, itself included.
 *
 * From the paper are the boundaries, the two kinds of units and the reuse. Our own are the numbers that 0 stands for, that one boundary is
 * for all heads, and that what does not fit is passed over.
 */
typedef struct fa_retrieval_desc {
    size_t struct_size;        /* sizeof(fa_retrieval_desc) */
    int64_t heads_q, heads_kv; /* heads_q is a multiple                                       */
    int64_t dim;               /* 1 to FA_MAX_LENGTH                                          */
    int64_t prompt;            /* keys, 1 to FA_MAX_LENGTH                                    */
    fa_clusters clusters;      /* of (heads_kv, prompt)                                       */
    double similarity;         /* from -1 to 1; 0: 0.7                                        */
    int64_t budget;            /* keys of each KV head, 1 to FA_MAX_LENGTH; 0: 512            */
} fa_retrieval_desc;

/** A sequence that retrieves. One thread at a time may use one. */
typedef struct fa_retrieval fa_retrieval;

/**
 * Begins a sequence. Everything is copied out of desc. Destroy with fa_retrieval_destroy(), before the context. *retrieval is NULL
 * on failure. FA_INVALID: NULL; a field is wrong, which the message names. FA_OUT_OF_MEMORY. Thread-safe.
 */
FA_API fa_status fa_retrieval_create(fa_context *context, const fa_retrieval_desc *desc,
                                     fa_retrieval **retrieval);

/** Destroys it. NULL is allowed. */
FA_API void fa_retrieval_destroy(fa_retrieval *retrieval);

/**
 * The next token of the output, with its query (heads_q, dim) and its key (heads_kv, dim). *retrieved is 1 if it is a boundary, so that
 * other keys may be seen than before; 0: those before, and the token's own. `mask` may be NULL: no lists are made. *mask is a new
 * object: lists of one row for each KV head, in blocks of one key, of the prompt's keys and those of the output so far.
 * On failure the sequence is as it was, and *mask is NULL. FA_INVALID: NULL. FA_OUT_OF_MEMORY: no memory; more than FA_MAX_LENGTH
 * keys.
 */
FA_API fa_status fa_retrieval_step(fa_retrieval *retrieval, const float *q, const float *k,
                                   int32_t *retrieved, fa_block_mask **mask);

#ifdef __cplusplus
}
#endif
#endif
