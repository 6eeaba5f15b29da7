/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host hands to the kernels of a GPU, as one table in device memory: parameters, then lists. 64-bit members
 * come first, so that no compiler inserts padding. Strides and offsets are in elements. GLSL, which has no such structs
 * everywhere, reads the table by words: it sees the flags only, and shaders/vulkan/constants.h says where words are.
 */
#ifndef FA_PORTABLE_TABLE_H
#define FA_PORTABLE_TABLE_H

#include "mask.h"
#include "score.h"

/* Flags of fa_table_params.flags. */
#define FA_TABLE_ALIBI 1
#define FA_TABLE_BIAS 2
#define FA_TABLE_KEEP 4
#define FA_TABLE_SINKS 8
#define FA_TABLE_LSE 16
#define FA_TABLE_BIAS_FACTORS 32

#ifndef FA_LANG_GLSL
#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
typedef long fa_long;
#elif defined(__CUDACC_RTC__)
typedef long long fa_long;
#else
#include <stdint.h>
typedef int64_t fa_long;
#endif

typedef struct fa_table_params {
    fa_long q_stride[3], k_stride[3], v_stride[3], o_stride[3];     /* batch, head, row */
    fa_long bias_stride[4], keep_stride[4];                         /* 0 where the axis is repeated */
    fa_long sequences_at, items_at, merges_at, slopes_at, sinks_at; /* bytes into the table */
    int heads_q, group, dim_qk, dim_v, lse_rows, bias_type;
    fa_score score;
    int flags;
    int slope_stride; /* between the slopes of two sequences; 0: all have the same */
    int factors_at;   /* bytes into the table: factors of the bias */
} fa_table_params;

typedef struct fa_table_sequence {
    fa_long q_at, k_at, v_at, o_at; /* of its first row */
    fa_long lse_at;
    int number; /* index into bias and keep */
    fa_mask mask;
} fa_table_sequence;

typedef struct fa_table_item {
    fa_long part_row;
    int sequence, head_kv, row_begin, row_end, key_begin, key_end;
} fa_table_item;

typedef struct fa_table_merge {
    fa_long part_row;
    int sequence, head_kv, row_begin, row_end, parts, unused;
} fa_table_merge;

#endif

#endif
