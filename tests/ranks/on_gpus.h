/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For measurements on all GPUs of this machine: what they call of the CUDA runtime and of NCCL, which are opened at run
 * time. LIBNCCL and LIBCUDART in the environment name files where the loader does not find the libraries.
 */
#ifndef FA_TEST_ON_GPUS_H
#define FA_TEST_ON_GPUS_H

#include <fastattn/common.h>
#include <stddef.h>

struct ncclComm;

enum { MOST_GPUS = 8, NON_BLOCKING = 1, HIGH_PRIORITY = -5 };
enum { TO_HOST = 2, TO_DEVICE = 1 }; /* cudaMemcpyKind */

typedef struct CUstream_st *stream;
typedef struct CUevent_st *event;
typedef struct gpu_calls {
    int (*cudaGetDeviceCount)(int *count);
    int (*cudaSetDevice)(int device);
    int (*cudaMalloc)(void **memory, size_t bytes);
    int (*cudaFree)(void *memory);
    int (*cudaMemcpy)(void *to, const void *from, size_t bytes, int kind);
    int (*cudaStreamCreateWithPriority)(stream *s, unsigned flags, int priority);
    int (*cudaEventCreateWithFlags)(event *e, unsigned flags);
    int (*cudaEventRecord)(event e, stream s);
    int (*ncclCommInitAll)(struct ncclComm **comms, int count, const int *devices);
} gpu_calls;
extern gpu_calls api;

/* Says what failed, and ends the program. */
void stop(const char *what, int error);
/* Ends it where the library failed, as skipped where it serves no such thing here. */
void need(fa_status status);
/* The same of what gives 0 when it is done. */
#define NEED(call) ((call) == 0 ? (void)0 : stop(#call, -1))

/* Opens the libraries, and makes a communicator of each of `wanted` GPUs, or of all if it is 0 or too many. Returns how
 * many there are. Ends the program, as skipped, where a library or a GPU is missing. */
int open_gpus(int wanted, struct ncclComm *comms[MOST_GPUS]);

#endif
