/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/saliency.h>
#include <string.h>

#include "core/attention/pages.h"
#include "core/attention/problem.h"
#include "core/attention/score.h"
#include "core/attention/work.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"
#include "core/tensor.h"

#include "core/portable/saliency.h"

enum { OPERANDS = FA_SALIENCY_WORK + 1 };

/* Its program with the lengths of the description, or with those of a run's work. */
typedef struct lengths {
    fa_saliency_params params;
    char *words; /* the parameters with their lists */
    size_t bytes;
    int32_t groups;
    fa_task task;
    bool prepared;
} lengths;

struct fa_saliency {
    fa_device *device;
    fa_problem problem;
    size_t span[OPERANDS]; /* 0: absent or empty */
    bool has[OPERANDS];
    lengths own, given;
    fa_long plan; /* whose work a run may have; 0: none's */
};

static const char *const names[OPERANDS] = {"q",        "k",          "lse",     "keep",   "bias", "probes",
                                            "saliency", "page_table", "k_scale", "k_zero", "work"};
/* Where an operand is a tensor of the problem. */
static const int tensors[OPERANDS] = {FA_Q, FA_K,     -1,         FA_KEEP,   FA_BIAS, -1,
                                      -1,   FA_PAGES, FA_K_SCALE, FA_K_ZERO, -1};

static fa_status check(const fa_saliency *s, const fa_saliency_desc *d)
{
    const fa_problem *p = &s->problem;
    if (d->heads != 0 && d->heads != p->heads_kv && d->heads != p->heads_q)
        return fa_fail(FA_INVALID, "heads is %lld, expected 0, %d or %d, the heads of k or q",
                       (long long)d->heads, p->heads_kv, p->heads_q);
    if (d->probes < 0 || d->probes > INT32_MAX)
        return fa_fail(FA_INVALID, "probes is %lld, expected 0 to %d", (long long)d->probes, INT32_MAX);
    if (d->sums != 0 && d->sums != 1)
        return fa_fail(FA_INVALID, "sums is %d, expected 0 or 1", d->sums);
    return FA_OK;
}

static bool same_rule(const fa_mask_rule *a, const fa_mask_rule *b)
{
    return a->left == b->left && a->right == b->right && a->prefix == b->prefix && a->offset == b->offset &&
           a->top_left == b->top_left;
}

/* Whether the plan is of the same description, so that what its work says of sequences holds here. */
static fa_status check_plan(const fa_saliency *s, const fa_plan *plan)
{
    const fa_problem *p = &s->problem, *of = &plan->problem;
    fa_table_params ours, theirs;
    memset(&ours, 0, sizeof(ours));
    memset(&theirs, 0, sizeof(theirs));
    fa_work_describe(p, &ours);
    fa_work_describe(of, &theirs);
    if (plan->device != s->device)
        return fa_fail(FA_INVALID, "plan is of another device");
    if (!of->dynamic)
        return fa_fail(FA_INVALID, "plan is of a description with dynamic_lengths 0, expected 1 or 2");
    if (memcmp(&ours, &theirs, sizeof(ours)) != 0 || p->sequences != of->sequences || p->keys != of->keys ||
        p->packed_q != of->packed_q || p->packed_kv != of->packed_kv || !same_rule(&p->rule, &of->rule) ||
        p->tensor[FA_Q].dtype != of->tensor[FA_Q].dtype || p->tensor[FA_K].dtype != of->tensor[FA_K].dtype ||
        memcmp(p->span, of->span, sizeof(p->span)) != 0)
        return fa_fail(FA_INVALID, "plan is of another description than attention");
    return FA_OK;
}

