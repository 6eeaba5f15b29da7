/* SPDX-License-Identifier: Apache-2.0 */
/* Formats of caches, element by element. */
#include <math.h>
#include <string.h>

#include <fastattn/reference.h>

#include "core/portable/decode.h"
#include "core/portable/divide.h"
#include "helpers.h"
#include "suites.h"

static float nth(fa_dtype dtype, const void *block, int i)
{
    return fa_element(dtype, block, i);
}

/* An estimate some units in the last place off gives the quotient that this machine's division rounds to nearest. */
START_TEST(quotients)
{
    random_state random = {11};
    for (int n = 0; n < 200000; n++) {
        const fa_uint bits_a = (fa_uint)random_bits(&random), bits_b = (fa_uint)random_bits(&random);
        /* Some are powers of two, or next to one. */
        const float a = FA_AS_FLOAT(n % 5 == 0 ? (bits_a & 0xff800000u) + (fa_uint)(n % 3) : bits_a);
        const float b = FA_AS_FLOAT(n % 7 == 0 ? (bits_b & 0xff800000u) - (fa_uint)(n % 3) : bits_b);
        const float ratio = fa_significand(a) / fa_significand(b), expected = a / b;
        for (int ulps = -4; ulps <= 4; ulps++) {
            const float near_it = FA_AS_FLOAT(FA_AS_UINT(ratio) + (fa_uint)ulps);
            const float found = fa_corrected_quotient(a, b, near_it);
            if (isnan(expected) ? !isnan(found) : FA_AS_UINT(found) != FA_AS_UINT(expected))
                ck_abort_msg("%a / %a is %a, expected %a", (double)a, (double)b, (double)found,
                             (double)expected);
        }
    }
}
END_TEST

/* Every code of fp8, against its definition. */
START_TEST(fp8)
{
    for (int bits = 0; bits < 256; bits++) {
        unsigned char code[8] = {(unsigned char)bits};
        const float sign = bits & 0x80 ? -1.0f : 1.0f;
        const int e4 = bits >> 3 & 15, m3 = bits & 7;
        float expected = e4 == 0 ? ldexpf((float)m3, -9) : ldexpf((float)(8 + m3), e4 - 10);
        float found = nth(FA_E4M3, code, 0);
        if (e4 == 15 && m3 == 7)
            ck_assert(isnan(found));
        else
            ck_assert_float_eq(found, sign * expected);
        ck_assert_int_eq(signbit(found) != 0, bits >= 0x80);
        found = nth(FA_E5M2, code, 0);
        expected = fa_f16_to_f32((uint16_t)(bits << 8));
        ck_assert(isnan(found) ? isnan(expected) : found == expected);
    }
}
END_TEST

/* As GPUs take them: two to a word of halves, which they widen. */
START_TEST(fp8_as_halves)
{
    for (fa_uint code = 0; code < 256; code++) {
        for (int type = FA_TYPE_E4M3; type <= FA_TYPE_E5M2; type++) {
            const fa_uint halves = fa_fp8_halves(type, code << 8 | (code ^ 0x55u) << 24);
            for (int i = 0; i < 2; i++) {
                const unsigned char byte[8] = {(unsigned char)(i == 0 ? code : code ^ 0x55u)};
                const float found = fa_f16_to_f32((uint16_t)(halves >> 16 * i)) * FA_FP8_FACTOR(type);
                const float expected = nth((fa_dtype)type, byte, 0);
                ck_assert(isnan(expected) ? isnan(found) : found == expected);
            }
        }
    }
}
END_TEST

/* A block whose scale is 0.5 and whose offset, where it has one, is -2; all of its codes are 0x9c. */
START_TEST(blocks_by_hand)
{
    static const struct {
        fa_dtype dtype;
        int head;        /* bytes before the codes of 8 or 4 bits, or before the fifth bits */
        float low, high; /* elements 0 and 16 */
    } row[] = {
        {FA_Q8_0, 2, -50, -50},      /* 0x9c is -100 */
        {FA_Q4_0, 2, 2, 0.5f},       /* 12 - 8, 9 - 8 */
        {FA_Q4_1, 4, 4, 2.5f},       /* 12 / 2 - 2, 9 / 2 - 2 */
        {FA_Q5_0, 2, 6, -3.5f},      /* 28 - 16, 9 - 16: fifth bits of the first 16 */
        {FA_Q5_1, 4, 12, 2.5f},      /* 28 / 2 - 2 */
        {FA_IQ4_NL, 2, 26.5f, 6.5f}, /* 53, 13 */
    };
    for (int i = 0; i < COUNT(row); i++) {
        unsigned char block[34];
        const uint16_t scaling[] = {fa_f32_to_f16(0.5f), fa_f32_to_f16(-2)};
        static const unsigned char fifth[] = {0xff, 0xff, 0, 0};
        const bool has_fifth = row[i].dtype == FA_Q5_0 || row[i].dtype == FA_Q5_1;
        memset(block, 0x9c, sizeof(block));
        memcpy(block, scaling, (size_t)row[i].head);
        if (has_fifth)
            memcpy(block + row[i].head, fifth, sizeof(fifth));
        for (int e = 0; e < 32; e++)
            ck_assert_float_eq(nth(row[i].dtype, block, e), e < 16 ? row[i].low : row[i].high);
        ck_assert_int_eq(fa_dtype_block(row[i].dtype), 32);
        ck_assert_uint_eq(fa_dtype_align(row[i].dtype), 2);
    }
}
END_TEST

