/* SPDX-License-Identifier: Apache-2.0 */
/* What cooperation refuses, when it is made and when it runs. */
#include <math.h>
#include <string.h>

#include "tests/gpu/cooperate_scene.h"

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

void add_cooperate_refusals(TCase *tc)
{
    tcase_add_test(tc, refused);
    tcase_add_test(tc, runs_refused);
}
