/* SPDX-License-Identifier: Apache-2.0 */
/** Writing new keys and values into a cache, converted to its format. */
#ifndef FASTATTN_APPEND_H
#define FASTATTN_APPEND_H

#include "attention.h"
#include "buffer.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Which dims of a row are a pair. */
typedef enum fa_rotary_form {
    FA_ROTARY_NONE = 0,        /* rows are not rotated                                         */
    FA_ROTARY_INTERLEAVED = 1, /* 2i and 2i + 1: GPT-J, "norm" in llama.cpp                    */
    FA_ROTARY_HALVES = 2       /* i and i + dims/2: GPT-NeoX, rotate_half() in transformers    */
} fa_rotary_form;

/** What angles of a model are changed by that sees longer sequences than it was trained on. */
typedef enum fa_rotary_scaling {
    FA_ROTARY_UNSCALED = 0,
    FA_ROTARY_LINEAR = 1, /* all by 1 / factor                                                 */
    FA_ROTARY_YARN = 2    /* those of slow pairs, as the YaRN paper, transformers and llama.cpp have it */
} fa_rotary_scaling;

/**
 * Rotary embedding: pair i of `dims` dims of a row, the first or those from `first_dim` on, turns by an angle of position *
 * base^(-2i/dims) radians, or by what tables say. Pairs count from first_dim. Zero means default everywhere; without a form
 * all fields are 0.
 */
typedef struct fa_rotary {
    fa_rotary_form form;
    int32_t dims; /* an even number; 0: all from first_dim on. The other dims stay as they are */
    /* Above 0: cosines and sines are operands, f32 (table_positions, dims/2), contiguous, and the fields below but
     * first_dim are 0. */
    int32_t table_positions;
    fa_rotary_scaling scaling;
    double base;   /* above 1; 0: 10000 */
    double factor; /* of a scaling: 1 or more */
    /* YaRN: the positions that the model was trained on, the turns within those from which on a pair keeps its angle, and
     * up to which it is scaled whole. 0: 32, and 1. */
    double original_context, beta_fast, beta_slow;
    double
        attention_factor; /* what cosines and sines are multiplied by; 0: 1, with YaRN 0.1 ln(factor) + 1 */
    int32_t first_dim;    /* as 512 where DeepSeek's 64 dims lie behind the latent             */
} fa_rotary;

/**
 * New rows and the cache that they go into (reshape_and_cache in vLLM). The cache is what attention then takes as k and
 * v: a dense batch of entries, or a pool of pages, which are entries here. Zero means default everywhere.
 */
typedef struct fa_append_desc {
    size_t struct_size; /* sizeof(fa_append_desc) */

    /* New rows: k (batch, heads, rows, dim_qk), v (batch, heads, rows, dim_v); each f32, f16 or bf16, any strides. v and
     * cache_v with shapes all 0: only keys are written, as where v is a part of k. */
    fa_tensor k, v;

    /* The cache: cache_k (entries, heads, keys of an entry, dim_qk), cache_v likewise with dim_v. Each f32, f16, bf16 or a
     * format of caches. No two elements share memory, but rows of cache_v may lie between rows of cache_k. Elements are
     * rounded to nearest; ggml's formats are quantised as ggml's reference does it; fp8 saturates. FA_FP8_DS_MLA is of
     * cache_k alone: a scale is the largest magnitude of its 128 dims over 448, and 2^-126 at least; NaN where an element
     * is not finite. Its last 64 dims carry the position and come rotated: `rotary` is refused. In FA_BITMAP_F16 a
     * row keeps the elements of the largest magnitude, after rotation, as many as its bytes have room for: of equal ones the
     * first dims, and NaN before all numbers. They are rounded to f16. Padding is not written. */
    fa_tensor cache_k, cache_v;

    /* Rows of k are rotated on their way in. With q, f32, f16 or bf16 (batch, heads of q, rows, dim_qk), its rows are
     * rotated likewise into q_out, of the same shape and a type of its own. Both any strides; all 0: there is no q. */
    fa_rotary rotary;
    fa_tensor q, q_out;

    /* Scales and zeros of the cache that are tensors of their own, as fa_attention_desc has them, where axis 0 counts entries:
     * cache_k is fp8, I8, I4, I2, U8, U4, U2 or E2M1. If each key of the cache has its own scale, for each head or
     * (size 1 of axis 1) for all heads, and for all dims or groups of a multiple of 8 dims, then the append computes it, as
     * fa_elements_fit() does, divides it by k_factor, rounds it to its type, and writes it; likewise the zero if there is
     * one. No two of these elements share memory then. If all keys share scales (sizes 1 of axes 0 and 2), for each head,
     * channel or group of dims, then the append reads what lies there. Scales of groups of keys (KIVI's keys) are
     * refused: they are known when a group is full. An element x becomes the number nearest to (x - zero) * (1 / scale)
     * that has a code, ties to even; with a scale of 0, or that is not finite, the number nearest to 0. */
    fa_tensor k_scale, v_scale;
    fa_tensor k_zero, v_zero;
    /* Finite, above 0 where scales are computed; 0: 1. Only with k_scale. */
    float k_factor, v_factor;
} fa_append_desc;

