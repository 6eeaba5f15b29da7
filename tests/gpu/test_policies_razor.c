/* SPDX-License-Identifier: Apache-2.0 */
/* RazorAttention: lists and bias against the definition key by key, attention against the paper's sum over all keys. */
#include <math.h>
#include <string.h>

#include "tests/gpu/policies_scene.h"

static policy_scene s;
static uint8_t retrieval[MOST_HEADS];
static float bias[MOST], o[MOST_HEADS * MOST_GROUP * ROWS * DIM];

static bool drops(const fa_policy_razor_desc *d, int64_t head, int64_t key)
{
    const int64_t recent = (double)d->recent > (double)d->keys / d->ratio
                               ? d->recent
                               : (int64_t)floor((double)d->keys / d->ratio);
    return !d->retrieval[head] && key >= (d->sinks < 0 ? 0 : d->sinks) && key < d->keys - recent;
}

static int64_t expect_lists(const fa_policy_razor_desc *d)
{
    int64_t n = 0, most = 0;
    ck_assert_int_eq(s.cu_keys[0], 0);
    for (int64_t head = 0; head < s.heads; head++) {
        int64_t dropped[MOST_KEYS], count = 0;
        double weights[MOST_KEYS];
        for (int64_t key = 0; key < s.keys; key++) {
            if (drops(d, head, key))
                dropped[count++] = key;
        }
        for (int64_t i = 0; i < count; i++)
            weights[i] = 1 / (double)count;
        if (count > 0)
            policy_expect_list(&s, n++, head, dropped, weights, count);
        for (int64_t key = 0; key < s.keys; key++) {
            if (!drops(d, head, key))
                policy_expect_key(&s, n++, head, key);
        }
        ck_assert_int_eq(s.cu_keys[head + 1], n);
        for (int64_t i = 0; i < s.keys; i++)
            ck_assert_float_eq(bias[head * s.keys + i], i == 0 && count > 0 ? (float)log((double)count) : 0);
        most = count > most ? count : most;
    }
    return most;
}

/* The paper's sum: a mean of what is dropped that counts so often, and the keys that are not. */
static void expect_output(const fa_policy_razor_desc *d, int64_t longest)
{
    static double k[(MOST_KEYS + 1) * DIM], v[(MOST_KEYS + 1) * DIM], times[MOST_KEYS + 1];
    for (int64_t head = 0; head < s.heads; head++) {
        int64_t count = 1;
        memset(k, 0, sizeof(k));
        memset(v, 0, sizeof(v));
        memset(times, 0, sizeof(times));
        for (int64_t key = 0; key < s.keys; key++) {
            const int64_t to = drops(d, head, key) ? 0 : count++;
            times[to] += 1;
            for (int64_t i = 0; i < DIM; i++) {
                k[to * DIM + i] += (double)s.k[(head * s.keys + key) * DIM + i];
                v[to * DIM + i] += (double)s.v[(head * s.keys + key) * DIM + i];
            }
        }
        for (int64_t i = 0; i < DIM && times[0] > 0; i++) {
            k[i] /= times[0];
            v[i] /= times[0];
        }
        for (int64_t row = head * s.group * ROWS; row < (head + 1) * s.group * ROWS; row++) {
            double exact[DIM];
            policy_exact(s.q + row * DIM, count, k, v, times, exact);
            for (int64_t i = 0; i < DIM; i++)
                ck_assert_msg(fabs((double)o[row * DIM + i] - exact[i]) <= policy_tolerance(longest),
                              "o of row %lld is %g, expected %g", (long long)row, (double)o[row * DIM + i],
                              exact[i]);
        }
    }
}

START_TEST(compensation)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 1 : 10); n++) {
        policy_scene_draw(&s, &random);
        for (int h = 0; h < MOST_HEADS; h++)
            retrieval[h] = (uint8_t)random_between(&random, 0, 1);
        const fa_policy_razor_desc d = {
            .struct_size = sizeof(d),
            .heads = s.heads,
            .keys = s.keys,
            .retrieval = retrieval,
            .sinks = random_between(&random, 0, 1) ? -1 : random_between(&random, 1, 9),
            .recent = random_between(&random, 1, 20),
            .ratio = (double)random_between(&random, 2, 20) / 2};
        memset(bias, 0x7f, sizeof(bias));
        ck_assert_msg(fa_policy_razor(&d, &s.lists, bias) == FA_OK, "%s", fa_last_error());
        const int64_t longest = expect_lists(&d);
        policy_attend(&s, bias, o);
        expect_output(&d, longest);
    }
}
END_TEST

