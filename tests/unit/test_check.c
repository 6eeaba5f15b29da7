/* SPDX-License-Identifier: Apache-2.0 */
/* The judge: what it passes and what it fails where scores are as large as f32 has them. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"
#include "tools/check.h"
#include "tools/conform/conform.h"

enum { ROWS = 4, KEYS = 8, DIM = 4 };

/* A problem of one head whose scores are products of about 1 and a bias. */
typedef struct problem {
    fa_attention_desc desc;
    float q[ROWS * DIM], k[KEYS * DIM], v[KEYS * DIM], bias[ROWS * KEYS];
    float o[ROWS * DIM], lse[ROWS];
    check_means means;
} problem;

static problem p;

static fa_inputs inputs_of(void)
{
    return (fa_inputs){.q = p.q, .k = p.k, .v = p.v, .bias = p.desc.bias.shape[0] > 0 ? p.bias : NULL};
}

/* Values are between 1 and 2, so that 0 is none that any weights could give. */
static void make_problem(float bias)
{
    random_state random = {7};
    p = (problem){.desc = make_desc(1, 1, 1, ROWS, KEYS, DIM), .means = {.weights = FA_F32}};
    p.desc.want_lse = 1;
    p.desc.bias = fa_tensor_make(FA_F32, 1, 1, ROWS, KEYS);
    for (int i = 0; i < ROWS * DIM; i++)
        p.q[i] = random_float(&random, -1, 1);
    for (int i = 0; i < KEYS * DIM; i++) {
        p.k[i] = random_float(&random, -1, 1);
        p.v[i] = random_float(&random, 1, 2);
    }
    for (int i = 0; i < ROWS * KEYS; i++)
        p.bias[i] = bias;
}

static void compute(void)
{
    const fa_inputs inputs = inputs_of();
    ck_assert_int_eq(fa_naive_attention(context, &p.desc, &inputs, FA_ORDER_FORWARD, FA_F32, p.o, p.lse),
                     FA_OK);
}

/* Whether the judge passes p.o and p.lse. */
static bool passes(void)
{
    const fa_inputs inputs = inputs_of();
    check_reference *reference;
    check_result result;
    ck_assert_int_eq(check_reference_create(context, &p.desc, &inputs, &p.means, &reference), FA_OK);
    check_compare(reference, p.o, p.lse, &result);
    check_reference_destroy(reference);
    ck_assert_int_eq(result.ok, !result.message[0]);
    return result.ok;
}

/* Row `row` with the value of one key, or 0 for key KEYS: whether that passes. The row is put back. */
static bool passes_with(int row, int key)
{
    float right[DIM];
    memcpy(right, p.o + row * DIM, sizeof(right));
    for (int d = 0; d < DIM; d++)
        p.o[row * DIM + d] = key < KEYS ? p.v[key * DIM + d] : 0;
    bool passed = passes();
    memcpy(p.o + row * DIM, right, sizeof(right));
    return passed;
}

static bool passes_with_lse(int row, float lse)
{
    float right = p.lse[row];
    p.lse[row] = lse;
    bool passed = passes();
    p.lse[row] = right;
    return passed;
}

/* The mask of frameworks, in all of a row: every key weighs the same, as far as f32 can tell. */
START_TEST(rows_of_the_lowest_number_are_the_mean)
{
    const float biases[] = {-FLT_MAX, FLT_MAX, -1e9f, 1e30f};
    for (int i = 0; i < COUNT(biases); i++) {
        make_problem(biases[i]);
        compute();
        float mean = 0;
        for (int j = 0; j < KEYS; j++)
            mean += p.v[j * DIM] / KEYS;
        ck_assert_float_eq_tol(p.o[0], mean, 1e-6f);
        ck_assert(passes());
        /* In double precision, 1e9 swallows nothing: there the exact result is another, and only 0 is surely none. */
        for (int key = fabsf(biases[i]) > 1e20f ? 0 : KEYS; key <= KEYS; key++)
            ck_assert_msg(!passes_with(1, key), "bias %g: the value of key %d passes", (double)biases[i],
                          key);
        ck_assert(!passes_with_lse(1, -INFINITY));
        ck_assert(!passes_with_lse(1, INFINITY));
        ck_assert(!passes_with_lse(1, 0));
        ck_assert(!passes_with_lse(1, NAN));
    }
}
END_TEST

