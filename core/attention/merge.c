/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/merge.h"

#include <math.h>

#include "core/context.h"
#include "core/floating.h"
#include "core/half.h"
#include "core/overlap.h"
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
    status = fa_dtype_check_float(d->o.dtype, "o.dtype");
    if (status == FA_OK)
        status = fa_dtype_check_float(d->partial.dtype, "partial.dtype");
    if (status != FA_OK)
        return status;
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

static fa_state state_of(const fa_parts *p, int64_t part)
{
    if (p->state)
        return p->state[part * p->state_stride];
    float lse = p->lse[part * p->state_stride];
    bool empty = lse == -INFINITY || (p->inf_is_empty && lse == INFINITY);
    return empty ? fa_state_empty() : (fa_state){lse, 1};
}

FA_FLOAT_APART float fa_merge_parts(const fa_parts *p, int64_t dim, fa_dtype dtype, void *o, int64_t at)
{
    enum { CHUNK = 64 };
    fa_state whole = fa_state_empty();
    for (int64_t i = 0; i < p->parts; i++)
        whole.max = fmaxf(whole.max, state_of(p, i).max);
    const float max = fa_safe_max(whole.max);
    for (int64_t i = 0; i < p->parts; i++)
        whole.sum += fa_part_weight(state_of(p, i), max, p->unit);
    const fa_closed closed = fa_state_close(whole, p->natural, p->sink);

    for (int64_t d = 0; d < dim; d += CHUNK) {
        float total[CHUNK] = {0};
        int64_t width = dim - d < CHUNK ? dim - d : CHUNK;
        for (int64_t i = 0; i < p->parts; i++) {
            fa_state part = state_of(p, i);
            if (part.max == -INFINITY && part.sum == 0)
                continue; /* an empty state: its output is not looked at */
            float weight = fa_part_weight(part, max, p->unit) * closed.factor;
            for (int64_t e = 0; e < width; e++)
                total[e] += weight * fa_load(p->dtype, p->base, p->first + i * p->stride + d + e);
        }
        for (int64_t e = 0; e < width; e++)
            fa_store(dtype, o, at + d + e, closed.factor == 0 ? 0 : total[e]);
    }
    return closed.lse;
}

/*
 * FlashAttention marks a row that sees no key by an LSE of +inf beside zeros. An infinite score leaves that LSE too,
 * but NaN in its row. Whether every +inf of this row is such a mark.
 */
static bool inf_marks_empty(const fa_parts *p, int64_t dim)
{
    for (int64_t i = 0; i < p->parts; i++) {
        for (int64_t d = 0; p->lse[i * p->state_stride] == INFINITY && d < dim; d++) {
            if (fa_load(p->dtype, p->base, p->first + i * p->stride + d) != 0)
                return false;
        }
    }
    return true;
}

/* Parts [first, first + count) of the outputs. */
static fa_extent extent_of_parts(const fa_merge_desc *d, const void *partial, int64_t first, int64_t count)
{
    const size_t stride = (size_t)d->part_stride * fa_dtype_size(d->partial.dtype);
    size_t span = 0;
    if (count > 0)
        (void)fa_tensor_extent(&d->partial, "partial", &span); /* check() has seen that it has one */
    fa_extent e =
        fa_extent_of_tensor(&d->partial, span, NULL, (uintptr_t)partial + (size_t)(first * (int64_t)stride));
    fa_extent_repeat(&e, count, stride);
    return e;
}

/* Which of the parts o lies on element for element, and so may replace; -1: none. */
static int64_t part_in_place(const fa_merge_desc *d, const void *partial, const void *o)
{
    const size_t stride = (size_t)d->part_stride * fa_dtype_size(d->partial.dtype);
    uintptr_t from = (uintptr_t)partial, at = (uintptr_t)o;
    if (d->o.dtype != d->partial.dtype || at < from || stride == 0 || (at - from) % stride != 0 ||
        (at - from) / stride >= (uintptr_t)d->parts)
        return -1;
    for (int axis = 0; axis < 3; axis++) {
        if (d->o.shape[axis] > 1 && d->o.stride[axis] != d->partial.stride[axis])
            return -1;
    }
    return (int64_t)((at - from) / stride);
}

