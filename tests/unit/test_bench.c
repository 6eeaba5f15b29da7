/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <fastattn/reference.h>

#include "tools/bench.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bench_case make_case(const char *text, fa_dtype dtype, bool causal)
{
    bench_case c = {.dtype = dtype, .causal = causal};
    char error[160];
    ck_assert_msg(shape_parse(text, &c.size, error, sizeof(error)), "%s", error);
    return c;
}

static bench_result make_result(const char *text, fa_dtype dtype, bool causal, double rate)
{
    return (bench_result){
        .problem = make_case(text, dtype, causal),
        .status = BENCH_TIMED,
        .kernel = "avx2-tile",
        .runs = 7,
        .ms_median = 2.5,
        .ms_min = 2.25,
        .flops_rate = rate,
        .bytes_rate = rate / 8,
        .peak_fraction = 0.5,
        .bound = BENCH_COMPUTE,
        .ratio_standard = 3.0,
        .max_error = 1e-6,
    };
}

static const bench_peak known_peak = {
    .known = true, .flops = 2e11, .bytes = 3e10, .isa = "avx2", .threads = 2};

/* A name that neither JSON nor XML takes as it is. */
static fa_device_info odd_device(void)
{
    fa_device_info device = {.struct_size = sizeof(device), .backend = "openmp"};
    strcpy(device.name, "A<B> & \"C\" \\ D\n\xff");
    return device;
}

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
    bench_case c = make_case("B2,H8,S2048,D128", FA_F32, false);
    ck_assert_double_eq(bench_flops(&c), 4.0 * 2 * 8 * 2048 * 2048 * 128);
    c.causal = true;
    ck_assert_double_eq(bench_flops(&c), 2.0 * 2 * 8 * 2048 * 2048 * 128);
    c = make_case("B1,H4,S16,D64,SK100,DV32", FA_F32, false);
    ck_assert_double_eq(bench_flops(&c), 2.0 * 4 * 16 * 100 * (64 + 32));
}
END_TEST

/* Where the lengths differ, half would be far off: the pairs are counted, but for the diagonal's own half. */
START_TEST(flops_causal_rectangle)
{
    const char *const shapes[] = {"B1,H1,S1,D8,SK64", "B1,H1,S16,D8,SK100", "B1,H1,S100,D8,SK16"};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        bench_case c = make_case(shapes[i], FA_F32, true);
        double pairs = 0;
        for (int64_t row = 0; row < c.size.len_q; row++)
            pairs += fmax(0, (double)(row + 1 + c.size.len_kv - c.size.len_q));
        double diagonal = fmin((double)c.size.len_q, (double)c.size.len_kv);
        ck_assert_double_eq(bench_flops(&c), 4 * 8 * (pairs - 0.5 * diagonal));
    }
}
END_TEST

START_TEST(standard_row_of_same_isa)
{
    char row[64];
    const char *kernels = "avx512-tile,avx512-rows,avx2-tile,scalar-tile,avx512-standard,avx2-standard";
    ck_assert(bench_standard_row(kernels, "avx512-tile", row, sizeof(row)));
    ck_assert_str_eq(row, "avx512-standard");
    ck_assert(bench_standard_row(kernels, "avx2-tile", row, sizeof(row)));
    ck_assert_str_eq(row, "avx2-standard");
    ck_assert(!bench_standard_row(kernels, "scalar-tile", row, sizeof(row)));
    ck_assert(!bench_standard_row(kernels, "avx2-standard", row, sizeof(row)));
    ck_assert(!bench_standard_row("", "avx2-tile", row, sizeof(row)));
    ck_assert(bench_standard_row("mma16,standard", "mma16", row, sizeof(row)));
    ck_assert_str_eq(row, "standard");
    ck_assert(bench_standard_row("standard,mma16-standard", "mma16-tile", row, sizeof(row)));
    ck_assert_str_eq(row, "mma16-standard");
}
END_TEST

START_TEST(peak_fraction_is_the_nearer_ceiling)
{
    bench_bound bound;
    ck_assert_double_eq_tol(bench_peak_fraction(&known_peak, 1e11, 1e9, &bound), 0.5, 1e-12);
    ck_assert_int_eq(bound, BENCH_COMPUTE);
    ck_assert_double_eq_tol(bench_peak_fraction(&known_peak, 1e9, 2.4e10, &bound), 0.8, 1e-12);
    ck_assert_int_eq(bound, BENCH_MEMORY);
    ck_assert_double_eq_tol(bench_peak_fraction(&known_peak, 1e9, 6e10, &bound), 2.0, 1e-12);
    ck_assert_int_eq(bound, BENCH_CACHE);
    ck_assert_double_nan(bench_peak_fraction(&(bench_peak){.known = false}, 1e9, 1e9, &bound));
    ck_assert_int_eq(bound, BENCH_NO_BOUND);
}
END_TEST

