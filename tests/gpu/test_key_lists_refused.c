/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of keys that are refused, as they are made, written and run: by status and message, and nothing is written. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/key_lists_refused.h"

enum { ROWS = 3, KEYS = 10, TOPK = 4, HEADS = 2, NUMBERS = ROWS * TOPK };

static const float none[1];
static const int32_t lens[1] = {KEYS};

#define REFUSED(expected, part)                                                  \
    do {                                                                         \
        fa_key_lists *made = (void *)&lists;                                     \
        lists.attention = &d;                                                    \
        ck_assert_int_eq(fa_key_lists_create(device, &lists, &made), expected);  \
        assert_message(part);                                                    \
        ck_assert_ptr_null(made);                                                \
        d = good;                                                                \
        lists = (fa_key_lists_desc){.struct_size = sizeof(lists), .topk = TOPK}; \
    } while (0)

static fa_attention_desc describe(void)
{
    return make_desc(1, HEADS, HEADS, ROWS, KEYS, 8);
}

START_TEST(descriptions)
{
    const fa_attention_desc good = describe();
    const fa_block_lists blocks = {.struct_size = sizeof(blocks)};
    fa_attention_desc d = good;
    fa_key_lists_desc lists = {.struct_size = sizeof(lists), .topk = TOPK};
    if (!device)
        return;
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    REFUSED(FA_UNSUPPORTED, "attention->mask is 2");
    d.window_left = 3;
    REFUSED(FA_UNSUPPORTED, "attention->window_left is 3");
    d.window_right = 4;
    REFUSED(FA_UNSUPPORTED, "attention->window_right is 4");
    d.prefix = 5;
    REFUSED(FA_UNSUPPORTED, "attention->prefix is 5");
    d.dynamic_lengths = 1;
    REFUSED(FA_UNSUPPORTED, "attention->dynamic_lengths is 1");
    d.want_status = 1;
    REFUSED(FA_UNSUPPORTED, "attention->want_status is 1");
    d.lens_kv32 = lens;
    REFUSED(FA_UNSUPPORTED, "attention->lens_kv is given");
    d.first_kv32 = lens;
    REFUSED(FA_UNSUPPORTED, "attention->first_kv is given");
    d.cu_rows_q32 = lens;
    REFUSED(FA_UNSUPPORTED, "attention->cu_rows_q is given");
    d.alibi_slopes = none;
    REFUSED(FA_UNSUPPORTED, "attention->alibi_slopes is given");
    d.keep = fa_tensor_make(FA_BOOL, 1, 1, 1, KEYS);
    REFUSED(FA_UNSUPPORTED, "attention->keep is given");
    d.bias = fa_tensor_make(FA_F32, 1, 1, 1, KEYS);
    REFUSED(FA_UNSUPPORTED, "attention->bias is given");
    d.lists = &blocks;
    REFUSED(FA_UNSUPPORTED, "attention->lists is given");
    d.scale = 0.0f / 0.0f;
    REFUSED(FA_INVALID, "scale is");
    lists.topk = 0;
    REFUSED(FA_INVALID, "topk is 0");
    lists.heads = 3;
    REFUSED(FA_INVALID, "heads is 3, expected 0, 1 or k.shape[1], 2");
    lists.slots = 2;
    REFUSED(FA_INVALID, "slots is 2");
    lists.unique = -1;
    REFUSED(FA_INVALID, "unique is -1");
    lists.slots = 1;
    d.page_table = fa_tensor_make(FA_I32, 1, 1, 1, 1);
    REFUSED(FA_INVALID, "attention->page_table is given");
    lists.heads = HEADS;
    d.sinks = (const float[HEADS]){0};
    REFUSED(FA_UNSUPPORTED, "attention->sinks is given");
    d.v.stride[0] = d.v.stride[3] = 1;
    d.v.stride[1] = (KEYS + 1) * 8;
    d.v.stride[2] = 8;
    lists.heads = HEADS;
    REFUSED(FA_UNSUPPORTED, "v.stride[1] is 88, lists of keys serve 80");
    d.k.dtype = FA_E4M3;
    d.k_scale = fa_tensor_make(FA_F32, 1, HEADS, KEYS / 2, 1);
    REFUSED(FA_UNSUPPORTED, "k_scale.shape[2] is 5");
    d.k.shape[2] = d.v.shape[2] = 0;
    REFUSED(FA_UNSUPPORTED, "attention->k has no keys");
    lists.struct_size = 8;
    REFUSED(FA_INVALID, "fa_key_lists_desc.struct_size is 8");
}
END_TEST

typedef struct scene {
    fa_attention_desc desc;
    fa_key_lists *lists;
    fa_buffer *work, *other;
} scene;

static void make_scene(scene *s)
{
    s->desc = describe();
    const fa_key_lists_desc d = {.struct_size = sizeof(d), .attention = &s->desc, .topk = TOPK};
    ck_assert_int_eq(fa_key_lists_create(device, &d, &s->lists), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, fa_key_lists_work(s->lists), &s->work), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, 4096, &s->other), FA_OK);
}

