/* SPDX-License-Identifier: Apache-2.0 */
/* A transport over NCCL, by the ABI that libnccl.so.2 keeps. */
#include <fastattn/nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/context.h"
#include "core/library.h"
#include "core/status.h"

/* As nccl.h and cuda.h number them. */
enum { NCCL_SUCCESS = 0, NCCL_IN_PROGRESS = 7, NCCL_SUM = 0 };
enum { NCCL_CHAR = 0, NCCL_HALF = 6, NCCL_FLOAT = 7, NCCL_BFLOAT16 = 9 };
enum { CUDA_SUCCESS = 0, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NOT_READY = 600 };

typedef struct ncclComm *comm;
typedef struct CUstream_st *stream;
typedef struct CUctx_st *cu_context;
typedef struct CUevent_st *cu_event;
typedef uint64_t device_pointer;

#define NCCL_FUNCTIONS(X)                                                                             \
    X(CommCount, (comm c, int *count))                                                                \
    X(CommUserRank, (comm c, int *rank))                                                              \
    X(CommGetAsyncError, (comm c, int *result))                                                       \
    X(AllReduce, (const void *send, void *receive, size_t count, int type, int op, comm c, stream s)) \
    X(AllGather, (const void *send, void *receive, size_t count, int type, comm c, stream s))         \
    X(GroupStart, (void))                                                                             \
    X(GroupEnd, (void))                                                                               \
    X(Send, (const void *send, size_t count, int type, int peer, comm c, stream s))                   \
    X(Recv, (void *receive, size_t count, int type, int peer, comm c, stream s))

#define CUDA_FUNCTIONS(X)                                                                            \
    X(CtxGetCurrent, "cuCtxGetCurrent", (cu_context * context))                                      \
    X(CtxPushCurrent, "cuCtxPushCurrent_v2", (cu_context context))                                   \
    X(CtxPopCurrent, "cuCtxPopCurrent_v2", (cu_context * context))                                   \
    X(StreamQuery, "cuStreamQuery", (stream s))                                                      \
    X(StreamWaitEvent, "cuStreamWaitEvent", (stream s, cu_event event, unsigned flags))              \
    X(MemAlloc, "cuMemAlloc_v2", (device_pointer * memory, size_t bytes))                            \
    X(MemFree, "cuMemFree_v2", (device_pointer memory))                                              \
    X(MemAllocHost, "cuMemAllocHost_v2", (void **memory, size_t bytes))                              \
    X(MemFreeHost, "cuMemFreeHost", (void *memory))                                                  \
    X(CopyIn, "cuMemcpyHtoDAsync_v2", (device_pointer to, const void *from, size_t bytes, stream s)) \
    X(CopyOut, "cuMemcpyDtoHAsync_v2", (void *to, device_pointer from, size_t bytes, stream s))

#define NCCL_MEMBER(name, parameters) int(*name) parameters;
#define CUDA_MEMBER(name, symbol, parameters) int(*name) parameters;
static struct {
    const char *(*GetErrorString)(int result);
    NCCL_FUNCTIONS(NCCL_MEMBER)
} nccl;
static struct {
    CUDA_FUNCTIONS(CUDA_MEMBER)
} cuda;

#define NCCL_SYMBOL(name, parameters) {"nccl" #name, (size_t)((char *)&nccl.name - (char *)&nccl)},
#define CUDA_SYMBOL(name, symbol, parameters) {symbol, (size_t)((char *)&cuda.name - (char *)&cuda)},

static const char *const nccl_names[] = {"libnccl.so.2", NULL}, *const cuda_names[] = {"libcuda.so.1", NULL};
static fa_library nccl_library = {"FASTATTN_NCCL_LIBRARY", nccl_names, "NCCL", "expected 2.10 or later", ""};
static fa_library cuda_library = {"FASTATTN_CUDA_LIBRARY", cuda_names, "the CUDA driver",
                                  "expected CUDA 11.2 or later", ""};
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;

static void load(void)
{
    const fa_library_symbol of_nccl[] = {NCCL_SYMBOL(GetErrorString, ) NCCL_FUNCTIONS(NCCL_SYMBOL)},
                            of_cuda[] = {CUDA_FUNCTIONS(CUDA_SYMBOL)};
    loaded = fa_library_load(&nccl_library, of_nccl, sizeof(of_nccl) / sizeof(of_nccl[0]), &nccl) &&
             fa_library_load(&cuda_library, of_cuda, sizeof(of_cuda) / sizeof(of_cuda[0]), &cuda);
}

