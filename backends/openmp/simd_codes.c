/* SPDX-License-Identifier: Apache-2.0 */
/* Rows in formats of caches (core/portable/codes.h) made f32. A block's scaling is read once, and so is each code. */
#include "core/attention/scales.h"
#include "simd/codes.h"
#include "simd/panel.h"

#if FA_ISA_IS == FA_ISA_scalar
FA_INLINE void decode_row(const int type, const uint8_t *at, int dim, float *to)
{
    for (int d = 0; d < dim; d++)
        to[d] = fa_load_coded((fa_dtype)type, at, d);
}
#else
FA_INLINE void decode_block(const int type, const uint8_t *block, float *to)
{
    const uint16_t *scaling = (const uint16_t *)(const void *)block;
    const vf scale = v_mul(v_splat_f16(scaling), v_set1(V_BYTES_UNIT));
    const vf offset = FA_TYPE_HAS_OFFSET(type) ? v_splat_f16(scaling + 1) : v_set1(0.0f);
    FA_UNROLL
    for (int half = 0; half < 2; half++) {
        FA_UNROLL
        for (int part = 0; part < HALF_VECS; part++)
            v_store(to + 16 * half + part * VL, load_codes(type, block, half, part, scale, offset));
    }
}

FA_INLINE void decode_row(const int type, const uint8_t *at, int dim, float *to)
{
    int d = 0;
    if (!FA_TYPE_IS_FP8(type)) {
        for (; d < dim; d += BLOCK, at += FA_TYPE_SIZE(type))
            decode_block(type, at, to + d);
        return;
    }
    for (; d + 16 <= dim; d += 16) {
        FA_UNROLL
        for (int part = 0; part < HALF_VECS; part++)
            v_store(to + d + part * VL, load_fp8(type, at + d, part));
    }
    for (; d < dim; d++)
        to[d] = fa_load_coded((fa_dtype)type, at, d);
}
#endif

/* FlashMLA's rows: all of one, or the first dims, which are the codes. */
FA_INLINE void decode_latent(const uint8_t *at, int dim, float *to)
{
#if FA_ISA_IS == FA_ISA_scalar
    decode_row(FA_TYPE_FP8_DS_MLA, at, dim, to);
#else
    for (int first = 0; first < FA_MLA_LATENT; first += FA_MLA_GROUP) {
        const vf scale = v_set1(*(const float *)(const void *)(at + fa_mla_scale_byte(first)));
        for (int d = first; d < first + FA_MLA_GROUP; d += 16) {
            FA_UNROLL
            for (int part = 0; part < HALF_VECS; part++)
                v_store(to + d + part * VL, v_mul(scale, load_fp8(FA_TYPE_E4M3, at + d, part)));
        }
    }
    for (int d = FA_MLA_LATENT; d < dim; d += VL)
        v_store(to + d, v_load_bf16((const uint16_t *)(const void *)(at + fa_mla_byte(d))));
#endif
}

/* Rows that keep some of their elements: these are widened together, then put where their bits are. */
static void decode_bitmap(const typed_rows *from, const uint8_t *at, int dim, float *to)
{
    const int room = FA_BITMAP_ROOM(dim, from->row_bytes);
    float kept[FA_MAX_HEAD_DIM];
    const float *next = kept;
    convert_rows(FA_F16, at + FA_BITMAP_BYTES(dim), 0, 0, 1, room, kept, 0);
    memset(kept + room, 0, (size_t)(dim - room) * sizeof(*kept));
    memset(to, 0, (size_t)dim * sizeof(*to));
    for (int d = 0; d < dim; d += 32) {
        uint32_t bits;
        memcpy(&bits, at + d / 8, sizeof(bits));
        bits &= dim - d < 32 ? (1u << (dim - d)) - 1 : UINT32_MAX;
        for (; bits != 0; bits &= bits - 1)
            to[d + __builtin_ctz(bits)] = *next++;
    }
}

