/* SPDX-License-Identifier: Apache-2.0 */
/* Caches whose scales are tensors of their own. */
#include <math.h>
#include <string.h>

#include <fastattn/reference.h>

#include "core/platform.h"
#include "core/portable/encode.h"
#include "suites.h"
#include "test_problem.h"

static const fa_dtype codes[] = {FA_E4M3, FA_E5M2, FA_I8, FA_I4, FA_I2, FA_U8, FA_U4, FA_U2, FA_E2M1, FA_U1};

START_TEST(codes_by_hand)
{
    static const unsigned char byte[8] = {0x9c, 0x9c, 0x9c, 0x9c, 0x9c, 0x9c, 0x9c, 0x9c};
    static const struct {
        fa_dtype dtype;
        float element[4];
    } row[] = {
        {FA_I8, {-100, -100, -100, -100}}, {FA_U8, {156, 156, 156, 156}}, {FA_I4, {-4, -7, -4, -7}},
        {FA_U4, {12, 9, 12, 9}},           {FA_I2, {0, -1, 1, -2}},       {FA_U2, {0, 3, 1, 2}},
        {FA_E2M1, {-2, -0.5f, -2, -0.5f}},
    };
    for (int i = 0; i < COUNT(row); i++) {
        for (int e = 0; e < 8; e++)
            ck_assert_float_eq(fa_element(row[i].dtype, byte, e), row[i].element[e % 4]);
    }
    static const unsigned char powers[] = {0, 1, 127, 130, 254, 255};
    ck_assert_float_eq(fa_element(FA_E8M0, powers, 0), 0x1p-127f);
    ck_assert_float_eq(fa_element(FA_E8M0, powers, 1), 0x1p-126f);
    ck_assert_float_eq(fa_element(FA_E8M0, powers, 2), 1);
    ck_assert_float_eq(fa_element(FA_E8M0, powers, 3), 8);
    ck_assert_float_eq(fa_element(FA_E8M0, powers, 4), 0x1p127f);
    ck_assert(isnan(fa_element(FA_E8M0, powers, 5)));
}
END_TEST

/* A block of u2u1 has 16 codes of 2 bits, and then 16 of one; numbers are held within what each has. */
START_TEST(bits_by_hand)
{
    static const unsigned char block[6] = {0x9c, 0x9c, 0x9c, 0x9c, 0xa5, 0x0f};
    static const float pairs[] = {0, 3, 1, 2}, singles[] = {1, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0};
    unsigned char stored[6];
    float x[32];
    for (int e = 0; e < 32; e++) {
        x[e] = fa_element(FA_U2U1, block, e);
        ck_assert_float_eq(x[e], e < 16 ? pairs[e % 4] : singles[e - 16]);
        if (e < 16)
            ck_assert_float_eq(fa_element(FA_U1, block + 4, e), singles[e]);
        x[e] += e % 3 == 0 && x[e] > 0 && (e >= 16 || x[e] > 2) ? 5 : 0.3f;
    }
    fa_elements_store(FA_U2U1, stored, 0, x, 32);
    ck_assert_mem_eq(stored, block, sizeof(block));
    fa_elements_store(FA_U1, stored, 0, x + 16, 16);
    ck_assert_mem_eq(stored, block + 4, 2);
    ck_assert_int_eq(fa_dtype_block(FA_U1), 16);
    ck_assert_int_eq(fa_dtype_block(FA_U2U1), 32);
    ck_assert_uint_eq(fa_dtype_size(FA_U2U1), 6);
}
END_TEST