START_TEST(simd_is_one_that_is_listed)
{
    ck_assert_ptr_null(bench_simd_find(""));
    ck_assert_ptr_null(bench_simd_find("mma16-tile"));
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
    enum { FLOATS = 2 * BENCH_READ_FLOATS };
    float data[FLOATS];
    for (int i = 0; i < FLOATS; i++)
        data[i] = (float)i;
    for (size_t i = 0; i < COUNT(lists); i++)
        ck_assert_float_eq(bench_simd_find(lists[i])->read(data, FLOATS), 0.5f * FLOATS * (FLOATS - 1));
}
END_TEST

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
    static const char *const keys[] = {
        "backend",   "device",         "dtype",     "batch",       "heads_q",  "heads_kv",
        "len_q",     "len_kv",         "dim",       "dim_v",       "causal",   "kernel",
        "ms_median", "ms_min",         "runs",      "tflops",      "gbps",     "peak_fraction",
        "bound",     "ratio_standard", "max_error", "peak_tflops", "peak_gbps"};
    bench_result results[] = {make_result("B1,H8,S512,D64,HK2,SK1024,DV32", FA_BF16, true, 1e11),
                              make_result("B1,H8,S512,D64", FA_F32, false, 1e11)};
    json_t *array = load_results(&known_peak, results, COUNT(results));
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
    ck_assert_double_eq_tol(json_real_value(json_object_get(object, "tflops")), 0.1, 1e-9);
    ck_assert_str_eq(json_string_value(json_object_get(object, "bound")), "compute");
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
    const char *const keys[] = {"ratio_standard", "peak_fraction", "max_error",
                                "bound",          "peak_tflops",   "peak_gbps"};
    for (size_t i = 0; i < COUNT(keys); i++)
        ck_assert_msg(json_is_null(json_object_get(object, keys[i])), "%s is not null", keys[i]);
    json_decref(array);
    array = load_results(&known_peak, NULL, 0);
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
    char *text = draw(&known_peak, results, COUNT(results));
    ck_assert_int_eq(occurrences(text, "font-weight=\"bold\""), 1 + 4);
    ck_assert_int_eq(occurrences(text, "<polyline"), 2 * 5 - 1);
    ck_assert_int_eq(occurrences(text, "<circle"), 6);
    ck_assert_int_eq(occurrences(text, "f32 multiply-add"), 3);
    ck_assert_int_eq(occurrences(text, "memory reads"), 1);
    ck_assert_ptr_nonnull(strstr(text, "A&lt;B&gt; &amp; &quot;C&quot;"));
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
    text = draw(&known_peak, &result, 1);
    ck_assert_ptr_nonnull(strstr(text, "no case was timed"));
    free(text);
    free(draw(&known_peak, NULL, 0));
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
    bench_case c = make_case("B1,H4,S33,D24,HK2,SK70", (fa_dtype)_i, true);
    bench_result r;
    bench_case_run(context, device, &known_peak, &options, &c, &r);
    ck_assert_msg(r.status == BENCH_TIMED, "%s", r.message);
    ck_assert_int_ge(r.runs, 5);
    ck_assert_double_gt(r.ms_min, 0);
    ck_assert_double_ge(r.ms_median, r.ms_min);
    ck_assert_double_ge(r.max_error, 0);
    ck_assert_double_lt(r.max_error, 0.05);
    ck_assert_double_gt(r.flops_rate, 0);
    ck_assert_str_ne(r.kernel, "");
}
END_TEST

START_TEST(case_that_is_not_served_says_why)
{
    const bench_options options = {.min_time = 1e-4, .kernel = "no-such-row"};
    bench_case c = make_case("B1,H1,S8,D8", FA_F32, false);
    bench_result r;
    bench_case_run(context, device, &known_peak, &options, &c, &r);
    ck_assert_int_eq(r.status, BENCH_UNSERVED);
    ck_assert_ptr_nonnull(strstr(r.message, "no-such-row"));
    ck_assert_double_nan(r.ms_median);
    c = make_case("B1000000,H1000,S100000,D512", FA_F32, false);
    bench_case_run(context, device, &known_peak, &options, &c, &r);
    ck_assert_int_eq(r.status, BENCH_UNSERVED);
}
END_TEST

