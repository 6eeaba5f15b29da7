/* SPDX-License-Identifier: Apache-2.0 */
#include "core/append/append.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/append/rotary.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/scales.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static const char *const names[] = {
    [FA_APPEND_K] = "k",
    [FA_APPEND_V] = "v",
    [FA_APPEND_CACHE_K] = "cache_k",
    [FA_APPEND_CACHE_V] = "cache_v",
    [FA_APPEND_SLOTS] = "slots",
    [FA_APPEND_Q] = "q",
    [FA_APPEND_Q_OUT] = "q_out",
    [FA_APPEND_POSITIONS] = "positions",
    [FA_APPEND_COSINES] = "cosines",
    [FA_APPEND_SINES] = "sines",
    [FA_APPEND_K_SCALE] = "k_scale",
    [FA_APPEND_V_SCALE] = "v_scale",
    [FA_APPEND_K_ZERO] = "k_zero",
    [FA_APPEND_V_ZERO] = "v_zero",
};

static bool is_cache(int operand)
{
    return operand == FA_APPEND_CACHE_K || operand == FA_APPEND_CACHE_V;
}

/* An operand that is written: no two of its elements share memory. */
static fa_status check_written(fa_append *a, int operand)
{
    const fa_tensor *t = &a->tensor[operand];
    a->written[operand] = true;
    if (fa_tensor_is_injective(t))
        return FA_OK;
    return fa_fail(FA_INVALID, "%s.stride is (%lld, %lld, %lld, %lld): elements of %s overlap",
                   names[operand], (long long)t->stride[0], (long long)t->stride[1], (long long)t->stride[2],
                   (long long)t->stride[3], names[operand]);
}

