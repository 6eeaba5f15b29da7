/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/cooperate_scene.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *away_name;
fa_device *away;
fa_queue *away_queue;
bool had_away;

void open_away(void)
{
    away = NULL;
    if (!device || fa_device_open(context, away_name, NULL, &away) != FA_OK) {
        (void)printf("skipped: %s\n", fa_last_error());
        return;
    }
    had_away = true;
    ck_assert_int_eq(fa_queue_create(away, &away_queue), FA_OK);
}

void close_away(void)
{
    if (away)
        fa_queue_destroy(away_queue);
    fa_device_close(away);
}

void make_pair_memory(const scene *s, memory_of *m)
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

bool create_from(const scene *s, fa_cooperate_desc desc, fa_cooperate **made)
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

bool create_pair(const scene *s, double link_seconds, fa_cooperate **made)
{
    return create_from(s, (fa_cooperate_desc){.link_seconds = link_seconds}, made);
}

void make_pair(scene *s, int kind_away, int kind_home, int paged, int rows, bool packed, bool channels,
               random_state *random)
{
    make_cache(&s->cache[0], kind_away, paged & 1, random);
    make_cache(&s->cache[1], kind_home, paged & 2, random);
    make_scene(s, 2, rows, packed, channels, random);
    s->cache[0].segment.lens_kv = s->cache[1].segment.lens_kv = NULL;
    if (rows > 1)
        s->desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
}

void read_outputs(scene *s, const memory_of *m)
{
    ck_assert_int_eq(fa_buffer_read(queue, m->args.o, 0, s->o, sizeof(s->o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, m->args.lse, 0, s->lse, sizeof(s->lse)), FA_OK);
}

void run_parts(scene *s, fa_cooperate *c, const memory_of *m, double share)
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

void run_apart(scene *s, fa_cooperate *c, const memory_of *m)
{
    run_parts(s, c, m, 0);
}

fa_cooperate_info info_of(const fa_cooperate *c)
{
    fa_cooperate_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_cooperate_get_info(c, &info), FA_OK);
    return info;
}

void assert_unchanged(const fa_cooperate *c, const fa_cooperate_info *before)
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
