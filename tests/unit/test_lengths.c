/* SPDX-License-Identifier: Apache-2.0 */
/* fa_plan_schedule(): one plan, runs of many lengths. On the null backend, whose work lies in the host's memory. */
#include <string.h>

#include "core/backend.h"
#include "core/size.h"
#include "helpers.h"
#include "suites.h"

enum { MOST_SEQUENCES = 12 };

/* A plan, work for it, and the lengths that it is written for. */
typedef struct life {
    fa_plan *plan;
    fa_buffer *work;
    fa_lengths lengths;
    int64_t cu_q[MOST_SEQUENCES + 1], cu_kv[MOST_SEQUENCES + 1], lens_q[MOST_SEQUENCES],
        lens_kv[MOST_SEQUENCES];
} life;

static void begin(life *l, const fa_attention_desc *desc)
{
    *l = (life){.plan = make_plan(desc), .lengths = {.struct_size = sizeof(fa_lengths)}};
    ck_assert_uint_gt(fa_plan_work(l->plan), 0);
    ck_assert_int_eq(fa_buffer_create(null_device, 256 + fa_plan_work(l->plan), &l->work), FA_OK);
}

static void end(life *l)
{
    fa_buffer_destroy(l->work);
    fa_plan_destroy(l->plan);
}

static const void *words_of(const life *l)
{
    return (const char *)l->work->address + 256;
}

static fa_status schedule(const life *l)
{
    return fa_plan_schedule(l->plan, null_queue, &l->lengths, l->work, 256);
}

/* A dense decoder's cache of `batch` entries, whose lengths a run says. */
static fa_attention_desc cache_desc(int64_t batch, int64_t rows, int64_t keys)
{
    fa_attention_desc d = make_desc(batch, 8, 2, rows, keys, 64);
    d.dynamic_lengths = 1;
    return d;
}

/* Every row of every head meets every key once, and every part is merged. */
static void check_work(const life *l, int64_t sequences, const int64_t *lens_q, const int64_t *lens_kv)
{
    const fa_plan *plan = l->plan;
    const fa_table_params *p = words_of(l);
    const fa_table_item *item = (const fa_table_item *)words_of(l) + p->items_at;
    const fa_table_merge *merge = (const fa_table_merge *)words_of(l) + p->merges_at;
    int64_t met = 0, expected = 0, merged = 0, parts = 0;
    ck_assert_int_le(p->items, plan->capacity.items);
    ck_assert_int_le(p->merges, plan->capacity.merges);
    ck_assert_int_le(p->partial_rows, plan->capacity.partial_rows);
    ck_assert_int_le(p->workers, plan->capacity.workers);
    fa_plan_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
    ck_assert_int_le(p->workers, info.workers); /* which an executor of the caller's relies on */
    ck_assert_uint_eq(info.workspace, fa_plan_workspace(plan));
    for (int64_t i = 0; i < p->items; i++) {
        const int64_t rows = item[i].row_end - item[i].row_begin;
        ck_assert_int_gt(rows, 0);
        ck_assert_int_le(item[i].row_end, lens_q[item[i].sequence] * plan->problem.group);
        ck_assert_int_le(item[i].key_end, lens_kv[item[i].sequence]);
        met += rows * (item[i].key_end - item[i].key_begin);
        parts += item[i].part_row >= 0;
        ck_assert(item[i].part_row < 0 || item[i].part_row + rows <= p->partial_rows);
    }
    for (int64_t i = 0; i < p->merges; i++) {
        ck_assert_int_gt(merge[i].row_end, merge[i].row_begin);
        merged += merge[i].parts;
    }
    for (int64_t n = 0; n < sequences; n++)
        expected += lens_q[n] * plan->problem.heads_q * lens_kv[n];
    ck_assert_int_eq(met, expected);
    ck_assert_int_eq(merged, parts);
}

/* Offsets of `count` sequences that lie in [0, total) and have these lengths. */
static void cut_up(random_state *random, int64_t total, int64_t count, int64_t *cu, int64_t *lens)
{
    cu[0] = random_between(random, 0, total);
    for (int64_t n = 0; n < count; n++) {
        cu[n + 1] = random_between(random, cu[n], total);
        lens[n] = cu[n + 1] - cu[n];
    }
}

