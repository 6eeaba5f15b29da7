/* SPDX-License-Identifier: Apache-2.0 */
/* Retrieval at semantic boundaries: each step against what its whole past says, and attention with its lists against the oracle. */
#include <fastattn/clustered.h>
#include <math.h>
#include <string.h>

#include "tests/gpu/sparse_scene.h"

enum { STEPS = 60, MOST_PROMPT = 120, MOST_CLUSTERS = 15 };

static sparse_scene s; /* its keys are the prompt's and the output's so far */
static fa_retrieval_desc d;
static int32_t nearest[MOST_HEADS * MOST_PROMPT];
static float centroids[MOST_HEADS * MOST_CLUSTERS * DIM], topic[MOST_HEADS * DIM];
static float q[STEPS][MOST_HEADS * DIM], k[STEPS][MOST_HEADS * DIM];
static bool boundary[STEPS];

static void draw(random_state *random)
{
    scene_draw(&s, random);
    memset(&d, 0, sizeof(d));
    d.struct_size = sizeof(d);
    d.heads_kv = random_between(random, 1, 2);
    d.heads_q = d.heads_kv * random_between(random, 1, 2);
    d.dim = DIM;
    d.prompt = random_between(random, MOST_CLUSTERS, MOST_PROMPT);
    d.clusters = (fa_clusters){random_between(random, 1, MOST_CLUSTERS), nearest, centroids};
    d.similarity = 0.8;
    d.budget = random_between(random, 1, 80);
    for (int i = 0; i < COUNT(nearest); i++)
        nearest[i] = (int32_t)random_between(random, 0, d.clusters.clusters - 1);
    for (int i = 0; i < COUNT(centroids); i++)
        centroids[i] = random_float(random, -2, 2);
}

/* The token's query is near its topic, which changes now and then. */
static void draw_token(random_state *random, int t, int seldom)
{
    const bool changes = t == 0 || random_between(random, 0, seldom) == 0;
    for (int i = 0; i < MOST_HEADS * DIM; i++) {
        topic[i] = changes ? random_float(random, -2, 2) : topic[i];
        q[t][i] = topic[i] + random_float(random, -0.3F, 0.3F);
        k[t][i] = random_float(random, -2, 2);
    }
}

static double product(const float *a, const float *b)
{
    double sum = 0;
    for (int n = 0; n < DIM; n++)
        sum += (double)a[n] * (double)b[n];
    return sum;
}

static bool is_boundary(int t)
{
    double sum = 0;
    for (int64_t head = 0; head < d.heads_q && t > 0; head++) {
        const float *a = q[t] + head * DIM, *b = q[t - 1] + head * DIM;
        sum += product(a, b) / sqrt(product(a, a)) / sqrt(product(b, b));
    }
    return t == 0 || sum / (double)d.heads_q < d.similarity;
}

/* The unit of a key at boundary t: its cluster, or behind these its segment. */
static int64_t unit_of(int64_t head, int64_t key)
{
    int64_t unit = d.clusters.clusters - 1;
    if (key < d.prompt)
        return nearest[head * d.prompt + key];
    for (int64_t n = 0; n <= key - d.prompt; n++)
        unit += boundary[n];
    return unit;
}

static double score_of(int64_t head, int64_t unit, int t)
{
    const int64_t group = d.heads_q / d.heads_kv;
    double sum = 0;
    int64_t count = 0;
    for (int64_t g = 0; g < group; g++) {
        const float *row = q[t] + (head * group + g) * DIM;
        if (unit < d.clusters.clusters) {
            sum += product(row, centroids + (head * d.clusters.clusters + unit) * DIM);
            count = 1;
            continue;
        }
        count = 0;
        for (int n = 0; n < t; n++) {
            if (unit_of(head, d.prompt + n) == unit) {
                sum += product(row, k[n] + head * DIM);
                count++;
            }
        }
    }
    return sum / (double)count / (double)group;
}

/* What a KV head chooses at boundary t: the best unit that is left, again and again. */
static void choose(int64_t head, int t, bool *chosen)
{
    const int64_t units = unit_of(head, d.prompt + t);
    bool seen[MOST_CLUSTERS + STEPS] = {false};
    int64_t left = d.budget;
    for (int64_t n = 0; n < units; n++) {
        int64_t best = -1, keys = 0;
        for (int64_t unit = 0; unit < units; unit++) {
            if (!seen[unit] && (best < 0 || score_of(head, unit, t) > score_of(head, best, t)))
                best = unit;
        }
        for (int64_t key = 0; key < d.prompt + t; key++)
            keys += unit_of(head, key) == best;
        seen[best] = true;
        chosen[best] = keys <= left;
        left -= keys <= left ? keys : 0;
    }
}

static void expect_list(const fa_block_lists *l, int64_t head, int t)
{
    bool chosen[MOST_CLUSTERS + STEPS] = {false};
    int last = t;
    while (!boundary[last])
        last--;
    choose(head, last, chosen);
    for (int64_t key = 0; key <= d.prompt + t; key++)
        ck_assert_int_eq(list_has(l, 0, head, 0, key), key >= d.prompt + last || chosen[unit_of(head, key)]);
}

