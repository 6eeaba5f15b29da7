/* SPDX-License-Identifier: Apache-2.0 */
#include "core/problem.h"

#include <math.h>
#include <string.h>

#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

#define MAX_PACKED_ROWS (1 << 30) /* rows times group: int holds any row of a block, and a block more */

const char *const fa_operand_names[FA_OPERANDS] = {"q", "k", "v", "o", "bias", "keep", "lse"};

const char *fa_feature_name(unsigned feature)
{
    static const char *const names[] = {"mask",  "bias", "keep",      "alibi",  "softcap",
                                        "sinks", "lse",  "sequences", "groups", "split"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (feature == 1u << i)
            return names[i];
    }
    return "unknown";
}

static fa_status check_axis(const fa_problem *p, int operand, int axis, int64_t expected, const char *of)
{
    int64_t found = p->tensor[operand].shape[axis];
    if (found == expected)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %lld as %s", fa_operand_names[operand], axis,
                   (long long)found, (long long)expected, of);
}

static fa_status check_limit(const char *field, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %lld, expected %lld to %lld", field, (long long)value, (long long)low,
                   (long long)high);
}

#define TRY(call)                   \
    do {                            \
        fa_status status_ = (call); \
        if (status_ != FA_OK)       \
            return status_;         \
    } while (0)

static fa_status check_tensors(fa_problem *p, const fa_attention_desc *d)
{
    const fa_tensor *given[] = {&d->q, &d->k, &d->v, &d->o};
    for (int t = FA_Q; t <= FA_O; t++) {
        p->tensor[t] = *given[t];
        if (p->tensor[t].dtype == FA_BOOL)
            return fa_fail(FA_INVALID, "%s.dtype is bool, expected f32, f16 or bf16", fa_operand_names[t]);
        TRY(fa_tensor_normalise(&p->tensor[t], fa_operand_names[t]));
        TRY(fa_tensor_extent(&p->tensor[t], fa_operand_names[t], &p->span[t]));
    }
    const int64_t *q = p->tensor[FA_Q].shape, *k = p->tensor[FA_K].shape, *v = p->tensor[FA_V].shape;
    TRY(check_limit("q.shape[3]", q[3], 1, FA_MAX_HEAD_DIM));
    TRY(check_limit("v.shape[3]", v[3], 1, FA_MAX_HEAD_DIM));
    TRY(check_axis(p, FA_K, 3, q[3], "q.shape[3]"));
    TRY(check_axis(p, FA_V, 0, k[0], "k.shape[0]"));
    TRY(check_axis(p, FA_V, 1, k[1], "k.shape[1]"));
    TRY(check_axis(p, FA_V, 2, k[2], "k.shape[2]"));
    TRY(check_axis(p, FA_O, 0, q[0], "q.shape[0]"));
    TRY(check_axis(p, FA_O, 1, q[1], "q.shape[1]"));
    TRY(check_axis(p, FA_O, 2, q[2], "q.shape[2]"));
    TRY(check_axis(p, FA_O, 3, v[3], "v.shape[3]"));
    TRY(check_limit("q.shape[1]", q[1], 0, 1 << 20));
    TRY(check_limit("k.shape[1]", k[1], q[1] ? 1 : 0, 1 << 20));
    if (q[1] > 0 && q[1] % k[1] != 0)
        return fa_fail(FA_INVALID, "q.shape[1] is %lld heads, expected a multiple of k.shape[1], %lld",
                       (long long)q[1], (long long)k[1]);
    if (!fa_tensor_is_injective(&p->tensor[FA_O]))
        return fa_fail(FA_INVALID, "o.stride is (%lld, %lld, %lld, 1): elements of o overlap",
                       (long long)p->tensor[FA_O].stride[0], (long long)p->tensor[FA_O].stride[1],
                       (long long)p->tensor[FA_O].stride[2]);
    p->heads_q = (int32_t)q[1];
    p->heads_kv = q[1] ? (int32_t)k[1] : 0;
    p->group = q[1] ? (int32_t)(q[1] / k[1]) : 1;
    p->dim_qk = (int32_t)q[3];
    p->dim_v = (int32_t)v[3];
    return FA_OK;
}

