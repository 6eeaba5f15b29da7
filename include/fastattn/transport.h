/* SPDX-License-Identifier: Apache-2.0 */
/** Transports: how ranks, which are the processes or threads that share a model, sum and gather what they computed. */
#ifndef FASTATTN_TRANSPORT_H
#define FASTATTN_TRANSPORT_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FA_MAX_RANKS 1024

/**
 * One rank's end of a group of ranks. It is plain data and a few functions, so that a caller whose framework has
 * collectives of its own fills one; fa_transport_create_mpi() and fa_transport_create_local() make the library's.
 *
 * The functions are collective: all ranks call the same ones, in the same order, with the same types and sizes;
 * enqueue() is an allreduce to the other ranks. They return when this rank has the result, or `timeout` seconds after
 * they were called. On failure they write a message of at most message_size bytes, its end included. FA_RANK_LOST: a
 * rank died or did not come in time; the memory of the call is not touched any more, and all later calls fail likewise.
 * Any other status is one that all ranks get from this call; what fails on one rank alone is FA_RANK_LOST, or another
 * status with which its transport is lost too.
 *
 * The library calls one function of a transport at a time. Several objects may use one transport, one after the other.
 * The struct is copied when an object is made from it, and `user` must outlive the object. Of a transport that the
 * library made, a caller may change timeout (30 seconds), latency and bandwidth before that.
 */
typedef struct fa_transport {
    size_t struct_size;    /* sizeof(fa_transport)                                                        */
    const char *name;      /* for messages, as "mpi"; it must live as long as `user`                      */
    void *user;            /* passed to the functions                                                     */
    int32_t rank, ranks;   /* this one's number, from 0 on; how many there are, 1 to FA_MAX_RANKS         */
    double timeout;        /* the most seconds that a call of the library's may take, above 0             */
    double latency;        /* an allreduce takes `latency` seconds + its bytes / `bandwidth`: what models */
    double bandwidth;      /* go by. 0, each: not known, and taken for 20 us and 10 GB/s                  */
    int32_t any_thread;    /* 1: each call may come from another thread. 0: all come from one: nothing is */
                           /* reduced while something is computed                                         */
    int32_t fixed_order;   /* 1: the order in which ranks are summed depends on nothing, so that an       */
                           /* element's sum does not depend on what else is summed with it                */
    int32_t device_memory; /* 1: `data` of allreduce lies in memory of a device, as what is shifted does.  */
                           /* 0: in host memory                                                           */

    /* Replaces `count` elements at `data`, of FA_F32, FA_F16 or FA_BF16, by the sum over ranks, in place. */
    fa_status (*allreduce)(void *user, fa_dtype dtype, void *data, int64_t count, double timeout,
                           char *message, size_t message_size);
    /* Gathers `bytes` bytes of each rank at `to`, in the order of ranks. Both lie in host memory, apart from each
     * other. */
    fa_status (*allgather)(void *user, const void *from, void *to, size_t bytes, double timeout,
                           char *message, size_t message_size);
    /* Releases `user`, for fa_transport_destroy(); NULL: the caller does. */
    void (*release)(void *user);
    /* Sends `bytes` bytes at `from` to the next rank, which is 0 behind the last, and receives as many of the one before
     * at `to`, apart from them. NULL: there are no rings over this transport. */
    fa_status (*shift)(void *user, const void *from, void *to, size_t bytes, double timeout, char *message,
                       size_t message_size);
    /* As allgather, but both lie where data of allreduce does. NULL: what lies on a device passes through host memory. */
    fa_status (*allgather_data)(void *user, const void *from, void *to, size_t bytes, double timeout,
                                char *message, size_t message_size);

    /* Whose events enqueue() waits for: "cuda", each a CUevent. NULL: enqueue and finish are NULL, and the host waits for
     * what is reduced. Else device_memory is 1. */
    const char *events;
    /* Enqueues an allreduce that begins when `event`, which is recorded, has happened, and those before are done. It waits
     * for no other rank, and returns; the event is not recorded again before finish() has returned. */
    fa_status (*enqueue)(void *user, fa_dtype dtype, void *data, int64_t count, void *event, double timeout,
                         char *message, size_t message_size);
    /* Returns when all that was enqueued is done. */
    fa_status (*finish)(void *user, double timeout, char *message, size_t message_size);
} fa_transport;

