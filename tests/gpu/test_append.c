/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appends on a backend, whose name is the argument; "few" behind it asks for some cases only. Bit for bit what plain C makes
 * of the rows, and no byte elsewhere; rotated rows against double precision.
 */
#include <fastattn/reference.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { BATCH = 2, HEADS = 5, ROWS = 5, ENTRIES = 7, KEYS = 3, ROWS_ALL = BATCH * ROWS, GUARD = 64 };

static int step = 1; /* every case, or every other one: a driver on a CPU takes a second to compile each */

typedef struct part {
    fa_tensor from, to;
    unsigned char *rows, *before, *expected, *found;
    size_t rows_bytes, bytes; /* of the cache, with guards around it */
    fa_buffer *rows_buffer, *buffer;
} part;

static float *floats(int64_t dim, random_state *random)
{
    static float x[FA_MAX_HEAD_DIM];
    for (int64_t d = 0; d < dim; d++)
        x[d] = d % 7 == 0 ? 0.0f : random_float(random, -3.0f, 3.0f) * (d % 11 == 5 ? 1e-3f : 1.0f);
    return x;
}

static int64_t element_at(const fa_tensor *t, int64_t b, int64_t h, int64_t r)
{
    return b * t->stride[0] + h * t->stride[1] + r * t->stride[2];
}

/* A row that keeps some of its elements: each dim's place among all of them, by magnitude, then by number. */
static void store_bitmap(unsigned char *row, int64_t bytes, const float *x, int64_t dim)
{
    const int64_t begin = (dim + 31) / 32 * 4, room = (bytes - begin) / 2;
    unsigned char *to = row + begin;
    memset(row, 0, (size_t)begin);
    for (int64_t d = 0; d < dim; d++) {
        int64_t before = 0;
        for (int64_t i = 0; i < dim; i++)
            before += fabsf(x[i]) > fabsf(x[d]) || (fabsf(x[i]) == fabsf(x[d]) && i < d);
        if (before >= room)
            continue;
        row[d / 8] |= (unsigned char)(1 << d % 8);
        const uint16_t half = fa_f32_to_f16(x[d]);
        *to++ = (unsigned char)half;
        *to++ = (unsigned char)(half >> 8);
    }
}

/* Heads of a row lie side by side, and a gap behind each row of the cache. */
static void set_layout(part *p, int64_t dim)
{
    const bool prunes = p->to.dtype == FA_BITMAP_F16; /* strides count bytes */
    const int64_t gap = prunes ? 12 : fa_dtype_block(p->to.dtype) > 1 ? fa_dtype_block(p->to.dtype) : 3;
    const int64_t row = prunes ? fa_tensor_make_bitmap(1, 1, 1, dim, dim * 3 / 8).stride[3] : dim;
    p->from.stride[1] = dim;
    p->from.stride[2] = dim * HEADS;
    p->from.stride[0] = p->from.stride[2] * ROWS;
    p->from.stride[3] = 1;
    p->to.stride[2] = row + gap;
    p->to.stride[1] = p->to.stride[2] * KEYS;
    p->to.stride[0] = p->to.stride[1] * HEADS;
    p->to.stride[3] = prunes ? row : 1;
}

static part make_part(fa_dtype from, fa_dtype to, int64_t dim, const int32_t *slots, random_state *random)
{
    part p = {.from = fa_tensor_make(from, BATCH, HEADS, ROWS, dim),
              .to = fa_tensor_make(to, ENTRIES, HEADS, KEYS, dim)};
    size_t span;
    set_layout(&p, dim);
    ck_assert_int_eq(fa_tensor_span(&p.from, &p.rows_bytes), FA_OK);
    ck_assert_int_eq(fa_tensor_span(&p.to, &span), FA_OK);
    p.bytes = span + 2 * GUARD;
    p.rows = calloc(1, p.rows_bytes);
    p.before = malloc(p.bytes);
    p.expected = malloc(p.bytes);
    p.found = malloc(p.bytes);
    for (size_t i = 0; i < p.bytes; i++)
        p.before[i] = p.expected[i] = (unsigned char)random_bits(random);
    for (int64_t b = 0; b < BATCH; b++) {
        for (int64_t h = 0; h < HEADS; h++) {
            for (int64_t r = 0; r < ROWS; r++) {
                const float *x = floats(dim, random);
                const int64_t at = element_at(&p.from, b, h, r);
                float rounded[FA_MAX_HEAD_DIM];
                fa_elements_store(from, p.rows, at, x, dim);
                for (int64_t d = 0; d < dim; d++)
                    rounded[d] = fa_element(from, p.rows, at + d);
                const int32_t slot = slots[b * ROWS + r];
                if (slot < 0 || slot >= ENTRIES * KEYS)
                    continue;
                const int64_t to_at = element_at(&p.to, slot / KEYS, h, slot % KEYS);
                if (to == FA_BITMAP_F16)
                    store_bitmap(p.expected + GUARD + to_at, p.to.stride[3], rounded, dim);
                else
                    fa_elements_store(to, p.expected + GUARD, to_at, rounded, dim);
            }
        }
    }
    ck_assert_int_eq(fa_buffer_create(device, p.rows_bytes, &p.rows_buffer), FA_OK);
    ck_assert_int_eq(fa_buffer_create(device, p.bytes, &p.buffer), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, p.rows_buffer, 0, p.rows, p.rows_bytes), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, p.buffer, 0, p.before, p.bytes), FA_OK);
    return p;
}

