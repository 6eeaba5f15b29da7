/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ranks/transport.h"

#include <float.h>

#include "core/structs.h"

static fa_status check_seconds(const char *name, double value)
{
    if (!(value >= 0 && value <= DBL_MAX))
        return fa_fail(FA_INVALID, "transport.%s is %g, expected 0 or more", name, value);
    return FA_OK;
}

/* What reduces without the host is there as a whole, or not at all. */
static fa_status check_events(const fa_transport *t)
{
    if (!t->events && (t->enqueue || t->finish))
        return fa_fail(FA_INVALID, "transport.%s is given, expected NULL without events",
                       t->enqueue ? "enqueue" : "finish");
    if (!t->events)
        return FA_OK;
    if (!t->enqueue || !t->finish)
        return fa_fail(FA_INVALID, "transport.%s is NULL with events %s", t->enqueue ? "finish" : "enqueue",
                       t->events);
    if (!t->device_memory)
        return fa_fail(FA_INVALID, "transport.device_memory is 0, expected 1 with events %s", t->events);
    return FA_OK;
}

fa_status fa_transport_read(const fa_transport *theirs, fa_transport *ours)
{
    if (!theirs)
        return fa_fail(FA_INVALID, "transport is NULL");
    FA_TRY(fa_copy_struct(ours, sizeof(*ours), FA_TRANSPORT_0_1, theirs, "fa_transport"));
    if (!ours->allreduce || !ours->allgather)
        return fa_fail(FA_INVALID, "transport.%s is NULL", ours->allreduce ? "allgather" : "allreduce");
    FA_TRY(check_events(ours));
    if (ours->ranks < 1 || ours->ranks > FA_MAX_RANKS)
        return fa_fail(FA_INVALID, "transport.ranks is %d, expected 1 to %d", ours->ranks, FA_MAX_RANKS);
    if (ours->rank < 0 || ours->rank >= ours->ranks)
        return fa_fail(FA_INVALID, "transport.rank is %d, expected 0 to %d", ours->rank, ours->ranks - 1);
    if (!(ours->timeout > 0))
        return fa_fail(FA_INVALID, "transport.timeout is %g, expected more than 0", ours->timeout);
    FA_TRY(check_seconds("latency", ours->latency));
    FA_TRY(check_seconds("bandwidth", ours->bandwidth));
    if (!ours->name)
        ours->name = "transport";
    return FA_OK;
}

static fa_status tell(const fa_transport *t, fa_status status, const char *message)
{
    return status == FA_OK ? FA_OK : fa_fail(status, "%s, rank %d: %s", t->name, t->rank, message);
}

fa_status fa_allreduce(const fa_transport *t, fa_dtype dtype, void *data, int64_t count)
{
    char message[FA_MESSAGE_SIZE / 2] = "";
    return tell(t, t->allreduce(t->user, dtype, data, count, t->timeout, message, sizeof(message)), message);
}

fa_status fa_allgather(const fa_transport *t, const void *from, void *to, size_t bytes)
{
    char message[FA_MESSAGE_SIZE / 2] = "";
    return tell(t, t->allgather(t->user, from, to, bytes, t->timeout, message, sizeof(message)), message);
}

fa_status fa_allgather_data(const fa_transport *t, const void *from, void *to, size_t bytes)
{
    char message[FA_MESSAGE_SIZE / 2] = "";
    return tell(t, t->allgather_data(t->user, from, to, bytes, t->timeout, message, sizeof(message)),
                message);
}

fa_status fa_shift(const fa_transport *t, const void *from, void *to, size_t bytes)
{
    char message[FA_MESSAGE_SIZE / 2] = "";
    return tell(t, t->shift(t->user, from, to, bytes, t->timeout, message, sizeof(message)), message);
}

fa_status fa_enqueue_allreduce(const fa_transport *t, fa_dtype dtype, void *data, int64_t count, void *event)
{
    char message[FA_MESSAGE_SIZE / 2] = "";
    return tell(t, t->enqueue(t->user, dtype, data, count, event, t->timeout, message, sizeof(message)),
                message);
}

fa_status fa_finish_allreduces(const fa_transport *t)
{
    char message[FA_MESSAGE_SIZE / 2] = "";
    return tell(t, t->finish(t->user, t->timeout, message, sizeof(message)), message);
}

void fa_transport_destroy(fa_transport *transport)
{
    if (transport && transport->release)
        transport->release(transport->user);
}
