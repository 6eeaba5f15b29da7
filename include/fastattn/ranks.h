/* SPDX-License-Identifier: Apache-2.0 */
/** Ranks: attention whose heads, or whose keys, are divided among the ranks of a transport. */
#ifndef FASTATTN_RANKS_H
#define FASTATTN_RANKS_H

#include "attention.h"
#include "device.h"
#include "plan.h"
#include "transport.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FA_SHARDED_MAX_CHUNKS 64

/**
 * The caller's own projection of a layer, called on the thread of fa_sharded_layer_run() when the attention of tokens
 * `first` to first + count - 1 is done: o has their rows. It writes the same rows of y, and returns when they are
 * written; or, with project_enqueues, when that is enqueued. Any status but FA_OK ends the run with that status.
 */
typedef fa_status (*fa_project_fn)(void *user, int64_t first, int64_t count);

/**
 * A layer with sharded heads (tensor parallelism; Tiling-AllReduce in FastAttention, arXiv 2410.16663): each rank has
 * some of the heads, and the rows of the output projection W that belong to these. With O_r and W_r, the output of rank
 * r's heads and its rows of W,
 *     Y = sum_r O_r W_r,
 * which each rank has at the end. Tokens are cut into chunks; while one is being reduced the next is computed. Tokens
 * are numbered as they lie in q: token t is row t % rows of batch entry t / rows. Rows of o that no sequence has are not
 * written by attention; theirs of y are the products of what is there.
 *
 * Zero means default everywhere. Numbers of tokens, width, y and chunks are the same on all ranks, heads need not be.
 */
typedef struct fa_sharded_layer_desc {
    size_t struct_size; /* sizeof(fa_sharded_layer_desc) */
    /* Of this rank's heads. FA_UNSUPPORTED, by name: dynamic_lengths, want_status, and bias or keep with a row for each
     * row of q. Without `project`, o has the axes of a row in this order: (batch, row, head, dim), so that stride[1] is
     * dim_v, and stride[0] is rows * stride[2]; in host memory it is f32. */
    const fa_attention_desc *attention;
    int64_t width;    /* elements of a row of y, which is a column of W each                              */
    fa_dtype y;       /* f32, f16 or bf16: products are f32, rounded to it and summed over ranks          */
    fa_dtype w;       /* f32, f16 or bf16. In memory of a device w is of o's type, and y is of it or f32 */
    int64_t w_stride; /* elements from one row of W_r to the next; 0: width                              */
    int64_t chunks;   /* at most FA_SHARDED_MAX_CHUNKS; there may be fewer, as chunks are whole blocks of */
                      /* rows. 0: as many as the model finds fastest                                     */
    int32_t own_gemm; /* 1: the library's own plain product, even where there is a CBLAS; host memory alone */
    fa_project_fn project; /* the caller's projection; NULL: the library's                               */
    void *project_user;
    double project_seconds; /* that the model takes for the caller's projection of all tokens; 0: as many  */
                            /* as the device would need at the speed of its attention                      */
    /* 1: `project` only enqueues its work in the stream of the run's queue, and is called before attention is done. */
    int32_t project_enqueues;
} fa_sharded_layer_desc;

/** A prepared layer. One run of it at a time. */
typedef struct fa_sharded_layer fa_sharded_layer;

