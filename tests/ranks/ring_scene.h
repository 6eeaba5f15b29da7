/* SPDX-License-Identifier: Apache-2.0 */
/* A sequence whose tokens are sharded, on any transport, and its oracle over the whole of it. */
#ifndef FASTATTN_TESTS_RANKS_RING_SCENE_H
#define FASTATTN_TESTS_RANKS_RING_SCENE_H

#include <fastattn/fastattn.h>

enum {
    RING_BATCH = 2,
    RING_KV = 2,
    RING_HEADS = 6,
    RING_DIM_QK = 24,
    RING_DIM_V = 16,
    RING_MOST_TOKENS = 150
};

/* What a scene computes. */
typedef struct ring_kind {
    int64_t tokens; /* of each sequence */
    fa_mask_kind mask;
    int f16; /* k, v and o */
    int sinks;
    int by_token; /* memory in the order (batch, token, head, dim), as projections leave it */
    int no_lse;
    int64_t window_left, window_right;
    int slopes;
    float softcap;
} ring_kind;

/* The same on all ranks; each takes its part of the tokens. All are contiguous, of axes (batch, head, token, dim). */
typedef struct ring_scene {
    ring_kind kind;
    float *q, *k, *v;
    double *o, *lse, *o_bound, *lse_bound;
} ring_scene;
fa_status ring_scene_make(fa_context *context, const ring_kind *kind, int32_t ranks, ring_scene *s);
void ring_scene_release(ring_scene *s);

/* The description of one rank's tokens. */
fa_attention_desc ring_scene_describe(const ring_kind *kind, int64_t tokens);

/* Makes this rank's ring, runs it twice, and counts what is not within the bound, in o and in the LSE. */
fa_status ring_scene_run(fa_device *device, const fa_transport *transport, const ring_scene *s, int *wrong);

#endif
