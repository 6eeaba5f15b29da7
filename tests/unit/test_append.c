/* SPDX-License-Identifier: Apache-2.0 */
/* Appends: every format against ggml's own bytes, slots, layouts, refusals. On the CPU backend. */
#include <fastattn/append.h>
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/append/rotary.h"
#include "helpers.h"
#include "suites.h"

enum { HEADS = 3, DIM_QK = 64, DIM_V = 32, KEYS = 4, ENTRIES = 5, ROWS = 6, BATCH = 2 };

static fa_context *context_of;
static fa_device *cpu;
static fa_queue *queue;

static void setup(void)
{
    ck_assert_int_eq(fa_context_create(NULL, &context_of), FA_OK);
    ck_assert_int_eq(fa_device_open(context_of, "openmp", NULL, &cpu), FA_OK);
    ck_assert_int_eq(fa_queue_create(cpu, &queue), FA_OK);
}

static void teardown(void)
{
    fa_queue_destroy(queue);
    fa_device_close(cpu);
    fa_context_destroy(context_of);
}

static fa_append_desc desc_of(fa_dtype rows, fa_dtype cache_k, fa_dtype cache_v)
{
    return (fa_append_desc){
        .struct_size = sizeof(fa_append_desc),
        .k = fa_tensor_make(rows, BATCH, HEADS, ROWS, DIM_QK),
        .v = fa_tensor_make(rows, BATCH, HEADS, ROWS, DIM_V),
        .cache_k = fa_tensor_make(cache_k, ENTRIES, HEADS, KEYS, DIM_QK),
        .cache_v = fa_tensor_make(cache_v, ENTRIES, HEADS, KEYS, DIM_V),
    };
}

typedef struct piece {
    unsigned char *at;
    size_t bytes;
    fa_buffer *buffer;
} piece;

static piece make_piece(size_t bytes)
{
    piece m = {malloc(bytes + 1), bytes, NULL};
    memset(m.at, 0xa5, bytes + 1);
    ck_assert_int_eq(fa_buffer_wrap_host(cpu, m.at, bytes, &m.buffer), FA_OK);
    return m;
}

static piece make_tensor(const fa_tensor *t)
{
    size_t span;
    ck_assert_int_eq(fa_tensor_span(t, &span), FA_OK);
    return make_piece(span);
}

static void free_piece(piece *m)
{
    fa_buffer_destroy(m->buffer);
    free(m->at);
}

typedef struct scene {
    fa_append_desc desc;
    fa_append *append;
    piece k, v, cache_k, cache_v, slots;
    fa_append_args args;
} scene;

/* Element d of a row of k (of_v 0) or v. */
static float element(int of_v, int64_t row, int head, int d)
{
    return (float)(((d + 3 * head + 7 * (int)row + 11 * of_v) * 37 % 64 - 29)) / 8 + (float)(d % 3) / 64;
}

static void fill(const fa_tensor *t, piece *m, int of_v)
{
    int64_t at = 0;
    for (int64_t b = 0; b < t->shape[0]; b++) {
        for (int head = 0; head < HEADS; head++) {
            for (int64_t r = 0; r < t->shape[2]; r++) {
                for (int d = 0; d < t->shape[3]; d++, at++) {
                    const float x = element(of_v, b * ROWS + r, head, d);
                    if (t->dtype == FA_F32)
                        ((float *)(void *)m->at)[at] = x;
                    else
                        ((uint16_t *)(void *)m->at)[at] = fa_f32_to_f16(x);
                }
            }
        }
    }
}

static void make_scene(scene *s, const fa_append_desc *desc)
{
    *s = (scene){.desc = *desc};
    ck_assert_int_eq(fa_append_create(cpu, desc, &s->append), FA_OK);
    s->k = make_tensor(&desc->k);
    s->v = make_tensor(&desc->v);
    s->cache_k = make_tensor(&desc->cache_k);
    s->cache_v = make_tensor(&desc->cache_v);
    s->slots = make_piece(BATCH * ROWS * sizeof(int32_t));
    fill(&desc->k, &s->k, 0);
    fill(&desc->v, &s->v, 1);
    for (int i = 0; i < BATCH * ROWS; i++)
        ((int32_t *)(void *)s->slots.at)[i] = i == 4 ? -1 : (i * 7 + 3) % (ENTRIES * KEYS);
    s->args = (fa_append_args){
        .struct_size = sizeof(fa_append_args),
        .k = s->k.buffer,
        .v = s->v.buffer,
        .cache_k = s->cache_k.buffer,
        .cache_v = s->cache_v.buffer,
        .slots = s->slots.buffer,
    };
}

