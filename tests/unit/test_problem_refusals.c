/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions that are refused, each with the field and the value in the message. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "test_problem.h"

/* One field of a description and what is put into it. */
typedef struct change {
    enum { NOTHING, WIDE, NARROW, REAL, POINTER } kind;
    size_t offset;
    int64_t integer;
    double real;
    const void *pointer;
} change;

#define I64(field, value)               \
    {                                   \
        WIDE, AT(field), value, 0, NULL \
    }
#define I32(field, value)                 \
    {                                     \
        NARROW, AT(field), value, 0, NULL \
    }
#define F32(field, value)               \
    {                                   \
        REAL, AT(field), 0, value, NULL \
    }
#define PTR(field, value)               \
    {                                   \
        POINTER, AT(field), 0, 0, value \
    }

static void apply(fa_attention_desc *d, const change *c)
{
    char *field = (char *)d + c->offset;
    int32_t narrow = (int32_t)c->integer;
    float real = (float)c->real;
    switch (c->kind) {
    case NOTHING: break;
    case WIDE: memcpy(field, &c->integer, sizeof(c->integer)); break;
    case NARROW: memcpy(field, &narrow, sizeof(narrow)); break;
    case REAL: memcpy(field, &real, sizeof(real)); break;
    case POINTER: memcpy(field, &c->pointer, sizeof(c->pointer)); break;
    }
}

typedef struct refusal {
    change change[6];
    fa_status status;
    const char *message;
} refusal;

static void refuse_all(const refusal *row, int count)
{
    for (int i = 0; i < count; i++) {
        fa_attention_desc d = base();
        for (int c = 0; c < COUNT(row[i].change); c++)
            apply(&d, &row[i].change[c]);
        refuse(&d, row[i].status, row[i].message);
    }
}

START_TEST(negative_sizes)
{
    static const int64_t values[] = {-1, -4096, INT64_MIN};
    for (int i = 0; i < COUNT(operand) * 4 * COUNT(values) * 2; i++) {
        int axis = i % 4, t = i / 4 % COUNT(operand), is_stride = i / 4 / COUNT(operand) % 2;
        int64_t value = values[i / 8 / COUNT(operand)];
        fa_attention_desc d = base_with_extras();
        fa_tensor *tensor = (fa_tensor *)(void *)((char *)&d + operand[t].offset);
        (is_stride ? tensor->stride : tensor->shape)[axis] = value;
        char message[80];
        snprintf(message, sizeof(message), "%s.%s[%d] is %lld, expected at least 0", operand[t].name,
                 is_stride ? "stride" : "shape", axis, (long long)value);
        refuse(&d, FA_INVALID, message);
    }
}
END_TEST

START_TEST(overflowing_sizes)
{
    for (int t = 0; t < COUNT(operand); t++) {
        char message[80];
        fa_attention_desc d = base_with_extras();
        fa_tensor *tensor = (fa_tensor *)(void *)((char *)&d + operand[t].offset);
        const fa_tensor good = *tensor;
        tensor->shape[0] = INT64_MAX;
        snprintf(message, sizeof(message), "%s.shape is 9223372036854775807 x ", operand[t].name);
        refuse(&d, FA_OUT_OF_MEMORY, message);
        *tensor = good;
        tensor->stride[3] = 1;
        tensor->stride[0] = INT64_MAX;
        snprintf(message, sizeof(message), "%s: shape[0] 2 with stride[0] 9223372036854775807 overflows",
                 operand[t].name);
        refuse(&d, FA_OUT_OF_MEMORY, message);
        if (tensor->dtype == FA_BOOL)
            continue;
        tensor->stride[0] = INT64_MAX / 2; /* fits as elements, not as bytes */
        snprintf(message, sizeof(message), "%s: 46116860184273879", operand[t].name);
        refuse(&d, FA_OUT_OF_MEMORY, message);
    }
}
END_TEST

