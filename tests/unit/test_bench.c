/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <fastattn/reference.h>

#include "test_bench.h"

bench_case bench_test_case(const char *text, fa_dtype dtype, bool causal)
{
    bench_case c = {.dtype = dtype, .causal = causal};
    char error[160];
    ck_assert_msg(shape_parse(text, &c.size, error, sizeof(error)), "%s", error);
    return c;
}

const bench_peak bench_test_peak = {.known = true,
                                    .flops = 2e11,
                                    .bytes = 3e10,
                                    .isa = "avx512",
                                    .dot = {{"avx512bf16", 4e11}, {"amx", 3e12}},
                                    .dots = 2,
                                    .units_name = "threads",
                                    .units = 2};

START_TEST(median_of_few)
{
    double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2}, one[] = {5};
    ck_assert_double_eq(bench_median(odd, 3), 2);
    ck_assert_double_eq(odd[0], 1);
    ck_assert_double_eq(bench_median(even, 4), 2.5);
    ck_assert_double_eq(bench_median(one, 1), 5);
    ck_assert_double_nan(bench_median(one, 0));
}
END_TEST

START_TEST(flops_full_and_causal)
{
    bench_case c = bench_test_case("B2,H8,S2048,D128", FA_F32, false);
    ck_assert_double_eq(bench_flops(&c), 4.0 * 2 * 8 * 2048 * 2048 * 128);
    c.causal = true;
    ck_assert_double_eq(bench_flops(&c), 2.0 * 2 * 8 * 2048 * 2048 * 128);
    c = bench_test_case("B1,H4,S16,D64,SK100,DV32", FA_F32, false);
    ck_assert_double_eq(bench_flops(&c), 2.0 * 4 * 16 * 100 * (64 + 32));
}
END_TEST

/* Where the lengths differ, half would be far off: the pairs are counted, but for the diagonal's own half. */
START_TEST(flops_causal_rectangle)
{
    const char *const shapes[] = {"B1,H1,S1,D8,SK64", "B1,H1,S16,D8,SK100", "B1,H1,S100,D8,SK16"};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        bench_case c = bench_test_case(shapes[i], FA_F32, true);
        double pairs = 0;
        for (int64_t row = 0; row < c.size.len_q; row++)
            pairs += fmax(0, (double)(row + 1 + c.size.len_kv - c.size.len_q));
        double diagonal = fmin((double)c.size.len_q, (double)c.size.len_kv);
        ck_assert_double_eq(bench_flops(&c), 4 * 8 * (pairs - 0.5 * diagonal));
    }
}
END_TEST

START_TEST(standard_kernel_of_same_isa)
{
    char name[64];
    const char *kernels = "avx512-tile,avx512-rows,avx2-tile,scalar-tile,avx512-standard,avx2-standard";
    ck_assert(bench_standard_kernel(kernels, "avx512-tile", name, sizeof(name)));
    ck_assert_str_eq(name, "avx512-standard");
    ck_assert(bench_standard_kernel(kernels, "avx2-tile", name, sizeof(name)));
    ck_assert_str_eq(name, "avx2-standard");
    ck_assert(!bench_standard_kernel(kernels, "scalar-tile", name, sizeof(name)));
    ck_assert(!bench_standard_kernel(kernels, "avx2-standard", name, sizeof(name)));
    ck_assert(!bench_standard_kernel("", "avx2-tile", name, sizeof(name)));
    ck_assert(bench_standard_kernel("mma16,standard", "mma16", name, sizeof(name)));
    ck_assert_str_eq(name, "standard");
    ck_assert(bench_standard_kernel("standard,mma16-standard", "mma16-tile", name, sizeof(name)));
    ck_assert_str_eq(name, "mma16-standard");
}
END_TEST

/* What only multiplies bf16 is measured by AVX-512, unless it has a baseline of its own. */
START_TEST(standard_kernel_of_dot_products)
{
    char name[64];
    const char *kernels = "amx-tile,avx512bf16-tile,avx2-standard,avx512-standard";
    ck_assert(bench_standard_kernel(kernels, "amx-tile", name, sizeof(name)));
    ck_assert_str_eq(name, "avx512-standard");
    ck_assert(bench_standard_kernel(kernels, "avx512bf16-tile", name, sizeof(name)));
    ck_assert_str_eq(name, "avx512-standard");
    ck_assert(bench_standard_kernel("avx512-standard,amx-standard", "amx-tile", name, sizeof(name)));
    ck_assert_str_eq(name, "amx-standard");
    ck_assert(!bench_standard_kernel("avx2-standard", "amx-tile", name, sizeof(name)));
    ck_assert(!bench_standard_kernel(kernels, "avx512-standard", name, sizeof(name)));
}
END_TEST

