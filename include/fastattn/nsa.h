/* SPDX-License-Identifier: Apache-2.0 */
/** Native sparse attention: a compressed, a selected and a window branch, summed by gates. */
#ifndef FASTATTN_NSA_H
#define FASTATTN_NSA_H

#include "attention.h"
#include "device.h"
#include "plan.h"
#include "sparse.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * NSA (arXiv 2502.11089), forward; FSA (Flash Sparse Attention) computes the same. A row at key position p, of one causal sequence, is
 *     o = gate_0 * compressed + gate_1 * selected + gate_2 * window,
 * each an attention of its own softmax, with gates of the caller's, as of a sigmoid:
 *  - compressed: keys and values of `kernel` tokens, every `stride` of them, each made one by fa_nsa_compress(). The row sees
 *    those whose tokens are all at p or before: 32 and 16 in the paper.
 *  - selected: the tokens up to p in blocks of 64 that fa_nsa_select() chooses for the row, the same for all query heads of a KV head.
 *  - window: the last 512 tokens up to p.
 * A branch in which a row sees nothing gives 0.
 */

/** How many compressed keys there are: 0 with fewer keys than `kernel`, or numbers that fa_nsa_compress() refuses. Thread-safe. */
FA_API int64_t fa_nsa_compressed(int64_t keys, int32_t kernel, int32_t stride);

/**
 * Compresses k, or v: compressed key c of a head is
 *     sum_i weights[i] * (x[c * stride + i] + positions[i]),   i from 0 to kernel - 1,
 * in double, rounded once. With a whole matrix for each i, as some models have it, compress elsewhere: the rest only needs what comes out.
 */
typedef struct fa_nsa_compress_desc {
    size_t struct_size;     /* sizeof(fa_nsa_compress_desc)                                     */
    int64_t heads, dim;     /* 1 to FA_MAX_LENGTH                                               */
    int64_t keys;           /* likewise                                                         */
    int32_t kernel, stride; /* 1 to FA_MAX_LENGTH, kernel a multiple of stride; 0: 32 and 16    */
    const float *x;         /* (heads, keys, dim), contiguous                                   */
    const float *weights;   /* (heads, kernel); NULL: the mean                                  */
    const float *positions; /* (heads, kernel, dim), the position embedding; NULL: none         */
    float *compressed;      /* (heads, fa_nsa_compressed(), dim), written; NULL if there is none */
} fa_nsa_compress_desc;

/** Writes the compressed keys. FA_INVALID: NULL; a field is wrong, which the message names. Thread-safe. */
FA_API fa_status fa_nsa_compress(const fa_nsa_compress_desc *desc);

/**
 * Which blocks of keys each row selects. The importance of a block is the sum, over the query heads of a KV head and over compressed
 * keys, of the key's weight in the compressed branch, as often as the key and the block have `stride` tokens in common. A row
 * meets `topk` of the blocks up to its own: the `first` ones and the last `local`, its own among them, and of the others those of
 * the largest importance; of equal ones the lower. If there are no more than `topk`, it meets all. Sums are in double.
 *
 * There is a list for each KV head. shape.block_keys is 64 if 0, a multiple of stride. With block_rows 1 (0 is 1) the lists are the
 * paper's; more rows meet what one of them does. The mask is a causal one, the description's too.
 */
typedef struct fa_nsa_select_desc {
    size_t struct_size; /* sizeof(fa_nsa_select_desc) */
    fa_sparse_shape shape;
    int64_t heads_q, heads_kv; /* heads_q is a multiple                                          */
    int64_t dim;               /* 1 to FA_MAX_LENGTH                                             */
    const float *q;            /* (heads_q, rows, dim), contiguous                               */
    const float *compressed;   /* (heads_kv, fa_nsa_compressed(), dim); NULL if there is none    */
    double scale;              /* of products, finite; 0: 1/sqrt(dim)                            */
    int32_t kernel, stride;    /* as above                                                       */
    int64_t topk;              /* 1 to FA_MAX_LENGTH; 0: 16                                      */
    int64_t first, local;      /* together at most topk; 0: 1 and 2; -1: none                    */
} fa_nsa_select_desc;

