/* SPDX-License-Identifier: Apache-2.0 */
/** The oracle, and the yardstick for its tolerance: slow, obvious, single-threaded. For tests and checks. */
#ifndef FASTATTN_REFERENCE_H
#define FASTATTN_REFERENCE_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Host memory of a problem's inputs; bias and keep are NULL exactly where the description has none. */
typedef struct fa_inputs {
    const void *q, *k, *v, *bias, *keep;
} fa_inputs;

/**
 * The problem in double precision, untiled. `o` is f64, contiguous, of the shape of desc->o; `lse` likewise
 * (batch, head, row), or NULL. Rows that belong to no packed sequence are left as they are. desc->o's layout,
 * desc->want_lse and desc->tuning do not matter. FA_INVALID as fa_plan_create(); FA_OUT_OF_MEMORY (four
 * f64 for each key of a row).
 */
FA_API fa_status fa_reference_attention(fa_context *context, const fa_attention_desc *desc,
                                        const fa_inputs *inputs, double *o, double *lse);

/** The order in which a naive implementation sums over dims and keys: each is as right as the others. */
typedef enum fa_naive_order {
    FA_ORDER_FORWARD = 0,
    FA_ORDER_BACKWARD = 1,
    FA_ORDER_STRIDED = 2
} fa_naive_order;
#define FA_NAIVE_ORDERS 3

/**
 * The same as a naive implementation would compute it: untiled, f32 arithmetic, the whole row of scores, its
 * maximum, exp, sum, product; softmax weights rounded to `weights` before the second product; the output
 * rounded to desc->o.dtype (and stored as f32, contiguous). Its error against the reference is what the
 * tolerance of every kernel is derived from: see docs/numerics.md. Returns as fa_reference_attention().
 */
FA_API fa_status fa_naive_attention(fa_context *context, const fa_attention_desc *desc,
                                    const fa_inputs *inputs, fa_naive_order order, fa_dtype weights, float *o,
                                    float *lse);

/**
 * The most by which f32 arithmetic can be wrong, whatever its order: for each row, no element of o is further
 * than `o` from fa_reference_attention()'s, nor is the LSE further than `lse`. Both are f64, contiguous (batch,
 * head, row), and infinite where scores, or products of q and k, are beyond f32. `weights` is the type in which softmax
 * weights are kept, `merges` how many merges of partial states lie between the kernel and the result; the
 * output's own rounding is not included. A tolerance above this limit checks nothing: see docs/numerics.md.
 * Returns as fa_reference_attention().
 */
FA_API fa_status fa_reference_limit(fa_context *context, const fa_attention_desc *desc,
                                    const fa_inputs *inputs, fa_dtype weights, int32_t merges, double *o,
                                    double *lse);

/** Element conversions as every backend does them: to nearest, ties to even; NaN stays NaN, overflow is Inf. */
FA_API float fa_f16_to_f32(uint16_t bits);
FA_API uint16_t fa_f32_to_f16(float value);
FA_API float fa_bf16_to_f32(uint16_t bits);
FA_API uint16_t fa_f32_to_bf16(float value);

#ifdef __cplusplus
}
#endif
#endif
