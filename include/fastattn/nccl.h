/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Transports over NCCL: sums, shifts and gathers of memory of GPUs. This header includes neither nccl.h nor cuda.h. It declares the
 * structs that their handles point to. The library is linked with neither: it opens libnccl.so.2, or what
 * FASTATTN_NCCL_LIBRARY names, and the CUDA driver, which must be those of the caller's handles. NCCL is any 2 that has
 * the calls it needs.
 */
#ifndef FASTATTN_NCCL_H
#define FASTATTN_NCCL_H

#include "transport.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ncclComm;
struct CUstream_st;

/**
 * Makes a transport over the caller's ncclComm_t, in the caller's stream; both are used as they are and must outlive
 * it, as `context` must. latency and bandwidth are 0, and the caller's to set: nothing measures device memory. The CUDA
 * context of the stream's device is current on the calling thread, as it is after cudaSetDevice(). The stream is
 * another one than that of what is computed meanwhile, and not the default stream. Data of allreduce, shift and
 * allgather_data lie in memory of that device (device_memory 1). A call enqueues, and looks at the stream until it is done: what
 * the data depend on has happened before. What allgather gathers passes through memory of the transport's own. It has
 * `events`: "cuda". What is enqueued waits in the stream for the event, and finish() looks at stream and communicator. A stream
 * of high priority lets sums begin among what is computed.
 *
 * After a time-out NCCL's kernel still waits on the device, and may yet write what was reduced, received or gathered: only the
 * caller's ncclCommAbort() ends it, before which the transport is not destroyed, and neither y nor a workspace is released. Time-outs hold for a
 * communicator that does not block (ncclConfig_t.blocking 0); one that does may also wait within a call while it
 * connects. No multicast, nor any other mode, is asked of NCCL.
 *
 * FA_INVALID: NULL; NCCL does not know the communicator; no context is current. FA_UNSUPPORTED: NCCL 2 or CUDA cannot
 * be opened; more than FA_MAX_RANKS ranks. FA_OUT_OF_MEMORY. *transport is NULL on failure. Destroy with
 * fa_transport_destroy(), with the same CUDA context current.
 */
FA_API fa_status fa_transport_create_nccl(fa_context *context, struct ncclComm *communicator,
                                          struct CUstream_st *stream, fa_transport **transport);

#ifdef __cplusplus
}
#endif
#endif
