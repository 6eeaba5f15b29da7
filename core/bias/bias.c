/* SPDX-License-Identifier: Apache-2.0 */
#include <fastattn/bias.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/attention/checks.h"
#include "core/context.h"
#include "core/portable/lang.h"
#include "core/size.h"
#include "core/sparse/scores.h"
#include "core/status.h"

enum { MOST_DIMS = 1024, SWEEPS = 60 };

static fa_status check_sizes(int64_t rows, int64_t keys, const float *q_factors, const float *k_factors)
{
    FA_TRY(fa_check_limit("rows", rows, 1, FA_MAX_LENGTH));
    FA_TRY(fa_check_limit("keys", keys, 1, FA_MAX_LENGTH));
    if (!q_factors || !k_factors)
        return fa_fail(FA_INVALID, "%s is NULL", q_factors ? "k_factors" : "q_factors");
    return FA_OK;
}

fa_status fa_bias_alibi(int64_t rows, int64_t keys, double slope, float *q_factors, float *k_factors)
{
    fa_clear_error();
    FA_TRY(check_sizes(rows, keys, q_factors, k_factors));
    if (!isfinite(slope))
        return fa_fail(FA_INVALID, "slope is %g, expected a finite number", slope);
    const int64_t middle = keys / 2;
    for (int64_t i = 0; i < rows; i++) {
        q_factors[2 * i] = (float)(-slope * (double)(i + keys - rows - middle));
        q_factors[2 * i + 1] = (float)slope;
    }
    for (int64_t j = 0; j < keys; j++) {
        k_factors[2 * j] = 1;
        k_factors[2 * j + 1] = (float)(j - middle);
    }
    return FA_OK;
}

/* The weighted square of a point. */
static double square(int64_t dims, const float *x, const double *weights)
{
    double sum = 0;
    for (int64_t d = 0; d < dims; d++)
        sum += (weights ? weights[d] : 1) * (double)x[d] * (double)x[d];
    return sum;
}

fa_status fa_bias_distance(int64_t dims, int64_t rows, const float *from, int64_t keys, const float *to,
                           const double *weights, float *q_factors, float *k_factors)
{
    const int64_t rank = dims + 2;
    fa_clear_error();
    FA_TRY(check_sizes(rows, keys, q_factors, k_factors));
    FA_TRY(fa_check_limit("dims", dims, 1, MOST_DIMS));
    if (!from || !to)
        return fa_fail(FA_INVALID, "%s is NULL", from ? "to" : "from");
    for (int64_t d = 0; weights && d < dims; d++) {
        if (!isfinite(weights[d]))
            return fa_fail(FA_INVALID, "weights[%lld] is %g, expected a finite number", (long long)d,
                           weights[d]);
    }
    for (int64_t i = 0; i < rows; i++) {
        float *q = q_factors + i * rank;
        q[0] = (float)square(dims, from + i * dims, weights);
        q[1] = 1;
        for (int64_t d = 0; d < dims; d++)
            q[2 + d] = (float)(-2 * (weights ? weights[d] : 1) * (double)from[i * dims + d]);
    }
    for (int64_t j = 0; j < keys; j++) {
        float *k = k_factors + j * rank;
        k[0] = 1;
        k[1] = (float)square(dims, to + j * dims, weights);
        memcpy(k + 2, to + j * dims, (size_t)dims * sizeof(*k));
    }
    return FA_OK;
}

/*
 * A decomposition in the making. `columns` are min(rows, keys) vectors of `length`, which rotations make orthogonal; `turns` is what
 * the rotations did. At the end each column is a singular value times a vector of one side, and its turn one of the other side.
 */
typedef struct jacobi {
    int64_t count, length;
    double *columns, *turns;
    double *squares; /* of the columns' lengths */
    int64_t *order;  /* the longest column first */
} jacobi;

static void rotate(double *a, double *b, int64_t length, double c, double s)
{
    for (int64_t n = 0; n < length; n++) {
        const double x = a[n], y = b[n];
        a[n] = c * x - s * y;
        b[n] = s * x + c * y;
    }
}

/* Makes two columns orthogonal. Returns whether they were not. */
static bool turn_pair(jacobi *j, int64_t p, int64_t q)
{
    double *a = j->columns + p * j->length, *b = j->columns + q * j->length;
    const double aa = fa_dot(a, a, j->length), bb = fa_dot(b, b, j->length), ab = fa_dot(a, b, j->length);
    /* What rounding may leave of a product. */
    if (fabs(ab) <= DBL_EPSILON * (double)j->length * sqrt(aa) * sqrt(bb))
        return false;
    const double zeta = (bb - aa) / (2 * ab);
    const double t = (zeta < 0 ? -1 : 1) / (fabs(zeta) + hypot(1, zeta));
    const double c = 1 / hypot(1, t);
    rotate(a, b, j->length, c, c * t);
    rotate(j->turns + p * j->count, j->turns + q * j->count, j->count, c, c * t);
    return true;
}

