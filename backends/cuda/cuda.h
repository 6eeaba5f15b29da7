/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CUDA backend share. */
#ifndef FA_CUDA_CUDA_H
#define FA_CUDA_CUDA_H

#include <pthread.h>

#include "backends/cuda/loader.h"
#include "backends/cuda/traits.h"
#include "core/backend.h"

/* What of a device the kernels depend on: as the driver tells it, lowered by FASTATTN_CUDA_LIMITS. */
typedef struct fa_cu_caps {
    int arch;                 /* compute capability, ten times the major one and the minor one         */
    int runs_arch;            /* likewise, not lowered                                                 */
    int units;                /* multiprocessors                                                       */
    int clock_khz;            /* at least 1                                                            */
    size_t shared_bytes;      /* shared memory of one block, opted in to                               */
    size_t unit_shared_bytes; /* of a multiprocessor                                              */
    double bytes_per_second;
    uint64_t global_bytes;
    bool compiles;        /* NVRTC is there, and compiles for it                                   */
    bool hopper;          /* it is of 9.0, and there is code of its own instructions, or such is compiled */
    bool compiles_hopper; /* likewise, and it is compiled */
    bool images;          /* kernels that were compiled with the library may be used               */
    char name[128];       /* of the device                                                         */
} fa_cu_caps;

/* device->impl */
typedef struct fa_cu_device {
    const fa_cu *cu;
    CUdevice id;
    CUcontext context; /* retained where it is the primary one, else the caller's */
    bool primary;
    fa_cu_caps caps;
    pthread_mutex_t lock; /* of `modules` */
    struct fa_cu_module *modules;
    fa_kernel kernels[FA_MAX_KERNELS]; /* what fa_device.kernel points to; impl points into fa_cuda_table */
} fa_cu_device;

static inline fa_cu_device *fa_cu_device_of(const fa_device *device)
{
    return device->impl;
}

enum { FA_CU_STAGES = 4 }; /* copies of a queue's that may be under way */

/* Parts of one piece of host memory that the driver does not move: a copy from one may end after its call. */
typedef struct fa_cu_stages {
    char *memory;
    size_t bytes;                 /* of one */
    CUevent copied[FA_CU_STAGES]; /* where `pending`, it is of the last copy */
    bool pending[FA_CU_STAGES];
    int next; /* they are taken in turn */
} fa_cu_stages;

/* queue->impl */
typedef struct fa_cu_queue {
    CUstream stream;
    bool owned;
    bool ran;   /* `first` and `last` are of a run */
    bool spans; /* `first` is of a span, and runs leave it */
    CUevent first, last;
    fa_cu_stages stages; /* made when they are first needed */
    void *blas;          /* likewise: cuBLAS's handle, which works in the stream */
} fa_cu_queue;

/* device.c */
extern const fa_backend fa_backend_cuda;

/* kernels.c: fills the kernels that the device runs, best first; returns how many. */
int fa_cu_kernels_list(const fa_cu_caps *caps, fa_kernel kernels[FA_MAX_KERNELS]);
/*
 * Warps of a block of a decoding kernel that serves formats, compiled for `type`: as many as leave a multiprocessor as many
 * warps, as long as all items run at once and a turn takes no more keys than an item has.
 */
int fa_cu_coded_warps(const fa_cu_caps *caps, const fa_cuda_traits *t, int type, int variant, double items,
                      double keys);

/* context.c */
/* Makes the device's context this thread's, until the matching leave. */
fa_status fa_cu_enter(const fa_device *device);
void fa_cu_leave(const fa_device *device);

/* buffer.c, queue.c: entries of the vtable. A buffer's address is its CUdeviceptr. */
fa_status fa_cu_buffer_create(fa_buffer *buffer);
void fa_cu_buffer_destroy(fa_buffer *buffer);
fa_status fa_cu_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size);
fa_status fa_cu_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                            size_t size);
fa_status fa_cu_buffer_send(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                            size_t size);
fa_status fa_cu_buffer_fetch(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                             size_t size);
fa_status fa_cu_host_create(fa_device *device, size_t size, void **memory);
void fa_cu_host_destroy(fa_device *device, void *memory);
/* Whether `size` bytes from `at` on, which the caller calls `name`, are memory of the device's. */
fa_status fa_cu_address_check(const fa_device *device, const char *name, const void *at, size_t size);
fa_status fa_cu_stage(fa_queue *queue, size_t size, void **memory);
fa_status fa_cu_stage_write(fa_queue *queue, fa_buffer *buffer, size_t offset, size_t size);
fa_status fa_cu_queue_create(fa_queue *queue);
/* Of a stream; queue->impl is made. `owned`: it is destroyed with the queue. */
fa_status fa_cu_queue_make(fa_queue *queue, CUstream stream, bool owned);
fa_status fa_cu_queue_wait(fa_queue *queue);
fa_status fa_cu_queue_seconds(fa_queue *queue, double *seconds);
fa_status fa_cu_queue_span(fa_queue *queue);
void fa_cu_queue_destroy(fa_queue *queue);
/* Whether what is enqueued becomes part of a CUDA graph instead of running. */
fa_status fa_cu_queue_captures(const fa_queue *queue, bool *captures);

