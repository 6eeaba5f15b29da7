/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a result right? It is compared with the double-precision oracle, under a bound that is derived from what
 * a naive f32 implementation makes of the same inputs. check.c says how.
 */
#ifndef FASTATTN_TOOLS_CHECK_H
#define FASTATTN_TOOLS_CHECK_H

#include <fastattn/fastattn.h>
#include <fastattn/reference.h>

/* What a problem's output should be, and how far off each element may be. Immutable once made. */
typedef struct check_reference check_reference;

/*
 * Computes the oracle, the naive results and the bounds. `weights` is fa_plan_info.weights of the plan whose
 * result will be judged. Slow: five untiled single-threaded passes. Returns as fa_reference_attention(), with
 * its message in fa_last_error(); FA_OUT_OF_MEMORY of this module's own memory leaves no message.
 */
fa_status check_reference_create(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                                 fa_dtype weights, check_reference **reference);
void check_reference_destroy(check_reference *reference);

/* What the library's oracle says: o (batch, head, row, dim), contiguous, and *lse (batch, head, row). */
const double *check_oracle(const check_reference *reference, const double **lse);

typedef struct check_result {
    int ok;
    double max_error;         /* over o, where both sides are finite                                  */
    double error, bound;      /* of the element of o that comes nearest to its bound, or is worst beyond */
    double naive;             /* the naive implementation's largest error in o, before the rounding to its type */
    double lse_error, lse_bound;
    char message[256];        /* what differs and where; "" when ok                                   */
} check_result;

/*
 * Judges a result. `o` is of the type and layout that the reference's description gave it, `lse` is NULL where
 * it is not to be looked at. `merges` is how many merges of partial states lie between the kernels and this
 * result (0 for a plan's own output, split or not); each is granted its own roundings.
 */
void check_compare(const check_reference *reference, const void *o, const float *lse, int merges,
                   check_result *result);

/*
 * All of it in one call: plans, runs through fa_attention_host() with an output of its own, judges. A status
 * other than FA_OK says that it could not be run, which is not what result->ok == 0 says.
 */
fa_status check_run(fa_context *context, fa_device *device, const fa_attention_desc *desc, const fa_inputs *inputs,
                    check_result *result);

#endif
