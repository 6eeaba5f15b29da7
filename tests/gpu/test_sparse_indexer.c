/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DeepSeek's indexer, on the host and by operations of a device: its lists against ranks that are counted key by key, attention to
 * them against the oracle.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

enum { MOST_TOPK = 40, INDEX_HEADS = 3 };

static sparse_scene s;
static float q[INDEX_HEADS * MOST_ROWS * DIM], weights[MOST_ROWS * INDEX_HEADS];
static int32_t indices[MOST_ROWS * MOST_TOPK];

static double score_of(const fa_sparse_indexer_desc *d, int64_t row, int64_t key)
{
    double score = 0;
    for (int64_t h = 0; h < d->heads; h++) {
        double product = 0;
        for (int64_t n = 0; n < d->dim; n++)
            product += (double)d->q[(h * d->shape.rows + row) * d->dim + n] * (double)d->k[key * d->dim + n];
        score += (double)d->weights[row * d->heads + h] * fmax(product, 0);
    }
    return score;
}

/* Fewer keys rank before this one than are chosen. */
static bool chosen(const fa_sparse_indexer_desc *d, int64_t row, int64_t key)
{
    const double score = score_of(d, row, key);
    int64_t before = 0;
    if (!mask_shows(&d->shape, row, key))
        return false;
    for (int64_t other = 0; other < d->shape.keys && mask_shows(&d->shape, row, other); other++) {
        const double its = score_of(d, row, other);
        before += its > score || (its == score && other < key);
    }
    return before < d->topk;
}

static void check_lists(const fa_sparse_indexer_desc *d)
{
    for (int64_t row = 0; row < d->shape.rows; row++) {
        int64_t at = 0;
        for (int64_t key = 0; key < d->shape.keys; key++) {
            if (chosen(d, row, key))
                ck_assert_msg(indices[row * d->topk + at++] == key, "row %lld, key %lld", (long long)row,
                              (long long)key);
        }
        for (; at < d->topk; at++)
            ck_assert_int_eq(indices[row * d->topk + at], -1);
    }
}

/* Attention of all heads to the chosen keys, whose lists are the host's, or where `given` is not NULL the device's. */
static void check_attention(const fa_sparse_indexer_desc *d, fa_buffer *given)
{
    static float o[MOST_HEADS * MOST_ROWS * DIM];
    static double exact[MOST_HEADS * MOST_ROWS * DIM];
    const int64_t rows = s.heads_q * s.rows;
    fa_attention_desc desc = make_desc(1, s.heads_q, s.heads_kv, s.rows, s.keys, DIM);
    const fa_key_lists_desc of = {
        .struct_size = sizeof(of), .attention = &desc, .topk = d->topk, .unique = 1};
    fa_key_lists *lists;
    ck_assert_msg(fa_key_lists_create(device, &of, &lists) == FA_OK, "%s", fa_last_error());
    const fa_attention_args args = {.struct_size = sizeof(args),
                                    .q = upload(s.q, sizeof(s.q)),
                                    .k = upload(s.k, sizeof(s.k)),
                                    .v = upload(s.v, sizeof(s.v)),
                                    .o = make_buffer(sizeof(o)),
                                    .workspace = make_buffer(fa_key_lists_workspace(lists) + 1),
                                    .work = make_buffer(fa_key_lists_work(lists))};
    if (given)
        ck_assert_int_eq(fa_key_lists_schedule_device(lists, queue, given, 0, NULL, 0, args.work, 0), FA_OK);
    else
        ck_assert_int_eq(fa_key_lists_schedule(lists, queue, indices, NULL, 0, args.work, 0), FA_OK);
    ck_assert_msg(fa_key_lists_run(lists, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, o, sizeof(o)), FA_OK);
    for (int64_t i = 0; i < rows * s.keys; i++)
        s.keep[i] = chosen(d, i / s.keys % s.rows, i % s.keys);
    desc.keep = fa_tensor_make(FA_BOOL, 1, s.heads_q, s.rows, s.keys);
    const fa_inputs in = {.q = s.q, .k = s.k, .v = s.v, .keep = s.keep};
    ck_assert_int_eq(fa_reference_attention(context, &desc, &in, exact, NULL), FA_OK);
    for (int64_t i = 0; i < rows * DIM; i++)
        ck_assert_msg(fabs((double)o[i] - exact[i]) <= 4e-6, "o[%lld] is %g, expected %g", (long long)i,
                      (double)o[i], exact[i]);
    fa_buffer *const all[] = {args.q, args.k, args.v, args.o, args.workspace, args.work};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_key_lists_destroy(lists);
}

