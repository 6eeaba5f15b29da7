/* SPDX-License-Identifier: Apache-2.0 */
/* A driver that fails at every call in turn: a status each, a message that says what failed, nothing left. */
#include <stdlib.h>
#include <string.h>

#include "life.h"
#include "suites.h"

/* Calls that a working program can do without: fewer words in a name, no binary in the cache. */
static bool is_optional(const char *function)
{
    static const char *const names[] = {
        "clGetPlatformInfo", "clGetDeviceInfo",           "clGetDeviceIDs", "clGetProgramInfo",
        "clFlush",           "clCreateProgramWithBinary", "clBuildProgram", "clGetKernelWorkGroupInfo"};
    for (int i = 0; i < COUNT(names); i++) {
        if (strcmp(names[i], function) == 0)
            return true;
    }
    return strncmp(function, "clRelease", strlen("clRelease")) == 0;
}

/* Destroying a queue waits too, and has nobody to tell: fa_attention_host()'s queue, and the program's. */
static bool is_unheard(const life *l, const outcome *good)
{
    const int calls_of_a_wait = strcmp(l->function, "clFinish") == 0         ? 1
                                : strcmp(l->function, "clGetEventInfo") == 0 ? 2 /* the first and the last */
                                                                             : 0;
    return l->after >= calls_of(good, l->function) - 2 * calls_of_a_wait;
}

/* Programs from the cache are built too, and compiled when that fails. */
static bool must_fail(const life *l, const outcome *good)
{
    if (strcmp(l->function, "clBuildProgram") == 0)
        return good->compiled > 0;
    if (strcmp(l->function, "clGetDeviceIDs") == 0)
        return l->after == 0;
    return !is_optional(l->function) && !is_unheard(l, good);
}

static void fail_once(const life *l, const outcome *good)
{
    outcome r;
    char what[128], number[24];
    (void)snprintf(what, sizeof(what), "%s fails after %d calls with %d", l->function, l->after, l->error);
    (void)snprintf(number, sizeof(number), "(%d)", l->error);
    live(l, &r);
    assert_clean(&r, what);
    if (r.status == FA_OK) {
        ck_assert_msg(!must_fail(l, good), "%s: nothing told", what);
        ck_assert_str_eq(r.message, "");
        return;
    }
    ck_assert_msg(r.message[0] != '\0', "%s: %s without a message", what, r.step);
    ck_assert_msg(r.waits[0] == FA_OK || r.waits[1] == FA_OK, "%s: the second wait tells it again", what);
    if (strcmp(l->function, "clGetDeviceInfo") == 0)
        return; /* the reason may be what the missing answer makes of the device */
    ck_assert_msg(strstr(r.message, number) && strstr(r.message, "CL_"), "%s: %s: \"%s\"", what, r.step,
                  r.message);
    /* A wait tells of what an event says as clFinish's failure. */
    bool by_event = strcmp(l->function, "clGetEventInfo") == 0 || strcmp(l->function, "kernel") == 0;
    ck_assert_msg(strstr(r.message, by_event ? "clFinish" : l->function), "%s: \"%s\"", what, r.message);
}

static cl_int usual_error(const char *function)
{
    static const struct {
        const char *function;
        cl_int error;
    } usual[] = {
        {"clGetPlatformIDs", -1001},
        {"clCreateContext", CL_DEVICE_NOT_AVAILABLE},
        {"clCreateBuffer", CL_MEM_OBJECT_ALLOCATION_FAILURE},
        {"clBuildProgram", CL_BUILD_PROGRAM_FAILURE},
        {"clCreateProgramWithBinary", CL_INVALID_BINARY},
        {"clEnqueueMapBuffer", CL_MAP_FAILURE},
        {"clEnqueueNDRangeKernel", CL_OUT_OF_RESOURCES},
        {"clFinish", CL_OUT_OF_RESOURCES},
        {"kernel", CL_OUT_OF_RESOURCES},
    };
    for (int i = 0; i < COUNT(usual); i++) {
        if (strcmp(usual[i].function, function) == 0)
            return usual[i].error;
    }
    return CL_OUT_OF_HOST_MEMORY;
}