static void free_scene(scene *s)
{
    piece *const all[] = {&s->k, &s->v, &s->cache_k, &s->cache_v, &s->slots};
    fa_append_destroy(s->append);
    for (int i = 0; i < COUNT(all); i++)
        free_piece(all[i]);
}

/* Every element of the cache: what was appended there, or what was there. */
static void check_cache(const scene *s, const fa_tensor *t, const piece *m, int of_v, float tolerance)
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
                            appended = element(of_v, row, head, d);
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
static void check_bits(const scene *s)
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
        scene s;
        const fa_append_desc d =
            desc_of(i % 2 ? FA_F16 : FA_F32, row[i / 2].dtype, row[COUNT(row) - 1 - i / 2].dtype);
        make_scene(&s, &d);
        ck_assert_int_eq(fa_append_run(s.append, queue, &s.args), FA_OK);
        ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
        check_bits(&s);
        check_cache(&s, &s.desc.cache_k, &s.cache_k, 0, row[i / 2].tolerance + 0.003f);
        check_cache(&s, &s.desc.cache_v, &s.cache_v, 1, row[COUNT(row) - 1 - i / 2].tolerance + 0.003f);
        free_scene(&s);
    }
}
END_TEST

/* What the quantiser of ggml's own Python package makes of element(0, 0, 0, 0..31). */
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
        scene s;
        char text[80] = "";
        const fa_append_desc d = desc_of(FA_F32, row[i].dtype, FA_F32);
        make_scene(&s, &d);
        ck_assert_int_eq(fa_append_run(s.append, queue, &s.args), FA_OK);
        /* Row 0 goes to slot 3: key 3 of entry 0. */
        const unsigned char *at = s.cache_k.at + 3 * DIM_QK / 32 * fa_dtype_size(row[i].dtype);
        for (size_t b = 0; b < fa_dtype_size(row[i].dtype); b++)
            (void)snprintf(text + 2 * b, 3, "%02x", at[b]);
        ck_assert_str_eq(text, row[i].hex);
        free_scene(&s);
    }
}
END_TEST

/* Elements that are not finite: fp8 keeps NaN and saturates, a block that holds one becomes NaN. */
START_TEST(not_finite)
{
    static const fa_dtype formats[] = {FA_E4M3, FA_E5M2, FA_Q8_0, FA_Q4_0,
                                       FA_Q4_1, FA_Q5_0, FA_Q5_1, FA_IQ4_NL};
    for (int i = 0; i < COUNT(formats) * 2; i++) {
        scene s;
        const fa_dtype dtype = formats[i / 2];
        const fa_append_desc d = desc_of(FA_F32, dtype, FA_F32);
        make_scene(&s, &d);
        ((float *)(void *)s.k.at)[5] = i % 2 ? NAN : -INFINITY;
        ck_assert_int_eq(fa_append_run(s.append, queue, &s.args), FA_OK);
        const float found = fa_element(dtype, s.cache_k.at, 3 * DIM_QK + 5);
        if (dtype <= FA_E5M2 && i % 2 == 0)
            ck_assert_float_eq(found, dtype == FA_E4M3 ? -448.0f : -57344.0f);
        else
            ck_assert(isnan(found));
        ck_assert(!isnan(fa_element(dtype, s.cache_k.at, 3 * DIM_QK + 32))); /* another block */
        free_scene(&s);
    }
}
END_TEST

