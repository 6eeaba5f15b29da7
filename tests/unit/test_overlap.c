/* SPDX-License-Identifier: Apache-2.0 */
#include "core/overlap.h"

#include <string.h>
#include <time.h>

#include "core/tensor.h"
#include "helpers.h"
#include "suites.h"

/* Marks the bytes of a tensor in a picture of memory; whether one was marked before. */
static bool mark(unsigned char *picture, const fa_tensor *t, size_t at)
{
    size_t element = fa_dtype_size(t->dtype);
    bool met = false;
    const int64_t *n = t->shape, *s = t->stride;
    for (int64_t i = 0; i < n[0] * n[1] * n[2] * n[3]; i++) {
        int64_t offset = i / (n[1] * n[2] * n[3]) * s[0] + i / (n[2] * n[3]) % n[1] * s[1] +
                         i / n[3] % n[2] * s[2] + i % n[3] * s[3];
        for (size_t byte = 0; byte < element; byte++)
            met = met || picture[at + (size_t)offset * element + byte] == 1;
    }
    for (int64_t i = 0; i < n[0] * n[1] * n[2] * n[3]; i++) {
        int64_t offset = i / (n[1] * n[2] * n[3]) * s[0] + i / (n[2] * n[3]) % n[1] * s[1] +
                         i / n[3] % n[2] * s[2] + i % n[3] * s[3];
        memset(picture + at + (size_t)offset * element, 1, element);
    }
    return met;
}

static fa_extent extent_of(const fa_tensor *t, size_t at)
{
    size_t span;
    if (fa_tensor_extent(t, "t", &span) != FA_OK)
        ck_abort_msg("%s", fa_last_error());
    return fa_extent_of_tensor(t, span, NULL, at);
}

static fa_meeting meet(const fa_tensor *a, size_t a_at, const fa_tensor *b, size_t b_at)
{
    const fa_extent first = extent_of(a, a_at), second = extent_of(b, b_at);
    fa_meeting found = fa_extents_meet(&first, &second), turned = fa_extents_meet(&second, &first);
    if (found != turned && found != FA_UNDECIDED && turned != FA_UNDECIDED)
        ck_abort_msg("the answer is %d, and %d the other way round", found, turned);
    return found;
}

/* Any strides, as long as the answer can be looked up: always the right one, and never none. */
START_TEST(random_tensors)
{
    static unsigned char picture[1 << 16];
    random_state random = {1};
    int apart = 0, met = 0;
    for (int n = 0; n < 20000; n++) {
        fa_tensor t[2] = {{.dtype = FA_F32}, {.dtype = FA_F32}};
        size_t at[2];
        const int64_t most = random_between(&random, 0, 1) ? 400 : 40;
        for (int i = 0; i < 2; i++) {
            static const fa_dtype types[] = {FA_F32, FA_F16, FA_BOOL};
            t[i].dtype = types[random_between(&random, 0, 2)];
            for (int axis = 0; axis < 4; axis++) {
                t[i].shape[axis] = random_between(&random, 1, 5);
                t[i].stride[axis] = axis == 3 ? 1 : random_between(&random, 0, most);
                if (i == 1 && axis < 3 && random_between(&random, 0, 1))
                    t[1].stride[axis] = t[0].stride[axis]; /* two views of one layout */
            }
            at[i] = (size_t)random_between(&random, 0, 1000);
        }
        memset(picture, 0, sizeof(picture));
        (void)mark(picture, &t[0], at[0]);
        bool truth = mark(picture, &t[1], at[1]);
        fa_meeting found = meet(&t[0], at[0], &t[1], at[1]);
        ck_assert_msg(found == (truth ? FA_MEET : FA_APART), "case %d: %d, expected %d", n, found, truth);
        const fa_extent a = extent_of(&t[0], at[0]), b = extent_of(&t[1], at[1]);
        bool spans_meet = a.begin < b.begin + b.span && b.begin < a.begin + a.span;
        apart += !truth && spans_meet;
        met += truth;
    }
    ck_assert_int_gt(apart, 1000);
    ck_assert_int_gt(met, 1000);
}
END_TEST

