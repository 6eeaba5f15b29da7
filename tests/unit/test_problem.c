/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/problem.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/tensor.h"
#include "helpers.h"
#include "suites.h"

static void refuse(const fa_attention_desc *d, fa_status expected, const char *message)
{
    fa_problem p;
    fa_status status = fa_problem_init(context, d, &p);
    ck_assert_msg(status == expected, "%s, expected %s with \"%s\"; the message is \"%s\"",
                  fa_status_name(status), fa_status_name(expected), message, fa_last_error());
    assert_message(message);
    ck_assert_ptr_null(p.sequence); /* empty: nothing to release */
    ck_assert_int_eq(p.sequences, 0);
}

static fa_problem accept(const fa_attention_desc *d)
{
    fa_problem p;
    fa_status status = fa_problem_init(context, d, &p);
    ck_assert_msg(status == FA_OK, "%s", fa_last_error());
    return p;
}

static fa_attention_desc base(void)
{
    return make_desc(2, 4, 2, 8, 12, 16);
}

/* One field of a description and what is put into it. */
typedef struct change {
    enum { NOTHING, WIDE, NARROW, REAL, POINTER } kind;
    size_t offset;
    int64_t integer;
    double real;
    const void *pointer;
} change;

#define AT(field) offsetof(fa_attention_desc, field)
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

static const struct {
    const char *name;
    size_t offset;
} operand[] = {{"q", AT(q)}, {"k", AT(k)},       {"v", AT(v)},
               {"o", AT(o)}, {"bias", AT(bias)}, {"keep", AT(keep)}};

static fa_attention_desc base_with_extras(void)
{
    fa_attention_desc d = base();
    d.bias = fa_tensor_make(FA_F32, 2, 4, 8, 12);
    d.keep = fa_tensor_make(FA_BOOL, 2, 4, 8, 12);
    fa_problem p = accept(&d);
    fa_problem_release(context, &p);
    return d;
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
        static const int values[] = {4, 99, -1, INT32_MAX};
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
                 keep ? "f16" : "bool", keep ? "bool" : "f32, f16 or bf16");
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

START_TEST(defaults_are_filled_in)
{
    fa_attention_desc d = base();
    fa_problem p = accept(&d);
    ck_assert(p.scale == 0.25f && p.softcap == 0);
    ck_assert_int_eq(p.heads_q, 4);
    ck_assert_int_eq(p.heads_kv, 2);
    ck_assert_int_eq(p.group, 2);
    ck_assert_uint_eq(p.features, FA_FEATURE_GROUPS);
    ck_assert_int_eq(p.sequences, 2);
    ck_assert_int_eq(p.sequence[1].q_batch, 1);
    ck_assert_int_eq(p.tensor[FA_Q].stride[0], 4 * 8 * 16);
    ck_assert_int_eq(p.tensor[FA_Q].stride[3], 1);
    ck_assert_uint_eq(p.span[FA_K], 2 * 2 * 12 * 16 * 4);
    ck_assert_uint_eq(p.span[FA_BIAS], 0);
    ck_assert_uint_eq(p.span[FA_LSE], 0);
    fa_problem_release(context, &p);
    ck_assert_ptr_null(p.sequence);

    d.want_lse = 1;
    d.scale = -3;
    d.softcap = 30;
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    const float values[4] = {1, 2, 3, 4};
    d.alibi_slopes = d.sinks = values;
    p = accept(&d);
    ck_assert_uint_eq(p.span[FA_LSE], 2 * 4 * 8 * 4);
    ck_assert(p.scale == -3 && p.softcap == 30);
    ck_assert_uint_eq(p.features, FA_FEATURE_GROUPS | FA_FEATURE_LSE | FA_FEATURE_SOFTCAP | FA_FEATURE_MASK |
                                      FA_FEATURE_ALIBI | FA_FEATURE_SINKS);
    ck_assert(p.sinks[3] == 4 && p.alibi_slopes[0] == 1 && p.sinks != values); /* copied */
    fa_problem_release(context, &p);
}
END_TEST

/* A mask that hides nothing costs nothing. */
START_TEST(masks_that_hide_nothing_are_no_feature)
{
    fa_attention_desc d = make_desc(1, 1, 1, 1, 9, 4);
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    d.window_left = 9;
    fa_problem p = accept(&d);
    ck_assert_uint_eq(p.features & FA_FEATURE_MASK, 0);
    fa_problem_release(context, &p);
    d.window_left = 8;
    p = accept(&d);
    ck_assert_uint_eq(p.features & FA_FEATURE_MASK, FA_FEATURE_MASK);
    fa_problem_release(context, &p);
}
END_TEST

