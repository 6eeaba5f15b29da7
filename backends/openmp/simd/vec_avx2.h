/* SPDX-License-Identifier: Apache-2.0 */
/* The vector vocabulary (see vec.h) in AVX2, FMA and F16C. */
#include <immintrin.h>

enum { VL = 8, PANEL_VECS = 2, SCORE_KEYS = 6, VALUE_DIMS = 6 };

typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vb; /* the 16 bytes twice: bytes stay in their half of a vector */

typedef __m256i vh;

#define V_BYTES_UNIT 0x1p-24f

/* A line for each word: */
/* clang-format off */
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline vf v_set1(float a) { return _mm256_set1_ps(a); }
static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf v_if_less(vf a, vf b, vf yes, vf no)
{
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
static inline bool v_all_equal(vf a, vf b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) == 0xff; }
static inline float v_top(vf a)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
static inline float v_sum(vf a)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
static inline void v_sum4(const vf a[4], float *sums)
{
    vf ab = _mm256_add_ps(_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1]));
    vf cd = _mm256_add_ps(_mm256_unpacklo_ps(a[2], a[3]), _mm256_unpackhi_ps(a[2], a[3]));
    vf abcd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

static inline vf v_exponent(vf a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23)); }

static inline vi vi_load(const int *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline vi vi_set1(int a) { return _mm256_set1_epi32(a); }
static inline vi vi_count(int first)
{
    return _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf v_distance(vi a, vi b) { return _mm256_cvtepi32_ps(_mm256_abs_epi32(_mm256_sub_epi32(a, b))); }
static inline vf v_hide_outside(vf a, vi key, vi begin, vi end)
{
    __m256i seen = _mm256_andnot_si256(_mm256_cmpgt_epi32(begin, key), _mm256_cmpgt_epi32(end, key));
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), a, _mm256_castsi256_ps(seen));
}

/* clang 14 makes 8 loads of a plain one here, and puts them together again. */
static inline __m128i load_halves(const uint16_t *p)
{
#if defined(__clang__)
    return _mm_lddqu_si128((const __m128i *)p);
#else
    return _mm_loadu_si128((const __m128i *)p);
#endif
}
static inline vf v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(load_halves(p)); }
static inline vf v_load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline void v_store_f16(uint16_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void v_store_bf16(uint16_t *p, vf a)
{
    __m256i bits = _mm256_castps_si256(a), upper = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, quiet, nan);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(packed));
}