/* The scene's keys of the step, and attention with its lists. */
static void expect_attention(const fa_block_mask *mask, int t)
{
    s.batch = s.rows = 1;
    s.heads_q = d.heads_q;
    s.heads_kv = d.heads_kv;
    s.keys = d.prompt + t + 1;
    memcpy(s.q, q[t], sizeof(q[t]));
    scene_keep(&s, mask);
    scene_expect(&s, mask, NULL);
}

START_TEST(steps)
{
    random_state random = {(uint64_t)_i + 1};
    fa_retrieval *r;
    int boundaries = 0;
    if (!device)
        return;
    draw(&random);
    ck_assert_int_eq(fa_retrieval_create(context, &d, &r), FA_OK);
    for (int t = 0; t < STEPS; t++) {
        fa_block_mask *mask;
        int32_t retrieved = -1;
        draw_token(&random, t, 4);
        boundary[t] = is_boundary(t);
        boundaries += boundary[t];
        ck_assert_int_eq(fa_retrieval_step(r, q[t], k[t], &retrieved, t % 7 == 6 ? NULL : &mask), FA_OK);
        ck_assert_int_eq(retrieved, boundary[t]);
        if (t % 7 == 6)
            continue;
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.heads, d.heads_kv);
        ck_assert_int_eq(l.key_blocks, d.prompt + t + 1);
        for (int64_t head = 0; head < d.heads_kv; head++)
            expect_list(&l, head, t);
        expect_attention(mask, t);
        fa_block_mask_destroy(mask);
    }
    ck_assert(boundaries > 3 && boundaries < STEPS / 2);
    fa_retrieval_destroy(r);
}
END_TEST

/* What has no memory leaves the sequence as it was. */
START_TEST(no_memory)
{
    random_state random = {6};
    fa_retrieval *r;
    draw(&random);
    ck_assert_int_eq(fa_retrieval_create(context, &d, &r), FA_OK);
    for (int t = 0; t < 40; t++) {
        fa_block_mask *mask;
        int32_t retrieved;
        fa_status status = FA_OUT_OF_MEMORY;
        draw_token(&random, t, 0);
        boundary[t] = is_boundary(t);
        for (int n = 0; status != FA_OK; n++) {
            memory.fail_at = memory.calls + n;
            status = fa_retrieval_step(r, q[t], k[t], &retrieved, &mask);
            memory.fail_at = -1;
            ck_assert(status == FA_OK || (status == FA_OUT_OF_MEMORY && !mask && n < 20));
        }
        ck_assert_int_eq(retrieved, boundary[t]);
        const fa_block_lists l = lists_of(mask);
        ck_assert_int_eq(l.key_blocks, d.prompt + t + 1);
        for (int64_t head = 0; head < d.heads_kv; head++)
            expect_list(&l, head, t);
        fa_block_mask_destroy(mask);
    }
    fa_retrieval_destroy(r);
}
END_TEST

#define REFUSED(part)                                                       \
    do {                                                                    \
        ck_assert_int_eq(fa_retrieval_create(context, &d, &r), FA_INVALID); \
        assert_message(part);                                               \
        ck_assert_ptr_null(r);                                              \
        d = good;                                                           \
    } while (0)

START_TEST(refused)
{
    random_state random = {8};
    fa_retrieval *r;
    int32_t retrieved;
    draw(&random);
    const fa_retrieval_desc good = d;
    d.heads_kv = 0;
    REFUSED("heads_kv is 0");
    d.prompt = 0;
    REFUSED("prompt is 0");
    d.clusters.clusters = d.prompt + 1;
    REFUSED("clusters.clusters is");
    d.clusters.nearest = NULL;
    REFUSED("clusters.nearest is NULL");
    d.similarity = 1.5;
    REFUSED("similarity is 1.5, expected -1 to 1");
    d.budget = -1;
    REFUSED("budget is -1");
    for (int n = 0; n < 9; n++) {
        memory.fail_at = memory.calls + n;
        ck_assert_int_eq(fa_retrieval_create(context, &d, &r), FA_OUT_OF_MEMORY);
        memory.fail_at = -1;
    }
    ck_assert_int_eq(fa_retrieval_create(context, &d, &r), FA_OK);
    ck_assert_int_eq(fa_retrieval_step(r, q[0], NULL, &retrieved, NULL), FA_INVALID);
    assert_message("k is NULL");
    ck_assert_int_eq(fa_retrieval_step(r, q[0], k[0], NULL, NULL), FA_INVALID);
    assert_message("retrieved is NULL");
    fa_retrieval_destroy(r);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("sparse_retrieval");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, steps, 0, 6);
    tcase_add_test(tc, no_memory);
    tcase_add_test(tc, refused);
    return run_on_backend(suite);
}