START_TEST(peak_fraction_is_the_nearer_ceiling)
{
    const char *kernel = "avx512-tile";
    bench_bound bound;
    ck_assert_double_eq_tol(bench_peak_fraction(&bench_test_peak, kernel, 1e11, 1e9, &bound), 0.5, 1e-12);
    ck_assert_int_eq(bound, BENCH_COMPUTE);
    ck_assert_double_eq_tol(bench_peak_fraction(&bench_test_peak, kernel, 1e9, 2.4e10, &bound), 0.8, 1e-12);
    ck_assert_int_eq(bound, BENCH_MEMORY);
    ck_assert_double_eq_tol(bench_peak_fraction(&bench_test_peak, kernel, 1e9, 6e10, &bound), 2.0, 1e-12);
    ck_assert_int_eq(bound, BENCH_CACHE);
    ck_assert_double_nan(bench_peak_fraction(&(bench_peak){.known = false}, kernel, 1e9, 1e9, &bound));
    ck_assert_int_eq(bound, BENCH_NO_BOUND);
}
END_TEST

START_TEST(ceiling_is_that_of_the_kernels_instruction_set)
{
    static const struct {
        const char *kernel, *isa;
        double flops;
    } cases[] = {
        {"amx-tile", "amx", 3e12},       {"avx512bf16-tile", "avx512bf16", 4e11},
        {"avx512-tile", "avx512", 2e11}, {"avx2-rows", "avx512", 2e11},
        {"amx512-tile", "avx512", 2e11}, {"", "avx512", 2e11},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        bench_ceiling found = bench_peak_ceiling(&bench_test_peak, cases[i].kernel);
        ck_assert_str_eq(found.isa, cases[i].isa);
        ck_assert_double_eq(found.flops, cases[i].flops);
    }
    bench_bound bound;
    ck_assert_double_eq_tol(bench_peak_fraction(&bench_test_peak, "amx-tile", 1.5e12, 1e9, &bound), 0.5,
                            1e-12);
    bench_peak without = bench_test_peak;
    without.dots = 0;
    ck_assert_str_eq(bench_peak_ceiling(&without, "amx-tile").isa, "avx512");
}
END_TEST

START_TEST(simd_is_one_that_is_listed)
{
    ck_assert_ptr_null(bench_simd_find(""));
    ck_assert_ptr_null(bench_simd_find("mma16-tile"));
    ck_assert_ptr_null(bench_simd_find("avx512bf16-tile,amx-tile"));
    const bench_simd *simd = bench_simd_find("riscv-tile, scalar-tile");
    ck_assert_ptr_nonnull(simd);
    ck_assert_str_eq(simd->isa, "scalar");
    /* Every accumulator goes to 1, and there are as many as operations come in pairs. */
    ck_assert_float_eq_tol(simd->multiply_add(64), 1.0f + (float)(simd->flops_per_step / 2), 1e-3f);
}
END_TEST

START_TEST(simd_reads_every_element)
{
    const char *const lists[] = {"scalar-tile", "avx2-tile,scalar-tile", "avx512-tile,scalar-tile",
                                 "neon-tile,scalar-tile"};
    enum { FLOATS = 2 * BENCH_READ_FLOATS, VALUES = 8 };
    float *data = malloc(FLOATS * sizeof(*data));
    for (int i = 0; i < FLOATS; i++)
        data[i] = (float)(i % VALUES);
    for (size_t i = 0; i < COUNT(lists); i++) {
        for (int way = 0; way < BENCH_READ_WAYS; way++)
            ck_assert_float_eq(bench_simd_find(lists[i])->read[way](data, FLOATS), 3.5f * FLOATS);
    }
    free(data);
}
END_TEST

