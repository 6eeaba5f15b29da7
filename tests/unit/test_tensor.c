/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tensor.h"

#include <fastattn/dlpack.h>
#include <stdlib.h>
#include <string.h>

#include "helpers.h"
#include "suites.h"

START_TEST(types)
{
    static const struct {
        fa_dtype dtype;
        size_t size;
        const char *name;
    } row[] = {{FA_F32, 4, "f32"},
               {FA_F16, 2, "f16"},
               {FA_BF16, 2, "bf16"},
               {FA_BOOL, 1, "bool"},
               {FA_I32, 4, "i32"},
               {FA_E4M3, 8, "e4m3"},
               {FA_Q8_0, 34, "q8_0"},
               {FA_IQ4_NL, 18, "iq4_nl"},
               {FA_U2, 2, "u2"},
               {FA_E2M1, 4, "e2m1"},
               {FA_E8M0, 1, "e8m0"},
               {FA_U1, 2, "u1"},
               {FA_U2U1, 6, "u2u1"},
               {FA_FP8_DS_MLA, 656, "fp8_ds_mla"},
               {FA_BITMAP_F16, 1, "bitmap_f16"},
               {(fa_dtype)25, 0, "unknown"}};
    for (int i = 0; i < COUNT(row); i++) {
        ck_assert_uint_eq(fa_dtype_size(row[i].dtype), row[i].size);
        ck_assert_str_eq(fa_dtype_name(row[i].dtype), row[i].name);
    }
}
END_TEST

static size_t span_of(fa_tensor t)
{
    size_t bytes = 12345;
    fa_status status = fa_tensor_span(&t, &bytes);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    ck_assert_str_eq(fa_last_error(), "");
    return bytes;
}

START_TEST(spans)
{
    ck_assert_uint_eq(span_of(fa_tensor_make(FA_F32, 2, 3, 4, 5)), 2 * 3 * 4 * 5 * 4);
    ck_assert_uint_eq(span_of(fa_tensor_make(FA_F16, 1, 1, 1, 1)), 2);
    ck_assert_uint_eq(span_of(fa_tensor_make(FA_F32, 2, 0, 4, 5)), 0);
    /* Rows that are blocks, whole and without their last dims: they begin with a block. */
    ck_assert_uint_eq(span_of(fa_tensor_make(FA_FP8_DS_MLA, 2, 1, 4, 576)), 8 * 656);
    ck_assert_uint_eq(span_of(fa_tensor_make(FA_FP8_DS_MLA, 2, 1, 4, 512)), 8 * 656);
    /* Rows that keep some of their elements, whose strides count bytes: a word of bits for each 32 dims, and what is kept. */
    ck_assert_uint_eq(span_of(fa_tensor_make(FA_BITMAP_F16, 2, 1, 4, 128)), 8 * (16 + 256));
    ck_assert_uint_eq(span_of(fa_tensor_make_bitmap(2, 1, 4, 128, 64)), 8 * (16 + 128));
    ck_assert_uint_eq(span_of(fa_tensor_make_bitmap(2, 1, 4, 40, 11)), 8 * (8 + 24));
    ck_assert_uint_eq(span_of((fa_tensor){FA_BITMAP_F16, {2, 3, 4, 40}, {1000, 300, 64, 28}}),
                      1000 + 2 * 300 + 3 * 64 + 28);
    /* Rows of 5 in a cache whose rows are 8 apart: the last row ends the span. */
    ck_assert_uint_eq(span_of((fa_tensor){FA_BF16, {2, 3, 4, 5}, {96, 32, 8, 1}}),
                      (96 + 2 * 32 + 3 * 8 + 5) * 2);
    ck_assert_uint_eq(span_of((fa_tensor){FA_BOOL, {7, 3, 4, 5}, {0, 0, 0, 1}}), 5);
    ck_assert_uint_eq(span_of((fa_tensor){FA_F32, {7, 3, 4, 1}, {0, 0, 0, 1}}), 4);
    /* An axis of one element has no use for its stride. */
    ck_assert_uint_eq(span_of((fa_tensor){FA_F32, {1, 1, 1, 5}, {INT64_MAX, INT64_MAX, INT64_MAX, 1}}), 20);
    ck_assert_uint_eq(span_of((fa_tensor){FA_F32, {2, 2, 2, 1}, {4, 2, 1, 77}}), 4 * 8);
    ck_assert_uint_eq(span_of((fa_tensor){FA_F32, {1, 1, 1, 5}, {-1, INT64_MIN, 0, 1}}), 20);
    /* Only four strides of 0 mean contiguous; else the last axis repeats. */
    ck_assert_uint_eq(span_of((fa_tensor){FA_F32, {2, 3, 4, 5}, {0, 0, 1, 0}}), 4 * 4);
    ck_assert_uint_eq(span_of((fa_tensor){FA_F32, {1, 3, 4, 5}, {1, 0, 0, 0}}), 4);
}
END_TEST