/**
 * Prepares a layer on `device`: a plan for each chunk. Collective: all ranks call it, and all succeed or none.
 * Everything is copied out of desc and transport. Destroy with fa_sharded_layer_destroy(). *layer is NULL on failure.
 *
 * Without `project`, where the device computes in host memory (openmp), the product is that of the first CBLAS that
 * opens: libopenblas.so.0, libcblas.so.3, libblas.so.3, or the file that FASTATTN_CBLAS_LIBRARY names. Without one it is
 * a plain loop on one thread: fa_sharded_layer_info says which. With a transport of device_memory 1, on CUDA, it is
 * cuBLAS's: libcublas.so.13 or .12, or the file that FASTATTN_CUBLAS_LIBRARY names, in f32 sums; without it the caller
 * projects.
 *
 * Where the transport has events of the device's backend, and the product is the library's or project_enqueues is 1,
 * chunks and sums are enqueued on the device, and the host waits once, at the end of a run. The layer then has queues
 * of its own, and its workspace has room for two chunks.
 *
 * FA_INVALID: NULL, or a field of transport (other ranks are not told of these); a field is wrong; a number that all
 * ranks give alike differs: the message names the field, both numbers and both ranks. FA_UNSUPPORTED: as above; the
 * device does not serve the attention; FASTATTN_CBLAS_LIBRARY names what does not open; there is no cuBLAS, or w or y
 * are of other types than it takes, or own_gemm is 1 on a device. FA_OUT_OF_MEMORY.
 * FA_COMPILE. FA_DEVICE_LOST. FA_RANK_LOST. Where another rank failed, its status, and a message that names it.
 */
FA_API fa_status fa_sharded_layer_create(fa_device *device, const fa_transport *transport,
                                         const fa_sharded_layer_desc *desc, fa_sharded_layer **layer);

/** Destroys a layer that does not run. NULL is allowed. Not collective. */
FA_API void fa_sharded_layer_destroy(fa_sharded_layer *layer);

/** The bytes of scratch memory that each run needs. 0 for NULL. Thread-safe. */
FA_API size_t fa_sharded_layer_workspace(const fa_sharded_layer *layer);

/** The memory of one run. */
typedef struct fa_sharded_layer_args {
    size_t struct_size; /* sizeof(fa_sharded_layer_args) */
    /* That of the attention. Its workspace has fa_sharded_layer_workspace() bytes. */
    const fa_attention_args *attention;
    /* In host memory, or with a transport of device_memory 1 addresses of memory of the device (a CUdeviceptr). */
    const void *w; /* W_r, of shape (heads * dim_v, width); NULL with `project`                          */
    void *y;       /* (tokens, width), contiguous; with `project` anywhere that the transport takes      */
} fa_sharded_layer_args;

/**
 * Runs the layer, and returns when y is whole. Collective: all ranks run their layers in the same order. The queue's
 * work before is waited for. Where the transport allows it (any_thread) and there are several chunks, a thread of the
 * library's calls it while the caller's computes. Where they are enqueued no thread is started; what the transport may
 * wait, its time-out, counts from when this rank's chunks are computed.
 *
 * With a transport of fixed_order and own_gemm 1, y does not depend on the number of chunks, not in one bit, where all
 * ranks have as many heads. With a CBLAS it may, as its sums may depend on how many rows it is given.
 *
 * FA_INVALID: a pointer or a buffer is missing, too small, of another device or memory, or misaligned; y shares bytes
 * with anything else (which is not looked at where a caller projects). FA_UNSUPPORTED: a queue that records, or whose
 * stream is captured. A run that is refused for one of these has not begun: it is repeated with right arguments, while the
 * other ranks wait, and never skipped. After any other failure o, lse and y may be written in part, and the layer runs
 * no more: FA_RANK_LOST. Objects that share its transport are then of no use either. Other ranks learn of what fails on
 * this rank alone by the time-out: FA_RANK_LOST. FA_OUT_OF_MEMORY. FA_DEVICE_LOST.
 */
FA_API fa_status fa_sharded_layer_run(fa_sharded_layer *layer, fa_queue *queue,
                                      const fa_sharded_layer_args *args);

/** What a layer's model chose. Seconds are modelled, of the slowest rank. */
typedef struct fa_sharded_layer_info {
    size_t struct_size; /* sizeof(fa_sharded_layer_info), set by the caller                              */
    int64_t tokens, chunks;
    const int64_t *first;     /* chunk c is tokens first[c] to first[c + 1] - 1; the layer's memory     */
    int32_t overlapped;       /* 1: a chunk is reduced while the next one is computed                  */
    char projection[64];      /* the file of the CBLAS or of cuBLAS; "own": the library's loop; "caller" */
    double attention_seconds; /* of all chunks together                                                */
    double projection_seconds;
    double reduce_seconds;  /* of one allreduce of y                                                 */
    double in_turn_seconds; /* attention, projection and one allreduce, one after the other           */
    double seconds;         /* of a run                                                              */
} fa_sharded_layer_info;

