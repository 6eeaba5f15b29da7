/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured: rows of random numbers. */
#include <stdlib.h>
#include <string.h>

#include <fastattn/reference.h>

#include "tools/cooperate/measure.h"

enum { POOL = 1021 };

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

bool measure_fill(fa_dtype dtype, int64_t dim, size_t row, unsigned char *to, size_t rows)
{
    uint64_t state = 7;
    float number[FA_MAX_HEAD_DIM];
    unsigned char *pool = malloc(POOL * row);
    if (!pool)
        return false;
    for (size_t r = 0; r < POOL; r++) {
        for (int64_t d = 0; d < dim; d++)
            number[d] = (float)((double)next_random(&state) * 0x1p-30 - 1);
        fa_elements_store(dtype, pool, (int64_t)r * dim, number, dim);
    }
    for (size_t r = 0; r < rows; r++)
        memcpy(to + r * row, pool + next_random(&state) % POOL * row, row);
    free(pool);
    return true;
}
