/* SPDX-License-Identifier: Apache-2.0 */
/* A caller's own context, queue and memory with a driver that fails at every call in turn. */
#include <fastattn/opencl.h>
#include <stdlib.h>
#include <string.h>

#include "life.h"
#include "suites.h"

enum { BYTES = 4096 };

/* The caller's. */
static cl_context cl_own;
static cl_command_queue cl_queue;
static cl_mem cl_memory;
static cl_device_id id;

static void setup(void)
{
    cl_platform_id platform;
    cl_int error[3];
    ck_assert_int_eq(clGetPlatformIDs(1, &platform, NULL), CL_SUCCESS);
    ck_assert_int_eq(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &id, NULL), CL_SUCCESS);
    cl_own = clCreateContext(NULL, 1, &id, NULL, NULL, &error[0]);
    cl_queue = clCreateCommandQueue(cl_own, id, 0, &error[1]);
    cl_memory = clCreateBuffer(cl_own, CL_MEM_READ_WRITE, BYTES, NULL, &error[2]);
    ck_assert(error[0] == CL_SUCCESS && error[1] == CL_SUCCESS && error[2] == CL_SUCCESS);
    ck_assert_int_eq(stub_live(), 3);
}

static void teardown(void)
{
    ck_assert_int_eq(stub_live(), 3);
    (void)clReleaseMemObject(cl_memory);
    (void)clReleaseCommandQueue(cl_queue);
    (void)clReleaseContext(cl_own);
    ck_assert_int_eq(stub_live(), 0);
}

typedef struct wraps {
    fa_device *device;
    fa_queue *queue;
    fa_buffer *buffer;
    fa_status status; /* the first that is not FA_OK */
} wraps;

static wraps wrap_all(void)
{
    wraps w = {0};
    w.status = fa_device_open_opencl(context, cl_own, id, &w.device);
    if (w.status == FA_OK)
        w.status = fa_queue_wrap_opencl(w.device, cl_queue, &w.queue);
    if (w.status == FA_OK)
        w.status = fa_buffer_wrap_opencl(w.device, cl_memory, 64, 0, &w.buffer);
    return w;
}

static void unwrap_all(const wraps *w)
{
    fa_buffer_destroy(w->buffer);
    fa_queue_destroy(w->queue);
    fa_device_close(w->device);
}

START_TEST(wraps_make_nothing_and_keep_nothing)
{
    const wraps w = wrap_all();
    ck_assert_msg(w.status == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(stub_live(), 3);
    ck_assert_uint_eq(fa_buffer_size(w.buffer), BYTES - 64);
    unwrap_all(&w);
    ck_assert_str_eq(stub_misuse(), "");
}
END_TEST

START_TEST(every_call_fails)
{
    static const char *const functions[] = {"clGetContextInfo",      "clRetainContext",
                                            "clGetCommandQueueInfo", "clRetainCommandQueue",
                                            "clGetMemObjectInfo",    "clRetainMemObject"};
    for (int f = 0; f < COUNT(functions); f++) {
        int before = stub_calls(functions[f]);
        wraps w = wrap_all();
        ck_assert_int_eq(w.status, FA_OK);
        unwrap_all(&w);
        int calls = stub_calls(functions[f]) - before;
        ck_assert_msg(calls > 0, "%s is never called", functions[f]);
        for (int after = 0; after < calls; after++) {
            stub_fail(functions[f], after, CL_OUT_OF_HOST_MEMORY);
            w = wrap_all();
            ck_assert_msg(w.status == FA_OUT_OF_MEMORY, "%s: %s", functions[f], fa_status_name(w.status));
            assert_message(functions[f]);
            assert_message("CL_OUT_OF_HOST_MEMORY (-6)");
            unwrap_all(&w);
            ck_assert_int_eq(stub_live(), 3);
        }
    }
    ck_assert_str_eq(stub_misuse(), "");
}
END_TEST

START_TEST(every_request_for_host_memory_fails)
{
    long before = atomic_load(&memory.calls);
    wraps w = wrap_all();
    ck_assert_int_eq(w.status, FA_OK);
    unwrap_all(&w);
    long requests = atomic_load(&memory.calls) - before;
    ck_assert_int_gt(requests, 0);
    for (long n = 0; n < requests; n++) {
        memory.fail_at = atomic_load(&memory.calls) + n;
        w = wrap_all();
        memory.fail_at = -1;
        ck_assert_int_eq(w.status, FA_OUT_OF_MEMORY);
        unwrap_all(&w);
        ck_assert_int_eq(stub_live(), 3);
    }
}
END_TEST

/* Handles that a driver knows to be none. */
START_TEST(dead_handles)
{
    cl_int error;
    cl_context dead_context = clCreateContext(NULL, 1, &id, NULL, NULL, &error);
    cl_command_queue dead_queue = clCreateCommandQueue(cl_own, id, 0, &error);
    cl_mem dead_memory = clCreateBuffer(cl_own, CL_MEM_READ_WRITE, BYTES, NULL, &error);
    (void)clReleaseContext(dead_context);
    (void)clReleaseCommandQueue(dead_queue);
    (void)clReleaseMemObject(dead_memory);
    fa_device *device = (fa_device *)(uintptr_t)&memory;
    ck_assert_int_eq(fa_device_open_opencl(context, dead_context, id, &device), FA_INVALID);
    assert_message("cl_context: clGetContextInfo: CL_INVALID_CONTEXT (-34)");
    ck_assert_ptr_null(device);
    wraps w = wrap_all();
    ck_assert_int_eq(w.status, FA_OK);
    fa_queue *queue = w.queue;
    fa_buffer *buffer = w.buffer;
    ck_assert_int_eq(fa_queue_wrap_opencl(w.device, dead_queue, &queue), FA_INVALID);
    assert_message("cl_queue: clGetCommandQueueInfo: CL_INVALID_COMMAND_QUEUE (-36)");
    ck_assert_ptr_null(queue);
    ck_assert_int_eq(fa_buffer_wrap_opencl(w.device, dead_memory, 0, 0, &buffer), FA_INVALID);
    assert_message("cl_mem: clGetMemObjectInfo: CL_INVALID_MEM_OBJECT (-38)");
    ck_assert_ptr_null(buffer);
    unwrap_all(&w);
}
END_TEST

START_TEST(devices_of_another_context)
{
    setenv("STUB_DEVICES", "good,nocompiler,unified", 1);
    cl_platform_id platform;
    cl_device_id ids[3];
    cl_int error;
    fa_device *device = (fa_device *)(uintptr_t)&memory;
    ck_assert_int_eq(clGetPlatformIDs(1, &platform, NULL), CL_SUCCESS);
    ck_assert_int_eq(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 3, ids, NULL), CL_SUCCESS);
    ck_assert_int_eq(fa_device_open_opencl(context, cl_own, ids[2], &device), FA_INVALID);
    assert_message("cl_device is not one of the 1 devices of cl_context");
    ck_assert_ptr_null(device);
    cl_context poor = clCreateContext(NULL, 1, &ids[1], NULL, NULL, &error);
    ck_assert_int_eq(fa_device_open_opencl(context, poor, ids[1], &device), FA_NO_DEVICE);
    assert_message("no compiler");
    (void)clReleaseContext(poor);
}
END_TEST

void add_wrap_tests(Suite *suite)
{
    TCase *tc = add_context_case(suite, "wraps");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, wraps_make_nothing_and_keep_nothing);
    tcase_add_test(tc, every_call_fails);
    tcase_add_test(tc, every_request_for_host_memory_fails);
    tcase_add_test(tc, dead_handles);
    tcase_add_test(tc, devices_of_another_context);
}
