/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Planners of sparse attention: which blocks of keys a block of rows meets, as the field's papers choose them. They are functions on
 * the host, of shapes or of data in host memory, and need no device. What they make are lists for fa_attention_desc.lists.
 * docs/sparse.md has what each promises and what it costs.
 */
#ifndef FASTATTN_SPARSE_H
#define FASTATTN_SPARSE_H

#include "attention.h"
#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Lists of key blocks that the library owns. They never change. Any number of threads may read one. */
typedef struct fa_block_mask fa_block_mask;

/**
 * Fills `lists` with a view of the mask, for fa_attention_desc.lists: compressed rows, each list in ascending order. struct_size is
 * set by the caller. The view is valid until the mask is destroyed. FA_INVALID: NULL, or struct_size is wrong. Thread-safe.
 */
FA_API fa_status fa_block_mask_lists(const fa_block_mask *mask, fa_block_lists *lists);

/** Destroys a mask. Descriptions have copied what they were given. NULL is allowed. Before its context. */
FA_API void fa_block_mask_destroy(fa_block_mask *mask);

/**
 * What every planner is told. Row i stands at key position p(i) = i with FA_MASK_CAUSAL_TOP_LEFT, else p(i) = i + keys - rows. A
 * causal mask leaves blocks out of lists that none of their rows sees. It does not cut within a block: the description's own
 * mask, which is the same, does that.
 */
typedef struct fa_sparse_shape {
    int64_t rows, keys;             /* of a sequence: 1 to FA_MAX_LENGTH                                   */
    int32_t block_rows, block_keys; /* 1 to FA_MAX_LENGTH; 0: what the planner's paper has, named with each */
    fa_mask_kind mask;
} fa_sparse_shape;

/*
 * What holds for every planner. *mask is a new object, which fa_block_mask_destroy() destroys; it is NULL on failure. All that is
 * given is read during the call, and no longer. The same arguments give the same lists, on every machine and in every order of
 * calls. FA_INVALID: NULL where it is not allowed; a field that is wrong, which the message names with its value. FA_OUT_OF_MEMORY: no
 * memory, or more than 2^31 - 1 blocks in all lists. Thread-safe.
 */

/**
 * Sliding window, global and random blocks: Longformer (arXiv 2004.05150), BigBird (arXiv 2007.14062). A block of rows meets the
 * blocks of keys
 *  - of which some key lies from `window_left` keys before to `window_right` keys behind some row's position,
 *  - of the first `global_first` and the last `global_last` blocks of keys,
 *  - of all keys, if one of its rows stands in such a global block,
 *  - that are drawn: `random` further ones, all of the same chance, or as many as there are. Nothing is drawn of what a causal mask
 *    hides.
 *
 * If all five are 0, they are BigBird's: its own block and one on each side (window_left and window_right are block_keys), the first
 * and the last block global, three random ones. Longformer's are window_left = window_right = 256, and its global tokens in
 * the first blocks. Its window is of single keys: lists have whole blocks, and the description's window_left and window_right cut
 * them where no block is global. block_rows and block_keys are 64 if 0.
 */
typedef struct fa_sparse_window_desc {
    size_t struct_size; /* sizeof(fa_sparse_window_desc) */
    fa_sparse_shape shape;
    int64_t window_left, window_right; /* keys beside p(i); 0 to FA_MAX_LENGTH                      */
    int64_t global_first, global_last; /* blocks of keys; 0 to FA_MAX_LENGTH                        */
    int64_t random;                    /* blocks of keys for each block of rows; 0 to FA_MAX_LENGTH */
    uint64_t seed;                     /* of what is drawn                                          */
    int64_t heads;                     /* lists of their own, as what is drawn differs; 0: 1        */
} fa_sparse_window_desc;

/** Makes the lists. */
FA_API fa_status fa_sparse_window(fa_context *context, const fa_sparse_window_desc *desc,
                                  fa_block_mask **mask);

/**
 * A kind for each head: Block-Sparse-Attention (github.com/mit-han-lab/Block-Sparse-Attention), with streaming heads as in StreamingLLM
 * (arXiv 2309.17453) and DuoAttention (arXiv 2410.10819). head_mask_type[h] is
 *  -  0: dense. The head meets all blocks of keys.
 *  - -1: streaming. It meets the first streaming_info[2 h] blocks of keys, the sinks, and streaming_info[2 h + 1] local blocks, which
 *    end with the block of the position of the last row of the block; without a causal mask they are the last blocks of all.
 *  -  n > 0: as base_blockmask number n - 1 says.
 *
 * block_rows and block_keys are 128 if 0. For sinks and windows of single keys, the same in all heads, a description has prefix and
 * window_left, without lists.
 */