/* attention.h, in its words: alignment, p(i), causality, windows, prefix. */
static bool sees(const fa_attention_desc *d, int64_t len_q, int64_t len_kv, int64_t i, int64_t j)
{
    bool top_left = d->mask == FA_MASK_CAUSAL_TOP_LEFT || d->alignment == FA_ALIGN_TOP_LEFT;
    int64_t alignment = top_left ? 0 : len_kv - len_q;
    int64_t p = i + alignment + d->diagonal_offset;
    if (j < d->prefix)
        return true;
    if (d->mask != FA_MASK_NONE && j > p)
        return false;
    if (d->window_left > 0 && p - j >= d->window_left)
        return false;
    return d->window_right == 0 || j - p < d->window_right;
}

/* Beside a causal mask a window to the right is held to as well, and cuts nothing that the mask leaves. */
START_TEST(windows_to_the_right_of_a_causal_mask)
{
    static const int64_t windows[] = {0, 1, 2, 7, FA_MAX_LENGTH, INT64_MAX};
    for (int kind = FA_MASK_CAUSAL_TOP_LEFT; kind <= FA_MASK_CAUSAL_BOTTOM_RIGHT; kind++) {
        for (int i = 0; i < COUNT(windows); i++) {
            fa_attention_desc d = make_desc(1, 1, 1, 9, 13, 1);
            d.mask = (fa_mask_kind)kind;
            d.window_right = windows[i];
            fa_problem p = accept(&d);
            for (int cell = 0; cell < 9 * 13; cell++) {
                int row = cell / 13, key = cell % 13, at = row + (kind == FA_MASK_CAUSAL_TOP_LEFT ? 0 : 4);
                ck_assert_int_eq(fa_mask_visible(p.sequence[0].mask, row, key), key <= at);
            }
            fa_problem_release(context, &p);
        }
    }
}
END_TEST

/* Numbers at the ends of their types where nothing is stepped along or read: no product of them overflows. */
START_TEST(strides_that_are_not_used)
{
    static const int64_t rows[] = {0, 0, 0, 0}, keys[] = {0, 0, 1, 1};
    const fa_tensor one = {FA_F32, {1, 1, 1, 4}, {INT64_MAX, INT64_MAX, INT64_MAX, 1}};
    const fa_tensor none = {FA_F32, {1, 1, 0, 4}, {INT64_MAX, INT64_MAX, INT64_MAX, 1}};
    fa_attention_desc d = {.struct_size = sizeof(d), .q = none, .k = one, .v = one, .o = none};
    d.sequences = 3;
    d.cu_rows_q = rows;
    d.cu_rows_kv = keys;
    d.want_lse = 1;
    fa_problem p = accept(&d);
    for (int n = 0; n < 3; n++) {
        const fa_sequence *s = &p.sequence[n];
        ck_assert_int_eq(fa_tensor_offset(&p.tensor[FA_K], s->kv_batch, 0, s->kv_row), 0);
        ck_assert_int_eq(fa_tensor_offset(&p.tensor[FA_O], s->q_batch, 0, s->q_row), 0);
    }
    fa_problem_release(context, &p);
    /* A batch of nothing: each entry would be a stride further. */
    const fa_tensor empty = {FA_F32, {5, 2, 0, 4}, {INT64_MAX, INT64_MAX, INT64_MAX, 1}};
    d = make_desc(5, 2, 2, 3, 3, 4);
    d.k = d.v = empty;
    p = accept(&d);
    for (int n = 0; n < 5; n++)
        ck_assert_int_eq(fa_tensor_offset(&p.tensor[FA_K], p.sequence[n].kv_batch, 1, 0), 0);
    fa_problem_release(context, &p);
    fa_device *device;
    static float q[5 * 2 * 3 * 4], o[5 * 2 * 3 * 4];
    if (fa_device_open(context, "openmp", NULL, &device) == FA_OK) {
        memset(o, 0x55, sizeof(o));
        ck_assert_int_eq(fa_attention_host(device, &d, q, q, q, NULL, NULL, o, NULL), FA_OK);
        for (int i = 0; i < COUNT(o); i++)
            ck_assert(o[i] == 0);
        fa_device_close(device);
    }
}
END_TEST