/* The second block of two begins where the first ends. */
START_TEST(blocks_follow_each_other)
{
    for (int dtype = FA_Q8_0; dtype <= FA_IQ4_NL; dtype++) {
        const size_t size = fa_dtype_size((fa_dtype)dtype);
        unsigned char two[68];
        for (size_t i = 0; i < 2 * size; i++)
            two[i] = (unsigned char)(i * 37 % 101);
        for (int e = 0; e < 32; e++)
            ck_assert_float_eq(nth((fa_dtype)dtype, two, 32 + e), nth((fa_dtype)dtype, two + size, e));
    }
}
END_TEST

/* Two of FlashMLA's rows, byte by byte. */
START_TEST(latent_rows_by_hand)
{
    static const float scales[] = {0.5f, 2, 0x1.8p-20f, -1};
    unsigned char rows[2 * 656];
    for (int i = 0; i < 512; i++)
        rows[656 + i] =
            (unsigned char)(0x30 + i % 16); /* 0.5 to 1.875, in steps of an eighth and a quarter */
    for (int g = 0; g < 4; g++) {
        const fa_uint bits = FA_AS_UINT(scales[g]);
        for (int b = 0; b < 4; b++)
            rows[656 + 512 + 4 * g + b] = (unsigned char)(bits >> 8 * b);
    }
    for (int i = 0; i < 64; i++) {
        const uint16_t bits = fa_f32_to_bf16((float)(i - 32) / 4);
        rows[656 + 528 + 2 * i] = (unsigned char)bits;
        rows[656 + 528 + 2 * i + 1] = (unsigned char)(bits >> 8);
    }
    memset(rows, 0x7f, 656); /* NaN, all of it: no element of the second row is taken from the first */
    for (int i = 0; i < 512; i++) {
        const float number = i % 16 < 8 ? 0.5f + (float)(i % 8) / 16 : 1 + (float)(i % 8) / 8;
        ck_assert_float_eq(nth(FA_FP8_DS_MLA, rows, 576 + i), scales[i / 128] * number);
        ck_assert(isnan(nth(FA_FP8_DS_MLA, rows, i)));
    }
    for (int i = 512; i < 576; i++)
        ck_assert_float_eq(nth(FA_FP8_DS_MLA, rows, 576 + i), (float)(i - 512 - 32) / 4);
    rows[656 + 512] = 1; /* 0.5 and its last bit: 1.875 times that is rounded */
    ck_assert_float_eq(nth(FA_FP8_DS_MLA, rows, 576 + 15), 0x1.e00004p-1f);
    ck_assert_int_eq(fa_dtype_block(FA_FP8_DS_MLA), 576);
    ck_assert_uint_eq(fa_dtype_align(FA_FP8_DS_MLA), 4);
}
END_TEST

/* What is stored: the largest magnitude of each 128 has the code of 448; and how far elements are off at most. */
START_TEST(latent_rows_stored)
{
    random_state random = {5};
    float x[576];
    unsigned char row[656], whole[656];
    for (int n = 0; n < 20; n++) {
        for (int i = 0; i < 576; i++) {
            const float size = ldexpf(1, (int)(random_bits(&random) % 24) - 12);
            x[i] = size * ((float)(random_bits(&random) % 20001) / 10000 - 1);
        }
        if (n == 0)
            memset(x, 0, 128 * sizeof(*x));
        fa_elements_store(FA_FP8_DS_MLA, row, 0, x, 576);
        for (int g = 0; g < 4; g++) {
            float most = 0, scale;
            for (int i = 128 * g; i < 128 * (g + 1); i++)
                most = fmaxf(most, fabsf(x[i]));
            memcpy(&scale, row + 512 + 4 * g, sizeof(scale));
            ck_assert_float_eq(scale, most > 0 ? most / 448 : 0x1p-126f);
            for (int i = 128 * g; i < 128 * (g + 1); i++) {
                const double size = fabs((double)x[i]), found = (double)nth(FA_FP8_DS_MLA, row, i);
                const double bound = fmax(size * 0x1.00004p-4, (double)scale * 0x1.00004p-10);
                ck_assert_double_le(fabs(found - (double)x[i]), bound);
                ck_assert(size < (double)most || (row[i] & 0x7f) == 0x7e || most == 0);
            }
        }
        for (int i = 512; i < 576; i++)
            ck_assert_float_eq(nth(FA_FP8_DS_MLA, row, i), fa_bf16_to_f32(fa_f32_to_bf16(x[i])));
    }
    memcpy(whole, row, sizeof(row));
    x[200] = INFINITY; /* makes NaN of its group alone */
    fa_elements_store(FA_FP8_DS_MLA, row, 0, x, 576);
    for (int i = 0; i < 576; i++)
        ck_assert_int_eq(isnan(nth(FA_FP8_DS_MLA, row, i)), i >= 128 && i < 256);
    ck_assert_mem_eq(row, whole, 128);
    ck_assert_mem_eq(row + 528, whole + 528, 128);
}
END_TEST

