/* SPDX-License-Identifier: Apache-2.0 */
/* The backend's host side with a driver that computes nothing and fails at will. */
#include <fastattn/cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cuda.h"
#include "core/backend.h"
#include "tests/cuda/stub.h"
#include "tests/unit/helpers.h"

enum { HEADS = 2, ROWS = 70, KEYS = 300, DIM = 32, MOST_CALLS = 60 };

typedef struct life {
    fa_device *device;
    fa_queue *queue;
    fa_buffer *buffer[4], *workspace;
    fa_plan *plan;
    int dynamic; /* dynamic_lengths of the plan */
    long kept;   /* objects of the test's own */
    append_life append;
} life;

static float bytes_in[HEADS * KEYS * DIM], bytes_out[HEADS * KEYS * DIM];

static fa_status make_things(life *l, const char *kernel, int splits)
{
    static const int64_t most[] = {KEYS};
    fa_attention_desc desc = make_desc(1, HEADS, HEADS, ROWS, KEYS, DIM);
    fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = kernel, .splits = splits};
    desc.tuning = &tuning;
    desc.dynamic_lengths = l->dynamic;
    desc.lens_kv = l->dynamic == 2 ? most : NULL;
    fa_status status = fa_queue_create(l->device, &l->queue);
    for (int t = 0; t < 4 && status == FA_OK; t++) {
        status = fa_buffer_create(l->device, sizeof(bytes_in), &l->buffer[t]);
        if (status == FA_OK)
            status = fa_buffer_write(l->queue, l->buffer[t], 0, bytes_in, sizeof(bytes_in));
    }
    if (status == FA_OK)
        status = fa_plan_create(l->device, &desc, &l->plan);
    if (status == FA_OK && fa_plan_workspace(l->plan) > 0)
        status = fa_buffer_create(l->device, fa_plan_workspace(l->plan), &l->workspace);
    return status;
}

static fa_attention_args args_of(const life *l)
{
    return (fa_attention_args){.struct_size = sizeof(fa_attention_args),
                               .q = l->buffer[0],
                               .k = l->buffer[1],
                               .v = l->buffer[2],
                               .o = l->buffer[3],
                               .workspace = l->workspace};
}

static fa_status run(const life *l, fa_queue *queue)
{
    const fa_attention_args args = args_of(l);
    return fa_plan_run(l->plan, queue, &args);
}

/* From the device to a result; stops at the first failure. */
static fa_status live_on(life *l, const char *kernel, int splits)
{
    double seconds;
    fa_status status = fa_device_open(context, "cuda", NULL, &l->device);
    if (status == FA_OK)
        status = make_things(l, kernel, splits);
    if (status == FA_OK)
        status = append_live(&l->append, l->device, l->queue);
    for (int turn = 0; turn < 3 && status == FA_OK; turn++)
        status = run(l, l->queue);
    if (status == FA_OK)
        status = fa_queue_wait(l->queue);
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
    ck_assert_int_eq(stub_live(), l->kept);
    *l = (life){0};
    ck_assert_int_eq(stub_misuses(), 0);
}

static void check_good_life(const char *kernel, int splits)
{
    life l = {0};
    for (int i = 0; i < HEADS * KEYS * DIM; i++)
        bytes_in[i] = (float)i;
    memset(bytes_out, 0, sizeof(bytes_out));
    const long launches = stub_launches();
    fa_status status = live_on(&l, kernel, splits);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(memcmp(bytes_in, bytes_out, sizeof(bytes_in)), 0);
    ck_assert_int_ge(stub_launches() - launches, 3);
    die(&l);
}

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

/* A run with work of its own starts as many blocks as any lengths may need, and kernels find the work. */
START_TEST(work_is_passed_on)
{
    static const char *const kernels[] = {"fma64", "rows64", "rows128", NULL};
    life l = {.dynamic = 1};
    const int64_t keys[] = {7};
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = keys};
    fa_buffer *work;
    ck_assert_msg(live_on(&l, kernels[_i], 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(l.device, 256 + fa_plan_work(l.plan), &work), FA_OK);
    fa_attention_args args = args_of(&l);
    args.work = work;
    args.work_offset = 256;
    ck_assert_int_eq(fa_plan_schedule(l.plan, l.queue, &lengths, work, 256), FA_OK);
    const long before = stub_groups();
    ck_assert_int_eq(fa_plan_run(l.plan, l.queue, &args), FA_OK);
    const fa_capacity *most = &l.plan->capacity;
    ck_assert_int_eq(stub_groups() - before, most->items + most->merges * l.plan->args.block_q);
    ck_assert_uint_eq(stub_work(), (uintptr_t)work->address + 256);
    fa_buffer_destroy(work);
    die(&l);
}
END_TEST

