/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of policies share: lists in memory, and the way from them to attention on a backend. */
#ifndef FASTATTN_TESTS_GPU_POLICIES_SCENE_H
#define FASTATTN_TESTS_GPU_POLICIES_SCENE_H

#include <fastattn/mix.h>
#include <fastattn/policies.h>

#include "tests/gpu/on_backend.h"

enum { MOST_HEADS = 4, MOST_GROUP = 3, MOST_KEYS = 100, ROWS = 2, DIM = 16, MOST = MOST_HEADS * MOST_KEYS };

/* A cache and rows that attend to it, and lists that a policy may write. */
typedef struct policy_scene {
    int64_t heads, group, keys;
    float q[MOST_HEADS * MOST_GROUP * ROWS * DIM], k[MOST * DIM], v[MOST * DIM];
    float importance[MOST];
    int32_t cu_keys[MOST_HEADS + 1], offsets[MOST + 1], rows[MOST];
    float weights[MOST];
    fa_policy_lists lists; /* of these */
} policy_scene;

/* Random sizes, keys, values and importances. */
void policy_scene_draw(policy_scene *s, random_state *random);

/* List n has exactly these keys of the head, with such weights, in ascending order. */
void policy_expect_list(const policy_scene *s, int64_t n, int64_t head, const int64_t *keys,
                        const double *weights, int64_t count);

/* List n has the one key. */
void policy_expect_key(const policy_scene *s, int64_t n, int64_t head, int64_t key);

/*
 * On the backend: packs k and v by the lists and attends to them, each KV head as a sequence, with a bias of (heads, 1, 1, keys)
 * where it is not NULL. o is (heads, group, ROWS, DIM).
 */
void policy_attend(const policy_scene *s, const float *bias, float *o);

/*
 * What rows of o may differ by, of keys and values up to 2 that are sums of up to `longest` products: each is rounded so often and
 * twice more, by 2^-24 of at most 2. A score is then wrong by sqrt(DIM) * 2 times that, a weight by twice as much, and 4e-6 is
 * attention's own.
 */
static inline double policy_tolerance(int64_t longest)
{
    const double element = 2 * 0x1p-24 * (double)(longest + 2);
    return element + 2 * 2 * (4 * 2 * element) + 4e-6;
}

/* The weighted mean of values that some keys in double precision make, for one row: key n counts `times[n]`. */
void policy_exact(const float *q, int64_t count, const double *k, const double *v, const double *times,
                  double *o);

#endif
