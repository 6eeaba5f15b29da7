/* SPDX-License-Identifier: Apache-2.0 */
/* What bench prints for machines and draws for people. */
#include <check.h>
#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test_bench.h"

static bench_result make_result(const char *text, fa_dtype dtype, bool causal, double rate)
{
    return (bench_result){
        .problem = bench_test_case(text, dtype, causal),
        .status = BENCH_TIMED,
        .kernel = "avx2-tile",
        .block_q = 256,
        .block_kv = 512,
        .splits = 1,
        .runs = 7,
        .ms_median = 2.5,
        .ms_min = 2.25,
        .by_device = true,
        .ms_wall = 2.75,
        .flops_rate = rate,
        .bytes_rate = rate / 8,
        .peak_fraction = 0.5,
        .bound = BENCH_COMPUTE,
        .ratio_standard = 3.0,
        .max_error = 1e-6,
    };
}

/* A name that neither JSON nor XML takes as it is. */
static fa_device_info odd_device(void)
{
    fa_device_info device = {.struct_size = sizeof(device), .backend = "openmp"};
    strcpy(device.name, "A<B> & \"C\" \\ D\n\xff");
    return device;
}

static json_t *load_results(const bench_peak *peak, const bench_result *results, size_t count)
{
    fa_device_info device = odd_device();
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    bench_write_json(file, &device, peak, results, count);
    ck_assert_int_eq(fclose(file), 0);
    json_error_t error;
    json_t *array = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    ck_assert_msg(json_is_array(array), "line %d: %s in\n%s", error.line, error.text, text);
    free(text);
    return array;
}

START_TEST(json_has_every_key)
{
    static const char *const keys[] = {"backend",
                                       "device",
                                       "dtype",
                                       "dtype_k",
                                       "dtype_v",
                                       "batch",
                                       "heads_q",
                                       "heads_kv",
                                       "len_q",
                                       "len_kv",
                                       "dim",
                                       "dim_v",
                                       "causal",
                                       "kernel",
                                       "ms_median",
                                       "ms_min",
                                       "ms_wall",
                                       "clock",
                                       "runs",
                                       "tflops",
                                       "gbps",
                                       "peak_fraction",
                                       "bound",
                                       "ratio_standard",
                                       "max_error",
                                       "peak_tflops",
                                       "peak_gbps",
                                       "peak_isa",
                                       "v_in_k",
                                       "call",
                                       "page",
                                       "scatter",
                                       "block_q",
                                       "block_kv",
                                       "splits",
                                       "peak_f32_tflops",
                                       "peak_bf16_tflops"};
    bench_result results[] = {make_result("B1,H8,S512,D64,HK2,SK1024,DV32", FA_BF16, true, 1e11),
                              make_result("B1,H8,S512,D64", FA_F32, false, 1e11)};
    results[0].problem.pages = (paging){.keys = 16, .seed = 7};
    json_t *array = load_results(&bench_test_peak, results, COUNT(results));
    ck_assert_uint_eq(json_array_size(array), COUNT(results));
    json_t *object = json_array_get(array, 0);
    ck_assert_uint_eq(json_object_size(object), COUNT(keys));
    for (size_t i = 0; i < COUNT(keys); i++)
        ck_assert_msg(json_object_get(object, keys[i]) != NULL, "no %s", keys[i]);
    ck_assert_int_eq(strncmp(json_string_value(json_object_get(object, "device")), "A<B> & \"C\" \\ D\n", 15),
                     0);
    ck_assert_str_eq(json_string_value(json_object_get(object, "dtype")), "bf16");
    ck_assert_int_eq(json_integer_value(json_object_get(object, "heads_kv")), 2);
    ck_assert_int_eq(json_integer_value(json_object_get(object, "dim_v")), 32);
    ck_assert(json_is_true(json_object_get(object, "causal")));
    ck_assert(json_is_false(json_object_get(object, "v_in_k")));
    ck_assert_double_eq_tol(json_real_value(json_object_get(object, "tflops")), 0.1, 1e-9);
    ck_assert_str_eq(json_string_value(json_object_get(object, "bound")), "compute");
    ck_assert_str_eq(json_string_value(json_object_get(object, "clock")), "device");
    ck_assert_double_eq(json_real_value(json_object_get(object, "ms_wall")), 2.75);
    ck_assert_str_eq(json_string_value(json_object_get(object, "call")), "run");
    ck_assert_int_eq(json_integer_value(json_object_get(object, "block_q")), 256);
    ck_assert_int_eq(json_integer_value(json_object_get(object, "block_kv")), 512);
    ck_assert_int_eq(json_integer_value(json_object_get(object, "splits")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(object, "page")), 16);
    ck_assert_int_eq(json_integer_value(json_object_get(object, "scatter")), 7);
    json_decref(array);
}
END_TEST

