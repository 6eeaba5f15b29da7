/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL and the few functions of a CUDA driver that a transport calls, in host memory, as one library. Ranks are threads. Streams
 * are lists of what was enqueued, which cuStreamQuery() goes through: so a rank that does not come leaves the others' busy.
 */
#ifndef FASTATTN_TESTS_RANKS_STUB_NCCL_H
#define FASTATTN_TESTS_RANKS_STUB_NCCL_H

#include <fastattn/nccl.h>

enum { STUB_MOST = 4 };

typedef struct stub_nccl {
    /* Forgets all; then there are so many ranks. A call is in progress for as many looks at it as `looks` says. */
    void (*reset)(int ranks, int looks);
    struct ncclComm *(*comm)(int rank);
    struct CUstream_st *(*stream)(int rank);
    struct CUctx_st *(*context)(void);
    void (*set_current)(struct CUctx_st *context); /* of the calling thread */
    void (*set_error)(int result);                 /* what communicators say from now on */
    long (*live)(void);                            /* allocations */
    struct CUevent_st *(*event)(int rank);         /* which has not happened since reset() */
    void (*happen)(struct CUevent_st *event);
} stub_nccl;

FA_API const stub_nccl *stub_nccl_table(void);

#endif
