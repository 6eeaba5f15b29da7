/* SPDX-License-Identifier: Apache-2.0 */
/** Tensors of other frameworks, through DLPack (https://dmlc.github.io/dlpack). No DLPack header is needed. */
#ifndef FASTATTN_DLPACK_H
#define FASTATTN_DLPACK_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Reads the layout of a DLTensor. Thread-safe.
 *
 * `dl_tensor` points to a DLTensor. A DLManagedTensor contains one as its `dl_tensor` member. `axes` names the axis of
 * it that is batch, head, row and dim, in this order; -1 is an axis that it lacks, which gets size 1. Each axis is
 * named once. NULL: its last axes are (batch, head, row, dim). A NULL `strides` means contiguous, as in DLPack.
 *
 * On success *tensor is filled. *data is the address of the first element, byte_offset included. *host is 1 if the CPU
 * can read the memory. If DLPack's data is a handle (OpenCL, Vulkan, Metal), *data is that handle. `data` and `host`
 * may be NULL; without `data`, the memory is not checked. Nothing is retained: the memory stays its owner's.
 *
 * FA_INVALID: NULL, wrong axes, a negative size, or data that is NULL, misaligned for its type, or carried out of
 * memory by byte_offset. FA_OUT_OF_MEMORY: sizes and strides that no memory holds. FA_UNSUPPORTED: a type that is no
 * fa_dtype, vector lanes, a stride that fa_tensor cannot express, or a byte_offset beside a handle. Nothing is written
 * on failure.
 */
FA_API fa_status fa_tensor_from_dlpack(const void *dl_tensor, const int axes[4], fa_tensor *tensor,
                                       void **data, int *host);

#ifdef __cplusplus
}
#endif
#endif
