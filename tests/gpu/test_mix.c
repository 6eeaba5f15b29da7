/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that are weighted sums of others, on a backend, whose name is the argument: against sums in double precision. */
#include <fastattn/mix.h>
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { BATCH = 2, HEADS = 3, FROM = 9, TO = 7, LISTS = 30, ENTRIES = 300, MOST_DIM = 70, MOST = 8192 };

/* Rows with room between them, of both tensors in the order (batch, row, head, dim). */
typedef struct scene {
    fa_mix_desc desc;
    unsigned char from[MOST * sizeof(float)], to[MOST * sizeof(float)];
    int32_t offsets[LISTS + 1], rows[ENTRIES], places[LISTS];
    float weights[ENTRIES];
} scene;

static fa_tensor tensor_of(fa_dtype dtype, int64_t rows, int64_t dim)
{
    const int64_t pitch = dim + 3;
    return (fa_tensor){dtype, {BATCH, HEADS, rows, dim}, {HEADS * rows * pitch, pitch, HEADS * pitch, 1}};
}

static int64_t element_of(const fa_tensor *t, int64_t row)
{
    return row / t->shape[2] / t->shape[1] * t->stride[0] + row / t->shape[2] % t->shape[1] * t->stride[1] +
           row % t->shape[2] * t->stride[2];
}

static void make_scene(scene *s, fa_dtype from, fa_dtype to, int64_t dim, random_state *random)
{
    s->desc = (fa_mix_desc){.struct_size = sizeof(s->desc),
                            .from = tensor_of(from, FROM, dim),
                            .to = tensor_of(to, TO, dim),
                            .lists = LISTS,
                            .entries = ENTRIES,
                            .weighted = (int32_t)random_between(random, 0, 1),
                            .placed = (int32_t)random_between(random, 0, 1)};
    for (int64_t i = 0; i < MOST; i++) {
        const float x = random_float(random, -1, 1);
        fa_elements_store(from, s->from, i, &x, 1);
    }
    memset(s->to, 0x35, sizeof(s->to));
    /* A list of 130, which is three sums; then short ones, some of them empty. Then offsets that fall and rise too far. */
    s->offsets[0] = 0;
    for (int n = 1; n <= LISTS; n++)
        s->offsets[n] = n == 1 ? 130 : s->offsets[n - 1] + (int32_t)random_between(random, 0, 5);
    s->offsets[LISTS - 2] = -4;
    s->offsets[LISTS] = INT32_MAX;
    for (int n = 0; n < ENTRIES; n++) {
        s->rows[n] = (int32_t)random_between(random, 0, BATCH * HEADS * FROM - 1);
        s->weights[n] = random_float(random, -1, 1);
    }
    s->rows[3] = -1;
    s->rows[140] = BATCH * HEADS * FROM;
    for (int n = 0; n < LISTS; n++)
        s->places[n] = n;
    for (int n = LISTS - 1; n > 0; n--) {
        const int64_t other = random_between(random, 0, n);
        const int32_t place = s->places[n];
        s->places[n] = s->places[other];
        s->places[other] = place;
    }
    s->places[4] = -1;
    s->places[5] = BATCH * HEADS * TO;
}

/* Dim d of list n, and the sum of magnitudes. */
static double expected(const scene *s, int n, int64_t d, int *count, double *size)
{
    const fa_mix_desc *m = &s->desc;
    const int64_t begin = s->offsets[n] < 0 ? 0 : s->offsets[n], longest = m->longest ? m->longest : ENTRIES;
    int64_t end = s->offsets[n + 1] < ENTRIES ? s->offsets[n + 1] : ENTRIES;
    double sum = 0;
    *size = 0;
    *count = 0;
    end = end - begin > longest ? begin + longest : end;
    for (int64_t e = begin; e < end; e++) {
        if (s->rows[e] < 0 || s->rows[e] >= BATCH * HEADS * FROM)
            continue;
        const double x = (double)fa_element(m->from.dtype, s->from, element_of(&m->from, s->rows[e]) + d) *
                         (m->weighted ? (double)s->weights[e] : 1);
        sum += x;
        *size += fabs(x);
        (*count)++;
    }
    return sum;
}

