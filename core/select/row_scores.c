/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "core/attention/checks.h"
#include "core/binding.h"
#include "core/device.h"
#include "core/floating.h"
#include "core/select/step.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/task_words.h"

#include "core/portable/row_scores.h"

enum { GROUP = 256 };

struct fa_row_scores {
    fa_step step;
    fa_row_scores_params params;
};

static const char *const names[] = {"q", "k", "weights", "scores"};

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    int shared[FA_STAGE_COLUMN(FA_TILE_DIMS)];
    fa_task_view own = *view;
    own.shared = shared;
    fa_row_scores_group(&own, group, 0, 1);
}

static fa_status check_axis(const char *name, const fa_tensor *t, int axis, int64_t expected, const char *of)
{
    return t->shape[axis] == expected ? FA_OK
                                      : fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %lld, %s", name,
                                                axis, (long long)t->shape[axis], (long long)expected, of);
}

static fa_status check(fa_row_scores_desc *d, fa_visible_rule *rule, size_t span[])
{
    FA_TRY(fa_step_rule(&d->shape, rule));
    FA_TRY(fa_step_tensor(&d->q, "q", &span[FA_ROW_SCORES_Q]));
    FA_TRY(fa_step_tensor(&d->k, "k", &span[FA_ROW_SCORES_K]));
    FA_TRY(check_axis("q", &d->q, 2, fa_ceil_div(d->shape.rows, d->shape.block_rows),
                      "the rows of the shape in blocks"));
    FA_TRY(check_axis("k", &d->k, 2, rule->columns, "the keys of the shape in blocks"));
    FA_TRY(check_axis("k", &d->k, 0, d->q.shape[0], "as q"));
    FA_TRY(check_axis("k", &d->k, 3, d->q.shape[3], "as q"));
    FA_TRY(fa_check_limit("q.shape[3]", d->q.shape[3], 1, FA_MAX_LENGTH));
    if (d->k.shape[1] == 0 ? d->q.shape[1] != 0 : d->q.shape[1] % d->k.shape[1] != 0)
        return fa_fail(FA_INVALID, "q.shape[1] is %lld, expected a multiple of k.shape[1], %lld",
                       (long long)d->q.shape[1], (long long)d->k.shape[1]);
    if (!isfinite(d->scale) || !isfinite((float)d->scale))
        return fa_fail(FA_INVALID, "scale is %g, expected a finite number", d->scale);
    return fa_check_limit("weighted", d->weighted, 0, 1);
}

static fa_status fill_params(fa_row_scores *s, const fa_row_scores_desc *d, const fa_visible_rule *rule)
{
    const int64_t *q = d->q.shape, down = fa_ceil_div(q[2], FA_TILE_ROWS),
                  across = fa_ceil_div(rule->columns, FA_TILE_COLUMNS);
    int64_t lines;
    if (!fa_mul_i64(q[0], d->weighted && q[1] > 0 ? 1 : q[1], &lines) || lines > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED, "q.shape is %lld x %lld heads: at most %d are served", (long long)q[0],
                       (long long)q[1], INT32_MAX);
    FA_TRY(fa_step_groups(&s->step, lines, down * across));
    s->params = (fa_row_scores_params){
        .q_stride = {d->q.stride[0], d->q.stride[1], d->q.stride[2]},
        .k_stride = {d->k.stride[0], d->k.stride[1], d->k.stride[2]},
        .rule = *rule,
        .heads = (int)q[1],
        .group = q[1] > 0 ? (int)(q[1] / d->k.shape[1]) : 1,
        .rows = (int)q[2],
        .dim = (int)q[3],
        .row_tiles = (int)down,
        .column_tiles = (int)across,
        .lines = (int)lines,
        .scale = (float)(d->scale != 0 ? d->scale : 1 / sqrt((double)q[3])),
    };
    return FA_OK;
}

/* Of the staging and the products of each patch, as GPUs have it. */
static fa_status check_turns(const fa_step *step, const fa_row_scores_desc *d)
{
    const int64_t items = fa_step_items(step), steps = fa_ceil_div(d->q.shape[3], FA_TILE_DIMS),
                  heads = d->weighted ? d->q.shape[1] : 1, patches = fa_ceil_div(256, items),
                  patch = 8 + 4 + 8 * 5,
                  staged =
                      (FA_TILE_ROWS + FA_TILE_COLUMNS) * FA_STAGE_PARTS / items * (1 + 2 * FA_STAGE_DIMS);
    int64_t turns;
    if (!fa_mul_i64(steps * (staged + FA_TILE_DIMS * (1 + patch)) + 3 * patch, patches, &turns) ||
        !fa_mul_i64(turns, FA_MAX(heads, 1), &turns))
        turns = INT64_MAX;
    return fa_step_check_turns(step, turns);
}

static fa_status init(fa_step *step, const void *desc)
{
    fa_row_scores *s = (fa_row_scores *)(void *)step;
    fa_row_scores_desc d;
    fa_visible_rule rule;
    size_t span[2], weights, scores;
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_ROW_SCORES_DESC_0_1, desc, "fa_row_scores_desc"));
    FA_TRY(check(&d, &rule, span));
    FA_TRY(fill_params(s, &d, &rule));
    FA_TRY(fa_step_size("weights", d.q.shape[0], d.q.shape[2], d.q.shape[1], sizeof(float), &weights));
    FA_TRY(fa_step_size("scores", s->params.lines, d.q.shape[2], rule.columns, sizeof(float), &scores));
    step->names = names;
    step->operands = sizeof(names) / sizeof(names[0]);
    step->task.kind = FA_TASK_ROW_SCORES;
    step->task.name = "row_scores";
    step->task.group = GROUP;
    step->task.constant[0] = (int32_t)d.q.dtype;
    step->task.constant[1] = (int32_t)d.k.dtype;
    step->task.constant[2] = d.weighted;
    step->task.params = &s->params;
    step->task.params_bytes = sizeof(s->params);
    step->task.run = run_group;
    fa_step_operand(step, FA_ROW_SCORES_Q, span[FA_ROW_SCORES_Q], fa_dtype_align(d.q.dtype), false);
    fa_step_operand(step, FA_ROW_SCORES_K, span[FA_ROW_SCORES_K], fa_dtype_align(d.k.dtype), false);
    if (d.weighted)
        fa_step_operand(step, FA_ROW_SCORES_WEIGHTS, weights, sizeof(float), false);
    fa_step_operand(step, FA_ROW_SCORES_OUT, scores, sizeof(float), true);
    return check_turns(step, &d);
}

fa_status fa_row_scores_create(fa_device *device, const fa_row_scores_desc *desc, fa_row_scores **scores)
{
    return fa_step_create(device, "scores", sizeof(fa_row_scores), init, desc, (void **)scores);
}

void fa_row_scores_destroy(fa_row_scores *scores)
{
    fa_step_destroy(scores ? &scores->step : NULL);
}

fa_status fa_row_scores_run(const fa_row_scores *scores, fa_queue *queue, const fa_row_scores_args *args)
{
    fa_row_scores_args a;
    fa_clear_error();
    FA_TRY(fa_call_check("scores", scores, scores ? scores->step.task.device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_ROW_SCORES_ARGS_0_1, args, "fa_row_scores_args"));
    fa_task_binding binding = {.buffer = {a.q, a.k, a.weights, a.scores},
                               .offset = {a.q_offset, a.k_offset, a.weights_offset, a.scores_offset}};
    return fa_step_run(&scores->step, queue, &binding);
}
