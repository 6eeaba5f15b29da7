/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "backends/opencl/opencl.h"
#include "core/context.h"
#include "core/status.h"

static size_t impl_bytes(size_t chunks)
{
    return sizeof(fa_cl_buffer) + chunks * sizeof(cl_mem);
}

static size_t chunk_size(const fa_buffer *buffer, size_t chunk)
{
    const fa_cl_buffer *b = buffer->impl;
    size_t rest = buffer->size - chunk * b->chunk_bytes;
    return rest < b->chunk_bytes ? rest : b->chunk_bytes;
}

/* Chunks for the whole buffer: new memory, or the caller's where `host` is given. */
static fa_status make_chunks(fa_buffer *buffer, cl_mem_flags flags, void *host)
{
    const fa_cl_device *device = fa_cl_device_of(buffer->device);
    size_t bytes = (size_t)1 << fa_cl_chunk_shift(&device->caps);
    size_t chunks = buffer->size / bytes + (buffer->size % bytes != 0);
    fa_cl_buffer *made = fa_alloc_zeroed(buffer->device->context, impl_bytes(chunks));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->chunk_bytes = bytes;
    made->chunks = chunks;
    made->host = host;
    made->mapped = device->caps.unified;
    buffer->impl = made;
    for (size_t i = 0; i < chunks; i++) {
        cl_int error;
        made->chunk[i] = device->cl->clCreateBuffer(device->context, flags, chunk_size(buffer, i),
                                                    host ? (char *)host + i * bytes : NULL, &error);
        if (error != CL_SUCCESS) {
            made->chunk[i] = NULL;
            fa_cl_buffer_destroy(buffer);
            return fa_cl_fail(error, "clCreateBuffer");
        }
    }
    return FA_OK;
}

fa_status fa_cl_buffer_create(fa_buffer *buffer)
{
    const fa_cl_caps *caps = &fa_cl_device_of(buffer->device)->caps;
    /* Drivers promise memory that they only look for at the first use. */
    if (buffer->size > caps->global_bytes)
        return fa_fail(FA_OUT_OF_MEMORY, "size is %zu, expected at most %llu, the memory of %s", buffer->size,
                       (unsigned long long)caps->global_bytes, buffer->device->info.name);
    fa_status status =
        make_chunks(buffer, CL_MEM_READ_WRITE | (caps->unified ? CL_MEM_ALLOC_HOST_PTR : 0), NULL);
    if (status == FA_OK && buffer->size > 0)
        buffer->storage = ((const fa_cl_buffer *)buffer->impl)->chunk[0];
    return status;
}

fa_status fa_cl_buffer_wrap(fa_buffer *buffer, void *memory)
{
    buffer->address = memory;
    return make_chunks(buffer, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, memory);
}

/* Sub-buffers in the place of chunks, from the one on that the buffer begins in. */
static fa_status make_sub_buffers(fa_buffer *buffer, cl_mem root, size_t root_origin)
{
    const fa_cl *cl = fa_cl_device_of(buffer->device)->cl;
    fa_cl_buffer *b = buffer->impl;
    const size_t end = b->origin + buffer->size;
    for (size_t i = b->origin / b->chunk_bytes; i < b->chunks; i++) {
        size_t begin = i * b->chunk_bytes;
        const cl_buffer_region region = {root_origin + begin, FA_MIN(b->chunk_bytes, end - begin)};
        cl_int error;
        b->chunk[i] = cl->clCreateSubBuffer(root, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &error);
        if (error != CL_SUCCESS) {
            b->chunk[i] = NULL;
            return fa_cl_fail(error, "clCreateSubBuffer");
        }
    }
    return FA_OK;
}

fa_status fa_cl_buffer_wrap_mem(fa_buffer *buffer, cl_mem memory, size_t origin, cl_mem root,
                                size_t root_origin)
{
    const fa_cl_device *device = fa_cl_device_of(buffer->device);
    size_t bytes = (size_t)1 << fa_cl_chunk_shift(&device->caps), end = origin + buffer->size;
    size_t chunks = end > bytes ? end / bytes + (end % bytes != 0) : 1;
    cl_int error = device->cl->clRetainMemObject(memory);
    if (error != CL_SUCCESS)
        return fa_cl_fail(error, "clRetainMemObject");
    fa_cl_buffer *made = fa_alloc_zeroed(buffer->device->context, impl_bytes(chunks));
    if (!made) {
        (void)device->cl->clReleaseMemObject(memory);
        return FA_OUT_OF_MEMORY;
    }
    made->chunk_bytes = bytes;
    made->chunks = chunks;
    made->origin = origin;
    made->whole = memory;
    buffer->impl = made;
    if (chunks == 1) {
        made->chunk[0] = memory;
        return FA_OK;
    }
    fa_status status = make_sub_buffers(buffer, root, root_origin);
    if (status != FA_OK)
        fa_cl_buffer_destroy(buffer);
    return status;
}

void fa_cl_buffer_destroy(fa_buffer *buffer)
{
    const fa_cl *cl = fa_cl_device_of(buffer->device)->cl;
    fa_cl_buffer *b = buffer->impl;
    for (size_t i = 0; i < b->chunks; i++) {
        if (b->chunk[i] && b->chunk[i] != b->whole)
            (void)cl->clReleaseMemObject(b->chunk[i]);
    }
    if (b->whole)
        (void)cl->clReleaseMemObject(b->whole);
    fa_release(buffer->device->context, b, impl_bytes(b->chunks));
    buffer->impl = NULL;
}

