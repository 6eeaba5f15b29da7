/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bound. Let x be an element of o, r its row, p the oracle's softmax weights, and
 *     W(r) = sum_j p_j max_d |v_jd|,
 * the size of what the row adds up, in which the error of any summation is naturally measured. Let e(r) be the
 * largest error that the naive implementation makes in row r, over all dims and all orders of summation, its
 * output kept in f32, and
 *     rho = max e(r) / W(r)    over all rows.
 * A result y passes when for every element
 *     |y - x| <= 2 max(rho, floor(r)) W(r) + u |x| + tiny,
 * u being the unit roundoff of the output type and tiny half its smallest step: before its one rounding to the
 * output type, a result may be twice as wrong as the naive one. Measuring in W keeps rows, heads and sequences
 * of small values from hiding behind large ones. Taking rho over all rows makes it less a matter of luck: where
 * two keys nearly tie, one row has nearly all of a head's error, and of one row there are only as many draws
 * as there are orders. Against what luck remains, above all in tiny tensors,
 *     floor(r) = u32 (1 + c S + T / 4) + u_w:
 * the sum and the weights (held in a type with unit roundoff u_w) are rounded once at least, and a score c times:
 * by the scale, and by softcap, slopes and bias where there are such. S is the least that the row's largest
 * score can be, given the LSE of its keys alone and their number. T is
 * |scale| |q_r| sum_j p_j |k_j| over sum_j p_j, by Cauchy and Schwarz the size that scores are summed from; a
 * quarter of u T is the root mean square of the error of a sum of random products, however many.
 *
 * The LSE likewise with W = 1, since what an LSE is used for, its exponential, makes of an absolute error a
 * relative one. There, floor(r) = u32 (1 + c S + T / 4), and the one rounding is one of a number of size
 * 1 + |lse| + log(keys): a largest score and a logarithm may each be as large, whatever is left of them.
 *
 * Nothing of this is wider than what can be wrong. A score of 1e9 that is rounded by one unit can make any key the
 * heaviest, and then again cannot, where no other comes near, or where a bias swallowed the products and all keys tie:
 * fa_reference_limit() tells which, row by row, and the lesser of the two counts. Without it, a row of scores beyond
 * 2^24 would let everything pass.
 *
 * W, sum_j p_j |k_j| and sum_j p_j (less than 1 where there is a sink) are the oracle's answer for a v of three
 * columns.
 *
 * NaN must be NaN, an infinity the same infinity; an infinity in o for a finite value is taken for the first
 * number that rounds to it, and is wrong in an LSE, where it has a meaning of its own. An empty row has W = 0, so that
 * nothing but 0 passes.
 */
#include "tools/check.h"
#include "tools/scales.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Of one row. The order is that of the columns in columns_of(). */
typedef struct row_size {
    double w, share, keys; /* W, sum_j p_j, sum_j p_j |k_j| */
} row_size;

enum { COLUMNS = sizeof(row_size) / sizeof(double) };

struct check_reference {
    fa_tensor o;    /* with explicit strides                                                 */
    int64_t rows;   /* batch * heads * rows                                                  */
    double *oracle; /* rows * dim                                                            */
    double *lse;    /* of each row: the oracle's                                             */
    row_size *size;
    int64_t keys;              /* at least as many as any row sees                                      */
    double *naive, *naive_lse; /* of each row: the largest naive error                            */
    double *limit, *lse_limit; /* of each row: the most that can be wrong                         */
    double *bound, *lse_bound; /* of each row, before the rounding of the output; NaN: of no sequence */
    double largest_naive, largest_naive_lse;
};

/* How a type is laid out: bits of the significand with the hidden one, exponent of the smallest normal. */
typedef struct float_format {
    int precision, min_exponent;
} float_format;

static float_format format_of(fa_dtype dtype)
{
    switch (dtype) {
    case FA_F16: return (float_format){11, -14};
    case FA_BF16: return (float_format){8, -126};
    default: return (float_format){24, -126};
    }
}

