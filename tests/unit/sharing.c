/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures from where on it pays to share a run between threads: sharing [THREADS]. Each problem runs on one thread and
 * shared by all, whatever the planner would choose; called again at once, called after a pause in which helpers fall
 * asleep, and with another process busy on each CPU but one. Times are medians in microseconds. "model" is what the
 * planner thinks of one thread, "planned" what it would choose: launch_cycles of backends/openmp/device.c and SHARE_GAIN
 * of core/attention/schedule.c decide that. For a machine with nothing else running.
 */
#include <fastattn/fastattn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/backend.h"
#include "core/context.h"

enum { RUNS = 301, PAUSE_NS = 300000, MAX_BUSY = 256 };

typedef struct problem {
    int64_t heads_q, heads_kv, rows, keys, dim;
} problem;

/* Decoding and small prefill, from what one thread does in a microsecond on. */
static const problem problems[] = {
    {1, 1, 1, 256, 64},    {4, 4, 1, 64, 64},    {4, 4, 1, 128, 64},   {8, 8, 1, 128, 64},
    {8, 8, 1, 256, 64},    {8, 8, 1, 512, 64},   {8, 2, 1, 512, 128},  {8, 8, 1, 1024, 64},
    {8, 8, 1, 2048, 64},   {32, 8, 1, 256, 128}, {32, 8, 1, 512, 128}, {32, 8, 1, 1024, 128},
    {32, 8, 1, 4096, 128}, {1, 1, 32, 32, 64},   {1, 1, 64, 64, 64},   {8, 8, 8, 8, 64},
    {8, 8, 16, 16, 64},    {8, 8, 32, 32, 64},   {8, 8, 64, 64, 64},   {8, 8, 128, 128, 64},
};

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void need(fa_status status)
{
    if (status == FA_OK)
        return;
    (void)fprintf(stderr, "%s\n", fa_last_error());
    exit(EXIT_FAILURE);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A device whose plans are always shared, or one of the planner's choice. */
typedef struct machine {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
} machine;

static machine open_machine(int threads, bool always)
{
    const fa_context_options options = {.struct_size = sizeof(options), .threads = threads};
    machine m;
    need(fa_context_create(&options, &m.context));
    need(fa_device_open(m.context, "openmp", NULL, &m.device));
    need(fa_queue_create(m.device, &m.queue));
    if (always)
        m.device->limits.launch_cycles = -1e12;
    return m;
}

static fa_attention_desc describe(const problem *p)
{
    fa_attention_desc d = {.struct_size = sizeof(d)};
    d.q = d.o = fa_tensor_make(FA_F32, 1, p->heads_q, p->rows, p->dim);
    d.k = d.v = fa_tensor_make(FA_F32, 1, p->heads_kv, p->keys, p->dim);
    return d;
}

static fa_buffer *filled(const machine *m, const fa_tensor *tensor, size_t extra)
{
    size_t bytes = 0;
    fa_buffer *buffer;
    need(fa_tensor_span(tensor, &bytes));
    need(fa_buffer_create(m->device, bytes + extra, &buffer));
    memset(buffer->address, 0, bytes);
    return buffer;
}

typedef struct timing {
    double at_once, after_pause, model;
    uint32_t workers;
} timing;

static double median(const fa_plan *plan, fa_queue *queue, const fa_attention_args *args, bool pause)
{
    static double seconds[RUNS];
    for (int i = 0; i < RUNS; i++) {
        if (pause)
            (void)nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
        double start = now();
        need(fa_plan_run(plan, queue, args));
        seconds[i] = now() - start;
    }
    qsort(seconds, RUNS, sizeof(seconds[0]), by_size);
    return 1e6 * seconds[RUNS / 2];
}

static timing measure(const machine *m, const problem *p)
{
    const fa_attention_desc d = describe(p);
    const fa_tensor nothing = fa_tensor_make(FA_BOOL, 1, 1, 1, 0);
    fa_plan *plan;
    need(fa_plan_create(m->device, &d, &plan));
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = filled(m, &d.q, 0),
                              .k = filled(m, &d.k, 0),
                              .v = filled(m, &d.v, 0),
                              .o = filled(m, &d.o, 0),
                              .workspace = filled(m, &nothing, fa_plan_workspace(plan) + 1)};
    (void)median(plan, m->queue, &args, false);
    timing t = {.at_once = median(plan, m->queue, &args, false),
                .after_pause = median(plan, m->queue, &args, true),
                .model = 1e6 * plan->schedule.cycles / plan->limits.clock_hz,
                .workers = plan->schedule.workers};
    fa_plan_destroy(plan);
    fa_buffer *const buffers[] = {args.q, args.k, args.v, args.o, args.workspace};
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        fa_buffer_destroy(buffers[i]);
    return t;
}

static int start_busy(pid_t *process, int count)
{
    for (int i = 0; i < count; i++) {
        process[i] = fork();
        if (process[i] == 0) {
            for (volatile unsigned turn = 0;; turn++) {
            }
        }
    }
    return count;
}

static void stop_busy(const pid_t *process, int count)
{
    for (int i = 0; i < count; i++) {
        (void)kill(process[i], SIGKILL);
        (void)waitpid(process[i], NULL, 0);
    }
}

/* Before the devices have threads: busy processes are forked in between. */
static void show(int threads, int busy)
{
    pid_t process[MAX_BUSY];
    (void)printf("\n%d threads, %d busy processes\n%-22s %8s %7s | %8s %8s %6s | %8s %8s %6s\n", threads,
                 busy, "problem", "model", "planned", "alone", "shared", "ratio", "alone", "shared", "ratio");
    (void)printf("%-22s %8s %7s | %24s | %24s\n", "", "", "", "called at once", "called after a pause");
    int started = start_busy(process, busy);
    machine one = open_machine(1, false), all = open_machine(threads, true),
            planner = open_machine(threads, false);
    for (size_t i = 0; i < sizeof(problems) / sizeof(problems[0]); i++) {
        const problem *p = &problems[i];
        char name[64];
        (void)snprintf(name, sizeof(name), "H%d/%d S%d,%d D%d", (int)p->heads_q, (int)p->heads_kv,
                       (int)p->rows, (int)p->keys, (int)p->dim);
        timing alone = measure(&one, p), shared = measure(&all, p), planned = measure(&planner, p);
        (void)printf("%-22s %8.1f %7s | %8.1f %8.1f %6.2f | %8.1f %8.1f %6.2f\n", name, alone.model,
                     planned.workers > 1 ? "shared" : "alone", alone.at_once, shared.at_once,
                     alone.at_once / shared.at_once, alone.after_pause, shared.after_pause,
                     alone.after_pause / shared.after_pause);
        (void)fflush(stdout);
    }
    stop_busy(process, started);
    machine *const machines[] = {&one, &all, &planner};
    for (int i = 0; i < 3; i++) {
        fa_queue_destroy(machines[i]->queue);
        fa_device_close(machines[i]->device);
        fa_context_destroy(machines[i]->context);
    }
}

int main(int count, char **arguments)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = count > 1 ? atoi(arguments[1]) : (int)cpus;
    if (threads < 2 || threads > MAX_BUSY) {
        (void)fprintf(stderr, "usage: sharing [THREADS], 2 to %d\n", MAX_BUSY);
        return 2;
    }
    show(threads, 0);
    show(threads, threads - 1);
    show(threads, threads);
    return EXIT_SUCCESS;
}
