/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are threads of one process: each call is a round, for which all meet, share the work, and part. */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/half.h"
#include "core/portable/lang.h"
#include "core/ranks/transport.h"
#include "core/structs.h"

enum { REDUCE, GATHER, SHIFT };

typedef struct call {
    int kind;
    fa_dtype dtype; /* of what is reduced */
    int64_t count;  /* of elements, or of bytes */
    void *to;
    const void *from;
} call;

typedef struct group group;

typedef struct member {
    fa_transport end;
    group *group;
    call call;
    bool here; /* has come to the next round */
} member;

struct group {
    const fa_context *context;
    size_t bytes;
    int32_t ranks, ends; /* `ends` are not destroyed */
    double latency, bandwidth;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t came, working;    /* to the next round; in the one that has begun */
    uint64_t begun, finished; /* numbers of rounds */
    double ready;             /* when the link is done with the round that has begun */
    bool broken;
    char why[128];      /* it is broken */
    char mismatch[128]; /* of the round that has begun; "" if calls are alike */
    member member[];
};

static const char *name_of(const call *c)
{
    static const char *const names[] = {"allreduce", "allgather", "shift"};
    return names[c->kind];
}

static const char *unit_of(const call *c)
{
    return c->kind == REDUCE ? fa_dtype_name(c->dtype) : "bytes";
}

/* Calls of the round that begins. A transport does not compare what objects agreed on; this one can. */
static void compare_calls(group *g)
{
    const call *first = &g->member[0].call;
    g->mismatch[0] = '\0';
    for (int32_t i = 1; i < g->ranks && g->mismatch[0] == '\0'; i++) {
        const call *other = &g->member[i].call;
        if (other->kind != first->kind || other->dtype != first->dtype || other->count != first->count)
            (void)snprintf(g->mismatch, sizeof(g->mismatch),
                           "%s of %lld %s on rank 0, %s of %lld %s on rank %d", name_of(first),
                           (long long)first->count, unit_of(first), name_of(other), (long long)other->count,
                           unit_of(other), i);
    }
}

static double seconds_of(const group *g, const call *c)
{
    const double bytes = (double)c->count * (c->kind == REDUCE ? (double)fa_dtype_size(c->dtype) : 1);
    return g->latency + (g->bandwidth > 0 ? bytes / g->bandwidth : 0);
}

static void begin_round(group *g)
{
    compare_calls(g);
    g->ready = fa_clock() + seconds_of(g, &g->member[0].call);
    g->came = 0;
    g->working = g->ranks;
    for (int32_t i = 0; i < g->ranks; i++)
        g->member[i].here = false;
    g->begun++;
    (void)pthread_cond_broadcast(&g->changed);
}

/* Under the lock. What is broken stays so. */
static void give_up(group *g, const char *why)
{
    if (!g->broken)
        (void)snprintf(g->why, sizeof(g->why), "%s", why);
    g->broken = true;
    (void)pthread_cond_broadcast(&g->changed);
}

static void give_up_waiting(group *g, double timeout)
{
    char why[sizeof(g->why)];
    int32_t missing = 0;
    while (missing < g->ranks - 1 && g->member[missing].here)
        missing++;
    (void)snprintf(why, sizeof(why), "rank %d did not come within %g s", missing, timeout);
    give_up(g, why);
}

/* Waits for all ranks; false where they do not come. Under the lock. */
static bool meet(member *m, double deadline, double timeout)
{
    group *g = m->group;
    const uint64_t round = g->begun;
    if (g->broken)
        return false;
    m->here = true;
    if (++g->came == g->ranks)
        begin_round(g);
    while (g->begun == round && !g->broken) {
        fa_cond_wait_until(&g->changed, &g->lock, deadline);
        if (g->begun == round && !g->broken && fa_clock() >= deadline)
            give_up_waiting(g, timeout);
    }
    return g->begun != round;
}

