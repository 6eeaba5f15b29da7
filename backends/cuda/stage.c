/* SPDX-License-Identifier: Apache-2.0 */
/* Copies to the device that the call does not wait for. */
#include "backends/cuda/cuda.h"

static CUresult wait_for(const fa_cu *cu, fa_cu_stages *s, int i)
{
    CUresult error = s->pending[i] ? cu->cuEventSynchronize(s->copied[i]) : CUDA_SUCCESS;
    s->pending[i] = s->pending[i] && error != CUDA_SUCCESS;
    return error;
}

/* Makes each as large as is needed, once all copies are over. *call names what failed, here and below. */
static CUresult grow(const fa_cu *cu, fa_cu_stages *s, size_t bytes, const char **call)
{
    CUresult error = CUDA_SUCCESS;
    void *memory = NULL;
    *call = "cuEventSynchronize";
    for (int i = 0; i < FA_CU_STAGES && error == CUDA_SUCCESS; i++)
        error = wait_for(cu, s, i);
    for (int i = 0; i < FA_CU_STAGES && error == CUDA_SUCCESS; i++) {
        *call = "cuEventCreate";
        if (!s->copied[i])
            error = cu->cuEventCreate(&s->copied[i], CU_EVENT_DISABLE_TIMING);
    }
    if (error != CUDA_SUCCESS)
        return error;
    *call = "cuMemAllocHost";
    error = cu->cuMemAllocHost(&memory, FA_CU_STAGES * bytes);
    if (error != CUDA_SUCCESS)
        return error;
    if (s->memory)
        (void)cu->cuMemFreeHost(s->memory);
    s->memory = memory;
    s->bytes = bytes;
    return CUDA_SUCCESS;
}

static CUresult take(const fa_cu *cu, fa_cu_stages *s, size_t size, const char **call)
{
    const size_t bytes = (size + 255) / 256 * 256;
    if (bytes > s->bytes)
        return grow(cu, s, bytes, call);
    *call = "cuEventSynchronize";
    return wait_for(cu, s, s->next);
}

static char *next_of(const fa_cu_stages *s)
{
    return s->memory + (size_t)s->next * s->bytes;
}

CUresult fa_cu_stages_take(const fa_cu *cu, fa_cu_stages *s, size_t size, void **memory, const char **call)
{
    const CUresult error = take(cu, s, size, call);
    if (error == CUDA_SUCCESS)
        *memory = next_of(s);
    return error;
}

CUresult fa_cu_stages_copy(const fa_cu *cu, fa_cu_stages *s, CUdeviceptr to, size_t size, CUstream stream,
                           const char **call)
{
    *call = "cuMemcpyHtoDAsync";
    CUresult error = cu->cuMemcpyHtoDAsync(to, next_of(s), size, stream);
    if (error != CUDA_SUCCESS)
        return error;
    *call = "cuEventRecord";
    error = cu->cuEventRecord(s->copied[s->next], stream);
    s->pending[s->next] = error == CUDA_SUCCESS;
    if (error != CUDA_SUCCESS) /* nothing else would tell when the memory is free */
        (void)cu->cuStreamSynchronize(stream);
    s->next = (s->next + 1) % FA_CU_STAGES;
    return error;
}

void fa_cu_stages_destroy(const fa_cu *cu, const fa_cu_stages *s)
{
    for (int i = 0; i < FA_CU_STAGES; i++) {
        if (s->pending[i])
            (void)cu->cuEventSynchronize(s->copied[i]);
        if (s->copied[i])
            (void)cu->cuEventDestroy(s->copied[i]);
    }
    if (s->memory)
        (void)cu->cuMemFreeHost(s->memory);
}
