/* SPDX-License-Identifier: Apache-2.0 */
#include "core/portable/mask.h"
#include "helpers.h"
#include "suites.h"

/* The words of attention.h, in numbers that cannot overflow. */
static bool visible_by_definition(fa_mask m, int64_t row, int64_t key)
{
    int64_t p = row + m.diagonal;
    bool left = m.left == FA_UNLIMITED || key > p - m.left;
    bool right = m.right == FA_UNLIMITED || key < p + m.right;
    return key < m.prefix || (left && right);
}

static int classify_by_counting(fa_mask m, int row0, int row1, int key0, int key1)
{
    bool any = false, all = true;
    for (int row = row0; row < row1; row++) {
        for (int key = key0; key < key1; key++) {
            bool visible = visible_by_definition(m, row, key);
            any = any || visible;
            all = all && visible;
        }
    }
    return all ? FA_CLASS_FULL : any ? FA_CLASS_PARTIAL : FA_CLASS_SKIP;
}

static void assert_class(fa_mask m, int row0, int row1, int key0, int key1)
{
    int found = fa_mask_classify(m, row0, row1, key0, key1);
    int expected = classify_by_counting(m, row0, row1, key0, key1);
    if (found != expected)
        ck_abort_msg("keys %d diagonal %d left %d right %d prefix %d, rows [%d, %d) keys [%d, %d): class %d, "
                     "expected %d",
                     m.len_kv, m.diagonal, m.left, m.right, m.prefix, row0, row1, key0, key1, found,
                     expected);
}

static void assert_predicate(fa_mask m, int row, int key)
{
    if (fa_mask_visible(m, row, key) != visible_by_definition(m, row, key))
        ck_abort_msg("keys %d diagonal %d left %d right %d prefix %d: row %d sees key %d: %d", m.len_kv,
                     m.diagonal, m.left, m.right, m.prefix, row, key, fa_mask_visible(m, row, key));
}

static fa_mask random_mask(random_state *random)
{
    int keys = (int)random_between(random, 1, 48);
    fa_mask m = {
        .len_kv = keys,
        .diagonal = (int)random_between(random, -70, 70),
        .left = random_bits(random) % 3 ? (int)random_between(random, 1, 60) : FA_UNLIMITED,
        .right = random_bits(random) % 3 ? (int)random_between(random, 1, 60) : FA_UNLIMITED,
        .prefix = random_bits(random) % 3 ? 0 : (int)random_between(random, 0, keys),
    };
    /* Narrow windows are where classes are easily mistaken. */
    if (random_bits(random) % 4 == 0) {
        m.left = (int)random_between(random, 1, 3);
        m.right = (int)random_between(random, 1, 3);
    }
    return m;
}

START_TEST(predicate_follows_the_definition)
{
    random_state random = {1};
    for (int n = 0; n < 3000; n++) {
        fa_mask m = random_mask(&random);
        for (int row = 0; row < 20; row++) {
            for (int key = 0; key < m.len_kv; key++)
                assert_predicate(m, row, key);
        }
    }
}
END_TEST

START_TEST(classes_of_random_tiles)
{
    random_state random = {2};
    int seen[3] = {0};
    for (int n = 0; n < 30000; n++) {
        fa_mask m = random_mask(&random);
        int row0 = (int)random_between(&random, 0, 60), key0 = (int)random_between(&random, 0, m.len_kv - 1);
        int row1 = row0 + (int)random_between(&random, 1, 24);
        int key1 = (int)random_between(&random, key0 + 1, m.len_kv);
        assert_class(m, row0, row1, key0, key1);
        seen[fa_mask_classify(m, row0, row1, key0, key1)]++;
    }
    for (int tile = 0; tile < 3; tile++)
        ck_assert_int_gt(seen[tile], 1000);
}
END_TEST

/* Every tile of every mask with up to four keys. */
START_TEST(classes_of_all_small_masks)
{
    static const int windows[] = {1, 2, 3, 4, FA_UNLIMITED};
    const int rows = 4;
    for (int keys = 1; keys <= 4; keys++) {
        for (int n = 0; n < COUNT(windows) * COUNT(windows) * 13 * (keys + 1); n++) {
            fa_mask m = {
                .len_kv = keys,
                .diagonal = n / 25 % 13 - 6,
                .left = windows[n % 5],
                .right = windows[n / 5 % 5],
                .prefix = n / 325,
            };
            for (int tile = 0; tile < rows * rows * keys * keys; tile++) {
                int row0 = tile % rows, row1 = tile / rows % rows + 1;
                int key0 = tile / (rows * rows) % keys, key1 = tile / (rows * rows * keys) + 1;
                if (row0 < row1 && key0 < key1)
                    assert_class(m, row0, row1, key0, key1);
            }
        }
    }
}
END_TEST

