/* SPDX-License-Identifier: Apache-2.0 */
/* A row of new keys or values into a cache. Plain types and q8_0 are written in vectors, to the bits of plain C. */
#include <fastattn/reference.h>

#include "backends/openmp/kernel.h"
#include "simd/pack.h"

#if FA_ISA_IS != FA_ISA_scalar
enum { BLOCK = 32 };

/*
 * A row of plain elements: of all its blocks the largest magnitudes first, in their own type, then their scales together. False:
 * some element is not finite, or twice a scale's inverse might not be, and nothing is written.
 */
FA_INLINE bool encode_q8_0(const fa_dtype source, const void *from, int64_t at, int dim, uint8_t *row)
{
    enum { MOST = FA_MAX_HEAD_DIM / BLOCK + VL };
    const vf zero = v_set1(0.0f);
    const int blocks = dim / BLOCK;
    const uint32_t infinite = source == FA_F32 ? 0x7f800000u : source == FA_F16 ? 0x7c00u : 0x7f80u;
    const uint32_t least = source == FA_F32 ? 0x04000000u : source == FA_F16 ? 1u : 0x0400u; /* 2^-119 */
    uint32_t worst = 0;
    uint16_t narrow[MOST], scale[MOST];
    float wide[MOST], twice[MOST];
    bool tiny = false;
    for (int b = 0; b < blocks; b++) {
        const uint32_t peak = source == FA_F32 ? v_peak32((const float *)from + at + b * BLOCK)
                                               : v_peak32_half((const uint16_t *)from + at + b * BLOCK);
        wide[b] = fa_as_float(peak);
        narrow[b] = (uint16_t)peak;
        worst = FA_MAX(worst, peak);
        tiny = tiny || (peak > 0 && peak < least);
    }
    if (worst >= infinite || tiny)
        return false;
    memset(wide + blocks, 0, VL * sizeof(*wide));
    memset(narrow + blocks, 0, VL * sizeof(*narrow));
    for (int b = 0; b < blocks; b += VL) { /* as fa_coder_of() has it */
        const vf peak = load_typed(source, source == FA_F32 ? (const void *)wide : (const void *)narrow, b);
        const vf d = v_div(peak, v_set1(127.0f)), by = v_div(v_set1(1.0f), d);
        const vf number = v_if_less(by, v_set1(INFINITY), by, zero); /* of 0 it is not */
        v_store(twice + b, v_add(number, number));
        v_store_f16(scale + b, v_if_less(zero, number, d, zero));
    }
    for (int b = 0; b < blocks; b++, row += FA_TYPE_SIZE(FA_TYPE_Q8_0)) {
        const vf by = v_set1(twice[b]);
        vf x[BLOCK / VL];
        FA_UNROLL
        for (int i = 0; i < BLOCK / VL; i++)
            x[i] = v_mul(load_typed(source, from, at + b * BLOCK + i * VL), by);
        *(uint16_t *)(void *)row = scale[b];
        v_store_nearest32(row + 2, x);
    }
    return true;
}

static bool encode_row_q8_0(fa_dtype source, const void *from, int64_t at, int dim, uint8_t *row)
{
    switch (source) {
    case FA_F32: return encode_q8_0(FA_F32, from, at, dim, row);
    case FA_F16: return encode_q8_0(FA_F16, from, at, dim, row);
    case FA_BF16: return encode_q8_0(FA_BF16, from, at, dim, row);
    default: return false;
    }
}
#else
static bool encode_row_q8_0(fa_dtype source, const void *from, int64_t at, int dim, uint8_t *row)
{
    (void)source, (void)from, (void)at, (void)dim, (void)row;
    return false;
}
#endif

FA_INLINE void store_plain(const fa_dtype dtype, void *to, int64_t index, const float *x, int dim)
{
    int d = 0;
    for (; d + VL <= dim; d += VL)
        store_typed(dtype, to, index + d, v_load(x + d));
    for (; d < dim; d++)
        fa_store(dtype, to, index + d, x[d]);
}

void FA_ISA_NAME(append_row)(fa_dtype source, const void *from, int64_t at, fa_dtype dtype, void *to,
                             int64_t index, int dim)
{
    float made[FA_MAX_HEAD_DIM];
    if (dtype == FA_Q8_0 &&
        encode_row_q8_0(source, from, at, dim, (uint8_t *)to + FA_TYPE_SPAN(FA_TYPE_Q8_0, index)))
        return;
    const float *x = source == FA_F32 ? (const float *)from + at : made;
    if (source != FA_F32)
        convert_rows(source, from, at, 0, 1, dim, made, 0);
    switch (dtype) {
    case FA_F32: store_plain(FA_F32, to, index, x, dim); break;
    case FA_F16: store_plain(FA_F16, to, index, x, dim); break;
    case FA_BF16: store_plain(FA_BF16, to, index, x, dim); break;
    default: fa_elements_store(dtype, to, index, x, dim);
    }
}
