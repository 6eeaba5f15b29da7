/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Native sparse attention on a backend, whose name is the argument: its lists and its output against the definition, computed here in
 * double, row by row and key by key.
 */
#include <fastattn/nsa.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

enum { NSA_ROWS = 50, NSA_KEYS = 150, MOST_KERNEL = 12, MOST_BLOCKS = NSA_KEYS };

typedef struct scene {
    fa_nsa_select_desc select;
    fa_nsa_compress_desc compress;
    int64_t compressed, window; /* how many there are, and keys */
    float weights[MOST_HEADS * MOST_KERNEL], positions[MOST_HEADS * MOST_KERNEL * DIM];
    float q[MOST_HEADS * NSA_ROWS * DIM], k[MOST_HEADS * NSA_KEYS * DIM], v[MOST_HEADS * NSA_KEYS * DIM],
        compressed_k[MOST_HEADS * NSA_KEYS * DIM], compressed_v[MOST_HEADS * NSA_KEYS * DIM],
        gates[NSA_ROWS * MOST_HEADS * 3], o[MOST_HEADS * NSA_ROWS * DIM];
    double exact_k[MOST_HEADS * NSA_KEYS * DIM], exact_v[MOST_HEADS * NSA_KEYS * DIM];
    bool chosen[MOST_HEADS * NSA_ROWS * MOST_BLOCKS]; /* of KV heads */
} scene;

static scene s;

static void draw(float *x, int64_t count, float low, float high, random_state *random)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = random_float(random, low, high);
}

static void draw_scene(random_state *random)
{
    static const int32_t blocks[] = {4, 8, 20};
    const int64_t heads_kv = random_between(random, 1, 2), rows = random_between(random, 1, NSA_ROWS);
    memset(&s, 0, sizeof(s));
    s.select = (fa_nsa_select_desc){.struct_size = sizeof(s.select),
                                    .shape = {.rows = rows,
                                              .keys = random_between(random, 0, 5)
                                                          ? random_between(random, rows, NSA_KEYS)
                                                          : random_between(random, 1, 20),
                                              .block_keys = blocks[random_between(random, 0, 2)],
                                              .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT},
                                    .heads_q = heads_kv * random_between(random, 1, MOST_HEADS / 2),
                                    .heads_kv = heads_kv,
                                    .dim = DIM,
                                    .q = s.q,
                                    .compressed = s.compressed_k,
                                    .kernel = 4 * (int32_t)random_between(random, 1, 3),
                                    .stride = 4,
                                    .topk = random_between(random, 3, 6),
                                    .first = random_between(random, 0, 1) ? -1 : 1,
                                    .local = random_between(random, 0, 1) ? 2 : 1};
    s.compress = (fa_nsa_compress_desc){.struct_size = sizeof(s.compress),
                                        .heads = heads_kv,
                                        .keys = s.select.shape.keys,
                                        .dim = DIM,
                                        .kernel = s.select.kernel,
                                        .stride = s.select.stride,
                                        .weights = random_between(random, 0, 1) ? s.weights : NULL,
                                        .positions = random_between(random, 0, 1) ? s.positions : NULL};
    s.window = random_between(random, 1, 40);
    draw(s.q, COUNT(s.q), -2, 2, random);
    draw(s.k, COUNT(s.k), -2, 2, random);
    draw(s.v, COUNT(s.v), -2, 2, random);
    draw(s.gates, COUNT(s.gates), 0, 1, random);
    draw(s.weights, COUNT(s.weights), 0, 0.25f, random);
    draw(s.positions, COUNT(s.positions), -1, 1, random);
}

/* Compressed keys c * stride to c * stride + kernel - 1, in double. */
static void compress_exactly(const float *x, double *to)
{
    const fa_nsa_compress_desc *d = &s.compress;
    s.compressed = 0;
    while (s.compressed * d->stride + d->kernel <= d->keys)
        s.compressed++;
    for (int64_t i = 0; i < d->heads * s.compressed * DIM; i++) {
        const int64_t n = i % DIM, c = i / DIM % s.compressed, head = i / DIM / s.compressed;
        to[i] = 0;
        for (int64_t t = 0; t < d->kernel; t++) {
            const double weight = d->weights ? (double)d->weights[head * d->kernel + t] : 1.0 / d->kernel;
            const double position = d->positions ? (double)d->positions[(head * d->kernel + t) * DIM + n] : 0;
            to[i] += weight * ((double)x[(head * d->keys + c * d->stride + t) * DIM + n] + position);
        }
    }
}

