/* SPDX-License-Identifier: Apache-2.0 */
/** k-means of rows: on any device in a queue's order, or in host memory. Planners of sparse attention cluster queries and keys. */
#ifndef FASTATTN_CLUSTER_H
#define FASTATTN_CLUSTER_H

#include "attention.h"
#include "buffer.h"
#include "context.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What a run begins with. */
typedef enum fa_cluster_start {
    FA_CLUSTER_GIVEN = 0, /* centroids that the caller has written                                     */
    FA_CLUSTER_DRAWN =
        1, /* rows: the first to the last are cut into as many stretches of the same length, or one row more, as
                             there are clusters, and of each one row is drawn by `seed`                */
    FA_CLUSTER_PLUS_PLUS =
        2 /* k-means++: rows that are drawn one after another by `seed`, each with a probability that is its
             squared distance to the nearest of those before. In host memory alone                     */
} fa_cluster_start;

/** What an iteration does. */
typedef enum fa_cluster_steps {
    FA_CLUSTER_ALL = 0,     /* nearest centroids, then means */
    FA_CLUSTER_NEAREST = 1, /* nearest centroids alone       */
    FA_CLUSTER_MEANS = 2    /* counts and means alone: `nearest` is read */
} fa_cluster_steps;

/**
 * k-means of the rows of each head of each batch entry on its own. An iteration finds the nearest centroid of each row (by Euclidean
 * distance, of equally near ones the first; a row that has a NaN or an infinity is in cluster 0), then counts the rows
 * of each cluster and makes the mean of these its centroid. The centroid of an empty cluster stays as it is.
 *
 * Distances and sums are in f32, in ascending order of dims and of rows, without fused products. So all runs of a device give the same
 * bits. Devices differ by the rounding of quotients and roots, and by subnormal numbers.
 */
typedef struct fa_cluster_desc {
    size_t struct_size;     /* sizeof(fa_cluster_desc)                                                     */
    fa_tensor rows;         /* (batch, heads, rows, dim): f32, f16 or bf16, any strides                    */
    int64_t clusters;       /* of each head: 1 to as many as rows                                          */
    int64_t iterations;     /* 1 to FA_MAX_LENGTH; 0: 1. More than 1 only with FA_CLUSTER_ALL              */
    int32_t normalise;      /* 1: each row is first divided by its length, so clusters are of directions   */
    fa_cluster_start start; /* FA_CLUSTER_MEANS starts with what is given                                  */
    fa_cluster_steps steps;
    uint64_t seed; /* of what is drawn                                                            */
} fa_cluster_desc;

/**
 * Clusters in host memory. `rows` is the first element of desc.rows. `nearest` is (batch, heads, rows), `centroids` (batch, heads,
 * clusters, dim), `counts` (batch, heads, clusters), all contiguous; counts is NULL exactly with FA_CLUSTER_NEAREST. They share no
 * memory. Iterations end when no row has another cluster than before, which changes no result. FA_INVALID: NULL; desc is wrong, and
 * the message names the field; `nearest` is read and has no such cluster. FA_UNSUPPORTED: more than 2^31 - 1024 rows or clusters
 * of all heads. FA_OUT_OF_MEMORY: sizes that no memory holds; no memory for k-means++. Nothing is written on failure. Thread-safe.
 */
FA_API fa_status fa_cluster_host(fa_context *context, const fa_cluster_desc *desc, const void *rows,
                                 int32_t *nearest, float *centroids, int32_t *counts);

/** A prepared clustering. It never changes. Any number of threads may run one, each with its own queue and outputs. */
typedef struct fa_cluster fa_cluster;

/**
 * Prepares it on `device`. Everything is copied out of desc. Destroy with fa_cluster_destroy(). *cluster is NULL on failure.
 * FA_INVALID: NULL, or desc is wrong; the message names the field. FA_UNSUPPORTED: FA_CLUSTER_PLUS_PLUS; more than 2^31 - 1024 rows
 * or clusters of all heads; a tensor larger than the device's kernels reach; more rows or clusters than its driver lets loops
 * count. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_cluster_create(fa_device *device, const fa_cluster_desc *desc, fa_cluster **cluster);

/** Destroys a clustering that no queue still runs. NULL is allowed. */
FA_API void fa_cluster_destroy(fa_cluster *cluster);

/** The memory of one run, in buffers of its device, as fa_cluster_host() takes it. Offsets are in bytes. */
typedef struct fa_cluster_args {
    size_t struct_size; /* sizeof(fa_cluster_args) */
    fa_buffer *rows, *nearest, *centroids, *counts;
    size_t rows_offset, nearest_offset, centroids_offset, counts_offset;
} fa_cluster_args;

/**
 * Enqueues all iterations on a queue of its device, in the order of runs of attention. Allocates nothing. The buffers and the
 * clustering must live until it is done; `args` is copied. FA_INVALID: a buffer is missing, too small, of another device, or
 * misaligned; or two of them share bytes of which one is written. Nothing is written then. A number that `nearest` should not have,
 * where it is read, counts for no cluster. FA_DEVICE_LOST.
 */
FA_API fa_status fa_cluster_run(const fa_cluster *cluster, fa_queue *queue, const fa_cluster_args *args);

#ifdef __cplusplus
}
#endif
#endif
