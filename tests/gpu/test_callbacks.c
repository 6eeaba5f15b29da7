/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log callback and an allocator that call the library back, each time with every kind of call: the library holds no
 * lock while it calls out. A lock that is held makes this test hang; its alarm ends it.
 */
#include <fastattn/reference.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/helpers.h"

enum { HEADS = 2, ROWS = 40, KEYS = 96, DIM = 32, SECONDS = 100 };
enum { OUT = HEADS * ROWS * DIM, IN = HEADS * KEYS * DIM };

static fa_context *outer; /* NULL: being made */
static fa_device *opened; /* NULL: being opened */
static int depth;         /* of calls out */
static long called[2];    /* by the log, by the allocator */
static float q[OUT], k[IN], v[IN], o[OUT];
static fa_tuning tuning = {.struct_size = sizeof(tuning), .splits = 2};

/* Of a type: what the callbacks compute needs other device code, so that the outer call still has to make its own. */
static fa_attention_desc problem(fa_dtype dtype)
{
    fa_attention_desc d = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    d.q.dtype = d.k.dtype = d.v.dtype = dtype;
    d.tuning = &tuning;
    return d;
}

static void use_context(void)
{
    const fa_attention_desc small = make_desc(1, 1, 1, 4, 4, 4);
    const fa_inputs in = {.q = q, .k = k, .v = v};
    static double expected[16];
    fa_context *other;
    (void)fa_context_create(NULL, &other);
    fa_context_destroy(other);
    for (size_t i = 0; i < fa_device_count(outer); i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        (void)fa_device_describe(outer, i, &info);
    }
    /* Opening is slow; of calls by the allocator some will do. */
    if (called[0] + called[1] < 8) {
        fa_device *device = NULL;
        (void)fa_device_open(outer, FA_TEST_BACKEND, NULL, &device);
        fa_device_close(device);
    }
    (void)fa_reference_attention(outer, &small, &in, expected, NULL);
}

static void use_device(fa_device *device)
{
    const fa_attention_desc d = problem(FA_F16);
    fa_device_info info = {.struct_size = sizeof(info)};
    fa_plan_info plan_info = {.struct_size = sizeof(plan_info)};
    fa_queue *queue = NULL;
    fa_buffer *buffer = NULL;
    fa_plan *plan = NULL;
    char reason[64];
    (void)fa_device_get_info(device, &info);
    (void)fa_device_supports(device, &d, reason, sizeof(reason));
    (void)fa_queue_create(device, &queue);
    (void)fa_buffer_create(device, sizeof(q), &buffer);
    if (queue && buffer) {
        (void)fa_buffer_write(queue, buffer, 0, q, sizeof(q));
        (void)fa_buffer_read(queue, buffer, 0, o, sizeof(o));
        (void)fa_queue_wait(queue);
    }
    fa_buffer_destroy(buffer);
    fa_queue_destroy(queue);
    if (fa_plan_create(device, &d, &plan) == FA_OK)
        (void)fa_plan_get_info(plan, &plan_info);
    fa_plan_destroy(plan);
    (void)fa_attention_host(device, &d, q, k, v, NULL, NULL, o, NULL);
}

static void call_back(int who)
{
    if (depth > 0 || !outer)
        return;
    depth++;
    called[who]++;
    if (opened)
        use_device(opened);
    else
        use_context();
    depth--;
}

static void log_back(void *user, fa_log_level level, const char *message)
{
    (void)user;
    (void)level;
    (void)message;
    call_back(0);
}

static void *allocate_back(void *user, size_t size, size_t alignment)
{
    (void)user;
    void *made = NULL;
    call_back(1);
    return posix_memalign(&made, alignment, size) == 0 ? made : NULL;
}

static void release_back(void *user, void *piece, size_t size)
{
    (void)user;
    (void)size;
    call_back(1);
    free(piece);
}

int main(void)
{
    const fa_context_options options = {.struct_size = sizeof(options),
                                        .log = log_back,
                                        .log_level = FA_LOG_DEBUG,
                                        .threads = 2,
                                        .allocator = {allocate_back, release_back, NULL}};
    const fa_attention_desc d = problem(FA_F32);
    fa_device *device;
    (void)alarm(SECONDS);
    if (fa_context_create(&options, &outer) != FA_OK)
        return EXIT_FAILURE;
    if (fa_device_open(outer, FA_TEST_BACKEND, NULL, &device) != FA_OK) {
        (void)printf("skipped: %s\n", fa_last_error());
        return 77;
    }
    /* So that memory comes from a block that is there. */
    fa_buffer *first = NULL;
    depth++;
    (void)fa_buffer_create(device, sizeof(q), &first);
    depth--;
    opened = device;
    fa_status status = fa_attention_host(device, &d, q, k, v, NULL, NULL, o, NULL);
    if (status != FA_OK)
        (void)fprintf(stderr, "%s: %s\n", fa_status_name(status), fa_last_error());
    fa_buffer_destroy(first);
    opened = NULL;
    fa_device_close(device);
    fa_context *made = outer;
    outer = NULL;
    fa_context_destroy(made);
    (void)printf("called back by the log %ld times, by the allocator %ld times\n", called[0], called[1]);
    return status == FA_OK && called[0] > 0 && called[1] > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