/** Destroys a transport that the library made and that no object uses any more. NULL is allowed. */
FA_API void fa_transport_destroy(fa_transport *transport);

/**
 * Measures latency and bandwidth: a few allreduces of f32, of 1 element and of 1 MiB, the fastest of each, and of all
 * ranks the slowest. Writes both to the struct, on every rank the same. Collective: all ranks call it. FA_INVALID:
 * NULL, or a field is wrong. FA_UNSUPPORTED: device_memory is 1, which the caller measures. FA_OUT_OF_MEMORY.
 * FA_RANK_LOST.
 */
FA_API fa_status fa_transport_measure(fa_context *context, fa_transport *transport);

/** Options of a group of threads. Zero means default. */
typedef struct fa_transport_local_desc {
    size_t struct_size; /* sizeof(fa_transport_local_desc)                                              */
    int32_t ranks;      /* 1 to FA_MAX_RANKS                                                            */
    double latency;     /* seconds that each call takes at least; 0: no more than it takes              */
    double bandwidth; /* bytes a second, that a call takes longer: latency + bytes / bandwidth; 0: no limit */
} fa_transport_local_desc;

/**
 * Makes a group of ranks that are threads of this process, such as one for each socket of a host, and stores the
 * transport of each rank in made[0] to made[ranks - 1]. One element is summed in the order of ranks, in f32, and
 * rounded once to its type. With latency and bandwidth a call sleeps until a link of that speed would be done: to try
 * out how a layer behaves on a slower one. A sleep that would end behind the time-out ends there, with FA_RANK_LOST.
 *
 * Destroy each with fa_transport_destroy(), when its rank is in no call. The context must outlive them. FA_INVALID:
 * NULL, or a field is wrong. FA_UNSUPPORTED: Windows. FA_OUT_OF_MEMORY. Nothing is made on failure: made[] is NULL.
 * Thread-safe.
 */
FA_API fa_status fa_transport_create_local(fa_context *context, const fa_transport_local_desc *desc,
                                           fa_transport **made);

/**
 * Makes a transport over an MPI communicator, which is used as it is: `communicator` is the address of the caller's
 * MPI_Comm; NULL: MPI_COMM_WORLD. The caller has initialised MPI, and keeps the communicator until the transport is
 * destroyed; no other collective may run on it while the library uses it, nor messages of the tag 1957. docs/ranks.md
 * says what MPI promises where a rank dies.
 *
 * The library is not linked with MPI. It opens a module that was built for one MPI, 3.0 or later: libfastattn-mpi.so,
 * as the loader finds libraries, or the file that FASTATTN_MPI_MODULE names. any_thread is 1 where MPI was initialised
 * with MPI_THREAD_SERIALIZED or more. With less than MPI_THREAD_MULTIPLE nothing else may call MPI while a layer runs,
 * its `project` included. Data pass through a copy of the module's own, as MPI may go on writing after a time-out; it
 * grows to the largest call, and is of malloc(). latency and bandwidth are 0 until they are measured or set.
 *
 * FA_INVALID: NULL; MPI is not initialised, or already finalised; no communicator. FA_UNSUPPORTED: there is no module,
 * or it is one of another version; an intercommunicator; more than FA_MAX_RANKS ranks. FA_OUT_OF_MEMORY. *transport is
 * NULL on failure. Destroy with fa_transport_destroy(). Thread-safe as far as MPI is.
 */
FA_API fa_status fa_transport_create_mpi(fa_context *context, const void *communicator,
                                         fa_transport **transport);

#ifdef __cplusplus
}
#endif
#endif
