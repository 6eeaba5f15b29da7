/* SPDX-License-Identifier: Apache-2.0 */
/* k-means on a backend and in host memory, against its definition. Elements are small whole numbers where results are exact. */
#include <fastattn/cluster.h>
#include <fastattn/reference.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { BATCH = 2, MOST_HEADS = 3, MOST_ROWS = 150, MOST_DIM = 20, MOST_CLUSTERS = 12 };
enum { ELEMENTS = BATCH * MOST_HEADS * MOST_ROWS * MOST_DIM, LINES = BATCH * MOST_HEADS };

typedef struct result {
    int32_t nearest[LINES * MOST_ROWS], counts[LINES * MOST_CLUSTERS];
    float centroids[LINES * MOST_CLUSTERS * MOST_DIM];
} result;

static fa_cluster_desc d;
static float x[ELEMENTS];        /* (batch, heads, rows, dim) */
static uint32_t words[ELEMENTS]; /* as the tensor has them: rows of a batch entry beside heads */
static result start, made, again;

static int64_t lines(void)
{
    return d.rows.shape[0] * d.rows.shape[1];
}

static size_t bytes_of_centroids(void)
{
    return (size_t)(lines() * d.clusters * d.rows.shape[3]) * sizeof(float);
}

static void describe(random_state *random)
{
    memset(&d, 0, sizeof(d));
    d.struct_size = sizeof(d);
    d.rows = fa_tensor_make((fa_dtype)random_between(random, FA_F32, FA_BF16), BATCH,
                            random_between(random, 1, MOST_HEADS), random_between(random, 1, MOST_ROWS),
                            random_between(random, 1, MOST_DIM));
    const int64_t *n = d.rows.shape;
    d.rows.stride[3] = 1;
    d.rows.stride[1] = n[3];
    d.rows.stride[2] = n[1] * n[3];
    d.rows.stride[0] = n[2] * d.rows.stride[2];
    d.clusters = random_between(random, 1, n[2] < MOST_CLUSTERS ? n[2] : MOST_CLUSTERS);
    d.seed = random_bits(random);
}

/* Writes x into the tensor. */
static void store(void)
{
    const int64_t *n = d.rows.shape;
    for (int64_t i = 0; i < lines() * n[2]; i++) {
        const int64_t row = i % n[2], head = i / n[2] % n[1], batch = i / n[2] / n[1];
        const int64_t at = (batch * n[2] + row) * n[1] + head;
        fa_elements_store(d.rows.dtype, words, at * n[3], x + i * n[3], n[3]);
    }
}

static void draw(random_state *random)
{
    describe(random);
    for (int64_t i = 0; i < ELEMENTS; i++)
        x[i] = (float)random_between(random, -4, 4);
    for (int i = 0; i < COUNT(start.centroids); i++)
        start.centroids[i] = (float)random_between(random, -4, 4);
    store();
}

static double distance(int64_t line, int64_t row, const float *centroid)
{
    double sum = 0;
    for (int64_t n = 0; n < d.rows.shape[3]; n++)
        sum += pow((double)x[(line * d.rows.shape[2] + row) * d.rows.shape[3] + n] - (double)centroid[n], 2);
    return sum;
}

static const float *centroid_of(const result *r, int64_t line, int64_t c)
{
    return r->centroids + (line * d.clusters + c) * d.rows.shape[3];
}

/* The first of the nearest of `from`. */
static void expect_nearest(const result *from, const result *got)
{
    for (int64_t i = 0; i < lines() * d.rows.shape[2]; i++) {
        const int64_t line = i / d.rows.shape[2], row = i % d.rows.shape[2];
        int64_t best = 0;
        for (int64_t c = 1; c < d.clusters; c++) {
            if (distance(line, row, centroid_of(from, line, c)) <
                distance(line, row, centroid_of(from, line, best)))
                best = c;
        }
        ck_assert_int_eq(got->nearest[i], best);
    }
}

/*
 * Counts, and means of the rows that `got` has in each cluster; an empty one as `from` has it. A sum of n terms in f32 is wrong by
 * (n - 1) u of their magnitudes at most, a quotient by 2.5 units in the last place, which are 5 u.
 */