static void decompose(jacobi *j)
{
    bool turned = true;
    for (int sweep = 0; sweep < SWEEPS && turned; sweep++) {
        turned = false;
        for (int64_t p = 0; p < j->count; p++) {
            for (int64_t q = p + 1; q < j->count; q++)
                turned = turn_pair(j, p, q) || turned;
        }
    }
    for (int64_t n = 0; n < j->count; n++) {
        const double *column = j->columns + n * j->length;
        int64_t at = n;
        j->squares[n] = fa_dot(column, column, j->length);
        for (; at > 0 && j->squares[j->order[at - 1]] < j->squares[n]; at--)
            j->order[at] = j->order[at - 1];
        j->order[at] = n;
    }
}

/* The factors of the longest columns: `longer` of the side that has `length` vectors, `shorter` of the other. */
static void take(const jacobi *j, int64_t rank, float *longer, float *shorter, double *error)
{
    double left = 0;
    for (int64_t r = 0; r < j->count; r++) {
        const int64_t n = j->order[r];
        const double root = sqrt(sqrt(j->squares[n])); /* of the singular value */
        if (r >= rank) {
            left += j->squares[n];
            continue;
        }
        for (int64_t i = 0; i < j->length; i++)
            longer[i * rank + r] = root > 0 ? (float)(j->columns[n * j->length + i] / root) : 0;
        for (int64_t i = 0; i < j->count; i++)
            shorter[i * rank + r] = (float)(j->turns[n * j->count + i] * root);
    }
    if (error)
        *error = sqrt(left);
}

static fa_status check_bias(int64_t rows, int64_t keys, const float *bias, int64_t rank)
{
    size_t count = 0, bytes = 0;
    if (!bias)
        return fa_fail(FA_INVALID, "bias is NULL");
    FA_TRY(fa_check_limit("rank", rank, 1, FA_MIN(rows, keys)));
    if (!fa_grow(&count, (size_t)rows, (size_t)keys) || !fa_grow(&bytes, count, sizeof(double)))
        return fa_fail(FA_OUT_OF_MEMORY, "a bias of %lld rows and %lld keys overflows memory",
                       (long long)rows, (long long)keys);
    for (int64_t n = 0; n < rows * keys; n++) {
        if (!isfinite(bias[n]))
            return fa_fail(FA_INVALID, "bias[%lld][%lld] is %g, expected a finite number",
                           (long long)(n / keys), (long long)(n % keys), (double)bias[n]);
    }
    return FA_OK;
}

fa_status fa_bias_factorize(fa_context *context, int64_t rows, int64_t keys, const float *bias, int64_t rank,
                            float *q_factors, float *k_factors, double *error)
{
    fa_clear_error();
    if (!context)
        return fa_fail(FA_INVALID, "context is NULL");
    FA_TRY(check_sizes(rows, keys, q_factors, k_factors));
    FA_TRY(check_bias(rows, keys, bias, rank));
    const bool tall = rows >= keys;
    jacobi j = {.count = FA_MIN(rows, keys), .length = FA_MAX(rows, keys)};
    const size_t count = (size_t)j.count, columns = count * (size_t)j.length * sizeof(double),
                 turns = count * count * sizeof(double);
    j.columns = fa_alloc(context, columns);
    j.turns = j.columns ? fa_alloc_zeroed(context, turns) : NULL;
    j.squares = j.turns ? fa_alloc(context, count * sizeof(double)) : NULL;
    j.order = j.squares ? fa_alloc(context, count * sizeof(*j.order)) : NULL;
    if (j.order) {
        for (int64_t n = 0; n < rows * keys; n++) {
            const int64_t row = n / keys, key = n % keys;
            j.columns[tall ? key * rows + row : n] = (double)bias[n];
        }
        for (int64_t n = 0; n < j.count; n++)
            j.turns[n * j.count + n] = 1;
        decompose(&j);
        take(&j, rank, tall ? q_factors : k_factors, tall ? k_factors : q_factors, error);
    }
    fa_release(context, j.columns, columns);
    fa_release(context, j.turns, turns);
    fa_release(context, j.squares, count * sizeof(double));
    fa_release(context, j.order, count * sizeof(*j.order));
    return j.order ? FA_OK : FA_OUT_OF_MEMORY;
}
