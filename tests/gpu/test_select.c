/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Means of chunks and scores by them, on a backend whose name is the argument: sums to the bit as the header gives their order.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { MOST_FLOATS = 1 << 17 };

static fa_buffer *make_buffer(size_t bytes)
{
    fa_buffer *buffer;
    ck_assert_int_eq(fa_buffer_create(device, bytes, &buffer), FA_OK);
    return buffer;
}

static void destroy_all(fa_buffer *const *all, int count)
{
    for (int i = 0; i < count; i++)
        fa_buffer_destroy(all[i]);
}

static void succeed(fa_status status)
{
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
}

/* A tensor whose strides leave gaps, some of it in memory. */
typedef struct drawn {
    fa_tensor tensor;
    unsigned char bytes[MOST_FLOATS * sizeof(float)];
} drawn;

static size_t element_of(const fa_tensor *t, int64_t b, int64_t h, int64_t r, int64_t d)
{
    return (size_t)(b * t->stride[0] + h * t->stride[1] + r * t->stride[2] + d);
}

static float get(const drawn *x, int64_t b, int64_t h, int64_t r, int64_t d)
{
    const size_t at = element_of(&x->tensor, b, h, r, d);
    float f32;
    uint16_t half;
    if (x->tensor.dtype == FA_F32) {
        memcpy(&f32, x->bytes + at * sizeof(f32), sizeof(f32));
        return f32;
    }
    memcpy(&half, x->bytes + at * sizeof(half), sizeof(half));
    return x->tensor.dtype == FA_F16 ? fa_f16_to_f32(half) : fa_bf16_to_f32(half);
}

static void draw(drawn *x, int64_t batch, int64_t heads, int64_t rows, int64_t dim, random_state *random)
{
    static const fa_dtype types[] = {FA_F32, FA_F16, FA_BF16};
    const int64_t gap = random_between(random, 0, 3);
    fa_tensor *t = &x->tensor;
    *t = fa_tensor_make(types[random_between(random, 0, 2)], batch, heads, rows, dim);
    t->stride[3] = 1;
    t->stride[2] = dim + gap;
    t->stride[1] = rows * t->stride[2];
    t->stride[0] = heads * t->stride[1];
    if (random_between(random, 0, 1)) { /* tokens before heads */
        t->stride[1] = dim + gap;
        t->stride[2] = heads * t->stride[1];
        t->stride[0] = rows * t->stride[2];
    }
    for (size_t i = 0; i < MOST_FLOATS; i++) {
        const float f32 = random_float(random, -2, 2);
        const uint16_t half = t->dtype == FA_F16 ? fa_f32_to_f16(f32) : fa_f32_to_bf16(f32);
        if (t->dtype == FA_F32)
            memcpy(x->bytes + i * sizeof(f32), &f32, sizeof(f32));
        else
            memcpy(x->bytes + i * sizeof(half), &half, sizeof(half));
    }
}

static void run_pool(const fa_pooling_desc *desc, const drawn *x, float *means, size_t count)
{
    fa_pooling *pooling;
    const fa_pooling_args args = {.struct_size = sizeof(args),
                                  .x = upload(x->bytes, sizeof(x->bytes)),
                                  .means = make_buffer(count * sizeof(float))};
    succeed(fa_pooling_create(device, desc, &pooling));
    succeed(fa_pooling_run(pooling, queue, &args));
    succeed(fa_buffer_read(queue, args.means, 0, means, count * sizeof(float)));
    fa_pooling_destroy(pooling);
    destroy_all((fa_buffer *const[]){args.x, args.means}, 2);
}

START_TEST(means)
{
    static drawn x;
    static float made[MOST_FLOATS];
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 2 : 30); n++) {
        const int64_t batch = random_between(&random, 1, 2), heads = random_between(&random, 1, 3),
                      tokens = random_between(&random, 1, 70), dim = random_between(&random, 1, 140),
                      chunk = random_between(&random, 1, 40), chunks = (tokens + chunk - 1) / chunk;
        draw(&x, batch, heads, tokens, dim, &random);
        const fa_pooling_desc desc = {.struct_size = sizeof(desc), .x = x.tensor, .chunk = chunk};
        run_pool(&desc, &x, made, (size_t)(batch * heads * chunks * dim));
        for (int64_t i = 0; i < batch * heads * chunks * dim; i++) {
            const int64_t d = i % dim, c = i / dim % chunks, line = i / dim / chunks;
            const int64_t end = (c + 1) * chunk < tokens ? (c + 1) * chunk : tokens;
            float sum = 0;
            for (int64_t token = c * chunk; token < end; token++)
                sum += get(&x, line / heads, line % heads, token, d);
            ck_assert_float_eq(made[i], sum * (1.0f / (float)(end - c * chunk)));
        }
    }
}
END_TEST

static int64_t blocks_of(int64_t count, int64_t block)
{
    return (count + block - 1) / block;
}

/* The position of the last row of a row of scores, and how many columns that one sees. */
static int64_t last_of(const fa_sparse_shape *s, int64_t r)
{
    const int64_t end = (r + 1) * s->block_rows < s->rows ? (r + 1) * s->block_rows : s->rows;
    return end - 1 + (s->mask == FA_MASK_CAUSAL_TOP_LEFT ? 0 : s->keys - s->rows);
}