/* No rank goes on before all have taken what they need of the others' memory. They are at work: it does not take long. */
static void part(group *g)
{
    const uint64_t round = g->begun;
    if (--g->working == 0) {
        g->finished = round;
        (void)pthread_cond_broadcast(&g->changed);
    }
    while (g->finished < round)
        (void)pthread_cond_wait(&g->changed, &g->lock);
}

/* This rank's share of the elements, summed in the order of ranks and given to all of them. */
FA_FLOAT_APART static void sum_share(const group *g, int32_t rank)
{
    enum { BLOCK = 512 };
    float sum[BLOCK];
    const fa_dtype dtype = g->member[0].call.dtype;
    const int64_t count = g->member[0].call.count, share = count / g->ranks + 1,
                  begin = FA_MIN(rank * share, count), end = FA_MIN(begin + share, count);
    for (int64_t at = begin; at < end; at += BLOCK) {
        const int64_t n = FA_MIN(BLOCK, end - at);
        for (int64_t i = 0; i < n; i++)
            sum[i] = fa_load(dtype, g->member[0].call.to, at + i);
        for (int32_t r = 1; r < g->ranks; r++) {
            for (int64_t i = 0; i < n; i++)
                sum[i] += fa_load(dtype, g->member[r].call.to, at + i);
        }
        for (int32_t r = 0; r < g->ranks; r++) {
            for (int64_t i = 0; i < n; i++)
                fa_store(dtype, g->member[r].call.to, at + i, sum[i]);
        }
    }
}

static void gather(const group *g, void *to)
{
    const size_t bytes = (size_t)g->member[0].call.count;
    for (int32_t r = 0; r < g->ranks && bytes > 0; r++)
        memcpy((char *)to + (size_t)r * bytes, g->member[r].call.from, bytes);
}

static void take_shifted(const member *m)
{
    const group *g = m->group;
    const member *before = &g->member[(m->end.rank + g->ranks - 1) % g->ranks];
    if (m->call.count > 0)
        memcpy(m->call.to, before->call.from, (size_t)m->call.count);
}

static void work(const member *m)
{
    const fa_float_state before = fa_float_enter();
    if (m->call.kind == SHIFT)
        take_shifted(m);
    else if (m->call.kind == GATHER)
        gather(m->group, m->call.to);
    else
        sum_share(m->group, m->end.rank);
    fa_float_leave(before);
}

static fa_status failed(const group *g, char *message, size_t message_size)
{
    (void)snprintf(message, message_size, "%s", g->why);
    return FA_RANK_LOST;
}

static fa_status run(member *m, const call *c, double timeout, char *message, size_t message_size)
{
    group *g = m->group;
    const double deadline = fa_clock() + timeout;
    fa_status status = FA_OK;
    double ready = 0;
    (void)pthread_mutex_lock(&g->lock);
    m->call = *c;
    if (meet(m, deadline, timeout)) {
        ready = g->ready;
        (void)snprintf(message, message_size, "%s", g->mismatch);
        status = g->mismatch[0] == '\0' ? FA_OK : FA_INVALID;
        (void)pthread_mutex_unlock(&g->lock);
        if (status == FA_OK)
            work(m);
        (void)pthread_mutex_lock(&g->lock);
        part(g);
    } else
        status = failed(g, message, message_size);
    (void)pthread_mutex_unlock(&g->lock);
    if (status != FA_OK)
        return status;
    fa_sleep_until(FA_MIN(ready, deadline));
    if (ready <= deadline)
        return FA_OK;
    (void)pthread_mutex_lock(&g->lock);
    char why[sizeof(g->why)];
    (void)snprintf(why, sizeof(why), "the link is not done within %g s", timeout);
    give_up(g, why);
    status = failed(g, message, message_size);
    (void)pthread_mutex_unlock(&g->lock);
    return status;
}

static fa_status allreduce(void *user, fa_dtype dtype, void *data, int64_t count, double timeout,
                           char *message, size_t message_size)
{
    const call c = {.dtype = dtype, .count = count, .to = data};
    return run(user, &c, timeout, message, message_size);
}