/* Those that this CPU has; each product is 2^-16, and there are half as many as operations. */
START_TEST(dot_products_are_those_that_are_listed)
{
    const bench_simd *found[BENCH_MAX_DOTS];
    ck_assert_int_eq(bench_dots_find("", found), 0);
    ck_assert_int_eq(bench_dots_find("avx512-tile,scalar-tile,avx512bf16,amx512-tile", found), 0);
    int count = bench_dots_find("amx-tile,avx512bf16-tile,scalar-tile", found);
    ck_assert_int_le(count, BENCH_MAX_DOTS);
    for (int i = 0; i < count; i++) {
        const int64_t steps = 64;
        ck_assert_float_eq(found[i]->multiply_add(steps),
                           (float)(steps * found[i]->flops_per_step / 2) / 65536);
        const bench_simd *alone[BENCH_MAX_DOTS];
        char name[32];
        snprintf(name, sizeof(name), "%s-tile", found[i]->isa);
        ck_assert_int_eq(bench_dots_find(name, alone), 1);
        ck_assert_ptr_eq(alone[0], found[i]);
    }
}
END_TEST

START_TEST(suites_hold_what_they_say)
{
    static const struct {
        const char *name;
        size_t cases;
    } expected[BENCH_SUITES] = {{"quick", 4}, {"prefill", 16}, {"decode", 18},  {"blocks", 24},
                                {"dims", 13}, {"tiny", 12},    {"overhead", 2}, {"gpu", 18}};
    for (int i = 0; i < BENCH_SUITES; i++) {
        bench_cases cases = {.item = NULL};
        ck_assert_str_eq(bench_suites[i].name, expected[i].name);
        ck_assert(bench_suites[i].add(&cases, FA_BF16));
        ck_assert_uint_eq(cases.count, expected[i].cases);
        for (size_t n = 0; n < cases.count; n++) {
            const bench_case *c = &cases.item[n];
            ck_assert_int_eq(c->dtype, FA_BF16);
            ck_assert(c->size.batch > 0 && c->size.heads_q > 0 && c->size.heads_kv > 0 && c->size.len_q > 0 &&
                      c->size.len_kv > 0 && c->size.dim_qk > 0 && c->size.dim_v > 0);
            ck_assert_int_eq(c->axis == BENCH_NOT_DRAWN, !strcmp(bench_suites[i].name, "overhead"));
            ck_assert_int_eq(c->axis == BENCH_BY_BLOCK, !strcmp(bench_suites[i].name, "blocks"));
            ck_assert(c->block_kv == 0 || c->axis == BENCH_BY_BLOCK);
        }
        free(cases.item);
    }
}
END_TEST

static fa_context *context;
static fa_device *device;

static void make_context(void)
{
    ck_assert_int_eq(fa_context_create(NULL, &context), FA_OK);
}

static void destroy_context(void)
{
    fa_context_destroy(context);
}

static void open_device(void)
{
    make_context();
    ck_assert_msg(fa_device_open(context, "openmp", NULL, &device) == FA_OK, "%s", fa_last_error());
}

static void close_device(void)
{
    fa_device_close(device);
    destroy_context();
}

START_TEST(case_is_checked_and_timed)
{
    const bench_options options = {.min_time = 1e-4, .standard = true};
    bench_case c = bench_test_case("B1,H4,S33,D24,HK2,SK70", (fa_dtype)_i, true);
    bench_result r;
    bench_case_run(context, device, &bench_test_peak, &options, &c, &r);
    ck_assert_msg(r.status == BENCH_TIMED, "%s", r.message);
    ck_assert_int_ge(r.runs, 5);
    ck_assert(!r.by_device);
    ck_assert_double_eq(r.ms_wall, r.ms_median);
    ck_assert(r.block_q > 0 && r.block_kv > 0 && r.splits > 0);
    ck_assert_double_gt(r.ms_min, 0);
    ck_assert_double_ge(r.ms_median, r.ms_min);
    ck_assert_double_ge(r.max_error, 0);
    ck_assert_double_lt(r.max_error, 0.05);
    ck_assert_double_gt(r.flops_rate, 0);
    ck_assert_str_ne(r.kernel, "");
}
END_TEST

START_TEST(case_takes_its_blocks)
{
    const bench_options options = {.min_time = 1e-4, .standard = true};
    bench_case c = bench_test_case("B1,H1,S64,D32,SK256", FA_F32, false);
    c.block_q = c.block_kv = 64;
    c.splits = 2;
    bench_result r;
    bench_case_run(context, device, &bench_test_peak, &options, &c, &r);
    ck_assert_msg(r.status == BENCH_TIMED, "%s", r.message);
    ck_assert_int_eq(r.block_q, 64);
    ck_assert_int_eq(r.block_kv, 64);
    ck_assert_int_eq(r.splits, 2);
}
END_TEST

