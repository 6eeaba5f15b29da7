/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of the OpenMP-SIMD backend, where the system, the process or the caller is not kind to them: the result is
 * always what one thread computes, bit for bit. pthread_create() is the linker's --wrap of it.
 */
#if defined(__linux__)
#define _GNU_SOURCE /* setresuid() */
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backends/openmp/pool.h"
#include "test_threads.h"

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

enum { SECONDS = 60 };

float q[OUT], k[IN], v[IN], alone[OUT], result[OUT];
atomic_int created;
static atomic_int refuse_behind; /* so many; then it fails */
static atomic_bool hold;         /* new threads do not begin */
static atomic_int warnings;
static char last_warning[512];

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

void open_with(setup *s, int threads, fa_executor executor)
{
    const fa_context_options options = {
        .struct_size = sizeof(options), .log = note_warning, .threads = threads, .executor = executor};
    s->tuning = (fa_tuning){.struct_size = sizeof(s->tuning), .splits = 2};
    s->desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    s->desc.tuning = &s->tuning;
    ck_assert_int_eq(fa_context_create(&options, &s->context), FA_OK);
    ck_assert_msg(fa_device_open(s->context, "openmp", NULL, &s->device) == FA_OK, "%s", fa_last_error());
}

void close_all(setup *s)
{
    fa_device_close(s->device);
    fa_context_destroy(s->context);
}

fa_status run(setup *s, float *o)
{
    memset(o, 0xff, sizeof(alone));
    return fa_attention_host(s->device, &s->desc, q, k, v, NULL, NULL, o, NULL);
}

bool same(setup *s)
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
    add_caller_tests(tc);
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
