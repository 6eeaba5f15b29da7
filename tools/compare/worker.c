/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fastattn's side of compare.py: a process that times attention on request, on the device that its argument
 * names as for fa_device_open(), else on openmp. One request a line on stdin, one answer a line on stdout, "ok ..."
 * or "no <reason>"; the first answer, before any request, says who answers.
 *
 *     case SLOT DTYPE B HQ SQ D HK SK DV CAUSAL    prepares, runs, checks    ok KERNEL
 *     run SLOT WARM COUNT                          median of COUNT runs      ok SECONDS [BY THE DEVICE'S CLOCK]
 *     drop                                         forgets every case        ok
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <fastattn/fastattn.h>
#include <fastattn/reference.h>

#include "tools/bench/bench.h"

enum { SLOTS = 64, MAX_RUNS = 1000000, Q = 0, K, V, O, TENSORS };

/* Of the uniformly distributed data, so that its variance is 1 as that of activations is. */
static const float largest = 1.7320508f;

typedef struct slot {
    fa_plan *plan;
    fa_plan_info info;
    fa_buffer *tensors[TENSORS], *workspace;
    fa_attention_args args;
} slot;

typedef struct worker {
    fa_context *context;
    fa_device *device;
    fa_queue *queue;
    slot slots[SLOTS];
} worker;

/* Host memory of a case's tensors, until its result is checked. */
typedef struct host_data {
    void *tensors[TENSORS];
    size_t bytes[TENSORS];
} host_data;

#if defined(__GNUC__)
static void answer(const char *verdict, const char *format, ...) __attribute__((format(printf, 2, 3)));
#endif
static void answer(const char *verdict, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs(verdict, stdout);
    (void)fputc(' ', stdout);
    (void)vprintf(format, arguments);
    (void)fputc('\n', stdout);
    (void)fflush(stdout);
    va_end(arguments);
}

/* False, so that a step can end in `return refuse(...)`. */
static bool refuse(const char *reason)
{
    answer("no", "%s", reason);
    return false;
}

static bool passed(fa_status status)
{
    if (status != FA_OK)
        answer("no", "%s: %s", fa_status_name(status), fa_last_error());
    return status == FA_OK;
}

static void slot_clear(slot *s)
{
    fa_plan_destroy(s->plan);
    for (int i = 0; i < TENSORS; i++)
        fa_buffer_destroy(s->tensors[i]);
    fa_buffer_destroy(s->workspace);
    *s = (slot){.plan = NULL};
}

/* xorshift32 (Marsaglia, J. Stat. Soft. 8, 2003). */
static void fill(void *data, fa_dtype dtype, size_t bytes, uint32_t seed)
{
    size_t count = bytes / fa_dtype_size(dtype);
    for (size_t i = 0; i < count; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        float value = largest * ((float)(seed >> 8) * 0x1p-23f - 1.0f);
        if (dtype == FA_F32)
            ((float *)data)[i] = value;
        else
            ((uint16_t *)data)[i] = dtype == FA_F16 ? fa_f32_to_f16(value) : fa_f32_to_bf16(value);
    }
}

static bool make_tensor(worker *w, const fa_tensor *tensor, int index, host_data *host, fa_buffer **buffer)
{
    size_t bytes;
    if (!passed(fa_tensor_span(tensor, &bytes)))
        return false;
    void *data = malloc(bytes ? bytes : 1);
    if (!data)
        return refuse("out of memory");
    host->tensors[index] = data;
    host->bytes[index] = bytes;
    /* NaN in o tells an element that the run does not write. */
    if (index == O)
        memset(data, 0xff, bytes);
    else
        fill(data, tensor->dtype, bytes, (uint32_t)index + 1);
    return passed(fa_buffer_create(w->device, bytes, buffer)) &&
           passed(fa_buffer_write(w->queue, *buffer, 0, data, bytes));
}

static bool make_plan(worker *w, slot *s, const fa_attention_desc *desc)
{
    s->info.struct_size = sizeof(s->info);
    if (!passed(fa_plan_create(w->device, desc, &s->plan)) || !passed(fa_plan_get_info(s->plan, &s->info)))
        return false;
    size_t bytes = fa_plan_workspace(s->plan);
    return !bytes || passed(fa_buffer_create(w->device, bytes, &s->workspace));
}

static void bind(slot *s)
{
    s->args = (fa_attention_args){
        .struct_size = sizeof(s->args),
        .q = s->tensors[Q],
        .k = s->tensors[K],
        .v = s->tensors[V],
        .o = s->tensors[O],
        .workspace = s->workspace,
    };
}

static bool run_once(worker *w, const slot *s)
{
    return passed(fa_plan_run(s->plan, w->queue, &s->args)) && passed(fa_queue_wait(w->queue));
}

/* An output is a mean of values, so it lies among them; 1 % is for rounding. */
static bool plausible(const slot *s, const host_data *host, fa_dtype dtype)
{
    const char *data = host->tensors[O];
    const size_t size = fa_dtype_size(dtype);
    for (size_t at = 0; at < host->bytes[O]; at += size) {
        float value;
        uint16_t bits;
        memcpy(&bits, data + at, sizeof(bits));
        if (dtype == FA_F32)
            memcpy(&value, data + at, sizeof(value));
        else
            value = dtype == FA_F16 ? fa_f16_to_f32(bits) : fa_bf16_to_f32(bits);
        if (!(fabsf(value) <= 1.01f * largest)) {
            answer("no", "wrong result of %s: element %zu of o is %g, expected a mean of values up to %g",
                   s->info.kernel, at / size, (double)value, (double)largest);
            return false;
        }
    }
    return true;
}

/* Every element is looked at; as many rows as there is time for are compared with the oracle. */
static bool right(worker *w, const slot *s, const bench_case *c, const fa_attention_desc *desc,
                  const host_data *host)
{
    const bench_data data = {
        .q = host->tensors[Q], .k = host->tensors[K], .v = host->tensors[V], .o = host->tensors[O]};
    double error;
    char why[400];
    if (!passed(fa_buffer_read(w->queue, s->tensors[O], 0, data.o, host->bytes[O])) ||
        !plausible(s, host, c->dtype))
        return false;
    const check_means means = {.weights = s->info.weights};
    if (bench_verify(w->context, c, desc, &data, &means, &error, why, sizeof(why)))
        return true;
    answer("no", "wrong result of %s: %s", s->info.kernel, why);
    return false;
}

static bool find_dtype(const char *name, fa_dtype *dtype)
{
    static const fa_dtype all[] = {FA_F32, FA_F16, FA_BF16};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (!strcmp(name, fa_dtype_name(all[i]))) {
            *dtype = all[i];
            return true;
        }
    }
    return false;
}

