/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of the OpenMP-SIMD backend, where the system, the process or the caller is not kind to them: the result is
 * always what one thread computes, bit for bit. pthread_create() is the linker's --wrap of it.
 */
#if defined(__linux__)
#define _GNU_SOURCE /* setresuid() */
#endif
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fastattn/reference.h>

#include "backends/openmp/pool.h"
#include "core/portable/lang.h"
#include "helpers.h"

#if FA_WITH_OMP_RUNTIME
#include <omp.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ThreadSanitizer ends a child that starts threads: what comes after a fork is for other builds. */
#if defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_TSAN 1
#endif
#endif
#if !defined(HAS_TSAN)
#define HAS_TSAN 0
#endif

enum { HEADS = 8, ROWS = 128, KEYS = 256, DIM = 64, THREADS = 4, SECONDS = 60 };
enum { OUT = HEADS * ROWS * DIM, IN = HEADS * KEYS * DIM };

static float q[OUT], k[IN], v[IN], alone[OUT], result[OUT];
static atomic_int created;       /* threads that pthread_create() made */
static atomic_int refuse_behind; /* so many; then it fails */
static atomic_bool hold;         /* new threads do not begin */
static atomic_int warnings;
static char last_warning[512];

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                          void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                          void *argument);

typedef struct held {
    void *(*start)(void *);
    void *argument;
} held;

static void *begin_late(void *user)
{
    held h = *(held *)user;
    free(user);
    while (atomic_load(&hold))
        (void)usleep(1000);
    return h.start(h.argument);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                          void *argument)
{
    if (atomic_load(&created) >= atomic_load(&refuse_behind))
        return EAGAIN;
    held *h = malloc(sizeof(*h));
    *h = (held){start, argument};
    int error = __real_pthread_create(thread, attributes, begin_late, h);
    if (error)
        free(h);
    else
        atomic_fetch_add(&created, 1);
    return error;
}

static void note_warning(void *user, fa_log_level level, const char *message)
{
    (void)user;
    if (level != FA_LOG_WARN)
        return;
    atomic_fetch_add(&warnings, 1);
    (void)snprintf(last_warning, sizeof(last_warning), "%s", message);
}

/* Values that subnormals and rounding matter to. */
static void fill(float *to, int count, uint64_t seed)
{
    random_state random = {seed};
    for (int i = 0; i < count; i++)
        to[i] = random_float(&random, -1, 1) * (i % 7 == 0 ? 1e-38f : 1);
}

typedef struct setup {
    fa_context *context;
    fa_device *device;
    fa_attention_desc desc;
    fa_tuning tuning;
} setup;

static void open_with(setup *s, int threads, fa_executor executor)
{
    const fa_context_options options = {
        .struct_size = sizeof(options), .log = note_warning, .threads = threads, .executor = executor};
    s->tuning = (fa_tuning){.struct_size = sizeof(s->tuning), .splits = 2};
    s->desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    s->desc.tuning = &s->tuning;
    ck_assert_int_eq(fa_context_create(&options, &s->context), FA_OK);
    ck_assert_msg(fa_device_open(s->context, "openmp", NULL, &s->device) == FA_OK, "%s", fa_last_error());
}

static void close_all(setup *s)
{
    fa_device_close(s->device);
    fa_context_destroy(s->context);
}

static fa_status run(setup *s, float *o)
{
    memset(o, 0xff, sizeof(alone));
    return fa_attention_host(s->device, &s->desc, q, k, v, NULL, NULL, o, NULL);
}

static bool same(setup *s)
{
    return run(s, result) == FA_OK && memcmp(result, alone, sizeof(alone)) == 0;
}

static fa_plan *plan_of(setup *s, fa_plan_info *info)
{
    fa_plan *plan;
    *info = (fa_plan_info){.struct_size = sizeof(*info)};
    ck_assert_int_eq(fa_plan_create(s->device, &s->desc, &plan), FA_OK);
    ck_assert_int_eq(fa_plan_get_info(plan, info), FA_OK);
    return plan;
}

static void begin(void)
{
    setup s;
    fill(q, OUT, 1);
    fill(k, IN, 2);
    fill(v, IN, 3);
    /* The same plan as with THREADS, since blocks depend on the number: its tasks one after the other. */
    atomic_store(&refuse_behind, 0);
    open_with(&s, THREADS, (fa_executor){0});
    ck_assert_msg(run(&s, alone) == FA_OK, "%s", fa_last_error());
    close_all(&s);
    atomic_store(&refuse_behind, 1 << 20);
    atomic_store(&created, 0);
    atomic_store(&warnings, 0);
}

/* ---- The pool ---- */

typedef struct tally {
    atomic_int times[200];
} tally;

