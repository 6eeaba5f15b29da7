/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_DEVICE_H
#define FASTATTN_DEVICE_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * One device of one backend. Any number of threads may use one at the same time. It must outlive its
 * queues, buffers and plans.
 */
typedef struct fa_device fa_device;

/**
 * An in-order stream of work on a device. One thread at a time. The OpenMP and null backends finish
 * each piece of work before the call that enqueues it returns.
 */
typedef struct fa_queue fa_queue;

typedef struct fa_device_info {
    size_t struct_size;    /* sizeof(fa_device_info), set by the caller                             */
    char backend[32];      /* "openmp", "null", ...                                                 */
    char name[128];        /* the device's own name                                                 */
    char reason[256];      /* why it cannot be used; "" when it can                                 */
    int32_t index;         /* within its backend: the N of "backend:N"                              */
    int32_t available;     /* 1: fa_device_open would succeed                                       */
    int32_t automatic;     /* 1: "auto" may pick it; the null backend and software rasterisers say 0 */
    int32_t host_memory;   /* 1: host pointers can be wrapped without a copy                        */
    uint32_t units;        /* cores or multiprocessors that work independently                      */
    uint64_t onchip_bytes; /* fast memory of one unit that a level-1 block is staged in             */
    char kernels[512];     /* of an open device: names of its kernel rows, comma-separated; those   */
                           /* that end in "standard" are yardsticks, run only when named            */
} fa_device_info;

/**
 * How many devices there are, usable or not: a backend without a device counts once, with its reason, also one that
 * was left out when the library was built.
 */
FA_API size_t fa_device_count(const fa_context *context);

/** Describes device `index` of fa_device_count(). FA_INVALID: NULL, index out of range, struct_size off. */
FA_API fa_status fa_device_describe(const fa_context *context, size_t index, fa_device_info *info);

/**
 * Opens a device.
 *
 * `name`: NULL takes FASTATTN_BACKEND and FASTATTN_DEVICE from the environment, and "auto" where they
 * are unset. Otherwise a comma-separated order of preference, each entry "auto", a backend ("openmp"),
 * or a backend with a device's index or a part of its name ("vulkan:1", "opencl:mali"), all without regard
 * to case. The first entry that can run is taken; "auto" takes the fastest usable device by the plan's cost model, never a
 * software rasteriser before the native CPU and never the null backend. Where "auto:NAME", or FASTATTN_DEVICE
 * without a backend, names only such a device, the message says so.
 *
 * `desc`: the problem to choose for, or NULL. With one, an entry that does not support the problem is
 * passed over, and "auto" ranks by this problem's modelled time.
 *
 * Returns FA_INVALID (NULL arguments, or a bad desc), FA_NO_DEVICE (an unknown name, or nothing that
 * can run; the message lists what can), FA_UNSUPPORTED (devices exist, none serves desc; the message
 * gives each one's reason), FA_OUT_OF_MEMORY. *device is NULL then. Close with fa_device_close().
 */
FA_API fa_status fa_device_open(fa_context *context, const char *name, const fa_attention_desc *desc,
                                fa_device **device);

/** Closes a device whose queues, buffers and plans are gone. NULL is allowed. */
FA_API void fa_device_close(fa_device *device);

/** As fa_device_describe(), of an open device. */
FA_API fa_status fa_device_get_info(const fa_device *device, fa_device_info *info);

/**
 * Whether this device computes this problem: FA_OK exactly when fa_plan_create() and a run with
 * enough memory succeed. FA_INVALID: the description itself is wrong, on any device. FA_UNSUPPORTED:
 * this device does not serve it. With either, the reason is copied to `reason` (cut to reason_size
 * bytes, always terminated) unless that is NULL.
 */
FA_API fa_status fa_device_supports(fa_device *device, const fa_attention_desc *desc, char *reason,
                                    size_t reason_size);

/** Makes a queue. FA_INVALID (NULL) or FA_OUT_OF_MEMORY; *queue is NULL then. */
FA_API fa_status fa_queue_create(fa_device *device, fa_queue **queue);

/** Returns when all work of the queue is done; the first failure among it, if any, is returned once. */
FA_API fa_status fa_queue_wait(fa_queue *queue);

/**
 * Waits as fa_queue_wait() does, then gives the time that the device itself measured of the queue's last
 * fa_plan_run(), from its first command's start to its last one's end. FA_UNSUPPORTED where the backend
 * does not measure (the OpenMP and null backends do not). FA_INVALID: NULL, or nothing has run yet.
 */
FA_API fa_status fa_queue_seconds(fa_queue *queue, double *seconds);

/** Waits, then destroys. NULL is allowed. */
FA_API void fa_queue_destroy(fa_queue *queue);

#ifdef __cplusplus
}
#endif
#endif
