/* SPDX-License-Identifier: Apache-2.0 */
/* Appends: every format against ggml's own bytes, slots, layouts. On the CPU backend. */
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "append_case.h"
#include "core/append/rotary.h"
#include "suites.h"

/* Every append_element of the cache: what was appended there, or what was there. */
static void check_cache(const append_scene *s, const fa_tensor *t, const append_piece *m, int of_v,
                        float tolerance)
{
    const int32_t *slots = (const void *)s->slots.at;
    for (int slot = 0; slot < ENTRIES * KEYS; slot++) {
        int row = -1;
        for (int i = 0; i < BATCH * ROWS; i++)
            row = slots[i] == slot ? i : row;
        for (int head = 0; head < HEADS; head++) {
            const int64_t at = ((slot / KEYS * HEADS + head) * KEYS + slot % KEYS) * t->shape[3];
            for (int d = 0; d < t->shape[3] && row >= 0; d++) {
                const float found = fa_element(t->dtype, m->at, at + d),
                            appended = append_element(of_v, row, head, d);
                if (!(fabsf(found - appended) < tolerance))
                    ck_abort_msg("row %d, head %d, dim %d is %g, expected %g", row, head, d, (double)found,
                                 (double)appended);
            }
            const size_t block = (size_t)(at / fa_dtype_block(t->dtype)) * fa_dtype_size(t->dtype);
            for (size_t b = 0; row < 0 && b < fa_dtype_size(t->dtype); b++) {
                if (m->at[block + b] != 0xa5)
                    ck_abort_msg("slot %d, head %d: a byte that nobody appended is %d", slot, head,
                                 m->at[block + b]);
            }
        }
    }
}

/* Row 0 of head 0 goes to key 3 of entry 0, to the bits that plain C makes. */
static void check_bits(const append_scene *s)
{
    const fa_dtype dtype = s->desc.cache_k.dtype;
    const size_t bytes = DIM_QK / (size_t)fa_dtype_block(dtype) * fa_dtype_size(dtype);
    float x[DIM_QK];
    unsigned char expected[DIM_QK * sizeof(float)];
    for (int d = 0; d < DIM_QK; d++)
        x[d] = fa_element(s->desc.k.dtype, s->k.at, d);
    fa_elements_store(dtype, expected, 0, x, DIM_QK);
    ck_assert_mem_eq(s->cache_k.at + 3 * bytes, expected, bytes);
}

/* Half a step of each format, for elements of up to 4.5, and the rounding of its scale. */
START_TEST(every_format)
{
    static const struct {
        fa_dtype dtype;
        float tolerance;
    } row[] = {{FA_F32, 0},      {FA_F16, 0.003f},  {FA_BF16, 0.02f}, {FA_E4M3, 0.26f},
               {FA_E5M2, 0.51f}, {FA_Q8_0, 0.025f}, {FA_Q4_0, 0.65f}, {FA_Q4_1, 0.35f},
               {FA_Q5_0, 0.35f}, {FA_Q5_1, 0.16f},  {FA_IQ4_NL, 0.7f}};
    for (int i = 0; i < COUNT(row) * 2; i++) {
        append_scene s;
        const fa_append_desc d =
            append_desc_of(i % 2 ? FA_F16 : FA_F32, row[i / 2].dtype, row[COUNT(row) - 1 - i / 2].dtype);
        append_make_scene(&s, &d);
        ck_assert_int_eq(fa_append_run(s.append, append_queue, &s.args), FA_OK);
        ck_assert_int_eq(fa_queue_wait(append_queue), FA_OK);
        check_bits(&s);
        check_cache(&s, &s.desc.cache_k, &s.cache_k, 0, row[i / 2].tolerance + 0.003f);
        check_cache(&s, &s.desc.cache_v, &s.cache_v, 1, row[COUNT(row) - 1 - i / 2].tolerance + 0.003f);
        append_free_scene(&s);
    }
}
END_TEST

/* What the quantiser of ggml's own Python package makes of append_element(0, 0, 0, 0..31). */
START_TEST(bytes_of_ggml)
{
    static const struct {
        fa_dtype dtype;
        const char *hex;
    } row[] = {
        {FA_Q8_0, "4d28941eba43df6904a02ac44feb730fab34d05af57f1bb640dc64009c25c14be670"},
        {FA_Q4_0, "44b8bf269c046ad148ae258ce369c137ad15"},
        {FA_Q4_1, "353840c340d962fb952eb751da731c963ec851ea"},
        {FA_Q5_0, "44b4d54aa5566e5c1908d493805c3b08d6b3817e3b29"},
        {FA_Q5_1, "133440c32ab55aa980a2d5f72a4c7f92c4e6193b6d80b3d5"},
    };
    for (int i = 0; i < COUNT(row); i++) {
        append_scene s;
        char text[80] = "";
        const fa_append_desc d = append_desc_of(FA_F32, row[i].dtype, FA_F32);
        append_make_scene(&s, &d);
        ck_assert_int_eq(fa_append_run(s.append, append_queue, &s.args), FA_OK);
        /* Row 0 goes to slot 3: key 3 of entry 0. */
        const unsigned char *at = s.cache_k.at + 3 * DIM_QK / 32 * fa_dtype_size(row[i].dtype);
        for (size_t b = 0; b < fa_dtype_size(row[i].dtype); b++)
            (void)snprintf(text + 2 * b, 3, "%02x", at[b]);
        ck_assert_str_eq(text, row[i].hex);
        append_free_scene(&s);
    }
}
END_TEST

