/* SPDX-License-Identifier: Apache-2.0 */
/* A layer with sharded heads, on any transport, and its oracle in double precision. */
#ifndef FASTATTN_TESTS_RANKS_LAYER_SCENE_H
#define FASTATTN_TESTS_RANKS_LAYER_SCENE_H

#include <fastattn/fastattn.h>

enum {
    BATCH = 2,
    ROWS = 75, /* of an entry: blocks and tiles do not divide it */
    KEYS = 90,
    HEADS_KV = 4,
    GROUP = 2,
    HEADS = HEADS_KV * GROUP,
    DIM = 32,
    WIDTH = 70,
    TOKENS = BATCH * ROWS,
    PACKED = 3, /* sequences, where rows are packed */
};

/* What a scene computes, and how. */
typedef struct layer_kind {
    fa_mask_kind mask;
    int64_t window_left;
    int packed; /* rows of all tokens in PACKED sequences                    */
    int padded; /* entries of a dense batch have fewer rows than there are   */
    int alibi;
    fa_dtype y, w;
} layer_kind;

/* Fills the data of all ranks, and what their sum is: exact, and how far f32 and the type of y may be off. */
typedef struct layer_scene {
    layer_kind kind;
    int32_t ranks;
    double *exact, *bound; /* (TOKENS, WIDTH); bound below 0: rows that no sequence has */
    float *q, *k, *v, *slopes;
    void *w;
} layer_scene;
fa_status layer_scene_make(fa_context *context, const layer_kind *kind, int32_t ranks, layer_scene *s);
void layer_scene_release(layer_scene *s);

/* What a rank runs it with. */
typedef struct layer_options {
    int64_t chunks;
    int32_t own_gemm;
    int callback;     /* a projection of the caller's: the test's own loop */
    int64_t fails_at; /* the callback fails at that token; -1: never */
    int enqueues;     /* project_enqueues */
} layer_options;

/* Makes this rank's layer and runs it twice; y has TOKENS * WIDTH elements. The first failure's status. */
fa_status layer_scene_run(fa_device *device, const fa_transport *transport, const layer_scene *s,
                          const layer_options *options, void *y, fa_sharded_layer_info *info, int64_t *first);

/* How many elements of y are not within the bound of the oracle. */
int layer_scene_compare(const layer_scene *s, const void *y);

#endif
