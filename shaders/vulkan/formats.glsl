/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values of any type, for kernels that compute in f32. Plain ones are memory.glsl's. Of blocks, which
 * core/portable/codes.h describes, tile.comp fetches four codes at a time, a byte each. rows.comp keeps words of memory
 * as they lie there and so waits for none: what begins at an even byte is put together from two of them when it is used.
 *
 * With ALIGNED an operand in blocks begins at a multiple of 16 bytes. Each block then lies at a multiple of 4 or 8
 * bytes where its size is one.
 */

#define FA_WIDEN_PAIRS(even, odd) vec4(unpackHalf2x16(even), unpackHalf2x16(odd)).xzyw
#ifdef FA_ADDRESS /* where there are integers of 64 bits */
#define FA_SHIFTED(low, high, n) uint(packUint2x32(uvec2(low, high)) >> (n))
#endif
#define FA_SCALED4(x, scale, offset) fma(x, vec4(scale), vec4(offset))
#include "core/portable/blocks.h"
/* The words of its rows: slot 2 or 3. */
#define FA_CODES int
#define FA_BITS32_ALIGNED(slot, p) ((slot) == 2 ? WORD1(2, p) : WORD1(3, p))
#define FA_BITS16(slot, p) (FA_BITS32_ALIGNED(slot, (p) & ~address(3)) >> uint((p) & address(2)) * 8u & 0xffffu)
#include "core/portable/bitmap.h"
#undef FA_BITS16

/* Formats that are codes alone have no blocks to speak of. */
const bool BLOCKS_K = TYPE_K >= FA_TYPE_Q8_0 ? TYPE_K <= FA_TYPE_IQ4_NL : false;
const bool BLOCKS_V = TYPE_V >= FA_TYPE_Q8_0 ? TYPE_V <= FA_TYPE_IQ4_NL : false;