START_TEST(unsupported_types)
{
    for (int t = 0; t < COUNT(operand); t++) {
        static const int values[] = {98, 99, -1, INT32_MAX};
        char message[80];
        fa_attention_desc d = base_with_extras();
        fa_tensor *tensor = (fa_tensor *)(void *)((char *)&d + operand[t].offset);
        for (int i = 0; i < COUNT(values); i++) {
            memcpy(&tensor->dtype, &values[i], sizeof(int)); /* no fa_dtype: not to be assigned as one */
            snprintf(message, sizeof(message), "%s.dtype is %d, expected an fa_dtype", operand[t].name,
                     values[i]);
            refuse(&d, FA_INVALID, message);
        }
        bool keep = strcmp(operand[t].name, "keep") == 0;
        tensor->dtype = keep ? FA_F16 : FA_BOOL;
        snprintf(message, sizeof(message), "%s.dtype is %s, expected %s", operand[t].name,
                 keep ? "f16" : "bool",
                 keep                               ? "bool or i32"
                 : tensor == &d.k || tensor == &d.v ? "f32, f16, bf16 or a format of caches"
                                                    : "f32, f16 or bf16");
        refuse(&d, FA_INVALID, message);
        tensor->dtype = FA_Q8_0; /* of which no row has 12 or 16 elements */
        snprintf(message, sizeof(message), "%s.dtype is q8_0, expected", operand[t].name);
        if (tensor != &d.k && tensor != &d.v)
            refuse(&d, FA_INVALID, message);
        *tensor = fa_tensor_make(keep ? FA_BOOL : FA_F32, 2, 4, 8, 12);
        tensor->stride[3] = 2;
        snprintf(message, sizeof(message), "%s.stride[3] is 2, expected 1", operand[t].name);
        refuse(&d, FA_INVALID, message);
    }
}
END_TEST

START_TEST(shapes)
{
    static const refusal row[] = {
        {{I64(q.shape[3], 0)}, FA_INVALID, "q.shape[3] is 0, expected 1 to 576"},
        {{I64(q.shape[3], 577)}, FA_INVALID, "q.shape[3] is 577, expected 1 to 576"},
        {{I64(v.shape[3], 0)}, FA_INVALID, "v.shape[3] is 0, expected 1 to 576"},
        {{I64(v.shape[3], 577)}, FA_INVALID, "v.shape[3] is 577, expected 1 to 576"},
        {{I64(k.shape[3], 8)}, FA_INVALID, "k.shape[3] is 8, expected 16 as q.shape[3]"},
        {{I64(v.shape[0], 3)}, FA_INVALID, "v.shape[0] is 3, expected 2 as k.shape[0]"},
        {{I64(v.shape[1], 4)}, FA_INVALID, "v.shape[1] is 4, expected 2 as k.shape[1]"},
        {{I64(v.shape[2], 11)}, FA_INVALID, "v.shape[2] is 11, expected 12 as k.shape[2]"},
        {{I64(o.shape[0], 1)}, FA_INVALID, "o.shape[0] is 1, expected 2 as q.shape[0]"},
        {{I64(o.shape[1], 2)}, FA_INVALID, "o.shape[1] is 2, expected 4 as q.shape[1]"},
        {{I64(o.shape[2], 9)}, FA_INVALID, "o.shape[2] is 9, expected 8 as q.shape[2]"},
        {{I64(o.shape[3], 8)}, FA_INVALID, "o.shape[3] is 8, expected 16 as v.shape[3]"},
        {{I64(k.shape[0], 3), I64(v.shape[0], 3)}, FA_INVALID, "k.shape[0] is 3, expected 2 as q.shape[0]"},
        {{I64(q.shape[1], 3), I64(o.shape[1], 3)},
         FA_INVALID,
         "q.shape[1] is 3 heads, expected a multiple of k.shape[1], 2"},
        {{I64(k.shape[1], 0), I64(v.shape[1], 0)}, FA_INVALID, "k.shape[1] is 0, expected 1 to 1048576"},
        {{I64(q.shape[1], (1 << 20) + 2), I64(o.shape[1], (1 << 20) + 2)},
         FA_INVALID,
         "q.shape[1] is 1048578, expected 0 to 1048576"},
        {{I64(k.shape[1], (1 << 20) + 1), I64(v.shape[1], (1 << 20) + 1)},
         FA_INVALID,
         "k.shape[1] is 1048577, expected 1 to 1048576"},
        {{I64(q.shape[2], FA_MAX_LENGTH + 1), I64(o.shape[2], FA_MAX_LENGTH + 1)},
         FA_INVALID,
         "q.shape[2] is 268435457, expected 0 to 268435456"},
        {{I64(k.shape[2], FA_MAX_LENGTH + 1), I64(v.shape[2], FA_MAX_LENGTH + 1)},
         FA_INVALID,
         "k.shape[2] is 268435457, expected 0 to 268435456"},
        {{I64(q.shape[0], (1 << 24) + 1), I64(o.shape[0], (1 << 24) + 1), I64(k.shape[0], (1 << 24) + 1),
          I64(v.shape[0], (1 << 24) + 1)},
         FA_INVALID,
         "q.shape[0] is 16777217, expected 0 to 16777216"},
        /* 2^28 rows of 16 heads that share one KV head: more packed rows than an int counts. */
        {{I64(q.shape[2], FA_MAX_LENGTH), I64(o.shape[2], FA_MAX_LENGTH), I64(q.shape[1], 16),
          I64(o.shape[1], 16), I64(k.shape[1], 1), I64(v.shape[1], 1)},
         FA_INVALID,
         "q.shape[2] gives a sequence of 268435456 rows of 16 heads on one KV head, expected a product of "
         "at most 1073741824"},
        /* Overlapping output: repeated, and one row into the next. */
        {{I64(o.stride[0], 0), I64(o.stride[1], 128), I64(o.stride[2], 16), I64(o.stride[3], 1)},
         FA_INVALID,
         "o.stride is (0, 128, 16, 1): elements of o overlap"},
        {{I64(o.stride[0], 512), I64(o.stride[1], 128), I64(o.stride[2], 15), I64(o.stride[3], 1)},
         FA_INVALID,
         "o.stride is (512, 128, 15, 1): elements of o overlap"},
    };
    refuse_all(row, COUNT(row));
}
END_TEST

