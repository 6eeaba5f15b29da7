/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/mix.h>

#include "core/attention/checks.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"
#include "core/tensor.h"

#include "core/portable/mix.h"

enum { OPERANDS = FA_MIX_PLACES + 1, GROUP = 32 };

struct fa_mix {
    fa_device *device;
    fa_mix_params params;
    size_t span[OPERANDS], alignment[OPERANDS];
    fa_task task;
};

static const char *const names[OPERANDS] = {"from", "to", "offsets", "rows", "weights", "places"};

static fa_status check_tensor(fa_tensor *t, const char *name, const char *type_name, int *all, size_t *span)
{
    int64_t rows;
    FA_TRY(fa_dtype_check_float(t->dtype, type_name));
    FA_TRY(fa_tensor_normalise(t, name, false));
    FA_TRY(fa_tensor_extent(t, name, span));
    if (!fa_mul_i64(t->shape[0], t->shape[1], &rows) || !fa_mul_i64(rows, t->shape[2], &rows) ||
        rows > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED, "%s.shape is %lld x %lld x %lld rows, at most %d are served", name,
                       (long long)t->shape[0], (long long)t->shape[1], (long long)t->shape[2], INT32_MAX);
    if (t->shape[3] > FA_TASK_MOST)
        return fa_fail(FA_UNSUPPORTED, "%s.shape[3] is %lld, at most %d is served", name,
                       (long long)t->shape[3], FA_TASK_MOST);
    *all = (int)rows;
    return FA_OK;
}

static fa_status check(fa_mix *m, fa_mix_desc *d)
{
    fa_mix_params *p = &m->params;
    FA_TRY(check_tensor(&d->from, "from", "from.dtype", &p->from_all, &m->span[FA_MIX_FROM]));
    FA_TRY(check_tensor(&d->to, "to", "to.dtype", &p->to_all, &m->span[FA_MIX_TO]));
    if (d->to.shape[3] != d->from.shape[3])
        return fa_fail(FA_INVALID, "to.shape[3] is %lld, expected %lld as from.shape[3]",
                       (long long)d->to.shape[3], (long long)d->from.shape[3]);
    if (!fa_tensor_is_injective(&d->to))
        return fa_fail(FA_INVALID, "to.stride lets elements share memory, expected that none do");
    FA_TRY(fa_check_limit("lists", d->lists, 0, INT32_MAX));
    FA_TRY(fa_check_limit("entries", d->entries, 0, INT32_MAX));
    FA_TRY(fa_check_limit("longest", d->longest, 0, INT32_MAX));
    FA_TRY(fa_check_limit("weighted", d->weighted, 0, 1));
    FA_TRY(fa_check_limit("placed", d->placed, 0, 1));
    d->longest = d->longest ? d->longest : d->entries;
    const int64_t most = m->device->limits.loop_turns,
                  turns = (2 + 2 * FA_MIX_UNIT) * fa_ceil_div(d->to.shape[3], GROUP * FA_MIX_UNIT);
    if (most > 0 && turns > 0 && d->longest > most / turns)
        return fa_fail(
            FA_UNSUPPORTED, "longest is %lld entries of %lld dims, but %s ends loops after %lld turns",
            (long long)d->longest, (long long)d->to.shape[3], m->device->info.name, (long long)most);
    return FA_OK;
}

