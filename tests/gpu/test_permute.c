/* SPDX-License-Identifier: Apache-2.0 */
/* Gathers and scatters on a backend, whose name is the argument: against their definitions. */
#include <fastattn/permute.h>
#include <string.h>

#include "tests/gpu/on_backend.h"

enum { BATCH = 2, HEADS = 4, ROWS = 9, LISTED = 13, BYTES = 1 << 16 };

/* Tensors with room before, between and behind their rows. */
typedef struct rows {
    fa_gather_desc desc;
    size_t from_at, to_at; /* bytes before the first elements */
    unsigned char from[BYTES], to[BYTES];
    int32_t order[BATCH * HEADS * LISTED];
} rows;

static fa_tensor with_gaps(fa_dtype dtype, int64_t heads, int64_t count, int64_t dim)
{
    const int64_t pitch = dim + 3; /* of a head; rows are further apart */
    return (fa_tensor){
        dtype, {BATCH, heads, count, dim}, {heads * count * pitch + 5, pitch, heads * pitch, 1}};
}

/* Shuffled numbers, of which the largest, and the one in the middle, are no rows. */
static void draw_list(int32_t *list, int length, random_state *random)
{
    for (int i = 0; i < length; i++)
        list[i] = i;
    for (int i = length - 1; i > 0; i--) {
        const int other = (int)random_between(random, 0, i);
        const int32_t kept = list[i];
        list[i] = list[other];
        list[other] = kept;
    }
    list[length / 2] = random_bits(random) % 2 ? -1 : INT32_MIN;
}

/* Lists of `lists` heads, once or for each batch entry. */
static void make_rows(rows *r, fa_dtype dtype, int64_t dim, int64_t from_heads, int64_t lists, bool scatter,
                      random_state *random)
{
    const int64_t from = scatter ? LISTED : ROWS, to = scatter ? ROWS : LISTED,
                  batch = lists == 1 ? 1 : BATCH;
    r->desc = (fa_gather_desc){
        .struct_size = sizeof(r->desc),
        .from = with_gaps(dtype, from_heads, from, dim),
        .to = with_gaps(dtype, HEADS, to, dim),
        .order = fa_tensor_make(FA_I32, batch, lists, LISTED, 1),
        .scatter = scatter,
    };
    r->from_at = fa_dtype_size(dtype) * 3;
    r->to_at = fa_dtype_size(dtype) * 2;
    for (int i = 0; i < BYTES; i++) {
        r->from[i] = (unsigned char)random_bits(random);
        r->to[i] = (unsigned char)random_bits(random);
    }
    for (int n = 0; n < BATCH * HEADS; n++)
        draw_list(r->order + n * LISTED, LISTED, random);
}

static size_t byte_of(const fa_tensor *t, int64_t b, int64_t h, int64_t i)
{
    return (size_t)(b * t->stride[0] + h * t->stride[1] + i * t->stride[2]) * fa_dtype_size(t->dtype);
}

/* The definition, row by row. */
static void move_rows(rows *r)
{
    const fa_gather_desc *d = &r->desc;
    const size_t bytes = (size_t)d->to.shape[3] * fa_dtype_size(d->to.dtype);
    const int64_t lists = d->order.shape[1];
    for (int64_t n = 0; n < (int64_t)BATCH * HEADS * LISTED; n++) {
        const int64_t b = n / LISTED / HEADS, h = n / LISTED % HEADS, i = n % LISTED;
        const int64_t list = (d->order.shape[0] == 1 ? 0 : b * lists) + h * lists / HEADS;
        const int32_t row = r->order[list * LISTED + i];
        const bool exists = row >= 0 && row < ROWS;
        unsigned char *to =
            r->to + r->to_at + (exists || !d->scatter ? byte_of(&d->to, b, h, d->scatter ? row : i) : 0);
        if (exists)
            memcpy(to,
                   r->from + r->from_at +
                       byte_of(&d->from, b, h * d->from.shape[1] / HEADS, d->scatter ? i : row),
                   bytes);
        else if (!d->scatter)
            memset(to, 0, bytes);
    }
}

