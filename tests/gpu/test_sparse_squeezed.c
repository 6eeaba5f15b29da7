/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters of a fixed context by a threshold: lists and thresholds against the definition, attention against the oracle. */
#include <fastattn/clustered.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

enum { ROWS = 12, MOST = 160, FINE = 24, COARSE = 6 };

static sparse_scene s;
static fa_sparse_squeezed_desc d;
static int32_t nearest[MOST_HEADS * MOST], parent[MOST_HEADS * FINE];
static float centroids[MOST_HEADS * FINE * DIM], parents[MOST_HEADS * COARSE * DIM];
static double weights[MOST_HEADS * ROWS][FINE], coarse_weights[MOST_HEADS * ROWS][COARSE];

static int64_t kv_of(int64_t head)
{
    return head / (d.heads_q / d.heads_kv);
}

static void draw(random_state *random)
{
    scene_draw(&s, random);
    memset(&d, 0, sizeof(d));
    d.struct_size = sizeof(d);
    d.heads_kv = random_between(random, 1, 2);
    d.heads_q = d.heads_kv * random_between(random, 1, 2);
    d.dim = DIM;
    d.context = random_between(random, FINE, MOST - 20);
    d.shape = (fa_sparse_shape){.rows = random_between(random, 1, ROWS),
                                .mask = (fa_mask_kind)(random_between(random, 0, 1) * 2)};
    d.shape.keys = d.context + random_between(random, 0, 1) * random_between(random, d.shape.rows, 20);
    if (random_between(random, 0, 1)) {
        d.shape.block_rows = (int32_t)random_between(random, 1, 5);
        d.shape.block_keys = (int32_t)random_between(random, 1, 5);
    }
    d.q = s.q;
    for (int i = 0; i < COUNT(nearest); i++)
        nearest[i] = (int32_t)random_between(random, 0, FINE - 1);
    for (int i = 0; i < COUNT(parent); i++)
        parent[i] = (int32_t)random_between(random, 0, COARSE - 1);
    for (int i = 0; i < COUNT(centroids); i++)
        centroids[i] = random_float(random, -2, 2);
    for (int i = 0; i < COUNT(parents); i++)
        parents[i] = random_float(random, -2, 2);
    d.fine = (fa_clusters){FINE, nearest, centroids};
    if (random_between(random, 0, 1))
        d.coarse = (fa_clusters){COARSE, parent, parents};
    d.threshold = (double)random_float(random, 0, 0.02F);
    d.coarse_threshold = (double)random_float(random, 0, 0.01F);
    d.per_kv_head = (int32_t)random_between(random, 0, 1);
}

static double product(const float *a, const float *b)
{
    double sum = 0;
    for (int64_t n = 0; n < DIM; n++)
        sum += (double)a[n] * (double)b[n];
    return sum / sqrt(DIM);
}

static bool takes_part(int64_t i, int64_t cluster)
{
    const int64_t kv = kv_of(i / d.shape.rows);
    return d.coarse.clusters == 0 || coarse_weights[i][parent[kv * FINE + cluster]] > d.coarse_threshold;
}

/* S of all clusters, for row i of all heads: sums over single keys. */
static void weigh(int64_t i)
{
    const int64_t kv = kv_of(i / d.shape.rows);
    const float *q = s.q + i * DIM;
    double sum = 0, coarse_sum = 0;
    for (int64_t key = 0; key < d.context && d.coarse.clusters; key++) {
        const int32_t of = parent[kv * FINE + nearest[kv * d.context + key]];
        coarse_sum += exp(product(q, parents + (kv * COARSE + of) * DIM));
    }
    for (int64_t c = 0; c < COARSE; c++)
        coarse_weights[i][c] = exp(product(q, parents + (kv * COARSE + c) * DIM)) / coarse_sum;
    for (int64_t key = 0; key < d.context; key++) {
        const int32_t of = nearest[kv * d.context + key];
        sum += takes_part(i, of) ? exp(product(q, centroids + (kv * FINE + of) * DIM)) : 0;
    }
    for (int64_t c = 0; c < FINE; c++)
        weights[i][c] = exp(product(q, centroids + (kv * FINE + c) * DIM)) / sum;
}

static bool sees(int64_t i, int64_t key)
{
    const int32_t of = key < d.context ? nearest[kv_of(i / d.shape.rows) * d.context + key] : 0;
    return key >= d.context || (takes_part(i, of) && weights[i][of] > d.threshold);
}

/* Whether a mask shows some key of the block to the last row of the block of rows. */
static bool shows(const fa_block_lists *l, int64_t row_block, int64_t key_block)
{
    const int64_t end = (row_block + 1) * l->block_rows, rows = d.shape.rows;
    return mask_shows(&d.shape, (end < rows ? end : rows) - 1, key_block * l->block_keys);
}