/* Elements that are not finite: fp8 keeps NaN and saturates, a block that holds one becomes NaN. */
START_TEST(not_finite)
{
    static const fa_dtype formats[] = {FA_E4M3, FA_E5M2, FA_Q8_0, FA_Q4_0,
                                       FA_Q4_1, FA_Q5_0, FA_Q5_1, FA_IQ4_NL};
    for (int i = 0; i < COUNT(formats) * 2; i++) {
        append_scene s;
        const fa_dtype dtype = formats[i / 2];
        const fa_append_desc d = append_desc_of(FA_F32, dtype, FA_F32);
        append_make_scene(&s, &d);
        ((float *)(void *)s.k.at)[5] = i % 2 ? NAN : -INFINITY;
        ck_assert_int_eq(fa_append_run(s.append, append_queue, &s.args), FA_OK);
        const float found = fa_element(dtype, s.cache_k.at, 3 * DIM_QK + 5);
        if (dtype <= FA_E5M2 && i % 2 == 0)
            ck_assert_float_eq(found, dtype == FA_E4M3 ? -448.0f : -57344.0f);
        else
            ck_assert(isnan(found));
        ck_assert(!isnan(fa_element(dtype, s.cache_k.at, 3 * DIM_QK + 32))); /* another block */
        append_free_scene(&s);
    }
}
END_TEST

/* Blocks of any size, also of the smallest numbers, to the bits of plain C; elements halfway between two codes too. */
START_TEST(blocks_of_any_size)
{
    fa_append_desc d = append_desc_of(FA_F32, FA_Q8_0, FA_Q8_0);
    append_scene s;
    append_make_scene(&s, &d);
    float *k = (void *)s.k.at;
    for (int power = -149; power < 128; power += 3) {
        unsigned char expected[DIM_QK / 32 * 34];
        for (int i = 0; i < DIM_QK; i++)
            k[i] = ldexpf(i == 3 ? 127.0f / 64 : (float)(i * 53 % 255 - 127) / 128,
                          power < 0 ? power + 1 : power - 1);
        fa_elements_store(FA_Q8_0, expected, 0, k, DIM_QK);
        ck_assert_int_eq(fa_append_run(s.append, append_queue, &s.args), FA_OK);
        ck_assert_mem_eq(s.cache_k.at + 3 * sizeof(expected), expected, sizeof(expected));
    }
    append_free_scene(&s);
}
END_TEST

/* A row that is not finite has NaN for its scale, and so becomes NaN; 0 for zeros. */
START_TEST(scales_of_no_numbers)
{
    fa_append_desc d = append_scaled_desc();
    append_scene s;
    append_make_scene(&s, &d);
    append_piece k_scale = append_make_tensor(&d.k_scale), v_scale = append_make_tensor(&d.v_scale),
                 v_zero = append_make_tensor(&d.v_zero);
    s.args.k_scale = k_scale.buffer;
    s.args.v_scale = v_scale.buffer;
    s.args.v_zero = v_zero.buffer;
    float *k = (void *)s.k.at, *v = (void *)s.v.at;
    k[DIM_QK - 1] = INFINITY;
    for (int d2 = 0; d2 < DIM_V; d2++)
        v[d2] = d2 < 16 ? 0 : d2 == 20 ? NAN : 1;
    ck_assert_int_eq(fa_append_run(s.append, append_queue, &s.args), FA_OK);
    /* Row 0 goes to key 3 of entry 0. */
    ck_assert(isnan(fa_element(FA_F32, k_scale.at, 3)));
    ck_assert(!isnan(fa_element(FA_F32, k_scale.at, KEYS + 3)));
    ck_assert_float_eq(fa_element(FA_F16, v_scale.at, 6), 0);
    ck_assert_float_eq(fa_element(FA_F16, v_zero.at, 6), 0);
    ck_assert(isnan(fa_element(FA_F16, v_scale.at, 7)));
    ck_assert_float_eq(fa_element(FA_U4, s.cache_v.at, 3 * DIM_V), 0);
    append_free_piece(&k_scale);
    append_free_piece(&v_scale);
    append_free_piece(&v_zero);
    append_free_scene(&s);
}
END_TEST

