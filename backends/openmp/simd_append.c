/* SPDX-License-Identifier: Apache-2.0 */
/* A row of new keys or values into a cache. Plain types and q8_0 are written in vectors, to the bits of plain C. */
#include <fastattn/reference.h>

#include "backends/openmp/kernel.h"
#include "simd/pack.h"

#if FA_ISA_IS != FA_ISA_scalar
#include "core/portable/encode.h"

enum { BLOCK = 32 };

static void encode_q8_0(const float *x, uint8_t *block)
{
    const vf zero = v_set1(0.0f);
    vf peak = zero, total = zero;
    FA_UNROLL
    for (int i = 0; i < BLOCK; i += VL) {
        const vf value = v_load(x + i);
        peak = v_max(v_abs(value), peak);
        total = v_fma(value, zero, total);
    }
    fa_block_range range = fa_block_range_of(v_top(peak));
    range.finite = v_sum(total) == 0.0f;
    const fa_coder coder = fa_coder_of(FA_TYPE_Q8_0, range);
    *(uint16_t *)(void *)block = (uint16_t)fa_f16_narrow(coder.scale);
    FA_UNROLL
    for (int i = 0; i < BLOCK; i += VL) {
        const vf value = coder.inverse != 0.0f ? v_mul(v_load(x + i), v_set1(coder.inverse)) : zero;
        v_store_nearest(block + 2 + i, value);
    }
}
#else
static void encode_q8_0(const float *x, uint8_t *block)
{
    fa_elements_store(FA_Q8_0, block, 0, x, 32);
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
    float x[FA_MAX_HEAD_DIM];
    convert_rows(source, from, at, 0, 1, dim, x, 0);
    switch (dtype) {
    case FA_F32: store_plain(FA_F32, to, index, x, dim); break;
    case FA_F16: store_plain(FA_F16, to, index, x, dim); break;
    case FA_BF16: store_plain(FA_BF16, to, index, x, dim); break;
    case FA_Q8_0:
        for (int d = 0; d < dim; d += 32)
            encode_q8_0(x + d, (uint8_t *)to + FA_TYPE_SPAN(FA_TYPE_Q8_0, index + d));
        break;
    default: fa_elements_store(dtype, to, index, x, dim);
    }
}
