/* SPDX-License-Identifier: Apache-2.0 */
/* The words for bytes (see vec.h) that AVX2 and AVX-512 have alike. */
typedef __m128i vb;

/* A line for each word: */
/* clang-format off */
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

/* 16 elements of fp8 as f16: the exponent of e4m3 counts from 8 less. */
static inline __m256i load_e4m3(const uint8_t *p)
{
    __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), magnitude = _mm256_set1_epi16(0x7f);
    __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(wide, magnitude), magnitude);
    __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16((short)0xbf80));
    return _mm256_or_si256(half, _mm256_and_si256(nan, _mm256_set1_epi16(0x7c00)));
}
static inline __m256i load_e5m2(const uint8_t *p)
{
    return _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)), 8);
}