/* What the driver's functions are called for in a life where all goes well. */
static outcome good_life(void)
{
    outcome r;
    const life l = {.fail_at = -1};
    live(&l, &r);
    ck_assert_msg(r.status == FA_OK, "%s: %s", r.step, r.message);
    assert_clean(&r, "nothing fails");
    return r;
}

static void fail_everywhere(void)
{
    const outcome good = good_life();
    ck_assert_int_gt(good.functions, 20);
    for (int f = 0; f < good.functions; f++) {
        life l = {.function = good.function[f].name, .fail_at = -1};
        l.error = usual_error(l.function);
        for (l.after = 0; l.after < good.function[f].calls; l.after++)
            fail_once(&l, &good);
        l.after = 0;
        l.error = -9999;
        fail_once(&l, &good);
    }
}

START_TEST(every_call_on_a_discrete_device)
{
    fail_everywhere();
}
END_TEST

START_TEST(every_call_where_memory_is_shared)
{
    setenv("STUB_DEVICES", "unified", 1);
    const outcome good = good_life();
    ck_assert_int_gt(calls_of(&good, "clEnqueueMapBuffer"), 0);
    ck_assert_int_eq(calls_of(&good, "clEnqueueWriteBuffer"), 0);
    fail_everywhere();
}
END_TEST

START_TEST(every_call_with_a_filled_cache)
{
    char path[64];
    make_cache_folder(path);
    const outcome first = good_life(), second = good_life();
    ck_assert_int_gt(first.compiled, 0);
    ck_assert_int_eq(second.compiled, 0);
    fail_everywhere();
    remove_cache_folder(path);
}
END_TEST

/* From some call on nothing works any more, and the program goes on all the same. */
START_TEST(every_call_loses_the_device)
{
    static const char *const kinds[] = {"good", "unified"};
    for (int k = 0; k < COUNT(kinds); k++) {
        setenv("STUB_DEVICES", kinds[k], 1);
        const outcome good = good_life();
        for (int f = 0; f < good.functions; f++) {
            life l = {.function = good.function[f].name,
                      .error = -9999,
                      .lose = true,
                      .stubborn = true,
                      .fail_at = -1};
            if (strncmp(l.function, "clGetDevice", 11) == 0 || strncmp(l.function, "clGetPlatform", 13) == 0)
                continue; /* before there is anything to lose */
            for (l.after = 0; l.after < good.function[f].calls; l.after++) {
                outcome r;
                char what[128];
                (void)snprintf(what, sizeof(what), "lost at call %d of %s", l.after, l.function);
                live(&l, &r);
                assert_clean(&r, what);
                /* Releases may be the last of all calls, behind what could fail. */
                bool unheard = strncmp(l.function, "clRelease", 9) == 0 || is_unheard(&l, &good);
                ck_assert_msg(r.failures > 0 || unheard, "%s: nothing told", what);
            }
        }
    }
}
END_TEST

static void deny_every_request(void)
{
    const outcome good = good_life();
    for (long n = 0; n < good.host_calls; n++) {
        outcome r;
        char what[64];
        const life l = {.fail_at = n};
        (void)snprintf(what, sizeof(what), "no memory for request %ld", n);
        live(&l, &r);
        assert_clean(&r, what);
        /* Without room for a binary it is compiled, or not kept on disk, which is no failure. */
        ck_assert_msg(r.status == FA_OUT_OF_MEMORY || r.status == FA_OK, "%s: %s: %s", what, r.step,
                      r.message);
    }
}

START_TEST(every_request_for_host_memory)
{
    static const char *const kinds[] = {"good", "unified"};
    char path[64];
    for (int k = 0; k < COUNT(kinds); k++) {
        setenv("STUB_DEVICES", kinds[k], 1);
        setenv("FASTATTN_CACHE", "off", 1);
        deny_every_request();
        make_cache_folder(path);
        deny_every_request();
        remove_cache_folder(path);
    }
}
END_TEST

static outcome fail_at(const char *function, int after, cl_int error)
{
    outcome r;
    const life l = {.function = function, .after = after, .error = error, .fail_at = -1};
    live(&l, &r);
    assert_clean(&r, function);
    return r;
}

