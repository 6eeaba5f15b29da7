/* SPDX-License-Identifier: Apache-2.0 */
/* Gathers, scatters, sorts and hashes on a backend, whose name is the argument: against their definitions. */
#include <fastattn/permute.h>
#include <fastattn/reference.h>
#include <string.h>

#include "core/sparse/mask.h"
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

enum { LISTS = 3, MOST = 2500, PIECES = 4, MOST_BUCKETS = 600 };

typedef struct numbers {
    fa_sort_desc desc;
    int64_t cu[PIECES + 1];
    int32_t keys[LISTS * MOST], order[LISTS * MOST], offsets[LISTS * PIECES * (MOST_BUCKETS + 1)];
} numbers;

static void make_numbers(numbers *s, int64_t count, int64_t buckets, bool pieces, random_state *random)
{
    s->desc = (fa_sort_desc){sizeof(s->desc), LISTS, count, buckets, .want_offsets = 1};
    if (pieces) {
        s->desc.pieces = PIECES;
        s->desc.cu_pieces = s->cu;
    }
    memcpy(s->cu, (int64_t[]){0, count / 3, count / 3, count - count / 5, count}, sizeof(s->cu));
    for (int i = 0; i < LISTS * MOST; i++) {
        s->keys[i] = (int32_t)(random_bits(random) % (uint64_t)(buckets + 1));
        s->keys[i] = i % 57 == 11 ? -1 - i : s->keys[i];
    }
    memset(s->order, 0x5a, sizeof(s->order));
    memset(s->offsets, 0x5a, sizeof(s->offsets));
}

/* The definition: bucket after bucket, and in each the numbers as they come. */
static void sort_numbers(numbers *s)
{
    const int64_t whole[2] = {0, s->desc.count}, *cu = s->desc.pieces ? s->cu : whole,
                  pieces = s->desc.pieces ? s->desc.pieces : 1, buckets = s->desc.buckets;
    for (int64_t job = 0; job < LISTS * pieces; job++) {
        const int64_t list = job / pieces * s->desc.count, first = cu[job % pieces],
                      last = cu[job % pieces + 1];
        int64_t to = first;
        for (int64_t b = 0; b <= buckets; b++) {
            s->offsets[job * (buckets + 1) + b] = (int32_t)to;
            for (int64_t i = first; i < last; i++) {
                const int32_t key = s->keys[list + i];
                if (b < buckets ? key == b : key < 0 || key >= buckets)
                    s->order[list + to++] = (int32_t)i;
            }
        }
    }
}

static void check_sort(numbers *s)
{
    static numbers found;
    fa_sort *sort;
    ck_assert_msg(fa_sort_create(device, &s->desc, &sort) == FA_OK, "%s", fa_last_error());
    fa_sort_args args = {.struct_size = sizeof(args),
                         .keys = upload(s->keys, sizeof(s->keys)),
                         .order = upload(s->order, sizeof(s->order)),
                         .offsets = upload(s->offsets, sizeof(s->offsets))};
    ck_assert_int_eq(fa_buffer_create(device, fa_sort_workspace(sort), &args.workspace), FA_OK);
    ck_assert_msg(fa_sort_run(sort, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.order, 0, found.order, sizeof(found.order)), FA_OK);
    ck_assert_int_eq(fa_buffer_read(queue, args.offsets, 0, found.offsets, sizeof(found.offsets)), FA_OK);
    sort_numbers(s);
    for (int i = 0; i < COUNT(found.order); i++)
        ck_assert_msg(found.order[i] == s->order[i], "number %d in order is %d, expected %d", i,
                      found.order[i], s->order[i]);
    ck_assert_mem_eq(found.offsets, s->offsets, sizeof(found.offsets));
    fa_buffer *const buffer[] = {args.keys, args.order, args.offsets, args.workspace};
    for (int i = 0; i < COUNT(buffer); i++)
        fa_buffer_destroy(buffer[i]);
    fa_sort_destroy(sort);
}

START_TEST(sorts)
{
    static numbers s;
    random_state random = {7};
    if (!device)
        return;
    static const int64_t count[] = {MOST, 1, 130, 700}, buckets[] = {16, 3, 1, MOST_BUCKETS};
    for (int i = 0; i < COUNT(count); i++) {
        make_numbers(&s, count[i], buckets[i], i % 2 == 0, &random);
        check_sort(&s);
    }
}
END_TEST

