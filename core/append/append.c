/* SPDX-License-Identifier: Apache-2.0 */
#include "core/append/append.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static const char *const names[] = {"k", "v", "cache_k", "cache_v", "slots"};

static bool is_cache(int operand)
{
    return operand == FA_APPEND_CACHE_K || operand == FA_APPEND_CACHE_V;
}

static fa_status check_tensor(fa_append *a, int operand)
{
    fa_tensor *t = &a->tensor[operand];
    char field[16];
    (void)snprintf(field, sizeof(field), "%s.dtype", names[operand]);
    FA_TRY(fa_tensor_normalise(t, names[operand], false));
    FA_TRY(fa_tensor_extent(t, names[operand], &a->span[operand]));
    if (!is_cache(operand))
        return fa_dtype_check_float(t->dtype, field);
    FA_TRY(fa_dtype_check_cache(t->dtype, field));
    if (t->dtype >= FA_I8)
        return fa_fail(FA_INVALID,
                       "%s is %s, expected a type whose scales lie in its blocks, or that has none", field,
                       fa_dtype_name(t->dtype));
    if (!fa_tensor_is_injective(t))
        return fa_fail(FA_INVALID, "%s.stride is (%lld, %lld, %lld, 1): elements of %s overlap",
                       names[operand], (long long)t->stride[0], (long long)t->stride[1],
                       (long long)t->stride[2], names[operand]);
    return FA_OK;
}

/* Whether an axis of one operand is as long as the same axis of another. */
static fa_status check_same(const fa_append *a, int operand, int of, int axis)
{
    const int64_t found = a->tensor[operand].shape[axis], expected = a->tensor[of].shape[axis];
    if (found == expected)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %lld as %s.shape[%d]", names[operand], axis,
                   (long long)found, (long long)expected, names[of], axis);
}

static fa_status check_limit(int operand, int axis, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %lld to %lld", names[operand], axis,
                   (long long)value, (long long)low, (long long)high);
}

static fa_status init(fa_append *a, const fa_append_desc *d)
{
    const fa_tensor *const given[] = {&d->k, &d->v, &d->cache_k, &d->cache_v};
    a->has_v = !fa_tensor_is_absent(&d->v) || !fa_tensor_is_absent(&d->cache_v);
    for (int t = FA_APPEND_K; t <= FA_APPEND_CACHE_V; t++) {
        const bool of_v = t == FA_APPEND_V || t == FA_APPEND_CACHE_V;
        if (of_v && !a->has_v)
            continue;
        a->tensor[t] = *given[t];
        FA_TRY(check_tensor(a, t));
        FA_TRY(check_limit(t, 3, a->tensor[t].shape[3], 1, FA_MAX_HEAD_DIM));
        FA_TRY(check_limit(t, 1, a->tensor[t].shape[1], 0, 1 << 20));
    }
    const int64_t *k = a->tensor[FA_APPEND_K].shape, *cache = a->tensor[FA_APPEND_CACHE_K].shape;
    FA_TRY(check_same(a, FA_APPEND_CACHE_K, FA_APPEND_K, 1));
    FA_TRY(check_same(a, FA_APPEND_CACHE_K, FA_APPEND_K, 3));
    for (int axis = 0; axis < 3 && a->has_v; axis++) {
        FA_TRY(check_same(a, FA_APPEND_V, FA_APPEND_K, axis));
        FA_TRY(check_same(a, FA_APPEND_CACHE_V, FA_APPEND_CACHE_K, axis));
    }
    if (a->has_v)
        FA_TRY(check_same(a, FA_APPEND_CACHE_V, FA_APPEND_V, 3));
    FA_TRY(check_limit(FA_APPEND_K, 0, k[0], 0, 1 << 24));
    FA_TRY(check_limit(FA_APPEND_K, 2, k[2], 0, FA_MAX_LENGTH));
    FA_TRY(check_limit(FA_APPEND_CACHE_K, 2, cache[2], 0, FA_MAX_LENGTH));
    a->batch = k[0];
    a->heads = k[1];
    a->rows = k[2];
    a->entries = cache[0];
    a->keys = cache[2];
    int64_t slots;
    if (!fa_mul_i64(a->entries, a->keys, &slots) || slots > INT32_MAX)
        return fa_fail(FA_INVALID, "cache_k.shape is %lld entries of %lld keys, expected at most %d slots",
                       (long long)a->entries, (long long)a->keys, INT32_MAX);
    a->tensor[FA_APPEND_SLOTS] = fa_tensor_make(FA_I32, a->batch, 1, 1, a->rows);
    FA_TRY(fa_tensor_normalise(&a->tensor[FA_APPEND_SLOTS], names[FA_APPEND_SLOTS], false));
    return fa_tensor_extent(&a->tensor[FA_APPEND_SLOTS], names[FA_APPEND_SLOTS], &a->span[FA_APPEND_SLOTS]);
}

