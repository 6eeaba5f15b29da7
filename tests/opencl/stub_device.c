/* SPDX-License-Identifier: Apache-2.0 */
/* The stub driver's platform, devices, contexts and queues. */
#include <stdlib.h>
#include <string.h>

#include "stub_internal.h"

#define MAX_DEVICES 12

static struct _cl_platform_id the_platform;
static struct _cl_device_id devices[MAX_DEVICES];

/*
 * Kinds: "good", and a good one with one thing changed: "unified" (memory shared with the host), "cpu",
 * "small" (16 KiB of local memory, 64-wide work-groups, 64 KiB an allocation), and those that are of no use:
 * "nocompiler", "unavailable", "opencl10", "bigendian", "custom" (its type), "narrow" (32-wide work-groups).
 */
static bool is(cl_device_id device, const char *kind)
{
    return strcmp(device->kind, kind) == 0;
}

static cl_uint read_devices(void)
{
    const char *list = getenv("STUB_DEVICES");
    cl_uint count = 0;
    for (list = list ? list : "good"; *list && count < MAX_DEVICES; count++) {
        size_t length = strcspn(list, ",");
        if (length >= sizeof(devices[count].kind))
            abort();
        memcpy(devices[count].kind, list, length);
        devices[count].kind[length] = '\0';
        list += length + (list[length] == ',');
    }
    return count;
}

CL_API_ENTRY cl_int CL_API_CALL clGetPlatformIDs(cl_uint room, cl_platform_id *platforms, cl_uint *count)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS) {
        if (platforms && room > 0)
            platforms[0] = &the_platform;
        if (count)
            *count = 1;
    }
    stub_leave();
    return status;
}

static cl_int answer_text(const char *text, size_t room, void *target, size_t *actual)
{
    return stub_answer(text, strlen(text) + 1, room, target, actual);
}

CL_API_ENTRY cl_int CL_API_CALL clGetPlatformInfo(cl_platform_id platform, cl_platform_info name, size_t room,
                                                  void *target, size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS &&
        platform != &the_platform) /* NULL: the specification leaves it to the driver */
        status = platform ? stub_wrong(CL_INVALID_PLATFORM, __func__) : CL_INVALID_PLATFORM;
    if (status == CL_SUCCESS) {
        const char *text = name == CL_PLATFORM_NAME      ? "Stub Platform"
                           : name == CL_PLATFORM_VENDOR  ? "Stub Vendor"
                           : name == CL_PLATFORM_VERSION ? "OpenCL 1.2 stub"
                           : name == CL_PLATFORM_PROFILE ? "FULL_PROFILE"
                                                         : "";
        status = answer_text(text, room, target, actual);
    }
    stub_leave();
    return status;
}

CL_API_ENTRY cl_int CL_API_CALL clGetDeviceIDs(cl_platform_id platform, cl_device_type type, cl_uint room,
                                               cl_device_id *found, cl_uint *count)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && platform != &the_platform)
        status = stub_wrong(CL_INVALID_PLATFORM, __func__);
    if (status == CL_SUCCESS && type != CL_DEVICE_TYPE_ALL && type != CL_DEVICE_TYPE_CUSTOM)
        status = stub_wrong(CL_INVALID_DEVICE_TYPE, "the stub lists all devices or the custom ones");
    if (status == CL_SUCCESS) {
        /* "All" is without the custom ones. */
        cl_uint have = read_devices(), listed = 0;
        for (cl_uint i = 0; i < have; i++) {
            if (is(&devices[i], "custom") != (type == CL_DEVICE_TYPE_CUSTOM))
                continue;
            if (found && listed < room)
                found[listed] = &devices[i];
            listed++;
        }
        if (count)
            *count = listed;
        status = listed > 0 ? CL_SUCCESS : CL_DEVICE_NOT_FOUND;
    }
    stub_leave();
    return status;
}

static bool is_device(cl_device_id device)
{
    for (int i = 0; i < MAX_DEVICES; i++) {
        if (device == &devices[i])
            return device->kind[0] != '\0';
    }
    return false;
}

static const char *device_text(cl_device_id device, cl_device_info name)
{
    switch (name) {
    case CL_DEVICE_NAME: return device->kind;
    case CL_DEVICE_VENDOR: return "Stub Vendor";
    case CL_DRIVER_VERSION: return "47.11";
    case CL_DEVICE_PROFILE: return "FULL_PROFILE";
    case CL_DEVICE_VERSION: return is(device, "opencl10") ? "OpenCL 1.0 stub" : "OpenCL 1.2 stub";
    case CL_DEVICE_OPENCL_C_VERSION: return is(device, "opencl10") ? "OpenCL C 1.0 " : "OpenCL C 1.2 ";
    case CL_DEVICE_EXTENSIONS: return "cl_khr_fp16 cl_khr_byte_addressable_store";
    case CL_DEVICE_BUILT_IN_KERNELS: return "";
    default: return NULL;
    }
}