static void expect_means(const result *from, const result *got)
{
    const int64_t rows = d.rows.shape[2], dim = d.rows.shape[3];
    for (int64_t i = 0; i < lines() * d.clusters; i++) {
        const int64_t line = i / d.clusters, c = i % d.clusters;
        double sum[MOST_DIM] = {0}, magnitude[MOST_DIM] = {0};
        int32_t count = 0;
        for (int64_t row = 0; row < rows; row++) {
            const bool in = got->nearest[line * rows + row] == c;
            count += in;
            for (int64_t n = 0; n < dim && in; n++) {
                const double element = (double)x[(line * rows + row) * dim + n];
                sum[n] += element;
                magnitude[n] += fabs(element);
            }
        }
        ck_assert_int_eq(got->counts[i], count);
        for (int64_t n = 0; n < dim; n++) {
            const double expected = count ? sum[n] / count : (double)centroid_of(from, line, c)[n];
            ck_assert_double_le(fabs((double)centroid_of(got, line, c)[n] - expected),
                                count ? (count + 4) * 0x1p-24 * magnitude[n] / count : 0);
        }
    }
}

static fa_buffer *part(const void *from, size_t bytes)
{
    return upload(from, bytes + 64);
}

/* Runs on the device, from what `made` has. */
static void run(void)
{
    fa_cluster *cluster;
    const size_t nearest = sizeof(made.nearest) - 64, centroids = sizeof(made.centroids) - 64;
    const bool counts = d.steps != FA_CLUSTER_NEAREST;
    const fa_cluster_args args = {
        .struct_size = sizeof(args),
        .rows = part(words, sizeof(words) - 64),
        .nearest = part(made.nearest, nearest),
        .centroids = part(made.centroids, centroids),
        .counts = counts ? part(made.counts, sizeof(made.counts) - 64) : NULL,
    };
    const fa_status status = fa_cluster_create(device, &d, &cluster);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_cluster_run(cluster, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.nearest, 0, made.nearest, sizeof(made.nearest)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.centroids, 0, made.centroids, sizeof(made.centroids)), FA_OK);
    if (counts)
        ck_assert_int_eq(fa_buffer_read(queue, args.counts, 0, made.counts, sizeof(made.counts)), FA_OK);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(args.rows);
    fa_buffer_destroy(args.nearest);
    fa_buffer_destroy(args.centroids);
    fa_buffer_destroy(args.counts);
    fa_cluster_destroy(cluster);
}

static void run_host(result *r)
{
    const fa_status status = fa_cluster_host(context, &d, words, r->nearest, r->centroids,
                                             d.steps == FA_CLUSTER_NEAREST ? NULL : r->counts);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
}

START_TEST(one_iteration)
{
    random_state random = {(uint64_t)_i + 1};
    for (int n = 0; device && n < (slow ? 2 : 12); n++) {
        draw(&random);
        made = start;
        run();
        expect_nearest(&start, &made);
        expect_means(&start, &made);
        again = start;
        run_host(&again);
        ck_assert_mem_eq(again.nearest, made.nearest, (size_t)(lines() * d.rows.shape[2]) * sizeof(int32_t));
        expect_means(&start, &again);
    }
}
END_TEST

START_TEST(steps_apart)
{
    random_state random = {99};
    if (!device)
        return;
    draw(&random);
    d.steps = FA_CLUSTER_NEAREST;
    made = start;
    run();
    expect_nearest(&start, &made);
    ck_assert_mem_eq(made.centroids, start.centroids, sizeof(start.centroids));
    d.steps = FA_CLUSTER_MEANS;
    run();
    expect_means(&start, &made);
    again = made;
    memcpy(again.centroids, start.centroids, sizeof(start.centroids));
    run_host(&again);
    expect_means(&start, &again);
}
END_TEST

START_TEST(drawn_rows)
{
    random_state random = {5};
    for (int n = 0; device && n < (slow ? 1 : 8); n++) {
        draw(&random);
        for (int64_t i = 0; i < ELEMENTS; i++)
            x[i] = (float)(i / d.rows.shape[3] % d.rows.shape[2] % 128);
        store();
        d.steps = FA_CLUSTER_NEAREST;
        d.start = FA_CLUSTER_DRAWN;
        run();
        again = made;
        run_host(&again);
        ck_assert_mem_eq(again.centroids, made.centroids, bytes_of_centroids());
        for (int64_t i = 0; i < lines() * d.clusters && d.rows.shape[2] <= 128; i++) {
            const int64_t c = i % d.clusters, each = d.rows.shape[2] / d.clusters;
            const float row = centroid_of(&made, i / d.clusters, c)[0];
            ck_assert(row >= (float)(c * each) && row < (float)((c + 1) * (each + 1)));
        }
    }
}
END_TEST