typedef struct end {
    fa_transport transport;
    const fa_context *context;
    comm communicator;
    stream stream;
    cu_context cu_context;
    /* What is gathered: of this rank, then of all. */
    size_t size;
    char *host; /* page-locked, so that copies do not wait */
    device_pointer device;
    bool lost;
    char why[128];
} end;

static fa_status lose(end *e, char *message, size_t message_size)
{
    if (!e->lost)
        (void)snprintf(e->why, sizeof(e->why), "%s", message);
    else
        (void)snprintf(message, message_size, "%s", e->why);
    e->lost = true;
    return FA_RANK_LOST;
}

static fa_status lose_nccl(end *e, const char *what, int result, char *message, size_t message_size)
{
    (void)snprintf(message, message_size, "%s: %s", what, nccl.GetErrorString(result));
    return lose(e, message, message_size);
}

static fa_status lose_cuda(end *e, const char *what, int result, char *message, size_t message_size)
{
    (void)snprintf(message, message_size, "%s: CUDA error %d", what, result);
    return lose(e, message, message_size);
}

/* A communicator that does not block has enqueued nothing yet where a call is in progress. */
static int state_of(const end *e, int result)
{
    if (result != NCCL_IN_PROGRESS && result != NCCL_SUCCESS)
        return result;
    const int error = nccl.CommGetAsyncError(e->communicator, &result);
    return error == NCCL_SUCCESS ? result : error;
}

static bool is_late(double deadline)
{
    (void)sched_yield();
    return fa_clock() >= deadline;
}

static fa_status tell_late(end *e, const char *what, double timeout, char *message, size_t message_size)
{
    (void)snprintf(message, message_size, "%s: another rank did not come within %g s", what, timeout);
    return lose(e, message, message_size);
}

/* Until NCCL has enqueued what it was given. */
static fa_status wait_for_nccl(end *e, const char *what, int result, double deadline, double timeout,
                               char *message, size_t message_size)
{
    while ((result = state_of(e, result)) == NCCL_IN_PROGRESS) {
        if (is_late(deadline))
            return tell_late(e, what, timeout, message, message_size);
    }
    return result == NCCL_SUCCESS ? FA_OK : lose_nccl(e, what, result, message, message_size);
}

static fa_status wait_for_stream(end *e, const char *what, double deadline, double timeout, char *message,
                                 size_t message_size)
{
    for (;;) {
        const int done = cuda.StreamQuery(e->stream), state = state_of(e, NCCL_SUCCESS);
        if (done == CUDA_SUCCESS)
            return FA_OK;
        if (done != CUDA_ERROR_NOT_READY)
            return lose_cuda(e, what, done, message, message_size);
        if (state != NCCL_SUCCESS && state != NCCL_IN_PROGRESS)
            return lose_nccl(e, what, state, message, message_size);
        if (is_late(deadline))
            return tell_late(e, what, timeout, message, message_size);
    }
}

/* Until what was enqueued is done. */
static fa_status wait_for_both(end *e, const char *what, int result, double deadline, double timeout,
                               char *message, size_t message_size)
{
    FA_TRY(wait_for_nccl(e, what, result, deadline, timeout, message, message_size));
    return wait_for_stream(e, what, deadline, timeout, message, message_size);
}

static const char reducing[] = "ncclAllReduce";

static fa_status enqueue_sum(end *e, fa_dtype dtype, void *data, int64_t count, double deadline,
                             double timeout, char *message, size_t message_size)
{
    const int type = dtype == FA_F32   ? NCCL_FLOAT
                     : dtype == FA_F16 ? NCCL_HALF
                                       : NCCL_BFLOAT16,
              result = nccl.AllReduce(data, data, (size_t)count, type, NCCL_SUM, e->communicator, e->stream);
    return wait_for_nccl(e, reducing, result, deadline, timeout, message, message_size);
}

static fa_status reduce(end *e, fa_dtype dtype, void *data, int64_t count, double timeout, char *message,
                        size_t message_size)
{
    const double deadline = fa_clock() + timeout;
    const fa_status status = enqueue_sum(e, dtype, data, count, deadline, timeout, message, message_size);
    return status == FA_OK ? wait_for_stream(e, reducing, deadline, timeout, message, message_size) : status;
}

static void drop(end *e)
{
    if (e->host)
        (void)cuda.MemFreeHost(e->host);
    if (e->device)
        (void)cuda.MemFree(e->device);
    e->host = NULL;
    e->device = 0;
    e->size = 0;
}