/* FlashMLA's rows are whole, and of keys. */
START_TEST(latent_rows)
{
    fa_append *append;
    fa_append_desc d = append_desc_of(FA_F32, FA_FP8_DS_MLA, FA_F32);
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_k.shape[3] is 64, expected 576 with cache_k.dtype fp8_ds_mla");
    d.k.shape[3] = d.cache_k.shape[3] = 512;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_k.shape[3] is 512, expected 576 with cache_k.dtype fp8_ds_mla");
    d.k.shape[3] = d.cache_k.shape[3] = 576;
    d.cache_v.dtype = FA_FP8_DS_MLA;
    d.v.shape[3] = d.cache_v.shape[3] = 576;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_v.dtype is fp8_ds_mla, expected no v: it is the first 512 dims of k");
    d.v = d.cache_v = (fa_tensor){0};
    d.k_scale = fa_tensor_make(FA_F32, ENTRIES, HEADS, KEYS, 1);
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_k.dtype is fp8_ds_mla with k_scale, expected");
    d.k_scale = (fa_tensor){0};
    d.rotary = (fa_rotary){.form = FA_ROTARY_HALVES, .dims = 64};
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "rotary.form is 2, expected 0 with cache_k.dtype fp8_ds_mla");
}
END_TEST

/*
 * Such rows keep the largest magnitudes after rotation: dims 3 and 19, less than ten others, turn into one that is more and
 * one that is 0. What lies between rows stays as it was.
 */
START_TEST(bitmap_rows)
{
    fa_append *append;
    fa_append_desc d = append_desc_of(FA_F32, FA_BITMAP_F16, FA_BITMAP_F16);
    d.k.shape[0] = d.k.shape[2] = 1;
    d.v.shape[0] = d.v.shape[2] = 1;
    d.cache_k = fa_tensor_make_bitmap(ENTRIES, HEADS, KEYS, DIM_QK, 10);
    d.cache_v = fa_tensor_make_bitmap(ENTRIES, HEADS, KEYS, DIM_V, 8);
    d.cache_v.stride[2] += 8;
    d.cache_v.stride[1] = KEYS * d.cache_v.stride[2];
    d.cache_v.stride[0] = HEADS * d.cache_v.stride[1];
    d.rotary = (fa_rotary){.form = FA_ROTARY_HALVES, .dims = 32};
    const double angle = 40 * pow(10000, -2.0 * 3 / 32), cosine = 1.98 * cos(angle), sine = 1.98 * sin(angle);
    append_piece k = append_make_tensor(&d.k), v = append_make_tensor(&d.v),
                 cache_k = append_make_tensor(&d.cache_k), cache_v = append_make_tensor(&d.cache_v),
                 slots = append_make_piece(sizeof(int32_t)), positions = append_make_piece(sizeof(int32_t));
    float *of_k = (float *)(void *)k.at, *of_v = (float *)(void *)v.at, found[DIM_QK];
    for (int i = 0; i < HEADS * DIM_QK; i++)
        of_k[i] = i % DIM_QK == 3        ? (float)cosine
                  : i % DIM_QK == 19     ? (float)-sine
                  : i % DIM_QK / 10 == 4 ? 1.5f
                                         : 0;
    ck_assert(fabs(cosine) < 1.5 && fabs(sine) < 1.5);
    for (int i = 0; i < HEADS * DIM_V; i++)
        of_v[i] = (float)(i % DIM_V);
    *(int32_t *)(void *)slots.at = 2 * KEYS + 1;
    *(int32_t *)(void *)positions.at = 40;
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = k.buffer,
        .v = v.buffer,
        .slots = slots.buffer,
        .cache_k = cache_k.buffer,
        .cache_v = cache_v.buffer,
        .positions = positions.buffer,
    };
    ck_assert_msg(fa_append_create(append_cpu, &d, &append) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_append_run(append, append_queue, &args) == FA_OK, "%s", fa_last_error());
    for (int h = 0; h < HEADS; h++) {
        const int64_t *stride = d.cache_k.stride;
        ck_assert_int_eq(
            fa_bitmap_load(cache_k.at + 2 * stride[0] + h * stride[1] + stride[2], stride[3], found, DIM_QK),
            FA_OK);
        for (int i = 0; i < DIM_QK; i++) {
            const float expected = i == 3 ? 1.98f : i >= 40 && i < 49 ? 1.5f : 0;
            ck_assert(fabsf(found[i] - expected) <= (i == 3 ? 2e-3f : 0));
        }
        stride = d.cache_v.stride;
        ck_assert_int_eq(
            fa_bitmap_load(cache_v.at + 2 * stride[0] + h * stride[1] + stride[2], stride[3], found, DIM_V),
            FA_OK);
        for (int i = 0; i < DIM_V; i++)
            ck_assert_float_eq(found[i], i < DIM_V - 8 ? 0 : (float)i);
    }
    for (size_t i = 0; i < cache_v.bytes; i++) {
        const int64_t row = (int64_t)i / d.cache_v.stride[2], within = (int64_t)i % d.cache_v.stride[2];
        const bool written = row / KEYS / HEADS == 2 && row % KEYS == 1 && within < d.cache_v.stride[3];
        ck_assert(written || cache_v.at[i] == 0xa5);
    }
    fa_append_destroy(append);
    append_piece *const all[] = {&k, &v, &cache_k, &cache_v, &slots, &positions};
    for (int i = 0; i < COUNT(all); i++)
        append_free_piece(all[i]);
}
END_TEST

