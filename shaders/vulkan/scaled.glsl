/* SPDX-License-Identifier: Apache-2.0 */
/*
 * K and V whose scales are tensors of their own: they are scaled where they are fetched, so what is fetched are the bits of
 * f32.
 */
layout(constant_id = FA_VK_SCALES_K) const int SCALES_K = 0;
layout(constant_id = FA_VK_SCALES_V) const int SCALES_V = 0;

/* Where scale or zero number n lies, of any of their types, which are constants; and what it is, in its word. */
address scale_at(int type, address base, address n)
{
    return base + n * address(type == 0 ? 4 : type <= 2 ? 2 : 1);
}

float scale_widen(int type, address p, uint word)
{
    const uint bits = word >> uint(p & address(3)) * 8u;
    float x = type == 0 ? uintBitsToFloat(bits) : type == 1 ? unpackHalf2x16(bits).x : uintBitsToFloat(bits << 16);
    if (type == FA_TYPE_E4M3)
        x = unpackHalf2x16(fa_fp8_halves(type, (bits & 255u) << 8)).x * FA_FP8_FACTOR(type);
    else if (type == FA_TYPE_E8M0)
        x = fa_e8m0_widen(bits & 255u);
    return x;
}

/* Where groups of dims are multiples of four, four elements have one scale. */
#define FA_DEFINE_SCALED(name, slot, TYPE, SIZE, SHIFT, SCALES, SCALE_SLOT, ZERO_SLOT)                 \
    const int name##_scale_type = (SCALES & 31) - 1, name##_zero_type = (SCALES >> 5 & 31) - 1;        \
    const bool name##_each = SCALES >= 1024;                                                           \
                                                                                                       \
    /* The codes of elements d and after of a row, a byte for each. */                                 \
    uint name##_bare(address row, int d)                                                               \
    {                                                                                                  \
        const int e = d & (1 << SHIFT) - 1, byte = name##_bits == 8 ? e : fa_bare_byte(TYPE, e);\
        const address p = row + address((d >> SHIFT) * SIZE + byte);                                   \
        const uint bits = FA_BITS(slot, 1, p);                                                         \
        uint codes = bits;                                                                             \
        if (name##_bits == 8)                                                                          \
            codes = bits | FA_BITS(slot, 1, p + address(2)) << 16;                                     \
        else                                                                                           \
            codes = fa_bare_codes(TYPE, bits, e);                                                      \
        return codes;                                                                                  \
    }                                                                                                  \
                                                                                                       \
    /* Of dim d of a key that has its scales and zeros from these on. */                               \
    fa_scaling name##_scaling(address scales, address zeros, int d)                                    \
    {                                                                                                  \
        const address group =                                                                          \
            address(FA_GROUP_OF(d, PARAMS.name##_scales.dims, PARAMS.name##_scales.dims_shift));       \
        fa_scaling s;                                                                                  \
        const address scale = scale_at(name##_scale_type, at(SCALE_SLOT),                              \
                                       scales + group * wide(PARAMS.name##_scales.scale_stride[3]));   \
        s.scale = PARAMS.name##_scales.factor *                                                        \
                  scale_widen(name##_scale_type, scale, WORD1(SCALE_SLOT, scale & ~address(3)));       \
        s.offset = 0.0;                                                                                \
        if (name##_zero_type >= 0) {                                                                   \
            const address zero = scale_at(name##_zero_type, at(ZERO_SLOT),                             \
                                          zeros + group * wide(PARAMS.name##_scales.zero_stride[3]));  \
            s.offset = scale_widen(name##_zero_type, zero, WORD1(ZERO_SLOT, zero & ~address(3)));      \
        }                                                                                              \
        return s;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    uvec4 name##_scaled(work w, address row, fa_key_place key, int d)                                  \
    {                                                                                                  \
        const uint codes = name##_bare(row, d);                                                        \
        const fa_key_place place = fa_work_scale_place(w, key);                                        \
        const address scales =                                                                         \
            FA_SCALE_ROW(w, PARAMS.name##_scales.scale_stride, place, PARAMS.name##_scales);           \
        const address zeros =                                                                          \
            FA_SCALE_ROW(w, PARAMS.name##_scales.zero_stride, place, PARAMS.name##_scales);            \
        fa_scaling s = name##_scaling(scales, zeros, d);                                               \
        uvec4 x;                                                                                       \
        [[unroll]] for (int i = 0; i < 4; i++) {                                                       \
            if (name##_each && i > 0)                                                                  \
                s = name##_scaling(scales, zeros, d + i);                                              \
            x[i] = floatBitsToUint(fma(s.scale, fa_bare_number(TYPE, codes >> uint(8 * i) & 255u), s.offset));\
        }                                                                                              \
        return x;                                                                                      \
    }
FA_DEFINE_SCALED(k, 2, TYPE_K, SIZE_K, SHIFT_K, SCALES_K, 11, 13)
FA_DEFINE_SCALED(v, 3, TYPE_V, SIZE_V, SHIFT_V, SCALES_V, 12, 14)

/* What kernels fetch of k and v: of the key in a place, dims d and after, of which `count` exist. And as numbers. */
#define FA_DEFINE_KEYS(name, TYPE, SCALES)                                                             \
    uvec4 fetch_##name##_at4(work w, cursor c, fa_key_place key, int d, int count)                     \
    {                                                                                                  \
        const address row = row_at(w, c, key);                                                         \
        uvec4 x = uvec4(0u);                                                                           \
        if (SCALES == 0)                                                                               \
            x = name##4(row, d, count);                                                                \
        else if (count > 0)                                                                            \
            x = name##_scaled(w, row, key, d);                                                         \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    raw8 fetch_##name##_at8(work w, address row, fa_key_place key, int d, int count)                   \
    {                                                                                                  \
        raw8 x = raw8(uvec4(0u), uvec4(0u));                                                           \
        if (SCALES == 0)                                                                               \
            x = name##8(row, d, count);                                                                \
        else if (count > 0)                                                                            \
            x = raw8(name##_scaled(w, row, key, d), name##_scaled(w, row, key, d + 4));                \
        return x;                                                                                      \
    }                                                                                                  \
                                                                                                       \
    vec4 name##_numbers4(uvec4 x)                                                                      \
    {                                                                                                  \
        return SCALES != 0 ? uintBitsToFloat(x) : numbers4(TYPE, x);                                   \
    }                                                                                                  \
                                                                                                       \
    vec4 name##_low(raw8 x)                                                                            \
    {                                                                                                  \
        return SCALES != 0 ? uintBitsToFloat(x.low) : low_numbers(TYPE, x);                            \
    }                                                                                                  \
                                                                                                       \
    vec4 name##_high(raw8 x)                                                                           \
    {                                                                                                  \
        return SCALES != 0 ? uintBitsToFloat(x.high) : high_numbers(TYPE, x);                          \
    }
FA_DEFINE_KEYS(k, TYPE_K, SCALES_K)
FA_DEFINE_KEYS(v, TYPE_V, SCALES_V)