static slot *find_slot(worker *w, int index)
{
    return index >= 0 && index < SLOTS ? &w->slots[index] : NULL;
}

static bool parse_case(const char *line, int *index, bench_case *c)
{
    int causal;
    char name[8];
    shape *s = &c->size;
    *c = (bench_case){.dtype = FA_F32};
    if (sscanf(line,
               "case %d %7s %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
               " %d",
               index, name, &s->batch, &s->heads_q, &s->len_q, &s->dim_qk, &s->heads_kv, &s->len_kv,
               &s->dim_v, &causal) != 10)
        return false;
    c->causal = causal != 0;
    return find_dtype(name, &c->dtype);
}

static bool prepare(worker *w, slot *s, const bench_case *c)
{
    const shape *n = &c->size;
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(c->dtype, n->batch, n->heads_q, n->len_q, n->dim_qk),
        .k = fa_tensor_make(c->dtype, n->batch, n->heads_kv, n->len_kv, n->dim_qk),
        .v = fa_tensor_make(c->dtype, n->batch, n->heads_kv, n->len_kv, n->dim_v),
        .o = fa_tensor_make(c->dtype, n->batch, n->heads_q, n->len_q, n->dim_v),
        .mask = c->causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE,
    };
    const fa_tensor *tensors[TENSORS] = {&desc.q, &desc.k, &desc.v, &desc.o};
    host_data host = {.bytes = {0}};
    bool ok = make_plan(w, s, &desc);
    for (int i = 0; ok && i < TENSORS; i++)
        ok = make_tensor(w, tensors[i], i, &host, &s->tensors[i]);
    bind(s);
    ok = ok && run_once(w, s) && right(w, s, c, &desc, &host);
    for (int i = 0; i < TENSORS; i++)
        free(host.tensors[i]);
    return ok;
}

