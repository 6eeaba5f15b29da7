/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a work-item of a tile kernel fetches for a step, and where in local memory a step lies, which is its stage.
 * OpenCL C and GLSL compile this, and define before
 *   FA_BLOCK_Q, FA_BLOCK_KV, FA_DIM_V, FA_LANES, FA_ROWS, FA_DEPTH   sizes, which tile.h explains
 *   FA_CONSTANT(name, value)   declares an int
 *   CEIL_DIV(a, b)             a / b, rounded up
 */
#ifndef FA_PORTABLE_STAGE_H
#define FA_PORTABLE_STAGE_H

/* Vectors of a step's line of q or k, and of v. */
#define FOURS_QK (FA_DEPTH / 4)
#define FOURS_V (FA_DIM_V / 4)

/* A line for each size: */
/* clang-format off */
FA_CONSTANT(ITEMS, FA_LANES * (FA_BLOCK_Q / FA_ROWS));
FA_CONSTANT(WIDE, FA_BLOCK_KV > FA_DIM_V ? FA_BLOCK_KV : FA_DIM_V);
FA_CONSTANT(STEPS_V, FA_BLOCK_KV / FA_DEPTH);

/* Vectors of four that each work-item fetches for a step. */
FA_CONSTANT(FETCH_Q, CEIL_DIV(FA_BLOCK_Q * FOURS_QK, ITEMS));
FA_CONSTANT(FETCH_K, CEIL_DIV(FA_BLOCK_KV * FOURS_QK, ITEMS));
FA_CONSTANT(FETCH_V, CEIL_DIV(FA_DEPTH * FOURS_V, ITEMS));
FA_CONSTANT(FETCH, FETCH_Q + FETCH_K > FETCH_V ? FETCH_Q + FETCH_K : FETCH_V);

/* Lines of the stage, in floats: padded so that neither writing columns nor reading lines meets one bank twice. */
#define LINE_Q(d) ((d) * FA_BLOCK_Q + (d) / 4 * 8)
#define LINE_K(d) ((d) * FA_BLOCK_KV + (d) / 4 * 8)
#define LINE_P(t) ((t) * (FA_BLOCK_Q + 4))
#define LINE_V(t) ((t) * FA_DIM_V)
FA_CONSTANT(STAGE_ROWS, LINE_P(FA_DEPTH));
FA_CONSTANT(STAGE_STEP, STAGE_ROWS + FA_DEPTH * (WIDE + 2));
FA_CONSTANT(STAGE, STAGE_STEP > LINE_P(FA_LANES) ? STAGE_STEP : LINE_P(FA_LANES));
/* clang-format on */

#endif
