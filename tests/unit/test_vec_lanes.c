/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes, comparisons and conversions of the vector vocabulary, against plain C. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/half.h"
#include "helpers.h"
#include "test_vec.h"

enum { MAX_LANES = 16, CHUNK = 4096 };

static bool same_bits(float a, float b)
{
    return fa_as_uint(a) == fa_as_uint(b);
}

START_TEST(max_gives_the_second_where_one_is_nan)
{
    const float v[] = {-INFINITY, -FLT_MAX, -1, 0, 0x1p-149f, 2, FLT_MAX, INFINITY, NAN};
    for (int i = 0; i < COUNT(v); i++) {
        for (int j = 0; j < COUNT(v); j++) {
            float a[MAX_LANES], b[MAX_LANES], y[MAX_LANES];
            for (int lane = 0; lane < MAX_LANES; lane++) {
                a[lane] = v[i];
                b[lane] = v[j];
            }
            vec_isa[_i]->max(a, b, y, MAX_LANES);
            float expected = v[i] > v[j] ? v[i] : v[j];
            for (int lane = 0; lane < MAX_LANES; lane++) {
                if (isnan(expected) ? !isnan(y[lane]) : y[lane] != expected)
                    ck_abort_msg("max(%g, %g) is %g", (double)v[i], (double)v[j], (double)y[lane]);
            }
        }
    }
}
END_TEST

START_TEST(sum_and_top_take_every_lane)
{
    const vec_ops *ops = vec_isa[_i];
    for (int at = 0; at < ops->lanes; at++) {
        float x[MAX_LANES], total = 0;
        for (int i = 0; i < ops->lanes; i++) {
            x[i] = i == at ? 1000 : (float)(-1 - i); /* small whole numbers add exactly in any order */
            total += x[i];
        }
        ck_assert_float_eq(ops->sum(x), total);
        ck_assert_float_eq(ops->top(x), 1000);
        x[at] = INFINITY;
        ck_assert_float_eq(ops->top(x), INFINITY);
        x[at] = NAN;
        ck_assert(isnan(ops->sum(x)));
    }
    float none[MAX_LANES];
    for (int i = 0; i < MAX_LANES; i++)
        none[i] = -INFINITY;
    ck_assert_float_eq(ops->top(none), -INFINITY);
}
END_TEST

START_TEST(four_sums_stay_apart)
{
    const vec_ops *ops = vec_isa[_i];
    for (int at = 0; at < 4 * ops->lanes; at++) {
        float x[4 * MAX_LANES], sums[6] = {7, 7, 7, 7, 7, 7}, expected[6] = {7, 0, 0, 0, 0, 7};
        for (int i = 0; i < 4 * ops->lanes; i++) {
            x[i] = i == at ? 1000 : (float)(i * i); /* no two sums are alike */
            expected[1 + i / ops->lanes] += x[i];
        }
        ops->sum4(x, sums + 1);
        for (int i = 0; i < 6; i++)
            ck_assert_float_eq(sums[i], expected[i]);
    }
}
END_TEST

START_TEST(equality_needs_every_lane)
{
    const vec_ops *ops = vec_isa[_i];
    float a[MAX_LANES], b[MAX_LANES];
    for (int i = 0; i < MAX_LANES; i++)
        a[i] = b[i] = i % 3 ? (float)i : -INFINITY;
    ck_assert(ops->all_equal(a, b));
    for (int at = 0; at < ops->lanes; at++) {
        float kept = b[at];
        b[at] = nextafterf(kept, 100);
        ck_assert(!ops->all_equal(a, b));
        a[at] = b[at] = NAN;
        ck_assert(!ops->all_equal(a, b));
        a[at] = 0.0f;
        b[at] = -0.0f;
        ck_assert(ops->all_equal(a, b));
        a[at] = b[at] = kept;
    }
}
END_TEST

START_TEST(if_less_chooses_by_lane)
{
    const vec_ops *ops = vec_isa[_i];
    const float v[] = {-INFINITY, -1, -0.0f, 0, 1, INFINITY, NAN};
    random_state random = {4};
    for (int n = 0; n < 1000; n++) {
        float a[MAX_LANES], b[MAX_LANES], yes[MAX_LANES], no[MAX_LANES], y[MAX_LANES];
        for (int i = 0; i < ops->lanes; i++) {
            a[i] = v[random_between(&random, 0, COUNT(v) - 1)];
            b[i] = v[random_between(&random, 0, COUNT(v) - 1)];
            yes[i] = (float)(2 * i);
            no[i] = (float)(2 * i + 1);
        }
        ops->if_less(a, b, yes, no, y);
        for (int i = 0; i < ops->lanes; i++) {
            if (y[i] != (a[i] < b[i] ? yes[i] : no[i]))
                ck_abort_msg("lane %d: %g < %g gives %g", i, (double)a[i], (double)b[i], (double)y[i]);
        }
    }
}
END_TEST

