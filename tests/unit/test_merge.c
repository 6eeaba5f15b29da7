/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/reference.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

enum { MAX_PARTS = 9, MAX_ROWS = 24, MAX_DIM = 130, GUARD = 16 };

/* Partial states of a few rows: f32, parts behind each other, rows contiguous. */
typedef struct states {
    int parts, rows, dim;
    float o[MAX_PARTS * MAX_ROWS * MAX_DIM];
    float lse[MAX_PARTS * MAX_ROWS];
} states;

static void make_states(random_state *random, states *s)
{
    s->parts = (int)random_between(random, 1, MAX_PARTS);
    s->rows = (int)random_between(random, 1, MAX_ROWS);
    s->dim = (int)random_between(random, 1, MAX_DIM);
    for (int i = 0; i < s->parts * s->rows; i++) {
        bool empty = random_bits(random) % 4 == 0;
        s->lse[i] = empty ? -INFINITY : random_float(random, -30, 30);
        for (int d = 0; d < s->dim; d++)
            s->o[i * s->dim + d] =
                empty ? NAN : random_float(random, -1, 1); /* nobody looks at an empty state */
    }
}

static fa_merge_desc desc_of(const states *s)
{
    return (fa_merge_desc){
        .struct_size = sizeof(fa_merge_desc),
        .parts = s->parts,
        .partial = fa_tensor_make(FA_F32, 1, 1, s->rows, s->dim),
        .o = fa_tensor_make(FA_F32, 1, 1, s->rows, s->dim),
        .want_lse = 1,
    };
}

/* In double, as plan.h writes it. */
static void merge_in_double(const states *s, int row, double *o, double *lse)
{
    double max = -INFINITY, sum = 0;
    for (int p = 0; p < s->parts; p++)
        max = fmax(max, (double)s->lse[p * s->rows + row]);
    for (int p = 0; p < s->parts && max != -INFINITY; p++)
        sum += exp((double)s->lse[p * s->rows + row] - max);
    *lse = sum > 0 ? max + log(sum) : -INFINITY;
    for (int d = 0; d < s->dim; d++) {
        o[d] = 0;
        for (int p = 0; p < s->parts; p++) {
            double part = (double)s->lse[p * s->rows + row];
            if (part != -INFINITY)
                o[d] += exp(part - *lse) * (double)s->o[(p * s->rows + row) * s->dim + d];
        }
    }
}

static void check_merged(const states *s, const float *o, const float *lse, const char *what)
{
    /* Values are at most 1: a few roundings of f32 each for the weights, their sum and the products. */
    const double bound = 4e-6;
    for (int row = 0; row < s->rows; row++) {
        double expected[MAX_DIM], expected_lse;
        merge_in_double(s, row, expected, &expected_lse);
        bool good = isinf(expected_lse) ? (double)lse[row] == expected_lse
                                        : fabs((double)lse[row] - expected_lse) <= 8 * bound;
        for (int d = 0; d < s->dim; d++)
            good = good && fabs((double)o[row * s->dim + d] - expected[d]) <= bound;
        if (!good)
            ck_abort_msg("%s: %d parts, row %d of %d: lse %g, expected %g", what, s->parts, row, s->rows,
                         (double)lse[row], expected_lse);
    }
}

START_TEST(agrees_with_double)
{
    static states s;
    static float o[GUARD + MAX_ROWS * MAX_DIM + GUARD], lse[GUARD + MAX_ROWS + GUARD];
    random_state random = {1};
    for (int n = 0; n < 300; n++) {
        make_states(&random, &s);
        for (int i = 0; i < COUNT(o); i++)
            o[i] = 77;
        for (int i = 0; i < COUNT(lse); i++)
            lse[i] = 77;
        fa_merge_desc d = desc_of(&s);
        ck_assert_int_eq(fa_merge_host(&d, s.o, s.lse, o + GUARD, lse + GUARD), FA_OK);
        check_merged(&s, o + GUARD, lse + GUARD, "all at once");
        int end = s.rows * s.dim + GUARD;
        bool untouched = true;
        for (int i = 0; i < GUARD; i++)
            untouched =
                untouched && o[i] == 77 && o[end + i] == 77 && lse[i] == 77 && lse[s.rows + GUARD + i] == 77;
        ck_assert(untouched);
        /* Without an LSE: the same output. */
        static float again[MAX_ROWS * MAX_DIM];
        d.want_lse = 0;
        ck_assert_int_eq(fa_merge_host(&d, s.o, s.lse, again, NULL), FA_OK);
        ck_assert_mem_eq(again, o + GUARD, sizeof(float) * (size_t)(s.rows * s.dim));
    }
}
END_TEST

