/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backend implements. The core validates, chooses a kernel, tiles and schedules; a backend
 * executes plans and sees valid input only. Functions set the message with fa_fail() when they fail.
 */
#ifndef FA_CORE_BACKEND_H
#define FA_CORE_BACKEND_H

#include <fastattn/fastattn.h>
#include <stdbool.h>

#include "core/kernel.h"
#include "core/plan.h"
#include "core/task.h"

#define FA_BACKEND_ABI 2
#define FA_MAX_KERNELS 32

/* A product of row-major matrices in the device's memory, y = o w: rows by inner, inner by width. Sums are f32. */
typedef struct fa_device_product {
    fa_dtype factors, y_type; /* of o and w, f32, f16 or bf16; of y, likewise or f32 */
    const void *o, *w;
    void *y;
    int64_t rows, inner,
        width; /* all fit an int, as strides do, which are elements from one row to the next */
    int64_t o_stride, w_stride;
} fa_device_product;

typedef struct fa_backend {
    uint32_t abi; /* FA_BACKEND_ABI */
    const char *name;

    /* How many devices there are; 0 with the reason. Opens the driver at its first call. */
    int (*count)(const fa_context *context, char *reason, size_t reason_size);
    /* Fills name, available, automatic, host_memory, units, onchip_bytes, and reason where not available. */
    void (*describe)(const fa_context *context, int index, fa_device_info *info);

    /* Fills limits, kernel, kernels and impl of a device whose context, backend and info are set. `import` is what the
     * backend's interop function gave to fa_device_open_entry(), or NULL. */
    fa_status (*open)(fa_device *device, void *import);
    void (*close)(fa_device *device);

    /* Fill address and impl of a buffer whose device and size are set (wrap: memory too). */
    fa_status (*buffer_create)(fa_buffer *buffer);
    fa_status (*buffer_wrap)(fa_buffer *buffer, void *memory);
    void (*buffer_destroy)(fa_buffer *buffer);
    fa_status (*buffer_write)(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                              size_t size);
    fa_status (*buffer_read)(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                             size_t size);

    /* The same copies, enqueued: the host memory is used until the queue was waited for. NULL, both: those above are used. */
    fa_status (*buffer_send)(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size);
    fa_status (*buffer_fetch)(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                              size_t size);
    /* Host memory that these reach at the speed of the link. NULL, both: any memory. */
    fa_status (*host_create)(fa_device *device, size_t size, void **memory);
    void (*host_destroy)(fa_device *device, void *memory);

    /* Host memory of the queue's: `size` bytes that the core fills and stage_write() then writes, perhaps after it has
     * returned. NULL, both: buffer_write() is used, which is done with its source when it returns. */
    fa_status (*stage)(fa_queue *queue, size_t size, void **memory);
    fa_status (*stage_write)(fa_queue *queue, fa_buffer *buffer, size_t offset, size_t size);

    fa_status (*queue_create)(fa_queue *queue);
    fa_status (*queue_wait)(fa_queue *queue);
    /* Waits, then gives the device's time of the queue's last plan_run. NULL: queues are not timed. */
    fa_status (*queue_seconds)(fa_queue *queue, double *seconds);
    /* Until the next queue_wait, queue_seconds counts from here, copies and all plan_runs together. NULL: it does not. */
    fa_status (*queue_span)(fa_queue *queue);
    void (*queue_destroy)(fa_queue *queue);
    /* FA_UNSUPPORTED, with the reason, where what is enqueued does not run by itself: the queue records, or its stream is
     * captured. NULL: it always runs. */
    fa_status (*queue_check)(const fa_queue *queue);

    /* Marks: events of the driver's, which are put behind what is enqueued so far, and which another queue, or a transport of
     * the same `events`, waits for on the device. NULL, all: there are none. */
    fa_status (*mark_create)(fa_device *device, void **mark);
    fa_status (*mark_put)(fa_queue *queue, void *mark);
    fa_status (*mark_wait)(fa_queue *queue, void *mark); /* what is enqueued from now on waits for it */
    void (*mark_destroy)(fa_device *device, void *mark);

    /* Products of the device's own library. product_library gives its file; NULL with the reason where it cannot be used.
     * product_run enqueues one, of memory that address_check, which names it, has let pass. NULL, all: there are none. */
    const char *(*product_library)(char *reason, size_t reason_size);
    fa_status (*address_check)(const fa_device *device, const char *name, const void *at, size_t size);
    fa_status (*product_run)(fa_queue *queue, const fa_device_product *product);

    /* A wrapped buffer of host memory is its address and nothing more: runs take host pointers as they are. */
    bool host_pointers;
    /* A buffer's address is what other libraries of the device take for its memory. */
    bool device_pointers;
    /* Devices work on in a child after fork(). Drivers do not: their threads and connections stay in the parent. */
    bool forks;

    /* Scratch of one worker of a plan whose problem, kernel, tiling and args are set; it never falls as blocks grow.
     * NULL: none but a baseline's. */
    size_t (*scratch_bytes)(const fa_plan *plan);
    /* Compiles or fetches what plans of this problem, kernel and tiling may need, whatever their lengths up to the problem's,
     * and keeps it with the device. The plan has no schedule, and of its capacity only partial_rows, the most there can be.
     * NULL: nothing is compiled. */
    fa_status (*plan_compile)(const fa_plan *plan);
    /* Compiles or fetches what the plan's kernel needs, copies its work to the device, sets scratch_bytes and impl. */
    fa_status (*plan_prepare)(fa_plan *plan);
    void (*plan_release)(fa_plan *plan);
    /* Whether kernels can read work there, in a range of the buffer that the core has checked. NULL: they can anywhere. */
    fa_status (*work_check)(const fa_buffer *buffer, size_t offset, size_t size);
    fa_status (*plan_run)(const fa_plan *plan, fa_queue *queue, const fa_binding *binding);

    /* Of a task: compiles or fetches the program and copies the parameters to the device; on failure there is nothing to
     * release. NULL, both: nothing is prepared, nothing is released. task_run enqueues it, as plan_run does a plan. */
    fa_status (*task_prepare)(fa_task *task);
    void (*task_release)(fa_task *task);
    fa_status (*task_run)(const fa_task *task, fa_queue *queue, const fa_task_binding *binding);
} fa_backend;

struct fa_device {
    fa_context *context;
    const fa_backend *backend;
    fa_device_info info;
    fa_limits limits;
    const fa_kernel *kernel[FA_MAX_KERNELS]; /* best first */
    int kernels;
    long process; /* that opened it */
    void *impl;
};

struct fa_queue {
    fa_device *device;
    bool
        urgent; /* what waits in it begins before what waits in other queues, where the backend can tell them so */
    void *impl;
    void *scratch; /* host memory that calls work in; it grows, and is released with the queue */
    size_t scratch_bytes;
};

struct fa_buffer {
    fa_device *device;
    size_t size;
    bool owned;
    /* The memory that `address` lies in; only where it is the same can buffers share bytes. NULL: the host's. */
    const void *storage;
    void *address; /* host memory, or the offset in the storage */
    void *impl;
};

#endif
