/* SPDX-License-Identifier: Apache-2.0 */
/** Mixes: rows of a tensor that are weighted sums of rows of another, as policies that compress a cache make them. */
#ifndef FASTATTN_MIX_H
#define FASTATTN_MIX_H

#include "attention.h"
#include "buffer.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * What rows are made of. Rows of a tensor are numbered in the order of its first three axes, whatever its strides:
 * row (b, h, r) is number (b * heads + h) * rows + r. List n makes one row:
 *     row places[n] of `to` = sum over e from offsets[n] to offsets[n + 1] - 1 of weights[e] * row rows[e] of `from`.
 * So one list of all dropped keys with the weights 1/count is a compensation token, lists of one key each are a gather, and what
 * policies.h plans are such lists. Sums are f32, of 64 products each and then of these sums; then they are rounded to the type of
 * `to`. A list of one row without weights copies it.
 */
typedef struct fa_mix_desc {
    size_t struct_size; /* sizeof(fa_mix_desc) */
    fa_tensor from;     /* f32, f16 or bf16, any strides                                      */
    fa_tensor to;       /* likewise, with as many dims; no two of its elements share memory   */
    int64_t lists;      /* 0 to 2^31 - 1                                                      */
    int64_t entries;    /* of all lists, likewise                                             */
    int64_t longest;    /* entries of the longest list: what a list has more is not read. 0: `entries` */
    int32_t weighted;   /* 1: runs are given weights; 0: all are 1                            */
    int32_t placed;     /* 1: runs are given places; 0: list n makes row n                    */
} fa_mix_desc;

/** A prepared mix. It never changes. Any number of threads may run one, each with its own queue and outputs. */
typedef struct fa_mix fa_mix;

/**
 * Prepares a mix on `device`. Everything is copied out of desc. Destroy with fa_mix_destroy(). *mix is NULL on failure. FA_INVALID:
 * NULL, or desc is wrong; the message names the field. FA_UNSUPPORTED: more than 2^31 - 1 rows of a tensor or 2^31 - 1024
 * dims; a tensor larger than the device's kernels reach; a longer list than its driver lets loops count. FA_OUT_OF_MEMORY. FA_COMPILE.
 * FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_mix_create(fa_device *device, const fa_mix_desc *desc, fa_mix **mix);

/** Destroys a mix that no queue still runs. NULL is allowed. */
FA_API void fa_mix_destroy(fa_mix *mix);

/**
 * The memory of one run, in buffers of the mix's device. offsets are `lists` + 1 numbers of 32 bits, rows are `entries` of them,
 * weights are `entries` f32, places are `lists` numbers of 32 bits; the last two are NULL exactly if the description has none.
 * They may lie where an operation before wrote them. Offsets in bytes.
 */
typedef struct fa_mix_args {
    size_t struct_size; /* sizeof(fa_mix_args) */
    fa_buffer *from, *to, *offsets, *rows, *weights, *places;
    size_t from_offset, to_offset, offsets_offset, rows_offset, weights_offset, places_offset;
} fa_mix_args;

/**
 * Enqueues the mix on a queue of its device, in the order of runs of attention; it can be captured or recorded as these are.
 * Allocates nothing. The buffers and the mix must live until it is done; `args` is copied.
 *
 * What is out of range is passed over: entries whose row `from` has not, lists whose place `to` has not, what offsets say beyond
 * `entries`. A list without entries makes a row of zeros. Of lists with the same place, any one may be what is left. FA_INVALID: a
 * buffer is missing, too small, of another device, or misaligned; the memory from the first to the last element of `to` meets that
 * of another operand. Nothing is written then. FA_DEVICE_LOST.
 */
FA_API fa_status fa_mix_run(const fa_mix *mix, fa_queue *queue, const fa_mix_args *args);

#ifdef __cplusplus
}
#endif
#endif
