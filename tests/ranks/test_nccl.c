/* SPDX-License-Identifier: Apache-2.0 */
/* The transport over NCCL, on a stub of NCCL and of the driver, which FASTATTN_NCCL_LIBRARY and FASTATTN_CUDA_LIBRARY name. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/half.h"
#include "core/ranks/transport.h"
#include "tests/ranks/context_scene.h"
#include "tests/ranks/ring_scene.h"
#include "tests/ranks/stub_nccl.h"
#include "tests/unit/helpers.h"

enum { RANKS = 3, COUNT_OF = 1000 };
static const stub_nccl *stub;

/* Seconds. Where a rank is missed a test waits for it to end; elsewhere a busy machine has time. */
#define LONG 10.0
#define SHORT 1.0

typedef struct job {
    pthread_t thread;
    int rank;
    void (*body)(struct job *j);
    fa_transport *transport;
    double timeout;
    fa_status status;
    int wrong;
    char message[256];
    double seconds;
} job;

static void keep(job *j, fa_status status)
{
    j->status = status;
    (void)snprintf(j->message, sizeof(j->message), "%s", fa_last_error());
}

static void *run(void *argument)
{
    job *j = argument;
    stub->set_current(stub->context());
    keep(j, fa_transport_create_nccl(context, stub->comm(j->rank), stub->stream(j->rank), &j->transport));
    stub->set_current(NULL); /* calls bring the context themselves */
    const double start = fa_clock();
    if (j->status == FA_OK) {
        j->transport->timeout = j->timeout;
        j->body(j);
    }
    j->seconds = fa_clock() - start;
    fa_transport_destroy(j->transport);
    return NULL;
}

static void on_stub(int looks, double timeout, void (*body)(job *j), job jobs[RANKS])
{
    stub->reset(RANKS, looks);
    for (int r = 0; r < RANKS; r++) {
        jobs[r] = (job){.rank = r, .body = body, .timeout = timeout};
        ck_assert_int_eq(pthread_create(&jobs[r].thread, NULL, run, &jobs[r]), 0);
    }
    for (int r = 0; r < RANKS; r++)
        (void)pthread_join(jobs[r].thread, NULL);
    ck_assert_int_eq(stub->live(), 0);
}

/* Rank 1 went away after what it did. */
static void assert_others_are_told(const job jobs[RANKS])
{
    for (int r = 0; r < RANKS; r++) {
        ck_assert_int_eq(jobs[r].status, r == 1 ? FA_OK : FA_RANK_LOST);
        ck_assert_int_eq(jobs[r].wrong, 0);
        ck_assert_double_lt(jobs[r].seconds, SHORT + 2);
        if (r != 1)
            ck_assert_msg(strstr(jobs[r].message, "ncclAllReduce: another rank did not come within 1 s") !=
                              NULL,
                          "%s", jobs[r].message);
    }
}

/* Rank 0 let the communicator fail. */
static void assert_failure_is_told(const job jobs[RANKS])
{
    for (int r = 1; r < RANKS; r++) {
        ck_assert_int_eq(jobs[r].status, FA_RANK_LOST);
        ck_assert_msg(strstr(jobs[r].message, "remote process exited") != NULL, "%s", jobs[r].message);
    }
}

/* What the rank before sent, and nothing behind it. */
static void shift_some(job *j)
{
    const int before = (j->rank + RANKS - 1) % RANKS;
    for (size_t count = 0; count < 40 && j->status == FA_OK; count += 13) {
        int sent[40], received[40];
        for (int i = 0; i < 40; i++) {
            sent[i] = 100 * j->rank + i;
            received[i] = -1;
        }
        keep(j, fa_shift(j->transport, sent, received, count * sizeof(int)));
        for (int i = 0; j->status == FA_OK && i < 40; i++)
            j->wrong += received[i] != (i < (int)count ? 100 * before + i : -1);
    }
}

/* Sums of whole numbers, which no order rounds; gathers and shifts of growing sizes. */
static void sum_and_gather(job *j)
{
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
    for (int t = 0; t < 3; t++) {
        float data[COUNT_OF] = {0};
        for (int i = 0; i < COUNT_OF; i++)
            fa_store(types[t], data, i, (float)((i + j->rank) % 7));
        keep(j, fa_allreduce(j->transport, types[t], data, t == 2 ? 0 : COUNT_OF - 1));
        if (j->status != FA_OK)
            return;
        for (int i = 0; i < COUNT_OF; i++) {
            const bool summed = t != 2 && i < COUNT_OF - 1;
            const float sum = (float)(summed ? i % 7 + (i + 1) % 7 + (i + 2) % 7 : (i + j->rank) % 7);
            j->wrong += fa_load(types[t], data, i) != sum;
        }
    }
    for (size_t count = 0; count < 40; count += 13) {
        int own[40], all[RANKS * 40];
        for (int i = 0; i < 40; i++)
            own[i] = 100 * j->rank + i;
        for (int data = 0; data < 2; data++) {
            memset(all, 0xff, sizeof(all));
            keep(j, (data ? fa_allgather_data : fa_allgather)(j->transport, own, all, count * sizeof(int)));
            for (size_t i = 0; j->status == FA_OK && i < RANKS * count; i++)
                j->wrong += all[i] != (int)(100 * (i / count) + i % count);
        }
    }
    if (j->status == FA_OK)
        shift_some(j);
}