/* Blocks of any size, also of the smallest numbers, to the bits of plain C; elements halfway between two codes too. */
START_TEST(blocks_of_any_size)
{
    fa_append_desc d = desc_of(FA_F32, FA_Q8_0, FA_Q8_0);
    scene s;
    make_scene(&s, &d);
    float *k = (void *)s.k.at;
    for (int power = -149; power < 128; power += 3) {
        unsigned char expected[DIM_QK / 32 * 34];
        for (int i = 0; i < DIM_QK; i++)
            k[i] = ldexpf(i == 3 ? 127.0f / 64 : (float)(i * 53 % 255 - 127) / 128,
                          power < 0 ? power + 1 : power - 1);
        fa_elements_store(FA_Q8_0, expected, 0, k, DIM_QK);
        ck_assert_int_eq(fa_append_run(s.append, queue, &s.args), FA_OK);
        ck_assert_mem_eq(s.cache_k.at + 3 * sizeof(expected), expected, sizeof(expected));
    }
    free_scene(&s);
}
END_TEST

#define REFUSED(call, status, message)      \
    do {                                    \
        ck_assert_int_eq((call), (status)); \
        assert_message(message);            \
    } while (0)

START_TEST(refusals)
{
    scene s;
    fa_append *append = (fa_append *)1;
    fa_append_desc d = desc_of(FA_F32, FA_Q8_0, FA_F16);
    make_scene(&s, &d);
    int32_t *slots = (void *)s.slots.at;
    unsigned char before[1] = {s.cache_k.at[0]};
    slots[7] = ENTRIES * KEYS;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "slots[7] is 20, expected less than 20");
    slots[7] = slots[2];
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID,
            ", expected another than slots[2]: a slot is one row's");
    slots[7] = -5;
    s.args.v = NULL;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "args.v is NULL");
    s.args.v = s.cache_v.buffer;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "args.v has");
    s.args.v = s.v.buffer;
    s.args.cache_k_offset = 1;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID,
            "args.cache_k_offset is 1, expected a multiple of 2");
    ck_assert_uint_eq(s.cache_k.at[0], before[0]);
    d.cache_k.shape[3] = 48;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_k.shape[3] is 48, expected a multiple of 32");
    ck_assert_ptr_null(append);
    d = desc_of(FA_F32, FA_F32, FA_F32);
    d.k.dtype = FA_Q8_0;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "k.dtype is q8_0, expected f32, f16 or bf16");
    d = desc_of(FA_F32, FA_F32, FA_F32);
    d.cache_v.shape[0] = 2;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_v.shape[0] is 2, expected 5 as cache_k.shape[0]");
    d = desc_of(FA_F32, FA_F32, FA_F32);
    d.cache_k.stride[0] = 1;
    d.cache_k.stride[1] = DIM_QK;
    d.cache_k.stride[2] = DIM_QK;
    d.cache_k.stride[3] = 1;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "elements of cache_k overlap");
    d = desc_of(FA_F32, FA_F32, FA_F32);
    d.struct_size = 3;
    ck_assert_int_eq(fa_append_create(cpu, &d, &append), FA_INVALID);
    REFUSED(fa_append_create(cpu, NULL, &append), FA_INVALID, "desc is NULL");
    free_scene(&s);
}
END_TEST

/* Caches whose scales are tensors of their own; tests/gpu/test_append_scales.c has what becomes of them. */
static fa_append_desc scaled_desc(void)
{
    fa_append_desc d = desc_of(FA_F32, FA_I8, FA_U4);
    d.k_scale = fa_tensor_make(FA_F32, ENTRIES, HEADS, KEYS, 1);
    d.v_scale = d.v_zero = fa_tensor_make(FA_F16, ENTRIES, HEADS, KEYS, 2);
    return d;
}