static fa_status allgather(void *user, const void *from, void *to, size_t bytes, double timeout,
                           char *message, size_t message_size)
{
    const call c = {.kind = GATHER, .count = (int64_t)bytes, .to = to, .from = from};
    return run(user, &c, timeout, message, message_size);
}

static fa_status shift(void *user, const void *from, void *to, size_t bytes, double timeout, char *message,
                       size_t message_size)
{
    const call c = {.kind = SHIFT, .count = (int64_t)bytes, .to = to, .from = from};
    return run(user, &c, timeout, message, message_size);
}

static void release(void *user)
{
    group *g = ((member *)user)->group;
    (void)pthread_mutex_lock(&g->lock);
    const bool last = --g->ends == 0;
    (void)pthread_mutex_unlock(&g->lock);
    if (!last)
        return;
    (void)pthread_cond_destroy(&g->changed);
    (void)pthread_mutex_destroy(&g->lock);
    fa_release(g->context, g, g->bytes);
}

static fa_status check(const fa_transport_local_desc *d)
{
    if (d->ranks < 1 || d->ranks > FA_MAX_RANKS)
        return fa_fail(FA_INVALID, "ranks is %d, expected 1 to %d", d->ranks, FA_MAX_RANKS);
    if (!(d->latency >= 0 && d->latency <= DBL_MAX))
        return fa_fail(FA_INVALID, "latency is %g, expected 0 or more", d->latency);
    if (!(d->bandwidth >= 0 && d->bandwidth <= DBL_MAX))
        return fa_fail(FA_INVALID, "bandwidth is %g, expected 0 or more", d->bandwidth);
    return FA_OK;
}

static void fill(group *g, int32_t rank)
{
    member *m = &g->member[rank];
    m->group = g;
    m->end = (fa_transport){
        .struct_size = sizeof(m->end),
        .name = "local",
        .user = m,
        .rank = rank,
        .ranks = g->ranks,
        .timeout = 30,
        .latency = g->latency,
        .bandwidth = g->bandwidth,
        .any_thread = 1,
        .fixed_order = 1,
        .allreduce = allreduce,
        .allgather = allgather,
        .release = release,
        .shift = shift,
    };
}

static fa_status make(fa_context *context, const fa_transport_local_desc *d, group **made)
{
    const size_t bytes = sizeof(group) + (size_t)d->ranks * sizeof(member);
    group *g = fa_alloc_zeroed(context, bytes);
    if (!g)
        return FA_OUT_OF_MEMORY;
    g->context = context;
    g->bytes = bytes;
    g->ranks = g->ends = d->ranks;
    g->latency = d->latency;
    g->bandwidth = d->bandwidth;
    bool locks = pthread_mutex_init(&g->lock, NULL) == 0;
    if (locks && fa_cond_init(&g->changed) != 0) {
        (void)pthread_mutex_destroy(&g->lock);
        locks = false;
    }
    if (!locks) {
        fa_release(context, g, bytes);
        return fa_fail(FA_OUT_OF_MEMORY, "the system has no lock for a group of ranks");
    }
    *made = g;
    return FA_OK;
}

fa_status fa_transport_create_local(fa_context *context, const fa_transport_local_desc *desc,
                                    fa_transport **made)
{
    fa_transport_local_desc d;
    group *g = NULL;
    fa_clear_error();
    if (!context || !desc || !made)
        return fa_fail(FA_INVALID, "%s is NULL", !context ? "context" : !desc ? "desc" : "made");
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_TRANSPORT_LOCAL_DESC_0_1, desc, "fa_transport_local_desc"));
    FA_TRY(check(&d));
    for (int32_t rank = 0; rank < d.ranks; rank++)
        made[rank] = NULL;
#if defined(_WIN32)
    return fa_fail(FA_UNSUPPORTED, "not on Windows: there, a wait for a rank does not always end in time");
#endif
    FA_TRY(make(context, &d, &g));
    for (int32_t rank = 0; rank < d.ranks; rank++) {
        fill(g, rank);
        made[rank] = &g->member[rank].end;
    }
    return FA_OK;
}