/* Offsets rise from at least 0 to at most the rows there are, and no sequence is longer than the limit. */
static fa_status check_offsets(const int64_t *cu, int64_t sequences, int64_t rows, const char *name)
{
    if (cu[0] < 0)
        return fa_fail(FA_INVALID, "%s[0] is %lld, expected at least 0", name, (long long)cu[0]);
    for (int64_t n = 0; n < sequences; n++) {
        if (cu[n + 1] < cu[n])
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected at least %s[%lld], %lld", name,
                           (long long)n + 1, (long long)cu[n + 1], name, (long long)n, (long long)cu[n]);
        if (cu[n + 1] > rows)
            return fa_fail(FA_INVALID, "%s[%lld] is %lld, expected at most the tensor's %lld rows", name,
                           (long long)n + 1, (long long)cu[n + 1], (long long)rows);
        if (cu[n + 1] - cu[n] > FA_MAX_LENGTH)
            return fa_fail(FA_INVALID, "%s: sequence %lld has %lld rows, expected at most %d", name,
                           (long long)n, (long long)(cu[n + 1] - cu[n]), FA_MAX_LENGTH);
    }
    return FA_OK;
}

static fa_status check_side(const fa_problem *p, int operand, const int64_t *cu, const char *cu_name)
{
    const int64_t *shape = p->tensor[operand].shape;
    char field[16] = {fa_operand_names[operand][0], 0};
    strcat(field, ".shape[2]");
    if (!cu)
        return check_limit(field, shape[2], 0, FA_MAX_LENGTH);
    TRY(check_axis(p, operand, 0, 1, "the batch of packed sequences"));
    return check_offsets(cu, p->sequences, shape[2], cu_name);
}

static fa_status check_sequences(fa_problem *p, const fa_attention_desc *d)
{
    bool packed = d->cu_rows_q || d->cu_rows_kv;
    int64_t batch_q = p->tensor[FA_Q].shape[0], batch_kv = p->tensor[FA_K].shape[0];
    if (d->lens_kv && d->cu_rows_kv)
        return fa_fail(FA_INVALID, "lens_kv is given with cu_rows_kv, expected one of the two");
    if (packed)
        TRY(check_limit("sequences", d->sequences, 0, 1 << 24));
    else if (d->sequences != 0 && d->sequences != batch_q)
        return fa_fail(FA_INVALID, "sequences is %lld without cu_rows_q or cu_rows_kv, expected 0",
                       (long long)d->sequences);
    p->sequences = packed ? d->sequences : batch_q;
    TRY(check_limit("q.shape[0]", batch_q, 0, 1 << 24));
    TRY(check_side(p, FA_Q, d->cu_rows_q, "cu_rows_q"));
    TRY(check_side(p, FA_K, d->cu_rows_kv, "cu_rows_kv"));
    if (!d->cu_rows_q)
        TRY(check_axis(p, FA_Q, 0, p->sequences, "sequences"));
    if (!d->cu_rows_kv && batch_kv != p->sequences)
        return check_axis(p, FA_K, 0, p->sequences, packed ? "sequences" : "q.shape[0]");
    for (int64_t n = 0; d->lens_kv && n < p->sequences; n++) {
        if (d->lens_kv[n] < 0 || d->lens_kv[n] > p->tensor[FA_K].shape[2])
            return fa_fail(FA_INVALID, "lens_kv[%lld] is %lld, expected 0 to k.shape[2], %lld", (long long)n,
                           (long long)d->lens_kv[n], (long long)p->tensor[FA_K].shape[2]);
    }
    if (packed || d->lens_kv)
        p->features |= FA_FEATURE_SEQUENCES;
    return FA_OK;
}

static fa_status check_numbers(fa_problem *p, const fa_attention_desc *d)
{
    if (!isfinite(d->scale))
        return fa_fail(FA_INVALID, "scale is %g, expected a finite number", (double)d->scale);
    if (!isfinite(d->softcap) || d->softcap < 0)
        return fa_fail(FA_INVALID, "softcap is %g, expected 0 or a positive number", (double)d->softcap);
    if ((int)d->mask < FA_MASK_NONE || d->mask > FA_MASK_CAUSAL_BOTTOM_RIGHT)
        return fa_fail(FA_INVALID, "mask is %d, expected an fa_mask_kind", (int)d->mask);
    TRY(check_limit("window_left", d->window_left, 0, INT64_MAX));
    TRY(check_limit("window_right", d->window_right, 0, INT64_MAX));
    TRY(check_limit("prefix", d->prefix, 0, INT64_MAX));
    TRY(check_limit("diagonal_offset", d->diagonal_offset, -FA_MAX_LENGTH, FA_MAX_LENGTH));
    TRY(check_limit("want_lse", d->want_lse, 0, 1));
    for (int64_t h = 0; h < p->heads_q; h++) {
        if (d->alibi_slopes && !isfinite(d->alibi_slopes[h]))
            return fa_fail(FA_INVALID, "alibi_slopes[%lld] is %g, expected a finite number", (long long)h,
                           (double)d->alibi_slopes[h]);
        if (d->sinks && (isnan(d->sinks[h]) || d->sinks[h] == INFINITY))
            return fa_fail(FA_INVALID, "sinks[%lld] is %g, expected a finite number or -inf", (long long)h,
                           (double)d->sinks[h]);
    }
    p->scale = d->scale != 0 ? d->scale : (float)(1.0 / sqrt(p->dim_qk));
    p->softcap = d->softcap;
    p->features |= d->softcap > 0 ? FA_FEATURE_SOFTCAP : 0;
    p->features |= d->alibi_slopes ? FA_FEATURE_ALIBI : 0;
    p->features |= d->sinks ? FA_FEATURE_SINKS : 0;
    p->features |= d->want_lse ? FA_FEATURE_LSE : 0;
    p->features |= p->group > 1 ? FA_FEATURE_GROUPS : 0;
    return FA_OK;
}