/* Rows around as many points as there are clusters, far apart, some in another direction of another length. */
static void plant(random_state *random)
{
    describe(random);
    d.rows = fa_tensor_make(FA_F32, BATCH, 1, 120, 8);
    d.rows.stride[0] = d.rows.stride[1] = 960;
    d.rows.stride[2] = 8;
    d.rows.stride[3] = 1;
    d.clusters = 6;
    for (int64_t i = 0; i < lines() * 120; i++) {
        const float length = d.normalise ? random_float(random, 0.5F, 8) : 4;
        for (int64_t n = 0; n < 8; n++)
            x[i * 8 + n] = length * ((n == i % 6 ? 1.0F : 0.0F) + random_float(random, -0.02F, 0.02F));
    }
    store();
}

static void expect_planted(const result *r)
{
    for (int64_t i = 0; i < lines() * 120; i++) {
        const int64_t line = i / 120;
        for (int64_t j = line * 120; j < (line + 1) * 120; j++)
            ck_assert_int_eq(r->nearest[i] == r->nearest[j], i % 6 == j % 6);
    }
}

START_TEST(plus_plus)
{
    random_state random = {3};
    plant(&random);
    d.start = FA_CLUSTER_PLUS_PLUS;
    d.iterations = 20;
    for (d.seed = 0; d.seed < 20; d.seed++) {
        run_host(&made);
        expect_planted(&made);
        expect_means(&start, &made);
        run_host(&again);
        ck_assert_mem_eq(again.centroids, made.centroids, bytes_of_centroids());
    }
}
END_TEST

START_TEST(directions)
{
    random_state random = {4};
    if (!device)
        return;
    plant(&random);
    d.normalise = 1;
    for (int64_t i = 0; i < lines() * 120; i++) { /* one of six lengths for each row */
        for (int64_t n = 0; n < 8; n++)
            x[i * 8 + n] *= (float)(1 << i / 6 % 6);
    }
    store();
    memset(start.centroids, 0, sizeof(start.centroids));
    for (int64_t i = 0; i < lines() * 6; i++)
        start.centroids[i * 8 + i % 6] = 0.5F;
    made = start;
    d.iterations = 3;
    run();
    expect_planted(&made);
    again = start;
    run_host(&again);
    for (int64_t i = 0; i < lines() * 6 * 8; i++)
        ck_assert_double_le(fabs((double)again.centroids[i] - (double)made.centroids[i]), 1e-6);
    for (int64_t i = 0; i < lines() * 120 * 8; i++) /* the means of rows of length 1 */
        again.centroids[i / 960 * 48 + made.nearest[i / 8] * 8 + i % 8] -=
            x[i] / (20 * sqrtf((float)distance(i / 960, i / 8 % 120, (const float[8]){0})));
    for (int64_t i = 0; i < lines() * 6 * 8; i++)
        ck_assert_double_le(fabs((double)again.centroids[i]), 2e-6);
}
END_TEST

/* A driver that ends long loops is asked before, whatever the dims are: else the mean is of all rows. */
START_TEST(long_loops)
{
    enum { WIDE = 1024, LONG = 6000 };
    static const int32_t nearest[LONG];
    static float ones[WIDE], mean[WIDE];
    fa_cluster *cluster;
    const fa_cluster_desc all = {.struct_size = sizeof(all),
                                 .rows = {FA_F32, {1, 1, LONG, WIDE}, {0, 0, 0, 1}},
                                 .clusters = 1,
                                 .steps = FA_CLUSTER_MEANS};
    if (!device)
        return;
    for (int i = 0; i < WIDE; i++)
        ones[i] = 1;
    if (fa_cluster_create(device, &all, &cluster) != FA_OK) {
        assert_message("6000 rows and 1 clusters of 1024 dims, but");
        return;
    }
    const fa_cluster_args args = {.struct_size = sizeof(args),
                                  .rows = upload(ones, sizeof(ones)),
                                  .nearest = upload(nearest, sizeof(nearest)),
                                  .centroids = upload(mean, sizeof(mean)),
                                  .counts = upload(nearest, sizeof(int32_t))};
    ck_assert_msg(fa_cluster_run(cluster, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.centroids, 0, mean, sizeof(mean)), FA_OK);
    ck_assert_mem_eq(mean, ones, sizeof(mean));
    fa_buffer *const memory_of[] = {args.rows, args.nearest, args.centroids, args.counts};
    for (int i = 0; i < COUNT(memory_of); i++)
        fa_buffer_destroy(memory_of[i]);
    fa_cluster_destroy(cluster);
}
END_TEST

