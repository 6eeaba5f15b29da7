/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FA_CORE_ATTENTION_MERGE_H
#define FA_CORE_ATTENTION_MERGE_H

#include <fastattn/attention.h>

#include "core/portable/softmax.h"

/* The parts of one row: `parts` normalised outputs of `dim` elements and what they weigh, each a stride apart. */
typedef struct fa_parts {
    fa_dtype dtype;
    const void *base;
    int64_t first, stride; /* elements */
    const fa_state *state;
    int64_t state_stride;
    int64_t parts;
    float unit, natural; /* as in fa_score */
    float sink;          /* one more part, of weight e^sink and value 0; -inf for none */
} fa_parts;

/* Writes `dim` merged elements from element `at` of `o` on; returns the LSE. */
float fa_merge_parts(const fa_parts *p, int64_t dim, fa_dtype dtype, void *o, int64_t at);

#endif