static void draw_lens(random_state *random, int64_t most, int64_t count, int64_t *lens)
{
    for (int64_t n = 0; n < count; n++)
        lens[n] = random_bits(random) % 4 ? random_between(random, 0, most) : most;
}

/* Other lengths each time, and sequences that take no part. */
static void draw_lengths(random_state *random, life *l, int64_t *sequences)
{
    const fa_problem *p = &l->plan->problem;
    *sequences = random_between(random, 1, p->sequences);
    l->lengths.sequences = *sequences;
    if (p->packed_q)
        cut_up(random, p->tensor[FA_Q].shape[2], *sequences, l->cu_q, l->lens_q);
    else
        draw_lens(random, p->tensor[FA_Q].shape[2], *sequences, l->lens_q);
    if (p->packed_kv)
        cut_up(random, p->tensor[FA_K].shape[2], *sequences, l->cu_kv, l->lens_kv);
    else
        draw_lens(random, p->tensor[FA_K].shape[2], *sequences, l->lens_kv);
    l->lengths.cu_rows_q = p->packed_q ? l->cu_q : NULL;
    l->lengths.cu_rows_kv = p->packed_kv ? l->cu_kv : NULL;
    l->lengths.lens_q = p->packed_q ? NULL : l->lens_q;
    l->lengths.lens_kv = p->packed_kv ? NULL : l->lens_kv;
}

START_TEST(any_lengths_have_room)
{
    static const int64_t rows[] = {1, 3, 64, 700}, keys[] = {1, 200, 5000, 70000};
    static const int64_t none[MOST_SEQUENCES + 1] = {0};
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; n < 60; n++) {
        const bool packed_q = random_bits(&random) % 3 == 0, packed_kv = random_bits(&random) % 3 == 0;
        const int64_t count = random_between(&random, 1, MOST_SEQUENCES);
        fa_attention_desc d =
            cache_desc(count, rows[random_bits(&random) % 4], keys[random_bits(&random) % 4]);
        const fa_tuning tuning = {.struct_size = sizeof(tuning),
                                  .block_q = n % 3 ? 0 : (int32_t)random_between(&random, 1, 300),
                                  .block_kv = n % 4 ? 0 : (int32_t)random_between(&random, 1, 300),
                                  .splits = n % 5 ? 0 : (int32_t)random_between(&random, 1, 6)};
        d.tuning = &tuning;
        d.sequences = count;
        if (packed_q) {
            d.q.shape[0] = d.o.shape[0] = 1;
            d.cu_rows_q = none; /* what a plan is made for does not bound what is run */
        }
        if (packed_kv) {
            d.k.shape[0] = d.v.shape[0] = 1;
            d.cu_rows_kv = none;
        }
        life l;
        begin(&l, &d);
        for (int turn = 0; turn < 8; turn++) {
            int64_t sequences;
            draw_lengths(&random, &l, &sequences);
            ck_assert_msg(schedule(&l) == FA_OK, "%s", fa_last_error());
            check_work(&l, sequences, l.lens_q, l.lens_kv);
        }
        end(&l);
    }
}
END_TEST

/* One plan of a cache is scheduled as a plan of each length is. */
START_TEST(a_cache_grows)
{
    fa_attention_desc d = cache_desc(1, 1, 20000);
    life l;
    begin(&l, &d);
    for (int64_t keys = 1; keys <= 20000; keys += 1 + keys / 9) {
        const int64_t one[] = {1}, lens[] = {keys};
        l.lengths.lens_kv = lens;
        ck_assert_int_eq(schedule(&l), FA_OK);
        check_work(&l, 1, one, lens);
        d.k.shape[2] = d.v.shape[2] = keys;
        d.dynamic_lengths = 0;
        const fa_tuning same = {.struct_size = sizeof(same),
                                .block_q = l.plan->tiling.block_q,
                                .block_kv = l.plan->tiling.block_kv};
        d.tuning = &same;
        fa_plan *plan = make_plan(&d);
        const fa_table_params *p = words_of(&l);
        ck_assert_int_eq(p->items, plan->schedule.items);
        ck_assert_int_eq(p->workers, plan->schedule.workers);
        fa_plan_destroy(plan);
    }
    end(&l);
}
END_TEST

