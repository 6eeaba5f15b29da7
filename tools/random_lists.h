/* SPDX-License-Identifier: Apache-2.0 */
/* Random lists of key blocks: the options --density and --list-block of `plan` and `bench`. */
#ifndef FASTATTN_TOOLS_RANDOM_LISTS_H
#define FASTATTN_TOOLS_RANDOM_LISTS_H

#include <stdbool.h>

#include <fastattn/fastattn.h>

typedef struct random_lists {
    fa_block_lists lists;
    uint8_t *mask;
} random_lists;

/* False after an error: a density that is no part, a block or a head that there cannot be. */
bool random_lists_options(const char *command, double density, int64_t block, int64_t head, int64_t heads_kv);

/*
 * Lists for each KV head, in blocks of `block` rows and keys: each block of rows has the same part of the blocks of keys, at
 * least one, drawn by the seed. The description points into *out. A density of 0 makes none. False without memory.
 */
bool random_lists_make(double density, int64_t block, uint64_t seed, fa_attention_desc *desc,
                       random_lists *out);
void random_lists_free(random_lists *lists);

#endif
