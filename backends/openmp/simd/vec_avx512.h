/* SPDX-License-Identifier: Apache-2.0 */
/* The vector vocabulary (see vec.h) in AVX-512 F, BW, DQ, VL. */
#include <immintrin.h>

enum { VL = 16, PANEL_VECS = 4, SCORE_KEYS = 6, VALUE_DIMS = 4 };

typedef __m512 vf;
typedef __m512i vi;
typedef __m128i vb;
typedef __m256i vh;

#define V_BYTES_UNIT 1.0f

/* A line for each word: */
/* clang-format off */
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline vf v_set1(float a) { return _mm512_set1_ps(a); }
static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_abs(vf a) { return _mm512_abs_ps(a); }
static inline vf v_if_less(vf a, vf b, vf yes, vf no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
static inline bool v_all_equal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) == 0xffff; }
static inline float v_top(vf a) { return _mm512_reduce_max_ps(a); }
static inline float v_sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline void v_sum4(const vf a[4], float *sums)
{
    vf ab = _mm512_add_ps(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));
    vf cd = _mm512_add_ps(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));
    vf abcd = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

static inline vf v_exponent(vf a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23)); }

static inline vi vi_load(const int *p) { return _mm512_loadu_si512(p); }
static inline vi vi_set1(int a) { return _mm512_set1_epi32(a); }
static inline vi vi_count(int first)
{
    return _mm512_add_epi32(_mm512_set1_epi32(first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
static inline vf v_distance(vi a, vi b) { return _mm512_cvtepi32_ps(_mm512_abs_epi32(_mm512_sub_epi32(a, b))); }
static inline vf v_hide_outside(vf a, vi key, vi begin, vi end)
{
    __mmask16 seen = _mm512_cmple_epi32_mask(begin, key) & _mm512_cmplt_epi32_mask(key, end);
    return _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), a);
}

/* clang 14 makes 16 loads of a plain one here, and puts them together again. */
static inline __m256i load_halves(const uint16_t *p)
{
#if defined(__clang__)
    return _mm256_lddqu_si256((const __m256i *)p);
#else
    return _mm256_loadu_si256((const __m256i *)p);
#endif
}
static inline vf v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(load_halves(p)); }
static inline vf v_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline void v_store_f16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void v_store_bf16(uint16_t *p, vf a)
{
    __m512i bits = _mm512_castps_si512(a), upper = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(rounded));
}

static inline vb vb_load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
static inline vb vb_set1(int a) { return _mm_set1_epi8((char)a); }
static inline vb vb_and(vb a, vb b) { return _mm_and_si128(a, b); }
static inline vb vb_or(vb a, vb b) { return _mm_or_si128(a, b); }
static inline vb vb_sub(vb a, vb b) { return _mm_sub_epi8(a, b); }
static inline vb vb_low(vb a) { return _mm_and_si128(a, _mm_set1_epi8(15)); }
static inline vb vb_high(vb a) { return _mm_and_si128(_mm_srli_epi16(a, 4), _mm_set1_epi8(15)); }
static inline vb vb_look_up(vb table, vb a) { return _mm_shuffle_epi8(table, a); }
static inline vb vb_bits(const uint16_t *p)
{
    __m128i bit = _mm_set1_epi64x((long long)0x8040201008040201u);
    __m128i spread = _mm_shuffle_epi8(_mm_cvtsi32_si128(*p), _mm_set_epi64x(0x0101010101010101, 0));
    return _mm_cmpeq_epi8(_mm_and_si128(spread, bit), bit);
}
static inline vf v_of_bytes(vb a, const int part)
{
    (void)part; /* there is one */
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a));
}
static inline vf v_splat_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)*p)); }
static inline short half_at(const uint8_t *p) { return *(const short *)(const void *)p; }
static inline __m128i gather_halves(const uint8_t *const p[8], ptrdiff_t at)
{
    return _mm_setr_epi16(half_at(p[0] + at), half_at(p[1] + at), half_at(p[2] + at), half_at(p[3] + at),
                          half_at(p[4] + at), half_at(p[5] + at), half_at(p[6] + at), half_at(p[7] + at));
}
static inline vf v_gather_f16(const uint8_t *const p[VL], ptrdiff_t at)
{
    return _mm512_cvtph_ps(_mm256_set_m128i(gather_halves(p + 8, at), gather_halves(p, at)));
}
static inline void store_nearest(uint8_t *p, vf a)
{
    __m512i twice = _mm512_cvttps_epi32(a), one = _mm512_set1_epi32(1);
    __m512i size = _mm512_srli_epi32(_mm512_add_epi32(_mm512_abs_epi32(twice), one), 1);
    __m512i whole = _mm512_mask_sub_epi32(size, _mm512_movepi32_mask(twice), _mm512_setzero_si512(), size);
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(whole));
}
static inline void v_store_nearest32(uint8_t *p, const vf x[2])
{
    store_nearest(p, x[0]);
    store_nearest(p + 16, x[1]);
}
static inline uint32_t v_peak32(const float *p)
{
    __m512i mask = _mm512_set1_epi32(0x7fffffff);
    __m512i a = _mm512_and_si512(_mm512_loadu_si512(p), mask), b = _mm512_and_si512(_mm512_loadu_si512(p + 16), mask);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
}
static inline uint32_t v_peak32_half(const uint16_t *p)
{
    __m512i a = _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi16(0x7fff));
    __m256i b = _mm256_max_epu16(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m128i half = _mm_max_epu16(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    /* The least of what remains to 0xffff. */
    half = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi16(-1)));
    return ~(uint32_t)_mm_cvtsi128_si32(half) & 0xffffu;
}
static inline vh vh_load_e5m2(const uint8_t *p)
{
    return _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)), 8);
}
static inline vh vh_load_e4m3(const uint8_t *p)
{
    __m256i half = _mm256_and_si256(_mm256_srai_epi16(vh_load_e5m2(p), 1), _mm256_set1_epi16((short)0xbf80));
    __m256i nan = _mm256_and_si256(_mm256_add_epi16(half, _mm256_set1_epi16(0x80)), _mm256_set1_epi16(0x4000));
    return _mm256_or_si256(half, nan);
}
static inline void vh_store(uint16_t *p, vh a) { _mm256_storeu_si256((__m256i *)p, a); }
static inline vf v_of_halves(vh a, const int part)
{
    (void)part; /* there is one */
    return _mm512_cvtph_ps(a);
}

/* Transposes 4x4 blocks inside 128-bit lanes, then the 4x4 grid of lanes. */
static inline void v_transpose(vf r[VL])
{
    vf t[VL];
    for (int i = 0; i < 16; i += 4) {
        __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[i], r[i + 1]));
        __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r[i], r[i + 1]));
        __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[i + 2], r[i + 3]));
        __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) {
        vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
