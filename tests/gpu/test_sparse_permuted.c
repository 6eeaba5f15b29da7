/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted keys and blocks by a threshold: the order and the lists against the definition, and both ways to attend with them. */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

enum { MOST = 220, HEADS = 4 };

static sparse_scene s;
static fa_sparse_permuted_desc d;
static int32_t order[HEADS * MOST];
static float sorted_k[HEADS * MOST * DIM], sorted_v[HEADS * MOST * DIM];
static float o[2 * HEADS * MOST * DIM], lse[2 * HEADS * MOST];
static double exact[HEADS * MOST * DIM];

static int64_t kv_of(int64_t head)
{
    return head / (d.heads_q / d.heads_kv);
}

static double product(const double *a, const double *b)
{
    double sum = 0;
    for (int64_t n = 0; n < DIM; n++)
        sum += a[n] * b[n];
    return sum / sqrt(DIM);
}

/* The mean of vectors [first, first + count) of `total`. */
static void mean_of(const float *x, int64_t first, int64_t count, int64_t total, double *mean)
{
    const int64_t end = first + count < total ? first + count : total;
    memset(mean, 0, DIM * sizeof(*mean));
    for (int64_t i = first; i < end; i++) {
        for (int64_t n = 0; n < DIM; n++)
            mean[n] += (double)x[i * DIM + n] / (double)(end - first);
    }
}

/* The mean weight that the last rows give a key. */
static void weigh(int64_t head_kv, double *weights)
{
    const int64_t keys = d.shape.keys, size = d.shape.block_rows;
    memset(weights, 0, (size_t)keys * sizeof(*weights));
    for (int64_t head = 0; head < d.heads_q; head++) {
        for (int64_t row = keys > size ? keys - size : 0; row < keys && kv_of(head) == head_kv; row++) {
            double weight[MOST], sum = 0, q[DIM], k[DIM];
            for (int64_t key = 0; key < keys; key++) {
                mean_of(s.q + head * keys * DIM, row, 1, keys, q);
                mean_of(s.k + head_kv * keys * DIM, key, 1, keys, k);
                weight[key] = mask_shows(&d.shape, row, key) ? exp(product(q, k)) : 0;
                sum += weight[key];
            }
            for (int64_t key = 0; key < keys; key++)
                weights[key] += weight[key] / sum;
        }
    }
}

static void expect_order(void)
{
    const int64_t keys = d.shape.keys;
    for (int64_t head = 0; head < d.heads_kv; head++) {
        double weights[MOST];
        bool seen[MOST] = {false};
        const int32_t *at = order + head * keys;
        weigh(head, weights);
        for (int64_t p = 0; p < keys; p++) {
            ck_assert_int_eq(at[p] / d.segment, p / d.segment);
            ck_assert(!seen[at[p]]);
            seen[at[p]] = true;
            if (p % d.segment > 0)
                ck_assert(weights[at[p]] <= weights[at[p - 1]] * (1 + 1e-12));
        }
    }
}

static void sort_vectors(void)
{
    const int64_t keys = d.shape.keys;
    for (int64_t i = 0; i < d.heads_kv * keys; i++) {
        const int64_t from = i / keys * keys + order[i];
        memcpy(sorted_k + i * DIM, s.k + from * DIM, DIM * sizeof(float));
        memcpy(sorted_v + i * DIM, s.v + from * DIM, DIM * sizeof(float));
    }
}

/* The blocks that the threshold chose are the heaviest, enough of them, and none too many. */
static void expect_list(const fa_block_lists *l, int64_t head, int64_t r)
{
    const int64_t keys = d.shape.keys, own = r * l->block_rows / d.segment;
    double q[DIM], k[DIM], total = 0, chosen = 0, lightest = INFINITY, heaviest = 0, given = 0;
    int64_t first = 0;
    while (order[kv_of(head) * keys + first] != 0)
        first++;
    mean_of(s.q + head * keys * DIM, r * l->block_rows, l->block_rows, keys, q);
    for (int64_t c = 0; c < l->key_blocks; c++) {
        const int64_t segment = c * l->block_keys / d.segment;
        const bool has = list_has(l, 0, head, r, c);
        if (segment == own) {
            ck_assert_int_eq(has, !d.without_own);
            continue;
        }
        if (d.shape.mask != FA_MASK_NONE && segment > own) {
            ck_assert(!has);
            continue;
        }
        mean_of(sorted_k + kv_of(head) * keys * DIM, c * l->block_keys, l->block_keys, keys, k);
        const double score = exp(product(q, k));
        const bool is_first = c == first / l->block_keys;
        total += score;
        chosen += has ? score : 0;
        ck_assert(has || !is_first);
        if (is_first)
            given = score;
        if (has && !is_first)
            lightest = fmin(lightest, score);
        if (!has)
            heaviest = fmax(heaviest, score);
    }
    ck_assert(lightest >= heaviest * (1 - 1e-12));
    ck_assert(chosen >= d.threshold * total * (1 - 1e-12));
    /* The block of key 0 is there in any case: one of the heaviest, or one more. */
    if (chosen - given >= d.threshold * total)
        chosen -= given;
    else if (given > 0)
        lightest = fmin(lightest, given);
    if (isfinite(lightest))
        ck_assert(chosen - lightest < d.threshold * total * (1 + 1e-12));
}

