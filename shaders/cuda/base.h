/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The base of a row of tensor.cuh: what scores are measured from. It need not be the row's greatest score, and lags behind
 * it. The exponent of a score's weight is (score - origin) * unit - base:
 *
 *   near:   the base is the score's that was the greatest when the base was last taken, times unit, and the origin is 0.
 *           Product and difference are one fused step, which leaves the base's own rounding in every exponent alike.
 *   apart:  that score is itself the origin, and the base is 0. So it is where the rounding would be too large, or the
 *           product beyond f32. A row that has seen nothing is apart too, with an origin of 0.
 *
 * C11 and CUDA C++.
 */
#ifndef FA_CUDA_BASE_H
#define FA_CUDA_BASE_H

#include "core/portable/softmax.h"

#define FA_BASE_HEADROOM 8.0f /* by how much an exponent may exceed 0 */
#define FA_BASE_LARGE 65536.0f

FA_STRUCT(fa_base)
    float greatest; /* the score that it is of; -inf where the row has seen nothing */
    float base, origin;
FA_STRUCT_END(fa_base)

FA_FN bool fa_base_is_apart(float greatest, float unit)
{
    return !(FA_ABS(greatest * unit) <= FA_BASE_LARGE);
}

FA_FN fa_base fa_base_of(float greatest, float unit)
{
    const bool apart = fa_base_is_apart(greatest, unit);
    fa_base b;
    b.greatest = greatest;
    b.base = apart ? 0.0f : greatest * unit;
    b.origin = apart ? fa_safe_max(greatest) : 0.0f;
    return b;
}

/* Whether a score is too large for a base that is not of a row apart. */
FA_FN bool fa_base_exceeds(float score, float base, float unit)
{
    return FA_FMA(score, unit, -FA_BASE_HEADROOM) > base;
}

/* The base after a tile whose greatest score of the row is `most`. It depends on nothing but the row's own scores. */
FA_FN fa_base fa_base_next(fa_base b, float most, float unit)
{
    const bool takes =
        fa_base_is_apart(b.greatest, unit) ? most > b.greatest : fa_base_exceeds(most, b.base, unit);
    return takes ? fa_base_of(most, unit) : b;
}

/* What was summed under the old base is multiplied by this. */
FA_FN float fa_base_weight(fa_base old, fa_base next, float unit)
{
    if (next.greatest == old.greatest)
        return 1.0f;
    if (old.greatest == FA_NEG_INF)
        return 0.0f;
    return FA_EXP2(FA_FMA(old.origin - next.origin, unit, old.base - next.base));
}

#endif
