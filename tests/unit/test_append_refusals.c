/* SPDX-License-Identifier: Apache-2.0 */
/* Appends: what is refused, by field and value, with nothing written. */
#include <math.h>
#include <string.h>

#include "append_case.h"

START_TEST(refusals)
{
    append_scene s;
    fa_append *append = (fa_append *)1;
    fa_append_desc d = append_desc_of(FA_F32, FA_Q8_0, FA_F16);
    append_make_scene(&s, &d);
    int32_t *slots = (void *)s.slots.at;
    unsigned char before[1] = {s.cache_k.at[0]};
    slots[7] = ENTRIES * KEYS;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID,
            "slots[7] is 20, expected less than 20");
    slots[7] = slots[2];
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID,
            ", expected another than slots[2]: a slot is one row's");
    slots[7] = -5;
    s.args.v = NULL;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID, "args.v is NULL");
    s.args.v = s.cache_v.buffer;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID, "args.v has");
    s.args.v = s.v.buffer;
    s.args.cache_k_offset = 1;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID,
            "args.cache_k_offset is 1, expected a multiple of 2");
    ck_assert_uint_eq(s.cache_k.at[0], before[0]);
    d.cache_k.shape[3] = 48;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_k.shape[3] is 48, expected a multiple of 32");
    ck_assert_ptr_null(append);
    d = append_desc_of(FA_F32, FA_F32, FA_F32);
    d.k.dtype = FA_Q8_0;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "k.dtype is q8_0, expected f32, f16 or bf16");
    d = append_desc_of(FA_F32, FA_F32, FA_F32);
    d.cache_v.shape[0] = 2;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_v.shape[0] is 2, expected 5 as cache_k.shape[0]");
    d = append_desc_of(FA_F32, FA_F32, FA_F32);
    d.cache_k.stride[0] = 1;
    d.cache_k.stride[1] = DIM_QK;
    d.cache_k.stride[2] = DIM_QK;
    d.cache_k.stride[3] = 1;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID, "elements of cache_k overlap");
    d = append_desc_of(FA_F32, FA_F32, FA_F32);
    d.struct_size = 3;
    ck_assert_int_eq(fa_append_create(append_cpu, &d, &append), FA_INVALID);
    REFUSED(fa_append_create(append_cpu, NULL, &append), FA_INVALID, "desc is NULL");
    append_free_scene(&s);
}
END_TEST

START_TEST(scale_refusals)
{
    fa_append *append;
    fa_append_desc d = append_scaled_desc();
    d.k_scale = (fa_tensor){0};
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "k_scale is absent, expected scales: cache_k.dtype is i8");
    d = append_scaled_desc();
    d.cache_v.dtype = FA_Q8_0;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_v.dtype is q8_0 with v_scale, expected");
    d = append_scaled_desc();
    d.k_scale.shape[2] = 2;
    REFUSED(
        fa_append_create(append_cpu, &d, &append), FA_INVALID,
        "k_scale.shape is (5, 3, 2, 1): groups of keys share scales, expected (5, ..., 4, ...), one of each");
    d.k_scale.shape[2] = 1; /* a page is such a group too */
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "k_scale.shape is (5, 3, 1, 1): groups of keys");
    d = append_scaled_desc();
    d.k_scale.shape[3] = DIM_QK / 4;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "k_scale.shape[3] is 16, groups of 4 dims, expected groups of a multiple of 8");
    d = append_scaled_desc();
    d.v_factor = -2;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "v_factor is -2, expected a number above 0");
    d = append_scaled_desc();
    d.k_scale.stride[0] = HEADS * KEYS, d.k_scale.stride[1] = d.k_scale.stride[2] = 1;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID, "elements of k_scale overlap");
    d = append_scaled_desc();
    d.v_zero.shape[3] = 1;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "v_zero.shape[3] is 1, expected v_scale.shape[3], 2");
    d = append_scaled_desc();
    append_scene s;
    append_make_scene(&s, &d);
    append_piece k_scale = append_make_tensor(&d.k_scale), v_scale = append_make_tensor(&d.v_scale),
                 v_zero = append_make_tensor(&d.v_zero);
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID, "args.k_scale is NULL");
    s.args.k_scale = k_scale.buffer;
    s.args.v_scale = v_scale.buffer;
    s.args.v_zero = v_scale.buffer;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID, "v_scale");
    s.args.v_zero = v_zero.buffer;
    s.args.k_zero = v_zero.buffer;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID,
            "args.k_zero is given, expected NULL");
    s.args.k_zero = NULL;
    ((int32_t *)(void *)s.slots.at)[7] = ((int32_t *)(void *)s.slots.at)[2];
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID,
            ", expected another than slots[2]: a slot is one row's");
    const append_piece *all[] = {&s.cache_k, &s.cache_v, &k_scale, &v_scale, &v_zero};
    for (int i = 0; i < COUNT(all); i++) {
        for (size_t b = 0; b < all[i]->bytes; b++)
            ck_assert_uint_eq(all[i]->at[b], 0xa5);
    }
    ((int32_t *)(void *)s.slots.at)[7] = -1;
    ck_assert_int_eq(fa_append_run(s.append, append_queue, &s.args), FA_OK);
    append_free_piece(&k_scale);
    append_free_piece(&v_scale);
    append_free_piece(&v_zero);
    append_free_scene(&s);
}
END_TEST

