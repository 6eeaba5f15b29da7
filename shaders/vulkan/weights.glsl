/* SPDX-License-Identifier: Apache-2.0 */
/* The part of matrix.comp that hides scores, makes weights of them, and rescales the output to the new maximum of each row. */

/* Scores are scaled where the plan wants natural ones, and hidden where they are. */
void mask_in_registers(int t, int key, int key_end, bool masked)
{
    if (TRANSFORM != 0) {
        const fa_score score = PARAMS.score;
        [[unroll]] for (int n = 0; n < STEPS_KV; n++)
            s[t][n] = s[t][n] * score.scale * score.scale_rest;
    }
    if (!masked && key_end == key + BLOCK_KV)
        return;
    int begin[SLOTS], end[SLOTS];
    fa_row rows[SLOTS]; /* of lists and neighbourhoods alone */
    [[unroll]] for (int r = 0; r < SLOTS; r++) {
        const fa_row at_row = fa_work_row(w, w.row_begin + first_row + 16 * t + row_of_slot(r));
        begin[r] = masked ? at_row.begin : 0;
        end[r] = masked ? min(at_row.end, key_end) : key_end;
        rows[r] = at_row;
    }
    const int prefix = min(w.walk.mask.prefix, key_end);
    [[unroll]] for (int n = 0; n < STEPS_KV; n++) {
#define HIDE(i)                                                                                        \
    {                                                                                                  \
        const int j = key + 16 * n + place[i] % 16;                                                    \
        if (j >= prefix && (j < begin[slot_of(i)] || j >= end[slot_of(i)]))                            \
            x[i] = FA_NEG_INF;                                                                         \
        if (LISTS != 0 && masked && j < key_end && !fa_work_sees(w, rows[slot_of(i)], j))              \
            x[i] = FA_NEG_INF;                                                                         \
    }
        accumulator x = s[t][n];
        EACH(HIDE)
        s[t][n] = x;
    }
}

/* Scores become weights, under the new maximum of each row, and the output is rescaled: in registers. */
void softmax_in_registers(int t)
{
    const float unit = PARAMS.score.unit;
    float next[SLOTS], old[SLOTS], base[SLOTS];
    [[unroll]] for (int r = 0; r < SLOTS; r++)
        next[r] = maximum[t][r];
    [[unroll]] for (int n = 0; n < STEPS_KV; n++) {
#define COMPARE(i) next[slot_of(i)] = max(next[slot_of(i)], x[i]);
        const accumulator x = s[t][n];
        EACH(COMPARE)
    }
    [[unroll]] for (int r = 0; r < SLOTS; r++) {
        [[unroll]] for (int bit = 1; bit < SUBGROUP; bit *= 2) {
            if ((LAYOUT_LANES & bit) != 0)
                next[r] = max(next[r], subgroupShuffleXor(next[r], bit));
        }
        old[r] = fa_state_weight(maximum[t][r], next[r], unit);
        base[r] = fa_safe_max(next[r]);
        maximum[t][r] = next[r];
        sum[t][r] *= old[r];
        [[unroll]] for (int g = 0; g < (OFFSETS_V ? GROUPS_V : 0); g++)
            sums_v[t][g][r] *= old[r];
    }
    [[unroll]] for (int n = 0; n < STEPS_KV; n++) {
#define WEIGH(i)                                                                                       \
    {                                                                                                  \
        x[i] = fa_weight(x[i], base[slot_of(i)], unit);                                                          \
        sum[t][slot_of(i)] += x[i];                                                                    \
    }
        accumulator x = s[t][n];
        EACH(WEIGH)
        s[t][n] = x;
    }
    [[unroll]] for (int n = 0; n < STEPS_V; n++) {
#define RESCALE(i) x[i] *= old[slot_of(i)];
        accumulator x = o[t][n];
        EACH(RESCALE)
        o[t][n] = x;
    }
}

/* The same through shared memory, where each row has PER_ROW work-items. `maximum` and `sum` are of one row then. */
const int PER_ROW = SUBGROUP / 16;

void softmax_in_memory(int t, int key, int key_end, bool masked)
{
    const int row = first_row + 16 * t + lane / PER_ROW, part = lane % PER_ROW * (BLOCK_KV / PER_ROW);
    const int from = row * LINE_S + part;
    const float unit = PARAMS.score.unit;
    const fa_row at_row = fa_work_row(w, w.row_begin + row);
    [[unroll]] for (int n = 0; n < STEPS_KV; n++)
        coopMatStore(s[t][n], scores, (first_row + 16 * t) * LINE_S + 16 * n, LINE_S,
                     gl_CooperativeMatrixLayoutRowMajor);
    subgroupBarrier();
    float next = maximum[t][0];
    [[dont_unroll]] for (int n = 0; n < BLOCK_KV / PER_ROW; n++) {
        const int j = key + part + n;
        float score = FA_NEG_INF;
        if (j < key_end && (!masked || fa_work_sees(w, at_row, j)))
            score = TRANSFORM != 0 ? fa_work_score(w, at_row, j, scores[from + n]) : scores[from + n];
        scores[from + n] = score;
        next = max(next, score);
    }
    next = fa_lanes_max(next, PER_ROW);
    const float old = fa_state_weight(maximum[t][0], next, unit), base = fa_safe_max(next);
    maximum[t][0] = next;
    float total = 0.0;
    for (int n = 0; n < BLOCK_KV / PER_ROW; n += 2) {
        const float even = fa_weight(scores[from + n], base, unit);
        const float odd = fa_weight(scores[from + n + 1], base, unit);
        const int at = part + n;
        total += even + odd;
        weights[row * LINE_P + at / 8][at % 8 / 2] = packHalf2x16(vec2(even, odd));
    }
    sum[t][0] = sum[t][0] * old + total;
    if (part == 0)
        factors[row] = old;
    subgroupBarrier();
    [[unroll]] for (int n = 0; n < STEPS_V; n++) {
#define RESCALE_ROW(i) x[i] *= factors[first_row + 16 * t + place[i] / 16];
        accumulator x = o[t][n];
        EACH(RESCALE_ROW)
        o[t][n] = x;
    }
}
