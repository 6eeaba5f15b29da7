/* SPDX-License-Identifier: Apache-2.0 */
/* The stub driver's buffers, transfers and events. */
#include <stdlib.h>
#include <string.h>

#include "stub_internal.h"

static void free_bytes(stub_object *object)
{
    struct _cl_mem *memory = (struct _cl_mem *)object;
    if (memory->mapped != 0)
        (void)stub_wrong(CL_INVALID_OPERATION, "memory was released while it is mapped");
    if (!memory->root)
        free(memory->bytes);
}

CL_API_ENTRY cl_mem CL_API_CALL clCreateBuffer(cl_context context, cl_mem_flags flags, size_t size,
                                               void *host, cl_int *error)
{
    cl_mem made = NULL;
    cl_int status = stub_enter(__func__);
    const bool takes_host = (flags & (CL_MEM_USE_HOST_PTR | CL_MEM_COPY_HOST_PTR)) != 0;
    if (status == CL_SUCCESS && !stub_is(context, STUB_CONTEXT))
        status = stub_wrong(CL_INVALID_CONTEXT, __func__);
    else if (status == CL_SUCCESS && size == 0)
        status = stub_wrong(CL_INVALID_BUFFER_SIZE, __func__);
    else if (status == CL_SUCCESS && size > stub_device_size(context->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE))
        status = stub_wrong(CL_INVALID_BUFFER_SIZE, "a buffer is larger than CL_DEVICE_MAX_MEM_ALLOC_SIZE");
    else if (status == CL_SUCCESS && (host != NULL) != takes_host)
        status = stub_wrong(CL_INVALID_HOST_PTR, __func__);
    if (status == CL_SUCCESS) {
        made = stub_object_make(sizeof(*made), STUB_MEM, &context->object);
        status = made ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    }
    if (made) {
        made->object.destroy = free_bytes;
        made->context = context;
        made->flags = flags;
        made->size = size;
        made->host = flags & CL_MEM_USE_HOST_PTR ? host : NULL;
        made->bytes = malloc(size);
        if (!made->bytes) {
            stub_object_release(&made->object);
            made = NULL;
            status = CL_MEM_OBJECT_ALLOCATION_FAILURE;
        } else if (host) {
            memcpy(made->bytes, host, size);
        } else {
            memset(made->bytes, 0x5a, size);
        }
    }
    stub_leave();
    if (error)
        *error = status;
    return made;
}

CL_API_ENTRY cl_mem CL_API_CALL clCreateSubBuffer(cl_mem root, cl_mem_flags flags, cl_buffer_create_type type,
                                                  const void *info, cl_int *error)
{
    cl_mem made = NULL;
    const cl_buffer_region *region = info;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && (!stub_is(root, STUB_MEM) || root->root))
        status = stub_wrong(CL_INVALID_MEM_OBJECT, __func__);
    else if (status == CL_SUCCESS &&
             (type != CL_BUFFER_CREATE_TYPE_REGION || region->size == 0 || region->origin > root->size ||
              region->size > root->size - region->origin))
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    if (status == CL_SUCCESS) {
        made = stub_object_make(sizeof(*made), STUB_MEM, &root->object);
        status = made ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    }
    if (made) {
        made->object.destroy = free_bytes;
        made->context = root->context;
        made->flags = flags;
        made->root = root;
        made->origin = region->origin;
        made->size = region->size;
        made->bytes = root->bytes + region->origin;
    }
    stub_leave();
    if (error)
        *error = status;
    return made;
}

