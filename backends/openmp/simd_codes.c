/* SPDX-License-Identifier: Apache-2.0 */
/* Rows in formats of caches (core/portable/codes.h) made f32. A block's scaling is read once, and so is each code. */
#include "simd/pack.h"

enum { BLOCK = 32 /* elements of a block of ggml's */ };

FA_INLINE const uint8_t *row_at(const int type, const typed_rows *t, int r)
{
    return (const uint8_t *)t->base + FA_TYPE_SPAN(type, row_index(t->row != NULL, t, r));
}

#if FA_ISA_IS == FA_ISA_scalar
FA_INLINE void decode_row(const int type, const uint8_t *at, int dim, float *to)
{
    for (int d = 0; d < dim; d++)
        to[d] = fa_load_coded((fa_dtype)type, at, d);
}
#else
/* The number that each code of iq4_nl stands for. */
static const int8_t iq4_nl_numbers[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

/* The numbers that the codes of half a block stand for, a byte each. */
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
    return vb_sub(codes, vb_set1(FA_TYPE_CENTRE(type)));
}

FA_INLINE void decode_block(const int type, const uint8_t *block, float *to)
{
    const uint16_t *scaling = (const uint16_t *)(const void *)block;
    const vf scale = v_splat_f16(scaling);
    const vf offset = FA_TYPE_HAS_OFFSET(type) ? v_splat_f16(scaling + 1) : v_set1(0.0f);
    FA_UNROLL
    for (int half = 0; half < 2; half++) {
        const vb numbers = numbers_of(type, block, half);
        FA_UNROLL
        for (int part = 0; part < 16 / VL; part++) {
            const vf n = v_of_bytes(numbers, part); /* its product with the scale is exact */
            const vf x = FA_TYPE_HAS_OFFSET(type) ? v_fma(scale, n, offset) : v_mul(scale, n);
            v_store(to + 16 * half + part * VL, x);
        }
    }
}

FA_INLINE void decode_row(const int type, const uint8_t *at, int dim, float *to)
{
    int d = 0;
    if (!FA_TYPE_IS_FP8(type)) {
        for (; d < dim; d += BLOCK, at += FA_TYPE_SIZE(type))
            decode_block(type, at, to + d);
        return;
    }
    for (; d + 16 <= dim; d += 16)
        (type == FA_TYPE_E4M3 ? v_store_e4m3 : v_store_e5m2)(to + d, at + d);
    for (; d < dim; d++)
        to[d] = fa_load_coded((fa_dtype)type, at, d);
}
#endif

FA_INLINE void decode(const int type, const typed_rows *from, int rows, int dim, float *target,
                      ptrdiff_t target_stride)
{
    const int bytes = FA_TYPE_SPAN(type, dim);
    const int64_t stride = FA_TYPE_SPAN(type, from->stride), far = FA_TYPE_SPAN(type, from->far);
    const uint8_t *at = (const uint8_t *)from->base + FA_TYPE_SPAN(type, from->index);
    for (int r = 0; r < rows; r++, at += stride, target += target_stride) {
        at = from->row ? row_at(type, from, r) : at;
        if (from->far) {
            const uint8_t *ahead = from->row ? row_at(type, from, r + (int)from->far) : at + far;
            for (int i = 0; i < bytes; i += LINE_BYTES)
                __builtin_prefetch(ahead + i);
        }
        decode_row(type, at, dim, target);
    }
}

void FA_ISA_NAME(decode_rows)(const typed_rows *from, int rows, int dim, float *target,
                              ptrdiff_t target_stride)
{
#define FORMAT(name) \
    case FA_##name: decode(FA_TYPE_##name, from, rows, dim, target, target_stride); break
    switch (from->dtype) {
        FORMAT(E4M3);
        FORMAT(E5M2);
        FORMAT(Q8_0);
        FORMAT(Q4_0);
        FORMAT(Q4_1);
        FORMAT(Q5_0);
        FORMAT(Q5_1);
        FORMAT(IQ4_NL);
    default: break;
    }
#undef FORMAT
}

static bool is_finite_f16(uint16_t bits)
{
    return (bits & 0x7c00) != 0x7c00;
}

/* Elements of a block of ggml's are finite, or none is: they are what scales them times whole numbers. */
static bool block_finite(int type, const uint8_t *block)
{
    const uint16_t *scaling = (const uint16_t *)(const void *)block;
    return is_finite_f16(scaling[0]) && (!FA_TYPE_HAS_OFFSET(type) || is_finite_f16(scaling[1]));
}

/* Exponent and mantissa of e4m3 are all ones in what is not finite, of e5m2 the exponent is. */
static bool fp8_finite(int type, const uint8_t *at, int count)
{
    const int limit = type == FA_TYPE_E4M3 ? 0x7f : 0x7c;
    int found = 0;
    for (int d = 0; d < count; d++)
        found |= (at[d] & 0x7f) >= limit;
    return !found;
}

bool FA_ISA_NAME(coded_finite)(const typed_rows *t, int rows, int dim)
{
    const int type = (int)t->dtype;
    for (int r = 0; r < rows; r++) {
        const uint8_t *at = row_at(type, t, r);
        if (FA_TYPE_IS_FP8(type) && !fp8_finite(type, at, dim))
            return false;
        for (int d = 0; !FA_TYPE_IS_FP8(type) && d < dim; d += BLOCK) {
            if (!block_finite(type, at + FA_TYPE_SPAN(type, d)))
                return false;
        }
    }
    return true;
}
