/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers and queues of backends that work in host memory and finish before they return. */
#ifndef FA_BACKENDS_HOST_MEMORY_H
#define FA_BACKENDS_HOST_MEMORY_H

#include "core/backend.h"

fa_status fa_host_buffer_create(fa_buffer *buffer);
fa_status fa_host_buffer_wrap(fa_buffer *buffer, void *memory);
void fa_host_buffer_destroy(fa_buffer *buffer);
fa_status fa_host_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                               size_t size);
fa_status fa_host_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                              size_t size);
fa_status fa_host_queue_create(fa_queue *queue);
fa_status fa_host_queue_wait(fa_queue *queue);
void fa_host_queue_destroy(fa_queue *queue);

/* All work-groups, one after the other. */
fa_status fa_host_task_run(const fa_task *task, fa_queue *queue, const fa_task_binding *binding);

/* Where an operand of a run begins; NULL where it is absent. */
static inline void *fa_host_operand(const fa_binding *binding, int operand)
{
    const fa_buffer *buffer = binding->buffer[operand];
    return buffer && buffer->address ? (char *)buffer->address + binding->offset[operand] : NULL;
}

#endif
