/* SPDX-License-Identifier: Apache-2.0 */
/* The words of core/portable/task.h in C, for the functions that host backends run. */
#ifndef FA_CORE_TASK_WORDS_H
#define FA_CORE_TASK_WORDS_H

#include <string.h>

#include "core/task.h"

#define FA_TASK const fa_task_view *
#define FA_TASK_CONSTANT(t, n) ((t)->constant[n])
#define FA_TASK_VIEW(type)
#define FA_TASK_PARAM(t, type, member) (((const type *)(t)->params)->member)
#define FA_TASK_LIST(t, type, n) (((const type *)(t)->params)[n])
#define FA_TASK_HELD const fa_task_view *
#define FA_TASK_HOLD(t) (t)
#define FA_TASK_OF(held) (held)
#define FA_UNROLLED
#define FA_ROLLED
#define FA_AT int64_t
#define FA_INDEX(x) ((int64_t)(x))
#define FA_WIDE(x) (x)
#define FA_GET8(t, n, byte) ((uint32_t)(uint8_t)(t)->at[n][byte])
#define FA_GET16(t, n, byte) fa_task_get16((t)->at[n] + (byte))
#define FA_GET32(t, n, byte) fa_task_get32((t)->at[n] + (byte))
#define FA_PUT8(t, n, byte, bits) ((t)->at[n][byte] = (char)(uint8_t)(bits))
#define FA_PUT16(t, n, byte, bits) fa_task_put16((t)->at[n] + (byte), bits)
#define FA_PUT32(t, n, byte, bits) fa_task_put32((t)->at[n] + (byte), bits)
#define FA_TASK_BARRIER (void)0 /* a group is one function */
#define FA_IN_WORD(t, n, byte) (((uintptr_t)(t)->at[n] + (uintptr_t)(byte)) % 4 == 0)
#define FA_TASK_ALONE
#define FA_TASK_SHARED(t, n) ((t)->shared[n])
#define FA_TASK_SHARED_ADD(t, n, x) ((t)->shared[n] = (int)((uint32_t)(t)->shared[n] + (uint32_t)(x)))
#define FA_TASK_SHARED_OR(t, n, x) ((t)->shared[n] = (int)((uint32_t)(t)->shared[n] | (uint32_t)(x)))
#define FA_TASK_SYNC(t) ((void)(t))
#define FA_TASK_LOW(at) ((uint32_t)(at))
#define FA_TASK_HIGH(at) ((uint32_t)((uint64_t)(at) >> 32))

static inline uint32_t fa_task_get16(const char *at)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof(bits));
    return bits;
}

static inline uint32_t fa_task_get32(const char *at)
{
    uint32_t bits;
    memcpy(&bits, at, sizeof(bits));
    return bits;
}

static inline void fa_task_put16(char *at, uint32_t bits)
{
    const uint16_t half = (uint16_t)bits;
    memcpy(at, &half, sizeof(half));
}

static inline void fa_task_put32(char *at, uint32_t bits)
{
    memcpy(at, &bits, sizeof(bits));
}

#endif
