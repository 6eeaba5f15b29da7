/* SPDX-License-Identifier: Apache-2.0 */
/* How plans become kernels and commands. */
#ifndef FA_OPENCL_PIPELINE_H
#define FA_OPENCL_PIPELINE_H

#include "backends/opencl/opencl.h"

enum { FA_CL_MAX_CHUNKS = 12 };

/* Bytes of a chunk of a buffer that is too large for one allocation, as a power of two. */
int fa_cl_chunk_shift(const fa_cl_caps *caps);

/* pipeline.c */
fa_status fa_cl_plan_prepare(fa_plan *plan);
void fa_cl_plan_release(fa_plan *plan);

/* run.c */
fa_status fa_cl_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);

/* plan->impl */
typedef struct fa_cl_plan {
    cl_mem table;           /* see shaders/opencl/args.h */
    cl_kernel attention[2]; /* of any rows; of rows at multiples of 16 bytes, NULL where they cannot be */
    cl_kernel merge;        /* NULL where nothing is split */
    size_t group, merge_group; /* work-items of a group */
    size_t local_bytes;
    int chunks; /* that each operand may lie in */
    pthread_mutex_t lock; /* a kernel's arguments are part of the kernel */
} fa_cl_plan;

#endif