static float kept_of(const unsigned char *row, int bytes, int dims, int d)
{
    float x[576];
    ck_assert_int_eq(fa_bitmap_load(row, bytes, x, dims), FA_OK);
    return x[d];
}

/* 40 dims, of which 1, 8, 31, 32 and 39 are kept; bits behind the last dim; more bits than there is room for. */
START_TEST(bitmap_rows_by_hand)
{
    static const uint16_t halves[] = {0x3c00, 0xc000, 0x3800,
                                      0x7c00, 0x4200, 0x7e00}; /* 1 -2 0.5 inf 3 NaN */
    unsigned char row[20] = {0x02, 0x01, 0, 0x80, 0x81, 0xff, 0xff, 0xff};
    for (int i = 0; i < 6; i++) {
        row[8 + 2 * i] = (unsigned char)halves[i];
        row[8 + 2 * i + 1] = (unsigned char)(halves[i] >> 8);
    }
    for (int d = 0; d < 40; d++) {
        const float expected = d == 1    ? 1
                               : d == 8  ? -2
                               : d == 31 ? 0.5f
                               : d == 32 ? INFINITY
                               : d == 39 ? 3
                                         : 0;
        ck_assert_float_eq(kept_of(row, 20, 40, d), expected);
        /* Without room for the last one, and for the last three. */
        ck_assert_float_eq(kept_of(row, 16, 40, d), d == 39 ? 0 : expected);
        ck_assert_float_eq(kept_of(row, 12, 40, d), d > 8 ? 0 : expected);
    }
    ck_assert_int_eq(fa_dtype_block(FA_BITMAP_F16), 1);
    ck_assert_uint_eq(fa_dtype_align(FA_BITMAP_F16), 4);
    ck_assert_float_eq(fa_element(FA_BITMAP_F16, row, 0), 0);
}
END_TEST

/* Whether x[i] is kept rather than x[d]. */
static bool is_before(const float *x, int i, int d)
{
    const bool larger = isnan(x[i]) ? !isnan(x[d]) : fabsf(x[i]) > fabsf(x[d]),
               alike = isnan(x[i]) ? isnan(x[d]) : fabsf(x[i]) == fabsf(x[d]);
    return larger || (alike && i < d);
}

/* Every dim against its rank, and the guard behind the row. */
START_TEST(bitmap_rows_stored)
{
    random_state random = {9};
    static const int dims[] = {8, 32, 40, 128, 576};
    for (int n = 0; n < 200; n++) {
        const int dim = dims[n % 5], begin = (dim + 31) / 32 * 4,
                  room = 2 * (1 + (int)(random_bits(&random) % (unsigned)(dim / 2)));
        unsigned char row[72 + 2 * 576 + 4];
        float x[576], found[576];
        memset(row, 0xa5, sizeof(row));
        for (int d = 0; d < dim; d++) /* few magnitudes, so that many are alike */
            x[d] = (float)((int)(random_bits(&random) % 15) - 7) / 4;
        if (n % 3 == 0)
            x[dim / 2] = NAN;
        if (n % 7 == 0)
            x[dim - 1] = -INFINITY;
        ck_assert_int_eq(fa_bitmap_store(row, begin + 2 * room, x, dim), FA_OK);
        ck_assert_int_eq(fa_bitmap_load(row, begin + 2 * room, found, dim), FA_OK);
        for (int d = 0; d < dim; d++) {
            int before = 0;
            for (int i = 0; i < dim; i++)
                before += is_before(x, i, d);
            ck_assert_int_eq(row[d / 8] >> d % 8 & 1, before < room);
            if (isnan(x[d]))
                ck_assert_int_eq(isnan(found[d]), before < room);
            else
                ck_assert_float_eq(found[d], before < room ? x[d] : 0);
        }
        for (int d = dim; d < 8 * begin; d++)
            ck_assert_int_eq(row[d / 8] >> d % 8 & 1, 0);
        ck_assert_uint_eq(row[begin + 2 * room], 0xa5);
    }
}
END_TEST

