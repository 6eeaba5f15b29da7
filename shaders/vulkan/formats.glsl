/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values of any type, for kernels that compute in f32. Plain ones are memory.glsl's. Of blocks, which
 * core/portable/codes.h describes, tile.comp fetches four codes at a time, a byte each. rows.comp keeps words of memory
 * as they lie there and so waits for none: what begins at an even byte is put together from two of them when it is used.
 *
 * With ALIGNED an operand in blocks begins at a multiple of 16 bytes. Each block then lies at a multiple of 4 or 8
 * bytes where its size is one.
 */

#include "core/portable/decode.h"
/* The words of its rows: slot 2 or 3. */
#define FA_CODES int
#define FA_AT address
#define FA_BITS32_ALIGNED(slot, p) ((slot) == 2 ? WORD1(2, p) : WORD1(3, p))
#define FA_BITS16(slot, p) (FA_BITS32_ALIGNED(slot, (p) & ~address(3)) >> uint((p) & address(2)) * 8u & 0xffffu)
#include "core/portable/bitmap.h"
#undef FA_BITS16

/* Formats that are codes alone have no blocks to speak of. */
const bool BLOCKS_K = TYPE_K >= FA_TYPE_Q8_0 ? TYPE_K <= FA_TYPE_IQ4_NL : false;
const bool BLOCKS_V = TYPE_V >= FA_TYPE_Q8_0 ? TYPE_V <= FA_TYPE_IQ4_NL : false;

/* Where the codes of a block begin. */
#define CODES_AT(type, size) (FA_TYPE_IS_BARE(type) ? 0 : FA_TYPE_CODE_BITS(type) == 8 ? 2 : (size) - 16)

/* 32 bits of two words that follow each other: the lower ones, or those in the middle if `odd`. */
uint joined(uint low, uint high, bool odd)
{
    return odd ? low >> 16 | high << 16 : low;
}

/* A scale, and above it the offset where there is one, as they are used. */
struct scaling {
    float scale, zero, offset;
};

scaling scaling_of(int type, uint bits)
{
    const vec2 x = unpackHalf2x16(bits);
    return scaling(x.x, -FA_BYTE_ZERO(type) * x.x, x.y);
}

vec2 decode_fp8(int type, uint bits)
{
    return unpackHalf2x16(fa_fp8_halves(type, bits)) * FA_FP8_FACTOR(type);
}

/* Four codes as numbers. */
vec4 four_decoded(int type, uint codes, scaling s)
{
    vec2 even, odd;
    if (FA_TYPE_IS_FP8(type)) {
        even = decode_fp8(type, codes << 8 & 0xff00ff00u);
        odd = decode_fp8(type, codes & 0xff00ff00u);
    } else {
        const uint bytes = fa_code_bytes(type, codes);
        const float offset = FA_TYPE_HAS_OFFSET(type) ? s.offset : 0.0;
        even = unpackHalf2x16(FA_BYTE_HALVES(type, bytes)) * s.scale + s.zero + offset;
        odd = unpackHalf2x16(FA_BYTE_HALVES(type, bytes >> 8)) * s.scale + s.zero + offset;
    }
    return vec4(even.x, odd.x, even.y, odd.y);
}

#define FA_DEFINE_CODED(name, slot, TYPE, SIZE, SHIFT, DIM)                                            \
    const int name##_bits = FA_TYPE_CODE_BITS(TYPE);                                                   \
    const int name##_in_words = ALIGNED == 0 ? 0 : SIZE % 4 == 0 ? 1 : 0;                              \
                                                                                                       \
    bool name##_is_odd(uint at)                                                                        \
    {                                                                                                  \
        return name##_in_words == 0 && (at & 2u) != 0u;                                                    \
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
            bits = joined(bits, name##_word(p + address(2)), name##_is_odd(uint(p)));                  \
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
            x.x = name##_load(block + address(CODES_AT(TYPE, SIZE) + (name##_bits == 8 ? e : e & 15)));\
            if (name##_bits != 8)                                                                      \
                x.x = x.x >> uint((e & 16) / 4) & 0x0f0f0f0fu;                                         \
            if (name##_bits == 5)                                                                      \
                x.x |= fa_fifths(name##_load(block + address(SIZE - 20)) >> e);                        \
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
           : FA_TYPE_IS_CODED(type) ? four_decoded(type, x.x, scaling_of(type, x.z))
                                    : widen4(type, x);
}

/* Of eight that are not of ggml's blocks, the first four and the last. */
vec4 low_numbers(int type, raw8 x)
{
    return FA_TYPE_IS_ROW(type)     ? uintBitsToFloat(x.low)
           : FA_TYPE_IS_CODED(type) ? four_decoded(type, x.low.x, scaling(1.0, 0.0, 0.0))
                                    : low4(type, x);
}

vec4 high_numbers(int type, raw8 x)
{
    return FA_TYPE_IS_ROW(type)     ? uintBitsToFloat(x.high)
           : FA_TYPE_IS_CODED(type) ? four_decoded(type, x.low.y, scaling(1.0, 0.0, 0.0))
                                    : high4(type, x);
}
