/* SPDX-License-Identifier: Apache-2.0 */
/* Products by cuBLAS, which is opened at run time. */
#include <pthread.h>
#include <stdio.h>

#include "backends/cuda/cuda.h"
#include "core/environment.h"
#include "core/library.h"
#include "core/status.h"

#define BLAS_VARIABLE "FASTATTN_CUBLAS_LIBRARY"

/* As cublas_api.h and library_types.h number them. */
enum { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_ALLOC_FAILED = 3 };
enum { CUBLAS_OP_N = 0, CUBLAS_COMPUTE_32F = 68, CUBLAS_GEMM_DEFAULT = -1 };
enum { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14 };

typedef struct blas_functions {
    int (*cublasCreate)(void **handle);
    int (*cublasDestroy)(void *handle);
    int (*cublasSetStream)(void *handle, CUstream stream);
    int (*cublasGemmEx)(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                        const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                        const void *beta, void *c, int type_c, int ldc, int compute, int algorithm);
} blas_functions;

static const fa_library_symbol symbols[] = {
    {"cublasCreate_v2", offsetof(blas_functions, cublasCreate)},
    {"cublasDestroy_v2", offsetof(blas_functions, cublasDestroy)},
    {"cublasSetStream_v2", offsetof(blas_functions, cublasSetStream)},
    {"cublasGemmEx", offsetof(blas_functions, cublasGemmEx)},
};

static blas_functions blas;
static char file[64], failure[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A name at a time, to know which it was. The first failure is told: that of the newest. */
static void load(void)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    const char *forced = fa_environment(BLAS_VARIABLE);
    for (int i = 0; i < 2 && file[0] == '\0'; i++) {
        const char *const one[] = {names[i], NULL};
        fa_library l = {BLAS_VARIABLE, one, "cuBLAS", "expected 12 or later", ""};
        if (fa_library_load(&l, symbols, sizeof(symbols) / sizeof(symbols[0]), &blas))
            (void)snprintf(file, sizeof(file), "%s", forced && forced[0] ? forced : names[i]);
        else if (i == 0)
            (void)snprintf(failure, sizeof(failure), "%s", l.failure);
    }
}

const char *fa_cu_product_library(char *reason, size_t reason_size)
{
    (void)pthread_once(&once, load);
    if (file[0] != '\0')
        return file;
    (void)snprintf(reason, reason_size, "%s", failure);
    return NULL;
}

static fa_status fail(int error, const char *call)
{
    return fa_fail(error == CUBLAS_STATUS_ALLOC_FAILED ? FA_OUT_OF_MEMORY : FA_DEVICE_LOST,
                   "%s: cuBLAS status %d", call, error);
}

static fa_status open_handle(fa_cu_queue *q)
{
    void *made = NULL;
    int error = blas.cublasCreate(&made);
    if (error != CUBLAS_STATUS_SUCCESS)
        return fail(error, "cublasCreate");
    error = blas.cublasSetStream(made, q->stream);
    if (error != CUBLAS_STATUS_SUCCESS) {
        (void)blas.cublasDestroy(made);
        return fail(error, "cublasSetStream");
    }
    q->blas = made;
    return FA_OK;
}

static int type_of(fa_dtype dtype)
{
    return dtype == FA_F32 ? CUDA_R_32F : dtype == FA_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* Rows of y are columns to cuBLAS, whose matrices are column-major: y' = w' o'. */
static fa_status multiply(void *handle, const fa_device_product *p)
{
    const float one = 1, zero = 0;
    const int error = blas.cublasGemmEx(
        handle, CUBLAS_OP_N, CUBLAS_OP_N, (int)p->width, (int)p->rows, (int)p->inner, &one, p->w,
        type_of(p->factors), (int)p->w_stride, p->o, type_of(p->factors), (int)p->o_stride, &zero, p->y,
        type_of(p->y_type), (int)p->width, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return error == CUBLAS_STATUS_SUCCESS ? FA_OK : fail(error, "cublasGemmEx");
}

fa_status fa_cu_product_run(fa_queue *queue, const fa_device_product *product)
{
    fa_cu_queue *q = queue->impl;
    FA_TRY(fa_cu_enter(queue->device));
    fa_status status = q->blas ? FA_OK : open_handle(q);
    if (status == FA_OK)
        status = multiply(q->blas, product);
    fa_cu_leave(queue->device);
    return status;
}

void fa_cu_blas_destroy(void *handle)
{
    if (handle)
        (void)blas.cublasDestroy(handle);
}
