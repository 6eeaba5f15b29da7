/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's own context, queues and memory. */
#include <fastattn/opencl.h>

#include "backends/opencl/describe.h"
#include "core/context.h"
#include "core/device.h"
#include "core/status.h"

enum { MAX_CONTEXT_DEVICES = 64 };

/* A handle that OpenCL does not know is the caller's mistake; all else is a failure. */
static fa_status bad_handle(cl_int error, const char *call, const char *field)
{
    switch (error) {
    case CL_INVALID_CONTEXT:
    case CL_INVALID_DEVICE:
    case CL_INVALID_COMMAND_QUEUE:
    case CL_INVALID_MEM_OBJECT:
        return fa_fail(FA_INVALID, "%s: %s: %s (%d)", field, call, fa_cl_error_name(error), (int)error);
    default: return fa_cl_fail(error, call);
    }
}

static fa_status check_device(const fa_device *device, const void *handle, const char *field)
{
    if (!device || !handle)
        return fa_fail(FA_INVALID, "%s is NULL", device ? field : "device");
    if (device->backend != &fa_backend_opencl)
        return fa_fail(FA_INVALID, "device is of the %s backend, expected opencl", device->backend->name);
    return FA_OK;
}

static fa_status check_context(const fa_cl *cl, cl_context context, cl_device_id id)
{
    cl_device_id ids[MAX_CONTEXT_DEVICES];
    size_t bytes = 0;
    cl_int error = cl->clGetContextInfo(context, CL_CONTEXT_DEVICES, sizeof(ids), ids, &bytes);
    if (error != CL_SUCCESS)
        return bad_handle(error, "clGetContextInfo", "cl_context");
    for (size_t i = 0; i < bytes / sizeof(ids[0]); i++) {
        if (ids[i] == id)
            return FA_OK;
    }
    return fa_fail(FA_INVALID, "cl_device is not one of the %zu devices of cl_context",
                   bytes / sizeof(ids[0]));
}

fa_status fa_device_open_opencl(fa_context *context, struct _cl_context *cl_context,
                                struct _cl_device_id *cl_device, fa_device **device)
{
    fa_clear_error();
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL, expected where to store the device");
    *device = NULL;
    if (!context || !cl_context || !cl_device)
        return fa_fail(FA_INVALID, "%s is NULL",
                       !context      ? "context"
                       : !cl_context ? "cl_context"
                                     : "cl_device");
    char reason[256];
    const fa_cl *cl = fa_cl_load(reason, sizeof(reason));
    if (!cl)
        return fa_fail(FA_NO_DEVICE, "%s", reason);
    fa_status status = check_context(cl, cl_context, cl_device);
    if (status != FA_OK)
        return status;
    fa_cl_import import = {cl_context, cl_device};
    fa_device_entry entry = {.backend = &fa_backend_opencl, .import = &import};
    fa_cl_describe_id(cl, cl_device, &entry.info);
    if (!entry.info.available)
        return fa_fail(FA_NO_DEVICE, "%s: %s", entry.info.name, entry.info.reason);
    return fa_device_open_entry(context, &entry, device);
}

static fa_status check_queue(const fa_cl_device *device, cl_command_queue handle, bool *timed)
{
    cl_context context = NULL;
    cl_device_id id = NULL;
    cl_command_queue_properties properties = 0;
    const struct {
        cl_command_queue_info parameter;
        void *value;
        size_t size;
    } queries[] = {
        {CL_QUEUE_CONTEXT, &context, sizeof(context)},
        {CL_QUEUE_DEVICE, &id, sizeof(id)},
        {CL_QUEUE_PROPERTIES, &properties, sizeof(properties)},
    };
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        cl_int error = device->cl->clGetCommandQueueInfo(handle, queries[i].parameter, queries[i].size,
                                                         queries[i].value, NULL);
        if (error != CL_SUCCESS)
            return bad_handle(error, "clGetCommandQueueInfo", "cl_queue");
    }
    if (context != device->context)
        return fa_fail(FA_INVALID, "cl_queue belongs to another context than the device");
    if (id != device->id)
        return fa_fail(FA_INVALID, "cl_queue belongs to another device of the context");
    if (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE)
        return fa_fail(FA_INVALID, "cl_queue is out of order, expected an in-order queue");
    *timed = (properties & CL_QUEUE_PROFILING_ENABLE) != 0;
    return FA_OK;
}

