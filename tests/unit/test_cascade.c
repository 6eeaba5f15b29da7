/* SPDX-License-Identifier: Apache-2.0 */
/* The search for levels of shared pages: against every choice there is, and against what a level may hold. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

enum { MOST = 7, PAGES = 6, SIZE = 64, POOL = 64, HEADS = 2, HEADS_KV = 1, DIM = 32 };

typedef struct scene {
    int sequences;
    int64_t cu[MOST + 1], lens[MOST];
    int32_t table[MOST][PAGES];
    fa_attention_desc desc;
} scene;

static void describe(scene *s)
{
    s->desc = make_desc(1, HEADS, HEADS_KV, s->cu[s->sequences], SIZE, DIM);
    s->desc.k.shape[0] = s->desc.v.shape[0] = POOL;
    s->desc.page_table = fa_tensor_make(FA_I32, s->sequences, 1, 1, PAGES);
    s->desc.sequences = s->sequences;
}

/* Each line begins as an earlier one does, and ends in pages of its own. */
static scene make_scene(random_state *random)
{
    scene s = {.sequences = (int)random_between(random, 1, MOST)};
    int32_t page = 0;
    for (int n = 0; n < s.sequences; n++) {
        const int like = (int)random_between(random, n > 1 ? n - 2 : 0, n ? n - 1 : 0);
        const int64_t same = n == 0 ? 0 : random_between(random, 0, PAGES);
        for (int i = 0; i < PAGES; i++)
            s.table[n][i] = i < same ? s.table[like][i] : page++;
        s.cu[n + 1] = s.cu[n] + random_between(random, 0, n == 3 ? 40 : 2);
        s.lens[n] = random_between(random, 0, PAGES * SIZE);
    }
    describe(&s);
    s.desc.mask = (fa_mask_kind)random_between(random, 0, 2);
    return s;
}

/* The description, which points into the scene. */
static const fa_attention_desc *desc_of(scene *s)
{
    s->desc.cu_rows_q = s->cu;
    s->desc.lens_kv = s->lens;
    return &s->desc;
}

/* The whole pages of sequence n that its first row sees, and so each. */
static int64_t seen_pages(const scene *s, int n)
{
    const int64_t rows = s->cu[n + 1] - s->cu[n], keys = s->lens[n];
    int64_t seen = keys;
    if (rows > 0 && s->desc.mask == FA_MASK_CAUSAL_TOP_LEFT)
        seen = 1;
    else if (rows > 0 && s->desc.mask == FA_MASK_CAUSAL_BOTTOM_RIGHT)
        seen = keys - rows + 1;
    return (seen < 0 ? 0 : seen > keys ? keys : seen) / SIZE;
}

static int64_t common(const scene *s, int first, int end)
{
    int64_t pages = PAGES;
    for (int n = first; n < end; n++) {
        int64_t same = 0;
        while (same < pages && same < seen_pages(s, n) && s->table[n][same] == s->table[first][same])
            same++;
        pages = same;
    }
    return pages;
}

static double reads_of(const scene *s, int first, int end)
{
    return ceil((double)((s->cu[end] - s->cu[first]) * HEADS / HEADS_KV) / 64);
}

/* The keys that sequences [first, end) read at least, with so many levels, where groups have read the pages before `from`. */
static double least(const scene *s, int first, int end, int64_t from, int levels)
{
    double best = first == end ? 0 : DBL_MAX;
    for (int to = first + 1; to <= end; to++) {
        const int64_t pages = common(s, first, to);
        const bool whole = (first == 0 || common(s, first - 1, to) < pages) &&
                           (to == s->sequences || common(s, first, to + 1) < pages);
        double cost = DBL_MAX;
        if (to == first + 1)
            cost = reads_of(s, first, to) * (double)(s->lens[first] - from * SIZE);
        else if (levels > 0 && pages > from && whole)
            cost = reads_of(s, first, to) * (double)((pages - from) * SIZE) +
                   least(s, first, to, pages, levels - 1);
        if (cost < DBL_MAX)
            best = fmin(best, cost + least(s, to, end, from, levels));
    }
    return best;
}

static const double key = HEADS_KV * 2 * DIM * sizeof(float);

/* What a run with so many levels moves beyond keys. */
static double extra(const scene *s, int levels)
{
    const double rows = (double)s->cu[s->sequences] * HEADS;
    const double states = rows * (DIM + 1) * 2 * sizeof(float);
    return levels ? (levels + 1) * states + levels * rows * DIM * sizeof(float) : 0;
}

