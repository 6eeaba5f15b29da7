/* SPDX-License-Identifier: Apache-2.0 */
/* What a program has that uses OpenCL itself: the library that fastattn finds too, and a device of it. */
#ifndef FASTATTN_TESTS_OPENCL_DRIVER_H
#define FASTATTN_TESTS_OPENCL_DRIVER_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>

#define DRIVER_FUNCTIONS(X)  \
    X(clGetPlatformIDs)      \
    X(clGetDeviceIDs)        \
    X(clGetDeviceInfo)       \
    X(clCreateContext)       \
    X(clReleaseContext)      \
    X(clGetContextInfo)      \
    X(clCreateCommandQueue)  \
    X(clReleaseCommandQueue) \
    X(clGetCommandQueueInfo) \
    X(clCreateBuffer)        \
    X(clCreateSubBuffer)     \
    X(clReleaseMemObject)    \
    X(clGetMemObjectInfo)    \
    X(clEnqueueReadBuffer)   \
    X(clEnqueueWriteBuffer)  \
    X(clFinish)

typedef struct driver {
#define DRIVER_MEMBER(name) __typeof__(name) *name;
    DRIVER_FUNCTIONS(DRIVER_MEMBER)
#undef DRIVER_MEMBER
} driver;

/* The driver's functions and the first device with a compiler; NULL with the reason where there is none. */
const driver *driver_load(cl_device_id *device, const char **reason);

#endif
