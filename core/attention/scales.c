/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/scales.h"

#include "core/half.h"
#include "core/scales.h"
#include "core/status.h"
#include "core/tensor.h"

static fa_status take_span(fa_problem *p, int operand)
{
    const fa_tensor *t = &p->tensor[operand];
    if (fa_tensor_is_absent(t))
        return FA_OK;
    p->features |= fa_operands[operand].feature;
    return fa_tensor_extent(t, fa_operands[operand].name, &p->span[operand]);
}

static fa_status take(fa_problem *p, int operand, const fa_tensor *scale, const fa_tensor *zero, float factor,
                      const char *factor_name, fa_scales *s)
{
    const int scales = FA_SCALE_OF(operand), zeros = FA_ZERO_OF(operand);
    const fa_scaled_names names = {fa_operands[operand].name, fa_operands[scales].name,
                                   fa_operands[zeros].name, factor_name};
    p->tensor[scales] = *scale;
    p->tensor[zeros] = *zero;
    FA_TRY(fa_scales_check(&names, &p->tensor[operand], &p->tensor[scales], &p->tensor[zeros], factor, s));
    FA_TRY(take_span(p, scales));
    return take_span(p, zeros);
}

fa_status fa_scales_init(fa_problem *p, const fa_attention_desc *d)
{
    FA_TRY(take(p, FA_K, &d->k_scale, &d->k_zero, d->k_factor, "k_factor", &p->k_scales));
    return take(p, FA_V, &d->v_scale, &d->v_zero, d->v_factor, "v_factor", &p->v_scales);
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
