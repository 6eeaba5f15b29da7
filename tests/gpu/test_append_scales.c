/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appends into caches whose scales and zeros are tensors of their own, on a backend, whose name is the argument; "few" behind
 * it asks for some cases only. Codes, scales and zeros are bit for bit what the plain encoder below makes of the rows, and no
 * other byte changes.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { BATCH = 2, HEADS = 3, ROWS = 4, ENTRIES = 5, KEYS = 4, ROWS_ALL = BATCH * ROWS, GUARD = 64 };

static int step = 1; /* every case, or every third */

/* How scales lie: of each key and head, of each key, of groups of dims of a key; or the same for all keys. */
typedef enum form { OF_HEAD, OF_KEY, OF_GROUPS, SAME, SAME_OF_HEAD, SAME_OF_DIM } form;

typedef struct half {
    fa_dtype codes, scale;
    int zero; /* a type, or -1 */
    form form;
    int dim, group; /* dims of a row, and of a group */
    float factor;
} half;

/* Memory with guards around it: as it was, as it should become, as it is. */
typedef struct region {
    size_t bytes;
    unsigned char *before, *expected, *found;
    fa_buffer *buffer;
} region;

typedef struct part {
    half of;
    fa_tensor from, to, scale, zero;
    float row[BATCH][HEADS][ROWS][FA_MAX_HEAD_DIM];
    region rows, cache, scales, zeros;
} part;

static region make_memory(const fa_tensor *t, random_state *random)
{
    region m;
    size_t span;
    ck_assert_int_eq(fa_tensor_span(t, &span), FA_OK);
    m.bytes = span + 2 * GUARD;
    m.before = malloc(m.bytes);
    m.expected = malloc(m.bytes);
    m.found = malloc(m.bytes);
    for (size_t i = 0; i < m.bytes; i++)
        m.before[i] = m.expected[i] = (unsigned char)random_bits(random);
    ck_assert_int_eq(fa_buffer_create(device, m.bytes, &m.buffer), FA_OK);
    return m;
}

static void write_region(const region *m)
{
    ck_assert_int_eq(fa_buffer_write(queue, m->buffer, 0, m->before, m->bytes), FA_OK);
}

static void free_memory(region *m)
{
    fa_buffer_destroy(m->buffer);
    free(m->before);
    free(m->expected);
    free(m->found);
}

static int64_t at(const fa_tensor *t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return a * t->stride[0] + b * t->stride[1] + c * t->stride[2] + d * t->stride[3];
}

/* The number nearest to x that the type has, of two the one whose code is even, 0 with x's sign: by looking at all. */
static fa_dtype nearest_type;
static float nearest(float x)
{
    const int bits = (int)fa_dtype_size(nearest_type), all = 1 << (bits < 8 ? bits : 8);
    double least = INFINITY;
    int best = 0;
    for (int code = 0; code < all; code++) {
        const unsigned char in[8] = {(unsigned char)code};
        const double n = (double)fa_element(nearest_type, in, 0), off = fabs(n - (double)x);
        if (isfinite(n) && (off < least || (off == least && code % 2 == 0 && n != 0))) {
            least = off;
            best = code;
        }
    }
    const unsigned char in[8] = {(unsigned char)best};
    return copysignf(fa_element(nearest_type, in, 0), x);
}

/* The greatest and the least number that codes stand for. */
static float extreme(fa_dtype type, bool greatest)
{
    float found = 0;
    for (int code = 0; code < 1 << (int)fa_dtype_size(type); code++) {
        const unsigned char in[8] = {(unsigned char)code};
        const float n = fa_element(type, in, 0);
        if (isfinite(n) && (greatest ? n > found : n < found))
            found = n;
    }
    return found;
}

/* A number as its type holds it. */
static float rounded(fa_dtype type, float x)
{
    unsigned char bytes[4];
    fa_elements_store(type, bytes, 0, &x, 1);
    return fa_element(type, bytes, 0);
}

