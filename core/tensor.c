/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tensor.h"

#include "core/size.h"
#include "core/status.h"

/* Of each fa_dtype: its name, elements and bytes of a block, and the multiple of bytes at which tensors begin. */
static const struct {
    const char *name;
    uint16_t block, size, align;
} types[] = {
    [FA_F32] = {"f32", 1, 4, 4},
    [FA_F16] = {"f16", 1, 2, 2},
    [FA_BF16] = {"bf16", 1, 2, 2},
    [FA_BOOL] = {"bool", 1, 1, 1},
    [FA_I32] = {"i32", 1, 4, 4},
    [FA_E4M3] = {"e4m3", 8, 8, 2},
    [FA_E5M2] = {"e5m2", 8, 8, 2},
    [FA_Q8_0] = {"q8_0", 32, 34, 2},
    [FA_Q4_0] = {"q4_0", 32, 18, 2},
    [FA_Q4_1] = {"q4_1", 32, 20, 2},
    [FA_Q5_0] = {"q5_0", 32, 22, 2},
    [FA_Q5_1] = {"q5_1", 32, 24, 2},
    [FA_IQ4_NL] = {"iq4_nl", 32, 18, 2},
    [FA_I8] = {"i8", 8, 8, 2},
    [FA_I4] = {"i4", 8, 4, 2},
    [FA_I2] = {"i2", 8, 2, 2},
    [FA_U8] = {"u8", 8, 8, 2},
    [FA_U4] = {"u4", 8, 4, 2},
    [FA_U2] = {"u2", 8, 2, 2},
    [FA_E2M1] = {"e2m1", 8, 4, 2},
    [FA_E8M0] = {"e8m0", 1, 1, 2},
    [FA_U1] = {"u1", 16, 2, 2},
    [FA_U2U1] = {"u2u1", 32, 6, 2},
    [FA_FP8_DS_MLA] = {"fp8_ds_mla", 576, 656, 4},
    [FA_BITMAP_F16] = {"bitmap_f16", 1, 1, 4},
};

static bool is_dtype(fa_dtype dtype)
{
    return (int)dtype >= 0 && (size_t)dtype < sizeof(types) / sizeof(types[0]);
}

int64_t fa_dtype_block(fa_dtype dtype)
{
    return is_dtype(dtype) ? types[dtype].block : 0;
}

size_t fa_dtype_size(fa_dtype dtype)
{
    return is_dtype(dtype) ? types[dtype].size : 0;
}

size_t fa_dtype_align(fa_dtype dtype)
{
    return is_dtype(dtype) ? types[dtype].align : 0;
}

const char *fa_dtype_name(fa_dtype dtype)
{
    return is_dtype(dtype) ? types[dtype].name : "unknown";
}

fa_status fa_dtype_check(fa_dtype dtype, const char *name)
{
    return is_dtype(dtype) ? FA_OK : fa_fail(FA_INVALID, "%s is %d, expected an fa_dtype", name, (int)dtype);
}

fa_status fa_dtype_check_one(fa_dtype dtype, fa_dtype expected, const char *name)
{
    FA_TRY(fa_dtype_check(dtype, name));
    if (dtype == expected)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %s, expected %s", name, fa_dtype_name(dtype), fa_dtype_name(expected));
}

fa_status fa_dtype_check_float(fa_dtype dtype, const char *name)
{
    FA_TRY(fa_dtype_check(dtype, name));
    if (dtype == FA_F32 || dtype == FA_F16 || dtype == FA_BF16)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %s, expected f32, f16 or bf16", name, fa_dtype_name(dtype));
}

fa_status fa_dtype_check_cache(fa_dtype dtype, const char *name)
{
    FA_TRY(fa_dtype_check(dtype, name));
    if (dtype != FA_BOOL && dtype != FA_I32 && dtype != FA_E8M0)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %s, expected f32, f16, bf16 or a format of caches", name,
                   fa_dtype_name(dtype));
}

fa_status fa_tensor_check_row(const fa_tensor *tensor, const char *name, int64_t dims)
{
    if (!FA_TYPE_IS_MLA((int)tensor->dtype) || tensor->shape[3] == dims)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.shape[3] is %lld, expected %lld with %s.dtype %s", name,
                   (long long)tensor->shape[3], (long long)dims, name, fa_dtype_name(tensor->dtype));
}

/* The bytes of a row that keeps so many of its elements. */
static int64_t pruned_bytes(int64_t dims, int64_t kept)
{
    return FA_BITMAP_BYTES(dims) + (2 * kept + 3) / 4 * 4;
}

/* Rows begin with a block, also those that are the first dims of one. */
static bool contiguous_strides(fa_tensor *tensor, int64_t block)
{
    const bool prunes = FA_TYPE_PRUNES((int)tensor->dtype);
    int64_t stride = 1;
    if (prunes && tensor->stride[3] == 0)
        tensor->stride[3] = pruned_bytes(tensor->shape[3], tensor->shape[3]);
    if (prunes)
        stride = tensor->stride[3];
    for (int axis = prunes ? 2 : 3; axis >= 0; axis--) {
        const int64_t size = tensor->shape[axis] > 0 ? tensor->shape[axis] : 1;
        tensor->stride[axis] = stride;
        if (!fa_mul_i64(stride, axis == 3 && size % block != 0 ? size / block * block + block : size,
                        &stride))
            return false;
    }
    return true;
}

