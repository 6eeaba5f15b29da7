/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a run, whatever operation it is of: where buffers must lie, and what may not overlap. */
#ifndef FA_CORE_BINDING_H
#define FA_CORE_BINDING_H

#include "core/backend.h"
#include "core/overlap.h"

/* What a run reads or writes. */
typedef struct fa_memory {
    const char *name;
    fa_extent extent;
    bool written;
} fa_memory;

/*
 * Whether a call has all of its arguments, and a queue of the device that its object was made for. FA_INVALID names `object`
 * ("plan") or `argument` ("args").
 */
fa_status fa_call_check(const char *object, const void *made, const fa_device *device, const fa_queue *queue,
                        const char *argument, const void *given);

/* Whether what is enqueued runs by itself. FA_UNSUPPORTED: the queue records, or its stream is captured. */
fa_status fa_queue_check(const fa_queue *queue);

/*
 * Whether `span` bytes at `offset` of a buffer are memory of the device at multiples of `alignment`. FA_INVALID names the
 * buffer `of` and `name`.
 */
fa_status fa_buffer_check(const fa_device *device, const char *of, const char *name, const fa_buffer *buffer,
                          size_t offset, size_t alignment, size_t span);

/* Where that lies. */
fa_extent fa_buffer_extent(const fa_tensor *tensor, size_t span, const fa_buffer *buffer, size_t offset);
fa_extent fa_buffer_bytes(size_t span, const fa_buffer *buffer, size_t offset);

/* What is written may share no byte with anything else. Its rows may lie between another's. */
fa_status fa_memory_check_overlap(const fa_memory *memory, int count);

#endif