static void drop_scene(scene *s)
{
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK); /* a schedule may still write */
    fa_buffer_destroy(s->work);
    fa_buffer_destroy(s->other);
    fa_key_lists_destroy(s->lists);
}

/* Each with the number that is wrong. */
START_TEST(calls)
{
    scene s;
    const int32_t good[NUMBERS] = {0, 1, 2, 3, -1, -1, -1, -1, 9, -1, 4, 5};
    int32_t bad[NUMBERS];
    if (!device)
        return;
    make_scene(&s);
    static const struct {
        int at, number;
        const char *message;
    } wrong[] = {{4, -2, "number 0 of list 1 is -2, expected -1 to 9"},
                 {11, KEYS, "number 3 of list 2 is 10, expected -1 to 9"},
                 {11, 9, "number 3 of list 2 is 9, which the list has before"}};
    for (int i = 0; i < COUNT(wrong); i++) {
        memcpy(bad, good, sizeof(bad));
        bad[wrong[i].at] = wrong[i].number;
        ck_assert_int_eq(fa_key_lists_schedule(s.lists, queue, bad, NULL, 0, s.work, 0), FA_INVALID);
        assert_message(wrong[i].message);
    }
    memory.fail_at = memory.calls;
    ck_assert_int_eq(fa_key_lists_schedule(s.lists, queue, good, NULL, 0, s.work, 0), FA_OUT_OF_MEMORY);
    memory.fail_at = -1;
    ck_assert_int_eq(fa_key_lists_schedule(s.lists, queue, NULL, NULL, 0, s.work, 0), FA_INVALID);
    assert_message("indices is NULL");
    ck_assert_int_eq(fa_key_lists_schedule(s.lists, queue, good, s.other, 0, s.work, 0), FA_INVALID);
    assert_message("page_table is given");
    ck_assert_int_eq(fa_key_lists_schedule(s.lists, queue, good, NULL, 0, s.work, 256), FA_INVALID);
    assert_message("work has");
    ck_assert_int_eq(fa_key_lists_schedule_device(s.lists, queue, s.other, 2, NULL, 0, s.work, 0),
                     FA_INVALID);
    assert_message("indices_offset is 2");
    ck_assert_int_eq(fa_key_lists_schedule_device(s.lists, queue, s.work, 0, NULL, 0, s.work, 0), FA_INVALID);
    assert_message("args.work overlaps args.indices");
    ck_assert_int_eq(fa_key_lists_schedule_device(s.lists, queue, NULL, 0, NULL, 0, s.work, 0), FA_INVALID);
    assert_message("indices is NULL");
    ck_assert_int_eq(fa_key_lists_schedule(s.lists, queue, good, NULL, 0, s.work, 0), FA_OK);
    fa_attention_args args = {.struct_size = sizeof(args), .page_table = s.other, .work = s.work};
    ck_assert_int_eq(fa_key_lists_run(s.lists, queue, &args), FA_INVALID);
    assert_message("args.page_table is given");
    args.page_table = args.work = NULL;
    ck_assert_int_eq(fa_key_lists_run(s.lists, queue, &args), FA_INVALID);
    assert_message("args.work is NULL");
    args.work = s.work;
    ck_assert_int_eq(fa_key_lists_run(s.lists, queue, &args), FA_INVALID);
    assert_message("q");
    drop_scene(&s);
}
END_TEST

/* Nothing is lost where memory is short; without rows nothing is done. */
START_TEST(short_of_memory)
{
    fa_attention_desc d = describe();
    const fa_key_lists_desc of = {.struct_size = sizeof(of), .attention = &d, .topk = TOPK};
    fa_status status = FA_OUT_OF_MEMORY;
    fa_key_lists *lists;
    for (int n = 0; device && n < 100 && status != FA_OK; n++) {
        memory.fail_at = memory.calls + n;
        status = fa_key_lists_create(device, &of, &lists);
        memory.fail_at = -1;
        ck_assert(status == FA_OK || status == FA_OUT_OF_MEMORY || slow);
    }
    if (!device)
        return;
    ck_assert_int_eq(status, FA_OK);
    fa_key_lists_destroy(lists);
    d.q.shape[2] = d.o.shape[2] = 0;
    ck_assert_int_eq(fa_key_lists_create(device, &of, &lists), FA_OK);
    fa_key_lists_destroy(lists);
    fa_key_lists_destroy(NULL);
    ck_assert_uint_eq(fa_key_lists_work(NULL), 0);
    ck_assert_uint_eq(fa_key_lists_workspace(NULL), 0);
}
END_TEST

void add_refusals(TCase *tc)
{
    tcase_add_test(tc, descriptions);
    tcase_add_test(tc, calls);
    tcase_add_test(tc, short_of_memory);
}
