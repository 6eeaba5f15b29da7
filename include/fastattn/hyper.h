/* SPDX-License-Identifier: Apache-2.0 */
/** HyperAttention: attention of long sequences in nearly linear time, approximated by sorting and sampling. */
#ifndef FASTATTN_HYPER_H
#define FASTATTN_HYPER_H

#include "attention.h"
#include "device.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * HyperAttention (arXiv 2310.05869): an approximation, whose error depends on the data and is not bounded here. docs/sparse.md says
 * how to measure it. Of R rows and K keys that all see each other:
 *  - Rows and keys are sorted by hash (fa_hash_desc, with `directions` and `seed`; equal ones as they are), rows for each query head,
 *    keys for each KV head.
 *  - Sorted keys are cut into blocks of B keys: B is K / max(floor(K / block), 1), rounded up to a whole number, and if `block` is 64 or
 *    more, to a multiple of 64. Sorted rows are cut into blocks of R B / K, rounded to nearest, at least 1. Row block r meets
 *    key block r, or the last if there are fewer.
 *  - `sample` numbers of sorted keys are drawn, each of the same chance, also twice, by seed and alike for all heads. Each row
 *    meets those that are not in its own block of keys, and each of them counts K / sample times.
 *
 * A causal mask needs as many rows as keys. A sequence of more than `min_seq` is halved, the first half being the smaller one. Each
 * half is taken as a sequence by itself, and the rows of the second meet all keys of the first as above (with the B of the longest
 * such half of the same level). What is no longer than min_seq is exact, as is all of a problem without a mask whose rows and keys
 * are no more than that.
 *
 * `attention` may have what fa_plan_create() takes of: q, k and v in f32, f16 or bf16, scale, softcap, a causal mask, LSE, tuning. All
 * else is FA_UNSUPPORTED, by name. Heads of a group share KV heads as ever.
 */
typedef struct fa_hyper_desc {
    size_t struct_size; /* sizeof(fa_hyper_desc)                                     */
    const fa_attention_desc *attention;
    int32_t directions; /* 1 to 16; 0: 7                                             */
    int64_t block;      /* keys, 1 to FA_MAX_LENGTH; 0: 256                          */
    int64_t sample;     /* keys, 1 to FA_MAX_LENGTH; 0: 256                          */
    int64_t min_seq;    /* 1 to FA_MAX_LENGTH; 0: 4096                               */
    uint64_t seed;
} fa_hyper_desc;

/** A prepared HyperAttention. It never changes. Any number of threads may run one, each with its own queue and outputs. */
typedef struct fa_hyper fa_hyper;

/**
 * Prepares it on `device`: plans, sorts and gathers for each level, and memory of the device for what was drawn. Everything is copied
 * out of desc. Destroy with fa_hyper_destroy(). *hyper is NULL on failure. FA_INVALID: NULL, or a field is wrong, which the message
 * names. FA_UNSUPPORTED: what is not served, or the device does not serve a part. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST.
 * Thread-safe.
 */
FA_API fa_status fa_hyper_create(fa_device *device, const fa_hyper_desc *desc, fa_hyper **hyper);

/** Destroys it when no queue runs it any more. NULL is allowed. */
FA_API void fa_hyper_destroy(fa_hyper *hyper);

/**
 * The bytes of scratch memory that each run needs: of one batch entry q, k and v, and two states of f32 for each row and
 * head, with a causal mask three. 0 for NULL. Thread-safe.
 */
FA_API size_t fa_hyper_workspace(const fa_hyper *hyper);

/**
 * Enqueues it on a queue of its device, batch entry after batch entry: what fa_plan_run() does with a plan of `attention`, with the same
 * arguments, checks and errors, but the workspace is its own. Allocates nothing. Several threads may run one, each on its own
 * queue.
 */
FA_API fa_status fa_hyper_run(const fa_hyper *hyper, fa_queue *queue, const fa_attention_args *args);

#ifdef __cplusplus
}
#endif
#endif
