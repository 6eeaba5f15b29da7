/* SPDX-License-Identifier: Apache-2.0 */
#include "core/half.h"

#define FA_CODES const uint8_t *
#define FA_AT int64_t
#define FA_BITS16(m, at) ((fa_uint)(m)[at] | (fa_uint)(m)[(at) + 1] << 8)
#define FA_BITS32(m, at) (FA_BITS16(m, at) | FA_BITS16(m, (at) + 2) << 16)
#define FA_BITS32_ALIGNED FA_BITS32
#include "core/portable/codes.h"

#define SAME(name) _Static_assert(FA_TYPE_##name == FA_##name, "one number for a type, in all languages")
SAME(E4M3);
SAME(E5M2);
SAME(Q8_0);
SAME(Q4_0);
SAME(Q4_1);
SAME(Q5_0);
SAME(Q5_1);
SAME(IQ4_NL);
SAME(I8);
SAME(I4);
SAME(I2);
SAME(U8);
SAME(U4);
SAME(U2);
SAME(E2M1);
SAME(E8M0);
SAME(U1);
SAME(U2U1);
SAME(FP8_DS_MLA);
SAME(BITMAP_F16);

float fa_load_coded(fa_dtype dtype, const void *base, int64_t index)
{
    const int type = (int)dtype;
    if (FA_TYPE_IS_BARE(type) && FA_TYPE_CODE_BITS(type) == 8) /* scales may end anywhere */
        return fa_bare_number(type, ((const uint8_t *)base)[index]);
    if (FA_TYPE_PRUNES(type)) /* not without the row's bytes */
        return 0;
    if (FA_TYPE_IS_MLA(type)) {
        const int at = (int)(index % FA_MLA_DIMS);
        return fa_row_four(type, base, FA_TYPE_SPAN(type, index), at & ~3, FA_MLA_DIMS, 0).x[at & 3];
    }
    const int e = (int)(index & ((1 << FA_TYPE_BLOCK_SHIFT(type)) - 1));
    const int64_t block = FA_TYPE_SPAN(type, index - e);
    return fa_decoded(type, fa_codes_of(type, base, block, e & ~3), e & 3, fa_scaling_of(type, base, block));
}

float fa_load_pruned(const void *row, int dims, int bytes, int d)
{
    return fa_bitmap_four(row, 0, d & ~3, dims, bytes).x[d & 3];
}

float fa_element(fa_dtype dtype, const void *base, int64_t index)
{
    return fa_load(dtype, base, index);
}

float fa_f16_to_f32(uint16_t bits)
{
    return fa_f16_widen(bits);
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
