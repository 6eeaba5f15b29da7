/* SPDX-License-Identifier: Apache-2.0 */
/* What descriptions mean: the problem that validation makes of them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "suites.h"
#include "test_problem.h"

START_TEST(defaults_are_filled_in)
{
    fa_attention_desc d = base();
    fa_problem p = accept(&d);
    ck_assert(p.scale == 0.25f && p.softcap == 0);
    ck_assert_int_eq(p.heads_q, 4);
    ck_assert_int_eq(p.heads_kv, 2);
    ck_assert_int_eq(p.group, 2);
    ck_assert_uint_eq(p.features, FA_FEATURE_GROUPS);
    ck_assert_int_eq(p.sequences, 2);
    ck_assert_int_eq(p.sequence[1].q_batch, 1);
    ck_assert_int_eq(p.tensor[FA_Q].stride[0], 4 * 8 * 16);
    ck_assert_int_eq(p.tensor[FA_Q].stride[3], 1);
    ck_assert_uint_eq(p.span[FA_K], 2 * 2 * 12 * 16 * 4);
    ck_assert_uint_eq(p.span[FA_BIAS], 0);
    ck_assert_uint_eq(p.span[FA_LSE], 0);
    fa_problem_release(context, &p);
    ck_assert_ptr_null(p.sequence);

    d.want_lse = 1;
    d.scale = -3;
    d.softcap = 30;
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    const float values[4] = {1, 2, 3, 4};
    d.alibi_slopes = d.sinks = values;
    p = accept(&d);
    ck_assert_uint_eq(p.span[FA_LSE], 2 * 4 * 8 * 4);
    ck_assert(p.scale == -3 && p.softcap == 30);
    ck_assert_uint_eq(p.features, FA_FEATURE_GROUPS | FA_FEATURE_LSE | FA_FEATURE_SOFTCAP | FA_FEATURE_MASK |
                                      FA_FEATURE_ALIBI | FA_FEATURE_SINKS);
    ck_assert(p.sinks[3] == 4 && p.alibi_slopes[0] == 1 && p.sinks != values); /* copied */
    fa_problem_release(context, &p);
}
END_TEST

/* A mask that hides nothing costs nothing. */
START_TEST(masks_that_hide_nothing_are_no_feature)
{
    fa_attention_desc d = make_desc(1, 1, 1, 1, 9, 4);
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    d.window_left = 9;
    fa_problem p = accept(&d);
    ck_assert_uint_eq(p.features & FA_FEATURE_MASK, 0);
    fa_problem_release(context, &p);
    d.window_left = 8;
    p = accept(&d);
    ck_assert_uint_eq(p.features & FA_FEATURE_MASK, FA_FEATURE_MASK);
    fa_problem_release(context, &p);
}
END_TEST

/* attention.h, in its words: alignment, p(i), causality, windows, prefix. */
static bool sees(const fa_attention_desc *d, int64_t len_q, int64_t len_kv, int64_t i, int64_t j)
{
    bool top_left = d->mask == FA_MASK_CAUSAL_TOP_LEFT || d->alignment == FA_ALIGN_TOP_LEFT;
    int64_t alignment = top_left ? 0 : len_kv - len_q;
    int64_t p = i + alignment + d->diagonal_offset;
    if (j < d->prefix)
        return true;
    if (d->mask != FA_MASK_NONE && j > p)
        return false;
    if (d->window_left > 0 && p - j >= d->window_left)
        return false;
    return d->window_right == 0 || j - p < d->window_right;
}

/* Beside a causal mask a window to the right is held to as well, and cuts nothing that the mask leaves. */
START_TEST(windows_to_the_right_of_a_causal_mask)
{
    static const int64_t windows[] = {0, 1, 2, 7, FA_MAX_LENGTH, INT64_MAX};
    for (int kind = FA_MASK_CAUSAL_TOP_LEFT; kind <= FA_MASK_CAUSAL_BOTTOM_RIGHT; kind++) {
        for (int i = 0; i < COUNT(windows); i++) {
            fa_attention_desc d = make_desc(1, 1, 1, 9, 13, 1);
            d.mask = (fa_mask_kind)kind;
            d.window_right = windows[i];
            fa_problem p = accept(&d);
            for (int cell = 0; cell < 9 * 13; cell++) {
                int row = cell / 13, key = cell % 13, at = row + (kind == FA_MASK_CAUSAL_TOP_LEFT ? 0 : 4);
                ck_assert_int_eq(fa_mask_visible(p.sequence[0].mask, row, key), key <= at);
            }
            fa_problem_release(context, &p);
        }
    }
}
END_TEST

