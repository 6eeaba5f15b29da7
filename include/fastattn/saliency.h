/* SPDX-License-Identifier: Apache-2.0 */
/** Saliency: how much weight each key has in the mean of some rows, from which caches choose what to keep precisely. */
#ifndef FASTATTN_SALIENCY_H
#define FASTATTN_SALIENCY_H

#include "attention.h"
#include "buffer.h"
#include "device.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The mean weight of each key j over the probe rows i that see it,
 *     saliency(j) = mean_i exp(s_ij - L_i),
 * where s_ij is the score of the description, with all of its terms, and L_i the row's LSE, which attention has left. A key that
 * no probe row sees has 0. That is ZipCache's normalised saliency, whose probes are some recent and some random rows; with
 * `sums`, of all rows, it is the accumulated score of H2O.
 */
typedef struct fa_saliency_desc {
    size_t struct_size; /* sizeof(fa_saliency_desc) */
    /* As its plan has it. v, its scales, o and sinks are not read. */
    const fa_attention_desc *attention;
    int64_t probes; /* of each sequence; 0: all rows are probes                                        */
    int64_t
        heads; /* of the output: heads_kv, each a mean over the query heads of its group; or heads_q. 0: heads_kv */
    int32_t sums; /* 1: sums in the place of means                                                   */
    /* A plan of `attention` on this device, with dynamic_lengths, whose work runs may be given: then they have its lengths and
     * masks. Scale, softcap and the values of slopes and factors are those of `attention`, which may differ from the plan's. It
     * may be destroyed afterwards. NULL: runs have the description's lengths. */
    const fa_plan *plan;
} fa_saliency_desc;

/** A prepared saliency. It never changes. Any number of threads may run one, each with its own queue and output. */
typedef struct fa_saliency fa_saliency;

/**
 * Prepares it on `device`. Everything is copied out of desc. Destroy with fa_saliency_destroy(). *saliency is NULL on failure.
 * FA_INVALID: NULL, or desc is wrong; the message names the field. FA_UNSUPPORTED: more than 2^31 - 1 keys; a tensor larger
 * than the device's kernels reach; more rows or probes than its driver lets loops count. With a plan these are of the longest
 * lengths that it serves. FA_INVALID also: plan is of another device or description.
 * FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_saliency_create(fa_device *device, const fa_saliency_desc *desc, fa_saliency **saliency);

/** Destroys a saliency that no queue still runs. NULL is allowed. */
FA_API void fa_saliency_destroy(fa_saliency *saliency);

/**
 * The memory of one run. `lse` is that of attention, f32 of shape (batch, heads_q, rows). `probes` holds `probes` numbers of 32
 * bits for each sequence, which are rows of it; others count as none. bias, keep, probes, page_table, k_scale and k_zero are
 * given exactly if the description has them. `saliency` is f32, contiguous, of shape (sequences, heads, keys), with as many
 * keys as a sequence can have; what lies beyond a sequence's keys, and before its first, is not written. Where a page table on
 * the device names a page that the pool does not have, the saliency of its keys that a probe row sees is NaN. The LSE that
 * attention leaves for such a row is NaN too, and makes that of all keys NaN which the row sees. Offsets are in bytes.
 */
typedef struct fa_saliency_args {
    size_t struct_size; /* sizeof(fa_saliency_args) */
    fa_buffer *q, *k, *lse, *keep, *bias, *probes, *saliency;
    size_t q_offset, k_offset, lse_offset, keep_offset, bias_offset, probes_offset, saliency_offset;
    fa_buffer *page_table, *k_scale, *k_zero;
    size_t page_table_offset, k_scale_offset, k_zero_offset;
    /* What fa_plan_schedule() or fa_plan_schedule_device() wrote for the description's plan, and what attention ran with; NULL:
     * the description's lengths. A sequence that takes no part writes nothing. */
    fa_buffer *work;
    size_t work_offset; /* a multiple of 256; in wrapped host memory, the address is a multiple of 64 */
} fa_saliency_args;

/**
 * Enqueues it on a queue of its device, in the order of runs of attention; it can be captured or recorded as these are.
 * Allocates nothing. The buffers must live until it is done; `args` is copied. FA_INVALID: a buffer is missing, too small, of
 * another device, or misaligned; saliency shares bytes with another operand; a page table in host memory names a page that
 * the pool does not have; or, on openmp and null, work is of another plan. Nothing is written then. FA_DEVICE_LOST.
 */
FA_API fa_status fa_saliency_run(const fa_saliency *saliency, fa_queue *queue, const fa_saliency_args *args);

#ifdef __cplusplus
}
#endif
#endif
