/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Means of chunks, scores and what is chosen by them, on a backend whose name is the argument: sums to the bit as the header gives their
 * order, choices by a sort of each row.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { MOST_FLOATS = 1 << 17 };

static void destroy_all(fa_buffer *const *all, int count)
{
    for (int i = 0; i < count; i++)
        fa_buffer_destroy(all[i]);
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

/* Rows of scores, what a run is given beside them, and what it makes. */
typedef struct choice_scene {
    fa_select_desc desc;
    int64_t rows, columns, lists, lines; /* lists of a head, heads of lists */
    float scores[MOST_FLOATS];
    int32_t visible[MOST_FLOATS];
    bool chosen[MOST_FLOATS]; /* (lines, lists, columns) */
    uint32_t bits[MOST_FLOATS];
    uint8_t mask[MOST_FLOATS];
    int32_t indices[MOST_FLOATS], counts[MOST_FLOATS];
} choice_scene;

static float draw_score(random_state *random, bool wild)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    if (wild && random_between(random, 0, 9) == 0)
        return odd[random_between(random, 0, COUNT(odd) - 1)];
    if (random_between(random, 0, 1))
        return (float)random_between(random, -3, 3); /* many are equal */
    return random_float(random, -6, 6);
}

static void draw_choice(choice_scene *s, int64_t rows, int64_t columns, bool wild, random_state *random)
{
    fa_select_desc *d = &s->desc;
    *d = (fa_select_desc){.struct_size = sizeof(*d),
                          .shape = draw_shape(random, rows, columns),
                          .batch = random_between(random, 1, 2),
                          .heads = 2 * random_between(random, 1, 2),
                          .visible = (int32_t)random_between(random, 0, 1),
                          .list_rows = random_between(random, 1, 3),
                          .list_heads = random_between(random, 1, 2),
                          .width = random_between(random, 0, 1) * random_between(random, 1, columns + 3),
                          .want_mask = (int32_t)random_between(random, 0, 1),
                          .want_counts = (int32_t)random_between(random, 0, 1)};
    d->first = random_between(random, 0, 2);
    d->own = random_between(random, 0, 2);
    s->rows = rows;
    s->columns = columns;
    s->lists = blocks_of(rows, d->list_rows);
    s->lines = d->batch * d->heads / d->list_heads;
    ck_assert(d->batch * d->heads * rows * columns <= MOST_FLOATS);
    for (int64_t i = 0; i < d->batch * d->heads * rows * columns; i++)
        s->scores[i] = draw_score(random, wild);
    for (int64_t i = 0; i < d->batch * rows; i++)
        s->visible[i] = (int32_t)random_between(random, -2, columns + 2);
}

/* The columns that a row sees and its own. */
static int64_t row_sees(const choice_scene *s, int64_t batch, int64_t r, int64_t *own)
{
    const fa_select_desc *d = &s->desc;
    const int64_t position = last_of(&d->shape, r);
    *own = position < 0 ? -1 : position / d->shape.block_keys;
    if (!d->visible)
        return seen_by(&d->shape, r);
    int64_t seen = s->visible[batch * s->rows + r];
    seen = seen < 0 ? 0 : seen > s->columns ? s->columns : seen;
    *own = seen - 1;
    return seen;
}

/* The order of the row at hand. */
static const float *its_scores;
static const bool *its_forced;

static int better_first(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const float x = its_scores[i], y = its_scores[j];
    if (its_forced[i] != its_forced[j])
        return its_forced[i] ? -1 : 1;
    if (!its_forced[i] && isnan(x) != isnan(y))
        return isnan(x) ? 1 : -1;
    if (!its_forced[i] && x != y && !isnan(x))
        return x > y ? -1 : 1;
    return i < j ? -1 : 1;
}

/* Its weight in the row's softmax. */
static double weight_of(const float *scores, int64_t seen, int64_t column)
{
    double most = -INFINITY, sum = 0;
    for (int64_t c = 0; c < seen; c++)
        most = (double)scores[c] > most ? (double)scores[c] : most;
    for (int64_t c = 0; c < seen && most > -INFINITY; c++)
        sum += (double)scores[c] == most ? 1 : isnan(scores[c]) ? 0 : exp((double)scores[c] - most);
    if (isnan(scores[column]) || sum == 0)
        return 0;
    return ((double)scores[column] == most ? 1 : exp((double)scores[column] - most)) / sum;
}