START_TEST(bad_tensors)
{
    static const struct {
        fa_tensor tensor;
        fa_status status;
        const char *message;
    } row[] = {
        {{FA_F32, {1, -2, 1, 1}, {0}}, FA_INVALID, "tensor.shape[1] is -2, expected at least 0"},
        {{FA_F32, {1, 1, 2, 1}, {1, 1, -1, 1}}, FA_INVALID, "tensor.stride[2] is -1, expected at least 0"},
        {{FA_F32, {1, 1, 1, 4}, {1, 1, 1, 3}}, FA_INVALID, "tensor.stride[3] is 3, expected 1"},
        {{(fa_dtype)99, {1, 1, 1, 4}, {0}}, FA_INVALID, "tensor.dtype is 99, expected an fa_dtype"},
        {{FA_F32, {INT64_MAX, 2, 1, 1}, {0}},
         FA_OUT_OF_MEMORY,
         "tensor.shape is 9223372036854775807 x 2 x 1 x 1"},
        {{FA_F32, {2, 2, 1, 1}, {INT64_MAX, INT64_MAX, 1, 1}},
         FA_OUT_OF_MEMORY,
         "tensor: shape[0] 2 with stride[0]"},
        {{FA_F32, {1, 1, 1, INT64_MAX}, {1, 1, 1, 1}}, FA_OUT_OF_MEMORY, "elements of f32 overflow memory"},
        {{FA_BITMAP_F16, {1, 1, 2, 36}, {0, 0, 64, 32}},
         FA_INVALID,
         "tensor.shape[3] is 36, expected a multiple of 8, at most 576, with tensor.dtype bitmap_f16"},
        {{FA_BITMAP_F16, {1, 1, 2, INT64_MAX - 7}, {0}}, FA_INVALID, "expected a multiple of 8, at most 576"},
        {{FA_BITMAP_F16, {1, 1, 2, 64}, {0, 0, 64, 8}},
         FA_INVALID,
         "tensor.stride[3] is 8, expected the bytes of a row of 64 dims in bitmap_f16, a multiple of 4 from "
         "12 to 136, with 1 to 64 elements"},
        {{FA_BITMAP_F16, {1, 1, 2, 64}, {0, 0, 64, 1}},
         FA_INVALID,
         "tensor.stride[3] is 1, expected the bytes"},
        {{FA_BITMAP_F16, {1, 1, 2, 64}, {0, 0, 64, 14}}, FA_INVALID, "tensor.stride[3] is 14, expected the"},
        {{FA_BITMAP_F16, {1, 1, 2, 64}, {0, 0, 200, 140}},
         FA_INVALID,
         "tensor.stride[3] is 140, expected the"},
        {{FA_BITMAP_F16, {1, 1, 1, 64}, {0, 0, 64, 0}}, FA_INVALID, "tensor.stride[3] is 0, expected the"},
        {{FA_BITMAP_F16, {1, 3, 2, 64}, {0, 130, 64, 64}},
         FA_INVALID,
         "tensor.stride[1] is 130 bytes, expected a multiple of 4 with tensor.dtype bitmap_f16"},
        {{FA_BITMAP_F16, {2, 2, 1, 64}, {INT64_MAX - 3, INT64_MAX - 3, 1, 64}},
         FA_OUT_OF_MEMORY,
         "tensor: shape[1] 2 with stride[1]"},
    };
    for (int i = 0; i < COUNT(row); i++) {
        size_t bytes = 0;
        ck_assert_int_eq(fa_tensor_span(&row[i].tensor, &bytes), row[i].status);
        assert_message(row[i].message);
    }
    fa_tensor t = fa_tensor_make_bitmap(1, 1, 2, 584, 100);
    size_t bytes;
    ck_assert_int_eq(fa_tensor_span(&t, &bytes), FA_INVALID);
    assert_message(
        "tensor.shape[3] is 584, expected a multiple of 8, at most 576, with tensor.dtype bitmap_f16");
    t = fa_tensor_make_bitmap(1, 1, 2, 64, 65);
    ck_assert_int_eq(fa_tensor_span(&t, &bytes), FA_INVALID);
    assert_message("tensor.stride[3] is -1, expected the bytes of a row of 64 dims in bitmap_f16");
    t = fa_tensor_make(FA_F32, 1, 1, 1, 1);
    ck_assert_int_eq(fa_tensor_span(NULL, &bytes), FA_INVALID);
    assert_message("tensor is NULL");
    ck_assert_int_eq(fa_tensor_span(&t, NULL), FA_INVALID);
    assert_message("bytes is NULL");
}
END_TEST

