/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/problem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/attention/scales.h"
#include "core/attention/sequences.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static fa_status check_float(const fa_problem *p, int operand)
{
    char field[32];
    (void)snprintf(field, sizeof(field), "%s.dtype", fa_operands[operand].name);
    return fa_dtype_check_float(p->tensor[operand].dtype, field);
}

static fa_status check_cache(const fa_problem *p, int operand)
{
    char field[32];
    (void)snprintf(field, sizeof(field), "%s.dtype", fa_operands[operand].name);
    return fa_dtype_check_cache(p->tensor[operand].dtype, field);
}

/* Of a mask: a byte for each key, or bits. */
static fa_status check_bool(const fa_problem *p, int operand)
{
    const fa_dtype dtype = p->tensor[operand].dtype;
    char field[32];
    (void)snprintf(field, sizeof(field), "%s.dtype", fa_operands[operand].name);
    FA_TRY(fa_dtype_check(dtype, field));
    if (dtype == FA_BOOL || dtype == FA_I32)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %s, expected bool or i32", field, fa_dtype_name(dtype));
}

/* FlashMLA's rows are k, and their latent part is v. Rows that keep some elements are k or v, and no part of another. */
static fa_status check_row_format(const fa_problem *p, bool v_in_k)
{
    const fa_tensor *v = &p->tensor[FA_V];
    FA_TRY(fa_tensor_check_row(&p->tensor[FA_K], "k", FA_MLA_DIMS));
    if (FA_TYPE_PRUNES((int)v->dtype) && v_in_k)
        return fa_fail(FA_INVALID, "v.dtype is %s, expected v_in_k to be 0: rows have bits of all their dims",
                       fa_dtype_name(v->dtype));
    if (FA_TYPE_IS_MLA((int)v->dtype) && !v_in_k)
        return fa_fail(FA_INVALID, "v.dtype is %s, expected v_in_k to be 1: v is the first %d dims of k",
                       fa_dtype_name(v->dtype), FA_MLA_LATENT);
    return fa_tensor_check_row(v, "v", FA_MLA_LATENT);
}

/* Where v is the first dims of k: strides that are not given are k's, which are normalised before v's. Pruned rows, of which
 * strides count bytes, are refused later. */
static void lay_v_in_k(fa_problem *p)
{
    int64_t *v = p->tensor[FA_V].stride;
    const bool pruned =
        FA_TYPE_PRUNES((int)p->tensor[FA_K].dtype) || FA_TYPE_PRUNES((int)p->tensor[FA_V].dtype);
    if (!pruned && !v[0] && !v[1] && !v[2] && !v[3])
        memcpy(v, p->tensor[FA_K].stride, sizeof(p->tensor[FA_K].stride));
}

static fa_status check_v_in_k(fa_problem *p)
{
    const fa_tensor *k = &p->tensor[FA_K], *v = &p->tensor[FA_V];
    if (v->dtype != k->dtype)
        return fa_fail(FA_INVALID, "v.dtype is %s, expected k.dtype, %s, with v_in_k",
                       fa_dtype_name(v->dtype), fa_dtype_name(k->dtype));
    if (v->shape[3] > k->shape[3])
        return fa_fail(FA_INVALID, "v.shape[3] is %lld, expected at most k.shape[3], %lld, with v_in_k",
                       (long long)v->shape[3], (long long)k->shape[3]);
    for (int axis = 0; axis < 3; axis++) {
        if (v->stride[axis] != k->stride[axis])
            return fa_fail(FA_INVALID, "v.stride[%d] is %lld, expected k.stride[%d], %lld, with v_in_k", axis,
                           (long long)v->stride[axis], axis, (long long)k->stride[axis]);
    }
    p->features |= FA_FEATURE_V_IN_K;
    return FA_OK;
}

