/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

static void assert_opens(const char *name, const char *backend)
{
    fa_device *device;
    fa_status status = fa_device_open(context, name, NULL, &device);
    ck_assert_msg(status == FA_OK, "\"%s\": %s", name ? name : "(environment)", fa_last_error());
    ck_assert_str_eq(fa_last_error(), "");
    fa_device_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    ck_assert_str_eq(info.backend, backend);
    ck_assert_int_eq(info.available, 1);
    fa_device_close(device);
}

static void assert_refused(const char *name, const char *message)
{
    fa_device *device = (fa_device *)(uintptr_t)&memory;
    fa_status status = fa_device_open(context, name, NULL, &device);
    ck_assert_msg(status == FA_NO_DEVICE, "\"%s\": %s", name ? name : "(environment)",
                  fa_status_name(status));
    assert_message(message);
    assert_message("null:0 computes nothing"); /* what there is */
    ck_assert_ptr_null(device);
}

START_TEST(devices_are_listed)
{
    size_t count = fa_device_count(context);
    ck_assert_uint_ge(count, 1);
    int nulls = 0;
    for (size_t i = 0; i < count; i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        ck_assert_int_eq(fa_device_describe(context, i, &info), FA_OK);
        ck_assert_uint_gt(strlen(info.backend), 0);
        ck_assert(info.available ? info.name[0] != 0 && info.reason[0] == 0 : info.reason[0] != 0);
        if (strcmp(info.backend, "null") == 0) {
            nulls++;
            ck_assert_int_eq(info.automatic, 0);
            ck_assert_int_eq(info.host_memory, 1);
            ck_assert_uint_gt(info.units, 0);
        }
    }
    ck_assert_int_eq(nulls, 1);
    ck_assert_uint_eq(fa_device_count(NULL), 0);
}
END_TEST

/* Whether it was built in, or what it lacked: a backend is never just not there. */
START_TEST(every_backend_is_listed)
{
    static const struct {
        const char *name;
        int built;
    } known[] = {
        {"openmp", 1},
        {"cuda", FA_WITH_CUDA},
        {"opencl", FA_WITH_OPENCL},
        {"vulkan", FA_WITH_VULKAN},
        {"null", FA_WITH_NULL},
    };
    for (int k = 0; k < COUNT(known); k++) {
        int listed = 0;
        for (size_t i = 0; i < fa_device_count(context); i++) {
            fa_device_info info = {.struct_size = sizeof(info)};
            ck_assert_int_eq(fa_device_describe(context, i, &info), FA_OK);
            listed += strcmp(info.backend, known[k].name) == 0;
        }
        ck_assert_msg(listed > 0, "no device of %s is listed", known[k].name);
        if (known[k].built)
            continue;
        fa_device *device;
        assert_unavailable(known[k].name, "left out when this library was built: ");
        ck_assert_int_eq(fa_device_open(context, known[k].name, NULL, &device), FA_NO_DEVICE);
        assert_message("left out when this library was built: ");
    }
}
END_TEST

START_TEST(descriptions_refused_by_name)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    char message[64];
    size_t count = fa_device_count(context);
    ck_assert_int_eq(fa_device_describe(NULL, 0, &info), FA_INVALID);
    assert_message("context is NULL");
    ck_assert_int_eq(fa_device_describe(context, 0, NULL), FA_INVALID);
    assert_message("info is NULL");
    ck_assert_int_eq(fa_device_describe(context, count, &info), FA_INVALID);
    snprintf(message, sizeof(message), "index is %zu, expected less than %zu", count, count);
    assert_message(message);
    ck_assert_int_eq(fa_device_describe(context, SIZE_MAX, &info), FA_INVALID);
    assert_message("index is 18446744073709551615");
    info.struct_size = sizeof(info) - 4;
    ck_assert_int_eq(fa_device_describe(context, 0, &info), FA_INVALID);
    assert_message("fa_device_info.struct_size is ");
    ck_assert_int_eq(fa_device_get_info(NULL, &info), FA_INVALID);
    assert_message("device is NULL");
}
END_TEST