/* A cache of keys alone. */
START_TEST(without_v)
{
    fa_append_desc d = append_desc_of(FA_F32, FA_F16, FA_F16);
    fa_append *append;
    memset(&d.v, 0, sizeof(d.v));
    memset(&d.cache_v, 0, sizeof(d.cache_v));
    append_piece k = append_make_tensor(&d.k), cache = append_make_tensor(&d.cache_k),
                 slots = append_make_piece(BATCH * ROWS * sizeof(int32_t));
    append_fill(&d.k, &k, 0);
    for (int i = 0; i < BATCH * ROWS; i++)
        ((int32_t *)(void *)slots.at)[i] = i;
    fa_append_args args = {
        .struct_size = sizeof(args), .k = k.buffer, .cache_k = cache.buffer, .slots = slots.buffer};
    ck_assert_int_eq(fa_append_create(append_cpu, &d, &append), FA_OK);
    ck_assert_int_eq(fa_append_run(append, append_queue, &args), FA_OK);
    ck_assert_float_eq_tol(fa_element(FA_F16, cache.at, 5), append_element(0, 0, 0, 5), 0.003f);
    args.v = k.buffer;
    ck_assert_int_eq(fa_append_run(append, append_queue, &args), FA_INVALID);
    assert_message("args.v is given, expected NULL");
    fa_append_destroy(append);
    append_free_piece(&k);
    append_free_piece(&cache);
    append_free_piece(&slots);
}
END_TEST

/* docs/numerics.md names the bound. */
START_TEST(rotation_is_exact_enough)
{
    static const fa_rotary forms[] = {
        {.form = FA_ROTARY_HALVES, .dims = 128, .base = 10000},
        {.form = FA_ROTARY_HALVES, .dims = 64, .base = 500000, .scaling = FA_ROTARY_LINEAR, .factor = 3},
        {.form = FA_ROTARY_HALVES,
         .dims = 128,
         .base = 10000,
         .scaling = FA_ROTARY_YARN,
         .factor = 32,
         .original_context = 4096,
         .beta_fast = 32,
         .beta_slow = 1},
    };
    double worst = 0;
    for (int f = 0; f < COUNT(forms); f++) {
        for (int pair = 0; pair < forms[f].dims / 2; pair += 3) {
            const double step = fa_rotary_frequency(&forms[f], pair);
            const fa_turn turn = fa_rotary_turn(&forms[f], pair);
            for (int64_t i = 0; i < 2000; i++) {
                const int position = (int)(i < 1000 ? i * 131 + 72 : INT32_MAX - i * 1000003);
                const fa_rotation r = fa_rotation_of(turn, position);
                worst = fmax(worst, fabs(r.cosine - cos(position * step)));
                worst = fmax(worst, fabs(r.sine - sin(position * step)));
            }
        }
    }
    ck_assert_double_lt(worst, 0x1p-22);
}
END_TEST

Suite *append_suite(void)
{
    Suite *suite = suite_create("append");
    TCase *tc = tcase_create("appends");
    tcase_set_timeout(tc, 120); /* sanitizers and a busy machine are slow */
    tcase_add_checked_fixture(tc, append_setup, append_teardown);
    tcase_add_test(tc, every_format);
    tcase_add_test(tc, bytes_of_ggml);
    tcase_add_test(tc, not_finite);
    tcase_add_test(tc, blocks_of_any_size);
    tcase_add_test(tc, scales_of_no_numbers);
    tcase_add_test(tc, latent_rows);
    tcase_add_test(tc, bitmap_rows);
    tcase_add_test(tc, without_v);
    tcase_add_test(tc, rotation_is_exact_enough);
    add_append_refusals(tc);
    suite_add_tcase(suite, tc);
    return suite;
}
