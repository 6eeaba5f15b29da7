/* SPDX-License-Identifier: Apache-2.0 */
/* Two devices, whose names are the arguments (home, away), share each sequence's keys: against the oracle of all of them. */
#include <math.h>
#include <string.h>

#include "tests/gpu/cooperate_scene.h"

/* Each run with lengths of its own, none and all of a cache among them. */
START_TEST(formats_on_both)
{
    static scene s;
    int made = 0;
    random_state random = {31};
    for (int i = slow ? 1 : 0; i < (slow ? 2 : 60) && away; i++) {
        fa_cooperate *c;
        memory_of m;
        make_pair(&s, slow ? Q8_0 : (int)random_between(&random, 0, FORMATS - 1),
                  slow ? Q8_0 : (int)random_between(&random, 0, FORMATS - 1),
                  slow ? 0 : (int)random_between(&random, 0, 3), i % 3 == 0 ? ROWS : 1, i % 2 == 1,
                  i % 4 == 1, &random);
        if (i % 5 == 2) {
            s.desc.softcap = 4;
            s.desc.sinks = s.sinks;
            for (int h = 0; h < HEADS_Q; h++)
                s.sinks[h] = random_float(&random, -1, 3);
        }
        s.desc.dynamic_lengths = i % 2;
        if (!create_pair(&s, 0, &c))
            continue;
        made++;
        make_pair_memory(&s, &m);
        for (int turn = 0; turn < 4; turn++) {
            for (int b = 0; b < BATCH; b++) {
                s.cache[0].lens[b] = turn == 2 ? 0 : turn == 3 ? KEYS : random_between(&random, 0, KEYS);
                s.cache[1].lens[b] = turn == 3 ? KEYS : random_between(&random, ROWS, KEYS);
            }
            run_apart(&s, c, &m);
        }
        release_memory(&m);
        fa_cooperate_destroy(c);
    }
    ck_assert(made > 0 || !away);
}
END_TEST

/* The last `shared` keys of cache 0 are the first of cache 1 too. */
static void share_rows(side *to, const side *from, int64_t keys, int64_t shared)
{
    const size_t row = (size_t)(DIM / fa_dtype_block(to->t.dtype)) * fa_dtype_size(to->t.dtype);
    for (int64_t line = 0; line < BATCH * HEADS_KV; line++) {
        for (int64_t j = 0; j < shared; j++) {
            const int64_t at = line * KEYS + keys - shared + j, other = line * KEYS + j;
            memcpy(to->codes + (size_t)at * row, from->codes + (size_t)other * row, row);
            memcpy(to->decoded + at * DIM, from->decoded + other * DIM, DIM * sizeof(float));
        }
    }
}

/*
 * Keys in both caches are computed once, wherever that is: by an even share; all at home where the link costs more than all
 * else; and so many that each row still sees those away.
 */
START_TEST(keys_on_both)
{
    enum { SHARED = 20 };
    static scene s;
    int made = 0;
    random_state random = {41};
    for (int i = 0; i < (slow ? 1 : 12) && away; i++) {
        fa_cooperate *c;
        memory_of m;
        const int rows = i % 2 == 0 ? 1 : ROWS;
        const bool dear = i % 3 == 1;
        int64_t all[BATCH], gone[BATCH], from[BATCH];
        const fa_cooperate_keys keys = {
            .struct_size = sizeof(keys), .keys = all, .away_keys = gone, .home_from = from};
        fa_cooperate_info info = {.struct_size = sizeof(info)};
        make_pair(&s, i % 4 < 2 ? 1 : 7, i % 4 < 2 ? 1 : 7, 0, rows, false, false, &random);
        share_rows(&s.cache[0].k, &s.cache[1].k, KEYS, SHARED);
        share_rows(&s.cache[0].v, &s.cache[1].v, KEYS, SHARED);
        if (!create_pair(&s, dear ? 1e9 : 1e-12, &c))
            continue;
        made++;
        make_pair_memory(&s, &m);
        for (int turn = 0; turn < 4; turn++) {
            int64_t least = 0, most = 0;
            for (int b = 0; b < BATCH; b++) {
                from[b] = KEYS - SHARED;
                gone[b] = KEYS;
                all[b] = from[b] + (turn >= 2 ? SHARED : random_between(&random, SHARED, KEYS));
                s.cache[0].lens[b] = from[b]; /* as the oracle counts keys */
                s.cache[1].lens[b] = all[b] - from[b];
                least += from[b];
                most += gone[b] < all[b] - rows + 1 ? gone[b] : all[b] - rows + 1;
            }
            if (turn == 2 && !dear) { /* a home device that never ends: all that can be is away */
                c->pace[FA_HOME].measured = 1;
                c->pace[FA_AWAY].measured = 1e-9;
            } else if (turn == 3 && !dear) { /* and the other way round */
                c->pace[FA_AWAY].measured = 1;
                c->pace[FA_HOME].measured = 1e-9;
            }
            ck_assert_msg(fa_cooperate_run(c, queue, &keys, &m.args) == FA_OK, "%s", fa_last_error());
            read_outputs(&s, &m);
            check_scene(&s);
            ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
            ck_assert_int_eq(info.runs, turn + 1);
            ck_assert_int_ge(info.keys_away, least);
            ck_assert_int_le(info.keys_away, most);
            if (dear || turn == 3)
                ck_assert_int_eq(info.keys_away, least);
            if (!dear && turn == 2)
                ck_assert_int_eq(info.keys_away, most);
            if (dear)
                ck_assert_double_eq(info.share_away, 0);
            /* Windows' clock may stand still for as long as a run takes. */
            ck_assert(info.measured_away > 0 || info.seconds_away == 0);
        }
        release_memory(&m);
        fa_cooperate_destroy(c);
    }
    ck_assert(made > 0 || !away);
}
END_TEST

