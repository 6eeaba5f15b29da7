/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A bias of low rank as a few more dims of q and k: FlashBias (arXiv 2505.12044). Functions on the host.
 *
 * A bias b(i, j) = sum over r of q_factors[i][r] * k_factors[j][r] is added to scale * q . k by appending factors to q and k: row i of
 * q becomes [scale * q_i, q_factors_i], key j [k_j, k_factors_j], and the description has scale 1. v stays as it is. Instead of
 * rows x keys numbers, rows + keys vectors are read. Appended factors have the precision of q and k: positions in f16 are exact to
 * 2048 only. What is beyond f32's range becomes
 * infinite. Softcap would cap the bias too. All arrays are contiguous, the caller's, and do not overlap. What holds for every function:
 * FA_INVALID: NULL, or an argument that the message names with its value. Nothing is written on failure. Thread-safe.
 */
#ifndef FASTATTN_BIAS_H
#define FASTATTN_BIAS_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FA_BIAS_ALIBI_RANK 2

/**
 * ALiBi of one head, rank 2: slope * (j - p), where row i stands at p = i + keys - rows. For keys up to p, as a causal mask leaves
 * them, that is -slope * |p - j|, FlashAttention's. Positions count from the middle of the keys, which keeps products small. q_factors
 * (rows, 2), k_factors (keys, 2). rows and keys are 1 to FA_MAX_LENGTH; slope is finite.
 */
FA_API fa_status fa_bias_alibi(int64_t rows, int64_t keys, double slope, float *q_factors, float *k_factors);

/**
 * Weighted squared distance of points, rank dims + 2: sum over d of weights[d] * (x_i[d] - y_j[d])^2. Three dims are distances in space,
 * rank 5; two, with a token's row and column as its point, are relative positions on a grid. `from` (rows, dims) are the points of
 * rows, `to` (keys, dims) of keys; `weights` (dims) may be negative; NULL: all 1. q_factors (rows, dims + 2), k_factors (keys, dims + 2).
 * dims is 1 to 1024.
 */
FA_API fa_status fa_bias_distance(int64_t dims, int64_t rows, const float *from, int64_t keys,
                                  const float *to, const double *weights, float *q_factors, float *k_factors);

/**
 * The best factors of a rank for any bias, as of a learned table of relative positions: its truncated singular value decomposition, by
 * one-sided Jacobi rotations in double. Each factor has the root of its singular value. q_factors (rows, rank), k_factors (keys,
 * rank); rank is 1 to the lesser of rows and keys. *error, which may be NULL, is the root of the sum of squares of what is left,
 * before factors are rounded to f32. `bias` (rows, keys) is finite. Takes two doubles for each element, and time as
 * rows * keys * min(rows, keys), some ten times. Further FA_OUT_OF_MEMORY.
 */
FA_API fa_status fa_bias_factorize(fa_context *context, int64_t rows, int64_t keys, const float *bias,
                                   int64_t rank, float *q_factors, float *k_factors, double *error);

#ifdef __cplusplus
}
#endif
#endif
