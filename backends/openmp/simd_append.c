/* SPDX-License-Identifier: Apache-2.0 */
/* A row of new keys or values into a cache. Plain types and q8_0 are written in vectors, to the bits of plain C. */
#include <fastattn/reference.h>

#include "backends/openmp/kernel.h"
#include "simd/pack.h"

#if FA_ISA_IS != FA_ISA_scalar
enum { BLOCK = 32 };

/*
 * A row: of all its blocks the largest magnitudes first, then their scales together. False: some element is not finite,
 * and nothing is written.
 */
static bool encode_q8_0(const float *x, int dim, uint8_t *row)
{
    enum { MOST = FA_MAX_HEAD_DIM / BLOCK + VL };
    const vf zero = v_set1(0.0f);
    const int blocks = dim / BLOCK;
    float peak[MOST], inverse[MOST];
    uint16_t scale[MOST];
    bool finite = true;
    for (int b = 0; b < blocks; b++) {
        vf top = zero, total = zero;
        FA_UNROLL
        for (int i = 0; i < BLOCK; i += VL) {
            const vf value = v_load(x + b * BLOCK + i);
            top = v_max(v_abs(value), top);
            total = v_fma(value, zero, total);
        }
        finite = finite && v_all_equal(total, zero);
        peak[b] = v_top(top);
    }
    if (!finite)
        return false;
    v_store(peak + blocks, zero);
    for (int b = 0; b < blocks; b += VL) { /* as fa_coder_of() has it */
        const vf d = v_div(v_load(peak + b), v_set1(127.0f)), by = v_div(v_set1(1.0f), d);
        const vf number = v_if_less(by, v_set1(INFINITY), by, zero); /* of 0 and the smallest it is not */
        v_store(inverse + b, number);
        v_store_f16(scale + b, v_if_less(zero, number, d, zero));
    }
    for (int b = 0; b < blocks; b++, row += FA_TYPE_SIZE(FA_TYPE_Q8_0)) {
        const vf by = v_set1(inverse[b]);
        *(uint16_t *)(void *)row = scale[b];
        FA_UNROLL
        for (int i = 0; i < BLOCK; i += VL)
            v_store_nearest(row + 2 + i, v_mul(v_load(x + b * BLOCK + i), by));
    }
    return true;
}
#else
static bool encode_q8_0(const float *x, int dim, uint8_t *row)
{
    (void)x, (void)dim, (void)row;
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
    const float *x = source == FA_F32 ? (const float *)from + at : made;
    if (source != FA_F32)
        convert_rows(source, from, at, 0, 1, dim, made, 0);
    switch (dtype) {
    case FA_F32: store_plain(FA_F32, to, index, x, dim); break;
    case FA_F16: store_plain(FA_F16, to, index, x, dim); break;
    case FA_BF16: store_plain(FA_BF16, to, index, x, dim); break;
    case FA_Q8_0:
        if (!encode_q8_0(x, dim, (uint8_t *)to + FA_TYPE_SPAN(FA_TYPE_Q8_0, index)))
            fa_elements_store(dtype, to, index, x, dim);
        break;
    default: fa_elements_store(dtype, to, index, x, dim);
    }
}