/* Merging a running result with one part after another, in either direction, comes to the same. */
static void merge_one_by_one(const states *s, bool backward, float *o, float *lse)
{
    static states pair;
    pair.parts = 2;
    pair.rows = s->rows;
    pair.dim = s->dim;
    int size = s->rows * s->dim;
    int first = backward ? s->parts - 1 : 0;
    memcpy(o, s->o + first * size, sizeof(float) * (size_t)size);
    memcpy(lse, s->lse + first * s->rows, sizeof(float) * (size_t)s->rows);
    for (int i = 1; i < s->parts; i++) {
        int part = backward ? s->parts - 1 - i : i, running = backward ? 1 : 0;
        memcpy(pair.o + running * size, o, sizeof(float) * (size_t)size);
        memcpy(pair.lse + running * s->rows, lse, sizeof(float) * (size_t)s->rows);
        memcpy(pair.o + (1 - running) * size, s->o + part * size, sizeof(float) * (size_t)size);
        memcpy(pair.lse + (1 - running) * s->rows, s->lse + part * s->rows, sizeof(float) * (size_t)s->rows);
        fa_merge_desc d = desc_of(&pair);
        ck_assert_int_eq(fa_merge_host(&d, pair.o, pair.lse, o, lse), FA_OK);
    }
    for (int row = 0; s->parts == 1 && row < s->rows; row++) {
        for (int d = 0; d < s->dim && lse[row] == -INFINITY; d++)
            o[row * s->dim + d] = 0;
    }
}

START_TEST(associative_and_commutative)
{
    static states s;
    static float o[MAX_ROWS * MAX_DIM], lse[MAX_ROWS];
    random_state random = {2};
    for (int n = 0; n < 200; n++) {
        make_states(&random, &s);
        merge_one_by_one(&s, false, o, lse);
        check_merged(&s, o, lse, "from the first on");
        merge_one_by_one(&s, true, o, lse);
        check_merged(&s, o, lse, "from the last on");
    }
}
END_TEST

START_TEST(empty_states)
{
    const float nan_o[6] = {NAN, NAN, NAN, NAN, NAN, NAN};
    const float empty[3] = {-INFINITY, -INFINITY, -INFINITY};
    float o[2] = {5, 5}, lse = 5;
    fa_merge_desc d = {.struct_size = sizeof(d), .parts = 3, .want_lse = 1};
    d.partial = d.o = fa_tensor_make(FA_F32, 1, 1, 1, 2);
    ck_assert_int_eq(fa_merge_host(&d, nan_o, empty, o, &lse), FA_OK);
    ck_assert(o[0] == 0 && o[1] == 0 && lse == -INFINITY);

    /* One state among empty ones comes out as it went in. */
    const float partial[6] = {NAN, NAN, 0.3f, -7, NAN, NAN}, lses[3] = {-INFINITY, -80, -INFINITY};
    ck_assert_int_eq(fa_merge_host(&d, partial, lses, o, &lse), FA_OK);
    ck_assert(o[0] == 0.3f && o[1] == -7 && lse == -80);

    /* No parts at all, and rows enough that an offset into nothing would show. */
    float many[12], many_lse[6];
    memset(many, 0x7f, sizeof(many));
    d.partial = d.o = fa_tensor_make(FA_F32, 1, 2, 3, 2);
    d.parts = 0;
    ck_assert_int_eq(fa_merge_host(&d, NULL, NULL, many, many_lse), FA_OK);
    for (int i = 0; i < 12; i++)
        ck_assert(many[i] == 0 && many_lse[i / 2] == -INFINITY);

    /* No rows: nothing to do, whatever the pointers. */
    d.partial = d.o = fa_tensor_make(FA_F32, 1, 0, 3, 2);
    d.parts = 2;
    d.want_lse = 0;
    ck_assert_int_eq(fa_merge_host(&d, NULL, NULL, NULL, NULL), FA_OK);
}
END_TEST

