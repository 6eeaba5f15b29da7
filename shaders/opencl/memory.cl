/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements of operands. With FA_ALIGNED, all rows lie at multiples of 16 bytes and head dims are multiples of eight: then
 * four or eight elements are read and written at once.
 */
#define FA_RESTRICT restrict
#include "chunks.cl"
#include "core/portable/format.h"
#include "core/portable/table.h"
#include "core/portable/walk.h"

/*
 * Loops over registers must be unrolled, since registers have no index. Where there are none to speak of, as in a
 * processor that runs work-items in loops of its own, FA_COMPACT leaves them alone: it compiles ten times faster.
 */
#ifdef __clang__ /* its optimiser warns of loops that it cannot unroll */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif
#define FA_PRAGMA(text) _Pragma(#text)
#define FA_ROLLED FA_PRAGMA(unroll 1)
#ifdef FA_COMPACT
#define FA_UNROLL FA_PRAGMA(unroll 1)
#define FA_UNROLL_BY(n) FA_PRAGMA(unroll 1)
#else
#define FA_UNROLL FA_PRAGMA(unroll)
#define FA_UNROLL_BY(n) FA_PRAGMA(unroll n)
#endif

/* A number of elements or of bytes. */
#define FA_AT long
#define FA_INDEX(x) ((long)(x))
#define CEIL_DIV(a, b) (((a) + (b)-1) / (b))

/* Types by number, as fa_dtype has them. */
static inline float load_0(memory m, long at)
{
    return *(__global const float *)memory_at(m, at * 4);
}

static inline float load_1(memory m, long at)
{
    return vload_half(0, (__global const half *)memory_at(m, at * 2));
}

static inline float load_2(memory m, long at)
{
    return fa_bf16_widen(*(__global const ushort *)memory_at(m, at * 2));
}

static inline float load_any(int type, memory m, long at)
{
    return type == 0 ? load_0(m, at) : type == 1 ? load_1(m, at) : load_2(m, at);
}

static inline void store_0(memory m, long at, float x)
{
    *(__global float *)memory_at(m, at * 4) = x;
}

static inline void store_1(memory m, long at, float x)
{
    vstore_half_rte(x, 0, (__global half *)memory_at(m, at * 2));
}

static inline void store_2(memory m, long at, float x)
{
    *(__global ushort *)memory_at(m, at * 2) = (ushort)fa_bf16_narrow(x);
}

/*
 * Four elements as they lie in memory. They stay so until widened: a fetch ahead of its use then waits for nothing
 * and takes no more registers than it must. One type holds those of q, k and v.
 */
#if FA_TYPE_IS_CODED(FA_TYPE_K) || FA_TYPE_IS_CODED(FA_TYPE_V)
typedef uint8 raw;
#define FA_RAW_HALVES(x) ((uint8)(as_uint2(x), (uint2)0, (uint4)0))
#define FA_HALVES(x) as_ushort4((x).s01)
#define FA_RAW_WORDS(x) ((uint8)(x, (uint4)0))
#define FA_WORDS(x) (x).lo
#elif FA_TYPE_Q == 0 || FA_TYPE_K == 0 || FA_TYPE_V == 0
typedef uint4 raw;
#define FA_RAW_HALVES(x) ((uint4)(as_uint2(x), (uint2)0))
#define FA_HALVES(x) as_ushort4((x).xy)
#define FA_RAW_WORDS(x) (x)
#define FA_WORDS(x) (x)
#else
typedef uint2 raw;
#define FA_RAW_HALVES(x) as_uint2(x)
#define FA_HALVES(x) as_ushort4(x)
#endif

/* The elements from dim `d` on of a row that lies at byte `row`, of which `count` exist; the others are 0. */
#ifdef FA_ALIGNED
#define FA_FETCH4(type, vector, element, pack)                                                         \
    static inline raw FA_CAT(fetch4_, type)(memory m, long row, int d, int count)                      \
    {                                                                                                  \
        const long at = row + d * FA_TYPE_BYTES(type);                                                 \
        vector x = 0;                                                                                  \
        if (count > 0)                                                                                 \
            x = *(__global const vector *)memory_at(m, at);                                            \
        return pack(x);                                                                                \
    }
#else
#define FA_FETCH4(type, vector, element, pack)                                                         \
    static inline raw FA_CAT(fetch4_, type)(memory m, long row, int d, int count)                      \
    {                                                                                                  \
        const long at = row + d * FA_TYPE_BYTES(type);                                                 \
        vector x = 0;                                                                                  \
        if (count > 0)                                                                                 \
            x.x = *(__global const element *)memory_at(m, at);                                         \
        if (count > 1)                                                                                 \
            x.y = *(__global const element *)memory_at(m, at + FA_TYPE_BYTES(type));                   \
        if (count > 2)                                                                                 \
            x.z = *(__global const element *)memory_at(m, at + 2 * FA_TYPE_BYTES(type));               \
        if (count > 3)                                                                                 \
            x.w = *(__global const element *)memory_at(m, at + 3 * FA_TYPE_BYTES(type));               \
        return pack(x);                                                                                \
    }
