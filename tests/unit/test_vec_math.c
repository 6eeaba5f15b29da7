/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp2 and tanh, measured on every STRIDE-th argument that there is. VEC_TEST_STRIDE in the environment sets
 * another stride, 1 for all arguments, and prints what is found.
 */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/half.h"
#include "helpers.h"
#include "test_vec.h"

/* Documented in docs/numerics.md. An ulp is the distance of two f32 in the binade of the exact value. */
#define EXP2_ULPS 1.25
#define TANH_ULPS 2.25

enum { STRIDE = 251, CHUNK = 4096, MAX_ISAS = 4, MAX_LANES = 16 };

/* A function of the vocabulary, what it stands for, and its largest error in each instruction set. */
typedef struct measured {
    const char *name;
    double (*exact)(double);
    size_t member; /* of vec_ops */
    double ulps[MAX_ISAS];
    float at[MAX_ISAS];
} measured;

typedef void (*array_function)(const float *x, float *y, int count);

static double ulps_between(float found, double exact)
{
    int exponent = exact == 0 ? -126 : ilogb(exact);
    return fabs((double)found - exact) / ldexp(1, (exponent < -126 ? -126 : exponent) - 23);
}

static void measure_chunk(measured *m, const float *x)
{
    static float y[CHUNK];
    static double exact[CHUNK];
    for (int i = 0; i < CHUNK; i++)
        exact[i] = m->exact((double)x[i]);
    for (int isa = 0; isa < vec_isas; isa++) {
        array_function f = *(const array_function *)(const void *)((const char *)vec_isa[isa] + m->member);
        f(x, y, CHUNK);
        for (int i = 0; i < CHUNK; i++) {
            double ulps = ulps_between(y[i], exact[i]);
            if (!(ulps <= m->ulps[isa])) {
                m->ulps[isa] = ulps;
                m->at[isa] = x[i];
            }
        }
    }
}

static int wanted_stride(void)
{
    const char *text = getenv("VEC_TEST_STRIDE");
    return text ? atoi(text) : 0;
}

/* Every stride-th f32 from `from` to `to`, which have one sign, in the order of their bits. */
static void measure(measured *m, float from, float to)
{
    static float x[CHUNK];
    uint64_t bits = fa_as_uint(from), last = fa_as_uint(to);
    uint64_t stride = wanted_stride() > 0 ? (uint64_t)wanted_stride() : STRIDE;
    while (bits <= last) {
        for (int i = 0; i < CHUNK; i++, bits += stride)
            x[i] = fa_as_float((uint32_t)(bits < last ? bits : last));
        measure_chunk(m, x);
    }
}

static void judge(const measured *m, double bound)
{
    for (int isa = 0; isa < vec_isas; isa++) {
        if (wanted_stride() > 0)
            printf("%s, %s: %.4f ulp at %a\n", m->name, vec_isa_name[isa], m->ulps[isa], (double)m->at[isa]);
        if (!(m->ulps[isa] <= bound))
            ck_abort_msg("%s, %s: %.4f ulp at %a, at most %g documented", m->name, vec_isa_name[isa],
                         m->ulps[isa], (double)m->at[isa], bound);
    }
}

START_TEST(exp2_is_accurate)
{
    measured m = {.name = "exp2", .exact = exp2, .member = offsetof(vec_ops, exp2)};
    measure(&m, -0.0f, nextafterf(-126.5f, 0));
    measure(&m, 0.0f, 127.0f);
    judge(&m, EXP2_ULPS);
}
END_TEST

START_TEST(tanh_is_accurate)
{
    measured m = {.name = "tanh", .exact = tanh, .member = offsetof(vec_ops, tanh)};
    measure(&m, 0.0f, INFINITY);
    measure(&m, -0.0f, -INFINITY);
    judge(&m, TANH_ULPS);
}
END_TEST