static void run_scene(scene *s)
{
    const fa_mix_desc *d = &s->desc;
    fa_mix *mix;
    ck_assert_msg(fa_mix_create(device, d, &mix) == FA_OK, "%s", fa_last_error());
    fa_buffer *buffer[] = {upload(s->from, sizeof(s->from)),       upload(s->to, sizeof(s->to)),
                           upload(s->offsets, sizeof(s->offsets)), upload(s->rows, sizeof(s->rows)),
                           upload(s->weights, sizeof(s->weights)), upload(s->places, sizeof(s->places))};
    const fa_mix_args args = {.struct_size = sizeof(args),
                              .from = buffer[0],
                              .to = buffer[1],
                              .offsets = buffer[2],
                              .rows = buffer[3],
                              .weights = d->weighted ? buffer[4] : NULL,
                              .places = d->placed ? buffer[5] : NULL};
    ck_assert_msg(fa_mix_run(mix, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, buffer[1], 0, s->to, sizeof(s->to)), FA_OK);
    for (int n = 0; n < COUNT(buffer); n++)
        fa_buffer_destroy(buffer[n]);
    fa_mix_destroy(mix);
}

/*
 * A sum of n products, in runs of 64 and then of these: each product and each of at most 63 + n / 64 + 2 sums on the way of
 * a term is rounded by 2^-24 of it. Then the result is, to its type.
 */
static double tolerance(const fa_mix_desc *d, double value, double size, int count)
{
    const double last = d->to.dtype == FA_F32 ? 0x1p-24 : d->to.dtype == FA_F16 ? 0x1p-11 : 0x1p-8;
    const double subnormal = d->to.dtype == FA_F16 ? 0x1p-25 : 0;
    return size * 0x1p-24 * (66 + count / 64) * 1.01 + fabs(value) * last * 1.01 + subnormal;
}

static void check_scene(scene *s)
{
    const fa_mix_desc *d = &s->desc;
    run_scene(s);
    for (int n = 0; n < LISTS; n++) {
        const int32_t place = d->placed ? s->places[n] : n;
        if (place < 0 || place >= BATCH * HEADS * TO)
            continue;
        const int64_t at = element_of(&d->to, place);
        for (int64_t i = 0; i < d->to.shape[3]; i++) {
            int count;
            double size;
            const double y = expected(s, n, i, &count, &size),
                         x = (double)fa_element(d->to.dtype, s->to, at + i);
            ck_assert_msg(fabs(x - y) <= (count == 1 && !d->weighted && d->to.dtype == d->from.dtype
                                              ? 0
                                              : tolerance(d, y, size, count)),
                          "list %d of %d, dim %lld is %.9g, expected %.9g", n, count, (long long)i, x, y);
        }
        memset(s->to + at * (int64_t)fa_dtype_size(d->to.dtype), 0x35,
               (size_t)d->to.shape[3] * fa_dtype_size(d->to.dtype));
    }
    /* All else is as it was. */
    for (int i = 0; i < COUNT(s->to); i++)
        ck_assert_int_eq(s->to[i], 0x35);
}

START_TEST(mixes)
{
    static const struct {
        fa_dtype from, to;
        int64_t dim;
    } row[] = {{FA_F32, FA_F32, 67}, {FA_F16, FA_F16, 67}, {FA_BF16, FA_F32, 1}, {FA_F32, FA_BF16, 64}};
    static scene s;
    random_state random = {5};
    for (int i = 0; i < 4 * COUNT(row) && device; i++) {
        const int n = i % COUNT(row);
        if (slow && i % 5 != 1)
            continue;
        make_scene(&s, row[n].from, row[n].to, row[n].dim, &random);
        s.desc.longest = i % 3 == 0 ? 100 : 0;
        check_scene(&s);
    }
}
END_TEST

START_TEST(nothing)
{
    static scene s;
    random_state random = {5};
    if (!device)
        return;
    make_scene(&s, FA_F32, FA_F32, 8, &random);
    s.desc.lists = s.desc.entries = s.desc.placed = s.desc.weighted = 0;
    run_scene(&s);
    for (int i = 0; i < COUNT(s.to); i++)
        ck_assert_int_eq(s.to[i], 0x35);
}
END_TEST

/* A driver that ends long loops is asked before, whatever the dims are: else the sum is whole. */
START_TEST(long_loops)
{
    enum { WIDE = 2048, LONG = 6000 };
    static const int32_t offsets[] = {0, LONG}, rows[LONG];
    static float x[WIDE];
    fa_mix *mix = NULL;
    const fa_mix_desc d = {.struct_size = sizeof(d),
                           .from = fa_tensor_make(FA_F32, 1, 1, 1, WIDE),
                           .to = fa_tensor_make(FA_F32, 1, 1, 1, WIDE),
                           .lists = 1,
                           .entries = LONG};
    if (!device)
        return;
    for (int i = 0; i < WIDE; i++)
        x[i] = 1;
    if (fa_mix_create(device, &d, &mix) != FA_OK) {
        assert_message("longest is 6000 entries of 2048 dims, but");
        return;
    }
    const fa_mix_args args = {.struct_size = sizeof(args),
                              .from = upload(x, sizeof(x)),
                              .to = upload(x, sizeof(x)),
                              .offsets = upload(offsets, sizeof(offsets)),
                              .rows = upload(rows, sizeof(rows))};
    ck_assert_msg(fa_mix_run(mix, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.to, 0, x, sizeof(x)), FA_OK);
    for (int i = 0; i < WIDE; i++)
        ck_assert_float_eq(x[i], LONG);
    fa_buffer *const all[] = {args.from, args.to, args.offsets, args.rows};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
    fa_mix_destroy(mix);
}
END_TEST

