/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats of caches. All elements of a fetch exist, or none: head dims are whole blocks. They stay codes until widened,
 * and so does what scales them. An element that does not exist is 0, and all bits set are NaN.
 */
#ifdef FA_ALIGNED
#define ALIGNED true
#else
#define ALIGNED false
#endif

/*
 * An operand, and whether its blocks lie at multiples of four bytes. A block may cross the end of a chunk, but no 16 bits
 * of it do.
 */
typedef struct coded {
    memory m;
    bool in_words;
} coded;

static inline uint bits16(coded c, long at)
{
    return *(__global const ushort *)memory_at(c.m, at);
}

static inline uint bits32(coded c, long at)
{
    return c.in_words ? *(__global const uint *)memory_at(c.m, at) : bits16(c, at) | bits16(c, at + 2) << 16;
}

static inline coded coded_of(int type, memory m)
{
    const coded c = {m, ALIGNED && FA_TYPE_SIZE(type) % 4 == 0};
    return c;
}

#define FA_CODES coded
#define FA_AT long
#define FA_BITS16 bits16
#define FA_BITS32 bits32
#include "core/portable/codes.h"

/* What scales a block, in f16: the scale, and above it the offset where there is one. */
static inline uint scaling_bits(int type, coded c, long block)
{
    return FA_TYPE_HAS_OFFSET(type) ? bits32(c, block) : FA_TYPE_IS_BARE(type) ? 0 : bits16(c, block);
}

static inline fa_scaling scaling_widened(uint bits)
{
    const float4 x = widen_halves((ushort4)(as_ushort2(bits), (ushort2)0));
    fa_scaling s;
    s.scale = x.x;
    s.offset = x.y;
    return s;
}

static inline float4 fp8_decoded(int type, uint codes)
{
    const uint2 bits = (uint2)(codes << 8, codes) & 0xff00ff00u; /* elements 0, 2, 1, 3 */
    const uint2 halves = (uint2)(fa_fp8_halves(type, bits.x), fa_fp8_halves(type, bits.y));
    return widen_halves(as_ushort4(halves).xzyw) * FA_FP8_FACTOR(type);
}

static inline float4 four_decoded(int type, uint codes, fa_scaling s)
{
    if (FA_TYPE_IS_FP8(type))
        return fp8_decoded(type, codes);
    return (float4)(fa_decoded(type, codes, 0, s), fa_decoded(type, codes, 1, s), fa_decoded(type, codes, 2, s),
                    fa_decoded(type, codes, 3, s));
}

/* The block of dim d of a row that lies at byte `row`, and the number of d in it. */
#define FA_BLOCK_AT(type, row, d) ((row) + FA_TYPE_SPAN(type, d))
#define FA_IN_BLOCK(type, d) ((d) & ((1 << FA_TYPE_BLOCK_SHIFT(type)) - 1))

#define FA_CODED(type)                                                                                 \
    static inline raw FA_CAT(fetch4_, type)(memory m, long row, int d, int count)                      \
    {                                                                                                  \
        const coded c = coded_of(type, m);                                                             \
        const long block = FA_BLOCK_AT(type, row, d);                                                  \
        raw x = 0;                                                                                     \
        if (count > 0) {                                                                               \
            x.x = fa_codes_of(type, c, block, FA_IN_BLOCK(type, d));                                   \
            x.y = scaling_bits(type, c, block);                                                        \
        }                                                                                              \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float4 FA_CAT(widen_, type)(raw x)                                                   \
    {                                                                                                  \
        return four_decoded(type, x.x, scaling_widened(x.y));                                          \
    }                                                                                                  \
                                                                                                       \
    typedef uint3 FA_RAW8(type);                                                                       \
                                                                                                       \
    static inline FA_RAW8(type) FA_CAT(fetch8_, type)(memory m, long row, int d, int count)            \
    {                                                                                                  \
        const coded c = coded_of(type, m);                                                             \
        const long block = FA_BLOCK_AT(type, row, d);                                                  \
        const int e = FA_IN_BLOCK(type, d);                                                            \
        FA_RAW8(type) x = 0;                                                                           \
        if (count > 0)                                                                                 \
            x = (uint3)(fa_codes_of(type, c, block, e), fa_codes_of(type, c, block, e + 4),            \
                        scaling_bits(type, c, block));                                                 \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    static inline float8 FA_CAT(widen8_, type)(FA_RAW8(type) x)                                        \
    {                                                                                                  \
        const fa_scaling s = scaling_widened(x.z);                                                     \
        return (float8)(four_decoded(type, x.x, s), four_decoded(type, x.y, s));                       \
    }

#if FA_TYPE_IS_CODED(FA_TYPE_K)
FA_CODED(FA_TYPE_K)
#endif
#if FA_TYPE_IS_CODED(FA_TYPE_V) && FA_TYPE_V != FA_TYPE_K
FA_CODED(FA_TYPE_V)
#endif
