/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/permute.h>

#include "core/binding.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"
#include "core/tensor.h"

#include "core/portable/gather.h"

enum { OPERANDS = 3, GROUP = 64, SHARE = 512 /* units of a work-group */, MOST_BYTES = 1 << 20 };

struct fa_gather {
    fa_device *device;
    fa_gather_desc desc;
    size_t span[OPERANDS];
    fa_gather_params params;
    int32_t groups; /* 0: there is nothing to do */
    fa_task task;
    bool prepared;
};

static const char *const names[OPERANDS] = {"from", "order", "to"};

static const fa_tensor *tensor_of(const fa_gather *g, int n)
{
    return n == FA_GATHER_FROM ? &g->desc.from : n == FA_GATHER_ORDER ? &g->desc.order : &g->desc.to;
}

static fa_status check_size(const char *name, int axis, int64_t size, int64_t expected, bool divides)
{
    if (size == expected || (divides && size > 0 && expected % size == 0))
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %s%lld", name, axis, (long long)size,
                   divides ? "a divisor of " : "", (long long)expected);
}

static fa_status check_shapes(const fa_gather_desc *d)
{
    const int64_t *from = d->from.shape, *to = d->to.shape, *order = d->order.shape;
    FA_TRY(check_size("from", 0, from[0], to[0], false));
    FA_TRY(check_size("from", 1, from[1], to[1], !d->scatter));
    FA_TRY(check_size("from", 3, from[3], to[3], false));
    FA_TRY(order[0] == 1 ? FA_OK : check_size("order", 0, order[0], to[0], false));
    FA_TRY(check_size("order", 1, order[1], to[1], true));
    FA_TRY(check_size("order", 2, order[2], d->scatter ? from[2] : to[2], false));
    FA_TRY(check_size("order", 3, order[3], 1, false));
    if (!fa_tensor_is_injective(&d->to))
        return fa_fail(FA_INVALID, "to.stride is (%lld, %lld, %lld, %lld): elements of to overlap",
                       (long long)d->to.stride[0], (long long)d->to.stride[1], (long long)d->to.stride[2],
                       (long long)d->to.stride[3]);
    return FA_OK;
}

static fa_status check(fa_gather *g)
{
    fa_gather_desc *d = &g->desc;
    fa_tensor *tensor[OPERANDS] = {&d->from, &d->order, &d->to};
    if (d->scatter != 0 && d->scatter != 1)
        return fa_fail(FA_INVALID, "scatter is %d, expected 0 or 1", d->scatter);
    if (d->from.dtype != FA_I32)
        FA_TRY(fa_dtype_check_float(d->from.dtype, "from.dtype"));
    FA_TRY(fa_dtype_check_one(d->to.dtype, d->from.dtype, "to.dtype"));
    FA_TRY(fa_dtype_check_one(d->order.dtype, FA_I32, "order.dtype"));
    for (int n = 0; n < OPERANDS; n++) {
        FA_TRY(fa_tensor_normalise(tensor[n], names[n], false));
        FA_TRY(fa_tensor_extent(tensor[n], names[n], &g->span[n]));
    }
    return check_shapes(d);
}

