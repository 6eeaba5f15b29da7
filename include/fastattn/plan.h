/* SPDX-License-Identifier: Apache-2.0 */
/** Plans: prepare an attention once, run it many times. One call for host memory. */
#ifndef FASTATTN_PLAN_H
#define FASTATTN_PLAN_H

#include "attention.h"
#include "buffer.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A prepared attention: validated, tiled, scheduled, compiled. It never changes. Any number of threads may run one at
 * the same time, each with its own queue, workspace and output.
 */
typedef struct fa_plan fa_plan;

/**
 * Prepares `desc` on `device`. Everything is copied out of desc. Destroy with fa_plan_destroy(). *plan is NULL on
 * failure. FA_INVALID: NULL, or desc is wrong. FA_UNSUPPORTED: the device does not serve it (fa_device_supports()).
 * FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_plan_create(fa_device *device, const fa_attention_desc *desc, fa_plan **plan);

/** Destroys a plan that no queue still runs. NULL is allowed. */
FA_API void fa_plan_destroy(fa_plan *plan);

/**
 * The bytes of scratch memory that each run needs. They depend on the lengths only if rows are split into parts; with
 * dynamic_lengths they suffice for all lengths. 0 for NULL. Thread-safe.
 */
FA_API size_t fa_plan_workspace(const fa_plan *plan);

/**
 * The bytes of scratch memory that suffice for every plan of a family, so that one workspace serves requests of all
 * lengths. The family is `largest` and each description that this device serves and that differs from it only in
 *  - sizes: q, k, v and o have a smaller or equal shape[0] and shape[2]; they may be packed, and may have any strides;
 *  - `sequences`, offsets, lengths and dynamic_lengths; mask, alignment, windows, prefix and diagonal_offset;
 *  - values: scale, softcap, slopes, factors, sinks; and whether there are bias, keep, slopes, sinks, lists and LSE.
 * Types, dims, heads, v_in_k and tuning are those of largest. Nothing is compiled. *bytes is 0 on failure. FA_INVALID,
 * FA_UNSUPPORTED, FA_OUT_OF_MEMORY: as fa_plan_create(). FA_UNSUPPORTED also if tuning names a baseline, a kernel whose
 * name ends in "standard". Thread-safe.
 */
FA_API fa_status fa_workspace_bound(fa_device *device, const fa_attention_desc *largest, size_t *bytes);

/**
 * Compiles ahead, so that no later fa_plan_create() or fa_attention_host() of a family compiles anything, as at the start of
 * a server: for `largest`, and for each description that this device serves and that differs from it only
 *  - in size: q, k, v and o have a smaller or equal shape[0] and shape[2], packed or not. Strides are contiguous in both, or
 *    multiples of 16 bytes exactly where largest's are;
 *  - in `sequences`, offsets, lengths and dynamic_lengths; in mask, alignment, windows, prefix and diagonal_offset;
 *  - in the values of slopes, factors and sinks; and in whether there are sinks and LSE.
 * Types, dims, heads, v_in_k, scale, softcap, tuning, and whether there are bias, keep and slopes are largest's; so are want_status,
 * whether dynamic_lengths is 2, whether there are lists, and where there are, what these say: kernels' blocks follow them.
 *
 * Takes as long as the driver's compiler does, seconds for each of up to some ten sizes of blocks; of one query row, as
 * in decoding, for one. What was compiled belongs to the device and is kept in the cache on disk, where there is one: a second
 * call, or another process, finds it. Where kernels come with the library (openmp; cuda, built with them) little or
 * nothing is done. On cuda each kernel that serves the family is loaded or compiled. Thread-safe.
 *
 * Errors are those of fa_plan_create(): FA_INVALID, FA_UNSUPPORTED, FA_OUT_OF_MEMORY, FA_COMPILE, FA_DEVICE_LOST.
 * What was compiled before a failure is kept.
 */
FA_API fa_status fa_device_warm(fa_device *device, const fa_attention_desc *largest);

