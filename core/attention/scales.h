/* SPDX-License-Identifier: Apache-2.0 */
/* Scales and zeros of k and v that are tensors of their own. */
#ifndef FA_CORE_ATTENTION_SCALES_H
#define FA_CORE_ATTENTION_SCALES_H

#include "core/attention/problem.h"

/* The operands that hold the scales and zeros of FA_K or FA_V. */
#define FA_SCALE_OF(operand) ((operand) == FA_K ? FA_K_SCALE : FA_V_SCALE)
#define FA_ZERO_OF(operand) ((operand) == FA_K ? FA_K_ZERO : FA_V_ZERO)

/* Checks what a description says of them, and takes it over. FA_INVALID names field and value. */
fa_status fa_scales_init(fa_problem *problem, const fa_attention_desc *desc);

static inline const fa_scales *fa_scales_of(const fa_problem *p, int operand)
{
    return operand == FA_K ? &p->k_scales : &p->v_scales;
}

/* The scaling of dim d of key `row` of a batch entry or page. `scale` and `zero` are the memory of these tensors. */
fa_scaling fa_scales_at(const fa_scales *scales, const void *scale, const void *zero, int64_t batch,
                        int64_t head, int64_t row, int64_t d);

#endif
