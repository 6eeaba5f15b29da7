/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVIDIA's driver and run-time compiler, opened at run time: neither their libraries nor their headers are needed to
 * build. What of their interfaces is used is declared here, under the names and with the values they document.
 */
#ifndef FA_CUDA_LOADER_H
#define FA_CUDA_LOADER_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct _nvrtcProgram *nvrtcProgram;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_INVALID_IMAGE = 200,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,

    CU_DEVICE_ATTRIBUTE_CLOCK_RATE = 13, /* kHz */
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    CU_DEVICE_ATTRIBUTE_COMPUTE_MODE = 20,
    CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,       /* kHz */
    CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37, /* bits */
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81,
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,

    CU_COMPUTEMODE_PROHIBITED = 2,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9,
    CU_POINTER_ATTRIBUTE_RANGE_START_ADDR = 11,
    CU_POINTER_ATTRIBUTE_RANGE_SIZE = 12,
    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_DISABLE_TIMING = 2,
    CU_STREAM_CAPTURE_STATUS_NONE = 0,
    CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6,
};

/* How a kernel is launched: what cuLaunchKernel() is given, and attributes, each a number and a union of 64 bytes. */
typedef struct CUlaunchAttribute {
    int id;
    int padding;
    union {
        int allowed; /* of CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION */
        unsigned char bytes[64];
    } value;
} CUlaunchAttribute;
typedef struct CUlaunchConfig {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    CUstream stream;
    CUlaunchAttribute *attribute;
    unsigned attributes;
} CUlaunchConfig;

/* Functions that drivers before CUDA 11.8 have not: NULL there. */
#define FA_CUDA_OPTIONAL_FUNCTIONS(X)       \
    X(cuLaunchKernelEx, "cuLaunchKernelEx", \
      (const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra))

/* Every other function of the driver that is called: name, symbol, parameters. */
#define FA_CUDA_FUNCTIONS(X)                                                                            \
    X(cuInit, "cuInit", (unsigned flags))                                                               \
    X(cuGetErrorName, "cuGetErrorName", (CUresult error, const char **name))                            \
    X(cuDeviceGetCount, "cuDeviceGetCount", (int *count))                                               \
    X(cuDeviceGet, "cuDeviceGet", (CUdevice * device, int ordinal))                                     \
    X(cuDeviceGetName, "cuDeviceGetName", (char *name, int size, CUdevice device))                      \
    X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attribute, CUdevice device))       \
    X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t * bytes, CUdevice device))                       \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext * context, CUdevice device))     \
    X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice device))                     \
    X(cuCtxPushCurrent, "cuCtxPushCurrent_v2", (CUcontext context))                                     \
    X(cuCtxPopCurrent, "cuCtxPopCurrent_v2", (CUcontext * context))                                     \
    X(cuCtxGetDevice, "cuCtxGetDevice", (CUdevice * device))                                            \
    X(cuModuleLoadData, "cuModuleLoadData", (CUmodule * module, const void *image))                     \
    X(cuModuleUnload, "cuModuleUnload", (CUmodule module))                                              \
    X(cuModuleGetFunction, "cuModuleGetFunction",                                                       \
      (CUfunction * function, CUmodule module, const char *name))                                       \
    X(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction function, int attribute, int value))        \
    X(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr * memory, size_t bytes))                                \
    X(cuMemFree, "cuMemFree_v2", (CUdeviceptr memory))                                                  \
    X(cuMemAllocHost, "cuMemAllocHost_v2", (void **memory, size_t bytes))                               \
    X(cuMemFreeHost, "cuMemFreeHost", (void *memory))                                                   \
    X(cuMemcpyHtoD, "cuMemcpyHtoD_v2", (CUdeviceptr to, const void *from, size_t bytes))                \
    X(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2",                                                        \
      (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                                \
    X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2",                                                        \
      (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                                      \
    X(cuPointerGetAttribute, "cuPointerGetAttribute", (void *value, int attribute, CUdeviceptr memory)) \
    X(cuStreamCreate, "cuStreamCreate", (CUstream * stream, unsigned flags))                            \
    X(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream stream))                                         \
    X(cuStreamSynchronize, "cuStreamSynchronize", (CUstream stream))                                    \
    X(cuStreamCreateWithPriority, "cuStreamCreateWithPriority",                                         \
      (CUstream * stream, unsigned flags, int priority))                                                \
    X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream stream, CUevent event, unsigned flags))         \
    X(cuStreamIsCapturing, "cuStreamIsCapturing", (CUstream stream, int *status))                       \
    X(cuStreamGetCtx, "cuStreamGetCtx", (CUstream stream, CUcontext * context))                         \
    X(cuEventCreate, "cuEventCreate", (CUevent * event, unsigned flags))                                \
    X(cuEventDestroy, "cuEventDestroy_v2", (CUevent event))                                             \
    X(cuEventRecord, "cuEventRecord", (CUevent event, CUstream stream))                                 \
    X(cuEventSynchronize, "cuEventSynchronize", (CUevent event))                                        \
    X(cuEventElapsedTime, "cuEventElapsedTime", (float *milliseconds, CUevent start, CUevent end))      \
    X(cuLaunchKernel, "cuLaunchKernel",                                                                 \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,        \
       unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void **parameters,   \
       void **extra))

