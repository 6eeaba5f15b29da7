/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of 32 elements in formats of caches (core/portable/codes.h) as f32, half a block at a time. */
#ifndef FA_OPENMP_CODES_H
#define FA_OPENMP_CODES_H

#include "pack.h"

enum { BLOCK = 32, HALF_VECS = 16 / VL };

#if FA_ISA_IS != FA_ISA_scalar
/* The number that each code of iq4_nl stands for. */
static const int8_t iq4_nl_numbers[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

/* The numbers that the codes of half a block of ggml's stand for, a byte each. */
FA_INLINE vb numbers_of(const int type, const uint8_t *block, const int half)
{
    const uint8_t *end = block + FA_TYPE_SIZE(type), *fifth = end - 20 + 2 * half;
    if (type == FA_TYPE_Q8_0)
        return vb_load(block + 2 + 16 * half);
    vb codes = vb_load(end - 16);
    codes = half ? vb_high(codes) : vb_low(codes);
    if (type == FA_TYPE_IQ4_NL)
        return vb_look_up(vb_load(iq4_nl_numbers), codes);
    if (FA_TYPE_CODE_BITS(type) == 5)
        codes = vb_or(codes, vb_and(vb_bits((const uint16_t *)(const void *)fifth), vb_set1(16)));
    return FA_TYPE_CENTRE(type) ? vb_sub(codes, vb_set1(FA_TYPE_CENTRE(type))) : codes;
}

/* Of half a block of ggml's: vector number `part`. `scale` is the block's, times V_BYTES_UNIT; products are exact. */
FA_INLINE vf load_codes(const int type, const uint8_t *block, const int half, const int part, vf scale,
                        vf offset)
{
    const vf n = v_of_bytes(numbers_of(type, block, half), part);
    return FA_TYPE_HAS_OFFSET(type) ? v_fma(scale, n, offset) : v_mul(scale, n);
}

/* Of 16 elements of fp8. */
FA_INLINE vf load_fp8(const int type, const uint8_t *at, const int part)
{
    if (type == FA_TYPE_E5M2)
        return v_of_halves(vh_load_e5m2(at), part);
    return v_mul(v_of_halves(vh_load_e4m3(at), part), v_set1(256.0f));
}
#endif

#endif
