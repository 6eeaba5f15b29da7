/* SPDX-License-Identifier: Apache-2.0 */
/* Into which chunks the tokens of a sharded layer are cut: pure functions, so that made-up links are planned like real ones. */
#ifndef FA_CORE_RANKS_CHUNKS_H
#define FA_CORE_RANKS_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>

/* What the model goes by. */
typedef struct fa_link_model {
    double compute_seconds; /* of all tokens, on the slowest rank */
    double bytes;           /* that are reduced, of all tokens    */
    double latency, bandwidth;
    double chunk_seconds; /* that each chunk costs beside its share */
    bool overlaps;        /* a chunk is reduced while the next is computed */
    bool enqueued; /* by the device alone: a chunk's product is done about when the next one's attention is */
} fa_link_model;

/*
 * The seconds that a chunk costs beside its share: a plan is started and waited for, and a thread is woken. On a GPU the host
 * waits three times, and smaller plans fill it less. Where chunks are enqueued only that is left (tests/ranks/time_layer.c on
 * two H200).
 */
double fa_chunks_cost(bool host, bool enqueued);

/* The seconds of a layer in so many chunks of one size. */
double fa_chunks_seconds(const fa_link_model *model, int64_t chunks);

/*
 * The fastest number of chunks, 1 to `most`; the least of those that are about as fast. Where they are enqueued it is a power of
 * two: numbers of tokens mostly have such factors, and products of other numbers of rows leave units idle.
 */
int64_t fa_chunks_choose(const fa_link_model *model, int64_t most);

/*
 * The most chunks that are worth enqueueing, of so many blocks of rows of all heads: a chunk has about two for each unit of the
 * device. With fewer the next chunk's blocks take the units that this one's product needs, and no sum begins before all is done.
 */
int64_t fa_chunks_filling(int64_t blocks, uint32_t units);

/* Rows that lie behind each other in the order of tokens. */
typedef struct fa_token_range {
    int64_t first, count;
} fa_token_range;

/*
 * Cuts [0, tokens) into at most `chunks` parts of about one size, each cut a multiple of `unit` from the beginning of the
 * sequence that it is in. cut[0] is 0 and cut[n] is `tokens`, of n parts, which is returned; none is empty. Sequences are in
 * the order of tokens and do not overlap.
 */
int64_t fa_chunks_cut(int64_t tokens, int64_t chunks, int64_t unit, const fa_token_range *sequence,
                      int64_t sequences, int64_t *cut);

#endif
