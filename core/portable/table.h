/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work of a run, as the host hands it to kernels: one table in memory, parameters, then lists. 64-bit members come
 * first, so that no compiler inserts padding, GLSL's std430 least of all. Strides and offsets are in elements. A
 * list begins at a multiple of the size of its entries, and is told by the number of its first entry, counted from the
 * table's beginning.
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
#define FA_TABLE_PAGES 64
#define FA_TABLE_LISTS 128
#define FA_TABLE_LIST_CUTS 256 /* a kernel's blocks are in several of the lists': single rows and keys tell */
#define FA_TABLE_NEAR 512      /* rows see a neighbourhood of keys */

/* Tokens of a box of a neighbourhood, which are 1 << FA_NEAR_SHIFT. */
#define FA_NEAR_SHIFT 6
#define FA_NEAR_BLOCK (1 << FA_NEAR_SHIFT)

/* Where the scale and the zero of an element of k or v lie, in elements of their tensors: see scales.h. And the bytes of a row. */
FA_STRUCT(fa_scales)
    fa_long scale_stride[4], zero_stride[4]; /* batch or page, head, group of keys, group of dims */
    int scale_type, zero_type;               /* -1: none                                          */
    int keys, keys_shift;                    /* of a group, which are 1 << keys_shift or it is -1 */
    int dims, dims_shift;                    /* likewise                                          */
    float factor;                            /* of the scales                                     */
    int row_bytes;                           /* of rows that keep some elements; else 0   */
FA_STRUCT_END(fa_scales)

FA_STRUCT(fa_table_params)
    fa_long q_stride[3], k_stride[3], v_stride[3], o_stride[3]; /* batch, head, row */
    fa_long bias_stride[4], keep_stride[4];                     /* 0 where the axis is repeated */
    fa_long plan;                                               /* whose work it is, for the host */
    fa_long partial_rows;                                       /* rows of partial results */
    fa_long page_stride; /* entries of the page table between two sequences */
    fa_scales k_scales, v_scales;
    int items, merges;                     /* of the lists; further entries mean nothing */
    int workers;                           /* of the items, on a CPU */
    int sequences_at, items_at, merges_at; /* first entries of lists */
    int slopes_at, sinks_at, factors_at;   /* likewise, of floats; the last multiply a head's bias */
    int page_size, page_shift;             /* keys of a page, which are 1 << page_shift or it is -1 */
    int pages;                             /* of the pool; 0: keys do not lie in pages */
    int group, dim_qk, dim_v, lse_rows, bias_type;
    fa_score score;
    int flags;
    int slope_stride; /* between the slopes of two sequences; 0: all have the same */
    int keep_bits;    /* 1: keep holds 32 keys in an element                        */
    int keep_last;    /* its bits are of so many keys at the end; 0: of all         */
    /* Lists of key blocks, a bit each: the first word, rows and keys of a block, words of a list, query heads that share a list,
     * words between the lists of heads and of sequences. */
    int lists_at, list_rows, list_keys, list_words, list_heads, list_head_stride, list_sequence_stride;
    /* A neighbourhood, see near.h: its first word, tokens of the grid, the guards of a word. */
    int near_at, near_tokens;
    fa_uint near_guards;
FA_STRUCT_END(fa_table_params)

FA_STRUCT(fa_table_sequence)
    fa_long q_at, k_at, v_at, o_at; /* of its first row; in pages, k_at and v_at are 0 */
    fa_long lse_at;
    int number; /* index into bias, keep and the page table */
    fa_mask mask;
    int first; /* the number of the first key that it uses: keys count from that one on */
    int row; /* of that key in k and v. In pages, how many the pool has; -1: lengths go beyond the page table,
                * and the sequence may have none of them */
    int rows; /* of q */
    int unused;
FA_STRUCT_END(fa_table_sequence)

FA_STRUCT(fa_table_item)
    fa_long part_row; /* its first row among the partial results; -1: it writes o itself */
    int sequence, head_kv, row_begin, row_end, key_begin, key_end;
FA_STRUCT_END(fa_table_item)

FA_STRUCT(fa_table_merge)
    fa_long part_row; /* the first part's */
    int sequence, head_kv, row_begin, row_end, parts, unused;
FA_STRUCT_END(fa_table_merge)

#endif