static fa_status fill_params(fa_append *a)
{
    const fa_tensor *t = a->tensor;
    fa_append_params *p = &a->params;
    const int unit_k = FA_APPEND_UNIT((int)t[FA_APPEND_CACHE_K].dtype),
              unit_v = FA_APPEND_UNIT((int)t[FA_APPEND_CACHE_V].dtype);
    for (int axis = 0; axis < 3; axis++) {
        p->k_stride[axis] = t[FA_APPEND_K].stride[axis];
        p->v_stride[axis] = t[FA_APPEND_V].stride[axis];
        p->cache_k_stride[axis] = t[FA_APPEND_CACHE_K].stride[axis];
        p->cache_v_stride[axis] = t[FA_APPEND_CACHE_V].stride[axis];
    }
    p->batch = (int)a->batch;
    p->heads = (int)a->heads;
    p->rows = (int)a->rows;
    p->entries = (int)a->entries;
    p->keys = (int)a->keys;
    p->dim_k = (int)t[FA_APPEND_K].shape[3];
    p->dim_v = a->has_v ? (int)t[FA_APPEND_V].shape[3] : 0;
    p->units_k = (int)fa_ceil_div(p->dim_k, unit_k);
    p->units_v = (int)fa_ceil_div(p->dim_v, unit_v);
    int64_t units = p->units_k + p->units_v;
    if (!fa_mul_i64(units, a->batch, &units) || !fa_mul_i64(units, a->rows, &units) ||
        !fa_mul_i64(units, a->heads, &units) || units > INT32_MAX - FA_APPEND_SHARE)
        return fa_fail(FA_UNSUPPORTED, "k.shape is (%lld, %lld, %lld, %d): too many rows for one append",
                       (long long)a->batch, (long long)a->heads, (long long)a->rows, p->dim_k);
    p->units = (int)units;
    return FA_OK;
}

static void run_group(const fa_task_view *view, int group)
{
    fa_append_group(view, group, 0, 1);
}

static void fill_task(fa_append *a)
{
    a->task = (fa_task){
        .device = a->device,
        .kind = FA_TASK_APPEND,
        .name = "append",
        .group = FA_APPEND_SHARE,
        .params = &a->params,
        .params_bytes = sizeof(a->params),
        .run = run_group,
    };
    for (int t = FA_APPEND_K; t <= FA_APPEND_CACHE_V; t++)
        a->task.constant[t] = (int32_t)a->tensor[t].dtype;
    for (int t = 0; t < FA_APPEND_OPERANDS; t++) {
        if (a->has_v || (t != FA_APPEND_V && t != FA_APPEND_CACHE_V))
            a->task.operand[t] = (fa_task_operand){names[t], a->span[t], is_cache(t)};
    }
}

static fa_status create(fa_device *device, const fa_append_desc *desc, fa_append *a)
{
    fa_append_desc copy;
    if (!desc)
        return fa_fail(FA_INVALID, "desc is NULL, expected an fa_append_desc");
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_APPEND_DESC_0_1, desc, "fa_append_desc"));
    a->device = device;
    FA_TRY(init(a, &copy));
    FA_TRY(fill_params(a));
    fill_task(a);
    return fa_task_prepare(&a->task);
}

fa_status fa_append_create(fa_device *device, const fa_append_desc *desc, fa_append **append)
{
    fa_clear_error();
    if (!append)
        return fa_fail(FA_INVALID, "append is NULL, expected where to store the new append");
    *append = NULL;
    if (!device)
        return fa_fail(FA_INVALID, "device is NULL");
    fa_append *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    fa_status status = create(device, desc, made);
    if (status == FA_OK)
        *append = made;
    else
        fa_release(device->context, made, sizeof(*made));
    return fa_finish(status);
}

