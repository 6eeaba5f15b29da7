/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A caller's own OpenCL context, command queues and memory, used in place. CL/cl.h is not included: its
 * handle types are pointers to the structs declared here. The handles must come from the OpenCL library
 * that fastattn opens too: libOpenCL.so.1, or what FASTATTN_OPENCL_LIBRARY names.
 *
 * The functions are always there; all are FA_UNSUPPORTED in a library that was built without OpenCL.
 * Failures of OpenCL itself are FA_OUT_OF_MEMORY or FA_DEVICE_LOST and name the call; a handle that OpenCL
 * does not know is FA_INVALID where OpenCL can tell.
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
 * Opens a device in the caller's context, which is retained until the device is closed; close with
 * fa_device_close(). FA_INVALID: NULL, or cl_device is no device of cl_context. FA_NO_DEVICE: it cannot run
 * fastattn's kernels, and the message says why. *device is NULL then.
 */
FA_API fa_status fa_device_open_opencl(fa_context *context, struct _cl_context *cl_context,
                                       struct _cl_device_id *cl_device, fa_device **device);

/**
 * Makes a queue of the caller's command queue, which is retained. Runs and copies are enqueued into it in
 * turn with the caller's own commands: nothing waits in between. It is not flushed: clFlush(), clFinish()
 * or fa_queue_wait(), which waits for the caller's commands too, does that. fa_queue_seconds() serves where
 * it was made with CL_QUEUE_PROFILING_ENABLE. FA_INVALID: NULL, an out-of-order queue, or one of another
 * context or device. *queue is NULL then. Destroy with fa_queue_destroy(), which waits.
 */
FA_API fa_status fa_queue_wrap_opencl(fa_device *device, struct _cl_command_queue *cl_queue,
                                      fa_queue **queue);

/**
 * Makes a buffer of `size` bytes behind `offset` of the caller's cl_mem (a buffer or a sub-buffer), which
 * is retained; size 0 is all that follows. `offset` is a multiple of 64; tensors that begin elsewhere have
 * theirs in fa_attention_args. Runs that would overwrite their own input are refused between wraps of one
 * cl_mem and its sub-buffers too. What a run writes must be writable by kernels, and fa_buffer_write() and
 * fa_buffer_read() need host access. FA_INVALID: NULL, an image, memory of another context, or a range
 * outside it. *buffer is NULL then. Destroy with fa_buffer_destroy().
 */
FA_API fa_status fa_buffer_wrap_opencl(fa_device *device, struct _cl_mem *cl_mem, size_t offset, size_t size,
                                       fa_buffer **buffer);

#ifdef __cplusplus
}
#endif
#endif
