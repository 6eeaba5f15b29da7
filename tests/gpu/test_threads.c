/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that share a device, a plan or nothing: each gets what one thread alone gets, bit for bit. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/helpers.h"

enum { THREADS = 4, TURNS = 6, HEADS = 2, ROWS = 48, KEYS = 96, DIM = 32 };
enum { IN = HEADS * KEYS * DIM, OUT = HEADS * ROWS * DIM };

typedef struct worker {
    int number;
    fa_device *device;     /* NULL: opens its own, in a context of its own */
    const fa_plan *shared; /* NULL: makes its own */
    fa_attention_desc desc;
    float q[OUT], k[IN], v[IN], o[TURNS][OUT];
    char failure[1100]; /* checks of the test framework are for its own thread */
} worker;

static worker workers[THREADS];
static bool has_device;
static float alone[THREADS][OUT];
static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_open = PTHREAD_COND_INITIALIZER;
static int gate_count;

/* Lets all threads go at once. */
static void meet(void)
{
    (void)pthread_mutex_lock(&gate_lock);
    if (++gate_count == THREADS)
        (void)pthread_cond_broadcast(&gate_open);
    while (gate_count < THREADS)
        (void)pthread_cond_wait(&gate_open, &gate_lock);
    (void)pthread_mutex_unlock(&gate_lock);
}

static bool good(worker *w, fa_status status)
{
    if (status != FA_OK && w->failure[0] == '\0')
        (void)snprintf(w->failure, sizeof(w->failure), "%s: %s", fa_status_name(status), fa_last_error());
    return status == FA_OK;
}

static void run_turns(worker *w, const fa_plan *plan, fa_queue *queue, const fa_attention_args *args)
{
    for (int turn = 0; turn < TURNS && w->failure[0] == '\0'; turn++) {
        memset(w->o[turn], 0xff, sizeof(w->o[turn]));
        (void)(good(w, fa_buffer_write(queue, args->q, 0, w->q, sizeof(w->q))) &&
               good(w, fa_buffer_write(queue, args->k, 0, w->k, sizeof(w->k))) &&
               good(w, fa_buffer_write(queue, args->v, 0, w->v, sizeof(w->v))) &&
               good(w, fa_plan_run(plan, queue, args)) && good(w, fa_queue_wait(queue)) &&
               good(w, fa_buffer_read(queue, args->o, 0, w->o[turn], sizeof(w->o[turn]))));
    }
}

/* All that a thread does with a device, its own plan or another's. */
static void use_device(worker *w, fa_device *device)
{
    fa_plan *own = NULL;
    fa_queue *queue = NULL;
    fa_buffer *workspace = NULL;
    fa_attention_args args = {.struct_size = sizeof(args)};
    bool ready = (w->shared || good(w, fa_plan_create(device, &w->desc, &own))) &&
                 good(w, fa_queue_create(device, &queue)) &&
                 good(w, fa_buffer_create(device, sizeof(w->q), &args.q)) &&
                 good(w, fa_buffer_create(device, sizeof(w->k), &args.k)) &&
                 good(w, fa_buffer_create(device, sizeof(w->v), &args.v)) &&
                 good(w, fa_buffer_create(device, sizeof(w->o[0]), &args.o));
    const fa_plan *plan = w->shared ? w->shared : own;
    if (ready && fa_plan_workspace(plan) > 0)
        ready = good(w, fa_buffer_create(device, fa_plan_workspace(plan), &workspace));
    args.workspace = workspace;
    if (ready)
        run_turns(w, plan, queue, &args);
    fa_buffer_destroy(args.q);
    fa_buffer_destroy(args.k);
    fa_buffer_destroy(args.v);
    fa_buffer_destroy(args.o);
    fa_buffer_destroy(workspace);
    fa_queue_destroy(queue);
    fa_plan_destroy(own);
}

static void *work(void *user)
{
    worker *w = user;
    meet();
    if (w->device) {
        use_device(w, w->device);
        return NULL;
    }
    fa_context *own = NULL;
    fa_device *device = NULL;
    if (good(w, fa_context_create(NULL, &own))) {
        for (size_t i = 0; i < fa_device_count(own); i++) {
            fa_device_info info = {.struct_size = sizeof(info)};
            (void)good(w, fa_device_describe(own, i, &info));
        }
        if (good(w, fa_device_open(own, FA_TEST_BACKEND, NULL, &device)))
            use_device(w, device);
    }
    fa_device_close(device);
    fa_context_destroy(own);
    return NULL;
}

/* The problems differ in their data; where `masks`, in their kernels too. */
static void prepare(bool masks)
{
    static const fa_tuning tuning = {.struct_size = sizeof(tuning), .splits = 2};
    memset(workers, 0, sizeof(workers));
    gate_count = 0;
    for (int i = 0; i < THREADS; i++) {
        random_state random = {(uint64_t)i + 1};
        worker *w = &workers[i];
        w->number = i;
        w->desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
        w->desc.tuning = &tuning; /* with a workspace, which threads may not share */
        w->desc.mask = masks && i % 2 == 1 ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
        for (int n = 0; n < OUT; n++)
            w->q[n] = random_float(&random, -1, 1);
        for (int n = 0; n < IN; n++) {
            w->k[n] = random_float(&random, -1, 1);
            w->v[n] = random_float(&random, -1, 1);
        }
    }
}

