/* SPDX-License-Identifier: Apache-2.0 */
#include "core/scales.h"

#include <math.h>
#include <stdio.h>

#include "core/portable/format.h"
#include "core/size.h"
#include "core/status.h"
#include "core/tensor.h"

static fa_status check_type(fa_dtype dtype, const char *name, bool is_zero)
{
    const bool plain = dtype == FA_F32 || dtype == FA_F16 || dtype == FA_BF16;
    char field[24];
    (void)snprintf(field, sizeof(field), "%s.dtype", name);
    FA_TRY(fa_dtype_check(dtype, field));
    if (plain || (!is_zero && (dtype == FA_E4M3 || dtype == FA_E8M0)))
        return FA_OK;
    return fa_fail(FA_INVALID, "%s is %s, expected %s", field, fa_dtype_name(dtype),
                   is_zero ? "f32, f16 or bf16" : "f32, f16, bf16, e4m3 or e8m0");
}

/* Sizes of batch and head are those of the tensor, or 1; those of keys and dims divide them. */
static fa_status check_shape(const fa_scaled_names *names, const fa_tensor *of, const fa_tensor *scale)
{
    for (int axis = 0; axis < 4; axis++) {
        const int64_t whole = of->shape[axis], size = scale->shape[axis];
        const bool fits =
            size == 1 || size == whole || (axis >= 2 && size > 0 && whole > 0 && whole % size == 0);
        if (!fits)
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected 1 or %s%s.shape[%d], %lld",
                           names->scale, axis, (long long)size, axis >= 2 ? "a divisor of " : "", names->of,
                           axis, (long long)whole);
    }
    return FA_OK;
}

static int group_of(const fa_tensor *of, const fa_tensor *scale, int axis)
{
    const int64_t size = scale->shape[axis];
    return size > 0 ? (int)FA_MAX(of->shape[axis] / size, 1) : 1;
}

static fa_status take(fa_tensor *t, const char *name, fa_long stride[4])
{
    FA_TRY(fa_tensor_normalise_single(t, name));
    for (int axis = 0; axis < 4; axis++)
        stride[axis] = t->stride[axis];
    return FA_OK;
}

static fa_status take_zero(const fa_scaled_names *names, const fa_tensor *scale, fa_tensor *zero,
                           fa_scales *s)
{
    if (fa_tensor_is_absent(zero))
        return FA_OK;
    FA_TRY(check_type(zero->dtype, names->zero, true));
    FA_TRY(take(zero, names->zero, s->zero_stride));
    for (int axis = 0; axis < 4; axis++) {
        if (zero->shape[axis] != scale->shape[axis])
            return fa_fail(FA_INVALID, "%s.shape[%d] is %lld, expected %s.shape[%d], %lld", names->zero, axis,
                           (long long)zero->shape[axis], names->scale, axis, (long long)scale->shape[axis]);
    }
    s->zero_type = (int)zero->dtype;
    return FA_OK;
}

/* What may not be given where there are no scales. */
static fa_status check_without(const fa_scaled_names *names, fa_dtype dtype, const fa_tensor *zero,
                               float factor)
{
    if (FA_TYPE_IS_BARE((int)dtype) && !FA_TYPE_IS_FP8((int)dtype))
        return fa_fail(FA_INVALID, "%s is absent, expected scales: %s.dtype is %s", names->scale, names->of,
                       fa_dtype_name(dtype));
    if (!fa_tensor_is_absent(zero))
        return fa_fail(FA_INVALID, "%s is given without %s, expected shape 0", names->zero, names->scale);
    if (factor != 0)
        return fa_fail(FA_INVALID, "%s is %g, expected 0 without %s", names->factor, (double)factor,
                       names->scale);
    return FA_OK;
}

fa_status fa_scales_check(const fa_scaled_names *names, const fa_tensor *of, fa_tensor *scale,
                          fa_tensor *zero, float factor, fa_scales *s)
{
    *s = (fa_scales){.scale_type = -1, .zero_type = -1, .factor = 1};
    if (FA_TYPE_PRUNES((int)of->dtype))
        s->row_bytes = (int)of->stride[3];
    if (fa_tensor_is_absent(scale))
        return check_without(names, of->dtype, zero, factor);
    if (!FA_TYPE_IS_BARE((int)of->dtype))
        return fa_fail(FA_INVALID,
                       "%s.dtype is %s with %s, expected fp8 or codes alone, which have no scales", names->of,
                       fa_dtype_name(of->dtype), names->scale);
    if (!isfinite(factor))
        return fa_fail(FA_INVALID, "%s is %g, expected a finite number", names->factor, (double)factor);
    if (of->shape[2] > INT32_MAX)
        return fa_fail(FA_INVALID, "%s.shape[2] is %lld with %s, expected at most %d", names->of,
                       (long long)of->shape[2], names->scale, INT32_MAX);
    FA_TRY(check_type(scale->dtype, names->scale, false));
    FA_TRY(take(scale, names->scale, s->scale_stride));
    FA_TRY(check_shape(names, of, scale));
    s->scale_type = (int)scale->dtype;
    s->keys = group_of(of, scale, 2);
    s->keys_shift = fa_shift_of(s->keys);
    s->dims = group_of(of, scale, 3);
    s->dims_shift = fa_shift_of(s->dims);
    s->factor = factor != 0 ? factor : 1;
    return take_zero(names, scale, zero, s);
}
