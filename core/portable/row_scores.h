/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of rows and of keys, in the words of task.h: all of a tile of rows and columns in a work-group, each work-item some of
 * its patches in turn. Dims are staged some at a time. A product is summed in the order of its dims, without fused products,
 * whatever the sizes of tiles and patches are.
 */
#ifndef FA_PORTABLE_ROW_SCORES_H
#define FA_PORTABLE_ROW_SCORES_H

#include "format.h"
#include "task.h"
#include "visible.h"

/*
 * A tile, and a work-item's patch of it: neighbouring rows, and columns that stand a column of patches apart. Where patches share
 * nothing, one stages its own rows alone, and those that there are.
 */
#define FA_TILE_ROWS 128
#define FA_TILE_COLUMNS 64
#define FA_PATCH_ROWS 8
#ifdef FA_TASK_ALONE
#define FA_PATCH_COLUMNS FA_TILE_COLUMNS
#define FA_PATCH_LIVE(rows) FA_MIN(rows, FA_PATCH_ROWS)
#define FA_STAGED_ROWS FA_PATCH_ROWS
#define FA_STAGED_FROM(row) (row)
#else
#define FA_PATCH_COLUMNS 4
#define FA_PATCH_LIVE(rows) FA_PATCH_ROWS /* known to the compiler, which then holds patches in registers */
#define FA_STAGED_ROWS FA_TILE_ROWS
#define FA_STAGED_FROM(row) 0
#endif
#define FA_TILE_ACROSS (FA_TILE_COLUMNS / FA_PATCH_COLUMNS)
#define FA_TILE_PATCHES (FA_TILE_ROWS / FA_PATCH_ROWS * FA_TILE_ACROSS)

/* Staged are FA_TILE_DIMS dims of the rows, then of the columns; a dim of all of them lies together. */
#define FA_TILE_DIMS 16
#define FA_STAGE_ROW(d) ((d) * (FA_STAGED_ROWS + 1))
#define FA_STAGE_COLUMN(d) (FA_STAGE_ROW(FA_TILE_DIMS) + (d) * (FA_TILE_COLUMNS + 1))

#if FA_STAGE_COLUMN(FA_TILE_DIMS) > FA_ROW_SCORES_SHARED
#error "task.h has no room for what is staged"
#endif

/* Operands. Constants 0 and 1 are the types of the first two, 2 says whether scores are weighted and summed over heads. */
#define FA_ROW_SCORES_Q 0
#define FA_ROW_SCORES_K 1
#define FA_ROW_SCORES_WEIGHTS 2
#define FA_ROW_SCORES_OUT 3

FA_STRUCT(fa_row_scores_params)
    fa_long q_stride[3], k_stride[3]; /* batch, head, row      */
    fa_visible_rule rule;
    int heads, group;            /* of q; of a KV head    */
    int rows, dim;               /* rows of scores        */
    int row_tiles, column_tiles; /* of a head             */
    int lines;                   /* heads of the output, of all batch entries */
    float scale;
FA_STRUCT_END(fa_row_scores_params)
FA_TASK_VIEW(fa_row_scores_params)

#define FA_ROW_SCORES_IS(t, name) FA_TASK_PARAM(t, fa_row_scores_params, name)

/* Where a tile lies: its batch entry, a query head, its first row and column. */
FA_STRUCT(fa_row_scores_tile)
    int batch, head, row, column;
FA_STRUCT_END(fa_row_scores_tile)

FA_STRUCT(fa_patch)
    float x[FA_PATCH_ROWS * FA_PATCH_COLUMNS];
FA_STRUCT_END(fa_patch)

#define FA_FLOAT_SHARED(t, n) FA_AS_FLOAT(FA_UINT(FA_TASK_SHARED(t, n)))