/* Every code's number has that code; in between, the nearest wins, ties to the even code. */
START_TEST(numbers_become_codes)
{
    static const fa_dtype dtypes[] = {FA_I8, FA_I4, FA_I2, FA_U8, FA_U4, FA_U2, FA_E2M1};
    for (int t = 0; t < COUNT(dtypes); t++) {
        const int bits = (int)fa_dtype_size(dtypes[t]);
        for (int code = 0; code < 1 << bits; code++) {
            unsigned char in[8] = {(unsigned char)code}, out[8] = {0};
            float x[8] = {fa_element(dtypes[t], in, 0)};
            fa_elements_store(dtypes[t], out, 0, x, 8);
            const float found = fa_element(dtypes[t], out, 0);
            ck_assert_float_eq(found, x[0]);
        }
    }
    static const struct {
        fa_dtype dtype;
        float x, stored;
    } row[] = {
        {FA_I8, 2.5f, 2},      {FA_I8, -3.5f, -4},      {FA_I8, 1e30f, 127},
        {FA_I8, -1e30f, -128}, {FA_U4, -1, 0},          {FA_U4, 15.7f, 15},
        {FA_I2, 0.5f, 0},      {FA_I2, -1.5f, -2},      {FA_U2, 2.5f, 2},
        {FA_E2M1, 5, 4},       {FA_E2M1, 5.1f, 6},      {FA_E2M1, 2.5f, 2},
        {FA_E2M1, 3.5f, 4},    {FA_E2M1, -0.25f, 0},    {FA_E2M1, -0.75f, -1},
        {FA_E2M1, 100, 6},     {FA_I4, NAN, 0},         {FA_E8M0, 1, 1},
        {FA_E8M0, 1.01f, 2},   {FA_E8M0, 0, 0x1p-127f}, {FA_E8M0, 3e38f, 0x1p127f},
    };
    for (int i = 0; i < COUNT(row); i++) {
        float x[8] = {0};
        unsigned char out[8] = {0};
        x[0] = row[i].x;
        fa_elements_store(row[i].dtype, out, 0, x, row[i].dtype == FA_E8M0 ? 1 : 8);
        ck_assert_msg(fa_element(row[i].dtype, out, 0) == row[i].stored, "%s of %g is %g, expected %g",
                      fa_dtype_name(row[i].dtype), (double)row[i].x, (double)fa_element(row[i].dtype, out, 0),
                      (double)row[i].stored);
    }
}
END_TEST

/* docs/numerics.md: half a step of the code at x. */
static double half_step(fa_dtype dtype, double x, double scale)
{
    const double n = fabs(x / scale);
    switch (dtype) {
    case FA_E4M3: return fmax(0x1p-4 * n, 0x1p-10) * scale;
    case FA_E5M2: return fmax(0x1p-3 * n, 0x1p-17) * scale;
    case FA_E2M1: return (n < 2 ? 0.25 : n < 4 ? 0.5 : 1) * scale;
    default: return 0.5 * scale;
    }
}

/* A group, its scale and its zero rounded to types of their own, and what comes back. */
static void check_group(fa_dtype dtype, fa_dtype scale_type, bool zeros, const float *x, int count,
                        double *worst)
{
    float scale, zero = 0, code[64];
    unsigned char rounded[4], bytes[64];
    fa_elements_fit(dtype, x, count, 1, &scale, zeros ? &zero : NULL);
    const double exact = (double)scale, exact_zero = (double)zero;
    fa_elements_store(scale_type, rounded, 0, &scale, 1);
    scale = fa_element(scale_type, rounded, 0);
    if (zeros) {
        fa_elements_store(FA_F16, rounded, 0, &zero, 1);
        zero = fa_element(FA_F16, rounded, 0);
    }
    for (int i = 0; i < count; i++)
        code[i] = (x[i] - zero) / scale;
    fa_elements_store(dtype, bytes, 0, code, count);
    double largest = 0;
    for (int i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)x[i]) + fabs(exact_zero));
    /* A scale that is rounded down leaves the ends of the range outside it. */
    const double moved =
        fmax(exact - (double)scale, 0) / exact * 2 * largest + fabs(exact_zero - (double)zero);
    for (int i = 0; i < count; i++) {
        const double found = (double)scale * (double)fa_element(dtype, bytes, i) + (double)zero;
        const double error = fabs(found - (double)x[i]);
        const double bound =
            half_step(dtype, (double)(x[i] - zero), (double)scale) + moved + 0x1p-20 * largest;
        ck_assert_msg(error <= bound, "%s with scales of %s: %g for %g, off by %g, bound %g",
                      fa_dtype_name(dtype), fa_dtype_name(scale_type), found, (double)x[i], error, bound);
        *worst = fmax(*worst, error / bound);
    }
}

