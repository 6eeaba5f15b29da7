/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chunk: a few keys or values, told by where each row lies, in the type that memory has. Rows need not lie evenly
 * apart, and codes become numbers in registers, once for a group of query rows.
 */
#ifndef FA_OPENMP_CHUNK_H
#define FA_OPENMP_CHUNK_H

#include "pack.h"

enum { FEW = 16 /* rows of a chunk */, MOST_BLOCKS = FA_MAX_HEAD_DIM / 32 };

typedef struct fa_chunk {
    fa_dtype dtype;
    int count, dim;
    const uint8_t *const *row; /* where each begins; after them, more that are read later   */
    int far;                   /* the row so many after one is loaded ahead as that is read */
    /* Of ggml's blocks: of block b of row i, number i * dim / 32 + b. */
    float scale[MOST_BLOCKS * FEW], offset[MOST_BLOCKS * FEW];
} fa_chunk;

/* Whether rows of that type and so many elements are read as chunks. */
static inline bool has_chunks(fa_dtype dtype, int dim)
{
    return VL > 1 && dtype <= FA_IQ4_NL && dim % 16 == 0 &&
           (!FA_TYPE_IS_CODED(dtype) || dim % (1 << FA_TYPE_BLOCK_SHIFT(dtype)) == 0);
}

/* Of a chunk whose rows are told: reads what scales their blocks. */
void FA_ISA_NAME(chunk_scaling)(fa_chunk *chunk);

/* s[row][i] of `rows` query rows, which are f32 in q, and of the chunk's keys. */
void FA_ISA_NAME(chunk_scores)(const fa_chunk *chunk, int rows, const float *q, int q_stride, float *s,
                               int s_stride);

/* o[row][..] += p[row][i] * row i of the chunk */
void FA_ISA_NAME(chunk_values)(const fa_chunk *chunk, int rows, const float *p, int p_stride, float *o,
                               int o_stride);

#endif