/* Numbers at the ends of their types where nothing is stepped along or read: no product of them overflows. */
START_TEST(strides_that_are_not_used)
{
    static const int64_t rows[] = {0, 0, 0, 0}, keys[] = {0, 0, 1, 1};
    const fa_tensor one = {FA_F32, {1, 1, 1, 4}, {INT64_MAX, INT64_MAX, INT64_MAX, 1}};
    const fa_tensor none = {FA_F32, {1, 1, 0, 4}, {INT64_MAX, INT64_MAX, INT64_MAX, 1}};
    fa_attention_desc d = {.struct_size = sizeof(d), .q = none, .k = one, .v = one, .o = none};
    d.sequences = 3;
    d.cu_rows_q = rows;
    d.cu_rows_kv = keys;
    d.want_lse = 1;
    fa_problem p = accept(&d);
    for (int n = 0; n < 3; n++) {
        const fa_sequence *s = &p.sequence[n];
        ck_assert_int_eq(fa_tensor_offset(&p.tensor[FA_K], s->kv_batch, 0, s->kv_row), 0);
        ck_assert_int_eq(fa_tensor_offset(&p.tensor[FA_O], s->q_batch, 0, s->q_row), 0);
    }
    fa_problem_release(context, &p);
    /* A batch of nothing: each entry would be a stride further. */
    const fa_tensor empty = {FA_F32, {5, 2, 0, 4}, {INT64_MAX, INT64_MAX, INT64_MAX, 1}};
    d = make_desc(5, 2, 2, 3, 3, 4);
    d.k = d.v = empty;
    p = accept(&d);
    for (int n = 0; n < 5; n++)
        ck_assert_int_eq(fa_tensor_offset(&p.tensor[FA_K], p.sequence[n].kv_batch, 1, 0), 0);
    fa_problem_release(context, &p);
    fa_device *device;
    static float q[5 * 2 * 3 * 4], o[5 * 2 * 3 * 4];
    if (fa_device_open(context, "openmp", NULL, &device) == FA_OK) {
        memset(o, 0x55, sizeof(o));
        ck_assert_int_eq(fa_attention_host(device, &d, q, q, q, NULL, NULL, o, NULL), FA_OK);
        for (int i = 0; i < COUNT(o); i++)
            ck_assert(o[i] == 0);
        fa_device_close(device);
    }
}
END_TEST

START_TEST(masks_mean_what_the_header_says)
{
    random_state random = {1};
    static const int64_t far[] = {1, FA_MAX_LENGTH, (int64_t)1 << 30, ((int64_t)1 << 30) + 1, INT64_MAX};
    for (int n = 0; n < 3000; n++) {
        int64_t len_q = random_between(&random, 1, 12), len_kv = random_between(&random, 1, 12);
        fa_attention_desc d = make_desc(1, 1, 1, len_q, len_kv, 1);
        d.mask = (fa_mask_kind)random_between(&random, 0, 2);
        if (d.mask == FA_MASK_NONE || random_bits(&random) % 2)
            d.alignment = d.mask ? (fa_alignment)d.mask : (fa_alignment)random_between(&random, 0, 2);
        d.window_left =
            random_bits(&random) % 2 ? random_between(&random, 0, 14) : far[random_bits(&random) % 5];
        d.window_right =
            random_bits(&random) % 2 ? random_between(&random, 0, 14) : far[random_bits(&random) % 5];
        d.prefix = random_bits(&random) % 2   ? 0
                   : random_bits(&random) % 8 ? random_between(&random, 0, 14)
                                              : INT64_MAX;
        d.diagonal_offset = random_bits(&random) % 8   ? random_between(&random, -15, 15)
                            : random_bits(&random) % 2 ? FA_MAX_LENGTH
                                                       : -FA_MAX_LENGTH;
        fa_problem p = accept(&d);
        for (int64_t cell = 0; cell < len_q * len_kv; cell++) {
            int64_t i = cell / len_kv, j = cell % len_kv;
            if (fa_mask_visible(p.sequence[0].mask, (int)i, (int)j) != sees(&d, len_q, len_kv, i, j))
                ck_abort_msg(
                    "mask %d, window %lld %lld, prefix %lld, offset %lld, %lld x %lld: row %lld, key %lld",
                    (int)d.mask, (long long)d.window_left, (long long)d.window_right, (long long)d.prefix,
                    (long long)d.diagonal_offset, (long long)len_q, (long long)len_kv, (long long)i,
                    (long long)j);
        }
        fa_problem_release(context, &p);
    }
}
END_TEST

