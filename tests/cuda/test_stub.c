/* SPDX-License-Identifier: Apache-2.0 */
/* The backend's host side with a driver that computes nothing and fails at will. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cuda.h"
#include "tests/cuda/stub_life.h"

enum { MOST_CALLS = 60 };

static const char *const limits[] = {"", "images=0", "arch=60,shared=49152", "shared=65536,images=0"};

START_TEST(lives)
{
    (void)setenv("FASTATTN_CUDA_LIMITS", limits[_i], 1);
    check_good_life(NULL, 0);
    check_good_life("fma64", 0);
    check_good_life("rows64", 3);
    if (strstr(limits[_i], "images=0"))
        ck_assert_int_gt(stub_compiles(), 0);
}
END_TEST

static const char *const may_fail[] = {
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuMemAlloc",
    "cuMemcpyHtoD",
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventElapsedTime",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcGetCUBINSize",
    "nvrtcGetCUBIN",
};

/* The nth call of a function fails, for all n that a life has: the failure is told, nothing leaks, and a life after it
 * is good. What fails while a life ends has nobody to be told. */
static void check_failures(const char *function, CUresult error)
{
    bool failed_once = false;
    (void)setenv("FASTATTN_CUDA_LIMITS", "images=0", 1);
    for (int nth = 1; nth <= MOST_CALLS; nth++) {
        life l = {0};
        stub_fail(function, nth, error);
        fa_status status = live_on(&l, "rows64", 2);
        bool failed = stub_has_failed();
        stub_fail(NULL, 0, CUDA_SUCCESS);
        if (!failed) {
            ck_assert_msg(status == FA_OK, "%s", fa_last_error());
            die(&l);
            break;
        }
        failed_once = true;
        ck_assert_msg(status != FA_OK, "call %d of %s failed unnoticed", nth, function);
        assert_message(function);
        die(&l);
        check_good_life("rows64", 2);
    }
    ck_assert_msg(failed_once, "%s was never called", function);
}

START_TEST(failures_are_told)
{
    check_failures(may_fail[_i], CUDA_ERROR_OUT_OF_MEMORY);
}
END_TEST

START_TEST(a_failed_launch_is_told)
{
    life l = {0};
    stub_fail("cuLaunchKernel", 2, 719);
    ck_assert_int_eq(live_on(&l, "fma64", 0), FA_DEVICE_LOST);
    assert_message("cuLaunchKernel: unknown error (719)");
    ck_assert_int_eq(fa_queue_wait(l.queue), FA_OK);
    die(&l);
}
END_TEST

/* Every call fails from some point on, as after a kernel that went astray: all is released even so. */
START_TEST(a_lost_context_is_told)
{
    life l = {0};
    ck_assert_int_eq(live_on(&l, "fma64", 0), FA_OK);
    stub_fail("cuStreamSynchronize", 1, 700);
    ck_assert_int_eq(fa_queue_wait(l.queue), FA_DEVICE_LOST);
    assert_message("cuStreamSynchronize: unknown error (700)");
    die(&l);
}
END_TEST

START_TEST(out_of_memory_is_told)
{
    life l = {0};
    fa_buffer *large = NULL;
    ck_assert_int_eq(fa_device_open(context, "cuda", NULL, &l.device), FA_OK);
    ck_assert_int_eq(fa_buffer_create(l.device, (size_t)1 << 40, &large), FA_OUT_OF_MEMORY);
    assert_message("no 1099511627776 bytes are left of the 1073741824");
    ck_assert_ptr_null(large);
    die(&l);
}
END_TEST

/* Of fma, rows that begin where vectors cannot be read have a kernel of their own, and others never run it. */
START_TEST(unaligned_buffers_have_their_kernel)
{
    life l = {0};
    ck_assert_int_eq(live_on(&l, "fma64", 1), FA_OK); /* no merge behind it */
    const uintptr_t aligned = stub_kernel();
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = l.buffer[0],
                              .k = l.buffer[1],
                              .v = l.buffer[2],
                              .o = l.buffer[3],
                              .q_offset = sizeof(float),
                              .workspace = l.workspace};
    ck_assert_int_eq(fa_plan_run(l.plan, l.queue, &args), FA_OK);
    ck_assert_uint_ne(stub_kernel(), aligned);
    ck_assert_int_eq(run_life(&l, l.queue), FA_OK);
    ck_assert_uint_eq(stub_kernel(), aligned);
    ck_assert_int_eq(fa_queue_wait(l.queue), FA_OK);
    die(&l);
}
END_TEST

