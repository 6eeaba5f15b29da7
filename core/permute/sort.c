/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/permute.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"

#include "core/portable/sort.h"

enum {
    OPERANDS = 4,
    GROUP = 128,
    MOST_BUCKETS = 1 << 16,
    MOST_PIECES = 1 << 24,
    SCRATCH = 1 << 23,              /* counts of all work-groups, unless one needs more */
    MOST_JOBS = INT32_MAX - SCRATCH /* a group goes from job to job in steps of all groups */
};

struct fa_sort {
    fa_device *device;
    fa_sort_desc desc;
    size_t span[OPERANDS];
    fa_sort_params params;
    char *words; /* the parameters, and behind them the offsets of pieces */
    size_t bytes;
    fa_task task;
    bool prepared;
};

static const char *const names[OPERANDS] = {"keys", "order", "offsets", "workspace"};

static fa_status check_pieces(const fa_sort_desc *d)
{
    const int64_t *cu = d->cu_pieces;
    FA_TRY(fa_check_limit("pieces", d->pieces, 0, MOST_PIECES));
    if ((cu != NULL) != (d->pieces > 0))
        return fa_fail(FA_INVALID, "cu_pieces is %s, expected %s with pieces %lld", cu ? "given" : "NULL",
                       cu ? "NULL" : "offsets", (long long)d->pieces);
    for (int64_t n = 0; cu && n <= d->pieces; n++) {
        const int64_t low = n == 0 ? 0 : n == d->pieces ? d->count : cu[n - 1], high = n == 0 ? 0 : d->count;
        if (cu[n] < low || cu[n] > high || (n > 0 && cu[n] < cu[n - 1]))
            return fa_fail(FA_INVALID, "cu_pieces[%lld] is %lld, expected %lld to %lld", (long long)n,
                           (long long)cu[n], (long long)low, (long long)high);
    }
    return FA_OK;
}

