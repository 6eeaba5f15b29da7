/* SPDX-License-Identifier: Apache-2.0 */
/* Windows, global and random blocks, and kinds of heads: each list against the definition, row by row and key by key. */
#include <string.h>

#include "tests/gpu/sparse_scene.h"

static sparse_scene s;

static void draw_shape(fa_sparse_shape *shape, random_state *random)
{
    static const int32_t sizes[] = {1, 7, 16, 32, 64, 100};
    *shape = (fa_sparse_shape){
        .rows = random_between(random, 1, MOST_ROWS),
        .keys = random_between(random, 1, MOST_KEYS),
        .block_rows = sizes[random_between(random, 0, COUNT(sizes) - 1)],
        .block_keys = sizes[random_between(random, 0, COUNT(sizes) - 1)],
        .mask = (fa_mask_kind)random_between(random, 0, 2),
    };
}

static void take_shape(const fa_sparse_shape *shape, int64_t batch, int64_t heads_q, int64_t heads_kv)
{
    s.batch = batch;
    s.heads_q = heads_q;
    s.heads_kv = heads_kv;
    s.rows = shape->rows;
    s.keys = shape->keys;
    s.mask = shape->mask;
}

/* Whether some row of the block sees some key of the other by the mask. */
static bool visible(const fa_sparse_shape *shape, int64_t r, int64_t c)
{
    for (int64_t row = r * shape->block_rows; row < (r + 1) * shape->block_rows && row < shape->rows; row++) {
        if (mask_shows(shape, row, c * shape->block_keys))
            return true;
    }
    return false;
}

/* What of a window's list is not drawn. */
static bool window_has(const fa_sparse_window_desc *d, int64_t key_blocks, int64_t r, int64_t c)
{
    const fa_sparse_shape *shape = &d->shape;
    if (c < d->global_first || c >= key_blocks - d->global_last)
        return true;
    for (int64_t row = r * shape->block_rows; row < (r + 1) * shape->block_rows && row < shape->rows; row++) {
        const int64_t p = position_of(shape, row);
        const int64_t own = p < 0 ? -1 : p / shape->block_keys;
        if (own >= 0 && own < key_blocks && (own < d->global_first || own >= key_blocks - d->global_last))
            return true;
        for (int64_t key = c * shape->block_keys; key < (c + 1) * shape->block_keys && key < shape->keys;
             key++) {
            if (key >= p - d->window_left && key <= p + d->window_right)
                return true;
        }
    }
    return false;
}

static void expect_window(const fa_sparse_window_desc *d, const fa_block_lists *l)
{
    for (int64_t n = 0; n < l->heads * l->row_blocks; n++) {
        const int64_t r = n % l->row_blocks, head = n / l->row_blocks;
        int64_t drawn = 0, free = 0;
        for (int64_t c = 0; c < l->key_blocks; c++) {
            const bool has = list_has(l, 0, head, r, c), seen = visible(&d->shape, r, c);
            const bool fixed = seen && window_has(d, l->key_blocks, r, c);
            ck_assert_msg(!(fixed && !has) && !(has && !seen), "block %lld of row block %lld: %d",
                          (long long)c, (long long)r, has);
            drawn += has && !fixed;
            free += seen && !fixed;
        }
        ck_assert_int_eq(drawn, free < d->random ? free : d->random);
    }
}

START_TEST(windows)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 20; n++) {
        fa_block_mask *mask, *again;
        fa_sparse_window_desc d = {.struct_size = sizeof(d)};
        draw_shape(&d.shape, &random);
        d.heads = random_between(&random, 0, 1) ? 2 : 0;
        d.window_left = random_between(&random, 0, 80);
        d.window_right = random_between(&random, 0, 80);
        d.global_first = random_between(&random, 0, 2);
        d.global_last = random_between(&random, 0, 2);
        d.random = random_between(&random, 1, 3);
        d.seed = random_bits(&random);
        ck_assert_int_eq(fa_sparse_window(context, &d, &mask), FA_OK);
        ck_assert_int_eq(fa_sparse_window(context, &d, &again), FA_OK);
        const fa_block_lists l = lists_of(mask), m = lists_of(again);
        expect_window(&d, &l);
        ck_assert_int_eq(memcmp(l.indices, m.indices, (size_t)l.indptr[l.heads * l.row_blocks] * 4), 0);
        take_shape(&d.shape, 1, 2, 1);
        scene_draw(&s, &random);
        scene_keep(&s, mask);
        scene_expect(&s, mask, NULL);
        fa_block_mask_destroy(mask);
        fa_block_mask_destroy(again);
    }
}
END_TEST