static bool is_flag(cl_device_info name)
{
    return name == CL_DEVICE_AVAILABLE || name == CL_DEVICE_COMPILER_AVAILABLE ||
           name == CL_DEVICE_LINKER_AVAILABLE || name == CL_DEVICE_ENDIAN_LITTLE ||
           name == CL_DEVICE_HOST_UNIFIED_MEMORY || name == CL_DEVICE_IMAGE_SUPPORT ||
           name == CL_DEVICE_ERROR_CORRECTION_SUPPORT;
}

static cl_bool device_flag(cl_device_id device, cl_device_info name)
{
    switch (name) {
    case CL_DEVICE_AVAILABLE: return !is(device, "unavailable");
    case CL_DEVICE_COMPILER_AVAILABLE:
    case CL_DEVICE_LINKER_AVAILABLE: return !is(device, "nocompiler");
    case CL_DEVICE_ENDIAN_LITTLE: return !is(device, "bigendian");
    case CL_DEVICE_HOST_UNIFIED_MEMORY: return is(device, "unified") || is(device, "cpu");
    default: return CL_FALSE;
    }
}

size_t stub_device_size(cl_device_id device, cl_device_info name)
{
    const bool small = is(device, "small");
    switch (name) {
    case CL_DEVICE_MAX_WORK_GROUP_SIZE: return is(device, "narrow") ? 32 : small ? 64 : 256;
    case CL_DEVICE_LOCAL_MEM_SIZE: return small ? 16 << 10 : 32 << 10;
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE: return small ? 64 << 10 : 256 << 20;
    case CL_DEVICE_GLOBAL_MEM_SIZE: return 1 << 30;
    case CL_DEVICE_GLOBAL_MEM_CACHE_SIZE: return 1 << 20;
    case CL_DEVICE_MAX_CONSTANT_BUFFER_SIZE: return 64 << 10;
    case CL_DEVICE_MAX_PARAMETER_SIZE: return 1024;
    case CL_DEVICE_PROFILING_TIMER_RESOLUTION: return 1;
    default: return 0;
    }
}

static cl_uint device_number(cl_device_id device, cl_device_info name)
{
    switch (name) {
    case CL_DEVICE_LOCAL_MEM_TYPE: return is(device, "cpu") ? CL_GLOBAL : CL_LOCAL;
    case CL_DEVICE_MAX_COMPUTE_UNITS: return 8;
    case CL_DEVICE_MAX_CLOCK_FREQUENCY: return 1000;
    case CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS: return 3;
    case CL_DEVICE_MEM_BASE_ADDR_ALIGN: return 1024;
    case CL_DEVICE_ADDRESS_BITS: return 64;
    case CL_DEVICE_GLOBAL_MEM_CACHELINE_SIZE: return 128;
    case CL_DEVICE_VENDOR_ID: return 0x5757;
    default: return 0;
    }
}

static cl_int device_info(cl_device_id device, cl_device_info name, size_t room, void *target, size_t *actual)
{
    const char *text = device_text(device, name);
    if (text)
        return answer_text(text, room, target, actual);
    if (is_flag(name)) {
        cl_bool flag = device_flag(device, name);
        return stub_answer(&flag, sizeof(flag), room, target, actual);
    }
    if (name == CL_DEVICE_TYPE) {
        cl_device_type type = is(device, "cpu")      ? CL_DEVICE_TYPE_CPU
                              : is(device, "custom") ? CL_DEVICE_TYPE_CUSTOM
                                                     : CL_DEVICE_TYPE_GPU;
        return stub_answer(&type, sizeof(type), room, target, actual);
    }
    if (name == CL_DEVICE_PLATFORM) {
        cl_platform_id platform = &the_platform;
        return stub_answer(&platform, sizeof(platform), room, target, actual);
    }
    if (name == CL_DEVICE_MAX_WORK_ITEM_SIZES) {
        size_t widest = stub_device_size(device, CL_DEVICE_MAX_WORK_GROUP_SIZE),
               sizes[3] = {widest, widest, 64};
        return stub_answer(sizes, sizeof(sizes), room, target, actual);
    }
    if (name == CL_DEVICE_QUEUE_PROPERTIES) {
        cl_command_queue_properties properties = CL_QUEUE_PROFILING_ENABLE;
        return stub_answer(&properties, sizeof(properties), room, target, actual);
    }
    if (name == CL_DEVICE_MAX_WORK_GROUP_SIZE || name == CL_DEVICE_MAX_PARAMETER_SIZE ||
        name == CL_DEVICE_PROFILING_TIMER_RESOLUTION) {
        size_t size = stub_device_size(device, name);
        return stub_answer(&size, sizeof(size), room, target, actual);
    }
    cl_ulong size = stub_device_size(device, name);
    if (size > 0)
        return stub_answer(&size, sizeof(size), room, target, actual);
    cl_uint number = device_number(device, name);
    if (number > 0)
        return stub_answer(&number, sizeof(number), room, target, actual);
    return CL_INVALID_VALUE;
}

