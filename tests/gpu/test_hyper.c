/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HyperAttention on a backend, whose name is the argument: against its own definition in double precision, from the same buckets
 * and samples, which is a softmax whose keys have weights. Beside it the error against dense attention, which is printed.
 */
#include <fastattn/hyper.h>
#include <fastattn/permute.h>
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/sparse/mask.h"
#include "tests/gpu/on_backend.h"

enum { BATCH = 2, HEADS_Q = 4, HEADS_KV = 2, DIM = 16, MOST = 220 };

typedef struct scene {
    fa_attention_desc attention;
    fa_hyper_desc desc;
    int64_t rows, keys;
    unsigned char q[BATCH * HEADS_Q * MOST * DIM * 4], k[BATCH * HEADS_KV * MOST * DIM * 4],
        v[BATCH * HEADS_KV * MOST * DIM * 4];
    int32_t bucket_q[BATCH * HEADS_Q * MOST], bucket_k[BATCH * HEADS_KV * MOST];
    float o[BATCH * HEADS_Q * MOST * DIM], lse[BATCH * HEADS_Q * MOST];
    double weight[MOST]; /* how often a row counts each key */
} scene;

static void draw_elements(fa_dtype dtype, unsigned char *to, int64_t count, random_state *random)
{
    for (int64_t i = 0; i < count; i++) {
        const float x = random_float(random, -2, 2);
        fa_elements_store(dtype, to, i, &x, 1);
    }
}

static void make_scene(scene *s, fa_dtype dtype, bool causal, int64_t rows, int64_t keys,
                       random_state *random)
{
    s->rows = rows;
    s->keys = keys;
    s->attention = make_desc(BATCH, HEADS_Q, HEADS_KV, rows, keys, DIM);
    s->attention.q.dtype = s->attention.k.dtype = s->attention.v.dtype = dtype;
    s->attention.mask = causal ? FA_MASK_CAUSAL_BOTTOM_RIGHT : FA_MASK_NONE;
    s->attention.want_lse = 1;
    s->desc = (fa_hyper_desc){.struct_size = sizeof(s->desc),
                              .attention = &s->attention,
                              .directions = 3,
                              .block = causal ? 16 : 64,
                              .sample = causal ? 8 : 24,
                              .min_seq = 40,
                              .seed = random_bits(random)};
    draw_elements(dtype, s->q, BATCH * HEADS_Q * rows * DIM, random);
    draw_elements(dtype, s->k, BATCH * HEADS_KV * keys * DIM, random);
    draw_elements(dtype, s->v, BATCH * HEADS_KV * keys * DIM, random);
}

static void hash_rows(const scene *s, const fa_tensor *of, const void *from, size_t bytes, int32_t *buckets)
{
    const fa_hash_desc d = {
        .struct_size = sizeof(d), .from = *of, .directions = s->desc.directions, .seed = s->desc.seed};
    const size_t count = (size_t)(of->shape[0] * of->shape[1] * of->shape[2]) * sizeof(*buckets);
    fa_hash *hash;
    ck_assert_int_eq(fa_hash_create(device, &d, &hash), FA_OK);
    const fa_hash_args args = {
        .struct_size = sizeof(args), .from = upload(from, bytes), .buckets = upload(from, bytes)};
    ck_assert_int_eq(fa_hash_run(hash, queue, &args), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.buckets, 0, buckets, count), FA_OK);
    fa_buffer_destroy(args.from);
    fa_buffer_destroy(args.buckets);
    fa_hash_destroy(hash);
}