static fa_sparse_indexer_desc draw_desc(random_state *random)
{
    s.heads_kv = random_between(random, 1, 2);
    s.heads_q = s.heads_kv * random_between(random, 1, 2);
    s.rows = random_between(random, 1, 40);
    s.keys = random_between(random, 1, 100);
    return (fa_sparse_indexer_desc){
        .struct_size = sizeof(fa_sparse_indexer_desc),
        .shape = {.rows = s.rows, .keys = s.keys, .mask = (fa_mask_kind)random_between(random, 0, 2)},
        .heads = random_between(random, 1, INDEX_HEADS),
        .dim = random_between(random, 1, DIM),
        .q = q,
        .k = s.k,
        .weights = weights,
        .topk = random_between(random, 1, MOST_TOPK),
        .indices = indices};
}

START_TEST(top_keys)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < 6; n++) {
        scene_draw(&s, &random);
        for (int i = 0; i < COUNT(q); i++)
            q[i] = random_float(&random, -2, 2);
        for (int i = 0; i < COUNT(weights); i++)
            weights[i] = random_float(&random, -0.25f, 1);
        const fa_sparse_indexer_desc d = draw_desc(&random);
        /* Keys that are alike, to the bit. */
        for (int64_t key = 1; key < 6; key++)
            memcpy(s.k + 3 * key * d.dim, s.k, (size_t)d.dim * sizeof(float));
        ck_assert_int_eq(fa_sparse_indexer(context, &d), FA_OK);
        check_lists(&d);
        check_attention(&d, NULL);
    }
}
END_TEST

static void draw_whole(float *x, int count, random_state *random)
{
    for (int i = 0; i < count; i++)
        x[i] = (float)random_between(random, -3, 3);
}

