/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of planners share: their lists against a byte for each block, and attention with these against the oracle. */
#ifndef FASTATTN_TESTS_GPU_SPARSE_SCENE_H
#define FASTATTN_TESTS_GPU_SPARSE_SCENE_H

#include <fastattn/sparse.h>

#include "tests/gpu/on_backend.h"

enum { MOST_HEADS = 4, MOST_BATCH = 2, MOST_ROWS = 200, MOST_KEYS = 300, DIM = 16 };

/* A problem whose operands are drawn, and what single rows see of single keys. `keep` is (batch, heads_q, rows, keys). */
typedef struct sparse_scene {
    int64_t batch, heads_q, heads_kv, rows, keys;
    fa_mask_kind mask;
    const fa_neighbourhood *neighbourhood; /* of runs; NULL: none */
    uint8_t keep[MOST_BATCH * MOST_HEADS * MOST_ROWS * MOST_KEYS];
    float q[MOST_BATCH * MOST_HEADS * MOST_ROWS * DIM], k[MOST_BATCH * MOST_HEADS * MOST_KEYS * DIM],
        v[MOST_BATCH * MOST_HEADS * MOST_KEYS * DIM];
} sparse_scene;

void scene_draw(sparse_scene *s, random_state *random);

/* Runs with the lists and `bits` (each may be NULL: none), and expects what the oracle makes of `keep`. */
void scene_expect(sparse_scene *s, const fa_block_mask *mask, const uint32_t *bits);

/* `keep` as the lists of the mask have it. */
void scene_keep(sparse_scene *s, const fa_block_mask *mask);

fa_block_lists lists_of(const fa_block_mask *mask);

/* Whether the list has the block. */
bool list_has(const fa_block_lists *lists, int64_t sequence, int64_t head, int64_t row_block,
              int64_t key_block);

/* Key position of a row, and whether a row of the block sees a key of the other by a causal mask. */
int64_t position_of(const fa_sparse_shape *shape, int64_t row);
bool mask_shows(const fa_sparse_shape *shape, int64_t row, int64_t key);

#endif
