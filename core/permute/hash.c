/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/permute.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"
#include "core/tensor.h"

#include "core/portable/hash.h"

enum { OPERANDS = 2, DRAWS = 12 /* uniform numbers whose sum is nearly normal */ };

struct fa_hash {
    fa_device *device;
    fa_hash_desc desc;
    size_t span[OPERANDS];
    fa_hash_params params;
    char *words; /* the parameters, and behind them the directions */
    size_t bytes;
    int32_t groups; /* 0: there is nothing to do */
    fa_task task;
    bool prepared;
};

static const char *const names[OPERANDS] = {"from", "buckets"};

static fa_status check(fa_hash *h)
{
    fa_hash_desc *d = &h->desc;
    d->directions = d->directions ? d->directions : 7;
    FA_TRY(fa_check_limit("directions", d->directions, 1, FA_HASH_MOST));
    FA_TRY(fa_dtype_check_float(d->from.dtype, "from.dtype"));
    FA_TRY(fa_tensor_normalise(&d->from, "from", false));
    return fa_tensor_extent(&d->from, "from", &h->span[FA_HASH_FROM]);
}

static fa_status fill_params(fa_hash *h)
{
    const int64_t *shape = h->desc.from.shape;
    int64_t lines, numbers;
    if (!fa_mul_i64(shape[0], shape[1], &lines) || !fa_mul_i64(lines, shape[2], &lines) ||
        !fa_mul_i64(shape[3], h->desc.directions, &numbers) || lines > INT32_MAX - FA_HASH_ROWS ||
        numbers > INT32_MAX / 8)
        return fa_fail(
            FA_UNSUPPORTED,
            "from.shape is %lld x %lld x %lld rows of %lld dims: at most %d rows and %d dims are served",
            (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3],
            INT32_MAX - FA_HASH_ROWS, INT32_MAX / 8 / FA_HASH_MOST);
    const int32_t most = h->device->limits.loop_turns;
    if (most > 0 && shape[3] > most / 2 / FA_HASH_MOST)
        return fa_fail(FA_UNSUPPORTED, "from.shape[3] is %lld, but %s ends loops after %d turns",
                       (long long)shape[3], h->device->info.name, most);
    for (int axis = 0; axis < 3; axis++)
        h->params.stride[axis] = h->desc.from.stride[axis];
    h->params.heads = (int)FA_MIN(shape[1], INT32_MAX); /* more only where there are no rows */
    h->params.rows = (int)FA_MIN(shape[2], INT32_MAX);
    h->params.lines = (int)lines;
    h->params.dim = (int)shape[3];
    h->params.directions_at = (int)(sizeof(h->params) / sizeof(float));
    h->span[FA_HASH_BUCKETS] = (size_t)lines * sizeof(int32_t);
    h->groups = (int32_t)fa_ceil_div(lines, FA_HASH_ROWS);
    return FA_OK;
}

/* Number d of direction n, of nearly normal distribution: a whole number, which f32 rounds alike on every machine. */
static float draw(uint64_t seed, int64_t n, int64_t d)
{
    int64_t sum = -((int64_t)DRAWS << 31);
    for (uint64_t i = 0; i < DRAWS; i++)
        sum += (int64_t)(fa_sparse_random(seed, (uint64_t)n, (uint64_t)d, i) >> 32);
    return (float)sum * 0x1p-32f;
}

FA_FLOAT_APART static void draw_directions(const fa_hash_desc *d, float *direction)
{
    for (int64_t n = 0; n < d->from.shape[3] * d->directions; n++)
        direction[n] = draw(d->seed, n % d->directions, n / d->directions);
}

