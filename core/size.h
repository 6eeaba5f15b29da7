/* SPDX-License-Identifier: Apache-2.0 */
/* Sums and products of sizes that say when they do not fit. */
#ifndef FA_CORE_SIZE_H
#define FA_CORE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/assumptions.h"

static inline bool fa_mul_i64(int64_t a, int64_t b, int64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

/* *total += a * b, false when that leaves [0, PTRDIFF_MAX]. */
static inline bool fa_grow(size_t *total, size_t a, size_t b)
{
    size_t product, sum;
    if (__builtin_mul_overflow(a, b, &product) || __builtin_add_overflow(*total, product, &sum) ||
        sum > PTRDIFF_MAX)
        return false;
    *total = sum;
    return true;
}

static inline int64_t fa_ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static inline int64_t fa_round_up(int64_t a, int64_t b)
{
    return fa_ceil_div(a, b) * b;
}

static inline size_t fa_align64(size_t size)
{
    return (size + 63) & ~(size_t)63;
}

/* The logarithm of a power of two; -1 for another number. */
static inline int fa_shift_of(int64_t n)
{
    int shift = 0;
    while (shift < 30 && (int64_t)1 << shift < n)
        shift++;
    return (int64_t)1 << shift == n ? shift : -1;
}

#endif
