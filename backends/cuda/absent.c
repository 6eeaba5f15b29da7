/* SPDX-License-Identifier: Apache-2.0 */
/* The interop functions of a library that was built without CUDA. */
#include <fastattn/cuda.h>

#include "core/status.h"

static fa_status absent(void)
{
    fa_clear_error();
    return fa_fail(FA_UNSUPPORTED, "this library was built without CUDA");
}

fa_status fa_device_open_cuda(fa_context *context, struct CUctx_st *cu_context, fa_device **device)
{
    (void)context;
    (void)cu_context;
    if (device)
        *device = NULL;
    return absent();
}

fa_status fa_queue_wrap_cuda(fa_device *device, struct CUstream_st *cu_stream, fa_queue **queue)
{
    (void)device;
    (void)cu_stream;
    if (queue)
        *queue = NULL;
    return absent();
}

fa_status fa_buffer_wrap_cuda(fa_device *device, uint64_t cu_pointer, size_t size, fa_buffer **buffer)
{
    (void)device;
    (void)cu_pointer;
    (void)size;
    if (buffer)
        *buffer = NULL;
    return absent();
}
