/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of bf16 with sums in f32, see tile.h. The instructions multiply pairs and add the two products, so
 * both operands lie in pairs along the dimension that is summed over: q as [dim / 2][lane], weights as
 * [key / 2][lane]. K is summed over its head dim and lies right as it comes. V is summed over keys: a block of
 * it is transposed, once for all panels. Both products are then the same one, pairs_product().
 */
#include <string.h>

#if FA_ISA_IS == FA_ISA_amx
#include "pairs_amx.h"
#else
#include "pairs_avx512.h"
#endif

enum { KEYS_AS_VALUES = 0 }; /* V is transposed */

static const fa_dtype copy_type = FA_BF16;

/* bf16 elements. */
typedef struct tile_operand {
    const uint16_t *base;
    ptrdiff_t stride;
} tile_operand;

static inline int round_to(int n, int grain)
{
    return (n + grain - 1) / grain * grain;
}

static inline int q_vectors(int dim)
{
    return round_to(dim, DIM_GRAIN) / 2;
}

static inline int o_vectors(int dim)
{
    return round_to(dim, ROW_GRAIN);
}

/* Elements from row to row: whole cache lines, an odd number of them so that rows do not share a cache set. */
static inline ptrdiff_t row_stride(int count)
{
    return (round_to(count, 32) / 32 | 1) * 32;
}

static inline size_t k_floats(int keys, int dim)
{
    return (size_t)round_to(keys, KEY_GRAIN) * (size_t)row_stride(dim) / 2;
}

static inline size_t v_floats(int keys, int dim)
{
    return (size_t)o_vectors(dim) * (size_t)row_stride(keys) / 2;
}

/* The first `count` of 16 or 32 elements, the others 0 and not touched. */
static inline __m512i load_32(const uint16_t *from, int count)
{
    return _mm512_maskz_loadu_epi16(count < 32 ? (1u << count) - 1 : ~0u, from);
}

