/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host hands to the OpenCL kernels, as one table in device memory; compiled by both. 64-bit members come
 * first, so that no compiler inserts padding. Strides and offsets are in elements.
 */
#ifndef FA_OPENCL_ARGS_H
#define FA_OPENCL_ARGS_H

#include "core/portable/mask.h"

#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
typedef long fa_long;
#else
#include <stdint.h>
typedef int64_t fa_long;
#endif

/* Flags of fa_cl_params.flags. */
#define FA_CL_SOFTCAP 1
#define FA_CL_ALIBI 2
#define FA_CL_BIAS 4
#define FA_CL_KEEP 8
#define FA_CL_SINKS 16
#define FA_CL_LSE 32

typedef struct fa_cl_params {
    fa_long q_stride[3], k_stride[3], v_stride[3], o_stride[3]; /* batch, head, row */
    fa_long bias_stride[4], keep_stride[4];                     /* 0 where the axis is repeated */
    fa_long sequences_at, items_at, merges_at, slopes_at, sinks_at; /* bytes into the table */
    int heads_q, group, dim_qk, dim_v, lse_rows, bias_type;
    float scale_log2;           /* of raw scores */
    float tanh_scale, cap_log2; /* with a softcap: cap_log2 * tanh(tanh_scale * score) instead */
    int flags;
} fa_cl_params;

typedef struct fa_cl_sequence {
    fa_long q_at, k_at, v_at, o_at; /* of its first row */
    fa_long lse_at;
    int number; /* index into bias and keep */
    fa_mask mask;
} fa_cl_sequence;

typedef struct fa_cl_item {
    fa_long part_row;
    int sequence, head_kv, row_begin, row_end, key_begin, key_end;
} fa_cl_item;

typedef struct fa_cl_merge {
    fa_long part_row;
    int sequence, head_kv, row_begin, row_end, parts, unused;
} fa_cl_merge;

#endif