static void compress_scene(void)
{
    compress_exactly(s.k, s.exact_k);
    compress_exactly(s.v, s.exact_v);
    ck_assert_int_eq(fa_nsa_compressed(s.compress.keys, s.compress.kernel, s.compress.stride), s.compressed);
    s.compress.x = s.k;
    s.compress.compressed = s.compressed_k;
    ck_assert_int_eq(fa_nsa_compress(&s.compress), FA_OK);
    s.compress.x = s.v;
    s.compress.compressed = s.compressed_v;
    ck_assert_int_eq(fa_nsa_compress(&s.compress), FA_OK);
    for (int64_t i = 0; i < s.compress.heads * s.compressed * DIM; i++)
        ck_assert(fabs((double)s.compressed_k[i] - s.exact_k[i]) <= ldexp(fabs(s.exact_k[i]) + 1, -23));
}

static double product(const float *q, const double *k)
{
    double sum = 0;
    for (int n = 0; n < DIM; n++)
        sum += (double)q[n] * k[n];
    return sum / 4; /* the scale of 16 dims */
}

/* Adds gate times the softmax over the keys that `sees` shows. Weights go to `weight` where it is not NULL. */
static void attend(const float *q, const double *k, const double *v, const bool *sees, int64_t keys,
                   double gate, double *o, double *weight)
{
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++)
        most = sees[j] ? fmax(most, product(q, k + j * DIM)) : most;
    for (int64_t j = 0; j < keys; j++)
        sum += sees[j] ? exp(product(q, k + j * DIM) - most) : 0;
    for (int64_t j = 0; j < keys; j++) {
        const double w = sees[j] ? exp(product(q, k + j * DIM) - most) / sum : 0;
        if (weight)
            weight[j] = w;
        for (int n = 0; n < DIM; n++)
            o[n] += sees[j] ? gate * w * v[j * DIM + n] : 0;
    }
}

/* How many tokens compressed key c and a block have in common. */
static int64_t overlap(int64_t c, int64_t block)
{
    const int64_t size = s.select.shape.block_keys, from = c * s.select.stride, begin = block * size;
    int64_t count = 0;
    for (int64_t t = from; t < from + s.select.kernel; t++)
        count += t >= begin && t < begin + size;
    return count;
}

static int64_t position(int64_t row)
{
    return row + s.select.shape.keys - s.select.shape.rows;
}

/* Whether a row sees compressed keys: their last token is not behind it. */
static void see_compressed(int64_t row, bool *sees)
{
    for (int64_t c = 0; c < s.compressed; c++)
        sees[c] = c * s.select.stride + s.select.kernel - 1 <= position(row);
}

static void choose_exactly(int64_t head, int64_t row, bool *chosen)
{
    const fa_nsa_select_desc *d = &s.select;
    const int64_t group = d->heads_q / d->heads_kv, size = d->shape.block_keys;
    const int64_t blocks = (d->shape.keys + size - 1) / size,
                  own = position(row) < 0 ? -1 : position(row) / size;
    const int64_t first = d->first < 0 ? 0 : d->first;
    double importance[MOST_BLOCKS] = {0}, weight[NSA_KEYS], none[DIM];
    bool sees[NSA_KEYS];
    see_compressed(row, sees);
    for (int64_t h = head * group; h < (head + 1) * group; h++) {
        attend(s.q + (h * d->shape.rows + row) * DIM, s.exact_k + head * s.compressed * DIM, s.exact_v, sees,
               s.compressed, 0, none, weight);
        for (int64_t c = 0; c < s.compressed; c++) {
            for (int64_t b = 0; b < blocks; b++)
                importance[b] += weight[c] * (double)overlap(c, b) / d->stride;
        }
    }
    for (int64_t b = 0; b < blocks; b++) {
        int64_t before = first + d->local;
        for (int64_t other = first; other <= own - d->local; other++)
            before += importance[other] > importance[b] || (importance[other] == importance[b] && other < b);
        chosen[b] = b <= own && (own + 1 <= d->topk || b < first || b > own - d->local || before < d->topk);
    }
}

