/* SPDX-License-Identifier: Apache-2.0 */
/* Scenes of caches in segments: what they hold, in which formats, and a run that is held to the oracle of all keys in one tensor. */
#ifndef FASTATTN_TESTS_GPU_SEGMENTS_SCENE_H
#define FASTATTN_TESTS_GPU_SEGMENTS_SCENE_H

#include "tests/gpu/on_backend.h"

enum { BATCH = 2, HEADS_Q = 4, HEADS_KV = 2, KEYS = 48, PAGE = 16, DIM = 32, ROWS = 3, MOST = 4 };
enum { CACHE = BATCH * HEADS_KV * KEYS * DIM, STATES = BATCH * HEADS_Q * ROWS };

/* k or v of a segment: what it is made of, its codes with their scales, and the numbers that these stand for. */
typedef struct side {
    fa_tensor t, scale, zero;
    float x[CACHE], decoded[CACHE];
    unsigned char codes[CACHE * sizeof(float)];
    uint16_t scales[CACHE], zeros[CACHE];
} side;

/* A scale in f16, and a zero, for each group of so many keys and dims; groups of 0 keys: no scales. */
typedef struct format {
    const char *name;
    fa_dtype k, v;
    int k_keys, k_dims, v_keys, v_dims;
    bool k_zeros, v_zeros;
} format;

enum { F16 = 1, Q8_0 = 7, FORMATS = 9 }; /* of formats[] */
extern const format formats[FORMATS];

typedef struct cache {
    fa_segment segment;
    const char *name;
    bool paged;
    side k, v;
    int32_t table[BATCH * KEYS / PAGE];
    int64_t lens[BATCH];
} cache;

typedef struct scene {
    fa_attention_desc desc;
    fa_segments_desc segments;
    const fa_segment *list[MOST];
    cache cache[MOST];
    int64_t cu[BATCH + 1];
    float channels[MOST * BATCH * HEADS_KV * DIM], sinks[HEADS_Q];
    float q[STATES * DIM], o[STATES * DIM], lse[STATES];
} scene;

typedef struct memory_of {
    fa_segments_args args;
    fa_segment_args own[MOST];
    const fa_segment_args *list[MOST];
    fa_buffer *buffer[6 + 7 * MOST];
} memory_of;

int64_t at_of(const fa_tensor *t, int64_t b, int64_t h, int64_t j, int64_t d);

/* In format number `kind`. */
void make_cache(cache *c, int kind, bool paged, random_state *random);

/* Sequences of `rows` query rows; lists that the scene holds are filled here. */
void make_scene(scene *s, int count, int rows, bool packed, bool channels, random_state *random);

/* All keys in one tensor, and as many as there are; `exact`: what was stored, before it was quantised. */
fa_attention_desc whole_scene(const scene *s, bool exact, float *k, float *v, int64_t lens[BATCH]);

/* One that the device serves; false where it serves no scales, by name. */
bool create_segments(const scene *s, fa_segments **segments);

/* Buffers of a run: q and what is written; then those of cache n, of the device at hand; or all, with a workspace. */
void make_operands(const scene *s, memory_of *m);
void make_cache_memory(const scene *s, int n, memory_of *m);
void make_memory(const scene *s, const fa_segments *segments, memory_of *m);
void release_memory(memory_of *m);

/* Outputs are within what f32 arithmetic may be off; after a run here. */
void check_scene(const scene *s);
void run_scene(scene *s, const fa_segments *segments, const memory_of *m);

/* What depends on where among all keys a key stands, which is refused. */
void change_left_window(scene *s);
void change_top_left(scene *s);
void change_slopes(scene *s);

/* test_segments_refused.c */
void add_refusals(TCase *tc);

#endif