START_TEST(bounds)
{
    static const fa_dtype scales[] = {FA_F32, FA_F16, FA_BF16, FA_E4M3, FA_E8M0};
    random_state random = {.state = 5};
    for (int i = 0; i < COUNT(codes) * COUNT(scales) * 2; i++) {
        const fa_dtype dtype = codes[i / 2 / COUNT(scales)];
        const bool is_unsigned = FA_TYPE_IS_UNSIGNED((int)dtype), zeros = i % 2 || is_unsigned;
        /* e4m3 has few powers of two: NVFP4 brings scales there by a number for the whole tensor. */
        const float size = scales[i / 2 % COUNT(scales)] == FA_E4M3 ? fa_greatest_number((int)dtype) / 3 : 1;
        double worst = 0;
        for (int n = 0; n < 20; n++) {
            float x[64];
            for (int e = 0; e < 64; e++)
                x[e] = size * random_float(&random, zeros ? -1 : -3, 3);
            check_group(dtype, scales[i / 2 % COUNT(scales)], zeros, x, 64, &worst);
        }
        if (scales[i / 2 % COUNT(scales)] == FA_F32) /* the bound is met: it is none of another format */
            ck_assert_double_gt(worst, 0.8);
    }
}
END_TEST

static fa_attention_desc scaled(fa_dtype dtype)
{
    fa_attention_desc d = base();
    d.k.dtype = d.v.dtype = dtype;
    d.k_scale = fa_tensor_make(FA_F16, 2, 2, 12, 2);
    d.v_scale = fa_tensor_make(FA_F32, 1, 1, 1, 1);
    d.k_zero = fa_tensor_make(FA_F16, 2, 2, 12, 2);
    return d;
}

START_TEST(descriptions)
{
    fa_attention_desc d = scaled(FA_U4);
    d.k_factor = 0.5f;
    d.k_scale = fa_tensor_make(FA_E4M3, 2, 1, 4, 16); /* elements of fp8 that are no blocks */
    d.k_zero = fa_tensor_make(FA_F32, 2, 1, 4, 16);
    fa_problem p = accept(&d);
    ck_assert_int_eq(p.k_scales.keys, 3);
    ck_assert_int_eq(p.k_scales.keys_shift, -1);
    ck_assert_int_eq(p.k_scales.dims, 1);
    ck_assert_int_eq(p.k_scales.dims_shift, 0);
    ck_assert_float_eq(p.k_scales.factor, 0.5f);
    ck_assert_int_eq(p.k_scales.scale_stride[1], 0);
    ck_assert_int_eq(p.v_scales.zero_type, -1);
    ck_assert_uint_eq(p.span[FA_K_SCALE], 2 * 4 * 16);
    ck_assert_uint_eq(p.features & FA_FEATURE_SCALES,
                      FA_FEATURE_K_SCALE | FA_FEATURE_V_SCALE | FA_FEATURE_K_ZERO);
    fa_problem_release(context, &p);
    size_t span;
    const fa_tensor three = fa_tensor_make(FA_E4M3, 1, 1, 1, 3);
    ck_assert_int_eq(fa_tensor_span(&three, &span), FA_OK);
    ck_assert_uint_eq(span, 3);
}
END_TEST

