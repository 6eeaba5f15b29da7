/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "backends/opencl/opencl.h"
#include "core/status.h"

/* Not in cl.h: the ICD loader's, and what NVIDIA's driver returns after a kernel went astray. */
#ifndef CL_PLATFORM_NOT_FOUND_KHR
#define CL_PLATFORM_NOT_FOUND_KHR -1001
#endif
#define CL_UNKNOWN_ERROR_NV -9999

#define ENTRY(name) \
    {               \
        name, #name \
    }

static const struct {
    cl_int error;
    const char *name;
} names[] = {
    ENTRY(CL_DEVICE_NOT_FOUND),
    ENTRY(CL_DEVICE_NOT_AVAILABLE),
    ENTRY(CL_COMPILER_NOT_AVAILABLE),
    ENTRY(CL_MEM_OBJECT_ALLOCATION_FAILURE),
    ENTRY(CL_OUT_OF_RESOURCES),
    ENTRY(CL_OUT_OF_HOST_MEMORY),
    ENTRY(CL_PROFILING_INFO_NOT_AVAILABLE),
    ENTRY(CL_MEM_COPY_OVERLAP),
    ENTRY(CL_BUILD_PROGRAM_FAILURE),
    ENTRY(CL_MAP_FAILURE),
    ENTRY(CL_MISALIGNED_SUB_BUFFER_OFFSET),
    ENTRY(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST),
    ENTRY(CL_COMPILE_PROGRAM_FAILURE),
    ENTRY(CL_LINKER_NOT_AVAILABLE),
    ENTRY(CL_LINK_PROGRAM_FAILURE),
    ENTRY(CL_INVALID_VALUE),
    ENTRY(CL_INVALID_DEVICE_TYPE),
    ENTRY(CL_INVALID_PLATFORM),
    ENTRY(CL_INVALID_DEVICE),
    ENTRY(CL_INVALID_CONTEXT),
    ENTRY(CL_INVALID_QUEUE_PROPERTIES),
    ENTRY(CL_INVALID_COMMAND_QUEUE),
    ENTRY(CL_INVALID_HOST_PTR),
    ENTRY(CL_INVALID_MEM_OBJECT),
    ENTRY(CL_INVALID_BINARY),
    ENTRY(CL_INVALID_BUILD_OPTIONS),
    ENTRY(CL_INVALID_PROGRAM),
    ENTRY(CL_INVALID_PROGRAM_EXECUTABLE),
    ENTRY(CL_INVALID_KERNEL_NAME),
    ENTRY(CL_INVALID_KERNEL_DEFINITION),
    ENTRY(CL_INVALID_KERNEL),
    ENTRY(CL_INVALID_ARG_INDEX),
    ENTRY(CL_INVALID_ARG_VALUE),
    ENTRY(CL_INVALID_ARG_SIZE),
    ENTRY(CL_INVALID_KERNEL_ARGS),
    ENTRY(CL_INVALID_WORK_DIMENSION),
    ENTRY(CL_INVALID_WORK_GROUP_SIZE),
    ENTRY(CL_INVALID_WORK_ITEM_SIZE),
    ENTRY(CL_INVALID_GLOBAL_OFFSET),
    ENTRY(CL_INVALID_EVENT_WAIT_LIST),
    ENTRY(CL_INVALID_EVENT),
    ENTRY(CL_INVALID_OPERATION),
    ENTRY(CL_INVALID_BUFFER_SIZE),
    ENTRY(CL_INVALID_GLOBAL_WORK_SIZE),
    ENTRY(CL_INVALID_PROPERTY),
    ENTRY(CL_PLATFORM_NOT_FOUND_KHR),
    ENTRY(CL_UNKNOWN_ERROR_NV),
};

const char *fa_cl_error_name(cl_int error)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].error == error)
            return names[i].name;
    }
    return "unknown error";
}

static fa_status status_of(cl_int error, const char *call)
{
    switch (error) {
    case CL_OUT_OF_RESOURCES:
        /* While waiting nothing is allocated any more: this is how drivers report a kernel that failed. */
        return strcmp(call, "clFinish") == 0 ? FA_DEVICE_LOST : FA_OUT_OF_MEMORY;
    case CL_OUT_OF_HOST_MEMORY:
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE: return FA_OUT_OF_MEMORY;
    case CL_INVALID_OPERATION: return FA_UNSUPPORTED;
    default: return FA_DEVICE_LOST;
    }
}

fa_status fa_cl_fail(cl_int error, const char *call)
{
    return fa_fail(status_of(error, call), "%s: %s (%d)", call, fa_cl_error_name(error), (int)error);
}
