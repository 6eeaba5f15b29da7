/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/cuda/cuda.h"
#include "core/status.h"

const char *fa_cu_error_name(const fa_cu *cu, CUresult error)
{
    const char *name = NULL;
    return cu->cuGetErrorName(error, &name) == CUDA_SUCCESS && name ? name : "unknown error";
}

fa_status fa_cu_fail(const fa_cu *cu, CUresult error, const char *call)
{
    fa_status status = error == CUDA_ERROR_OUT_OF_MEMORY ? FA_OUT_OF_MEMORY : FA_DEVICE_LOST;
    return fa_fail(status, "%s: %s (%d)", call, fa_cu_error_name(cu, error), error);
}

fa_status fa_cu_bad_handle(const fa_cu *cu, CUresult error, const char *call, const char *field)
{
    switch (error) {
    case CUDA_ERROR_INVALID_VALUE:
    case CUDA_ERROR_INVALID_CONTEXT:
    case CUDA_ERROR_INVALID_HANDLE:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
        return fa_fail(FA_INVALID, "%s: %s: %s (%d)", field, call, fa_cu_error_name(cu, error), error);
    default: return fa_cu_fail(cu, error, call);
    }
}
