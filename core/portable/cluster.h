/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step of k-means, in the words of task.h. Constant 1 says which:
 *   FA_CLUSTER_DRAW  centroids are rows that are drawn, one of each of as many stretches of rows
 *   FA_CLUSTER_FIND  each row's nearest centroid, of equally near ones the first
 *   FA_CLUSTER_MEAN  counts, and means of the rows of a cluster; of an empty one the centroid stays
 * A line is a head of a batch entry. A work-group finds for FA_CLUSTER_ROWS rows, or does one cluster. Sums are in f32, each in
 * one work-item and in ascending order of dims or rows, and no product is fused into them.
 */
#ifndef FA_PORTABLE_CLUSTER_H
#define FA_PORTABLE_CLUSTER_H

#include "format.h"
#include "task.h"

#define FA_CLUSTER_DRAW 0
#define FA_CLUSTER_FIND 1
#define FA_CLUSTER_MEAN 2

#define FA_CLUSTER_ROWS 64
#define FA_CLUSTER_UNIT 4 /* dims that a work-item sums at a time */

/* Operands. Constant 0 is the type of the first; the others are i32, f32 and i32. */
#define FA_CLUSTER_VECTORS 0
#define FA_CLUSTER_NEAREST 1
#define FA_CLUSTER_CENTROIDS 2
#define FA_CLUSTER_COUNTS 3

FA_STRUCT(fa_cluster_params)
    fa_long stride[3];       /* of vectors, in elements: of batch, head, row */
    int lines, heads;        /* lines of all, and of a batch entry           */
    int rows, dim, clusters; /* of a line                                    */
    int normalise;           /* 1: vectors count by their direction alone    */
    int blocks;              /* of FA_CLUSTER_ROWS rows                      */
    int seed;
FA_STRUCT_END(fa_cluster_params)
FA_TASK_VIEW(fa_cluster_params)

#define FA_CLUSTER_IS(t, name) FA_TASK_PARAM(t, fa_cluster_params, name)
#define FA_CLUSTER_CENTROID(t, line, c) \
    ((FA_INDEX(line) * FA_INDEX(FA_CLUSTER_IS(t, clusters)) + FA_INDEX(c)) * FA_INDEX(FA_CLUSTER_IS(t, dim)))

FA_KERNEL_FN FA_AT fa_cluster_row(FA_TASK t, int line, int row)
{
    const int batch = line / FA_CLUSTER_IS(t, heads), head = line - batch * FA_CLUSTER_IS(t, heads);
    return FA_INDEX(batch) * FA_WIDE(FA_CLUSTER_IS(t, stride)[0]) +
           FA_INDEX(head) * FA_WIDE(FA_CLUSTER_IS(t, stride)[1]) +
           FA_INDEX(row) * FA_WIDE(FA_CLUSTER_IS(t, stride)[2]);
}

FA_KERNEL_FN float fa_cluster_element(FA_TASK t, FA_AT at)
{
    return FA_GET_ELEMENT(t, 0, FA_TASK_CONSTANT(t, 0), at);
}

/* What the elements of the vector at `row` are multiplied by. A vector without a direction stays as it is. */
FA_KERNEL_FN float fa_cluster_factor(FA_TASK t, FA_AT row)
{
    const int dim = FA_CLUSTER_IS(t, dim);
    float sum = 0.0f;
    if (FA_CLUSTER_IS(t, normalise) == 0)
        return 1.0f;
    for (int d = 0; d < dim; d++) {
        const float x = fa_cluster_element(t, row + FA_INDEX(d));
        FA_PRECISE float square = x * x;
        sum += square;
    }
    return sum > 0.0f && fa_is_finite(sum) ? 1.0f / FA_SQRT(sum) : 1.0f;
}

/* The squared distance of a vector and a centroid. */
FA_KERNEL_FN float fa_cluster_distance(FA_TASK t, FA_AT row, float factor, FA_AT mean)
{
    const int dim = FA_CLUSTER_IS(t, dim);
    float sum = 0.0f;
    for (int d = 0; d < dim; d++) {
        FA_PRECISE float x = fa_cluster_element(t, row + FA_INDEX(d)) * factor;
        const float apart = x - FA_AS_FLOAT(FA_GET32(t, 2, (mean + FA_INDEX(d)) * FA_INDEX(4)));
        FA_PRECISE float square = apart * apart;
        sum += square;
    }
    return sum;
}

FA_KERNEL_FN int fa_cluster_nearest(FA_TASK t, int line, int row)
{
    const int clusters = FA_CLUSTER_IS(t, clusters);
    const FA_AT at = fa_cluster_row(t, line, row);
    const float factor = fa_cluster_factor(t, at);
    float least = -FA_NEG_INF;
    int nearest = 0;
    for (int c = 0; c < clusters; c++) {
        const float distance = fa_cluster_distance(t, at, factor, FA_CLUSTER_CENTROID(t, line, c));
        if (distance < least) {
            least = distance;
            nearest = c;
        }
    }
    return nearest;
}

