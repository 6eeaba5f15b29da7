/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats of caches. All elements of a fetch exist, or none: head dims are whole blocks. A fetch keeps words of memory as
 * they lie there, at multiples of four bytes, and waits for none. What begins at an even byte is put together from two of
 * them when it is used, where it becomes numbers too. An element that does not exist is 0, and all bits set are NaN.
 */
#ifdef FA_ALIGNED
#define ALIGNED true
#else
#define ALIGNED false
#endif

#define FA_WIDEN_PAIRS(even, odd) widen_halves(as_ushort4((uint2)(even, odd)).xzyw)
#define FA_SHIFTED(low, high, n) ((uint)(((ulong)(high) << 32 | (low)) >> (n)))
#define FA_SCALED4(x, scale, offset) ((x) * (scale) + (offset))
#include "core/portable/blocks.h"

#if defined(FA_SCALES_K) || defined(FA_SCALES_V) || FA_TYPE_IS_ROW(FA_TYPE_K) || FA_TYPE_IS_ROW(FA_TYPE_V)
/* What has scales in f32 is decoded as it is fetched: an operand, and whether its blocks lie in words. */
typedef struct coded {
    memory m;
    bool in_words;
} coded;

static inline coded coded_of(int type, memory m)
{
    const coded c = {m, FA_IN_WORDS(type)};
    return c;
}

static inline uint bits16(coded c, long at)
{
    return *(__global const ushort *)memory_at(c.m, at);
}

static inline uint bits32(coded c, long at)
{
    return c.in_words ? *(__global const uint *)memory_at(c.m, at) : bits16(c, at) | bits16(c, at + 2) << 16;
}

static inline uint bits32_aligned(coded c, long at)
{
    return *(__global const uint *)memory_at(c.m, at);
}

#define FA_CODES coded
#define FA_BITS16 bits16
#define FA_BITS32 bits32
#define FA_BITS32_ALIGNED bits32_aligned
#include "core/portable/codes.h"
#endif

typedef uint8 piece;

#define FA_PIECE piece
#define FA_PIECE_NONE 0
#define FA_P0 s0
#define FA_P1 s1
#define FA_P2 s2
#define FA_P3 s3
#define FA_P4 s4
#define FA_P5 s5
#define FA_P6 s6
#define FA_P7 s7
#define FA_P01 s01
#define FA_P23 s23
#define FA_PIECE_TYPE type
#define FA_TYPE_GIVEN int type,
#define FA_OPERAND_GIVEN memory m,
#define FA_WORD_AT(at) *(__global const uint *)memory_at(m, at) /* no chunk ends within it */
#define FA_PAIR_AT(at) *(__global const uint2 *)memory_at(m, at)
#include "core/portable/pieces.h"

/*
 * A whole block, or 32 elements of fp8, of which `count` exist: its words, with one behind them to be put together with the
 * last.
 */
#define FA_BLOCK_BYTES(type) (FA_TYPE_IS_FP8(type) ? 32 : FA_TYPE_SIZE(type))
#define FA_BLOCK_WORDS(type) (FA_BLOCK_BYTES(type) / 4 + (FA_IN_WORDS(type) ? 0 : 1))
#define FA_BLOCK_ROOM 10

static inline void block_fetch(int type, memory m, long block, int count, uint to[FA_BLOCK_ROOM])
{
    const int bytes = FA_TYPE_IS_FP8(type) ? FA_MIN(count, 32) : FA_TYPE_SIZE(type);
    const long first = FA_WORD_OF(block);
    FA_UNROLL
    for (int i = 0; i < FA_BLOCK_WORDS(type); i++) {
        if (!FA_IN_PAIRS(type)) {
            /* Behind the last 16 bits no word is touched. */
            to[i] = FA_WORD_AT(4 * i < FA_TYPE_SIZE(type) / 4 * 4 && !FA_TYPE_IS_FP8(type)
                                   ? first + 4 * i
                                   : FA_WORD_OF(block + FA_MIN(4 * i, bytes - 2)));
        } else if (i % 2 == 0) {
            const uint2 two = FA_PAIR_AT(block + FA_MIN(4 * i, bytes - 8));
            to[i] = two.x;
            to[i + 1] = two.y;
        }
    }
}