/* Codes of 8, 4, 2 and 1 bits as the numbers that they stand for. */
FA_INLINE void decode_codes(const int type, const uint8_t *at, int dim, float *to)
{
    const int bits = FA_TYPE_CODE_BITS(type), each = 8 / bits;
    float number[16] = {0};
    if (bits == 8) {
        for (int d = 0; d < dim; d++)
            to[d] = type == FA_TYPE_I8 ? (float)(int8_t)at[d] : (float)at[d];
        return;
    }
    for (int i = 0; i < 1 << bits; i++)
        number[i] = fa_bare_number(type, (fa_uint)i);
    for (int d = 0; d < dim; d += each, at++) {
        FA_UNROLL
        for (int i = 0; i < each; i++)
            to[d + i] = number[*at >> bits * i & ((1 << bits) - 1)];
    }
}

/* Blocks of 16 codes of 2 bits, and 16 of one. */
FA_INLINE void decode_mixed(const uint8_t *at, int dim, float *to)
{
    for (int d = 0; d < dim; d += 32, at += FA_TYPE_SIZE(FA_TYPE_U2U1)) {
        decode_codes(FA_TYPE_U2, at, 16, to + d);
        decode_codes(FA_TYPE_U1, at + 4, 16, to + d + 16);
    }
}

FA_INLINE void decode(const int type, const typed_rows *from, int rows, int dim, float *target,
                      ptrdiff_t target_stride)
{
    for (int r = 0; r < rows; r++, target += target_stride) {
        if (FA_TYPE_PRUNES(type))
            decode_bitmap(from, row_address(from, r), dim, target);
        else if (FA_TYPE_IS_MLA(type))
            decode_latent(row_address(from, r), dim, target);
        else if (type == FA_TYPE_U2U1)
            decode_mixed(row_address(from, r), dim, target);
        else if (FA_TYPE_IS_BARE(type) && !FA_TYPE_IS_FP8(type))
            decode_codes(type, row_address(from, r), dim, target);
        else
            decode_row(type, row_address(from, r), dim, target);
    }
}

/* Scales, or zeros, of the dims of a row, and where they begin. */
typedef struct scale_row {
    int64_t at; /* -1: none yet */
    float x[FA_MAX_HEAD_DIM];
} scale_row;

/* Where the scale or the zero of a key's first dims lies. */
static int64_t scale_at(const scaled_keys *keys, const fa_scales *s, const fa_long stride[4], int key)
{
    const fa_key_place place = fa_cpu_scale_place(keys->run, keys->item, key);
    return FA_SCALE_ROW(*keys->item, stride, place, *s);
}

/* Fills a row, unless it is the one that is there. */
static void take_scales(const fa_scales *s, int type, const void *base, int64_t at, int64_t stride,
                        float factor, int dim, scale_row *row)
{
    if (at == row->at)
        return;
    row->at = at;
    for (int d = 0; d < dim; d += s->dims) {
        const float x = fa_load((fa_dtype)type, base, at + d / s->dims * stride) * factor;
        for (int i = d; i < FA_MIN(d + s->dims, dim); i++)
            row->x[i] = x;
    }
}

/* The numbers of rows become elements. */
static void scale_rows(const scaled_keys *keys, int rows, int dim, float *target, ptrdiff_t target_stride)
{
    const fa_cpu_run *run = keys->run;
    const bool is_k = keys->operand == FA_K;
    const fa_scales *s = is_k ? &run->work->k_scales : &run->work->v_scales;
    const void *scale = is_k ? run->k_scale : run->v_scale, *zero = is_k ? run->k_zero : run->v_zero;
    scale_row scales = {.at = -1}, zeros = {.at = -1};
    memset(zeros.x, 0, (size_t)dim * sizeof(float));
    for (int r = 0; r < rows; r++, target += target_stride) {
        take_scales(s, s->scale_type, scale, scale_at(keys, s, s->scale_stride, keys->key + r),
                    s->scale_stride[3], s->factor, dim, &scales);
        if (zero)
            take_scales(s, s->zero_type, zero, scale_at(keys, s, s->zero_stride, keys->key + r),
                        s->zero_stride[3], 1, dim, &zeros);
        int d = 0;
        for (; d + VL <= dim; d += VL)
            v_store(target + d, v_fma(v_load(scales.x + d), v_load(target + d), v_load(zeros.x + d)));
        for (; d < dim; d++)
            target[d] = fmaf(scales.x[d], target[d], zeros.x[d]);
    }
}