START_TEST(masks_mean_what_the_header_says)
{
    random_state random = {1};
    static const int64_t far[] = {1, FA_MAX_LENGTH, (int64_t)1 << 30, ((int64_t)1 << 30) + 1, INT64_MAX};
    for (int n = 0; n < 3000; n++) {
        int64_t len_q = random_between(&random, 1, 12), len_kv = random_between(&random, 1, 12);
        fa_attention_desc d = make_desc(1, 1, 1, len_q, len_kv, 1);
        d.mask = (fa_mask_kind)random_between(&random, 0, 2);
        if (d.mask == FA_MASK_NONE || random_bits(&random) % 2)
            d.alignment = d.mask ? (fa_alignment)d.mask : (fa_alignment)random_between(&random, 0, 2);
        d.window_left =
            random_bits(&random) % 2 ? random_between(&random, 0, 14) : far[random_bits(&random) % 5];
        d.window_right =
            random_bits(&random) % 2 ? random_between(&random, 0, 14) : far[random_bits(&random) % 5];
        d.prefix = random_bits(&random) % 2   ? 0
                   : random_bits(&random) % 8 ? random_between(&random, 0, 14)
                                              : INT64_MAX;
        d.diagonal_offset = random_bits(&random) % 8   ? random_between(&random, -15, 15)
                            : random_bits(&random) % 2 ? FA_MAX_LENGTH
                                                       : -FA_MAX_LENGTH;
        fa_problem p = accept(&d);
        for (int64_t cell = 0; cell < len_q * len_kv; cell++) {
            int64_t i = cell / len_kv, j = cell % len_kv;
            if (fa_mask_visible(p.sequence[0].mask, (int)i, (int)j) != sees(&d, len_q, len_kv, i, j))
                ck_abort_msg(
                    "mask %d, window %lld %lld, prefix %lld, offset %lld, %lld x %lld: row %lld, key %lld",
                    (int)d.mask, (long long)d.window_left, (long long)d.window_right, (long long)d.prefix,
                    (long long)d.diagonal_offset, (long long)len_q, (long long)len_kv, (long long)i,
                    (long long)j);
        }
        fa_problem_release(context, &p);
    }
}
END_TEST

START_TEST(sequences_are_where_the_offsets_say)
{
    const int64_t cu_q[] = {1, 1, 8, 10}, lens[] = {5, 0, 12};
    fa_attention_desc d = make_desc(1, 4, 2, 10, 12, 16);
    d.k.shape[0] = d.v.shape[0] = 3;
    d.cu_rows_q = cu_q;
    d.lens_kv = lens;
    d.sequences = 3;
    d.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
    d.want_lse = 1;
    fa_problem p = accept(&d);
    static const struct {
        int64_t q_row, kv_batch;
        int32_t len_q, len_kv, diagonal;
    } expected[] = {{1, 0, 0, 5, 5}, {1, 1, 7, 0, -7}, {8, 2, 2, 12, 10}};
    ck_assert_int_eq(p.sequences, 3);
    for (int n = 0; n < 3; n++) {
        const fa_sequence *s = &p.sequence[n];
        ck_assert_int_eq(s->q_batch, 0);
        ck_assert_int_eq(s->q_row, expected[n].q_row);
        ck_assert_int_eq(s->kv_batch, expected[n].kv_batch);
        ck_assert_int_eq(s->kv_row, 0);
        ck_assert_int_eq(s->len_q, expected[n].len_q);
        ck_assert_int_eq(s->len_kv, expected[n].len_kv);
        ck_assert_int_eq(s->mask.diagonal, expected[n].diagonal);
        ck_assert_int_eq(s->mask.len_kv, expected[n].len_kv);
    }
    ck_assert_int_eq(p.max_len_q, 7);
    ck_assert_int_eq(p.max_len_kv, 12);
    ck_assert(p.features & FA_FEATURE_SEQUENCES);
    ck_assert_int_eq(fa_problem_lse_index(&p, &p.sequence[2], 3, 1), 3 * 10 + 9);
    fa_problem_release(context, &p);
}
END_TEST

static bool same_sequences(const fa_problem *a, const fa_problem *b)
{
    bool same = a->sequences == b->sequences && a->features == b->features;
    for (int64_t n = 0; same && n < a->sequences; n++) {
        const fa_sequence *s = &a->sequence[n], *t = &b->sequence[n];
        same = s->q_batch == t->q_batch && s->q_row == t->q_row && s->kv_batch == t->kv_batch &&
               s->kv_row == t->kv_row && s->len_q == t->len_q && s->len_kv == t->len_kv &&
               memcmp(&s->mask, &t->mask, sizeof(s->mask)) == 0;
    }
    return same;
}