#define FA_CLUSTER_NEAREST_AT(t, line, row) \
    ((FA_INDEX(line) * FA_INDEX(FA_CLUSTER_IS(t, rows)) + FA_INDEX(row)) * FA_INDEX(4))

/* Dims [d, end) of the mean of a cluster, FA_CLUSTER_UNIT of them or fewer; and its count where d is 0. */
FA_KERNEL_FN void fa_cluster_mean(FA_TASK t, int line, int c, int d, int end)
{
    const int rows = FA_CLUSTER_IS(t, rows);
    float sum[FA_CLUSTER_UNIT];
    int count = 0;
    FA_UNROLLED
    for (int i = 0; i < FA_CLUSTER_UNIT; i++)
        sum[i] = 0.0f;
    FA_ROLLED
    for (int row = 0; row < rows; row++) {
        if (FA_INT(FA_GET32(t, 1, FA_CLUSTER_NEAREST_AT(t, line, row))) == c) {
            const FA_AT at = fa_cluster_row(t, line, row);
            const float factor = fa_cluster_factor(t, at);
            FA_UNROLLED
            for (int i = 0; i < FA_CLUSTER_UNIT; i++) {
                FA_PRECISE float x = fa_cluster_element(t, at + FA_INDEX(FA_MIN(d + i, end - 1))) * factor;
                sum[i] += x;
            }
            count++;
        }
    }
    if (d == 0)
        FA_PUT32(t, 3, (FA_INDEX(line) * FA_INDEX(FA_CLUSTER_IS(t, clusters)) + FA_INDEX(c)) * FA_INDEX(4),
                 FA_UINT(count));
    FA_UNROLLED
    for (int i = 0; i < FA_CLUSTER_UNIT; i++) {
        if (count > 0 && d + i < end)
            FA_PUT32(t, 2, (FA_CLUSTER_CENTROID(t, line, c) + FA_INDEX(d + i)) * FA_INDEX(4),
                     FA_AS_UINT(sum[i] / FA_FLOAT(count)));
    }
}

FA_KERNEL_FN fa_uint fa_cluster_mix(fa_uint x)
{
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* The row that cluster c begins as: any of its stretch. */
FA_KERNEL_FN int fa_cluster_drawn(FA_TASK t, int line, int c)
{
    const int rows = FA_CLUSTER_IS(t, rows), clusters = FA_CLUSTER_IS(t, clusters);
    const int each = rows / clusters, more = rows - each * clusters;
    const int first = c * each + FA_MIN(c, more), stretch = each + (c < more ? 1 : 0);
    const fa_uint bits =
        fa_cluster_mix(fa_cluster_mix(FA_UINT(FA_CLUSTER_IS(t, seed)) + FA_UINT(line)) + FA_UINT(c));
    return first + FA_INT(bits % FA_UINT(stretch));
}

FA_KERNEL_FN void fa_cluster_draw(FA_TASK t, int line, int c, int item, int items)
{
    const FA_AT at = fa_cluster_row(t, line, fa_cluster_drawn(t, line, c));
    const float factor = fa_cluster_factor(t, at);
    for (int d = item; d < FA_CLUSTER_IS(t, dim); d += items)
        FA_PUT32(t, 2, (FA_CLUSTER_CENTROID(t, line, c) + FA_INDEX(d)) * FA_INDEX(4),
                 FA_AS_UINT(fa_cluster_element(t, at + FA_INDEX(d)) * factor));
}

/* The share of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_cluster_group(FA_TASK t, int group, int item, int items)
{
    const int step = FA_TASK_CONSTANT(t, 1);
    const int each = step == FA_CLUSTER_FIND ? FA_CLUSTER_IS(t, blocks) : FA_CLUSTER_IS(t, clusters);
    const int line = group / each, n = group - line * each, dim = FA_CLUSTER_IS(t, dim);
    if (line >= FA_CLUSTER_IS(t, lines))
        return;
    if (step == FA_CLUSTER_DRAW)
        fa_cluster_draw(t, line, n, item, items);
    if (step == FA_CLUSTER_FIND) {
        const int end = FA_MIN((n + 1) * FA_CLUSTER_ROWS, FA_CLUSTER_IS(t, rows));
        for (int row = n * FA_CLUSTER_ROWS + item; row < end; row += items)
            FA_PUT32(t, 1, FA_CLUSTER_NEAREST_AT(t, line, row), FA_UINT(fa_cluster_nearest(t, line, row)));
    }
    if (step == FA_CLUSTER_MEAN) {
        for (int d = item * FA_CLUSTER_UNIT; d < dim; d += items * FA_CLUSTER_UNIT)
            fa_cluster_mean(t, line, n, d, FA_MIN(d + FA_CLUSTER_UNIT, dim));
    }
}

#endif
