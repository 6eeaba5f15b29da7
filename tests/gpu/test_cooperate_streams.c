/* SPDX-License-Identifier: Apache-2.0 */
/* Away keys that are streamed home. */
#include <math.h>
#include <string.h>

#include "tests/gpu/cooperate_scene.h"

/* A key's heads lie side by side, in memory; the oracle's numbers stay where they are. */
static void interleave(side *s, fa_tensor *t)
{
    static unsigned char moved[sizeof(s->codes)];
    const size_t row = (size_t)(DIM / fa_dtype_block(s->t.dtype)) * fa_dtype_size(s->t.dtype);
    for (int64_t b = 0; b < BATCH; b++) {
        for (int64_t h = 0; h < HEADS_KV; h++) {
            for (int64_t j = 0; j < KEYS; j++)
                memcpy(moved + (size_t)((b * KEYS + j) * HEADS_KV + h) * row,
                       s->codes + (size_t)((b * HEADS_KV + h) * KEYS + j) * row, row);
        }
    }
    memcpy(s->codes, moved, sizeof(moved));
    t->stride[0] = (int64_t)KEYS * HEADS_KV * DIM;
    t->stride[1] = DIM;
    t->stride[2] = (int64_t)HEADS_KV * DIM;
    t->stride[3] = 1;
}

/*
 * The third part, of caches in formats without scales, and in both orders: with none, some and all of the away keys, in pieces of
 * a few keys and of many, and fewer pieces after more.
 */
START_TEST(streamed)
{
    static scene s;
    static const int kind[] = {1, 7, 0, 8};
    static const double share[] = {0.5, 1, 0.3};
    int made = 0;
    random_state random = {59};
    for (int i = slow ? 1 : 0; i < (slow ? 2 : 24) && away && away->backend->host_pointers; i++) {
        fa_cooperate *c;
        memory_of m;
        const int away_kind = kind[i % COUNT(kind)];
        const double part = share[i % COUNT(share)];
        make_pair(&s, away_kind, slow ? 1 : (int)random_between(&random, 0, FORMATS - 1),
                  slow ? 0 : i % 2 * 2, i % 5 == 0 ? ROWS : 1, i % 3 == 1, false, &random);
        if (i % 4 < 2) {
            interleave(&s.cache[0].k, &s.cache[0].segment.k);
            interleave(&s.cache[0].v, &s.cache[0].segment.v);
        }
        const uint64_t key = 2 * BATCH * HEADS_KV * DIM * 4, keys = i % 3 == 0 ? 3 : 20;
        const fa_cooperate_desc desc = {.stream_bytes = 2 * (keys * key + 256), .stream_share = part};
        if (!create_from(&s, desc, &c))
            continue;
        made++;
        make_pair_memory(&s, &m);
        for (int turn = 0; turn < 5; turn++) {
            for (int b = 0; b < BATCH; b++) {
                s.cache[0].lens[b] = turn == 2   ? 0
                                     : turn == 3 ? 2 * b
                                     : turn == 1 ? KEYS
                                                 : random_between(&random, 0, KEYS);
                s.cache[1].lens[b] = random_between(&random, ROWS, KEYS);
            }
            run_parts(&s, c, &m, part);
        }
        release_memory(&m);
        fa_cooperate_destroy(c);
    }
    ck_assert(made > 0 || !away || !away->backend->host_pointers);
}
END_TEST

