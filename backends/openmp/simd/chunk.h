/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chunk: a few keys or values, told by where each row lies, in the type that memory has. Rows need not lie evenly
 * apart, and codes become numbers in registers, once for a group of query rows.
 */
#ifndef FA_OPENMP_CHUNK_H
#define FA_OPENMP_CHUNK_H

#include "pack.h"

enum { FEW = 32 /* rows of a chunk at most */, MOST_BLOCKS = FA_MAX_HEAD_DIM / 32 };

typedef struct fa_chunk {
    fa_dtype dtype;
    int count, dim;
    const uint8_t *const *row; /* where each begins; after them, more that are read later                   */
    int far;                   /* the row so many after one is loaded ahead as that is read; 0: none is     */
    float factor;              /* of all scores and weights: 256 for e4m3, read as f16 256 times too small  */
    const uint8_t *made[FEW];  /* where rows begin that `row` has not: in scratch, or the last one repeated */
    /* Of ggml's blocks: of block b of row i, number b * FEW + i. */
    float scale[MOST_BLOCKS * FEW], offset[MOST_BLOCKS * FEW];
} fa_chunk;

/* How many rows of that type and so many elements a chunk takes: fewer where FEW are over 8 KiB of the first-level cache. */
static inline int chunk_rows(fa_dtype dtype, int dim)
{
    return FA_TYPE_SPAN(dtype, dim) * FEW <= 8192 ? FEW : FEW / 2;
}

/* Whether rows of that type and so many elements are read as chunks. */
static inline bool has_chunks(fa_dtype dtype, int dim)
{
    return VL > 1 && dtype <= FA_IQ4_NL && dim % 16 == 0 &&
           (!FA_TYPE_IS_CODED(dtype) || dim % (1 << FA_TYPE_BLOCK_SHIFT(dtype)) == 0);
}

/*
 * Of a chunk whose rows are told: reads what scales their blocks. fp8 becomes f16 in `scratch`, which is at 64 bytes and
 * has room for FEW rows; that is cheaper than to decode it in registers between the products. NULL serves other types.
 */
void FA_ISA_NAME(chunk_prepare)(fa_chunk *chunk, uint16_t *scratch);

/* s[row][i] of `rows` query rows, which are f32 in q, and of the chunk's keys. */
void FA_ISA_NAME(chunk_scores)(const fa_chunk *chunk, int rows, const float *q, int q_stride, float *s,
                               int s_stride);

/* o[row][..] += p[row][i] * row i of the chunk. The weights p may be changed. */
void FA_ISA_NAME(chunk_values)(const fa_chunk *chunk, int rows, float *p, int p_stride, float *o,
                               int o_stride);

#endif
