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

#include "core/portable/select.h"

/* Work-items of a group, and where the best are few; of so many rows a list has a group then; of more weights sums do not fit. */
enum { GROUP = 256, FEW_GROUP = 64, MANY_ROWS = 32, MOST_WEIGHTS = 1 << 17 };

/* Of a threshold: whatever part this is of a weight, it is above 0 in f32, and no subnormal number. */
static const float LEAST_PART = 0x1p-60f;

_Static_assert(FA_SELECT_ITEMS_AT + GROUP <= FA_SELECT_SHARED, "task.h has room for what is shared");

struct fa_select {
    fa_step step;
    fa_select_params params;
};

static const char *const names[] = {"scores", "bits", "mask", "indices", "counts", "visible"};

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    int shared[FA_SELECT_SHARED];
    fa_task_view own = *view;
    own.shared = shared;
    fa_select_group(&own, group, 0, 1);
}

static fa_status check_measure(const fa_select_desc *d, const fa_visible_rule *rule)
{
    if (d->topk == 0 && !(d->threshold > 0 && d->threshold <= 1))
        return fa_fail(FA_INVALID, "threshold is %g, expected above 0 and at most 1 where topk is 0",
                       d->threshold);
    if (d->topk != 0 && d->threshold != 0)
        return fa_fail(FA_INVALID, "threshold is %g, expected 0 where topk is %lld", d->threshold,
                       (long long)d->topk);
    if (d->topk == 0 && rule->columns > MOST_WEIGHTS)
        return fa_fail(FA_UNSUPPORTED, "threshold is given for %d columns, at most %d are served",
                       rule->columns, MOST_WEIGHTS);
    FA_TRY(fa_check_limit("first", d->first, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("own", d->own, 0, FA_MAX_LENGTH));
    if (d->topk != 0 && d->first + d->own > d->topk)
        return fa_fail(FA_INVALID, "first is %lld and own %lld, expected together at most topk, %lld",
                       (long long)d->first, (long long)d->own, (long long)d->topk);
    return FA_OK;
}

static fa_status check(fa_select_desc *d, fa_visible_rule *rule)
{
    FA_TRY(fa_step_rule(&d->shape, rule));
    FA_TRY(fa_check_limit("batch", d->batch, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("heads", d->heads, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("topk", d->topk, 0, FA_MAX_LENGTH));
    FA_TRY(check_measure(d, rule));
    FA_TRY(fa_check_limit("visible", d->visible, 0, 1));
    d->list_rows = d->list_rows ? d->list_rows : 1;
    d->list_heads = d->list_heads ? d->list_heads : 1;
    FA_TRY(fa_check_limit("list_rows", d->list_rows, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("list_heads", d->list_heads, 1, FA_MAX_LENGTH));
    if (d->heads % d->list_heads != 0)
        return fa_fail(FA_INVALID, "list_heads is %lld, expected a divisor of heads, %lld",
                       (long long)d->list_heads, (long long)d->heads);
    FA_TRY(fa_check_limit("width", d->width, 0, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("want_mask", d->want_mask, 0, 1));
    FA_TRY(fa_check_limit("want_counts", d->want_counts, 0, 1));
    if (FA_MIN(d->list_rows, fa_ceil_div(d->shape.rows, d->shape.block_rows)) * d->list_heads > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED,
                       "list_rows is %lld and list_heads %lld: at most %d rows of a list are served",
                       (long long)d->list_rows, (long long)d->list_heads, INT32_MAX);
    return FA_OK;
}

static void fill_params(fa_select *s, const fa_select_desc *d, const fa_visible_rule *rule)
{
    const int64_t rows = fa_ceil_div(d->shape.rows, d->shape.block_rows);
    s->params = (fa_select_params){
        .rule = *rule,
        .lines = (int)(d->batch * (d->heads / d->list_heads)),
        .list_heads = (int)(d->heads / d->list_heads),
        .each = (int)d->list_heads,
        .rows = (int)rows,
        .list_rows = (int)d->list_rows,
        .lists = (int)fa_ceil_div(rows, d->list_rows),
        .words = (int)fa_ceil_div(rule->columns, 32),
        .width = (int)d->width,
        .topk = (int)d->topk,
        .threshold = FA_MAX((float)d->threshold, LEAST_PART),
        .first = (int)d->first,
        .own = (int)d->own,
        .has_visible = d->visible,
        .want_mask = d->want_mask,
        .want_counts = d->want_counts,
    };
}

static int64_t rows_of_list(const fa_select_params *p)
{
    return (int64_t)FA_MIN(p->list_rows, p->rows) * p->each;
}

/* How lists are made. */
static int way_of(const fa_select_params *p)
{
    if (p->topk == 0 || p->topk > FA_SELECT_FEW || p->rule.columns > FA_SELECT_FEW_COLUMNS)
        return FA_SELECT_BY_ROW;
    return rows_of_list(p) < MANY_ROWS ? FA_SELECT_ALONE : FA_SELECT_AT_ONCE;
}

/* Of each row of a list: four digits, and twice the share of columns; or all columns. */
static fa_status check_turns(const fa_step *step, const fa_select_params *p)
{
    const int way = step->task.constant[0];
    const int64_t items = fa_step_items(step), columns = p->rule.columns,
                  words = way == FA_SELECT_ALONE ? p->words : fa_ceil_div(p->words, items);
    const int64_t rows = way == FA_SELECT_AT_ONCE ? fa_ceil_div(rows_of_list(p), items) : rows_of_list(p);
    int64_t row = 5 * (columns / items + 1 + 512 / items + 2 * FA_SELECT_SPAN + 20) +
                  2 * (33 * words + GROUP) + 64,
            turns;
    if (way != FA_SELECT_BY_ROW)
        row = (FA_SELECT_FEW + 1) * (columns + 3);
    if (!fa_mul_i64(rows, row, &turns))
        turns = INT64_MAX / 2;
    return fa_step_check_turns(step, turns + 100 * words + p->width + GROUP);
}

static fa_status add_operands(fa_step *step, const fa_select_desc *d, const fa_select_params *p)
{
    const int64_t lines = p->lines, lists = p->lists, heads = d->batch * d->heads;
    size_t scores, bits, mask, indices, counts, visible;
    FA_TRY(fa_step_size("scores", heads, p->rows, p->rule.columns, sizeof(float), &scores));
    FA_TRY(fa_step_size("bits", lines, lists, p->words, sizeof(uint32_t), &bits));
    FA_TRY(fa_step_size("mask", lines, lists, p->rule.columns, 1, &mask));
    FA_TRY(fa_step_size("indices", lines, lists, p->width, sizeof(int32_t), &indices));
    FA_TRY(fa_step_size("counts", lines, lists, 1, sizeof(int32_t), &counts));
    FA_TRY(fa_step_size("visible", d->batch, p->rows, 1, sizeof(int32_t), &visible));
    fa_step_operand(step, FA_SELECT_SCORES, scores, sizeof(float), false);
    fa_step_operand(step, FA_SELECT_BITS, bits, sizeof(uint32_t), true);
    if (d->want_mask)
        fa_step_operand(step, FA_SELECT_MASK, mask, p->rule.columns % 4 == 0 ? sizeof(uint32_t) : 1, true);
    if (d->width > 0)
        fa_step_operand(step, FA_SELECT_INDICES, indices, sizeof(int32_t), true);
    if (d->want_counts)
        fa_step_operand(step, FA_SELECT_COUNTS, counts, sizeof(int32_t), true);
    if (d->visible)
        fa_step_operand(step, FA_SELECT_VISIBLE, visible, sizeof(int32_t), false);
    return FA_OK;
}

static fa_status init(fa_step *step, const void *desc)
{
    fa_select *s = (fa_select *)(void *)step;
    fa_select_desc d;
    fa_visible_rule rule;
    int64_t lines;
    FA_TRY(fa_copy_struct(&d, sizeof(d), FA_SELECT_DESC_0_1, desc, "fa_select_desc"));
    FA_TRY(check(&d, &rule));
    if (!fa_mul_i64(d.batch, d.heads, &lines) || lines > INT32_MAX)
        return fa_fail(FA_UNSUPPORTED, "batch is %lld and heads %lld: at most %d heads are served",
                       (long long)d.batch, (long long)d.heads, INT32_MAX);
    fill_params(s, &d, &rule);
    FA_TRY(fa_step_groups(step, s->params.lines, s->params.lists));
    step->names = names;
    step->operands = sizeof(names) / sizeof(names[0]);
    FA_TRY(add_operands(step, &d, &s->params));
    const int way = way_of(&s->params);
    if (way == FA_SELECT_ALONE)
        step->groups = (int32_t)fa_ceil_div(step->groups, FA_SELECT_LISTS);
    step->task.kind = FA_TASK_SELECT;
    step->task.name = "select";
    step->task.group = way == FA_SELECT_BY_ROW ? GROUP : FEW_GROUP;
    step->task.constant[0] = way;
    step->task.params = &s->params;
    step->task.params_bytes = sizeof(s->params);
    step->task.run = run_group;
    return check_turns(step, &s->params);
}

fa_status fa_select_create(fa_device *device, const fa_select_desc *desc, fa_select **select)
{
    return fa_step_create(device, "select", sizeof(fa_select), init, desc, (void **)select);
}

void fa_select_destroy(fa_select *select)
{
    fa_step_destroy(select ? &select->step : NULL);
}

fa_status fa_select_run(const fa_select *select, fa_queue *queue, const fa_select_args *args)
{
    fa_select_args a;
    fa_clear_error();
    FA_TRY(fa_call_check("select", select, select ? select->step.task.device : NULL, queue, "args", args));
    FA_TRY(fa_copy_struct(&a, sizeof(a), FA_SELECT_ARGS_0_1, args, "fa_select_args"));
    fa_task_binding binding = {.buffer = {a.scores, a.bits, a.mask, a.indices, a.counts, a.visible},
                               .offset = {a.scores_offset, a.bits_offset, a.mask_offset, a.indices_offset,
                                          a.counts_offset, a.visible_offset}};
    return fa_step_run(&select->step, queue, &binding);
}