#define REFUSED(status, part)                                      \
    do {                                                           \
        ck_assert_int_eq(fa_mix_create(device, &d, &mix), status); \
        assert_message(part);                                      \
        ck_assert_ptr_null(mix);                                   \
        d = good;                                                  \
    } while (0)

START_TEST(descriptions_refused)
{
    static scene s;
    random_state random = {5};
    fa_mix *mix;
    if (!device)
        return;
    make_scene(&s, FA_F32, FA_F32, 8, &random);
    const fa_mix_desc good = s.desc;
    fa_mix_desc d = good;
    ck_assert_int_eq(fa_mix_create(NULL, &d, &mix), FA_INVALID);
    ck_assert_int_eq(fa_mix_create(device, NULL, &mix), FA_INVALID);
    ck_assert_int_eq(fa_mix_create(device, &d, NULL), FA_INVALID);
    d.from.dtype = FA_Q8_0;
    REFUSED(FA_INVALID, "from.dtype is");
    d.to.stride[2] = -1;
    REFUSED(FA_INVALID, "to.stride[2] is -1");
    d.to.shape[3] = 7;
    REFUSED(FA_INVALID, "to.shape[3] is 7, expected 8");
    d.to.stride[1] = 0;
    REFUSED(FA_INVALID, "to.stride lets elements share memory");
    d.from = (fa_tensor){FA_F32, {1 << 20, 1 << 20, 1, 8}, {0, 0, 0, 1}};
    REFUSED(FA_UNSUPPORTED, "from.shape is 1048576 x 1048576 x 1");
    d.from = d.to = fa_tensor_make(FA_F32, 1, 1, 1, INT32_MAX);
    REFUSED(FA_UNSUPPORTED, "from.shape[3] is 2147483647");
    d.lists = -1;
    REFUSED(FA_INVALID, "lists is -1");
    d.entries = INT64_MAX;
    REFUSED(FA_INVALID, "entries is");
    d.longest = -1;
    REFUSED(FA_INVALID, "longest is -1");
    d.weighted = 2;
    REFUSED(FA_INVALID, "weighted is 2");
    d.placed = 2;
    REFUSED(FA_INVALID, "placed is 2");
    memory.fail_at = memory.calls;
    ck_assert_int_eq(fa_mix_create(device, &d, &mix), FA_OUT_OF_MEMORY);
    memory.fail_at = -1;
}
END_TEST

START_TEST(runs_refused)
{
    static scene s;
    random_state random = {5};
    fa_mix *mix;
    if (!device)
        return;
    make_scene(&s, FA_F32, FA_F32, 8, &random);
    s.desc.weighted = 1;
    s.desc.placed = 0;
    ck_assert_msg(fa_mix_create(device, &s.desc, &mix) == FA_OK, "%s", fa_last_error());
    fa_buffer *b = upload(s.from, sizeof(s.from)), *to = upload(s.to, sizeof(s.to));
    const fa_mix_args good = {
        .struct_size = sizeof(good), .from = b, .to = to, .offsets = b, .rows = b, .weights = b};
    fa_mix_args bad[5] = {good, good, good, good, good};
    static const char *const message[] = {"args.from is NULL", "args.places is given", "args.weights is NULL",
                                          "args.rows has", "args.to overlaps"};
    bad[0].from = NULL;
    bad[1].places = b;
    bad[2].weights = NULL;
    bad[3].rows_offset = sizeof(s.from) - 4;
    bad[4].rows = to;
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_mix_run(mix, queue, &bad[i]), FA_INVALID);
        assert_message(message[i]);
    }
    ck_assert_int_eq(fa_mix_run(mix, NULL, &good), FA_INVALID);
    ck_assert_int_eq(fa_mix_run(NULL, queue, &good), FA_INVALID);
    fa_buffer_destroy(b);
    fa_buffer_destroy(to);
    fa_mix_destroy(mix);
    fa_mix_destroy(NULL);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("mix");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, mixes);
    tcase_add_test(tc, nothing);
    tcase_add_test(tc, long_loops);
    tcase_add_test(tc, descriptions_refused);
    tcase_add_test(tc, runs_refused);
    return run_on_backend(suite);
}