static void put_number(fa_dtype type, unsigned char *base, int64_t index, float x)
{
    fa_elements_store(type, base + GUARD, index, &x, 1);
}

static int64_t groups_of(const half *h)
{
    return h->form == OF_GROUPS ? h->dim / h->group : h->form == SAME_OF_DIM ? h->dim : 1;
}

/* Head h of row r of entry b as it should be in slot s. */
static void encode(part *p, int b, int h, int r, int slot)
{
    const half *of = &p->of;
    const int64_t entry = slot / KEYS, key = slot % KEYS, groups = groups_of(of), each = of->dim / groups;
    const float factor = of->factor != 0 ? of->factor : 1;
    float number[FA_MAX_HEAD_DIM];
    for (int64_t g = 0; g < groups; g++) {
        const int64_t scale_at = at(&p->scale, entry, h, key, g), zero_at = at(&p->zero, entry, h, key, g);
        float scale, zero = 0;
        if (of->form >= SAME) {
            scale = fa_element(of->scale, p->scales.before + GUARD, scale_at) * factor;
            if (of->zero >= 0)
                zero = fa_element((fa_dtype)of->zero, p->zeros.before + GUARD, zero_at);
        } else {
            const int first = of->form == OF_KEY ? 0 : h, end = of->form == OF_KEY ? HEADS : h + 1;
            float low = INFINITY, high = -INFINITY;
            for (int head = first; head < end; head++) {
                for (int64_t d = g * each; d < (g + 1) * each; d++) {
                    low = fminf(low, p->row[b][head][r][d]);
                    high = fmaxf(high, p->row[b][head][r][d]);
                }
            }
            const float top = extreme(of->codes, true), bottom = extreme(of->codes, false);
            scale = of->zero >= 0 ? (high - low) / (top - bottom) : fmaxf(-low, high) / top;
            zero = bottom == -top ? low / 2 + high / 2 : low - scale * bottom;
            put_number(of->scale, p->scales.expected, scale_at, scale / factor);
            scale = rounded(of->scale, scale / factor) * factor;
            if (of->zero >= 0) {
                put_number((fa_dtype)of->zero, p->zeros.expected, zero_at, zero);
                zero = rounded((fa_dtype)of->zero, zero);
            } else {
                zero = 0;
            }
        }
        const float inverse = scale != 0 && isfinite(1 / scale) ? 1 / scale : 0;
        nearest_type = of->codes;
        for (int64_t d = g * each; d < (g + 1) * each; d++)
            number[d] = inverse != 0 ? nearest((p->row[b][h][r][d] - zero) * inverse) : 0;
    }
    fa_elements_store(of->codes, p->cache.expected + GUARD, at(&p->to, entry, h, key, 0), number, of->dim);
}

static fa_tensor scale_tensor(const half *of, fa_dtype type)
{
    const bool same = of->form >= SAME;
    fa_tensor t = fa_tensor_make(type, same ? 1 : ENTRIES, of->form == OF_KEY || of->form == SAME ? 1 : HEADS,
                                 same ? 1 : KEYS, groups_of(of));
    const int64_t gap = 3; /* keys lie together, then entries, then heads */
    t.stride[3] = t.shape[3] > 1;
    t.stride[2] = t.shape[2] > 1 ? t.shape[3] + gap : 0;
    t.stride[0] = t.shape[0] > 1 ? (t.shape[3] + gap) * KEYS : 0;
    t.stride[1] = t.shape[1] > 1 ? (t.shape[3] + gap) * KEYS * ENTRIES : 0;
    return t;
}

/* Static scales and zeros that suit rows between -3 and 3. */
static void fill_static(const half *of, region *m, const fa_tensor *t, bool is_zero, random_state *random)
{
    const float top = extreme(of->codes, true), size = 3 / top / (of->factor != 0 ? of->factor : 1);
    for (int64_t h = 0; h < t->shape[1]; h++) {
        for (int64_t d = 0; d < t->shape[3]; d++)
            put_number(t->dtype, m->before, at(t, 0, h, 0, d),
                       is_zero ? random_float(random, -1, 1) : size * random_float(random, 0.5f, 1.5f));
    }
    memcpy(m->expected, m->before, m->bytes);
}

