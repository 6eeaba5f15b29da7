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
 * and value. FA_UNSUPPORTED: more than 2^31 - 1024 of what kernels count; a tensor larger than the device's kernels reach; more turns of
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

/**
 * The best columns of each row of scores, as lists. The scores are f32, contiguous, of shape (batch, heads, score rows, columns), and
 * `shape` says what rows and columns stand for, as above. A row chooses from the columns that it sees: all, with a causal mask those
 * up to its own, or with `visible` as many as a run says. Its own column is that of the position of the last of its rows, or
 * the last that it sees by a run's number.
 *  - `topk`: the k best, or all that it sees if these are fewer. Of equal scores the lower column comes first; NaN comes last.
 *  - `threshold`: the fewest best whose softmax sum, over all that it sees, is `threshold` or more. Weights count in steps of 2^-28 of
 *    the greatest; NaN and -inf have none, and of +inf each has as much as another.
 *  - `first` columns, the lowest, and `own`, its own column and those before it, are chosen before all others, and count.
 *
 * A list is what `list_rows` score rows and `list_heads` heads choose together: list (n, h, r) of heads h * list_heads and on and score
 * rows r * list_rows and on, of shape (batch, heads / list_heads, ceil(score rows / list_rows)). Lists come in up to three forms:
 *  - `bits`, always: 32-bit words, ceil(columns / 32) for each list, as `keep` takes them where a list is a row's and a column is a key.
 *  - `mask`, a byte for each column of each list, 1 or 0: fa_device_lists.mask, for lists of block_rows * list_rows rows and of
 *    block_keys keys.
 *  - `indices`, `width` int32 for each list: its columns in ascending order, then -1. What goes beyond the width is left out. With an
 *    indptr of multiples of the width they are fa_device_lists.indices too, which passes -1 over.
 *  - `counts`, an int32 for each list: how many columns it has.
 */
typedef struct fa_select_desc {
    size_t struct_size; /* sizeof(fa_select_desc) */
    fa_sparse_shape shape;
    int64_t batch, heads;           /* of the scores, at least 1                                      */
    int64_t topk;                   /* 1 to FA_MAX_LENGTH; 0: `threshold` is given                    */
    double threshold;               /* above 0, at most 1; then at most 131072 columns. 0: topk is    */
    int64_t first, own;             /* columns always chosen, together at most topk; 0: none          */
    int32_t visible;                /* 1: a run says how many columns each row sees                   */
    int64_t list_rows, list_heads;  /* score rows and heads of a list, the heads a divisor; 0: 1      */
    int64_t width;                  /* columns of `indices`, 0 to FA_MAX_LENGTH; 0: none are written  */
    int32_t want_mask, want_counts; /* 1: these are written                                          */
} fa_select_desc;

/** A prepared selection. */
typedef struct fa_select fa_select;

FA_API fa_status fa_select_create(fa_device *device, const fa_select_desc *desc, fa_select **select);

/** Destroys a selection that no queue still runs. NULL is allowed. */
FA_API void fa_select_destroy(fa_select *select);

/**
 * The memory of one run. mask, indices, counts and visible are given exactly if the description has them. `visible` is int32, of
 * shape (batch, score rows); its numbers are held within 0 and the columns.
 */
typedef struct fa_select_args {
    size_t struct_size; /* sizeof(fa_select_args) */
    fa_buffer *scores, *bits, *mask, *indices, *counts, *visible;
    size_t scores_offset, bits_offset, mask_offset, indices_offset, counts_offset, visible_offset;
} fa_select_args;

FA_API fa_status fa_select_run(const fa_select *select, fa_queue *queue, const fa_select_args *args);

/**
 * MoBA's gate (arXiv 2502.13189) as one object: fa_pooling of k, fa_row_scores with q, fa_select with the row's own chunk, what
 * fa_sparse_topk() computes on the host. Chunks are the blocks of keys. A row meets the `topk` chunks of the largest products with their
 * means; with a causal mask its own is always one of them, and it chooses from those before. Lists are for blocks of `block_rows` rows,
 * which meet what one of their rows does, or, with `pool_q`, what the mean of their rows does: a gate of so many times less work
 * that is no longer the paper's.
 *
 * It leaves a mask, a byte for each chunk of each list, for a plan whose lists have no contents:
 *     fa_plan_schedule_device() or fa_plan_schedule(), fa_gate_run(), fa_plan_schedule_lists() with the mask, fa_plan_run().
 * The host never waits, and learns nothing.
 */
typedef struct fa_gate_desc {
    size_t struct_size; /* sizeof(fa_gate_desc) */
    fa_tensor q,
        k; /* (batch, heads_q, rows, dim) and (batch, heads_kv, keys, dim), f32, f16 or bf16, any strides */
    int32_t block_rows,
        block_keys;    /* 1 to FA_MAX_LENGTH; 0: 1 and 128                                                */
    fa_mask_kind mask; /* the description's                                                               */
    int64_t topk;      /* 1 to FA_MAX_LENGTH; 0: 8                                                        */
    int32_t
        per_kv_head; /* 1: query heads of a KV head share lists, which have the chunks of all; 0: each has its own */
    int32_t pool_q; /* 1: rows of a block choose by their mean                                         */
} fa_gate_desc;

/** A prepared gate. */
typedef struct fa_gate fa_gate;

FA_API fa_status fa_gate_create(fa_device *device, const fa_gate_desc *desc, fa_gate **gate);

/** Destroys a gate that no queue still runs. NULL is allowed. */
FA_API void fa_gate_destroy(fa_gate *gate);

/** The bytes of scratch memory that each run needs: scores in f32 foremost, and means and bits. 0 for NULL. Thread-safe. */
FA_API size_t fa_gate_workspace(const fa_gate *gate);

/** Fills the sizes of `lists`, and no contents, for the description of the plan that the mask is for. struct_size is set by the caller. */
FA_API fa_status fa_gate_lists(const fa_gate *gate, fa_block_lists *lists);

/**
 * The memory of one run. The mask has a byte for each of sequences * heads * row_blocks * key_blocks, as fa_gate_lists() has them.
 * The workspace's contents are undefined before and after.
 */
typedef struct fa_gate_args {
    size_t struct_size; /* sizeof(fa_gate_args) */
    fa_buffer *q, *k, *mask, *workspace;
    size_t q_offset, k_offset, mask_offset,
        workspace_offset; /* the mask's a multiple of 4, the workspace's of 64 */
} fa_gate_args;

FA_API fa_status fa_gate_run(const fa_gate *gate, fa_queue *queue, const fa_gate_args *args);

#ifdef __cplusplus
}
#endif
#endif
