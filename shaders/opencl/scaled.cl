/* SPDX-License-Identifier: Apache-2.0 */
/*
 * K and V whose scales are tensors of their own: they are scaled where they are fetched, so what is fetched are the bits of
 * f32. FA_SCALES_K and FA_SCALES_V say which of them have such scales; kernels without have nothing of this. Scales lie in
 * one allocation each.
 */
#ifdef FA_SCALES
#define FA_SCALE_PARAMETERS                                                                           \
    , __global const uchar *k_scale, __global const uchar *v_scale, __global const uchar *k_zero,     \
        __global const uchar *v_zero, long k_scale_offset, long v_scale_offset, long k_zero_offset,   \
        long v_zero_offset
#define FA_WITH_SCALES(x, w, c)                                                                       \
    with_scales(c, &(w).p->x##_scales, x##_scale + x##_scale_offset, x##_zero + x##_zero_offset)

/* A scale or a zero: element n of memory of any of their types. */
static inline float scale_load(int type, __global const uchar *m, long n)
{
    if (type == 0)
        return ((__global const float *)m)[n];
    if (type == 1)
        return fa_f16_widen(((__global const ushort *)m)[n]);
    if (type == 2)
        return fa_bf16_widen(((__global const ushort *)m)[n]);
    return type == FA_TYPE_E4M3 ? fa_e4m3_widen(m[n]) : fa_e8m0_widen(m[n]);
}

/* What scales dim d of a row that has its scales and zeros from these on. */
static inline fa_scaling scaling_at(cursor c, long scale_row, long zero_row, int d)
{
    const int group = FA_GROUP_OF(d, c.scales->dims, c.scales->dims_shift);
    fa_scaling s;
    s.scale = c.scales->factor *
              scale_load(c.scales->scale_type, c.scale, scale_row + group * c.scales->scale_stride[3]);
    s.offset = 0.0f;
    if (c.scales->zero_type >= 0)
        s.offset = scale_load(c.scales->zero_type, c.zero, zero_row + group * c.scales->zero_stride[3]);
    return s;
}

/* Four elements of the row, at byte `row`, of the key that is found there, from dim d on. */
static inline float4 four_scaled(int type, cursor c, long row, fa_key_place found, int d)
{
    const uint codes = fa_codes_of(type, coded_of(type, c.m), FA_BLOCK_AT(type, row, d), FA_IN_BLOCK(type, d));
    const fa_key_place place = fa_work_scale_place(c.w, found);
    const long scale_row = FA_SCALE_ROW(c.w, c.scales->scale_stride, place, *c.scales),
               zero_row = FA_SCALE_ROW(c.w, c.scales->zero_stride, place, *c.scales);
    /* Else four elements have one scale. */
    const bool each = (c.scales->dims & 3) != 0 && c.scales->scale_stride[3] != 0;
    fa_scaling s = scaling_at(c, scale_row, zero_row, d);
    float x[4];
    for (int i = 0; i < 4; i++) {
        if (each && i > 0)
            s = scaling_at(c, scale_row, zero_row, d + i);
        x[i] = fma(s.scale, fa_bare_number(type, codes >> 8 * i & 255u), s.offset);
    }
    return (float4)(x[0], x[1], x[2], x[3]);
}

static inline raw fetch4_scaled(int type, cursor c, long row, fa_key_place found, int d, int count)
{
    raw x = 0;
    if (count > 0)
        x = FA_RAW_WORDS(as_uint4(four_scaled(type, c, row, found, d)));
    return x;
}

static inline uint8 fetch8_scaled(int type, cursor c, long row, fa_key_place found, int d, int count)
{
    uint8 x = 0;
    if (count > 0)
        x = as_uint8((float8)(four_scaled(type, c, row, found, d), four_scaled(type, c, row, found, d + 4)));
    return x;
}
#else
#define FA_SCALE_PARAMETERS
#define FA_WITH_SCALES(x, w, c) c
#endif

/*
 * Rows that keep some of their elements (core/portable/bitmap.h): where an element lies follows from the bits before it, so they
 * are decoded where they are fetched. Kernels of few rows do not take them.
 */
#ifdef FA_PRUNED
static inline cursor with_rows(cursor c, int dims, int bytes)
{
    c.dims = dims;
    c.bytes = bytes;
    return c;
}

static inline float4 four_pruned(int type, cursor c, long row, int d)
{
    const fa_four x = fa_row_four(type, coded_of(type, c.m), row, d, c.dims, c.bytes);
    return (float4)(x.x[0], x.x[1], x.x[2], x.x[3]);
}

static inline raw fetch4_pruned(int type, cursor c, long row, int d, int count)
{
    raw x = 0;
    if (count > 0)
        x = FA_RAW_WORDS(as_uint4(four_pruned(type, c, row, d)));
    return x;
}

#define FA_WITH_ROWS(x, w, dim, c) with_rows(c, (w).p->dim, (w).p->x##_scales.row_bytes)
#else
#define FA_WITH_ROWS(x, w, dim, c) c
#endif

#define FA_KEYS_OF(w, m, offset) FA_WITH_ROWS(k, w, dim_qk, FA_WITH_SCALES(k, w, keys_of(w, m, offset)))
#define FA_VALUES_OF(w, m, offset) FA_WITH_ROWS(v, w, dim_v, FA_WITH_SCALES(v, w, values_of(w, m, offset)))

/* What kernels fetch of K and V, by row and by the place that a key was found at, and how it becomes numbers. */
#ifdef FA_SCALES_K
#define FA_RAW8_K uint8
#define FETCH4_K(c, row, found, d, count) fetch4_scaled(FA_TYPE_K, c, row, found, d, count)
#define FETCH8_K(c, row, found, d, count) fetch8_scaled(FA_TYPE_K, c, row, found, d, count)
#define WIDEN4_K(x) as_float4(FA_WORDS(x))
#define WIDEN8_K(x) as_float8(x)
#elif FA_TYPE_PRUNES(FA_TYPE_K)
#define FETCH4_K(c, row, found, d, count) fetch4_pruned(FA_TYPE_K, c, row, d, count)
#define WIDEN4_K(x) as_float4(FA_WORDS(x))
#else
#define FA_RAW8_K FA_RAW8(FA_TYPE_K)
#define FETCH4_K(c, row, found, d, count) FA_CAT(fetch4_, FA_TYPE_K)((c).m, row, d, count)
#define FETCH8_K(c, row, found, d, count) FA_CAT(fetch8_, FA_TYPE_K)((c).m, row, d, count)
#define WIDEN4_K FA_CAT(widen_, FA_TYPE_K)
#define WIDEN8_K FA_CAT(widen8_, FA_TYPE_K)
#endif
#ifdef FA_SCALES_V
#define FA_RAW8_V uint8
#define FETCH4_V(c, row, found, d, count) fetch4_scaled(FA_TYPE_V, c, row, found, d, count)
#define FETCH8_V(c, row, found, d, count) fetch8_scaled(FA_TYPE_V, c, row, found, d, count)
#define WIDEN4_V(x) as_float4(FA_WORDS(x))
#define WIDEN8_V(x) as_float8(x)
#elif FA_TYPE_PRUNES(FA_TYPE_V)
#define FETCH4_V(c, row, found, d, count) fetch4_pruned(FA_TYPE_V, c, row, d, count)
#define WIDEN4_V(x) as_float4(FA_WORDS(x))
#else
#define FA_RAW8_V FA_RAW8(FA_TYPE_V)
#define FETCH4_V(c, row, found, d, count) FA_CAT(fetch4_, FA_TYPE_V)((c).m, row, d, count)
#define FETCH8_V(c, row, found, d, count) FA_CAT(fetch8_, FA_TYPE_V)((c).m, row, d, count)
#define WIDEN4_V FA_CAT(widen_, FA_TYPE_V)
#define WIDEN8_V FA_CAT(widen8_, FA_TYPE_V)
#endif