START_TEST(bitmap_rows_refused)
{
    float x[576] = {0};
    unsigned char row[2000];
    ck_assert_int_eq(fa_bitmap_store(row, 40, x, 36), FA_INVALID);
    assert_message("dims is 36, expected a multiple of 8, at most 576");
    ck_assert_int_eq(fa_bitmap_store(row, 40, x, 584), FA_INVALID);
    ck_assert_int_eq(fa_bitmap_load(row, 18, x, 64), FA_INVALID);
    assert_message("row_bytes is 18, expected a multiple of 4 from 12 to 136");
    ck_assert_int_eq(fa_bitmap_load(row, 8, x, 64), FA_INVALID);
    ck_assert_int_eq(fa_bitmap_load(row, 140, x, 64), FA_INVALID);
    ck_assert_int_eq(fa_bitmap_load(NULL, 136, x, 64), FA_INVALID);
    assert_message("row is NULL");
    ck_assert_int_eq(fa_bitmap_store(row, 136, NULL, 64), FA_INVALID);
    assert_message("from is NULL");
}
END_TEST

/* Rows that lose nothing give what f16 gives, bit for bit. */
START_TEST(bitmap_rows_whole)
{
    enum { KEYS = 37, DIM = 64, ROWS = 5, BYTES = 8 + 2 * DIM };
    static float q[ROWS * DIM], x[KEYS * DIM];
    static uint16_t plain[2][KEYS * DIM];
    static unsigned char rows[2][KEYS * BYTES];
    double expected[ROWS * DIM], found[ROWS * DIM], expected_lse[ROWS], found_lse[ROWS];
    fa_context *own;
    random_state random = {3};
    ck_assert_int_eq(fa_context_create(NULL, &own), FA_OK);
    for (int i = 0; i < ROWS * DIM; i++)
        q[i] = random_float(&random, -1, 1);
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < KEYS * DIM; i++) {
            plain[t][i] = fa_f32_to_f16(i % 7 == 0 ? 0 : random_float(&random, -1, 1));
            x[i] = fa_f16_to_f32(plain[t][i]);
        }
        for (int j = 0; j < KEYS; j++)
            ck_assert_int_eq(fa_bitmap_store(rows[t] + j * BYTES, BYTES, x + j * DIM, DIM), FA_OK);
    }
    fa_attention_desc d = {
        .struct_size = sizeof(d),
        .q = fa_tensor_make(FA_F32, 1, 1, ROWS, DIM),
        .k = fa_tensor_make(FA_F16, 1, 1, KEYS, DIM),
        .v = fa_tensor_make(FA_F16, 1, 1, KEYS, DIM),
        .o = fa_tensor_make(FA_F32, 1, 1, ROWS, DIM),
        .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT,
    };
    const fa_inputs halves = {.q = q, .k = plain[0], .v = plain[1]},
                    bitmaps = {.q = q, .k = rows[0], .v = rows[1]};
    ck_assert_int_eq(fa_reference_attention(own, &d, &halves, expected, expected_lse), FA_OK);
    d.k = d.v = fa_tensor_make(FA_BITMAP_F16, 1, 1, KEYS, DIM);
    ck_assert_int_eq(fa_reference_attention(own, &d, &bitmaps, found, found_lse), FA_OK);
    ck_assert_mem_eq(found, expected, sizeof(found));
    ck_assert_mem_eq(found_lse, expected_lse, sizeof(found_lse));
    fa_context_destroy(own);
}
END_TEST

Suite *formats_suite(void)
{
    Suite *suite = suite_create("formats");
    TCase *tc = tcase_create("formats of caches");
    tcase_set_timeout(tc, 60); /* emulated processors are slow */
    tcase_add_test(tc, quotients);
    tcase_add_test(tc, fp8);
    tcase_add_test(tc, fp8_as_halves);
    tcase_add_test(tc, blocks_by_hand);
    tcase_add_test(tc, blocks_follow_each_other);
    tcase_add_test(tc, latent_rows_by_hand);
    tcase_add_test(tc, latent_rows_stored);
    tcase_add_test(tc, bitmap_rows_by_hand);
    tcase_add_test(tc, bitmap_rows_stored);
    tcase_add_test(tc, bitmap_rows_refused);
    tcase_add_test(tc, bitmap_rows_whole);
    suite_add_tcase(suite, tc);
    return suite;
}
