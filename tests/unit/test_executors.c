/* SPDX-License-Identifier: Apache-2.0 */
/* What a caller brings to the OpenMP-SIMD backend: its OpenMP, an executor, a rounding mode. None reaches a result. */
#include <fenv.h>
#include <stdlib.h>
#include <string.h>

#include <fastattn/reference.h>

#include "core/portable/lang.h"
#include "test_threads.h"

#if FA_WITH_OMP_RUNTIME
#include <omp.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ---- What the caller's OpenMP says ---- */

#if FA_WITH_OMP_RUNTIME
START_TEST(openmps_number_at_each_run)
{
    setup s;
    omp_set_num_threads(THREADS);
    open_with(&s, 0, (fa_executor){0});
    fa_device_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_device_get_info(s.device, &info), FA_OK);
    ck_assert_uint_eq(info.units, THREADS);
    for (int threads = 1; threads <= THREADS; threads++) {
        omp_set_num_threads(threads);
        ck_assert(same(&s));
        ck_assert_int_eq(atomic_load(&created), threads - 1);
    }
    close_all(&s);
}
END_TEST

START_TEST(within_a_parallel_region)
{
    setup s;
    static float o[2][OUT];
    fa_status status[2] = {FA_INVALID, FA_INVALID};
    omp_set_num_threads(THREADS);
    open_with(&s, 0, (fa_executor){0});
#pragma omp parallel num_threads(2)
    {
        int self = omp_get_thread_num();
        status[self] = run(&s, o[self]);
    }
    ck_assert_int_eq(atomic_load(&created), 0);
    for (int i = 0; i < 2; i++)
        ck_assert(status[i] == FA_OK && memcmp(o[i], alone, sizeof(alone)) == 0);
    close_all(&s);
}
END_TEST
#endif

/* ---- The caller's executor ---- */

typedef void (*task_fn)(void *argument, int32_t index);

static atomic_int executor_calls, executor_tasks;
static int executor_user;

static void note_call(void *user, int32_t count)
{
    if (user == &executor_user && count > 1 && count <= THREADS)
        atomic_fetch_add(&executor_calls, 1);
    atomic_fetch_add(&executor_tasks, count);
}

static void serial(void *user, int32_t count, task_fn task, void *argument)
{
    note_call(user, count);
    for (int32_t i = 0; i < count; i++)
        task(argument, i);
}

static void backwards(void *user, int32_t count, task_fn task, void *argument)
{
    note_call(user, count);
    for (int32_t i = count - 1; i >= 0; i--)
        task(argument, i);
}

/* What an executor may not do, but what must not harm. */
static void each_twice(void *user, int32_t count, task_fn task, void *argument)
{
    serial(user, count, task, argument);
    backwards(NULL, count, task, argument);
}

static void only_the_first(void *user, int32_t count, task_fn task, void *argument)
{
    note_call(user, count);
    task(argument, 0);
}

static void nothing(void *user, int32_t count, task_fn task, void *argument)
{
    (void)task;
    (void)argument;
    note_call(user, count);
}

typedef struct one_task {
    task_fn task;
    void *argument;
    int32_t index;
} one_task;

static void *do_one(void *user)
{
    const one_task *t = user;
    t->task(t->argument, t->index);
    return NULL;
}

static void thread_each(void *user, int32_t count, task_fn task, void *argument)
{
    pthread_t thread[THREADS];
    one_task one[THREADS];
    note_call(user, count);
    for (int32_t i = 0; i < count; i++) {
        one[i] = (one_task){task, argument, i};
        if (__real_pthread_create(&thread[i], NULL, do_one, &one[i]) != 0)
            abort();
    }
    for (int32_t i = 0; i < count; i++)
        (void)pthread_join(thread[i], NULL);
}

#if FA_WITH_OMP_RUNTIME
/* The one of docs/threads.md. */
static void openmp_team(void *user, int32_t count, task_fn task, void *argument)
{
    note_call(user, count);
#pragma omp parallel for schedule(static, 1)
    for (int32_t i = 0; i < count; i++)
        task(argument, i);
}
#endif

START_TEST(executors)
{
    void (*const all[])(void *, int32_t, task_fn, void *) = {
        serial,
        backwards,
        each_twice,
        only_the_first,
        thread_each,
#if FA_WITH_OMP_RUNTIME
        openmp_team,
#endif
    };
    for (int i = 0; i < COUNT(all); i++) {
        setup s;
        open_with(&s, THREADS, (fa_executor){all[i], &executor_user});
        atomic_store(&executor_calls, 0);
        ck_assert_msg(same(&s), "executor %d: %s", i, fa_last_error());
        ck_assert_int_eq(atomic_load(&executor_calls), 2); /* items, merges */
        close_all(&s);
    }
    ck_assert_int_eq(atomic_load(&created), 0); /* no thread of the library's own */
}
END_TEST