fa_tensor fa_tensor_make(fa_dtype dtype, int64_t batch, int64_t heads, int64_t rows, int64_t dim)
{
    /* Strides stay 0, which means contiguous: a shape that overflows is refused where it is used. */
    return (fa_tensor){.dtype = dtype, .shape = {batch, heads, rows, dim}};
}

fa_tensor fa_tensor_make_bitmap(int64_t batch, int64_t heads, int64_t rows, int64_t dim, int64_t kept)
{
    fa_tensor made = fa_tensor_make(FA_BITMAP_F16, batch, heads, rows, dim), told = made;
    if (dim < 0 || dim > FA_MAX_HEAD_DIM || kept < 0 || kept > dim) {
        made.stride[3] = -1;
        return made;
    }
    told.stride[3] = pruned_bytes(dim, kept);
    return contiguous_strides(&told, 1) ? told : made; /* a shape that overflows does so where it is used */
}

bool fa_tensor_is_empty(const fa_tensor *tensor)
{
    for (int axis = 0; axis < 4; axis++) {
        if (tensor->shape[axis] == 0)
            return true;
    }
    return false;
}

static bool has_strides(const fa_tensor *tensor)
{
    return tensor->stride[0] != 0 || tensor->stride[1] != 0 || tensor->stride[2] != 0 ||
           tensor->stride[3] != 0;
}

/* Rows begin with a block and are whole blocks, or of FlashMLA's the part that is v. */
static fa_status check_blocks(const fa_tensor *tensor, const char *name, int64_t block)
{
    const bool is_mla = FA_TYPE_IS_MLA((int)tensor->dtype); /* of its dims fa_tensor_check_row() is asked */
    if (tensor->shape[3] % block != 0 && !is_mla)
        return fa_fail(FA_INVALID, "%s.shape[3] is %lld, expected a multiple of %lld, a block of %s", name,
                       (long long)tensor->shape[3], (long long)block, fa_dtype_name(tensor->dtype));
    for (int axis = 0; axis < 3; axis++) {
        if (tensor->shape[axis] > 1 && tensor->stride[axis] % block != 0)
            return fa_fail(FA_INVALID, "%s.stride[%d] is %lld, expected a multiple of %lld, a block of %s",
                           name, axis, (long long)tensor->stride[axis], (long long)block,
                           fa_dtype_name(tensor->dtype));
    }
    return FA_OK;
}

/* Rows that keep some of their elements have dims that all readers take at once. */
static fa_status check_pruned_dims(const fa_tensor *tensor, const char *name)
{
    const int64_t dims = tensor->shape[3];
    if (!FA_TYPE_PRUNES((int)tensor->dtype) || (dims % 8 == 0 && dims <= FA_MAX_HEAD_DIM))
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.shape[3] is %lld, expected a multiple of 8, at most %d, with %s.dtype %s",
                   name, (long long)dims, FA_MAX_HEAD_DIM, name, fa_dtype_name(tensor->dtype));
}

/* Their strides are bytes: the last one is of a row, which has room for two elements at least and for all at most. */
static fa_status check_pruned_strides(const fa_tensor *tensor, const char *name)
{
    const int64_t dims = tensor->shape[3], least = pruned_bytes(dims, dims > 0),
                  most = pruned_bytes(dims, dims);
    for (int axis = 0; axis < 3; axis++) {
        if (tensor->shape[axis] > 1 && tensor->stride[axis] % 4 != 0)
            return fa_fail(FA_INVALID,
                           "%s.stride[%d] is %lld bytes, expected a multiple of 4 with %s.dtype %s", name,
                           axis, (long long)tensor->stride[axis], name, fa_dtype_name(tensor->dtype));
    }
    if (tensor->stride[3] < least || tensor->stride[3] > most || tensor->stride[3] % 4 != 0)
        return fa_fail(
            FA_INVALID,
            "%s.stride[3] is %lld, expected the bytes of a row of %lld dims in %s, a multiple of 4 "
            "from %lld to %lld, with 1 to %lld elements",
            name, (long long)tensor->stride[3], (long long)dims, fa_dtype_name(tensor->dtype),
            (long long)least, (long long)most, (long long)dims);
    return FA_OK;
}