START_TEST(json_has_the_ceilings)
{
    bench_result result = make_result("B1,H8,S512,D64", FA_BF16, false, 1e12);
    strcpy(result.kernel, "amx-tile");
    result.problem.call = BENCH_HOST;
    json_t *array = load_results(&bench_test_peak, &result, 1), *object = json_array_get(array, 0);
    ck_assert_double_eq_tol(json_number_value(json_object_get(object, "peak_tflops")), 3, 1e-9);
    ck_assert_str_eq(json_string_value(json_object_get(object, "peak_isa")), "amx");
    ck_assert_double_eq_tol(json_number_value(json_object_get(object, "peak_f32_tflops")), 0.2, 1e-9);
    json_t *dots = json_object_get(object, "peak_bf16_tflops");
    ck_assert_uint_eq(json_object_size(dots), 2);
    ck_assert_double_eq_tol(json_number_value(json_object_get(dots, "avx512bf16")), 0.4, 1e-9);
    ck_assert_double_eq_tol(json_number_value(json_object_get(dots, "amx")), 3, 1e-9);
    ck_assert_str_eq(json_string_value(json_object_get(object, "call")), "host");
    json_decref(array);
}
END_TEST

START_TEST(json_says_null_for_what_is_missing)
{
    bench_result result = make_result("B1,H1,S8,D8", FA_F32, false, 1e9);
    result.ratio_standard = result.peak_fraction = NAN;
    result.max_error = INFINITY;
    result.bound = BENCH_NO_BOUND;
    json_t *array = load_results(&(bench_peak){.known = false}, &result, 1),
           *object = json_array_get(array, 0);
    const char *const keys[] = {"page",  "scatter",     "ratio_standard", "peak_fraction", "max_error",
                                "bound", "peak_tflops", "peak_gbps",      "peak_isa",      "peak_f32_tflops"};
    for (size_t i = 0; i < COUNT(keys); i++)
        ck_assert_msg(json_is_null(json_object_get(object, keys[i])), "%s is not null", keys[i]);
    json_decref(array);
    array = load_results(&bench_test_peak, NULL, 0);
    ck_assert_uint_eq(json_array_size(array), 0);
    json_decref(array);
}
END_TEST

/* One tag at `*at`, which is '<'. Pushes, pops or leaves the stack of open elements. */
static void parse_tag(const char **at, char stack[][16], int *depth)
{
    const char *s = *at + 1;
    bool closing = *s == '/';
    char name[16] = "";
    s += closing;
    for (size_t n = 0; isalpha((unsigned char)*s); s++) {
        ck_assert_uint_lt(n, sizeof(name) - 1);
        name[n++] = *s;
    }
    ck_assert_msg(name[0] != '\0', "no name at: %.40s", *at);
    while (*s == ' ' || isalpha((unsigned char)*s)) {
        s += strspn(s, " ");
        s += strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
        ck_assert_msg(!strncmp(s, "=\"", 2), "no value at: %.40s", s);
        s += 2 + strcspn(s + 2, "\"<");
        ck_assert_msg(*s == '"', "open quote at: %.40s", s);
        s++;
    }
    bool empty = *s == '/';
    s += empty;
    ck_assert_msg(*s == '>', "no end of tag at: %.40s", *at);
    *at = s + 1;
    if (closing) {
        ck_assert_int_gt(*depth, 0);
        ck_assert_str_eq(stack[--*depth], name);
    } else if (!empty) {
        ck_assert_int_lt(*depth, 8);
        strcpy(stack[(*depth)++], name);
    }
}

static void assert_well_formed(const char *text)
{
    static const char *const entities[] = {"&lt;", "&gt;", "&amp;", "&quot;"};
    char stack[8][16];
    int depth = 0;
    ck_assert_int_eq(strncmp(text, "<svg ", 5), 0);
    for (const char *at = text; *at;) {
        if (*at == '<') {
            parse_tag(&at, stack, &depth);
            continue;
        }
        ck_assert_int_ne(*at, '>');
        bool known = *at != '&';
        for (size_t i = 0; !known && i < COUNT(entities); i++)
            known = !strncmp(at, entities[i], strlen(entities[i]));
        ck_assert_msg(known, "bare & at: %.40s", at);
        ck_assert_msg(depth > 0 || isspace((unsigned char)*at), "text outside at: %.40s", at);
        at++;
    }
    ck_assert_int_eq(depth, 0);
    ck_assert_ptr_null(strstr(text, "nan"));
    ck_assert_ptr_null(strstr(text, "inf"));
}

static char *draw(const bench_peak *peak, const bench_result *results, size_t count)
{
    fa_device_info device = odd_device();
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    bench_write_svg(file, &device, peak, results, count);
    ck_assert_int_eq(fclose(file), 0);
    assert_well_formed(text);
    return text;
}

static int occurrences(const char *text, const char *word)
{
    int count = 0;
    for (; (text = strstr(text, word)); text++)
        count++;
    return count;
}