/** Makes the lists, with the errors of the planners of sparse.h. Thread-safe. */
FA_API fa_status fa_nsa_select(fa_context *context, const fa_nsa_select_desc *desc, fa_block_mask **mask);

/**
 * The three branches on a device. `attention` has q, k, v and o of one sequence (batch 1), scale, softcap, scales of the cache and
 * tuning. Its mask is FA_MASK_CAUSAL_BOTTOM_RIGHT, and all else that hides keys, bias, ALiBi, sinks, LSE, v_in_k, page_table, packed sequences,
 * lengths and dynamic_lengths are absent: FA_UNSUPPORTED, by name.
 */
typedef struct fa_nsa_desc {
    size_t struct_size; /* sizeof(fa_nsa_desc) */
    const fa_attention_desc *attention;
    /* Compressed keys and values: (1, heads_kv, fa_nsa_compressed(), dim_qk or dim_v), f32, f16 or bf16, of one type, any strides. */
    fa_tensor compressed_k, compressed_v;
    int32_t kernel, stride;         /* as fa_nsa_select_desc has them            */
    int32_t block_rows, block_keys; /* of lists: 1 to FA_MAX_LENGTH; 0: 1 and 64 */
    int64_t window;                 /* keys, 1 to FA_MAX_LENGTH; 0: 512          */
    int64_t index_count;            /* as in fa_block_lists, of lists on the device; 0: these are masks */
} fa_nsa_desc;

/** A prepared NSA. It never changes. Any number of threads may run one. */
typedef struct fa_nsa fa_nsa;

/**
 * Prepares it: a plan for each branch, and the sum. Everything is copied out of desc. Destroy with fa_nsa_destroy(). *nsa is NULL on
 * failure. FA_INVALID: NULL; a field is wrong, which the message names. FA_UNSUPPORTED: as above; the device does not serve a
 * branch. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_nsa_create(fa_device *device, const fa_nsa_desc *desc, fa_nsa **nsa);

/** Destroys one that no queue still runs. NULL is allowed. */
FA_API void fa_nsa_destroy(fa_nsa *nsa);

/** The bytes of scratch memory of a run: three outputs in f32, and what a plan needs. 0 for NULL. Thread-safe. */
FA_API size_t fa_nsa_workspace(const fa_nsa *nsa);

/** The bytes of the work of one run. 0 for NULL. Thread-safe. */
FA_API size_t fa_nsa_work(const fa_nsa *nsa);

/**
 * Writes the work of runs that select the blocks of `lists`, in either form, as fa_plan_schedule() does and with its errors. They
 * have the sizes of what fa_nsa_select() makes: one sequence, a head for each KV head.
 */
FA_API fa_status fa_nsa_schedule(const fa_nsa *nsa, fa_queue *queue, const fa_block_lists *lists,
                                 fa_buffer *work, size_t work_offset);

/** The same of lists on the device, as fa_plan_schedule_lists() does and with its errors. */
FA_API fa_status fa_nsa_schedule_device(const fa_nsa *nsa, fa_queue *queue, const fa_device_lists *lists,
                                        fa_buffer *work, size_t work_offset);

/** The memory of one run, as in fa_attention_args. gates are f32, (rows, heads_q, 3),
 * contiguous. compressed_k and compressed_v are NULL if there are none. */
typedef struct fa_nsa_args {
    size_t struct_size; /* sizeof(fa_nsa_args) */
    fa_buffer *q, *k, *v, *o, *compressed_k, *compressed_v, *gates, *workspace, *work;
    fa_buffer *k_scale, *v_scale, *k_zero, *v_zero;
    size_t q_offset, k_offset, v_offset, o_offset, compressed_k_offset, compressed_v_offset, gates_offset;
    size_t workspace_offset, work_offset; /* multiples of 64 and of 256 */
    size_t k_scale_offset, v_scale_offset, k_zero_offset, v_zero_offset;
} fa_nsa_args;

/**
 * Enqueues the branches and their sum on a queue of the device: checks, errors and lifetimes are those of fa_plan_run() and
 * fa_mix_run(). Several threads may run one, each on its own queue.
 */
FA_API fa_status fa_nsa_run(const fa_nsa *nsa, fa_queue *queue, const fa_nsa_args *args);

#ifdef __cplusplus
}
#endif
#endif
