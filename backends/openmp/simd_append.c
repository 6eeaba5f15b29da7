/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of new keys or values, heads of one token together, into a cache. Plain types and q8_0 are written in vectors, to the
 * bits of plain C.
 */
#include <fastattn/reference.h>

#include "backends/openmp/kernel.h"
#include "simd/pack.h"

/* New rows, and where they go: elements from one to the next. */
typedef struct moved_rows {
    const void *from;
    int64_t at, stride;
    uint8_t *to;
    int64_t to_stride;
    int rows, dim;
} moved_rows;

#if FA_ISA_IS != FA_ISA_scalar
enum { BLOCK = 32, BLOCKS_TOGETHER = 64 };
_Static_assert(FA_MAX_HEAD_DIM <= BLOCKS_TOGETHER * BLOCK, "a row is encoded at once");

/*
 * Rows of plain elements, BLOCKS_TOGETHER blocks at most: of all blocks the largest magnitudes first, in their own type, then the
 * scales together, then the codes: no step waits for the one before. False: some element is not finite, or twice a
 * scale's inverse might not be, and nothing is written.
 */
FA_INLINE bool encode_q8_0(const fa_dtype source, const moved_rows *m)
{
    enum { MOST = BLOCKS_TOGETHER + VL };
    const vf zero = v_set1(0.0f);
    const int blocks = m->dim / BLOCK, count = m->rows * blocks;
    const uint32_t infinite = source == FA_F32 ? 0x7f800000u : source == FA_F16 ? 0x7c00u : 0x7f80u;
    const uint32_t least = source == FA_F32 ? 0x04000000u : source == FA_F16 ? 1u : 0x0400u; /* 2^-119 */
    uint32_t worst = 0;
    uint16_t narrow[MOST], scale[MOST];
    float wide[MOST], twice[MOST];
    bool tiny = false;
    for (int r = 0, n = 0; r < m->rows; r++) {
        const int64_t at = m->at + r * m->stride;
        for (int d = 0; d < m->dim; d += BLOCK, n++) {
            const uint32_t peak = source == FA_F32 ? v_peak32((const float *)m->from + at + d)
                                                   : v_peak32_half((const uint16_t *)m->from + at + d);
            wide[n] = fa_as_float(peak);
            narrow[n] = (uint16_t)peak;
            worst = FA_MAX(worst, peak);
            tiny = tiny || (peak > 0 && peak < least);
        }
    }
    if (worst >= infinite || tiny)
        return false;
    memset(wide + count, 0, VL * sizeof(*wide));
    memset(narrow + count, 0, VL * sizeof(*narrow));
    for (int n = 0; n < count; n += VL) { /* as fa_coder_of() has it */
        const vf peak = load_typed(source, source == FA_F32 ? (const void *)wide : (const void *)narrow, n);
        const vf d = v_div(peak, v_set1(127.0f)), by = v_div(v_set1(1.0f), d);
        const vf number = v_if_less(by, v_set1(INFINITY), by, zero); /* of 0 it is not */
        v_store(twice + n, v_add(number, number));
        v_store_f16(scale + n, v_if_less(zero, number, d, zero));
    }
    for (int r = 0, n = 0; r < m->rows; r++) {
        const int64_t at = m->at + r * m->stride;
        uint8_t *block = m->to + FA_TYPE_SPAN(FA_TYPE_Q8_0, r * m->to_stride);
        for (int d = 0; d < m->dim; d += BLOCK, n++, block += FA_TYPE_SIZE(FA_TYPE_Q8_0)) {
            const vf by = v_set1(twice[n]);
            vf x[BLOCK / VL];
            FA_UNROLL
            for (int i = 0; i < BLOCK / VL; i++)
                x[i] = v_mul(load_typed(source, m->from, at + d + i * VL), by);
            *(uint16_t *)(void *)block = scale[n];
            v_store_nearest32(block + 2, x);
        }
    }
    return true;
}

static bool encode_rows_q8_0(fa_dtype source, const moved_rows *m)
{
    switch (source) {
    case FA_F32: return encode_q8_0(FA_F32, m);
    case FA_F16: return encode_q8_0(FA_F16, m);
    case FA_BF16: return encode_q8_0(FA_BF16, m);
    default: return false;
    }
}

/* How many rows are encoded together. */
static int rows_q8_0(int dim)
{
    return BLOCKS_TOGETHER * BLOCK / dim;
}
#else
static bool encode_rows_q8_0(fa_dtype source, const moved_rows *m)
{
    (void)source, (void)m;
    return false;
}

static int rows_q8_0(int dim)
{
    (void)dim;
    return 1;
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

static void append_row(fa_dtype source, const void *from, int64_t at, fa_dtype dtype, void *to, int64_t index,
                       int dim)
{
    float made[FA_MAX_HEAD_DIM];
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

void FA_ISA_NAME(append_rows)(fa_dtype source, const void *from, int64_t at, int64_t stride, fa_dtype dtype,
                              void *to, int64_t index, int64_t to_stride, int rows, int dim)
{
    for (int r = 0, most = rows; r < rows; at += most * stride, index += most * to_stride, r += most) {
        most = FA_MIN(dtype == FA_Q8_0 ? rows_q8_0(dim) : 1, rows - r);
        if (dtype == FA_Q8_0) {
            moved_rows m = {from,      at,   stride, (uint8_t *)to + FA_TYPE_SPAN(FA_TYPE_Q8_0, index),
                            to_stride, most, dim};
            if (encode_rows_q8_0(source, &m))
                continue;
        }
        for (int i = 0; i < most; i++)
            append_row(source, from, at + i * stride, dtype, to, index + i * to_stride, dim);
    }
}
