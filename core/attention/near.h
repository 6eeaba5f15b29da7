/* SPDX-License-Identifier: Apache-2.0 */
/* The neighbourhood of a problem, and the words of it that core/portable/near.h reads. */
#ifndef FA_CORE_ATTENTION_NEAR_H
#define FA_CORE_ATTENTION_NEAR_H

#include "core/sparse/grid.h"

struct fa_problem;

typedef struct fa_near {
    fa_grid grid;
    uint32_t *words; /* NULL: the description has none, or there are no rows */
    size_t count;
    uint32_t guards;
} fa_near;

/* Checks and copies a neighbourhood; NULL: there is none. The problem's tensors, sequences and lengths are there. */
fa_status fa_near_init(const fa_context *context, struct fa_problem *problem, const fa_neighbourhood *given);
void fa_near_release(const fa_context *context, fa_near *near);

/* Pairs of rows and keys of the grid of which the row sees the key. */
uint64_t fa_near_pairs(const fa_near *near);

#endif
