/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's own context, streams and memory. */
#include <fastattn/cuda.h>
#include <stdio.h>

#include "backends/cuda/describe.h"
#include "core/context.h"
#include "core/device.h"
#include "core/status.h"

static fa_status check_device(const fa_device *device)
{
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    if (device->backend != &fa_backend_cuda)
        return fa_fail(FA_INVALID, "device is of the %s backend, expected cuda", device->backend->name);
    return FA_OK;
}

static fa_status device_of_context(const fa_cu *cu, CUcontext handle, CUdevice *id)
{
    CUcontext popped;
    CUresult error = cu->cuCtxPushCurrent(handle);
    if (error != CUDA_SUCCESS)
        return fa_cu_bad_handle(cu, error, "cuCtxPushCurrent", "cu_context");
    error = cu->cuCtxGetDevice(id);
    (void)cu->cuCtxPopCurrent(&popped);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_bad_handle(cu, error, "cuCtxGetDevice", "cu_context");
}

fa_status fa_device_open_cuda(fa_context *context, struct CUctx_st *cu_context, fa_device **device)
{
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL, expected where to store the device");
    *device = NULL;
    if (!context || !cu_context)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "cu_context" : "context");
    char reason[256];
    const fa_cu *cu = fa_cu_load(reason, sizeof(reason));
    if (!cu)
        return fa_fail(FA_NO_DEVICE, "%s", reason);
    CUdevice id = -1, other = -1;
    fa_status status = device_of_context(cu, cu_context, &id);
    if (status != FA_OK)
        return status;
    int index = 0;
    while (cu->cuDeviceGet(&other, index) == CUDA_SUCCESS && other != id)
        index++;
    if (other != id)
        return fa_fail(FA_NO_DEVICE, "the driver does not list the device of cu_context");
    fa_device_entry entry = {.backend = &fa_backend_cuda, .import = cu_context};
    entry.info.struct_size = sizeof(entry.info);
    entry.info.index = index;
    (void)snprintf(entry.info.backend, sizeof(entry.info.backend), "cuda");
    fa_cu_device_describe(context, index, &entry.info);
    if (!entry.info.available)
        return fa_fail(FA_NO_DEVICE, "%s: %s", entry.info.name, entry.info.reason);
    return fa_device_open_entry(context, &entry, device);
}

static fa_status check_stream(const fa_device *device, CUstream stream)
{
    const fa_cu_device *d = fa_cu_device_of(device);
    CUcontext of = NULL;
    if (!stream) /* the default one, of whichever context is current */
        return FA_OK;
    CUresult error = d->cu->cuStreamGetCtx(stream, &of);
    if (error != CUDA_SUCCESS)
        return fa_cu_bad_handle(d->cu, error, "cuStreamGetCtx", "cu_stream");
    return of == d->context ? FA_OK
                            : fa_fail(FA_INVALID, "cu_stream belongs to another context than the device");
}

fa_status fa_queue_wrap_cuda(fa_device *device, struct CUstream_st *cu_stream, fa_queue **queue)
{
    fa_clear_error();
    if (!queue)
        return fa_fail(FA_INVALID, "queue is NULL, expected where to store the new queue");
    *queue = NULL;
    fa_status status = check_device(device);
    if (status == FA_OK)
        status = fa_cu_enter(device);
    if (status != FA_OK)
        return status;
    status = check_stream(device, cu_stream);
    fa_queue *made = status == FA_OK ? fa_alloc_zeroed(device->context, sizeof(*made)) : NULL;
    if (status == FA_OK && !made)
        status = FA_OUT_OF_MEMORY;
    if (status == FA_OK) {
        made->device = device;
        status = fa_cu_queue_make(made, cu_stream, false);
    }
    fa_cu_leave(device);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    *queue = made;
    return FA_OK;
}

fa_status fa_buffer_wrap_cuda(fa_device *device, uint64_t cu_pointer, size_t size, fa_buffer **buffer)
{
    enum { ALIGNMENT = 64 };
    fa_clear_error();
    if (!buffer)
        return fa_fail(FA_INVALID, "buffer is NULL, expected where to store the new buffer");
    *buffer = NULL;
    fa_status status = check_device(device);
    if (status != FA_OK)
        return status;
    if (!cu_pointer || cu_pointer % ALIGNMENT != 0)
        return fa_fail(FA_INVALID, "cu_pointer is 0x%llx, expected a multiple of %d that is not 0",
                       (unsigned long long)cu_pointer, ALIGNMENT);
    status = fa_cu_address_check(device, "cu_pointer", (void *)(uintptr_t)cu_pointer, size);
    if (status != FA_OK)
        return status;
    fa_buffer *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    *made = (fa_buffer){.device = device, .size = size, .address = (void *)(uintptr_t)cu_pointer};
    *buffer = made;
    return FA_OK;
}
