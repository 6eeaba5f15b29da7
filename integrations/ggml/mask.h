/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the mask of a ggml graph says. It is a matrix of f16, added to the scores. llama.cpp puts 0 where a row sees a key and
 * -inf where it does not, so that most masks are an interval of keys for each row, which the library describes without a
 * matrix: then it neither loads one nor visits keys that no row sees.
 */
#ifndef FASTATTN_GGML_MASK_H
#define FASTATTN_GGML_MASK_H

#include <stdbool.h>
#include <stdint.h>

/* The keys of one row: all that it sees are in [begin, end). `zero`: there is nothing but 0 between, so it sees them all. */
typedef struct fg_span {
    int32_t begin, end;
    bool zero;
} fg_span;

/* Reads `keys` elements. A row that sees nothing has the span [0, 0), which is zero. */
fg_span fg_mask_row(const uint16_t *row, int64_t keys);

/* What the spans of all rows have in common, in the words of fa_attention_desc. Outside of it no row sees a key. */
typedef struct fg_shape {
    bool exact;     /* rows see all that it shows them, and the mask adds nothing there     */
    bool causal;    /* FA_MASK_CAUSAL_BOTTOM_RIGHT                                          */
    int64_t window; /* window_left                                                          */
} fg_shape;

/* `batches` times `rows` spans. Fills first_kv and lens_kv of each batch entry. */
fg_shape fg_mask_shape(const fg_span *span, int64_t batches, int64_t rows, int64_t *first, int64_t *length);

#endif
