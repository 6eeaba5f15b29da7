/* SPDX-License-Identifier: Apache-2.0 */
/* The base of a row, which tensor.cuh takes from scores: a row's softmax tile by tile, as one lane computes it. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/portable/softmax.h"
#include "shaders/cuda/base.h"
#include "tests/unit/helpers.h"

enum { TILE = 8, TILES = 6, KEYS = TILE * TILES };

typedef struct row_result {
    float out, sum, greatest;
} row_result;

/* One row. `watched`: some other row of the warp makes this one look for a new base after every tile. */
static row_result attend(const float score[KEYS], const float value[KEYS], float unit, bool watched)
{
    fa_base b = fa_base_of(FA_NEG_INF, unit);
    float out = 0, sum = 0;
    for (int first = 0; first < KEYS; first += TILE) {
        float most = FA_NEG_INF;
        for (int j = first; j < first + TILE; j++)
            most = fmaxf(most, score[j]);
        if (watched || fa_base_is_apart(b.greatest, unit) || fa_base_exceeds(most, b.base, unit)) {
            const fa_base next = fa_base_next(b, most, unit);
            const float by = fa_base_weight(b, next, unit);
            out *= by;
            sum *= by;
            b = next;
        }
        for (int j = first; j < first + TILE; j++) {
            const float weight = exp2f(fmaf(score[j] - b.origin, unit, -b.base));
            ck_assert_msg(!(weight > 300.0f), "the weight of score %g is %g", (double)score[j],
                          (double)weight);
            sum += weight;
            out = fmaf(weight, value[j], out);
        }
    }
    return (row_result){out, sum, b.greatest};
}

/*
 * Values lie in [-1, 1]. A weight is off by its exponent's rounding, which is |d| u ln 2 and counts most where d 2^-d is
 * greatest, by that of exp2f and by those of six tiles' rescaling; sums by KEYS roundings. Above and below the fraction bar.
 */
static void check_row(const float score[KEYS], float unit)
{
    const double u = 0x1p-24, bound = 2 * u * (KEYS + 2 + 2 * TILES + 2);
    float value[KEYS];
    double greatest = -INFINITY, out = 0, sum = 0;
    for (int j = 0; j < KEYS; j++) {
        value[j] = (float)(j % 7 - 3) / 3;
        greatest = (double)score[j] > greatest ? (double)score[j] : greatest;
    }
    for (int j = 0; j < KEYS; j++) {
        const double weight = exp2(((double)score[j] - greatest) * (double)unit);
        sum += weight;
        out += weight * (double)value[j];
    }
    const row_result alone = attend(score, value, unit, false), watched = attend(score, value, unit, true);
    ck_assert_msg(fabs((double)(alone.out / alone.sum) - out / sum) <= bound,
                  "unit %g, scores from %g on: %.9g and not %.9g", (double)unit, (double)score[0],
                  (double)(alone.out / alone.sum), out / sum);
    ck_assert_msg(memcmp(&alone, &watched, sizeof(alone)) == 0,
                  "unit %g, scores from %g on: other rows change this one", (double)unit, (double)score[0]);
}

static const float units[] = {FA_LOG2E, 0.125f * FA_LOG2E, 0x1p-100f * FA_LOG2E, 0x1p100f * FA_LOG2E};

/* All alike, falling, rising, and some of each by turns: near `at`, in its units in the last place. */
START_TEST(scores_of_any_size)
{
    static const float sizes[] = {0.0f, 1e-30f, 1.0f,    40.0f,   65530.0f, 65540.0f,
                                  1e6f, 1e20f,  2.3e38f, 2.4e38f, 3e38f,    FLT_MAX};
    for (int n = 0; n < COUNT(sizes) * COUNT(units) * 2; n++) {
        const float unit = units[n / 2 % COUNT(units)],
                    at = sizes[n / 2 / COUNT(units)] * (n % 2 ? -1.0f : 1.0f);
        float alike[KEYS], falling[KEYS], rising[KEYS], turns[KEYS];
        float next = at;
        for (int j = 0; j < KEYS; j++) {
            alike[j] = at;
            falling[j] = rising[KEYS - 1 - j] = next;
            next = nextafterf(next, -FLT_MAX);
            turns[j] = j % 3 == 0 ? at : -at;
        }
        check_row(alike, unit);
        check_row(falling, unit);
        check_row(rising, unit);
        check_row(turns, unit);
    }
}
END_TEST

/* Exponents that grow by a little more and less than the headroom, past where rows come to be apart, and from there back. */
START_TEST(bases_move_in_and_out)
{
    static const float starts[] = {-65600.0f, -65536.0f, -30.0f, 0.0f, 65500.0f, 1e7f};
    static const float steps[] = {0.25f, 7.0f, 9.0f, 20.0f};
    for (int n = 0; n < COUNT(starts) * COUNT(steps) * COUNT(units); n++) {
        const float unit = units[n % COUNT(units)], start = starts[n / COUNT(units) / COUNT(steps)];
        float score[KEYS];
        for (int j = 0; j < KEYS; j++)
            score[j] =
                (start + steps[n / COUNT(units) % COUNT(steps)] * (float)(j / TILE) - (float)(j % 3)) / unit;
        check_row(score, unit);
    }
}
END_TEST

START_TEST(what_is_hidden_has_no_weight)
{
    float score[KEYS], value[KEYS];
    for (int j = 0; j < KEYS; j++) {
        score[j] = FA_NEG_INF;
        value[j] = 1.0f;
    }
    row_result r = attend(score, value, FA_LOG2E, false);
    ck_assert(r.sum == 0.0f && r.out == 0.0f && r.greatest == FA_NEG_INF);
    score[KEYS - 2] = -3.4e38f;
    r = attend(score, value, FA_LOG2E, false);
    ck_assert(r.sum == 1.0f && r.out == 1.0f && r.greatest == -3.4e38f);
    score[3] = INFINITY;
    r = attend(score, value, FA_LOG2E, false);
    ck_assert(isnan(r.sum) && isnan(r.out));
    score[3] = NAN;
    r = attend(score, value, FA_LOG2E, false);
    ck_assert(isnan(r.sum) && isnan(r.out));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda base");
    TCase *tc = tcase_create("base");
    tcase_add_test(tc, scores_of_any_size);
    tcase_add_test(tc, bases_move_in_and_out);
    tcase_add_test(tc, what_is_hidden_has_no_weight);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