/* Scores and the choice of keys by operations of select.h, into a buffer that the host does not read. */
static fa_buffer *index_on_device(const fa_sparse_indexer_desc *d)
{
    const fa_row_scores_desc score = {.struct_size = sizeof(score),
                                      .shape = d->shape,
                                      .q = fa_tensor_make(FA_F32, 1, d->heads, s.rows, d->dim),
                                      .k = fa_tensor_make(FA_F32, 1, 1, s.keys, d->dim),
                                      .scale = 1,
                                      .weighted = 1};
    const fa_select_desc best = {.struct_size = sizeof(best),
                                 .shape = d->shape,
                                 .batch = 1,
                                 .heads = 1,
                                 .topk = d->topk,
                                 .width = d->topk};
    fa_row_scores *scores;
    fa_select *select;
    ck_assert_msg(fa_row_scores_create(device, &score, &scores) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_select_create(device, &best, &select) == FA_OK, "%s", fa_last_error());
    const fa_row_scores_args of = {.struct_size = sizeof(of),
                                   .q = upload(q, sizeof(q)),
                                   .k = upload(s.k, sizeof(s.k)),
                                   .weights = upload(weights, sizeof(weights)),
                                   .scores = make_buffer((size_t)(s.rows * s.keys) * sizeof(float))};
    const fa_select_args to = {.struct_size = sizeof(to),
                               .scores = of.scores,
                               .bits = make_buffer((size_t)(s.rows * ((s.keys + 31) / 32)) * 4),
                               .indices = make_buffer((size_t)(s.rows * d->topk) * sizeof(int32_t))};
    ck_assert_msg(fa_row_scores_run(scores, queue, &of) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_select_run(select, queue, &to) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer *const all[] = {of.q, of.k, of.weights, of.scores, to.bits};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_row_scores_destroy(scores);
    fa_select_destroy(select);
    return to.indices;
}

/* Of whole numbers, whose scores f32 holds: ties are ties, and the lists are the host's. */
START_TEST(on_device)
{
    random_state random = {(uint64_t)_i + 20};
    for (int n = 0; device && n < (slow ? 1 : 6); n++) {
        scene_draw(&s, &random);
        const fa_sparse_indexer_desc d = draw_desc(&random);
        draw_whole(q, COUNT(q), &random);
        draw_whole(s.k, COUNT(s.k), &random);
        draw_whole(weights, COUNT(weights), &random);
        fa_buffer *chosen_keys = index_on_device(&d);
        ck_assert_int_eq(fa_buffer_read(queue, chosen_keys, 0, indices, (size_t)(d.shape.rows * d.topk) * 4),
                         FA_OK);
        check_lists(&d);
        memset(indices, 0, sizeof(indices));
        check_attention(&d, chosen_keys);
        fa_buffer_destroy(chosen_keys);
    }
}
END_TEST

/* 2048 keys; a score that is no number comes last. */
START_TEST(indexer_defaults)
{
    static float x[2051];
    static int32_t list[2048];
    const float one = 1;
    for (int i = 0; i < COUNT(x); i++)
        x[i] = i < 3 ? 0 : 1;
    x[1000] = NAN;
    const fa_sparse_indexer_desc d = {.struct_size = sizeof(d),
                                      .shape = {.rows = 1, .keys = COUNT(x)},
                                      .heads = 1,
                                      .dim = 1,
                                      .q = &one,
                                      .k = x,
                                      .weights = &one,
                                      .indices = list};
    ck_assert_int_eq(fa_sparse_indexer(context, &d), FA_OK);
    ck_assert_int_eq(list[0], 0); /* of the three whose score is 0 */
    for (int i = 1; i < COUNT(list); i++)
        ck_assert_int_eq(list[i], i + 2 + (i + 2 >= 1000));
}
END_TEST

#define REFUSED(part)                                                 \
    do {                                                              \
        ck_assert_int_eq(fa_sparse_indexer(context, &d), FA_INVALID); \
        assert_message(part);                                         \
        ck_assert_int_eq(list[0], 77);                                \
        d = good;                                                     \
    } while (0)

START_TEST(refused)
{
    const float x[4] = {0};
    int32_t list[4] = {77};
    const fa_sparse_indexer_desc good = {.struct_size = sizeof(good),
                                         .shape = {.rows = 2, .keys = 2},
                                         .heads = 2,
                                         .dim = 1,
                                         .q = x,
                                         .k = x,
                                         .weights = x,
                                         .topk = 2,
                                         .indices = list};
    fa_sparse_indexer_desc d = good;
    d.shape.rows = 0;
    REFUSED("shape.rows is 0");
    d.shape.block_rows = 2;
    REFUSED("shape.block_rows is 2, expected 1 to 1");
    d.shape.block_keys = 16;
    REFUSED("shape.block_keys is 16");
    d.heads = 0;
    REFUSED("heads is 0");
    d.dim = -1;
    REFUSED("dim is -1");
    d.q = NULL;
    REFUSED("q is NULL");
    d.k = NULL;
    REFUSED("k is NULL");
    d.weights = NULL;
    REFUSED("weights is NULL");
    d.indices = NULL;
    REFUSED("indices is NULL");
    d.topk = -1;
    REFUSED("topk is -1");
    ck_assert_int_eq(fa_sparse_indexer(NULL, &d), FA_INVALID);
    d.heads = d.dim = d.shape.rows = FA_MAX_LENGTH;
    ck_assert_int_eq(fa_sparse_indexer(context, &d), FA_OUT_OF_MEMORY);
    d = good;
    memory.fail_at = memory.calls;
    ck_assert_int_eq(fa_sparse_indexer(context, &d), FA_OUT_OF_MEMORY);
    memory.fail_at = -1;
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_indexer");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, top_keys, 0, 4);
    tcase_add_loop_test(tc, on_device, 0, 3);
    tcase_add_test(tc, indexer_defaults);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
