/* SPDX-License-Identifier: Apache-2.0 */
/* The words for bytes (see vec.h) in SSSE3, which AVX2 and AVX-512 have alike. */
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
