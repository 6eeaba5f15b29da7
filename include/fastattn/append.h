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
     * rounded to nearest; ggml's formats are quantised as ggml's reference does it; fp8 saturates. */
    fa_tensor cache_k, cache_v;
} fa_append_desc;

/** A prepared append. It never changes. Any number of threads may run one, each with its own queue and cache. */
typedef struct fa_append fa_append;

/**
 * Prepares `desc` on `device`. Everything is copied out of desc. Destroy with fa_append_destroy(). *append is NULL on
 * failure. FA_INVALID: NULL, or desc is wrong; the message names the field. FA_UNSUPPORTED: the device's backend does not
 * append. FA_OUT_OF_MEMORY. FA_COMPILE. FA_DEVICE_LOST. Thread-safe.
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
} fa_append_args;

/**
 * Enqueues the append on a queue of its device, in the order of runs of attention. Allocates nothing. The buffers and
 * the append must live until it is done; `args` is copied.
 *
 * FA_INVALID: a buffer is missing, too small, of another device, or misaligned; or an element of the cache shares bytes
 * with one of k, v or slots. Where the host reads slots (host_memory of fa_device_info): a slot that the cache has
 * not, or that is given twice. Nothing is written then. Elsewhere a row whose slot the cache has not is skipped.
 * FA_DEVICE_LOST. Several threads may run one append, each on its own queue.
 */
FA_API fa_status fa_append_run(const fa_append *append, fa_queue *queue, const fa_append_args *args);

#ifdef __cplusplus
}
#endif
#endif