START_TEST(svg_has_a_panel_per_kind_and_a_line_per_type)
{
    bench_result results[] = {
        make_result("B1,H8,S1024,D64", FA_F32, false, 1.5e11),
        make_result("B1,H8,S512,D64", FA_F32, false, 1e11),
        make_result("B1,H8,S512,D64", FA_F16, false, 9e10),
        make_result("B1,H8,S512,D64", FA_F32, true, 8e10),
        make_result("B1,H8,S1,D64,SK512", FA_F32, false, 8e10),
        make_result("B1,H8,S2,D64,SK512", FA_F32, false, 8e10),
        make_result("B1,H8,S4096,D64", FA_F32, false, 1e11),
    };
    results[6].status = BENCH_WRONG;
    results[2].ratio_standard = NAN;
    char *text = draw(&bench_test_peak, results, COUNT(results));
    ck_assert_int_eq(occurrences(text, "font-weight=\"bold\""), 1 + 4);
    ck_assert_int_eq(occurrences(text, "<polyline"), 2 * 5 - 1);
    ck_assert_int_eq(occurrences(text, "<circle"), 6);
    ck_assert_int_eq(occurrences(text, "f32 multiply-add"), 3);
    ck_assert_int_eq(occurrences(text, "memory reads"), 1);
    ck_assert_ptr_nonnull(strstr(text, "A&lt;B&gt; &amp; &quot;C&quot;"));
    free(text);
}
END_TEST

/* A ceiling is drawn for kernels that are in the panel, and only named where it would flatten the rates. */
START_TEST(svg_has_the_ceilings_of_its_kernels)
{
    bench_result results[] = {
        make_result("B1,H8,S512,D64", FA_F32, false, 1e11),
        make_result("B1,H8,S512,D64", FA_BF16, false, 1.5e11),
        make_result("B1,H8,S512,D64", FA_BF16, true, 2e11),
    };
    char *text = draw(&bench_test_peak, results, COUNT(results));
    ck_assert_int_eq(occurrences(text, "bf16 dot products"), 0);
    free(text);
    strcpy(results[1].kernel, "avx512bf16-tile");
    strcpy(results[2].kernel, "amx-tile");
    text = draw(&bench_test_peak, results, COUNT(results));
    ck_assert_int_eq(occurrences(text, "bf16 dot products (avx512bf16): 400 GFLOP/s<"), 1);
    ck_assert_int_eq(occurrences(text, "bf16 dot products (amx): 3000 GFLOP/s, above<"), 1);
    ck_assert_int_eq(occurrences(text, "f32 multiply-add (avx512): 200 GFLOP/s<"), 2);
    ck_assert_int_eq(occurrences(text, "stroke-dasharray=\"2 2\""), 3);
    free(text);
}
END_TEST

START_TEST(svg_of_blocks_and_dims)
{
    enum { WIDTHS = 4, DIMS = 3 };
    bench_result results[WIDTHS + DIMS + 1];
    for (int i = 0; i < WIDTHS; i++) {
        results[i] = make_result("B1,H8,S512,D64", FA_F32, false, 1e11);
        results[i].problem.axis = BENCH_BY_BLOCK;
        results[i].problem.block_kv = i ? 64 << i : 0;
        results[i].block_kv = i ? 64 << i : 256;
    }
    for (int i = 0; i < DIMS; i++) {
        results[WIDTHS + i] = make_result("B1,H8,S512,D64", FA_F32, false, 1e11);
        results[WIDTHS + i].problem.axis = BENCH_BY_DIM;
        results[WIDTHS + i].problem.size.dim_qk += i;
    }
    results[WIDTHS + DIMS] = make_result("B1,H1,S1,D1", FA_F32, false, 1e6);
    results[WIDTHS + DIMS].problem.axis = BENCH_NOT_DRAWN;
    char *text = draw(&bench_test_peak, results, COUNT(results));
    ck_assert_int_eq(occurrences(text, "font-weight=\"bold\""), 1 + 2);
    ck_assert_int_eq(occurrences(text, "Block widths"), 1);
    ck_assert_int_eq(occurrences(text, "Head dims"), 1);
    ck_assert_int_eq(occurrences(text, "<circle"), WIDTHS + DIMS);
    ck_assert_int_eq(occurrences(text, "r=\"6\""), 1);
    free(text);
}
END_TEST

START_TEST(svg_of_little)
{
    bench_result result = make_result("B1,H1,S8,D8", FA_F32, false, 1e13);
    char *text = draw(&(bench_peak){.known = false}, &result, 1);
    ck_assert_ptr_nonnull(strstr(text, "TFLOP/s"));
    free(text);
    result.status = BENCH_UNSERVED;
    text = draw(&bench_test_peak, &result, 1);
    ck_assert_ptr_nonnull(strstr(text, "no case was timed"));
    free(text);
    free(draw(&bench_test_peak, NULL, 0));
}
END_TEST

TCase *bench_test_reports(void)
{
    TCase *reports = tcase_create("reports");
    tcase_add_test(reports, json_has_every_key);
    tcase_add_test(reports, json_has_the_ceilings);
    tcase_add_test(reports, json_says_null_for_what_is_missing);
    tcase_add_test(reports, svg_has_a_panel_per_kind_and_a_line_per_type);
    tcase_add_test(reports, svg_has_the_ceilings_of_its_kernels);
    tcase_add_test(reports, svg_of_blocks_and_dims);
    tcase_add_test(reports, svg_of_little);
    return reports;
}
