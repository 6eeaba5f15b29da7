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

#include "core/portable/decode.h"

/* Whether blocks lie at multiples of four bytes, or of eight. */
#define FA_IN_WORDS(type) (ALIGNED && FA_TYPE_SIZE(type) % 4 == 0)
#define FA_IN_PAIRS(type) (ALIGNED && FA_TYPE_SIZE(type) % 8 == 0)
/* Whether what begins at byte `at`, which is even, begins in the middle of a word. */
#define FA_IS_ODD(type, at) (!FA_IN_WORDS(type) && ((at) & 2) != 0)
/* Where the codes of a block begin, and their fifth bits. */
#define FA_CODES_AT(type) \
    (FA_TYPE_IS_FP8(type) ? 0 : FA_TYPE_CODE_BITS(type) == 8 ? 2 : FA_TYPE_SIZE(type) - 16)
#define FA_FIFTHS_AT(type) (FA_TYPE_SIZE(type) - 20)
/* The block of dim d of a row that lies at byte `row`, and the number of d in it. */
#define FA_BLOCK_AT(type, row, d) ((row) + FA_TYPE_SPAN(type, d))
#define FA_IN_BLOCK(type, d) ((d) & ((1 << FA_TYPE_BLOCK_SHIFT(type)) - 1)) /* of no row that is a block */

/* The word that holds the 16 bits at byte `at`. No chunk ends within it. */
static inline uint word_at(memory m, long at)
{
    return *(__global const uint *)memory_at(m, at & ~3l);
}

/* 32 bits of two words that follow each other: the lower ones, or those in the middle if `odd`. */
static inline uint joined(uint low, uint high, bool odd)
{
    return odd ? low >> 16 | high << 16 : low;
}

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

/* A scale, and above it the offset where there is one, as they are used. */
typedef struct scaling {
    float scale, zero, offset;
} scaling;

static inline scaling scaling_of(int type, uint bits)
{
    const float4 x = widen_halves((ushort4)(as_ushort2(bits), (ushort2)0));
    const scaling s = {x.x, -FA_BYTE_ZERO(type) * x.x, x.y};
    return s;
}

/* Two words of two halves each: of elements 0 and 2, of 1 and 3. */
static inline float4 widen_pairs(uint even, uint odd)
{
    return widen_halves(as_ushort4((uint2)(even, odd)).xzyw);
}

/* Four codes as numbers. */
static inline float4 four_decoded(int type, uint codes, scaling s)
{
    if (FA_TYPE_IS_FP8(type))
        return widen_pairs(fa_fp8_halves(type, codes << 8 & 0xff00ff00u), fa_fp8_halves(type, codes & 0xff00ff00u)) *
               FA_FP8_FACTOR(type);
    const uint bytes = fa_code_bytes(type, codes);
    const float4 x = widen_pairs(FA_BYTE_HALVES(type, bytes), FA_BYTE_HALVES(type, bytes >> 8)) * s.scale + s.zero;
    return FA_TYPE_HAS_OFFSET(type) ? x + s.offset : x;
}

/*
 * A piece of a block: 4 elements or 8 from d on; or 16, which are 8 from d on, and 8 behind them or, of codes that share
 * bytes, 16 further. The first words hold the codes, 3 and 4 their fifth bits, 5 and 6 what scales them. The last one says
 * where in its word the block begins, and above that, which of its elements is the first.
 */
typedef uint8 piece;

static inline uint piece_word(piece x, int n)
{
    return n < 4 ? (n < 2 ? (n == 0 ? x.s0 : x.s1) : (n == 2 ? x.s2 : x.s3)) : (n == 4 ? x.s4 : x.s5);
}

static inline piece piece_fetch(int type, int elements, memory m, long row, int d)
{
    const bool bytes = FA_TYPE_CODE_BITS(type) == 8;
    const long block = FA_BLOCK_AT(type, row, d);
    const int e = FA_IN_BLOCK(type, d), words = bytes || elements < 16 ? elements / 4 : 2;
    const long codes = block + FA_CODES_AT(type) + (bytes ? e : e & 15), first = codes & ~3l;
    piece x = 0;
    if (FA_IN_PAIRS(type) && words > 1) {
        x.s01 = *(__global const uint2 *)memory_at(m, codes);
        if (words == 4)
            x.s23 = *(__global const uint2 *)memory_at(m, codes + 8);
    } else {
        x.s0 = word_at(m, first);
        if (words > 1)
            x.s1 = word_at(m, first + 4);
        if (words > 2) {
            x.s2 = word_at(m, first + 8);
            x.s3 = word_at(m, first + 12);
        }
        if (FA_IS_ODD(type, codes)) { /* one word more, which no even one may touch */
            const uint more = word_at(m, first + 4 * words);
            if (words == 1)
                x.s1 = more;
            else if (words == 2)
                x.s2 = more;
            else
                x.s4 = more;
        }
    }
    if (FA_TYPE_CODE_BITS(type) == 5) {
        x.s3 = word_at(m, block + FA_FIFTHS_AT(type));
        if (!FA_IN_WORDS(type))
            x.s4 = word_at(m, block + FA_FIFTHS_AT(type) + 2);
    }
    if (!FA_TYPE_IS_FP8(type))
        x.s5 = word_at(m, block);
    if (FA_TYPE_HAS_OFFSET(type)) {
        if (!FA_IN_WORDS(type))
            x.s6 = word_at(m, block + 2);
    }
    x.s7 = (block & 3) | e << 2;
    return x;
}