static fa_status check(const fa_sort_desc *d)
{
    FA_TRY(fa_check_limit("lists", d->lists, 0, INT32_MAX));
    FA_TRY(fa_check_limit("count", d->count, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("buckets", d->buckets, 1, MOST_BUCKETS));
    if (d->want_offsets != 0 && d->want_offsets != 1)
        return fa_fail(FA_INVALID, "want_offsets is %d, expected 0 or 1", d->want_offsets);
    return check_pieces(d);
}

/* Work-items of a group: on the host a function does the share of all. */
static int64_t items_of(const fa_sort *s)
{
    return s->device->backend->host_pointers ? 1 : GROUP;
}

static fa_status fill_params(fa_sort *s)
{
    const fa_sort_desc *d = &s->desc;
    const int64_t pieces = FA_MAX(d->pieces, 1), bins = d->buckets + 1, each = bins * items_of(s);
    int64_t jobs;
    if (!fa_mul_i64(d->lists, pieces, &jobs) || jobs > MOST_JOBS)
        return fa_fail(FA_UNSUPPORTED, "lists is %lld, pieces %lld: at most %d of all are served",
                       (long long)d->lists, (long long)pieces, MOST_JOBS);
    s->params = (fa_sort_params){
        .lists = (int)d->lists,
        .pieces = (int)pieces,
        .count = (int)d->count,
        .bins = (int)bins,
        .groups = (int)FA_MIN(jobs, FA_MAX(SCRATCH / each, 1)),
        .want_offsets = d->want_offsets,
        .pieces_at = (int)(sizeof(s->params) / sizeof(int32_t)),
    };
    const size_t numbers = (size_t)d->lists * sizeof(int32_t);
    bool fits = fa_grow(&s->span[FA_SORT_KEYS], numbers, (size_t)d->count) &&
                fa_grow(&s->span[FA_SORT_SCRATCH], (size_t)s->params.groups * sizeof(int32_t), (size_t)each);
    s->span[FA_SORT_ORDER] = s->span[FA_SORT_KEYS];
    if (d->want_offsets)
        fits = fits && fa_grow(&s->span[FA_SORT_OFFSETS], (size_t)jobs * sizeof(int32_t), (size_t)bins);
    return fits
               ? FA_OK
               : fa_fail(FA_OUT_OF_MEMORY, "lists is %lld, with count %lld and %lld buckets overflows memory",
                         (long long)d->lists, (long long)d->count, (long long)d->buckets);
}

/* Whether the program's loops come to their end. */
static fa_status check_turns(const fa_sort *s)
{
    const int64_t most = s->device->limits.loop_turns, bins = s->params.bins, groups = s->params.groups;
    const int64_t jobs = (int64_t)s->params.lists * s->params.pieces;
    const int64_t each = 2 * (s->params.count / GROUP + 1) + 4 * bins + GROUP;
    if (most > 0 && jobs > 0 && fa_ceil_div(jobs, groups) > most / each)
        return fa_fail(FA_UNSUPPORTED,
                       "count is %d, with %lld buckets and %lld lists, but %s ends loops after %lld turns",
                       s->params.count, (long long)bins - 1, (long long)jobs, s->device->info.name,
                       (long long)most);
    return FA_OK;
}

static fa_status write_words(fa_sort *s)
{
    const fa_sort_desc *d = &s->desc;
    const int64_t whole[2] = {0, d->count}, *cu = d->pieces > 0 ? d->cu_pieces : whole;
    s->bytes = sizeof(s->params) + ((size_t)s->params.pieces + 2) / 2 * 2 * sizeof(int32_t);
    s->words = fa_alloc_zeroed(s->device->context, s->bytes);
    if (!s->words)
        return FA_OUT_OF_MEMORY;
    memcpy(s->words, &s->params, sizeof(s->params));
    int32_t *offsets = (int32_t *)(void *)s->words + s->params.pieces_at;
    for (int64_t n = 0; n <= s->params.pieces; n++)
        offsets[n] = (int32_t)cu[n];
    s->desc.cu_pieces = NULL;
    return FA_OK;
}

static void run_group(const fa_task_view *view, int group)
{
    int shared[FA_TASK_SHARED_INTS];
    fa_task_view own = *view;
    own.shared = shared;
    fa_sort_group(&own, group, 0, 1);
}

static fa_status create(fa_sort *s, const fa_sort_desc *given)
{
    FA_TRY(fa_copy_struct(&s->desc, sizeof(s->desc), FA_SORT_DESC_0_1, given, "fa_sort_desc"));
    FA_TRY(check(&s->desc));
    FA_TRY(fill_params(s));
    if (s->span[FA_SORT_KEYS] == 0 && s->span[FA_SORT_OFFSETS] == 0)
        return FA_OK;
    FA_TRY(check_turns(s));
    FA_TRY(write_words(s));
    s->task = (fa_task){
        .device = s->device,
        .kind = FA_TASK_SORT,
        .name = "sort",
        .group = GROUP,
        .params = s->words,
        .params_bytes = s->bytes,
        .run = run_group,
    };
    for (int n = 0; n < OPERANDS; n++) {
        if (n != FA_SORT_OFFSETS || s->desc.want_offsets)
            s->task.operand[n] = (fa_task_operand){names[n], s->span[n], n != FA_SORT_KEYS};
    }
    const fa_status status = fa_task_prepare(&s->task);
    s->prepared = status == FA_OK;
    return status;
}

void fa_sort_destroy(fa_sort *sort)
{
    if (!sort)
        return;
    if (sort->prepared)
        fa_task_release(&sort->task);
    fa_release(sort->device->context, sort->words, sort->bytes);
    fa_release(sort->device->context, sort, sizeof(*sort));
}

fa_status fa_sort_create(fa_device *device, const fa_sort_desc *desc, fa_sort **sort)
{
    fa_clear_error();
    if (!sort)
        return fa_fail(FA_INVALID, "sort is NULL, expected where to store the new sort");
    *sort = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_sort *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *sort = made;
    else
        fa_sort_destroy(made);
    return fa_finish(status);
}

size_t fa_sort_workspace(const fa_sort *sort)
{
    return sort && sort->prepared ? sort->span[FA_SORT_SCRATCH] : 0;
}

static fa_status check_binding(const fa_sort *s, const fa_task_binding *binding)
{
    if (!s->desc.want_offsets && binding->buffer[FA_SORT_OFFSETS])
        return fa_fail(FA_INVALID,
                       "args.offsets is given, expected NULL: the description's want_offsets is 0");
    for (int n = 0; n < OPERANDS; n++) {
        if (s->task.operand[n].name && (s->span[n] > 0 || binding->buffer[n]))
            FA_TRY(fa_buffer_check(s->device, "args.", names[n], binding->buffer[n], binding->offset[n],
                                   sizeof(int32_t), s->span[n]));
    }
    return fa_task_check_overlap(&s->task, binding);
}

fa_status fa_sort_run(const fa_sort *sort, fa_queue *queue, const fa_sort_args *args)
{
    fa_clear_error();
    fa_sort_args a;
    FA_TRY(fa_call_check("sort", sort, sort ? sort->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_SORT_ARGS_0_1, args, "fa_sort_args"));
    const fa_task_binding binding = {
        .buffer = {a.keys, a.order, a.offsets, a.workspace},
        .offset = {a.keys_offset, a.order_offset, a.offsets_offset, a.workspace_offset},
        .groups = sort->params.groups,
    };
    if (!sort->prepared)
        return fa_finish(FA_OK);
    FA_TRY(check_binding(sort, &binding));
    return fa_finish(fa_task_run(&sort->task, queue, &binding));
}
