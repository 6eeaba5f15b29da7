/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A caller's own CUDA context, streams and memory, used in place. cuda.h is not included: its handle types are pointers
 * to the structs declared here, and a CUdeviceptr is passed as the 64-bit integer that it is; what the CUDA runtime
 * calls a stream or a device pointer is the same. The CUDA driver must be the one that fastattn opens too: libcuda.so.1,
 * or what FASTATTN_CUDA_LIBRARY names.
 *
 * The functions are always there; all are FA_UNSUPPORTED in a library that was built without CUDA. Failures of CUDA
 * itself are FA_OUT_OF_MEMORY or FA_DEVICE_LOST and name the call; a handle that CUDA does not know is FA_INVALID where
 * CUDA can tell.
 */
#ifndef FASTATTN_CUDA_H
#define FASTATTN_CUDA_H

#include "buffer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUctx_st;
struct CUstream_st;

/**
 * Opens the device of the caller's context, which must outlive it; close with fa_device_close(). The primary context,
 * which the CUDA runtime and what is built on it use, is what fa_device_open("cuda:N") takes too. FA_INVALID: NULL, or
 * no context that CUDA knows. FA_NO_DEVICE: the device cannot run fastattn's kernels, and the message says why. *device
 * is NULL then.
 */
FA_API fa_status fa_device_open_cuda(fa_context *context, struct CUctx_st *cu_context, fa_device **device);

/**
 * Makes a queue of the caller's stream of the device's context, NULL being the default stream; it must outlive the
 * queue. Runs and copies are enqueued into it in turn with the caller's own work: nothing waits in between. While the
 * stream is being captured, fa_plan_run() adds to the graph what it would enqueue: the graph may be launched any number
 * of times, as long as the plan, the buffers and the workspace live. Then fa_queue_wait() returns at once, and copies
 * and fa_queue_seconds() fail. FA_INVALID: a device that is NULL or of another backend, or a stream of another context.
 * *queue is NULL then. Destroy with fa_queue_destroy(), which waits.
 */
FA_API fa_status fa_queue_wrap_cuda(fa_device *device, struct CUstream_st *cu_stream, fa_queue **queue);

/**
 * Makes a buffer of `size` bytes at the caller's device memory, which must outlive it. `cu_pointer` is a multiple of 64;
 * tensors that begin elsewhere have their offset in fa_attention_args. FA_INVALID: no memory that CUDA knows or that the
 * device can use, or a range beyond it. *buffer is NULL then. Destroy with fa_buffer_destroy().
 */
FA_API fa_status fa_buffer_wrap_cuda(fa_device *device, uint64_t cu_pointer, size_t size, fa_buffer **buffer);

#ifdef __cplusplus
}
#endif
#endif
