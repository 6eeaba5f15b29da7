/* SPDX-License-Identifier: Apache-2.0 */
/* The product of rows of attention and a matrix of weights, in host memory. */
#ifndef FA_CORE_RANKS_PROJECTION_H
#define FA_CORE_RANKS_PROJECTION_H

#include <stdbool.h>
#include <stdint.h>

/* y = o w: rows by inner, inner by width. Strides are elements from one row to the next. All fit an int. */
typedef struct fa_product {
    const float *o, *w;
    float *y;
    int64_t rows, inner, width;
    int64_t o_stride, w_stride, y_stride;
} fa_product;

/* The file of the CBLAS that fa_cblas_multiply() calls; NULL: there is none. */
const char *fa_cblas_name(void);
/* Why the file that the environment names cannot be used; "" where it can, or names none. */
const char *fa_cblas_failure(void);
void fa_cblas_multiply(const fa_product *product);

/* A plain loop. Each element is the sum over `inner` in its order, however many rows and columns there are. */
void fa_plain_multiply(const fa_product *product);

#endif