/* The share of a model and of what was measured, in numbers. */
START_TEST(shares_are_even)
{
    static scene s;
    random_state random = {43};
    fa_cooperate *c;
    fa_cooperate_info info = {.struct_size = sizeof(info)};
    if (!away)
        return;
    make_pair(&s, 1, 1, 0, 1, false, false, &random);
    ck_assert(create_pair(&s, 1e-12, &c));
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert(info.modelled_away > 0 && info.modelled_home > 0 && info.kernel_away[0] && info.kernel_home[0]);
    ck_assert_uint_eq(info.link_bytes, sizeof(float) * BATCH * HEADS_Q * (2 * DIM + 1));
    c->link_bandwidth = 1e30;
    /* 20 keys of each of two sequences: 2 s for a key of both */
    fa_cooperate_learn(c, FA_AWAY, &(fa_spent){.keys = 40, .seconds = 40});
    fa_cooperate_learn(c, FA_HOME, &(fa_spent){.keys = 40, .seconds = 10});
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq_tol(info.measured_away, 2, 1e-12);
    ck_assert_double_eq_tol(info.measured_home, 0.5, 1e-12);
    const bool in_turn = away->backend->host_pointers && device->backend->host_pointers;
    ck_assert_double_eq_tol(info.share_away, in_turn ? 0 : 0.2, 1e-9); /* x * 2 = (1 - x) * 0.5 */
    c->link_latency = 0.1 * 2 * KEYS / 2; /* two messages take what 0.1 s for each key would */
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq_tol(info.share_away, in_turn ? 0 : (0.5 - 0.1) / 2.5, 1e-9);
    c->runs = 1;
    fa_cooperate_learn(c, FA_HOME, &(fa_spent){.keys = 40, .seconds = 30}); /* half way to the last */
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq_tol(info.measured_home, 1, 1e-12);
    c->pace[FA_AWAY].measured = 0.95; /* with messages 1.05: two in turn gain nothing by it */
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq_tol(info.share_away, in_turn ? 0 : 0.9 / 1.95, 1e-9);
    c->pace[FA_AWAY].measured = 0.85;
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_double_eq_tol(info.share_away, in_turn ? 1 : 0.9 / 1.85, 1e-9);
    fa_cooperate_destroy(c);
}
END_TEST