/* Whether no two elements share an address, by marking each. */
static bool injective_by_marking(const fa_tensor *t)
{
    static uint8_t seen[1 << 16];
    memset(seen, 0, sizeof(seen));
    const int64_t *n = t->shape, *s = t->stride;
    for (int64_t i = 0; i < n[0] * n[1] * n[2] * n[3]; i++) {
        int64_t at = i / (n[1] * n[2] * n[3]) * s[0] + i / (n[2] * n[3]) % n[1] * s[1] +
                     i / n[3] % n[2] * s[2] + i % n[3];
        if (seen[at]++)
            return false;
    }
    return true;
}

/* Never calls overlapping elements distinct; calls every layout that nests its axes distinct. */
START_TEST(overlaps_are_found)
{
    random_state random = {1};
    int distinct = 0, overlapping = 0;
    for (int n = 0; n < 4000; n++) {
        fa_tensor t = {.dtype = FA_F32};
        for (int axis = 0; axis < 4; axis++) {
            t.shape[axis] = random_between(&random, 1, 5);
            t.stride[axis] = axis == 3 ? 1 : random_between(&random, 0, 130);
        }
        bool claimed = fa_tensor_is_injective(&t), truth = injective_by_marking(&t);
        ck_assert(truth || !claimed);
        distinct += claimed;
        overlapping += !truth;
    }
    ck_assert_int_gt(distinct, 100);
    ck_assert_int_gt(overlapping, 100);
    for (int n = 0; n < 1000; n++) {
        int order[4] = {3, 0, 1, 2}; /* dim innermost, the others nested in any order, with gaps */
        for (int i = 3; i > 1; i--) {
            int other = (int)random_between(&random, 1, i), kept = order[i];
            order[i] = order[other];
            order[other] = kept;
        }
        fa_tensor t = {.dtype = FA_F32};
        int64_t stride = 1;
        for (int i = 0; i < 4; i++) {
            t.shape[order[i]] = random_between(&random, 1, 5);
            t.stride[order[i]] = stride;
            stride = stride * t.shape[order[i]] + (i < 3 ? random_between(&random, 0, 3) : 0);
        }
        ck_assert(injective_by_marking(&t) && fa_tensor_is_injective(&t));
    }
    /* Rows whose strides count bytes have as many as stride[3] says. */
    ck_assert(fa_tensor_is_injective(&(fa_tensor){FA_BITMAP_F16, {1, 1, 4, 64}, {0, 0, 72, 72}}));
    ck_assert(!fa_tensor_is_injective(&(fa_tensor){FA_BITMAP_F16, {1, 1, 4, 64}, {0, 0, 68, 72}}));
    const fa_tensor empty = {FA_F32, {2, 0, 2, 2}, {0, 0, 0, 1}};
    ck_assert(fa_tensor_is_injective(&empty) && fa_tensor_is_empty(&empty));
}
END_TEST

/* A DLTensor, written down from DLPack's documentation once more. */
typedef struct dl {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} dl;

static float dl_memory[1024];
static int64_t dl_shape[5], dl_strides[5];

