/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ranks/stub_nccl.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/portable/format.h"

enum { SUCCESS = 0, INVALID = 4, IN_PROGRESS = 7, NOT_READY = 600, INVALID_CONTEXT = 201, OPS = 8 };
enum { HALF = 6, FLOAT = 7, BFLOAT16 = 9 };

enum { SHIFTED = 100 };

/* A copy, or where `comm` is given a collective; `type` 0 is a gather of bytes, SHIFTED one to the next rank. Or a wait
 * for `event`. */
typedef struct op {
    struct CUevent_st *event;
    struct ncclComm *comm;
    const void *from;
    void *to;
    size_t count;
    int type;
    bool came;
} op;

struct CUstream_st {
    op ops[OPS];
    int count;
};

struct CUevent_st {
    bool happened;
};

struct ncclComm {
    int rank, looks; /* that a call is still in progress for */
    op *call;        /* that it waits with */
    bool done;
};

struct CUctx_st {
    int unused;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ncclComm comms[STUB_MOST];
static struct CUstream_st streams[STUB_MOST];
static struct CUevent_st events[STUB_MOST];
static struct CUctx_st the_context;
static int ranks, looks, failure;
static long live;
static _Thread_local struct CUctx_st *stack[4];
static _Thread_local int depth;

static float load(int type, const void *from, size_t i)
{
    return type == FLOAT  ? ((const float *)from)[i]
           : type == HALF ? fa_f16_widen(((const uint16_t *)from)[i])
                          : fa_bf16_widen(((const uint16_t *)from)[i]);
}

static void store(int type, void *to, size_t i, float x)
{
    if (type == FLOAT)
        ((float *)to)[i] = x;
    else
        ((uint16_t *)to)[i] = (uint16_t)(type == HALF ? fa_f16_narrow(x) : fa_bf16_narrow(x));
}

static void sum_all(void)
{
    const op *first = comms[0].call;
    for (size_t i = 0; i < first->count; i++) {
        float sum = 0;
        for (int r = 0; r < ranks; r++)
            sum += load(first->type, comms[r].call->from, i);
        for (int r = 0; r < ranks; r++)
            store(first->type, comms[r].call->to, i, sum);
    }
}

static void gather_all(void)
{
    for (int r = 0; r < ranks; r++) {
        for (int from = 0; from < ranks; from++)
            memcpy((char *)comms[r].call->to + (size_t)from * comms[from].call->count, comms[from].call->from,
                   comms[from].call->count);
    }
}

static void shift_all(void)
{
    for (int r = 0; r < ranks; r++)
        memcpy(comms[r].call->to, comms[(r + ranks - 1) % ranks].call->from, comms[r].call->count);
}

/* Of a collective that is first in its stream. */
static void come(op *o)
{
    int came = 0;
    if (!o->came) {
        o->came = true;
        o->comm->call = o;
        o->comm->done = false;
    }
    for (int r = 0; r < ranks; r++)
        came += comms[r].call != NULL && !comms[r].done;
    if (came < ranks)
        return;
    if (o->type == SHIFTED)
        shift_all();
    else if (o->type)
        sum_all();
    else
        gather_all();
    for (int r = 0; r < ranks; r++)
        comms[r].done = true;
}

/* Whether the stream is through. */
static bool go_on(struct CUstream_st *s)
{
    while (s->count > 0) {
        op *o = &s->ops[0];
        if (o->event && !o->event->happened)
            return false;
        if (!o->event && !o->comm)
            memcpy(o->to, o->from, o->count);
        if (o->comm) {
            if (!o->came || !o->comm->done)
                come(o);
            if (!o->comm->done)
                return false;
            o->comm->call = NULL;
        }
        s->count--;
        memmove(s->ops, s->ops + 1, (size_t)s->count * sizeof(op));
    }
    return true;
}

static int enqueue(struct CUstream_st *s, op o)
{
    int result = depth > 0 && stack[depth - 1] == &the_context && s->count < OPS ? SUCCESS : INVALID_CONTEXT;
    (void)pthread_mutex_lock(&lock);
    if (result == SUCCESS)
        s->ops[s->count++] = o;
    (void)pthread_mutex_unlock(&lock);
    return result;
}

FA_API int cuStreamQuery(struct CUstream_st *s);
FA_API int cuStreamQuery(struct CUstream_st *s)
{
    (void)pthread_mutex_lock(&lock);
    const bool through = go_on(s);
    (void)pthread_mutex_unlock(&lock);
    return through ? SUCCESS : NOT_READY;
}

FA_API int cuStreamWaitEvent(struct CUstream_st *s, struct CUevent_st *event, unsigned flags);
FA_API int cuStreamWaitEvent(struct CUstream_st *s, struct CUevent_st *event, unsigned flags)
{
    return flags == 0 && event ? enqueue(s, (op){.event = event}) : 1;
}

FA_API int cuCtxGetCurrent(struct CUctx_st **context);
FA_API int cuCtxGetCurrent(struct CUctx_st **context)
{
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return SUCCESS;
}

FA_API int cuCtxPushCurrent_v2(struct CUctx_st *context);
FA_API int cuCtxPushCurrent_v2(struct CUctx_st *context)
{
    if (depth == 4)
        return INVALID_CONTEXT;
    stack[depth++] = context;
    return SUCCESS;
}

FA_API int cuCtxPopCurrent_v2(struct CUctx_st **context);
FA_API int cuCtxPopCurrent_v2(struct CUctx_st **context)
{
    if (depth == 0)
        return INVALID_CONTEXT;
    *context = stack[--depth];
    return SUCCESS;
}

static int allocate(void **memory, size_t bytes)
{
    *memory = malloc(bytes);
    (void)pthread_mutex_lock(&lock);
    live += *memory != NULL;
    (void)pthread_mutex_unlock(&lock);
    return *memory ? SUCCESS : 2;
}

static int release(void *memory)
{
    (void)pthread_mutex_lock(&lock);
    live--;
    (void)pthread_mutex_unlock(&lock);
    free(memory);
    return SUCCESS;
}

FA_API int cuMemAlloc_v2(uint64_t *memory, size_t bytes);
FA_API int cuMemAlloc_v2(uint64_t *memory, size_t bytes)
{
    void *made;
    const int result = allocate(&made, bytes);
    *memory = (uintptr_t)made;
    return result;
}

FA_API int cuMemFree_v2(uint64_t memory);
FA_API int cuMemFree_v2(uint64_t memory)
{
    return release((void *)(uintptr_t)memory);
}

FA_API int cuMemAllocHost_v2(void **memory, size_t bytes);
FA_API int cuMemAllocHost_v2(void **memory, size_t bytes)
{
    return allocate(memory, bytes);
}

FA_API int cuMemFreeHost(void *memory);
FA_API int cuMemFreeHost(void *memory)
{
    return release(memory);
}

FA_API int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, struct CUstream_st *s);
FA_API int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, struct CUstream_st *s)
{
    return enqueue(s, (op){.from = from, .to = (void *)(uintptr_t)to, .count = bytes});
}

