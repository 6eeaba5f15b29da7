/* SPDX-License-Identifier: Apache-2.0 */
#include "core/half.h"

float fa_f16_to_f32(uint16_t bits)
{
    return fa_half_load(bits);
}

uint16_t fa_f32_to_f16(float value)
{
    return (uint16_t)fa_f16_narrow(value);
}

float fa_bf16_to_f32(uint16_t bits)
{
    return fa_bf16_widen(bits);
}

uint16_t fa_f32_to_bf16(float value)
{
    return (uint16_t)fa_bf16_narrow(value);
}
