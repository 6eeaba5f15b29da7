/* SPDX-License-Identifier: Apache-2.0 */
/* The part of matrix.comp that ends rows and writes them: their outputs and LSEs, or their parts. */

/* Ends the row of a slot: its factor; the work-item that `tells` writes what of the row ends with it. */
float end_row(int row, fa_state state, bool tells)
{
    const fa_row at_row = fa_work_row(w, row);
    const fa_closed closed = fa_work_close(w, at_row, state, w.whole);
    if (nonfinite != 0 && tells) {
        const int r = row - w.row_begin;
        room[ROOM_MARKS + r / 2][r % 2 * 2] = floatBitsToUint(state.max);
        room[ROOM_MARKS + r / 2][r % 2 * 2 + 1] = floatBitsToUint(closed.factor);
    }
    if (at_row.exists && tells) {
        if (!w.whole)
            store_part_state(w.part_row + address(row - w.row_begin), state);
        else if ((w.flags & FA_TABLE_LSE) != 0)
            store_float_lse(lse_of(w, at_row), closed.lse);
    }
    return closed.factor;
}

/* The dim of a column of the output. */
int dim_of(int column)
{
    return CODED_V ? staged_order(column) : column;
}

/* Where a row of the result begins. */
address result_at(int row)
{
    return w.whole ? row_of_o(w, fa_work_row(w, row))
                   : at(FA_VK_SLOT_PARTIAL) + (w.part_row + address(row - w.row_begin)) * address(w.dim_v * 4);
}

void write_element(address row, int d, float x)
{
    if (d >= w.dim_v)
        return;
    if (w.whole)
        store_o(row + address(d * bytes_of(TYPE_O)), x);
    else
        store4_partial(row + address(d * 4), 1, vec4(x));
}

void write_from_registers(int t)
{
    const int first = w.row_begin + first_row + 16 * t;
    [[unroll]] for (int r = 0; r < SLOTS; r++) {
        [[unroll]] for (int bit = 1; bit < SUBGROUP; bit *= 2) {
            if ((LAYOUT_LANES & bit) != 0)
                sum[t][r] += subgroupShuffleXor(sum[t][r], bit);
            [[unroll]] for (int g = 0; g < (OFFSETS_V ? GROUPS_V : 0); g++) {
                if ((LAYOUT_LANES & bit) != 0)
                    sums_v[t][g][r] += subgroupShuffleXor(sums_v[t][g][r], bit);
            }
        }
        const int row = first + row_of_slot(r);
        fa_state state;
        state.max = maximum[t][r];
        state.sum = sum[t][r];
        const float factor = end_row(row, state, (lane & LAYOUT_LANES) == 0);
        const address to = result_at(row);
        if (row < w.row_end) {
            [[unroll]] for (int n = 0; n < STEPS_V; n++) {
#define WRITE(i)                                                                                       \
    if (slot_of(i) == r)                                                                               \
        write_element(to, 16 * n + dim_of(place[i] % 16), fa_normalised(x[i] + offset, factor));
                const float offset = OFFSETS_V ? sums_v[t][min(n / 2, SUMS_V - 1)][r] : 0.0;
                const accumulator x = o[t][n];
                EACH(WRITE)
            }
        }
    }
}

void write_from_memory(int t)
{
    const int first = first_row + 16 * t;
    fa_state state;
    state.max = maximum[t][0];
    state.sum = fa_lanes_sum(sum[t][0], PER_ROW);
    const float factor = end_row(w.row_begin + first + lane / PER_ROW, state, lane % PER_ROW == 0);
    subgroupBarrier();
    if (lane % PER_ROW == 0)
        factors[first + lane / PER_ROW] = factor;
    subgroupBarrier();
    [[unroll]] for (int n = 0; n < STEPS_V; n++) {
#define WRITE_ROW(i)                                                                                   \
    {                                                                                                  \
        const int row = first + place[i] / 16;                                                         \
        if (w.row_begin + row < w.row_end)                                                             \
            write_element(result_at(w.row_begin + row), 16 * n + dim_of(place[i] % 16),                \
                          fa_normalised(x[i], factors[row]));                                          \
    }
        const accumulator x = o[t][n];
        EACH(WRITE_ROW)
    }
}