/* Offsets and lengths say the same in either width. */
START_TEST(lists_of_either_width)
{
    static const int64_t cu_q[] = {0, 3, 8}, cu_kv[] = {1, 1, 12}, lens_q[] = {8, 5}, lens_kv[] = {0, 12};
    static const int32_t cu_q32[] = {0, 3, 8}, cu_kv32[] = {1, 1, 12}, lens_q32[] = {8, 5},
                         lens_kv32[] = {0, 12};
    for (int which = 0; which < 16;
         which++) { /* packed or with lengths, on each side, and which of the two is narrow */
        fa_attention_desc wide = base();
        wide.mask = FA_MASK_CAUSAL_BOTTOM_RIGHT;
        if (which & 3)
            wide.sequences = 2;
        if (which & 1)
            wide.q.shape[0] = wide.o.shape[0] = 1;
        if (which & 2)
            wide.k.shape[0] = wide.v.shape[0] = 1;
        fa_attention_desc mixed = wide;
        wide.cu_rows_q = which & 1 ? cu_q : NULL;
        wide.lens_q = which & 1 ? NULL : lens_q;
        wide.cu_rows_kv = which & 2 ? cu_kv : NULL;
        wide.lens_kv = which & 2 ? NULL : lens_kv;
        mixed.cu_rows_q = which & 4 ? NULL : wide.cu_rows_q;
        mixed.lens_q = which & 4 ? NULL : wide.lens_q;
        mixed.cu_rows_kv = which & 8 ? NULL : wide.cu_rows_kv;
        mixed.lens_kv = which & 8 ? NULL : wide.lens_kv;
        mixed.cu_rows_q32 = (which & 5) == 5 ? cu_q32 : NULL;
        mixed.lens_q32 = (which & 5) == 4 ? lens_q32 : NULL;
        mixed.cu_rows_kv32 = (which & 10) == 10 ? cu_kv32 : NULL;
        mixed.lens_kv32 = (which & 10) == 8 ? lens_kv32 : NULL;
        fa_problem p = accept(&wide), q = accept(&mixed);
        ck_assert(p.features & FA_FEATURE_SEQUENCES);
        ck_assert(same_sequences(&p, &q));
        fa_problem_release(context, &p);
        fa_problem_release(context, &q);
    }
}
END_TEST

/* A padded encoder: the rows in use stand at the keys in use, wherever the padding ends. */
START_TEST(lengths_of_rows)
{
    const int64_t lens[] = {3, 0, 9};
    fa_attention_desc d = make_desc(3, 2, 2, 9, 9, 4);
    d.lens_q = d.lens_kv = lens;
    fa_problem p = accept(&d);
    for (int n = 0; n < 3; n++) {
        ck_assert_int_eq(p.sequence[n].q_batch, n);
        ck_assert_int_eq(p.sequence[n].q_row, 0);
        ck_assert_int_eq(p.sequence[n].len_q, lens[n]);
        ck_assert_int_eq(p.sequence[n].len_kv, lens[n]);
        ck_assert_int_eq(p.sequence[n].mask.diagonal, 0);
    }
    ck_assert_int_eq(p.max_len_q, 9);
    fa_problem_release(context, &p);
}
END_TEST

START_TEST(slopes_of_each_sequence)
{
    static const float slopes[] = {1, 2, 3, 4, NAN, 5, 6, 7, 8};
    fa_attention_desc d = base();
    d.alibi_slopes = slopes;
    d.alibi_stride = 5;
    fa_problem p = accept(&d);
    for (int h = 0; h < 4; h++)
        ck_assert(fa_problem_slope(&p, 0, h) == (float)(1 + h) &&
                  fa_problem_slope(&p, 1, h) == (float)(5 + h));
    fa_problem_release(context, &p);
    d.alibi_stride = 0;
    p = accept(&d);
    ck_assert(fa_problem_slope(&p, 1, 3) == 4);
    fa_problem_release(context, &p);
}
END_TEST

START_TEST(a_scale_of_zero)
{
    fa_attention_desc d = base();
    d.scale_is_set = 1;
    fa_problem p = accept(&d);
    ck_assert(p.scale == 0);
    fa_problem_release(context, &p);
    d.scale = 3;
    p = accept(&d);
    ck_assert(p.scale == 3);
    fa_problem_release(context, &p);
}
END_TEST

