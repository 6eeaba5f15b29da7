/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The oracle, and the naive computation from which its tolerance is derived. Both are slow, obvious and
 * single-threaded. They are for tests and checks.
 */
#ifndef FASTATTN_REFERENCE_H
#define FASTATTN_REFERENCE_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The inputs of a problem in host memory: each pointer is a tensor's first element. bias, keep, page_table, scales
 * and zeros are NULL exactly if the description has none. With v_in_k, v is not looked at.
 */
typedef struct fa_inputs {
    const void *q, *k, *v, *bias, *keep, *page_table, *k_scale, *v_scale, *k_zero, *v_zero;
} fa_inputs;

/**
 * Computes the problem in double precision, untiled. `o` is f64, contiguous, of the shape of desc->o. `lse` is f64,
 * contiguous, of shape (batch, head, row), or NULL. Rows that belong to no packed sequence are not written. desc->o's
 * layout, desc->want_lse and desc->tuning have no effect. FA_INVALID: as fa_plan_create(). FA_OUT_OF_MEMORY: it
 * takes four f64 and, as f32, a row of k and of v for each key. Thread-safe.
 */
FA_API fa_status fa_reference_attention(fa_context *context, const fa_attention_desc *desc,
                                        const fa_inputs *inputs, double *o, double *lse);

/** The order in which a naive implementation sums over dims and keys. Each is as right as the others. */
typedef enum fa_naive_order {
    FA_ORDER_FORWARD = 0,
    FA_ORDER_BACKWARD = 1,
    FA_ORDER_STRIDED = 2
} fa_naive_order;
#define FA_NAIVE_ORDERS 3

/**
 * Computes the problem as a naive implementation would: untiled, in f32, with the whole row of scores, its maximum,
 * exp, sum, product. Softmax weights are rounded to `weights` before the second product. `o` is rounded to
 * desc->o.dtype and stored as f32, contiguous, of the shape of desc->o. `lse` is f32, contiguous, of shape (batch,
 * head, row), or NULL. The tolerance of every kernel is derived from the error of this against the reference: see
 * docs/numerics.md. Returns as fa_reference_attention(). Thread-safe.
 */
FA_API fa_status fa_naive_attention(fa_context *context, const fa_attention_desc *desc,
                                    const fa_inputs *inputs, fa_naive_order order, fa_dtype weights, float *o,
                                    float *lse);

/**
 * How wrong f32 arithmetic can be at most, in whatever order it sums. For each row: no element of the output is further
 * than `o` from that of fa_reference_attention(), and the LSE is not further than `lse`. Both are f64, contiguous, of
 * shape (batch, head, row). They are infinite if scores, or products of q and k, are beyond f32.
 *
 * `weights` is the type to which softmax weights are rounded. `merges` is the number of merges of partial states
 * between the kernel and the result. The rounding of the output itself is not included. A tolerance above this limit
 * checks nothing: see docs/numerics.md. Returns as fa_reference_attention(). Thread-safe.
 */
FA_API fa_status fa_reference_limit(fa_context *context, const fa_attention_desc *desc,
                                    const fa_inputs *inputs, fa_dtype weights, int32_t merges, double *o,
                                    double *lse);

/**
 * Conversions of elements, as every backend does them: to nearest, ties to even. NaN stays NaN. What is too large
 * becomes Inf. Thread-safe.
 */
FA_API float fa_f16_to_f32(uint16_t bits);
FA_API uint16_t fa_f32_to_f16(float value);
FA_API float fa_bf16_to_f32(uint16_t bits);
FA_API uint16_t fa_f32_to_bf16(float value);

/**
 * Element number `index` of contiguous memory: of a float type, of bool (0 or 1), or of a format of caches, of which `base`
 * is the beginning of a block. 0 of FA_BITMAP_F16, whose rows fa_bitmap_load() reads. Exact. Thread-safe.
 */
FA_API float fa_element(fa_dtype dtype, const void *base, int64_t index);

/**
 * The way back: `count` elements from number `index` on, of a float type or a format of caches. Of the latter they are whole
 * blocks (of FA_FP8_DS_MLA, rows of 576). Rounded and quantised as fa_append_run() does it. Of codes alone (FA_I8 to
 * FA_U2U1) `from` are the numbers that codes stand for, elements that a scale has divided: they are rounded to the nearest
 * that has a code, ties to even. FA_E8M0: to the least power of two that is not less. Other types are left alone, and
 * FA_BITMAP_F16, whose rows fa_bitmap_store() writes. Thread-safe.
 */
FA_API void fa_elements_store(fa_dtype dtype, void *base, int64_t index, const float *from, int64_t count);

/**
 * One row of FA_BITMAP_F16, of `row_bytes` bytes, from `dims` numbers: as fa_append_run() prunes it, to as many elements as the row
 * has room for. Its padding is not written. FA_INVALID: NULL, or dims or row_bytes that no tensor of that type has. Thread-safe.
 */
FA_API fa_status fa_bitmap_store(void *row, int64_t row_bytes, const float *from, int64_t dims);

/** The way back: the elements that the row keeps, 0 for the others. Exact. Returns as fa_bitmap_store(). Thread-safe. */
FA_API fa_status fa_bitmap_load(const void *row, int64_t row_bytes, float *to, int64_t dims);

/**
 * A scale with which `count` elements, `stride` apart, fit the codes of fp8 or of codes alone: the largest magnitude over
 * the greatest number that a code stands for. With `zero`, which may be NULL, also a zero: then the least element has the
 * least number, the largest the greatest. 0 for zeros alone, NaN where an element is not finite. Of FA_U2U1 this is what elements
 * of one bit need; those of two bits are fitted as FA_U2. What is stored is fa_elements_store() of (x - zero) * (1 / scale), with
 * scale and zero as they were rounded to their own types. Thread-safe.
 */
FA_API void fa_elements_fit(fa_dtype dtype, const float *from, int64_t count, int64_t stride, float *scale,
                            float *zero);

#ifdef __cplusplus
}
#endif
#endif