static void check_part(const part *p)
{
    ck_assert_int_eq(fa_buffer_read(queue, p->buffer, 0, p->found, p->bytes), FA_OK);
    for (size_t i = 0; i < p->bytes; i++)
        ck_assert_msg(p->found[i] == p->expected[i], "%s from %s: byte %zu is %02x, expected %02x, was %02x",
                      fa_dtype_name(p->to.dtype), fa_dtype_name(p->from.dtype), i, p->found[i],
                      p->expected[i], p->before[i]);
}

static void free_part(part *p)
{
    fa_buffer_destroy(p->rows_buffer);
    fa_buffer_destroy(p->buffer);
    free(p->rows);
    free(p->before);
    free(p->expected);
    free(p->found);
}

/* A slot that the cache has not is in the list where the host does not read it. */
static void check_case(fa_dtype rows, fa_dtype cache_k, fa_dtype cache_v, int64_t dim_k, int64_t dim_v)
{
    fa_device_info info = {.struct_size = sizeof(info)};
    int32_t slots[ROWS_ALL];
    if (!device)
        return;
    random_state random = {(uint64_t)rows * 100 + (uint64_t)cache_k};
    fa_append *append = NULL;
    fa_buffer *list = NULL;
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    for (int i = 0; i < ROWS_ALL; i++)
        slots[i] = i == 3                        ? -1
                   : i == 6 && !info.host_memory ? ENTRIES * KEYS
                                                 : (i * 5 + 4) % (ENTRIES * KEYS);
    part k = make_part(rows, cache_k, dim_k, slots, &random),
         v = make_part(rows, cache_v, dim_v, slots, &random);
    ck_assert_int_eq(fa_buffer_create(device, sizeof(slots), &list), FA_OK);
    ck_assert_int_eq(fa_buffer_write(queue, list, 0, slots, sizeof(slots)), FA_OK);
    const fa_append_desc desc = {
        .struct_size = sizeof(desc), .k = k.from, .v = v.from, .cache_k = k.to, .cache_v = v.to};
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = k.rows_buffer,
        .v = v.rows_buffer,
        .slots = list,
        .cache_k = k.buffer,
        .cache_v = v.buffer,
        .cache_k_offset = GUARD,
        .cache_v_offset = GUARD,
    };
    const fa_status made = fa_append_create(device, &desc, &append);
    ck_assert_msg(made == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_append_run(append, queue, &args) == FA_OK, "%s", fa_last_error());
    check_part(&k);
    check_part(&v);
    fa_append_destroy(append);
    fa_buffer_destroy(list);
    free_part(&k);
    free_part(&v);
}

START_TEST(plain_types)
{
    check_case(FA_BF16, FA_F16, FA_F32, 9, 64);
    if (step == 1) {
        check_case(FA_F32, FA_F32, FA_F16, 12, 7);
        check_case(FA_F16, FA_BF16, FA_F32, 16, 8);
    }
}
END_TEST

START_TEST(formats)
{
    static const struct {
        fa_dtype rows, k, v;
    } line[] = {
        {FA_F32, FA_Q8_0, FA_Q4_0}, {FA_F16, FA_Q4_1, FA_Q5_0},   {FA_BF16, FA_Q5_1, FA_IQ4_NL},
        {FA_F32, FA_E4M3, FA_E5M2}, {FA_F16, FA_IQ4_NL, FA_Q8_0},
    };
    for (int i = 0; i < COUNT(line); i += step == 1 ? 1 : 4)
        check_case(line[i].rows, line[i].k, line[i].v, 64, 32);
    check_case(FA_BF16, FA_FP8_DS_MLA, FA_F16, 576, 64);
    check_case(FA_BF16, FA_BITMAP_F16, FA_BITMAP_F16, 128, 40);
    if (step == 1)
        check_case(FA_F16, FA_Q8_0, FA_BITMAP_F16, 64, 576);
}
END_TEST

