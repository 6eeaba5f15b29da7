/* SPDX-License-Identifier: Apache-2.0 */
/* KVMerger: sets and weights against the definition key by key, attention against merged keys in double precision. */
#include <math.h>

#include "tests/gpu/policies_scene.h"

static policy_scene s;
static double merged_k[MOST * DIM], merged_v[MOST * DIM];

static const float *key_of(int64_t head, int64_t key)
{
    return s.k + (head * s.keys + key) * DIM;
}

static bool stays(const fa_policy_merge_desc *d, int64_t head, int64_t key)
{
    const float *x = s.importance + head * s.keys;
    int64_t before = 0;
    if (key >= s.keys - d->recent)
        return true;
    for (int64_t other = 0; other < s.keys - d->recent; other++)
        before += x[other] > x[key] || (x[other] == x[key] && other < key);
    return before < d->heavy;
}

static bool joined(const fa_policy_merge_desc *d, int64_t head, int64_t key)
{
    double product = 0, one = 0, other = 0;
    if (key < 0 || key + 1 >= s.keys || stays(d, head, key) || stays(d, head, key + 1))
        return false;
    for (int64_t i = 0; i < DIM; i++) {
        const double a = (double)key_of(head, key)[i], b = (double)key_of(head, key + 1)[i];
        product += a * b;
        one += a * a;
        other += b * b;
    }
    return one > 0 && other > 0 && product / sqrt(one * other) > d->threshold;
}

static double squared(int64_t head, int64_t one, int64_t other)
{
    double sum = 0;
    for (int64_t i = 0; i < DIM; i++)
        sum += pow((double)key_of(head, one)[i] - (double)key_of(head, other)[i], 2);
    return sum;
}

/* The weights of a set that begins there. */
static void weigh(const fa_policy_merge_desc *d, int64_t head, int64_t first, int64_t count, double *weights)
{
    const float *x = s.importance + head * s.keys + first;
    int64_t pivot = 0;
    double variance = d->sigma * d->sigma, sum = 0;
    for (int64_t i = 0; i < count; i++)
        pivot = x[i] > x[pivot] ? i : pivot;
    for (int64_t i = 0; i < count && d->sigma == 0; i++)
        variance += squared(head, first + pivot, first + i) / (double)(count - 1);
    for (int64_t i = 0; i < count; i++) {
        const double distance = squared(head, first + pivot, first + i);
        weights[i] = distance == 0 ? 1 : exp(-distance / (2 * variance));
        sum += weights[i];
    }
    for (int64_t i = 0; i < count; i++)
        weights[i] /= sum;
}

/* Returns the keys of the longest set. What sets become is written behind each other. */
static int64_t expect_lists(const fa_policy_merge_desc *d)
{
    int64_t n = 0, longest = 1;
    for (int64_t head = 0; head < s.heads; head++) {
        for (int64_t key = 0; key < s.keys; n++) {
            double weights[MOST_KEYS] = {1};
            int64_t keys[MOST_KEYS], count = 1;
            while (joined(d, head, key + count - 1))
                count++;
            for (int64_t i = 0; i < count; i++)
                keys[i] = key + i;
            if (count > 1)
                weigh(d, head, key, count, weights);
            policy_expect_list(&s, n, head, keys, weights, count);
            for (int64_t i = 0; i < DIM; i++) {
                merged_k[n * DIM + i] = merged_v[n * DIM + i] = 0;
                for (int64_t j = 0; j < count; j++) {
                    merged_k[n * DIM + i] += weights[j] * (double)key_of(head, key + j)[i];
                    merged_v[n * DIM + i] += weights[j] * (double)s.v[(head * s.keys + key + j) * DIM + i];
                }
            }
            key += count;
            longest = count > longest ? count : longest;
        }
        ck_assert_int_eq(s.cu_keys[head + 1], n);
    }
    return longest;
}