/**
 * The lengths of one run of a plan with dynamic_lengths. The fields mean what they mean in fa_attention_desc: offsets of a
 * side that is packed in the plan's description, which then must be given; lengths of a side that is not. A side without
 * lengths uses all of its rows. `sequences` is at most the plan's; 0 is the plan's. Batch entries, or sequences, beyond
 * them take no part.
 */
typedef struct fa_lengths {
    size_t struct_size; /* sizeof(fa_lengths) */
    int64_t sequences;
    const int64_t *cu_rows_q, *cu_rows_kv, *lens_q, *lens_kv, *first_kv;
    const int32_t *cu_rows_q32, *cu_rows_kv32, *lens_q32, *lens_kv32,
        *first_kv32; /* of each pair at most one is given */
    /* Lists of key blocks, in either form, of the sizes of the lists that the plan's description has; NULL: those. FA_INVALID as
     * fa_block_lists says. */
    const fa_block_lists *lists;
} fa_lengths;

/**
 * The bytes of the work of one run, whatever its lengths. 0 if the plan's description has dynamic_lengths 0, and for NULL.
 * Thread-safe.
 */
FA_API size_t fa_plan_work(const fa_plan *plan);

/**
 * Writes the work of a run with these lengths to `work`, a buffer of the plan's device, from byte `work_offset` on. The
 * buffer then serves any number of runs, as fa_attention_args.work, until it is written again. So one plan serves a whole
 * generation, and a run that was recorded once (a CUDA graph, a Vulkan command buffer) is replayed with other lengths.
 *
 * The write takes its place in the queue's order, as fa_buffer_write() does. `lengths` and its lists are copied. Compiles
 * nothing. The queue keeps the host memory that this works in: the first call for a plan that needs more than each before
 * it allocates, and no call after that. Nothing is waited for on openmp and null; on cuda only where the queue has four
 * such writes under way, for the first of them. On OpenCL and Vulkan the call waits until the queue has done what it was
 * given, and then writes.
 *
 * FA_INVALID: NULL; dynamic_lengths is 0; a list that fa_lengths should not have, or lacks; more sequences than the
 * plan's; a length is negative or more than the tensors hold, bias and keep included; a queue or buffer of another
 * device; a buffer that is too small; work_offset is no multiple of 256. FA_UNSUPPORTED: a queue that records into a
 * Vulkan command buffer, or a CUDA stream that is being captured; on OpenCL, work that lies across the end of one of the
 * allocations of which a large buffer consists. FA_OUT_OF_MEMORY. FA_DEVICE_LOST. The work's old contents stay on
 * failure. Several threads may use one plan, each with its own queue and work.
 */
FA_API fa_status fa_plan_schedule(const fa_plan *plan, fa_queue *queue, const fa_lengths *lengths,
                                  fa_buffer *work, size_t work_offset);

/**
 * The lengths of one run that lie on the device, each list of 32-bit integers, in buffers of the plan's device. Exactly the
 * lists that the plan's description gives are given here, in 64 or 32 bits there, and have as many entries as there; the
 * others are NULL. Offsets are in bytes, multiples of 4.
 */
typedef struct fa_device_lengths {
    size_t struct_size; /* sizeof(fa_device_lengths) */
    fa_buffer *cu_rows_q, *cu_rows_kv, *lens_q, *lens_kv, *first_kv;
    size_t cu_rows_q_offset, cu_rows_kv_offset, lens_q_offset, lens_kv_offset, first_kv_offset;
} fa_device_lengths;

