/* SPDX-License-Identifier: Apache-2.0 */
/* Appends on a backend, whose name is the argument: bit for bit what plain C makes of the rows, and no byte elsewhere. */
#include <fastattn/reference.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/helpers.h"

enum { SKIPPED = 77 };
enum { BATCH = 2, HEADS = 3, ROWS = 5, ENTRIES = 7, KEYS = 3, ROWS_ALL = BATCH * ROWS, GUARD = 64 };

static const char *backend;
static bool has_device;
static fa_device *device;
static fa_queue *queue;

static void setup(void)
{
    has_device = fa_device_open(context, backend, NULL, &device) == FA_OK;
    if (has_device)
        ck_assert_int_eq(fa_queue_create(device, &queue), FA_OK);
    else
        (void)printf("skipped: %s\n", fa_last_error());
}

static void teardown(void)
{
    if (has_device) {
        fa_queue_destroy(queue);
        fa_device_close(device);
    }
}

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

/* Heads of a row lie side by side, and a gap behind each row of the cache. */
static void set_layout(part *p, int64_t dim)
{
    const int64_t gap = fa_dtype_block(p->to.dtype) > 1 ? fa_dtype_block(p->to.dtype) : 3;
    p->from.stride[1] = dim;
    p->from.stride[2] = dim * HEADS;
    p->from.stride[0] = p->from.stride[2] * ROWS;
    p->from.stride[3] = 1;
    p->to.stride[2] = dim + gap;
    p->to.stride[1] = p->to.stride[2] * KEYS;
    p->to.stride[0] = p->to.stride[1] * HEADS;
    p->to.stride[3] = 1;
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
                if (slot >= 0 && slot < ENTRIES * KEYS)
                    fa_elements_store(to, p.expected + GUARD, element_at(&p.to, slot / KEYS, h, slot % KEYS),
                                      rounded, dim);
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
    if (!has_device)
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
    const fa_append_desc desc = {sizeof(desc), k.from, v.from, k.to, v.to};
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
    check_case(FA_F32, FA_F32, FA_F16, 12, 7);
    check_case(FA_F16, FA_BF16, FA_F32, 16, 8);
    check_case(FA_BF16, FA_F16, FA_BF16, 9, 64);
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
    for (int i = 0; i < COUNT(line); i++)
        check_case(line[i].rows, line[i].k, line[i].v, 64, 32);
}
END_TEST

int main(int count, char **arguments)
{
    backend = count > 1 ? arguments[1] : "openmp";
    Suite *suite = suite_create("append");
    TCase *tc = add_context_case(suite, backend);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, plain_types);
    tcase_add_test(tc, formats);
    const int result = run_unforked(suite);
    return result == EXIT_SUCCESS && !has_device ? SKIPPED : result;
}