static fa_status size_operands(fa_saliency *s, const fa_saliency_desc *d)
{
    const fa_problem *p = &s->problem;
    const int64_t *o = p->tensor[FA_O].shape;
    const size_t lines = (size_t)s->own.params.heads * (size_t)p->sequences;
    for (int n = 0; n < OPERANDS; n++) {
        if (tensors[n] >= 0) {
            const unsigned feature = fa_operands[tensors[n]].feature;
            s->has[n] = !feature || (p->features & feature);
            s->span[n] = s->has[n] ? p->span[tensors[n]] : 0;
        }
    }
    s->has[FA_SALIENCY_LSE] = s->has[FA_SALIENCY_OUT] = true;
    s->has[FA_SALIENCY_PROBES] = d->probes > 0;
    s->has[FA_SALIENCY_WORK] = d->plan != NULL;
    s->span[FA_SALIENCY_WORK] = d->plan ? d->plan->layout.bytes : 0;
    const bool fits =
        fa_grow(&s->span[FA_SALIENCY_LSE], (size_t)(o[0] * o[1]) * sizeof(float), (size_t)o[2]) &&
        fa_grow(&s->span[FA_SALIENCY_PROBES], (size_t)p->sequences * sizeof(int32_t), (size_t)d->probes) &&
        fa_grow(&s->span[FA_SALIENCY_OUT], lines * sizeof(float), (size_t)p->keys);
    return fits ? FA_OK
                : fa_fail(FA_OUT_OF_MEMORY, "saliencies of %zu heads with %lld keys overflow memory", lines,
                          (long long)p->keys);
}

/* With the lengths of the description; `plan`: with those of its work, which may be the longest. */
static fa_status fill_params(const fa_saliency *s, const fa_saliency_desc *d, const fa_plan *plan, lengths *l)
{
    const fa_problem *p = &s->problem;
    fa_saliency_params *out = &l->params;
    const int64_t blocks = fa_ceil_div(plan ? fa_problem_most_keys(p) : p->max_len_kv, FA_SALIENCY_KEYS),
                  heads = d->heads ? d->heads : p->heads_kv;
    int64_t groups;
    if (p->keys > INT32_MAX || !fa_mul_i64(blocks * heads, p->sequences, &groups) || groups > INT32_MAX)
        return fa_fail(
            FA_UNSUPPORTED,
            "k has %lld keys, %lld heads and %lld sequences: at most %d of each, and of blocks of %d "
            "keys, are served",
            (long long)p->keys, (long long)heads, (long long)p->sequences, INT32_MAX, FA_SALIENCY_KEYS);
    l->groups = (int32_t)groups;
    out->sequences = (int)p->sequences;
    out->heads = (int)heads;
    out->keys = (int)p->keys;
    out->each = heads > 0 ? (int)(p->heads_q / heads) : 0; /* without heads nothing runs */
    out->blocks = (int)blocks;
    out->probes = (int)d->probes;
    out->sums = d->sums;
    out->work_at = plan ? (int)(plan->layout.sequences / sizeof(fa_table_sequence)) : -1;
    return FA_OK;
}

/* The parameters, and behind them the lists that scores and masks need. */
static fa_status write_words(const fa_saliency *s, lengths *l)
{
    const fa_problem *p = &s->problem;
    const size_t each = sizeof(fa_table_sequence), sequences = (size_t)p->sequences,
                 slopes = p->alibi_slopes ? fa_problem_slopes(p) : 0,
                 factors = p->bias_factors ? (size_t)p->heads_q : 0;
    size_t end = (sizeof(l->params) / each + 1) * each;
    const size_t sequences_at = end;
    bool fits = fa_grow(&end, sequences, each);
    const size_t slopes_at = end;
    fits = fits && fa_grow(&end, slopes, sizeof(float));
    const size_t factors_at = end;
    fits = fits && fa_grow(&end, factors, sizeof(float));
    end += end % 8;
    if (!fits || end > INT32_MAX)
        return fa_fail(FA_OUT_OF_MEMORY, "the lists of %zu sequences overflow memory", sequences);
    l->words = fa_alloc_zeroed(s->device->context, end);
    if (!l->words)
        return FA_OUT_OF_MEMORY;
    l->bytes = end;
    fa_work_describe(p, &l->params.table);
    l->params.table.score = fa_problem_score(p);
    l->params.table.sequences_at = (int)(sequences_at / each);
    l->params.table.slopes_at = (int)(slopes_at / sizeof(float));
    l->params.table.factors_at = (int)(factors_at / sizeof(float));
    memcpy(l->words, &l->params, sizeof(l->params));
    fa_work_sequences(p, (fa_table_sequence *)(void *)(l->words + sequences_at));
    if (slopes > 0)
        memcpy(l->words + slopes_at, p->alibi_slopes, slopes * sizeof(float));
    if (factors > 0)
        memcpy(l->words + factors_at, p->bias_factors, factors * sizeof(float));
    return FA_OK;
}

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    fa_saliency_group(view, group, 0, 1);
}

