/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/reference.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/portable/lang.h"
#include "helpers.h"
#include "suites.h"

/* What a binary format's bits mean, by IEEE 754's own formula; NaN for its NaNs. */
static double meaning(uint16_t bits, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
    int exponent = bits >> mantissa_bits & top, mantissa = bits & ((1 << mantissa_bits) - 1);
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == top)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

typedef struct format {
    int exponent_bits, mantissa_bits;
    float (*load)(uint16_t);
    uint16_t (*store)(float);
} format;

static const format formats[] = {{5, 10, fa_f16_to_f32, fa_f32_to_f16},
                                 {8, 7, fa_bf16_to_f32, fa_f32_to_bf16}};

START_TEST(every_half_means_what_it_says)
{
    const format *f = &formats[_i];
    for (uint32_t bits = 0; bits <= 0xffff; bits++) {
        float value = f->load((uint16_t)bits);
        double expected = meaning((uint16_t)bits, f->exponent_bits, f->mantissa_bits);
        bool good = isnan(expected) ? isnan(value) : (double)value == expected;
        good = good && (isnan(expected) || !signbit(value) == !(bits >> 15));
        if (!good)
            ck_abort_msg("0x%04x is %g, expected %g", bits, (double)value, expected);
        uint16_t back = f->store(value);
        if (isnan(expected) ? !isnan(f->load(back)) : back != bits)
            ck_abort_msg("0x%04x comes back as 0x%04x", bits, back);
    }
}
END_TEST