/* Bytes that a plan tells of count scales and zeros. */
START_TEST(bytes_of_a_plan)
{
    enum { KEYS = 64, DIM_ALL = 32 };
    fa_device *device;
    fa_plan *plan;
    fa_plan_info info = {.struct_size = sizeof(info)};
    fa_attention_desc d = {
        .struct_size = sizeof(d),
        .q = fa_tensor_make(FA_F32, 2, 4, 1, DIM_ALL),
        .k = fa_tensor_make(FA_I8, 2, 2, KEYS, DIM_ALL),
        .v = fa_tensor_make(FA_U4, 2, 2, KEYS, DIM_ALL),
        .o = fa_tensor_make(FA_F32, 2, 4, 1, DIM_ALL),
        .k_scale = fa_tensor_make(FA_F32, 1, 2, 1, 1),
        .v_scale = fa_tensor_make(FA_F16, 2, 2, KEYS, 2),
        .v_zero = fa_tensor_make(FA_F16, 2, 2, KEYS, 2),
    };
    const double keys = 2 * 2 * KEYS, rows = 2 * 2 * 4 * DIM_ALL * 4;
    ck_assert_int_eq(fa_device_open(context, "openmp", NULL, &device), FA_OK);
    ck_assert_int_eq(fa_plan_create(device, &d, &plan), FA_OK);
    ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
    ck_assert_double_eq_tol(info.bytes_compulsory, rows + keys * DIM_ALL * 1.5 + 2 * 4 + keys * 2 * (2 + 2),
                            0.5);
    ck_assert(info.bytes_moved >= info.bytes_compulsory - 2 * 4);
    fa_plan_destroy(plan);
    fa_device_close(device);
}
END_TEST

START_TEST(refusals)
{
    fa_attention_desc d = scaled(FA_I4);
    d.k_scale = (fa_tensor){0};
    refuse(&d, FA_INVALID, "k_scale is absent, expected scales: k.dtype is i4");
    d = scaled(FA_E4M3);
    d.k_scale = (fa_tensor){0};
    refuse(&d, FA_INVALID, "k_zero is given without k_scale, expected shape 0");
    d.k_zero = (fa_tensor){0};
    d.k_factor = 2;
    refuse(&d, FA_INVALID, "k_factor is 2, expected 0 without k_scale");
    d = scaled(FA_F16);
    refuse(&d, FA_INVALID, "k.dtype is f16 with k_scale, expected fp8 or codes alone");
    d = scaled(FA_I8);
    d.v_factor = INFINITY;
    refuse(&d, FA_INVALID, "v_factor is inf, expected a finite number");
    d = scaled(FA_I8);
    d.k_scale.shape[1] = 3;
    refuse(&d, FA_INVALID, "k_scale.shape[1] is 3, expected 1 or k.shape[1], 2");
    d = scaled(FA_I8);
    d.k_scale.shape[2] = 5;
    refuse(&d, FA_INVALID, "k_scale.shape[2] is 5, expected 1 or a divisor of k.shape[2], 12");
    d = scaled(FA_I8);
    d.k_scale.shape[3] = 0;
    refuse(&d, FA_INVALID, "k_scale.shape[3] is 0, expected 1 or a divisor of k.shape[3], 16");
    d = scaled(FA_I8);
    d.k_zero.shape[3] = 1;
    refuse(&d, FA_INVALID, "k_zero.shape[3] is 1, expected k_scale.shape[3], 2");
    d = scaled(FA_I8);
    d.k_zero.dtype = FA_E4M3;
    refuse(&d, FA_INVALID, "k_zero.dtype is e4m3, expected f32, f16 or bf16");
    d = scaled(FA_I8);
    d.v_scale.dtype = FA_E5M2;
    refuse(&d, FA_INVALID, "v_scale.dtype is e5m2, expected f32, f16, bf16, e4m3 or e8m0");
    d = scaled(FA_I8);
    d.v_scale.dtype = FA_BITMAP_F16; /* of which no row has 3 elements */
    d.v_scale.shape[3] = 3;
    refuse(&d, FA_INVALID, "v_scale.dtype is bitmap_f16, expected f32, f16, bf16, e4m3 or e8m0");
    d = scaled(FA_E8M0);
    refuse(&d, FA_INVALID, "k.dtype is e8m0, expected f32, f16, bf16 or a format of caches");
    d = scaled(FA_I8);
    d.k = d.v = fa_tensor_make(FA_I8, 1, 2, (int64_t)INT32_MAX + 1, 16);
    refuse(&d, FA_INVALID, "k.shape[2] is 2147483648 with k_scale, expected at most 2147483647");
}
END_TEST

