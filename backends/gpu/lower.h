/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FASTATTN_*_LIMITS: an environment variable that makes a device look smaller than it is, as a comma-separated list of
 * key=number. A number above the driver's changes nothing.
 */
#ifndef FA_GPU_LOWER_H
#define FA_GPU_LOWER_H

#include <stdbool.h>
#include <stddef.h>

/* A key, and what it lowers: a number, or a flag, which 0 clears. */
typedef struct fa_gpu_key {
    const char *name; /* with its "=" */
    size_t least;     /* a smaller number is an error */
    size_t *number;   /* NULL: a flag */
    bool *flag;
} fa_gpu_key;

/* False with the reason where the variable has a key that is not one of `keys`, or a bad number. */
bool fa_gpu_lower(const char *variable, const fa_gpu_key *keys, size_t count, char *reason,
                  size_t reason_size);

#endif