typedef struct fa_sparse_streaming_desc {
    size_t struct_size; /* sizeof(fa_sparse_streaming_desc) */
    fa_sparse_shape shape;
    int64_t sequences;             /* that base_blockmask tells apart; 0: 1                        */
    int64_t heads;                 /* query heads, at least 1                                      */
    const int32_t *head_mask_type; /* (heads)                                                      */
    const int32_t *streaming_info; /* (heads, 2), each at least 0; NULL: 1 sink, 3 local blocks    */
    int64_t masks;                 /* base masks; 0: none                                          */
    const uint8_t *base_blockmask; /* (sequences, masks, row blocks, key blocks), not 0 is visible */
} fa_sparse_streaming_desc;

/** Makes the lists. */
FA_API fa_status fa_sparse_streaming(fa_context *context, const fa_sparse_streaming_desc *desc,
                                     fa_block_mask **mask);

/**
 * The blocks of keys whose mean key has the largest products with a row: MoBA (arXiv 2502.13189), FlashMoBA (arXiv 2511.11571). Keys
 * are pooled in chunks, which are the blocks of keys: the mean of a chunk, of those keys that there are. A row meets the `topk` chunks
 * of the largest products of the row of q with the mean. With a causal mask, chunks before the row's own are chosen from, and the
 * row's own is always one of the `topk`. Of equal products the chunk that comes first is taken; one that is no number comes last.
 * Products are summed in double.
 *
 * A block of rows meets what one of its rows does. With block_rows 1 (0 is 1) the lists are the paper's, for each row and query
 * head. More rows, or lists for each KV head (`per_kv_head`), give more blocks than the paper's, and fewer lists. block_keys is
 * 128 if 0, and topk 8.
 */
typedef struct fa_sparse_topk_desc {
    size_t struct_size; /* sizeof(fa_sparse_topk_desc) */
    fa_sparse_shape shape;
    int64_t heads_q, heads_kv; /* heads_q is a multiple                                          */
    int64_t dim;               /* 1 to FA_MAX_LENGTH                                             */
    const float *q, *k;        /* (heads_q, rows, dim) and (heads_kv, keys, dim), contiguous     */
    int64_t topk;              /* 1 to FA_MAX_LENGTH; 0: 8                                       */
    int32_t
        per_kv_head; /* 1: query heads of a KV head share lists, which have the chunks of all; 0: each has its own */
} fa_sparse_topk_desc;

/** Makes the lists. */
FA_API fa_status fa_sparse_topk(fa_context *context, const fa_sparse_topk_desc *desc, fa_block_mask **mask);

/**
 * Keys sorted within segments, then blocks by a threshold: PBS-Attn (arXiv 2510.21270). Rows are as many as keys.
 *  - The keys of a segment are sorted, the one that the last block_rows rows give most weight first: the mean of their softmax over the
 *    keys that they see, and over the query heads of the KV head. Of equal ones the lower key comes first.
 *  - Blocks of rows of q and of sorted keys are pooled to their means. A block of rows scores the blocks of keys of other segments,
 *    with a causal mask of those before its own: softmax of scale times their products. It meets the fewest blocks whose sum is
 *    `threshold` or more; further all blocks of its own segment, and the block that key 0 is in.
 * Sums are in double. block_rows and block_keys are 128 if 0. The paper's sorts are for each query head; with as many KV heads
 * these are the same.
 *
 * `order` tells where keys go: key p of head h, as the lists count them, is key order[h * keys + p] of k and v, which the caller
 * moves. Without a causal mask that is all: the order of keys does not matter to a softmax. With one, the description has none,
 * as it would cut by the new order: what a row may see of other segments are whole blocks, but of its own segment it sees keys
 * whose old number is at most its own. Say so in `keep`, which takes a bit or a byte for each row and key. Or leave the own segment out
 * of the lists (`without_own`), compute it as packed sequences, one for each segment, with a causal mask and the keys as they were,
 * and merge both states (fa_merge_desc), which takes memory for the states alone.
 */
typedef struct fa_sparse_permuted_desc {
    size_t struct_size; /* sizeof(fa_sparse_permuted_desc) */
    fa_sparse_shape shape;
    int64_t heads_q, heads_kv; /* heads_q is a multiple. Lists are for query heads               */
    int64_t dim;               /* 1 to FA_MAX_LENGTH                                             */
    const float *q, *k;        /* (heads_q, rows, dim) and (heads_kv, keys, dim), contiguous     */
    double scale;              /* of the products, finite; 0: 1/sqrt(dim)                        */
    int64_t segment;           /* keys, a multiple of block_rows and of block_keys; 0: 256       */
    double threshold;          /* above 0, at most 1; 0: 0.9                                     */
    int32_t without_own;       /* 1: lists lack the blocks of the own segment                    */
    int32_t *order;            /* (heads_kv, keys), written                                      */
} fa_sparse_permuted_desc;

/** Makes the lists and the order of keys. `order` is written only if the call succeeds. */
FA_API fa_status fa_sparse_permuted(fa_context *context, const fa_sparse_permuted_desc *desc,
                                    fa_block_mask **mask);

