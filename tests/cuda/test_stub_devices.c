/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices there are, which of them are refused, and which kernels one has. */
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/cuda.h"
#include "tests/cuda/stub_life.h"

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

/* The library's kernels read no lists of key blocks: where no others can be compiled, a plan with lists is refused. */
START_TEST(lists_need_a_compiler)
{
    static const uint8_t mask[2 * 5] = {1};
    const fa_block_lists lists = {.struct_size = sizeof(lists),
                                  .block_rows = 64,
                                  .block_keys = 64,
                                  .sequences = 1,
                                  .heads = 1,
                                  .row_blocks = 2,
                                  .key_blocks = 5,
                                  .mask = mask};
    fa_attention_desc d = make_desc(1, 2, 2, 100, 300, 64);
    fa_device *device;
    fa_plan *plan;
    if (fa_cuda_image_count == 0)
        return;
    stub_set_arch(120); /* which this compiler does not know, but PTX serves */
    ck_assert_int_eq(fa_device_open(context, "cuda", NULL, &device), FA_OK);
    ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_OK);
    fa_plan_destroy(plan);
    d.lists = &lists;
    ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_UNSUPPORTED);
    assert_message("lists is not served: kernels that read them are compiled by NVRTC");
    fa_device_close(device);
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

/* Formats of caches by kernel: tiles on tensor cores decode with the newest instructions that a GPU has. */
START_TEST(formats_follow_the_kernel)
{
    static const struct {
        const char *limits, *kernel;
        int dim;
        fa_dtype k, v;
        const char *refusal; /* NULL: served */
    } cases[] = {
        {"", "fma64", 64, FA_U1, FA_U2U1, NULL},
        {"", "fma128", 128, FA_U2U1, FA_I2, NULL},
        {"", "rows64", 64, FA_U2U1, FA_U1, NULL},
        {"", "ampere-rows64", 64, FA_U1, FA_U1,
         "ampere-rows64: k.dtype u1 is not served: there is no decoder of it for tensor cores"},
        {"", "ampere64", 64, FA_Q8_0, FA_Q4_0, NULL},
        {"", "turing64", 64, FA_Q8_0, FA_Q4_0,
         "turing64: k.dtype q8_0 is not served: this GPU decodes for its newest tensor cores"},
        {"arch=75,shared=65536", "turing64", 64, FA_Q8_0, FA_Q4_1, NULL},
        {"arch=75,shared=65536", "turing128", 128, FA_Q5_1, FA_Q4_1, NULL},
        {"arch=75,shared=65536", "turing128", 128, FA_F16, FA_Q8_0,
         "turing128: q.dtype f16, k.dtype f16 and"},
        {"arch=75,shared=65536", "turing256", 256, FA_Q8_0, FA_Q8_0,
         "turing256: k.dtype q8_0 is not served: its blocks have no shared memory left for codes"},
        {"arch=75,shared=65536", "turing-rows64", 64, FA_Q8_0, FA_Q8_0,
         "k.dtype q8_0 is not served: rows of codes are copied as GPUs of 8.0 or later do"},
        {"arch=75,shared=65536", "volta64", 64, FA_Q8_0, FA_Q8_0,
         "volta64: k.dtype q8_0 is not served: there is no decoder for operands of m8n8k4"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        fa_device *device = NULL;
        fa_plan *plan = NULL;
        fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = cases[i].kernel};
        fa_attention_desc d = make_desc(1, 2, 2, 100, 300, cases[i].dim);
        d.tuning = &tuning;
        d.q.dtype = d.o.dtype = FA_F16;
        d.k.dtype = cases[i].k;
        d.v.dtype = cases[i].v;
        if (cases[i].k >= FA_I8) /* codes alone */
            d.k_scale = d.v_scale = fa_tensor_make(FA_F32, 1, 1, 1, 1);
        (void)setenv("FASTATTN_CUDA_LIMITS", cases[i].limits, 1);
        ck_assert_int_eq(fa_device_open(context, "cuda", NULL, &device), FA_OK);
        const fa_status status = fa_plan_create(device, &d, &plan);
        ck_assert_msg(status == (cases[i].refusal ? FA_UNSUPPORTED : FA_OK), "case %d: %s", i,
                      fa_last_error());
        if (cases[i].refusal)
            assert_message(cases[i].refusal);
        fa_plan_destroy(plan);
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

/* Its kernel for formats of caches too, which serves no other types. Of one that is named, the refusal says why. */
START_TEST(plain_types_are_not_hoppers)
{
    static const struct {
        int arch;
        const char *named, *chosen; /* NULL: by the planner; and refused */
        fa_dtype k, v;
        const char *refusal;
    } cases[] = {
        {90, NULL, "hopper128", FA_Q8_0, FA_Q4_1, NULL},
        {90, NULL, "ampere128", FA_F16, FA_F16, NULL},
        {90, NULL, "ampere128", FA_F16, FA_E4M3, NULL},
        {89, NULL, "ampere128", FA_Q8_0, FA_Q8_0, NULL},
        {90, "hopper128", NULL, FA_F16, FA_F16, "hopper128: k.dtype f16 is not served"},
        {90, "hopper128", NULL, FA_E4M3, FA_F16,
         "hopper128: q.dtype f16, k.dtype e4m3 and v.dtype f16 differ"},
        {100, "hopper128", NULL, FA_Q8_0, FA_Q8_0, "tuning.kernel is \"hopper128\", expected one of"},
    };
    stub_set_attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132);
    stub_set_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 232448);
    stub_set_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 233472);
    for (int i = 0; i < COUNT(cases); i++) {
        fa_device *device = NULL;
        fa_plan *plan = NULL;
        fa_plan_info info = {.struct_size = sizeof(info)};
        fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = cases[i].named};
        fa_attention_desc d = make_desc(1, 32, 8, 2048, 2048, 128);
        d.tuning = cases[i].named ? &tuning : NULL;
        d.q.dtype = d.o.dtype = FA_F16;
        d.k.dtype = cases[i].k;
        d.v.dtype = cases[i].v;
        stub_set_arch(cases[i].arch);
        ck_assert_int_eq(fa_device_open(context, "cuda", NULL, &device), FA_OK);
        const fa_status status = fa_plan_create(device, &d, &plan);
        ck_assert_msg(status == (cases[i].chosen ? FA_OK : FA_UNSUPPORTED), "case %d: %s", i,
                      fa_last_error());
        if (cases[i].chosen) {
            ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
            ck_assert_str_eq(info.kernel, cases[i].chosen);
        } else {
            assert_message(cases[i].refusal);
        }
        fa_plan_destroy(plan);
        fa_device_close(device);
    }
}
END_TEST

void add_devices(TCase *tc)
{
    tcase_add_loop_test(tc, queries_may_fail, 0, COUNT(queries));
    tcase_add_loop_test(tc, bad_limits_are_named, 0, COUNT(bad_limits));
    tcase_add_test(tc, an_old_device_is_refused);
    tcase_add_test(tc, a_device_without_kernels_is_refused);
    tcase_add_test(tc, formats_follow_the_kernel);
    tcase_add_test(tc, a_device_without_compiler_is_refused);
    tcase_add_test(tc, lists_need_a_compiler);
    tcase_add_test(tc, a_prohibited_device_is_refused);
    tcase_add_test(tc, no_device_is_told);
    tcase_add_test(tc, a_driver_that_does_not_start_is_told);
    tcase_add_test(tc, a_missing_library_is_named);
    tcase_add_test(tc, rows_follow_the_device);
    tcase_add_test(tc, the_latent_kernel_is_of_hopper);
    tcase_add_test(tc, plain_types_are_not_hoppers);
}
