/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `fastattn bench` share. A number that could not be had is NAN; JSON says null. */
#ifndef FASTATTN_TOOLS_BENCH_H
#define FASTATTN_TOOLS_BENCH_H

#include <stdbool.h>
#include <stdio.h>

#include <fastattn/fastattn.h>

#include "tools/check.h"
#include "tools/kvtype.h"
#include "tools/pages.h"
#include "tools/shape.h"

/* What is timed: fa_plan_run() of a plan made before, or fa_attention_host(), which plans, runs and releases. */
typedef enum bench_call { BENCH_RUN, BENCH_HOST } bench_call;

/* What the plot draws a case's rate against. */
typedef enum bench_axis { BENCH_BY_LENGTH, BENCH_BY_BLOCK, BENCH_BY_DIM, BENCH_NOT_DRAWN } bench_axis;

/* Causal masks are aligned at the bottom right: the last row sees every key. */
typedef struct bench_case {
    shape size;
    fa_dtype dtype;
    kv_types kv;
    bool causal;
    int32_t block_q, block_kv, splits; /* as in fa_tuning */
    bench_call call;
    bench_axis axis;
    paging pages;
    bool v_in_k;    /* v is the first dims of k */
    double density; /* of random lists of key blocks; 0: there are none */
    int64_t list_block;
    fa_neighbourhood near; /* of no axes: there is none */
} bench_case;

typedef struct bench_cases {
    bench_case *item;
    size_t count, room;
} bench_cases;

/* One of the instruction sets that multiply bf16 numbers and add up in f32. */
typedef struct bench_ceiling {
    const char *isa;
    double flops;
} bench_ceiling;

enum { BENCH_MAX_DOTS = 2 };

/* The ceilings of a device, as measured in this process. */
typedef struct bench_peak {
    bool known;                        /* false: there is no micro-benchmark for this backend */
    double flops;                      /* f32 multiply-adds, two operations each, per second  */
    double bytes;                      /* read from memory per second                         */
    const char *isa;                   /* or what the loops were written in: "opencl"      */
    bench_ceiling dot[BENCH_MAX_DOTS]; /* bf16 dot products */
    int dots;
    const char *units_name; /* of what worked: "threads" */
    int units;
    size_t buffer_bytes; /* what the reads went over                            */
    size_t cache_bytes;  /* all last-level caches together; 0: unknown          */
} bench_peak;

typedef enum bench_status {
    BENCH_TIMED,
    BENCH_UNSERVED, /* the device or the forced kernel does not compute this, or memory is short */
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
    int32_t block_q, block_kv, splits; /* as planned; 0 where there is no plan */
    int runs;
    bool by_device; /* ms_median and ms_min are by the device's clock, else by this machine's */
    double ms_median, ms_min;
    double ms_wall;                /* median, by this machine's clock */
    double flops_rate, bytes_rate; /* per second */
    double peak_fraction;
    bench_bound bound;
    double ratio_standard; /* median of "standard attention" over ours */
    double ratio_dense;    /* with lists: our median over that of the same without */
    double part;           /* of the visible pairs that lists have        */
    double max_error;      /* against the oracle                       */
} bench_result;

typedef struct bench_options {
    const char *kernel; /* NULL: the planner's choice               */
    double min_time;    /* seconds of timed runs of each case       */
    bool standard;      /* also time "standard attention", in turn  */
    bool ignore_memory; /* time what memory seems too short for     */
} bench_options;

/* suites.c */

typedef struct bench_suite {
    const char *name;
    bool f32_only; /* unless a type is asked for */
    bool (*add)(bench_cases *cases, fa_dtype dtype);
} bench_suite;

enum { BENCH_SUITES = 8 };

/* The first is the default. */
extern const bench_suite bench_suites[BENCH_SUITES];
/* False when memory is short. */
bool bench_cases_add(bench_cases *cases, const bench_case *c);

/* case.c */

/* 2 (D + DV) per visible pair; a causal mask halves a square of pairs. */
double bench_flops(const bench_case *c);
/* Sorts the values. NAN for none. */
double bench_median(double *values, size_t count);
/* The baseline that belongs to `kernel` in a device's comma-separated list: "<isa>-standard" of the
 * same isa, else one named "standard", else for bf16 dot products the one of AVX-512. False when there is none,
 * or `kernel` is a baseline itself. */
bool bench_standard_kernel(const char *kernels, const char *kernel, char *name, size_t size);
/* The ceiling of the instruction set that a kernel is named after: f32 multiply-adds, unless it is one of
 * those for bf16 dot products. */
