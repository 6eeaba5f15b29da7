/* SPDX-License-Identifier: Apache-2.0 */
/* Transports, checked; and what ranks must agree on before they compute anything together. */
#ifndef FA_CORE_RANKS_TRANSPORT_H
#define FA_CORE_RANKS_TRANSPORT_H

#include <fastattn/transport.h>

#include "core/status.h"

/* A caller's transport of any version as one of ours. FA_INVALID names the field. */
fa_status fa_transport_read(const fa_transport *theirs, fa_transport *ours);

/* The functions of a transport that was read, whose message becomes this thread's. */
fa_status fa_allreduce(const fa_transport *transport, fa_dtype dtype, void *data, int64_t count);
fa_status fa_allgather(const fa_transport *transport, const void *from, void *to, size_t bytes);
fa_status fa_allgather_data(const fa_transport *transport, const void *from, void *to, size_t bytes);
fa_status fa_shift(const fa_transport *transport, const void *from, void *to, size_t bytes);

/* Likewise of one that has `events`. */
fa_status fa_enqueue_allreduce(const fa_transport *transport, fa_dtype dtype, void *data, int64_t count,
                               void *event);
fa_status fa_finish_allreduces(const fa_transport *transport);

/* What a number means that all ranks give alike. */
typedef struct fa_rank_word {
    const char *name;
    int64_t value;
} fa_rank_word;

/* The bits of an f32 as such a number. */
int64_t fa_rank_bits(float value);

enum { FA_RANK_WORDS = 24, FA_RANK_SHARES = 6 };

/* A number that each rank has its own of: `own`, and of all ranks the least and the most. */
typedef struct fa_rank_share {
    double own, least, most;
} fa_rank_share;

/*
 * One gather, to which every rank comes whatever has happened to it: `own` is its status so far. All ranks succeed, or none.
 * `what` is what they make. Where a rank has failed, the others return its status. FA_INVALID names the first word that differs
 * from rank 0's, or on rank 0 the first that differs on another rank. FA_OUT_OF_MEMORY, FA_RANK_LOST.
 */
fa_status fa_ranks_agree(const fa_context *context, const fa_transport *transport, const char *what,
                         fa_status own, const fa_rank_word *words, int count, fa_rank_share *shares,
                         int share_count);

#endif