static dl make_dl(int ndim, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t shape[4] = {a, b, c, d};
    memcpy(dl_shape, shape, sizeof(shape));
    return (dl){.data = dl_memory, .device = {1, 0}, .ndim = ndim, .dtype = {2, 32, 1}, .shape = dl_shape};
}

START_TEST(dlpack_layouts)
{
    fa_tensor t;
    void *data;
    int host;
    dl from = make_dl(4, 2, 3, 4, 5);
    from.byte_offset = 8;
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, &data, &host), FA_OK);
    ck_assert(t.dtype == FA_F32 && t.shape[0] == 2 && t.shape[3] == 5 && t.stride[0] == 60 &&
              t.stride[1] == 20 && t.stride[2] == 5 && t.stride[3] == 1);
    ck_assert_ptr_eq(data, (char *)dl_memory + 8);
    ck_assert_int_eq(host, 1);

    /* (batch, row, head, dim), as many frameworks have it: axes say where each is. */
    const int bshd[4] = {0, 2, 1, 3};
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, bshd, &t, NULL, NULL), FA_OK);
    ck_assert(t.shape[1] == 4 && t.shape[2] == 3 && t.stride[1] == 5 && t.stride[2] == 20);

    /* Two axes: rows and dims; a view with strides. */
    from = make_dl(2, 6, 8, 0, 0);
    dl_strides[0] = 32;
    dl_strides[1] = 1;
    from.strides = dl_strides;
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, NULL, NULL), FA_OK);
    ck_assert(t.shape[0] == 1 && t.shape[1] == 1 && t.shape[2] == 6 && t.shape[3] == 8 && t.stride[2] == 32);

    /* A packed (row, head, dim) without a batch. */
    const int packed[4] = {-1, 1, 0, 2};
    from = make_dl(3, 7, 2, 4, 0);
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, packed, &t, NULL, NULL), FA_OK);
    ck_assert(t.shape[0] == 1 && t.shape[1] == 2 && t.shape[2] == 7 && t.stride[1] == 4 && t.stride[2] == 8);

    /* A stride along an axis of one element means nothing, even negative. */
    from = make_dl(4, 1, 1, 3, 1);
    const int64_t odd[4] = {-5, 99, 2, 7};
    memcpy(dl_strides, odd, sizeof(odd));
    from.strides = dl_strides;
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, NULL, NULL), FA_OK);
    ck_assert(t.stride[2] == 2 && t.stride[3] == 1 && t.stride[0] >= 0);

    /* A repeated axis. */
    from = make_dl(4, 2, 3, 4, 5);
    const int64_t repeated[4] = {20, 0, 5, 1};
    memcpy(dl_strides, repeated, sizeof(repeated));
    from.strides = dl_strides;
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, NULL, NULL), FA_OK);
    ck_assert(t.stride[1] == 0 && t.shape[1] == 3);
    const int64_t bias[4] = {4, 0, 1, 0}, scalar[4] = {0, 0, 0, 0};
    memcpy(dl_strides, bias, sizeof(bias));
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, NULL, NULL), FA_OK);
    ck_assert(t.stride[0] == 4 && t.stride[3] == 0 && span_of(t) == 32);
    /* One element for all, told from a contiguous tensor by an axis of size 1. */
    from = make_dl(4, 1, 3, 4, 5);
    memcpy(dl_strides, scalar, sizeof(scalar));
    from.strides = dl_strides;
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, NULL, NULL), FA_OK);
    ck_assert_uint_eq(span_of(t), 4);
}
END_TEST