/* Lengths on the device: one launch more, whether the stream is captured or not, and nothing else of the driver. */
START_TEST(lengths_are_read_by_a_launch)
{
    static const char *const waits[] = {"cuStreamSynchronize", "cuMemcpyHtoDAsync", "cuMemAllocHost",
                                        "cuEventRecord", "cuModuleLoadData"};
    const int32_t keys[] = {7};
    life l = {.dynamic = 2};
    fa_buffer *work, *lens;
    (void)setenv("FASTATTN_CUDA_LIMITS", "images=0", 1); /* the stub tells tasks by what it compiled */
    ck_assert_msg(live_on(&l, "rows64", 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(l.device, 256 + fa_plan_work(l.plan), &work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(l.device, sizeof(keys), &lens), FA_OK);
    ck_assert_int_eq(fa_buffer_write(l.queue, lens, 0, keys, sizeof(keys)), FA_OK);
    const fa_device_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = lens};
    for (int i = 0; i < COUNT(waits); i++) {
        const long before = stub_launches();
        stub_fail(waits[i], 1, CUDA_ERROR_INVALID_VALUE);
        ck_assert_int_eq(fa_plan_schedule_device(l.plan, l.queue, &lengths, work, 256), FA_OK);
        ck_assert(!stub_has_failed());
        ck_assert_int_eq(stub_launches() - before, 1);
    }
    stub_fail("cuLaunchKernel", 1, CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_ne(fa_plan_schedule_device(l.plan, l.queue, &lengths, work, 256), FA_OK);
    assert_message("cuLaunchKernel");
    stub_fail(NULL, 0, CUDA_SUCCESS);
    const fa_table_params *made = (const void *)((const char *)work->address + 256);
    const fa_table_sequence *s = (const fa_table_sequence *)(const void *)made + made->sequences_at;
    ck_assert_uint_eq((uint64_t)made->plan, l.plan->serial);
    ck_assert_int_eq(s->mask.len_kv, 7);
    fa_buffer_destroy(work);
    fa_buffer_destroy(lens);
    die(&l);
}
END_TEST

static fa_status schedule(const life *l, fa_buffer *work)
{
    const int64_t keys[] = {7};
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_kv = keys};
    return fa_plan_schedule(l->plan, l->queue, &lengths, work, 0);
}

/* Work is written without a wait, until as many copies are under way as a queue has stages for. */
START_TEST(schedules_do_not_wait)
{
    enum { STAGES = 4 };
    life l = {.dynamic = 1};
    fa_buffer *work;
    ck_assert_msg(live_on(&l, "rows64", 0) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(l.device, fa_plan_work(l.plan), &work), FA_OK);
    stub_fail("cuStreamSynchronize", 1, CUDA_ERROR_INVALID_VALUE);
    ck_assert_int_eq(schedule(&l, work), FA_OK);
    ck_assert(!stub_has_failed());
    stub_fail("cuEventSynchronize", 1, CUDA_ERROR_INVALID_VALUE);
    for (int n = 1; n < STAGES; n++)
        ck_assert_int_eq(schedule(&l, work), FA_OK);
    ck_assert(!stub_has_failed());
    ck_assert_int_ne(schedule(&l, work), FA_OK);
    ck_assert(stub_has_failed());
    stub_fail("cuMemAllocHost", 1, CUDA_ERROR_OUT_OF_MEMORY);
    ck_assert_int_eq(schedule(&l, work), FA_OK);
    ck_assert(!stub_has_failed());
    stub_fail(NULL, 0, CUDA_SUCCESS);
    fa_buffer_destroy(work);
    die(&l);
}
END_TEST

static const char *const schedules_call[] = {"cuCtxPushCurrent",  "cuEventCreate", "cuMemAllocHost",
                                             "cuMemcpyHtoDAsync", "cuEventRecord", "cuEventSynchronize"};

START_TEST(failed_schedules_are_told)
{
    const char *function = schedules_call[_i];
    bool failed = true;
    for (int nth = 1; failed; nth++) {
        life l = {.dynamic = 1};
        fa_buffer *work;
        fa_status status = FA_OK;
        ck_assert_msg(live_on(&l, "rows64", 0) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_buffer_create(l.device, fa_plan_work(l.plan), &work), FA_OK);
        stub_fail(function, nth, CUDA_ERROR_OUT_OF_MEMORY);
        for (int n = 0; n < 10 && status == FA_OK; n++)
            status = schedule(&l, work);
        failed = stub_has_failed();
        stub_fail(NULL, 0, CUDA_SUCCESS);
        ck_assert_int_eq(status, failed ? FA_OUT_OF_MEMORY : FA_OK);
        ck_assert(failed || nth > 1);
        if (failed)
            assert_message(function);
        ck_assert_msg(schedule(&l, work) == FA_OK, "%s", fa_last_error());
        fa_buffer_destroy(work);
        die(&l);
    }
}
END_TEST

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
    ck_assert_int_eq(run(&l, l.queue), FA_OK);
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
static void check_appends(long first, long others)
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
        ck_assert_int_eq(stub_compiles() - before, n < 2 ? first : others);
    }
    for (int n = 0; n < 3; n++)
        fa_append_destroy(append[n]);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_int_eq(stub_misuses(), 0);
}

