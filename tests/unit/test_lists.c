/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of key blocks: what is refused by name, and plans with and without memory. */
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "core/plan.h"
#include "suites.h"
#include "test_problem.h"

/* Of base(): 8 rows and 12 keys in blocks of 4 and 5, one list for each block of rows. */
static const int32_t indptr[] = {0, 2, 3}, indices[] = {2, 0, 1};
static const uint8_t mask[4 * 2 * 2 * 3] = {1};

static fa_block_lists good_lists(void)
{
    return (fa_block_lists){
        .struct_size = sizeof(fa_block_lists),
        .block_rows = 4,
        .block_keys = 5,
        .sequences = 1,
        .heads = 1,
        .row_blocks = 2,
        .key_blocks = 3,
        .indptr = indptr,
        .indices = indices,
    };
}

static void refuse_lists(const fa_block_lists *lists, const char *message)
{
    fa_attention_desc d = base();
    d.lists = lists;
    refuse(&d, FA_INVALID, message);
}

START_TEST(sizes)
{
    static const struct {
        size_t at;
        int wide;
        int64_t value;
        const char *message;
    } row[] = {
        {offsetof(fa_block_lists, block_rows), 0, 0, "lists->block_rows is 0, expected 1 to 268435456"},
        {offsetof(fa_block_lists, block_rows), 0, -3, "lists->block_rows is -3, expected 1 to"},
        {offsetof(fa_block_lists, block_keys), 0, 0, "lists->block_keys is 0, expected 1 to"},
        {offsetof(fa_block_lists, block_keys), 0, INT32_MIN, "lists->block_keys is -2147483648"},
        {offsetof(fa_block_lists, sequences), 1, 3, "lists->sequences is 3, expected 1 or 2"},
        {offsetof(fa_block_lists, sequences), 1, 0, "lists->sequences is 0, expected 1 or 2"},
        {offsetof(fa_block_lists, heads), 1, 3, "lists->heads is 3, expected 1, 2 or 4"},
        {offsetof(fa_block_lists, heads), 1, -1, "lists->heads is -1, expected 1, 2 or 4"},
        {offsetof(fa_block_lists, row_blocks), 1, 1, "lists->row_blocks is 1, expected 2 to"},
        {offsetof(fa_block_lists, row_blocks), 1, INT64_MAX,
         "lists->row_blocks is 9223372036854775807, expected"},
        {offsetof(fa_block_lists, key_blocks), 1, 2, "lists->key_blocks is 2, expected 3 to"},
        {offsetof(fa_block_lists, key_blocks), 1, -1, "lists->key_blocks is -1, expected 3 to"},
        {offsetof(fa_block_lists, index_count), 1, 1, "lists->index_count is 1, expected 0 to 0"},
        {offsetof(fa_block_lists, struct_size), 1, 8,
         "fa_block_lists.struct_size is 8, expected sizeof(fa_block_lists)"},
    };
    for (int i = 0; i < COUNT(row); i++) {
        fa_block_lists l = good_lists();
        const int32_t narrow = (int32_t)row[i].value;
        memcpy((char *)&l + row[i].at, row[i].wide ? (const void *)&row[i].value : &narrow,
               row[i].wide ? sizeof(row[i].value) : sizeof(narrow));
        refuse_lists(&l, row[i].message);
    }
}
END_TEST

START_TEST(forms)
{
    fa_block_lists l = good_lists();
    l.mask = mask;
    refuse_lists(&l, "lists: both mask and indptr, expected one of them");
    l.indptr = NULL;
    refuse_lists(&l, "lists->indices is given, expected NULL beside a mask");
    l.mask = NULL;
    refuse_lists(&l, "lists: neither mask and indptr, expected one of them");
    l = good_lists();
    l.indices = NULL;
    refuse_lists(&l, "lists->indices is NULL");
    l.indptr = (const int32_t[]){0, 0, 0}; /* no list has anything: there need be no indices */
    fa_attention_desc d = base();
    d.lists = &l;
    fa_problem p = accept(&d);
    ck_assert_uint_eq(p.features & FA_FEATURE_LISTS, FA_FEATURE_LISTS);
    fa_problem_release(context, &p);
}
END_TEST