START_TEST(no_choice_is_cheaper)
{
    random_state random = {5};
    int shared = 0, deep = 0;
    for (int i = 0; i < 400; i++) {
        scene s = make_scene(&random);
        fa_cascade *cascade;
        fa_cascade_info info = {.struct_size = sizeof(info)};
        ck_assert_int_eq(fa_cascade_find(context, desc_of(&s), &s.table[0][0], &cascade), FA_OK);
        ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
        double best = DBL_MAX;
        for (int levels = 0; levels <= FA_CASCADE_MAX_LEVELS; levels++)
            best = fmin(best, key * least(&s, 0, s.sequences, 0, levels) + extra(&s, levels));
        ck_assert_double_eq(info.bytes, best);
        ck_assert_double_eq(info.bytes_flat, key * least(&s, 0, s.sequences, 0, 0));
        ck_assert_int_eq(info.sequences, s.sequences);
        shared += info.levels > 0;
        deep += info.levels > 1;
        fa_cascade_destroy(cascade);
    }
    ck_assert_int_gt(shared, 40);
    ck_assert_int_gt(deep, 4);
}
END_TEST

/* Sequence n reads its own pages, each once, from level to level. */
static void check_sequence(const scene *s, const fa_cascade *cascade, const fa_cascade_info *info, int n)
{
    int64_t page = 0;
    for (int64_t l = 0; l < info->levels; l++) {
        fa_cascade_level level = {.struct_size = sizeof(level)};
        int64_t g = 0;
        ck_assert_int_eq(fa_cascade_get_level(cascade, l, &level), FA_OK);
        while (level.cu_sequences[g + 1] <= n)
            g++;
        ck_assert_int_le(level.cu_sequences[g], n);
        ck_assert_int_eq(level.cu_rows_q[g], s->cu[level.cu_sequences[g]]);
        ck_assert_int_eq(level.lens_kv[g] % SIZE, 0);
        for (int64_t i = 0; i < level.lens_kv[g] / SIZE; i++)
            ck_assert_int_eq(level.page_table[g * level.pages + i], s->table[n][page++]);
        ck_assert_int_eq(level.cu_sequences[0], 0);
        ck_assert_int_eq(level.cu_sequences[level.groups], s->sequences);
        ck_assert_int_eq(level.cu_rows_q[level.groups], s->cu[s->sequences]);
    }
    ck_assert_int_eq(info->first_kv[n], page * SIZE);
    ck_assert_int_le(page, seen_pages(s, n));
}

START_TEST(levels_hold_what_sequences_share)
{
    random_state random = {9};
    for (int i = 0; i < 400; i++) {
        scene s = make_scene(&random);
        fa_cascade *cascade;
        fa_cascade_info info = {.struct_size = sizeof(info)};
        ck_assert_int_eq(fa_cascade_find(context, desc_of(&s), &s.table[0][0], &cascade), FA_OK);
        ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
        for (int n = 0; n < s.sequences; n++)
            check_sequence(&s, cascade, &info, n);
        fa_cascade_destroy(cascade);
    }
}
END_TEST

/* A staircase: each sequence shares a page more with the next one than with the one before. Deeper than the search goes. */
START_TEST(many_depths)
{
    enum { STEPS = 40 };
    static int32_t table[STEPS][STEPS];
    int64_t cu[STEPS + 1], lens[STEPS];
    for (int n = 0; n < STEPS; n++) {
        for (int i = 0; i < STEPS; i++)
            table[n][i] = i <= n ? i : STEPS + n;
        cu[n] = n;
        lens[n] = STEPS * 64;
    }
    cu[STEPS] = STEPS;
    fa_attention_desc d = make_desc(1, HEADS, HEADS_KV, STEPS, 64, DIM);
    d.k.shape[0] = d.v.shape[0] = 2 * STEPS;
    d.page_table = fa_tensor_make(FA_I32, STEPS, 1, 1, STEPS);
    d.sequences = STEPS;
    d.cu_rows_q = cu;
    d.lens_kv = lens;
    fa_cascade *cascade;
    fa_cascade_info info = {.struct_size = sizeof(info)};
    ck_assert_int_eq(fa_cascade_find(context, &d, &table[0][0], &cascade), FA_OK);
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    ck_assert_int_gt(info.levels, 1);
    ck_assert_int_le(info.levels, FA_CASCADE_MAX_LEVELS);
    ck_assert_double_lt(info.bytes, 0.85 * info.bytes_flat);
    fa_cascade_destroy(cascade);
}
END_TEST

