/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands in memory. With FA_ADDRESS they are reached by address, else through descriptors; either way an element
 * is told by its operand's slot and an address in bytes, which counts from at(slot) on. Memory is read and written in
 * words of 32 bits, so that no device needs more for f16, bf16 and bytes.
 *
 * With ALIGNED all rows lie at multiples of 16 bytes and head dims are multiples of eight: then four or eight elements
 * are read and written at once. Of keys and values in blocks (formats.glsl) only the first row does.
 */
#extension GL_EXT_control_flow_attributes : require
#ifdef FA_HALVES /* words of 16 bits can be stored */
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
#endif

#include "address.glsl"
#include "core/portable/format.h"
#include "core/portable/table.h"
#include "core/portable/walk.h"

layout(constant_id = FA_VK_TYPE_Q) const int TYPE_Q = 0;
layout(constant_id = FA_VK_TYPE_K) const int TYPE_K = 0;
layout(constant_id = FA_VK_TYPE_V) const int TYPE_V = 0;
layout(constant_id = FA_VK_TYPE_O) const int TYPE_O = 0;
layout(constant_id = FA_VK_ALIGNED) const int ALIGNED = 0;

#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))

#ifdef FA_ADDRESS
layout(buffer_reference, std430, buffer_reference_align = 4) buffer words1 { uint w[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer words2 { uvec2 w; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer words4 { uvec4 w; };

#ifdef FA_HALVES
layout(buffer_reference, std430, buffer_reference_align = 2) buffer halves1 { uint16_t w; };
#define HALF(slot, p) halves1(uint64_t(p)).w
#endif
#define FA_TABLE_VIEW(type)                                                                            \
    layout(buffer_reference, std430, buffer_reference_align = 8) buffer view_##type { type entry[]; };
#define TABLE(type) view_##type(uint64_t(at(FA_VK_SLOT_TABLE))).entry
#define WORD1(slot, p) words1(uint64_t(p)).w[0]
#define WORD2(slot, p) words2(uint64_t(p)).w
#define WORD4(slot, p) words4(uint64_t(p)).w
#else
#define FA_OPERAND(slot)                                                                               \
    layout(set = 0, binding = slot, std430) buffer one_##slot { uint w[]; } m1_##slot;                 \
    layout(set = 0, binding = slot, std430) buffer two_##slot { uvec2 w[]; } m2_##slot;                \
    layout(set = 0, binding = slot, std430) buffer four_##slot { uvec4 w[]; } m4_##slot;
FA_OPERAND(0)
FA_OPERAND(1)
FA_OPERAND(2)
FA_OPERAND(3)
FA_OPERAND(4)
FA_OPERAND(5)
FA_OPERAND(6)
FA_OPERAND(7)
FA_OPERAND(8)
FA_OPERAND(9)
FA_OPERAND(10)
FA_OPERAND(11)
FA_OPERAND(12)
FA_OPERAND(13)
FA_OPERAND(14)

#ifdef FA_HALVES
layout(set = 0, binding = 4, std430) buffer half_4 { uint16_t w[]; } mhalf_4;
#define HALF(slot, p) FA_NAME(half, slot).w[(p) >> 1]
#endif
#define FA_TABLE_VIEW(type)                                                                            \
    layout(set = 0, binding = FA_VK_SLOT_TABLE, std430) buffer view_##type { type entry[]; } table_##type;
#define TABLE(type) table_##type.entry
#define FA_NAME(width, slot) m##width##_##slot
#define WORD1(slot, p) FA_NAME(1, slot).w[(p) >> 2]
#define WORD2(slot, p) FA_NAME(2, slot).w[(p) >> 3]
#define WORD4(slot, p) FA_NAME(4, slot).w[(p) >> 4]
#endif

/* The plan's table: PARAMS, and lists by the numbers of their entries. */
FA_TABLE_VIEW(fa_table_params)
FA_TABLE_VIEW(fa_table_sequence)
FA_TABLE_VIEW(fa_table_item)
FA_TABLE_VIEW(fa_table_merge)
FA_TABLE_VIEW(float)
FA_TABLE_VIEW(uint)
#define PARAMS TABLE(fa_table_params)[0]

int bytes_of(int type)
{
    return FA_TYPE_BYTES(type);
}

/* Elements, as bits and as numbers. */
float widen(int type, uint bits)
{
    return type == 0 ? uintBitsToFloat(bits) : type == 1 ? unpackHalf2x16(bits).x : fa_bf16_widen(bits);
}

vec2 widen2(int type, uint bits)
{
    return type == 1 ? unpackHalf2x16(bits) : vec2(uintBitsToFloat(bits << 16), uintBitsToFloat(bits & 0xffff0000u));
}

/* One element of an operand. */
#define FA_LOAD(slot, type, p)                                                                         \
    widen(type, (type) == 0 ? WORD1(slot, p)                                                           \
                            : WORD1(slot, (p) & ~address(3)) >> (uint((p) & address(2)) * 8u) & 0xffffu)
#define FA_BITS(slot, type, p)                                                                         \
    ((type) == 0 ? WORD1(slot, p)                                                                      \
                 : WORD1(slot, (p) & ~address(3)) >> (uint((p) & address(2)) * 8u) & 0xffffu)

/*
 * Four elements as they lie in memory, of which the first `count` exist; the others are 0. They stay so until widened:
 * a fetch ahead of its use then waits for nothing and takes no more registers than it must.
 */
#define FA_DEFINE_FETCH(name, slot)                                                                    \
    uvec4 name##4(int type, address p, int count)                                                     \
    {                                                                                                  \
        uvec4 x = uvec4(0u);                                                                           \
        if (ALIGNED != 0) {                                                                            \
            if (count > 0) {                                                                           \
                if (type == 0)                                                                         \
                    x = WORD4(slot, p);                                                                \
                else                                                                                   \
                    x.xy = WORD2(slot, p);                                                             \
            }                                                                                          \
            return x;                                                                                  \
        }                                                                                              \
        const address step = address(bytes_of(type));                                                \
        if (count > 0)                                                                                 \
            x.x = FA_BITS(slot, type, p);                                                              \
        if (count > 1)                                                                                 \
            x.y = FA_BITS(slot, type, p + step);                                                       \
        if (count > 2)                                                                                 \
            x.z = FA_BITS(slot, type, p + 2 * step);                                                   \
        if (count > 3)                                                                                 \
            x.w = FA_BITS(slot, type, p + 3 * step);                                                   \
        return type == 0 ? x : uvec4(x.x | x.y << 16, x.z | x.w << 16, 0u, 0u);                        \
    }                                                                                                  \
                                                                                                       \
    raw8 name##8(int type, address p, int count)                                                      \
    {                                                                                                  \
        raw8 x;                                                                                        \
        if (ALIGNED != 0 && type != 0) {                                                               \
            x.low = count > 0 ? WORD4(slot, p) : uvec4(0u);                                            \
            x.high = uvec4(0u);                                                                        \
            return x;                                                                                  \
        }                                                                                              \
        const uvec4 low = name##4(type, p, count);                                                     \
        const uvec4 high = name##4(type, p + address(4 * bytes_of(type)), count - 4);                 \
        x.low = type == 0 ? low : uvec4(low.xy, high.xy);                                              \
        x.high = high;                                                                                 \
        return x;                                                                                      \
    }

struct raw8 {
    uvec4 low, high;
};

vec4 widen4(int type, uvec4 x)
{
    return type == 0 ? uintBitsToFloat(x) : vec4(widen2(type, x.x), widen2(type, x.y));
}

vec4 low4(int type, raw8 x)
{
    return widen4(type, x.low);
}

vec4 high4(int type, raw8 x)
{
    return type == 0 ? uintBitsToFloat(x.high) : vec4(widen2(type, x.low.z), widen2(type, x.low.w));
}

/* Whether no element is NaN or infinite: by bits, since compilers take x * 0 for 0. */
bool is_finite4(vec4 x)
{
    return all(lessThan(floatBitsToUint(x) & 0x7fffffffu, uvec4(0x7f800000u)));
}

/* The elements that are finite, and 0 for the others. */
vec4 finite_part(vec4 x)
{
    return mix(vec4(0.0), x, lessThan(floatBitsToUint(x) & 0x7fffffffu, uvec4(0x7f800000u)));
}

FA_DEFINE_FETCH(fetch_q, 1)
FA_DEFINE_FETCH(fetch_k, 2)
FA_DEFINE_FETCH(fetch_v, 3)

/* One element of the output. The other half of a word may be written by another invocation at the same time. */
void store_o(address p, float x)
{
    if (TYPE_O == 0) {
        WORD1(4, p) = floatBitsToUint(x);
        return;
    }
    const uint bits = fa_float_narrow(TYPE_O, x);
#ifdef FA_HALVES
    HALF(4, p) = uint16_t(bits);
#else
    const uint shift = uint(p & address(2)) * 8u;
    const address word = p & ~address(3);
    atomicAnd(WORD1(4, word), ~(0xffffu << shift));
    atomicOr(WORD1(4, word), bits << shift);
#endif
}

void store4_o(address p, int count, vec4 x)
{
    if (ALIGNED != 0) {
        if (count > 0) {
            if (TYPE_O == 0)
                WORD4(4, p) = floatBitsToUint(x);
            else
                WORD2(4, p) = uvec2(fa_float_narrow(TYPE_O, x.x) | fa_float_narrow(TYPE_O, x.y) << 16,
                                    fa_float_narrow(TYPE_O, x.z) | fa_float_narrow(TYPE_O, x.w) << 16);
        }
        return;
    }
    const address step = address(bytes_of(TYPE_O));
    if (count > 0)
        store_o(p, x.x);
    if (count > 1)
        store_o(p + step, x.y);
    if (count > 2)
        store_o(p + 2 * step, x.z);
    if (count > 3)
        store_o(p + 3 * step, x.w);
}

void store_float_lse(address p, float x)
{
    WORD1(7, p) = floatBitsToUint(x);
}

/* Partial outputs: floats. */
float load_partial(address p)
{
    return uintBitsToFloat(WORD1(8, p));
}

/* Of four, the first `count`; the others are 0. */
vec4 load4_partial(address p, int count)
{
    if (count >= 4 && (p & address(15)) == 0)
        return uintBitsToFloat(WORD4(8, p));
    vec4 x = vec4(0.0);
    [[unroll]] for (int e = 0; e < 4; e++) {
        if (e < count)
            x[e] = load_partial(p + address(4 * e));
    }
    return x;
}

void store4_partial(address p, int count, vec4 x)
{
    if (count > 0)
        WORD1(8, p) = floatBitsToUint(x.x);
    if (count > 1)
        WORD1(8, p + 4) = floatBitsToUint(x.y);
    if (count > 2)
        WORD1(8, p + 8) = floatBitsToUint(x.z);
    if (count > 3)
        WORD1(8, p + 12) = floatBitsToUint(x.w);
}
