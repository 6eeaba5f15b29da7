/* SPDX-License-Identifier: Apache-2.0 */
#include "core/context.h"

#include <fastattn/reference.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/status.h"
#include "helpers.h"
#include "suites.h"

START_TEST(defaults)
{
    fa_context *made;
    ck_assert_int_eq(fa_context_create(NULL, &made), FA_OK);
    ck_assert_str_eq(fa_last_error(), "");
    fa_context_destroy(made);
    const fa_context_options zero = {.struct_size = sizeof(zero)};
    ck_assert_int_eq(fa_context_create(&zero, &made), FA_OK);
    fa_context_destroy(made);
    fa_context_destroy(NULL);
}
END_TEST

static void refuse(const fa_context_options *options, fa_status expected, const char *message)
{
    fa_context *made = (fa_context *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_context_create(options, &made), expected);
    assert_message(message);
    ck_assert_ptr_null(made);
}

START_TEST(options_refused_by_name)
{
    const fa_context_options good = {.struct_size = sizeof(good), .allocator = counting_allocator(&memory)};
    ck_assert_int_eq(fa_context_create(&good, NULL), FA_INVALID);
    assert_message("context is NULL");
    static const size_t wrong[] = {0, 8, sizeof(fa_context_options) - 1, SIZE_MAX};
    for (int i = 0; i < COUNT(wrong); i++) {
        fa_context_options o = good;
        o.struct_size = wrong[i];
        refuse(&o, FA_INVALID, "fa_context_options.struct_size is ");
    }
    fa_context_options o = good;
    o.allocator.release = NULL;
    refuse(&o, FA_INVALID, "allocator.release is NULL, expected both functions or neither");
    o = good;
    o.allocator.allocate = NULL;
    refuse(&o, FA_INVALID, "allocator.allocate is NULL, expected both functions or neither");
    o = good;
    o.log_level = (fa_log_level)4;
    refuse(&o, FA_INVALID, "log_level is 4, expected 0 to 3");
    static const int32_t threads[] = {-1, FA_MAX_THREADS + 1, INT32_MAX};
    for (int i = 0; i < COUNT(threads); i++) {
        char message[64];
        o = good;
        o.threads = threads[i];
        snprintf(message, sizeof(message), "threads is %d, expected 0 to 1024", (int)threads[i]);
        refuse(&o, FA_INVALID, message);
    }
    o = good;
    memory.fail_at = atomic_load(&memory.calls);
    refuse(&o, FA_OUT_OF_MEMORY, "no memory for a context");
}
END_TEST

typedef struct log_record {
    int messages;
    fa_log_level most_detailed;
    char last[512];
} log_record;

static void record(void *user, fa_log_level level, const char *message)
{
    log_record *log = user;
    log->messages++;
    log->most_detailed = level > log->most_detailed ? level : log->most_detailed;
    snprintf(log->last, sizeof(log->last), "%s", message);
}

START_TEST(log_levels)
{
    static const struct {
        fa_log_level asked;
        int messages; /* of opening a device and making a plan */
        fa_log_level most_detailed;
    } row[] = {{FA_LOG_NONE, 1, FA_LOG_INFO},
               {FA_LOG_WARN, 0, FA_LOG_NONE},
               {FA_LOG_INFO, 1, FA_LOG_INFO},
               {FA_LOG_DEBUG, 2, FA_LOG_DEBUG}};
    for (int i = 0; i < COUNT(row); i++) {
        log_record log = {0};
        const fa_context_options options = {
            .struct_size = sizeof(options), .log = record, .log_user = &log, .log_level = row[i].asked};
        fa_context *made;
        fa_device *device;
        fa_plan *plan;
        const fa_attention_desc d = make_desc(1, 1, 1, 4, 4, 4);
        ck_assert_int_eq(fa_context_create(&options, &made), FA_OK);
        ck_assert_int_eq(fa_device_open(made, "null", NULL, &device), FA_OK);
        if (row[i].messages > 0)
            ck_assert_str_eq(log.last, "device: null:0 computes nothing");
        ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_OK);
        ck_assert_int_eq(log.messages, row[i].messages);
        ck_assert_int_eq(log.most_detailed, row[i].most_detailed);
        ck_assert_ptr_null(strchr(log.last, '\n'));
        fa_plan_destroy(plan);
        fa_device_close(device);
        fa_context_destroy(made);
    }
}
END_TEST

START_TEST(long_log_messages_are_cut)
{
    log_record log = {0};
    struct fa_context made = {.options = {.log = record, .log_user = &log, .log_level = FA_LOG_WARN}};
    char text[3000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    fa_log(&made, FA_LOG_WARN, "%s", text);
    ck_assert_int_eq(log.messages, 1);
    fa_log(&made, FA_LOG_INFO, "%s", text);
    ck_assert_int_eq(log.messages, 1);
}
END_TEST

static void *other_thread(void *seen)
{
    strcpy(seen, fa_last_error());
    (void)fa_fail(FA_IO, "of the other thread");
    return NULL;
}

START_TEST(messages_belong_to_their_thread)
{
    char seen[64] = "?";
    pthread_t thread;
    ck_assert_int_eq(fa_fail(FA_INVALID, "x is %d", 7), FA_INVALID);
    ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, seen), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_str_eq(seen, "");
    ck_assert_str_eq(fa_last_error(), "x is 7");
    /* A message may be quoted in the one that replaces it, and a long one is cut. */
    (void)fa_fail(FA_INVALID, "first: %s", fa_last_error());
    ck_assert_str_eq(fa_last_error(), "first: x is 7");
    char text[3000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)fa_fail(FA_INVALID, "%s", text);
    ck_assert_uint_eq(strlen(fa_last_error()), FA_MESSAGE_SIZE - 1);
    fa_clear_error();
    ck_assert_str_eq(fa_last_error(), "");
}
END_TEST