static part *make_part(const half *of, fa_dtype rows, const int32_t *slots, random_state *random)
{
    part *p = malloc(sizeof(*p));
    p->of = *of;
    p->from = fa_tensor_make(rows, BATCH, HEADS, ROWS, of->dim);
    p->to = fa_tensor_make(of->codes, ENTRIES, HEADS, KEYS, of->dim);
    p->to.stride[3] = 1;
    p->to.stride[2] = of->dim + 8;
    p->to.stride[1] = p->to.stride[2] * KEYS;
    p->to.stride[0] = p->to.stride[1] * HEADS;
    p->scale = scale_tensor(of, of->scale);
    p->zero = of->zero >= 0 ? scale_tensor(of, (fa_dtype)of->zero) : (fa_tensor){0};
    p->rows = make_memory(&p->from, random);
    p->cache = make_memory(&p->to, random);
    p->scales = make_memory(&p->scale, random);
    p->zeros = make_memory(&p->zero, random);
    if (of->form >= SAME)
        fill_static(of, &p->scales, &p->scale, false, random);
    if (of->form >= SAME && of->zero >= 0)
        fill_static(of, &p->zeros, &p->zero, true, random);
    for (int i = 0; i < BATCH * HEADS * ROWS; i++) {
        const int b = i / HEADS / ROWS, h = i / ROWS % HEADS, r = i % ROWS;
        float *x = p->row[b][h][r];
        for (int d = 0; d < of->dim; d++)
            x[d] = i == 7 ? 0 : random_float(random, -3, 2) * (d % 11 == 5 ? 1e-3f : 1);
        fa_elements_store(rows, p->rows.before + GUARD, (int64_t)i * of->dim, x, of->dim);
        for (int d = 0; d < of->dim; d++)
            x[d] = fa_element(rows, p->rows.before + GUARD, (int64_t)i * of->dim + d);
    }
    for (int i = 0; i < BATCH * HEADS * ROWS; i++) {
        const int b = i / HEADS / ROWS, h = i / ROWS % HEADS, r = i % ROWS, slot = slots[b * ROWS + r];
        if (slot >= 0 && slot < ENTRIES * KEYS)
            encode(p, b, h, r, slot);
    }
    write_region(&p->rows);
    write_region(&p->cache);
    write_region(&p->scales);
    write_region(&p->zeros);
    return p;
}

static void check_memory(const part *p, const region *m, const char *what)
{
    ck_assert_int_eq(fa_buffer_read(queue, m->buffer, 0, m->found, m->bytes), FA_OK);
    for (size_t i = 0; i < m->bytes; i++)
        ck_assert_msg(m->found[i] == m->expected[i],
                      "%s, %s, form %d: %s, byte %d is %02x, expected %02x, was %02x",
                      fa_dtype_name(p->of.codes), fa_dtype_name(p->of.scale), (int)p->of.form, what,
                      (int)i - GUARD, m->found[i], m->expected[i], m->before[i]);
}

static void check_part(part *p)
{
    check_memory(p, &p->scales, "scales");
    check_memory(p, &p->zeros, "zeros");
    check_memory(p, &p->cache, "codes");
    free_memory(&p->rows);
    free_memory(&p->cache);
    free_memory(&p->scales);
    free_memory(&p->zeros);
    free(p);
}

