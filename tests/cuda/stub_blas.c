/* SPDX-License-Identifier: Apache-2.0 */
/* The stub's cuBLAS: products of f32, in the host's memory, at once. */
#include "tests/cuda/stub_internal.h"

enum { SUCCESS = 0, INVALID = 7 };

EXPORT int cublasCreate_v2(void **handle);
EXPORT int cublasCreate_v2(void **handle)
{
    MAY_FAIL();
    *handle = stub_make(BLAS);
    return SUCCESS;
}

EXPORT int cublasDestroy_v2(void *handle);
EXPORT int cublasDestroy_v2(void *handle)
{
    stub_drop(handle, BLAS, "cublasDestroy");
    return SUCCESS;
}

EXPORT int cublasSetStream_v2(void *handle, CUstream stream);
EXPORT int cublasSetStream_v2(void *handle, CUstream stream)
{
    MAY_FAIL();
    if (!stub_check(handle, BLAS, "cublasSetStream"))
        return INVALID;
    ((object *)handle)->of = (object *)(void *)stream;
    return SUCCESS;
}

EXPORT int cublasGemmEx(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                        const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                        const void *beta, void *c, int type_c, int ldc, int compute, int algorithm);
EXPORT int cublasGemmEx(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                        const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                        const void *beta, void *c, int type_c, int ldc, int compute, int algorithm)
{
    MAY_FAIL();
    if (!stub_check(handle, BLAS, "cublasGemmEx") || !((const object *)handle)->of || op_a || op_b ||
        type_a || type_b || type_c || compute != 68 || algorithm != -1 || *(const float *)alpha != 1 ||
        *(const float *)beta != 0) {
        stub_misuse("cublasGemmEx");
        return INVALID;
    }
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            float sum = 0;
            for (int l = 0; l < k; l++)
                sum += ((const float *)a)[i + l * lda] * ((const float *)b)[l + j * ldb];
            ((float *)c)[i + j * ldc] = sum;
        }
    }
    return SUCCESS;
}
