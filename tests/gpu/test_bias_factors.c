/* SPDX-License-Identifier: Apache-2.0 */
/* Factors of biases: their products against the bias, and attention with them in q and k against the oracle with a bias. */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { MOST = 90, DIM = 16, MOST_RANK = 90 };

static int64_t rows, keys, rank;
static float q[MOST * DIM], k[MOST * DIM], v[MOST * DIM], bias[MOST * MOST];
static float q_factors[MOST * MOST_RANK], k_factors[MOST * MOST_RANK];
static float long_q[MOST * (DIM + MOST_RANK)], long_k[MOST * (DIM + MOST_RANK)], o[MOST * DIM];
static double exact[MOST * DIM];

static void draw(float *x, int64_t count, random_state *random, float most)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = random_float(random, -most, most);
}

/* A product of factors, and the sum of its terms' sizes. */
static double product(int64_t i, int64_t j, double *size)
{
    double sum = 0;
    *size = 0;
    for (int64_t r = 0; r < rank; r++) {
        const double term = (double)q_factors[i * rank + r] * (double)k_factors[j * rank + r];
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

/* Each factor was rounded once: a term is wrong by 2^-23 of itself. Returns the largest sum of sizes. */
static double expect_products(double slack)
{
    double most = 0, size;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < keys; j++) {
            const double found = product(i, j, &size), expected = (double)bias[i * keys + j];
            ck_assert_msg(fabs(found - expected) <= size * 0x1p-23 + fabs(expected) * 0x1p-24 + slack,
                          "bias %lld %lld is %g, expected %g", (long long)i, (long long)j, found, expected);
            most = fmax(most, size);
        }
    }
    return most;
}

/* Attention with factors as dims, and with the bias. `size` of the terms bounds what f32 may lose of a score. */
static void expect_attention(fa_mask_kind mask, double size, random_state *random)
{
    const int64_t dims = DIM + rank;
    const double lost = size * ((double)dims + 3) * 0x1p-24;
    fa_attention_desc plain = make_desc(1, 1, 1, rows, keys, DIM), d = make_desc(1, 1, 1, rows, keys, dims);
    draw(q, rows * DIM, random, 1);
    draw(k, keys * DIM, random, 1);
    draw(v, keys * DIM, random, 1);
    plain.mask = d.mask = mask;
    plain.bias = fa_tensor_make(FA_F32, 1, 1, rows, keys);
    ck_assert_int_eq(fa_reference_attention(context, &plain,
                                            &(fa_inputs){.q = q, .k = k, .v = v, .bias = bias}, exact, NULL),
                     FA_OK);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t n = 0; n < DIM; n++)
            long_q[i * dims + n] = 0.25F * q[i * DIM + n]; /* 1 / sqrt(DIM) */
        memcpy(long_q + i * dims + DIM, q_factors + i * rank, (size_t)rank * sizeof(float));
    }
    for (int64_t j = 0; j < keys; j++) {
        memcpy(long_k + j * dims, k + j * DIM, DIM * sizeof(float));
        memcpy(long_k + j * dims + DIM, k_factors + j * rank, (size_t)rank * sizeof(float));
    }
    d.scale = 1;
    d.v = fa_tensor_make(FA_F32, 1, 1, keys, DIM);
    d.o = fa_tensor_make(FA_F32, 1, 1, rows, DIM);
    const fa_status status = fa_attention_host(device, &d, long_q, long_k, v, NULL, NULL, o, NULL);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    for (int64_t i = 0; i < rows * DIM; i++)
        ck_assert_msg(fabs((double)o[i] - exact[i]) <= 4e-6 + 2 * lost, "o[%lld] is %g, expected %g",
                      (long long)i, (double)o[i], exact[i]);
}

START_TEST(alibi)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 8; n++) {
        const double slope = (double)random_float(&random, -0.3F, 0.3F);
        rows = random_between(&random, 1, MOST);
        keys = random_between(&random, 1, MOST);
        rank = FA_BIAS_ALIBI_RANK;
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < keys; j++)
                bias[i * keys + j] = (float)(slope * (double)(j - (i + keys - rows)));
        }
        ck_assert_int_eq(fa_bias_alibi(rows, keys, slope, q_factors, k_factors), FA_OK);
        expect_attention(FA_MASK_CAUSAL_BOTTOM_RIGHT, expect_products(0), &random);
    }
}
END_TEST

