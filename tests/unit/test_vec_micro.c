/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing, unpacking and the two micro-kernels. What they read ends at a page that must not be touched, what
 * they write lies in a pattern that must not change.
 */
#include <check.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/half.h"
#include "helpers.h"
#include "test_vec.h"

enum { MAX_LANES = 16, MAX_PANEL = 64, MAX_DIM = 40, MAX_KEYS = 40, FENCED = 1 << 16 };

static const float untouched = -12345.0f;

/* Memory of `bytes` < FENCED whose end is the end of what may be touched. */
static void *fenced(size_t bytes)
{
    static fence all;
    if (!all.memory)
        all = fence_make(FENCED);
    return (char *)all.memory + FENCED - bytes;
}

static void fill(random_state *random, float *x, int count)
{
    for (int i = 0; i < count; i++)
        x[i] = random_float(random, -2, 2);
}

static void set(float *x, float value, int count)
{
    for (int i = 0; i < count; i++)
        x[i] = value;
}

/* `count` random elements of a type right in front of the fence. */
static void *fenced_elements(random_state *random, fa_dtype dtype, int count)
{
    void *base = fenced((size_t)count * fa_dtype_size(dtype));
    for (int i = 0; i < count; i++)
        fa_store(dtype, base, i, random_float(random, -2, 2));
    return base;
}

START_TEST(part_of_a_vector_is_all_that_is_touched)
{
    const vec_ops *ops = vec_isa[_i];
    random_state random = {6};
    for (int dtype = FA_F32; dtype <= FA_BF16; dtype++) {
        for (int count = 0; count < ops->lanes; count++) {
            float lane[MAX_LANES], value[MAX_LANES];
            void *base = fenced_elements(&random, (fa_dtype)dtype, 3 + count);
            ops->load_some((fa_dtype)dtype, base, 3, count, lane);
            for (int i = 0; i < ops->lanes; i++)
                ck_assert_float_eq(lane[i], i < count ? fa_load((fa_dtype)dtype, base, 3 + i) : 0);

            unsigned char before[4 * MAX_LANES + 16];
            size_t size = fa_dtype_size((fa_dtype)dtype);
            memcpy(before, base, 3 * size);
            fill(&random, value, ops->lanes);
            ops->store_some((fa_dtype)dtype, value, base, 3, count);
            ck_assert_mem_eq(base, before, 3 * size);
            for (int i = 0; i < count; i++) {
                uint32_t expected = 0;
                fa_store((fa_dtype)dtype, &expected, 0, value[i]);
                ck_assert_mem_eq((char *)base + (size_t)(3 + i) * size, &expected, size);
            }
        }
    }
}
END_TEST

START_TEST(rows_are_converted)
{
    enum { ROWS = 3, GAP = 2 };
    const vec_ops *ops = vec_isa[_i];
    random_state random = {7};
    for (int dtype = FA_F32; dtype <= FA_BF16; dtype++) {
        for (int dim = 1; dim <= MAX_DIM; dim++) {
            float target[ROWS * (MAX_DIM + 1)];
            int stride = dim + GAP, count = 1 + (ROWS - 1) * stride + dim;
            void *base = fenced_elements(&random, (fa_dtype)dtype, count);
            set(target, untouched, ROWS * (MAX_DIM + 1));
            ops->convert_rows((fa_dtype)dtype, base, 1, stride, ROWS, dim, target, MAX_DIM + 1);
            for (int i = 0; i < ROWS * (MAX_DIM + 1); i++) {
                int r = i / (MAX_DIM + 1), d = i % (MAX_DIM + 1);
                float source = d < dim ? fa_load((fa_dtype)dtype, base, 1 + r * stride + d) : untouched;
                if (target[i] != source)
                    ck_abort_msg("row %d, %d: %a, expected %a", r, d, (double)target[i], (double)source);
            }
        }
    }
}
END_TEST

/* The last lane has the first row. */
static int reversed(int lane, int count)
{
    return lane < count ? count - 1 - lane : 0;
}

static int some_count(random_state *random, int panel, int dim)
{
    return dim % 4 == 0 ? panel : (int)random_between(random, 1, panel);
}