/** A prepared append. It never changes. Any number of threads may run one, each with its own queue and cache. */
typedef struct fa_append fa_append;

/**
 * Prepares `desc` on `device`. Everything is copied out of desc. Destroy with fa_append_destroy(). *append is NULL on
 * failure. FA_INVALID: NULL, or desc is wrong; the message names the field. FA_UNSUPPORTED: a tensor is larger than the device
 * reads and writes at once; cache_k or cache_v is FA_U1 or FA_U2U1. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. On a GPU
 * the first append of its types may compile a program. Thread-safe.
 */
FA_API fa_status fa_append_create(fa_device *device, const fa_append_desc *desc, fa_append **append);

/** Destroys an append that no queue still runs. NULL is allowed. */
FA_API void fa_append_destroy(fa_append *append);

/**
 * The memory of one run, in buffers of the append's device. A tensor's first element lies `..._offset` bytes into its
 * buffer. `slots` holds batch * rows numbers of 32 bits: row r of batch entry b goes to slot slots[b * rows + r]. Slot s is
 * key s % keys of entry s / keys. Rows whose slot is negative are skipped (padding). No slot is given twice.
 */
typedef struct fa_append_args {
    size_t struct_size; /* sizeof(fa_append_args) */
    fa_buffer *k, *v, *slots, *cache_k,
        *cache_v; /* v and cache_v are NULL exactly if the description has none */
    size_t k_offset, v_offset, slots_offset, cache_k_offset, cache_v_offset;

    /* With rotary.form: `positions` holds batch * rows numbers of 32 bits, as slots does; 0 or more. cosines and sines are
     * given exactly if the description has table_positions, which are then more than every position; q and q_out exactly if
     * it has q. Rows of q are rotated whatever their slots. */
    fa_buffer *positions, *cosines, *sines, *q, *q_out;
    size_t positions_offset, cosines_offset, sines_offset, q_offset, q_out_offset;

    /* Each exactly if the description has it. */
    fa_buffer *k_scale, *v_scale, *k_zero, *v_zero;
    size_t k_scale_offset, v_scale_offset, k_zero_offset, v_zero_offset;
} fa_append_args;

/**
 * Enqueues the append on a queue of its device, in the order of runs of attention. Allocates nothing. The buffers and
 * the append must live until it is done; `args` is copied.
 *
 * FA_INVALID: a buffer is missing, too small, of another device, or misaligned; or an element of the cache, of q_out, or of
 * scales or zeros that are computed, shares bytes with another operand. Where the host reads slots (host_memory of
 * fa_device_info): a slot that the cache has not, or that is given twice; a position that is negative or beyond the tables.
 * Nothing is written then. Elsewhere a row whose slot the cache has not, or with such a position, is skipped.
 * FA_DEVICE_LOST. Several threads may run one append, each on its own queue.
 */
FA_API fa_status fa_append_run(const fa_append *append, fa_queue *queue, const fa_append_args *args);

#ifdef __cplusplus
}
#endif
#endif