/* In the order, no group of lines that begin alike is in two pieces. */
START_TEST(order_brings_neighbours_together)
{
    static const int32_t table[4][PAGES] = {{1, 2, 3}, {7, 8, 9}, {1, 2, 4}, {7, 8, 5}};
    static const int64_t cu[] = {0, 1, 2, 3, 4}, lens[] = {3 * SIZE, 3 * SIZE, 3 * SIZE, 3 * SIZE};
    fa_attention_desc d = make_desc(1, HEADS, HEADS_KV, 4, SIZE, DIM);
    int64_t order[4];
    d.k.shape[0] = d.v.shape[0] = POOL;
    d.page_table = fa_tensor_make(FA_I32, 4, 1, 1, PAGES);
    d.sequences = 4;
    d.cu_rows_q = cu;
    d.lens_kv = lens;
    ck_assert_int_eq(fa_cascade_order(context, &d, &table[0][0], order), FA_OK);
    static const int64_t expected[] = {0, 2, 3, 1};
    ck_assert_mem_eq(order, expected, sizeof(order));
}
END_TEST

/* Sequences whose slopes differ have nothing in common, and alike ones become neighbours. */
START_TEST(slopes_part_sequences)
{
    static const int32_t table[4][PAGES] = {{1, 2, 3}, {1, 2, 4}, {1, 2, 5}, {1, 2, 6}};
    static const int64_t cu[] = {0, 1, 2, 3, 4}, lens[] = {3 * SIZE, 3 * SIZE, 3 * SIZE, 3 * SIZE};
    static const float alternating[4][HEADS + 1] = {{1, 2}, {1, 3}, {1, 2}, {1, 3}},
                                              halves[4][HEADS + 1] = {{1, 2}, {1, 2}, {1, 3}, {1, 3}};
    static const int64_t expected[] = {0, 2, 1, 3};
    fa_attention_desc d = make_desc(1, HEADS, HEADS_KV, 4, SIZE, DIM);
    int64_t order[4];
    fa_cascade *cascade;
    fa_cascade_info info = {.struct_size = sizeof(info)};
    fa_cascade_level level = {.struct_size = sizeof(level)};
    d.k.shape[0] = d.v.shape[0] = POOL;
    d.page_table = fa_tensor_make(FA_I32, 4, 1, 1, PAGES);
    d.sequences = 4;
    d.cu_rows_q = cu;
    d.lens_kv = lens;
    d.alibi_slopes = &alternating[0][0];
    d.alibi_stride = HEADS + 1;
    ck_assert_int_eq(fa_cascade_order(context, &d, &table[0][0], order), FA_OK);
    ck_assert_mem_eq(order, expected, sizeof(order));
    ck_assert_int_eq(fa_cascade_find(context, &d, &table[0][0], &cascade), FA_OK);
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    ck_assert_int_eq(info.levels, 0);
    fa_cascade_destroy(cascade);
    d.alibi_slopes = &halves[0][0];
    ck_assert_int_eq(fa_cascade_find(context, &d, &table[0][0], &cascade), FA_OK);
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    ck_assert_int_eq(info.levels, 1);
    ck_assert_int_eq(fa_cascade_get_level(cascade, 0, &level), FA_OK);
    ck_assert_int_eq(level.groups, 2);
    ck_assert_int_eq(level.cu_sequences[1], 2);
    fa_cascade_destroy(cascade);
}
END_TEST

typedef void spoil(scene *s);

static void negative_page(scene *s)
{
    s->table[1][0] = -1;
}

static void unpacked(scene *s)
{
    s->desc.cu_rows_q = NULL;
    s->desc.q = s->desc.o = fa_tensor_make(FA_F32, 2, HEADS, 1, DIM);
}

static void more_rows(scene *s)
{
    s->desc.q.shape[2] = s->desc.o.shape[2] = 3;
}

static void no_pages(scene *s)
{
    s->desc.page_table = (fa_tensor){.dtype = FA_F32};
    s->desc.k = s->desc.v = fa_tensor_make(FA_F32, 2, HEADS_KV, PAGES * SIZE, DIM);
}

static void listed(scene *s)
{
    static const fa_block_lists lists = {.struct_size = sizeof(lists)};
    s->desc.lists = &lists;
}

static void near(scene *s)
{
    static const fa_neighbourhood grid = {.struct_size = sizeof(grid)};
    s->desc.neighbourhood = &grid;
}