/**
 * fa_plan_schedule() on the device: a small kernel reads the lengths and writes the work, in the queue's order. A kernel
 * before it may have written the lengths; the host never learns them. So an engine's step is recorded once, this call
 * and fa_plan_run() together, and replayed. The plan's description has dynamic_lengths 2.
 *
 * A length may be any number: it is held within 0 and what the tensors hold, bias and keep included. With page_table, rows
 * of a sequence that has more keys than that become NaN, as its status says; where the host reads the table, runs are
 * FA_INVALID. A sequence takes no
 * part if it has no rows: with lens_q 0, or equal offsets. If an entry of cu_rows_q is less than the one before it, no
 * sequence has rows, and runs write nothing. The device splits long rows more simply than the host does, so that a run may
 * take somewhat longer, and has other roundings.
 *
 * Nothing is allocated, compiled or waited for. On cuda the stream may be captured; on Vulkan the queue may record.
 *
 * FA_INVALID: NULL; dynamic_lengths is not 2; a list that is missing or not expected; a queue or buffer of another device;
 * a buffer that is too small; an offset that is no multiple of 4, a work_offset that is no multiple of 256; a list that
 * shares bytes with the work. FA_UNSUPPORTED: on OpenCL, work that lies across the end of one of the allocations of
 * which a large buffer consists. FA_OUT_OF_MEMORY, FA_DEVICE_LOST. Nothing is enqueued then. Several threads may use one
 * plan, each with its own queue and work.
 */
FA_API fa_status fa_plan_schedule_device(const fa_plan *plan, fa_queue *queue,
                                         const fa_device_lengths *lengths, fa_buffer *work,
                                         size_t work_offset);

/**
 * The memory of one run, in buffers of the plan's device. A tensor's first element lies `..._offset` bytes into its
 * buffer. Several tensors may lie in one buffer.
 */
typedef struct fa_attention_args {
    size_t struct_size;       /* sizeof(fa_attention_args) */
    fa_buffer *q, *k, *v, *o; /* v with v_in_k: NULL, or where k lies */
    /* Given exactly if the description asks for them; otherwise NULL. */
    fa_buffer *bias, *keep, *page_table, *k_scale, *v_scale, *k_zero, *v_zero, *lse;
    fa_buffer *workspace; /* contents undefined before and after; may be NULL if fa_plan_workspace() is 0 */
    /* Multiples of fa_dtype_align() of the tensor's type, as are those of other operands. */
    size_t q_offset, k_offset, v_offset, o_offset;
    size_t bias_offset, keep_offset, page_table_offset, k_scale_offset, v_scale_offset, k_zero_offset,
        v_zero_offset, lse_offset;
    size_t workspace_offset; /* a multiple of 64; in wrapped host memory, the address is a multiple of 64 */
    fa_buffer *work;         /* written by fa_plan_schedule() for this plan; NULL: the plan's own lengths */
    size_t work_offset;      /* a multiple of 256; in wrapped host memory, the address is a multiple of 64 */
    /* Given exactly if the description has want_status 1: an int32_t of each sequence, written in the queue's order after the
     * run. 0: all pages that hold the sequence's keys are the pool's. Otherwise 1 + the number of the first entry of its line
     * of the page table that names no page; 1 + page_table.shape[3] where a length on the device goes beyond what the
     * table (or bias, or keep) holds. An engine reads it when it likes, as after a replay; runs do not wait for it. */
    fa_buffer *status;
    size_t status_offset; /* a multiple of 4 */
} fa_attention_args;

/**
 * Enqueues the plan on a queue of its device. The buffers and the plan must live until the run is done; `args` is
 * copied.
 *
 * Allocates nothing and compiles nothing, with one exception. On OpenCL, a large buffer consists of several of the
 * device's allocations. The first run in which an operand crosses the end of one compiles kernels for that. It may
 * return FA_COMPILE or FA_OUT_OF_MEMORY.
 *
 * FA_INVALID: a buffer is missing, too small, of another device, or misaligned; or an element of o, lse, status or workspace
 * shares bytes with one of another tensor or of work. Nothing is enqueued then. Tensors whose rows alternate in one piece
 * of memory share no bytes. FA_DEVICE_LOST. Several threads may run one plan, each on its own queue.
 *
 * Work that is not of this plan is FA_INVALID on openmp and null. Elsewhere it lies where only the device looks: a run with
 * it reads and writes anything.
 */
FA_API fa_status fa_plan_run(const fa_plan *plan, fa_queue *queue, const fa_attention_args *args);