#define REFUSED(status, part)                                           \
    do {                                                                \
        fa_cluster *none = (fa_cluster *)&d;                            \
        ck_assert_int_eq(fa_cluster_create(device, &d, &none), status); \
        assert_message(part);                                           \
        ck_assert_ptr_null(none);                                       \
        d = good;                                                       \
    } while (0)

START_TEST(refused)
{
    random_state random = {8};
    if (!device)
        return;
    draw(&random);
    d.rows = fa_tensor_make(FA_F32, 1, 1, 9, 4);
    d.clusters = 3;
    const fa_cluster_desc good = d;
    d.rows.dtype = FA_I32;
    REFUSED(FA_INVALID, "rows.dtype");
    d.rows.shape[2] = 0;
    REFUSED(FA_INVALID, "rows.shape[2] is 0");
    d.clusters = 10;
    REFUSED(FA_INVALID, "clusters is 10");
    d.rows.shape[2] = INT32_MAX;
    REFUSED(FA_UNSUPPORTED, "rows.shape is 1 x 1 x 2147483647 rows");
    d.iterations = -1;
    REFUSED(FA_INVALID, "iterations is -1");
    d.iterations = 2;
    d.steps = FA_CLUSTER_NEAREST;
    REFUSED(FA_INVALID, "iterations is 2, expected 1 as steps is 1");
    d.normalise = 2;
    REFUSED(FA_INVALID, "normalise is 2");
    d.steps = (fa_cluster_steps)3;
    REFUSED(FA_INVALID, "steps is 3");
    d.start = FA_CLUSTER_DRAWN;
    d.steps = FA_CLUSTER_MEANS;
    REFUSED(FA_INVALID, "start is 1, expected 0 as steps is 2");
    d.start = FA_CLUSTER_PLUS_PLUS;
    REFUSED(FA_UNSUPPORTED, "start is 2, expected 0 or 1");
    ck_assert_int_eq(fa_cluster_host(context, &d, words, made.nearest, made.centroids, NULL), FA_INVALID);
    assert_message("counts is NULL");
    d.steps = FA_CLUSTER_MEANS;
    memset(made.nearest, 0, sizeof(made.nearest));
    made.nearest[4] = 3;
    ck_assert_int_eq(fa_cluster_host(context, &d, words, made.nearest, made.centroids, made.counts),
                     FA_INVALID);
    assert_message("nearest[4] is 3, expected 0 to 2");
    d = good;
}
END_TEST

START_TEST(runs_refused)
{
    random_state random = {8};
    fa_cluster *cluster;
    if (!device)
        return;
    draw(&random);
    ck_assert_int_eq(fa_cluster_create(device, &d, &cluster), FA_OK);
    fa_cluster_args args = {.struct_size = sizeof(args)};
    args.rows = upload(words, sizeof(words));
    args.nearest = upload(made.nearest, sizeof(made.nearest));
    args.centroids = upload(made.centroids, sizeof(made.centroids));
    ck_assert_int_eq(fa_cluster_run(cluster, queue, &args), FA_INVALID);
    assert_message("args.counts is NULL");
    args.counts = args.nearest;
    ck_assert_int_eq(fa_cluster_run(cluster, queue, &args), FA_INVALID);
    assert_message("overlaps");
    fa_buffer_destroy(args.rows);
    fa_buffer_destroy(args.nearest);
    fa_buffer_destroy(args.centroids);
    fa_cluster_destroy(cluster);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("clusters");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, one_iteration, 0, 3);
    tcase_add_test(tc, steps_apart);
    tcase_add_test(tc, drawn_rows);
    tcase_add_test(tc, plus_plus);
    tcase_add_test(tc, directions);
    tcase_add_test(tc, long_loops);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, runs_refused);
    return run_on_backend(suite);
}
