/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary embedding: pairs of dims turn by an angle that grows with the position. Angles are fractions of a turn in 32 bits,
 * so that whole turns fall away in integers, however large a position is.
 */
#ifndef FA_PORTABLE_ROTARY_H
#define FA_PORTABLE_ROTARY_H

#include "lang.h"

/* Forms, as fa_rotary_form has them. */
#define FA_PAIRS_NONE 0
#define FA_PAIRS_BESIDE 1
#define FA_PAIRS_HALVES 2

/* What a position adds to an angle, in turns: (high + low / 2^32) / 2^32. */
FA_STRUCT(fa_turn)
    fa_uint high, low;
FA_STRUCT_END(fa_turn)

FA_STRUCT(fa_rotation)
    float cosine, sine;
FA_STRUCT_END(fa_rotation)

/* The upper 32 bits of a product. */
FA_FN fa_uint fa_mul_high(fa_uint a, fa_uint b)
{
    fa_uint low = (a & 0xffffu) * (b & 0xffffu), right = (a >> 16) * (b & 0xffffu);
    fa_uint left = (a & 0xffffu) * (b >> 16) + (right & 0xffffu) + (low >> 16);
    return (a >> 16) * (b >> 16) + (right >> 16) + (left >> 16);
}

/* Of a position, which is not negative. */
FA_FN fa_rotation fa_rotation_of(fa_turn turn, int position)
{
    fa_uint at = FA_UINT(position) * turn.high + fa_mul_high(FA_UINT(position), turn.low);
    fa_uint quarter = (at + 0x20000000u) >> 30; /* the nearest; the rest is an eighth of a turn at most */
    int rest = FA_INT(at - (quarter << 30));
    float x = FA_FLOAT(rest) * 1.462918079267160e-9f, z = x * x; /* 2 pi / 2^32 */
    float s = x + x * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
    float c = 1.0f - 0.5f * z +
              z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
    fa_rotation r;
    r.cosine = (quarter & 1u) != 0u ? s : c;
    r.sine = (quarter & 1u) != 0u ? c : s;
    if (((quarter + 1u) & 2u) != 0u)
        r.cosine = -r.cosine;
    if ((quarter & 2u) != 0u)
        r.sine = -r.sine;
    return r;
}

/* The other dim of a dim's pair, of `dims` that are rotated; and the number of the pair. */
FA_FN int fa_rotary_partner(int form, int dims, int d)
{
    if (form == FA_PAIRS_BESIDE)
        return d ^ 1;
    return d < dims / 2 ? d + dims / 2 : d - dims / 2;
}

FA_FN int fa_rotary_pair(int form, int dims, int d)
{
    return form == FA_PAIRS_BESIDE ? d >> 1 : FA_MIN(d, fa_rotary_partner(form, dims, d));
}

/* Element d after the rotation; `other` is its partner. */
FA_FN float fa_rotated(fa_rotation r, bool first, float x, float other)
{
    return x * r.cosine + (first ? -other : other) * r.sine;
}

#endif