static double unit_roundoff(fa_dtype dtype)
{
    return ldexp(1, -format_of(dtype).precision);
}

static double half_smallest_step(fa_dtype dtype)
{
    float_format f = format_of(dtype);
    return ldexp(1, f.min_exponent - f.precision);
}

/* The smallest magnitude that rounds to infinity. */
static double overflow_threshold(fa_dtype dtype)
{
    float_format f = format_of(dtype);
    return ldexp(2 - ldexp(1, -f.precision), 1 - f.min_exponent);
}

static double load(fa_dtype dtype, const void *base, int64_t index)
{
    return (double)fa_element(dtype, base, index);
}

static fa_tensor with_strides(fa_tensor t)
{
    int64_t stride = 1;
    bool contiguous = !t.stride[0] && !t.stride[1] && !t.stride[2] && !t.stride[3];
    if (t.dtype == FA_BITMAP_F16)
        return contiguous ? fa_tensor_make_bitmap(t.shape[0], t.shape[1], t.shape[2], t.shape[3], t.shape[3])
                          : t;
    for (int axis = 3; axis >= 0 && contiguous; axis--) {
        if (axis < 3)
            t.stride[axis] = stride;
        stride *= t.shape[axis];
    }
    t.stride[3] = 1;
    return t;
}

static int64_t offset_of(const fa_tensor *t, int64_t b, int64_t h, int64_t r)
{
    return b * t->stride[0] + h * t->stride[1] + r * t->stride[2];
}

static void *allocate(int64_t count, size_t size)
{
    return calloc(count > 0 ? (size_t)count : 1, size);
}

/* Sizes that do not fit are refused with the library's message before they are multiplied here. */
static fa_status check_sizes(const fa_attention_desc *desc)
{
    size_t bytes;
    fa_tensor o = desc->o, v = desc->v;
    for (int axis = 0; axis < 4; axis++)
        o.stride[axis] = v.stride[axis] = 0;
    fa_status status = fa_tensor_span(&o, &bytes);
    return status == FA_OK ? fa_tensor_span(&v, &bytes) : status;
}

/* A row of k or v, whose elements may have scales of their own; NULL: of another tensor. */
typedef struct scaled_row {
    const fa_attention_desc *desc;
    const fa_inputs *inputs;
    bool of_k;
    int64_t batch, head, key;
} scaled_row;

/* The Euclidean norm of what is finite in a row, and its largest magnitude. */
static double norm_of(const fa_tensor *t, const void *base, int64_t index, const scaled_row *row,
                      double *largest)
{
    double sum = 0;
    float kept[FA_MAX_HEAD_DIM];
    const bool prunes = t->dtype == FA_BITMAP_F16; /* index counts bytes */
    *largest = 0;
    if (prunes && fa_bitmap_load((const char *)base + index, t->stride[3], kept, t->shape[3]) != FA_OK)
        return 0; /* the library has refused the tensor */
    for (int64_t d = 0; d < t->shape[3]; d++) {
        double value = prunes ? (double)kept[d] : load(t->dtype, base, index + d);
        if (row)
            value =
                scales_element(row->desc, row->inputs, row->of_k, value, row->batch, row->head, row->key, d);
        value = fabs(value);
        if (isfinite(value)) {
            sum += value * value;
            *largest = fmax(*largest, value);
        }
    }
    return sqrt(sum);
}

/* The v of which the oracle makes a row_size. */
static float *columns_of(const fa_attention_desc *desc, const fa_inputs *inputs)
{
    fa_tensor k = with_strides(desc->k), v = with_strides(desc->v);
    int64_t rows = v.shape[0] * v.shape[1] * v.shape[2];
    float *columns = allocate(COLUMNS * rows, sizeof(*columns));
    for (int64_t row = 0; columns && row < rows; row++) {
        int64_t b = row / v.shape[2] / v.shape[1], h = row / v.shape[2] % v.shape[1], j = row % v.shape[2];
        double largest, largest_k;
        const scaled_row of_k = {desc, inputs, true, b, h, j}, of_v = {desc, inputs, false, b, h, j};
        (void)norm_of(&v, inputs->v, offset_of(&v, b, h, j), &of_v, &largest);
        double norm = norm_of(&k, inputs->k, offset_of(&k, b, h, j), &of_k, &largest_k);
        columns[COLUMNS * row] = (float)largest;
        columns[COLUMNS * row + 1] = 1;
        columns[COLUMNS * row + 2] = (float)fmin(norm, FLT_MAX);
    }
    return columns;
}