static void check_rows(rows *r)
{
    static unsigned char found[BYTES];
    fa_gather *gather;
    ck_assert_msg(fa_gather_create(device, &r->desc, &gather) == FA_OK, "%s", fa_last_error());
    const fa_gather_args args = {
        sizeof(args),         upload(r->from, BYTES),    upload(r->order, sizeof(r->order)),
        upload(r->to, BYTES), .from_offset = r->from_at, .to_offset = r->to_at};
    ck_assert_msg(fa_gather_run(gather, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.to, 0, found, BYTES), FA_OK);
    move_rows(r);
    for (int i = 0; i < BYTES; i++)
        ck_assert_msg(found[i] == r->to[i], "%s, scatter %d, dims %lld: byte %d is %d, expected %d",
                      fa_dtype_name(r->desc.to.dtype), r->desc.scatter, (long long)r->desc.to.shape[3], i,
                      found[i], r->to[i]);
    fa_buffer_destroy(args.from);
    fa_buffer_destroy(args.order);
    fa_buffer_destroy(args.to);
    fa_gather_destroy(gather);
}

START_TEST(gathers)
{
    static const struct {
        fa_dtype dtype;
        int64_t dim, from_heads, lists;
    } row[] = {
        {FA_F32, 20, HEADS, HEADS}, {FA_F16, 37, 2, 2}, {FA_BF16, 16, HEADS, 1}, {FA_I32, 1, 1, HEADS}};
    static rows r;
    random_state random = {5};
    for (int i = 0; i < COUNT(row) && device; i++) {
        make_rows(&r, row[i].dtype, row[i].dim, row[i].from_heads, row[i].lists, false, &random);
        check_rows(&r);
        make_rows(&r, row[i].dtype, row[i].dim, HEADS, row[i].lists, true, &random);
        check_rows(&r);
    }
}
END_TEST

START_TEST(gathers_refused)
{
    static rows r;
    random_state random = {5};
    fa_gather *gather;
    if (!device)
        return;
    make_rows(&r, FA_F16, 4, HEADS, HEADS, false, &random);
    const fa_gather_desc good = r.desc;
    fa_gather_desc bad[9] = {good, good, good, good, good, good, good, good, good};
    bad[0].from.dtype = FA_Q8_0;
    bad[1].to.dtype = FA_BF16;
    bad[2].order.dtype = FA_F32;
    bad[3].from.shape[0] = 1;
    bad[4].from.shape[1] = 3;
    bad[5].order.shape[1] = 3;
    bad[6].order.shape[2] = ROWS;
    bad[7].to.stride[2] = 0;
    bad[8].scatter = 2;
    static const char *const message[] = {"from.dtype is q8_0",
                                          "to.dtype is bf16",
                                          "order.dtype is f32",
                                          "from.shape[0] is 1",
                                          "from.shape[1] is 3",
                                          "order.shape[1] is 3, expected a divisor of 4",
                                          "order.shape[2] is 9, expected 13",
                                          "elements of to overlap",
                                          "scatter is 2"};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_gather_create(device, &bad[i], &gather), FA_INVALID);
        ck_assert_ptr_null(gather);
        assert_message(message[i]);
    }
    ck_assert_int_eq(fa_gather_create(NULL, &good, &gather), FA_INVALID);
    ck_assert_int_eq(fa_gather_create(device, NULL, &gather), FA_INVALID);
    ck_assert_int_eq(fa_gather_create(device, &good, NULL), FA_INVALID);
    ck_assert_int_eq(fa_gather_create(device, &good, &gather), FA_OK);
    fa_buffer *bytes = upload(r.from, BYTES);
    const fa_gather_args args = {sizeof(args),          bytes, bytes, bytes, .order_offset = BYTES / 4,
                                 .to_offset = BYTES / 2};
    fa_gather_args wrong[3] = {args, args, args};
    wrong[0].to_offset = 8;
    wrong[1].order = NULL;
    wrong[2].from_offset = 1;
    static const char *const why[] = {"args.to overlaps args.from", "args.order is NULL",
                                      "args.from_offset is 1"};
    for (int i = 0; i < COUNT(wrong); i++) {
        ck_assert_int_eq(fa_gather_run(gather, queue, &wrong[i]), FA_INVALID);
        assert_message(why[i]);
    }
    ck_assert_int_eq(fa_gather_run(NULL, queue, &args), FA_INVALID);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(bytes);
    fa_gather_destroy(gather);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return EXIT_FAILURE;
    Suite *suite = suite_create("permute");
    TCase *tc = add_backend_case(suite, argv[1]);
    tcase_add_test(tc, gathers);
    tcase_add_test(tc, gathers_refused);
    return run_on_backend(suite);
}