/* Caches with room for one key of each sequence, whose stride has no meaning, and for none. */
START_TEST(few_streamed)
{
    static scene s;
    random_state random = {61};
    for (int keys = 0; keys < 2 && away && away->backend->host_pointers; keys++) {
        fa_cooperate *c;
        memory_of m;
        make_pair(&s, 1, 1, 0, 1, false, false, &random);
        fa_tensor *const of[] = {&s.cache[0].segment.k, &s.cache[0].segment.v};
        for (int i = 0; i < 2; i++) {
            *of[i] = (fa_tensor){.dtype = of[i]->dtype,
                                 .shape = {BATCH, HEADS_KV, keys, DIM},
                                 .stride = {(int64_t)HEADS_KV * KEYS * DIM, (int64_t)KEYS * DIM, 7, 1}};
        }
        if (!create_from(&s, (fa_cooperate_desc){.stream_bytes = 1 << 16, .stream_share = 1}, &c))
            continue;
        make_pair_memory(&s, &m);
        for (int b = 0; b < BATCH; b++) {
            s.cache[0].lens[b] = keys;
            s.cache[1].lens[b] = KEYS;
        }
        run_parts(&s, c, &m, 1);
        release_memory(&m);
        fa_cooperate_destroy(c);
    }
}
END_TEST

/* Without sequences there is no memory, and nothing to do. */
START_TEST(no_sequences)
{
    static scene s;
    random_state random = {67};
    fa_cooperate *c;
    const int64_t none = 0;
    const fa_cooperate_keys keys = {.struct_size = sizeof(keys), .keys = &none, .away_keys = &none};
    const fa_segment_args own = {.struct_size = sizeof(own)};
    const fa_segment_args *const list[] = {&own, &own};
    const fa_segments_args args = {.struct_size = sizeof(args), .segment = list};
    if (!away)
        return;
    make_pair(&s, 1, 1, 0, 1, false, false, &random);
    s.desc.q.shape[0] = s.desc.o.shape[0] = 0;
    for (int i = 0; i < 2; i++)
        s.cache[i].segment.k.shape[0] = s.cache[i].segment.v.shape[0] = 0;
    s.desc.want_lse = 0;
    for (uint64_t bytes = 0; bytes <= 1024; bytes += 1024) {
        if (!create_from(&s, (fa_cooperate_desc){.stream_bytes = away->backend->host_pointers ? bytes : 0},
                         &c))
            continue;
        ck_assert_msg(fa_cooperate_run(c, queue, &keys, &args) == FA_OK, "%s", fa_last_error());
        fa_cooperate_destroy(c);
    }
}
END_TEST

/* Shares that end together, in numbers, and what a run takes of them. */
START_TEST(streams_are_even)
{
    static scene s;
    random_state random = {47};
    fa_cooperate *c;
    /* all is away: 10 s there, 5 s by copies, so a third is left; and messages of 3 s more leave less */
    ck_assert_double_eq_tol(fa_cooperate_streamed(&(fa_paces){10, 0.1, 5, 0}, 1), 2.0 / 3, 1e-9);
    ck_assert_double_eq_tol(fa_cooperate_streamed(&(fa_paces){10, 0.1, 5, 1.5}, 1), 11.5 / 15, 1e-9);
    /* copies are nothing beside the home device's work: (0.5 - x) 10 = (0.5 + x) 5 */
    ck_assert_double_eq_tol(fa_cooperate_streamed(&(fa_paces){10, 5, 0.1, 0}, 0.5), 2.5 / 15, 1e-9);
    /* the home device is the slower one anyway; and all that is away is copied while the first message goes */
    ck_assert_double_eq(fa_cooperate_streamed(&(fa_paces){1, 10, 0.1, 0}, 0.5), 0);
    ck_assert_double_eq(fa_cooperate_streamed(&(fa_paces){1, 1e-3, 0.1, 100}, 0.5), 0.5);
    ck_assert_double_eq(fa_cooperate_left(0, 7, 100), 7);
    ck_assert_double_eq(fa_cooperate_left(100, 70, 20), 70);
    ck_assert_double_eq(fa_cooperate_left(100, 70, 40), 60);
    ck_assert_double_eq(fa_cooperate_left(100, 70, 90), 50);
    if (!away || !away->backend->host_pointers)
        return;
    make_pair(&s, 1, 1, 0, 1, false, false, &random);
    ck_assert(create_from(
        &s, (fa_cooperate_desc){.stream_bytes = 1 << 20, .link_bandwidth = 1e6, .link_seconds = 1e-30}, &c));
    fa_cooperate_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert(info.kernel_stream[0] && info.stream_most >= KEYS);
    ck_assert_double_eq_tol(info.modelled_stream, 2 * BATCH * HEADS_KV * DIM * 2 * 1e-6, 1e-12);
    c->link_bandwidth = 1e30;
    c->stream.blocks = false;
    c->pace[FA_AWAY].measured = 10;
    c->pace[FA_HOME].measured = 0.01;
    fa_cooperate_learn(c, FA_STREAM, &(fa_spent){.keys = 40, .seconds = 100}); /* 5 s for a key of both */
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq_tol(info.measured_stream, 5, 1e-12);
    ck_assert_double_eq_tol(info.share_streamed, 2.0 / 3, 1e-6);
    c->stream.blocks = true; /* first copies, then the processors: all by the faster */
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq(info.share_streamed, 1);
    c->pace[FA_STREAM].measured = 11;
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq(info.share_streamed, 0);
    c->stream.blocks = false;
    c->pace[FA_AWAY] =
        (fa_pace){.modelled = 1e-3}; /* copies read half of the memory's bandwidth, processors all of it */
    c->pace[FA_STREAM].measured = 2e-3;
    c->host_bandwidth = 1e3 * c->pace[FA_STREAM].modelled * c->link_bandwidth;
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    c->pace[FA_HOME].measured = 1e-9;
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq_tol(info.share_streamed, 0.5, 1e-4);
    fa_cooperate_destroy(c);
}
END_TEST