static fa_status compute_size(check_reference *r, fa_context *context, const fa_attention_desc *desc,
                              const fa_inputs *inputs)
{
    float *columns = columns_of(desc, inputs);
    if (!columns)
        return FA_OUT_OF_MEMORY;
    const int64_t *q = desc->q.shape, *v = desc->v.shape;
    fa_attention_desc d = *desc;
    fa_inputs in = *inputs;
    d.v = fa_tensor_make(FA_F32, v[0], v[1], v[2], COLUMNS);
    d.v_in_k = 0;
    d.o = fa_tensor_make(FA_F32, q[0], q[1], q[2], COLUMNS);
    d.v_scale = d.v_zero = (fa_tensor){0};
    d.v_factor = 0;
    in.v = columns;
    in.v_scale = in.v_zero = NULL;
    fa_status status = fa_reference_attention(context, &d, &in, &r->size->w, NULL);
    free(columns);
    return status;
}

/* |a - b| where both are finite, else 0: what is not finite is compared by kind, not by distance. */
static double distance(double a, double b)
{
    return isfinite(a) && isfinite(b) ? fabs(a - b) : 0;
}

static fa_status compute_naive(check_reference *r, fa_context *context, const fa_attention_desc *desc,
                               const fa_inputs *inputs, fa_dtype weights)
{
    int64_t dim = r->o.shape[3];
    fa_attention_desc d = *desc;
    d.o = fa_tensor_make(FA_F32, r->o.shape[0], r->o.shape[1], r->o.shape[2], dim);
    float *o = allocate(r->rows * dim, sizeof(*o)), *lse = allocate(r->rows, sizeof(*lse));
    fa_status status = o && lse ? FA_OK : FA_OUT_OF_MEMORY;
    for (int64_t i = 0; i < r->rows; i++)
        r->naive[i] = r->naive_lse[i] = 0;
    for (int order = 0; order < FA_NAIVE_ORDERS && status == FA_OK; order++) {
        status = fa_naive_attention(context, &d, inputs, (fa_naive_order)order, weights, o, lse);
        for (int64_t i = 0; status == FA_OK && i < r->rows * dim; i++)
            r->naive[i / dim] = fmax(r->naive[i / dim], distance((double)o[i], r->oracle[i]));
        for (int64_t i = 0; status == FA_OK && i < r->rows; i++)
            r->naive_lse[i] = fmax(r->naive_lse[i], distance((double)lse[i], r->lse[i]));
    }
    free(o);
    free(lse);
    return status;
}

/* The least |m| that a row's largest score m can have: it lies between lse - log(keys) and lse. */
static double least_score(double lse, int64_t keys)
{
    double low = lse - log((double)keys);
    return low > 0 ? low : lse < 0 ? -lse : 0;
}

/* How large the score that decides a row is at least, and what it is summed from: c S + T / 4. */
static double score_size(const check_reference *r, const fa_attention_desc *desc, const void *q, int64_t row)
{
    const fa_tensor t = with_strides(desc->q);
    const row_size *size = &r->size[row];
    if (!(size->share > 0))
        return 0;
    int64_t b = row / t.shape[2] / t.shape[1], h = row / t.shape[2] % t.shape[1], i = row % t.shape[2];
    bool set = desc->scale != 0 || desc->scale_is_set;
    double scale = set ? fabs((double)desc->scale) : 1 / sqrt((double)t.shape[3]), largest;
    double terms = scale * norm_of(&t, q, offset_of(&t, b, h, i), NULL, &largest) * size->keys / size->share;
    int roundings = 1 + (desc->softcap > 0) + (desc->alibi_slopes != NULL) + (desc->bias.shape[0] > 0) +
                    (desc->bias_factors != NULL);
    return roundings * least_score(r->lse[row] + log(size->share), r->keys) + terms / 4;
}

