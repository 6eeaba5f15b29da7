/* SPDX-License-Identifier: Apache-2.0 */
/* Where a layer on many ranks stops scaling, on made-up machines, of which the right answer can be said. */
#include "core/ranks/scaling.h"
#include "tests/unit/helpers.h"

/* Attention at so many pairs of a row and a key, or keys of a head that are read, in a second; and what each run costs. */
typedef struct machine {
    double pairs, keys, run;
} machine;

static double attend(void *user, const fa_scaling_part *p)
{
    const machine *m = user;
    const double share = p->causal ? 0.5 : 1,
                 compute = share * (double)p->heads_q * (double)p->rows * (double)p->keys / m->pairs,
                 read = (double)p->heads_kv * (double)p->keys / m->keys;
    return m->run + (compute > read ? compute : read);
}

static fa_scaling_problem make(machine *m, int64_t rows, int64_t keys)
{
    return (fa_scaling_problem){.batch = 1,
                                .heads_q = 32,
                                .heads_kv = 8,
                                .rows = rows,
                                .keys = keys,
                                .dim_qk = 128,
                                .dim_v = 128,
                                .causal = rows > 1,
                                .width = 4096,
                                .kv_size = 2,
                                .y_size = 2,
                                .flops = 1e15,
                                .bandwidth = 1e13,
                                .link_latency = 0,
                                .link_bandwidth = 1e30,
                                .chunk_seconds = 0,
                                .attention = attend,
                                .user = m};
}

/* Without a link to pay for, n ranks are n times as fast, until there is nothing left to divide. */
START_TEST(a_free_link)
{
    machine computes = {.pairs = 1e12, .keys = 1e30}, reads = {.pairs = 1e30, .keys = 1e9};
    fa_scaling_problem prompt = make(&computes, 1 << 17, 1 << 17), step = make(&reads, 1, 1 << 24);
    fa_scaling_point beyond;
    const double one = fa_scaling_at(&prompt, FA_SCALING_RING, 1).seconds;
    prompt.bandwidth = step.bandwidth = 1e30;
    for (int32_t ranks = 2; ranks <= 1024; ranks *= 2)
        ck_assert_double_eq_tol(one / fa_scaling_at(&prompt, FA_SCALING_RING, ranks).seconds, ranks,
                                1e-3 * ranks);
    ck_assert_int_eq(fa_scaling_end(&prompt, FA_SCALING_RING, 1024, &beyond).ranks, 1024);
    ck_assert_int_eq(beyond.ranks, 1024);
    ck_assert_int_eq(fa_scaling_end(&step, FA_SCALING_CONTEXT, 1024, &beyond).ranks, 1024);
    ck_assert_int_eq(fa_scaling_end(&prompt, FA_SCALING_HEADS, 1024, &beyond).ranks, 32);
    ck_assert_int_eq(beyond.ranks, 64);
    ck_assert_int_eq(beyond.limit, FA_SCALING_PARTS);
    /* In decoding the keys of a KV head are read by each rank that has a query head of it. */
    ck_assert_int_eq(fa_scaling_end(&step, FA_SCALING_HEADS, 1024, &beyond).ranks, 8);
    ck_assert_int_eq(beyond.limit, FA_SCALING_FIXED);
}
END_TEST

/* One thing at a time that more ranks do not shorten. */
START_TEST(reasons)
{
    machine m = {.pairs = 1e12, .keys = 1e9};
    const fa_scaling_problem prompt = make(&m, 1 << 14, 1 << 14), step = make(&m, 1, 1 << 20);
    fa_scaling_point beyond;

    fa_scaling_problem p = prompt;
    p.link_latency = 1e-2; /* of some 4 ms */
    ck_assert_int_eq(fa_scaling_end(&p, FA_SCALING_HEADS, 1024, &beyond).ranks, 1);
    ck_assert_int_eq(beyond.limit, FA_SCALING_LATENCY);
    ck_assert_int_eq(fa_scaling_end(&p, FA_SCALING_RING, 1024, &beyond).ranks, 1);
    ck_assert_int_eq(beyond.limit, FA_SCALING_LATENCY);

    p = prompt;
    p.link_bandwidth = 1e10; /* K and V are 67 MB, y is 134 MB */
    ck_assert_int_le(fa_scaling_end(&p, FA_SCALING_HEADS, 1024, &beyond).ranks, 2);
    ck_assert_int_eq(beyond.limit, FA_SCALING_BANDWIDTH);
    const int32_t ring = fa_scaling_end(&p, FA_SCALING_RING, 1024, &beyond).ranks;
    ck_assert(ring >= 1 && ring < 1024);
    ck_assert_int_eq(beyond.limit, FA_SCALING_BANDWIDTH);

    p = step;
    p.link_latency =
        1e-3; /* 8.4 ms of reading: 4.1 with two messages and a quarter of it, 4.05 with three and an eighth */
    ck_assert_int_eq(fa_scaling_end(&p, FA_SCALING_CONTEXT, 1024, &beyond).ranks, 4);
    ck_assert_int_eq(beyond.limit, FA_SCALING_LATENCY);
    p = step;
    p.link_bandwidth = 1e8; /* a state is 16,512 bytes */
    ck_assert_int_lt(fa_scaling_end(&p, FA_SCALING_CONTEXT, 1024, &beyond).ranks, 16);
    ck_assert_int_eq(beyond.limit, FA_SCALING_BANDWIDTH);
    p = step;
    p.bandwidth = 1e10; /* of W, which is 33 MB */
    (void)fa_scaling_end(&p, FA_SCALING_CONTEXT, 1024, &beyond);
    ck_assert_int_eq(beyond.limit, FA_SCALING_WHOLE);

    m.run = 1e-3;
    p = step;
    ck_assert_int_eq(fa_scaling_end(&p, FA_SCALING_CONTEXT, 1024, &beyond).ranks, 16);
    ck_assert_int_eq(beyond.limit, FA_SCALING_FIXED);
    p = prompt;
    (void)fa_scaling_end(&p, FA_SCALING_RING, 1024, &beyond);
    ck_assert_int_eq(beyond.limit, FA_SCALING_FIXED);
}
END_TEST

/* A link that hides behind what is computed costs one shift at most; one that does not, all but one. */
START_TEST(what_is_hidden)
{
    machine m = {.pairs = 1e12, .keys = 1e30};
    fa_scaling_problem p = make(&m, 1 << 16, 1 << 16);
    p.bandwidth = p.flops = 1e30;
    const fa_scaling_point free_of = fa_scaling_at(&p, FA_SCALING_RING, 8);
    ck_assert_int_eq(free_of.chunks, 8);
    p.link_latency = 0.4 * free_of.seconds / 8;
    const fa_scaling_point hidden = fa_scaling_at(&p, FA_SCALING_RING, 8);
    ck_assert_double_eq_tol(hidden.seconds, free_of.seconds, 1e-9 * free_of.seconds);
    ck_assert_double_eq_tol(hidden.link, 7 * p.link_latency, 1e-9);
    p.link_latency = 10 * free_of.seconds;
    const fa_scaling_point seen = fa_scaling_at(&p, FA_SCALING_RING, 8);
    ck_assert_double_eq_tol(seen.seconds, 7 * p.link_latency + free_of.seconds / 8, 1e-3 * seen.seconds);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("scaling");
    TCase *tc = tcase_create("scaling");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, a_free_link);
    tcase_add_test(tc, reasons);
    tcase_add_test(tc, what_is_hidden);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