CL_API_ENTRY cl_int CL_API_CALL clGetDeviceInfo(cl_device_id device, cl_device_info name, size_t room,
                                                void *target, size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS)
        status = is_device(device) ? device_info(device, name, room, target, actual)
                                   : stub_wrong(CL_INVALID_DEVICE, __func__);
    stub_leave();
    return status;
}

CL_API_ENTRY cl_context CL_API_CALL clCreateContext(
    const cl_context_properties *properties, cl_uint count, const cl_device_id *list,
    void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *error)
{
    (void)properties, (void)notify, (void)user;
    cl_context made = NULL;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && (count != 1 || !is_device(list[0])))
        status = stub_wrong(CL_INVALID_DEVICE, __func__);
    if (status == CL_SUCCESS && is(list[0], "unavailable"))
        status = CL_DEVICE_NOT_AVAILABLE;
    if (status == CL_SUCCESS) {
        made = stub_object_make(sizeof(*made), STUB_CONTEXT, NULL);
        status = made ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
        if (made)
            made->device = list[0];
    }
    stub_leave();
    if (error)
        *error = status;
    return made;
}

CL_API_ENTRY cl_int CL_API_CALL clRetainContext(cl_context context)
{
    return stub_change_references(__func__, context, STUB_CONTEXT, CL_INVALID_CONTEXT, 1);
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseContext(cl_context context)
{
    return stub_change_references(__func__, context, STUB_CONTEXT, CL_INVALID_CONTEXT, -1);
}

CL_API_ENTRY cl_int CL_API_CALL clGetContextInfo(cl_context context, cl_context_info name, size_t room,
                                                 void *target, size_t *actual)
{
    cl_int status = stub_enter(__func__);
    const cl_uint one = 1;
    if (status == CL_SUCCESS && !stub_is(context, STUB_CONTEXT))
        status = stub_wrong(CL_INVALID_CONTEXT, __func__);
    else if (status == CL_SUCCESS && name == CL_CONTEXT_DEVICES)
        status = stub_answer(&context->device, sizeof(context->device), room, target, actual);
    else if (status == CL_SUCCESS && name == CL_CONTEXT_NUM_DEVICES)
        status = stub_answer(&one, sizeof(one), room, target, actual);
    else if (status == CL_SUCCESS)
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    stub_leave();
    return status;
}

CL_API_ENTRY cl_command_queue CL_API_CALL clCreateCommandQueue(cl_context context, cl_device_id device,
                                                               cl_command_queue_properties properties,
                                                               cl_int *error)
{
    cl_command_queue made = NULL;
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && (!stub_is(context, STUB_CONTEXT) || context->device != device))
        status = stub_wrong(CL_INVALID_CONTEXT, __func__);
    if (status == CL_SUCCESS) {
        made = stub_object_make(sizeof(*made), STUB_QUEUE, &context->object);
        status = made ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY;
    }
    if (made) {
        made->context = context;
        made->device = device;
        made->properties = properties;
    }
    stub_leave();
    if (error)
        *error = status;
    return made;
}

CL_API_ENTRY cl_int CL_API_CALL clRetainCommandQueue(cl_command_queue queue)
{
    return stub_change_references(__func__, queue, STUB_QUEUE, CL_INVALID_COMMAND_QUEUE, 1);
}

CL_API_ENTRY cl_int CL_API_CALL clReleaseCommandQueue(cl_command_queue queue)
{
    return stub_change_references(__func__, queue, STUB_QUEUE, CL_INVALID_COMMAND_QUEUE, -1);
}

CL_API_ENTRY cl_int CL_API_CALL clGetCommandQueueInfo(cl_command_queue queue, cl_command_queue_info name,
                                                      size_t room, void *target, size_t *actual)
{
    cl_int status = stub_enter(__func__);
    if (status == CL_SUCCESS && !stub_is(queue, STUB_QUEUE))
        status = stub_wrong(CL_INVALID_COMMAND_QUEUE, __func__);
    else if (status == CL_SUCCESS && name == CL_QUEUE_CONTEXT)
        status = stub_answer(&queue->context, sizeof(queue->context), room, target, actual);
    else if (status == CL_SUCCESS && name == CL_QUEUE_DEVICE)
        status = stub_answer(&queue->device, sizeof(queue->device), room, target, actual);
    else if (status == CL_SUCCESS && name == CL_QUEUE_PROPERTIES)
        status = stub_answer(&queue->properties, sizeof(queue->properties), room, target, actual);
    else if (status == CL_SUCCESS)
        status = stub_wrong(CL_INVALID_VALUE, __func__);
    stub_leave();
    return status;
}

static cl_int synchronise(const char *function, cl_command_queue queue)
{
    cl_int status = stub_enter(function);
    if (status == CL_SUCCESS && !stub_is(queue, STUB_QUEUE))
        status = stub_wrong(CL_INVALID_COMMAND_QUEUE, function);
    stub_leave();
    return status;
}

CL_API_ENTRY cl_int CL_API_CALL clFlush(cl_command_queue queue)
{
    return synchronise(__func__, queue);
}

CL_API_ENTRY cl_int CL_API_CALL clFinish(cl_command_queue queue)
{
    return synchronise(__func__, queue);
}
