/* SPDX-License-Identifier: Apache-2.0 */
/* Whether an output is right: against the oracle, and against an output that somebody else computed. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/check.h"
#include "tools/cli.h"
#include "tools/run/run.h"

static void report_failure(const char *what)
{
    const char *message = fa_last_error();
    cli_error(RUN_COMMAND, "%s: %s", what, message[0] ? message : "not enough memory for it");
}

bool run_check(fa_context *context, const run_problem *p, const check_means *means)
{
    const fa_inputs inputs = run_inputs(p);
    check_reference *reference;
    check_result result;
    if (check_reference_create(context, &p->desc, &inputs, means, &reference) != FA_OK) {
        report_failure("--check");
        return false;
    }
    check_compare(reference, p->o.data, p->desc.want_lse ? p->lse.data : NULL, &result);
    check_reference_destroy(reference);
    printf("check: %s, largest error %.3g; nearest to its bound: error %.3g, bound %.3g (naive %.3g)",
           result.ok ? "ok" : "FAILED", result.max_error, result.error, result.bound, result.naive);
    if (p->desc.want_lse)
        printf("; lse error %.3g, bound %.3g", result.lse_error, result.lse_bound);
    printf("\n");
    if (!result.ok)
        cli_error(RUN_COMMAND, "--check: %s", result.message);
    return result.ok;
}

static double value_at(const io_tensor *t, int64_t i)
{
    if (t->type == IO_F32)
        return (double)((const float *)t->data)[i];
    uint16_t bits = ((const uint16_t *)t->data)[i];
    return (double)(t->type == IO_F16 ? fa_f16_to_f32(bits) : fa_bf16_to_f32(bits));
}

/* Half a unit in the last place of `value`, as a type stores it. */
static double rounding(io_type type, double value)
{
    int digits = type == IO_F32 ? 24 : type == IO_F16 ? 11 : 8;
    int least = type == IO_F16 ? -25 : -150;
    return fmax(ldexp(fabs(value), -digits), ldexp(1, least));
}

/* The largest error that summing naively, in whatever order, makes in each head of each batch entry. */
static fa_status naive_errors(fa_context *context, const run_problem *p, fa_dtype weights, double *errors)
{
    const int64_t *shape = p->desc.o.shape;
    int64_t heads = shape[0] * shape[1], count = shape[2] * shape[3];
    const fa_inputs inputs = run_inputs(p);
    fa_attention_desc desc = p->desc;
    double *exact = calloc((size_t)(heads * count) + 1, sizeof(*exact));
    float *naive = calloc((size_t)(heads * count) + 1, sizeof(*naive));
    fa_status status = exact && naive ? FA_OK : FA_OUT_OF_MEMORY;

    /* The roundings of what is stored are added apart. */
    desc.o.dtype = FA_F32;
    if (status == FA_OK)
        status = fa_reference_attention(context, &desc, &inputs, exact, NULL);
    for (int order = 0; order < FA_NAIVE_ORDERS && status == FA_OK; order++) {
        status = fa_naive_attention(context, &desc, &inputs, (fa_naive_order)order, weights, naive, NULL);
        for (int64_t i = 0; i < heads * count && status == FA_OK; i++) {
            double error = fabs((double)naive[i] - exact[i]);
            if (isfinite(error) && error > errors[i / count])
                errors[i / count] = error;
        }
    }
    free(exact);
    free(naive);
    return status;
}

/* For each row, how far apart two results may be before their roundings: each is granted twice the largest naive error
 * of the head, and no more than can be wrong. */
static fa_status row_tolerances(fa_context *context, const run_problem *p, const check_means *means,
                                double *allowed)
{
    const int64_t *shape = p->desc.o.shape;
    int64_t heads = shape[0] * shape[1], rows = heads * shape[2];
    const fa_inputs inputs = run_inputs(p);
    double *errors = calloc((size_t)heads + 1, sizeof(*errors)),
           *lse = calloc((size_t)rows + 1, sizeof(*lse));
    fa_status status = errors && lse ? naive_errors(context, p, means->weights, errors) : FA_OUT_OF_MEMORY;
    if (status == FA_OK)
        status = fa_reference_limit(context, &p->desc, &inputs, means->weights, means->merges, allowed, lse);
    for (int64_t row = 0; row < rows && status == FA_OK; row++)
        allowed[row] = fmin(4 * errors[row / shape[2]], 2 * allowed[row]);
    free(errors);
    free(lse);
    return status;
}

/* The element whose difference is worst by what it may be. */
typedef struct worst {
    double largest; /* difference anywhere */
    double difference, tolerance, found, expected;
    int64_t index[4]; /* batch, head, row, dim */
    bool over;
} worst;