static void expect_output(int64_t longest)
{
    static float o[MOST_HEADS * MOST_GROUP * ROWS * DIM];
    static double times[MOST];
    policy_attend(&s, NULL, o);
    for (int i = 0; i < MOST; i++)
        times[i] = 1;
    for (int64_t row = 0; row < s.heads * s.group * ROWS; row++) {
        const int64_t head = row / ROWS / s.group, first = s.cu_keys[head];
        double exact[DIM];
        policy_exact(s.q + row * DIM, s.cu_keys[head + 1] - first, merged_k + first * DIM,
                     merged_v + first * DIM, times, exact);
        for (int64_t i = 0; i < DIM; i++)
            ck_assert_msg(fabs((double)o[row * DIM + i] - exact[i]) <= policy_tolerance(longest),
                          "o of row %lld is %g, expected %g", (long long)row, (double)o[row * DIM + i],
                          exact[i]);
    }
}

START_TEST(merged)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 1 : 10); n++) {
        policy_scene_draw(&s, &random);
        /* Most keys are like the one before, some are the same, some are 0. */
        for (int64_t i = DIM; i < s.heads * s.keys * DIM; i++) {
            const int64_t kind = (i / DIM * 7) % 10;
            s.k[i] = kind < 6 ? s.k[i - DIM] + s.k[i] / 4 : kind == 6 ? s.k[i - DIM] : kind == 7 ? 0 : s.k[i];
            s.k[i] = s.k[i] > 2 ? 2 : s.k[i] < -2 ? -2 : s.k[i];
        }
        fa_policy_merge_desc d = {.struct_size = sizeof(d),
                                  .heads = s.heads,
                                  .keys = s.keys,
                                  .dim = DIM,
                                  .k = s.k,
                                  .importance = s.importance,
                                  .threshold = n % 2 == 0 ? 0 : 0.4,
                                  .sigma = (double)random_between(&random, 0, 1),
                                  .recent = random_between(&random, 0, 20),
                                  .heavy = random_between(&random, 0, 9)};
        ck_assert_msg(fa_policy_merge(context, &d, &s.lists) == FA_OK, "%s", fa_last_error());
        d.threshold = d.threshold == 0 ? 0.75 : d.threshold;
        expect_output(expect_lists(&d));
    }
}
END_TEST

#define REFUSED(part)                                                         \
    do {                                                                      \
        ck_assert_int_eq(fa_policy_merge(context, &d, &s.lists), FA_INVALID); \
        assert_message(part);                                                 \
        d = good;                                                             \
    } while (0)

START_TEST(refused)
{
    random_state random = {3};
    policy_scene_draw(&s, &random);
    const fa_policy_merge_desc good = {
        .struct_size = sizeof(good), .heads = 2, .keys = 3, .dim = DIM, .k = s.k, .importance = s.importance};
    fa_policy_merge_desc d = good;
    ck_assert_int_eq(fa_policy_merge(NULL, &d, &s.lists), FA_INVALID);
    ck_assert_int_eq(fa_policy_merge(context, NULL, &s.lists), FA_INVALID);
    ck_assert_int_eq(fa_policy_merge(context, &d, NULL), FA_INVALID);
    d.heads = 0;
    REFUSED("heads is 0");
    d.keys = -1;
    REFUSED("keys is -1");
    d.dim = 0;
    REFUSED("dim is 0");
    d.k = NULL;
    REFUSED("k is NULL");
    d.importance = NULL;
    REFUSED("importance is NULL");
    d.threshold = 1.5;
    REFUSED("threshold is 1.5");
    d.sigma = (double)INFINITY;
    REFUSED("sigma is inf");
    d.recent = -1;
    REFUSED("recent is -1");
    d.heavy = -1;
    REFUSED("heavy is -1");
    s.importance[4] = (float)NAN;
    REFUSED("importance[1] of head 1 is NaN");
    s.importance[4] = 0;
    for (int n = 0; n < 2; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_policy_merge(context, &d, &s.lists), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("policies_merge");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, merged, 0, 4);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
