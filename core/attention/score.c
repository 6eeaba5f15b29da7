/* SPDX-License-Identifier: Apache-2.0 */
#include "core/attention/score.h"

#include <float.h>
#include <math.h>

/*
 * A factor as two whose product it is. GPUs take subnormal factors for 0, so what lies below 2^-100 is multiplied by
 * 2^-100 last: a product that vanishes on the way is far below 2^-149 of anything that an f32 holds.
 */
static void split_factor(float factor, float *first, float *rest)
{
    bool small = factor != 0 && fabsf(factor) < 0x1p-100f;
    *first = small ? factor * 0x1p100f : factor;
    *rest = small ? 0x1p-100f : 1.0f;
}

fa_score fa_problem_score(const fa_problem *p)
{
    /* Where scale * log2(e) and a score times scale stay far from the ends of f32's range. */
    bool plain = p->scale >= 0x1p-100f && p->scale <= 0x1p100f;
    fa_score s = {.transforms = (p->features & FA_FEATURE_TERMS) || !plain};
    split_factor(p->scale, &s.scale, &s.scale_rest);
    s.unit = s.transforms ? FA_LOG2E : p->scale * FA_LOG2E;
    s.natural = s.transforms ? 1.0f : p->scale;
    if (p->softcap > 0) {
        s.cap = p->softcap;
        s.cap_inverse = (float)fmin(4.0 / (double)p->softcap, (double)FLT_MAX);
    }
    return s;
}