#define FA_CODED(type)                                                                                 \
    static inline raw FA_CAT(fetch4_, type)(memory m, long row, int d, int count)                      \
    {                                                                                                  \
        raw x = 0;                                                                                     \
        if (count > 0)                                                                                 \
            x = fa_piece_fetch(m, type, 4, row, d);                                                    \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float4 FA_CAT(widen_, type)(raw x)                                                   \
    {                                                                                                  \
        return fa_piece_four(type, 4, x, 0, fa_piece_scaling(type, x));                                \
    }                                                                                                  \
                                                                                                       \
    typedef piece FA_RAW8(type);                                                                       \
                                                                                                       \
    static inline FA_RAW8(type) FA_CAT(fetch8_, type)(memory m, long row, int d, int count)            \
    {                                                                                                  \
        piece x = 0;                                                                                   \
        if (count > 0)                                                                                 \
            x = fa_piece_fetch(m, type, 8, row, d);                                                    \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float8 FA_CAT(widen8_, type)(FA_RAW8(type) x)                                        \
    {                                                                                                  \
        const fa_block_scaling s = fa_piece_scaling(type, x);                                          \
        return (float8)(fa_piece_four(type, 8, x, 0, s), fa_piece_four(type, 8, x, 1, s));             \
    }

/* Of rows that are blocks, what is fetched are the bits of f32. Rows that keep some of their elements are in scaled.cl. */
#define FA_CODED_ROW(type)                                                                             \
    static inline float4 row_four(memory m, long row, int d)                                           \
    {                                                                                                  \
        const fa_four x = fa_row_four(type, coded_of(type, m), row, d, FA_MLA_DIMS, FA_MLA_BYTES);     \
        return (float4)(x.x[0], x.x[1], x.x[2], x.x[3]);                                               \
    }                                                                                                  \
                                                                                                       \
    static inline raw FA_CAT(fetch4_, type)(memory m, long row, int d, int count)                      \
    {                                                                                                  \
        raw x = 0;                                                                                     \
        if (count > 0)                                                                                 \
            x = FA_RAW_WORDS(as_uint4(row_four(m, row, d)));                                           \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float4 FA_CAT(widen_, type)(raw x)                                                   \
    {                                                                                                  \
        return as_float4(FA_WORDS(x));                                                                 \
    }                                                                                                  \
                                                                                                       \
    typedef uint8 FA_RAW8(type);                                                                       \
                                                                                                       \
    static inline FA_RAW8(type) FA_CAT(fetch8_, type)(memory m, long row, int d, int count)            \
    {                                                                                                  \
        uint8 x = 0;                                                                                   \
        if (count > 0)                                                                                 \
            x = as_uint8((float8)(row_four(m, row, d), row_four(m, row, d + 4)));                      \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float8 FA_CAT(widen8_, type)(FA_RAW8(type) x)                                        \
    {                                                                                                  \
        return as_float8(x);                                                                           \
    }

#if FA_TYPE_IS_MLA(FA_TYPE_K)
FA_CODED_ROW(FA_TYPE_K)
#elif FA_TYPE_IS_CODED(FA_TYPE_K) && !FA_TYPE_IS_ROW(FA_TYPE_K)
FA_CODED(FA_TYPE_K)
#endif
#if FA_TYPE_IS_CODED(FA_TYPE_V) && !FA_TYPE_IS_ROW(FA_TYPE_V) && FA_TYPE_V != FA_TYPE_K /* a row that is a block is k's too */
FA_CODED(FA_TYPE_V)
#endif
