/* SPDX-License-Identifier: Apache-2.0 */
/* Neighbourhoods of a description: what is refused by name, and what plans make of them. */
#include <fastattn/sparse.h>
#include <string.h>

#include "core/backend.h"
#include "core/plan.h"
#include "suites.h"
#include "test_problem.h"

/* Of 6 x 10 tokens and 4 keys more. */
static fa_neighbourhood good_grid(void)
{
    return (fa_neighbourhood){.struct_size = sizeof(fa_neighbourhood),
                              .axes = 2,
                              .size = {6, 10},
                              .kernel = {3, 5},
                              .tile = {2, 5}};
}

static fa_attention_desc desc_of(const fa_neighbourhood *grid, int64_t rows, int64_t keys)
{
    fa_attention_desc d = make_desc(2, 4, 2, rows, keys, 16);
    d.neighbourhood = grid;
    return d;
}

START_TEST(sizes)
{
    static const struct {
        size_t at;
        int32_t value;
        const char *message;
    } row[] = {
        {offsetof(fa_neighbourhood, axes), 0, "neighbourhood->axes is 0, expected 1 to 3"},
        {offsetof(fa_neighbourhood, size), -1, "neighbourhood->size[0] is -1, expected 1 to 268435456"},
        {offsetof(fa_neighbourhood, kernel) + 4, 11, "neighbourhood->kernel[1] is 11, expected 1 to 10"},
        {offsetof(fa_neighbourhood, stride), 4, "neighbourhood->stride[0] is 4, expected 1 to 3"},
        {offsetof(fa_neighbourhood, dilation) + 4, 3, "neighbourhood->kernel[1] is 5, expected 1 to 3"},
        {offsetof(fa_neighbourhood, causal), -1, "neighbourhood->causal[0] is -1, expected 0 to 1"},
        {offsetof(fa_neighbourhood, tile), -4, "neighbourhood->tile[0] is -4, expected 1 to 268435456"},
        {offsetof(fa_neighbourhood, size), 7,
         "neighbourhood->size: the grid has 70 tokens, a sequence 60 rows and 64 keys, expected as many rows"},
        {offsetof(fa_neighbourhood, size), 5,
         "neighbourhood->size: the grid has 50 tokens, a sequence 60 rows"},
    };
    for (int i = 0; i < COUNT(row); i++) {
        fa_neighbourhood g = good_grid();
        const fa_attention_desc d = desc_of(&g, 60, 64);
        memcpy((char *)&g + row[i].at, &row[i].value, sizeof(row[i].value));
        refuse(&d, FA_INVALID, row[i].message);
    }
    fa_neighbourhood g = good_grid();
    fa_attention_desc d = desc_of(&g, 60, 59);
    refuse(&d, FA_INVALID, "a sequence 60 rows and 59 keys, expected as many rows and at least as many keys");
    g.struct_size = 16;
    d = desc_of(&g, 60, 64);
    refuse(&d, FA_INVALID, "fa_neighbourhood.struct_size is 16");
    g = good_grid();
    g.size[0] = 1 << 23;
    d = desc_of(&g, 10 << 23, 10 << 23);
    refuse(&d, FA_OUT_OF_MEMORY, "neighbourhood->size: the grid has 83886080 tokens, kernels count 67108864");
}
END_TEST

/* Lengths of each sequence leave rows and keys out, and there may be no sequence at all. */
START_TEST(fewer)
{
    static const int64_t lens_q[] = {60, 7}, lens_kv[] = {64, 3};
    const fa_neighbourhood g = good_grid();
    fa_attention_desc d = desc_of(&g, 61, 64);
    d.lens_q = lens_q;
    d.lens_kv = lens_kv;
    fa_problem p = accept(&d);
    ck_assert_uint_eq(p.features & FA_FEATURE_NEIGHBOURHOOD, FA_FEATURE_NEIGHBOURHOOD);
    ck_assert_uint_eq(p.features & FA_FEATURE_LISTS, FA_FEATURE_LISTS);
    fa_problem_release(context, &p);
    d.dynamic_lengths = 1;
    refuse(&d, FA_INVALID,
           "the grid has 60 tokens, a sequence 61 rows and 64 keys, expected at most as many");
    d = desc_of(&g, 60, 64);
    d.q.shape[0] = d.k.shape[0] = d.v.shape[0] = d.o.shape[0] = 0;
    p = accept(&d);
    ck_assert_ptr_null(p.near.words);
    fa_problem_release(context, &p);
}
END_TEST

/* What rows see of keys, of a block of the kernel with packed rows. */
static int64_t count_seen(const fa_neighbourhood *g, int64_t row, int64_t row_end, int64_t key,
                          int64_t key_end)
{
    int64_t seen = 0;
    for (int64_t i = row; i < row_end; i++) {
        for (int64_t j = key; j < key_end; j++) {
            int32_t sees = 0;
            ck_assert_int_eq(fa_sparse_neighbourhood_sees(g, i, j, &sees), FA_OK);
            seen += sees;
        }
    }
    return seen;
}

