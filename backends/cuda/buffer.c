/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/cuda.h"
#include "core/status.h"

static CUdeviceptr address_of(const fa_buffer *buffer, size_t offset)
{
    return (CUdeviceptr)(uintptr_t)buffer->address + offset;
}

fa_status fa_cu_buffer_create(fa_buffer *buffer)
{
    const fa_cu_device *d = fa_cu_device_of(buffer->device);
    CUdeviceptr memory = 0;
    if (buffer->size == 0)
        return FA_OK;
    fa_status status = fa_cu_enter(buffer->device);
    if (status != FA_OK)
        return status;
    CUresult error = d->cu->cuMemAlloc(&memory, buffer->size);
    fa_cu_leave(buffer->device);
    if (error == CUDA_ERROR_OUT_OF_MEMORY)
        return fa_fail(FA_OUT_OF_MEMORY, "cuMemAlloc: no %zu bytes are left of the %llu of %s", buffer->size,
                       (unsigned long long)d->caps.global_bytes, buffer->device->info.name);
    if (error != CUDA_SUCCESS)
        return fa_cu_fail(d->cu, error, "cuMemAlloc");
    buffer->address = (void *)(uintptr_t)memory;
    return FA_OK;
}

void fa_cu_buffer_destroy(fa_buffer *buffer)
{
    if (!buffer->owned || !buffer->address || fa_cu_enter(buffer->device) != FA_OK)
        return;
    (void)fa_cu_device_of(buffer->device)->cu->cuMemFree(address_of(buffer, 0));
    fa_cu_leave(buffer->device);
}

/* Copies are ordered with the queue's other work, and over when the call returns if it waits. */
static fa_status copy(fa_queue *queue, CUdeviceptr at, const void *source, void *target, size_t size,
                      bool waits)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    CUstream stream = ((const fa_cu_queue *)queue->impl)->stream;
    bool captures;
    fa_status status = fa_cu_queue_captures(queue, &captures);
    if (status != FA_OK || size == 0)
        return status;
    if (captures)
        return fa_fail(FA_UNSUPPORTED,
                       "the queue's stream is being captured: a copy from or to host memory cannot be");
    status = fa_cu_enter(queue->device);
    if (status != FA_OK)
        return status;
    CUresult error = source ? cu->cuMemcpyHtoDAsync(at, source, size, stream)
                            : cu->cuMemcpyDtoHAsync(target, at, size, stream);
    const char *call = source ? "cuMemcpyHtoDAsync" : "cuMemcpyDtoHAsync";
    if (error == CUDA_SUCCESS && waits) {
        error = cu->cuStreamSynchronize(stream);
        call = "cuStreamSynchronize";
    }
    fa_cu_leave(queue->device);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, call);
}

fa_status fa_cu_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size)
{
    return copy(queue, address_of(buffer, offset), source, NULL, size, true);
}

fa_status fa_cu_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                            size_t size)
{
    return copy(queue, address_of(buffer, offset), NULL, target, size, true);
}

fa_status fa_cu_buffer_send(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                            size_t size)
{
    return copy(queue, address_of(buffer, offset), source, NULL, size, false);
}

fa_status fa_cu_buffer_fetch(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                             size_t size)
{
    return copy(queue, address_of(buffer, offset), NULL, target, size, false);
}

fa_status fa_cu_host_create(fa_device *device, size_t size, void **memory)
{
    const fa_cu *cu = fa_cu_device_of(device)->cu;
    FA_TRY(fa_cu_enter(device));
    const CUresult error = cu->cuMemAllocHost(memory, size);
    fa_cu_leave(device);
    if (error == CUDA_ERROR_OUT_OF_MEMORY)
        return fa_fail(FA_OUT_OF_MEMORY, "cuMemAllocHost: no %zu bytes that stay in place are left", size);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, "cuMemAllocHost");
}

void fa_cu_host_destroy(fa_device *device, void *memory)
{
    if (fa_cu_enter(device) != FA_OK)
        return;
    (void)fa_cu_device_of(device)->cu->cuMemFreeHost(memory);
    fa_cu_leave(device);
}

fa_status fa_cu_stage(fa_queue *queue, size_t size, void **memory)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    fa_cu_queue *q = queue->impl;
    const char *call;
    bool captures;
    fa_status status = fa_cu_queue_captures(queue, &captures);
    if (status == FA_OK && captures)
        return fa_fail(
            FA_UNSUPPORTED,
            "the queue's stream is being captured: what is written now would not be what is replayed");
    if (status == FA_OK)
        status = fa_cu_enter(queue->device);
    if (status != FA_OK)
        return status;
    CUresult error = fa_cu_stages_take(cu, &q->stages, size, memory, &call);
    fa_cu_leave(queue->device);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, call);
}

fa_status fa_cu_stage_write(fa_queue *queue, fa_buffer *buffer, size_t offset, size_t size)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    fa_cu_queue *q = queue->impl;
    const char *call;
    fa_status status = fa_cu_enter(queue->device);
    if (status != FA_OK)
        return status;
    CUresult error = fa_cu_stages_copy(cu, &q->stages, address_of(buffer, offset), size, q->stream, &call);
    fa_cu_leave(queue->device);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, call);
}

static fa_status check_memory(const fa_device *device, const char *name, CUdeviceptr pointer, size_t size)
{
    const fa_cu *cu = fa_cu_device_of(device)->cu;
    int ordinal = -1;
    CUdeviceptr start = 0;
    size_t whole = 0;
    CUresult error = cu->cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, pointer);
    if (error == CUDA_SUCCESS)
        error = cu->cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, pointer);
    if (error == CUDA_SUCCESS)
        error = cu->cuPointerGetAttribute(&whole, CU_POINTER_ATTRIBUTE_RANGE_SIZE, pointer);
    if (error != CUDA_SUCCESS)
        return fa_cu_bad_handle(cu, error, "cuPointerGetAttribute", name);
    if (ordinal != device->info.index)
        return fa_fail(FA_INVALID, "%s is memory of device %d, expected of device %d", name, ordinal,
                       (int)device->info.index);
    if (size > whole - (size_t)(pointer - start))
        return fa_fail(FA_INVALID, "size is %zu, expected at most the %zu bytes from %s on", size,
                       whole - (size_t)(pointer - start), name);
    return FA_OK;
}

fa_status fa_cu_address_check(const fa_device *device, const char *name, const void *at, size_t size)
{
    FA_TRY(fa_cu_enter(device));
    const fa_status status = check_memory(device, name, (CUdeviceptr)(uintptr_t)at, size);
    fa_cu_leave(device);
    return status;
}