static void fill_params(fa_mix *m, const fa_mix_desc *d)
{
    fa_mix_params *p = &m->params;
    for (int axis = 0; axis < 3; axis++) {
        p->from_stride[axis] = d->from.stride[axis];
        p->to_stride[axis] = d->to.stride[axis];
    }
    /* More than an int holds are only there where there are no rows. */
    p->from_heads = (int)FA_MIN(d->from.shape[1], INT32_MAX);
    p->from_rows = (int)FA_MIN(d->from.shape[2], INT32_MAX);
    p->to_heads = (int)FA_MIN(d->to.shape[1], INT32_MAX);
    p->to_rows = (int)FA_MIN(d->to.shape[2], INT32_MAX);
    p->lists = (int)d->lists;
    p->entries = (int)d->entries;
    p->longest = (int)d->longest;
    p->dim = (int)d->to.shape[3];
    m->span[FA_MIX_OFFSETS] = ((size_t)d->lists + 1) * sizeof(int32_t);
    m->span[FA_MIX_ROWS] = (size_t)d->entries * sizeof(int32_t);
    m->span[FA_MIX_WEIGHTS] = d->weighted ? (size_t)d->entries * sizeof(float) : 0;
    m->span[FA_MIX_PLACES] = d->placed ? (size_t)d->lists * sizeof(int32_t) : 0;
    for (int n = 0; n < OPERANDS; n++)
        m->alignment[n] = n == FA_MIX_FROM ? fa_dtype_align(d->from.dtype)
                          : n == FA_MIX_TO ? fa_dtype_align(d->to.dtype)
                                           : sizeof(int32_t);
}

static bool writes_nothing(const fa_mix *m)
{
    return m->params.lists == 0 || m->params.to_all == 0 || m->params.dim == 0;
}

static bool has_operand(const fa_mix *m, int n)
{
    return n < FA_MIX_WEIGHTS || m->task.constant[n - FA_MIX_WEIGHTS + 2] != 0;
}

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    fa_mix_group(view, group, 0, 1);
}

static fa_status create(fa_mix *m, const fa_mix_desc *given)
{
    fa_mix_desc d;
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_MIX_DESC_0_1, given, "fa_mix_desc"));
    FA_TRY(check(m, &d));
    fill_params(m, &d);
    m->task = (fa_task){
        .device = m->device,
        .kind = FA_TASK_MIX,
        .name = "mix",
        .group = GROUP,
        .constant = {(int32_t)d.from.dtype, (int32_t)d.to.dtype, d.weighted, d.placed},
        .params = &m->params,
        .params_bytes = sizeof(m->params),
        .run = run_group,
    };
    for (int n = 0; n < OPERANDS; n++) {
        if (has_operand(m, n))
            m->task.operand[n] = (fa_task_operand){names[n], m->span[n], n == FA_MIX_TO};
    }
    return fa_task_prepare(&m->task);
}

fa_status fa_mix_create(fa_device *device, const fa_mix_desc *desc, fa_mix **mix)
{
    fa_clear_error();
    if (!mix)
        return fa_fail(FA_INVALID, "mix is NULL, expected where to store the new mix");
    *mix = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_mix *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *mix = made;
    else
        fa_release(device->context, made, sizeof(*made));
    return fa_finish(status);
}

void fa_mix_destroy(fa_mix *mix)
{
    if (!mix)
        return;
    fa_task_release(&mix->task);
    fa_release(mix->device->context, mix, sizeof(*mix));
}

static fa_status check_binding(const fa_mix *m, const fa_task_binding *binding)
{
    for (int n = 0; n < OPERANDS; n++) {
        const fa_buffer *buffer = binding->buffer[n];
        if (buffer && !has_operand(m, n))
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL: the description has none", names[n]);
        if (buffer || m->span[n] > 0)
            FA_TRY(fa_buffer_check(m->device, "args.", names[n], buffer, binding->offset[n], m->alignment[n],
                                   m->span[n]));
    }
    return fa_task_check_overlap(&m->task, binding);
}

fa_status fa_mix_run(const fa_mix *mix, fa_queue *queue, const fa_mix_args *args)
{
    fa_clear_error();
    fa_mix_args a;
    FA_TRY(fa_call_check("mix", mix, mix ? mix->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_MIX_ARGS_0_1, args, "fa_mix_args"));
    const fa_task_binding binding = {
        .buffer = {a.from, a.to, a.offsets, a.rows, a.weights, a.places},
        .offset = {a.from_offset, a.to_offset, a.offsets_offset, a.rows_offset, a.weights_offset,
                   a.places_offset},
        .groups = mix->params.lists,
    };
    FA_TRY(check_binding(mix, &binding));
    if (writes_nothing(mix))
        return FA_OK;
    return fa_finish(fa_task_run(&mix->task, queue, &binding));
}