/* Each request for memory fails once, of a life and of its run, with two parts and with three: outputs stay as they were. */
START_TEST(out_of_memory)
{
    static scene s, before;
    random_state random = {7};
    fa_cooperate *c;
    memory_of m;
    int64_t all[BATCH] = {70, 70}, gone[BATCH] = {40, 30};
    const fa_cooperate_keys keys = {.struct_size = sizeof(keys), .keys = all, .away_keys = gone};
    if (!away || strcmp(backend, "openmp") != 0 || strcmp(away_name, "openmp") != 0)
        return;
    make_pair(&s, _i ? 1 : 3, 1, 0, 1, true, _i == 0, &random);
    make_pair_memory(&s, &m);
    before = s;
    const fa_cooperate_desc desc = {.struct_size = sizeof(desc),
                                    .segments = &s.segments,
                                    .stream_bytes = _i ? 1 << 16 : 0,
                                    .stream_share = 0.5};
    for (long i = 0;; i++) {
        fa_queue *own;
        const long live = atomic_load(&memory.live);
        ck_assert_int_eq(fa_queue_create(device, &own), FA_OK); /* whose scratch a run allocates */
        memory.fail_at = atomic_load(&memory.calls) + i;
        fa_status status = fa_cooperate_create(device, away, &desc, &c);
        ck_assert((status == FA_OK) == (c != NULL));
        if (c)
            status = fa_cooperate_run(c, own, &keys, &m.args);
        const bool failed = atomic_load(&memory.calls) > memory.fail_at;
        memory.fail_at = -1;
        fa_cooperate_destroy(c);
        fa_queue_destroy(own);
        ck_assert_int_eq(atomic_load(&memory.live), live);
        ck_assert_int_eq(status, failed ? FA_OUT_OF_MEMORY : FA_OK);
        if (!failed) {
            ck_assert_int_gt(i, _i ? 24 : 12);
            break;
        }
        read_outputs(&s, &m);
        ck_assert_mem_eq(s.o, before.o, sizeof(s.o));
        ck_assert_mem_eq(s.lse, before.lse, sizeof(s.lse));
    }
    release_memory(&m);
}
END_TEST

/* A device whose calls return before the work is done, and whose work fails so. */
static fa_status deferred;

static fa_status wait_for_failure(fa_queue *own)
{
    (void)own;
    const fa_status status = deferred;
    deferred = FA_OK;
    return status == FA_OK ? FA_OK : fa_fail(status, "the work failed");
}

static fa_status seconds_after_failure(fa_queue *own, double *seconds)
{
    const fa_status status = wait_for_failure(own);
    *seconds = 0.5;
    return status;
}

/* A failure of the away device's work is the run's, whatever its status, and nothing is learnt of the run. */
START_TEST(work_fails)
{
    static scene s, before;
    random_state random = {5};
    fa_cooperate *c;
    memory_of m;
    const int64_t all[BATCH] = {70, 70}, gone[BATCH] = {40, 30};
    const fa_cooperate_keys keys = {.struct_size = sizeof(keys), .keys = all, .away_keys = gone};
    if (!away || strcmp(backend, "openmp") != 0 || strcmp(away_name, "openmp") != 0)
        return;
    const fa_backend *const plain = away->backend;
    static fa_backend posed;
    posed = *plain;
    posed.host_pointers = false;
    posed.queue_wait = wait_for_failure;
    posed.queue_seconds = seconds_after_failure;
    away->backend = &posed;
    make_pair(&s, 1, 1, 0, 1, false, false, &random);
    ck_assert(create_pair(&s, 0, &c));
    make_pair_memory(&s, &m);
    s.cache[0].lens[0] = 40;
    s.cache[0].lens[1] = 30;
    s.cache[1].lens[0] = 30;
    s.cache[1].lens[1] = 40;
    run_apart(&s, c, &m);
    before = s;
    const fa_cooperate_info info = info_of(c);
    ck_assert_double_eq(info.seconds_away, 0.5);
    static const fa_status status[] = {FA_INVALID, FA_UNSUPPORTED, FA_DEVICE_LOST};
    for (int i = 0; i < COUNT(status); i++) {
        deferred = status[i];
        ck_assert_int_eq(fa_cooperate_run(c, queue, &keys, &m.args), status[i]);
        assert_message("segment[0]: the work failed");
        assert_unchanged(c, &info);
        read_outputs(&s, &m);
        ck_assert_mem_eq(s.o, before.o, sizeof(s.o));
        ck_assert_mem_eq(s.lse, before.lse, sizeof(s.lse));
    }
    release_memory(&m);
    fa_cooperate_destroy(c);
    away->backend = plain;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 3)
        return EXIT_FAILURE;
    Suite *suite = suite_create("cooperate");
    TCase *tc = add_backend_case(suite, argv[1]);
    away_name = argv[2];
    slow = slow || (strcmp(away_name, "openmp") != 0 && strcmp(away_name, "cuda") != 0);
    tcase_add_checked_fixture(tc, open_away, close_away);
    tcase_add_test(tc, formats_on_both);
    tcase_add_test(tc, keys_on_both);
    tcase_add_test(tc, shares_are_even);
    tcase_add_loop_test(tc, out_of_memory, 0, 2);
    tcase_add_test(tc, work_fails);
    add_streams(tc);
    add_cooperate_refusals(tc);
    const int result = run_on_backend(suite);
    return result == EXIT_SUCCESS && !had_away ? SKIPPED : result;
}