START_TEST(appends_are_compiled_for_their_types)
{
    check_appends(1, 2);
    if (fa_cuda_image_count == 0)
        return;
    stub_fail("nvrtcGetNumSupportedArchs", 1, CUDA_ERROR_INVALID_VALUE);
    check_appends(0, 0);
    ck_assert(stub_has_failed());
}
END_TEST

static const char *const queries[] = {"cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
                                      "cuDeviceTotalMem"};

START_TEST(queries_may_fail)
{
    (void)fa_device_count(context); /* the first call finds the driver */
    stub_fail(queries[_i], 1, 999);
    assert_unavailable("cuda", queries[_i]);
    stub_fail(NULL, 0, CUDA_SUCCESS);
    check_good_life("fma64", 0);
}
END_TEST

static const char *const bad_limits[][2] = {
    {"arch=50", "expected a number of at least 60"},
    {"shared=1", "expected a number of at least 16384"},
    {"images=2", "expected images=0 or images=1"},
    {"colour=1", "\"colour=1\", expected arch=, shared= or images= and a number"},
    {"arch=", "\"arch=\""},
};

START_TEST(bad_limits_are_named)
{
    (void)setenv("FASTATTN_CUDA_LIMITS", bad_limits[_i][0], 1);
    assert_unavailable("cuda", bad_limits[_i][1]);
}
END_TEST

START_TEST(an_old_device_is_refused)
{
    stub_set_arch(52);
    assert_unavailable("cuda", "its compute capability is 5.2, expected 6.0 or later");
}
END_TEST

/* A device that neither the library nor the compiler has kernels for says so before anyone relies on it. */
START_TEST(a_device_without_kernels_is_refused)
{
    stub_set_arch(61);
    assert_unavailable(
        "cuda", "no kernels for compute capability 6.1 in this library, and NVRTC 12.9 does not compile for");
}
END_TEST

START_TEST(a_device_without_compiler_is_refused)
{
    stub_set_arch(61);
    (void)setenv("FASTATTN_NVRTC_LIBRARY", "none-such.so", 1);
    assert_unavailable("cuda", "none-such.so");
}
END_TEST

START_TEST(a_prohibited_device_is_refused)
{
    stub_set_attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, CU_COMPUTEMODE_PROHIBITED);
    assert_unavailable("cuda", "prohibited");
}
END_TEST

START_TEST(no_device_is_told)
{
    stub_set_devices(0);
    assert_unavailable("cuda", "the CUDA driver knows no device");
}
END_TEST

START_TEST(a_driver_that_does_not_start_is_told)
{
    stub_fail("cuInit", 1, CUDA_ERROR_OUT_OF_MEMORY);
    assert_unavailable("cuda", "cuInit: CUDA_ERROR_OUT_OF_MEMORY (2)");
}
END_TEST

START_TEST(a_missing_library_is_named)
{
    (void)setenv("FASTATTN_CUDA_LIBRARY", "none-such.so", 1);
    assert_unavailable("cuda", "FASTATTN_CUDA_LIBRARY: none-such.so");
}
END_TEST

/* What an older GPU has no instructions for is not among its kernels. */
START_TEST(rows_follow_the_device)
{
    static const struct {
        const char *limits, *has, *lacks;
    } cases[] = {
        {"", "ampere128", "none"}, {"arch=75", "turing128", "ampere"}, {"arch=61", "fma128", "turing"}};
    for (int i = 0; i < COUNT(cases); i++) {
        fa_device *device = NULL;
        fa_device_info info = {.struct_size = sizeof(info)};
        (void)setenv("FASTATTN_CUDA_LIMITS", cases[i].limits, 1);
        ck_assert_int_eq(fa_device_open(context, "cuda", NULL, &device), FA_OK);
        ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
        ck_assert_ptr_nonnull(strstr(info.kernels, cases[i].has));
        ck_assert_ptr_null(strstr(info.kernels, cases[i].lacks));
        ck_assert_uint_lt(strlen(info.kernels), sizeof(info.kernels) - 1);
        fa_device_close(device);
    }
}
END_TEST

