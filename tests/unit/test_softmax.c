/* SPDX-License-Identifier: Apache-2.0 */
#include "core/portable/softmax.h"

#include <math.h>

#include "core/portable/row.h"
#include "helpers.h"
#include "suites.h"

/* The base-2 logarithm of what a state stands for, in double. */
static double log2_of(fa_state s)
{
    return (double)s.max + log2((double)s.sum);
}

static fa_state random_state_of(random_state *random)
{
    fa_state s = fa_state_empty();
    if (random_bits(random) % 8 != 0) {
        s.max = random_float(random, -60, 60);
        s.sum = random_float(random, 1, 100);
    }
    return s;
}

static bool same(fa_state a, fa_state b)
{
    return a.max == b.max && a.sum == b.sum;
}

/* Two parts of a row as one, as every merge has it. */
static fa_state merged(fa_state a, fa_state b)
{
    fa_state s = {FA_MAX(a.max, b.max), 0};
    s.sum = fa_part_weight(a, fa_safe_max(s.max), 1) + fa_part_weight(b, fa_safe_max(s.max), 1);
    return s;
}

START_TEST(empty_states_are_neutral)
{
    fa_state none = merged(fa_state_empty(), fa_state_empty());
    ck_assert(none.max == -INFINITY && none.sum == 0);
    random_state random = {1};
    for (int n = 0; n < 1000; n++) {
        fa_state s = random_state_of(&random);
        if (!same(merged(s, fa_state_empty()), s) || !same(merged(fa_state_empty(), s), s))
            ck_abort_msg("an empty state changes (%g, %g)", (double)s.max, (double)s.sum);
    }
}
END_TEST

START_TEST(merging_commutes)
{
    random_state random = {2};
    for (int n = 0; n < 1000; n++) {
        fa_state a = random_state_of(&random), b = random_state_of(&random);
        if (!same(merged(a, b), merged(b, a)))
            ck_abort_msg("(%g, %g) and (%g, %g) do not commute", (double)a.max, (double)a.sum, (double)b.max,
                         (double)b.sum);
    }
}
END_TEST

/* Either order of merging agrees with double precision to a few roundings: 4 units of f32 in the sum. */
START_TEST(merging_associates)
{
    random_state random = {3};
    for (int n = 0; n < 10000; n++) {
        fa_state s[3];
        double max = -INFINITY, sum = 0;
        for (int i = 0; i < 3; i++) {
            s[i] = random_state_of(&random);
            max = fmax(max, (double)s[i].max);
        }
        for (int i = 0; i < 3; i++)
            sum += s[i].sum > 0 ? (double)s[i].sum * exp2((double)s[i].max - max) : 0;
        fa_state left = merged(merged(s[0], s[1]), s[2]);
        fa_state right = merged(s[0], merged(s[1], s[2]));
        if (max == -INFINITY) {
            ck_assert(same(left, fa_state_empty()) && same(right, fa_state_empty()));
            continue;
        }
        /* exp2f of a difference near 100 carries the rounding of the difference: 100 * 2^-24 * ln 2. */
        double bound = 1e-5, expected = max + log2(sum);
        if (fabs(log2_of(left) - expected) > bound || fabs(log2_of(right) - expected) > bound)
            ck_abort_msg("case %d: %.9g and %.9g, expected %.9g", n, log2_of(left), log2_of(right), expected);
    }
}
END_TEST

START_TEST(weights_are_never_nan_on_empty_states)
{
    ck_assert(fa_state_weight(-INFINITY, -INFINITY, 1) == 0);
    ck_assert(fa_state_weight(-INFINITY, 3, 1) == 0);
    ck_assert(fa_state_weight(-INFINITY, INFINITY, 1) == 0);
    ck_assert(fa_state_weight(3, 3, 1) == 1);
    ck_assert(fa_state_weight(2, 5, 1) == 0.125f);
    ck_assert(fa_state_weight(-200, 200, 1) == 0);
    /* A row with an infinite score: NaN, as IEEE arithmetic has it. */
    ck_assert(isnan(fa_state_weight(INFINITY, INFINITY, 1)));
}
END_TEST

START_TEST(constants_are_the_nearest_floats)
{
    ck_assert(FA_LOG2E == (float)(1 / log(2.0)));
}
END_TEST

START_TEST(packed_rows_name_their_position_and_head)
{
    const fa_mask causal = {.len_kv = 40, .diagonal = 5, .left = 4, .right = 1, .prefix = 2};
    for (int head_kv = 0; head_kv < 4; head_kv++) {
        for (int row = 0; row < 33; row++) {
            fa_row r = fa_row_of(causal, 3, head_kv, row, 30);
            int expected = row < 30 ? row : 29;
            ck_assert_int_eq(r.position, expected / 3);
            ck_assert_int_eq(r.head, head_kv * 3 + expected % 3);
            ck_assert_int_eq(r.exists, row < 30);
            for (int key = 0; key < 40; key++)
                ck_assert_int_eq(fa_row_sees(r, causal, key), fa_mask_visible(causal, r.position, key));
        }
    }
}
END_TEST

Suite *softmax_suite(void)
{
    Suite *suite = suite_create("softmax");
    TCase *tc = tcase_create("portable");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, empty_states_are_neutral);
    tcase_add_test(tc, merging_commutes);
    tcase_add_test(tc, merging_associates);
    tcase_add_test(tc, weights_are_never_nan_on_empty_states);
    tcase_add_test(tc, constants_are_the_nearest_floats);
    tcase_add_test(tc, packed_rows_name_their_position_and_head);
    suite_add_tcase(suite, tc);
    return suite;
}
