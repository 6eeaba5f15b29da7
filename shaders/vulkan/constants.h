/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host and the Vulkan kernels agree on, compiled by both: specialisation constants by number, operands by
 * slot, and where the members of the plan's table (core/portable/table.h) lie, in words of 32 bits.
 */
#ifndef FA_VULKAN_CONSTANTS_H
#define FA_VULKAN_CONSTANTS_H

#define FA_VK_TYPE_Q 0 /* of operands, as fa_dtype has them */
#define FA_VK_TYPE_K 1
#define FA_VK_TYPE_V 2
#define FA_VK_TYPE_O 3
#define FA_VK_TRANSFORM 4 /* scores are more than scaled and masked */
#define FA_VK_ALIGNED 5   /* rows lie at multiples of 16 bytes, head dims are multiples of eight */
#define FA_VK_HIDES 6     /* standard: some row does not see every key */
#define FA_VK_BLOCK_Q 7
#define FA_VK_BLOCK_KV 8
#define FA_VK_LANES 9    /* work-items beside each other */
#define FA_VK_DEPTH 10   /* dims, or keys, of a step */
#define FA_VK_BUFFERS 11 /* steps in shared memory at a time */
#define FA_VK_DIM_QK 12  /* rounded up to what the kernel takes at once */
#define FA_VK_DIM_V 13
#define FA_VK_GROUP 14    /* work-items of a work-group */
#define FA_VK_SPLIT 15    /* work-items that share a key */
#define FA_VK_WHOLE_QK 16 /* head dims are not rounded up */
#define FA_VK_WHOLE_V 17
#define FA_VK_SUBGROUP 18 /* work-items of a subgroup; 1 where there are none */
#define FA_VK_ROWS 19
#define FA_VK_COLS 20
#define FA_VK_FAR 21   /* strides of keys and values need more than 31 bits */
#define FA_VK_TILES 22 /* matrix: tiles of 16 rows of a subgroup */
/* How a subgroup holds fragments of 16 by 16, as far as registers alone can turn scores into weights. */
#define FA_VK_LAYOUT_ROWS 23  /* rows that a work-item has elements of; 0: shared memory is used instead */
#define FA_VK_LAYOUT_SLOTS 24 /* of each element of an accumulator, 3 bits: which of these rows it is of */
#define FA_VK_LAYOUT_LANES 25 /* bits of a work-item's number that those with the same rows differ in */
#define FA_VK_LAYOUT_ELEMENTS \
    26                    /* of each element of the first operand, 3 bits: the accumulator's in its place */
#define FA_VK_IN_PARTS 27 /* tile: scores are summed over 64 dims at a time */
#define FA_VK_CONSTANTS 32

#define FA_VK_SLOT_TABLE 0
#define FA_VK_SLOT_Q 1
#define FA_VK_SLOT_K 2
#define FA_VK_SLOT_V 3
#define FA_VK_SLOT_O 4
#define FA_VK_SLOT_BIAS 5
#define FA_VK_SLOT_KEEP 6
#define FA_VK_SLOT_LSE 7
#define FA_VK_SLOT_PARTIAL 8 /* standard: the scores */
#define FA_VK_SLOT_STATE 9   /* standard: the factors of rows */
#define FA_VK_SLOTS 10

#define FA_VK_WORD_Q_STRIDE 0
#define FA_VK_WORD_K_STRIDE 6
#define FA_VK_WORD_V_STRIDE 12
#define FA_VK_WORD_O_STRIDE 18
#define FA_VK_WORD_BIAS_STRIDE 24
#define FA_VK_WORD_KEEP_STRIDE 32
#define FA_VK_WORD_SEQUENCES_AT 40
#define FA_VK_WORD_ITEMS_AT 42
#define FA_VK_WORD_MERGES_AT 44
#define FA_VK_WORD_SLOPES_AT 46
#define FA_VK_WORD_SINKS_AT 48
#define FA_VK_WORD_GROUP 51
#define FA_VK_WORD_DIM_QK 52
#define FA_VK_WORD_DIM_V 53
#define FA_VK_WORD_LSE_ROWS 54
#define FA_VK_WORD_BIAS_TYPE 55
#define FA_VK_WORD_SCORE 56 /* seven words: an fa_score */
#define FA_VK_WORD_FLAGS 63
#define FA_VK_WORD_SLOPE_STRIDE 64
#define FA_VK_WORD_FACTORS_AT 65
#define FA_VK_WORDS_SEQUENCE 16
#define FA_VK_WORD_Q_AT 0 /* of a sequence */
#define FA_VK_WORD_K_AT 2
#define FA_VK_WORD_V_AT 4
#define FA_VK_WORD_O_AT 6
#define FA_VK_WORD_LSE_AT 8
#define FA_VK_WORD_NUMBER 10
#define FA_VK_WORD_MASK 11
#define FA_VK_WORDS_ITEM 8 /* of a work item and of a merge item */
#define FA_VK_WORD_PART_ROW 0
#define FA_VK_WORD_SEQUENCE 2
#define FA_VK_WORD_HEAD_KV 3
#define FA_VK_WORD_ROW_BEGIN 4
#define FA_VK_WORD_ROW_END 5
#define FA_VK_WORD_KEY_BEGIN 6
#define FA_VK_WORD_KEY_END 7
#define FA_VK_WORD_PARTS 6 /* of a merge item */

#endif