START_TEST(names)
{
    static const char *const status[] = {
        "FA_OK",          "FA_INVALID", "FA_UNSUPPORTED", "FA_NO_DEVICE", "FA_OUT_OF_MEMORY",
        "FA_DEVICE_LOST", "FA_COMPILE", "FA_IO",          "FA_RANK_LOST"};
    for (int i = 0; i < COUNT(status); i++)
        ck_assert_str_eq(fa_status_name((fa_status)i), status[i]);
    ck_assert_str_eq(fa_status_name((fa_status)99), "FA_UNKNOWN");
    char version[32];
    snprintf(version, sizeof(version), "%d.%d.%d", FA_VERSION_MAJOR, FA_VERSION_MINOR, FA_VERSION_PATCH);
    ck_assert_str_eq(fa_version(), version);
}
END_TEST

START_TEST(allocations)
{
    void *none = fa_alloc(context, 0), *some = fa_alloc_zeroed(context, 1000);
    ck_assert(none && some && (uintptr_t)none % 64 == 0 && (uintptr_t)some % 64 == 0);
    for (int i = 0; i < 1000; i++)
        ck_assert(((char *)some)[i] == 0);
    fa_release(context, none, 0);
    fa_release(context, some, 1000);
    fa_release(context, NULL, 55);
    ck_assert_ptr_null(fa_alloc(context, SIZE_MAX));
    assert_message("no host memory for 18446744073709551615 bytes");
    ck_assert_ptr_null(fa_alloc_zeroed(context, (size_t)PTRDIFF_MAX));
    /* The C library's allocator, which serves where the caller gives none. */
    fa_context *plain;
    ck_assert_int_eq(fa_context_create(NULL, &plain), FA_OK);
    void *memory_of_libc = fa_alloc(plain, 100);
    ck_assert(memory_of_libc && (uintptr_t)memory_of_libc % 64 == 0);
    fa_release(plain, memory_of_libc, 100);
    fa_context_destroy(plain);
}
END_TEST

/* A bit of everything that takes memory; the first failure is returned after all is given back. */
static fa_status use_everything(const fa_attention_desc *d, bool with_problem)
{
    static float q[64], k[64], v[64], o[64], lse[64];
    static double expected[64];
    const fa_inputs in = {.q = q, .k = k, .v = v};
    fa_device *device = NULL;
    fa_queue *queue = NULL;
    fa_buffer *buffer = NULL, *wrapped = NULL;
    fa_plan *plan = NULL;
    fa_status status = fa_device_open(context, "null", with_problem ? d : NULL, &device);
    if (status == FA_OK)
        status = fa_queue_create(device, &queue);
    if (status == FA_OK)
        status = fa_buffer_create(device, 100, &buffer);
    if (status == FA_OK)
        status = fa_buffer_wrap_host(device, q, sizeof(q), &wrapped);
    if (status == FA_OK)
        status = fa_device_supports(device, d, NULL, 0);
    if (status == FA_OK)
        status = fa_plan_create(device, d, &plan);
    if (status == FA_OK)
        status = fa_attention_host(device, d, q, k, v, NULL, NULL, o, lse);
    if (status == FA_OK)
        status = fa_reference_attention(context, d, &in, expected, NULL);
    if (status == FA_OK)
        status = fa_naive_attention(context, d, &in, FA_ORDER_FORWARD, FA_F32, o, NULL);
    fa_plan_destroy(plan);
    fa_buffer_destroy(wrapped);
    fa_buffer_destroy(buffer);
    fa_queue_destroy(queue);
    fa_device_close(device);
    return status;
}

/* Each request for memory fails in turn: always FA_OUT_OF_MEMORY, with a message, and nothing stays taken. */
START_TEST(every_allocation_fails_in_turn)
{
    const float slopes[2] = {1, 2}, sinks[2] = {0, 0};
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .block_kv = 16, .splits = 2};
    fa_attention_desc d = make_desc(1, 2, 1, 1, 32, 2);
    d.alibi_slopes = slopes;
    d.sinks = sinks;
    d.want_lse = 1;
    d.tuning = _i & 1 ? &tuning : NULL;
    long before = atomic_load(&memory.calls), live = atomic_load(&memory.live);
    ck_assert_int_eq(use_everything(&d, _i & 2), FA_OK);
    long requests = atomic_load(&memory.calls) - before;
    ck_assert_int_gt(requests, 15);
    for (long n = 0; n < requests; n++) {
        memory.fail_at = atomic_load(&memory.calls) + n;
        fa_status status = use_everything(&d, _i & 2);
        ck_assert_msg(status == FA_OUT_OF_MEMORY, "request %ld of %ld fails: %s \"%s\"", n, requests,
                      fa_status_name(status), fa_last_error());
        assert_message("memory");
        ck_assert_msg(atomic_load(&memory.live) == live, "request %ld of %ld fails: %ld pieces leak", n,
                      requests, atomic_load(&memory.live) - live);
    }
    memory.fail_at = -1;
    ck_assert_int_eq(use_everything(&d, _i & 2), FA_OK);
}
END_TEST

Suite *context_suite(void)
{
    Suite *suite = suite_create("context");
    TCase *tc = add_context_case(suite, "context");
    tcase_add_test(tc, defaults);
    tcase_add_test(tc, options_refused_by_name);
    tcase_add_test(tc, log_levels);
    tcase_add_test(tc, long_log_messages_are_cut);
    tcase_add_test(tc, messages_belong_to_their_thread);
    tcase_add_test(tc, names);
    tcase_add_test(tc, allocations);
    tcase_add_loop_test(tc, every_allocation_fails_in_turn, 0, 4);
    return suite;
}
