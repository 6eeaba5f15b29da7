/* SPDX-License-Identifier: Apache-2.0 */
/** The merge of partial results: on any device in a queue's order, or in host memory. */
#ifndef FASTATTN_MERGE_H
#define FASTATTN_MERGE_H

#include "attention.h"
#include "buffer.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A merge of partial attention states (combine in FlashAttention, merge_state in FlashInfer). A state is the result
 * over a part of the keys: a normalised output and its LSE. The parts have no key in common. The merge gives the result
 * over all keys:
 *     lse = log sum_p exp(lse_p),   o = sum_p exp(lse_p - lse) * o_p.
 * It is associative up to rounding. The output of an empty state (LSE -inf) is not read. An LSE of +inf with an output
 * of zeros is an empty state too: FlashAttention marks a row that sees no key in this way. An LSE of +inf with any
 * other output is an infinite score, and gives NaN. (FlashInfer, arXiv 2501.01005, section 2.2.)
 *
 * With factors, o_p counts times the factor of its part and dim. So a factor of each channel of v, as of channel-separable
 * quantisation (ZipCache), costs nothing for a key.
 */
typedef struct fa_merge_desc {
    size_t struct_size;  /* sizeof(fa_merge_desc)                                                     */
    int64_t parts;       /* at least 0; 0 gives empty states                                          */
    fa_tensor partial;   /* the output of one part: f32, f16 or bf16, any strides                     */
    int64_t part_stride; /* elements from one part to the next; 0: each begins where the last ends    */
    fa_tensor o;         /* the same shape; f32, f16 or bf16, any strides                             */
    int32_t want_lse;    /* 1: also write the LSE                                                     */
    /* f32, of the shape of o, whose axes 0 to 2 may have size 1 and are then repeated; axis 1 may be any divisor of o's,
     * and then as many heads in a row share one of the factors'. shape all 0: none. */
    fa_tensor factors;
    int64_t factor_stride; /* elements from a part's factors to the next part's; 0: all have the same     */
} fa_merge_desc;

/**
 * Merges in host memory. `partial` is the first element of the first part. `partial_lse` is f32, contiguous, of shape
 * (parts, batch, head, row). `lse` is f32, contiguous, of shape (batch, head, row); it is NULL exactly if not wanted.
 *
 * In place: `o` may be one of the parts, with its type and strides, and `lse` may be the LSE of a part. Apart from
 * that, an output that shares bytes with an input or with the other output is FA_INVALID. FA_INVALID: also a wrong
 * field, which the message names; factors, for which there is no argument. FA_OUT_OF_MEMORY: sizes that no memory holds. FA_UNSUPPORTED: more than
 * 2^31 - 1 rows, parts or dims. Nothing is written on failure. Thread-safe.
 */
FA_API fa_status fa_merge_host(const fa_merge_desc *desc, const void *partial, const float *partial_lse,
                               void *o, float *lse);

/** A prepared merge. It never changes. Any number of threads may run one, each with its own queue and outputs. */
typedef struct fa_merge fa_merge;

/**
 * Prepares a merge on `device`. Everything is copied out of desc. Destroy with fa_merge_destroy(). *merge is NULL on
 * failure. FA_INVALID: NULL, or desc is wrong; the message names the field. FA_UNSUPPORTED: more than 2^31 - 1 rows,
 * parts or dims; a tensor larger than the device's kernels reach. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST.
 * Thread-safe.
 */
FA_API fa_status fa_merge_create(fa_device *device, const fa_merge_desc *desc, fa_merge **merge);

/** Destroys a merge that no queue still runs. NULL is allowed. */
FA_API void fa_merge_destroy(fa_merge *merge);

/**
 * The memory of one run, in buffers of the merge's device, as fa_merge_host() takes it. A tensor's first element lies
 * `..._offset` bytes into its buffer. partial and partial_lse may be NULL without parts; lse and factors are NULL exactly if
 * the description has none.
 */
typedef struct fa_merge_args {
    size_t struct_size; /* sizeof(fa_merge_args) */
    fa_buffer *partial, *partial_lse, *o, *lse;
    size_t partial_offset, partial_lse_offset, o_offset, lse_offset;
    fa_buffer *factors;
    size_t factors_offset;
} fa_merge_args;

/**
 * Enqueues the merge on a queue of its device, in the order of runs of attention. Allocates nothing. The buffers and the
 * merge must live until it is done; `args` is copied. In place as fa_merge_host() is.
 *
 * FA_INVALID: a buffer is missing, too small, of another device, or misaligned; or an output shares bytes with an input or
 * with the other output where fa_merge_host() refuses it. Nothing is written then. FA_DEVICE_LOST. Several threads may run
 * one merge, each on its own queue.
 */
FA_API fa_status fa_merge_run(const fa_merge *merge, fa_queue *queue, const fa_merge_args *args);

#ifdef __cplusplus
}
#endif
#endif
