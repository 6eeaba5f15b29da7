/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters of queries and of keys: orders and lists against the definition, attention with lists alone and cut to the clusters. */
#include <fastattn/clustered.h>
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

enum { MOST = 150, MOST_CLUSTERS = 20, VECTORS = MOST_HEADS * MOST };

static sparse_scene s, moved; /* as it was, and in the order of the lists */
static fa_sparse_clustered_desc d;
static int32_t nearest_q[VECTORS], nearest_k[VECTORS], order_q[VECTORS], order_k[VECTORS];
static float centroids_q[MOST_HEADS * MOST_CLUSTERS * DIM], centroids_k[MOST_HEADS * MOST_CLUSTERS * DIM];
static uint8_t chosen[MOST_HEADS * MOST_CLUSTERS * MOST_CLUSTERS];
static float o[VECTORS * DIM];
static double exact[VECTORS * DIM];

static int64_t kv_of(int64_t head)
{
    return head / (d.heads_q / d.heads_kv);
}

static void draw_clusters(random_state *random, fa_clusters *c, int32_t *nearest, float *centroids,
                          int64_t rows)
{
    *c = (fa_clusters){random_between(random, 1, rows < MOST_CLUSTERS ? rows : MOST_CLUSTERS), nearest,
                       centroids};
    for (int i = 0; i < VECTORS; i++)
        nearest[i] = (int32_t)random_between(random, 0, c->clusters - 1);
    for (int i = 0; i < MOST_HEADS * MOST_CLUSTERS * DIM; i++)
        centroids[i] = random_float(random, -2, 2);
}

static void draw(random_state *random)
{
    static const int32_t blocks[] = {1, 5, 8, 16};
    scene_draw(&s, random);
    memset(&d, 0, sizeof(d));
    d.struct_size = sizeof(d);
    d.heads_kv = random_between(random, 1, 2);
    d.heads_q = d.heads_kv * random_between(random, 1, 2);
    d.dim = DIM;
    d.shape = (fa_sparse_shape){.rows = random_between(random, 1, MOST),
                                .keys = random_between(random, 1, MOST),
                                .block_rows = blocks[random_between(random, 0, 3)],
                                .block_keys = blocks[random_between(random, 0, 3)]};
    draw_clusters(random, &d.q, nearest_q, centroids_q, d.shape.rows);
    draw_clusters(random, &d.k, nearest_k, centroids_k, d.shape.keys);
    d.threshold = random_between(random, 0, 3) ? (double)random_between(random, 1, 10) / 10 : 1;
    d.order_q = order_q;
    d.order_k = order_k;
    d.chosen = chosen;
}

/* Tokens by cluster, and then by number. */
static void expect_order(const int32_t *order, const int32_t *nearest, int64_t heads, int64_t rows)
{
    for (int64_t head = 0; head < heads; head++) {
        const int32_t *at = order + head * rows, *of = nearest + head * rows;
        for (int64_t p = 0; p < rows; p++) {
            ck_assert(at[p] >= 0 && at[p] < rows);
            if (p > 0)
                ck_assert(of[at[p]] > of[at[p - 1]] || (of[at[p]] == of[at[p - 1]] && at[p] > at[p - 1]));
        }
    }
}

static int64_t count_of(const int32_t *nearest, int64_t rows, int64_t cluster)
{
    int64_t count = 0;
    for (int64_t i = 0; i < rows; i++)
        count += nearest[i] == cluster;
    return count;
}

static double weight_of(int64_t head, int64_t cluster_q, int64_t cluster_k)
{
    const float *a = centroids_q + (head * d.q.clusters + cluster_q) * DIM,
                *b = centroids_k + (kv_of(head) * d.k.clusters + cluster_k) * DIM;
    double dot = 0;
    for (int64_t n = 0; n < DIM; n++)
        dot += (double)a[n] * (double)b[n];
    return exp(dot / sqrt(DIM)) *
           (double)count_of(nearest_k + kv_of(head) * d.shape.keys, d.shape.keys, cluster_k);
}

static bool has_chosen(int64_t head, int64_t cluster_q, int64_t cluster_k)
{
    return chosen[(head * d.q.clusters + cluster_q) * d.k.clusters + cluster_k] != 0;
}