/**
 * Lists of key blocks that lie on the device, in buffers of the plan's device: a mask, one byte for each block; or, where the
 * lists of the plan's description have an index_count, indptr and indices, of 32-bit integers. They have the sizes of the
 * description's lists and mean the same (fa_block_lists), with two exceptions. What an offset or an index has out of range is
 * passed over, and a block that a list has twice counts once. Offsets are in bytes, multiples of 4 but for the mask's.
 */
typedef struct fa_device_lists {
    size_t struct_size; /* sizeof(fa_device_lists) */
    fa_buffer *mask, *indptr, *indices;
    size_t mask_offset, indptr_offset, indices_offset;
} fa_device_lists;

/**
 * Puts lists that lie on the device into the work of a run, in the queue's order: work that fa_plan_schedule() or
 * fa_plan_schedule_device() wrote for this plan, and writes again with the description's own lists. A kernel before it may have
 * made the lists; the host never learns them. So a step of an engine that chooses its blocks is recorded once, and replayed.
 * The plan's description has lists and dynamic_lengths 2. Its work is shared out without a look at lists: what is short ends
 * early, and the next piece of work takes its place.
 *
 * Nothing is allocated, compiled or waited for. On cuda the stream may be captured; on Vulkan the queue may record.
 *
 * A list is gone through once for each 1,024 words of bits (32,768 blocks of keys) on a CPU, and 64 times as often on a GPU, whose
 * work-items each do it side by side.
 *
 * FA_INVALID: NULL; the description has no lists, or dynamic_lengths is not 2; where the host sees it, work of another plan; another
 * form than the description's; a queue or
 * buffer of another device; a buffer that is too small; an offset that is no multiple of what it should be; a list that shares
 * bytes with the work. FA_UNSUPPORTED: as fa_plan_schedule_device(). FA_OUT_OF_MEMORY,
 * FA_DEVICE_LOST. Nothing is enqueued then. Several threads may use one plan, each with its own queue and work.
 */
FA_API fa_status fa_plan_schedule_lists(const fa_plan *plan, fa_queue *queue, const fa_device_lists *lists,
                                        fa_buffer *work, size_t work_offset);

/**
 * The memory of one run, in host memory: each pointer is a tensor's first element. bias, keep, page_table, the
 * scales and zeros of k and v, and lse are given exactly if the description asks for them; otherwise they are NULL.
 */
typedef struct fa_host_args {
    size_t struct_size; /* sizeof(fa_host_args) */
    const void *q, *k, *v, *bias, *keep, *page_table, *k_scale, *v_scale, *k_zero, *v_zero;
    void *o;
    float *lse;
    void *workspace;  /* fa_plan_workspace() bytes at a multiple of 64; contents undefined before and after */
    const void *work; /* of fa_plan_schedule() for this plan, at a multiple of 64; NULL: the plan's own */
    int32_t *
        status; /* as fa_attention_args.status; all 0, since a table in host memory is checked before a run */
} fa_host_args;

/**
 * fa_plan_run() on host memory as it is, without buffers. It makes the same checks, except of sizes, which pointers do
 * not tell. Allocates nothing. FA_UNSUPPORTED: the device does not run on host pointers. Those that do have
 * fa_device_info.host_memory 1; OpenCL devices may have it too, but take host memory through fa_buffer_wrap_host()
 * only. Otherwise as fa_plan_run().
 */
FA_API fa_status fa_plan_run_host(const fa_plan *plan, fa_queue *queue, const fa_host_args *args);

/** What the mask and lists of key blocks leave of a level-1 block. */
typedef enum fa_tile_class {
    FA_TILE_SKIP = 0,    /* no row sees a key: never scheduled                                */
    FA_TILE_PARTIAL = 1, /* the mask is evaluated                                             */
    FA_TILE_FULL = 2     /* every row sees every key: no mask instruction                     */
} fa_tile_class;

/**
 * What the planner decided, and what it expects that to cost. Costs are modelled, not measured. With dynamic_lengths all
 * of it is about the plan's own lengths, but for `workspace` and `workers`, which are the most of any lengths.
 */