/* One key above all others: the exact answer is its value. */
START_TEST(one_key_above_the_others_is_the_answer)
{
    const float ends[][2] = {{-FLT_MAX, 0}, {0, FLT_MAX}, {-FLT_MAX, FLT_MAX}, {1e37f, 1.1e37f}};
    for (int i = 0; i < COUNT(ends); i++) {
        make_problem(ends[i][0]);
        for (int row = 0; row < ROWS; row++)
            p.bias[row * KEYS + row + 2] = ends[i][1];
        compute();
        for (int merges = 0; merges <= 4; merges += 2) {
            p.means.merges = merges;
            ck_assert(passes());
            ck_assert(passes_with(1, 3));
            ck_assert(!passes_with(1, 4));
            ck_assert(!passes_with(1, KEYS));
            ck_assert(!passes_with_lse(1, -INFINITY));
            ck_assert(!passes_with_lse(1, INFINITY));
        }
    }
}
END_TEST

/* Scores of products near the end of the range, far apart from each other. */
START_TEST(huge_products_have_one_answer)
{
    make_problem(0);
    p.desc.bias = (fa_tensor){0};
    p.desc.scale = 1e37f;
    compute();
    ck_assert(passes());
    int right = 0;
    for (int key = 0; key < KEYS; key++)
        right += passes_with(2, key);
    ck_assert_int_eq(right, 1);
    ck_assert(!passes_with(2, KEYS));
}
END_TEST

/* f32 cannot tell the two largest scores of row 0, so that its naive error is large. That excuses no other row. */
START_TEST(a_row_that_nobody_can_tell_excuses_no_other)
{
    make_problem(-FLT_MAX);
    p.desc.scale = 1;
    const float tie[KEYS] = {1e8f, 1e8f};
    for (int j = 0; j < KEYS; j++) {
        p.bias[j] = j < 2 ? tie[j] : 0;
        for (int d = 0; d < DIM; d++)
            p.k[j * DIM + d] = d == 0 ? (float)j * 3.9f : 0;
    }
    for (int d = 0; d < DIM; d++)
        p.q[d] = d == 0;
    compute();
    ck_assert(passes());
    ck_assert(passes_with(0, 1));                        /* exact                        */
    ck_assert(!passes_with(0, 0) && !passes_with(0, 2)); /* farther off than one of f32's */
    ck_assert(!passes_with(1, KEYS));
    ck_assert(!passes_with(1, 0));
}
END_TEST

/* LSE of parts that round to one number hide how many keys each part has; what no weights give fails all the same. */
START_TEST(merged_rows_stay_among_their_values)
{
    make_problem(-FLT_MAX);
    compute();
    for (int merges = 1; merges <= 3; merges += 2) {
        p.means.merges = merges;
        ck_assert(passes());
        ck_assert(passes_with(1, 0));
        for (int i = 0; i < DIM; i++)
            p.o[i] *= 100;
        ck_assert(!passes());
        compute();
        ck_assert(!passes_with_lse(0, -INFINITY));
    }
}
END_TEST

/* A row that sees nothing, or whose weight a sink takes, is 0. */
START_TEST(empty_rows_are_zero)
{
    make_problem(-INFINITY);
    compute();
    ck_assert(passes());
    ck_assert(!passes_with(1, 0));
    ck_assert(!passes_with_lse(1, -FLT_MAX));
    const float sinks[] = {FLT_MAX};
    make_problem(0);
    p.desc.sinks = sinks;
    compute();
    ck_assert_float_eq(p.lse[0], FLT_MAX);
    ck_assert(passes());
    ck_assert(!passes_with(1, 0));
}
END_TEST

/* A sink that ties with scores as f32 rounds them: what f32 makes of them passes, and no more. */
START_TEST(sinks_tie_with_keys)
{
    const float sinks[] = {1e9f};
    make_problem(1e9f);
    for (int j = 0; j < KEYS * DIM; j++)
        p.v[j] = 1;
    p.desc.sinks = sinks;
    compute();
    ck_assert_float_eq_tol(p.o[0], (float)KEYS / (KEYS + 1), 1e-6f);
    ck_assert(passes());
    ck_assert(!passes_with_lse(1, -INFINITY));
    for (int d = 0; d < DIM; d++)
        p.o[d] = 1.01f;
    ck_assert(!passes());
}
END_TEST

