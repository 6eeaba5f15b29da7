/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of key blocks in the making: one list of bits at a time, which is then compressed. */
#ifndef FA_CORE_SPARSE_MASK_H
#define FA_CORE_SPARSE_MASK_H

#include <fastattn/sparse.h>
#include <stdbool.h>

#include "core/context.h"

struct fa_block_mask {
    const fa_context *context;
    fa_block_lists lists;
    int32_t *indptr, *indices;
    int64_t offsets, room; /* elements of each */
};

typedef struct fa_list_maker {
    const fa_context *context;
    fa_sparse_shape shape;
    int64_t diagonal; /* p(i) = i + diagonal */
    int64_t row_blocks, key_blocks, words;
    uint64_t *list; /* the bits of the list at hand */
    int64_t lists;  /* that are done */
    fa_block_mask *mask;
} fa_list_maker;

/* What a planner begins with: *mask is NULL, and so is none of what it was given. */
fa_status fa_planner_enter(const fa_context *context, const void *desc, fa_block_mask **mask);

/* Checks the shape, in which block sizes of 0 become `block`. */
fa_status fa_shape_check(fa_sparse_shape *shape, int32_t block);

/* Begins with the first list, which is empty. What is made is released by fa_maker_finish(), whatever this returns. */
fa_status fa_maker_begin(fa_list_maker *maker, const fa_context *context, const fa_sparse_shape *shape,
                         int64_t sequences, int64_t heads);

/* Adds blocks [begin, end) to the list, as far as there are such; or takes them out. */
void fa_maker_add(fa_list_maker *maker, int64_t begin, int64_t end);
void fa_maker_drop(fa_list_maker *maker, int64_t begin, int64_t end);
static inline bool fa_maker_has(const fa_list_maker *maker, int64_t block)
{
    return (maker->list[block / 64] >> (block % 64) & 1) != 0;
}

/* Ends the list, and begins the next. */
fa_status fa_maker_next(fa_list_maker *maker);

/* Hands the mask over if `status` is FA_OK, and releases the rest. Returns `status`. */
fa_status fa_maker_finish(fa_list_maker *maker, fa_status status, fa_block_mask **mask);

/* The position of the last row of a block of rows. */
int64_t fa_maker_last(const fa_list_maker *maker, int64_t row_block);

/* The blocks of keys that the mask shows to a row of the block end here. */
int64_t fa_maker_visible(const fa_list_maker *maker, int64_t row_block);

/* The 64 bits number n of a stream that a seed and two numbers name. */
uint64_t fa_sparse_random(uint64_t seed, uint64_t a, uint64_t b, uint64_t n);

#endif