static void fill_task(const fa_saliency *s, lengths *l)
{
    const fa_problem *p = &s->problem;
    l->task = (fa_task){
        .device = s->device,
        .kind = FA_TASK_SALIENCY,
        .name = "saliency",
        .group = FA_SALIENCY_KEYS,
        .constant = {(int32_t)p->tensor[FA_Q].dtype, (int32_t)p->tensor[FA_K].dtype, p->k_scales.scale_type,
                     p->k_scales.zero_type},
        .params = l->words,
        .params_bytes = l->bytes,
        .run = run_group,
    };
    for (int n = 0; n < OPERANDS; n++) {
        if (s->has[n] && (n != FA_SALIENCY_WORK || l->params.work_at >= 0))
            l->task.operand[n] = (fa_task_operand){names[n], s->span[n], n == FA_SALIENCY_OUT};
    }
}

/* Whether the program's loops come to their end. */
static fa_status check_turns(const fa_saliency *s, const fa_saliency_desc *d)
{
    const fa_problem *p = &s->problem;
    const int32_t most = s->device->limits.loop_turns, each = s->own.params.each;
    const int k = (int)p->tensor[FA_K].dtype;
    const int64_t dim = p->dim_qk, words = (dim + 31) / 32;
    /* Of fetches of four elements; of pruned rows each counts the words before its own. */
    const int64_t fours =
        (FA_TYPE_IS_CODED(k) ? 2 * dim / 4 : 0) + (FA_TYPE_PRUNES(k) ? 4 * words * (words - 1) : 0);
    const int64_t longest = d->plan ? fa_problem_most_rows(p) : p->max_len_q,
                  rows = d->probes > 0 ? d->probes : longest, row = 1 + (int64_t)each * (1 + dim + fours);
    if (most > 0 && rows > FA_MAX(most - 64, 0) / row)
        return fa_fail(FA_UNSUPPORTED, "%lld rows of %d heads and %d dims, but %s ends loops after %d turns",
                       (long long)rows, each, p->dim_qk, s->device->info.name, most);
    return FA_OK;
}

static fa_status prepare(const fa_saliency *s, lengths *l)
{
    FA_TRY(write_words(s, l));
    fill_task(s, l);
    const fa_status status = fa_task_prepare(&l->task);
    l->prepared = status == FA_OK;
    return status;
}

static fa_status create(fa_saliency *s, const fa_saliency_desc *given)
{
    fa_saliency_desc d;
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SALIENCY_DESC_0_1, given, "fa_saliency_desc"));
    if (!d.attention)
        return fa_fail(FA_INVALID, "attention is NULL");
    FA_TRY(fa_problem_init(s->device->context, d.attention, &s->problem));
    if (s->problem.features & FA_FEATURE_LISTS)
        return fa_fail(FA_UNSUPPORTED, "attention.%s is given, expected NULL: saliencies do not serve it",
                       s->problem.lists.given ? "lists" : "neighbourhood");
    FA_TRY(check(s, &d));
    FA_TRY(fill_params(s, &d, NULL, &s->own));
    FA_TRY(check_turns(s, &d));
    if (d.plan) {
        FA_TRY(check_plan(s, d.plan));
        FA_TRY(fill_params(s, &d, d.plan, &s->given));
        s->plan = (fa_long)d.plan->serial;
    }
    FA_TRY(size_operands(s, &d));
    FA_TRY(prepare(s, &s->own));
    return d.plan ? prepare(s, &s->given) : FA_OK;
}

static void release_lengths(const fa_context *context, lengths *l)
{
    if (l->prepared)
        fa_task_release(&l->task);
    fa_release(context, l->words, l->bytes);
}

static void release(fa_saliency *s)
{
    const fa_context *context = s->device->context;
    fa_problem_release(context, &s->problem);
    release_lengths(context, &s->own);
    release_lengths(context, &s->given);
    fa_release(context, s, sizeof(*s));
}