static inline scaling piece_scaling(int type, piece x)
{
    const bool odd = FA_IS_ODD(type, x.s7);
    return scaling_of(type, FA_TYPE_HAS_OFFSET(type) ? joined(x.s5, x.s6, odd) : odd ? x.s5 >> 16 : x.s5);
}

/* Four of its elements. */
static inline float4 piece_four(int type, int elements, piece x, int i, scaling s)
{
    const bool halves = elements == 16 && FA_TYPE_CODE_BITS(type) != 8; /* of bytes: first the lower, then the upper */
    const int n = halves ? i & 1 : i, e = halves ? (int)(x.s7 >> 2) + i / 2 * 16 : (int)(x.s7 >> 2);
    uint codes = joined(piece_word(x, n), piece_word(x, n + 1), FA_IS_ODD(type, x.s7 + FA_CODES_AT(type)));
    if (FA_TYPE_CODE_BITS(type) != 8)
        codes >>= (e & 16) / 4;
    if (FA_TYPE_CODE_BITS(type) == 5)
        codes = (codes & 0x0f0f0f0f) | fa_fifths(joined(x.s3, x.s4, FA_IS_ODD(type, x.s7 + FA_FIFTHS_AT(type))) >> (e + 4 * n));
    return four_decoded(type, codes, s);
}

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
    const long first = block & ~3l;
    FA_UNROLL
    for (int i = 0; i < FA_BLOCK_WORDS(type); i++) {
        if (!FA_IN_PAIRS(type)) {
            /* Behind the last 16 bits no word is touched. */
            to[i] = word_at(m, 4 * i < FA_TYPE_SIZE(type) / 4 * 4 && !FA_TYPE_IS_FP8(type)
                                   ? first + 4 * i
                                   : block + FA_MIN(4 * i, bytes - 2));
        } else if (i % 2 == 0) {
            const uint2 two = *(__global const uint2 *)memory_at(m, block + FA_MIN(4 * i, bytes - 8));
            to[i] = two.x;
            to[i + 1] = two.y;
        }
    }
}

/* 32 bits of a block from an even byte of it on; `odd` is whether the block begins in the middle of a word. */
static inline uint block_bits(const uint block[FA_BLOCK_ROOM], int byte, bool odd)
{
    const int n = byte / 4;
    return byte % 4 == 0 ? joined(block[n], block[n + 1], odd) : odd ? block[n + 1] : joined(block[n], block[n + 1], true);
}

static inline scaling block_scaling(int type, const uint block[FA_BLOCK_ROOM], bool odd)
{
    return scaling_of(type, block_bits(block, 0, odd));
}

/* Elements 4 i to 4 i + 3. */
static inline float4 block_four(int type, const uint block[FA_BLOCK_ROOM], int i, bool odd, scaling s)
{
    uint codes = block_bits(block, FA_CODES_AT(type) + 4 * (FA_TYPE_CODE_BITS(type) == 8 ? i : i & 3), odd);
    if (FA_TYPE_CODE_BITS(type) != 8)
        codes >>= i & 4;
    if (FA_TYPE_CODE_BITS(type) == 5)
        codes = (codes & 0x0f0f0f0f) | fa_fifths(block_bits(block, FA_FIFTHS_AT(type), odd) >> 4 * i);
    return four_decoded(type, codes, s);
}

#define FA_CODED(type)                                                                                 \
    static inline raw FA_CAT(fetch4_, type)(memory m, long row, int d, int count)                      \
    {                                                                                                  \
        raw x = 0;                                                                                     \
        if (count > 0)                                                                                 \
            x = piece_fetch(type, 4, m, row, d);                                                       \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float4 FA_CAT(widen_, type)(raw x)                                                   \
    {                                                                                                  \
        return piece_four(type, 4, x, 0, piece_scaling(type, x));                                      \
    }                                                                                                  \
                                                                                                       \
    typedef piece FA_RAW8(type);                                                                       \
                                                                                                       \
    static inline FA_RAW8(type) FA_CAT(fetch8_, type)(memory m, long row, int d, int count)            \
    {                                                                                                  \
        piece x = 0;                                                                                   \
        if (count > 0)                                                                                 \
            x = piece_fetch(type, 8, m, row, d);                                                       \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float8 FA_CAT(widen8_, type)(FA_RAW8(type) x)                                        \
    {                                                                                                  \
        const scaling s = piece_scaling(type, x);                                                      \
        return (float8)(piece_four(type, 8, x, 0, s), piece_four(type, 8, x, 1, s));                   \
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