static fa_status check_extra(fa_problem *p, int operand, const fa_tensor *given, bool wants_bool)
{
    const char *name = fa_operand_names[operand];
    const int64_t *s = given->shape;
    if (s[0] == 0 && s[1] == 0 && s[2] == 0 && s[3] == 0)
        return FA_OK;
    fa_tensor *t = &p->tensor[operand];
    *t = *given;
    TRY(fa_tensor_normalise(t, name));
    TRY(fa_tensor_extent(t, name, &p->span[operand]));
    if ((t->dtype == FA_BOOL) != wants_bool)
        return fa_fail(FA_INVALID, "%s.dtype is %s, expected %s", name, fa_dtype_name(t->dtype),
                       wants_bool ? "bool" : "f32, f16 or bf16");
    bool ragged = p->features & FA_FEATURE_SEQUENCES;
    const int64_t full[4] = {p->sequences, p->heads_q, p->max_len_q, p->max_len_kv};
    const int64_t dense[4] = {p->sequences, p->heads_q, p->tensor[FA_Q].shape[2], p->tensor[FA_K].shape[2]};
    for (int axis = 0; axis < 4; axis++) {
        bool fits = s[axis] == 1 || s[axis] == (ragged ? full : dense)[axis];
        if (!fits && ragged && axis >= 2)
            fits = s[axis] >= full[axis];
        if (!fits)
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected 1 or %s%lld", name, axis,
                           (long long)s[axis], ragged && axis >= 2 ? "at least " : "",
                           (long long)(ragged ? full : dense)[axis]);
    }
    p->features |= operand == FA_BIAS ? FA_FEATURE_BIAS : FA_FEATURE_KEEP;
    return FA_OK;
}

static fa_status check_tuning(fa_problem *p, const fa_attention_desc *d)
{
    if (!d->tuning)
        return FA_OK;
    TRY(fa_copy_struct(&p->tuning, sizeof(p->tuning), FA_TUNING_0_1, d->tuning, "fa_tuning"));
    TRY(check_limit("tuning.block_q", p->tuning.block_q, 0, 1 << 20));
    TRY(check_limit("tuning.block_kv", p->tuning.block_kv, 0, 1 << 20));
    TRY(check_limit("tuning.splits", p->tuning.splits, 0, 1 << 16));
    if (!p->tuning.kernel)
        return FA_OK;
    size_t length = strlen(p->tuning.kernel);
    if (length >= sizeof(p->kernel_name))
        return fa_fail(FA_INVALID, "tuning.kernel has %zu characters, expected at most %zu", length,
                       sizeof(p->kernel_name) - 1);
    memcpy(p->kernel_name, p->tuning.kernel, length + 1);
    return FA_OK;
}

static int clamp_window(int64_t window)
{
    return window == 0 || window > FA_UNLIMITED ? FA_UNLIMITED : (int)window;
}

static fa_mask make_mask(const fa_attention_desc *d, int32_t len_q, int32_t len_kv)
{
    int64_t alignment = d->mask == FA_MASK_CAUSAL_TOP_LEFT ? 0 : (int64_t)len_kv - len_q;
    fa_mask m = {
        .len_kv = len_kv,
        .diagonal = (int)(alignment + d->diagonal_offset),
        .left = clamp_window(d->window_left),
        .right = clamp_window(d->window_right),
        .prefix = (int)(d->prefix < len_kv ? d->prefix : len_kv),
    };
    if (d->mask != FA_MASK_NONE)
        m.right = 1;
    return m;
}

