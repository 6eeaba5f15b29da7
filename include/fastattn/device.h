/* SPDX-License-Identifier: Apache-2.0 */
/** Devices and queues: what can compute, and in which order it does. */
#ifndef FASTATTN_DEVICE_H
#define FASTATTN_DEVICE_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * One device of one backend. Any number of threads may use one at the same time. It must outlive its queues, buffers
 * and plans. In a child after fork() a device of CUDA, OpenCL or Vulkan that the parent opened is FA_DEVICE_LOST, and
 * drivers that the parent opened have no devices. Those of OpenMP and null work on.
 */
typedef struct fa_device fa_device;

/**
 * An in-order stream of work on a device (a stream or command queue elsewhere). One thread at a time may use it. On the
 * OpenMP and null backends, a call that enqueues work returns when the work is done.
 */
typedef struct fa_queue fa_queue;

/** What is known of a device. */
typedef struct fa_device_info {
    size_t struct_size;    /* sizeof(fa_device_info), set by the caller                             */
    char backend[32];      /* "openmp", "cuda", "opencl", "vulkan", "null"                          */
    char name[128];        /* the device's own name                                                 */
    char reason[256];      /* why it cannot be used; "" if it can                                   */
    int32_t index;         /* within its backend: the N of "backend:N"                              */
    int32_t available;     /* 1: the device can be opened                                           */
    int32_t automatic;     /* 1: "auto" may pick it; 0 for the null backend and software rasterisers */
    int32_t host_memory;   /* 1: host memory can be used without a copy                             */
    uint32_t units;        /* cores or multiprocessors that work independently                      */
    uint64_t onchip_bytes; /* fast memory of one unit, in which a level-1 block is staged           */
    char kernels[512];     /* of an open device: the names of its kernels, separated by commas. Those */
                           /* that end in "standard" are baselines, which run only if named         */
} fa_device_info;

/**
 * The number of devices, usable or not. A backend without a device counts as one, with the reason; so does a backend
 * that was left out when the library was built. 0 if `context` is NULL. Opens drivers. Thread-safe.
 */
FA_API size_t fa_device_count(const fa_context *context);

/**
 * Describes device `index`, which is less than fa_device_count(). Thread-safe. FA_INVALID: an argument is NULL, index
 * is out of range, or struct_size is wrong.
 */
FA_API fa_status fa_device_describe(const fa_context *context, size_t index, fa_device_info *info);

/**
 * Opens a device. Close it with fa_device_close(). Thread-safe.
 *
 * `name` is an order of preference, separated by commas. Each entry is "auto", a backend ("openmp"), or a backend with
 * a device's index or a part of its name ("vulkan:1", "opencl:mali"). Upper and lower case are the same. The first
 * entry that can run is taken. "auto" takes the device that the cost model finds fastest, but no software rasteriser
 * and not the null backend. NULL takes the name from the environment: FASTATTN_BACKEND and FASTATTN_DEVICE, and "auto"
 * if they are not set. If "auto:NAME", or FASTATTN_DEVICE without a backend, names only a device that "auto" never
 * takes, the message says so.
 *
 * `desc` is the problem to choose for. An entry that does not support it is passed over, and "auto" compares the
 * modelled times of this problem. NULL: "auto" compares those of a common problem.
 *
 * *device is NULL on failure. FA_INVALID: context or device is NULL, or desc is wrong. FA_NO_DEVICE: a name is unknown,
 * or nothing that is named can run; the message lists what can. FA_UNSUPPORTED: there are devices, but none serves
 * desc; the message has each one's reason. FA_OUT_OF_MEMORY.
 */
FA_API fa_status fa_device_open(fa_context *context, const char *name, const fa_attention_desc *desc,
                                fa_device **device);

/** Closes a device. Its queues, buffers and plans must be destroyed before. NULL is allowed. */
FA_API void fa_device_close(fa_device *device);

/** Describes an open device, as fa_device_describe() does. `kernels` is filled here only. Thread-safe. */
FA_API fa_status fa_device_get_info(const fa_device *device, fa_device_info *info);

/**
 * Whether this device computes this problem: FA_OK exactly if fa_plan_create() and a run succeed, given enough memory.
 * FA_INVALID: the description is wrong, on any device. FA_UNSUPPORTED: this device does not serve it. FA_OUT_OF_MEMORY,
 * FA_COMPILE: as fa_plan_create(). `reason` may be NULL; otherwise it receives the message, "" with FA_OK, cut to
 * reason_size bytes and always terminated. Thread-safe.
 */
FA_API fa_status fa_device_supports(fa_device *device, const fa_attention_desc *desc, char *reason,
                                    size_t reason_size);

/**
 * Makes a queue. Destroy it with fa_queue_destroy(). *queue is NULL on failure. FA_INVALID: NULL. FA_OUT_OF_MEMORY.
 * FA_DEVICE_LOST. Thread-safe. A queue of the caller's own stream, command queue or command buffer is made by
 * fa_queue_wrap_cuda(), fa_queue_wrap_opencl(), fa_queue_wrap_vulkan() or fa_queue_record_vulkan().
 */
FA_API fa_status fa_queue_create(fa_device *device, fa_queue **queue);

/**
 * Returns when all work of the queue is done. If some of it failed, returns the first failure, once. FA_INVALID: NULL.
 */
FA_API fa_status fa_queue_wait(fa_queue *queue);

/**
 * Waits as fa_queue_wait() does. Then gives the seconds that the queue's last fa_plan_run() or fa_append_run() took by the device's
 * own clock, from the start of its first command to the end of its last. FA_UNSUPPORTED: the backend does not measure time
 * (OpenMP and null do not). FA_INVALID: NULL, or nothing has run yet.
 */
FA_API fa_status fa_queue_seconds(fa_queue *queue, double *seconds);

/** Waits for the queue's work, then destroys the queue. NULL is allowed. */
FA_API void fa_queue_destroy(fa_queue *queue);

#ifdef __cplusplus
}
#endif
#endif
