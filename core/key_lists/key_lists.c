/* SPDX-License-Identifier: Apache-2.0 */
/* The plan and the task of lists of keys, and their runs. */
#include "core/key_lists/key_lists.h"

#include <string.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"

enum { GROUP = 256, LEAST_GROUP = 64 };

_Static_assert(sizeof(fa_key_list_params) % 8 == 0, "std430 rounds its size up");

static void run_group(const fa_task_view *view, int group)
{
    fa_key_list_group(view, group, 0, 1);
}

static size_t numbers_bytes(const fa_key_lists *l)
{
    return (size_t)l->lists * (size_t)l->topk * sizeof(int32_t);
}

static size_t lengths_bytes(const fa_key_lists *l)
{
    return (size_t)l->lists * sizeof(int32_t);
}

/* Each part begins at a multiple of 256. */
static bool add_part(size_t bytes, size_t *end, size_t *begin)
{
    *begin = *end;
    return fa_grow(end, bytes / FA_WORK_ALIGNMENT + 1, FA_WORK_ALIGNMENT);
}

static fa_status lay_out(fa_key_lists *l)
{
    size_t numbers = 0, plan_at, end = 0;
    if (fa_grow(&numbers, (size_t)l->lists * sizeof(int32_t), (size_t)l->topk) &&
        add_part(fa_plan_work(l->plan), &end, &plan_at) && add_part(lengths_bytes(l), &end, &l->lengths_at) &&
        add_part(numbers, &end, &l->found_at) && add_part(numbers, &end, &l->pages_at)) {
        l->work = end;
        return FA_OK;
    }
    return fa_fail(FA_OUT_OF_MEMORY, "%lld lists of %lld numbers overflow memory", (long long)l->lists,
                   (long long)l->topk);
}

/* Whether the program's loops come to their end. */
static fa_status check_turns(const fa_key_lists *l)
{
    const int64_t most = l->device->limits.loop_turns, each = fa_ceil_div(l->topk, LEAST_GROUP);
    const bool unique = l->params[0].unique;
    if (most > 0 && l->topk + each * (unique ? 1 : 1 + l->topk) > most)
        return fa_fail(FA_UNSUPPORTED, "topk is %lld%s, but %s ends loops after %lld turns",
                       (long long)l->topk, unique ? "" : " with unique 0", l->device->info.name,
                       (long long)most);
    return FA_OK;
}

static fa_status prepare_tasks(fa_key_lists *l)
{
    FA_TRY(check_turns(l));
    for (; l->tasks < 2; l->tasks++) {
        fa_task *t = &l->task[l->tasks];
        *t = (fa_task){
            .device = l->device,
            .kind = FA_TASK_KEY_LIST,
            .name = "key_list",
            .group = GROUP,
            .params = &l->params[l->tasks],
            .params_bytes = sizeof(l->params[0]),
            .operand = {[FA_KEY_LIST_INDICES] = {"indices", numbers_bytes(l), false},
                        [FA_KEY_LIST_FOUND] = {"work", numbers_bytes(l), true},
                        [FA_KEY_LIST_PAGES] = {"work", numbers_bytes(l), true},
                        [FA_KEY_LIST_LENGTHS] = {"work", lengths_bytes(l), true}},
            .run = run_group,
        };
        if (l->table_span > 0)
            t->operand[FA_KEY_LIST_TABLE] = (fa_task_operand){"page_table", l->table_span, false};
        FA_TRY(fa_task_prepare(t));
    }
    return FA_OK;
}

/* The plan is made for lists without -1. */
static fa_status make_plan(fa_key_lists *l, fa_attention_desc *d)
{
    const fa_context *context = l->device->context;
    const size_t bytes = lengths_bytes(l);
    int32_t *lengths = fa_alloc(context, bytes);
    if (!lengths && bytes > 0)
        return FA_OUT_OF_MEMORY;
    for (int64_t n = 0; n < l->lists; n++)
        lengths[n] = (int32_t)l->topk;
    const int32_t none = 0;
    d->lens_kv32 = lengths ? lengths : &none;
    const fa_status status = fa_plan_create_edited(l->device, d, fa_key_lists_edit, l, &l->plan);
    fa_release(context, lengths, bytes);
    return status;
}

