/* SPDX-License-Identifier: Apache-2.0 */
#include "backends/openmp/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backends/openmp/cpu.h"
#include "backends/openmp/runtime.h"
#include "core/context.h"
#include "core/platform.h"

enum {
    SLOTS = 16,      /* calling threads that are helped at the same time */
    SPIN_NS = 50000, /* about what it takes to wake a thread */
    PAUSES = 4,      /* between two looks */
    CACHE_LINE = 64, /* and what fa_alloc() aligns to */
};

/* The state of a slot: how many helpers are at work on its job, and: */
enum {
    HELPERS = 0xffff,
    TAKEN = 1 << 16,   /* a calling thread has it */
    OPEN = 1 << 17,    /* there are tasks to take: helpers may join */
    WAITING = 1 << 18, /* the calling thread sleeps until no helper is left */
};

/* A calling thread's job. Slots stay where they are, so that a late helper may look at one that is over. */
typedef struct slot {
    _Alignas(CACHE_LINE) atomic_uint state;
    atomic_int next; /* the first task that nobody has begun */
    int32_t count;
    void (*task)(void *argument, int32_t index);
    void *argument;
} slot;

struct fa_pool {
    const fa_context *context;
    size_t bytes;
    int32_t most; /* helpers */
    bool spins;
    atomic_long process; /* whose threads they are; 0: none was started */
    atomic_int started;  /* helpers; changes under the lock */
    atomic_int bound;    /* helpers that have found their place */
    atomic_bool refused; /* the system starts no more; changes under the lock */
    atomic_bool told;    /* that this is another process */

    _Alignas(CACHE_LINE) atomic_uint published; /* counts jobs */
    atomic_int sleepers;
    atomic_bool stop;

    pthread_mutex_t lock; /* nothing is called out under it */
    pthread_cond_t work, done;
    slot slot[SLOTS];
    pthread_t thread[];
};

static void pause_briefly(void)
{
    for (int i = 0; i < PAUSES; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
    }
}

static int64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* One turn of waiting without sleep. False: it has gone on for long enough. `since` is 0 at first. */
static bool spin(const fa_pool *pool, int64_t *since)
{
    if (!pool->spins)
        return false;
    pause_briefly();
    int64_t now = now_ns();
    if (*since == 0)
        *since = now;
    return now - *since < SPIN_NS;
}

/* Takes tasks until there are none. */
static void do_tasks(slot *s)
{
    for (;;) {
        int index = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        if (index >= s->count)
            break;
        s->task(s->argument, index);
    }
    (void)atomic_fetch_and_explicit(&s->state, ~(unsigned)OPEN, memory_order_relaxed);
}

static void help_with(fa_pool *pool, slot *s)
{
    do_tasks(s);
    /* After this the slot may be another job's. */
    unsigned before = atomic_fetch_sub_explicit(&s->state, 1, memory_order_acq_rel);
    if ((before & HELPERS) == 1 && (before & WAITING)) {
        (void)pthread_mutex_lock(&pool->lock);
        (void)pthread_cond_broadcast(&pool->done);
        (void)pthread_mutex_unlock(&pool->lock);
    }
}

/* Whether there was anything to do. */
static bool help_anyone(fa_pool *pool)
{
    for (slot *s = pool->slot; s < pool->slot + SLOTS; s++) {
        unsigned state = atomic_load_explicit(&s->state, memory_order_relaxed);
        while (state & OPEN) {
            if (atomic_compare_exchange_weak_explicit(&s->state, &state, state + 1, memory_order_acquire,
                                                      memory_order_relaxed)) {
                help_with(pool, s);
                return true;
            }
        }
    }
    return false;
}

static bool goes_on(const fa_pool *pool)
{
    return !atomic_load_explicit(&pool->stop, memory_order_relaxed);
}

/* Returns when a job was published after the `seen`-th. False: the pool ends, which is published as a job is. */
static bool await_job(fa_pool *pool, unsigned seen)
{
    if (!goes_on(pool))
        return false; /* it was the `seen`-th */
    for (int64_t since = 0; atomic_load_explicit(&pool->published, memory_order_acquire) == seen;) {
        if (spin(pool, &since))
            continue;
        (void)pthread_mutex_lock(&pool->lock);
        atomic_fetch_add(&pool->sleepers, 1);
        while (atomic_load(&pool->published) == seen)
            (void)pthread_cond_wait(&pool->work, &pool->lock);
        atomic_fetch_sub(&pool->sleepers, 1);
        (void)pthread_mutex_unlock(&pool->lock);
        break;
    }
    return goes_on(pool);
}

static void *helper(void *user)
{
    fa_pool *pool = user;
    fa_runtime_bind(atomic_fetch_add(&pool->bound, 1) + 1);
    unsigned seen;
    do
        seen = atomic_load_explicit(&pool->published, memory_order_acquire);
    while (help_anyone(pool) || await_job(pool, seen));
    return NULL;
}

