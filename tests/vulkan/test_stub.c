/* SPDX-License-Identifier: Apache-2.0 */
/* The backend's host side with a driver that computes nothing and fails at will. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "tests/unit/helpers.h"
#include "tests/vulkan/stub.h"

enum { HEADS = 2, ROWS = 70, KEYS = 300, DIM = 32, MOST_CALLS = 40 };

typedef struct life {
    fa_device *device;
    fa_queue *queue;
    fa_buffer *buffer[4], *workspace;
    fa_plan *plan;
    append_life append;
} life;

static float bytes_in[HEADS * KEYS * DIM], bytes_out[HEADS * KEYS * DIM];

/* From the device to a result; stops at the first failure. */
static fa_status live_on(life *l, const char *kernel, int splits)
{
    fa_attention_desc desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = kernel, .splits = splits};
    desc.tuning = &tuning;
    fa_status status = fa_device_open(context, "vulkan", NULL, &l->device);
    if (status == FA_OK)
        status = fa_queue_create(l->device, &l->queue);
    for (int t = 0; t < 4 && status == FA_OK; t++) {
        status = fa_buffer_create(l->device, sizeof(bytes_in), &l->buffer[t]);
        if (status == FA_OK)
            status = fa_buffer_write(l->queue, l->buffer[t], 0, bytes_in, sizeof(bytes_in));
    }
    if (status == FA_OK)
        status = fa_plan_create(l->device, &desc, &l->plan);
    if (status == FA_OK && fa_plan_workspace(l->plan) > 0)
        status = fa_buffer_create(l->device, fa_plan_workspace(l->plan), &l->workspace);
    if (status != FA_OK)
        return status;
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = l->buffer[0],
                                    .k = l->buffer[1],
                                    .v = l->buffer[2],
                                    .o = l->buffer[3],
                                    .workspace = l->workspace};
    double seconds;
    for (int turn = 0; turn < 10 && status == FA_OK; turn++) /* more than there are slots */
        status = fa_plan_run(l->plan, l->queue, &args);
    if (status == FA_OK)
        status = fa_queue_wait(l->queue);
    if (status == FA_OK)
        status = append_live(&l->append, l->device, l->queue);
    if (status == FA_OK)
        status = fa_queue_seconds(l->queue, &seconds);
    if (status == FA_OK)
        status = fa_buffer_read(l->queue, l->buffer[0], 0, bytes_out, sizeof(bytes_out));
    return status;
}

static void die(life *l)
{
    append_die(&l->append);
    fa_plan_destroy(l->plan);
    for (int t = 0; t < 4; t++)
        fa_buffer_destroy(l->buffer[t]);
    fa_buffer_destroy(l->workspace);
    fa_queue_destroy(l->queue);
    fa_device_close(l->device);
    *l = (life){0};
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_int_eq(stub_misuses(), 0);
}

static void check_good_life(const char *kernel, int splits)
{
    life l = {0};
    for (int i = 0; i < HEADS * KEYS * DIM; i++)
        bytes_in[i] = (float)i;
    memset(bytes_out, 0, sizeof(bytes_out));
    fa_status status = live_on(&l, kernel, splits);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(memcmp(bytes_in, bytes_out, sizeof(bytes_in)), 0);
    ck_assert_int_ge(stub_dispatches(), 10);
    die(&l);
}

static const char *const limits[] = {"", "address=0", "timeline=0", "address=0,timeline=0,subgroups=0",
                                     "local=16384,group=64,range=1048576,address=0"};

START_TEST(lives)
{
    (void)setenv("FASTATTN_VULKAN_LIMITS", limits[_i], 1);
    check_good_life("tile8", 0);
    check_good_life("rows64", 3);
}
END_TEST

static const char *const may_fail[] = {"vkEnumeratePhysicalDevices",
                                       "vkEnumerateDeviceExtensionProperties",
                                       "vkCreateDevice",
                                       "vkAllocateMemory",
                                       "vkMapMemory",
                                       "vkCreateBuffer",
                                       "vkBindBufferMemory",
                                       "vkCreateSemaphore",
                                       "vkCreateFence",
                                       "vkResetFences",
                                       "vkWaitForFences",
                                       "vkCreateShaderModule",
                                       "vkCreateDescriptorSetLayout",
                                       "vkCreatePipelineLayout",
                                       "vkCreateComputePipelines",
                                       "vkCreateDescriptorPool",
                                       "vkAllocateDescriptorSets",
                                       "vkCreateCommandPool",
                                       "vkAllocateCommandBuffers",
                                       "vkResetCommandBuffer",
                                       "vkBeginCommandBuffer",
                                       "vkEndCommandBuffer",
                                       "vkCreateQueryPool",
                                       "vkGetQueryPoolResults",
                                       "vkQueueSubmit",
                                       "vkWaitSemaphores"};