START_TEST(names_that_open)
{
    static const char *const names[] = {"null",  "null:0",      "null:computes",   "null:COMPUTES NOTHING",
                                        "null:", "null:7,null", "null:gpu,null:0", "null,null:5",
                                        "Null",  "NULL:0",      "nULL:7,NuLL"};
    for (int i = 0; i < COUNT(names); i++)
        assert_opens(names[i], "null");
}
END_TEST

START_TEST(names_that_do_not)
{
    assert_refused("nonsense",
                   "\"nonsense\" in \"nonsense\" is no backend of this library; there are: auto, ");
    assert_refused("", "\"\" in \"\" is no backend of this library");
    assert_refused("nul", "\"nul\" in \"nul\" is no backend");
    assert_refused("nulls", "\"nulls\" in \"nulls\" is no backend");
    assert_refused("AUTO:computes",
                   "\"AUTO:computes\" names \"null:0\" (computes nothing), which \"auto\" never takes");
    assert_refused("null:1", "nothing that \"null:1\" names can run here; there are: ");
    assert_refused("null:-1", "nothing that \"null:-1\" names");
    assert_refused("null:99999999999999999999", "nothing that \"null:99999999999999999999\" names");
    assert_refused("null:4294967296", "nothing that \"null:4294967296\" names"); /* 2^32 is not 0 */
    assert_refused("null:gpu", "nothing that \"null:gpu\" names");
    assert_refused("null:7,null:8", "nothing that \"null:7,null:8\" names");
    /* A typing error is told even where another entry could serve. */
    assert_refused("null,nonsense", "\"nonsense\" in \"null,nonsense\" is no backend");
    assert_refused(",null", "\"\" in \",null\" is no backend");
    char name[600];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    fa_device *device;
    ck_assert_int_eq(fa_device_open(context, name, NULL, &device), FA_NO_DEVICE);
    assert_message("is longer than any device's name");
}
END_TEST

/* What was asked for comes first in the list, which is cut: by its whole name, not by a part of another. */
START_TEST(lists_begin_with_what_was_asked_for)
{
    fa_device *device;
    ck_assert_int_eq(fa_device_open(context, "xnullx,NULL:9", NULL, &device), FA_NO_DEVICE);
    assert_message("there are: auto, null:0 computes nothing");
    ck_assert_int_eq(fa_device_open(context, "NULL:9", NULL, &device), FA_NO_DEVICE);
    assert_message("there are: null:0 computes nothing");
    ck_assert_int_eq(fa_device_open(context, "xnullx", NULL, &device), FA_NO_DEVICE);
    size_t count = fa_device_count(context);
    fa_device_info first = {.struct_size = sizeof(first)};
    ck_assert_int_eq(fa_device_describe(context, 0, &first), FA_OK);
    if (count > 1 && strcmp(first.backend, "null") != 0) {
        char message[64];
        ck_assert_int_eq(fa_device_open(context, "xnullx", NULL, &device), FA_NO_DEVICE);
        snprintf(message, sizeof(message), "there are: auto, %s:0 ", first.backend);
        assert_message(message);
    }
}
END_TEST