static void assert_told(const outcome *r, const char *step, fa_status status, const char *part)
{
    ck_assert_str_eq(r->step, step);
    ck_assert_msg(r->status == status, "%s: %s", fa_status_name(r->status), r->message);
    ck_assert_msg(strstr(r->message, part) != NULL, "the message is \"%s\", expected \"%s\" in it",
                  r->message, part);
}

START_TEST(no_device_memory)
{
    const outcome r = fail_at("clCreateBuffer", 3, CL_MEM_OBJECT_ALLOCATION_FAILURE);
    ck_assert_int_eq(r.status, FA_OUT_OF_MEMORY);
    ck_assert_msg(strstr(r.message, "CL_MEM_OBJECT_ALLOCATION_FAILURE (-4)") != NULL, "%s", r.message);
    const outcome good = good_life();
    const outcome last =
        fail_at("clCreateBuffer", calls_of(&good, "clCreateBuffer") - 1, CL_MEM_OBJECT_ALLOCATION_FAILURE);
    assert_told(&last, "fa_attention_host", FA_OUT_OF_MEMORY,
                "clCreateBuffer: CL_MEM_OBJECT_ALLOCATION_FAILURE");
}
END_TEST

START_TEST(source_that_does_not_compile)
{
    const outcome r = fail_at("clBuildProgram", 0, CL_BUILD_PROGRAM_FAILURE);
    assert_told(&r, "fa_plan_create", FA_COMPILE, "clBuildProgram: CL_BUILD_PROGRAM_FAILURE (-11)");
    size_t length = strlen(r.message), end = strlen(STUB_LOG_END);
    ck_assert_uint_gt(length, end);
    ck_assert_str_eq(r.message + length - end, STUB_LOG_END);
}
END_TEST

START_TEST(kernel_that_fails)
{
    const outcome lost = fail_at("clFinish", 0, CL_OUT_OF_RESOURCES);
    assert_told(&lost, "fa_queue_wait", FA_DEVICE_LOST, "clFinish: CL_OUT_OF_RESOURCES (-5)");
    ck_assert_int_eq(lost.waits[0], FA_DEVICE_LOST);
    ck_assert_int_eq(lost.waits[1], FA_OK);
    const outcome nvidia = fail_at("clFinish", 0, -9999);
    assert_told(&nvidia, "fa_queue_wait", FA_DEVICE_LOST, "(-9999)");
    for (int kernel = 0; kernel < 2; kernel++) { /* of the parts, and of their merge */
        const outcome event = fail_at("kernel", kernel, CL_OUT_OF_RESOURCES);
        assert_told(&event, "fa_queue_wait", FA_DEVICE_LOST, "clFinish: CL_OUT_OF_RESOURCES (-5)");
        ck_assert_int_eq(event.waits[1], FA_OK);
    }
    const outcome refused = fail_at("clEnqueueNDRangeKernel", 0, -9999);
    assert_told(&refused, "fa_plan_run", FA_DEVICE_LOST, "clEnqueueNDRangeKernel: ");
}
END_TEST

START_TEST(queues_without_times)
{
    const outcome r = fail_at("clCreateCommandQueue", 0, CL_INVALID_QUEUE_PROPERTIES);
    assert_told(&r, "fa_queue_seconds", FA_UNSUPPORTED, "CL_QUEUE_PROFILING_ENABLE");
}
END_TEST

void add_hostile_tests(Suite *suite)
{
    TCase *sweep = add_context_case(suite, "every fault");
    tcase_set_timeout(sweep, 600); /* a process for each fault */
    tcase_set_tags(sweep, "sweep");
    tcase_add_test(sweep, every_call_on_a_discrete_device);
    tcase_add_test(sweep, every_call_where_memory_is_shared);
    tcase_add_test(sweep, every_call_with_a_filled_cache);
    tcase_add_test(sweep, every_call_loses_the_device);
    tcase_add_test(sweep, every_request_for_host_memory);
    TCase *faults = add_context_case(suite, "faults by name");
    tcase_add_test(faults, no_device_memory);
    tcase_add_test(faults, source_that_does_not_compile);
    tcase_add_test(faults, kernel_that_fails);
    tcase_add_test(faults, queues_without_times);
}