START_TEST(sequences_are_where_the_offsets_say)
{
    const int64_t cu_q[] = {1, 1, 8, 10}, lens[] = {5, 0, 12};
    fa_attention_desc d = make_desc(1, 4, 2, 10, 12, 16);
    d.k.shape[0] = d.v.shape[0] = 3;
    d.cu_rows_q = cu_q;
    d.lens_kv = lens;
    d.sequences = 3;
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    d.want_lse = 1;
    fa_problem p = accept(&d);
    static const struct {
        int64_t q_row, kv_batch;
        int32_t len_q, len_kv, diagonal;
    } expected[] = {{1, 0, 0, 5, 5}, {1, 1, 7, 0, -7}, {8, 2, 2, 12, 10}};
    ck_assert_int_eq(p.sequences, 3);
    for (int n = 0; n < 3; n++) {
        const fa_sequence *s = &p.sequence[n];
        ck_assert_int_eq(s->q_batch, 0);
        ck_assert_int_eq(s->q_row, expected[n].q_row);
        ck_assert_int_eq(s->kv_batch, expected[n].kv_batch);
        ck_assert_int_eq(s->kv_row, 0);
        ck_assert_int_eq(s->len_q, expected[n].len_q);
        ck_assert_int_eq(s->len_kv, expected[n].len_kv);
        ck_assert_int_eq(s->mask.diagonal, expected[n].diagonal);
        ck_assert_int_eq(s->mask.len_kv, expected[n].len_kv);
    }
    ck_assert_int_eq(p.max_len_q, 7);
    ck_assert_int_eq(p.max_len_kv, 12);
    ck_assert(p.features & FA_FEATURE_SEQUENCES);
    ck_assert_int_eq(fa_problem_lse_index(&p, &p.sequence[2], 3, 1), 3 * 10 + 9);
    fa_problem_release(context, &p);
}
END_TEST

static bool same_sequences(const fa_problem *a, const fa_problem *b)
{
    bool same = a->sequences == b->sequences && a->features == b->features;
    for (int64_t n = 0; same && n < a->sequences; n++) {
        const fa_sequence *s = &a->sequence[n], *t = &b->sequence[n];
        same = s->q_batch == t->q_batch && s->q_row == t->q_row && s->kv_batch == t->kv_batch &&
               s->kv_row == t->kv_row && s->len_q == t->len_q && s->len_kv == t->len_kv &&
               memcmp(&s->mask, &t->mask, sizeof(s->mask)) == 0;
    }
    return same;
}