static void bound_row(check_reference *r, int64_t row, double rho, double score, const check_means *means)
{
    double w = r->size[row].w, least = unit_roundoff(FA_F32) * (1 + score);
    double merges = means->merges * unit_roundoff(FA_F32) * (2 * fabs(r->lse[row]) + 3);
    bool judged = isfinite(r->lse[row]);
    r->bound[row] = r->lse_bound[row] = 0;
    if (judged && w > 0)
        r->bound[row] =
            fmin((2 * fmax(rho, least + unit_roundoff(means->weights)) + merges) * w, r->limit[row]);
    if (judged)
        r->lse_bound[row] = fmin(2 * fmax(r->largest_naive_lse, least) + merges, r->lse_limit[row]);
}

static int64_t index_at(const int64_t *wide, const int32_t *narrow, int64_t n)
{
    return wide ? wide[n] : narrow[n];
}

/* The rows of q's tensor that a sequence, or a batch entry, uses. */
static void rows_of(const fa_attention_desc *d, int64_t n, int64_t *begin, int64_t *end)
{
    *begin = 0;
    *end = d->q.shape[2];
    if (d->cu_rows_q || d->cu_rows_q32) {
        *begin = index_at(d->cu_rows_q, d->cu_rows_q32, n);
        *end = index_at(d->cu_rows_q, d->cu_rows_q32, n + 1);
    } else if (d->lens_q || d->lens_q32) {
        *end = index_at(d->lens_q, d->lens_q32, n);
    }
}

static void compute_bounds(check_reference *r, const fa_attention_desc *desc, const void *q,
                           const check_means *means)
{
    const int64_t *shape = r->o.shape;
    double rho = 0;
    r->largest_naive = r->largest_naive_lse = 0;
    for (int64_t i = 0; i < r->rows; i++) {
        r->largest_naive = fmax(r->largest_naive, r->naive[i]);
        r->largest_naive_lse = fmax(r->largest_naive_lse, r->naive_lse[i]);
        if (r->size[i].w > 0)
            rho = fmax(rho, r->naive[i] / r->size[i].w);
        r->bound[i] = NAN;
    }
    bool packed = desc->cu_rows_q || desc->cu_rows_q32;
    int64_t sequences = packed ? desc->sequences : shape[0];
    for (int64_t n = 0; n < sequences * shape[1]; n++) {
        int64_t sequence = n / shape[1], head = n % shape[1], begin, end;
        int64_t first = ((packed ? 0 : sequence) * shape[1] + head) * shape[2];
        rows_of(desc, sequence, &begin, &end);
        for (int64_t i = begin; i < end; i++)
            bound_row(r, first + i, rho, score_size(r, desc, q, first + i), means);
    }
}

fa_status check_reference_by(check_reference *r, fa_context *context, const fa_attention_desc *desc,
                             const fa_inputs *inputs, const check_means *means)
{
    fa_status status = compute_naive(r, context, desc, inputs, means->weights);
    if (status == FA_OK)
        status =
            fa_reference_limit(context, desc, inputs, means->weights, means->merges, r->limit, r->lse_limit);
    if (status == FA_OK)
        compute_bounds(r, desc, inputs->q, means);
    return status;
}