/* The nth call of a function fails, for all n that a life has: the failure is told, nothing leaks, and a life after it
 * is good. The list of devices is made once in a process, and tests have processes of their own. */
static void check_failures(const char *function, VkResult result, const char *with_limits)
{
    bool failed_once = false;
    (void)setenv("FASTATTN_VULKAN_LIMITS", with_limits, 1);
    for (int nth = 1; nth <= MOST_CALLS; nth++) {
        life l = {0};
        stub_fail(function, nth, result);
        fa_status status = live_on(&l, "rows64", 2);
        bool failed = stub_has_failed();
        stub_fail(NULL, 0, VK_SUCCESS);
        if (!failed) {
            ck_assert_msg(status == FA_OK, "%s", fa_last_error());
            die(&l);
            break;
        }
        failed_once = true;
        ck_assert_msg(status != FA_OK, "call %d of %s failed unnoticed", nth, function);
        assert_message(function);
        die(&l);
        if (strcmp(function, "vkEnumeratePhysicalDevices") == 0)
            return; /* no devices in this process any more */
        if (strcmp(function, "vkEnumerateDeviceExtensionProperties") == 0 && status == FA_NO_DEVICE)
            return;
        check_good_life("rows64", 2);
    }
    /* What a function is not used for needs no failing. */
    const bool fences = strstr(with_limits, "timeline=0") != NULL,
               sets = strstr(with_limits, "address=0") != NULL;
    if (strstr(function, "Fences") || strcmp(function, "vkCreateFence") == 0)
        ck_assert_int_eq(failed_once, fences);
    else if (strstr(function, "Semaphore"))
        ck_assert_int_eq(failed_once, !fences);
    else if (strstr(function, "Descriptor"))
        ck_assert_int_eq(failed_once, sets);
    else
        ck_assert_msg(failed_once, "%s was never called", function);
}

START_TEST(failures_are_told)
{
    check_failures(may_fail[_i], VK_ERROR_OUT_OF_DEVICE_MEMORY, "");
}
END_TEST

START_TEST(failures_are_told_by_a_lesser_device)
{
    check_failures(may_fail[_i], VK_ERROR_DEVICE_LOST, "address=0,timeline=0,subgroups=0");
}
END_TEST

START_TEST(a_lost_device_is_told)
{
    life l = {0};
    stub_fail("vkWaitSemaphores", 5, VK_ERROR_DEVICE_LOST);
    ck_assert_int_eq(live_on(&l, "tile8", 0), FA_DEVICE_LOST);
    assert_message("VK_ERROR_DEVICE_LOST (-4)");
    ck_assert_int_eq(fa_queue_wait(l.queue), FA_OK);
    die(&l);
}
END_TEST

START_TEST(out_of_memory_is_told)
{
    life l = {0};
    stub_fail("vkAllocateMemory", 1, VK_ERROR_OUT_OF_DEVICE_MEMORY);
    (void)fa_device_open(context, "vulkan", NULL, &l.device);
    fa_buffer *large = NULL;
    ck_assert_int_eq(fa_buffer_create(l.device, (size_t)1 << 40, &large), FA_OUT_OF_MEMORY);
    ck_assert_ptr_null(large);
    die(&l);
}
END_TEST

