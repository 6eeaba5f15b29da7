/* SPDX-License-Identifier: Apache-2.0 */
/* What lists of keys are, after validation, and the plan that they come to. */
#include <string.h>

#include "core/attention/checks.h"
#include "core/attention/sequences.h"
#include "core/backend.h"
#include "core/key_lists/key_lists.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

enum { MOST_LISTS = 1 << 24 };

#define OF "an attention to lists of keys"

/* The caller's problem, valid. Slots are those of pages that some table has, which is not looked at. */
static fa_status read_problem(fa_key_lists *l, const fa_key_lists_desc *desc, fa_attention_desc *d)
{
    if (!desc->attention)
        return fa_fail(FA_INVALID, "attention is NULL");
    FA_TRY(fa_problem_read_desc(desc->attention, d));
    if (d->mask != FA_MASK_NONE)
        return fa_fail(FA_UNSUPPORTED, "attention->mask is %d, expected 0: " OF " does not serve it",
                       (int)d->mask);
    FA_TRY(fa_problem_refuse_choices(d, OF));
    FA_TRY(fa_check_limit("slots", desc->slots, 0, 1));
    FA_TRY(fa_check_limit("unique", desc->unique, 0, 1));
    FA_TRY(fa_check_limit("topk", desc->topk, 1, FA_MAX_LENGTH));
    if (desc->slots && !fa_tensor_is_absent(&d->page_table))
        return fa_fail(FA_INVALID, "attention->page_table is given, expected none with slots 1");
    fa_attention_desc valid = *d;
    if (desc->slots)
        valid.page_table = fa_tensor_make(FA_I32, 1, 1, 1, 1);
    FA_TRY(fa_problem_init(l->device->context, &valid, &l->problem));
    l->table_span = desc->slots ? 0 : l->problem.span[FA_PAGES];
    l->topk = desc->topk;
    l->heads = desc->heads ? desc->heads : 1;
    if (l->heads != 1 && l->heads != d->k.shape[1])
        return fa_fail(FA_INVALID, "heads is %lld, expected 0, 1 or k.shape[1], %lld", (long long)desc->heads,
                       (long long)d->k.shape[1]);
    if (l->heads > 1 && d->sinks)
        return fa_fail(FA_UNSUPPORTED, "attention->sinks is given, lists of %lld KV heads do not serve it",
                       (long long)l->heads);
    return FA_OK;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Axes of k along which pages of one key are numbered: batch or page, key, and head where each has lists. */
static bool is_numbered(const fa_key_lists *l, int axis)
{
    return axis == 0 || axis == 2 || (axis == 1 && l->heads > 1);
}

/* How far apart along k's memory keys are, in pages of one key, and how many pages there are. */
static fa_status number_pages(const fa_key_lists *l, int64_t step[3], int64_t *pages)
{
    const fa_tensor *k = &l->problem.tensor[FA_K];
    int64_t unit = 0, last = 0;
    for (int axis = 0; axis < 3; axis++)
        unit = is_numbered(l, axis) ? common_divisor(unit, k->stride[axis]) : unit;
    for (int axis = 0; axis < 3; axis++) {
        step[axis] = unit && is_numbered(l, axis) ? k->stride[axis] / unit : 0;
        if (step[axis] > 0 && k->shape[axis] > 1 + (INT32_MAX - 1 - last) / step[axis])
            return fa_fail(
                FA_UNSUPPORTED,
                "k.shape[%d] is %lld with k.stride[%d] %lld: keys of %lld elements are more than %d", axis,
                (long long)k->shape[axis], axis, (long long)k->stride[axis], (long long)unit, INT32_MAX);
        last += step[axis] * (k->shape[axis] - 1);
    }
    *pages = last + 1;
    return FA_OK;
}

/* A tensor of k's sizes, or sizes of 1, becomes one of such pages. Where it has no memory it stays so. */
static fa_status to_pages(const fa_key_lists *l, int operand, const int64_t step[3], int64_t pages,
                          fa_tensor *out)
{
    const fa_tensor *t = &l->problem.tensor[operand], *k = &l->problem.tensor[FA_K];
    const char *name = fa_operands[operand].name;
    const bool is_cache = operand == FA_K || operand == FA_V;
    bool differs = false;
    int64_t unit = 0;
    if (fa_tensor_is_absent(t))
        return FA_OK;
    for (int axis = 0; axis < 3; axis++)
        differs = differs || (is_numbered(l, axis) && t->stride[axis] != 0);
    for (int axis = 0; differs && axis < 3 && unit == 0; axis++)
        unit = step[axis] > 0 ? t->stride[axis] / step[axis] : 0;
    for (int axis = 0; differs && axis < 3; axis++) {
        if (is_numbered(l, axis) && t->shape[axis] != k->shape[axis])
            return fa_fail(
                FA_UNSUPPORTED,
                "%s.shape[%d] is %lld, lists of keys serve k.shape[%d], %lld, or one number for all", name,
                axis, (long long)t->shape[axis], axis, (long long)k->shape[axis]);
        if (is_numbered(l, axis) && t->stride[axis] != unit * step[axis])
            return fa_fail(
                FA_UNSUPPORTED,
                "%s.stride[%d] is %lld, lists of keys serve %lld: keys in the order that k has them", name,
                axis, (long long)t->stride[axis], (long long)(unit * step[axis]));
    }
    *out = (fa_tensor){
        .dtype = t->dtype,
        .shape = {is_cache || differs ? pages : 1, l->heads > 1 ? 1 : t->shape[1], 1, t->shape[3]},
        .stride = {unit, l->heads > 1 ? 0 : t->stride[1], 0, t->stride[3]}};
    return FA_OK;
}

static fa_status page_all(const fa_key_lists *l, const int64_t step[3], int64_t pages, fa_attention_desc *d)
{
    const struct {
        int operand;
        fa_tensor *tensor;
    } each[] = {
        {FA_K, &d->k},           {FA_V, &d->v},          {FA_K_SCALE, &d->k_scale}, {FA_V_SCALE, &d->v_scale},
        {FA_K_ZERO, &d->k_zero}, {FA_V_ZERO, &d->v_zero}};
    for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++)
        FA_TRY(to_pages(l, each[i].operand, step, pages, each[i].tensor));
    return FA_OK;
}