/** Fills `info`. FA_INVALID: NULL, or struct_size is wrong. Thread-safe. */
FA_API fa_status fa_sharded_layer_get_info(const fa_sharded_layer *layer, fa_sharded_layer_info *info);

/**
 * A context whose keys are sharded (context parallelism, in decoding): each rank has some of the keys of each sequence,
 * and all ranks have the same rows of q. Each computes a state over its keys, an output and its LSE; a gather brings
 * them all to all ranks, and each merges them (fa_merge_desc): o and lse, on every rank, are those of all keys
 * together. Where keys lie has no meaning but what each rank's description says: without a mask each row sees all keys
 * of a rank.
 */
typedef struct fa_sharded_context fa_sharded_context;

/**
 * Prepares it on `device`. Collective: all ranks call it, and all succeed or none. `desc` is that of this rank's keys;
 * a rank may have none. Rows of q, query heads, dim_v, sequences, scale and softcap are the same on all ranks; types,
 * strides, formats of the cache, masks and want_lse need not be. A sink counts once: at most one rank has sinks.
 * Everything is copied out of desc and transport. Destroy with fa_sharded_context_destroy(). *made is NULL on failure.
 *
 * FA_INVALID: NULL, or a field of transport (other ranks are not told of these); desc is wrong; a number that all ranks
 * give alike differs: the message names the field, both numbers and both ranks; two ranks have sinks. FA_UNSUPPORTED:
 * want_status, lens_q, packed rows that no sequence has or with dynamic_lengths, as each row has a state on each rank;
 * the device does not serve it. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. FA_RANK_LOST. Where
 * another rank failed, its status, and a message that names it.
 */
FA_API fa_status fa_sharded_context_create(fa_device *device, const fa_transport *transport,
                                           const fa_attention_desc *desc, fa_sharded_context **made);

/** Destroys one that does not run. NULL is allowed. Not collective. */
FA_API void fa_sharded_context_destroy(fa_sharded_context *context);

/** The bytes of scratch memory that each run needs. 0 for NULL. Thread-safe. */
FA_API size_t fa_sharded_context_workspace(const fa_sharded_context *context);

/**
 * The plan of this rank's keys. With dynamic_lengths it gives the size of the work (fa_plan_work()) and writes it
 * (fa_plan_schedule()), as where the cache of one rank grows. Rows are the description's: lengths with sequences,
 * lens_q or cu_rows_q are FA_INVALID. NULL for NULL. Thread-safe.
 */
FA_API const fa_plan *fa_sharded_context_plan(const fa_sharded_context *context);

/**
 * Runs it, with the arguments, checks and errors of fa_plan_run(), but that the workspace has
 * fa_sharded_context_workspace() bytes. Collective: all ranks run their objects in the same order. It returns when the
 * gather is done, and the merge is enqueued. One run of an object at a time.
 *
 * A run that is refused for a pointer, a buffer or an offset of its arguments has not begun: it is repeated with right
 * ones, while the other ranks wait, and never skipped. After any other failure, what `work` or page_table holds
 * included, the object runs no more: FA_RANK_LOST. With FA_RANK_LOST nothing is written to o and lse. Other ranks learn
 * of what fails on this rank alone by the time-out. After FA_RANK_LOST over a transport whose calls go on (NCCL's until
 * they are aborted) the workspace is still written to.
 */
FA_API fa_status fa_sharded_context_run(fa_sharded_context *context, fa_queue *queue,
                                        const fa_attention_args *args);

#ifdef __cplusplus
}
#endif
#endif