/**
 * The lists of a neighbourhood, which fa_attention_desc.neighbourhood makes itself: for those who want to see them, or blocks of other
 * sizes. They have every block that holds a token of a patch, of which some token is seen by one of a patch that has tokens in the
 * block of rows: what rows see and more. fa_attention_desc.neighbourhood cuts the rest, unless the kernel and the strides are multiples
 * of the tile in such a way that all is whole blocks. Blocks are patches where tile divides the lengths; elsewhere a block has
 * tokens of two or more.
 */
typedef struct fa_sparse_neighbourhood_desc {
    size_t struct_size; /* sizeof(fa_sparse_neighbourhood_desc) */
    const fa_neighbourhood *neighbourhood;
    int32_t block_rows, block_keys; /* 1 to FA_MAX_LENGTH; 0: of whole patches, at least */
                                    /* one, which have 64 tokens together or more        */
    int64_t extra_keys;             /* behind the grid's, with them at most              */
                                    /* FA_MAX_LENGTH; every row sees them                */
} fa_sparse_neighbourhood_desc;

/** Makes the lists, one for all heads. */
FA_API fa_status fa_sparse_neighbourhood(fa_context *context, const fa_sparse_neighbourhood_desc *desc,
                                         fa_block_mask **mask);

/**
 * The order of tokens in which rows and keys of a neighbourhood come: token p of them is token order[p] of row-major order. `order` has
 * room for a number of each token of the grid. FA_INVALID: NULL; a field that is wrong. Thread-safe.
 */
FA_API fa_status fa_sparse_neighbourhood_order(const fa_neighbourhood *neighbourhood, int32_t *order);

/**
 * Whether a row sees a key, both in that order: *sees is 1 or 0. Keys behind the grid's are seen by all. FA_INVALID: NULL; a field that
 * is wrong; there is no such row, or the key is not from 0 to FA_MAX_LENGTH - 1. Thread-safe.
 */
FA_API fa_status fa_sparse_neighbourhood_sees(const fa_neighbourhood *neighbourhood, int64_t row, int64_t key,
                                              int32_t *sees);

/**
 * Blocks that are drawn, each with a probability that its distance gives: PrFlashAttention. A block of rows meets its own block of
 * keys, and each other block with probability[n], where n is how many blocks of keys lie from its own to that one, or with
 * the last number if there are fewer. Its own is the block of the position of its last row, or the nearest there is. Blocks are drawn
 * independently, by seed, head and both blocks alone. Nothing is drawn of what a causal mask hides. Without numbers
 * (`probability` NULL) the probability falls evenly, from 1 at distance 0 to 1 / (key blocks) at the greatest distance there could be.
 * block_rows and block_keys are 128 if 0.
 */
typedef struct fa_sparse_distance_desc {
    size_t struct_size; /* sizeof(fa_sparse_distance_desc) */
    fa_sparse_shape shape;
    const double *probability; /* (distances), each from 0 to 1; [0] is not looked at              */
    int64_t distances;         /* how many; 0 exactly if there are none                            */
    uint64_t seed;
    int64_t heads; /* lists of their own; 0: 1                                         */
} fa_sparse_distance_desc;

/** Makes the lists. */
FA_API fa_status fa_sparse_distance(fa_context *context, const fa_sparse_distance_desc *desc,
                                    fa_block_mask **mask);

/**
 * DeepSeek's indexer (DeepSeek-V3.2-Exp): which single keys each row attends to, of those that the mask shows it the `topk` of the largest
 *     score(i, j) = sum_h weight(i, h) * max(q(h, i) . k(j), 0),
 * a sum over the indexer's own heads, in double. Of equal scores the lower key is taken; one that is no number comes last. These are
 * `indices` of a fa_key_lists_desc: a row's keys in ascending order, then -1. shape.block_rows and block_keys are 0 or 1.
 *
 * A score costs heads * dim products. Where a row sees no more than `topk` keys, all are chosen, and nothing is computed. On the
 * device, fa_row_scores and fa_select of select.h do the same, without a way through the host.
 */
typedef struct fa_sparse_indexer_desc {
    size_t struct_size; /* sizeof(fa_sparse_indexer_desc) */
    fa_sparse_shape shape;
    int64_t heads, dim;   /* of the indexer: 1 to FA_MAX_LENGTH                */
    const float *q, *k;   /* (heads, rows, dim) and (keys, dim), contiguous    */
    const float *weights; /* (rows, heads)                                     */
    int64_t topk;         /* numbers in a list: 1 to FA_MAX_LENGTH; 0: 2048    */
    int32_t *indices;     /* (rows, topk), written                             */
} fa_sparse_indexer_desc;

/** Writes the lists, if the call succeeds. Thread-safe; errors are those of the planners above. */
FA_API fa_status fa_sparse_indexer(fa_context *context, const fa_sparse_indexer_desc *desc);

#ifdef __cplusplus
}
#endif
#endif