START_TEST(intervals_never_decrease)
{
    random_state random = {3};
    for (int n = 0; n < 3000; n++) {
        fa_mask m = random_mask(&random);
        for (int row = 0; row < 200; row++) {
            int begin = fa_mask_begin(m, row), end = fa_mask_end(m, row);
            bool inside = begin >= 0 && begin <= m.len_kv && end >= 0 && end <= m.len_kv;
            if (!inside || begin > fa_mask_begin(m, row + 1) || end > fa_mask_end(m, row + 1))
                ck_abort_msg("keys %d diagonal %d left %d right %d: row %d sees [%d, %d)", m.len_kv,
                             m.diagonal, m.left, m.right, row, begin, end);
        }
    }
}
END_TEST

/* The largest lengths, diagonals and windows there are: no sum leaves an int. */
START_TEST(extremes_stay_within_an_int)
{
    static const int diagonals[] = {-(1 << 29), -(1 << 29) + 1, -1, 0, 1, (1 << 29) - 1, 1 << 29};
    static const int windows[] = {1, 2, FA_MAX_LENGTH, FA_UNLIMITED - 1, FA_UNLIMITED};
    static const int at[] = {0, 1, FA_MAX_LENGTH / 2, FA_MAX_LENGTH - 2, FA_MAX_LENGTH - 1};
    for (int n = 0; n < COUNT(diagonals) * 25 * 3; n++) {
        fa_mask m = {FA_MAX_LENGTH, diagonals[n % 7], windows[n / 7 % 5], windows[n / 35 % 5], 0};
        m.prefix = n / 175 == 0 ? 0 : n / 175 == 1 ? 1 : FA_MAX_LENGTH;
        for (int place = 0; place < 25; place++) {
            int row = at[place % 5], key = at[place / 5];
            assert_predicate(m, row, key);
            assert_class(m, row, row + 1, key, key + 1);
            /* A wide tile that holds the place is never SKIP where the place is visible. */
            int whole = fa_mask_classify(m, 0, FA_MAX_LENGTH, 0, FA_MAX_LENGTH);
            ck_assert(whole != (fa_mask_visible(m, row, key) ? FA_CLASS_SKIP : FA_CLASS_FULL));
        }
    }
}
END_TEST

START_TEST(named_cases)
{
    const fa_mask causal = {8, 0, FA_UNLIMITED, 1, 0};
    ck_assert_int_eq(fa_mask_classify(causal, 0, 4, 0, 4), FA_CLASS_PARTIAL);
    ck_assert_int_eq(fa_mask_classify(causal, 0, 4, 4, 8), FA_CLASS_SKIP);
    ck_assert_int_eq(fa_mask_classify(causal, 4, 8, 0, 4), FA_CLASS_FULL);
    ck_assert_int_eq(fa_mask_classify(causal, 0, 1, 0, 1), FA_CLASS_FULL);

    /* Eight rows, four keys, aligned at the end: the first four rows see nothing. */
    const fa_mask longer = {4, -4, FA_UNLIMITED, 1, 0};
    ck_assert_int_eq(fa_mask_classify(longer, 0, 4, 0, 4), FA_CLASS_SKIP);
    ck_assert_int_eq(fa_mask_end(longer, 3), 0);
    ck_assert_int_eq(fa_mask_end(longer, 4), 1);
    ck_assert_int_eq(fa_mask_classify(longer, 7, 8, 0, 4), FA_CLASS_FULL);

    /* A prefix that ends in a tile leaves it PARTIAL even where the interval begins behind the tile. */
    const fa_mask prefix = {64, 32, 4, 1, 6};
    ck_assert_int_eq(fa_mask_classify(prefix, 0, 8, 0, 8), FA_CLASS_PARTIAL);
    ck_assert_int_eq(fa_mask_classify(prefix, 0, 8, 0, 6), FA_CLASS_FULL);
    ck_assert_int_eq(fa_mask_classify(prefix, 0, 8, 8, 16), FA_CLASS_SKIP);

    /* Both windows 1: the diagonal alone. */
    const fa_mask diagonal = {16, 0, 1, 1, 0};
    for (int row = 0; row < 16; row++) {
        ck_assert_int_eq(fa_mask_begin(diagonal, row), row);
        ck_assert_int_eq(fa_mask_end(diagonal, row), row + 1);
    }
    ck_assert_int_eq(fa_mask_begin(diagonal, 16), 16);
    ck_assert_int_eq(fa_mask_end(diagonal, 16), 16);
}
END_TEST

Suite *mask_suite(void)
{
    Suite *suite = suite_create("mask");
    TCase *tc = tcase_create("mask");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, predicate_follows_the_definition);
    tcase_add_test(tc, classes_of_random_tiles);
    tcase_add_test(tc, classes_of_all_small_masks);
    tcase_add_test(tc, intervals_never_decrease);
    tcase_add_test(tc, extremes_stay_within_an_int);
    tcase_add_test(tc, named_cases);
    suite_add_tcase(suite, tc);
    return suite;
}
