/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values of any type, for kernels that compute in f32. Plain ones are memory.glsl's. Of a block, which
 * core/portable/codes.h describes, a fetch has codes in x and y, a byte for each element, and scaling in z: two halves,
 * the upper one is the offset. They are decoded when they are used.
 *
 * With ALIGNED an operand in blocks begins at a multiple of 16 bytes. Each block then lies at a multiple of 4 or 8
 * bytes where its size is one.
 */

#include "core/portable/decode.h"

#define FA_DEFINE_CODED(name, slot, TYPE, SIZE, SHIFT)                                                 \
    /* Where the codes of a block begin, and which bits of an element's number tell its byte there. */ \
    const int name##_bits = FA_TYPE_CODE_BITS(TYPE);                                                   \
    const int name##_codes = FA_TYPE_IS_BARE(TYPE) ? 0 : name##_bits == 8 ? 2 : SIZE - 16;              \
    const int name##_byte = name##_bits == 8 ? 31 : 15;                                                \
                                                                                                       \
    /* 32 and 64 bits at an even byte. */                                                              \
    uint name##_load(address p)                                                                        \
    {                                                                                                  \
        uint bits = WORD1(slot, p & ~address(3));                                                      \
        if (ALIGNED == 0 || SIZE % 4 != 0) {                                                           \
            const uint next = WORD1(slot, p + address(2) & ~address(3));                               \
            bits = (p & address(2)) != 0 ? bits >> 16 | next << 16 : bits;                             \
        }                                                                                              \
        return bits;                                                                                   \
    }                                                                                                  \
                                                                                                       \
    uvec2 name##_load2(address p)                                                                      \
    {                                                                                                  \
        uvec2 bits;                                                                                    \
        if (ALIGNED != 0 && SIZE % 8 == 0) {                                                           \
            bits = WORD2(slot, p);                                                                     \
        } else {                                                                                       \
            const address first = p & ~address(3);                                                     \
            const uvec2 low = uvec2(WORD1(slot, first), WORD1(slot, first + address(4)));              \
            const uint next = WORD1(slot, p + address(6) & ~address(3));                               \
            bits = (p & address(2)) != 0 ? low >> 16 | uvec2(low.y, next) << 16 : low;                 \
        }                                                                                              \
        return bits;                                                                                   \
    }                                                                                                  \
                                                                                                       \
    /* Of element e of a block and those behind it: codes, from the bytes that hold them, and scaling. */\
    uvec4 name##_unpack(uvec2 bytes, address block, int e)                                             \
    {                                                                                                  \
        uvec4 x = uvec4(bytes, 0u, 0u);                                                                \
        if (name##_bits != 8)                                                                          \
            x.xy = bytes >> uint((e & 16) / 4) & 0x0f0f0f0fu;                                          \
        if (name##_bits == 5) {                                                                        \
            const address p = block + address(SIZE - 20 + e / 8);                                      \
            const uint fifth = WORD1(slot, p & ~address(3)) >> (uint(p & address(3)) * 8u + uint(e & 4));\
            x.xy |= uvec2(fa_fifths(fifth), fa_fifths(fifth >> 4));                                    \
        }                                                                                              \
        if (FA_TYPE_HAS_OFFSET(TYPE))                                                                  \
            x.z = name##_load(block);                                                                  \
        else if (!FA_TYPE_IS_BARE(TYPE))                                                               \
            x.z = FA_BITS(slot, 1, block);                                                             \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    /* Elements of a row from d on, of which `count` exist; the others are 0. In blocks all do, or none. */\
    uvec4 name##4(address row, int d, int count)                                                       \
    {                                                                                                  \
        uvec4 x = uvec4(0u);                                                                           \
        if (!FA_TYPE_IS_CODED(TYPE)) {                                                                 \
            x = fetch_##name##4(TYPE, row + address(d * bytes_of(TYPE)), count);                       \
        } else if (count > 0) {                                                                        \
            const int e = d & (1 << SHIFT) - 1;                                                        \
            const address block = row + address((d >> SHIFT) * SIZE);                                  \
            const uint bytes = name##_load(block + address(name##_codes + (e & name##_byte)));         \
            x = name##_unpack(uvec2(bytes, 0u), block, e);                                             \
        }                                                                                              \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    raw8 name##8(address row, int d, int count)                                                        \
    {                                                                                                  \
        raw8 x = raw8(uvec4(0u), uvec4(0u));                                                           \
        if (!FA_TYPE_IS_CODED(TYPE)) {                                                                 \
            x = fetch_##name##8(TYPE, row + address(d * bytes_of(TYPE)), count);                       \
        } else if (count > 0) {                                                                        \
            const int e = d & (1 << SHIFT) - 1;                                                        \
            const address block = row + address((d >> SHIFT) * SIZE);                                  \
            const uvec2 bytes = name##_load2(block + address(name##_codes + (e & name##_byte)));       \
            x.low = name##_unpack(bytes, block, e);                                                    \
        }                                                                                              \
        return x;                                                                                      \
    }

FA_DEFINE_CODED(k, 2, TYPE_K, SIZE_K, SHIFT_K)
FA_DEFINE_CODED(v, 3, TYPE_V, SIZE_V, SHIFT_V)

vec2 decode_fp8(int type, uint bits)
{
    return unpackHalf2x16(fa_fp8_halves(type, bits)) * FA_FP8_FACTOR(type);
}

/* Four elements. */
vec4 decode4(int type, uint codes, uint scaling)
{
    if (FA_TYPE_IS_FP8(type)) {
        const vec2 even = decode_fp8(type, codes << 8 & 0xff00ff00u), odd = decode_fp8(type, codes & 0xff00ff00u);
        return vec4(even.x, odd.x, even.y, odd.y);
    }
    const vec2 widened = unpackHalf2x16(scaling);
    fa_scaling s;
    s.scale = widened.x;
    s.offset = widened.y;
    return vec4(fa_decoded(type, codes, 0, s), fa_decoded(type, codes, 1, s), fa_decoded(type, codes, 2, s),
                fa_decoded(type, codes, 3, s));
}

/* What was fetched, as numbers: four elements; of eight, the first four and the last. */
vec4 numbers4(int type, uvec4 x)
{
    return FA_TYPE_IS_CODED(type) ? decode4(type, x.x, x.z) : widen4(type, x);
}

vec4 low_numbers(int type, raw8 x)
{
    return FA_TYPE_IS_CODED(type) ? decode4(type, x.low.x, x.low.z) : low4(type, x);
}

vec4 high_numbers(int type, raw8 x)
{
    return FA_TYPE_IS_CODED(type) ? decode4(type, x.low.y, x.low.z) : high4(type, x);
}