START_TEST(numbers_of_rows)
{
    static const struct {
        int32_t indptr[3], indices[3];
        const char *message;
    } row[] = {
        {{1, 2, 3}, {0, 1, 2}, "lists->indptr[0] is 1, expected 0"},
        {{-1, 2, 3}, {0, 1, 2}, "lists->indptr[0] is -1, expected 0"},
        {{0, -1, 3}, {0, 1, 2}, "lists->indptr[1] is -1, expected at least the one before, 0"},
        {{0, 2, 1}, {0, 1, 2}, "lists->indptr[2] is 1, expected at least the one before, 2"},
        {{0, 2, 3}, {0, -1, 2}, "lists->indices[1] is -1, expected 0 to 2"},
        {{0, 2, 3}, {0, 1, 3}, "lists->indices[2] is 3, expected 0 to 2"},
        {{0, 2, 3}, {0, 1, INT32_MAX}, "lists->indices[2] is 2147483647, expected 0 to 2"},
        {{0, 2, 3}, {1, 1, 2}, "lists->indices[1] is 1, which its list has already"},
        {{0, 0, 3}, {1, 2, 1}, "lists->indices[2] is 1, which its list has already"},
    };
    for (int i = 0; i < COUNT(row); i++) {
        fa_block_lists l = good_lists();
        l.indptr = row[i].indptr;
        l.indices = row[i].indices;
        refuse_lists(&l, row[i].message);
    }
}
END_TEST

/* More lists than a table counts, of which nothing is read. */
START_TEST(too_many)
{
    fa_block_lists l = good_lists();
    l.row_blocks = l.key_blocks = 1 << 20;
    fa_attention_desc d = base();
    d.lists = &l;
    refuse(&d, FA_OUT_OF_MEMORY,
           "lists: 1 sequences, 1 heads and 1048576 row blocks of 1048576 key blocks are more than kernels "
           "count");
}
END_TEST

/* With lengths of a run's own, any sequence may be as long as the tensors. */
START_TEST(blocks_of_any_length)
{
    static const int64_t cu[] = {0, 3, 8};
    fa_block_lists l = good_lists();
    fa_attention_desc d = base();
    d.lists = &l;
    d.q.shape[0] = d.o.shape[0] = 1;
    d.cu_rows_q = cu;
    d.sequences = 2;
    fa_problem p = accept(&d); /* of 5 rows at most */
    fa_problem_release(context, &p);
    d.dynamic_lengths = 1;
    p = accept(&d);
    fa_problem_release(context, &p);
    l.row_blocks = 1;
    refuse(&d, FA_INVALID, "lists->row_blocks is 1, expected 2 to");
    d.dynamic_lengths = 0;
    l.block_rows = 5; /* which one block then has */
    l.indptr = (const int32_t[]){0, 3};
    p = accept(&d);
    fa_problem_release(context, &p);
}
END_TEST

/* A problem of two sequences, 4 heads and many blocks, with lists of each. */
enum { ROWS = 240, KEYS = 560, SIDE = 16 };

typedef struct scene {
    fa_attention_desc desc;
    fa_block_lists lists;
    uint8_t mask[2 * 4 * (ROWS / SIDE) * (KEYS / SIDE)];
} scene;

static void make_scene(scene *s, int64_t heads, int density, random_state *random)
{
    s->desc = make_desc(2, 4, 2, ROWS, KEYS, 16);
    s->lists = (fa_block_lists){
        .struct_size = sizeof(s->lists),
        .block_rows = SIDE,
        .block_keys = SIDE,
        .sequences = 2,
        .heads = heads,
        .row_blocks = ROWS / SIDE,
        .key_blocks = KEYS / SIDE,
        .mask = s->mask,
    };
    for (size_t i = 0; i < sizeof(s->mask); i++)
        s->mask[i] = random_between(random, 0, 99) < density;
    s->desc.lists = &s->lists;
}