static void check_lists(const fa_block_lists *l)
{
    ck_assert_int_eq(l->heads, s.select.heads_kv);
    ck_assert_int_eq(l->block_rows, 1);
    for (int64_t i = 0; i < l->heads * s.select.shape.rows; i++) {
        const int64_t head = i / s.select.shape.rows, row = i % s.select.shape.rows;
        bool *chosen = s.chosen + i * MOST_BLOCKS;
        choose_exactly(head, row, chosen);
        for (int64_t b = 0; b < l->key_blocks; b++)
            ck_assert_msg(list_has(l, 0, head, row, b) == chosen[b], "head %lld, row %lld, block %lld",
                          (long long)head, (long long)row, (long long)b);
    }
}

static void widen(const float *from, double *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = (double)from[i];
}

/*
 * Each branch may be off by what other tests allow one attention, 4e-6. Compressed keys are off by 2^-23 at most, their scores by
 * 16 * 2 * 2^-23 / 4 = 1e-6, and what these weigh, values up to 2 or 3 of them in all, by 6e-6.
 */
static void check_output(void)
{
    const int64_t rows = s.select.shape.rows, keys = s.select.shape.keys,
                  group = s.select.heads_q / s.select.heads_kv;
    static double k[COUNT(s.k)], v[COUNT(s.v)];
    widen(s.k, k, COUNT(s.k));
    widen(s.v, v, COUNT(s.v));
    for (int64_t i = 0; i < s.select.heads_q * rows; i++) {
        const int64_t head = i / rows, row = i % rows, kv = head / group, p = position(row);
        const float *q = s.q + i * DIM, *gate = s.gates + (row * s.select.heads_q + head) * 3;
        const bool *chosen = s.chosen + (kv * rows + row) * MOST_BLOCKS;
        double o[DIM] = {0};
        bool sees[NSA_KEYS];
        see_compressed(row, sees);
        attend(q, s.exact_k + kv * s.compressed * DIM, s.exact_v + kv * s.compressed * DIM, sees,
               s.compressed, (double)gate[0], o, NULL);
        for (int64_t j = 0; j < keys; j++)
            sees[j] = j <= p && chosen[j / s.select.shape.block_keys];
        attend(q, k + kv * keys * DIM, v + kv * keys * DIM, sees, keys, (double)gate[1], o, NULL);
        for (int64_t j = 0; j < keys; j++)
            sees[j] = j <= p && j > p - s.window;
        attend(q, k + kv * keys * DIM, v + kv * keys * DIM, sees, keys, (double)gate[2], o, NULL);
        for (int n = 0; n < DIM; n++)
            ck_assert_msg(fabs((double)s.o[i * DIM + n] - o[n]) <= 1.8e-5,
                          "head %lld, row %lld: %g, expected %g", (long long)head, (long long)row,
                          (double)s.o[i * DIM + n], o[n]);
    }
}

static fa_nsa_desc describe(const fa_attention_desc *attention)
{
    return (fa_nsa_desc){
        .struct_size = sizeof(fa_nsa_desc),
        .attention = attention,
        .compressed_k = fa_tensor_make(FA_F32, 1, s.select.heads_kv, s.compressed, DIM),
        .compressed_v = fa_tensor_make(FA_F32, 1, s.select.heads_kv, s.compressed, DIM),
        .kernel = s.select.kernel,
        .stride = s.select.stride,
        .block_keys = s.select.shape.block_keys,
        .window = s.window,
    };
}

static void schedule_on_device(const fa_nsa *nsa, const fa_block_lists *l, fa_buffer *work)
{
    const size_t lists = (size_t)(l->heads * l->row_blocks), count = (size_t)l->indptr[lists];
    const int32_t none = -1;
    const fa_device_lists given = {
        .struct_size = sizeof(given),
        .indptr = upload(l->indptr, (lists + 1) * sizeof(int32_t)),
        .indices = count > 0 ? upload(l->indices, count * sizeof(int32_t)) : upload(&none, sizeof(none)),
    };
    succeed(fa_nsa_schedule_device(nsa, queue, &given, work, 0));
    succeed(fa_queue_wait(queue));
    fa_buffer_destroy(given.indptr);
    fa_buffer_destroy(given.indices);
}

