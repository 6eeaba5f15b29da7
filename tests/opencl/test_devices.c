/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices there are, and why one cannot be used. */
#include <stdlib.h>
#include <string.h>

#include "backends/gpu/kernels.h"
#include "life.h"
#include "suites.h"

/* The listed OpenCL device whose name begins so; "" for the backend's only entry. */
static fa_device_info find(const char *name)
{
    for (size_t i = 0; i < fa_device_count(context); i++) {
        fa_device_info info = {.struct_size = sizeof(info)};
        ck_assert_int_eq(fa_device_describe(context, i, &info), FA_OK);
        if (strcmp(info.backend, "opencl") == 0 && strncmp(info.name, name, strlen(name)) == 0)
            return info;
    }
    ck_abort_msg("no OpenCL device \"%s\"", name);
    return (fa_device_info){0};
}

static void assert_unusable(const char *name, const char *reason)
{
    const fa_device_info info = find(name);
    ck_assert_int_eq(info.available, 0);
    ck_assert_int_eq(info.automatic, 0);
    ck_assert_msg(strstr(info.reason, reason) != NULL, "%s: the reason is \"%s\", expected \"%s\" in it",
                  name, info.reason, reason);
    char choice[64];
    fa_device *device;
    (void)snprintf(choice, sizeof(choice), "opencl:%s", name);
    ck_assert_int_eq(fa_device_open(context, name[0] ? choice : "opencl", NULL, &device), FA_NO_DEVICE);
    assert_message(reason);
    ck_assert_ptr_null(device);
    ck_assert_int_eq(stub_live(), 0);
}

static void assert_opens(const char *choice, const char *name)
{
    fa_device *device;
    ck_assert_msg(fa_device_open(context, choice, NULL, &device) == FA_OK, "%s: %s", choice, fa_last_error());
    fa_device_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    ck_assert_msg(strncmp(info.name, name, strlen(name)) == 0, "%s opened \"%s\"", choice, info.name);
    ck_assert_int_gt(stub_live(), 0);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_str_eq(stub_misuse(), "");
}

START_TEST(all_are_listed)
{
    setenv("STUB_DEVICES", "nocompiler,unavailable,opencl10,bigendian,narrow,custom,unified,good,cpu", 1);
    assert_unusable("nocompiler", "no compiler");
    assert_unusable("unavailable", "not available");
    assert_unusable("opencl10", "\"OpenCL 1.0 stub\", expected OpenCL 1.2");
    assert_unusable("bigendian", "not little-endian");
    assert_unusable("narrow", "at most 32 items, expected at least 64");
    assert_unusable("custom", "custom device");
    assert_opens("opencl", "unified");
    assert_opens("opencl:good", "good");
    const fa_device_info good = find("good"), unified = find("unified"), cpu = find("cpu");
    ck_assert_int_eq(good.available, 1);
    ck_assert_int_eq(good.automatic, 1);
    ck_assert_int_eq(good.host_memory, 0);
    ck_assert_uint_eq(good.units, 8);
    ck_assert_uint_eq(good.onchip_bytes, 32 << 10);
    ck_assert_str_eq(good.reason, "");
    ck_assert_int_eq(unified.host_memory, 1);
    ck_assert_int_eq(cpu.available, 1);
    ck_assert_int_eq(cpu.automatic, 0);
}
END_TEST

START_TEST(no_library)
{
    setenv("FASTATTN_OPENCL_LIBRARY", "/nowhere/libOpenCL.so", 1);
    assert_unusable("", "FASTATTN_OPENCL_LIBRARY: /nowhere/libOpenCL.so");
}
END_TEST

START_TEST(a_library_of_something_else)
{
    setenv("FASTATTN_OPENCL_LIBRARY", getenv("STUB_INCOMPLETE"), 1);
    assert_unusable("", "no function clSetKernelArg, expected OpenCL 1.2");
}
END_TEST