/* Pipelines are made without a cache where there is none to be had. */
START_TEST(caches_may_fail)
{
    static const char *const functions[] = {"vkCreatePipelineCache", "vkGetPipelineCacheData"};
    char folder[] = "/tmp/fastattn-test-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)setenv("FASTATTN_CACHE", folder, 1);
    for (int nth = 1; nth < 4; nth++) {
        stub_fail(functions[_i], nth, VK_ERROR_OUT_OF_HOST_MEMORY);
        check_good_life("tile8", 0);
    }
    stub_fail(NULL, 0, VK_SUCCESS);
    check_good_life("tile8", 0);
    char command[64];
    (void)snprintf(command, sizeof(command), "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(bad_limits_are_named)
{
    static const char *const bad[][2] = {
        {"local=1", "expected a number of at least 1024"},
        {"address=2", "expected address=0 or address=1"},
        {"colour=1", "\"colour=1\", expected local="},
        {"group=32", "at most 32 items, expected at least 64"},
        {"range=", "\"range=\""},
        {"address=0,buffers=14", "at most 14 storage buffers for a kernel, expected 15"},
    };
    (void)setenv("FASTATTN_VULKAN_LIMITS", bad[_i][0], 1);
    assert_unavailable("vulkan", bad[_i][1]);
}
END_TEST

START_TEST(an_old_device_is_refused)
{
    stub_set_device(VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, VK_API_VERSION_1_0);
    assert_unavailable("vulkan", "its version is 1.0, expected Vulkan 1.1");
}
END_TEST

START_TEST(no_device_is_told)
{
    stub_set_devices(0);
    assert_unavailable("vulkan", "no Vulkan device");
}
END_TEST

START_TEST(a_missing_function_is_named)
{
    stub_hide("vkGetPhysicalDeviceFeatures2");
    assert_unavailable("vulkan", "no function vkGetPhysicalDeviceFeatures2");
}
END_TEST

START_TEST(a_missing_library_is_named)
{
    (void)setenv("FASTATTN_VULKAN_LIBRARY", "none-such.so", 1);
    assert_unavailable("vulkan", "none-such.so");
}
END_TEST

/* A rasteriser on the CPU is there for those who name it. */
START_TEST(a_cpu_is_not_automatic)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    fa_device *device = NULL;
    stub_set_device(VK_PHYSICAL_DEVICE_TYPE_CPU, VK_API_VERSION_1_3);
    ck_assert_int_eq(fa_device_open(context, "vulkan", NULL, &device), FA_OK);
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    ck_assert_int_eq(info.available, 1);
    ck_assert_int_eq(info.automatic, 0);
    fa_device_close(device);
}
END_TEST

/* Where kernels see no addresses, a wrapped VkBuffer's own beginning counts. */
START_TEST(work_lies_where_a_descriptor_may_begin)
{
    fa_attention_desc desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    const fa_lengths lengths = {.struct_size = sizeof(lengths)};
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_buffer *tensors, *workspace, *work;
    desc.dynamic_lengths = 1;
    (void)setenv("FASTATTN_VULKAN_LIMITS", _i ? "" : "address=0", 1);
    ck_assert_msg(fa_device_open(context, "vulkan", NULL, &device) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    ck_assert_int_eq(fa_plan_create(device, &desc, &plan), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, 4 * sizeof(bytes_in), &tensors), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan), &workspace), FA_OK);
    const fa_vk_buffer *lent = workspace->impl; /* any handle that there is */
    const size_t bytes = 320 + fa_plan_work(plan);
    ck_assert_int_eq(fa_buffer_wrap_vulkan(device, (uint64_t)(uintptr_t)lent->handle, bytes, 64, 0, &work),
                     FA_OK);
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = tensors,
                                    .k = tensors,
                                    .v = tensors,
                                    .o = tensors,
                                    .o_offset = sizeof(bytes_in),
                                    .workspace = workspace,
                                    .work = work,
                                    .work_offset = 256};
    if (_i == 0) {
        ck_assert_int_eq(fa_plan_schedule(plan, queue, &lengths, work, 256), FA_INVALID);
        assert_message("work lies at byte 320 of its VkBuffer, expected a multiple of 256");
        ck_assert_int_eq(fa_plan_run(plan, queue, &args), FA_INVALID);
        assert_message("work lies at byte 320 of its VkBuffer, expected a multiple of 256");
    } else {
        ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    }
    fa_buffer_destroy(work);
    fa_buffer_destroy(workspace);
    fa_buffer_destroy(tensors);
    fa_plan_destroy(plan);
    fa_queue_destroy(queue);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_int_eq(stub_misuses(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vulkan stub");
    (void)setenv("FASTATTN_CACHE", "off", 1);
    TCase *tc = add_context_case(suite, "stub");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, lives, 0, COUNT(limits));
    tcase_add_loop_test(tc, failures_are_told, 0, COUNT(may_fail));
    tcase_add_loop_test(tc, failures_are_told_by_a_lesser_device, 0, COUNT(may_fail));
    tcase_add_test(tc, a_lost_device_is_told);
    tcase_add_test(tc, out_of_memory_is_told);
    tcase_add_loop_test(tc, caches_may_fail, 0, 2);
    tcase_add_loop_test(tc, bad_limits_are_named, 0, 6);
    tcase_add_test(tc, an_old_device_is_refused);
    tcase_add_test(tc, no_device_is_told);
    tcase_add_test(tc, a_missing_function_is_named);
    tcase_add_test(tc, a_missing_library_is_named);
    tcase_add_test(tc, a_cpu_is_not_automatic);
    tcase_add_loop_test(tc, work_lies_where_a_descriptor_may_begin, 0, 2);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* the driver is looked for once in a process */
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
