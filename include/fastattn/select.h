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

#ifdef __cplusplus
}
#endif
#endif
