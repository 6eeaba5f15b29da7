/* SPDX-License-Identifier: Apache-2.0 */
/** Preparing an attention once and running it many times; merging partial results. */
#ifndef FASTATTN_PLAN_H
#define FASTATTN_PLAN_H

#include "attention.h"
#include "buffer.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A prepared attention: validated, tiled, scheduled, compiled. Immutable: any number of threads may run
 * one at the same time, each with its own queue, workspace and output.
 */
typedef struct fa_plan fa_plan;

/**
 * Prepares `desc` on `device`; everything is copied out of desc. FA_INVALID, FA_UNSUPPORTED (as
 * fa_device_supports()), FA_OUT_OF_MEMORY, FA_COMPILE; *plan is NULL then.
 */
FA_API fa_status fa_plan_create(fa_device *device, const fa_attention_desc *desc, fa_plan **plan);

/** Destroys a plan that no queue still runs. NULL is allowed. */
FA_API void fa_plan_destroy(fa_plan *plan);

/** Bytes of scratch that each run needs, independent of the sequence lengths but for split parts. */
FA_API size_t fa_plan_workspace(const fa_plan *plan);

/**
 * Bytes of scratch that suffice for every plan of a family, so that one workspace serves requests of all lengths:
 * for `largest`, and for each description that this device serves and that differs from it only
 *  - in size: q, k, v and o have a smaller or equal shape[0] and shape[2], packed or not, of any strides;
 *  - in `sequences`, offsets and lengths; in mask, alignment, windows, prefix and diagonal_offset;
 *  - in values: scale, softcap, slopes, factors, sinks; and in whether there are bias, keep, slopes, sinks and LSE.
 * Types, dims, heads and tuning are largest's. Nothing is compiled. FA_INVALID, FA_UNSUPPORTED (where tuning names a
 * kernel that ends in "standard", too), FA_OUT_OF_MEMORY as for fa_plan_create(); *bytes is 0 then.
 */
FA_API fa_status fa_workspace_bound(fa_device *device, const fa_attention_desc *largest, size_t *bytes);

/** Buffers of the plan's device. A tensor's first element is `..._offset` bytes into its buffer. */
typedef struct fa_attention_args {
    size_t struct_size; /* sizeof(fa_attention_args) */
    fa_buffer *q, *k, *v, *o;
    fa_buffer *bias, *keep, *lse; /* exactly where the description asks for them */
    fa_buffer *workspace; /* contents undefined before and after; NULL where fa_plan_workspace() is 0 */
    size_t q_offset, k_offset, v_offset, o_offset; /* multiples of the element size */
    size_t bias_offset, keep_offset, lse_offset;
    size_t workspace_offset; /* a multiple of 64, as in wrapped memory the address is */
} fa_attention_args;

/**
 * Enqueues the plan. Allocates nothing and compiles nothing, but for one case: the first run on OpenCL in which an
 * operand crosses the end of one of the device's allocations, of which a large buffer has several, compiles kernels
 * for that, and may return FA_COMPILE or FA_OUT_OF_MEMORY. FA_INVALID: a buffer missing, too small, of
 * another device, misaligned, or an element of o, lse or workspace sharing bytes with one of another; nothing
 * is enqueued then. Tensors whose rows alternate in one piece of memory share none. FA_DEVICE_LOST.
 */
FA_API fa_status fa_plan_run(const fa_plan *plan, fa_queue *queue, const fa_attention_args *args);

/** Host memory of one run: each pointer is a tensor's first element, NULL exactly where the description has none. */
typedef struct fa_host_args {
    size_t struct_size; /* sizeof(fa_host_args) */
    const void *q, *k, *v, *bias, *keep;
    void *o;
    float *lse;
    void *workspace; /* fa_plan_workspace() bytes at a multiple of 64; contents undefined before and after */
} fa_host_args;

/**
 * fa_plan_run() on host memory as it is, without buffers, with the same checks but for sizes, which pointers do not
 * tell. Allocates nothing. FA_UNSUPPORTED where fa_device_info.host_memory is not 1, or where the device takes host
 * memory through fa_buffer_wrap_host() only (OpenCL).
 */
FA_API fa_status fa_plan_run_host(const fa_plan *plan, fa_queue *queue, const fa_host_args *args);

typedef enum fa_tile_class {
    FA_TILE_SKIP = 0,    /* no key visible to any row: never scheduled                        */
    FA_TILE_PARTIAL = 1, /* the mask is evaluated                                             */
    FA_TILE_FULL = 2     /* every key visible to every row: no mask instruction               */
} fa_tile_class;

