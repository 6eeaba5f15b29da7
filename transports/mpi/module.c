/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transport over an MPI communicator, built against any mpi.h of version 3.0 or later. A call starts what does not
 * block and looks after it until it is done or the time is over. MPI has no way to call a collective off: what was started
 * then may go on whenever the caller calls MPI, so it works on memory of its own, which stays.
 */
#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/portable/format.h"
#include "core/ranks/mpi_module.h"

/* MPI counts in ints. What is shifted is copied in pieces, so that the copy of a large block is small. */
enum { MOST_ELEMENTS = 1 << 28, MOST_SHIFTED = 1 << 22, TAG = 1957 };

typedef struct end {
    fa_transport transport;
    MPI_Comm communicator;
    MPI_Op sum_f16, sum_bf16;
    char *memory; /* what MPI reads and writes */
    size_t size;
    bool lost;
    char why[128];
    struct end *next; /* of those that are lost */
} end;

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* MPI has no types of 16 bits. Each sum of two is rounded. */
static void add_f16(void *in, void *inout, int *count, MPI_Datatype *type)
{
    const uint16_t *a = in;
    uint16_t *sum = inout;
    (void)type;
    for (int i = 0; i < *count; i++)
        sum[i] = (uint16_t)fa_f16_narrow(fa_f16_widen(a[i]) + fa_f16_widen(sum[i]));
}

static void add_bf16(void *in, void *inout, int *count, MPI_Datatype *type)
{
    const uint16_t *a = in;
    uint16_t *sum = inout;
    (void)type;
    for (int i = 0; i < *count; i++)
        sum[i] = (uint16_t)fa_bf16_narrow(fa_bf16_widen(a[i]) + fa_bf16_widen(sum[i]));
}

static fa_status tell_error(const char *what, int error, char *message, size_t message_size)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    (void)MPI_Error_string(error, text, &length);
    (void)snprintf(message, message_size, "%s: %s", what, text);
    return FA_RANK_LOST;
}

/* What has failed serves no more: ranks may stand at different collectives. */
static fa_status lose(end *e, fa_status status, const char *message)
{
    if (status != FA_OK && status != FA_UNSUPPORTED) {
        e->lost = true;
        (void)snprintf(e->why, sizeof(e->why), "%s", message);
    }
    return status;
}

/* Looks after what was started: often at first, then every 20 us, so that a processor is left to those who compute. */
static fa_status wait_for(MPI_Request *request, const char *what, double deadline, double timeout,
                          char *message, size_t message_size)
{
    enum { YIELDS = 200 };
    const struct timespec pause = {.tv_nsec = 20000};
    for (int turn = 0;; turn++) {
        int done = 0, error = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (error != MPI_SUCCESS)
            return tell_error(what, error, message, message_size);
        if (done)
            return FA_OK;
        if (now() >= deadline) {
            (void)snprintf(message, message_size, "%s: another rank did not come within %g s", what, timeout);
            return FA_RANK_LOST;
        }
        if (turn < YIELDS)
            (void)sched_yield();
        else
            (void)nanosleep(&pause, NULL);
    }
}

static fa_status grow(end *e, size_t size, char *message, size_t message_size)
{
    if (size <= e->size)
        return FA_OK;
    char *memory = realloc(e->memory, size);
    if (!memory) {
        (void)snprintf(message, message_size, "no host memory for %zu bytes", size);
        return FA_OUT_OF_MEMORY;
    }
    e->memory = memory;
    e->size = size;
    return FA_OK;
}

/* Errors come back while the library calls MPI, and not before and after. */
static MPI_Errhandler take_errors(const end *e)
{
    MPI_Errhandler before = MPI_ERRORS_ARE_FATAL;
    (void)MPI_Comm_get_errhandler(e->communicator, &before);
    (void)MPI_Comm_set_errhandler(e->communicator, MPI_ERRORS_RETURN);
    return before;
}

static void leave_errors(const end *e, MPI_Errhandler before)
{
    (void)MPI_Comm_set_errhandler(e->communicator, before);
    if (before != MPI_ERRORS_ARE_FATAL && before != MPI_ERRORS_RETURN)
        (void)MPI_Errhandler_free(&before);
}

static fa_status begin(const end *e, char *message, size_t message_size)
{
    if (!e->lost)
        return FA_OK;
    (void)snprintf(message, message_size, "%s", e->why);
    return FA_RANK_LOST;
}

