/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/dlpack.h>

#include <stdbool.h>

#include "core/status.h"
#include "core/tensor.h"

/* DLPack's stable ABI, as its documentation lays it out (DLTensor, version 0.6 to 1.x). */
typedef struct dl_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} dl_tensor;

enum { DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_BFLOAT = 4, DL_BOOL = 6 };
enum { DL_CPU = 1, DL_CUDA_HOST = 3, DL_OPENCL = 4, DL_VULKAN = 7, DL_METAL = 8, DL_ROCM_HOST = 11 };

static fa_status read_type(const dl_tensor *dl, fa_dtype *dtype)
{
    if (dl->lanes != 1)
        return fa_fail(FA_UNSUPPORTED, "dl_tensor.dtype.lanes is %d, expected 1", dl->lanes);
    if (dl->code == DL_FLOAT && dl->bits == 32)
        *dtype = FA_F32;
    else if (dl->code == DL_FLOAT && dl->bits == 16)
        *dtype = FA_F16;
    else if (dl->code == DL_BFLOAT && dl->bits == 16)
        *dtype = FA_BF16;
    else if ((dl->code == DL_BOOL || dl->code == DL_UINT) && dl->bits == 8)
        *dtype = FA_BOOL;
    else
        return fa_fail(FA_UNSUPPORTED,
                       "dl_tensor.dtype is code %d with %d bits, expected f32, f16, bf16 or bool", dl->code,
                       dl->bits);
    return FA_OK;
}

static fa_status check_axes(const int axes[4], int32_t ndim)
{
    unsigned seen = 0;
    for (int axis = 0; axis < 4; axis++) {
        if (axes[axis] < -1 || axes[axis] >= ndim)
            return fa_fail(FA_INVALID, "axes[%d] is %d, expected -1 to %d", axis, axes[axis], (int)ndim - 1);
        if (axes[axis] < 0)
            continue;
        if (seen >> axes[axis] & 1)
            return fa_fail(FA_INVALID, "axes[%d] is %d, which another axis names already", axis, axes[axis]);
        seen |= 1u << axes[axis];
    }
    if (seen != (1u << ndim) - 1)
        return fa_fail(FA_INVALID, "axes name not every one of the tensor's %d axes", (int)ndim);
    return FA_OK;
}

static fa_status check_shape(const dl_tensor *dl)
{
    if (dl->ndim < 1 || dl->ndim > 4)
        return fa_fail(FA_INVALID, "dl_tensor.ndim is %d, expected 1 to 4", (int)dl->ndim);
    if (!dl->shape)
        return fa_fail(FA_INVALID, "dl_tensor.shape is NULL");
    for (int axis = 0; axis < dl->ndim; axis++) {
        if (dl->shape[axis] < 0)
            return fa_fail(FA_INVALID, "dl_tensor.shape[%d] is %lld, expected at least 0", axis,
                           (long long)dl->shape[axis]);
    }
    return FA_OK;
}

/* -1 when it overflows. */
static int64_t default_stride(const dl_tensor *dl, int axis)
{
    int64_t stride = 1;
    for (int inner = dl->ndim - 1; inner > axis; inner--) {
        if (__builtin_mul_overflow(stride, dl->shape[inner], &stride))
            return -1;
    }
    return stride;
}

/* There `data` is a handle, which an offset cannot be added to. */
static bool is_handle(const dl_tensor *dl)
{
    return dl->device_type == DL_OPENCL || dl->device_type == DL_VULKAN || dl->device_type == DL_METAL;
}

