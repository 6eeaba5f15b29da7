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
    suite_add_tcase(suite, tc);
    return suite;
}