START_TEST(refusals)
{
    const int64_t lens[] = {5, 101}, short_lens[] = {5, 100}, less[] = {-1, 3}, cu[] = {0, 1, 2};
    const int32_t narrow[] = {5, 6};
    fa_attention_desc d = cache_desc(2, 4, 100);
    life l;
    begin(&l, &d);
    const struct {
        fa_lengths lengths;
        const char *message;
    } wrong[] = {
        {{.lens_kv = lens}, "lens_kv[1] is 101, expected 0 to k.shape[2], 100"},
        {{.lens_q = less}, "lens_q[0] is -1, expected 0 to q.shape[2], 4"},
        {{.lens_kv = short_lens, .lens_kv32 = narrow}, "lens_kv32 is given with lens_kv"},
        {{.cu_rows_q = cu}, "cu_rows_q is given, expected NULL: the plan's q is not packed"},
        {{.cu_rows_kv = cu}, "cu_rows_kv is given, expected NULL: the plan's kv is not packed"},
        {{.sequences = 3}, "sequences is 3, expected 0 to 2"},
        {{.sequences = -1}, "sequences is -1, expected 0 to 2"},
    };
    ck_assert_int_eq(schedule(&l), FA_OK);
    const fa_table_params before = *(const fa_table_params *)words_of(&l);
    for (int i = 0; i < COUNT(wrong); i++) {
        l.lengths = wrong[i].lengths;
        l.lengths.struct_size = sizeof(l.lengths);
        ck_assert_int_eq(schedule(&l), FA_INVALID);
        assert_message(wrong[i].message);
    }
    ck_assert_int_eq(memcmp(&before, words_of(&l), sizeof(before)), 0);
    l.lengths = (fa_lengths){.struct_size = sizeof(l.lengths)};
    ck_assert_int_eq(fa_plan_schedule(NULL, null_queue, &l.lengths, l.work, 0), FA_INVALID);
    assert_message("plan is NULL");
    ck_assert_int_eq(fa_plan_schedule(l.plan, NULL, &l.lengths, l.work, 0), FA_INVALID);
    assert_message("queue is NULL");
    ck_assert_int_eq(fa_plan_schedule(l.plan, null_queue, NULL, l.work, 0), FA_INVALID);
    assert_message("lengths is NULL");
    ck_assert_int_eq(fa_plan_schedule(l.plan, null_queue, &l.lengths, NULL, 0), FA_INVALID);
    ck_assert_int_eq(strncmp(fa_last_error(), "work is NULL, expected a buffer of at least", 43), 0);
    ck_assert_int_eq(fa_plan_schedule(l.plan, null_queue, &l.lengths, l.work, 64), FA_INVALID);
    ck_assert_str_eq(fa_last_error(), "work_offset is 64, expected a multiple of 256");
    ck_assert_int_eq(fa_plan_schedule(l.plan, null_queue, &l.lengths, l.work, 512), FA_INVALID);
    assert_message("behind offset 512, expected at least");
    end(&l);
}
END_TEST

START_TEST(packed_sides_are_given)
{
    const int64_t cu[] = {0, 30, 50}, other[] = {0, 20, 60}, beyond[] = {0, 20, 61};
    fa_attention_desc d = cache_desc(1, 60, 60);
    d.sequences = 2;
    d.cu_rows_q = d.cu_rows_kv = cu;
    d.bias = fa_tensor_make(FA_F32, 2, 1, 35, 1);
    life l;
    begin(&l, &d);
    ck_assert_int_eq(schedule(&l), FA_INVALID);
    assert_message("cu_rows_q is NULL, expected offsets: the plan's q is packed");
    l.lengths.cu_rows_q = cu;
    ck_assert_int_eq(schedule(&l), FA_INVALID);
    assert_message("cu_rows_kv is NULL, expected offsets: the plan's kv is packed");
    l.lengths.cu_rows_kv = beyond;
    ck_assert_int_eq(schedule(&l), FA_INVALID);
    assert_message("cu_rows_kv[2] is 61, expected at most the tensor's 60 rows");
    l.lengths.cu_rows_kv = other; /* bias has one column for all keys */
    ck_assert_int_eq(schedule(&l), FA_OK);
    l.lengths.cu_rows_q = other;
    ck_assert_int_eq(schedule(&l), FA_INVALID);
    assert_message("a sequence has 40 rows, expected at most bias.shape[2], 35");
    end(&l);
}
END_TEST

