/* SPDX-License-Identifier: Apache-2.0 */
#include "core/select/step.h"

#include <string.h>

#include "core/backend.h"
#include "core/binding.h"
#include "core/context.h"
#include "core/device.h"
#include "core/size.h"
#include "core/sparse/mask.h"
#include "core/status.h"
#include "core/tensor.h"

enum { LEAST_GROUP = 64 }; /* no device has smaller ones */

static fa_status make(fa_step *step, fa_step_init init, const void *desc)
{
    FA_TRY(init(step, desc));
    return fa_task_prepare(&step->task);
}

fa_status fa_step_create(fa_device *device, const char *object, size_t bytes, fa_step_init init,
                         const void *desc, void **made)
{
    fa_clear_error();
    if (!made)
        return fa_fail(FA_INVALID, "%s is NULL, expected where to store the new object", object);
    *made = NULL;
    if (!device || !desc)
        return fa_fail(FA_INVALID, "%s is NULL", device ? "desc" : "device");
    fa_step *step = fa_alloc_zeroed(device->context, bytes);
    if (!step)
        return FA_OUT_OF_MEMORY;
    step->bytes = bytes;
    step->task.device = device;
    const fa_status status = make(step, init, desc);
    if (status == FA_OK)
        *made = step;
    else
        fa_release(device->context, step, bytes);
    return fa_finish(status);
}

void fa_step_destroy(fa_step *step)
{
    if (!step)
        return;
    fa_task_release(&step->task);
    fa_release(step->task.device->context, step, step->bytes);
}

void fa_step_operand(fa_step *step, int n, size_t span, size_t size, bool written)
{
    step->task.operand[n] = (fa_task_operand){step->names[n], span, written};
    step->align[n] = size;
}

fa_status fa_step_groups(fa_step *step, int64_t a, int64_t b)
{
    int64_t groups;
    if (!fa_mul_i64(a, b, &groups) || groups > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED, "%lld times %lld pieces of work: at most %d are served", (long long)a,
                       (long long)b, INT32_MAX);
    step->groups = (int32_t)groups;
    return FA_OK;
}

int fa_step_items(const fa_step *step)
{
    return FA_MIN(step->task.group, LEAST_GROUP);
}

fa_status fa_step_check_turns(const fa_step *step, int64_t turns)
{
    const fa_device *device = step->task.device;
    const int32_t most = device->limits.loop_turns;
    if (most > 0 && turns > most - 64)
        return fa_fail(FA_UNSUPPORTED, "%s takes %lld turns of loops, but %s ends loops after %d",
                       step->task.name, (long long)turns, device->info.name, most);
    return FA_OK;
}

static fa_status check_operand(const fa_step *step, const fa_task_binding *binding, int n)
{
    const fa_task_operand *o = &step->task.operand[n];
    const fa_buffer *buffer = binding->buffer[n];
    if (!o->name && buffer)
        return fa_fail(FA_INVALID, "args.%s is given, expected NULL: the description has none",
                       step->names[n]);
    if (!o->name || (o->span == 0 && !buffer))
        return FA_OK;
    return fa_buffer_check(step->task.device, "args.", o->name, buffer, binding->offset[n], step->align[n],
                           o->span);
}

fa_status fa_step_run(const fa_step *step, fa_queue *queue, fa_task_binding *binding)
{
    for (int n = 0; n < step->operands; n++)
        FA_TRY(check_operand(step, binding, n));
    FA_TRY(fa_task_check_overlap(&step->task, binding));
    binding->groups = step->groups;
    return step->groups > 0 ? fa_finish(fa_task_run(&step->task, queue, binding)) : FA_OK;
}

fa_status fa_step_size(const char *what, int64_t a, int64_t b, int64_t c, int64_t d, size_t *bytes)
{
    int64_t count;
    *bytes = 0;
    if (!fa_mul_i64(a, b, &count) || !fa_mul_i64(count, c, &count) ||
        !fa_grow(bytes, (size_t)count, (size_t)d))
        return fa_fail(FA_OUT_OF_MEMORY, "%s of %lld x %lld x %lld elements overflow memory", what,
                       (long long)a, (long long)b, (long long)c);
    return FA_OK;
}

fa_status fa_step_rule(fa_sparse_shape *s, fa_visible_rule *rule)
{
    FA_TRY(fa_shape_check(s, 1));
    *rule = (fa_visible_rule){
        .rows = (int)s->rows,
        .block_rows = s->block_rows,
        .block_keys = s->block_keys,
        .columns = (int)fa_ceil_div(s->keys, s->block_keys),
        .diagonal = s->mask == FA_MASK_CAUSAL_TOP_LEFT ? 0 : (int)(s->keys - s->rows),
        .causal = s->mask != FA_MASK_NONE,
    };
    return FA_OK;
}

fa_status fa_step_tensor(fa_tensor *tensor, const char *name, size_t *span)
{
    char field[16] = "";
    (void)strcat(strcat(field, name), ".dtype");
    FA_TRY(fa_dtype_check_float(tensor->dtype, field));
    FA_TRY(fa_tensor_normalise(tensor, name, false));
    FA_TRY(fa_tensor_extent(tensor, name, span));
    for (int axis = 0; axis < 4; axis++) {
        if (tensor->shape[axis] > FA_TASK_MOST)
            return fa_fail(FA_UNSUPPORTED, "%s.shape[%d] is %lld, at most %d is served", name, axis,
                           (long long)tensor->shape[axis], FA_TASK_MOST);
    }
    return FA_OK;
}