START_TEST(infinities_and_nans_stay_in_their_row)
{
    const float partial[4] = {1, 2, 3, 4}, lses[4] = {0, 0, NAN, 0}; /* (part, row): row 0 has the NaN */
    float o[2], lse[2];
    fa_merge_desc d = {.struct_size = sizeof(d), .parts = 2, .want_lse = 1};
    d.partial = d.o = fa_tensor_make(FA_F32, 1, 1, 2, 1);
    ck_assert_int_eq(fa_merge_host(&d, partial, lses, o, lse), FA_OK);
    ck_assert(isnan(o[0]) && isnan(lse[0]));
    ck_assert(o[1] == 3 && fabsf(lse[1] - 0.69314718f) < 1e-6f);

    /* Where exp itself overflows, the differences do not. */
    const float high[4] = {1e4f, 1e4f, 1e4f, -1e4f};
    ck_assert_int_eq(fa_merge_host(&d, partial, high, o, lse), FA_OK);
    ck_assert(o[0] == 2 && o[1] == 2 && lse[1] == 1e4f);
    /* Nor where it underflows. */
    const float low[4] = {-1e4f, -1e4f, -1e4f, -1e4f};
    ck_assert_int_eq(fa_merge_host(&d, partial, low, o, lse), FA_OK);
    ck_assert(o[0] == 2 && o[1] == 3 && fabsf(lse[0] + 9999.307f) < 2e-3f);
}
END_TEST

/* FlashAttention's mark of an empty row is +inf beside zeros; an infinite score is +inf beside NaN. */
START_TEST(infinite_marks)
{
    enum { DIM = 70 };
    static float partial[3][2][DIM], o[2][DIM];
    float lses[3][2] = {{INFINITY, 1}, {2, INFINITY}, {INFINITY, 1}}, lse[2];
    fa_merge_desc d = {.struct_size = sizeof(d), .parts = 3, .want_lse = 1};
    d.partial = d.o = fa_tensor_make(FA_F32, 1, 1, 2, DIM);
    for (int i = 0; i < DIM; i++) {
        partial[1][0][i] = 5;
        partial[0][1][i] = 1;
        partial[2][1][i] = 3;
    }
    ck_assert_int_eq(fa_merge_host(&d, partial, lses[0], o, lse), FA_OK);
    for (int i = 0; i < DIM; i++)
        ck_assert(o[0][i] == 5 && o[1][i] == 2);
    ck_assert(lse[0] == 2 && fabsf(lse[1] - 1.69314718f) < 1e-6f);
    /* In place, where marks are overwritten as the merge goes on. */
    static float again[3][2][DIM];
    memcpy(again, partial, sizeof(again));
    ck_assert_int_eq(fa_merge_host(&d, again, lses[0], again[0], lse), FA_OK);
    ck_assert_mem_eq(again[0], o, sizeof(o));
    /* Nothing but marks. */
    const float all[6] = {INFINITY, -INFINITY, INFINITY, INFINITY, -INFINITY, INFINITY};
    memset(partial, 0, sizeof(partial));
    ck_assert_int_eq(fa_merge_host(&d, partial, all, o, lse), FA_OK);
    for (int i = 0; i < DIM; i++)
        ck_assert(o[0][i] == 0 && o[1][i] == 0);
    ck_assert(lse[0] == -INFINITY && lse[1] == -INFINITY);
    /* A state of infinite scores: one element that is not 0 tells. */
    partial[2][0][DIM - 1] = NAN;
    lses[2][1] = 1;
    ck_assert_int_eq(fa_merge_host(&d, partial, lses[0], o, lse), FA_OK);
    ck_assert(isnan(o[0][0]) && isnan(o[0][DIM - 1]) && isnan(lse[0]) && !isnan(o[1][0]) && !isnan(lse[1]));
}
END_TEST

