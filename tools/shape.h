/* SPDX-License-Identifier: Apache-2.0 */
/* The sizes of a problem as one word, for `plan` and `bench`. */
#ifndef FASTATTN_TOOLS_SHAPE_H
#define FASTATTN_TOOLS_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct shape {
    int64_t batch, heads_q, len_q, dim_qk;
    int64_t heads_kv, len_kv, dim_v; /* as heads_q, len_q and dim_qk where they are not given */
} shape;

/* Reads "B1,H8,S2048,D128[,HK8][,SK2048][,DV128]", in any order. On failure `out` is untouched and
 * `error` names the part that is wrong. */
bool shape_parse(const char *text, shape *out, char *error, size_t error_size);

/* Writes `s` in the form that shape_parse reads; parts that equal their default are left out. */
void shape_print(const shape *s, char *text, size_t size);

#endif