/* The heaviest, enough of them, and none too many. */
static void expect_chosen(int64_t head, int64_t c)
{
    const bool empty = count_of(nearest_q + head * d.shape.rows, d.shape.rows, c) == 0;
    double total = 0, sum = 0, lightest = INFINITY, heaviest = 0;
    for (int64_t n = 0; n < d.k.clusters; n++) {
        const double weight = weight_of(head, c, n);
        const bool has = has_chosen(head, c, n);
        ck_assert(!has || (!empty && weight > 0));
        total += weight;
        sum += has ? weight : 0;
        lightest = has ? fmin(lightest, weight) : lightest;
        heaviest = has ? heaviest : fmax(heaviest, weight);
    }
    if (empty)
        return;
    ck_assert(lightest >= heaviest * (1 - 1e-12));
    ck_assert(sum >= d.threshold * total * (1 - 1e-12));
    ck_assert(sum - lightest < d.threshold * total * (1 + 1e-12));
}

/* What single rows see of single keys, both in the lists' order. */
static bool sees(int64_t head, int64_t p, int64_t key)
{
    const int64_t rows = d.shape.rows, keys = d.shape.keys, kv = kv_of(head);
    return has_chosen(head, nearest_q[head * rows + order_q[head * rows + p]],
                      nearest_k[kv * keys + order_k[kv * keys + key]]);
}

static void expect_lists(const fa_block_lists *l)
{
    static bool expected[MOST * MOST];
    for (int64_t head = 0; head < d.heads_q; head++) {
        memset(expected, 0, sizeof(expected));
        for (int64_t i = 0; i < d.shape.rows * d.shape.keys; i++) {
            const int64_t p = i / d.shape.keys, key = i % d.shape.keys;
            if (sees(head, p, key))
                expected[p / l->block_rows * l->key_blocks + key / l->block_keys] = true;
        }
        for (int64_t i = 0; i < l->row_blocks * l->key_blocks; i++)
            ck_assert_int_eq(list_has(l, 0, head, i / l->key_blocks, i % l->key_blocks), expected[i]);
    }
}

static void move(float *to, const float *from, const int32_t *order, int64_t heads, int64_t rows)
{
    for (int64_t i = 0; i < heads * rows; i++)
        memcpy(to + i * DIM, from + (i / rows * rows + order[i]) * DIM, DIM * sizeof(float));
}

static void move_all(void)
{
    moved.batch = 1;
    moved.heads_q = d.heads_q;
    moved.heads_kv = d.heads_kv;
    moved.rows = d.shape.rows;
    moved.keys = d.shape.keys;
    move(moved.q, s.q, order_q, d.heads_q, d.shape.rows);
    move(moved.k, s.k, order_k, d.heads_kv, d.shape.keys);
    move(moved.v, s.v, order_k, d.heads_kv, d.shape.keys);
}

/* Lists cut by `keep` are attention of the tokens as they were, each to the keys of the clusters that its own meets. */
static void expect_exact(const fa_block_lists *l)
{
    const int64_t rows = d.shape.rows, keys = d.shape.keys;
    fa_attention_desc a = make_desc(1, d.heads_q, d.heads_kv, rows, keys, DIM);
    a.keep = fa_tensor_make(FA_BOOL, 1, d.heads_q, rows, keys);
    for (int64_t i = 0; i < d.heads_q * rows * keys; i++) {
        const int64_t key = i % keys, row = i / keys % rows, head = i / keys / rows;
        s.keep[i] = has_chosen(head, nearest_q[head * rows + row], nearest_k[kv_of(head) * keys + key]);
        moved.keep[i] = sees(head, row, key);
    }
    const fa_inputs inputs = {.q = s.q, .k = s.k, .v = s.v, .keep = s.keep};
    ck_assert_int_eq(fa_reference_attention(context, &a, &inputs, exact, NULL), FA_OK);
    a.lists = l;
    ck_assert_int_eq(fa_attention_host(device, &a, moved.q, moved.k, moved.v, NULL, moved.keep, o, NULL),
                     FA_OK);
    for (int64_t i = 0; i < d.heads_q * rows * DIM; i++) {
        const int64_t at = (i / DIM / rows * rows + order_q[i / DIM]) * DIM + i % DIM;
        ck_assert_double_le(fabs((double)o[i] - exact[at]), 4e-6);
    }
}