enum { HEADS_Q = 4, DIM = 64, TABLE = 200 };
enum {
    K_SIZE = BATCH * HEADS * ROWS * DIM,
    Q_SIZE = BATCH * HEADS_Q * ROWS * DIM,
    CACHE = ENTRIES * HEADS * KEYS * DIM
};

typedef struct rotary_case {
    fa_rotary rotary;
    fa_dtype cache;
} rotary_case;

/* Radians for each position, from the papers' formulas. */
static double frequency(const fa_rotary *r, int dims, int pair)
{
    const double base = r->base != 0 ? r->base : 10000, own = 1 / pow(base, 2.0 * pair / dims),
                 turn = 2 * acos(-1);
    if (r->scaling == FA_ROTARY_LINEAR)
        return own / r->factor;
    if (r->scaling == FA_ROTARY_UNSCALED)
        return own;
    const double low = floor(dims * log(r->original_context / (32 * turn)) / (2 * log(base)));
    const double high = ceil(dims * log(r->original_context / (1 * turn)) / (2 * log(base)));
    double ramp = (pair - fmax(low, 0)) / (fmin(high, dims - 1) - fmax(low, 0));
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return own / r->factor * ramp + own * (1 - ramp);
}

/* Element d of a row that is rotated, and how far a device may be from it. */
static double rotated(const fa_rotary *r, const float *x, int d, int position, double *tolerance)
{
    const int dims = r->dims != 0 ? r->dims : DIM - r->first_dim;
    const bool beside = r->form == FA_ROTARY_INTERLEAVED;
    if (d < r->first_dim || d - r->first_dim >= dims) {
        *tolerance = 0;
        return x[d];
    }
    x += r->first_dim;
    d -= r->first_dim;
    const int pair = beside ? d / 2 : d % (dims / 2), first = beside ? 2 * pair : pair,
              second = beside ? first + 1 : pair + dims / 2;
    const double gain = r->scaling == FA_ROTARY_YARN ? 0.1 * log(r->factor) + 1 : 1;
    const double angle = position * frequency(r, dims, pair), c = gain * cos(angle), s = gain * sin(angle);
    *tolerance = gain * (fabs((double)x[first]) + fabs((double)x[second])) * 0x1p-21;
    return d == first ? x[first] * c - x[second] * s : x[second] * c + x[first] * s;
}

static void fill_tables(const fa_rotary *r, float *cosines, float *sines)
{
    const fa_rotary plain = {.form = r->form, .dims = r->dims};
    for (int i = 0; i < TABLE * r->dims / 2; i++) {
        const double angle = i / (r->dims / 2) * frequency(&plain, r->dims, i % (r->dims / 2));
        cosines[i] = (float)cos(angle);
        sines[i] = (float)sin(angle);
    }
}