START_TEST(distances_are_absolute)
{
    const vec_ops *ops = vec_isa[_i];
    const int edges[] = {0, 1, -1, 15, 16777215, 16777217, 1 << 28, -(1 << 28), (1 << 29) + 3};
    for (int f = 0; f < COUNT(edges); f++) {
        for (int o = 0; o < COUNT(edges); o++) {
            float y[MAX_LANES];
            int a[MAX_LANES], b[MAX_LANES];
            ops->count_from(edges[f], edges[o], y);
            for (int i = 0; i < ops->lanes; i++)
                ck_assert_float_eq(y[i], fabsf((float)(edges[f] + i - edges[o])));
            for (int i = 0; i < ops->lanes; i++) {
                a[i] = edges[f] + 3 * i;
                b[i] = edges[o] - 5 * i;
            }
            ops->distance(a, b, y);
            for (int i = 0; i < ops->lanes; i++)
                ck_assert_float_eq(y[i], fabsf((float)(a[i] - b[i])));
        }
    }
}
END_TEST

START_TEST(what_lies_outside_is_hidden)
{
    const vec_ops *ops = vec_isa[_i];
    const float v[] = {1, -2, NAN, INFINITY, -INFINITY, 0};
    random_state random = {5};
    for (int n = 0; n < 10000; n++) {
        float a[MAX_LANES], y[MAX_LANES];
        int begin[MAX_LANES], end[MAX_LANES], key = (int)random_between(&random, 0, 4);
        for (int i = 0; i < ops->lanes; i++) {
            a[i] = v[random_between(&random, 0, COUNT(v) - 1)];
            begin[i] = (int)random_between(&random, 0, 5);
            end[i] = (int)random_between(&random, 0, 5);
        }
        ops->hide_outside(a, key, begin, end, y);
        for (int i = 0; i < ops->lanes; i++) {
            float expected = begin[i] <= key && key < end[i] ? a[i] : -INFINITY;
            if (!same_bits(y[i], expected))
                ck_abort_msg("key %d of [%d, %d): %g becomes %g", key, begin[i], end[i], (double)a[i],
                             (double)y[i]);
        }
    }
}
END_TEST

START_TEST(transpose_swaps_rows_and_columns)
{
    int n = vec_isa[_i]->lanes;
    float matrix[MAX_LANES * MAX_LANES];
    for (int i = 0; i < n * n; i++)
        matrix[i] = (float)i;
    vec_isa[_i]->transpose(matrix);
    for (int row = 0; row < n; row++) {
        for (int column = 0; column < n; column++)
            ck_assert_float_eq(matrix[row * n + column], (float)(column * n + row));
    }
}
END_TEST

START_TEST(every_half_loads)
{
    for (int dtype = FA_F16; dtype <= FA_BF16; dtype++) {
        static uint16_t from[1 << 16];
        static float to[1 << 16];
        for (int i = 0; i < 1 << 16; i++)
            from[i] = (uint16_t)i;
        vec_isa[_i]->load((fa_dtype)dtype, from, to, 1 << 16);
        for (int i = 0; i < 1 << 16; i++) {
            float expected = fa_load((fa_dtype)dtype, from, i);
            if (isnan(expected) ? !isnan(to[i]) : !same_bits(to[i], expected))
                ck_abort_msg("%s 0x%04x loads as %a, expected %a", fa_dtype_name((fa_dtype)dtype),
                             (unsigned)i, (double)to[i], (double)expected);
        }
    }
}
END_TEST

/* Stores CHUNK numbers and compares each with the scalar conversion, NaN by kind. */
static void check_stores(const vec_ops *ops, fa_dtype dtype, const float *x)
{
    static uint16_t found[CHUNK];
    ops->store(dtype, x, found, CHUNK);
    for (int i = 0; i < CHUNK; i++) {
        uint16_t expected;
        fa_store(dtype, &expected, 0, x[i]);
        bool same = isnan(x[i]) ? isnan(fa_load(dtype, found, i)) : found[i] == expected;
        if (!same)
            ck_abort_msg("%a is stored as %s 0x%04x, expected 0x%04x", (double)x[i], fa_dtype_name(dtype),
                         (unsigned)found[i], (unsigned)expected);
    }
}

/* Every binade, sign and kind of NaN, and all remainders of the mantissa modulo what is cut off. */
START_TEST(stores_round_as_plain_c_does)
{
    enum { STRIDE = 509 };
    for (int dtype = FA_F16; dtype <= FA_BF16; dtype++) {
        static float x[CHUNK];
        for (uint64_t bits = 0; bits <= UINT32_MAX;) {
            for (int i = 0; i < CHUNK; i++, bits += STRIDE)
                x[i] = fa_as_float((uint32_t)(bits < UINT32_MAX ? bits : UINT32_MAX));
            check_stores(vec_isa[_i], (fa_dtype)dtype, x);
        }
    }
}
END_TEST