static fa_status create(fa_key_lists *l, const fa_key_lists_desc *given)
{
    fa_key_lists_desc desc;
    fa_attention_desc d;
    FA_TRY(fa_copy_struct(&desc, sizeof(desc), FA_KEY_LISTS_DESC_0_1, given, "fa_key_lists_desc"));
    FA_TRY(fa_key_lists_describe(l, &desc, &d));
    FA_TRY(make_plan(l, &d));
    FA_TRY(lay_out(l));
    return prepare_tasks(l);
}

fa_status fa_key_lists_create(fa_device *device, const fa_key_lists_desc *desc, fa_key_lists **lists)
{
    fa_clear_error();
    if (!lists)
        return fa_fail(FA_INVALID, "lists is NULL, expected where to store the new lists");
    *lists = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_key_lists *l = fa_alloc_zeroed(device->context, sizeof(*l));
    if (!l)
        return FA_OUT_OF_MEMORY;
    l->device = device;
    const fa_status status = create(l, desc);
    if (status == FA_OK)
        *lists = l;
    else
        fa_key_lists_destroy(l);
    return fa_finish(status);
}

void fa_key_lists_destroy(fa_key_lists *l)
{
    if (!l)
        return;
    const fa_message kept = fa_message_keep();
    for (int i = 0; i < l->tasks; i++)
        fa_task_release(&l->task[i]);
    fa_plan_destroy(l->plan);
    fa_key_lists_release_problem(l);
    fa_release(l->device->context, l, sizeof(*l));
    fa_message_restore(&kept);
}

size_t fa_key_lists_workspace(const fa_key_lists *lists)
{
    return lists ? fa_plan_workspace(lists->plan) : 0;
}

size_t fa_key_lists_work(const fa_key_lists *lists)
{
    return lists ? lists->work : 0;
}

/* Work and the page table that lists are read by. */
static fa_status check_memory(const fa_key_lists *l, fa_buffer *table, size_t table_offset, fa_buffer *work,
                              size_t work_offset)
{
    FA_TRY(fa_work_check(l->device, "", work, work_offset, l->work));
    if (l->table_span == 0)
        return table ? fa_fail(FA_INVALID, "page_table is given, expected NULL: attention has none") : FA_OK;
    FA_TRY(fa_buffer_check(l->device, "", "page_table", table, table_offset, sizeof(int32_t), l->table_span));
    const fa_memory memory[] = {{"work", fa_buffer_bytes(l->work, work, work_offset), true},
                                {"page_table", fa_buffer_bytes(l->table_span, table, table_offset), false}};
    return fa_memory_check_overlap(memory, 2);
}

/* Enqueues the task, and what makes the plan's work of the lengths that it writes. */
static fa_status write_work(const fa_key_lists *l, int task, fa_queue *queue, fa_task_binding *binding,
                            fa_buffer *work, size_t work_offset)
{
    const fa_device_lengths lengths = {
        .struct_size = sizeof(lengths), .lens_kv = work, .lens_kv_offset = work_offset + l->lengths_at};
    binding->buffer[FA_KEY_LIST_FOUND] = binding->buffer[FA_KEY_LIST_PAGES] =
        binding->buffer[FA_KEY_LIST_LENGTHS] = work;
    binding->offset[FA_KEY_LIST_FOUND] = work_offset + l->found_at;
    binding->offset[FA_KEY_LIST_PAGES] = work_offset + l->pages_at;
    binding->offset[FA_KEY_LIST_LENGTHS] = work_offset + l->lengths_at;
    binding->groups = (int32_t)l->lists;
    if (l->lists > 0)
        FA_TRY(fa_finish(fa_task_run(&l->task[task], queue, binding)));
    return fa_plan_schedule_device(l->plan, queue, &lengths, work, work_offset);
}

fa_status fa_key_lists_schedule_device(const fa_key_lists *lists, fa_queue *queue, fa_buffer *indices,
                                       size_t indices_offset, fa_buffer *page_table, size_t page_table_offset,
                                       fa_buffer *work, size_t work_offset)
{
    fa_clear_error();
    FA_TRY(fa_call_check("lists", lists, lists ? lists->device : NULL, queue, "work", work));
    FA_TRY(check_memory(lists, page_table, page_table_offset, work, work_offset));
    const size_t bytes = numbers_bytes(lists);
    fa_task_binding binding = {
        .buffer = {[FA_KEY_LIST_INDICES] = indices, [FA_KEY_LIST_TABLE] = page_table},
        .offset = {[FA_KEY_LIST_INDICES] = indices_offset, [FA_KEY_LIST_TABLE] = page_table_offset},
    };
    if (bytes > 0) {
        FA_TRY(
            fa_buffer_check(lists->device, "", "indices", indices, indices_offset, sizeof(int32_t), bytes));
        const fa_memory memory[] = {{"work", fa_buffer_bytes(lists->work, work, work_offset), true},
                                    {"indices", fa_buffer_bytes(bytes, indices, indices_offset), false}};
        FA_TRY(fa_memory_check_overlap(memory, 2));
    }
    return write_work(lists, 0, queue, &binding, work, work_offset);
}

