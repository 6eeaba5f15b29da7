/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Operations on a device that bring rows into another order, for attention that sorts its keys or rows: a gather by lists, a
 * counting sort and a hash. They run in a queue's order, beside attention.
 */
#ifndef FASTATTN_PERMUTE_H
#define FASTATTN_PERMUTE_H

#include "attention.h"
#include "buffer.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What holds for each of the objects below. It never changes once it is made, and any number of threads may run it, each with its
 * own queue and outputs. Creating copies everything out of the description, and sets the object to NULL on failure.
 * FA_INVALID: NULL, or a field is wrong, which the message names. FA_UNSUPPORTED: a tensor larger than the device's kernels reach;
 * numbers that the device's loops do not count to. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. An object is destroyed when no
 * queue runs it any more; NULL is allowed. A run allocates nothing; its buffers must live until it is done, and `args` is
 * copied. FA_INVALID from a run: a buffer is missing, too small, of another device, or misaligned; or what is written shares
 * bytes with another operand. Nothing is written then. All functions are thread-safe.
 */

/**
 * Rows in the order of lists. A list is of one head, or of some that follow each other, and row i of it is number order[i]:
 *  - gather: row i of `to` is row order[i] of `from`. Where order[i] is no row of `from`, as -1 is none, it is zeros.
 *  - scatter: row order[i] of `to` is row i of `from`. Where order[i] is no row of `to`, nothing is written; a list names no row
 *    twice, or either may be there. Rows that no list names stay as they are. So a scatter undoes a gather by the same lists.
 */
typedef struct fa_gather_desc {
    size_t struct_size; /* sizeof(fa_gather_desc) */
    /* f32, f16, bf16 or i32, and of one type; any strides, but elements of `to` do not overlap. Both have the same batch and dims. A
     * gather may have fewer heads in `from`, each of which serves as many of `to` as the others (as KV heads serve query heads). */
    fa_tensor from, to;
    /* FA_I32, of shape (batch or 1, heads, rows, 1), any strides. Its heads divide those of `to` evenly; its rows are those
     * of `to`, or in a scatter those of `from`. */
    fa_tensor order;
    int32_t scatter; /* 0: gather, 1: scatter */
} fa_gather_desc;

/** A prepared gather or scatter. */
typedef struct fa_gather fa_gather;

/** Prepares it on `device`. Destroy with fa_gather_destroy(). */
FA_API fa_status fa_gather_create(fa_device *device, const fa_gather_desc *desc, fa_gather **gather);
FA_API void fa_gather_destroy(fa_gather *gather);

/** The memory of a run. A tensor's first element lies `..._offset` bytes into its buffer. */
typedef struct fa_gather_args {
    size_t struct_size; /* sizeof(fa_gather_args) */
    fa_buffer *from, *order, *to;
    size_t from_offset, order_offset, to_offset;
} fa_gather_args;

/** Enqueues it on a queue of its device. */
FA_API fa_status fa_gather_run(const fa_gather *gather, fa_queue *queue, const fa_gather_args *args);

/**
 * A counting sort: numbers 0 to buckets - 1 into their order, equal ones in the order in which they are (stable). Each list is
 * sorted on its own, and each piece of a list, where there are pieces. What is below 0, or `buckets` or more, is in no bucket and
 * comes last in its piece, as it came. The result depends on nothing but the numbers.
 *
 * It goes through the numbers twice, and through buckets * 128 counts for each piece.
 */
typedef struct fa_sort_desc {
    size_t struct_size;       /* sizeof(fa_sort_desc)                                                       */
    int64_t lists;            /* 0 or more                                                                  */
    int64_t count;            /* numbers of a list, 0 to FA_MAX_LENGTH                                      */
    int64_t buckets;          /* 1 to 2^16                                                                  */
    int64_t pieces;           /* of every list; 0: it is one, and cu_pieces is NULL                         */
    const int64_t *cu_pieces; /* pieces + 1 offsets from 0 to `count`, which never decrease                 */
    int32_t want_offsets;     /* 1: also write where buckets begin                                          */
} fa_sort_desc;

/** A prepared sort. */
typedef struct fa_sort fa_sort;

/** Prepares it on `device`. Destroy with fa_sort_destroy(). */
FA_API fa_status fa_sort_create(fa_device *device, const fa_sort_desc *desc, fa_sort **sort);
FA_API void fa_sort_destroy(fa_sort *sort);

/** The bytes of scratch memory that each run needs. 0 for NULL. */
FA_API size_t fa_sort_workspace(const fa_sort *sort);

/** The memory of a run, all int32 and contiguous. */
typedef struct fa_sort_args {
    size_t struct_size;      /* sizeof(fa_sort_args)                                                  */
    fa_buffer *keys, *order; /* (lists, count): the numbers; which of them comes there in order       */
    /* (lists, pieces, buckets + 1): bucket b of a piece is order[offsets[b]] to order[offsets[b + 1] - 1] of its list. NULL
     * exactly if not wanted. */
    fa_buffer *offsets, *workspace;
    size_t keys_offset, order_offset, offsets_offset, workspace_offset;
} fa_sort_args;

/** Enqueues it on a queue of its device. */
FA_API fa_status fa_sort_run(const fa_sort *sort, fa_queue *queue, const fa_sort_args *args);

/**
 * A hash of rows that gives neighbours in angle near buckets: the angular LSH of HyperAttention (arXiv 2310.05869). Directions are
 * drawn by seed alone, the same for all heads, and each number of them is nearly normal: a sum of twelve uniform ones. Bit n
 * of a row's signs is 1 if its product with direction n is above 0. The bucket of signs s is the number b with s = b ^ (b >> 1): buckets
 * beside each other differ in one sign (Gray code). The authors' program takes s ^ (s >> 1) for the bucket, which does not keep
 * this.
 *
 * Products and sums are in f32, one by one in the order of the dims, and rounded alike on every backend. So buckets are the same
 * on each, but for rows of numbers below 2^-126, which a GPU may take for 0. A sum that is no number counts as not above 0.
 */
typedef struct fa_hash_desc {
    size_t struct_size; /* sizeof(fa_hash_desc)                                             */
    fa_tensor from;     /* f32, f16 or bf16; any strides                                    */
    int32_t directions; /* 1 to 16, for 2^directions buckets; 0: 7                          */
    uint64_t seed;
} fa_hash_desc;

/** A prepared hash. */
typedef struct fa_hash fa_hash;

/** Prepares it on `device`. Destroy with fa_hash_destroy(). */
FA_API fa_status fa_hash_create(fa_device *device, const fa_hash_desc *desc, fa_hash **hash);
FA_API void fa_hash_destroy(fa_hash *hash);

/** The memory of a run. */
typedef struct fa_hash_args {
    size_t struct_size; /* sizeof(fa_hash_args)                                             */
    fa_buffer *from;
    fa_buffer *buckets; /* int32, contiguous, (batch, head, row)                            */
    size_t from_offset, buckets_offset;
} fa_hash_args;

/** Enqueues it on a queue of its device. */
FA_API fa_status fa_hash_run(const fa_hash *hash, fa_queue *queue, const fa_hash_args *args);

#ifdef __cplusplus
}
#endif
#endif
