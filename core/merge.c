/* SPDX-License-Identifier: Apache-2.0 */
#include "core/merge.h"

#include <math.h>

#include "core/context.h"
#include "core/floating.h"
#include "core/half.h"
#include "core/plan.h"
#include "core/size.h"
#include "core/status.h"
#include "core/structs.h"
#include "core/tensor.h"

static fa_status check(const fa_merge_desc *given, fa_merge_desc *d)
{
    if (!given)
        return fa_fail(FA_INVALID, "desc is NULL, expected an fa_merge_desc");
    fa_status status = fa_copy_struct(d, sizeof(*d), FA_MERGE_DESC_0_1, given, "fa_merge_desc");
    if (status == FA_OK)
        status = fa_tensor_normalise(&d->partial, "partial", false);
    if (status == FA_OK)
        status = fa_tensor_normalise(&d->o, "o", false);
    size_t span, partial_span;
    if (status == FA_OK)
        status = fa_tensor_extent(&d->o, "o", &span);
    if (status == FA_OK)
        status = fa_tensor_extent(&d->partial, "partial", &partial_span);
    if (status != FA_OK)
        return status;
    if (d->partial.dtype == FA_BOOL || d->o.dtype == FA_BOOL)
        return fa_fail(FA_INVALID, "%s.dtype is bool, expected f32, f16 or bf16",
                       d->o.dtype == FA_BOOL ? "o" : "partial");
    if (d->parts < 0 || d->part_stride < 0)
        return fa_fail(FA_INVALID, "%s is %lld, expected at least 0", d->parts < 0 ? "parts" : "part_stride",
                       (long long)(d->parts < 0 ? d->parts : d->part_stride));
    for (int axis = 0; axis < 4; axis++) {
        if (d->o.shape[axis] != d->partial.shape[axis])
            return fa_fail(FA_INVALID, "o.shape[%d] is %lld, expected %lld as partial.shape[%d]", axis,
                           (long long)d->o.shape[axis], (long long)d->partial.shape[axis], axis);
    }
    if (!fa_tensor_is_injective(&d->o))
        return fa_fail(FA_INVALID, "o.stride: elements of o overlap");
    if (d->part_stride == 0)
        d->part_stride = (int64_t)(partial_span / fa_dtype_size(d->partial.dtype));
    int64_t last, states = 0;
    const int64_t *shape = d->o.shape;
    if (!fa_mul_i64(shape[0], shape[1], &states) || !fa_mul_i64(states, shape[2], &states) ||
        !fa_mul_i64(states, FA_MAX(d->parts, 1), &states) || states > PTRDIFF_MAX / 4)
        return fa_fail(FA_OUT_OF_MEMORY,
                       "o.shape is %lld x %lld x %lld rows, parts %lld: more states than fit in memory",
                       (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)d->parts);
    if (!fa_mul_i64(d->parts, d->part_stride, &last) || last > PTRDIFF_MAX / 8)
        return fa_fail(FA_OUT_OF_MEMORY, "parts %lld with part_stride %lld overflows memory",
                       (long long)d->parts, (long long)d->part_stride);
    return FA_OK;
}

FA_FLOAT_APART float fa_merge_parts(const fa_parts *p, int64_t dim, fa_dtype dtype, void *o, int64_t at)
{
    enum { CHUNK = 64 };
    float max = p->sink, sum = 0;
    for (int64_t i = 0; i < p->parts; i++)
        max = fmaxf(max, p->lse[i * p->lse_stride]);
    for (int64_t i = 0; i < p->parts; i++)
        sum += p->lse[i * p->lse_stride] == -INFINITY ? 0 : expf(p->lse[i * p->lse_stride] - max);
    sum += p->sink == -INFINITY ? 0 : expf(p->sink - max);

    for (int64_t d = 0; d < dim; d += CHUNK) {
        float total[CHUNK] = {0};
        int64_t width = dim - d < CHUNK ? dim - d : CHUNK;
        for (int64_t i = 0; i < p->parts; i++) {
            float lse = p->lse[i * p->lse_stride];
            if (lse == -INFINITY)
                continue; /* an empty state: its output is not looked at */
            float weight = expf(lse - max) / sum;
            for (int64_t e = 0; e < width; e++)
                total[e] += weight * fa_load(p->dtype, p->base, p->first + i * p->stride + d + e);
        }
        for (int64_t e = 0; e < width; e++)
            fa_store(dtype, o, at + d + e, total[e]);
    }
    return sum == 0 ? -INFINITY : max + logf(sum);
}

fa_status fa_merge_host(const fa_merge_desc *desc, const void *partial, const float *partial_lse, void *o,
                        float *lse)
{
    fa_clear_error();
    fa_merge_desc d;
    fa_status status = check(desc, &d);
    if (status != FA_OK)
        return status;
    if (!d.want_lse != !lse)
        return fa_fail(FA_INVALID, "lse is %s, expected %s as want_lse is %d", lse ? "given" : "NULL",
                       lse ? "NULL" : "memory", (int)d.want_lse);
    const int64_t *shape = d.o.shape;
    int64_t rows = shape[0] * shape[1] * shape[2];
    if (rows == 0 || (shape[3] == 0 && !lse))
        return FA_OK;
    if (!o && shape[3] > 0)
        return fa_fail(FA_INVALID, "o is NULL");
    if (d.parts > 0 && (!partial || !partial_lse))
        return fa_fail(FA_INVALID, "%s is NULL with %lld parts", partial ? "partial_lse" : "partial",
                       (long long)d.parts);
    fa_float_state before = fa_float_enter();
    for (int64_t row = 0; row < rows; row++) {
        int64_t b = row / (shape[1] * shape[2]), h = row / shape[2] % shape[1], r = row % shape[2];
        fa_parts parts = {
            .dtype = d.partial.dtype,
            .base = partial,
            .first = fa_tensor_offset(&d.partial, b, h, r),
            .stride = d.part_stride,
            .lse = partial_lse ? partial_lse + row : NULL, /* NULL without parts */
            .lse_stride = rows,
            .parts = d.parts,
            .sink = -INFINITY,
        };
        float merged = fa_merge_parts(&parts, shape[3], d.o.dtype, o, fa_tensor_offset(&d.o, b, h, r));
        if (lse)
            lse[row] = merged;
    }
    fa_float_leave(before);
    return FA_OK;
}