#define FA_DEFINE_CODED(name, slot, TYPE, SIZE, SHIFT, DIM)                                            \
    const int name##_bits = FA_TYPE_CODE_BITS(TYPE);                                                   \
    const int name##_in_words = ALIGNED == 0 ? 0 : SIZE % 4 == 0 ? 1 : 0;                              \
                                                                                                       \
    uint name##_shift(uint at)                                                                         \
    {                                                                                                  \
        return name##_in_words == 0 ? (at & 2u) * 8u : 0u;                                             \
    }                                                                                                  \
                                                                                                       \
    /* The word that holds the 16 bits at an even byte; the 32 bits there. */                          \
    uint name##_word(address p)                                                                        \
    {                                                                                                  \
        return WORD1(slot, p & ~address(3));                                                           \
    }                                                                                                  \
                                                                                                       \
    uint name##_load(address p)                                                                        \
    {                                                                                                  \
        uint bits = name##_word(p);                                                                    \
        if (name##_in_words == 0)                                                                          \
            bits = fa_joined(bits, name##_word(p + address(2)), name##_shift(uint(p)));               \
        return bits;                                                                                   \
    }                                                                                                  \
                                                                                                       \
    /* Four elements of a row that is no sequence of blocks: the bits of their numbers. */             \
    uvec4 name##_mla4(address row, int d)                                                              \
    {                                                                                                  \
        const address p = row + address(fa_mla_byte(d));                                               \
        uint high = 0u;                                                                                \
        if (d >= FA_MLA_LATENT)                                                                        \
            high = name##_load(p + address(4));                                                        \
        const fa_four x =                                                                              \
            fa_mla_four(d, name##_load(p), high,                                                       \
                        uintBitsToFloat(name##_load(row + address(fa_mla_scale_byte(d)))));            \
        return floatBitsToUint(vec4(x.x[0], x.x[1], x.x[2], x.x[3]));                                  \
    }                                                                                                  \
                                                                                                       \
    uvec4 name##_row4(address row, int d)                                                              \
    {                                                                                                  \
        uvec4 bits;                                                                                    \
        if (FA_TYPE_PRUNES(TYPE)) {                                                                    \
            const fa_four x = fa_bitmap_four(slot, row, d, PARAMS.DIM, PARAMS.name##_scales.row_bytes);\
            bits = floatBitsToUint(vec4(x.x[0], x.x[1], x.x[2], x.x[3]));                              \
        } else {                                                                                       \
            bits = name##_mla4(row, d);                                                                \
        }                                                                                              \
        return bits;                                                                                   \
    }                                                                                                  \
                                                                                                       \
    /* Four elements of a row from d on, of which `count` exist; the others are 0. In blocks all do, or none. */\
    uvec4 name##4(address row, int d, int count)                                                       \
    {                                                                                                  \
        uvec4 x = uvec4(0u);                                                                           \
        if (!FA_TYPE_IS_CODED(TYPE)) {                                                                 \
            x = fetch_##name##4(TYPE, row + address(d * bytes_of(TYPE)), count);                       \
        } else if (FA_TYPE_IS_ROW(TYPE)) {                                                             \
            if (count > 0)                                                                             \
                x = name##_row4(row, d);                                                               \
        } else if (count > 0) {                                                                        \
            const int e = d & (1 << SHIFT) - 1;                                                        \
            const address block = row + address((d >> SHIFT) * SIZE);                                  \
            x.x = name##_load(block + address(FA_CODES_AT(TYPE) + (name##_bits == 8 ? e : e & 15)));   \
            if (name##_bits != 8)                                                                      \
                x.x = x.x >> uint((e & 16) / 4) & 0x0f0f0f0fu;                                         \
            if (name##_bits == 5)                                                                      \
                x.x |= fa_fifths(name##_load(block + address(FA_FIFTHS_AT(TYPE))) >> e);               \
            if (FA_TYPE_HAS_OFFSET(TYPE))                                                              \
                x.z = name##_load(block);                                                              \
            else if (!FA_TYPE_IS_FP8(TYPE))                                                            \
                x.z = FA_BITS(slot, 1, block);                                                         \
        }                                                                                              \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    /* Eight, but not of ggml's blocks. Codes of fp8 are in x and y. */                                \
    raw8 name##8(address row, int d, int count)                                                        \
    {                                                                                                  \
        raw8 x = raw8(uvec4(0u), uvec4(0u));                                                           \
        if (!FA_TYPE_IS_CODED(TYPE))                                                                   \
            x = fetch_##name##8(TYPE, row + address(d * bytes_of(TYPE)), count);                       \
        else if (count > 0 && FA_TYPE_IS_ROW(TYPE))                                                    \
            x = raw8(name##_row4(row, d), name##_row4(row, d + 4));                                    \
        else if (count > 0 && ALIGNED != 0)                                                            \
            x.low.xy = WORD2(slot, row + address(d));                                                  \
        else if (count > 0)                                                                            \
            x.low.xy = uvec2(name##_load(row + address(d)), name##_load(row + address(d + 4)));        \
        return x;                                                                                      \
    }

FA_DEFINE_CODED(k, 2, TYPE_K, SIZE_K, SHIFT_K, dim_qk)
FA_DEFINE_CODED(v, 3, TYPE_V, SIZE_V, SHIFT_V, dim_v)

/* Four elements, as numbers. */
vec4 numbers4(int type, uvec4 x)
{
    return FA_TYPE_IS_ROW(type)     ? uintBitsToFloat(x)
           : FA_TYPE_IS_CODED(type) ? fa_four_decoded(type, x.x, fa_block_scaling_of(x.z))
                                    : widen4(type, x);
}

/* Of eight that are not of ggml's blocks, the first four and the last. */
vec4 low_numbers(int type, raw8 x)
{
    return FA_TYPE_IS_ROW(type)     ? uintBitsToFloat(x.low)
           : FA_TYPE_IS_CODED(type) ? fa_four_decoded(type, x.low.x, fa_block_scaling(1.0, 0.0))
                                    : low4(type, x);
}

vec4 high_numbers(int type, raw8 x)
{
    return FA_TYPE_IS_ROW(type)     ? uintBitsToFloat(x.high)
           : FA_TYPE_IS_CODED(type) ? fa_four_decoded(type, x.low.y, fa_block_scaling(1.0, 0.0))
                                    : high4(type, x);
}