/* A plan made for no rows may have a bias of none, and no memory for it. */
START_TEST(an_empty_bias_serves_no_rows)
{
    const int64_t none[] = {0}, some[] = {1};
    fa_attention_desc d = cache_desc(1, 4, 60);
    d.lens_q = none;
    d.bias = fa_tensor_make(FA_F32, 1, 1, 0, 60);
    life l;
    begin(&l, &d);
    l.lengths.lens_q = some;
    ck_assert_int_eq(schedule(&l), FA_INVALID);
    assert_message("a sequence has 1 rows, expected at most bias.shape[2], 0");
    l.lengths.lens_q = none;
    ck_assert_int_eq(schedule(&l), FA_OK);
    end(&l);
    d.bias = fa_tensor_make(FA_F32, 0, 0, 0, 0);
    d.keep = fa_tensor_make(FA_BOOL, 1, 1, 0, 60);
    begin(&l, &d);
    l.lengths.lens_q = some;
    ck_assert_int_eq(schedule(&l), FA_INVALID);
    assert_message("a sequence has 1 rows, expected at most keep.shape[2], 0");
    end(&l);
}
END_TEST

/* A run takes the work of its own plan, and only where the description says that there may be some. */
START_TEST(runs_look_at_their_work)
{
    const fa_attention_desc d = cache_desc(2, 4, 100);
    fa_attention_desc fixed = d;
    life l, other;
    fa_buffer *tensor, *workspace;
    fixed.dynamic_lengths = 0;
    fa_plan *plan = make_plan(&fixed);
    begin(&l, &d);
    begin(&other, &d);
    ck_assert_int_eq(fa_buffer_create(null_device, 4 * 2 * 8 * 100 * 64, &tensor), FA_OK);
    ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_workspace(l.plan), &workspace), FA_OK);
    ck_assert_uint_ge(fa_plan_workspace(l.plan), fa_plan_workspace(plan));
    ck_assert_uint_eq(fa_plan_work(plan), 0);
    ck_assert_uint_eq(fa_plan_work(NULL), 0);
    ck_assert_int_eq(fa_plan_schedule(plan, null_queue, &l.lengths, l.work, 0), FA_INVALID);
    assert_message("dynamic_lengths 0, expected 1");
    fa_buffer *o;
    ck_assert_int_eq(fa_buffer_create(null_device, 4 * 2 * 8 * 4 * 64, &o), FA_OK);
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = tensor,
                              .k = tensor,
                              .v = tensor,
                              .o = o,
                              .workspace = workspace,
                              .work = l.work,
                              .work_offset = 256};
    memset(l.work->address, 0, l.work->size);
    ck_assert_int_eq(fa_plan_run(l.plan, null_queue, &args), FA_INVALID);
    assert_message("args.work holds no work that fa_plan_schedule() made for this plan");
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_eq(schedule(&other), FA_OK);
    ck_assert_int_eq(fa_plan_run(l.plan, null_queue, &args), FA_OK);
    ck_assert_int_eq(fa_plan_run(other.plan, null_queue, &args), FA_INVALID);
    assert_message("args.work holds no work");
    ck_assert_int_eq(fa_plan_run(plan, null_queue, &args), FA_INVALID);
    assert_message("args.work is given, expected NULL: the description has dynamic_lengths 0");
    args.o = l.work;
    ck_assert_int_eq(fa_plan_run(l.plan, null_queue, &args), FA_INVALID);
    args.o = o;
    args.work_offset = 0;
    args.work = o;
    ck_assert_int_eq(fa_plan_run(l.plan, null_queue, &args), FA_INVALID);
    assert_message("args.o overlaps args.work");
    args.work = NULL;
    ck_assert_int_eq(fa_plan_run(l.plan, null_queue, &args), FA_OK);
    fa_buffer_destroy(o);
    fa_buffer_destroy(tensor);
    fa_buffer_destroy(workspace);
    fa_plan_destroy(plan);
    end(&l);
    end(&other);
}
END_TEST

