/* SPDX-License-Identifier: Apache-2.0 */
/* Segments that are refused, as they are made and as they run: by status and message, and nothing is written. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/segments_scene.h"

typedef void change(scene *s);

static void prefix(scene *s)
{
    s->desc.prefix = 2;
}
static void listed(scene *s)
{
    static const fa_block_lists lists = {.struct_size = sizeof(lists)};
    s->desc.lists = &lists;
}
static void status(scene *s)
{
    s->desc.want_status = 1;
}
static void v_in_k(scene *s)
{
    s->desc.v_in_k = 1;
}
static void aligned(scene *s)
{
    s->desc.mask = FA_MASK_NONE;
    s->desc.alignment = FA_ALIGN_TOP_LEFT;
    s->desc.window_right = 2;
}
static void bias(scene *s)
{
    s->desc.bias = fa_tensor_make(FA_F32, 1, 1, 1, KEYS);
}
static void keep(scene *s)
{
    s->desc.keep = fa_tensor_make(FA_BOOL, 1, 1, 1, KEYS);
}
static void padded_rows(scene *s)
{
    s->desc.lens_q = s->cu; /* 0, and all rows */
}
static void common_keys(scene *s)
{
    s->desc.k = s->cache[0].k.t;
}
static void common_lengths(scene *s)
{
    s->desc.lens_kv = s->cache[0].lens;
}
static void common_factor(scene *s)
{
    s->desc.v_factor = 2;
}
static void no_segments(scene *s)
{
    s->segments.segments = 0;
}
static void missing(scene *s)
{
    s->list[1] = NULL;
}
static void wrong_dim(scene *s)
{
    s->cache[0].segment.k.shape[3] = DIM * 2;
}
static void wrong_scale(scene *s)
{
    s->cache[0].segment.k_scale.shape[2] = 7;
}
static void few_keys(scene *s)
{
    s->cache[1].lens[1] = ROWS - 2;
}
static void wrong_channels(scene *s)
{
    s->segments.v_channels.shape[1] = HEADS_Q;
}
static void stray_stride(scene *s)
{
    s->segments.v_channels = (fa_tensor){.dtype = FA_F32};
}

START_TEST(segments_refused)
{
    static const struct {
        change *change;
        fa_status status;
        const char *message;
    } row[] = {
        {change_left_window, FA_UNSUPPORTED, "attention->window_left is 4"},
        {prefix, FA_UNSUPPORTED, "attention->prefix is 2"},
        {listed, FA_UNSUPPORTED,
         "lists is given, expected NULL: an attention over segments does not serve it"},
        {change_top_left, FA_UNSUPPORTED, "attention->mask counts from the top left"},
        {aligned, FA_UNSUPPORTED, "attention->alignment counts from the top left"},
        {bias, FA_UNSUPPORTED, "attention->bias is given"},
        {keep, FA_UNSUPPORTED, "attention->keep is given"},
        {change_slopes, FA_UNSUPPORTED, "attention->alibi_slopes is given"},
        {padded_rows, FA_UNSUPPORTED, "attention->lens_q is given"},
        {status, FA_UNSUPPORTED, "attention->want_status is 1"},
        {v_in_k, FA_UNSUPPORTED, "attention->v_in_k is 1"},
        {common_keys, FA_INVALID, "attention->k.shape is not all 0"},
        {common_lengths, FA_INVALID, "attention->lens_kv is given"},
        {common_factor, FA_INVALID, "attention->v_factor is 2"},
        {no_segments, FA_INVALID, "segments is 0, expected 1 to 8"},
        {missing, FA_INVALID, "segment[1]: it is NULL"},
        {wrong_dim, FA_INVALID, "segment[0]: "},
        {wrong_scale, FA_INVALID, "segment[0]: k_scale.shape[2] is 7"},
        {few_keys, FA_INVALID, "segment[1]: lens_kv[1] is 1, expected at least 2"},
        {wrong_channels, FA_INVALID, "v_channels.shape[1] is 4, expected 1 or 2"},
        {stray_stride, FA_INVALID, "v_channels_stride is 128, expected 0"},
    };
    static scene s;
    for (int i = 0; i < COUNT(row) && device; i++) {
        random_state random = {3};
        fa_segments *segments;
        make_cache(&s.cache[0], 2, false, &random);
        make_cache(&s.cache[1], 1, false, &random);
        make_scene(&s, 2, ROWS, false, true, &random);
        s.desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        row[i].change(&s);
        ck_assert_msg(fa_segments_create(device, &s.segments, &segments) == row[i].status, "%d: %s", i,
                      fa_last_error());
        assert_message(row[i].message);
        ck_assert_ptr_null(segments);
    }
}
END_TEST