/* FASTATTN_ISA is a limit: what the processor lacks limits nothing, what its architecture cannot have is an error. */
START_TEST(instruction_sets)
{
#if defined(__x86_64__)
    static const char *const ours[] = {"scalar", "avx2", "avx512", "avx512bf16", "amx"}, *const wrong[] = {
                                                                                             "neon", "sse"};
#elif defined(__aarch64__)
    static const char *const ours[] = {"scalar", "neon"}, *const wrong[] = {"avx2", "avx512", "amx"};
#else
    static const char *const ours[] = {"scalar"}, *const wrong[] = {"neon", "avx2"};
#endif
    fa_device *device;
    if (fa_device_open(context, "openmp", NULL, &device) != FA_OK)
        return; /* a library without it */
    fa_device_close(device);
    for (int i = 0; i < COUNT(ours); i++) {
        setenv("FASTATTN_ISA", ours[i], 1);
        assert_opens("openmp", "openmp");
    }
    for (int i = 0; i < COUNT(wrong); i++) {
        char reason[80];
        setenv("FASTATTN_ISA", wrong[i], 1);
        snprintf(reason, sizeof(reason), "FASTATTN_ISA is \"%s\", expected one of: scalar", wrong[i]);
        assert_unavailable("openmp", reason);
    }
    unsetenv("FASTATTN_ISA");
}
END_TEST

START_TEST(arguments_refused_by_name)
{
    fa_device *device = (fa_device *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_device_open(context, "null", NULL, NULL), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_int_eq(fa_device_open(NULL, "null", NULL, &device), FA_INVALID);
    assert_message("context is NULL");
    ck_assert_ptr_null(device);
    fa_device_close(NULL);
}
END_TEST

START_TEST(environment)
{
    setenv("FASTATTN_BACKEND", "null", 1);
    assert_opens(NULL, "null");
    setenv("FASTATTN_DEVICE", "0", 1);
    assert_opens(NULL, "null");
    setenv("FASTATTN_DEVICE", "Nothing", 1);
    assert_opens(NULL, "null");
    setenv("FASTATTN_DEVICE", "3", 1);
    assert_refused(NULL, "nothing that \"null\" with device 3 names can run here");
    assert_opens("null", "null"); /* a name in the call leaves the environment out */
    setenv("FASTATTN_DEVICE", "", 1);
    assert_opens(NULL, "null");
    setenv("FASTATTN_BACKEND", "nonsense,null", 1);
    assert_refused(NULL, "\"nonsense\" in \"nonsense,null\" is no backend");
    setenv("FASTATTN_DEVICE", "null:0", 1); /* names its backend, and decides */
    assert_opens(NULL, "null");
    unsetenv("FASTATTN_BACKEND");
    unsetenv("FASTATTN_DEVICE");
}
END_TEST

/* "auto" is a device that computes, or none. */
START_TEST(automatic_is_never_null)
{
    static const char *const names[] = {"auto", NULL};
    for (int i = 0; i < COUNT(names); i++) {
        fa_device *device;
        fa_status status = fa_device_open(context, names[i], NULL, &device);
        if (status != FA_OK) {
            ck_assert_int_eq(status, FA_NO_DEVICE);
            assert_message("nothing that \"auto\" names can run here; there are: ");
            continue;
        }
        fa_device_info info = {.struct_size = sizeof(info)};
        ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
        ck_assert_str_ne(info.backend, "null");
        fa_device_close(device);
    }
}
END_TEST

START_TEST(devices_for_a_problem)
{
    fa_device *device;
    fa_attention_desc d = make_desc(1, 2, 2, 8, 8, 4);
    ck_assert_int_eq(fa_device_open(context, "null", &d, &device), FA_OK);
    fa_device_close(device);
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = "no such kernel"};
    d.tuning = &tuning;
    ck_assert_int_eq(fa_device_open(context, "null", &d, &device), FA_UNSUPPORTED);
    assert_message(
        "no device of \"null\" serves this problem: computes nothing: tuning.kernel is \"no such kernel\"");
    ck_assert_ptr_null(device);
    d.tuning = NULL;
    d.q.shape[3] = 1000;
    ck_assert_int_eq(fa_device_open(context, "null", &d, &device), FA_INVALID);
    assert_message("q.shape[3] is 1000");
    ck_assert_ptr_null(device);
}
END_TEST