START_TEST(numbers)
{
    static const float slopes[] = {0.5f, 0.25f, INFINITY, 0.1f}, sinks[] = {0, -INFINITY, 1, NAN};
    static const float positive[] = {0, INFINITY, 0, 0};
    static const float each[] = {1, 2, 3, 4, 9, 5, 6, INFINITY, 8};
    static const refusal row[] = {
        {{F32(scale, (double)NAN)}, FA_INVALID, "scale is nan, expected a finite number"},
        {{F32(scale, (double)INFINITY)}, FA_INVALID, "scale is inf, expected a finite number"},
        {{F32(softcap, (double)NAN)}, FA_INVALID, "softcap is nan, expected 0 or a positive number"},
        {{F32(softcap, -2)}, FA_INVALID, "softcap is -2, expected 0 or a positive number"},
        {{F32(softcap, (double)INFINITY)}, FA_INVALID, "softcap is inf, expected 0 or a positive number"},
        {{I32(mask, 3)}, FA_INVALID, "mask is 3, expected an fa_mask_kind"},
        {{I32(mask, -1)}, FA_INVALID, "mask is -1, expected an fa_mask_kind"},
        {{I32(alignment, 3)}, FA_INVALID, "alignment is 3, expected an fa_alignment"},
        {{I32(alignment, -1)}, FA_INVALID, "alignment is -1, expected an fa_alignment"},
        {{I32(alignment, FA_ALIGN_TOP_LEFT), I32(mask, FA_MASK_CAUSAL_BOTTOM_RIGHT)},
         FA_INVALID,
         "alignment is 1 (top left), expected 2 or 0 with mask 2 (causal, bottom right)"},
        {{I32(alignment, FA_ALIGN_BOTTOM_RIGHT), I32(mask, FA_MASK_CAUSAL_TOP_LEFT)},
         FA_INVALID,
         "alignment is 2 (bottom right), expected 1 or 0 with mask 1 (causal, top left)"},
        {{I32(scale_is_set, 2)}, FA_INVALID, "scale_is_set is 2, expected 0 to 1"},
        {{I64(window_left, -1)}, FA_INVALID, "window_left is -1, expected 0 to "},
        {{I64(window_right, INT64_MIN)}, FA_INVALID, "window_right is -9223372036854775808, expected 0 to "},
        {{I64(prefix, -7)}, FA_INVALID, "prefix is -7, expected 0 to "},
        {{I64(diagonal_offset, FA_MAX_LENGTH + 1)},
         FA_INVALID,
         "diagonal_offset is 268435457, expected -268435456"},
        {{I64(diagonal_offset, INT64_MIN)}, FA_INVALID, "diagonal_offset is -9223372036854775808, expected "},
        {{I32(want_lse, 2)}, FA_INVALID, "want_lse is 2, expected 0 to 1"},
        {{I32(want_lse, -1)}, FA_INVALID, "want_lse is -1, expected 0 to 1"},
        {{PTR(alibi_slopes, slopes)}, FA_INVALID, "alibi_slopes[2] is inf, expected a finite number"},
        {{I64(alibi_stride, 5)}, FA_INVALID, "alibi_stride is 5, expected 0 without alibi_slopes"},
        {{PTR(alibi_slopes, each), I64(alibi_stride, -1)}, FA_INVALID, "alibi_stride is -1, expected 0 to "},
        {{PTR(alibi_slopes, each), I64(alibi_stride, INT64_MAX)}, FA_INVALID, "alibi_stride is 922"},
        {{PTR(alibi_slopes, each), I64(alibi_stride, 5)},
         FA_INVALID,
         "alibi_slopes[7] is inf, expected a finite number"},
        {{PTR(bias_factors, each)}, FA_INVALID, "bias_factors is given without bias, expected NULL"},
        {{PTR(bias_factors, slopes), I64(bias.shape[0], 1), I64(bias.shape[1], 1), I64(bias.shape[2], 1),
          I64(bias.shape[3], 1)},
         FA_INVALID,
         "bias_factors[2] is inf, expected a finite number"},
        {{PTR(sinks, sinks)}, FA_INVALID, "sinks[3] is nan, expected a finite number or -inf"},
        {{PTR(sinks, positive)}, FA_INVALID, "sinks[1] is inf, expected a finite number or -inf"},
    };
    refuse_all(row, COUNT(row));
}
END_TEST