START_TEST(panels_are_packed)
{
    const vec_ops *ops = vec_isa[_i];
    random_state random = {8};
    for (int round = 0; round < 3 * 4 * MAX_DIM; round++) {
        fa_dtype dtype = (fa_dtype)(round % 3);
        int dim = round / 12 + 1, count = some_count(&random, ops->panel, dim + round);
        float panel[MAX_DIM * MAX_PANEL + 1];
        int64_t row[MAX_PANEL];
        void *base = fenced_elements(&random, dtype, count * dim);
        for (int i = 0; i < ops->panel; i++)
            row[i] = (int64_t)reversed(i, count) * dim;
        set(panel, untouched, MAX_DIM * MAX_PANEL + 1);
        ops->pack_panel(dtype, base, row, count, dim, panel);
        for (int i = 0; i < dim * ops->panel; i++) {
            int d = i / ops->panel, lane = i % ops->panel;
            float expected = lane < count ? fa_load(dtype, base, row[lane] + d) : 0;
            if (panel[i] != expected)
                ck_abort_msg("%s, %d rows of %d: dim %d of lane %d is %g, expected %g", fa_dtype_name(dtype),
                             count, dim, d, lane, (double)panel[i], (double)expected);
        }
        ck_assert_float_eq(panel[dim * ops->panel], untouched);
    }
}
END_TEST

START_TEST(panels_are_unpacked)
{
    const vec_ops *ops = vec_isa[_i];
    random_state random = {9};
    for (int round = 0; round < 3 * 4 * MAX_DIM; round++) {
        fa_dtype dtype = (fa_dtype)(round % 3);
        int dim = round / 12 + 1, count = some_count(&random, ops->panel, dim + round), stride = dim + 1;
        float panel[MAX_DIM * MAX_PANEL], factor[MAX_PANEL];
        int64_t row[MAX_PANEL];
        size_t size = fa_dtype_size(dtype);
        int elements = (count - 1) * stride + dim;
        char *base = fenced((size_t)elements * size);
        memset(base, 0x5a, (size_t)elements * size);
        for (int i = 0; i < ops->panel; i++)
            row[i] = (int64_t)reversed(i, count) * stride;
        fill(&random, panel, dim * ops->panel);
        fill(&random, factor, ops->panel);
        /* A row without weights is 0, whatever was added up for it. */
        factor[0] = round % 4 == 0 ? 0 : factor[0];
        for (int d = 0; d < dim && factor[0] == 0; d++)
            panel[d * ops->panel] = NAN;
        ops->unpack_panel(dtype, base, row, count, dim, panel, factor);
        for (int lane = 0; lane < count; lane++) {
            char *at = base + (size_t)row[lane] * size;
            for (int d = 0; d < dim; d++) {
                uint32_t expected = 0;
                float value = factor[lane] == 0 ? 0 : panel[d * ops->panel + lane] * factor[lane];
                fa_store(dtype, &expected, 0, value);
                ck_assert_mem_eq(at + (size_t)d * size, &expected, size);
            }
            if (reversed(lane, count) < count - 1) /* the gap behind the row */
                ck_assert_mem_eq(at + (size_t)dim * size, "\x5a\x5a\x5a\x5a", size);
        }
    }
}
END_TEST

/* A sum of `terms` products is off by at most this times the sum of their magnitudes, in any order. */
static double sum_bound(int terms)
{
    double e = (terms + 1) * 0x1p-24;
    return e / (1 - e);
}

typedef struct product {
    const vec_ops *ops;
    int nv; /* vectors of the panel */
    int dim, keys, stride;
    float *rows; /* of k or v, in front of the fence */
} product;

static void check_scores(const product *p, random_state *random)
{
    static float qt[MAX_DIM * MAX_PANEL], st[(MAX_KEYS + 1) * MAX_PANEL];
    float max[MAX_PANEL];
    int panel = p->nv * p->ops->lanes;
    fill(random, qt, p->dim * panel);
    set(st, untouched, (p->keys + 1) * panel);
    for (int lane = 0; lane < panel; lane++)
        max[lane] = lane % 3 ? -INFINITY : 1;
    p->ops->scores(p->nv, qt, p->rows, p->stride, p->dim, p->keys, st, max);
    for (int lane = 0; lane < panel; lane++) {
        float top = lane % 3 ? -INFINITY : 1;
        for (int j = 0; j <= p->keys; j++) {
            double exact = 0, size = 0;
            for (int d = 0; d < p->dim && j < p->keys; d++) {
                double term = (double)qt[d * panel + lane] * (double)p->rows[j * p->stride + d];
                exact += term;
                size += fabs(term);
            }
            bool written = j < p->keys;
            float found = st[j * panel + lane];
            if (written ? !(fabs((double)found - exact) <= sum_bound(p->dim) * size) : found != untouched)
                ck_abort_msg("%d keys, dim %d: score of key %d, lane %d is %.9g, expected %.9g", p->keys,
                             p->dim, j, lane, (double)found, written ? exact : (double)untouched);
            top = written && found > top ? found : top;
        }
        ck_assert_float_eq(max[lane], top);
    }
}