FA_API int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, struct CUstream_st *s);
FA_API int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, struct CUstream_st *s)
{
    return enqueue(s, (op){.from = (const void *)(uintptr_t)from, .to = to, .count = bytes});
}

FA_API const char *ncclGetErrorString(int result);
FA_API const char *ncclGetErrorString(int result)
{
    return result == INVALID ? "invalid argument" : "remote process exited or there was a network error";
}

FA_API int ncclCommCount(struct ncclComm *c, int *count);
FA_API int ncclCommCount(struct ncclComm *c, int *count)
{
    *count = ranks;
    return c >= comms && c < comms + STUB_MOST ? SUCCESS : INVALID;
}

FA_API int ncclCommUserRank(struct ncclComm *c, int *rank);
FA_API int ncclCommUserRank(struct ncclComm *c, int *rank)
{
    *rank = c->rank;
    return SUCCESS;
}

FA_API int ncclCommGetAsyncError(struct ncclComm *c, int *result);
FA_API int ncclCommGetAsyncError(struct ncclComm *c, int *result)
{
    (void)pthread_mutex_lock(&lock);
    *result = failure ? failure : c->looks > 0 ? IN_PROGRESS : SUCCESS;
    c->looks -= c->looks > 0;
    (void)pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* A call that is in progress is not in the stream at once, as far as a caller may rely on. */
static int collect(op o, struct CUstream_st *s)
{
    (void)pthread_mutex_lock(&lock);
    o.comm->looks = looks;
    (void)pthread_mutex_unlock(&lock);
    const int result = enqueue(s, o) == SUCCESS ? SUCCESS : INVALID;
    return result == SUCCESS && looks > 0 ? IN_PROGRESS : result;
}

FA_API int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation,
                         struct ncclComm *c, struct CUstream_st *s);