START_TEST(no_platform)
{
    stub_fail("clGetPlatformIDs", 0, -1001);
    assert_unusable("", "no OpenCL platform");
    assert_unusable("", "CL_PLATFORM_NOT_FOUND_KHR (-1001)");
}
END_TEST

START_TEST(a_platform_without_devices)
{
    setenv("STUB_DEVICES", "", 1);
    assert_unusable("", "Stub Platform");
}
END_TEST

START_TEST(a_platform_that_fails)
{
    stub_fail("clGetDeviceIDs", 0, CL_OUT_OF_HOST_MEMORY);
    assert_unusable("Stub Platform", "clGetDeviceIDs: CL_OUT_OF_HOST_MEMORY (-6)");
}
END_TEST

START_TEST(a_device_that_will_not_open)
{
    fa_device *device;
    stub_fail("clCreateContext", 0, CL_DEVICE_NOT_AVAILABLE);
    ck_assert_int_ne(fa_device_open(context, "opencl", NULL, &device), FA_OK);
    assert_message("clCreateContext: CL_DEVICE_NOT_AVAILABLE (-2)");
    ck_assert_ptr_null(device);
    ck_assert_int_eq(stub_live(), 0);
    assert_opens("opencl", "good"); /* once more, and it works */
}
END_TEST

START_TEST(limits_lower_and_never_raise)
{
    setenv("FASTATTN_OPENCL_LIMITS", "local=16384,unified=0", 1);
    setenv("STUB_DEVICES", "unified", 1);
    const fa_device_info low = find("unified");
    ck_assert_uint_eq(low.onchip_bytes, 16384);
    ck_assert_int_eq(low.host_memory, 0);
    setenv("FASTATTN_OPENCL_LIMITS", "local=1048576,group=65536,alloc=1099511627776,subgroups=1,fp16=1", 1);
    const fa_device_info high = find("unified");
    ck_assert_uint_eq(high.onchip_bytes, 32 << 10);
    ck_assert_int_eq(high.host_memory, 1);
    static const char *const wrong[][2] = {{"locl=5", "\"locl=5\", expected local="},
                                           {"local=", "\"local=\", expected a number"},
                                           {"local=1k", "\"local=1k\", expected a number"},
                                           {"group=-1", "\"group=-1\", expected a number"},
                                           {"fp16=2", "\"fp16=2\", expected fp16=0 or fp16=1"},
                                           {"group=64,,", "\"\", expected local="},
                                           {"alloc=99999999999999999999", "expected a number"},
                                           {"group=32", "at most 32 items, expected at least 64"}};
    for (int i = 0; i < COUNT(wrong); i++) {
        setenv("FASTATTN_OPENCL_LIMITS", wrong[i][0], 1);
        assert_unusable("unified", wrong[i][1]);
    }
}
END_TEST

