/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fastattn's side of compare.py: a process that times attention on request. One request a line on stdin, one
 * answer a line on stdout, "ok ..." or "no <reason>"; the first answer, before any request, says who answers.
 *
 *     case SLOT DTYPE B HQ SQ D HK SK DV CAUSAL    prepares and runs once      ok KERNEL
 *     run SLOT WARM COUNT                          median of COUNT runs        ok SECONDS
 *     drop                                         forgets every case          ok
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

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
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

static bool make_tensor(worker *w, const fa_tensor *tensor, int index, fa_buffer **buffer)
{
    size_t bytes;
    if (!passed(fa_tensor_span(tensor, &bytes)))
        return false;
    void *data = malloc(bytes);
    if (!data)
        return refuse("out of memory");
    /* NaN in o tells an element that the run does not write. */
    if (index == O)
        memset(data, 0xff, bytes);
    else
        fill(data, tensor->dtype, bytes, (uint32_t)index + 1);
    bool ok = passed(fa_buffer_create(w->device, bytes, buffer)) &&
              passed(fa_buffer_write(w->queue, *buffer, 0, data, bytes));
    free(data);
    return ok;
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

/* An output is a mean of values, so it lies among them; 1 % is for rounding. Conformance tests the rest. */
static bool plausible(worker *w, const slot *s, fa_dtype dtype)
{
    size_t bytes = fa_buffer_size(s->tensors[O]), size = fa_dtype_size(dtype);
    char *data = malloc(bytes);
    if (!data)
        return refuse("out of memory");
    bool ok = passed(fa_buffer_read(w->queue, s->tensors[O], 0, data, bytes));
    for (size_t at = 0; ok && at < bytes; at += size) {
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
            ok = false;
        }
    }
    free(data);
    return ok;
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

static void do_case(worker *w, const char *line)
{
    int index, causal;
    char name[8];
    int64_t b, hq, sq, d, hk, sk, dv;
    fa_dtype t;
    if (sscanf(line,
               "case %d %7s %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
               " %d",
               &index, name, &b, &hq, &sq, &d, &hk, &sk, &dv, &causal) != 10 ||
        !find_slot(w, index) || !find_dtype(name, &t)) {
        (void)refuse("expected: case SLOT DTYPE B HQ SQ D HK SK DV CAUSAL");
        return;
    }
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(t, b, hq, sq, d),
        .k = fa_tensor_make(t, b, hk, sk, d),
        .v = fa_tensor_make(t, b, hk, sk, dv),
        .o = fa_tensor_make(t, b, hq, sq, dv),
        .mask = causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE,
    };
    const fa_tensor *tensors[TENSORS] = {&desc.q, &desc.k, &desc.v, &desc.o};
    slot *s = find_slot(w, index);
    slot_clear(s);
    bool ok = make_plan(w, s, &desc);
    for (int i = 0; ok && i < TENSORS; i++)
        ok = make_tensor(w, tensors[i], i, &s->tensors[i]);
    bind(s);
    if (ok && run_once(w, s) && plausible(w, s, t))
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

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
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
    double *seconds = malloc((size_t)count * sizeof(*seconds));
    bool ok = seconds || refuse("out of memory");
    for (int i = 0; ok && i < warm; i++)
        ok = run_once(w, s);
    for (int i = 0; ok && i < count; i++) {
        double start = now();
        ok = run_once(w, s);
        seconds[i] = now() - start;
    }
    if (ok) {
        qsort(seconds, (size_t)count, sizeof(*seconds), compare_doubles);
        answer("ok", "%.9e", 0.5 * (seconds[(count - 1) / 2] + seconds[count / 2]));
    }
    free(seconds);
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
    answer("ok", "fastattn %s, %s, threads: %" PRIu32 ", kernels: %s%s", fa_version(), info.name, info.units,
           info.kernels, note);
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

int main(void)
{
    static worker w;
    bool ok = passed(fa_context_create(NULL, &w.context)) &&
              passed(fa_device_open(w.context, "openmp", NULL, &w.device)) &&
              passed(fa_queue_create(w.device, &w.queue)) && introduce(&w);
    if (ok)
        serve(&w);
    drop(&w);
    fa_queue_destroy(w.queue);
    fa_device_close(w.device);
    fa_context_destroy(w.context);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