/* Where the first of `span` bytes lies. */
static fa_status find_data(const dl_tensor *dl, const fa_tensor *tensor, size_t span, void **data)
{
    const size_t element = fa_dtype_size(tensor->dtype);
    uintptr_t at = (uintptr_t)dl->data;
    if (is_handle(dl) && dl->byte_offset > 0)
        return fa_fail(
            FA_UNSUPPORTED,
            "dl_tensor.byte_offset is %llu, expected 0 on a device (type %d) whose data is a handle",
            (unsigned long long)dl->byte_offset, (int)dl->device_type);
    if (!dl->data && span > 0)
        return fa_fail(FA_INVALID, "dl_tensor.data is NULL, expected %zu bytes", span);
    if (dl->byte_offset > PTRDIFF_MAX || dl->byte_offset > UINTPTR_MAX - at ||
        span > UINTPTR_MAX - at - (uintptr_t)dl->byte_offset)
        return fa_fail(FA_INVALID,
                       "dl_tensor.byte_offset is %llu: %zu bytes behind it leave the memory there is",
                       (unsigned long long)dl->byte_offset, span);
    at += (uintptr_t)dl->byte_offset;
    if (!is_handle(dl) && span > 0 && at % element != 0)
        return fa_fail(
            FA_INVALID,
            "dl_tensor.byte_offset is %llu with data at %p, expected an address that is a multiple of %zu",
            (unsigned long long)dl->byte_offset, dl->data, element);
    *data = (void *)at;
    return FA_OK;
}

fa_status fa_tensor_from_dlpack(const void *dl_pointer, const int axes[4], fa_tensor *tensor, void **data,
                                int *host)
{
    fa_clear_error();
    if (!dl_pointer || !tensor)
        return fa_fail(FA_INVALID, "%s is NULL", dl_pointer ? "tensor" : "dl_tensor");
    const dl_tensor *dl = dl_pointer;
    fa_status status = check_shape(dl);
    if (status != FA_OK)
        return status;
    int standard[4];
    for (int axis = 0; axis < 4; axis++)
        standard[axis] = axis - 4 + dl->ndim >= 0 ? axis - 4 + dl->ndim : -1;
    if (!axes)
        axes = standard;
    fa_tensor made;
    status = check_axes(axes, dl->ndim);
    if (status == FA_OK)
        status = read_type(dl, &made.dtype);
    if (status != FA_OK)
        return status;
    for (int axis = 0; axis < 4; axis++) {
        int source = axes[axis];
        made.shape[axis] = source < 0 ? 1 : dl->shape[source];
        made.stride[axis] = source < 0 ? 1 : dl->strides ? dl->strides[source] : default_stride(dl, source);
        if (made.shape[axis] > 1 && made.stride[axis] < 0 && !dl->strides)
            return fa_fail(FA_OUT_OF_MEMORY, "dl_tensor.shape has more elements than fit in memory");
        if (made.shape[axis] > 1 && made.stride[axis] < 0)
            return fa_fail(FA_UNSUPPORTED, "dl_tensor.strides[%d] is %lld, expected at least 0", source,
                           (long long)made.stride[axis]);
        if (made.shape[axis] <= 1)
            made.stride[axis] = 1; /* never stepped along */
    }
    if (made.shape[3] > 1 && made.stride[3] != 1 && made.stride[3] != 0)
        return fa_fail(
            FA_UNSUPPORTED,
            "dl_tensor.strides[%d] is %lld, expected 1: the last axis must be contiguous, or 0: repeated",
            axes[3], (long long)made.stride[3]);
    if (made.stride[0] == 0 && made.stride[1] == 0 && made.stride[2] == 0 && made.stride[3] == 0)
        return fa_fail(
            FA_UNSUPPORTED,
            "dl_tensor.strides are all 0: one element repeated along every axis, expected axes of size 1");
    fa_tensor checked = made;
    status = fa_tensor_normalise(&checked, "dl_tensor", true);
    size_t span;
    void *found = NULL;
    if (status == FA_OK)
        status = fa_tensor_extent(&checked, "dl_tensor", &span);
    if (status == FA_OK && data)
        status = find_data(dl, &checked, span, &found);
    if (status != FA_OK)
        return status;
    *tensor = made;
    if (data)
        *data = found;
    if (host)
        *host =
            dl->device_type == DL_CPU || dl->device_type == DL_CUDA_HOST || dl->device_type == DL_ROCM_HOST;
    return FA_OK;
}