/* A block that is full shows all of its pairs, one that is passed over none, and pairs are those that rows see. */
START_TEST(tiles)
{
    static const fa_neighbourhood grids[] = {
        {.struct_size = sizeof(fa_neighbourhood), .axes = 1, .size = {300}, .kernel = {170}},
        {.struct_size = sizeof(fa_neighbourhood),
         .axes = 1,
         .size = {290},
         .kernel = {41},
         .dilation = {3},
         .causal = {1}},
        {.struct_size = sizeof(fa_neighbourhood),
         .axes = 2,
         .size = {24, 16},
         .kernel = {8, 8},
         .stride = {8, 8}},
        {.struct_size = sizeof(fa_neighbourhood),
         .axes = 3,
         .size = {8, 9, 5},
         .kernel = {7, 8, 5},
         .stride = {2, 1, 1}},
    };
    const fa_tuning tuning = {.struct_size = sizeof(tuning), .block_q = 32, .block_kv = 16};
    int64_t full = 0;
    for (int n = 0; n < COUNT(grids); n++) {
        const fa_neighbourhood *g = &grids[n];
        const int64_t tokens =
            (int64_t)g->size[0] * (g->axes > 1 ? g->size[1] : 1) * (g->axes > 2 ? g->size[2] : 1);
        const int64_t keys = tokens + 5;
        fa_plan_info info = {.struct_size = sizeof(info)};
        fa_attention_desc d = desc_of(g, tokens, keys);
        int64_t rows, columns;
        d.tuning = &tuning;
        fa_plan *plan = make_plan(&d);
        ck_assert_int_eq(fa_plan_get_info(plan, &info), FA_OK);
        ck_assert_uint_eq(info.pairs, 8 * (uint64_t)count_seen(g, 0, tokens, 0, keys));
        ck_assert_int_eq(fa_plan_grid(plan, 0, &rows, &columns), FA_OK);
        for (int64_t i = 0; i < rows * columns; i++) {
            const int64_t row = i / columns * info.block_q / 2, key = i % columns * info.block_kv;
            const int64_t row_end = FA_MIN(row + info.block_q / 2, tokens),
                          key_end = FA_MIN(key + info.block_kv, keys);
            const int64_t seen = count_seen(g, row, row_end, key, key_end);
            fa_tile_class tile;
            ck_assert_int_eq(fa_plan_tile(plan, 0, i / columns, i % columns, &tile), FA_OK);
            ck_assert(tile != FA_TILE_FULL || seen == (row_end - row) * (key_end - key));
            ck_assert(tile != FA_TILE_SKIP || seen == 0);
            full += tile == FA_TILE_FULL;
            ck_assert(n != 2 || tile != FA_TILE_PARTIAL ||
                      key_end > tokens); /* whole patches, as the strides have it */
        }
        fa_plan_destroy(plan);
    }
    ck_assert_int_gt(full, 100);
}
END_TEST

/* A run brings no lists of its own, wherever lengths come from. */
START_TEST(no_other_lists)
{
    static const uint8_t mask[64 * 64] = {1};
    const fa_neighbourhood g = good_grid();
    const fa_block_lists other = {.struct_size = sizeof(other),
                                  .block_rows = 70,
                                  .block_keys = 70,
                                  .sequences = 1,
                                  .heads = 1,
                                  .row_blocks = 1,
                                  .key_blocks = 1,
                                  .mask = mask};
    const fa_lengths lengths = {.struct_size = sizeof(lengths), .lists = &other};
    const fa_device_lists on_device = {.struct_size = sizeof(on_device)};
    fa_attention_desc d = desc_of(&g, 60, 64);
    for (int dynamic = 1; dynamic <= 2; dynamic++) {
        fa_buffer *work;
        d.dynamic_lengths = dynamic;
        fa_plan *plan = make_plan(&d);
        ck_assert_int_eq(fa_buffer_create(null_device, fa_plan_work(plan), &work), FA_OK);
        ck_assert_int_eq(fa_plan_schedule(plan, null_queue, &lengths, work, 0), FA_INVALID);
        assert_message("lists is given, expected NULL: the plan's description has none");
        ck_assert_int_eq(fa_plan_schedule_lists(plan, null_queue, &on_device, work, 0), FA_INVALID);
        assert_message("the plan's description has no lists");
        fa_buffer_destroy(work);
        fa_plan_destroy(plan);
    }
}
END_TEST

/* Each request for memory fails once, with lists of the library's and with given ones. */
START_TEST(out_of_memory)
{
    static const uint8_t mask[1] = {1};
    const fa_neighbourhood g = good_grid();
    const fa_block_lists given = {.struct_size = sizeof(given),
                                  .block_rows = 60,
                                  .block_keys = 64,
                                  .sequences = 1,
                                  .heads = 1,
                                  .row_blocks = 1,
                                  .key_blocks = 1,
                                  .mask = mask};
    for (int n = 0; n < 2; n++) {
        fa_attention_desc d = desc_of(&g, 60, 64);
        d.lists = n == 0 ? NULL : &given;
        const long before = atomic_load(&memory.calls);
        fa_plan_destroy(make_plan(&d));
        const long calls = atomic_load(&memory.calls) - before, live = atomic_load(&memory.live);
        for (long i = 0; i < calls; i++) {
            fa_plan *plan;
            memory.fail_at = atomic_load(&memory.calls) + i;
            ck_assert_int_eq(fa_plan_create(null_device, &d, &plan), FA_OUT_OF_MEMORY);
            ck_assert_ptr_null(plan);
            ck_assert_int_eq(atomic_load(&memory.live), live);
        }
        memory.fail_at = -1;
    }
}
END_TEST

Suite *near_suite(void)
{
    Suite *suite = suite_create("near");
    TCase *problems = add_context_case(suite, "problems");
    tcase_add_test(problems, sizes);
    tcase_add_test(problems, fewer);
    TCase *plans = add_device_case(suite, "plans");
    tcase_set_timeout(plans, 60);
    tcase_add_test(plans, tiles);
    tcase_add_test(plans, no_other_lists);
    tcase_add_test(plans, out_of_memory);
    return suite;
}
