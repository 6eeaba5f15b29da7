/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The product of tile_bf16.h with vdpbf16ps of AVX512-BF16: 16 accumulators are more than it has in flight. (With 24,
 * as the f32 micro-kernels have, gcc 12 keeps some operands in memory.)
 */

enum {
    DIM_GRAIN = 2, /* head dims of q and k come in multiples of this */
    KEY_GRAIN = 2, /* keys                                           */
    ROW_GRAIN = 1, /* rows of the left operand                       */
    PAIR_ROWS = 4,
};

static inline void tile_begin(void)
{
}

static inline void tile_end(void)
{
}

FA_INLINE void pairs_tile(const int nv, const int rows, const uint16_t *a, ptrdiff_t stride, const float *b,
                          int pairs, const vf *rescale, const bool add, float *c)
{
    vf acc[PAIR_ROWS][PANEL_VECS];
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < nv; n++) {
            acc[r][n] = add ? v_load(c + r * lane_count(nv) + n * VL) : v_set1(0.0f);
            if (rescale)
                acc[r][n] = v_mul(acc[r][n], rescale[n]);
        }
    }
    for (int p = 0; p < pairs; p++) {
        __m512bh lanes[PANEL_VECS];
        FA_UNROLL
        for (int n = 0; n < nv; n++)
            lanes[n] = (__m512bh)_mm512_loadu_si512(b + p * lane_count(nv) + n * VL);
        FA_UNROLL
        for (int r = 0; r < rows; r++) {
            int bits;
            memcpy(&bits, a + r * stride + 2 * p, sizeof(bits));
            __m512i pair = _mm512_set1_epi32(bits);
            FA_UNROLL
            for (int n = 0; n < nv; n++)
                acc[r][n] = _mm512_dpbf16_ps(acc[r][n], (__m512bh)pair, lanes[n]);
        }
    }
    FA_UNROLL
    for (int r = 0; r < rows; r++) {
        FA_UNROLL
        for (int n = 0; n < nv; n++)
            v_store(c + r * lane_count(nv) + n * VL, acc[r][n]);
    }
}

/* c[row][lane] = (add ? c[row][lane] * rescale[lane] : 0) + sum over pairs of a[row][pair] . b[pair][lane] */
FA_INLINE void pairs_product(const int nv, const uint16_t *a, ptrdiff_t stride, int rows, const float *b,
                             int pairs, const vf *rescale, const bool add, float *c)
{
    int r = 0;
    for (; r + PAIR_ROWS <= rows; r += PAIR_ROWS)
        pairs_tile(nv, PAIR_ROWS, a + r * stride, stride, b, pairs, rescale, add, c + r * lane_count(nv));
    for (; r + 2 <= rows; r += 2)
        pairs_tile(nv, 2, a + r * stride, stride, b, pairs, rescale, add, c + r * lane_count(nv));
    for (; r < rows; r++)
        pairs_tile(nv, 1, a + r * stride, stride, b, pairs, rescale, add, c + r * lane_count(nv));
}
