/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CUDA driver and an NVRTC that compute no attention: they hand out objects, count them, check what they are handed back,
 * copy, do tasks in C, and fail when told to.
 */
#ifndef FASTATTN_TESTS_CUDA_STUB_H
#define FASTATTN_TESTS_CUDA_STUB_H

#include "backends/cuda/loader.h"

/* From now on the nth call of the function, from 1, returns `error`. NULL: none does. */
void stub_fail(const char *function, int nth, CUresult error);
/* Whether that call was made. */
int stub_has_failed(void);
/* The device's compute capability, ten times the major and the minor one; and how many devices there are. */
void stub_set_arch(int arch);
void stub_set_devices(int count);
/* An attribute's value instead of the usual one. */
void stub_set_attribute(int attribute, int value);
/* Makes the stream of a context of device 0, and destroys it; whether it is being captured. */
CUstream stub_stream(CUcontext context);
void stub_stream_destroy(CUstream stream);
void stub_capture(CUstream stream, int captures);
CUcontext stub_context(int device);
void stub_context_destroy(CUcontext context);
/* Where the last memory of so many bytes is; NULL: there is none. */
void *stub_address(size_t bytes);
/* Objects that exist, and contexts that are retained. */
long stub_live(void);
/* Calls that no driver has to bear: handles that are none, no current context, ranges outside of memory. */
long stub_misuses(void);
/* So far: kernels launched, their blocks of threads, events recorded, programs compiled. */
long stub_launches(void);
long stub_groups(void);
long stub_records(void);
long stub_compiles(void);
/* Which module the kernel is of that was launched last. */
uintptr_t stub_kernel(void);
/* Where the work lies that it was given. */
uintptr_t stub_work(void);

#endif