static void check_values(const product *p, const float *rescale, random_state *random)
{
    static float pt[MAX_KEYS * MAX_PANEL], ot[(MAX_DIM + 1) * MAX_PANEL], old[MAX_DIM * MAX_PANEL];
    int panel = p->nv * p->ops->lanes;
    fill(random, pt, p->keys * panel);
    fill(random, old, p->dim * panel);
    set(ot, untouched, (p->dim + 1) * panel);
    memcpy(ot, old, (size_t)(p->dim * panel) * sizeof(float));
    p->ops->values(p->nv, pt, p->rows, p->stride, p->keys, p->dim, rescale, ot);
    for (int i = 0; i < (p->dim + 1) * panel; i++) {
        int d = i / panel, lane = i % panel;
        if (d == p->dim) {
            ck_assert_float_eq(ot[i], untouched);
            continue;
        }
        double exact = (double)old[i] * (double)rescale[lane], size = fabs(exact);
        for (int j = 0; j < p->keys; j++) {
            double term = (double)pt[j * panel + lane] * (double)p->rows[j * p->stride + d];
            exact += term;
            size += fabs(term);
        }
        if (!(fabs((double)ot[i] - exact) <= sum_bound(p->keys + 1) * size))
            ck_abort_msg("%d keys, dim %d: value of dim %d, lane %d is %.9g, expected %.9g", p->keys, p->dim,
                         d, lane, (double)ot[i], exact);
    }
}

/* Every remainder of keys modulo the tile, every few dims, with and without a gap between rows. */
START_TEST(scores_are_dot_products)
{
    const vec_ops *ops = vec_isa[_i];
    random_state random = {10};
    for (int keys = 0; keys <= 2 * ops->most_keys + 1; keys++) {
        for (int dim = 1; dim <= MAX_DIM; dim += dim < 4 ? 1 : 3) {
            product p = {ops, 1 + (keys + dim) % ops->panel_vecs, dim, keys, dim + dim % 3, NULL};
            int elements = keys > 0 ? (keys - 1) * p.stride + dim : 0;
            p.rows = fenced_elements(&random, FA_F32, elements);
            check_scores(&p, &random);
        }
    }
}
END_TEST

START_TEST(values_are_weighted_sums)
{
    const vec_ops *ops = vec_isa[_i];
    random_state random = {11};
    for (int dim = 1; dim <= 2 * ops->most_dims + 5; dim++) {
        for (int keys = 0; keys <= MAX_KEYS; keys += keys < 4 ? 1 : 3) {
            float rescale[MAX_PANEL];
            product p = {ops, 1 + (keys + dim) % ops->panel_vecs, dim, keys, dim + keys % 2, NULL};
            int elements = keys > 0 ? (keys - 1) * p.stride + dim : 0;
            p.rows = fenced_elements(&random, FA_F32, elements);
            fill(&random, rescale, ops->panel);
            check_values(&p, rescale, &random);
        }
    }
}
END_TEST

void add_micro_tests(Suite *suite)
{
    TCase *tc = tcase_create("micro-kernels");
    tcase_set_timeout(tc, 240);
    tcase_add_loop_test(tc, part_of_a_vector_is_all_that_is_touched, 0, vec_isas);
    tcase_add_loop_test(tc, rows_are_converted, 0, vec_isas);
    tcase_add_loop_test(tc, panels_are_packed, 0, vec_isas);
    tcase_add_loop_test(tc, panels_are_unpacked, 0, vec_isas);
    tcase_add_loop_test(tc, scores_are_dot_products, 0, vec_isas);
    tcase_add_loop_test(tc, values_are_weighted_sums, 0, vec_isas);
    suite_add_tcase(suite, tc);
}
