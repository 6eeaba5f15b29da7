/* SPDX-License-Identifier: Apache-2.0 */
/* A neighbourhood on a grid of tokens: the options --grid, --neighbourhood and their like of `plan` and `bench`. */
#ifndef FASTATTN_TOOLS_GRID_H
#define FASTATTN_TOOLS_GRID_H

#include <stdbool.h>

#include <fastattn/fastattn.h>

/* As they were given, a number for each axis: "64x64". NULL: not given. */
typedef struct grid_options {
    const char *size, *kernel, *stride, *dilation, *causal, *tile;
} grid_options;

/* Lines of a table of cli_option. */
#define GRID_OPTIONS(o)                                                                                  \
    {"grid", 's', &(o).size, "<64x64> tokens of a grid of 1 to 3 axes, as many as rows"},                \
        {"neighbourhood", 's', &(o).kernel, "<13x13> with --grid: tokens that a row sees on each axis"}, \
        {"grid-stride", 's', &(o).stride, "<2x2> with --grid: tokens that see the same; 1 each"},        \
        {"grid-dilation", 's', &(o).dilation, "<1x2> with --grid: steps between tokens; 1 each"},        \
        {"grid-causal", 's', &(o).causal, "<0x1> with --grid: 1 for an axis without a look ahead"},      \
    {                                                                                                    \
        "grid-tile", 's', &(o).tile, "<8x8> with --grid: patches in which tokens come"                   \
    }

/* *out has no axes where there is no grid. False after an error. What the numbers may be, the library says. */
bool grid_parse(const char *command, const grid_options *given, fa_neighbourhood *out);

#endif
