/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which OpenCL devices there are, what each offers, and why one cannot be used.
 *
 * FASTATTN_OPENCL_LIMITS makes a device look smaller than it is, so that what a small one would run can be
 * run on a large one: a comma-separated list of
 *     local=BYTES     local memory of a work-group, at least 1024
 *     group=N         most work-items of a work-group, at least 1
 *     alloc=BYTES     most bytes of one cl_mem, at least 4096
 *     subgroups=0     no sub-group operations
 *     fp16=0          no arithmetic in f16
 *     unified=0       host and device memory are not shared: every transfer is a copy
 *     near=0          strides and places of keys take 64 bits, as those of the largest caches do
 * A value above the driver's changes nothing. With an unknown key or a bad number no OpenCL device is
 * available, and the reason names it. It is read whenever a device is described or opened.
 */
#ifndef FA_OPENCL_DESCRIBE_H
#define FA_OPENCL_DESCRIBE_H

#include "backends/opencl/opencl.h"

/* caps.c */

/* What the driver says. False with the reason where a query fails or the device cannot run our kernels. */
bool fa_cl_caps_query(const fa_cl *cl, cl_device_id id, fa_cl_caps *caps, char *reason, size_t reason_size);

/* Lowers it by FASTATTN_OPENCL_LIMITS. False with the reason: the variable is wrong, or too little is
 * left. */
bool fa_cl_caps_limit(fa_cl_caps *caps, char *reason, size_t reason_size);

/* Both. */
bool fa_cl_read_caps(const fa_cl *cl, cl_device_id id, fa_cl_caps *caps, char *reason, size_t reason_size);

/* describe.c: entries of the vtable */

/*
 * All devices of all platforms, usable or not, enumerated at the first call. A platform that fails counts
 * as a device that cannot be used. 0 with the reason: no library, no platform, no device. Thread-safe.
 */
int fa_cl_device_count(const fa_context *context, char *reason, size_t reason_size);
void fa_cl_device_describe(const fa_context *context, int index, fa_device_info *info);

/* The whole of `info` for a device that the caller names; index is -1 where the list above lacks it. */
void fa_cl_describe_id(const fa_cl *cl, cl_device_id id, fa_device_info *info);

/* fa_device_entry.import: the caller's context, and its device. */
typedef struct fa_cl_import {
    cl_context context;
    cl_device_id id;
} fa_cl_import;

/*
 * Makes device->impl with everything but the kernels: context (that of `import`, retained, or one of our
 * own), device, capabilities, lock. FA_NO_DEVICE where it cannot be used any more.
 */
fa_status fa_cl_device_start(fa_device *device, const fa_cl_import *import);

/* Releases it, and its programs. */
void fa_cl_device_stop(fa_device *device);

#endif