START_TEST(scale_refusals)
{
    fa_append *append;
    fa_append_desc d = scaled_desc();
    d.k_scale = (fa_tensor){0};
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "k_scale is absent, expected scales: cache_k.dtype is i8");
    d = scaled_desc();
    d.cache_v.dtype = FA_Q8_0;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "cache_v.dtype is q8_0 with v_scale, expected");
    d = scaled_desc();
    d.k_scale.shape[2] = 2;
    REFUSED(
        fa_append_create(cpu, &d, &append), FA_INVALID,
        "k_scale.shape is (5, 3, 2, 1): groups of keys share scales, expected (5, ..., 4, ...), one of each");
    d.k_scale.shape[2] = 1; /* a page is such a group too */
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "k_scale.shape is (5, 3, 1, 1): groups of keys");
    d = scaled_desc();
    d.k_scale.shape[3] = DIM_QK / 4;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "k_scale.shape[3] is 16, groups of 4 dims, expected groups of a multiple of 8");
    d = scaled_desc();
    d.v_factor = -2;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "v_factor is -2, expected a number above 0");
    d = scaled_desc();
    d.k_scale.stride[0] = HEADS * KEYS, d.k_scale.stride[1] = d.k_scale.stride[2] = 1;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "elements of k_scale overlap");
    d = scaled_desc();
    d.v_zero.shape[3] = 1;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "v_zero.shape[3] is 1, expected v_scale.shape[3], 2");
    d = scaled_desc();
    scene s;
    make_scene(&s, &d);
    piece k_scale = make_tensor(&d.k_scale), v_scale = make_tensor(&d.v_scale),
          v_zero = make_tensor(&d.v_zero);
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "args.k_scale is NULL");
    s.args.k_scale = k_scale.buffer;
    s.args.v_scale = v_scale.buffer;
    s.args.v_zero = v_scale.buffer;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "v_scale");
    s.args.v_zero = v_zero.buffer;
    s.args.k_zero = v_zero.buffer;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "args.k_zero is given, expected NULL");
    s.args.k_zero = NULL;
    ((int32_t *)(void *)s.slots.at)[7] = ((int32_t *)(void *)s.slots.at)[2];
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID,
            ", expected another than slots[2]: a slot is one row's");
    const piece *all[] = {&s.cache_k, &s.cache_v, &k_scale, &v_scale, &v_zero};
    for (int i = 0; i < COUNT(all); i++) {
        for (size_t b = 0; b < all[i]->bytes; b++)
            ck_assert_uint_eq(all[i]->at[b], 0xa5);
    }
    ((int32_t *)(void *)s.slots.at)[7] = -1;
    ck_assert_int_eq(fa_append_run(s.append, queue, &s.args), FA_OK);
    free_piece(&k_scale);
    free_piece(&v_scale);
    free_piece(&v_zero);
    free_scene(&s);
}
END_TEST

/* A row that is not finite has NaN for its scale, and so becomes NaN; 0 for zeros. */
START_TEST(scales_of_no_numbers)
{
    fa_append_desc d = scaled_desc();
    scene s;
    make_scene(&s, &d);
    piece k_scale = make_tensor(&d.k_scale), v_scale = make_tensor(&d.v_scale),
          v_zero = make_tensor(&d.v_zero);
    s.args.k_scale = k_scale.buffer;
    s.args.v_scale = v_scale.buffer;
    s.args.v_zero = v_zero.buffer;
    float *k = (void *)s.k.at, *v = (void *)s.v.at;
    k[DIM_QK - 1] = INFINITY;
    for (int d2 = 0; d2 < DIM_V; d2++)
        v[d2] = d2 < 16 ? 0 : d2 == 20 ? NAN : 1;
    ck_assert_int_eq(fa_append_run(s.append, queue, &s.args), FA_OK);
    /* Row 0 goes to key 3 of entry 0. */
    ck_assert(isnan(fa_element(FA_F32, k_scale.at, 3)));
    ck_assert(!isnan(fa_element(FA_F32, k_scale.at, KEYS + 3)));
    ck_assert_float_eq(fa_element(FA_F16, v_scale.at, 6), 0);
    ck_assert_float_eq(fa_element(FA_F16, v_zero.at, 6), 0);
    ck_assert(isnan(fa_element(FA_F16, v_scale.at, 7)));
    ck_assert_float_eq(fa_element(FA_U4, s.cache_v.at, 3 * DIM_V), 0);
    free_piece(&k_scale);
    free_piece(&v_scale);
    free_piece(&v_zero);
    free_scene(&s);
}
END_TEST

