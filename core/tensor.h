/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_TENSOR_H
#define FA_CORE_TENSOR_H

#include <fastattn/attention.h>
#include <stdbool.h>

#include "core/portable/format.h"

/*
 * Checks shape and strides, fills default strides; `name` is the field's, for the message. Then an axis of size 1 has
 * stride 0, and the last has 1; with `repeats_last` it may have 0, as given or because its size is 1. Of FA_BITMAP_F16 the last
 * has the bytes of a row.
 */
fa_status fa_tensor_normalise(fa_tensor *tensor, const char *name, bool repeats_last);

/* The same, with repeats_last, of a tensor whose elements are no part of a block: scales. */
fa_status fa_tensor_normalise_single(fa_tensor *tensor, const char *name);

/* As fa_tensor_span(), for a normalised tensor. */
fa_status fa_tensor_extent(const fa_tensor *tensor, const char *name, size_t *bytes);

/* No two elements share memory. Sufficient, and necessary for every layout that nests its axes. */
bool fa_tensor_is_injective(const fa_tensor *tensor);

/* FA_OK for a value of fa_dtype. Otherwise FA_INVALID; `name` is the field's. */
fa_status fa_dtype_check(fa_dtype dtype, const char *name);

/* FA_OK for one of them. */
fa_status fa_dtype_check_one(fa_dtype dtype, fa_dtype expected, const char *name);

/* FA_OK for f32, f16 and bf16. Otherwise FA_INVALID; `name` is the field's. */
fa_status fa_dtype_check_float(fa_dtype dtype, const char *name);

/* FA_OK for those and the formats of caches, codes alone included. */
fa_status fa_dtype_check_cache(fa_dtype dtype, const char *name);
/* Of FlashMLA's rows: whether the last axis has so many dims. FA_INVALID. */
fa_status fa_tensor_check_row(const fa_tensor *tensor, const char *name, int64_t dims);

/* Whether a description leaves the tensor out: its shape is all 0. */
static inline bool fa_tensor_is_absent(const fa_tensor *t)
{
    return t->shape[0] == 0 && t->shape[1] == 0 && t->shape[2] == 0 && t->shape[3] == 0;
}

/* The bytes of so many elements: of whole blocks, or of scales, which have a byte each where they lie in blocks. A part of a
 * row that is a block counts whole. */
static inline int64_t fa_dtype_bytes(fa_dtype dtype, int64_t elements)
{
    const int64_t block = fa_dtype_block(dtype), size = (int64_t)fa_dtype_size(dtype);
    if (FA_TYPE_IS_ROW((int)dtype))
        return (elements / block + (elements % block != 0)) * size;
    return elements / block * size + elements % block * size / block;
}

/* The bytes of a row of a normalised tensor. */
static inline int64_t fa_tensor_row_bytes(const fa_tensor *t)
{
    return FA_TYPE_PRUNES((int)t->dtype) ? t->stride[3] : fa_dtype_bytes(t->dtype, t->shape[3]);
}

/* The bytes of one element of a normalised tensor, on average. */
static inline double fa_tensor_mean_bytes(const fa_tensor *t)
{
    if (FA_TYPE_PRUNES((int)t->dtype) && t->shape[3] > 0)
        return (double)t->stride[3] / (double)t->shape[3];
    return (double)fa_dtype_size(t->dtype) / (double)fa_dtype_block(t->dtype);
}

bool fa_tensor_is_empty(const fa_tensor *tensor);

static inline int64_t fa_tensor_offset(const fa_tensor *t, int64_t b, int64_t h, int64_t r)
{
    return b * t->stride[0] + h * t->stride[1] + r * t->stride[2];
}

#endif