/* How many of the best a row takes; *most is more where rounding may decide. */
static int64_t row_takes(const fa_select_desc *d, const int32_t *order, const float *scores, int64_t seen,
                         int64_t *most)
{
    int64_t forced = 0, least = 0;
    double sum = 0;
    *most = d->topk < seen ? d->topk : seen;
    if (d->topk > 0)
        return *most;
    while (forced < seen && its_forced[order[forced]])
        forced++;
    for (*most = 0; *most < seen && sum < d->threshold + 1e-6; (*most)++) {
        const double weight = weight_of(scores, seen, order[*most]);
        if (weight < 1e-8 && *most >= forced && sum > d->threshold - 1e-6)
            break;
        least += sum < d->threshold - 1e-6;
        sum += weight;
    }
    if (sum == 0)
        least = *most = 0;
    *most = *most > forced ? *most : forced;
    return least > forced ? least : forced;
}

/* Whether the row's choice holds: `made` of a list that is its own. For others it is added to what the list should have. */
static void choose_row(choice_scene *s, int64_t line, int64_t head, int64_t r, bool *list)
{
    static int32_t order[MOST_FLOATS];
    static bool forced[MOST_FLOATS];
    const fa_select_desc *d = &s->desc;
    const float *scores = s->scores + (head * s->rows + r) * s->columns;
    int64_t own, most, seen = row_sees(s, line / (d->heads / d->list_heads), r, &own);
    for (int64_t c = 0; c < seen; c++) {
        order[c] = (int32_t)c;
        forced[c] = c < d->first || (c <= own && c > own - d->own);
    }
    its_scores = scores;
    its_forced = forced;
    qsort(order, (size_t)seen, sizeof(order[0]), better_first);
    const int64_t takes = row_takes(d, order, scores, seen, &most);
    for (int64_t n = 0; n < takes; n++)
        list[order[n]] = true;
    if (d->topk > 0 || d->list_rows * d->list_heads > 1)
        return;
    const uint32_t *bits = s->bits + (line * s->lists + r) * blocks_of(s->columns, 32);
    for (int64_t n = takes; n < most && (bits[order[n] / 32] >> (order[n] % 32) & 1); n++)
        list[order[n]] = true;
}

static void run_choice(choice_scene *s)
{
    const fa_select_desc *d = &s->desc;
    fa_select *select;
    memset(s->bits, 0xab, sizeof(s->bits));
    memset(s->mask, 0xab, sizeof(s->mask));
    memset(s->indices, 0xab, sizeof(s->indices));
    const fa_select_args args = {.struct_size = sizeof(args),
                                 .scores = upload(s->scores, sizeof(s->scores)),
                                 .bits = upload(s->bits, sizeof(s->bits)),
                                 .mask = d->want_mask ? upload(s->mask, sizeof(s->mask)) : NULL,
                                 .indices = d->width ? upload(s->indices, sizeof(s->indices)) : NULL,
                                 .counts = d->want_counts ? make_buffer(sizeof(s->counts)) : NULL,
                                 .visible = d->visible ? upload(s->visible, sizeof(s->visible)) : NULL};
    succeed(fa_select_create(device, d, &select));
    succeed(fa_select_run(select, queue, &args));
    succeed(fa_buffer_read(queue, args.bits, 0, s->bits, sizeof(s->bits)));
    if (d->want_mask)
        succeed(fa_buffer_read(queue, args.mask, 0, s->mask, sizeof(s->mask)));
    if (d->width)
        succeed(fa_buffer_read(queue, args.indices, 0, s->indices, sizeof(s->indices)));
    if (d->want_counts)
        succeed(fa_buffer_read(queue, args.counts, 0, s->counts, sizeof(s->counts)));
    fa_select_destroy(select);
    destroy_all(
        (fa_buffer *const[]){args.scores, args.bits, args.mask, args.indices, args.counts, args.visible}, 6);
}

/* All forms of a list, of which this is the number, hold these columns. */
static void check_list(const choice_scene *s, int64_t list, const bool *columns)
{
    const int64_t words = blocks_of(s->columns, 32), width = s->desc.width;
    int32_t count = 0;
    for (int64_t c = 0; c < 32 * words; c++) {
        const bool has = c < s->columns && columns[c];
        ck_assert_msg((s->bits[list * words + c / 32] >> (c % 32) & 1) == has,
                      "list %lld, column %lld: expected %d", (long long)list, (long long)c, has);
        if (s->desc.want_mask && c < s->columns)
            ck_assert_int_eq(s->mask[list * s->columns + c], has);
        if (has && count < width)
            ck_assert_int_eq(s->indices[list * width + count], c);
        count += has;
    }
    for (int64_t n = count; n < width; n++)
        ck_assert_int_eq(s->indices[list * width + n], -1);
    if (s->desc.want_counts)
        ck_assert_int_eq(s->counts[list], count);
}