/* FlashMLA's rows are whole, and of keys. */
START_TEST(latent_rows)
{
    fa_append *append;
    fa_append_desc d = desc_of(FA_F32, FA_FP8_DS_MLA, FA_F32);
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_k.shape[3] is 64, expected 576 with cache_k.dtype fp8_ds_mla");
    d.k.shape[3] = d.cache_k.shape[3] = 512;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_k.shape[3] is 512, expected 576 with cache_k.dtype fp8_ds_mla");
    d.k.shape[3] = d.cache_k.shape[3] = 576;
    d.cache_v.dtype = FA_FP8_DS_MLA;
    d.v.shape[3] = d.cache_v.shape[3] = 576;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_v.dtype is fp8_ds_mla, expected no v: it is the first 512 dims of k");
    d.v = d.cache_v = (fa_tensor){0};
    d.k_scale = fa_tensor_make(FA_F32, ENTRIES, HEADS, KEYS, 1);
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_k.dtype is fp8_ds_mla with k_scale, expected");
    d.k_scale = (fa_tensor){0};
    d.rotary = (fa_rotary){.form = FA_ROTARY_HALVES, .dims = 64};
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "rotary.form is 2, expected 0 with cache_k.dtype fp8_ds_mla");
}
END_TEST

/* What does not lie where rows that keep some of their elements can. */
START_TEST(bitmap_refusals)
{
    fa_append *append;
    fa_append_desc d = desc_of(FA_F32, FA_BITMAP_F16, FA_BITMAP_F16);
    d.cache_k.stride[3] = 8;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_k.stride[3] is 8, expected the bytes of a row");
    d.cache_k = fa_tensor_make_bitmap(ENTRIES, HEADS, KEYS, DIM_QK, 10);
    d.cache_k.stride[2] -= 4;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "cache_k.stride is (336, 112, 24, 28): elements of cache_k overlap");
    d.k.dtype = FA_BITMAP_F16;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID,
            "k.dtype is bitmap_f16, expected f32, f16 or bf16");
}
END_TEST