START_TEST(buffers)
{
    fa_buffer *buffer;
    unsigned char bytes[100], back[100] = {0};
    for (int i = 0; i < 100; i++)
        bytes[i] = (unsigned char)(i + 1);
    ck_assert_int_eq(fa_buffer_create(null_device, 100, &buffer), FA_OK);
    ck_assert_uint_eq(fa_buffer_size(buffer), 100);
    ck_assert_int_eq(fa_buffer_write(null_queue, buffer, 0, bytes, 100), FA_OK);
    ck_assert_int_eq(fa_buffer_read(null_queue, buffer, 40, back, 60), FA_OK);
    ck_assert_mem_eq(back, bytes + 40, 60);
    static const size_t outside[][2] = {{0, 101}, {100, 1}, {101, 0}, {SIZE_MAX, 2}, {50, SIZE_MAX}};
    for (int i = 0; i < COUNT(outside); i++) {
        ck_assert_int_eq(fa_buffer_read(null_queue, buffer, outside[i][0], back, outside[i][1]), FA_INVALID);
        assert_message("is outside the buffer's 100 bytes");
        ck_assert_int_eq(fa_buffer_write(null_queue, buffer, outside[i][0], bytes, outside[i][1]),
                         FA_INVALID);
    }
    ck_assert_int_eq(fa_buffer_write(null_queue, buffer, 100, NULL, 0), FA_OK);
    ck_assert_int_eq(fa_buffer_write(null_queue, buffer, 0, NULL, 4), FA_INVALID);
    assert_message("host memory is NULL with size 4");
    ck_assert_int_eq(fa_buffer_write(NULL, buffer, 0, bytes, 4), FA_INVALID);
    assert_message("queue is NULL");
    ck_assert_int_eq(fa_buffer_read(null_queue, NULL, 0, back, 4), FA_INVALID);
    assert_message("buffer is NULL");
    fa_buffer_destroy(buffer);

    ck_assert_int_eq(fa_buffer_wrap_host(null_device, bytes, 100, &buffer), FA_OK);
    ck_assert_int_eq(fa_buffer_read(null_queue, buffer, 0, back, 100), FA_OK);
    ck_assert_mem_eq(back, bytes, 100);
    fa_buffer_destroy(buffer); /* the memory stays ours */
    bytes[0] = 9;
    ck_assert_int_eq(fa_buffer_wrap_host(null_device, NULL, 0, &buffer), FA_OK);
    fa_buffer_destroy(buffer);
    ck_assert_int_eq(fa_buffer_wrap_host(null_device, NULL, 1, &buffer), FA_INVALID);
    assert_message("memory is NULL with size 1");
    ck_assert_ptr_null(buffer);
    ck_assert_int_eq(fa_buffer_create(null_device, 0, &buffer), FA_OK);
    fa_buffer_destroy(buffer);
    ck_assert_int_eq(fa_buffer_create(null_device, SIZE_MAX, &buffer), FA_OUT_OF_MEMORY);
    assert_message("size is 18446744073709551615");
    ck_assert_ptr_null(buffer);
    ck_assert_int_eq(fa_buffer_create(NULL, 4, &buffer), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_int_eq(fa_buffer_create(null_device, 4, NULL), FA_INVALID);
    assert_message("buffer is NULL");
    ck_assert_uint_eq(fa_buffer_size(NULL), 0);
    fa_buffer_destroy(NULL);
}
END_TEST

/* Copies that a call need not wait for, from and to memory for them. */
START_TEST(copies_beside_work)
{
    fa_buffer *buffer;
    void *from, *to;
    ck_assert_int_eq(fa_buffer_create(null_device, 100, &buffer), FA_OK);
    ck_assert_int_eq(fa_host_memory_create(null_device, 100, &from), FA_OK);
    ck_assert_int_eq(fa_host_memory_create(null_device, 60, &to), FA_OK);
    ck_assert_uint_eq((uintptr_t)from % 64, 0);
    for (int i = 0; i < 100; i++)
        ((unsigned char *)from)[i] = (unsigned char)(i + 1);
    memset(to, 0, 60);
    ck_assert_int_eq(fa_buffer_write_async(null_queue, buffer, 0, from, 100), FA_OK);
    ck_assert_int_eq(fa_buffer_read_async(null_queue, buffer, 40, to, 60), FA_OK);
    ck_assert_int_eq(fa_queue_wait(null_queue), FA_OK);
    ck_assert_mem_eq(to, (unsigned char *)from + 40, 60);
    ck_assert_int_eq(fa_buffer_write_async(null_queue, buffer, 50, from, 51), FA_INVALID);
    assert_message("is outside the buffer's 100 bytes");
    ck_assert_int_eq(fa_buffer_read_async(null_queue, buffer, 0, NULL, 4), FA_INVALID);
    assert_message("host memory is NULL with size 4");
    ck_assert_int_eq(fa_buffer_read_async(NULL, buffer, 0, to, 4), FA_INVALID);
    ck_assert_int_eq(fa_buffer_write_async(null_queue, buffer, 100, NULL, 0), FA_OK);
    fa_host_memory_destroy(null_device, from, 100);
    fa_host_memory_destroy(null_device, to, 60);
    fa_host_memory_destroy(null_device, NULL, 0);
    fa_buffer_destroy(buffer);
    ck_assert_int_eq(fa_host_memory_create(null_device, 0, &to), FA_OK);
    ck_assert_ptr_null(to);
    ck_assert_int_eq(fa_host_memory_create(null_device, SIZE_MAX, &to), FA_OUT_OF_MEMORY);
    assert_message("size is 18446744073709551615");
    ck_assert_int_eq(fa_host_memory_create(NULL, 4, &to), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_ptr_null(to);
    ck_assert_int_eq(fa_host_memory_create(null_device, 4, NULL), FA_INVALID);
    assert_message("memory is NULL");
}
END_TEST

START_TEST(queues)
{
    fa_queue *made = (fa_queue *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_queue_create(NULL, &made), FA_INVALID);
    assert_message("device is NULL");
    ck_assert_ptr_null(made);
    ck_assert_int_eq(fa_queue_create(null_device, NULL), FA_INVALID);
    assert_message("queue is NULL");
    ck_assert_int_eq(fa_queue_wait(NULL), FA_INVALID);
    assert_message("queue is NULL");
    fa_queue_destroy(NULL);
}
END_TEST

START_TEST(queues_without_clocks_say_so)
{
    double seconds = 7;
    ck_assert_int_eq(fa_queue_seconds(null_queue, &seconds), FA_UNSUPPORTED);
    assert_message("the null backend does not time its queues");
    ck_assert_int_eq(fa_queue_seconds(NULL, &seconds), FA_INVALID);
    assert_message("queue is NULL");
    ck_assert_int_eq(fa_queue_seconds(null_queue, NULL), FA_INVALID);
    assert_message("seconds is NULL");
    ck_assert(seconds == 7);
}
END_TEST

Suite *registry_suite(void)
{
    Suite *suite = suite_create("registry");
    TCase *tc = add_context_case(suite, "registry");
    tcase_add_test(tc, devices_are_listed);
    tcase_add_test(tc, every_backend_is_listed);
    tcase_add_test(tc, descriptions_refused_by_name);
    tcase_add_test(tc, names_that_open);
    tcase_add_test(tc, names_that_do_not);
    tcase_add_test(tc, arguments_refused_by_name);
    tcase_add_test(tc, environment);
    tcase_add_test(tc, lists_begin_with_what_was_asked_for);
    tcase_add_test(tc, instruction_sets);
    tcase_add_test(tc, automatic_is_never_null);
    tcase_add_test(tc, devices_for_a_problem);
    TCase *memory_case = add_device_case(suite, "buffers and queues");
    tcase_add_test(memory_case, buffers);
    tcase_add_test(memory_case, copies_beside_work);
    tcase_add_test(memory_case, queues);
    tcase_add_test(memory_case, queues_without_clocks_say_so);
    return suite;
}