static fa_status check_tensor(fa_append *a, int operand)
{
    fa_tensor *t = &a->tensor[operand];
    char field[16];
    (void)snprintf(field, sizeof(field), "%s.dtype", names[operand]);
    FA_TRY(is_cache(operand) ? fa_dtype_check_cache(t->dtype, field) : fa_dtype_check_float(t->dtype, field));
    FA_TRY(fa_tensor_normalise(t, names[operand], false));
    FA_TRY(fa_tensor_extent(t, names[operand], &a->span[operand]));
    if (t->dtype == FA_U1 || t->dtype == FA_U2U1)
        return fa_fail(FA_UNSUPPORTED, "%s is %s: appends write no codes of one bit", field,
                       fa_dtype_name(t->dtype));
    if (operand == FA_APPEND_CACHE_V && FA_TYPE_IS_MLA((int)t->dtype))
        return fa_fail(FA_INVALID, "cache_v.dtype is %s, expected no v: it is the first %d dims of k",
                       fa_dtype_name(t->dtype), FA_MLA_LATENT);
    FA_TRY(fa_tensor_check_row(t, names[operand], FA_MLA_DIMS));
    return is_cache(operand) || operand == FA_APPEND_Q_OUT ? check_written(a, operand) : FA_OK;
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

/* An operand without axes of its own: so many lines, contiguous. */
static fa_status add_list(fa_append *a, int operand, fa_dtype dtype, int64_t lines, int64_t entries)
{
    a->has[operand] = true;
    a->tensor[operand] = fa_tensor_make(dtype, lines, 1, 1, entries);
    FA_TRY(fa_tensor_normalise(&a->tensor[operand], names[operand], false));
    return fa_tensor_extent(&a->tensor[operand], names[operand], &a->span[operand]);
}

static fa_status add_tensor(fa_append *a, int operand, const fa_tensor *given)
{
    a->has[operand] = true;
    a->tensor[operand] = *given;
    FA_TRY(check_tensor(a, operand));
    FA_TRY(check_limit(operand, 3, a->tensor[operand].shape[3], 1, FA_MAX_HEAD_DIM));
    return check_limit(operand, 1, a->tensor[operand].shape[1], 0, 1 << 20);
}

/* Two tensors that the description may leave out together. */
static fa_status add_both(fa_append *a, int first, const fa_tensor *given, int second, const fa_tensor *other)
{
    if (fa_tensor_is_absent(given) && fa_tensor_is_absent(other))
        return FA_OK;
    FA_TRY(add_tensor(a, first, given));
    return add_tensor(a, second, other);
}

static fa_status init_rotary(fa_append *a, const fa_append_desc *d)
{
    a->rotary = d->rotary;
    FA_TRY(fa_rotary_check(&a->rotary, a->tensor[FA_APPEND_K].shape[3]));
    FA_TRY(add_both(a, FA_APPEND_Q, &d->q, FA_APPEND_Q_OUT, &d->q_out));
    if (a->rotary.form == FA_ROTARY_NONE && a->has[FA_APPEND_Q])
        return fa_fail(FA_INVALID, "rotary.form is 0, expected a form: the description has q");
    for (int axis = 0; axis < 4 && a->has[FA_APPEND_Q]; axis++) {
        if (axis != 1)
            FA_TRY(check_same(a, FA_APPEND_Q, FA_APPEND_K, axis));
        FA_TRY(check_same(a, FA_APPEND_Q_OUT, FA_APPEND_Q, axis));
    }
    a->heads_q = a->has[FA_APPEND_Q] ? a->tensor[FA_APPEND_Q].shape[1] : 0;
    if (a->rotary.form == FA_ROTARY_NONE)
        return FA_OK;
    if (FA_TYPE_IS_MLA((int)a->tensor[FA_APPEND_CACHE_K].dtype))
        return fa_fail(FA_INVALID,
                       "rotary.form is %d, expected 0 with cache_k.dtype %s: its rows come rotated",
                       (int)a->rotary.form, fa_dtype_name(a->tensor[FA_APPEND_CACHE_K].dtype));
    FA_TRY(add_list(a, FA_APPEND_POSITIONS, FA_I32, a->batch, a->rows));
    if (a->rotary.table_positions == 0)
        return FA_OK;
    FA_TRY(add_list(a, FA_APPEND_COSINES, FA_F32, a->rotary.table_positions, a->rotary.dims / 2));
    return add_list(a, FA_APPEND_SINES, FA_F32, a->rotary.table_positions, a->rotary.dims / 2);
}

/* The operands that hold scales and zeros of a cache. */
static int scale_of(int cache)
{
    return cache == FA_APPEND_CACHE_K ? FA_APPEND_K_SCALE : FA_APPEND_V_SCALE;
}

static int zero_of(int cache)
{
    return cache == FA_APPEND_CACHE_K ? FA_APPEND_K_ZERO : FA_APPEND_V_ZERO;
}

/* Whether scales are computed, and of what: each key has its own, or all share them. */
static fa_status find_fits(const fa_append *a, int cache, const char *factor, const fa_scales *s, int *fits)
{
    const int operand = scale_of(cache);
    const int64_t *of = a->tensor[cache].shape, *shape = a->tensor[operand].shape;
    *fits = FA_APPEND_FITS_NONE;
    if (shape[0] == of[0] && shape[2] == of[2])
        *fits = shape[1] == of[1] ? FA_APPEND_FITS_HEAD : FA_APPEND_FITS_ROW;
    else if (shape[0] != 1 || shape[2] != 1)
        return fa_fail(FA_INVALID,
                       "%s.shape is (%lld, %lld, %lld, %lld): groups of keys share scales, expected (%lld, "
                       "..., %lld, ...), one of each key, or (1, ..., 1, ...), the same for all",
                       names[operand], (long long)shape[0], (long long)shape[1], (long long)shape[2],
                       (long long)shape[3], (long long)of[0], (long long)of[2]);
    if (*fits != FA_APPEND_FITS_NONE && s->dims % 8 != 0)
        return fa_fail(FA_INVALID,
                       "%s.shape[3] is %lld, groups of %d dims, expected groups of a multiple of 8",
                       names[operand], (long long)shape[3], s->dims);
    if (*fits != FA_APPEND_FITS_NONE && s->factor < 0)
        return fa_fail(FA_INVALID, "%s is %g, expected a number above 0: scales are computed", factor,
                       (double)s->factor);
    return FA_OK;
}

static fa_status init_scales(fa_append *a, int cache, const fa_tensor *scale, const fa_tensor *zero,
                             float factor, const char *factor_name, fa_scales *s, int *fits)
{
    const int part[2] = {scale_of(cache), zero_of(cache)};
    const fa_scaled_names of = {names[cache], names[part[0]], names[part[1]], factor_name};
    a->tensor[part[0]] = *scale;
    a->tensor[part[1]] = *zero;
    FA_TRY(fa_scales_check(&of, &a->tensor[cache], &a->tensor[part[0]], &a->tensor[part[1]], factor, s));
    if (s->scale_type < 0)
        return FA_OK;
    FA_TRY(find_fits(a, cache, factor_name, s, fits));
    for (int i = 0; i < (s->zero_type < 0 ? 1 : 2); i++) {
        a->has[part[i]] = true;
        FA_TRY(fa_tensor_extent(&a->tensor[part[i]], names[part[i]], &a->span[part[i]]));
        if (*fits != FA_APPEND_FITS_NONE)
            FA_TRY(check_written(a, part[i]));
    }
    return FA_OK;
}

static fa_status init(fa_append *a, const fa_append_desc *d)
{
    fa_append_params *p = &a->words.params;
    FA_TRY(add_tensor(a, FA_APPEND_K, &d->k));
    FA_TRY(add_tensor(a, FA_APPEND_CACHE_K, &d->cache_k));
    FA_TRY(add_both(a, FA_APPEND_V, &d->v, FA_APPEND_CACHE_V, &d->cache_v));
    const bool has_v = a->has[FA_APPEND_V];
    const int64_t *k = a->tensor[FA_APPEND_K].shape, *cache = a->tensor[FA_APPEND_CACHE_K].shape;
    FA_TRY(check_same(a, FA_APPEND_CACHE_K, FA_APPEND_K, 1));
    FA_TRY(check_same(a, FA_APPEND_CACHE_K, FA_APPEND_K, 3));
    for (int axis = 0; axis < 3 && has_v; axis++) {
        FA_TRY(check_same(a, FA_APPEND_V, FA_APPEND_K, axis));
        FA_TRY(check_same(a, FA_APPEND_CACHE_V, FA_APPEND_CACHE_K, axis));
    }
    if (has_v)
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
    FA_TRY(add_list(a, FA_APPEND_SLOTS, FA_I32, a->batch, a->rows));
    FA_TRY(init_scales(a, FA_APPEND_CACHE_K, &d->k_scale, &d->k_zero, d->k_factor, "k_factor", &p->k_scales,
                       &p->k_fits));
    FA_TRY(init_scales(a, FA_APPEND_CACHE_V, &d->v_scale, &d->v_zero, d->v_factor, "v_factor", &p->v_scales,
                       &p->v_fits));
    return init_rotary(a, d);
}

/* Units of a row. One that keeps some of its elements is one. */
static int units_of(const fa_tensor *cache)
{
    const int type = (int)cache->dtype;
    return FA_TYPE_PRUNES(type) ? 1 : (int)fa_ceil_div(cache->shape[3], FA_APPEND_UNIT(type));
}

/* *units = heads of all rows * units of each, in what an int holds. */
static bool count_units(const fa_append *a, int64_t heads, int64_t of_head, int *units)
{
    int64_t count = of_head;
    const bool fits = fa_mul_i64(count, a->batch, &count) && fa_mul_i64(count, a->rows, &count) &&
                      fa_mul_i64(count, heads, &count) && count <= INT32_MAX / 2 - FA_APPEND_SHARE;
    *units = fits ? (int)count : 0;
    return fits;
}

static void fill_rotary(fa_append *a)
{
    fa_append_params *p = &a->words.params;
    const fa_rotary *r = &a->rotary;
    p->rotary_dims = r->form == FA_ROTARY_NONE ? 0 : r->dims;
    p->rotary_first = r->form == FA_ROTARY_NONE ? 0 : r->first_dim;
    p->pairs = p->rotary_dims / 2;
    p->turns_at = (int)(offsetof(fa_append_words, turn) / sizeof(fa_turn));
    p->table_positions = r->form == FA_ROTARY_NONE ? 0 : r->table_positions;
    p->gain = (float)r->attention_factor;
    for (int i = 0; i < p->pairs && p->table_positions == 0; i++)
        a->words.turn[i] = fa_rotary_turn(r, i);
}

static fa_status fill_params(fa_append *a)
{
    const fa_tensor *t = a->tensor;
    fa_append_params *p = &a->words.params;
    int units_q;
    for (int axis = 0; axis < 3; axis++) {
        p->k_stride[axis] = t[FA_APPEND_K].stride[axis];
        p->v_stride[axis] = t[FA_APPEND_V].stride[axis];
        p->cache_k_stride[axis] = t[FA_APPEND_CACHE_K].stride[axis];
        p->cache_v_stride[axis] = t[FA_APPEND_CACHE_V].stride[axis];
        p->q_stride[axis] = t[FA_APPEND_Q].stride[axis];
        p->q_out_stride[axis] = t[FA_APPEND_Q_OUT].stride[axis];
    }
    p->batch = (int)a->batch;
    p->heads = (int)a->heads;
    p->rows = (int)a->rows;
    p->entries = (int)a->entries;
    p->keys = (int)a->keys;
    p->dim_k = (int)t[FA_APPEND_K].shape[3];
    p->dim_v = (int)t[FA_APPEND_V].shape[3];
    p->units_k = units_of(&t[FA_APPEND_CACHE_K]);
    p->units_v = units_of(&t[FA_APPEND_CACHE_V]);
    p->units_q = (int)fa_ceil_div(p->dim_k, FA_APPEND_UNIT(0));
    p->heads_q = (int)a->heads_q;
    if (!count_units(a, a->heads, p->units_k, &p->end_k) ||
        !count_units(a, a->heads, p->units_k + p->units_v, &p->end_v) ||
        !count_units(a, a->heads_q, p->units_q, &units_q))
        return fa_fail(FA_UNSUPPORTED, "k.shape is (%lld, %lld, %lld, %d): too many rows for one append",
                       (long long)a->batch, (long long)a->heads, (long long)a->rows, p->dim_k);
    p->units = p->end_v + units_q;
    fill_rotary(a);
    return FA_OK;
}

static void run_group(const fa_task_view *view, int group)
{
    fa_append_group(view, group, 0, 1);
}

static void fill_task(fa_append *a)
{
    const bool scaled = a->has[FA_APPEND_K_SCALE] || a->has[FA_APPEND_V_SCALE] ||
                        FA_TYPE_IS_ROW((int)a->tensor[FA_APPEND_CACHE_K].dtype) ||
                        FA_TYPE_IS_ROW((int)a->tensor[FA_APPEND_CACHE_V].dtype);
    a->task = (fa_task){
        .device = a->device,
        .kind = scaled ? FA_TASK_APPEND_SCALED : FA_TASK_APPEND,
        .name = scaled ? "append_scaled" : "append",
        .group = FA_APPEND_SHARE,
        .timed = true,
        .params = &a->words,
        .params_bytes = sizeof(a->words),
        .run = run_group,
    };
    const fa_tensor *t = a->tensor;
    const int type_q = a->has[FA_APPEND_Q] ? (int)t[FA_APPEND_Q].dtype : FA_APPEND_NO_Q;
    a->task.constant[0] = (int)t[FA_APPEND_K].dtype | type_q << 4 | (int)t[FA_APPEND_Q_OUT].dtype << 8;
    a->task.constant[1] = (int)t[FA_APPEND_V].dtype | (int)a->rotary.form << 4;
    const fa_scales *k = &a->words.params.k_scales, *v = &a->words.params.v_scales;
    a->task.constant[2] = FA_APPEND_CACHE((int)t[FA_APPEND_CACHE_K].dtype, k->scale_type, k->zero_type);
    a->task.constant[3] = FA_APPEND_CACHE((int)t[FA_APPEND_CACHE_V].dtype, v->scale_type, v->zero_type);
    for (int n = 0; n < FA_APPEND_OPERANDS; n++) {
        if (a->has[n])
            a->task.operand[n] = (fa_task_operand){names[n], a->span[n], a->written[n]};
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

/* Names the entries, of which two hold the slot. */
static fa_status refuse_twice(const int32_t *slots, int64_t count, int32_t slot)
{
    int64_t first = 0, second;
    while (first < count && slots[first] != slot)
        first++;
    for (second = first + 1; second < count && slots[second] != slot; second++)
        continue;
    return fa_fail(FA_INVALID, "slots[%lld] is %d, expected another than slots[%lld]: a slot is one row's",
                   (long long)second, slot, (long long)first);
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
            status = refuse_twice(slots, count, sorted[i]);
    }
    if (sorted != few)
        fa_release(context, sorted, bytes);
    return status;
}

/* A list of the host's, an entry for each row. */
static const int32_t *list_of(const fa_task_binding *binding, int operand)
{
    return (const void *)((const char *)binding->buffer[operand]->address + binding->offset[operand]);
}

static fa_status check_slots(const fa_append *a, const fa_task_binding *binding)
{
    const int64_t count = a->batch * a->rows, most = a->entries * a->keys;
    const int32_t *slots = list_of(binding, FA_APPEND_SLOTS);
    for (int64_t i = 0; i < count; i++) {
        if (slots[i] >= most)
            return fa_fail(
                FA_INVALID, "slots[%lld] is %d, expected less than %lld: %lld entries of %lld keys",
                (long long)i, slots[i], (long long)most, (long long)a->entries, (long long)a->keys);
    }
    return check_distinct(a, slots, count);
}

static fa_status check_positions(const fa_append *a, const fa_task_binding *binding)
{
    const int64_t count = a->batch * a->rows;
    const int32_t *positions = list_of(binding, FA_APPEND_POSITIONS), most = a->rotary.table_positions;
    for (int64_t i = 0; i < count; i++) {
        if (positions[i] < 0)
            return fa_fail(FA_INVALID, "positions[%lld] is %d, expected 0 or more", (long long)i,
                           positions[i]);
        if (most > 0 && positions[i] >= most)
            return fa_fail(FA_INVALID, "positions[%lld] is %d, expected less than %d, rotary.table_positions",
                           (long long)i, positions[i], most);
    }
    return FA_OK;
}

static fa_status check_binding(const fa_append *a, const fa_task_binding *binding)
{
    fa_memory memory[FA_APPEND_OPERANDS];
    int count = 0;
    for (int t = 0; t < FA_APPEND_OPERANDS; t++) {
        const fa_buffer *buffer = binding->buffer[t];
        if (!a->has[t] && buffer)
            return fa_fail(FA_INVALID, "args.%s is given, expected NULL: the description has none", names[t]);
        if (!a->has[t] || (a->span[t] == 0 && !buffer))
            continue;
        FA_TRY(fa_buffer_check(a->device, "args.", names[t], buffer, binding->offset[t],
                               fa_dtype_align(a->tensor[t].dtype), a->span[t]));
        memory[count++] = (fa_memory){
            names[t], fa_buffer_extent(&a->tensor[t], a->span[t], buffer, binding->offset[t]), a->written[t]};
    }
    FA_TRY(fa_memory_check_overlap(memory, count));
    if (!a->device->backend->host_pointers || a->batch * a->rows == 0)
        return FA_OK;
    FA_TRY(check_slots(a, binding));
    return a->has[FA_APPEND_POSITIONS] ? check_positions(a, binding) : FA_OK;
}

fa_status fa_append_run(const fa_append *append, fa_queue *queue, const fa_append_args *args)
{
    fa_clear_error();
    fa_append_args copy;
    FA_TRY(fa_call_check("append", append, append ? append->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&copy, sizeof(copy), FA_APPEND_ARGS_0_1, args, "fa_append_args"));
    const fa_task_binding binding = {
        .buffer = {copy.k, copy.v, copy.cache_k, copy.cache_v, copy.slots, copy.q, copy.q_out, copy.positions,
                   copy.cosines, copy.sines, copy.k_scale, copy.v_scale, copy.k_zero, copy.v_zero},
        .offset = {copy.k_offset, copy.v_offset, copy.cache_k_offset, copy.cache_v_offset, copy.slots_offset,
                   copy.q_offset, copy.q_out_offset, copy.positions_offset, copy.cosines_offset,
                   copy.sines_offset, copy.k_scale_offset, copy.v_scale_offset, copy.k_zero_offset,
                   copy.v_zero_offset},
        .groups = (int32_t)fa_ceil_div(append->words.params.units, FA_APPEND_SHARE),
    };
    FA_TRY(check_binding(append, &binding));
    if (append->words.params.units == 0)
        return FA_OK;
    return fa_finish(fa_task_run(&append->task, queue, &binding));
}