static fa_attention_desc desc_of(void)
{
    return make_desc(1, d.heads_q, d.heads_kv, d.shape.rows, d.shape.keys, DIM);
}

/* What rows see of the keys where they were. */
static void compute_exact(const fa_block_lists *l)
{
    const int64_t keys = d.shape.keys;
    fa_attention_desc a = desc_of();
    a.keep = fa_tensor_make(FA_BOOL, 1, d.heads_q, keys, keys);
    for (int64_t i = 0; i < d.heads_q * keys * keys; i++) {
        const int64_t p = i % keys, row = i / keys % keys, head = i / keys / keys;
        const int64_t key = order[kv_of(head) * keys + p];
        const bool own = p / d.segment == row / d.segment;
        s.keep[i - p + key] = (own || list_has(l, 0, head, row / l->block_rows, p / l->block_keys)) &&
                              mask_shows(&d.shape, row, key);
    }
    ck_assert_int_eq(fa_reference_attention(context, &a,
                                            &(fa_inputs){.q = s.q, .k = s.k, .v = s.v, .keep = s.keep}, exact,
                                            NULL),
                     FA_OK);
}

static void expect_exact(void)
{
    for (int64_t i = 0; i < d.heads_q * d.shape.rows * DIM; i++)
        ck_assert_msg(fabs((double)o[i] - exact[i]) <= 4e-6, "o[%lld] is %g, expected %g", (long long)i,
                      (double)o[i], exact[i]);
}

/* Lists with the own segment, and a byte for each row and sorted key. */
static void attend_with_keep(const fa_block_lists *l)
{
    const int64_t keys = d.shape.keys;
    fa_attention_desc a = desc_of();
    a.lists = l;
    a.keep = fa_tensor_make(FA_BOOL, 1, d.heads_q, keys, keys);
    for (int64_t i = 0; i < d.heads_q * keys * keys; i++)
        s.keep[i] = mask_shows(&d.shape, i / keys % keys, order[kv_of(i / keys / keys) * keys + i % keys]);
    ck_assert_int_eq(fa_attention_host(device, &a, s.q, sorted_k, sorted_v, NULL, s.keep, o, NULL), FA_OK);
}

/* Lists without it, which nothing cuts; the own segments as sequences; and the merge. */
static void attend_in_parts(const fa_block_lists *l)
{
    const int64_t keys = d.shape.keys, rows = d.heads_q * keys;
    int64_t offsets[MOST + 1], segments = 0;
    fa_attention_desc a = desc_of();
    fa_merge_desc merge = {.struct_size = sizeof(merge), .parts = 2, .partial = a.o, .o = a.o};
    a.want_lse = 1;
    a.lists = l;
    ck_assert_int_eq(fa_attention_host(device, &a, s.q, sorted_k, sorted_v, NULL, NULL, o, lse), FA_OK);
    for (offsets[0] = 0; offsets[segments] < keys; segments++)
        offsets[segments + 1] = offsets[segments] + d.segment < keys ? offsets[segments] + d.segment : keys;
    a.lists = NULL;
    a.sequences = segments;
    a.cu_rows_q = a.cu_rows_kv = offsets;
    a.mask = d.shape.mask;
    ck_assert_int_eq(fa_attention_host(device, &a, s.q, s.k, s.v, NULL, NULL, o + rows * DIM, lse + rows),
                     FA_OK);
    ck_assert_int_eq(fa_merge_host(&merge, o, lse, o, NULL), FA_OK);
}