static fa_device *open_device(void)
{
    fa_device *device;
    ck_assert_msg(fa_device_open(context, FA_TEST_BACKEND, NULL, &device) == FA_OK, "%s", fa_last_error());
    return device;
}

static void run_threads(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}

static void compute_alone(void)
{
    fa_device *device = open_device();
    for (int i = 0; i < THREADS; i++) {
        const worker *w = &workers[i];
        memset(alone[i], 0xff, sizeof(alone[i]));
        ck_assert_msg(fa_attention_host(device, &w->desc, w->q, w->k, w->v, NULL, NULL, alone[i], NULL) ==
                          FA_OK,
                      "%s", fa_last_error());
    }
    fa_device_close(device);
}

static void assert_as_alone(int count)
{
    /* A driver that computes nothing has nothing to compare. */
    bool computes = getenv("STUB_DEVICES") == NULL;
    for (int i = 0; i < count; i++) {
        ck_assert_msg(workers[i].failure[0] == '\0', "thread %d: %s", i, workers[i].failure);
        for (int turn = 0; turn < TURNS && computes; turn++)
            ck_assert_msg(memcmp(workers[i].o[turn], alone[i], sizeof(alone[i])) == 0,
                          "thread %d, turn %d: not what one thread alone gets", i, turn);
    }
}

/* In the first test, where the driver is looked for by all threads at once. */
static void check_device(void)
{
    has_device = strncmp(workers[0].failure, "FA_NO_DEVICE", strlen("FA_NO_DEVICE")) != 0;
    if (!has_device)
        (void)printf("skipped: %s\n", workers[0].failure);
}

START_TEST(contexts_of_their_own)
{
    prepare(true);
    run_threads();
    check_device();
    if (!has_device)
        return;
    compute_alone();
    assert_as_alone(THREADS);
}
END_TEST

START_TEST(one_device)
{
    if (!has_device)
        return;
    prepare(true);
    compute_alone();
    fa_device *device = open_device();
    for (int i = 0; i < THREADS; i++)
        workers[i].device = device;
    run_threads();
    fa_device_close(device);
    assert_as_alone(THREADS);
}
END_TEST

START_TEST(one_plan)
{
    if (!has_device)
        return;
    prepare(false);
    compute_alone();
    fa_device *device = open_device();
    fa_plan *plan;
    ck_assert_msg(fa_plan_create(device, &workers[0].desc, &plan) == FA_OK, "%s", fa_last_error());
    for (int i = 0; i < THREADS; i++) {
        workers[i].device = device;
        workers[i].shared = plan;
    }
    run_threads();
    fa_plan_destroy(plan);
    fa_device_close(device);
    assert_as_alone(THREADS);
}
END_TEST

/* The queue, buffers and data of one worker, without a thread. */
static void start(worker *w, fa_device *device, const fa_plan *plan, fa_queue **queue,
                  fa_attention_args *args)
{
    const float *const from[3] = {w->q, w->k, w->v};
    const size_t bytes[3] = {sizeof(w->q), sizeof(w->k), sizeof(w->v)};
    fa_buffer **const to[3] = {&args->q, &args->k, &args->v};
    *args = (fa_attention_args){.struct_size = sizeof(*args)};
    ck_assert_int_eq(fa_queue_create(device, queue), FA_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(fa_buffer_create(device, bytes[i], to[i]), FA_OK);
        ck_assert_int_eq(fa_buffer_write(*queue, *to[i], 0, from[i], bytes[i]), FA_OK);
    }
    ck_assert_int_eq(fa_buffer_create(device, sizeof(w->o[0]), &args->o), FA_OK);
    if (fa_plan_workspace(plan) > 0)
        ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan), &args->workspace), FA_OK);
}

static void finish(worker *w, fa_queue *queue, const fa_attention_args *args)
{
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    for (int turn = 0; turn < TURNS; turn++)
        ck_assert_int_eq(fa_buffer_read(queue, args->o, 0, w->o[turn], sizeof(w->o[0])), FA_OK);
    fa_buffer_destroy(args->q);
    fa_buffer_destroy(args->k);
    fa_buffer_destroy(args->v);
    fa_buffer_destroy(args->o);
    fa_buffer_destroy(args->workspace);
    fa_queue_destroy(queue);
}

/* Work of two queues in turn, none of it waited for. */
START_TEST(two_queues)
{
    if (!has_device)
        return;
    prepare(false);
    compute_alone();
    fa_device *device = open_device();
    fa_plan *plan;
    fa_queue *queue[2];
    fa_attention_args args[2];
    ck_assert_int_eq(fa_plan_create(device, &workers[0].desc, &plan), FA_OK);
    for (int i = 0; i < 2; i++)
        start(&workers[i], device, plan, &queue[i], &args[i]);
    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < 2; i++)
            ck_assert_int_eq(fa_plan_run(plan, queue[i], &args[i]), FA_OK);
    }
    for (int i = 0; i < 2; i++)
        finish(&workers[i], queue[i], &args[i]);
    fa_plan_destroy(plan);
    fa_device_close(device);
    assert_as_alone(2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create(FA_TEST_BACKEND " threads");
    TCase *tc = add_context_case(suite, "threads");
    tcase_add_test(tc, contexts_of_their_own);
    tcase_add_test(tc, one_device);
    tcase_add_test(tc, one_plan);
    tcase_add_test(tc, two_queues);
    int result = run_unforked(suite);
    return result == EXIT_SUCCESS && !has_device ? 77 : result;
}
