/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cascade/cascade.h"

#include <stdlib.h>
#include <string.h>

#include "core/attention/pages.h"
#include "core/context.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

/* Packed rows, each of a sequence. */
static fa_status check_rows(const fa_problem *p)
{
    const int64_t n = p->sequences, rows = p->tensor[FA_Q].shape[2];
    if (!p->packed_q)
        return fa_fail(FA_UNSUPPORTED, "cu_rows_q is NULL, a cascade serves packed rows only");
    const int64_t first = n > 0 ? p->sequence[0].q_row : rows;
    const int64_t last = n > 0 ? p->sequence[n - 1].q_row + p->sequence[n - 1].len_q : rows;
    if (first == 0 && last == rows)
        return FA_OK;
    return fa_fail(FA_UNSUPPORTED, "cu_rows_q goes from %lld to %lld, a cascade serves 0 to q.shape[2], %lld",
                   (long long)first, (long long)last, (long long)rows);
}

static fa_status check(const fa_problem *p, const int32_t *table)
{
    if (!(p->features & FA_FEATURE_PAGES))
        return fa_fail(FA_INVALID, "page_table.shape is all 0, expected pages");
    FA_TRY(check_rows(p));
    for (int64_t n = 0; n < p->sequences; n++)
        FA_TRY(fa_pages_check(p, table, n, p->sequence[n].first, p->sequence[n].len_kv));
    return FA_OK;
}

/* A valid problem of a caller's, whose page table is valid too. */
static fa_status read_problem(const fa_context *context, const fa_attention_desc *desc, const int32_t *table,
                              fa_problem *p)
{
    fa_attention_desc copy;
    if (!table)
        return fa_fail(FA_INVALID, "page_table is NULL");
    FA_TRY(fa_problem_read_desc(desc, &copy));
    FA_TRY(fa_problem_refuse_lists(&copy, "a cascade"));
    FA_TRY(fa_problem_init(context, &copy, p));
    fa_status status = check(p, table);
    if (status != FA_OK)
        fa_problem_release(context, p);
    return status;
}

static fa_cascade_costs costs_of(const fa_problem *p)
{
    const double rows = (double)p->tensor[FA_Q].shape[2] * p->heads_q;
    const double states = 2 * sizeof(float) * rows * (p->dim_v + 1);
    return (fa_cascade_costs){
        .key = p->heads_kv * (p->dim_qk * fa_tensor_mean_bytes(&p->tensor[FA_K]) +
                              p->dim_v * fa_tensor_mean_bytes(&p->tensor[FA_V])),
        .level = states + rows * p->dim_qk * (double)fa_dtype_size(p->tensor[FA_Q].dtype),
        .merge = states,
    };
}

fa_status fa_cascade_find_levels(const fa_context *context, const fa_attention_desc *desc,
                                 const int32_t *table, fa_cascade *c)
{
    c->context = context;
    FA_TRY(read_problem(context, desc, table, &c->problem));
    const fa_cascade_costs costs = costs_of(&c->problem);
    c->sequences = c->problem.sequences;
    c->first = fa_alloc_zeroed(context, (size_t)c->sequences * sizeof(*c->first));
    return c->first ? fa_cascade_search(&c->problem, table, &costs, c) : FA_OUT_OF_MEMORY;
}

static void release_level(const fa_context *context, fa_cascade_level_lists *l)
{
    const size_t groups = (size_t)l->groups;
    fa_release(context, l->cu_sequences, (groups + 1) * sizeof(*l->cu_sequences));
    fa_release(context, l->cu_rows, (groups + 1) * sizeof(*l->cu_rows));
    fa_release(context, l->lens, groups * sizeof(*l->lens));
    fa_release(context, l->first, groups * sizeof(*l->first));
    fa_release(context, l->end, groups * sizeof(*l->end));
    fa_release(context, l->table, groups * (size_t)l->pages * sizeof(*l->table));
}

void fa_cascade_release_levels(fa_cascade *c)
{
    for (int64_t i = 0; i < c->levels; i++)
        release_level(c->context, &c->level[i]);
    fa_release(c->context, c->first, (size_t)c->sequences * sizeof(*c->first));
    fa_problem_release(c->context, &c->problem);
}