fa_status fa_saliency_create(fa_device *device, const fa_saliency_desc *desc, fa_saliency **saliency)
{
    fa_clear_error();
    if (!saliency)
        return fa_fail(FA_INVALID, "saliency is NULL, expected where to store the new saliency");
    *saliency = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_saliency *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *saliency = made;
    else
        release(made);
    return fa_finish(status);
}

void fa_saliency_destroy(fa_saliency *saliency)
{
    if (saliency)
        release(saliency);
}

static size_t alignment_of(const fa_saliency *s, int n)
{
    return tensors[n] >= 0 ? fa_dtype_align(s->problem.tensor[tensors[n]].dtype) : sizeof(float);
}

/* Work and page tables in the host's memory are looked at before a run. */
static fa_status check_host(const fa_saliency *s, const fa_task_binding *binding)
{
    const fa_problem *p = &s->problem;
    const fa_buffer *table = binding->buffer[FA_SALIENCY_PAGES], *work = binding->buffer[FA_SALIENCY_WORK];
    if (!s->device->backend->host_pointers)
        return FA_OK;
    const void *pages = table ? (const char *)table->address + binding->offset[FA_SALIENCY_PAGES] : NULL;
    if (work) {
        const fa_table_params *params =
            (const void *)((const char *)work->address + binding->offset[FA_SALIENCY_WORK]);
        if (params->plan != s->plan)
            return fa_fail(FA_INVALID,
                           "args.work holds no work that fa_plan_schedule() made for the description's plan");
        return pages
                   ? fa_pages_check_sequences(
                         p, pages, (const fa_table_sequence *)(const void *)params + s->given.params.work_at)
                   : FA_OK;
    }
    for (int64_t n = 0; n < p->sequences && pages; n++)
        FA_TRY(fa_pages_check(p, pages, p->sequence[n].number, p->sequence[n].first, p->sequence[n].len_kv));
    return FA_OK;
}

static fa_status check_binding(const fa_saliency *s, const fa_task_binding *binding)
{
    fa_memory memory[OPERANDS];
    int count = 0;
    for (int n = 0; n < OPERANDS; n++) {
        const fa_buffer *buffer = binding->buffer[n];
        const bool is_work = n == FA_SALIENCY_WORK;
        if (!s->has[n] && buffer)
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL: the description has no %s", names[n],
                           is_work ? "plan" : names[n]);
        if (!s->has[n] || ((s->span[n] == 0 || is_work) && !buffer))
            continue;
        if (is_work)
            FA_TRY(fa_work_check(s->device, "args.", buffer, binding->offset[n], s->span[n]));
        else
            FA_TRY(fa_buffer_check(s->device, "args.", names[n], buffer, binding->offset[n],
                                   alignment_of(s, n), s->span[n]));
        memory[count++] = (fa_memory){names[n], fa_buffer_bytes(s->span[n], buffer, binding->offset[n]),
                                      n == FA_SALIENCY_OUT};
    }
    FA_TRY(fa_memory_check_overlap(memory, count));
    return check_host(s, binding);
}

fa_status fa_saliency_run(const fa_saliency *saliency, fa_queue *queue, const fa_saliency_args *args)
{
    fa_clear_error();
    fa_saliency_args a;
    FA_TRY(fa_call_check("saliency", saliency, saliency ? saliency->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_SALIENCY_ARGS_0_1, args, "fa_saliency_args"));
    const lengths *l = a.work ? &saliency->given : &saliency->own;
    const fa_task_binding binding = {
        .buffer = {a.q, a.k, a.lse, a.keep, a.bias, a.probes, a.saliency, a.page_table, a.k_scale, a.k_zero,
                   a.work},
        .offset = {a.q_offset, a.k_offset, a.lse_offset, a.keep_offset, a.bias_offset, a.probes_offset,
                   a.saliency_offset, a.page_table_offset, a.k_scale_offset, a.k_zero_offset, a.work_offset},
        .groups = l->groups,
    };
    FA_TRY(check_binding(saliency, &binding));
    if (l->groups == 0)
        return FA_OK;
    return fa_finish(fa_task_run(&l->task, queue, &binding));
}