static int64_t seen_by(const fa_sparse_shape *s, int64_t r)
{
    int64_t seen = 0;
    for (int64_t c = 0; c < blocks_of(s->keys, s->block_keys); c++)
        seen += s->mask == FA_MASK_NONE || c * s->block_keys <= last_of(s, r);
    return seen;
}

static fa_sparse_shape draw_shape(random_state *random, int64_t rows, int64_t columns)
{
    fa_sparse_shape s = {.block_rows = (int32_t)random_between(random, 1, 5),
                         .block_keys = (int32_t)random_between(random, 1, 7),
                         .mask = (fa_mask_kind)random_between(random, 0, 2)};
    s.rows = random_between(random, (rows - 1) * s.block_rows + 1, rows * s.block_rows);
    s.keys = random_between(random, (columns - 1) * s.block_keys + 1, columns * s.block_keys);
    return s;
}

static float product(const drawn *q, const drawn *k, int64_t batch, int64_t head, int64_t row, int64_t column)
{
    const int64_t group = q->tensor.shape[1] / k->tensor.shape[1];
    float sum = 0;
    for (int64_t d = 0; d < q->tensor.shape[3]; d++)
        sum += get(q, batch, head, row, d) * get(k, batch, head / group, column, d);
    return sum;
}

static float expected_score(const fa_row_scores_desc *d, const drawn *q, const drawn *k, const float *weights,
                            int64_t batch, int64_t head, int64_t row, int64_t column)
{
    const int64_t heads = d->q.shape[1], rows = d->q.shape[2];
    const float scale = (float)(d->scale != 0 ? d->scale : 1 / sqrt((double)d->q.shape[3]));
    float sum = 0;
    if (!d->weighted)
        return scale * product(q, k, batch, head, row, column);
    for (int64_t h = 0; h < heads; h++) {
        const float score = scale * product(q, k, batch, h, row, column);
        sum += weights[(batch * rows + row) * heads + h] * (score > 0 ? score : 0);
    }
    return sum;
}

static void check_scores(const fa_row_scores_desc *d, const drawn *q, const drawn *k, const float *weights,
                         const float *made)
{
    const int64_t rows = d->q.shape[2], columns = d->k.shape[2], heads = d->weighted ? 1 : d->q.shape[1];
    for (int64_t i = 0; i < d->q.shape[0] * heads * rows * columns; i++) {
        const int64_t c = i % columns, r = i / columns % rows, line = i / columns / rows;
        const float expected = c < seen_by(&d->shape, r)
                                   ? expected_score(d, q, k, weights, line / heads, line % heads, r, c)
                                   : 77;
        ck_assert_msg(made[i] == expected, "row %lld, column %lld: %a, expected %a", (long long)r,
                      (long long)c, (double)made[i], (double)expected);
    }
}

START_TEST(row_scores)
{
    static drawn q, k;
    static float made[MOST_FLOATS], weights[MOST_FLOATS];
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 2 : 20); n++) {
        const int64_t batch = random_between(&random, 1, 2), heads_kv = random_between(&random, 1, 2),
                      heads = heads_kv * random_between(&random, 1, 2),
                      rows = n % 3 ? random_between(&random, 1, 20) : random_between(&random, 120, 140),
                      columns = random_between(&random, 1, 100), dim = random_between(&random, 1, 40);
        draw(&q, batch, heads, rows, dim, &random);
        draw(&k, batch, heads_kv, columns, dim, &random);
        const fa_row_scores_desc desc = {.struct_size = sizeof(desc),
                                         .shape = draw_shape(&random, rows, columns),
                                         .q = q.tensor,
                                         .k = k.tensor,
                                         .scale = n % 2 ? 0.3 : 0,
                                         .weighted = (int32_t)random_between(&random, 0, 1)};
        const size_t count = (size_t)(batch * heads * rows * columns);
        ck_assert(count <= MOST_FLOATS);
        for (size_t i = 0; i < MOST_FLOATS; i++) {
            made[i] = 77;
            weights[i] = random_float(&random, -1, 1);
        }
        fa_row_scores *object;
        const fa_row_scores_args args = {.struct_size = sizeof(args),
                                         .q = upload(q.bytes, sizeof(q.bytes)),
                                         .k = upload(k.bytes, sizeof(k.bytes)),
                                         .weights = desc.weighted ? upload(weights, sizeof(weights)) : NULL,
                                         .scores = upload(made, sizeof(made))};
        succeed(fa_row_scores_create(device, &desc, &object));
        succeed(fa_row_scores_run(object, queue, &args));
        succeed(fa_buffer_read(queue, args.scores, 0, made, sizeof(made)));
        check_scores(&desc, &q, &k, weights, made);
        fa_row_scores_destroy(object);
        destroy_all((fa_buffer *const[]){args.q, args.k, args.weights, args.scores}, 4);
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("select");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, means, 0, slow ? 1 : 4);
    tcase_add_loop_test(tc, row_scores, 0, slow ? 2 : 4);
    return run_on_backend(suite);
}
