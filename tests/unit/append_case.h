/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of appends on the CPU share: descriptions, and operands in host memory. */
#ifndef FASTATTN_TESTS_UNIT_APPEND_CASE_H
#define FASTATTN_TESTS_UNIT_APPEND_CASE_H

#include <fastattn/append.h>

#include "helpers.h"

enum { HEADS = 3, DIM_QK = 64, DIM_V = 32, KEYS = 4, ENTRIES = 5, ROWS = 6, BATCH = 2 };

extern fa_device *append_cpu;
extern fa_queue *append_queue;

typedef struct append_piece {
    unsigned char *at;
    size_t bytes;
    fa_buffer *buffer;
} append_piece;

typedef struct append_scene {
    fa_append_desc desc;
    fa_append *append;
    append_piece k, v, cache_k, cache_v, slots;
    fa_append_args args;
} append_scene;

/* The fixture: a device and a queue of the CPU. */
void append_setup(void);

void append_teardown(void);

/* Rows of that type into contiguous caches. */
fa_append_desc append_desc_of(fa_dtype rows, fa_dtype cache_k, fa_dtype cache_v);

/* So many bytes of host memory, each 0xa5, and their buffer. */
append_piece append_make_piece(size_t bytes);

/* As many as the tensor spans. */
append_piece append_make_tensor(const fa_tensor *t);

void append_free_piece(append_piece *m);

/* Element d of a row of k (of_v 0) or v. */
float append_element(int of_v, int64_t row, int head, int d);

/* Elements of all rows of k or v. */
void append_fill(const fa_tensor *t, append_piece *m, int of_v);

/* The append with all its operands; every row has a slot. */
void append_make_scene(append_scene *s, const fa_append_desc *desc);

void append_free_scene(append_scene *s);

/* Caches whose scales are tensors of their own; tests/gpu/test_append_scales.c has what becomes of them. */
fa_append_desc append_scaled_desc(void);

#define REFUSED(call, status, message)      \
    do {                                    \
        ck_assert_int_eq((call), (status)); \
        assert_message(message);            \
    } while (0)

/* Tests of what is refused. */
void add_append_refusals(TCase *tc);

#endif