/* The queue's scratch grows for a plan that needs more than those before it, and is not there where it cannot. */
START_TEST(without_memory_the_work_stays)
{
    const int64_t lens[] = {3, 4000};
    const fa_attention_desc d = cache_desc(2, 1, 4000);
    life l;
    begin(&l, &d);
    memset(l.work->address, 7, l.work->size);
    l.lengths.lens_kv = lens;
    const long live = atomic_load(&memory.live);
    memory.fail_at = atomic_load(&memory.calls);
    ck_assert_int_eq(schedule(&l), FA_OUT_OF_MEMORY);
    assert_message("no host memory for");
    ck_assert_int_eq(*(const unsigned char *)words_of(&l), 7);
    ck_assert_int_eq(atomic_load(&memory.live), live);
    memory.fail_at = -1;
    const long calls = atomic_load(&memory.calls);
    ck_assert_int_eq(schedule(&l), FA_OK);
    ck_assert_int_eq(atomic_load(&memory.calls), calls + 1);
    end(&l);
}
END_TEST

/* After the first call of a queue no length and no smaller plan allocates. */
START_TEST(a_second_call_allocates_nothing)
{
    const fa_attention_desc large = cache_desc(9, 3, 9000), small = cache_desc(2, 1, 400);
    int64_t lens[9] = {9000, 0, 1, 8999, 300};
    life l, less;
    begin(&l, &large);
    begin(&less, &small);
    ck_assert_int_eq(schedule(&less), FA_OK);
    ck_assert_int_eq(schedule(&l), FA_OK);
    const long live = atomic_load(&memory.live), calls = atomic_load(&memory.calls);
    memory.fail_at = calls;
    l.lengths.lens_kv = lens;
    for (int n = 0; n < COUNT(lens); n++) {
        ck_assert_int_eq(schedule(&l), FA_OK);
        ck_assert_int_eq(schedule(&less), FA_OK);
        lens[n] = 9000;
    }
    ck_assert_int_eq(atomic_load(&memory.calls), calls);
    ck_assert_int_eq(atomic_load(&memory.live), live);
    memory.fail_at = -1;
    end(&less);
    end(&l);
}
END_TEST

/* Rows that no list of items could hold. */
START_TEST(too_many_items_are_refused)
{
    fa_attention_desc d = cache_desc(1 << 20, 1 << 12, 64);
    const int64_t none[(1 << 4) + 1] = {0};
    fa_plan *plan;
    d.q.stride[3] = d.k.stride[3] = d.v.stride[3] = 1;
    d.q.stride[2] = d.k.stride[2] = d.v.stride[2] = 0;
    d.q.shape[0] = d.o.shape[0] = d.k.shape[0] = d.v.shape[0] = 1;
    d.q.shape[2] = d.o.shape[2] = (int64_t)1 << 32;
    d.sequences = 16;
    d.cu_rows_q = d.cu_rows_kv = none;
    ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_OUT_OF_MEMORY);
    assert_message("dynamic_lengths is 1: blocks of");
    d.dynamic_lengths = 3;
    ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_INVALID);
    assert_message("dynamic_lengths is 3, expected 0 to 2");
}
END_TEST

Suite *lengths_suite(void)
{
    Suite *suite = suite_create("lengths");
    TCase *tc = add_device_case(suite, "schedule");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, any_lengths_have_room, 0, 4);
    tcase_add_test(tc, a_cache_grows);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, packed_sides_are_given);
    tcase_add_test(tc, an_empty_bias_serves_no_rows);
    tcase_add_test(tc, runs_look_at_their_work);
    tcase_add_test(tc, without_memory_the_work_stays);
    tcase_add_test(tc, a_second_call_allocates_nothing);
    tcase_add_test(tc, too_many_items_are_refused);
    return suite;
}
