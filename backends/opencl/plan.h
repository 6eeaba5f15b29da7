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

/*
 * An operand, the workspace or the work of a run; `buffer` is NULL, or `span` 0, where there is none. Where it begins
 * is a multiple of `element` bytes, and kernels are told it in those.
 */
typedef struct fa_cl_operand {
    const char *name;
    const fa_buffer *buffer;
    size_t offset, span, element;
} fa_cl_operand;

enum { FA_CL_WORKSPACE = FA_OPERANDS, FA_CL_PLACES, FA_CL_WORK = FA_CL_PLACES };

/* Scales and zeros: each lies in one chunk, and only kernels that have them are told. */
static inline bool fa_cl_is_scale(int operand)
{
    return operand == FA_K_SCALE || operand == FA_V_SCALE || operand == FA_K_ZERO || operand == FA_V_ZERO;
}

/* A kernel whose arguments are being set, in order. */
typedef struct fa_cl_launch {
    const fa_cl *cl;
    cl_kernel kernel;
    cl_uint argument;
    cl_int error;
} fa_cl_launch;

/* place.c */
/* How many chunks an operand of so many bytes may touch, wherever it lies in its buffer. */
int fa_cl_count_chunks(const fa_device *device, size_t largest);
/* Whether an operand lies in more than one cl_mem. */
bool fa_cl_crosses(const fa_cl_operand *o);
fa_cl_place fa_cl_find_place(const fa_cl_operand *o, int chunks);
/* Whether two buffers wrap the same bytes of the host. */
bool fa_cl_wrap_same(const fa_buffer *a, const fa_buffer *b);

/* launch.c */
__attribute__((format(printf, 2, 3))) void fa_cl_options_add(fa_cl_options *text, const char *format, ...);
/* What every kernel is told: types of q, k, v and o, whether strides need 64 bits (`far`), how operands lie in chunks. */
void fa_cl_options_common(fa_cl_options *text, const fa_device *device, const fa_dtype type[FA_O + 1],
                          bool far, int chunks);
/* What operands in chunks, and the device, ask of every program. */
void fa_cl_options_device(fa_cl_options *text, const fa_device *device, int chunks);
fa_status fa_cl_kernel_make(fa_device *device, const fa_cl_source *source, const fa_cl_options *options,
                            const char *name, cl_kernel *kernel);
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

/* What kernels read, copied to the device. */
fa_status fa_cl_upload(const fa_device *device, const void *bytes, size_t size, cl_mem *memory);

/* task.c */
fa_status fa_cl_task_prepare(fa_task *task);
void fa_cl_task_release(fa_task *task);
fa_status fa_cl_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding);

/* run.c */
fa_status fa_cl_plan_run(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);
fa_status fa_cl_work_check(const fa_buffer *buffer, size_t offset, size_t size);

#endif