/* Buffers larger than one allocation lie in several. */
START_TEST(buffers_in_parts)
{
    static const char *const kinds[] = {"good", "unified"};
    enum { SIZE = 3 * 4096 + 100 };
    static unsigned char bytes[SIZE], back[SIZE];
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    setenv("STUB_DEVICES", "good,unified", 1);
    setenv("FASTATTN_OPENCL_LIMITS", "alloc=5000", 1);
    for (int k = 0; k < COUNT(kinds); k++) {
        fa_device *device;
        fa_queue *queue;
        fa_buffer *buffer;
        char choice[32];
        (void)snprintf(choice, sizeof(choice), "opencl:%s", kinds[k]);
        ck_assert_msg(fa_device_open(context, choice, NULL, &device) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
        int before = stub_live();
        ck_assert_msg(fa_buffer_create(device, SIZE, &buffer) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(stub_live(), before + 4);
        ck_assert_int_eq(fa_buffer_write(queue, buffer, 0, bytes, SIZE), FA_OK);
        static const size_t ranges[][2] = {{0, SIZE},     {4095, 2},       {4096, 4096}, {4000, 8300},
                                           {SIZE - 1, 1}, {3 * 4096, 100}, {1, 1}};
        for (int i = 0; i < COUNT(ranges); i++) {
            memset(back, 0, sizeof(back));
            ck_assert_int_eq(fa_buffer_read(queue, buffer, ranges[i][0], back, ranges[i][1]), FA_OK);
            ck_assert_mem_eq(back, bytes + ranges[i][0], ranges[i][1]);
        }
        fa_buffer_destroy(buffer);
        stub_fail("clCreateBuffer", 2, CL_MEM_OBJECT_ALLOCATION_FAILURE);
        ck_assert_int_eq(fa_buffer_create(device, SIZE, &buffer), FA_OUT_OF_MEMORY);
        ck_assert_ptr_null(buffer);
        ck_assert_int_eq(stub_live(), before);
        ck_assert_int_eq(fa_buffer_create(device, 0, &buffer), FA_OK);
        ck_assert_int_eq(stub_live(), before);
        fa_buffer_destroy(buffer);
        fa_queue_destroy(queue);
        fa_device_close(device);
        ck_assert_int_eq(stub_live(), 0);
        ck_assert_str_eq(stub_misuse(), "");
    }
}
END_TEST

/* An operand may cross the end of an allocation, wherever its buffer has one: supports() cannot know where. */
START_TEST(operands_across_parts)
{
    enum { PART = 16384, ROWS = 2 * 16 * 16 * 4, KEYS = 2 * 80 * 16 * 4, SIZE = 8 * PART };
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = "rows64", .block_kv = 16, .splits = 2};
    fa_attention_desc d = make_desc(1, 2, 2, 16, 80, 16);
    d.want_lse = 1;
    d.tuning = &tuning;
    setenv("FASTATTN_OPENCL_LIMITS", "alloc=16384", 1);
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_buffer *buffer;
    ck_assert_msg(fa_device_open(context, "opencl", NULL, &device) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_device_supports(device, &d, NULL, 0), FA_OK);
    ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_OK);
    ck_assert_uint_gt(fa_plan_workspace(plan), 0);
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, SIZE, &buffer), FA_OK);
    fa_attention_args plain = {.struct_size = sizeof(plain),
                               .q = buffer,
                               .k = buffer,
                               .v = buffer,
                               .o = buffer,
                               .lse = buffer,
                               .workspace = buffer,
                               .k_offset = ROWS,
                               .v_offset = PART,
                               .o_offset = PART + KEYS,
                               .lse_offset = 2 * PART,
                               .workspace_offset = 3 * PART};
    int compiled = stub_compiled();
    fa_status status = fa_plan_run(plan, queue, &plain);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(stub_compiled(), compiled); /* a run compiles nothing ... */
    size_t *const offset[] = {&plain.q_offset, &plain.k_offset,   &plain.v_offset,
                              &plain.o_offset, &plain.lse_offset, &plain.workspace_offset};
    for (int i = 0; i < COUNT(offset); i++) {
        size_t kept = *offset[i];
        *offset[i] = 6 * PART - 64; /* beyond everything else */
        if (i == 0) { /* ... but for the first one that needs other kernels; what fails is tried again */
            stub_fail("clBuildProgram", 1, CL_BUILD_PROGRAM_FAILURE);
            ck_assert_int_eq(fa_plan_run(plan, queue, &plain), FA_COMPILE);
            assert_message("clBuildProgram");
        }
        status = fa_plan_run(plan, queue, &plain);
        ck_assert_msg(status == FA_OK, "operand %d: %s", i, fa_last_error());
        if (i == 0)
            compiled = stub_compiled();
        ck_assert_int_eq(stub_compiled(), compiled);
        *offset[i] = kept;
    }
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(buffer);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_str_eq(stub_misuse(), "");
}
END_TEST

