/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands in global memory. A tensor too large for one allocation lies in FA_CHUNKS of them, each of
 * 1 << FA_CHUNK_SHIFT bytes; `memory` hides that.
 */
#define FA_CAT2(a, b) a##b
#define FA_CAT(a, b) FA_CAT2(a, b)

#if FA_CHUNKS == 1
typedef __global uchar *memory;
#define FA_MEMORY(x) __global uchar *FA_RESTRICT x##0
#define FA_GATHER(x) memory x = x##0
static inline __global uchar *memory_at(memory m, long byte)
{
    return m + byte;
}
#else
typedef struct memory {
    __global uchar *chunk[FA_CHUNKS];
} memory;
#define FA_MEMORY4(x, a, b, c, d) __global uchar *x##a, __global uchar *x##b, __global uchar *x##c, __global uchar *x##d
#if FA_CHUNKS == 4
#define FA_MEMORY(x) FA_MEMORY4(x, 0, 1, 2, 3)
#define FA_GATHER(x) memory x = {{x##0, x##1, x##2, x##3}}
#else
#define FA_MEMORY(x) FA_MEMORY4(x, 0, 1, 2, 3), FA_MEMORY4(x, 4, 5, 6, 7), FA_MEMORY4(x, 8, 9, 10, 11)
#define FA_GATHER(x) memory x = {{x##0, x##1, x##2, x##3, x##4, x##5, x##6, x##7, x##8, x##9, x##10, x##11}}
#endif
static inline __global uchar *memory_at(memory m, long byte)
{
    return m.chunk[byte >> FA_CHUNK_SHIFT] + (byte & (((long)1 << FA_CHUNK_SHIFT) - 1));
}
#endif