START_TEST(odd_addresses)
{
    _Alignas(8) static char bytes[4][64];
    fa_merge_desc d = {.struct_size = sizeof(d), .parts = 1, .want_lse = 1};
    d.partial = fa_tensor_make(FA_F32, 1, 1, 1, 4);
    d.o = fa_tensor_make(FA_F16, 1, 1, 1, 4);
    static const char *const names[] = {"partial lies at", "partial_lse lies at", "o lies at", "lse lies at"};
    for (int odd = 0; odd <= 4; odd++) { /* the last of them is right */
        char *at[4];
        for (int i = 0; i < 4; i++)
            at[i] = bytes[i] + (i == odd);
        fa_status status = fa_merge_host(&d, at[0], (void *)at[1], at[2], (void *)at[3]);
        ck_assert_int_eq(status, odd < 4 ? FA_INVALID : FA_OK);
        ck_assert(odd == 4 || strncmp(fa_last_error(), names[odd], strlen(names[odd])) == 0);
    }
}
END_TEST

/* o may be any one of the parts, and lse that of any one: the same result as elsewhere. */
START_TEST(in_place)
{
    enum { PARTS = 3, HEADS = 2, ROWS = 5, DIM = 67, PITCH = 70, PART = ROWS * HEADS * PITCH };
    static float partial[PARTS * PART], expected[PART], work[PARTS * PART];
    float lses[PARTS * HEADS * ROWS], expected_lse[HEADS * ROWS], work_lse[PARTS * HEADS * ROWS];
    random_state random = {5};
    for (int i = 0; i < COUNT(partial); i++)
        partial[i] = random_float(&random, -1, 1);
    for (int i = 0; i < COUNT(lses); i++)
        lses[i] = random_float(&random, -2, 2);
    fa_merge_desc d = {.struct_size = sizeof(d), .parts = PARTS, .part_stride = PART, .want_lse = 1};
    d.partial = d.o = (fa_tensor){FA_F32, {1, HEADS, ROWS, DIM}, {0, PITCH, HEADS * PITCH, 1}};
    for (int part = 0; part < PARTS; part++) {
        memcpy(work, partial, sizeof(work));
        memcpy(work_lse, lses, sizeof(lses));
        memcpy(expected, partial + part * PART, sizeof(expected));
        ck_assert_int_eq(fa_merge_host(&d, partial, lses, expected, expected_lse), FA_OK);
        fa_status status = fa_merge_host(&d, work, work_lse, work + part * PART,
                                         work_lse + (PARTS - 1 - part) * HEADS * ROWS);
        ck_assert_msg(status == FA_OK, "%s", fa_last_error());
        ck_assert_mem_eq(work + part * PART, expected, sizeof(expected));
        ck_assert_mem_eq(work_lse + (PARTS - 1 - part) * HEADS * ROWS, expected_lse, sizeof(expected_lse));
    }
    /* Anything else that shares a byte is refused, and nothing written; what lies between rows is free. */
    const struct {
        float *o, *lse;
        int64_t stride;
        fa_dtype dtype;
        const char *message; /* NULL: served */
    } row[] = {
        {work + PITCH, work_lse, HEADS * PITCH, FA_F32, "o overlaps partial"},
        {work + 1, work_lse, HEADS * PITCH, FA_F32, "o overlaps partial"},
        {work + PART / 2, work_lse, HEADS * PITCH, FA_F32, "o overlaps partial"},
        {work, work_lse, HEADS * PITCH, FA_F16, "o overlaps partial"},
        {work, work_lse, HEADS * PITCH + 1, FA_F32, "o overlaps partial"},
        {expected, work_lse + 1, HEADS * PITCH, FA_F32, "lse overlaps partial_lse"},
        {expected, work + 1, HEADS * PITCH, FA_F32, "lse overlaps partial"},
        {expected, expected, HEADS * PITCH, FA_F32, "o overlaps lse"},
        {work_lse, expected_lse, HEADS * PITCH, FA_F32, "o overlaps partial_lse"},
        {expected, expected_lse, HEADS * PITCH, FA_F32, NULL},
    };
    for (int i = 0; i < COUNT(row); i++) {
        fa_merge_desc e = d;
        e.o.dtype = row[i].dtype;
        e.o.stride[2] = row[i].stride;
        memcpy(work, partial, sizeof(work));
        memcpy(work_lse, lses, sizeof(lses));
        fa_status status = fa_merge_host(&e, work, work_lse, row[i].o, row[i].lse);
        ck_assert_msg(status == (row[i].message ? FA_INVALID : FA_OK), "row %d: %s", i, fa_last_error());
        if (row[i].message)
            assert_message(row[i].message);
        ck_assert_mem_eq(work, partial, sizeof(work));
        ck_assert_mem_eq(work_lse, lses, sizeof(lses));
    }
    /* Outputs in the gaps between the parts' rows. */
    static float woven[2 * PARTS * PART];
    fa_merge_desc w = d;
    w.partial.stride[1] = w.o.stride[1] = 2 * PITCH;
    w.partial.stride[2] = w.o.stride[2] = 2 * HEADS * PITCH;
    w.part_stride = 2 * PART;
    ck_assert_int_eq(fa_merge_host(&w, woven, lses, woven + PITCH, expected_lse), FA_OK);
    /* Parts on top of each other may be read, not written to. */
    w.part_stride = PITCH;
    static float wide[2 * PART];
    ck_assert_int_eq(fa_merge_host(&w, woven, lses, wide, expected_lse), FA_OK);
    ck_assert_int_eq(fa_merge_host(&w, woven, lses, woven, expected_lse), FA_INVALID);
    assert_message("o overlaps partial");
}
END_TEST