START_TEST(clusters)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 12; n++) {
        fa_block_mask *mask;
        draw(&random);
        ck_assert_int_eq(fa_sparse_clustered(context, &d, &mask), FA_OK);
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.heads, d.heads_q);
        expect_order(order_q, nearest_q, d.heads_q, d.shape.rows);
        expect_order(order_k, nearest_k, d.heads_kv, d.shape.keys);
        for (int64_t i = 0; i < d.heads_q * d.q.clusters; i++)
            expect_chosen(i / d.q.clusters, i % d.q.clusters);
        expect_lists(&l);
        move_all();
        scene_keep(&moved, mask);
        scene_expect(&moved, mask, NULL);
        expect_exact(&l);
        fa_block_mask_destroy(mask);
    }
}
END_TEST

/* Rows of a topic and keys of the same: k-means finds them, and rows meet their own. */
START_TEST(topics)
{
    enum { TOPICS = 4, ROWS = 128 };
    random_state random = {2};
    int32_t counts[TOPICS];
    fa_block_mask *mask;
    draw(&random);
    for (int i = 0; i < ROWS * DIM; i++) {
        const float own = i % DIM == i / DIM % TOPICS ? 12.0F : 0.0F;
        s.q[i] = own + random_float(&random, -0.5F, 0.5F);
        s.k[i] = own + random_float(&random, -0.5F, 0.5F);
    }
    const fa_cluster_desc means = {.struct_size = sizeof(means),
                                   .rows = fa_tensor_make(FA_F32, 1, 1, ROWS, DIM),
                                   .clusters = TOPICS,
                                   .iterations = 20,
                                   .start = FA_CLUSTER_PLUS_PLUS};
    ck_assert_int_eq(fa_cluster_host(context, &means, s.q, nearest_q, centroids_q, counts), FA_OK);
    ck_assert_int_eq(fa_cluster_host(context, &means, s.k, nearest_k, centroids_k, counts), FA_OK);
    d.heads_q = d.heads_kv = 1;
    d.shape = (fa_sparse_shape){.rows = ROWS, .keys = ROWS, .block_rows = 16, .block_keys = 16};
    d.q.clusters = d.k.clusters = TOPICS;
    d.threshold = 0;
    ck_assert_int_eq(fa_sparse_clustered(context, &d, &mask), FA_OK);
    const fa_block_lists l = lists_of(mask);
    ck_assert_int_eq(l.indptr[l.row_blocks], l.row_blocks * 2); /* 32 keys of 128 */
    for (int p = 0; p < ROWS; p++)
        ck_assert_int_eq(list_has(&l, 0, 0, p / 16, p / 16) || order_q[p] % TOPICS != order_k[p] % TOPICS, 1);
    fa_block_mask_destroy(mask);
}
END_TEST

#define REFUSED(part)                                                          \
    do {                                                                       \
        ck_assert_int_eq(fa_sparse_clustered(context, &d, &mask), FA_INVALID); \
        assert_message(part);                                                  \
        ck_assert_ptr_null(mask);                                              \
        d = good;                                                              \
    } while (0)

START_TEST(refused)
{
    random_state random = {7};
    fa_block_mask *mask;
    draw(&random);
    d.shape = (fa_sparse_shape){.rows = 100, .keys = 100};
    d.q.clusters = d.k.clusters = 20;
    const fa_sparse_clustered_desc good = d;
    d.shape.mask = FA_MASK_CAUSAL_TOP_LEFT;
    REFUSED("shape.mask is 1, expected 0");
    d.heads_q = 3;
    d.heads_kv = 2;
    REFUSED("heads_q is 3, expected a multiple of heads_kv, 2");
    d.dim = 0;
    REFUSED("dim is 0");
    d.q.clusters = 101;
    REFUSED("q.clusters is 101");
    d.k.nearest = NULL;
    REFUSED("k.nearest is NULL");
    d.k.centroids = NULL;
    REFUSED("k.centroids is NULL");
    d.threshold = 1.5;
    REFUSED("threshold is 1.5");
    d.scale = (double)NAN;
    REFUSED("scale is nan");
    d.order_k = NULL;
    REFUSED("order_k is NULL");
    nearest_k[3] = 20;
    REFUSED("k.nearest[3] is 20, expected 0 to 19");
    nearest_k[3] = 0;
    order_q[0] = 12345;
    for (int n = 0; n < 12; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_sparse_clustered(context, &d, &mask), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
    ck_assert_int_eq(order_q[0], 12345);
    ck_assert_int_eq(fa_sparse_clustered(context, &d, &mask), FA_OK);
    ck_assert_int_eq(lists_of(mask).block_keys, 64);
    fa_block_mask_destroy(mask);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_clustered");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, clusters, 0, 4);
    tcase_add_test(tc, topics);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
