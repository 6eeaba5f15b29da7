/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/opencl/opencl.h"
#include "core/context.h"
#include "core/status.h"

fa_status fa_cl_queue_create(fa_queue *queue)
{
    const fa_cl_device *device = fa_cl_device_of(queue->device);
    const fa_cl *cl = device->cl;
    fa_cl_queue *made = fa_alloc_zeroed(queue->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    cl_int error;
    made->timed = true;
    made->handle = cl->clCreateCommandQueue(device->context, device->id, CL_QUEUE_PROFILING_ENABLE, &error);
    if (error == CL_INVALID_QUEUE_PROPERTIES) {
        made->timed = false;
        made->handle = cl->clCreateCommandQueue(device->context, device->id, 0, &error);
    }
    if (error != CL_SUCCESS) {
        fa_release(queue->device->context, made, sizeof(*made));
        return fa_cl_fail(error, "clCreateCommandQueue");
    }
    queue->impl = made;
    return FA_OK;
}

void fa_cl_queue_keep(fa_queue *queue, cl_event first, cl_event last)
{
    const fa_cl *cl = fa_cl_device_of(queue->device)->cl;
    fa_cl_queue *q = queue->impl;
    if (q->first)
        (void)cl->clReleaseEvent(q->first);
    if (q->last && q->last != q->first)
        (void)cl->clReleaseEvent(q->last);
    q->first = first;
    q->last = last;
}

/* What became of the work behind an event: drivers may let clFinish succeed after a kernel that failed. */
static cl_int event_error(const fa_cl *cl, cl_event event)
{
    cl_int state = CL_COMPLETE;
    if (!event)
        return CL_SUCCESS;
    cl_int error = cl->clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(state), &state, NULL);
    return error != CL_SUCCESS ? error : state < 0 ? state : CL_SUCCESS;
}

fa_status fa_cl_queue_wait(fa_queue *queue)
{
    const fa_cl *cl = fa_cl_device_of(queue->device)->cl;
    const fa_cl_queue *q = queue->impl;
    cl_int error = cl->clFinish(q->handle);
    if (error == CL_SUCCESS)
        error = event_error(cl, q->first);
    if (error == CL_SUCCESS)
        error = event_error(cl, q->last);
    if (error == CL_SUCCESS)
        return FA_OK;
    /* Told once: the next wait speaks of what is enqueued from here on. */
    fa_cl_queue_keep(queue, NULL, NULL);
    return fa_cl_fail(error, "clFinish");
}

fa_status fa_cl_queue_seconds(fa_queue *queue, double *seconds)
{
    const fa_cl *cl = fa_cl_device_of(queue->device)->cl;
    const fa_cl_queue *q = queue->impl;
    fa_status status = fa_cl_queue_wait(queue);
    if (status != FA_OK)
        return status;
    if (!q->timed)
        return fa_fail(FA_UNSUPPORTED, "queue was made without CL_QUEUE_PROFILING_ENABLE");
    if (!q->first || !q->last)
        return fa_fail(FA_INVALID, "queue has run no plan yet");
    cl_ulong start = 0, end = 0;
    cl_int error =
        cl->clGetEventProfilingInfo(q->first, CL_PROFILING_COMMAND_START, sizeof(start), &start, NULL);
    if (error == CL_SUCCESS)
        error = cl->clGetEventProfilingInfo(q->last, CL_PROFILING_COMMAND_END, sizeof(end), &end, NULL);
    if (error == CL_PROFILING_INFO_NOT_AVAILABLE)
        return fa_fail(FA_UNSUPPORTED, "the driver has no times of the last run");
    if (error != CL_SUCCESS)
        return fa_cl_fail(error, "clGetEventProfilingInfo");
    *seconds = end > start ? (double)(end - start) * 1e-9 : 0;
    return FA_OK;
}

void fa_cl_queue_destroy(fa_queue *queue)
{
    fa_cl_queue *q = queue->impl;
    fa_cl_queue_keep(queue, NULL, NULL);
    (void)fa_cl_device_of(queue->device)->cl->clReleaseCommandQueue(q->handle);
    fa_release(queue->device->context, q, sizeof(*q));
}
