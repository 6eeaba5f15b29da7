/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `fastattn run` share. Each function that fails has printed why. */
#ifndef FASTATTN_TOOLS_RUN_H
#define FASTATTN_TOOLS_RUN_H

#include <stdbool.h>

#include <fastattn/fastattn.h>
#include <fastattn/reference.h>

#include "tools/check.h"
#include "tools/io/source.h"
#include "tools/kvtype.h"
#include "tools/output.h"

#define RUN_COMMAND "run"

/* Scales and zeros of k and v in tensors of their own. */
enum { RUN_K_SCALE, RUN_V_SCALE, RUN_K_ZERO, RUN_V_ZERO, RUN_SCALES };

typedef struct run_options {
    const char *file; /* one safetensors file; the `_name`s are tensors in it */
    const char *q, *k, *v, *bias, *keep, *page_table, *expect;
    const char *q_name, *k_name, *v_name, *bias_name, *keep_name, *page_table_name, *expect_name;
    const char *scales[RUN_SCALES], *scale_names[RUN_SCALES];
    const char *alibi, *bias_factors, *sinks, *lens_q, *lens_kv, *first_kv;
    cli_file outputs[2]; /* o, lse */
    const char *out_dtype, *layout, *kv_type;
    kv_types kv; /* of kv_type */
    const char *causal, *align, *backend, *kernel;
    int64_t window_left, window_right, prefix, splits;
    int64_t v_in_k;                   /* dims of k that are v; 0: v is an input of its own */
    double scale, softcap, tolerance; /* NAN where not given */
    int check, verbose, ignore_memory;
} run_options;

/* A tensor that was found, and is not read yet. */
typedef struct run_input {
    const char *what;
    io_source own;     /* its file, unless it is in --file */
    io_source *source; /* NULL: this input is not given    */
    const char *file;  /* its name, also once it is closed */
    io_found found;
    io_tensor *tensor; /* where it goes                    */
} run_input;

enum { RUN_PAGE_TABLE = 5, RUN_EXPECT, RUN_FIRST_SCALE, RUN_INPUTS = RUN_FIRST_SCALE + RUN_SCALES };

/* What becomes of k or v where --kv-type is given. */
typedef struct run_format {
    const char *what; /* NULL: stays as it is                       */
    fa_dtype to;
    bool raw; /* the file holds its bytes already */
} run_format;

/* Host memory of one problem and its description, which points into it. Until run_load(), tensors have no data. */
typedef struct run_problem {
    io_source file; /* --file */
    run_input inputs[RUN_INPUTS];
    io_tensor q, k, v, bias, keep, expect;
    io_tensor page_table; /* once loaded, its numbers have 32 bits each */
    io_tensor scale[RUN_SCALES];
    bool has_expect;
    /* One per query head, slopes perhaps for each batch entry; NULL: none. */
    float *alibi, *bias_factors, *sinks;
    int64_t *lens_q, *lens_kv; /* one per batch entry; NULL: all                                     */
    int64_t *first_kv;         /* likewise; NULL: 0                                                  */
    run_format k_format, v_format;
    io_tensor o, lse; /* as their files will hold them                                      */
    fa_tuning tuning;
    fa_attention_desc desc;
} run_problem;

/* inputs.c */

/* Opens the files and fills the description. False after an error. */
bool run_describe(const run_options *options, run_problem *problem);
/* Reads what was found, and closes the files. False after an error. */
bool run_load(run_problem *problem);
/* Makes room for the outputs of a description that a device has accepted. */
bool run_allocate(run_problem *problem);
/* Also of a problem that could not be described. */
void run_free(run_problem *problem);
fa_inputs run_inputs(const run_problem *problem);

/* formats.c */

/* How a tensor that was found becomes one of a type of --kv-type. Of bytes, its last axis counts elements from then on. False
 * after an error. */
bool run_format_find(const char *what, fa_dtype dtype, io_tensor *tensor, run_format *format);
/* The bytes that it then has; 0 where it stays as it is. */
size_t run_format_bytes(const run_format *format, const fa_tensor *tensor);
/* Quantises a tensor that was read, for a description that a device has accepted. False after an error. */
bool run_format_apply(const run_format *format, const fa_tensor *to, io_tensor *tensor);
/* Before that: makes the scales, and the zeros if `zero` has elements, and divides the tensor by them. False after an error. */
bool run_format_scale(const run_format *format, const fa_tensor *to, const fa_tensor *scale,
                      const fa_tensor *zero, io_tensor *tensor, io_tensor *scales, io_tensor *zeros);

/* memory.c */

/* Whether there is memory for all that is to come; says what is needed where there is not. */
bool run_fits(const run_options *options, const run_problem *problem, const fa_device_info *device,
              const fa_plan *plan);

/* execute.c */

/* Runs the plan once; prints the summary line. */
bool run_execute(fa_device *device, const fa_plan *plan, const fa_plan_info *info, run_problem *problem);

/* compare.c */

/* Whether o is as near to the oracle as it must be; prints how near. */
bool run_check(fa_context *context, const run_problem *problem, const check_means *means);
/* Whether the expected tensor, if there is one, has the output's shape. */
bool run_expect_fits(const run_problem *problem);
/*
 * Whether o agrees with the expected tensor; prints how well. A tolerance of NAN is derived: either of the
 * two may be off by twice the largest naive error of its head, as far as fa_reference_limit() goes, and by the
 * rounding of its type.
 */
bool run_expect(fa_context *context, const run_problem *problem, const check_means *means, double tolerance);

/* outputs.c */

/* Refuses targets that cannot be written, or that are inputs, before time is spent on computing. */
bool run_outputs_possible(run_options *options);
/* Writes o and lse, as far as they are asked for: both, or on failure neither. */
bool run_write(run_options *options, const run_problem *problem);

#endif