static void fill_params(fa_key_lists *l, const fa_key_lists_desc *desc, const int64_t step[3])
{
    const fa_tensor *k = &l->problem.tensor[FA_K], *table = &l->problem.tensor[FA_PAGES];
    const int64_t most = desc->slots ? FA_MIN(k->shape[0], INT32_MAX) * k->shape[2] : l->problem.keys;
    l->params[1] = (fa_key_list_params){
        .line_stride = table->stride[0],
        .topk = (int)l->topk,
        .heads = (int)l->heads,
        .rows = (int)l->problem.tensor[FA_Q].shape[2],
        .most = (int)FA_MIN(most, INT32_MAX),
        .entries = (int)k->shape[0],
        .keys = (int)k->shape[2],
        .entry_step = (int)step[0],
        .head_step = (int)step[1],
        .key_step = (int)step[2],
        .counted = desc->slots         ? FA_KEY_LIST_SLOT
                   : l->table_span > 0 ? FA_KEY_LIST_LINE
                                       : FA_KEY_LIST_ENTRY,
        .unique = 1,
    };
    l->params[0] = l->params[1];
    l->params[0].unique = desc->unique;
}

fa_status fa_key_lists_describe(fa_key_lists *l, const fa_key_lists_desc *desc, fa_attention_desc *d)
{
    int64_t step[3], pages = 0;
    FA_TRY(read_problem(l, desc, d));
    const int64_t *q = l->problem.tensor[FA_Q].shape, heads = q[1] / l->heads;
    if (!fa_mul_i64(q[0] * q[2], l->heads, &l->lists) || l->lists > MOST_LISTS)
        return fa_fail(FA_UNSUPPORTED,
                       "q has %lld rows, with lists of %lld heads: at most %d lists are served",
                       (long long)(q[0] * q[2]), (long long)l->heads, MOST_LISTS);
    if (fa_tensor_is_empty(&l->problem.tensor[FA_K]))
        return fa_fail(FA_UNSUPPORTED, "attention->k has no keys, lists of keys serve at least one");
    FA_TRY(number_pages(l, step, &pages));
    FA_TRY(page_all(l, step, pages, d));
    fill_params(l, desc, step);
    d->q = fa_tensor_make(d->q.dtype, l->lists, heads, 1, q[3]);
    d->o = fa_tensor_make(d->o.dtype, l->lists, heads, 1, l->problem.tensor[FA_O].shape[3]);
    d->page_table = fa_tensor_make(FA_I32, l->lists, 1, 1, l->topk);
    d->alignment = FA_ALIGN_DEFAULT;
    d->dynamic_lengths = 2;
    return FA_OK;
}

void fa_key_lists_release_problem(fa_key_lists *l)
{
    fa_problem_release(l->device->context, &l->problem);
}

fa_status fa_key_lists_edit(fa_problem *p, const void *of)
{
    static const int operands[] = {FA_Q, FA_O, FA_LSE};
    const fa_key_lists *l = of;
    const int64_t rows = l->problem.tensor[FA_Q].shape[2];
    for (int i = 0; i < 3; i++) {
        p->tensor[operands[i]] = l->problem.tensor[operands[i]];
        p->span[operands[i]] = l->problem.span[operands[i]];
    }
    p->row_lists = (int32_t)l->heads;
    for (int64_t n = 0; n < p->sequences; n++) {
        const int64_t row = n / l->heads;
        p->sequence[n].q_batch = row / rows;
        p->sequence[n].q_row = row % rows;
        p->sequence[n].q_head = (int32_t)(n % l->heads * p->heads_q);
    }
    return FA_OK;
}