START_TEST(refusals)
{
    static const struct {
        spoil *spoil;
        fa_status status;
        const char *message;
    } bad[] = {
        {negative_page, FA_INVALID, "page_table[1][0] is -1, expected 0 to 63"},
        {unpacked, FA_UNSUPPORTED, "cu_rows_q is NULL, a cascade serves packed rows only"},
        {more_rows, FA_UNSUPPORTED, "cu_rows_q goes from 0 to 2, a cascade serves 0 to q.shape[2], 3"},
        {no_pages, FA_INVALID, "page_table.shape is all 0, expected pages"},
        {listed, FA_UNSUPPORTED, "lists is given, expected NULL: a cascade does not serve it"},
        {near, FA_UNSUPPORTED, "neighbourhood is given, expected NULL: a cascade does not serve it"},
    };
    for (int i = 0; i < COUNT(bad); i++) {
        scene s = {.sequences = 2, .cu = {0, 1, 2}, .lens = {5, 5}, .table = {{1}, {1}}};
        fa_cascade *cascade;
        int64_t order[2] = {77, 77};
        describe(&s);
        (void)desc_of(&s);
        bad[i].spoil(&s);
        ck_assert_int_eq(fa_cascade_find(context, &s.desc, &s.table[0][0], &cascade), bad[i].status);
        assert_message(bad[i].message);
        ck_assert_ptr_null(cascade);
        ck_assert_int_eq(fa_cascade_order(context, &s.desc, &s.table[0][0], order), bad[i].status);
        ck_assert_int_eq(order[0], 77);
    }
}
END_TEST

START_TEST(null_and_numbers)
{
    random_state random = {5};
    scene s = make_scene(&random);
    const fa_attention_desc *d = desc_of(&s);
    fa_cascade *cascade;
    fa_cascade_info info = {.struct_size = sizeof(info)};
    fa_cascade_level level = {.struct_size = sizeof(level)};
    ck_assert_int_eq(fa_cascade_find(NULL, d, &s.table[0][0], &cascade), FA_INVALID);
    ck_assert_int_eq(fa_cascade_find(context, NULL, &s.table[0][0], &cascade), FA_INVALID);
    ck_assert_int_eq(fa_cascade_find(context, d, NULL, &cascade), FA_INVALID);
    assert_message("page_table is NULL");
    ck_assert_int_eq(fa_cascade_find(context, d, &s.table[0][0], NULL), FA_INVALID);
    assert_message("cascade is NULL");
    ck_assert_int_eq(fa_cascade_find(context, d, &s.table[0][0], &cascade), FA_OK);
    ck_assert_int_eq(fa_cascade_get_info(NULL, &info), FA_INVALID);
    ck_assert_int_eq(fa_cascade_get_info(cascade, NULL), FA_INVALID);
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    ck_assert_int_eq(fa_cascade_get_level(cascade, info.levels, &level), FA_INVALID);
    assert_message("level is ");
    ck_assert_int_eq(fa_cascade_get_level(cascade, -1, &level), FA_INVALID);
    fa_cascade_destroy(cascade);
    fa_cascade_destroy(NULL);
}
END_TEST

/* Each request for memory fails once. */
START_TEST(out_of_memory)
{
    scene s = {.sequences = 2, .cu = {0, 1, 2}, .lens = {PAGES * SIZE, PAGES * SIZE}, .table = {{1}, {1}}};
    fa_cascade *cascade;
    fa_cascade_info info = {.struct_size = sizeof(info)};
    describe(&s);
    const long before = atomic_load(&memory.calls);
    ck_assert_int_eq(fa_cascade_find(context, desc_of(&s), &s.table[0][0], &cascade), FA_OK);
    ck_assert_int_eq(fa_cascade_get_info(cascade, &info), FA_OK);
    ck_assert_int_eq(info.levels, 1);
    fa_cascade_destroy(cascade);
    const long calls = atomic_load(&memory.calls) - before;
    for (long i = 0; i < calls; i++) {
        memory.fail_at = atomic_load(&memory.calls) + i;
        ck_assert_int_eq(fa_cascade_find(context, desc_of(&s), &s.table[0][0], &cascade), FA_OUT_OF_MEMORY);
        ck_assert_ptr_null(cascade);
    }
    memory.fail_at = -1;
}
END_TEST

Suite *cascade_suite(void)
{
    Suite *suite = suite_create("cascade");
    TCase *tc = add_context_case(suite, "levels");
    tcase_add_test(tc, no_choice_is_cheaper);
    tcase_add_test(tc, levels_hold_what_sequences_share);
    tcase_add_test(tc, many_depths);
    tcase_add_test(tc, order_brings_neighbours_together);
    tcase_add_test(tc, slopes_part_sequences);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, null_and_numbers);
    tcase_add_test(tc, out_of_memory);
    return suite;
}