fa_status check_reference_create(fa_context *context, const fa_attention_desc *desc, const fa_inputs *inputs,
                                 const check_means *means, check_reference **reference)
{
    *reference = NULL;
    fa_status status = check_sizes(desc);
    if (status != FA_OK)
        return status;
    check_reference *r = allocate(1, sizeof(*r));
    if (!r)
        return FA_OUT_OF_MEMORY;
    r->o = with_strides(desc->o);
    r->rows = r->o.shape[0] * r->o.shape[1] * r->o.shape[2];
    r->oracle = allocate(r->rows * r->o.shape[3], sizeof(double));
    r->size = allocate(r->rows, sizeof(*r->size));
    r->keys = desc->page_table.shape[3] > 0 ? desc->page_table.shape[3] * desc->k.shape[2] : desc->k.shape[2];
    double **const per_row[] = {&r->lse,       &r->naive, &r->naive_lse, &r->limit,
                                &r->lse_limit, &r->bound, &r->lse_bound};
    status = r->oracle && r->size ? FA_OK : FA_OUT_OF_MEMORY;
    for (size_t i = 0; i < sizeof(per_row) / sizeof(per_row[0]); i++) {
        *per_row[i] = allocate(r->rows, sizeof(double));
        status = *per_row[i] ? status : FA_OUT_OF_MEMORY;
    }
    if (status == FA_OK)
        status = fa_reference_attention(context, desc, inputs, r->oracle, r->lse);
    if (status == FA_OK)
        status = compute_size(r, context, desc, inputs);
    if (status == FA_OK)
        status = check_reference_by(r, context, desc, inputs, means);
    if (status == FA_OK)
        *reference = r;
    else
        check_reference_destroy(r);
    return status;
}

double check_reference_bytes(const fa_attention_desc *desc)
{
    const int64_t *q = desc->q.shape, *k = desc->k.shape;
    double rows = (double)q[0] * (double)q[1] * (double)q[2],
           keys = (double)k[0] * (double)k[1] * (double)k[2];
    double values = rows * (double)desc->v.shape[3];
    return values * (sizeof(double) + sizeof(float)) +
           rows * (sizeof(row_size) + 7 * sizeof(double) + sizeof(float)) + keys * COLUMNS * sizeof(float);
}

void check_reference_destroy(check_reference *r)
{
    if (!r)
        return;
    free(r->size);
    double *const arrays[] = {r->oracle, r->lse,       r->naive, r->naive_lse,
                              r->limit,  r->lse_limit, r->bound, r->lse_bound};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        free(arrays[i]);
    free(r);
}

const double *check_oracle(const check_reference *r, const double **lse)
{
    *lse = r->lse;
    return r->oracle;
}

/* How wrong `found` is, in units of its bound: at most 1 passes. INFINITY where no bound applies. */
static double badness(double found, double expected, double bound, fa_dtype dtype, double *error)
{
    *error = 0;
    if (isnan(expected) || isinf(expected)) {
        bool same = isnan(expected) ? isnan(found) : found == expected;
        return same ? 0 : INFINITY;
    }
    if (isnan(found))
        return INFINITY;
    if (isinf(found))
        found = copysign(fmax(overflow_threshold(dtype), fabs(expected)), found);
    *error = fabs(found - expected);
    return *error == 0 ? 0 : *error / bound;
}

/* One number and what is known about it. */
typedef struct finding {
    const char *tensor;
    int64_t row, dim; /* dim -1: there is none */
    double found, expected, error, bound, naive, badness;
} finding;

static void describe(const check_reference *r, const finding *f, check_result *result)
{
    char at[96], dim[24] = "";
    int64_t heads = r->o.shape[1], rows = r->o.shape[2];
    if (f->dim >= 0)
        (void)snprintf(dim, sizeof(dim), ",%lld", (long long)f->dim);
    (void)snprintf(at, sizeof(at), "%s[%lld,%lld,%lld%s]", f->tensor, (long long)(f->row / rows / heads),
                   (long long)(f->row / rows % heads), (long long)(f->row % rows), dim);
    if (isinf(f->badness))
        (void)snprintf(result->message, sizeof(result->message), "%s is %.9g, expected %.9g", at, f->found,
                       f->expected);
    else
        (void)snprintf(result->message, sizeof(result->message),
                       "%s is %.9g, expected %.9g: error %.3g, bound %.3g (naive error %.3g)", at, f->found,
                       f->expected, f->error, f->bound, f->naive);
}