static inline __m256i twice(__m128i a) { return _mm256_broadcastsi128_si256(a); }
static inline vb vb_load(const void *p) { return twice(_mm_loadu_si128((const __m128i *)p)); }
static inline vb vb_set1(int a) { return _mm256_set1_epi8((char)a); }
static inline vb vb_and(vb a, vb b) { return _mm256_and_si256(a, b); }
static inline vb vb_or(vb a, vb b) { return _mm256_or_si256(a, b); }
static inline vb vb_sub(vb a, vb b) { return _mm256_sub_epi8(a, b); }
static inline vb vb_low(vb a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
static inline vb vb_high(vb a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15)); }
static inline vb vb_look_up(vb table, vb a) { return _mm256_shuffle_epi8(table, a); }
static inline vb vb_bits(const uint16_t *p)
{
    __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i bytes = twice(_mm_set_epi64x(0x0101010101010101, 0));
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi16((short)*p), bytes);
    return _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
}
/* Each byte goes to the top of its lane. */
static inline vf v_of_bytes(vb a, const int part)
{
    const char n = (char)(8 * part);
    __m256i from = _mm256_setr_epi8(-1, -1, -1, n, -1, -1, -1, n + 1, -1, -1, -1, n + 2, -1, -1, -1, n + 3,
                                    -1, -1, -1, n + 4, -1, -1, -1, n + 5, -1, -1, -1, n + 6, -1, -1, -1, n + 7);
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(a, from));
}
static inline vf v_splat_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_set1_epi16((short)*p)); }
static inline short half_at(const uint8_t *p) { return *(const short *)(const void *)p; }
static inline vf v_gather_f16(const uint8_t *const p[VL], ptrdiff_t at)
{
    __m128i halves = _mm_setr_epi16(half_at(p[0] + at), half_at(p[1] + at), half_at(p[2] + at), half_at(p[3] + at),
                                    half_at(p[4] + at), half_at(p[5] + at), half_at(p[6] + at), half_at(p[7] + at));
    return _mm256_cvtph_ps(halves);
}
/* The nearest whole numbers to the halves of a and b, 16 bits each: first four of a, four of b, then the rest of both. */
static inline __m256i nearest_halves(vf a, vf b)
{
    __m256i twice = _mm256_packs_epi32(_mm256_cvttps_epi32(a), _mm256_cvttps_epi32(b));
    __m256i size = _mm256_srli_epi16(_mm256_add_epi16(_mm256_abs_epi16(twice), _mm256_set1_epi16(1)), 1);
    return _mm256_sign_epi16(size, twice);
}
static inline void v_store_nearest32(uint8_t *p, const vf x[4])
{
    __m256i bytes = _mm256_packs_epi16(nearest_halves(x[0], x[1]), nearest_halves(x[2], x[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)p, bytes);
}
static inline __m256i magnitudes(const void *p, __m256i mask)
{
    return _mm256_and_si256(_mm256_loadu_si256((const __m256i *)p), mask);
}
static inline uint32_t v_peak32(const float *p)
{
    __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i a = _mm256_max_epu32(magnitudes(p, mask), magnitudes(p + 8, mask));
    __m256i b = _mm256_max_epu32(magnitudes(p + 16, mask), magnitudes(p + 24, mask));
    a = _mm256_max_epu32(a, b);
    __m128i half = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    half = _mm_max_epu32(half, _mm_unpackhi_epi64(half, half));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(half, _mm_srli_epi64(half, 32)));
}
static inline uint32_t v_peak32_half(const uint16_t *p)
{
    __m256i mask = _mm256_set1_epi16(0x7fff), a = _mm256_max_epu16(magnitudes(p, mask), magnitudes(p + 16, mask));
    __m128i half = _mm_max_epu16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    /* The least of what remains to 0xffff. */
    half = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi16(-1)));
    return ~(uint32_t)_mm_cvtsi128_si32(half) & 0xffffu;
}
/* Bytes as the upper halves of 16 bits. */
static inline __m256i load_upper(const uint8_t *p)
{
    __m256i from = _mm256_setr_epi8(-1, 0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7,
                                    -1, 8, -1, 9, -1, 10, -1, 11, -1, 12, -1, 13, -1, 14, -1, 15);
    return _mm256_shuffle_epi8(vb_load(p), from);
}
static inline vh vh_load_e5m2(const uint8_t *p) { return load_upper(p); }
static inline vh vh_load_e4m3(const uint8_t *p)
{
    __m256i half = _mm256_and_si256(_mm256_srai_epi16(load_upper(p), 1), _mm256_set1_epi16((short)0xbf80));
    __m256i nan = _mm256_and_si256(_mm256_add_epi16(half, _mm256_set1_epi16(0x80)), _mm256_set1_epi16(0x4000));
    return _mm256_or_si256(half, nan);
}
static inline void vh_store(uint16_t *p, vh a) { _mm256_storeu_si256((__m256i *)p, a); }
static inline vf v_of_halves(vh a, const int part)
{
    return _mm256_cvtph_ps(part ? _mm256_extracti128_si256(a, 1) : _mm256_castsi256_si128(a));
}

static inline void v_transpose(vf r[VL])
{
    vf t[VL];
    for (int i = 0; i < 8; i += 4) {
        __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r[i], r[i + 1]));
        __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(r[i], r[i + 1]));
        __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r[i + 2], r[i + 3]));
        __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        t[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        t[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        t[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
