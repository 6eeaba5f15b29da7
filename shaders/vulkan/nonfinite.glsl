/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of matrix.comp that adds values which are not finite. They were staged as 0, since a row that does not see them
 * must not meet them. Each work-item first marks what some rows see. It then adds the marks to the elements that it wrote.
 */

/* The weight of a key under its row's last maximum. */
float weight_of(int row, fa_row at_row, int key)
{
    const address from_q = row_of_q(w, at_row);
    const address from_k = row_at(w, keys_of(w), fa_work_find(w, key));
    float score = 0.0;
    [[dont_unroll]] for (int d = 0; d < w.dim_qk; d += 4)
        score += dot(widen4(1, fetch_q4(1, from_q + address(2 * d), w.dim_qk - d)),
                     numbers4(TYPE_K, k4(from_k, d, w.dim_qk - d)));
    if (TRANSFORM != 0)
        score = fa_work_score(w, at_row, key, score);
    const float most = uintBitsToFloat(room[ROOM_MARKS + row / 2][row % 2 * 2]);
    return fa_weight(score, fa_safe_max(most), PARAMS.score.unit);
}

/* The mark of a number that is not finite, times a weight. */
uint mark_of(uint bits, bool weighs)
{
    return !weighs || (bits & 0x7fffffu) != 0u ? MARK_POSITIVE | MARK_NEGATIVE
           : (bits & 0x80000000u) != 0u        ? MARK_NEGATIVE
                                               : MARK_POSITIVE;
}

/* Marks what a row sees that is not finite. A row whose factor is 0 stays 0. Blocks that no list has are among the keys. */
void mark_row(int row)
{
    const fa_row at_row = fa_work_row(w, w.row_begin + row);
    if (uintBitsToFloat(room[ROOM_MARKS + row / 2][row % 2 * 2 + 1]) == 0.0)
        return;
    [[dont_unroll]] for (int key = w.key_begin; key < w.key_end; key++) {
        if (!fa_work_shows(w, at_row, key) || (LISTS != 0 && !fa_work_lists(w, at_row, key)))
            continue;
        const address from = row_at(w, values_of(w), fa_work_find(w, key));
        float weight = -1.0; /* not known yet */
        [[dont_unroll]] for (int d = 0; d < w.dim_v; d += 4) {
            const vec4 x = numbers4(TYPE_V, v4(from, d, w.dim_v - d));
            if (is_finite4(x))
                continue;
            if (weight < 0.0)
                weight = weight_of(row, at_row, key);
            [[dont_unroll]] for (int e = 0; e < 4; e++) {
                const uint bits = floatBitsToUint(x[e]);
                if ((bits & 0x7f800000u) == 0x7f800000u)
                    room[row * LINE_MARKS + d / 64][d / 16 % 4] |= mark_of(bits, weight > 0.0) << (d % 16 + e) * 2;
            }
        }
    }
}

/* Adds what of an element's row is marked to the element, which this work-item has written. */
void add_mark(int row, int d)
{
    const uint mark = room[row * LINE_MARKS + d / 64][d / 16 % 4] >> d % 16 * 2 & 3u;
    if (mark == 0u || d >= w.dim_v || w.row_begin + row >= w.row_end)
        return;
    const address from = result_at(w.row_begin + row) + address(d * (w.whole ? bytes_of(TYPE_O) : 4));
    const float x = !w.whole       ? load_partial(from)
                    : TYPE_O == 0 ? uintBitsToFloat(WORD1(4, from))
                                  : widen(TYPE_O, uint(HALF(4, from)));
    write_element(result_at(w.row_begin + row), d, x + uintBitsToFloat(mark == MARK_POSITIVE   ? 0x7f800000u
                                                                       : mark == MARK_NEGATIVE ? 0xff800000u
                                                                                               : 0x7fc00000u));
}

/* Adds the values that are not finite, and were staged as 0, to the rows that see them. Seldom run. */
void add_nonfinite()
{
    for (int n = id; n < ROOM_MARKS; n += ITEMS)
        room[n] = uvec4(0u);
    barrier();
    [[dont_unroll]] for (int row = id; row < w.row_end - w.row_begin; row += ITEMS)
        mark_row(row);
    barrier();
    [[dont_unroll]] for (int row = first_row; row < first_row + 16 * TILES; row += 16) {
        [[dont_unroll]] for (int d = 0; d < DIM_V; d += 16) {
#define ADD(i) add_mark(row + place[i] / 16, d + dim_of(place[i] % 16));
            EACH(ADD)
        }
    }
}
