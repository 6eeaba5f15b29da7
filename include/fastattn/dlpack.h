/* SPDX-License-Identifier: Apache-2.0 */
/** Tensors of other frameworks, through DLPack (https://dmlc.github.io/dlpack). Needs no DLPack header. */
#ifndef FASTATTN_DLPACK_H
#define FASTATTN_DLPACK_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Reads the layout of a DLTensor.
 *
 * `dl_tensor` points to a DLTensor (not a DLManagedTensor; that one's `dl_tensor` member is one).
 * `axes` says which axis of it is batch, head, row and dim, -1 where it has none (taken as 1); NULL:
 * its last axes are (batch, head, row, dim) in that order. Every axis must be named once. A NULL `strides`
 * means contiguous, as DLPack says.
 * On success *tensor is filled, *data is the address of the first element (byte_offset added) and *host
 * is 1 when the memory can be read by the CPU. Nothing is retained; the memory stays its owner's. Where
 * DLPack's data is a handle (OpenCL, Vulkan, Metal), so is *data.
 *
 * FA_INVALID: NULL, axes wrong, a negative size, data that is NULL, misaligned for its type, or that a
 * byte_offset carries out of memory. FA_OUT_OF_MEMORY: sizes and strides that no memory holds. FA_UNSUPPORTED:
 * a type that is no fa_dtype, vector lanes, a stride that fa_tensor cannot express, a byte_offset beside a
 * handle. Nothing is written then. `host` and `data` may be NULL: what is not asked for is not checked.
 */
FA_API fa_status fa_tensor_from_dlpack(const void *dl_tensor, const int axes[4], fa_tensor *tensor,
                                       void **data, int *host);

#ifdef __cplusplus
}
#endif
#endif