/* KIVI: old keys by channel in groups of tokens, old values by token, the newest of both in f16; merged by LSE. */
enum { HEADS = 2, GROUP = 32, OLD = 3 * GROUP, NEW = 21, ALL = OLD + NEW, DIM = 64 };

typedef struct kivi {
    float q[2 * HEADS * DIM], k[HEADS * ALL * DIM], v[HEADS * ALL * DIM];
    unsigned char k_codes[HEADS * OLD * DIM], v_codes[HEADS * OLD * DIM];
    uint16_t k_scale[HEADS * OLD / GROUP * DIM], k_zero[HEADS * OLD / GROUP * DIM];
    uint16_t v_scale[HEADS * OLD * DIM / GROUP], v_zero[HEADS * OLD * DIM / GROUP];
    uint16_t k_new[HEADS * NEW * DIM], v_new[HEADS * NEW * DIM];
    float o[2][2 * HEADS * DIM], lse[2][2 * HEADS];
} kivi;

/* One group: `count` elements, `stride` apart. The elements become what is stored. */
static double quantise(fa_dtype dtype, float *x, int64_t stride, float *code, uint16_t *scale_to,
                       uint16_t *zero_to)
{
    float scale, zero;
    fa_elements_fit(dtype, x, GROUP, stride, &scale, &zero);
    *scale_to = fa_f32_to_f16(scale);
    *zero_to = fa_f32_to_f16(zero);
    scale = fa_f16_to_f32(*scale_to);
    zero = fa_f16_to_f32(*zero_to);
    double worst = 0;
    for (int i = 0; i < GROUP; i++) {
        const float before = x[i * stride];
        unsigned char byte[8];
        float eight[8] = {(before - zero) / scale};
        fa_elements_store(dtype, byte, 0, eight, 8);
        code[i * stride] = fa_element(dtype, byte, 0);
        x[i * stride] = scale * code[i * stride] + zero;
        worst = fmax(worst, fabs((double)(x[i * stride] - before)));
    }
    return worst;
}

static double fill_kivi(kivi *c, fa_dtype dtype)
{
    static float k_code[HEADS * OLD * DIM], v_code[HEADS * OLD * DIM];
    double worst = 0;
    random_state random = {.state = 9};
    for (int i = 0; i < COUNT(c->q); i++)
        c->q[i] = random_float(&random, -1, 1);
    for (int i = 0; i < COUNT(c->k); i++) {
        c->k[i] = random_float(&random, -1, 1) * (i % DIM == 5 ? 8.0f : 1.0f); /* a channel of outliers */
        c->v[i] = random_float(&random, -1, 1);
    }
    for (int h = 0; h < HEADS; h++) {
        for (int g = 0; g < OLD / GROUP; g++) {
            for (int d = 0; d < DIM; d++) {
                const int at = (h * OLD / GROUP + g) * DIM + d;
                worst = fmax(worst, quantise(dtype, c->k + (h * ALL + g * GROUP) * DIM + d, DIM,
                                             k_code + (h * OLD + g * GROUP) * DIM + d, c->k_scale + at,
                                             c->k_zero + at));
            }
        }
        for (int i = 0; i < OLD * DIM / GROUP; i++) {
            const int at = h * OLD * DIM / GROUP + i;
            (void)quantise(dtype, c->v + h * ALL * DIM + i * GROUP, 1, v_code + h * OLD * DIM + i * GROUP,
                           c->v_scale + at, c->v_zero + at);
        }
        for (int i = 0; i < NEW * DIM; i++) {
            const int from = (h * ALL + OLD) * DIM + i;
            c->k_new[h * NEW * DIM + i] = fa_f32_to_f16(c->k[from]);
            c->v_new[h * NEW * DIM + i] = fa_f32_to_f16(c->v[from]);
            c->k[from] = fa_f16_to_f32(c->k_new[h * NEW * DIM + i]);
            c->v[from] = fa_f16_to_f32(c->v_new[h * NEW * DIM + i]);
        }
    }
    fa_elements_store(dtype, c->k_codes, 0, k_code, COUNT(k_code));
    fa_elements_store(dtype, c->v_codes, 0, v_code, COUNT(v_code));
    return worst;
}