/* Half way between each two neighbours, and right beside it. */
START_TEST(stores_round_ties_to_even)
{
    for (int dtype = FA_F16; dtype <= FA_BF16; dtype++) {
        static float x[CHUNK];
        int used = 0;
        for (int i = 0; i < 1 << 16; i++) {
            const uint16_t pair[2] = {(uint16_t)i, (uint16_t)(i + 1)};
            float low = fa_load((fa_dtype)dtype, pair, 0), high = fa_load((fa_dtype)dtype, pair, 1);
            if (!isfinite(low) || isnan(high))
                continue;
            /* Infinity stands where the next number would be. */
            double beyond = copysign(dtype == FA_F16 ? 0x1p16 : 0x1p128, (double)high);
            double next = isinf(high) ? beyond : (double)high;
            float tie = (float)(0.5 * ((double)low + next));
            x[used++] = nextafterf(tie, -INFINITY);
            x[used++] = tie;
            x[used++] = nextafterf(tie, INFINITY);
            for (; used > CHUNK - 3 && used < CHUNK; used++)
                x[used] = tie;
            if (used == CHUNK)
                check_stores(vec_isa[_i], (fa_dtype)dtype, x);
            used %= CHUNK;
        }
        for (int i = used; i < CHUNK; i++)
            x[i] = 0;
        check_stores(vec_isa[_i], (fa_dtype)dtype, x);
    }
}
END_TEST

START_TEST(f32_passes_unchanged)
{
    float x[MAX_LANES], y[MAX_LANES];
    for (int i = 0; i < MAX_LANES; i++)
        x[i] = i % 4 ? ldexpf(1.5f, 10 * i - 149) : INFINITY;
    vec_isa[_i]->load(FA_F32, x, y, MAX_LANES);
    ck_assert_mem_eq(x, y, sizeof(x));
    memset(y, 0, sizeof(y));
    vec_isa[_i]->store(FA_F32, x, y, MAX_LANES);
    ck_assert_mem_eq(x, y, sizeof(x));
}
END_TEST

/* Whatever the bytes are: of fp8 every code is among them, of ggml's blocks every code and any scale. */
START_TEST(formats_decode_as_plain_c_does)
{
    enum { ROWS = 3, STRIDE = 192, FIRST = 32, BYTES = 2 * (FIRST + ROWS * STRIDE) };
    uint16_t from[BYTES / 2];
    float to[ROWS * STRIDE];
    uint32_t state = 1;
    for (int turn = 0; turn < 20 * 8; turn++) {
        const fa_dtype dtype = (fa_dtype)(FA_E4M3 + turn % 8);
        const int dim = FA_TYPE_IS_FP8(dtype) ? 168 : 160;
        for (int i = 0; i < COUNT(from); i++)
            from[i] = (uint16_t)((state = state * 1664525u + 1013904223u) >> 16);
        vec_isa[_i]->convert_rows(dtype, from, FIRST, STRIDE, ROWS, dim, to, STRIDE);
        for (int i = 0; i < ROWS * dim; i++) {
            const int at = i / dim * STRIDE + i % dim;
            const float expected = fa_load(dtype, from, FIRST + at);
            if (isnan(expected) ? !isnan(to[at]) : !same_bits(to[at], expected))
                ck_abort_msg("%s, element %d is %g, expected %g", fa_dtype_name(dtype), i, (double)to[at],
                             (double)expected);
        }
    }
}
END_TEST

void add_lane_tests(Suite *suite)
{
    TCase *tc = tcase_create("lanes");
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, max_gives_the_second_where_one_is_nan, 0, vec_isas);
    tcase_add_loop_test(tc, sum_and_top_take_every_lane, 0, vec_isas);
    tcase_add_loop_test(tc, four_sums_stay_apart, 0, vec_isas);
    tcase_add_loop_test(tc, equality_needs_every_lane, 0, vec_isas);
    tcase_add_loop_test(tc, if_less_chooses_by_lane, 0, vec_isas);
    tcase_add_loop_test(tc, distances_are_absolute, 0, vec_isas);
    tcase_add_loop_test(tc, what_lies_outside_is_hidden, 0, vec_isas);
    tcase_add_loop_test(tc, transpose_swaps_rows_and_columns, 0, vec_isas);
    tcase_add_loop_test(tc, every_half_loads, 0, vec_isas);
    tcase_add_loop_test(tc, stores_round_as_plain_c_does, 0, vec_isas);
    tcase_add_loop_test(tc, stores_round_ties_to_even, 0, vec_isas);
    tcase_add_loop_test(tc, f32_passes_unchanged, 0, vec_isas);
    tcase_add_loop_test(tc, formats_decode_as_plain_c_does, 0, vec_isas);
    suite_add_tcase(suite, tc);
}
