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

Suite *formats_suite(void)
{
    Suite *suite = suite_create("formats");
    TCase *tc = tcase_create("formats of caches");
    tcase_add_test(tc, quotients);
    tcase_add_test(tc, fp8);
    tcase_add_test(tc, fp8_as_halves);
    tcase_add_test(tc, blocks_by_hand);
    tcase_add_test(tc, blocks_follow_each_other);
    suite_add_tcase(suite, tc);
    return suite;
}
