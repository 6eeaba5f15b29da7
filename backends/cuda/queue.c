/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/cuda.h"
#include "core/context.h"
#include "core/status.h"

static void destroy_events(const fa_cu *cu, const fa_cu_queue *q)
{
    if (q->first)
        (void)cu->cuEventDestroy(q->first);
    if (q->last)
        (void)cu->cuEventDestroy(q->last);
}

fa_status fa_cu_queue_make(fa_queue *queue, CUstream stream, bool owned)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    fa_cu_queue *made = fa_alloc_zeroed(queue->device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->stream = stream;
    made->owned = owned;
    CUresult error = cu->cuEventCreate(&made->first, 0);
    if (error == CUDA_SUCCESS)
        error = cu->cuEventCreate(&made->last, 0);
    if (error != CUDA_SUCCESS) {
        destroy_events(cu, made);
        fa_release(queue->device->context, made, sizeof(*made));
        return fa_cu_fail(cu, error, "cuEventCreate");
    }
    queue->impl = made;
    return FA_OK;
}

/* A priority of streams; 0 is that of all others, and the driver takes the nearest that it has. */
enum { URGENT = -1 };

fa_status fa_cu_queue_create(fa_queue *queue)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    CUstream stream = NULL;
    fa_status status = fa_cu_enter(queue->device);
    if (status != FA_OK)
        return status;
    CUresult error = queue->urgent ? cu->cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, URGENT)
                                   : cu->cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    status = error == CUDA_SUCCESS ? fa_cu_queue_make(queue, stream, true)
                                   : fa_cu_fail(cu, error, "cuStreamCreate");
    if (status != FA_OK && stream)
        (void)cu->cuStreamDestroy(stream);
    fa_cu_leave(queue->device);
    return status;
}

fa_status fa_cu_queue_captures(const fa_queue *queue, bool *captures)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    const fa_cu_queue *q = queue->impl;
    int state = CU_STREAM_CAPTURE_STATUS_NONE;
    *captures = false;
    if (q->owned)
        return FA_OK;
    fa_status status = fa_cu_enter(queue->device);
    if (status != FA_OK)
        return status;
    CUresult error = cu->cuStreamIsCapturing(q->stream, &state);
    fa_cu_leave(queue->device);
    *captures = state != CU_STREAM_CAPTURE_STATUS_NONE;
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, "cuStreamIsCapturing");
}

fa_status fa_cu_queue_check(const fa_queue *queue)
{
    bool captures;
    FA_TRY(fa_cu_queue_captures(queue, &captures));
    return captures ? fa_fail(FA_UNSUPPORTED, "the queue's stream is being captured, and runs nothing")
                    : FA_OK;
}

fa_status fa_cu_queue_wait(fa_queue *queue)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    bool captures;
    fa_status status = fa_cu_queue_captures(queue, &captures);
    if (status != FA_OK || captures)
        return status;
    status = fa_cu_enter(queue->device);
    if (status != FA_OK)
        return status;
    fa_cu_queue *q = queue->impl;
    CUresult error = cu->cuStreamSynchronize(q->stream);
    q->spans = false;
    fa_cu_leave(queue->device);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, "cuStreamSynchronize");
}

fa_status fa_cu_queue_span(fa_queue *queue)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    fa_cu_queue *q = queue->impl;
    FA_TRY(fa_cu_enter(queue->device));
    const CUresult error = cu->cuEventRecord(q->first, q->stream);
    fa_cu_leave(queue->device);
    q->ran = false;
    q->spans = error == CUDA_SUCCESS;
    return q->spans ? FA_OK : fa_cu_fail(cu, error, "cuEventRecord");
}

fa_status fa_cu_queue_seconds(fa_queue *queue, double *seconds)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    const fa_cu_queue *q = queue->impl;
    float milliseconds = 0;
    fa_status status = fa_cu_queue_wait(queue);
    if (status != FA_OK)
        return status;
    if (!q->ran)
        return fa_fail(FA_INVALID, "queue has run no plan yet");
    status = fa_cu_enter(queue->device);
    if (status != FA_OK)
        return status;
    CUresult error = cu->cuEventElapsedTime(&milliseconds, q->first, q->last);
    fa_cu_leave(queue->device);
    if (error != CUDA_SUCCESS)
        return fa_cu_fail(cu, error, "cuEventElapsedTime");
    *seconds = (double)milliseconds * 1e-3;
    return FA_OK;
}

void fa_cu_queue_destroy(fa_queue *queue)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    fa_cu_queue *q = queue->impl;
    if (fa_cu_enter(queue->device) == FA_OK) {
        fa_cu_stages_destroy(cu, &q->stages);
        fa_cu_blas_destroy(q->blas);
        destroy_events(cu, q);
        if (q->owned)
            (void)cu->cuStreamDestroy(q->stream);
        fa_cu_leave(queue->device);
    }
    fa_release(queue->device->context, q, sizeof(*q));
}
