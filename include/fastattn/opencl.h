/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A caller's own OpenCL context, command queues and memory, used in place. This header does not include CL/cl.h. It
 * declares the structs that OpenCL's handles point to. The handles must come from the OpenCL library that fastattn
 * opens: libOpenCL.so.1, or what FASTATTN_OPENCL_LIBRARY names.
 *
 * These functions exist in every build. In a library that was built without OpenCL, they return FA_UNSUPPORTED. If
 * OpenCL itself fails, they return FA_OUT_OF_MEMORY or FA_DEVICE_LOST, and the message names the call. A handle that
 * OpenCL does not know is FA_INVALID if OpenCL can tell. examples/opencl_queue.c uses all of this.
 */
#ifndef FASTATTN_OPENCL_H
#define FASTATTN_OPENCL_H

#include "buffer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct _cl_context;
struct _cl_device_id;
struct _cl_command_queue;
struct _cl_mem;

/**
 * Opens a device of the caller's context. The context is retained until the fa_device is closed with fa_device_close().
 * *device is NULL on failure. FA_INVALID: NULL, or cl_device is not a device of cl_context. FA_NO_DEVICE: the device
 * cannot run fastattn's kernels; the message says why. Thread-safe.
 */
FA_API fa_status fa_device_open_opencl(fa_context *context, struct _cl_context *cl_context,
                                       struct _cl_device_id *cl_device, fa_device **device);

/**
 * Makes a queue of the caller's command queue, which is retained. Runs and copies are enqueued into it in turn with the
 * caller's own commands: nothing waits in between. Nothing is flushed: clFlush(), clFinish() or fa_queue_wait() does
 * that. fa_queue_wait() waits for the caller's commands too. fa_queue_seconds() works if the command queue was made
 * with CL_QUEUE_PROFILING_ENABLE. Destroy with fa_queue_destroy(), which waits. *queue is NULL on failure. FA_INVALID:
 * NULL, an out-of-order queue, or one of another context or device.
 */
FA_API fa_status fa_queue_wrap_opencl(fa_device *device, struct _cl_command_queue *cl_queue,
                                      fa_queue **queue);

/**
 * Makes a buffer of `size` bytes of the caller's cl_mem (a buffer or a sub-buffer), from byte `offset` on. The cl_mem
 * is retained. A size of 0 means all that follows. `offset` is a multiple of 64. A tensor that begins elsewhere has its
 * offset in fa_attention_args. Destroy with fa_buffer_destroy().
 *
 * What a run writes must be writable by kernels. fa_buffer_write() and fa_buffer_read() need host access. A run that
 * would overwrite its own input is refused, also between wraps of one cl_mem and its sub-buffers. *buffer is NULL on
 * failure. FA_INVALID: NULL, an image, memory of another context, or a range outside it.
 */
FA_API fa_status fa_buffer_wrap_opencl(fa_device *device, struct _cl_mem *cl_mem, size_t offset, size_t size,
                                       fa_buffer **buffer);

#ifdef __cplusplus
}
#endif
#endif