static finding worst_of_o(const check_reference *r, const void *o, double *max_error)
{
    const int64_t *shape = r->o.shape;
    double u = unit_roundoff(r->o.dtype), tiny = half_smallest_step(r->o.dtype);
    finding worst = {.tensor = "o", .badness = -1};
    for (int64_t row = 0; row < r->rows; row++) {
        int64_t at = offset_of(&r->o, row / shape[2] / shape[1], row / shape[2] % shape[1], row % shape[2]);
        for (int64_t d = 0; d < shape[3] && !isnan(r->bound[row]); d++) {
            finding f = {.tensor = "o", .row = row, .dim = d, .naive = r->largest_naive};
            f.expected = r->oracle[row * shape[3] + d];
            f.found = load(r->o.dtype, o, at + d);
            f.bound = r->bound[row] + u * fabs(f.expected) + tiny;
            f.badness = badness(f.found, f.expected, f.bound, r->o.dtype, &f.error);
            *max_error = fmax(*max_error, f.error);
            if (f.badness > worst.badness)
                worst = f;
        }
    }
    return worst;
}

static finding worst_of_lse(const check_reference *r, const float *lse)
{
    double u = unit_roundoff(FA_F32), terms = r->keys > 1 ? log((double)r->keys) : 0;
    finding worst = {.tensor = "lse", .dim = -1, .badness = -1};
    for (int64_t row = 0; row < r->rows; row++) {
        if (isnan(r->bound[row]))
            continue;
        finding f = {.tensor = "lse", .row = row, .dim = -1, .naive = r->largest_naive_lse};
        f.expected = r->lse[row];
        f.found = (double)lse[row];
        f.bound = r->lse_bound[row] + u * (1 + fabs(f.expected) + terms);
        f.badness = badness(f.found, f.expected, f.bound, FA_F32, &f.error);
        if (isinf(f.found) && fabs(f.expected) <= (double)FLT_MAX)
            f.badness = (double)INFINITY; /* of an empty row, or of one with an infinite score */
        if (f.badness > worst.badness)
            worst = f;
    }
    return worst;
}

void check_compare(const check_reference *r, const void *o, const float *lse, check_result *result)
{
    *result = (check_result){.ok = 1};
    finding worst = worst_of_o(r, o, &result->max_error);
    result->error = worst.error;
    result->bound = worst.bound;
    result->naive = worst.naive;
    if (lse) {
        finding worst_lse = worst_of_lse(r, lse);
        result->lse_error = worst_lse.error;
        result->lse_bound = worst_lse.bound;
        if (worst_lse.badness > 1)
            worst = worst.badness > 1 ? worst : worst_lse;
    }
    if (worst.badness > 1) {
        result->ok = 0;
        describe(r, &worst, result);
    }
}

fa_status check_run(fa_context *context, fa_device *device, const fa_attention_desc *desc,
                    const fa_inputs *inputs, check_result *result)
{
    fa_plan *plan = NULL;
    fa_plan_info info = {.struct_size = sizeof(info)};
    check_reference *reference = NULL;
    size_t bytes = 0;
    *result = (check_result){0};
    fa_status status = fa_plan_create(device, desc, &plan);
    if (status == FA_OK)
        status = fa_plan_get_info(plan, &info);
    fa_plan_destroy(plan);
    const check_means means = {.weights = info.weights};
    if (status == FA_OK)
        status = fa_tensor_span(&desc->o, &bytes);
    if (status == FA_OK)
        status = check_reference_create(context, desc, inputs, &means, &reference);
    if (status != FA_OK)
        return status;
    void *o = allocate((int64_t)bytes, 1);
    float *lse = desc->want_lse ? allocate(reference->rows, sizeof(*lse)) : NULL;
    if (!o || (desc->want_lse && !lse))
        status = FA_OUT_OF_MEMORY;
    if (status == FA_OK)
        status = fa_attention_host(device, desc, inputs->q, inputs->k, inputs->v, inputs->bias, inputs->keep,
                                   o, lse);
    if (status == FA_OK)
        check_compare(reference, o, lse, result);
    free(o);
    free(lse);
    check_reference_destroy(reference);
    return status;
}