START_TEST(razor_defaults)
{
    enum { KEYS = 30000 };
    static int32_t cu_keys[2], offsets[KEYS + 1], rows[KEYS];
    static float weights[KEYS], biases[KEYS + 5];
    const uint8_t none = 0;
    const fa_policy_lists lists = {sizeof(lists), cu_keys, offsets, rows, weights};
    fa_policy_razor_desc d = {
        .struct_size = sizeof(d), .heads = 1, .keys = KEYS, .retrieval = &none, .bias_keys = KEYS + 5};
    ck_assert_int_eq(fa_policy_razor(&d, &lists, biases), FA_OK);
    ck_assert_int_eq(cu_keys[1], 1 + 4 + KEYS / 5);
    ck_assert_float_eq(biases[0], (float)log(KEYS - 4 - KEYS / 5));
    ck_assert_float_eq(biases[KEYS + 4], 0);
    d.keys = 10000;
    ck_assert_int_eq(fa_policy_razor(&d, &lists, NULL), FA_OK);
    ck_assert_int_eq(cu_keys[1], 1 + 4 + 4000);
}
END_TEST

/* The weight of a key in causal attention, as the definition has it. */
static double weight_of(int64_t head, int64_t row, int64_t key, int64_t rows, int64_t group)
{
    double whole = 0, its = 0;
    for (int64_t j = 0; j <= row; j++) {
        double x = 0;
        for (int64_t i = 0; i < DIM; i++)
            x +=
                (double)s.q[(head * rows + row) * DIM + i] * (double)s.k[(head / group * rows + j) * DIM + i];
        whole += exp(x / 4);
        its = j == key ? exp(x / 4) : its;
    }
    return its / whole;
}

START_TEST(scores)
{
    enum { HEADS = 4, GROUP = 2, LENGTH = 6, PERIOD = 2 };
    random_state random = {3};
    double induction[HEADS], echo[HEADS];
    policy_scene_draw(&s, &random);
    fa_policy_razor_scores_desc d = {.struct_size = sizeof(d),
                                     .heads_q = HEADS,
                                     .heads_kv = HEADS / GROUP,
                                     .rows = LENGTH,
                                     .dim = DIM,
                                     .q = s.q,
                                     .k = s.k,
                                     .period = PERIOD};
    float lse[HEADS * LENGTH];
    for (int with_lse = 0; with_lse < 2; with_lse++) {
        d.lse = with_lse ? lse : NULL;
        ck_assert_int_eq(fa_policy_razor_scores(&d, induction, echo), FA_OK);
        for (int64_t head = 0; head < HEADS; head++) {
            double same = 0, next = 0;
            for (int64_t row = PERIOD; row < LENGTH; row++) {
                for (int64_t key = 0; key < row; key++) {
                    if ((row - key) % PERIOD == 0) {
                        same += weight_of(head, row, key, LENGTH, GROUP) / (LENGTH - PERIOD);
                        next += weight_of(head, row, key + 1, LENGTH, GROUP) / (LENGTH - PERIOD);
                    }
                }
            }
            ck_assert_msg(fabs(echo[head] - same) <= (with_lse ? 1e-5 : 1e-12), "echo %g", echo[head]);
            ck_assert_msg(fabs(induction[head] - next) <= (with_lse ? 1e-5 : 1e-12), "induction %g",
                          induction[head]);
        }
        /* A second time with LSEs as attention would leave them. */
        for (int64_t n = 0; n < HEADS * LENGTH; n++) {
            double x = 0;
            for (int64_t i = 0; i < DIM; i++)
                x += (double)s.q[n * DIM + i] * (double)s.k[n / LENGTH / GROUP * LENGTH * DIM + i];
            lse[n] = (float)(x / 4 - log(weight_of(n / LENGTH, n % LENGTH, 0, LENGTH, GROUP)));
        }
    }
}
END_TEST

START_TEST(heads)
{
    enum { HEADS = 100, GROUP = 4 };
    double induction[HEADS], echo[HEADS];
    uint8_t found[HEADS / GROUP];
    for (int h = 0; h < HEADS; h++) {
        induction[h] = (h * 37) % 50; /* each number twice */
        echo[h] = h == 77 ? 1 : 0;
    }
    ck_assert_int_eq(fa_policy_razor_heads(context, HEADS, GROUP, induction, echo, 0, 0, found), FA_OK);
    for (int n = 0; n < HEADS / GROUP; n++) {
        bool expected = n == 77 / GROUP;
        for (int h = n * GROUP; h < (n + 1) * GROUP; h++)
            expected = expected || induction[h] >= 43; /* the upper 7 numbers are 14 heads */
        ck_assert_int_eq(found[n], expected);
    }
    ck_assert_int_eq(fa_policy_razor_heads(context, HEADS, GROUP, induction, echo, -1, 1e-9, found), FA_OK);
    for (int n = 0; n < HEADS / GROUP; n++)
        ck_assert_int_eq(found[n], n == 77 / GROUP);
}
END_TEST

