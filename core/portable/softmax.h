/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The online softmax. The weight of score x is 2^((x - max) * unit). Only a difference of two scores is ever
 * multiplied by `unit`: a score near the end of f32's range would overflow. `unit` is log2(e) for natural scores,
 * and scale * log2(e) for raw products (score.h says which a plan has).
 *
 * An empty state is max = -inf, sum = 0. Nothing here forms -inf - (-inf). A state with max = +inf stands for a row
 * with an infinite score; its weights are NaN, as IEEE arithmetic has it.
 */
#ifndef FA_PORTABLE_SOFTMAX_H
#define FA_PORTABLE_SOFTMAX_H

#include "lang.h"

#define FA_LOG2E 1.44269504088896340736f

FA_STRUCT(fa_state)
    float max;
    float sum;
FA_STRUCT_END(fa_state)

/* What ends a row: its output is multiplied by `factor`, `lse` is natural. */
FA_STRUCT(fa_closed)
    float factor;
    float lse;
FA_STRUCT_END(fa_closed)

FA_FN fa_state fa_state_empty(void)
{
    fa_state s;
    s.max = FA_NEG_INF;
    s.sum = 0.0f;
    return s;
}

/* The maximum as scores may subtract it: 0 for a row that has seen nothing. */
FA_FN float fa_safe_max(float max)
{
    return max == FA_NEG_INF ? 0.0f : max;
}

/* The weight of a score; `max` is safe. The difference may overflow to -inf, whose weight is 0. */
FA_FN float fa_weight(float score, float max, float unit)
{
    return FA_EXP2((score - max) * unit);
}

/* What a result accumulated under `old_max` is multiplied by when the maximum becomes `new_max`. */
FA_FN float fa_state_weight(float old_max, float new_max, float unit)
{
    return old_max == FA_NEG_INF ? 0.0f : fa_weight(old_max, new_max, unit);
}

/*
 * A part of a row leaves its state and an output that is divided by the state's sum. This is what the output counts in the
 * whole; `max` is safe, and at least that of the part. Its LSE would not do: beyond 2^24 an f32 loses the logarithm
 * of the sum.
 */
FA_FN float fa_part_weight(fa_state part, float max, float unit)
{
    return part.sum * fa_weight(part.max, max, unit);
}

/*
 * The state of a part that is told by its LSE: the output counts once, at that height. An LSE of -inf is an empty state's.
 * One of +inf is an infinite score's, or where `inf_is_empty` that of an empty state, which FlashAttention marks so.
 */
FA_FN bool fa_lse_is_inf(float lse)
{
    return FA_AS_UINT(lse) == 0x7f800000u;
}

FA_FN fa_state fa_state_of_lse(float lse, bool inf_is_empty)
{
    fa_state s = fa_state_empty();
    if (lse == FA_NEG_INF || (inf_is_empty && fa_lse_is_inf(lse)))
        return s;
    s.max = lse;
    s.sum = 1.0f;
    return s;
}

/* Ends a row whose scores times `natural` are natural logarithms; `sink` is -inf where there is none. */
FA_FN fa_closed fa_state_close(fa_state s, float natural, float sink)
{
    fa_closed closed;
    float top = s.max * natural, base = top, kept = 1.0f, sum = s.sum;
    if (sink != FA_NEG_INF) {
        base = FA_MAX(top, sink);
        kept = fa_state_weight(top, base, FA_LOG2E);
        sum = s.sum * kept + fa_weight(sink, base, FA_LOG2E);
    }
    closed.factor = 0.0f;
    closed.lse = FA_NEG_INF;
    if (sum != 0.0f) {
        closed.factor = kept / sum;
        closed.lse = base > top ? base + FA_LOG(sum) : FA_FMA(s.max, natural, FA_LOG(sum));
    }
    return closed;
}

/*
 * One element of an output that is complete: times the row's factor. A row whose factor is 0 has no weights, or they are
 * lost in a sink: it is 0, though a weight of 0 may have met a value that is not finite.
 */
FA_FN float fa_normalised(float x, float factor)
{
    return factor == 0.0f ? 0.0f : x * factor;
}

#ifdef FA_VEC4
FA_KERNEL_FN fa_vec4 fa_normalised4(fa_vec4 x, float factor)
{
    return FA_VEC4(fa_normalised(x.x, factor), fa_normalised(x.y, factor), fa_normalised(x.z, factor),
                   fa_normalised(x.w, factor));
}
#endif

#endif