/* Strides that no element is reached by do not matter: not to spans, overlaps or what kernels are told. */
START_TEST(strides_of_single_axes)
{
    static const int64_t odd[] = {0, 7, -1, INT64_MAX, INT64_MIN};
    for (int at = 0; at < COUNT(operand); at++) {
        for (int i = 0; i < COUNT(odd) * 4; i++) {
            fa_attention_desc d = make_desc(1, 1, 1, 1, 1, 1);
            d.bias = fa_tensor_make(FA_F32, 1, 1, 1, 1);
            d.keep = fa_tensor_make(FA_BOOL, 1, 1, 1, 1);
            fa_problem plain = accept(&d);
            fa_tensor *tensor = (fa_tensor *)(void *)((char *)&d + operand[at].offset);
            tensor->stride[i % 4] = odd[i / 4];
            fa_problem p = accept(&d);
            ck_assert_int_eq(memcmp(p.tensor, plain.tensor, sizeof(p.tensor)), 0);
            ck_assert_int_eq(memcmp(p.span, plain.span, sizeof(p.span)), 0);
            fa_problem_release(context, &p);
            fa_problem_release(context, &plain);
        }
    }
}
END_TEST

/* Bias and keep may have one element for all keys, whatever the size of that axis; the others may not. */
START_TEST(keys_repeated)
{
    for (int t = 0; t < COUNT(operand); t++) {
        fa_attention_desc d = base_with_extras();
        fa_tensor *tensor = (fa_tensor *)(void *)((char *)&d + operand[t].offset);
        for (int axis = 0; axis < 3; axis++)
            tensor->stride[axis] = (int64_t)10000 >> 4 * axis;
        char message[80];
        snprintf(message, sizeof(message), "%s.stride[3] is 0, expected 1", operand[t].name);
        if (t < 4) {
            refuse(&d, FA_INVALID, message);
            continue;
        }
        fa_problem p = accept(&d);
        ck_assert_int_eq(p.tensor[t == 4 ? FA_BIAS : FA_KEEP].stride[3], 0);
        ck_assert_uint_eq(p.span[t == 4 ? FA_BIAS : FA_KEEP],
                          (10000 + 3 * 625 + 7 * 39 + 1) * fa_dtype_size(tensor->dtype));
        fa_problem_release(context, &p);
        tensor->shape[3] = 1;
        p = accept(&d);
        ck_assert_int_eq(p.tensor[t == 4 ? FA_BIAS : FA_KEEP].stride[3], 0);
        fa_problem_release(context, &p);
    }
}
END_TEST

/* Each size at 0, on its own and with others: valid. */
START_TEST(empty_problems_are_valid)
{
    for (int zero = 1; zero < 16; zero++) {
        int64_t heads = zero & 2 ? 0 : 2;
        fa_attention_desc d =
            make_desc(zero & 1 ? 0 : 2, heads, heads, zero & 4 ? 0 : 8, zero & 8 ? 0 : 12, 16);
        d.want_lse = 1;
        fa_problem p = accept(&d);
        fa_problem_release(context, &p);
    }
    const int64_t none[] = {0};
    fa_attention_desc no_heads = make_desc(1, 0, 0, FA_MAX_LENGTH, FA_MAX_LENGTH, 16);
    fa_problem many_rows = accept(&no_heads);
    fa_problem_release(context, &many_rows);
    fa_attention_desc d = make_desc(1, 2, 2, 0, 0, 16);
    d.cu_rows_q = d.cu_rows_kv = none;
    fa_problem p = accept(&d);
    ck_assert_int_eq(p.sequences, 0);
    fa_problem_release(context, &p);
}
END_TEST

Suite *problem_suite(void)
{
    Suite *suite = suite_create("problem");
    TCase *bad = add_context_case(suite, "refused by name");
    tcase_add_test(bad, negative_sizes);
    tcase_add_test(bad, overflowing_sizes);
    tcase_add_test(bad, unsupported_types);
    tcase_add_test(bad, shapes);
    tcase_add_test(bad, numbers);
    tcase_add_test(bad, sequences);
    tcase_add_test(bad, long_packed_sequences);
    tcase_add_test(bad, extras);
    tcase_add_test(bad, tuning);
    tcase_add_test(bad, struct_sizes);
    TCase *good = add_context_case(suite, "normalised");
    tcase_add_test(good, defaults_are_filled_in);
    tcase_add_test(good, masks_that_hide_nothing_are_no_feature);
    tcase_add_test(good, masks_mean_what_the_header_says);
    tcase_add_test(good, windows_to_the_right_of_a_causal_mask);
    tcase_add_test(good, strides_that_are_not_used);
    tcase_add_test(good, sequences_are_where_the_offsets_say);
    tcase_add_test(good, lists_of_either_width);
    tcase_add_test(good, lengths_of_rows);
    tcase_add_test(good, slopes_of_each_sequence);
    tcase_add_test(good, a_scale_of_zero);
    tcase_add_test(good, strides_of_single_axes);
    tcase_add_test(good, keys_repeated);
    tcase_add_test(good, empty_problems_are_valid);
    return suite;
}