/* A view of axis `which` of a packed (batch, row, tensor, head, dim) or of (batch, row, head, tensor, dim). */
static fa_tensor packed_view(fa_dtype dtype, bool by_head, int64_t tensors, const int64_t n[4])
{
    int64_t row = tensors * n[1] * n[3];
    return (fa_tensor){
        dtype, {n[0], n[1], n[2], n[3]}, {n[2] * row, by_head ? tensors * n[3] : n[3], row, 1}};
}

START_TEST(packed_layouts)
{
    /* Small, and as large as they come. */
    static const int64_t sizes[][4] = {
        {1, 1, 1, 1}, {2, 3, 5, 7}, {3, 1, 9, 64}, {8, 32, 4096, 128}, {1024, 128, 1 << 20, 128}};
    for (int i = 0; i < COUNT(sizes); i++) {
        for (int by_head = 0; by_head < 2; by_head++) {
            for (int type = FA_F32; type <= FA_F16; type++) {
                const int64_t *n = sizes[i];
                size_t step = fa_dtype_size((fa_dtype)type) * (size_t)(by_head ? n[3] : n[1] * n[3]);
                fa_tensor view = packed_view((fa_dtype)type, by_head, 4, n);
                for (size_t a = 0; a < 4; a++) {
                    for (size_t b = 0; b < 4; b++)
                        ck_assert_int_eq(meet(&view, a * step, &view, b * step), a == b ? FA_MEET : FA_APART);
                    /* One element to the side it is in two places. */
                    size_t element = fa_dtype_size((fa_dtype)type);
                    if (n[3] > 1 && n[1] * n[2] * n[0] > 1)
                        ck_assert_int_eq(meet(&view, a * step + element, &view, step * (a ? a - 1 : 1) + 0),
                                         a ? FA_APART : FA_MEET);
                }
            }
        }
    }
}
END_TEST

/* Rows of f16 behind rows of f32 behind a flag for each key, as a struct would have them. */
START_TEST(elements_of_different_sizes)
{
    enum { ROW = 4 * 16 + 2 * 16 + 4 };
    const fa_tensor f32 = {FA_F32, {2, 3, 10, 16}, {30 * ROW / 4, 10 * ROW / 4, ROW / 4, 1}};
    const fa_tensor f16 = {FA_F16, {2, 3, 10, 16}, {30 * ROW / 2, 10 * ROW / 2, ROW / 2, 1}};
    const fa_tensor flag = {FA_BOOL, {2, 3, 10, 1}, {30 * ROW, 10 * ROW, ROW, 1}};
    ck_assert_int_eq(meet(&f32, 0, &f16, 64), FA_APART);
    ck_assert_int_eq(meet(&f32, 0, &f16, 62), FA_MEET);
    ck_assert_int_eq(meet(&f32, 0, &flag, 96), FA_APART);
    ck_assert_int_eq(meet(&f16, 64, &flag, 96), FA_APART);
    ck_assert_int_eq(meet(&f16, 64, &flag, 95), FA_MEET);
    ck_assert_int_eq(meet(&f16, 64, &flag, ROW + 63), FA_APART);
    ck_assert_int_eq(meet(&f32, 0, &flag, ROW + 63), FA_MEET);
    /* The same rows in the order of another layout: heads of o innermost, heads of q outermost. */
    const fa_tensor other = {FA_F32, {2, 3, 10, 16}, {30 * ROW / 4, ROW / 4, 3 * ROW / 4, 1}};
    ck_assert_int_eq(meet(&other, 64, &f32, 0), FA_MEET);
    ck_assert_int_eq(meet(&other, 64, &f16, 64), FA_MEET);
    ck_assert_int_eq(meet(&flag, 98, &other, 0), FA_APART);
}
END_TEST