static void decode_numbers(const typed_rows *from, int rows, int dim, float *target, ptrdiff_t target_stride)
{
#define FORMAT(name) \
    case FA_##name: decode(FA_TYPE_##name, from, rows, dim, target, target_stride); break
    switch (from->dtype) {
        FORMAT(E4M3);
        FORMAT(E5M2);
        FORMAT(Q8_0);
        FORMAT(Q4_0);
        FORMAT(Q4_1);
        FORMAT(Q5_0);
        FORMAT(Q5_1);
        FORMAT(IQ4_NL);
        FORMAT(I8);
        FORMAT(I4);
        FORMAT(I2);
        FORMAT(U8);
        FORMAT(U4);
        FORMAT(U2);
        FORMAT(E2M1);
        FORMAT(U1);
        FORMAT(U2U1);
        FORMAT(FP8_DS_MLA);
        FORMAT(BITMAP_F16);
    default: break;
    }
#undef FORMAT
}

void FA_ISA_NAME(decode_rows)(const typed_rows *from, int rows, int dim, float *target,
                              ptrdiff_t target_stride)
{
    decode_numbers(from, rows, dim, target, target_stride);
    if (from->scaled.run)
        scale_rows(&from->scaled, rows, dim, target, target_stride);
}

float FA_ISA_NAME(element_of)(const typed_rows *t, int r, int d)
{
    const scaled_keys *keys = &t->scaled;
    if (FA_TYPE_PRUNES((int)t->dtype))
        return fa_load_pruned(row_address(t, r), t->row_dims, t->row_bytes, d);
    const float x = fa_load(t->dtype, row_address(t, r), d);
    if (!keys->run)
        return x;
    const fa_cpu_run *run = keys->run;
    const fa_key_place place = fa_cpu_scale_place(run, keys->item, keys->key + r);
    const bool is_k = keys->operand == FA_K;
    const fa_scaling s =
        fa_scales_at(is_k ? &run->work->k_scales : &run->work->v_scales, is_k ? run->k_scale : run->v_scale,
                     is_k ? run->k_zero : run->v_zero, place.page, keys->item->head_kv, place.within, d);
    return fmaf(s.scale, x, s.offset);
}

static bool is_finite_f16(uint16_t bits)
{
    return (bits & 0x7c00) != 0x7c00;
}

/* Elements of a block of ggml's are finite, or none is: they are what scales them times whole numbers. */
static bool block_finite(int type, const uint8_t *block)
{
    const uint16_t *scaling = (const uint16_t *)(const void *)block;
    return is_finite_f16(scaling[0]) && (!FA_TYPE_HAS_OFFSET(type) || is_finite_f16(scaling[1]));
}

/* Exponent and mantissa of e4m3 are all ones in what is not finite, of e5m2 the exponent is. */
static bool fp8_finite(int type, const uint8_t *at, int count)
{
    const int limit = type == FA_TYPE_E4M3 ? 0x7f : 0x7c;
    int found = 0;
    for (int d = 0; d < count; d++)
        found |= (at[d] & 0x7f) >= limit;
    return !found;
}

/* Of products with scales in f32, which may be infinite. */
static bool scaled_finite(const typed_rows *t, int rows, int dim)
{
    float row[FA_MAX_HEAD_DIM];
    for (int r = 0; r < rows; r++) {
        const typed_rows one = rows_from(*t, r);
        FA_ISA_NAME(decode_rows)(&one, 1, dim, row, 0);
        for (int d = 0; d < dim; d++) {
            if (!fa_is_finite(row[d]))
                return false;
        }
    }
    return true;
}

bool FA_ISA_NAME(coded_finite)(const typed_rows *t, int rows, int dim)
{
    const int type = (int)t->dtype;
    if (t->scaled.run || FA_TYPE_IS_ROW(type))
        return scaled_finite(t, rows, dim);
    for (int r = 0; r < rows; r++) {
        const uint8_t *at = row_address(t, r);
        if (FA_TYPE_IS_FP8(type) && !fp8_finite(type, at, dim))
            return false;
        for (int d = 0; !FA_TYPE_IS_FP8(type) && d < dim; d += BLOCK) {
            if (!block_finite(type, at + FA_TYPE_SPAN(type, d)))
                return false;
        }
    }
    return true;
}
