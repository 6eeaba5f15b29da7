/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of key blocks, as a problem has them: a bit for each block of keys. */
#ifndef FA_CORE_ATTENTION_LISTS_H
#define FA_CORE_ATTENTION_LISTS_H

#include <fastattn/attention.h>
#include <stdbool.h>

struct fa_context;
struct fa_device;
struct fa_plan;
struct fa_problem;

typedef struct fa_lists {
    bool given;     /* the description has lists               */
    uint32_t *bits; /* NULL: there are none, or nothing of them */
    size_t count;   /* of words                 */
    size_t room;    /* words that were allocated */
    int32_t block_rows, block_keys;
    int32_t index_count;
    int64_t sequences, given_heads, row_blocks, key_blocks; /* as they were given */
    int32_t words;                        /* of a list                                       */
    int32_t heads;                        /* query heads that share a list                   */
    int64_t head_stride, sequence_stride; /* words between lists; 0: they are the same       */
    bool cut; /* in a run of these lengths, some block of the kernel is in several of the lists' */
} fa_lists;

/* Checks and copies lists; NULL: there are none, or those of the problem's neighbourhood. The problem's tensors, sequences, lengths
 * and neighbourhood are there. */
fa_status fa_lists_init(const struct fa_context *context, struct fa_problem *problem,
                        const fa_block_lists *given);
/* Other lists, of the sizes of the problem's, whose bits are written to `room`: l->count words. FA_INVALID, and the problem's lists
 * stay. */
fa_status fa_lists_replace(fa_lists *lists, const fa_block_lists *given, uint32_t *room);

/* Whether work is shared out by lists: not where others may come from the device. */
bool fa_lists_planned(const struct fa_problem *problem);
void fa_lists_release(const struct fa_context *context, fa_lists *lists);

/* The words of the list of a query head and a row of sequence n. */
static inline const uint32_t *fa_lists_of(const fa_lists *l, int64_t n, int64_t head, int64_t row)
{
    return l->bits + n * l->sequence_stride + head / l->heads * l->head_stride +
           row / l->block_rows * l->words;
}

/* Whether they show the row a key, by its number from key 0 of the sequence on. */
static inline bool fa_lists_have(const fa_lists *l, int64_t n, int64_t head, int64_t row, int64_t key)
{
    const int64_t block = key / l->block_keys;
    return (fa_lists_of(l, n, head, row)[block / 32] >> (block % 32) & 1) != 0;
}

#endif
