/* SPDX-License-Identifier: Apache-2.0 */
/* Two devices, whose names are the arguments (home, away), share each sequence's keys: against the oracle of all of them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "core/cooperate/cooperate.h"
#include "core/status.h"
#include "tests/gpu/segments_scene.h"

static const char *away_name;
static fa_device *away;
static fa_queue *away_queue;
static bool had_away;

static void open_away(void)
{
    away = NULL;
    if (!device || fa_device_open(context, away_name, NULL, &away) != FA_OK) {
        (void)printf("skipped: %s\n", fa_last_error());
        return;
    }
    had_away = true;
    ck_assert_int_eq(fa_queue_create(away, &away_queue), FA_OK);
}

static void close_away(void)
{
    if (away)
        fa_queue_destroy(away_queue);
    fa_device_close(away);
}

/* Everything of a run; cache 0 is the away device's. */
static void make_pair_memory(const scene *s, memory_of *m)
{
    fa_device *const home = device;
    fa_queue *const home_queue = queue;
    make_operands(s, m);
    make_cache_memory(s, 1, m);
    device = away;
    queue = away_queue;
    make_cache_memory(s, 0, m);
    device = home;
    queue = home_queue;
}

static bool create_from(const scene *s, fa_cooperate_desc desc, fa_cooperate **made)
{
    desc.struct_size = sizeof(desc);
    desc.segments = &s->segments;
    const fa_status status = fa_cooperate_create(device, away, &desc, made);
    if (status == FA_UNSUPPORTED && (strcmp(backend, "cuda") == 0 || strcmp(away_name, "cuda") == 0)) {
        assert_message("segment[");
        return false;
    }
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    return true;
}

static bool create_pair(const scene *s, double link_seconds, fa_cooperate **made)
{
    return create_from(s, (fa_cooperate_desc){.link_seconds = link_seconds}, made);
}

/* A scene's caches, whose lengths each run has of its own. */
static void make_pair(scene *s, int kind_away, int kind_home, int paged, int rows, bool packed, bool channels,
                      random_state *random)
{
    make_cache(&s->cache[0], kind_away, paged & 1, random);
    make_cache(&s->cache[1], kind_home, paged & 2, random);
    make_scene(s, 2, rows, packed, channels, random);
    s->cache[0].segment.lens_kv = s->cache[1].segment.lens_kv = NULL;
    if (rows > 1)
        s->desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
}

