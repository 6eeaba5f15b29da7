/* SPDX-License-Identifier: Apache-2.0 */
/** Rings: attention of a sequence to itself whose tokens, rows and keys both, are divided among ranks. */
#ifndef FASTATTN_RING_H
#define FASTATTN_RING_H

#include "attention.h"
#include "device.h"
#include "plan.h"
#include "transport.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A prompt whose tokens are sharded (context parallelism in prefill; ring attention, arXiv 2310.01889): each rank has the
 * rows of q and o, and the keys, of some tokens. Keys and values travel round the ring of ranks, a rank's at a time, while
 * those that came before are computed with; what a row gets of each rank's keys is a state, and states are merged by LSE
 * (fa_merge_desc).
 *
 * Under a causal mask late tokens see more keys. So that all ranks compute as much, tokens are cut into 2 * ranks chunks, and
 * rank r has chunks r and 2 * ranks - 1 - r (zig-zag). In its tensors these lie one behind the other on the row axis.
 */
typedef struct fa_ring fa_ring;

/**
 * The tokens of a rank: chunk i of its two is tokens first[i] to first[i] + count[i] - 1 of the sequence, and rows 0 to
 * count[0] - 1, or count[0] to count[0] + count[1] - 1, of the rank's tensors. Of few tokens a chunk may have none.
 * FA_INVALID: NULL; tokens is below 1 or above FA_MAX_LENGTH; ranks is below 1 or above FA_MAX_RANKS; there is no such rank.
 * Thread-safe.
 */
FA_API fa_status fa_ring_share(int64_t tokens, int32_t ranks, int32_t rank, int64_t first[2],
                               int64_t count[2]);

/** What a ring computes. */
typedef struct fa_ring_desc {
    size_t struct_size; /* sizeof(fa_ring_desc) */
    /* With this rank's tokens alone: q, k, v and o have as many rows as fa_ring_share() says; each batch entry is a sequence
     * of its own. k and v are f32, f16 or bf16. The mask is a causal one or none; windows and ALiBi count tokens of the whole
     * sequence. Sinks and slopes are the same on all ranks.
     * FA_UNSUPPORTED, by name: all else that hides keys, or depends on where they stand or how many there are; formats of
     * caches; v_in_k. */
    const fa_attention_desc *attention;
    int64_t tokens; /* of each sequence, on all ranks together; 1 to FA_MAX_LENGTH */
} fa_ring_desc;

/**
 * Prepares a ring on `device`. Collective: all ranks call it, and all succeed or none. tokens, batch, heads, dims, types of k
 * and v, mask, windows, scale and softcap are the same on all ranks, and all have sinks or none, and slopes or none; types of q and o, strides and want_lse
 * need not be. Everything is copied out of desc and transport. Destroy with fa_ring_destroy(). *ring is NULL on failure.
 *
 * FA_INVALID: NULL, or a field of transport (other ranks are not told of these); desc is wrong; a number that all ranks
 * give alike differs: the message names the field, both numbers and both ranks. FA_UNSUPPORTED: as above; transport.shift is
 * NULL; transport.device_memory is 1 and device is none of CUDA's; the device does not serve it. FA_OUT_OF_MEMORY; of more
 * than 16 ranks others may not be told of it, and get FA_RANK_LOST. FA_COMPILE. FA_DEVICE_LOST. FA_RANK_LOST. Where another
 * rank failed, its status, and a message that names it.
 */
FA_API fa_status fa_ring_create(fa_device *device, const fa_transport *transport, const fa_ring_desc *desc,
                                fa_ring **ring);

/** Destroys a ring that does not run. NULL is allowed. Not collective. */
FA_API void fa_ring_destroy(fa_ring *ring);

/**
 * The bytes of scratch memory that each run needs: two blocks of keys and values, of the rank that has the most, two states of
 * each row in f32, and what plans need. 0 for NULL. Thread-safe.
 */
FA_API size_t fa_ring_workspace(const fa_ring *ring);

/**
 * Runs it, with the arguments, checks and errors of fa_plan_run(), but that the workspace has fa_ring_workspace() bytes, and
 * lse, where it is wanted, has the LSEs of the first chunk, (batch, heads_q, count[0]), and behind them those of the second.
 * Collective: all ranks run their rings in the same order. It returns when what is left is a merge, which is enqueued. Where
 * the transport allows it (any_thread), a thread of the library's sends and receives while the caller's computes; else a
 * device computes whose queue does not wait. One run of a ring at a time.
 *
 * A run that is refused for its arguments has not begun: it is repeated with right ones, while the other ranks wait, and
 * never skipped. After any other failure o and lse may be written in part, and the ring runs no more: FA_RANK_LOST. Other
 * ranks learn of what fails on this rank alone by the time-out. After FA_RANK_LOST over a transport whose calls go on (NCCL's
 * until they are aborted) the workspace is still written to.
 */
FA_API fa_status fa_ring_run(fa_ring *ring, fa_queue *queue, const fa_attention_args *args);

#ifdef __cplusplus
}
#endif
#endif