static void run_hyper(scene *s)
{
    fa_hyper *hyper;
    ck_assert_msg(fa_hyper_create(device, &s->desc, &hyper) == FA_OK, "%s", fa_last_error());
    fa_attention_args args = {.struct_size = sizeof(args),
                              .q = upload(s->q, sizeof(s->q)),
                              .k = upload(s->k, sizeof(s->k)),
                              .v = upload(s->v, sizeof(s->v)),
                              .o = upload(s->o, sizeof(s->o)),
                              .lse = upload(s->lse, sizeof(s->lse))};
    ck_assert_int_eq(fa_buffer_create(device, fa_hyper_workspace(hyper) + 1, &args.workspace), FA_OK);
    ck_assert_msg(fa_hyper_run(hyper, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, s->o, sizeof(s->o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.lse, 0, s->lse, sizeof(s->lse)), FA_OK);
    fa_buffer *const buffer[] = {args.q, args.k, args.v, args.o, args.lse, args.workspace};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
    fa_hyper_destroy(hyper);
    hash_rows(s, &s->attention.q, s->q, sizeof(s->q), s->bucket_q);
    hash_rows(s, &s->attention.k, s->k, sizeof(s->k), s->bucket_k);
}

/* Where number i of [first, last) is in their order. */
static int64_t place_of(const int32_t *bucket, int64_t first, int64_t last, int64_t i)
{
    int64_t place = 0;
    for (int64_t n = first; n < last; n++)
        place += bucket[n] < bucket[i] || (bucket[n] == bucket[i] && n < i);
    return place;
}

/* Rows [begin, end) of a level meet keys [first, last). Sequences and sizes of blocks are the level's. */
typedef struct meeting {
    int level;
    int64_t sequence, begin, end, first, last, longest_rows, longest_keys;
} meeting;

static void count_meeting(scene *s, const meeting *m, const int32_t *bucket_q, const int32_t *bucket_k,
                          int64_t row)
{
    const int64_t keys = m->last - m->first, blocks = m->longest_keys / s->desc.block;
    int64_t size = (m->longest_keys + (blocks > 0 ? blocks : 1) - 1) / (blocks > 0 ? blocks : 1);
    while (s->desc.block >= 64 && size % 64 != 0)
        size++;
    const int64_t size_q =
        (int64_t)floor((double)m->longest_rows * (double)size / (double)m->longest_keys + 0.5);
    const int64_t r = place_of(bucket_q, m->begin, m->end, row) / size_q, last = (keys - 1) / size,
                  own = r < last ? r : last;
    for (int64_t j = m->first; j < m->last; j++) {
        const int64_t place = place_of(bucket_k, m->first, m->last, j);
        if (place / size == own) {
            s->weight[j] += 1;
            continue;
        }
        for (int64_t i = 0; i < s->desc.sample; i++) {
            const uint64_t drawn = fa_sparse_random(s->desc.seed, ((uint64_t)1 << 32) + (uint64_t)m->level,
                                                    (uint64_t)m->sequence, (uint64_t)i);
            if ((int64_t)(drawn % (uint64_t)keys) == place)
                s->weight[j] += (double)keys / (double)s->desc.sample;
        }
    }
}

/* The pieces of a level, from the shortest numbers on: what is longer than min_seq falls into two. */
static int64_t cut_level(const scene *s, int level, int64_t *ends)
{
    int64_t count = 1;
    ends[0] = 0;
    ends[1] = s->rows;
    for (int l = 0; l < level; l++) {
        int64_t next[MOST + 1] = {0}, to = 0;
        for (int64_t n = 0; n < count; n++) {
            if (ends[n + 1] - ends[n] > s->desc.min_seq)
                next[++to] = ends[n] + (ends[n + 1] - ends[n]) / 2;
            next[++to] = ends[n + 1];
        }
        memcpy(ends, next, sizeof(next));
        count = to;
    }
    return count;
}

static void count_causal(scene *s, const int32_t *bucket_q, const int32_t *bucket_k, int64_t row)
{
    for (int level = 0;; level++) {
        int64_t ends[MOST + 1], sequence = 0;
        const int64_t count = cut_level(s, level, ends);
        meeting m = {.level = level, .sequence = -1};
        for (int64_t n = 0; n < count; n++, sequence++) {
            const int64_t begin = ends[n], size = ends[n + 1] - begin, half = size / 2;
            if (size > s->desc.min_seq) {
                m.longest_keys = half > m.longest_keys ? half : m.longest_keys;
                m.longest_rows = size - half > m.longest_rows ? size - half : m.longest_rows;
                sequence++;
                if (row >= begin + half && row < ends[n + 1]) {
                    m.sequence = sequence;
                    m.first = begin;
                    m.begin = m.last = begin + half;
                    m.end = ends[n + 1];
                }
            } else if (row >= begin && row < ends[n + 1]) {
                for (int64_t j = begin; j <= row; j++)
                    s->weight[j] = 1;
            }
        }
        if (m.longest_keys == 0)
            return;
        if (m.sequence >= 0)
            count_meeting(s, &m, bucket_q, bucket_k, row);
    }
}

/*
 * Holds a row to its definition. Of each score f32 may lose dim + 4 roundings of its products, and of sums one for each key. Kernels of
 * f16 and bf16 may round weights to that type.
 */
static void check_row(scene *s, int64_t line, int64_t row)
{
    const int64_t kv = line / (HEADS_Q / HEADS_KV);
    const meeting all = {.end = s->rows, .last = s->keys, .longest_rows = s->rows, .longest_keys = s->keys};
    const int32_t *bucket_q = s->bucket_q + line * s->rows, *bucket_k = s->bucket_k + kv * s->keys;
    memset(s->weight, 0, sizeof(s->weight));
    if (s->attention.mask != FA_MASK_NONE)
        count_causal(s, bucket_q, bucket_k, row);
    else
        count_meeting(s, &all, bucket_q, bucket_k, row);
    double sum = 0, o[DIM] = {0}, off = 0;
    for (int64_t j = 0; j < s->keys; j++) {
        double score = 0, size = 0;
        for (int64_t d = 0; d < DIM && s->weight[j] > 0; d++) {
            const double p =
                (double)fa_element(s->attention.q.dtype, s->q, (line * s->rows + row) * DIM + d) *
                (double)fa_element(s->attention.k.dtype, s->k, (kv * s->keys + j) * DIM + d);
            score += p;
            size += fabs(p);
        }
        off = fmax(off, (DIM + 4) * 0x1p-24 * size / sqrt(DIM) + 4 * 0x1p-24 * log(s->weight[j] + 1));
        const double w = s->weight[j] * exp(score / sqrt(DIM));
        sum += w;
        for (int64_t d = 0; d < DIM; d++)
            o[d] += w * (double)fa_element(s->attention.v.dtype, s->v, (kv * s->keys + j) * DIM + d);
    }
    const double each = 2 * off + 2 * (double)(s->keys + 16) * 0x1p-24;
    const double rounded = s->attention.v.dtype == FA_F16    ? 0x1p-11
                           : s->attention.v.dtype == FA_BF16 ? 0x1p-9
                                                             : 0;
    const double found = (double)s->lse[line * s->rows + row];
    ck_assert_msg(fabs(found - log(sum)) <= each * (1 + fabs(log(sum))),
                  "line %lld, row %lld: LSE is %.9g, expected %.9g", (long long)line, (long long)row, found,
                  log(sum));
    for (int64_t d = 0; d < DIM; d++) {
        const double x = (double)s->o[(line * s->rows + row) * DIM + d];
        ck_assert_msg(fabs(x - o[d] / sum) <= 2 * 2 * (each + rounded),
                      "line %lld, row %lld, dim %lld is %.9g, expected %.9g", (long long)line, (long long)row,
                      (long long)d, x, o[d] / sum);
    }
}

static scene s;

START_TEST(definition)
{
    static const struct {
        fa_dtype dtype;
        bool causal;
        int64_t rows, keys;
    } row[] = {{FA_F32, false, 150, 190},
               {FA_F32, true, 201, 201},
               {FA_F16, true, 120, 120},
               {FA_BF16, false, 200, 70},
               {FA_F32, true, 40, 40}};
    random_state random = {17};
    for (int i = 0; i < COUNT(row) && device; i++) {
        if (slow && i != 2) /* each plan compiles */
            continue;
        make_scene(&s, row[i].dtype, row[i].causal, row[i].rows, row[i].keys, &random);
        run_hyper(&s);
        for (int64_t n = 0; n < BATCH * HEADS_Q * s.rows; n++)
            check_row(&s, n / s.rows, n % s.rows);
    }
}
END_TEST

/* Rows, keys and values around a few centres each, so that a row gives most weight to its centre's keys. */
static void plant(random_state *random)
{
    unsigned char *const to[] = {s.q, s.k, s.v};
    const int64_t count[] = {BATCH * HEADS_Q * s.rows, BATCH * HEADS_KV * s.keys, BATCH * HEADS_KV * s.keys};
    float centre[2][8][DIM];
    for (int i = 0; i < 2 * 8 * DIM; i++)
        centre[i / DIM / 8][i / DIM % 8][i % DIM] = random_float(random, -2, 2);
    for (int n = 0; n < 3; n++) {
        for (int64_t i = 0; i < count[n] * DIM; i++) {
            const float x = centre[n / 2][i / DIM % 8][i % DIM] + random_float(random, -0.3f, 0.3f);
            fa_elements_store(FA_F32, to[n], i, &x, 1);
        }
    }
}

/* The error is of the data, and no promise: what is held is that it is less than half of what there is. */
START_TEST(error_of_planted)
{
    static double exact[BATCH * HEADS_Q * MOST * DIM];
    random_state random = {19};
    double off = 0, all = 0;
    if (!device || slow)
        return;
    make_scene(&s, FA_F32, false, MOST, MOST, &random);
    plant(&random);
    run_hyper(&s);
    ck_assert_int_eq(fa_reference_attention(context, &s.attention, &(fa_inputs){.q = s.q, .k = s.k, .v = s.v},
                                            exact, NULL),
                     FA_OK);
    for (int i = 0; i < COUNT(exact); i++) {
        off += ((double)s.o[i] - exact[i]) * ((double)s.o[i] - exact[i]);
        all += exact[i] * exact[i];
    }
    (void)printf("of planted clusters: relative error %.3g\n", sqrt(off / all));
    ck_assert(off < all / 4);
}
END_TEST

/* Where there is nothing to sort or to sample, it is the plan that is exact. */
START_TEST(without_rows_or_keys)
{
    static const int64_t sizes[][4] = {{1, 1, 8, 0}, {1, 1, 0, 8}, {0, 1, 8, 8}, {1, 0, 8, 8}};
    static const char space[1 << 14];
    float o[8 * DIM];
    for (int i = 0; i < COUNT(sizes) && device; i++) {
        const int64_t *n = sizes[i];
        const fa_attention_desc a = make_desc(n[0], n[1], n[1], n[2], n[3], DIM);
        const fa_hyper_desc d = {
            .struct_size = sizeof(d), .attention = &a, .block = 4, .sample = 4, .min_seq = 4};
        fa_hyper *hyper;
        ck_assert_msg(fa_hyper_create(device, &d, &hyper) == FA_OK, "%s", fa_last_error());
        memset(o, 0x35, sizeof(o));
        const fa_attention_args args = {.struct_size = sizeof(args),
                                        .q = upload(o, sizeof(o)),
                                        .k = upload(o, sizeof(o)),
                                        .v = upload(o, sizeof(o)),
                                        .o = upload(o, sizeof(o)),
                                        .workspace = upload(space, sizeof(space))};
        ck_assert_uint_le(fa_hyper_workspace(hyper), sizeof(space));
        ck_assert_msg(fa_hyper_run(hyper, queue, &args) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_buffer_read(queue, args.o, 0, o, sizeof(o)), FA_OK);
        for (int at = 0; at < COUNT(o) && i == 0; at++) /* rows that see no key */
            ck_assert_float_eq(o[at], 0);
        fa_buffer *const all[] = {args.q, args.k, args.v, args.o, args.workspace};
        for (int at = 0; at < COUNT(all); at++)
            fa_buffer_destroy(all[at]);
        fa_hyper_destroy(hyper);
    }
}
END_TEST

/* Each allocation in turn gets no memory; the fixture finds what is left behind. */
START_TEST(out_of_memory)
{
    random_state random = {17};
    fa_hyper *hyper;
    fa_status status = FA_OUT_OF_MEMORY;
    if (!device || slow)
        return;
    make_scene(&s, FA_F32, true, 90, 90, &random);
    for (int n = 0; n < 1000 && status == FA_OUT_OF_MEMORY; n++) {
        memory.fail_at = memory.calls + n;
        status = fa_hyper_create(device, &s.desc, &hyper);
        memory.fail_at = -1;
    }
    ck_assert_int_eq(status, FA_OK);
    fa_hyper_destroy(hyper);
}
END_TEST

START_TEST(refused)
{
    random_state random = {17};
    fa_hyper *hyper;
    if (!device)
        return;
    make_scene(&s, FA_F32, true, 90, 90, &random);
    const fa_attention_desc good = s.attention;
    const float slopes[HEADS_Q] = {1, 1, 1, 1};
    fa_attention_desc bad[4] = {good, good, good, good};
    bad[0].alibi_slopes = slopes;
    bad[1].window_left = 5;
    bad[2].q.shape[2] = bad[2].o.shape[2] = 80;
    bad[3].dynamic_lengths = 1;
    static const char *const message[] = {"attention has alibi", "attention->window_left is 5",
                                          "attention->mask is causal with 80 rows",
                                          "attention->dynamic_lengths is 1"};
    for (int i = 0; i < COUNT(bad); i++) {
        s.desc.attention = &bad[i];
        ck_assert_int_eq(fa_hyper_create(device, &s.desc, &hyper), FA_UNSUPPORTED);
        ck_assert_ptr_null(hyper);
        assert_message(message[i]);
    }
    s.desc.attention = &good;
    fa_hyper_desc wrong[4] = {s.desc, s.desc, s.desc, s.desc};
    wrong[0].directions = 17;
    wrong[1].block = -1;
    wrong[2].sample = -2;
    wrong[3].attention = NULL;
    static const char *const why[] = {"directions is 17", "block is -1", "sample is -2", "attention is NULL"};
    for (int i = 0; i < COUNT(wrong); i++) {
        ck_assert_int_eq(fa_hyper_create(device, &wrong[i], &hyper), FA_INVALID);
        assert_message(why[i]);
    }
    ck_assert_int_eq(fa_hyper_create(device, &s.desc, &hyper), FA_OK);
    const fa_attention_args args = {.struct_size = sizeof(args)};
    ck_assert_int_eq(fa_hyper_run(hyper, queue, &args), FA_INVALID);
    ck_assert_int_eq(fa_hyper_run(NULL, queue, &args), FA_INVALID);
    fa_hyper_destroy(hyper);
    fa_hyper_destroy(NULL);
    ck_assert_uint_eq(fa_hyper_workspace(NULL), 0);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("hyper");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, definition);
    tcase_add_test(tc, error_of_planted);
    tcase_add_test(tc, without_rows_or_keys);
    tcase_add_test(tc, out_of_memory);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
