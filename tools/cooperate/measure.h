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
    double link_bandwidth, link_seconds, host_bandwidth;
    uint64_t stream_bytes; /* for pieces; 0: a quarter of the keys that are not home */
    double stream_share;   /* 0: as the run chooses */
    int64_t prompt;        /* tokens; 0: no prefill */
} measure_problem;

/* Seconds of one layer's attention to a prompt. */
typedef struct measure_layers {
    double device; /* whose K and V stay where they are */
    double host;   /* whose K and V are copied out while the next layer is computed */
} measure_layers;

/* Median seconds. */
typedef struct measure_result {
    char home[256], away[256]; /* devices, with their kernels */
    double seconds[FA_COOPERATE_WAYS];
    double all_home;        /* as if home memory held all keys */
    fa_cooperate_info info; /* after the runs of FA_COOPERATE_SPLIT */
    double stream;          /* split, with a third part; 0: the away device does not work in host memory */
    fa_cooperate_info stream_info;
    measure_layers prefill;
    double max_error; /* of all ways, against the oracle */
} measure_result;

/*
 * The away memory holds all keys, so that FA_COOPERATE_SPLIT chooses which are computed there; FA_COOPERATE_COPY copies those
 * that are not home. Away keys lie in memory of fa_host_memory_create(). Each way's first heads are checked against the
 * oracle before it is timed. False after an error message.
 */
bool measure(const char *command, fa_context *context, const measure_problem *problem,
             measure_result *result);

/* prefill.c: of home's layers alone, and of layers that are the host's. False after an error message. */
bool measure_prefill(const char *command, fa_device *home, const measure_problem *problem,
                     measure_layers *result);

/* rows.c. Rows of a pool, in an order that no cache foresees. False: no memory. */
bool measure_fill(fa_dtype dtype, int64_t dim, size_t row, unsigned char *to, size_t rows);

#endif
