/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/plan/picture.h"

#include <inttypes.h>
#include <stdio.h>

/* Looking at every block of a long sequence would take minutes: from so many blocks per cell and axis on,
 * this many are looked at, the outermost among them. */
enum { MAX_SAMPLES = 64 };

int64_t picture_cell_start(int64_t cell, int64_t cells, int64_t blocks)
{
    return blocks / cells * cell + blocks % cells * cell / cells;
}

/* Sample `i` of `count` from begin to end - 1, both ends included. */
static int64_t sample(int64_t begin, int64_t end, int64_t i, int64_t count)
{
    return count < 2 ? begin : begin + (end - 1 - begin) * i / (count - 1);
}

static fa_status cell_class(const fa_plan *plan, picture *p, int row, int column)
{
    int64_t r0 = picture_cell_start(row, p->rows, p->grid_rows),
            r1 = picture_cell_start(row + 1, p->rows, p->grid_rows);
    int64_t c0 = picture_cell_start(column, p->columns, p->grid_columns);
    int64_t c1 = picture_cell_start(column + 1, p->columns, p->grid_columns);
    int64_t rows = r1 - r0 > MAX_SAMPLES ? MAX_SAMPLES : r1 - r0;
    int64_t columns = c1 - c0 > MAX_SAMPLES ? MAX_SAMPLES : c1 - c0;
    fa_tile_class first = FA_TILE_SKIP, found;

    p->sampled = p->sampled || rows < r1 - r0 || columns < c1 - c0;
    for (int64_t i = 0; i < rows * columns; i++) {
        fa_status status = fa_plan_head_tile(plan, p->sequence, p->head_kv, sample(r0, r1, i / columns, rows),
                                             sample(c0, c1, i % columns, columns), &found);
        if (status != FA_OK)
            return status;
        if (i == 0)
            first = found;
        if (found != first || found == FA_TILE_PARTIAL) {
            first = FA_TILE_PARTIAL;
            break;
        }
    }
    p->cell[row][column] = (unsigned char)first;
    return FA_OK;
}

fa_status picture_make(const fa_plan *plan, const fa_plan_info *info, int64_t sequence, int64_t head_kv,
                       int64_t len_q, int64_t len_kv, picture *out)
{
    *out = (picture){
        .sequence = sequence,
        .head_kv = head_kv,
        .len_q = len_q,
        .len_kv = len_kv,
        .block_q = info->block_q,
        .block_kv = info->block_kv,
        .group = info->group,
    };
    fa_status status = fa_plan_grid(plan, sequence, &out->grid_rows, &out->grid_columns);
    out->rows = out->grid_rows > PICTURE_ROWS ? PICTURE_ROWS : (int)out->grid_rows;
    out->columns = out->grid_columns > PICTURE_COLUMNS ? PICTURE_COLUMNS : (int)out->grid_columns;
    for (int row = 0; row < out->rows && status == FA_OK; row++) {
        for (int column = 0; column < out->columns && status == FA_OK; column++)
            status = cell_class(plan, out, row, column);
    }
    return status;
}

static void print_line(const picture *p, int row)
{
    static const char *const marks[] = {[FA_TILE_SKIP] = "·", [FA_TILE_PARTIAL] = "/", [FA_TILE_FULL] = "█"};
    for (int column = 0; column < p->columns; column++)
        printf("%s", marks[p->cell[row][column]]);
}

/* The number of the first key above every 16th column, where it does not run into the one before. */
static void print_ruler(const picture *p, int indent)
{
    int used = 0;
    printf("%*s", indent, "");
    for (int column = 0; column < p->columns; column += 16) {
        if (used > column)
            continue;
        used += printf("%*s%" PRId64 " ", column - used, "",
                       picture_cell_start(column, p->columns, p->grid_columns) * p->block_kv);
    }
    printf("\n");
}

void picture_print(const picture *p)
{
    int digits = snprintf(NULL, 0, "%" PRId64, p->len_q);
    int indent = digits > 4 ? digits : 4;

    printf("tile classes of one sequence and head of k and v: %" PRId64 " x %" PRId64 " blocks\n",
           p->grid_rows, p->grid_columns);
    printf("(· skip, / partial, █ full%s%s)\n",
           p->rows < p->grid_rows || p->columns < p->grid_columns
               ? "; a cell is several blocks, / where they differ"
               : "",
           p->sampled ? "; some of them were looked at" : "");
    printf("%*s  keys 0 to %" PRId64 "\n", indent, "", p->len_kv - 1);
    print_ruler(p, indent + 2);
    printf("%*s\n", indent, "rows");
    for (int row = 0; row < p->rows; row++) {
        int64_t first = picture_cell_start(row, p->rows, p->grid_rows) * p->block_q / p->group;
        printf("%*" PRId64 "  ", indent, first);
        print_line(p, row);
        printf("\n");
    }
}

void picture_print_json(const picture *p)
{
    printf("{\"rows\": %" PRId64 ", \"columns\": %" PRId64 ", \"cells\": [", p->grid_rows, p->grid_columns);
    for (int row = 0; row < p->rows; row++) {
        printf("%s\"", row ? ", " : "");
        print_line(p, row);
        printf("\"");
    }
    printf("]}");
}
