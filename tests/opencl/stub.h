/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for libOpenCL.so: OpenCL 1.2 in plain host memory, with kernels that compute nothing. It counts
 * every call and every object alive, notices wrong use, and fails where a test says so. The library under
 * test finds it through FASTATTN_OPENCL_LIBRARY; a test links it too, for the functions below.
 *
 * STUB_DEVICES in the environment is a comma-separated list of its devices, "good" without it; the kinds
 * stand in stub_device.c.
 */
#ifndef FASTATTN_TESTS_OPENCL_STUB_H
#define FASTATTN_TESTS_OPENCL_STUB_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>

/*
 * The call of `function` after the next `after` ones returns `error`, once, and does nothing. "kernel" stands
 * for a kernel that is enqueued and then fails: its event tells of it, and clFinish() does not.
 */
void stub_fail(const char *function, int after, cl_int error);

/* The same, and from then on whatever touches the device fails so: only queries and releases still work. */
void stub_lose(const char *function, int after, cl_int error);

/* How often `function` was called; 0 for one that never was. */
int stub_calls(const char *function);

/* The functions called so far, in the order of their first call; NULL behind the last. */
const char *stub_function(int index);

/* Builds from source, not from a binary. */
int stub_compiled(void);

/* Objects alive (contexts, queues, memory, programs, kernels, events) and mappings. */
int stub_live(void);

/* The first wrong use of the API, such as a released handle or bytes outside a buffer; "": there was none. */
const char *stub_misuse(void);

/* How many bytes the log of a failed build has. Its last line is STUB_LOG_END. */
#define STUB_LOG_BYTES 20000
#define STUB_LOG_END "attention.cl:4711: error: this is where the log ends"

/* What a kernel leaves in the first byte of each buffer that it may write. */
#define STUB_MARK 0x4d

#endif