/* Work lies in one allocation: what is told of it at a run is told when it is written. */
START_TEST(work_across_parts)
{
    enum { PART = 32768, TENSORS = 4 * 2 * 80 * 16 * 4 };
    const fa_lengths lengths = {.struct_size = sizeof(lengths)};
    fa_attention_desc d = make_desc(1, 2, 2, 16, 80, 16);
    d.dynamic_lengths = 1;
    setenv("FASTATTN_OPENCL_LIMITS", "alloc=32768", 1);
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_buffer *tensors, *workspace, *work;
    ck_assert_msg(fa_device_open(context, "opencl", NULL, &device) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    ck_assert_msg(fa_plan_create(device, &d, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(device, TENSORS, &tensors), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, fa_plan_workspace(plan), &workspace), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, 4 * PART, &work), FA_OK);
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = tensors,
                              .k = tensors,
                              .v = tensors,
                              .o = tensors,
                              .o_offset = TENSORS / 2,
                              .workspace = workspace,
                              .work = work};
    for (size_t part = 0; part < 2; part++) {
        args.work_offset = part * PART;
        ck_assert_int_eq(fa_plan_schedule(plan, queue, &lengths, work, args.work_offset), FA_OK);
        ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s", fa_last_error());
        args.work_offset = (part + 1) * PART - 256;
        ck_assert_int_eq(fa_plan_schedule(plan, queue, &lengths, work, args.work_offset), FA_UNSUPPORTED);
        assert_message("work lies across the end of one of the device's allocations");
        ck_assert_int_eq(fa_plan_run(plan, queue, &args), FA_UNSUPPORTED);
        assert_message("work lies across the end of one of the device's allocations");
    }
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(work);
    fa_buffer_destroy(workspace);
    fa_buffer_destroy(tensors);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_str_eq(stub_misuse(), "");
}
END_TEST