static void check_rotary(const rotary_case *c)
{
    static const int32_t far[ROWS_ALL] = {0, 1, 131071, 7, 100000, 131072, 4095, -1, 65537, 12345};
    static float k[K_SIZE], q[Q_SIZE], found[Q_SIZE], cosines[TABLE * DIM / 2], sines[TABLE * DIM / 2];
    static uint16_t narrow[Q_SIZE];
    static unsigned char cache[CACHE * sizeof(float)];
    fa_device_info info = {.struct_size = sizeof(info)};
    const fa_rotary *r = &c->rotary;
    random_state random = {5};
    int32_t slots[ROWS_ALL], positions[ROWS_ALL];
    size_t bytes;
    fa_append *append = NULL;
    ck_assert_int_eq(fa_device_get_info(device, &info), FA_OK);
    for (int i = 0; i < K_SIZE; i++)
        k[i] = random_float(&random, -3.0f, 3.0f);
    for (int i = 0; i < Q_SIZE; i++) {
        narrow[i] = fa_f32_to_f16(random_float(&random, -3.0f, 3.0f));
        q[i] = fa_f16_to_f32(narrow[i]);
        found[i] = 77;
    }
    for (int i = 0; i < ROWS_ALL; i++) {
        slots[i] = i * 2;
        positions[i] = r->table_positions > 0 && far[i] >= 0 ? far[i] % TABLE : far[i];
        if (info.host_memory && positions[i] < 0)
            positions[i] = 3;
    }
    if (r->table_positions > 0)
        fill_tables(r, cosines, sines);
    const fa_append_desc desc = {
        .struct_size = sizeof(desc),
        .k = fa_tensor_make(FA_F32, BATCH, HEADS, ROWS, DIM),
        .cache_k = fa_tensor_make(c->cache, ENTRIES, HEADS, KEYS, DIM),
        .rotary = *r,
        .q = fa_tensor_make(FA_F16, BATCH, HEADS_Q, ROWS, DIM),
        .q_out = fa_tensor_make(FA_F32, BATCH, HEADS_Q, ROWS, DIM),
    };
    ck_assert_int_eq(fa_tensor_span(&desc.cache_k, &bytes), FA_OK);
    memset(cache, 0, sizeof(cache));
    const fa_append_args args = {
        .struct_size = sizeof(args),
        .k = upload(k, sizeof(k)),
        .slots = upload(slots, sizeof(slots)),
        .cache_k = upload(cache, bytes),
        .positions = upload(positions, sizeof(positions)),
        .cosines = r->table_positions > 0 ? upload(cosines, sizeof(cosines)) : NULL,
        .sines = r->table_positions > 0 ? upload(sines, sizeof(sines)) : NULL,
        .q = upload(narrow, sizeof(narrow)),
        .q_out = upload(found, sizeof(found)),
    };
    ck_assert_msg(fa_append_create(device, &desc, &append) == FA_OK, "%s", fa_last_error());
    ck_assert_msg(fa_append_run(append, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.cache_k, 0, cache, bytes), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.q_out, 0, found, sizeof(found)), FA_OK);
    for (int i = 0; i < ROWS_ALL * (HEADS + HEADS_Q) * DIM; i++) {
        const int d = i % DIM, head = i / DIM % (HEADS + HEADS_Q), row = i / DIM / (HEADS + HEADS_Q);
        const bool of_q = head >= HEADS;
        const int heads = of_q ? HEADS_Q : HEADS, h = of_q ? head - HEADS : head;
        const int64_t from = ((int64_t)(row / ROWS * heads + h) * ROWS + row % ROWS) * DIM;
        const int64_t to = ((int64_t)(slots[row] / KEYS * HEADS + h) * KEYS + slots[row] % KEYS) * DIM;
        const float x = of_q ? found[from + d] : fa_element(c->cache, cache, to + d);
        double tolerance, expected = rotated(r, (of_q ? q : k) + from, d, positions[row], &tolerance);
        if (positions[row] < 0) /* skipped */
            expected = of_q ? 77 : 0, tolerance = 0;
        if (!of_q && c->cache == FA_Q8_0) /* half a step of a scale, which is rounded to f16 */
            tolerance += 4.5 / 127 * 0.502;
        ck_assert_msg(fabs(x - expected) <= tolerance,
                      "%s form %d, %s: row %d head %d dim %d position %d: %.9g, expected %.9g +- %g",
                      fa_dtype_name(c->cache), (int)r->form, of_q ? "q" : "k", row, head, d, positions[row],
                      (double)x, expected, tolerance);
    }
    fa_append_destroy(append);
    fa_buffer *const all[] = {args.k,       args.slots, args.cache_k, args.positions,
                              args.cosines, args.sines, args.q,       args.q_out};
    for (int i = 0; i < COUNT(all); i++)
        fa_buffer_destroy(all[i]);
}

START_TEST(rotary)
{
    static const rotary_case line[] = {
        {{.form = FA_ROTARY_HALVES}, FA_F32},
        {{.form = FA_ROTARY_INTERLEAVED,
          .dims = 24,
          .base = 500000,
          .scaling = FA_ROTARY_LINEAR,
          .factor = 4},
         FA_F32},
        {{.form = FA_ROTARY_HALVES,
          .dims = 28,
          .scaling = FA_ROTARY_YARN,
          .factor = 8,
          .original_context = 4096},
         FA_F32},
        {{.form = FA_ROTARY_INTERLEAVED, .dims = 48, .table_positions = TABLE}, FA_F32},
        {{.form = FA_ROTARY_HALVES, .base = 1000000}, FA_Q8_0},
        {{.form = FA_ROTARY_HALVES, .first_dim = 40}, FA_F32},
        {{.form = FA_ROTARY_INTERLEAVED, .first_dim = 19, .dims = 20, .table_positions = TABLE}, FA_F32},
        {{.form = FA_ROTARY_HALVES, .first_dim = 28, .dims = 32}, FA_Q8_0},
    };
    for (int i = 0; i < COUNT(line) && device; i++)
        check_rotary(&line[i]);
}
END_TEST

int main(int count, char **arguments)
{
    step = count > 2 ? 2 : 1;
    Suite *suite = suite_create("append");
    TCase *tc = add_backend_case(suite, count > 1 ? arguments[1] : "openmp");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, plain_types);
    tcase_add_test(tc, formats);
    tcase_add_test(tc, rotary);
    return run_on_backend(suite);
}