START_TEST(sequences)
{
    /* `good` has a fourth offset, which only the entry that claims three sequences reads. */
    static const int64_t good[] = {0, 3, 8, 1}, falling[] = {0, 5, 4}, beyond[] = {0, 5, 9},
                         negative[] = {-1, 5, 8};
    static const int32_t lens32[] = {8, 13}, falling32[] = {0, 5, 4};
    static const int64_t lens[] = {12, 13}, low[] = {-1, 4}, good_kv[] = {0, 3, 12};
#define PACK_Q I64(q.shape[0], 1), I64(o.shape[0], 1)
#define PACK_KV I64(k.shape[0], 1), I64(v.shape[0], 1)
    static const refusal row[] = {
        {{I64(sequences, 3)},
         FA_INVALID,
         "sequences is 3, expected 0 or q.shape[0], 2, as neither cu_rows_q nor cu_rows_kv is given"},
        {{I64(sequences, -1)}, FA_INVALID, "sequences is -1, expected 0 or q.shape[0], 2, as neither"},
        {{PACK_Q, PTR(cu_rows_q, good), I64(sequences, -1)},
         FA_INVALID,
         "sequences is -1, expected 0 to 16777216"},
        {{PACK_Q, PTR(cu_rows_q, good), I64(sequences, INT64_MAX)},
         FA_INVALID,
         "sequences is 9223372036854775807, expected 0 to 16777216"},
        {{PTR(cu_rows_q, good), I64(sequences, 2)},
         FA_INVALID,
         "q.shape[0] is 2, expected 1 as the batch of packed sequences"},
        {{PTR(cu_rows_kv, good), I64(sequences, 2)},
         FA_INVALID,
         "k.shape[0] is 2, expected 1 as the batch of packed sequences"},
        {{PACK_Q, PTR(cu_rows_q, falling), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_q[2] is 4, expected at least cu_rows_q[1], 5"},
        {{PACK_Q, PTR(cu_rows_q, beyond), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_q[2] is 9, expected at most the tensor's 8 rows"},
        {{PACK_Q, PTR(cu_rows_q, negative), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_q[0] is -1, expected at least 0"},
        {{PACK_KV, PTR(cu_rows_kv, falling), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_kv[2] is 4, expected at least cu_rows_kv[1], 5"},
        {{PACK_KV, PTR(cu_rows_kv, negative), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_kv[0] is -1, expected at least 0"},
        {{PACK_KV, PTR(cu_rows_kv, good_kv), I64(k.shape[2], 11), I64(v.shape[2], 11), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_kv[2] is 12, expected at most the tensor's 11 rows"},
        {{PACK_Q, PTR(cu_rows_q, good), I64(sequences, 3)},
         FA_INVALID,
         "cu_rows_q[3] is 1, expected at least cu_rows_q[2], 8"},
        {{PACK_Q, PTR(cu_rows_q, good), I64(sequences, 1)},
         FA_INVALID,
         "k.shape[0] is 2, expected 1 as sequences"},
        {{PACK_KV, PTR(cu_rows_kv, good), I64(sequences, 1)},
         FA_INVALID,
         "q.shape[0] is 2, expected 1 as sequences"},
        {{PTR(lens_kv, good), I64(sequences, 3)}, FA_INVALID, "sequences is 3, expected 0 or q.shape[0], 2"},
        {{PTR(lens_q, lens)}, FA_INVALID, "lens_q[0] is 12, expected 0 to q.shape[2], 8"},
        {{PTR(lens_q, low)}, FA_INVALID, "lens_q[0] is -1, expected 0 to q.shape[2], 8"},
        {{PTR(lens_q32, lens32)}, FA_INVALID, "lens_q32[1] is 13, expected 0 to q.shape[2], 8"},
        {{PTR(lens_kv32, lens32)}, FA_INVALID, "lens_kv32[1] is 13, expected 0 to k.shape[2], 12"},
        {{PACK_Q, PTR(cu_rows_q32, falling32), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_q32[2] is 4, expected at least cu_rows_q32[1], 5"},
        {{PACK_KV, PTR(cu_rows_kv32, falling32), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_kv32[2] is 4, expected at least cu_rows_kv32[1], 5"},
        {{PACK_Q, PTR(cu_rows_q, good), PTR(cu_rows_q32, falling32), I64(sequences, 2)},
         FA_INVALID,
         "cu_rows_q32 is given with cu_rows_q, expected one of the two"},
        {{PTR(lens_kv, good), PTR(lens_kv32, lens32)},
         FA_INVALID,
         "lens_kv32 is given with lens_kv, expected one of the two"},
        {{PACK_Q, PTR(cu_rows_q, good), PTR(lens_q32, lens32), I64(sequences, 2)},
         FA_INVALID,
         "lens_q32 is given with cu_rows_q, expected one of the two"},
        {{PTR(lens_kv, lens)}, FA_INVALID, "lens_kv[1] is 13, expected 0 to k.shape[2], 12"},
        {{PTR(lens_kv, low)}, FA_INVALID, "lens_kv[0] is -1, expected 0 to k.shape[2], 12"},
        {{PACK_KV, PTR(cu_rows_kv, good), PTR(lens_kv, lens), I64(sequences, 2)},
         FA_INVALID,
         "lens_kv is given with cu_rows_kv, expected one of the two"},
    };
    refuse_all(row, COUNT(row));
}
END_TEST

/* A sequence in a packed tensor may be at most FA_MAX_LENGTH long, the tensor longer. */
START_TEST(long_packed_sequences)
{
    const int64_t cu[] = {0, FA_MAX_LENGTH + 1};
    fa_attention_desc d = make_desc(1, 1, 1, (int64_t)FA_MAX_LENGTH * 2, 4, 1);
    d.cu_rows_q = cu;
    d.sequences = 1;
    refuse(&d, FA_INVALID, "cu_rows_q: sequence 0 has 268435457 rows, expected at most 268435456");
}
END_TEST

START_TEST(extras)
{
    static const int64_t cu[] = {0, 3, 8};
#define BIAS(a, b, c, e) \
    I64(bias.shape[0], a), I64(bias.shape[1], b), I64(bias.shape[2], c), I64(bias.shape[3], e)
    static const refusal row[] = {
        {{BIAS(3, 4, 8, 12)}, FA_INVALID, "bias.shape[0] is 3, expected 1 or 2"},
        {{BIAS(2, 2, 8, 12)}, FA_INVALID, "bias.shape[1] is 2, expected 1 or 4"},
        {{BIAS(2, 4, 9, 12)}, FA_INVALID, "bias.shape[2] is 9, expected 1 or 8"},
        {{BIAS(2, 4, 8, 13)}, FA_INVALID, "bias.shape[3] is 13, expected 1 or 12"},
        {{BIAS(2, 4, 8, 0)}, FA_INVALID, "bias.shape[3] is 0, expected 1 or 12"},
        {{BIAS(0, 1, 1, 1)}, FA_INVALID, "bias.shape[0] is 0, expected 1 or 2"},
    };
    refuse_all(row, COUNT(row));
    /* Packed: as long as the longest sequence, which has 5 rows, or longer. */
    fa_attention_desc d = base();
    d.q.shape[0] = d.o.shape[0] = 1;
    d.cu_rows_q = cu;
    d.sequences = 2;
    d.bias = fa_tensor_make(FA_F32, 2, 1, 4, 1);
    refuse(&d, FA_INVALID, "bias.shape[2] is 4, expected 1 or at least 5");
    d.bias.shape[2] = 7;
    fa_problem p = accept(&d);
    ck_assert(p.features & FA_FEATURE_BIAS);
    fa_problem_release(context, &p);
    d.bias.shape[0] = 3;
    refuse(&d, FA_INVALID, "bias.shape[0] is 3, expected 1 or 2");
    d.bias.shape[0] = 1;
    d.keep = fa_tensor_make(FA_BOOL, 1, 3, 1, 1);
    refuse(&d, FA_INVALID, "keep.shape[1] is 3, expected 1 or 4");
}
END_TEST

/* Bits of keep: as many as the keys need, which may be the last alone. */
START_TEST(bits_of_keep)
{
    fa_attention_desc d = base_with_extras();
    fa_problem problem;
    d.keep_last = 5;
    refuse(&d, FA_INVALID, "keep_last is 5, expected 0: keep holds no bits");
    d.keep = fa_tensor_make(FA_I32, 2, 1, 8, 1);
    ck_assert_msg(fa_problem_init(context, &d, &problem) == FA_OK, "%s", fa_last_error());
    ck_assert(problem.keep_bits && problem.keep_last == 5);
    fa_problem_release(context, &problem);
    d.keep_last = -1;
    refuse(&d, FA_INVALID, "keep_last is -1, expected 0 to");
    d.keep_last = 33;
    refuse(&d, FA_INVALID, "keep.shape[3] is 1, expected at least 2: bits of 33 keys");
    d.keep_last = 0;
    d.k.shape[2] = d.v.shape[2] = d.bias.shape[3] = 33;
    refuse(&d, FA_INVALID, "keep.shape[3] is 1, expected at least 2: bits of 33 keys");
    d.keep.shape[3] = 2;
    d.keep.shape[2] = 9;
    refuse(&d, FA_INVALID, "keep.shape[2] is 9, expected 1 or 8");
    d.keep.shape[2] = 8;
    ck_assert_msg(fa_problem_init(context, &d, &problem) == FA_OK, "%s", fa_last_error());
    fa_problem_release(context, &problem);
}
END_TEST

/* v as the first dims of k: nothing of it lies elsewhere. */
START_TEST(values_in_keys)
{
    fa_attention_desc d = base();
    d.v_in_k = 2;
    refuse(&d, FA_INVALID, "v_in_k is 2, expected 0 to 1");
    d.v_in_k = 1;
    fa_problem p = accept(&d);
    ck_assert(p.features & FA_FEATURE_V_IN_K);
    fa_problem_release(context, &p);
    d.k.dtype = FA_BITMAP_F16; /* whose strides v, in f32, does not get */
    refuse(&d, FA_INVALID, "v.dtype is f32, expected k.dtype, bitmap_f16, with v_in_k");
    d.k.dtype = FA_F32;
    d.v.shape[3] = d.o.shape[3] = 9; /* with strides that are not given, k's */
    p = accept(&d);
    ck_assert_int_eq(memcmp(p.tensor[FA_V].stride, p.tensor[FA_K].stride, sizeof(d.k.stride)), 0);
    ck_assert_int_eq(p.tensor[FA_V].stride[2], 16);
    fa_problem_release(context, &p);
    d.v.stride[3] = 1;
    d.v.stride[2] = 9;
    d.v.stride[1] = 9 * 12;
    d.v.stride[0] = 2 * 9 * 12;
    refuse(&d, FA_INVALID, "v.stride[0] is 216, expected k.stride[0], 384, with v_in_k");
    d.v.stride[0] = 384;
    d.v.stride[1] = 192;
    refuse(&d, FA_INVALID, "v.stride[2] is 9, expected k.stride[2], 16, with v_in_k");
    d.v.stride[2] = 16;
    p = accept(&d);
    fa_problem_release(context, &p);
    d.v.dtype = FA_F16;
    refuse(&d, FA_INVALID, "v.dtype is f16, expected k.dtype, f32, with v_in_k");
    d.v.dtype = FA_F32;
    d.v.shape[3] = d.o.shape[3] = 17;
    refuse(&d, FA_INVALID, "v.shape[3] is 17, expected at most k.shape[3], 16, with v_in_k");
    d.v.shape[3] = d.o.shape[3] = 9;
    d.v.shape[2] = 11;
    refuse(&d, FA_INVALID, "v.shape[2] is 11, expected 12 as k.shape[2]");
}
END_TEST

/* FlashMLA's rows have their dims, and are k; v is a part of them. */
START_TEST(latent_rows)
{
    fa_attention_desc d = base();
    d.q = fa_tensor_make(FA_F32, 2, 4, 8, 576);
    d.k = fa_tensor_make(FA_FP8_DS_MLA, 2, 2, 12, 576);
    d.v = fa_tensor_make(FA_FP8_DS_MLA, 2, 2, 12, 512);
    d.o = fa_tensor_make(FA_F32, 2, 4, 8, 512);
    refuse(&d, FA_INVALID, "v.dtype is fp8_ds_mla, expected v_in_k to be 1: v is the first 512 dims of k");
    d.v_in_k = 1;
    fa_problem p = accept(&d);
    ck_assert_int_eq(p.tensor[FA_V].stride[2], 576);
    ck_assert_uint_eq(p.span[FA_V], 2 * 2 * 12 * 656);
    fa_problem_release(context, &p);
    d.v.shape[3] = 64;
    refuse(&d, FA_INVALID, "v.shape[3] is 64, expected 512 with v.dtype fp8_ds_mla");
    d.v.shape[3] = 576;
    refuse(&d, FA_INVALID, "v.shape[3] is 576, expected 512 with v.dtype fp8_ds_mla");
    d.v.shape[3] = 512;
    d.q.shape[3] = d.k.shape[3] = 512;
    refuse(&d, FA_INVALID, "k.shape[3] is 512, expected 576 with k.dtype fp8_ds_mla");
    d.q.shape[3] = d.k.shape[3] = 128;
    refuse(&d, FA_INVALID, "k.shape[3] is 128, expected 576 with k.dtype fp8_ds_mla");
    d.q.shape[3] = d.k.shape[3] = 576;
    d.k.stride[3] = 1;
    d.k.stride[2] = 640;
    refuse(&d, FA_INVALID, "k.stride[2] is 640, expected a multiple of 576, a block of fp8_ds_mla");
    d.k.stride[2] = d.k.stride[3] = 0;
    d.k_scale = fa_tensor_make(FA_F32, 1, 1, 1, 1);
    refuse(&d, FA_INVALID,
           "k.dtype is fp8_ds_mla with k_scale, expected fp8 or codes alone, which have no scales");
    d.k_scale = (fa_tensor){0};
    d.q = fa_tensor_make(FA_FP8_DS_MLA, 2, 4, 8, 576);
    refuse(&d, FA_INVALID, "q.dtype is fp8_ds_mla, expected f32, f16 or bf16");
}
END_TEST

/* Rows that keep some of their elements are a tensor of their own. */
START_TEST(bitmap_rows)
{
    fa_attention_desc d = base();
    d.q = fa_tensor_make(FA_F32, 2, 4, 8, 64);
    d.k = fa_tensor_make_bitmap(2, 2, 12, 64, 32);
    d.v = fa_tensor_make_bitmap(2, 2, 12, 64, 20);
    d.o = fa_tensor_make(FA_F32, 2, 4, 8, 64);
    fa_problem p = accept(&d);
    ck_assert_uint_eq(p.span[FA_K], 2 * 2 * 12 * (8 + 64));
    ck_assert_int_eq(p.k_scales.row_bytes, 8 + 64);
    ck_assert_int_eq(p.v_scales.row_bytes, 8 + 40);
    fa_problem_release(context, &p);
    d.k = fa_tensor_make_bitmap(2, 2, 12, 64, 0);
    refuse(&d, FA_INVALID, "k.stride[3] is 8, expected the bytes of a row of 64 dims in bitmap_f16");
    d.k = fa_tensor_make_bitmap(2, 2, 12, 64, 65);
    refuse(&d, FA_INVALID, "k.stride[3] is -1, expected");
    d.k = fa_tensor_make_bitmap(2, 2, 12, 64, 64);
    d.v = fa_tensor_make_bitmap(2, 2, 12, 68, 64);
    refuse(&d, FA_INVALID,
           "v.shape[3] is 68, expected a multiple of 8, at most 576, with v.dtype bitmap_f16");
    d.v = d.k;
    d.v_in_k = 1;
    refuse(&d, FA_INVALID, "v.dtype is bitmap_f16, expected v_in_k to be 0");
    d.v_in_k = 0;
    d.k_scale = fa_tensor_make(FA_F32, 1, 1, 1, 1);
    refuse(&d, FA_INVALID, "k.dtype is bitmap_f16 with k_scale, expected fp8 or codes alone");
    d.k_scale = (fa_tensor){0};
    d.q = fa_tensor_make_bitmap(2, 4, 8, 64, 32);
    refuse(&d, FA_INVALID, "q.dtype is bitmap_f16, expected f32, f16 or bf16");
}
END_TEST

START_TEST(tuning)
{
    char name[200];
    memset(name, 'x', sizeof(name) - 1);
    name[199] = '\0';
    const fa_tuning good = {.struct_size = sizeof(good)};
    fa_tuning t = good;
    fa_attention_desc d = base();
    d.tuning = &t;
    t.block_q = -1;
    refuse(&d, FA_INVALID, "tuning.block_q is -1, expected 0 to 1048576");
    t.block_q = (1 << 20) + 1;
    refuse(&d, FA_INVALID, "tuning.block_q is 1048577, expected 0 to 1048576");
    t = good;
    t.block_kv = INT32_MIN;
    refuse(&d, FA_INVALID, "tuning.block_kv is -2147483648, expected 0 to 1048576");
    t = good;
    t.splits = 65537;
    refuse(&d, FA_INVALID, "tuning.splits is 65537, expected 0 to 65536");
    t = good;
    t.kernel = name;
    refuse(&d, FA_INVALID, "tuning.kernel has 199 characters, expected at most 63");
    name[63] = '\0';
    fa_problem p = accept(&d);
    ck_assert_str_eq(p.kernel_name, name);
    fa_problem_release(context, &p);
    t.struct_size = 8;
    refuse(&d, FA_INVALID, "fa_tuning.struct_size is 8, expected sizeof(fa_tuning), ");
}
END_TEST

START_TEST(struct_sizes)
{
    refuse(NULL, FA_INVALID, "desc is NULL");
    static const size_t wrong[] = {0, 1, sizeof(fa_attention_desc) - 1, SIZE_MAX};
    for (int i = 0; i < COUNT(wrong); i++) {
        fa_attention_desc d = base();
        d.struct_size = wrong[i];
        char message[80];
        snprintf(message, sizeof(message), "fa_attention_desc.struct_size is %zu, expected sizeof", wrong[i]);
        refuse(&d, FA_INVALID, message);
    }
    struct newer {
        fa_attention_desc desc;
        char unknown[16];
    } newer;
    memset(&newer, 0, sizeof(newer));
    newer.desc = base();
    newer.desc.struct_size = sizeof(newer);
    fa_problem p = accept(&newer.desc);
    fa_problem_release(context, &p);
    newer.unknown[15] = 1;
    char message[80];
    snprintf(message, sizeof(message), "fa_attention_desc: byte %zu is not 0", sizeof(newer) - 1);
    refuse(&newer.desc, FA_UNSUPPORTED, message);
}
END_TEST

void problem_add_refusals(Suite *suite)
{
    TCase *bad = add_context_case(suite, "refused by name");
    tcase_add_test(bad, negative_sizes);
    tcase_add_test(bad, overflowing_sizes);
    tcase_add_test(bad, unsupported_types);
    tcase_add_test(bad, shapes);
    tcase_add_test(bad, numbers);
    tcase_add_test(bad, sequences);
    tcase_add_test(bad, long_packed_sequences);
    tcase_add_test(bad, extras);
    tcase_add_test(bad, bits_of_keep);
    tcase_add_test(bad, values_in_keys);
    tcase_add_test(bad, latent_rows);
    tcase_add_test(bad, bitmap_rows);
    tcase_add_test(bad, tuning);
    tcase_add_test(bad, struct_sizes);
}