static void judge(worst *w, double found, double expected, double tolerance, const int64_t index[4])
{
    bool same = found == expected || (isnan(found) && isnan(expected));
    double difference = same ? 0 : fabs(found - expected);
    if (isnan(difference))
        difference = (double)INFINITY;
    w->largest = fmax(w->largest, difference);
    /* Products, because a tolerance may be 0. */
    bool over = difference > tolerance;
    if (w->tolerance >= 0 &&
        (w->over > over || (w->over == over && difference * w->tolerance <= w->difference * tolerance)))
        return;
    *w = (worst){w->largest,     difference, tolerance,
                 found,          expected,   {index[0], index[1], index[2], index[3]},
                 w->over || over};
}

/* `rows`: what each row is allowed, or NULL: `tolerance` counts everywhere. Files are in the layout of o. */
static worst compare(const run_problem *p, const double *rows, double tolerance)
{
    const fa_tensor *o = &p->desc.o;
    const int64_t *shape = o->shape;
    bool bshd = o->stride[3] != 0;
    worst w = {.tolerance = -1};
    int64_t at[4];

    for (at[0] = 0; at[0] < shape[0]; at[0]++) {
        for (at[1] = 0; at[1] < shape[1]; at[1]++) {
            for (at[2] = 0; at[2] < shape[2]; at[2]++) {
                int64_t row = bshd ? (at[0] * shape[2] + at[2]) * shape[1] + at[1]
                                   : (at[0] * shape[1] + at[1]) * shape[2] + at[2];
                if (p->lens_q && at[2] >= p->lens_q[at[0]])
                    continue; /* nobody's result */
                double derived = rows ? rows[(at[0] * shape[1] + at[1]) * shape[2] + at[2]] : 0;
                for (at[3] = 0; at[3] < shape[3]; at[3]++) {
                    int64_t i = row * shape[3] + at[3];
                    double found = value_at(&p->o, i), expected = value_at(&p->expect, i);
                    double allowed =
                        rows ? derived + rounding(p->o.type, found) + rounding(p->expect.type, expected)
                             : tolerance;
                    judge(&w, found, expected, allowed, at);
                }
            }
        }
    }
    return w;
}

static bool same_shape(const run_problem *p)
{
    bool same = p->expect.rank == p->o.rank;
    for (int axis = 0; axis < p->o.rank && same; axis++)
        same = p->expect.shape[axis] == p->o.shape[axis];
    if (same && (p->expect.type == IO_F32 || p->expect.type == IO_F16 || p->expect.type == IO_BF16))
        return true;
    char text[2][192];
    const io_tensor *const tensors[] = {&p->expect, &p->o};
    for (int t = 0; t < 2; t++) {
        int used = snprintf(text[t], sizeof(text[t]), "%s (", io_type_name(tensors[t]->type));
        for (int axis = 0; axis < tensors[t]->rank; axis++)
            used += snprintf(text[t] + used, sizeof(text[t]) - (size_t)used, "%s%" PRId64, axis ? ", " : "",
                             tensors[t]->shape[axis]);
        (void)snprintf(text[t] + used, sizeof(text[t]) - (size_t)used, ")");
    }
    cli_error(RUN_COMMAND, "expect is %s, expected f32, f16 or bf16 of the output's shape: %s", text[0],
              text[1]);
    return false;
}

bool run_expect_fits(const run_problem *p)
{
    return !p->has_expect || same_shape(p);
}

bool run_expect(fa_context *context, const run_problem *p, const check_means *means, double tolerance)
{
    const int64_t *shape = p->desc.o.shape;
    double *rows = NULL;
    if (isnan(tolerance)) {
        rows = calloc((size_t)(shape[0] * shape[1] * shape[2]) + 1, sizeof(*rows));
        if (!rows || row_tolerances(context, p, means, rows) != FA_OK) {
            report_failure("--expect");
            free(rows);
            return false;
        }
    }
    worst w = compare(p, rows, tolerance);
    free(rows);
    printf("expect: %s, largest difference %.3g; nearest to its tolerance: difference %.3g, tolerance %.3g\n",
           w.over ? "FAILED" : "ok", w.largest, w.difference, fmax(w.tolerance, 0));
    if (w.over)
        cli_error(RUN_COMMAND,
                  "--expect: element (batch %" PRId64 ", head %" PRId64 ", row %" PRId64 ", dim %" PRId64
                  ") is %.9g, expected %.9g within %.3g",
                  w.index[0], w.index[1], w.index[2], w.index[3], w.found, w.expected, w.tolerance);
    return !w.over;
}