START_TEST(types_and_strides)
{
    static const struct {
        fa_dtype dtype;
        double step; /* half a unit in the last place at 1 */
    } type[] = {{FA_F32, 0x1p-24}, {FA_F16, 0x1p-11}, {FA_BF16, 0x1p-8}};
    enum { PARTS = 3, HEADS = 2, ROWS = 5, DIM = 7, PITCH = 9 };
    random_state random = {3};
    for (int n = 0; n < COUNT(type) * COUNT(type); n++) {
        fa_dtype in = type[n % 3].dtype, out = type[n / 3].dtype;
        uint16_t half[PARTS * ROWS * HEADS * PITCH];
        float partial[PARTS * ROWS * HEADS * PITCH], lses[PARTS * HEADS * ROWS], result[ROWS * HEADS * PITCH];
        for (int i = 0; i < COUNT(partial); i++) {
            partial[i] = random_float(&random, -1, 1);
            half[i] = in == FA_F16 ? fa_f32_to_f16(partial[i]) : fa_f32_to_bf16(partial[i]);
            if (in != FA_F32)
                partial[i] = in == FA_F16 ? fa_f16_to_f32(half[i]) : fa_bf16_to_f32(half[i]);
        }
        for (int i = 0; i < COUNT(lses); i++)
            lses[i] = random_float(&random, -2, 2);
        memset(result, 0x33, sizeof(result));
        /* Rows outermost, heads inside, rows of DIM in PITCH. */
        fa_merge_desc d = {.struct_size = sizeof(d), .parts = PARTS, .part_stride = ROWS * HEADS * PITCH};
        d.partial = (fa_tensor){in, {1, HEADS, ROWS, DIM}, {0, PITCH, HEADS * PITCH, 1}};
        d.o = d.partial;
        d.o.dtype = out;
        ck_assert_int_eq(fa_merge_host(&d, in == FA_F32 ? (void *)partial : (void *)half, lses, result, NULL),
                         FA_OK);
        for (int i = 0; i < HEADS * ROWS * DIM; i++) {
            int head = i / (ROWS * DIM), row = i / DIM % ROWS, at = (row * HEADS + head) * PITCH + i % DIM;
            double sum = 0, expected = 0;
            for (int p = 0; p < PARTS; p++)
                sum += exp((double)lses[(p * HEADS + head) * ROWS + row]);
            for (int p = 0; p < PARTS; p++)
                expected += exp((double)lses[(p * HEADS + head) * ROWS + row]) / sum *
                            (double)partial[p * ROWS * HEADS * PITCH + at];
            const uint16_t *halves = (const uint16_t *)result;
            float found = out == FA_F32   ? result[at]
                          : out == FA_F16 ? fa_f16_to_f32(halves[at])
                                          : fa_bf16_to_f32(halves[at]);
            ck_assert_msg(fabs((double)found - expected) <= type[n / 3].step + 1e-6,
                          "%s to %s: %g, expected %g", fa_dtype_name(in), fa_dtype_name(out), (double)found,
                          expected);
        }
    }
}
END_TEST