static void expect_lists(const fa_block_lists *l)
{
    static bool expected[ROWS * (MOST + 20)];
    for (int64_t n = 0; n < l->heads; n++) {
        memset(expected, 0, sizeof(expected));
        for (int64_t i = 0; i < d.heads_q * d.shape.rows; i++) {
            const int64_t head = i / d.shape.rows, row = i % d.shape.rows;
            for (int64_t key = 0; key < d.shape.keys && head / (d.heads_q / l->heads) == n; key++)
                expected[row / l->block_rows * l->key_blocks + key / l->block_keys] |= sees(i, key);
        }
        for (int64_t b = 0; b < l->row_blocks * l->key_blocks; b++) {
            const int64_t r = b / l->key_blocks, c = b % l->key_blocks;
            ck_assert_int_eq(list_has(l, 0, n, r, c), expected[b] && shows(l, r, c));
        }
    }
}

static void expect_attention(const fa_block_mask *mask)
{
    s.batch = 1;
    s.heads_q = d.heads_q;
    s.heads_kv = d.heads_kv;
    s.rows = d.shape.rows;
    s.keys = d.shape.keys;
    s.mask = d.shape.mask;
    scene_keep(&s, mask);
    for (int64_t i = 0; i < d.heads_q * s.rows * s.keys; i++)
        s.keep[i] = s.keep[i] && mask_shows(&d.shape, i / s.keys % s.rows, i % s.keys);
    scene_expect(&s, mask, NULL);
}

START_TEST(squeezed)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 12; n++) {
        fa_block_mask *mask;
        draw(&random);
        ck_assert_int_eq(fa_sparse_squeezed(context, &d, &mask), FA_OK);
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.heads, d.per_kv_head ? d.heads_kv : d.heads_q);
        for (int64_t i = 0; i < d.heads_q * d.shape.rows; i++)
            weigh(i);
        expect_lists(&l);
        expect_attention(mask);
        fa_block_mask_destroy(mask);
    }
}
END_TEST

/* The keys of a level's clusters whose S is above a threshold, of all rows, and the least S of those. */
static int64_t keys_above(bool coarse, double threshold, double *least)
{
    int64_t keys = 0;
    *least = INFINITY;
    for (int64_t i = 0; i < d.heads_q * d.shape.rows; i++) {
        const int64_t kv = kv_of(i / d.shape.rows);
        for (int64_t key = 0; key < d.context; key++) {
            const int32_t of = nearest[kv * d.context + key];
            const double weight = coarse ? coarse_weights[i][parent[kv * FINE + of]] : weights[i][of];
            if ((coarse || takes_part(i, of)) && weight > threshold) {
                *least = fmin(*least, weight);
                keys++;
            }
        }
    }
    return keys;
}

/* Enough keys, and without the lightest clusters too few. */
static void expect_share(bool coarse, double threshold, double share)
{
    const double wanted = share * (double)(d.heads_q * d.shape.rows * d.context);
    double least, ignored;
    ck_assert_double_ge((double)keys_above(coarse, threshold * (1 + 1e-12), &least), wanted);
    ck_assert_double_lt((double)keys_above(coarse, least * (1 + 1e-12), &ignored), wanted);
}

START_TEST(thresholds)
{
    random_state random = {(uint64_t)_i + 50};
    for (int n = 0; n < 12; n++) {
        const double share = (double)random_float(&random, 0.02F, 0.5F);
        const double coarse_share = (double)random_float(&random, (float)share, 1);
        double threshold = -1, coarse = -1;
        draw(&random);
        ck_assert_int_eq(fa_sparse_squeezed_thresholds(context, &d, share, coarse_share, &threshold, &coarse),
                         FA_OK);
        d.coarse_threshold =
            coarse * (1 + 1e-12); /* S of a cluster that is left out, summed otherwise here */
        for (int64_t i = 0; i < d.heads_q * d.shape.rows; i++)
            weigh(i);
        expect_share(false, threshold, share);
        if (d.coarse.clusters)
            expect_share(true, coarse, coarse_share);
        else
            ck_assert(coarse == 0);
    }
}
END_TEST

START_TEST(numbers_of_keys)
{
    random_state random = {11};
    static int32_t keys[ROWS * MOST_HEADS * MOST];
    fa_block_mask *mask;
    draw(&random);
    d.shape = (fa_sparse_shape){.rows = 3, .keys = d.context + 5};
    ck_assert_int_eq(fa_sparse_squeezed(context, &d, &mask), FA_OK);
    const fa_block_lists l = lists_of(mask);
    ck_assert_int_eq(fa_block_mask_keys(mask, 4, keys), FA_INVALID);
    assert_message("most is 4, but list 0 has");
    ck_assert_int_eq(fa_block_mask_keys(mask, MOST, keys), FA_OK);
    for (int64_t i = 0; i < 3 * l.heads; i++) {
        const int64_t row = i / l.heads, head = i % l.heads, n = head * 3 + row;
        for (int64_t j = 0; j < MOST; j++)
            ck_assert_int_eq(keys[i * MOST + j],
                             l.indptr[n] + j < l.indptr[n + 1] ? l.indices[l.indptr[n] + j] : -1);
    }
    fa_block_mask_destroy(mask);
    d.shape.block_keys = 2;
    ck_assert_int_eq(fa_sparse_squeezed(context, &d, &mask), FA_OK);
    ck_assert_int_eq(fa_block_mask_keys(mask, MOST, keys), FA_INVALID);
    assert_message("mask has blocks of 1 rows and 2 keys");
    ck_assert_int_eq(fa_block_mask_keys(mask, MOST, NULL), FA_INVALID);
    fa_block_mask_destroy(mask);
}
END_TEST