/* The nearest of the format's values, ties to the even one, by looking at the two neighbours. */
static uint16_t nearest(const format *f, float value)
{
    uint16_t sign = signbit(value) ? 0x8000 : 0,
             infinity = (uint16_t)(((1 << f->exponent_bits) - 1) << f->mantissa_bits);
    double magnitude = fabs((double)value);
    uint16_t low = 0, high = infinity; /* magnitudes are ordered as their bits are */
    while (high - low > 1) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (meaning(middle, f->exponent_bits, f->mantissa_bits) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    /* Infinity stands where the next value would be: overflow rounds like everything else. */
    double above = high == infinity ? ldexp(1, 1 << (f->exponent_bits - 1))
                                    : meaning(high, f->exponent_bits, f->mantissa_bits);
    double down = magnitude - meaning(low, f->exponent_bits, f->mantissa_bits), up = above - magnitude;
    bool take_high = up < down || (up == down && (low & 1));
    return sign | (take_high ? high : low);
}

static void check_store(const format *f, float value)
{
    if (f->store(value) != nearest(f, value))
        ck_abort_msg("%a becomes 0x%04x, expected 0x%04x", (double)value, f->store(value), nearest(f, value));
}

/* Each half, the midpoint to the next, and the floats around both. */
START_TEST(every_half_is_rounded_to)
{
    const format *f = &formats[_i];
    uint32_t infinity = ((1u << f->exponent_bits) - 1) << f->mantissa_bits;
    for (uint32_t bits = 0; bits < infinity; bits++) {
        float here = f->load((uint16_t)bits);
        double next = bits + 1 == infinity ? ldexp(1, 1 << (f->exponent_bits - 1))
                                           : (double)f->load((uint16_t)(bits + 1));
        float middle = (float)(((double)here + next) / 2); /* exact: one more bit than the format has */
        for (int sign = -1; sign <= 1; sign += 2) {
            float s = (float)sign;
            check_store(f, s * here);
            check_store(f, s * nextafterf(here, INFINITY));
            check_store(f, s * middle);
            check_store(f, s * nextafterf(middle, 0));
            check_store(f, s * nextafterf(middle, INFINITY));
        }
    }
}
END_TEST

START_TEST(random_floats_are_rounded)
{
    random_state random = {1};
    for (int n = 0; n < 200000; n++) {
        float value = fa_as_float((uint32_t)random_bits(&random));
        for (int i = 0; i < COUNT(formats) && isfinite(value); i++)
            check_store(&formats[i], value);
    }
    for (int i = 0; i < COUNT(formats); i++) {
        uint16_t infinity = (uint16_t)(((1 << formats[i].exponent_bits) - 1) << formats[i].mantissa_bits);
        ck_assert_uint_eq(formats[i].store(INFINITY), infinity);
        ck_assert_uint_eq(formats[i].store(-INFINITY), infinity | 0x8000);
        /* NaN stays NaN even where its payload lies in the bits that are dropped. */
        ck_assert(isnan(formats[i].load(formats[i].store(fa_as_float(0x7f800001u)))));
        ck_assert(isnan(formats[i].load(formats[i].store(fa_as_float(0xffffffffu)))));
    }
    ck_assert_uint_eq(fa_as_uint(fa_f16_to_f32(0x8000)), 0x80000000u);
}
END_TEST

static void reference(const fa_attention_desc *d, const fa_inputs *in, double *o, double *lse)
{
    fa_status status = fa_reference_attention(context, d, in, o, lse);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
}

static void assert_near(double found, double expected)
{
    bool good = isinf(expected) ? found == expected : fabs(found - expected) <= 1e-12 * (1 + fabs(expected));
    ck_assert_msg(good, "%.17g, expected %.17g", found, expected);
}

/* Scores are ln 1, ln 2, ln 3 where q is 1: weights 1/6, 2/6, 3/6. The logarithms are f32, so results are near. */
static const float keys[3] = {0, 0.69314718f, 1.0986123f}, values[3] = {6, 12, 60};

static fa_attention_desc small(int64_t rows)
{
    fa_attention_desc d = make_desc(1, 1, 1, rows, 3, 1);
    d.scale = 1;
    return d;
}

static void assert_close(double found, double expected)
{
    ck_assert_msg(fabs(found - expected) < 1e-5, "%.9g, expected %.9g", found, expected);
}

START_TEST(by_hand)
{
    const float q[3] = {1, 1, 1};
    fa_inputs in = {.q = q, .k = keys, .v = values};
    double o[3], lse[3];
    fa_attention_desc d = small(1);
    reference(&d, &in, o, lse);
    assert_close(o[0], (6 + 24 + 180) / 6.0);
    assert_close(lse[0], log(6));
    reference(&d, &in, o, NULL);
    assert_close(o[0], 35);

    d = small(3);
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    reference(&d, &in, o, lse);
    assert_close(o[0], 6);
    assert_close(o[1], (6 + 24) / 3.0);
    assert_close(o[2], 35);
    assert_close(lse[1], log(3));

    d.window_left = 1; /* the diagonal alone */
    reference(&d, &in, o, lse);
    for (int i = 0; i < 3; i++) {
        assert_near(o[i], (double)values[i]);
        assert_near(lse[i], (double)keys[i]);
    }

    d.diagonal_offset = -1; /* row 0 sees nothing */
    reference(&d, &in, o, lse);
    ck_assert(o[0] == 0 && lse[0] == -INFINITY);
    assert_near(o[1], 6);
    d.prefix = 1;
    reference(&d, &in, o, lse);
    assert_near(o[0], 6);
    assert_close(o[2], (6 + 24) / 3.0);
}
END_TEST

START_TEST(by_hand_extras)
{
    const float q[1] = {1};
    fa_inputs in = {.q = q, .k = keys, .v = values};
    double o[1], lse[1];
    fa_attention_desc d = small(1);
    /* A sink of ln 6 takes half of the weight. */
    const float sink[1] = {1.7917595f};
    d.sinks = sink;
    reference(&d, &in, o, lse);
    assert_close(o[0], 17.5);
    assert_close(lse[0], log(12));
    /* A sink alone: the row sees nothing else. */
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    d.diagonal_offset = -1;
    reference(&d, &in, o, lse);
    ck_assert(o[0] == 0);
    assert_near(lse[0], (double)sink[0]);

    /* A bias of -ln 3 on the last key: weights 1, 2, 1. One of -inf takes it out. */
    d = small(1);
    float bias[3] = {0, 0, -1.0986123f};
    d.bias = fa_tensor_make(FA_F32, 1, 1, 1, 3);
    in.bias = bias;
    reference(&d, &in, o, lse);
    assert_close(o[0], (6 + 24 + 60) / 4.0);
    bias[2] = -INFINITY;
    reference(&d, &in, o, lse);
    assert_close(o[0], 10);

    /* keep: the middle key goes; what lies in it does not matter. */
    d = small(1);
    const uint8_t keep[3] = {1, 0, 200};
    const float nan_value[3] = {6, NAN, 60};
    d.keep = fa_tensor_make(FA_BOOL, 1, 1, 1, 3);
    in = (fa_inputs){.q = q, .k = keys, .v = nan_value, .keep = keep};
    reference(&d, &in, o, lse);
    assert_close(o[0], (6 + 180) / 4.0);
    assert_close(lse[0], log(4));

    /* ALiBi: the row stands at the last key, so the keys lie 2, 1, 0 away; slope ln 2: weights 1/4, 2/2, 3. */
    d = small(1);
    const float slope[1] = {0.69314718f};
    d.alibi_slopes = slope;
    in = (fa_inputs){.q = q, .k = keys, .v = values};
    reference(&d, &in, o, lse);
    assert_close(o[0], (0.25 * 6 + 12 + 180) / 4.25);

    /* Softcap: before the bias, after the scale. */
    d = small(1);
    d.scale = 2;
    d.softcap = 0.5f;
    reference(&d, &in, o, lse);
    double w[3], sum = 0, total = 0;
    for (int i = 0; i < 3; i++) {
        w[i] = exp(0.5 * tanh(2 * (double)keys[i] / 0.5));
        sum += w[i];
        total += w[i] * (double)values[i];
    }
    assert_near(o[0], total / sum);
    assert_near(lse[0], log(sum));
}
END_TEST

/* Large scores, infinite and NaN inputs: in their own row, and only where they are seen. */
START_TEST(extreme_inputs)
{
    float q[3] = {1, 1, 1}, k[3] = {-3e38f, 3e38f, 3e38f}, v[3] = {1, 2, 4};
    fa_inputs in = {.q = q, .k = k, .v = v};
    double o[3], lse[3];
    fa_attention_desc d = small(3);
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    reference(&d, &in, o, lse);
    assert_near(o[0], 1);
    assert_near(o[1], 2);
    assert_near(o[2], 3);
    v[2] = NAN;
    reference(&d, &in, o, lse);
    assert_near(o[1], 2);
    ck_assert(isnan(o[2]));
    v[2] = 4;
    q[1] = NAN;
    reference(&d, &in, o, lse);
    assert_near(o[0], 1);
    ck_assert(isnan(o[1]));
    assert_near(o[2], 3);
}
END_TEST

/* GQA and layouts: query heads 0, 1 read KV head 0, heads 2, 3 read head 1; q is (batch, row, head, dim). */
START_TEST(heads_and_strides)
{
    enum { HEADS = 4, ROWS = 2 };
    fa_attention_desc d = make_desc(1, HEADS, 2, ROWS, 1, 1);
    d.q.stride[0] = ROWS * HEADS;
    d.q.stride[1] = 1;
    d.q.stride[2] = HEADS;
    d.q.stride[3] = 1;
    d.scale = 1;
    const float q[ROWS * HEADS] = {1, 2, 3, 4, 5, 6, 7, 8}, k[2] = {1, 10}, v[2] = {-1, -2};
    const fa_inputs in = {.q = q, .k = k, .v = v};
    double o[HEADS * ROWS], lse[HEADS * ROWS];
    reference(&d, &in, o, lse);
    for (int head = 0; head < HEADS; head++) {
        for (int row = 0; row < ROWS; row++) {
            assert_near(o[head * ROWS + row], (double)v[head / 2]);
            assert_near(lse[head * ROWS + row], (double)(q[row * HEADS + head] * k[head / 2]));
        }
    }
}
END_TEST

START_TEST(rows_of_no_sequence_are_left_alone)
{
    const int64_t cu[] = {1, 2};
    fa_attention_desc d = small(3);
    d.cu_rows_q = cu;
    d.sequences = 1;
    const float q[3] = {1, 1, 1};
    const fa_inputs in = {.q = q, .k = keys, .v = values};
    double o[3] = {7, 7, 7}, lse[3] = {7, 7, 7};
    reference(&d, &in, o, lse);
    ck_assert(o[0] == 7 && o[2] == 7 && lse[0] == 7 && lse[2] == 7);
    assert_close(o[1], 35);
}
END_TEST

/* The baseline is near the reference in f32, in every order, and rounds what it is told to round. */
START_TEST(naive_follows_the_reference)
{
    enum { HEADS = 2, LENGTH = 37, DIM = 19, SIZE = HEADS * LENGTH * DIM };
    static float q[SIZE], k[SIZE], v[SIZE], o[SIZE], lse[HEADS * LENGTH];
    static double expected[SIZE], expected_lse[HEADS * LENGTH];
    random_state random = {5};
    for (int i = 0; i < SIZE; i++) {
        q[i] = random_float(&random, -2, 2);
        k[i] = random_float(&random, -2, 2);
        v[i] = random_float(&random, -1, 1);
    }
    const fa_inputs in = {.q = q, .k = k, .v = v};
    fa_attention_desc d = make_desc(1, HEADS, HEADS, LENGTH, LENGTH, DIM);
    d.mask = FA_MASK_CAUSAL_TOP_LEFT;
    reference(&d, &in, expected, expected_lse);
    static const fa_dtype weights[] = {FA_F32, FA_F16, FA_BF16};
    static const double bound[] = {2e-6, 1e-3, 8e-3}; /* the weights' rounding, where it is not f32's */
    for (int n = 0; n < FA_NAIVE_ORDERS * 3; n++) {
        ck_assert_int_eq(
            fa_naive_attention(context, &d, &in, (fa_naive_order)(n / 3), weights[n % 3], o, lse), FA_OK);
        double worst = 0;
        for (int i = 0; i < SIZE; i++)
            worst = fmax(worst, fabs((double)o[i] - expected[i]));
        ck_assert_msg(worst > 0 && worst <= bound[n % 3], "order %d, weights %s: error %g", n / 3,
                      fa_dtype_name(weights[n % 3]), worst);
        for (int i = 0; i < HEADS * LENGTH; i++)
            ck_assert(fabs((double)lse[i] - expected_lse[i]) <= 1e-5);
    }
    d.o.dtype = FA_BF16;
    ck_assert_int_eq(fa_naive_attention(context, &d, &in, FA_ORDER_FORWARD, FA_F32, o, NULL), FA_OK);
    for (int i = 0; i < SIZE; i++)
        ck_assert_uint_eq(fa_as_uint(o[i]) & 0xffff, 0);
}
END_TEST

START_TEST(refused_by_name)
{
    const float q[3] = {1, 1, 1};
    fa_attention_desc d = small(1);
    fa_inputs in = {.q = q, .k = keys, .v = values}, missing;
    double o[3];
    float naive[3];
    ck_assert_int_eq(fa_reference_attention(NULL, &d, &in, o, NULL), FA_INVALID);
    assert_message("context is NULL");
    ck_assert_int_eq(fa_reference_attention(context, NULL, &in, o, NULL), FA_INVALID);
    assert_message("desc is NULL");
    ck_assert_int_eq(fa_reference_attention(context, &d, NULL, o, NULL), FA_INVALID);
    assert_message("inputs is NULL");
    ck_assert_int_eq(fa_reference_attention(context, &d, &in, NULL, NULL), FA_INVALID);
    assert_message("o is NULL");
    missing = in;
    missing.k = NULL;
    ck_assert_int_eq(fa_reference_attention(context, &d, &missing, o, NULL), FA_INVALID);
    assert_message("inputs.k is NULL, expected 12 bytes");
    d.bias = fa_tensor_make(FA_F32, 1, 1, 1, 3);
    ck_assert_int_eq(fa_reference_attention(context, &d, &in, o, NULL), FA_INVALID);
    assert_message("inputs.bias is NULL");
    d = small(1);
    ck_assert_int_eq(fa_naive_attention(context, &d, &in, (fa_naive_order)3, FA_F32, naive, NULL),
                     FA_INVALID);
    assert_message("order is 3, expected 0 to 2");
    ck_assert_int_eq(fa_naive_attention(context, &d, &in, FA_ORDER_FORWARD, FA_BOOL, naive, NULL),
                     FA_INVALID);
    assert_message("weights is bool, expected f32, f16 or bf16");
    d.q.shape[1] = -1;
    ck_assert_int_eq(fa_naive_attention(context, &d, &in, FA_ORDER_FORWARD, FA_F32, naive, NULL), FA_INVALID);
    assert_message("q.shape[1] is -1");
}
END_TEST

Suite *reference_suite(void)
{
    Suite *suite = suite_create("reference");
    TCase *half = tcase_create("half");
    tcase_set_timeout(half, 120);
    tcase_add_loop_test(half, every_half_means_what_it_says, 0, 2);
    tcase_add_loop_test(half, every_half_is_rounded_to, 0, 2);
    tcase_add_test(half, random_floats_are_rounded);
    suite_add_tcase(suite, half);
    TCase *tc = add_context_case(suite, "attention");
    tcase_add_test(tc, by_hand);
    tcase_add_test(tc, by_hand_extras);
    tcase_add_test(tc, extreme_inputs);
    tcase_add_test(tc, heads_and_strides);
    tcase_add_test(tc, rows_of_no_sequence_are_left_alone);
    tcase_add_test(tc, naive_follows_the_reference);
    tcase_add_test(tc, refused_by_name);
    return suite;
}