START_TEST(dlpack_types_and_devices)
{
    static const struct {
        uint8_t code, bits;
        uint16_t lanes;
        int dtype; /* -1: refused */
    } row[] = {{2, 32, 1, FA_F32}, {2, 16, 1, FA_F16}, {4, 16, 1, FA_BF16}, {6, 8, 1, FA_BOOL},
               {1, 8, 1, FA_BOOL}, {2, 64, 1, -1},     {0, 32, 1, -1},      {5, 64, 1, -1},
               {2, 32, 4, -1},     {2, 32, 0, -1}};
    for (int i = 0; i < COUNT(row); i++) {
        dl from = make_dl(4, 1, 1, 1, 4);
        from.dtype.code = row[i].code;
        from.dtype.bits = row[i].bits;
        from.dtype.lanes = row[i].lanes;
        fa_tensor t;
        fa_status status = fa_tensor_from_dlpack(&from, NULL, &t, NULL, NULL);
        ck_assert_int_eq(status, row[i].dtype < 0 ? FA_UNSUPPORTED : FA_OK);
        if (status == FA_OK)
            ck_assert_int_eq(t.dtype, row[i].dtype);
        else
            assert_message("dl_tensor.dtype");
    }
    static const int32_t on_host[] = {1, 3, 11}, elsewhere[] = {2, 4, 7, 8, 10};
    fa_tensor t;
    int host;
    dl from = make_dl(4, 1, 1, 1, 4);
    for (int i = 0; i < COUNT(on_host); i++) {
        from.device.type = on_host[i];
        ck_assert(fa_tensor_from_dlpack(&from, NULL, &t, NULL, &host) == FA_OK && host == 1);
    }
    for (int i = 0; i < COUNT(elsewhere); i++) {
        from.device.type = elsewhere[i];
        ck_assert(fa_tensor_from_dlpack(&from, NULL, &t, NULL, &host) == FA_OK && host == 0);
    }
}
END_TEST

static void refuse_dl(const dl *from, const int *axes, fa_status expected, const char *message)
{
    fa_tensor t, before;
    memset(&t, 0x5a, sizeof(t));
    before = t;
    void *data = &t;
    int host = 77;
    fa_status status = fa_tensor_from_dlpack(from, axes, &t, &data, &host);
    ck_assert_msg(status == expected, "%s with \"%s\", expected %s with \"%s\"", fa_status_name(status),
                  fa_last_error(), fa_status_name(expected), message);
    assert_message(message);
    ck_assert(memcmp(&t, &before, sizeof(t)) == 0 && data == &t && host == 77); /* nothing written */
}

START_TEST(dlpack_refusals)
{
    fa_tensor t;
    dl from = make_dl(4, 2, 3, 4, 5);
    ck_assert_int_eq(fa_tensor_from_dlpack(NULL, NULL, &t, NULL, NULL), FA_INVALID);
    assert_message("dl_tensor is NULL");
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, NULL, NULL, NULL), FA_INVALID);
    assert_message("tensor is NULL");
    static const int32_t wrong_ndim[] = {0, -1, 5, INT32_MAX, INT32_MIN};
    for (int i = 0; i < COUNT(wrong_ndim); i++) {
        from.ndim = wrong_ndim[i];
        refuse_dl(&from, NULL, FA_INVALID, "dl_tensor.ndim is ");
    }
    from = make_dl(4, 2, 3, 4, 5);
    refuse_dl(&from, (const int[4]){0, 1, 2, 4}, FA_INVALID, "axes[3] is 4, expected -1 to 3");
    refuse_dl(&from, (const int[4]){-2, 1, 2, 3}, FA_INVALID, "axes[0] is -2, expected -1 to 3");
    refuse_dl(&from, (const int[4]){0, 1, 1, 3}, FA_INVALID,
              "axes[2] is 1, which another axis names already");
    refuse_dl(&from, (const int[4]){0, 1, 2, -1}, FA_INVALID,
              "axes name not every one of the tensor's 4 axes");
    from.strides = dl_strides;
    const int64_t negative[4] = {60, -20, 5, 1};
    memcpy(dl_strides, negative, sizeof(negative));
    refuse_dl(&from, NULL, FA_UNSUPPORTED, "dl_tensor.strides[1] is -20, expected at least 0");
    const int64_t transposed[4] = {60, 20, 1, 4};
    memcpy(dl_strides, transposed, sizeof(transposed));
    refuse_dl(&from, NULL, FA_UNSUPPORTED,
              "dl_tensor.strides[3] is 4, expected 1: the last axis must be contiguous, or 0");
    /* Four strides of 0 would mean contiguous. */
    memset(dl_strides, 0, sizeof(dl_strides));
    refuse_dl(&from, NULL, FA_UNSUPPORTED, "dl_tensor.strides are all 0");
    from = make_dl(4, 2, -3, 4, 5);
    refuse_dl(&from, NULL, FA_INVALID, "dl_tensor.shape[1] is -3, expected at least 0");
    from = make_dl(4, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX);
    refuse_dl(&from, NULL, FA_OUT_OF_MEMORY, "dl_tensor.shape has more elements than fit in memory");
    from.shape = NULL;
    refuse_dl(&from, NULL, FA_INVALID, "dl_tensor.shape is NULL");
}
END_TEST