static void fill_sequences(fa_problem *p, const fa_attention_desc *d)
{
    for (int64_t n = 0; n < p->sequences; n++) {
        fa_sequence *s = &p->sequence[n];
        *s = (fa_sequence){.q_batch = n, .kv_batch = n};
        s->len_q = (int32_t)p->tensor[FA_Q].shape[2];
        s->len_kv = (int32_t)(d->lens_kv ? d->lens_kv[n] : p->tensor[FA_K].shape[2]);
        if (d->cu_rows_q) {
            s->q_batch = 0;
            s->q_row = d->cu_rows_q[n];
            s->len_q = (int32_t)(d->cu_rows_q[n + 1] - d->cu_rows_q[n]);
        }
        if (d->cu_rows_kv) {
            s->kv_batch = 0;
            s->kv_row = d->cu_rows_kv[n];
            s->len_kv = (int32_t)(d->cu_rows_kv[n + 1] - d->cu_rows_kv[n]);
        }
        s->mask = make_mask(d, s->len_q, s->len_kv);
        p->max_len_q = FA_MAX(p->max_len_q, s->len_q);
        p->max_len_kv = FA_MAX(p->max_len_kv, s->len_kv);
        if (s->len_q > 0 && s->len_kv > 0 &&
            fa_mask_classify(s->mask, 0, s->len_q, 0, s->len_kv) != FA_CLASS_FULL)
            p->features |= FA_FEATURE_MASK;
    }
}

static fa_status copy_floats(const fa_context *context, const float *from, int32_t count, float **to)
{
    if (!from)
        return FA_OK;
    *to = fa_alloc(context, (size_t)count * sizeof(float));
    if (!*to)
        return FA_OUT_OF_MEMORY;
    memcpy(*to, from, (size_t)count * sizeof(float));
    return FA_OK;
}

static fa_status add_lse(fa_problem *p, const fa_attention_desc *d)
{
    if (!d->want_lse)
        return FA_OK;
    const int64_t *o = p->tensor[FA_O].shape;
    p->tensor[FA_LSE] = fa_tensor_make(FA_F32, o[0], o[1], o[2], 1);
    TRY(fa_tensor_normalise(&p->tensor[FA_LSE], "lse"));
    return fa_tensor_extent(&p->tensor[FA_LSE], "lse", &p->span[FA_LSE]);
}

static fa_status init(const fa_context *context, const fa_attention_desc *d, fa_problem *p)
{
    TRY(check_tensors(p, d));
    TRY(check_sequences(p, d));
    TRY(check_numbers(p, d));
    p->sequence = fa_alloc(context, (size_t)p->sequences * sizeof(*p->sequence));
    if (!p->sequence)
        return FA_OUT_OF_MEMORY;
    fill_sequences(p, d);
    if ((int64_t)p->max_len_q * p->group > MAX_PACKED_ROWS)
        return fa_fail(
            FA_INVALID,
            "q.shape[2] gives a sequence of %d rows of %d heads on one KV head, expected a product "
            "of at most %d",
            p->max_len_q, p->group, MAX_PACKED_ROWS);
    TRY(check_extra(p, FA_BIAS, &d->bias, false));
    TRY(check_extra(p, FA_KEEP, &d->keep, true));
    TRY(add_lse(p, d));
    TRY(check_tuning(p, d));
    TRY(copy_floats(context, d->alibi_slopes, p->heads_q, &p->alibi_slopes));
    return copy_floats(context, d->sinks, p->heads_q, &p->sinks);
}

fa_status fa_problem_read_desc(const fa_attention_desc *theirs, fa_attention_desc *ours)
{
    if (!theirs)
        return fa_fail(FA_INVALID, "desc is NULL, expected an fa_attention_desc");
    TRY(fa_copy_struct(ours, sizeof(*ours), FA_ATTENTION_DESC_0_1, theirs, "fa_attention_desc"));
    ours->struct_size = sizeof(*ours);
    return FA_OK;
}

fa_status fa_problem_init(const fa_context *context, const fa_attention_desc *desc, fa_problem *problem)
{
    memset(problem, 0, sizeof(*problem));
    fa_attention_desc copy;
    TRY(fa_problem_read_desc(desc, &copy));
    fa_status status = init(context, &copy, problem);
    problem->tuning.kernel = NULL; /* the caller's string; ours is kernel_name */
    if (status != FA_OK)
        fa_problem_release(context, problem);
    return status;
}

void fa_problem_release(const fa_context *context, fa_problem *problem)
{
    fa_release(context, problem->sequence, (size_t)problem->sequences * sizeof(*problem->sequence));
    fa_release(context, problem->alibi_slopes, (size_t)problem->heads_q * sizeof(float));
    fa_release(context, problem->sinks, (size_t)problem->heads_q * sizeof(float));
    memset(problem, 0, sizeof(*problem));
}