/* Pairs of all heads are what the lists have, and full lists cost what none do. */
START_TEST(plans_count_lists)
{
    static scene s;
    random_state random = {3};
    for (int64_t heads = 1; heads <= 4; heads *= 2) {
        make_scene(&s, heads, 30, &random);
        const size_t blocks = (size_t)(2 * heads) * (ROWS / SIDE) * (KEYS / SIDE);
        uint64_t have = 0;
        for (size_t i = 0; i < blocks; i++)
            have += s.mask[i];
        fa_plan *plan = make_plan(&s.desc);
        fa_plan_info info = {.struct_size = sizeof(info)}, dense = {.struct_size = sizeof(dense)};
        ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
        ck_assert_uint_eq(info.pairs, have * SIDE * SIDE * (uint64_t)(4 / heads));
        fa_plan_destroy(plan);
        memset(s.mask, 1, sizeof(s.mask));
        plan = make_plan(&s.desc);
        ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
        fa_plan_destroy(plan);
        s.desc.lists = NULL;
        plan = make_plan(&s.desc);
        ck_assert_int_eq(fa_plan_get_info(plan, &dense), FA_OK);
        fa_plan_destroy(plan);
        ck_assert_uint_eq(info.pairs, dense.pairs);
        ck_assert_int_eq(info.blocks_full, dense.blocks_full);
        ck_assert_int_eq(info.blocks_skipped, 0);
        ck_assert(info.seconds == dense.seconds);
    }
}
END_TEST

static fa_tile_class tile_of(const fa_plan *plan, int64_t sequence, int64_t head, int64_t row, int64_t column)
{
    fa_tile_class tile;
    ck_assert_int_eq(fa_plan_head_tile(plan, sequence, head, row, column, &tile), FA_OK);
    return tile;
}

/* The grid's classes of all heads add up to what the plan counts, and a list of one block is one block. */
START_TEST(tiles_of_lists)
{
    static scene s;
    random_state random = {5};
    fa_tuning tuning = {.struct_size = sizeof(tuning), .block_q = 2 * SIDE, .block_kv = SIDE};
    fa_tile_class tile;
    for (int n = 0; n < 6; n++) {
        fa_plan_info info = {.struct_size = sizeof(info)};
        int64_t count[3] = {0};
        make_scene(&s, n % 3 == 0 ? 1 : 2 * (n % 3), 40, &random);
        s.desc.mask = n < 3 ? FA_MASK_NONE : FA_MASK_CAUSAL_BOTTOM_RIGHT;
        s.desc.tuning = &tuning;
        fa_plan *plan = make_plan(&s.desc);
        ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
        for (int64_t at = 0; at < info.sequences * info.heads_kv; at++) {
            int64_t rows, columns;
            ck_assert_int_eq(fa_plan_grid(plan, at / info.heads_kv, &rows, &columns), FA_OK);
            for (int64_t i = 0; i < rows * columns; i++)
                count[tile_of(plan, at / info.heads_kv, at % info.heads_kv, i / columns, i % columns)]++;
        }
        ck_assert_int_eq(count[FA_TILE_SKIP], info.blocks_skipped);
        ck_assert_int_eq(count[FA_TILE_PARTIAL], info.blocks_partial);
        ck_assert_int_eq(count[FA_TILE_FULL], info.blocks_full);
        fa_plan_destroy(plan);
    }
    make_scene(&s, 2, 0, &random);
    s.desc.tuning = &tuning;
    s.mask[(2 + 1) * (ROWS / SIDE) * (KEYS / SIDE) + 2 * (KEYS / SIDE) + 7] =
        1; /* sequence 1, head 1, row block 2 */
    fa_plan *plan = make_plan(&s.desc);
    ck_assert_int_eq(tile_of(plan, 1, 1, 2, 7), FA_TILE_FULL);
    ck_assert_int_eq(tile_of(plan, 1, 1, 2, 6), FA_TILE_SKIP);
    ck_assert_int_eq(tile_of(plan, 1, 0, 2, 7), FA_TILE_SKIP);
    ck_assert_int_eq(tile_of(plan, 0, 1, 2, 7), FA_TILE_SKIP);
    ck_assert_int_eq(fa_plan_tile(plan, 1, 2, 7, &tile), FA_OK);
    ck_assert_int_eq(tile, FA_TILE_SKIP);
    ck_assert_int_eq(fa_plan_head_tile(plan, 1, 2, 2, 7, &tile), FA_INVALID);
    assert_message("head_kv is 2, expected 0 to 1");
    ck_assert_int_eq(fa_plan_head_tile(plan, 1, -1, 2, 7, &tile), FA_INVALID);
    assert_message("head_kv is -1, expected 0 to 1");
    fa_plan_destroy(plan);
}
END_TEST