CL_API_ENTRY cl_int CL_API_CALL clRetainMemObject(cl_mem memory)
{
    return stub_change_references(__func__, memory, STUB_MEM, CL_INVALID_MEM_OBJECT, 1);
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseMemObject(cl_mem memory)
{
    return stub_change_references(__func__, memory, STUB_MEM, CL_INVALID_MEM_OBJECT, -1);
}

static cl_int memory_info(cl_mem memory, cl_mem_info name, size_t room, void *target, size_t *actual)
{
    const cl_mem_object_type type = CL_MEM_OBJECT_BUFFER;
    switch (name) {
    case CL_MEM_TYPE: return stub_answer(&type, sizeof(type), room, target, actual);
    case CL_MEM_FLAGS: return stub_answer(&memory->flags, sizeof(memory->flags), room, target, actual);
    case CL_MEM_SIZE: return stub_answer(&memory->size, sizeof(memory->size), room, target, actual);
    case CL_MEM_HOST_PTR: return stub_answer(&memory->host, sizeof(memory->host), room, target, actual);
    case CL_MEM_CONTEXT: return stub_answer(&memory->context, sizeof(memory->context), room, target, actual);
    case CL_MEM_OFFSET: return stub_answer(&memory->origin, sizeof(memory->origin), room, target, actual);
    case CL_MEM_ASSOCIATED_MEMOBJECT:
        return stub_answer(&memory->root, sizeof(memory->root), room, target, actual);
    default: return stub_wrong(CL_INVALID_VALUE, "clGetMemObjectInfo");
    }
}

CL_API_ENTRY cl_int CL_API_CALL clGetMemObjectInfo(cl_mem memory, cl_mem_info name, size_t room, void *target,
                                                   size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS)
        status = stub_is(memory, STUB_MEM) ? memory_info(memory, name, room, target, actual)
                                           : stub_wrong(CL_INVALID_MEM_OBJECT, __func__);
    stub_leave();
    return status;
}

static cl_int check_transfer(cl_command_queue queue, cl_mem memory, size_t offset, size_t size, cl_uint waits,
                             const cl_event *list)
{
    if (!stub_is(queue, STUB_QUEUE))
        return stub_wrong(CL_INVALID_COMMAND_QUEUE, "a transfer");
    if (!stub_is(memory, STUB_MEM))
        return stub_wrong(CL_INVALID_MEM_OBJECT, "a transfer");
    if (memory->context != queue->context)
        return stub_wrong(CL_INVALID_CONTEXT, "a transfer between a queue and memory of two contexts");
    if (size == 0 || offset > memory->size || size > memory->size - offset)
        return stub_wrong(CL_INVALID_VALUE, "a transfer outside a buffer, or of no bytes");
    return stub_wait_list(waits, list);
}

static cl_int transfer(const char *function, cl_command_queue queue, cl_mem memory, size_t offset,
                       size_t size, const void *source, void *target, cl_uint waits, const cl_event *list,
                       cl_event *event)
{
    cl_int status = stub_enter(function);
    if (status == CL_SUCCESS)
        status = check_transfer(queue, memory, offset, size, waits, list);
    if (status == CL_SUCCESS)
        status = stub_event_make(queue, source ? CL_COMMAND_WRITE_BUFFER : CL_COMMAND_READ_BUFFER, event);
    if (status == CL_SUCCESS && source)
        memcpy(memory->bytes + offset, source, size);
    else if (status == CL_SUCCESS && target)
        memcpy(target, memory->bytes + offset, size);
    stub_leave();
    return status;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueReadBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                                    size_t offset, size_t size, void *target, cl_uint waits,
                                                    const cl_event *list, cl_event *event)
{
    (void)blocking;
    return transfer(__func__, queue, memory, offset, size, NULL, target, waits, list, event);
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueWriteBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                                     size_t offset, size_t size, const void *source,
                                                     cl_uint waits, const cl_event *list, cl_event *event)
{
    (void)blocking;
    return transfer(__func__, queue, memory, offset, size, source, NULL, waits, list, event);
}

