/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of two tiles in local memory. A work-item, (x, y) of FA_LANES across, has FA_ROWS rows by vectors of four
 * columns in registers; both operands lie as one line for each of FA_DEPTH terms, rows or columns beside each other.
 */
#include "memory.cl"

/* What lies along a row becomes lines: element d of the vector goes to line d. */
static inline void put_column(__local float *to, int width, float4 x)
{
    to[0] = x.x;
    to[width] = x.y;
    to[2 * width] = x.z;
    to[3 * width] = x.w;
}

#if FA_ROWS % 4 == 0
static inline void get_rows(__local const float *from, float to[FA_ROWS])
{
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i += 4) {
        float4 x = *(__local const float4 *)(from + i);
        to[i] = x.x;
        to[i + 1] = x.y;
        to[i + 2] = x.z;
        to[i + 3] = x.w;
    }
}

static inline void put_rows(__local float *to, const float from[FA_ROWS])
{
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i += 4)
        *(__local float4 *)(to + i) = (float4)(from[i], from[i + 1], from[i + 2], from[i + 3]);
}
#else
static inline void get_rows(__local const float *from, float to[FA_ROWS])
{
    FA_UNROLL
    for (int i = 0; i < FA_ROWS; i++)
        to[i] = from[i];
}
#endif

/* Defines name(stage, x, y, sum): sum += rows columns over one step. Columns lie from `stage_b` on. */
#define FA_PRODUCT(name, line_a, stage_b, line_b, columns)                                             \
    static void name(__local const float *stage, int x, int y, float sum[FA_ROWS][columns])            \
    {                                                                                                  \
        __local const float *a = stage + y * FA_ROWS, *b = stage + (stage_b) + 4 * x;                  \
        FA_UNROLL                                                                                      \
        for (int t = 0; t < FA_DEPTH; t++) {                                                           \
            float rows[FA_ROWS];                                                                       \
            get_rows(a + line_a(t), rows);                                                             \
            FA_UNROLL                                                                                  \
            for (int g = 0; g < columns; g += 4) {                                                     \
                float4 four = *(__local const float4 *)(b + line_b(t) + g * FA_LANES);                 \
                FA_UNROLL                                                                              \
                for (int i = 0; i < FA_ROWS; i++) {                                                    \
                    sum[i][g] += rows[i] * four.x;                                                     \
                    sum[i][g + 1] += rows[i] * four.y;                                                 \
                    sum[i][g + 2] += rows[i] * four.z;                                                 \
                    sum[i][g + 3] += rows[i] * four.w;                                                 \
                }                                                                                      \
            }                                                                                          \
        }                                                                                              \
    }