#define REFUSED(part)                                                    \
    do {                                                                 \
        ck_assert_int_eq(fa_policy_razor(&d, &lists, NULL), FA_INVALID); \
        assert_message(part);                                            \
        d = good;                                                        \
        lists = s.lists;                                                 \
    } while (0)

START_TEST(refused)
{
    random_state random = {3};
    policy_scene_draw(&s, &random);
    const fa_policy_razor_desc good = {
        .struct_size = sizeof(good), .heads = 1, .keys = 5, .retrieval = retrieval};
    fa_policy_razor_desc d = good;
    fa_policy_lists lists = s.lists;
    ck_assert_int_eq(fa_policy_razor(NULL, &lists, NULL), FA_INVALID);
    ck_assert_int_eq(fa_policy_razor(&d, NULL, NULL), FA_INVALID);
    lists.cu_keys = NULL;
    REFUSED("lists.cu_keys is NULL");
    lists.offsets = NULL;
    REFUSED("lists.offsets is NULL");
    lists.rows = NULL;
    REFUSED("lists.rows is NULL");
    lists.weights = NULL;
    REFUSED("lists.weights is NULL");
    lists.struct_size = 1;
    REFUSED("fa_policy_lists");
    d.heads = 0;
    REFUSED("heads is 0");
    d.keys = 0;
    REFUSED("keys is 0");
    d.heads = 10;
    d.keys = FA_MAX_LENGTH;
    REFUSED("keys is 268435456 of 10 heads");
    d.retrieval = NULL;
    REFUSED("retrieval is NULL");
    d.sinks = -2;
    REFUSED("sinks is -2");
    d.recent = -1;
    REFUSED("recent is -1");
    d.ratio = 0.5;
    REFUSED("ratio is 0.5");
    d.ratio = (double)NAN;
    REFUSED("ratio is");
    d.bias_keys = 4;
    REFUSED("bias_keys is 4");
}
END_TEST

START_TEST(scores_refused)
{
    const double x[3] = {0};
    uint8_t found[3];
    fa_policy_razor_scores_desc d = {.struct_size = sizeof(d),
                                     .heads_q = 1,
                                     .heads_kv = 1,
                                     .rows = 5,
                                     .dim = 1,
                                     .q = s.q,
                                     .k = s.k,
                                     .period = 5};
    double score;
    ck_assert_int_eq(fa_policy_razor_scores(&d, &score, &score), FA_INVALID);
    assert_message("period is 5");
    d.period = 2;
    d.scale = (double)INFINITY;
    ck_assert_int_eq(fa_policy_razor_scores(&d, &score, &score), FA_INVALID);
    assert_message("scale is inf");
    ck_assert_int_eq(fa_policy_razor_scores(&d, NULL, &score), FA_INVALID);
    assert_message("induction is NULL");
    ck_assert_int_eq(fa_policy_razor_heads(context, 3, 2, x, x, 0, 0, found), FA_INVALID);
    assert_message("heads_q is 3, expected a multiple of group, 2");
    ck_assert_int_eq(fa_policy_razor_heads(context, 3, 1, x, x, 2, 0, found), FA_INVALID);
    assert_message("induction_part is 2");
    ck_assert_int_eq(fa_policy_razor_heads(context, 3, 1, x, x, 0, (double)NAN, found), FA_INVALID);
    assert_message("echo_part is");
    ck_assert_int_eq(fa_policy_razor_heads(context, 3, 1, x, NULL, 0, 0, found), FA_INVALID);
    assert_message("echo is NULL");
    memory.fail_at = memory.calls;
    ck_assert_int_eq(fa_policy_razor_heads(context, 3, 1, x, x, 0, 0, found), FA_OUT_OF_MEMORY);
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("policies_razor");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, compensation, 0, 3);
    tcase_add_test(tc, razor_defaults);
    tcase_add_test(tc, scores);
    tcase_add_test(tc, heads);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, scores_refused);
    return run_on_backend(suite);
}
