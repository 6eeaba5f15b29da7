/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of two tiles in shared memory. A work-item, (x, y) of LANES across, has ROWS rows by vectors of four columns
 * in registers; both operands lie as one line for each of DEPTH terms, rows or columns beside each other. Shared memory
 * is told in vectors of four floats, `room`, and places in it in floats.
 */
layout(constant_id = FA_VK_LANES) const int LANES = 8;
layout(constant_id = FA_VK_DEPTH) const int DEPTH = 8;

/* What lies along a row becomes lines: element d of the vector goes to line d. */
#define PUT_COLUMN(place, width, value)                                                                \
    {                                                                                                  \
        const int put_at = place;                                                                      \
        const vec4 put_x = value;                                                                      \
        room[put_at >> 2][put_at & 3] = put_x.x;                                                       \
        room[(put_at + (width)) >> 2][(put_at + (width)) & 3] = put_x.y;                               \
        room[(put_at + 2 * (width)) >> 2][(put_at + 2 * (width)) & 3] = put_x.z;                       \
        room[(put_at + 3 * (width)) >> 2][(put_at + 3 * (width)) & 3] = put_x.w;                       \
    }

/* sum += rows columns over one step: sum[i][g] is a vector of four columns. The places of lines are macros of t. */
#define MULTIPLY(rows_at, line_a, columns_at, line_b, columns, sum)                                    \
    [[unroll]] for (int t = 0; t < DEPTH; t++) {                                                       \
        vec4 rows[ROWS / 4];                                                                           \
        [[unroll]] for (int i = 0; i < ROWS / 4; i++)                                                  \
            rows[i] = room[((rows_at) + line_a(t)) / 4 + i];                                           \
        [[unroll]] for (int g = 0; g < columns; g++) {                                                 \
            const vec4 four = room[((columns_at) + line_b(t)) / 4 + g * LANES];                        \
            [[unroll]] for (int i = 0; i < ROWS; i++)                                                  \
                sum[i][g] += rows[i / 4][i % 4] * four;                                                \
        }                                                                                              \
    }
