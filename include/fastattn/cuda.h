/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A caller's own CUDA context, streams and memory, used in place. This header does not include cuda.h. It declares the
 * structs that CUDA's handles point to, and takes a CUdeviceptr as the 64-bit integer that it is. Streams and device
 * pointers of the CUDA runtime are the same. The CUDA driver must be the one that fastattn opens: libcuda.so.1, or what
 * FASTATTN_CUDA_LIBRARY names.
 *
 * These functions exist in every build. In a library that was built without CUDA, they return FA_UNSUPPORTED. If CUDA
 * itself fails, they return FA_OUT_OF_MEMORY or FA_DEVICE_LOST, and the message names the call. A handle that CUDA does
 * not know is FA_INVALID if CUDA can tell. examples/cuda_stream.c uses all of this.
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
 * Opens the device of the caller's context. The context must outlive the fa_device; close that with fa_device_close().
 * fa_device_open("cuda:N") opens the primary context, which the CUDA runtime and frameworks use. *device is NULL on
 * failure. FA_INVALID: NULL, or a context that CUDA does not know. FA_NO_DEVICE: the device cannot run fastattn's
 * kernels; the message says why. Thread-safe.
 */
FA_API fa_status fa_device_open_cuda(fa_context *context, struct CUctx_st *cu_context, fa_device **device);

/**
 * Makes a queue of the caller's stream, which must be of the device's context and outlive the queue. NULL is the
 * default stream. Runs and copies are enqueued into the stream in turn with the caller's own work: nothing waits in
 * between. Destroy with fa_queue_destroy(), which waits. *queue is NULL on failure. FA_INVALID: device is NULL or of
 * another backend, or the stream is of another context.
 *
 * CUDA graphs: while the stream is being captured, fa_plan_run() adds to the graph what it would enqueue. The graph may
 * be launched any number of times, as long as the plan, the buffers and the workspace live. During capture,
 * fa_queue_wait() returns at once, and copies and fa_queue_seconds() fail.
 */
FA_API fa_status fa_queue_wrap_cuda(fa_device *device, struct CUstream_st *cu_stream, fa_queue **queue);

/**
 * Makes a buffer of `size` bytes of the caller's device memory. The memory must outlive the buffer and the work that was
 * enqueued with it. Destroy the buffer with fa_buffer_destroy(), which may be done as soon as the work is enqueued, before it
 * is done. `cu_pointer` is a multiple of 64. A tensor that begins elsewhere has its offset in
 * fa_attention_args. *buffer is NULL on failure. FA_INVALID: CUDA does not know the memory, the device cannot use it,
 * or the range leaves it.
 */
FA_API fa_status fa_buffer_wrap_cuda(fa_device *device, uint64_t cu_pointer, size_t size, fa_buffer **buffer);

#ifdef __cplusplus
}
#endif
#endif