START_TEST(sorts_refused)
{
    static const int64_t cu[] = {0, 6, 5, 10}, late[] = {1, 10}, early[] = {0, 9};
    const fa_sort_desc good = {.struct_size = sizeof(good), .lists = LISTS, .count = 10, .buckets = 4};
    fa_sort *sort;
    if (!device)
        return;
    fa_sort_desc bad[9] = {good, good, good, good, good, good, good, good, good};
    bad[0].lists = -1;
    bad[1].count = (int64_t)FA_MAX_LENGTH + 1;
    bad[2].buckets = 0;
    bad[3].want_offsets = 2;
    bad[4].pieces = 3;
    bad[5].pieces = 3;
    bad[5].cu_pieces = cu;
    bad[6].pieces = bad[7].pieces = 1;
    bad[6].cu_pieces = late;
    bad[7].cu_pieces = early;
    bad[8].cu_pieces = cu;
    static const char *const message[] = {"lists is -1",       "count is 268435457",
                                          "buckets is 0",      "want_offsets is 2",
                                          "cu_pieces is NULL", "cu_pieces[2] is 5, expected 6 to 10",
                                          "cu_pieces[0] is 1", "cu_pieces[1] is 9, expected 10",
                                          "cu_pieces is given"};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_sort_create(device, &bad[i], &sort), FA_INVALID);
        ck_assert_ptr_null(sort);
        assert_message(message[i]);
    }
    fa_sort_desc many = good;
    many.lists = INT32_MAX;
    many.count = 1;
    ck_assert_int_eq(fa_sort_create(device, &many, &sort), FA_UNSUPPORTED);
    assert_message("lists is 2147483647, pieces 1");
    ck_assert_int_eq(fa_sort_create(NULL, &good, &sort), FA_INVALID);
    ck_assert_int_eq(fa_sort_create(device, NULL, &sort), FA_INVALID);
    ck_assert_int_eq(fa_sort_create(device, &good, NULL), FA_INVALID);
    ck_assert_int_eq(fa_sort_create(device, &good, &sort), FA_OK);
    static const int32_t keys[LISTS * 10];
    fa_buffer *in = upload(keys, sizeof(keys)), *out = upload(keys, sizeof(keys)), *scratch;
    ck_assert_int_eq(fa_buffer_create(device, fa_sort_workspace(sort), &scratch), FA_OK);
    const fa_sort_args args = {.struct_size = sizeof(args), .keys = in, .order = out, .workspace = scratch};
    fa_sort_args wrong[4] = {args, args, args, args};
    wrong[0].order = in;
    wrong[1].offsets = out;
    wrong[2].workspace = NULL;
    wrong[3].keys_offset = 8;
    static const char *const why[] = {"args.order overlaps args.keys", "args.offsets is given",
                                      "args.workspace is NULL", "args.keys has"};
    for (int i = 0; i < COUNT(wrong); i++) {
        ck_assert_int_eq(fa_sort_run(sort, queue, &wrong[i]), FA_INVALID);
        assert_message(why[i]);
    }
    ck_assert_int_eq(fa_sort_run(sort, NULL, &args), FA_INVALID);
    ck_assert_int_eq(fa_queue_wait(queue), FA_OK);
    fa_buffer_destroy(in);
    fa_buffer_destroy(out);
    fa_buffer_destroy(scratch);
    fa_sort_destroy(sort);
    ck_assert_uint_eq(fa_sort_workspace(NULL), 0);
}
END_TEST

enum { HASH_DIM = 40, HASHED = 150 };

typedef struct hashed {
    fa_hash_desc desc;
    unsigned char from[HASHED * HASH_DIM * sizeof(float)];
    int32_t buckets[HASHED];
} hashed;

/* Number d of direction n: the sum of twelve uniform numbers, without its mean. */
static float direction(uint64_t seed, int n, int d)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (double)(fa_sparse_random(seed, (uint64_t)n, (uint64_t)d, (uint64_t)i) >> 32) * 0x1p-32;
    return (float)sum;
}

