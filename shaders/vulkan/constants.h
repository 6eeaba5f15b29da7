/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host and the Vulkan kernels agree on beside core/portable, compiled by both: specialisation constants by
 * number, operands by slot.
 */
#ifndef FA_VULKAN_CONSTANTS_H
#define FA_VULKAN_CONSTANTS_H

#define FA_VK_TYPE_Q 0 /* of operands, as fa_dtype has them */
#define FA_VK_TYPE_K 1
#define FA_VK_TYPE_V 2
#define FA_VK_TYPE_O 3
#define FA_VK_TRANSFORM 4 /* scores are more than scaled and masked */
#define FA_VK_ALIGNED 5   /* rows lie at multiples of 16 bytes, head dims are multiples of eight */
#define FA_VK_PAGES 6     /* keys lie in pages */
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
#define FA_VK_SCALES_K 19 /* tensors of their own scale k: FA_VK_SCALES() of their types; 0: none do */
#define FA_VK_SCALES_V 20
#define FA_VK_SCALES(scale, zero, each) (1 + (scale) + 32 * (1 + (zero)) + 1024 * (each))
#define FA_VK_FAR 21   /* strides of keys and values need more than 31 bits, or their places in a pool do */
#define FA_VK_TILES 22 /* matrix: tiles of 16 rows of a subgroup */
/* How a subgroup holds fragments of 16 by 16, as far as registers alone can turn scores into weights. */
#define FA_VK_LAYOUT_ROWS 23  /* rows that a work-item has elements of; 0: shared memory is used instead */
#define FA_VK_LAYOUT_SLOTS 24 /* of each element of an accumulator, 3 bits: which of these rows it is of */
#define FA_VK_LAYOUT_LANES 25 /* bits of a work-item's number that those with the same rows differ in */
#define FA_VK_LAYOUT_ELEMENTS \
    26 /* of each element of the first operand, 3 bits: the accumulator's in its place */
#define FA_VK_LAYOUT_COLUMNS 27 /* of each element of an accumulator, 3 bits: the first one of its column */
#define FA_VK_IN_PARTS 28       /* tile: scores are summed over 64 dims at a time */
#define FA_VK_LISTS 29          /* there are lists of key blocks */
#define FA_VK_CONSTANT_0 30     /* of a task */
#define FA_VK_CONSTANT_1 31
#define FA_VK_CONSTANT_2 32
#define FA_VK_CONSTANT_3 33
#define FA_VK_CONSTANTS 34

#define FA_VK_SLOT_TABLE 0
#define FA_VK_SLOT_Q 1
#define FA_VK_SLOT_K 2
#define FA_VK_SLOT_V 3
#define FA_VK_SLOT_O 4
#define FA_VK_SLOT_BIAS 5
#define FA_VK_SLOT_KEEP 6
#define FA_VK_SLOT_LSE 7
#define FA_VK_SLOT_PARTIAL 8
#define FA_VK_SLOT_STATE 9
#define FA_VK_SLOT_PAGES 10
#define FA_VK_SLOT_K_SCALE 11
#define FA_VK_SLOT_V_SCALE 12
#define FA_VK_SLOT_K_ZERO 13
#define FA_VK_SLOT_V_ZERO 14
#define FA_VK_SLOTS 15

#endif
