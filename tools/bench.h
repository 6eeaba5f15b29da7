/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `fastattn bench` share. A number that could not be had is NAN; JSON says null. */
#ifndef FASTATTN_TOOLS_BENCH_H
#define FASTATTN_TOOLS_BENCH_H

#include <stdbool.h>
#include <stdio.h>

#include <fastattn/fastattn.h>

#include "shape.h"

/* Causal masks are aligned at the bottom right: the last row sees every key. */
typedef struct bench_case {
    shape size;
    fa_dtype dtype;
    bool causal;
} bench_case;

/* The ceilings of a device, as measured in this process. */
typedef struct bench_peak {
    bool known;   /* false: there is no micro-benchmark for this backend */
    double flops; /* f32 multiply-adds, two operations each, per second  */
    double bytes; /* read from memory per second                         */
    const char *isa;
    int threads;
    size_t buffer_bytes; /* what the reads went over                            */
    size_t cache_bytes;  /* all last-level caches together; 0: unknown          */
} bench_peak;

typedef enum bench_status {
    BENCH_TIMED,
    BENCH_UNSERVED, /* the device or the forced row does not compute this, or memory is short */
    BENCH_WRONG,    /* the result is off: not timed                                            */
    BENCH_BROKEN    /* a call failed                                                           */
} bench_status;

/* Which ceiling is nearer. BENCH_CACHE: faster than memory can be read, so the data came from a cache. */
typedef enum bench_bound { BENCH_NO_BOUND, BENCH_COMPUTE, BENCH_MEMORY, BENCH_CACHE } bench_bound;

typedef struct bench_result {
    bench_case problem;
    bench_status status;
    char message[512]; /* why it is not BENCH_TIMED, or why there is no ratio; "" otherwise */
    char kernel[64];
    int runs;
    double ms_median, ms_min;
    double flops_rate, bytes_rate; /* per second */
    double peak_fraction;
    bench_bound bound;
    double ratio_standard; /* median of "standard attention" over ours */
    double max_error;      /* against the oracle                       */
} bench_result;

typedef struct bench_options {
    const char *kernel; /* NULL: the planner's choice               */
    double min_time;    /* seconds of timed runs of each case       */
    bool standard;      /* also time "standard attention", in turn  */
} bench_options;

/* bench_case.c */

/* 2 (D + DV) per visible pair; a causal mask halves a square of pairs. */
double bench_flops(const bench_case *c);
/* Sorts the values. NAN for none. */
double bench_median(double *values, size_t count);
/* The yardstick that belongs to `kernel` in a device's comma-separated list: the row "<isa>-standard" of the
 * same isa, else one named "standard". False when there is none, or `kernel` is a yardstick itself. */
bool bench_standard_row(const char *kernels, const char *kernel, char *row, size_t row_size);
double bench_peak_fraction(const bench_peak *peak, double flops_rate, double bytes_rate, bench_bound *bound);
/* Sets up one case, checks it and, when it is right, times it. Nothing is printed. */
void bench_case_run(fa_context *context, fa_device *device, const bench_peak *peak,
                    const bench_options *options, const bench_case *c, bench_result *result);

/* bench_verify.c */

/* Host memory of a case, each contiguous; `o` is what the device made. */
typedef struct bench_data {
    void *q, *k, *v, *o;
} bench_data;

/*
 * Compares o with the oracle: all of it where that is quick, otherwise some rows of several heads, each
 * against all its keys. *max_error is the largest difference; false, with the reason, when it is too large.
 */
bool bench_verify(fa_context *context, const bench_case *c, const fa_attention_desc *desc,
                  const bench_data *data, fa_dtype weights, double *max_error, char *message,
                  size_t message_size);

/* bench_peak.c */

/* Bytes that can be had without swapping, as far as the system tells; SIZE_MAX when it does not. */
size_t bench_memory_available(void);
/* Bytes of all last-level caches together; 0 when the system does not tell. */
size_t bench_cache_bytes(void);
/* Measures for about a second. False, with the reason, when memory is short; peak->known is false then. */
bool bench_peak_measure(const fa_device_info *device, bench_peak *peak, char *message, size_t message_size);

/* bench_peak_simd.c */

typedef struct bench_simd {
    const char *isa;
    int flops_per_step;
    float (*multiply_add)(int64_t steps);
    float (*read)(const float *data, size_t count); /* count: a multiple of BENCH_READ_FLOATS */
} bench_simd;

enum { BENCH_READ_FLOATS = 384 };

/* The widest instruction set that this CPU has and that one of the rows in `kernels` is named after. */
const bench_simd *bench_simd_find(const char *kernels);

/* bench_report.c */

const char *bench_bound_name(bench_bound bound);
void bench_print_header(const fa_device_info *device, const bench_peak *peak);
void bench_print_row(const bench_result *result);
void bench_write_json(FILE *file, const fa_device_info *device, const bench_peak *peak,
                      const bench_result *results, size_t count);

/* bench_plot.c */

/* A picture of rate against length: one panel per kind of case, one line per type. */
void bench_write_svg(FILE *file, const fa_device_info *device, const bench_peak *peak,
                     const bench_result *results, size_t count);

#endif