/* BigBird as it is: three blocks around the diagonal, two global ones, three at random. */
START_TEST(window_defaults)
{
    const fa_sparse_window_desc d = {.struct_size = sizeof(d), .shape = {.rows = 64 * 20, .keys = 64 * 20}};
    fa_block_mask *mask;
    ck_assert_int_eq(fa_sparse_window(context, &d, &mask), FA_OK);
    const fa_block_lists l = lists_of(mask);
    ck_assert_int_eq(l.block_rows, 64);
    ck_assert_int_eq(l.block_keys, 64);
    ck_assert_int_eq(l.indptr[1] - l.indptr[0], 20);
    ck_assert_int_eq(l.indptr[11] - l.indptr[10], 8);
    ck_assert_int_eq(l.indptr[20] - l.indptr[19], 20);
    for (int64_t c = 9; c <= 11; c++)
        ck_assert(list_has(&l, 0, 0, 10, c));
    ck_assert(!list_has(&l, 0, 0, 10, 8) || !list_has(&l, 0, 0, 10, 12) || !list_has(&l, 0, 0, 10, 1));
    fa_block_mask_destroy(mask);
}
END_TEST

/* Each block that may be drawn is, as often as others. */
START_TEST(draws_evenly)
{
    int counts[10] = {0};
    for (uint64_t seed = 0; seed < 4000; seed++) {
        const fa_sparse_window_desc d = {.struct_size = sizeof(d),
                                         .shape = {.rows = 1, .keys = 10, .block_rows = 1, .block_keys = 1},
                                         .random = 3,
                                         .seed = seed};
        fa_block_mask *mask;
        ck_assert_int_eq(fa_sparse_window(context, &d, &mask), FA_OK);
        const fa_block_lists l = lists_of(mask);
        for (int32_t i = 0; i < l.indptr[1]; i++)
            counts[l.indices[i]]++;
        fa_block_mask_destroy(mask);
    }
    ck_assert_int_eq(counts[9], 4000); /* its own */
    for (int i = 0; i < 9; i++)        /* 4000 / 3, within 5 standard deviations */
        ck_assert_msg(abs(counts[i] - 1333) < 150, "block %d: %d", i, counts[i]);
}
END_TEST

static bool streaming_has(const fa_sparse_streaming_desc *d, const fa_block_lists *l, int64_t n, int64_t head,
                          int64_t r, int64_t c)
{
    const int32_t type = d->head_mask_type[head];
    const int64_t sinks = d->streaming_info ? d->streaming_info[2 * head] : 1,
                  local = d->streaming_info ? d->streaming_info[2 * head + 1] : 3;
    int64_t end = l->key_blocks;
    if (!visible(&d->shape, r, c))
        return false;
    if (type == 0)
        return true;
    if (type > 0)
        return d->base_blockmask[((n * d->masks + type - 1) * l->row_blocks + r) * l->key_blocks + c] != 0;
    while (end > 0 && !visible(&d->shape, r, end - 1))
        end--;
    return c < sinks || c >= end - local;
}

START_TEST(kinds_of_heads)
{
    static uint8_t base[2 * 2 * MOST_ROWS * MOST_KEYS];
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 20; n++) {
        int32_t types[MOST_HEADS], info[2 * MOST_HEADS];
        fa_block_mask *mask;
        fa_sparse_streaming_desc d = {.struct_size = sizeof(d),
                                      .sequences = random_between(&random, 0, 2),
                                      .heads = 4,
                                      .head_mask_type = types,
                                      .streaming_info = random_between(&random, 0, 3) ? info : NULL,
                                      .masks = 2,
                                      .base_blockmask = base};
        draw_shape(&d.shape, &random);
        for (int h = 0; h < MOST_HEADS; h++) {
            types[h] = (int32_t)random_between(&random, -1, 2);
            info[2 * h] = (int32_t)random_between(&random, 0, 3);
            info[2 * h + 1] = (int32_t)random_between(&random, 0, 3);
        }
        for (size_t i = 0; i < sizeof(base); i++)
            base[i] = (uint8_t)(random_between(&random, 0, 2) ? 0 : random_between(&random, 1, 255));
        ck_assert_int_eq(fa_sparse_streaming(context, &d, &mask), FA_OK);
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.heads, 4);
        for (int64_t i = 0; i < l.sequences * l.heads * l.row_blocks * l.key_blocks; i++) {
            const int64_t c = i % l.key_blocks, r = i / l.key_blocks % l.row_blocks,
                          head = i / l.key_blocks / l.row_blocks % l.heads,
                          sequence = i / l.key_blocks / l.row_blocks / l.heads;
            ck_assert_int_eq(list_has(&l, sequence, head, r, c), streaming_has(&d, &l, sequence, head, r, c));
        }
        take_shape(&d.shape, 2, 4, 2);
        scene_draw(&s, &random);
        scene_keep(&s, mask);
        scene_expect(&s, mask, NULL);
        fa_block_mask_destroy(mask);
    }
}
END_TEST

#define REFUSED(call, part)                 \
    do {                                    \
        mask = (fa_block_mask *)&mask;      \
        ck_assert_int_eq(call, FA_INVALID); \
        assert_message(part);               \
        ck_assert_ptr_null(mask);           \
    } while (0)

