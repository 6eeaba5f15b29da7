/* SPDX-License-Identifier: Apache-2.0 */
/* Transports: sums and gathers of ranks that are threads; what happens where one does not come, or brings something else. */
#include <fastattn/reference.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "core/half.h"
#include "core/ranks/transport.h"
#include "tests/ranks/on_ranks.h"

enum { MOST = 3000 };
static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
static const int64_t counts[] = {0, 1, 7, 513, MOST};

/* Element i of a rank, as its type has it. Sums of these are rounded. */
static float element(fa_dtype dtype, int32_t rank, int64_t i)
{
    random_state random = {(uint64_t)(rank * MOST + i + 1)};
    float value = random_float(&random, -1, 1);
    char rounded[4];
    fa_store(dtype, rounded, 0, value);
    return fa_load(dtype, rounded, 0);
}

static void sum_all(a_rank *r)
{
    static const char guard[4] = {0x55, 0x55, 0x55, 0x55};
    const int32_t ranks = r->transport->ranks;
    int wrong = 0;
    for (int t = 0; t < COUNT(types); t++) {
        const size_t size = fa_dtype_size(types[t]);
        for (int c = 0; c < COUNT(counts); c++) {
            char data[4 * MOST + 4], expected[4];
            for (int64_t i = 0; i < counts[c]; i++)
                fa_store(types[t], data, i, element(types[t], r->transport->rank, i));
            memcpy(data + (size_t)counts[c] * size, guard, sizeof(guard));
            keep_status(r, fa_allreduce(r->transport, types[t], data, counts[c]));
            if (r->status != FA_OK)
                return;
            for (int64_t i = 0; i < counts[c]; i++) {
                float sum = element(types[t], 0, i);
                for (int32_t other = 1; other < ranks; other++)
                    sum += element(types[t], other, i);
                fa_store(types[t], expected, 0, sum);
                wrong += memcmp(expected, data + (size_t)i * size, size) != 0;
            }
            wrong += memcmp(data + (size_t)counts[c] * size, guard, sizeof(guard)) != 0;
        }
    }
    *((int *)r->user + r->transport->rank) = wrong;
}

START_TEST(sums_in_the_order_of_ranks)
{
    for (int32_t count = 1; count <= MOST_RANKS; count++) {
        a_rank ranks[MOST_RANKS];
        int wrong[MOST_RANKS] = {0};
        on_ranks(count, 0, 0, 10, sum_all, wrong, ranks);
        for (int32_t i = 0; i < count; i++) {
            ck_assert_msg(ranks[i].status == FA_OK, "%s", ranks[i].message);
            ck_assert_msg(wrong[i] == 0, "rank %d of %d: %d elements are wrong", i, count, wrong[i]);
        }
    }
}
END_TEST

static void gather_all(a_rank *r)
{
    int64_t own[3], all[3 * MOST_RANKS];
    for (int64_t i = 0; i < 3; i++)
        own[i] = 100 * r->transport->rank + i;
    keep_status(r, fa_allgather(r->transport, own, all, sizeof(own)));
    for (int64_t i = 0; r->status == FA_OK && i < 3 * r->transport->ranks; i++) {
        if (all[i] != 100 * (i / 3) + i % 3)
            r->status = FA_INVALID;
    }
    if (r->status == FA_OK)
        keep_status(r, fa_allgather(r->transport, NULL, NULL, 0));
}

START_TEST(gathers)
{
    for (int32_t count = 1; count <= MOST_RANKS; count++) {
        a_rank ranks[MOST_RANKS];
        on_ranks(count, 0, 0, 10, gather_all, NULL, ranks);
        for (int32_t i = 0; i < count; i++)
            ck_assert_msg(ranks[i].status == FA_OK, "rank %d: %s", i, ranks[i].message);
    }
}
END_TEST

/* Each has what the one before it sent, of sizes from none on, and nothing behind it. */
static void shift_all(a_rank *r)
{
    const int32_t own = r->transport->rank, ranks = r->transport->ranks, before = (own + ranks - 1) % ranks;
    for (int64_t count = 0; count <= 3; count++) {
        int64_t sent[3], received[4] = {-1, -1, -1, -1};
        for (int64_t i = 0; i < 3; i++)
            sent[i] = 100 * own + i;
        keep_status(r, fa_shift(r->transport, sent, received, (size_t)count * sizeof(*sent)));
        for (int64_t i = 0; r->status == FA_OK && i < 4; i++)
            r->status = received[i] == (i < count ? 100 * before + i : -1) ? FA_OK : FA_INVALID;
    }
}