/* Long enough to be sampled. A sample that stood at the wrong place of the diagonal, or read the wrong head,
 * would call the right result wrong; the first and the last row are always among the samples. */
START_TEST(samples_tell_right_from_wrong)
{
    const bench_case c = make_case("B2,H4,S200,D64,HK2,SK600,DV48", FA_F32, _i);
    const shape *s = &c.size;
    const fa_attention_desc desc = {
        .struct_size = sizeof(desc),
        .q = fa_tensor_make(FA_F32, s->batch, s->heads_q, s->len_q, s->dim_qk),
        .k = fa_tensor_make(FA_F32, s->batch, s->heads_kv, s->len_kv, s->dim_qk),
        .v = fa_tensor_make(FA_F32, s->batch, s->heads_kv, s->len_kv, s->dim_v),
        .o = fa_tensor_make(FA_F32, s->batch, s->heads_q, s->len_q, s->dim_v),
        .mask = c.causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE,
    };
    const fa_tensor *const tensors[] = {&desc.q, &desc.k, &desc.v, &desc.o};
    float *data[COUNT(tensors)];
    size_t bytes;
    for (size_t i = 0; i < COUNT(tensors); i++) {
        ck_assert_int_eq(fa_tensor_span(tensors[i], &bytes), FA_OK);
        data[i] = malloc(bytes);
        for (size_t n = 0; n < bytes / sizeof(float); n++)
            data[i][n] = sinf((float)(n * (i + 3)));
    }
    const fa_inputs inputs = {.q = data[0], .k = data[1], .v = data[2]};
    ck_assert_int_eq(fa_naive_attention(context, &desc, &inputs, FA_ORDER_FORWARD, FA_F32, data[3], NULL),
                     FA_OK);

    const bench_data views = {data[0], data[1], data[2], data[3]};
    const size_t last = bytes / sizeof(float) - 1, places[] = {0, last};
    char message[400] = "";
    double error;
    ck_assert_msg(bench_verify(context, &c, &desc, &views, FA_F32, &error, message, sizeof(message)), "%s",
                  message);
    ck_assert_double_lt(error, 1e-4);
    for (size_t i = 0; i < COUNT(places); i++) {
        float right = data[3][places[i]];
        data[3][places[i]] += 0.01f;
        ck_assert(!bench_verify(context, &c, &desc, &views, FA_F32, &error, message, sizeof(message)));
        ck_assert_double_eq_tol(error, 0.01, 1e-4);
        ck_assert_str_ne(message, "");
        data[3][places[i]] = right;
    }
    for (size_t i = 0; i < COUNT(tensors); i++)
        free(data[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench");
    TCase *numbers = tcase_create("numbers"), *reports = tcase_create("reports"),
          *cases = tcase_create("cases");
    TCase *samples = tcase_create("samples");
    tcase_add_test(numbers, median_of_few);
    tcase_add_test(numbers, flops_full_and_causal);
    tcase_add_test(numbers, flops_causal_rectangle);
    tcase_add_test(numbers, standard_row_of_same_isa);
    tcase_add_test(numbers, peak_fraction_is_the_nearer_ceiling);
    tcase_add_test(numbers, simd_is_one_that_is_listed);
    tcase_add_test(numbers, simd_reads_every_element);
    tcase_add_test(reports, json_has_every_key);
    tcase_add_test(reports, json_says_null_for_what_is_missing);
    tcase_add_test(reports, svg_has_a_panel_per_kind_and_a_line_per_type);
    tcase_add_test(reports, svg_of_little);
    tcase_add_checked_fixture(cases, open_device, close_device);
    tcase_add_loop_test(cases, case_is_checked_and_timed, FA_F32, FA_BF16 + 1);
    tcase_add_test(cases, case_that_is_not_served_says_why);
    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(samples, make_context, destroy_context);
    tcase_add_loop_test(samples, samples_tell_right_from_wrong, 0, 2);
    tcase_set_timeout(samples, 60);
    suite_add_tcase(suite, numbers);
    suite_add_tcase(suite, reports);
    suite_add_tcase(suite, cases);
    suite_add_tcase(suite, samples);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