/* Where copies block, all is streamed or nothing, whichever is faster; and after many runs both are measured once. */
START_TEST(blocked_streams_are_tried)
{
    static scene s;
    random_state random = {71};
    fa_cooperate *c;
    memory_of m;
    if (!away || !away->backend->host_pointers)
        return;
    make_pair(&s, 1, 1, 0, 1, false, false, &random);
    const fa_cooperate_desc desc = {.stream_bytes = 1 << 20, .link_seconds = 1e-30};
    if (!create_from(&s, desc, &c))
        return;
    make_pair_memory(&s, &m);
    int64_t all[BATCH];
    const int64_t gone[BATCH] = {KEYS, KEYS};
    for (int b = 0; b < BATCH; b++) {
        s.cache[0].lens[b] = s.cache[1].lens[b] = KEYS;
        all[b] = 2 * KEYS;
    }
    const fa_cooperate_keys keys = {.struct_size = sizeof(keys), .keys = all, .away_keys = gone};
    for (int faster = 0; faster < 2; faster++) { /* first the copies lose, then they win */
        int tried = 0;
        const int64_t usual = faster ? BATCH * KEYS : 0;
        for (int run = 0; run < 2 * FA_PACE_RUNS + 8; run++) {
            c->stream.blocks = true;
            c->pace[FA_AWAY].measured = 10;
            c->pace[FA_HOME].measured = 1e-3;
            c->pace[FA_STREAM].measured = faster ? 5 : 20;
            ck_assert_msg(fa_cooperate_run(c, queue, &keys, &m.args) == FA_OK, "%s", fa_last_error());
            const int64_t copied = info_of(c).keys_streamed;
            if (copied != usual) {
                tried++;
                ck_assert_int_gt(copied, 0);
                ck_assert_int_lt(copied, BATCH * KEYS);
                ck_assert_double_ne(c->pace[FA_STREAM].measured, faster ? 5 : 20);
                ck_assert_double_lt(c->pace[faster ? FA_AWAY : FA_STREAM].measured,
                                    1); /* what was told is old */
            }
            read_outputs(&s, &m);
            check_scene(&s);
        }
        ck_assert_int_eq(tried, 2);
    }
    release_memory(&m);
    fa_cooperate_destroy(c);
}
END_TEST

void add_streams(TCase *tc)
{
    tcase_add_test(tc, streamed);
    tcase_add_test(tc, few_streamed);
    tcase_add_test(tc, no_sequences);
    tcase_add_test(tc, streams_are_even);
    tcase_add_test(tc, blocked_streams_are_tried);
}