START_TEST(shifts)
{
    for (int32_t count = 1; count <= MOST_RANKS; count++) {
        a_rank ranks[MOST_RANKS];
        on_ranks(count, 0, 0, 10, shift_all, NULL, ranks);
        for (int32_t i = 0; i < count; i++)
            ck_assert_msg(ranks[i].status == FA_OK, "rank %d of %d: %s", i, count, ranks[i].message);
    }
}
END_TEST

/* Rank 1 comes to one call and no more. The others try again after the time-out, which must not take as long. */
static void leave(a_rank *r)
{
    float data[2] = {1, 2};
    keep_status(r, fa_allreduce(r->transport, FA_F32, data, 2));
    if (r->transport->rank == 1)
        return;
    keep_status(r, fa_allreduce(r->transport, FA_F32, data, 2));
    const double start = fa_clock();
    if (r->status == FA_RANK_LOST && fa_allreduce(r->transport, FA_F32, data, 2) == FA_RANK_LOST &&
        fa_clock() - start > 0.5)
        r->status = FA_INVALID;
}

START_TEST(a_rank_that_is_gone)
{
    a_rank ranks[MOST_RANKS];
    double longest = 0;
    on_ranks(4, 0, 0, 1, leave, NULL, ranks);
    for (int32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(ranks[i].status, i == 1 ? FA_OK : FA_RANK_LOST);
        ck_assert_double_lt(ranks[i].seconds, 1 + SLACK);
        if (i == 1)
            continue;
        longest = fmax(longest, ranks[i].seconds);
        ck_assert_msg(strstr(ranks[i].message, "rank 1 did not come within 1 s") != NULL, "%s",
                      ranks[i].message);
    }
    ck_assert_double_ge(longest, 1); /* who came first */
}
END_TEST

static void disagree(a_rank *r)
{
    float data[4] = {1, 2, 3, 4};
    const int32_t own = r->transport->rank;
    keep_status(r, fa_allreduce(r->transport, FA_F32, data, own == 2 ? 4 : 2));
    const fa_status again = fa_allreduce(r->transport, FA_F32, data, 2);
    if (again != FA_OK || data[0] != 3 || data[3] != 4)
        keep_status(r, again);
}

START_TEST(calls_that_differ)
{
    a_rank ranks[MOST_RANKS];
    on_ranks(3, 0, 0, 10, disagree, NULL, ranks);
    for (int32_t i = 0; i < 3; i++) {
        ck_assert_int_eq(ranks[i].status, FA_INVALID);
        ck_assert_msg(
            strstr(ranks[i].message, "allreduce of 2 f32 on rank 0, allreduce of 4 f32 on rank 2") != NULL,
            "%s", ranks[i].message);
    }
}
END_TEST

static void reduce_once(a_rank *r)
{
    static float data[2][1000];
    keep_status(r, fa_allreduce(r->transport, FA_F32, data[r->transport->rank], 1000));
}

START_TEST(links_of_a_stated_speed)
{
    a_rank ranks[MOST_RANKS];
    on_ranks(2, 0.02, 4000 / 0.03, 10, reduce_once, NULL, ranks);
    for (int32_t i = 0; i < 2; i++) {
        ck_assert_int_eq(ranks[i].status, FA_OK);
        ck_assert_double_ge(ranks[i].seconds,
                            0.05 - 0.01); /* the other's thread may start before the clock does */
        ck_assert_double_lt(ranks[i].seconds, 0.05 + SLACK);
    }
    on_ranks(2, 5, 0, 0.1, reduce_once, NULL, ranks);
    for (int32_t i = 0; i < 2; i++) {
        ck_assert_int_eq(ranks[i].status, FA_RANK_LOST);
        ck_assert_double_lt(ranks[i].seconds, 0.1 + SLACK);
        ck_assert_msg(strstr(ranks[i].message, "the link is not done within 0.1 s") != NULL, "%s",
                      ranks[i].message);
    }
}
END_TEST

static void measure(a_rank *r)
{
    keep_status(r, fa_transport_measure(context, r->transport));
    ((double *)r->user)[2 * r->transport->rank] = r->transport->latency;
    ((double *)r->user)[2 * r->transport->rank + 1] = r->transport->bandwidth;
}