/* The call that plans for itself is checked like the others, and has no baseline. */
START_TEST(whole_call_is_checked_and_timed)
{
    const bench_options options = {.min_time = 1e-4, .standard = true};
    bench_case c = bench_test_case("B1,H1,S1,D1", FA_F32, false);
    bench_result r;
    c.call = BENCH_HOST;
    bench_case_run(context, device, &bench_test_peak, &options, &c, &r);
    ck_assert_msg(r.status == BENCH_TIMED, "%s", r.message);
    ck_assert_int_ge(r.runs, 5);
    ck_assert_double_gt(r.ms_median, 0);
    ck_assert_double_nan(r.ratio_standard);
}
END_TEST

START_TEST(case_that_is_not_served_says_why)
{
    const bench_options options = {.min_time = 1e-4, .kernel = "no-such-kernel"};
    bench_case c = bench_test_case("B1,H1,S8,D8", FA_F32, false);
    bench_result r;
    bench_case_run(context, device, &bench_test_peak, &options, &c, &r);
    ck_assert_int_eq(r.status, BENCH_UNSERVED);
    ck_assert_ptr_nonnull(strstr(r.message, "no-such-kernel"));
    ck_assert_double_nan(r.ms_median);
    c = bench_test_case("B1000000,H1000,S100000,D512", FA_F32, false);
    bench_case_run(context, device, &bench_test_peak, &options, &c, &r);
    ck_assert_int_eq(r.status, BENCH_UNSERVED);
}
END_TEST

/* The same on memory and by the clock of another device, where there is one; its ceilings are above 0. */
START_TEST(opencl_is_measured)
{
    setenv("FASTATTN_OPENCL_LIMITS", "alloc=16777216", 1);
    fa_device *opencl;
    if (fa_device_open(context, "opencl", NULL, &opencl) == FA_OK) {
        fa_device_info info = {.struct_size = sizeof(info)};
        bench_peak peak;
        char message[256];
        ck_assert_int_eq(fa_device_get_info(opencl, &info), FA_OK);
        ck_assert_msg(bench_peak_measure(opencl, &info, &peak, message, sizeof(message)), "%s", message);
        ck_assert(peak.known && peak.flops > 0 && peak.bytes > 0);
        ck_assert_str_eq(peak.isa, "opencl");
        ck_assert_uint_le(peak.buffer_bytes, 16777216);

        const bench_options options = {.min_time = 1e-4, .standard = true};
        bench_case c = bench_test_case("B1,H4,S33,D24,HK2,SK70", FA_F16, true);
        bench_result r;
        bench_case_run(context, opencl, &peak, &options, &c, &r);
        ck_assert_msg(r.status == BENCH_TIMED, "%s", r.message);
        ck_assert(r.by_device);
        ck_assert_double_ge(r.ms_wall, r.ms_min);
        fa_device_close(opencl);
    }
    unsetenv("FASTATTN_OPENCL_LIMITS");
}
END_TEST

START_TEST(backend_without_a_loop_has_no_ceilings)
{
    const fa_device_info info = {.struct_size = sizeof(info), .backend = "null"};
    bench_peak peak = bench_test_peak;
    char message[256];
    ck_assert(!bench_peak_measure(device, &info, &peak, message, sizeof(message)));
    ck_assert(!peak.known);
    ck_assert_str_eq(message, "no micro-benchmark for backend null");
}
END_TEST

/* Long enough to be sampled. A sample that stood at the wrong place of the diagonal, or read the wrong head or page,
 * would call the right result wrong; the first and the last row are always among the samples. */
