/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which CUDA devices there are, what each offers, and why one cannot be used.
 *
 * FASTATTN_CUDA_LIMITS makes a device look smaller than it is, so that what a small one would run can be run on a large
 * one: a comma-separated list of
 *     arch=N          the compute capability, ten times the major and the minor one, that kernels are chosen for:
 *                     75 runs what a T4 would run
 *     shared=BYTES    shared memory of a block, at least 16384
 *     images=0        kernels that were compiled with the library are not used: all are compiled at run time
 * A value above the driver's changes nothing. With an unknown key or a bad number no CUDA device is available, and the
 * reason names it. It is read whenever a device is described or opened.
 */
#ifndef FA_CUDA_DESCRIBE_H
#define FA_CUDA_DESCRIBE_H

#include "backends/cuda/cuda.h"

/* What the driver says, lowered. False with the reason where a query fails or the device cannot run our kernels. */
bool fa_cu_caps_read(const fa_cu *cu, CUdevice id, fa_cu_caps *caps, char *reason, size_t reason_size);

/* Entries of the vtable. */
int fa_cu_device_count(const fa_context *context, char *reason, size_t reason_size);
void fa_cu_device_describe(const fa_context *context, int index, fa_device_info *info);

/*
 * Makes device->impl with everything but the kernels. `import` is the caller's context, or NULL for the
 * primary one. FA_NO_DEVICE where it cannot be used any more.
 */
fa_status fa_cu_device_start(fa_device *device, CUcontext import);

/* Releases it, and its modules. */
void fa_cu_device_stop(fa_device *device);

#endif