static void check_case(fa_dtype rows, const half *of_k, const half *of_v)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    random_state random = {(uint64_t)of_k->codes * 100 + (uint64_t)of_v->codes};
    int32_t slots[ROWS_ALL];
    fa_append *append = NULL;
    fa_buffer *list = NULL;
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    for (int i = 0; i < ROWS_ALL; i++)
        slots[i] = i == 3                        ? -1
                   : i == 5 && !info.host_memory ? ENTRIES * KEYS
                                                 : (i * 7 + 4) % (ENTRIES * KEYS);
    part *k = make_part(of_k, rows, slots, &random), *v = make_part(of_v, rows, slots, &random);
    ck_assert_int_eq(fa_buffer_create(device, sizeof(slots), &list), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, list, 0, slots, sizeof(slots)), FA_OK);
    const fa_append_desc desc = {
        .struct_size = sizeof(desc),
        .k = k->from,
        .v = v->from,
        .cache_k = k->to,
        .cache_v = v->to,
        .k_scale = k->scale,
        .v_scale = v->scale,
        .k_zero = k->zero,
        .v_zero = v->zero,
        .k_factor = of_k->factor,
        .v_factor = of_v->factor,
    };
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = k->rows.buffer,
        .v = v->rows.buffer,
        .slots = list,
        .cache_k = k->cache.buffer,
        .cache_v = v->cache.buffer,
        .k_offset = GUARD,
        .v_offset = GUARD,
        .cache_k_offset = GUARD,
        .cache_v_offset = GUARD,
        .k_scale = k->scales.buffer,
        .v_scale = v->scales.buffer,
        .k_zero = of_k->zero >= 0 ? k->zeros.buffer : NULL,
        .v_zero = of_v->zero >= 0 ? v->zeros.buffer : NULL,
        .k_scale_offset = GUARD,
        .v_scale_offset = GUARD,
        .k_zero_offset = GUARD,
        .v_zero_offset = GUARD,
    };
    const fa_status made = fa_append_create(device, &desc, &append);
    ck_assert_msg(made == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_append_run(append, queue, &args) == FA_OK, "%s", fa_last_error());
    check_part(k);
    check_part(v);
    fa_append_destroy(append);
    fa_buffer_destroy(list);
}

START_TEST(codes_and_scales)
{
    static const struct {
        fa_dtype rows;
        half k, v;
    } line[] = {
        {FA_F32, {FA_I8, FA_F32, -1, OF_HEAD, 32, 0, 0}, {FA_E4M3, FA_F16, -1, SAME_OF_HEAD, 24, 0, 0}},
        {FA_F16, {FA_U4, FA_F16, FA_F16, OF_GROUPS, 64, 32, 0}, {FA_I4, FA_BF16, -1, OF_KEY, 16, 0, 0}},
        {FA_BF16, {FA_E2M1, FA_E4M3, -1, OF_GROUPS, 48, 16, 0.01f}, {FA_E5M2, FA_F32, -1, SAME, 40, 0, 0}},
        {FA_F32,
         {FA_E2M1, FA_E8M0, -1, OF_GROUPS, 64, 32, 0},
         {FA_I8, FA_F16, FA_F32, SAME_OF_DIM, 24, 0, 0}},
        {FA_F16, {FA_U2, FA_F16, FA_BF16, OF_HEAD, 40, 0, 0}, {FA_U8, FA_F32, FA_F32, OF_KEY, 56, 0, 0}},
        {FA_F32, {FA_I2, FA_F32, FA_F32, OF_GROUPS, 24, 8, 0}, {FA_E4M3, FA_F32, -1, OF_HEAD, 72, 0, 0}},
        {FA_F32, {FA_E4M3, FA_F32, FA_F16, OF_KEY, 32, 0, 0}, {FA_I4, FA_F32, FA_F32, OF_HEAD, 16, 0, 0}},
        {FA_BF16,
         {FA_U4, FA_BF16, FA_BF16, SAME_OF_DIM, 16, 0, 0},
         {FA_E2M1, FA_E4M3, -1, SAME, 32, 0, 0.25f}},
        {FA_F16, {FA_E5M2, FA_F16, -1, OF_HEAD, 128, 0, 0}, {FA_I8, FA_E8M0, -1, OF_KEY, 16, 0, 0}},
    };
    for (int i = 0; i < COUNT(line) && device; i += step)
        check_case(line[i].rows, &line[i].k, &line[i].v);
}
END_TEST

