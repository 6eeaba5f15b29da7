/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large the kernels' rounding errors are beside those of a good f32 implementation: head dims are summed 32 at a time,
 * weights 64, and values 512 keys at a time, as libraries do whose products take blocks.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <fastattn/reference.h>

#include "helpers.h"

enum { ROWS = 48, DIM_BLOCK = 32, WEIGHT_BLOCK = 64, KEY_BLOCK = 512 };

/* One problem of f32 in random numbers, and its exact result. */
typedef struct problem {
    int dim, keys;
    fa_attention_desc desc;
    float *q, *k, *v, *o;
    double *exact;
} problem;

static float *random_floats(random_state *random, int count)
{
    float *values = malloc((size_t)count * sizeof(*values));
    for (int i = 0; i < count; i++) {
        values[i] = 0;
        for (int n = 0; n < 4; n++)
            values[i] += random_float(random, -0.866f, 0.866f);
    }
    return values;
}

static problem make_problem(int dim, int keys)
{
    random_state random = {(uint64_t)(dim + 1000 * keys)};
    problem p = {.dim = dim, .keys = keys, .desc = make_desc(1, 1, 1, ROWS, keys, dim)};
    p.q = random_floats(&random, ROWS * dim);
    p.k = random_floats(&random, keys * dim);
    p.v = random_floats(&random, keys * dim);
    p.o = malloc((size_t)(ROWS * dim) * sizeof(*p.o));
    p.exact = malloc((size_t)(ROWS * dim) * sizeof(*p.exact));
    const fa_inputs inputs = {.q = p.q, .k = p.k, .v = p.v};
    ck_assert_int_eq(fa_reference_attention(context, &p.desc, &inputs, p.exact, NULL), FA_OK);
    return p;
}

static void free_problem(problem *p)
{
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->o);
    free(p->exact);
}

/* sum_i a[i] b[i stride] in partial sums of `block` terms. */
static float blocked_sum(const float *a, const float *b, int stride, int count, int block)
{
    float total = 0;
    for (int from = 0; from < count; from += block) {
        float part = 0;
        for (int i = from; i < count && i < from + block; i++)
            part += a[i] * b[i * stride];
        total += part;
    }
    return total;
}

static void blocked_attention(problem *p)
{
    float *weight = malloc((size_t)p->keys * sizeof(*weight)), scale = (float)(1 / sqrt(p->dim)), one = 1;
    for (int row = 0; row < ROWS; row++) {
        float max = -INFINITY;
        for (int j = 0; j < p->keys; j++) {
            weight[j] = scale * blocked_sum(p->q + row * p->dim, p->k + j * p->dim, 1, p->dim, DIM_BLOCK);
            max = fmaxf(max, weight[j]);
        }
        for (int j = 0; j < p->keys; j++)
            weight[j] = expf(weight[j] - max);
        float sum = blocked_sum(weight, &one, 0, p->keys, WEIGHT_BLOCK);
        for (int d = 0; d < p->dim; d++)
            p->o[row * p->dim + d] = blocked_sum(weight, p->v + d, p->dim, p->keys, KEY_BLOCK) / sum;
    }
    free(weight);
}

static double error_of(const problem *p)
{
    double square = 0;
    for (int i = 0; i < ROWS * p->dim; i++)
        square += ((double)p->o[i] - p->exact[i]) * ((double)p->o[i] - p->exact[i]);
    return sqrt(square / (ROWS * p->dim));
}