static fa_status reduce(end *e, fa_dtype dtype, char *data, int64_t count, double timeout, char *message,
                        size_t message_size)
{
    const size_t size = dtype == FA_F32 ? sizeof(float) : sizeof(uint16_t);
    const double deadline = now() + timeout;
    const MPI_Datatype type = dtype == FA_F32 ? MPI_FLOAT : MPI_UINT16_T;
    const MPI_Op op = dtype == FA_F32 ? MPI_SUM : dtype == FA_F16 ? e->sum_f16 : e->sum_bf16;
    for (int64_t at = 0, n; at < count; at += n) {
        MPI_Request request;
        n = count - at < MOST_ELEMENTS ? count - at : MOST_ELEMENTS;
        const size_t bytes = (size_t)n * size;
        fa_status status = grow(e, bytes, message, message_size);
        if (status != FA_OK)
            return status;
        memcpy(e->memory, data + (size_t)at * size, bytes);
        const int error =
            MPI_Iallreduce(MPI_IN_PLACE, e->memory, (int)n, type, op, e->communicator, &request);
        if (error != MPI_SUCCESS)
            return tell_error("MPI_Iallreduce", error, message, message_size);
        status = wait_for(&request, "MPI_Iallreduce", deadline, timeout, message, message_size);
        if (status != FA_OK)
            return status;
        memcpy(data + (size_t)at * size, e->memory, bytes);
    }
    return FA_OK;
}

static fa_status gather(end *e, const void *from, void *to, size_t bytes, double timeout, char *message,
                        size_t message_size)
{
    const size_t all = bytes * (size_t)e->transport.ranks;
    MPI_Request request;
    if (bytes > INT_MAX || bytes > SIZE_MAX / ((size_t)e->transport.ranks + 1)) {
        (void)snprintf(message, message_size, "%zu bytes of each rank, at most %d are gathered", bytes,
                       INT_MAX);
        return FA_UNSUPPORTED;
    }
    fa_status status = grow(e, bytes + all, message, message_size);
    if (status != FA_OK || bytes == 0)
        return status;
    memcpy(e->memory + all, from, bytes);
    const int error = MPI_Iallgather(e->memory + all, (int)bytes, MPI_BYTE, e->memory, (int)bytes, MPI_BYTE,
                                     e->communicator, &request);
    if (error != MPI_SUCCESS)
        return tell_error("MPI_Iallgather", error, message, message_size);
    status = wait_for(&request, "MPI_Iallgather", now() + timeout, timeout, message, message_size);
    if (status == FA_OK)
        memcpy(to, e->memory, all);
    return status;
}

static fa_status shift_piece(end *e, const char *from, char *to, int bytes, double deadline, double timeout,
                             char *message, size_t message_size)
{
    const int rank = e->transport.rank, ranks = e->transport.ranks;
    MPI_Request received, sent;
    memcpy(e->memory + bytes, from, (size_t)bytes);
    int error =
        MPI_Irecv(e->memory, bytes, MPI_BYTE, (rank + ranks - 1) % ranks, TAG, e->communicator, &received);
    if (error != MPI_SUCCESS)
        return tell_error("MPI_Irecv", error, message, message_size);
    error = MPI_Isend(e->memory + bytes, bytes, MPI_BYTE, (rank + 1) % ranks, TAG, e->communicator, &sent);
    if (error != MPI_SUCCESS)
        return tell_error("MPI_Isend", error, message, message_size);
    fa_status status = wait_for(&received, "MPI_Irecv", deadline, timeout, message, message_size);
    if (status == FA_OK)
        status = wait_for(&sent, "MPI_Isend", deadline, timeout, message, message_size);
    if (status == FA_OK)
        memcpy(to, e->memory, (size_t)bytes);
    return status;
}

static fa_status shift_all(end *e, const char *from, char *to, size_t bytes, double timeout, char *message,
                           size_t message_size)
{
    const double deadline = now() + timeout;
    const size_t most = bytes < MOST_SHIFTED ? bytes : MOST_SHIFTED;
    fa_status status = grow(e, 2 * most, message, message_size);
    for (size_t at = 0, n; at < bytes && status == FA_OK; at += n) {
        n = bytes - at < most ? bytes - at : most;
        status = shift_piece(e, from + at, to + at, (int)n, deadline, timeout, message, message_size);
    }
    return status;
}

static fa_status allreduce(void *user, fa_dtype dtype, void *data, int64_t count, double timeout,
                           char *message, size_t message_size)
{
    end *e = user;
    fa_status status = begin(e, message, message_size);
    if (status != FA_OK)
        return status;
    const MPI_Errhandler before = take_errors(e);
    status = reduce(e, dtype, data, count, timeout, message, message_size);
    leave_errors(e, before);
    return lose(e, status, message);
}

static fa_status allgather(void *user, const void *from, void *to, size_t bytes, double timeout,
                           char *message, size_t message_size)
{
    end *e = user;
    fa_status status = begin(e, message, message_size);
    if (status != FA_OK)
        return status;
    const MPI_Errhandler before = take_errors(e);
    status = gather(e, from, to, bytes, timeout, message, message_size);
    leave_errors(e, before);
    return lose(e, status, message);
}