static void read_outputs(scene *s, const memory_of *m)
{
    ck_assert_int_eq(fa_buffer_read(queue, m->args.o, 0, s->o, sizeof(s->o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, m->args.lse, 0, s->lse, sizeof(s->lse)), FA_OK);
}

/* Keys [0, lens of cache 0) are away, the others home. Of those away the share is streamed. */
static void run_parts(scene *s, fa_cooperate *c, const memory_of *m, double share)
{
    int64_t all[BATCH], gone[BATCH], streamed = 0;
    const fa_cooperate_keys keys = {.struct_size = sizeof(keys), .keys = all, .away_keys = gone};
    fa_cooperate_info info = {.struct_size = sizeof(info)};
    int64_t home_keys = 0, away_keys = 0;
    for (int b = 0; b < BATCH; b++) {
        gone[b] = s->cache[0].lens[b];
        all[b] = gone[b] + s->cache[1].lens[b];
        away_keys += gone[b];
        home_keys += s->cache[1].lens[b];
        const int64_t wanted = llround(share * (double)gone[b]), most = fa_stream_most(&c->stream);
        streamed += wanted < most ? wanted : most;
    }
    ck_assert_msg(fa_cooperate_run(c, queue, &keys, &m->args) == FA_OK, "%s", fa_last_error());
    ck_assert_str_eq(fa_last_error(), "");
    read_outputs(s, m);
    check_scene(s);
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    ck_assert_int_eq(info.keys_away, away_keys - streamed);
    ck_assert_int_eq(info.keys_streamed, streamed);
    ck_assert_int_eq(info.keys_home, home_keys);
}

static void run_apart(scene *s, fa_cooperate *c, const memory_of *m)
{
    run_parts(s, c, m, 0);
}

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

static void lengths(scene *s)
{
    s->cache[0].segment.lens_kv = s->cache[0].lens;
}
static void first_keys(scene *s)
{
    memset(s->cache[1].lens, 0, sizeof(s->cache[1].lens));
    s->cache[1].segment.first_kv = s->cache[1].lens;
}
static void on_device(scene *s)
{
    s->desc.dynamic_lengths = 2;
}
static void one_segment(scene *s)
{
    s->segments.segments = 1;
}
static void wrong_dim(scene *s)
{
    s->cache[0].segment.k.shape[3] = DIM * 2;
}

static void paged_stream(scene *s)
{
    random_state random = {3};
    make_cache(&s->cache[0], 1, true, &random);
}
static void scaled_stream(scene *s)
{
    random_state random = {3};
    make_cache(&s->cache[0], 3, false, &random);
}
static void channels_stream(scene *s)
{
    s->segments.v_channels = fa_tensor_make(FA_F32, BATCH, HEADS_KV, 1, DIM);
    s->segments.v_channels_stride = BATCH * HEADS_KV * DIM;
}
static void stream(fa_cooperate_desc *d)
{
    d->stream_bytes = 1 << 20;
}
static void small_stream(fa_cooperate_desc *d)
{
    d->stream_bytes = 1;
}
static void large_share(fa_cooperate_desc *d)
{
    d->stream_share = 1.5;
}
static void no_number(fa_cooperate_desc *d)
{
    d->host_bandwidth = NAN;
}
static void no_segments(fa_cooperate_desc *d)
{
    d->segments = NULL;
}
static void negative_link(fa_cooperate_desc *d)
{
    d->link_bandwidth = -1;
}
static void endless_link(fa_cooperate_desc *d)
{
    d->link_seconds = INFINITY;
}

START_TEST(refused)
{
    static const struct {
        void (*of_scene)(scene *);
        void (*of_desc)(fa_cooperate_desc *);
        fa_status status;
        const char *message;
    } row[] = {
        {change_left_window, NULL, FA_UNSUPPORTED, "attention->window_left is 4"},
        {change_slopes, NULL, FA_UNSUPPORTED, "attention->alibi_slopes is given"},
        {change_top_left, NULL, FA_UNSUPPORTED, "attention->mask counts from the top left"},
        {lengths, NULL, FA_INVALID, "segment[0]: lens_kv is given, expected NULL"},
        {first_keys, NULL, FA_INVALID, "segment[1]: first_kv is given, expected NULL"},
        {on_device, NULL, FA_UNSUPPORTED, "attention->dynamic_lengths is 2"},
        {one_segment, NULL, FA_INVALID, "segments->segments is 1, expected 2"},
        {NULL, no_segments, FA_INVALID, "segments is NULL"},
        {NULL, negative_link, FA_INVALID, "link_bandwidth is -1"},
        {NULL, endless_link, FA_INVALID, "link_seconds is inf"},
        {wrong_dim, NULL, FA_INVALID, "segment[0]: "},
        {paged_stream, stream, FA_UNSUPPORTED, "segment[0]: page_table is given, streaming serves none"},
        {scaled_stream, stream, FA_UNSUPPORTED, "segment[0]: k_scale is given, streaming serves none"},
        {channels_stream, stream, FA_UNSUPPORTED, "segment[0]: v_channels_stride is 128, streaming serves 0"},
        {NULL, small_stream, FA_INVALID, "segment[0]: stream_bytes is 1, expected 1536 or more"},
        {NULL, large_share, FA_INVALID, "stream_share is 1.5, expected 0 to 1"},
        {NULL, no_number, FA_INVALID, "host_bandwidth is nan"},
    };
    static scene s;
    for (int i = 0; i < COUNT(row) && away; i++) {
        random_state random = {3};
        fa_cooperate *c;
        make_pair(&s, 1, 1, 0, ROWS, false, false, &random);
        fa_cooperate_desc desc = {.struct_size = sizeof(desc), .segments = &s.segments};
        if (row[i].of_scene)
            row[i].of_scene(&s);
        if (row[i].of_desc)
            row[i].of_desc(&desc);
        s.cache[0].segment.lens_kv = row[i].of_scene == lengths ? s.cache[0].lens : NULL;
        if (desc.stream_bytes > 0 && !away->backend->host_pointers) {
            ck_assert_int_eq(fa_cooperate_create(device, away, &desc, &c), FA_UNSUPPORTED);
            assert_message("only host memory is streamed");
            continue;
        }
        ck_assert_msg(fa_cooperate_create(device, away, &desc, &c) == row[i].status, "%d: %s", i,
                      fa_last_error());
        assert_message(row[i].message);
        ck_assert_ptr_null(c);
    }
}
END_TEST

static fa_cooperate_info info_of(const fa_cooperate *c)
{
    fa_cooperate_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    return info;
}

static void assert_unchanged(const fa_cooperate *c, const fa_cooperate_info *before)
{
    const fa_cooperate_info info = info_of(c);
    ck_assert_int_eq(info.runs, before->runs);
    ck_assert_int_eq(info.keys_away, before->keys_away);
    ck_assert_int_eq(info.keys_home, before->keys_home);
    ck_assert_double_eq(info.seconds_away, before->seconds_away);
    ck_assert_double_eq(info.seconds_home, before->seconds_home);
    ck_assert_double_eq(info.measured_away, before->measured_away);
    ck_assert_double_eq(info.measured_home, before->measured_home);
}

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

/* By list, number and value; nothing is written, nor learnt. */
START_TEST(runs_refused)
{
    static scene s, before;
    random_state random = {3};
    fa_cooperate *c;
    memory_of m;
    static const struct {
        int64_t keys, away, from; /* of sequence 1 */
        const char *message;
    } row[] = {
        {-1, 0, 0, "keys[1] is -1, expected 0 to 96"},
        {97, 48, 48, "keys[1] is 97, expected 0 to 96"},
        {60, 49, 40, "away_keys[1] is 49, expected 0 to 48"},
        {30, 31, 20, "away_keys[1] is 31, expected 0 to 30"},
        {60, 40, 41, "home_from[1] is 41, expected 12 to away_keys[1], 40"},
        {60, 40, 11, "home_from[1] is 11, expected 12"},
        {42, 41, 41, "home_from[1] is 41 with keys[1] 42: a row does not see all keys before"},
    };
    if (!away || slow)
        return;
    make_pair(&s, 1, 1, 2, ROWS, false, true, &random);
    ck_assert(create_pair(&s, 0, &c));
    make_pair_memory(&s, &m);
    s.cache[0].lens[0] = s.cache[0].lens[1] = 40;
    s.cache[1].lens[0] = s.cache[1].lens[1] = 20;
    run_apart(&s, c, &m);
    const fa_cooperate_info info = info_of(c);
    before = s;
    for (int i = 0; i < COUNT(row); i++) {
        const int64_t all[BATCH] = {60, row[i].keys}, gone[BATCH] = {40, row[i].away},
                      from[BATCH] = {30, row[i].from};
        const fa_cooperate_keys keys = {
            .struct_size = sizeof(keys), .keys = all, .away_keys = gone, .home_from = from};
        ck_assert_int_eq(fa_cooperate_run(c, queue, &keys, &m.args), FA_INVALID);
        assert_message(row[i].message);
    }
    const int64_t all[BATCH] = {60, 60}, gone[BATCH] = {40, 40};
    const fa_cooperate_keys keys = {.struct_size = sizeof(keys), .keys = all, .away_keys = gone},
                            none = {.struct_size = sizeof(keys), .keys = all};
    fa_segments_args bad[8];
    const fa_segment_args *list[2] = {&m.own[0], NULL}, *other[2];
    fa_segment_args own = m.own[0];
    for (int i = 0; i < COUNT(bad); i++)
        bad[i] = m.args;
    bad[0].workspace = m.args.o;
    bad[1].work = m.args.o;
    bad[2].segment = NULL;
    bad[3].segment = list;
    bad[4].o = m.own[1].k;
    bad[5].q = NULL;
    bad[6].v_channels = m.args.o;
    own.page_table = own.k;
    other[0] = &own;
    other[1] = &m.own[1];
    bad[7].segment = other;
    static const char *const message[] = {
        "args.workspace is given, expected NULL",
        "args.work is given, expected NULL",
        "args.segment is NULL",
        "args.segment[1] is NULL",
        "segment[1]: args.o overlaps args.k",
        "segment[1]: args.q is NULL",
        "args.o overlaps args.v_channels",
        "segment[0]: args.page_table is given",
    };
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_cooperate_run(c, queue, &keys, &bad[i]), FA_INVALID);
        assert_message(message[i]);
    }
    fa_buffer *read = NULL, *written = NULL; /* the same memory, of two devices of the host */
    if (fa_buffer_wrap_host(away, s.cache[0].k.codes, sizeof(s.cache[0].k.codes), &read) == FA_OK &&
        fa_buffer_wrap_host(device, s.cache[0].k.codes, sizeof(s.cache[0].k.codes), &written) == FA_OK) {
        bad[7] = m.args;
        bad[7].o = written;
        bad[7].segment = other;
        own = m.own[0];
        own.k = read;
        ck_assert_int_eq(fa_cooperate_run(c, queue, &keys, &bad[7]), FA_INVALID);
        assert_message("segment[0]: args.o overlaps args.k");
    }
    fa_buffer_destroy(read);
    fa_buffer_destroy(written);
    ck_assert_int_eq(fa_cooperate_run(c, queue, &none, &m.args), FA_INVALID);
    assert_message("away_keys is NULL");
    ck_assert_int_eq(fa_cooperate_run(c, queue, NULL, &m.args), FA_INVALID);
    assert_message("keys is NULL");
    ck_assert_int_eq(fa_cooperate_run(c, NULL, &keys, &m.args), FA_INVALID);
    ck_assert_int_eq(fa_cooperate_run(NULL, queue, &keys, &m.args), FA_INVALID);
    ck_assert_int_eq(fa_cooperate_get_info(c, NULL), FA_INVALID);
    assert_unchanged(c, &info);
    fa_cooperate_destroy(c);
    fa_cooperate_destroy(NULL);
    ck_assert_int_eq(fa_cooperate_create(device, NULL, NULL, &c), FA_INVALID);
    ck_assert_ptr_null(c);
    ck_assert_int_eq(fa_cooperate_create(device, away, NULL, NULL), FA_INVALID);
    read_outputs(&s, &m);
    ck_assert_mem_eq(s.o, before.o, sizeof(s.o));
    ck_assert_mem_eq(s.lse, before.lse, sizeof(s.lse));
    release_memory(&m);
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
    tcase_add_test(tc, streamed);
    tcase_add_test(tc, few_streamed);
    tcase_add_test(tc, no_sequences);
    tcase_add_test(tc, streams_are_even);
    tcase_add_loop_test(tc, out_of_memory, 0, 2);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, work_fails);
    tcase_add_test(tc, runs_refused);
    const int result = run_on_backend(suite);
    return result == EXIT_SUCCESS && !had_away ? SKIPPED : result;
}