/* Every kernel of the CPU backend that multiplies f32, at each head dim, on few keys and on many. */
START_TEST(errors_are_those_of_blocked_sums)
{
    static const int sizes[][2] = {{64, 512}, {128, 512}, {256, 512}, {512, 512}, {64, 4096}};
    problem p = make_problem(sizes[_i][0], sizes[_i][1]);
    /* On one thread: rows that are split are sums of parts already. */
    const fa_context_options options = {.struct_size = sizeof(options), .threads = 1};
    fa_context *alone;
    fa_device *device;
    ck_assert_int_eq(fa_context_create(&options, &alone), FA_OK);
    ck_assert_msg(fa_device_open(alone, "openmp", NULL, &device) == FA_OK, "%s", fa_last_error());
    fa_device_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    blocked_attention(&p);
    double baseline = error_of(&p);
    int judged = 0;
    for (char *kernel = strtok(info.kernels, ","); kernel; kernel = strtok(NULL, ",")) {
        fa_tuning tuning = {.struct_size = sizeof(tuning), .kernel = kernel};
        p.desc.tuning = &tuning;
        if (strstr(kernel, "-standard") || fa_device_supports(device, &p.desc, NULL, 0) != FA_OK)
            continue; /* a baseline of speed, with one block for all keys; or for bf16 alone */
        ck_assert_int_eq(fa_attention_host(device, &p.desc, p.q, p.k, p.v, NULL, NULL, p.o, NULL), FA_OK);
        double ratio = error_of(&p) / baseline;
        ck_assert_msg(ratio <= 1.1, "%s, dim %d, %d keys: %.2f times the error of blocked sums", kernel,
                      p.dim, p.keys, ratio);
        judged++;
    }
    ck_assert_int_ge(judged, 2);
    fa_device_close(device);
    fa_context_destroy(alone);
    free_problem(&p);
}
END_TEST

/* A value that all other keys outweigh by more than f32 holds beside its scale: what is lost of it is less than the limit. */
START_TEST(small_weights_keep_their_values)
{
    enum { KEYS = 32, DIM = 64 };
    static const fa_dtype types[] = {FA_Q8_0, FA_Q4_0, FA_Q5_0, FA_IQ4_NL, FA_Q4_1, FA_E4M3};
    static float q[DIM], k[KEYS * DIM], v[KEYS * DIM], o[DIM];
    static unsigned char coded[KEYS * DIM * 4];
    static double exact[DIM];
    double limit, limit_lse;
    fa_device *device;
    fa_attention_desc d = make_desc(1, 1, 1, 1, KEYS, DIM);
    const fa_inputs inputs = {.q = q, .k = k, .v = coded};
    ck_assert_int_eq(fa_device_open(context, "openmp", NULL, &device), FA_OK);
    d.scale = 1;
    q[0] = 1;
    for (int j = 2; j < KEYS; j++)
        k[j * DIM] = -3e4f;
    for (int n = 0; n < COUNT(types) * 4; n++) {
        k[DIM] = -70 - 5 * (float)(n % 4); /* weights of 2^-101 to 2^-123 */
        for (int i = 0; i < DIM; i++)
            v[DIM + i] = 0.01f * (1 + 0.5f * sinf((float)i));
        fa_elements_store(types[n / 4], coded, 0, v, KEYS * DIM);
        d.v.dtype = types[n / 4];
        ck_assert_msg(fa_attention_host(device, &d, q, k, coded, NULL, NULL, o, NULL) == FA_OK, "%s",
                      fa_last_error());
        ck_assert_int_eq(fa_reference_attention(context, &d, &inputs, exact, NULL), FA_OK);
        ck_assert_int_eq(fa_reference_limit(context, &d, &inputs, FA_F32, 0, &limit, &limit_lse), FA_OK);
        for (int i = 0; i < DIM; i++)
            ck_assert_msg(fabs((double)o[i] - exact[i]) <= limit, "%s, %g: %g is off by %g, limit %g",
                          fa_dtype_name(d.v.dtype), (double)k[DIM], exact[i], (double)o[i] - exact[i], limit);
    }
    fa_device_close(device);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("precision");
    TCase *tc = add_context_case(suite, "openmp");
    tcase_add_loop_test(tc, errors_are_those_of_blocked_sums, 0, 5);
    tcase_add_test(tc, small_weights_keep_their_values);
    tcase_set_timeout(tc, 120);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