static void run_scene(const fa_block_lists *l, bool on_device)
{
    fa_attention_desc a =
        make_desc(1, s.select.heads_q, s.select.heads_kv, s.select.shape.rows, s.select.shape.keys, DIM);
    a.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    fa_nsa_desc d = describe(&a);
    const int32_t count = l->indptr[l->heads * l->row_blocks];
    d.index_count = !on_device ? 0 : count > 0 ? count : 1;
    fa_nsa *nsa;
    succeed(fa_nsa_create(device, &d, &nsa));
    const fa_nsa_args args = {.struct_size = sizeof(args),
                              .q = upload(s.q, sizeof(s.q)),
                              .k = upload(s.k, sizeof(s.k)),
                              .v = upload(s.v, sizeof(s.v)),
                              .o = make_buffer(sizeof(s.o)),
                              .compressed_k = upload(s.compressed_k, sizeof(s.compressed_k)),
                              .compressed_v = upload(s.compressed_v, sizeof(s.compressed_v)),
                              .gates = upload(s.gates, sizeof(s.gates)),
                              .workspace = make_buffer(fa_nsa_workspace(nsa)),
                              .work = make_buffer(fa_nsa_work(nsa))};
    if (on_device)
        schedule_on_device(nsa, l, args.work);
    else
        succeed(fa_nsa_schedule(nsa, queue, l, args.work, 0));
    succeed(fa_nsa_run(nsa, queue, &args));
    succeed(fa_buffer_read(queue, args.o, 0, s.o, sizeof(s.o)));
    fa_buffer *const all[] = {
        args.q,     args.k,         args.v,   args.o, args.compressed_k, args.compressed_v,
        args.gates, args.workspace, args.work};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_nsa_destroy(nsa);
}

START_TEST(as_defined)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 1 : 12); n++) {
        fa_block_mask *mask;
        draw_scene(&random);
        compress_scene();
        succeed(fa_nsa_select(context, &s.select, &mask));
        const fa_block_lists l = lists_of(mask);
        check_lists(&l);
        run_scene(&l, random_between(&random, 0, 1));
        check_output();
        fa_block_mask_destroy(mask);
    }
}
END_TEST

/* 16 blocks of 64: the first, the last two, the twelve that weigh most, and the lowest of those that follow. */
START_TEST(nsa_defaults)
{
    enum { KEYS = 64 * 40 };
    static float k[KEYS];
    const float one = 1;
    fa_block_mask *mask;
    ck_assert_int_eq(fa_nsa_compressed(KEYS, 0, 0), KEYS / 16 - 1);
    for (int i = 0; i < KEYS / 16 - 1; i++)
        k[i] = (float)(i / 4 % 3); /* blocks by the third */
    const fa_nsa_select_desc d = {.struct_size = sizeof(d),
                                  .shape = {.rows = 1, .keys = KEYS, .mask = FA_MASK_CAUSAL_BOTTOM_RIGHT},
                                  .heads_q = 1,
                                  .heads_kv = 1,
                                  .dim = 1,
                                  .q = &one,
                                  .compressed = k};
    succeed(fa_nsa_select(context, &d, &mask));
    const fa_block_lists l = lists_of(mask);
    ck_assert_int_eq(l.block_rows, 1);
    ck_assert_int_eq(l.block_keys, 64);
    ck_assert_int_eq(l.indptr[1], 16);
    for (int i = 0; i < 40; i++)
        ck_assert_int_eq(list_has(&l, 0, 0, 0, i), i < 2 || i % 3 == 2 || i >= 38);
    fa_block_mask_destroy(mask);
}
END_TEST

#define REFUSED(call, expected, part)             \
    do {                                          \
        ck_assert_int_eq((call), expected);       \
        assert_message(part);                     \
        s.select = select, s.compress = compress; \
    } while (0)
#define SELECT fa_nsa_select(context, &s.select, &mask)
#define COMPRESS fa_nsa_compress(&s.compress)