/* Likewise of the compiler, whose errors are numbers of their own. */
#define FA_NVRTC_FUNCTIONS(X)                                                                  \
    X(nvrtcVersion, "nvrtcVersion", (int *major, int *minor))                                  \
    X(nvrtcGetNumSupportedArchs, "nvrtcGetNumSupportedArchs", (int *count))                    \
    X(nvrtcGetSupportedArchs, "nvrtcGetSupportedArchs", (int *archs))                          \
    X(nvrtcCreateProgram, "nvrtcCreateProgram",                                                \
      (nvrtcProgram * program, const char *source, const char *name, int headers,              \
       const char *const *header_sources, const char *const *header_names))                    \
    X(nvrtcDestroyProgram, "nvrtcDestroyProgram", (nvrtcProgram * program))                    \
    X(nvrtcCompileProgram, "nvrtcCompileProgram",                                              \
      (nvrtcProgram program, int options, const char *const *option))                          \
    X(nvrtcGetCUBINSize, "nvrtcGetCUBINSize", (nvrtcProgram program, size_t * size))           \
    X(nvrtcGetCUBIN, "nvrtcGetCUBIN", (nvrtcProgram program, char *cubin))                     \
    X(nvrtcGetProgramLogSize, "nvrtcGetProgramLogSize", (nvrtcProgram program, size_t * size)) \
    X(nvrtcGetProgramLog, "nvrtcGetProgramLog", (nvrtcProgram program, char *log))

/* A pointer to each of them, under its own name: cu->cuStreamSynchronize(stream). */
#define FA_CUDA_MEMBER(name, symbol, parameters) CUresult(*name) parameters;
typedef struct fa_cu {
    FA_CUDA_FUNCTIONS(FA_CUDA_MEMBER)
    FA_CUDA_OPTIONAL_FUNCTIONS(FA_CUDA_MEMBER)
} fa_cu;
typedef struct fa_nvrtc {
    FA_NVRTC_FUNCTIONS(FA_CUDA_MEMBER)
} fa_nvrtc;
#undef FA_CUDA_MEMBER

/*
 * The functions of the one library of this process, opened at the first call and never closed: drivers leave threads
 * behind. The driver is what FASTATTN_CUDA_LIBRARY names, else libcuda.so.1, and is initialised; the compiler
 * FASTATTN_NVRTC_LIBRARY, else libnvrtc under its usual names. NULL with the reason where there is none, where it
 * lacks a function or where the driver does not start. Thread-safe.
 */
const fa_cu *fa_cu_load(char *reason, size_t reason_size);
const fa_nvrtc *fa_nvrtc_load(char *reason, size_t reason_size);

#endif