START_TEST(sums_and_gathers)
{
    for (int looks = 0; looks <= 5; looks += 5) {
        job jobs[RANKS];
        on_stub(looks, LONG, sum_and_gather, jobs);
        for (int r = 0; r < RANKS; r++) {
            ck_assert_msg(jobs[r].status == FA_OK, "%s", jobs[r].message);
            ck_assert_int_eq(jobs[r].wrong, 0);
        }
    }
}
END_TEST

static fa_device *device;
static const ring_scene *scene;

/* Where this stub's ranks are, a device's memory is the host's. */
static fa_transport of_host_memory(const fa_transport *nccl)
{
    fa_transport t = *nccl;
    t.device_memory = 0;
    t.events = NULL;
    t.enqueue = NULL;
    t.finish = NULL;
    return t;
}

static void run_ring(job *j)
{
    const fa_transport t = of_host_memory(j->transport);
    keep(j, ring_scene_run(device, &t, scene, &j->wrong));
}

START_TEST(a_ring)
{
    static const ring_kind kind = {.tokens = 61, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT};
    ring_scene made;
    job jobs[RANKS];
    ck_assert_int_eq(fa_device_open(context, "openmp", NULL, &device), FA_OK);
    ck_assert_int_eq(ring_scene_make(context, &kind, RANKS, &made), FA_OK);
    scene = &made;
    on_stub(2, LONG, run_ring, jobs);
    for (int r = 0; r < RANKS; r++) {
        ck_assert_msg(jobs[r].status == FA_OK, "%s", jobs[r].message);
        ck_assert_int_eq(jobs[r].wrong, 0);
    }
    ring_scene_release(&made);
    fa_device_close(device);
}
END_TEST

static const context_scene *keys;

static void run_context(job *j)
{
    const fa_transport t = of_host_memory(j->transport);
    keep(j, context_scene_run(device, &t, keys, &j->wrong));
}

START_TEST(a_context)
{
    static const context_kind kind = {.rows = 2};
    context_scene made;
    job jobs[RANKS];
    ck_assert_int_eq(fa_device_open(context, "openmp", NULL, &device), FA_OK);
    ck_assert_int_eq(context_scene_make(context, &kind, RANKS, &made), FA_OK);
    keys = &made;
    on_stub(2, LONG, run_context, jobs);
    for (int r = 0; r < RANKS; r++) {
        ck_assert_msg(jobs[r].status == FA_OK, "%s", jobs[r].message);
        ck_assert_int_eq(jobs[r].wrong, 0);
    }
    context_scene_release(&made);
    fa_device_close(device);
}
END_TEST

/* Two sums that are enqueued begin when their events happen, and finish() sees to both. */
static void enqueue_and_finish(job *j)
{
    struct CUevent_st *event = stub->event(j->rank);
    float first[3], second[2];
    for (int i = 0; i < 3; i++)
        first[i] = (float)(10 * i + j->rank);
    for (int i = 0; i < 2; i++)
        second[i] = (float)(i - j->rank);
    keep(j, fa_enqueue_allreduce(j->transport, FA_F32, first, 3, event));
    if (j->status == FA_OK)
        keep(j, fa_enqueue_allreduce(j->transport, FA_F32, second, 2, event));
    for (int i = 0; i < 3; i++)
        j->wrong += first[i] != (float)(10 * i + j->rank); /* the event has not happened */
    stub->happen(event);
    if (j->status == FA_OK)
        keep(j, fa_finish_allreduces(j->transport));
    for (int i = 0; i < 3; i++)
        j->wrong += first[i] != (float)(30 * i + 3);
    for (int i = 0; i < 2; i++)
        j->wrong += second[i] != (float)(3 * i - 3);
}

START_TEST(enqueues)
{
    for (int looks = 0; looks <= 5; looks += 5) {
        job jobs[RANKS];
        on_stub(looks, LONG, enqueue_and_finish, jobs);
        for (int r = 0; r < RANKS; r++) {
            ck_assert_msg(jobs[r].status == FA_OK, "%s", jobs[r].message);
            ck_assert_int_eq(jobs[r].wrong, 0);
        }
    }
}
END_TEST