#endif
FA_FETCH4(1, ushort4, ushort, FA_RAW_HALVES)
FA_FETCH4(2, ushort4, ushort, FA_RAW_HALVES)

#ifdef FA_WORDS
FA_FETCH4(0, uint4, uint, FA_RAW_WORDS)

static inline float4 widen_0(raw x)
{
    return as_float4(FA_WORDS(x));
}
#endif

static inline float4 widen_halves(ushort4 bits)
{
#ifdef FA_FP16
    return convert_float4(as_half4(bits));
#else
    return vload_half4(0, (const half *)&bits);
#endif
}

static inline float4 widen_1(raw x)
{
    return widen_halves(FA_HALVES(x));
}

static inline float4 widen_2(raw x)
{
    return as_float4(convert_uint4(FA_HALVES(x)) << 16);
}

/* Eight elements as they lie in memory, of which the first `count` exist; with FA_ALIGNED, all or none. */
typedef uint8 raw8_0;
typedef ushort8 raw8_1, raw8_2;
#define FA_RAW8(type) FA_CAT(raw8_, type)

#ifdef FA_ALIGNED
#define FA_FETCH8(type, element, whole)                                                                \
    static inline FA_RAW8(type) FA_CAT(fetch8_, type)(memory m, long row, int d, int count)            \
    {                                                                                                  \
        const long at = row + d * FA_TYPE_BYTES(type);                                                 \
        FA_RAW8(type) x = 0;                                                                           \
        if (count > 0)                                                                                 \
            x = whole;                                                                                 \
        return x;                                                                                      \
    }
#else
#define FA_FETCH8(type, element, whole)                                                                \
    static inline FA_RAW8(type) FA_CAT(fetch8_, type)(memory m, long row, int d, int count)            \
    {                                                                                                  \
        const long at = row + d * FA_TYPE_BYTES(type);                                                 \
        element x[8];                                                                                  \
        FA_UNROLL                                                                                      \
        for (int i = 0; i < 8; i++)                                                                    \
            x[i] = count > i ? *(__global const element *)memory_at(m, at + i * FA_TYPE_BYTES(type)) : 0; \
        return (FA_RAW8(type))(x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]);                        \
    }
#endif
FA_FETCH8(0, uint, (uint8)(*(__global const uint4 *)memory_at(m, at), *(__global const uint4 *)memory_at(m, at + 16)))
FA_FETCH8(1, ushort, *(__global const ushort8 *)memory_at(m, at))
FA_FETCH8(2, ushort, *(__global const ushort8 *)memory_at(m, at))

static inline float8 widen8_0(raw8_0 x)
{
    return as_float8(x);
}

static inline float8 widen8_1(raw8_1 x)
{
#ifdef FA_FP16
    return convert_float8(as_half8(x));
#else
    return vload_half8(0, (const half *)&x);
#endif
}

static inline float8 widen8_2(raw8_2 x)
{
    return as_float8(convert_uint8(x) << 16);
}

#include "coded.cl"

/* Which elements are not finite, as any() takes them. By bits: compilers may take x * 0 for 0. */
static inline int4 not_finite4(float4 x)
{
    return (as_int4(x) & 0x7f800000) == (int4)0x7f800000;
}

#ifdef FA_ALIGNED
#define FA_STORE4(type, whole)                                                                         \
    static inline void FA_CAT(store4_, type)(memory m, long at, int count, float4 x)                   \
    {                                                                                                  \
        if (count > 0)                                                                                 \
            whole;                                                                                     \
    }
#else
#define FA_STORE4(type, whole)                                                                         \
    static inline void FA_CAT(store4_, type)(memory m, long at, int count, float4 x)                   \
    {                                                                                                  \
        if (count > 0)                                                                                 \
            FA_CAT(store_, type)(m, at, x.x);                                                          \
        if (count > 1)                                                                                 \
            FA_CAT(store_, type)(m, at + 1, x.y);                                                      \
        if (count > 2)                                                                                 \
            FA_CAT(store_, type)(m, at + 2, x.z);                                                      \
        if (count > 3)                                                                                 \
            FA_CAT(store_, type)(m, at + 3, x.w);                                                      \
    }
#endif
FA_STORE4(0, *(__global float4 *)memory_at(m, at * 4) = x)
FA_STORE4(1, vstorea_half4_rte(x, 0, (__global half *)memory_at(m, at * 2)))
FA_STORE4(2, *(__global ushort4 *)memory_at(m, at * 2) =
                 (ushort4)((ushort)fa_bf16_narrow(x.x), (ushort)fa_bf16_narrow(x.y), (ushort)fa_bf16_narrow(x.z),
                           (ushort)fa_bf16_narrow(x.w)))