/* Strides that fit nothing: an answer in bounded time, and never that they are apart where they are not. */
START_TEST(strides_that_fit_nothing)
{
    random_state random = {2};
    clock_t start = clock();
    for (int n = 0; n < 300; n++) {
        fa_tensor t[2];
        for (int i = 0; i < 2; i++) {
            t[i] = (fa_tensor){.dtype = FA_BOOL, .shape = {1, 1, 1, 1}, .stride = {0, 0, 0, 1}};
            for (int axis = 0; axis < 3; axis++) {
                t[i].shape[axis] = random_between(&random, 1000, (int64_t)1 << 30);
                t[i].stride[axis] = random_between(&random, 1 << 10, (int64_t)1 << 30);
            }
        }
        /* An element of the one is an element of the other. */
        const int64_t in_a[3] = {random_between(&random, 0, 999), random_between(&random, 0, 999),
                                 random_between(&random, 0, 999)};
        size_t a_at = (size_t)1 << 61,
               at = a_at +
                    (size_t)(in_a[0] * t[0].stride[0] + in_a[1] * t[0].stride[1] + in_a[2] * t[0].stride[2]);
        size_t b_at =
            at - (size_t)(in_a[1] * t[1].stride[0] + in_a[2] * t[1].stride[1] + in_a[0] * t[1].stride[2]);
        ck_assert_int_ne(meet(&t[0], a_at, &t[1], b_at), FA_APART);
    }
    ck_assert_msg(clock() - start < 20 * CLOCKS_PER_SEC, "unbounded work");
}
END_TEST

START_TEST(ends_of_memory)
{
    const fa_tensor row = fa_tensor_make(FA_F32, 1, 1, 1, 16);
    fa_tensor t = row;
    ck_assert_int_eq(fa_tensor_normalise(&t, "t", false), FA_OK);
    size_t end = SIZE_MAX - 127;
    ck_assert_int_eq(meet(&t, end, &t, end + 60), FA_MEET);
    ck_assert_int_eq(meet(&t, end, &t, end + 64 - 1), FA_MEET);
    ck_assert_int_eq(meet(&t, 0, &t, end), FA_APART);
    const fa_tensor wide = {FA_F16, {2, 1, 1, 4}, {(int64_t)1 << 61, 9, 9, 1}};
    const fa_tensor far = {FA_F32, {2, 1, 1, 1}, {(int64_t)1 << 60, 0, 0, 1}};
    ck_assert_int_eq(meet(&wide, 64, &far, 64), FA_MEET);
    ck_assert_int_eq(meet(&wide, 64, &far, 72), FA_APART);
    ck_assert_int_eq(meet(&wide, 64 + ((size_t)1 << 62), &far, 64), FA_MEET);
    ck_assert_int_eq(meet(&wide, 8 + ((size_t)1 << 62), &far, 4), FA_APART);
    /* Nothing has no byte; other memory has others. */
    const fa_extent some = fa_extent_of_bytes(64, NULL, 0), none = fa_extent_of_bytes(0, NULL, 8),
                    elsewhere = fa_extent_of_bytes(64, &some, 0);
    ck_assert_int_eq(fa_extents_meet(&some, &none), FA_APART);
    ck_assert_int_eq(fa_extents_meet(&some, &elsewhere), FA_APART);
    ck_assert_int_eq(fa_extents_meet(&some, &some), FA_MEET);
}
END_TEST

Suite *overlap_suite(void)
{
    Suite *suite = suite_create("overlap");
    TCase *tc = tcase_create("overlap");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, random_tensors);
    tcase_add_test(tc, packed_layouts);
    tcase_add_test(tc, elements_of_different_sizes);
    tcase_add_test(tc, strides_that_fit_nothing);
    tcase_add_test(tc, ends_of_memory);
    suite_add_tcase(suite, tc);
    return suite;
}
