/* SPDX-License-Identifier: Apache-2.0 */
/* Merges of states on a backend, whose name is the argument: against the merge on the host. */
#include <fastattn/reference.h>
#include <math.h>

#include "tests/gpu/on_backend.h"

enum { PARTS = 3, HEADS = 2, ROWS = 5, MOST = 8192 };

/* Parts behind each other, each with room between its rows, and their LSEs; outputs behind them. */
typedef struct states {
    fa_merge_desc desc;
    int64_t part;
    unsigned char o[MOST * sizeof(float)];
    float lse[(PARTS + 1) * HEADS * ROWS];
} states;

/* The first row is empty, the second has marks of empty parts, the third an infinite score. */
static void make_states(states *s, fa_dtype in, fa_dtype out, int64_t dim, random_state *random)
{
    const int64_t pitch = dim + 3;
    s->part = pitch * HEADS * ROWS;
    s->desc = (fa_merge_desc){.struct_size = sizeof(s->desc), .parts = PARTS, .want_lse = 1};
    s->desc.partial = s->desc.o = (fa_tensor){in, {1, HEADS, ROWS, dim}, {0, pitch, HEADS * pitch, 1}};
    s->desc.o.dtype = out;
    s->desc.part_stride = s->part;
    ck_assert_int_le(s->part * (PARTS + 1), MOST);
    for (int64_t i = 0; i < s->part * (PARTS + 1); i++) {
        const float x = random_float(random, -1, 1);
        fa_elements_store(in, s->o, i, &x, 1);
    }
    for (int i = 0; i < COUNT(s->lse); i++)
        s->lse[i] = i % ROWS == 0 ? -INFINITY : random_float(random, -3, 3);
    for (int h = 0; h < HEADS; h++) {
        const float zero[576] = {0};
        fa_elements_store(in, s->o, s->part + pitch * (HEADS + h), zero, dim);
        s->lse[(HEADS + h) * ROWS + 1] = INFINITY;
        s->lse[h * ROWS + 2] = INFINITY;
    }
}

/* Of outputs as far as they are numbers: how exp and the products are rounded. */
static bool is_near(float found, float expected, float tolerance)
{
    if (isnan(expected) || isinf(expected))
        return isnan(expected) ? isnan(found) : found == expected;
    return fabsf(found - expected) <= tolerance;
}

/* What the device makes of the states at part `to` of the outputs and `to_lse` of the LSEs; PARTS is behind them. */
static void check_merge(const states *s, int to, int to_lse, float tolerance)
{
    static states expected, found;
    const fa_merge_desc *d = &s->desc;
    const size_t in = fa_dtype_size(d->partial.dtype), to_byte = (size_t)(to * s->part) * in,
                 lse_byte = (size_t)to_lse * HEADS * ROWS * sizeof(float);
    expected = found = *s;
    ck_assert_int_eq(fa_merge_host(d, expected.o, expected.lse, expected.o + to_byte,
                                   expected.lse + to_lse * HEADS * ROWS),
                     FA_OK);
    fa_merge *merge;
    ck_assert_msg(fa_merge_create(device, d, &merge) == FA_OK, "%s", fa_last_error());
    fa_buffer *o = upload(s->o, sizeof(s->o)), *lse = upload(s->lse, sizeof(s->lse));
    const fa_merge_args args = {sizeof(args), o, lse, o, lse, .o_offset = to_byte, .lse_offset = lse_byte};
    ck_assert_msg(fa_merge_run(merge, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, o, 0, found.o, sizeof(found.o)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, lse, 0, found.lse, sizeof(found.lse)), FA_OK);
    for (int i = 0; i < COUNT(found.lse); i++)
        ck_assert_msg(is_near(found.lse[i], expected.lse[i], 2e-6f), "LSE %d is %g, expected %g", i,
                      (double)found.lse[i], (double)expected.lse[i]);
    for (int64_t i = 0; i < HEADS * ROWS; i++) {
        const int64_t at = i * d->o.stride[1];
        for (int64_t e = 0; e < d->o.shape[3]; e++) {
            const float x = fa_element(d->o.dtype, found.o + to_byte, at + e),
                        y = fa_element(d->o.dtype, expected.o + to_byte, at + e);
            ck_assert_msg(is_near(x, y, tolerance), "row %lld, dim %lld is %g, expected %g", (long long)i,
                          (long long)e, (double)x, (double)y);
        }
        /* As the host leaves them: what is between rows, and with that all other bytes. */
        fa_elements_store(d->o.dtype, found.o + to_byte, at, (float[576]){0}, d->o.shape[3]);
        fa_elements_store(d->o.dtype, expected.o + to_byte, at, (float[576]){0}, d->o.shape[3]);
    }
    ck_assert_mem_eq(found.o, expected.o, sizeof(found.o));
    fa_buffer_destroy(o);
    fa_buffer_destroy(lse);
    fa_merge_destroy(merge);
}