/** What the planner decided, and what it expects that to cost. */
typedef struct fa_plan_info {
    size_t struct_size; /* sizeof(fa_plan_info), set by the caller                                     */
    char kernel[64];    /* the kernel row                                                              */
    fa_dtype weights;   /* precision of the softmax weights in the second product                      */
    int32_t block_q, block_kv;       /* level 1: rows (of all heads of a group together) and keys     */
    int32_t tile_q, tile_kv, tile_d; /* level 2                                                       */
    int32_t splits;                  /* most parts that one row block was split into; 1: none         */
    int32_t group;                   /* query heads packed into the rows of one block                 */
    int64_t sequences, heads_kv;     /* what fa_plan_tile() takes an index into; heads are alike      */
    int64_t items, merge_items;      /* entries of the work list                                      */
    int64_t blocks_full, blocks_partial, blocks_skipped; /* level-1 blocks, all sequences and heads    */
    uint64_t pairs;           /* visible (row, key) pairs over all heads, before `keep`; UINT64_MAX     */
                              /* where there are more                                                  */
    double flops;             /* 2 * pairs * (dim_qk + dim_v), of all pairs, however many               */
    double bytes_moved;       /* between far memory and the units, as scheduled                         */
    double bytes_compulsory;  /* each operand once                                                      */
    double bytes_lower_bound; /* the I/O bound N^2 d^2 / M of arXiv 2205.14135 summed over heads, M one */
                              /* unit's on-chip memory                                                 */
    double syncs;             /* block-level synchronisations                                           */
    double rescales;          /* online-softmax rescales of a row                                       */
    double imbalance;         /* busiest unit's modelled work over the mean, at least 1                 */
    double seconds;           /* modelled                                                               */
    size_t workspace;         /* bytes, as fa_plan_workspace()                                          */
    uint32_t workers;         /* units that run it: one where sharing would cost more than it gains     */
} fa_plan_info;

/** Fills `info`. FA_INVALID: NULL or struct_size off. */
FA_API fa_status fa_plan_get_info(const fa_plan *plan, fa_plan_info *info);

/** The size of the grid of level-1 blocks of a sequence: rows of blocks and columns of blocks. */
FA_API fa_status fa_plan_grid(const fa_plan *plan, int64_t sequence, int64_t *rows, int64_t *columns);

/** The class of one block of that grid. FA_INVALID: out of range. */
FA_API fa_status fa_plan_tile(const fa_plan *plan, int64_t sequence, int64_t row, int64_t column,
                              fa_tile_class *tile);

/**
 * Plan, buffers, run and wait in one call, for host memory: each pointer is a tensor's first element.
 * bias, keep and lse are NULL exactly where desc does not ask for them. Devices that cannot reach host
 * memory copy: the elements of rows that a sequence has, not what lies between them, so that a view into a
 * large cache costs what it shows. Returns what fa_plan_create() and fa_plan_run() return. On failure nothing
 * was written; but a device that works in place (fa_device_info.host_memory) and fails in the middle of the
 * work may have written a part of o and lse. Thread-safe.
 */
FA_API fa_status fa_attention_host(fa_device *device, const fa_attention_desc *desc, const void *q,
                                   const void *k, const void *v, const void *bias, const void *keep, void *o,
                                   float *lse);

/**
 * Merges partial attention states: results over disjoint sets of keys, each a normalised output and its
 * LSE, into the result over all of them:
 *     lse = log sum_p exp(lse_p),   o = sum_p exp(lse_p - lse) * o_p.
 * Associative up to rounding, and safe on empty states (LSE -inf), whose output is not looked at. An LSE of
 * +inf beside an output of zeros, which is how FlashAttention marks a row that sees no key, is an empty state
 * too; beside anything else it is an infinite score and gives NaN.
 * FlashInfer, arXiv 2501.01005, section 2.2.
 */
typedef struct fa_merge_desc {
    size_t struct_size;  /* sizeof(fa_merge_desc)                                                     */
    int64_t parts;       /* at least 0; 0 gives empty states                                          */
    fa_tensor partial;   /* one part's output: f32, f16 or bf16, any strides                          */
    int64_t part_stride; /* elements between parts; 0: parts lie one behind the other, contiguous     */
    fa_tensor o;         /* same shape                                                                */
    int32_t want_lse;
} fa_merge_desc;

/**
 * Merges in host memory. `partial_lse` is f32, contiguous (parts, batch, head, row); `lse` is f32 (batch,
 * head, row), NULL exactly where not wanted. In place: `o` may be one of the parts, in its type and strides,
 * and `lse` that of one of them; any other byte that an output shares with an input or an output is FA_INVALID.
 * FA_INVALID names the field; nothing is written then. Thread-safe.
 */
FA_API fa_status fa_merge_host(const fa_merge_desc *desc, const void *partial, const float *partial_lse,
                               void *o, float *lse);

#ifdef __cplusplus
}
#endif
#endif