START_TEST(refused_by_name)
{
    float partial[8] = {0}, lses[8] = {0}, o[8], lse[8];
    memset(o, 0x11, sizeof(o));
    memset(lse, 0x11, sizeof(lse));
    fa_merge_desc good = {.struct_size = sizeof(good), .parts = 2, .want_lse = 1};
    good.partial = good.o = fa_tensor_make(FA_F32, 1, 1, 2, 2);
    const fa_tensor wrong = fa_tensor_make(FA_F32, 1, 1, 2, 3);
    fa_merge_desc d[16];
    for (int i = 0; i < COUNT(d); i++)
        d[i] = good;
    d[0].parts = -1;
    d[1].part_stride = -4;
    d[2].o = wrong;
    d[3].partial.dtype = FA_BOOL;
    d[4].o.dtype = FA_BOOL;
    d[5].o.dtype = (fa_dtype)99;
    d[6].o.stride[3] = 1; /* other strides 0: rows on top of each other */
    d[7].parts = INT64_MAX;
    d[8].partial.shape[2] = -2;
    d[9].struct_size = 3;
    d[10].part_stride = INT64_MAX;
    /* No elements, but more rows than any number counts. */
    d[11].o = d[11].partial = (fa_tensor){FA_F32, {INT64_MAX, INT64_MAX, 3, 0}, {1, 1, 1, 1}};
    static const char *const message[] = {
        "parts is -1, expected at least 0",
        "part_stride is -4, expected at least 0",
        "o.shape[3] is 3, expected 2 as partial.shape[3]",
        "partial.dtype is bool, expected f32, f16 or bf16",
        "o.dtype is bool, expected f32, f16 or bf16",
        "o.dtype is 99, expected an fa_dtype",
        "o.stride is (0, 0, 0, 1): elements of o overlap",
        "parts 9223372036854775807",
        "partial.shape[2] is -2, expected at least 0",
        "fa_merge_desc.struct_size is 3",
        "parts 2 with part_stride 9223372036854775807 overflows memory",
        "o.shape",
    };
    for (int i = 0; i < COUNT(message); i++) {
        fa_status status = fa_merge_host(&d[i], partial, lses, o, lse);
        ck_assert_msg(status == FA_INVALID || status == FA_OUT_OF_MEMORY, "\"%s\": %s", message[i],
                      fa_status_name(status));
        assert_message(message[i]);
    }
    ck_assert_int_eq(fa_merge_host(NULL, partial, lses, o, lse), FA_INVALID);
    assert_message("desc is NULL");
    ck_assert_int_eq(fa_merge_host(&good, NULL, lses, o, lse), FA_INVALID);
    assert_message("partial is NULL");
    ck_assert_int_eq(fa_merge_host(&good, partial, NULL, o, lse), FA_INVALID);
    assert_message("partial_lse is NULL");
    ck_assert_int_eq(fa_merge_host(&good, partial, lses, NULL, lse), FA_INVALID);
    assert_message("o is NULL");
    ck_assert_int_eq(fa_merge_host(&good, partial, lses, o, NULL), FA_INVALID);
    assert_message("lse is NULL, expected memory as want_lse is 1");
    good.want_lse = 0;
    ck_assert_int_eq(fa_merge_host(&good, partial, lses, o, lse), FA_INVALID);
    assert_message("lse is given, expected NULL as want_lse is 0");
    for (size_t i = 0; i < sizeof(o); i++)
        ck_assert(((unsigned char *)o)[i] == 0x11 && ((unsigned char *)lse)[i] == 0x11);
}
END_TEST

Suite *merge_suite(void)
{
    Suite *suite = suite_create("merge");
    TCase *tc = tcase_create("host");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, agrees_with_double);
    tcase_add_test(tc, associative_and_commutative);
    tcase_add_test(tc, empty_states);
    tcase_add_test(tc, infinities_and_nans_stay_in_their_row);
    tcase_add_test(tc, infinite_marks);
    tcase_add_test(tc, in_place);
    tcase_add_test(tc, odd_addresses);
    tcase_add_test(tc, types_and_strides);
    tcase_add_test(tc, refused_by_name);
    suite_add_tcase(suite, tc);
    return suite;
}