/* Helpers for `wanted` tasks beside the calling thread's, or as many as the system starts. */
static void start_helpers(fa_pool *pool, int32_t wanted)
{
    int32_t number = wanted < pool->most ? wanted : pool->most;
    if (atomic_load(&pool->started) >= number || atomic_load(&pool->refused))
        return;
    int error = 0;
    (void)pthread_mutex_lock(&pool->lock);
    int32_t started = atomic_load(&pool->started);
    while (started < number && error == 0 && !atomic_load(&pool->refused)) {
        error = fa_thread_start(&pool->thread[started], helper, pool);
        started += error == 0;
    }
    atomic_store(&pool->started, started);
    if (error != 0)
        atomic_store(&pool->refused, true);
    (void)pthread_mutex_unlock(&pool->lock);
    if (error != 0)
        fa_log(pool->context, FA_LOG_WARN, "openmp: the system starts no more than %d of %d threads: %s",
               started, pool->most, strerror(error));
}

/* Whether the pool's threads are this process's. The lock may be held by a thread that the fork left behind. */
static bool is_ours(fa_pool *pool)
{
    long process = 0, self = (long)getpid();
    if (atomic_compare_exchange_strong(&pool->process, &process, self) || process == self)
        return true;
    if (!atomic_exchange(&pool->told, true))
        fa_log(
            pool->context, FA_LOG_WARN,
            "openmp: the device's threads stayed in the process that was forked: one thread does all; a device opened "
            "in this process has its own");
    return false;
}

static slot *take_slot(fa_pool *pool)
{
    for (slot *s = pool->slot; s < pool->slot + SLOTS; s++) {
        unsigned free = 0;
        if (atomic_compare_exchange_strong_explicit(&s->state, &free, TAKEN, memory_order_acquire,
                                                    memory_order_relaxed))
            return s;
    }
    return NULL;
}

static void publish(fa_pool *pool, slot *s)
{
    atomic_store_explicit(&s->state, TAKEN | OPEN, memory_order_release);
    /* Counted before the sleepers are looked at, as they count themselves before they look. */
    atomic_fetch_add(&pool->published, 1);
    int sleepers = atomic_load(&pool->sleepers), wanted = s->count - 1;
    if (sleepers == 0)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    if (wanted >= sleepers)
        (void)pthread_cond_broadcast(&pool->work);
    for (int i = 0; wanted < sleepers && i < wanted; i++)
        (void)pthread_cond_signal(&pool->work);
    (void)pthread_mutex_unlock(&pool->lock);
}

/* Returns when the helpers that have joined are done. */
static void await_helpers(fa_pool *pool, slot *s)
{
    for (int64_t since = 0; atomic_load_explicit(&s->state, memory_order_acquire) & HELPERS;) {
        if (spin(pool, &since))
            continue;
        (void)pthread_mutex_lock(&pool->lock);
        unsigned state = atomic_fetch_or_explicit(&s->state, WAITING, memory_order_acq_rel);
        for (; state & HELPERS; state = atomic_load_explicit(&s->state, memory_order_acquire))
            (void)pthread_cond_wait(&pool->done, &pool->lock);
        (void)pthread_mutex_unlock(&pool->lock);
    }
}

void fa_pool_run(fa_pool *pool, int32_t count, void (*task)(void *argument, int32_t index), void *argument)
{
    slot *s = NULL;
    if (count > 1 && pool->most > 0 && is_ours(pool)) {
        start_helpers(pool, count - 1);
        s = take_slot(pool);
    }
    if (!s) {
        for (int32_t i = 0; i < count; i++)
            task(argument, i);
        return;
    }
    s->count = count;
    s->task = task;
    s->argument = argument;
    atomic_store_explicit(&s->next, 0, memory_order_relaxed);
    publish(pool, s);
    do_tasks(s);
    await_helpers(pool, s);
    atomic_store_explicit(&s->state, 0, memory_order_release);
}

fa_pool *fa_pool_create(const fa_context *context, int32_t threads)
{
    size_t bytes = sizeof(fa_pool) + (size_t)(threads - 1) * sizeof(pthread_t);
    fa_pool *pool = fa_alloc_zeroed(context, bytes);
    if (!pool)
        return NULL;
    pool->context = context;
    pool->bytes = bytes;
    pool->most = threads - 1;
    pool->spins = threads <= fa_cpu_count(); /* else whom one waits for may need this very CPU */
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->work, NULL);
    (void)pthread_cond_init(&pool->done, NULL);
    return pool;
}

static void end_helpers(fa_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->published, 1);
    (void)pthread_cond_broadcast(&pool->work);
    (void)pthread_mutex_unlock(&pool->lock);
    int32_t started = atomic_load(&pool->started);
    for (int32_t i = 0; i < started; i++)
        (void)pthread_join(pool->thread[i], NULL);
}

void fa_pool_destroy(fa_pool *pool)
{
    if (!pool)
        return;
    long process = atomic_load(&pool->process);
    if (process == (long)getpid())
        end_helpers(pool);
    if (process == 0 || process == (long)getpid()) { /* in a child they may be locked for good */
        (void)pthread_mutex_destroy(&pool->lock);
        (void)pthread_cond_destroy(&pool->work);
        (void)pthread_cond_destroy(&pool->done);
    }
    fa_release(pool->context, pool, pool->bytes);
}