/* What programs count in 32 bits. */
static fa_status fill_params(fa_gather *g)
{
    const fa_gather_desc *d = &g->desc;
    fa_gather_params *p = &g->params;
    const int64_t rows = d->order.shape[2], limit = d->scatter ? d->to.shape[2] : d->from.shape[2],
                  bytes = fa_tensor_row_bytes(&d->to);
    int64_t lines;
    if (!fa_mul_i64(d->to.shape[0], d->to.shape[1], &lines) || !fa_mul_i64(lines, rows, &lines) ||
        lines > INT32_MAX - SHARE || limit > INT32_MAX || bytes > MOST_BYTES)
        return fa_fail(
            FA_UNSUPPORTED,
            "to.shape is %lld x %lld heads, lists have %lld rows of %lld bytes: at most %d rows of %d "
            "bytes are served",
            (long long)d->to.shape[0], (long long)d->to.shape[1], (long long)rows, (long long)bytes,
            INT32_MAX - SHARE, MOST_BYTES);
    if (lines == 0 || bytes == 0)
        return FA_OK;
    for (int axis = 0; axis < 3; axis++) {
        p->from_stride[axis] = d->from.stride[axis] * (int64_t)fa_dtype_size(d->from.dtype);
        p->to_stride[axis] = d->to.stride[axis] * (int64_t)fa_dtype_size(d->to.dtype);
        p->order_stride[axis] = d->order.stride[axis] * (int64_t)sizeof(int32_t);
    }
    p->heads = (int)d->to.shape[1];
    p->rows = (int)rows;
    p->lines = (int)lines;
    p->limit = (int)limit;
    p->from_each = (int)(d->to.shape[1] / d->from.shape[1]);
    p->order_each = (int)(d->to.shape[1] / d->order.shape[1]);
    p->row_bytes = (int)bytes;
    p->units = (int)fa_ceil_div(bytes, FA_GATHER_UNIT);
    p->share = FA_MAX(SHARE / p->units, 1);
    p->scatter = d->scatter;
    g->groups = (int32_t)fa_ceil_div(lines, p->share);
    return FA_OK;
}

static void run_group(const fa_task_view *view, int group)
{
    fa_gather_group(view, group, 0, 1);
}

static fa_status create(fa_gather *g, const fa_gather_desc *given)
{
    FA_TRY(fa_copy_struct(&g->desc, sizeof(g->desc), FA_GATHER_DESC_0_1, given, "fa_gather_desc"));
    FA_TRY(check(g));
    FA_TRY(fill_params(g));
    if (g->groups == 0)
        return FA_OK;
    g->task = (fa_task){
        .device = g->device,
        .kind = FA_TASK_GATHER,
        .name = "gather",
        .group = GROUP,
        .params = &g->params,
        .params_bytes = sizeof(g->params),
        .run = run_group,
    };
    for (int n = 0; n < OPERANDS; n++)
        g->task.operand[n] = (fa_task_operand){names[n], g->span[n], n == FA_GATHER_TO};
    const fa_status status = fa_task_prepare(&g->task);
    g->prepared = status == FA_OK;
    return status;
}

void fa_gather_destroy(fa_gather *gather)
{
    if (!gather)
        return;
    if (gather->prepared)
        fa_task_release(&gather->task);
    fa_release(gather->device->context, gather, sizeof(*gather));
}

fa_status fa_gather_create(fa_device *device, const fa_gather_desc *desc, fa_gather **gather)
{
    fa_clear_error();
    if (!gather)
        return fa_fail(FA_INVALID, "gather is NULL, expected where to store the new gather");
    *gather = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_gather *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *gather = made;
    else
        fa_gather_destroy(made);
    return fa_finish(status);
}

static fa_status check_binding(const fa_gather *g, const fa_task_binding *binding)
{
    fa_memory memory[OPERANDS];
    for (int n = 0; n < OPERANDS; n++) {
        const fa_tensor *t = tensor_of(g, n);
        FA_TRY(fa_buffer_check(g->device, "args.", names[n], binding->buffer[n], binding->offset[n],
                               fa_dtype_align(t->dtype), g->span[n]));
        memory[n] =
            (fa_memory){names[n], fa_buffer_extent(t, g->span[n], binding->buffer[n], binding->offset[n]),
                        n == FA_GATHER_TO};
    }
    return fa_memory_check_overlap(memory, OPERANDS);
}

fa_status fa_gather_run(const fa_gather *gather, fa_queue *queue, const fa_gather_args *args)
{
    fa_clear_error();
    fa_gather_args a;
    FA_TRY(fa_call_check("gather", gather, gather ? gather->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_GATHER_ARGS_0_1, args, "fa_gather_args"));
    const fa_task_binding binding = {
        .buffer = {a.from, a.order, a.to},
        .offset = {a.from_offset, a.order_offset, a.to_offset},
        .groups = gather->groups,
    };
    if (gather->groups == 0)
        return fa_finish(FA_OK);
    FA_TRY(check_binding(gather, &binding));
    return fa_finish(fa_task_run(&gather->task, queue, &binding));
}