static int bucket_of(const hashed *h, int row)
{
    int signs = 0, bucket = 0;
    for (int n = 0; n < h->desc.directions; n++) {
        volatile float sum = 0; /* each product and each sum is rounded */
        for (int d = 0; d < HASH_DIM; d++) {
            const volatile float product =
                fa_element(h->desc.from.dtype, h->from, row * HASH_DIM + d) * direction(h->desc.seed, n, d);
            sum = sum + product;
        }
        signs |= (sum > 0) << n;
    }
    while ((bucket ^ bucket >> 1) != signs)
        bucket++;
    return bucket;
}

static void check_hash(fa_dtype dtype, int directions, random_state *random)
{
    static hashed h;
    fa_hash *hash;
    h = (hashed){.desc = {.struct_size = sizeof(h.desc),
                          .from = fa_tensor_make(dtype, 2, 3, HASHED / 6, HASH_DIM),
                          .directions = directions,
                          .seed = random_bits(random)}};
    for (int i = 0; i < HASHED * HASH_DIM; i++) {
        const float x = random_float(random, -1, 1);
        fa_elements_store(dtype, h.from, i, &x, 1);
    }
    ck_assert_msg(fa_hash_create(device, &h.desc, &hash) == FA_OK, "%s", fa_last_error());
    const fa_hash_args args = {.struct_size = sizeof(args),
                               .from = upload(h.from, sizeof(h.from)),
                               .buckets = upload(h.buckets, sizeof(h.buckets))};
    ck_assert_msg(fa_hash_run(hash, queue, &args) == FA_OK, "%s", fa_last_error());
    ck_assert_int_eq(fa_buffer_read(queue, args.buckets, 0, h.buckets, sizeof(h.buckets)), FA_OK);
    for (int i = 0; i < HASHED; i++)
        ck_assert_msg(h.buckets[i] == bucket_of(&h, i), "row %d is in bucket %d, expected %d", i,
                      h.buckets[i], bucket_of(&h, i));
    fa_buffer_destroy(args.from);
    fa_buffer_destroy(args.buckets);
    fa_hash_destroy(hash);
}

START_TEST(hashes)
{
    static const fa_dtype dtypes[] = {FA_F32, FA_F16, FA_BF16};
    static const int directions[] = {7, 1, 16};
    random_state random = {13};
    for (int i = 0; i < COUNT(dtypes) && device; i++)
        check_hash(dtypes[i], directions[i], &random);
}
END_TEST

START_TEST(hashes_refused)
{
    const fa_hash_desc good = {.struct_size = sizeof(good), .from = fa_tensor_make(FA_F16, 1, 1, 4, 8)};
    fa_hash *hash;
    if (!device)
        return;
    fa_hash_desc bad[3] = {good, good, good};
    bad[0].from.dtype = FA_I32;
    bad[1].directions = 17;
    bad[2].from.shape[2] = -1;
    static const char *const message[] = {"from.dtype is i32", "directions is 17, expected 1 to 16",
                                          "from.shape[2] is -1"};
    for (int i = 0; i < COUNT(bad); i++) {
        ck_assert_int_eq(fa_hash_create(device, &bad[i], &hash), FA_INVALID);
        ck_assert_ptr_null(hash);
        assert_message(message[i]);
    }
    ck_assert_int_eq(fa_hash_create(device, &good, &hash), FA_OK);
    static const char zeros[64];
    fa_buffer *zero = upload(zeros, sizeof(zeros));
    fa_hash_args args = {.struct_size = sizeof(args), .from = zero};
    ck_assert_int_eq(fa_hash_run(hash, queue, &args), FA_INVALID);
    assert_message("args.buckets is NULL");
    args.buckets = zero;
    ck_assert_int_eq(fa_hash_run(hash, queue, &args), FA_INVALID);
    assert_message("args.buckets overlaps args.from");
    fa_buffer_destroy(zero);
    fa_hash_destroy(hash);
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
    tcase_add_test(tc, sorts);
    tcase_add_test(tc, sorts_refused);
    tcase_add_test(tc, hashes);
    tcase_add_test(tc, hashes_refused);
    return run_on_backend(suite);
}