START_TEST(executor_that_does_nothing)
{
    setup s;
    open_with(&s, THREADS, (fa_executor){nothing, &executor_user});
    ck_assert_int_eq(run(&s, result), FA_INVALID);
    assert_message("executor.parallel_for returned when 0 of 4 tasks were done");
    close_all(&s);
    /* One thread is the caller's: there is nothing to share. */
    open_with(&s, 1, (fa_executor){nothing, &executor_user});
    ck_assert_int_eq(run(&s, result), FA_OK);
    close_all(&s);
}
END_TEST

/* ---- The caller's rounding ---- */

typedef struct rounding {
    int mode;
    unsigned flush; /* MXCSR: flush to zero, subnormals are zero, exceptions that trap */
} rounding;

static const rounding roundings[] = {
#if defined(FE_UPWARD) && defined(FE_DOWNWARD) && defined(FE_TOWARDZERO)
    {FE_UPWARD, 0},          {FE_DOWNWARD, 0}, {FE_TOWARDZERO, 0},
#endif
#if defined(__x86_64__)
    {FE_TONEAREST, 0x8040}, /* flushes */
    {FE_TONEAREST, 0x1000}, /* traps where a result is not exact: the bit masks it */
    {FE_TOWARDZERO, 0x8040},
#endif
    {FE_TONEAREST, 0},
};

static void set_rounding(const rounding *r)
{
    (void)fesetround(r->mode);
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() ^ r->flush);
#endif
}

static unsigned rounding_now(void)
{
#if defined(__x86_64__)
    return _mm_getcsr() & ~0x3fu;
#else
    return (unsigned)fegetround();
#endif
}

/* Everything that computes, in this thread's state. */
typedef struct outcome {
    float o[OUT], merged[OUT / 2], naive[16 * 16];
    double reference[16 * 16];
    uint16_t half[64];
} outcome;

static void compute(setup *s, outcome *r)
{
    const fa_attention_desc small = make_desc(1, 1, 1, 16, 16, 16);
    const fa_inputs in = {.q = q, .k = k, .v = v};
    static float lse[2 * HEADS * ROWS / 2];
    fa_tensor half = fa_tensor_make(FA_F32, 1, HEADS, ROWS / 2, DIM);
    const fa_merge_desc merge = {.struct_size = sizeof(merge), .parts = 2, .partial = half, .o = half};
    for (int i = 0; i < COUNT(lse); i++)
        lse[i] = (float)(i % 5);
    for (int i = 0; i < COUNT(r->half); i++) /* from 2^-25 on: most become subnormal halves */
        r->half[i] = fa_f32_to_f16(fa_as_float(0x33000000u + (uint32_t)i * 0x15a5a5u));
    fa_status status[] = {
        run(s, r->o),
        fa_merge_host(&merge, q, lse, r->merged, NULL),
        fa_reference_attention(s->context, &small, &in, r->reference, NULL),
        fa_naive_attention(s->context, &small, &in, FA_ORDER_FORWARD, FA_F16, r->naive, NULL),
    };
    set_rounding(&(rounding){FE_TONEAREST, 0});
#if defined(__x86_64__)
    _mm_setcsr(0x1f80);
#endif
    for (int i = 0; i < COUNT(status); i++)
        ck_assert_msg(status[i] == FA_OK, "call %d: %s", i, fa_last_error());
}

START_TEST(rounding_of_the_caller)
{
    static outcome expected, other;
    static const int threads[] = {1, THREADS};
    static const fa_executor executor[] = {{0}, {serial, &executor_user}};
    for (int t = 0; t < COUNT(threads); t++) {
        for (int e = 0; e < COUNT(executor); e++) {
            setup s;
            open_with(&s, threads[t], executor[e]);
            compute(&s, &expected);
            for (int i = 0; i < COUNT(roundings); i++) {
                memset(&other, 0, sizeof(other));
                set_rounding(&roundings[i]);
                unsigned before = rounding_now();
                fa_status status = run(&s, other.o);
                unsigned after = rounding_now();
                compute(&s, &other);
                ck_assert_int_eq(status, FA_OK);
                ck_assert_uint_eq(after, before);
                ck_assert_msg(memcmp(&other, &expected, sizeof(other)) == 0,
                              "%d threads, executor %d, rounding %d", threads[t], e, i);
            }
            close_all(&s);
        }
    }
}
END_TEST

void add_caller_tests(TCase *tc)
{
#if FA_WITH_OMP_RUNTIME
    tcase_add_test(tc, openmps_number_at_each_run);
    tcase_add_test(tc, within_a_parallel_region);
#endif
    tcase_add_test(tc, executors);
    tcase_add_test(tc, executor_that_does_nothing);
    tcase_add_test(tc, rounding_of_the_caller);
}