/* q.k is beyond f32 where the score is not: naive arithmetic is NaN. */
START_TEST(products_beyond_f32_are_not_judged)
{
    double limit[ROWS], lse_limit[ROWS];
    make_problem(0);
    p.desc.bias = (fa_tensor){0};
    for (int d = 0; d < DIM; d++)
        p.q[d] = 1e19f;
    for (int i = 0; i < KEYS * DIM; i++)
        p.k[i] = 1e19f;
    const fa_inputs inputs = inputs_of();
    ck_assert_int_eq(fa_reference_limit(context, &p.desc, &inputs, FA_F32, 0, limit, lse_limit), FA_OK);
    ck_assert(isinf(limit[0]) && isinf(lse_limit[0]) && isfinite(limit[1]) && isfinite(lse_limit[1]));
}
END_TEST

/* A reference for results by other means judges as one that was made for them does. */
START_TEST(means_may_change)
{
    static const fa_dtype weights[] = {FA_F32, FA_BF16, FA_F32};
    make_problem(0);
    compute();
    const fa_inputs inputs = inputs_of();
    check_reference *kept = NULL;
    for (int i = 0; i < COUNT(weights); i++) {
        const check_means means = {.weights = weights[i], .merges = i};
        check_reference *made;
        check_result by_kept, by_made;
        ck_assert_int_eq(check_reference_create(context, &p.desc, &inputs, &means, &made), FA_OK);
        if (kept)
            ck_assert_int_eq(check_reference_by(kept, context, &p.desc, &inputs, &means), FA_OK);
        else
            ck_assert_int_eq(check_reference_create(context, &p.desc, &inputs, &means, &kept), FA_OK);
        check_compare(made, p.o, p.lse, &by_made);
        check_compare(kept, p.o, p.lse, &by_kept);
        ck_assert_double_eq(by_kept.bound, by_made.bound);
        ck_assert_double_eq(by_kept.lse_bound, by_made.lse_bound);
        ck_assert_double_eq(by_kept.naive, by_made.naive);
        check_reference_destroy(made);
    }
    check_reference_destroy(kept);
}
END_TEST

/* Elements in the type and layout of the case. */
static void *as_output(const fa_attention_desc *desc, const float *o)
{
    size_t bytes;
    ck_assert_int_eq(fa_tensor_span(&desc->o, &bytes), FA_OK);
    size_t count = bytes / fa_dtype_size(desc->o.dtype);
    void *stored = malloc(bytes);
    for (size_t i = 0; i < count; i++)
        conform_store(desc->o.dtype, stored, (int64_t)i, o[i]);
    return stored;
}

static void judge_naive(const conform_case *c)
{
    const conform_sizes sizes = {.len_q = c->len_q.add, .len_kv = c->len_kv.add};
    const check_means means = {.weights = FA_F32};
    conform_data data;
    check_reference *reference;
    check_result result;
    char message[256] = "";
    ck_assert(conform_data_make(c, &sizes, 1, &data));
    ck_assert_int_eq(check_reference_create(context, &data.desc, &data.inputs, &means, &reference), FA_OK);
    ck_assert_msg(conform_oracles_agree(&data, reference, message, sizeof(message)), "%s: %s", c->name,
                  message);
    int64_t rows = data.desc.o.shape[1] * data.desc.o.shape[2], count = rows * data.desc.o.shape[3];
    float *o = malloc((size_t)count * sizeof(*o)), *lse = malloc((size_t)rows * sizeof(*lse));
    for (int order = 0; order < FA_NAIVE_ORDERS; order++) {
        ck_assert_int_eq(
            fa_naive_attention(context, &data.desc, &data.inputs, (fa_naive_order)order, FA_F32, o, lse),
            FA_OK);
        for (int64_t i = 0; i < count; i++)
            ck_assert_msg(isfinite(o[i]), "%s: naive arithmetic is not finite", c->name);
        void *stored = as_output(&data.desc, o);
        check_compare(reference, stored, lse, &result);
        free(stored);
        ck_assert_msg(result.ok, "%s: %s", c->name, result.message);
    }
    free(o);
    free(lse);
    check_reference_destroy(reference);
    conform_data_free(&data);
}

