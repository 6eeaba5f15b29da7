/* SPDX-License-Identifier: Apache-2.0 */
/* Scenes of saliency: random problems and caches, each run on a backend and held to its definition in double precision. */
#ifndef FASTATTN_TESTS_GPU_SALIENCY_SCENE_H
#define FASTATTN_TESTS_GPU_SALIENCY_SCENE_H

#include <fastattn/saliency.h>

#include "tests/gpu/on_backend.h"

enum {
    BATCH = 2,
    HEADS_Q = 4,
    HEADS_KV = 2,
    GROUP = 2,
    ROWS = 9,
    KEYS = 71,
    DIM = 20,
    PAGE = 8,
    PAGES = 9, /* of a sequence */
    POOL = BATCH * PAGES + 1,
    MOST_KEYS = PAGE * PAGES,
    CODED_DIM = 32,
    GROUPS = 4, /* most of the dims of a key */
    PROBES = 5,
    WORDS = 3
};

typedef struct scene {
    fa_attention_desc desc;
    fa_saliency_desc saliency;
    int64_t lens[BATCH], first[BATCH], rows[BATCH];
    int32_t probes[BATCH][PROBES];
    int keys, dim;
    float slopes[HEADS_Q], factors[HEADS_Q], sinks[HEADS_Q];
    unsigned char q[BATCH * HEADS_Q * ROWS * CODED_DIM * 4], k[POOL * HEADS_KV * PAGE * CODED_DIM * 4];
    unsigned char k_scale[POOL * HEADS_KV * PAGE * GROUPS * 4], k_zero[POOL * HEADS_KV * PAGE * GROUPS * 4];
    int32_t table[BATCH][PAGES];
    float v[POOL * HEADS_KV * PAGE * CODED_DIM], bias[HEADS_Q * ROWS * MOST_KEYS];
    uint8_t keep[BATCH * ROWS * MOST_KEYS];
    uint32_t bits[BATCH * ROWS * WORDS];
    float lse[BATCH * HEADS_Q * ROWS];
    float out[BATCH * HEADS_Q * MOST_KEYS];
} scene;

/* A cache: pages, and a type of k, with scales of the given groups where there are any. */
typedef struct cache {
    fa_dtype dtype, scale, zero; /* a scale of FA_BOOL: none; a zero likewise */
    int keys, dims;              /* of a group; 0: all                        */
    float factor;
} cache;

/* A scene of that kind, one of many; with a cache as `in` has it, or of plain keys where that is NULL. */
void make_scene(scene *s, int kind, const cache *in, random_state *random);

/* Work of the scene's lengths, of a plan whose own are the longest. `dynamic` is the plan's dynamic_lengths. */
fa_buffer *make_work(const scene *s, fa_attention_desc *longest, int dynamic, fa_plan **plan);

/* With the description's own lengths (dynamic 0), or with those of work. */
void run_scene_with(scene *s, int lost, int dynamic);

/* With its own lengths. */
void run_scene(scene *s, int lost);

#endif