static fa_status grow(end *e, size_t size, char *message, size_t message_size)
{
    void *host = NULL;
    if (size <= e->size)
        return FA_OK;
    drop(e);
    if (cuda.MemAllocHost(&host, size) == CUDA_SUCCESS) {
        e->host = host;
        if (cuda.MemAlloc(&e->device, size) == CUDA_SUCCESS) {
            e->size = size;
            return FA_OK;
        }
        e->device = 0;
    }
    drop(e);
    (void)snprintf(message, message_size, "no page-locked or device memory for %zu bytes", size);
    return FA_OUT_OF_MEMORY;
}

static fa_status gather(end *e, const void *from, void *to, size_t bytes, double timeout, char *message,
                        size_t message_size)
{
    static const char what[] = "ncclAllGather";
    const double deadline = fa_clock() + timeout;
    const size_t all = bytes * (size_t)e->transport.ranks;
    if (bytes == 0)
        return FA_OK;
    fa_status status = grow(e, bytes + all, message, message_size);
    if (status != FA_OK) { /* of this rank alone: the others are in a gather that it does not come to */
        (void)lose(e, message, message_size);
        return status;
    }
    memcpy(e->host, from, bytes);
    int error = cuda.CopyIn(e->device, e->host, bytes, e->stream);
    if (error != CUDA_SUCCESS)
        return lose_cuda(e, "cuMemcpyHtoDAsync", error, message, message_size);
    /* Device pointers are addresses to NCCL. */
    const int result =
        nccl.AllGather((const void *)(uintptr_t)e->device, (void *)(uintptr_t)(e->device + bytes), bytes,
                       NCCL_CHAR, e->communicator, e->stream);
    status = wait_for_nccl(e, what, result, deadline, timeout, message, message_size);
    if (status != FA_OK)
        return status;
    error = cuda.CopyOut(e->host + bytes, e->device + bytes, all, e->stream);
    if (error != CUDA_SUCCESS)
        return lose_cuda(e, "cuMemcpyDtoHAsync", error, message, message_size);
    status = wait_for_stream(e, what, deadline, timeout, message, message_size);
    if (status == FA_OK)
        memcpy(to, e->host + bytes, all);
    return status;
}

static fa_status gather_data(end *e, const void *from, void *to, size_t bytes, double timeout, char *message,
                             size_t message_size)
{
    if (bytes == 0)
        return FA_OK;
    const double deadline = fa_clock() + timeout;
    const int result = nccl.AllGather(from, to, bytes, NCCL_CHAR, e->communicator, e->stream);
    return wait_for_both(e, "ncclAllGather", result, deadline, timeout, message, message_size);
}

/* One group, so that neither waits for the other. A group that was begun is ended, whatever it holds. */
static int enqueue_shift(const end *e, const void *from, void *to, size_t bytes)
{
    const int rank = e->transport.rank, ranks = e->transport.ranks;
    int result = nccl.GroupStart();
    if (result != NCCL_SUCCESS)
        return result;
    result = nccl.Send(from, bytes, NCCL_CHAR, (rank + 1) % ranks, e->communicator, e->stream);
    if (result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS)
        result = nccl.Recv(to, bytes, NCCL_CHAR, (rank + ranks - 1) % ranks, e->communicator, e->stream);
    const int ended = nccl.GroupEnd();
    return result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS ? ended : result;
}

static fa_status shift_all(end *e, const void *from, void *to, size_t bytes, double timeout, char *message,
                           size_t message_size)
{
    if (bytes == 0)
        return FA_OK;
    const double deadline = fa_clock() + timeout;
    const int result = enqueue_shift(e, from, to, bytes);
    return wait_for_both(e, "ncclSend and ncclRecv", result, deadline, timeout, message, message_size);
}

/* Calls come from any thread: each finds the context current. */
static fa_status enter(end *e, char *message, size_t message_size)
{
    if (e->lost)
        return lose(e, message, message_size);
    const int error = cuda.CtxPushCurrent(e->cu_context);
    return error == CUDA_SUCCESS ? FA_OK : lose_cuda(e, "cuCtxPushCurrent", error, message, message_size);
}

static void leave(void)
{
    cu_context before;
    (void)cuda.CtxPopCurrent(&before);
}

static fa_status allreduce(void *user, fa_dtype dtype, void *data, int64_t count, double timeout,
                           char *message, size_t message_size)
{
    end *e = user;
    FA_TRY(enter(e, message, message_size));
    const fa_status status = reduce(e, dtype, data, count, timeout, message, message_size);
    leave();
    return status;
}

