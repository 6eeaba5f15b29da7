/* SPDX-License-Identifier: Apache-2.0 */
/* DLPack's stable ABI, as its documentation lays it out: versions 0.6 to 1.x, and 1.2's table of C functions. */
#ifndef FA_PY_DLPACK_ABI_H
#define FA_PY_DLPACK_ABI_H

#include <stdint.h>

enum { FA_DL_INT = 0, FA_DL_UINT = 1, FA_DL_FLOAT = 2, FA_DL_BFLOAT = 4, FA_DL_BOOL = 6 };
enum { FA_DL_E4M3FN = 10, FA_DL_E5M2 = 12, FA_DL_E8M0FNU = 14 };
enum { FA_DL_CPU = 1, FA_DL_CUDA = 2, FA_DL_CUDA_HOST = 3, FA_DL_ROCM_HOST = 11, FA_DL_CUDA_MANAGED = 13 };
enum { FA_DL_READ_ONLY = 1 };

typedef struct fa_py_dltensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} fa_py_dltensor;

/* In a capsule "dltensor". */
typedef struct fa_py_managed {
    fa_py_dltensor tensor;
    void *context;
    void (*deleter)(struct fa_py_managed *self);
} fa_py_managed;

/* In a capsule "dltensor_versioned". */
typedef struct fa_py_versioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct fa_py_versioned *self);
    uint64_t flags;
    fa_py_dltensor tensor;
} fa_py_versioned;

/* In a capsule "dlpack_exchange_api", the attribute __dlpack_c_exchange_api__ of a type. */
typedef struct fa_py_exchange {
    uint32_t major, minor;
    struct fa_py_exchange *older;
    int (*allocate)(fa_py_dltensor *prototype, fa_py_versioned **out, void *context,
                    void (*set_error)(void *context, const char *kind, const char *message));
    int (*from_object)(void *object, fa_py_versioned **out);
    int (*to_object)(fa_py_versioned *tensor, void **object);
    int (*view)(void *object, fa_py_dltensor *out); /* may be NULL */
    int (*stream)(int32_t device_type, int32_t device_id, void **stream);
} fa_py_exchange;

#endif