/* What NVRTC makes is kept: a second process, here a second device, finds it. */
START_TEST(cubins_are_cached)
{
    char folder[] = "/tmp/fastattn-test-XXXXXX", command[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)setenv("FASTATTN_CACHE", folder, 1);
    (void)setenv("FASTATTN_CUDA_LIMITS", "images=0", 1);
    check_good_life("fma64", 2);
    ck_assert_int_eq(stub_compiles(), 4); /* for aligned rows, for others, what merges and what appends */
    check_good_life("fma64", 2);
    ck_assert_int_eq(stub_compiles(), 4);
    /* One that the driver refuses is compiled anew. */
    stub_fail("cuModuleLoadData", 1, CUDA_ERROR_INVALID_IMAGE);
    check_good_life("fma64", 2);
    ck_assert_int_eq(stub_compiles(), 5);
    (void)snprintf(command, sizeof(command), "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* With a compiler an append has a program for its types, which the next one of these types shares; without, the library's. */
static void check_appends(const long compiles[3])
{
    fa_device *device;
    fa_append *append[3];
    fa_append_desc desc = {.struct_size = sizeof(desc),
                           .k = fa_tensor_make(FA_F32, 1, 1, 2, DIM),
                           .cache_k = fa_tensor_make(FA_Q8_0, 1, 1, KEYS, DIM)};
    const long before = stub_compiles();
    ck_assert_msg(fa_device_open(context, "cuda", NULL, &device) == FA_OK, "%s", fa_last_error());
    for (int n = 0; n < 3; n++) {
        desc.cache_k.dtype = n < 2 ? FA_Q8_0 : FA_Q4_0;
        ck_assert_msg(fa_append_create(device, &desc, &append[n]) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(stub_compiles() - before, compiles[n]);
    }
    for (int n = 0; n < 3; n++)
        fa_append_destroy(append[n]);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_int_eq(stub_misuses(), 0);
}

START_TEST(appends_are_compiled_for_their_types)
{
    static const long each[] = {1, 1, 2}, none[] = {0, 0, 0}, again[] = {1, 2, 3};
    check_appends(each);
    if (fa_cuda_image_count == 0)
        return;
    stub_set_arch(120); /* which this compiler does not know, but PTX serves */
    check_appends(none);
    stub_set_arch(90);
    stub_fail("nvrtcGetCUBINSize", 1, CUDA_ERROR_INVALID_VALUE);
    check_appends(again); /* the library's serves the first; the second tries once more */
    ck_assert(stub_has_failed());
}
END_TEST

/* A caller's context, stream and memory; and a stream that is being captured. */
START_TEST(callers_things_are_used)
{
    life l = {.kept = 1};
    CUcontext mine = stub_context(0);
    ck_assert_int_eq(fa_device_open_cuda(context, mine, &l.device), FA_OK);
    ck_assert_int_eq(make_things(&l, "fma64", 2), FA_OK);
    CUstream stream = stub_stream(mine);
    fa_queue *wrapped = NULL, *defaulted = NULL;
    ck_assert_int_eq(fa_queue_wrap_cuda(l.device, stream, &wrapped), FA_OK);
    ck_assert_int_eq(fa_queue_wrap_cuda(l.device, NULL, &defaulted), FA_OK);
    ck_assert_int_eq(run_life(&l, defaulted), FA_OK);
    fa_queue_destroy(defaulted);
    ck_assert_int_eq(run_life(&l, wrapped), FA_OK);
    double seconds;
    ck_assert_int_eq(fa_queue_seconds(wrapped, &seconds), FA_OK);

    ck_assert_int_eq(append_live(&l.append, l.device, wrapped), FA_OK);
    stub_capture(stream, 1);
    const long records = stub_records(), launches = stub_launches();
    ck_assert_int_eq(run_life(&l, wrapped), FA_OK);
    ck_assert_int_eq(fa_append_run(l.append.append, wrapped, &l.append.args), FA_OK);
    ck_assert_int_eq(stub_launches() - launches, 3);
    ck_assert_int_eq(stub_records(), records);
    ck_assert_int_eq(fa_queue_wait(wrapped), FA_OK);
    ck_assert_int_eq(fa_buffer_read(wrapped, l.buffer[0], 0, bytes_out, sizeof(bytes_out)), FA_UNSUPPORTED);
    assert_message("is being captured");
    ck_assert_int_eq(fa_queue_seconds(wrapped, &seconds), FA_INVALID);
    stub_capture(stream, 0);
    fa_queue_destroy(wrapped);
    stub_stream_destroy(stream);

    const uint64_t at = (uint64_t)(uintptr_t)stub_address(fa_buffer_size(l.buffer[0]));
    fa_buffer *part = NULL;
    ck_assert_int_eq(fa_buffer_wrap_cuda(l.device, at + 64, sizeof(bytes_in) - 64, &part), FA_OK);
    fa_buffer_destroy(part);
    die(&l);
    stub_context_destroy(mine);
    ck_assert_int_eq(stub_live(), 0);
}
END_TEST

START_TEST(wrong_things_are_refused)
{
    life l = {0};
    fa_device *none = NULL;
    fa_queue *queue = NULL;
    fa_buffer *buffer = NULL;
    CUcontext other = stub_context(0);
    CUstream stream = stub_stream(other);
    ck_assert_int_eq(fa_device_open_cuda(context, NULL, &none), FA_INVALID);
    ck_assert_int_eq(fa_device_open_cuda(context, (CUcontext)(void *)stream, &none), FA_INVALID);
    assert_message("cu_context: cuCtxPushCurrent");
    ck_assert_int_eq(fa_device_open(context, "cuda", NULL, &l.device), FA_OK);
    ck_assert_int_eq(fa_queue_wrap_cuda(l.device, stream, &queue), FA_INVALID);
    assert_message("cu_stream belongs to another context");
    ck_assert_int_eq(fa_queue_wrap_cuda(NULL, stream, &queue), FA_INVALID);
    ck_assert_int_eq(fa_queue_wrap_cuda(l.device, stream, NULL), FA_INVALID);
    ck_assert_int_eq(fa_buffer_wrap_cuda(l.device, 64, 64, &buffer), FA_INVALID);
    assert_message("cu_pointer: cuPointerGetAttribute");
    ck_assert_int_eq(fa_buffer_wrap_cuda(l.device, 65, 64, &buffer), FA_INVALID);
    assert_message("cu_pointer is 0x41, expected a multiple of 64");
    ck_assert_int_eq(fa_buffer_create(l.device, 4096, &l.buffer[0]), FA_OK);
    const uint64_t at = (uint64_t)(uintptr_t)stub_address(4096);
    ck_assert_int_eq(fa_buffer_wrap_cuda(l.device, at + 1024, 4096, &buffer), FA_INVALID);
    assert_message("size is 4096, expected at most the 3072 bytes");
    ck_assert_ptr_null(buffer);
    ck_assert_ptr_null(queue);
    stub_stream_destroy(stream);
    stub_context_destroy(other);
    die(&l);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda stub");
    (void)setenv("FASTATTN_CACHE", "off", 1);
    TCase *tc = add_context_case(suite, "stub");
    tcase_set_timeout(tc, 120);
    add_lengths(tc);
    add_pairs(tc);
    add_devices(tc);
    tcase_add_loop_test(tc, lives, 0, COUNT(limits));
    tcase_add_loop_test(tc, failures_are_told, 0, COUNT(may_fail));
    tcase_add_test(tc, a_failed_launch_is_told);
    tcase_add_test(tc, a_lost_context_is_told);
    tcase_add_test(tc, out_of_memory_is_told);
    tcase_add_test(tc, unaligned_buffers_have_their_kernel);
    tcase_add_test(tc, cubins_are_cached);
    tcase_add_test(tc, appends_are_compiled_for_their_types);
    tcase_add_test(tc, callers_things_are_used);
    tcase_add_test(tc, wrong_things_are_refused);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* the driver is looked for once in a process */
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