START_TEST(measures_a_link)
{
    a_rank ranks[MOST_RANKS];
    double found[2 * MOST_RANKS];
    on_ranks(3, 2e-4, 100e6, 10, measure, found, ranks);
    for (int32_t i = 0; i < 3; i++) {
        ck_assert_msg(ranks[i].status == FA_OK, "%s", ranks[i].message);
        ck_assert_double_ge(found[2 * i], 2e-4);
        ck_assert_double_lt(found[2 * i], 20e-3); /* a busy machine adds to it */
        ck_assert_double_gt(found[2 * i + 1], 20e6);
        ck_assert_double_lt(found[2 * i + 1], 300e6);
        ck_assert(memcmp(found, found + 2 * i, 2 * sizeof(double)) == 0);
    }
}
END_TEST

static void agree(a_rank *r)
{
    const int32_t own = r->transport->rank, kind = *(int *)r->user;
    const fa_rank_word words[] = {{"width", 64}, {"o.shape[2]", kind == 1 && own == 2 ? 9 : 8}};
    fa_rank_share share[2] = {{.own = own}, {.own = -own}};
    const fa_status before = kind == 2 && own == 1 ? fa_fail(FA_UNSUPPORTED, "no such kernel") : FA_OK;
    keep_status(r, fa_ranks_agree(context, r->transport, kind == 3 && own == 0 ? "a context" : "a layer",
                                  before, words, 2, share, 2));
    if (r->status == FA_OK &&
        (share[0].least != 0 || share[0].most != 2 || share[1].least != -2 || share[1].most != 0))
        r->status = FA_IO;
}

START_TEST(agreement)
{
    a_rank ranks[MOST_RANKS];
    static const char *const expected[4][3] = {
        {"", "", ""},
        {"o.shape[2] is 8 on rank 0 and 9 on rank 2", "o.shape[2] is 8 on rank 1 and 9 on rank 2",
         "o.shape[2] is 9 on rank 2 and 8 on rank 0"},
        {"rank 1 failed to make a layer with FA_UNSUPPORTED", "no such kernel",
         "rank 1 failed to make a layer with FA_UNSUPPORTED"},
        {"rank 1 makes something else than rank 0, which makes a context",
         "rank 0 makes something else than rank 1, which makes a layer",
         "rank 0 makes something else than rank 2, which makes a layer"},
    };
    static const fa_status status[] = {FA_OK, FA_INVALID, FA_UNSUPPORTED, FA_INVALID};
    for (int kind = 0; kind < 4; kind++) {
        on_ranks(3, 0, 0, 10, agree, &kind, ranks);
        for (int32_t i = 0; i < 3; i++) {
            ck_assert_msg(ranks[i].status == status[kind], "%d, rank %d: %s", kind, i, ranks[i].message);
            ck_assert_msg(strstr(ranks[i].message, expected[kind][i]) != NULL, "%d, rank %d: %s", kind, i,
                          ranks[i].message);
        }
    }
}
END_TEST

/* More ranks than fit without memory: one has none, at the first request or never. */
enum { MANY = 32, POOR = 17 };

typedef struct one_of_many {
    pthread_t thread;
    fa_transport *transport;
    int poor;
    fa_status status;
    char message[256];
    double seconds;
} one_of_many;

static void *agree_among_many(void *argument)
{
    one_of_many *one = argument;
    const fa_rank_word word = {"width", 64};
    fa_rank_share share = {.own = one->transport->rank};
    counting own = {.fail_at = -1};
    const fa_context_options options = {.struct_size = sizeof(options),
                                        .allocator = counting_allocator(&own)};
    fa_context *poor = NULL;
    const double start = fa_clock();
    one->status = one->poor ? fa_context_create(&options, &poor) : FA_OK;
    own.fail_at = own.calls;
    if (one->status == FA_OK)
        one->status =
            fa_ranks_agree(poor ? poor : context, one->transport, "a layer", FA_OK, &word, 1, &share, 1);
    (void)snprintf(one->message, sizeof(one->message), "%s", fa_last_error());
    one->seconds = fa_clock() - start;
    if (one->status == FA_OK && (share.least != 0 || share.most != MANY - 1))
        one->status = FA_IO;
    fa_context_destroy(poor);
    return NULL;
}

