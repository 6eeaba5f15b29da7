/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the level-1 loops of simd_tile.c leave to the kind of product: how a block is laid out, and the products
 * themselves. tile_f32.h multiplies f32, tile_bf16.h pairs of bf16. Both define
 *
 *   KEY_GRAIN          a panel meets keys in multiples of this, counted from the block's first
 *   tile_operand       K or V of a block as the products read it
 *   q_vectors(dim)     vectors that a lane group's q fills; o_vectors(dim) likewise its output
 *   k_floats, v_floats scratch for K and V of a block
 *   row_stride(dim)    from row to row in scratch, in elements
 *   copy_type, copy_rows       rows that do not lie evenly apart, made rows of that type in scratch, row_stride() apart
 *   fetch_keys, fetch_values   a block's K and V from rows that do, in place where that is what the products read
 *   KEYS_AS_VALUES     1: V that is the first dims of K is read out of what fetch_keys has made
 *   clean_values       V likewise, in scratch, with 0 for what is not finite
 *   keys_from, values_from     the same, from a key of the block on
 *   pack_queries       lanes of a panel from rows of q
 *   tile_scores        scores of `keys` keys, and each lane's greatest
 *   tile_weights       2^((st - max) * factor) in place, added to each lane's sum
 *   weight_at          one weight of those
 *   tile_values        adds `keys` weighted values to the output, times `rescale`; `rescales`: some factor is not 1
 *   rows_ahead         given to both products: the rows of K or V that the next block will fetch
 *   tile_begin, tile_end       around all of a thread's products of an item
 */
#ifndef FA_OPENMP_TILE_H
#define FA_OPENMP_TILE_H

#include "core/tensor.h"
#include "panel.h"

enum { FAR_APART_BYTES = 2048 };

/* Rows far apart fall into few cache sets and pages: worth a copy even where they could be read in place. `copied` is
 * how far apart a copy's rows are. */
static inline bool far_apart(const typed_rows *rows, ptrdiff_t copied)
{
    return rows->stride > copied && fa_dtype_bytes(rows->dtype, rows->stride) >= FAR_APART_BYTES;
}

#if FA_ISA_PAIRS
#include "tile_bf16.h"
#else
#include "tile_f32.h"
#endif

#endif
