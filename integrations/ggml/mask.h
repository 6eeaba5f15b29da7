/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the mask of a ggml graph says. It is a matrix of f16, added to the scores. llama.cpp puts 0 where a row sees a key and
 * -inf where it does not, so that most masks are an interval of keys for each row, which the library describes without a
 * matrix: then it neither loads one nor visits keys that no row sees. Other masks become bits, one for each key of a row: what
 * lies in a cell that a row does not see, be it NaN, must not reach its output, and a bias of -inf does not see to that.
 */
#ifndef FASTATTN_GGML_MASK_H
#define FASTATTN_GGML_MASK_H

#include <stdbool.h>
#include <stdint.h>

/* The keys of one row: all that it sees are in [begin, end). */
typedef struct fg_span {
    int32_t begin, end;
    bool full; /* it sees all of them                    */
    bool zero; /* the mask adds 0 to those that it sees  */
} fg_span;

/* Reads `keys` elements. A row that sees nothing has the span [0, 0), which is full and zero. */
fg_span fg_mask_row(const uint16_t *row, int64_t keys);

/* The words that have the bits of a row of `keys` keys. */
static inline int64_t fg_mask_words(int64_t keys)
{
    return (keys + 31) / 32;
}

/* A bit for each of `keys` keys, 1 where the row sees it: as `keep` of fa_attention_desc. The other bits of words are 0. */
void fg_mask_bits(const uint16_t *row, int64_t keys, uint32_t *word);

/* What the spans of all rows have in common, in the words of fa_attention_desc. Outside of it no row sees a key. */
typedef struct fg_shape {
    bool exact;     /* rows see all that it shows them                                      */
    bool zero;      /* the mask adds 0 to what a row sees                                   */
    bool causal;    /* FA_MASK_CAUSAL_BOTTOM_RIGHT                                          */
    int64_t window; /* window_left                                                          */
} fg_shape;

/* `batches` times `rows` spans. Fills first_kv and lens_kv of each batch entry. */
fg_shape fg_mask_shape(const fg_span *span, int64_t batches, int64_t rows, int64_t *first, int64_t *length);

#endif