static void do_case(worker *w, const char *line)
{
    int index;
    bench_case c;
    slot *s = parse_case(line, &index, &c) ? find_slot(w, index) : NULL;
    if (!s) {
        (void)refuse("expected: case SLOT DTYPE B HQ SQ D HK SK DV CAUSAL");
        return;
    }
    slot_clear(s);
    if (prepare(w, s, &c))
        answer("ok", "%s", s->info.kernel);
    else
        slot_clear(s);
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The times of runs by both clocks; device[0] is NAN where the device has none. */
static bool time_runs(worker *w, const slot *s, int count, double *wall, double *device)
{
    bool by_device = true;
    for (int i = 0; i < count; i++) {
        double start = now();
        if (!run_once(w, s))
            return false;
        wall[i] = now() - start;
        fa_status status = by_device ? fa_queue_seconds(w->queue, &device[i]) : FA_UNSUPPORTED;
        if (status != FA_UNSUPPORTED && !passed(status))
            return false;
        by_device = status == FA_OK;
    }
    if (!by_device)
        device[0] = NAN;
    return true;
}

static void do_run(worker *w, const char *line)
{
    int index, warm, count;
    if (sscanf(line, "run %d %d %d", &index, &warm, &count) != 3 || !find_slot(w, index) ||
        !find_slot(w, index)->plan || count < 1 || count > MAX_RUNS) {
        (void)refuse("expected: run SLOT WARM COUNT, with the slot of a case and a count of 1 to 1000000");
        return;
    }
    const slot *s = find_slot(w, index);
    double *wall = malloc(2 * (size_t)count * sizeof(*wall)), *device = wall ? wall + count : NULL;
    bool ok = wall || refuse("out of memory");
    for (int i = 0; ok && i < warm; i++)
        ok = run_once(w, s);
    if (ok && time_runs(w, s, count, wall, device)) {
        double median = bench_median(wall, (size_t)count);
        if (isnan(device[0]))
            answer("ok", "%.9e", median);
        else
            answer("ok", "%.9e %.9e", median, bench_median(device, (size_t)count));
    }
    free(wall);
}

static void drop(worker *w)
{
    for (int i = 0; i < SLOTS; i++)
        slot_clear(&w->slots[i]);
}

static bool introduce(const worker *w)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    const char *note = "";
#if defined(__GNUC__) && !defined(__OPTIMIZE__)
    note = ", BUILT WITHOUT OPTIMISATION";
#endif
    if (!passed(fa_device_get_info(w->device, &info)))
        return false;
    answer("ok", "fastattn %s, %s:%" PRId32 ", %s, %s: %" PRIu32 ", kernels: %s%s", fa_version(),
           info.backend, info.index, info.name, strcmp(info.backend, "openmp") ? "units" : "threads",
           info.units, info.kernels, note);
    return true;
}

static void serve(worker *w)
{
    char line[256];
    while (fgets(line, sizeof(line), stdin)) {
        if (!strncmp(line, "case ", 5)) {
            do_case(w, line);
        } else if (!strncmp(line, "run ", 4)) {
            do_run(w, line);
        } else if (!strcmp(line, "drop\n")) {
            drop(w);
            answer("ok", "dropped");
        } else {
            (void)refuse("expected a line that starts with case, run or drop");
        }
    }
}

int main(int argc, char **argv)
{
    static worker w;
    const char *name = argc > 1 ? argv[1] : "openmp";
    bool ok = passed(fa_context_create(NULL, &w.context)) &&
              passed(fa_device_open(w.context, name, NULL, &w.device)) &&
              passed(fa_queue_create(w.device, &w.queue)) && introduce(&w);
    if (ok)
        serve(&w);
    drop(&w);
    fa_queue_destroy(w.queue);
    fa_device_close(w.device);
    fa_context_destroy(w.context);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