/* Where the data lies, or is said to. */
START_TEST(dlpack_data)
{
    static const struct {
        uintptr_t data; /* behind dl_memory; SIZE_MAX: NULL */
        uint64_t byte_offset;
        int32_t device;
        fa_status status;
        const char *message;
    } row[] = {
        {0, 16, 1, FA_OK, ""},
        {2, 6, 1, FA_OK, ""},
        {0, 2, 1, FA_INVALID, "dl_tensor.byte_offset is 2 with data at "},
        {0, UINT64_MAX, 1, FA_INVALID, "dl_tensor.byte_offset is 18446744073709551615: 480 bytes behind it"},
        {0, (uint64_t)1 << 63, 2, FA_INVALID, "dl_tensor.byte_offset is 9223372036854775808: "},
        {SIZE_MAX, 0, 1, FA_INVALID, "dl_tensor.data is NULL, expected 480 bytes"},
        {SIZE_MAX, 64, 1, FA_INVALID, "dl_tensor.data is NULL"},
        {1, 0, 4, FA_OK, ""}, /* a handle has no alignment */
        {0, 16, 4, FA_UNSUPPORTED,
         "dl_tensor.byte_offset is 16, expected 0 on a device (type 4) whose data is a handle"},
        {0, 16, 7, FA_UNSUPPORTED, "dl_tensor.byte_offset is 16, expected 0"},
        {0, 16, 2, FA_OK, ""},
    };
    for (int i = 0; i < COUNT(row); i++) {
        dl from = make_dl(4, 2, 3, 4, 5);
        char *data = row[i].data == SIZE_MAX ? NULL : (char *)dl_memory + row[i].data;
        from.data = data;
        from.byte_offset = row[i].byte_offset;
        from.device.type = row[i].device;
        fa_tensor t;
        void *found = &t;
        fa_status status = fa_tensor_from_dlpack(&from, NULL, &t, &found, NULL);
        ck_assert_msg(status == row[i].status, "row %d: %s \"%s\"", i, fa_status_name(status),
                      fa_last_error());
        assert_message(row[i].message);
        if (status == FA_OK)
            ck_assert_ptr_eq(found, data + row[i].byte_offset);
        else
            ck_assert_ptr_eq(found, &t);
        /* The layout alone. */
        ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, NULL, NULL), FA_OK);
    }
    /* Nothing may lie at NULL. */
    dl from = make_dl(4, 2, 0, 4, 5);
    from.data = NULL;
    fa_tensor t;
    void *found = &t;
    ck_assert_int_eq(fa_tensor_from_dlpack(&from, NULL, &t, &found, NULL), FA_OK);
    ck_assert_ptr_null(found);
    /* Strides that carry out of memory. */
    from = make_dl(4, 2, 3, 4, 5);
    const int64_t far[4] = {INT64_MAX, INT64_MAX, 5, 1};
    memcpy(dl_strides, far, sizeof(far));
    from.strides = dl_strides;
    refuse_dl(&from, NULL, FA_OUT_OF_MEMORY, "dl_tensor: shape[0] 2 with stride[0]");
}
END_TEST

Suite *tensor_suite(void)
{
    Suite *suite = suite_create("tensor");
    TCase *tc = tcase_create("layout");
    tcase_add_test(tc, types);
    tcase_add_test(tc, spans);
    tcase_add_test(tc, bad_tensors);
    tcase_add_test(tc, overlaps_are_found);
    suite_add_tcase(suite, tc);
    TCase *dlpack = tcase_create("dlpack");
    tcase_add_test(dlpack, dlpack_layouts);
    tcase_add_test(dlpack, dlpack_types_and_devices);
    tcase_add_test(dlpack, dlpack_refusals);
    tcase_add_test(dlpack, dlpack_data);
    suite_add_tcase(suite, dlpack);
    return suite;
}
