/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What sparse attention chooses by, on the device: means of chunks of rows, scores of rows and such means, the best of each row. Each is
 * an object that is prepared once, and enqueued in the order of runs of attention; it can be captured or recorded as these are. What the
 * last one makes are lists for fa_plan_schedule_lists(), so that the host never learns what was chosen.
 */
#ifndef FASTATTN_SELECT_H
#define FASTATTN_SELECT_H

#include "attention.h"
#include "buffer.h"
#include "device.h"
#include "sparse.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What holds for all. An object never changes; any number of threads may run one, each with its own queue and output. Everything is
 * copied out of desc. *object is NULL on failure. Creating: FA_INVALID: NULL, or desc is wrong, which the message names by field
 * and value. FA_UNSUPPORTED: more than 2^31 - 1 of what kernels count; a tensor larger than the device's kernels reach; more turns of
 * loops than its driver allows. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. Running allocates nothing; buffers must live until it
 * is done; `args` is copied. FA_INVALID: a buffer is missing, not expected, too small, of another device, or misaligned; what is written
 * shares bytes with another operand. Nothing is written then. FA_DEVICE_LOST. Offsets are in bytes.
 *
 * Sums are f32, each in a fixed order, without fused products: results are the same in every run, and the same to the bit on all
 * devices whose arithmetic rounds to nearest and keeps subnormal numbers.
 */

/**
 * Means of chunks of rows. x is (batch, heads, tokens, dim), f32, f16 or bf16, any strides. The means are f32, contiguous, of
 * shape (batch, heads, ceil(tokens / chunk), dim); the last chunk may be short, and is a mean of what there is. A sum goes from the
 * first token to the last, and is multiplied by the f32 nearest to 1 / count.
 */
typedef struct fa_pooling_desc {
    size_t struct_size; /* sizeof(fa_pooling_desc) */
    fa_tensor x;
    int64_t chunk; /* tokens, 1 to FA_MAX_LENGTH */
} fa_pooling_desc;

/** A prepared pooling. */
typedef struct fa_pooling fa_pooling;

FA_API fa_status fa_pooling_create(fa_device *device, const fa_pooling_desc *desc, fa_pooling **pooling);

/** Destroys a pooling that no queue still runs. NULL is allowed. */
FA_API void fa_pooling_destroy(fa_pooling *pooling);

/** The memory of one run. */
typedef struct fa_pooling_args {
    size_t struct_size; /* sizeof(fa_pooling_args) */
    fa_buffer *x, *means;
    size_t x_offset, means_offset;
} fa_pooling_args;

FA_API fa_status fa_pooling_run(const fa_pooling *pooling, fa_queue *queue, const fa_pooling_args *args);

/**
 * Scores of rows and columns: scale times the product of a row of q, or of the mean of a chunk of such, and a key, or the mean of a
 * chunk of keys. q is (batch, heads_q, score rows, dim), k (batch, heads_kv, columns, dim), each f32, f16 or bf16, any strides. Query
 * head h has KV head h / (heads_q / heads_kv). The scores are f32, contiguous, of shape (batch, heads_q, score rows, columns).
 *
 * `shape` says what rows and columns stand for: score row r for rows r * block_rows and on of shape.rows, column c for keys c * block_keys
 * and on of shape.keys. There are ceil(rows / block_rows) score rows and ceil(keys / block_keys) columns; a block size of 0 is 1. With
 * a causal mask a score row sees the columns that begin up to the position of the last of its rows; of others, nothing is written.
 *
 * With `weighted`, scores are those of DeepSeek's indexer (DeepSeek-V3.2-Exp),
 *     score(r, c) = sum_h weight(r, h) * max(scale * (q_rh . k_c), 0),
 * summed over the query heads in their order, and of shape (batch, 1, score rows, columns). `weights` is f32, contiguous, of
 * shape (batch, score rows, heads_q).
 */
typedef struct fa_row_scores_desc {
    size_t struct_size; /* sizeof(fa_row_scores_desc) */
    fa_sparse_shape shape;
    fa_tensor q, k;
    double scale;     /* finite; 0: 1/sqrt(dim)            */
    int32_t weighted; /* 1: summed over heads, as above    */
} fa_row_scores_desc;

/** Prepared scores. */
typedef struct fa_row_scores fa_row_scores;

FA_API fa_status fa_row_scores_create(fa_device *device, const fa_row_scores_desc *desc,
                                      fa_row_scores **scores);

/** Destroys scores that no queue still runs. NULL is allowed. */
FA_API void fa_row_scores_destroy(fa_row_scores *scores);

/** The memory of one run. `weights` is given exactly if the description is weighted. */
typedef struct fa_row_scores_args {
    size_t struct_size; /* sizeof(fa_row_scores_args) */
    fa_buffer *q, *k, *weights, *scores;
    size_t q_offset, k_offset, weights_offset, scores_offset;
} fa_row_scores_args;

FA_API fa_status fa_row_scores_run(const fa_row_scores *scores, fa_queue *queue,
                                   const fa_row_scores_args *args);

#ifdef __cplusplus
}
#endif
#endif