/* Numbers of a list that were seen: a table of twice as many places or more, each a number + 1. */
typedef struct seen {
    uint32_t *place;
    size_t mask;
} seen;

/* Whether it was there before. */
static bool see(seen *s, int32_t number)
{
    const uint32_t mark = (uint32_t)number + 1;
    size_t at = (mark * UINT32_C(2654435769)) & s->mask;
    while (s->place[at] != 0 && s->place[at] != mark)
        at = (at + 1) & s->mask;
    const bool before = s->place[at] == mark;
    s->place[at] = mark;
    return before;
}

static fa_status check_list(const fa_key_lists *l, int64_t n, const int32_t *list, seen *s)
{
    const int32_t most = l->params[0].most;
    memset(s->place, 0, (s->mask + 1) * sizeof(*s->place));
    for (int64_t i = 0; i < l->topk; i++) {
        if (list[i] < -1 || list[i] >= most)
            return fa_fail(FA_INVALID, "indices: number %lld of list %lld is %d, expected -1 to %d",
                           (long long)i, (long long)n, list[i], most - 1);
        if (list[i] >= 0 && see(s, list[i]))
            return fa_fail(FA_INVALID, "indices: number %lld of list %lld is %d, which the list has before",
                           (long long)i, (long long)n, list[i]);
    }
    return FA_OK;
}

static fa_status check_lists(const fa_key_lists *l, const int32_t *indices)
{
    seen s = {.mask = 1};
    while (s.mask + 1 < 2 * (size_t)l->topk)
        s.mask = 2 * s.mask + 1;
    const size_t bytes = (s.mask + 1) * sizeof(*s.place);
    s.place = fa_alloc(l->device->context, bytes);
    if (!s.place)
        return FA_OUT_OF_MEMORY;
    fa_status status = FA_OK;
    for (int64_t n = 0; n < l->lists && status == FA_OK; n++)
        status = check_list(l, n, indices + n * l->topk, &s);
    fa_release(l->device->context, s.place, bytes);
    return status;
}

fa_status fa_key_lists_schedule(const fa_key_lists *lists, fa_queue *queue, const int32_t *indices,
                                fa_buffer *page_table, size_t page_table_offset, fa_buffer *work,
                                size_t work_offset)
{
    fa_clear_error();
    FA_TRY(fa_call_check("lists", lists, lists ? lists->device : NULL, queue, "indices", indices));
    FA_TRY(check_memory(lists, page_table, page_table_offset, work, work_offset));
    FA_TRY(check_lists(lists, indices));
    /* The numbers lie where their pages will: the task has read them all before it writes there. */
    fa_task_binding binding = {
        .buffer = {[FA_KEY_LIST_INDICES] = work, [FA_KEY_LIST_TABLE] = page_table},
        .offset =
            {[FA_KEY_LIST_INDICES] = work_offset + lists->pages_at, [FA_KEY_LIST_TABLE] = page_table_offset},
    };
    FA_TRY(fa_buffer_write(queue, work, work_offset + lists->pages_at, indices, numbers_bytes(lists)));
    return write_work(lists, 1, queue, &binding, work, work_offset);
}

fa_status fa_key_lists_run(const fa_key_lists *lists, fa_queue *queue, const fa_attention_args *args)
{
    fa_clear_error();
    fa_attention_args a;
    FA_TRY(fa_call_check("lists", lists, lists ? lists->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_ATTENTION_ARGS_0_1, args, "fa_attention_args"));
    if (a.page_table)
        return fa_fail(FA_INVALID, "args.page_table is given, expected NULL: the work has page tables");
    FA_TRY(fa_work_check(lists->device, "args.", a.work, a.work_offset, lists->work));
    a.struct_size = sizeof(a);
    a.page_table = a.work;
    a.page_table_offset = a.work_offset + lists->pages_at;
    return fa_plan_run(lists->plan, queue, &a);
}