FA_API int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation,
                         struct ncclComm *c, struct CUstream_st *s)
{
    if (operation != 0 || (type != HALF && type != FLOAT && type != BFLOAT16))
        return INVALID;
    return collect((op){.comm = c, .from = from, .to = to, .count = count, .type = type}, s);
}

FA_API int ncclAllGather(const void *from, void *to, size_t count, int type, struct ncclComm *c,
                         struct CUstream_st *s);
FA_API int ncclAllGather(const void *from, void *to, size_t count, int type, struct ncclComm *c,
                         struct CUstream_st *s)
{
    if (type > 1)
        return INVALID;
    return collect((op){.comm = c, .from = from, .to = to, .count = count}, s);
}

/* A group has one send and one receive, and is enqueued at its end. */
static _Thread_local op grouped;
static _Thread_local struct CUstream_st *grouped_stream;

FA_API int ncclGroupStart(void);
FA_API int ncclGroupStart(void)
{
    grouped = (op){.type = SHIFTED};
    return SUCCESS;
}

FA_API int ncclGroupEnd(void);
FA_API int ncclGroupEnd(void)
{
    return grouped.comm && grouped.from && grouped.to ? collect(grouped, grouped_stream) : INVALID;
}

FA_API int ncclSend(const void *from, size_t count, int type, int peer, struct ncclComm *c,
                    struct CUstream_st *s);
FA_API int ncclSend(const void *from, size_t count, int type, int peer, struct ncclComm *c,
                    struct CUstream_st *s)
{
    if (type > 1 || peer != (c->rank + 1) % ranks)
        return INVALID;
    grouped.comm = c;
    grouped.from = from;
    grouped.count = count;
    grouped_stream = s;
    return SUCCESS;
}

FA_API int ncclRecv(void *to, size_t count, int type, int peer, struct ncclComm *c, struct CUstream_st *s);
FA_API int ncclRecv(void *to, size_t count, int type, int peer, struct ncclComm *c, struct CUstream_st *s)
{
    if (type > 1 || peer != (c->rank + ranks - 1) % ranks || count != grouped.count || s != grouped_stream)
        return INVALID;
    grouped.to = to;
    return SUCCESS;
}

static void reset(int count, int in_progress)
{
    memset(comms, 0, sizeof(comms));
    memset(streams, 0, sizeof(streams));
    memset(events, 0, sizeof(events));
    for (int r = 0; r < STUB_MOST; r++)
        comms[r].rank = r;
    ranks = count;
    looks = in_progress;
    failure = 0;
}

static struct ncclComm *comm_of(int rank)
{
    return &comms[rank];
}

static struct CUstream_st *stream_of(int rank)
{
    return &streams[rank];
}

static struct CUevent_st *event_of(int rank)
{
    return &events[rank];
}

static void happen(struct CUevent_st *event)
{
    (void)pthread_mutex_lock(&lock);
    event->happened = true;
    (void)pthread_mutex_unlock(&lock);
}

static struct CUctx_st *context_of(void)
{
    return &the_context;
}

static void set_current(struct CUctx_st *context)
{
    stack[0] = context;
    depth = context ? 1 : 0;
}

static void set_error(int result)
{
    (void)pthread_mutex_lock(&lock);
    failure = result;
    (void)pthread_mutex_unlock(&lock);
}

static long live_of(void)
{
    return live;
}

const stub_nccl *stub_nccl_table(void)
{
    static const stub_nccl table = {reset,     comm_of, stream_of, context_of, set_current,
                                    set_error, live_of, event_of,  happen};
    return &table;
}