START_TEST(merges)
{
    static const struct {
        fa_dtype in, out;
        int64_t dim;
        float tolerance; /* a unit in the last place at 1 */
    } row[] = {{FA_F32, FA_F32, 67, 1e-6f}, {FA_F16, FA_F16, 67, 0x1p-10f}, {FA_F32, FA_BF16, 130, 0x1p-7f}};
    static states s;
    random_state random = {3};
    for (int i = 0; i < COUNT(row) && device; i++) {
        if (slow && i != 1)
            continue;
        make_states(&s, row[i].in, row[i].out, row[i].dim, &random);
        check_merge(&s, PARTS, PARTS, row[i].tolerance);
        for (int part = 0; part < PARTS && row[i].in == row[i].out; part++)
            check_merge(&s, part, PARTS - 1 - part, row[i].tolerance);
    }
}
END_TEST

START_TEST(merges_refused)
{
    static states s;
    random_state random = {3};
    if (!device)
        return;
    make_states(&s, FA_F32, FA_F32, 67, &random);
    fa_merge *merge;
    ck_assert_int_eq(fa_merge_create(device, NULL, &merge), FA_INVALID);
    ck_assert_int_eq(fa_merge_create(NULL, &s.desc, &merge), FA_INVALID);
    ck_assert_int_eq(fa_merge_create(device, &s.desc, NULL), FA_INVALID);
    ck_assert_msg(fa_merge_create(device, &s.desc, &merge) == FA_OK, "%s", fa_last_error());
    fa_buffer *o = upload(s.o, sizeof(s.o)), *lse = upload(s.lse, sizeof(s.lse));
    const size_t part = (size_t)s.part * sizeof(float);
    const fa_merge_args good = {sizeof(good),
                                o,
                                lse,
                                o,
                                lse,
                                .o_offset = PARTS * part,
                                .lse_offset = sizeof(float) * PARTS * HEADS * ROWS};
    fa_merge_args bad[6] = {good, good, good, good, good, good};
    bad[0].partial = NULL;
    bad[1].o_offset = part / 2 / sizeof(float) * sizeof(float);
    bad[2].lse_offset = sizeof(float);
    bad[3].lse = NULL;
    bad[4].o_offset = sizeof(s.o) - part / 2;
    bad[5].lse = o;
    bad[5].lse_offset = PARTS * part;
    static const char *const message[] = {"args.partial is NULL",
                                          "args.o overlaps args.partial",
                                          "args.lse overlaps args.partial_lse",
                                          "args.lse is NULL",
                                          "args.o has",
                                          "args.o overlaps args.lse"};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_merge_run(merge, queue, &bad[i]), FA_INVALID);
        assert_message(message[i]);
    }
    ck_assert_int_eq(fa_merge_run(merge, NULL, &good), FA_INVALID);
    ck_assert_int_eq(fa_merge_run(NULL, queue, &good), FA_INVALID);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(o);
    fa_buffer_destroy(lse);
    fa_merge_destroy(merge);
    fa_merge_destroy(NULL);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("merges");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, merges);
    tcase_add_test(tc, merges_refused);
    return run_on_backend(suite);
}
