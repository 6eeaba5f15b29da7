/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FASTATTN_BUFFER_H
#define FASTATTN_BUFFER_H

#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Memory that a device can reach: its own, or the caller's, wrapped. Several threads may use one at a
 * time as long as none writes what another touches.
 */
typedef struct fa_buffer fa_buffer;

/**
 * Makes a buffer of `size` bytes, contents undefined. A size of 0 is valid. FA_INVALID (NULL),
 * FA_OUT_OF_MEMORY; *buffer is NULL then.
 */
FA_API fa_status fa_buffer_create(fa_device *device, size_t size, fa_buffer **buffer);

/**
 * Wraps `size` bytes of host memory, which stay the caller's and must outlive the buffer. Only where
 * fa_device_info.host_memory is 1; FA_UNSUPPORTED elsewhere. FA_INVALID: NULL with a size. Memory that a run writes
 * is wrapped once: tensors that lie among each other share a buffer and differ in their offsets. (OpenCL refuses two
 * buffers that wrap the same bytes in one run, if it writes to one; its drivers may keep copies of each.)
 */
FA_API fa_status fa_buffer_wrap_host(fa_device *device, void *memory, size_t size, fa_buffer **buffer);

/**
 * Copies host memory into the buffer, or the buffer into host memory, in the queue's order; the host
 * memory may be reused when the call returns. Ranges outside the buffer are FA_INVALID and copy nothing.
 */
FA_API fa_status fa_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                                 size_t size);
FA_API fa_status fa_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                                size_t size);

/** The size in bytes; 0 for NULL. */
FA_API size_t fa_buffer_size(const fa_buffer *buffer);

/** Releases an owned buffer's memory; a wrapped one's stays the caller's. NULL is allowed. */
FA_API void fa_buffer_destroy(fa_buffer *buffer);

#ifdef __cplusplus
}
#endif
#endif
