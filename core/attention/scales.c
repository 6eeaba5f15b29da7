/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/scales.h"

#include <math.h>

#include "core/half.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

static bool is_scale_type(fa_dtype dtype)
{
    return dtype == FA_F32 || dtype == FA_F16 || dtype == FA_BF16 || dtype == FA_E4M3 || dtype == FA_E8M0;
}

/* Sizes of batch and head are those of k or v, or 1; those of keys and dims divide them. */
static fa_status check_shape(const fa_problem *p, int operand, int scale)
{
    const char *name = fa_operands[scale].name, *of = fa_operands[operand].name;
    for (int axis = 0; axis < 4; axis++) {
        const int64_t whole = p->tensor[operand].shape[axis], size = p->tensor[scale].shape[axis];
        const bool fits =
            size == 1 || size == whole || (axis >= 2 && size > 0 && whole > 0 && whole % size == 0);
        if (!fits)
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected 1 or %s%s.shape[%d], %lld", name, axis,
                           (long long)size, axis >= 2 ? "a divisor of " : "", of, axis, (long long)whole);
    }
    return FA_OK;
}

static int64_t group_of(const fa_problem *p, int operand, int scale, int axis)
{
    const int64_t size = p->tensor[scale].shape[axis];
    return size > 0 ? FA_MAX(p->tensor[operand].shape[axis] / size, 1) : 1;
}

static fa_status take_tensor(fa_problem *p, int operand, const fa_tensor *given, fa_long stride[4])
{
    fa_tensor *t = &p->tensor[operand];
    *t = *given;
    FA_TRY(fa_tensor_normalise_single(t, fa_operands[operand].name));
    FA_TRY(fa_tensor_extent(t, fa_operands[operand].name, &p->span[operand]));
    p->features |= fa_operands[operand].feature;
    for (int axis = 0; axis < 4; axis++)
        stride[axis] = t->stride[axis];
    return FA_OK;
}

static fa_status take_zero(fa_problem *p, int zero, int scale, const fa_tensor *given, fa_scales *s)
{
    const char *name = fa_operands[zero].name, *of = fa_operands[scale].name;
    if (fa_tensor_is_absent(given))
        return FA_OK;
    FA_TRY(take_tensor(p, zero, given, s->zero_stride));
    const fa_tensor *t = &p->tensor[zero];
    if (t->dtype != FA_F32 && t->dtype != FA_F16 && t->dtype != FA_BF16)
        return fa_fail(FA_INVALID, "%s.dtype is %s, expected f32, f16 or bf16", name,
                       fa_dtype_name(t->dtype));
    for (int axis = 0; axis < 4; axis++) {
        const int64_t size = p->tensor[scale].shape[axis];
        if (t->shape[axis] != size)
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %s.shape[%d], %lld", name, axis,
                           (long long)t->shape[axis], of, axis, (long long)size);
    }
    s->zero_type = (int)t->dtype;
    return FA_OK;
}

/* What may not be given where there are no scales. */
static fa_status check_without(const fa_problem *p, int operand, const fa_tensor *zero, float factor)
{
    const char *name = fa_operands[operand].name, *scale = fa_operands[FA_SCALE_OF(operand)].name;
    const fa_dtype dtype = p->tensor[operand].dtype;
    if (FA_TYPE_IS_BARE((int)dtype) && !FA_TYPE_IS_FP8((int)dtype))
        return fa_fail(FA_INVALID, "%s is absent, expected scales: %s.dtype is %s", scale, name,
                       fa_dtype_name(dtype));
    if (!fa_tensor_is_absent(zero))
        return fa_fail(FA_INVALID, "%s is given without %s, expected shape 0",
                       fa_operands[FA_ZERO_OF(operand)].name, scale);
    if (factor != 0)
        return fa_fail(FA_INVALID, "%s_factor is %g, expected 0 without %s", name, (double)factor, scale);
    return FA_OK;
}

static fa_status take(fa_problem *p, int operand, const fa_tensor *scale, const fa_tensor *zero, float factor,
                      fa_scales *s)
{
    const int at = FA_SCALE_OF(operand);
    const char *name = fa_operands[operand].name;
    const fa_tensor *of = &p->tensor[operand], *t = &p->tensor[at];
    *s = (fa_scales){.scale_type = -1, .zero_type = -1, .factor = 1};
    if (fa_tensor_is_absent(scale))
        return check_without(p, operand, zero, factor);
    if (!FA_TYPE_IS_BARE((int)of->dtype))
        return fa_fail(FA_INVALID,
                       "%s.dtype is %s with %s, expected fp8 or codes alone, which have no scales", name,
                       fa_dtype_name(of->dtype), fa_operands[at].name);
    if (!isfinite(factor))
        return fa_fail(FA_INVALID, "%s_factor is %g, expected a finite number", name, (double)factor);
    if (of->shape[2] > INT32_MAX)
        return fa_fail(FA_INVALID, "%s.shape[2] is %lld with %s, expected at most %d", name,
                       (long long)of->shape[2], fa_operands[at].name, INT32_MAX);
    FA_TRY(take_tensor(p, at, scale, s->scale_stride));
    if (!is_scale_type(t->dtype))
        return fa_fail(FA_INVALID, "%s.dtype is %s, expected f32, f16, bf16, e4m3 or e8m0",
                       fa_operands[at].name, fa_dtype_name(t->dtype));
    FA_TRY(check_shape(p, operand, at));
    s->scale_type = (int)t->dtype;
    s->keys = (int)group_of(p, operand, at, 2);
    s->keys_shift = fa_shift_of(s->keys);
    s->dims = (int)group_of(p, operand, at, 3);
    s->dims_shift = fa_shift_of(s->dims);
    s->factor = factor != 0 ? factor : 1;
    return take_zero(p, FA_ZERO_OF(operand), at, zero, s);
}

fa_status fa_scales_init(fa_problem *p, const fa_attention_desc *d)
{
    FA_TRY(take(p, FA_K, &d->k_scale, &d->k_zero, d->k_factor, &p->k_scales));
    return take(p, FA_V, &d->v_scale, &d->v_zero, d->v_factor, &p->v_scales);
}

fa_scaling fa_scales_at(const fa_scales *s, const void *scale, const void *zero, int64_t batch, int64_t head,
                        int64_t row, int64_t d)
{
    const int64_t index[4] = {batch, head, row / s->keys, d / s->dims};
    int64_t scale_at = 0, zero_at = 0;
    for (int axis = 0; axis < 4; axis++) {
        scale_at += index[axis] * s->scale_stride[axis];
        zero_at += index[axis] * s->zero_stride[axis];
    }
    return (fa_scaling){
        .scale = fa_load((fa_dtype)s->scale_type, scale, scale_at) * s->factor,
        .offset = s->zero_type >= 0 ? fa_load((fa_dtype)s->zero_type, zero, zero_at) : 0,
    };
}
