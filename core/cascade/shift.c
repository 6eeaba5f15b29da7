/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cascade/shift.h"

#include <stddef.h>
#include <string.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/floating.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/task_words.h"

#include "core/portable/shift.h"

_Static_assert(sizeof(fa_shift_params) % sizeof(fa_shift_row) == 0, "rows lie behind the parameters");

/* Of the problem's own lengths, and where runs may have others, of those in their work. */
struct fa_cascade_shift {
    fa_task own, given;
    char *words, *given_words; /* parameters with their lists */
    size_t bytes;
    bool has_own, has_given;
};

FA_FLOAT_APART static void run_group(const fa_task_view *view, int group)
{
    fa_shift_group(view, group, 0, 1);
}

static fa_status lay_out(const fa_cascade *c, fa_shift_params *params, size_t *bytes)
{
    const size_t rows = (size_t)c->problem.tensor[FA_Q].shape[2], heads = (size_t)c->problem.heads_q;
    size_t end = sizeof(*params), lses = (size_t)c->levels;
    params->rows_at = (int)(end / sizeof(fa_shift_row));
    bool fits = fa_grow(&end, rows, sizeof(fa_shift_row));
    const size_t from_at = end;
    fits = fits && fa_grow(&end, rows, (size_t)c->levels * sizeof(int32_t));
    const size_t slopes_at = end;
    fits = fits && fa_grow(&end, fa_problem_slopes(&c->problem), sizeof(float));
    end += end % 8;
    /* Programs count in ints. */
    if (!fits || end > INT32_MAX || rows * heads > INT32_MAX / 2 / lses)
        return fa_fail(FA_UNSUPPORTED,
                       "alibi_slopes is given with %zu rows of %zu heads: too many for %zu levels", rows,
                       heads, lses);
    params->parts = (int)c->levels;
    params->heads = (int)heads;
    params->rows = (int)rows;
    params->from_at = (int)(from_at / sizeof(int32_t));
    params->slopes_at = (int)(slopes_at / sizeof(float));
    params->slope_stride = c->problem.alibi_stride;
    *bytes = end;
    return FA_OK;
}

static void list_rows(const fa_cascade *c, fa_shift_row *row)
{
    for (int64_t n = 0; n < c->sequences; n++) {
        const fa_sequence *s = &c->problem.sequence[n];
        for (int32_t i = 0; i < s->len_q; i++)
            row[s->q_row + i] = (fa_shift_row){(int32_t)n, i, s->first + s->mask.diagonal + i, 0};
    }
}

static void list_from(const fa_cascade *c, int32_t *from)
{
    const int64_t rows = c->problem.tensor[FA_Q].shape[2];
    for (int64_t i = 0; i < c->levels; i++) {
        const fa_cascade_level_lists *l = &c->level[i];
        for (int64_t g = 0; g < l->groups; g++) {
            for (int64_t r = l->cu_rows[g]; r < l->cu_rows[g + 1]; r++)
                from[i * rows + r] =
                    (int32_t)(l->first[g] + fa_cascade_counts_from(l, g) + r - l->cu_rows[g]);
        }
    }
}

static fa_status prepare(const fa_cascade *c, const void *words, size_t bytes, bool own, fa_task *task,
                         bool *done)
{
    *task = (fa_task){.device = c->device,
                      .kind = FA_TASK_SHIFT,
                      .name = "shift",
                      .group = FA_SHIFT_SHARE,
                      .params = words,
                      .params_bytes = bytes,
                      .run = run_group};
    task->operand[FA_SHIFT_LSE] =
        (fa_task_operand){"workspace", (size_t)c->levels * c->parts.part_lse_bytes, true};
    if (!own)
        task->operand[FA_SHIFT_WORK] =
            (fa_task_operand){"work", fa_plan_work(c->parts.plan[c->levels]), false};
    const fa_status status = fa_task_prepare(task);
    *done = status == FA_OK;
    return status;
}

/* Parameters with their lists: of rows that stand where the problem says, or where work does that begins so. */
static char *write_words(const fa_cascade *c, fa_shift_params params, size_t bytes, int sequences_at)
{
    char *words = fa_alloc_zeroed(c->context, bytes);
    if (!words)
        return NULL;
    params.sequences_at = sequences_at;
    memcpy(words, &params, sizeof(params));
    list_rows(c, (fa_shift_row *)(void *)(words + sizeof(params)));
    list_from(c, (int32_t *)(void *)words + params.from_at);
    memcpy(words + (size_t)params.slopes_at * sizeof(float), c->problem.alibi_slopes,
           fa_problem_slopes(&c->problem) * sizeof(float));
    return words;
}

fa_status fa_cascade_shift_make(fa_cascade *c)
{
    const fa_plan *last = c->parts.plan[c->levels];
    fa_shift_params params = {.parts = 0};
    size_t bytes = 0;
    FA_TRY(lay_out(c, &params, &bytes));
    struct fa_cascade_shift *s = c->shift = fa_alloc_zeroed(c->context, sizeof(*s));
    if (!s)
        return FA_OUT_OF_MEMORY;
    s->bytes = bytes;
    s->words = write_words(c, params, bytes, -1);
    if (!s->words)
        return FA_OUT_OF_MEMORY;
    FA_TRY(prepare(c, s->words, bytes, true, &s->own, &s->has_own));
    if (!c->problem.dynamic)
        return FA_OK;
    s->given_words = write_words(c, params, bytes, (int)(last->layout.sequences / sizeof(fa_table_sequence)));
    return s->given_words ? prepare(c, s->given_words, bytes, false, &s->given, &s->has_given)
                          : FA_OUT_OF_MEMORY;
}

void fa_cascade_shift_release(fa_cascade *c)
{
    struct fa_cascade_shift *s = c->shift;
    if (!s)
        return;
    if (s->has_own)
        fa_task_release(&s->own);
    if (s->has_given)
        fa_task_release(&s->given);
    fa_release(c->context, s->words, s->bytes);
    fa_release(c->context, s->given_words, s->bytes);
    fa_release(c->context, s, sizeof(*s));
}

fa_status fa_cascade_shift_run(const fa_cascade *c, fa_queue *queue, const fa_attention_args *args)
{
    if (!c->shift)
        return FA_OK;
    const int64_t lses = c->levels * c->problem.heads_q * c->problem.tensor[FA_Q].shape[2];
    const fa_task_binding binding = {
        .buffer = {args->workspace, args->work},
        .offset = {args->workspace_offset + c->parts.lse_offset, args->work_offset},
        .groups = (int32_t)fa_ceil_div(lses, FA_SHIFT_SHARE),
    };
    if (lses == 0)
        return FA_OK;
    return fa_finish(fa_task_run(args->work ? &c->shift->given : &c->shift->own, queue, &binding));
}
