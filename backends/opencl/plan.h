/* SPDX-License-Identifier: Apache-2.0 */
/* How plans become kernels and commands. */
#ifndef FA_OPENCL_PLAN_H
#define FA_OPENCL_PLAN_H

#include "backends/opencl/opencl.h"

enum { FA_CL_MAX_CHUNKS = 12, FA_CL_FEW_CHUNKS = 4 };

/* Kernels for operands that lie in so many chunks each; 0: not made. */
typedef struct fa_cl_kernels {
    int chunks;
    cl_kernel attention[2]; /* of any rows; of rows at multiples of 16 bytes, NULL where they cannot be */
    cl_kernel merge;        /* NULL where nothing is split */
} fa_cl_kernels;

/* plan->impl */
typedef struct fa_cl_plan {
    cl_mem work; /* of the plan's own lengths */
    /* `usual` serves what a chunk holds in one chunk. Where such an operand crosses the end of one inside a larger
     * buffer, which no plan can know, `crossing` is made at the first such run. */
    fa_cl_kernels usual, crossing;
    size_t group, merge_group; /* work-items of a group */
    size_t local_bytes;
    pthread_mutex_t lock; /* of `crossing`; and a kernel's arguments are part of the kernel */
} fa_cl_plan;

/* Compiler options, one after the other. */
typedef struct fa_cl_options {
    char bytes[1024];
    size_t used;
} fa_cl_options;

/* Where an operand lies: the chunks that it touches, and where in the first of them it begins. */
typedef struct fa_cl_place {
    cl_mem chunk[FA_CL_MAX_CHUNKS];
    cl_long at; /* elements; bytes of a format of caches */
} fa_cl_place;

enum { FA_CL_WORKSPACE = FA_OPERANDS, FA_CL_PLACES, FA_CL_WORK = FA_CL_PLACES };

/* A kernel whose arguments are being set, in order. */
typedef struct fa_cl_launch {
    const fa_cl *cl;
    cl_kernel kernel;
    cl_uint argument;
    cl_int error;
} fa_cl_launch;

/* launch.c */
__attribute__((format(printf, 2, 3))) void fa_cl_options_add(fa_cl_options *text, const char *format, ...);
/* What every kernel is told: types of q, k, v and o, whether strides need 64 bits (`far`), how operands lie in chunks. */
void fa_cl_options_common(fa_cl_options *text, const fa_device *device, const fa_dtype type[FA_O + 1],
                          bool far, int chunks);
fa_status fa_cl_kernel_make(const fa_plan *plan, const fa_cl_options *options, const char *name,
                            cl_kernel *kernel);
void fa_cl_pass(fa_cl_launch *l, size_t size, const void *value);
void fa_cl_pass_memory(fa_cl_launch *l, const fa_cl_place *p, int chunks);
/* `groups` by `lines` work-groups of `group` work-items. */
fa_status fa_cl_enqueue(const fa_cl_launch *l, cl_command_queue queue, int64_t groups, size_t lines,
                        size_t group, cl_event *event);

/* prepare.c */
fa_status fa_cl_plan_compile(const fa_plan *plan);
fa_status fa_cl_plan_prepare(fa_plan *plan);
void fa_cl_plan_release(fa_plan *plan);
/* Makes all kernels for operands in up to `chunks` chunks, as far as they are not there yet. */
fa_status fa_cl_kernels_make(const fa_plan *plan, int chunks, fa_cl_kernels *kernels);

/* run.c */
fa_status fa_cl_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);
fa_status fa_cl_work_check(const fa_buffer *buffer, size_t offset, size_t size);

#endif