static fa_status write_words(fa_hash *h)
{
    const size_t numbers = (size_t)h->params.dim * (size_t)h->desc.directions;
    h->bytes = sizeof(h->params) + (numbers + 1) / 2 * 2 * sizeof(float);
    h->words = fa_alloc_zeroed(h->device->context, h->bytes);
    if (!h->words)
        return FA_OUT_OF_MEMORY;
    memcpy(h->words, &h->params, sizeof(h->params));
    const fa_float_state state = fa_float_enter();
    draw_directions(&h->desc, (float *)(void *)h->words + h->params.directions_at);
    fa_float_leave(state);
    return FA_OK;
}

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    fa_hash_group(view, group, 0, 1);
}

static fa_status create(fa_hash *h, const fa_hash_desc *given)
{
    FA_TRY(fa_copy_struct(&h->desc, sizeof(h->desc), FA_HASH_DESC_0_1, given, "fa_hash_desc"));
    FA_TRY(check(h));
    FA_TRY(fill_params(h));
    if (h->groups == 0)
        return FA_OK;
    FA_TRY(write_words(h));
    h->task = (fa_task){
        .device = h->device,
        .kind = FA_TASK_HASH,
        .name = "hash",
        .group = FA_HASH_ROWS,
        .constant = {(int32_t)h->desc.from.dtype, h->desc.directions},
        .params = h->words,
        .params_bytes = h->bytes,
        .run = run_group,
    };
    for (int n = 0; n < OPERANDS; n++)
        h->task.operand[n] = (fa_task_operand){names[n], h->span[n], n == FA_HASH_BUCKETS};
    const fa_status status = fa_task_prepare(&h->task);
    h->prepared = status == FA_OK;
    return status;
}

void fa_hash_destroy(fa_hash *hash)
{
    if (!hash)
        return;
    if (hash->prepared)
        fa_task_release(&hash->task);
    fa_release(hash->device->context, hash->words, hash->bytes);
    fa_release(hash->device->context, hash, sizeof(*hash));
}

fa_status fa_hash_create(fa_device *device, const fa_hash_desc *desc, fa_hash **hash)
{
    fa_clear_error();
    if (!hash)
        return fa_fail(FA_INVALID, "hash is NULL, expected where to store the new hash");
    *hash = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_hash *made = fa_alloc_zeroed(device->context, sizeof(*made));
    if (!made)
        return FA_OUT_OF_MEMORY;
    made->device = device;
    const fa_status status = create(made, desc);
    if (status == FA_OK)
        *hash = made;
    else
        fa_hash_destroy(made);
    return fa_finish(status);
}

static fa_status check_binding(const fa_hash *h, const fa_task_binding *binding)
{
    const size_t align[OPERANDS] = {fa_dtype_align(h->desc.from.dtype), sizeof(int32_t)};
    fa_memory memory[OPERANDS];
    for (int n = 0; n < OPERANDS; n++)
        FA_TRY(fa_buffer_check(h->device, "args.", names[n], binding->buffer[n], binding->offset[n], align[n],
                               h->span[n]));
    memory[0] = (fa_memory){
        names[0], fa_buffer_extent(&h->desc.from, h->span[0], binding->buffer[0], binding->offset[0]), false};
    memory[1] =
        (fa_memory){names[1], fa_buffer_bytes(h->span[1], binding->buffer[1], binding->offset[1]), true};
    return fa_memory_check_overlap(memory, OPERANDS);
}

fa_status fa_hash_run(const fa_hash *hash, fa_queue *queue, const fa_hash_args *args)
{
    fa_clear_error();
    fa_hash_args a;
    FA_TRY(fa_call_check("hash", hash, hash ? hash->device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_HASH_ARGS_0_1, args, "fa_hash_args"));
    const fa_task_binding binding = {
        .buffer = {a.from, a.buckets},
        .offset = {a.from_offset, a.buckets_offset},
        .groups = hash->groups,
    };
    if (hash->groups == 0)
        return fa_finish(FA_OK);
    FA_TRY(check_binding(hash, &binding));
    const fa_float_state state = fa_float_enter();
    const fa_status status = fa_task_run(&hash->task, queue, &binding);
    fa_float_leave(state);
    return fa_finish(status);
}