static void run_part(fa_device *device, const fa_attention_desc *d, fa_host_args args)
{
    fa_plan *plan;
    fa_queue *queue;
    ck_assert_msg(fa_plan_create(device, d, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    args.workspace = fa_system_allocate(fa_plan_workspace(plan) + 64, 64);
    ck_assert_msg(fa_plan_run_host(plan, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_system_release(args.workspace);
    fa_queue_destroy(queue);
    fa_plan_destroy(plan);
}

START_TEST(kivi_with_a_window)
{
    static kivi c;
    static const fa_dtype dtypes[] = {FA_U2, FA_U4};
    const fa_dtype dtype = dtypes[_i];
    fa_device *device;
    const double worst = fill_kivi(&c, dtype);
    ck_assert_double_lt(worst,
                        dtype == FA_U2 ? 2.8 : 0.6); /* half of 16 / 3, half of 16 / 15, and roundings */
    ck_assert_int_eq(fa_device_open(context, "openmp", NULL, &device), FA_OK);
    fa_attention_desc d = make_desc(1, 2 * HEADS, HEADS, 1, OLD, DIM);
    d.want_lse = 1;
    d.k.dtype = d.v.dtype = dtype;
    d.k_scale = d.k_zero = fa_tensor_make(FA_F16, 1, HEADS, OLD / GROUP, DIM);
    d.v_scale = d.v_zero = fa_tensor_make(FA_F16, 1, HEADS, OLD, DIM / GROUP);
    run_part(device, &d,
             (fa_host_args){.struct_size = sizeof(fa_host_args),
                            .q = c.q,
                            .k = c.k_codes,
                            .v = c.v_codes,
                            .k_scale = c.k_scale,
                            .v_scale = c.v_scale,
                            .k_zero = c.k_zero,
                            .v_zero = c.v_zero,
                            .o = c.o[0],
                            .lse = c.lse[0]});
    d = make_desc(1, 2 * HEADS, HEADS, 1, NEW, DIM);
    d.want_lse = 1;
    d.k.dtype = d.v.dtype = FA_F16;
    run_part(device, &d,
             (fa_host_args){.struct_size = sizeof(fa_host_args),
                            .q = c.q,
                            .k = c.k_new,
                            .v = c.v_new,
                            .o = c.o[1],
                            .lse = c.lse[1]});
    const fa_tensor one = fa_tensor_make(FA_F32, 1, 2 * HEADS, 1, DIM);
    const fa_merge_desc merge = {.struct_size = sizeof(merge), .parts = 2, .partial = one, .o = one};
    float o[2 * HEADS * DIM];
    ck_assert_msg(fa_merge_host(&merge, c.o[0], c.lse[0], o, NULL) == FA_OK, "%s", fa_last_error());

    double exact[2 * HEADS * DIM];
    d = make_desc(1, 2 * HEADS, HEADS, 1, ALL, DIM);
    const fa_inputs in = {.q = c.q, .k = c.k, .v = c.v};
    ck_assert_int_eq(fa_reference_attention(context, &d, &in, exact, NULL), FA_OK);
    for (int i = 0; i < COUNT(o); i++)
        ck_assert_double_eq_tol((double)o[i], exact[i], 1e-5);
    fa_device_close(device);
}
END_TEST

Suite *scales_suite(void)
{
    Suite *suite = suite_create("scales");
    TCase *tc = add_context_case(suite, "scales");
    tcase_add_test(tc, codes_by_hand);
    tcase_add_test(tc, bits_by_hand);
    tcase_add_test(tc, numbers_become_codes);
    tcase_add_test(tc, bounds);
    tcase_add_test(tc, descriptions);
    tcase_add_test(tc, bytes_of_a_plan);
    tcase_add_test(tc, refusals);
    tcase_add_loop_test(tc, kivi_with_a_window, 0, 2);
    return suite;
}
