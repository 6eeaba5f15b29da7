/* SPDX-License-Identifier: Apache-2.0 */
/* A context whose keys are sharded, on any transport, and its oracle over all keys. */
#ifndef FASTATTN_TESTS_RANKS_CONTEXT_SCENE_H
#define FASTATTN_TESTS_RANKS_CONTEXT_SCENE_H

#include <fastattn/fastattn.h>

enum { SEQUENCES = 3, CACHE = 130, CTX_KV = 2, CTX_HEADS = 6, CTX_DIM = 64, CTX_MOST_ROWS = 3 };

/* What a scene computes. */
typedef struct context_kind {
    int64_t rows;
    int f16;   /* caches of odd ranks and o are f16 */
    int sinks; /* on the last rank */
    int dynamic;
} context_kind;

/* The same on all ranks; each takes its part of the keys. The oracle is of all of them. */
typedef struct context_scene {
    context_kind kind;
    float *q, *k, *v; /* k and v: (SEQUENCES, CTX_KV, CACHE, CTX_DIM) */
    double *o, *lse, *o_bound, *lse_bound;
} context_scene;
fa_status context_scene_make(fa_context *context, const context_kind *kind, int32_t ranks, context_scene *s);
void context_scene_release(context_scene *s);

/* Makes this rank's object, runs it, and counts what is not within the bound, in o and in the LSE. */
fa_status context_scene_run(fa_device *device, const fa_transport *transport, const context_scene *s,
                            int *wrong);

#endif
