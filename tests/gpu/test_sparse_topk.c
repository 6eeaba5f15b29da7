/* SPDX-License-Identifier: Apache-2.0 */
/* Top chunks of each row: the lists against ranks that are counted chunk by chunk. */
#include <string.h>

#include "tests/gpu/sparse_scene.h"

static sparse_scene s;

static double product(const fa_sparse_topk_desc *d, int64_t head, int64_t row, int64_t chunk)
{
    const int64_t first = chunk * d->shape.block_keys;
    const int64_t end =
        first + d->shape.block_keys < d->shape.keys ? first + d->shape.block_keys : d->shape.keys;
    const float *q = d->q + (head * d->shape.rows + row) * d->dim,
                *k = d->k + head / (d->heads_q / d->heads_kv) * d->shape.keys * d->dim;
    double sum = 0;
    for (int64_t n = 0; n < d->dim; n++) {
        double mean = 0;
        for (int64_t key = first; key < end; key++)
            mean += (double)k[key * d->dim + n];
        sum += (double)q[n] * (mean / (double)(end - first));
    }
    return sum;
}

/* The paper's choice for one row: fewer chunks rank before this one than are chosen. */
static bool row_has(const fa_sparse_topk_desc *d, int64_t chunks, int64_t head, int64_t row, int64_t chunk)
{
    const int64_t p = position_of(&d->shape, row);
    const bool causal = d->shape.mask != FA_MASK_NONE;
    const int64_t own = !causal ? chunks : p < 0 ? -1 : p / d->shape.block_keys;
    const double score = product(d, head, row, chunk);
    int64_t before = causal && own >= 0 && own < chunks;
    if (chunk >= own)
        return chunk == own;
    for (int64_t c = 0; c < chunks && c < own; c++) {
        const double other = product(d, head, row, c);
        before += other > score || (other == score && c < chunk);
    }
    return before < d->topk;
}

static bool list_should(const fa_sparse_topk_desc *d, const fa_block_lists *l, int64_t list_head, int64_t r,
                        int64_t c)
{
    const int64_t group = d->heads_q / l->heads;
    for (int64_t head = list_head * group; head < (list_head + 1) * group; head++) {
        for (int64_t row = r * l->block_rows; row < (r + 1) * l->block_rows && row < d->shape.rows; row++) {
            if (row_has(d, l->key_blocks, head, row, c))
                return true;
        }
    }
    return false;
}

START_TEST(top_chunks)
{
    static const int32_t rows[] = {1, 4, 16}, keys[] = {8, 16, 50};
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 12; n++) {
        fa_block_mask *mask;
        scene_draw(&s, &random);
        s.batch = 1;
        s.heads_kv = random_between(&random, 1, 2);
        s.heads_q = s.heads_kv * random_between(&random, 1, 2);
        s.rows = random_between(&random, 1, 60);
        s.keys = random_between(&random, 1, MOST_KEYS);
        s.mask = (fa_mask_kind)random_between(&random, 0, 2);
        fa_sparse_topk_desc d = {.struct_size = sizeof(d),
                                 .shape = {.rows = s.rows,
                                           .keys = s.keys,
                                           .block_rows = rows[random_between(&random, 0, 2)],
                                           .block_keys = keys[random_between(&random, 0, 2)],
                                           .mask = s.mask},
                                 .heads_q = s.heads_q,
                                 .heads_kv = s.heads_kv,
                                 .dim = DIM,
                                 .q = s.q,
                                 .k = s.k,
                                 .topk = random_between(&random, 1, 5),
                                 .per_kv_head = (int32_t)random_between(&random, 0, 1)};
        /* Chunks that are alike, to the bit. */
        for (int64_t c = 1; c < 4 && (c + 1) * d.shape.block_keys < s.keys; c++)
            memcpy(s.k + c * d.shape.block_keys * DIM, s.k, (size_t)d.shape.block_keys * DIM * sizeof(float));
        ck_assert_int_eq(fa_sparse_topk(context, &d, &mask), FA_OK);
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.heads, d.per_kv_head ? d.heads_kv : d.heads_q);
        for (int64_t i = 0; i < l.heads * l.row_blocks * l.key_blocks; i++) {
            const int64_t c = i % l.key_blocks, r = i / l.key_blocks % l.row_blocks,
                          head = i / l.key_blocks / l.row_blocks;
            ck_assert_msg(list_has(&l, 0, head, r, c) == list_should(&d, &l, head, r, c),
                          "head %lld, row block %lld, chunk %lld", (long long)head, (long long)r,
                          (long long)c);
        }
        scene_keep(&s, mask);
        scene_expect(&s, mask, NULL);
        fa_block_mask_destroy(mask);
    }
}
END_TEST

START_TEST(topk_defaults)
{
    static float q[2000], k[2000];
    const fa_sparse_topk_desc d = {.struct_size = sizeof(d),
                                   .shape = {.rows = 2000, .keys = 2000, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT},
                                   .heads_q = 1,
                                   .heads_kv = 1,
                                   .dim = 1,
                                   .q = q,
                                   .k = k};
    fa_block_mask *mask;
    ck_assert_int_eq(fa_sparse_topk(context, &d, &mask), FA_OK);
    const fa_block_lists l = lists_of(mask);
    ck_assert_int_eq(l.block_rows, 1);
    ck_assert_int_eq(l.block_keys, 128);
    ck_assert_int_eq(l.indptr[2000] - l.indptr[1999], 8);
    fa_block_mask_destroy(mask);
}
END_TEST

#define REFUSED(part)                                                     \
    do {                                                                  \
        ck_assert_int_eq(fa_sparse_topk(context, &d, &mask), FA_INVALID); \
        assert_message(part);                                             \
        ck_assert_ptr_null(mask);                                         \
        d = good;                                                         \
    } while (0)

START_TEST(refused)
{
    const float x[4] = {0};
    const fa_sparse_topk_desc good = {.struct_size = sizeof(good),
                                      .shape = {.rows = 2, .keys = 2},
                                      .heads_q = 2,
                                      .heads_kv = 1,
                                      .dim = 1,
                                      .q = x,
                                      .k = x};
    fa_sparse_topk_desc d = good;
    fa_block_mask *mask;
    d.heads_q = 0;
    REFUSED("heads_q is 0");
    d.heads_kv = 0;
    REFUSED("heads_kv is 0");
    d.heads_kv = 3;
    REFUSED("heads_q is 2, expected a multiple of heads_kv, 3");
    d.dim = 0;
    REFUSED("dim is 0");
    d.q = NULL;
    REFUSED("q is NULL");
    d.k = NULL;
    REFUSED("k is NULL");
    d.topk = -1;
    REFUSED("topk is -1");
    d.per_kv_head = 2;
    REFUSED("per_kv_head is 2");
    d.heads_q = d.dim = d.shape.rows = FA_MAX_LENGTH;
    ck_assert_int_eq(fa_sparse_topk(context, &d, &mask), FA_OUT_OF_MEMORY);
    d = good;
    for (int n = 0; n < 5; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_sparse_topk(context, &d, &mask), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_topk");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, top_chunks, 0, 4);
    tcase_add_test(tc, topk_defaults);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
