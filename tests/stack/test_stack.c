/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public functions on threads with small stacks: 128 KiB, which musl gives by default, and 64 KiB. A stack that
 * overflows ends the process. Every kernel of the named backend runs; results are compared where it computes.
 * It needs neither Check nor anything else, so that it builds with any C library.
 *
 *   test_stack BACKEND [computes]
 */
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2, HEADS = 4, HEADS_KV = 2, ROWS = 70, KEYS = 150, DIM = 72, ROW = DIM };
enum { Q = BATCH * HEADS * ROWS * DIM, KV = BATCH * HEADS_KV * KEYS * DIM, LSE = BATCH * HEADS * ROWS };

/* Not on the stacks that are tested. */
static float q[Q], k[KV], v[KV], o[Q], lse[LSE], naive_o[Q], naive_lse[LSE], bias[ROWS * KEYS];
static double exact_o[Q], exact_lse[LSE], limit_o[LSE], limit_lse[LSE];
static uint16_t q16[Q], k16[KV], v16[KV], o16[Q];
static float partial[2 * Q], partial_lse[2 * LSE];
static unsigned char keep[BATCH * KEYS];

typedef struct job {
    const char *backend;
    int computes;
    char failure[1200]; /* "" where all went well */
    long ran;           /* problems, on all kernels */
} job;

static int went(job *j, const char *what, fa_status status)
{
    if (status != FA_OK && j->failure[0] == '\0')
        (void)snprintf(j->failure, sizeof(j->failure), "%s: %s: %s", what, fa_status_name(status),
                       fa_last_error());
    return status == FA_OK;
}

static void fill(float *values, int count, unsigned seed)
{
    for (int i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)(seed >> 8) / (float)(1 << 24) - 0.5f;
    }
}

static fa_attention_desc describe(fa_dtype type, int64_t rows)
{
    fa_attention_desc desc = {.struct_size = sizeof(desc)};
    desc.q = desc.o = fa_tensor_make(type, BATCH, HEADS, rows, DIM);
    desc.k = desc.v = fa_tensor_make(type, BATCH, HEADS_KV, KEYS, DIM);
    desc.want_lse = 1;
    return desc;
}

static void compare(job *j, const char *kernel, int count)
{
    for (int i = 0; j->computes && i < count; i++) {
        if (!(fabs((double)o[i] - exact_o[i]) < 1e-4) && j->failure[0] == '\0')
            (void)snprintf(j->failure, sizeof(j->failure), "%s: o[%d] is %g, expected %g", kernel, i,
                           (double)o[i], exact_o[i]);
    }
}

/* One kernel, or where `kernel` is NULL the planner's choice, on problems of many kinds. */
static void run_kernel(job *j, fa_context *context, fa_device *device, const char *kernel)
{
    static const float slopes[HEADS] = {0.5f, 0.25f, 0.125f, 0.0625f}, sinks[HEADS] = {0, 1, -1, 0.5f};
    static const int64_t lens[BATCH] = {KEYS, KEYS / 2};
    const char *name = kernel ? kernel : "planned";
    for (int kind = 0; kind < 6; kind++) {
        fa_attention_desc desc = describe(kind == 4   ? FA_F16
                                          : kind == 5 ? FA_BF16
                                                      : FA_F32,
                                          kind == 1 ? 1 : ROWS);
        fa_inputs inputs = {.q = q, .k = k, .v = v};
        void *out = o;
        char reason[256];
        const fa_tuning tuning = {
            .struct_size = sizeof(tuning), .kernel = kernel, .splits = kind == 1 ? 3 : 0};
        desc.tuning = &tuning;
        if (kind == 2) {
            desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
            desc.window_left = 60;
            desc.alibi_slopes = slopes;
            desc.sinks = sinks;
            desc.softcap = 20;
            desc.lens_kv = lens;
        }
        if (kind == 3) {
            desc.bias = fa_tensor_make(FA_F32, 1, 1, ROWS, KEYS);
            desc.keep = fa_tensor_make(FA_BOOL, BATCH, 1, 1, KEYS);
            inputs.bias = bias;
            inputs.keep = keep;
        }
        if (kind >= 4) {
            inputs = (fa_inputs){.q = q16, .k = k16, .v = v16};
            out = o16;
        }
        if (fa_device_supports(device, &desc, reason, sizeof(reason)) != FA_OK)
            continue; /* a kernel of other types or shapes */
        if (!went(j, name,
                  fa_attention_host(device, &desc, inputs.q, inputs.k, inputs.v, inputs.bias, inputs.keep,
                                    out, lse)))
            continue;
        j->ran++;
        desc.tuning = NULL;
        if (kind < 4 &&
            went(j, "reference", fa_reference_attention(context, &desc, &inputs, exact_o, exact_lse)))
            compare(j, name, kind == 1 ? BATCH * HEADS * DIM : Q);
    }
}

