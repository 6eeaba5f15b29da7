/* SPDX-License-Identifier: Apache-2.0 */
/* What a token's step of one layer takes on this machine's devices, with some of the keys in the memory of another. */
#ifndef FASTATTN_TOOLS_COOPERATE_MEASURE_H
#define FASTATTN_TOOLS_COOPERATE_MEASURE_H

#include <stdbool.h>

#include <fastattn/fastattn.h>

typedef struct measure_problem {
    const char *home, *away; /* devices by name; NULL: "auto", and "openmp" */
    int64_t sequences, heads_q, heads_kv, dim_qk, dim_v, context;
    int64_t home_keys; /* of each sequence, that home memory has room for: the newest */
    fa_dtype k_type, v_type;
    double min_time; /* seconds for each way */
} measure_problem;

/* Median seconds. */
typedef struct measure_result {
    char home[256], away[256]; /* devices, with their kernels */
    double seconds[FA_COOPERATE_WAYS];
    double all_home;        /* as if home memory held all keys */
    fa_cooperate_info info; /* after the runs of FA_COOPERATE_SPLIT */
    double max_error;       /* of all ways, against the oracle */
} measure_result;

/*
 * The away memory holds all keys, so that FA_COOPERATE_SPLIT chooses which are computed there; FA_COOPERATE_COPY copies those
 * that are not home, from pinned memory where the home backend has such. Each way's first heads are checked against the
 * oracle before it is timed. False after an error message.
 */
bool measure(const char *command, fa_context *context, const measure_problem *problem,
             measure_result *result);

#endif
