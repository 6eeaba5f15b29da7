/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/checks.h"
#include "core/binding.h"
#include "core/device.h"
#include "core/floating.h"
#include "core/select/step.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"

#include "core/portable/pool.h"

enum { GROUP = 128 };

struct fa_pooling {
    fa_step step;
    fa_pooling_params params;
};

static const char *const names[] = {"x", "means"};

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    fa_pooling_group(view, group, 0, 1);
}

static fa_status fill_params(fa_pooling *p, const fa_pooling_desc *d)
{
    const int64_t *shape = d->x.shape, chunks = fa_ceil_div(shape[2], d->chunk);
    int64_t lines;
    if (!fa_mul_i64(shape[0], shape[1], &lines))
        return fa_fail(FA_OUT_OF_MEMORY, "x.shape is %lld x %lld heads, which overflow memory",
                       (long long)shape[0], (long long)shape[1]);
    FA_TRY(fa_step_groups(&p->step, lines, shape[3] > 0 ? chunks : 0));
    if (p->step.groups == 0)
        return FA_OK;
    p->params = (fa_pooling_params){
        .stride = {d->x.stride[0], d->x.stride[1], d->x.stride[2]},
        .heads = (int)shape[1],
        .tokens = (int)shape[2],
        .dim = (int)shape[3],
        .chunk = (int)d->chunk,
        .chunks = (int)chunks,
        .lines = (int)lines,
        .whole = 1.0f / (float)d->chunk,
        .last = 1.0f / (float)(shape[2] - (chunks - 1) * d->chunk),
    };
    return FA_OK;
}

static fa_status init(fa_step *step, const void *desc)
{
    fa_pooling *p = (fa_pooling *)(void *)step;
    fa_pooling_desc d;
    size_t span, means;
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_POOLING_DESC_0_1, desc, "fa_pooling_desc"));
    FA_TRY(fa_step_tensor(&d.x, "x", &span));
    FA_TRY(fa_check_limit("chunk", d.chunk, 1, FA_MAX_LENGTH));
    FA_TRY(fill_params(p, &d));
    FA_TRY(fa_step_size("means", p->step.groups, d.x.shape[3], 1, sizeof(float), &means));
    step->names = names;
    step->operands = sizeof(names) / sizeof(names[0]);
    step->task.kind = FA_TASK_POOL;
    step->task.name = "pool";
    step->task.group = GROUP;
    step->task.constant[0] = (int32_t)d.x.dtype;
    step->task.params = &p->params;
    step->task.params_bytes = sizeof(p->params);
    step->task.run = run_group;
    fa_step_operand(step, FA_POOL_X, span, fa_dtype_align(d.x.dtype), false);
    fa_step_operand(step, FA_POOL_MEANS, means, sizeof(float), true);
    return fa_step_check_turns(step, fa_ceil_div(d.x.shape[3], fa_step_items(step)) *
                                         (2 * FA_MIN(d.chunk, d.x.shape[2]) + 3));
}

fa_status fa_pooling_create(fa_device *device, const fa_pooling_desc *desc, fa_pooling **pooling)
{
    return fa_step_create(device, "pooling", sizeof(fa_pooling), init, desc, (void **)pooling);
}

void fa_pooling_destroy(fa_pooling *pooling)
{
    fa_step_destroy(pooling ? &pooling->step : NULL);
}

fa_status fa_pooling_run(const fa_pooling *pooling, fa_queue *queue, const fa_pooling_args *args)
{
    fa_pooling_args a;
    fa_clear_error();
    FA_TRY(
        fa_call_check("pooling", pooling, pooling ? pooling->step.task.device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_POOLING_ARGS_0_1, args, "fa_pooling_args"));
    fa_task_binding binding = {.buffer = {a.x, a.means}, .offset = {a.x_offset, a.means_offset}};
    return fa_step_run(&pooling->step, queue, &binding);
}