/* Rotated keys have the scales of what they become: an append into f32 tells. */
START_TEST(rotated_keys)
{
    enum { DIM = 64, SIZE = BATCH * HEADS * ROWS * DIM, SLOTS = ENTRIES * KEYS };
    static float k[SIZE], plain[ENTRIES * HEADS * KEYS * DIM], scale[SLOTS * HEADS];
    static signed char codes[ENTRIES * HEADS * KEYS * DIM];
    random_state random = {11};
    int32_t slots[ROWS_ALL], positions[ROWS_ALL];
    if (!device)
        return;
    for (int i = 0; i < SIZE; i++)
        k[i] = random_float(&random, -3, 3);
    for (int i = 0; i < ROWS_ALL; i++)
        slots[i] = i * 2, positions[i] = i * 1000 + 1;
    fa_append_desc desc = {
        .struct_size = sizeof(desc),
        .k = fa_tensor_make(FA_F32, BATCH, HEADS, ROWS, DIM),
        .cache_k = fa_tensor_make(FA_F32, ENTRIES, HEADS, KEYS, DIM),
        .rotary = {.form = FA_ROTARY_HALVES, .dims = 48},
    };
    fa_append_args args = {.struct_size = sizeof(args)};
    const struct {
        fa_buffer **buffer;
        void *bytes;
        size_t size;
    } all[] = {{&args.k, k, sizeof(k)},
               {&args.slots, slots, sizeof(slots)},
               {&args.positions, positions, sizeof(positions)},
               {&args.cache_k, plain, sizeof(plain)}};
    for (int i = 0; i < COUNT(all); i++) {
        ck_assert_int_eq(fa_buffer_create(device, all[i].size, all[i].buffer), FA_OK);
        ck_assert_int_eq(fa_buffer_write(queue, *all[i].buffer, 0, all[i].bytes, all[i].size), FA_OK);
    }
    for (int turn = 0; turn < 2; turn++) {
        fa_append *append = NULL;
        if (turn == 1) {
            ck_assert_int_eq(fa_buffer_read(queue, args.cache_k, 0, plain, sizeof(plain)), FA_OK);
            desc.cache_k.dtype = FA_I8;
            desc.k_scale = fa_tensor_make(FA_F32, ENTRIES, HEADS, KEYS, 1);
            ck_assert_int_eq(fa_buffer_create(device, sizeof(scale), &args.k_scale), FA_OK);
        }
        ck_assert_msg(fa_append_create(device, &desc, &append) == FA_OK, "%s", fa_last_error());
        ck_assert_msg(fa_append_run(append, queue, &args) == FA_OK, "%s", fa_last_error());
        ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
        fa_append_destroy(append);
    }
    ck_assert_int_eq(fa_buffer_read(queue, args.cache_k, 0, codes, sizeof(codes)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.k_scale, 0, scale, sizeof(scale)), FA_OK);
    for (int i = 0; i < ROWS_ALL * HEADS; i++) {
        const int64_t line =
            ((int64_t)(slots[i / HEADS] / KEYS) * HEADS + i % HEADS) * KEYS + slots[i / HEADS] % KEYS;
        float peak = 0;
        for (int d = 0; d < DIM; d++)
            peak = fmaxf(peak, fabsf(plain[line * DIM + d]));
        /* The two programs may round the rotation differently. */
        ck_assert_float_eq_tol(scale[line], peak / 127, peak * 0x1p-26f);
        for (int d = 0; d < DIM; d++)
            ck_assert_float_eq_tol((float)codes[line * DIM + d] * scale[line], plain[line * DIM + d],
                                   scale[line] * 0.501f);
    }
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(*all[i].buffer);
    fa_buffer_destroy(args.k_scale);
}
END_TEST

int main(int count, char **arguments)
{
    step = count > 2 ? 3 : 1;
    Suite *suite = suite_create("append_scales");
    TCase *tc = add_backend_case(suite, count > 1 ? arguments[1] : "openmp");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, codes_and_scales);
    tcase_add_test(tc, rotated_keys);
    return run_on_backend(suite);
}