START_TEST(planners_refuse)
{
    random_state random = {3};
    fa_block_mask *mask;
    draw_scene(&random);
    s.compress.x = s.k;
    s.compress.compressed = s.compressed_k;
    s.select.kernel = s.compress.kernel = 8;
    s.select.shape.keys = s.compress.keys = 100;
    s.select.shape.block_keys = 8;
    const fa_nsa_select_desc select = s.select;
    const fa_nsa_compress_desc compress = s.compress;
    s.compress.kernel = 6;
    REFUSED(COMPRESS, FA_INVALID, "kernel is 6, expected a multiple of stride, 4");
    s.compress.stride = -1;
    REFUSED(COMPRESS, FA_INVALID, "stride is -1");
    s.compress.heads = 0;
    REFUSED(COMPRESS, FA_INVALID, "heads is 0");
    s.compress.keys = 0;
    REFUSED(COMPRESS, FA_INVALID, "keys is 0");
    s.compress.x = NULL;
    REFUSED(COMPRESS, FA_INVALID, "x is NULL");
    s.compress.compressed = NULL;
    REFUSED(COMPRESS, FA_INVALID, "compressed is NULL");
    s.select.shape.mask = FA_MASK_NONE;
    REFUSED(SELECT, FA_INVALID, "shape.mask is 0, expected a causal mask");
    s.select.shape.block_keys = 10;
    REFUSED(SELECT, FA_INVALID, "shape.block_keys is 10, expected a multiple of stride, 4");
    s.select.compressed = NULL;
    REFUSED(SELECT, FA_INVALID, "compressed is NULL");
    s.select.q = NULL;
    REFUSED(SELECT, FA_INVALID, "q is NULL");
    s.select.heads_q = 0;
    REFUSED(SELECT, FA_INVALID, "heads_q is 0");
    s.select.topk = -2;
    REFUSED(SELECT, FA_INVALID, "topk is -2");
    s.select.first = -2;
    REFUSED(SELECT, FA_INVALID, "first is -2");
    s.select.local = 9;
    REFUSED(SELECT, FA_INVALID, "local 9, expected together at most topk");
    s.select.scale = NAN;
    REFUSED(SELECT, FA_INVALID, "scale is");
    for (int n = 0; n < 6; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(SELECT, FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
    ck_assert_int_eq(fa_nsa_compressed(100, 6, 4), 0);
    ck_assert_int_eq(fa_nsa_compressed(7, 8, 4), 0);
    ck_assert_int_eq(fa_nsa_compressed(INT64_MIN, 8, 4), 0);
    ck_assert_int_eq(fa_nsa_compressed((int64_t)FA_MAX_LENGTH + 1, 8, 4), 0);
}
END_TEST

#undef REFUSED
#define REFUSED(expected, part)                                       \
    do {                                                              \
        fa_nsa *made = (void *)&d;                                    \
        ck_assert_int_eq(fa_nsa_create(device, &d, &made), expected); \
        assert_message(part);                                         \
        ck_assert_ptr_null(made);                                     \
        a = good;                                                     \
        d = describe(&a);                                             \
    } while (0)

START_TEST(objects_refuse)
{
    random_state random = {4};
    if (!device)
        return;
    draw_scene(&random);
    compress_scene();
    fa_attention_desc good =
        make_desc(1, s.select.heads_q, s.select.heads_kv, s.select.shape.rows, s.select.shape.keys, DIM);
    good.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    fa_attention_desc a = good;
    fa_nsa_desc d = describe(&a);
    const float sinks[MOST_HEADS] = {0};
    a.mask = FA_MASK_NONE;
    REFUSED(FA_UNSUPPORTED, "attention->mask is 0, expected 2");
    a.window_left = 5;
    REFUSED(FA_UNSUPPORTED, "attention->window_left is 5");
    a.sinks = sinks;
    REFUSED(FA_UNSUPPORTED, "attention->sinks is given");
    a.want_lse = 1;
    REFUSED(FA_UNSUPPORTED, "attention->want_lse is 1");
    a.q.shape[0] = 2;
    REFUSED(FA_INVALID, "attention->q.shape[0] is 2");
    a.scale = NAN;
    REFUSED(FA_INVALID, "scale is");
    d.stride = 3;
    REFUSED(FA_INVALID, "expected a multiple of stride, 3");
    d.window = -1;
    REFUSED(FA_INVALID, "window is -1");
    d.block_keys = -4;
    REFUSED(FA_INVALID, "block_keys is -4");
    d.index_count = -1;
    REFUSED(FA_INVALID, "selected: ");
    d.compressed_k.shape[2]++;
    REFUSED(FA_INVALID, "compressed: compressed_k.shape[2] is");
    d.compressed_k.shape[1] = 2 * s.select.heads_kv;
    REFUSED(FA_INVALID, "compressed: compressed_k.shape[1] is");
    d.compressed_v.dtype = FA_BF16;
    REFUSED(FA_INVALID, "compressed_v.dtype is bf16, expected f32");
    d.attention = NULL;
    REFUSED(FA_INVALID, "attention is NULL");
    fa_nsa *nsa;
    const fa_nsa_args args = {.struct_size = sizeof(args)};
    succeed(fa_nsa_create(device, &d, &nsa));
    ck_assert_int_eq(fa_nsa_run(nsa, queue, &args), FA_INVALID);
    assert_message("args.q is NULL");
    ck_assert_int_eq(fa_nsa_schedule(nsa, queue, NULL, NULL, 0), FA_INVALID);
    assert_message("lists is NULL");
    fa_nsa_destroy(nsa);
    fa_nsa_destroy(NULL);
    fa_status status = FA_OUT_OF_MEMORY;
    for (int n = 0; n < 200 && status != FA_OK; n++) {
        memory.fail_at = memory.calls + n;
        status = fa_nsa_create(device, &d, &nsa);
        memory.fail_at = -1;
    }
    ck_assert_int_eq(status, FA_OK);
    fa_nsa_destroy(nsa);
}
END_TEST

/* What a run writes shares no byte with what any of its branches reads, or what their sum does. */
START_TEST(memory_refused)
{
    random_state random = {4};
    if (!device)
        return;
    draw_scene(&random);
    s.select.shape.rows = s.select.shape.keys = s.compress.keys = 50;
    compress_scene();
    fa_attention_desc a = make_desc(1, s.select.heads_q, s.select.heads_kv, 50, 50, DIM);
    a.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    const fa_nsa_desc d = describe(&a);
    fa_nsa *nsa;
    succeed(fa_nsa_create(device, &d, &nsa));
    fa_buffer *read = make_buffer(sizeof(s.q) + fa_nsa_work(nsa)), *o = make_buffer(sizeof(s.o)),
              *workspace = make_buffer(fa_nsa_workspace(nsa) + fa_nsa_work(nsa) + sizeof(s.gates) +
                                       sizeof(s.compressed_k));
    const fa_nsa_args good = {.struct_size = sizeof(good),
                              .q = read,
                              .k = read,
                              .v = read,
                              .o = o,
                              .compressed_k = read,
                              .compressed_v = read,
                              .gates = read,
                              .workspace = workspace,
                              .work = read};
    fa_nsa_args bad[6] = {good, good, good, good, good, good};
    static const char *const message[] = {
        "args.workspace overlaps args.work",         "args.workspace overlaps args.gates",
        "args.workspace overlaps args.compressed_k", "args.o overlaps args.q",
        "args.o overlaps args.compressed_v",         "args.gates is NULL"};
    bad[0].work = workspace;
    bad[1].gates = workspace;
    bad[2].compressed_k = workspace;
    bad[3].q = o;
    bad[4].compressed_v = o;
    bad[5].gates = NULL;
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_nsa_run(nsa, queue, &bad[i]), FA_INVALID);
        assert_message(message[i]);
    }
    fa_buffer_destroy(read);
    fa_buffer_destroy(o);
    fa_buffer_destroy(workspace);
    fa_nsa_destroy(nsa);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("nsa");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, as_defined, 0, slow ? 2 : 6);
    tcase_add_test(tc, nsa_defaults);
    tcase_add_test(tc, planners_refuse);
    tcase_add_test(tc, objects_refuse);
    tcase_add_test(tc, memory_refused);
    return run_on_backend(suite);
}
