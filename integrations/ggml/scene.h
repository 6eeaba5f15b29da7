/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of ggml's backend are made of: cases, their masks in the plainest words, tensors of random numbers. */
#ifndef FASTATTN_GGML_SCENE_H
#define FASTATTN_GGML_SCENE_H

#include <fastattn/fastattn.h>
#include <ggml.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* How many expectations were wrong. */
extern int failures;

#define EXPECT(condition, ...)                                     \
    do {                                                           \
        if (!(condition)) {                                        \
            failures++;                                            \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            printf(__VA_ARGS__);                                   \
            printf("\n");                                          \
        }                                                          \
    } while (0)

typedef enum mask_kind {
    NO_MASK,
    CAUSAL,
    WINDOW,
    RAGGED,
    ALIBI,
    HOLES,
    HIDDEN_ROW,
    CELLS, /* two sequences in one cache, and cells of neither */
    ALIBI_CELLS,
} mask_kind;

typedef struct test_case {
    const char *name;
    enum ggml_type k, v;
    int dim_qk, dim_v, heads, heads_kv, rows, keys, batch;
    mask_kind mask;
    int seen; /* keys that the last row sees */
    float max_bias, softcap;
    bool sinks, v_in_k, permuted, head_masks;
} test_case;

/* Where random numbers go on from. */
extern uint32_t scene_seed;

/* ggml's type as the library has it. */
fa_dtype dtype_of(enum ggml_type type);

/* Memory of zeros, which the caller frees. */
void *allocate(size_t bytes);

/* Random numbers between -1 and 1. */
void fill(struct ggml_tensor *tensor);

/* What a row sees: 0 or what is added, -INFINITY where it does not. Only masks of each head look at `head`. */
float mask_at(const test_case *c, int batch, int head, int row, int key);
int mask_heads(const test_case *c);
void fill_mask(const test_case *c, struct ggml_tensor *mask);
bool sees(const test_case *c, int batch, int head, int row, int key);
bool any_sees(const test_case *c, int batch, int key);

/* Axes (dim, row, head, batch); permuted: heads lie between rows, as in llama.cpp. */
struct ggml_tensor *new_tensor(struct ggml_context *ctx, enum ggml_type type, bool permuted, int dim,
                               int rows, int heads, int batch);
fa_tensor view_of(const struct ggml_tensor *tensor);

/* test_masks.c: what mask.c makes of rows. */
void test_masks(void);

#endif