static fa_status check_tensors(fa_problem *p, const fa_attention_desc *d)
{
    FA_TRY(fa_check_limit("v_in_k", d->v_in_k, 0, 1));
    const fa_tensor *given[] = {&d->q, &d->k, &d->v, &d->o};
    for (int t = FA_Q; t <= FA_O; t++) {
        p->tensor[t] = *given[t];
        if (t == FA_V && d->v_in_k)
            lay_v_in_k(p);
        FA_TRY(t == FA_Q || t == FA_O ? check_float(p, t) : check_cache(p, t));
        FA_TRY(fa_tensor_normalise(&p->tensor[t], fa_operands[t].name, false));
        FA_TRY(fa_tensor_extent(&p->tensor[t], fa_operands[t].name, &p->span[t]));
    }
    FA_TRY(check_row_format(p, d->v_in_k != 0));
    const int64_t *q = p->tensor[FA_Q].shape, *k = p->tensor[FA_K].shape, *v = p->tensor[FA_V].shape;
    FA_TRY(fa_check_limit("q.shape[3]", q[3], 1, FA_MAX_HEAD_DIM));
    FA_TRY(fa_check_limit("v.shape[3]", v[3], 1, FA_MAX_HEAD_DIM));
    FA_TRY(fa_check_axis(p, FA_K, 3, q[3], "q.shape[3]"));
    FA_TRY(fa_check_axis(p, FA_V, 0, k[0], "k.shape[0]"));
    FA_TRY(fa_check_axis(p, FA_V, 1, k[1], "k.shape[1]"));
    FA_TRY(fa_check_axis(p, FA_V, 2, k[2], "k.shape[2]"));
    if (d->v_in_k)
        FA_TRY(check_v_in_k(p));
    FA_TRY(fa_check_axis(p, FA_O, 0, q[0], "q.shape[0]"));
    FA_TRY(fa_check_axis(p, FA_O, 1, q[1], "q.shape[1]"));
    FA_TRY(fa_check_axis(p, FA_O, 2, q[2], "q.shape[2]"));
    FA_TRY(fa_check_axis(p, FA_O, 3, v[3], "v.shape[3]"));
    FA_TRY(fa_check_limit("q.shape[1]", q[1], 0, 1 << 20));
    FA_TRY(fa_check_limit("k.shape[1]", k[1], q[1] ? 1 : 0, 1 << 20));
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

/* The page table, and how many keys a sequence may have at most. */
static fa_status check_pages(fa_problem *p, const fa_attention_desc *d)
{
    const int64_t page = p->tensor[FA_K].shape[2];
    fa_tensor *t = &p->tensor[FA_PAGES];
    p->keys = page;
    if (fa_tensor_is_absent(&d->page_table))
        return FA_OK;
    *t = d->page_table;
    FA_TRY(fa_dtype_check_one(t->dtype, FA_I32, "page_table.dtype"));
    FA_TRY(fa_tensor_normalise(t, "page_table", false));
    FA_TRY(fa_tensor_extent(t, "page_table", &p->span[FA_PAGES]));
    FA_TRY(fa_check_axis(p, FA_PAGES, 1, 1, "one table serves all heads"));
    FA_TRY(fa_check_axis(p, FA_PAGES, 2, 1, "one table serves all rows"));
    FA_TRY(fa_check_limit("k.shape[2]", page, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("page_table.shape[3]", t->shape[3], 0, FA_MAX_LENGTH / page));
    FA_TRY(fa_check_limit("k.shape[0]", p->tensor[FA_K].shape[0], t->shape[0] > 0 && t->shape[3] > 0,
                          INT32_MAX));
    p->keys = page * t->shape[3];
    p->features |= FA_FEATURE_PAGES;
    return FA_OK;
}

static fa_status check_alignment(const fa_attention_desc *d)
{
    if ((int)d->mask < FA_MASK_NONE || d->mask > FA_MASK_CAUSAL_BOTTOM_RIGHT)
        return fa_fail(FA_INVALID, "mask is %d, expected an fa_mask_kind", (int)d->mask);
    if ((int)d->alignment < FA_ALIGN_DEFAULT || d->alignment > FA_ALIGN_BOTTOM_RIGHT)
        return fa_fail(FA_INVALID, "alignment is %d, expected an fa_alignment", (int)d->alignment);
    if ((d->mask == FA_MASK_CAUSAL_TOP_LEFT && d->alignment == FA_ALIGN_BOTTOM_RIGHT) ||
        (d->mask == FA_MASK_CAUSAL_BOTTOM_RIGHT && d->alignment == FA_ALIGN_TOP_LEFT))
        return fa_fail(FA_INVALID, "alignment is %d (%s), expected %d or 0 with mask %d (causal, %s)",
                       (int)d->alignment, d->alignment == FA_ALIGN_TOP_LEFT ? "top left" : "bottom right",
                       FA_ALIGN_TOP_LEFT + FA_ALIGN_BOTTOM_RIGHT - (int)d->alignment, (int)d->mask,
                       d->mask == FA_MASK_CAUSAL_TOP_LEFT ? "top left" : "bottom right");
    return FA_OK;
}

static fa_status check_slopes(const fa_problem *p, const fa_attention_desc *d)
{
    if (!d->alibi_slopes && d->alibi_stride != 0)
        return fa_fail(FA_INVALID, "alibi_stride is %lld, expected 0 without alibi_slopes",
                       (long long)d->alibi_stride);
    if (fa_tensor_is_absent(&d->bias) && d->bias_factors)
        return fa_fail(FA_INVALID, "bias_factors is given without bias, expected NULL");
    FA_TRY(
        fa_check_limit("alibi_stride", d->alibi_stride, 0, (int64_t)1 << 36)); /* times 2^24 sequences fits */
    for (int64_t n = 0; d->alibi_slopes && n < (d->alibi_stride ? p->sequences : 1); n++) {
        for (int64_t h = n * d->alibi_stride; h < n * d->alibi_stride + p->heads_q; h++) {
            if (!isfinite(d->alibi_slopes[h]))
                return fa_fail(FA_INVALID, "alibi_slopes[%lld] is %g, expected a finite number", (long long)h,
                               (double)d->alibi_slopes[h]);
        }
    }
    return FA_OK;
}

static int clamp_window(int64_t window)
{
    return window == 0 || window > FA_UNLIMITED ? FA_UNLIMITED : (int)window;
}

static fa_mask_rule rule_of(const fa_attention_desc *d)
{
    return (fa_mask_rule){
        .top_left = d->alignment == FA_ALIGN_TOP_LEFT || d->mask == FA_MASK_CAUSAL_TOP_LEFT,
        .offset = (int)d->diagonal_offset,
        .left = clamp_window(d->window_left),
        .right = d->mask == FA_MASK_NONE ? clamp_window(d->window_right) : 1,
        .prefix = (int)FA_MIN(d->prefix, FA_UNLIMITED),
    };
}

static fa_status check_numbers(fa_problem *p, const fa_attention_desc *d)
{
    if (!isfinite(d->scale))
        return fa_fail(FA_INVALID, "scale is %g, expected a finite number", (double)d->scale);
    if (!isfinite(d->softcap) || d->softcap < 0)
        return fa_fail(FA_INVALID, "softcap is %g, expected 0 or a positive number", (double)d->softcap);
    FA_TRY(fa_check_limit("scale_is_set", d->scale_is_set, 0, 1));
    FA_TRY(check_alignment(d));
    FA_TRY(fa_check_limit("window_left", d->window_left, 0, INT64_MAX));
    FA_TRY(fa_check_limit("window_right", d->window_right, 0, INT64_MAX));
    FA_TRY(fa_check_limit("prefix", d->prefix, 0, INT64_MAX));
    FA_TRY(fa_check_limit("diagonal_offset", d->diagonal_offset, -FA_MAX_LENGTH, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("want_lse", d->want_lse, 0, 1));
    FA_TRY(check_slopes(p, d));
    for (int64_t h = 0; h < p->heads_q; h++) {
        if (d->bias_factors && !isfinite(d->bias_factors[h]))
            return fa_fail(FA_INVALID, "bias_factors[%lld] is %g, expected a finite number", (long long)h,
                           (double)d->bias_factors[h]);
        if (d->sinks && (isnan(d->sinks[h]) || d->sinks[h] == INFINITY))
            return fa_fail(FA_INVALID, "sinks[%lld] is %g, expected a finite number or -inf", (long long)h,
                           (double)d->sinks[h]);
    }
    FA_TRY(fa_check_limit("dynamic_lengths", d->dynamic_lengths, 0, 2));
    FA_TRY(fa_check_limit("want_status", d->want_status, 0, 1));
    if (d->want_status && !(p->features & FA_FEATURE_PAGES))
        return fa_fail(FA_INVALID, "want_status is 1, expected 0: page_table.shape is all 0");
    p->want_status = d->want_status != 0;
    p->rule = rule_of(d);
    p->scale = d->scale != 0 || d->scale_is_set ? d->scale : (float)(1.0 / sqrt(p->dim_qk));
    p->softcap = d->softcap;
    p->features |= d->softcap > 0 ? FA_FEATURE_SOFTCAP : 0;
    p->features |= d->alibi_slopes ? FA_FEATURE_ALIBI : 0;
    p->alibi_stride = d->alibi_stride ? p->heads_q : 0;
    p->features |= d->sinks ? FA_FEATURE_SINKS : 0;
    p->features |= d->want_lse ? FA_FEATURE_LSE : 0;
    p->features |= p->group > 1 ? FA_FEATURE_GROUPS : 0;
    return FA_OK;
}

static fa_status check_extra(fa_problem *p, int operand, const fa_tensor *given, bool wants_bool)
{
    const char *name = fa_operands[operand].name;
    const int64_t *s = given->shape;
    if (fa_tensor_is_absent(given))
        return FA_OK;
    fa_tensor *t = &p->tensor[operand];
    *t = *given;
    FA_TRY(wants_bool ? check_bool(p, operand) : check_float(p, operand));
    FA_TRY(fa_tensor_normalise(t, name, true));
    FA_TRY(fa_tensor_extent(t, name, &p->span[operand]));
    bool ragged = p->features & FA_FEATURE_SEQUENCES;
    const bool bits = wants_bool && t->dtype == FA_I32;
    const int64_t full[4] = {p->sequences, p->heads_q, p->max_len_q, p->max_key};
    const int64_t dense[4] = {p->sequences, p->heads_q, p->tensor[FA_Q].shape[2], p->keys};
    for (int axis = 0; axis < (bits ? 3 : 4); axis++) {
        bool fits = s[axis] == 1 || s[axis] == (ragged ? full : dense)[axis];
        if (!fits && ragged && axis >= 2)
            fits = s[axis] >= full[axis];
        if (!fits)
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected 1 or %s%lld", name, axis,
                           (long long)s[axis], ragged && axis >= 2 ? "at least " : "",
                           (long long)(ragged ? full : dense)[axis]);
    }
    p->features |= fa_operands[operand].feature;
    return FA_OK;
}

/* Where keep holds bits: there are as many as its keys need. */
static fa_status check_keep(fa_problem *p, const fa_attention_desc *d)
{
    FA_TRY(check_extra(p, FA_KEEP, &d->keep, true));
    p->keep_bits = (p->features & FA_FEATURE_KEEP) && d->keep.dtype == FA_I32;
    if (!p->keep_bits && d->keep_last != 0)
        return fa_fail(FA_INVALID, "keep_last is %lld, expected 0: keep holds no bits",
                       (long long)d->keep_last);
    FA_TRY(fa_check_limit("keep_last", d->keep_last, 0, FA_MAX_LENGTH));
    p->keep_last = (int32_t)d->keep_last;
    const bool ragged = p->features & FA_FEATURE_SEQUENCES;
    const int64_t keys = d->keep_last > 0 ? d->keep_last : ragged ? p->max_key : p->keys;
    const int64_t words = p->keep_bits ? d->keep.shape[3] : INT64_MAX;
    if (words < fa_ceil_div(keys, 32))
        return fa_fail(FA_INVALID, "keep.shape[3] is %lld, expected at least %lld: bits of %lld keys",
                       (long long)words, (long long)fa_ceil_div(keys, 32), (long long)keys);
    return FA_OK;
}

static fa_status check_tuning(fa_problem *p, const fa_attention_desc *d)
{
    if (!d->tuning)
        return FA_OK;
    FA_TRY(fa_copy_struct(&p->tuning, sizeof(p->tuning), FA_TUNING_0_1, d->tuning, "fa_tuning"));
    FA_TRY(fa_check_limit("tuning.block_q", p->tuning.block_q, 0, 1 << 20));
    FA_TRY(fa_check_limit("tuning.block_kv", p->tuning.block_kv, 0, 1 << 20));
    FA_TRY(fa_check_limit("tuning.splits", p->tuning.splits, 0, 1 << 16));
    if (!p->tuning.kernel)
        return FA_OK;
    size_t length = strlen(p->tuning.kernel);
    if (length >= sizeof(p->kernel_name))
        return fa_fail(FA_INVALID, "tuning.kernel has %zu characters, expected at most %zu", length,
                       sizeof(p->kernel_name) - 1);
    memcpy(p->kernel_name, p->tuning.kernel, length + 1);
    return FA_OK;
}

/* `rows` of `count` floats, whose first elements lie `stride` apart. */
static fa_status copy_floats(const fa_context *context, const float *from, int64_t rows, int64_t count,
                             int64_t stride, float **to)
{
    if (!from)
        return FA_OK;
    *to = fa_alloc(context, (size_t)(rows * count) * sizeof(float));
    if (!*to)
        return FA_OUT_OF_MEMORY;
    for (int64_t n = 0; n < rows; n++)
        memcpy(*to + n * count, from + n * stride, (size_t)count * sizeof(float));
    return FA_OK;
}

static fa_status add_lse(fa_problem *p, const fa_attention_desc *d)
{
    if (!d->want_lse)
        return FA_OK;
    const int64_t *o = p->tensor[FA_O].shape;
    p->tensor[FA_LSE] = fa_tensor_make(FA_F32, o[0], o[1], o[2], 1);
    FA_TRY(fa_tensor_normalise(&p->tensor[FA_LSE], "lse", false));
    return fa_tensor_extent(&p->tensor[FA_LSE], "lse", &p->span[FA_LSE]);
}

static fa_lengths lengths_of(const fa_attention_desc *d)
{
    return (fa_lengths){
        .sequences = d->sequences,
        .cu_rows_q = d->cu_rows_q,
        .cu_rows_kv = d->cu_rows_kv,
        .lens_q = d->lens_q,
        .lens_kv = d->lens_kv,
        .cu_rows_q32 = d->cu_rows_q32,
        .cu_rows_kv32 = d->cu_rows_kv32,
        .lens_q32 = d->lens_q32,
        .lens_kv32 = d->lens_kv32,
        .first_kv = d->first_kv,
        .first_kv32 = d->first_kv32,
    };
}

static fa_status init(const fa_context *context, const fa_attention_desc *d, fa_problem *p)
{
    FA_TRY(check_tensors(p, d));
    FA_TRY(check_pages(p, d));
    FA_TRY(fa_scales_init(p, d));
    const fa_lengths lengths = lengths_of(d);
    fa_side_lists q, kv;
    p->dynamic = d->dynamic_lengths != 0;
    p->on_device = d->dynamic_lengths == 2;
    FA_TRY(fa_sequences_take(&lengths, &q, &kv));
    p->has_lens_q = fa_index_is_given(&q.lens);
    p->has_lens_kv = fa_index_is_given(&kv.lens);
    p->has_first_kv = fa_index_is_given(&kv.first);
    FA_TRY(fa_sequences_check(p, d, &q, &kv));
    FA_TRY(check_numbers(p, d));
    p->sequence = fa_alloc(context, (size_t)p->sequences * sizeof(*p->sequence));
    if (!p->sequence)
        return FA_OUT_OF_MEMORY;
    fa_sequences_fill(p, &q, &kv);
    FA_TRY(fa_sequences_check_rows(p));
    FA_TRY(check_extra(p, FA_BIAS, &d->bias, false));
    FA_TRY(check_keep(p, d));
    FA_TRY(fa_near_init(context, p, d->neighbourhood));
    FA_TRY(fa_lists_init(context, p, d->lists));
    FA_TRY(add_lse(p, d));
    FA_TRY(check_tuning(p, d));
    p->alibi_lists = p->alibi_stride ? p->sequences : 1;
    FA_TRY(
        copy_floats(context, d->alibi_slopes, p->alibi_lists, p->heads_q, d->alibi_stride, &p->alibi_slopes));
    FA_TRY(copy_floats(context, d->bias_factors, 1, p->heads_q, 0, &p->bias_factors));
    return copy_floats(context, d->sinks, 1, p->heads_q, 0, &p->sinks);
}

fa_status fa_problem_read_desc(const fa_attention_desc *theirs, fa_attention_desc *ours)
{
    if (!theirs)
        return fa_fail(FA_INVALID, "desc is NULL, expected an fa_attention_desc");
    FA_TRY(fa_copy_struct(ours, sizeof(*ours), FA_ATTENTION_DESC_0_1, theirs, "fa_attention_desc"));
    ours->struct_size = sizeof(*ours);
    return FA_OK;
}

fa_status fa_problem_refuse_lists(const fa_attention_desc *desc, const char *of)
{
    if (!desc->lists && !desc->neighbourhood)
        return FA_OK;
    return fa_fail(FA_UNSUPPORTED, "%s is given, expected NULL: %s does not serve it",
                   desc->lists ? "lists" : "neighbourhood", of);
}

fa_status fa_problem_refuse_choices(const fa_attention_desc *d, const char *of)
{
    const struct {
        const char *name;
        int64_t value;
    } number[] = {{"window_left", d->window_left},
                  {"window_right", d->window_right},
                  {"prefix", d->prefix},
                  {"diagonal_offset", d->diagonal_offset},
                  {"sequences", d->sequences},
                  {"keep_last", d->keep_last},
                  {"dynamic_lengths", d->dynamic_lengths},
                  {"want_status", d->want_status}};
    const struct {
        const char *name;
        bool given;
    } list[] = {{"cu_rows_q", d->cu_rows_q || d->cu_rows_q32},
                {"cu_rows_kv", d->cu_rows_kv || d->cu_rows_kv32},
                {"lens_q", d->lens_q || d->lens_q32},
                {"lens_kv", d->lens_kv || d->lens_kv32},
                {"first_kv", d->first_kv || d->first_kv32},
                {"alibi_slopes", d->alibi_slopes != NULL},
                {"bias", !fa_tensor_is_absent(&d->bias)},
                {"keep", !fa_tensor_is_absent(&d->keep)},
                {"lists", d->lists != NULL}};
    for (size_t i = 0; i < sizeof(number) / sizeof(number[0]); i++) {
        if (number[i].value != 0)
            return fa_fail(FA_UNSUPPORTED, "attention->%s is %lld, expected 0: %s does not serve it",
                           number[i].name, (long long)number[i].value, of);
    }
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        if (list[i].given)
            return fa_fail(FA_UNSUPPORTED, "attention->%s is given, expected none: %s does not serve it",
                           list[i].name, of);
    }
    return FA_OK;
}

fa_status fa_problem_init(const fa_context *context, const fa_attention_desc *desc, fa_problem *problem)
{
    memset(problem, 0, sizeof(*problem));
    fa_attention_desc copy;
    FA_TRY(fa_problem_read_desc(desc, &copy));
    fa_status status = init(context, &copy, problem);
    problem->tuning.kernel = NULL; /* the caller's string; ours is kernel_name */
    if (status != FA_OK)
        fa_problem_release(context, problem);
    return status;
}

void fa_problem_release(const fa_context *context, fa_problem *problem)
{
    fa_release(context, problem->sequence, (size_t)problem->sequences * sizeof(*problem->sequence));
    fa_lists_release(context, &problem->lists);
    fa_near_release(context, &problem->near);
    fa_release(context, problem->alibi_slopes, fa_problem_slopes(problem) * sizeof(float));
    fa_release(context, problem->bias_factors, (size_t)problem->heads_q * sizeof(float));
    fa_release(context, problem->sinks, (size_t)problem->heads_q * sizeof(float));
    memset(problem, 0, sizeof(*problem));
}