/* What is written is an input element for element, row by row, or shares no byte with one. */
static fa_status check_apart(const fa_merge_desc *d, const void *partial, const float *partial_lse,
                             const void *o, const float *lse)
{
    const size_t states = (size_t)(d->o.shape[0] * d->o.shape[1] * d->o.shape[2]) * sizeof(float);
    const int64_t part = part_in_place(d, partial, o);
    const size_t lse_part = states && (uintptr_t)lse >= (uintptr_t)partial_lse
                                ? ((uintptr_t)lse - (uintptr_t)partial_lse) / states
                                : 0;
    const bool lse_in_place = lse && partial_lse && lse_part < (size_t)d->parts &&
                              (uintptr_t)partial_lse + lse_part * states == (uintptr_t)lse;
    size_t span = 0;
    (void)fa_tensor_extent(&d->o, "o", &span);
    const fa_extent out = fa_extent_of_tensor(&d->o, span, NULL, (uintptr_t)o),
                    out_lse = fa_extent_of_bytes(lse ? states : 0, NULL, (uintptr_t)lse),
                    before = extent_of_parts(d, partial, 0, part < 0 ? d->parts : part),
                    after = extent_of_parts(d, partial, part + 1, part < 0 ? 0 : d->parts - part - 1),
                    all = extent_of_parts(d, partial, 0, d->parts),
                    all_lse = fa_extent_of_bytes(states * (size_t)d->parts, NULL, (uintptr_t)partial_lse),
                    none = {.span = 0};
    const struct {
        const char *written, *other;
        const fa_extent *a, *b;
    } pair[] = {
        {"o", "partial", &out, &before},
        {"o", "partial", &out, &after},
        {"o", "partial_lse", &out, &all_lse},
        {"o", "lse", &out, &out_lse},
        {"lse", "partial", &out_lse, &all},
        {"lse", "partial_lse", &out_lse, lse_in_place ? &none : &all_lse},
    };
    for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
        if (fa_extents_meet(pair[i].a, pair[i].b) != FA_APART)
            return fa_fail(
                FA_INVALID,
                "%s overlaps %s, expected memory apart from it, or exactly that of one part with the "
                "same type and strides",
                pair[i].written, pair[i].other);
    }
    return FA_OK;
}

static fa_status check_alignment(const char *name, const void *memory, size_t alignment)
{
    if ((uintptr_t)memory % alignment == 0)
        return FA_OK;
    return fa_fail(FA_INVALID, "%s lies at address %p, expected a multiple of %zu", name, memory, alignment);
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
    status = check_alignment("partial", partial, fa_dtype_size(d.partial.dtype));
    if (status == FA_OK)
        status = check_alignment("partial_lse", partial_lse, sizeof(float));
    if (status == FA_OK)
        status = check_alignment("o", o, fa_dtype_size(d.o.dtype));
    if (status == FA_OK)
        status = check_alignment("lse", lse, sizeof(float));
    if (status == FA_OK)
        status = check_apart(&d, partial, partial_lse, o, lse);
    if (status != FA_OK)
        return status;
    fa_float_state before = fa_float_enter();
    for (int64_t row = 0; row < rows; row++) {
        int64_t b = row / (shape[1] * shape[2]), h = row / shape[2] % shape[1], r = row % shape[2];
        fa_parts parts = {
            .dtype = d.partial.dtype,
            .base = partial,
            .first = fa_tensor_offset(&d.partial, b, h, r),
            .stride = d.part_stride,
            .lse = partial_lse ? partial_lse + row : NULL, /* NULL without parts */
            .state_stride = rows,
            .parts = d.parts,
            .unit = FA_LOG2E,
            .natural = 1,
            .sink = -INFINITY,
        };
        parts.inf_is_empty = inf_marks_empty(&parts, shape[3]);
        float merged = fa_merge_parts(&parts, shape[3], d.o.dtype, o, fa_tensor_offset(&d.o, b, h, r));
        if (lse)
            lse[row] = merged;
    }
    fa_float_leave(before);
    return FA_OK;
}
