/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The online softmax in base 2: scores are multiplied by log2(e) beforehand, so that p = 2^(s - max).
 * An empty state is max = -inf, sum = 0. Nothing here forms -inf - (-inf). A state with max = +inf
 * stands for a row with an infinite score; its weights are NaN, as IEEE arithmetic has it.
 */
#ifndef FA_PORTABLE_SOFTMAX_H
#define FA_PORTABLE_SOFTMAX_H

#include "lang.h"

#define FA_LOG2E 1.44269504088896340736f
#define FA_LN2 0.693147180559945309417f

FA_STRUCT(fa_state)
    float max;
    float sum;
FA_STRUCT_END(fa_state)

FA_FN fa_state fa_state_empty(void)
{
    fa_state s;
    s.max = FA_NEG_INF;
    s.sum = 0.0f;
    return s;
}

/* What a result accumulated under `old_max` is multiplied by when the maximum becomes `new_max`. */
FA_FN float fa_state_weight(float old_max, float new_max)
{
    return old_max == FA_NEG_INF ? 0.0f : FA_EXP2(old_max - new_max);
}

FA_FN fa_state fa_state_merge(fa_state a, fa_state b)
{
    fa_state s;
    s.max = FA_MAX(a.max, b.max);
    s.sum = a.sum * fa_state_weight(a.max, s.max) + b.sum * fa_state_weight(b.max, s.max);
    return s;
}

#endif