/* f(x), having every lane compute it. */
static float call(array_function f, float x)
{
    float in[MAX_LANES], out[MAX_LANES];
    for (int i = 0; i < MAX_LANES; i++)
        in[i] = x;
    f(in, out, MAX_LANES);
    for (int i = 1; i < MAX_LANES; i++) {
        if (fa_as_uint(out[i]) != fa_as_uint(out[0]))
            ck_abort_msg("%a: lane %d gives %a, lane 0 %a", (double)x, i, (double)out[i], (double)out[0]);
    }
    return out[0];
}

START_TEST(exp2_of_whole_numbers_is_exact)
{
    for (int n = -126; n <= 127; n++)
        ck_assert_float_eq(call(vec_isa[_i]->exp2, (float)n), ldexpf(1, n));
    ck_assert_float_eq(call(vec_isa[_i]->exp2, -0.0f), 1.0f);
}
END_TEST

/* Also beyond where the exponent would leave its field. */
START_TEST(exp2_is_0_far_below)
{
    const float below[] = {-126.5f, -127, -127.5f, -149,   -150,     -255,
                           -256,    -384, -1e4f,   -1e10f, -FLT_MAX, -INFINITY};
    for (int i = 0; i < COUNT(below); i++) {
        float y = call(vec_isa[_i]->exp2, below[i]);
        ck_assert_msg(fa_as_uint(y) == 0, "2^%a is %a, expected 0", (double)below[i], (double)y);
    }
}
END_TEST

START_TEST(tanh_has_its_limits)
{
    ck_assert_float_eq(call(vec_isa[_i]->tanh, INFINITY), 1.0f);
    ck_assert_float_eq(call(vec_isa[_i]->tanh, -INFINITY), -1.0f);
    ck_assert_float_eq(call(vec_isa[_i]->tanh, FLT_MAX), 1.0f);
    ck_assert_float_eq(call(vec_isa[_i]->tanh, 0.0f), 0.0f);
    random_state random = {1};
    for (int n = 0; n < 10000; n++) {
        float x = random_float(&random, 0, n % 2 ? 1 : 12), y = call(vec_isa[_i]->tanh, x);
        if (call(vec_isa[_i]->tanh, -x) != -y || y > 1)
            ck_abort_msg("tanh is not odd or exceeds 1 at %a", (double)x);
    }
}
END_TEST

START_TEST(nan_stays_nan)
{
    const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fffffff};
    for (int i = 0; i < COUNT(nans); i++) {
        ck_assert(isnan(call(vec_isa[_i]->exp2, fa_as_float(nans[i]))));
        ck_assert(isnan(call(vec_isa[_i]->tanh, fa_as_float(nans[i]))));
    }
}
END_TEST

START_TEST(exponents_are_taken_from_the_lowest_bits)
{
    for (uint32_t bits = 0; bits < 1 << 9; bits++) {
        float y = call(vec_isa[_i]->exponent, fa_as_float(0x4b400000 + bits));
        ck_assert_uint_eq(fa_as_uint(y), bits << 23);
    }
}
END_TEST

void add_math_tests(Suite *suite)
{
    TCase *sweeps = tcase_create("every argument");
    tcase_set_timeout(sweeps, wanted_stride() > 0 ? 7200 : 240);
    tcase_add_test(sweeps, exp2_is_accurate);
    tcase_add_test(sweeps, tanh_is_accurate);
    suite_add_tcase(suite, sweeps);

    TCase *tc = tcase_create("mathematics");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, exp2_of_whole_numbers_is_exact, 0, vec_isas);
    tcase_add_loop_test(tc, exp2_is_0_far_below, 0, vec_isas);
    tcase_add_loop_test(tc, tanh_has_its_limits, 0, vec_isas);
    tcase_add_loop_test(tc, nan_stays_nan, 0, vec_isas);
    tcase_add_loop_test(tc, exponents_are_taken_from_the_lowest_bits, 0, vec_isas);
    suite_add_tcase(suite, tc);
}