START_TEST(distance)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 8; n++) {
        static float from[MOST * 5], to[MOST * 5];
        double weights[5];
        const int64_t dims = random_between(&random, 1, 5);
        const bool weighted = random_between(&random, 0, 1);
        rows = random_between(&random, 1, MOST);
        keys = random_between(&random, 1, MOST);
        rank = dims + 2;
        draw(from, rows * dims, &random, 2);
        draw(to, keys * dims, &random, 2);
        for (int64_t d = 0; d < dims; d++)
            weights[d] = (double)random_float(&random, -1, 1);
        for (int64_t i = 0; i < rows * keys; i++) {
            double sum = 0;
            for (int64_t d = 0; d < dims; d++)
                sum += (weighted ? weights[d] : 1) *
                       pow((double)from[i / keys * dims + d] - (double)to[i % keys * dims + d], 2);
            bias[i] = (float)sum;
        }
        ck_assert_int_eq(
            fa_bias_distance(dims, rows, from, keys, to, weighted ? weights : NULL, q_factors, k_factors),
            FA_OK);
        expect_attention(FA_MASK_NONE, expect_products(0), &random);
    }
}
END_TEST

/* The largest singular value of what factors leave of the bias, from below. */
static double largest_left(void)
{
    double x[MOST], y[MOST], norm = 0, size;
    for (int64_t j = 0; j < keys; j++)
        x[j] = 1 + (double)(j % 7) / 10;
    for (int step = 0; step < 30; step++) {
        double length = 0;
        norm = 0;
        for (int64_t j = 0; j < keys; j++)
            length += x[j] * x[j];
        for (int64_t i = 0; i < rows; i++) {
            y[i] = 0;
            for (int64_t j = 0; j < keys; j++)
                y[i] += ((double)bias[i * keys + j] - product(i, j, &size)) * x[j] / sqrt(length);
            norm += y[i] * y[i];
        }
        for (int64_t j = 0; j < keys; j++) {
            x[j] = 0;
            for (int64_t i = 0; i < rows; i++)
                x[j] += ((double)bias[i * keys + j] - product(i, j, &size)) * y[i];
        }
    }
    return sqrt(norm);
}

/* The singular value that belongs to factor r, if both factors are orthogonal to all others. */
static double kept_value(int64_t r)
{
    double qq = 0, kk = 0;
    for (int64_t i = 0; i < rows; i++)
        qq += (double)q_factors[i * rank + r] * (double)q_factors[i * rank + r];
    for (int64_t j = 0; j < keys; j++)
        kk += (double)k_factors[j * rank + r] * (double)k_factors[j * rank + r];
    ck_assert(fabs(qq - kk) <= 1e-5 * (qq + kk));
    for (int64_t n = 0; n < r; n++) {
        double q_dot = 0, k_dot = 0;
        for (int64_t i = 0; i < rows; i++)
            q_dot += (double)q_factors[i * rank + r] * (double)q_factors[i * rank + n];
        for (int64_t j = 0; j < keys; j++)
            k_dot += (double)k_factors[j * rank + r] * (double)k_factors[j * rank + n];
        ck_assert(fabs(q_dot) < 1e-4 && fabs(k_dot) < 1e-4);
    }
    return sqrt(qq * kk);
}