CL_API_ENTRY void *CL_API_CALL clEnqueueMapBuffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                                  cl_map_flags flags, size_t offset, size_t size,
                                                  cl_uint waits, const cl_event *list, cl_event *event,
                                                  cl_int *error)
{
    (void)blocking;
    void *mapped = NULL;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS)
        status = check_transfer(queue, memory, offset, size, waits, list);
    if (status == CL_SUCCESS)
        status = stub_event_make(queue, CL_COMMAND_MAP_BUFFER, event);
    if (status == CL_SUCCESS) {
        memory->mapped++;
        memory->map_flags = flags;
        memory->map_offset = offset;
        memory->map_size = size;
        stub_count_mapping(1);
        mapped = (memory->host ? memory->host : memory->bytes) + offset;
        if (memory->host && !(flags & CL_MAP_WRITE_INVALIDATE_REGION))
            memcpy(mapped, memory->bytes + offset, size);
    }
    stub_leave();
    if (error)
        *error = status;
    return mapped;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueUnmapMemObject(cl_command_queue queue, cl_mem memory, void *mapped,
                                                        cl_uint waits, const cl_event *list, cl_event *event)
{
    cl_int status = stub_enter(__func__);
    if (stub_is(memory, STUB_MEM) && memory->mapped > 0) {
        /* Like a release: one that fails leaves nothing that could be tried again. */
        memory->mapped--;
        stub_count_mapping(-1);
    } else if (status == CL_SUCCESS) {
        status = stub_wrong(CL_INVALID_MEM_OBJECT, "memory is unmapped that is not mapped");
    }
    if (status == CL_SUCCESS &&
        (char *)mapped != (memory->host ? memory->host : memory->bytes) + memory->map_offset)
        status = stub_wrong(CL_INVALID_VALUE, "what is unmapped is not what was mapped");
    if (status == CL_SUCCESS)
        status = stub_wait_list(waits, list);
    if (status == CL_SUCCESS)
        status = stub_event_make(queue, CL_COMMAND_UNMAP_MEM_OBJECT, event);
    if (status == CL_SUCCESS && memory->host) {
        if (memory->map_flags & (CL_MAP_WRITE | CL_MAP_WRITE_INVALIDATE_REGION))
            memcpy(memory->bytes + memory->map_offset, mapped, memory->map_size);
        memory->newer = memory->newer && memory->map_size < memory->size;
    }
    stub_leave();
    return status;
}

cl_int stub_event_make(cl_command_queue queue, cl_command_type command, cl_event *event)
{
    static cl_ulong now;
    if (!event)
        return CL_SUCCESS;
    cl_event made = stub_object_make(sizeof(*made), STUB_EVENT, &queue->object);
    if (!made)
        return CL_OUT_OF_HOST_MEMORY;
    made->queue = queue;
    made->command = command;
    made->state = command == CL_COMMAND_NDRANGE_KERNEL ? stub_step("kernel") : CL_COMPLETE;
    made->start = now += 1000;
    made->end = now += 1000;
    *event = made;
    return CL_SUCCESS;
}

cl_int stub_wait_list(cl_uint count, const cl_event *events)
{
    if ((count > 0) != (events != NULL))
        return stub_wrong(CL_INVALID_EVENT_WAIT_LIST, "a wait list");
    for (cl_uint i = 0; i < count; i++) {
        if (!stub_is(events[i], STUB_EVENT))
            return stub_wrong(CL_INVALID_EVENT_WAIT_LIST, "a wait list");
    }
    return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clRetainEvent(cl_event event)
{
    return stub_change_references(__func__, event, STUB_EVENT, CL_INVALID_EVENT, 1);
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseEvent(cl_event event)
{
    return stub_change_references(__func__, event, STUB_EVENT, CL_INVALID_EVENT, -1);
}

CL_API_ENTRY cl_int CL_API_CALL clWaitForEvents(cl_uint count, const cl_event *events)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && count == 0)
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    if (status == CL_SUCCESS)
        status = stub_wait_list(count, events);
    stub_leave();
    return status;
}

CL_API_ENTRY cl_int CL_API_CALL clGetEventInfo(cl_event event, cl_event_info name, size_t room, void *target,
                                               size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(event, STUB_EVENT))
        status = stub_wrong(CL_INVALID_EVENT, __func__);
    else if (status == CL_SUCCESS && name == CL_EVENT_COMMAND_EXECUTION_STATUS)
        status = stub_answer(&event->state, sizeof(event->state), room, target, actual);
    else if (status == CL_SUCCESS && name == CL_EVENT_COMMAND_TYPE)
        status = stub_answer(&event->command, sizeof(event->command), room, target, actual);
    else if (status == CL_SUCCESS)
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    stub_leave();
    return status;
}

CL_API_ENTRY cl_int CL_API_CALL clGetEventProfilingInfo(cl_event event, cl_profiling_info name, size_t room,
                                                        void *target, size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(event, STUB_EVENT))
        status = stub_wrong(CL_INVALID_EVENT, __func__);
    else if (status == CL_SUCCESS && !(event->queue->properties & CL_QUEUE_PROFILING_ENABLE))
        status = CL_PROFILING_INFO_NOT_AVAILABLE;
    else if (status == CL_SUCCESS)
        status = stub_answer(name == CL_PROFILING_COMMAND_END ? &event->end : &event->start,
                             sizeof(event->end), room, target, actual);
    stub_leave();
    return status;
}