/* Rank 1 enqueues one sum of two: the others are told by finish(), and by every call from then on. */
static void enqueue_and_leave(job *j)
{
    struct CUevent_st *event = stub->event(j->rank);
    static float data[RANKS][2];
    stub->happen(event);
    keep(j, fa_enqueue_allreduce(j->transport, FA_F32, data[j->rank], 1, event));
    if (j->status == FA_OK && j->rank != 1)
        keep(j, fa_enqueue_allreduce(j->transport, FA_F32, data[j->rank] + 1, 1, event));
    if (j->status == FA_OK)
        keep(j, fa_finish_allreduces(j->transport));
    if (j->rank != 1)
        j->wrong = fa_enqueue_allreduce(j->transport, FA_F32, data[j->rank], 1, event) != FA_RANK_LOST;
}

START_TEST(a_rank_that_enqueues_less)
{
    job jobs[RANKS];
    on_stub(0, SHORT, enqueue_and_leave, jobs);
    assert_others_are_told(jobs);
}
END_TEST

static void enqueue_and_fail(job *j)
{
    static float data[RANKS][2];
    stub->happen(stub->event(j->rank));
    if (j->rank == 0) {
        fa_sleep_until(fa_clock() + 0.1);
        stub->set_error(6);
        return;
    }
    keep(j, fa_enqueue_allreduce(j->transport, FA_F32, data[j->rank], 2, stub->event(j->rank)));
    if (j->status == FA_OK)
        keep(j, fa_finish_allreduces(j->transport));
}

/* NCCL tells of the failure while the host waits at the end. */
START_TEST(a_communicator_that_fails_behind_the_host)
{
    job jobs[RANKS];
    on_stub(0, LONG, enqueue_and_fail, jobs);
    assert_failure_is_told(jobs);
}
END_TEST

static void leave(job *j)
{
    float data[2] = {0};
    keep(j, fa_allreduce(j->transport, FA_F32, data, 2));
    if (j->rank == 1)
        return;
    keep(j, fa_allreduce(j->transport, FA_F32, data, 2));
    j->wrong = fa_allgather(j->transport, data, data, 0) != FA_RANK_LOST;
}

START_TEST(a_rank_that_is_gone)
{
    job jobs[RANKS];
    on_stub(0, SHORT, leave, jobs);
    assert_others_are_told(jobs);
}
END_TEST

/* While the others wait. */
static void fail_soon(job *j)
{
    float data[2] = {0};
    if (j->rank == 0) {
        fa_sleep_until(fa_clock() + 0.1);
        stub->set_error(6);
    } else
        keep(j, fa_allreduce(j->transport, FA_F32, data, 2));
}

START_TEST(a_communicator_that_fails)
{
    job jobs[RANKS];
    on_stub(0, LONG, fail_soon, jobs);
    assert_failure_is_told(jobs);
}
END_TEST

START_TEST(refusals)
{
    fa_transport *t;
    stub->reset(2, 0);
    stub->set_current(NULL);
    ck_assert_int_eq(fa_transport_create_nccl(context, stub->comm(0), NULL, &t), FA_INVALID);
    assert_message("stream is NULL");
    ck_assert_int_eq(fa_transport_create_nccl(context, stub->comm(0), stub->stream(0), &t), FA_INVALID);
    assert_message("no CUDA context is current");
    ck_assert_int_eq(fa_transport_create_nccl(context, stub->comm(STUB_MOST), stub->stream(0), &t),
                     FA_INVALID);
    assert_message("communicator: NCCL says invalid argument");
    stub->set_current(stub->context());
    ck_assert_int_eq(fa_transport_create_nccl(context, stub->comm(0), stub->stream(0), &t), FA_OK);
    ck_assert_int_eq(fa_transport_measure(context, t), FA_UNSUPPORTED);
    assert_message("transport.device_memory is 1");
    fa_transport_destroy(t);
}
END_TEST

int main(void)
{
    void *library = dlopen(getenv("FASTATTN_NCCL_LIBRARY"), RTLD_NOW);
    const stub_nccl *(*table)(void) = NULL;
    void *symbol = library ? dlsym(library, "stub_nccl_table") : NULL;
    if (!symbol) {
        (void)fprintf(stderr, "%s\n", dlerror());
        return EXIT_FAILURE;
    }
    memcpy(&table, &symbol, sizeof(symbol));
    stub = table();
    Suite *suite = suite_create("nccl");
    TCase *tc = add_context_case(suite, "nccl");
    tcase_add_test(tc, sums_and_gathers);
    tcase_add_test(tc, a_ring);
    tcase_add_test(tc, a_context);
    tcase_add_test(tc, enqueues);
    tcase_add_test(tc, a_rank_that_enqueues_less);
    tcase_add_test(tc, a_communicator_that_fails_behind_the_host);
    tcase_add_test(tc, a_rank_that_is_gone);
    tcase_add_test(tc, a_communicator_that_fails);
    tcase_add_test(tc, refusals);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