static fa_status shift(void *user, const void *from, void *to, size_t bytes, double timeout, char *message,
                       size_t message_size)
{
    end *e = user;
    fa_status status = begin(e, message, message_size);
    if (status != FA_OK)
        return status;
    const MPI_Errhandler before = take_errors(e);
    status = shift_all(e, from, to, bytes, timeout, message, message_size);
    leave_errors(e, before);
    return lose(e, status, message);
}

/* What a lost call may still read and write stays. */
static void keep(end *e)
{
    static end *_Atomic kept;
    end *before = kept;
    do
        e->next = before;
    while (!atomic_compare_exchange_weak(&kept, &before, e));
}

static void release(void *user)
{
    end *e = user;
    int finalised = 0;
    if (e->lost) {
        keep(e);
        return;
    }
    (void)MPI_Finalized(&finalised);
    if (!finalised) {
        (void)MPI_Op_free(&e->sum_f16);
        (void)MPI_Op_free(&e->sum_bf16);
    }
    free(e->memory);
    free(e);
}

static fa_status refuse(fa_status status, const char *why, char *message, size_t message_size)
{
    (void)snprintf(message, message_size, "%s", why);
    return status;
}

static fa_status check_mpi(char *message, size_t message_size)
{
    int initialised = 0, finalised = 0, length = 0;
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    (void)MPI_Initialized(&initialised);
    (void)MPI_Finalized(&finalised);
    if (initialised && !finalised)
        return FA_OK;
    (void)MPI_Get_library_version(version, &length);
    version[strcspn(version, "\n,")] = '\0';
    (void)snprintf(message, message_size,
                   "MPI is %s, expected between MPI_Init_thread() and MPI_Finalize() of %s, for which the "
                   "module was built",
                   finalised ? "finalised" : "not initialised", version);
    return FA_INVALID;
}

static fa_status fill(end *e, char *message, size_t message_size)
{
    int between = 0, rank = 0, ranks = 0, level = MPI_THREAD_SINGLE;
    (void)MPI_Comm_test_inter(e->communicator, &between);
    if (between)
        return refuse(FA_UNSUPPORTED, "communicator is an intercommunicator", message, message_size);
    (void)MPI_Comm_rank(e->communicator, &rank);
    (void)MPI_Comm_size(e->communicator, &ranks);
    (void)MPI_Query_thread(&level);
    if (ranks > FA_MAX_RANKS) {
        (void)snprintf(message, message_size, "communicator has %d ranks, at most %d are served", ranks,
                       FA_MAX_RANKS);
        return FA_UNSUPPORTED;
    }
    if (MPI_Op_create(add_f16, 1, &e->sum_f16) != MPI_SUCCESS)
        return refuse(FA_OUT_OF_MEMORY, "MPI_Op_create failed", message, message_size);
    if (MPI_Op_create(add_bf16, 1, &e->sum_bf16) != MPI_SUCCESS) {
        (void)MPI_Op_free(&e->sum_f16);
        return refuse(FA_OUT_OF_MEMORY, "MPI_Op_create failed", message, message_size);
    }
    e->transport = (fa_transport){
        .struct_size = sizeof(e->transport),
        .name = "mpi",
        .user = e,
        .rank = rank,
        .ranks = ranks,
        .timeout = 30,
        .any_thread = level >= MPI_THREAD_SERIALIZED,
        .allreduce = allreduce,
        .allgather = allgather,
        .release = release,
        .shift = shift,
    };
    return FA_OK;
}

fa_status fa_mpi_module_open(uint32_t abi, const void *communicator, fa_transport **made, char *message,
                             size_t message_size)
{
    if (abi != FA_MPI_MODULE_ABI) {
        (void)snprintf(message, message_size, "the module for MPI has ABI %d, the library %u",
                       FA_MPI_MODULE_ABI, abi);
        return FA_UNSUPPORTED;
    }
    fa_status status = check_mpi(message, message_size);
    if (status != FA_OK)
        return status;
    end *e = calloc(1, sizeof(*e));
    if (!e)
        return refuse(FA_OUT_OF_MEMORY, "no host memory for a transport", message, message_size);
    e->communicator = communicator ? *(const MPI_Comm *)communicator : MPI_COMM_WORLD;
    if (e->communicator == MPI_COMM_NULL)
        status = refuse(FA_INVALID, "communicator is MPI_COMM_NULL", message, message_size);
    else
        status = fill(e, message, message_size);
    if (status == FA_OK)
        *made = &e->transport;
    else
        free(e);
    return status;
}
