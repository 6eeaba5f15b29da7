/* SPDX-License-Identifier: Apache-2.0 */
/* The interop functions of a library that was built without OpenCL. */
#include <fastattn/opencl.h>

#include "core/status.h"

static fa_status absent(void)
{
    fa_clear_error();
    return fa_fail(FA_UNSUPPORTED, "this library was built without OpenCL");
}

fa_status fa_device_open_opencl(fa_context *context, struct _cl_context *cl_context,
                                struct _cl_device_id *cl_device, fa_device **device)
{
    (void)context;
    (void)cl_context;
    (void)cl_device;
    if (device)
        *device = NULL;
    return absent();
}

fa_status fa_queue_wrap_opencl(fa_device *device, struct _cl_command_queue *cl_queue, fa_queue **queue)
{
    (void)device;
    (void)cl_queue;
    if (queue)
        *queue = NULL;
    return absent();
}

fa_status fa_buffer_wrap_opencl(fa_device *device, struct _cl_mem *cl_mem, size_t offset, size_t size,
                                fa_buffer **buffer)
{
    (void)device;
    (void)cl_mem;
    (void)offset;
    (void)size;
    if (buffer)
        *buffer = NULL;
    return absent();
}
