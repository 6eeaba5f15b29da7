/* SPDX-License-Identifier: Apache-2.0 */
/* A life with a driver that computes nothing: a device, a queue, buffers, a plan, an append, and their ends. */
#ifndef FASTATTN_TESTS_CUDA_STUB_LIFE_H
#define FASTATTN_TESTS_CUDA_STUB_LIFE_H

#include <fastattn/cuda.h>

#include "tests/cuda/stub.h"
#include "tests/unit/helpers.h"

enum { HEADS = 2, ROWS = 70, KEYS = 300, DIM = 32 };

typedef struct life {
    fa_device *device;
    fa_queue *queue;
    fa_buffer *buffer[4], *workspace;
    fa_plan *plan;
    int dynamic; /* dynamic_lengths of the plan */
    long kept;   /* objects of the test's own */
    append_life append;
} life;

extern float bytes_in[HEADS * KEYS * DIM], bytes_out[HEADS * KEYS * DIM];

/* What follows the device. */
fa_status make_things(life *l, const char *kernel, int splits);

fa_attention_args args_of(const life *l);
fa_status run_life(const life *l, fa_queue *queue);

/* From the device to a result; stops at the first failure. */
fa_status live_on(life *l, const char *kernel, int splits);

/* Nothing is left but what is `kept`. */
void die(life *l);

void check_good_life(const char *kernel, int splits);

/* test_stub_lengths.c, test_stub_pairs.c and test_stub_devices.c */
void add_lengths(TCase *tc);
void add_pairs(TCase *tc);
void add_devices(TCase *tc);

#endif