/* Refused, and neither outputs nor work are written. */
START_TEST(runs_refused)
{
    static scene s, before;
    random_state random = {3};
    fa_segments *segments;
    memory_of m;
    if (!device || slow)
        return;
    make_cache(&s.cache[0], 1, true, &random);
    make_cache(&s.cache[1], 1, false, &random);
    make_scene(&s, 2, ROWS, false, true, &random);
    s.desc.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    s.desc.dynamic_lengths = 1;
    ck_assert_int_eq(fa_segments_create(device, &s.segments, &segments), FA_OK);
    make_memory(&s, segments, &m);
    before = s;
    fa_segments_args bad[7];
    fa_segment_args own = m.own[1];
    const fa_segment_args *list[2] = {&m.own[0], &own};
    for (int i = 0; i < COUNT(bad); i++)
        bad[i] = m.args;
    bad[0].v_channels = NULL;
    bad[1].v_channels = m.args.o;
    bad[2].workspace_offset = 128;
    bad[3].segment = NULL;
    bad[4].segment = list;
    own.page_table = own.k;
    bad[5].o = m.own[0].k;
    bad[6].lse = NULL;
    static const char *const message[] = {
        "args.v_channels is NULL",
        "args.o overlaps args.v_channels",
        "args.workspace has",
        "args.segment is NULL",
        "segment[1]: args.page_table is given",
        "segment[0]: args.o overlaps args.k",
        "args.lse is NULL",
    };
    for (int i = 0; i < COUNT(bad); i++) {
        const fa_status status = fa_segments_run(segments, queue, &bad[i]);
        ck_assert_int_eq(status, FA_INVALID);
        assert_message(message[i]);
    }
    fa_buffer *work;
    unsigned char *bytes = malloc(fa_segments_work(segments)), *found = malloc(fa_segments_work(segments));
    memset(bytes, 0x5a, fa_segments_work(segments));
    work = upload(bytes, fa_segments_work(segments));
    fa_lengths lengths[2] = {{.struct_size = sizeof(fa_lengths), .lens_kv = s.cache[0].lens},
                             {.struct_size = sizeof(fa_lengths), .lens_kv = s.cache[1].lens}};
    const fa_lengths *lengths_list[2] = {&lengths[0], &lengths[1]};
    s.cache[1].lens[0] = 1;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: lens_kv[0] is 1, expected at least 2");
    s.cache[1].lens[0] = KEYS + 1;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: lens_kv[0] is 49, expected 0 to 48");
    s.cache[1].lens[0] = KEYS;
    lengths[0].lens_q = s.cache[0].lens;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[0]: lens_q is given");
    lengths[0].lens_q = NULL;
    lengths[1].cu_rows_kv = s.cache[1].lens;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: cu_rows_kv is given");
    lengths[1].cu_rows_kv = NULL;
    static const int32_t both[BATCH] = {1};
    lengths[1].lens_kv32 = both;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: lens_kv32 is given with lens_kv");
    lengths[1].lens_kv = NULL;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: lens_kv32[0] is 1, expected at least 2");
    lengths[1].lens_kv = s.cache[1].lens;
    lengths[1].sequences = BATCH;
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 0), FA_INVALID);
    assert_message("segment[1]: sequences is 2, expected 0: rows are the description's");
    lengths[1].sequences = 0;
    lengths[1].lens_kv32 = NULL;
    const fa_device_lengths *const none[2] = {NULL, NULL};
    ck_assert_int_eq(fa_segments_schedule_device(segments, queue, none, work, 0), FA_INVALID);
    assert_message("lengths[0] is NULL");
    ck_assert_int_eq(fa_segments_schedule(segments, queue, lengths_list, work, 256), FA_INVALID);
    assert_message("work");
    ck_assert_int_eq(fa_buffer_read(queue, work, 0, found, fa_segments_work(segments)), FA_OK);
    ck_assert_mem_eq(found, bytes, fa_segments_work(segments));
    free(bytes);
    free(found);
    ck_assert_int_eq(fa_buffer_read(queue, m.args.o, 0, s.o, sizeof(s.o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, m.args.lse, 0, s.lse, sizeof(s.lse)), FA_OK);
    ck_assert_mem_eq(s.o, before.o, sizeof(s.o));
    ck_assert_mem_eq(s.lse, before.lse, sizeof(s.lse));
    fa_buffer_destroy(work);
    release_memory(&m);
    fa_segments_destroy(segments);
    fa_segments_destroy(NULL);
    ck_assert_uint_eq(fa_segments_workspace(NULL) + fa_segments_work(NULL), 0);
    ck_assert_int_eq(fa_segments_create(device, NULL, &segments), FA_INVALID);
    ck_assert_int_eq(fa_segments_create(NULL, &s.segments, &segments), FA_INVALID);
    ck_assert_int_eq(fa_segments_create(device, &s.segments, NULL), FA_INVALID);
}
END_TEST

void add_refusals(TCase *tc)
{
    tcase_add_test(tc, segments_refused);
    tcase_add_test(tc, runs_refused);
}