/* FA_UNSUPPORTED where the stream is captured. */
fa_status fa_cu_queue_check(const fa_queue *queue);

/* mark.c: entries of the vtable. A mark is a CUevent. */
fa_status fa_cu_mark_create(fa_device *device, void **mark);
fa_status fa_cu_mark_put(fa_queue *queue, void *mark);
fa_status fa_cu_mark_wait(fa_queue *queue, void *mark);
void fa_cu_mark_destroy(fa_device *device, void *mark);

/* blas.c: entries of the vtable, and the end of a queue's handle, with the device's context current. */
const char *fa_cu_product_library(char *reason, size_t reason_size);
fa_status fa_cu_product_run(fa_queue *queue, const fa_device_product *product);
void fa_cu_blas_destroy(void *blas);

/* stage.c: the device's context must be current. *call names what failed. */

/* The next stage, of at least so many bytes, once the copy before is over. */
CUresult fa_cu_stages_take(const fa_cu *cu, fa_cu_stages *stages, size_t size, void **memory,
                           const char **call);
/* Copies from the stage that was taken. */
CUresult fa_cu_stages_copy(const fa_cu *cu, fa_cu_stages *stages, CUdeviceptr to, size_t size,
                           CUstream stream, const char **call);
/* Waits for the copies. */
void fa_cu_stages_destroy(const fa_cu *cu, const fa_cu_stages *stages);

/* module.c */

/*
 * A variant of line `line` of fa_cuda_table, compiled for `type`: a fa_dtype, FA_CUDA_ANY, FA_CUDA_SCALED,
 * FA_CUDA_WHOLE_ROWS, FA_CUDA_PRUNED_ROWS or a fa_cuda_scaled_type(). It is from the device's list, from the library, from
 * the cache on disk, or compiled, and lives as long as the device. With `lists` it reads lists of key blocks, as none of the
 * library does. The device's context must be current.
 * FA_COMPILE with the end of the compiler's log.
 */
fa_status fa_cu_function_get(fa_device *device, int line, int type, bool lists, int variant,
                             CUfunction *function);
/* Likewise the kernel of a task: made for its constants, unless they are all 0, where a compiler is there and does it. */
fa_status fa_cu_task_function_get(const fa_task *task, CUfunction *function);
/* What messages call a module; of a task, whose number is the line, the type is FA_CUDA_TASK. */
const char *fa_cu_module_name(int line, int type);
void fa_cu_modules_release(fa_device *device);
/* Whether there are kernels for a device, or a compiler that can make them, which it notes; false with the reason. */
bool fa_cu_can_compile(fa_cu_caps *caps, char *reason, size_t reason_size);

/* error.c */

/* What an error of a driver call means: FA_OUT_OF_MEMORY or FA_DEVICE_LOST, with "CALL: NAME (number)". */
fa_status fa_cu_fail(const fa_cu *cu, CUresult error, const char *call);
/* The same of a handle, for which `field` is the caller's word. One that CUDA does not know is the caller's mistake. */
fa_status fa_cu_bad_handle(const fa_cu *cu, CUresult error, const char *call, const char *field);
const char *fa_cu_error_name(const fa_cu *cu, CUresult error);

/* Kernels compiled with the library, made at build time from shaders/cuda: fatbins, none without nvcc. */
typedef struct fa_cuda_image {
    int line, type;
    const void *bytes;
} fa_cuda_image;
extern const fa_cuda_image fa_cuda_images[];
extern const size_t fa_cuda_image_count;
/* Compute capabilities whose machine code the images hold, then 0; and that of their PTX, 0 without. */
extern const int fa_cuda_archs[];
extern const int fa_cuda_ptx_arch;

/* The CUDA C++ source of attention's kernels, and of tasks, made at build time from shaders/cuda, backends/cuda and
 * core/portable. */
extern const char fa_cuda_source[], fa_cuda_task_source[];
extern const size_t fa_cuda_source_size, fa_cuda_task_source_size;

#endif
