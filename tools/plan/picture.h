/* SPDX-License-Identifier: Apache-2.0 */
/* The tile classes of one of a plan's sequences as text, for `plan`. */
#ifndef FASTATTN_TOOLS_PLAN_PICTURE_H
#define FASTATTN_TOOLS_PLAN_PICTURE_H

#include <stdbool.h>

#include <fastattn/fastattn.h>

enum { PICTURE_COLUMNS = 64, PICTURE_ROWS = 32 };

typedef struct picture {
    int64_t sequence, head_kv;
    int64_t grid_rows, grid_columns; /* level-1 blocks                                                 */
    int rows, columns;               /* cells; a cell covers one or more blocks                        */
    bool sampled;                    /* too many blocks to look at each                                */
    int64_t len_q, len_kv;           /* what the axes count                                            */
    int32_t block_q, block_kv, group;
    unsigned char cell[PICTURE_ROWS]
                      [PICTURE_COLUMNS]; /* an fa_tile_class; blocks that differ make it PARTIAL */
} picture;

fa_status picture_make(const fa_plan *plan, const fa_plan_info *info, int64_t sequence, int64_t head_kv,
                       int64_t len_q, int64_t len_kv, picture *out);
/* The first of the blocks that a cell covers; that of cell number `cells` is `blocks`. */
int64_t picture_cell_start(int64_t cell, int64_t cells, int64_t blocks);
void picture_print(const picture *p);
void picture_print_json(const picture *p);

#endif
