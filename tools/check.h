/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a result right? It is compared with the double-precision oracle, under a bound that is derived from what
 * a naive f32 implementation makes of the same inputs. check.c says how.
 */
#ifndef FASTATTN_TOOLS_CHECK_H
#define FASTATTN_TOOLS_CHECK_H

#include <stdbool.h>

#include <fastattn/fastattn.h>
#include <fastattn/reference.h>

/* What a problem's output should be, and how far off each element may be. */
typedef struct check_reference check_reference;

/* By what means a result was computed, as far as its error depends on it. */
typedef struct check_means {
    fa_dtype weights; /* fa_plan_info.weights                                                            */
    int merges; /* by the caller, of LSE that were rounded: each is granted that; a plan's own are not    */
} check_means;

/*
 * Computes the oracle, the naive results and the bounds. Slow: six untiled single-threaded passes. Returns as
 * fa_reference_attention(), with its message in fa_last_error(); FA_OUT_OF_MEMORY of this module's own memory
 * leaves no message.
 */
fa_status check_reference_create(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                                 const check_means *means, check_reference **reference);
/* How far off results by other means may be, of the same problem: without the oracle's pass. After a failure the reference
 * is only to be destroyed. */
fa_status check_reference_by(check_reference *reference, fa_context *context, const fa_attention_desc *desc,
                             const fa_inputs *inputs, const check_means *means);
void check_reference_destroy(check_reference *reference);

/* About how many bytes check_reference_create() takes at its peak. */
double check_reference_bytes(const fa_attention_desc *desc);

/* What the library's oracle says: o (batch, head, row, dim), contiguous, and *lse (batch, head, row). */
const double *check_oracle(const check_reference *reference, const double **lse);

typedef struct check_result {
    int ok;
    double max_error;    /* over o, where both sides are finite                                  */
    double error, bound; /* of the element of o that comes nearest to its bound, or is worst beyond */
    double naive;        /* the naive implementation's largest error in o, before the rounding to its type */
    double lse_error, lse_bound;
    char message[256]; /* what differs and where; "" when ok                                   */
} check_result;

/*
 * Judges a result. `o` is of the type and layout that the reference's description gave it, `lse` is NULL where
 * it is not to be looked at.
 */
void check_compare(const check_reference *reference, const void *o, const float *lse, check_result *result);

/*
 * All of it in one call: plans, runs through fa_attention_host() with an output of its own, judges. A status
 * other than FA_OK says that it could not be run, which is not what result->ok == 0 says.
 */
fa_status check_run(fa_context *context, fa_device *device, const fa_attention_desc *desc,
                    const fa_inputs *inputs, check_result *result);

#endif
