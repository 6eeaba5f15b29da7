/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not a test: a measurement. One token of 64 sequences into a paged q8_0 cache, 8 heads of 128 dims, f16 rows: as it is, with
 * K rotated, and with Q of 32 heads rotated too. The least of many appends, by the device's clock where it has one.
 *
 *   time_append BACKEND
 */
#include <fastattn/fastattn.h>
#include <fastattn/reference.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SEQUENCES = 64, HEADS = 8, HEADS_Q = 32, DIM = 128, PAGE = 16, PAGES = 4096, TURNS = 300 };

static fa_device *device;
static fa_queue *queue;

static void need(fa_status status)
{
    if (status == FA_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    exit(status == FA_NO_DEVICE ? 77 : EXIT_FAILURE);
}

static fa_buffer *buffer_of(const fa_tensor *t, const void *bytes)
{
    fa_buffer *buffer;
    size_t span;
    need(fa_tensor_span(t, &span));
    void *zeros = calloc(1, span);
    need(fa_buffer_create(device, span, &buffer));
    need(fa_buffer_write(queue, buffer, 0, bytes ? bytes : zeros, span));
    free(zeros);
    return buffer;
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* An idle GPU has a slow clock: it works for a while before it is timed. */
static void warm_up(const fa_append *append, const fa_append_args *args)
{
    for (const double begin = now(); now() - begin < 0.6;) {
        for (int i = 0; i < 100; i++)
            need(fa_append_run(append, queue, args));
        need(fa_queue_wait(queue));
    }
}

/* The least seconds of an append. */
static double measure(const fa_append *append, const fa_append_args *args)
{
    double least = 1e9;
    for (int turn = 0; turn < TURNS; turn++) {
        const double begin = now();
        double seconds;
        need(fa_append_run(append, queue, args));
        need(fa_queue_wait(queue));
        const double host = now() - begin;
        if (fa_queue_seconds(queue, &seconds) != FA_OK)
            seconds = host;
        least = seconds < least ? seconds : least;
    }
    return least;
}

static void measure_case(const char *name, fa_rotary_form form, int heads_q)
{
    static int32_t slots[SEQUENCES], positions[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) {
        slots[i] = (i * 977 + 13) % PAGES * PAGE + i % PAGE;
        positions[i] = i * 1000;
    }
    fa_append_desc desc = {
        .struct_size = sizeof(desc),
        .k = fa_tensor_make(FA_F16, SEQUENCES, HEADS, 1, DIM),
        .v = fa_tensor_make(FA_F16, SEQUENCES, HEADS, 1, DIM),
        .cache_k = fa_tensor_make(FA_Q8_0, PAGES, HEADS, PAGE, DIM),
        .cache_v = fa_tensor_make(FA_Q8_0, PAGES, HEADS, PAGE, DIM),
        .rotary = {.form = form},
    };
    if (heads_q > 0)
        desc.q = desc.q_out = fa_tensor_make(FA_F16, SEQUENCES, heads_q, 1, DIM);
    const fa_tensor list = fa_tensor_make(FA_I32, SEQUENCES, 1, 1, 1);
    static uint16_t rows[SEQUENCES * HEADS * DIM];
    for (int i = 0; i < SEQUENCES * HEADS * DIM; i++)
        rows[i] = fa_f32_to_f16((float)(i * 37 % 101 - 50));
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = buffer_of(&desc.k, rows),
        .v = buffer_of(&desc.v, rows),
        .slots = buffer_of(&list, slots),
        .cache_k = buffer_of(&desc.cache_k, NULL),
        .cache_v = buffer_of(&desc.cache_v, NULL),
        .positions = form != FA_ROTARY_NONE ? buffer_of(&list, positions) : NULL,
        .q = heads_q > 0 ? buffer_of(&desc.q, NULL) : NULL,
        .q_out = heads_q > 0 ? buffer_of(&desc.q_out, NULL) : NULL,
    };
    fa_buffer *const all[] = {args.k,       args.v,         args.slots, args.cache_k,
                              args.cache_v, args.positions, args.q,     args.q_out};
    fa_append *append;
    need(fa_append_create(device, &desc, &append));
    warm_up(append, &args);
    (void)printf("%-30s %8.2f us\n", name, measure(append, &args) * 1e6);
    fa_append_destroy(append);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        fa_buffer_destroy(all[i]);
}

int main(int count, char **arguments)
{
    fa_context *context;
    need(fa_context_create(NULL, &context));
    need(fa_device_open(context, count > 1 ? arguments[1] : NULL, NULL, &device));
    need(fa_queue_create(device, &queue));
    measure_case("k and v", FA_ROTARY_NONE, 0);
    measure_case("k rotated, and v", FA_ROTARY_HALVES, 0);
    measure_case("k and q rotated, and v", FA_ROTARY_HALVES, HEADS_Q);
    fa_queue_destroy(queue);
    fa_device_close(device);
    fa_context_destroy(context);
    return EXIT_SUCCESS;
}