static void count_task(void *argument, int32_t index)
{
    tally *t = argument;
    atomic_fetch_add(&t->times[index], 1);
}

static void assert_once(const tally *t, int count)
{
    for (int i = 0; i < COUNT(t->times); i++)
        ck_assert_int_eq(atomic_load(&t->times[i]), i < count);
}

START_TEST(pool_does_each_task_once)
{
    static const int threads[] = {1, 2, 3, 8}, counts[] = {0, 1, 2, 5, 200};
    for (int t = 0; t < COUNT(threads); t++) {
        fa_pool *pool = fa_pool_create(context, threads[t]);
        ck_assert_ptr_nonnull(pool);
        for (int turn = 0; turn < 300; turn++) {
            int count = counts[turn % COUNT(counts)];
            tally tasks = {0};
            fa_pool_run(pool, count, count_task, &tasks);
            assert_once(&tasks, count);
            if (turn % 100 == 99)
                (void)usleep(2000); /* helpers fall asleep, and are woken */
        }
        fa_pool_destroy(pool);
        ck_assert_int_lt(atomic_load(&created), threads[t] + 10);
        atomic_store(&created, 0);
    }
    fa_pool_destroy(NULL);
}
END_TEST

static fa_pool *shared_pool;

static void *call_pool(void *user)
{
    (void)user;
    for (int turn = 0; turn < 200; turn++) {
        tally tasks = {0};
        int count = 1 + turn % 8;
        fa_pool_run(shared_pool, count, count_task, &tasks);
        for (int i = 0; i < count; i++) {
            if (atomic_load(&tasks.times[i]) != 1)
                return "a task was not done once";
        }
    }
    return NULL;
}

/* More calling threads than are helped at the same time: the rest do their own. */
START_TEST(pool_of_many_callers)
{
    enum { CALLERS = 24 };
    pthread_t caller[CALLERS];
    shared_pool = fa_pool_create(context, THREADS);
    for (int i = 0; i < CALLERS; i++)
        ck_assert_int_eq(pthread_create(&caller[i], NULL, call_pool, NULL), 0);
    for (int i = 0; i < CALLERS; i++) {
        void *failure;
        ck_assert_int_eq(pthread_join(caller[i], &failure), 0);
        ck_assert_msg(!failure, "%s", (const char *)failure);
    }
    fa_pool_destroy(shared_pool);
    ck_assert_int_eq(atomic_load(&created), CALLERS + THREADS - 1); /* callers have no teams of their own */
}
END_TEST

/* ---- What the system does ---- */

START_TEST(plan_is_for_threads)
{
    setup s;
    open_with(&s, THREADS, (fa_executor){0});
    fa_device_info device = {.struct_size = sizeof(device)};
    fa_plan_info info;
    ck_assert_int_eq(fa_device_get_info(s.device, &device), FA_OK);
    ck_assert_uint_eq(device.units, THREADS);
    fa_plan_destroy(plan_of(&s, &info));
    ck_assert_uint_eq(info.workers, THREADS);
    ck_assert_int_gt(info.merge_items, 1);
    ck_assert_int_eq(atomic_load(&created), 0); /* plans start none */
    ck_assert(same(&s));
    ck_assert_int_eq(atomic_load(&created), THREADS - 1);
    ck_assert(same(&s));
    ck_assert_int_eq(atomic_load(&created), THREADS - 1);
    ck_assert_int_eq(atomic_load(&warnings), 0);
    close_all(&s);
}
END_TEST

/* What the caller asks for goes before FASTATTN_THREADS, which goes before what OpenMP would use. */
START_TEST(number_of_threads)
{
    setup s;
    fa_device_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(setenv("FASTATTN_THREADS", "3", 1), 0);
    for (int threads = 0; threads <= 5; threads += 5) {
        open_with(&s, threads, (fa_executor){0});
        ck_assert_int_eq(fa_device_get_info(s.device, &info), FA_OK);
        ck_assert_uint_eq(info.units, threads ? 5 : 3);
        close_all(&s);
    }
}
END_TEST

/* From the _i-th thread on, the system starts none: there are as many as there are. */
START_TEST(threads_refused)
{
    setup s;
    char expected[64];
    atomic_store(&refuse_behind, _i);
    open_with(&s, THREADS, (fa_executor){0});
    ck_assert(same(&s));
    ck_assert(same(&s));
    ck_assert_int_eq(atomic_load(&created), _i);
    ck_assert_int_eq(atomic_load(&warnings), 1);
    (void)snprintf(expected, sizeof(expected), "starts no more than %d of %d threads", _i, THREADS - 1);
    ck_assert_msg(strstr(last_warning, expected) != NULL, "%s", last_warning);
    close_all(&s);
}
END_TEST