void fa_append_destroy(fa_append *append)
{
    if (!append)
        return;
    fa_task_release(&append->task);
    fa_release(append->device->context, append, sizeof(*append));
}

static int compare(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* No two of the slots are the same, but negative ones. */
static fa_status check_distinct(const fa_append *a, const int32_t *slots, int64_t count)
{
    enum { FEW = 1024 };
    int32_t few[FEW];
    const fa_context *context = a->device->context;
    const size_t bytes = (size_t)count * sizeof(*slots);
    int32_t *sorted = count <= FEW ? few : fa_alloc(context, bytes);
    fa_status status = FA_OK;
    if (!sorted)
        return FA_OUT_OF_MEMORY;
    memcpy(sorted, slots, bytes);
    qsort(sorted, (size_t)count, sizeof(*sorted), compare);
    for (int64_t i = 1; i < count && status == FA_OK; i++) {
        if (sorted[i] >= 0 && sorted[i] == sorted[i - 1])
            status = fa_fail(FA_INVALID, "slots: %d is given twice, expected one row for a slot", sorted[i]);
    }
    if (sorted != few)
        fa_release(context, sorted, bytes);
    return status;
}

static fa_status check_slots(const fa_append *a, const fa_task_binding *binding)
{
    const fa_buffer *buffer = binding->buffer[FA_APPEND_SLOTS];
    const int64_t count = a->batch * a->rows, most = a->entries * a->keys;
    if (!a->device->backend->host_pointers || count == 0)
        return FA_OK;
    const int32_t *slots = (const void *)((const char *)buffer->address + binding->offset[FA_APPEND_SLOTS]);
    for (int64_t i = 0; i < count; i++) {
        if (slots[i] >= most)
            return fa_fail(
                FA_INVALID, "slots[%lld] is %d, expected less than %lld: %lld entries of %lld keys",
                (long long)i, slots[i], (long long)most, (long long)a->entries, (long long)a->keys);
    }
    return check_distinct(a, slots, count);
}

static fa_status check_binding(const fa_append *a, const fa_task_binding *binding)
{
    fa_memory memory[FA_APPEND_OPERANDS];
    int count = 0;
    for (int t = 0; t < FA_APPEND_OPERANDS; t++) {
        const bool wanted = a->has_v || (t != FA_APPEND_V && t != FA_APPEND_CACHE_V);
        const fa_buffer *buffer = binding->buffer[t];
        if (!wanted && buffer)
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL: the description has no v", names[t]);
        if (!wanted || (a->span[t] == 0 && !buffer))
            continue;
        FA_TRY(fa_buffer_check(a->device, "args.", names[t], buffer, binding->offset[t],
                               fa_dtype_align(a->tensor[t].dtype), a->span[t]));
        memory[count++] = (fa_memory){
            names[t], fa_buffer_extent(&a->tensor[t], a->span[t], buffer, binding->offset[t]), is_cache(t)};
    }
    FA_TRY(fa_memory_check_overlap(memory, count));
    return check_slots(a, binding);
}

fa_status fa_append_run(const fa_append *append, fa_queue *queue, const fa_append_args *args)
{
    fa_clear_error();
    fa_append_args copy;
    if (!append || !queue || !args)
        return fa_fail(FA_INVALID, "%s is NULL", !append ? "append" : !queue ? "queue" : "args");
    if (queue->device != append->device)
        return fa_fail(FA_INVALID, "queue belongs to device %s, the append to %s", queue->device->info.name,
                       append->device->info.name);
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_APPEND_ARGS_0_1, args, "fa_append_args"));
    const fa_task_binding binding = {
        .buffer = {copy.k, copy.v, copy.cache_k, copy.cache_v, copy.slots},
        .offset = {copy.k_offset, copy.v_offset, copy.cache_k_offset, copy.cache_v_offset, copy.slots_offset},
        .groups = (int32_t)fa_ceil_div(append->params.units, FA_APPEND_SHARE),
    };
    FA_TRY(check_binding(append, &binding));
    if (append->params.units == 0)
        return FA_OK;
    return fa_finish(fa_task_run(&append->task, queue, &binding));
}
