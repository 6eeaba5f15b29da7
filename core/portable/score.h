/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to a raw product q . k before the softmax: scale, softcap, ALiBi, bias, keep, in this order, with the
 * roundings of a naive f32 implementation. core/attention/score.c fills fa_score once for a plan, which is then in one of two
 * modes:
 *   raw:       `transforms` is 0. Scores stay raw products, weights are 2^((x - max) * unit), unit = scale * log2(e).
 *   otherwise: the functions below make natural logarithms of them, and unit = log2(e).
 */
#ifndef FA_PORTABLE_SCORE_H
#define FA_PORTABLE_SCORE_H

#include "softmax.h"

FA_STRUCT(fa_score)
    float scale, scale_rest; /* multiplied one after the other; no factor is subnormal */
    float cap;               /* the softcap, and 4 / softcap as far as f32 goes; both 0 without one */
    float cap_inverse;
    float unit;    /* of a difference of two scores, to a base-2 logarithm */
    float natural; /* of a score, to a natural logarithm */
    int transforms;
FA_STRUCT_END(fa_score)

#ifndef FA_TANH
#define FA_TANH(x) fa_tanh(x)
FA_FN float fa_tanh(float x)
{
    float size = FA_ABS(x);
    if (size < 0.4f) { /* the Taylor series */
        float y = x * x;
        float series = FA_FMA(0.0035921f, y, -0.0088632f);
        series = FA_FMA(series, y, 0.02186949f);
        series = FA_FMA(series, y, -0.053968254f);
        series = FA_FMA(series, y, 0.13333334f);
        series = FA_FMA(series, y, -0.33333334f);
        return FA_FMA(series * y, x, x);
    }
    float low = FA_EXP2(-2.0f * FA_LOG2E * FA_MIN(size, 20.0f));
    float result = (1.0f - low) / (1.0f + low);
    return fa_is_nan(x) ? x : x < 0.0f ? -result : result;
}
#endif

/*
 * cap * tanh(x / cap). Far below the cap this is x, and the quotient may be too small for a GPU to hold.
 * 4 / cap is normal for every cap above 2^-126, which 1 / cap is not.
 */
FA_FN float fa_softcap(fa_score s, float x)
{
    float y = x * 0.25f * s.cap_inverse;
    return FA_ABS(y) < 1.220703125e-4f ? x : s.cap * FA_TANH(y);
}

/*
 * The steps from a raw product to its score, in their order. Where subnormal numbers are not flushed, factors may be
 * multiplied first: that is the same for all scores.
 */
FA_FN float fa_score_scaled(fa_score s, float x)
{
#ifdef FA_SUBNORMALS
    x *= s.scale * s.scale_rest;
    return s.cap_inverse > 0.0f ? s.cap * FA_TANH(x * (0.25f * s.cap_inverse)) : x;
#else
    x = x * s.scale * s.scale_rest;
    return s.cap_inverse > 0.0f ? fa_softcap(s, x) : x;
#endif
}

FA_FN float fa_score_sloped(float x, float slope, int distance)
{
    return x - slope * FA_ABS(FA_FLOAT(distance));
}

FA_FN float fa_score_biased(float x, float bias)
{
    return x + bias;
}

#endif