bench_ceiling bench_peak_ceiling(const bench_peak *peak, const char *kernel);
double bench_peak_fraction(const bench_peak *peak, const char *kernel, double flops_rate, double bytes_rate,
                           bench_bound *bound);
/* Sets up one case, checks it and, when it is right, times it. Nothing is printed. */
void bench_case_run(fa_context *context, fa_device *device, const bench_peak *peak,
                    const bench_options *options, const bench_case *c, bench_result *result);

enum { BENCH_K_SCALE, BENCH_V_SCALE, BENCH_K_ZERO, BENCH_V_ZERO, BENCH_SCALES };

/* Host memory of a case, each contiguous; `o` is what the device made. NULL: there is none, as of a v that lies in k. */
typedef struct bench_data {
    void *q, *k, *v, *o, *scale[BENCH_SCALES];
    int32_t *page_table;
} bench_data;

/* fill.c */

/* Elements of k or v are scale * number + zero. */
typedef struct bench_scaling {
    float scale, zero;
} bench_scaling;

uint64_t bench_random(uint64_t *state);
/* Tensor n of those above. */
const fa_tensor *bench_scale(const fa_attention_desc *d, int n);
/* What suits the elements below; 1 and 0 without scales. */
bench_scaling bench_scaling_of(fa_dtype dtype, const fa_tensor *scale, const fa_tensor *zero);
/* Mean 0, variance 1 and nearly normal, as activations are: four uniform numbers added up. `scaling` may be NULL. */
void bench_fill(void *data, const fa_tensor *t, size_t bytes, uint64_t seed, const bench_scaling *scaling);
/* The same number in all elements. */
void bench_repeat(void *data, fa_dtype dtype, size_t bytes, float x);

/* verify.c */

/*
 * Compares o with the oracle: all of it where that is quick, otherwise some rows of several heads, each
 * against all its keys. *max_error is the largest difference; false, with the reason, when it is too large.
 */
bool bench_verify(fa_context *context, const bench_case *c, const fa_attention_desc *desc,
                  const bench_data *data, const check_means *means, double *max_error, char *message,
                  size_t message_size);

/* machine.c */

/* Bytes that this process can still take, as far as the system tells; SIZE_MAX when it does not. */
size_t bench_memory_available(void);
/* Bytes of all last-level caches together; 0 when the system does not tell. */
size_t bench_cache_bytes(void);

/* peak.c */

/* Measures for a few seconds. False, with the reason, when that fails; peak->known is false then. */
bool bench_peak_measure(const fa_device *device, const fa_device_info *info, bench_peak *peak, char *message,
                        size_t message_size);

/* peak_opencl.c */

/* The same of a device of the OpenCL backend. False, with the reason, where that is not built in. */
bool bench_peak_opencl(const fa_device *device, bench_peak *peak, char *message, size_t message_size);

/* peak_simd.c */

/* Orders of reading, of which the fastest is a machine's ceiling; which one that is depends on its prefetchers. */
enum { BENCH_READ_WAYS = 5, BENCH_READ_FLOATS = 384 * 16 };

typedef struct bench_simd {
    const char *isa;
    int flops_per_step;
    float (*multiply_add)(int64_t steps);
    float (*read[BENCH_READ_WAYS])(const float *data, size_t count); /* a multiple of BENCH_READ_FLOATS */
} bench_simd;

/* Whether a kernel of a device's comma-separated list is called "<isa>-...". */
bool bench_isa_listed(const char *kernels, const char *isa);
/* The widest instruction set that this CPU has and that one of the kernels in `kernels` is named after. */
const bench_simd *bench_simd_find(const char *kernels);

/* peak_bf16.c */

/*
 * The instruction sets for bf16 dot products that this CPU has and that kernels in `kernels` are named after;
 * their `read` is NULL. Each of them runs on any thread of this process from then on.
 */
int bench_dots_find(const char *kernels, const bench_simd *found[BENCH_MAX_DOTS]);

/* report.c */

const char *bench_bound_name(bench_bound bound);
void bench_print_header(const fa_device_info *device, const bench_peak *peak);
void bench_print_row(const bench_result *result);
void bench_write_json(FILE *file, const fa_device_info *device, const bench_peak *peak,
                      const bench_result *results, size_t count);

/* plot.c */

/* A picture of rates: one panel per kind of case, one line per type; cases that are BENCH_NOT_DRAWN are not. */
void bench_write_svg(FILE *file, const fa_device_info *device, const bench_peak *peak,
                     const bench_result *results, size_t count);

#endif