START_TEST(refused)
{
    const fa_sparse_window_desc good = {.struct_size = sizeof(good), .shape = {.rows = 10, .keys = 10}};
    const int32_t type = 0, beyond = 2, below = -2, info[2] = {1, -1};
    fa_sparse_streaming_desc t = {
        .struct_size = sizeof(t), .shape = good.shape, .heads = 1, .head_mask_type = &type};
    fa_sparse_window_desc d = good;
    fa_block_mask *mask;
    ck_assert_int_eq(fa_sparse_window(context, &d, NULL), FA_INVALID);
    REFUSED(fa_sparse_window(NULL, &d, &mask), "context is NULL");
    REFUSED(fa_sparse_window(context, NULL, &mask), "desc is NULL");
    d.shape.rows = 0;
    REFUSED(fa_sparse_window(context, &d, &mask), "shape.rows is 0, expected 1 to 268435456");
    d = good;
    d.shape.keys = FA_MAX_LENGTH + 1;
    REFUSED(fa_sparse_window(context, &d, &mask), "shape.keys is 268435457");
    d = good;
    d.shape.block_rows = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "shape.block_rows is -1");
    d = good;
    d.shape.block_keys = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "shape.block_keys is -1");
    d = good;
    d.shape.mask = (fa_mask_kind)3;
    REFUSED(fa_sparse_window(context, &d, &mask), "shape.mask is 3");
    d = good;
    d.window_left = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "window_left is -1");
    d = good;
    d.window_right = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "window_right is -1");
    d = good;
    d.global_first = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "global_first is -1");
    d = good;
    d.global_last = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "global_last is -1");
    d = good;
    d.random = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "random is -1");
    d = good;
    d.heads = -1;
    REFUSED(fa_sparse_window(context, &d, &mask), "heads is -1");
    d = good;
    d.shape = (fa_sparse_shape){.rows = FA_MAX_LENGTH, .keys = 10, .block_rows = 1};
    d.heads = 8;
    ck_assert_int_eq(fa_sparse_window(context, &d, &mask), FA_OUT_OF_MEMORY);
    assert_message("8 heads and 268435456 blocks of rows are too many lists");
    t.head_mask_type = NULL;
    REFUSED(fa_sparse_streaming(context, &t, &mask), "head_mask_type is NULL");
    t.head_mask_type = &below;
    REFUSED(fa_sparse_streaming(context, &t, &mask), "head_mask_type[0] is -2, expected -1 to 0");
    t.head_mask_type = &beyond;
    t.masks = 1;
    REFUSED(fa_sparse_streaming(context, &t, &mask), "base_blockmask is NULL, expected 1 masks");
    t.base_blockmask = (const uint8_t *)"";
    REFUSED(fa_sparse_streaming(context, &t, &mask), "head_mask_type[0] is 2, expected -1 to 1");
    t.head_mask_type = &type;
    t.streaming_info = info;
    REFUSED(fa_sparse_streaming(context, &t, &mask), "streaming_info[1] is -1");
    t.heads = 0;
    REFUSED(fa_sparse_streaming(context, &t, &mask), "heads is 0");
    t.heads = 1;
    t.sequences = -1;
    REFUSED(fa_sparse_streaming(context, &t, &mask), "sequences is -1");
}
END_TEST

/* Whatever request of memory fails, nothing is left behind. */
START_TEST(memory_runs_out)
{
    const fa_sparse_window_desc d = {
        .struct_size = sizeof(d),
        .shape = {.rows = 3000, .keys = 3000, .block_rows = 16, .block_keys = 16},
        .window_left = 2000};
    fa_block_mask *mask;
    fa_status status = FA_OUT_OF_MEMORY;
    int failures = 0;
    for (; status == FA_OUT_OF_MEMORY; failures++) {
        memory.fail_at = memory.calls + failures;
        status = fa_sparse_window(context, &d, &mask);
        memory.fail_at = -1;
        ck_assert_int_eq(mask != NULL, status == FA_OK);
    }
    ck_assert_int_gt(failures, 5);
    ck_assert_int_eq(status, FA_OK);
    fa_block_mask_destroy(mask);
}
END_TEST

START_TEST(views)
{
    const fa_sparse_window_desc d = {.struct_size = sizeof(d), .shape = {.rows = 10, .keys = 10}};
    fa_block_lists lists = {.struct_size = 3};
    fa_block_mask *mask;
    ck_assert_int_eq(fa_sparse_window(context, &d, &mask), FA_OK);
    ck_assert_int_eq(fa_block_mask_lists(mask, &lists), FA_INVALID);
    assert_message("fa_block_lists.struct_size is 3");
    ck_assert_int_eq(fa_block_mask_lists(NULL, &lists), FA_INVALID);
    ck_assert_int_eq(fa_block_mask_lists(mask, NULL), FA_INVALID);
    fa_block_mask_destroy(mask);
    fa_block_mask_destroy(NULL);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_window");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, windows, 0, 2);
    tcase_add_test(tc, window_defaults);
    tcase_add_test(tc, draws_evenly);
    tcase_add_loop_test(tc, kinds_of_heads, 0, 2);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, memory_runs_out);
    tcase_add_test(tc, views);
    return run_on_backend(suite);
}