/* A blocking transfer that fails this way may tell of a kernel that failed before it. */
static fa_status transfer_failed(fa_queue *queue, cl_int error, const char *call)
{
    if (error == CL_OUT_OF_RESOURCES) {
        fa_status status = fa_cl_queue_wait(queue);
        if (status != FA_OK)
            return status;
    }
    return fa_cl_fail(error, call);
}

/* One of the two is NULL: the direction. */
static fa_status copy_mapped(fa_queue *queue, cl_mem memory, size_t offset, const void *source, void *target,
                             size_t size)
{
    const fa_cl *cl = fa_cl_device_of(queue->device)->cl;
    cl_command_queue handle = ((const fa_cl_queue *)queue->impl)->handle;
    cl_int error;
    void *mapped =
        cl->clEnqueueMapBuffer(handle, memory, CL_TRUE, source ? CL_MAP_WRITE_INVALIDATE_REGION : CL_MAP_READ,
                               offset, size, 0, NULL, NULL, &error);
    if (error != CL_SUCCESS)
        return transfer_failed(queue, error, "clEnqueueMapBuffer");
    /* The caller's own memory may be what is mapped. */
    memmove(source ? mapped : target, source ? source : mapped, size);
    error = cl->clEnqueueUnmapMemObject(handle, memory, mapped, 0, NULL, NULL);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clEnqueueUnmapMemObject");
}

static fa_status copy_bytes(fa_queue *queue, cl_mem memory, size_t offset, const void *source, void *target,
                            size_t size)
{
    const fa_cl *cl = fa_cl_device_of(queue->device)->cl;
    cl_command_queue handle = ((const fa_cl_queue *)queue->impl)->handle;
    cl_int error =
        source ? cl->clEnqueueWriteBuffer(handle, memory, CL_TRUE, offset, size, source, 0, NULL, NULL)
               : cl->clEnqueueReadBuffer(handle, memory, CL_TRUE, offset, size, target, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        return FA_OK;
    return transfer_failed(queue, error, source ? "clEnqueueWriteBuffer" : "clEnqueueReadBuffer");
}

static fa_status copy_range(fa_queue *queue, const fa_buffer *buffer, size_t offset, const char *source,
                            char *target, size_t size)
{
    const fa_cl_buffer *b = buffer->impl;
    fa_status status = FA_OK;
    for (size_t done = 0, part; done < size && status == FA_OK; done += part) {
        size_t at = b->origin + offset + done;
        size_t chunk = b->whole ? 0 : at / b->chunk_bytes, rest = size - done;
        at -= chunk * b->chunk_bytes;
        part = b->whole ? rest : FA_MIN(b->chunk_bytes - at, rest);
        const char *from = source ? source + done : NULL;
        char *to = target ? target + done : NULL;
        cl_mem memory = b->whole ? b->whole : b->chunk[chunk];
        status = b->mapped ? copy_mapped(queue, memory, at, from, to, part)
                           : copy_bytes(queue, memory, at, from, to, part);
    }
    return status;
}

fa_status fa_cl_buffer_write(fa_queue *queue, fa_buffer *buffer, size_t offset, const void *source,
                             size_t size)
{
    return copy_range(queue, buffer, offset, source, NULL, size);
}

fa_status fa_cl_buffer_read(fa_queue *queue, const fa_buffer *buffer, size_t offset, void *target,
                            size_t size)
{
    return copy_range(queue, buffer, offset, NULL, target, size);
}

/*
 * Mapping for writing, its old contents given up, is what hands the host's bytes to a device that keeps a
 * copy of them; mapping for reading is what brings them back.
 */
static fa_status map_and_unmap(fa_queue *queue, cl_mem memory, size_t size, cl_map_flags flags)
{
    const fa_cl *cl = fa_cl_device_of(queue->device)->cl;
    cl_command_queue handle = ((const fa_cl_queue *)queue->impl)->handle;
    cl_int error;
    void *mapped = cl->clEnqueueMapBuffer(handle, memory, CL_FALSE, flags, 0, size, 0, NULL, NULL, &error);
    if (error != CL_SUCCESS)
        return fa_cl_fail(error, "clEnqueueMapBuffer");
    error = cl->clEnqueueUnmapMemObject(handle, memory, mapped, 0, NULL, NULL);
    return error == CL_SUCCESS ? FA_OK : fa_cl_fail(error, "clEnqueueUnmapMemObject");
}

fa_status fa_cl_buffer_sync(fa_queue *queue, const fa_buffer *buffer, bool to_device, bool to_host)
{
    const fa_cl_buffer *b = buffer->impl;
    fa_status status = FA_OK;
    for (size_t i = 0; b->host && i < b->chunks && status == FA_OK; i++) {
        size_t size = chunk_size(buffer, i);
        if (to_device)
            status = map_and_unmap(queue, b->chunk[i], size, CL_MAP_WRITE_INVALIDATE_REGION);
        if (to_host && status == FA_OK)
            status = map_and_unmap(queue, b->chunk[i], size, CL_MAP_READ);
    }
    return status;
}
