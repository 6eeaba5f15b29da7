/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values of any type, for kernels that compute in f32. Plain ones are memory.glsl's. Of a block, which
 * core/portable/codes.h describes, a fetch has codes in x and y, a byte for each element, and scaling in z: two halves,
 * the upper one is the offset. They are decoded when they are used.
 *
 * With ALIGNED an operand in blocks begins at a multiple of 16 bytes. Each block then lies at a multiple of 4 or 8
 * bytes where its size is one.
 */

/* The fifth bits of eight codes, a byte apart. */
uvec2 fifths_of(uint bits)
{
    return ((uvec2(bits, bits >> 4) & 15u) * 0x00204081u & 0x01010101u) << 4;
}

#define FA_DEFINE_CODED(name, slot, TYPE, SIZE, SHIFT)                                                 \
    /* Where the codes of a block begin, and which bits of an element's number tell its byte there. */ \
    const int name##_bits = FA_TYPE_CODE_BITS(TYPE);                                                   \
    const int name##_codes = FA_TYPE_IS_FP8(TYPE) ? 0 : name##_bits == 8 ? 2 : SIZE - 16;              \
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
            x.xy |= fifths_of(WORD1(slot, p & ~address(3)) >> (uint(p & address(3)) * 8u + uint(e & 4)));\
        }                                                                                              \
        if (FA_TYPE_HAS_OFFSET(TYPE))                                                                  \
            x.z = name##_load(block);                                                                  \
        else if (!FA_TYPE_IS_FP8(TYPE))                                                                \
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

/* Two bytes of fp8, each the upper one of 16 bits. E4M3 becomes f16, 256 times too small, and NaN is told apart. */
vec2 decode_fp8(int type, uint bits)
{
    vec2 x;
    if (type == FA_TYPE_E5M2) {
        x = unpackHalf2x16(bits);
    } else {
        const uint magnitude = (bits & 0x7f007f00u) >> 1, nan = magnitude + 0x00800080u & 0x40004000u;
        x = unpackHalf2x16(bits & 0x80008000u | magnitude | nan) * 256.0;
    }
    return x;
}

/* Four elements. Those of ggml's blocks are scale * n + offset, where the product is exact. */
vec4 decode4(int type, uint codes, uint scaling)
{
    vec4 x;
    if (FA_TYPE_IS_FP8(type)) {
        const vec2 even = decode_fp8(type, codes << 8 & 0xff00ff00u), odd = decode_fp8(type, codes & 0xff00ff00u);
        x = vec4(even.x, odd.x, even.y, odd.y);
    } else {
        const uvec4 code = (uvec4(codes) >> uvec4(0u, 8u, 16u, 24u)) & 255u;
        const vec2 s = unpackHalf2x16(scaling);
        if (type == FA_TYPE_IQ4_NL)
            x = vec4(fa_iq4_nl_number(code.x), fa_iq4_nl_number(code.y), fa_iq4_nl_number(code.z),
                     fa_iq4_nl_number(code.w));
        else if (type == FA_TYPE_Q8_0)
            x = vec4(code ^ 128u) - 128.0;
        else
            x = vec4(code) - float(FA_TYPE_CENTRE(type));
        x = s.x * x;
        if (FA_TYPE_HAS_OFFSET(type))
            x += s.y;
    }
    return x;
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
