/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/cuda.h"

fa_status fa_cu_enter(const fa_device *device)
{
    const fa_cu_device *d = fa_cu_device_of(device);
    CUresult error = d->cu->cuCtxPushCurrent(d->context);
    return error == CUDA_SUCCESS ? FA_OK : fa_cu_fail(d->cu, error, "cuCtxPushCurrent");
}

void fa_cu_leave(const fa_device *device)
{
    CUcontext popped;
    (void)fa_cu_device_of(device)->cu->cuCtxPopCurrent(&popped);
}
