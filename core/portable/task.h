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
 *   FA_AT                    a number of bytes or elements, which may need 64 bits
 *   FA_INDEX(x), FA_WIDE(x)  an int, an fa_long as one
 *   FA_GET16(t, n, at), FA_GET32(t, n, at)  the bits at byte `at` of operand n, a literal; `at` is a multiple of their size
 *   FA_PUT16(t, n, at, bits), FA_PUT32(t, n, at, bits)  likewise written; no two work-items write the same bits
 *   FA_IN_WORD(t, n, at)     whether the even byte `at` lies at a multiple of four in memory
 *   FA_TASK_BARRIER          no work-item of the group goes on before all are here, and what they wrote is seen by all
 * Programs of one work-group, whose work-items work together, also in
 *   FA_TASK_SHARED(t, n)     int number n that they share, of FA_TASK_SHARED_INTS for each
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

#define FA_TASK_SHARED_INTS 4

/* Up to 36 bytes in words, the first in the low bits, on their way to an even byte. */
FA_STRUCT(fa_task_bytes)
    fa_uint word[9];
FA_STRUCT_END(fa_task_bytes)

/*
 * Writes `count` bytes, an even number, to byte `at` of operand n: 32 bits at a time but at the ends, where others may
 * write the other half of a word. `x` is an fa_task_bytes, `i` an int.
 */
#define FA_PUT_BYTES(t, n, at, x, count, i)                                                        \
    if (FA_IN_WORD(t, n, at)) {                                                                    \
        for (i = 0; i < (count) / 4; i++)                                                          \
            FA_PUT32(t, n, (at) + FA_INDEX(4 * i), (x).word[i]);                                   \
        if ((count) % 4 != 0)                                                                      \
            FA_PUT16(t, n, (at) + FA_INDEX((count)-2), (x).word[(count) / 4] & 0xffffu);           \
    } else {                                                                                       \
        FA_PUT16(t, n, at, (x).word[0] & 0xffffu);                                                 \
        for (i = 0; i < ((count)-2) / 4; i++)                                                      \
            FA_PUT32(t, n, (at) + FA_INDEX(4 * i + 2), (x).word[i] >> 16 | (x).word[i + 1] << 16); \
        if ((count) % 4 == 0)                                                                      \
            FA_PUT16(t, n, (at) + FA_INDEX((count)-2), (x).word[(count) / 4 - 1] >> 16);           \
    }

#endif
