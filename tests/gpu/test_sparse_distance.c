/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are drawn by distance: what is certain, how often the rest is, and attention with them. */
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

static sparse_scene s;

/* The block of keys that is a row block's own. */
static int64_t own_of(const fa_sparse_shape *shape, int64_t r)
{
    const int64_t end = (r + 1) * shape->block_rows < shape->rows ? (r + 1) * shape->block_rows : shape->rows;
    int64_t p = position_of(shape, end - 1);
    p = p < 0 ? 0 : p >= shape->keys ? shape->keys - 1 : p;
    return p / shape->block_keys;
}

static bool visible(const fa_sparse_shape *shape, int64_t r, int64_t c)
{
    const int64_t end = (r + 1) * shape->block_rows < shape->rows ? (r + 1) * shape->block_rows : shape->rows;
    return mask_shows(shape, end - 1, c * shape->block_keys);
}

/* Near blocks always, the next never, far ones by chance. */
START_TEST(drawn_blocks)
{
    static const double chances[] = {0, 1, 0, 0.5};
    static const int32_t sizes[] = {1, 7, 16, 32};
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 20; n++) {
        fa_block_mask *mask, *again;
        fa_sparse_distance_desc d = {
            .struct_size = sizeof(d),
            .shape = {.rows = random_between(&random, 1, MOST_ROWS),
                      .keys = random_between(&random, 1, MOST_KEYS),
                      .block_rows = sizes[random_between(&random, 0, 3)],
                      .block_keys = sizes[random_between(&random, 0, 3)],
                      .mask = (fa_mask_kind)random_between(&random, 0, 2)},
            .probability = chances,
            .distances = random_between(&random, 1, 4),
            .seed = random_bits(&random),
            .heads = random_between(&random, 0, 1) ? 2 : 0,
        };
        ck_assert_int_eq(fa_sparse_distance(context, &d, &mask), FA_OK);
        ck_assert_int_eq(fa_sparse_distance(context, &d, &again), FA_OK);
        const fa_block_lists l = lists_of(mask), m = lists_of(again);
        for (int64_t i = 0; i < l.heads * l.row_blocks * l.key_blocks; i++) {
            const int64_t c = i % l.key_blocks, r = i / l.key_blocks % l.row_blocks,
                          head = i / l.key_blocks / l.row_blocks, own = own_of(&d.shape, r);
            const int64_t distance = c < own ? own - c : c - own;
            const int64_t at = distance < d.distances ? distance : d.distances - 1;
            const bool has = list_has(&l, 0, head, r, c), seen = visible(&d.shape, r, c);
            ck_assert_int_eq(has, list_has(&m, 0, head, r, c));
            if (!seen || (distance > 0 && chances[at] == 0))
                ck_assert(!has);
            else if (distance == 0 || chances[at] == 1)
                ck_assert(has);
        }
        s.batch = 1;
        s.heads_q = 2;
        s.heads_kv = 1;
        s.rows = d.shape.rows;
        s.keys = d.shape.keys;
        s.mask = d.shape.mask;
        scene_draw(&s, &random);
        scene_keep(&s, mask);
        scene_expect(&s, mask, NULL);
        fa_block_mask_destroy(mask);
        fa_block_mask_destroy(again);
    }
}
END_TEST

/* How often each distance is drawn, within 5 standard deviations; and that heads and rows draw for themselves. */
static void expect_rates(const double *chances, int64_t distances)
{
    enum { BLOCKS = 40, HEADS = 60 };
    fa_sparse_distance_desc d = {
        .struct_size = sizeof(d),
        .shape = {.rows = BLOCKS, .keys = BLOCKS, .block_rows = 1, .block_keys = 1},
        .probability = chances,
        .distances = distances,
        .seed = 5,
        .heads = HEADS,
    };
    int drawn[BLOCKS] = {0}, pairs[BLOCKS] = {0}, alike = 0;
    fa_block_mask *mask;
    ck_assert_int_eq(fa_sparse_distance(context, &d, &mask), FA_OK);
    const fa_block_lists l = lists_of(mask);
    for (int64_t i = 0; i < HEADS * BLOCKS * BLOCKS; i++) {
        const int64_t c = i % BLOCKS, r = i / BLOCKS % BLOCKS, head = i / BLOCKS / BLOCKS;
        const int64_t distance = c < r ? r - c : c - r;
        pairs[distance]++;
        drawn[distance] += list_has(&l, 0, head, r, c);
        alike += head > 0 && list_has(&l, 0, head, r, c) == list_has(&l, 0, head - 1, r, c);
    }
    for (int n = 0; n < BLOCKS; n++) {
        const double p = n == 0    ? 1
                         : chances ? chances[n < distances ? n : distances - 1]
                                   : 1 - (double)n / BLOCKS;
        const double spread = 5 * sqrt(pairs[n] * p * (1 - p));
        ck_assert_msg(fabs(drawn[n] - pairs[n] * p) <= spread + 1e-9, "distance %d: %d of %d", n, drawn[n],
                      pairs[n]);
    }
    ck_assert_int_lt(alike, (HEADS - 1) * BLOCKS * BLOCKS * 9 / 10);
    fa_block_mask_destroy(mask);
}

START_TEST(rates)
{
    static const double chances[] = {0, 0.9, 0.3, 0.6};
    expect_rates(chances, 4);
    expect_rates(NULL, 0);
}
END_TEST

#define REFUSED(part)                                                         \
    do {                                                                      \
        ck_assert_int_eq(fa_sparse_distance(context, &d, &mask), FA_INVALID); \
        assert_message(part);                                                 \
        ck_assert_ptr_null(mask);                                             \
        d = good;                                                             \
    } while (0)

START_TEST(refused)
{
    const double above[] = {0, 1.5}, none[] = {0, (double)NAN};
    const fa_sparse_distance_desc good = {.struct_size = sizeof(good), .shape = {.rows = 10, .keys = 10}};
    fa_sparse_distance_desc d = good;
    fa_block_mask *mask;
    d.distances = 2;
    REFUSED("distances is 2, expected 0 without probability");
    d.probability = above;
    REFUSED("distances is 0, expected at least 1 with probability");
    d.probability = above;
    d.distances = 2;
    REFUSED("probability[1] is 1.5, expected 0 to 1");
    d.probability = none;
    d.distances = 2;
    REFUSED("probability[1] is nan, expected 0 to 1");
    d.distances = -1;
    REFUSED("distances is -1");
    d.heads = -1;
    REFUSED("heads is -1");
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_distance");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, drawn_blocks, 0, 4);
    tcase_add_test(tc, rates);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