static inline __m512i load_16_wide(const uint16_t *from, int count)
{
    __mmask16 mask = (__mmask16)(count < 16 ? (1u << count) - 1 : 0xffff);
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

static inline void copy_rows(const typed_rows *from, int rows, int dim, void *target)
{
    const uint16_t *source = (const uint16_t *)from->base + from->index;
    for (int r = 0; r < rows; r++)
        memcpy((uint16_t *)target + r * row_stride(dim), source + r * from->stride,
               (size_t)dim * sizeof(*source));
}

/* Copied with zeros behind each row and behind the last where products read further than there are elements. */
static inline tile_operand fetch_keys(const typed_rows *from, int rows, int dim, float *scratch)
{
    int padded = round_to(dim, DIM_GRAIN);
    const uint16_t *source = (const uint16_t *)from->base + from->index;
    if (dim == padded && rows % KEY_GRAIN == 0 && !far_apart(from, row_stride(dim)))
        return (tile_operand){source, (ptrdiff_t)from->stride};
    tile_operand made = {(const uint16_t *)scratch, row_stride(dim)};
    for (int r = 0; r < round_to(rows, KEY_GRAIN); r++) {
        for (int d = 0; d < padded; d += 32) {
            __m512i part =
                r < rows ? load_32(source + r * from->stride + d, dim - d) : _mm512_setzero_si512();
            _mm512_storeu_si512((uint16_t *)scratch + r * made.stride + d, part);
        }
    }
    return made;
}

/* [dim][key], zeros behind the last key. */
static inline tile_operand fetch_values(const typed_rows *from, int rows, int dim, int block_kv,
                                        float *scratch)
{
    const uint16_t *source = (const uint16_t *)from->base + from->index;
    tile_operand made = {(const uint16_t *)scratch, row_stride(block_kv)};
    for (int key = 0; key < rows; key += 2 * VL) {
        for (int d = 0; d < dim; d += VL) {
            vf block[VL];
            for (int i = 0; i < VL; i++) {
                int even = key + 2 * i;
                const uint16_t *at = source + even * from->stride + d;
                __m512i two = even < rows ? load_16_wide(at, dim - d) : _mm512_setzero_si512();
                if (even + 1 < rows)
                    two =
                        _mm512_or_si512(two, _mm512_slli_epi32(load_16_wide(at + from->stride, dim - d), 16));
                block[i] = _mm512_castsi512_ps(two);
            }
            v_transpose(block);
            for (int i = 0; i < VL && d + i < dim; i++)
                _mm512_storeu_ps((uint16_t *)scratch + (d + i) * made.stride + key, block[i]);
        }
    }
    return made;
}

static inline tile_operand clean_values(const typed_rows *from, int rows, int dim, int block_kv,
                                        float *scratch)
{
    const uint16_t exponent = 0x7f80;
    tile_operand made = fetch_values(from, rows, dim, block_kv, scratch);
    for (int d = 0; d < dim; d++) {
        uint16_t *row = (uint16_t *)scratch + d * made.stride;
        for (int key = 0; key < rows; key++)
            row[key] = (row[key] & exponent) == exponent ? 0 : row[key];
    }
    return made;
}

static inline tile_operand keys_from(tile_operand k, int key)
{
    return (tile_operand){k.base + key * k.stride, k.stride};
}

static inline tile_operand values_from(tile_operand v, int key)
{
    return (tile_operand){v.base + key, v.stride};
}

static inline void pack_queries(fa_dtype dtype, const void *base, const int64_t row[PANEL], int count, int nv,
                                int dim, float *qt)
{
    (void)dtype;
    for (int lane = 0; lane < lane_count(nv); lane += VL) {
        for (int pair = 0; pair < q_vectors(dim); pair += VL) {
            vf block[VL];
            for (int i = 0; i < VL; i++) {
                const uint16_t *from = (const uint16_t *)base + row[lane + i] + 2 * pair;
                block[i] =
                    lane + i < count ? _mm512_castsi512_ps(load_32(from, dim - 2 * pair)) : v_set1(0.0f);
            }
            v_transpose(block);
            for (int i = 0; i < VL && pair + i < q_vectors(dim); i++)
                v_store(qt + (pair + i) * lane_count(nv) + lane, block[i]);
        }
    }
}

FA_INLINE void tile_scores(const int nv, const float *qt, tile_operand k, int dim, int keys, rows_ahead ahead,
                           float *st, vf max[PANEL_VECS])
{
    (void)ahead;
    vf top[PANEL_VECS]; /* not in *max, which others have the address of: it would be stored at each key */
    pairs_product(nv, k.base, k.stride, round_to(keys, KEY_GRAIN), qt, q_vectors(dim), NULL, false, st);
    FA_UNROLL
    for (int n = 0; n < nv; n++)
        top[n] = max[n];
    for (int j = 0; j < keys; j++) {
        FA_UNROLL
        for (int n = 0; n < nv; n++)
            top[n] = v_max(top[n], v_load(st + j * lane_count(nv) + n * VL));
    }
    FA_UNROLL
    for (int n = 0; n < nv; n++)
        max[n] = top[n];
}

/* a in the lower halves of the lanes, b in the upper ones, both rounded to bf16. */
static inline vf v_pair(vf a, vf b)
{
    const __m512i interleave = _mm512_add_epi32(_mm512_mullo_epi32(vi_count(0), _mm512_set1_epi32(0x10001)),
                                                _mm512_set1_epi32(0x100000));
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
}

/* Two rows of scores become one of pairs, which lies before what is still to be read. */
FA_INLINE void tile_weights(const int nv, float *st, int keys, vf factor, const vf max[PANEL_VECS],
                            vf sum[PANEL_VECS])
{
    int j = 0;
    for (; j + 2 <= keys; j += 2) {
        FA_UNROLL
        for (int n = 0; n < nv; n++) {
            const float *at = st + j * lane_count(nv) + n * VL;
            vf even = v_exp2(v_mul(v_sub(v_load(at), max[n]), factor));
            vf odd = v_exp2(v_mul(v_sub(v_load(at + lane_count(nv)), max[n]), factor));
            v_store(st + j / 2 * lane_count(nv) + n * VL, v_pair(even, odd));
            sum[n] = v_add(sum[n], v_add(even, odd));
        }
    }
    for (; j < round_to(keys, KEY_GRAIN); j += 2) {
        FA_UNROLL
        for (int n = 0; n < nv; n++) {
            vf even = v_set1(0.0f);
            if (j < keys)
                even = v_exp2(v_mul(v_sub(v_load(st + j * lane_count(nv) + n * VL), max[n]), factor));
            v_store(st + j / 2 * lane_count(nv) + n * VL, v_pair(even, v_set1(0.0f)));
            sum[n] = v_add(sum[n], even);
        }
    }
}

static inline float weight_at(const float *weights, int nv, int key, int lane)
{
    uint32_t pair = fa_as_uint(weights[key / 2 * lane_count(nv) + lane]);
    return fa_as_float(key % 2 ? pair & 0xffff0000u : pair << 16);
}

FA_INLINE void tile_values(const int nv, const float *weights, tile_operand v, int keys, int dim,
                           const vf *rescale, bool rescales, rows_ahead ahead, float *ot)
{
    (void)ahead;
    pairs_product(nv, v.base, v.stride, dim, weights, round_to(keys, KEY_GRAIN) / 2,
                  rescales ? rescale : NULL, true, ot);
}