/* A thread that the system has started but does not run: nobody waits for it. */
START_TEST(late_threads_are_not_waited_for)
{
    setup s;
    atomic_store(&hold, true);
    open_with(&s, THREADS, (fa_executor){0});
    for (int turn = 0; turn < 3; turn++)
        ck_assert(same(&s));
    ck_assert_int_eq(atomic_load(&created), THREADS - 1);
    atomic_store(&hold, false);
    for (int turn = 0; turn < 3; turn++)
        ck_assert(same(&s));
    close_all(&s);
}
END_TEST

/* The exit status of a child that does `what`; 99 when it hangs. */
static int in_child(int (*what)(setup *), setup *s)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        (void)alarm(SECONDS);
        _exit(what(s));
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static int use_parents(setup *s)
{
    atomic_store(&created, 0);
    bool ok = same(s) && same(s) && atomic_load(&created) == 0 && atomic_load(&warnings) == 1 &&
              strstr(last_warning, "stayed in the process that was forked");
    close_all(s);
    return ok ? 0 : 1;
}

static int use_own(setup *s)
{
    (void)s;
    setup own;
    atomic_store(&created, 0);
    open_with(&own, THREADS, (fa_executor){0});
    bool ok = same(&own) && same(&own) && atomic_load(&created) == THREADS - 1 && atomic_load(&warnings) == 0;
    close_all(&own);
    return ok ? 0 : 1;
}

static int use_unstarted(setup *s)
{
    bool ok = same(s) && atomic_load(&created) == THREADS - 1 && atomic_load(&warnings) == 0;
    close_all(s);
    return ok ? 0 : 1;
}

START_TEST(after_fork)
{
    setup s;
    if (HAS_TSAN)
        return;
    open_with(&s, THREADS, (fa_executor){0});
    ck_assert_int_eq(in_child(use_unstarted, &s), 0);
    ck_assert(same(&s));
    ck_assert_int_eq(in_child(use_parents, &s), 0);
    ck_assert_int_eq(in_child(use_own, &s), 0);
    ck_assert(same(&s));
    ck_assert_int_eq(atomic_load(&warnings), 0);
    close_all(&s);
}
END_TEST

static int use_as_nobody(setup *s)
{
    (void)s;
    setup own;
    const struct rlimit none = {1, 1};
    if (setgid(65534) != 0 || setuid(65534) != 0 || setrlimit(RLIMIT_NPROC, &none) != 0)
        return 77;
    open_with(&own, THREADS, (fa_executor){0});
    bool ok = same(&own) && strstr(last_warning, "starts no more than ");
    close_all(&own);
    return ok ? 0 : 1;
}

/* A container's limit on processes, which does not bind root. */
START_TEST(process_limit)
{
    if (geteuid() != 0)
        return;
    int status = in_child(use_as_nobody, NULL);
    ck_assert_msg(status == 0 || status == 77, "%d", status);
}
END_TEST

static double cpu_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

START_TEST(idle_threads_sleep)
{
    setup s;
    open_with(&s, 2, (fa_executor){0});
    ck_assert_int_eq(run(&s, result), FA_OK);
    double before = cpu_seconds();
    (void)usleep(200000);
    double spent = cpu_seconds() - before;
    ck_assert_msg(spent < 2e-3, "%.2g ms of CPU time in 200 ms without a run", 1e3 * spent);
    close_all(&s);
}
END_TEST

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
    const fa_inputs in = {q, k, v, NULL, NULL};
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

int main(void)
{
    Suite *suite = suite_create("threads");
    TCase *tc = add_context_case(suite, "threads");
    tcase_set_timeout(tc, 2 * SECONDS);
    tcase_add_checked_fixture(tc, begin, NULL);
    tcase_add_test(tc, pool_does_each_task_once);
    tcase_add_test(tc, pool_of_many_callers);
    tcase_add_test(tc, plan_is_for_threads);
    tcase_add_test(tc, number_of_threads);
    tcase_add_loop_test(tc, threads_refused, 0, THREADS - 1);
    tcase_add_test(tc, late_threads_are_not_waited_for);
    tcase_add_test(tc, process_limit);
    tcase_add_test(tc, idle_threads_sleep);
#if FA_WITH_OMP_RUNTIME
    tcase_add_test(tc, openmps_number_at_each_run);
    tcase_add_test(tc, within_a_parallel_region);
#endif
    tcase_add_test(tc, executors);
    tcase_add_test(tc, executor_that_does_nothing);
    tcase_add_test(tc, rounding_of_the_caller);
    tc = add_context_case(suite, "fork");
    tcase_set_tags(tc, "fork"); /* an emulator of processes may not survive a fork beside other threads */
    tcase_set_timeout(tc, 2 * SECONDS);
    tcase_add_checked_fixture(tc, begin, NULL);
    tcase_add_test(tc, after_fork);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
