/* SPDX-License-Identifier: Apache-2.0 */
/* Events that other streams wait for. */
#include "backends/cuda/cuda.h"
#include "core/status.h"

fa_status fa_cu_mark_create(fa_device *device, void **mark)
{
    const fa_cu *cu = fa_cu_device_of(device)->cu;
    CUevent event = NULL;
    FA_TRY(fa_cu_enter(device));
    const CUresult error = cu->cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
    fa_cu_leave(device);
    *mark = error == CUDA_SUCCESS ? event : NULL;
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, "cuEventCreate");
}

fa_status fa_cu_mark_put(fa_queue *queue, void *mark)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    FA_TRY(fa_cu_enter(queue->device));
    const CUresult error = cu->cuEventRecord(mark, ((const fa_cu_queue *)queue->impl)->stream);
    fa_cu_leave(queue->device);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, "cuEventRecord");
}

fa_status fa_cu_mark_wait(fa_queue *queue, void *mark)
{
    const fa_cu *cu = fa_cu_device_of(queue->device)->cu;
    FA_TRY(fa_cu_enter(queue->device));
    const CUresult error = cu->cuStreamWaitEvent(((const fa_cu_queue *)queue->impl)->stream, mark, 0);
    fa_cu_leave(queue->device);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(cu, error, "cuStreamWaitEvent");
}

void fa_cu_mark_destroy(fa_device *device, void *mark)
{
    if (fa_cu_enter(device) != FA_OK)
        return;
    (void)fa_cu_device_of(device)->cu->cuEventDestroy(mark);
    fa_cu_leave(device);
}