/* A driver keeps a copy of each wrap: two of the same bytes would overwrite each other's results. */
START_TEST(wraps_of_the_same_memory)
{
    enum { ROWS = 16, DIM = 16, PITCH = 4 * DIM };
    static float host[ROWS * PITCH];
    fa_attention_desc d = make_desc(1, 1, 1, ROWS, ROWS, DIM);
    d.q.stride[0] = d.q.stride[1] = ROWS * PITCH;
    d.q.stride[2] = PITCH;
    d.q.stride[3] = 1;
    d.k = d.v = d.o = d.q;
    setenv("STUB_DEVICES", "unified", 1);
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_buffer *whole, *part;
    ck_assert_msg(fa_device_open(context, "opencl", NULL, &device) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_OK);
    ck_assert_int_eq(fa_buffer_wrap_host(device, host, sizeof(host), &whole), FA_OK);
    ck_assert_int_eq(fa_buffer_wrap_host(device, host + 3 * DIM, sizeof(host) - 3 * DIM * 4, &part), FA_OK);
    fa_attention_args a = {.struct_size = sizeof(a),
                           .q = whole,
                           .k = whole,
                           .v = whole,
                           .o = part,
                           .k_offset = DIM * 4,
                           .v_offset = 2 * DIM * 4};
    ck_assert_int_eq(fa_plan_run(plan, queue, &a), FA_INVALID);
    assert_message("args.o and args.q lie in two buffers that wrap the same host memory");
    a.o = whole;
    a.o_offset = 3 * DIM * 4;
    ck_assert_msg(fa_plan_run(plan, queue, &a) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(part);
    fa_buffer_destroy(whole);
    /* The call for host memory does so by itself. */
    for (int i = 0; i < COUNT(host); i++)
        host[i] = 1;
    fa_status status =
        fa_attention_host(device, &d, host, host + DIM, host + 2 * DIM, NULL, NULL, host + 3 * DIM, NULL);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    fa_plan_destroy(plan);
    fa_queue_destroy(queue);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_str_eq(stub_misuse(), "");
}
END_TEST

/* The driver copies the host's memory: what the host writes goes there, what a kernel writes comes back. */
START_TEST(host_memory_in_place)
{
    enum { OPERANDS = 4, FLOATS = 32 * 16 };
    static float host[OPERANDS][FLOATS];
    fa_device *device;
    fa_queue *queue;
    fa_plan *plan;
    fa_buffer *buffer[OPERANDS];
    const fa_attention_desc d = make_desc(1, 1, 1, 32, 32, 16);
    setenv("STUB_DEVICES", "unified", 1);
    ck_assert_msg(fa_device_open(context, "opencl", NULL, &device) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    ck_assert_msg(fa_plan_create(device, &d, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_uint_eq(fa_plan_workspace(plan), 0);
    for (int i = 0; i < OPERANDS; i++)
        ck_assert_int_eq(fa_buffer_wrap_host(device, host[i], sizeof(host[i]), &buffer[i]), FA_OK);
    const fa_attention_args args = {
        .struct_size = sizeof(args), .q = buffer[0], .k = buffer[1], .v = buffer[2], .o = buffer[3]};
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < OPERANDS; i++) {
            for (int n = 0; n < FLOATS; n++)
                host[i][n] = (float)(i + turn + 1);
        }
        ck_assert_msg(fa_plan_run(plan, queue, &args) == FA_OK, "%s: %s", fa_last_error(), stub_misuse());
        ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
        for (int i = 0; i < OPERANDS; i++) {
            unsigned char first;
            memcpy(&first, host[i], 1);
            ck_assert_int_eq(first == STUB_MARK, i == 3);
            ck_assert_float_eq(host[i][1], (float)(i + turn + 1));
        }
    }
    for (int i = 0; i < OPERANDS; i++)
        fa_buffer_destroy(buffer[i]);
    fa_plan_destroy(plan);
    fa_queue_destroy(queue);
    fa_device_close(device);
    ck_assert_int_eq(stub_live(), 0);
    ck_assert_str_eq(stub_misuse(), "");
}
END_TEST

/* Pools whose rows have no place in 31 bits; as Vulkan has them too. */
START_TEST(far_pages)
{
    static const struct {
        int64_t page, key; /* elements of f16 */
        size_t bytes;
        bool far;
    } row[] = {
        {1, 1, ((size_t)1 << 32) - 2, false},
        {1, 1, (size_t)1 << 32, true},
        {96, 64, (size_t)1 << 36, false},
        {96, 64, (size_t)1 << 37, true},
        {(int64_t)1 << 30, (int64_t)1 << 29, (size_t)1 << 60, false},
        {(int64_t)1 << 30, (int64_t)1 << 29, (size_t)1 << 61, true},
    };
    for (int i = 0; i < COUNT(row); i++) {
        for (int t = FA_K; t <= FA_V; t++) {
            static fa_problem p;
            p = (fa_problem){.features = FA_FEATURE_PAGES};
            p.tensor[FA_K].dtype = p.tensor[FA_V].dtype = FA_F16;
            p.tensor[t].stride[0] = row[i].page;
            p.tensor[t].stride[2] = row[i].key;
            p.span[t] = row[i].bytes;
            ck_assert_msg(fa_gpu_far_pages(&p) == row[i].far, "row %d, operand %d", i, t);
            p.features = 0;
            ck_assert(!fa_gpu_far_pages(&p));
        }
    }
}
END_TEST

void add_device_tests(Suite *suite)
{
    TCase *tc = add_context_case(suite, "devices");
    tcase_add_test(tc, all_are_listed);
    tcase_add_test(tc, no_library);
    tcase_add_test(tc, a_library_of_something_else);
    tcase_add_test(tc, no_platform);
    tcase_add_test(tc, a_platform_without_devices);
    tcase_add_test(tc, a_platform_that_fails);
    tcase_add_test(tc, a_device_that_will_not_open);
    tcase_add_test(tc, limits_lower_and_never_raise);
    tcase_add_test(tc, buffers_in_parts);
    tcase_add_test(tc, operands_across_parts);
    tcase_add_test(tc, work_across_parts);
    tcase_add_test(tc, wraps_of_the_same_memory);
    tcase_add_test(tc, host_memory_in_place);
    tcase_add_test(tc, far_pages);
}