/* Where the first row of the tile of operand x begins, in head `of` of it. */
#define FA_ROW_SCORES_AT(t, x, tile, of, first)                             \
    (FA_INDEX((tile).batch) * FA_WIDE(FA_ROW_SCORES_IS(t, x##_stride)[0]) + \
     FA_INDEX(of) * FA_WIDE(FA_ROW_SCORES_IS(t, x##_stride)[1]) +           \
     FA_INDEX(first) * FA_WIDE(FA_ROW_SCORES_IS(t, x##_stride)[2]))

/* Dims that a work-item reads before it shares them, so that it waits for memory once. */
#define FA_STAGE_DIMS 4
#define FA_STAGE_PARTS (FA_TILE_DIMS / FA_STAGE_DIMS)

/*
 * Stages `live` dims of `count` vectors of operand n from element `from` on; the rest of `most` and of the dims becomes 0. In the
 * place of what there is not, the last that there is is read: a branch would wait for each.
 */
#define FA_ROW_SCORES_STAGE(t, n, from, step, count, live, most, place)                                     \
    for (int stage = item; stage < (most)*FA_STAGE_PARTS; stage += items) {                                 \
        const int vector = stage / FA_STAGE_PARTS, dim = (stage - vector * FA_STAGE_PARTS) * FA_STAGE_DIMS; \
        const FA_AT at = (from) + FA_INDEX(FA_MIN(vector, (count)-1)) * (step);                             \
        float x[FA_STAGE_DIMS];                                                                             \
        int i;                                                                                              \
        FA_UNROLLED                                                                                         \
        for (i = 0; i < FA_STAGE_DIMS; i++)                                                                 \
            x[i] = FA_GET_ELEMENT(t, n, FA_TASK_CONSTANT(t, n), at + FA_INDEX(FA_MIN(dim + i, (live)-1)));  \
        FA_UNROLLED                                                                                         \
        for (i = 0; i < FA_STAGE_DIMS; i++)                                                                 \
            FA_TASK_SHARED(t, place(dim + i) + vector) =                                                    \
                vector < (count) && dim + i < (live) ? FA_INT(FA_AS_UINT(x[i])) : 0;                        \
    }

/* Brings dims [d, d + FA_TILE_DIMS) of the tile, of its rows from `from` on, to shared memory, which nobody reads any more. */
FA_KERNEL_FN void fa_row_scores_stage(FA_TASK t, fa_row_scores_tile tile, int from, int d, int item,
                                      int items)
{
    const int first = tile.row + from, rows = FA_ROW_SCORES_IS(t, rows) - first,
              live = FA_ROW_SCORES_IS(t, dim) - d;
    const int columns = FA_ROW_SCORES_IS(t, rule.columns) - tile.column;
    const FA_AT q = FA_ROW_SCORES_AT(t, q, tile, tile.head, first) + FA_INDEX(d);
    const FA_AT k =
        FA_ROW_SCORES_AT(t, k, tile, tile.head / FA_ROW_SCORES_IS(t, group), tile.column) + FA_INDEX(d);
    const FA_AT q_step = FA_WIDE(FA_ROW_SCORES_IS(t, q_stride)[2]),
                k_step = FA_WIDE(FA_ROW_SCORES_IS(t, k_stride)[2]);
    FA_ROW_SCORES_STAGE(t, 0, q, q_step, rows, live, FA_STAGED_ROWS, FA_STAGE_ROW)
    FA_ROW_SCORES_STAGE(t, 1, k, k_step, columns, live, FA_TILE_COLUMNS, FA_STAGE_COLUMN)
    FA_TASK_SYNC(t);
}

/* Adds the products of the dims that are staged, for the first `rows` rows of the patch, or more. */
FA_KERNEL_FN fa_patch fa_patch_add(FA_TASK t, fa_patch mine, int row, int column, int rows)
{
    for (int d = 0; d < FA_TILE_DIMS; d++) {
        float q[FA_PATCH_ROWS], k[FA_PATCH_COLUMNS];
        int i, j;
        FA_UNROLLED
        for (i = 0; i < FA_PATCH_LIVE(rows); i++)
            q[i] = FA_FLOAT_SHARED(t, FA_STAGE_ROW(d) + row + i);
        FA_UNROLLED
        for (j = 0; j < FA_PATCH_COLUMNS; j++)
            k[j] = FA_FLOAT_SHARED(t, FA_STAGE_COLUMN(d) + column + j * FA_TILE_ACROSS);
        FA_UNROLLED
        for (i = 0; i < FA_PATCH_LIVE(rows); i++) {
            FA_UNROLLED
            for (j = 0; j < FA_PATCH_COLUMNS; j++) {
                FA_PRECISE float product = q[i] * k[j], sum = mine.x[i * FA_PATCH_COLUMNS + j] + product;
                mine.x[i * FA_PATCH_COLUMNS + j] = sum;
            }
        }
    }
    return mine;
}

FA_KERNEL_FN fa_patch fa_patch_zero(void)
{
    fa_patch mine;
    FA_UNROLLED
    for (int i = 0; i < FA_PATCH_ROWS * FA_PATCH_COLUMNS; i++)
        mine.x[i] = 0.0f;
    return mine;
}

/* The patch that begins at this row and column of the tile, for head tile.head. All work-items come here. */
FA_KERNEL_FN fa_patch fa_patch_of(FA_TASK t, fa_row_scores_tile tile, int row, int column, int item,
                                  int items)
{
    fa_patch mine = fa_patch_zero();
    for (int d = 0; d < FA_ROW_SCORES_IS(t, dim); d += FA_TILE_DIMS) {
        fa_row_scores_stage(t, tile, FA_STAGED_FROM(row), d, item, items);
        mine = fa_patch_add(t, mine, row - FA_STAGED_FROM(row), column,
                            FA_ROW_SCORES_IS(t, rows) - tile.row - row);
        FA_TASK_SYNC(t);
    }
    return mine;
}

/* What a head adds to the scores of the patch. */
FA_KERNEL_FN fa_patch fa_patch_weigh(FA_TASK t, fa_patch sum, fa_patch next, fa_row_scores_tile tile, int row)
{
    const int rows = FA_ROW_SCORES_IS(t, rows), first = tile.row + row;
    const float scale = FA_ROW_SCORES_IS(t, scale);
    FA_UNROLLED
    for (int i = 0; i < FA_PATCH_LIVE(rows - first); i++) {
        float weight = 0.0f;
        if (FA_TASK_CONSTANT(t, 2) != 0 && first + i < rows)
            weight = FA_AS_FLOAT(FA_GET32(t, 2,
                                          ((FA_INDEX(tile.batch) * FA_INDEX(rows) + FA_INDEX(first + i)) *
                                               FA_INDEX(FA_ROW_SCORES_IS(t, heads)) +
                                           FA_INDEX(tile.head)) *
                                              FA_INDEX(4)));
        FA_UNROLLED
        for (int j = 0; j < FA_PATCH_COLUMNS; j++) {
            const int at = i * FA_PATCH_COLUMNS + j;
            FA_PRECISE float score = next.x[at] * scale;
            FA_PRECISE float added = weight * (score < 0.0f ? 0.0f : score), total = sum.x[at] + added;
            sum.x[at] = FA_TASK_CONSTANT(t, 2) != 0 ? total : score;
        }
    }
    return sum;
}

/* Writes what rows of the patch see, of line `line` of the output. */
FA_KERNEL_FN void fa_patch_put(FA_TASK t, fa_patch mine, fa_row_scores_tile tile, int line, int row,
                               int column)
{
    const int rows = FA_ROW_SCORES_IS(t, rows), columns = FA_ROW_SCORES_IS(t, rule.columns);
    FA_UNROLLED
    for (int i = 0; i < FA_PATCH_LIVE(rows - tile.row - row); i++) {
        const int r = tile.row + row + i;
        const int visible = r < rows ? fa_visible_count(FA_ROW_SCORES_IS(t, rule), r) : 0;
        const FA_AT at = (FA_INDEX(line) * FA_INDEX(rows) + FA_INDEX(r)) * FA_INDEX(columns);
        FA_UNROLLED
        for (int j = 0; j < FA_PATCH_COLUMNS; j++) {
            const int c = tile.column + column + j * FA_TILE_ACROSS;
            if (c < visible)
                FA_PUT32(t, 3, (at + FA_INDEX(c)) * FA_INDEX(4),
                         FA_AS_UINT(mine.x[i * FA_PATCH_COLUMNS + j]));
        }
    }
}

/* The tile of a work-group, for one of its work-items. */
FA_KERNEL_FN void fa_row_scores_group(FA_TASK t, int group, int item, int items)
{
    const int across = FA_ROW_SCORES_IS(t, column_tiles), down = FA_ROW_SCORES_IS(t, row_tiles);
    const int of_row = group / across, line = of_row / down;
    const bool weighted = FA_TASK_CONSTANT(t, 2) != 0;
    const int heads = weighted ? FA_ROW_SCORES_IS(t, heads) : 1, each = FA_ROW_SCORES_IS(t, heads) / heads;
    fa_row_scores_tile tile;
    tile.batch = line / each;
    tile.row = (of_row - line * down) * FA_TILE_ROWS;
    tile.column = (group - of_row * across) * FA_TILE_COLUMNS;
    const int last = FA_MIN(tile.row + FA_TILE_ROWS, FA_ROW_SCORES_IS(t, rows)) - 1;
    if (line >= FA_ROW_SCORES_IS(t, lines) ||
        tile.column >= fa_visible_count(FA_ROW_SCORES_IS(t, rule), last))
        return;
    for (int first = 0; first < FA_TILE_PATCHES; first += items) {
        const int number = FA_MIN(first + item, FA_TILE_PATCHES - 1), down_of = number / FA_TILE_ACROSS;
        const int row = down_of * FA_PATCH_ROWS, column = number - down_of * FA_TILE_ACROSS;
        fa_patch sum = fa_patch_zero();
        if (FA_STAGED_FROM(row) >= FA_ROW_SCORES_IS(t, rows) - tile.row)
            continue;
        for (int h = 0; h < heads; h++) {
            tile.head = weighted ? h : line - tile.batch * each;
            const fa_patch next = fa_patch_of(t, tile, row, column, item, items);
            sum = fa_patch_weigh(t, sum, next, tile, row);
        }
        if (first + item < FA_TILE_PATCHES)
            fa_patch_put(t, sum, tile, line, row, column);
    }
}

#endif