/* Each case at an end of f32's range is one that naive f32 arithmetic gets right. */
START_TEST(naive_arithmetic_passes_at_the_ends)
{
    conform_list list;
    int found = 0;
    ck_assert(conform_list_make(1, &list));
    for (size_t i = 0; i < list.count; i++) {
        if (strncmp(list.cases[i].name, "ends-", strlen("ends-")) != 0)
            continue;
        judge_naive(&list.cases[i]);
        found++;
    }
    conform_list_free(&list);
    ck_assert_int_gt(found, 300);
}
END_TEST

/* The limit is above what naive arithmetic does, and in ordinary problems near enough to mean something. */
START_TEST(limit_is_above_naive_errors)
{
    for (int seed = 0; seed < 20; seed++) {
        make_problem(0);
        random_state random = {(uint64_t)seed + 1};
        const float sizes[] = {1, 100, 1e4f, 1e9f, 1e30f};
        float size = sizes[seed % COUNT(sizes)];
        for (int i = 0; i < ROWS * KEYS; i++)
            p.bias[i] = random_float(&random, -size, size);
        compute();
        double o[ROWS * DIM], lse[ROWS], limit[ROWS], lse_limit[ROWS];
        const fa_inputs inputs = inputs_of();
        ck_assert_int_eq(fa_reference_attention(context, &p.desc, &inputs, o, lse), FA_OK);
        ck_assert_int_eq(fa_reference_limit(context, &p.desc, &inputs, FA_F32, 0, limit, lse_limit), FA_OK);
        for (int row = 0; row < ROWS; row++) {
            for (int d = 0; d < DIM; d++)
                ck_assert_double_le(fabs((double)p.o[row * DIM + d] - o[row * DIM + d]), limit[row]);
            /* An LSE is rounded once more, as all that is stored. */
            ck_assert_double_le(fabs((double)p.lse[row] - lse[row]),
                                lse_limit[row] + fabs(lse[row]) * 0x1p-23);
            ck_assert_double_le(limit[row], size > 100 ? 4 : 1e-3);
        }
    }
}
END_TEST

START_TEST(limit_refuses_bad_arguments)
{
    make_problem(0);
    double o[ROWS], lse[ROWS];
    const fa_inputs inputs = inputs_of();
    ck_assert_int_eq(fa_reference_limit(context, &p.desc, &inputs, FA_BOOL, 0, o, lse), FA_INVALID);
    assert_message("weights is bool");
    ck_assert_int_eq(fa_reference_limit(context, &p.desc, &inputs, FA_F32, -1, o, lse), FA_INVALID);
    assert_message("merges is -1");
    ck_assert_int_eq(fa_reference_limit(context, &p.desc, &inputs, FA_F32, 0, NULL, lse), FA_INVALID);
    assert_message("o is NULL");
    ck_assert_int_eq(fa_reference_limit(context, &p.desc, &inputs, FA_F32, 0, o, NULL), FA_INVALID);
    assert_message("lse is NULL");
    ck_assert_int_eq(fa_reference_limit(NULL, &p.desc, &inputs, FA_F32, 0, o, lse), FA_INVALID);
    assert_message("context is NULL");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("check");
    TCase *bounds = add_context_case(suite, "bounds"), *ends = add_context_case(suite, "ends");
    tcase_add_test(bounds, rows_of_the_lowest_number_are_the_mean);
    tcase_add_test(bounds, one_key_above_the_others_is_the_answer);
    tcase_add_test(bounds, huge_products_have_one_answer);
    tcase_add_test(bounds, a_row_that_nobody_can_tell_excuses_no_other);
    tcase_add_test(bounds, merged_rows_stay_among_their_values);
    tcase_add_test(bounds, empty_rows_are_zero);
    tcase_add_test(bounds, sinks_tie_with_keys);
    tcase_add_test(bounds, products_beyond_f32_are_not_judged);
    tcase_add_test(bounds, limit_is_above_naive_errors);
    tcase_add_test(bounds, limit_refuses_bad_arguments);
    tcase_add_test(ends, naive_arithmetic_passes_at_the_ends);
    tcase_add_test(ends, means_may_change);
    tcase_set_timeout(ends, 120);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
