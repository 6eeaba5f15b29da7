/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values in formats of caches as matrix.comp stages them: the numbers of eight codes, which f16 holds exactly.
 * They are fetched as they lie in memory and decoded when they are staged. Of each four elements the second and the third
 * change places, as codes are taken apart: rows of q and of the output are then in this order too.
 *
 * What scales a block of 32 is never rounded to f16. Of a value's scale the power of two multiplies the numbers, which is
 * exact, and the rest the weights before they are rounded: so it is between 1 and 2 where the scale is below 64 in
 * magnitude. Codes with an offset count from their middle, which the offset then has in it.
 */

/* The element that place n of a row in shared memory holds, and the other way round. */
int staged_order(int n)
{
    return n & ~3 | (n & 1) << 1 | (n >> 1 & 1);
}

/* Eight halves in this order. */
uvec4 staged_halves(uvec4 x)
{
    return uvec4(x.x & 0xffffu | x.y << 16, x.x >> 16 | x.y & 0xffff0000u, x.z & 0xffffu | x.w << 16,
                 x.z >> 16 | x.w & 0xffff0000u);
}

#define STAGED_CENTRE(type) (FA_TYPE_HAS_OFFSET(type) ? (FA_TYPE_CODE_BITS(type) == 4 ? 8.0 : 16.0) : 0.0)

#define POWER_ONE 0x3c00u

/* The power of two of a scale, as f16, and the rest; they multiply to the scale. That of 0 is one as good as any. */
uint scale_power(uint bits)
{
    return clamp(bits & 0x7c00u, 1u, 0x5000u);
}

float scale_rest(uint bits)
{
    const uint power = scale_power(bits);
    return unpackHalf2x16(bits).x * uintBitsToFloat(power == 1u ? 0x4b800000u : (142u - (power >> 10)) << 23);
}

/* A scale and an offset, as they are used. */
vec2 staged_scaling(int type, uint bits)
{
    const vec2 x = unpackHalf2x16(bits);
    return vec2(x.x, FA_TYPE_HAS_OFFSET(type) ? x.y + STAGED_CENTRE(type) * x.x : 0.0);
}

/* The numbers of four codes, a byte each, times a power of two. */
uvec2 staged_four(int type, uint codes, f16vec2 power)
{
    f16vec2 even, odd;
    if (FA_TYPE_IS_FP8(type)) {
        even = unpackFloat2x16(fa_fp8_halves(type, codes << 8 & 0xff00ff00u));
        odd = unpackFloat2x16(fa_fp8_halves(type, codes & 0xff00ff00u));
        if (type == FA_TYPE_E4M3) {
            even *= float16_t(FA_FP8_FACTOR(FA_TYPE_E4M3));
            odd *= float16_t(FA_FP8_FACTOR(FA_TYPE_E4M3));
        }
    } else {
        const uint bytes = fa_code_bytes(type, codes);
        const f16vec2 zero = float16_t(FA_BYTE_ZERO(type) + STAGED_CENTRE(type)) * power;
        even = unpackFloat2x16(FA_BYTE_HALVES(type, bytes)) * power - zero;
        odd = unpackFloat2x16(FA_BYTE_HALVES(type, bytes >> 8)) * power - zero;
    }
    return uvec2(packFloat2x16(even), packFloat2x16(odd));
}

#define FA_DEFINE_STAGED(name, slot, TYPE, SIZE)                                                       \
    /*                                                                                                 \
     * Of a block, the codes of elements e to e + 7 in the first three words and what scales it in the \
     * fourth. Behind them the word that an offset may end in, that of the fifth bits, and where in its \
     * word the block begins.                                                                          \
     */                                                                                                \
    raw8 name##_octet(address block, int e, int count)                                                 \
    {                                                                                                  \
        raw8 x = raw8(uvec4(0u), uvec4(0u));                                                           \
        if (count > 0) {                                                                               \
            const address codes = block + address(FA_CODES_AT(TYPE) + (name##_bits == 8 ? e : e & 15));\
            const address first = codes & ~address(3);                                                 \
            x.low.x = WORD1(slot, first);                                                              \
            x.low.y = WORD1(slot, first + address(4));                                                 \
            if (name##_in_words == 0)                                                                  \
                x.low.z = name##_word(codes + address(6));                                             \
            x.low.w = name##_word(block);                                                              \
            if (FA_TYPE_HAS_OFFSET(TYPE) && name##_in_words == 0)                                      \
                x.high.x = name##_word(block + address(2));                                            \
            if (name##_bits == 5)                                                                      \
                x.high.y = name##_word(block + address(FA_FIFTHS_AT(TYPE) + (e >> 4) * 2));            \
            x.high.w = uint(block) & 3u;                                                               \
        }                                                                                              \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    /* A block's scale, and above it its offset if it has one. */                                      \
    uint name##_octet_scaling(raw8 x)                                                                  \
    {                                                                                                  \
        const uint shift = name##_shift(x.high.w);                                                      \
        return FA_TYPE_HAS_OFFSET(TYPE) ? fa_joined(x.low.w, x.high.x, shift)                            \
                                        : x.low.w >> shift & 0xffffu;                                    \
    }                                                                                                  \
                                                                                                       \
    /* Eight codes as numbers times a power of two, which is 1 for fp8. */                             \
    uvec4 name##_octet_numbers(raw8 x, int e, uint power)                                              \
    {                                                                                                  \
        uint low = x.low.x, high = x.low.y;                                                            \
        if (!FA_TYPE_IS_FP8(TYPE)) {                                                                   \
            const uint shift = name##_shift(x.high.w + uint(FA_CODES_AT(TYPE)));                        \
            low = fa_joined(x.low.x, x.low.y, shift);                                                    \
            high = fa_joined(x.low.y, x.low.z, shift);                                                   \
        }                                                                                              \
        if (name##_bits != 8) {                                                                        \
            low >>= uint(e & 16) / 4u;                                                                 \
            high >>= uint(e & 16) / 4u;                                                                \
        }                                                                                              \
        if (name##_bits == 5) {                                                                        \
            const uint at = x.high.w + uint(FA_FIFTHS_AT(TYPE)) + uint(e >> 4) * 2u;                   \
            const uint fifths = x.high.y >> (at & 2u) * 8u >> uint(e & 8);                             \
            low = low & 0x0f0f0f0fu | fa_fifths(fifths);                                               \
            high = high & 0x0f0f0f0fu | fa_fifths(fifths >> 4);                                        \
        }                                                                                              \
        const f16vec2 powers = unpackFloat2x16(power * 0x10001u);                                      \
        return uvec4(staged_four(TYPE, low, powers), staged_four(TYPE, high, powers));                 \
    }

FA_DEFINE_STAGED(k, 2, TYPE_K, SIZE_K)
FA_DEFINE_STAGED(v, 3, TYPE_V, SIZE_V)