fa_status fa_queue_wrap_opencl(fa_device *device, struct _cl_command_queue *cl_queue, fa_queue **queue)
{
    fa_clear_error();
    if (!queue)
        return fa_fail(FA_INVALID, "queue is NULL, expected where to store the new queue");
    *queue = NULL;
    bool timed = false;
    fa_status status = check_device(device, cl_queue, "cl_queue");
    if (status == FA_OK)
        status = check_queue(fa_cl_device_of(device), cl_queue, &timed);
    if (status != FA_OK)
        return status;
    const fa_cl *cl = fa_cl_device_of(device)->cl;
    fa_queue *made = fa_alloc_zeroed(device->context, sizeof(*made));
    fa_cl_queue *impl = made ? fa_alloc_zeroed(device->context, sizeof(*impl)) : NULL;
    cl_int error = impl ? cl->clRetainCommandQueue(cl_queue) : CL_SUCCESS;
    if (!impl || error != CL_SUCCESS) {
        fa_release(device->context, impl, sizeof(*impl));
        fa_release(device->context, made, sizeof(*made));
        return impl ? fa_cl_fail(error, "clRetainCommandQueue") : FA_OUT_OF_MEMORY;
    }
    *impl = (fa_cl_queue){.handle = cl_queue, .timed = timed};
    *made = (fa_queue){.device = device, .impl = impl};
    *queue = made;
    return FA_OK;
}

/* What of a cl_mem matters; `root` and `root_offset` are itself and 0 unless it is a sub-buffer. */
typedef struct memory {
    cl_mem_object_type type;
    cl_context context;
    size_t size, root_offset;
    cl_mem root;
} memory;

static fa_status look_at(const fa_cl *cl, cl_mem handle, memory *m)
{
    const struct {
        cl_mem_info parameter;
        void *value;
        size_t size;
    } queries[] = {
        {CL_MEM_TYPE, &m->type, sizeof(m->type)},
        {CL_MEM_CONTEXT, &m->context, sizeof(m->context)},
        {CL_MEM_SIZE, &m->size, sizeof(m->size)},
        {CL_MEM_ASSOCIATED_MEMOBJECT, &m->root, sizeof(m->root)},
        {CL_MEM_OFFSET, &m->root_offset, sizeof(m->root_offset)},
    };
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        cl_int error =
            cl->clGetMemObjectInfo(handle, queries[i].parameter, queries[i].size, queries[i].value, NULL);
        if (error != CL_SUCCESS)
            return bad_handle(error, "clGetMemObjectInfo", "cl_mem");
    }
    if (!m->root) {
        m->root = handle;
        m->root_offset = 0;
    }
    return FA_OK;
}

static fa_status check_memory(const fa_cl_device *device, const memory *m, size_t offset, size_t size)
{
    if (m->type != CL_MEM_OBJECT_BUFFER)
        return fa_fail(FA_INVALID, "cl_mem is of type 0x%x, expected CL_MEM_OBJECT_BUFFER",
                       (unsigned)m->type);
    if (m->context != device->context)
        return fa_fail(FA_INVALID, "cl_mem belongs to another context than the device");
    if (offset % 64 != 0)
        return fa_fail(FA_INVALID, "offset is %zu, expected a multiple of 64", offset);
    if (offset > m->size || size > m->size - offset)
        return fa_fail(FA_INVALID, "offset %zu with size %zu is outside cl_mem's %zu bytes", offset, size,
                       m->size);
    return FA_OK;
}

fa_status fa_buffer_wrap_opencl(fa_device *device, struct _cl_mem *cl_mem, size_t offset, size_t size,
                                fa_buffer **buffer)
{
    fa_clear_error();
    if (!buffer)
        return fa_fail(FA_INVALID, "buffer is NULL, expected where to store the new buffer");
    *buffer = NULL;
    memory m = {0};
    fa_status status = check_device(device, cl_mem, "cl_mem");
    if (status == FA_OK)
        status = look_at(fa_cl_device_of(device)->cl, cl_mem, &m);
    if (status == FA_OK)
        status = check_memory(fa_cl_device_of(device), &m, offset, size);
    if (status != FA_OK)
        return status;
    fa_buffer *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    *made = (fa_buffer){
        .device = device,
        .size = size > 0 ? size : m.size - offset,
        .storage = m.root,
        .address = (void *)(m.root_offset + offset),
    };
    status = fa_cl_buffer_wrap_mem(made, cl_mem, offset, m.root, m.root_offset);
    if (status != FA_OK) {
        fa_release(device->context, made, sizeof(*made));
        return status;
    }
    *buffer = made;
    return FA_OK;
}