/* A plan by hand: buffers, a queue, what the plan tells of itself. */
static void run_plan(job *j, fa_device *device)
{
    fa_attention_desc desc = describe(FA_F32, ROWS);
    fa_plan *plan = NULL;
    fa_queue *queue = NULL;
    fa_buffer *buffer[6] = {NULL};
    const size_t size[6] = {sizeof(q), sizeof(k), sizeof(v), sizeof(o), sizeof(lse), 0};
    int good = went(j, "fa_plan_create", fa_plan_create(device, &desc, &plan)) &&
               went(j, "fa_queue_create", fa_queue_create(device, &queue));
    for (int i = 0; good && i < 6; i++)
        good = went(j, "fa_buffer_create",
                    fa_buffer_create(device, size[i] ? size[i] : fa_plan_workspace(plan) + 1, &buffer[i]));
    const void *const inputs[] = {q, k, v};
    for (int i = 0; good && i < 3; i++)
        good = went(j, "fa_buffer_write", fa_buffer_write(queue, buffer[i], 0, inputs[i], size[i]));
    if (good) {
        fa_attention_args args = {.struct_size = sizeof(args),
                                  .q = buffer[0],
                                  .k = buffer[1],
                                  .v = buffer[2],
                                  .o = buffer[3],
                                  .lse = buffer[4]};
        fa_plan_info info = {.struct_size = sizeof(info)};
        int64_t rows, columns;
        fa_tile_class tile;
        double seconds;
        args.workspace = fa_plan_workspace(plan) ? buffer[5] : NULL;
        (void)(went(j, "fa_plan_run", fa_plan_run(plan, queue, &args)) &&
               went(j, "fa_queue_wait", fa_queue_wait(queue)) &&
               went(j, "fa_buffer_read", fa_buffer_read(queue, buffer[3], 0, o, sizeof(o))) &&
               went(j, "fa_plan_get_info", fa_plan_get_info(plan, &info)) &&
               went(j, "fa_plan_grid", fa_plan_grid(plan, 0, &rows, &columns)) &&
               went(j, "fa_plan_tile", fa_plan_tile(plan, 0, rows - 1, columns - 1, &tile)) &&
               went(j, "fa_plan_head_tile", fa_plan_head_tile(plan, 0, 0, rows - 1, columns - 1, &tile)));
        (void)fa_queue_seconds(queue, &seconds);
    }
    for (int i = 0; i < 6; i++)
        fa_buffer_destroy(buffer[i]);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
}

static void run_host_functions(job *j, fa_context *context)
{
    fa_attention_desc desc = describe(FA_F32, ROWS);
    const fa_inputs inputs = {.q = q, .k = k, .v = v};
    fa_merge_desc merge = {
        .struct_size = sizeof(merge), .parts = 2, .partial = desc.o, .o = desc.o, .want_lse = 1};
    size_t bytes;
    for (int order = 0; order < FA_NAIVE_ORDERS; order++)
        (void)went(
            j, "fa_naive_attention",
            fa_naive_attention(context, &desc, &inputs, (fa_naive_order)order, FA_F32, naive_o, naive_lse));
    (void)went(j, "fa_reference_limit",
               fa_reference_limit(context, &desc, &inputs, FA_F32, 1, limit_o, limit_lse));
    (void)went(j, "fa_merge_host", fa_merge_host(&merge, partial, partial_lse, o, lse));
    (void)went(j, "fa_tensor_span", fa_tensor_span(&desc.q, &bytes));
}

static void run_device(job *j, fa_context *context, const char *name)
{
    fa_device *device;
    if (!went(j, "fa_device_open", fa_device_open(context, name, NULL, &device)))
        return;
    fa_device_info info = {.struct_size = sizeof(info)};
    if (went(j, "fa_device_get_info", fa_device_get_info(device, &info))) {
        run_kernel(j, context, device, NULL);
        for (char *rest = info.kernels; *rest;) {
            char *next = rest + strcspn(rest, ",");
            if (*next)
                *next++ = '\0';
            run_kernel(j, context, device, rest);
            rest = next;
        }
        run_plan(j, device);
    }
    fa_device_close(device);
}

static void *run(void *memory)
{
    job *j = memory;
    fa_context *context;
    fa_device *none;
    if (!went(j, "fa_context_create", fa_context_create(NULL, &context)))
        return NULL;
    for (size_t i = 0; i < fa_device_count(context); i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        (void)went(j, "fa_device_describe", fa_device_describe(context, i, &info));
        char name[80];
        (void)snprintf(name, sizeof(name), "%s:%d", info.backend, (int)info.index);
        if (info.available && strcmp(info.backend, j->backend) == 0)
            run_device(j, context, name);
    }
    (void)fa_device_open(context, "no such backend", NULL, &none); /* a long message */
    run_host_functions(j, context);
    fa_context_destroy(context);
    return NULL;
}

static int run_on(const char *backend, int computes, size_t stack)
{
    job j = {.backend = backend, .computes = computes};
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstacksize(&attributes, stack) != 0 ||
        pthread_create(&thread, &attributes, run, &j) != 0) {
        fprintf(stderr, "no thread with a stack of %zu bytes\n", stack);
        return 0;
    }
    (void)pthread_join(thread, NULL);
    (void)pthread_attr_destroy(&attributes);
    if (j.failure[0] == '\0' && j.ran == 0)
        (void)snprintf(j.failure, sizeof(j.failure), "no device of it ran a problem");
    printf("%s, %zu bytes of stack: %ld problems%s%s\n", backend, stack, j.ran, j.failure[0] ? "; " : "",
           j.failure);
    (void)fflush(stdout);
    return j.failure[0] == '\0';
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    fill(q, Q, 1);
    fill(k, KV, 2);
    fill(v, KV, 3);
    fill(bias, ROWS * KEYS, 4);
    fill(partial, 2 * Q, 5);
    fill(partial_lse, 2 * LSE, 6);
    for (int i = 0; i < BATCH * KEYS; i++)
        keep[i] = i % 5 != 0;
    int computes = argc > 2 && strcmp(argv[2], "computes") == 0;
    return run_on(argv[1], computes, (size_t)128 << 10) && run_on(argv[1], computes, (size_t)64 << 10) ? 0
                                                                                                       : 1;
}