/* What does not lie where rows that keep some of their elements can. */
START_TEST(bitmap_refusals)
{
    fa_append *append;
    fa_append_desc d = append_desc_of(FA_F32, FA_BITMAP_F16, FA_BITMAP_F16);
    d.cache_k.stride[3] = 8;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_k.stride[3] is 8, expected the bytes of a row");
    d.cache_k = fa_tensor_make_bitmap(ENTRIES, HEADS, KEYS, DIM_QK, 10);
    d.cache_k.stride[2] -= 4;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "cache_k.stride is (336, 112, 24, 28): elements of cache_k overlap");
    d.k.dtype = FA_BITMAP_F16;
    d.k.shape[3] = 36; /* which no row of that type has */
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "k.dtype is bitmap_f16, expected f32, f16 or bf16");
}
END_TEST

START_TEST(rotary_refusals)
{
    static const struct {
        fa_rotary rotary;
        const char *message;
    } row[] = {
        {{.form = (fa_rotary_form)3}, "rotary.form is 3, expected a value of fa_rotary_form"},
        {{.form = FA_ROTARY_HALVES, .dims = 7}, "rotary.dims is 7, expected an even number from 2 to 64"},
        {{.form = FA_ROTARY_HALVES, .dims = 66}, "rotary.dims is 66"},
        {{.form = FA_ROTARY_HALVES, .first_dim = 40, .dims = 26},
         "rotary.dims is 26, expected an even number from 2 to 24, the dims from rotary.first_dim on"},
        {{.form = FA_ROTARY_HALVES, .first_dim = 33},
         "rotary.dims is 31, expected an even number from 2 to 31"},
        {{.form = FA_ROTARY_HALVES, .first_dim = 63}, "rotary.first_dim is 63, expected 0 to 62"},
        {{.form = FA_ROTARY_HALVES, .first_dim = -2}, "rotary.first_dim is -2, expected 0 to 62"},
        {{.dims = 32}, "rotary.dims is 32, expected 0: rotary.form is 0"},
        {{.first_dim = 32}, "rotary.first_dim is 32, expected 0: rotary.form is 0"},
        {{.table_positions = 7}, "rotary.table_positions is 7, expected 0: rotary.form is 0"},
        {{.base = 500000}, "rotary.base is 500000, expected 0: rotary.form is 0"},
        {{.form = FA_ROTARY_HALVES, .base = 1}, "rotary.base is 1, expected a number above 1"},
        {{.form = FA_ROTARY_HALVES, .base = (double)NAN}, "rotary.base is"},
        {{.form = FA_ROTARY_HALVES, .scaling = (fa_rotary_scaling)9}, "rotary.scaling is 9"},
        {{.form = FA_ROTARY_HALVES, .factor = 2}, "rotary.factor is 2, expected 0: there is no scaling"},
        {{.form = FA_ROTARY_HALVES, .scaling = FA_ROTARY_LINEAR},
         "rotary.factor is 0, expected a number of at"},
        {{.form = FA_ROTARY_HALVES, .scaling = FA_ROTARY_LINEAR, .factor = 2, .beta_fast = 1},
         "rotary.beta_fast is 1, expected 0 without FA_ROTARY_YARN"},
        {{.form = FA_ROTARY_HALVES, .scaling = FA_ROTARY_YARN, .factor = 2}, "rotary.original_context is 0"},
        {{.form = FA_ROTARY_HALVES,
          .scaling = FA_ROTARY_YARN,
          .factor = 2,
          .original_context = 64,
          .beta_slow = -1},
         "rotary.beta_slow is -1"},
        {{.form = FA_ROTARY_HALVES,
          .scaling = FA_ROTARY_YARN,
          .factor = 2,
          .original_context = 64,
          .beta_fast = 0.5},
         "rotary.beta_fast is 0.5"},
        {{.form = FA_ROTARY_HALVES, .attention_factor = -1}, "rotary.attention_factor is -1"},
        {{.form = FA_ROTARY_HALVES, .table_positions = -1}, "rotary.table_positions is -1"},
        {{.form = FA_ROTARY_HALVES, .table_positions = 4, .base = 2},
         "rotary.base is 2, expected 0: angles come"},
    };
    fa_append *append;
    fa_append_desc d = append_desc_of(FA_F32, FA_F32, FA_F32);
    for (int i = 0; i < COUNT(row); i++) {
        d.rotary = row[i].rotary;
        REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID, row[i].message);
    }
    d.rotary = (fa_rotary){.form = FA_ROTARY_INTERLEAVED};
    d.k.shape[3] = d.cache_k.shape[3] = 1;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "k.shape[3] is 1, expected at least 2 with rotary.form 1");
    d.k.shape[3] = d.cache_k.shape[3] = DIM_QK;
    d.rotary = (fa_rotary){.form = FA_ROTARY_NONE};
    d.q = d.q_out = fa_tensor_make(FA_F32, BATCH, 4, ROWS, DIM_QK);
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID, "rotary.form is 0, expected a form");
    d.rotary = (fa_rotary){.form = FA_ROTARY_HALVES, .table_positions = 9};
    d.q_out.shape[1] = 5;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID,
            "q_out.shape[1] is 5, expected 4 as q.shape[1]");
    d.q_out.dtype = FA_Q8_0;
    REFUSED(fa_append_create(append_cpu, &d, &append), FA_INVALID, "q_out.dtype is q8_0, expected f32");
    memset(&d.q, 0, sizeof(d.q));
    memset(&d.q_out, 0, sizeof(d.q_out));
    append_scene s;
    append_make_scene(&s, &d);
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID, "args.positions is NULL");
    append_piece positions = append_make_piece(BATCH * ROWS * sizeof(int32_t)),
                 table = append_make_piece(9 * DIM_QK / 2 * sizeof(float));
    memset(positions.at, 0, positions.bytes);
    s.args.positions = positions.buffer;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID, "args.cosines is NULL");
    s.args.cosines = s.args.sines = table.buffer;
    ((int32_t *)(void *)positions.at)[2] = 9;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID,
            "positions[2] is 9, expected less than 9, rotary.table_positions");
    ((int32_t *)(void *)positions.at)[2] = -1;
    REFUSED(fa_append_run(s.append, append_queue, &s.args), FA_INVALID,
            "positions[2] is -1, expected 0 or more");
    append_free_piece(&positions);
    append_free_piece(&table);
    append_free_scene(&s);
}
END_TEST

void add_append_refusals(TCase *tc)
{
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, scale_refusals);
    tcase_add_test(tc, bitmap_refusals);
    tcase_add_test(tc, rotary_refusals);
}