START_TEST(agreement_among_many)
{
    for (int turn = 0; turn < 2; turn++) {
        const fa_transport_local_desc desc = {.struct_size = sizeof(desc), .ranks = MANY};
        fa_transport *made[MANY];
        one_of_many many[MANY];
        ck_assert_int_eq(fa_transport_create_local(context, &desc, made), FA_OK);
        for (int i = 0; i < MANY; i++) {
            made[i]->timeout = 20;
            many[i] = (one_of_many){.transport = made[i], .poor = turn == 1 && i == POOR};
            ck_assert_int_eq(pthread_create(&many[i].thread, NULL, agree_among_many, &many[i]), 0);
        }
        for (int i = 0; i < MANY; i++)
            (void)pthread_join(many[i].thread, NULL);
        for (int i = 0; i < MANY; i++) {
            ck_assert_msg(many[i].status == (turn == 1 ? FA_OUT_OF_MEMORY : FA_OK), "rank %d: %s", i,
                          many[i].message);
            if (turn == 1)
                ck_assert_msg(
                    strstr(many[i].message, "rank 17 has no memory to make a layer with 32 ranks") != NULL,
                    "rank %d: %s", i, many[i].message);
            ck_assert_double_lt(many[i].seconds, 10);
            fa_transport_destroy(made[i]);
        }
    }
}
END_TEST

static fa_status reduce_nothing(void *user, fa_dtype dtype, void *data, int64_t count, double timeout,
                                char *message, size_t message_size)
{
    (void)user, (void)dtype, (void)data, (void)count, (void)timeout, (void)message, (void)message_size;
    return FA_OK;
}

static fa_status gather_nothing(void *user, const void *from, void *to, size_t bytes, double timeout,
                                char *message, size_t message_size)
{
    (void)user, (void)from, (void)to, (void)bytes, (void)timeout, (void)message, (void)message_size;
    return FA_OK;
}

START_TEST(refusals)
{
    fa_transport *made[2] = {NULL};
    fa_transport_local_desc desc = {.struct_size = sizeof(desc), .ranks = 0};
    ck_assert_int_eq(fa_transport_create_local(context, &desc, made), FA_INVALID);
    assert_message("ranks is 0, expected 1 to 1024");
    desc.ranks = 2;
    desc.latency = -1;
    ck_assert_int_eq(fa_transport_create_local(context, &desc, made), FA_INVALID);
    assert_message("latency is -1");
    desc.latency = 0;
    desc.bandwidth = NAN;
    ck_assert_int_eq(fa_transport_create_local(context, &desc, made), FA_INVALID);
    assert_message("bandwidth is nan");
    ck_assert_int_eq(fa_transport_create_local(context, NULL, made), FA_INVALID);
    assert_message("desc is NULL");

    const fa_transport good = {.struct_size = sizeof(good),
                               .ranks = 2,
                               .rank = 1,
                               .timeout = 1,
                               .allreduce = reduce_nothing,
                               .allgather = gather_nothing};
    fa_transport t = good, read;
    ck_assert_int_eq(fa_transport_read(&t, &read), FA_OK);
    t.rank = 2;
    ck_assert_int_eq(fa_transport_read(&t, &read), FA_INVALID);
    assert_message("transport.rank is 2, expected 0 to 1");
    t = good;
    t.timeout = 0;
    ck_assert_int_eq(fa_transport_read(&t, &read), FA_INVALID);
    assert_message("transport.timeout is 0");
    t = good;
    t.allgather = NULL;
    ck_assert_int_eq(fa_transport_read(&t, &read), FA_INVALID);
    assert_message("transport.allgather is NULL");
    t = good;
    t.ranks = 1025;
    ck_assert_int_eq(fa_transport_read(&t, &read), FA_INVALID);
    assert_message("transport.ranks is 1025");
    t = good;
    t.bandwidth = INFINITY;
    ck_assert_int_eq(fa_transport_read(&t, &read), FA_INVALID);
    assert_message("transport.bandwidth is inf");
    ck_assert_int_eq(fa_transport_measure(context, NULL), FA_INVALID);
    assert_message("transport is NULL");
    fa_transport_destroy(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("transport");
    TCase *tc = add_context_case(suite, "transport");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, sums_in_the_order_of_ranks);
    tcase_add_test(tc, gathers);
    tcase_add_test(tc, shifts);
    tcase_add_test(tc, a_rank_that_is_gone);
    tcase_add_test(tc, calls_that_differ);
    tcase_add_test(tc, links_of_a_stated_speed);
    tcase_add_test(tc, measures_a_link);
    tcase_add_test(tc, agreement);
    tcase_add_test(tc, agreement_among_many);
    tcase_add_test(tc, refusals);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