START_TEST(samples_tell_right_from_wrong)
{
    const bench_case c = bench_test_case("B2,H4,S200,D64,HK2,SK600,DV48", FA_F32, _i % 2);
    const paging layout = {.keys = _i / 2 * 7, .seed = PAGES_IN_ORDER};
    const shape *s = &c.size;
    fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(FA_F32, s->batch, s->heads_q, s->len_q, s->dim_qk),
        .k = fa_tensor_make(FA_F32, s->batch, s->heads_kv, s->len_kv, s->dim_qk),
        .v = fa_tensor_make(FA_F32, s->batch, s->heads_kv, s->len_kv, s->dim_v),
        .o = fa_tensor_make(FA_F32, s->batch, s->heads_q, s->len_q, s->dim_v),
        .mask = c.causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE,
    };
    int64_t *lens;
    ck_assert(pages_describe(&layout, s, &desc, &lens));
    int32_t pages[2 * 86]; /* as many as 600 keys of each batch entry take */
    for (size_t i = 0; i < COUNT(pages); i++)
        pages[i] = (int32_t)(i * 5 % COUNT(pages));
    int32_t *table = layout.keys ? pages : NULL;
    const fa_tensor *const tensors[] = {&desc.q, &desc.k, &desc.v, &desc.o};
    float *data[COUNT(tensors)];
    size_t bytes;
    for (size_t i = 0; i < COUNT(tensors); i++) {
        ck_assert_int_eq(fa_tensor_span(tensors[i], &bytes), FA_OK);
        data[i] = malloc(bytes);
        for (size_t n = 0; n < bytes / sizeof(float); n++)
            data[i][n] = sinf((float)(n * (i + 3)));
    }
    const fa_inputs inputs = {.q = data[0], .k = data[1], .v = data[2], .page_table = table};
    ck_assert_int_eq(fa_naive_attention(context, &desc, &inputs, FA_ORDER_FORWARD, FA_F32, data[3], NULL),
                     FA_OK);

    const check_means means = {.weights = FA_F32};
    const bench_data views = {.q = data[0], .k = data[1], .v = data[2], .o = data[3], .page_table = table};
    const size_t last = bytes / sizeof(float) - 1, places[] = {0, last};
    char message[400] = "";
    double error;
    ck_assert_msg(bench_verify(context, &c, &desc, &views, &means, &error, message, sizeof(message)), "%s",
                  message);
    ck_assert_double_lt(error, 1e-4);
    for (size_t i = 0; i < COUNT(places); i++) {
        float right = data[3][places[i]];
        data[3][places[i]] += 0.01f;
        ck_assert(!bench_verify(context, &c, &desc, &views, &means, &error, message, sizeof(message)));
        ck_assert_double_eq_tol(error, 0.01, 1e-4);
        ck_assert_str_ne(message, "");
        data[3][places[i]] = right;
    }
    for (size_t i = 0; i < COUNT(tensors); i++)
        free(data[i]);
    free(lens);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench");
    TCase *numbers = tcase_create("numbers"), *cases = tcase_create("cases");
    TCase *samples = tcase_create("samples"), *opencl = tcase_create("opencl");
    tcase_add_test(numbers, median_of_few);
    tcase_add_test(numbers, flops_full_and_causal);
    tcase_add_test(numbers, flops_causal_rectangle);
    tcase_add_test(numbers, standard_kernel_of_same_isa);
    tcase_add_test(numbers, standard_kernel_of_dot_products);
    tcase_add_test(numbers, ceiling_is_that_of_the_kernels_instruction_set);
    tcase_add_test(numbers, dot_products_are_those_that_are_listed);
    tcase_add_test(numbers, suites_hold_what_they_say);
    tcase_add_test(numbers, peak_fraction_is_the_nearer_ceiling);
    tcase_add_test(numbers, simd_is_one_that_is_listed);
    tcase_add_test(numbers, simd_reads_every_element);
    tcase_add_checked_fixture(cases, open_device, close_device);
    tcase_add_loop_test(cases, case_is_checked_and_timed, FA_F32, FA_BF16 + 1);
    tcase_add_test(cases, case_takes_its_blocks);
    tcase_add_test(cases, whole_call_is_checked_and_timed);
    tcase_add_test(cases, case_that_is_not_served_says_why);
    tcase_add_test(cases, backend_without_a_loop_has_no_ceilings);
    tcase_set_timeout(cases, 240);
    tcase_add_checked_fixture(samples, make_context, destroy_context);
    tcase_add_loop_test(samples, samples_tell_right_from_wrong, 0, 4);
    tcase_set_timeout(samples, 240);
    tcase_add_checked_fixture(opencl, make_context, destroy_context);
    tcase_add_test(opencl, opencl_is_measured);
    tcase_set_timeout(opencl, 240);
    suite_add_tcase(suite, numbers);
    suite_add_tcase(suite, bench_test_reports());
    suite_add_tcase(suite, cases);
    suite_add_tcase(suite, samples);
    suite_add_tcase(suite, opencl);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