/* Offsets and lengths say the same in either width. */
START_TEST(lists_of_either_width)
{
    static const int64_t cu_q[] = {0, 3, 8}, cu_kv[] = {1, 1, 12}, lens_q[] = {8, 5}, lens_kv[] = {0, 12};
    static const int32_t cu_q32[] = {0, 3, 8}, cu_kv32[] = {1, 1, 12}, lens_q32[] = {8, 5},
                         lens_kv32[] = {0, 12};
    for (int which = 0; which < 16;
         which++) { /* packed or with lengths, on each side, and which of the two is narrow */
        fa_attention_desc wide = base();
        wide.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        if (which & 3)
            wide.sequences = 2;
        if (which & 1)
            wide.q.shape[0] = wide.o.shape[0] = 1;
        if (which & 2)
            wide.k.shape[0] = wide.v.shape[0] = 1;
        fa_attention_desc mixed = wide;
        wide.cu_rows_q = which & 1 ? cu_q : NULL;
        wide.lens_q = which & 1 ? NULL : lens_q;
        wide.cu_rows_kv = which & 2 ? cu_kv : NULL;
        wide.lens_kv = which & 2 ? NULL : lens_kv;
        mixed.cu_rows_q = which & 4 ? NULL : wide.cu_rows_q;
        mixed.lens_q = which & 4 ? NULL : wide.lens_q;
        mixed.cu_rows_kv = which & 8 ? NULL : wide.cu_rows_kv;
        mixed.lens_kv = which & 8 ? NULL : wide.lens_kv;
        mixed.cu_rows_q32 = (which & 5) == 5 ? cu_q32 : NULL;
        mixed.lens_q32 = (which & 5) == 4 ? lens_q32 : NULL;
        mixed.cu_rows_kv32 = (which & 10) == 10 ? cu_kv32 : NULL;
        mixed.lens_kv32 = (which & 10) == 8 ? lens_kv32 : NULL;
        fa_problem p = accept(&wide), q = accept(&mixed);
        ck_assert(p.features & FA_FEATURE_SEQUENCES);
        ck_assert(same_sequences(&p, &q));
        fa_problem_release(context, &p);
        fa_problem_release(context, &q);
    }
}
END_TEST

/* A padded encoder: the rows in use stand at the keys in use, wherever the padding ends. */
START_TEST(lengths_of_rows)
{
    const int64_t lens[] = {3, 0, 9};
    fa_attention_desc d = make_desc(3, 2, 2, 9, 9, 4);
    d.lens_q = d.lens_kv = lens;
    fa_problem p = accept(&d);
    for (int n = 0; n < 3; n++) {
        ck_assert_int_eq(p.sequence[n].q_batch, n);
        ck_assert_int_eq(p.sequence[n].q_row, 0);
        ck_assert_int_eq(p.sequence[n].len_q, lens[n]);
        ck_assert_int_eq(p.sequence[n].len_kv, lens[n]);
        ck_assert_int_eq(p.sequence[n].mask.diagonal, 0);
    }
    ck_assert_int_eq(p.max_len_q, 9);
    fa_problem_release(context, &p);
}
END_TEST

START_TEST(slopes_of_each_sequence)
{
    static const float slopes[] = {1, 2, 3, 4, NAN, 5, 6, 7, 8};
    fa_attention_desc d = base();
    d.alibi_slopes = slopes;
    d.alibi_stride = 5;
    fa_problem p = accept(&d);
    for (int h = 0; h < 4; h++)
        ck_assert(fa_problem_slope(&p, 0, h) == (float)(1 + h) &&
                  fa_problem_slope(&p, 1, h) == (float)(5 + h));
    fa_problem_release(context, &p);
    d.alibi_stride = 0;
    p = accept(&d);
    ck_assert(fa_problem_slope(&p, 1, 3) == 4);
    fa_problem_release(context, &p);
}
END_TEST

START_TEST(a_scale_of_zero)
{
    fa_attention_desc d = base();
    d.scale_is_set = 1;
    fa_problem p = accept(&d);
    ck_assert(p.scale == 0);
    fa_problem_release(context, &p);
    d.scale = 3;
    p = accept(&d);
    ck_assert(p.scale == 3);
    fa_problem_release(context, &p);
}
END_TEST

