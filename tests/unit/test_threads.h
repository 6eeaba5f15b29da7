/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that test the threads of the OpenMP-SIMD backend have in common. */
#ifndef FASTATTN_TESTS_UNIT_TEST_THREADS_H
#define FASTATTN_TESTS_UNIT_TEST_THREADS_H

#include <pthread.h>

#include "helpers.h"

enum { HEADS = 8, ROWS = 128, KEYS = 256, DIM = 64, THREADS = 4 };
enum { OUT = HEADS * ROWS * DIM, IN = HEADS * KEYS * DIM };

/* Set up before each test: inputs, and what one thread makes of them. */
extern float q[OUT], k[IN], v[IN], alone[OUT], result[OUT];
extern atomic_int created; /* threads that pthread_create() made */

/* The system's own. */
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                          void *argument);

typedef struct setup {
    fa_context *context;
    fa_device *device;
    fa_attention_desc desc;
    fa_tuning tuning;
} setup;

void open_with(setup *s, int threads, fa_executor executor);
void close_all(setup *s);
fa_status run(setup *s, float *o);
/* Whether a run succeeds and has the bits of `alone`. */
bool same(setup *s);

/* The tests of what a caller brings: its OpenMP, its executor, its rounding. */
void add_caller_tests(TCase *tc);

#endif