/* Hopper's own instructions are of no later GPU: the kernel that has them is only there, and only for its problem. */
START_TEST(the_latent_kernel_is_of_hopper)
{
    static const int archs[] = {89, 90, 100};
    fa_attention_desc d = make_desc(16, 128, 1, 1, 8192, 576);
    fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = "hopper-latent"};
    d.v.shape[3] = d.o.shape[3] = 512;
    d.q.dtype = d.k.dtype = d.v.dtype = d.o.dtype = FA_BF16;
    stub_set_attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132);
    stub_set_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 232448);
    stub_set_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 233472);
    for (int i = 0; i < COUNT(archs); i++) {
        fa_device *device = NULL;
        fa_plan *plan = NULL;
        fa_plan_info info = {.struct_size = sizeof(info)};
        stub_set_arch(archs[i]);
        ck_assert_int_eq(fa_device_open(context, "cuda", NULL, &device), FA_OK);
        d.v_in_k = 1;
        d.tuning = archs[i] == 90 ? NULL : &tuning;
        const fa_status status = fa_plan_create(device, &d, &plan);
        ck_assert_msg(status == (archs[i] == 90 ? FA_OK : FA_UNSUPPORTED), "%d: %s", archs[i],
                      fa_last_error());
        if (status == FA_OK) {
            ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
            ck_assert_str_eq(info.kernel, "hopper-latent");
            size_t bound = 0;
            d.tuning = &tuning; /* of this kernel alone */
            ck_assert_int_eq(fa_workspace_bound(device, &d, &bound), FA_OK);
            ck_assert_uint_ge(bound, fa_plan_workspace(plan));
            ck_assert_int_eq(info.items, 128); /* all multiprocessors but four have one of as many keys */
            fa_plan_destroy(plan);
            d.k.dtype = d.v.dtype = FA_Q8_0;
            ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_UNSUPPORTED);
            assert_message("hopper-latent: k.dtype q8_0 is not served");
            d.k.dtype = d.v.dtype = FA_BF16;
            d.v_in_k = 0;
            d.tuning = &tuning;
            ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_UNSUPPORTED);
            assert_message("hopper-latent: a problem without v_in_k is not served");
        }
        fa_device_close(device);
    }
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
    ck_assert_int_eq(run(&l, defaulted), FA_OK);
    fa_queue_destroy(defaulted);
    ck_assert_int_eq(run(&l, wrapped), FA_OK);
    double seconds;
    ck_assert_int_eq(fa_queue_seconds(wrapped, &seconds), FA_OK);

    ck_assert_int_eq(append_live(&l.append, l.device, wrapped), FA_OK);
    stub_capture(stream, 1);
    const long records = stub_records(), launches = stub_launches();
    ck_assert_int_eq(run(&l, wrapped), FA_OK);
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
    tcase_add_loop_test(tc, work_is_passed_on, 0, 4);
    tcase_add_test(tc, lengths_are_read_by_a_launch);
    tcase_add_test(tc, schedules_do_not_wait);
    tcase_add_loop_test(tc, failed_schedules_are_told, 0, COUNT(schedules_call));
    tcase_add_loop_test(tc, lives, 0, COUNT(limits));
    tcase_add_loop_test(tc, failures_are_told, 0, COUNT(may_fail));
    tcase_add_test(tc, a_failed_launch_is_told);
    tcase_add_test(tc, a_lost_context_is_told);
    tcase_add_test(tc, out_of_memory_is_told);
    tcase_add_test(tc, unaligned_buffers_have_their_kernel);
    tcase_add_test(tc, cubins_are_cached);
    tcase_add_test(tc, appends_are_compiled_for_their_types);
    tcase_add_loop_test(tc, queries_may_fail, 0, COUNT(queries));
    tcase_add_loop_test(tc, bad_limits_are_named, 0, COUNT(bad_limits));
    tcase_add_test(tc, an_old_device_is_refused);
    tcase_add_test(tc, a_device_without_kernels_is_refused);
    tcase_add_test(tc, a_device_without_compiler_is_refused);
    tcase_add_test(tc, a_prohibited_device_is_refused);
    tcase_add_test(tc, no_device_is_told);
    tcase_add_test(tc, a_driver_that_does_not_start_is_told);
    tcase_add_test(tc, a_missing_library_is_named);
    tcase_add_test(tc, rows_follow_the_device);
    tcase_add_test(tc, the_latent_kernel_is_of_hopper);
    tcase_add_test(tc, callers_things_are_used);
    tcase_add_test(tc, wrong_things_are_refused);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* the driver is looked for once in a process */
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
