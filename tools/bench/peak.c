/* SPDX-License-Identifier: Apache-2.0 */
/* The ceilings of the machine: multiply-adds and memory reads per second, by all threads at once. */
#if defined(__linux__)
#define _DEFAULT_SOURCE /* madvise() */
#include <sys/mman.h>
#endif
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/platform.h"
#include "tools/bench/bench.h"

#define MIN_BUFFER ((size_t)256 << 20)
#define STEP_CHUNK 100000
#define CHUNK_SECONDS 0.02
#define HUGE_PAGE ((size_t)2 << 20)
enum { ROUNDS = 6, CACHE_MULTIPLE = 4 };

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { MAX_JOBS = 1 + BENCH_MAX_DOTS + BENCH_READ_WAYS };

/* What all threads do at once, each its own share. */
typedef struct job {
    const bench_simd *simd;
    int threads;
    int64_t steps; /* multiply-adds, where data is NULL */
    float *data;
    size_t slice; /* floats of each thread */
    int way;
    double best; /* operations or bytes per second */
} job;

/* One thread of a job. */
typedef struct member {
    const job *work;
    size_t self;
    atomic_int *gate; /* threads that are not there yet */
    double begun, done;
} member;

static void *do_share(void *user)
{
    member *m = user;
    const job *j = m->work;
    (void)atomic_fetch_sub(m->gate, 1);
    while (atomic_load(m->gate) > 0)
        (void)sched_yield();
    m->begun = now();
    (void)(j->data ? j->simd->read[j->way](j->data + m->self * j->slice, j->slice)
                   : j->simd->multiply_add(j->steps));
    m->done = now();
    return NULL;
}

/* Each thread writes its own slice first: on a machine of several memory nodes, it then lies near it. */
static void *touch_share(void *user)
{
    const member *m = user;
    memset(m->work->data + m->self * m->work->slice, 0, m->work->slice * sizeof(float));
    return NULL;
}

/* Runs `share` for each of the threads at once, this one included. Where some cannot be started, the job has fewer. */
static double run_shares(job *j, void *(*share)(void *))
{
    static member team[FA_MAX_THREADS];
    static pthread_t thread[FA_MAX_THREADS];
    atomic_int gate = j->threads;
    int started = 1;
    for (int i = 0; i < j->threads; i++)
        team[i] = (member){.work = j, .self = (size_t)i, .gate = &gate};
    while (started < j->threads && pthread_create(&thread[started], NULL, share, &team[started]) == 0)
        started++;
    (void)atomic_fetch_sub(&gate, j->threads - started);
    j->threads = started;
    (void)share(&team[0]);
    double start = team[0].begun, end = team[0].done;
    for (int i = 1; i < started; i++) {
        (void)pthread_join(thread[i], NULL);
        start = fmin(start, team[i].begun);
        end = fmax(end, team[i].done);
    }
    return end - start;
}

/* Seconds from the first thread's start to the last one's end. */
static double run_job(job *j)
{
    double seconds = run_shares(j, do_share);
    double work = j->data ? (double)(j->slice * sizeof(float)) : (double)j->steps * j->simd->flops_per_step;
    j->best = fmax(j->best, work * j->threads / seconds);
    return seconds;
}

static job arithmetic_job(const bench_simd *simd, int threads)
{
    job j = {.simd = simd, .threads = threads, .steps = STEP_CHUNK};
    for (double seconds; (seconds = run_job(&j)) < CHUNK_SECONDS && j.steps < INT64_MAX / 64;)
        j.steps *= seconds < CHUNK_SECONDS / 16 ? 16 : 2;
    return j;
}

/* In large pages where the system has them: a ceiling is not to be one of address translation. */
static float *allocate(size_t bytes)
{
    float *data = fa_system_allocate((bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE, HUGE_PAGE);
#if defined(MADV_HUGEPAGE)
    if (data)
        (void)madvise(data, bytes, MADV_HUGEPAGE);
#endif
    return data;
}

/* A job that reads a buffer of its own, or data NULL when memory is short. The caller frees the data. */
static job reading_job(const bench_simd *simd, int threads, bench_peak *peak)
{
    size_t cache = bench_cache_bytes(), wanted = cache * CACHE_MULTIPLE, most = bench_memory_available() / 4;
    wanted = wanted < MIN_BUFFER ? MIN_BUFFER : wanted;
    wanted = wanted < most ? wanted : most;
    job j = {.simd = simd, .threads = threads};
    j.slice = wanted / sizeof(float) / (size_t)threads / BENCH_READ_FLOATS * BENCH_READ_FLOATS;
    peak->buffer_bytes = j.slice * (size_t)threads * sizeof(float);
    peak->cache_bytes = cache;
    j.data = peak->buffer_bytes ? allocate(peak->buffer_bytes) : NULL;
    if (j.data)
        (void)run_shares(&j, touch_share);
    return j;
}

/* All jobs in turn: whatever else the machine does for a while lowers no single one of the results. */
static void run_rounds(job *jobs, int count)
{
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < count; i++)
            (void)run_job(&jobs[i]);
    }
}

static bool measure_cpu(const fa_device_info *info, bench_peak *peak, char *message, size_t message_size)
{
    const bench_simd *simd = bench_simd_find(info->kernels);
    if (!simd) {
        (void)snprintf(message, message_size, "no micro-benchmark for any of %s", info->kernels);
        return false;
    }
    job jobs[MAX_JOBS];
    const bench_simd *dots[BENCH_MAX_DOTS];
    int count = 0, found = bench_dots_find(info->kernels, dots);
    jobs[count++] = arithmetic_job(simd, info->units > 0 ? (int)info->units : 1);
    int threads = jobs[0].threads; /* what there really are */
    for (int i = 0; i < found; i++)
        jobs[count++] = arithmetic_job(dots[i], threads);
    const job reading = reading_job(simd, threads, peak);
    if (!reading.data) {
        (void)snprintf(message, message_size, "no memory for %zu bytes to read from", peak->buffer_bytes);
        return false;
    }
    for (int i = 0; i < BENCH_READ_WAYS; i++) {
        jobs[count] = reading;
        jobs[count++].way = i;
    }
    run_rounds(jobs, count);
    fa_system_release(reading.data);

    peak->known = true;
    peak->isa = simd->isa;
    peak->units_name = "threads";
    peak->units = threads;
    peak->flops = jobs[0].best;
    peak->dots = found;
    for (int i = 0; i < found; i++)
        peak->dot[i] = (bench_ceiling){dots[i]->isa, jobs[1 + i].best};
    for (int i = 1 + found; i < count; i++)
        peak->bytes = fmax(peak->bytes, jobs[i].best);
    return true;
}

bool bench_peak_measure(const fa_device *device, const fa_device_info *info, bench_peak *peak, char *message,
                        size_t message_size)
{
    *peak = (bench_peak){.known = false};
    if (!strcmp(info->backend, "openmp"))
        return measure_cpu(info, peak, message, message_size);
    if (!strcmp(info->backend, "opencl"))
        return bench_peak_opencl(device, peak, message, message_size);
    (void)snprintf(message, message_size, "no micro-benchmark for backend %s", info->backend);
    return false;
}