fa_status fa_cascade_get_info(const fa_cascade *cascade, fa_cascade_info *info)
{
    fa_clear_error();
    if (!cascade || !info)
        return fa_fail(FA_INVALID, "%s is NULL", cascade ? "info" : "cascade");
    const fa_cascade_info made = {
        .levels = cascade->levels,
        .sequences = cascade->sequences,
        .bytes_flat = cascade->bytes_flat,
        .bytes = cascade->bytes,
        .first_kv = cascade->first,
    };
    return fa_fill_struct(&made, sizeof(made), FA_CASCADE_INFO_0_1, info, "fa_cascade_info");
}

fa_status fa_cascade_get_level(const fa_cascade *cascade, int64_t level, fa_cascade_level *out)
{
    fa_clear_error();
    if (!cascade || !out)
        return fa_fail(FA_INVALID, "%s is NULL", cascade ? "out" : "cascade");
    if (level < 0 || level >= cascade->levels)
        return fa_fail(FA_INVALID, "level is %lld, expected 0 to %lld", (long long)level,
                       (long long)cascade->levels - 1);
    const fa_cascade_level_lists *l = &cascade->level[level];
    const fa_cascade_level made = {
        .groups = l->groups,
        .pages = l->pages,
        .cu_rows_q = l->cu_rows,
        .lens_kv = l->lens,
        .page_table = l->table,
        .cu_sequences = l->cu_sequences,
    };
    return fa_fill_struct(&made, sizeof(made), FA_CASCADE_LEVEL_0_1, out, "fa_cascade_level");
}

/* A sequence's number, and the pages that others may share whose slopes and first key are the same. */
typedef struct line {
    const int32_t *page;
    int64_t pages, number, first;
    const float *slope; /* NULL: all have the same */
    size_t slope_bytes;
} line;

/* As words in a dictionary; what is alike stays in the order of its numbers. */
static int compare_lines(const void *a, const void *b)
{
    const line *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    const int slopes = x->slope ? memcmp(x->slope, y->slope, x->slope_bytes) : 0;
    if (slopes != 0)
        return slopes;
    for (int64_t i = 0; i < x->pages && i < y->pages; i++) {
        if (x->page[i] != y->page[i])
            return x->page[i] < y->page[i] ? -1 : 1;
    }
    if (x->pages != y->pages)
        return x->pages < y->pages ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

fa_status fa_cascade_order(fa_context *context, const fa_attention_desc *desc, const int32_t *page_table,
                           int64_t *order)
{
    fa_clear_error();
    fa_problem p;
    if (!context || !order)
        return fa_fail(FA_INVALID, "%s is NULL", context ? "order" : "context");
    FA_TRY(read_problem(context, desc, page_table, &p));
    const int64_t sequences = p.sequences, size = p.tensor[FA_K].shape[2];
    line *lines = fa_alloc(context, (size_t)sequences * sizeof(*lines));
    for (int64_t n = 0; lines && n < sequences; n++) {
        const int64_t first = p.sequence[n].first, from = size > 0 ? first / size : 0;
        const int64_t pages = size > 0 ? fa_cascade_shared(&p, &p.sequence[n]) / size - from : 0;
        lines[n] = (line){
            .page = page_table + n * p.tensor[FA_PAGES].stride[0] + from,
            .pages = FA_MAX(pages, 0),
            .number = n,
            .first = first,
            .slope = p.alibi_stride ? p.alibi_slopes + n * p.alibi_stride : NULL,
            .slope_bytes = (size_t)p.heads_q * sizeof(float),
        };
    }
    if (lines)
        qsort(lines, (size_t)sequences, sizeof(*lines), compare_lines);
    for (int64_t n = 0; lines && n < sequences; n++)
        order[n] = lines[n].number;
    fa_problem_release(context, &p);
    fa_release(context, lines, (size_t)sequences * sizeof(*lines));
    return lines ? FA_OK : FA_OUT_OF_MEMORY;
}