/* The paper's recipe: directions by k-means++, centroids of the keys themselves, a threshold from rows; then rows see their topic. */
START_TEST(recipe)
{
    enum { TOPICS = 5, KEYS = 100 };
    random_state random = {4};
    int32_t counts[TOPICS];
    double threshold, coarse;
    fa_block_mask *mask;
    draw(&random);
    for (int i = 0; i < KEYS * DIM; i++)
        s.k[i] =
            (float)(1 + i / DIM % 3) * ((i % DIM == i / DIM % TOPICS) + random_float(&random, -0.05F, 0.05F));
    for (int i = 0; i < ROWS * DIM; i++)
        s.q[i] = i % DIM == i / DIM % TOPICS ? 20.0F : 0.0F;
    fa_cluster_desc means = {.struct_size = sizeof(means),
                             .rows = fa_tensor_make(FA_F32, 1, 1, KEYS, DIM),
                             .clusters = TOPICS,
                             .iterations = 300,
                             .normalise = 1,
                             .start = FA_CLUSTER_PLUS_PLUS};
    ck_assert_int_eq(fa_cluster_host(context, &means, s.k, nearest, centroids, counts), FA_OK);
    means = (fa_cluster_desc){
        .struct_size = sizeof(means), .rows = means.rows, .clusters = TOPICS, .steps = FA_CLUSTER_MEANS};
    ck_assert_int_eq(fa_cluster_host(context, &means, s.k, nearest, centroids, counts), FA_OK);
    d.shape = (fa_sparse_shape){.rows = ROWS, .keys = KEYS};
    d.context = KEYS;
    d.heads_q = d.heads_kv = 1;
    d.fine.clusters = TOPICS;
    d.coarse = (fa_clusters){0, NULL, NULL};
    ck_assert_int_eq(fa_sparse_squeezed_thresholds(context, &d, 0.2, 1, &threshold, &coarse), FA_OK);
    d.threshold = threshold;
    ck_assert_int_eq(fa_sparse_squeezed(context, &d, &mask), FA_OK);
    const fa_block_lists l = lists_of(mask);
    for (int64_t i = 0; i < ROWS * KEYS; i++)
        ck_assert_int_eq(list_has(&l, 0, 0, i / KEYS, i % KEYS), i % KEYS % TOPICS == i / KEYS % TOPICS);
    fa_block_mask_destroy(mask);
}
END_TEST

#define REFUSED(part)                                                         \
    do {                                                                      \
        ck_assert_int_eq(fa_sparse_squeezed(context, &d, &mask), FA_INVALID); \
        assert_message(part);                                                 \
        ck_assert_ptr_null(mask);                                             \
        d = good;                                                             \
    } while (0)

START_TEST(refused)
{
    random_state random = {9};
    fa_block_mask *mask;
    double threshold = -5, coarse = -5;
    draw(&random);
    d.coarse = (fa_clusters){COARSE, parent, parents};
    const fa_sparse_squeezed_desc good = d;
    d.context = d.shape.keys + 1;
    REFUSED("context is");
    d.q = NULL;
    REFUSED("q is NULL");
    d.fine.clusters = d.context + 1;
    REFUSED("fine.clusters is");
    d.coarse.clusters = FINE + 1;
    REFUSED("coarse.clusters is 25");
    d.coarse.centroids = NULL;
    REFUSED("coarse.centroids is NULL");
    d.threshold = -0.5;
    REFUSED("threshold is -0.5, expected 0 to 1");
    d.coarse_threshold = (double)NAN;
    REFUSED("coarse_threshold is nan");
    d.per_kv_head = 2;
    REFUSED("per_kv_head is 2");
    parent[2] = -1;
    REFUSED("coarse.nearest[2] is -1");
    parent[2] = 0;
    ck_assert_int_eq(fa_sparse_squeezed_thresholds(context, &d, 0.5, 0.4, &threshold, &coarse), FA_INVALID);
    assert_message("share is 0.5, expected above 0 and at most 0.4");
    ck_assert_int_eq(fa_sparse_squeezed_thresholds(context, &d, 0, 2, &threshold, &coarse), FA_INVALID);
    assert_message("coarse_share is 2");
    ck_assert_int_eq(fa_sparse_squeezed_thresholds(context, &d, 0.5, 1, &threshold, NULL), FA_INVALID);
    assert_message("coarse_threshold is NULL");
    ck_assert(threshold == -5 && coarse == -5);
    for (int n = 0; n < 7; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_sparse_squeezed_thresholds(context, &d, 0.5, 1, &threshold, &coarse),
                         FA_OUT_OF_MEMORY);
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_sparse_squeezed(context, &d, &mask), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_squeezed");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, squeezed, 0, 4);
    tcase_add_loop_test(tc, thresholds, 0, 4);
    tcase_add_test(tc, numbers_of_keys);
    tcase_add_test(tc, recipe);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