static void draw(random_state *random)
{
    static const int32_t blocks[] = {4, 8, 16};
    scene_draw(&s, random);
    memset(&d, 0, sizeof(d));
    d.struct_size = sizeof(d);
    d.heads_kv = random_between(random, 1, 2);
    d.heads_q = d.heads_kv * random_between(random, 1, 2);
    d.dim = DIM;
    d.shape = (fa_sparse_shape){.block_rows = blocks[random_between(random, 0, 2)],
                                .block_keys = blocks[random_between(random, 0, 2)],
                                .mask = (fa_mask_kind)random_between(random, 0, 2)};
    d.shape.rows = d.shape.keys = random_between(random, 1, 150);
    d.segment = 16 * random_between(random, 1, 3);
    d.threshold = random_between(random, 0, 3) ? (double)random_between(random, 1, 10) / 10 : 1;
    d.without_own = (int32_t)random_between(random, 0, 1);
    d.q = s.q;
    d.k = s.k;
    d.order = order;
}

START_TEST(sorted_segments)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 12; n++) {
        fa_block_mask *mask;
        draw(&random);
        ck_assert_int_eq(fa_sparse_permuted(context, &d, &mask), FA_OK);
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.heads, d.heads_q);
        expect_order();
        sort_vectors();
        for (int64_t i = 0; i < l.heads * l.row_blocks; i++)
            expect_list(&l, i / l.row_blocks, i % l.row_blocks);
        compute_exact(&l);
        if (d.without_own)
            attend_in_parts(&l);
        else
            attend_with_keep(&l);
        expect_exact();
        fa_block_mask_destroy(mask);
    }
}
END_TEST

#define REFUSED(part)                                                         \
    do {                                                                      \
        ck_assert_int_eq(fa_sparse_permuted(context, &d, &mask), FA_INVALID); \
        assert_message(part);                                                 \
        ck_assert_ptr_null(mask);                                             \
        d = good;                                                             \
    } while (0)

START_TEST(refused)
{
    random_state random = {7};
    fa_block_mask *mask;
    draw(&random);
    d.shape = (fa_sparse_shape){.rows = 100, .keys = 100, .block_rows = 8, .block_keys = 16};
    d.segment = 32;
    d.threshold = 0.5;
    const fa_sparse_permuted_desc good = d;
    d.shape.rows = 99;
    REFUSED("shape.rows is 99, expected as many as keys, 100");
    d.segment = -32;
    REFUSED("segment is -32");
    d.segment = 24;
    REFUSED("segment is 24, expected a multiple of block_rows, 8, and of block_keys, 16");
    d.threshold = 1.5;
    REFUSED("threshold is 1.5");
    d.threshold = (double)NAN;
    REFUSED("threshold is nan");
    d.scale = (double)INFINITY;
    REFUSED("scale is inf");
    d.without_own = 2;
    REFUSED("without_own is 2");
    d.order = NULL;
    REFUSED("order is NULL");
    order[0] = 12345;
    for (int n = 0; n < 8; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_sparse_permuted(context, &d, &mask), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
    ck_assert_int_eq(order[0], 12345);
}
END_TEST

START_TEST(permuted_defaults)
{
    static float q[600];
    static int32_t to[600];
    const fa_sparse_permuted_desc given = {
        .struct_size = sizeof(given),
        .shape = {.rows = 600, .keys = 600, .mask = FA_MASK_CAUSAL_TOP_LEFT},
        .heads_q = 1,
        .heads_kv = 1,
        .dim = 1,
        .q = q,
        .k = q,
        .order = to};
    fa_block_mask *mask;
    ck_assert_int_eq(fa_sparse_permuted(context, &given, &mask), FA_OK);
    const fa_block_lists l = lists_of(mask);
    ck_assert_int_eq(l.block_rows, 128);
    ck_assert_int_eq(l.block_keys, 128);
    /* All weigh the same: 4 of 4 blocks are 0.9, and the last segment has one. */
    ck_assert_int_eq(l.indptr[5] - l.indptr[4], 5);
    ck_assert_int_eq(l.indptr[1] - l.indptr[0], 2);
    for (int i = 0; i < 500; i++)
        ck_assert_int_eq(to[i], i);
    fa_block_mask_destroy(mask);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_permuted");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, sorted_segments, 0, 4);
    tcase_add_test(tc, permuted_defaults);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