static void check_choice(choice_scene *s)
{
    const fa_select_desc *d = &s->desc;
    run_choice(s);
    for (int64_t list = 0; list < s->lines * s->lists; list++) {
        const int64_t line = list / s->lists, first = list % s->lists * d->list_rows;
        memset(s->chosen, 0, sizeof(s->chosen));
        for (int64_t h = line * d->list_heads; h < (line + 1) * d->list_heads; h++) {
            for (int64_t r = first; r < first + d->list_rows && r < s->rows; r++)
                choose_row(s, line, h, r, s->chosen);
        }
        check_list(s, list, s->chosen);
    }
}

/* Few best by one work-item, more by many. */
START_TEST(best)
{
    static choice_scene s;
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 2 : 24); n++) {
        const bool few = n % 2;
        draw_choice(&s, random_between(&random, 1, 9), random_between(&random, 1, few ? 80 : 500), true,
                    &random);
        s.desc.topk = few ? random_between(&random, 4, 16) : random_between(&random, 17, 300);
        check_choice(&s);
    }
}
END_TEST

/* Lists of fewer rows than a work-group takes at once, of as many, of more, and of more than it has work-items. */
START_TEST(many_rows)
{
    static const int64_t list_rows[] = {15, 16, 17, 40, 70};
    static choice_scene s;
    random_state random = {(uint64_t)_i + 1};
    for (size_t n = 0; device && n < (slow ? 2 : COUNT(list_rows)); n++) {
        draw_choice(&s, random_between(&random, 60, 90), random_between(&random, 1, 80), true, &random);
        s.desc.topk = random_between(&random, 4, 16);
        s.desc.list_rows = list_rows[slow ? 2 * n + (size_t)_i : n];
        s.desc.list_heads = 2;
        s.lists = blocks_of(s.rows, s.desc.list_rows);
        s.lines = s.desc.batch * s.desc.heads / 2;
        check_choice(&s);
    }
}
END_TEST

/* A list for each row alone, as rounding may decide of more or less. */
START_TEST(thresholds)
{
    static choice_scene s;
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 2 : 24); n++) {
        draw_choice(&s, random_between(&random, 1, 9), random_between(&random, 1, 300), n % 2, &random);
        s.desc.list_rows = s.desc.list_heads = 1;
        s.lists = s.rows;
        s.lines = s.desc.batch * s.desc.heads;
        s.desc.threshold = n % 3 ? 0.01 * (double)random_between(&random, 1, 99) : 1;
        check_choice(&s);
    }
}
END_TEST

/* What is next to nothing is still more than nothing: the best alone, unless nothing has a weight. */
START_TEST(least_threshold)
{
    static const double least[] = {1e-6, 1e-40, 1e-300};
    static choice_scene s;
    for (int n = 0; device && n < COUNT(least); n++) {
        s.desc = (fa_select_desc){.struct_size = sizeof(s.desc),
                                  .shape = {.rows = 2, .keys = 5, .block_rows = 1, .block_keys = 1},
                                  .batch = 1,
                                  .heads = 1,
                                  .threshold = least[n],
                                  .list_rows = 1,
                                  .list_heads = 1,
                                  .want_counts = 1};
        s.rows = s.lists = 2;
        s.lines = 1;
        s.columns = 5;
        for (int i = 0; i < 5; i++) {
            s.scores[i] = (float)(i * i % 5);
            s.scores[5 + i] = i % 2 ? NAN : -INFINITY;
        }
        run_choice(&s);
        ck_assert_uint_eq(s.bits[0], 1 << 2);
        ck_assert_uint_eq(s.bits[1], 0);
        ck_assert_int_eq(s.counts[0], 1);
    }
}
END_TEST

/* A row of many columns, of which 2048 are chosen. */
START_TEST(long_row)
{
    enum { COLUMNS = 50000 };
    static choice_scene s;
    random_state random = {(uint64_t)_i + 1};
    if (!device)
        return;
    s.desc = (fa_select_desc){.struct_size = sizeof(s.desc),
                              .shape = {.rows = 1, .keys = COLUMNS, .block_rows = 1, .block_keys = 1},
                              .batch = 1,
                              .heads = 1,
                              .topk = 2048,
                              .list_rows = 1,
                              .list_heads = 1,
                              .width = 2048};
    s.rows = s.lists = s.lines = 1;
    s.columns = COLUMNS;
    for (int i = 0; i < COLUMNS; i++)
        s.scores[i] = _i ? random_float(&random, 0, 1) : 1.0f;
    check_choice(&s);
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
    tcase_add_loop_test(tc, best, 0, slow ? 2 : 8);
    tcase_add_loop_test(tc, many_rows, 0, slow ? 2 : 4);
    tcase_add_loop_test(tc, thresholds, 0, slow ? 2 : 8);
    tcase_add_test(tc, least_threshold);
    tcase_add_loop_test(tc, long_row, 0, 2);
    return run_on_backend(suite);
}
