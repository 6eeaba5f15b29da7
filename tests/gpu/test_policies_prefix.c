/* SPDX-License-Identifier: Apache-2.0 */
/* PrefixKV: the ratio against all ratios at which a layer's prefix grows, the keys kept against ranks counted key by key. */
#include <math.h>

#include "tests/gpu/policies_scene.h"

static policy_scene s;

/* How many keys of the layer come before this one. */
static int64_t rank_of(int64_t layer, int64_t key)
{
    const float *x = s.importance + layer * s.keys;
    int64_t before = 0;
    for (int64_t other = 0; other < s.keys; other++)
        before += x[other] > x[key] || (x[other] == x[key] && other < key);
    return before;
}

/* The part of the layer's importance that the first `length` keys have. Sums of these numbers are exact. */
static double part_of(int64_t layer, int64_t length)
{
    double part = 0, all = 0;
    for (int64_t key = 0; key < s.keys; key++) {
        all += (double)s.importance[layer * s.keys + key];
        part += rank_of(layer, key) < length ? (double)s.importance[layer * s.keys + key] : 0;
    }
    return part / all;
}

static int64_t length_of(const double *part, double ratio)
{
    int64_t length = 1;
    while (part[length] < ratio)
        length++;
    return length;
}

START_TEST(budgets)
{
    static double part[MOST_HEADS][MOST_KEYS + 1];
    static int32_t kept[MOST];
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; n < 10; n++) {
        int64_t counts[MOST_HEADS], most = 0;
        double ratio, best = 0;
        policy_scene_draw(&s, &random);
        for (int64_t layer = 0; layer < s.heads; layer++) {
            s.importance[layer * s.keys] += 1;
            for (int64_t length = 0; length <= s.keys; length++)
                part[layer][length] = part_of(layer, length);
        }
        const fa_policy_prefix_desc d = {.struct_size = sizeof(d),
                                         .layers = s.heads,
                                         .keys = s.keys,
                                         .importance = s.importance,
                                         .budget = random_between(&random, s.heads, s.heads * s.keys + 1)};
        ck_assert_msg(fa_policy_prefix(context, &d, &ratio, counts, kept) == FA_OK, "%s", fa_last_error());
        for (int64_t i = 0; i < s.heads * s.keys; i++) {
            const double candidate = part[i / s.keys][i % s.keys + 1];
            int64_t sum = 0;
            for (int64_t layer = 0; layer < s.heads; layer++)
                sum += length_of(part[layer], candidate);
            best = sum <= d.budget && candidate > best ? candidate : best;
        }
        ck_assert_double_eq(ratio, best);
        for (int64_t layer = 0; layer < s.heads; layer++) {
            int64_t next = 0;
            ck_assert_int_eq(counts[layer], length_of(part[layer], best));
            for (int64_t key = 0; key < s.keys; key++) {
                if (rank_of(layer, key) < counts[layer])
                    ck_assert_int_eq(kept[layer * s.keys + next++], key);
            }
            most += counts[layer];
        }
        ck_assert_int_le(most, d.budget);
    }
}
END_TEST

#define REFUSED(part)                                                                      \
    do {                                                                                   \
        ck_assert_int_eq(fa_policy_prefix(context, &d, &ratio, counts, NULL), FA_INVALID); \
        assert_message(part);                                                              \
        d = good;                                                                          \
    } while (0)

START_TEST(refused)
{
    float x[4] = {1, 0, 0, 2};
    int64_t counts[2];
    double ratio;
    const fa_policy_prefix_desc good = {
        .struct_size = sizeof(good), .layers = 2, .keys = 2, .importance = x, .budget = 2};
    fa_policy_prefix_desc d = good;
    ck_assert_int_eq(fa_policy_prefix(NULL, &d, &ratio, counts, NULL), FA_INVALID);
    ck_assert_int_eq(fa_policy_prefix(context, NULL, &ratio, counts, NULL), FA_INVALID);
    ck_assert_int_eq(fa_policy_prefix(context, &d, NULL, counts, NULL), FA_INVALID);
    ck_assert_int_eq(fa_policy_prefix(context, &d, &ratio, NULL, NULL), FA_INVALID);
    d.layers = 0;
    REFUSED("layers is 0");
    d.keys = 0;
    REFUSED("keys is 0");
    d.importance = NULL;
    REFUSED("importance is NULL");
    d.budget = 1;
    REFUSED("budget is 1");
    x[3] = -1;
    REFUSED("importance[1] of layer 1 is -1");
    x[3] = (float)NAN;
    REFUSED("importance[1] of layer 1 is");
    x[3] = 0;
    REFUSED("importance of layer 1 is 0 for all keys");
    x[3] = 2;
    memory.fail_at = memory.calls;
    ck_assert_int_eq(fa_policy_prefix(context, &d, &ratio, counts, NULL), FA_OUT_OF_MEMORY);
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("policies_prefix");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, budgets, 0, 4);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
