/* SPDX-License-Identifier: Apache-2.0 */
/* The ceilings of the machine: multiply-adds and memory reads per second, by all threads at once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define MIN_BUFFER ((size_t)256 << 20)
#define STEP_CHUNK 100000
#define CHUNK_SECONDS 0.02
enum { TRIES = 8, WARM_UP_TRIES = 2, CACHE_MULTIPLE = 4 };

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The first number after `key` in a small text file, 0 when there is none. */
static unsigned long long read_number(const char *path, const char *key)
{
    char line[256];
    unsigned long long number = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        if (!strncmp(line, key, strlen(key))) {
            char *end;
            number = strtoull(line + strlen(key), &end, 10);
            number *= *end == 'K' ? 1024 : *end == 'M' ? 1024 * 1024 : 1;
            break;
        }
    }
    (void)fclose(file);
    return number;
}

size_t bench_memory_available(void)
{
    unsigned long long bytes = read_number("/proc/meminfo", "MemAvailable:") * 1024;
    if (!bytes) {
        long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
        bytes = pages > 0 && page > 0 ? (unsigned long long)pages * (unsigned long long)page : SIZE_MAX;
    }
    /* A container's limit, in either version of control groups. */
    static const char *const limits[][2] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
    };
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        unsigned long long limit = read_number(limits[i][0], ""), used = read_number(limits[i][1], "");
        if (limit > used && limit - used < bytes)
            bytes = limit - used;
    }
    return bytes < SIZE_MAX ? (size_t)bytes : SIZE_MAX;
}

/* The highest level of cache of one CPU. A cache that several CPUs share counts for the first of them. */
static size_t cpu_cache_bytes(long cpu)
{
    char path[128];
    unsigned long long top = 0, bytes = 0;
    for (int index = 0; index < 8; index++) {
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%ld/cache/index%d/level", cpu, index);
        unsigned long long level = read_number(path, "");
        if (level <= top)
            continue;
        top = level;
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%ld/cache/index%d/shared_cpu_list",
                       cpu, index);
        bool first = read_number(path, "") == (unsigned long long)cpu;
        (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%ld/cache/index%d/size", cpu, index);
        bytes = first ? read_number(path, "") : 0;
    }
    return (size_t)bytes;
}

size_t bench_cache_bytes(void)
{
    size_t bytes = 0;
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    for (long cpu = 0; cpu < cpus; cpu++)
        bytes += cpu_cache_bytes(cpu);
    return bytes;
}

#ifdef _OPENMP
typedef struct job {
    const bench_simd *simd;
    int threads;
    int64_t steps; /* multiply-adds, where data is NULL */
    const float *data;
    size_t slice; /* floats of each thread */
} job;

/* Seconds from the first thread's start to the last one's end, and how many threads there really were. */
static double run_job(const job *j, int *threads)
{
    double start = INFINITY, end = 0.0;
    volatile float sink = 0.0f;
    int team = 1;
#pragma omp parallel num_threads(j->threads)
    {
        size_t self = (size_t)omp_get_thread_num();
#pragma omp barrier
        double begun = now();
        float sum =
            j->data ? j->simd->read(j->data + self * j->slice, j->slice) : j->simd->multiply_add(j->steps);
        double done = now();
#pragma omp critical(bench_peak)
        {
            start = fmin(start, begun);
            end = fmax(end, done);
            sink = sum;
            team = omp_get_num_threads();
        }
    }
    (void)sink;
    *threads = team;
    return end - start;
}

static double measure_flops(job *j, int *threads)
{
    double best = 0.0;
    j->data = NULL;
    j->steps = STEP_CHUNK;
    for (double seconds; (seconds = run_job(j, threads)) < CHUNK_SECONDS && j->steps < INT64_MAX / 64;)
        j->steps *= seconds < CHUNK_SECONDS / 16 ? 16 : 2;
    for (int i = 0; i < TRIES; i++) {
        double seconds = run_job(j, threads);
        double flops = (double)j->steps * j->simd->flops_per_step * *threads;
        best = fmax(best, flops / seconds);
    }
    return best;
}

/* Each thread writes its own slice first: on a machine of several memory nodes, it then lies near it. */
static void touch(float *data, const job *j)
{
#pragma omp parallel num_threads(j->threads)
    {
        size_t self = (size_t)omp_get_thread_num();
        memset(data + self * j->slice, 0, j->slice * sizeof(*data));
    }
}

static double measure_bytes(job *j, float *data)
{
    double best = 0.0;
    int threads;
    touch(data, j);
    j->data = data;
    for (int i = 0; i < TRIES; i++) {
        double seconds = run_job(j, &threads);
        if (i >= WARM_UP_TRIES)
            best = fmax(best, (double)threads * (double)(j->slice * sizeof(*data)) / seconds);
    }
    return best;
}

bool bench_peak_measure(const fa_device_info *device, bench_peak *peak, char *message, size_t message_size)
{
    *peak = (bench_peak){.known = false};
    const bench_simd *simd = strcmp(device->backend, "openmp") ? NULL : bench_simd_find(device->kernels);
    if (!simd) {
        (void)snprintf(message, message_size, "no micro-benchmark for backend %s", device->backend);
        return false;
    }
    job j = {.simd = simd, .threads = device->units > 0 ? (int)device->units : 1};
    double flops = measure_flops(&j, &peak->threads);

    size_t cache = bench_cache_bytes(), wanted = cache * CACHE_MULTIPLE, most = bench_memory_available() / 4;
    wanted = wanted < MIN_BUFFER ? MIN_BUFFER : wanted;
    wanted = wanted < most ? wanted : most;
    j.threads = peak->threads;
    j.slice = wanted / sizeof(float) / (size_t)j.threads / BENCH_READ_FLOATS * BENCH_READ_FLOATS;
    size_t bytes = j.slice * (size_t)j.threads * sizeof(float);
    float *data = bytes ? malloc(bytes) : NULL;
    if (!data) {
        (void)snprintf(message, message_size, "no memory for %zu bytes to read from", bytes);
        return false;
    }
    *peak = (bench_peak){
        .known = true,
        .flops = flops,
        .bytes = measure_bytes(&j, data),
        .isa = simd->isa,
        .threads = j.threads,
        .buffer_bytes = bytes,
        .cache_bytes = cache,
    };
    free(data);
    return true;
}

#else
bool bench_peak_measure(const fa_device_info *device, bench_peak *peak, char *message, size_t message_size)
{
    *peak = (bench_peak){.known = false};
    (void)snprintf(message, message_size,
                   "this command was built without OpenMP, so there is no micro-benchmark for %s",
                   device->backend);
    return false;
}
#endif