static fa_status normalise(fa_tensor *tensor, const char *name, bool repeats_last, int64_t block)
{
    const bool prunes = FA_TYPE_PRUNES((int)tensor->dtype);
    if (!is_dtype(tensor->dtype))
        return fa_fail(FA_INVALID, "%s.dtype is %d, expected an fa_dtype", name, (int)tensor->dtype);
    for (int axis = 0; axis < 4; axis++) {
        if (tensor->shape[axis] < 0)
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected at least 0", name, axis,
                           (long long)tensor->shape[axis]);
        if (tensor->stride[axis] < 0 && tensor->shape[axis] > 1 && !(prunes && axis == 3))
            return fa_fail(FA_INVALID, "%s.stride[%d] is %lld, expected at least 0", name, axis,
                           (long long)tensor->stride[axis]);
    }
    FA_TRY(check_blocks(tensor, name, block));
    FA_TRY(check_pruned_dims(tensor, name));
    bool given = has_strides(tensor), one = tensor->shape[3] == 1;
    if (given && !prunes && tensor->shape[3] > 1 && tensor->stride[3] != 1 &&
        !(repeats_last && tensor->stride[3] == 0))
        return fa_fail(FA_INVALID, "%s.stride[3] is %lld, expected 1 (or all four 0 for contiguous%s)", name,
                       (long long)tensor->stride[3], repeats_last ? ", or 0: repeated" : "");
    if (!given && !contiguous_strides(tensor, block))
        return fa_fail(FA_OUT_OF_MEMORY,
                       "%s.shape is %lld x %lld x %lld x %lld, more elements than fit in memory", name,
                       (long long)tensor->shape[0], (long long)tensor->shape[1], (long long)tensor->shape[2],
                       (long long)tensor->shape[3]);
    if (prunes)
        FA_TRY(check_pruned_strides(tensor, name));
    const bool empty = fa_tensor_is_empty(tensor);
    for (int axis = 0; axis < 3; axis++) {
        if (tensor->shape[axis] == 1 || empty) /* never stepped along, and products with it stay small */
            tensor->stride[axis] = 0;
    }
    if (!prunes)
        tensor->stride[3] = !repeats_last ? 1 : one ? 0 : tensor->stride[3];
    return FA_OK;
}

fa_status fa_tensor_normalise(fa_tensor *tensor, const char *name, bool repeats_last)
{
    return normalise(tensor, name, repeats_last, fa_dtype_block(tensor->dtype));
}

fa_status fa_tensor_normalise_single(fa_tensor *tensor, const char *name)
{
    return normalise(tensor, name, true, 1);
}

/* The same with an axis of bytes, where strides count those. */
static fa_tensor in_memory(const fa_tensor *tensor)
{
    fa_tensor t = *tensor;
    if (FA_TYPE_PRUNES((int)t.dtype)) {
        t.shape[3] = t.stride[3];
        t.stride[3] = 1;
    }
    return t;
}

fa_status fa_tensor_extent(const fa_tensor *tensor, const char *name, size_t *bytes)
{
    *bytes = 0;
    if (fa_tensor_is_empty(tensor))
        return FA_OK;
    const fa_tensor t = in_memory(tensor);
    size_t last = 1;
    for (int axis = 0; axis < 4; axis++) {
        if (!fa_grow(&last, (size_t)(t.shape[axis] - 1), (size_t)t.stride[axis]))
            return fa_fail(FA_OUT_OF_MEMORY, "%s: shape[%d] %lld with stride[%d] %lld overflows memory", name,
                           axis, (long long)tensor->shape[axis], axis, (long long)tensor->stride[axis]);
    }
    const size_t block = (size_t)fa_dtype_block(tensor->dtype), size = fa_dtype_size(tensor->dtype);
    size_t total = (size_t)fa_dtype_bytes(tensor->dtype, (int64_t)(last % block));
    if (!fa_grow(&total, last / block, size))
        return fa_fail(FA_OUT_OF_MEMORY, "%s: %zu elements of %s overflow memory", name, last,
                       fa_dtype_name(tensor->dtype));
    *bytes = total;
    return FA_OK;
}

fa_status fa_tensor_span(const fa_tensor *tensor, size_t *bytes)
{
    fa_clear_error();
    if (!tensor || !bytes)
        return fa_fail(FA_INVALID, "%s is NULL", tensor ? "bytes" : "tensor");
    fa_tensor copy = *tensor;
    fa_status status = copy.dtype == FA_E4M3 ? fa_tensor_normalise_single(&copy, "tensor")
                                             : fa_tensor_normalise(&copy, "tensor", true);
    return status == FA_OK ? fa_tensor_extent(&copy, "tensor", bytes) : status;
}

bool fa_tensor_is_injective(const fa_tensor *given)
{
    const fa_tensor t = in_memory(given), *const tensor = &t;
    if (fa_tensor_is_empty(given))
        return true;
    bool used[4] = {false};
    int64_t reach = 0; /* highest offset that the axes looked at so far can address */
    for (int step = 0; step < 4; step++) {
        int next = -1;
        for (int axis = 0; axis < 4; axis++) {
            if (!used[axis] && (next < 0 || tensor->stride[axis] < tensor->stride[next]))
                next = axis;
        }
        used[next] = true;
        if (tensor->shape[next] == 1)
            continue;
        if (tensor->stride[next] <= reach)
            return false;
        reach += (tensor->shape[next] - 1) * tensor->stride[next];
    }
    return true;
}
