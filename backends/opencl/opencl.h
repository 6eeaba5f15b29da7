/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the OpenCL backend share. Only calls of OpenCL 1.2 are used. */
#ifndef FA_OPENCL_OPENCL_H
#define FA_OPENCL_OPENCL_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>
#include <pthread.h>

#include "backends/gpu/kernels.h"
#include "backends/opencl/loader.h"
#include "core/backend.h"

/* What of a device the kernels depend on: as the driver tells it, lowered by FASTATTN_OPENCL_LIMITS. */
typedef struct fa_cl_caps {
    cl_device_type type;
    uint32_t units;     /* compute units                                                        */
    uint32_t clock_mhz; /* at least 1                                                           */
    size_t local_bytes; /* local memory of one work-group                                       */
    bool local_real;    /* local memory is memory of its own, not a cached part of global memory */
    size_t group_size;  /* most work-items of a work-group, in its first dimension too          */
    size_t alloc_bytes; /* most bytes of one cl_mem                                             */
    uint64_t global_bytes;
    size_t base_align; /* of a sub-buffer's origin, in bytes                                   */
    bool unified;      /* the host and the device share memory                                 */
    bool near;         /* strides and places of keys may be numbers of 32 bits, where they fit */
    bool fp16;         /* cl_khr_fp16                                                          */
    int version;       /* of OpenCL: 12, 20, 21, 22, 30                                        */
    bool subgroups;    /* sub-group shuffles: cl_khr_subgroups and cl_khr_subgroup_shuffle     */
    char driver[256];  /* platform, device, versions: what a program binary is good for        */
} fa_cl_caps;

/* device->impl */
typedef struct fa_cl_device {
    const fa_cl *cl;
    cl_context context; /* retained: ours, or the caller's */
    cl_device_id id;
    fa_cl_caps caps;
    pthread_mutex_t lock; /* of `programs` */
    struct fa_cl_program *programs;
    fa_kernel kernels[FA_MAX_KERNELS];   /* what fa_device.kernel points to */
    fa_gpu_kernel impls[FA_MAX_KERNELS]; /* what the impl of those points to */
} fa_cl_device;

static inline fa_cl_device *fa_cl_device_of(const fa_device *device)
{
    return device->impl;
}

/* queue->impl: an in-order command queue, retained */
typedef struct fa_cl_queue {
    cl_command_queue handle;
    bool timed;           /* made with CL_QUEUE_PROFILING_ENABLE                                       */
    cl_event first, last; /* of the last run, set by fa_cl_queue_keep(); NULL before it                */
} fa_cl_queue;

/*
 * buffer->impl. A buffer larger than the device allocates at once lies in several cl_mem, each of
 * `chunk_bytes` but the last; an empty one in none. `origin`, a multiple of 64, is where it begins in the first.
 * A wrapped cl_mem is `whole`; where it is larger than a chunk, its chunks are sub-buffers of it, those before
 * the origin NULL, and else it is its own chunk. fa_buffer.storage identifies the memory, fa_buffer.address is the
 * offset in it.
 */
typedef struct fa_cl_buffer {
    size_t chunk_bytes;
    size_t chunks;
    size_t origin;
    void *host;   /* the caller's memory, in place: synchronised by mapping it; NULL: none     */
    bool mapped;  /* transfers map it, since it is memory that the host has too; else they copy */
    cl_mem whole; /* retained; NULL: the chunks are all there is                                   */
    cl_mem chunk[];
} fa_cl_buffer;

/* device.c */
extern const fa_backend fa_backend_opencl;

/* caps.c: bytes of a chunk of a buffer that is too large for one allocation, as a power of two: kernels find a chunk by
 * a shift. */
int fa_cl_chunk_shift(const fa_cl_caps *caps);

/* buffer.c, queue.c: entries of the vtable */
fa_status fa_cl_buffer_create(fa_buffer *buffer);
fa_status fa_cl_buffer_wrap(fa_buffer *buffer, void *memory);
/* The caller's cl_mem, retained, which begins at root_origin of `root`, or is that; storage and address are set. */
fa_status fa_cl_buffer_wrap_mem(fa_buffer *buffer, cl_mem memory, size_t origin, cl_mem root,
                                size_t root_origin);
void fa_cl_buffer_destroy(fa_buffer *buffer);
fa_status fa_cl_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size);
fa_status fa_cl_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                            size_t size);
/* Enqueues what makes the host's writes visible to the device (before a run), or the device's to the host
 * (after it): maps and unmaps. Nothing where buffer->impl->host is NULL. */
fa_status fa_cl_buffer_sync(fa_queue *queue, const fa_buffer *buffer, bool to_device, bool to_host);
fa_status fa_cl_queue_create(fa_queue *queue);
fa_status fa_cl_queue_wait(fa_queue *queue);
fa_status fa_cl_queue_seconds(fa_queue *queue, double *seconds);
void fa_cl_queue_destroy(fa_queue *queue);
/* Takes over the events of the first and the last command of a run (which may be one event, with one
 * reference; or NULL) in the place of the last run's. */
void fa_cl_queue_keep(fa_queue *queue, cl_event first, cl_event last);

/* program.c */

/* OpenCL C of the library's. */
typedef struct fa_cl_source {
    const char *text;
    const size_t *size;
} fa_cl_source;
extern const fa_cl_source fa_cl_attention_source, fa_cl_task_source;

/*
 * The program that a source makes with these options, from the device's list, from the cache on disk, or compiled; shared,
 * and released with the device. Options tell the sources apart. FA_COMPILE with the end of the build log.
 */
fa_status fa_cl_program_get(fa_device *device, const fa_cl_source *source, const char *options,
                            cl_program *program);
void fa_cl_programs_release(fa_device *device);

/* error.c */

/* What an error of an OpenCL call means: FA_OUT_OF_MEMORY, FA_UNSUPPORTED (an operation that the object does
 * not allow) or FA_DEVICE_LOST (all else), with "CALL: NAME (number)". */
fa_status fa_cl_fail(cl_int error, const char *call);
const char *fa_cl_error_name(cl_int error);

/* The OpenCL C source of attention's kernels, and of tasks, made at build time from shaders/opencl and core/portable. */
extern const char fa_opencl_source[], fa_opencl_task_source[];
extern const size_t fa_opencl_source_size, fa_opencl_task_source_size;

#endif
