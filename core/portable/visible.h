/* SPDX-License-Identifier: Apache-2.0 */
/* Which columns of scores a row of them sees: a row stands for a block of rows, a column for a block of keys. */
#ifndef FA_PORTABLE_VISIBLE_H
#define FA_PORTABLE_VISIBLE_H

#include "lang.h"

FA_STRUCT(fa_visible_rule)
    int rows, block_rows, block_keys, columns;
    int diagonal; /* row i stands at key i + diagonal */
    int causal;
FA_STRUCT_END(fa_visible_rule)

/* The column of the position of the last row of block `row`; -1: it stands before all keys. It may lie behind all columns. */
FA_FN int fa_visible_own(fa_visible_rule rule, int row)
{
    const int first = row * rule.block_rows;
    const int position = first + FA_MIN(rule.block_rows, rule.rows - first) - 1 + rule.diagonal;
    return position < 0 ? -1 : position / rule.block_keys;
}

/* How many columns, from the first on, the block sees. */
FA_FN int fa_visible_count(fa_visible_rule rule, int row)
{
    return rule.causal != 0 ? FA_MIN(fa_visible_own(rule, row) + 1, rule.columns) : rule.columns;
}

#endif
