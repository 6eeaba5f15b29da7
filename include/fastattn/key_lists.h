/* SPDX-License-Identifier: Apache-2.0 */
/** Lists of single keys: each row sees the keys that its list names, and no others are read. */
#ifndef FASTATTN_KEY_LISTS_H
#define FASTATTN_KEY_LISTS_H

#include "attention.h"
#include "device.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Attention of each row to keys of its own: DeepSeek's sparse attention (DSA, DeepSeek-V3.2), where an indexer chooses 2048 of up
 * to 128K keys for each row, and the sparse decode and prefill of FlashMLA. fa_sparse_indexer() of sparse.h is such an indexer.
 *
 * Lists are `indices`, 32-bit integers of shape (batch, rows, heads, topk), contiguous: batch and rows are q's. A row sees the
 * keys that its list has, in any order. -1 is none, and may stand anywhere. A row whose list has no key gives 0, as any
 * row that sees none. Which keys a number means:
 *  - Key j of the row's batch entry is j. k has q's batch.
 *  - With attention->page_table (whose axis 0 is q's batch or 1), it is key j of the pages that the row's line of the table has.
 *  - With `slots`, it is the slot of a key: entry * k.shape[2] + j, of whatever entry of k or page of a pool. k has a batch of
 *    its own, and attention->page_table is absent. FlashMLA's indices are such.
 *
 * `attention` says the rest: q, k, v, o, v_in_k, scales of the cache, scale, softcap, sinks, want_lse, tuning. Its formats are all
 * that a plan has: latent rows in bf16 or FA_FP8_DS_MLA with 576 dims, of which 512 are v, are what FlashMLA reads.
 *
 * Keys lie anywhere in memory, so that each is fetched on its own. k and v, and scales of theirs that differ from key to key,
 * lie in the same order: their strides along batch (or page), key, and with lists of each KV head also head, are multiples of
 * each other. Otherwise FA_UNSUPPORTED, which names the stride. So are, by name: masks, windows, prefix, diagonal_offset, ALiBi, bias, keep,
 * lists of blocks, packed sequences, lengths, first keys and want_status: the list of a row says what it sees. And sinks or
 * scales that differ from head to head, where KV heads have lists of their own.
 */
typedef struct fa_key_lists_desc {
    size_t struct_size; /* sizeof(fa_key_lists_desc) */
    const fa_attention_desc *attention;
    int64_t topk;   /* numbers in a list: 1 to FA_MAX_LENGTH                                     */
    int64_t heads;  /* that have lists of their own: 1, or k.shape[1]; 0: 1                      */
    int32_t slots;  /* 1: numbers are slots                                                      */
    int32_t unique; /* 1: no list on the device has a key twice. 0: lists are searched for those */
} fa_key_lists_desc;

/** A prepared attention to lists of keys. It never changes. Any number of threads may run one. */
typedef struct fa_key_lists fa_key_lists;

/**
 * Prepares it on `device`: a plan whose sequences are rows, and a task that writes their page tables. Everything is copied out
 * of desc. Destroy with fa_key_lists_destroy(). *lists is NULL on failure. FA_INVALID: NULL; a field is wrong, which the message
 * names. FA_UNSUPPORTED: as above; more than 2^24 lists; or the device does not serve it. FA_OUT_OF_MEMORY. FA_COMPILE.
 * FA_DEVICE_LOST. Thread-safe.
 */
FA_API fa_status fa_key_lists_create(fa_device *device, const fa_key_lists_desc *desc, fa_key_lists **lists);

/** Destroys lists that no queue still runs. NULL is allowed. */
FA_API void fa_key_lists_destroy(fa_key_lists *lists);

/** The bytes of scratch memory that each run needs, whatever its lists. 0 for NULL. Thread-safe. */
FA_API size_t fa_key_lists_workspace(const fa_key_lists *lists);

/** The bytes of the work of one run: 8 for each number of the lists, and some for each list. 0 for NULL. Thread-safe. */
FA_API size_t fa_key_lists_work(const fa_key_lists *lists);

/**
 * Writes the work of runs with these lists, which lie in host memory, to `work`, a buffer of the lists' device, from byte
 * `work_offset` on, in the queue's order. The buffer then serves any number of runs, until it is written again.
 * `page_table` is given exactly if attention->page_table is; the lists are read by it now, not when they run.
 *
 * FA_INVALID: NULL; a number below -1, or from the keys there are on; a key that a list has twice; a buffer of another device, or
 * that is too small; page_table_offset is no multiple of 4, or work_offset no multiple of 256; work overlaps page_table. Nothing
 * is written then. FA_UNSUPPORTED: as fa_buffer_write() and fa_plan_schedule_device(). FA_OUT_OF_MEMORY. FA_DEVICE_LOST.
 * Several threads may use one fa_key_lists, each with its own queue and work.
 */
FA_API fa_status fa_key_lists_schedule(const fa_key_lists *lists, fa_queue *queue, const int32_t *indices,
                                       fa_buffer *page_table, size_t page_table_offset, fa_buffer *work,
                                       size_t work_offset);

/**
 * The same of lists that lie on the device, where an operation before it in the queue's order may have written them. What is out
 * of range, or in a page that the pool does not have, is passed over as -1 is, and never read. A key that is in a list twice
 * counts once; with `unique`, whose promise is then broken, as often as it is there.
 *
 * Nothing is allocated, compiled or waited for. On cuda the stream may be captured; on Vulkan the queue may record. Without
 * `unique` each number is compared with those before it in its list, which for 2048 numbers takes longer than attention to
 * their keys may. Errors are those above, and FA_INVALID: indices_offset is no multiple of 4, or work overlaps indices.
 */
FA_API fa_status fa_key_lists_schedule_device(const fa_key_lists *lists, fa_queue *queue, fa_buffer *indices,
                                              size_t indices_offset, fa_buffer *page_table,
                                              size_t page_table_offset, fa_buffer *work, size_t work_offset);

/**
 * Enqueues the attention on a queue of the device. `args` are those of fa_plan_run() for the attention described, with its
 * checks, errors and lifetimes, but page_table is NULL, and work is that of fa_key_lists_schedule(), which must be there. Several
 * threads may run one fa_key_lists, each on its own queue.
 */
FA_API fa_status fa_key_lists_run(const fa_key_lists *lists, fa_queue *queue, const fa_attention_args *args);

#ifdef __cplusplus
}
#endif
#endif