static fa_status allgather(void *user, const void *from, void *to, size_t bytes, double timeout,
                           char *message, size_t message_size)
{
    end *e = user;
    FA_TRY(enter(e, message, message_size));
    const fa_status status = gather(e, from, to, bytes, timeout, message, message_size);
    leave();
    return status;
}

static fa_status allgather_data(void *user, const void *from, void *to, size_t bytes, double timeout,
                                char *message, size_t message_size)
{
    end *e = user;
    FA_TRY(enter(e, message, message_size));
    const fa_status status = gather_data(e, from, to, bytes, timeout, message, message_size);
    leave();
    return status;
}

static fa_status shift(void *user, const void *from, void *to, size_t bytes, double timeout, char *message,
                       size_t message_size)
{
    end *e = user;
    FA_TRY(enter(e, message, message_size));
    const fa_status status = shift_all(e, from, to, bytes, timeout, message, message_size);
    leave();
    return status;
}

static fa_status enqueue(void *user, fa_dtype dtype, void *data, int64_t count, void *event, double timeout,
                         char *message, size_t message_size)
{
    end *e = user;
    fa_status status = enter(e, message, message_size);
    if (status != FA_OK)
        return status;
    const int error = cuda.StreamWaitEvent(e->stream, event, 0);
    if (error == CUDA_SUCCESS)
        status = enqueue_sum(e, dtype, data, count, fa_clock() + timeout, timeout, message, message_size);
    else
        status = lose_cuda(e, "cuStreamWaitEvent", error, message, message_size);
    leave();
    return status;
}

static fa_status finish(void *user, double timeout, char *message, size_t message_size)
{
    end *e = user;
    FA_TRY(enter(e, message, message_size));
    const fa_status status =
        wait_for_stream(e, reducing, fa_clock() + timeout, timeout, message, message_size);
    leave();
    return status;
}

static void release(void *user)
{
    end *e = user;
    drop(e);
    fa_release(e->context, e, sizeof(*e));
}

static fa_status fill(end *e)
{
    int rank = 0, ranks = 0;
    int result = nccl.CommCount(e->communicator, &ranks);
    if (result == NCCL_SUCCESS)
        result = nccl.CommUserRank(e->communicator, &rank);
    if (result != NCCL_SUCCESS)
        return fa_fail(FA_INVALID, "communicator: NCCL says %s", nccl.GetErrorString(result));
    if (ranks > FA_MAX_RANKS)
        return fa_fail(FA_UNSUPPORTED, "communicator has %d ranks, at most %d are served", ranks,
                       FA_MAX_RANKS);
    if (cuda.CtxGetCurrent(&e->cu_context) != CUDA_SUCCESS || !e->cu_context)
        return fa_fail(FA_INVALID, "no CUDA context is current on this thread, expected the stream's");
    e->transport = (fa_transport){
        .struct_size = sizeof(e->transport),
        .name = "nccl",
        .user = e,
        .rank = rank,
        .ranks = ranks,
        .timeout = 30,
        .any_thread = 1,
        .device_memory = 1,
        .allreduce = allreduce,
        .allgather = allgather,
        .release = release,
        .shift = shift,
        .allgather_data = allgather_data,
        .events = "cuda",
        .enqueue = enqueue,
        .finish = finish,
    };
    return FA_OK;
}

fa_status fa_transport_create_nccl(fa_context *context, struct ncclComm *communicator,
                                   struct CUstream_st *cu_stream, fa_transport **transport)
{
    fa_clear_error();
    if (!transport)
        return fa_fail(FA_INVALID, "transport is NULL, expected where to store the new transport");
    *transport = NULL;
    if (!context || !communicator || !cu_stream)
        return fa_fail(FA_INVALID, "%s is NULL",
                       !context        ? "context"
                       : !communicator ? "communicator"
                                       : "stream");
    (void)pthread_once(&once, load);
    if (!loaded)
        return fa_fail(FA_UNSUPPORTED, "NCCL cannot be used: %s",
                       nccl_library.failure[0] ? nccl_library.failure : cuda_library.failure);
    end *e = fa_alloc_zeroed(context, sizeof(*e));
    if (!e)
        return FA_OUT_OF_MEMORY;
    e->context = context;
    e->communicator = communicator;
    e->stream = cu_stream;
    const fa_status status = fill(e);
    if (status == FA_OK)
        *transport = &e->transport;
    else
        fa_release(context, e, sizeof(*e));
    return status;
}
