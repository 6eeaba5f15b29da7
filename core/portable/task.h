/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks: small programs beside attention, such as an append. A work-group does a share of one, which its number tells;
 * its work-items go through the share in turns, however many they are. A program is a header of this folder, written in
 * words that each language defines before:
 *   FA_TASK                  a parameter that is the task of a run
 *   FA_TASK_CONSTANT(t, n)   constant n, known where programs are compiled for each task
 *   FA_TASK_VIEW(type)       lets the two words below take that type
 *   FA_TASK_PARAM(t, type, member)  a member of the parameters, which are a struct `type`
 *   FA_TASK_LIST(t, type, n) entry n of the lists behind them; entries are numbered from where the parameters begin
 *   FA_TASK_HELD, FA_TASK_HOLD(t), FA_TASK_OF(held)  a type that a struct may hold, the task as such, and it back again
 *   FA_AT                    a number of bytes or elements, which may need 64 bits
 *   FA_INDEX(x), FA_WIDE(x)  an int, an fa_long as one
 *   FA_GET8(t, n, at), FA_GET16, FA_GET32  the bits at byte `at` of operand n, a literal; `at` is a multiple of their size
 *   FA_PUT8(t, n, at, bits), FA_PUT16, FA_PUT32  likewise written; no two work-items write the same bits
 *   FA_UNROLLED, FA_ROLLED   before a loop that is, or is not, to be unrolled
 *   FA_IN_WORD(t, n, at)     whether the even byte `at` lies at a multiple of four in memory
 *   FA_TASK_ALONE            is defined where a group has one work-item
 *   FA_TASK_BARRIER          no work-item of the group goes on before all are here, and what they wrote is seen by all
 * Programs of which the work-items of a group work together, also in
 *   FA_TASK_SHARED(t, n)     int number n that they share, of FA_TASK_SHARED_INTS for each, or of a number of the program's below
 *   FA_TASK_SHARED_ADD(t, n, x)  adds to it, while others do too; more than 32 bits wrap around
 *   FA_TASK_SHARED_OR(t, n, x)   sets bits of it, likewise
 *   FA_TASK_SYNC(t)          all have come here, and see what each has shared
 *   FA_TASK_LOW(at), FA_TASK_HIGH(at)  the lower and the upper 32 bits of an FA_AT
 */
#ifndef FA_PORTABLE_TASK_H
#define FA_PORTABLE_TASK_H

#include "lang.h"

/* Programs by number. */
#define FA_TASK_APPEND 0
#define FA_TASK_FILL 1
#define FA_TASK_MERGE 2
#define FA_TASK_PAGES 3
#define FA_TASK_APPEND_SCALED \
    4 /* an append into caches whose scales are operands, or of whose rows each element depends on others */
#define FA_TASK_SALIENCY 5
#define FA_TASK_SHIFT 6
#define FA_TASK_RELIST 7
#define FA_TASK_MIX 8
#define FA_TASK_POOL 9
#define FA_TASK_ROW_SCORES 10
#define FA_TASK_SELECT 11
#define FA_TASK_KEY_LIST 12
#define FA_TASK_GATHER 13
#define FA_TASK_SORT 14
#define FA_TASK_HASH 15
#define FA_TASK_CLUSTER 16
#define FA_TASKS 17

#define FA_TASK_SHARED_INTS 4
/* What these programs share in all. */
#define FA_ROW_SCORES_SHARED 3104
#define FA_SELECT_SHARED 800

/* Up to 36 bytes in words, the first in the low bits, on their way to an even byte. */
FA_STRUCT(fa_task_bytes)
    fa_uint word[9];
FA_STRUCT_END(fa_task_bytes)

/*
 * Writes `count` bytes of x, an fa_task_bytes, to byte `at` of operand n; both are even. It writes 32 bits at a time but at the
 * ends, where others may write the other half of a word.
 */
#define FA_PUT_BYTES(t, n, at, x, count)                                                              \
    {                                                                                                 \
        int put_skip = FA_IN_WORD(t, n, at) ? 0 : 2;                                                  \
        fa_uint put_last = 0u;                                                                        \
        if (put_skip > 0)                                                                             \
            FA_PUT16(t, n, at, (x).word[0] & 0xffffu);                                                \
        FA_UNROLLED                                                                                   \
        for (int put_i = 0; put_i < 9; put_i++) {                                                     \
            fa_uint put = put_skip > 0 ? (x).word[put_i] >> 16 | (x).word[FA_MIN(put_i + 1, 8)] << 16 \
                                       : (x).word[put_i];                                             \
            if (4 * put_i + 4 + put_skip <= (count))                                                  \
                FA_PUT32(t, n, (at) + FA_INDEX(4 * put_i + put_skip), put);                           \
            put_last = 4 * put_i + 2 + put_skip == (count) ? put & 0xffffu : put_last;                \
        }                                                                                             \
        if ((((count)-put_skip) & 2) != 0)                                                            \
            FA_PUT16(t, n, (at) + FA_INDEX((count)-2), put_last);                                     \
    }

/* Words of an fa_table_sequence, and of some of its members, for programs that read a run's work from an operand. */
#define FA_SEQUENCE_WORDS 20
#define FA_SEQUENCE_COUNT_WORD 11 /* mask.len_kv */
#define FA_SEQUENCE_DIAGONAL_WORD 12
#define FA_SEQUENCE_FIRST_WORD 16
#define FA_SEQUENCE_ROW_WORD 17
#define FA_SEQUENCE_ROWS_WORD 18
/* A word of entry n of them in operand `of`. */
#define FA_SEQUENCE_WORD(t, of, n, word) \
    FA_INT(FA_GET32(t, of, (FA_INDEX(n) * FA_INDEX(FA_SEQUENCE_WORDS) + FA_INDEX(word)) * FA_INDEX(4)))

/* Element `at` of operand n, of f32, f16 or bf16. */
#define FA_GET_ELEMENT(t, n, type, at)                           \
    ((type) == 0 ? FA_AS_FLOAT(FA_GET32(t, n, (at)*FA_INDEX(4))) \
                 : fa_float_widen(type, FA_GET16(t, n, (at)*FA_INDEX(2))))

/* Writes x[0] to x[count - 1], at most 9 floats, as elements from `at` on of operand n, of such a type. */
#define FA_PUT_ELEMENTS(t, n, type, at, x, count)                                       \
    {                                                                                   \
        const int element_size = (type) == 0 ? 4 : 2;                                   \
        fa_task_bytes elements;                                                         \
        int element;                                                                    \
        for (element = 0; element < 9; element++)                                       \
            elements.word[element] = 0u;                                                \
        for (element = 0; element < (count); element++) {                               \
            if ((type) == 0)                                                            \
                elements.word[element] = FA_AS_UINT((x)[element]);                      \
            else                                                                        \
                elements.word[element >> 1] |= fa_float_narrow(type, (x)[element])      \
                                               << FA_UINT(16 * (element & 1));          \
        }                                                                               \
        FA_PUT_BYTES(t, n, (at)*FA_INDEX(element_size), elements, (count)*element_size) \
    }

/* The bits of number `at` of operand n, which holds scales or zeros of that type. */
#define FA_GET_SCALE(t, n, type, at)                             \
    ((type) == 0              ? FA_GET32(t, n, (at)*FA_INDEX(4)) \
     : FA_TYPE_IS_CODED(type) ? FA_GET8(t, n, at)                \
                              : FA_GET16(t, n, (at)*FA_INDEX(2)))

#endif