typedef struct fa_plan_info {
    size_t struct_size; /* sizeof(fa_plan_info), set by the caller                                     */
    char kernel[64];    /* the kernel's name                                                           */
    fa_dtype weights;   /* the type to which softmax weights are rounded for the second product        */
    int32_t block_q, block_kv;       /* level 1: rows (of all heads of a group together) and keys     */
    int32_t tile_q, tile_kv, tile_d; /* level 2: rows, keys, dims                                     */
    int32_t splits;                  /* the most parts of one row block (split-KV); 1: nothing is split */
    int32_t group;                   /* query heads packed into the rows of one block                 */
    int64_t sequences,
        heads_kv;               /* sequences that fa_plan_tile() takes, heads that fa_plan_head_tile() does */
    int64_t items, merge_items; /* entries of the work list                                      */
    int64_t blocks_full, blocks_partial, blocks_skipped; /* level-1 blocks, of all sequences and heads */
    uint64_t pairs;           /* visible pairs of row and key, of all heads, before `keep`; UINT64_MAX  */
                              /* if there are more                                                     */
    double flops;             /* 2 * pairs * (dim_qk + dim_v), without the limit of `pairs`             */
    double bytes_moved;       /* between far memory and the units, as scheduled                         */
    double bytes_compulsory;  /* each operand once                                                      */
    double bytes_lower_bound; /* the I/O bound N^2 d^2 / M of arXiv 2205.14135, summed over heads; M is */
                              /* the on-chip memory of one unit                                        */
    double syncs;             /* block-level synchronisations                                           */
    double rescales;          /* online-softmax rescales of a row                                       */
    double imbalance;         /* the busiest unit's work over the mean; at least 1                      */
    double seconds;           /* of one run                                                            */
    size_t workspace;         /* bytes, as fa_plan_workspace()                                          */
    uint32_t workers;         /* units that run it; 1 if sharing would cost more than it gains          */
} fa_plan_info;

/** Fills `info`. FA_INVALID: NULL, or struct_size is wrong. Thread-safe. */
FA_API fa_status fa_plan_get_info(const fa_plan *plan, fa_plan_info *info);

/**
 * The size of a sequence's grid of level-1 blocks: how many rows of blocks, and how many columns. FA_INVALID: NULL, or
 * `sequence` is not less than fa_plan_info.sequences. Thread-safe.
 */
FA_API fa_status fa_plan_grid(const fa_plan *plan, int64_t sequence, int64_t *rows, int64_t *columns);

/**
 * The class of one block of that grid, of KV head 0. Only lists of key blocks differ from head to head. FA_INVALID: NULL, or an
 * index is out of range. Thread-safe.
 */
FA_API fa_status fa_plan_tile(const fa_plan *plan, int64_t sequence, int64_t row, int64_t column,
                              fa_tile_class *tile);

/**
 * The same of any KV head: FA_TILE_SKIP also where no list of the block's rows has one of its keys, FA_TILE_PARTIAL where lists
 * have a part of it. Of a plan whose lists come from the device, by those of the description.
 */
FA_API fa_status fa_plan_head_tile(const fa_plan *plan, int64_t sequence, int64_t head_kv, int64_t row,
                                   int64_t column, fa_tile_class *tile);

/**
 * Everything in one call, for host memory: plan, buffers, run and wait. Each pointer is a tensor's first element. bias,
 * keep and lse are NULL exactly if desc does not ask for them. A description with page_table, k_scale or v_scale is
 * FA_INVALID: no argument takes these, see fa_plan_run_host(). Thread-safe.
 *
 * A device that cannot reach host memory works on copies. It copies the rows that sequences use, without what lies
 * between them, so a view into a large cache costs what the view shows.
 *
 * Returns what fa_plan_create() and fa_plan_run() return. On failure nothing was written, with one exception: a device
 * that works in place (fa_device_info.host_memory) and fails during the work may have written a part of o and lse.
 */
FA_API fa_status fa_attention_host(fa_device *device, const fa_attention_desc *desc, const void *q,
                                   const void *k, const void *v, const void *bias, const void *keep, void *o,
                                   float *lse);

#ifdef __cplusplus
}
#endif
#endif
