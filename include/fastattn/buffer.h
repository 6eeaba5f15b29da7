/* SPDX-License-Identifier: Apache-2.0 */
/** Buffers: memory that a device can reach. */
#ifndef FASTATTN_BUFFER_H
#define FASTATTN_BUFFER_H

#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Memory that a device can reach: its own, or the caller's, wrapped. Several threads may use one at the same time, as
 * long as none writes what another reads or writes.
 */
typedef struct fa_buffer fa_buffer;

/**
 * Makes a buffer of `size` bytes. Its contents are undefined. A size of 0 is valid. Destroy it with
 * fa_buffer_destroy(). *buffer is NULL on failure. FA_INVALID: NULL. FA_OUT_OF_MEMORY. FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_buffer_create(fa_device *device, size_t size, fa_buffer **buffer);

/**
 * Makes a buffer of `size` bytes of host memory, without a copy. The memory stays the caller's and must outlive the
 * buffer. *buffer is NULL on failure. FA_UNSUPPORTED: fa_device_info.host_memory is 0. FA_INVALID: NULL (`memory` may
 * be NULL if size is 0), or a range that wraps around. FA_OUT_OF_MEMORY. Thread-safe.
 *
 * Wrap memory that a run writes once. Tensors whose elements lie among each other share one buffer and differ in their
 * offsets. (OpenCL drivers may keep a copy of each buffer. So a run on OpenCL refuses two buffers that wrap the same
 * bytes, if it writes to one of them.)
 */
FA_API fa_status fa_buffer_wrap_host(fa_device *device, void *memory, size_t size, fa_buffer **buffer);

/**
 * Copies `size` bytes of host memory into the buffer, from byte `offset` on, or the other way round. The copy takes its
 * place in the queue's order. When the call returns, the host memory may be used again: what is read is there.
 * FA_INVALID: NULL (the host memory may be NULL if size is 0), a buffer of another device, or a range outside the
 * buffer; nothing is copied then. FA_UNSUPPORTED: a queue that records into a Vulkan command buffer. FA_OUT_OF_MEMORY.
 * FA_DEVICE_LOST.
 */
FA_API fa_status fa_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                                 size_t size);
FA_API fa_status fa_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                                size_t size);

/**
 * The same copies, but the call may return before the copy is done: the host memory is read or written until fa_queue_wait() of
 * the queue has returned, and must stay as it is until then. So copies in one queue run beside the work of another. They do
 * where the host memory is of fa_host_memory_create() and the backend is CUDA; elsewhere the call waits, for the copy or for a part
 * of it. A copy that fails later is told as fa_queue_wait() tells it. Errors otherwise as above.
 */
FA_API fa_status fa_buffer_write_async(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                                       size_t size);
FA_API fa_status fa_buffer_read_async(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                                      size_t size);

/**
 * Makes `size` bytes of host memory that the device's copies reach at the speed of its link: on CUDA memory that the system leaves in
 * place (page-locked), elsewhere that of the context's allocator. Anything may use it, also fa_buffer_wrap_host() of another
 * device. It is aligned to 64 bytes, its contents are undefined, and it is scarcer than other memory. Destroy it with
 * fa_host_memory_destroy(), with the same device and size, before the device is closed. *memory is NULL on failure and if size is 0.
 * FA_INVALID: NULL. FA_OUT_OF_MEMORY. FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_host_memory_create(fa_device *device, size_t size, void **memory);

/** Releases it, when no queue copies from or to it any more. NULL is allowed. */
FA_API void fa_host_memory_destroy(fa_device *device, void *memory, size_t size);

/** The size in bytes. 0 for NULL. Thread-safe. */
FA_API size_t fa_buffer_size(const fa_buffer *buffer);

/**
 * Destroys a buffer that no queue still uses. Releases its memory, unless the memory is the caller's. NULL is allowed.
 */
FA_API void fa_buffer_destroy(fa_buffer *buffer);

#ifdef __cplusplus
}
#endif
#endif