/* Orthogonal factors whose least value is not below what is left are the best of their rank (Eckart and Young). */
START_TEST(factorized)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 5; n++) {
        double error, left = 0, least = INFINITY, size;
        rows = random_between(&random, 1, 40);
        keys = random_between(&random, 1, 40);
        rank = random_between(&random, 1, rows < keys ? rows : keys);
        draw(bias, rows * keys, &random, 1);
        ck_assert_int_eq(fa_bias_factorize(context, rows, keys, bias, rank, q_factors, k_factors, &error),
                         FA_OK);
        for (int64_t i = 0; i < rows * keys; i++)
            left += pow((double)bias[i] - product(i / keys, i % keys, &size), 2);
        ck_assert_msg(fabs(sqrt(left) - error) <= 1e-5 * (1 + error), "error is %g, found %g", error,
                      sqrt(left));
        for (int64_t r = 0; r < rank; r++) {
            const double value = kept_value(r);
            ck_assert(value <= least * (1 + 1e-6));
            least = value;
        }
        ck_assert(largest_left() <= least * (1 + 1e-5) + 1e-5);
        if (rank == (rows < keys ? rows : keys)) {
            ck_assert(error == 0);
            expect_attention(FA_MASK_NONE, expect_products(1e-12), &random);
        }
    }
}
END_TEST

/* A table of low rank, and zeros. */
START_TEST(low_rank)
{
    random_state random = {3};
    double error;
    rows = 50;
    keys = 70;
    rank = 4;
    draw(q_factors, rows * rank, &random, 1);
    draw(k_factors, keys * rank, &random, 1);
    for (int64_t i = 0; i < rows * keys; i++) {
        double size;
        bias[i] = (float)product(i / keys, i % keys, &size);
    }
    ck_assert_int_eq(fa_bias_factorize(context, rows, keys, bias, rank, q_factors, k_factors, &error), FA_OK);
    ck_assert(error < 1e-5 && error > 0); /* bias was rounded */
    if (device)
        expect_attention(FA_MASK_NONE, expect_products(error), &random);
    memset(bias, 0, sizeof(bias));
    ck_assert_int_eq(fa_bias_factorize(context, rows, keys, bias, rank, q_factors, k_factors, NULL), FA_OK);
    (void)expect_products(0);
}
END_TEST

#define REFUSED(call, part)                 \
    do {                                    \
        ck_assert_int_eq(call, FA_INVALID); \
        assert_message(part);               \
    } while (0)

START_TEST(refused)
{
    float x[16] = {0}, q_to[16] = {7}, k_to[16] = {7};
    double weight = (double)INFINITY;
    REFUSED(fa_bias_alibi(0, 2, 1, q_to, k_to), "rows is 0");
    REFUSED(fa_bias_alibi(2, 0, 1, q_to, k_to), "keys is 0");
    REFUSED(fa_bias_alibi(2, 2, (double)NAN, q_to, k_to), "slope is nan");
    REFUSED(fa_bias_alibi(2, 2, 1, NULL, k_to), "q_factors is NULL");
    REFUSED(fa_bias_alibi(2, 2, 1, q_to, NULL), "k_factors is NULL");
    REFUSED(fa_bias_distance(0, 2, x, 2, x, NULL, q_to, k_to), "dims is 0");
    REFUSED(fa_bias_distance(1, 2, NULL, 2, x, NULL, q_to, k_to), "from is NULL");
    REFUSED(fa_bias_distance(1, 2, x, 2, NULL, NULL, q_to, k_to), "to is NULL");
    REFUSED(fa_bias_distance(1, 2, x, 2, x, &weight, q_to, k_to), "weights[0] is inf");
    REFUSED(fa_bias_factorize(NULL, 2, 2, x, 1, q_to, k_to, NULL), "context is NULL");
    REFUSED(fa_bias_factorize(context, 2, 2, NULL, 1, q_to, k_to, NULL), "bias is NULL");
    REFUSED(fa_bias_factorize(context, 2, 2, x, 3, q_to, k_to, NULL), "rank is 3, expected 1 to 2");
    for (int n = 0; n < 4; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_bias_factorize(context, 2, 2, x, 1, q_to, k_to, NULL), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
    x[3] = INFINITY;
    REFUSED(fa_bias_factorize(context, 2, 2, x, 1, q_to, k_to, NULL), "bias[1][1] is inf");
    ck_assert(q_to[0] == 7 && k_to[0] == 7);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("bias_factors");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, alibi, 0, 2);
    tcase_add_loop_test(tc, distance, 0, 2);
    tcase_add_loop_test(tc, factorized, 0, 3);
    tcase_add_test(tc, low_rank);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