/* Each request for memory fails once, of plans in either form and of plans that other lengths may come to. */
START_TEST(out_of_memory)
{
    static scene s;
    random_state random = {4};
    for (int dynamic = 0; dynamic <= 2; dynamic++) {
        fa_plan *plan;
        make_scene(&s, 2, 30, &random);
        s.desc.dynamic_lengths = dynamic;
        const long before = atomic_load(&memory.calls);
        ck_assert_msg(fa_plan_create(null_device, &s.desc, &plan) == FA_OK, "%s", fa_last_error());
        fa_plan_destroy(plan);
        const long calls = atomic_load(&memory.calls) - before, live = atomic_load(&memory.live);
        ck_assert_int_gt(calls, 2);
        for (long i = 0; i < calls; i++) {
            memory.fail_at = atomic_load(&memory.calls) + i;
            ck_assert_int_eq(fa_plan_create(null_device, &s.desc, &plan), FA_OUT_OF_MEMORY);
            ck_assert_ptr_null(plan);
            ck_assert_int_eq(atomic_load(&memory.live), live);
        }
        memory.fail_at = -1;
    }
}
END_TEST

/* A plan with lists of its heads has a capacity for any lengths, and work of any lengths lies within. */
START_TEST(any_lengths_have_room)
{
    static scene s;
    random_state random = {(uint64_t)_i + 1};
    int64_t lens[2] = {0};
    fa_plan *plan;
    fa_buffer *work;
    make_scene(&s, _i == 0 ? 1 : 2 * _i, 40, &random);
    s.desc.dynamic_lengths = 1;
    ck_assert_msg(fa_plan_create(null_device, &s.desc, &plan) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_work(plan), &work), FA_OK);
    fa_lengths lengths = {.struct_size = sizeof(lengths), .lens_q = lens, .lens_kv = lens};
    for (int n = 0; n < 40; n++) {
        for (int i = 0; i < 2; i++)
            lens[i] = random_between(&random, 0, ROWS);
        ck_assert_msg(fa_plan_schedule(plan, null_queue, &lengths, work, 0) == FA_OK, "%s", fa_last_error());
        const fa_table_params *made = work->address;
        ck_assert_int_le(made->items, plan->capacity.items);
        ck_assert_int_le(made->merges, plan->capacity.merges);
        ck_assert_int_le(made->partial_rows, plan->capacity.partial_rows);
    }
    fa_buffer_destroy(work);
    fa_plan_destroy(plan);
}
END_TEST

Suite *lists_suite(void)
{
    Suite *suite = suite_create("lists");
    TCase *bad = add_context_case(suite, "refused by name");
    tcase_add_test(bad, sizes);
    tcase_add_test(bad, forms);
    tcase_add_test(bad, numbers_of_rows);
    tcase_add_test(bad, too_many);
    tcase_add_test(bad, blocks_of_any_length);
    TCase *plans = add_device_case(suite, "plans");
    tcase_add_test(plans, plans_count_lists);
    tcase_add_test(plans, tiles_of_lists);
    tcase_add_test(plans, out_of_memory);
    tcase_add_loop_test(plans, any_lengths_have_room, 0, 3);
    return suite;
}
