/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenCL, opened at run time: nothing is linked against it, and nothing newer than OpenCL 1.2 is asked for.
 * Which library: FASTATTN_OPENCL_LIBRARY if that is set, else the ICD loader under its usual names.
 */
#ifndef FA_OPENCL_LOADER_H
#define FA_OPENCL_LOADER_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>
#include <stddef.h>

/* Every function that is called. */
#define FA_CL_FUNCTIONS(X)       \
    X(clGetPlatformIDs)          \
    X(clGetPlatformInfo)         \
    X(clGetDeviceIDs)            \
    X(clGetDeviceInfo)           \
    X(clCreateContext)           \
    X(clRetainContext)           \
    X(clReleaseContext)          \
    X(clGetContextInfo)          \
    X(clCreateCommandQueue)      \
    X(clRetainCommandQueue)      \
    X(clReleaseCommandQueue)     \
    X(clGetCommandQueueInfo)     \
    X(clCreateBuffer)            \
    X(clCreateSubBuffer)         \
    X(clRetainMemObject)         \
    X(clReleaseMemObject)        \
    X(clGetMemObjectInfo)        \
    X(clEnqueueReadBuffer)       \
    X(clEnqueueWriteBuffer)      \
    X(clEnqueueMapBuffer)        \
    X(clEnqueueUnmapMemObject)   \
    X(clCreateProgramWithSource) \
    X(clCreateProgramWithBinary) \
    X(clBuildProgram)            \
    X(clGetProgramInfo)          \
    X(clGetProgramBuildInfo)     \
    X(clReleaseProgram)          \
    X(clCreateKernel)            \
    X(clReleaseKernel)           \
    X(clSetKernelArg)            \
    X(clGetKernelWorkGroupInfo)  \
    X(clEnqueueNDRangeKernel)    \
    X(clFlush)                   \
    X(clFinish)                  \
    X(clGetEventInfo)            \
    X(clGetEventProfilingInfo)   \
    X(clReleaseEvent)

/* A pointer to each of them, under its own name: cl->clFinish(queue). */
typedef struct fa_cl {
#define FA_CL_MEMBER(name) __typeof__(name) *name;
    FA_CL_FUNCTIONS(FA_CL_MEMBER)
#undef FA_CL_MEMBER
} fa_cl;

/*
 * The functions of the one library of this process, opened at the first call and never closed: drivers leave
 * threads behind. NULL with the reason where there is none or where it lacks a function. Thread-safe.
 */
const fa_cl *fa_cl_load(char *reason, size_t reason_size);

#endif