/* Strides that no element is reached by do not matter: not to spans, overlaps or what kernels are told. */
START_TEST(strides_of_single_axes)
{
    static const int64_t odd[] = {0, 7, -1, INT64_MAX, INT64_MIN};
    for (int at = 0; at < COUNT(operand); at++) {
        for (int i = 0; i < COUNT(odd) * 4; i++) {
            fa_attention_desc d = make_desc(1, 1, 1, 1, 1, 1);
            d.bias = fa_tensor_make(FA_F32, 1, 1, 1, 1);
            d.keep = fa_tensor_make(FA_BOOL, 1, 1, 1, 1);
            fa_problem plain = accept(&d);
            fa_tensor *tensor = (fa_tensor *)(void *)((char *)&d + operand[at].offset);
            tensor->stride[i % 4] = odd[i / 4];
            fa_problem p = accept(&d);
            ck_assert_int_eq(memcmp(p.tensor, plain.tensor, sizeof(p.tensor)), 0);
            ck_assert_int_eq(memcmp(p.span, plain.span, sizeof(p.span)), 0);
            fa_problem_release(context, &p);
            fa_problem_release(context, &plain);
        }
    }
}
END_TEST

/* Bias and keep may have one element for all keys, whatever the size of that axis; the others may not. */
START_TEST(keys_repeated)
{
    for (int t = 0; t < COUNT(operand); t++) {
        fa_attention_desc d = base_with_extras();
        fa_tensor *tensor = (fa_tensor *)(void *)((char *)&d + operand[t].offset);
        for (int axis = 0; axis < 3; axis++)
            tensor->stride[axis] = (int64_t)10000 >> 4 * axis;
        char message[80];
        snprintf(message, sizeof(message), "%s.stride[3] is 0, expected 1", operand[t].name);
        if (t < 4) {
            refuse(&d, FA_INVALID, message);
            continue;
        }
        fa_problem p = accept(&d);
        ck_assert_int_eq(p.tensor[t == 4 ? FA_BIAS : FA_KEEP].stride[3], 0);
        ck_assert_uint_eq(p.span[t == 4 ? FA_BIAS : FA_KEEP],
                          (10000 + 3 * 625 + 7 * 39 + 1) * fa_dtype_size(tensor->dtype));
        fa_problem_release(context, &p);
        tensor->shape[3] = 1;
        p = accept(&d);
        ck_assert_int_eq(p.tensor[t == 4 ? FA_BIAS : FA_KEEP].stride[3], 0);
        fa_problem_release(context, &p);
    }
}
END_TEST

/* Each size at 0, on its own and with others: valid. */
START_TEST(empty_problems_are_valid)
{
    for (int zero = 1; zero < 16; zero++) {
        int64_t heads = zero & 2 ? 0 : 2;
        fa_attention_desc d =
            make_desc(zero & 1 ? 0 : 2, heads, heads, zero & 4 ? 0 : 8, zero & 8 ? 0 : 12, 16);
        d.want_lse = 1;
        fa_problem p = accept(&d);
        fa_problem_release(context, &p);
    }
    const int64_t none[] = {0};
    fa_attention_desc no_heads = make_desc(1, 0, 0, FA_MAX_LENGTH, FA_MAX_LENGTH, 16);
    fa_problem many_rows = accept(&no_heads);
    fa_problem_release(context, &many_rows);
    fa_attention_desc d = make_desc(1, 2, 2, 0, 0, 16);
    d.cu_rows_q = d.cu_rows_kv = none;
    fa_problem p = accept(&d);
    ck_assert_int_eq(p.sequences, 0);
    fa_problem_release(context, &p);
}
END_TEST

Suite *problem_suite(void)
{
    Suite *suite = suite_create("problem");
    problem_add_refusals(suite);
    TCase *good = add_context_case(suite, "normalised");
    tcase_add_test(good, defaults_are_filled_in);
    tcase_add_test(good, masks_that_hide_nothing_are_no_feature);
    tcase_add_test(good, masks_mean_what_the_header_says);
    tcase_add_test(good, windows_to_the_right_of_a_causal_mask);
    tcase_add_test(good, strides_that_are_not_used);
    tcase_add_test(good, sequences_are_where_the_offsets_say);
    tcase_add_test(good, lists_of_either_width);
    tcase_add_test(good, lengths_of_rows);
    tcase_add_test(good, slopes_of_each_sequence);
    tcase_add_test(good, a_scale_of_zero);
    tcase_add_test(good, strides_of_single_axes);
    tcase_add_test(good, keys_repeated);
    tcase_add_test(good, empty_problems_are_valid);
    return suite;
}