/* Such rows keep the largest magnitudes after rotation; what lies between them stays as it was. */
START_TEST(bitmap_rows)
{
    fa_append *append;
    fa_append_desc d = desc_of(FA_F32, FA_BITMAP_F16, FA_BITMAP_F16);
    d.k.shape[0] = d.k.shape[2] = 1;
    d.v.shape[0] = d.v.shape[2] = 1;
    d.cache_k = fa_tensor_make_bitmap(ENTRIES, HEADS, KEYS, DIM_QK, 10);
    d.cache_v = fa_tensor_make_bitmap(ENTRIES, HEADS, KEYS, DIM_V, 8);
    d.cache_v.stride[2] += 8;
    d.cache_v.stride[1] = KEYS * d.cache_v.stride[2];
    d.cache_v.stride[0] = HEADS * d.cache_v.stride[1];
    d.rotary = (fa_rotary){.form = FA_ROTARY_HALVES};
    piece k = make_tensor(&d.k), v = make_tensor(&d.v), cache_k = make_tensor(&d.cache_k),
          cache_v = make_tensor(&d.cache_v), slots = make_piece(sizeof(int32_t)),
          positions = make_piece(sizeof(int32_t));
    float *of_k = (float *)(void *)k.at, *of_v = (float *)(void *)v.at, found[DIM_QK];
    for (int i = 0; i < HEADS * DIM_QK; i++)
        of_k[i] = (float)(i % DIM_QK == 3 ? 8 : i % DIM_QK == 35 ? -6 : i % DIM_QK % 5 == 0) / 4;
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
    ck_assert_msg(fa_append_create(cpu, &d, &append) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_append_run(append, queue, &args) == FA_OK, "%s", fa_last_error());
    for (int h = 0; h < HEADS; h++) {
        const int64_t *stride = d.cache_k.stride;
        const double angle = 40 * pow(10000, -2.0 * 3 / DIM_QK);
        ck_assert_int_eq(
            fa_bitmap_load(cache_k.at + 2 * stride[0] + h * stride[1] + stride[2], stride[3], found, DIM_QK),
            FA_OK);
        /* The largest pair, turned, is among what is kept. */
        ck_assert_float_eq_tol(found[3], (float)(2 * cos(angle) + 1.5 * sin(angle)), 2e-3f);
        ck_assert_float_eq_tol(found[35], (float)(2 * sin(angle) - 1.5 * cos(angle)), 2e-3f);
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
    piece *const all[] = {&k, &v, &cache_k, &cache_v, &slots, &positions};
    for (int i = 0; i < COUNT(all); i++)
        free_piece(all[i]);
}
END_TEST

/* A cache of keys alone. */
START_TEST(without_v)
{
    fa_append_desc d = desc_of(FA_F32, FA_F16, FA_F16);
    fa_append *append;
    memset(&d.v, 0, sizeof(d.v));
    memset(&d.cache_v, 0, sizeof(d.cache_v));
    piece k = make_tensor(&d.k), cache = make_tensor(&d.cache_k),
          slots = make_piece(BATCH * ROWS * sizeof(int32_t));
    fill(&d.k, &k, 0);
    for (int i = 0; i < BATCH * ROWS; i++)
        ((int32_t *)(void *)slots.at)[i] = i;
    fa_append_args args = {
        .struct_size = sizeof(args), .k = k.buffer, .cache_k = cache.buffer, .slots = slots.buffer};
    ck_assert_int_eq(fa_append_create(cpu, &d, &append), FA_OK);
    ck_assert_int_eq(fa_append_run(append, queue, &args), FA_OK);
    ck_assert_float_eq_tol(fa_element(FA_F16, cache.at, 5), element(0, 0, 0, 5), 0.003f);
    args.v = k.buffer;
    ck_assert_int_eq(fa_append_run(append, queue, &args), FA_INVALID);
    assert_message("args.v is given, expected NULL");
    fa_append_destroy(append);
    free_piece(&k);
    free_piece(&cache);
    free_piece(&slots);
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
         "and beta_slow are"},
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
    fa_append_desc d = desc_of(FA_F32, FA_F32, FA_F32);
    for (int i = 0; i < COUNT(row); i++) {
        d.rotary = row[i].rotary;
        REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, row[i].message);
    }
    d.rotary = (fa_rotary){.form = FA_ROTARY_NONE};
    d.q = d.q_out = fa_tensor_make(FA_F32, BATCH, 4, ROWS, DIM_QK);
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "rotary.form is 0, expected a form");
    d.rotary = (fa_rotary){.form = FA_ROTARY_HALVES, .table_positions = 9};
    d.q_out.shape[1] = 5;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "q_out.shape[1] is 5, expected 4 as q.shape[1]");
    d.q_out.dtype = FA_Q8_0;
    REFUSED(fa_append_create(cpu, &d, &append), FA_INVALID, "q_out.dtype is q8_0, expected f32");
    memset(&d.q, 0, sizeof(d.q));
    memset(&d.q_out, 0, sizeof(d.q_out));
    scene s;
    make_scene(&s, &d);
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "args.positions is NULL");
    piece positions = make_piece(BATCH * ROWS * sizeof(int32_t)),
          table = make_piece(9 * DIM_QK / 2 * sizeof(float));
    memset(positions.at, 0, positions.bytes);
    s.args.positions = positions.buffer;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "args.cosines is NULL");
    s.args.cosines = s.args.sines = table.buffer;
    ((int32_t *)(void *)positions.at)[2] = 9;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID,
            "positions[2] is 9, expected less than 9, rotary.table_positions");
    ((int32_t *)(void *)positions.at)[2] = -1;
    REFUSED(fa_append_run(s.append, queue, &s.args), FA_INVALID, "positions[2] is -1, expected 0 or more");
    free_piece(&positions);
    free_piece(&table);
    free_scene(&s);
}
END_TEST

Suite *append_suite(void)
{
    Suite *suite = suite_create("append");
    TCase *tc = tcase_create("appends");
    tcase_set_timeout(tc, 120); /* sanitizers and a busy machine are slow */
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, every_format);
    tcase_add_test(tc, bytes_of_ggml);
    tcase_add_test(tc, not_finite);
    tcase_add_test(tc, blocks_of_any_size);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, scale_refusals);
    tcase_add_test(tc, scales_of_no_numbers);
    tcase_add_test(tc, latent_rows);
    tcase_add_test(tc, bitmap_refusals);
    tcase_add_test(tc, bitmap_rows);
    tcase_add_test(tc, without_v);
    tcase_add_test(tc, rotation_is_exact_enough);
    tcase_add_test(tc, rotary_refusals);
    suite_add_tcase(suite, tc);
    return suite;
}
